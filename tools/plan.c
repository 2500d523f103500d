/* plan.c - see plan.h. */
#include "plan.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Roles of parameters that are not those of a layer. LOOKS: number of parts of a trial's steps,
   after each of which its loss is computed. */
enum { LAYERS = -1, D_MODEL = -2, D_FFN = -3, KV_HEADS = -4, LOOKS = 4 };

static void *need(void *p)
{
    if (!p) cli_fail("out of memory");
    return p;
}

/* ---- the plan as text ---------------------------------------------------------------- */

typedef struct text {
    char *at;
    size_t n, cap;
} text;

/* Appends text, less than 400 bytes at a time. */
static void add(text *t, const char *format, ...)
{
    va_list args;
    char some[400];
    va_start(args, format);
    size_t n = (size_t)vsnprintf(some, sizeof some, format, args);
    va_end(args);
    if (t->n + n + 1 > t->cap) t->at = need(realloc(t->at, t->cap = 2 * (t->n + n) + 256));
    memcpy(t->at + t->n, some, n + 1);
    t->n += n;
}

static void add_name(text *t, const char *s)
{
    add(t, "\"");
    for (; *s; s++)
        add(t, *s == '"' || *s == '\\' ? "\\%c" : (unsigned char)*s < ' ' ? "\\u%04x" : "%c", *s);
    add(t, "\"");
}

static void add_names(text *t, const char *key, const cli_texts *names)
{
    add(t, ",\"%s\":[", key);
    for (int i = 0; i < names->n; i++) {
        add(t, i ? "," : "");
        add_name(t, names->at[i]);
    }
    add(t, "]");
}

char *plan_text(const plan *p)
{
    const char *names[4][2] = {{"backbone", p->backbone},
                               {"calibration", p->calibration},
                               {"latency", p->latency},
                               {"space", p->space}};
    text t = {NULL, 0, 0};
    add(&t, "{\"flash-design\":1");
    for (int i = 0; i < 4; i++) {
        add(&t, ",\"%s\":", names[i][0]);
        add_name(&t, names[i][1]);
    }
    add_names(&t, "data", &p->data);
    add_names(&t, "held_out", &p->held_out);
    add(&t, ",\"prompt\":%d,\"threads\":%d,\"chunk\":%d,\"type\":\"%s\",\"kv\":\"%s\"", p->prompt,
        p->threads, p->chunk, flash_type_name(p->type), flash_type_name(p->kv));
    add(&t, ",\"ctx\":%d,\"batch\":%d,\"steps\":%d,\"final_steps\":%d", p->ctx, p->batch, p->steps,
        p->final_steps);
    add(&t, ",\"lr\":%.9g,\"seed\":%llu", p->lr, (unsigned long long)p->seed);
    add(&t, ",\"sum\":\"%016llx\"}\n", (unsigned long long)p->sum);
    return t.at;
}

uint64_t plan_sum(const plan *p)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (int i = -2; i < p->data.n + p->held_out.n; i++) {
        size_t bytes;
        char *file = cli_read(i == -2             ? p->backbone
                                  : i == -1       ? p->space
                                  : i < p->data.n ? p->data.at[i]
                                                  : p->held_out.at[i - p->data.n],
                              &bytes);
        for (size_t k = 0; k < bytes; k++) h = (h ^ (unsigned char)file[k]) * 1099511628211u;
        free(file);
    }
    return h;
}

static const json *member(const plan *p, const char *key, json_type type)
{
    const json *j = json_get(p->doc, key);
    if (!j || j->type != type)
        cli_fail("%s: no plan of flash design: \"%s\" is missing, or not what it should be",
                 p->path, key);
    return j;
}

/* Returns the value of key, a whole number from 1 to hi. */
static int whole(const plan *p, const char *key, int hi)
{
    double v = member(p, key, JSON_NUMBER)->number;
    if (!(v >= 1 && v <= hi) || v > floor(v))
        cli_fail("%s: \"%s\" is not from 1 to %d", p->path, key, hi);
    return (int)v;
}

static void names_of(const plan *p, const char *key, cli_texts *to)
{
    const json *j = member(p, key, JSON_LIST)->child;
    for (to->n = 0; j; j = j->next) {
        if (j->type != JSON_TEXT || to->n == (int)(sizeof to->at / sizeof *to->at))
            cli_fail("%s: \"%s\" is no list of names", p->path, key);
        to->at[to->n++] = j->text;
    }
}

void plan_read(const char *path, plan *p)
{
    size_t bytes;
    char *file = cli_read(path, &bytes);
    json_error err;
    memset(p, 0, sizeof *p);
    p->path = path;
    p->doc = json_read(file, bytes, 0, &err);
    if (!p->doc || p->doc->type != JSON_OBJECT) cli_fail("%s is no plan of flash design", path);
    whole(p, "flash-design", 1);
    p->backbone = member(p, "backbone", JSON_TEXT)->text;
    p->calibration = member(p, "calibration", JSON_TEXT)->text;
    p->latency = member(p, "latency", JSON_TEXT)->text;
    p->space = member(p, "space", JSON_TEXT)->text;
    names_of(p, "data", &p->data);
    names_of(p, "held_out", &p->held_out);
    p->prompt = whole(p, "prompt", FLASH_CONTEXT_MAX);
    p->threads = whole(p, "threads", FLASH_THREADS_MAX);
    p->chunk = whole(p, "chunk", FLASH_CONTEXT_MAX);
    p->type = flash_type_parse(member(p, "type", JSON_TEXT)->text);
    p->kv = flash_type_parse(member(p, "kv", JSON_TEXT)->text);
    p->ctx = whole(p, "ctx", FLASH_CONTEXT_MAX);
    p->batch = whole(p, "batch", 1 << 16);
    p->steps = whole(p, "steps", 1000000000);
    p->final_steps = whole(p, "final_steps", 1000000000);
    p->lr = member(p, "lr", JSON_NUMBER)->number;
    p->seed = strtoull(member(p, "seed", JSON_NUMBER)->text, NULL, 10);
    p->sum = strtoull(member(p, "sum", JSON_TEXT)->text, NULL, 16);
    if (p->type == FLASH_TYPE_NONE || p->kv == FLASH_TYPE_NONE || !(p->lr > 0 && p->lr < 100))
        cli_fail("%s: \"type\", \"kv\" or \"lr\" is none", path);
    free(file);
}

/* ---- the space ------------------------------------------------------------------------ */

/* Returns the role of the parameter of that name: LAYERS to KV_HEADS, the number of a layer ("p3":
   3), or FLASH_LAYERS_MAX if it has none. */
static int role_of(const char *name, int layers)
{
    static const char *const known[] = {"layers", "d_model", "d_ffn", "kv_heads"};
    const char *rest = name + 1;
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, known[i])) return -1 - i;
    long n = *name == 'p' ? cli_number(&rest) : -1;
    return n >= 0 && n < layers && !*rest ? (int)n : FLASH_LAYERS_MAX;
}

static double highest(const flash_param *q)
{
    return q->kind == FLASH_PARAM_ORDINAL ? q->value[q->n_value - 1] : q->hi;
}

/* Sets p->role. Fails unless the backbone can be cut to every value of every parameter. */
static void check_space(plan *p)
{
    const flash_arch *a = flash_model_arch(p->m);
    const space *sp = &p->sp;
    for (int i = 0; i < sp->n_param; i++) {
        const flash_param *q = &sp->param[i];
        int role = p->role[i] = role_of(q->name, a->n_layer), most = 0;
        if (role == FLASH_LAYERS_MAX)
            cli_fail("%s: parameter %s: want layers, d_model, d_ffn, kv_heads, or p0 to p%d: %s "
                     "has %d layers",
                     p->space, q->name, a->n_layer - 1, p->backbone, a->n_layer);
        if (role >= 0 && q->kind != FLASH_PARAM_CATEGORY)
            cli_fail("%s: parameter %s: what a layer does is a \"choice\"", p->space, q->name);
        for (int c = 0; role >= 0 && c < q->n_value; c++) {
            flash_arch like = *a;
            flash_error err;
            if (strchr(sp->choice[i][c], ',') || strlen(sp->choice[i][c]) > 20)
                cli_fail("%s: parameter %s: %.60s: want full, window:N, skip or keep", p->space,
                         q->name, sp->choice[i][c]);
            if (flash_attention_parse(&like, sp->choice[i][c], &err))
                cli_fail("%s: parameter %s: %s: %s", p->space, q->name, sp->choice[i][c], err.text);
        }
        if (role >= 0) continue;
        if (q->kind != FLASH_PARAM_INTEGER && q->kind != FLASH_PARAM_ORDINAL)
            cli_fail("%s: parameter %s: want \"integer\" or \"ordinal\"", p->space, q->name);
        for (int l = 0; l < a->n_layer; l++) {
            int d_ffn = a->layer[l].d_ffn, kv = a->layer[l].n_kv_head;
            int part = role == D_FFN ? d_ffn : role == KV_HEADS ? kv : 0;
            most = part > most ? part : most;
        }
        most = role == LAYERS ? a->n_layer : role == D_MODEL ? a->d_model : most;
        if (highest(q) > most)
            cli_fail("%s: %s up to %g, but %s has %d", p->space, q->name, highest(q), p->backbone,
                     most);
    }
    if (sp->n_objective != 2 || strcmp(sp->value[0], "loss") || strcmp(sp->value[1], "ttft")
        || sp->n_constraint)
        cli_fail("%s: want \"objectives\": [\"loss\", \"ttft\"] and no constraints", p->space);
}

void plan_candidate(const plan *p, const double *x, candidate *c)
{
    const char *mix[FLASH_LAYERS_MAX] = {0};
    size_t n = 0;
    int some = 0;
    c->layers = c->d_model = c->d_ffn = c->kv_heads = 0;
    for (int i = 0; i < p->sp.n_param; i++) {
        int v = (int)x[i], role = p->role[i];
        *(role == LAYERS         ? &c->layers
              : role == D_MODEL  ? &c->d_model
              : role == D_FFN    ? &c->d_ffn
              : role == KV_HEADS ? &c->kv_heads
                                 : &v) = v;
        if (role >= 0) mix[role] = p->sp.choice[i][v];
        some |= role >= 0;
    }
    *c->attn = 0;
    for (int l = 0; some && l < (c->layers ? c->layers : flash_model_arch(p->m)->n_layer); l++)
        n += (size_t)snprintf(c->attn + n, sizeof c->attn - n, "%s%.20s", l ? "," : "",
                              mix[l] ? mix[l] : "keep");
}

char *candidate_options(const candidate *c, char to[PLAN_ATTN + 128])
{
    const struct {
        const char *name;
        int v;
    } size[] = {{"--layers", c->layers},
                {"--d-model", c->d_model},
                {"--d-ffn", c->d_ffn},
                {"--kv-heads", c->kv_heads}};
    size_t n = 0;
    *to = 0;
    for (int i = 0; i < 4; i++)
        if (size[i].v)
            n += (size_t)snprintf(to + n, 64, "%s%s %d", n ? " " : "", size[i].name, size[i].v);
    if (*c->attn) snprintf(to + n, PLAN_ATTN + 64, "%s--attn %s", n ? " " : "", c->attn);
    return to;
}

void candidate_arch(const plan *p, const candidate *c, flash_arch *a)
{
    flash_prune_desc d;
    flash_error err;
    memset(&d, 0, sizeof d);
    d.model = p->m;
    d.n_layer = c->layers;
    d.d_model = c->d_model;
    d.d_ffn = c->d_ffn;
    d.n_kv_head = c->kv_heads;
    if (flash_prune_arch(&d, a, &err) || (*c->attn && flash_attention_parse(a, c->attn, &err)))
        cli_fail("%s: %s", p->backbone, err.text);
}

int candidate_is_deci(const plan *p, const candidate *c)
{
    flash_arch a;
    candidate_arch(p, c, &a);
    for (int l = 0; l < a.n_layer; l++)
        if (a.layer[l].attention != FLASH_ATTENTION_FULL
            && (!l || a.layer[l].attention != FLASH_ATTENTION_SKIP))
            return 0;
    return 1;
}

int candidate_times(const plan *p, const candidate *c, flash_interval *ttft, flash_interval *decode)
{
    flash_arch a;
    flash_workload w = {&a, p->type, p->kv, p->threads, p->chunk, p->prompt, p->prompt};
    candidate_arch(p, c, &a);
    return !flash_latency_predict(p->l, &w, ttft, decode);
}

/* ---- opening --------------------------------------------------------------------------- */

void plan_fit(plan *p, flash_model *m)
{
    p->m = m;
    space_read(p->space, &p->sp);
    check_space(p);
}

void plan_device(plan *p)
{
    candidate whole = {0, 0, 0, 0, ""};
    flash_interval ttft;
    flash_error err;
    size_t bytes;
    char *text = cli_read(p->latency, &bytes);
    if (flash_latency_load(&p->l, text, bytes, NULL, &err)) cli_fail_file(p->latency, &err);
    free(text);
    if (!candidate_times(p, &whole, &ttft, NULL))
        cli_fail("%s: it predicts nothing for %s weights, %s keys and values, %d threads and "
                 "chunks of %d; choose those it was measured with: --type --kv -t --chunk",
                 p->latency, flash_type_name(p->type), flash_type_name(p->kv), p->threads,
                 p->chunk);
}

void plan_texts(plan *p)
{
    size_t row = (size_t)p->ctx + 1, all;
    calibration_load(p->calibration, &p->k, flash_model_arch(p->m));
    p->ids = cli_text_ids(p->m, &p->data, &p->n);
    int32_t *test = cli_text_ids(p->m, &p->held_out, &all);
    if (p->n < row || all < row)
        cli_fail("%s: %lu tokens; sequences of %d need %lu at least: give more text, or a smaller "
                 "--ctx",
                 p->n < row ? p->data.at[0] : p->held_out.at[0],
                 (unsigned long)(p->n < row ? p->n : all), p->ctx, (unsigned long)row);
    p->tests = (int)(all / row < PLAN_TESTS_MAX ? all / row : PLAN_TESTS_MAX);
    p->test = need(malloc((size_t)p->tests * row * sizeof *p->test));
    for (int i = 0; i < p->tests; i++) /* evenly spread over the held-out text */
        memcpy(p->test + (size_t)i * row,
               test + (p->tests > 1 ? (all - row) / (size_t)(p->tests - 1) * (size_t)i : 0),
               row * sizeof *test);
    free(test);
}

void plan_open(plan *p)
{
    flash_model_desc md = {0};
    md.source.path = p->backbone;
    plan_fit(p, cli_load(&md));
    plan_device(p);
    plan_texts(p);
}

void plan_close(plan *p)
{
    flash_latency_free(p->l);
    flash_calibration_free(p->k.c);
    flash_model_free(p->m);
    free(p->ids);
    free(p->test);
    json_free(p->doc);
}

/* ---- candidates ------------------------------------------------------------------------ */

flash_model *candidate_model(const plan *p, const candidate *c, cli_image *image)
{
    static cut k; /* static as it is large */
    flash_model_desc md = {0};
    flash_model *m;
    flash_error err;
    memset(&k, 0, sizeof k);
    memset(image, 0, sizeof *image);
    k.model = p->m;
    k.k = &p->k;
    k.layers = c->layers;
    k.d_model = c->d_model;
    k.d_ffn = c->d_ffn;
    k.kv_heads = c->kv_heads;
    k.block = 1;
    k.d.type = FLASH_TYPE_F32;
    k.d.retype = 1;
    cut_choose(&k);
    if (flash_prune_write(&k.d, cli_image_add, image, &err))
        cli_fail("%s: %s", p->backbone, err.text);
    cut_free(&k);
    md.source.data = image->data;
    md.source.bytes = image->bytes;
    md.attention = *c->attn ? c->attn : NULL;
    if (flash_model_load(&m, &md, &err)) cli_fail("%s: %s", p->backbone, err.text);
    return m;
}

flash_trainer *heal_begin(const plan *p, const flash_model *m, int scratch, int steps, int threads)
{
    flash_trainer_desc d;
    flash_trainer *t;
    flash_error err;
    memset(&d, 0, sizeof d);
    d.init = scratch ? NULL : m;
    d.arch = flash_model_arch(m);
    d.teacher = p->m;
    d.kl_weight = !scratch;
    d.ce_weight = (float)scratch;
    d.batch = p->batch;
    d.n_ctx = p->ctx;
    d.threads = threads;
    d.steps = steps;
    d.lr = (float)(scratch ? 4 * p->lr : p->lr);
    d.warmup = steps / 10 < 100 ? steps / 10 : 100;
    d.weight_decay = .1f;
    d.seed = p->seed;
    if (flash_trainer_create(&t, &d, &err)) cli_fail("%s: %s", p->backbone, err.text);
    return t;
}

void heal_step(const plan *p, flash_trainer *t)
{
    size_t row = (size_t)p->ctx + 1;
    int32_t *tokens = need(malloc((size_t)p->batch * row * sizeof *tokens));
    uint64_t state = p->seed * 0x9e3779b97f4a7c15u + flash_trainer_steps(t);
    for (int i = 0; i < p->batch; i++)
        memcpy(tokens + (size_t)i * row, p->ids + cli_random(&state) % (p->n - row + 1),
               row * sizeof *tokens);
    if (flash_trainer_step(t, tokens, NULL))
        cli_fail("step %llu: loss or gradient is no number; a lower --lr helps",
                 (unsigned long long)flash_trainer_steps(t) + 1);
    free(tokens);
}

double heal_score(const plan *p, flash_trainer *t, double *each, int *n, double *kl)
{
    flash_trainer_report r;
    double sum = 0, apart = 0;
    int done = 0;
    for (int i = 0; i < p->tests; i += PLAN_EVERY) {
        if (flash_trainer_evaluate(t, p->test + (size_t)i * ((size_t)p->ctx + 1), 1, &r))
            cli_fail("the loss of the held-out text is no number");
        if (each) each[done] = r.ce;
        sum += r.ce;
        apart += r.kl;
        done++;
    }
    if (kl) *kl = apart / done;
    if (n) *n = done;
    return sum / done;
}

typedef struct sum {
    const int32_t *ids;
    int n;
    double loss;
} sum;

/* Adds the loss of the next token to s->loss; a cli_each. */
static void add_loss(void *user, int position, const float *logits, double log_sum)
{
    sum *s = user;
    if (position + 1 < s->n) s->loss += log_sum - logits[s->ids[position + 1]];
}

double model_score(const plan *p, const flash_model *m, int threads, double *each)
{
    flash_session_desc d;
    double mean = 0;
    memset(&d, 0, sizeof d);
    d.n_ctx = p->ctx + 1;
    d.threads = threads;
    d.kv = p->kv;
    d.all_logits = 1;
    flash_session *s = cli_session(m, &d);
    for (int i = 0; i < p->tests; i++) {
        sum one = {p->test + (size_t)i * ((size_t)p->ctx + 1), p->ctx + 1, 0};
        flash_session_reset(s);
        cli_logits(s, m, one.ids, (size_t)p->ctx + 1, add_loss, &one);
        if (each) each[i] = one.loss / p->ctx;
        mean += one.loss / p->ctx / p->tests;
    }
    flash_session_free(s);
    return mean;
}

/* ---- trial files ------------------------------------------------------------------------- */

/* Returns 1 if the parameter q may have the value v. */
static int is_value(const flash_param *q, double v)
{
    if (q->kind == FLASH_PARAM_CATEGORY) return 1;
    for (int i = 0; i < q->n_value; i++)
        if (!(v < q->value[i]) && !(v > q->value[i])) return 1;
    double steps = (v - q->lo) / (q->step > 0 ? q->step : 1);
    return q->kind == FLASH_PARAM_INTEGER && v >= q->lo && v <= q->hi && !(steps > floor(steps));
}

int trial_read(const plan *p, const char *path, double x[FLASH_SEARCH_PARAMS_MAX])
{
    size_t bytes;
    char *file = cli_read(path, &bytes);
    json_error err;
    json *j = json_read(file, bytes, 0, &err);
    const json *id = j && j->type == JSON_OBJECT ? json_get(j, "id") : NULL,
               *at = id ? json_get(j, "x") : NULL;
    if (!id || id->type != JSON_NUMBER || !(id->number >= 1 && id->number <= INT32_MAX) || !at
        || at->type != JSON_OBJECT)
        cli_fail("%s is no trial {\"id\":7,\"x\":{...}}", path);
    int n = (int)id->number, used = 0;
    for (int i = 0; i < p->sp.n_param; i++) {
        const flash_param *q = &p->sp.param[i];
        const json *v = json_get(at, q->name);
        x[i] = q->kind == FLASH_PARAM_CATEGORY ? 0 : q->value ? q->value[0] : q->lo;
        if (!space_is_active(&p->sp, x, i)) continue;
        if (!v || (v->type != JSON_NUMBER && v->type != JSON_TEXT)
            || !space_parse(&p->sp, i, v->text, &x[i]) || !is_value(q, x[i]))
            cli_fail("%s: %s is missing or not in %s", path, q->name, p->space);
        used++;
    }
    if (used != at->n)
        cli_fail("%s: there are values that %s has no parameters for", path, p->space);
    json_free(j);
    free(file);
    return n;
}

/* ---- results ------------------------------------------------------------------------------- */

/* Reads a result file: the line `what`, which says what the result is of, and a line of numbers.
   Returns 0 if there is no such file, or one of something else. */
static int result_read(const char *path, const char *what, result *r)
{
    FILE *f = fopen(path, "rb");
    size_t bytes, n = strlen(what);
    if (!f) return 0;
    fclose(f);
    char *text = cli_read(path, &bytes), *p = text + n;
    int good = bytes > n + 1 && !memcmp(text, what, n) && *p == '\n' && text[bytes - 1] == '\n';
    double *const to[] = {&r->loss, &r->kl, &r->unhealed, &r->unhealed_kl, &r->ttft};
    for (int i = 0; good && i < 5; i++) *to[i] = strtod(p, &p);
    r->n = good ? (int)strtol(p, &p, 10) : 0;
    good = r->n > 0 && r->n <= PLAN_TESTS_MAX;
    for (int i = 0; good && i < r->n; i++) r->each[i] = strtod(p, &p);
    free(text);
    return good;
}

static void result_write(const char *path, const char *what, const result *r)
{
    FILE *f = cli_open(path);
    fprintf(f, "%s\n%.17g %.17g %.17g %.17g %.17g %d", what, r->loss, r->kl, r->unhealed,
            r->unhealed_kl, r->ttft, r->n);
    for (int i = 0; i < r->n; i++) fprintf(f, " %.17g", r->each[i]);
    fputc('\n', f);
    cli_close(path);
}

void result_get(const plan *p, const candidate *c, int steps, int scratch, int threads,
                const char *path, int with_best, result *r)
{
    static char options[PLAN_ATTN + 128], what[PLAN_ATTN + 512];
    flash_interval ttft;
    cli_image image;
    double last, loss;
    int part = (steps + LOOKS - 1) / LOOKS;
    snprintf(what, sizeof what,
             "{\"options\":\"%s\",\"steps\":%d,\"scratch\":%d,\"sum\":\"%016llx\"}",
             candidate_options(c, options), steps, scratch, (unsigned long long)p->sum);
    if (path && result_read(path, what, r)) return;
    if (!candidate_times(p, c, &ttft, NULL))
        cli_fail("%s: it predicts no time for %s", p->latency, options);
    flash_model *m = candidate_model(p, c, &image);
    flash_trainer *t = heal_begin(p, m, scratch, steps, threads);
    r->ttft = ttft.mean;
    r->loss = r->unhealed = last = heal_score(p, t, r->each, &r->n, &r->kl);
    r->unhealed_kl = r->kl;
    for (int i = 1; i <= steps; i++) {
        heal_step(p, t);
        if (!with_best || i == steps || i % part) continue;
        loss = heal_score(p, t, NULL, NULL, NULL);
        if (i > part) { /* assumed: the steps left lower it by no more than the last part */
            printf("best %.17g %.17g\n", loss - fmax(last - loss, 0), ttft.mean);
            fflush(stdout);
        }
        last = loss;
    }
    if (steps) r->loss = heal_score(p, t, r->each, &r->n, &r->kl);
    if (path) result_write(path, what, r);
    flash_trainer_free(t);
    flash_model_free(m);
    free(image.data);
}
