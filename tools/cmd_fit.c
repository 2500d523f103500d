/* cmd_fit.c - flash fit: fits a latency model to a profile, and says how good it is. */
#include "fit.h"
#include "stats.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PREDICTIONS = 200 }; /* how many are made to time one */

static double seconds_of(const flash_timing *t, int phase)
{
    return phase ? t->decode : t->prefill;
}

static const char *const phases[2] = {"prefill", "decode"};

static void *need(size_t n, size_t item)
{
    void *p = calloc(n ? n : 1, item);
    if (!p) cli_fail("out of memory");
    return p;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return (x[(n - 1) / 2] + x[n / 2]) / 2;
}

/* ---- points ------------------------------------------------------------------ */

/* Returns how much slower than usual the machine was at entry i: the median time of the reference
   in the five entries around it, over that in all entries. Only entries with the same types,
   threads and chunk count; 1 if there are none. */
static double drift(const profile *p, int i, int phase)
{
    static double all[2 * FLASH_LATENCY_POINTS_MAX];
    double near_by[5];
    int n = 0, m = 0;
    const flash_workload *w = &p->entry[i].work;
    for (int j = 0; j < p->n; j++) {
        const profile_entry *e = &p->entry[j];
        double t = seconds_of(&e->reference, phase);
        if (!(t > 0) || e->work.threads != w->threads || e->work.weights != w->weights
            || e->work.kv != w->kv || e->work.chunk != w->chunk)
            continue;
        if (abs(j - i) <= 2) near_by[m++] = t;
        if (n < (int)(sizeof all / sizeof *all)) all[n++] = t;
    }
    return m ? median(near_by, m) / median(all, n) : 1;
}

static int same_shape(const profile_entry *a, const profile_entry *b)
{
    return !memcmp(a->a, b->a, sizeof *a->a);
}

/* Returns the time of a point [s]: the median (least 1: the least) of all its repeats but those of
   entry `without` (-1: none). of: [p->n] the point of each entry; by: [p->n] its drift, which
   divides its times. */
static double estimate(const profile *p, const int *of, const double *by, int point, int without,
                       int phase, int least)
{
    static double x[FLASH_LATENCY_POINTS_MAX * 4];
    int n = 0;
    for (int i = 0; i < p->n; i++)
        for (int k = 0; of[i] == point && i != without && k < p->entry[i].time.n; k++)
            if (n < (int)(sizeof x / sizeof *x))
                x[n++] = seconds_of(&p->entry[i].time.each[k], phase) / by[i];
    double middle = median(x, n);
    return least ? x[0] : middle;
}

/* Sets the times of all points, [r->n], and returns the relative variance of such a time: the mean
   over the points with several entries, NaN if there are none. Of a median it is found by a
   jackknife over the entries (Efron 1979). Of the least of n entries it is ((n - 1)/n)^2/2 times
   the square of the relative distance from the least to the second: noise that only adds and is
   exponential has such spacings (Renyi 1953). */
static double estimate_all(const fit_results *r, const int *of, const double *by, int phase,
                           int least, double *time)
{
    double sum = 0;
    int several = 0;
    for (int k = 0; k < r->n; k++) {
        double mean = 0, square = 0, second = INFINITY, n = r->point[k].repeats;
        time[k] = estimate(r->p, of, by, k, -1, phase, least);
        for (int i = 0; i < r->p->n && n > 1; i++)
            if (of[i] == k) {
                double t = estimate(r->p, of, by, k, i, phase, least) / time[k] - 1;
                mean += t / n;
                square += t * t;
                second = t > 0 ? t : second; /* only where the least itself is left out */
            }
        if (least)
            sum += n > 1 && second < INFINITY ? pow((n - 1) / n * second, 2) / 2 : 0;
        else
            sum += n > 1 ? (n - 1) / n * (square - n * mean * mean) : 0;
        several += n > 1;
    }
    return several ? sum / several : NAN;
}

/* Merges measurements of the same workload into points, and corrects them for drift if that brings
   them closer together. noise becomes the relative variance of a point's time, about a line that
   says so, both for each phase. */
static void make_points(fit_results *r, int least, double noise[2], char about[2][96])
{
    const profile *p = r->p;
    r->point = need((size_t)p->n, sizeof *r->point);
    int *of = need((size_t)p->n, sizeof *of);
    double *by[2], *time[2];
    for (int k = 0; k < 2; k++) {
        by[k] = need((size_t)p->n, sizeof **by);
        time[k] = need((size_t)p->n, sizeof **time);
    }
    for (int i = 0; i < p->n; i++) {
        const profile_entry *e = &p->entry[i];
        int k = 0;
        while (k < r->n && !profile_same_work(&r->point[k].e->work, &e->work)) k++;
        fit_point *to = &r->point[k];
        if (k == r->n) {
            int other = 0;
            while (other < k && !same_shape(r->point[other].e, e)) other++;
            to->group = other < k ? r->point[other].group : r->groups++;
            to->e = e;
            r->n++;
        }
        of[i] = k;
        to->repeats++;
    }
    for (int phase = 0; phase < 2; phase++) {
        for (int i = 0; i < p->n; i++) {
            by[0][i] = 1;
            by[1][i] = drift(p, i, phase);
        }
        double plain = estimate_all(r, of, by[0], phase, least, time[0]);
        double corrected = estimate_all(r, of, by[1], phase, least, time[1]);
        int use = !(plain < corrected);
        noise[phase] = use ? corrected : plain;
        for (int k = 0; k < r->n; k++)
            *(phase ? &r->point[k].time.decode : &r->point[k].time.prefill) = time[use][k];
        snprintf(about[phase], 96, "drift phase=%s noise=%.4f corrected=%.4f used=%s",
                 phases[phase], sqrt(plain), sqrt(corrected), use ? "yes" : "no");
    }
    for (int k = 0; k < 2; k++) {
        free(by[k]);
        free(time[k]);
    }
    free(of);
}

/* ---- scores ------------------------------------------------------------------ */

/* Returns the rank of x[i] among x, [n], from 1; equal values share the mean of their ranks. */
static double rank_of(const double *x, int n, int i)
{
    double r = .5;
    for (int j = 0; j < n; j++) r += x[j] < x[i] ? 1 : x[j] == x[i] ? .5 : 0;
    return r;
}

static double correlation(const double *x, const double *y, int n)
{
    double mx = 0, my = 0, xy = 0, xx = 0, yy = 0;
    for (int i = 0; i < n; i++) {
        mx += x[i] / n;
        my += y[i] / n;
    }
    for (int i = 0; i < n; i++) {
        xy += (x[i] - mx) * (y[i] - my);
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
    }
    return xy / sqrt(xx * yy);
}

static double spearman(const double *x, const double *y, int n)
{
    double *rx = need((size_t)n, sizeof *rx), *ry = need((size_t)n, sizeof *ry);
    for (int i = 0; i < n; i++) {
        rx[i] = rank_of(x, n, i);
        ry[i] = rank_of(y, n, i);
    }
    double r = correlation(rx, ry, n);
    free(rx);
    free(ry);
    return r;
}

/* Returns how well n predictions `at` agree with the measured times. noise: relative variance of
   these times; NaN: not known. */
static fit_score score(const flash_interval *at, const double *time, int n, double noise)
{
    fit_score s = {0};
    double mean = 0, sse = 0, sst = 0, unsure = 0;
    double *predicted = need((size_t)n, sizeof *predicted);
    s.n = n;
    for (int i = 0; i < n; i++) mean += time[i] / n;
    for (int i = 0; i < n; i++) {
        double error = at[i].mean - time[i], part = fabs(error) / time[i];
        predicted[i] = at[i].mean;
        sse += error * error;
        sst += (time[i] - mean) * (time[i] - mean);
        unsure += noise * time[i] * time[i];
        s.mape += part / n;
        s.within10 += (part <= .1) / (double)n;
        s.cover90 += (time[i] >= at[i].lo && time[i] <= at[i].hi) / (double)n;
    }
    s.r2 = 1 - sse / sst;
    s.ceiling = 1 - unsure / sst;
    s.spearman = spearman(predicted, time, n);
    free(predicted);
    return s;
}

/* ---- fits -------------------------------------------------------------------- */

/* Returns a fit to the points i with use[i]; NULL, and why in err, if it is impossible. */
static flash_latency *fit_some(const fit_results *r, const char *use, flash_error *err)
{
    flash_workload *w = need((size_t)r->n, sizeof *w);
    flash_timing *t = need((size_t)r->n, sizeof *t);
    flash_latency *l = NULL;
    size_t n = 0;
    for (int i = 0; i < r->n; i++)
        if (use[i]) {
            w[n] = r->point[i].e->work;
            t[n++] = r->point[i].time;
        }
    flash_latency_fit(&l, w, t, n, NULL, err);
    free(w);
    free(t);
    return l;
}

/* Predicts the points without use[i] by a fit to the others, and sets the scores of both phases.
   Returns the number of points that were predicted; 0: it is impossible. */
static int hold_out(const fit_results *r, const char *use, fit_score s[2])
{
    flash_latency *l = fit_some(r, use, NULL);
    flash_interval *at = need(2 * (size_t)r->n, sizeof *at);
    double *time = need(2 * (size_t)r->n, sizeof *time);
    int n = 0;
    for (int i = 0; l && i < r->n; i++) {
        if (use[i] || flash_latency_predict(l, &r->point[i].e->work, &at[n], &at[r->n + n]))
            continue;
        time[n] = r->point[i].time.prefill;
        time[r->n + n++] = r->point[i].time.decode;
    }
    for (int phase = 0; n && phase < 2; phase++)
        s[phase] = score(at + phase * r->n, time + phase * r->n, n, NAN);
    flash_latency_free(l);
    free(at);
    free(time);
    return n;
}

static void say(const char *what, int phase, const char *about, const fit_score *s)
{
    if (s->n < 2) /* nothing to correlate */
        return;
    printf("%s phase=%s n=%d%s r2=%.4f mape=%.4f within10=%.3f spearman=%.4f cover90=%.3f", what,
           phases[phase], s->n, about, s->r2, s->mape, s->within10, s->spearman, s->cover90);
    if (s->ceiling == s->ceiling) printf(" ceiling=%.4f", s->ceiling);
    putchar('\n');
}

/* Predicts every point by a fit without its tenth of the shapes, and sets r->score. noise: relative
   variance of a point's time, by phase; NaN: not known. */
static void cross_validate(fit_results *r, const double noise[2], uint64_t seed)
{
    int folds = r->groups < 10 ? r->groups : 10;
    int *order = need((size_t)r->groups, sizeof *order);
    char *use = need((size_t)r->n, 1), *known = need((size_t)r->n, 1);
    flash_interval *at = need((size_t)r->n, sizeof *at);
    double *time = need((size_t)r->n, sizeof *time);
    cli_shuffle(order, r->groups, &seed);
    for (int fold = 0; fold < folds; fold++) {
        for (int i = 0; i < r->n; i++) use[i] = order[r->point[i].group] % folds != fold;
        flash_latency *l = fit_some(r, use, NULL);
        for (int i = 0; l && i < r->n; i++)
            if (!use[i])
                known[i] = !flash_latency_predict(l, &r->point[i].e->work, &r->point[i].cv[0],
                                                  &r->point[i].cv[1]);
        flash_latency_free(l);
        cli_progress("fit", fold + 1, folds + FIT_CURVE + 1);
    }
    for (int phase = 0; phase < 2; phase++) {
        int n = 0;
        for (int i = 0; i < r->n; i++)
            if (known[i]) {
                at[n] = r->point[i].cv[phase];
                time[n++] = seconds_of(&r->point[i].time, phase);
            }
        if (n) r->score[phase] = score(at, time, n, noise[phase]);
    }
    free(order);
    free(use);
    free(known);
    free(at);
    free(time);
}

/* Computes the error on all other shapes after a fit to the first 10, 20, 40, ... shapes, in the
   order in which they were measured, which is random. */
static void learning_curve(fit_results *r)
{
    char *use = need((size_t)r->n, 1);
    for (int shapes = 10; shapes <= r->groups * 9 / 10 && r->n_curve < FIT_CURVE; shapes *= 2) {
        fit_score s[2];
        for (int i = 0; i < r->n; i++) use[i] = r->point[i].group < shapes;
        if (hold_out(r, use, s)) {
            r->curve[r->n_curve].n = shapes;
            r->curve[r->n_curve].mape[0] = s[0].mape;
            r->curve[r->n_curve++].mape[1] = s[1].mape;
        }
    }
    free(use);
}

/* Computes for each prompt length how well the number of parameters, that of operations, and the
   model (by cross-validation) sort the shapes by time. */
static void rank_agreement(fit_results *r)
{
    double *x[4]; /* parameters, operations, times of the model, measured times */
    for (int k = 0; k < 4; k++) x[k] = need((size_t)r->n, sizeof **x);
    for (int i = 0; i < r->n && r->n_lengths < FIT_LENGTHS; i++) {
        int length = r->point[i].e->work.prompt, seen = 0;
        for (int j = 0; j < i; j++) seen |= r->point[j].e->work.prompt == length;
        for (int phase = 0; !seen && phase < 2; phase++) {
            fit_tau *t = &r->tau[phase][r->n_lengths];
            int n = 0;
            for (int j = i; j < r->n; j++) {
                const fit_point *q = &r->point[j];
                if (q->e->work.prompt != length || !(q->cv[phase].mean > 0)
                    || q->e->work.threads != r->point[i].e->work.threads
                    || q->e->work.weights != r->point[i].e->work.weights)
                    continue;
                x[0][n] = (double)flash_arch_params(q->e->a);
                x[1][n] = phase ? flash_arch_flops(q->e->a, length, 1)
                                : flash_arch_flops(q->e->a, 0, length);
                x[2][n] = q->cv[phase].mean;
                x[3][n++] = seconds_of(&q->time, phase);
            }
            t->length = length;
            t->n = n;
            t->params = stats_kendall(x[0], x[3], n);
            t->flops = stats_kendall(x[1], x[3], n);
            t->model = stats_kendall(x[2], x[3], n);
        }
        r->n_lengths += !seen;
    }
    for (int k = 0; k < 4; k++) free(x[k]);
}

/* ---- the model's file -------------------------------------------------------- */

static void save(const char *path, const flash_latency *l, const profile *p, int points)
{
    size_t bytes = flash_latency_save(l, NULL, 0);
    char *text = need(bytes, 1);
    FILE *f = cli_open(path);
    flash_latency_save(l, text, bytes);
    fprintf(f, "# %s, %s, %d processors, %s: %d measurements\n", p->machine.name, p->machine.isa,
            p->machine.processors, p->machine.system, points);
    fwrite(text, 1, bytes, f);
    cli_close(path);
    free(text);
}

/* Fails with a usage error if both are given and are the same file. */
static void apart(const char *a, const char *b)
{
    if (a && b && cli_same_file(a, b)) cli_usage("%s and %s are the same file", a, b);
}

static const char notes[] =
    "Fits how long prefill and decode take to what flash measure wrote: counted work with\n"
    "constants of the machine, and a Gaussian process on what is left. Writes the model for flash\n"
    "predict, and prints how good it is:\n"
    "  model          what fitting took, and predicting both times of a shape\n"
    "  drift          the noise of a time, from one round to the next, and if each is divided by\n"
    "                 how slow the reference was around it; done if that lowers the noise\n"
    "  cv             every tenth of the shapes predicted by a fit to the other nine\n"
    "  lengths        with --up-to: longer prompts predicted by a fit to shorter ones\n"
    "  chronological  the last fifth of the shapes predicted by a fit to those before\n"
    "  tau            Kendall's rank correlation with the measured times of the number of\n"
    "                 parameters, of operations, and of the model's (cv)\n"
    "mape is the mean of |error|/time, within10 the part with at most 10 %, cover90 the part\n"
    "inside the 90 % interval, ceiling the r2 that the noise of measuring allows, which is not\n"
    "known with --least. On a machine that others use, too, that is the better clock: noise only\n"
    "ever adds.\n";

int cmd_fit(int argc, char **argv)
{
    const char *path, *to = NULL, *report = NULL;
    int up_to = 0, only = 0, least = 0, kept = 0;
    uint64_t seed = 1;
    const cli_option options[] = {
        {"-o", "MODEL", CLI_TEXT, &to, 0, 0, "the file to write; none: only print"},
        {"--report", "HTML", CLI_TEXT, &report, 0, 0, "a page with pictures of it all"},
        {"--up-to", "LENGTH", CLI_INT, &up_to, 1, FLASH_CONTEXT_MAX,
         "fit to prompts of at most LENGTH, and test the longer ones"},
        {"-p", "LENGTH", CLI_INT, &only, 1, FLASH_CONTEXT_MAX, "only prompts of LENGTH (all)"},
        {"--least", NULL, CLI_FLAG, &least, 0, 0,
         "a shape's time is the least of its repeats, not their median"},
        {"--seed", "SEED", CLI_SEED, &seed, 0, 18446744073709551615.0, "of the folds (1)"},
        {0}};
    profile p;
    flash_error err;
    fit_results r = {0};
    double noise[2];
    char about_drift[2][96];
    cli_parse_all(argc, argv, options, "PROFILE", notes, &path);
    apart(path, to);
    apart(path, report);
    apart(to, report);
    profile_read(path, &p);
    if (!p.n) cli_fail("%s: no measurement in it; flash measure makes one", path);
    for (int i = 0; i < p.n; i++) { /* moves the others to the end, for profile_free */
        profile_entry e = p.entry[i];
        if (only && e.work.prompt != only) continue;
        p.entry[i] = p.entry[kept];
        p.entry[kept++] = e;
    }
    int all = p.n;
    p.n = kept;
    if (!p.n) cli_fail("%s: no prompt of %d", path, only);
    if (p.n > FLASH_LATENCY_POINTS_MAX)
        cli_fail("%s: %d measurements; %d are allowed", path, p.n, (int)FLASH_LATENCY_POINTS_MAX);
    r.name = path;
    r.p = &p;
    make_points(&r, least, noise, about_drift);
    cli_progress("fit", 0, 1);

    char *use = need((size_t)r.n, 1);
    fit_score s[2];
    int longer = 0;
    if (up_to) { /* longer prompts are only predicted */
        for (int i = 0; i < r.n; i++) longer += !(use[i] = r.point[i].e->work.prompt <= up_to);
        if (!longer || !hold_out(&r, use, s))
            cli_fail("%s: no prompts longer than %d, or too few up to it", path, up_to);
        kept = 0;
        for (int i = 0; i < r.n; i++)
            if (use[i]) r.point[kept++] = r.point[i];
        r.n = kept;
    }
    memset(use, 1, (size_t)r.n);
    double begin = cli_seconds(), fitted;
    flash_latency *l = fit_some(&r, use, &err);
    fitted = cli_seconds() - begin;
    if (!l) cli_fail("%s: %s", path, err.text);
    if (to) save(to, l, &p, r.n);
    flash_interval t[2];
    begin = cli_seconds();
    for (int i = 0; i < PREDICTIONS; i++)
        flash_latency_predict(l, &r.point[i % r.n].e->work, &t[0], &t[1]);
    printf("model n=%d fit_s=%.2f predict_us=%.1f\n", r.n, fitted,
           (cli_seconds() - begin) / PREDICTIONS * 1e6);
    for (int phase = 0; phase < 2; phase++) puts(about_drift[phase]);
    for (int phase = 0; longer && phase < 2; phase++) {
        char about[64];
        snprintf(about, sizeof about, " up_to=%d", up_to);
        say("lengths", phase, about, &s[phase]);
    }
    if (least) /* the noise of a least is a guess by its form; r2 has exceeded such a ceiling */
        noise[0] = noise[1] = NAN;
    cross_validate(&r, noise, seed);
    for (int phase = 0; phase < 2; phase++) say("cv", phase, "", &r.score[phase]);
    for (int i = 0; i < r.n; i++) use[i] = r.point[i].group < r.groups * 4 / 5;
    if (hold_out(&r, use, s))
        for (int phase = 0; phase < 2; phase++) say("chronological", phase, "", &s[phase]);
    rank_agreement(&r);
    for (int i = 0; i < r.n_lengths; i++)
        for (int phase = 0; phase < 2; phase++) {
            const fit_tau *t = &r.tau[phase][i];
            if (t->n > 1)
                printf("tau phase=%s length=%d n=%d params=%.2f flops=%.2f model=%.2f\n",
                       phases[phase], t->length, t->n, t->params, t->flops, t->model);
        }
    if (report) {
        learning_curve(&r);
        fit_report(report, &r);
    }
    cli_progress("fit", 1, 1);
    flash_latency_free(l);
    free(use);
    free(r.point);
    p.n = all;
    profile_free(&p);
    return 0;
}
