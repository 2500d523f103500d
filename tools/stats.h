/* stats.h - what tells whether figures differ: for flash fit, design and study. */
#ifndef FLASH_STATS_H
#define FLASH_STATS_H

#include <stdint.h>

/* Kendall's tau-b of n pairs; NaN where all are the same. */
double stats_kendall(const double *x, const double *y, int n);
/* Its standard error over samples of the pairs, by the bootstrap (Efron 1979). */
double stats_kendall_error(const double *x, const double *y, int n);
/* The mean of a - b, [n], b NULL: of a, and its standard error. */
double stats_mean(const double *a, const double *b, int n, double *error);
/* Of x, [n], which it sorts. */
double stats_median(double *x, int n);

#endif
