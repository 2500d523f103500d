/* cmd_quantize.c - flash quantize: rewrites a model file with its matrices in another type. */
#define _POSIX_C_SOURCE 200809L /* regcomp */
#include "rewrite.h"
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#define NO_REGEX
#else
#ifdef __TINYC__
#define _REGEX_NELTS(n) /* tcc cannot read the array sizes in glibc's regex.h */
#endif
#include <regex.h>
#endif

typedef struct job {
    const flash_gguf *g;
    flash_gguf_writer w;
    flash_type want;      /* of the matrices */
    const void *keep;     /* regex_t of tensors that keep their type; NULL: none do */
    cli_weights *weights; /* gives new weights; NULL: all are the file's */
    void *user;           /* for weights */
    double done, total;   /* number of weights written, in all */
    size_t widest;        /* weights of the longest row */
    float *row;           /* [widest] */
    uint8_t *bytes;       /* a row in its new type */
} job;

static int kept(const job *k, const flash_tensor *t)
{
#ifndef NO_REGEX
    return k->keep && !regexec(k->keep, cli_tensor_name(t), 0, NULL, 0);
#else
    (void)k;
    (void)t;
    return 0;
#endif
}

static flash_type type_of(const job *k, const flash_tensor *t)
{
    if (kept(k, t)) return t->type;
    /* norms and biases: few, and sensitive */
    return t->n_dims < 2 ? FLASH_TYPE_F32 : cli_type_for(k->want, t->ne[0]);
}

static void write_keys(job *k)
{
    static const struct {
        const char *name;
        size_t bytes;
    } other[] = {
        /* keys that are not copied */
        {"general.file_type", 17},
        {"general.quantization_version", 28},
        {"general.alignment", 17}, /* 32 here, which need not be said */
    };
    flash_value v;
    uint32_t n = 2;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; !flash_gguf_key(k->g, i, &v); i++) {
            size_t o = 0;
            while (o < 3
                   && (v.key_bytes != other[o].bytes || memcmp(v.key, other[o].name, v.key_bytes)))
                o++;
            if (o == 3 && !pass)
                n++;
            else if (o == 3)
                flash_gguf_write_value(&k->w, &v);
        }
        if (!pass) flash_gguf_write_begin(&k->w, n, (uint32_t)flash_gguf_tensors(k->g));
    }
    flash_gguf_write_u32(&k->w, other[0].name, (uint32_t)cli_file_type(k->want));
    flash_gguf_write_u32(&k->w, other[1].name, 2);
}

/* Announces all tensors to the writer, and reports those whose rows do not fit the type. */
static void write_infos(job *k)
{
    struct {
        char name[64];
        unsigned long row, tensors;
    } odd[2] = {{{0}, 0, 0}}; /* by what is used: F16, Q8_0 */
    flash_tensor t;
    for (size_t i = 0; !flash_gguf_tensor(k->g, i, &t); i++) {
        flash_type use = type_of(k, &t);
        int o = use == FLASH_TYPE_Q8_0;
        if (t.type == FLASH_TYPE_NONE)
            cli_fail("%s is of type %lu, which cannot be read", cli_tensor_name(&t),
                     (unsigned long)t.type_id);
        if (t.ne[0] > k->widest) k->widest = (size_t)t.ne[0];
        k->total += (double)t.ne[0] * (double)t.ne[1] * (double)t.ne[2] * (double)t.ne[3];
        flash_gguf_write_tensor(&k->w, cli_tensor_name(&t), use, t.n_dims, t.ne);
        if (t.n_dims < 2 || use == k->want || kept(k, &t)) continue;
        if (odd[o].tensors++) continue;
        odd[o].row = (unsigned long)t.ne[0];
        snprintf(odd[o].name, sizeof odd[o].name, "%s", cli_tensor_name(&t));
    }
    for (int o = 0; o < 2; o++)
        if (odd[o].tensors)
            cli_note("%lu tensors, first %s (rows of %lu): %s wanted, %s used", odd[o].tensors,
                     odd[o].name, odd[o].row, flash_type_name(k->want), o ? "Q8_0" : "F16");
}

static void write_weights(job *k)
{
    enum { STRETCH = 1 << 23 }; /* so much is read between calls of cli_forget [B] */
    const uint8_t *used;
    flash_tensor t;
    k->row = malloc(k->widest * sizeof *k->row + 1);
    k->bytes = malloc(k->widest * sizeof *k->row + 1); /* no type takes more than F32 */
    if (!k->row || !k->bytes)
        cli_fail("no memory for rows of %lu weights", (unsigned long)k->widest);
    cli_progress("quantize", 0, k->total);
    for (size_t i = 0; !flash_gguf_tensor(k->g, i, &t); i++) {
        flash_type use = type_of(k, &t);
        size_t n = (size_t)t.ne[0], from = flash_row_bytes(t.type, n), to = flash_row_bytes(use, n);
        uint64_t rows = t.bytes / from;
        const float *own = k->weights ? k->weights(k->user, cli_tensor_name(&t)) : NULL;
        used = t.data;
        for (uint64_t r = 0; r < rows && !k->w.status; r++) {
            const uint8_t *row = t.data + (size_t)r * from;
            if (own || use != t.type) {
                if (!own) flash_dequantize(t.type, row, k->row, n);
                flash_quantize(use, own ? own + r * n : k->row, k->bytes, n);
                row = k->bytes;
            }
            flash_gguf_write_data(&k->w, row, to, r + 1 == rows);
            k->done += (double)n;
            cli_progress("quantize", k->done, k->total);
            if (t.data + (r + 1) * from - used > STRETCH || r + 1 == rows)
                cli_forget(&used, t.data + (r + 1) * from);
        }
    }
    free(k->row);
    free(k->bytes);
}

static void requantize(job *k, const char *out)
{
    char size[2][24];
    cli_create(out, &k->w);
    write_keys(k);
    write_infos(k);
    write_weights(k);
    cli_finish(out, &k->w);
    printf("%s: %s, was %s\n", out, cli_size(k->w.written, size[0]),
           cli_size(flash_gguf_size(k->g), size[1]));
}

void cli_rewrite_weights(const flash_gguf *g, const char *out, flash_type want,
                         cli_weights *weights, void *user)
{
    job k = {0};
    k.g = g;
    k.want = want;
    k.weights = weights;
    k.user = user;
    requantize(&k, out);
}

int cmd_quantize(int argc, char **argv)
{
    const char *arg[3], *keep = NULL;
    flash_gguf *g;
    flash_source source = {0};
    flash_error err;
    job k = {0};
    const cli_option options[] = {
        {"--keep", "REGEX", CLI_TEXT, &keep, 0, 0, "tensors whose names match keep their type"},
        {0}};
    cli_parse_all(
        argc, argv, options, "IN OUT TYPE",
        "TYPE: F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, IQ4_NL, IQ4_XS,\n"
        "Q3_K, Q2_K. Vectors (norms) become F32. Rows that do not fit TYPE's blocks become Q8_0\n"
        "or F16, and are reported. IN may have any types; from smaller ones nothing is won back.\n"
        "OUT appears when it is complete.\n",
        arg);
    k.want = cli_type("TYPE", arg[2], 0);
    if (cli_same_file(arg[0], arg[1])) cli_usage("OUT is IN, %s", arg[0]);
#ifdef NO_REGEX
    if (keep) cli_usage("--keep: this system has no POSIX regular expressions");
#else
    regex_t regex;
    if (keep && regcomp(&regex, keep, REG_EXTENDED | REG_NOSUB))
        cli_usage("--keep %s: no extended regular expression", keep);
    k.keep = keep ? &regex : NULL;
#endif
    source.path = arg[0];
    if (flash_gguf_open(&g, &source, NULL, &err)) cli_fail_file(arg[0], &err);
    k.g = g;
    requantize(&k, arg[1]);
    flash_gguf_free(g);
#ifndef NO_REGEX
    if (keep) regfree(&regex);
#endif
    return 0;
}
