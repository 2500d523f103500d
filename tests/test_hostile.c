/* Hostile files: each is either refused with an error message or works. None may cause a crash, a
   leak, an allocation larger than the file (or 64 KiB), or a long run time. FLASH_QUICK in the
   environment shortens the test. */
#include "test.h"
#include "mkmodel.h"
#include "../flash.h"
#include <time.h>

/* Expected results. CONTAINER: opening the file is refused; MODEL: it opens, but loading is
   refused; REFUSED: loading is refused, opening may be; FINE: both work; MAY: any of these. */
enum { CONTAINER, MODEL, REFUSED, FINE, MAY };

static void holds(int ok, const char *what)
{
    if (!ok) printf("    %s\n", what);
}

/* Returns 1 if err fits the status: one printable line after a failure, untouched otherwise. */
static int err_ok(flash_status status, const flash_error *err)
{
    size_t n = 0;
    if (status >= 0) {
        for (size_t i = 0; i < sizeof *err; i++)
            if (((const unsigned char *)err)[i] != 0x5A) return 0;
        return 1;
    }
    while (n < sizeof err->text && (unsigned char)err->text[n] >= 32 && err->text[n] != 127) n++;
    return n > 0 && n < sizeof err->text && !err->text[n] && err->status == status
        && status != FLASH_E_INTERNAL;
}

/* Reads all keys, values and tensor data of a container. */
static unsigned touch(const flash_gguf *g)
{
    unsigned sum = 0;
    flash_value v;
    flash_tensor t;
    for (size_t i = 0; flash_gguf_key(g, i, &v) == FLASH_OK; i++) {
        for (size_t k = 0; k < v.bytes; k++) sum += v.data[k];
        for (size_t k = 0; k < v.key_bytes; k++) sum += (unsigned char)v.key[k];
        if (v.type == FLASH_VALUE_ARRAY && v.item == FLASH_VALUE_STRING) {
            size_t at = 0, bytes;
            while (flash_value_string(&v, &at, &bytes)) sum += (unsigned)bytes;
        }
        sum += (unsigned)flash_value_integer(&v, v.count - 1);
        sum += flash_value_number(&v, 0) > 0;
    }
    for (size_t i = 0; flash_gguf_tensor(g, i, &t) == FLASH_OK; i++) {
        for (uint64_t k = 0; k < t.bytes; k++) sum += t.data[k];
        sum += (unsigned)t.name[t.name_bytes - 1];
    }
    return sum;
}

/* Runs three tokens through the model, then samples a few. Logits that are NaN must do no harm
   either. */
static void use(const flash_model *m)
{
    static const int32_t ids[] = {0, 1, 2};
    flash_session_desc d = {0};
    flash_session *s;
    flash_piece piece;
    flash_budget budget = {0};
    char text[256];
    int32_t out[64];
    size_t n;
    d.n_ctx = 16;
    budget.tokens = 3;
    flash_tokenize(m, "The cat\n\xF0\x9F\x98\x80 <s>", 16, FLASH_TEXT_SPECIAL, out, 64, &n);
    flash_detokenize(m, out, n < 64 ? n : 64, FLASH_TEXT_SPECIAL, text, sizeof text, &n);
    for (int sampled = 0; sampled < 2; sampled++) {
        if (sampled) {
            d.sampler.temperature = 0.8f;
            d.sampler.repeat_penalty = 1.1f;
            d.sampler.top_k = 40;
            d.sampler.top_p = 0.9f;
            d.sampler.min_p = 0.05f;
            d.sampler.typical_p = 0.9f;
        }
        if (flash_session_create(&s, m, &d) != FLASH_OK) continue;
        if (flash_session_feed(s, ids, (size_t)(flash_model_arch(m)->n_vocab > 2 ? 3 : 1)) == 0
            && flash_session_step(s, &budget) == FLASH_OK) {
            holds(CHECK(flash_session_logits(s) != NULL), "no logits");
            flash_session_sample(s);
        }
        flash_session_next(s, &budget, &piece);
        flash_session_next(s, &budget, &piece);
        flash_session_free(s);
    }
}

/* Opens and loads a file of n bytes from an allocation of exactly that size. want: what to
   expect. */
static void attempt(const char *name, const uint8_t *bytes, size_t n, int want)
{
    uint8_t *p = (uint8_t *)mk_alloc(NULL, n);
    mk_heap heap = {0};
    flash_host host = {0};
    flash_model_desc d = {0};
    flash_error err[3];
    flash_gguf *g = NULL;
    flash_model *m = NULL;
    flash_status opened, loaded, vocab;
    clock_t start = clock();
    size_t cap = n > 65536 ? n : 65536;
    char what[600];

    SECTION(name);
    memcpy(p, bytes, n);
    memset(err, 0x5A, sizeof err);
    heap.fail_at = -1;
    host.allocator.acquire = mk_heap_acquire;
    host.allocator.release = mk_heap_release;
    host.allocator.user = &heap;
    d.source.data = p;
    d.source.bytes = n;
    d.host = host;

    opened = flash_gguf_open(&g, &d.source, &host, &err[0]);
    holds(CHECK(heap.largest <= cap), "open: too large an allocation");
    if (opened == FLASH_OK) touch(g);
    flash_gguf_free(g);
    loaded = flash_model_load(&m, &d, &err[1]);
    holds(CHECK(heap.largest <= cap), "load: too large an allocation");
    if (loaded == FLASH_OK) use(m);
    flash_model_free(m);
    d.vocab_only = 1;
    vocab = flash_model_load(&m, &d, &err[2]);
    if (vocab == FLASH_OK) {
        int32_t out[64];
        size_t used;
        flash_tokenize(m, "The cat\n", 8, 0, out, 64, &used);
    }
    flash_model_free(m);

    snprintf(what, sizeof what, "open: %s: %.200s; load: %s: %.200s", flash_status_text(opened),
             opened ? err[0].text : "", flash_status_text(loaded), loaded ? err[1].text : "");
    holds(CHECK(opened <= 0 && (opened == FLASH_OK) == (g != NULL)), what);
    holds(CHECK(err_ok(opened, &err[0])), what);
    holds(CHECK(err_ok(loaded, &err[1])), what);
    holds(CHECK(err_ok(vocab, &err[2])), what);
    holds(CHECK(opened == FLASH_OK || (loaded < 0 && vocab < 0)), what);
    if (want == CONTAINER)
        holds(CHECK(opened < 0), what);
    else if (want == MODEL)
        holds(CHECK(opened == FLASH_OK && loaded < 0), what);
    else if (want == REFUSED)
        holds(CHECK(loaded < 0), what);
    else if (want == FINE)
        holds(CHECK(opened == FLASH_OK && loaded == FLASH_OK), what);
    if (getenv("FLASH_VERBOSE")) printf("%s: %s\n", name, what);
    holds(CHECK_EQ(heap.live, 0), "memory not given back");
    holds(CHECK_EQ(heap.errors, 0), "wrong use of the allocator");
    holds(CHECK(clock() - start < 2 * CLOCKS_PER_SEC), "took too long");
    free(p);
}

static void attempt_file(const char *name, mk_file *f, int want)
{
    size_t n;
    uint8_t *p = mk_emit(f, &n);
    attempt(name, p, n, want);
    free(p);
    mk_free(f);
}

static mk_file *tiny(void)
{
    mk_options o = {0};
    o.d_model = 16;
    o.n_head = 4;
    o.d_ffn = 24;
    o.n_vocab = 300;
    return mk_llama(&o);
}

static mk_file *tiny_bpe(void)
{
    mk_options o = {0};
    o.d_model = 16;
    o.d_ffn = 24;
    o.bpe = 1;
    o.untied = 1;
    return mk_llama(&o);
}

/* Runs one case: makes a good file f, applies the statements to it and loads it, expecting want. */
#define CASE(name, want, ...) \
    do { \
        mk_file *f = tiny(); \
        __VA_ARGS__; \
        attempt_file(name, f, want); \
    } while (0)
#define CASE_BPE(name, want, ...) \
    do { \
        mk_file *f = tiny_bpe(); \
        __VA_ARGS__; \
        attempt_file(name, f, want); \
    } while (0)
#define NAME(...) (snprintf(name, sizeof name, __VA_ARGS__), name)
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static char name[200];

/* --- header and keys ------------------------------------------------------------------------- */

static void header(void)
{
    static const uint64_t counts[] = {
        0,           1, (uint64_t)1 << 31, (uint64_t)1 << 32, (uint64_t)1 << 61, (uint64_t)1 << 63,
        (uint64_t)-1};
    static const uint32_t versions[] = {0, 1, 4, 0x03000000, 0xFFFFFFFF};
    for (size_t i = 0; i < COUNT(counts); i++) {
        CASE(NAME("n_tensors 0x%llx", (unsigned long long)counts[i]), i < 2 ? REFUSED : CONTAINER,
             f->own_counts = 1;
             f->n_kv = f->keys; f->n_tensors = counts[i]);
        CASE(NAME("n_kv 0x%llx", (unsigned long long)counts[i]), i < 2 ? REFUSED : CONTAINER,
             f->own_counts = 1;
             f->n_tensors = f->tensors; f->n_kv = counts[i]);
        CASE(NAME("both counts 0x%llx", (unsigned long long)counts[i]), i < 2 ? REFUSED : CONTAINER,
             f->own_counts = 1;
             f->n_tensors = f->n_kv = counts[i]);
    }
    for (int k = -1; k <= 1; k += 2) {
        CASE(NAME("n_kv %+d", k), REFUSED, f->own_counts = 1; f->n_tensors = f->tensors;
             f->n_kv = f->keys + (uint64_t)(int64_t)k);
        CASE(NAME("n_tensors %+d", k), REFUSED, f->own_counts = 1; f->n_kv = f->keys;
             f->n_tensors = f->tensors + (uint64_t)(int64_t)k);
    }
    for (size_t i = 0; i < COUNT(versions); i++)
        CASE(NAME("version 0x%x", (unsigned)versions[i]), CONTAINER, f->version = versions[i]);
    CASE("version 2", FINE, f->version = 2);
    attempt("no bytes", (const uint8_t *)"", 0, CONTAINER);
    attempt("zeros", (const uint8_t *)"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 27,
            CONTAINER);
    attempt("text", (const uint8_t *)"once upon a time there was a little girl", 40, CONTAINER);
    attempt("bare header", (const uint8_t *)"GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24,
            MODEL);
}

static void keys(void)
{
    static const uint64_t lengths[] = {
        0,           65536, (uint64_t)1 << 31, (uint64_t)1 << 32, (uint64_t)1 << 63, (uint64_t)-1,
        (uint64_t)-8};
    static const uint64_t huge[] = {(uint64_t)1 << 60, (uint64_t)1 << 61,       (uint64_t)1 << 62,
                                    (uint64_t)1 << 63, ((uint64_t)1 << 63) + 1, (uint64_t)-1,
                                    (uint64_t)-8};
    static const uint32_t types[] = {13, 14, 255, 0x80000000u, 0xFFFFFFFFu};
    static const char *const odd[] = {"llama\nllama", "\x1B[31mllama", "\xFF\xFE", "", "llama "};
    size_t n;
    uint8_t *p;

    for (size_t i = 0; i < COUNT(lengths); i++) {
        CASE(NAME("key length 0x%llx", (unsigned long long)lengths[i]), CONTAINER,
             mk_find(f, "general.name")->name_bytes = lengths[i]);
        if (i != 1) { /* 65536 bytes follow: the string is legal, what comes after is not */
            CASE(NAME("string length 0x%llx", (unsigned long long)lengths[i]), CONTAINER,
                 mk_buf *b = mk_set(f, "general.name", MK_V_STRING);
                 mk_u64(b, lengths[i]); mk_bytes(b, "random", 6));
        }
    }
    CASE("empty key", CONTAINER, mk_u32(mk_add(f, "", MK_V_U32), 1));
    CASE("key of 65536 bytes", CONTAINER, char *k = (char *)calloc(65537, 1); memset(k, 'k', 65536);
         mk_u32(mk_add(f, k, MK_V_U32), 1); free(k));
    CASE("key of control bytes", MAY, mk_u32(mk_add(f, "a\n\x01\xFF", MK_V_U32), 1));
    CASE("key of control bytes, unknown type", CONTAINER, mk_u32(mk_add(f, "a\n\x01\xFF", 99), 1));
    /* the last string ends one or two bytes past the end of the file */
    p = NULL;
    {
        mk_file *f = mk_new();
        mk_set_text(f, "general.architecture", "llama");
        p = mk_emit(f, &n);
        for (uint64_t more = 1; more < 3; more++) {
            p[24 + 8 + 20 + 4] = (uint8_t)(n - (24 + 8 + 20 + 4 + 8) + more);
            attempt("string one past the end", p, n, CONTAINER);
        }
        free(p);
        mk_free(f);
    }

    for (size_t i = 0; i < COUNT(huge); i++) {
        for (uint32_t t = 0; t <= 12; t++) {
            CASE(NAME("array of 0x%llx type %u", (unsigned long long)huge[i], (unsigned)t),
                 CONTAINER, mk_fill(mk_set_array(f, "x", t, huge[i]), 0, 32));
        }
    }
    CASE("array of 2^30 strings", CONTAINER,
         mk_fill(mk_set_array(f, "x", MK_V_STRING, 1 << 30), 0, 32));
    CASE("array of 2^30 tokens", CONTAINER,
         mk_fill(mk_set_array(f, "tokenizer.ggml.tokens", MK_V_STRING, 1 << 30), 0, 32));
    CASE("array of bool", FINE, mk_int(mk_set_array(f, "x", MK_V_BOOL, 3), 0x10001, 3));
    CASE("array of bool with 2", MAY, mk_int(mk_set_array(f, "x", MK_V_BOOL, 3), 0x10201, 3));
    CASE("bool of 255", MAY, mk_u8(mk_set(f, "x", MK_V_BOOL), 255));
    for (uint32_t t = 0; t <= 12; t++) {
        CASE(NAME("empty array of type %u", (unsigned)t), t == MK_V_ARRAY ? CONTAINER : FINE,
             mk_set_array(f, "x", t, 0));
    }
    for (long depth = 1; depth <= 1000000; depth *= 10) {
        CASE(
            NAME("array nested %ld deep", depth), CONTAINER, mk_buf *b = mk_set(f, "x", MK_V_ARRAY);
            for (long i = 0; i < depth; i++) {
                mk_u32(b, MK_V_ARRAY);
                mk_u64(b, 1);
            } mk_u32(b, MK_V_U8);
            mk_u64(b, 1); mk_u8(b, 1));
    }
    for (size_t i = 0; i < COUNT(types); i++) {
        CASE(NAME("value type %u", (unsigned)types[i]), CONTAINER,
             mk_u64(mk_set(f, "x", types[i]), 1));
        CASE(NAME("array of type %u", (unsigned)types[i]), CONTAINER,
             mk_u64(mk_set_array(f, "x", types[i], 1), 1));
        CASE(NAME("empty array of type %u", (unsigned)types[i]), CONTAINER,
             mk_set_array(f, "x", types[i], 0));
    }
    CASE("duplicate key, same value", CONTAINER,
         mk_u32(mk_add(f, "llama.block_count", MK_V_U32), 2));
    CASE("duplicate key, other type", CONTAINER, mk_text(mk_add(f, "llama.block_count", 8), "2"));
    CASE("duplicate key nobody reads", CONTAINER, mk_u32(mk_add(f, "x", MK_V_U32), 1);
         mk_u32(mk_add(f, "y", MK_V_U32), 1); mk_u32(mk_add(f, "x", MK_V_U32), 1));
    for (size_t i = 0; i < COUNT(odd); i++) {
        CASE(NAME("odd architecture %d", (int)i), MODEL,
             mk_set_text(f, "general.architecture", odd[i]));
        CASE(NAME("odd tokenizer %d", (int)i), MODEL,
             mk_set_text(f, "tokenizer.ggml.model", odd[i]));
        CASE_BPE(NAME("odd pre-tokenizer %d", (int)i), MODEL,
                 mk_set_text(f, "tokenizer.ggml.pre", odd[i]));
    }
    CASE("long architecture", MODEL, char *k = (char *)calloc(100001, 1); memset(k, 'k', 100000);
         mk_set_text(f, "general.architecture", k); free(k));
    CASE("other architecture", MODEL, mk_set_text(f, "general.architecture", "mamba"));
    CASE("split file", MODEL, mk_u16(mk_set(f, "split.count", MK_V_U16), 2);
         mk_u16(mk_set(f, "split.no", MK_V_U16), 0));
    CASE("split in one", FINE, mk_u16(mk_set(f, "split.count", MK_V_U16), 1));
    CASE("split count as text", MODEL, mk_set_text(f, "split.count", "2"));
    /* 8 MiB, in place of the 100 MB of the original list of cases */
    CASE("long chat template", FINE, mk_buf *b = mk_set(f, "tokenizer.chat_template", MK_V_STRING);
         mk_u64(b, 8 << 20); mk_fill(b, '{', 8 << 20));
    CASE("unterminated chat template", CONTAINER,
         mk_buf *b = mk_set(f, "tokenizer.chat_template", MK_V_STRING);
         mk_u64(b, 8 << 20); mk_fill(b, '{', 1 << 20));
    for (uint64_t i = 0; i < 7; i++) {
        static const uint32_t aligns[] = {0, 1, 3, 7, 48, 1u << 30, 1u << 31};
        CASE(NAME("alignment %u", (unsigned)aligns[i]), CONTAINER,
             mk_set_u32(f, "general.alignment", aligns[i]));
    }
    CASE("alignment as text", CONTAINER, mk_set_text(f, "general.alignment", "32"));
    CASE("alignment as u64", CONTAINER, mk_u64(mk_set(f, "general.alignment", MK_V_U64), 32));
    CASE("alignment as u64 2^32+32", CONTAINER,
         mk_u64(mk_set(f, "general.alignment", MK_V_U64), ((uint64_t)1 << 32) + 32));
    CASE("alignment as array", CONTAINER,
         mk_u32(mk_set_array(f, "general.alignment", MK_V_U32, 1), 32));
    CASE("alignment 64", FINE, mk_set_u32(f, "general.alignment", 64); f->align = 64);
}

/* --- values of the wrong type ---------------------------------------------------------------- */

static const size_t item_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};

/* Gives a key the value 1 as the given type: a number, the text "1", or an array of that text. */
static void retype(mk_file *f, const char *key, uint32_t type)
{
    mk_buf *b = mk_set(f, key, type);
    if (type == MK_V_STRING) {
        mk_text(b, "1");
    } else if (type == MK_V_ARRAY) {
        mk_u32(b, MK_V_STRING);
        mk_u64(b, 1);
        mk_text(b, "1");
    } else if (type == MK_V_F32) {
        mk_f32(b, 1);
    } else if (type == MK_V_F64) {
        mk_f64(b, 1);
    } else {
        mk_int(b, 1, (int)item_bytes[type]);
    }
}

static uint64_t value_of(mk_file *f, const char *key)
{
    const mk_key *k = mk_find(f, key);
    return k ? (uint64_t)(k->value.p[0] | k->value.p[1] << 8) : 1;
}

static void wrong_types(void)
{
    static const char *const integers[] = {
        "llama.context_length",
        "llama.embedding_length",
        "llama.block_count",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
        "llama.attention.value_length",
        "llama.rope.dimension_count",
        "llama.rope.scaling.original_context_length",
        "llama.expert_count",
        "llama.vocab_size",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",
        "tokenizer.ggml.unknown_token_id",
    };
    static const char *const floats[] = {
        "llama.attention.layer_norm_rms_epsilon",
        "llama.rope.freq_base",
        "llama.rope.scale_linear",
        "llama.rope.scaling.factor",
        "llama.rope.scaling.attn_factor",
        "llama.rope.scaling.yarn_beta_fast",
        "llama.rope.scaling.yarn_beta_slow",
        "llama.rope.scaling.low_freq_factor",
        "llama.rope.scaling.high_freq_factor",
    };
    static const char *const texts[] = {"general.architecture", "tokenizer.ggml.model",
                                        "llama.rope.scaling.type"};
    static const char *const bools[] = {"tokenizer.ggml.add_bos_token",
                                        "tokenizer.ggml.add_eos_token",
                                        "tokenizer.ggml.add_space_prefix"};
    static const char *const arrays[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores",
                                         "tokenizer.ggml.token_type"};
    static const uint32_t right[] = {MK_V_STRING, MK_V_F32, MK_V_I32};
    static const uint32_t not_integer[] = {MK_V_F32, MK_V_F64, MK_V_STRING, MK_V_ARRAY, MK_V_BOOL};
    static const uint32_t not_float[] = {MK_V_U32, MK_V_I64, MK_V_BOOL, MK_V_STRING, MK_V_ARRAY};

    for (size_t i = 0; i < COUNT(integers); i++) {
        const char *key = integers[i];
        uint64_t now;
        for (size_t k = 0; k < COUNT(not_integer); k++) {
            CASE(NAME("%s as type %u", key, (unsigned)not_integer[k]), MODEL,
                 retype(f, key, not_integer[k]));
        }
        /* the right value (1 if the file has no such key) in another type */
        CASE(NAME("%s as i32", key), MODEL, now = value_of(f, key);
             mk_u32(mk_set(f, key, MK_V_I32), (uint32_t)now));
        CASE(NAME("%s as u64", key), MODEL, now = value_of(f, key);
             mk_u64(mk_set(f, key, MK_V_U64), now));
        CASE(NAME("%s as i32 -1", key), MODEL, mk_u32(mk_set(f, key, MK_V_I32), 0xFFFFFFFFu));
        CASE(NAME("%s as i64 -2^63", key), MODEL,
             mk_u64(mk_set(f, key, MK_V_I64), (uint64_t)1 << 63));
        /* would be right if it were cut to 32 bits */
        CASE(NAME("%s + 2^32", key), MODEL, now = value_of(f, key);
             mk_u64(mk_set(f, key, MK_V_U64), now + ((uint64_t)1 << 32)));
        CASE(NAME("%s 2^32-1", key), MODEL, mk_set_u32(f, key, 0xFFFFFFFFu));
        CASE(NAME("%s 2^31", key), MODEL, mk_set_u32(f, key, 1u << 31));
        CASE(NAME("%s as array of one text", key), MODEL,
             mk_text(mk_set_array(f, key, MK_V_STRING, 1), "2"));
    }
    for (size_t i = 0; i < COUNT(floats); i++) {
        for (size_t k = 0; k < COUNT(not_float); k++) {
            CASE(NAME("%s as type %u", floats[i], (unsigned)not_float[k]), MODEL,
                 retype(f, floats[i], not_float[k]));
        }
        CASE(NAME("%s as f64", floats[i]), MODEL, retype(f, floats[i], MK_V_F64));
    }
    for (size_t i = 0; i < COUNT(texts); i++) {
        for (uint32_t t = 0; t <= 12; t++)
            if (t != MK_V_STRING)
                CASE(NAME("%s as type %u", texts[i], (unsigned)t), MODEL, retype(f, texts[i], t));
    }
    for (uint32_t t = 0; t <= 12; t++) {
        if (t != MK_V_STRING) {
            CASE_BPE(NAME("tokenizer.ggml.pre as type %u", (unsigned)t), MODEL,
                     retype(f, "tokenizer.ggml.pre", t));
        }
        for (size_t i = 0; t != MK_V_BOOL && i < COUNT(bools); i++)
            CASE(NAME("%s as type %u", bools[i], (unsigned)t), MODEL, retype(f, bools[i], t));
    }
    for (size_t i = 0; i < COUNT(arrays); i++) {
        for (uint32_t t = 0; t <= 12; t++) {
            if (t != MK_V_ARRAY) {
                CASE(NAME("%s as type %u", arrays[i], (unsigned)t), MODEL, retype(f, arrays[i], t));
                CASE(NAME("%s of type %u", arrays[i], (unsigned)t),
                     t == right[i] || (i == 2 && t == MK_V_U32) ? MAY : MODEL,
                     mk_fill(mk_set_array(f, arrays[i], t, 300), 0, 300 * item_bytes[t]));
            }
        }
    }
    for (uint32_t t = 0; t <= 12; t++) {
        if (t != MK_V_ARRAY) {
            CASE_BPE(NAME("merges as type %u", (unsigned)t), MODEL,
                     retype(f, "tokenizer.ggml.merges", t));
            if (t != MK_V_STRING) {
                CASE_BPE(NAME("merges of type %u", (unsigned)t), MODEL,
                         mk_fill(mk_set_array(f, "tokenizer.ggml.merges", t, 20), 0,
                                 20 * item_bytes[t]));
            }
        }
    }
}

/* --- tensors --------------------------------------------------------------------------------- */

/* Gives t the shape [ne1,ne0], or [ne0] if ne1 is 0, and random data to match. */
static void reshape(mk_tensor *t, uint64_t ne0, uint64_t ne1)
{
    uint64_t seed = 9;
    t->ne[0] = ne0;
    t->ne[1] = ne1;
    t->n_ne = ne1 ? 2 : 1;
    t->n_dims = (uint32_t)t->n_ne;
    t->data.n = 0;
    mk_weights(&t->data, t->type, (size_t)(ne0 * (ne1 ? ne1 : 1)), 0, 0.1, &seed);
}

static void tensors(void)
{
    static const uint32_t dims[] = {0, 5, 8, 255, 0x7FFFFFFF, 0xFFFFFFFF};
    static const uint32_t types[] = {4,  5,  9,  15, 24,  28,         31,          32,         33,
                                     36, 37, 38, 43, 255, 0x7FFFFFFF, 0x80000000u, 0xFFFFFFFFu};
    static const uint64_t bad[] = {0,
                                   (uint64_t)-1,
                                   (uint64_t)-16,
                                   (uint64_t)1 << 63,
                                   ((uint64_t)1 << 42) + 1,
                                   (uint64_t)1 << 62,
                                   (uint64_t)1 << 61,
                                   (uint64_t)1 << 32,
                                   ((uint64_t)1 << 60) + 16};
    static const uint64_t offsets[] = {1,
                                       31,
                                       8,
                                       (uint64_t)-32,
                                       (uint64_t)1 << 63,
                                       ((uint64_t)1 << 63) - 32,
                                       (uint64_t)1 << 32,
                                       (uint64_t)-20032};
    const char *const q = "blk.0.attn_q.weight", *const last = "output_norm.weight";
    mk_file *good = tiny_bpe();

    for (size_t i = 0; i < COUNT(dims); i++) {
        CASE(NAME("n_dims %u", (unsigned)dims[i]), CONTAINER,
             mk_find_tensor(f, q)->n_dims = dims[i]);
        CASE(
            NAME("n_dims %u, really", (unsigned)dims[i]), CONTAINER,
            mk_tensor *t = mk_find_tensor(f, q);
            t->n_dims = dims[i]; t->n_ne = dims[i] > 8 ? 8 : (int)dims[i];
            for (int d = 2; d < 8; d++) { t->ne[d] = 1; });
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        for (int d = 0; d < 4; d++) {
            CASE(NAME("ne[%d] = 0x%llx", d, (unsigned long long)bad[i]), CONTAINER,
                 mk_tensor *t = mk_find_tensor(f, q);
                 t->n_dims = 4; t->n_ne = 4; t->ne[2] = t->ne[3] = 1; t->ne[d] = bad[i]);
        }
        for (size_t k = 0; k < COUNT(bad); k++) {
            CASE(NAME("ne 0x%llx x 0x%llx", (unsigned long long)bad[i], (unsigned long long)bad[k]),
                 CONTAINER, mk_tensor *t = mk_find_tensor(f, last);
                 t->n_dims = 2; t->n_ne = 2; t->ne[0] = bad[i]; t->ne[1] = bad[k]);
        }
    }
    CASE(
        "product wraps to 0", CONTAINER, mk_tensor *t = mk_find_tensor(f, last); t->n_dims = 4;
        t->n_ne = 4; for (int d = 0; d < 4; d++) { t->ne[d] = 1 << 16; });
    CASE("product wraps to 16", CONTAINER, mk_tensor *t = mk_find_tensor(f, last); t->n_dims = 2;
         t->n_ne = 2; t->ne[0] = ((uint64_t)1 << 60) + 1; t->ne[1] = 16);
    CASE("bytes wrap", CONTAINER, mk_tensor *t = mk_find_tensor(f, last);
         t->ne[0] = ((uint64_t)1 << 62) + 16);
    CASE("row of a part of a block", CONTAINER, mk_find_tensor(f, q)->type = MK_Q4_0);
    CASE("row of no block", CONTAINER, mk_find_tensor(f, q)->type = MK_Q4_K);
    for (size_t i = 0; i < COUNT(types); i++) {
        CASE(NAME("tensor type %u", (unsigned)types[i]), REFUSED,
             mk_find_tensor(f, q)->type = types[i]);
        CASE(NAME("last tensor's type %u", (unsigned)types[i]), REFUSED,
             mk_find_tensor(f, last)->type = types[i]);
    }
    for (size_t i = 0; i < COUNT(offsets); i++) {
        CASE(NAME("offset 0x%llx", (unsigned long long)offsets[i]), CONTAINER,
             mk_tensor *t = mk_find_tensor(f, last);
             t->own_offset = 1; t->offset = offsets[i]);
        CASE(NAME("first offset 0x%llx", (unsigned long long)offsets[i]), CONTAINER,
             f->tensor[0].own_offset = 1;
             f->tensor[0].offset = offsets[i]);
    }
    CASE("overlapping tensors", CONTAINER, f->tensor[3].own_offset = 1; f->tensor[3].offset = 0);
    CASE(
        "all tensors at 0", CONTAINER,
        for (size_t i = 0; i < f->tensors; i++) { f->tensor[i].own_offset = 1; });
    CASE("data one byte short", CONTAINER, f->tensor[f->tensors - 1].data.n -= 32);
    CASE("two tensors of a name", CONTAINER,
         strcpy(mk_find_tensor(f, "blk.1.attn_q.weight")->name, q));
    CASE("tensor without a name", REFUSED, mk_find_tensor(f, q)->name[0] = 0);
    CASE("tensor name of control bytes", REFUSED, strcpy(mk_find_tensor(f, q)->name, "\n\x01\xFF"));
    CASE("tensor names of control bytes, twice", CONTAINER, strcpy(f->tensor[1].name, "\n\x01\xFF");
         strcpy(f->tensor[2].name, "\n\x01\xFF"));
    CASE("extra tensor", MAY, uint64_t seed = 1;
         mk_add_tensor(f, "blk.0.extra.weight", MK_F32, 8, 8, 0, 1, &seed));
    CASE("extra layer", MAY, uint64_t seed = 1;
         mk_add_tensor(f, "blk.2.attn_q.weight", MK_F32, 16, 32, 0, 1, &seed));

    for (size_t i = 0; i < good->tensors; i++) {
        const char *w = good->tensor[i].name;
        uint64_t ne0 = good->tensor[i].ne[0], ne1 = good->tensor[i].ne[1];
        if (strcmp(w, "output.weight"))
            CASE_BPE(NAME("without %s", w), MODEL, mk_remove_tensor(f, w));
        CASE_BPE(NAME("%s: longer rows", w), MODEL, reshape(mk_find_tensor(f, w), ne0 + 8, ne1));
        CASE_BPE(NAME("%s: shorter rows", w), MODEL, reshape(mk_find_tensor(f, w), ne0 - 8, ne1));
        CASE_BPE(NAME("%s: one item", w), MODEL, reshape(mk_find_tensor(f, w), 1, 0));
        if (ne1) {
            CASE_BPE(NAME("%s: more rows", w), MODEL, reshape(mk_find_tensor(f, w), ne0, ne1 + 1));
            CASE_BPE(NAME("%s: fewer rows", w), MODEL, reshape(mk_find_tensor(f, w), ne0, ne1 - 1));
            CASE_BPE(NAME("%s: flat", w), MODEL, reshape(mk_find_tensor(f, w), ne0 * ne1, 0));
            CASE_BPE(NAME("%s: three dimensions", w), MODEL, mk_tensor *t = mk_find_tensor(f, w);
                     t->n_dims = 3; t->n_ne = 3; t->ne[2] = 2; mk_fill(&t->data, 0, t->data.n));
        } else {
            CASE_BPE(NAME("%s: a matrix", w), MODEL, reshape(mk_find_tensor(f, w), ne0, 2));
        }
        if (ne0 != ne1 && ne1)
            CASE_BPE(NAME("%s: turned", w), MODEL, reshape(mk_find_tensor(f, w), ne1, ne0));
        /* weights that are NaN, infinite, huge or 0: the model loads and runs, if to no purpose */
        CASE_BPE(NAME("%s: NaN", w), FINE, mk_tensor *t = mk_find_tensor(f, w);
                 memset(t->data.p, 0xFF, t->data.n));
        CASE_BPE(
            NAME("%s: infinite", w), FINE, mk_tensor *t = mk_find_tensor(f, w);
            for (size_t k = 0; k < t->data.n;
                 k += 4) { memcpy(t->data.p + k, "\0\0\x80\x7F", 4); });
        CASE_BPE(
            NAME("%s: huge", w), FINE, mk_tensor *t = mk_find_tensor(f, w);
            for (size_t k = 0; k < t->data.n;
                 k += 4) { memcpy(t->data.p + k, "\0\0\x7F\x7F", 4); });
        CASE_BPE(NAME("%s: zero", w), FINE, mk_tensor *t = mk_find_tensor(f, w);
                 memset(t->data.p, 0, t->data.n));
        CASE_BPE(NAME("%s: as F16", w), MAY, mk_tensor *t = mk_find_tensor(f, w); t->type = MK_F16;
                 reshape(t, ne0, ne1));
    }
    mk_free(good);
}

/* Every weight type, with blocks of all bits set (their scales are NaN), random blocks, and blocks
   whose scale is infinite or NaN. */
static void scales(void)
{
    static const uint32_t types[] = {MK_F16,  MK_BF16, MK_Q4_0,   MK_Q4_1,   MK_Q5_0,
                                     MK_Q5_1, MK_Q8_0, MK_Q2_K,   MK_Q3_K,   MK_Q4_K,
                                     MK_Q5_K, MK_Q6_K, MK_IQ4_NL, MK_IQ4_XS, MK_MXFP4};
    for (size_t i = 0; i < COUNT(types); i++) {
        for (int kind = 0; kind < 4; kind++) {
            const mk_layout *l = mk_layout_of(types[i]);
            mk_options o = {1, 256, 1, 1, 16, 256, 300, 64, 1, 0, NULL, 0, 0, 0, 0, 0, 0, 3};
            mk_file *f;
            uint64_t seed = 77;
            o.embd = o.qkv = o.ffn_up = o.ffn_down = o.head = types[i];
            f = mk_llama(&o);
            for (size_t t = 0; t < f->tensors; t++) {
                mk_buf *b = &f->tensor[t].data;
                for (size_t k = 0; f->tensor[t].type == types[i] && k < b->n; k++) {
                    int at = (int)(k % (size_t)l->bytes);
                    int scale = l->at >= 0 && (at == l->at || at == l->at + 1);
                    b->p[k] = kind == 0      ? 0xFF
                        : kind == 1          ? (uint8_t)(mk_rnd(&seed) >> 56)
                        : kind == 2 && scale ? (at == l->at ? 0 : 0x7C)
                        : kind == 3 && scale ? (at == l->at ? 1 : 0xFE)
                                             : b->p[k];
                }
            }
            attempt_file(NAME("%s, scales %s", l->name,
                              kind == 0       ? "and all bits set"
                                  : kind == 1 ? "random"
                                  : kind == 2 ? "infinite"
                                              : "NaN"),
                         f, FINE);
        }
    }
}

/* --- hyper-parameters ------------------------------------------------------------------------ */

static void hyperparameters(void)
{
    static const struct {
        const char *key;
        uint32_t v[8];
        int n;
    } bad[] = {
        {"llama.block_count", {0, 1000, 3, 512, 513, 1u << 31, 0xFFFFFFFFu}, 7},
        {"llama.attention.head_count", {0, 3, 5, 65536, 1u << 31, 0x40000000, 0xFFFFFFFFu}, 7},
        {"llama.attention.head_count_kv", {3, 5, 8, 65536, 1u << 31, 0xFFFFFFFFu}, 6},
        {"llama.attention.key_length", {0, 7, 9, 16, 1u << 20, (1u << 20) + 2, 1u << 31}, 7},
        {"llama.attention.value_length", {0, 7, 9, 16, 1u << 20, (1u << 20) + 2, 1u << 31}, 7},
        {"llama.rope.dimension_count", {7, 9, 10, 16, 1u << 31, 0xFFFFFFFFu}, 6},
        {"llama.context_length", {0, 1u << 31, 0xFFFFFFFFu}, 3},
        {"llama.embedding_length", {0, 8, 15, 1u << 31, 0x40000000, 0xFFFFFFFFu}, 6},
        {"llama.feed_forward_length", {0, 23, 32, 1u << 31, 0xFFFFFFFFu}, 5},
        {"llama.vocab_size", {1u << 31}, 1},
        {"llama.expert_count", {8, 0xFFFFFFFFu}, 2},
    };
    static const uint32_t no_eps[] = {0,           0x80000000u, 0x7F800000u,
                                      0x7FC00000u, 0xBF800000u, 0xFF800000u};
    static const char *const required[] = {
        "general.architecture",
        "llama.context_length",
        "llama.embedding_length",
        "llama.block_count",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
    };
    static const int lists[][4] = {{1, 4},    {3, 4, 4, 4}, {2, 0, 4},
                                   {2, 4, 0}, {2, 0, 0},    {2, 4, 3}};
    static const char *const scalings[] = {"nonsense", "", "longrope\n"};

    for (size_t i = 0; i < COUNT(bad); i++) {
        for (int k = 0; k < bad[i].n; k++) {
            CASE(NAME("%s %u", bad[i].key, (unsigned)bad[i].v[k]),
                 strstr(bad[i].key, "vocab_size") ? MAY : MODEL,
                 mk_set_u32(f, bad[i].key, bad[i].v[k]));
        }
    }
    CASE("context_length 2^32", MODEL,
         mk_u64(mk_set(f, "llama.context_length", MK_V_U64), (uint64_t)1 << 32));
    for (size_t i = 0; i < COUNT(no_eps); i++) {
        CASE(NAME("eps 0x%08x", (unsigned)no_eps[i]), MODEL,
             mk_u32(mk_set(f, "llama.attention.layer_norm_rms_epsilon", MK_V_F32), no_eps[i]));
        CASE(NAME("freq_base 0x%08x", (unsigned)no_eps[i]), MODEL,
             mk_u32(mk_set(f, "llama.rope.freq_base", MK_V_F32), no_eps[i]));
        if (i > 1) { /* a factor of 0 means no scaling */
            CASE(NAME("rope factor 0x%08x", (unsigned)no_eps[i]), MODEL,
                 mk_set_text(f, "llama.rope.scaling.type", "linear");
                 mk_u32(mk_set(f, "llama.rope.scaling.factor", MK_V_F32), no_eps[i]));
        }
        CASE(NAME("attn_factor 0x%08x", (unsigned)no_eps[i]), MAY,
             mk_set_text(f, "llama.rope.scaling.type", "yarn");
             mk_set_f32(f, "llama.rope.scaling.factor", 4);
             mk_u32(mk_set(f, "llama.rope.scaling.attn_factor", MK_V_F32), no_eps[i]));
    }
    CASE("eps smallest", MAY,
         mk_u32(mk_set(f, "llama.attention.layer_norm_rms_epsilon", MK_V_F32), 1));
    CASE("freq_base huge", MAY, mk_set_f32(f, "llama.rope.freq_base", 3e38f));
    CASE("freq_base tiny", MAY, mk_set_f32(f, "llama.rope.freq_base", 1e-38f));
    for (size_t i = 0; i < COUNT(required); i++)
        CASE(NAME("without %s", required[i]), MODEL, mk_remove(f, required[i]));
    CASE_BPE("without merges", MODEL, mk_remove(f, "tokenizer.ggml.merges"));
    for (size_t i = 0; i < COUNT(lists); i++) {
        static const char *const per_layer[] = {"llama.attention.head_count",
                                                "llama.attention.head_count_kv",
                                                "llama.feed_forward_length"};
        for (size_t k = 0; k < COUNT(per_layer); k++) {
            CASE(
                NAME("%s list %d", per_layer[k], (int)i), MODEL,
                mk_buf *b = mk_set_array(f, per_layer[k], MK_V_U32, (uint64_t)lists[i][0]);
                for (int j = 1; j <= lists[i][0]; j++) { mk_u32(b, (uint32_t)lists[i][j]); });
        }
    }
    CASE("empty list of heads", MODEL, mk_set_array(f, "llama.attention.head_count", MK_V_U32, 0));
    CASE("list of heads", MAY,
         mk_int(mk_set_array(f, "llama.attention.head_count", MK_V_U32, 2), 0x400000004u, 8));
    for (size_t i = 0; i < COUNT(scalings); i++) {
        CASE(NAME("rope scaling %d", (int)i), MODEL,
             mk_set_text(f, "llama.rope.scaling.type", scalings[i]));
    }
    for (uint64_t i = 0; i < 3; i++) {
        static const uint32_t contexts[] = {0, 1u << 31, 0xFFFFFFFFu};
        CASE(NAME("yarn of original context %u", (unsigned)contexts[i]), MAY,
             mk_set_text(f, "llama.rope.scaling.type", "yarn");
             mk_set_f32(f, "llama.rope.scaling.factor", 4);
             mk_set_u32(f, "llama.rope.scaling.original_context_length", contexts[i]));
        CASE(NAME("window %u", (unsigned)contexts[i]), MAY,
             mk_set_u32(f, "llama.attention.sliding_window", contexts[i]);
             mk_set_u32(f, "llama.attention.sliding_window_pattern", 0));
    }
    for (uint64_t i = 0; i < 3; i++) {
        static const uint64_t rows[] = {3, 5, 8};
        CASE(NAME("rope_freqs of %d", (int)rows[i]), MODEL, uint64_t seed = 1;
             mk_add_tensor(f, "rope_freqs.weight", MK_F32, rows[i], 0, 1, 0, &seed));
    }
    for (int i = 0; i < 4; i++) {
        static const char *const values[] = {"\0\0\0", "\0\0\xC0\x7F", "\0\0\x80\x7F", "\1\0\0"};
        CASE(
            NAME("rope_freqs value %d", i), MAY, uint64_t seed = 1;
            mk_tensor *t = mk_add_tensor(f, "rope_freqs.weight", MK_F32, 4, 0, 1, 0, &seed);
            for (int k = 0; k < 4; k++) { memcpy(t->data.p + 4 * k, values[i], 4); });
    }
}

/* --- architectures --------------------------------------------------------------------------- */

/* Architectures for models of four layers; between them they have every kind of layer. */
static const mk_kind kinds[] = {{"deci", "fslf", 0},   {"flash", "fswo", 3}, {"qwen3", "f", 0},
                                {"gemma3", "wwwf", 3}, {"lfm2", "ccff", 0},  {"llama4", "f", 0}};
enum { DECI, FLASH, QWEN3, GEMMA3, LFM2, LLAMA4, KINDS };

static mk_file *tiny_of(int kind)
{
    mk_options o = {4, 16, 4, 2, 8, 24, 40, 64, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 3};
    return mk_model(&o, &kinds[kind]);
}

#define CASE_OF(kind, name, want, ...) \
    do { \
        mk_file *f = tiny_of(kind); \
        __VA_ARGS__; \
        attempt_file(name, f, want); \
    } while (0)

/* Sets a key to an array of n items of a type. All are v, except that item `at` is `odd` (at -1: no
   exception). If n < 0, sets the key to the single value v. */
static void set_items(mk_file *f, const char *key, uint32_t type, int n, uint64_t v, int at,
                      uint64_t odd)
{
    mk_buf *b = n < 0 ? mk_set(f, key, type) : mk_set_array(f, key, type, (uint64_t)n);
    for (int i = 0; i < (n < 0 ? 1 : n); i++)
        if (type == MK_V_STRING)
            mk_text(b, "4");
        else
            mk_int(b, i == at ? odd : v, (int)item_bytes[type]);
}

static uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

/* Tests a key that has one number for each layer. v is right for every layer that needs one. zeros:
   the expected result if all numbers are 0. */
static void layer_lists(int kind, const char *rest, uint64_t v, int zeros)
{
    static const uint32_t wrong[] = {MK_V_U8,     MK_V_I8,  MK_V_U16, MK_V_I16, MK_V_F32,
                                     MK_V_STRING, MK_V_U64, MK_V_I64, MK_V_F64};
    static const uint32_t values[] = {0x80000000u, 0xFFFFFFFFu, 0x7FFFFFFF, (1u << 20) + 1};
    char key[80];
    size_t n_bad = zeros == FINE ? 2 : COUNT(values); /* FINE: the key is a list of bools */
    mk_name(&kinds[kind], rest, key);
    for (int n = 0; n < 6; n++) {
        if (n != 4) {
            CASE_OF(kind, NAME("%s: %d items", key, n), MODEL,
                    set_items(f, key, MK_V_I32, n, v, -1, 0));
        }
    }
    for (size_t i = 0; i < COUNT(wrong); i++) {
        CASE_OF(kind, NAME("%s: items of type %u", key, (unsigned)wrong[i]), MODEL,
                set_items(f, key, wrong[i], 4, v, -1, 0));
        CASE_OF(kind, NAME("%s: type %u", key, (unsigned)wrong[i]), MODEL,
                set_items(f, key, wrong[i], -1, v, -1, 0));
    }
    CASE_OF(kind, NAME("%s: i32", key), MODEL, set_items(f, key, MK_V_I32, -1, v, -1, 0));
    CASE_OF(kind, NAME("%s: bools", key), MAY, set_items(f, key, MK_V_BOOL, 4, 1, 1, 0));
    CASE_OF(kind, NAME("%s: bools of 255", key), MAY, set_items(f, key, MK_V_BOOL, 4, 255, 1, 0));
    CASE_OF(kind, NAME("%s: all zero", key), zeros, set_items(f, key, MK_V_I32, 4, 0, -1, 0));
    CASE_OF(kind, NAME("%s: zero", key), zeros, set_items(f, key, MK_V_U32, -1, 0, -1, 0));
    for (int at = 0; at < 4; at++) {
        for (size_t i = 0; i < n_bad; i++) {
            CASE_OF(kind, NAME("%s: item %d i32 %u", key, at, (unsigned)values[i]), MODEL,
                    set_items(f, key, MK_V_I32, 4, v, at, values[i]));
            CASE_OF(kind, NAME("%s: item %d u32 %u", key, at, (unsigned)values[i]), MODEL,
                    set_items(f, key, MK_V_U32, 4, v, at, values[i]));
        }
        CASE_OF(kind, NAME("%s: item %d 0", key, at), MAY,
                set_items(f, key, MK_V_I32, 4, v, at, 0));
    }
    for (size_t i = 0; i < n_bad; i++) {
        CASE_OF(kind, NAME("%s: %u", key, (unsigned)values[i]), MODEL,
                set_items(f, key, MK_V_U32, -1, values[i], -1, 0));
    }
}

/* Tests a key that has one float: NaN, infinities and negative numbers are refused. list: the key
   may also have one float for each layer. */
static void bad_floats(int kind, const char *rest, int list)
{
    static const uint32_t bad[] = {0x7FC00000u, 0xFFC00000u, 0x7F800000u, 0xFF800000u,
                                   0xBF800000u, 0x7F800001u, 0x80000001u};
    char key[80];
    mk_name(&kinds[kind], rest, key);
    for (size_t i = 0; i < COUNT(bad); i++) {
        CASE_OF(kind, NAME("%s: 0x%08x", key, (unsigned)bad[i]), MODEL,
                set_items(f, key, MK_V_F32, -1, bad[i], -1, 0));
        for (int at = 0; list && at < 4; at++) {
            CASE_OF(kind, NAME("%s: item %d 0x%08x", key, at, (unsigned)bad[i]), MODEL,
                    set_items(f, key, MK_V_F32, 4, float_bits(10000), at, bad[i]));
        }
    }
    for (uint32_t t = 0; t <= 12; t++) {
        if (t != MK_V_F32 && t != MK_V_ARRAY) {
            CASE_OF(kind, NAME("%s: type %u", key, (unsigned)t), MODEL,
                    set_items(f, key, t, -1, 1, -1, 0));
            CASE_OF(kind, NAME("%s: items of type %u", key, (unsigned)t), MODEL,
                    set_items(f, key, t, 4, 1, -1, 0));
        }
    }
    for (int n = 0; n < 6; n++) {
        CASE_OF(kind, NAME("%s: %d items", key, n), list && n == 4 ? FINE : MODEL,
                set_items(f, key, MK_V_F32, n, float_bits(10000), -1, 0));
    }
}

/* Tests a key that has one u32: v[0] to v[n_good - 1] load; the others and other types do not. */
static void bad_number(int kind, const char *rest, const uint32_t *v, int n, int n_good)
{
    static const uint32_t wrong[] = {MK_V_U8, MK_V_I32, MK_V_F32, MK_V_BOOL, MK_V_STRING, MK_V_U64};
    char key[80];
    mk_name(&kinds[kind], rest, key);
    for (int i = 0; i < n; i++) {
        CASE_OF(kind, NAME("%s = %u", key, (unsigned)v[i]), i < n_good ? FINE : MODEL,
                mk_set_u32(f, key, v[i]));
    }
    for (size_t i = 0; i < COUNT(wrong); i++) {
        CASE_OF(kind, NAME("%s: type %u", key, (unsigned)wrong[i]), MODEL,
                set_items(f, key, wrong[i], -1, v[0], -1, 0));
    }
}

static void layer_keys(void)
{
    static const uint32_t windows[] = {1,          2,        1u << 20,   0, (1u << 20) + 1,
                                       0x7FFFFFFF, 1u << 31, 0xFFFFFFFFu};
    static const uint32_t gemma_windows[] = {0,          1,        1u << 20,   (1u << 20) + 1,
                                             0x7FFFFFFF, 1u << 31, 0xFFFFFFFFu};
    static const uint32_t periods[] = {0, 1, 2, 0x7FFFFFFF, 1u << 31, 0xFFFFFFFFu};
    static const uint32_t caches[] = {3, 0, 1, 2, 4, 64, 65, 0x7FFFFFFF, 1u << 31, 0xFFFFFFFFu};
    static const uint32_t caps[] = {0,           0x80000000u, 1,           0x00800000u,
                                    0x41F00000u, 0x7F000000u, 0x7FC00000u, 0x7F800000u,
                                    0xFF800000u, 0xBF800000u};
    static const int patterns[][4] = {
        {0, 2, 1, 1}, {1, 2, 0, 0}, {2, 2, 1, 1}, {0, 0, 1, 1},  {0, 1, 1, 1},         {0, 2, 1, 2},
        {0, 0, 0, 0}, {2, 2, 2, 2}, {0, 2, 3, 1}, {0, 2, -1, 1}, {0, 2, 0x7FFFFFFF, 1}};
    const char *key = "flash.attention.pattern";
    for (int k = 0; k < KINDS; k++) {
        layer_lists(k, "attention.head_count", 4, MODEL);
        layer_lists(k, "attention.head_count_kv", 2, MODEL);
        layer_lists(k, "feed_forward_length", 24, MODEL);
        bad_floats(k, "rope.freq_base", k == FLASH);
    }
    for (int i = 0; i < 3; i++) {
        static const uint32_t low[] = {0x3F000000u, 0x3F7FFFFFu, 1};
        for (int k = 0; k < KINDS; k++) {
            CASE_OF(k, NAME("freq_base below 1, %d", i), MODEL, char key2[80];
                    set_items(f, mk_name(&kinds[k], "rope.freq_base", key2), MK_V_F32, -1, low[i],
                              -1, 0));
        }
        CASE_OF(GEMMA3, NAME("freq_base_swa below 1, %d", i), MODEL,
                set_items(f, "gemma3.rope.freq_base_swa", MK_V_F32, -1, low[i], -1, 0));
    }
    CASE_OF(FLASH, "no RoPE at all", FINE, mk_set_f32(f, "flash.rope.freq_base", 0));
    CASE_OF(QWEN3, "qwen3 without RoPE", MODEL, mk_set_f32(f, "qwen3.rope.freq_base", 0));

    layer_lists(FLASH, "attention.pattern", 0, MODEL);
    for (size_t i = 0; i < COUNT(patterns); i++) {
        CASE_OF(
            FLASH, NAME("pattern %d", (int)i), i < 2 ? FINE : MODEL,
            mk_buf *b = mk_set_array(f, key, MK_V_I32, 4);
            for (int j = 0; j < 4; j++) { mk_u32(b, (uint32_t)patterns[i][j]); });
    }
    CASE_OF(FLASH, "no pattern", FINE, mk_remove(f, key));
    layer_lists(FLASH, "attention.sliding_window", 3, MODEL);
    bad_number(FLASH, "attention.sliding_window", windows, COUNT(windows), 3);
    CASE_OF(FLASH, "no window", MODEL, mk_remove(f, "flash.attention.sliding_window"));
    for (int at = 0; at < 4; at++) { /* layers 2 and 3 have windows */
        CASE_OF(FLASH, NAME("window %d is 0", at), at < 2 ? FINE : MODEL,
                set_items(f, "flash.attention.sliding_window", MK_V_U32, 4, 1, at, 0));
    }

    layer_lists(GEMMA3, "attention.sliding_window_pattern", 1, FINE);
    bad_number(GEMMA3, "attention.sliding_window_pattern", periods, COUNT(periods), 4);
    bad_number(GEMMA3, "attention.sliding_window", gemma_windows, COUNT(gemma_windows), 3);
    bad_floats(GEMMA3, "rope.freq_base_swa", 0);
    bad_floats(GEMMA3, "final_logit_softcapping", 0);
    for (size_t i = 0; i < COUNT(caps); i++) {
        CASE_OF(GEMMA3, NAME("soft-cap 0x%08x", (unsigned)caps[i]), i < 6 ? FINE : MODEL,
                set_items(f, "gemma3.final_logit_softcapping", MK_V_F32, -1, caps[i], -1, 0));
    }

    bad_number(LFM2, "shortconv.l_cache", caches, COUNT(caches), 1);
    bad_number(LFM2, "attention.sliding_window", gemma_windows, COUNT(gemma_windows), 3);
    CASE_OF(LFM2, "no l_cache", MODEL, mk_remove(f, "lfm2.shortconv.l_cache"));
    for (uint32_t i = 2; i <= 64; i += 62) {
        CASE_OF(LFM2, NAME("l_cache %u, rightly", (unsigned)i), FINE,
                mk_set_u32(f, "lfm2.shortconv.l_cache", i);
                reshape(mk_find_tensor(f, "blk.0.shortconv.conv.weight"), i, 16);
                reshape(mk_find_tensor(f, "blk.1.shortconv.conv.weight"), i, 16));
    }

    for (size_t i = 0; i < COUNT(periods); i++) {
        CASE_OF(LLAMA4, NAME("chunks, pattern %u", (unsigned)periods[i]), i < 4 ? FINE : MODEL,
                mk_remove(f, "llama4.attention.sliding_window");
                mk_set_u32(f, "llama4.attention.sliding_window_pattern", periods[i]));
        CASE_OF(LLAMA4, NAME("window %u", (unsigned)periods[i]), i < 4 ? FINE : MAY,
                mk_set_u32(f, "llama4.attention.sliding_window", periods[i]));
    }
    for (uint32_t i = 0; i < 3; i++) {
        static const uint32_t experts[] = {1, 128, 0x7FFFFFFF};
        CASE_OF(LLAMA4, NAME("%u experts nowhere", (unsigned)experts[i]), FINE,
                mk_set_u32(f, "llama4.expert_count", experts[i]));
        CASE_OF(LLAMA4, NAME("%u experts", (unsigned)experts[i]), MODEL,
                mk_set_u32(f, "llama4.expert_count", experts[i]);
                mk_set_u32(f, "llama4.interleave_moe_layer_step", 1));
    }
    CASE_OF(LLAMA4, "no experts everywhere", MAY,
            mk_set_u32(f, "llama4.interleave_moe_layer_step", 1));
    for (int k = 0; k < KINDS; k++) {
        CASE_OF(k, NAME("%s, experts", kinds[k].arch), k == LLAMA4 ? FINE : MODEL, char key2[80];
                mk_set_u32(f, mk_name(&kinds[k], "expert_count", key2), 8));
    }
}

/* Heads around the limit of 512, in files where no key gives their size. */
static void large_heads(void)
{
    for (int d = 512; d <= 2048; d += d == 512 ? 2 : 1022) {
        for (int skip = 0; skip < 2; skip++) {
            mk_options o = {1, d, 1, 1, d, 8, 40, 64, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 3};
            mk_kind kind = {skip ? "flash" : "llama", skip ? "s" : "f", 0};
            mk_file *f = mk_model(&o, &kind);
            char key[80];
            mk_remove(f, mk_name(&kind, "attention.key_length", key));
            mk_remove(f, mk_name(&kind, "attention.value_length", key));
            mk_remove(f, mk_name(&kind, "rope.dimension_count", key));
            attempt_file(NAME("%s: one head of %d", kind.arch, d), f, d == 512 ? FINE : MODEL);
        }
    }
}

/* More query rows in one layer, the first or the last, than any matrix may have: said so, rather
   than of a tensor that is not of that shape. */
static void many_heads(void)
{
    for (int last = 0; last < 2; last++) {
        mk_kind kind = {"llama", "f", 0};
        mk_options o = {1, 16, 4, 2, 8, 24, 40, 64, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 3};
        mk_file *f = last ? tiny_of(DECI) : mk_model(&o, &kind);
        flash_model_desc d = {0};
        flash_error err = {FLASH_OK, 0, ""};
        flash_model *m = NULL;
        size_t n;
        const char *arch = last ? "deci" : "llama";
        char key[80];
        mk_set_u32(f, NAME("%s.attention.key_length", arch), 512);
        mk_set_u32(f, NAME("%s.attention.value_length", arch), 512);
        mk_set_u32(f, NAME("%s.rope.dimension_count", arch), 512);
        snprintf(key, sizeof key, "%s.attention.head_count", arch);
        if (last)
            set_items(f, key, MK_V_U32, 4, 4, 3, 4096);
        else
            mk_set_u32(f, key, 4096);
        uint8_t *p = mk_emit(f, &n);
        d.source.data = p;
        d.source.bytes = n;
        SECTION("heads, too many");
        CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_E_TOO_LARGE);
        if (!CHECK_STR(err.text,
                       last ? "layer 3: 4096 heads of 512" : "layer 0: 4096 heads of 512"))
            printf("    %s\n", err.text);
        free(p);
        mk_free(f);
    }
}

static void layer_tensors(void)
{
    static const struct {
        int kind;
        const char *name;
        uint64_t ne0, ne1;
    } extra[] = {
        {DECI, "blk.1.attn_norm.weight", 16, 0},
        {DECI, "blk.1.attn_q.weight", 16, 32},
        {DECI, "blk.1.attn_output.weight", 32, 16},
        {DECI, "blk.2.attn_q.weight", 16, 32},
        {DECI, "blk.2.attn_k.weight", 16, 16},
        {DECI, "blk.0.attn_q_norm.weight", 8, 0},
        {FLASH, "blk.1.attn_norm.weight", 16, 0},
        {FLASH, "blk.1.attn_v.weight", 16, 16},
        {FLASH, "blk.1.attn_q_norm.weight", 8, 0},
        {FLASH, "blk.1.attn_q.bias", 32, 0},
        {QWEN3, "blk.0.attn_q.bias", 32, 0},
        {QWEN3, "rope_freqs.weight", 4, 0},
        {QWEN3, "blk.0.post_attention_norm.weight", 16, 0},
        {GEMMA3, "blk.0.attn_k.bias", 16, 0},
        {GEMMA3, "blk.0.shortconv.conv.weight", 3, 16},
        {LFM2, "blk.2.shortconv.conv.weight", 3, 16},
        {LFM2, "blk.0.attn_q.weight", 16, 32},
        {LFM2, "blk.0.attn_q_norm.weight", 8, 0},
        {LFM2, "output_norm.weight", 16, 0},
        {LLAMA4, "blk.0.attn_q_norm.weight", 8, 0},
        {LLAMA4, "blk.0.attn_q.bias", 32, 0},
        {LLAMA4, "blk.0.ffn_gate_inp.weight", 16, 4},
        {LLAMA4, "token_embd_norm.weight", 16, 0},
    };
    for (int k = 0; k < KINDS; k++) {
        mk_file *good = tiny_of(k);
        for (size_t i = 0; i < good->tensors; i++) {
            char w[100], title[128];
            uint64_t ne0 = good->tensor[i].ne[0], ne1 = good->tensor[i].ne[1];
            snprintf(w, sizeof w, "%s", good->tensor[i].name);
            snprintf(title, sizeof title, "%s, %s", kinds[k].arch, w);
            CASE_OF(k, NAME("%s: not there", title), MODEL, mk_remove_tensor(f, w));
            CASE_OF(k, NAME("%s: longer", title), MODEL,
                    reshape(mk_find_tensor(f, w), ne0 + 8, ne1));
            CASE_OF(k, NAME("%s: shorter", title), MODEL,
                    reshape(mk_find_tensor(f, w), ne0 > 8 ? ne0 - 8 : ne0 - 1, ne1));
            CASE_OF(k, NAME("%s: one item", title), MODEL, reshape(mk_find_tensor(f, w), 1, 0));
            CASE_OF(k, NAME("%s: another row", title), MODEL,
                    reshape(mk_find_tensor(f, w), ne0, ne1 + 1 + !ne1));
            if (ne1 && ne0 != ne1) {
                CASE_OF(k, NAME("%s: turned", title), MODEL,
                        reshape(mk_find_tensor(f, w), ne1, ne0));
                CASE_OF(k, NAME("%s: flat", title), MODEL,
                        reshape(mk_find_tensor(f, w), ne0 * ne1, 0));
            }
            CASE_OF(k, NAME("%s: three dimensions", title), MODEL,
                    mk_tensor *t = mk_find_tensor(f, w);
                    t->ne[1] += !t->ne[1]; t->n_dims = 3; t->n_ne = 3; t->ne[2] = 2;
                    mk_fill(&t->data, 0, t->data.n));
            CASE_OF(k, NAME("%s: as F16", title),
                    ne1 && !strstr(w, "shortconv.conv") ? FINE : MODEL,
                    mk_tensor *t = mk_find_tensor(f, w);
                    t->type = MK_F16; reshape(t, ne0, ne1));
            for (int v = 0; v < 4; v++) {
                static const uint32_t bits[] = {0xFFFFFFFFu, 0x7F800000u, 0xFF7FFFFFu, 0};
                CASE_OF(
                    k, NAME("%s: all 0x%08x", title, (unsigned)bits[v]), FINE,
                    mk_tensor *t = mk_find_tensor(f, w);
                    size_t n = t->data.n; t->data.n = 0;
                    while (t->data.n < n) { mk_u32(&t->data, bits[v]); });
            }
        }
        mk_free(good);
    }
    for (size_t i = 0; i < COUNT(extra); i++) {
        CASE_OF(extra[i].kind, NAME("%s, %s too many", kinds[extra[i].kind].arch, extra[i].name),
                MODEL, uint64_t seed = 1;
                mk_remove_tensor(f, extra[i].name);
                mk_add_tensor(f, extra[i].name, MK_F32, extra[i].ne0, extra[i].ne1, 1, 0.1, &seed));
    }
    /* a layer has both norms or none */
    CASE_OF(FLASH, "without the norms of one layer", FINE,
            mk_remove_tensor(f, "blk.0.attn_q_norm.weight");
            mk_remove_tensor(f, "blk.0.attn_k_norm.weight"));
}

/* --- vocabularies ---------------------------------------------------------------------------- */

/* Replaces token i of the 300 by n bytes of text. */
static void set_token(mk_file *f, int i, const char *text, size_t n)
{
    mk_buf *b = &mk_find(f, "tokenizer.ggml.tokens")->value, out = {0};
    size_t at = 12;
    for (int k = 0; at < b->n; k++) {
        size_t len = b->p[at] + ((size_t)b->p[at + 1] << 8);
        if (k == i) {
            mk_bytes(&out, b->p, at);
            mk_u64(&out, n);
            mk_bytes(&out, text, n);
            mk_bytes(&out, b->p + at + 8 + len, b->n - (at + 8 + len));
            free(b->p);
            *b = out;
            return;
        }
        at += 8 + len;
    }
}

/* Sets a key to an array of n items, all v. */
static void set_all(mk_file *f, const char *key, uint32_t type, uint64_t n, uint32_t v)
{
    mk_buf *b = mk_set_array(f, key, type, n);
    for (uint64_t i = 0; i < n; i++) mk_u32(b, v);
}

static void vocabularies(void)
{
    static const char *const merges[] = {"th",    "",        " ",         "t ",        " h",
                                         "t h e", "zq xv",   "t nothing", "\xFF \xFE", "th th",
                                         "t  h",  "the the", "<s> t"};
    static const char *const byte_names[] = {"<0x-1>", "<0xZZ>", "<0x>", "<0x1>",  "<0x100>",
                                             "0x41",   "",       "<0x4", "<0x 1>", "<0x+1>"};
    static const char *const ids[] = {"bos", "eos", "unknown", "eot", "eom", "padding"};
    static const uint32_t bad_ids[] = {300, 301, 1u << 20, 0x7FFFFFFF, 1u << 31, 0xFFFFFFFFu};
    static const uint32_t floats[] = {0x7FC00000u, 0x7F800000u, 0xFF800000u, 0x7F7FFFFFu};
    char *large = (char *)mk_alloc(NULL, 1 << 20);
    memset(large, 'a', 1 << 20);

    CASE("no tokens", MODEL, mk_set_array(f, "tokenizer.ggml.tokens", MK_V_STRING, 0);
         mk_set_array(f, "tokenizer.ggml.scores", MK_V_F32, 0);
         mk_set_array(f, "tokenizer.ggml.token_type", MK_V_I32, 0));
    CASE("empty token", MAY, set_token(f, 280, "", 0));
    CASE("all tokens empty", MAY,
         mk_fill(mk_set_array(f, "tokenizer.ggml.tokens", MK_V_STRING, 300), 0, 300 * 8));
    CASE("token of 65535 bytes", MAY, set_token(f, 280, large, 65535));
    CASE("token of 65536 bytes", MODEL, set_token(f, 280, large, 65536));
    CASE("token of 1 MB", MODEL, set_token(f, 280, large, 1 << 20));
    CASE("two tokens of a text", MAY, set_token(f, 280, "he", 2));
    CASE("all tokens the same", MAY, for (int i = 3; i < 300; i++) { set_token(f, i, "a", 1); });
    CASE("token of invalid UTF-8", MAY, set_token(f, 280, "\xFF\x80\xE2\x96", 4));
    CASE("token of zeros", MAY, set_token(f, 280, "\0\0\0", 3));
    CASE_BPE("BPE token of invalid UTF-8", MAY, set_token(f, 280, "\xFF\x80\xE2\x96", 4));
    CASE_BPE("BPE token of no byte's character", MAY, set_token(f, 65, "\xE4\xB8\xAD", 3));
    for (size_t i = 0; i < COUNT(byte_names); i++) {
        CASE(NAME("byte token \"%s\"", byte_names[i]), MODEL,
             set_token(f, 100, byte_names[i], strlen(byte_names[i])));
        CASE(NAME("normal token \"%s\"", byte_names[i]), MAY,
             set_token(f, 280, byte_names[i], strlen(byte_names[i])));
    }
    CASE("a byte token twice", MAY, set_token(f, 100, "<0x41>", 6));
    CASE("all tokens bytes", REFUSED, set_all(f, "tokenizer.ggml.token_type", MK_V_I32, 300, 6));
    for (size_t i = 0; i < COUNT(merges); i++) {
        CASE_BPE(NAME("merge \"%s\"", merges[i]), MODEL,
                 mk_buf *b = &mk_find(f, "tokenizer.ggml.merges")->value;
                 mk_text(b, merges[i]); b->p[4]++);
    }
    CASE_BPE("merge of 1 MB", MODEL, mk_buf *b = &mk_find(f, "tokenizer.ggml.merges")->value;
             large[1 << 19] = ' '; mk_u64(b, 1 << 20); mk_bytes(b, large, 1 << 20); b->p[4]++);
    /* The index of such short merges is larger than their text: 4 MiB of other text keep the
       largest allocation below the size of the file. */
    CASE_BPE(
        "one merge 200000 times", MAY,
        mk_buf *b = mk_set_array(f, "tokenizer.ggml.merges", MK_V_STRING, 200000);
        for (int i = 0; i < 200000; i++) { mk_text(b, "t h"); } b = mk_set(f, "x", MK_V_STRING);
        mk_u64(b, 4 << 20); mk_fill(b, 'x', 4 << 20));
    CASE_BPE("no merges", MAY, mk_set_array(f, "tokenizer.ggml.merges", MK_V_STRING, 0));
    CASE("no scores", MAY, mk_remove(f, "tokenizer.ggml.scores"));
    CASE("no types", MAY, mk_remove(f, "tokenizer.ggml.token_type"));
    for (uint64_t n = 0; n < 600; n += 299 + (n > 0)) {
        if (n != 300) {
            CASE(NAME("%d scores", (int)n), MODEL,
                 set_all(f, "tokenizer.ggml.scores", MK_V_F32, n, 0));
            CASE(NAME("%d types", (int)n), MODEL,
                 set_all(f, "tokenizer.ggml.token_type", MK_V_I32, n, 1));
        }
    }
    CASE("301 types", MODEL, set_all(f, "tokenizer.ggml.token_type", MK_V_I32, 301, 1));
    CASE("299 tokens", MODEL, set_all(f, "tokenizer.ggml.scores", MK_V_F32, 299, 0);
         set_all(f, "tokenizer.ggml.token_type", MK_V_I32, 299, 1);
         mk_buf *b = &mk_find(f, "tokenizer.ggml.tokens")->value; b->p[4]--;
         b->n -= 8 + strlen("<extra_299>"));
    for (size_t i = 0; i < COUNT(floats); i++) {
        CASE(NAME("scores 0x%08x", (unsigned)floats[i]), MAY,
             set_all(f, "tokenizer.ggml.scores", MK_V_F32, 300, floats[i]));
    }
    for (uint64_t i = 0; i < 4; i++) {
        static const uint32_t kinds[] = {0, 7, 0x80000000u, 0xFFFFFFFFu};
        CASE(NAME("token types %u", (unsigned)kinds[i]), MAY,
             set_all(f, "tokenizer.ggml.token_type", MK_V_I32, 300, kinds[i]));
    }
    for (uint32_t type = 2; type <= 5; type++) {
        CASE(NAME("all tokens of type %u", (unsigned)type), MAY,
             set_all(f, "tokenizer.ggml.token_type", MK_V_I32, 300, type));
    }
    for (size_t i = 0; i < COUNT(ids); i++) {
        for (size_t k = 0; k < COUNT(bad_ids); k++) {
            char key[64];
            snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[i]);
            CASE(NAME("%s = %u", key, (unsigned)bad_ids[k]), i < 3 && k < 5 ? MODEL : MAY,
                 mk_set_u32(f, key, bad_ids[k]));
        }
    }
    /* the default ids (BOS 1, EOS 2; 11 for BPE) may lie outside so small a vocabulary */
    for (int bpe = 0; bpe < 2; bpe++) {
        for (int n = 1; n <= 12; n++) {
            mk_options o = {1, 16, 2, 1, 8, 24, 0, 64, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 3};
            mk_file *f;
            o.n_vocab = n;
            f = mk_llama(&o);
            mk_remove(f, "tokenizer.ggml.bos_token_id");
            mk_remove(f, "tokenizer.ggml.eos_token_id");
            mk_remove(f, "tokenizer.ggml.unknown_token_id");
            if (bpe) {
                mk_set_text(f, "tokenizer.ggml.model", "gpt2");
                mk_set_text(f, "tokenizer.ggml.pre", "gpt-2");
                mk_set_array(f, "tokenizer.ggml.merges", MK_V_STRING, 0);
            }
            attempt_file(NAME("%d %s tokens, default ids", n, bpe ? "BPE" : "SPM"), f, MAY);
        }
    }
    free(large);
}

/* --- every length, random damage ------------------------------------------------------------- */

static void lengths(void)
{
    for (int bpe = 0; bpe < 2; bpe++) {
        mk_options o = {1, 8, 1, 1, 8, 8, 0, 64, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 3};
        mk_file *f;
        size_t n;
        uint8_t *p;
        o.n_vocab = bpe ? 290 : 40;
        o.bpe = bpe;
        f = mk_llama(&o);
        p = mk_emit(f, &n);
        for (size_t k = 0; k < n; k += k < f->data_at + 64 ? 1 : 61)
            attempt(NAME("%s, first %zu bytes", bpe ? "BPE" : "SPM", k), p, k, CONTAINER);
        free(p);
        mk_free(f);
    }
}

static void damage(void)
{
    int rounds = getenv("FLASH_QUICK") ? 2000 : 20000;
    enum { FILES = 2 + KINDS };
    mk_file *f[FILES];
    uint8_t *good[FILES], *p;
    size_t n[FILES], longest = 0;
    for (int i = 0; i < FILES; i++) {
        f[i] = i == 0 ? tiny() : i == 1 ? tiny_bpe() : tiny_of(i - 2);
        good[i] = mk_emit(f[i], &n[i]);
        longest = n[i] > longest ? n[i] : longest;
    }
    p = (uint8_t *)mk_alloc(NULL, longest);
    for (int i = 0; i < rounds; i++) {
        int k = i % FILES, many = 1 + (int)(test_rnd() % 3 ? 0 : test_rnd() % 16);
        memcpy(p, good[k], n[k]);
        for (int j = 0; j < many; j++) {
            size_t at = test_rnd() % (test_rnd() % 8 ? f[k]->data_at : n[k]);
            uint32_t r = test_rnd(), bit = r >> 8 & 7;
            /* flips a bit, or sets the byte to a random or to an extreme value */
            static const uint8_t extremes[8] = {0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x40, 8};
            p[at] = r % 3 == 0 ? p[at] ^ (uint8_t)(1u << bit)
                : r % 3 == 1   ? (uint8_t)(r >> 16)
                               : extremes[bit];
        }
        attempt(NAME("damage %d", i), p, n[k], MAY);
    }
    for (int i = 0; i < FILES; i++) {
        free(good[i]);
        mk_free(f[i]);
    }
    free(p);
}

/* --- arguments ------------------------------------------------------------------------------- */

static void arguments(void)
{
    mk_file *f = tiny();
    size_t n, count;
    uint8_t *p = mk_emit(f, &n);
    flash_model_desc d = {0};
    flash_session_desc sd = {0}, bad;
    flash_session *s = NULL;
    flash_model *m = NULL;
    flash_piece piece;
    int32_t ids[20] = {0};
    char *text;

    SECTION("arguments");
    d.source.data = p;
    d.source.bytes = n;
    CHECK_EQ(flash_model_load(&m, &d, NULL), FLASH_OK);
    sd.n_ctx = 16;
    for (int i = 0; i < 9; i++) {
        bad = sd;
        switch (i) {
        case 0: bad.n_ctx = -1; break;
        case 1: bad.n_ctx = FLASH_CONTEXT_MAX + 1; break;
        case 2: bad.n_ctx = 0x7FFFFFFF; break;
        case 3: bad.chunk = -1; break;
        case 4: bad.threads = -1; break;
        case 5: bad.kv = FLASH_TYPE_Q4_K; break;
        case 6: bad.sampler.n_bias = -1; break;
        case 7: bad.sampler.n_stop = -1; break;
        case 8: bad.kv = FLASH_TYPE_NONE; break;
        }
        s = (flash_session *)1;
        if (!CHECK_EQ(flash_session_create(&s, m, &bad), FLASH_E_ARGUMENT))
            printf("    bad description %d\n", i);
        CHECK(s == NULL);
        CHECK_EQ(flash_session_memory(m, &bad), 0);
    }
    bad = sd;
    bad.chunk = 0x7FFFFFFF;
    CHECK(flash_session_create(&s, m, &bad) <= 0);
    flash_session_free(s);

    CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_OK);
    ids[0] = -1;
    CHECK_EQ(flash_session_feed(s, ids, 1), FLASH_E_ARGUMENT);
    ids[0] = 300;
    CHECK_EQ(flash_session_feed(s, ids, 1), FLASH_E_ARGUMENT);
    ids[0] = 1;
    CHECK_EQ(flash_session_feed(s, ids, 17), FLASH_E_RANGE);
    CHECK_EQ(flash_session_feed(s, ids, (size_t)1 << 31), FLASH_E_RANGE);
    CHECK_EQ(flash_session_feed(s, ids, (size_t)-1), FLASH_E_RANGE);
    ids[2] = 300; /* one bad token: none is taken */
    CHECK_EQ(flash_session_feed(s, ids, 3), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_pending(s), 0);
    CHECK_EQ(flash_session_feed(s, ids, 0), FLASH_OK);
    CHECK(flash_session_logits(s) == NULL);
    CHECK_EQ(flash_session_sample(s), -1);
    CHECK_EQ(flash_session_truncate(s, -1), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_truncate(s, 1), FLASH_E_ARGUMENT);
    /* a prompt far longer than the context; 1 MiB, as 2^31 bytes would take minutes */
    text = (char *)mk_alloc(NULL, (1 << 20) + 1);
    memset(text, 'x', 1 << 20);
    text[1 << 20] = 0;
    CHECK_EQ(flash_session_feed_text(s, text, 0), FLASH_E_RANGE);
    CHECK_EQ(flash_session_pending(s), 0);
    CHECK_EQ(flash_tokenize(m, text, 1 << 20, 0, NULL, 0, &count), FLASH_E_RANGE);
    CHECK(count > 16);
    free(text);
    flash_session_free(s);

    sd.n_ctx = 1; /* room for BOS alone */
    CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_OK);
    CHECK_EQ(flash_session_feed(s, ids, 1), FLASH_OK);
    CHECK_EQ(flash_session_feed(s, ids, 1), FLASH_E_RANGE);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    CHECK_EQ(flash_session_position(s), 1);
    CHECK(flash_session_logits(s) != NULL);
    CHECK(flash_session_next(s, NULL, &piece) != FLASH_MORE);
    CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_E_RANGE);
    flash_session_free(s);

    count = 7;
    ids[0] = 300;
    CHECK_EQ(flash_detokenize(m, ids, 1, 0, NULL, 0, &count), FLASH_E_ARGUMENT);
    ids[0] = -1;
    CHECK_EQ(flash_detokenize(m, ids, 1, 0, NULL, 0, &count), FLASH_E_ARGUMENT);
    CHECK_EQ(count, 7);
    CHECK(!flash_token_text(m, 300, &count) && !flash_token_text(m, -1, &count));
    CHECK_EQ(flash_token_is_end(m, -1), 0);
    CHECK_EQ(flash_token_is_end(m, 0x7FFFFFFF), 0);
    CHECK_EQ(flash_token_is_control(m, -1), 0);
    CHECK_EQ(flash_token_is_control(m, 300), 0);
    flash_model_free(m);

    /* the file, and so its weights, may begin at any byte */
    {
        uint8_t *odd = (uint8_t *)mk_alloc(NULL, n + 1);
        memcpy(odd + 1, p, n);
        d.source.data = odd + 1;
        CHECK_EQ(flash_model_load(&m, &d, NULL), FLASH_OK);
        use(m);
        flash_model_free(m);
        free(odd);
    }
    free(p);
    mk_free(f);
}

int main(void)
{
    CASE("good file", FINE, (void)f);
    CASE_BPE("good BPE file", FINE, (void)f);
    header();
    keys();
    wrong_types();
    tensors();
    scales();
    hyperparameters();
    for (int k = 0; k < KINDS; k++) CASE_OF(k, kinds[k].arch, FINE, (void)f);
    layer_keys();
    layer_tensors();
    large_heads();
    many_heads();
    vocabularies();
    lengths();
    damage();
    arguments();
    return test_done();
}
