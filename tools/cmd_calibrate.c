/* cmd_calibrate.c - flash calibrate: measures how much each part of a model matters. */
#include "calibration.h"
#include "skips.h"
#include <stdlib.h>
#include <string.h>

typedef struct job {
    const flash_arch *a;
    flash_trainer *t;
    int32_t *ids;  /* [n,row] tokens of the sequences */
    size_t n, few; /* number of sequences; of those, the first, that divergences are computed on */
    size_t row;    /* tokens of a sequence and the one after it: ctx + 1 */
    calibration k;
    double done, total; /* for the progress */
} job;

/* Copies j->n sequences, which lie evenly in the text, [all], to j->ids. */
static void pick(job *j, const int32_t *text, size_t all)
{
    j->ids = malloc(j->n * j->row * sizeof *j->ids);
    if (!j->ids) cli_fail("out of memory");
    for (size_t i = 0; i < j->n; i++)
        memcpy(j->ids + i * j->row, text + (j->n > 1 ? (all - j->row) / (j->n - 1) * i : 0),
               j->row * sizeof *j->ids);
}

/* A skips_loss: returns the KL divergence without the attentions in skip [nat a token]. */
static double divergence(void *user, const uint8_t *skip)
{
    job *j = user;
    double kl;
    if (flash_trainer_skip(j->t, j->ids, j->few, skip, &kl))
        cli_fail("the divergences are no numbers: the weights are damaged");
    cli_progress("calibrate", j->done += 2 * (double)j->few, j->total);
    return kl;
}

static void print(const job *j)
{
    double attention[FLASH_LAYERS_MAX], layer[FLASH_LAYERS_MAX];
    flash_calibration_scores(j->k.c, FLASH_PART_ATTENTION, 0, 0, attention);
    flash_calibration_scores(j->k.c, FLASH_PART_LAYER, 0, 0, layer);
    printf("layer  1 - cos of the layer  of its attention  KL without it [nat a token]\n");
    for (int l = 0; l < j->a->n_layer; l++)
        printf("%5d  %19.4f  %16.4f  %27.4f\n", l, layer[l], attention[l], j->k.skip[l]);
    for (int i = 0; i < j->k.n_order; i++)
        printf(i ? ", %d (%.4f)" : "attentions to skip, each given those before (KL): %d (%.4f)",
               j->k.order[i], j->k.order_kl[i]);
    if (j->k.n_order) putchar('\n');
}

int cmd_calibrate(int argc, char **argv)
{
    const char *path, *out = NULL;
    cli_texts texts = {{0}, 0};
    int tokens = 65536, kl_tokens = 4096, run = 2, wanted = FLASH_LAYERS_MAX;
    static job j; /* too large for the stack */
    flash_trainer_desc d = {0};
    flash_model_desc md = {0};
    flash_error err;
    size_t all;
    const cli_option options[] = {
        {"--text", "FILE...", CLI_TEXTS, &texts, 0, 0, "what the model is run on"},
        {"-o", "OUT", CLI_TEXT, &out, 0, 0, "a text file for flash prune --calib"},
        {"--tokens", "N", CLI_INT, &tokens, 1, 1e9, "so many of them, evenly spread (65536)"},
        {"--kl-tokens", "N", CLI_INT, &kl_tokens, 0, 1e9,
         "of divergences without attentions (4096; 0: none)"},
        {"--skips", "N", CLI_INT, &wanted, 0, FLASH_LAYERS_MAX,
         "attentions to skip, looked for one by one (all that may go)"},
        {"--run", "N", CLI_INT, &run, 1, FLASH_LAYERS_MAX, "of them in a row at most (2)"},
        {"--ctx", "N", CLI_INT, &d.n_ctx, 2, FLASH_CONTEXT_MAX,
         "tokens of a sequence (as trained, at most 256)"},
        {"-t", "THREADS", CLI_INT, &d.threads, 1, FLASH_THREADS_MAX, "threads (1)"},
        {"--isa", "NAME", CLI_ISA, &d.isa, 0, 0, "instruction set (the best here):"},
        {0}};
    path = cli_parse(
        argc, argv, options,
        "Runs the model in float and sums up what its parts do: activations of FFN units, heads\n"
        "and channels; how far layers and attentions turn the residual stream; and how far the\n"
        "probabilities are from the model's own (KL) without the attention of a layer, and\n"
        "without more and more of them. Models are those that flash train takes.\n");
    if (!texts.n || !out) cli_usage("%s is missing", out ? "--text FILE" : "-o OUT");
    for (int i = 0; i < texts.n; i++)
        if (cli_same_file(texts.at[i], out)) cli_usage("OUT is a text that is read, %s", out);
    if (cli_same_file(path, out)) cli_usage("OUT is the model, %s", out);
    md.source.path = path;
    md.isa = d.isa;
    flash_model *m = cli_load(&md);
    j.a = flash_model_arch(m);
    int32_t *text = cli_text_ids(m, &texts, &all);
    if (!d.n_ctx) d.n_ctx = j.a->n_ctx < 256 ? j.a->n_ctx : 256;
    d.init = m;
    d.batch = 4;
    j.row = (size_t)d.n_ctx + 1;
    if (all < j.row)
        cli_fail("%s: %lu tokens; a sequence has %lu: give more text, or a smaller --ctx",
                 texts.at[0], (unsigned long)all, (unsigned long)j.row);
    j.n = ((size_t)tokens + (size_t)d.n_ctx - 1) / (size_t)d.n_ctx;
    j.n = j.n < all / j.row ? j.n : all / j.row;
    j.few = ((size_t)kl_tokens + (size_t)d.n_ctx - 1) / (size_t)d.n_ctx;
    j.few = j.few < j.n ? j.few : j.n;
    if (flash_trainer_create(&j.t, &d, &err) || flash_calibration_create(&j.k.c, j.a, NULL, &err))
        cli_fail("%s: %s", path, err.text);
    pick(&j, text, all);
    int most = wanted < j.a->n_layer ? wanted : j.a->n_layer;
    j.total = (double)j.n + (double)j.few * 2 * j.a->n_layer * (1 + most / 2.);
    cli_progress("calibrate", 0, j.total);
    for (size_t i = 0; i < j.n; i += (size_t)d.batch) {
        size_t some = j.n - i < (size_t)d.batch ? j.n - i : (size_t)d.batch;
        if (flash_calibration_add(j.k.c, j.t, j.ids + i * j.row, some))
            cli_fail("%s: the activations are no numbers: the weights are damaged", path);
        cli_progress("calibrate", j.done += (double)some, j.total);
    }
    if (j.few)
        j.k.n_order = skips_find(j.a, wanted, run, divergence, &j, j.k.skip, j.k.order,
                                 j.k.order_kl);
    cli_progress("calibrate", j.total, j.total);
    calibration_save(out, &j.k, j.a);
    printf("%s: from %lu tokens\n", out, (unsigned long)(j.n * (j.row - 1)));
    print(&j);
    flash_calibration_free(j.k.c);
    flash_trainer_free(j.t);
    flash_model_free(m);
    free(text);
    free(j.ids);
    return 0;
}
