/* search.c - finds settings of a made-up machine that are fast, precise, or a good compromise, in
   few trials.
   build    cc -std=c99 -O2 examples/search.c -o search -lm
   run      search [TRIALS]
   expect   the Pareto front: the trials that no other trial dominates, from the fastest to the most
            precise */
#define FLASH_SEARCH_IMPLEMENTATION
#include "../flash.h"
#include <stdio.h>
#include <stdlib.h>

/* Computes the two objectives y of the settings x. In practice this is a measurement, which may
   take hours; here two formulas are enough. */
static void evaluate(const double *x, double *y)
{
    double threads = x[0], quality = x[1], cache = x[2] > 0 ? 1.5 : 1;
    y[0] = (1 + 8 * quality) / threads / cache + 0.1 * threads; /* seconds */
    y[1] = 1 / (0.2 + quality) + (x[2] > 1 ? 0.3 : 0);          /* error */
}

int main(int argc, char **argv)
{
    flash_param param[3] = {{0}};
    flash_search_desc d = {0};
    flash_search *s;
    flash_trial t;
    flash_error err;
    double y[2];
    int ids[200];
    param[0].name = "threads";
    param[0].kind = FLASH_PARAM_INTEGER;
    param[0].lo = 1;
    param[0].hi = 8;
    param[1].name = "quality";
    param[1].kind = FLASH_PARAM_REAL;
    param[1].hi = 1;
    param[2].name = "cache"; /* none, exact, lossy */
    param[2].kind = FLASH_PARAM_CATEGORY;
    param[2].n_value = 3;
    d.param = param;
    d.n_param = 3;
    d.max_trials = argc > 1 ? atoi(argv[1]) : 30;
    if (flash_search_create(&s, &d, &err)) {
        fprintf(stderr, "search: %s\n", err.text);
        return 1;
    }
    while (!flash_search_ask(s, &t, &err)) {
        evaluate(t.x, y);
        if (flash_search_tell(s, t.id, y, &err)) break;
    }
    int n = flash_search_front(s, ids, 200);
    printf("trial threads quality cache   seconds error\n");
    for (int i = 0; i < n && i < 200; i++) {
        flash_search_trial(s, ids[i], &t);
        printf("%5d %7.0f %7.3f %5.0f %9.3f %5.3f\n", t.id, t.x[0], t.x[1], t.x[2], t.y[0], t.y[1]);
    }
    flash_search_free(s);
    return 0;
}
