/* cmd_bench.c - flash bench: measures how fast a model runs, and what the machine could do. */
#define _DEFAULT_SOURCE /* getrusage, mkstemp */
#include "cli.h"
#include "rewrite.h"
#include "shapes.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#if defined(_WIN32) || defined(__wasm__)
#define BENCH_ALONE /* one thread, one process: peak memory stays unknown (0) */
#else
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

enum { LIST_MAX = 32, REPEATS_MAX = 1000, HUGE_PAGE = 1 << 21, FRESH_GEN = 4 };

/* The values of one option, which commas separate. */
typedef struct list {
    int n, at[LIST_MAX];
} list;

/* One combination of the options' values, which is measured. */
typedef struct config {
    flash_isa isa;
    flash_type kv;
    int threads, prompt;
} config;

/* Figures that only a new process can measure. */
typedef struct fresh {
    double load_s, first_step_s, peak_bytes;
} fresh;

typedef struct bench {
    const char *path, *name; /* the file, and its name in the results */
    const char *attention;   /* pattern that replaces the model's; NULL: none */
    int gen, chunk, repeats, json;
    /* Numbers of weights: of the matrices in layers that every token of a prompt needs, and of
       those matrices (the head is one) that only its last token needs. */
    double layers, once;
    double bytes; /* size of both, which are read for each token that is written [B] */
    uint64_t file_bytes;
    int rounds; /* of flash_isa_spin: they take about 4 ms */
    size_t buffer_bytes;
    char *buffer;       /* [buffer_bytes], read to measure the speed of memory */
    char *memory;       /* the allocation that holds buffer */
    double done, total; /* work in tokens of prompt a thread; a token written counts as 5 */
} bench;

/* ---- options ----------------------------------------------------------------- */

static int read_whole(const char *option, const char *word, long hi)
{
    char *end;
    long n = strtol(word, &end, 10);
    if (*word < '0' || *word > '9' || *end || n < 1 || n > hi)
        cli_usage("%s %s: want whole numbers from 1 to %ld", option, word, hi);
    return (int)n;
}

static int read_prompt(const char *option, const char *word)
{
    return read_whole(option, word, FLASH_CONTEXT_MAX / 2);
}

static int read_threads(const char *option, const char *word)
{
#ifdef BENCH_ALONE
    return read_whole(option, word, 1);
#else
    return read_whole(option, word, 1024);
#endif
}

static int read_isa(const char *option, const char *word)
{
    flash_isa isa = flash_isa_parse(word);
    if (isa == FLASH_ISA_COUNT) cli_usage("%s %s: there is no such instruction set", option, word);
    return (int)isa;
}

static int read_kv(const char *option, const char *word) { return (int)cli_kv(option, word); }

static list read_list(const char *option, const char *text,
                      int (*read_word)(const char *option, const char *word))
{
    list l = {0, {0}};
    char word[32];
    for (;; text++) {
        size_t n = strcspn(text, ",");
        if (l.n == LIST_MAX) cli_usage("%s: at most %d of them", option, LIST_MAX);
        snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word), text);
        l.at[l.n++] = read_word(option, word);
        text += n;
        if (!*text) return l;
    }
}

/* ---- a file of random weights ------------------------------------------------ */

static char temporary[1024];
#ifndef BENCH_ALONE
static pid_t owner;
#endif

static void remove_temporary(void)
{
#ifndef BENCH_ALONE
    if (getpid() != owner) /* this is a child that measures */
        return;
#endif
    remove(temporary);
}

#ifndef BENCH_ALONE
static void on_signal(int sig)
{
    if (getpid() == owner) unlink(temporary);
    signal(sig, SIG_DFL);
    raise(sig);
}
#endif

/* Writes a model with random weights to a temporary file, which is removed when the program ends,
   and returns its path. */
static const char *make_temporary(const cli_shape *shape, flash_type type)
{
#ifdef BENCH_ALONE
    if (!tmpnam(temporary)) cli_fail("cannot name a temporary file");
    cli_make_model(temporary, shape, type, 1, 0);
#else
    static const int stops[] = {SIGINT, SIGTERM, SIGHUP};
    const char *dir = getenv("TMPDIR");
    snprintf(temporary, sizeof temporary, "%s/flash-bench-XXXXXX", dir && *dir ? dir : "/tmp");
    int fd = mkstemp(temporary);
    if (fd < 0) cli_fail("cannot make the temporary file %s: %s", temporary, strerror(errno));
    close(fd);
    unlink(temporary); /* cli_make_model makes it anew, and cleans up after itself */
    cli_make_model(temporary, shape, type, 1, 0);
    owner = getpid();
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
        if (signal(stops[i], on_signal) == SIG_IGN) /* nohup: it stays ignored */
            signal(stops[i], SIG_IGN);
#endif
    atexit(remove_temporary);
    return temporary;
}

/* ---- the machine's limits ---------------------------------------------------- */

/* The work that measures a limit of the machine. Each thread takes the next piece of it until none
   is left. */
typedef struct limit {
    const bench *b;
    flash_isa isa;
    int read;         /* 1: pieces of the buffer, 0: int8 products */
    int pieces, next; /* number of pieces; the next one to take */
    size_t piece;     /* size of a piece of the buffer [B] */
    double done;      /* bytes read, or operations (2 a product) */
#ifndef BENCH_ALONE
    pthread_mutex_t lock;
#endif
} limit;

/* Adds to what is done, and returns the number of the next piece. */
static int limit_next(limit *l, double done)
{
#ifndef BENCH_ALONE
    pthread_mutex_lock(&l->lock);
#endif
    int i = l->next++;
    l->done += done;
#ifndef BENCH_ALONE
    pthread_mutex_unlock(&l->lock);
#endif
    return i;
}

static void *limit_work(void *user)
{
    limit *l = user;
    double done = 0;
    for (int i; (i = limit_next(l, done)) < l->pieces;) {
        if (l->read) {
            volatile uint64_t sum = flash_isa_read(l->isa, l->b->buffer + (size_t)i * l->piece,
                                                   l->piece);
            (void)sum; /* volatile: it must be computed, though it is not used */
            done = (double)l->piece;
        } else {
            done = flash_isa_spin(l->isa, l->b->rounds);
        }
    }
    return NULL;
}

/* Returns how much so many threads do in a second, bytes read (read 1) or int8 operations (read 0):
   the best of three runs. */
static double limit_rate(const bench *b, flash_isa isa, int read, int threads)
{
    double best = 0;
    for (int pass = 0; pass < 3; pass++) {
        limit l = {0};
        l.b = b;
        l.isa = isa;
        l.read = read;
        l.pieces = 16 * threads; /* large pieces: each first asks the processor what it can do */
        if (read && b->buffer_bytes / HUGE_PAGE < (size_t)l.pieces)
            l.pieces = (int)(b->buffer_bytes / HUGE_PAGE);
        l.piece = b->buffer_bytes / (size_t)l.pieces / HUGE_PAGE * HUGE_PAGE;
        double begin = cli_seconds();
#ifdef BENCH_ALONE
        limit_work(&l);
#else
        pthread_t others[1024];
        int n = 0;
        pthread_mutex_init(&l.lock, NULL);
        while (n < threads - 1 && !pthread_create(&others[n], NULL, limit_work, &l)) n++;
        limit_work(&l);
        while (n > 0) pthread_join(others[--n], NULL);
        pthread_mutex_destroy(&l.lock);
#endif
        double rate = l.done / (cli_seconds() - begin);
        best = rate > best ? rate : best;
    }
    return best;
}

/* Returns how many rounds of flash_isa_spin take about 4 ms. */
static int spin_rounds(flash_isa isa)
{
    int rounds = 1;
    for (double took = 0; took < 4e-3 && rounds < 1 << 28;) {
        double begin = cli_seconds();
        rounds *= 2;
        flash_isa_spin(isa, rounds);
        took = cli_seconds() - begin;
    }
    return rounds;
}

/* Makes the buffer, of so many MiB or, for 0, of at least 512 MiB and four times the last cache, so
   that reading it reads memory. Writes to it, so that the system provides all of its pages. */
static void make_buffer(bench *b, int mib)
{
    size_t bytes = (size_t)512 << 20;
#ifdef _SC_LEVEL3_CACHE_SIZE
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (cache > 0 && 4 * (size_t)cache > bytes) bytes = 4 * (size_t)cache;
#endif
    if (mib) bytes = (size_t)mib << 20;
    b->buffer_bytes = bytes;
    b->memory = malloc(bytes + HUGE_PAGE);
    if (!b->memory)
        cli_fail("no memory for %lu MiB to read; try a smaller --buffer",
                 (unsigned long)(bytes >> 20));
    b->buffer = b->memory + (HUGE_PAGE - (uintptr_t)b->memory % HUGE_PAGE);
#ifdef MADV_HUGEPAGE /* small pages are 10 % slower than a mapped file in the cache */
    madvise(b->buffer, bytes, MADV_HUGEPAGE);
#endif
    memset(b->buffer, 1, bytes);
}

/* ---- the model --------------------------------------------------------------- */

/* Reads the file into the system's cache. First drops it from there, where the system can: a file
   that was just written lies in small pieces (Linux), which are 10 % slower to read. */
static void warm(const char *path)
{
    static char block[1 << 16];
    FILE *f = fopen(path, "rb");
#if !defined(BENCH_ALONE) && defined(POSIX_FADV_DONTNEED)
    if (f && !fsync(fileno(f))) posix_fadvise(fileno(f), 0, 0, POSIX_FADV_DONTNEED);
#endif
    while (f && fread(block, 1, sizeof block, f) == sizeof block) {}
    if (f) fclose(f);
}

/* Returns 1 if the tensor's name has text at offset `at`. */
static int name_has(const flash_tensor *t, size_t at, const char *text)
{
    size_t n = strlen(text);
    return t->name_bytes >= at + n && !memcmp(t->name + at, text, n);
}

static void count_weights(bench *b, const flash_model *m)
{
    const flash_gguf *g = flash_model_gguf(m);
    const flash_arch *a = flash_model_arch(m);
    const char *head = a->tied ? "token_embd.weight" : "output.weight";
    flash_tensor t;
    char last[32]; /* does all but keys and values for the last token alone */
    size_t n = (size_t)snprintf(last, sizeof last, "blk.%d.", a->n_layer - 1);
    int attends = a->layer[a->n_layer - 1].n_kv_head > 0;
    b->file_bytes = flash_gguf_size(g);
    for (size_t i = 0; !flash_gguf_tensor(g, i, &t); i++) {
        int is_head = t.name_bytes == strlen(head) && !memcmp(t.name, head, t.name_bytes);
        int in_layer = name_has(&t, 0, "blk.");
        int once = is_head;
        if (t.n_dims != 2 || !(is_head || in_layer) || cli_skipped(a, &t)) continue;
        if (name_has(&t, 0, last))
            once = name_has(&t, n, "ffn_")
                || (attends && (name_has(&t, n, "attn_q.") || name_has(&t, n, "attn_output.")));
        *(once ? &b->once : &b->layers) += (double)t.ne[0] * (double)t.ne[1];
        b->bytes += (double)t.bytes;
    }
}

static flash_session *start(const bench *b, const flash_model *m, const config *c)
{
    flash_session_desc sd = {0};
    sd.n_ctx = c->prompt + b->gen;
    sd.chunk = b->chunk;
    sd.threads = c->threads;
    sd.kv = c->kv;
    return cli_session(m, &sd);
}

static void step(flash_session *s, const int32_t *ids, size_t n)
{
    flash_status st = flash_session_feed(s, ids, n);
    while (st >= 0 && flash_session_pending(s)) st = flash_session_step(s, NULL);
    if (st < 0) cli_fail("cannot run the model: %s", flash_status_text(st));
}

/* Resets s, reads a prompt and writes gen tokens after it. *prefill_s, *decode_s: how long these
   took [s]. */
static void run(flash_session *s, const flash_model *m, int prompt, int gen, double *prefill_s,
                double *decode_s)
{
    int V = flash_model_arch(m)->n_vocab;
    int32_t *ids = malloc((size_t)prompt * sizeof *ids);
    if (!ids) cli_fail("out of memory");
    for (int i = 0; i < prompt; i++) ids[i] = (3 + (int)(i * 7919LL % 500)) % V;
    flash_session_reset(s);
    double begin = cli_seconds();
    step(s, ids, (size_t)prompt);
    double read = cli_seconds();
    for (int i = 0; i < gen; i++) {
        int32_t id = flash_session_sample(s);
        step(s, &id, 1);
    }
    *decode_s = cli_seconds() - read;
    *prefill_s = read - begin;
    free(ids);
}

static void run_fresh(const bench *b, const config *c, fresh *f)
{
    flash_model_desc md = {0};
    int32_t id = 0;
    double unused;
    md.source.path = b->path;
    md.attention = b->attention;
    md.isa = c->isa;
    double begin = cli_seconds();
    flash_model *m = cli_load(&md);
    flash_session *s = start(b, m, c);
    f->load_s = cli_seconds() - begin;
    step(s, &id, 1);
    f->first_step_s = cli_seconds() - begin;
    run(s, m, c->prompt, b->gen < FRESH_GEN ? b->gen : FRESH_GEN, &unused, &unused);
    flash_session_free(s);
    flash_model_free(m);
}

/* Measures in a new process, if the system has them: a process's peak of memory never falls. */
static fresh measure_fresh(const bench *b, const config *c)
{
    fresh f = {0, 0, 0};
#ifdef BENCH_ALONE
    run_fresh(b, c, &f);
#else
    int ends[2], status = 0;
    fflush(NULL);
    pid_t child = pipe(ends) ? -1 : fork();
    if (child < 0) cli_fail("cannot start a process: %s", strerror(errno));
    if (!child) {
        struct rusage used;
        run_fresh(b, c, &f);
        getrusage(RUSAGE_SELF, &used);
#ifdef __APPLE__
        f.peak_bytes = (double)used.ru_maxrss;
#else
        f.peak_bytes = (double)used.ru_maxrss * 1024;
#endif
        _exit(write(ends[1], &f, sizeof f) != (ssize_t)sizeof f);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], &f, sizeof f);
    close(ends[0]);
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status)) exit(WEXITSTATUS(status)); /* child said why */
    if (got != (ssize_t)sizeof f) cli_fail("the measuring process was killed; not enough memory?");
#endif
    return f;
}

/* ---- results ----------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Returns the median of x, [n], and sorts x. *spread becomes (largest - least) / median. */
static double median(double *x, int n, double *spread)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    double mid = (x[(n - 1) / 2] + x[n / 2]) / 2;
    *spread = (x[n - 1] - x[0]) / mid;
    return mid;
}

static void print_string(const char *text)
{
    putchar('"');
    for (; *text; text++)
        if ((unsigned char)*text < ' ')
            printf("\\u%04x", (unsigned char)*text);
        else
            printf(*text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    putchar('"');
}

static void print_part(double x, double peak)
{
    printf("  %7.1f of %7.1f", x, peak);
    if (peak > 0)
        printf(" %5.1f %%", 100 * x / peak);
    else
        printf("       -");
}

static void measure(bench *b, const flash_model *m, const config *c, const fresh *f)
{
    static double prefill[REPEATS_MAX], decode[REPEATS_MAX];
    const flash_arch *a = flash_model_arch(m);
    flash_isa isa = flash_model_isa(m);
    double read_peak = 0, int8_peak = 0, kv = 0, prefill_spread, decode_spread, rate;
    char size[24];
    flash_session *s = start(b, m, c);
    run(s, m, c->prompt, b->gen, prefill, decode); /* warm-up */
    for (int i = 0; i < b->repeats; i++) {
        rate = limit_rate(b, isa, 1, c->threads);
        read_peak = rate > read_peak ? rate : read_peak;
        run(s, m, c->prompt, b->gen, &prefill[i], &decode[i]);
        prefill[i] = c->prompt / prefill[i];
        decode[i] = b->gen / decode[i];
        rate = limit_rate(b, isa, 0, c->threads);
        int8_peak = rate > int8_peak ? rate : int8_peak;
        b->done += (double)(c->prompt + 5 * b->gen) / c->threads;
        cli_progress("bench", b->done, b->total);
    }
    flash_session_free(s);

    double p = median(prefill, b->repeats, &prefill_spread);
    double d = median(decode, b->repeats, &decode_spread);
    for (int i = 1; i <= b->gen; i++)
        kv += (double)flash_arch_kv_bytes(a, c->prompt + i, 0, c->kv) / b->gen;
    double gb = d * (b->bytes + kv) * 1e-9;
    double gop = p * 2e-9 * (b->layers + b->once / c->prompt);
    read_peak *= 1e-9;
    int8_peak *= 1e-9;
    if (b->json) {
        printf("{\"model\":");
        print_string(b->name);
        printf(",\"isa\":\"%s\",\"threads\":%d,\"kv\":\"%s\",\"prompt\":%d,\"gen\":%d",
               flash_isa_name(isa), c->threads, flash_type_name(c->kv), c->prompt, b->gen);
        printf(",\"prefill_tok_s\":%.6g,\"decode_tok_s\":%.6g,\"decode_gb_s\":%.6g"
               ",\"read_peak_gb_s\":%.6g,\"prefill_gop_s\":%.6g,\"int8_peak_gop_s\":%.6g",
               p, d, gb, read_peak, gop, int8_peak);
        printf(",\"peak_bytes\":%.0f,\"load_s\":%.6g,\"first_step_s\":%.6g", f->peak_bytes,
               f->load_s, f->first_step_s);
        printf(",\"file_bytes\":%.0f,\"kv_bytes\":%.0f,\"repeats\":%d,\"prefill_spread\":%.4g"
               ",\"decode_spread\":%.4g}\n",
               (double)b->file_bytes, (double)flash_arch_kv_bytes(a, c->prompt + b->gen, 0, c->kv),
               b->repeats, prefill_spread, decode_spread);
    } else {
        if (cli_is_terminal(stderr)) fprintf(stderr, "\r%40s\r", ""); /* wipes the progress */
        printf("%-11s %3d %-4s %6d %5d %9.1f %5.1f %%", flash_isa_name(isa), c->threads,
               flash_type_name(c->kv), c->prompt, b->gen, p, 100 * prefill_spread);
        print_part(gop, int8_peak);
        printf(" %9.1f %5.1f %%", d, 100 * decode_spread);
        print_part(gb, read_peak);
        printf(" %9s %6.2f ms\n", cli_size((uint64_t)f->peak_bytes, size), 1e3 * f->load_s);
    }
    fflush(stdout);
}

static const char notes[] =
    "LISTs are separated by commas; every combination is measured. A prompt of PROMPT tokens is\n"
    "read, then GEN tokens are written one by one, greedily. After one run to warm up come\n"
    "REPEATS runs; the result is their median, the spread is (largest - least) / median.\n"
    "  int8 operations, prefill   2 * (weights of the layers' matrices * PROMPT + those of the\n"
    "                             head and of the last layer's but for keys and values, needed\n"
    "                             once); attention is not counted\n"
    "  bytes, decode              of all layers' matrices and the head, once for each token, and\n"
    "                             of the keys and values of the tokens so far\n"
    "Next to them are the machine's limits, measured between the runs on as many threads (the\n"
    "best counts): int8 multiply-adds on registers with the same instruction set, and reading a\n"
    "buffer. Memory is the peak of resident memory, the mapped file included, and load the time\n"
    "until the first step can begin, both in a new process, with the file in the system's cache.\n"
    "--json writes a line for each combination. GB and GOP are 1e9.\n";

int cmd_bench(int argc, char **argv)
{
    const char *prompts = "512", *threads = "1", *isas = "auto", *kvs = "f16", *shape_name = NULL;
    const char *type_name = NULL;
    char shape_about[256], name[256], size[24];
    int buffer_mib = 0;
    static cli_shape shape; /* too large for the stack */
    const char *why;
    flash_model_desc md = {0};
    flash_model *m;
    bench b = {0};
    const cli_option options[] = {
        {"--shape", "SHAPE", CLI_TEXT, &shape_name, 0, 0, shape_about},
        {"--type", "TYPE", CLI_TEXT, &type_name, 0, 0, "its weights (Q4_0)"},
        {"-p", "LIST", CLI_TEXT, &prompts, 0, 0, "PROMPT: tokens to read (512)"},
        {"-n", "GEN", CLI_INT, &b.gen, 1, FLASH_CONTEXT_MAX / 2, "tokens to write (64)"},
        {"-t", "LIST", CLI_TEXT, &threads, 0, 0, "threads (1)"},
        {"--isa", "LIST", CLI_TEXT, &isas, 0, 0, "instruction sets (auto: the best here)"},
        {"--kv", "LIST", CLI_TEXT, &kvs, 0, 0, "keys and values: f32, f16, q8_0 (f16)"},
        {"--chunk", "N", CLI_INT, &b.chunk, 1, FLASH_CONTEXT_MAX,
         "prompt tokens worked on together (as the library chooses)"},
        {"-r", "REPEATS", CLI_INT, &b.repeats, 1, REPEATS_MAX, "measured runs (5)"},
        {"--buffer", "MIB", CLI_INT, &buffer_mib, 2, 65536,
         "to measure reading with (512, or 4 times the last cache if more)"},
        CLI_ATTN_OPTION(md),
        {"--json", NULL, CLI_FLAG, &b.json, 0, 0, "JSON lines"},
        {0}};
    b.gen = 64;
    b.repeats = 5;
    snprintf(shape_about, sizeof shape_about, "random weights instead of MODEL: %s",
             cli_shape_names);
    cli_parse_all(argc, argv, options, "[MODEL]", notes, &b.path);
    if (!b.path == !shape_name) cli_usage("which MODEL or --shape? One of them");
    if (type_name && !shape_name) cli_usage("--type goes with --shape");
    b.name = b.path;
    b.attention = md.attention;
    list of_p = read_list("-p", prompts, read_prompt);
    list of_t = read_list("-t", threads, read_threads);
    list of_isa = read_list("--isa", isas, read_isa), of_kv = read_list("--kv", kvs, read_kv);
    if (shape_name) {
        flash_type type = cli_type("--type", type_name ? type_name : "Q4_0", 1);
        if (!cli_shape_parse(shape_name, NULL, NULL, &shape, &why))
            cli_usage("--shape %s: %s; want one of %s, or as flash make --help says", shape_name,
                      why, cli_shape_names);
        snprintf(name, sizeof name, "%s %s", shape_name, flash_type_name(type));
        b.name = name;
        b.path = make_temporary(&shape, type);
    }

    /* Everything that can be refused is refused before the first measurement. */
    md.source.path = b.path;
    int n = of_isa.n * of_kv.n * of_t.n * of_p.n;
    config *c = malloc((size_t)n * sizeof *c);
    fresh *f = malloc((size_t)n * sizeof *f);
    if (!c || !f) cli_fail("out of memory");
    for (int i = 0; i < n; i++) {
        int j = i;
        c[i].prompt = of_p.at[j % of_p.n];
        c[i].threads = of_t.at[(j /= of_p.n) % of_t.n];
        c[i].kv = (flash_type)of_kv.at[(j /= of_t.n) % of_kv.n];
        md.isa = c[i].isa = (flash_isa)of_isa.at[j / of_kv.n];
        m = cli_load(&md);
        flash_session_free(start(&b, m, &c[i]));
        if (!i) count_weights(&b, m);
        flash_model_free(m);
        b.total += (double)(b.repeats * (c[i].prompt + 5 * b.gen) + c[i].prompt) / c[i].threads;
    }
    warm(b.path);
    cli_progress("bench", 0, b.total);
    for (int i = 0; i < n; i++) { /* before the buffer, which would count as their memory */
        f[i] = measure_fresh(&b, &c[i]);
        cli_progress("bench", b.done += (double)c[i].prompt / c[i].threads, b.total);
    }
    make_buffer(&b, buffer_mib);
    if (!b.json)
        printf("%s, %s, %.1f M weights\n"
               "%-11s %3s %-4s %6s %5s %9s %7s  %7s of %7s %7s %9s %7s  %7s of %7s %7s %9s %9s\n",
               b.name, cli_size(b.file_bytes, size), (b.layers + b.once) * 1e-6, "isa", "thr", "kv",
               "prompt", "gen", "prefill", "spread", "GOP/s", "int8", "", "decode", "spread",
               "GB/s", "read", "", "memory", "load");
    for (int i = 0; i < n; i++) {
        md.isa = c[i].isa;
        m = cli_load(&md);
        b.rounds = spin_rounds(flash_model_isa(m));
        measure(&b, m, &c[i], &f[i]);
        flash_model_free(m);
    }
    cli_progress("bench", 1, 1);
    free(b.memory);
    free(c);
    free(f);
    return 0;
}
