/* Tests the details of the interface: names, texts, defaults, and what NULL and invalid arguments
   give. */
#include "../flash.h"
#include "mkmodel.h"
#include "test.h"

static flash_status load(flash_model **m, const void *data, size_t bytes, flash_error *err)
{
    flash_model_desc d = {0};
    d.source.data = data;
    d.source.bytes = bytes;
    return flash_model_load(m, &d, err);
}

static void test_names(void)
{
    SECTION("statuses");
#define X(name, value, text) \
    CHECK_EQ(name, value); \
    CHECK_STR(flash_status_text(name), text);
    FLASH_STATUS_LIST(X)
#undef X
    static const int unknown[] = {3, 4, -11, -1000, 1 << 30, FLASH_STATUS_FORCE_32BIT};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        const char *text = flash_status_text((flash_status)unknown[i]);
        CHECK(text && *text);
        CHECK(text && strcmp(text, flash_status_text(FLASH_OK)) != 0);
    }

    SECTION("version");
    CHECK_EQ(flash_version(), FLASH_VERSION);
    CHECK_EQ(FLASH_VERSION,
             FLASH_VERSION_MAJOR * 10000 + FLASH_VERSION_MINOR * 100 + FLASH_VERSION_PATCH);
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", FLASH_VERSION_MAJOR, FLASH_VERSION_MINOR,
             FLASH_VERSION_PATCH);
    CHECK(strstr(flash_build_info(), version) && !strchr(flash_build_info(), '\n'));

    SECTION("types");
#define X(name, id, items, bytes) \
    CHECK_EQ(FLASH_TYPE_##name, id); \
    CHECK_STR(flash_type_name(FLASH_TYPE_##name), #name); \
    CHECK_EQ(flash_type_parse(#name), id); \
    CHECK_EQ(flash_type_block(FLASH_TYPE_##name), items); \
    CHECK_EQ(flash_row_bytes(FLASH_TYPE_##name, 3 * (items)), 3 * (bytes));
    FLASH_TYPE_LIST(X)
#undef X
    CHECK_EQ(flash_type_parse("q4_k"), FLASH_TYPE_Q4_K);
    CHECK_EQ(flash_type_parse("iQ4_Nl"), FLASH_TYPE_IQ4_NL);
    CHECK_EQ(flash_type_parse("Q4_"), FLASH_TYPE_NONE);
    CHECK_EQ(flash_type_parse("Q4_00"), FLASH_TYPE_NONE);
    CHECK_EQ(flash_type_parse(""), FLASH_TYPE_NONE);
    CHECK_EQ(flash_type_parse("unknown"), FLASH_TYPE_NONE);
    CHECK_STR(flash_type_name(FLASH_TYPE_NONE), "unknown");
    CHECK_STR(flash_type_name((flash_type)4), "unknown");
    CHECK_STR(flash_type_name((flash_type)-1), "unknown");

    SECTION("instruction sets");
    CHECK_STR(flash_isa_name(FLASH_ISA_SCALAR), "scalar");
    for (int i = FLASH_ISA_SCALAR; i < FLASH_ISA_COUNT; i++)
        CHECK_EQ(flash_isa_parse(flash_isa_name((flash_isa)i)), i);
    CHECK_STR(flash_isa_name(FLASH_ISA_COUNT), "unknown");
    CHECK_STR(flash_isa_name((flash_isa)-1), "unknown");
    CHECK_EQ(flash_isa_parse("abacus"), FLASH_ISA_COUNT);
    CHECK_EQ(flash_isa_parse(""), FLASH_ISA_COUNT);
    CHECK(flash_isa_best() >= FLASH_ISA_SCALAR && flash_isa_best() < FLASH_ISA_COUNT);
}

static int n_logs, last_level;

static void count_log(void *user, int level, const char *text)
{
    (void)user;
    n_logs++;
    last_level = level;
    CHECK(text && !strchr(text, '\n'));
}

static void *never(void *user, size_t bytes, size_t align)
{
    (void)user;
    (void)bytes;
    (void)align;
    return NULL;
}

static int fail_read(void *user, uint64_t at, void *dst, size_t n)
{
    (void)user;
    (void)at;
    (void)dst;
    (void)n;
    return 1;
}

/* Checks that an argument was refused with one line of text, and clears err. */
static void argument(flash_status st, flash_error *err)
{
    CHECK_EQ(st, FLASH_E_ARGUMENT);
    CHECK(err->status == FLASH_E_ARGUMENT && err->text[0] && !strchr(err->text, '\n'));
    memset(err, 0, sizeof *err);
}

static void test_null(void)
{
    static flash_arch a;
    flash_gguf *g;
    flash_model *m;
    flash_model_desc d = {0};
    flash_error err = {FLASH_OK, 0, ""};
    SECTION("NULL");
    argument(flash_attention_parse(NULL, "full", &err), &err);
    argument(flash_attention_parse(&a, NULL, &err), &err);
    argument(flash_gguf_open(NULL, &d.source, NULL, &err), &err);
    argument(flash_gguf_open(&g, NULL, NULL, &err), &err);
    argument(flash_model_load(NULL, &d, &err), &err);
    argument(flash_model_load(&m, NULL, &err), &err);
    CHECK_EQ(flash_model_memory(NULL, &err), 0);
    argument(err.status, &err);
    CHECK_EQ(flash_attention_parse(NULL, NULL, NULL), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_gguf_open(NULL, NULL, NULL, NULL), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_model_load(NULL, NULL, NULL), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_model_memory(NULL, NULL), 0);
}

static void test_load(const uint8_t *file, size_t bytes)
{
    flash_model *m = (flash_model *)(void *)&n_logs;
    flash_error err = {FLASH_OK, 0, ""};
    flash_model_desc d = {0};
    SECTION("sources");
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_E_ARGUMENT); /* no source */
    CHECK(m == NULL);
    CHECK_EQ(err.status, FLASH_E_ARGUMENT);
    CHECK(err.text[0] && memchr(err.text, 0, sizeof err.text));
    CHECK_EQ(flash_model_load(&m, &d, NULL), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_model_memory(&d, &err), 0);
    d.source.path = "does/not/matter.gguf";
    d.source.data = file;
    d.source.bytes = bytes;
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_E_ARGUMENT); /* two sources */
    d.source.data = NULL;
    d.source.bytes = 0;
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_E_IO);
    CHECK(m == NULL && err.status == FLASH_E_IO && strstr(err.text, "matter.gguf") != NULL);
    CHECK_EQ(flash_model_memory(&d, NULL), 0);
    memset(&d, 0, sizeof d);
    d.source.read = fail_read;
    d.source.size = bytes;
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_E_IO);
    CHECK(m == NULL);

    SECTION("hosts");
    memset(&d, 0, sizeof d);
    d.source.data = file;
    d.source.bytes = bytes;
    d.host.allocator.acquire = never;
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_E_ARGUMENT); /* half an allocator */
    memset(&d.host, 0, sizeof d.host);
    d.isa = (flash_isa)(FLASH_ISA_COUNT + 5);
    CHECK(flash_model_load(&m, &d, &err) < 0 && m == NULL);
    d.isa = FLASH_ISA_SCALAR;
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK);
    CHECK_EQ(flash_model_isa(m), FLASH_ISA_SCALAR);
    flash_model_free(m);
    d.isa = FLASH_ISA_AUTO;
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK);
    CHECK_EQ(flash_model_isa(m), flash_isa_best());
    flash_model_free(m);

    SECTION("vocab_only");
    d.vocab_only = 1;
    flash_session_desc sd = {0};
    flash_session *s = (flash_session *)(void *)&n_logs;
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK);
    CHECK_EQ(flash_session_memory(m, &sd), 0);
    CHECK(flash_session_create(&s, m, &sd) < 0 && s == NULL);
    CHECK(flash_token_find(m, "<s>") == 1);
    flash_model_free(m);

    SECTION("free");
    flash_model_free(NULL);
    flash_session_free(NULL);
    flash_gguf_free(NULL);
    CHECK(1);
}

static void test_pretokenizers(void)
{
    mk_options o = {0};
    o.bpe = 1;
    o.pre = "made-up-pre";
    mk_file *f = mk_llama(&o);
    flash_model_desc d = {0};
    flash_model *m = NULL;
    flash_error err = {FLASH_OK, 0, ""};
    SECTION("unknown pre-tokenizer");
    d.source.data = mk_emit(f, &d.source.bytes);
    d.host.log = count_log;
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_E_UNSUPPORTED);
    CHECK(m == NULL && strstr(err.text, "made-up-pre") != NULL);
    d.any_pretokenizer = 1;
    n_logs = 0;
    CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK);
    CHECK(n_logs > 0 && last_level == 1);
    flash_model_free(m);
    free((void *)d.source.data);
    mk_free(f);
}

static void test_arch(const flash_model *m)
{
    const flash_arch *a = flash_model_arch(m);
    SECTION("arch");
    CHECK_STR(a->name, "llama");
    CHECK_EQ(a->n_layer, 2);
    CHECK_EQ(a->d_model, 32);
    CHECK_EQ(a->d_head, 8);
    CHECK_EQ(a->n_vocab, 320);
    CHECK_EQ(a->n_ctx, 256);
    CHECK_EQ(a->tied, 1);
    CHECK_EQ(a->layer[1].n_head, 4);
    CHECK_EQ(a->layer[1].n_kv_head, 2);
    CHECK_EQ(a->layer[1].d_ffn, 64);
    CHECK_EQ(a->layer[1].attention, FLASH_ATTENTION_FULL);
    CHECK_EQ(a->layer[1].window, 0);
    CHECK_EQ(a->rope_dims, 8);
    CHECK_EQ(a->rope_style, FLASH_ROPE_PAIRS);
    CHECK_EQ(a->rope_scaling, FLASH_ROPE_PLAIN);
    CHECK(a->rope_base == 10000 && fabs(a->norm_eps - 1e-5) < 1e-11 && a->rope_factor == 1);
    CHECK(fabs(a->attention_scale - 1 / sqrt(8)) < 1e-6);
    /* The embedding, q and o, k and v, gate and up and down, two norms a layer, the last norm. */
    CHECK_EQ(flash_arch_params(a),
             320 * 32 + 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 64) + 32);
    CHECK_EQ(flash_arch_kv_bytes(a, 100, 0, FLASH_TYPE_F32), 2 * 2 * 128 * 16 * 4);
    CHECK_EQ(flash_arch_kv_bytes(a, 100, 0, FLASH_TYPE_F16), 2 * 2 * 128 * 16 * 2);
    CHECK_EQ(flash_arch_kv_bytes(a, -1, 0, FLASH_TYPE_F16), 0);
    CHECK_EQ(flash_arch_kv_bytes(a, FLASH_CONTEXT_MAX + 1, 0, FLASH_TYPE_F16), 0);
    CHECK_EQ(flash_arch_kv_bytes(a, 100, 0, FLASH_TYPE_Q4_0), 0);

    SECTION("gguf");
    flash_value v;
    flash_tensor t;
    CHECK_EQ(flash_gguf_find(flash_model_gguf(m), "llama.block_count", &v), FLASH_OK);
    CHECK_EQ(flash_value_integer(&v, 0), 2);
    CHECK_EQ(flash_gguf_find_tensor(flash_model_gguf(m), "output_norm.weight", &t), FLASH_OK);
    CHECK_EQ(t.ne[0], 32);

    SECTION("tokens");
    size_t bytes;
    CHECK_EQ(flash_token_bos(m), 1);
    CHECK_EQ(flash_token_eos(m), 2);
    CHECK(flash_token_is_end(m, 2) && !flash_token_is_end(m, 1) && !flash_token_is_end(m, 50));
    CHECK(flash_token_is_control(m, 1) && flash_token_is_control(m, 2));
    CHECK(!flash_token_is_control(m, 50));
    CHECK(memcmp(flash_token_text(m, 2, &bytes), "</s>", 4) == 0 && bytes == 4);
    CHECK(flash_token_text(m, 320, &bytes) == NULL && flash_token_text(m, -1, &bytes) == NULL);
    CHECK_EQ(flash_token_find(m, "</s>"), 2);
    CHECK_EQ(flash_token_find(m, "</S>"), -1);
    CHECK(flash_token_bytes_max(m) >= 4);
}

static void test_session(const flash_model *m)
{
    flash_session_desc d = {0};
    flash_session *s = NULL;
    int first = 77, n = 77;
    SECTION("session defaults");
    CHECK(flash_session_memory(m, &d) > 0);
    if (!CHECK_EQ(flash_session_create(&s, m, &d), FLASH_OK)) return;
    CHECK_EQ(flash_session_capacity(s), 256);
    CHECK_EQ(flash_session_position(s), 0);
    CHECK_EQ(flash_session_pending(s), 0);
    CHECK(flash_session_logits(s) == NULL);
    CHECK(flash_session_chunk_logits(s, &first, &n) == NULL);
    CHECK_EQ(flash_session_sample(s), -1);
    CHECK_EQ(flash_session_truncate(s, 0), FLASH_OK);
    CHECK_EQ(flash_session_truncate(s, 1), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_truncate(s, -1), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_session_feed(s, NULL, 0), FLASH_OK);
    flash_session_free(s);

    /* 100 tokens in chunks of 64. */
    int32_t ids[100];
    for (int i = 0; i < 100; i++) ids[i] = i + 3;
    d.chunk = 64;
    d.all_logits = 1;
    CHECK_EQ(flash_session_create(&s, m, &d), FLASH_OK);
    CHECK_EQ(flash_session_feed(s, ids, 100), FLASH_OK);
    CHECK_EQ(flash_session_pending(s), 100);
    CHECK(memcmp(flash_session_tokens(s), ids, sizeof ids) == 0);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_MORE);
    CHECK(flash_session_chunk_logits(s, &first, &n) != NULL);
    CHECK_EQ(first, 0);
    CHECK_EQ(n, 64);
    CHECK_EQ(flash_session_position(s), 64);
    CHECK_EQ(flash_session_step(s, NULL), FLASH_OK);
    CHECK(flash_session_chunk_logits(s, &first, &n) != NULL);
    CHECK_EQ(first, 64);
    CHECK_EQ(n, 36);
    flash_session_free(s);

    SECTION("session limits");
    const struct {
        int n_ctx, chunk, threads, kv, ok;
    } limit[] = {
        {1, 0, 0, 0, 1},
        {-1, 0, 0, 0, 0},
        {FLASH_CONTEXT_MAX + 1, 0, 0, 0, 0},
        {16, -1, 0, 0, 0},
        {16, 1, 0, 0, 1},
        {16, 512, 0, 0, 1},
        {16, 0, -1, 0, 0},
        {16, 0, 4, 0, 1},
        {16, 0, 0, FLASH_TYPE_F16, 1},
        {16, 0, 0, FLASH_TYPE_Q8_0, 1},
        {16, 0, 0, 12345, 0},
    };
    for (size_t i = 0; i < sizeof limit / sizeof *limit; i++) {
        memset(&d, 0, sizeof d);
        d.n_ctx = limit[i].n_ctx;
        d.chunk = limit[i].chunk;
        d.threads = limit[i].threads;
        d.kv = (flash_type)limit[i].kv;
        s = (flash_session *)(void *)&d;
        CHECK_EQ(flash_session_memory(m, &d) > 0, limit[i].ok);
        CHECK_EQ(flash_session_create(&s, m, &d), limit[i].ok ? FLASH_OK : FLASH_E_ARGUMENT);
        CHECK_EQ(s != NULL, limit[i].ok);
        flash_session_free(s);
    }
}

int main(void)
{
    mk_options o = {0};
    mk_file *f = mk_llama(&o);
    size_t bytes;
    uint8_t *file = mk_emit(f, &bytes);
    flash_model *m = NULL;
    flash_error err = {FLASH_OK, 0, ""};
    test_names();
    test_null();
    test_load(file, bytes);
    test_pretokenizers();
    SECTION("load");
    if (CHECK_EQ(load(&m, file, bytes, &err), FLASH_OK)) {
        test_arch(m);
        test_session(m);
    } else {
        printf("    %s\n", err.text);
    }
    flash_model_free(m);
    free(file);
    mk_free(f);
    return test_done();
}
