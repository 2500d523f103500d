/* html.h - what the pages of flash fit and flash front share: style, cells, plots as SVG. */
#ifndef FLASH_HTML_H
#define FLASH_HTML_H

#include <stdio.h>

/* Of a plot, in units of its viewBox. */
enum { WIDTH = 420, LEFT = 52, RIGHT = 410, TOP = 8 };

typedef struct html_axis {
    double lo, hi;
    int log;
    const char *label;
} html_axis;
typedef struct html_plot {
    FILE *f;
    html_axis x, y;
    double bottom;
    int picture; /* 1: an SVG file of its own, not a part of a page */
} html_plot;

/* Up to within <style>: light and dark. */
extern const char html_head[];

void html_text(FILE *f, const char *s); /* escaped */
void html_cell(FILE *f, int digits, double v);
/* An axis that holds all that html_take was given, after html_settle. */
html_axis html_log_axis(const char *label);
html_axis html_plain_axis(const char *label);
void html_take(html_axis *a, double v);
void html_settle(html_axis *a);
/* Where v lies; what is outside or not a number goes to an edge. */
double html_x(const html_plot *p, double v);
double html_y(const html_plot *p, double v);
void html_line(const html_plot *p, const char *class_name, double x0, double y0, double x1,
               double y1);
/* Begins a figure: what is drawn next, up to html_end, lies inside these axes. */
void html_begin(const html_plot *p, const char *caption);
void html_end(const html_plot *p);

#endif
