/* front.c - see front.h. */
#include "front.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The most points off the front, lines of parallel coordinates and points of the hypervolume that
   are drawn. Parallel coordinates: distance and height of the axes, in units of the viewBox. */
enum { GREY_MAX = 4000, LINES_MAX = 200, STEPS = 400, GAP = 92, HIGH = 230 };

const char front_style[] =
    ".grey { --s: 0%; --h: 0 } .grey circle { fill-opacity: .35 } .strand path {\n"
    "    stroke: var(--of); stroke-width: 1.5; stroke-opacity: .7 }\n"
    ".strand:hover path { stroke-width: 4; stroke-opacity: 1 } .goal { font-weight: bold }\n"
    ".wide text { paint-order: stroke; stroke: Canvas; stroke-width: 3px }\n";

void front_open(front *r, const journal *j)
{
    memset(r, 0, sizeof *r);
    r->sp = &j->sp;
    r->s = j->s;
    flash_search_summarize(j->s, &r->sum);
    r->id = space_front(j->s, &r->n);
    r->on = calloc((size_t)r->sum.trials + 1, 1);
    if (!r->on) cli_fail("out of memory");
    for (int i = 0; i < r->n; i++) r->on[r->id[i]] = 1;
}

void front_close(front *r)
{
    free(r->id);
    free(r->on);
}

void front_table(const front *r)
{
    const space *sp = r->sp;
    char cell[SPACE_CELL];
    flash_trial t;
    fputs("<h2>The front</h2>\n<div class=\"wide\"><table>\n<tr><th>trial</th>", r->f);
    for (int i = 0; i < space_n_values(sp) + sp->n_param; i++) {
        fputs("<th>", r->f);
        html_text(r->f,
                  i < space_n_values(sp) ? sp->value[i] : sp->param[i - space_n_values(sp)].name);
        fputs("</th>", r->f);
    }
    fputs("</tr>\n", r->f);
    for (int row = 0; row < r->n; row++) {
        flash_search_trial(r->s, r->id[row], &t);
        fprintf(r->f, "<tr><th>%d</th>", t.id);
        for (int k = 0; k < space_n_values(sp); k++) fprintf(r->f, "<td>%.6g</td>", t.y[k]);
        for (int i = 0; i < sp->n_param; i++) {
            space_cell(sp, t.x, i, cell);
            fputs("<td>", r->f);
            html_text(r->f, *cell ? cell : "-");
            fputs("</td>", r->f);
        }
        fputs("</tr>\n", r->f);
    }
    fputs("</table></div>\n", r->f);
}

/* ---- plots -------------------------------------------------------------------- */

/* Sets *x and *y to the place of trial id in the scatter plot: its first two objectives or, if
   there is only one, its number and that. Returns 0 if the trial is not done. */
static int place(const front *r, int id, flash_trial *t, double *x, double *y)
{
    if (flash_search_trial(r->s, id, t) || t->state != FLASH_TRIAL_DONE) return 0;
    *x = r->sp->n_objective > 1 ? t->y[0] : t->id;
    *y = r->sp->n_objective > 1 ? t->y[1] : t->y[0];
    return 1;
}

/* Writes the values and parameters of t as a tooltip. */
static void describe(const front *r, const flash_trial *t)
{
    const space *sp = r->sp;
    char cell[SPACE_CELL];
    fprintf(r->f, "<title>trial %d", t->id);
    for (int k = 0; k < space_n_values(sp); k++) {
        fputs(k ? ", " : ": ", r->f);
        html_text(r->f, sp->value[k]);
        fprintf(r->f, " %.6g", t->y[k]);
    }
    for (int i = 0; i < sp->n_param; i++) {
        space_cell(sp, t->x, i, cell);
        if (!*cell) continue;
        fputc('\n', r->f);
        html_text(r->f, sp->param[i].name);
        fputc(' ', r->f);
        html_text(r->f, cell);
    }
    fputs("</title>", r->f);
}

/* Lets the axis hold the front, from lo to hi, and what lies up to three times its range beyond it.
   most: the largest value of all trials. */
static void fit_axis(html_axis *a, double lo, double hi, double most)
{
    html_take(a, lo);
    html_take(a, fmin(most, hi > lo ? hi + 3 * (hi - lo) : most));
    html_settle(a);
}

/* Plots all trials, as a part of the page or (picture 1) as an SVG file of its own. */
static void scatter(const front *r, int picture)
{
    const space *sp = r->sp;
    int two = sp->n_objective > 1, every = 1 + (r->sum.done - r->n) / GREY_MAX, seen = 0;
    double lo[2] = {INFINITY, INFINITY}, hi[2] = {-INFINITY, -INFINITY}, v[2],
           most[2] = {-INFINITY, -INFINITY};
    flash_trial t;
    html_plot p = {r->f, html_plain_axis(two ? sp->value[0] : "trial"),
                   html_plain_axis(sp->value[two]), 300, picture};
    for (int id = 1; id <= r->sum.trials; id++)
        for (int k = 0; place(r, id, &t, &v[0], &v[1]) && k < 2; k++) {
            most[k] = fmax(most[k], v[k]);
            if (r->on[id] || (!two && !k)) {
                lo[k] = fmin(lo[k], v[k]);
                hi[k] = fmax(hi[k], v[k]);
            }
        }
    if (!(lo[0] <= hi[0])) { /* no trial is on the front */
        fputs(picture ? "<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>\n"
                      : "<p>No trial is on the front.</p>\n",
              r->f);
        return;
    }
    fit_axis(&p.x, lo[0], hi[0], most[0]);
    fit_axis(&p.y, lo[1], hi[1], most[1]);
    html_begin(&p, two ? "trials, and the front" : "trials, and the best");
    for (int on = 0; on < 2; on++)
        for (int id = 1; id <= r->sum.trials; id++) {
            if (r->on[id] != on || !place(r, id, &t, &v[0], &v[1]) || (!on && seen++ % every))
                continue;
            fprintf(r->f, "<g class=\"point %s\">", on ? "p0" : "grey");
            describe(r, &t);
            fprintf(r->f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"/></g>\n", html_x(&p, v[0]),
                    html_y(&p, v[1]), on ? 4 : 3);
        }
    html_end(&p);
}

/* Returns 1 if a is at least as good as b in all m objectives. */
static int dominates(const double *a, const double *b, int m)
{
    int k = 0;
    while (k < m && a[k] <= b[k]) k++;
    return k == m;
}

/* Plots the hypervolume of the first 1, 2, ... trials, all up to the present reference point. */
static void volumes(const front *r)
{
    const space *sp = r->sp;
    int m = sp->n_objective < 2 ? 2 : sp->n_objective, kept = 0, points = 0;
    size_t cap = (size_t)r->sum.done + 1;
    double *y = malloc(cap * (size_t)m * sizeof *y), reference[FLASH_SEARCH_OBJECTIVES_MAX];
    double at[STEPS + 2], volume[STEPS + 2];
    uint32_t *work = malloc(cap * (size_t)m * sizeof *work);
    flash_trial t;
    if (!y || !work) cli_fail("out of memory");
    for (int k = 0; k < m; k++) reference[k] = k < sp->n_objective ? r->sum.reference[k] : 1;
    for (int id = 1, step = 1; id <= r->sum.trials; id++) {
        double *row = y + (size_t)kept * (size_t)m;
        int good = !flash_search_trial(r->s, id, &t) && t.state == FLASH_TRIAL_DONE;
        for (int k = sp->n_objective; k < space_n_values(sp); k++) good = good && t.y[k] <= 0;
        for (int k = 0; k < m; k++) row[k] = k < sp->n_objective ? t.y[k] : 0;
        for (int i = 0; good && i < kept; i++) good = !dominates(y + (size_t)i * (size_t)m, row, m);
        if (good) {
            double mine[FLASH_SEARCH_OBJECTIVES_MAX];
            int left = 0;
            memcpy(mine, row, (size_t)m * sizeof *mine);
            for (int i = 0; i < kept; i++)
                if (!dominates(mine, y + (size_t)i * (size_t)m, m))
                    memmove(y + (size_t)left++ * (size_t)m, y + (size_t)i * (size_t)m,
                            (size_t)m * sizeof *y);
            memcpy(y + (size_t)left * (size_t)m, mine, (size_t)m * sizeof *y);
            kept = left + 1;
        }
        if (id < r->sum.trials && (double)id < (double)step * r->sum.trials / STEPS) continue;
        while ((double)id >= (double)step * r->sum.trials / STEPS) step++;
        at[points] = id;
        volume[points++] = flash_hypervolume(y, (size_t)kept, m, reference, work);
    }
    html_plot p = {r->f, html_plain_axis("trials"), html_plain_axis("hypervolume"), 300, 0};
    html_take(&p.x, 0);
    html_take(&p.y, 0);
    for (int i = 0; i < points; i++) {
        html_take(&p.x, at[i]);
        html_take(&p.y, volume[i]);
    }
    html_settle(&p.x);
    html_settle(&p.y);
    html_begin(&p, "hypervolume over trials");
    fputs("<path class=\"curve p0\" d=\"", r->f);
    for (int i = 0; i < points; i++) {
        if (i) fprintf(r->f, "H%.1f", html_x(&p, at[i]));
        fprintf(r->f, i ? "V%.1f" : "M%.1f %.1f", i ? html_y(&p, volume[i]) : html_x(&p, at[i]),
                html_y(&p, volume[i]));
    }
    fputs("\"/>\n", r->f);
    html_end(&p);
    free(y);
    free(work);
}

/* ---- parallel coordinates -------------------------------------------------------- */

/* Returns where trial t crosses axis c, from 0 (bottom) to 1; below 0: it does not. The axes are
   the parameters, then the objectives, with the range lo to hi. */
static double crossing(const front *r, const flash_trial *t, int c, const double *lo,
                       const double *hi)
{
    const space *sp = r->sp;
    double v = c < sp->n_param ? t->x[c] : t->y[c - sp->n_param];
    if (c < sp->n_param && !space_is_active(sp, t->x, c)) return -1;
    if (c < sp->n_param && sp->param[c].kind == FLASH_PARAM_LOG)
        return log(v / lo[c]) / log(hi[c] / lo[c]);
    return hi[c] > lo[c] ? (v - lo[c]) / (hi[c] - lo[c]) : .5;
}

static void axis_label(const front *r, int c, double at, double v)
{
    const space *sp = r->sp;
    fprintf(r->f, "<text x=\"%d\" y=\"%.1f\">", 20 + GAP * c + 4, 14 + HIGH * (1 - at) + 4);
    if (c < sp->n_param && sp->param[c].kind == FLASH_PARAM_CATEGORY)
        html_text(r->f, sp->choice[c][(int)v]);
    else
        fprintf(r->f, "%.4g", v);
    fputs("</text>", r->f);
}

void front_parallel(const front *r)
{
    enum { AXES = FLASH_SEARCH_PARAMS_MAX + FLASH_SEARCH_VALUES_MAX };
    const space *sp = r->sp;
    int n = sp->n_param + sp->n_objective, every = 1 + (r->n - 1) / LINES_MAX;
    double lo[AXES], hi[AXES];
    flash_trial t;
    if (!r->n) return;
    for (int c = 0; c < n; c++) {
        lo[c] = INFINITY;
        hi[c] = -INFINITY;
        if (c < sp->n_param) {
            const flash_param *p = &sp->param[c];
            lo[c] = p->kind == FLASH_PARAM_ORDINAL ? p->value[0] : p->lo;
            hi[c] = p->kind == FLASH_PARAM_ORDINAL ? p->value[p->n_value - 1]
                : p->kind == FLASH_PARAM_CATEGORY  ? p->n_value - 1
                                                   : p->hi;
        }
        for (int i = 0; c >= sp->n_param && i < r->n; i++) {
            flash_search_trial(r->s, r->id[i], &t);
            lo[c] = fmin(lo[c], t.y[c - sp->n_param]);
            hi[c] = fmax(hi[c], t.y[c - sp->n_param]);
        }
    }
    fprintf(r->f,
            "<h2>What the front has in common</h2>\n<div class=\"wide\"><svg role=\"img\" "
            "aria-label=\"parameters and objectives of the front\" viewBox=\"0 0 %d %d\" "
            "style=\"min-width: %dpx\">\n",
            n * GAP + 20, HIGH + 50, n * GAP * 3 / 4);
    for (int i = 0; i < r->n; i += every) {
        int pen = 0;
        flash_search_trial(r->s, r->id[i], &t);
        fprintf(r->f, "<g class=\"strand\" style=\"--h: %d\">",
                r->n > 1 ? 220 - (int)(200. * i / (r->n - 1)) : 220);
        describe(r, &t);
        fputs("<path d=\"", r->f);
        for (int c = 0; c < n; c++) {
            double at = crossing(r, &t, c, lo, hi);
            if (at >= 0)
                fprintf(r->f, "%c%d %.1f", pen ? 'L' : 'M', 20 + GAP * c, 14 + HIGH * (1 - at));
            pen = at >= 0; /* the line has a gap where a parameter is not active */
        }
        fputs("\"/></g>\n", r->f);
    }
    for (int c = 0; c < n; c++) {
        int choices = c < sp->n_param && sp->param[c].kind == FLASH_PARAM_CATEGORY
            ? sp->param[c].n_value
            : 0;
        fprintf(r->f, "<path d=\"M%d 14v%d\"/>", 20 + GAP * c, HIGH);
        for (int k = 0; k < choices; k += 1 + choices / 16)
            axis_label(r, c, choices > 1 ? k / (choices - 1.) : .5, k);
        if (!choices) {
            axis_label(r, c, hi[c] > lo[c] ? 0 : .5, lo[c]);
            if (hi[c] > lo[c]) axis_label(r, c, 1, hi[c]);
        }
        fprintf(r->f, "<text class=\"%s\" x=\"%d\" y=\"%d\">", c < sp->n_param ? "" : "goal",
                12 + GAP * c, HIGH + 34 + c % 2 * 14);
        html_text(r->f, c < sp->n_param ? sp->param[c].name : sp->value[c - sp->n_param]);
        fputs("</text>\n", r->f);
    }
    fputs("</svg></div>\n<p>One line for each trial of the front, coloured by the first objective;"
          " a gap: the parameter does not count there.</p>\n",
          r->f);
}

void front_picture(const front *r) { scatter(r, 1); }

void front_plots(const front *r)
{
    fputs("<div class=\"two\">\n", r->f);
    scatter(r, 0);
    volumes(r);
    fputs("</div>\n", r->f);
}

/* ---- facts ----------------------------------------------------------------------- */

void front_facts(const front *r)
{
    const flash_search_summary *s = &r->sum;
    fprintf(r->f,
            "<tr><th>trials</th><td>%d: %d done, %d failed, "
            "%d abandoned, %d pending</td></tr>\n<tr><th>front</th><td>%d</td></tr>\n"
            "<tr><th>hypervolume</th><td>%.6g up to",
            s->trials, s->done, s->failed, s->abandoned, s->pending, s->front, s->hypervolume);
    for (int k = 0; k < r->sp->n_objective; k++) {
        fputs(k ? ", " : " ", r->f);
        html_text(r->f, r->sp->value[k]);
        fprintf(r->f, " %.6g", s->reference[k]);
    }
    fputs("</td></tr>\n", r->f);
    if (s->gain >= 0)
        fprintf(r->f, "<tr><th>the last 20 trials</th><td>added %.2g %% of it</td></tr>\n",
                100 * s->gain);
}
