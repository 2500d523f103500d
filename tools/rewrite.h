/* rewrite.h - rewrites a model file with another attention, as another architecture or with other
   weights: for flash prune, convert, bench and train. */
#ifndef FLASH_REWRITE_H
#define FLASH_REWRITE_H

#include "cli.h"

/* What to change: attention first, then skip, then window. A field that is NULL changes nothing. */
typedef struct cli_change {
    const char *arch;      /* deci or flash; NULL: deci if it can, else flash, with a note why */
    const char *attention; /* of all layers, as in flash_attention_parse */
    const char *skip;      /* "2,4-6": layers that skip attention */
    const char *window;    /* "1,3-5:256,7:512": layers, and the window of positions they see */
} cli_change;

/* Writes the model in the file `in`, changed, to the file out, and a line about it to stdout. Fails
   like all of cli.h, also if neither deci nor flash can describe the model. */
void cli_rewrite(const char *in, const char *out, const cli_change *change);
/* Like cli_rewrite, but the model is in memory; `in` is the file it came from, for messages. */
void cli_rewrite_image(const cli_image *image, const char *in, const char *out,
                       const cli_change *change);
/* Returns the new weights of the tensor of that name, row after row; NULL if it keeps those of the
   file. */
typedef const float *cli_weights(void *user, const char *name);
/* Writes the model of the file g to out with the new weights, its matrices in type want where their
   rows fit that type's blocks. Defined in cmd_quantize.c. */
void cli_rewrite_weights(const flash_gguf *g, const char *out, flash_type want,
                         cli_weights *weights, void *user);
/* Returns 1 if t belongs to the attention of a layer that skips attention. */
int cli_skipped(const flash_arch *a, const flash_tensor *t);

#endif
