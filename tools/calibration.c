/* calibration.c - writes and reads calibration files, see calibration.h. */
#include "calibration.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void calibration_save(const char *path, calibration *k, const flash_arch *a)
{
    FILE *f = cli_open(path);
    size_t n;
    const double *x = flash_calibration_numbers(k->c, &n);
    fprintf(f, "flash calibration 1\nmodel layers=%d d=%d head=%d\n", a->n_layer, a->d_model,
            a->d_head);
    for (int l = 0; l < a->n_layer; l++)
        fprintf(f, "layer %d ffn=%d kv=%d heads=%d skip=%.17g\n", l, (int)a->layer[l].d_ffn,
                a->layer[l].n_kv_head, a->layer[l].n_head, k->skip[l]);
    fprintf(f, "skips %d\n", k->n_order);
    for (int i = 0; i < k->n_order; i++) fprintf(f, "skip %d %.17g\n", k->order[i], k->order_kl[i]);
    fprintf(f, "numbers %lu\n", (unsigned long)n);
    for (size_t i = 0; i < n; i++) fprintf(f, "%.17g\n", x[i]);
    fprintf(f, "end\n");
    cli_close(path);
}

typedef struct reader {
    const char *path; /* name of the file, for messages */
    char *at;         /* what is left of its text */
    int line;         /* number of the last line that was read, from 1 */
} reader;

static void spoilt(const reader *r, const char *what)
{
    cli_fail("%s, line %d: %s; make it again with flash calibrate", r->path, r->line, what);
}

/* Returns the next line, with a 0 in place of its end. Fails if there is none. */
static char *take(reader *r)
{
    char *line = r->at, *end = strchr(line, '\n');
    r->line++;
    if (!end) spoilt(r, "the file ends here");
    *end = 0;
    r->at = end + 1;
    return line;
}

/* Reads the next line and fails if it differs from the formatted text. */
static void want(reader *r, const char *format, ...)
{
    char line[160];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (strcmp(take(r), line))
        spoilt(r, r->line < 2 ? "this is no calibration" : "it is of another model");
}

/* Returns the number at p, which must be finite, not below 0 and the end of its line. */
static double number(reader *r, const char *p)
{
    char *end;
    double v = strtod(p, &end);
    if (end == p || *end || !(v >= 0) || !isfinite(v)) spoilt(r, "want a number");
    return v;
}

void calibration_load(const char *path, calibration *k, const flash_arch *a)
{
    size_t bytes, n;
    char *text = cli_read(path, &bytes), *p;
    reader r = {path, text, 0};
    flash_error err;
    memset(k, 0, sizeof *k);
    if (flash_calibration_create(&k->c, a, NULL, &err)) cli_fail("%s: %s", path, err.text);
    if (memchr(text, 0, bytes)) cli_fail("%s is no calibration", path);
    want(&r, "flash calibration 1");
    want(&r, "model layers=%d d=%d head=%d", a->n_layer, a->d_model, a->d_head);
    for (int l = 0; l < a->n_layer; l++) {
        char head[96];
        size_t length = (size_t)snprintf(
            head, sizeof head, "layer %d ffn=%d kv=%d heads=%d skip=", l, (int)a->layer[l].d_ffn,
            a->layer[l].n_kv_head, a->layer[l].n_head);
        p = take(&r);
        if (strncmp(p, head, length)) spoilt(&r, "it is of another model");
        k->skip[l] = number(&r, p + length);
    }
    p = take(&r);
    if (strncmp(p, "skips ", 6) || number(&r, p + 6) > a->n_layer)
        spoilt(&r, "want skips and how many");
    k->n_order = (int)strtod(p + 6, NULL);
    for (int i = 0; i < k->n_order; i++) {
        const char *q = take(&r) + 5;
        if (strncmp(q - 5, "skip ", 5)) spoilt(&r, "want skip, a layer and a divergence");
        k->order[i] = (int)cli_number(&q);
        if (k->order[i] < 0 || k->order[i] >= a->n_layer || *q != ' ')
            spoilt(&r, "want skip, a layer and a divergence");
        k->order_kl[i] = number(&r, q + 1);
    }
    double *x = flash_calibration_numbers(k->c, &n);
    want(&r, "numbers %lu", (unsigned long)n);
    for (size_t i = 0; i < n; i++) x[i] = number(&r, take(&r));
    want(&r, "end");
    if (*r.at) spoilt(&r, "there is more behind the end");
    free(text);
}

char *calibration_skips(const calibration *k, const flash_arch *a, int n, const int *layer,
                        int n_layer)
{
    char *text = calloc((size_t)n + 1, 8);
    int found = 0;
    if (!text) cli_fail("out of memory");
    for (int i = 0; i < k->n_order && found < n; i++)
        for (int l = 0; l < (layer ? n_layer : a->n_layer); l++)
            if ((layer ? layer[l] : l) == k->order[i])
                sprintf(text + strlen(text), found++ ? ",%d" : "%d", l);
    if (found < n)
        cli_fail("--skips %d: the calibration has an order of %d attentions%s", n, k->n_order,
                 layer ? ", some of layers that go" : "");
    return text;
}
