/* trials.c - see trials.h. */
#define _POSIX_C_SOURCE 200809L /* fork, kill, poll, sigaction */
#include "trials.h"
#include "process.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if !defined(_WIN32) && !defined(__wasm__)
#define TRIALS_RUN
#include <fcntl.h>
#include <poll.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

void trials_say(const journal *run, const flash_trial *t)
{
    static const char *const states[] = {"pending", "done", "failed", "abandoned"};
    flash_search_summary sum;
    flash_search_summarize(run->s, &sum);
    printf("trial %d %s", t->id, states[t->state]);
    for (int k = 0; k < space_n_values(&run->sp) && t->state == FLASH_TRIAL_DONE; k++)
        printf(" %.6g", t->y[k]);
    printf(" hypervolume %.6g front %d\n", sum.hypervolume, sum.front);
    fflush(stdout);
}

#ifdef TRIALS_RUN
enum { LINE = 1 << 16, GRACE = 5, FAILURES = 5, WHY = SPACE_CELL + 60 };

typedef enum ending { RUNNING, HOPELESS, TIMEOUT } ending;

typedef struct job {
    int id, fd;            /* fd: its standard output; -1: closed */
    pid_t pid;             /* process and process group; 0: this place is free */
    double begun, kill_at; /* [s]; kill_at 0: it was not asked to end */
    ending why_ended;
    int reaped, status, state; /* state: what space_values said of the last line with values */
    double y[FLASH_SEARCH_VALUES_MAX];
    char why[WHY], hint[WHY];
    char *line; /* [LINE] the line that is being read, its first n bytes */
    size_t n;
    char *path; /* the trial's file */
} job;

/* An outcome says how a trial ended. */
typedef struct outcome {
    int id;
    flash_trial_state state;
    double y[FLASH_SEARCH_VALUES_MAX];
    char why[WHY]; /* why it failed */
} outcome;

/* These are static for the signal handler and for atexit. */
static journal *run;
static const trials_desc *desc;
static job jobs[TRIALS_JOBS_MAX];
static outcome held[TRIALS_JOBS_MAX]; /* [n_held] of a batch that is not complete */
static volatile sig_atomic_t stop_signal;
/* live: stderr is a terminal; failed_first: 1 + failures so far, 0 once a trial did not fail. */
static int live, failed_first = 1, running, n_held;

static void fail_library(const flash_error *err) { cli_fail("%s: %s", run->path, err->text); }

static void on_stop(int sig)
{
    if (stop_signal) /* a second signal kills all jobs */
        for (int i = 0; i < TRIALS_JOBS_MAX; i++)
            if (jobs[i].pid) kill(-jobs[i].pid, SIGKILL);
    stop_signal = sig;
}

static void catch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction a, old;
    memset(&a, 0, sizeof a);
    sigemptyset(&a.sa_mask);
    for (int i = 0; i < 3; i++) {
        a.sa_handler = on_stop;
        /* under nohup, SIGHUP stays ignored */
        if (!sigaction(signals[i], &a, &old) && i == 2 && old.sa_handler == SIG_IGN)
            sigaction(signals[i], &old, NULL);
    }
    a.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &a, NULL);
}

static void wipe(void)
{
    if (live) fprintf(stderr, "\r%78s\r", "");
}

static void pause_ms(int ms) { poll(NULL, 0, ms); }

static void reap(job *j)
{
    if (j->pid && !j->reaped && waitpid(j->pid, &j->status, WNOHANG) == j->pid) j->reaped = 1;
}

static void forget(job *j)
{
    if (j->fd >= 0) close(j->fd);
    if (j->path) remove(j->path);
    free(j->path);
    free(j->line);
    memset(j, 0, sizeof *j);
}

/* Returns 1 if no process of the job's group is left. */
static int gone(const job *j) { return j->reaped && kill(-j->pid, 0); }

/* Ends all jobs when the program ends, for whatever reason: SIGTERM for their process groups, and
   SIGKILL for those that are left after GRACE seconds. */
static void end_all(void)
{
    double from = cli_seconds();
    int left = 1;
    for (int i = 0; i < TRIALS_JOBS_MAX; i++)
        if (jobs[i].pid && !jobs[i].kill_at) kill(-jobs[i].pid, SIGTERM);
    while (left && cli_seconds() < from + GRACE) {
        left = 0;
        for (int i = 0; i < TRIALS_JOBS_MAX; i++) {
            reap(&jobs[i]);
            left |= jobs[i].pid && !gone(&jobs[i]);
        }
        if (left) pause_ms(10);
    }
    for (int i = 0; i < TRIALS_JOBS_MAX; i++)
        if (jobs[i].pid) {
            kill(-jobs[i].pid, SIGKILL);
            forget(&jobs[i]);
        }
}

/* Returns cmd with each {...json} replaced by path in quotes; the caller frees it. */
static char *command_line(const char *cmd, const char *path)
{
    size_t quotes = 0, places = 0, n = 0;
    for (const char *p = path; *p; p++) quotes += *p == '\'';
    for (const char *p = cmd; *p; p++) places += *p == '{';
    char *out = malloc(strlen(cmd) + places * (strlen(path) + 3 * quotes + 3) + 1);
    if (!out) cli_fail("out of memory");
    while (*cmd) {
        size_t inside = *cmd == '{' ? strcspn(cmd + 1, "{}$ \t\n'\"") : 0;
        if (inside < 4 || cmd[inside + 1] != '}' || memcmp(cmd + inside - 3, "json", 4)) {
            out[n++] = *cmd++;
            continue;
        }
        cmd += inside + 2;
        out[n++] = '\'';
        for (const char *p = path; *p; p++) {
            if (*p == '\'') {
                memcpy(out + n, "'\\'", 3);
                n += 3;
            }
            out[n++] = *p;
        }
        out[n++] = '\'';
    }
    out[n] = 0;
    return out;
}

/* Returns the name of a trial's file, next to the journal. It is absolute, as commands may change
   their folder. The caller frees it. */
static char *trial_path(int id)
{
    char here[4096] = "";
    size_t n;
    if (*run->path != '/' && !getcwd(here, sizeof here))
        cli_fail("cannot find the current folder: %s", strerror(errno));
    n = strlen(here) + strlen(run->path) + 32;
    char *path = malloc(n);
    if (!path) cli_fail("out of memory");
    snprintf(path, n, "%s%s%s.%d.json", here, *here ? "/" : "", run->path, id);
    return path;
}

static void start(job *j, const flash_trial *t)
{
    int out[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char id[16];
    j->id = t->id;
    j->fd = -1;
    j->path = trial_path(t->id);
    j->line = malloc(LINE);
    FILE *f = fopen(j->path, "wb");
    if (!f || !j->line) cli_fail("cannot write %s: %s", j->path, strerror(errno));
    space_write_trial(f, &run->sp, t);
    if (ferror(f) | fclose(f)) cli_fail("cannot write %s: %s", j->path, strerror(errno));
    char *shell = desc->cmd ? command_line(desc->cmd, j->path) : NULL;
    snprintf(id, sizeof id, "%d", t->id);
    if (pipe(out) || null < 0) cli_fail("cannot start a command: %s", strerror(errno));
    fcntl(out[0], F_SETFD, FD_CLOEXEC);
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fflush(NULL);
    j->pid = fork();
    if (!j->pid) {
        setpgid(0, 0);
        signal(SIGPIPE, SIG_DFL);
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        dup2(null, 0);
        dup2(out[1], 1);
        if (out[1] != 1) close(out[1]);
        setenv("FLASH_TRIAL", id, 1);
        if (desc->cmd) {
            execl("/bin/sh", "sh", "-c", shell, (char *)NULL);
            _exit(127);
        }
        char *path = j->path;
        memset(jobs, 0, sizeof jobs); /* this process must not end the other jobs */
        process_tie();
        int status = desc->body(desc->user, path);
        fflush(stdout);
        _exit(status);
    }
    if (j->pid < 0) {
        j->pid = 0;
        cli_fail("cannot start a command: %s", strerror(errno));
    }
    setpgid(j->pid, j->pid);
    free(shell);
    close(out[1]);
    close(null);
    j->fd = out[0];
    j->begun = cli_seconds();
}

static void ask_to_end(job *j, ending why)
{
    if (j->kill_at > 0) return;
    j->why_ended = why;
    j->kill_at = cli_seconds() + GRACE;
    kill(-j->pid, SIGTERM);
}

/* Takes the values in a line that the job printed. After a line "best ..." that leaves no hope, the
   job is asked to end. */
static void take_line(job *j)
{
    double y[FLASH_SEARCH_VALUES_MAX];
    char why[WHY] = "";
    j->line[j->n] = 0;
    if (j->why_ended) return;
    if (!strncmp(j->line, "best ", 5)) {
        if (space_values(&run->sp, j->line + 5, run->sp.n_objective, y, why) > 0
            && flash_search_hopeless(run->s, j->id, y)) {
            memcpy(j->y, y, sizeof y);
            ask_to_end(j, HOPELESS);
        }
        return;
    }
    int state = space_values(&run->sp, j->line, space_n_values(&run->sp), y, why);
    if (state) {
        j->state = state;
        memcpy(j->y, y, sizeof y);
        memcpy(j->why, why, sizeof why);
    } else if (*why) {
        memcpy(j->hint, why, sizeof why);
    }
}

/* Reads what the job has printed so far. */
static void listen(job *j)
{
    char part[4096];
    ssize_t got;
    while (j->fd >= 0 && (got = read(j->fd, part, sizeof part)) != 0) {
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return;
        for (ssize_t i = 0; i < got; i++)
            if (part[i] == '\n') {
                if (j->n < LINE - 1) /* a longer line is skipped */
                    take_line(j);
                j->n = 0;
            } else if (j->n < LINE - 1) {
                j->line[j->n++] = part[i];
            }
    }
    if (j->fd >= 0) close(j->fd);
    j->fd = -1;
}

/* Tells the search how a trial ended. */
static void tell(const outcome *o)
{
    flash_error err;
    flash_trial t;
    if (o->state == FLASH_TRIAL_DONE            ? flash_search_tell(run->s, o->id, o->y, &err)
            : o->state == FLASH_TRIAL_ABANDONED ? flash_search_stop(run->s, o->id, o->y, &err)
                                                : flash_search_drop(run->s, o->id, o->state, &err))
        fail_library(&err);
    flash_search_trial(run->s, o->id, &t);
    wipe();
    if (t.state == FLASH_TRIAL_FAILED) cli_note("trial %d failed: %s", t.id, o->why);
    if (!live) trials_say(run, &t);
    if (t.state != FLASH_TRIAL_FAILED)
        failed_first = 0;
    else if (failed_first && failed_first++ == FAILURES)
        cli_fail("the first %d commands failed; --pending and --ask of flash search print trials "
                 "to try it with",
                 FAILURES);
}

static int by_id(const void *a, const void *b)
{
    return ((const outcome *)a)->id - ((const outcome *)b)->id;
}

static void tell_batch(void)
{
    qsort(held, (size_t)n_held, sizeof *held, by_id);
    for (int i = 0; i < n_held; i++) tell(held + i);
    n_held = 0;
}

/* Makes an outcome of a job that ended, and frees its place. */
static void finish(job *j)
{
    outcome *o = held + n_held++;
    if (j->n && j->n < LINE - 1) take_line(j);
    if (j->why_ended == TIMEOUT)
        snprintf(j->why, sizeof j->why, "not ready after %g s", desc->timeout);
    else if (!j->why_ended && WIFSIGNALED(j->status))
        snprintf(j->why, sizeof j->why, "killed by signal %d", WTERMSIG(j->status));
    else if (!j->why_ended && WEXITSTATUS(j->status))
        snprintf(j->why, sizeof j->why, "exit status %d", WEXITSTATUS(j->status));
    else if (!j->state)
        snprintf(j->why, sizeof j->why, "printed no values%s%.100s", *j->hint ? "; " : "", j->hint);
    o->id = j->id;
    o->state = j->why_ended == HOPELESS ? FLASH_TRIAL_ABANDONED
        : j->state > 0 && !*j->why      ? FLASH_TRIAL_DONE
                                        : FLASH_TRIAL_FAILED;
    memcpy(o->y, j->y, sizeof o->y);
    memcpy(o->why, j->why, sizeof o->why);
    forget(j);
    running--;
    if (!desc->batch) tell_batch();
}

static void show_live(int ended, double from)
{
    flash_search_summary sum;
    flash_search_summarize(run->s, &sum);
    int done = sum.done + sum.failed + sum.abandoned, left = run->trials - done;
    fprintf(stderr, "\rtrial %d/%d: hypervolume %.6g, front %d", done, run->trials, sum.hypervolume,
            sum.front);
    if (ended && left > 0) {
        double seconds = (cli_seconds() - from) / ended * left;
        fprintf(stderr, ", %.0f:%02.0f left", floor(seconds / 60), floor(fmod(seconds, 60)));
    }
    fprintf(stderr, "     ");
    fflush(stderr);
}

/* Asks the search for one more trial, or for all that a batch still lacks. Returns 0 if there is
   none. */
static int ask_more(void)
{
    flash_trial t;
    flash_error err;
    int trials = space_count(run->s), from = trials;
    for (; trials < run->trials; trials++) {
        if (trials > from && (!desc->batch || trials % desc->batch == 0)) break;
        flash_status status = flash_search_ask(run->s, &t, &err);
        if (status == FLASH_E_RANGE && trials) {
            wipe();
            cli_note("%s", err.text);
            run->trials = trials; /* there are no more to try */
            break;
        }
        if (status) fail_library(&err);
    }
    return trials > from;
}

/* Finds the next pending trial after *last, or asks for more. Returns 0 if there is none now. */
static int next_trial(flash_trial *t, int *last)
{
    if (desc->batch && n_held + running == desc->batch) /* more than a batch may be pending */
        return 0;
    for (;;) {
        while (!flash_search_trial(run->s, *last + 1, t)) {
            ++*last;
            if (t->state == FLASH_TRIAL_PENDING) return 1;
        }
        if ((desc->batch && (running || n_held)) || !ask_more()) return 0;
    }
}

void trials_run(journal *j, const trials_desc *d)
{
    flash_search_summary sum;
    flash_trial t;
    int last = 0, ended = 0, shown = -1;
    double from = cli_seconds();
    run = j;
    desc = d;
    live = cli_is_terminal(stderr);
    if (d->cmd) {
        char *test = command_line(d->cmd, "");
        if (!strcmp(test, d->cmd))
            cli_usage("--cmd without {trial.json}, where the trial's file is named");
        free(test);
    }
    catch_signals();
    atexit(end_all);
    if (d->batch && space_count(run->s) % d->batch) /* the last run ended while asking for them */
        ask_more();
    while (!stop_signal) {
        struct pollfd fds[TRIALS_JOBS_MAX];
        int n = 0, soon = 0;
        while (running < d->parallel && !stop_signal && next_trial(&t, &last)) {
            job *k = jobs;
            while (k->pid) k++;
            start(k, &t);
            running++;
        }
        if (!running && n_held) {
            tell_batch();
            continue;
        }
        if (!running) break;
        if (live && shown != ended) {
            show_live(ended, from);
            shown = ended;
        }
        for (job *k = jobs; k < jobs + TRIALS_JOBS_MAX; k++)
            if (k->pid && k->fd >= 0) {
                fds[n].fd = k->fd;
                fds[n++].events = POLLIN;
            } else {
                soon |= k->pid != 0;
            }
        poll(fds, (nfds_t)n, soon ? 2 : 100);
        for (job *k = jobs; k < jobs + TRIALS_JOBS_MAX; k++) {
            if (!k->pid) continue;
            reap(k); /* before listening, so that all a job that ended wrote is read */
            listen(k);
            if (d->timeout > 0 && !k->reaped && cli_seconds() > k->begun + d->timeout)
                ask_to_end(k, TIMEOUT);
            if (k->kill_at > 0 && cli_seconds() > k->kill_at) kill(-k->pid, SIGKILL);
            if (stop_signal || !k->reaped || (k->kill_at > cli_seconds() && !gone(k))) continue;
            finish(k);
            ended++;
        }
    }
    wipe();
    if (!stop_signal) return;
    end_all();
    wipe();
    if (!d->keeps) tell_batch();
    flash_search_summarize(run->s, &sum);
    cli_note("stopped with %d of %d trials; the same command goes on", sum.trials - sum.pending,
             run->trials);
    exit(128 + stop_signal);
}
#else
void trials_run(journal *j, const trials_desc *d)
{
    (void)j;
    (void)d;
    cli_fail("this system has no processes as POSIX has them; use --ask and --tell of flash "
             "search");
}
#endif
