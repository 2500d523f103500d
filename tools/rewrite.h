/* rewrite.h - a model file again, with another attention or as another architecture: for flash
   prune, flash convert and flash bench. */
#ifndef FLASH_REWRITE_H
#define FLASH_REWRITE_H

#include "cli.h"

/* What to change; NULL: nothing. */
typedef struct cli_change {
    const char *arch;      /* deci or flash; NULL: deci, or flash and the reason on stderr */
    const char *attention; /* as in flash_attention_parse, then */
    const char *skip;      /* "2,4-6": layers */
    const char *window;    /* "1,3-5:256,7:512": layers and what they see */
} cli_change;

/* Writes the model in the file `in` to the file out and says so on stdout. Fails like all of cli.h,
   also where neither architecture can say the model. */
void cli_rewrite(const char *in, const char *out, const cli_change *change);
/* The same with the model in memory instead, which came from the file `in`. */
void cli_rewrite_image(const cli_image *image, const char *in, const char *out,
                       const cli_change *change);
/* The weights of the tensor of that name, row after row; NULL: those of the file. */
typedef const float *cli_weights(void *user, const char *name);
/* Writes the file g again to out, its matrices in type want as far as their rows fit, with other
   weights. In cmd_quantize.c. */
void cli_rewrite_weights(const flash_gguf *g, const char *out, flash_type want,
                         cli_weights *weights, void *user);
/* 1 if t belongs to the attention of a layer that skips it. */
int cli_skipped(const flash_arch *a, const flash_tensor *t);

#endif
