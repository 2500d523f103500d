/* shapes.h - model shapes by name, and files of random weights of a shape: for flash make, flash
   bench and the tests. */
#ifndef FLASH_SHAPES_H
#define FLASH_SHAPES_H

#include "cli.h"

typedef struct cli_shape {
    const char *name;   /* "custom" if it was spelled out */
    int layers, d_model, d_ffn, heads, kv_heads, d_head, vocab;
    int tied;           /* the head shares the embedding's weights */
    int ctx;
} cli_shape;

/* "flash-350m, ...": for messages and help. */
extern const char cli_shape_names[];
/* 1 and *out for a name, or for "d=256,layers=2,heads=4,kv=2,head=64,ffn=512,vocab=512,ctx=2048",
   where what is left out is as in "tiny" (head: d/heads, untied); else 0. */
int  cli_shape_parse(const char *text, cli_shape *out);
/* Writes a GGUF file (architecture llama) with random weights of that shape; its matrices are of
   type t, or the one cli_type_for gives. Same file for the same seed on every machine. Fails like
   all of cli.h. quiet: no progress. */
void cli_make_model(const char *path, const cli_shape *shape, flash_type t, uint64_t seed,
                    int quiet);

#endif
