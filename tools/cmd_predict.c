/* cmd_predict.c - flash predict: says how fast a model would be, from a latency model. */
#include "shapes.h"
#include <stdlib.h>
#include <string.h>

/* Returns the type that has the most bytes of the matrices in the layers. */
static flash_type weights_of(const flash_model *m)
{
    static uint64_t bytes[1 << 8];
    const flash_gguf *g = flash_model_gguf(m);
    flash_type best = FLASH_TYPE_F32;
    flash_tensor t;
    for (size_t i = 0; !flash_gguf_tensor(g, i, &t); i++)
        if (t.n_dims == 2 && t.name_bytes > 4 && !memcmp(t.name, "blk.", 4)
            && (unsigned)t.type < 1 << 8) {
            bytes[t.type] += t.bytes;
            if (bytes[t.type] > bytes[best]) best = t.type;
        }
    return best;
}

static const char notes[] =
    "Says how long a model would take here, or wherever LATENCY was measured: time to the first\n"
    "token (TTFT) of a prompt, and tokens a second written at its end, with the interval that\n"
    "nine of ten measurements fall into. LATENCY comes from flash fit. A GGUF file's weights are\n"
    "not read. Types, threads and chunk must be among those that were measured.\n";

int cmd_predict(int argc, char **argv)
{
    const char *got[2], *path, *shape_name = NULL, *type_name = NULL, *why, *prompts = "2048";
    const char *attn = NULL, *arch_name = NULL;
    static cli_shape shape;
    static flash_arch arch;
    flash_model *m = NULL;
    flash_workload w = {0};
    flash_latency *l;
    flash_error err;
    int json = 0, lengths[CLI_LENGTHS], n_lengths;
    size_t bytes;
    w.threads = 1;
    w.chunk = 256;
    w.kv = FLASH_TYPE_Q8_0;
    const cli_option options[] = {
        {"--shape", "SHAPE", CLI_TEXT, &shape_name, 0, 0, "instead of MODEL, as flash make takes"},
        {"--attn", "PATTERN", CLI_TEXT, &attn, 0, 0,
         "another attention for the layers: full,skip,window:256, which repeats"},
        {"--arch", "ARCH", CLI_TEXT, &arch_name, 0, 0, "architecture of SHAPE"},
        {"--type", "TYPE", CLI_TEXT, &type_name, 0, 0, "weights (Q4_0, or those of MODEL)"},
        {"--kv", "TYPE", CLI_KV, &w.kv, 0, 0, "keys and values: f32, f16, q8_0 (q8_0)"},
        {"-t", "THREADS", CLI_INT, &w.threads, 1, FLASH_THREADS_MAX, "threads (1)"},
        {"--chunk", "N", CLI_INT, &w.chunk, 1, FLASH_CONTEXT_MAX,
         "prompt tokens worked on together (256)"},
        {"-p", "LIST", CLI_TEXT, &prompts, 0, 0, "prompt lengths (2048)"},
        {"--json", NULL, CLI_FLAG, &json, 0, 0, "a JSON line for each length"},
        {0}};
    cli_parse_all(argc, argv, options, "LATENCY [MODEL]", notes, got);
    path = got[0];
    if (!got[1] == !shape_name) cli_usage("which MODEL or --shape? One of them");
    if (got[1] && arch_name) cli_usage("--arch %s: MODEL has one; it is for --shape", arch_name);
    n_lengths = cli_lengths(prompts, lengths);

    char *text = cli_read(path, &bytes);
    if (flash_latency_load(&l, text, bytes, NULL, &err)) cli_fail_file(path, &err);
    w.arch = &arch;
    w.weights = cli_type("--type", type_name ? type_name : "Q4_0", 0);
    if (shape_name) {
        if (!cli_shape_parse(shape_name, arch_name, attn, &shape, &why))
            cli_usage("--shape %s: %s; want one of %s, or as flash make --help says", shape_name,
                      why, cli_shape_names);
        cli_shape_arch(&shape, &arch);
    } else {
        flash_model_desc md = {0};
        md.source.path = got[1];
        md.any_pretokenizer = 1;
        md.attention = attn;
        m = cli_load(&md);
        arch = *flash_model_arch(m);
        if (!type_name) w.weights = weights_of(m);
    }
    text[strcspn(text, "\n")] = 0;
    const char *about = !json && !strncmp(text, "# ", 2) ? cli_plain(text + 2) : "";
    for (int i = 0; i < n_lengths; i++) {
        flash_interval prefill, decode;
        w.prompt = w.position = lengths[i];
        flash_status st = flash_latency_predict(l, &w, &prefill, &decode);
        if (st == FLASH_E_UNSUPPORTED)
            cli_fail("%s: nothing there was measured with %s weights, %s keys and values, %d "
                     "threads and chunks of %d; measure that, or choose: --type --kv -t --chunk",
                     path, flash_type_name(w.weights), flash_type_name(w.kv), w.threads, w.chunk);
        if (st) cli_fail("cannot predict this shape: %s", flash_status_text(st));
        if (*about) puts(about);
        about = "";
        if (json)
            printf("{\"prompt\":%d,\"ttft_s\":%.6g,\"ttft_lo_s\":%.6g,\"ttft_hi_s\":%.6g,"
                   "\"decode_tok_s\":%.6g,\"decode_lo_tok_s\":%.6g,\"decode_hi_tok_s\":%.6g}\n",
                   w.prompt, prefill.mean, prefill.lo, prefill.hi, 1 / decode.mean, 1 / decode.hi,
                   1 / decode.lo);
        else
            printf("prompt %6d  TTFT %8.3f s (%.3f to %.3f)  "
                   "decode %7.1f token/s (%.1f to %.1f)\n",
                   w.prompt, prefill.mean, prefill.lo, prefill.hi, 1 / decode.mean, 1 / decode.hi,
                   1 / decode.lo);
    }
    flash_latency_free(l);
    flash_model_free(m);
    free(text);
    return 0;
}
