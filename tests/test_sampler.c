/* Tests of sampling: each rule against a straightforward computation in double, frequencies by
   chi-square, and one sequence of draws that is the same on every machine. */
#include "../flash.h"
#include "mkmodel.h"
#include "test.h"

enum { V = 320, EOS = 2, PLAY = 12, DRAWS = 20000 };

/* Makes a model whose embeddings are zero. All its logits are 0, so that a session samples from
   exactly the bias. The caller frees the model and *file. */
static flash_model *blank_model(uint8_t **file)
{
    mk_options o = {0};
    mk_file *f = mk_llama(&o);
    mk_tensor *t = mk_find_tensor(f, "token_embd.weight");
    flash_model_desc d = {0};
    flash_model *m = NULL;
    memset(t->data.p, 0, t->data.n);
    d.source.data = *file = mk_emit(f, &d.source.bytes);
    CHECK_EQ(flash_model_load(&m, &d, NULL), FLASH_OK);
    mk_free(f);
    return m;
}

static flash_logit_bias bias[V];

/* Gives the tokens 100 to 100 + n - 1 the given logits, and all others -1000. */
static void set_logits(flash_sampler *sp, const double *logits, int n)
{
    for (int i = 0; i < V; i++) {
        bias[i].token = i;
        bias[i].bias = i >= 100 && i < 100 + n ? (float)logits[i - 100] : -1000.0f;
    }
    sp->bias = bias;
    sp->n_bias = V;
}

/* Returns a session that has processed these tokens, so that it has logits and a past. */
static flash_session *session(const flash_model *m, const flash_sampler *sp, const int32_t *ids,
                              size_t n)
{
    flash_session_desc d = {0};
    flash_session *s = NULL;
    d.sampler = *sp;
    CHECK_EQ(flash_session_create(&s, m, &d), FLASH_OK);
    CHECK_EQ(flash_session_feed(s, ids, n), FLASH_OK);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    return s;
}

/* --- the rules, straight -------------------------------------------------------------------- */

typedef struct choice {
    int token;
    double logit, p, key;
} choice;

static int by_key(const void *a, const void *b)
{
    const choice *x = (const choice *)a, *y = (const choice *)b;
    return x->key < y->key ? -1 : x->key > y->key ? 1 : x->token - y->token;
}

static void normalise(choice *c, int n)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) max = c[i].logit > max ? c[i].logit : max;
    for (int i = 0; i < n; i++) sum += c[i].p = exp(c[i].logit - max);
    for (int i = 0; i < n; i++) c[i].p /= sum;
}

static int keep_mass(const choice *c, int n, double mass)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += c[i].p;
        if (sum >= mass) return i + 1;
    }
    return n;
}

/* Computes the probability of every token: p [V]. */
static void expected(const flash_sampler *sp, const int32_t *past, int n_past, double *p)
{
    choice c[V];
    int n = V;
    int last = sp->penalty_last_n == 0 ? 64 : sp->penalty_last_n < 0 ? n_past : sp->penalty_last_n;
    for (int i = 0; i < V; i++) {
        int count = 0;
        double z = sp->bias[i].bias, repeat = sp->repeat_penalty != 0 ? sp->repeat_penalty : 1;
        for (int k = n_past > last ? n_past - last : 0; k < n_past; k++) count += past[k] == i;
        if (count) {
            z = z > 0 ? z / repeat : z * repeat;
            z -= (double)sp->frequency_penalty * count + sp->presence_penalty;
        }
        c[i].token = i;
        c[i].logit = z / sp->temperature;
        c[i].key = -c[i].logit;
        p[i] = 0;
    }
    qsort(c, (size_t)n, sizeof *c, by_key);
    if (sp->top_k > 0 && sp->top_k < n) n = sp->top_k;
    if (sp->typical_p > 0 && sp->typical_p < 1) {
        double entropy = 0;
        normalise(c, n);
        for (int i = 0; i < n; i++) entropy -= c[i].p > 0 ? c[i].p * log(c[i].p) : 0;
        for (int i = 0; i < n; i++) c[i].key = c[i].p > 0 ? fabs(-log(c[i].p) - entropy) : INFINITY;
        qsort(c, (size_t)n, sizeof *c, by_key);
        n = keep_mass(c, n, sp->typical_p);
        for (int i = 0; i < n; i++) c[i].key = -c[i].logit;
        qsort(c, (size_t)n, sizeof *c, by_key);
    }
    if (sp->top_p > 0 && sp->top_p < 1) {
        normalise(c, n);
        n = keep_mass(c, n, sp->top_p);
    }
    if (sp->min_p > 0) {
        normalise(c, n);
        while (n > 1 && c[n - 1].p < sp->min_p * c[0].p) n--;
    }
    normalise(c, n);
    for (int i = 0; i < n; i++) p[c[i].token] = c[i].p;
}

/* --- frequencies ------------------------------------------------------------------------------ */

static void frequencies(const flash_model *m, const char *name, const flash_sampler *sp,
                        const int32_t *past, int n_past)
{
    static const int32_t begin[] = {50};
    flash_session *s = session(m, sp, past ? past : begin, past ? (size_t)n_past : 1);
    double p[V], chi = 0;
    int count[V] = {0}, freedom = -1, rare = 0, draws = getenv("FLASH_QUICK") ? 2000 : DRAWS;
    double rare_p = 0;
    SECTION(name);
    expected(sp, past ? past : begin, past ? n_past : 1, p);
    for (int i = 0; i < draws; i++) {
        int32_t id = flash_session_sample(s);
        if (id < 0 || id >= V) {
            CHECK(id >= 0 && id < V);
            break;
        }
        count[id]++;
    }
    for (int i = 0; i < V; i++) {
        if (p[i] * draws >= 5) {
            chi += (count[i] - p[i] * draws) * (count[i] - p[i] * draws) / (p[i] * draws);
            freedom++;
        } else {
            rare += count[i];
            rare_p += p[i];
        }
        if (p[i] < 1e-100 && !CHECK_EQ(count[i], 0))
            printf("    token %d ought never to be drawn\n", i);
    }
    /* five standard deviations: a correct sampler exceeds them once in a million runs, and the seed
       is fixed */
    if (!CHECK(chi <= freedom + 5 * sqrt(2.0 * freedom) + 5)) {
        printf("    chi-square %.1f for %d degrees of freedom\n", chi, freedom);
        for (int i = 100; i < 100 + PLAY; i++)
            printf("    %d: %d draws, expected %.1f\n", i, count[i], p[i] * draws);
    }
    CHECK(rare <= 10 + 2 * rare_p * draws);
    flash_session_free(s);
}

static const double logits[PLAY] = {2.0, 0.5,  -1.0, 1.5,  0.25, -0.5,
                                    1.0, -2.0, 0.0,  1.75, -3.0, 0.75};

static void test_rules(const flash_model *m)
{
    static const int32_t past[] = {50, 100, 103, 100, 105, 109, 100, 107, 60, 103};
    const flash_sampler rule[] = {
        {.temperature = 1},
        {.temperature = 0.7f},
        {.temperature = 2.5f},
        {.temperature = 1, .top_k = 1},
        {.temperature = 1, .top_k = 4},
        {.temperature = 1, .top_k = 1000},
        {.temperature = 1, .top_p = 0.6f},
        {.temperature = 0.5f, .top_p = 0.85f},
        {.temperature = 1, .top_p = 0.01f},
        {.temperature = 1, .top_p = 1},
        {.temperature = 1, .min_p = 0.2f},
        {.temperature = 3, .min_p = 0.45f},
        {.temperature = 1, .min_p = 1},
        {.temperature = 1, .typical_p = 0.5f},
        {.temperature = 1, .typical_p = 0.2f},
        {.temperature = 1.5f, .top_k = 9, .typical_p = 0.9f, .top_p = 0.8f, .min_p = 0.2f},
        {.temperature = 1, .top_k = 6, .top_p = 0.5f},
        {.temperature = 1, .repeat_penalty = 1.8f},
        {.temperature = 1, .frequency_penalty = 0.6f},
        {.temperature = 1, .presence_penalty = 1.1f},
        {.temperature = 1, .repeat_penalty = 1.3f, .penalty_last_n = 4},
        {.temperature = 1, .presence_penalty = 2, .penalty_last_n = -1},
        {.temperature = 0.8f,
         .repeat_penalty = 1.2f,
         .frequency_penalty = 0.2f,
         .presence_penalty = 0.3f,
         .top_k = 8,
         .top_p = 0.9f,
         .min_p = 0.05f},
        {.temperature = 1, .seed = 99},
    };
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++) {
        char name[32];
        flash_sampler sp = rule[i];
        snprintf(name, sizeof name, "rule %d", (int)i);
        set_logits(&sp, logits, PLAY);
        frequencies(m, name, &sp, past, (int)(sizeof past / sizeof *past));
        if (sp.typical_p == 0.5f) { /* the most probable token is not the most typical */
            static const double head[PLAY] = {3.0, 0.4, 0.3, 0.5,  0.2,  0.1,
                                              0.6, 0.7, 0.8, 0.35, 0.45, 0.55};
            set_logits(&sp, head, PLAY);
            frequencies(m, "typical", &sp, past, (int)(sizeof past / sizeof *past));
        }
    }
}

/* --- greedy ----------------------------------------------------------------------------------- */

static int32_t greedy(const flash_model *m, const flash_sampler *sp, const int32_t *past, size_t n)
{
    static const int32_t begin[] = {50};
    flash_session *s = session(m, sp, past ? past : begin, past ? n : 1);
    int32_t id = flash_session_sample(s);
    CHECK_EQ(flash_session_sample(s), id);
    flash_session_free(s);
    return id;
}

static void test_greedy(const flash_model *m)
{
    static const int32_t past[] = {50, 101, 101};
    flash_sampler sp = {0};
    SECTION("greedy");
    CHECK_EQ(greedy(m, &sp, NULL, 0), 0); /* all equal: the lowest id */
    const double tie[] = {1, 3, 2, 3, 3};
    set_logits(&sp, tie, 5);
    CHECK_EQ(greedy(m, &sp, NULL, 0), 101);
    sp.repeat_penalty = 1.5f; /* 3 / 1.5 */
    CHECK_EQ(greedy(m, &sp, past, 3), 103);
    sp.repeat_penalty = 0;
    sp.frequency_penalty = 0.25f;
    CHECK_EQ(greedy(m, &sp, past, 3), 103);
    sp.frequency_penalty = 0;
    CHECK_EQ(greedy(m, &sp, past, 3), 101);
    const double below[] = {-3, -2, -2.5};
    set_logits(&sp, below, 3);
    sp.repeat_penalty = 1.5f; /* -2 * 1.5 */
    CHECK_EQ(greedy(m, &sp, past, 3), 102);
    sp.penalty_last_n = 1;
    CHECK_EQ(greedy(m, &sp, past, 3), 102);
    CHECK_EQ(greedy(m, &sp, past, 2), 102);
    CHECK_EQ(greedy(m, &sp, past, 1), 101);

    SECTION("the best, wherever it is");
    memset(&sp, 0, sizeof sp);
    set_logits(&sp, tie, 5);
    for (int i = 0; i < V; i++) {
        bias[i].bias += 2000;
        CHECK_EQ(greedy(m, &sp, NULL, 0), i);
        bias[i].bias -= 2000;
    }
    flash_sampler plain = {0}; /* and of the logits as they are */
    static const int32_t begin[] = {50};
    flash_session *s = session(m, &plain, begin, 1);
    for (int i = 0; i < V; i++) {
        float *logits = (float *)(uintptr_t)flash_session_logits(s), was = logits[i];
        logits[i] = 1e9f;
        CHECK_EQ(flash_session_sample(s), i);
        logits[i] = was;
    }
    flash_session_free(s);
    sp.repeat_penalty = 1.5f;

    SECTION("the last 64 tokens, or all");
    int32_t long_past[66];
    for (int i = 0; i < 66; i++) long_past[i] = 50;
    long_past[1] = 101;
    set_logits(&sp, tie, 5);
    for (int last = -1; last < 1; last++) {
        sp.penalty_last_n = last;
        CHECK_EQ(greedy(m, &sp, long_past, 65), 103); /* 101 is the 64th from the end */
        CHECK_EQ(greedy(m, &sp, long_past, 66), last ? 103 : 101);
    }

    SECTION("one bias");
    flash_sampler one = {0};
    flash_logit_bias few[] = {{7, 1.0f}, {9, 2.0f}, {7, 1.5f}};
    one.bias = few;
    one.n_bias = 2;
    CHECK_EQ(greedy(m, &one, NULL, 0), 9);
    one.n_bias = 3; /* added: 2.5 for 7 */
    CHECK_EQ(greedy(m, &one, NULL, 0), 7);

    SECTION("ignore_end");
    flash_sampler end = {0};
    flash_logit_bias want_end[] = {{EOS, 100.0f}, {33, 1.0f}};
    flash_piece piece;
    end.bias = want_end;
    end.n_bias = 2;
    CHECK_EQ(greedy(m, &end, NULL, 0), EOS);
    s = session(m, &end, past, 3);
    CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_END_OF_TEXT);
    flash_session_free(s);
    end.ignore_end = 1;
    CHECK_EQ(greedy(m, &end, NULL, 0), 33);
    s = session(m, &end, past, 3);
    CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_OK);
    CHECK_EQ(piece.token, 33);
    end.temperature = 5;
    CHECK_EQ(flash_session_sampler(s, &end), FLASH_OK);
    for (int i = 0; i < 200; i++) CHECK(flash_session_sample(s) != EOS);
    flash_session_free(s);

    /* Logits that are NaN, infinite or huge: any token, but no crash. */
    SECTION("odd numbers");
    const float odd[] = {INFINITY, -INFINITY, NAN, 3e38f, -3e38f};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        for (int all = 0; all < 2; all++) {
            for (int hot = 0; hot < 2; hot++) {
                set_logits(&sp, logits, PLAY);
                for (int k = 0; k < (all ? V : 100); k++) bias[k].bias = odd[i];
                sp.temperature = hot ? 1.0f : 0.0f;
                sp.top_p = 0.9f;
                sp.typical_p = 0.9f;
                sp.min_p = 0.1f;
                s = session(m, &sp, past, 3);
                int32_t id = flash_session_sample(s);
                CHECK(id >= 0 && id < V);
                flash_session_free(s);
            }
        }
    }
}

/* --- random numbers --------------------------------------------------------------------------- */

static void draw(const flash_model *m, uint64_t seed, int32_t *out, int n)
{
    static const int32_t begin[] = {50};
    flash_sampler sp = {0};
    sp.temperature = 1.25f;
    sp.top_p = 0.95f;
    sp.seed = seed;
    set_logits(&sp, logits, PLAY);
    flash_session *s = session(m, &sp, begin, 1);
    for (int i = 0; i < n; i++) out[i] = flash_session_sample(s);
    flash_session_free(s);
}

static void test_seeds(const flash_model *m)
{
    enum { N = 32 };
    static const int32_t golden[N] = {111, 100, 109, 109, 100, 104, 100, 101, 109, 106, 100,
                                      103, 103, 103, 106, 100, 100, 103, 100, 106, 108, 100,
                                      106, 106, 100, 109, 111, 111, 108, 106, 101, 101};
    int32_t a[N], b[N];
    SECTION("seeds");
    draw(m, 42, a, N);
    draw(m, 42, b, N);
    CHECK(memcmp(a, b, sizeof a) == 0);
    if (!CHECK(memcmp(a, golden, sizeof a) == 0)) {
        printf("    seed 42 draws");
        for (int i = 0; i < N; i++) printf(" %d,", (int)a[i]);
        printf("\n");
    }
    draw(m, 43, b, N);
    CHECK(memcmp(a, b, sizeof a) != 0);
    draw(m, 42 + (UINT64_C(1) << 40), b, N);
    CHECK(memcmp(a, b, sizeof a) != 0);
    draw(m, 0, a, N);
    draw(m, 1, b, N);
    CHECK(memcmp(a, b, sizeof a) == 0); /* 0 means 1 */

    /* The random numbers begin anew after a reset and after a new sampler; they go on after a
       truncate. */
    static const int32_t begin[] = {50};
    flash_sampler sp = {0};
    sp.temperature = 1;
    sp.seed = 7;
    set_logits(&sp, logits, PLAY);
    flash_session *s = session(m, &sp, begin, 1);
    for (int i = 0; i < N; i++) a[i] = flash_session_sample(s);
    CHECK_EQ(flash_session_sampler(s, &sp), FLASH_OK);
    for (int i = 0; i < N; i++) b[i] = flash_session_sample(s);
    CHECK(memcmp(a, b, sizeof a) == 0);
    flash_session_reset(s);
    CHECK_EQ(flash_session_feed(s, begin, 1), FLASH_OK);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    for (int i = 0; i < N; i++) b[i] = flash_session_sample(s);
    CHECK(memcmp(a, b, sizeof a) == 0);
    flash_session_free(s);

    /* next draws the same numbers as sample */
    s = session(m, &sp, begin, 1);
    for (int i = 0; i < N; i++) {
        flash_piece piece;
        CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_OK);
        b[i] = piece.token;
    }
    CHECK(memcmp(a, b, sizeof a) == 0);
    CHECK(memcmp(flash_session_tokens(s) + 1, a, sizeof a) == 0);
    flash_session_free(s);
}

int main(void)
{
    uint8_t *file = NULL;
    flash_model *m = blank_model(&file);
    if (m) {
        test_greedy(m);
        test_rules(m);
        test_seeds(m);
    }
    flash_model_free(m);
    free(file);
    return test_done();
}
