/* Tests GGUF files: values, tensors, sources, the writer, and files of other programs. */
#include "test.h"
#include "mkmodel.h"
#include "../flash.h"

static int same(const char *p, size_t n, const char *text)
{
    return p && n == strlen(text) && !memcmp(p, text, n);
}

static flash_source from_data(const void *p, size_t n)
{
    flash_source s = {0};
    s.data = p;
    s.bytes = n;
    return s;
}

static flash_gguf *open_bytes(const void *p, size_t n)
{
    flash_source s = from_data(p, n);
    flash_gguf *g = NULL;
    flash_error err;
    if (!CHECK_EQ(flash_gguf_open(&g, &s, NULL, &err), FLASH_OK)) printf("    %s\n", err.text);
    return g;
}

/* --- values ---------------------------------------------------------------------------------- */

static void put_number(mk_buf *b, uint32_t type, int v)
{
    static const int size[] = {1, 1, 2, 2, 4, 4, 0, 1, 0, 0, 8, 8, 0};
    if (type == MK_V_F32)
        mk_f32(b, (float)v);
    else if (type == MK_V_F64)
        mk_f64(b, v);
    else
        mk_int(b, (uint64_t)(int64_t)v, size[type]);
}

static void values(uint32_t version)
{
    static const uint32_t numbers[] = {MK_V_U8,  MK_V_I8,  MK_V_U16, MK_V_I16, MK_V_U32,
                                       MK_V_I32, MK_V_F32, MK_V_U64, MK_V_I64, MK_V_F64};
    mk_file *f = mk_new();
    mk_buf *b;
    flash_value v, before;
    char name[32];
    size_t n, at = 0, bytes, i = 0;
    uint8_t *p;
    flash_gguf *g;

    SECTION(version == 2 ? "values, version 2" : "values, version 3");
    f->version = version;
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
        uint32_t t = numbers[k];
        int negative = t == MK_V_I8 || t == MK_V_I16 || t == MK_V_I32 || t == MK_V_F32
            || t == MK_V_I64 || t == MK_V_F64;
        snprintf(name, sizeof name, "one.%u", (unsigned)t);
        put_number(mk_add(f, name, t), t, negative ? -77 : 77);
        snprintf(name, sizeof name, "three.%u", (unsigned)t);
        b = mk_set_array(f, name, t, 3);
        for (int j = 0; j < 3; j++) put_number(b, t, 40 + j);
    }
    mk_set_bool(f, "yes", 1);
    mk_set_bool(f, "no", 0);
    mk_int(mk_set_array(f, "bools", MK_V_BOOL, 3), 0x010001, 3);
    mk_set_text(f, "text", "caf\xC3\xA9");
    mk_set_text(f, "no text", "");
    mk_set_array(f, "nothing", MK_V_U32, 0);
    b = mk_set_array(f, "texts", MK_V_STRING, 3);
    mk_text(b, "one");
    mk_text(b, "");
    mk_text(b, "three");
    mk_set_f32(f, "float", 1.75f);
    mk_u64(mk_set(f, "big", MK_V_U64), (uint64_t)1 << 62);
    mk_u32(mk_set(f, "u32", MK_V_U32), 0xFFFFFFFFu);

    p = mk_emit(f, &n);
    g = open_bytes(p, n);
    CHECK_EQ(flash_gguf_version(g), version);
    CHECK_EQ(flash_gguf_size(g), n);
    CHECK_EQ(flash_gguf_keys(g), f->keys);
    CHECK_EQ(flash_gguf_tensors(g), 0);

    for (size_t k = 0; k < f->keys; k++) {
        CHECK_EQ(flash_gguf_key(g, k, &v), FLASH_OK);
        CHECK(v.key_bytes == f->key[k].name.n && !memcmp(v.key, f->key[k].name.p, v.key_bytes));
        CHECK_EQ(v.type, f->key[k].type);
    }
    CHECK_EQ(flash_gguf_key(g, f->keys, &v), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_gguf_key(g, (size_t)-1, &v), FLASH_E_ARGUMENT);

    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
        snprintf(name, sizeof name, "one.%u", (unsigned)numbers[k]);
        CHECK_EQ(flash_gguf_find(g, name, &v), FLASH_OK);
        CHECK(v.type == (flash_value_type)numbers[k] && v.item == v.type && v.count == 1);
        CHECK_EQ(flash_value_integer(&v, 0) * flash_value_integer(&v, 0), 77 * 77);
        CHECK(flash_value_number(&v, 0) == (double)flash_value_integer(&v, 0));
        CHECK_EQ(flash_value_integer(&v, 1), 0);
        snprintf(name, sizeof name, "three.%u", (unsigned)numbers[k]);
        CHECK_EQ(flash_gguf_find(g, name, &v), FLASH_OK);
        CHECK(v.type == FLASH_VALUE_ARRAY && v.item == (flash_value_type)numbers[k]);
        CHECK_EQ(v.count, 3);
        CHECK_EQ(flash_value_integer(&v, 0), 40);
        CHECK_EQ(flash_value_integer(&v, 2), 42);
        CHECK(flash_value_number(&v, 1) == 41.0);
        CHECK(flash_value_number(&v, 3) == 0.0);
        CHECK_EQ(flash_value_integer(&v, (uint64_t)-1), 0);
    }
    CHECK_EQ(flash_gguf_find(g, "yes", &v), FLASH_OK);
    CHECK(v.type == FLASH_VALUE_BOOL && flash_value_integer(&v, 0) == 1);
    CHECK_EQ(flash_gguf_find(g, "no", &v), FLASH_OK);
    CHECK_EQ(flash_value_integer(&v, 0), 0);
    CHECK_EQ(flash_gguf_find(g, "bools", &v), FLASH_OK);
    CHECK(v.item == FLASH_VALUE_BOOL && v.count == 3 && v.bytes == 3);
    CHECK(flash_value_integer(&v, 1) == 0 && flash_value_integer(&v, 2) == 1);
    CHECK_EQ(flash_gguf_find(g, "text", &v), FLASH_OK);
    CHECK(v.type == FLASH_VALUE_STRING && same((const char *)v.data, v.bytes, "caf\xC3\xA9"));
    CHECK(flash_value_number(&v, 0) == 0.0);
    CHECK_EQ(flash_gguf_find(g, "no text", &v), FLASH_OK);
    CHECK_EQ(v.bytes, 0);
    CHECK_EQ(flash_gguf_find(g, "nothing", &v), FLASH_OK);
    CHECK(v.type == FLASH_VALUE_ARRAY && v.count == 0 && v.item == FLASH_VALUE_U32);
    CHECK_EQ(flash_gguf_find(g, "float", &v), FLASH_OK);
    CHECK(flash_value_number(&v, 0) == 1.75 && flash_value_integer(&v, 0) == 1);
    CHECK_EQ(flash_gguf_find(g, "big", &v), FLASH_OK);
    CHECK_EQ(flash_value_integer(&v, 0), (int64_t)1 << 62);
    CHECK_EQ(flash_gguf_find(g, "u32", &v), FLASH_OK);
    CHECK_EQ(flash_value_integer(&v, 0), 0xFFFFFFFFu);

    CHECK_EQ(flash_gguf_find(g, "texts", &v), FLASH_OK);
    CHECK(v.item == FLASH_VALUE_STRING && v.count == 3);
    for (const char *s; (s = flash_value_string(&v, &at, &bytes)) != NULL && i < 9; i++)
        CHECK(same(s, bytes, i == 0 ? "one" : i == 1 ? "" : "three"));
    CHECK_EQ(i, 3);

    memset(&before, 0x5A, sizeof before);
    memcpy(&v, &before, sizeof v);
    CHECK_EQ(flash_gguf_find(g, "tex", &v), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_gguf_find(g, "textss", &v), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_gguf_find(g, "", &v), FLASH_E_ARGUMENT);
    CHECK(!memcmp(&v, &before, sizeof v));
    flash_gguf_free(g);
    flash_gguf_free(NULL);
    free(p);
    mk_free(f);
}

/* --- tensors --------------------------------------------------------------------------------- */

static void tensors(uint32_t align)
{
    mk_file *f = mk_new();
    uint64_t seed = 5;
    size_t n;
    uint8_t *p;
    flash_gguf *g;
    flash_tensor t;
    mk_tensor *w;

    SECTION("tensors");
    memset(&t, 0, sizeof t);
    if (align != 32) {
        f->align = align;
        mk_set_u32(f, "general.alignment", align);
    }
    w = mk_add_tensor(f, "four", MK_F32, 3, 5 * 7 * 2, 0, 1, &seed);
    w->n_dims = 4;
    w->n_ne = 4;
    w->ne[1] = 5;
    w->ne[2] = 7;
    w->ne[3] = 2;
    mk_add_tensor(f, "one", MK_F16, 5, 0, 0, 1, &seed);
    mk_add_tensor(f, "q", MK_Q6_K, 512, 3, 0, 1, &seed);
    w = mk_add_tensor(f, "unknown", MK_F32, 8, 0, 0, 1, &seed);
    w->type = 28; /* F64: a type of GGUF that the library does not have */
    mk_fill(&w->data, 0, 32);
    p = mk_emit(f, &n);
    g = open_bytes(p, n);
    CHECK_EQ(flash_gguf_tensors(g), 4);
    for (size_t i = 0; i < 3; i++) {
        w = &f->tensor[i];
        CHECK_EQ(flash_gguf_tensor(g, i, &t), FLASH_OK);
        CHECK(same(t.name, t.name_bytes, w->name));
        CHECK(t.type_id == w->type && t.type == (flash_type)w->type);
        CHECK(t.n_dims == (int)w->n_dims && t.ne[0] == w->ne[0]);
        for (int d = 1; d < 4; d++) CHECK_EQ(t.ne[d], d < w->n_ne ? w->ne[d] : 1);
        CHECK_EQ(t.bytes, w->data.n);
        CHECK(t.data == p + f->data_at + w->offset);
        CHECK(!memcmp(t.data, w->data.p, w->data.n));
    }
    CHECK_EQ(flash_gguf_find_tensor(g, "unknown", &t), FLASH_OK);
    CHECK(t.type == FLASH_TYPE_NONE && t.type_id == 28);
    CHECK_EQ(flash_gguf_find_tensor(g, "q", &t), FLASH_OK);
    CHECK_EQ(t.bytes, 6 * 210);
    CHECK_EQ(flash_gguf_find_tensor(g, "on", &t), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_gguf_tensor(g, 4, &t), FLASH_E_ARGUMENT);
    flash_gguf_free(g);
    free(p);
    mk_free(f);
}

/* --- sources --------------------------------------------------------------------------------- */

typedef struct reader {
    const uint8_t *p;
    size_t n, fail_at;
} reader;

static int read_from(void *user, uint64_t at, void *dst, size_t n)
{
    reader *r = (reader *)user;
    if (at > r->n || n > r->n - at || at + n > r->fail_at) return 1;
    memcpy(dst, r->p + at, n);
    return 0;
}

static void sources(void)
{
    static const char *const path = "tests/data/f32.gguf";
    flash_source s[3] = {{0}, {0}, {0}}, odd = {0};
    flash_gguf *g[3] = {0}, *none = NULL;
    flash_error err;
    reader r;
    size_t n;
    uint8_t *p = test_read(path, &n);

    SECTION("sources");
    if (!p) {
        SKIP("sources", path);
        return;
    }
    r.p = p;
    r.n = r.fail_at = n;
    s[0] = from_data(p, n);
    s[1].path = path;
    s[2].read = read_from;
    s[2].size = n;
    s[2].user = &r;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(flash_gguf_open(&g[i], &s[i], NULL, &err), FLASH_OK);
        CHECK_EQ(flash_gguf_size(g[i]), n);
        CHECK_EQ(flash_gguf_keys(g[i]), flash_gguf_keys(g[0]));
        CHECK_EQ(flash_gguf_tensors(g[i]), flash_gguf_tensors(g[0]));
        for (size_t k = 0; k < flash_gguf_keys(g[0]); k++) {
            flash_value a, b;
            flash_gguf_key(g[0], k, &a);
            flash_gguf_key(g[i], k, &b);
            CHECK(a.type == b.type && a.item == b.item && a.count == b.count);
            CHECK(a.key_bytes == b.key_bytes && !memcmp(a.key, b.key, a.key_bytes));
            CHECK(a.bytes == b.bytes && !memcmp(a.data, b.data, a.bytes));
        }
        for (size_t k = 0; k < flash_gguf_tensors(g[0]); k++) {
            flash_tensor a, b;
            flash_gguf_tensor(g[0], k, &a);
            flash_gguf_tensor(g[i], k, &b);
            CHECK(a.type == b.type && a.n_dims == b.n_dims && !memcmp(a.ne, b.ne, sizeof a.ne));
            CHECK(a.name_bytes == b.name_bytes && !memcmp(a.name, b.name, a.name_bytes));
            CHECK(a.bytes == b.bytes && !memcmp(a.data, b.data, (size_t)a.bytes));
        }
    }
    for (int i = 0; i < 3; i++) flash_gguf_free(g[i]);

    s[1].path = "tests/data/no such file.gguf";
    CHECK_EQ(flash_gguf_open(&none, &s[1], NULL, &err), FLASH_E_IO);
    CHECK(!none && err.status == FLASH_E_IO && err.text[0]);
    s[1].path = "tests/data"; /* a folder */
    CHECK(flash_gguf_open(&none, &s[1], NULL, &err) < 0 && !none);
    for (r.fail_at = 0; r.fail_at < n; r.fail_at += r.fail_at / 2 + 1)
        CHECK_EQ(flash_gguf_open(&none, &s[2], NULL, &err), FLASH_E_IO);
    r.fail_at = n;
    s[2].size = n + 1; /* the file is shorter than announced */
    CHECK_EQ(flash_gguf_open(&none, &s[2], NULL, &err), FLASH_E_IO);
    CHECK_EQ(flash_gguf_open(&none, &odd, NULL, &err), FLASH_E_ARGUMENT);
    odd = s[0];
    odd.path = path;
    CHECK_EQ(flash_gguf_open(&none, &odd, NULL, &err), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_gguf_open(&none, &odd, NULL, NULL), FLASH_E_ARGUMENT);
    odd = from_data(p, 0);
    CHECK(flash_gguf_open(&none, &odd, NULL, &err) < 0 && !none && err.text[0]);
    free(p);
}

/* --- the writer ------------------------------------------------------------------------------ */

static int write_buf(void *user, const void *p, size_t n)
{
    mk_bytes((mk_buf *)user, p, n);
    return 0;
}

static int write_some(void *user, const void *p, size_t n)
{
    size_t *left = (size_t *)user;
    (void)p;
    if (n > *left) return 1;
    *left -= n;
    return 0;
}

/* Writes all keys and tensors of g; data in pieces of 1001 bytes. */
static flash_status copy(flash_gguf_writer *w, const flash_gguf *g)
{
    flash_value v;
    flash_tensor t;
    flash_gguf_write_begin(w, (uint32_t)flash_gguf_keys(g), (uint32_t)flash_gguf_tensors(g));
    for (size_t i = 0; flash_gguf_key(g, i, &v) == FLASH_OK; i++) flash_gguf_write_value(w, &v);
    for (size_t i = 0; flash_gguf_tensor(g, i, &t) == FLASH_OK; i++) {
        char name[80];
        snprintf(name, sizeof name, "%.*s", (int)t.name_bytes, t.name);
        flash_gguf_write_tensor(w, name, t.type, t.n_dims, t.ne);
    }
    for (size_t i = 0; flash_gguf_tensor(g, i, &t) == FLASH_OK; i++) {
        for (size_t at = 0, n; at < t.bytes; at += n) {
            n = t.bytes - at < 1001 ? (size_t)t.bytes - at : 1001;
            flash_gguf_write_data(w, t.data + at, n, at + n == t.bytes);
        }
    }
    return flash_gguf_write_end(w);
}

/* A copy made by the writer has the same bytes as the file of mkmodel.h, which is independent. */
static void copies(void)
{
    mk_options kinds[3] = {{0}, {0}, {0}};
    SECTION("writer: copies");
    kinds[1].bpe = 1;
    kinds[1].untied = 1;
    kinds[1].embd = MK_F16;
    kinds[2].d_model = 36; /* norms of 144 bytes: needs padding between tensors */
    kinds[2].qkv = MK_BF16;
    for (int i = 0; i < 3; i++) {
        mk_file *f = mk_llama(&kinds[i]);
        flash_gguf_writer w = {0};
        mk_buf out = {0};
        size_t n;
        uint8_t *p = mk_emit(f, &n);
        flash_gguf *g = open_bytes(p, n);
        size_t left;
        w.write = write_buf;
        w.user = &out;
        CHECK_EQ(copy(&w, g), FLASH_OK);
        CHECK_EQ(out.n, n);
        CHECK(out.n == n && !memcmp(out.p, p, n));
        CHECK_EQ(w.written, out.n);
        /* a full disk */
        for (left = 0; left < n; left = left * 3 + 1) {
            size_t room = left;
            memset(&w, 0, sizeof w);
            w.write = write_some;
            w.user = &room;
            CHECK_EQ(copy(&w, g), FLASH_E_IO);
            CHECK_EQ(w.status, FLASH_E_IO);
        }
        flash_gguf_free(g);
        free(out.p);
        free(p);
        mk_free(f);
    }
}

static void write_all(flash_gguf_writer *w)
{
    static const char *const texts[] = {"a", "bc", ""};
    static const size_t lengths[] = {1, 1, 0};
    static const uint32_t u[] = {1, 0xFFFFFFFFu};
    static const int32_t i[] = {-1, 2, 3};
    static const float x[] = {0.5f, -3.25f};
    static const uint64_t ne[] = {5, 3}, ne_q[] = {64, 2};
    static const float data[15] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    static const uint8_t q[136] = {1, 2, 3};
    mk_buf b = {0};
    flash_gguf_write_begin(w, 9, 2);
    flash_gguf_write_u32(w, "u", 4000000000u);
    flash_gguf_write_f32(w, "f", -0.125f);
    flash_gguf_write_bool(w, "b", 5);
    flash_gguf_write_string(w, "s", "text");
    flash_gguf_write_array(w, "au", FLASH_VALUE_U32, u, 2);
    flash_gguf_write_array(w, "ai", FLASH_VALUE_I32, i, 3);
    flash_gguf_write_array(w, "af", FLASH_VALUE_F32, x, 2);
    flash_gguf_write_strings(w, "as", texts, NULL, 3);
    flash_gguf_write_strings(w, "an", texts, lengths, 3);
    flash_gguf_write_tensor(w, "t", FLASH_TYPE_F32, 2, ne);
    flash_gguf_write_tensor(w, "q", FLASH_TYPE_Q8_0, 2, ne_q);
    for (int k = 0; k < 15; k++) /* little-endian, on big-endian hosts too */
        mk_f32(&b, data[k]);
    flash_gguf_write_data(w, b.p, b.n, 1);
    flash_gguf_write_data(w, q, sizeof q, 1);
    free(b.p);
}

static void writer(void)
{
    flash_gguf_writer w = {0};
    mk_buf out[2] = {{0}, {0}};
    flash_gguf *g;
    flash_value v;
    flash_tensor t;
    size_t at = 0, n;
    const char *s;
    static const uint64_t ne[] = {33, 1};

    SECTION("writer: values");
    w.write = write_buf;
    w.user = &out[0];
    write_all(&w);
    CHECK_EQ(flash_gguf_write_end(&w), FLASH_OK);
    CHECK_EQ(w.written, out[0].n);
    out[0].p = (uint8_t *)mk_alloc(out[0].p, out[0].n);
    g = open_bytes(out[0].p, out[0].n);
    CHECK_EQ(flash_gguf_version(g), 3);
    CHECK(flash_gguf_find(g, "u", &v) == FLASH_OK && v.type == FLASH_VALUE_U32);
    CHECK_EQ(flash_value_integer(&v, 0), 4000000000u);
    CHECK(flash_gguf_find(g, "f", &v) == FLASH_OK && flash_value_number(&v, 0) == -0.125);
    CHECK(flash_gguf_find(g, "b", &v) == FLASH_OK && v.type == FLASH_VALUE_BOOL);
    CHECK_EQ(v.data[0], 1);
    CHECK(flash_gguf_find(g, "s", &v) == FLASH_OK && same((const char *)v.data, v.bytes, "text"));
    CHECK(flash_gguf_find(g, "au", &v) == FLASH_OK && v.item == FLASH_VALUE_U32 && v.count == 2);
    CHECK_EQ(flash_value_integer(&v, 1), 0xFFFFFFFFu);
    CHECK(flash_gguf_find(g, "ai", &v) == FLASH_OK && v.item == FLASH_VALUE_I32 && v.count == 3);
    CHECK_EQ(flash_value_integer(&v, 0), -1);
    CHECK(flash_gguf_find(g, "af", &v) == FLASH_OK && v.item == FLASH_VALUE_F32 && v.count == 2);
    CHECK(flash_value_number(&v, 1) == -3.25);
    CHECK(flash_gguf_find(g, "as", &v) == FLASH_OK && v.count == 3);
    CHECK((s = flash_value_string(&v, &at, &n)) != NULL && same(s, n, "a"));
    CHECK((s = flash_value_string(&v, &at, &n)) != NULL && same(s, n, "bc"));
    CHECK((s = flash_value_string(&v, &at, &n)) != NULL && n == 0);
    CHECK(flash_value_string(&v, &at, &n) == NULL);
    at = 0;
    CHECK(flash_gguf_find(g, "an", &v) == FLASH_OK && v.count == 3);
    flash_value_string(&v, &at, &n);
    CHECK((s = flash_value_string(&v, &at, &n)) != NULL && same(s, n, "b"));
    CHECK(flash_gguf_find_tensor(g, "t", &t) == FLASH_OK && t.bytes == 60);
    CHECK(t.data[59] == 0x41 && t.data[58] == 0x70); /* 15.0f */
    CHECK(flash_gguf_find_tensor(g, "q", &t) == FLASH_OK && t.bytes == 136 && t.data[2] == 3);

    memset(&w, 0, sizeof w);
    w.write = write_buf;
    w.user = &out[1];
    CHECK_EQ(copy(&w, g), FLASH_OK);
    CHECK(out[0].n == out[1].n && !memcmp(out[0].p, out[1].p, out[0].n));
    flash_gguf_free(g);

    SECTION("writer: misuse");
    for (int miss = 0; miss < 6; miss++) {
        out[1].n = 0;
        memset(&w, 0, sizeof w);
        w.write = write_buf;
        w.user = &out[1];
        flash_gguf_write_begin(&w, miss == 0 ? 2 : 1, miss == 1 ? 2 : 1);
        flash_gguf_write_u32(&w, "k", 1);
        if (miss == 2) flash_gguf_write_u32(&w, "one too many", 1);
        if (miss == 5) {
            CHECK_EQ(flash_gguf_write_tensor(&w, "t", FLASH_TYPE_Q4_0, 1, ne), FLASH_E_ARGUMENT);
        } else {
            flash_gguf_write_tensor(&w, "t", FLASH_TYPE_F32, 1, ne);
            flash_gguf_write_data(&w, out[0].p, miss == 3 ? 128 : miss == 4 ? 165 : 132, 1);
        }
        CHECK_EQ(flash_gguf_write_end(&w), FLASH_E_ARGUMENT);
        CHECK_EQ(w.status, FLASH_E_ARGUMENT);
    }
    for (int i = 0; i < 8; i++) { /* one thing wrong with a tensor's description, or nothing */
        static const char long_name[] =
            "a name of 64 bytes, which is one more than there may be: 12345678";
        static const uint64_t none[] = {33, 1, 1, 1, 1},
                              wide[] = {1u << 20, 1u << 20, 1u << 20, 1u << 20};
        out[1].n = 0;
        memset(&w, 0, sizeof w);
        w.write = write_buf;
        w.user = &out[1];
        flash_gguf_write_begin(&w, i == 1, i != 2);
        CHECK_EQ(flash_gguf_write_tensor(&w,
                                         i == 3       ? long_name + 1
                                             : i == 4 ? long_name + 2
                                             : i == 5 ? ""
                                                      : "t",
                                         FLASH_TYPE_F32,
                                         i == 6       ? 0
                                             : i == 7 ? 4
                                                      : 1,
                                         i == 7 ? wide : none),
                 i == 0 || i == 4 ? FLASH_OK : FLASH_E_ARGUMENT);
    }
    free(out[0].p);
    free(out[1].p);
}

/* --- files found in the wild ----------------------------------------------------------------- */

/* The file opens if word is NULL. Else it is refused, with a text that has one of the two words. */
static void wild(const char *name, const char *word, const char *other)
{
    const char *path = test_shared(name);
    flash_source s = {0};
    flash_gguf *g = NULL;
    flash_error err;
    flash_status status;
    size_t n;
    uint8_t *p;
    if (!path) {
        SKIP("wild", name);
        return;
    }
    p = test_read(path, &n);
    for (int from_memory = 0; from_memory < 2; from_memory++) {
        s = from_data(from_memory ? p : NULL, from_memory ? n : 0);
        s.path = from_memory ? NULL : path;
        memset(&err, 0, sizeof err);
        status = flash_gguf_open(&g, &s, NULL, &err);
        if (word) {
            if (!CHECK(status < 0 && !g && (strstr(err.text, word) || strstr(err.text, other))))
                printf("    %s: \"%s\"\n", name, err.text);
        } else if (!CHECK_EQ(status, FLASH_OK)) {
            printf("    %s: \"%s\"\n", name, err.text);
        }
        flash_gguf_free(g);
    }
    free(p);
}

static void slice(void)
{
    static const char *const name = "quant/devstral-slice/slice.gguf";
    static const struct {
        const char *name;
        flash_type type;
        int n_dims;
        uint64_t rows, bytes, at;
    } truth[] = {{"blk.0.attn_norm.weight", FLASH_TYPE_F32, 1, 1, 20480, 74688},
                 {"blk.0.attn_k.weight", FLASH_TYPE_Q4_K, 2, 64, 184320, 95168},
                 {"blk.0.attn_v.weight", FLASH_TYPE_Q6_K, 2, 64, 268800, 279488}};
    size_t n;
    uint8_t *p = test_read(test_shared(name), &n);
    flash_gguf *g;
    flash_tensor t;
    flash_value v;
    if (!p) {
        SKIP("slice", name);
        return;
    }
    g = open_bytes(p, n);
    CHECK_EQ(flash_gguf_keys(g), 45);
    CHECK_EQ(flash_gguf_tensors(g), 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQ(flash_gguf_tensor(g, i, &t), FLASH_OK);
        CHECK(same(t.name, t.name_bytes, truth[i].name) && t.type == truth[i].type);
        CHECK(t.n_dims == truth[i].n_dims && t.ne[0] == 5120 && t.ne[1] == truth[i].rows);
        CHECK(t.bytes == truth[i].bytes && t.data == p + truth[i].at);
    }
    CHECK_EQ(flash_gguf_find(g, "llama.feed_forward_length", &v), FLASH_OK);
    CHECK_EQ(flash_value_integer(&v, 0), 32768);
    CHECK_EQ(flash_gguf_find(g, "general.languages", &v), FLASH_OK);
    CHECK_EQ(v.count, 24);
    CHECK_EQ(flash_gguf_find(g, "general.parameter_count", &v), FLASH_OK);
    CHECK_EQ(flash_value_integer(&v, 0), 23572403200);
    flash_gguf_free(g);
    free(p);
}

int main(void)
{
    values(3);
    values(2);
    tensors(32);
    tensors(64);
    tensors(8);
    sources();
    copies();
    writer();
    SECTION("files found in the wild");
    wild("gguf-quirks/falcon.old.gguf", NULL, NULL); /* version 2 */
    wild("gguf-quirks/las7/empty.gguf", NULL, NULL); /* no tensors, no padding */
    wild("gguf-quirks/bodhi/sample0_le.gguf", NULL, NULL);
    wild("gguf-quirks/bodhi/sample1_le.gguf", NULL, NULL);
    wild("gguf-quirks/bodhi/sample_tokens.gguf", NULL, NULL);
    wild("gguf-quirks/bodhi/gguf-capabilities/deepseek-thinking.gguf", NULL, NULL);
    wild("gguf-quirks/bodhi/gguf-capabilities/llama-plain.gguf", NULL, NULL);
    wild("gguf-quirks/bodhi/gguf-capabilities/llava-multimodal.gguf", NULL, NULL);
    wild("gguf-quirks/bodhi/gguf-capabilities/mistral-audio.gguf", NULL, NULL);
    wild("gguf-quirks/bodhi/gguf-capabilities/phi-tools.gguf", NULL, NULL);
    wild("gguf-quirks/bodhi/gguf-capabilities/qwen-vision.gguf", NULL, NULL);
    wild("gguf-quirks/las7/tiny.gguf", "end", "beyond"); /* its only tensor has no data */
    wild("gguf-quirks/bodhi/sample0_be.gguf", "big-endian", "byte-swapped");
    wild("gguf-quirks/bodhi/sample1_be.gguf", "big-endian", "byte-swapped");
    wild("gguf-quirks/bodhi/sample_tokens_be.gguf", "big-endian", "byte-swapped");
    wild("gguf-quirks/llama.v1.badmagic-FUGG.gguf", "big-endian", "byte-swapped");
    wild("gguf-quirks/llama.v1.gguf", "version 1", "v1");
    wild("gguf-quirks/llama.old2.gguf", "version 1", "v1");
    wild("gguf-quirks/pre-gguf-ggjt.bin", "ggjt", "before GGUF");
    wild("gguf-quirks/lfs-pointer.gguf", "LFS", "LFS");
    wild("quant/devstral-slice/slice_corrupt.gguf", "blk.0.attn_v.weight", "offset");
    slice();
    return test_done();
}
