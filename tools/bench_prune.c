/* bench_prune.c - what cuts cost and what training heals, on a model and a text.
   build: cc -std=c99 -O2 tools/bench_prune.c -o bench_prune -lm
   usage: bench_prune MODEL TEXT [THREADS [STEPS]]: `make bench-prune` runs it on the models there
   are (bench_prune.sh). Losses are of the last tenth of the text, on the same tokens, in nats a
   token; +- is the standard error of a difference over its sequences. STEPS (4000): of the longest
   healing; the shorter one has a tenth of them, that of two attentions skipped a fortieth. Pruned
   weights learn at 5e-4, random ones at 2e-3, which is better for each. */
#include "skips.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CTX = 128, ROW = CTX + 1, TEST = 64, CALIBRATE = 128, BATCH = 8, RANDOM_CUTS = 10 };

typedef struct bench {
    const char *name;
    flash_model *model;
    int32_t *ids, *test; /* those to learn from; [TEST,ROW] */
    size_t n;
    int threads, steps;
    double base[TEST]; /* the model's own losses */
} bench;

static void die(const char *what)
{
    fprintf(stderr, "bench_prune: %s\n", what);
    exit(1);
}

static uint64_t next(uint64_t *state) /* SplitMix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Of a model's weights, or random ones of that shape. */
static flash_trainer *trainer(const bench *b, const flash_model *like, int random,
                              const flash_model *teacher, int steps)
{
    flash_trainer_desc d;
    flash_trainer *t;
    flash_error err;
    memset(&d, 0, sizeof d);
    d.init = random ? NULL : like;
    d.arch = flash_model_arch(like);
    d.teacher = teacher;
    d.batch = BATCH;
    d.n_ctx = CTX;
    d.threads = b->threads;
    d.steps = steps;
    d.lr = random ? 2e-3f : 5e-4f;
    d.warmup = steps / 20 + 1;
    d.weight_decay = 0.1f;
    if (flash_trainer_create(&t, &d, &err)) die(err.text);
    return t;
}

/* Losses of the test's sequences; their mean. */
static double losses(flash_trainer *t, const bench *b, double each[TEST])
{
    flash_trainer_report r;
    double sum = 0;
    for (int i = 0; i < TEST; i++) {
        if (flash_trainer_evaluate(t, b->test + i * ROW, 1, &r)) die("a loss is no number");
        each[i] = r.ce;
        sum += r.ce / TEST;
    }
    return sum;
}

/* The mean of x - y, and its standard error. */
static double difference(const double *x, const double *y, double *error)
{
    double mean = 0, squares = 0;
    for (int i = 0; i < TEST; i++) mean += (x[i] - y[i]) / TEST;
    for (int i = 0; i < TEST; i++) squares += (x[i] - y[i] - mean) * (x[i] - y[i] - mean);
    *error = sqrt(squares / (TEST - 1) / TEST);
    return mean;
}

static void learn(flash_trainer *t, const bench *b, int steps)
{
    static int32_t tokens[BATCH * ROW];
    uint64_t state = 7;
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < BATCH; i++)
            memcpy(tokens + i * ROW, b->ids + next(&state) % (b->n - ROW), ROW * sizeof *tokens);
        if (flash_trainer_step(t, tokens, NULL)) die("a step is no number");
    }
}

/* Losses after learning, of a model's weights or random ones of its shape; their mean. */
static double learned(const bench *b, const flash_model *like, int random,
                      const flash_model *teacher, int steps, double each[TEST])
{
    flash_trainer *t = trainer(b, like, random, teacher, steps ? steps : 1);
    learn(t, b, steps);
    double mean = losses(t, b, each);
    flash_trainer_free(t);
    return mean;
}

/* The model cut to these units of each layer. */
static flash_model *cut(const bench *b, int ffn, const int *const *units)
{
    flash_prune_desc d;
    flash_model *m;
    flash_error err;
    memset(&d, 0, sizeof d);
    d.model = b->model;
    d.d_ffn = ffn;
    d.ffn = units;
    if (flash_prune_view(&m, &d, &err)) die(err.text);
    return m;
}

/* What such a cut adds to the loss. */
static double damage(const bench *b, int ffn, const int *const *units, double *error)
{
    double each[TEST], more;
    flash_model *m = cut(b, ffn, units);
    learned(b, m, 0, NULL, 0, each);
    more = difference(each, b->base, error);
    flash_model_free(m);
    return more;
}

/* ---- the lines -------------------------------------------------------------------------- */

/* Units by the norm of their weights. */
static void by_weight(flash_trainer *t, int layer, int F, int keep, int *out)
{
    static const char *const of[] = {"ffn_gate", "ffn_up", "ffn_down"};
    double *score = calloc((size_t)F, sizeof *score);
    flash_trainer_tensor w;
    char name[64];
    for (size_t i = 0; !flash_trainer_weights(t, i, &w); i++)
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", layer, of[k]);
            if (strcmp(name, w.name)) continue;
            for (int r = 0; r < w.rows; r++)
                for (int c = 0; c < w.cols; c++) {
                    double v = (double)w.data[(size_t)r * (size_t)w.cols + (size_t)c];
                    score[k < 2 ? r : c] += v * v;
                }
        }
    for (int k = 0; k < F - keep; k++) { /* the least goes */
        int least = -1;
        for (int i = 0; i < F; i++)
            if (score[i] >= 0 && (least < 0 || score[i] < score[least])) least = i;
        score[least] = -1;
    }
    for (int i = 0, k = 0; i < F; i++)
        if (score[i] >= 0) out[k++] = i;
    free(score);
}

static void by_chance(uint64_t *state, int F, int keep, int *out)
{
    for (int i = 0, k = 0; k < keep; i++) /* Knuth, TAOCP 2, 3.4.2 S */
        if ((double)(next(state) >> 11) / 9007199254740992.0 * (F - i) < keep - k) out[k++] = i;
}

/* ---- attentions that are skipped: patterns as a bit for each layer ----------------------- */

static int count(unsigned mask) { return mask ? (int)(mask & 1) + count(mask >> 1) : 0; }

typedef struct patterns {
    const double *kl;
    int layers;
} patterns;

static double known(void *user, const uint8_t *skip)
{
    const patterns *p = user;
    unsigned mask = 0;
    for (int l = 0; l < p->layers; l++) mask |= (unsigned)skip[l] << l;
    return p->kl[mask];
}

/* The divergence of every pattern, and how many of those with as many skips are better than the
   greedy one: among all, and among those without three in a row (the rule of MobileLLM-Flash). */
static void skips(const bench *b, flash_trainer *t, int L)
{
    enum { N = 16 };
    double *kl = malloc(sizeof *kl << L), alone[FLASH_LAYERS_MAX], loss[FLASH_LAYERS_MAX];
    patterns p = {kl, L};
    int order[FLASH_LAYERS_MAX];
    for (unsigned mask = 0; mask < 1u << L; mask++) {
        uint8_t skip[FLASH_LAYERS_MAX];
        for (int l = 0; l < L; l++) skip[l] = mask >> l & 1;
        if (flash_trainer_skip(t, b->ids, N, skip, kl + mask)) die("a divergence is no number");
    }
    for (int rule = 0; rule < 2; rule++) {
        unsigned chosen = 0;
        int run = rule ? 2 : L,
            n = skips_find(flash_model_arch(b->model), L / 2 + 1, run, known, &p, alone, order,
                           loss);
        for (int k = 0; k < n; k++) {
            int all = 0, better = 0;
            chosen |= 1u << order[k];
            for (unsigned mask = 0; mask < 1u << L; mask++) {
                if (count(mask) != k + 1 || (rule && mask & mask >> 1 & mask >> 2)) continue;
                all++;
                better += kl[mask] < kl[chosen];
            }
            printf("bench skip %s in_a_row=%d skipped=%d kl=%.4f patterns=%d better=%d "
                   "share=%.3f\n",
                   b->name, run, k + 1, kl[chosen], all, better, (double)better / all);
        }
    }
    free(kl);
}

/* The losses without the attentions of layers l and k, after some steps with the model as the
   teacher. */
static void without(const bench *b, int l, int k, int steps, double each[TEST])
{
    char pattern[5 * FLASH_LAYERS_MAX] = "";
    flash_prune_desc d;
    flash_model *m;
    flash_error err;
    for (int i = 0; i < flash_model_arch(b->model)->n_layer; i++)
        strcat(strcat(pattern, i ? "," : ""), i == l || i == k ? "skip" : "keep");
    memset(&d, 0, sizeof d);
    d.model = b->model;
    d.attention = pattern;
    if (flash_prune_view(&m, &d, &err)) die(err.text);
    learned(b, m, 0, b->model, steps, each);
    flash_model_free(m);
}

/* Shares of pairs that are apart such that each layer is as often in one as in those in a row: else
   what a layer is worth would decide. There are some from five layers on. Iterative proportional
   fitting (Deming and Stephan 1940). */
static void match(int L, double share[8][8])
{
    for (int l = 0; l < L; l++)
        for (int k = 0; k < L; k++) share[l][k] = abs(l - k) > 1;
    for (int round = 0; round < 20000; round++)
        for (int l = 0; l < L; l++) {
            double want = (l && l + 1 < L ? 2. : 1.) / (L - 1), sum = 0;
            for (int k = 0; k < L; k++) sum += share[l][k];
            for (int k = 0; k < L; k++) share[l][k] = share[k][l] = share[l][k] * want / sum;
        }
}

/* Two attentions in a row skipped, next to two that are apart: means over all places, and with each
   layer as often skipped in both. */
static void pairs(const bench *b, int L)
{
    double share[8][8];
    match(L, share);
    for (int healed = 0; healed < 2; healed++) {
        double in_a_row[TEST] = {0}, apart[2][TEST] = {{0}, {0}}, each[TEST], gain[2], error[2], e;
        int steps = healed ? b->steps / 40 + 1 : 0, rows = L - 1, others = L * (L - 1) / 2 - rows;
        for (int l = 0; l < L; l++)
            for (int k = l + 1; k < L; k++) {
                without(b, l, k, steps, each);
                for (int i = 0; i < TEST; i++)
                    if (k == l + 1) {
                        in_a_row[i] += each[i] / rows;
                    } else {
                        apart[0][i] += each[i] / others;
                        apart[1][i] += each[i] * share[l][k];
                    }
            }
        for (int i = 0; i < 2; i++) gain[i] = difference(in_a_row, apart[i], &error[i]);
        printf("bench interleaved %s skipped=2 steps=%d consecutive=%.4f interleaved=%.4f "
               "gain=%.4f+-%.4f each_layer_as_often=%.4f gain=%.4f+-%.4f\n",
               b->name, steps, difference(in_a_row, b->base, &e), difference(apart[0], b->base, &e),
               gain[0], error[0], difference(apart[1], b->base, &e), gain[1], error[1]);
        fflush(stdout);
    }
}

/* ---- all of it --------------------------------------------------------------------------- */

/* Token ids of stories that <|endoftext|> parts, each begun and ended as the model wants it. */
static void tokenize(bench *b, char *text)
{
    static const char end[] = "<|endoftext|>";
    int32_t eos = flash_token_eos(b->model);
    b->ids = malloc((2 * strlen(text) + 16) * sizeof *b->ids);
    for (char *p = text, *next; p; p = next) {
        char *stop = strstr(p, end);
        size_t n, bytes;
        next = stop ? stop + sizeof end - 1 : NULL;
        p += strspn(p, " \n\r\t");
        bytes = stop ? (size_t)(stop - p) : strlen(p);
        while (bytes && strchr(" \n\r\t", p[bytes - 1])) bytes--;
        if (!bytes) continue;
        if (flash_tokenize(b->model, p, bytes, 0, b->ids + b->n, 2 * bytes + 8, &n))
            die("a story cannot be tokenised");
        b->n += n;
        if (eos >= 0 && b->ids[b->n - 1] != eos) b->ids[b->n++] = eos;
    }
}

int main(int argc, char **argv)
{
    bench b = {0};
    flash_model_desc md;
    flash_error err;
    FILE *f = argc > 2 ? fopen(argv[2], "rb") : NULL;
    if (!f) die("usage: bench_prune MODEL TEXT [THREADS [STEPS]]");
    b.name = strrchr(argv[1], '/') ? strrchr(argv[1], '/') + 1 : argv[1];
    b.threads = argc > 3 ? atoi(argv[3]) : 1;
    b.steps = argc > 4 ? atoi(argv[4]) : 4000;
    memset(&md, 0, sizeof md);
    md.source.path = argv[1];
    if (flash_model_load(&b.model, &md, &err)) die(err.text);
    char *text = calloc((16 << 20) + 1, 1);
    if (!fread(text, 1, 16 << 20, f)) die("the text is empty");
    fclose(f);
    tokenize(&b, text);
    size_t all = b.n;
    b.n = all / 10 * 9;
    if (all / 10 < TEST * ROW) die("the text is too short");
    b.test = malloc(TEST * ROW * sizeof *b.test);
    for (size_t i = 0; i < TEST; i++)
        memcpy(b.test + i * ROW, b.ids + b.n + (all - b.n - ROW) / TEST * i, ROW * sizeof *b.ids);

    const flash_arch *a = flash_model_arch(b.model);
    int L = a->n_layer, F = a->layer[0].d_ffn, keep = F / 4 * 3;
    flash_trainer *t = trainer(&b, b.model, 0, NULL, 1);
    flash_calibration *c;
    double base = losses(t, &b, b.base), error, chance = 0;
    int *units[3][FLASH_LAYERS_MAX];
    if (flash_calibration_create(&c, a, NULL, &err)) die(err.text);
    int32_t *some = malloc(CALIBRATE * ROW * sizeof *some);
    for (size_t i = 0; i < CALIBRATE; i++)
        memcpy(some + i * ROW, b.ids + (b.n - ROW) / CALIBRATE * i, ROW * sizeof *some);
    if (flash_calibration_add(c, t, some, CALIBRATE)) die("the calibration failed");
    printf("bench model %s loss=%.4f\n", b.name, base);

    /* a quarter of all FFN units */
    for (int w = 0; w < 3; w++)
        for (int l = 0; l < L; l++) units[w][l] = malloc((size_t)keep * sizeof(int));
    for (int l = 0; l < L; l++) {
        flash_calibration_choose(c, FLASH_PART_UNIT, l, 0, keep, 1, units[0][l]);
        by_weight(t, l, F, keep, units[1][l]);
    }
    double activation = damage(&b, keep, (const int *const *)units[0], &error), e;
    double weight = damage(&b, keep, (const int *const *)units[1], &e);
    uint64_t state = 1;
    for (int r = 0; r < RANDOM_CUTS; r++) {
        for (int l = 0; l < L; l++) by_chance(&state, F, keep, units[2][l]);
        chance += damage(&b, keep, (const int *const *)units[2], &e) / RANDOM_CUTS;
    }
    printf("bench ffn25 %s activation=%.4f+-%.4f weight=%.4f random_mean=%.4f ratio=%.3f\n", b.name,
           activation, error, weight, chance, activation / chance);
    fflush(stdout);
    if (L <= 8) skips(&b, t, L);
    fflush(stdout);
    flash_trainer_free(t);
    if (L > 4 && L <= 8) pairs(&b, L);

    /* healed by the whole model, next to random weights on as many tokens */
    flash_model *m = cut(&b, keep, (const int *const *)units[0]);
    double pruned[3][TEST], random[TEST]; /* the first two by the model, the last by the text */
    int steps[2] = {b.steps / 10, b.steps};
    for (int k = 0; k < 2; k++) {
        learned(&b, m, 0, b.model, steps[k], pruned[k]);
        double left = difference(pruned[k], b.base, &error);
        printf("bench heal %s steps=%d tokens=%d lost=%.4f left=%.4f+-%.4f recovered=%.2f\n",
               b.name, steps[k], steps[k] * BATCH * CTX, activation, left, error,
               1 - left / activation);
        fflush(stdout);
    }
    learned(&b, m, 0, NULL, steps[0], pruned[2]);
    for (int by_text = 0; by_text < 2; by_text++) {
        const double *own = pruned[by_text ? 2 : 0];
        learned(&b, m, 1, by_text ? NULL : b.model, steps[0], random);
        double gain = difference(random, own, &error);
        printf("bench inherit %s by=%s steps=%d pruned=%.4f random=%.4f gain=%.4f+-%.4f\n", b.name,
               by_text ? "text" : "teacher", steps[0], base + difference(own, b.base, &e),
               base + difference(random, b.base, &e), gain, error);
        fflush(stdout);
    }
    flash_model_free(m);
    return 0;
}
