/* rewrite.h - a model file again, with another attention or as another architecture: for flash
   prune, flash convert and flash bench. */
#ifndef FLASH_REWRITE_H
#define FLASH_REWRITE_H

#include "cli.h"

/* What to change; NULL: nothing. */
typedef struct cli_change {
    const char *arch;      /* deci or flash; NULL: deci, or flash and the reason on stderr */
    const char *attention; /* as in flash_attention_parse, then                            */
    const char *skip;      /* "2,4-6": layers                                              */
    const char *window;    /* "1,3-5:256,7:512": layers and what they see                  */
} cli_change;

/* Writes the model in the file `in` to the file out and says so on stdout. Fails like all of cli.h,
   also where neither architecture can say the model. */
void cli_rewrite(const char *in, const char *out, const cli_change *change);
/* 1 if t belongs to the attention of a layer that skips it. */
int  cli_skipped(const flash_arch *a, const flash_tensor *t);

#endif
