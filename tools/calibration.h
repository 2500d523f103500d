/* calibration.h - what the parts of a model matter, as a file: for flash calibrate and prune. */
#ifndef FLASH_CALIBRATION_H
#define FLASH_CALIBRATION_H

#include "cli.h"

typedef struct calibration {
    flash_calibration *c;
    double skip[FLASH_LAYERS_MAX];     /* KL [nat a token] without the attention of that layer */
    int n_order;                       /* attentions to skip, one more each time: */
    int order[FLASH_LAYERS_MAX];       /* which */
    double order_kl[FLASH_LAYERS_MAX]; /* KL without it and those before it */
} calibration;

/* As text, lines of
     flash calibration 1
     model layers=L d=D head=C
     layer I ffn=F kv=K heads=H skip=KL          for each layer
     skips N, then N times: skip I KL
     numbers N, then N numbers, as flash_calibration_numbers has them
     end
   All of these fail like cli.h. */
void calibration_save(const char *path, calibration *k, const flash_arch *a);
/* The first n attentions of the order whose layers stay, as "2,4": numbers of layers among those
   that stay, layer, [n_layer]; NULL: all. The caller frees it. */
char *calibration_skips(const calibration *k, const flash_arch *a, int n, const int *layer,
                        int n_layer);
/* Of a model of that architecture; flash_calibration_free(k->c) gives it back. */
void calibration_load(const char *path, calibration *k, const flash_arch *a);

#endif
