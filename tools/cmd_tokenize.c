/* cmd_tokenize.c - flash tokenize: turns text into ids on one line, and back. */
#include "cli.h"
#include <stdlib.h>

int cmd_tokenize(int argc, char **argv)
{
    const char *file = NULL;
    int no_bos = 0, special = 0, decode = 0;
    flash_model_desc md = {0};
    const cli_option options[] = {
        {"-f", "FILE", CLI_TEXT, &file, 0, 0, "input (standard input)"},
        {"--no-bos", NULL, CLI_FLAG, &no_bos, 0, 0, "do not begin with BOS"},
        {"--special", NULL, CLI_FLAG, &special, 0, 0, "read (decoding: show) control tokens"},
        {"--decode", NULL, CLI_FLAG, &decode, 0, 0, "input is ids, output is text"},
        CLI_PRE_OPTION(md),
        {0}};
    md.source.path = cli_parse(
        argc, argv, options,
        "Writes the ids of the whole input on one line. A file of a vocabulary alone will do.\n");
    md.vocab_only = 1;

    size_t bytes, n;
    unsigned flags = (special ? FLASH_TEXT_SPECIAL : 0) | (no_bos ? FLASH_TEXT_NO_BOS : 0);
    flash_model *m = cli_load(&md);
    char *text = cli_read(file, &bytes);
    int32_t *ids = decode ? cli_ids(m, text, &n) : cli_tokenize(m, text, bytes, flags, &n);
    if (decode) {
        flash_status st = flash_detokenize(m, ids, n, flags, NULL, 0, &bytes);
        free(text);
        text = malloc(bytes + 1);
        if (st == FLASH_E_RANGE)
            st = text ? flash_detokenize(m, ids, n, flags, text, bytes, &bytes) : FLASH_E_MEMORY;
        if (st) cli_fail("cannot decode: %s", flash_status_text(st));
        cli_binary(stdout);
        fwrite(text, 1, bytes, stdout);
    } else {
        for (size_t i = 0; i < n; i++) printf(i ? " %ld" : "%ld", (long)ids[i]);
        putchar('\n');
    }
    free(ids);
    free(text);
    flash_model_free(m);
    return 0;
}
