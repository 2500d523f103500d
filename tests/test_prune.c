/* Tests of pruning, which makes smaller models out of larger ones: coupling, masking, files, views,
   calibration, refusals. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#define FLASH_KEEP_INTERNALS
#include "../flash.h"
#include "train.h"
#include "../tools/skips.h"

static mk_options shape(int layers, int d, int heads, int kv, int c, int ffn, int vocab)
{
    mk_options o;
    memset(&o, 0, sizeof o);
    o.n_layer = layers;
    o.d_model = d;
    o.n_head = heads;
    o.n_kv_head = kv;
    o.d_head = c;
    o.d_ffn = ffn;
    o.n_vocab = vocab;
    return o;
}

typedef struct image {
    uint8_t *p;
    size_t n, cap, full;
} image; /* full: size of the disk [B], 0: unlimited */

static int put(void *user, const void *data, size_t bytes)
{
    image *to = (image *)user;
    if (to->full && to->n + bytes > to->full) return 1;
    if (to->n + bytes > to->cap) {
        to->cap = 2 * (to->n + bytes);
        to->p = (uint8_t *)realloc(to->p, to->cap);
    }
    memcpy(to->p + to->n, data, bytes);
    to->n += bytes;
    return 0;
}

static made load(const uint8_t *p, size_t n)
{
    made m = {NULL, NULL};
    flash_model_desc d;
    flash_error err;
    memset(&d, 0, sizeof d);
    m.bytes = (uint8_t *)malloc(n);
    memcpy(m.bytes, p, n);
    d.source.data = m.bytes;
    d.source.bytes = n;
    if (!CHECK(flash_model_load(&m.model, &d, &err) == FLASH_OK)) {
        printf("    %s\n", err.text);
        exit(1);
    }
    return m;
}

static made emit(mk_file *f)
{
    size_t n;
    uint8_t *bytes = mk_emit(f, &n);
    made m = load(bytes, n);
    free(bytes);
    mk_free(f);
    return m;
}

static made pruned(const flash_prune_desc *d)
{
    image to = {NULL, 0, 0, 0};
    flash_error err = {0};
    made m;
    flash_arch a;
    if (!CHECK(flash_prune_write(d, put, &to, &err) == FLASH_OK)) {
        printf("    %s\n", err.text);
        exit(1);
    }
    m = load(to.p, to.n);
    free(to.p);
    CHECK(flash_prune_arch(d, &a, &err) == FLASH_OK);
    CHECK(!memcmp(a.layer, flash_model_arch(m.model)->layer, sizeof *a.layer * (size_t)a.n_layer));
    CHECK_EQ(a.d_model, flash_model_arch(m.model)->d_model);
    CHECK_EQ(a.n_layer, flash_model_arch(m.model)->n_layer);
    CHECK(a.embedding_scale == flash_model_arch(m.model)->embedding_scale);
    CHECK(a.attention_scale == flash_model_arch(m.model)->attention_scale);
    return m;
}

enum { TOKENS = 40 };

static float *logits_of(const flash_model *m)
{
    flash_session_desc d;
    flash_session *s;
    int V = flash_model_arch(m)->n_vocab, first, n;
    float *out = (float *)malloc((size_t)(TOKENS * V) * sizeof *out);
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++) ids[i] = (int32_t)((i * 37 + 11) % V);
    memset(&d, 0, sizeof d);
    d.all_logits = 1;
    d.n_ctx = d.chunk = TOKENS;
    CHECK(flash_session_create(&s, m, &d) == FLASH_OK);
    flash_session_feed(s, ids, TOKENS);
    CHECK(flash_session_step(s, NULL) == FLASH_OK);
    const float *x = flash_session_chunk_logits(s, &first, &n);
    CHECK(x && first == 0 && n == TOKENS);
    memcpy(out, x, (size_t)(TOKENS * V) * sizeof *out);
    flash_session_free(s);
    return out;
}

/* Checks that the logits of a and b differ by at most bar times the largest of a. Unmakes b. */
static void same_logits(const char *what, const flash_model *a, made *b, double bar)
{
    float *x = logits_of(a), *y = logits_of(b->model);
    double worst = 0, size = 0;
    for (int i = 0; i < TOKENS * flash_model_arch(a)->n_vocab; i++) {
        double d = fabs((double)x[i] - (double)y[i]);
        worst = d > worst ? d : worst;
        size = fabs((double)x[i]) > size ? fabs((double)x[i]) : size;
    }
    if (!CHECK(worst <= bar * size)) printf("    %s: %g of %g\n", what, worst, size);
    free(x);
    free(y);
    unmake(b);
}

/* Fills list with 0 to n - 1 in random order. */
static void shuffled(int *list, int n)
{
    for (int i = 0; i < n; i++) {
        int j = (int)(test_rnd() % (uint64_t)(i + 1));
        list[i] = list[j];
        list[j] = i;
    }
}

typedef struct lists {
    int channel[64], ffn[4][96], kv[4][8];
    const int *ffn_of[4], *kv_of[4];
} lists;

static void fill(lists *l, int D, int F, int K)
{
    shuffled(l->channel, D);
    for (int i = 0; i < 4; i++) {
        shuffled(l->ffn[i], F);
        shuffled(l->kv[i], K);
        l->ffn_of[i] = l->ffn[i];
        l->kv_of[i] = l->kv[i];
    }
}

/* Sets the items [row,col] of a tensor in m's file to 0. -1: all rows, or all columns. */
static void zero(made *m, const char *name, int row, int col)
{
    flash_tensor t;
    CHECK(flash_gguf_find_tensor(flash_model_gguf(m->model), name, &t) == FLASH_OK);
    for (uint64_t r = 0; r < t.ne[1]; r++) {
        for (uint64_t c = 0; c < t.ne[0]; c++)
            if ((row < 0 || row == (int)r) && (col < 0 || col == (int)c))
                memset(m->bytes + t.offset + (r * t.ne[0] + c) * 4, 0, 4);
    }
}

static void zero_layer(made *m, int layer, const char *what, int row, int col)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, what);
    zero(m, name, row, col);
}

static const struct {
    const char *arch, *attn;
    int untied;
} kinds[] = {
    {"llama", "f", 0},   {"llama", "f", 1}, {"deci", "fsf", 0},
    {"flash", "wsf", 1}, {"qwen3", "f", 0}, {"qwen2", "f", 0},
};

static void test_coupling(void)
{
    for (size_t k = 0; k < COUNT(kinds); k++) {
        mk_options o = shape(3, 32, 8, 4, 8, 48, 96);
        flash_prune_desc d;
        lists l;
        made one, two;
        float *keep;
        SECTION(kinds[k].arch);
        o.untied = kinds[k].untied;
        one = make(&o, kinds[k].arch, kinds[k].attn, 24, NULL);
        keep = logits_of(one.model);
        memset(&d, 0, sizeof d);
        d.model = one.model;
        two = pruned(&d);
        same_logits("as it is", one.model, &two, 0);
        fill(&l, 32, 48, 4);
        d.d_ffn = 48;
        d.ffn = l.ffn_of;
        two = pruned(&d);
        same_logits("units", one.model, &two, 1e-5);
        d.n_kv_head = 4;
        d.kv_head = l.kv_of;
        d.d_model = 32;
        d.channel = l.channel;
        two = pruned(&d);
        same_logits("all", one.model, &two, 1e-5);

        /* Compares the cut model with the whole one, in which what was cut is 0. With fewer
           channels eps counts for more. */
        made three;
        for (int channels = 0; channels < 2; channels++) {
            two = load(one.bytes, flash_gguf_size(flash_model_gguf(one.model)));
            d.d_ffn = 32;
            d.n_kv_head = 3;
            d.d_model = channels ? 24 : 32;
            for (int i = 0; i < 3; i++) {
                int mixes = flash_model_arch(one.model)->layer[i].n_head > 0;
                for (int c = d.d_model; c < 32; c++) {
                    if (mixes) zero_layer(&two, i, "attn_output", l.channel[c], -1);
                    zero_layer(&two, i, "ffn_down", l.channel[c], -1);
                    zero(&two, "token_embd.weight", -1, l.channel[c]);
                }
                for (int j = 32; j < 48; j++) zero_layer(&two, i, "ffn_down", -1, l.ffn[i][j]);
                for (int j = 0; j < 16 && mixes; j++)
                    zero_layer(&two, i, "attn_output", -1, l.kv[i][3] * 16 + j);
            }
            three = pruned(&d);
            same_logits("cut and masked", two.model, &three, channels ? 1e-3 : 1e-5);
            unmake(&two);
        }

        /* one layer less */
        static const int stay[] = {0, 2};
        memset(&d, 0, sizeof d);
        d.model = one.model;
        d.n_layer = 2;
        d.layer = stay;
        two = load(one.bytes, flash_gguf_size(flash_model_gguf(one.model)));
        zero_layer(&two, 1, "ffn_down", -1, -1);
        if (flash_model_arch(one.model)->layer[1].n_head)
            zero_layer(&two, 1, "attn_output", -1, -1);
        three = pruned(&d);
        same_logits("a layer less", two.model, &three, 0);
        unmake(&two);
        free(keep);
        unmake(&one);
    }
}

static void refuse(const flash_prune_desc *d, flash_status want, const char *words);

/* Makes a model in which the number of a layer tells its kind: each period-th is of another one. */
static made by_number(const char *arch, int layers, int period)
{
    mk_options o = shape(layers, 16, 2, 1, 4, 16, 64);
    mk_kind kind = {arch, "f", 0};
    mk_file *f = mk_model(&o, &kind);
    if (!strcmp(arch, "gemma3") && period) {
        mk_set_u32(f, "gemma3.attention.sliding_window", 9);
        mk_set_u32(f, "gemma3.attention.sliding_window_pattern", (uint32_t)period);
        mk_set_f32(f, "gemma3.rope.freq_base", 1e6f);
    } else if (!strcmp(arch, "llama4")) {
        mk_set_u32(f, "llama4.attention.sliding_window", 512);
        mk_set_u32(f, "llama4.attention.sliding_window_pattern", (uint32_t)period);
    }
    return emit(f);
}

/* Tries all choices of layers: those that a file can express are written, the others refused. */
static void test_by_number(void)
{
    enum { L = 7 };
    static const struct {
        const char *arch;
        int period;
    } cases[] = {{"smollm3", 4}, {"gemma3", 3}, {"llama4", 2}};
    flash_prune_desc d;
    for (size_t k = 0; k < COUNT(cases); k++) {
        made m = by_number(cases[k].arch, L, cases[k].period);
        const flash_arch *a = flash_model_arch(m.model);
        int written = 0, period = cases[k].period;
        SECTION(cases[k].arch);
        CHECK(a->layer[period - 1].rope_base != a->layer[0].rope_base);
        for (int set = 1; set < 1 << L; set++) {
            int stay[L], n = 0, good = 1;
            for (int l = 0; l < L; l++) {
                if (set >> l & 1) {
                    good &= (l % period == period - 1) == (n % period == period - 1);
                    stay[n++] = l;
                }
            }
            memset(&d, 0, sizeof d);
            d.model = m.model;
            d.n_layer = n;
            d.layer = stay;
            if (!good) {
                refuse(&d, FLASH_E_UNSUPPORTED,
                       strcmp(cases[k].arch, "smollm3") ? "of another kind in "
                                                        : "smollm3: convert it to flash first");
                continue;
            }
            made masked = load(m.bytes, flash_gguf_size(flash_model_gguf(m.model)));
            for (int l = 0; l < L; l++) {
                if (!(set >> l & 1)) {
                    zero_layer(&masked, l, "ffn_down", -1, -1);
                    zero_layer(&masked, l, "attn_output", -1, -1);
                }
            }
            made cut = pruned(&d);
            same_logits("layers less", masked.model, &cut, 0);
            unmake(&masked);
            written++;
        }
        CHECK(written > L);
        unmake(&m);
    }

    SECTION("scales that follow from sizes");
    made m = by_number("gemma3", 2, 0);
    memset(&d, 0, sizeof d);
    d.model = m.model;
    d.d_model = 8;
    refuse(&d, FLASH_E_UNSUPPORTED, "channels: all must stay");
    unmake(&m);
    for (int layers = 62; layers <= 63; layers++) { /* 62: as the 27B model */
        m = by_number("gemma3", layers, 0);
        memset(&d, 0, sizeof d);
        d.model = m.model;
        d.n_layer = layers - 1;
        refuse(&d, FLASH_E_UNSUPPORTED, "layers and heads must stay");
        unmake(&m);
    }

    SECTION("loaded with another attention");
    mk_options o = shape(2, 16, 2, 1, 8, 16, 64);
    m = make(&o, "llama", "f", 0, "window:9,full");
    d.model = m.model;
    d.n_layer = 1;
    refuse(&d, FLASH_E_UNSUPPORTED, "without a pattern");
    unmake(&m);
}

static void test_files(void)
{
    mk_options o = shape(2, 64, 4, 2, 16, 96, 96);
    flash_prune_desc d;
    image to = {NULL, 0, 0, 0};
    flash_error err;
    lists l;
    made one, two;
    SECTION("the same file");
    o.qkv = o.ffn_up = o.ffn_down = o.attn_output = 8; /* Q8_0 */
    mk_kind kind = {"llama", "f", 0};
    mk_file *f = mk_model(&o, &kind);
    mk_remove(f, "llama.rope.dimension_count"); /* a cut file would have it */
    one = emit(f);
    size_t n = flash_gguf_size(flash_model_gguf(one.model));
    memset(&d, 0, sizeof d);
    d.model = one.model;
    CHECK(flash_prune_write(&d, put, &to, &err) == FLASH_OK);
    CHECK(to.n == n && !memcmp(to.p, one.bytes, n));
    d.n_layer = 2;
    d.d_model = 64;
    d.d_ffn = 96;
    d.n_kv_head = 2;
    to.n = 0;
    CHECK(flash_prune_write(&d, put, &to, &err) == FLASH_OK);
    CHECK(to.n == n && !memcmp(to.p, one.bytes, n));
    static const int both[] = {0, 1};
    for (int j = 0; j < 96; j++) l.ffn[0][j] = j;
    for (int j = 0; j < 64; j++) l.channel[j] = j;
    for (int i = 0; i < 2; i++) { /* lists of everything, in order */
        l.ffn_of[i] = l.ffn[0];
        l.kv_of[i] = both;
    }
    d.layer = both;
    d.channel = l.channel;
    d.ffn = l.ffn_of;
    d.kv_head = l.kv_of;
    to.n = 0;
    CHECK(flash_prune_write(&d, put, &to, &err) == FLASH_OK);
    CHECK(to.n == n && !memcmp(to.p, one.bytes, n));
    static const int swapped[] = {1, 0};
    l.kv_of[1] = swapped;
    to.n = 0;
    CHECK(flash_prune_write(&d, put, &to, &err) == FLASH_OK);
    CHECK(to.n != n || memcmp(to.p, one.bytes, n));

    SECTION("whole blocks");
    fill(&l, 64, 96, 2);
    for (int i = 0; i < 4; i++) /* of three blocks the third, then the first */
        for (int j = 0; j < 64; j++) l.ffn[i][j] = j < 32 ? 64 + j : j - 32;
    memset(&d, 0, sizeof d);
    d.model = one.model;
    d.d_ffn = 64;
    d.ffn = l.ffn_of;
    two = pruned(&d);
    flash_tensor a, b;
    flash_gguf_find_tensor(flash_model_gguf(one.model), "blk.1.ffn_down.weight", &a);
    flash_gguf_find_tensor(flash_model_gguf(two.model), "blk.1.ffn_down.weight", &b);
    CHECK(b.type == FLASH_TYPE_Q8_0 && b.ne[0] == 64);
    for (int r = 0; r < 64; r++) {
        CHECK(!memcmp(b.data + r * 68, a.data + r * 102 + 68, 34));
        CHECK(!memcmp(b.data + r * 68 + 34, a.data + r * 102, 34));
    }
    unmake(&two);
    SECTION("other blocks");
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 64; j++) l.ffn[i][j] = j + 16;
    two = pruned(&d);
    float x[96], y[64];
    flash_gguf_find_tensor(flash_model_gguf(two.model), "blk.1.ffn_down.weight", &b);
    flash_dequantize(FLASH_TYPE_Q8_0, a.data, x, 96);
    flash_dequantize(FLASH_TYPE_Q8_0, b.data, y, 64);
    for (int j = 0; j < 64; j++) CHECK(fabs((double)x[j + 16] - (double)y[j]) < 2e-3);
    unmake(&two);
    d.d_ffn = 40;
    two = pruned(&d);
    flash_gguf_find_tensor(flash_model_gguf(two.model), "blk.0.ffn_down.weight", &b);
    CHECK(b.type == FLASH_TYPE_F16);
    unmake(&two);
    d.type = FLASH_TYPE_Q4_0;
    d.d_ffn = 64;
    two = pruned(&d);
    flash_gguf_find_tensor(flash_model_gguf(two.model), "blk.0.ffn_down.weight", &b);
    CHECK(b.type == FLASH_TYPE_Q4_0);
    unmake(&two);
    d.type = FLASH_TYPE_F32;
    two = pruned(&d);
    flash_gguf_find_tensor(flash_model_gguf(two.model), "blk.0.ffn_down.weight", &b);
    CHECK(b.type == FLASH_TYPE_Q8_0);
    unmake(&two);
    for (int all = 0; all < 2; all++) { /* fewer units; then only another type */
        d.d_ffn = all ? 0 : 64;
        d.ffn = all ? NULL : l.ffn_of;
        d.retype = 1;
        two = pruned(&d);
        flash_gguf_find_tensor(flash_model_gguf(two.model), "blk.0.ffn_down.weight", &b);
        CHECK(b.type == FLASH_TYPE_F32);
        unmake(&two);
    }

    SECTION("gains");
    float share[5] = {.5f, .6f, .7f, .8f, .9f};
    memset(&d, 0, sizeof d);
    d.model = one.model;
    d.d_model = 32;
    d.share = share;
    two = pruned(&d);
    static const struct {
        const char *name;
        int norm;
    } norms[] = {{"blk.0.attn_norm.weight", 0},
                 {"blk.0.ffn_norm.weight", 1},
                 {"blk.1.attn_norm.weight", 2},
                 {"blk.1.ffn_norm.weight", 3},
                 {"output_norm.weight", 4}};
    for (size_t i = 0; i < COUNT(norms); i++) {
        flash_gguf_find_tensor(flash_model_gguf(one.model), norms[i].name, &a);
        flash_gguf_find_tensor(flash_model_gguf(two.model), norms[i].name, &b);
        flash_dequantize(FLASH_TYPE_F32, a.data, x, 32);
        flash_dequantize(FLASH_TYPE_F32, b.data, y, 32);
        for (int j = 0; j < 32; j++) {
            double want = (double)x[j] * sqrt((double)share[norms[i].norm] * 2);
            CHECK(fabs((double)y[j] - want) < 1e-6);
        }
    }
    unmake(&two);

    SECTION("a full disk");
    d.share = NULL;
    to.n = 0;
    CHECK(flash_prune_write(&d, put, &to, &err) == FLASH_OK);
    n = to.n;
    for (size_t full = 1; full < n; full = full * 3 + 1) {
        to.n = 0;
        to.full = full;
        CHECK(flash_prune_write(&d, put, &to, &err) == FLASH_E_IO);
    }
    SECTION("no memory");
    mk_heap heap;
    memset(&heap, 0, sizeof heap);
    d.host.allocator.acquire = mk_heap_acquire;
    d.host.allocator.release = mk_heap_release;
    d.host.allocator.user = &heap;
    heap.fail_at = 0;
    to.full = 0;
    CHECK(flash_prune_write(&d, put, &to, &err) == FLASH_E_MEMORY);
    free(to.p);
    unmake(&one);
}

enum { CTX = 24 };

static flash_trainer *runner(const flash_model *m, int batch)
{
    flash_trainer_desc d;
    memset(&d, 0, sizeof d);
    d.init = m;
    d.batch = batch;
    d.n_ctx = CTX;
    return trainer(&d);
}

/* --- views --------------------------------------------------------------------------------- */

static void watched(flash_prune_desc *d, mk_heap *heap)
{
    memset(heap, 0, sizeof *heap);
    heap->fail_at = -1;
    d->host.allocator.acquire = mk_heap_acquire;
    d->host.allocator.release = mk_heap_release;
    d->host.allocator.user = heap;
}

/* Makes a view, which must take the memory it promises. *kept becomes what it keeps of that [B]. */
static flash_model *view(const flash_prune_desc *d, mk_heap *heap, size_t *kept)
{
    flash_model *m = NULL;
    flash_error err = {0};
    size_t before = heap->bytes, total = heap->total, told = flash_prune_view_memory(d, &err);
    CHECK_EQ(heap->bytes, before);
    CHECK(heap->total - total < told);
    total = heap->total;
    if (!CHECK(flash_prune_view(&m, d, &err) == FLASH_OK)) {
        printf("    %s\n", err.text);
        exit(1);
    }
    CHECK_EQ(heap->total - total, told);
    *kept = heap->bytes - before;
    return m;
}

/* Checks that the view of d and the loaded file of d have the same logits, bit for bit. */
static void same_view(const char *what, flash_prune_desc d, const char *attention)
{
    mk_heap heap;
    size_t kept;
    made file = pruned(&d);
    float *x, *y;
    if (attention) { /* the file gets it as it is loaded */
        flash_model_desc md;
        memset(&md, 0, sizeof md);
        md.source.data = file.bytes;
        md.source.bytes = (size_t)flash_gguf_size(flash_model_gguf(file.model));
        md.attention = attention;
        flash_model_free(file.model);
        CHECK(flash_model_load(&file.model, &md, NULL) == FLASH_OK);
        d.attention = attention;
    }
    watched(&d, &heap);
    flash_model *m = view(&d, &heap, &kept);
    const flash_arch *a = flash_model_arch(m), *b = flash_model_arch(file.model);
    CHECK(!memcmp(a->layer, b->layer, sizeof *a->layer * (size_t)a->n_layer));
    CHECK(a->n_layer == b->n_layer && a->d_model == b->d_model && a->tied == b->tied);
    CHECK_EQ(flash_session_memory(m, &(flash_session_desc){0}),
             flash_session_memory(file.model, &(flash_session_desc){0}));
    x = logits_of(m);
    y = logits_of(file.model);
    if (!CHECK(!memcmp(x, y, sizeof *x * (size_t)(TOKENS * a->n_vocab)))) printf("    %s\n", what);
    free(x);
    free(y);
    flash_model_free(m);
    CHECK(heap.live == 0 && heap.errors == 0);
    unmake(&file);
}

/* How layers, units, key/value heads and channels are cut. 0: not; 1: the first ones stay; 2:
   neighbours stay, from the start of a block on; 3: some stay, in disorder. Units only: 4: a number
   that fills no whole blocks; 5: whole blocks, the last first. Channels: 1 and 3 with shares. */
static const uint8_t cuts[][4] = {
    {0, 0, 0, 0}, {1, 0, 0, 0}, {3, 0, 0, 0}, {0, 1, 0, 0}, {0, 2, 0, 0},
    {0, 3, 0, 0}, {0, 4, 0, 0}, {0, 5, 0, 0}, {0, 0, 1, 0}, {0, 0, 2, 0},
    {0, 0, 3, 0}, {0, 0, 0, 1}, {0, 0, 0, 2}, {0, 0, 0, 3}, {1, 1, 1, 1},
    {2, 2, 2, 2}, {3, 3, 3, 3}, {3, 4, 1, 2}, {2, 5, 3, 1}, {0, 1, 1, 3},
};

static flash_prune_desc describe(const flash_model *m, const uint8_t how[4], lists *l,
                                 float share[7])
{
    static const int disorder[] = {0, 2}, tail[] = {1, 2};
    flash_prune_desc d;
    memset(&d, 0, sizeof d);
    fill(l, 64, 96, 4);
    d.model = m;
    d.n_layer = how[0] ? 2 : 0;
    d.layer = how[0] == 2 ? tail : how[0] == 3 ? disorder : NULL;
    d.d_ffn = !how[1] ? 0 : how[1] == 4 ? 40 : 64;
    d.ffn = how[1] == 2 || how[1] == 3 || how[1] == 5 ? l->ffn_of : NULL;
    d.n_kv_head = how[2] ? 2 : 0;
    d.kv_head = how[2] > 1 ? l->kv_of : NULL;
    d.d_model = how[3] ? 32 : 0;
    d.channel = how[3] > 1 ? l->channel : NULL;
    d.share = how[3] == 2 ? NULL : share;
    for (int i = 0; i < 7; i++) share[i] = .45f + .07f * (float)i; /* .5 would scale by 1 */
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 64 && how[1] != 3; j++)
            l->ffn[i][j] = how[1] == 2 ? 32 + j : j < 32 ? 64 + j : j - 32;
        for (int j = 0; j < 2 && how[2] == 2; j++) l->kv[i][j] = 1 + j;
    }
    for (int j = 0; j < 32 && how[3] == 2; j++) l->channel[j] = 32 + j;
    return d;
}

static void test_views(void)
{
    static const uint32_t types[] = {MK_F32, MK_Q8_0, MK_Q4_0};
    for (size_t k = 0; k < COUNT(kinds); k++) {
        for (size_t t = 0; t < COUNT(types); t++) {
            mk_options o = shape(3, 64, 8, 4, 16, 96, 96);
            char what[64];
            lists l;
            float share[7];
            SECTION(kinds[k].arch);
            o.untied = kinds[k].untied;
            o.embd = o.qkv = o.attn_output = o.ffn_up = o.ffn_down = o.head = types[t];
            made m = make(&o, kinds[k].arch, kinds[k].attn, 24, NULL);
            for (size_t c = 0; c < COUNT(cuts); c++) {
                if (k && (c + t + k) % 3) /* each cut, but not with each type */
                    continue;
                flash_prune_desc d = describe(m.model, cuts[c], &l, share);
                snprintf(what, sizeof what, "%s %s, cut %d", kinds[k].arch,
                         flash_type_name((flash_type)types[t]), (int)c);
                same_view(what, d, NULL);
                if (c % 4 == 0) {
                    d.type = c % 8 ? FLASH_TYPE_Q4_0 : FLASH_TYPE_F16;
                    same_view(what, d, NULL);
                }
                if (c % 4 == 2) {
                    d.type = FLASH_TYPE_F32;
                    same_view(what, d, "keep,skip");
                }
            }
            unmake(&m);
        }
    }
    /* what only these have: norms behind attention and feed-forward (gemma3), convolutions
       (lfm2) */
    mk_options o = shape(3, 64, 8, 4, 16, 96, 96);
    lists l;
    float share[7];
    for (int conv = 0; conv < 2; conv++) {
        made m = make(&o, conv ? "lfm2" : "gemma3", conv ? "fcf" : "f", 24, NULL);
        SECTION(conv ? "lfm2" : "gemma3");
        for (size_t c = 0; c < COUNT(cuts); c++)
            if (!cuts[c][3]) same_view("of its own", describe(m.model, cuts[c], &l, share), NULL);
        unmake(&m);
    }
}

/* A view copies nothing where neighbours stay. What it does copy is checked to the byte. */
static void test_view_memory(void)
{
    static const struct {
        uint8_t cut[4];
        uint32_t type;
        const char *attention;
        size_t more;
    } cases[] = {
        {{0, 1, 0, 0}, MK_F32, NULL, 0},
        {{0, 1, 0, 0}, MK_Q8_0, NULL, 0},
        {{0, 2, 0, 0}, MK_Q4_0, NULL, 0},
        {{0, 4, 0, 0}, MK_F32, NULL, 0},
        {{0, 0, 1, 0}, MK_Q8_0, NULL, 0},
        {{0, 0, 2, 0}, MK_Q8_0, NULL, 0},
        {{0, 1, 1, 0}, MK_Q4_0, "skip,window:9", 0},
        {{0, 4, 0, 0}, MK_Q8_0, NULL, 3 * 64 * 40 * 2},         /* ffn_down, as F16 */
        {{0, 5, 0, 0}, MK_Q8_0, NULL, 3 * (64 + 64 + 64) * 68}, /* all FFN matrices */
        {{0, 0, 0, 1}, MK_Q8_0, NULL, 7 * 32 * 4},              /* scaled norms */
        {{0, 0, 0, 2}, MK_F32, "keep,skip", 6 * 32 * 4},
    };
    for (size_t k = 0; k < COUNT(cases); k++) {
        SECTION("what a view takes");
        mk_options o = shape(3, 64, 8, 4, 16, 96, 96);
        lists l;
        float share[7];
        mk_heap heap;
        size_t none, kept;
        o.embd = o.qkv = o.attn_output = o.ffn_up = o.ffn_down = o.head = cases[k].type;
        made m = make(&o, "llama", "f", 0, NULL);
        flash_prune_desc d;
        memset(&d, 0, sizeof d);
        d.model = m.model;
        watched(&d, &heap);
        flash_model_free(view(&d, &heap, &none));
        CHECK(none < sizeof(flash_model) + 3 * sizeof(flash__layer) + 128);
        d = describe(m.model, cases[k].cut, &l, share);
        d.attention = cases[k].attention;
        watched(&d, &heap);
        flash_model_free(view(&d, &heap, &kept));
        if (!CHECK_EQ(kept, none + cases[k].more)) printf("    case %d\n", (int)k);
        /* fewer layers take less, whichever they are */
        d = describe(m.model, cuts[2], &l, share);
        watched(&d, &heap);
        flash_model_free(view(&d, &heap, &kept));
        CHECK(kept < none);

        SECTION("no memory for a view");
        d = describe(m.model, cuts[16], &l, share);
        for (long fail = 0; fail < 2; fail++) {
            flash_model *v = m.model;
            flash_error err;
            watched(&d, &heap);
            heap.fail_at = fail;
            CHECK(flash_prune_view(&v, &d, &err) == FLASH_E_MEMORY && !v);
            CHECK(heap.live == 0 && heap.errors == 0 && strstr(err.text, "no memory"));
        }
        watched(&d, &heap);
        heap.fail_at = 0;
        CHECK(flash_prune_view_memory(&d, NULL) == 0 && heap.live == 0);
        unmake(&m);
    }
}

/* A view serves for text and training as any model does. The model below it stays as it was. */
static void test_view_use(void)
{
    flash_model_desc md;
    flash_prune_desc d;
    flash_error err;
    flash_model *m, *v[2];
    int32_t ids[2][16];
    size_t n[2] = {0, 0};
    SECTION("a view is a model");
    memset(&md, 0, sizeof md);
    memset(&d, 0, sizeof d);
    md.source.path = "tests/data/f32.gguf"; /* mapped */
    CHECK(flash_model_load(&m, &md, &err) == FLASH_OK);
    float *x = logits_of(m), *y;
    d.model = m;
    d.n_layer = 1;
    d.d_ffn = flash_model_arch(m)->layer[0].d_ffn / 2;
    CHECK(flash_prune_view(&v[0], &d, &err) == FLASH_OK);
    CHECK(flash_prune_view(&v[1], &d, &err) == FLASH_OK);
    flash_model_free(v[0]);
    for (int i = 0; i < 2; i++) {
        CHECK(flash_tokenize(i ? v[1] : m, "the hand in the sea", 19, 0, ids[i], 16, &n[i])
              == FLASH_OK);
    }
    CHECK(n[0] > 1 && n[0] == n[1] && !memcmp(ids[0], ids[1], n[0] * sizeof **ids));
    CHECK_EQ(flash_model_isa(m), flash_model_isa(v[1]));
    made file = pruned(&d);
    flash_trainer_report r[2];
    for (int i = 0; i < 2; i++) {
        flash_trainer *t = runner(i ? v[1] : file.model, 1);
        int32_t row[CTX + 1];
        for (int j = 0; j <= CTX; j++) row[j] = j * 7 % flash_model_arch(m)->n_vocab;
        CHECK(flash_trainer_step(t, row, &r[i]) == FLASH_OK);
        CHECK(flash_trainer_evaluate(t, row, 1, &r[i]) == FLASH_OK);
        flash_trainer_free(t);
    }
    CHECK(!memcmp(&r[0].ce, &r[1].ce, sizeof r[0].ce));
    unmake(&file);

    SECTION("a view is no backbone");
    image to = {NULL, 0, 0, 0};
    flash_arch a;
    d.model = v[1];
    CHECK(flash_prune_view(&v[0], &d, &err) == FLASH_E_UNSUPPORTED && !v[0]);
    CHECK(strstr(err.text, "view") != NULL);
    CHECK(flash_prune_write(&d, put, &to, &err) == FLASH_E_UNSUPPORTED && !to.n);
    CHECK(flash_prune_arch(&d, &a, &err) == FLASH_E_UNSUPPORTED);
    CHECK(flash_prune_view_memory(&d, &err) == 0);
    flash_model_free(v[1]);
    y = logits_of(m);
    CHECK(!memcmp(x, y, sizeof *x * (size_t)(TOKENS * flash_model_arch(m)->n_vocab)));
    free(x);
    free(y);
    flash_model_free(m);
}

static void refuse(const flash_prune_desc *d, flash_status want, const char *words)
{
    image to = {NULL, 0, 0, 0};
    flash_error err = {0};
    flash_arch a;
    CHECK(flash_prune_write(d, put, &to, &err) == want && to.n == 0);
    if (!CHECK(strstr(err.text, words) != NULL)) printf("    %s\n", err.text);
    CHECK(flash_prune_arch(d, &a, &err) == want);
    flash_model *m = (flash_model *)&a;
    CHECK(flash_prune_view(&m, d, &err) == want && !m);
    CHECK(flash_prune_view_memory(d, &err) == 0 && strstr(err.text, words));
}

static void test_refused(void)
{
    mk_options o = shape(3, 32, 4, 2, 8, 48, 96);
    made m = make(&o, "llama", "f", 0, NULL);
    flash_prune_desc good, d;
    lists l;
    int layer[3] = {0, 2, 1};
    flash_error err;
    SECTION("refused");
    fill(&l, 32, 48, 2);
    memset(&good, 0, sizeof good);
    refuse(&good, FLASH_E_ARGUMENT, "no model");
    good.model = m.model;
    CHECK(flash_prune_write(&good, NULL, NULL, &err) == FLASH_E_ARGUMENT);
    CHECK(flash_prune_arch(&good, NULL, &err) == FLASH_E_ARGUMENT);
    CHECK(flash_prune_write(NULL, put, NULL, &err) == FLASH_E_ARGUMENT);
    flash_model *v;
    CHECK(flash_prune_view(&v, NULL, &err) == FLASH_E_ARGUMENT && !v);
    CHECK(flash_prune_view(NULL, &good, NULL) == FLASH_E_ARGUMENT);
    CHECK(flash_prune_view_memory(NULL, NULL) == 0);
    d = good;
    d.attention = "skip";
    CHECK(flash_prune_write(&d, put, NULL, &err) == FLASH_E_UNSUPPORTED);
    d.attention = "skip,,keep";
    CHECK(flash_prune_view(&v, &d, &err) == FLASH_E_FORMAT && !v && strstr(err.text, "layer 1"));
    d.attention = "keep,keep,keep,keep";
    CHECK(flash_prune_view(&v, &d, &err) == FLASH_E_FORMAT && !v);
    d = good;
    d.type = (flash_type)99;
    refuse(&d, FLASH_E_ARGUMENT, "type");
    d = good;
    d.host.allocator.acquire = mk_heap_acquire;
    refuse(&d, FLASH_E_ARGUMENT, "allocator");
    d = good;
    d.n_layer = 4;
    refuse(&d, FLASH_E_ARGUMENT, "4 layers");
    d.n_layer = 3;
    d.layer = layer;
    refuse(&d, FLASH_E_ARGUMENT, "ascend");
    layer[1] = 0;
    refuse(&d, FLASH_E_ARGUMENT, "ascend");
    layer[0] = -1;
    refuse(&d, FLASH_E_ARGUMENT, "ascend");
    d = good;
    d.d_model = 33;
    refuse(&d, FLASH_E_ARGUMENT, "33 channels");
    d.d_model = -1;
    refuse(&d, FLASH_E_ARGUMENT, "-1 channels");
    d.d_model = 0;
    d.channel = l.channel;
    refuse(&d, FLASH_E_ARGUMENT, "0 channels");
    d.d_model = 8;
    l.channel[3] = l.channel[0];
    refuse(&d, FLASH_E_ARGUMENT, "there twice");
    l.channel[3] = 32;
    refuse(&d, FLASH_E_ARGUMENT, "out of range");
    d = good;
    d.d_ffn = 49;
    refuse(&d, FLASH_E_ARGUMENT, "49 units");
    d.d_ffn = 8;
    d.ffn = l.ffn_of;
    l.ffn[2][7] = -1;
    refuse(&d, FLASH_E_ARGUMENT, "units");
    d = good;
    d.n_kv_head = 3;
    refuse(&d, FLASH_E_ARGUMENT, "3 heads");
    unmake(&m);
    m = make(&o, "lfm2", "cf", 0, NULL);
    d = good;
    d.model = m.model;
    d.d_model = 16;
    refuse(&d, FLASH_E_UNSUPPORTED, "convolution");
    unmake(&m);
}

/* --- what parts matter ------------------------------------------------------------------------ */

static int32_t *sequences(int n, int V)
{
    int32_t *ids = (int32_t *)malloc((size_t)(n * (CTX + 1)) * sizeof *ids);
    for (int i = 0; i < n * (CTX + 1); i++) ids[i] = (int32_t)(test_rnd() % (uint64_t)V);
    return ids;
}

static flash_calibration *calibration(const flash_model *m)
{
    flash_calibration *c;
    flash_error err;
    CHECK(flash_calibration_create(&c, flash_model_arch(m), NULL, &err) == FLASH_OK);
    return c;
}

static int close_to(double a, double b)
{
    return fabs(a - b) <= 1e-5 * (fabs(a) + fabs(b)) + 1e-12;
}

/* Returns the mean over rows of 1 - cos(x, y). x, y: [rows,D]. */
static double turned(const float *x, const float *y, int rows, int D)
{
    double sum = 0;
    for (int r = 0; r < rows; r++, x += D, y += D) {
        double dot = 0, lx = 0, ly = 0;
        for (int i = 0; i < D; i++) {
            dot += (double)x[i] * (double)y[i];
            lx += pow((double)x[i], 2);
            ly += pow((double)y[i], 2);
        }
        sum += 1 - dot / (sqrt(lx) * sqrt(ly));
    }
    return sum / rows;
}

/* Compares the scores with their formulas, computed from what a run leaves in the trainer. */
static void test_statistics(void)
{
    enum { N = 3, D = 32, F = 48, C = 8, H = 8, K = 4 };
    mk_options o = shape(2, D, H, K, C, F, 96);
    made m = make(&o, "llama", "f", 0, NULL);
    flash_trainer *t = runner(m.model, N);
    flash_calibration *c = calibration(m.model);
    int32_t *ids = sequences(N, 96);
    double score[64], sums[2] = {0, 0};
    SECTION("statistics");
    CHECK(flash_calibration_add(c, t, ids, N) == FLASH_OK);
    CHECK(flash__batch(t, ids, N, 0, 0, sums) == FLASH_OK);
    for (int energy = 0; energy < 2; energy++) {
        for (int il = 0; il < 2; il++) {
            const flash__lesson *l = t->layer + il;
            CHECK_EQ(flash_calibration_count(c, FLASH_PART_UNIT, il), F);
            CHECK(flash_calibration_scores(c, FLASH_PART_UNIT, il, energy, score) == FLASH_OK);
            for (int j = 0; j < F; j++) {
                double all = 0, squares = 0, down = 0;
                for (int s = 0; s < N; s++) {
                    double mean = 0;
                    for (int r = s * CTX; r < (s + 1) * CTX; r++) {
                        double g = (double)l->gate[r * F + j], a = g / (1 + exp(-g));
                        a *= (double)l->up[r * F + j];
                        mean += fabs(a) / CTX;
                        squares += a * a;
                    }
                    all += mean * mean;
                }
                for (int r = 0; r < D; r++)
                    down += pow((double)t->w[l->at[FLASH__W_DOWN] + (size_t)(r * F + j)], 2);
                CHECK(close_to(score[j], energy ? sqrt(squares / (N * CTX)) : sqrt(all * down)));
            }
            CHECK_EQ(flash_calibration_count(c, FLASH_PART_KV_HEAD, il), K);
            CHECK(flash_calibration_scores(c, FLASH_PART_KV_HEAD, il, energy, score) == FLASH_OK);
            for (int k = 0; k < K; k++) {
                double all = 0, squares = 0;
                for (int s = 0; s < N; s++) {
                    for (int j = k * 2 * C; j < (k + 1) * 2 * C; j++) {
                        double mean = 0;
                        for (int r = s * CTX; r < (s + 1) * CTX; r++) {
                            double a = (double)l->o[r * H * C + j];
                            mean += fabs(a) / CTX;
                            squares += a * a;
                        }
                        all += mean * mean;
                    }
                }
                CHECK(close_to(score[k], sqrt(energy ? squares / (N * CTX) : all)));
            }
        }
        CHECK_EQ(flash_calibration_count(c, FLASH_PART_CHANNEL, 9), D);
        CHECK(flash_calibration_scores(c, FLASH_PART_CHANNEL, 0, energy, score) == FLASH_OK);
        for (int j = 0; j < D; j++) {
            double want = 0;
            for (int k = 0; k < 5; k++) {
                const flash__lesson *l = t->layer + k / 2;
                const float *x = k == 4 ? t->out : k % 2 ? l->mid : l->in;
                size_t w = k == 4 ? t->out_norm
                                  : l->at[k % 2 ? FLASH__W_FFN_NORM : FLASH__W_ATTN_NORM];
                double all = 0, squares = 0;
                for (int s = 0; s < N; s++) {
                    double mean = 0;
                    for (int r = s * CTX; r < (s + 1) * CTX; r++) {
                        double ms = 0, z;
                        for (int i = 0; i < D; i++) ms += pow((double)x[r * D + i], 2) / D;
                        z = (double)x[r * D + j] * (double)t->w[w + (size_t)j]
                            / sqrt(ms + (double)t->arch.norm_eps);
                        mean += fabs(z) / CTX;
                        squares += z * z;
                    }
                    all += mean * mean;
                }
                want += energy ? squares / (N * CTX) : sqrt(all);
            }
            CHECK(close_to(score[j], energy ? sqrt(want) : want));
        }
    }

    SECTION("how far attentions and layers turn the stream");
    double attention[2], whole[2];
    CHECK_EQ(flash_calibration_count(c, FLASH_PART_ATTENTION, 0), 2);
    CHECK_EQ(flash_calibration_count(c, FLASH_PART_LAYER, 0), 2);
    CHECK(flash_calibration_scores(c, FLASH_PART_ATTENTION, 0, 0, attention) == FLASH_OK);
    CHECK(flash_calibration_scores(c, FLASH_PART_LAYER, 0, 0, whole) == FLASH_OK);
    for (int il = 0; il < 2; il++) {
        const flash__lesson *l = t->layer + il;
        CHECK(close_to(attention[il], turned(l->in, l->mid, N * CTX, D)));
        CHECK(close_to(whole[il], turned(l->in, il ? t->out : t->layer[1].in, N * CTX, D)));
    }

    SECTION("shares of the squares before each norm");
    int some[5] = {1, 4, 9, 16, 25};
    float shares[5];
    CHECK(flash_calibration_share(c, some, 5, shares) == FLASH_OK);
    for (int k = 0; k < 5; k++) {
        const float *x = k == 4 ? t->out : k % 2 ? t->layer[k / 2].mid : t->layer[k / 2].in;
        double all = 0, of_some = 0;
        for (int r = 0; r < N * CTX; r++)
            for (int i = 0; i < D; i++) {
                double square = pow((double)x[r * D + i], 2);
                all += square;
                for (int s = 0; s < 5; s++) of_some += some[s] == i ? square : 0;
            }
        CHECK(close_to((double)shares[k], of_some / all));
    }

    SECTION("in any pieces");
    flash_calibration *other = calibration(m.model);
    flash_calibration *by_batches = calibration(m.model);
    flash_trainer *one = runner(m.model, 1), *two = runner(m.model, 2);
    for (int i = 0; i < N; i++)
        CHECK(flash_calibration_add(other, one, ids + i * (CTX + 1), 1) == FLASH_OK);
    CHECK(flash_calibration_add(by_batches, two, ids, N) == FLASH_OK); /* of two and one */
    size_t n, n_other;
    double *a = flash_calibration_numbers(c, &n), *b = flash_calibration_numbers(other, &n_other);
    CHECK(n == n_other && !memcmp(a, b, n * sizeof *a));
    b = flash_calibration_numbers(by_batches, &n_other);
    CHECK(n == n_other && !memcmp(a, b, n * sizeof *a));
    flash_calibration_free(by_batches);
    flash_trainer_free(two);
    CHECK(close_to(a[0], N) && close_to(a[1], N * CTX));

    SECTION("the best of them");
    int chosen[64], blocks[64];
    CHECK(flash_calibration_scores(c, FLASH_PART_UNIT, 1, 0, score) == FLASH_OK);
    CHECK(flash_calibration_choose(c, FLASH_PART_UNIT, 1, 0, 20, 1, chosen) == FLASH_OK);
    double least = 1e300, most = 0;
    for (int j = 0, k = 0; j < F; j++) {
        if (k < 20 && chosen[k] == j) {
            least = fmin(least, score[j]);
            k++;
        } else {
            most = score[j] > most ? score[j] : most;
        }
    }
    CHECK(least >= most);
    CHECK(flash_calibration_choose(c, FLASH_PART_UNIT, 1, 0, 16, 8, blocks) == FLASH_OK);
    for (int j = 0; j < 16; j++) CHECK(j % 8 ? blocks[j] == blocks[j - 1] + 1 : blocks[j] % 8 == 0);
    double least_block = 1e300, most_block = 0;
    for (int b = 0; b < F; b += 8) {
        double squares = 0;
        for (int j = b; j < b + 8; j++) squares += score[j] * score[j];
        if (blocks[0] == b || blocks[8] == b)
            least_block = fmin(least_block, squares);
        else
            most_block = squares > most_block ? squares : most_block;
    }
    CHECK(least_block >= most_block);
    int tiny[64];
    for (size_t j = 2; j < n; j++) a[j] = ldexp(a[j], -60);
    CHECK(flash_calibration_choose(c, FLASH_PART_UNIT, 1, 0, 20, 1, tiny) == FLASH_OK);
    CHECK(!memcmp(tiny, chosen, 20 * sizeof *tiny));
    for (size_t j = 2; j < n; j++) a[j] = ldexp(a[j], 60);
    CHECK(flash_calibration_choose(c, FLASH_PART_UNIT, 1, 0, 15, 8, blocks) == FLASH_E_ARGUMENT);
    CHECK(flash_calibration_choose(c, FLASH_PART_UNIT, 1, 0, 20, 7, blocks) == FLASH_E_ARGUMENT);
    CHECK(flash_calibration_choose(c, FLASH_PART_UNIT, 2, 0, 8, 1, blocks) == FLASH_E_ARGUMENT);
    CHECK(flash_calibration_choose(c, FLASH_PART_LAYER, 0, 0, 1, 1, blocks) == FLASH_OK);
    double was = c->cos_layer[1];
    c->cos_layer[1] = (double)NAN; /* as flash_calibration_numbers allows */
    blocks[0] = 77;
    CHECK(flash_calibration_choose(c, FLASH_PART_LAYER, 0, 0, 2, 1, blocks) == FLASH_E_RANGE);
    CHECK(flash_calibration_choose(c, FLASH_PART_LAYER, 0, 0, 2, 2, blocks) == FLASH_E_RANGE);
    CHECK(blocks[0] == 77);
    c->cos_layer[1] = was;
    float share[5];
    for (int j = 0; j < D; j++) chosen[j] = j;
    CHECK(flash_calibration_share(c, chosen, D, share) == FLASH_OK);
    CHECK(close_to((double)share[0], 1) && close_to((double)share[4], 1));
    CHECK(flash_calibration_share(c, chosen, D / 2, share) == FLASH_OK);
    CHECK(share[2] > 0 && share[2] < 1);
    chosen[1] = D;
    CHECK(flash_calibration_share(c, chosen, D / 2, share) == FLASH_E_ARGUMENT);

    SECTION("refused");
    flash_error err;
    flash_arch none = *flash_model_arch(m.model);
    none.d_model = 0;
    flash_calibration_free(other);
    CHECK(flash_calibration_create(&other, NULL, NULL, &err) == FLASH_E_ARGUMENT && !other);
    CHECK(flash_calibration_create(&other, &none, NULL, &err) == FLASH_E_ARGUMENT);
    none.d_model = 64;
    CHECK(flash_calibration_create(&other, &none, NULL, &err) == FLASH_OK);
    CHECK(flash_calibration_add(other, t, ids, 1) == FLASH_E_ARGUMENT);
    flash_calibration_free(other);
    ids[3] = 96;
    CHECK(flash_calibration_add(c, t, ids, 1) == FLASH_E_ARGUMENT);
    flash_trainer_free(one);
    flash_trainer_free(t);
    flash_calibration_free(c);
    flash_calibration_free(NULL);
    free(ids);
    unmake(&m);
}

/* Compares the divergences of flash_trainer_skip with those between the logits of two sessions. */
static void test_skip(void)
{
    static const struct {
        const char *arch, *attn, *pattern[3];
        uint8_t skip[3][3];
    } cases[] = {
        {"llama",
         "f",
         {"skip,keep,keep", "keep,skip,keep", "skip,keep,skip"},
         {{1, 0, 0}, {0, 1, 0}, {1, 0, 1}}},
        {"flash",
         "fsw",
         {"skip,keep,keep", "keep,keep,skip", "skip,keep,skip"},
         {{1, 0, 0}, {0, 1, 1}, {1, 1, 1}}},
    };
    SECTION("without some attentions");
    for (size_t k = 0; k < COUNT(cases); k++) {
        enum { N = 2, V = 96 };
        mk_options o = shape(3, 32, 4, 2, 8, 48, V);
        made m = make(&o, cases[k].arch, cases[k].attn, 16, NULL);
        flash_trainer *t = runner(m.model, N);
        int32_t *ids = sequences(N, V);
        static const uint8_t none[3];
        double kl = -1;
        CHECK(flash_trainer_skip(t, ids, N, none, &kl) == FLASH_OK && fabs(kl) < 1e-12);
        for (int i = 0; i < 3; i++) {
            flash_model_desc d;
            flash_session_desc sd;
            flash_session *s[2];
            flash_model *other;
            double want = 0;
            int first, n;
            memset(&d, 0, sizeof d);
            memset(&sd, 0, sizeof sd);
            d.source.data = m.bytes;
            d.source.bytes = flash_gguf_size(flash_model_gguf(m.model));
            d.attention = cases[k].pattern[i];
            CHECK(flash_model_load(&other, &d, NULL) == FLASH_OK);
            sd.n_ctx = sd.chunk = CTX;
            sd.all_logits = 1;
            CHECK(flash_session_create(&s[0], m.model, &sd) == FLASH_OK);
            CHECK(flash_session_create(&s[1], other, &sd) == FLASH_OK);
            for (int q = 0; q < N; q++) {
                const float *x[2];
                for (int side = 0; side < 2; side++) {
                    flash_session_reset(s[side]);
                    flash_session_feed(s[side], ids + q * (CTX + 1), CTX);
                    CHECK(flash_session_step(s[side], NULL) == FLASH_OK);
                    x[side] = flash_session_chunk_logits(s[side], &first, &n);
                }
                for (int r = 0; r < CTX; r++) {
                    double sum[2] = {0, 0};
                    for (int side = 0; side < 2; side++)
                        for (int v = 0; v < V; v++) sum[side] += exp((double)x[side][r * V + v]);
                    for (int v = 0; v < V; v++) {
                        double p = exp((double)x[0][r * V + v]) / sum[0];
                        want += p * log(p * sum[1] / exp((double)x[1][r * V + v]));
                    }
                }
            }
            want /= N * CTX;
            CHECK(flash_trainer_skip(t, ids, N, cases[k].skip[i], &kl) == FLASH_OK);
            if (!CHECK(fabs(kl - want) < 1e-4 * want + 1e-7))
                printf("    %s %d: %g, want %g\n", cases[k].arch, i, kl, want);
            flash_session_free(s[0]);
            flash_session_free(s[1]);
            flash_model_free(other);
        }
        /* the trainer is as before */
        CHECK(flash_trainer_skip(t, ids, N, none, &kl) == FLASH_OK && fabs(kl) < 1e-12);
        CHECK(flash_trainer_skip(t, ids, 0, none, &kl) == FLASH_E_ARGUMENT);
        CHECK(flash_trainer_skip(t, ids, N, NULL, &kl) == FLASH_E_ARGUMENT);
        flash_trainer_free(t);
        free(ids);
        unmake(&m);
    }
}

/* --- the order of attentions to skip, next to all patterns there are ------------------------- */

typedef struct patterns {
    const flash_arch *a;
    flash_trainer *t;
    const int32_t *ids;
    double kl[32]; /* index: bit l is 1 if layer l is skipped */
} patterns;

static unsigned bits(const flash_arch *a, const uint8_t *skip)
{
    unsigned mask = 0;
    for (int l = 0; l < a->n_layer; l++) mask |= (unsigned)(skip[l] != 0) << l;
    return mask;
}

static double lost(void *user, const uint8_t *skip)
{
    patterns *p = (patterns *)user;
    double kl = -1;
    CHECK(flash_trainer_skip(p->t, p->ids, 2, skip, &kl) == FLASH_OK);
    CHECK(kl == p->kl[bits(p->a, skip)]);
    return kl;
}

/* Returns the length of the longest run of layers without attention: those that mask skips (bit l:
   layer l) and those that have none. */
static int longest(const flash_arch *a, unsigned mask)
{
    int most = 0, row = 0;
    for (int l = 0; l < a->n_layer; l++) {
        row = mask >> l & 1 || !a->layer[l].n_head ? row + 1 : 0;
        most = row > most ? row : most;
    }
    return most;
}

static int count(unsigned mask) { return mask ? (int)(mask & 1) + count(mask >> 1) : 0; }

static void test_order(void)
{
    static const struct {
        const char *arch, *attn;
    } cases[] = {{"llama", "f"}, {"flash", "ffsff"}};
    SECTION("the order of attentions to skip");
    for (size_t k = 0; k < COUNT(cases); k++) {
        mk_options o = shape(5, 32, 4, 2, 8, 48, 96);
        made m = make(&o, cases[k].arch, cases[k].attn, 0, NULL);
        patterns p;
        unsigned all = 0;
        int32_t *ids = sequences(2, 96);
        p.a = flash_model_arch(m.model);
        p.t = runner(m.model, 2);
        p.ids = ids;
        for (unsigned mask = 0; mask < 32; mask++) {
            uint8_t skip[5];
            for (int l = 0; l < 5; l++) {
                skip[l] = mask >> l & 1;
                all |= (unsigned)(p.a->layer[l].n_head > 0) << l;
            }
            CHECK(flash_trainer_skip(p.t, ids, 2, skip, p.kl + mask) == FLASH_OK);
        }
        for (int run = 1; run <= 5; run++) {
            double alone[5], loss[5];
            int order[5], n = skips_find(p.a, 9, run, lost, &p, alone, order, loss);
            unsigned chosen = 0;
            for (int l = 0; l < 5; l++) CHECK(alone[l] == (all >> l & 1 ? p.kl[1u << l] : 0));
            for (int i = 0; i <= n; i++) {
                unsigned best = 0; /* the best pattern of i + 1 that adds to chosen */
                for (unsigned mask = 1; mask < 32; mask++) {
                    if ((mask & chosen) == chosen && !(mask & ~all) && count(mask) == i + 1
                        && longest(p.a, mask) <= run && (!best || p.kl[mask] < p.kl[best])) {
                        best = mask;
                    }
                }
                if (i == n) {
                    CHECK(!best); /* it ended only as no pattern was left */
                    break;
                }
                chosen |= 1u << order[i];
                CHECK_EQ(chosen, best);
                CHECK(loss[i] == p.kl[best]);
            }
            CHECK(skips_find(p.a, 1, run, lost, &p, alone, order, loss) == (n > 0));
            CHECK(skips_find(p.a, 0, run, lost, &p, alone, order, loss) == 0);
        }
        flash_trainer_free(p.t);
        free(ids);
        unmake(&m);
    }
}

int main(void)
{
    test_statistics();
    test_skip();
    test_order();
    test_coupling();
    test_by_number();
    test_files();
    test_views();
    test_view_memory();
    test_view_use();
    test_refused();
    return test_done();
}
