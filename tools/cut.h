/* cut.h - chooses which parts of a model stay when it is cut to a smaller shape: for flash prune,
   trial and design. */
#ifndef FLASH_CUT_H
#define FLASH_CUT_H

#include "calibration.h"

typedef struct cut {
    const flash_model *model;
    const calibration *k;                 /* the parts that matter most stay; NULL: the first */
    int layers, d_model, d_ffn, kv_heads; /* how many stay; 0: all */
    const char *drop; /* the layers to remove, instead of `layers`: "2,4-6"; NULL: none */
    /* See flash_calibration_choose; block 0: the size of the blocks of the weights' types. */
    int energy, block;
    flash_prune_desc d; /* set by cut_choose; type, retype and host are the caller's */
    /* These are the lists that d points to. */
    int layer[FLASH_LAYERS_MAX];
    const int *ffn[FLASH_LAYERS_MAX], *kv[FLASH_LAYERS_MAX];
    int *channel;
    float share[2 * FLASH_LAYERS_MAX + 1];
} cut;

/* Chooses what stays and sets c->d. Fails like all of cli.h, naming the option of flash prune that
   is out of range. */
void cut_choose(cut *c);
void cut_free(cut *c); /* frees the lists that cut_choose made */

#endif
