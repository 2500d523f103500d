/* vocabulary.h - vocabularies learned from text: for flash vocab and flash train --new. */
#ifndef FLASH_VOCABULARY_H
#define FLASH_VOCABULARY_H

#include "cli.h"

/* The tokens of a tokenizer "llama", as GGUF files have them; or any that a file has. */
typedef struct cli_vocabulary {
    const flash_gguf *from; /* with these keys; NULL: with what follows */
    int n;
    const char **token;
    float *score;
    int32_t *type;
} cli_vocabulary;

/* <unk>, <s>, </s> and the 256 bytes: what every vocabulary has. Other tokens come behind. */
enum { CLI_VOCABULARY_CONTROL = 3, CLI_VOCABULARY_FIXED = CLI_VOCABULARY_CONTROL + 256 };

/* Room for n tokens, of which the first are there; token[i] of the others is text of
   CLI_TOKEN_BYTES that may be written. cli_vocabulary_free gives it back. */
enum { CLI_TOKEN_BYTES = 64 };
void cli_vocabulary_create(cli_vocabulary *v, int n);
void cli_vocabulary_free(cli_vocabulary *v);
/* Learns n tokens from text by merging the most frequent pair of neighbours, again and again, as
   SentencePiece does (byte pair encoding: Sennrich et al. 2016, arxiv 1508.07909): within words
   and the space before them, runs of other marks, and single digits. Characters that are rarer than
   1 in 20,000 stay bytes. Fails like all of cli.h where the text has too little for n. */
void cli_vocabulary_learn(cli_vocabulary *v, int n, const char *text, size_t bytes);
/* The keys of v, and how many there are. */
uint32_t cli_vocabulary_keys(const cli_vocabulary *v);
void cli_vocabulary_write(const cli_vocabulary *v, flash_gguf_writer *w);

#endif
