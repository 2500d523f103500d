/* cut.c - see cut.h. */
#include "cut.h"
#include <stdlib.h>
#include <string.h>

/* Returns the numbers of the n parts of `all` that stay: those that matter most, or 0 to n - 1 if
   there is no calibration. The caller frees the list. option: the one that asks for n, for
   messages. */
static int *choose(const cut *c, const char *option, flash_part part, int layer, int n, int all,
                   int block)
{
    int *list = malloc((size_t)n * sizeof *list);
    flash_status s = FLASH_OK;
    if (!list) cli_fail("out of memory");
    if (n > all) cli_fail("%s %d: the model has %d", option, n, all);
    if (n % block || all % block)
        cli_fail("%s %d: want a multiple of %d (--block; of %d there are)", option, n, block, all);
    for (int i = 0; i < n; i++) list[i] = i;
    if (c->k && n < all)
        s = flash_calibration_choose(c->k->c, part, layer, c->energy, n, block, list);
    if (s)
        cli_fail("%s %d: layer %d has scores that are no numbers: calibrate again", option, n,
                 layer);
    return list;
}

/* Returns how many neighbours must stay or go together: c->block or, if that is 0, the largest
   block of the weights' types, halved until it divides both n and all. */
static int block_for(const cut *c, int n, int all)
{
    flash_tensor t;
    int block = 1;
    if (c->block) return c->block;
    for (size_t i = 0; !flash_gguf_tensor(flash_model_gguf(c->model), i, &t); i++)
        if (t.n_dims > 1 && t.type != FLASH_TYPE_NONE && flash_type_block(t.type) > block)
            block = flash_type_block(t.type);
    while (block > 1 && (n % block || all % block)) block /= 2;
    return block;
}

/* Keeps all layers except those of text, such as "2,4-6". */
static void drop_layers(cut *c, const flash_arch *a, const char *text)
{
    unsigned char gone[FLASH_LAYERS_MAX] = {0};
    for (const char *p = text;; p++) {
        long first = cli_number(&p), last = *p == '-' ? (p++, cli_number(&p)) : first;
        if (first < 0 || last < first || last >= a->n_layer || (*p && *p != ','))
            cli_usage("--drop %s: want 2,4-6, of layers 0 to %d", text, a->n_layer - 1);
        memset(gone + first, 1, (size_t)(last - first) + 1);
        if (!*p) break;
    }
    for (int l = 0; l < a->n_layer; l++)
        if (!gone[l]) c->layer[c->d.n_layer++] = l;
    if (!c->d.n_layer) cli_usage("--drop %s: no layer would stay", text);
    c->d.layer = c->layer;
}

static void set_layers(cut *c, const flash_arch *a, int n)
{
    int *list = choose(c, "--layers", FLASH_PART_LAYER, 0, n, a->n_layer, 1);
    memcpy(c->layer, list, (size_t)n * sizeof *list);
    c->d.n_layer = n;
    c->d.layer = c->layer;
    free(list);
}

/* Chooses the feed-forward units and key/value heads that stay in each layer; 0: all stay. */
static void set_parts(cut *c, const flash_arch *a, int ffn, int kv)
{
    for (int i = 0; i < (c->d.layer ? c->d.n_layer : a->n_layer); i++) {
        int l = c->d.layer ? c->d.layer[i] : i;
        const flash_layer *y = &a->layer[l];
        if (ffn && y->d_ffn)
            c->ffn[l] = choose(c, "--d-ffn", FLASH_PART_UNIT, l, ffn, y->d_ffn,
                               block_for(c, ffn, y->d_ffn));
        if (kv && y->n_kv_head)
            c->kv[l] = choose(c, "--kv-heads", FLASH_PART_KV_HEAD, l, kv, y->n_kv_head, 1);
    }
    c->d.d_ffn = ffn;
    c->d.n_kv_head = kv;
    c->d.ffn = ffn ? c->ffn : NULL;
    c->d.kv_head = kv ? c->kv : NULL;
}

void cut_choose(cut *c)
{
    const flash_arch *a = flash_model_arch(c->model);
    c->d.model = c->model;
    if (c->drop)
        drop_layers(c, a, c->drop);
    else if (c->layers)
        set_layers(c, a, c->layers);
    set_parts(c, a, c->d_ffn, c->kv_heads);
    if (!c->d_model) return;
    c->channel = choose(c, "--d-model", FLASH_PART_CHANNEL, 0, c->d_model, a->d_model,
                        block_for(c, c->d_model, a->d_model));
    c->d.channel = c->channel;
    c->d.d_model = c->d_model;
    if (c->k) {
        flash_calibration_share(c->k->c, c->channel, c->d_model, c->share);
        c->d.share = c->share;
    }
}

void cut_free(cut *c)
{
    for (int l = 0; l < FLASH_LAYERS_MAX; l++) {
        free((void *)c->ffn[l]);
        free((void *)c->kv[l]);
    }
    free(c->channel);
}
