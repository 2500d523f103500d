/* bench_search.c - how good the search is on problems whose best is known.
   build: cc -std=c99 -O2 tools/bench_search.c -o bench_search -lm
   usage: bench_search [NAME...] [-s SEEDS]: `make bench-search` runs all. One line each:
   bench NAME evals=N seeds=N log10_gap=MEDIAN ratio=MEDIAN worst=RATIO ... of the hypervolume,
   then the time of a suggestion, mean and longest. */
#define FLASH_SEARCH_IMPLEMENTATION
#define FLASH_KEEP_INTERNALS /* what NSGA-II keeps */
#include "../flash.h"
#include "../tests/problems.h"
#include <stdio.h>
#include <time.h>

static const problem problems[] = {
    {"BraninCurrin", BRANIN_CURRIN, 2, 0, {18, 6}, 59.405576},
    {"DTLZ2", DTLZ2, 6, 0, {1.1, 1.1}, 0.424601836603},
    {"ZDT1", ZDT, 6, 1, {1.1, 1.1}, 0.8766666666667},
    {"ZDT2", ZDT, 6, 2, {1.1, 1.1}, 0.5433333333333},
    {"ZDT3", ZDT, 6, 3, {1.1, 1.1}, 1.331762909},
    {"VLMOP2", VLMOP2, 2, 0, {0, 0}, 0},
    {"FlashToy-24", TOY, 0, 0, {40, 3}, 28.404575041},
    {"FlashToy-P", PAPER, 0, 0, {5, 2.55}, 1.479143178},
    {"ZDT1-30", ZDT, 30, 1, {1.1, 1.1}, 0.8766666666667},
    {"ZDT2-30", ZDT, 30, 2, {1.1, 1.1}, 0.5433333333333},
    {"ZDT3-30", ZDT, 30, 3, {1.1, 1.1}, 1.331762909},
    {"ZDT4-10", ZDT, 10, 4, {1.1, 1.1}, 0.8766666666667},
    {"ZDT6-10", ZDT, 10, 6, {1.1, 1.1}, 0.507877514604},
};

typedef struct run {
    const char *name, *problem;
    int evals, initial, batch, known, noisy; /* noisy 2: deviations are known */
    flash_search_method method;
} run;

static const run runs[] = {
    {"BraninCurrin", "BraninCurrin", 60, 6, 1, 0, 0, FLASH_SEARCH_EHVI},
    {"DTLZ2", "DTLZ2", 100, 14, 1, 0, 0, FLASH_SEARCH_EHVI},
    {"ZDT1", "ZDT1", 100, 14, 1, 0, 0, FLASH_SEARCH_EHVI},
    {"ZDT2", "ZDT2", 100, 14, 1, 0, 0, FLASH_SEARCH_EHVI},
    {"ZDT3", "ZDT3", 100, 14, 1, 0, 0, FLASH_SEARCH_EHVI},
    {"BraninCurrin-noisy", "BraninCurrin", 86, 6, 1, 0, 2, FLASH_SEARCH_EHVI},
    {"BraninCurrin-noisy-q4", "BraninCurrin", 86, 6, 4, 0, 2, FLASH_SEARCH_EHVI},
    {"BraninCurrin-noise-learned", "BraninCurrin", 86, 6, 1, 0, 1, FLASH_SEARCH_EHVI},
    {"BraninCurrin-noise-learned-q4", "BraninCurrin", 86, 6, 4, 0, 1, FLASH_SEARCH_EHVI},
    {"VLMOP2", "VLMOP2", 30, 10, 1, 0, 0, FLASH_SEARCH_EHVI},
    {"FlashToy-24", "FlashToy-24", 150, 20, 1, 0, 0, FLASH_SEARCH_EHVI},
    {"FlashToy-24-known", "FlashToy-24", 150, 20, 1, 1, 0, FLASH_SEARCH_EHVI},
    {"FlashToy-P", "FlashToy-P", 200, 0, 8, 1, 0, FLASH_SEARCH_EHVI},
    {"Ask-150", "FlashToy-24", 152, 150, 1, 0, 0, FLASH_SEARCH_EHVI}, /* for longest_ms */
    {"Ask-1000", "FlashToy-24", 1002, 1000, 1, 0, 0, FLASH_SEARCH_EHVI},
    {"FlashToy-P-nsga2", "FlashToy-P", 200, 0, 1, 1, 0, FLASH_SEARCH_NSGA2},
    {"FlashToy-P-random", "FlashToy-P", 200, 0, 1, 1, 0, FLASH_SEARCH_RANDOM},
    {"DTLZ2-nsga2", "DTLZ2", 100, 0, 1, 0, 0, FLASH_SEARCH_NSGA2},
    {"DTLZ2-random", "DTLZ2", 100, 0, 1, 0, 0, FLASH_SEARCH_RANDOM},
    {"NSGA2-ZDT1", "ZDT1-30", 25000, 0, 1, 0, 0, FLASH_SEARCH_NSGA2},
    {"NSGA2-ZDT2", "ZDT2-30", 25000, 0, 1, 0, 0, FLASH_SEARCH_NSGA2},
    {"NSGA2-ZDT3", "ZDT3-30", 25000, 0, 1, 0, 0, FLASH_SEARCH_NSGA2},
    {"NSGA2-ZDT4", "ZDT4-10", 25000, 0, 1, 0, 0, FLASH_SEARCH_NSGA2},
    {"NSGA2-ZDT6", "ZDT6-10", 25000, 0, 1, 0, 0, FLASH_SEARCH_NSGA2},
};

static void die(const flash_error *e)
{
    fprintf(stderr, "bench_search: %s\n", e->text);
    exit(1);
}

static const double deviation[2] = {15.19, .63}; /* of BoTorch's tutorial, which tells them */

/* Standard normal (Box and Muller) of a generator of the bench's own. */
static double normal(uint64_t *state)
{
    double u[2];
    for (int i = 0; i < 2; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        u[i] = ((double)(*state >> 11) + .5) / 9007199254740992.0;
    }
    return sqrt(-2 * log(u[0])) * cos(2 * PI * u[1]);
}

/* The hypervolume that true values of n trials reach. */
static double volume(const problem *p, const double *y, size_t n, double *best)
{
    uint32_t *work = malloc((2 * n + 1) * sizeof *work);
    double r[2], lo[2], v;
    memcpy(r, p->reference, sizeof r);
    *best = p->best;
    if (p->kind == VLMOP2) { /* Trieste's get_reference_point, of all trials */
        double front[200];
        for (int k = 0; k < 2; k++) {
            lo[k] = r[k] = y[k];
            for (size_t i = 1; i < n; i++) {
                lo[k] = fmin(lo[k], y[2 * i + (size_t)k]);
                r[k] = fmax(r[k], y[2 * i + (size_t)k]);
            }
            r[k] += 2 * (r[k] - lo[k]) / (double)n;
        }
        for (int i = 0; i < 100; i++) {
            double at = (2 * i / 99. - 1) / sqrt(2), x[2] = {at, at};
            vlmop2(x, front + 2 * i);
        }
        uint32_t w[200];
        *best = flash_hypervolume(front, 100, 2, r, w);
    }
    v = flash_hypervolume(y, n, 2, r, work);
    free(work);
    return v;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench(const run *r, int seeds)
{
    static char names[64][8];
    flash_param param[64];
    flash_search_desc d;
    flash_error err;
    const problem *p = problems;
    double gap[101], ratio[101], all[101], ask_time = 0, longest = 0, best = 0;
    size_t memory = 0;
    while (strcmp(p->name, r->problem)) p++;
    problem_desc(p, r->known, &d, param, names);
    d.max_trials = r->evals;
    d.initial = r->initial;
    d.method = r->method;
    d.noisy = r->noisy > 0;
    d.noise = r->noisy == 2 ? deviation : NULL;
    if (p->kind == VLMOP2) d.reference = NULL;
    if (r->evals < 1000 && r->method == FLASH_SEARCH_NSGA2) d.population = 20;
    for (int seed = 1; seed <= seeds; seed++) {
        flash_search *s;
        double *y = malloc(2 * (size_t)r->evals * sizeof *y);
        uint64_t noise = (uint64_t)seed * 7919;
        d.seed = (uint64_t)seed;
        memory = flash_search_memory(&d, &err);
        if (flash_search_create(&s, &d, &err)) die(&err);
        for (int done = 0; done < r->evals;) {
            flash_trial t[16];
            int n = 0;
            for (; n < r->batch && done + n < r->evals; n++) {
                clock_t from = clock();
                if (flash_search_ask(s, t + n, &err)) die(&err);
                double took = (double)(clock() - from) / CLOCKS_PER_SEC;
                ask_time += took;
                longest = fmax(longest, took);
            }
            for (int i = 0; i < n; i++) {
                double v[2];
                problem_values(p, t[i].x, v);
                memcpy(y + 2 * (done + i), v, sizeof v);
                if (r->noisy) {
                    v[0] += deviation[0] * normal(&noise);
                    v[1] += deviation[1] * normal(&noise);
                }
                if (flash_search_tell(s, t[i].id, v, &err)) die(&err);
            }
            done += n;
        }
        /* of a population what is left at the end, else all trials */
        if (r->method == FLASH_SEARCH_NSGA2 && r->evals >= 1000) {
            double *kept = malloc(2 * (size_t)s->desc.population * sizeof *kept);
            flash__breed(s);
            for (int i = 0; i < s->parents; i++)
                memcpy(kept + 2 * i, y + 2 * s->parent[i], 2 * sizeof *y);
            all[seed - 1] = volume(p, kept, (size_t)s->parents, &best);
            free(kept);
        } else
            all[seed - 1] = volume(p, y, (size_t)r->evals, &best);
        gap[seed - 1] = log10(fmax(best - all[seed - 1], 1e-12));
        ratio[seed - 1] = all[seed - 1] / best;
        flash_search_free(s);
        free(y);
    }
    int passed = 0;
    for (int i = 0; i < seeds; i++) passed += gap[i] * log(10) < -3.65;
    qsort(gap, (size_t)seeds, sizeof *gap, by_value);
    qsort(ratio, (size_t)seeds, sizeof *ratio, by_value);
    qsort(all, (size_t)seeds, sizeof *all, by_value);
    printf("bench %s evals=%d seeds=%d log10_gap=%.3f ratio=%.5f worst=%.5f hypervolume=%.5f "
           "spread=%.3f..%.3f ask_ms=%.1f longest_ms=%.1f memory=%zu",
           r->name, r->evals, seeds, gap[seeds / 2], ratio[seeds / 2], ratio[0], all[seeds / 2],
           gap[0], gap[seeds - 1], 1e3 * ask_time / seeds / r->evals, 1e3 * longest, memory);
    if (p->kind == VLMOP2) printf(" below_-3.65=%d", passed);
    putchar('\n');
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int seeds = 11, named = 0;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "-s") && i + 1 < argc) {
            seeds = atoi(argv[++i]);
            if (seeds < 1 || seeds > 101) {
                fprintf(stderr, "bench_search: -s 1 to 101\n");
                return 2;
            }
        } else
            named++;
    for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
        int wanted = !named;
        for (int i = 1; i < argc; i++) wanted |= !strcmp(argv[i], runs[k].name);
        if (wanted) bench(runs + k, seeds);
    }
    return 0;
}
