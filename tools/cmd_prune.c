/* cmd_prune.c - flash prune: a model file again, with another attention. */
#include "rewrite.h"

int cmd_prune(int argc, char **argv)
{
    const char *arg[2];
    cli_change c = {0};
    const cli_option options[] = {
        {"--attn", "PATTERN", CLI_TEXT, &c.attention, 0, 0, "of the layers, see below"},
        {"--skip", "LAYERS", CLI_TEXT, &c.skip, 0, 0, "without attention: 2,4-6"},
        {"--window", "LAYERS:N", CLI_TEXT, &c.window, 0, 0,
         "that see N positions: 1,3-5:256 or 1:256,3:512"},
        {"--arch", "ARCH", CLI_TEXT, &c.arch, 0, 0, "deci or flash (deci if it can say it)"},
        {0}
    };
    cli_parse_all(argc, argv, options, "IN OUT",
        "The same weights; those of attention that is skipped are left out. PATTERN is a list of\n"
        "full, window:N, skip and keep, which repeats over the layers: full,skip,window:256. The\n"
        "first layer is 0. --attn comes first, then --skip, then --window. Other programs read\n"
        "deci; windows, a skip in layer 0 and norms of queries and keys need flash. To try a\n"
        "pattern without writing a file: flash run --attn PATTERN. OUT appears when it is\n"
        "complete.\n", arg);
    if (!c.attention && !c.skip && !c.window)
        cli_usage("nothing to change: --attn, --skip or --window?");
    cli_rewrite(arg[0], arg[1], &c);
    return 0;
}
