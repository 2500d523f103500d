/* space.h - what flash search and flash front share: space files, journals, trials as text. */
#ifndef FLASH_SPACE_H
#define FLASH_SPACE_H

#include "cli.h"
#include "json.h"

enum {
    SPACE_RULES_MAX = 64,
    SPACE_CHOICES_MAX = 64,
    SPACE_NAME_MAX = 100,
    SPACE_NUMBER = 32,
    SPACE_CELL = SPACE_NAME_MAX + 8
};

/* At most `run` in a row of the choices in mask; or, run 0, a weighted sum of at most at_most.
   Parameters that are not active do not count. */
typedef struct space_rule {
    int run, n, slot[FLASH_SEARCH_PARAMS_MAX]; /* parameters, [n] */
    uint64_t mask[FLASH_SEARCH_PARAMS_MAX];
    double weight[FLASH_SEARCH_PARAMS_MAX], at_most;
} space_rule;

typedef struct space {
    json *doc; /* owns the names */
    int n_param, n_objective, n_constraint, n_rule;
    flash_param param[FLASH_SEARCH_PARAMS_MAX];
    const char *choice[FLASH_SEARCH_PARAMS_MAX][SPACE_CHOICES_MAX];
    int active[FLASH_SEARCH_PARAMS_MAX];        /* 1 + the one that decides, or 0 */
    const char *value[FLASH_SEARCH_VALUES_MAX]; /* objectives, then constraints */
    int has_reference;
    double reference[FLASH_SEARCH_OBJECTIVES_MAX];
    int has_noise;
    double noise[FLASH_SEARCH_VALUES_MAX]; /* standard deviations */
    space_rule rule[SPACE_RULES_MAX];
    int trials, initial, population, noisy; /* 0: the library's */
    flash_search_method method;
    uint64_t seed;
    /* objective known_at needs no trial: known(known_user, x); NULL: all do */
    double (*known)(void *user, const double *x);
    void *known_user;
    int known_at;
} space;

/* A search and the file that it is kept in. */
typedef struct journal {
    const char *path;
    space sp;
    flash_search *s;
    FILE *f;    /* locked; NULL: it is only looked at */
    int trials; /* that are wanted, in all */
} journal;

/* These fail with the file's name and what is wrong. */
void space_read(const char *path, space *sp);
/* From text, [bytes]; name: for messages. */
void space_parse_text(const char *name, const char *text, size_t bytes, space *sp);
/* Goes on with the journal or begins one, locked; `wait`: for others to give it back. sp: of the
   space file, of which *j takes hold; trials, seed: 0 and UINT64_MAX for those of the file. */
void journal_open(journal *j, const char *path, space *sp, int trials, uint64_t seed, int wait);
/* Only looks at one. */
void journal_view(journal *j, const char *path);
void journal_close(journal *j);

/* The rules of j's space as callbacks of d, whose user becomes j. */
void space_rules(journal *j, flash_search_desc *d);
int space_n_values(const space *sp);
int space_is_active(const space *sp, const double *x, int parameter);
/* As short as they come back exactly. */
const char *space_number(double v, char text[SPACE_NUMBER]);
/* {"id":7,"x":{"layers":12,...}} on one line: parameters that are not active are left out. */
void space_write_trial(FILE *f, const space *sp, const flash_trial *t);
/* Parameter i as text; "" if it is not active. */
void space_cell(const space *sp, const double *x, int i, char text[SPACE_CELL]);
/* The first n values from a line: numbers, a list, or an object with their names. 1; 0: a line
   without; -1: not what it should be, why says in what. */
int space_values(const space *sp, const char *line, int n, double *y, char why[SPACE_CELL + 60]);
/* The front as a table, and a line of counts and figures, on stdout. */
void space_print_front(const space *sp, flash_search *s);
/* How many trials there are; a summary takes as long as asking if they are noisy. */
int space_count(const flash_search *s);
/* Ids of the front, [*n], the caller frees them. */
int *space_front(flash_search *s, int *n);
/* Searches for x where that is possible: 1, or 0 if there is no such value. */
int space_parse(const space *sp, int i, const char *text, double *x);

#endif
