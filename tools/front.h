/* front.h - the results of a search as parts of an HTML page: for flash front and flash design. The
   front is the set of the trials that no other trial is better than. */
#ifndef FLASH_FRONT_H
#define FLASH_FRONT_H

#include "html.h"
#include "space.h"

typedef struct front {
    FILE *f; /* page to write to; the caller sets it */
    const space *sp;
    flash_search *s;
    int *id, n; /* [n] ids of the trials on the front */
    char *on;   /* [trials + 1] by id: 1 if the trial is on the front */
    flash_search_summary sum;
} front;

extern const char front_style[]; /* styles that follow html_head */

/* Finds the front of j's search, which must outlive *r; front_close frees what r holds. */
void front_open(front *r, const journal *j);
void front_close(front *r);
/* Writes rows of a table: counts of trials, and the hypervolume. */
void front_facts(const front *r);
/* Writes the plot of the trials as an SVG file. */
void front_picture(const front *r);
/* Writes two plots next to each other: the trials, and the hypervolume over the trials. */
void front_plots(const front *r);
/* Write the front: as parallel coordinates, and as a table. */
void front_parallel(const front *r);
void front_table(const front *r);

#endif
