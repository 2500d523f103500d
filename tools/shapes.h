/* shapes.h - model shapes by name, and files of random weights of a shape: for flash make, flash
   bench and the tests. */
#ifndef FLASH_SHAPES_H
#define FLASH_SHAPES_H

#include "vocabulary.h"

typedef enum cli_mix { /* what a layer does before its FFN */
                       CLI_FULL,
                       CLI_WINDOW,
                       CLI_SKIP,
                       CLI_LINEAR, /* a matrix in place of attention */
                       CLI_CONV    /* a gated short convolution */
} cli_mix;

typedef struct cli_shape_layer {
    cli_mix mix;
    int heads, kv_heads, d_ffn; /* 0 where the layer has none */
    int window;
    float rope_base; /* of this layer, 0: no rotation; -1: as the model's */
} cli_shape_layer;

typedef struct cli_shape {
    const char *name; /* "custom" if it was spelled out */
    const char *arch;
    int layers, d_model, d_head, vocab;
    int tied; /* the head shares the embedding's weights */
    int ctx;
    int period; /* of what layers do; 0: there is none */
    cli_shape_layer layer[FLASH_LAYERS_MAX];
} cli_shape;

/* "flash-350m, ...": for messages and help. */
extern const char cli_shape_names[], cli_arch_names[];
/* 1 and *out for a name, or for
   "d=256,layers=2,heads=4,kv=2,head=64,ffn=512,vocab=512,ctx=2048,tied=0", where what is left out
   is as in "tiny" (head: d/heads) and heads, kv and ffn may be lists that repeat over the layers,
   "ffn=512/256"; else 0. arch and attn replace the shape's own, NULL: they stay. attn: what layers
   do, a list that repeats over them: full, window:POSITIONS, skip, linear, conv; followed by @BASE
   for a RoPE base of its own, 0 for none. *why: what is wrong. */
int cli_shape_parse(const char *text, const char *arch, const char *attn, cli_shape *out,
                    const char **why);
/* The same shape for the library. */
void cli_shape_arch(const cli_shape *s, flash_arch *a);
/* Writes, between _begin and _end of w, random weights of that shape, with the vocabulary's
   shape->vocab tokens; matrices are of type t, or the one cli_type_for gives. Same bytes for the
   same seed on every machine. Fails like all of cli.h. quiet: no progress. */
void cli_make_gguf(flash_gguf_writer *w, const cli_shape *shape, const cli_vocabulary *vocabulary,
                   flash_type t, uint64_t seed, int quiet);
/* The same as a file, with a made-up vocabulary. */
void cli_make_model(const char *path, const cli_shape *shape, flash_type t, uint64_t seed,
                    int quiet);

#endif
