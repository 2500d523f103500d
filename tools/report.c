/* report.c - writes the page of flash fit --report, see fit.h. */
#include "fit.h"
#include "html.h"
#include <math.h>
#include <string.h>

typedef struct page {
    FILE *f;
    const fit_results *r;
    int n, order[FIT_LENGTHS]; /* [n] indices of r->tau[0], sorted by length */
} page;

static const struct {
    const char *name, *unit, *x, *y;
    double scale;
} phases[2] = {{"prefill", "s", "measured [s]", "predicted [s]", 1},
               {"decode", "ms", "measured [ms]", "predicted [ms]", 1000}};

static const char foot[] =
    "<footer>\n<p>Every prediction here comes from a fit without any measurement of that shape"
    " (10-fold cross-validation).</p>\n<dl>\n"
    "<dt>MAPE</dt><dd>Mean absolute percentage error: the mean of |predicted - measured| /"
    " measured.</dd>\n"
    "<dt>R\302\262</dt><dd>The part of the variance of measured times that predictions explain: 1"
    " is perfect, 0 is no better than always saying the mean.</dd>\n"
    "<dt>Spearman</dt><dd>The correlation of the ranks of predicted and measured times: 1 if both"
    " put the workloads into the same order.</dd>\n"
    "<dt>tau</dt><dd>Kendall's tau-b: of all pairs of workloads of one length, those in the right"
    " order less those in the wrong one, as a part; 1 is the same order, 0 is chance.</dd>\n"
    "<dt>Interval</dt><dd>The range that nine of ten measurements should fall into, which is right"
    " if it covers about 90 %.</dd>\n"
    "<dt>Ceiling</dt><dd>The R\302\262 that the noise of measuring allows, from shapes that were"
    " measured more than once; '-' if there are none, or if the least of a shape's times"
    " counts.</dd>\n"
    "</dl>\n</footer>\n</body>\n</html>\n";

static void tau_cell(FILE *f, double tau)
{
    if (isfinite(tau))
        fprintf(f,
                "<td>%.2f<svg class=\"tau\" viewBox=\"0 0 80 8\"><rect class=\"p%d\" "
                "height=\"6\" width=\"%.1f\"/><path d=\"M.5 0V6M79.5 0V6\"/></svg></td>",
                tau, tau < 0, 80 * fmin(fabs(tau), 1));
    else
        fputs("<td>-</td>", f);
}

/* ---- plots ------------------------------------------------------------------- */

/* Sets the measured and the predicted time, in the unit of the phase. Returns 0 if one is
   missing. */
static int times(const fit_point *q, int phase, double *measured, double *predicted)
{
    *measured = phases[phase].scale * (phase ? q->time.decode : q->time.prefill);
    *predicted = phases[phase].scale * q->cv[phase].mean;
    return *measured > 0 && *predicted > 0 && isfinite(*measured) && isfinite(*predicted);
}

/* Returns the number of the colour of a prompt length: its rank, or g->n if the length has none. */
static int colour(const page *g, int length)
{
    int k = 0;
    while (k < g->n && g->r->tau[0][g->order[k]].length != length) k++;
    return k;
}

static void legend(const page *g)
{
    fputs("<p>Tokens of the prompt:", g->f);
    for (int k = 0; k < g->n; k++)
        fprintf(g->f, " <span class=\"dot c%d\"></span>%d", k, g->r->tau[0][g->order[k]].length);
    if (g->n == FIT_LENGTHS) fprintf(g->f, " <span class=\"dot c%d\"></span>others", g->n);
    fputs("</p>\n", g->f);
}

static void predicted_plot(const page *g, int phase)
{
    html_plot p = {g->f, html_log_axis(phases[phase].x), html_log_axis(phases[phase].y), 366, 0};
    double t, guess;
    for (int i = 0; i < g->r->n; i++)
        if (times(&g->r->point[i], phase, &t, &guess)) {
            html_take(&p.x, t);
            html_take(&p.x, guess);
        }
    html_settle(&p.x);
    p.y.lo = p.x.lo;
    p.y.hi = p.x.hi;
    html_begin(&p, phases[phase].name);
    html_line(&p, "one", p.x.lo, p.x.lo, p.x.hi, p.x.hi);
    html_line(&p, "dash", p.x.lo, 1.1 * p.x.lo, p.x.hi / 1.1, p.x.hi);
    html_line(&p, "dash", p.x.lo / .9, p.x.lo, p.x.hi, .9 * p.x.hi);
    for (int i = 0; i < g->r->n; i++) {
        const fit_point *q = &g->r->point[i];
        const flash_interval *at = &q->cv[phase];
        if (!times(q, phase, &t, &guess)) continue;
        fprintf(g->f, "<g class=\"point c%d\"><title>line %d: ", colour(g, q->e->work.prompt),
                q->e->line);
        html_text(g->f, q->e->shape);
        fputs("\nattn ", g->f);
        html_text(g->f, q->e->attn);
        fprintf(g->f, "\n%d tokens, at position %d: measured %.4g %s, predicted %.4g %s</title>",
                q->e->work.prompt, q->e->work.position, t, phases[phase].unit, guess,
                phases[phase].unit);
        if (at->lo <= at->hi)
            fprintf(g->f, "<path d=\"M%.1f %.1fV%.1f\"/>", html_x(&p, t),
                    html_y(&p, phases[phase].scale * at->lo),
                    html_y(&p, phases[phase].scale * at->hi));
        fprintf(g->f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/></g>\n", html_x(&p, t),
                html_y(&p, guess));
    }
    html_end(&p);
}

static void error_plot(const page *g, int phase)
{
    double most = 14, t, guess;
    for (int i = 0; i < g->r->n; i++)
        if (times(&g->r->point[i], phase, &t, &guess))
            most = fmin(fmax(most, 100 * fabs(guess / t - 1)), 100);
    html_plot p = {g->f,
                   {0, fmax(g->r->n + 1, 6), 0, "order in which they were measured"},
                   {-1.05 * most, 1.05 * most, 0, "error: predicted/measured - 1 [%]"},
                   220,
                   0};
    html_begin(&p, phases[phase].name);
    html_line(&p, "one", p.x.lo, 0, p.x.hi, 0);
    html_line(&p, "dash", p.x.lo, 10, p.x.hi, 10);
    html_line(&p, "dash", p.x.lo, -10, p.x.hi, -10);
    for (int i = 0; i < g->r->n; i++) {
        const profile_entry *e = g->r->point[i].e;
        if (times(&g->r->point[i], phase, &t, &guess))
            fprintf(g->f,
                    "<g class=\"point c%d\"><title>line %d, %d tokens: %+.3g %%</title>"
                    "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/></g>\n",
                    colour(g, e->work.prompt), e->line, e->work.prompt, 100 * (guess / t - 1),
                    html_x(&p, i + 1), html_y(&p, 100 * (guess / t - 1)));
    }
    html_end(&p);
}

static void curve_plot(const page *g)
{
    html_plot p = {
        g->f, html_log_axis("shapes fitted to"), {0, 5, 0, "MAPE of all others [%]"}, 220, 0};
    for (int i = 0; i < g->r->n_curve; i++) {
        html_take(&p.x, g->r->curve[i].n);
        for (int phase = 0; phase < 2; phase++)
            if (isfinite(g->r->curve[i].mape[phase]))
                p.y.hi = fmin(fmax(p.y.hi, 105 * g->r->curve[i].mape[phase]), 200);
    }
    html_settle(&p.x);
    fputs("<h2>Error by the number of shapes measured</h2>\n<p>Lines: "
          "<span class=\"dot p0\"></span>prefill <span class=\"dot p1\"></span>decode</p>\n",
          g->f);
    html_begin(&p, "mean error");
    for (int phase = 0; phase < 2; phase++)
        for (int i = 0, last = -1; i < g->r->n_curve; i++) {
            double x = g->r->curve[i].n, y = 100 * g->r->curve[i].mape[phase];
            if (!isfinite(y)) continue;
            if (last >= 0)
                html_line(&p, phase ? "curve p1" : "curve p0", g->r->curve[last].n,
                          100 * g->r->curve[last].mape[phase], x, y);
            fprintf(g->f,
                    "<g class=\"point p%d\"><title>%.0f shapes: %s %.3g %%</title><circle"
                    " cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/></g>\n",
                    phase, x, phases[phase].name, y, html_x(&p, x), html_y(&p, y));
            last = i;
        }
    html_end(&p);
}

/* ---- tables ------------------------------------------------------------------ */

static int same_settings(const flash_workload *a, const flash_workload *b)
{
    return a->weights == b->weights && a->kv == b->kv && a->threads == b->threads
        && a->chunk == b->chunk;
}

static void settings(const page *g)
{
    int found = 0, before, repeats = 0;
    for (int i = 0; i < g->r->n; i++) {
        const flash_workload *w = &g->r->point[i].e->work;
        repeats += g->r->point[i].repeats;
        for (before = 0; before < i; before++)
            if (same_settings(w, &g->r->point[before].e->work)) break;
        if (before == i && ++found <= 8)
            fprintf(g->f,
                    "<tr><th>%s</th><td>%s weights, %s keys and values, %d threads, chunks of"
                    " %d</td></tr>\n",
                    found > 1 ? "" : "measured with", flash_type_name(w->weights),
                    flash_type_name(w->kv), w->threads, w->chunk);
    }
    if (found > 8) fprintf(g->f, "<tr><th></th><td>and %d more</td></tr>\n", found - 8);
    fprintf(g->f, "<tr><th>size</th><td>%d shapes, %d workloads, %d measurements</td></tr>\n",
            g->r->groups, g->r->n, repeats);
}

static void facts(const page *g)
{
    const profile *p = g->r->p;
    const struct {
        const char *name, *is;
    } text[] = {{"machine", p->machine.name},
                {"instruction set", p->machine.isa},
                {"system", p->machine.system}};
    fputs("<h1>Latency model of ", g->f);
    html_text(g->f, g->r->name);
    fputs("</h1>\n<table class=\"facts\">\n", g->f);
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        fprintf(g->f, "<tr><th>%s</th><td>", text[i].name);
        html_text(g->f, text[i].is);
        fputs("</td></tr>\n", g->f);
    }
    fprintf(g->f, "<tr><th>processors</th><td>%d</td></tr>\n", p->machine.processors);
    settings(g);
    if (p->bad)
        fprintf(g->f, "<tr><th>lines skipped</th><td>%d of %d</td></tr>\n", p->bad, p->lines);
    fputs("</table>\n", g->f);
}

static void scores(const page *g)
{
    enum { ROWS = 7 };
    static const struct {
        const char *name;
        int digits;
    } row[ROWS] = {{"workloads predicted", 0},
                   {"R\302\262", 4},
                   {"MAPE [%]", 2},
                   {"within 10 % [%]", 1},
                   {"Spearman", 4},
                   {"in the 90 % interval [%]", 1},
                   {"ceiling of R\302\262 by noise", 4}};
    double v[2][ROWS];
    for (int phase = 0; phase < 2; phase++) {
        const fit_score *s = &g->r->score[phase];
        const double of[ROWS] = {
            s->n,      s->r2, 100 * s->mape, 100 * s->within10, s->spearman, 100 * s->cover90,
            s->ceiling};
        for (int i = 0; i < ROWS; i++) v[phase][i] = s->n || !i ? of[i] : NAN;
    }
    fputs("<h2>Scores</h2>\n<table>\n<tr><th></th><th>prefill</th><th>decode</th></tr>\n", g->f);
    for (int i = 0; i < ROWS; i++) {
        fprintf(g->f, "<tr><th>%s</th>", row[i].name);
        html_cell(g->f, row[i].digits, v[0][i]);
        html_cell(g->f, row[i].digits, v[1][i]);
        fputs("</tr>\n", g->f);
    }
    fputs("</table>\n", g->f);
}

static void taus(const page *g)
{
    fputs("<h2>What says which is faster (tau)</h2>\n<div class=\"wide\"><table>\n<tr><th></th>"
          "<th>tokens</th><th>n</th><th>parameters</th><th>operations (FLOPs)</th><th>model</th>"
          "</tr>\n",
          g->f);
    for (int phase = 0; phase < 2; phase++)
        for (int k = 0; k < g->n; k++) {
            const fit_tau *t = &g->r->tau[phase][g->order[k]];
            fprintf(g->f, "<tr><th>%s</th><td>%d</td><td>%d</td>", phases[phase].name, t->length,
                    t->n);
            tau_cell(g->f, t->params);
            tau_cell(g->f, t->flops);
            tau_cell(g->f, t->model);
            fputs("</tr>\n", g->f);
        }
    fputs("</table></div>\n", g->f);
}

/* ---- the page ---------------------------------------------------------------- */

static void both_phases(const page *g, const char *title, void (*draw)(const page *g, int phase))
{
    fprintf(g->f, "<h2>%s</h2>\n", title);
    legend(g);
    fputs("<div class=\"two\">\n", g->f);
    draw(g, 0);
    draw(g, 1);
    fputs("</div>\n", g->f);
}

static void write_page(page *g)
{
    for (; g->n < g->r->n_lengths && g->n < FIT_LENGTHS; g->n++) {
        int k = g->n;
        for (; k && g->r->tau[0][g->order[k - 1]].length > g->r->tau[0][g->n].length; k--)
            g->order[k] = g->order[k - 1];
        g->order[k] = g->n;
    }
    fputs(html_head, g->f);
    for (int k = 0; k < g->n; k++)
        fprintf(g->f, ".c%d { --h: %d }\n", k, 220 - 200 * k / (g->n > 1 ? g->n - 1 : 1));
    fprintf(g->f, ".c%d { --h: 0; --s: 0%% }\n</style>\n<title>", g->n);
    html_text(g->f, g->r->name);
    fputs("</title>\n</head>\n<body>\n", g->f);
    facts(g);
    scores(g);
    both_phases(g, "Predicted and measured, with 90 % intervals; dashed: 10 % off", predicted_plot);
    both_phases(g, "Errors in the order of measuring, at most 100 % shown", error_plot);
    if (g->r->n_curve > 0) curve_plot(g);
    taus(g);
    fputs(foot, g->f);
}

void fit_report(const char *path, const fit_results *r)
{
    page g = {NULL, r, 0, {0}};
    g.f = cli_open(path);
    write_page(&g);
    cli_close(path);
}
