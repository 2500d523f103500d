/* stats.c - see stats.h. */
#include "stats.h"
#include "cli.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 1000 }; /* of the bootstrap */

double stats_kendall(const double *x, const double *y, int n)
{
    double agree = 0, tx = 0, ty = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            int a = (x[i] > x[j]) - (x[i] < x[j]), b = (y[i] > y[j]) - (y[i] < y[j]);
            agree += a * b;
            tx += a != 0;
            ty += b != 0;
        }
    return agree / sqrt(tx * ty);
}

double stats_kendall_error(const double *x, const double *y, int n)
{
    double *some = malloc(2 * (size_t)n * sizeof *some), sum = 0, squares = 0;
    uint64_t state = 1;
    int good = 0;
    if (!some) cli_fail("out of memory");
    for (int k = 0; k < SAMPLES; k++) {
        for (int i = 0; i < n; i++) {
            int j = (int)(cli_random(&state) % (uint64_t)n);
            some[i] = x[j];
            some[n + i] = y[j];
        }
        double tau = stats_kendall(some, some + n, n);
        if (!isfinite(tau)) continue;
        sum += tau;
        squares += tau * tau;
        good++;
    }
    free(some);
    return good > 1 ? sqrt(fmax(squares - sum * sum / good, 0) / (good - 1)) : NAN;
}

double stats_mean(const double *a, const double *b, int n, double *error)
{
    double mean = 0, squares = 0;
    for (int i = 0; i < n; i++) mean += (a[i] - (b ? b[i] : 0)) / n;
    for (int i = 0; i < n; i++) {
        double v = a[i] - (b ? b[i] : 0) - mean;
        squares += v * v;
    }
    *error = n > 1 ? sqrt(squares / (n - 1) / n) : NAN;
    return mean;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double stats_median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}
