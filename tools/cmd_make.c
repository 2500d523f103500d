/* cmd_make.c - flash make: writes a model file with random weights of a real shape. */
#include "shapes.h"
#include <string.h>

int cmd_make(int argc, char **argv)
{
    const char *out, *why, *shape_text = NULL, *type_text = "Q4_0", *arch = NULL, *attn = NULL;
    int tied = 0;
    uint64_t seed = 1;
    static cli_shape shape; /* too large for the stack */
    const cli_option options[] = {
        {"--shape", "SHAPE", CLI_TEXT, &shape_text, 0, 0, cli_shape_names},
        {"--arch", "ARCH", CLI_TEXT, &arch, 0, 0, cli_arch_names},
        {"--attn", "LIST", CLI_TEXT, &attn, 0, 0, "what layers do, see below"},
        {"--type", "TYPE", CLI_TEXT, &type_text, 0, 0, "of the matrices (Q4_0)"},
        {"--seed", "SEED", CLI_SEED, &seed, 0, 18446744073709551615.0, "of the weights (1)"},
        {"--tied", NULL, CLI_FLAG, &tied, 0, 0, "the head is the embedding"},
        {0}};
    cli_parse_all(
        argc, argv, options, "OUT",
        "Random weights: for measuring speed and for tests, not for text. SHAPE is a name or, as\n"
        "far as it differs from tiny, d=256,layers=2,heads=4,kv=2,head=64,ffn=512,vocab=512,\n"
        "ctx=2048,tied=0; heads, kv and ffn may be lists, ffn=512/256, that repeat over layers.\n"
        "LIST repeats, too: full, window:POSITIONS, skip, linear, conv, as far as ARCH has them;\n"
        "in flash with a RoPE base, 0: none: full,skip,window:256@10000,full@0. The vocabulary is\n"
        "made up. Rows that do not fit TYPE's blocks become Q8_0 or F16.\n",
        &out);
    if (!shape_text) cli_usage("which --shape?");
    if (!cli_shape_parse(shape_text, arch, attn, &shape, &why))
        cli_usage("--shape %s%s%s%s%s: %s; want one of %s, or d=N,layers=N,heads=N,kv=N,head=N,"
                  "ffn=N,vocab=N,ctx=N with kv a divisor of heads and an even head; architectures: "
                  "%s",
                  shape_text, arch ? " --arch " : "", arch ? arch : "", attn ? " --attn " : "",
                  attn ? attn : "", why, cli_shape_names, cli_arch_names);
    shape.tied |= tied;
    cli_make_model(out, &shape, cli_type("--type", type_text, 1), seed, 0);
    return 0;
}
