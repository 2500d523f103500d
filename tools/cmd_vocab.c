/* cmd_vocab.c - flash vocab: learns a vocabulary from text. */
#include "vocabulary.h"
#include <stdlib.h>

int cmd_vocab(int argc, char **argv)
{
    const char *out = NULL;
    cli_texts texts = {{0}, 0};
    int size = 2048;
    size_t bytes;
    flash_gguf_writer w = {0};
    cli_vocabulary v;
    const cli_option options[] = {
        {"--text", "FILE...", CLI_TEXTS, &texts, 0, 0, "to learn from, - is standard input"},
        {"--size", "N", CLI_INT, &size, CLI_VOCABULARY_FIXED + 1, 65536, "tokens (2048)"},
        {"-o", "OUT", CLI_TEXT, &out, 0, 0, "a GGUF file of the vocabulary alone"},
        {0}};
    cli_parse_all(
        argc, argv, options, "",
        "3 control tokens, the 256 bytes, and what merging the most frequent pairs gives: parts\n"
        "of words with the space before them, marks, single digits (byte pair encoding as of\n"
        "SentencePiece, which GGUF calls llama). Texts are parted by <|endoftext|>.\n"
        "  flash vocab --text a.txt b.txt --size 4096 -o vocab.gguf\n"
        "  flash tokenize vocab.gguf -f a.txt\n",
        NULL);
    if (!texts.n || !out) cli_usage("%s is missing", out ? "--text FILE" : "-o OUT");
    for (int i = 0; i < texts.n; i++)
        if (cli_same_file(texts.at[i], out)) cli_usage("OUT is a text that is read, %s", out);
    char *text = cli_read_texts(&texts, &bytes);
    cli_vocabulary_learn(&v, size, text, bytes);
    cli_create(out, &w);
    flash_gguf_write_begin(&w, cli_vocabulary_keys(&v) + 1, 0);
    flash_gguf_write_string(&w, "general.architecture", "llama");
    cli_vocabulary_write(&v, &w);
    cli_finish(out, &w);
    printf("%s: %d tokens from %lu bytes of text\n", out, size, (unsigned long)bytes);
    cli_vocabulary_free(&v);
    free(text);
    return 0;
}
