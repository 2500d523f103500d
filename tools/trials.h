/* trials.h - runs the trials of a search on this machine: for flash search --cmd and flash
   design. */
#ifndef FLASH_TRIALS_H
#define FLASH_TRIALS_H

#include "space.h"

enum { TRIALS_JOBS_MAX = 256 };

typedef struct trials_desc {
    /* What runs a trial: a shell command, in which {trial.json} stands for the name of the trial's
       file; or, if cmd is NULL, body, called in a new process, whose result is the exit status.
       Both print the values of the trial: see flash search --help. */
    const char *cmd;
    int (*body)(void *user, const char *path);
    void *user;
    int parallel; /* how many run at the same time, at most TRIALS_JOBS_MAX */
    /* So many trials are asked for together, and their values are told together, in order of their
       ids. The search then suggests the same trials whatever `parallel` is. At most
       TRIALS_JOBS_MAX; 0: each trial is told when it ends. */
    int batch;
    /* 1: a trial that is run again prints the values it had at once, so that the ended trials of a
       batch that is interrupted need not be told. */
    int keeps;
    double timeout; /* for one trial [s]; 0: none */
} trials_desc;

/* Runs trials until the journal has as many as are wanted. Fails like all of cli.h. Ctrl-C ends all
   running trials and the program; the next call goes on with the same journal. */
void trials_run(journal *j, const trials_desc *d);
/* Prints a line on stdout: a trial that ended, and where the search stands. */
void trials_say(const journal *j, const flash_trial *t);

#endif
