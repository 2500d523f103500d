/* cmd_design.c - flash design: makes a family of models for a device from a backbone. */
#define _DEFAULT_SOURCE /* flock */
#define _POSIX_C_SOURCE 200809L /* nanosleep */
#include "design.h"
#include "process.h"
#include "trials.h"
#include "shapes.h"
#include "stats.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#if !defined(_WIN32) && !defined(__wasm__)
#define DESIGN_RUNS
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>
#endif

#ifdef DESIGN_RUNS
enum { ARGS_MAX = 192, LOCK_SECONDS = 60, ROUNDS = 7, HELD_BYTES = 1 << 18 };
static const double WORSE = 1.5; /* a loss so far above the backbone's is no use [nat a token] */

static design run;
static const char *folder;

static void *need(void *p)
{
    if (!p) cli_fail("out of memory");
    return p;
}

/* A text that name_of made. These are kept until the program ends, as there are few. */
typedef struct kept {
    struct kept *next;
    char name[];
} kept;
static kept *names;

static char *name_of(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t n = (size_t)vsnprintf(NULL, 0, format, args) + 1;
    va_end(args);
    kept *k = need(malloc(sizeof *k + n));
    k->next = names;
    names = k;
    va_start(args, format);
    vsnprintf(k->name, n, format, args);
    va_end(args);
    return k->name;
}
static char *in_run(const char *file) { return name_of("%s/%s", folder, file); }

static int is_there(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

static void make_folder(const char *path)
{
    struct stat st;
    if (mkdir(path, 0777) && errno != EEXIST)
        cli_fail("cannot make the folder %s: %s", path, strerror(errno));
    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        cli_fail("%s is there and no folder: choose another one", path);
}

/* ---- stages: other commands, each in a process ------------------------------------------- */

typedef struct args {
    const char *at[ARGS_MAX];
    int n;
} args;

/* Appends the words of text, which blanks separate, then each further argument up to NULL. */
static void take(args *a, const char *text, ...)
{
    va_list rest;
    const char *word;
    char *copy = name_of("%s", text);
    for (char *w = strtok(copy, " "); w && a->n < ARGS_MAX - 1; w = strtok(NULL, " "))
        a->at[a->n++] = w;
    va_start(rest, text);
    while ((word = va_arg(rest, const char *)) != NULL && a->n < ARGS_MAX - 1) a->at[a->n++] = word;
    va_end(rest);
}

static void take_all(args *a, const char *option, const cli_texts *files)
{
    a->at[a->n++] = option;
    for (int i = 0; i < files->n && a->n < ARGS_MAX - 1; i++) a->at[a->n++] = files->at[i];
}

static void show(FILE *f, const args *a)
{
    fputs("$ flash", f);
    for (int i = 0; i < a->n; i++)
        fprintf(f, strpbrk(a->at[i], " '\"$\\*") ? " '%s'" : " %s", a->at[i]);
    fputc('\n', f);
}

static int command(const args *a)
{
#define CLI_X(name, about) if (!strcmp(a->at[0], #name)) return cmd_##name(a->n, (char **)a->at);
    CLI_COMMANDS(CLI_X)
#undef CLI_X
    return 2;
}

static int run_command(void *user) { return command(user); }

/* Runs a command in a process, unless the file `made`, which it writes, is there. Ends the program
   if the command fails. */
static void stage(const char *made, args *a)
{
    if (is_there(made)) return;
    show(stdout, a);
    if (process_run(run_command, a))
        cli_fail("flash %s did not end well; the same command goes on from there", a->at[0]);
}

/* ---- what is settled first --------------------------------------------------------------- */

/* Locks the folder for this program alone. Waits until another one, and what it left running, has
   ended; fails after LOCK_SECONDS. */
static void lock(void)
{
    char *path = in_run("lock");
    int f = open(path, O_RDWR | O_CREAT, 0666);
    double from = cli_seconds();
    if (f < 0) cli_fail("cannot write %s: %s", path, strerror(errno));
    while (flock(f, LOCK_EX | LOCK_NB)) {
        struct timespec pause = {0, 50000000};
        if (cli_seconds() > from + LOCK_SECONDS)
            cli_fail("another flash design works in %s", folder);
        nanosleep(&pause, NULL);
    }
}

static void write_whole(const char *path, const char *text, size_t bytes)
{
    FILE *f = cli_open(path);
    fwrite(text, 1, bytes, f);
    cli_close(path);
}

/* Holds out the last twentieth of the texts, at most HELD_BYTES, if no others are held out. Both
   parts are then files in the folder. */
static void split_texts(plan *p)
{
    char *learn = in_run("learn.txt"), *held = in_run("held-out.txt");
    if (p->held_out.n) return;
    if (!is_there(held) || !is_there(learn)) {
        size_t bytes, part, end = strlen(CLI_TEXT_END), at;
        char *text = cli_read_texts(&p->data, &bytes);
        part = bytes / 20 < HELD_BYTES ? bytes / 20 : HELD_BYTES;
        at = bytes - part;
        for (size_t i = at; i + end + part / 2 < bytes; i++) /* cuts between two texts if it can */
            if (!memcmp(text + i, CLI_TEXT_END, end)) {
                at = i + end;
                break;
            }
        if (part < 2) cli_fail("%s: too short: give more text", p->data.at[0]);
        write_whole(learn, text, at);
        write_whole(held, text + at, bytes - at);
        free(text);
    }
    p->data.n = p->held_out.n = 1;
    p->data.at[0] = learn;
    p->held_out.at[0] = held;
}

typedef struct page {
    char *at; /* [n] and a NUL: what was printed so far */
    size_t n;
} page;

static void print(page *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    t->at = need(realloc(t->at, t->n + (size_t)n + 1));
    va_start(args, format);
    vsnprintf(t->at + t->n, (size_t)n + 1, format, args);
    va_end(args);
    t->n += (size_t)n;
}

/* Returns the text of the space of MobileLLM-Flash (arxiv 2603.15954, table 3) or, for paper 0, of
   the same space scaled to the backbone a, where layer 0 keeps its attention, as deci needs. The
   caller frees it. */
static char *space_text(const flash_arch *a, int paper, int trials, uint64_t seed)
{
    page t = {NULL, 0};
    int layers = paper ? 16 : a->n_layer, from = paper ? 10 : (a->n_layer + 1) / 2, window = 256;
    int d[2] = {1024, 2048}, ffn[2] = {2048, 8192}, step[2] = {128, 256}, first = !paper;
    if (!paper) {
        int most = 0;
        for (int l = 0; l < a->n_layer; l++)
            most = a->layer[l].d_ffn > most ? a->layer[l].d_ffn : most;
        step[0] = step[1] = 32;
        d[1] = a->d_model / 32 * 32;
        d[0] = (a->d_model / 2 + 31) / 32 * 32;
        ffn[1] = most / 32 * 32;
        ffn[0] = (most / 4 + 31) / 32 * 32;
        while ((d[1] - d[0]) / step[0] > 16) step[0] *= 2;
        while ((ffn[1] - ffn[0]) / step[1] > 32) step[1] *= 2;
        d[0] = d[1] - (d[1] - d[0]) / step[0] * step[0];
        ffn[0] = ffn[1] - (ffn[1] - ffn[0]) / step[1] * step[1];
        window = a->n_ctx / 8 > 16 ? a->n_ctx / 8 < 256 ? a->n_ctx / 8 : 256 : 16;
        if (a->n_layer < 2 || d[0] < 32 || ffn[0] < 32)
            cli_fail("--space tiny: a backbone of 2 layers, d_model 64 and d_ffn 128 at least; a "
                     "file can say any space");
    }
    if (layers > FLASH_SEARCH_PARAMS_MAX - 4 + first)
        cli_fail("--space tiny: %d layers are too many for it; a file can say what some do",
                 layers);
    print(&t, "{\"parameters\": [\n  {\"name\": \"layers\", \"integer\": [%d, %d]},\n", from,
          layers);
    print(&t, "  {\"name\": \"d_model\", \"integer\": [%d, %d], \"step\": %d},\n", d[0], d[1],
          step[0]);
    print(&t, "  {\"name\": \"d_ffn\", \"integer\": [%d, %d], \"step\": %d}", ffn[0], ffn[1],
          step[1]);
    for (int l = first; l < layers; l++) {
        print(&t, ",\n  {\"name\": \"p%d\", \"choice\": [\"full\", \"window:%d\", \"skip\"]", l,
              window);
        if (l >= from) print(&t, ", \"active_if\": \"layers\", \"active_from\": %d", l + 1);
        print(&t, "}");
    }
    print(&t,
          "],\n \"objectives\": [\"loss\", \"ttft\"],\n \"rules\": [{\"run\": 2, \"of\": "
          "[\"window:%d\", \"skip\"], \"in\": [\"p*\"]}],\n \"trials\": %d, \"seed\": %llu}\n",
          window, trials, (unsigned long long)seed);
    return t.at;
}

/* Prints the shape of a as flash make and flash measure take it. */
static void print_shape(page *t, const flash_arch *a)
{
    int heads = 1, kv = 1;
    for (int l = a->n_layer; l-- > 0;)
        if (a->layer[l].n_head) {
            heads = a->layer[l].n_head;
            kv = a->layer[l].n_kv_head;
        }
    print(t, "d=%d,layers=%d,heads=%d,kv=%d,head=%d,ffn=%d,vocab=%d,ctx=%d,tied=%d", a->d_model,
          a->n_layer, heads, kv, a->d_head, (int)a->layer[0].d_ffn, a->n_vocab, a->n_ctx, a->tied);
}

static void print_attention(page *t, const flash_arch *a)
{
    for (int l = 0; l < a->n_layer; l++) {
        const flash_layer *y = &a->layer[l];
        if (y->attention == FLASH_ATTENTION_WINDOW)
            print(t, "%swindow:%d", l ? "," : "", (int)y->window);
        else
            print(t, "%s%s", l ? "," : "", y->attention == FLASH_ATTENTION_SKIP ? "skip" : "full");
    }
}

/* Writes shapes to measure: the backbone, the smallest of the space, and n random ones of it. */
static void write_shapes(const plan *p, const char *path, int n)
{
    flash_search_desc d;
    flash_search *s;
    flash_trial trial;
    flash_error err;
    flash_arch a;
    page t = {NULL, 0};
    journal j;
    memset(&d, 0, sizeof d);
    memset(&j, 0, sizeof j);
    j.sp = p->sp;
    d.param = p->sp.param;
    d.n_param = p->sp.n_param;
    d.n_objective = 2;
    space_rules(&j, &d);
    d.method = FLASH_SEARCH_RANDOM;
    d.seed = p->seed;
    d.max_trials = n;
    if (flash_search_create(&s, &d, &err)) cli_fail("%s: %s", p->space, err.text);
    for (int i = 0; i < n + 2; i++) {
        candidate c = {0, 0, 0, 0, ""};
        if (i == 1) { /* every size at its least, all attention kept */
            for (int k = 0; k < p->sp.n_param; k++)
                trial.x[k] = p->role[k] >= 0 ? 0
                    : p->sp.param[k].value   ? p->sp.param[k].value[0]
                                             : p->sp.param[k].lo;
            plan_candidate(p, trial.x, &c);
            *c.attn = 0;
        } else if (i > 1) {
            if (flash_search_ask(s, &trial, &err)) break; /* there are no more */
            plan_candidate(p, trial.x, &c);
        }
        candidate_arch(p, &c, &a);
        print_shape(&t, &a);
        print(&t, " ");
        print_attention(&t, &a);
        print(&t, " flash\n");
    }
    flash_search_free(s);
    write_whole(path, t.at, t.n);
    free(t.at);
}

/* Returns 1 if the latency model is of this machine: flash fit names the machine in its first line.
   run.elsewhere becomes the name of another machine, or "". */
static int is_here(const char *path)
{
    profile_machine m;
    char begin[256];
    size_t bytes;
    char *text = cli_read(path, &bytes);
    profile_here(&m, FLASH_ISA_AUTO);
    snprintf(begin, sizeof begin, "# %s, %s, %d processors, ", m.name, m.isa, m.processors);
    int same = !strncmp(text, begin, strlen(begin));
    if (!same) text[strcspn(text, "\n")] = 0;
    snprintf(run.elsewhere, sizeof run.elsewhere, "%.200s",
             same                          ? ""
                 : !strncmp(text, "# ", 2) ? cli_plain(text + 2)
                                           : "it does not say which");
    free(text);
    return same;
}

/* ---- the family --------------------------------------------------------------------------- */

static double known_ttft(void *user, const double *x)
{
    flash_interval ttft;
    candidate c;
    plan_candidate(user, x, &c);
    return candidate_times(user, &c, &ttft, NULL) ? ttft.mean : 1e9;
}

/* Returns the trials that are done and that no other one equals or beats in both loss and time,
   sorted by time, [*n]. deci 1: only trials whose models deci can describe. The caller frees
   them. */
static flash_trial *choices(int deci, int *n)
{
    flash_trial t, *list = NULL;
    candidate c;
    *n = 0;
    for (int id = 1; !flash_search_trial(run.j.s, id, &t); id++) {
        int i, kept = 0, worse = 0;
        if (t.state != FLASH_TRIAL_DONE) continue;
        plan_candidate(&run.p, t.x, &c);
        if (deci && !candidate_is_deci(&run.p, &c)) continue;
        for (i = 0; i < *n && !worse; i++) worse = list[i].y[0] <= t.y[0] && list[i].y[1] <= t.y[1];
        if (worse) continue;
        for (i = 0; i < *n; i++)
            if (!(t.y[0] <= list[i].y[0] && t.y[1] <= list[i].y[1])) list[kept++] = list[i];
        list = need(realloc(list, ((size_t)kept + 1) * sizeof *list));
        for (i = kept; i > 0 && list[i - 1].y[1] > t.y[1]; i--) list[i] = list[i - 1];
        list[i] = t;
        *n = kept + 1;
    }
    return list;
}

/* Returns the index of the last trial, by time, that takes at most so long; 0 if none does. */
static int within(const flash_trial *list, int n, double seconds)
{
    int i = 0;
    while (i + 1 < n && list[i + 1].y[1] <= seconds) i++;
    return i;
}

/* Returns the index of the trial that is farthest below the line between the first and the last,
   with loss and time as shares of their ranges. */
static int knee(const flash_trial *list, int n)
{
    double most = -1, x = list[n - 1].y[1] - list[0].y[1], y = list[0].y[0] - list[n - 1].y[0];
    int best = 0;
    for (int i = 0; i < n; i++) {
        double far = 1 - (x > 0 ? (list[i].y[1] - list[0].y[1]) / x : 0)
            - (y > 0 ? (list[i].y[0] - list[n - 1].y[0]) / y : 0);
        if (far > most) {
            most = far;
            best = i;
        }
    }
    return best;
}

static void add_member(const flash_trial *t)
{
    member *m = &run.member[run.n];
    for (int i = 0; i < run.n; i++)
        if (run.member[i].trial == t->id) return;
    if (run.n == PICK_MAX) cli_usage("--pick: more than %d models", PICK_MAX);
    memset(m, 0, sizeof *m);
    m->trial = t->id;
    m->early = t->y[0];
    plan_candidate(&run.p, t->x, &m->c);
    snprintf(m->name, sizeof m->name, "trial-%d", t->id);
    run.n++;
}

/* Adds the models of the list of --pick. "3": so many, evenly over the logarithm of time; "0.5s",
   "20ms": the best within that time; "knee": see knee. */
static void choose_members(const char *pick, int deci)
{
    int n;
    flash_trial *list = choices(deci, &n);
    if (!n) cli_fail("no trial is done%s", deci ? " whose model deci can say" : "");
    for (const char *p = pick; *p;) {
        char *end;
        double v = strtod(p, &end);
        size_t word = strcspn(p, ",");
        if (!strncmp(p, "knee", word) && word == 4) {
            add_member(list + knee(list, n));
        } else if (end == p || !(v > 0 && v < 1e9)) {
            cli_usage("--pick %s: want 3, or times such as 0.5s,20ms, or knee", pick);
        } else if (end == p + word) {
            double lo = list[0].y[1], hi = list[n - 1].y[1];
            for (int i = 0; i < v && i < PICK_MAX; i++)
                add_member(list + within(list, n, v < 2 ? hi : lo * pow(hi / lo, (i + .5) / v)));
            for (int i = 0; i < n && run.n < v; i++) /* gaps have left too few */
                add_member(list + i);
        } else {
            double unit = !strncmp(end, "ms", 2) && end + 2 == p + word ? 1e-3
                : *end == 's' && end + 1 == p + word                    ? 1
                                                                        : 0;
            if (!(unit > 0))
                cli_usage("--pick %s: want 3, or times such as 0.5s,20ms, or knee", pick);
            int at = within(list, n, v * unit);
            if (list[at].y[1] > v * unit)
                cli_note("--pick %.*s: no model is as quick; the quickest is taken", (int)word, p);
            add_member(list + at);
        }
        p += word + (p[word] == ',');
    }
    free(list);
}

/* Adds for each member the model that one would cut without a search: fewer layers, channels and
   feed-forward units by the same share, with all attention, as near in time as such sizes come. */
static void add_baselines(void)
{
    const flash_arch *a = flash_model_arch(run.p.m);
    int members = run.n, most = 0;
    for (int l = 0; l < a->n_layer; l++) most = a->layer[l].d_ffn > most ? a->layer[l].d_ffn : most;
    for (int i = 0; i < members; i++) {
        candidate c = {0, 0, 0, 0, ""}, best = c;
        double off = INFINITY;
        flash_interval t;
        for (int percent = 100; percent >= 20; percent--) {
            c.layers = (a->n_layer * percent + 50) / 100;
            c.d_model = (a->d_model * percent / 100 + 16) / 32 * 32;
            c.d_ffn = (most * percent / 100 + 16) / 32 * 32;
            if (!c.layers || !c.d_model || !c.d_ffn || c.d_model > a->d_model || c.d_ffn > most
                || !candidate_times(&run.p, &c, &t, NULL))
                continue;
            if (fabs(log(t.mean / run.member[i].ttft.mean)) < off) {
                off = fabs(log(t.mean / run.member[i].ttft.mean));
                best = c;
            }
        }
        char name[sizeof run.member->name];
        snprintf(name, sizeof name, "uniform-%d-%d-%d", best.layers, best.d_model, best.d_ffn);
        int at = members;
        while (at < run.n && strcmp(run.member[at].name, name)) at++;
        if (at == run.n && run.n < MEMBERS_MAX) {
            memset(&run.member[at], 0, sizeof *run.member);
            run.member[at].c = best;
            memcpy(run.member[at].name, name, sizeof name);
            candidate_times(&run.p, &best, &run.member[at].ttft, &run.member[at].decode);
            run.n++;
        }
        run.member[i].rival = at;
    }
}

static char *model_path(const member *m) { return name_of("%s/family/%s.gguf", folder, m->name); }

/* Makes the model of member i: cuts the backbone, heals it for final_steps steps, and writes it in
   its type. What this prints is in NAME.log. Runs in a process of its own; returns 0 if all went
   well. */
static int make_member(void *user, int i)
{
    const member *m = &run.member[i];
    char *model = model_path(m), *cut = name_of("%s/family/%s.cut", folder, m->name),
         *log = name_of("%s/family/%s.log", folder, m->name);
    static char options[PLAN_ATTN + 128];
    args a = {{0}, 0};
    (void)user;
    if (is_there(model)) return 0;
    if (!freopen(log, "ab", stdout)) cli_fail("cannot write %s: %s", log, strerror(errno));
    if (!is_there(cut)) {
        take(&a, "prune", run.p.backbone, cut, "--calib", run.p.calibration, "--type", "F32",
             "--block", "1", NULL);
        take(&a, candidate_options(&m->c, options), NULL);
        show(stdout, &a);
        if (command(&a)) return 1;
    }
    a.n = 0;
    take(&a, "train", cut, "--teacher", run.p.backbone, "-o", model, NULL);
    take_all(&a, "--data", &run.p.data);
    take_all(&a, "--held-out", &run.p.held_out);
    take(&a,
         name_of("--steps %d --batch %d --ctx %d --lr %.9g --seed %llu --type %s",
                 run.p.final_steps, run.p.batch, run.p.ctx, run.p.lr,
                 (unsigned long long)run.p.seed, flash_type_name(run.p.type)),
         NULL);
    show(stdout, &a);
    if (command(&a)) return 1;
    return remove(cut);
}

/* Times all models, [run.n], in turns, so that what disturbs the machine for a moment does not hit
   one model alone. */
static void time_members(flash_model *const *model)
{
    double(*took)[2][ROUNDS] = need(malloc((size_t)run.n * sizeof *took));
    int32_t *ids = need(malloc((size_t)run.p.prompt * sizeof *ids)), one = 0;
    uint64_t state = 1;
    for (int i = 0; i < run.p.prompt; i++)
        ids[i] = (int32_t)(cli_random(&state) % (uint64_t)flash_model_arch(run.p.m)->n_vocab);
    cli_progress("time", 0, ROUNDS + 1);
    for (int round = -1; round < ROUNDS; round++) { /* round -1 warms up */
        for (int i = 0; i < run.n; i++) {
            enum { WRITTEN = 16 };
            flash_session_desc d;
            memset(&d, 0, sizeof d);
            d.n_ctx = run.p.prompt + WRITTEN;
            d.chunk = run.p.chunk;
            d.threads = run.p.threads;
            d.kv = run.p.kv;
            flash_session *s = cli_session(model[i], &d);
            double from = cli_seconds(), read;
            flash_session_feed(s, ids, (size_t)run.p.prompt);
            flash_status status = flash_session_step(s, NULL);
            read = cli_seconds();
            for (int k = 0; k < WRITTEN && !status; k++) {
                flash_session_feed(s, &one, 1);
                status = flash_session_step(s, NULL);
            }
            if (status)
                cli_fail("cannot run %s: %s", run.member[i].name, flash_status_text(status));
            if (round >= 0) {
                took[i][0][round] = read - from;
                took[i][1][round] = (cli_seconds() - read) / WRITTEN;
            }
            flash_session_free(s);
        }
        cli_progress("time", round + 2, ROUNDS + 1);
        process_check_stop();
    }
    for (int i = 0; i < run.n; i++)
        for (int k = 0; k < 2; k++) {
            run.member[i].median[k] = stats_median(took[i][k], ROUNDS); /* which sorts them */
            run.member[i].least[k] = took[i][k][0];
        }
    free(took);
    free(ids);
}

static void score_members(int threads)
{
    flash_model *model[MEMBERS_MAX];
    double(*each)[PLAN_TESTS_MAX] = need(malloc(sizeof *each * (MEMBERS_MAX + 1)));
    for (int i = 0; i < run.n; i++) {
        flash_model_desc md = {0};
        md.source.path = model_path(&run.member[i]);
        model[i] = cli_load(&md);
        run.member[i].bytes = flash_gguf_size(flash_model_gguf(model[i]));
        run.member[i].params = flash_arch_params(flash_model_arch(model[i]));
    }
    if (!*run.elsewhere) time_members(model);
    cli_progress("score", 0, run.n + 1);
    run.backbone_loss = model_score(&run.p, run.p.m, threads, each[run.n]);
    for (int i = 0; i < run.n; i++) {
        run.member[i].loss = model_score(&run.p, model[i], threads, each[i]);
        stats_mean(each[i], NULL, run.p.tests, &run.member[i].error);
        cli_progress("score", i + 1, run.n + 1);
    }
    cli_progress("score", 1, 1);
    for (int i = 0; i < run.n; i++) {
        member *m = &run.member[i];
        if (m->rival) m->gain = stats_mean(each[m->rival], each[i], run.p.tests, &m->gain_error);
        flash_model_free(model[i]);
    }
    free(each);
}

/* ---- what is said --------------------------------------------------------------------------- */

static void say_family(void)
{
    static char options[PLAN_ATTN + 128];
    char size[24];
    double off = 0;
    FILE *f = cli_open(in_run("family.csv"));
    fprintf(f,
            "model,options,weights,bytes,ttft_predicted,ttft_least,ttft_median,decode_predicted,"
            "decode_least,decode_median,loss_trial,loss,error,rival,gain,gain_error\n");
    for (int i = 0; i < run.n; i++) {
        const member *m = &run.member[i];
        fprintf(f, "%s,\"%s\",%llu,%llu,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,", m->name,
                candidate_options(&m->c, options), (unsigned long long)m->params,
                (unsigned long long)m->bytes, m->ttft.mean, m->least[0], m->median[0],
                m->decode.mean, m->least[1], m->median[1]);
        fprintf(f, "%.5f,%.5f,%.5f,%s,%.5f,%.5f\n", m->early, m->loss, m->error,
                m->rival ? run.member[m->rival].name : "", m->gain, m->gain_error);
        printf("family %s loss=%.4f+-%.4f ttft_ms=%.3f", model_path(m), m->loss, m->error,
               1e3 * m->ttft.mean);
        if (!*run.elsewhere) {
            if (i < run.chosen) off += fabs(m->ttft.mean / m->least[0] - 1) / run.chosen;
            printf(" measured_ms=%.3f decode_tok_s=%.0f measured_tok_s=%.0f", 1e3 * m->least[0],
                   1 / m->decode.mean, 1 / m->least[1]);
        }
        printf(" weights=%llu size=%s", (unsigned long long)m->params, cli_size(m->bytes, size));
        if (m->rival)
            printf(" rival=%s gain=%.4f+-%.4f", run.member[m->rival].name, m->gain, m->gain_error);
        printf(" %s\n", options);
    }
    cli_close(in_run("family.csv"));
    printf("family n=%d backbone_loss=%.4f", run.n, run.backbone_loss);
    if (!*run.elsewhere) printf(" ttft_mean_error=%.3f", off);
    printf(" report=%s/report.html\n", folder);
}

/* ---- the command ----------------------------------------------------------------------- */

/* Writes text to a file if that is not there. If it is there, from an earlier run, fails unless it
   has the same text. what: all that the text depends on, for the message. */
static void settle(const char *path, const char *text, const char *what)
{
    size_t bytes;
    if (!is_there(path)) {
        write_whole(path, text, strlen(text));
        return;
    }
    char *old = cli_read(path, &bytes);
    if (bytes != strlen(text) || memcmp(old, text, bytes))
        cli_fail("%s is of another %s: choose another folder for this one, or give the same again",
                 path, what);
    free(old);
}

static int run_trial(void *user, const char *path)
{
    const char *argv[] = {"trial", run.p.path, path, "-t", user, NULL};
    return cmd_trial(5, (char **)argv);
}
#endif

static const char notes[] =
    "Designs small models for a device, as MobileLLM-Flash does (arxiv 2603.15954): the backbone\n"
    "is calibrated; shapes are measured here, unless a latency model is given; a search tries\n"
    "candidates, each the backbone cut, healed for a few steps with the backbone as teacher, and\n"
    "scored; some of the best in loss and time to the first token (TTFT) are healed longer,\n"
    "written in their type, and timed. RUN has it all: plan.json, calibration, device.latency,\n"
    "journal.jsonl (for flash front), family/*.gguf, family.csv and report.html. Whatever ends\n"
    "the command, it goes on from there, with the same family. SPACE is tiny (the paper's, scaled\n"
    "to the backbone), paper (10 to 16 layers, d_model 1024 to 2048, d_ffn 2048 to 8192, each\n"
    "layer full, window:256 or skip), or a file as in flash search --help with parameters layers,\n"
    "d_model, d_ffn, kv_heads, p0, p1, ... (what a layer does) and objectives loss and ttft;\n"
    "its \"reference\" is by itself 1.5 nats above the backbone's loss, and its TTFT.\n"
    "--pick 3: so many, evenly over the times; 0.5s,20ms: the best within these; knee.\n"
    "  flash design tale.gguf --data stories.txt -o run -j 2\n"
    "  flash design big.gguf --data text.txt --space paper --device phone.latency --elsewhere \\\n"
    "      -o run -j 64 --cmd 'srun flash trial run/plan.json {trial.json}'\n";

int cmd_design(int argc, char **argv)
{
    const char *backbone, *out = NULL, *space_name = "tiny", *device = NULL, *type = "Q4_0",
                          *pick = "3", *cmd = NULL;
    cli_texts data = {{0}, 0}, held = {{0}, 0};
    int trials = 200, batch = 8, jobs = 1, deci = 0, baseline = 0, elsewhere = 0, shapes = 60,
        rounds = 5, steps = 128, final_steps = 0, ctx = 128, sequences = 8, prompt = 0, threads = 1,
        chunk = 256, tokens = 65536;
    float lr = 5e-4f;
    flash_type kv = FLASH_TYPE_Q8_0;
    uint64_t seed = 1;
    const cli_option options[] = {
        {"--data", "FILE...", CLI_TEXTS, &data, 0, 0, "text to calibrate and heal with"},
        {"--held-out", "FILE...", CLI_TEXTS, &held, 0, 0,
         "text for the losses (the last twentieth of the data)"},
        {"-o", "RUN", CLI_TEXT, &out, 0, 0, "a folder for all that comes of it"},
        {"--space", "SPACE", CLI_TEXT, &space_name, 0, 0, "tiny (the default), paper, or a file"},
        {"--device", "LATENCY", CLI_TEXT, &device, 0, 0,
         "a latency model of flash fit (else this machine is measured)"},
        {"--elsewhere", NULL, CLI_FLAG, &elsewhere, 0, 0,
         "it is of another machine; models are not timed here"},
        {"--calibrate", "TOKENS", CLI_INT, &tokens, 16, 1e9,
         "of text to calibrate with, a 16th of them for divergences (65536)"},
        {"--trials", "N", CLI_INT, &trials, 2, FLASH_SEARCH_MODEL_TRIALS_MAX, "candidates (200)"},
        {"--batch", "N", CLI_INT, &batch, 1, 256, "of them chosen at a time (8)"},
        {"-j", "N", CLI_INT, &jobs, 1, 256, "processes at once (1)"},
        {"--cmd", "CMD", CLI_TEXT, &cmd, 0, 0, "runs a trial; {trial.json} is its file"},
        {"--steps", "N", CLI_INT, &steps, 1, 1e9, "of healing a candidate (128)"},
        {"--final-steps", "N", CLI_INT, &final_steps, 1, 1e9,
         "of healing a model of the family (10 times as many)"},
        {"--sequences", "N", CLI_INT, &sequences, 1, 1 << 16, "of a step (8)"},
        {"--ctx", "N", CLI_INT, &ctx, 2, FLASH_CONTEXT_MAX, "tokens of a sequence (128)"},
        {"--lr", "X", CLI_FLOAT, &lr, 1e-9, 10, "learning rate (5e-4)"},
        {"-p", "PROMPT", CLI_INT, &prompt, 1, FLASH_CONTEXT_MAX,
         "tokens before the first one (three quarters of the context, at most 2048)"},
        {"-t", "THREADS", CLI_INT, &threads, 1, FLASH_THREADS_MAX, "of the device (1)"},
        {"--chunk", "N", CLI_INT, &chunk, 1, FLASH_CONTEXT_MAX,
         "prompt tokens worked on together (256)"},
        {"--type", "TYPE", CLI_TEXT, &type, 0, 0, "weights of the family (Q4_0)"},
        {"--kv", "TYPE", CLI_KV, &kv, 0, 0, "keys and values: f32, f16, q8_0 (q8_0)"},
        {"--shapes", "N", CLI_INT, &shapes, 8, FLASH_LATENCY_POINTS_MAX - 2, "to measure (60)"},
        {"--rounds", "N", CLI_INT, &rounds, 1, 100, "through all of the shapes (5)"},
        {"--pick", "LIST", CLI_TEXT, &pick, 0, 0, "models of the family (3)"},
        {"--deci", NULL, CLI_FLAG, &deci, 0, 0,
         "only models that programs for deci files run: no windows"},
        {"--baseline", NULL, CLI_FLAG, &baseline, 0, 0,
         "next to each, layers and widths cut by the same share, as quick"},
        {"--seed", "SEED", CLI_SEED, &seed, 0, 18446744073709551615.0, "of all that is random (1)"},
        {0}};
    cli_parse_all(argc, argv, options, "BACKBONE", notes, &backbone);
    if (!data.n || !out) cli_usage("%s is missing", data.n ? "-o RUN" : "--data FILE");
    if (cmd && !strstr(cmd, "json}"))
        cli_usage("--cmd without {trial.json}, where the trial's file is named");
#ifndef DESIGN_RUNS
    (void)(tokens + trials + batch + jobs + deci + baseline + elsewhere + shapes + rounds + steps);
    (void)ctx;
    cli_fail("this system has no processes as POSIX has them; the stages are commands of their "
             "own: calibrate, measure, fit, search, trial, prune, train");
#else
    plan *p = &run.p;
    flash_model_desc md = {0};
    args a = {{0}, 0};
    trials_desc how = {0};
    space given;
    if (elsewhere && !device) cli_usage("--elsewhere without --device");
    md.source.path = backbone;
    flash_model *m = cli_load(&md); /* fails, if it must, before there is a folder */
    const flash_arch *arch = flash_model_arch(m);
    folder = out;
    p->backbone = backbone;
    p->data = data;
    p->held_out = held;
    p->type = cli_type("--type", type, 0);
    p->kv = kv;
    p->threads = threads;
    p->chunk = chunk;
    p->prompt = prompt ? prompt : arch->n_ctx * 3 / 4 < 2048 ? arch->n_ctx * 3 / 4 : 2048;
    p->prompt = p->prompt > 0 ? p->prompt : 1;
    p->ctx = ctx;
    p->batch = sequences;
    p->steps = steps;
    p->final_steps = final_steps ? final_steps : 10 * steps;
    p->lr = (double)lr;
    p->seed = seed;
    p->calibration = in_run("calibration");
    p->latency = device ? device : in_run("device.latency");
    p->space = in_run("space.json");
    p->path = in_run("plan.json");
    if (device && is_here(device) == elsewhere)
        cli_usage(elsewhere ? "--elsewhere, but %s is of this machine"
                            : "%s is not of this machine (%s): measure it here, or say --elsewhere",
                  device, run.elsewhere);
    int built_in = !strcmp(space_name, "tiny") || !strcmp(space_name, "paper");
    size_t bytes;
    char *text = built_in ? space_text(arch, *space_name == 'p', trials, seed)
                          : cli_read(space_name, &bytes);
    make_folder(folder);
    lock();
    make_folder(in_run("trials"));
    make_folder(in_run("family"));
    settle(p->space, text, "space, seed or number of trials");
    split_texts(p);
    p->sum = plan_sum(p);
    char *said = plan_text(p);
    settle(p->path, said, "backbone, text, space, device or option");
    free(said);
    plan_fit(p, m);
    if (device) plan_device(p);
    process_catch_stops();

    take(&a, "calibrate", backbone, "-o", p->calibration, NULL);
    take_all(&a, "--text", &p->data);
    take(&a,
         name_of("--ctx %d --tokens %d --kl-tokens %d -t %d", ctx, tokens, tokens / 16,
                 jobs < FLASH_THREADS_MAX ? jobs : FLASH_THREADS_MAX),
         NULL);
    stage(p->calibration, &a);
    if (!device && !is_there(p->latency)) {
        char *list = in_run("shapes.txt"), *profile = in_run("device.profile");
        page reference = {NULL, 0};
        if (!is_there(list)) write_shapes(p, list, shapes);
        print_shape(&reference, arch);
        a.n = 0;
        take(&a, "measure", "--space", list, "--resume", "-o", profile, "--reference", reference.at,
             "--seed", name_of("%llu", (unsigned long long)seed), NULL);
        take(&a,
             name_of("-p %d -t %d --chunk %d --type %s --kv %s --rounds %d -n 16", p->prompt,
                     threads, chunk, flash_type_name(p->type), flash_type_name(kv), rounds),
             NULL);
        stage(p->latency, &a);
        free(reference.at);
        a.n = 0;
        take(&a, "fit", profile, "-o", p->latency, "--least", "--report", in_run("latency.html"),
             NULL);
        stage(p->latency, &a);
    }
    if (!*run.elsewhere && !is_here(p->latency) && !elsewhere)
        cli_fail("%s was measured on another machine (%s): go on there", p->latency, run.elsewhere);

    if (!device) plan_device(p);
    plan_texts(p);
    space_parse_text(p->space, text, strlen(text), &given);
    if (!given.has_reference) { /* slower than the backbone, or much worse, is no use */
        flash_interval ttft;
        candidate_times(p, &(candidate){0, 0, 0, 0, ""}, &ttft, NULL);
        given.has_reference = 1;
        given.reference[0] = ceil(100 * (model_score(p, p->m, 1, NULL) + WORSE)) / 100;
        given.reference[1] = 1.05 * ttft.mean;
    }
    given.known = known_ttft;
    given.known_user = p;
    given.known_at = 1;
    journal_open(&run.j, in_run("journal.jsonl"), &given, trials, seed, 0);
    how.cmd = cmd;
    how.body = run_trial;
    /* Threads of each trial, several if a batch has fewer trials than there are jobs. */
    how.user = name_of("%d", jobs / batch > 1 ? jobs / batch : 1);
    how.parallel = jobs;
    how.batch = batch;
    how.keeps = 1;
    trials_run(&run.j, &how);
    for (int id = 1; id <= trials; id++) /* of trials that were stopped */
        remove(name_of("%s/trials/%d.part", folder, id));
    space_print_front(&run.j.sp, run.j.s);

    process_catch_stops();
    choose_members(pick, deci);
    for (int i = 0; i < run.n; i++)
        candidate_times(p, &run.member[i].c, &run.member[i].ttft, &run.member[i].decode);
    run.chosen = run.n;
    if (baseline) add_baselines();
    process_pool("family", run.n, jobs, make_member, NULL);
    score_members(jobs < FLASH_THREADS_MAX ? jobs : FLASH_THREADS_MAX);
    design_report(in_run("report.html"), &run);
    say_family();
    journal_close(&run.j);
    plan_close(p);
    free(text);
#endif
    return 0;
}
