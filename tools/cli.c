/* cli.c - shared helpers of the subcommands, see cli.h. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime, fileno, isatty */
#include "cli.h"
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#define isatty _isatty
#define fileno _fileno
#else
#include <unistd.h>
#endif

static const char *cli_command = "";

static void cli_say(int status, const char *format, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "flash %s: ", cli_command);
    vfprintf(stderr, format, args);
    if (status == 2) fprintf(stderr, " (see flash %s --help)", cli_command);
    fputc('\n', stderr);
    if (status) exit(status);
}

void cli_note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cli_say(0, format, args);
    va_end(args);
}

void cli_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cli_say(1, format, args);
}

void cli_fail_file(const char *path, const flash_error *err)
{
    if (strncmp(err->text, path, strlen(path))) /* some texts begin with the file's name already */
        cli_fail("%s: %s", path, err->text);
    cli_fail("%s", err->text);
}

void cli_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cli_say(2, format, args);
}

void cli_log(void *user, int level, const char *text)
{
    (void)user;
    if (level > 0) fprintf(stderr, "flash %s: warning: %s\n", cli_command, text);
}

/* ---- options --------------------------------------------------------------- */

long cli_number(const char **p)
{
    char *end;
    if (**p < '0' || **p > '9') return -1;
    long v = strtol(*p, &end, 10);
    *p = end;
    return v;
}

int cli_lengths(const char *text, int to[CLI_LENGTHS])
{
    int n = 0;
    for (const char *p = text;; p++) {
        long v = cli_number(&p);
        if (v < 1 || v >= FLASH_CONTEXT_MAX || n == CLI_LENGTHS || (*p && *p != ','))
            cli_usage("-p %s: want up to %d lengths below %d, such as 512,2048", text,
                      (int)CLI_LENGTHS, (int)FLASH_CONTEXT_MAX);
        to[n++] = (int)v;
        if (!*p) return n;
    }
}

static void cli_help(const cli_option *o, const char *names, const char *notes)
{
    printf("usage: flash %s %s%s[options]\n\n", cli_command, names, *names ? " " : "");
    for (; o->name; o++) {
        printf("  %s %-*s  %s", o->name, (int)(20 - strlen(o->name)), o->value ? o->value : "",
               o->about);
        if (o->kind == CLI_ISA)
            for (int i = FLASH_ISA_AUTO + 1; i < FLASH_ISA_COUNT; i++)
                printf(" %s", flash_isa_name((flash_isa)i));
        putchar('\n');
    }
    printf("\n%s", notes);
    exit(0);
}

flash_type cli_kv(const char *what, const char *text)
{
    flash_type t = flash_type_parse(text);
    if (t != FLASH_TYPE_F32 && t != FLASH_TYPE_F16 && t != FLASH_TYPE_Q8_0)
        cli_usage("%s %s: want f32, f16 or q8_0", what, text);
    return t;
}

static void cli_set(const cli_option *o, const char *text)
{
    char *end = NULL;
    double number = 0;
    errno = 0;
    switch (o->kind) {
    case CLI_FLAG: *(int *)o->to = 1; return;
    case CLI_TEXT: *(const char **)o->to = text; return;
    case CLI_TEXTS: {
        cli_texts *list = o->to;
        if (list->n == sizeof list->at / sizeof *list->at)
            cli_usage("%s %s: one too many", o->name, text);
        list->at[list->n++] = text;
        return;
    }
    case CLI_ISA:
        *(flash_isa *)o->to = flash_isa_parse(text);
        if (*(flash_isa *)o->to == FLASH_ISA_COUNT)
            cli_usage("%s %s: there is no such instruction set", o->name, text);
        return;
    case CLI_KV: *(flash_type *)o->to = cli_kv(o->name, text); return;
    case CLI_FLOAT: number = strtod(text, &end); break;
    case CLI_INT:
    case CLI_SEED: {
        unsigned long long whole = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9') /* strtoull reads "-1" as a large number */
            end = NULL;
        number = (double)whole;
        if (o->kind == CLI_SEED) *(uint64_t *)o->to = whole;
        break;
    }
    }
    if (!end || end == text || *end || errno || !(number >= o->lo && number <= o->hi))
        cli_usage("%s %s: want a%s number from %.15g to %.15g", o->name, text,
                  o->kind == CLI_FLOAT ? "" : " whole", o->lo, o->hi);
    if (o->kind == CLI_FLOAT)
        *(float *)o->to = (float)number;
    else if (o->kind == CLI_INT)
        *(int *)o->to = (int)number;
}

/* Returns the i-th (from 0) of the names, which blanks separate, or the end of the text if there
   are fewer. */
static const char *cli_name(const char *names, int i)
{
    while (i-- && *names) {
        names += strcspn(names, " ");
        names += strspn(names, " ");
    }
    return names;
}

void cli_parse_all(int argc, char **argv, const cli_option *options, const char *names,
                   const char *notes, const char **got)
{
    int n = 0, want = 0;
    cli_command = argv[0];
    while (*cli_name(names, want)) got[want++] = NULL;
    for (int i = 1; i < argc; i++) {
        const cli_option *o = options;
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) cli_help(options, names, notes);
        while (o->name && strcmp(o->name, argv[i])) o++;
        if (o->name && o->kind != CLI_FLAG && i + 1 == argc)
            cli_usage("%s needs %s", o->name, o->value);
        if (o->name) cli_set(o, o->kind == CLI_FLAG ? NULL : argv[++i]);
        while (o->name && o->kind == CLI_TEXTS && i + 1 < argc
               && (argv[i + 1][0] != '-' || !argv[i + 1][1]))
            cli_set(o, argv[++i]);
        if (o->name) continue;
        if (argv[i][0] == '-' && argv[i][1])
            cli_usage("unknown option %s", argv[i]);
        else if (n == want && n == 1)
            cli_usage("one %s, not %s and %s", names, got[0], argv[i]);
        else if (n == want)
            cli_usage("%s is one too many%s%s", argv[i], n ? " after " : "", names);
        else
            got[n++] = argv[i];
    }
    names = cli_name(names, n);
    if (n < want && *names != '[') cli_usage("which %.*s?", (int)strcspn(names, " "), names);
}

const char *cli_parse(int argc, char **argv, const cli_option *options, const char *notes)
{
    const char *model;
    cli_parse_all(argc, argv, options, "MODEL", notes, &model);
    return model;
}

/* ---- files and terminals ----------------------------------------------------- */

char *cli_read(const char *path, size_t *bytes)
{
    int from_stdin = !path || !strcmp(path, "-");
    FILE *f = from_stdin ? stdin : fopen(path, "rb");
    size_t cap = 1 << 16, n = 0, got;
    if (!f) cli_fail("cannot open %s: %s", path, strerror(errno));
    char *text = malloc(cap);
    if (from_stdin) cli_binary(f);
    while (text && (got = fread(text + n, 1, cap - n - 1, f)) > 0) {
        n += got;
        if (n + 1 == cap) {
            char *more = cap > SIZE_MAX / 2 ? NULL : realloc(text, cap *= 2);
            if (!more) free(text);
            text = more;
        }
    }
    if (!text) cli_fail("out of memory while reading %s", from_stdin ? "standard input" : path);
    if (ferror(f))
        cli_fail("cannot read %s: %s", from_stdin ? "standard input" : path, strerror(errno));
    if (!from_stdin) fclose(f);
    text[n] = 0;
    *bytes = n;
    return text;
}

char *cli_read_texts(const cli_texts *files, size_t *bytes)
{
    const size_t end = sizeof CLI_TEXT_END - 1;
    char *all = NULL;
    *bytes = 0;
    for (int i = 0; i < files->n; i++) {
        size_t n;
        char *text = cli_read(files->at[i], &n);
        if (!n || memchr(text, 0, n)) cli_fail("%s is %s", files->at[i], n ? "no text" : "empty");
        all = realloc(all, *bytes + n + end + 1);
        if (!all) cli_fail("out of memory");
        memcpy(all + *bytes, text, n);
        *bytes += n;
        if (i + 1 < files->n) {
            memcpy(all + *bytes, CLI_TEXT_END, end);
            *bytes += end;
        }
        all[*bytes] = 0;
        free(text);
    }
    return all;
}

int32_t *cli_text_ids(const flash_model *m, const cli_texts *files, size_t *n)
{
    size_t bytes, cap = 0, got;
    char *text = cli_read_texts(files, &bytes), *end = text + bytes;
    int32_t eos = flash_token_eos(m), *ids = NULL;
    *n = 0;
    for (char *p = text, *next; p < end; p = next) {
        char *stop = strstr(p, CLI_TEXT_END);
        next = stop ? stop + strlen(CLI_TEXT_END) : end;
        stop = stop ? stop : end;
        while (p < stop && strchr(" \n\r\t", *p)) p++;
        while (stop > p && strchr(" \n\r\t", stop[-1])) stop--;
        if (p == stop) continue;
        int32_t *some = cli_tokenize(m, p, (size_t)(stop - p), 0, &got);
        if (*n + got + 1 > cap) {
            cap = 2 * (*n + got + 1);
            ids = realloc(ids, cap * sizeof *ids);
            if (!ids) cli_fail("out of memory");
        }
        memcpy(ids + *n, some, got * sizeof *some);
        *n += got;
        if (eos >= 0 && ids[*n - 1] != eos) ids[(*n)++] = eos;
        free(some);
    }
    if (!ids) cli_fail("%s has no text", files->at[0]);
    free(text);
    return ids;
}

int cli_is_terminal(FILE *f) { return isatty(fileno(f)); }

volatile sig_atomic_t cli_interrupted;
static flash_session *cli_running; /* for the signal handler, which takes no argument of ours */

static void cli_on_interrupt(int sig)
{
    signal(sig, SIG_DFL); /* a second Ctrl-C ends the program at once */
    cli_interrupted = 1;
    flash_session_cancel(cli_running);
}

void cli_interrupts(flash_session *s)
{
    if (s) {
        cli_running = s;
        cli_interrupted = 0;
    }
    signal(SIGINT, s ? cli_on_interrupt : SIG_DFL);
}

void cli_binary(FILE *f)
{
#ifdef _WIN32
    _setmode(_fileno(f), _O_BINARY);
#else
    (void)f;
#endif
}

char *cli_plain(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127 || *p == '"' || *p == '\\') *p = ' ';
    return text;
}

const char *cli_size(uint64_t bytes, char text[24])
{
    static const char unit[] = "BKMGTPE";
    double x = (double)bytes;
    int u = 0;
    for (; x >= 1000 && u < 6; u++) x /= 1024;
    if (u)
        snprintf(text, 24, "%.3g %ciB", x, unit[u]);
    else
        snprintf(text, 24, "%d B", (int)bytes);
    return text;
}

uint64_t cli_random(uint64_t *state) /* SplitMix64: Steele, Lea and Flood 2014 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void cli_shuffle(int *x, int n, uint64_t *state)
{
    for (int i = 0; i < n; i++) {
        int j = (int)(cli_random(state) % (uint64_t)(i + 1));
        x[i] = x[j];
        x[j] = i;
    }
}

double cli_seconds(void)
{
#ifdef _WIN32
    return (double)clock() / CLOCKS_PER_SEC; /* on Windows it counts real time */
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#endif
}

void cli_progress(const char *what, double done, double total)
{
    static double begun, shown;
    double now = cli_seconds();
    if (done <= 0) {
        begun = shown = now;
    } else if (done >= total) {
        if (shown != begun) fprintf(stderr, "\r%40s\r", "");
        shown = begun;
    } else if (now > begun + 2 && now > shown + 1 && cli_is_terminal(stderr)) {
        double left = (now - begun) * (total - done) / done;
        fprintf(stderr, "\r%s: %3.0f %%, %.0f:%02.0f left   ", what, 100 * done / total,
                floor(left / 60), floor(fmod(left, 60)));
        shown = now;
    }
}

/* ---- models ------------------------------------------------------------------ */

flash_model *cli_load(const flash_model_desc *desc)
{
    flash_model_desc d = *desc;
    flash_model *m;
    flash_error err;
    d.host.log = cli_log;
    if (flash_model_load(&m, &d, &err)) cli_fail_file(d.source.path, &err);
    return m;
}

flash_session *cli_session(const flash_model *m, const flash_session_desc *desc)
{
    flash_session *s;
    char size[24];
    flash_status st = flash_session_create(&s, m, desc);
    if (st == FLASH_E_MEMORY)
        cli_fail("no memory for a session of %s; try a smaller context (-c)",
                 cli_size(flash_session_memory(m, desc), size));
    if (st && desc->kv == FLASH_TYPE_Q8_0 && flash_model_arch(m)->d_head % 8)
        cli_fail("q8_0 needs heads of a multiple of 8 items, these have %d; try --kv f16",
                 flash_model_arch(m)->d_head);
    if (st) cli_fail("cannot start a session: %s", flash_status_text(st));
    return s;
}

/* Prints the layers l with chosen[l] not 0, such as " 2 4-6". chosen: [n]. */
static void cli_print_layers(const unsigned char *chosen, int n)
{
    for (int l = 0, end; l < n; l = end + 1) {
        for (end = l; end + 1 < n && chosen[l] && chosen[end + 1]; end++) {}
        if (chosen[l]) printf(end > l ? " %d-%d" : " %d", l, end);
    }
}

void cli_print_attention(const flash_arch *a)
{
    static const char *const names[] = {"full", "window", "skip", "conv", "linear", "chunk"};
    /* alike: the layers that do what layer i does; told: printed already; still: without RoPE. */
    unsigned char alike[FLASH_LAYERS_MAX], told[FLASH_LAYERS_MAX] = {0}, still[FLASH_LAYERS_MAX];
    int n = a->n_layer, any = 0;
    for (int i = 0; i < n; i++) {
        const flash_layer *y = &a->layer[i];
        int sees = y->attention == FLASH_ATTENTION_WINDOW || y->attention == FLASH_ATTENTION_CHUNK;
        int count = 0;
        still[i] = y->n_head && y->rope_base == 0;
        any |= still[i];
        if (told[i]) continue;
        for (int l = 0; l < n; l++) {
            alike[l] = a->layer[l].attention == y->attention
                && (!sees || a->layer[l].window == y->window);
            told[l] |= alike[l];
            count += alike[l];
        }
        printf("%s%s", i ? ", " : "", names[y->attention]);
        if (sees) printf(" %ld:", (long)y->window);
        if (y->attention == FLASH_ATTENTION_FULL)
            printf(" x %d", count);
        else
            cli_print_layers(alike, n);
    }
    if (any) {
        printf(", no RoPE");
        cli_print_layers(still, n);
    }
}

void cli_check_form(const cli_form *form)
{
    if (!!form->gbnf + !!form->schema + form->json > 1)
        cli_usage("--grammar, --json or --json-schema: one of them");
}

flash_grammar *cli_grammar(const flash_model *m, const cli_form *form)
{
    const char *path = form->gbnf ? form->gbnf : form->schema;
    flash_grammar_desc d = {0};
    flash_grammar *g = NULL;
    flash_error err;
    char *file = path ? cli_read(path, &d.bytes) : NULL, *text = NULL;
    size_t n = 0;
    if (!path && !form->json) return NULL;
    d.text = file ? file : flash_grammar_json();
    if (!file) d.bytes = strlen(d.text);
    if (form->schema) {
        flash_status st = flash_grammar_from_schema(file, d.bytes, NULL, 0, &n, &err);
        if (st != FLASH_E_RANGE) cli_fail_file(path, &err);
        if (!(text = malloc(n))) cli_fail("out of memory");
        flash_grammar_from_schema(file, d.bytes, text, n, &n, &err);
        d.text = text;
        d.bytes = n;
    }
    if (flash_grammar_create(&g, m, &d, &err)) cli_fail_file(path ? path : "--json", &err);
    free(text);
    free(file);
    return g;
}

int32_t *cli_tokenize(const flash_model *m, const char *text, size_t bytes, unsigned flags,
                      size_t *n)
{
    size_t cap = bytes + 16; /* enough unless a space costs several tokens */
    int32_t *ids = NULL;
    flash_status st = FLASH_E_RANGE;
    for (int pass = 0; pass < 2 && st == FLASH_E_RANGE; pass++, cap = *n) {
        free(ids);
        ids = cap > SIZE_MAX / sizeof *ids ? NULL : malloc(cap * sizeof *ids);
        st = ids ? flash_tokenize(m, text, bytes, flags, ids, cap, n) : FLASH_E_MEMORY;
    }
    if (st) cli_fail("cannot tokenise: %s", flash_status_text(st));
    return ids;
}

/* Copies at most 40 bytes of a token to text, for a message, and returns text. */
static const char *cli_token(const char *p, size_t bytes, char text[48])
{
    snprintf(text, 48, "%.*s", (int)(bytes < 40 ? bytes : 40), p);
    return cli_plain(text);
}

void cli_same_vocabulary(const flash_model *a, const char *a_path, const flash_model *b,
                         const char *b_path)
{
    flash_value v, w;
    size_t at[2] = {0, 0}, n[2];
    char text[2][48];
    if (flash_model_arch(a)->n_vocab != flash_model_arch(b)->n_vocab)
        cli_fail("%s has %d tokens, %s %d: they cannot be compared", a_path,
                 flash_model_arch(a)->n_vocab, b_path, flash_model_arch(b)->n_vocab);
    if (flash_gguf_find(flash_model_gguf(a), "tokenizer.ggml.tokens", &v)
        || flash_gguf_find(flash_model_gguf(b), "tokenizer.ggml.tokens", &w))
        return;
    for (int id = 0;; id++) {
        const char *x = flash_value_string(&v, at, n), *y = flash_value_string(&w, at + 1, n + 1);
        if (!x || !y) return;
        if (n[0] != n[1] || memcmp(x, y, n[0]))
            cli_fail("token %d is \"%s\" in %s, \"%s\" in %s: they cannot be compared", id,
                     cli_token(x, n[0], text[0]), a_path, cli_token(y, n[1], text[1]), b_path);
    }
}

int32_t *cli_ids(const flash_model *m, const char *text, size_t *n)
{
    static const char gap[] = " \t\r\n,";
    int32_t *ids = malloc((strlen(text) / 2 + 1) * sizeof *ids);
    flash_value v = {0};
    if (!ids) cli_fail("out of memory");
    flash_gguf_find(flash_model_gguf(m), "tokenizer.ggml.tokens", &v);
    for (*n = 0; *(text += strspn(text, gap));) {
        char *end;
        unsigned long id = strtoul(text, &end, 10);
        if (*text < '0' || *text > '9' || (*end && !strchr(gap, *end)))
            cli_fail("\"%.*s\" is no token id", (int)strcspn(text, gap), text);
        if (id >= v.count)
            cli_fail("token %.*s is outside the vocabulary of %lu", (int)(end - text), text,
                     (unsigned long)v.count);
        ids[(*n)++] = (int32_t)id;
        text = end;
    }
    return ids;
}

void cli_logits(flash_session *s, const flash_model *m, const int32_t *ids, size_t n,
                cli_each *each, void *user)
{
    int V = flash_model_arch(m)->n_vocab, first, rows;
    flash_status st;
    flash_session_reset(s);
    st = flash_session_feed(s, ids, n);
    while (st >= 0 && flash_session_pending(s)) {
        st = flash_session_step(s, NULL);
        const float *logits = flash_session_chunk_logits(s, &first, &rows);
        for (int r = 0; logits && r < rows; r++, logits += V) {
            double max = logits[0], sum = 0;
            for (int i = 1; i < V; i++) max = logits[i] > max ? logits[i] : max;
            for (int i = 0; i < V; i++) sum += exp(logits[i] - max);
            if (!(sum >= 1 && sum <= V)) /* a logit is NaN or infinite */
                cli_fail("the logits at position %d are no numbers: the weights are damaged",
                         first + r);
            each(user, first + r, logits, max + log(sum));
        }
    }
    if (st < 0) cli_fail("cannot run the model: %s", flash_status_text(st));
}
