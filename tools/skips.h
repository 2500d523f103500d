/* skips.h - which attentions to skip, one more each time: for flash calibrate, bench_prune and the
   tests. */
#ifndef FLASH_SKIPS_H
#define FLASH_SKIPS_H

#include "../flash.h"

/* What the model is worth less without attention in layers where skip[l], [n_layer], is not 0. */
typedef double skips_loss(void *user, const uint8_t *skip);

/* Whether layer l may lose its attention as well: it has one, and then no more than `run` layers in
   a row are without. */
static inline int skips_may(const flash_arch *a, const uint8_t *skip, int l, int run)
{
    int from = l, to = l;
    if (skip[l] || !a->layer[l].n_head) return 0;
    while (from > 0 && (skip[from - 1] || !a->layer[from - 1].n_head)) from--;
    while (to + 1 < a->n_layer && (skip[to + 1] || !a->layer[to + 1].n_head)) to++;
    return to - from + 1 <= run;
}

/* Each attention alone, alone[l] (0 where there is none), then which costs least given those
   before, as many as are wanted and may go: order[i], and what is lost without it and those before,
   loss[i]; [n_layer] each. Returns how many. */
static inline int skips_find(const flash_arch *a, int wanted, int run, skips_loss *without,
                             void *user, double *alone, int *order, double *loss)
{
    uint8_t skip[FLASH_LAYERS_MAX] = {0};
    int n = 0;
    for (int l = 0; l < a->n_layer; l++) {
        alone[l] = 0;
        if (!a->layer[l].n_head) continue;
        skip[l] = 1;
        alone[l] = without(user, skip);
        skip[l] = 0;
    }
    while (n < wanted) {
        int best = -1;
        for (int l = 0; l < a->n_layer; l++) {
            if (!skips_may(a, skip, l, run)) continue;
            skip[l] = 1;
            double x = n ? without(user, skip) : alone[l];
            skip[l] = 0;
            if (best >= 0 && !(x < loss[n])) continue;
            best = l;
            loss[n] = x;
        }
        if (best < 0) break;
        skip[best] = 1;
        order[n++] = best;
    }
    return n;
}

#endif
