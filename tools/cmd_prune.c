/* cmd_prune.c - flash prune: a model file again, smaller or with another attention. */
#include "calibration.h"
#include "rewrite.h"
#include <stdlib.h>
#include <string.h>

typedef struct job {
    flash_prune_desc d;
    const flash_arch *a;
    calibration k;
    int   energy, block;
    int   layer[FLASH_LAYERS_MAX];
    const int *ffn[FLASH_LAYERS_MAX], *kv[FLASH_LAYERS_MAX];
} job;

/* Those that matter most, n of them; the first n without a calibration. The caller frees them. */
static int *choose(const job *j, const char *option, flash_part part, int layer, int n, int all,
                   int block)
{
    int *list = malloc((size_t)n * sizeof *list);
    if (!list)
        cli_fail("out of memory");
    if (n > all)
        cli_fail("%s %d: the model has %d", option, n, all);
    if (n % block || all % block)
        cli_fail("%s %d: want a multiple of %d (--block; of %d there are)", option, n, block, all);
    for (int i = 0; i < n; i++)
        list[i] = i;
    if (j->k.c && n < all)
        flash_calibration_choose(j->k.c, part, layer, j->energy, n, block, list);
    return list;
}

/* What the weights' type wants neighbours kept together by: blocks that divide n and all. */
static int block_for(const job *j, const flash_model *m, int n, int all)
{
    flash_tensor t;
    int block = 1;
    if (j->block)
        return j->block;
    for (size_t i = 0; !flash_gguf_tensor(flash_model_gguf(m), i, &t); i++)
        if (t.n_dims > 1 && t.type != FLASH_TYPE_NONE && flash_type_block(t.type) > block)
            block = flash_type_block(t.type);
    while (block > 1 && (n % block || all % block))
        block /= 2;
    return block;
}

/* "2,4-6": these go. */
static void drop_layers(job *j, const char *text)
{
    unsigned char gone[FLASH_LAYERS_MAX] = {0};
    for (const char *p = text;; p++) {
        long first = cli_number(&p), last = *p == '-' ? (p++, cli_number(&p)) : first;
        if (first < 0 || last < first || last >= j->a->n_layer || (*p && *p != ','))
            cli_usage("--drop %s: want 2,4-6, of layers 0 to %d", text, j->a->n_layer - 1);
        memset(gone + first, 1, (size_t)(last - first) + 1);
        if (!*p)
            break;
    }
    for (int l = 0; l < j->a->n_layer; l++)
        if (!gone[l])
            j->layer[j->d.n_layer++] = l;
    if (!j->d.n_layer)
        cli_usage("--drop %s: no layer would stay", text);
    j->d.layer = j->layer;
}

static void set_layers(job *j, int n)
{
    int *list = choose(j, "--layers", FLASH_PART_LAYER, 0, n, j->a->n_layer, 1);
    memcpy(j->layer, list, (size_t)n * sizeof *list);
    j->d.n_layer = n;
    j->d.layer = j->layer;
    free(list);
}

/* Fills in what stays of each layer. */
static void set_parts(job *j, const flash_model *m, int ffn, int kv)
{
    for (int i = 0; i < (j->d.layer ? j->d.n_layer : j->a->n_layer); i++) {
        int l = j->d.layer ? j->d.layer[i] : i;
        const flash_layer *y = &j->a->layer[l];
        if (ffn && y->d_ffn)
            j->ffn[l] = choose(j, "--d-ffn", FLASH_PART_UNIT, l, ffn, y->d_ffn,
                               block_for(j, m, ffn, y->d_ffn));
        if (kv && y->n_kv_head)
            j->kv[l] = choose(j, "--kv", FLASH_PART_KV_HEAD, l, kv, y->n_kv_head, 1);
    }
    j->d.d_ffn = ffn;
    j->d.n_kv_head = kv;
    j->d.ffn = ffn ? j->ffn : NULL;
    j->d.kv_head = kv ? j->kv : NULL;
}

int cmd_prune(int argc, char **argv)
{
    const char *arg[2], *drop = NULL, *calib = NULL, *type = NULL;
    int layers = 0, d_model = 0, d_ffn = 0, kv = 0, skips = 0;
    cli_change c = {0};
    static job j; /* large */
    static float share[2 * FLASH_LAYERS_MAX + 1];
    const cli_option options[] = {
        {"--layers", "N", CLI_INT, &layers, 1, FLASH_LAYERS_MAX, "layers that stay"},
        {"--drop", "LAYERS", CLI_TEXT, &drop, 0, 0, "or those that go: 2,4-6"},
        {"--d-model", "N", CLI_INT, &d_model, 1, FLASH_DIM_MAX, "channels that stay"},
        {"--d-ffn", "N", CLI_INT, &d_ffn, 1, FLASH_DIM_MAX, "FFN units that stay in each layer"},
        {"--kv-heads", "N", CLI_INT, &kv, 1, 65535,
         "heads of keys and values that stay, with their queries"},
        {"--calib", "FILE", CLI_TEXT, &calib, 0, 0,
         "of flash calibrate: what matters most stays (else: what comes first)"},
        {"--skips", "N", CLI_INT, &skips, 1, FLASH_LAYERS_MAX,
         "without so many attentions, in the order of --calib"},
        {"--energy", NULL, CLI_FLAG, &j.energy, 0, 0, "by root mean squares, as MobileLLM-Flash"},
        {"--block", "N", CLI_INT, &j.block, 1, 65536,
         "channels and units that stay or go together (as the weights' type has them)"},
        {"--type", "TYPE", CLI_TEXT, &type, 0, 0, "of the matrices (as they are)"},
        {"--attn", "PATTERN", CLI_TEXT, &c.attention, 0, 0, "of the layers, see below"},
        {"--skip", "LAYERS", CLI_TEXT, &c.skip, 0, 0, "without attention: 2,4-6"},
        {"--window", "LAYERS:N", CLI_TEXT, &c.window, 0, 0,
         "that see N positions: 1,3-5:256 or 1:256,3:512"},
        {"--arch", "ARCH", CLI_TEXT, &c.arch, 0, 0, "deci or flash (deci if it can say it)"},
        {0}
    };
    cli_parse_all(argc, argv, options, "IN OUT",
        "Sizes come first; a model with fewer layers, channels, units or heads keeps its\n"
        "architecture and tokenizer, and needs training (flash train) to be good again. Then\n"
        "attention, of the layers that stayed, from 0: the same weights; those of attention that\n"
        "is skipped are left out. PATTERN is a list of full, window:N, skip and keep, which\n"
        "repeats over the layers: full,skip,window:256. --attn comes first, then --skip, then\n"
        "--window. Other programs read deci; windows, a skip in layer 0 and norms of queries and\n"
        "keys need flash. To try a pattern without writing a file: flash run --attn PATTERN. OUT\n"
        "appears when it is complete.\n"
        "  flash prune IN OUT --layers 12 --d-model 1024 --d-ffn 4096 --calib calib.txt\n", arg);
    int cut = layers || drop || d_model || d_ffn || kv || type;
    int change = c.attention || c.skip || c.window || skips;
    if (!cut && !change)
        cli_usage("nothing to change: --layers, --d-model, --d-ffn, --attn, --skip or --window?");
    if (!cut && !skips && calib)
        cli_usage("--calib goes with --layers, --d-model, --d-ffn, --kv-heads or --skips");
    if (skips && (!calib || c.skip))
        cli_usage(c.skip ? "--skip or --skips, not both" : "--skips needs --calib");
    if (c.arch && !change)
        cli_usage("--arch goes with --attn, --skip or --window");
    if (layers && drop)
        cli_usage("--layers or --drop, not both");
    if (!cut && !skips) {
        cli_rewrite(arg[0], arg[1], &c);
        return 0;
    }

    flash_model_desc md = {0};
    flash_error err;
    cli_image image = {0};
    char size[2][24];
    j.d.type = type ? cli_type("--type", type, 0) : FLASH_TYPE_F32;
    j.d.retype = type != NULL;
    if (cli_same_file(arg[0], arg[1]))
        cli_usage("OUT is IN, %s", arg[0]);
    md.source.path = arg[0];
    md.any_pretokenizer = 1;
    flash_model *m;
    if (flash_model_load(&m, &md, &err))
        cli_fail_file(arg[0], &err);
    j.a = flash_model_arch(m);
    j.d.model = m;
    if (calib)
        calibration_load(calib, &j.k, j.a);
    if (drop)
        drop_layers(&j, drop);
    else if (layers)
        set_layers(&j, layers);
    char *skip = skips ? calibration_skips(&j.k, j.a, skips, j.d.layer, j.d.n_layer) : NULL;
    if (skips)
        c.skip = skip;
    set_parts(&j, m, d_ffn, kv);
    int *channel = NULL;
    if (d_model) {
        channel = choose(&j, "--d-model", FLASH_PART_CHANNEL, 0, d_model, j.a->d_model,
                         block_for(&j, m, d_model, j.a->d_model));
        j.d.channel = channel;
        j.d.d_model = d_model;
    }
    if (j.k.c && d_model) {
        flash_calibration_share(j.k.c, channel, d_model, share);
        j.d.share = share;
    }
    flash_gguf_writer w = {0};
    if (change) { /* first in memory */
        w.write = cli_image_add;
        w.user = &image;
    } else {
        cli_create(arg[1], &w);
    }
    flash_status status = flash_prune_write(&j.d, w.write, w.user, &err);
    if (status && status != FLASH_E_IO)
        cli_fail("%s: %s", arg[0], err.text);
    if (change) {
        cli_rewrite_image(&image, arg[0], arg[1], &c);
    } else {
        flash_arch a;
        long written = ftell(w.user);
        flash_prune_arch(&j.d, &a, &err);
        cli_close(arg[1]);
        printf("%s: %d layers, d_model %d; %s, was %s\n", arg[1], a.n_layer, a.d_model,
               cli_size((uint64_t)written, size[0]),
               cli_size(flash_gguf_size(flash_model_gguf(m)), size[1]));
    }
    for (int l = 0; l < j.a->n_layer; l++) {
        free((void *)j.ffn[l]);
        free((void *)j.kv[l]);
    }
    free(skip);
    free(channel);
    free(image.data);
    flash_calibration_free(j.k.c);
    flash_model_free(m);
    return 0;
}
