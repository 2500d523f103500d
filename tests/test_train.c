/* The trainer: gradients, losses, steps, checkpoints, and what it refuses. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#define FLASH_KEEP_INTERNALS
#include "../flash.h"
#include "train.h"

static int quick;

/* --- against the runtime ---------------------------------------------------------------------- */

static mk_options shape(int layers, int d, int heads, int kv, int c, int ffn, int vocab)
{
    mk_options o;
    memset(&o, 0, sizeof o);
    o.n_layer = layers;
    o.d_model = d;
    o.n_head = heads;
    o.n_kv_head = kv;
    o.d_head = c;
    o.d_ffn = ffn;
    o.n_vocab = vocab;
    return o;
}

static flash_trainer_desc settings(const flash_model *init, int batch, int n_ctx)
{
    flash_trainer_desc d;
    memset(&d, 0, sizeof d);
    d.init = init;
    d.batch = batch;
    d.n_ctx = n_ctx;
    return d;
}

/* Returns the logits [n,V] that a session computes for all n tokens. The caller frees them. */
static float *session_logits(const flash_model *m, const int32_t *ids, int n)
{
    size_t V = (size_t)flash_model_arch(m)->n_vocab;
    float *out = (float *)malloc((size_t)n * V * sizeof *out);
    const float *p;
    int first, some;
    flash_session *s;
    flash_session_desc d;
    memset(&d, 0, sizeof d);
    d.all_logits = 1;
    d.n_ctx = n;
    CHECK(flash_session_create(&s, m, &d) == FLASH_OK);
    flash_session_feed(s, ids, (size_t)n);
    do {
        CHECK(flash_session_step(s, NULL) >= 0);
        p = flash_session_chunk_logits(s, &first, &some);
        memcpy(out + (size_t)first * V, p, (size_t)some * V * sizeof *out);
    } while (first + some < n);
    flash_session_free(s);
    return out;
}

/* Returns the larger number. In place of fmax, which makes gcc 12 for AArch64 fail in loops. */
static double larger(double a, double b) { return b > a ? b : a; }

static double log_total(const float *z, int V, double scale)
{
    double best = -1e300, sum = 0;
    for (int i = 0; i < V; i++) best = larger(best, z[i] * scale);
    for (int i = 0; i < V; i++) sum += exp(z[i] * scale - best);
    return best + log(sum);
}

static void test_logits(void)
{
    static const struct {
        const char *arch, *attn;
        int window, untied;
        const char *pattern;
    } list[] = {
        {"llama", "f", 0, 0, NULL},        {"llama", "f", 0, 1, "window:9,full"},
        {"qwen3", "f", 0, 0, NULL},        {"flash", "wsfon", 40, 0, NULL},
        {"deci", "fs", 0, 1, NULL},        {"smollm3", "f", 0, 0, NULL},
        {"llama", "f", 0, 0, "full,skip"}, {"qwen3", "f", 0, 0, "window:2,window:64,window:1"},
    };
    SECTION("logits = a session's");
    for (size_t k = 0; k < COUNT(list); k++) {
        mk_options o = shape(5, 48, 4, 2, 8, 80, 300);
        made m = make(&o, list[k].arch, list[k].attn, list[k].window, list[k].pattern);
        flash_trainer_desc d = settings(m.model, 1, 100);
        flash_trainer *t = trainer(&d);
        int32_t *ids = some_tokens(1, 100, 300);
        float *want = session_logits(m.model, ids, 100);
        flash_trainer_report r;
        double worst = 0;
        CHECK(flash_trainer_evaluate(t, ids, 1, &r) == FLASH_OK);
        for (int i = 0; i < 100 * 300; i++)
            worst = larger(worst, fabs((double)want[i] - (double)t->z[i]));
        CHECK(worst < 1e-4);
        free(want);
        free(ids);
        flash_trainer_free(t);
        unmake(&m);
    }
}

/* The weights of a quantised model and the list of tensors; the RoPE tables of Llama 3 and YaRN. */
static void test_weights(void)
{
    mk_options o = shape(2, 64, 4, 2, 16, 96, 320);
    made m, y;
    flash_trainer_tensor w;
    SECTION("weights");
    o.qkv = 8;
    o.ffn_up = 2;
    o.ffn_down = 6;
    o.embd = 1;
    m = make(&o, "qwen3", "f", 0, NULL);
    {
        flash_trainer_desc d = settings(m.model, 1, 32);
        flash_trainer *t = trainer(&d);
        size_t n = flash_trainer_tensors(t), matrices = 0, wrong = 0;
        CHECK_EQ(n, 2 + 2 * 11);
        for (size_t i = 0; i < n; i++) {
            flash_tensor f;
            float row[320];
            CHECK(flash_trainer_weights(t, i, &w) == FLASH_OK);
            CHECK(flash_gguf_find_tensor(flash_model_gguf(m.model), w.name, &f) == FLASH_OK);
            CHECK_EQ(f.ne[0], w.cols);
            CHECK_EQ(f.ne[1], w.rows);
            matrices += w.n_dims == 2;
            for (int r = 0; r < w.rows; r++) {
                flash_dequantize(f.type, f.data + (size_t)r * (f.bytes / f.ne[1]), row, f.ne[0]);
                wrong += memcmp(row, w.data + (size_t)r * (size_t)w.cols,
                                (size_t)w.cols * sizeof *row)
                    != 0;
            }
        }
        CHECK_EQ(matrices, 1 + 2 * 7);
        CHECK(!wrong);
        CHECK(flash_trainer_weights(t, n, &w) == FLASH_E_ARGUMENT);
        CHECK(flash_trainer_weights(NULL, 0, &w) == FLASH_E_ARGUMENT);
        CHECK(flash_trainer_arch(t)->n_layer == 2 && !flash_trainer_arch(NULL));
        flash_trainer_free(t);
    }
    unmake(&m);
    for (int k = 0; k < 2; k++) {
        mk_kind kind = {"llama", "f", 0};
        mk_options f32 = shape(2, 32, 4, 2, 8, 64, 200);
        mk_file *f = mk_model(&f32, &kind);
        flash_model_desc d;
        int32_t *ids = some_tokens(1, 90, 200);
        mk_set_text(f, "llama.rope.scaling.type", k ? "yarn" : "llama3");
        mk_set_f32(f, "llama.rope.scaling.factor", 4);
        mk_set_u32(f, "llama.rope.scaling.original_context_length", 64);
        if (!k) {
            uint64_t seed = 3;
            mk_add_tensor(f, "rope_freqs.weight", MK_F32, 4, 0, 2, 0.2, &seed);
        }
        memset(&d, 0, sizeof d);
        y.bytes = mk_emit(f, &d.source.bytes);
        d.source.data = y.bytes;
        mk_free(f);
        CHECK(flash_model_load(&y.model, &d, NULL) == FLASH_OK);
        flash_trainer_desc td = settings(y.model, 1, 90);
        flash_trainer *t = trainer(&td);
        flash_trainer_report r;
        float *want = session_logits(y.model, ids, 90);
        double worst = 0;
        flash_trainer_evaluate(t, ids, 1, &r);
        for (int i = 0; i < 90 * 200; i++)
            worst = larger(worst, fabs((double)want[i] - (double)t->z[i]));
        CHECK(worst < 1e-4);
        free(want);
        free(ids);
        flash_trainer_free(t);
        unmake(&y);
    }
}

/* --- losses ----------------------------------------------------------------------------------- */

static void test_losses(void)
{
    enum { T = 200, V = 300 };
    mk_options o = shape(2, 48, 4, 2, 8, 80, V), p = o;
    p.seed = 9;
    SECTION("losses");
    made a = make(&o, "llama", "f", 0, NULL), b = make(&p, "qwen3", "f", 0, NULL);
    int32_t *ids = some_tokens(3, T, V);
    float *za = session_logits(a.model, ids, T), *zb = session_logits(b.model, ids, T);
    for (int k = 0; k < 2; k++) {
        double scale = k ? 0.4 : 1, kl = 0, ce = 0;
        flash_trainer_desc d = settings(a.model, 2, T);
        flash_trainer_report r, all;
        d.teacher = b.model;
        d.temperature = k ? 2.5f : 0;
        d.kl_weight = k ? 0.25f : 0;
        d.ce_weight = k ? 0.5f : 0;
        flash_trainer *t = trainer(&d);
        for (int i = 0; i < T; i++) {
            const float *s = za + i * V, *w = zb + i * V;
            double ls = log_total(s, V, scale), lw = log_total(w, V, scale);
            for (int j = 0; j < V; j++) {
                double q = w[j] * scale - lw;
                kl += exp(q) * (q - (s[j] * scale - ls)) / T;
            }
            ce += (log_total(s, V, 1) - s[ids[i + 1]]) / T;
        }
        CHECK(flash_trainer_evaluate(t, ids, 1, &r) == FLASH_OK);
        CHECK(fabs(r.kl - kl) < 1e-5 * (1 + kl));
        CHECK(fabs(r.ce - ce) < 1e-5 * ce);
        CHECK(fabs(r.loss - (k ? 0.25 * 6.25 * r.kl + 0.5 * r.ce : r.kl)) < 1e-6 * r.loss);
        CHECK(r.step == 0 && r.tokens == 0 && r.lr == 0);
        CHECK(flash_trainer_evaluate(t, ids, 3, &all) == FLASH_OK); /* a batch and a half */
        double sum = 0;
        for (int i = 0; i < 3; i++) {
            CHECK(flash_trainer_evaluate(t, ids + i * (T + 1), 1, &r) == FLASH_OK);
            sum += r.loss / 3;
        }
        CHECK(fabs(all.loss - sum) < 1e-12 * sum);
        flash_trainer_free(t);
    }
    flash_trainer_desc d = settings(a.model, 1, T);
    flash_trainer_report r;
    d.teacher = a.model;
    flash_trainer *t = trainer(&d);
    CHECK(flash_trainer_evaluate(t, ids, 3, &r) == FLASH_OK);
    CHECK(fabs(r.kl) < 1e-6 && r.loss == r.kl && r.ce > 1);
    flash_trainer_free(t);
    free(za);
    free(zb);
    free(ids);
    unmake(&a);
    unmake(&b);
}

/* --- steps ------------------------------------------------------------------------------------ */

static flash_arch tiny(int layers, int d, int heads, int kv, int c, int ffn, int vocab)
{
    flash_arch a;
    memset(&a, 0, sizeof a);
    strcpy(a.name, "llama");
    a.n_layer = layers;
    a.d_model = d;
    a.d_head = c;
    a.n_vocab = vocab;
    a.n_ctx = 256;
    a.tied = 1;
    for (int i = 0; i < layers; i++) {
        a.layer[i].n_head = (uint16_t)heads;
        a.layer[i].n_kv_head = (uint16_t)kv;
        a.layer[i].d_ffn = ffn;
        a.layer[i].rope_base = 10000;
    }
    return a;
}

/* Compares AdamW, clipping, weight decay and the schedule with their formulas. */
static void test_adamw(void)
{
    flash_arch a = tiny(1, 16, 2, 1, 8, 24, 40);
    flash_trainer_desc d = settings(NULL, 2, 20);
    flash_trainer_report r;
    SECTION("AdamW");
    d.arch = &a;
    d.accumulate = 2;
    d.lr = 0.01f;
    d.weight_decay = 0.1f;
    d.clip = 0.05f;
    d.warmup = 2;
    d.steps = 6;
    d.final_lr = 0.2f;
    flash_trainer *t = trainer(&d);
    double *w = (double *)calloc(t->n * 3, sizeof *w), *m = w + t->n, *v = m + t->n, worst = 0;
    for (size_t i = 0; i < t->n; i++) w[i] = (double)t->w[i];
    for (int step = 1; step <= 8; step++) {
        static const double share[] = {.5, 1, 1, .8, .4, .2, .2, .2}; /* 1 + cos of thirds of pi */
        int32_t *ids = some_tokens(4, 20, 40);
        double norm = 0, lr = 0.01f * share[step - 1], scale;
        CHECK(flash_trainer_step(t, ids, &r) == FLASH_OK);
        for (size_t i = 0; i < t->n; i++) norm += (double)t->g[i] * (double)t->g[i];
        norm = sqrt(norm);
        CHECK(fabs(r.grad_norm - norm) < 1e-9 * norm);
        CHECK(fabs(r.lr - lr) < 1e-6 * lr);
        CHECK(r.step == (uint64_t)step && r.tokens == 80 * (uint64_t)step);
        scale = norm > 0.05f ? 0.05f / norm : 1;
        for (size_t k = 0; k < t->n_leaf; k++) {
            for (int j = 0; j < t->leaf[k].rows * t->leaf[k].cols; j++) {
                size_t i = t->leaf[k].at + (size_t)j;
                double g = (double)t->g[i] * scale, mh, vh;
                m[i] = 0.9f * m[i] + (1 - 0.9f) * g;
                v[i] = 0.95f * v[i] + (1 - 0.95f) * g * g;
                mh = m[i] / (1 - pow(0.9f, step));
                vh = v[i] / (1 - pow(0.95f, step));
                w[i] -= lr * (mh / (sqrt(vh) + 1e-8f) + (t->leaf[k].matrix ? 0.1f * w[i] : 0));
                worst = larger(worst, fabs(w[i] - (double)t->w[i]));
            }
        }
        free(ids);
    }
    CHECK(worst < 2e-6);
    free(w);
    flash_trainer_free(t);
}

/* Four batches of one sequence give the same gradients as one batch of four, and the gradients of a
   step do not depend on the step before. */
static void test_accumulate(void)
{
    flash_arch a = tiny(2, 32, 4, 2, 8, 40, 100);
    flash_trainer_desc d = settings(NULL, 4, 50);
    flash_trainer_report r, q;
    int32_t *ids = some_tokens(4, 50, 100);
    double worst = 0, most = 0;
    SECTION("accumulation");
    d.arch = &a;
    flash_trainer *one = trainer(&d);
    d.batch = 1;
    d.accumulate = 4;
    flash_trainer *four = trainer(&d);
    CHECK(!memcmp(one->w, four->w, one->n * sizeof *one->w));
    for (int k = 0; k < 2; k++) {
        CHECK(flash__gradients(one, ids, &r) == FLASH_OK);
        CHECK(flash__gradients(four, ids, &q) == FLASH_OK);
        CHECK(fabs(r.loss - q.loss) < 1e-6);
        for (size_t i = 0; i < one->n; i++) {
            worst = larger(worst, fabs((double)one->g[i] - (double)four->g[i]));
            most = larger(most, fabs((double)one->g[i]));
        }
        CHECK(worst < 1e-5 * most);
    }
    free(ids);
    flash_trainer_free(one);
    flash_trainer_free(four);
}

static void test_learning(void)
{
    int batch = quick ? 1 : 4, n_ctx = quick ? 24 : 64, i, n = 300;
    flash_arch a = quick ? tiny(1, 32, 2, 1, 16, 48, 96) : tiny(2, 64, 4, 2, 16, 128, 96);
    flash_trainer_desc d = settings(NULL, batch, n_ctx);
    flash_trainer_report r, first;
    int32_t *ids = some_tokens(4, 64, 96);
    SECTION("overfitting a batch");
    d.arch = &a;
    d.lr = 3e-3f;
    d.warmup = 20;
    d.steps = n;
    flash_trainer *t = trainer(&d);
    CHECK(flash_trainer_evaluate(t, ids, (size_t)batch, &first) == FLASH_OK);
    CHECK(fabs(first.ce - log(96)) < 0.1);
    for (i = 0; i < n; i++) {
        CHECK(flash_trainer_step(t, ids, &r) == FLASH_OK);
        if (quick && r.ce < 0.1) break;
    }
    CHECK(r.ce < 0.1);
    if (getenv("FLASH_VERBOSE")) printf("cross-entropy %g after %d steps\n", r.ce, i);
    flash_trainer_free(t);
    free(ids);

    SECTION("learning from a teacher");
    mk_options o = shape(2, 32, 4, 2, 8, 48, 96);
    made m = make(&o, "llama", "f", 0, NULL);
    d = settings(m.model, batch, n_ctx);
    d.teacher = m.model;
    d.lr = 2e-3f;
    t = trainer(&d);
    uint64_t state = 4;
    for (size_t k = 0; k < t->n; k++) t->w[k] += 0.03f * (float)flash__normal(&state);
    ids = some_tokens(4, 64, 96);
    CHECK(flash_trainer_evaluate(t, ids, (size_t)batch, &first) == FLASH_OK);
    for (i = 0; i < 100; i++) CHECK(flash_trainer_step(t, ids, &r) == FLASH_OK);
    CHECK(first.kl > 1e-3 && r.kl * 10 < first.kl && r.loss == r.kl);
    free(ids);
    flash_trainer_free(t);
    unmake(&m);
}

/* --- the same bits ---------------------------------------------------------------------------- */

typedef struct serial {
    int calls;
} serial;

/* A host's parallel_for that runs the tasks one after the other, the last one first. */
static void serial_for(void *user, int tasks, void (*task)(void *ctx, int index), void *ctx)
{
    ((serial *)user)->calls++;
    while (tasks-- > 0) task(ctx, tasks);
}

/* Trains for two steps and returns a checksum of the losses, weights and second moments. */
static uint64_t trained(const flash_trainer_desc *d, const int32_t *ids)
{
    flash_trainer *t = trainer(d);
    flash_trainer_report r;
    uint64_t sum = 7;
    for (int i = 0; i < 2; i++) {
        CHECK(flash_trainer_step(t, ids, &r) == FLASH_OK);
        sum = flash__sum_word(sum, flash__f64_bits(r.loss));
        sum = flash__sum_word(sum, flash__f64_bits(r.grad_norm));
    }
    for (size_t i = 0; i < t->n; i++) {
        sum = flash__sum_word(sum, flash__f32_bits(t->w[i]));
        sum = flash__sum_word(sum, flash__f32_bits(t->v[i]));
    }
    flash_trainer_free(t);
    return sum;
}

static void test_bits(void)
{
    mk_options o = shape(5, 72, 4, 2, 10, 100, 203), p = shape(2, 32, 4, 2, 8, 64, 203);
    made m, q;
    int32_t *ids;
    SECTION("same bits");
    p.qkv = 8;
    m = make(&o, "flash", "wsfon", 30, NULL);
    q = make(&p, "llama", "f", 0, NULL);
    ids = some_tokens(6, 150, 203);
    flash_trainer_desc d = settings(m.model, quick ? 2 : 3, quick ? 70 : 150);
    d.accumulate = quick ? 1 : 2;
    d.teacher = q.model;
    d.kl_weight = 0.5f;
    d.ce_weight = 0.5f;
    d.temperature = 1.5f;
    d.weight_decay = 0.1f;
    d.isa = FLASH_ISA_SCALAR;
    d.threads = 1;
    uint64_t want = trained(&d, ids);
    for (int isa = FLASH_ISA_SCALAR; isa < FLASH_ISA_COUNT; isa++) {
        d.isa = (flash_isa)isa;
        d.threads = 1 + isa % 3;
        if (!flash_trainer_memory(&d, NULL)) continue;
        CHECK_EQ(trained(&d, ids), want);
    }
    d.isa = FLASH_ISA_AUTO;
    for (d.threads = 1; d.threads <= 3; d.threads++) CHECK_EQ(trained(&d, ids), want);
    serial s = {0};
    d.host.parallel_for = serial_for;
    d.host.user = &s;
    CHECK_EQ(trained(&d, ids), want);
    CHECK(s.calls > 20);
    free(ids);
    unmake(&m);
    unmake(&q);
}

/* --- checkpoints ------------------------------------------------------------------------------ */

typedef struct sink {
    uint8_t *p;
    size_t n, cap, fail_at;
} sink;

static int sink_write(void *user, const void *data, size_t bytes)
{
    sink *s = (sink *)user;
    if (s->n + bytes > s->fail_at) return 1;
    if (s->n + bytes > s->cap) {
        s->cap = 2 * (s->n + bytes);
        s->p = (uint8_t *)realloc(s->p, s->cap);
    }
    memcpy(s->p + s->n, data, bytes);
    s->n += bytes;
    return 0;
}

static int same_state(const flash_trainer *a, const flash_trainer *b)
{
    return a->n == b->n && a->step == b->step && a->tokens == b->tokens
        && !memcmp(a->w, b->w, a->n * sizeof *a->w) && !memcmp(a->m, b->m, a->n * sizeof *a->m)
        && !memcmp(a->v, b->v, a->n * sizeof *a->v);
}

static flash_status load(flash_trainer *t, const uint8_t *p, size_t n, flash_error *err)
{
    flash_source source;
    memset(&source, 0, sizeof source);
    source.data = p;
    source.bytes = n;
    return flash_trainer_load(t, &source, err);
}

static void test_checkpoints(void)
{
    flash_arch a = tiny(2, 24, 3, 1, 8, 40, 64), other;
    flash_trainer_desc d = settings(NULL, 2, 40);
    int32_t *ids = some_tokens(2 * 6, 40, 64);
    flash_error err;
    sink s = {NULL, 0, 0, SIZE_MAX};
    int i, refused = 0, tried = 0;
    char shape[100];
    SECTION("checkpoints");
    d.arch = &a;
    d.steps = 6;
    d.warmup = 2;
    flash_trainer *one = trainer(&d), *two, *keep = trainer(&d);
    for (i = 0; i < 6; i++) {
        if (i == 3) CHECK(flash_trainer_save(one, sink_write, &s) == FLASH_OK);
        CHECK(flash_trainer_step(one, ids + i * 2 * 41, NULL) == FLASH_OK);
    }
    d.seed = 77;
    d.threads = 2;
    two = trainer(&d);
    CHECK(!same_state(one, two));
    CHECK(load(two, s.p, s.n, &err) == FLASH_OK);
    CHECK(two->step == 3 && two->tokens == 240);
    for (i = 3; i < 6; i++) CHECK(flash_trainer_step(two, ids + i * 2 * 41, NULL) == FLASH_OK);
    CHECK(same_state(one, two));

    SECTION("damaged checkpoints");
    two->step = keep->step;
    two->tokens = keep->tokens;
    memcpy(two->w, keep->w, keep->n * sizeof *two->w);
    memcpy(two->m, keep->m, keep->n * sizeof *two->m);
    memcpy(two->v, keep->v, keep->n * sizeof *two->v);
    for (size_t n = 0; n < s.n; n += n < 200 || n + 50 > s.n ? 1 : quick ? 5003 : 499) {
        uint8_t *cut = (uint8_t *)malloc(n ? n : 1); /* so that a sanitizer sees reads past it */
        memcpy(cut, s.p, n);
        tried++;
        refused += load(two, cut, n, &err) == FLASH_E_TRUNCATED;
        free(cut);
    }
    CHECK_EQ(refused, tried);
    for (size_t at = refused = tried = 0; at < s.n; at += at < 80 || at + 9 > s.n ? 1 : 977) {
        flash_status status;
        uint8_t was = s.p[at];
        s.p[at] ^= (uint8_t)(1 << at % 8);
        status = load(two, s.p, s.n, &err);
        tried++;
        refused += status == FLASH_E_FORMAT && err.text[0];
        s.p[at] = was;
    }
    CHECK_EQ(refused, tried);
    s.p = (uint8_t *)realloc(s.p, s.n + 1);
    CHECK(load(two, s.p, s.n + 1, &err) == FLASH_E_FORMAT);
    CHECK(load(two, (const uint8_t *)"not a checkpoint", 16, &err) == FLASH_E_FORMAT);
    for (i = 0; i < 2; i++) { /* of another version; with a word that must be 0: both sums right */
        uint8_t was[FLASH__SAVE_HEAD];
        memcpy(was, s.p, sizeof was);
        flash__wr64(s.p + (i ? 48 : 8), 4321);
        flash__wr64(s.p + 56, flash__sum_words(0, s.p, 7));
        CHECK_EQ(load(two, s.p, s.n, &err), i ? FLASH_E_FORMAT : FLASH_E_UNSUPPORTED);
        CHECK(strstr(err.text, i ? "damaged" : "version 4321, known is 1"));
        memcpy(s.p, was, sizeof was);
    }
    CHECK(flash_trainer_load(two, NULL, &err) == FLASH_E_ARGUMENT);
    CHECK(flash_trainer_load(NULL, NULL, NULL) == FLASH_E_ARGUMENT);
    for (i = 0; i < 5; i++) { /* other shapes, some of the same number of weights */
        flash_trainer *t;
        other = a;
        if (i == 0) other.d_model = 32;
        if (i == 1) other.layer[1].attention = FLASH_ATTENTION_WINDOW, other.layer[1].window = 9;
        if (i == 2) other.layer[0].rope_base = 5000;
        if (i == 3) other.rope_style = FLASH_ROPE_HALVES;
        if (i == 4) other.norm_eps = 1e-6f;
        d.arch = &other;
        t = trainer(&d);
        CHECK(load(t, s.p, s.n, &err) == FLASH_E_ARGUMENT);
        snprintf(shape, sizeof shape, "another shape: %zu weights, this has %zu", one->n, t->n);
        CHECK(strstr(err.text, shape));
        flash_trainer_free(t);
    }
    CHECK(same_state(two, keep));
    CHECK(load(two, s.p, s.n, &err) == FLASH_OK);
    for (size_t at = 0; at < s.n; at += s.n / 7) {
        sink full = {NULL, 0, 0, at};
        CHECK(flash_trainer_save(one, sink_write, &full) == FLASH_E_IO);
        free(full.p);
    }
    CHECK(flash_trainer_save(one, NULL, NULL) == FLASH_E_ARGUMENT);
    CHECK(flash_trainer_save(NULL, sink_write, NULL) == FLASH_E_ARGUMENT);
    flash_trainer_free(one);
    flash_trainer_free(two);
    flash_trainer_free(keep);
    free(s.p);
    free(ids);
}

/* --- what is refused -------------------------------------------------------------------------- */

static void test_memory(void)
{
    mk_options o = shape(2, 32, 4, 2, 8, 48, 96);
    made m = make(&o, "qwen3", "f", 0, NULL);
    mk_heap heap = {-1, 0, 0, 0, 0, 0, 0};
    flash_trainer_desc d = settings(m.model, 2, 70);
    flash_trainer *t;
    flash_error err;
    int32_t *ids = some_tokens(2, 70, 96);
    SECTION("memory");
    d.threads = 2;
    d.teacher = m.model;
    d.host.allocator.acquire = mk_heap_acquire;
    d.host.allocator.release = mk_heap_release;
    d.host.allocator.user = &heap;
    CHECK(flash_trainer_create(&t, &d, &err) == FLASH_OK);
    CHECK(heap.live == 1 && heap.total == flash_trainer_memory(&d, NULL));
    for (int i = 0; i < 3; i++) CHECK(flash_trainer_step(t, ids, NULL) == FLASH_OK);
    CHECK(heap.count == 1);
    flash_trainer_free(t);
    CHECK(!heap.live && !heap.errors);
    heap.fail_at = heap.count;
    CHECK(flash_trainer_create(&t, &d, &err) == FLASH_E_MEMORY && !t && err.text[0]);
    CHECK(!heap.live);
    flash_trainer_free(NULL);
    free(ids);
    unmake(&m);
}

static void test_guard(void)
{
    flash_arch a = tiny(2, 32, 4, 2, 8, 40, 100);
    flash_trainer_desc d = settings(NULL, 2, 30);
    int32_t *ids = some_tokens(2, 30, 100);
    flash_trainer_report r;
    uint32_t nan = 0x7fc00000, inf = 0x7f800000;
    int k;
    SECTION("what is not finite");
    d.arch = &a;
    for (size_t leaf = 0; leaf < 13; leaf++) {
        flash_trainer *t = trainer(&d), *same = trainer(&d);
        CHECK(flash_trainer_step(t, ids, NULL) == FLASH_OK);
        CHECK(flash_trainer_step(same, ids, NULL) == FLASH_OK);
        for (k = 0; k < 3; k++) {
            float bad = k == 2 ? 1e30f : 0, *w = t->w + t->leaf[leaf].at + 3;
            float was = *w;
            if (k < 2) memcpy(&bad, k ? &inf : &nan, 4);
            if (k == 2 && leaf != 0) break;
            *w = bad;
            r.step = 12345;
            if (leaf == 0) /* the embedding of token 0, which may not be in ids */
                ids[5] = 0;
            CHECK(flash_trainer_step(t, ids, &r) == FLASH_E_RANGE || k == 2);
            CHECK(r.step == 12345 || k == 2);
            *w = was;
            if (k < 2) CHECK(same_state(t, same));
        }
        flash_trainer_free(t);
        flash_trainer_free(same);
    }
    SECTION("tokens out of range");
    flash_trainer *t = trainer(&d);
    ids[61] = 100;
    CHECK(flash_trainer_step(t, ids, NULL) == FLASH_E_ARGUMENT);
    CHECK(flash_trainer_evaluate(t, ids, 2, &r) == FLASH_E_ARGUMENT);
    CHECK(flash_trainer_evaluate(t, ids, 1, &r) == FLASH_OK);
    ids[61] = -1;
    CHECK(flash_trainer_step(t, ids, NULL) == FLASH_E_ARGUMENT && t->step == 0);
    CHECK(flash_trainer_step(t, NULL, NULL) == FLASH_E_ARGUMENT);
    CHECK(flash_trainer_step(NULL, ids, NULL) == FLASH_E_ARGUMENT);
    CHECK(flash_trainer_evaluate(t, ids, 0, &r) == FLASH_E_ARGUMENT);
    CHECK(flash_trainer_evaluate(t, ids, 1, NULL) == FLASH_E_ARGUMENT);
    flash_trainer_free(t);
    free(ids);
}

static void refused(const flash_trainer_desc *d, flash_status want, const char *text)
{
    flash_trainer *t = (flash_trainer *)d;
    flash_error err;
    memset(&err, 0, sizeof err);
    CHECK_EQ(flash_trainer_create(&t, d, &err), want);
    CHECK(!t);
    if (!CHECK(strstr(err.text, text) != NULL))
        printf("    \"%s\" has no \"%s\"\n", err.text, text);
    CHECK(flash_trainer_memory(d, NULL) == 0);
}

static void test_refused(void)
{
    static const struct {
        const char *arch, *attn, *text;
    } list[] = {
        {"qwen2", "f", "attn_q.bias"},
        {"gemma3", "fw", "gates of GELU"},
        {"lfm2", "cf", "convolutions"},
        {"llama4", "f", "norms without weights"},
        {"deci", "fl", "a matrix in place of attention"},
    };
    mk_options o = shape(2, 32, 4, 2, 8, 48, 320), p = o;
    flash_trainer_desc d;
    flash_arch a = tiny(2, 32, 4, 2, 8, 48, 100), b;
    SECTION("what cannot be trained");
    for (size_t i = 0; i < COUNT(list); i++) {
        made m = make(&o, list[i].arch, list[i].attn, 0, NULL);
        d = settings(m.model, 1, 16);
        refused(&d, FLASH_E_UNSUPPORTED, list[i].text);
        unmake(&m);
    }
    SECTION("descs out of range");
    p.n_vocab = 321;
    made m = make(&o, "llama", "f", 0, NULL), q = make(&p, "llama", "f", 0, NULL);
    d = settings(m.model, 1, 16);
    d.teacher = q.model;
    refused(&d, FLASH_E_ARGUMENT, "321 tokens, the model 320");
    memset(&d, 0, sizeof d);
    refused(&d, FLASH_E_ARGUMENT, "no model and no shape");
    CHECK(flash_trainer_create(NULL, &d, NULL) == FLASH_E_ARGUMENT);
    CHECK(flash_trainer_memory(NULL, NULL) == 0);
    for (int i = 0; i < 16; i++) {
        float nothing = (float)atof("nan");
        d = settings(m.model, 1, 16);
        if (i == 0) d.batch = -1;
        if (i == 1) d.n_ctx = -1;
        if (i == 2) d.n_ctx = FLASH_CONTEXT_MAX + 1;
        if (i == 3) d.accumulate = -1;
        if (i == 4) d.threads = FLASH_THREADS_MAX + 1;
        if (i == 5) d.kl_weight = 1; /* without a teacher */
        if (i == 6) d.ce_weight = -1;
        if (i == 7) d.temperature = -1;
        if (i == 8) d.lr = nothing;
        if (i == 9) d.beta1 = 1;
        if (i == 10) d.beta2 = -0.1f;
        if (i == 11) d.epsilon = -1;
        if (i == 12) d.weight_decay = -1;
        if (i == 13) d.warmup = -1;
        if (i == 14) d.steps = -1;
        if (i == 15) d.host.allocator.acquire = mk_heap_acquire;
        refused(&d, FLASH_E_ARGUMENT, "out of range");
    }
    d = settings(m.model, 1 << 10, 1 << 15);
    refused(&d, FLASH_E_TOO_LARGE, "batch");
    d = settings(m.model, 1, 16);
    d.isa = FLASH_ISA_COUNT;
    refused(&d, FLASH_E_UNSUPPORTED, "instruction set");
    SECTION("shapes out of range");
    for (int i = 0; i < 10; i++) {
        d = settings(NULL, 1, 16);
        b = a;
        if (i == 0) b.n_layer = 0;
        if (i == 1) b.d_model = -1;
        if (i == 2) b.layer[1].n_kv_head = 3;
        if (i == 3) b.layer[1].n_kv_head = 0;
        if (i == 4) b.layer[0].attention = FLASH_ATTENTION_WINDOW;
        if (i == 5) b.layer[0].d_ffn = -1;
        if (i == 6) b.norm_eps = -1;
        if (i == 7) b.rope_dims = 9;
        if (i == 8) b.n_vocab = FLASH_VOCAB_MAX + 1;
        if (i == 9) b.layer[0].rope_base = 0.5f;
        d.arch = &b;
        refused(&d, FLASH_E_ARGUMENT, "shape");
    }
    b = a;
    strcpy(b.name, "gpt2");
    refused(&d, FLASH_E_UNSUPPORTED, "gpt2");
    strcpy(b.name, "qwen2");
    refused(&d, FLASH_E_UNSUPPORTED, "attn_q.bias");
    b.layer[0].attention = FLASH_ATTENTION_CHUNK;
    refused(&d, FLASH_E_UNSUPPORTED, "chunks");

    SECTION("shapes completed");
    b = a;
    strcpy(b.name, "flash");
    b.layer[0].attention = FLASH_ATTENTION_SKIP;
    b.layer[1].d_ffn = 0;
    b.tied = 0;
    d.qk_norm = 1;
    flash_trainer *t = trainer(&d);
    /* Embedding, norm and head; a norm and three matrices in layer 0; in layer 1 its norm, those of
       q and k, and four matrices. */
    CHECK_EQ(flash_trainer_tensors(t), 3 + 4 + 7);
    CHECK(flash_trainer_arch(t)->layer[0].n_head == 0 && flash_trainer_arch(t)->rope_dims == 8);
    double sum = 0;
    for (int i = 0; i < 3200; i++) sum += (double)t->w[i] * (double)t->w[i] / 3200;
    CHECK(fabs(sqrt(sum) - 0.02) < 0.002);
    flash_trainer_free(t);
    unmake(&m);
    unmake(&q);
}

int main(void)
{
    quick = getenv("FLASH_QUICK") != NULL;
    for (size_t i = 0; i < COUNT(gradient_cases); i++)
        check_gradients(gradient_cases + i, 5e-4, 1e-2, 1e-2, 0);
    check_golden(1e-3);
    test_logits();
    test_weights();
    test_losses();
    test_adamw();
    test_accumulate();
    test_learning();
    test_bits();
    test_checkpoints();
    test_memory();
    test_guard();
    test_refused();
    return test_done();
}
