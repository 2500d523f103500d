/* Tests of measuring: made-up models equal those that the loader makes of a file; the memory
   acquired is the memory promised; bad shapes are refused before any is acquired. Also tests
   latency models as text. No time is judged. */
#define FLASH_KEEP_INTERNALS
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#include "../flash.h"
#include "test.h"
#include "mkmodel.h"

enum { COUNT_KINDS = 12 };
static const mk_kind kinds[COUNT_KINDS] = {
    {"llama", "f", 0},  {"deci", "fslf", 0}, {"flash", "wfso", 5}, {"flash", "ffff", 0},
    {"qwen2", "f", 0},  {"qwen3", "f", 0},   {"gemma3", "wwf", 5}, {"smollm3", "f", 0},
    {"lfm2", "ccf", 0}, {"llama4", "f", 0},  {"flash", "s", 0},    {"deci", "s", 0},
};

/* A clock that advances by one second at every look. */
static double tick(void *user) { return *(double *)user += 1; }

static flash_host host_of(mk_heap *heap, double *clock)
{
    flash_host h = {{mk_heap_acquire, mk_heap_release, NULL}, NULL, tick, NULL, NULL, NULL};
    memset(heap, 0, sizeof *heap);
    heap->fail_at = -1;
    *clock = 0;
    h.allocator.user = heap;
    h.user = clock;
    return h;
}

/* Loads a small model of that kind and returns its architecture. The caller frees both results. */
static flash_arch arch_of(const mk_kind *kind, int untied, flash_model **loaded, uint8_t **bytes)
{
    mk_options o = {4, 64, 4, 2, 16, 96, 0, 512, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 7};
    flash_model_desc md = {0};
    flash_error err;
    flash_arch a;
    o.untied = untied;
    mk_file *f = mk_model(&o, kind);
    *bytes = mk_emit(f, &md.source.bytes);
    md.source.data = *bytes;
    memset(&a, 0, sizeof a);
    if (!CHECK(!flash_model_load(loaded, &md, &err))) {
        puts(err.text);
        exit(1);
    }
    mk_free(f);
    return *flash_model_arch(*loaded);
}

static void same_matrix(const flash__mat *a, const flash__mat *b)
{
    CHECK(!a->data == !b->data);
    CHECK(a->rows == b->rows && a->cols == b->cols && a->type == b->type
          && a->row_bytes == b->row_bytes);
}

/* Compares the made-up model with the loaded one, field by field. Every matrix has readable
   memory. */
static void test_invented(void)
{
    SECTION("made up = loaded");
    for (int i = 0; i < 2 * COUNT_KINDS; i++) {
        flash_model *real, *m;
        uint8_t *bytes;
        const mk_kind *kind = &kinds[i / 2];
        flash_arch a = arch_of(kind, i % 2, &real, &bytes);
        flash_workload u = {&a, FLASH_TYPE_F32, FLASH_TYPE_F16, 1, 0, 8, 8};
        flash__arena arena = {NULL, 0};
        CHECK(flash__invent(&m, &u, &arena));
        size_t need = arena.used, matrices = 0;
        arena.base = (uint8_t *)malloc(need + 64);
        uint8_t *block = arena.base;
        arena.base += (64 - (uintptr_t)block % 64) % 64;
        arena.used = 0;
        CHECK(flash__invent(&m, &u, &arena));
        CHECK_EQ(arena.used, need);
        same_matrix(&m->root.embed, &real->root.embed);
        same_matrix(&m->root.head, &real->root.head);
        CHECK((m->root.head.data == m->root.embed.data) == a.tied);
        CHECK(m->root.out_norm && m->root.out_norm[a.d_model - 1] == 1);
        for (int l = 0; l < a.n_layer; l++) {
            const flash__layer *x = &m->layer[l], *y = &real->layer[l];
            for (size_t k = 0; k < FLASH__COUNT(flash__layer_rules); k++) {
                const flash__tensor_rule *rule = &flash__layer_rules[k];
                const uint8_t *at_x = (const uint8_t *)x + rule->at;
                const uint8_t *at_y = (const uint8_t *)y + rule->at;
                if (rule->matrix) {
                    flash__mat w;
                    memcpy(&w, at_x, sizeof w);
                    same_matrix(&w, (const flash__mat *)(const void *)at_y);
                    matrices += w.data != NULL;
                    for (int b = 0; w.data && b < 4; b++) { /* real memory, no NaN */
                        CHECK(fabsf(flash__rdf32(
                                  w.data + ((size_t)w.rows * w.row_bytes / 16 * (size_t)b) * 4))
                              < 1);
                    }
                } else if (rule->need & m->bit) {
                    const float *v, *w;
                    memcpy(&v, at_x, sizeof v);
                    memcpy(&w, at_y, sizeof w);
                    CHECK(!v == !w);
                }
            }
        }
        CHECK(matrices > 0);
        free(block);
        flash_model_free(real);
        free(bytes);
    }
}

/* Every architecture and type runs, takes the memory promised and gives all of it back. A failing
   acquisition returns an error and leaves nothing behind. */
static void test_runs(void)
{
    static const flash_type types[] = {FLASH_TYPE_F32, FLASH_TYPE_Q4_0, FLASH_TYPE_Q8_0,
                                       FLASH_TYPE_F16, FLASH_TYPE_Q5_1, FLASH_TYPE_IQ4_NL};
    static const flash_type kvs[] = {FLASH_TYPE_F32, FLASH_TYPE_F16, FLASH_TYPE_Q8_0};
    SECTION("every architecture");
    for (int i = 0; i < COUNT_KINDS; i++) {
        flash_model *real;
        uint8_t *bytes;
        flash_arch a = arch_of(&kinds[i], i % 2, &real, &bytes);
        for (int k = 0; k < a.n_layer; k++) /* widths that Q4_0 can have */
            a.layer[k].n_head = (uint16_t)(a.layer[k].n_head ? 4 : 0);
        flash_workload u = {&a, types[i % 6], kvs[i % 3], 1 + i % 3, i % 2 ? 0 : 7, 20 + i, 30};
        flash_measure_desc d = {3, 2, FLASH_ISA_AUTO, {{0}, 0, 0, 0, 0, 0}};
        flash_measurement m;
        flash_error err;
        mk_heap heap;
        double clock;
        d.host = host_of(&heap, &clock);
        size_t memory = flash_latency_memory(&u, &d, &err);
        CHECK(memory > 0 && !heap.count);
        if (!CHECK_EQ(flash_latency_measure(&m, &u, &d, &err), FLASH_OK))
            printf("    %s %s: %s\n", kinds[i].arch, kinds[i].attn, err.text);
        CHECK_EQ(heap.total, memory);
        CHECK(heap.count == 2 && !heap.live && !heap.errors);
        CHECK(m.n == 3 && m.median.prefill == 1 && m.median.decode == 1);
        CHECK(m.spread.prefill == 0 && m.spread.decode == 0);
        for (int k = 0; k < 3; k++) CHECK(m.each[k].prefill == 1 && m.each[k].decode == 1);
        for (long k = 0; k < 2; k++) {
            d.host = host_of(&heap, &clock);
            heap.fail_at = k;
            CHECK_EQ(flash_latency_measure(&m, &u, &d, &err), FLASH_E_MEMORY);
            CHECK(!heap.live && !heap.errors);
        }
        u.prompt = 0; /* decode alone, from the first position on */
        u.position = 0;
        d.host = host_of(&heap, &clock);
        CHECK_EQ(flash_latency_measure(&m, &u, &d, &err), FLASH_OK);
        CHECK(m.median.prefill == 0 && m.median.decode == 1);
        flash_model_free(real);
        free(bytes);
    }
}

static flash_arch plain(void)
{
    flash_arch a;
    memset(&a, 0, sizeof a);
    strcpy(a.name, "llama");
    a.n_layer = 2;
    a.d_model = 64;
    a.d_head = 16;
    a.n_vocab = 100;
    a.tied = 1;
    a.rope_dims = 16;
    for (int i = 0; i < 2; i++) {
        a.layer[i].n_head = 4;
        a.layer[i].n_kv_head = 2;
        a.layer[i].d_ffn = 96;
        a.layer[i].rope_base = 10000;
    }
    return a;
}

static void test_refused(void)
{
    enum { BAD = 29 };
    SECTION("refused before anything is acquired");
    for (int i = 0; i < BAD; i++) {
        flash_arch a = plain();
        flash_workload u = {&a, FLASH_TYPE_Q4_0, FLASH_TYPE_F16, 1, 0, 8, 8};
        flash_measure_desc d = {1, 1, FLASH_ISA_AUTO, {{0}, 0, 0, 0, 0, 0}};
        flash_measurement m;
        flash_error err;
        mk_heap heap;
        double clock;
        int only_memory = 1;
        d.host = host_of(&heap, &clock);
        switch (i) {
        case 0: a.d_model = 0; break;
        case 1: a.d_model = -64; break;
        case 2: a.d_model = 80; break; /* 2.5 blocks */
        case 3: a.d_model = FLASH_DIM_MAX + 32; break;
        case 4: a.n_layer = 0; break;
        case 5: a.n_layer = FLASH_LAYERS_MAX + 1; break;
        case 6: a.layer[1].d_ffn = 100; break;
        case 7: a.layer[1].d_ffn = -32; break;
        case 8: a.layer[0].n_kv_head = 3; break;
        case 9: a.layer[0].n_kv_head = 0; break;
        case 10: a.layer[0].attention = FLASH_ATTENTION_WINDOW; break; /* window 0 */
        case 11: a.d_head = 0; break;
        case 12: a.n_vocab = 0; break;
        case 13: a.rope_dims = 15; break;
        case 14: u.weights = FLASH_TYPE_MXFP4; break;
        case 15: u.weights = (flash_type)77; break;
        case 16: u.kv = FLASH_TYPE_Q4_0; break;
        case 17: u.threads = -1; break;
        case 18: u.chunk = -5; break;
        case 19: u.prompt = FLASH_CONTEXT_MAX + 1; break;
        case 20: u.position = -1; break;
        case 21: u.arch = NULL; break;
        case 24:
        case 25: /* no length of the convolution; no tensors for one in llama */
            strcpy(a.name, i == 24 ? "lfm2" : "llama");
            a.conv_length = i == 24 ? 0 : 3;
            a.layer[1].attention = FLASH_ATTENTION_CONV;
            a.layer[1].n_kv_head = 0;
            break;
        case 26: strcpy(a.name, "nonsense"); break;
        case 27: a.name[0] = 0; break;
        case 28: a.layer[1].attention = FLASH_ATTENTION_CHUNK + 1; break;
        case 22:
            d.repeats = FLASH_LATENCY_REPEATS_MAX + 1;
            only_memory = 0;
            break;
        case 23:
            d.tokens = -1;
            only_memory = 0;
            break;
        }
        err.text[0] = 0;
        if (only_memory) CHECK(!flash_latency_memory(&u, &d, &err) && err.text[0]);
        if (!CHECK_EQ(flash_latency_measure(&m, &u, &d, &err), FLASH_E_ARGUMENT))
            printf("    case %d\n", i);
        CHECK(!heap.count && err.text[0]);
        CHECK_EQ(flash_latency_measure(&m, &u, &d, NULL), FLASH_E_ARGUMENT);
    }
    flash_arch a = plain();
    flash_workload u = {&a, FLASH_TYPE_F32, FLASH_TYPE_F32, 1, 0, 8, 8};
    flash_error err;
    CHECK_EQ(flash_latency_measure(NULL, &u, NULL, &err), FLASH_E_ARGUMENT);
    a.d_model = a.n_vocab = 1 << 20; /* in range, but 4 TiB and more: the size is told */
    a.n_layer = FLASH_LAYERS_MAX;
    for (int i = 0; i < a.n_layer; i++) {
        a.layer[i] = a.layer[0];
        a.layer[i].d_ffn = 1 << 20;
    }
    size_t most = flash_latency_memory(&u, NULL, &err);
    CHECK(sizeof(size_t) < 8 ? !most : most > (size_t)-1 / 2 >> 14);
    CHECK(flash_arch_flops(&a, 0, 1) > 1e15);
    CHECK(flash_arch_flops(&a, 0, 0) == 0 && flash_arch_flops(NULL, 0, 1) == 0);
    strcpy(a.name, "nonsense");
    CHECK(flash_arch_flops(&a, 0, 1) == 0 && flash_arch_params(&a) == 0);
}

/* --- as text ---------------------------------------------------------------------------------- */

static flash_latency *some_fit(flash_workload *u, flash_arch *a)
{
    static flash_workload work[20];
    static flash_arch arch[20];
    static flash_timing time[20];
    flash_latency *l = NULL;
    flash_error err;
    for (int i = 0; i < 20; i++) {
        flash_workload w = {&arch[i], FLASH_TYPE_Q4_0, FLASH_TYPE_F16, 1, 0, 64 + 7 * i, 9 * i};
        arch[i] = plain();
        arch[i].layer[0].d_ffn = 32 * (1 + i);
        work[i] = w;
        time[i].prefill = 1e-9 * flash_arch_flops(&arch[i], 0, w.prompt) * (1 + .01 * (i % 3));
        time[i].decode = i < 10 ? 1e-3 + 1e-5 * i : 0;
    }
    CHECK_EQ(flash_latency_fit(&l, work, time, 20, NULL, &err), FLASH_OK);
    *a = plain();
    *u = work[0];
    u->arch = a;
    u->prompt = 99;
    return l;
}

static void test_text(void)
{
    flash_workload u;
    flash_arch a;
    flash_latency *l = some_fit(&u, &a), *back = NULL;
    flash_interval t[2], again[2];
    flash_error err;
    mk_heap heap;
    double clock, e[4];
    flash_host h = host_of(&heap, &clock);
    SECTION("as text");
    size_t n = flash_latency_save(l, NULL, 0);
    char *text = (char *)malloc(n + 100), *copy = (char *)malloc(n + 100);
    CHECK(n > 1000 && n < 20000);
    memset(text, '?', n + 100);
    CHECK_EQ(flash_latency_save(l, text, n - 1), n);
    CHECK(text[n - 1] == '?');
    CHECK_EQ(flash_latency_save(l, text, n + 100), n);
    CHECK(text[n] == '?' && text[n - 1] == '\n');
    CHECK_EQ(flash_latency_save(NULL, text, n), 0);
    CHECK_EQ(flash_latency_load(&back, text, n, &h, &err), FLASH_OK);
    CHECK_EQ(flash_latency_predict(l, &u, &t[0], &t[1]), FLASH_OK);
    CHECK_EQ(flash_latency_predict(back, &u, &again[0], &again[1]), FLASH_OK);
    CHECK(!memcmp(t, again, sizeof t)); /* bit for bit */
    flash_latency_errors(l, &e[0], &e[1]);
    flash_latency_errors(back, &e[2], &e[3]);
    CHECK(e[0] == e[2] && e[1] == e[3]);
    CHECK_EQ(flash_latency_save(back, copy, n), n);
    CHECK(!memcmp(text, copy, n));
    CHECK_EQ(heap.live, 1);
    flash_latency_free(back);
    CHECK(!heap.live && !heap.errors);

    n = (size_t)sprintf(copy, "# made for a test\n#\n");
    memcpy(copy + n, text, flash_latency_save(l, NULL, 0));
    n += flash_latency_save(l, NULL, 0);
    CHECK_EQ(flash_latency_load(&back, copy, n, NULL, &err), FLASH_OK);
    flash_latency_free(back);

    SECTION("cut and damaged");
    n = flash_latency_save(l, NULL, 0);
    for (size_t cut = 0; cut < n; cut++) {
        char *exact = (char *)malloc(cut + !cut); /* so that a sanitizer sees reads past it */
        memcpy(exact, text, cut);
        flash_status s = flash_latency_load(&back, exact, cut, NULL, &err);
        CHECK(!back && (s == FLASH_E_FORMAT || s == FLASH_E_TRUNCATED));
        free(exact);
    }
    for (size_t i = 0; i < n; i++) {
        for (int bit = 1; bit < 256; bit <<= 1 + (getenv("FLASH_QUICK") ? 2 : 0)) {
            memcpy(copy, text, n);
            copy[i] = (char)(copy[i] ^ bit);
            flash_status s = flash_latency_load(&back, copy, n, NULL, &err);
            CHECK(s == FLASH_E_FORMAT || s == FLASH_E_TRUNCATED || s == FLASH_E_MEMORY
                  || (!s && (copy[i] == '\n' || copy[i] == ' ')));
            flash_latency_free(back);
        }
    }
    h = host_of(&heap, &clock);
    heap.fail_at = 0;
    CHECK_EQ(flash_latency_load(&back, text, n, &h, &err), FLASH_E_MEMORY);
    CHECK(!back && !heap.live);
    CHECK_EQ(flash_latency_load(NULL, text, n, NULL, &err), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_latency_load(&back, NULL, n, NULL, &err), FLASH_E_FORMAT);

    SECTION("behind the hash");
    static const char *const behind[] = {"\n \r\n\t", "0", "\n# more", "\n\0"};
    for (int i = 0; i < 4; i++) {
        size_t more = i < 3 ? strlen(behind[i]) : 2;
        memcpy(copy, text, n);
        memcpy(copy + n, behind[i], more);
        CHECK_EQ(flash_latency_load(&back, copy, n + more, NULL, &err), i ? FLASH_E_FORMAT : 0);
        flash_latency_free(back);
    }

    SECTION("forged: the hash is right, the numbers are not");
    enum { NUMBERS = 11, ODD = 16 };
    static const double range[NUMBERS][2] = {
        {-14, 8},   {-14, 8},      {-14, 8},     {0, 1},      {-46, 46},  {0, 1e12},
        {0, 1e300}, {1e-17, 1e12}, {1e-6, 1420}, {-710, 710}, {0, 1e300},
    };
    for (int i = 0; i < 2 * NUMBERS * ODD; i++) {
        int which = i / 2 % NUMBERS, k = i / (2 * NUMBERS);
        double lo = range[which][0], hi = range[which][1];
        double odd[ODD] = {0,  -1, 1e290, -1e290,   1e-290, 700, -700, 1e5,
                           .1, lo, hi,    INFINITY, NAN,    0,   0,    -INFINITY};
        odd[13] = nextafter(lo, -INFINITY); /* just outside */
        odd[14] = nextafter(hi, INFINITY);
        flash__phase *p = &l->phase[i % 2];
        double *to[NUMBERS], v = odd[k];
        to[0] = &p->gp.theta[k % 5];
        to[1] = &p->gp.theta[p->d];
        to[2] = &p->gp.theta[p->d + 1];
        to[3] = &p->gp.x[7];
        to[4] = &p->gp.y[3];
        to[5] = &p->lo[1];
        to[6] = &p->beta[1];
        to[7] = &p->range[2];
        to[8] = &p->scale;
        to[9] = &p->mean;
        to[10] = &p->error;
        double was = *to[which];
        *to[which] = v;
        flash_latency_save(l, text, n);
        flash_status s = flash_latency_load(&back, text, n, NULL, &err);
        if (!CHECK_EQ(s, v >= lo && v <= hi ? 0 : FLASH_E_FORMAT))
            printf("    number %d, %g\n", which, v);
        for (int at = 0; !s && at < 3; at++) { /* a finite time or an error */
            u.prompt = u.position = at ? 1 << 9 * at : 99;
            flash_status no = flash_latency_predict(back, &u, &t[0], &t[1]);
            CHECK(
                no == FLASH_E_FORMAT
                || (!no && t[0].lo > 0 && t[0].hi < INFINITY && t[1].lo > 0 && t[1].hi < INFINITY));
        }
        flash_latency_free(back);
        *to[which] = was;
    }

    SECTION("the sum at its end: files of other versions stay readable");
    uint64_t sum = 0;
    flash_latency_save(l, text, n);
    for (size_t at = 16; at + 17 < n; at += 17) { /* each line is a word of 16 digits */
        sum = (sum ^ strtoull(text + at, NULL, 16)) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 29;
    }
    CHECK_EQ(strtoull(text + n - 17, NULL, 16), sum);

    SECTION("numbers of points that are not, or that the text is too short for");
    const uint64_t most = (n - 16 - 2 * 17)
        / (17 * (FLASH__SHAPE + 1)); /* points whose inputs would fit */
    const struct {
        uint64_t points[2];
        flash_status want;
        const char *why;
    } counts[] = {
        {{0, 0}, FLASH_E_FORMAT, "a number of"},
        {{1, 0}, FLASH_E_FORMAT, "a number of"},
        {{7, 8}, FLASH_E_FORMAT, "a number of"},
        {{8, 7}, FLASH_E_FORMAT, "a number of"},
        {{FLASH_LATENCY_POINTS_MAX + 1, 8}, FLASH_E_FORMAT, "a number of"},
        {{8, FLASH_LATENCY_POINTS_MAX + 1}, FLASH_E_FORMAT, "a number of"},
        {{UINT64_MAX, 8}, FLASH_E_FORMAT, "a number of"},
        {{FLASH_LATENCY_POINTS_MAX, 8}, FLASH_E_TRUNCATED, "too early"},
        {{FLASH_LATENCY_POINTS_MAX, FLASH_LATENCY_POINTS_MAX}, FLASH_E_TRUNCATED, "too early"},
        {{0, most + 1}, FLASH_E_TRUNCATED, "too early"},
        {{0, most}, FLASH_E_FORMAT, "damaged"},
        {{8, 0}, FLASH_E_FORMAT, "damaged"}, /* fewer than there are: the hash differs */
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        flash_latency_save(l, text, n);
        for (int k = 0; k < 2; k++)
            for (int digit = 0; digit < 16; digit++)
                text[16 + 17 * k + digit] =
                    "0123456789abcdef"[counts[i].points[k] >> (60 - 4 * digit) & 15];
        CHECK_EQ(flash_latency_load(&back, text, n, NULL, &err), counts[i].want);
        CHECK(!back && strstr(err.text, counts[i].why));
    }
    l->phase[1].mean = 710; /* each is in range, but their sum is no valid time */
    l->phase[1].scale = 1420;
    flash_latency_save(l, text, n);
    CHECK_EQ(flash_latency_load(&back, text, n, NULL, &err), FLASH_OK);
    CHECK_EQ(flash_latency_predict(back, &u, &t[0], NULL), FLASH_OK);
    CHECK_EQ(flash_latency_predict(back, &u, NULL, &t[1]), FLASH_E_FORMAT);
    flash_latency_free(back);
    flash_latency_free(l);
    free(text);
    free(copy);
}

/* The system's clock goes on, and never back. */
static void test_clock(void)
{
    flash_host host = {0};
    double first = flash__clock(&host), last = first;
    int back = 0;
    SECTION("clock");
    if (first <= 0) { /* strict ISO C hides it on some systems; other builds of CI have it */
        printf("    no clock in this build\n");
        return;
    }
    for (long i = 0; i < 100000 || (last <= first && i < 100000000); i++) {
        double now = flash__clock(&host);
        back += now < last;
        last = now;
    }
    CHECK(!back && last > first);
}

int main(void)
{
    test_clock();
    test_invented();
    test_runs();
    test_refused();
    test_text();
    return test_done();
}
