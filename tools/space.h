/* space.h - reads and writes spaces (what a search may try), journals (what it has tried) and
   trials: for flash search, front, design, trial and study. */
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

/* A rule limits n parameters, whose numbers are in slot. run > 0: at most `run` of them in a row
   may have one of the choices in their mask. run 0: their weighted sum is at most at_most.
   Parameters that are not active do not count. */
typedef struct space_rule {
    int run, n, slot[FLASH_SEARCH_PARAMS_MAX];
    uint64_t mask[FLASH_SEARCH_PARAMS_MAX]; /* bit c: choice c */
    double weight[FLASH_SEARCH_PARAMS_MAX], at_most;
} space_rule;

typedef struct space {
    json *doc; /* owns the names */
    int n_param, n_objective, n_constraint, n_rule;
    flash_param param[FLASH_SEARCH_PARAMS_MAX];
    const char *choice[FLASH_SEARCH_PARAMS_MAX][SPACE_CHOICES_MAX];
    int active[FLASH_SEARCH_PARAMS_MAX];        /* 1 + the one that activates it; 0: always */
    const char *value[FLASH_SEARCH_VALUES_MAX]; /* names of objectives, then of constraints */
    int has_reference;
    double reference[FLASH_SEARCH_OBJECTIVES_MAX];
    int has_noise;
    double noise[FLASH_SEARCH_VALUES_MAX]; /* standard deviations */
    space_rule rule[SPACE_RULES_MAX];
    int trials, initial, population, noisy; /* see flash_search_desc */
    flash_search_method method;
    uint64_t seed;
    /* Computes objective known_at without a trial, from x; NULL: all objectives need trials. */
    double (*known)(void *user, const double *x);
    void *known_user;
    int known_at;
} space;

/* A journal is a search with the file that records all it was asked and told. */
typedef struct journal {
    const char *path;
    space sp;
    flash_search *s;
    FILE *f;    /* locked; NULL: the journal is only read */
    int trials; /* how many are wanted in all */
} journal;

/* Reads a space file. All functions up to journal_close fail with the file's name and a reason. */
void space_read(const char *path, space *sp);
/* Like space_read, from [bytes] of text, which ends with a 0. name: of the file, for messages. */
void space_parse_text(const char *name, const char *text, size_t bytes, space *sp);
/* Opens and locks a journal, and replays it; creates it if it is not there. wait 1: waits up to 60
   seconds while another program has it. sp is the space, which j takes over; trials, seed: 0 and
   UINT64_MAX for those of sp. */
void journal_open(journal *j, const char *path, space *sp, int trials, uint64_t seed, int wait);
/* Reads a journal, which is not locked or changed. */
void journal_view(journal *j, const char *path);
void journal_close(journal *j);

/* Sets the callbacks of d to the rules of j's space, and d->user to j. */
void space_rules(journal *j, flash_search_desc *d);
int space_n_values(const space *sp);
int space_is_active(const space *sp, const double *x, int parameter);
/* Writes v into text, with the fewest digits from 15 to 17 that give v back, and returns text. */
const char *space_number(double v, char text[SPACE_NUMBER]);
/* Writes the line {"id":7,"x":{"layers":12,...}}, without parameters that are not active. */
void space_write_trial(FILE *f, const space *sp, const flash_trial *t);
/* Writes the value of parameter i as text; "" if it is not active. */
void space_cell(const space *sp, const double *x, int i, char text[SPACE_CELL]);
/* Reads the first n values from a line: numbers, a JSON list, or a JSON object with their names.
   Returns 1; 0 if the line has no values; -1 if they are wrong, and says in why what is. */
int space_values(const space *sp, const char *line, int n, double *y, char why[SPACE_CELL + 60]);
/* Prints on stdout a table of the front, and a line of counts and figures. */
void space_print_front(const space *sp, flash_search *s);
/* Returns the number of trials. It is fast, whereas a summary of a noisy search takes as long as
   asking for a trial. */
int space_count(const flash_search *s);
/* Returns the ids of the trials on the front, [*n]; the caller frees them. */
int *space_front(flash_search *s, int *n);
/* Sets *x to the value of parameter i that text says: a number, or the name of a choice. Returns 0
   if it is neither. */
int space_parse(const space *sp, int i, const char *text, double *x);

#endif
