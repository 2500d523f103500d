/* cmd_prune.c - flash prune: rewrites a model file, smaller or with another attention. */
#include "cut.h"
#include "rewrite.h"
#include <stdlib.h>

int cmd_prune(int argc, char **argv)
{
    const char *arg[2], *calib = NULL, *type = NULL;
    int skips = 0;
    cli_change c = {0};
    static cut j; /* too large for the stack */
    static calibration k;
    const cli_option options[] = {
        {"--layers", "N", CLI_INT, &j.layers, 1, FLASH_LAYERS_MAX, "layers that stay"},
        {"--drop", "LAYERS", CLI_TEXT, &j.drop, 0, 0, "or those that go: 2,4-6"},
        {"--d-model", "N", CLI_INT, &j.d_model, 1, FLASH_DIM_MAX, "channels that stay"},
        {"--d-ffn", "N", CLI_INT, &j.d_ffn, 1, FLASH_DIM_MAX, "FFN units that stay in each layer"},
        {"--kv-heads", "N", CLI_INT, &j.kv_heads, 1, 65535,
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
        {0}};
    cli_parse_all(
        argc, argv, options, "IN OUT",
        "Sizes come first; a model with fewer layers, channels, units or heads keeps its\n"
        "architecture and tokenizer, and needs training (flash train) to be good again. Then\n"
        "attention, of the layers that stayed, from 0: the same weights; those of attention that\n"
        "is skipped are left out. PATTERN is a list of full, window:N, skip and keep, which\n"
        "repeats over the layers: full,skip,window:256. --attn comes first, then --skip, then\n"
        "--window. Other programs read deci; windows, a skip in layer 0 and norms of queries and\n"
        "keys need flash. To try a pattern without writing a file: flash run --attn PATTERN. OUT\n"
        "appears when it is complete.\n"
        "  flash prune IN OUT --layers 12 --d-model 1024 --d-ffn 4096 --calib calib.txt\n",
        arg);
    int sizes = j.layers || j.drop || j.d_model || j.d_ffn || j.kv_heads || type;
    int change = c.attention || c.skip || c.window || skips;
    if (!sizes && !change)
        cli_usage("nothing to change: --layers, --d-model, --d-ffn, --attn, --skip or --window?");
    if (!sizes && !skips && calib)
        cli_usage("--calib goes with --layers, --d-model, --d-ffn, --kv-heads or --skips");
    if (skips && (!calib || c.skip))
        cli_usage(c.skip ? "--skip or --skips, not both" : "--skips needs --calib");
    if (c.arch && !change) cli_usage("--arch goes with --attn, --skip or --window");
    if (j.layers && j.drop) cli_usage("--layers or --drop, not both");
    if (!sizes && !skips) {
        cli_rewrite(arg[0], arg[1], &c);
        return 0;
    }

    flash_model_desc md = {0};
    flash_error err;
    cli_image image = {0};
    char size[2][24];
    j.d.type = type ? cli_type("--type", type, 0) : FLASH_TYPE_F32;
    j.d.retype = type != NULL;
    if (cli_same_file(arg[0], arg[1])) cli_usage("OUT is IN, %s", arg[0]);
    md.source.path = arg[0];
    md.any_pretokenizer = 1;
    flash_model *m;
    if (flash_model_load(&m, &md, &err)) cli_fail_file(arg[0], &err);
    j.model = m;
    if (calib) {
        calibration_load(calib, &k, flash_model_arch(m));
        j.k = &k;
    }
    cut_choose(&j);
    char *skip = skips ? calibration_skips(&k, flash_model_arch(m), skips, j.d.layer, j.d.n_layer)
                       : NULL;
    c.skip = skips ? skip : c.skip;
    flash_gguf_writer w = {0};
    if (change) { /* written to memory first: cli_rewrite_image changes it then */
        w.write = cli_image_add;
        w.user = &image;
    } else {
        cli_create(arg[1], &w);
    }
    flash_status status = flash_prune_write(&j.d, w.write, w.user, &err);
    if (status && status != FLASH_E_IO) cli_fail("%s: %s", arg[0], err.text);
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
    free(skip);
    cut_free(&j);
    free(image.data);
    flash_calibration_free(k.c);
    flash_model_free(m);
    return 0;
}
