/* bench_step.c - how late flash_session_step comes back: many deadlines while a long prompt is
   worked on, and while tokens are chosen. By two clocks: real time, in which other programs take
   turns, and the time of this thread, in which only its own work counts.
     bench_step [MODEL [MS [ROUNDS [THREADS]]]]   (examples/models/tale.gguf, 1, 500, 1) */
#define _POSIX_C_SOURCE 199309L
#include "../flash.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LATE_MAX = 1 << 20 };

static const struct {
    const char *name;
    clockid_t id;
} clocks[] = {{"real", CLOCK_MONOTONIC}, {"own", CLOCK_THREAD_CPUTIME_ID}};

typedef struct bench {
    flash_session *s;
    double ms;    /* of each step; 0: no deadline */
    int clock;    /* of clocks */
    int32_t *ids; /* [n] the prompt */
    int n;
    double *late[2]; /* [LATE_MAX] of steps of the prompt, of tokens      [s] */
    int steps[2], tokens[2];
    double spent[2]; /* [s] */
} bench;

#ifdef _WIN32
static double now(void *user) /* of this process, whatever was asked for */
{
    (void)user;
    return (double)clock() / CLOCKS_PER_SEC;
}
#else
static double now(void *user)
{
    const bench *b = user;
    struct timespec t;
    clock_gettime(clocks[b->clock].id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
#endif

static void fail(const char *what)
{
    fprintf(stderr, "bench_step: %s\n", what);
    exit(1);
}

static int up(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A deadline has passed: by so much. */
static void note(bench *b, int what, double deadline)
{
    if (deadline > 0 && b->steps[what] < LATE_MAX)
        b->late[what][b->steps[what]++] = now(b) - deadline;
}

/* The prompt in steps of so many ms, then tokens up to the end of the context, as many as go into
   the same time. */
static void story(bench *b)
{
    flash_status st = flash_session_feed(b->s, b->ids, (size_t)b->n);
    double begun = now(b), prompt;
    for (st = st ? st : FLASH_MORE; st == FLASH_MORE;) {
        flash_budget budget = {0, 0};
        budget.deadline = b->ms > 0 ? now(b) + 1e-3 * b->ms : 0;
        st = flash_session_step(b->s, &budget);
        if (st == FLASH_MORE) note(b, 0, budget.deadline);
    }
    prompt = now(b);
    b->spent[0] += prompt - begun;
    b->tokens[0] += b->n;
    while (st >= 0) {
        flash_budget budget = {0, 0};
        flash_piece piece;
        budget.deadline = b->ms > 0 ? now(b) + 1e-3 * b->ms : 0;
        do {
            st = flash_session_next(b->s, &budget, &piece);
            b->tokens[1] += st == FLASH_OK && piece.token >= 0;
        } while (st == FLASH_OK && b->ms > 0 && now(b) < budget.deadline);
        if (st >= 0) note(b, 1, budget.deadline);
    }
    b->spent[1] += now(b) - prompt;
    if (st != FLASH_E_RANGE) fail(flash_status_text(st));
    flash_session_reset(b->s);
}

/* The share of deadlines that were missed by at most so many ms. */
static double part(const bench *b, int what, double share)
{
    int k = (int)(share * b->steps[what]);
    return 1e3 * b->late[what][k < b->steps[what] ? k : b->steps[what] - 1];
}

static void tell(bench *b, const char *path)
{
    static const char *const works[] = {"prompt", "next"};
    for (int what = 0; what < 2; what++) {
        printf("bench step model=%s work=%s clock=%s tok_s=%.0f budget_ms=%g", path, works[what],
               clocks[b->clock].name, b->tokens[what] / b->spent[what], b->ms);
        if (b->steps[what]) {
            qsort(b->late[what], (size_t)b->steps[what], sizeof(double), up);
            printf(" n=%d late_ms_p50=%.3f p99=%.3f max=%.3f", b->steps[what], part(b, what, 0.5),
                   part(b, what, 0.99), part(b, what, 1));
        }
        putchar('\n');
        b->steps[what] = b->tokens[what] = 0;
        b->spent[what] = 0;
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "examples/models/tale.gguf";
    double ms = argc > 2 ? atof(argv[2]) : 1;
    int rounds = argc > 3 ? atoi(argv[3]) : 500;
    bench b = {0};
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    flash_model *m;
    flash_error err;
    if (!(ms > 0) || rounds < 1) fail("MS and ROUNDS are above 0");
    md.source.path = path;
    sd.threads = argc > 4 ? atoi(argv[4]) : 1;
    sd.host.clock = now;
    sd.host.user = &b;
    sd.sampler.ignore_end = 1;
    sd.sampler.temperature = 1;
    if (flash_model_load(&m, &md, &err)) fail(err.text);
    if (flash_session_create(&b.s, m, &sd)) fail("no such session");
    b.n = flash_session_capacity(b.s) * 3 / 4;
    b.ids = malloc((size_t)b.n * sizeof *b.ids);
    b.late[0] = malloc(LATE_MAX * sizeof(double));
    b.late[1] = malloc(LATE_MAX * sizeof(double));
    if (!b.ids || !b.late[0] || !b.late[1]) fail("out of memory");
    for (int i = 0; i < b.n; i++)
        b.ids[i] = (int32_t)((unsigned)i * 2654435761u % (unsigned)flash_model_arch(m)->n_vocab);

    story(&b); /* to warm up */
    for (int with = 0; with < 2; with++)
        for (b.clock = 0; b.clock < 2; b.clock++) {
            b.ms = with ? ms : 0;
            b.tokens[0] = b.tokens[1] = 0;
            b.spent[0] = b.spent[1] = 0;
            for (int r = 0; r < (with ? rounds : (rounds + 9) / 10); r++) story(&b);
            tell(&b, path);
        }
    flash_session_free(b.s);
    flash_model_free(m);
    free(b.ids);
    free(b.late[0]);
    free(b.late[1]);
    return 0;
}
