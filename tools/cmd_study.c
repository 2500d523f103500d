/* cmd_study.c - flash study: answers the questions of MobileLLM-Flash (arxiv 2603.15954) for the
   backbone, text and device of a design. */
#include "plan.h"
#include "process.h"
#include "stats.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef _WIN32
#include <direct.h>
#define mkdir(path, mode) _mkdir(path)
#endif

enum { JOBS = 1024 };

typedef struct job {
    candidate c;
    int steps, scratch; /* as for result_get */
    result r;
} job;

typedef struct study {
    plan p;
    char *folder;
    job *job; /* [n] of at most JOBS */
    int n, parallel;
} study;

static study of;

static void *need(void *p)
{
    if (!p) cli_fail("out of memory");
    return p;
}

/* Returns the name of the file that keeps the result of k; the caller frees it. */
static char *result_path(const job *k)
{
    static char options[PLAN_ATTN + 128];
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (const char *s = candidate_options(&k->c, options); *s; s++)
        h = (h ^ (unsigned char)*s) * 1099511628211u;
    char *path = need(malloc(strlen(of.folder) + 64));
    sprintf(path, "%s/%016llx-%d%s", of.folder, (unsigned long long)h, k->steps,
            k->scratch ? "-scratch" : "");
    return path;
}

static int add(const candidate *c, int steps, int scratch)
{
    if (of.n == JOBS) cli_fail("more than %d candidates", JOBS);
    of.job[of.n].c = *c;
    of.job[of.n].steps = steps;
    of.job[of.n].scratch = scratch;
    return of.n++;
}

static int run_job(void *user, int i)
{
    job *k = of.job + i;
    (void)user;
    char *path = result_path(k);
    result_get(&of.p, &k->c, k->steps, k->scratch, 1, path, 0, &k->r);
    free(path);
    return 0;
}

static void run_all(const char *what)
{
    process_pool(what, of.n, of.parallel, run_job, NULL);
    for (int i = 0; i < of.n; i++) /* reads the results from their files */
        run_job(NULL, i);
}

/* Draws n random candidates of the space into c. */
static void draw(int n, candidate *c)
{
    flash_search_desc d;
    flash_search *s;
    flash_trial t;
    flash_error err;
    journal j;
    memset(&d, 0, sizeof d);
    memset(&j, 0, sizeof j);
    j.sp = of.p.sp;
    d.param = of.p.sp.param;
    d.n_param = of.p.sp.n_param;
    d.method = FLASH_SEARCH_RANDOM;
    d.seed = of.p.seed + 1;
    d.max_trials = n;
    space_rules(&j, &d);
    if (flash_search_create(&s, &d, &err)) cli_fail("%s: %s", of.p.space, err.text);
    for (int i = 0; i < n; i++) {
        if (flash_search_ask(s, &t, &err)) cli_fail("%s: %s", of.p.space, err.text);
        plan_candidate(&of.p, t.x, c + i);
    }
    flash_search_free(s);
}

/* ---- does a short training tell which candidate is better? --------------------------------- */

static void study_rank(int n, int longer)
{
    static const char *const name[] = {"unhealed", "unhealed_kl", "short", "long", "scratch"};
    candidate *c = need(malloc((size_t)n * sizeof *c));
    double *v[5];
    draw(n, c);
    for (int i = 0; i < n; i++) {
        add(c + i, of.p.steps, 0);
        add(c + i, of.p.steps * longer, 0);
        add(c + i, of.p.steps * longer, 1);
    }
    run_all("rank");
    for (int k = 0; k < 5; k++) v[k] = need(malloc((size_t)n * sizeof **v));
    for (int i = 0; i < n; i++) {
        const result *r[3] = {&of.job[3 * i].r, &of.job[3 * i + 1].r, &of.job[3 * i + 2].r};
        const double all[] = {r[0]->unhealed, r[0]->unhealed_kl, r[0]->loss, r[1]->loss,
                              r[2]->loss};
        for (int k = 0; k < 5; k++) v[k][i] = all[k];
    }
    for (int a = 0; a < 5; a++)
        for (int b = a + 1; b < 5; b++)
            if (b >= 2)
                printf("study rank %s-%s n=%d steps=%d longer=%d tau=%.3f error=%.3f\n", name[a],
                       name[b], n, of.p.steps, longer, stats_kendall(v[a], v[b], n),
                       stats_kendall_error(v[a], v[b], n));
    for (int k = 0; k < 5; k++) free(v[k]);
    free(c);
}

/* ---- patterns of the whole backbone --------------------------------------------------------- */

/* Returns the backbone with the attention `what` in each layer l whose bit l of mask is set. */
static candidate patterned(unsigned mask, const char *what)
{
    candidate c = {0, 0, 0, 0, ""};
    for (int l = 0; l < flash_model_arch(of.p.m)->n_layer; l++) {
        strcat(c.attn, l ? "," : "");
        strcat(c.attn, mask >> l & 1 ? what : "keep");
    }
    return c;
}

static int bits(unsigned mask)
{
    int n = 0;
    for (; mask; mask &= mask - 1) n++;
    return n;
}

static int need_small(void)
{
    int L = flash_model_arch(of.p.m)->n_layer;
    if (L < 4 || L > 16)
        cli_fail("%s has %d layers; this question is for 4 to 16", of.p.backbone, L);
    return L;
}

/* Returns the masks of layers that `fits` allows, [*n], or random ones of them if there are more
   than `most`. The caller frees them. */
static unsigned *masks(int layers, int (*fits)(unsigned mask, int k), int k, int most, int *n)
{
    unsigned *list = need(malloc(sizeof *list << layers));
    uint64_t state = of.p.seed;
    *n = 0;
    for (unsigned mask = 2; mask < 1u << layers; mask += 2) /* layer 0 keeps its attention */
        if (fits(mask, k)) list[(*n)++] = mask;
    for (int i = 0; i < *n && i < most; i++) {
        int j = i + (int)(cli_random(&state) % (uint64_t)(*n - i));
        unsigned swap = list[i];
        list[i] = list[j];
        list[j] = swap;
    }
    *n = *n < most ? *n : most;
    return list;
}

/* Masks of k layers: at most two in a row; none next to another; all in a row. */
static int short_runs(unsigned mask, int k)
{
    return bits(mask) == k && !(mask & mask >> 1 & mask >> 2);
}
static int apart(unsigned mask, int k) { return bits(mask) == k && !(mask & mask >> 1); }
static int in_a_row(unsigned mask, int k)
{
    while (mask && !(mask & 1)) mask >>= 1;
    return bits(mask) == k && !(mask & (mask + 1));
}

/* Compares skipping attention with a window in the same layers. n: most patterns of k layers. */
static void study_window(int n)
{
    int layers = need_small(), window = flash_model_arch(of.p.m)->n_ctx / 8;
    char what[32];
    candidate c;
    snprintf(what, sizeof what, "window:%d", window > 16 ? window : 16);
    for (int k = 1; k <= (layers + 1) / 2; k++) {
        int some, from = of.n;
        unsigned *list = masks(layers, short_runs, k, n, &some);
        for (int i = 0; i < some; i++) {
            c = patterned(list[i], "skip");
            add(&c, of.p.steps, 0);
            c = patterned(list[i], what);
            add(&c, of.p.steps, 0);
        }
        run_all("window");
        double *v[2], error, slower, ratio_error, more;
        for (int a = 0; a < 2; a++) v[a] = need(malloc((size_t)some * sizeof **v));
        for (int i = 0; i < some; i++) {
            v[0][i] = of.job[from + 2 * i].r.loss - of.job[from + 2 * i + 1].r.loss;
            v[1][i] = of.job[from + 2 * i + 1].r.ttft / of.job[from + 2 * i].r.ttft;
        }
        more = stats_mean(v[0], NULL, some, &error);
        slower = stats_mean(v[1], NULL, some, &ratio_error);
        printf("study window layers=%d patterns=%d %s loss_skip_minus_window=%.4f error=%.4f "
               "ttft_window_over_skip=%.3f error=%.3f\n",
               k, some, what, more, error, slower, ratio_error);
        for (int a = 0; a < 2; a++) free(v[a]);
        free(list);
    }
}

/* Compares k skips next to each other with k skips apart. n: most patterns of a kind. */
static void study_place(int n)
{
    int layers = need_small();
    for (int k = 2; 2 * k <= layers; k++) {
        double mean[2], error[2];
        int some[2];
        for (int a = 0; a < 2; a++) {
            int from = of.n;
            unsigned *list = masks(layers, a ? apart : in_a_row, k, n, &some[a]);
            double *v = need(malloc((size_t)some[a] * sizeof *v));
            for (int i = 0; i < some[a]; i++) {
                candidate c = patterned(list[i], "skip");
                add(&c, of.p.steps, 0);
            }
            run_all("place");
            for (int i = 0; i < some[a]; i++) v[i] = of.job[from + i].r.loss;
            mean[a] = stats_mean(v, NULL, some[a], &error[a]);
            free(v);
            free(list);
        }
        printf("study place skips=%d consecutive=%.4f error=%.4f patterns=%d interleaved=%.4f "
               "error=%.4f patterns=%d\n",
               k, mean[0], error[0], some[0], mean[1], error[1], some[1]);
    }
}

/* ---- shallow and wide, or deep and narrow ---------------------------------------------- */

/* Compares numbers of layers, from half of the backbone's up, with widths such that all candidates
   have about as many weights as the backbone with half its layers. */
static void study_depth(void)
{
    const flash_arch *b = flash_model_arch(of.p.m);
    flash_arch a;
    candidate half = {(b->n_layer + 1) / 2, 0, 0, 0, ""};
    int most = 0, from = of.n;
    candidate_arch(&of.p, &half, &a);
    double want = (double)flash_arch_params(&a);
    for (int l = 0; l < b->n_layer; l++) most = b->layer[l].d_ffn > most ? b->layer[l].d_ffn : most;
    for (int layers = half.layers; layers <= b->n_layer; layers++) {
        candidate best = {0, 0, 0, 0, ""};
        double least = INFINITY;
        for (int d = 32; d <= b->d_model; d += 32)
            for (int ffn = 32; ffn <= most; ffn += 32) {
                candidate c = {layers, d, ffn, 0, ""};
                candidate_arch(&of.p, &c, &a);
                double off = fabs(log((double)flash_arch_params(&a) / want)),
                       odd = fabs(log((double)ffn / d * b->d_model / most));
                if (off < .05 && off + .1 * odd < least) { /* prefers the backbone's proportions */
                    least = off + .1 * odd;
                    best = c;
                }
            }
        if (best.layers) add(&best, of.p.steps, 0);
    }
    run_all("depth");
    for (int i = from; i < of.n; i++) {
        const job *k = of.job + i;
        double error;
        double more = stats_mean(k->r.each, of.job[from].r.each, k->r.n, &error);
        candidate_arch(&of.p, &k->c, &a);
        printf("study depth layers=%d d_model=%d d_ffn=%d weights=%llu loss=%.4f ttft_ms=%.4f "
               "loss_more_than_shallowest=%.4f error=%.4f\n",
               k->c.layers, k->c.d_model, k->c.d_ffn, (unsigned long long)flash_arch_params(&a),
               k->r.loss, 1e3 * k->r.ttft, more, error);
    }
}

/* ---- which search? --------------------------------------------------------------------- */

enum { METHODS = 3 };
static const flash_search_method methods[METHODS] = {FLASH_SEARCH_EHVI, FLASH_SEARCH_NSGA2,
                                                     FLASH_SEARCH_RANDOM};
static const char *const method_names[METHODS] = {"ehvi", "nsga2", "random"};

typedef struct race {
    int trials, seeds;
    double worst[2]; /* reference of the hypervolume: divergence [nat a token], TTFT [s] */
} race;

static double known_ttft(void *user, const double *x)
{
    flash_interval ttft;
    candidate c;
    plan_candidate(&of.p, x, &c);
    (void)user;
    return candidate_times(&of.p, &c, &ttft, NULL) ? ttft.mean : 1e9;
}

static int space_feasible(void *user, const double *x)
{
    flash_search_desc d;
    memset(&d, 0, sizeof d);
    space_rules(user, &d);
    return !d.feasible || d.feasible(user, x);
}

static char *race_path(const race *r, int i)
{
    char *path = need(malloc(strlen(of.folder) + 64));
    sprintf(path, "%s/search-%s-%d-%d", of.folder, method_names[i % METHODS], r->trials,
            i / METHODS + 1);
    return path;
}

/* Runs search i and writes its hypervolume to a file, unless that is there. The quality is the
   divergence of candidates that are not healed: healing all of them would take days. */
static int run_race(void *user, int i)
{
    const race *r = user;
    char *path = race_path(r, i);
    flash_search_desc d;
    flash_search_summary sum;
    flash_search *s;
    flash_trial t;
    flash_error err;
    journal j;
    static result got;
    FILE *f = fopen(path, "rb");
    if (f) {
        fclose(f);
        free(path);
        return 0;
    }
    memset(&d, 0, sizeof d);
    memset(&j, 0, sizeof j);
    j.sp = of.p.sp;
    d.param = of.p.sp.param;
    d.n_param = of.p.sp.n_param;
    d.known[1] = known_ttft;
    space_rules(&j, &d);
    d.feasible = space_feasible;
    d.reference = r->worst;
    d.method = methods[i % METHODS];
    d.seed = (uint64_t)(i / METHODS) + 1;
    d.max_trials = r->trials;
    d.population = 20;
    if (flash_search_create(&s, &d, &err)) cli_fail("%s: %s", of.p.space, err.text);
    for (int k = 0; k < r->trials; k++) {
        candidate c;
        if (flash_search_ask(s, &t, &err)) cli_fail("%s: %s", of.p.space, err.text);
        plan_candidate(&of.p, t.x, &c);
        result_get(&of.p, &c, 0, 0, 1, NULL, 0, &got);
        if (flash_search_tell(s, t.id, (const double[]){got.unhealed_kl, got.ttft}, &err))
            cli_fail("%s: %s", of.p.space, err.text);
    }
    flash_search_summarize(s, &sum);
    f = cli_open(path);
    fprintf(f, "%.17g\n", sum.hypervolume);
    cli_close(path);
    flash_search_free(s);
    free(path);
    return 0;
}

static void study_search(int trials, int seeds)
{
    const flash_arch *a = flash_model_arch(of.p.m);
    candidate whole = {0, 0, 0, 0, ""};
    flash_interval ttft;
    race r = {trials, seeds, {0, 0}};
    double *v[METHODS], *ratio = need(malloc((size_t)seeds * sizeof *ratio));
    candidate_times(&of.p, &whole, &ttft, NULL);
    r.worst[0] = log(a->n_vocab); /* as of equally likely tokens */
    r.worst[1] = ttft.mean;
    process_pool("search", METHODS * seeds, of.parallel, run_race, &r);
    for (int m = 0; m < METHODS; m++) {
        v[m] = need(malloc((size_t)seeds * sizeof **v));
        for (int k = 0; k < seeds; k++) {
            char *path = race_path(&r, METHODS * k + m), *text;
            size_t bytes;
            text = cli_read(path, &bytes);
            v[m][k] = strtod(text, NULL);
            free(text);
            free(path);
        }
    }
    for (int m = 0; m < METHODS; m++) {
        double *copy = need(malloc((size_t)seeds * sizeof *copy));
        memcpy(copy, v[m], (size_t)seeds * sizeof *copy);
        double middle = stats_median(copy, seeds);
        printf("study search %s trials=%d seeds=%d hypervolume=%.6g least=%.6g most=%.6g",
               method_names[m], trials, seeds, middle, copy[0], copy[seeds - 1]);
        for (int k = 0; m && k < seeds; k++) ratio[k] = v[0][k] / v[m][k];
        if (m) printf(" ehvi_over_it=%.3f", stats_median(ratio, seeds));
        if (m) printf(" least=%.3f most=%.3f", ratio[0], ratio[seeds - 1]);
        putchar('\n');
        free(copy);
    }
    for (int m = 0; m < METHODS; m++) free(v[m]);
    free(ratio);
}

/* ---- the command ----------------------------------------------------------------------- */

int cmd_study(int argc, char **argv)
{
    const char *arg[2];
    int n = 24, longer = 10, trials = 100, seeds = 5;
    of.parallel = 1;
    const cli_option options[] = {
        {"-n", "N", CLI_INT, &n, 2, 300, "candidates, or patterns of a kind at most (24)"},
        {"--longer", "N", CLI_INT, &longer, 1, 1000, "times as many steps: of rank (10)"},
        {"--trials", "N", CLI_INT, &trials, 10, 1000, "of search (100)"},
        {"--seeds", "N", CLI_INT, &seeds, 1, 100, "of search (5)"},
        {"-j", "N", CLI_INT, &of.parallel, 1, PROCESSES_MAX, "processes at once (1)"},
        {0}};
    cli_parse_all(
        argc, argv, options, "RUN QUESTION",
        "Asks what MobileLLM-Flash asked, of the backbone, text, space and device of RUN, the\n"
        "folder of a flash design. QUESTION is\n"
        "  rank    do losses after a short healing order candidates like those after a long one,\n"
        "          and like training from scratch? Kendall's tau\n"
        "  window  skip attention, or let it see a window, in the same layers? Loss and TTFT\n"
        "  place   layers that skip next to each other, or apart?\n"
        "  depth   shallow and wide, or deep and narrow, with as many weights?\n"
        "  search  Gaussian processes, NSGA-II or chance? Hypervolume of the divergence without\n"
        "          healing, and TTFT, after as many trials\n"
        "error is the standard error: over patterns, over held-out sequences (depth), over\n"
        "samples of candidates (rank). Results are kept in RUN/study: the same command goes on.\n",
        arg);
    static const char *const questions[] = {"rank", "window", "place", "depth", "search"};
    int q = 0;
    while (q < 5 && strcmp(arg[1], questions[q])) q++;
    if (q == 5) cli_usage("%s: want rank, window, place, depth or search", arg[1]);
    char *path = need(malloc(strlen(arg[0]) + 32));
    plan_read(strcat(strcpy(path, arg[0]), "/plan.json"), &of.p);
    plan_open(&of.p);
    of.folder = need(malloc(strlen(arg[0]) + 32));
    strcat(strcpy(of.folder, arg[0]), "/study");
    if (mkdir(of.folder, 0777) && errno != EEXIST)
        cli_fail("cannot make the folder %s: %s", of.folder, strerror(errno));
    of.job = need(malloc(JOBS * sizeof *of.job));
    process_catch_stops();
    switch (q) {
    case 0: study_rank(n, longer); break;
    case 1: study_window(n); break;
    case 2: study_place(n); break;
    case 3: study_depth(); break;
    default: study_search(trials, seeds);
    }
    plan_close(&of.p);
    free(of.job);
    free(of.folder);
    free(path);
    return 0;
}
