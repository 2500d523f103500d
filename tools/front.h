/* front.h - what a search has found, as parts of a page: for flash front and flash design. */
#ifndef FLASH_FRONT_H
#define FLASH_FRONT_H

#include "html.h"
#include "space.h"

typedef struct front {
    FILE *f; /* the page */
    const space *sp;
    flash_search *s;
    int *id, n; /* of the front */
    char *on;   /* [trials + 1] 1: on it */
    flash_search_summary sum;
} front;

extern const char front_style[]; /* goes behind html_head */

/* Looks the front up; front_close frees what it made. */
void front_open(front *r, const journal *j);
void front_close(front *r);
/* Counts and hypervolume: rows of a table of facts. */
void front_facts(const front *r);
/* The trials as an SVG file. */
void front_picture(const front *r);
/* Two plots next to each other: the trials, and the hypervolume over them. */
void front_plots(const front *r);
/* Parallel coordinates and a table of the front. */
void front_parallel(const front *r);
void front_table(const front *r);

#endif
