/* html.h - what the pages of flash fit, front and design share: style, cells, plots as SVG. */
#ifndef FLASH_HTML_H
#define FLASH_HTML_H

#include <stdio.h>

/* The width of a plot and the edges of the area within its axes are in units of its viewBox. */
enum { WIDTH = 420, LEFT = 52, RIGHT = 410, TOP = 8 };

typedef struct html_axis {
    double lo, hi;
    int log;
    const char *label;
} html_axis;
typedef struct html_plot {
    FILE *f;
    html_axis x, y;
    double bottom; /* y of the horizontal axis, in the same units as TOP */
    int picture;   /* 1: an SVG file of its own; 0: a part of a page */
} html_plot;

/* The beginning of a page, for light and dark screens; it ends inside <style>, so that more styles
   may follow. */
extern const char html_head[];

void html_text(FILE *f, const char *s); /* escapes what HTML would interpret; s may be NULL */
/* Writes a table cell: v with so many digits after the point, "-" if v is not finite. */
void html_cell(FILE *f, int digits, double v);
/* The first two return an empty axis. html_take extends it to hold v; html_settle, called last,
   adds a margin. */
html_axis html_log_axis(const char *label);
html_axis html_plain_axis(const char *label);
void html_take(html_axis *a, double v);
void html_settle(html_axis *a);
/* Return the coordinate of v in the plot; a v outside of the axis, or NaN, goes to an edge. */
double html_x(const html_plot *p, double v);
double html_y(const html_plot *p, double v);
void html_line(const html_plot *p, const char *class_name, double x0, double y0, double x1,
               double y1);
/* Begins a figure and draws its axes. What is drawn next, up to html_end, lies inside them. */
void html_begin(const html_plot *p, const char *caption);
void html_end(const html_plot *p);

#endif
