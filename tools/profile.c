/* profile.c - reads and writes profiles, see profile.h. */
#define _POSIX_C_SOURCE 200809L /* sysconf, uname */
#include "profile.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if !defined(_WIN32) && !defined(__wasm__)
#include <sys/utsname.h>
#include <unistd.h>
#endif

enum { BAD_TOLD = 5 }; /* the most skipped lines that are named */

static const char begins[] = "{\"profile\":1,"; /* begins the line of a machine */

static uint32_t hash(const char *p, size_t n)
{
    uint32_t h = 2166136261u; /* FNV-1a: Fowler, Noll, Vo, draft-eastlake-fnv */
    for (; n; n--) h = (h ^ (unsigned char)*p++) * 16777619u;
    return h;
}

/* ---- writing ----------------------------------------------------------------- */

/* A line of a profile is made here and written at once, as far as the system can, so that an
   interruption leaves whole lines. */
typedef struct text {
    char at[PROFILE_TEXT * 4];
    size_t n;
} text;

static void add(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(t->at + t->n, sizeof t->at - t->n, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof t->at - t->n)
        cli_fail("a line of a profile would be too long");
    t->n += (size_t)n;
}

/* Appends a member. value must be plain, see cli_plain, as nothing is escaped. */
static void add_text(text *t, const char *name, const char *value)
{
    add(t, "\"%s\":\"%s\",", name, value);
}

static void end_line(text *t, FILE *f)
{
    uint32_t sum = hash(t->at, t->n);
    add(t, "\"sum\":\"%08lx\"}\n", (unsigned long)sum);
    if (fwrite(t->at, 1, t->n, f) != t->n || fflush(f))
        cli_fail("cannot write the profile; is the disk full?");
}

void profile_write_machine(FILE *f, const profile_machine *m, const char *plan)
{
    text t = {{0}, 0};
    add(&t, "%s", begins);
    add_text(&t, "machine", m->name);
    add_text(&t, "isa", m->isa);
    add(&t, "\"processors\":%d,", m->processors);
    add_text(&t, "system", m->system);
    add_text(&t, "plan", plan);
    add(&t, "\"started\":%lld,", (long long)time(NULL));
    end_line(&t, f);
}

void profile_write(FILE *f, const profile_entry *e)
{
    text t = {{0}, 0};
    const flash_workload *w = &e->work;
    add(&t, "{\"job\":%d,", e->job);
    add_text(&t, "shape", e->shape);
    add_text(&t, "arch", e->arch);
    add_text(&t, "attn", e->attn);
    add_text(&t, "weights", flash_type_name(w->weights));
    add_text(&t, "kv", flash_type_name(w->kv));
    add(&t, "\"threads\":%d,\"chunk\":%d,\"prompt\":%d,\"position\":%d,\"at\":%.1f,", w->threads,
        w->chunk, w->prompt, w->position, e->at);
    for (int phase = 0; phase < 2; phase++) {
        add(&t, phase ? "\"decode\":[" : "\"prefill\":[");
        for (int i = 0; i < e->time.n; i++)
            add(&t, "%s%.6g", i ? "," : "",
                phase ? e->time.each[i].decode : e->time.each[i].prefill);
        add(&t, "],");
    }
    add(&t, "\"reference\":[%.6g,%.6g],", e->reference.prefill, e->reference.decode);
    end_line(&t, f);
}

/* ---- reading ----------------------------------------------------------------- */

/* Returns what follows "name": in a line; NULL if it is not there. It cannot be found in a text, as
   texts hold no quotes. */
static const char *find(const char *line, const char *name)
{
    char key[40];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *p = strstr(line, key);
    return p ? p + strlen(key) : NULL;
}

/* Copies a text to `to`, [cap]. Returns 0 if it is missing, does not fit or is not plain. */
static int get_text(const char *line, const char *name, char *to, size_t cap)
{
    const char *p = find(line, name), *end = p && *p == '"' ? strchr(p + 1, '"') : NULL;
    if (!end || (size_t)(end - p) > cap) return 0;
    memcpy(to, p + 1, (size_t)(end - p - 1));
    to[end - p - 1] = 0;
    return !memcmp(cli_plain(to), p + 1, (size_t)(end - p - 1));
}

/* Reads one number, or a list of numbers in brackets. Returns how many; -1 if they are missing,
   wrong or more than cap. */
static int get_numbers(const char *line, const char *name, double *to, int cap)
{
    const char *p = find(line, name);
    int n = 0, list = p && *p == '[';
    char *end;
    if (!p) return -1;
    for (p += list; n < cap; p = end + 1) {
        double v = strtod(p, &end);
        if (end == p || !(v >= 0 && v < 1e15)) return -1;
        to[n++] = v;
        if (*end != ',' || !list) return list && *end != ']' ? -1 : n;
    }
    return -1;
}

static int get_int(const char *line, const char *name, int hi, int *to)
{
    double v;
    if (get_numbers(line, name, &v, 1) != 1 || v > hi || v != (int)v) return 0;
    *to = (int)v;
    return 1;
}

static char *copy(const char *s)
{
    char *c = malloc(strlen(s) + 1);
    if (!c) cli_fail("out of memory");
    return strcpy(c, s);
}

/* Makes room for one more item in a list of n. Its capacity is a power of two. */
static void *grow(void *list, int n, size_t item)
{
    if (n & (n - 1)) return list;
    list = realloc(list, (n ? 2 * (size_t)n : 1) * item);
    if (!list) cli_fail("out of memory");
    return list;
}

static const char other_machine[] = "measured on another machine, or with another instruction set, "
                                    "than the lines above; they cannot be used together";

/* This and read_entry add a line, whose sum is right, to p. They return NULL, or what is wrong with
   it. */
static const char *read_machine(const char *line, profile *p)
{
    profile_machine m = {{0}, {0}, {0}, 0};
    p->plan = grow(p->plan, p->n_plans, sizeof *p->plan);
    if (!get_text(line, "machine", m.name, sizeof m.name)
        || !get_text(line, "isa", m.isa, sizeof m.isa)
        || !get_text(line, "system", m.system, sizeof m.system)
        || !get_int(line, "processors", 1 << 20, &m.processors)
        || !get_text(line, "plan", p->plan[p->n_plans], sizeof *p->plan))
        return "not all of a machine";
    if (p->n_plans && !profile_same_machine(&m, &p->machine)) return other_machine;
    p->machine = m;
    p->n_plans++;
    return NULL;
}

static const char *read_entry(const char *line, profile *p)
{
    static cli_shape shape;
    static flash_arch a;
    static flash_error err;
    static char shape_text[PROFILE_TEXT], attn[PROFILE_TEXT];
    char arch[32], weights[32], kv[32];
    double prefill[FLASH_LATENCY_REPEATS_MAX], decode[FLASH_LATENCY_REPEATS_MAX], reference[2];
    const char *why;
    profile_entry e = {0};
    flash_workload *w = &e.work;
    if (!p->n_plans) return "no line above says which machine";
    for (int i = 0; i < p->n; i++)
        if (!strcmp(p->entry[i].text, line)) return "the same line is above";
    if (!get_text(line, "shape", shape_text, sizeof shape_text)
        || !get_text(line, "arch", arch, sizeof arch) || !get_text(line, "attn", attn, sizeof attn)
        || !get_text(line, "weights", weights, sizeof weights)
        || !get_text(line, "kv", kv, sizeof kv) || !get_int(line, "job", 1 << 30, &e.job)
        || !get_int(line, "threads", FLASH_THREADS_MAX, &w->threads)
        || !get_int(line, "chunk", FLASH_CONTEXT_MAX, &w->chunk)
        || !get_int(line, "prompt", FLASH_CONTEXT_MAX, &w->prompt)
        || !get_int(line, "position", FLASH_CONTEXT_MAX - 1, &w->position)
        || get_numbers(line, "at", &e.at, 1) != 1
        || get_numbers(line, "reference", reference, 2) != 2)
        return "not all of a measurement";
    w->weights = flash_type_parse(weights);
    w->kv = flash_type_parse(kv);
    e.time.n = get_numbers(line, "prefill", prefill, FLASH_LATENCY_REPEATS_MAX);
    if (e.time.n < 1 || get_numbers(line, "decode", decode, e.time.n) != e.time.n)
        return "no times, or not as many of both";
    for (int i = 0; i < e.time.n; i++)
        if (!(prefill[i] > 0 && decode[i] > 0)) return "a time that is not above 0";
    if (!cli_shape_parse(shape_text, arch, *attn ? attn : NULL, &shape, &why)) return why;
    cli_shape_arch(&shape, &a);
    w->arch = &a;
    if (!w->prompt) return "no prompt";
    if (!flash_latency_memory(w, NULL, &err) && err.status == FLASH_E_ARGUMENT) return err.text;
    e.a = malloc(sizeof *e.a);
    if (!e.a) cli_fail("out of memory");
    *e.a = a;
    for (int i = 0; i < e.time.n; i++) {
        e.time.each[i].prefill = prefill[i];
        e.time.each[i].decode = decode[i];
    }
    e.reference.prefill = reference[0];
    e.reference.decode = reference[1];
    w->arch = e.a;
    e.shape = copy(shape_text);
    e.arch = copy(arch);
    e.attn = copy(attn);
    e.plan = p->n_plans - 1;
    e.text = line;
    e.line = p->lines;
    p->entry = grow(p->entry, p->n, sizeof *p->entry);
    p->entry[p->n++] = e;
    return NULL;
}

void profile_read(const char *path, profile *p)
{
    const size_t begun = sizeof begins - 1;
    size_t bytes;
    char *file = cli_read(path, &bytes);
    int ours = !memcmp(file, begins, bytes < begun ? bytes : begun);
    memset(p, 0, sizeof *p);
    p->file = file;
    p->whole = !bytes || file[bytes - 1] == '\n';
    for (char *line = file, *next; line < file + bytes; line = next) {
        char *end = memchr(line, '\n', (size_t)(file + bytes - line)), *sum;
        const char *why;
        if (!end) end = file + bytes;
        next = end + 1;
        if (end > line && end[-1] == '\r') /* a line end of Windows */
            end--;
        *end = 0;
        p->lines++;
        if (end == line) continue;
        sum = strstr(line, "\"sum\":\"");
        if (*line != '{' || strlen(line) != (size_t)(end - line))
            why = "no line of a profile";
        else if (!sum || end - sum != 17 || strcmp(end - 2, "\"}")
                 || strtoul(sum + 7, NULL, 16) != hash(line, (size_t)(sum - line)))
            why = "damaged, or cut short";
        else
            why = (strncmp(line, begins, begun) ? read_entry : read_machine)(line, p);
        if (!why) continue;
        if (why == other_machine) cli_fail("%s, line %d: %s", path, p->lines, why);
        if (p->bad++ < BAD_TOLD) cli_note("%s, line %d: %s; skipped", path, p->lines, why);
    }
    if (p->bad > BAD_TOLD) cli_note("%s: %d more lines skipped", path, p->bad - BAD_TOLD);
    p->foreign = !ours && !p->n_plans;
}

void profile_free(profile *p)
{
    for (int i = 0; i < p->n; i++) {
        free((char *)p->entry[i].shape);
        free((char *)p->entry[i].arch);
        free((char *)p->entry[i].attn);
        free(p->entry[i].a);
    }
    free(p->entry);
    free(p->plan);
    free(p->file);
    memset(p, 0, sizeof *p);
}

/* ---- this machine -------------------------------------------------------------- */

int profile_same_machine(const profile_machine *a, const profile_machine *b)
{
    return !strcmp(a->name, b->name) && !strcmp(a->isa, b->isa) && a->processors == b->processors;
}

int profile_same_work(const flash_workload *a, const flash_workload *b)
{
    return a->weights == b->weights && a->kv == b->kv && a->threads == b->threads
        && a->chunk == b->chunk && a->prompt == b->prompt && a->position == b->position
        && !memcmp(a->arch, b->arch, sizeof *a->arch);
}

void profile_here(profile_machine *m, flash_isa isa)
{
    static const char *const keys[] = {"model name", "Hardware", "uarch", "cpu model"};
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    memset(m, 0, sizeof *m);
    snprintf(m->isa, sizeof m->isa, "%s", flash_isa_name(isa ? isa : flash_isa_best()));
    while (f && !*m->name && fgets(line, sizeof line, f))
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (!strncmp(line, keys[i], strlen(keys[i])) && strchr(line, ':')) {
                snprintf(m->name, sizeof m->name, "%.120s", strchr(line, ':') + 2);
                m->name[strcspn(m->name, "\r\n")] = 0;
                break;
            }
    if (f) fclose(f);
#if !defined(_WIN32) && !defined(__wasm__)
    struct utsname u;
    m->processors = (int)sysconf(_SC_NPROCESSORS_CONF); /* phones switch some off */
    if (!uname(&u)) {
        snprintf(m->system, sizeof m->system, "%.40s %.20s", u.sysname, u.machine);
        if (!*m->name) snprintf(m->name, sizeof m->name, "%.60s %.60s", u.machine, u.nodename);
    }
#else
    const char *id = getenv("PROCESSOR_IDENTIFIER"), *n = getenv("NUMBER_OF_PROCESSORS");
    m->processors = n ? atoi(n) : 1;
    snprintf(m->system, sizeof m->system, "%s", id ? "Windows" : "WebAssembly");
    snprintf(m->name, sizeof m->name, "%.120s", id ? id : "unknown");
#endif
    if (m->processors < 1) m->processors = 1;
    cli_plain(m->name);
    cli_plain(m->system);
}
