/* cmd_search.c - flash search: runs trials of a space, or hands them out one by one. */
#include "trials.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WHY = SPACE_CELL + 60 };

static journal run;

static void fail_library(const flash_error *err) { cli_fail("%s: %s", run.path, err->text); }
static void say(const flash_trial *t) { trials_say(&run, t); }

/* ---- one by one ---------------------------------------------------------------------- */

static void ask(int n)
{
    flash_trial t;
    flash_error err;
    int left = run.trials - space_count(run.s);
    if (left <= 0) cli_fail("all %d trials were asked for; --trials allows more", run.trials);
    for (int i = 0; i < n && i < left; i++) {
        if (flash_search_ask(run.s, &t, &err)) fail_library(&err);
        space_write_trial(stdout, &run.sp, &t);
    }
}

static void list_pending(void)
{
    flash_trial t;
    for (int id = 1; !flash_search_trial(run.s, id, &t); id++)
        if (t.state == FLASH_TRIAL_PENDING) space_write_trial(stdout, &run.sp, &t);
}

/* Returns the pending trial with the number that text, such as "7 1.2 3.4", begins with; *rest is
   what follows. Fails if there is none. */
static flash_trial told_trial(const char *option, const char *text, const char **rest)
{
    flash_trial t;
    const char *end = text;
    long id = cli_number(&end);
    if (id < 1 || (*end && !strchr(" \t=,", *end)))
        cli_usage("%s %s: want the number of a trial", option, text);
    if (id > FLASH_SEARCH_TRIALS_MAX || flash_search_trial(run.s, (int)id, &t))
        cli_fail("%s: there is no trial %ld", run.path, id);
    if (t.state != FLASH_TRIAL_PENDING) cli_fail("%s: trial %ld is not pending", run.path, id);
    *rest = end + strspn(end, " \t=,");
    return t;
}

static void told_values(const char *option, const char *text, int n, double *y)
{
    char why[WHY] = "";
    if (space_values(&run.sp, text, n, y, why) <= 0)
        cli_usage("%s: %s", option, *why ? why : "want the number of a trial, then values");
}

static void tell(const char *text)
{
    double y[FLASH_SEARCH_VALUES_MAX];
    const char *rest;
    flash_error err;
    flash_trial t = told_trial("--tell", text, &rest);
    told_values("--tell", rest, space_n_values(&run.sp), y);
    if (flash_search_tell(run.s, t.id, y, &err)) fail_library(&err);
    flash_search_trial(run.s, t.id, &t);
    say(&t);
}

static void tell_failure(const char *text)
{
    const char *rest;
    flash_error err;
    flash_trial t = told_trial("--fail", text, &rest);
    if (*rest) cli_usage("--fail %s: want the number of a trial", text);
    if (flash_search_drop(run.s, t.id, FLASH_TRIAL_FAILED, &err)) fail_library(&err);
    flash_search_trial(run.s, t.id, &t);
    say(&t);
}

static int report(const char *text)
{
    double y[FLASH_SEARCH_VALUES_MAX];
    const char *rest;
    flash_trial t = told_trial("--report", text, &rest);
    told_values("--report", rest, run.sp.n_objective, y);
    int stop = flash_search_hopeless(run.s, t.id, y);
    puts(stop ? "stop" : "go");
    return stop ? 3 : 0;
}

/* ---- tables from elsewhere -------------------------------------------------------------- */

enum { COLUMNS = FLASH_SEARCH_PARAMS_MAX + FLASH_SEARCH_VALUES_MAX + 3 };

/* Splits a line of CSV (RFC 4180, but each row is one line) in place into cells, [cap]. Returns
   their number; -1 if there are too many, or if a quote does not end. */
static int cells(char *p, char **cell, int cap)
{
    for (int n = 0; n < cap;) {
        char *to = p;
        cell[n++] = p;
        if (*p == '"') {
            for (p++; *p && (*p != '"' || p[1] == '"'); p++) {
                p += *p == '"';
                *to++ = *p;
            }
            if (*p++ != '"' || (*p && *p != ',')) return -1;
        } else {
            p += strcspn(p, ",");
            to = p;
        }
        int more = *p == ',';
        *to = 0;
        p++;
        if (!more) return n;
    }
    return -1;
}

/* Returns what a column of that name has: parameter i as i, value k as n_param + k; -1 for another
   column of flash front --csv; -2 if it is unknown. */
static int column_of(const space *sp, const char *name)
{
    static const char *const ours[] = {"id", "state", "front"};
    for (int i = 0; i < sp->n_param; i++)
        if (!strcmp(sp->param[i].name, name)) return i;
    for (int k = 0; k < space_n_values(sp); k++)
        if (!strcmp(sp->value[k], name)) return sp->n_param + k;
    for (int i = 0; i < 3; i++)
        if (!strcmp(ours[i], name)) return -1;
    return -2;
}

typedef struct table {
    const char *path;
    int n, of[COLUMNS], state; /* columns; column_of each; which is the state, -1: none */
} table;

static void read_header(table *t, char *line)
{
    const space *sp = &run.sp;
    char *cell[COLUMNS];
    int seen[COLUMNS] = {0};
    t->state = -1;
    t->n = cells(line, cell, COLUMNS);
    if (t->n < 0) cli_fail("%s, line 1: too many columns, or a quote without end", t->path);
    for (int c = 0; c < t->n; c++) {
        int is = t->of[c] = column_of(sp, cell[c]);
        if (is == -2)
            cli_fail("%s, line 1: %.100s is no parameter and no objective", t->path, cell[c]);
        if (is >= 0 && seen[is]++) cli_fail("%s, line 1: %s is there twice", t->path, cell[c]);
        if (!strcmp(cell[c], "state")) t->state = c;
    }
    for (int i = 0; i < sp->n_param + space_n_values(sp); i++)
        if (!seen[i])
            cli_fail("%s, line 1: no column %s", t->path,
                     i < sp->n_param ? sp->param[i].name : sp->value[i - sp->n_param]);
}

/* Reads a row, the line of that number, into x and y. Returns 0 if its trial has no values. */
static int read_row(const table *t, char *line, int number, double *x, double *y)
{
    const space *sp = &run.sp;
    char *cell[COLUMNS], *end;
    int n = cells(line, cell, COLUMNS);
    if (n != t->n)
        cli_fail("%s, line %d: %d columns, the first line has %d", t->path, number, n, t->n);
    if (t->state >= 0 && strcmp(cell[t->state], "done")) return 0;
    for (int i = 0; i < sp->n_param; i++)
        for (int c = 0; c < n; c++) {
            if (t->of[c] != i) continue;
            if (!space_is_active(sp, x, i)) {
                const flash_param *p = &sp->param[i];
                x[i] = p->kind == FLASH_PARAM_CATEGORY ? 0 : p->value ? p->value[0] : p->lo;
            } else if (!space_parse(sp, i, cell[c], &x[i])) {
                cli_fail("%s, line %d: %s: \"%.60s\" is not in the space", t->path, number,
                         sp->param[i].name, cell[c]);
            }
        }
    for (int c = 0; c < n; c++)
        if (t->of[c] >= sp->n_param) {
            double v = strtod(cell[c], &end);
            if (end == cell[c] || *end || !(fabs(v) < 1e300))
                cli_fail("%s, line %d: %s: \"%.60s\" is no number", t->path, number,
                         sp->value[t->of[c] - sp->n_param], cell[c]);
            y[t->of[c] - sp->n_param] = v;
        }
    return 1;
}

/* Adds the trials of a table. First adds all of them to another search, s, so that nothing is added
   to the journal if one of them is wrong. */
static void import(const char *path)
{
    flash_search_desc d = {0};
    flash_search *s;
    flash_error err;
    table t = {path, 0, {0}, -1};
    size_t bytes;
    char *file = cli_read(path, &bytes), *line, *next;
    double x[FLASH_SEARCH_PARAMS_MAX], y[FLASH_SEARCH_VALUES_MAX];
    int added = 0, rows = 1, left = run.trials - space_count(run.s);
    if (memchr(file, 0, bytes)) cli_fail("%s is no table of text", path);
    for (const char *p = file; (p = strchr(p, '\n')) != NULL; p++) rows++;
    char *copy = malloc(bytes + 1);
    if (!copy) cli_fail("out of memory");
    memcpy(copy, file, bytes + 1);
    d.param = run.sp.param;
    d.n_param = run.sp.n_param;
    d.n_objective = run.sp.n_objective;
    d.n_constraint = run.sp.n_constraint;
    space_rules(&run, &d);
    d.method = FLASH_SEARCH_RANDOM;
    d.max_trials = rows < FLASH_SEARCH_TRIALS_MAX ? rows : FLASH_SEARCH_TRIALS_MAX;
    if (flash_search_create(&s, &d, &err)) fail_library(&err);
    for (int add = 0; add < 2; add++) {
        int number = 0;
        for (line = add ? file : copy; line; line = next) {
            next = strchr(line, '\n');
            if (next) *next++ = 0;
            line[strcspn(line, "\r")] = 0;
            if (!number++)
                read_header(&t, line);
            else if (*line && read_row(&t, line, number, x, y)) {
                if (flash_search_add(add ? run.s : s, x, y, &err))
                    cli_fail("%s, line %d: %s", path, number, err.text);
                added += !add;
            }
        }
        if (!add && added > left)
            cli_fail("%s: %d rows, but only %d of %d trials are left; --trials allows more", path,
                     added, left, run.trials);
    }
    flash_search_free(s);
    free(copy);
    free(file);
    printf("%d trials added\n", added);
}

/* ---- the command line -------------------------------------------------------------------- */

static const char notes[] =
    "Looks for the settings that are best in several ways at once (all values are minimised) in\n"
    "few trials. SPACE is a file such as\n"
    "  {\"parameters\": [\n"
    "    {\"name\": \"layers\", \"integer\": [10, 16], \"step\": 2},\n"
    "    {\"name\": \"d\", \"ordinal\": [512, 768, 1024]},\n"
    "    {\"name\": \"p0\", \"choice\": [\"full\", \"window\", \"skip\"]},\n"
    "    {\"name\": \"p1\", \"choice\": [\"full\", \"window\", \"skip\"],\n"
    "     \"active_if\": \"layers\", \"active_from\": 11},\n"
    "    {\"name\": \"dropout\", \"real\": [0, 0.3]}, {\"name\": \"rate\", \"log\": [1e-5, 1]}],\n"
    "   \"objectives\": [\"loss\", \"latency\"]}\n"
    "A parameter with active_if counts only where that one is at least active_from. SPACE may\n"
    "also have\n"
    "  \"constraints\": [\"memory\"]         more values, good where <= 0\n"
    "  \"reference\": [2.5, 5]             the worst values of interest\n"
    "  \"rules\": [{\"run\": 2, \"of\": [\"window\", \"skip\"], \"in\": [\"p*\"]},\n"
    "               at most 2 of them in a row\n"
    "            {\"sum\": {\"layers\": 1, \"d\": 0.01}, \"at_most\": 20}]\n"
    "  \"noise\": [0.02, 0]              standard deviations if noisy, 0: not known\n"
    "  \"trials\": 200, \"seed\": 1, \"noisy\": false, \"initial\": 0 (chosen by itself),\n"
    "  \"method\": \"ehvi\", \"nsga2\" or \"random\", \"population\": 100 (of nsga2)\n"
    "\n"
    "The journal has all that happened: the same command goes on where it ended, whatever ended\n"
    "it. CMD gets a file {\"id\":7,\"x\":{\"layers\":12,...}} without parameters that do not\n"
    "count, and $FLASH_TRIAL, its id. Its last line with numbers is the result: 1.2 3.4 or\n"
    "[1.2,3.4] or {\"loss\":1.2,\"latency\":3.4}, objectives before constraints. Where a line\n"
    "\"best 1.1 3\", which says what the objectives may still become, shows that the trial cannot\n"
    "matter any more, CMD is ended.\n"
    "  flash search space.json --journal run.jsonl --cmd './evaluate {trial.json}' -j 4\n"
    "  flash front run.jsonl --html report.html\n"
    "\n"
    "With a scheduler, each job asks for a trial and tells what came of it. job.sh:\n"
    "  #!/bin/sh\n"
    "  s='flash search space.json --journal run.jsonl'\n"
    "  trial=$($s --ask 1) || exit\n"
    "  id=${trial#*:} id=${id%%,*}\n"
    "  $s --tell \"$id $(echo \"$trial\" | ./evaluate)\" || $s --fail $id\n"
    "GNU parallel:  seq 200 | parallel -j 4 -n0 ./job.sh\n"
    "Slurm:         sbatch --array=1-200%8 job.sh\n"
    "$s --report \"$id 1.1 3\" from within a job prints go, or stop, with exit status 3.\n"
    "--pending lists what jobs that died have left: --fail them.\n";

int cmd_search(int argc, char **argv)
{
    static space sp;
    const char *path = NULL, *cmd = NULL, *told = NULL, *failed = NULL, *reported = NULL,
               *table_path = NULL, *space_path;
    int trials = 0, asked = 0, pending = 0, status = 0;
    float seconds = 0;
    trials_desc d = {0};
    uint64_t seed = UINT64_MAX;
    d.parallel = 1;
    const cli_option options[] = {
        {"--journal", "FILE", CLI_TEXT, &path, 0, 0, "where all that happens is kept"},
        {"--cmd", "CMD", CLI_TEXT, &cmd, 0, 0, "runs a trial; {trial.json} is its file"},
        {"-j", "N", CLI_INT, &d.parallel, 1, TRIALS_JOBS_MAX, "commands at once (1)"},
        {"--batch", "N", CLI_INT, &d.batch, 0, TRIALS_JOBS_MAX,
         "trials asked for and told together: the same ones for any -j (0: none)"},
        {"--timeout", "SECONDS", CLI_FLOAT, &seconds, 0, 1e9, "for a command (0: any time)"},
        {"--trials", "N", CLI_INT, &trials, 1, FLASH_SEARCH_TRIALS_MAX,
         "in all (those of SPACE, or 200)"},
        {"--seed", "N", CLI_SEED, &seed, 0, 18446744073709549568.0,
         "of a new journal (that of SPACE, or 1)"},
        {"--ask", "K", CLI_INT, &asked, 1, FLASH_SEARCH_TRIALS_MAX,
         "print K trials to be run elsewhere, a line each"},
        {"--tell", "'ID VALUES'", CLI_TEXT, &told, 0, 0, "what came of one"},
        {"--fail", "ID", CLI_TEXT, &failed, 0, 0, "nothing came of one"},
        {"--report", "'ID BEST'", CLI_TEXT, &reported, 0, 0,
         "go, or stop and exit status 3: its best cannot matter"},
        {"--pending", NULL, CLI_FLAG, &pending, 0, 0, "print the trials that were only asked for"},
        {"--import", "CSV", CLI_TEXT, &table_path, 0, 0,
         "add trials: columns of parameters and values, as flash front --csv has them"},
        {0}};
    cli_parse_all(argc, argv, options, "SPACE", notes, &space_path);
    int what = (cmd != NULL) + (asked > 0) + (told != NULL) + (failed != NULL) + (reported != NULL)
        + pending + (table_path != NULL);
    if (!path) cli_usage("which journal? --journal FILE");
    if (what != 1)
        cli_usage("%s of --cmd, --ask, --tell, --fail, --report, --pending, --import",
                  what ? "only one" : "what to do? One");
    space_read(space_path, &sp);
    journal_open(&run, path, &sp, trials, seed, !cmd);
    if (cmd) {
        d.cmd = cmd;
        d.timeout = seconds;
        trials_run(&run, &d);
        space_print_front(&run.sp, run.s);
    } else if (asked) {
        ask(asked);
    } else if (told) {
        tell(told);
    } else if (failed) {
        tell_failure(failed);
    } else if (reported) {
        status = report(reported);
    } else if (pending) {
        list_pending();
    } else {
        import(table_path);
    }
    journal_close(&run);
    return status;
}
