/* process.h - runs work in separate processes, for flash design and study. On a system without
   the processes of POSIX the work is done in this process, one item after another. */
#ifndef FLASH_PROCESS_H
#define FLASH_PROCESS_H

#include "cli.h"

enum { PROCESSES_MAX = 256 };

/* From the first call on, Ctrl-C ends the processes that run and then, at process_check_stop, which
   process_run and process_pool also call, this program. */
void process_catch_stops(void);
void process_check_stop(void);
/* Called in a new process: makes it end when its parent does, if the system can do that (Linux). */
void process_tie(void);
/* Runs body in a process and waits for its end. Returns the result of body, or 255 if the process
   was killed. */
int process_run(int (*body)(void *user), void *user);
/* Runs body(user, 0) .. body(user, n - 1) in processes, at_once of them at the same time. Ends the
   program if one of them does not return 0. what: name for the progress. */
void process_pool(const char *what, int n, int at_once, int (*body)(void *user, int i), void *user);

#endif
