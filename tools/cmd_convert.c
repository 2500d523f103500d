/* cmd_convert.c - flash convert: rewrites a model file as another architecture. */
#include "rewrite.h"

int cmd_convert(int argc, char **argv)
{
    const char *arg[2];
    cli_change c = {0};
    const cli_option options[] = {
        {"--arch", "ARCH", CLI_TEXT, &c.arch, 0, 0, "deci, which others read, or flash"}, {0}};
    cli_parse_all(
        argc, argv, options, "IN OUT",
        "The same model and weights: in an architecture whose layers may differ. OUT appears when\n"
        "it is complete.\n",
        arg);
    if (!c.arch) cli_usage("which --arch?");
    cli_rewrite(arg[0], arg[1], &c);
    return 0;
}
