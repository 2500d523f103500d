/* fit.h - what flash fit finds out about a profile, for its report. */
#ifndef FLASH_FIT_H
#define FLASH_FIT_H

#include "profile.h"

enum { FIT_CURVE = 8, FIT_LENGTHS = 16 };

/* One workload: measurements of the same are one point. */
typedef struct fit_point {
    const profile_entry *e; /* the first of them */
    flash_timing time;      /* corrected for drift [s] */
    flash_interval cv[2];   /* prefill, decode: predicted by fits without its shape */
    int group;              /* of all lengths of a shape */
    int repeats;            /* measurements, at different moments */
} fit_point;

/* Of predictions against measurements. */
typedef struct fit_score {
    int n;
    double r2, mape, within10; /* 1 - SSE/SST; mean |error|; share of errors <= 10 % */
    double spearman, cover90;  /* rank correlation; share within the 90 % interval */
    double ceiling;            /* R^2 that noise allows, 1 - var(noise)/var(time); NaN: no
                                  shape was measured twice, or its least time counts       */
} fit_score;

/* Kendall's tau-b against measured time, at one length. */
typedef struct fit_tau {
    int length, n;
    double params, flops, model;
} fit_tau;

typedef struct fit_results {
    const char *name; /* the profile's file */
    const profile *p;
    fit_point *point; /* [n], in the order measured */
    int n, groups;
    fit_score score[2]; /* prefill, decode: 10-fold cross-validation */
    struct {
        int n;
        double mape[2];
    } curve[FIT_CURVE]; /* by number of shapes to fit */
    int n_curve;
    fit_tau tau[2][FIT_LENGTHS];
    int n_lengths;
} fit_results;

/* One HTML file with everything in it; fails like all of cli.h. */
void fit_report(const char *path, const fit_results *r);

#endif
