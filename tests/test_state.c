/* Tests of sessions that stop and go on: budgets, saved and restored states, forks, rewinding,
   prompts that begin like the one before. Whatever happened before, the logits equal those of a
   computation from scratch. GOLDEN_WRITE=1 writes the seeds of tests/fuzz/fuzz_state.c anew. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#include "../flash.h"
#include "mkmodel.h"
#include "fuzz/seeds.h"
#include "test.h"

enum { N_CTX = 200, SLOTS = 3, KVS = 3 };

static const flash_type kvs[KVS] = {FLASH_TYPE_F32, FLASH_TYPE_F16, FLASH_TYPE_Q8_0};

static int quick(void) { return getenv("FLASH_QUICK") != NULL; }

/* Returns a random number from 0 to n - 1. */
static int any(int n) { return (int)((test_rnd() >> 8) % (uint32_t)n); }

typedef struct made {
    uint8_t *file;
    size_t bytes;
    flash_model *m;
} made;

static made make(const mk_kind *kind, const mk_options *o)
{
    made w = {NULL, 0, NULL};
    flash_model_desc d = {0};
    flash_error err = {FLASH_OK, 0, ""};
    mk_file *f = mk_model(o, kind);
    if (kind->window && mk_is(kind, "llama4")) /* chunks */
        mk_set_u32(f, "llama4.attention.sliding_window", (uint32_t)kind->window);
    w.file = mk_emit(f, &w.bytes);
    mk_free(f);
    d.source.data = w.file;
    d.source.bytes = w.bytes;
    if (!CHECK_EQ(flash_model_load(&w.m, &d, &err), FLASH_OK)) {
        printf("    %s\n", err.text);
        exit(1);
    }
    return w;
}

static void unmake(made *w)
{
    flash_model_free(w->m);
    free(w->file);
}

static flash_session *create(const flash_model *m, const flash_session_desc *d)
{
    flash_session *s = NULL;
    if (!CHECK_EQ(flash_session_create(&s, m, d), FLASH_OK)) exit(1);
    return s;
}

static int write_buf(void *user, const void *data, size_t bytes)
{
    mk_bytes((mk_buf *)user, data, bytes);
    return 0;
}

/* Returns what a session saves, which must be as many bytes as it says. The caller frees b.p. */
static mk_buf saved(const flash_session *s)
{
    mk_buf b = {0};
    CHECK_EQ(flash_session_save(s, write_buf, &b), FLASH_OK);
    CHECK_EQ(b.n, flash_session_save_bytes(s));
    return b;
}

static flash_status restore(flash_session *s, const uint8_t *p, size_t n, flash_error *err)
{
    flash_source source = {0};
    source.data = p;
    source.bytes = n;
    return flash_session_restore(s, &source, err);
}

static int same_state(const flash_session *a, const flash_session *b)
{
    mk_buf x = saved(a), y = saved(b);
    int same = x.n == y.n && !memcmp(x.p, y.p, x.n);
    free(x.p);
    free(y.p);
    return same;
}

static void finish(flash_session *s)
{
    flash_status st;
    while ((st = flash_session_step(s, NULL)) > 0 || st == FLASH_E_CANCELLED) {}
    CHECK_EQ(st, FLASH_OK);
    CHECK(flash_session_progress(s) == 1);
}

/* Checks that the logits after the last token of s equal those of scratch, which computes all
   tokens without interruption. Returns 1 if so. */
static int as_from_scratch(flash_session *s, flash_session *scratch)
{
    size_t V = (size_t)flash_model_arch(s->m)->n_vocab;
    int n = flash_session_position(s) + flash_session_pending(s);
    if (!n) return 1;
    finish(s);
    flash_session_reset(scratch);
    CHECK_EQ(flash_session_feed(scratch, flash_session_tokens(s), (size_t)n), FLASH_OK);
    finish(scratch);
    const float *got = flash_session_logits(s), *want = flash_session_logits(scratch);
    if (!got) /* dropped by a rewind until the last token runs again */
        return flash_session_position(s) == n;
    return CHECK(want && !memcmp(got, want, V * sizeof *got));
}

/* --- a storm ---------------------------------------------------------------------------------- */

static double tick(void *user) { return *(double *)user += 1; }

static const char *const stops[] = {"the", " a"};

static flash_session_desc some_desc(flash_type kv, double *clock)
{
    static const int chunks[] = {1, 7, 64, 256};
    flash_session_desc d = {0};
    d.n_ctx = N_CTX + any(3) * 10;
    d.chunk = chunks[any(4)];
    d.kv = kv;
    d.sampler.temperature = 1;
    d.sampler.seed = 7;
    d.sampler.stop = stops;
    d.sampler.n_stop = 2;
    d.host.clock = tick;
    d.host.user = clock;
    return d;
}

static int random_ids(const flash_session *s, int32_t *ids, int n)
{
    for (int i = 0; i < n; i++) ids[i] = any(flash_model_arch(s->m)->n_vocab);
    return n;
}

/* Does one random thing that concerns this session alone. */
static void some_work(flash_session *s, const double *clock)
{
    int32_t ids[N_CTX];
    flash_budget b = {0, 0};
    flash_piece piece;
    flash_status st;
    int room = N_CTX - flash_session_position(s) - flash_session_pending(s);
    switch (any(6)) {
    case 0:
    case 1:
        if (room > 0) {
            random_ids(s, ids, room);
            CHECK_EQ(flash_session_feed(s, ids, (size_t)(1 + any(room < 40 ? room : 40))), 0);
        }
        break;
    case 2:
    case 3: /* a cancel may be left from when there was nothing to do */
        if (any(2))
            b.tokens = 1 + any(30);
        else
            b.deadline = *clock + 1 + any(20);
        st = flash_session_step(s, &b);
        CHECK(st >= 0 || st == FLASH_E_CANCELLED);
        break;
    case 4:
        flash_session_cancel(s);
        b.tokens = 1 + any(3);
        flash_session_step(s, any(2) ? &b : NULL);
        break;
    default:
        for (int i = 0; i < 3 && room > 3 && flash_session_position(s); i++)
            CHECK(flash_session_next(s, NULL, &piece) != FLASH_E_INTERNAL);
    }
}

static void rewind_some(flash_session *s)
{
    int p = any(flash_session_position(s) + 1);
    mk_buf before = saved(s);
    flash_status st = flash_session_truncate(s, p);
    if (st == FLASH_E_RANGE) {
        mk_buf after = saved(s);
        CHECK(p > 0 && after.n == before.n && !memcmp(after.p, before.p, after.n));
        free(after.p);
    } else if (CHECK_EQ(st, FLASH_OK)) {
        CHECK(flash_session_position(s) == p && !flash_session_pending(s));
    }
    free(before.p);
}

/* Feeds a prompt of the session's own tokens up to a random place, then of other ones. */
static void prompt_again(flash_session *s)
{
    int32_t ids[2 * N_CTX];
    int pos = flash_session_position(s), had = pos + flash_session_pending(s), same = any(had + 1);
    int n, all = any(3) == 0;
    size_t kept = 99999;
    same = all ? had : same;
    memcpy(ids, flash_session_tokens(s), (size_t)same * sizeof *ids);
    n = same + (all || same > N_CTX ? 0 : random_ids(s, ids + same, any(N_CTX + 1 - same)));
    int logits = flash_session_logits(s) != NULL;
    CHECK_EQ(flash_session_feed_prompt(s, ids, (size_t)n, &kept), FLASH_OK);
    CHECK(kept <= (size_t)(pos < n ? pos : n) && kept == (size_t)flash_session_position(s));
    CHECK_EQ(flash_session_pending(s), n - (int)kept);
    CHECK(!n || (int)kept < n || logits);
    CHECK(n == 0 || !all || had != pos || !logits || (int)kept == n);
    CHECK(!memcmp(flash_session_tokens(s), ids, (size_t)n * sizeof *ids));
}

static void storm(const flash_model *m, flash_type kv, int steps)
{
    flash_session *slot[SLOTS], *scratch, *t;
    flash_session_desc d = {0};
    flash_error err;
    double clock = 100;
    int checked = 0;
    d.n_ctx = N_CTX + 20;
    d.kv = kv;
    scratch = create(m, &d);
    for (int i = 0; i < SLOTS; i++) {
        d = some_desc(kv, &clock);
        slot[i] = create(m, &d);
    }
    for (int step = 0; step < steps; step++) {
        int i = any(SLOTS), k = (i + 1 + any(SLOTS - 1)) % SLOTS, check = any(6) == 0;
        flash_session *s = slot[i];
        switch (any(14)) {
        case 0: /* saved, and restored in another session with other chunks */
        case 1: {
            mk_buf b = saved(s);
            flash_status st = restore(slot[k], b.p, b.n, &err);
            int fits = slot[k]->n_ctx >= s->fed;
            if (CHECK_EQ(st, fits ? FLASH_OK : FLASH_E_RANGE) && fits) {
                CHECK(slot[k]->pos == s->pos && slot[k]->fed == s->fed);
                if (slot[k]->chunk == s->chunk && slot[k]->n_ctx == s->n_ctx)
                    CHECK(same_state(s, slot[k]));
                s = slot[k];
                check = 1;
            }
            free(b.p);
            break;
        }
        case 2:
        case 3:
            if (CHECK_EQ(flash_session_fork(&t, s), FLASH_OK)) {
                CHECK(same_state(s, t));
                flash_session_free(slot[k]);
                s = slot[k] = t;
                check = 1;
            }
            break;
        case 4:
        case 5: rewind_some(s); break;
        case 6: prompt_again(s); break;
        case 7: /* a new session in this slot, or a reset */
            if (any(4) == 0) {
                flash_session_free(s);
                d = some_desc(kv, &clock);
                s = slot[i] = create(m, &d);
            } else if (any(4) == 0) {
                flash_session_reset(s);
            }
            break;
        default: some_work(s, &clock);
        }
        double p = flash_session_progress(s);
        CHECK(p >= 0 && p <= 1 && (p == 1) == (flash_session_pending(s) == 0));
        if (check && !as_from_scratch(s, scratch)) break;
        checked += check && flash_session_logits(s);
    }
    CHECK(checked > steps / 32);
    for (int i = 0; i < SLOTS; i++) {
        CHECK(as_from_scratch(slot[i], scratch));
        flash_session_free(slot[i]);
    }
    flash_session_free(scratch);
}

static void test_storm(void)
{
    static const mk_kind kinds[] = {
        {"llama", "f", 0},     {"deci", "fslf", 0}, {"flash", "fswno", 20},
        {"gemma3", "wwf", 40}, {"lfm2", "ccfc", 0}, {"llama4", "f", 24},
    };
    int n = (int)(sizeof kinds / sizeof *kinds);
    for (int i = 0; i < n; i++) {
        mk_options o = {0};
        o.seed = (uint64_t)i;
        o.n_layer = (int)strlen(kinds[i].attn) > 2 ? (int)strlen(kinds[i].attn) : 2;
        o.qkv = o.ffn_up = i % 2 ? MK_Q8_0 : MK_F32;
        made w = make(&kinds[i], &o);
        SECTION(kinds[i].arch);
        for (int k = 0; k < KVS; k++) storm(w.m, kvs[k], quick() ? 90 : 1700);
        unmake(&w);
    }
}

/* A restored session and a fork can be rewound to exactly the positions that the original can. */
static void test_rewind(void)
{
    static const mk_kind kind = {"gemma3", "wf", 30};
    mk_options o = {0};
    flash_session_desc d = {0};
    int32_t ids[N_CTX];
    int lowest[3] = {N_CTX, N_CTX, N_CTX};
    made w = make(&kind, &o);
    SECTION("rewind");
    d.n_ctx = N_CTX;
    d.chunk = 16;
    flash_session *s = create(w.m, &d), *back = create(w.m, &d), *fork;
    d.chunk = 200; /* a longer ring buffer, which the state fills in part */
    flash_session *other = create(w.m, &d), *third = create(w.m, &d);
    random_ids(s, ids, N_CTX);
    CHECK_EQ(flash_session_feed(s, ids, N_CTX - 10), FLASH_OK);
    finish(s);
    CHECK_EQ(flash_session_truncate(s, N_CTX - 20), FLASH_OK);
    mk_buf b = saved(s);
    for (int p = N_CTX - 20; p > 0; p--) {
        CHECK_EQ(flash_session_fork(&fork, s), FLASH_OK);
        CHECK_EQ(restore(back, b.p, b.n, NULL), FLASH_OK);
        CHECK_EQ(restore(other, b.p, b.n, NULL), FLASH_OK);
        mk_buf c = saved(other); /* saves no more than it was given */
        CHECK_EQ(c.n, b.n);
        CHECK_EQ(restore(third, c.p, c.n, NULL), FLASH_OK);
        free(c.p);
        flash_status st = flash_session_truncate(fork, p);
        CHECK_EQ(flash_session_truncate(back, p), st);
        CHECK_EQ(flash_session_truncate(other, p), st);
        CHECK_EQ(flash_session_truncate(third, p), st);
        lowest[0] = st ? lowest[0] : p;
        flash_session_free(fork);
    }
    CHECK(lowest[0] > 1 && lowest[0] <= N_CTX - 10 - 16);
    free(b.p);
    flash_session_free(s);
    flash_session_free(back);
    flash_session_free(other);
    flash_session_free(third);
    unmake(&w);
}

/* Two sessions write the same text, piece by piece. */
static void same_text(flash_session *a, flash_session *b)
{
    flash_piece x, y;
    for (int i = 0; i < 40; i++) {
        flash_status st = flash_session_next(a, NULL, &x);
        if (!CHECK_EQ(flash_session_next(b, NULL, &y), st) || st) break;
        CHECK(x.token == y.token && x.bytes == y.bytes && !memcmp(x.text, y.text, x.bytes));
    }
}

/* A session that was reset, or rewound to position 0, equals one that was just created, whatever
   its state was: text ended, text held back for a stop string, an incomplete character,
   cancelled. */
static void test_anew(void)
{
    static const mk_kind kinds[] = {{"llama", "f", 0}, {"gemma3", "wf", 30}, {"lfm2", "cf", 0}};
    for (int i = 0; i < 6; i++) {
        mk_options o = {0};
        double clock = 0;
        flash_session_desc d = some_desc(kvs[i % KVS], &clock);
        made w = make(&kinds[i / 2], &o);
        SECTION(i % 2 ? "rewound to the begin" : "reset");
        flash_session *used = create(w.m, &d), *fresh = create(w.m, &d);
        int32_t ids[50];
        random_ids(used, ids, 50);
        CHECK_EQ(flash_session_feed(used, ids, 50), FLASH_OK);
        for (int k = 0; k < 20; k++) {
            flash_piece piece;
            if (flash_session_next(used, NULL, &piece)) break;
        }
        CHECK(used->fed > 50 && used->random != fresh->random);
        used->ended = 1;
        memcpy(used->text, "th", used->text_n = 2);
        used->detok.held[0] = (uint8_t)(used->detok.n_held = 1);
        used->cancel = i % 2 == 0; /* cleared by a reset only */
        if (i % 2) {
            CHECK_EQ(flash_session_truncate(used, 0), FLASH_OK);
            used->random = fresh->random; /* a rewind leaves it as it is */
        } else {
            flash_session_reset(used);
        }
        CHECK_EQ(flash_session_position(used) + flash_session_pending(used), 0);
        CHECK(!flash_session_logits(used));
        CHECK(same_state(used, fresh));
        same_text(used, fresh);
        CHECK(same_state(used, fresh));
        flash_session_free(used);
        flash_session_free(fresh);
        unmake(&w);
    }
}

/* --- files ------------------------------------------------------------------------------------ */

/* Makes the checksums of a changed state right again. */
static void mend(uint8_t *p, size_t n)
{
    if (n >= FLASH__STATE_HEAD + 8 && n % 8 == 0) {
        flash__wr64(p + 88, flash__sum_words(0, p, 11));
        flash__wr64(p + n - 8,
                    flash__sum_words(0, p + FLASH__STATE_HEAD, (n - FLASH__STATE_HEAD - 8) / 8));
    }
}

static flash_session *with_text(const flash_model *m, flash_type kv, int n)
{
    flash_session_desc d = {0};
    flash_piece piece;
    int32_t ids[N_CTX];
    d.n_ctx = 100;
    d.chunk = 16;
    d.kv = kv;
    d.sampler.temperature = 1;
    d.sampler.stop = stops;
    d.sampler.n_stop = 2;
    flash_session *s = create(m, &d);
    random_ids(s, ids, n);
    CHECK_EQ(flash_session_feed(s, ids, (size_t)n), FLASH_OK);
    CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_OK);
    finish(s);
    return s;
}

static void use(flash_session *s)
{
    flash_piece piece;
    flash_budget b = {8, 0};
    flash_session *t;
    flash_session_step(s, &b);
    CHECK(flash_session_next(s, &b, &piece) != FLASH_E_INTERNAL);
    flash_session_next(s, &b, &piece);
    flash_session_truncate(s, any(flash_session_position(s) + 1));
    if (any(8) == 0 && flash_session_fork(&t, s) == FLASH_OK) {
        mk_buf x = saved(t);
        free(x.p);
        flash_session_free(t);
    }
}

/* Bytes that are no valid state are refused, whatever they are, and leave the session as it was. */
static void test_broken(const mk_kind *kind, flash_type kv)
{
    mk_options o = {0};
    o.seed = 5;
    made w = make(kind, &o);
    flash_session *s = with_text(w.m, kv, 12), *t = with_text(w.m, kv, 9);
    flash_error err;
    int taken = 0, refused = 0, rounds = quick() ? 300 : 10000 / 4;
    SECTION(kind->arch);
    mk_buf good = saved(s), mine = saved(t), now;
    uint8_t *p = (uint8_t *)malloc(good.n + 64);
    for (size_t n = 0; n < good.n; n++) {
        uint8_t *cut = (uint8_t *)malloc(n + !n); /* a copy with nothing valid behind */
        memcpy(cut, good.p, n);
        err.text[0] = 0;
        flash_status st = restore(t, cut, n, &err);
        CHECK(st == FLASH_E_TRUNCATED || (n == 0 && st < 0));
        CHECK(err.text[0]);
        free(cut);
    }
    now = saved(t);
    CHECK(now.n == mine.n && !memcmp(now.p, mine.p, now.n));
    free(now.p);
    for (int round = 0; round < rounds; round++) {
        int changes = 1 + any(4), mended = round % 2;
        size_t n = good.n;
        memcpy(p, good.p, n);
        for (int c = 0; c < changes; c++) {
            size_t at = (size_t)any((int)(any(2) ? n : FLASH__STATE_HEAD));
            switch (any(4)) {
            case 0: p[at] = (uint8_t)(p[at] ^ 1 << any(8)); break;
            case 1: p[at] = (uint8_t)any(256); break;
            case 2: memset(p + at / 8 * 8, any(2) * 255, 8); break;
            default: /* one word copied over another */
                memmove(p + at / 8 * 8, p + (size_t)any((int)(n / 8)) * 8, 8);
            }
        }
        if (mended) mend(p, n);
        flash_status st = restore(t, p, n, &err);
        int equal = !memcmp(p, good.p, n);
        CHECK(st <= 0 && st != FLASH_E_INTERNAL);
        CHECK(mended || (st == FLASH_OK) == equal);
        if (st == FLASH_OK) {
            use(t);
            taken++;
            CHECK_EQ(restore(t, mine.p, mine.n, NULL), FLASH_OK);
        } else {
            refused++;
        }
        if (round % 16 == 0) {
            now = saved(t);
            CHECK(now.n == mine.n && !memcmp(now.p, mine.p, now.n));
            free(now.p);
        }
    }
    CHECK(taken > rounds / 50 && refused > rounds / 2);
    free(p);
    free(good.p);
    free(mine.p);
    flash_session_free(s);
    flash_session_free(t);
    unmake(&w);
}

static int write_fails(void *user, const void *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    return --*(int *)user < 0;
}

static int read_fails(void *user, uint64_t at, void *dst, size_t n)
{
    (void)user;
    (void)at;
    (void)dst;
    (void)n;
    return 1;
}

static int read_buf(void *user, uint64_t at, void *dst, size_t n)
{
    memcpy(dst, ((mk_buf *)user)->p + at, n);
    return 0;
}

static void test_codes(void)
{
    static const mk_kind llama = {"llama", "f", 0};
    mk_options o = {0};
    flash_session_desc d = {0};
    flash_error err;
    flash_source source = {0};
    int left;
    SECTION("codes");
    made w = make(&llama, &o);
    flash_session *s = with_text(w.m, FLASH_TYPE_F16, 20);
    mk_buf b = saved(s), c = {0};

    o.seed = 1; /* the same shape, other weights */
    made foreign = make(&llama, &o);
    d.kv = FLASH_TYPE_F16;
    d.sampler = s->desc.sampler;
    flash_session *t = create(foreign.m, &d);
    CHECK_EQ(restore(t, b.p, b.n, &err), FLASH_E_ARGUMENT);
    CHECK(strstr(err.text, "another model") != NULL);
    flash_session_free(t);
    unmake(&foreign);
    o.seed = 0; /* the same weights in another file, except for one norm */
    mk_file *f = mk_model(&o, &llama);
    mk_tensor *norm = mk_find_tensor(f, "blk.1.ffn_norm.weight");
    norm->data.p[norm->data.n / 2 + 2] ^= 1;
    foreign.file = mk_emit(f, &foreign.bytes);
    mk_free(f);
    flash_model_desc md = {0};
    md.source.data = foreign.file;
    md.source.bytes = foreign.bytes;
    CHECK_EQ(flash_model_load(&foreign.m, &md, NULL), FLASH_OK);
    t = create(foreign.m, &d);
    CHECK_EQ(restore(t, b.p, b.n, &err), FLASH_E_ARGUMENT);
    flash_session_free(t);
    unmake(&foreign);
    md.source.data = w.file; /* another instruction set: the same model; other attention: not */
    md.source.bytes = w.bytes;
    md.isa = FLASH_ISA_SCALAR;
    CHECK_EQ(flash_model_load(&foreign.m, &md, NULL), FLASH_OK);
    t = create(foreign.m, &d);
    CHECK_EQ(restore(t, b.p, b.n, &err), FLASH_OK);
    CHECK(same_state(s, t));
    flash_session_free(t);
    flash_model_free(foreign.m);
    md.attention = "full,skip";
    CHECK_EQ(flash_model_load(&foreign.m, &md, NULL), FLASH_OK);
    t = create(foreign.m, &d);
    CHECK_EQ(restore(t, b.p, b.n, &err), FLASH_E_ARGUMENT);
    flash_session_free(t);
    flash_model_free(foreign.m);

    d.kv = FLASH_TYPE_F32;
    t = create(w.m, &d);
    CHECK_EQ(restore(t, b.p, b.n, &err), FLASH_E_ARGUMENT);
    CHECK(strstr(err.text, "f32") || strstr(err.text, "F32"));
    flash_session_free(t);
    d.kv = FLASH_TYPE_F16;
    d.n_ctx = 20; /* 21 are needed */
    t = create(w.m, &d);
    CHECK_EQ(restore(t, b.p, b.n, &err), FLASH_E_RANGE);
    flash_session_free(t);
    d.n_ctx = 21;
    t = create(w.m, &d);
    CHECK_EQ(restore(t, b.p, b.n, &err), FLASH_OK);

    mk_bytes(&c, b.p, b.n);
    flash__wr64(c.p + 8, FLASH__STATE_VERSION + 1);
    mend(c.p, c.n);
    CHECK_EQ(restore(t, c.p, c.n, &err), FLASH_E_UNSUPPORTED);
    memcpy(c.p, b.p, b.n);
    c.p[b.n - 20] ^= 4;
    CHECK_EQ(restore(t, c.p, c.n, &err), FLASH_E_FORMAT);
    memcpy(c.p, b.p, b.n);
    flash__wr32(c.p + FLASH__STATE_HEAD + 4 * 20, 320); /* no token of the vocabulary */
    mend(c.p, c.n);
    CHECK_EQ(restore(t, c.p, c.n, &err), FLASH_E_FORMAT);
    CHECK(strstr(err.text, "vocabulary") != NULL);
    memcpy(c.p, b.p, b.n); /* keys and values from position 1 on */
    flash__wr32(c.p + FLASH__STATE_HEAD + 4 * (21 + 320), 1);
    mend(c.p, c.n);
    CHECK_EQ(restore(t, c.p, c.n, &err), FLASH_E_FORMAT);
    memcpy(c.p, b.p, b.n);
    mk_u64(&c, 0);
    CHECK_EQ(restore(t, c.p, c.n, &err), FLASH_E_FORMAT);
    CHECK_EQ(restore(t, w.file, w.bytes, &err), FLASH_E_FORMAT);
    flash_session_free(t);
    free(c.p);
    memset(&c, 0, sizeof c);

    /* more held-back text than this session has room for */
    flash_session_reset(s);
    memcpy(s->text, "th", s->text_n = 2);
    c = saved(s);
    d.sampler.n_stop = 0;
    t = create(w.m, &d);
    CHECK_EQ(restore(t, c.p, c.n, &err), FLASH_E_ARGUMENT);
    CHECK(strstr(err.text, "stop") != NULL);
    flash_session_free(t);
    CHECK_EQ(restore(s, c.p, c.n, &err), FLASH_OK);

    /* an empty session can be saved and restored, too */
    flash_session_reset(s);
    free(c.p);
    c = saved(s);
    CHECK_EQ(restore(s, b.p, b.n, &err), FLASH_OK);
    CHECK_EQ(restore(s, c.p, c.n, &err), FLASH_OK);
    CHECK_EQ(flash_session_position(s) + flash_session_pending(s), 0);

    source.read = read_buf;
    source.user = &b;
    source.size = b.n;
    CHECK_EQ(flash_session_restore(s, &source, &err), FLASH_OK);
    CHECK_EQ(flash_session_position(s), 21);
    source.read = read_fails;
    CHECK_EQ(flash_session_restore(s, &source, &err), FLASH_E_IO);
    CHECK_EQ(flash_session_position(s), 21);
    for (int k = 0; k < 3; k++) {
        left = k;
        CHECK_EQ(flash_session_save(s, write_fails, &left), FLASH_E_IO);
    }
    left = 1000;
    CHECK_EQ(flash_session_save(s, write_fails, &left), FLASH_OK);

    CHECK_EQ(flash_session_restore(NULL, &source, &err), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_restore(s, NULL, &err), FLASH_E_ARGUMENT);
    memset(&source, 0, sizeof source);
    CHECK(flash_session_restore(s, &source, NULL) < 0);
    CHECK_EQ(flash_session_save(NULL, write_buf, &c), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_save(s, NULL, &c), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_save_bytes(NULL), 0);
    CHECK_EQ(flash_session_fork(NULL, s), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_fork(&t, NULL), FLASH_E_ARGUMENT);
    CHECK(t == NULL);
    int32_t bad = flash_model_arch(w.m)->n_vocab;
    CHECK_EQ(flash_session_feed_prompt(s, &bad, 1, NULL), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_feed_prompt(s, NULL, 1, NULL), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_feed_prompt(NULL, &bad, 1, NULL), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_feed_prompt(s, &bad, 101, NULL), FLASH_E_RANGE);
    CHECK_EQ(flash_session_position(s), 21);
    CHECK(flash_session_logits(s) != NULL && flash_session_progress(NULL) == 1);
    free(b.p);
    free(c.p);
    flash_session_free(s);
    unmake(&w);
}

/* The saved bytes are the same on every machine, big-endian ones included. */
static void test_golden(void)
{
    static const mk_kind kind = {"lfm2", "cf", 0};
    static const uint64_t want[KVS] = {0xeff9f2a1aff1063eu, 0x23071c1fce2330b5u,
                                       0x7c2eaff6c6b1ad2eu};
    mk_options o = {0};
    made w = make(&kind, &o);
    SECTION("golden");
    for (int k = 0; k < KVS; k++) {
        flash_session_desc d = {0};
        int32_t ids[70];
        d.kv = kvs[k];
        d.n_ctx = 80;
        flash_session *s = create(w.m, &d);
        for (int i = 0; i < 70; i++) ids[i] = i * 7 % 300;
        CHECK_EQ(flash_session_feed(s, ids, 70), FLASH_OK);
        finish(s);
        mk_buf b = saved(s);
        uint64_t sum = flash__sum_words(1, b.p, b.n / 8);
        if (!CHECK(sum == want[k])) printf("    got 0x%llxu\n", (unsigned long long)sum);
        free(b.p);
        flash_session_free(s);
    }
    unmake(&w);
}

/* The fuzzer's seeds equal the states that sessions save now. */
static void test_seeds(void)
{
    SECTION("seeds");
    for (int i = 0; i < SEED_STATES; i++) {
        flash_session_desc d = {0};
        int32_t ids[9] = {0, 9, 8, 7, 6, 5, 4, 3, 2};
        char path[64];
        size_t n;
        made w = make(&seed_kinds[i % 2], &seed_options);
        d.n_ctx = 100;
        d.kv = seed_kv[i / 2];
        d.sampler.stop = seed_stops;
        d.sampler.n_stop = 1;
        flash_session *s = create(w.m, &d);
        CHECK_EQ(flash_session_feed(s, ids, 9), FLASH_OK);
        flash_budget b = {i < 2 ? 9 : 5, 0}; /* 9: has logits; 5: has a queue */
        CHECK(flash_session_step(s, &b) >= 0);
        memcpy(s->text, "th", s->text_n = (size_t)i % 3);
        mk_buf x = {0};
        mk_u8(&x, (uint32_t)i);
        CHECK_EQ(flash_session_save(s, write_buf, &x), FLASH_OK);
        snprintf(path, sizeof path, "tests/fuzz/corpus/state/%d", i);
        if (getenv("GOLDEN_WRITE")) {
            FILE *f = fopen(path, "wb");
            CHECK(f && fwrite(x.p, 1, x.n, f) == x.n && !fclose(f));
        }
        unsigned char *p = test_read(path, &n);
        CHECK(p && n == x.n && !memcmp(p, x.p, n));
        free(p);
        free(x.p);
        flash_session_free(s);
        unmake(&w);
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

static void test_memory(void)
{
    static const mk_kind kind = {"gemma3", "wf", 30};
    mk_options o = {0};
    mk_heap heap = {0};
    flash_session_desc d = {0};
    flash_session *t;
    int32_t ids[60];
    made w = make(&kind, &o);
    SECTION("memory");
    heap.fail_at = -1;
    d.n_ctx = 100;
    d.sampler.stop = stops;
    d.sampler.n_stop = 2;
    d.host.allocator.acquire = mk_heap_acquire;
    d.host.allocator.release = mk_heap_release;
    d.host.allocator.user = &heap;
    flash_session *s = create(w.m, &d);
    random_ids(s, ids, 60);
    CHECK_EQ(flash_session_feed(s, ids, 60), FLASH_OK);
    finish(s);
    long before = heap.count;
    mk_buf b = saved(s);
    CHECK_EQ(restore(s, b.p, b.n, NULL), FLASH_OK);
    CHECK_EQ(flash_session_feed_prompt(s, ids, 50, NULL), FLASH_OK);
    finish(s);
    CHECK_EQ(heap.count, before);
    flash_source source = {0};
    source.read = read_buf;
    source.user = &b;
    source.size = b.n;
    heap.fail_at = heap.count;
    CHECK_EQ(flash_session_restore(s, &source, NULL), FLASH_E_MEMORY);
    CHECK_EQ(flash_session_position(s), 50);
    heap.fail_at = -1;
    CHECK_EQ(flash_session_restore(s, &source, NULL), FLASH_OK);
    CHECK_EQ(heap.live, 1);
    free(b.p);

    size_t had = heap.bytes;
    CHECK_EQ(had, flash_session_memory(w.m, &d));
    flash_sampler none = {0}; /* room for held text stays that of the first sampler */
    CHECK_EQ(flash_session_sampler(s, &none), FLASH_OK);
    memcpy(s->text, "th", s->text_n = 2);
    CHECK_EQ(flash_session_fork(&t, s), FLASH_OK);
    CHECK_EQ(heap.bytes, 2 * had);
    CHECK_EQ(t->stop_max, s->stop_max);
    CHECK(same_state(s, t));
    flash_session_free(s); /* either may be freed first */
    flash_piece piece;
    CHECK_EQ(flash_session_next(t, NULL, &piece), FLASH_OK);
    CHECK(piece.bytes >= 2 && !memcmp(piece.text, "th", 2));
    heap.fail_at = heap.count;
    CHECK_EQ(flash_session_fork(&s, t), FLASH_E_MEMORY);
    CHECK(s == NULL);
    flash_session_free(t);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.errors, 0);
    unmake(&w);
}

/* --- prompts ---------------------------------------------------------------------------------- */

static void test_prompts(void)
{
    static const mk_kind kinds[] = {{"llama", "f", 0}, {"lfm2", "cf", 0}};
    for (int k = 0; k < 2; k++) {
        mk_options o = {0};
        flash_session_desc d = {0};
        int32_t ids[80];
        size_t kept = 7;
        made w = make(&kinds[k], &o);
        SECTION(kinds[k].arch);
        d.n_ctx = 80;
        flash_session *s = create(w.m, &d);
        random_ids(s, ids, 80);
        CHECK_EQ(flash_session_feed_prompt(s, ids, 40, &kept), FLASH_OK);
        CHECK_EQ(kept, 0);
        finish(s);
        CHECK_EQ(flash_session_feed_prompt(s, ids, 40, &kept), FLASH_OK); /* all, with logits */
        CHECK_EQ(kept, 40);
        CHECK(flash_session_logits(s) != NULL);
        CHECK_EQ(flash_session_feed_prompt(s, ids, 60, &kept), FLASH_OK); /* continues it */
        CHECK_EQ(kept, 40);
        CHECK(flash_session_progress(s) == 0);
        flash_budget b = {5, 0};
        CHECK_EQ(flash_session_step(s, &b), FLASH_MORE);
        CHECK(flash_session_progress(s) == 0.25);
        finish(s);
        CHECK_EQ(flash_session_feed(s, ids + 60, 10), FLASH_OK); /* a new queue begins at 0 */
        CHECK(flash_session_progress(s) == 0);
        CHECK_EQ(flash_session_truncate(s, 60), FLASH_OK);
        ids[50] = (ids[50] + 1) % 300; /* another end: convolutions have to begin again */
        CHECK_EQ(flash_session_feed_prompt(s, ids, 60, &kept), FLASH_OK);
        CHECK_EQ(kept, k ? 0 : 50);
        finish(s);
        CHECK_EQ(flash_session_feed_prompt(s, ids, 30, &kept), FLASH_OK); /* last one runs again */
        CHECK_EQ(kept, k ? 0 : 29);
        CHECK_EQ(flash_session_feed_prompt(s, NULL, 0, &kept), FLASH_OK);
        CHECK_EQ(kept + (size_t)flash_session_position(s) + (size_t)flash_session_pending(s), 0);
        flash_session_free(s);
        unmake(&w);
    }
}

typedef struct bar {
    flash_session *s;
    double last, cancel_at; /* cancel_at 2: never */
    int calls, errors;
} bar;

static void see_progress(void *user, double done)
{
    bar *b = (bar *)user;
    b->errors += !(done > b->last && done <= 1);
    b->last = done;
    b->calls++;
    if (done >= b->cancel_at) flash_session_cancel(b->s);
}

static void test_progress(void)
{
    static const mk_kind kind = {"llama", "f", 0};
    mk_options o = {0};
    flash_session_desc d = {0};
    bar b = {NULL, 0, .4, 0, 0};
    int32_t ids[60];
    made w = make(&kind, &o);
    SECTION("progress");
    d.n_ctx = 80;
    d.chunk = 16;
    d.host.progress = see_progress;
    d.host.user = &b;
    flash_session *s = b.s = create(w.m, &d);
    random_ids(s, ids, 60);
    CHECK_EQ(flash_session_feed(s, ids, 60), FLASH_OK);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_E_CANCELLED);
    CHECK(b.last >= .4 && b.last < .6 && flash_session_progress(s) == b.last);
    b.cancel_at = 2;
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    CHECK(b.last == 1);
    CHECK_EQ(b.calls, 4 * (flash_model_arch(w.m)->n_layer + 1));
    CHECK_EQ(b.errors, 0);
    flash_session_free(s);
    unmake(&w);
}

/* --- deadlines -------------------------------------------------------------------------------- */

/* An imagined machine. Each look at its clock adds the time of the work since the last look: that
   of one piece (a layer, or a part of the head) and that of each token in it. */
typedef struct machine {
    flash_session *s;
    double now, token, piece; /* [s]; token, piece: the time each takes */
    long looks;
    int largest; /* the most tokens at once */
} machine;

static double machine_clock(void *user)
{
    machine *m = (machine *)user;
    m->looks++;
    m->now += m->piece + m->token * m->s->run; /* what was under way until this look */
    m->largest = m->s->run > m->largest ? m->s->run : m->largest;
    return m->now;
}

/* Steps until the queue is empty, each time with a deadline `each` [s] from now. Returns by how
   much the latest step missed its deadline [s]. *steps becomes the number of steps. */
static double run_late(flash_session *s, machine *m, double each, long *steps)
{
    double late = 0;
    flash_status st = FLASH_MORE;
    for (*steps = 0; st == FLASH_MORE; ++*steps) {
        flash_budget b = {0, 0};
        double before = flash_session_progress(s);
        b.deadline = m->now + each;
        st = flash_session_step(s, &b);
        late = m->now - b.deadline > late ? m->now - b.deadline : late;
        CHECK(flash_session_progress(s) > before);
    }
    CHECK_EQ(st, FLASH_OK);
    return late;
}

static void test_deadline(void)
{
    static const mk_kind kind = {"llama", "f", 0};
    static const double pace[] = {5e-6, 20e-6, 100e-6};
    mk_options o = {0};
    int32_t ids[N_CTX];
    o.n_layer = 4;
    made w = make(&kind, &o);
    SECTION("deadline");
    for (int k = 0; k < 3; k++) {
        machine m = {0};
        flash_session_desc d = {0};
        long steps;
        d.n_ctx = N_CTX;
        d.host.clock = machine_clock;
        d.host.user = &m;
        flash_session *s = create(w.m, &d);
        m.s = s;
        m.token = pace[k];
        m.piece = 1e-6;
        m.now = 1;
        random_ids(s, ids, N_CTX);
        CHECK_EQ(flash_session_feed(s, ids, N_CTX), FLASH_OK);
        double late = run_late(s, &m, 1e-3, &steps);
        CHECK(late <= 0.3e-3); /* by one piece at most */
        CHECK(steps > 1 && m.largest > 1 && m.largest * pace[k] <= 0.25e-3);
        CHECK(m.looks >= 5 * (N_CTX / m.largest)); /* between all layers, and before the head */
        float *got = (float *)malloc(sizeof *got * (size_t)flash_model_arch(w.m)->n_vocab);
        memcpy(got, flash_session_logits(s), sizeof *got * (size_t)flash_model_arch(w.m)->n_vocab);

        /* When the machine becomes slower, chunks have fewer tokens, from the next chunk on. */
        CHECK_EQ(flash_session_truncate(s, 20), FLASH_OK);
        CHECK_EQ(flash_session_feed(s, ids + 20, N_CTX - 20), FLASH_OK);
        m.token *= 3;
        flash_budget b = {0, 0};
        b.deadline = m.now + 1e-9;
        for (int i = 0; i < 6; i++) CHECK_EQ(flash_session_step(s, &b), FLASH_MORE);
        m.largest = 0;
        CHECK(run_late(s, &m, 1e-3, &steps) <= 0.31e-3);
        CHECK(m.largest * m.token <= 0.31e-3);
        CHECK(!memcmp(got, flash_session_logits(s),
                      sizeof *got * (size_t)flash_model_arch(w.m)->n_vocab));

        /* Without a deadline the clock is not read, and chunks have their full length. A chunk
           begun in this way is not continued under a deadline: the step would be late. */
        CHECK_EQ(flash_session_truncate(s, 0), FLASH_OK);
        CHECK_EQ(flash_session_feed(s, ids, N_CTX), FLASH_OK);
        flash__chunk_begin(s, N_CTX);
        s->sliced = 0;
        m.looks = m.largest = 0;
        CHECK(run_late(s, &m, 1e-3, &steps) <= 0.31e-3);
        CHECK(!memcmp(got, flash_session_logits(s),
                      sizeof *got * (size_t)flash_model_arch(w.m)->n_vocab));
        flash_session_reset(s);
        m.looks = 0;
        CHECK_EQ(flash_session_feed(s, ids, N_CTX), FLASH_OK);
        CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
        CHECK_EQ(m.looks, 0);
        CHECK_EQ(s->last_n, N_CTX);
        CHECK(!memcmp(got, flash_session_logits(s),
                      sizeof *got * (size_t)flash_model_arch(w.m)->n_vocab));
        free(got);
        flash_session_free(s);
    }
    unmake(&w);
}

/* With a large vocabulary, the head can be interrupted and cancelled, too, and then goes on. */
static void test_head(void)
{
    static const mk_kind kind = {"llama", "f", 0};
    mk_options o = {0};
    machine m = {0};
    flash_session_desc d = {0};
    flash_status st;
    int32_t ids[4] = {5, 6, 7, 8};
    int inside = 0;
    o.n_vocab = 70000;
    made w = make(&kind, &o);
    SECTION("head");
    size_t V = (size_t)flash_model_arch(w.m)->n_vocab;
    d.n_ctx = 8;
    d.host.clock = machine_clock;
    d.host.user = &m;
    flash_session *s = create(w.m, &d), *plain = create(w.m, &d);
    m.s = s;
    m.piece = 1e-3;
    CHECK_EQ(flash_session_feed(plain, ids, 4), FLASH_OK);
    CHECK_EQ(flash_session_step(plain, NULL), FLASH_OK);
    CHECK_EQ(flash_session_feed(s, ids, 4), FLASH_OK);
    do {
        flash_budget b = {0, 0};
        b.deadline = 1e-9;
        if (inside == 1) flash_session_cancel(s);
        st = flash_session_step(s, &b);
        CHECK(st == (inside == 1 ? FLASH_E_CANCELLED : st));
        inside += s->run && s->layer == 2 && s->head > 0;
        if (s->head > 0 && s->run)
            CHECK(flash_session_logits(s) == NULL && flash_session_progress(s) < 1);
    } while (st == FLASH_MORE || st == FLASH_E_CANCELLED);
    CHECK_EQ(st, FLASH_OK);
    CHECK(inside >= 2);
    CHECK(!memcmp(flash_session_logits(s), flash_session_logits(plain), V * sizeof(float)));

    /* If a token is queued while the head runs, the logits are then those of the new token. */
    CHECK_EQ(flash_session_feed(s, ids, 1), FLASH_OK);
    for (st = FLASH_MORE; st == FLASH_MORE && !s->head;) {
        flash_budget b = {0, 0};
        b.deadline = 1e-9;
        st = flash_session_step(s, &b);
    }
    CHECK_EQ(st, FLASH_MORE);
    CHECK_EQ(flash_session_feed(s, ids + 1, 1), FLASH_OK);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    CHECK_EQ(flash_session_feed(plain, ids, 2), FLASH_OK);
    CHECK_EQ(flash_session_step(plain, NULL), FLASH_OK);
    CHECK(!memcmp(flash_session_logits(s), flash_session_logits(plain), V * sizeof(float)));
    flash_session_free(s);
    flash_session_free(plain);
    unmake(&w);
}

/* --- sessions of one model in threads of their own ------------------------------------------- */

typedef struct teller {
    const flash_model *m;
    const flash_grammar *g;
    int seed, steps, n; /* n: tokens written */
    flash_status st;
    uint64_t sum; /* of tokens and the last logits */
} teller;

/* Writes text in a session that is saved and restored after a quarter of the steps, and replaced by
   its fork after half of them. */
static void tell(teller *t)
{
    flash_session_desc d = {0};
    flash_session *s, *fork = NULL;
    flash_piece piece;
    int32_t ids[40];
    uint64_t random = (uint64_t)t->seed;
    d.n_ctx = 40 + t->steps;
    d.chunk = 16;
    d.threads = 1 + t->seed % 3;
    d.sampler.temperature = 1.3f;
    d.sampler.seed = (uint64_t)t->seed;
    d.sampler.grammar = t->seed % 2 ? t->g : NULL;
    t->st = flash_session_create(&s, t->m, &d);
    if (t->st) return;
    for (int i = 0; i < 40; i++) ids[i] = 1 + (int32_t)(flash__random(&random) % 299);
    t->st = flash_session_feed(s, ids, 40);
    for (t->n = 0; !t->st && t->n < t->steps; t->n++) {
        t->st = flash_session_next(s, NULL, &piece);
        t->sum = flash__sum_word(t->sum, (uint32_t)piece.token);
        if (!t->st && t->n == t->steps / 2 && !(t->st = flash_session_fork(&fork, s))) {
            flash_session_free(s);
            s = fork;
        }
        if (!t->st && t->n == t->steps / 4) {
            mk_buf b = {0};
            flash_source source = {0};
            t->st = flash_session_save(s, write_buf, &b);
            source.data = b.p;
            source.bytes = b.n;
            flash_session_reset(s);
            t->st = t->st ? t->st : flash_session_restore(s, &source, NULL);
            free(b.p);
        }
    }
    if (flash_session_logits(s))
        t->sum = flash__sum_words(t->sum, (const uint8_t *)flash_session_logits(s), 100);
    flash_session_free(s);
}

#if !defined(_WIN32) && !defined(__wasm__)
#include <pthread.h>

static void *tell_in_thread(void *arg)
{
    tell((teller *)arg);
    return NULL;
}

static void test_together(void)
{
    static const mk_kind kinds[] = {{"gemma3", "wf", 30}, {"lfm2", "cf", 0}};
    enum { TELLERS = 6 };
    for (int k = 0; k < 2; k++) {
        mk_options o = {0};
        flash_grammar_desc gd = {0};
        flash_grammar *g = NULL;
        flash_error err;
        teller alone[TELLERS], together[TELLERS];
        pthread_t thread[TELLERS];
        int ended = 0;
        made w = make(&kinds[k], &o);
        SECTION("sessions of one model at once");
        gd.text = "root ::= [a-z ]+ (\"!\" [a-z ]*)*";
        gd.bytes = strlen(gd.text);
        CHECK_EQ(flash_grammar_create(&g, w.m, &gd, &err), FLASH_OK);
        for (int i = 0; i < TELLERS; i++) {
            teller t = {0};
            t.m = w.m;
            t.g = g;
            t.seed = i;
            t.steps = quick() ? 20 : 80;
            alone[i] = together[i] = t;
            tell(&alone[i]);
            CHECK(alone[i].st == FLASH_OK || alone[i].st == FLASH_END_OF_TEXT);
            ended += alone[i].n < t.steps;
        }
        CHECK(ended < TELLERS);
        for (int i = 0; i < TELLERS; i++)
            CHECK_EQ(pthread_create(&thread[i], NULL, tell_in_thread, &together[i]), 0);
        for (int i = 0; i < TELLERS; i++) pthread_join(thread[i], NULL);
        for (int i = 0; i < TELLERS; i++) {
            CHECK_EQ(together[i].st, alone[i].st);
            CHECK(together[i].sum == alone[i].sum);
        }
        flash_grammar_free(g);
        unmake(&w);
    }
}
#else
static void test_together(void)
{
    (void)tell;
    SKIP("sessions of one model at once", "no threads here");
}
#endif

int main(void)
{
    static const mk_kind broken[] = {
        {"llama", "f", 0}, {"gemma3", "w", 4}, {"lfm2", "cf", 0}, {"flash", "fw", 8}};
    test_prompts();
    test_progress();
    test_deadline();
    test_head();
    test_codes();
    test_golden();
    test_seeds();
    test_memory();
    test_rewind();
    test_anew();
    test_together();
    for (int i = 0; i < 4; i++) test_broken(&broken[i], kvs[i % KVS]);
    test_storm();
    return test_done();
}
