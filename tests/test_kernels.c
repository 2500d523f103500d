/* Compares every kernel of every instruction set of this machine with the scalar kernels: the same
   bits, for every weight type, odd sizes and extreme values. Nothing may be written outside the
   results, and nothing may depend on the padding, which is filled with NaN. */
#define FLASH_STATIC
#define FLASH_KEEP_INTERNALS
#define FLASH_IMPLEMENTATION
#include "../flash.h"
#include "test.h"

enum { ROWS = 17, TOKENS = 9, N_MAX = 1088, GUARD = 16 };

static flash__kernels scalar, kernels;

/* Returns 1 if the bits are equal, or if both are NaN: payloads differ between processors. */
static int same(float a, float b)
{
    return flash__f32_bits(a) == flash__f32_bits(b) || (a != a && b != b);
}
static int all_same(const float *a, const float *b, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (!same(a[i], b[i])) return 0;
    return 1;
}
/* 3.39e38, which no result is by chance. A NaN would not do: what is computed from it is the same
 * NaN. */
static void poison(float *p, size_t n) { memset(p, 0x7f, n * sizeof *p); }
static int poisoned(const float *p, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (flash__f32_bits(p[i]) != 0x7f7f7f7fu) return 0;
    return 1;
}

/* Returns a random number. mode 0: in [-4,4); 1: large and small ones; 2: any bits, also infinities
   and NaN. */
static float number(int mode)
{
    float u = (float)(int)(test_rnd() >> 8) / 8388608.0f - 1.0f;
    static const float odd[] = {0.0f,    -0.0f, 1.0f,   -1.0f,  3e38f, -3e38f, 1e-38f,  1e-42f,
                                -1e-45f, 88.0f, -88.0f, 127.5f, -0.5f, 1e-30f, 65504.0f};
    if (mode == 0) return u * 4;
    if (mode == 1) return test_rnd() % 3 ? u * 1e-3f : odd[test_rnd() % FLASH__COUNT(odd)];
    u = flash__bits_f32(test_rnd());
    /* Only quiet NaN: the inputs of the kernels are results, which are never signalling. */
    return u == u ? u : flash__bits_f32(flash__f32_bits(u) | 0x400000);
}
static void numbers(float *p, size_t n, int mode)
{
    size_t i;
    for (i = 0; i < n; i++) p[i] = number(mode);
}
/* Fills n bytes of weights. mode 0: random with finite scales; 1: mostly 0x80, 0x7f or 0x00, with
   finite scales; 2: any bytes. */
static void weights(flash_type t, uint8_t *w, size_t n, int mode)
{
    size_t i;
    static const uint8_t fill[3] = {0x80, 0x7f, 0x00};
    uint8_t f = fill[test_rnd() % 3];
    for (i = 0; i < n; i++) {
        w[i] = (uint8_t)(test_rnd() >> 11);
        if (mode == 1 && test_rnd() % 8) w[i] = f;
        if (mode < 2 && t != FLASH_TYPE_MXFP4 && (w[i] & 0x7c) == 0x7c) w[i] &= 0xbf;
        if (mode < 2 && t == FLASH_TYPE_Q8_0 && i % 34 == 1) w[i] &= 0xbf;
    }
}

static void check_quantised(flash_type t, size_t n)
{
    static float x[TOKENS * N_MAX], y[ROWS * TOKENS + GUARD], z[ROWS * TOKENS + GUARD];
    static flash__q8 q[TOKENS * N_MAX / 32];
    size_t bytes = flash_row_bytes(t, n), stride = flash__panel_stride(t, kernels.panel_rows);
    uint8_t *w = (uint8_t *)malloc(bytes * 32), *v = (uint8_t *)malloc(bytes * 32), *raw, *panel,
            *same;
    int mode, rows, tokens, i, bad_rows = 0, bad_panel = 0, bad_edge = 0, R = kernels.panel_rows;
    size_t room = stride * (n / 32) * (size_t)kernels.panels;
    raw = (uint8_t *)malloc(room + 192);
    panel = raw + (64 - ((uintptr_t)raw & 63));
    same = (uint8_t *)malloc(room);
    for (mode = 0; mode < 3; mode++) {
        weights(t, w, bytes * 32, mode);
        numbers(x, TOKENS * n, mode);
        if (mode == 1)
            for (i = 0; i < (int)n; i++) x[i] = 3.0f; /* the largest sums */
        if (mode == 1)
            for (i = 0; i < (int)n; i++) x[n + (size_t)i] = -3.0f;
        scalar.quantize(x, TOKENS * n, q);
        for (rows = 1; rows <= ROWS; rows++) {
            poison(y, ROWS + GUARD);
            poison(z, ROWS + GUARD);
            kernels.rows(t, w, bytes, rows, q, n, y);
            scalar.rows(t, w, bytes, rows, q, n, z);
            bad_rows += !all_same(y, z, (size_t)rows);
            bad_edge += !poisoned(y + rows, ROWS + GUARD - (size_t)rows);
        }
        for (rows = 1; rows <= R * kernels.panels; rows++) {
            memset(panel, 0xff, room + 64);
            for (i = 0; i < rows; i += R)
                kernels.pack(t, w + (size_t)i * bytes, bytes, rows - i < R ? rows - i : R, n,
                             panel + (size_t)(i / R) * stride * (n / 32));
            bad_edge += panel[room] != 0xff || panel[room + 63] != 0xff;
            memcpy(same, panel, room); /* whatever follows the rows, nothing is read there */
            for (i = 0; i < 32; i++)
                memcpy(v + (size_t)i * bytes, w + (size_t)(i < rows ? i : 0) * bytes, bytes);
            for (i = 0; i < rows; i += R)
                kernels.pack(t, v + (size_t)i * bytes, bytes, rows - i < R ? rows - i : R, n,
                             panel + (size_t)(i / R) * stride * (n / 32));
            bad_edge += memcmp(same, panel, room) != 0;
            for (tokens = 1; tokens <= TOKENS; tokens++) {
                size_t ldy = (size_t)rows + (size_t)(tokens & 1) * 3;
                float *buffer = (float *)malloc((ldy * TOKENS + GUARD) * 4);
                poison(buffer, ldy * TOKENS + GUARD);
                kernels.panel(t, panel, rows, q, tokens, n, buffer, ldy);
                for (i = 0; i < tokens; i++) {
                    scalar.rows(t, w, bytes, rows, q + (size_t)i * (n / 32), n, z);
                    bad_panel += !all_same(buffer + (size_t)i * ldy, z, (size_t)rows);
                    bad_edge += !poisoned(buffer + (size_t)i * ldy + rows, ldy - (size_t)rows);
                }
                bad_edge += !poisoned(buffer + (size_t)tokens * ldy, GUARD);
                free(buffer);
            }
        }
    }
    if (!CHECK(!bad_rows) || !CHECK(!bad_panel) || !CHECK(!bad_edge))
        printf("    %s n %d: rows %d, panel %d, edge %d\n", flash_type_name(t), (int)n, bad_rows,
               bad_panel, bad_edge);
    free(w);
    free(v);
    free(same);
    free(raw);
}

static void check_plain(flash_type t, size_t n)
{
    static float x[N_MAX + GUARD], y[ROWS + GUARD], z[ROWS + GUARD];
    size_t bytes = flash_row_bytes(t, n);
    uint8_t *w = (uint8_t *)malloc(bytes * ROWS + 1);
    int mode, rows, bad = 0;
    for (mode = 0; mode < 3; mode++) {
        size_t i;
        for (i = 0; i < bytes * ROWS; i++) w[i] = (uint8_t)(test_rnd() >> 9);
        if (mode < 2)
            for (i = 1; i < bytes * ROWS; i += 2)
                if ((w[i] & 0x7c) == 0x7c) w[i] &= 0xbf;
        poison(x, N_MAX + GUARD);
        numbers(x, n, mode);
        for (rows = 1; rows <= ROWS; rows++) {
            poison(y, ROWS + GUARD);
            kernels.rows(t, w, bytes, rows, x, n, y);
            scalar.rows(t, w, bytes, rows, x, n, z);
            bad += !all_same(y, z, (size_t)rows) || !poisoned(y + rows, GUARD);
        }
    }
    if (!CHECK(!bad)) printf("    %s n %d: %d\n", flash_type_name(t), (int)n, bad);
    free(w);
}

static void check_quantize(void)
{
    static float x[N_MAX];
    static flash__q8 a[N_MAX / 32 + 1], b[N_MAX / 32 + 1];
    int mode, rep, bad = 0, bad_edge = 0;
    size_t i, k;
    for (mode = 0; mode < 3; mode++)
        for (rep = 0; rep < 20; rep++) {
            size_t n = 32 * (1 + test_rnd() % (N_MAX / 32));
            numbers(x, n, mode);
            if (rep == 0) memset(x, 0, n * sizeof *x);
            if (rep == 1)
                for (i = 0; i < n; i++) x[i] = ((float)i - 63.5f) / 127.0f; /* ties */
            if (rep == 2) poison(x, n);
            memset(a, 0x5a, sizeof a);
            memset(b, 0x5a, sizeof b);
            kernels.quantize(x, n, a);
            scalar.quantize(x, n, b);
            for (i = 0; i < n / 32; i++) {
                bad += !same(a[i].d, b[i].d) || memcmp(a[i].q, b[i].q, 32) != 0
                    || memcmp(a[i].start, b[i].start, sizeof a[i].start) != 0;
                for (k = 0; k < 3; k++) bad += !same(a[i].ds[k], b[i].ds[k]);
            }
            bad_edge += memcmp(a + n / 32, b + n / 32, sizeof *a) != 0;
        }
    CHECK(!bad);
    CHECK(!bad_edge);
}

static void check_floats(void)
{
    static float a[N_MAX + GUARD], b[N_MAX + GUARD], c[N_MAX + GUARD], z[N_MAX + GUARD];
    static float y_room[N_MAX + 2 * GUARD], wide_room[65536 + 2 * GUARD];
    float *y = y_room + GUARD, *wide = wide_room + GUARD; /* guards on both sides */
    static uint16_t h[65536];
    int mode, from, to, bad = 0, i;
    size_t n;
    poison(y_room, GUARD);
    poison(wide_room, GUARD);
    for (mode = 0; mode < 3; mode++)
        for (n = 1; n <= 300; n += n < 70 ? 1 : 23) {
            poison(a, N_MAX + GUARD);
            poison(b, N_MAX + GUARD);
            numbers(a, n, mode);
            numbers(b, n, mode);
            poison(y, N_MAX + GUARD);
            poison(z, N_MAX + GUARD);
            for (i = 0; i < 2; i++) {
                poison(y, N_MAX + GUARD);
                kernels.glu(i, a, b, n, y);
                scalar.glu(i, a, b, n, z);
                bad += !all_same(y, z, n) || !poisoned(y + n, GUARD);
            }
            poison(y, N_MAX + GUARD);
            kernels.rmsnorm(a, b, 1e-5f, n, y);
            scalar.rmsnorm(a, b, 1e-5f, n, z);
            bad += !all_same(y, z, n) || !poisoned(y + n, GUARD);
            kernels.blend(y, 0.3f, a, 1.7f, n);
            scalar.blend(z, 0.3f, a, 1.7f, n);
            bad += !all_same(y, z, n) || !poisoned(y + n, GUARD);
        }
    CHECK(!bad);
    bad = 0;
    for (mode = 0; mode < 3; mode++)
        for (from = 0; from < 64; from++)
            for (to = from + 1; to <= 64; to += 1 + (mode > 0) * 3) {
                float total[2], most[2];
                poison(y, 64 + GUARD);
                numbers(y + from, (size_t)(to - from), mode);
                memcpy(z, y, sizeof z);
                most[0] = kernels.softmax(y, 0.25f, from, to, total);
                most[1] = scalar.softmax(z, 0.25f, from, to, total + 1);
                bad += !all_same(y, z, 64) || !same(total[0], total[1]) || !poisoned(y + 64, GUARD)
                    || !(most[0] == most[1] || same(most[0], most[1])); /* 0 may equal -0 */
            }
    CHECK(!bad);
    bad = 0;
    for (mode = 0; mode < 3; mode++)
        for (i = 2; i <= 130; i += 2) {
            int style;
            for (style = 0; style < 2; style++) {
                poison(y, N_MAX + GUARD);
                numbers(y, (size_t)i, mode);
                numbers(c, (size_t)i, mode);
                memcpy(z, y, sizeof z);
                kernels.rope(y, c, i, style ? FLASH_ROPE_PAIRS : FLASH_ROPE_PAIRS + 1);
                scalar.rope(z, c, i, style ? FLASH_ROPE_PAIRS : FLASH_ROPE_PAIRS + 1);
                bad += !all_same(y, z, (size_t)i) || !poisoned(y + i, GUARD);
            }
        }
    CHECK(!bad);
    bad = 0;
    for (mode = 0; mode < 3; mode++)
        for (n = 1; n <= 100; n++)
            for (i = 0; i < 2; i++) {
                static int8_t q[100];
                int k;
                poison(a, N_MAX + GUARD);
                numbers(a, i ? n : 1, mode);
                for (k = 0; k < 100; k++) q[k] = (int8_t)(int)(test_rnd() % 255 - 127);
                poison(y, N_MAX + GUARD);
                kernels.widen8(q, a, i, n, y);
                scalar.widen8(q, a, i, n, z);
                bad += !all_same(y, z, n) || !poisoned(y + n, GUARD);
            }
    CHECK(!bad);
    for (i = 0; i < 65536; i++) h[i] = (uint16_t)i;
    bad = 0;
    for (n = 65536 - 37; n <= 65536; n++) {
        poison(wide, 65536 + GUARD);
        kernels.widen(h, n, wide);
        for (i = 0; i < (int)n; i++) bad += !same(wide[i], flash__f16_f32((uint32_t)i));
        bad += !poisoned(wide + n, GUARD);
    }
    CHECK(!bad);
    CHECK(poisoned(y_room, GUARD) && poisoned(wide_room, GUARD));
}

static void check_sgemm(void)
{
    static float a[40 * 40], b[40 * 90], y[20 * 90 + GUARD], z[20 * 90 + GUARD];
    int mode, M, N, K, turned, bad = 0;
    for (mode = 0; mode < 3; mode++)
        for (turned = 0; turned < 2; turned++)
            for (M = 1; M <= 10; M++)
                for (N = 1; N <= 80; N += 1 + M % 3)
                    for (K = 0; K <= 33; K += 11) {
                        size_t lda = turned ? 1 : (size_t)K + 2, ka = turned ? (size_t)M + 3 : 1,
                               ldb = (size_t)N + 5, ldc = (size_t)N + (size_t)(M & 1) * 4;
                        int i;
                        poison(a, FLASH__COUNT(a));
                        poison(b, FLASH__COUNT(b));
                        poison(y, FLASH__COUNT(y));
                        poison(z, FLASH__COUNT(z));
                        for (i = 0; i < (turned ? K : M); i++)
                            numbers(a + (size_t)i * (turned ? ka : lda), (size_t)(turned ? M : K),
                                    mode);
                        for (i = 0; i < K; i++) numbers(b + (size_t)i * ldb, (size_t)N, mode);
                        kernels.sgemm(a, lda, ka, b, ldb, y, ldc, M, N, K);
                        scalar.sgemm(a, lda, ka, b, ldb, z, ldc, M, N, K);
                        bad += !all_same(y, z, FLASH__COUNT(y));
                    }
    CHECK(!bad);
}

/* The kernels of the trainer. */
static void check_training(void)
{
    enum { MOST = 80 };
    static float a[2][MOST + GUARD], b[2][MOST + GUARD], c[2][MOST + GUARD], d[MOST];
    const flash__kernels *k[2];
    flash__rates r = {0.5f, 0.9f, 0.95f, 0.1f, 0.05f, 0.999f, 1e-3f, 20.0f, 1e-8f};
    int mode, n, bad = 0;
    k[0] = &kernels;
    k[1] = &scalar;
    for (mode = 0; mode < 3; mode++)
        for (n = 0; n <= MOST; n++) {
            int i, op;
            for (op = 0; op < 3; op++) {
                numbers(d, MOST, mode);
                for (i = 0; i < 2; i++) {
                    poison(a[i], MOST + GUARD);
                    poison(b[i], MOST + GUARD);
                    poison(c[i], MOST + GUARD);
                }
                numbers(a[0], (size_t)(op == 1 ? 64 : n), mode);
                numbers(b[0], (size_t)(op == 1 ? 64 : n), mode);
                numbers(c[0], (size_t)n, mode);
                for (i = 0; op == 2 && i < n; i++) c[0][i] = c[0][i] < 0 ? -c[0][i] : c[0][i];
                memcpy(a[1], a[0], sizeof a[0]);
                memcpy(b[1], b[0], sizeof b[0]);
                memcpy(c[1], c[0], sizeof c[0]);
                for (i = 0; i < 2; i++) {
                    if (op == 0) k[i]->glu_back(a[i], b[i], d, (size_t)n);
                    if (op == 1) k[i]->fade(a[i], b[i], d[0], d[1], d[2]);
                    if (op == 2) k[i]->adamw(a[i], b[i], c[i], d, (size_t)n, &r);
                }
                bad += !all_same(a[0], a[1], MOST + GUARD) + !all_same(b[0], b[1], MOST + GUARD)
                    + !all_same(c[0], c[1], MOST + GUARD);
            }
        }
    CHECK(!bad);
}

static void check_turn(void)
{
    static float x[40 * 90], y[90 * 50 + GUARD], z[90 * 50 + GUARD];
    int rows, cols, bad = 0;
    for (rows = 0; rows <= 35; rows++)
        for (cols = 0; cols <= 80; cols += 1 + rows % 5) {
            numbers(x, FLASH__COUNT(x), 0);
            poison(y, FLASH__COUNT(y));
            poison(z, FLASH__COUNT(z));
            kernels.turn(x, (size_t)cols + 3, rows, cols, y, (size_t)rows + 2);
            scalar.turn(x, (size_t)cols + 3, rows, cols, z, (size_t)rows + 2);
            bad += !all_same(y, z, FLASH__COUNT(y));
            if (rows > 4 && cols > 6) bad += !same(y[5 * (rows + 2) + 4], x[4 * (cols + 3) + 5]);
        }
    CHECK(!bad);
}

static void check_limits(void)
{
    static uint8_t p[4096];
    size_t i;
    for (i = 0; i < sizeof p; i++) p[i] = (uint8_t)test_rnd();
    CHECK(kernels.read(p, 0) == 0);
    CHECK(kernels.read(p, 256) == scalar.read(p, 256));
    CHECK(kernels.read(p, 4096) == scalar.read(p, 4096));
    CHECK(kernels.spin(0) == 0);
    CHECK(kernels.spin(1000) >= 1000);
}

int main(void)
{
    static const flash_type types[] = {
        FLASH_TYPE_Q4_0,   FLASH_TYPE_Q4_1,   FLASH_TYPE_Q5_0, FLASH_TYPE_Q5_1, FLASH_TYPE_Q8_0,
        FLASH_TYPE_Q2_K,   FLASH_TYPE_Q3_K,   FLASH_TYPE_Q4_K, FLASH_TYPE_Q5_K, FLASH_TYPE_Q6_K,
        FLASH_TYPE_IQ4_NL, FLASH_TYPE_IQ4_XS, FLASH_TYPE_MXFP4};
    int isa, tried = 0;
    flash__kernels_select(&scalar, FLASH_ISA_SCALAR);
    for (isa = FLASH_ISA_SCALAR + 1; isa < FLASH_ISA_COUNT; isa++) {
        size_t k, n;
        if (flash__kernels_select(&kernels, (flash_isa)isa)) continue;
        SECTION(flash_isa_name((flash_isa)isa));
        tried++;
        for (k = 0; k < FLASH__COUNT(types); k++) {
            size_t block = (size_t)flash_type_block(types[k]);
            if (block == 32)
                for (n = 32; n <= 1088; n += n < 128 ? 32 : 480) check_quantised(types[k], n);
            for (n = 256; n <= 1024; n += block == 32 ? 768 : 256) check_quantised(types[k], n);
        }
        for (n = 1; n <= 300; n += n < 40 ? 1 : 29) {
            check_plain(FLASH_TYPE_F32, n);
            check_plain(FLASH_TYPE_F16, n);
            check_plain(FLASH_TYPE_BF16, n);
        }
        check_quantize();
        check_floats();
        check_sgemm();
        check_training();
        check_turn();
        check_limits();
    }
    if (flash_isa_best() == FLASH_ISA_SCALAR)
        SKIP("kernels", "no SIMD in this build");
    else
        CHECK(tried > 0);
    return test_done();
}
