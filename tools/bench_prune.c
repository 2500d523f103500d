/* bench_prune.c - what cuts cost and what training heals, on a model and a text.
   build: cc -std=c99 -O2 tools/bench_prune.c -o bench_prune -lm
   usage: bench_prune MODEL TEXT [THREADS [STEPS]]: `make bench-prune` runs it on the models there
   are. Losses are of the last tenth of the text, on the same tokens, in nats a token; +- is the
   standard error of a difference over its sequences. */
#define FLASH_IMPLEMENTATION
#include "../flash.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CTX = 128, ROW = CTX + 1, TEST = 64, CALIBRATE = 128, BATCH = 8, RANDOM_CUTS = 10 };

typedef struct bench {
    const char  *name;
    flash_model *model;
    int32_t     *ids, *test;  /* those to learn from; [TEST,ROW] */
    size_t       n;
    int          threads, steps;
    double       base[TEST];  /* the model's own losses */
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
    if (flash_trainer_create(&t, &d, &err))
        die(err.text);
    return t;
}

/* Losses of the test's sequences; their mean. */
static double losses(flash_trainer *t, const bench *b, double each[TEST])
{
    flash_trainer_report r;
    double sum = 0;
    for (int i = 0; i < TEST; i++) {
        if (flash_trainer_evaluate(t, b->test + i * ROW, 1, &r))
            die("a loss is no number");
        each[i] = r.ce;
        sum += r.ce / TEST;
    }
    return sum;
}

/* The mean of x - y, and its standard error. */
static double difference(const double *x, const double *y, double *error)
{
    double mean = 0, squares = 0;
    for (int i = 0; i < TEST; i++)
        mean += (x[i] - y[i]) / TEST;
    for (int i = 0; i < TEST; i++)
        squares += (x[i] - y[i] - mean) * (x[i] - y[i] - mean);
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
        if (flash_trainer_step(t, tokens, NULL))
            die("a step is no number");
    }
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
    if (flash_prune_view(&m, &d, &err))
        die(err.text);
    return m;
}

/* What such a cut adds to the loss. */
static double damage(const bench *b, int ffn, const int *const *units, double *error)
{
    double each[TEST], more;
    flash_model *m = cut(b, ffn, units);
    flash_trainer *t = trainer(b, m, 0, NULL, 1);
    losses(t, b, each);
    more = difference(each, b->base, error);
    flash_trainer_free(t);
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
            if (strcmp(name, w.name))
                continue;
            for (int r = 0; r < w.rows; r++)
                for (int c = 0; c < w.cols; c++) {
                    double v = (double)w.data[(size_t)r * (size_t)w.cols + (size_t)c];
                    score[k < 2 ? r : c] += v * v;
                }
        }
    for (int k = 0; k < F - keep; k++) { /* the least goes */
        int least = -1;
        for (int i = 0; i < F; i++)
            if (score[i] >= 0 && (least < 0 || score[i] < score[least]))
                least = i;
        score[least] = -1;
    }
    for (int i = 0, k = 0; i < F; i++)
        if (score[i] >= 0)
            out[k++] = i;
    free(score);
}

static void by_chance(uint64_t *state, int F, int keep, int *out)
{
    for (int i = 0, k = 0; k < keep; i++) /* Knuth, TAOCP 2, 3.4.2 S */
        if ((double)(next(state) >> 11) / 9007199254740992.0 * (F - i) < keep - k)
            out[k++] = i;
}

/* Patterns of so many attentions skipped with none of three in a row, and how many of them have a
   smaller divergence than the greedy one. */
static void skips(const bench *b, flash_trainer *t, int L)
{
    const int32_t *ids = b->ids;
    enum { N = 16 };
    double *kl = malloc(sizeof *kl << L), apart = 0, inside = 0;
    uint8_t skip[FLASH_LAYERS_MAX];
    unsigned chosen = 0;
    for (unsigned mask = 0; mask < 1u << L; mask++) {
        for (int l = 0; l < L; l++)
            skip[l] = mask >> l & 1;
        kl[mask] = 0;
        if (!(mask & mask >> 1 & mask >> 2) && flash_trainer_skip(t, ids, N, skip, kl + mask))
            die("a divergence is no number");
    }
    for (int k = 1; k <= L / 2 + 1; k++) {
        unsigned best = 0;
        int all = 0, better = 0;
        for (int l = 0; l < L; l++) {
            unsigned with = chosen | 1u << l;
            if (with != chosen && !(with & with >> 1 & with >> 2) && (!best || kl[with] < kl[best]))
                best = with;
        }
        if (!best)
            break;
        chosen = best;
        for (unsigned mask = 0; mask < 1u << L; mask++) {
            int count = 0;
            for (int l = 0; l < L; l++)
                count += mask >> l & 1;
            if (count != k || mask & mask >> 1 & mask >> 2)
                continue;
            all++;
            better += kl[mask] < kl[chosen];
        }
        printf("bench skip %s skipped=%d kl=%.4f patterns=%d better=%d share=%.3f\n", b->name, k,
               kl[chosen], all, better, (double)better / all);
    }
    /* as many in a row as apart: means over all places */
    for (int l = 0, n = 0; l + 1 < L; l++, n++)
        inside += kl[3u << l] / (L - 1);
    int pairs = 0;
    for (int l = 0; l < L; l++)
        for (int k = l + 2; k < L; k++, pairs++)
            apart += kl[1u << l | 1u << k];
    printf("bench interleaved %s skipped=2 consecutive=%.4f interleaved=%.4f\n", b->name, inside,
           apart / pairs);
    free(kl);
}

int main(int argc, char **argv)
{
    bench b = {0};
    flash_model_desc md;
    flash_error err;
    FILE *f = argc > 2 ? fopen(argv[2], "rb") : NULL;
    if (!f)
        die("usage: bench_prune MODEL TEXT [THREADS [STEPS]]");
    b.name = strrchr(argv[1], '/') ? strrchr(argv[1], '/') + 1 : argv[1];
    b.threads = argc > 3 ? atoi(argv[3]) : 1;
    b.steps = argc > 4 ? atoi(argv[4]) : 4000;
    memset(&md, 0, sizeof md);
    md.source.path = argv[1];
    if (flash_model_load(&b.model, &md, &err))
        die(err.text);
    char *text = malloc(16 << 20);
    size_t bytes = fread(text, 1, 16 << 20, f), all;
    fclose(f);
    flash_tokenize(b.model, text, bytes, 0, NULL, 0, &all);
    b.ids = malloc(all * sizeof *b.ids);
    flash_tokenize(b.model, text, bytes, 0, b.ids, all, &all);
    b.n = all / 10 * 9;
    if (all / 10 < TEST * ROW)
        die("the text is too short");
    b.test = malloc(TEST * ROW * sizeof *b.test);
    for (size_t i = 0; i < TEST; i++)
        memcpy(b.test + i * ROW, b.ids + b.n + (all - b.n - ROW) / TEST * i, ROW * sizeof *b.ids);

    const flash_arch *a = flash_model_arch(b.model);
    int L = a->n_layer, F = a->layer[0].d_ffn, keep = F / 4 * 3;
    flash_trainer *t = trainer(&b, b.model, 0, NULL, 1);
    flash_calibration *c;
    double base = losses(t, &b, b.base), error, chance = 0;
    int *units[3][FLASH_LAYERS_MAX];
    if (flash_calibration_create(&c, a, NULL, &err))
        die(err.text);
    int32_t *some = malloc(CALIBRATE * ROW * sizeof *some);
    for (size_t i = 0; i < CALIBRATE; i++)
        memcpy(some + i * ROW, b.ids + (b.n - ROW) / CALIBRATE * i, ROW * sizeof *some);
    if (flash_calibration_add(c, t, some, CALIBRATE))
        die("the calibration failed");
    printf("bench model %s loss=%.4f\n", b.name, base);

    /* a quarter of all FFN units */
    for (int w = 0; w < 3; w++)
        for (int l = 0; l < L; l++)
            units[w][l] = malloc((size_t)keep * sizeof(int));
    for (int l = 0; l < L; l++) {
        flash_calibration_choose(c, FLASH_PART_UNIT, l, 0, keep, 1, units[0][l]);
        by_weight(t, l, F, keep, units[1][l]);
    }
    double activation = damage(&b, keep, (const int *const *)units[0], &error), e;
    double weight = damage(&b, keep, (const int *const *)units[1], &e);
    uint64_t state = 1;
    for (int r = 0; r < RANDOM_CUTS; r++) {
        for (int l = 0; l < L; l++)
            by_chance(&state, F, keep, units[2][l]);
        chance += damage(&b, keep, (const int *const *)units[2], &e) / RANDOM_CUTS;
    }
    printf("bench ffn25 %s activation=%.4f+-%.4f weight=%.4f random_mean=%.4f ratio=%.3f\n", b.name,
           activation, error, weight, chance, activation / chance);
    fflush(stdout);
    if (L <= 8)
        skips(&b, t, L);
    fflush(stdout);
    flash_trainer_free(t);

    /* healed by the whole model, next to random weights on as many tokens */
    flash_model *m = cut(&b, keep, (const int *const *)units[0]);
    double each[TEST], healed[2];
    int steps[2] = {b.steps / 10, b.steps};
    for (int k = 0; k < 2; k++) {
        t = trainer(&b, m, 0, b.model, steps[k]);
        learn(t, &b, steps[k]);
        losses(t, &b, each);
        healed[k] = difference(each, b.base, &error);
        flash_trainer_free(t);
        printf("bench heal %s steps=%d tokens=%d lost=%.4f left=%.4f+-%.4f recovered=%.2f\n",
               b.name, steps[k], steps[k] * BATCH * CTX, activation, healed[k], error,
               1 - healed[k] / activation);
        fflush(stdout);
    }
    t = trainer(&b, m, 1, NULL, steps[0]);
    learn(t, &b, steps[0]);
    losses(t, &b, each);
    printf("bench inherit %s steps=%d pruned=%.4f random=%.4f gain=%.4f\n", b.name, steps[0],
           base + healed[0], base + difference(each, b.base, &error),
           difference(each, b.base, &e) - healed[0]);
    flash_trainer_free(t);
    flash_model_free(m);
    return 0;
}
