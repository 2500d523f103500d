/* Tests of memory: every acquisition fails once; the memory acquired is the memory promised; steps
   acquire nothing. */
#include "test.h"
#include "mkmodel.h"
#include "../flash.h"

enum { OPEN, LOAD, VOCAB, SESSION, TOKENIZE, FEED, OPS };

static const char *const op_names[OPS] = {"gguf_open",      "model_load", "model_load, vocab_only",
                                          "session_create", "tokenize",   "session_feed_text"};
static const char *const path = "tests/data/f32.gguf";
static uint8_t *file;
static size_t file_bytes;
static char word[3001];

static int read_file(void *user, uint64_t at, void *dst, size_t n)
{
    (void)user;
    if (at > file_bytes || n > file_bytes - at) return 1;
    memcpy(dst, file + at, n);
    return 0;
}

static flash_model_desc describe(int source, mk_heap *heap)
{
    flash_model_desc d = {0};
    memset(heap, 0, sizeof *heap);
    heap->fail_at = -1;
    d.host.allocator.acquire = mk_heap_acquire;
    d.host.allocator.release = mk_heap_release;
    d.host.allocator.user = heap;
    if (source == 0) {
        d.source.data = file;
        d.source.bytes = file_bytes;
    } else if (source == 1) {
        d.source.path = path;
    } else {
        d.source.read = read_file;
        d.source.size = file_bytes;
    }
    return d;
}

/* Runs op with its acquisition number k (from 0) failing. Returns 1 if op made no more than k of
   them and so went through, else 0. */
static int fails(int op, const flash_model_desc *d, mk_heap *heap, flash_model *m, long k)
{
    flash_model_desc vocab = *d;
    flash_session_desc sd = {0};
    flash_gguf *g = (flash_gguf *)heap;
    flash_model *loaded = (flash_model *)heap;
    flash_session *s = (flash_session *)heap;
    flash_status status = FLASH_OK;
    flash_error err;
    long live;
    size_t n = 7;
    int32_t ids[8];

    sd.n_ctx = 16;
    vocab.vocab_only = 1;
    memset(&err, 0, sizeof err);
    if (op == FEED && flash_session_create(&s, m, &sd) != FLASH_OK) return CHECK(!"session");
    live = heap->live;
    heap->fail_at = heap->count + k;
    switch (op) {
    case OPEN: status = flash_gguf_open(&g, &d->source, &d->host, &err); break;
    case LOAD: status = flash_model_load(&loaded, d, &err); break;
    case VOCAB: status = flash_model_load(&loaded, &vocab, &err); break;
    case SESSION: status = flash_session_create(&s, m, &sd); break;
    case TOKENIZE: status = flash_tokenize(m, word, sizeof word - 1, 0, ids, 8, &n); break;
    case FEED: status = flash_session_feed_text(s, word, 0); break;
    }
    if (heap->count <= heap->fail_at) { /* no acquisition failed */
        heap->fail_at = -1;
        CHECK_EQ(status, op < TOKENIZE ? FLASH_OK : FLASH_E_RANGE);
        if (op == OPEN)
            flash_gguf_free(g);
        else if (op == LOAD || op == VOCAB)
            flash_model_free(loaded);
        else if (op == SESSION)
            flash_session_free(s);
        CHECK(op == FEED || heap->live == live);
        if (op == FEED) {
            CHECK_EQ(flash_session_pending(s), 0);
            flash_session_free(s);
        }
        CHECK_EQ(heap->errors, 0);
        return 1;
    }
    heap->fail_at = -1;
    CHECK_EQ(status, FLASH_E_MEMORY);
    CHECK_EQ(heap->live, live);
    CHECK_EQ(heap->errors, 0);
    CHECK(op != OPEN || (!g && err.status == FLASH_E_MEMORY && err.text[0]));
    CHECK((op != LOAD && op != VOCAB) || (!loaded && err.status == FLASH_E_MEMORY && err.text[0]));
    CHECK(op != SESSION || !s);
    CHECK(op != TOKENIZE || n == 7);
    if (op == FEED) {
        CHECK_EQ(flash_session_pending(s), 0);
        flash_session_free(s);
    }
    return 0;
}

static const char *model = "llama";

static void failures(int source)
{
    static const char *const names[] = {"data", "path", "read"};
    mk_heap heap;
    flash_model_desc d = describe(source, &heap);
    flash_model *m = NULL;
    char section[80];
    for (int op = 0; op < OPS; op++) {
        long k = 0;
        snprintf(section, sizeof section, "%s of %s from %s", op_names[op], model, names[source]);
        SECTION(section);
        if (op == SESSION) CHECK_EQ(flash_model_load(&m, &d, NULL), FLASH_OK);
        while (k < 1000 && !fails(op, &d, &heap, m, k)) k++;
        CHECK(k < 1000);
        /* at least the first acquisition was made to fail */
        CHECK(k > 0);
    }
    flash_model_free(m);
    CHECK_EQ(heap.live, 0);
}

/* flash_model_memory and flash_session_memory return exactly what is then acquired. */
static void promises(int source)
{
    mk_heap heap;
    flash_model_desc d = describe(source, &heap);
    flash_host own;
    mk_heap session_heap = {0};
    flash_model *m;
    flash_session *s;
    flash_error err;
    static const char *const stops[] = {"stop", "\n\n", ""};
    size_t memory;

    SECTION("promises");
    for (d.vocab_only = 0; d.vocab_only < 2; d.vocab_only++) {
        memory = flash_model_memory(&d, &err);
        CHECK(memory > 0);
        CHECK_EQ(heap.live, 0);
        heap.total = 0;
        CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK);
        CHECK_EQ(heap.bytes, memory);
        CHECK_EQ(heap.total, memory);
        if (d.vocab_only) {
            flash_session_desc sd = {0};
            CHECK(flash_session_create(&s, m, &sd) < 0 && !s);
        }
        flash_model_free(m);
        CHECK_EQ(heap.live, 0);
    }
    d.vocab_only = 0;
    for (long k = 0; k < 1000; k++) {
        long before = heap.count;
        memset(&err, 0, sizeof err);
        heap.fail_at = before + k;
        memory = flash_model_memory(&d, &err);
        CHECK_EQ(heap.live, 0);
        if (heap.count <= heap.fail_at) {
            CHECK(memory > 0);
            break;
        }
        CHECK(memory == 0 && err.status == FLASH_E_MEMORY);
    }
    heap.fail_at = -1;

    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK);
    own = d.host;
    own.allocator.user = &session_heap;
    session_heap.fail_at = -1;
    for (int i = 0; i < 7; i++) {
        flash_session_desc sd = {0};
        size_t before = heap.bytes;
        sd.n_ctx = i == 0 ? 0 : i == 1 ? 1 : i == 2 ? 200 : 33;
        sd.chunk = i == 2 ? 7 : 0;
        sd.threads = i == 3 ? 3 : 0;
        sd.kv = i == 4 ? FLASH_TYPE_F16 : FLASH_TYPE_F32;
        sd.all_logits = i == 5;
        sd.sampler.stop = stops;
        sd.sampler.n_stop = i == 6 ? 2 : 0;
        heap.total = 0;
        memory = flash_session_memory(m, &sd);
        CHECK(memory > 0 && heap.total == 0);
        CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_OK);
        CHECK_EQ(heap.bytes - before, memory);
        CHECK_EQ(heap.total, memory);
        flash_session_free(s);
        CHECK_EQ(heap.bytes, before);

        sd.host = own;
        session_heap.total = 0;
        CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_OK);
        CHECK_EQ(session_heap.total, memory);
        CHECK_EQ(heap.bytes, before);
        flash_session_free(s);
        CHECK_EQ(session_heap.live, 0);
    }
    flash_model_free(m);
    CHECK(heap.live == 0 && heap.errors == 0 && session_heap.errors == 0);
}

/* Steps, sampling and rewinding acquire nothing. convs: the model has convolutions, so that a
   session can be rewound to position 0 only. */
static void steps(int convs)
{
    mk_heap heap;
    flash_model_desc d = describe(0, &heap);
    flash_session_desc sd = {0};
    flash_budget budget = {0};
    flash_model *m;
    flash_session *s;
    flash_piece piece;
    static const flash_logit_bias bias[] = {{5, 1.5f}, {7, -2}};
    static const char *const stops[] = {"never seen", "nor this"};
    int32_t ids[20];
    long before;

    SECTION("steps");
    for (int i = 0; i < 20; i++) ids[i] = 1 + i * 7;
    CHECK_EQ(flash_model_load(&m, &d, NULL), FLASH_OK);
    sd.n_ctx = 64;
    sd.chunk = 8;
    sd.sampler.stop = stops;
    sd.sampler.n_stop = 2;
    sd.sampler.ignore_end = 1;
    CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_OK);
    before = heap.count;
    sd.sampler.bias = bias;
    sd.sampler.n_bias = 2;
    sd.sampler.temperature = 0.9f;
    sd.sampler.repeat_penalty = 1.2f;
    sd.sampler.frequency_penalty = 0.1f;
    sd.sampler.presence_penalty = 0.1f;
    sd.sampler.penalty_last_n = -1;
    sd.sampler.top_k = 50;
    sd.sampler.typical_p = 0.95f;
    sd.sampler.top_p = 0.95f;
    sd.sampler.min_p = 0.01f;
    budget.tokens = 3;
    for (int round = 0; round < 2; round++) {
        flash_status status;
        CHECK_EQ(flash_session_feed(s, ids, 20), FLASH_OK);
        while ((status = flash_session_step(s, &budget)) == FLASH_MORE) {}
        CHECK_EQ(status, FLASH_OK);
        for (int i = 0; i < 10; i++) {
            CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
            CHECK(flash_session_sample(s) >= 0);
            CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_OK);
        }
        CHECK_EQ(flash_session_truncate(s, 10), convs ? FLASH_E_RANGE : FLASH_OK);
        CHECK_EQ(flash_session_feed_text(s, "the cat and the hat", 0), FLASH_OK);
        CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_OK);
        flash_session_reset(s);
        CHECK_EQ(flash_session_sampler(s, &sd.sampler), FLASH_OK);
    }
    CHECK_EQ(heap.count, before);
    flash_session_free(s);
    flash_model_free(m);
    CHECK(heap.live == 0 && heap.errors == 0);
}

int main(void)
{
    static const mk_kind kinds[] = {{"flash", "fwso", 5}, {"lfm2", "cfc", 0}};
    int from_file;
    memset(word, 'a', sizeof word - 1);
    file = test_read(path, &file_bytes);
    from_file = file != NULL;
    if (!from_file) {
        mk_options o = {0};
        mk_file *f = mk_llama(&o);
        SKIP("models from a path", path);
        file = mk_emit(f, &file_bytes);
        mk_free(f);
    }
    for (int source = 0; source < 3; source++) {
        if (source != 1 || from_file) {
            failures(source);
            promises(source);
        }
    }
    steps(0);
    free(file);
    for (int k = 0; k < 2; k++) {
        mk_options o = {0};
        o.n_layer = 4;
        mk_file *f = mk_model(&o, &kinds[k]);
        file = mk_emit(f, &file_bytes);
        model = kinds[k].arch;
        failures(0);
        promises(0);
        steps(k);
        mk_free(f);
        free(file);
    }
    return test_done();
}
