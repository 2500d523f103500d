/* cut.h - which parts of a model stay when it is cut to a shape: for flash prune, trial and
   design. */
#ifndef FLASH_CUT_H
#define FLASH_CUT_H

#include "calibration.h"

typedef struct cut {
    const flash_model *model;
    const calibration *k;                 /* what matters most stays; NULL: what comes first */
    int layers, d_model, d_ffn, kv_heads; /* that stay; 0: all */
    const char *drop;   /* instead of layers, those that go: "2,4-6"; NULL: none */
    int energy, block;  /* see flash_calibration_choose; block 0: as the weights' type has
                           them                                                     */
    flash_prune_desc d; /* made by cut_choose; type and host are the caller's */
    int layer[FLASH_LAYERS_MAX];
    const int *ffn[FLASH_LAYERS_MAX], *kv[FLASH_LAYERS_MAX];
    int *channel;
    float share[2 * FLASH_LAYERS_MAX + 1];
} cut;

/* Fills in d; fails like all of cli.h, with flash prune's option that is out of range. */
void cut_choose(cut *c);
void cut_free(cut *c); /* what cut_choose made */

#endif
