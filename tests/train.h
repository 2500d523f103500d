/* Shared by the tests of the trainer in float (test_train.c) and in double (test_train_double.c):
   small random models, and checks of the gradients. */
#include "test.h"
#include "mkmodel.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

typedef struct made {
    flash_model *model;
    uint8_t *bytes;
} made;

static inline made make(const mk_options *o, const char *arch, const char *attn, int window,
                        const char *pattern)
{
    mk_kind kind = {arch, attn, window};
    made m = {NULL, NULL};
    flash_model_desc d;
    flash_error err;
    mk_file *f = mk_model(o, &kind);
    memset(&d, 0, sizeof d);
    m.bytes = mk_emit(f, &d.source.bytes);
    mk_free(f);
    d.source.data = m.bytes;
    d.attention = pattern;
    if (!CHECK(flash_model_load(&m.model, &d, &err) == FLASH_OK)) {
        printf("    %s\n", err.text);
        exit(1);
    }
    return m;
}

static inline void unmake(made *m)
{
    flash_model_free(m->model);
    free(m->bytes);
}

static inline flash_trainer *trainer(const flash_trainer_desc *d)
{
    flash_trainer *t;
    flash_error err;
    if (!CHECK(flash_trainer_create(&t, d, &err) == FLASH_OK)) {
        printf("    %s\n", err.text);
        exit(1);
    }
    return t;
}

/* Returns n sequences of random tokens, [n,n_ctx+1]. The caller frees them. */
static inline int32_t *some_tokens(int n, int n_ctx, int vocab)
{
    int32_t *ids = (int32_t *)malloc((size_t)n * (size_t)(n_ctx + 1) * sizeof *ids);
    for (int i = 0; i < n * (n_ctx + 1); i++) ids[i] = (int32_t)(test_rnd() % (uint32_t)vocab);
    return ids;
}

typedef struct gradient_case {
    const char *name, *arch, *attn;
    int window, untied, qk_heads; /* qk_heads: query heads for each key/value head */
    const char *pattern;
    float kl, ce, temperature;
} gradient_case;

static const gradient_case gradient_cases[] = {
    {"llama, CE", "llama", "f", 0, 0, 2, NULL, 0, 0, 0},
    {"llama untied, KL", "llama", "f", 0, 1, 1, NULL, 1, 0, 0},
    {"llama, mix at 2", "llama", "f", 0, 0, 4, NULL, 0.7f, 0.3f, 2},
    {"qwen3, halves and norms", "qwen3", "f", 0, 0, 2, NULL, 0.5f, 0.5f, 1},
    {"flash, window, skip, no RoPE", "flash", "wsfon", 20, 0, 2, NULL, 0, 0, 0},
    {"skipped by pattern", "llama", "f", 0, 1, 2, "full,skip", 0, 0, 0},
    {"windows by pattern", "qwen3", "f", 0, 0, 2, "window:70,window:1", 0, 0, 0},
    {"deci", "deci", "fs", 0, 1, 2, NULL, 0, 0, 0},
};

/* Compares the gradients of every tensor with (L(w + h u) - L(w - h u))/2h. With each > 0, u is one
   weight, for `each` weights of a tensor. With each 0, u is the direction of the gradient, because
   the loss in float is too coarse for single weights. The relative difference may be `bar` at the
   most. Pairs whose two sides are both at most `least` are left out. */
static inline void check_gradients(const gradient_case *c, double h, double bar, double least,
                                   int each)
{
    mk_options o, p;
    flash_trainer_desc d;
    flash_trainer_report r, lo, hi;
    int n_ctx = 70, vocab = 61, far_off = 0, seen = 0;
    double worst = 0;
    memset(&o, 0, sizeof o);
    o.n_layer = 2 + (strlen(c->attn) > 2) * 3;
    o.d_model = 12;
    o.n_head = 4;
    o.n_kv_head = 4 / c->qk_heads;
    o.d_head = 6;
    o.d_ffn = 20;
    o.n_vocab = vocab;
    o.untied = c->untied;
    p = o;
    p.seed = 5;
    SECTION(c->name);
    made m = make(&o, c->arch, c->attn, c->window, c->pattern);
    made teacher = make(&p, "llama", "f", 0, NULL);
    memset(&d, 0, sizeof d);
    d.init = m.model;
    d.batch = 2;
    d.n_ctx = n_ctx;
    if (c->kl > 0) {
        d.teacher = teacher.model;
        d.kl_weight = c->kl;
        d.ce_weight = c->ce;
        d.temperature = c->temperature;
    }
    flash_trainer *t = trainer(&d);
    int32_t *ids = some_tokens(2, n_ctx, vocab);
    CHECK(flash__gradients(t, ids, &r) == FLASH_OK);
    flash__real *g = (flash__real *)malloc(t->n * sizeof *g);
    flash__real *w = (flash__real *)malloc(t->n * sizeof *w);
    memcpy(g, t->g, t->n * sizeof *g);
    memcpy(w, t->w, t->n * sizeof *w);
    for (size_t k = 0; k < t->n_leaf; k++) {
        size_t at = t->leaf[k].at, n = (size_t)t->leaf[k].rows * (size_t)t->leaf[k].cols;
        double norm = 0;
        int seen_here = 0;
        if (c->pattern && strstr(c->pattern, "skip"))
            CHECK(strncmp(t->leaf[k].name, "blk.1.attn", 10) != 0);
        for (size_t i = 0; i < n; i++) norm += (double)g[at + i] * (double)g[at + i];
        norm = sqrt(norm);
        for (int turn = 0; turn < (each ? each : 1); turn++) {
            size_t one = at + ((size_t)turn < n && each >= (int)n ? (size_t)turn : test_rnd() % n);
            double want, got, miss;
            for (size_t i = at; i < at + n; i++) {
                double u = each ? i == one : (double)g[i] / norm;
                t->w[i] = (flash__real)((double)w[i] + h * u);
            }
            flash_trainer_evaluate(t, ids, 2, &hi);
            for (size_t i = at; i < at + n; i++) {
                double u = each ? i == one : (double)g[i] / norm;
                t->w[i] = (flash__real)((double)w[i] - h * u);
            }
            flash_trainer_evaluate(t, ids, 2, &lo);
            memcpy(t->w + at, w + at, n * sizeof *w);
            want = (hi.loss - lo.loss) / (2 * h);
            got = each ? (double)g[one] : norm;
            if (fabs(got) <= least && fabs(want) <= least) continue;
            seen++;
            seen_here++;
            miss = fabs(got - want) / fmax(fabs(want), fabs(got));
            worst = fmax(worst, miss);
            if (miss > bar && far_off++ < 4)
                printf("    %s: got %g, want %g\n", t->leaf[k].name, got, want);
        }
        /* With a window of one position, queries and keys have no effect. All other tensors must
           have given derivatives to compare. */
        int idle = c->pattern && strstr(c->pattern, "window:1")
            && (!strncmp(t->leaf[k].name, "blk.1.attn_q", 12)
                || !strncmp(t->leaf[k].name, "blk.1.attn_k", 12));
        if (!CHECK(idle ? !seen_here : 2 * seen_here > each))
            printf("    %s: %d derivatives\n", t->leaf[k].name, seen_here);
    }
    CHECK(!far_off);
    if (getenv("FLASH_VERBOSE")) printf("%s: %d derivatives, worst %.2g\n", c->name, seen, worst);
    free(g);
    free(w);
    free(ids);
    flash_trainer_free(t);
    unmake(&m);
    unmake(&teacher);
}

/* --- against torch ---------------------------------------------------------------------------- */

/* The generator of tests/golden/train.py. */
static inline uint32_t golden_random(uint32_t *seed)
{
    return (*seed = *seed * 1664525u + 1013904223u) >> 8;
}

/* Makes the n weights of a tensor, like tests/golden/train.py. vector: 1 for a mean of 1, as the
   weights of norms have, 0 for a mean of 0. */
static inline void golden_fill(const char *name, uint32_t seed, int vector, size_t n, float *out)
{
    for (size_t i = 0; name[i]; i++) seed += (uint32_t)(i + 1) * (uint32_t)name[i];
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(vector + 1.2 * (golden_random(&seed) / 16777216.0 - 0.5));
}

static inline void golden_model(made *m, uint32_t seed, const char *pattern)
{
    flash_model_desc d;
    const flash_gguf *g = flash_model_gguf(m->model);
    memset(&d, 0, sizeof d);
    for (size_t i = 0; i < flash_gguf_tensors(g); i++) {
        flash_tensor t;
        char name[64] = "";
        flash_gguf_tensor(g, i, &t);
        memcpy(name, t.name, t.name_bytes);
        float *w = (float *)malloc(t.bytes);
        golden_fill(name, seed, t.n_dims == 1, t.bytes / 4, w);
        flash_quantize(FLASH_TYPE_F32, w, m->bytes + t.offset, t.bytes / 4); /* little-endian */
        free(w);
    }
    d.source.data = m->bytes;
    d.source.bytes = flash_gguf_size(g);
    d.attention = pattern;
    flash_model_free(m->model);
    CHECK(flash_model_load(&m->model, &d, NULL) == FLASH_OK);
}

/* Compares the losses and gradients of two models with those in tests/golden/train.txt. */
static inline void check_golden(double bar)
{
    enum { V = 61, T = 70, B = 2 };
    FILE *f = fopen("tests/golden/train.txt", "r");
    char name[64];
    double a, b;
    uint32_t state = 99;
    int32_t ids[B * (T + 1)];
    flash_trainer *t = NULL;
    made m = {NULL, NULL}, teacher;
    mk_options o;
    size_t leaf, seen = 0;
    SECTION("torch");
    memset(&o, 0, sizeof o);
    o.n_layer = 3;
    o.d_model = 12;
    o.n_head = 4;
    o.n_kv_head = 2;
    o.d_head = 6;
    o.d_ffn = 20;
    o.n_vocab = V;
    for (int i = 0; i < B * (T + 1); i++) ids[i] = (int32_t)(golden_random(&state) % V);
    teacher = make(&o, "llama", "f", 0, NULL);
    golden_model(&teacher, 7, NULL);
    if (!CHECK(f != NULL)) return;
    while (fscanf(f, "%63s", name) == 1) {
        if (!strcmp(name, "model")) {
            flash_trainer_desc d;
            flash_trainer_report r;
            CHECK(fscanf(f, "%63s %lf %lf", name, &a, &b) == 3);
            if (t) {
                CHECK_EQ(seen, t->n_leaf);
                flash_trainer_free(t);
                unmake(&m);
            }
            memset(&d, 0, sizeof d);
            o.untied = !strcmp(name, "qwen3");
            m = make(&o, name, "f", 0, NULL);
            golden_model(&m, 1, strcmp(name, "qwen3") ? NULL : "window:20,full,window:65");
            d.init = m.model;
            d.batch = B;
            d.n_ctx = T;
            d.teacher = teacher.model;
            d.kl_weight = strcmp(name, "qwen3") ? 0 : 0.7f;
            d.ce_weight = strcmp(name, "qwen3") ? 1 : 0.3f;
            d.temperature = strcmp(name, "qwen3") ? 1 : 2;
            t = trainer(&d);
            seen = 0;
            CHECK(flash__gradients(t, ids, &r) == FLASH_OK);
            CHECK(fabs(r.ce - a) < bar * a);
            CHECK(fabs(r.kl - b) < bar * b);
        } else {
            double norm = 0, dot = 0;
            size_t n;
            if (!CHECK(fscanf(f, "%lf %lf", &a, &b) == 2 && t)) break;
            for (leaf = 0; leaf < t->n_leaf && strcmp(t->leaf[leaf].name, name); leaf++) {}
            if (!CHECK(leaf < t->n_leaf)) break;
            n = (size_t)t->leaf[leaf].rows * (size_t)t->leaf[leaf].cols;
            for (size_t i = 0; i < n; i++) {
                double g = (double)t->g[t->leaf[leaf].at + i];
                norm += g * g;
                dot += g * (double)((int)(i * 7 % 11) - 5);
            }
            CHECK(fabs(sqrt(norm) - a) < bar * a);
            if (!CHECK(fabs(dot - b) < 3 * bar * a * sqrt((double)n)))
                printf("    %s: %g, torch %g\n", name, dot, b);
            seen++;
        }
    }
    CHECK(t && seen == t->n_leaf);
    fclose(f);
    flash_trainer_free(t);
    unmake(&m);
    unmake(&teacher);
}
