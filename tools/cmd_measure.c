/* cmd_measure.c - flash measure: measures how fast shapes run here, into a profile. */
#define _POSIX_C_SOURCE 200809L /* sysconf */
#include "profile.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#if !defined(_WIN32) && !defined(__wasm__)
#include <unistd.h>
#endif

/* A shape to measure, spelled as in profiles. */
typedef struct candidate {
    char shape[160], attn[PROFILE_TEXT];
    const char *arch;
} candidate;

static int below(uint64_t *state, int n) { return (int)(cli_random(state) % (uint64_t)n); }

/* Draws a shape from table 3 of arxiv 2603.15954, each value equally likely, but with no three
   layers in a row that all lack full attention. */
static void paper_candidate(uint64_t *state, candidate *c)
{
    static const char *const kinds[] = {"full", "window:256", "skip"};
    int layers = 10 + below(state, 7), d = 1024 + 128 * below(state, 9);
    int ffn = 2048 + 256 * below(state, 25), kind[16], run, longest;
    do {
        longest = run = 0;
        for (int i = 0; i < layers; i++) {
            kind[i] = below(state, 3);
            run = kind[i] ? run + 1 : 0;
            longest = run > longest ? run : longest;
        }
    } while (longest > 2);
    snprintf(c->shape, sizeof c->shape,
             "d=%d,layers=%d,heads=32,kv=8,head=64,ffn=%d,vocab=202048,tied=1", d, layers, ffn);
    c->arch = "flash";
    *c->attn = 0;
    for (int i = 0; i < layers; i++) {
        strcat(c->attn, i ? "," : "");
        strcat(c->attn, kinds[kind[i]]);
    }
}

/* Reads shapes, [*n], from a file of lines "SHAPE [ATTN [ARCH]]", where # begins a comment. The
   caller frees them. */
static candidate *file_candidates(const char *path, int *n)
{
    static const char *const blank = " \t\r";
    size_t bytes;
    char *file = cli_read(path, &bytes), *end = file + bytes, *next = file;
    candidate *list = NULL;
    *n = 0;
    for (int line = 1; next; line++) {
        char *p = next, *word[3] = {"", "", ""};
        next = memchr(p, '\n', (size_t)(end - p));
        if (next) *next++ = 0;
        if (p + strlen(p) != (next ? next - 1 : end))
            cli_fail("%s, line %d: this is no text", path, line);
        p[strcspn(p, "#")] = 0;
        for (int i = 0; i < 3 && *(p += strspn(p, blank)); i++) {
            word[i] = p;
            p += strcspn(p, blank);
            if (*p) *p++ = 0;
        }
        if (*(p += strspn(p, blank)))
            cli_fail("%s, line %d: \"%s\" is one too many after SHAPE ATTN ARCH", path, line, p);
        if (!*word[0]) continue;
        if (*n == FLASH_LATENCY_POINTS_MAX)
            cli_fail("%s, line %d: more than %d shapes", path, line, *n);
        cli_shape shape;
        const char *why;
        if (strlen(word[0]) >= sizeof list->shape || strlen(word[1]) >= sizeof list->attn)
            cli_fail("%s, line %d: too long", path, line);
        if (!cli_shape_parse(word[0], *word[2] ? word[2] : NULL, *word[1] ? word[1] : NULL, &shape,
                             &why))
            cli_fail("%s, line %d: %s", path, line, why);
        list = realloc(list, ((size_t)*n + 1) * sizeof *list);
        if (!list) cli_fail("out of memory");
        strcpy(list[*n].shape, word[0]);
        strcpy(list[*n].attn, word[1]);
        list[(*n)++].arch = shape.arch;
    }
    free(file);
    if (!*n) cli_fail("%s: no shape in it", path);
    return list;
}

/* Returns the memory of this machine [B]; 0: not known. */
static double memory_here(void)
{
#if defined(_SC_PHYS_PAGES)
    return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
#else
    return 0;
#endif
}

static void to_arch(const candidate *c, flash_arch *a)
{
    static cli_shape shape;
    const char *why;
    if (!cli_shape_parse(c->shape, c->arch, *c->attn ? c->attn : NULL, &shape, &why))
        cli_fail("%s %s: %s", c->shape, c->attn, why);
    cli_shape_arch(&shape, a);
}

static double seconds(void *user)
{
    (void)user;
    return cli_seconds();
}

/* Fails if w, a workload of the shape c, cannot be measured here. */
static void check(const candidate *c, const flash_workload *w, const flash_measure_desc *how)
{
    flash_error err;
    double need = (double)flash_latency_memory(w, how, &err), memory = memory_here();
    if (!(need > 0)) cli_fail("%s %s: %s", c->shape, c->attn, err.text);
    if (memory > 0 && need > .9 * memory)
        cli_fail("%s needs %.1f GB, this machine has %.1f", c->shape, need * 1e-9, memory * 1e-9);
}

/* Returns 1 if p has a measurement of w by that plan, and marks it, so that the next call does not
   find it again. */
static int find(profile *p, const char *plan, const flash_workload *w)
{
    for (int i = 0; i < p->n; i++) {
        profile_entry *e = &p->entry[i];
        if (e->plan >= 0 && profile_same_work(&e->work, w) && !strcmp(p->plan[e->plan], plan)) {
            e->plan = -1;
            return 1;
        }
    }
    return 0;
}

static const char notes[] =
    "Measures how fast shapes would run here, with random weights of their sizes, and appends a\n"
    "line to PROFILE for each: flash fit makes a model of them. SPACE is paper (10 to 16 layers,\n"
    "d 1024 to 2048, ffn 2048 to 8192, each layer with full attention, a window of 256 or none,\n"
    "never three in a row without full attention; arxiv 2603.15954) or a file of lines\n"
    "  SHAPE [ATTN [ARCH]]      as flash make takes them\n"
    "All are measured in every round, each round in another random order: what disturbs one\n"
    "moment does not spoil a shape. A fixed small shape is timed before each, which shows drift.\n"
    "Every prompt length is its own measurement: the prompt, then tokens at that position. Stop\n"
    "at any time; --resume goes on where it ended, or adds --rounds and shapes. Close other\n"
    "programs: what else runs is measured, too.\n";

int cmd_measure(int argc, char **argv)
{
    const char *space = "paper", *prompts = "2048", *type_name = "Q4_0", *path = NULL;
    const char *reference = "d=1024,layers=6,heads=16,kv=4,head=64,ffn=4096,vocab=32768,tied=1";
    int n = 0, rounds = 3, threads = 1, chunk = 256, repeats = 2, tokens = 8, resume = 0;
    int found = 0, lengths[CLI_LENGTHS], n_lengths;
    uint64_t seed = 1;
    flash_type kv = FLASH_TYPE_Q8_0;
    flash_isa isa = FLASH_ISA_AUTO;
    const cli_option options[] = {
        {"--space", "SPACE", CLI_TEXT, &space, 0, 0, "paper (the default), or a file of shapes"},
        {"--n", "N", CLI_INT, &n, 1, FLASH_LATENCY_POINTS_MAX, "shapes (100, or all of the file)"},
        {"-p", "LIST", CLI_TEXT, &prompts, 0, 0,
         "prompt lengths (2048); tokens are written after them"},
        {"--type", "TYPE", CLI_TEXT, &type_name, 0, 0, "weights (Q4_0)"},
        {"--kv", "TYPE", CLI_KV, &kv, 0, 0, "keys and values: f32, f16, q8_0 (q8_0)"},
        {"-t", "THREADS", CLI_INT, &threads, 1, FLASH_THREADS_MAX, "threads (1)"},
        {"--chunk", "N", CLI_INT, &chunk, 1, FLASH_CONTEXT_MAX,
         "prompt tokens worked on together (256)"},
        {"--isa", "NAME", CLI_ISA, &isa, 0, 0, "instruction set (the best here):"},
        {"--rounds", "N", CLI_INT, &rounds, 1, 100, "through all of the shapes (3)"},
        {"-r", "REPEATS", CLI_INT, &repeats, 1, FLASH_LATENCY_REPEATS_MAX, "in each round (2)"},
        {"-n", "TOKENS", CLI_INT, &tokens, 1, 4096, "written in each repeat (8)"},
        {"--reference", "SHAPE", CLI_TEXT, &reference, 0, 0,
         "timed before each shape (91 M weights in 6 layers)"},
        {"--seed", "SEED", CLI_SEED, &seed, 0, 18446744073709551615.0, "of shapes and order (1)"},
        {"--resume", NULL, CLI_FLAG, &resume, 0, 0, "go on with PROFILE"},
        {"-o", "PROFILE", CLI_TEXT, &path, 0, 0, "the file to append to"},
        {0}};
    const char *nothing = NULL;
    cli_parse_all(argc, argv, options, "", notes, &nothing);
    if (!path) cli_usage("which profile? -o PROFILE");
    n_lengths = cli_lengths(prompts, lengths);
    static candidate fixed = {"", "", NULL};
    if (strlen(reference) >= sizeof fixed.shape)
        cli_usage("--reference: more than %d characters", (int)sizeof fixed.shape - 1);

    /* Spell the plan, and read what the profile has of it. */
    static char plan[PROFILE_TEXT];
    const char *type = flash_type_name(cli_type("--type", type_name, 0));
    flash_error err;
    profile p = {0};
    profile_machine here;
    profile_here(&here, isa);
    int bytes = snprintf(plan, sizeof plan,
                         "space=%s seed=%llu p=%s weights=%s kv=%s threads=%d "
                         "chunk=%d repeats=%d tokens=%d reference=%s",
                         space, (unsigned long long)seed, prompts, type, flash_type_name(kv),
                         threads, chunk, repeats, tokens, reference);
    if (bytes < 0 || bytes >= (int)sizeof plan) cli_usage("--space or -p: too long");
    cli_plain(plan);
    FILE *f = fopen(path, "rb");
    if (f) {
        fclose(f);
        if (!resume) cli_fail("%s is there already; --resume goes on with it", path);
        profile_read(path, &p);
        if (p.foreign) cli_fail("%s is no profile", path);
        if (p.n_plans && !profile_same_machine(&here, &p.machine))
            cli_fail("%s was measured on %s (%s, %d processors), this is %s (%s, %d processors): "
                     "choose another file",
                     path, p.machine.name, p.machine.isa, p.machine.processors, here.name, here.isa,
                     here.processors);
    }

    /* Choose the shapes, and their order in each round. */
    uint64_t state = seed;
    candidate *list;
    if (!strcmp(space, "paper")) {
        n = n ? n : 100;
        list = malloc((size_t)n * sizeof *list);
        for (int i = 0; list && i < n; i++) paper_candidate(&state, &list[i]);
    } else {
        list = file_candidates(space, &found);
        n = n && n < found ? n : found;
    }
    int jobs = rounds * n, *order = malloc((size_t)jobs * sizeof *order);
    char *done = malloc((size_t)jobs * (size_t)n_lengths);
    if (!list || !order || !done) cli_fail("out of memory");
    for (int round = 0; round < rounds; round++) cli_shuffle(order + round * n, n, &state);

    /* All of them must be possible before the first is measured. */
    flash_measure_desc how = {0};
    flash_workload w = {0};
    static flash_arch arch, small;
    double flops = 0, total = 0;
    strcpy(fixed.shape, reference);
    how.repeats = repeats;
    how.tokens = tokens;
    how.isa = isa;
    how.host.clock = seconds;
    to_arch(&fixed, &small);
    w.arch = &arch;
    w.weights = flash_type_parse(type);
    w.kv = kv;
    w.threads = threads;
    w.chunk = chunk;
    for (int i = 0; i < jobs * n_lengths; i++) {
        to_arch(&list[order[i / n_lengths]], &arch);
        w.prompt = w.position = lengths[i % n_lengths];
        check(&list[order[i / n_lengths]], &w, &how);
        done[i] = (char)find(&p, plan, &w);
        if (!done[i]) total += flash_arch_flops(&arch, 0, w.prompt);
    }
    flash_workload r = w;
    r.arch = &small;
    r.prompt = r.position = 256;
    check(&fixed, &r, &how);

    f = fopen(path, "ab");
    if (!f) cli_fail("cannot write %s: %s", path, strerror(errno));
    if (p.lines && !p.whole) /* its last line is torn, and stays as it is */
        fputc('\n', f);
    profile_write_machine(f, &here, plan);
    double begin = cli_seconds();
    int measured = 0;
    cli_progress("measure", 0, total);
    for (int i = 0; i < jobs * n_lengths; i++) {
        const candidate *c = &list[order[i / n_lengths]];
        profile_entry e = {0};
        flash_measurement m;
        w.prompt = w.position = lengths[i % n_lengths];
        if (done[i]) continue;
        to_arch(c, &arch);
        how.repeats = 1;
        if (flash_latency_measure(&m, &r, &how, &err))
            cli_fail("the reference shape: %s", err.text);
        how.repeats = repeats;
        e.at = cli_seconds() - begin;
        if (flash_latency_measure(&e.time, &w, &how, &err)) cli_fail("%s: %s", c->shape, err.text);
        e.reference = m.median;
        e.job = i / n_lengths;
        e.work = w;
        e.shape = c->shape;
        e.arch = c->arch;
        e.attn = c->attn;
        profile_write(f, &e);
        measured++;
        cli_progress("measure", flops += flash_arch_flops(&arch, 0, w.prompt), total);
    }
    cli_progress("measure", 1, 1);
    if (fclose(f)) cli_fail("cannot write %s: %s", path, strerror(errno));
    printf("%s: %d measured, %d were there; %d of %d lines skipped\n", path, measured,
           jobs * n_lengths - measured, p.bad, p.lines);
    profile_free(&p);
    free(list);
    free(order);
    free(done);
    return 0;
}
