/* fit.h - the results of flash fit for a profile, for its report. */
#ifndef FLASH_FIT_H
#define FLASH_FIT_H

#include "profile.h"

enum { FIT_CURVE = 8, FIT_LENGTHS = 16 };

/* A point is one workload: all measurements of the same workload are merged into one point. */
typedef struct fit_point {
    const profile_entry *e; /* the first of the measurements */
    flash_timing time;      /* of all of them, corrected for drift if that lowers the noise [s] */
    flash_interval cv[2];   /* prefill, decode [s]: predicted by fits without this shape */
    int group;              /* number of its shape, the same for all prompt lengths */
    int repeats;            /* number of measurements, at different moments */
} fit_point;

/* A score says how well predictions agree with n measured times. */
typedef struct fit_score {
    int n;
    double r2, mape, within10; /* 1 - SSE/SST; mean |relative error|; share of errors <= 10 % */
    double spearman, cover90;  /* rank correlation; share within the 90 % interval */
    /* The R^2 that noise allows, 1 - var(noise)/var(time); NaN if no workload was measured twice,
       or if the time of a workload is its least one. */
    double ceiling;
} fit_score;

/* Kendall's tau-b says how well the number of parameters, that of operations and predicted times
   sort n workloads of one prompt length by their measured times. */
typedef struct fit_tau {
    int length, n;
    double params, flops, model;
} fit_tau;

typedef struct fit_results {
    const char *name; /* file of the profile */
    const profile *p;
    fit_point *point;   /* [n], in the order of measuring */
    int n, groups;      /* number of points, of shapes */
    fit_score score[2]; /* prefill, decode: 10-fold cross-validation */
    struct {
        int n;
        double mape[2];
    } curve[FIT_CURVE]; /* MAPE of all other shapes (prefill, decode) when n are fitted to */
    int n_curve;
    fit_tau tau[2][FIT_LENGTHS]; /* prefill, decode */
    int n_lengths;
} fit_results;

/* Writes the report, one HTML file that needs no other. Fails like all of cli.h. */
void fit_report(const char *path, const fit_results *r);

#endif
