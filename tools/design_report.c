/* design_report.c - the page of flash design, see design.h. */
#include "design.h"
#include "front.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Draws the layers as a strip of squares: full attention is blue, a window orange, skip grey. The
   height of the bar below a square is the width of the layer's FFN. */
static void strip(FILE *f, const plan *p, const candidate *c)
{
    flash_arch a;
    int most = 1;
    const flash_arch *b = flash_model_arch(p->m);
    candidate_arch(p, c, &a);
    for (int l = 0; l < b->n_layer; l++) most = b->layer[l].d_ffn > most ? b->layer[l].d_ffn : most;
    fprintf(f, "<svg class=\"strip\" role=\"img\" aria-label=\"");
    html_text(f, *c->attn ? c->attn : "all full");
    fprintf(f, "\" viewBox=\"0 0 %d 22\" style=\"width: %dpx\">", 14 * b->n_layer, 14 * b->n_layer);
    for (int l = 0; l < a.n_layer; l++) {
        const flash_layer *y = &a.layer[l];
        const char *of = y->attention == FLASH_ATTENTION_FULL ? "p0"
            : y->attention == FLASH_ATTENTION_WINDOW          ? "p1"
                                                              : "grey";
        double high = 6 * (double)y->d_ffn / most + 1;
        fprintf(f,
                "<g class=\"%s\"><title>layer %d: %s, d_ffn %d</title>"
                "<rect x=\"%d\" y=\"1\" width=\"12\" height=\"12\"/>"
                "<rect x=\"%d\" y=\"%.1f\" width=\"12\" height=\"%.1f\" fill-opacity=\".5\"/></g>",
                of, l,
                y->attention == FLASH_ATTENTION_FULL         ? "full"
                    : y->attention == FLASH_ATTENTION_WINDOW ? "window"
                                                             : "skip",
                (int)y->d_ffn, 14 * l, 14 * l, 21 - high, high);
    }
    fputs("</svg>", f);
}

static void shape_cells(FILE *f, const plan *p, const candidate *c)
{
    flash_arch a;
    candidate_arch(p, c, &a);
    fprintf(f, "<td>%d</td><td>%d</td><td>%d</td><td style=\"text-align: left\">", a.n_layer,
            a.d_model, (int)a.layer[0].d_ffn);
    strip(f, p, c);
    fputs("</td>", f);
}

static void family(FILE *f, const design *d)
{
    char size[24];
    fputs("<h2>The family</h2>\n<div class=\"wide\"><table>\n<tr><th>model</th><th>layers</th>"
          "<th>d_model</th><th>d_ffn</th><th>attention, FFN</th><th>weights</th><th>size</th>"
          "<th>TTFT [ms]</th><th>measured</th><th>token/s</th><th>measured</th><th>loss</th>"
          "<th>&plusmn;</th><th>in its trial</th><th>less than its rival</th></tr>\n",
          f);
    for (int i = 0; i < d->n; i++) {
        const member *m = &d->member[i];
        fputs("<tr><th>", f);
        html_text(f, m->name);
        fputs("</th>", f);
        shape_cells(f, &d->p, &m->c);
        fprintf(f, "<td>%.3g M</td><td>%s</td><td>%.4g</td>", 1e-6 * (double)m->params,
                cli_size(m->bytes, size), 1e3 * m->ttft.mean);
        if (*d->elsewhere)
            fprintf(f, "<td>-</td><td>%.4g</td><td>-</td>", 1 / m->decode.mean);
        else
            fprintf(f, "<td>%.4g</td><td>%.4g</td><td>%.4g</td>", 1e3 * m->least[0],
                    1 / m->decode.mean, 1 / m->least[1]);
        fprintf(f, "<td>%.4f</td><td>%.4f</td>", m->loss, m->error);
        if (m->trial)
            fprintf(f, "<td>%.4f</td>", m->early);
        else
            fputs("<td>-</td>", f);
        if (m->rival)
            fprintf(f, "<td>%.4f &plusmn; %.4f</td>", m->gain, m->gain_error);
        else
            fputs("<td>-</td>", f);
        fputs("</tr>\n", f);
    }
    fprintf(f,
            "</table></div>\n<p>Losses in nats a token, of %d held-out sequences of %d tokens, "
            "as the runtime computes them; the backbone's is %.4f. TTFT: time to the first token "
            "after %d tokens, with %d thread%s. A rival is the backbone cut by the same share in "
            "layers, channels and units, to about the same time.</p>\n",
            d->p.tests, d->p.ctx, d->backbone_loss, d->p.prompt, d->p.threads,
            d->p.threads > 1 ? "s" : "");
}

/* Plots predicted against measured times: TTFT or, with decode 1, the time of a token. */
static void times_plot(FILE *f, const design *d, int decode)
{
    html_plot p = {f, html_log_axis("measured [ms]"), html_log_axis("predicted [ms]"), 366, 0};
    if (*d->elsewhere) return;
    for (int i = 0; i < d->n; i++) {
        const member *m = &d->member[i];
        html_take(&p.x, 1e3 * m->least[decode]);
        html_take(&p.x, 1e3 * (decode ? m->decode.mean : m->ttft.mean));
    }
    html_settle(&p.x);
    p.y.lo = p.x.lo;
    p.y.hi = p.x.hi;
    html_begin(&p, decode ? "time of a token" : "time to the first token");
    html_line(&p, "one", p.x.lo, p.x.lo, p.x.hi, p.x.hi);
    html_line(&p, "dash", p.x.lo, 1.05 * p.x.lo, p.x.hi / 1.05, p.x.hi);
    html_line(&p, "dash", p.x.lo / .95, p.x.lo, p.x.hi, .95 * p.x.hi);
    for (int i = 0; i < d->n; i++) {
        const member *m = &d->member[i];
        const flash_interval *t = decode ? &m->decode : &m->ttft;
        fprintf(f,
                "<g class=\"point %s\"><title>%s: predicted %.4g ms, measured %.4g (median %.4g)"
                "</title><path d=\"M%.1f %.1fV%.1f\"/><circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>"
                "</g>\n",
                m->trial ? "p0" : "grey", m->name, 1e3 * t->mean, 1e3 * m->least[decode],
                1e3 * m->median[decode], html_x(&p, 1e3 * m->least[decode]),
                html_y(&p, 1e3 * t->lo), html_y(&p, 1e3 * t->hi),
                html_x(&p, 1e3 * m->least[decode]), html_y(&p, 1e3 * t->mean));
    }
    html_end(&p);
}

/* Writes a table of the trials on the front, one row each, sorted by loss. */
static void strips(const front *r, const design *d)
{
    flash_trial t;
    candidate c;
    fputs("<h2>What the front looks like</h2>\n<div class=\"wide\"><table>\n<tr><th>trial</th>"
          "<th>loss</th><th>TTFT [ms]</th><th>layers</th><th>d_model</th><th>d_ffn</th>"
          "<th>attention, FFN</th></tr>\n",
          r->f);
    for (int i = 0; i < r->n; i++) {
        flash_search_trial(r->s, r->id[i], &t);
        plan_candidate(&d->p, t.x, &c);
        fprintf(r->f, "<tr><th>%d</th><td>%.4f</td><td>%.4g</td>", t.id, t.y[0], 1e3 * t.y[1]);
        shape_cells(r->f, &d->p, &c);
        fputs("</tr>\n", r->f);
    }
    fputs("</table></div>\n<p><span class=\"dot p0\"></span>full attention <span class=\"dot p1\">"
          "</span>a window <span class=\"dot grey\"></span>none; below, the width of the FFN."
          "</p>\n",
          r->f);
}

void design_report(const char *path, const design *d)
{
    front r;
    FILE *f;
    front_open(&r, &d->j);
    r.f = f = cli_open(path);
    fprintf(f, "%s%s.strip { display: inline-block } .grey rect { fill: #999 }\n</style>\n<title>",
            html_head, front_style);
    html_text(f, d->p.backbone);
    fputs(", designed</title>\n</head>\n<body>\n<h1>Models out of ", f);
    html_text(f, d->p.backbone);
    fputs("</h1>\n<table class=\"facts\">\n", f);
    front_facts(&r);
    fprintf(f,
            "<tr><th>a trial</th><td>%d steps of %d x %d tokens, the backbone as teacher; a "
            "model of the family %d steps</td></tr>\n<tr><th>device</th><td>",
            d->p.steps, d->p.batch, d->p.ctx, d->p.final_steps);
    html_text(f, *d->elsewhere ? d->elsewhere : "this machine");
    fprintf(f, ", %s weights, %s keys and values, %d thread%s</td></tr>\n</table>\n",
            flash_type_name(d->p.type), flash_type_name(d->p.kv), d->p.threads,
            d->p.threads > 1 ? "s" : "");
    family(f, d);
    front_plots(&r);
    strips(&r, d);
    if (!*d->elsewhere) {
        fputs("<h2>The latency model on the family</h2>\n<div class=\"two\">\n", f);
        times_plot(f, d, 0);
        times_plot(f, d, 1);
        fputs("</div>\n<p>Dashed: 5 % off; bars: the interval of nine in ten. How well it fits all "
              "that was measured is in latency.html of this folder, if it was fitted here.</p>\n",
              f);
    }
    front_parallel(&r);
    fputs("</body>\n</html>\n", f);
    cli_close(path);
    front_close(&r);
}
