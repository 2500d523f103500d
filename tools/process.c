/* process.c - see process.h. */
#define _POSIX_C_SOURCE 200809L /* fork, kill, sigaction */
#include "process.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#if !defined(_WIN32) && !defined(__wasm__)
#define PROCESS_FORKS
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sys/prctl.h>
#endif

#ifdef PROCESS_FORKS
static pid_t child[PROCESSES_MAX]; /* those that run; 0: a free place */
static volatile sig_atomic_t stopped;

/* Passes the signal on to all processes; a second signal kills them. */
static void on_stop(int sig)
{
    for (int i = 0; i < PROCESSES_MAX; i++)
        if (child[i]) kill(child[i], stopped ? SIGKILL : sig);
    stopped = sig;
}

static void catch_with(void (*handler)(int))
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction a;
    memset(&a, 0, sizeof a);
    sigemptyset(&a.sa_mask);
    a.sa_handler = handler;
    for (int i = 0; i < 3; i++) sigaction(signals[i], &a, NULL);
}

void process_catch_stops(void) { catch_with(on_stop); }

void process_check_stop(void)
{
    if (!stopped) return;
    cli_note("stopped; the same command goes on");
    exit(128 + stopped);
}

void process_tie(void)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
}

/* Starts a process and returns its id, or 0 in the new process. It has a process group of its own,
   so that Ctrl-C in a terminal reaches this program alone, which passes it on. */
static pid_t begin(void)
{
    pid_t from = getpid(), pid;
    fflush(NULL);
    pid = fork();
    if (pid < 0) cli_fail("cannot start a process: %s", strerror(errno));
    if (pid) return pid;
    setpgid(0, 0);
    catch_with(SIG_DFL);
    memset(child, 0, sizeof child);
    process_tie();
    if (getppid() != from) _exit(1);
    return 0;
}

int process_run(int (*body)(void *user), void *user)
{
    int status;
    process_check_stop();
    child[0] = begin();
    if (!child[0]) {
        status = body(user);
        fflush(stdout);
        _exit(status);
    }
    while (waitpid(child[0], &status, 0) < 0 && errno == EINTR);
    child[0] = 0;
    process_check_stop();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

void process_pool(const char *what, int n, int at_once, int (*body)(void *user, int i), void *user)
{
    int begun = 0, running = 0, bad = 0, status;
    cli_progress(what, 0, n);
    while (running || (begun < n && !stopped)) {
        if (begun < n && running < at_once && running < PROCESSES_MAX && !stopped) {
            int slot = 0;
            while (child[slot]) slot++;
            child[slot] = begin();
            if (!child[slot]) {
                status = body(user, begun);
                fflush(stdout);
                _exit(status);
            }
            begun++;
            running++;
            continue;
        }
        pid_t pid = waitpid(-1, &status, 0);
        for (int i = 0; i < PROCESSES_MAX; i++)
            if (pid > 0 && child[i] == pid) {
                child[i] = 0;
                running--;
                bad += !WIFEXITED(status) || WEXITSTATUS(status);
                cli_progress(what, begun - running, n);
            }
    }
    cli_progress(what, n, n);
    process_check_stop();
    if (bad)
        cli_fail("%s: %d of %d did not end well; the same command goes on from there", what, bad,
                 n);
}
#else
void process_tie(void) {}
void process_catch_stops(void) {}
void process_check_stop(void) {}
int process_run(int (*body)(void *user), void *user) { return body(user); }
void process_pool(const char *what, int n, int at_once, int (*body)(void *user, int i), void *user)
{
    (void)at_once;
    for (int i = 0; i < n; i++) {
        cli_progress(what, i, n);
        if (body(user, i))
            cli_fail("%s: it did not end well; the same command goes on from there", what);
    }
    cli_progress(what, n, n);
}
#endif
