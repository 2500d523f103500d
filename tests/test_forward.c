/* Tests the forward pass: against a simple reference in double precision, for the same bits however
   the work is divided, and against fixed outputs. GOLDEN_WRITE=1 rewrites tests/golden. */
#include "../flash.h"
#include "mkmodel.h"
#include "reference.h"
#include "test.h"

static const char *const names[] = {"f32",   "f16-bpe", "bf16", "q4",   "q5",  "q8_0",
                                    "q23_k", "q4_k",    "q5_k", "q6_k", "iq4", "mxfp4"};
enum { N_NAMES = sizeof names / sizeof *names, LONG_TEXT = 256, LONGEST = 700 };

static const char *data_path(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "tests/data/%s.gguf", name);
    return path;
}

static flash_model *load(const void *data, size_t bytes)
{
    flash_model_desc d = {0};
    flash_model *m = NULL;
    flash_error err = {FLASH_OK, 0, ""};
    d.source.data = data;
    d.source.bytes = bytes;
    if (!CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK)) printf("    %s\n", err.text);
    return m;
}

static flash_session *session(const flash_model *m, const flash_session_desc *d)
{
    flash_session *s = NULL;
    CHECK_EQ(flash_session_create(&s, m, d), FLASH_OK);
    return s;
}

/* Fills ids with n random tokens of the vocabulary. */
static void random_ids(const flash_model *m, int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)((test_rnd() >> 8) % (uint32_t)flash_model_arch(m)->n_vocab);
}

/* Returns the logits [n,V] after each of n tokens, taken chunk by chunk. The caller frees them. */
static float *all_logits(const flash_model *m, const int32_t *ids, int n, flash_type kv)
{
    size_t V = (size_t)flash_model_arch(m)->n_vocab;
    float *out = (float *)calloc((size_t)n * V, sizeof *out);
    flash_session_desc d = {0};
    flash_status st = FLASH_MORE;
    d.n_ctx = n;
    d.all_logits = 1;
    d.kv = kv;
    flash_session *s = session(m, &d);
    CHECK_EQ(flash_session_feed(s, ids, (size_t)n), FLASH_OK);
    int done = 0;
    while (st == FLASH_MORE && done < n) {
        int first = -1, rows = 0;
        st = flash_session_step(s, NULL);
        const float *p = flash_session_chunk_logits(s, &first, &rows);
        if (!CHECK(p != NULL && first == done && rows > 0 && done + rows <= n)) break;
        memcpy(out + (size_t)done * V, p, (size_t)rows * V * sizeof *p);
        done += rows;
        if (st == FLASH_OK) {
            const float *last = flash_session_logits(s);
            CHECK(last && memcmp(last, p + (size_t)(rows - 1) * V, V * sizeof *p) == 0);
        }
    }
    CHECK_EQ(st, FLASH_OK);
    CHECK_EQ(done, n);
    flash_session_free(s);
    return out;
}

static int long_text(void) { return getenv("FLASH_QUICK") ? 64 : LONG_TEXT; }

/* --- against the reference ------------------------------------------------------------------- */

/* Checks that the probabilities after each of n tokens are within 1e-4 of the reference's. given:
   the tokens; NULL for random ones. With quantised weights, activations are quantised too, and one
   that lies just between two steps may be rounded either way: random tokens are chosen so that none
   does. */
static void against_reference(const flash_model *m, const char *name, const int32_t *given, int n)
{
    int V = flash_model_arch(m)->n_vocab, wrong_top = 0, quantised = 0;
    int32_t ids[LONGEST];
    ref_model *r = ref_load(flash_model_gguf(m));
    double *want = (double *)malloc((size_t)n * (size_t)V * sizeof *want), worst = 0, worst_kv = 0;
    double *p = (double *)malloc((size_t)V * 3 * sizeof *p), *q = p + V, *x = q + V;
    for (int l = 0; l < r->L; l++) quantised |= r->layer[l].q.quantised;
    r->q8 = 1;
    for (int t = 0; t < n; t++) {
        int tries = 0;
        do {
            ids[t] = given ? given[t] : (int32_t)((test_rnd() >> 8) % (uint32_t)V);
            r->closest = 1;
            ref_step(r, ids[t], t, want + (size_t)t * (size_t)V);
        } while (!given && r->closest < 2e-4 && tries++ < 100);
        CHECK(r->closest >= 2e-4);
    }
    float *got = all_logits(m, ids, n, FLASH_TYPE_F32);
    float *half = all_logits(m, ids, n, FLASH_TYPE_F16);
    for (int t = 0; t < n; t++) {
        const float *row = got + (size_t)t * (size_t)V, *row16 = half + (size_t)t * (size_t)V;
        int top = 0, mine = 0;
        double second = 0;
        ref_softmax(want + (size_t)t * (size_t)V, p, V);
        for (int i = 0; i < V; i++) {
            x[i] = row[i];
            mine = row[i] > row[mine] ? i : mine;
            top = p[i] > p[top] ? i : top;
        }
        ref_softmax(x, q, V);
        for (int i = 0; i < V; i++) {
            second = i != top && p[i] > second ? p[i] : second;
            worst = fmax(worst, fabs(p[i] - q[i]));
            x[i] = row16[i];
        }
        wrong_top += p[top] - second > 1e-2 && mine != top;
        ref_softmax(x, q, V);
        for (int i = 0; i < V; i++) worst_kv = fmax(worst_kv, fabs(p[i] - q[i]));
    }
    CHECK(worst <= 1e-4);
    CHECK_EQ(wrong_top, 0);
    CHECK(worst_kv <= (quantised ? 1e-1 : 1e-2));
    printf("%-18s %d positions: largest difference %.1e, with F16 keys and values %.1e\n", name, n,
           worst, worst_kv);
    free(want);
    free(p);
    free(got);
    free(half);
    ref_free(r);
}

static void test_same_bits(const void *file, size_t bytes, const char *name, int N);

/* Keys and values in Q8_0 change the probabilities, but by `most` at the most. */
static void test_q8_cache(const flash_model *m, double most)
{
    enum { N = 100 };
    int32_t ids[N];
    int V = flash_model_arch(m)->n_vocab;
    double worst = 0, sum[2];
    random_ids(m, ids, N);
    float *full = all_logits(m, ids, N, FLASH_TYPE_F32);
    float *q8 = all_logits(m, ids, N, FLASH_TYPE_Q8_0);
    for (int t = 0; t < N; t++) {
        const float *a = full + (size_t)t * (size_t)V, *b = q8 + (size_t)t * (size_t)V;
        sum[0] = sum[1] = 0;
        for (int i = 0; i < V; i++) {
            sum[0] += exp(a[i]);
            sum[1] += exp(b[i]);
        }
        for (int i = 0; i < V; i++)
            worst = fmax(worst, fabs(exp(a[i]) / sum[0] - exp(b[i]) / sum[1]));
    }
    CHECK(worst > 0 && worst <= most);
    free(full);
    free(q8);
}

/* Random models with features that the files in tests/data do not have. */
static void test_variants(void)
{
    static const char *const kinds[] = {"plain",        "linear",     "yarn",
                                        "yarn, less",   "rope_freqs", "biases",
                                        "rope 4 of 8",  "no groups",  "factor, type none",
                                        "scale_linear", "head of 32"};
    for (int k = 0; k < (int)(sizeof kinds / sizeof *kinds); k++) {
        mk_options o = {0};
        uint64_t seed = 1234;
        o.untied = k % 2;
        o.seed = (uint64_t)k;
        o.n_kv_head = k == 7 ? 4 : 1;
        o.d_head = k == 10 ? 32 : 0;
        mk_file *f = mk_llama(&o);
        SECTION(kinds[k]);
        if (k == 1 || k == 2 || k == 3 || k == 8) {
            mk_set_text(f, "llama.rope.scaling.type", k == 1 ? "linear" : k == 8 ? "none" : "yarn");
            mk_set_f32(f, "llama.rope.scaling.factor", 4);
            mk_set_u32(f, "llama.rope.scaling.original_context_length", 64);
        }
        if (k == 3) {
            mk_set_f32(f, "llama.rope.scaling.attn_factor", 0.75f);
            mk_set_f32(f, "llama.rope.scaling.yarn_beta_fast", 8);
            mk_set_f32(f, "llama.rope.scaling.yarn_beta_slow", 2);
            mk_set_f32(f, "llama.rope.freq_base", 500);
        }
        if (k == 4) mk_add_tensor(f, "rope_freqs.weight", MK_F32, 4, 0, 3, 1, &seed);
        if (k == 9) mk_set_f32(f, "llama.rope.scale_linear", 3);
        for (int l = 0; k == 5 && l < 2; l++) {
            static const struct {
                const char *name;
                uint64_t n;
            } biases[] = {{"attn_q", 32},   {"attn_k", 8},  {"attn_v", 8},   {"attn_output", 32},
                          {"ffn_gate", 64}, {"ffn_up", 64}, {"ffn_down", 32}};
            for (size_t i = 0; i < sizeof biases / sizeof *biases; i++) {
                char name[64];
                snprintf(name, sizeof name, "blk.%d.%s.bias", l, biases[i].name);
                mk_add_tensor(f, name, MK_F32, biases[i].n, 0, 0, 0.5, &seed);
            }
        }
        if (k == 6) mk_set_u32(f, "llama.rope.dimension_count", 4);
        size_t bytes;
        uint8_t *file = mk_emit(f, &bytes);
        flash_model *m = load(file, bytes);
        if (m) {
            against_reference(m, kinds[k], NULL, long_text());
            test_q8_cache(m, k == 10 ? 1e-2 : 2e-2); /* 32 or 8 items share a scale */
            if (k == 10) test_same_bits(file, bytes, kinds[k], 70);
        }
        flash_model_free(m);
        free(file);
        mk_free(f);
    }
}

/* --- the same bits however the work is divided ----------------------------------------------- */

/* A clock of the host that advances by 1 every time it is read, and may cancel a session then. */
typedef struct ticker {
    double now;
    flash_session *cancel; /* session to cancel at the time cancel_at; NULL: none */
    double cancel_at;
} ticker;

static double tick(void *user)
{
    ticker *t = (ticker *)user;
    t->now += 1;
    if (t->cancel && t->now >= t->cancel_at) {
        flash_session_cancel(t->cancel);
        t->cancel = NULL;
    }
    return t->now;
}

/* A parallel_for that runs the tasks in reverse order. */
static void backwards(void *user, int tasks, void (*task)(void *ctx, int index), void *ctx)
{
    (void)user;
    while (tasks--) task(ctx, tasks);
}

/* Steps the session until its queue is empty. how: 0 without interruption, 1 by a budget of tokens,
   2 by a deadline, 3 by cancelling. Returns the number of interruptions. */
static int work_off(flash_session *s, ticker *clock, int how)
{
    int interrupted = 0;
    flash_status st = FLASH_MORE;
    for (int turn = 0; st != FLASH_OK && turn < 20000; turn++) {
        flash_budget b = {0, 0};
        int before = flash_session_position(s), pending = flash_session_pending(s), r;
        r = (int)(test_rnd() >> 8) % 12;
        if (how == 1) {
            b.tokens = 1 + r;
        } else if (how == 2) {
            b.deadline = clock->now + 1 + r / 4;
        } else if (how == 3 && r < 4) {
            flash_session_cancel(s);
        } else if (how == 3) {
            b.deadline = clock->now + 1000000;
            clock->cancel = s;
            clock->cancel_at = clock->now + r / 4;
        }
        int at_once = how == 3 && r < 4;
        st = flash_session_step(s, how ? &b : NULL);
        clock->cancel = NULL;
        int now = flash_session_position(s);
        CHECK(now >= before && now - before <= pending);
        CHECK_EQ(flash_session_pending(s), pending - (now - before));
        if (at_once) CHECK_EQ(st, FLASH_E_CANCELLED);
        if (how == 1) CHECK_EQ(now - before, b.tokens < pending ? b.tokens : pending);
        if (st == FLASH_MORE || st == FLASH_E_CANCELLED) {
            interrupted++;
            CHECK(flash_session_pending(s) > 0 || st == FLASH_E_CANCELLED);
        } else if (!CHECK_EQ(st, FLASH_OK)) {
            break;
        }
    }
    CHECK_EQ(st, FLASH_OK);
    CHECK_EQ(flash_session_pending(s), 0);
    return interrupted;
}

/* Returns 1 if sessions can be truncated to any position: no windows, no convolutions. */
static int keeps_all(const flash_model *m)
{
    const flash_arch *a = flash_model_arch(m);
    for (int i = 0; i < a->n_layer; i++) {
        if (a->layer[i].attention != FLASH_ATTENTION_FULL
            && a->layer[i].attention != FLASH_ATTENTION_SKIP) {
            return 0;
        }
    }
    return 1;
}

/* Truncates the session to a position. If the state before it is gone, resets the session and feeds
   the tokens again. */
static void go_back(const flash_model *m, flash_session *s, const int32_t *ids, int position)
{
    int had = flash_session_position(s), pending = flash_session_pending(s);
    flash_status st = flash_session_truncate(s, position);
    if (st == FLASH_E_RANGE && !keeps_all(m) && position > 0) {
        CHECK_EQ(flash_session_position(s), had);
        CHECK_EQ(flash_session_pending(s), pending);
        flash_session_reset(s);
        CHECK_EQ(flash_session_feed(s, ids, (size_t)position), FLASH_OK);
        while ((st = flash_session_step(s, NULL)) == FLASH_MORE) {}
        CHECK_EQ(st, FLASH_OK);
        st = flash_session_truncate(s, position);
    }
    CHECK_EQ(st, FLASH_OK);
    CHECK_EQ(flash_session_position(s), position);
    CHECK(flash_session_logits(s) == NULL);
}

static void test_cuts(const flash_model *m, const char *name, int often)
{
    enum { N = 150 };
    static const int chunks[] = {1, 7, 64, 512};
    int quick = getenv("FLASH_QUICK") != NULL, rounds = quick ? 4 : often ? 16 : 8;
    int n = (keeps_all(m) ? 90 : N) / (quick ? 2 : 1), interrupted[4] = {0};
    size_t V = (size_t)flash_model_arch(m)->n_vocab;
    int32_t ids[N], other[N];
    SECTION(name);
    random_ids(m, ids, n);
    for (int kv = 0; kv < 2; kv++) {
        float *want = all_logits(m, ids, n, (flash_type)kv);
        for (int round = 0; round < rounds; round++) {
            flash_session_desc d = {0};
            ticker clock = {100, NULL, 0};
            int how = (round + round / 4) % 4, at = 0;
            d.n_ctx = n + round % 3;
            d.chunk = chunks[round % 4];
            d.kv = (flash_type)kv;
            d.threads = round % 5;
            d.host.clock = tick;
            d.host.user = &clock;
            if (round % 2) d.host.parallel_for = backwards;
            flash_session *s = session(m, &d);
            if (round % 3 == 0) { /* other tokens first, then a reset */
                random_ids(m, other, n);
                CHECK_EQ(flash_session_feed(s, other, (size_t)n), FLASH_OK);
                flash_budget some = {round * 5 + 1, 0};
                flash_session_step(s, &some);
                flash_session_reset(s);
                CHECK_EQ(flash_session_position(s) + flash_session_pending(s), 0);
                CHECK(flash_session_logits(s) == NULL);
            }
            while (at < n) {
                int take = 1 + (int)(test_rnd() >> 8) % (round % 3 ? 30 : N);
                take = take > n - at ? n - at : take;
                CHECK_EQ(flash_session_feed(s, ids + at, (size_t)take), FLASH_OK);
                if (test_rnd() & 1024 && at + take < n) { /* two feeds, one step */
                    at += take;
                    take = 1;
                    CHECK_EQ(flash_session_feed(s, ids + at, 1), FLASH_OK);
                }
                at += take;
                interrupted[how] += work_off(s, &clock, how);
                CHECK_EQ(flash_session_position(s), at);
                const float *got = flash_session_logits(s);
                CHECK(got && memcmp(got, want + (size_t)(at - 1) * V, V * sizeof *got) == 0);
                CHECK(memcmp(flash_session_tokens(s), ids, (size_t)at * sizeof *ids) == 0);
                if (round % 3 == 1 && test_rnd() & 512) { /* back, other tokens, back again */
                    int back = (int)(test_rnd() >> 8) % (at + 1);
                    go_back(m, s, ids, back);
                    random_ids(m, other, n);
                    CHECK_EQ(flash_session_feed(s, other, (size_t)(n - back)), FLASH_OK);
                    flash_budget some = {(int)(test_rnd() >> 8) % (n - back + 1), 0};
                    flash_session_step(s, &some);
                    go_back(m, s, ids, back);
                    CHECK_EQ(flash_session_pending(s), 0);
                    at = back;
                }
            }
            flash_session_free(s);
        }
        free(want);
    }
    /* There were interruptions of each kind, and none without a reason. */
    CHECK_EQ(interrupted[0], 0);
    CHECK(interrupted[1] > 1 && interrupted[2] > 1 && interrupted[3] > 1);
}

/* Every instruction set, number of threads and chunk gives the bits of the scalar kernels. */
static void test_same_bits(const void *file, size_t bytes, const char *name, int N)
{
    static const int threads[] = {1, 2, 3, 8}, chunks[] = {1, 7, 64, 512};
    float *want = NULL;
    int32_t ids[LONGEST];
    int tried = 0;
    flash_type kv = FLASH_TYPE_F16;
    SECTION(name);
    for (int isa = FLASH_ISA_SCALAR; isa < FLASH_ISA_COUNT; isa++) {
        flash_model_desc d = {0};
        flash_model *m = NULL;
        d.source.data = file;
        d.source.bytes = bytes;
        d.isa = (flash_isa)isa;
        if (flash_model_load(&m, &d, NULL) == FLASH_E_UNSUPPORTED) continue;
        size_t V = (size_t)flash_model_arch(m)->n_vocab;
        if (!want) {
            random_ids(m, ids, N);
            kv = FLASH_TYPE_Q8_0;
            want = all_logits(m, ids, N, kv);
        }
        for (int k = 0; k < 16; k++) {
            flash_session_desc sd = {0};
            sd.n_ctx = N;
            sd.kv = kv;
            sd.threads = threads[k / 4];
            sd.chunk = chunks[k % 4];
            flash_session *s = session(m, &sd);
            CHECK_EQ(flash_session_feed(s, ids, N), FLASH_OK);
            CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
            if (!CHECK(!memcmp(flash_session_logits(s), want + (N - 1) * V, V * sizeof *want))) {
                printf("    %s, %d threads, chunk %d\n", flash_isa_name((flash_isa)isa), sd.threads,
                       sd.chunk);
            }
            flash_session_free(s);
        }
        tried++;
        flash_model_free(m);
    }
    CHECK(tried > 0);
    free(want);
}

/* Every architecture and each kind of layer, over more positions than any window has. */
static void test_archs(void)
{
    static const struct {
        mk_kind kind;
        int layers, kv_heads;
        uint32_t type;
    } list[] = {
        {{"deci", "fslf", 0}, 4, 2, MK_F32},  {{"flash", "fswno", 0}, 5, 1, MK_F32},
        {{"flash", "sow", 70}, 4, 2, MK_F32}, {{"qwen2", "f", 0}, 2, 2, MK_F32},
        {{"qwen3", "f", 0}, 2, 1, MK_F32},    {{"gemma3", "wwf", 40}, 6, 2, MK_F32},
        {{"gemma3", "f", 0}, 2, 4, MK_F32},   {{"smollm3", "f", 0}, 5, 2, MK_F32},
        {{"lfm2", "ccfc", 0}, 4, 2, MK_F32},  {{"llama4", "f", 0}, 2, 2, MK_F32},
        {{"llama4", "f", 1}, 5, 2, MK_F32},   {{"gemma3", "wf", 64}, 2, 2, MK_Q8_0},
        {{"lfm2", "cf", 0}, 2, 2, MK_Q8_0},
    };
    for (int k = 0; k < (int)(sizeof list / sizeof *list); k++) {
        mk_options o = {0};
        size_t bytes;
        char name[64];
        o.n_ctx = 512;
        o.n_layer = list[k].layers;
        o.n_kv_head = list[k].kv_heads;
        o.qkv = o.ffn_up = o.ffn_down = o.attn_output = list[k].type;
        o.seed = (uint64_t)k;
        mk_file *f = mk_model(&o, &list[k].kind);
        if (list[k].kind.window == 1) /* chunks longer than the text; some layers without RoPE */
            mk_set_u32(f, "llama4.attention.sliding_window", 512);
        uint8_t *file = mk_emit(f, &bytes);
        flash_model *m = load(file, bytes);
        snprintf(name, sizeof name, "%s %s", list[k].kind.arch, list[k].kind.attn);
        SECTION(name);
        if (m) {
            CHECK_EQ(flash_model_arch(m)->temperature_n_ctx, list[k].kind.window == 1 ? 8192 : 0);
            if (list[k].kind.window == 1) /* queries that grow early: no key can say so */
                ref_floor = ((flash_arch *)(uintptr_t)flash_model_arch(m))->temperature_n_ctx = 16;
            against_reference(m, name, NULL, getenv("FLASH_QUICK") ? 100 : 300);
            ref_floor = 8192;
            if (!getenv("FLASH_QUICK") || k == 2 || k == 12) test_cuts(m, name, 0);
        }
        flash_model_free(m);
        free(file);
        mk_free(f);
    }
}

/* The positions that a single token attends to form several spans, which are shared among
   workers. */
static void test_spans(void)
{
    static const mk_kind kind = {"flash", "fw", 600};
    mk_options o = {0};
    size_t bytes;
    o.n_ctx = LONGEST;
    o.n_layer = 2;
    mk_file *f = mk_model(&o, &kind);
    uint8_t *file = mk_emit(f, &bytes);
    flash_model *m = load(file, bytes);
    int n = getenv("FLASH_QUICK") ? 550 : LONGEST;
    SECTION("spans");
    if (m) {
        against_reference(m, "flash, spans", NULL, n);
        test_same_bits(file, bytes, "bits of spans", n);
    }
    flash_model_free(m);
    free(file);
    mk_free(f);
}

/* --- text ------------------------------------------------------------------------------------- */

static int read_memory(void *user, uint64_t at, void *dst, size_t n)
{
    memcpy(dst, (const uint8_t *)user + at, n);
    return 0;
}

/* Appends the text of up to n tokens to text: [cap]. Returns the last status. */
static flash_status generate(flash_session *s, int n, char *text, size_t cap)
{
    flash_status st = FLASH_OK;
    flash_piece piece;
    size_t at = strlen(text);
    while (n-- && (st = flash_session_next(s, NULL, &piece)) == FLASH_OK) {
        CHECK(strlen(piece.text) == piece.bytes || memchr(piece.text, 0, piece.bytes));
        CHECK(piece.text[piece.bytes] == 0);
        if (at + piece.bytes < cap) {
            memcpy(text + at, piece.text, piece.bytes);
            text[at += piece.bytes] = 0;
        }
    }
    return st;
}

static void test_stories(void)
{
    char path[1024];
    size_t bytes, golden_bytes, text_bytes;
    const char *shared = test_shared("models/stories260K.gguf");
    const char *greedy = test_shared("models/stories260K.greedy200.txt");
    uint8_t *file = test_read(shared, &bytes);
    SECTION("stories260K");
    if (!file) {
        SKIP("stories260K", "models/stories260K.gguf");
        return;
    }
    snprintf(path, sizeof path, "%s", shared);
    char *golden = (char *)test_read(greedy, &golden_bytes);
    char *text = (char *)test_read(test_shared("text/tinystories-197KB.txt"), &text_bytes);
    for (int how = 0; how < 3; how++) {
        flash_model_desc d = {0};
        flash_model *m = NULL;
        flash_session_desc sd = {0};
        flash_error err = {FLASH_OK, 0, ""};
        char out[4096] = "";
        if (how == 0) {
            d.source.data = file;
            d.source.bytes = bytes;
        } else if (how == 1) {
            d.source.path = path;
        } else {
            d.source.read = read_memory;
            d.source.size = bytes;
            d.source.user = file;
        }
        if (!CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK)) {
            printf("    %s\n", err.text);
            continue;
        }
        flash_session *s = session(m, &sd);
        CHECK_EQ(generate(s, 200, out, sizeof out), FLASH_OK);
        if (!golden)
            SKIP("greedy text", "models/stories260K.greedy200.txt");
        else if (!CHECK_STR(out, golden))
            printf("    source %d\n", how);
        flash_session_free(s);
        if (how == 0 && text) {
            int32_t ids[LONG_TEXT];
            size_t n;
            flash_tokenize(m, text, text_bytes < 2000 ? text_bytes : 2000, 0, ids, LONG_TEXT, &n);
            CHECK(n >= LONG_TEXT && ids[0] == 1);
            against_reference(m, "stories260K", ids, long_text());
            if (!getenv("FLASH_QUICK")) test_cuts(m, "stories260K", 1);
        }
        flash_model_free(m);
    }
    free(text);
    free(golden);
    free(file);
}

/* A stop string ends the text just before its first occurrence, wherever the tokens end. */
static void test_stops(const flash_model *m, const char *name)
{
    char whole[2048] = "", stop[16], out[2048];
    const char *list[3] = {"\001never", stop, "\002nor this"};
    flash_session_desc d = {0};
    SECTION(name);
    d.n_ctx = 120;
    d.sampler.ignore_end = 1;
    d.sampler.temperature = 1;
    d.sampler.seed = 5;
    flash_session *s = session(m, &d);
    generate(s, 60, whole, sizeof whole);
    flash_session_free(s);
    int len = (int)strlen(whole);
    CHECK(len > 30);
    for (int round = 0; round < (getenv("FLASH_QUICK") ? 12 : 60); round++) {
        int at = (int)(test_rnd() >> 8) % (len * 2 / 3), n = 1 + (int)(test_rnd() >> 8) % 12;
        while (((uint8_t)whole[at] & 0xc0) == 0x80) at++;
        while (at + n < len && ((uint8_t)whole[at + n] & 0xc0) == 0x80) n++;
        if (n >= (int)sizeof stop || at + n > len) continue;
        memcpy(stop, whole + at, (size_t)n);
        stop[n] = 0;
        d.sampler.stop = round % 2 ? list : list + 1;
        d.sampler.n_stop = round % 2 ? 3 : 1;
        s = session(m, &d);
        out[0] = 0;
        CHECK_EQ(generate(s, 80, out, sizeof out), FLASH_END_OF_TEXT);
        *strstr(whole, stop) = 0; /* undone below */
        CHECK_STR(out, whole);
        whole[strlen(whole)] = stop[0];
        flash_session_free(s);
    }

    /* Of two stop strings the one that begins earlier counts, even if they overlap. */
    if (len > 20 && !strchr(whole, '\xef')) {
        char a[8], b[8];
        const char *two[2] = {a, b};
        int at = len / 3;
        while (((uint8_t)whole[at] & 0xc0) == 0x80) at++;
        snprintf(a, sizeof a, "%.4s", whole + at + 2);
        snprintf(b, sizeof b, "%.4s", whole + at);
        char *first = strstr(whole, a), *other = strstr(whole, b);
        d.sampler.stop = two;
        d.sampler.n_stop = 2;
        s = session(m, &d);
        out[0] = 0;
        CHECK_EQ(generate(s, 80, out, sizeof out), FLASH_END_OF_TEXT);
        CHECK_EQ(strlen(out), (first < other ? first : other) - whole);
        flash_session_free(s);
    }

    /* Text held back as the possible beginning of a stop string is given out when the context is
       full. */
    d.n_ctx = 60;
    d.sampler.n_stop = 0;
    s = session(m, &d);
    whole[0] = 0;
    CHECK_EQ(generate(s, 500, whole, sizeof whole), FLASH_E_RANGE);
    flash_session_free(s);
    len = (int)strlen(whole);
    int tail = 1;
    while (tail < len && ((uint8_t)whole[len - tail] & 0xc0) == 0x80) tail++;
    snprintf(stop, sizeof stop, "%s\003", whole + len - tail);
    d.sampler.stop = list + 1;
    d.sampler.n_stop = 1;
    s = session(m, &d);
    out[0] = 0;
    CHECK_EQ(generate(s, 500, out, sizeof out), FLASH_E_RANGE);
    CHECK_STR(out, whole);
    flash_session_free(s);
}

/* --- limits ----------------------------------------------------------------------------------- */

static void test_limits(const flash_model *m)
{
    int32_t ids[16];
    int V = flash_model_arch(m)->n_vocab;
    flash_session_desc d = {0};
    flash_piece piece;
    SECTION("context full");
    random_ids(m, ids, 16);
    d.n_ctx = 8;
    d.sampler.ignore_end = 1;
    flash_session *s = session(m, &d);
    CHECK_EQ(flash_session_feed(s, ids, 9), FLASH_E_RANGE);
    CHECK_EQ(flash_session_pending(s), 0);
    CHECK_EQ(flash_session_feed(s, ids, 5), FLASH_OK);
    CHECK_EQ(flash_session_feed(s, ids, 4), FLASH_E_RANGE);
    CHECK_EQ(flash_session_pending(s), 5);
    CHECK_EQ(flash_session_feed(s, ids + 5, 3), FLASH_OK);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    CHECK(flash_session_logits(s) != NULL);
    CHECK_EQ(flash_session_feed(s, ids, 1), FLASH_E_RANGE);
    int token = flash_session_sample(s);
    CHECK(token >= 0 && token < V);
    int more = 0;
    flash_status st;
    while ((st = flash_session_next(s, NULL, &piece)) == FLASH_OK && more < 5) more++;
    CHECK_EQ(st, FLASH_E_RANGE);
    CHECK(more <= 2); /* at most one last token, and text that was held back */
    CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_E_RANGE);
    CHECK_EQ(flash_session_position(s), 8);
    CHECK_EQ(flash_session_truncate(s, 4), FLASH_OK);
    CHECK_EQ(flash_session_feed(s, ids + 4, 4), FLASH_OK);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    CHECK_EQ(flash_session_sample(s), token);
    flash_session_free(s);

    SECTION("one position");
    d.n_ctx = 1;
    s = session(m, &d);
    CHECK_EQ(flash_session_feed(s, ids, 2), FLASH_E_RANGE);
    CHECK_EQ(flash_session_feed(s, ids, 1), FLASH_OK);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    CHECK(flash_session_logits(s) != NULL);
    flash_session_reset(s);
    for (more = 0; (st = flash_session_next(s, NULL, &piece)) == FLASH_OK && more < 5; more++) {}
    CHECK_EQ(st, FLASH_E_RANGE);
    flash_session_free(s);

    SECTION("ids");
    d.n_ctx = 16;
    s = session(m, &d);
    const int32_t bad[] = {-1, V, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int32_t pair[2] = {5, bad[i]};
        CHECK_EQ(flash_session_feed(s, pair, 2), FLASH_E_ARGUMENT);
        CHECK_EQ(flash_session_pending(s), 0);
    }
    CHECK_EQ(flash_session_feed(s, ids, SIZE_MAX), FLASH_E_RANGE);
    CHECK_EQ(flash_session_feed(s, ids, (size_t)INT32_MAX + 2), FLASH_E_RANGE);

    SECTION("feed_text");
    int bos = flash_token_bos(m);
    CHECK_EQ(flash_session_feed_text(s, "the", 0), FLASH_OK);
    CHECK(flash_session_pending(s) > 1);
    CHECK_EQ(flash_session_tokens(s)[0], bos);
    int before = flash_session_pending(s);
    CHECK_EQ(flash_session_feed_text(s, "the", 0), FLASH_OK); /* BOS at position 0 only */
    for (int i = before; i < flash_session_pending(s); i++)
        CHECK(flash_session_tokens(s)[i] != bos);
    before = flash_session_pending(s);
    CHECK_EQ(flash_session_feed_text(s, "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq", 0), FLASH_E_RANGE);
    CHECK_EQ(flash_session_pending(s), before);
    flash_session_free(s);
}

/* --- fixed outputs ---------------------------------------------------------------------------- */

/* SHA-256 (FIPS 180-4): each golden file names the model that it belongs to by its hash. */
static void sha256(const uint8_t *data, size_t bytes, char *hex)
{
    uint32_t h[8], k[64];
    uint64_t bits = (uint64_t)bytes * 8;
    size_t blocks = (bytes + 8) / 64 + 1;
    for (int n = 0, c = 2; n < 64; c++) {
        int prime = 1;
        for (int q = 2; q * q <= c; q++) prime &= c % q != 0;
        if (prime) { /* first 32 fractional bits of the cube and square roots of primes */
            double root = cbrt(c), square = sqrt(c);
            k[n] = (uint32_t)((root - floor(root)) * 4294967296.0);
            if (n < 8) h[n] = (uint32_t)((square - floor(square)) * 4294967296.0);
            n++;
        }
    }
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
    for (size_t b = 0; b < blocks; b++) {
        uint32_t w[64], v[8];
        for (size_t i = 0; i < 64; i++) {
            size_t at = b * 64 + i;
            uint32_t byte = at < bytes  ? data[at]
                : at == bytes           ? 0x80
                : at + 8 >= blocks * 64 ? (uint8_t)(bits >> 8 * (blocks * 64 - 1 - at))
                                        : 0;
            w[i / 4] = i % 4 ? w[i / 4] << 8 | byte : byte;
        }
        for (int i = 16; i < 64; i++) {
            uint32_t s0 = ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ w[i - 15] >> 3;
            uint32_t s1 = ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 64; i++) {
            uint32_t s1 = ROR(v[4], 6) ^ ROR(v[4], 11) ^ ROR(v[4], 25);
            uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
            uint32_t s0 = ROR(v[0], 2) ^ ROR(v[0], 13) ^ ROR(v[0], 22);
            uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += t1;
            v[0] = t1 + t2;
        }
        for (int i = 0; i < 8; i++) h[i] += v[i];
    }
#undef ROR
    for (int i = 0; i < 8; i++) sprintf(hex + 8 * i, "%08x", (unsigned)h[i]);
}

/* Continues the FNV-1a hash h with the bits of n logits, lowest byte first. */
static uint64_t hash_logits(uint64_t h, const float *x, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], 4);
        for (int b = 0; b < 4; b++) h = (h ^ (u >> 8 * b & 255)) * UINT64_C(1099511628211);
    }
    return h;
}

/* Compares 24 tokens of prompt, 40 tokens of greedy continuation, and a hash of the logits after
   every token with the golden file. */
static void test_golden(const char *name)
{
    enum { PROMPT = 24, MORE = 40 };
    size_t bytes, golden_bytes;
    uint8_t *file = test_read(data_path(name), &bytes);
    SECTION(name);
    if (!CHECK(file != NULL)) return;
    char path[256], hex[65], text[2048];
    sha256(file, bytes, hex);
    flash_model *m = load(file, bytes);
    flash_session_desc d = {0};
    d.n_ctx = PROMPT + MORE;
    flash_session *s = m ? session(m, &d) : NULL;
    int V = m ? flash_model_arch(m)->n_vocab : 0, at;
    uint64_t hash = UINT64_C(14695981039346656037);
    at = sprintf(text,
                 "# Greedy continuation, and FNV-1a of the logits' bits after each token\n"
                 "# model: %s\n# sha256: %s\n"
                 "# made by: GOLDEN_WRITE=1 make test\n",
                 data_path(name), hex);
    for (int i = 0; s && i < PROMPT + MORE; i++) {
        int32_t id = i < PROMPT ? (i * 37 + 11) % V : flash_session_sample(s);
        at += sprintf(text + at, i == PROMPT ? "\n%d" : i ? " %d" : "%d", (int)id);
        CHECK_EQ(flash_session_feed(s, &id, 1), FLASH_OK);
        CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
        hash = hash_logits(hash, flash_session_logits(s), V);
    }
    sprintf(text + at, "\n%08lx%08lx\n", (unsigned long)(hash >> 32),
            (unsigned long)(hash & 0xffffffff));
    snprintf(path, sizeof path, "tests/golden/%s.txt", name);
    if (getenv("GOLDEN_WRITE")) {
        FILE *f = fopen(path, "wb");
        CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
    }
    char *golden = (char *)test_read(path, &golden_bytes);
    CHECK_STR(text, golden);
    free(golden);
    flash_session_free(s);
    flash_model_free(m);
    free(file);
}

int main(void)
{
    for (int i = 0; i < N_NAMES; i++) {
        size_t bytes;
        uint8_t *file = test_read(data_path(names[i]), &bytes);
        SECTION(names[i]);
        if (!CHECK(file != NULL)) continue;
        flash_model *m = load(file, bytes);
        if (m) {
            against_reference(m, names[i], NULL, long_text());
            if (i == 0 || i == 1 || i == 3) test_cuts(m, names[i], 1);
            if (i < 2) {
                test_stops(m, names[i]);
                test_limits(m);
            }
        }
        flash_model_free(m);
        if (getenv("FLASH_QUICK") ? i == 3 : i != 1 && i != 2)
            test_same_bits(file, bytes, names[i], 70);
        free(file);
        test_golden(names[i]);
    }
    test_variants();
    test_archs();
    test_spans();
    test_stories();
    return test_done();
}
