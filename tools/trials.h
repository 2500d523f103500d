/* trials.h - running the trials of a search here: for flash search --cmd and flash design. */
#ifndef FLASH_TRIALS_H
#define FLASH_TRIALS_H

#include "space.h"

enum { TRIALS_JOBS_MAX = 256 };

typedef struct trials_desc {
    /* a shell command with {trial.json}, where the trial's file is named; or NULL and body, which a
       process of its own runs, and whose result is its exit status. What they print is the
       result: see flash search --help */
    const char *cmd;
    int (*body)(void *user, const char *path);
    void *user;
    int parallel; /* at once, at most TRIALS_JOBS_MAX */
    /* so many are asked for together and told together, in their order: the same suggestions for
       any number at once. At most TRIALS_JOBS_MAX; 0: each as it comes */
    int batch;
    int keeps;      /* 1: a trial that was done gives its values again in no time, so
                       what ended in a batch that was interrupted need not be told   */
    double timeout; /* [s]; 0: any */
} trials_desc;

/* Runs what the journal wants, fails like all of cli.h. Ctrl-C ends all commands and the program,
   whose next run goes on. */
void trials_run(journal *j, const trials_desc *d);
/* One line on stdout about a trial that ended, and where the search stands. */
void trials_say(const journal *j, const flash_trial *t);

#endif
