/* stats.h - statistics that tell whether figures differ: for flash fit, design and study. */
#ifndef FLASH_STATS_H
#define FLASH_STATS_H

#include <stdint.h>

/* Returns Kendall's tau-b of n pairs; NaN if all x or all y are the same. */
double stats_kendall(const double *x, const double *y, int n);
/* Returns the standard error of tau-b over samples of the pairs, by the bootstrap (Efron 1979). */
double stats_kendall_error(const double *x, const double *y, int n);
/* Returns the mean of a - b, [n] each (b NULL: of a), and its standard error in *error. */
double stats_mean(const double *a, const double *b, int n, double *error);
/* Returns the median of x, [n], and sorts x. */
double stats_median(double *x, int n);

#endif
