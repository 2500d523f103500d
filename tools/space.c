/* space.c - see space.h. */
#define _POSIX_C_SOURCE 200809L /* fcntl, fileno, fsync, ftruncate, nanosleep */
#include "space.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#ifdef _WIN32
#include <io.h>
#define ftruncate(file, size) _chsize(file, (long)(size))
#define fsync _commit
#define fileno _fileno
#else
#include <fcntl.h>
#include <unistd.h>
#endif

enum { FILE_MAX = 1 << 24, SUM = 18, LOCK_SECONDS = 60 }; /* SUM: size of ,"sum":"..."} [B] */
/* Names in the order of flash_param_kind and of flash_search_method. */
static const char kinds[][8] = {"integer", "ordinal", "choice", "real", "log"};
static const char methods[][8] = {"ehvi", "nsga2", "random"};

/* ---- text ---------------------------------------------------------------------- */

typedef struct text {
    char *at;
    size_t n, cap;
} text;

static void add(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (t->n + (size_t)n + 1 > t->cap) {
        t->cap = 2 * (t->n + (size_t)n) + 256;
        t->at = realloc(t->at, t->cap);
        if (!t->at) cli_fail("out of memory");
    }
    va_start(args, format);
    vsnprintf(t->at + t->n, t->cap - t->n, format, args);
    va_end(args);
    t->n += (size_t)n;
}

static void add_text(text *t, const char *s)
{
    add(t, "\"");
    for (; *s; s++) add(t, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    add(t, "\"");
}

const char *space_number(double v, char to[SPACE_NUMBER])
{
    for (int digits = 15; digits < 18; digits++) {
        snprintf(to, SPACE_NUMBER, "%.*g", digits, v);
        if (!(strtod(to, NULL) < v) && !(strtod(to, NULL) > v)) break;
    }
    return to;
}

static void add_number(text *t, double v)
{
    char number[SPACE_NUMBER];
    add(t, "%s", space_number(v, number));
}

/* ---- reading a space file -------------------------------------------------------- */

static const char *reading; /* name of the space file or journal that is read, for messages */

static void fail_at(const json *j, const char *format, ...)
{
    char why[300];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    cli_fail("%s, line %d, column %d: %s", reading, j->line, j->column, why);
}

static const json *need(const json *j, json_type type, const char *what)
{
    static const char *const names[] = {
        "null", "false", "true", "a number", "a text in quotes", "a list", "an object"};
    if (j->type != type) fail_at(j, "%s: want %s", what, names[type]);
    return j;
}

static double need_whole(const json *j, double lo, double hi, const char *what)
{
    need(j, JSON_NUMBER, what);
    if (!(j->number >= lo && j->number <= hi) || floor(j->number) < j->number)
        fail_at(j, "%s: want a whole number from %.15g to %.15g", what, lo, hi);
    return j->number;
}

static int need_flag(const json *j, const char *what)
{
    if (j->type != JSON_TRUE && j->type != JSON_FALSE) fail_at(j, "%s: want true or false", what);
    return j->type == JSON_TRUE;
}

/* Returns a text that may stand in tables and messages: not too long, no control characters. */
static const char *need_name(const json *j, const char *what)
{
    need(j, JSON_TEXT, what);
    if (!*j->text || strlen(j->text) > SPACE_NAME_MAX)
        fail_at(j, "%s: want 1 to %d bytes", what, SPACE_NAME_MAX);
    for (const char *p = j->text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127) fail_at(j, "%s: a control character in it", what);
    return j->text;
}

/* Fails if an object has a key that is not in names, which is "key key ", each with a blank. */
static void known_keys(const json *object, const char *names, const char *what)
{
    need(object, JSON_OBJECT, what);
    for (const json *j = object->child; j; j = j->next) {
        size_t n = strlen(j->key);
        const char *p = names;
        while (*p && (strncmp(p, j->key, n) || p[n] != ' ')) {
            p += strcspn(p, " ");
            p += strspn(p, " ");
        }
        if (!*p || !n) fail_at(j, "%s: unknown key \"%.100s\"", what, j->key);
    }
}

static int find_parameter(const space *sp, const char *name)
{
    int i = 0;
    while (i < sp->n_param && strcmp(sp->param[i].name, name)) i++;
    return i < sp->n_param ? i : -1;
}

static int n_choices(const space *sp, int i)
{
    return sp->param[i].kind == FLASH_PARAM_CATEGORY ? sp->param[i].n_value : 0;
}

static int find_choice(const space *sp, int i, const char *name)
{
    for (int k = 0; k < n_choices(sp, i); k++)
        if (!strcmp(sp->choice[i][k], name)) return k;
    return -1;
}

/* Reads what is in the list of parameter i: its choices, its values, or its range. */
static void read_values(space *sp, int i, const json *list, const char *name)
{
    flash_param *p = &sp->param[i];
    double *value;
    const json *j;
    p->n_value = list->n;
    if (p->kind == FLASH_PARAM_CATEGORY) {
        if (list->n < 1 || list->n > SPACE_CHOICES_MAX)
            fail_at(list, "%s: %d choices, want 1 to %d", name, list->n, SPACE_CHOICES_MAX);
        p->n_value = 0;
        for (j = list->child; j; j = j->next) {
            const char *choice = need_name(j, name);
            if (find_choice(sp, i, choice) >= 0)
                fail_at(j, "%s: choice \"%s\" was there before", name, choice);
            sp->choice[i][p->n_value++] = choice;
        }
        return;
    }
    for (j = list->child; j; j = j->next) need(j, JSON_NUMBER, name);
    if (p->kind == FLASH_PARAM_ORDINAL) {
        value = malloc(((size_t)list->n + 1) * sizeof *value);
        if (!value) cli_fail("out of memory");
        p->value = value;
        for (j = list->child; j; j = j->next) *value++ = j->number;
        return;
    }
    if (list->n != 2) fail_at(list, "%s: want [lowest, highest]", name);
    p->n_value = 0;
    p->lo = list->child->number;
    p->hi = list->child->next->number;
    if (p->lo > p->hi) fail_at(list, "%s: %.15g is more than %.15g", name, p->lo, p->hi);
    if (p->kind == FLASH_PARAM_INTEGER)
        for (j = list->child; j; j = j->next)
            need_whole(j, -9007199254740992.0, 9007199254740992.0, name);
}

static void read_parameter(space *sp, const json *o)
{
    int i = sp->n_param, kind = -1;
    flash_param *p = &sp->param[i];
    const json *j, *name = json_get(need(o, JSON_OBJECT, "a parameter"), "name");
    if (!name) fail_at(o, "a parameter without \"name\"");
    p->name = need_name(name, "name");
    if (find_parameter(sp, p->name) >= 0)
        fail_at(name, "parameter \"%s\" was there before", p->name);
    known_keys(o, "name integer ordinal choice real log step active_if active_from ", p->name);
    for (int k = 0; k < 5; k++) {
        j = json_get(o, kinds[k]);
        if (!j) continue;
        if (kind >= 0) fail_at(j, "%s: both \"%s\" and \"%s\"", p->name, kinds[kind], kinds[k]);
        kind = k;
        p->kind = (flash_param_kind)k;
        read_values(sp, i, need(j, JSON_LIST, p->name), p->name);
    }
    if (kind < 0) fail_at(o, "%s: want one of integer, ordinal, choice, real, log", p->name);
    p->step = p->kind == FLASH_PARAM_INTEGER;
    j = json_get(o, "step");
    if (j && p->kind != FLASH_PARAM_INTEGER) fail_at(j, "%s: only integers have a step", p->name);
    if (j) p->step = need_whole(j, 1, 1e15, "step");
    j = json_get(o, "active_if");
    if (j) {
        int by = find_parameter(sp, need_name(j, "active_if"));
        const json *from = json_get(o, "active_from");
        if (by < 0) fail_at(j, "%s: there is no earlier parameter \"%s\"", p->name, j->text);
        if (!from) fail_at(o, "%s: \"active_if\" needs \"active_from\"", p->name);
        sp->active[i] = by + 1;
        p->active_if = sp->param[by].name;
        p->active_from = n_choices(sp, by) ? find_choice(sp, by, need_name(from, "active_from"))
                                           : need(from, JSON_NUMBER, "active_from")->number;
        if (n_choices(sp, by) && p->active_from < 0)
            fail_at(from, "%s is no choice of %s", from->text, p->active_if);
    } else if (json_get(o, "active_from")) {
        fail_at(o, "%s: \"active_from\" needs \"active_if\"", p->name);
    }
    sp->n_param++;
}

/* Adds the parameters of the name j to r: one or, if the name ends with a *, all that begin so. */
static void take_slots(space *sp, space_rule *r, const json *j)
{
    const char *name = need_name(j, "in");
    size_t n = strlen(name), star = name[n - 1] == '*';
    int before = r->n;
    for (int i = 0; i < sp->n_param; i++) {
        int k = 0;
        if (star ? strncmp(sp->param[i].name, name, n - 1) : strcmp(sp->param[i].name, name))
            continue;
        if (!n_choices(sp, i)) fail_at(j, "in: %s has no choices", sp->param[i].name);
        while (k < r->n && r->slot[k] != i) k++;
        if (k < r->n) fail_at(j, "in: %s was there before", sp->param[i].name);
        r->slot[r->n++] = i;
    }
    if (r->n == before) fail_at(j, "in: there is no parameter \"%s\"", name);
}

static void read_rule(space *sp, const json *o)
{
    space_rule *r = &sp->rule[sp->n_rule++];
    const json *run = json_get(need(o, JSON_OBJECT, "a rule"), "run"), *sum = json_get(o, "sum"),
               *of = json_get(o, "of"), *in = json_get(o, "in"), *most = json_get(o, "at_most");
    known_keys(o, run ? "run of in " : "sum at_most ", "a rule");
    if (run && (!of || !in)) fail_at(o, "\"run\" needs \"of\" and \"in\"");
    if (!run && (!sum || !most)) fail_at(o, "want a rule of run, of and in, or of sum and at_most");
    if (run) {
        r->run = (int)need_whole(run, 1, FLASH_SEARCH_PARAMS_MAX, "run");
        if (!need(in, JSON_LIST, "in")->n || !need(of, JSON_LIST, "of")->n)
            fail_at(o, "a rule of run: nothing in \"of\" or \"in\"");
        for (const json *j = in->child; j; j = j->next) take_slots(sp, r, j);
        for (const json *j = of->child; j; j = j->next)
            for (int k = 0; k < r->n; k++) {
                int c = find_choice(sp, r->slot[k], need_name(j, "of"));
                if (c < 0) fail_at(j, "%s is no choice of %s", j->text, sp->param[r->slot[k]].name);
                r->mask[k] |= (uint64_t)1 << c;
            }
        return;
    }
    r->at_most = need(most, JSON_NUMBER, "at_most")->number;
    for (const json *j = need(sum, JSON_OBJECT, "sum")->child; j; j = j->next) {
        int i = find_parameter(sp, j->key);
        if (i < 0) fail_at(j, "sum: there is no parameter \"%.100s\"", j->key);
        if (n_choices(sp, i)) fail_at(j, "sum: %s has choices, not numbers", j->key);
        r->slot[r->n] = i;
        r->weight[r->n++] = need(j, JSON_NUMBER, "sum")->number;
    }
}

static void read_value_names(space *sp, const json *list, int most, const char *what)
{
    int first = sp->n_objective + sp->n_constraint;
    need(list, JSON_LIST, what);
    if (list->n > most) fail_at(list, "%d %s, want at most %d", list->n, what, most);
    for (const json *j = list->child; j; j = j->next) {
        const char *name = need_name(j, what);
        for (int k = 0; k < first; k++)
            if (!strcmp(sp->value[k], name)) fail_at(j, "%s: \"%s\" was there before", what, name);
        if (find_parameter(sp, name) >= 0)
            fail_at(j, "%s: a parameter has the name \"%s\", too", what, name);
        sp->value[first++] = name;
    }
}

static void refuse_reserved(const json *at, const char *name)
{
    if (!strcmp(name, "id") || !strcmp(name, "state") || !strcmp(name, "front"))
        fail_at(at, "\"%s\" is a column of flash front --csv: choose another name", name);
}

static void read_space(const json *o, space *sp)
{
    const json *j;
    known_keys(o,
               "parameters objectives constraints reference rules trials initial method seed "
               "noisy noise population ",
               "a space");
    j = json_get(o, "parameters");
    if (!j || need(j, JSON_LIST, "parameters")->n < 1 || j->n > FLASH_SEARCH_PARAMS_MAX)
        fail_at(j ? j : o, "want \"parameters\", a list of 1 to %d", FLASH_SEARCH_PARAMS_MAX);
    for (const json *p = j->child; p; p = p->next) read_parameter(sp, p);
    for (int i = 0; i < sp->n_param; i++) refuse_reserved(j, sp->param[i].name);
    j = json_get(o, "objectives");
    if (!j || need(j, JSON_LIST, "objectives")->n < 1)
        fail_at(j ? j : o, "want \"objectives\", a list of 1 to %d names",
                FLASH_SEARCH_OBJECTIVES_MAX);
    read_value_names(sp, j, FLASH_SEARCH_OBJECTIVES_MAX, "objectives");
    sp->n_objective = j->n;
    if ((j = json_get(o, "constraints")) != NULL) {
        read_value_names(sp, j, FLASH_SEARCH_CONSTRAINTS_MAX, "constraints");
        sp->n_constraint = j->n;
    }
    for (int i = 0; i < space_n_values(sp); i++) refuse_reserved(o, sp->value[i]);
    if ((j = json_get(o, "reference")) != NULL) {
        if (need(j, JSON_LIST, "reference")->n != sp->n_objective)
            fail_at(j, "reference: %d numbers, want one for each objective", j->n);
        for (const json *v = j->child; v; v = v->next)
            sp->reference[sp->has_reference++] = need(v, JSON_NUMBER, "reference")->number;
    }
    if ((j = json_get(o, "rules")) != NULL) {
        if (need(j, JSON_LIST, "rules")->n > SPACE_RULES_MAX)
            fail_at(j, "%d rules, want at most %d", j->n, SPACE_RULES_MAX);
        for (const json *r = j->child; r; r = r->next) read_rule(sp, r);
    }
    if ((j = json_get(o, "method")) != NULL) {
        int k = 0;
        need(j, JSON_TEXT, "method");
        while (k < 3 && strcmp(methods[k], j->text)) k++;
        if (k == 3) fail_at(j, "method %.60s: want ehvi, nsga2 or random", j->text);
        sp->method = (flash_search_method)k;
    }
    j = json_get(o, "trials");
    sp->trials = j ? (int)need_whole(j, 1, FLASH_SEARCH_TRIALS_MAX, "trials") : 200;
    j = json_get(o, "initial");
    sp->initial = j ? (int)need_whole(j, 0, FLASH_SEARCH_TRIALS_MAX, "initial") : 0;
    j = json_get(o, "population");
    sp->population = j ? (int)need_whole(j, 4, FLASH_SEARCH_TRIALS_MAX, "population") : 100;
    j = json_get(o, "noisy");
    sp->noisy = j && need_flag(j, "noisy");
    if ((j = json_get(o, "noise")) != NULL) {
        if (need(j, JSON_LIST, "noise")->n != space_n_values(sp))
            fail_at(j, "noise: %d numbers, want one for each objective and constraint", j->n);
        for (const json *v = j->child; v; v = v->next)
            sp->noise[sp->has_noise++] = need(v, JSON_NUMBER, "noise")->number;
        sp->noisy = 1;
    }
    sp->seed = 1;
    if ((j = json_get(o, "seed")) != NULL) {
        need_whole(j, 0, 18446744073709549568.0, "seed");
        if (strspn(j->text, "0123456789") != strlen(j->text)) fail_at(j, "seed: want digits only");
        sp->seed = strtoull(j->text, NULL, 10);
    }
}

void space_parse_text(const char *name, const char *text, size_t bytes, space *sp)
{
    json_error err;
    memset(sp, 0, sizeof *sp);
    reading = name;
    if (bytes > FILE_MAX) cli_fail("%s is too large for a space file", name);
    if (strspn(text, " \t\r\n") == bytes)
        cli_fail("%s is empty; see flash search --help for a space file", name);
    sp->doc = json_read(text, bytes, 0, &err);
    if (!sp->doc) cli_fail("%s, line %d, column %d: %s", name, err.line, err.column, err.text);
    read_space(sp->doc, sp);
}

void space_read(const char *path, space *sp)
{
    size_t bytes;
    char *file = cli_read(path, &bytes);
    space_parse_text(path, file, bytes, sp);
    free(file);
}

static void space_free(space *sp)
{
    for (int i = 0; i < sp->n_param; i++) free((void *)sp->param[i].value);
    json_free(sp->doc);
    sp->n_param = 0;
    sp->doc = NULL;
}

/* ---- a space as one line ----------------------------------------------------------- */

static void write_parameter(text *t, const space *sp, int i)
{
    const flash_param *p = &sp->param[i];
    add(t, "{\"name\":");
    add_text(t, p->name);
    add(t, ",\"%s\":[", kinds[p->kind]);
    if (p->kind == FLASH_PARAM_ORDINAL || p->kind == FLASH_PARAM_CATEGORY)
        for (int k = 0; k < p->n_value; k++) {
            add(t, k ? "," : "");
            if (p->value)
                add_number(t, p->value[k]);
            else
                add_text(t, sp->choice[i][k]);
        }
    else {
        add_number(t, p->lo);
        add(t, ",");
        add_number(t, p->hi);
    }
    add(t, "]");
    if (p->kind == FLASH_PARAM_INTEGER) {
        add(t, ",\"step\":");
        add_number(t, p->step);
    }
    if (sp->active[i]) {
        add(t, ",\"active_if\":");
        add_text(t, p->active_if);
        add(t, ",\"active_from\":");
        if (n_choices(sp, sp->active[i] - 1))
            add_text(t, sp->choice[sp->active[i] - 1][(int)p->active_from]);
        else
            add_number(t, p->active_from);
    }
    add(t, "}");
}

static void write_rule(text *t, const space *sp, const space_rule *r)
{
    const char *comma = "";
    add(t, r->run ? "{\"run\":%d,\"of\":[" : "{\"sum\":{", r->run);
    for (int c = 0; r->run && r->n && c < n_choices(sp, r->slot[0]); c++)
        if (r->mask[0] >> c & 1) {
            add(t, "%s", comma);
            add_text(t, sp->choice[r->slot[0]][c]);
            comma = ",";
        }
    add(t, r->run ? "],\"in\":[" : "");
    for (int k = 0; k < r->n; k++) {
        add(t, k ? "," : "");
        add_text(t, sp->param[r->slot[k]].name);
        if (r->run) continue;
        add(t, ":");
        add_number(t, r->weight[k]);
    }
    add(t, r->run ? "]}" : "},\"at_most\":");
    if (r->run) return;
    add_number(t, r->at_most);
    add(t, "}");
}

/* What a space has besides its parameters. All but the last two must be the same when a journal is
   opened again. */
static const char *const parts[] = {"objectives", "constraints", "reference",  "rules",
                                    "method",     "initial",     "population", "noisy",
                                    "noise",      "trials",      "seed"};
enum { PARTS = 11, PARTS_FIXED = 9 };

static void write_part(text *t, const space *sp, int part)
{
    int first = part == 1 ? sp->n_objective : 0,
        n = part == 1 ? sp->n_constraint
        : part == 8   ? sp->has_noise
                      : sp->n_objective;
    if ((part == 2 && !sp->has_reference) || (part == 8 && !sp->has_noise)) return;
    add(t, ",\"%s\":", parts[part]);
    switch (part) {
    case 0:
    case 1:
    case 2:
    case 8:
        for (int k = 0; k < n; k++) {
            add(t, k ? "," : "[");
            if (part == 0 || part == 1)
                add_text(t, sp->value[first + k]);
            else
                add_number(t, part == 2 ? sp->reference[k] : sp->noise[k]);
        }
        add(t, n ? "]" : "[]");
        break;
    case 3:
        for (int k = 0; k < sp->n_rule; k++) {
            add(t, k ? "," : "[");
            write_rule(t, sp, &sp->rule[k]);
        }
        add(t, sp->n_rule ? "]" : "[]");
        break;
    case 4: add(t, "\"%s\"", methods[sp->method]); break;
    case 5: add(t, "%d", sp->initial); break;
    case 6: add(t, "%d", sp->population); break;
    case 7: add(t, sp->noisy ? "true" : "false"); break;
    case 9: add(t, "%d", sp->trials); break;
    default: add(t, "%llu", (unsigned long long)sp->seed);
    }
}

static int same_part(const space *a, const space *b, int part, int parameter)
{
    text s = {NULL, 0, 0}, t = {NULL, 0, 0};
    add(&s, " "); /* so that a text that stays empty is not NULL */
    add(&t, " ");
    if (part < 0) {
        write_parameter(&s, a, parameter);
        write_parameter(&t, b, parameter);
    } else {
        write_part(&s, a, part);
        write_part(&t, b, part);
    }
    int same = !strcmp(s.at, t.at);
    free(s.at);
    free(t.at);
    return same;
}

static void need_same(const journal *j, const space *given)
{
    for (int i = 0; i < j->sp.n_param || i < given->n_param; i++) {
        if (i >= j->sp.n_param || i >= given->n_param)
            cli_fail("%s is of another space, %s parameter %s: choose another journal", j->path,
                     i < given->n_param ? "without" : "with",
                     (i < given->n_param ? given : &j->sp)->param[i].name);
        if (!same_part(&j->sp, given, -1, i))
            cli_fail("%s is of another space, parameter %s differs: choose another journal",
                     j->path, given->param[i].name);
    }
    for (int k = 0; k < PARTS_FIXED; k++)
        if (!same_part(&j->sp, given, k, 0))
            cli_fail("%s is of another space, %s differ%s: choose another journal", j->path,
                     parts[k], k < 2 || k == 3 ? "" : "s");
}

/* ---- the search of a space ----------------------------------------------------------- */

int space_n_values(const space *sp) { return sp->n_objective + sp->n_constraint; }

int space_is_active(const space *sp, const double *x, int i)
{
    return !sp->active[i] || x[sp->active[i] - 1] >= sp->param[i].active_from;
}

/* Returns 1 if x keeps the rule r. */
static int keeps(const space *sp, const space_rule *r, const double *x)
{
    double sum = 0;
    int run = 0;
    for (int k = 0; k < r->n; k++) {
        int i = r->slot[k];
        if (!space_is_active(sp, x, i)) continue;
        sum += r->weight[k] * x[i];
        run = r->run && r->mask[k] >> (int)x[i] & 1 ? run + 1 : 0;
        if (run > r->run) return 0;
    }
    return r->run || sum <= r->at_most;
}

static int feasible(void *user, const double *x)
{
    const space *sp = &((const journal *)user)->sp;
    for (int k = 0; k < sp->n_rule; k++)
        if (!keeps(sp, &sp->rule[k], x)) return 0;
    return 1;
}

/* Changes x so that it keeps the rules on runs: a run that is too long is ended by the first choice
   that is allowed. Rules on sums are not repaired. */
static void repair(void *user, double *x)
{
    const space *sp = &((const journal *)user)->sp;
    for (const space_rule *r = sp->rule; r < sp->rule + sp->n_rule; r++)
        for (int k = 0, run = 0; k < r->n && r->run; k++) {
            int i = r->slot[k], c = 0;
            if (!space_is_active(sp, x, i)) continue;
            run = r->mask[k] >> (int)x[i] & 1 ? run + 1 : 0;
            if (run <= r->run) continue;
            while (c < n_choices(sp, i) && r->mask[k] >> c & 1) c++;
            if (c == n_choices(sp, i)) return;
            x[i] = c;
            run = 0;
        }
}

static int append(void *user, const char *line, size_t bytes)
{
    FILE *f = ((journal *)user)->f;
    return !f || fwrite(line, 1, bytes, f) != bytes || fflush(f) || fsync(fileno(f));
}

void space_rules(journal *j, flash_search_desc *d)
{
    d->feasible = j->sp.n_rule ? feasible : NULL;
    d->repair = j->sp.n_rule ? repair : NULL;
    d->user = j;
}

static double known(void *user, const double *x)
{
    const space *sp = &((journal *)user)->sp;
    return sp->known(sp->known_user, x);
}

/* Creates j->s, a search of j's space with at most max_trials trials. */
static void create(journal *j, int max_trials)
{
    flash_search_desc d = {0};
    flash_error err;
    const space *sp = &j->sp;
    int plenty = sp->trials / 5 < 2 * sp->n_param ? sp->trials / 5 : 2 * sp->n_param;
    d.param = sp->param;
    d.n_param = sp->n_param;
    d.n_objective = sp->n_objective;
    d.n_constraint = sp->n_constraint;
    space_rules(j, &d);
    d.journal = append;
    d.reference = sp->has_reference ? sp->reference : NULL;
    d.method = sp->method;
    d.seed = sp->seed;
    d.max_trials = max_trials;
    d.initial = sp->initial ? sp->initial : plenty > 5 ? plenty : 5; /* does not use max_trials */
    d.population = sp->population;
    d.noisy = sp->noisy;
    d.noise = sp->has_noise ? sp->noise : NULL;
    if (sp->known) d.known[sp->known_at] = known;
    if (flash_search_create(&j->s, &d, &err)) cli_fail("%s: %s", reading, err.text);
}

/* ---- journals -------------------------------------------------------------------------- */

static const char title[] = "{\"flash-space\":1,\"space\":";

static uint32_t hash(const char *p, size_t n)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; n; n--) h = (h ^ (unsigned char)*p++) * 16777619u;
    return h;
}

static void write_title(journal *j)
{
    text t = {NULL, 0, 0};
    add(&t, "%s{\"parameters\":[", title);
    for (int i = 0; i < j->sp.n_param; i++) {
        add(&t, i ? "," : "");
        write_parameter(&t, &j->sp, i);
    }
    add(&t, "]");
    for (int k = 0; k < PARTS; k++) write_part(&t, &j->sp, k);
    add(&t, "}");
    add(&t, ",\"sum\":\"%08lx\"}\n", (unsigned long)hash(t.at, t.n));
    if (append(j, t.at, t.n)) cli_fail("cannot write %s: %s", j->path, strerror(errno));
    free(t.at);
}

/* Reads the space from the first line of a journal, [n] without its newline. */
static void read_title(journal *j, const char *line, size_t n)
{
    json_error err;
    if (n < sizeof title - 1 || memcmp(line, title, sizeof title - 1))
        cli_fail("%s is no journal of flash search", j->path);
    if (n < SUM || memcmp(line + n - SUM, ",\"sum\":\"", 8) || memcmp(line + n - 2, "\"}", 2)
        || strtoul(line + n - 10, NULL, 16) != hash(line, n - SUM))
        cli_fail("%s, line 1: damaged", j->path);
    memset(&j->sp, 0, sizeof j->sp);
    reading = j->path;
    j->sp.doc = json_read(line, n, 0, &err);
    if (!j->sp.doc) cli_fail("%s, line %d, column %d: %s", j->path, err.line, err.column, err.text);
    read_space(json_get(j->sp.doc, "space"), &j->sp);
}

/* Returns the number of trials in lines of a journal. */
static int count_trials(const char *p, const char *end)
{
    int n = 0;
    for (; p && end - p > 6 && n < INT32_MAX; p = memchr(p, '\n', (size_t)(end - p))) {
        p += *p == '\n';
        n += end - p > 6 && (!memcmp(p, "{\"ask\"", 6) || !memcmp(p, "{\"add\"", 6));
    }
    return n;
}

/* Replays all lines after the first. Returns how many bytes of the file are complete lines. */
static size_t replay(journal *j, const char *file, size_t bytes)
{
    flash_error err;
    const char *rest = (const char *)memchr(file, '\n', bytes) + 1;
    flash_status status = flash_search_replay(j->s, rest, bytes - (size_t)(rest - file), &err);
    if (!status) return bytes;
    if (status == FLASH_E_FORMAT) { /* the library counts from the second line */
        int line = 2;
        const char *why = strchr(err.text, ':');
        for (uint64_t i = 0; i < err.offset; i++) line += rest[i] == '\n';
        cli_fail("%s, line %d%s", j->path, line, why ? why : ": damaged");
    }
    if (status != FLASH_E_TRUNCATED) cli_fail("%s: %s", j->path, err.text);
    return (size_t)(rest - file) + (size_t)err.offset;
}

static void lock(journal *j, int wait)
{
#if !defined(_WIN32) && !defined(__wasm__)
    struct flock l = {0};
    double from = cli_seconds();
    l.l_type = F_WRLCK;
    l.l_whence = SEEK_SET;
    while (fcntl(fileno(j->f), F_SETLK, &l)) {
        struct timespec pause = {0, 20000000};
        if (errno != EACCES && errno != EAGAIN && errno != EINTR)
            cli_fail("cannot lock %s: %s", j->path, strerror(errno));
        if (!wait || cli_seconds() > from + LOCK_SECONDS)
            cli_fail("another flash search works with %s", j->path);
        nanosleep(&pause, NULL);
    }
#else
    (void)j, (void)wait;
#endif
}

static void open_file(journal *j)
{
    struct stat st;
#if !defined(_WIN32) && !defined(__wasm__)
    int f = open(j->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    j->f = f < 0 ? NULL : fdopen(f, "r+b");
#else
    j->f = fopen(j->path, "r+b");
    if (!j->f) j->f = fopen(j->path, "w+b");
#endif
    if (!j->f) cli_fail("cannot open %s: %s", j->path, strerror(errno));
    if (fstat(fileno(j->f), &st) || !S_ISREG(st.st_mode))
        cli_fail("%s is there and not a file: choose another name", j->path);
}

static char *read_file(journal *j, size_t *bytes)
{
    size_t cap = 1 << 16, got;
    char *file = malloc(cap);
    for (*bytes = 0; file && (got = fread(file + *bytes, 1, cap - *bytes, j->f)) > 0;) {
        *bytes += got;
        if (*bytes == cap) file = realloc(file, cap *= 2);
    }
    if (!file) cli_fail("out of memory");
    if (ferror(j->f)) cli_fail("cannot read %s: %s", j->path, strerror(errno));
    return file;
}

static void cut(journal *j, size_t bytes)
{
    if (ftruncate(fileno(j->f), (off_t)bytes))
        cli_fail("cannot cut %s: %s", j->path, strerror(errno));
}

void journal_open(journal *j, const char *path, space *sp, int trials, uint64_t seed, int wait)
{
    size_t bytes, whole;
    const char *first;
    memset(j, 0, sizeof *j);
    j->path = path;
    j->sp = *sp;
    if (seed != UINT64_MAX) j->sp.seed = seed;
    if (trials) j->sp.trials = trials;
    create(j, j->sp.trials); /* finds errors of the space before there is a file */
    open_file(j);
    lock(j, wait);
    char *file = read_file(j, &bytes);
    first = memchr(file, '\n', bytes);
    if (!first && memcmp(file, title, bytes < sizeof title - 1 ? bytes : sizeof title - 1))
        cli_fail("%s is no journal of flash search", path);
    if (first) read_title(j, file, (size_t)(first - file));
    if (!first || !memchr(first + 1, '\n', bytes - (size_t)(first + 1 - file))) {
        if (bytes && !first) cli_note("%s: its only line is torn; begun anew", path);
        if (first) { /* no trial yet: the space may change */
            space_free(&j->sp);
            j->sp = *sp;
            j->sp.seed = seed != UINT64_MAX ? seed : sp->seed;
            j->sp.trials = trials ? trials : sp->trials;
        }
        cut(j, 0);
        rewind(j->f);
        write_title(j);
    } else {
        int had = count_trials(first + 1, file + bytes);
        need_same(j, sp);
        if (seed != UINT64_MAX && seed != j->sp.seed)
            cli_fail("%s has seed %llu: choose another journal for another one", path,
                     (unsigned long long)j->sp.seed);
        if (!trials) trials = sp->trials;
        j->sp.known = sp->known;
        j->sp.known_user = sp->known_user;
        j->sp.known_at = sp->known_at;
        flash_search_free(j->s);
        create(j, trials > had ? trials : had);
        whole = replay(j, file, bytes);
        if (whole < bytes) {
            cli_note("%s: its last line is torn; cut off", path);
            cut(j, whole);
        }
        if (fseek(j->f, 0, SEEK_END)) cli_fail("cannot write %s: %s", path, strerror(errno));
        space_free(sp);
    }
    j->trials = trials ? trials : sp->trials;
    free(file);
}

void journal_view(journal *j, const char *path)
{
    size_t bytes;
    char *file = cli_read(path, &bytes), *first = memchr(file, '\n', bytes);
    memset(j, 0, sizeof *j);
    j->path = path;
    if (!first) cli_fail("%s is no journal of flash search, or nothing is in it yet", path);
    read_title(j, file, (size_t)(first - file));
    int had = count_trials(first + 1, file + bytes);
    create(j, had ? had : 1);
    if (replay(j, file, bytes) < bytes) cli_note("%s: its last line is torn; left out", path);
    free(file);
}

void journal_close(journal *j)
{
    flash_search_free(j->s);
    if (j->f && fclose(j->f)) cli_fail("cannot write %s: %s", j->path, strerror(errno));
    space_free(&j->sp);
}

/* ---- trials as text ---------------------------------------------------------------------- */

void space_cell(const space *sp, const double *x, int i, char to[SPACE_CELL])
{
    if (!space_is_active(sp, x, i))
        *to = 0;
    else if (n_choices(sp, i))
        snprintf(to, SPACE_CELL, "%s", sp->choice[i][(int)x[i]]);
    else
        space_number(x[i], to);
}

void space_write_trial(FILE *f, const space *sp, const flash_trial *trial)
{
    text t = {NULL, 0, 0};
    char cell[SPACE_CELL];
    const char *comma = "";
    add(&t, "{\"id\":%d,\"x\":{", trial->id);
    for (int i = 0; i < sp->n_param; i++) {
        if (!space_is_active(sp, trial->x, i)) continue;
        add(&t, "%s", comma);
        add_text(&t, sp->param[i].name);
        add(&t, ":");
        space_cell(sp, trial->x, i, cell);
        if (n_choices(sp, i))
            add_text(&t, cell);
        else
            add(&t, "%s", cell);
        comma = ",";
    }
    add(&t, "}}\n");
    fputs(t.at, f);
    free(t.at);
}

int space_parse(const space *sp, int i, const char *s, double *x)
{
    char *end;
    if (n_choices(sp, i)) {
        *x = find_choice(sp, i, s);
        return *x >= 0;
    }
    *x = strtod(s, &end);
    return end > s && !*end && isfinite(*x);
}

static int values_wrong(char why[SPACE_CELL + 60], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, SPACE_CELL + 60, format, args);
    va_end(args);
    return -1;
}

static int json_values(const space *sp, const json *j, int n, double *y, char *why)
{
    int found = 0;
    const json *v = j->child;
    if (j->type == JSON_LIST && j->n != n) return values_wrong(why, "%d values, want %d", j->n, n);
    for (int k = 0; k < n; k++) found += json_get(j, sp->value[k]) != NULL;
    if (j->type == JSON_OBJECT && !found) return 0;
    for (int k = 0; k < n; k++, v = v ? v->next : NULL) {
        const json *at = j->type == JSON_LIST ? v : json_get(j, sp->value[k]);
        if (!at) return values_wrong(why, "no %s", sp->value[k]);
        if (at->type != JSON_NUMBER) return values_wrong(why, "%s is no number", sp->value[k]);
        y[k] = at->number;
    }
    return 1;
}

int space_values(const space *sp, const char *line, int n, double *y, char why[SPACE_CELL + 60])
{
    static const char blank[] = " \t\r,";
    int got = 0, state = 1;
    line += strspn(line, blank);
    if (*line == '{' || *line == '[') {
        json_error err;
        json *j = json_read(line, strlen(line), 1, &err);
        if (!j) {
            values_wrong(why, "column %d of its line: %.60s", err.column, err.text);
            return 0;
        }
        state = json_values(sp, j, n, y, why);
        json_free(j);
    } else {
        for (char *end; *line; line = end + strspn(end, blank), got++) {
            double v = strtod(line, &end);
            if (end == line || !(*end == 0 || strchr(blank, *end))) return 0;
            if (got < n) y[got] = v;
        }
        if (!got) return 0;
        if (got != n) return values_wrong(why, "%d value%s, want %d", got, got > 1 ? "s" : "", n);
    }
    for (int k = 0; state > 0 && k < n; k++)
        if (!(fabs(y[k]) < 1e300)) return values_wrong(why, "%s is %g", sp->value[k], y[k]);
    return state;
}

int space_count(const flash_search *s)
{
    flash_trial t;
    int lo = 0, hi = FLASH_SEARCH_TRIALS_MAX;
    while (lo < hi) {
        int middle = (lo + hi + 1) / 2;
        if (flash_search_trial(s, middle, &t))
            hi = middle - 1;
        else
            lo = middle;
    }
    return lo;
}

int *space_front(flash_search *s, int *n)
{
    int cap = space_count(s), *ids = malloc(((size_t)cap + 1) * sizeof *ids);
    if (!ids) cli_fail("out of memory");
    *n = flash_search_front(s, ids, cap);
    return ids;
}

/* Writes column c of a table: its name if t is NULL, else the value of t there. */
static void table_cell(const space *sp, const flash_trial *t, int c, char to[SPACE_CELL])
{
    int values = space_n_values(sp);
    if (!c)
        snprintf(to, SPACE_CELL, t ? "%d" : "trial", t ? t->id : 0);
    else if (!t)
        snprintf(to, SPACE_CELL, "%s",
                 c <= values ? sp->value[c - 1] : sp->param[c - 1 - values].name);
    else if (c <= values)
        snprintf(to, SPACE_CELL, "%.6g", t->y[c - 1]);
    else if (sp->param[c - 1 - values].kind >= FLASH_PARAM_REAL
             && space_is_active(sp, t->x, c - 1 - values))
        snprintf(to, SPACE_CELL, "%.6g", t->x[c - 1 - values]);
    else
        space_cell(sp, t->x, c - 1 - values, to);
    if (!*to) strcpy(to, "-");
}

static int width(const char *s) /* [characters] */
{
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void figure(const char *name, double v)
{
    if (v >= 0) printf(" %s=%.4g", name, v);
}

void space_print_front(const space *sp, flash_search *s)
{
    flash_search_summary sum;
    flash_trial t;
    char cell[SPACE_CELL];
    int n, *ids = space_front(s, &n), columns = 1 + space_n_values(sp) + sp->n_param;
    int wide[1 + FLASH_SEARCH_VALUES_MAX + FLASH_SEARCH_PARAMS_MAX] = {0};
    for (int print = 0; print < 2; print++)
        for (int row = -1; row < n && n; row++) {
            if (row >= 0) flash_search_trial(s, ids[row], &t);
            for (int c = 0; c < columns; c++) {
                table_cell(sp, row < 0 ? NULL : &t, c, cell);
                int w = width(cell);
                if (print)
                    printf("%*s%s%s", wide[c] - w + (c ? 2 : 0), "", cell,
                           c + 1 < columns ? "" : "\n");
                else if (w > wide[c])
                    wide[c] = w;
            }
        }
    free(ids);
    flash_search_summarize(s, &sum);
    printf("search trials=%d done=%d failed=%d abandoned=%d pending=%d front=%d hypervolume=%.6g "
           "reference=",
           sum.trials, sum.done, sum.failed, sum.abandoned, sum.pending, sum.front,
           sum.hypervolume);
    for (int k = 0; k < sp->n_objective; k++) printf("%s%.6g", k ? "," : "", sum.reference[k]);
    figure("gain", sum.gain);
    figure("expected", sum.expected);
    putchar('\n');
}
