/* process.h - work in processes of its own, for flash design and study. Where the system has no
   processes as POSIX has them, it is done here, one after another. */
#ifndef FLASH_PROCESS_H
#define FLASH_PROCESS_H

#include "cli.h"

enum { PROCESSES_MAX = 256 };

/* From here on Ctrl-C ends what runs, and then, at process_check_stop or the end of a pool, this
   program. */
void process_catch_stops(void);
void process_check_stop(void);
/* In a process: it ends when the one that began it does, where the system can see to that. */
void process_tie(void);
/* Runs body in a process, and waits for it; its result, or 255 if it was ended. */
int process_run(int (*body)(void *user), void *user);
/* Runs body(user, 0) .. body(user, n - 1), so many at once; ends the program if one does not return
   0. what: for the progress. */
void process_pool(const char *what, int n, int at_once, int (*body)(void *user, int i), void *user);

#endif
