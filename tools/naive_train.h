/* A trainer of plain loops, for comparison: see naive_train.c. */
#ifndef NAIVE_TRAIN_H
#define NAIVE_TRAIN_H

#include <stddef.h>
#include <stdint.h>

typedef struct naive naive;
typedef struct naive_shape {
    int V, D, L, H, K, C, F, B, T;
} naive_shape;

/* Weights are random; NULL: no memory. */
naive *naive_new(const naive_shape *s);
void naive_free(naive *n);
/* One step on tokens [B,T+1]; returns the loss before it. */
double naive_step(naive *n, const int32_t *tokens);

#endif
