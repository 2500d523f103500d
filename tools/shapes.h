/* shapes.h - model shapes by name, and files with random weights of a shape: for flash make, bench,
   train and the tests. */
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
    int heads, kv_heads, d_ffn; /* 0 if the layer has none */
    int window;                 /* positions; 0 if there is none */
    float rope_base;            /* 0: no RoPE in this layer; -1: the base of the model */
} cli_shape_layer;

typedef struct cli_shape {
    const char *name; /* "custom" if it was spelled out */
    const char *arch;
    int layers, d_model, d_head, vocab;
    int tied;   /* 1: the output matrix is the embedding's */
    int ctx;    /* context length */
    int period; /* length of the list `attn` that is repeated; 0: it is longer than the layers */
    cli_shape_layer layer[FLASH_LAYERS_MAX];
} cli_shape;

/* Lists of names, "flash-350m, ...", for messages and help. */
extern const char cli_shape_names[], cli_arch_names[];
/* Sets *out to the shape `text`: a name, or
   "d=256,layers=2,heads=4,kv=2,head=64,ffn=512,vocab=512,ctx=2048,tied=0", where what is left out
   is as in "tiny" (head: d/heads) and heads, kv and ffn may be lists, "ffn=512/256", which are
   repeated over the layers. arch and attn replace those of the shape; NULL: they stay. attn is a
   list of what the layers do, repeated over them: full, window:POSITIONS, skip, linear, conv; each
   may be followed by @BASE, a RoPE base for that layer, 0 for no RoPE. Returns 1, or 0 and in *why
   what is wrong. */
int cli_shape_parse(const char *text, const char *arch, const char *attn, cli_shape *out,
                    const char **why);
/* Converts the shape s for the library. */
void cli_shape_arch(const cli_shape *s, flash_arch *a);
/* Writes a model of that shape with random weights to w; the caller calls flash_gguf_write_end. The
   vocabulary must have shape->vocab tokens. Matrices have the type that cli_type_for gives for t.
   The same seed gives the same bytes on every machine. quiet 1: shows no progress. Fails like all
   of cli.h. */
void cli_make_gguf(flash_gguf_writer *w, const cli_shape *shape, const cli_vocabulary *vocabulary,
                   flash_type t, uint64_t seed, int quiet);
/* Like cli_make_gguf, with a made-up vocabulary, to a file. */
void cli_make_model(const char *path, const cli_shape *shape, flash_type t, uint64_t seed,
                    int quiet);

#endif
