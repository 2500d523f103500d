/* calibration.h - calibration files, which say how much each part of a model matters: for flash
   calibrate, prune, trial, design and study. */
#ifndef FLASH_CALIBRATION_H
#define FLASH_CALIBRATION_H

#include "cli.h"

/* KL is the divergence of the model without some attentions from the whole model [nat a token]. */
typedef struct calibration {
    flash_calibration *c;
    double skip[FLASH_LAYERS_MAX];     /* KL without the attention of layer l alone */
    int n_order;                       /* number of layers in order */
    int order[FLASH_LAYERS_MAX];       /* layers to skip attention in, one after another */
    double order_kl[FLASH_LAYERS_MAX]; /* KL without the attention of this layer and those before */
} calibration;

/* Writes a calibration of a model of architecture a as text. Its lines are
     flash calibration 1
     model layers=L d=D head=C
     layer I ffn=F kv=K heads=H skip=KL          for each layer
     skips N                                     then N lines: skip I KL
     numbers N                                   then N lines: flash_calibration_numbers
     end
   All functions here fail like those of cli.h. */
void calibration_save(const char *path, calibration *k, const flash_arch *a);
/* Returns a list such as "2,4" of the first n layers of the order that stay. layer: [n_layer] the
   layers that stay, NULL: all; the list has their new numbers. The caller frees it. */
char *calibration_skips(const calibration *k, const flash_arch *a, int n, const int *layer,
                        int n_layer);
/* Reads the calibration of a model of architecture a. The caller frees k->c with
   flash_calibration_free. */
void calibration_load(const char *path, calibration *k, const flash_arch *a);

#endif
