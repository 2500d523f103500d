/* html.c - see html.h. */
#include "html.h"
#include <math.h>

enum { TICKS = 32 }; /* at most so many on an axis */

const char html_head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n"
    ":root { color-scheme: light dark; --ink: #1b1b1b; --dim: #666; --grid: #e2e2e2; --l: 42% }\n"
    "@media (prefers-color-scheme: dark) {\n"
    "    :root { --ink: #e4e4e4; --dim: #a0a0a0; --grid: #383838; --l: 64% } }\n"
    "* { --of: hsl(var(--h), var(--s, 75%), var(--l)) }\n"
    "body { max-width: 60rem; margin: 0 auto; padding: 1rem; font: 1rem/1.45 sans-serif;\n"
    "    color: var(--ink); background: Canvas }\n"
    "h1 { font-size: 1.4rem; overflow-wrap: anywhere } h2 { font-size: 1.1rem; margin-top: 2rem }\n"
    ".two { display: grid; gap: 1rem;\n"
    "    grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)) }\n"
    "figure { margin: 0; max-width: 40rem } figcaption { font-weight: bold }\n"
    "svg { width: 100%; display: block } text { font-size: 12.5px; fill: var(--dim) }\n"
    "path { fill: none; stroke: var(--dim) } .grid { stroke: var(--grid) }\n"
    ".dash { stroke-dasharray: 5 4 } .curve { stroke: var(--of); stroke-width: 2 }\n"
    ".point path { stroke: var(--of); stroke-opacity: .45 } circle { fill: var(--of) }\n"
    "circle { fill-opacity: .75 } .wide { overflow-x: auto } .wide th { white-space: nowrap }\n"
    "table { border-collapse: collapse }\n"
    "th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--grid) }\n"
    "th:first-child, .facts td { text-align: left; vertical-align: top; overflow-wrap: anywhere }\n"
    ".tau { width: 4rem; margin-left: auto } rect { fill: var(--of) }\n"
    ".dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%;\n"
    "    margin: 0 .3em 0 1em; background: var(--of) }\n"
    "footer { margin-top: 2rem; font-size: .9rem; color: var(--dim) } dt { font-weight: bold }\n"
    ".p0 { --h: 210 } .p1 { --h: 20 }\n";

void html_text(FILE *f, const char *s)
{
    for (; s && *s; s++) switch (*s) {
        case '&': fputs("&amp;", f); break;
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '"': fputs("&quot;", f); break;
        default: fputc((unsigned char)*s < ' ' ? ' ' : *s, f);
        }
}

void html_cell(FILE *f, int digits, double v)
{
    if (isfinite(v))
        fprintf(f, fabs(v) < 1e9 ? "<td>%.*f</td>" : "<td>%.*g</td>", digits, v);
    else
        fputs("<td>-</td>", f);
}

html_axis html_log_axis(const char *label) { return (html_axis){1e12, 1e-12, 1, label}; }
html_axis html_plain_axis(const char *label) { return (html_axis){INFINITY, -INFINITY, 0, label}; }

void html_take(html_axis *a, double v)
{
    if (a->log) v = fmin(fmax(v, 1e-12), 1e12);
    a->lo = fmin(a->lo, v);
    a->hi = fmax(a->hi, v);
}

void html_settle(html_axis *a)
{
    if (a->lo > a->hi) a->lo = a->hi = 1;
    if (!a->log) {
        double room = fmax(.04 * (a->hi - a->lo), 1e-6 * fmax(fabs(a->lo), fabs(a->hi)));
        room = room > 0 ? room : 1;
        a->lo -= room;
        a->hi += room;
        return;
    }
    double middle = sqrt(a->lo * a->hi), half = sqrt(fmax(1.3 * a->hi / a->lo, 3));
    a->lo = middle / half;
    a->hi = middle * half;
}

/* Returns where v lies on the axis, from 0 to 1; what lies outside goes to an end. */
static double share(const html_axis *a, double v)
{
    double t = a->log ? log(v / a->lo) / log(a->hi / a->lo) : (v - a->lo) / (a->hi - a->lo);
    return t > 0 ? fmin(t, 1) : 0;
}

double html_x(const html_plot *p, double v) { return LEFT + (RIGHT - LEFT) * share(&p->x, v); }

double html_y(const html_plot *p, double v)
{
    return p->bottom - (p->bottom - TOP) * share(&p->y, v);
}

/* Sets at to the positions of the ticks, round numbers, and returns how many there are. */
static int ticks(const html_axis *a, double at[TICKS])
{
    static const int by[] = {1, 2, 5, 10};
    int n = 0;
    if (a->log && a->hi > 6 * a->lo) {
        int from = (int)floor(log10(a->lo)), to = (int)floor(log10(a->hi)), decades = to - from;
        for (int e = from; e <= to; e += 1 + decades / 8)
            for (int k = 0; k < (decades > 3 ? 1 : 3); k++) {
                double v = by[k] * pow(10, e);
                if (v >= a->lo && v <= a->hi && n < TICKS) at[n++] = v;
            }
        return n;
    }
    double rough = (a->hi - a->lo) / 6, ten = pow(10, floor(log10(rough)));
    int k = 0;
    while (k < 3 && by[k] * ten < rough) k++;
    for (double i = ceil(a->lo / (by[k] * ten)); i * by[k] * ten <= a->hi && n < TICKS; i++)
        at[n++] = i * by[k] * ten + 0.; /* + 0 makes 0 of -0 */
    return n;
}

void html_line(const html_plot *p, const char *class_name, double x0, double y0, double x1,
               double y1)
{
    fprintf(p->f, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", class_name, html_x(p, x0),
            html_y(p, y0), html_x(p, x1), html_y(p, y1));
}

void html_begin(const html_plot *p, const char *caption)
{
    double at[TICKS], middle = (LEFT + RIGHT) / 2., h = p->bottom;
    int n = ticks(&p->x, at);
    if (!p->picture) {
        fputs("<figure><figcaption>", p->f);
        html_text(p->f, caption);
        fputs("</figcaption>\n", p->f);
    }
    fprintf(p->f, "<svg%s role=\"img\" aria-label=\"",
            p->picture ? " xmlns=\"http://www.w3.org/2000/svg\"" : "");
    html_text(p->f, caption);
    fputs(": ", p->f);
    html_text(p->f, p->y.label);
    fputs(", ", p->f);
    html_text(p->f, p->x.label);
    fprintf(p->f, "\" viewBox=\"0 0 %d %.0f\">\n", WIDTH, h + 40);
    if (p->picture) /* has its own styles, and a white background wherever it is shown */
        fprintf(p->f,
                "<style>text { font: 12.5px sans-serif; fill: #666 } path { fill: none; "
                "stroke: #666 }\n.grid { stroke: #e2e2e2 } .p0 { fill: hsl(210, 75%%, 42%%) } "
                ".grey { fill: #999; fill-opacity: .5 }</style>\n"
                "<rect width=\"%d\" height=\"%.0f\" fill=\"#fff\"/>\n",
                WIDTH, h + 40);
    for (int i = 0; i < n; i++)
        fprintf(p->f,
                "<path class=\"grid\" d=\"M%.1f %dV%.1f\"/><text x=\"%.1f\" y=\"%.1f\""
                " text-anchor=\"middle\">%g</text>\n",
                html_x(p, at[i]), TOP, h, html_x(p, at[i]), h + 16, at[i]);
    n = ticks(&p->y, at);
    for (int i = 0; i < n; i++)
        fprintf(p->f,
                "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\""
                " text-anchor=\"end\">%g</text>\n",
                LEFT, html_y(p, at[i]), RIGHT, LEFT - 5, html_y(p, at[i]) + 4, at[i]);
    fprintf(p->f,
            "<path d=\"M%d %dV%.1fH%d\"/><text x=\"%.1f\" y=\"%.1f\" "
            "text-anchor=\"middle\">",
            LEFT, TOP, h, RIGHT, middle, h + 34);
    html_text(p->f, p->x.label);
    fprintf(p->f,
            "</text>\n<text transform=\"translate(12 %.1f) rotate(-90)\" "
            "text-anchor=\"middle\">",
            (TOP + h) / 2);
    html_text(p->f, p->y.label);
    fputs("</text>\n", p->f);
}

void html_end(const html_plot *p) { fputs(p->picture ? "</svg>\n" : "</svg></figure>\n", p->f); }
