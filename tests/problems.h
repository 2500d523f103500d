/* problems.h - benchmark problems for the search, for test_search.c and tools/bench_search.c. All
   objectives are minimised. */
#ifndef PROBLEMS_H
#define PROBLEMS_H

#include "../flash.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846
enum { PROBLEM_SLOTS = 24 };

/* ---- FlashToy-24: 24 layers, each with full attention, with a window, or without attention. A
   layer's kind costs the same time in every layer, but not the same loss. Parameters: d, r, and the
   kinds p_0 .. p_23 ---- */

static const double toy_d[] = {512, 768, 1024, 1280}, toy_r[] = {2, 2.5, 3, 4};

static double toy_worth(int l, int layers)
{
    return .004 * (1 + 3 * ((7 * l) % layers) / (layers - 1.0))
        * (l == 0 || (layers == 24 && l == 23) ? 4 : 1);
}
static double toy_latency(void *user, const double *x)
{
    const double T = 2048, W = 512, d = x[0], r = x[1];
    double sum = 0;
    (void)user;
    for (int l = 0; l < 24; l++) {
        sum += 6 * T * r * d * d;
        if (x[2 + l] < 2)
            sum += 8 * T * d * d + (x[2 + l] < 1 ? 2 * T * T * d : 4 * d * (T * W - W * W / 2));
    }
    return 1e-11 * sum;
}
static double toy_loss(void *user, const double *x)
{
    static const double lost[] = {0, .25, 1};
    double sum = 1.6 + 18 / sqrt(x[0]) + .25 / x[1];
    (void)user;
    for (int l = 0; l < 24; l++) sum += toy_worth(l, 24) * lost[(int)x[2 + l]];
    return sum;
}

/* ---- FlashToy-P: the search space of the paper: layers, d_model, d_ffn, and a kind for each of up
   to 16 layers. Three layers in a row without full attention are infeasible ---- */

static double paper_latency(void *user, const double *x)
{
    const double T = 2048, W = 256, L = x[0], d = x[1], f = x[2];
    double g = 0, w = 0;
    (void)user;
    for (int l = 0; l < (int)L; l++) {
        g += x[3 + l] < 1;
        w += x[3 + l] > 0 && x[3 + l] < 2;
    }
    return (6 * L * T * d * f + (g + w) * 10240 * T * d + g * 8192 * T * (T + 1) / 2
            + w * 8192 * (T * W - W * (W - 1) / 2) + 2 * 202048 * d)
        / 4.7e11;
}
static double paper_loss(void *user, const double *x)
{
    static const double lost[] = {0, .35, 1};
    double sum = 1.5 + 12 / sqrt(x[1]) + 8 / sqrt(x[2]) + 3 / x[0];
    (void)user;
    for (int l = 0; l < (int)x[0]; l++) sum += toy_worth(l, 16) * lost[(int)x[3 + l]];
    return sum;
}
static int paper_feasible(void *user, const double *x)
{
    int run = 0;
    (void)user;
    for (int l = 0; l < (int)x[0]; l++) {
        run = x[3 + l] > 0 ? run + 1 : 0;
        if (run > 2) return 0;
    }
    return 1;
}
static void paper_repair(void *user, double *x)
{
    int run = 0;
    (void)user;
    for (int l = 0; l < (int)x[0]; l++) {
        run = x[3 + l] > 0 ? run + 1 : 0;
        if (run > 2) x[3 + l] = run = 0;
    }
}

/* ---- problems with real parameters only ---- */

static double branin(void *user, const double *x)
{
    double u = 15 * x[0] - 5, v = 15 * x[1], t = v - 5.1 / (4 * PI * PI) * u * u + 5 / PI * u - 6;
    (void)user;
    return t * t + 10 * (1 - 1 / (8 * PI)) * cos(u) + 10;
}
static double currin(void *user, const double *x)
{
    double a = x[0], e = x[1] > 0 ? 1 - exp(-1 / (2 * x[1])) : 1;
    (void)user;
    return e * (2300 * a * a * a + 1900 * a * a + 2092 * a + 60)
        / (100 * a * a * a + 500 * a * a + 4 * a + 20);
}

static double zdt_g(const double *x, int n, int which)
{
    double g = 0;
    for (int i = 1; i < n; i++) g += which == 4 ? x[i] * x[i] - 10 * cos(4 * PI * x[i]) : x[i];
    return which == 4 ? 1 + 10 * (n - 1) + g
        : which == 6  ? 1 + 9 * pow(g / (n - 1), .25)
                      : 1 + 9 * g / (n - 1);
}
static void zdt(const double *x, int n, int which, double *y)
{
    double g = zdt_g(x, n, which);
    y[0] = which == 6 ? 1 - exp(-4 * x[0]) * pow(sin(6 * PI * x[0]), 6) : x[0];
    double q = y[0] / g;
    y[1] = g
        * (which == 2 || which == 6 ? 1 - q * q
                                    : 1 - sqrt(q) - (which == 3 ? q * sin(10 * PI * y[0]) : 0));
}
static void dtlz2(const double *x, int n, int m, double *y)
{
    double g = 0;
    for (int i = m - 1; i < n; i++) g += (x[i] - .5) * (x[i] - .5);
    for (int k = 0; k < m; k++) {
        y[k] = 1 + g;
        for (int i = 0; i < m - 1 - k; i++) y[k] *= cos(x[i] * PI / 2);
        if (k) y[k] *= sin(x[m - 1 - k] * PI / 2);
    }
}
static void vlmop2(const double *x, double *y)
{
    double a = 0, b = 0, h = 1 / sqrt(2);
    for (int i = 0; i < 2; i++) {
        a += (x[i] - h) * (x[i] - h);
        b += (x[i] + h) * (x[i] + h);
    }
    y[0] = 1 - exp(-a);
    y[1] = 1 - exp(-b);
}

/* ---- each problem as the description of a search ---- */

typedef enum problem_kind { BRANIN_CURRIN, DTLZ2, ZDT, VLMOP2, TOY, PAPER } problem_kind;

typedef struct problem {
    const char *name;
    problem_kind kind;
    int n, which;              /* number of real parameters; number of the ZDT problem */
    double reference[2], best; /* reference point; hypervolume of the exact front up to it */
} problem;

/* Fills the description d of problem p. param: [64], name: [64][8], which d points to. known: 1 if
   the latency is given as a function, so that it needs no trial. */
static void problem_desc(const problem *p, int known, flash_search_desc *d, flash_param *param,
                         char (*name)[8])
{
    int n = p->kind == TOY ? 26 : p->kind == PAPER ? 19 : p->n;
    memset(d, 0, sizeof *d);
    memset(param, 0, 64 * sizeof *param);
    for (int j = 0; j < n; j++) {
        name[j][0] = 'x';
        name[j][1] = (char)('0' + j / 10);
        name[j][2] = (char)('0' + j % 10);
        name[j][3] = 0;
        param[j].name = name[j];
        param[j].kind = FLASH_PARAM_REAL;
        param[j].hi = 1;
        if (p->kind == VLMOP2) {
            param[j].lo = -2;
            param[j].hi = 2;
        }
        if (p->kind == ZDT && p->which == 4 && j) {
            param[j].lo = -5;
            param[j].hi = 5;
        }
        if (p->kind == TOY || p->kind == PAPER) {
            param[j].kind = FLASH_PARAM_CATEGORY;
            param[j].n_value = 3;
        }
    }
    if (p->kind == TOY) {
        param[0].kind = param[1].kind = FLASH_PARAM_ORDINAL;
        param[0].n_value = param[1].n_value = 4;
        param[0].value = toy_d;
        param[1].value = toy_r;
        if (known) d->known[0] = toy_latency;
    }
    if (p->kind == PAPER) {
        static const double lo[] = {10, 1024, 2048}, hi[] = {16, 2048, 8192};
        static const double step[] = {1, 128, 256};
        for (int j = 0; j < 3; j++) {
            param[j].kind = FLASH_PARAM_INTEGER;
            param[j].lo = lo[j];
            param[j].hi = hi[j];
            param[j].step = step[j];
        }
        for (int l = 0; l < 16; l++) {
            param[3 + l].active_if = name[0];
            param[3 + l].active_from = l + 1;
        }
        d->feasible = paper_feasible;
        d->repair = paper_repair;
        if (known) d->known[0] = paper_latency;
    }
    d->param = param;
    d->n_param = n;
    d->reference = p->reference;
}

static void problem_values(const problem *p, const double *x, double *y)
{
    switch (p->kind) {
    case BRANIN_CURRIN:
        y[0] = branin(NULL, x);
        y[1] = currin(NULL, x);
        break;
    case DTLZ2: dtlz2(x, p->n, 2, y); break;
    case ZDT: zdt(x, p->n, p->which, y); break;
    case VLMOP2: vlmop2(x, y); break;
    case TOY:
        y[0] = toy_latency(NULL, x);
        y[1] = toy_loss(NULL, x);
        break;
    case PAPER:
        y[0] = paper_latency(NULL, x);
        y[1] = paper_loss(NULL, x);
        break;
    }
}

#endif
