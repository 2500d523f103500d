/* vocabulary.h - vocabularies learned from text: for flash vocab and flash train --new. */
#ifndef FLASH_VOCABULARY_H
#define FLASH_VOCABULARY_H

#include "cli.h"

/* A vocabulary is that of a model file, or one of the tokenizer that GGUF calls "llama". */
typedef struct cli_vocabulary {
    const flash_gguf *from; /* the file whose keys are copied; NULL: the fields below count */
    int n;
    const char **token;
    float *score;
    int32_t *type;
} cli_vocabulary;

/* Every vocabulary begins with <unk>, <s>, </s> and the 256 bytes. The other tokens follow. */
enum { CLI_VOCABULARY_CONTROL = 3, CLI_VOCABULARY_FIXED = CLI_VOCABULARY_CONTROL + 256 };

/* Makes a vocabulary of n tokens, of which the first CLI_VOCABULARY_FIXED are set. token[i] of the
   others is an empty text, with room for CLI_TOKEN_BYTES, that the caller writes.
   cli_vocabulary_free frees it. */
enum { CLI_TOKEN_BYTES = 64 };
void cli_vocabulary_create(cli_vocabulary *v, int n);
void cli_vocabulary_free(cli_vocabulary *v);
/* Learns n tokens from text by merging the most frequent pair of neighbours, again and again, as
   SentencePiece does (byte pair encoding: Sennrich et al. 2016, arxiv 1508.07909). A token lies
   within a word with the space before it, a run of other marks, or a single digit. Characters that
   are rarer than 1 in 20,000 stay bytes. Fails like all of cli.h if the text has too few pairs. */
void cli_vocabulary_learn(cli_vocabulary *v, int n, const char *text, size_t bytes);
/* The first returns how many keys of a file describe v, the second writes them. */
uint32_t cli_vocabulary_keys(const cli_vocabulary *v);
void cli_vocabulary_write(const cli_vocabulary *v, flash_gguf_writer *w);

#endif
