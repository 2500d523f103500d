/* Tests of weight types: dequantisation and products against blocks worked out by hand, a second
   implementation (reference.h), and real files whose values others computed. */
#include "../flash.h"
#include "reference.h"
#include "test.h"

static const struct {
    flash_type type;
    const char *name;
    int items, bytes;
    int scale[3]; /* offsets of float16 numbers in a block, -1: none */
} types[] = {
    {FLASH_TYPE_F32, "F32", 1, 4, {-1, -1, -1}},
    {FLASH_TYPE_F16, "F16", 1, 2, {0, -1, -1}},
    {FLASH_TYPE_BF16, "BF16", 1, 2, {-1, -1, -1}},
    {FLASH_TYPE_Q4_0, "Q4_0", 32, 18, {0, -1, -1}},
    {FLASH_TYPE_Q4_1, "Q4_1", 32, 20, {0, 2, -1}},
    {FLASH_TYPE_Q5_0, "Q5_0", 32, 22, {0, -1, -1}},
    {FLASH_TYPE_Q5_1, "Q5_1", 32, 24, {0, 2, -1}},
    {FLASH_TYPE_Q8_0, "Q8_0", 32, 34, {0, -1, -1}},
    {FLASH_TYPE_Q2_K, "Q2_K", 256, 84, {80, 82, -1}},
    {FLASH_TYPE_Q3_K, "Q3_K", 256, 110, {108, -1, -1}},
    {FLASH_TYPE_Q4_K, "Q4_K", 256, 144, {0, 2, -1}},
    {FLASH_TYPE_Q5_K, "Q5_K", 256, 176, {0, 2, -1}},
    {FLASH_TYPE_Q6_K, "Q6_K", 256, 210, {208, -1, -1}},
    {FLASH_TYPE_IQ4_NL, "IQ4_NL", 32, 18, {0, -1, -1}},
    {FLASH_TYPE_IQ4_XS, "IQ4_XS", 256, 136, {0, -1, -1}},
    {FLASH_TYPE_MXFP4, "MXFP4", 32, 17, {-1, -1, -1}},
};
enum { N_TYPES = sizeof types / sizeof *types };

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

/* Fills p with random blocks of type t. The exponents of their float16 scales lie in [e0, e0 +
   n_e). If n_e is small, F32, BF16 and MXFP4 span only a few octaves as well. */
static void random_blocks(int t, uint8_t *p, size_t blocks, unsigned e0, unsigned n_e)
{
    size_t bytes = (size_t)types[t].bytes;
    for (size_t i = 0; i < blocks * bytes; i++) p[i] = (uint8_t)(test_rnd() >> 11);
    for (size_t b = 0; b < blocks; b++, p += bytes) {
        for (int k = 0; k < 3 && types[t].scale[k] >= 0; k++) {
            put16(p + types[t].scale[k],
                  (test_rnd() & 0x83ff) | (e0 + (test_rnd() >> 8) % n_e) << 10);
        }
        unsigned wide = n_e > 16 ? 254 : n_e;
        unsigned e = n_e > 16 ? 1 : 120;
        e += (test_rnd() >> 8) % wide;
        if (types[t].type == FLASH_TYPE_F32 || types[t].type == FLASH_TYPE_BF16)
            put16(p + bytes - 2, (test_rnd() & 0x807f) | e << 7);
        else if (types[t].type == FLASH_TYPE_MXFP4)
            p[0] = (uint8_t)e;
    }
}

/* --- names and sizes --------------------------------------------------------------- */

static void test_sizes(void)
{
    SECTION("sizes");
    for (int t = 0; t < N_TYPES; t++) {
        size_t items = (size_t)types[t].items, bytes = (size_t)types[t].bytes;
        CHECK_STR(flash_type_name(types[t].type), types[t].name);
        CHECK_EQ(flash_type_block(types[t].type), items);
        for (size_t k = 1; k < 40; k += 7) {
            CHECK_EQ(flash_row_bytes(types[t].type, k * items), k * bytes);
            if (items > 1) {
                CHECK_EQ(flash_row_bytes(types[t].type, k * items + 1), 0);
                CHECK_EQ(flash_row_bytes(types[t].type, k * items - 1), 0);
                CHECK_EQ(flash_row_bytes(types[t].type, k * items + items / 2), 0);
            }
        }
        if (bytes > items) CHECK_EQ(flash_row_bytes(types[t].type, SIZE_MAX / items * items), 0);
    }
    static const int unknown[] = {4, 5, 9, 15, 16, 24, 31, 38, 40, 255, -1, FLASH_TYPE_NONE};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        CHECK_EQ(flash_row_bytes((flash_type)unknown[i], 256), 0);
        CHECK_EQ(flash_type_block((flash_type)unknown[i]), 0);
    }
}

/* --- blocks by hand ---------------------------------------------------------------- */

static float hand[256]; /* the items of the block unpacked last */

static void unpack(flash_type t, const uint8_t *block)
{
    memset(hand, 0x55, sizeof hand);
    CHECK_EQ(flash_dequantize(t, block, hand, (size_t)flash_type_block(t)), FLASH_OK);
}

/* Checks that the items [from, to) of hand are all v. */
static void expect(int from, int to, float v)
{
    for (int i = from; i < to; i++) {
        if (hand[i] != v) {
            printf("    item %d is %g, not %g\n", i, (double)hand[i], (double)v);
            CHECK(hand[i] == v);
            return;
        }
    }
    CHECK(1);
}

static void test_by_hand(void)
{
    enum { ONE = 0x3c00, TWO = 0x4000, HALF = 0x3800, MINUS_ONE = 0xbc00 };
    uint8_t b[256];
    SECTION("floats");
    {
        const struct {
            unsigned bits;
            double f16, bf16;
        } f[] = {
            {0x3c00, 1, ldexp(1, -7)},
            {0xc000, -2, -2},
            {0x0001, ldexp(1, -24), ldexp(1, -133)},
            {0x7bff, 65504, ldexp(255, 113)},
            {0x0400, ldexp(1, -14), ldexp(1, -119)},
            {0x83ff, ldexp(-1023, -24), ldexp(-255, -127)},
        };
        for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
            put16(b, f[i].bits);
            unpack(FLASH_TYPE_F16, b);
            CHECK(hand[0] == f[i].f16);
            unpack(FLASH_TYPE_BF16, b);
            CHECK(hand[0] == f[i].bf16);
        }
        put16(b, 0);
        put16(b + 2, 0xc0a0);
        unpack(FLASH_TYPE_F32, b);
        CHECK(hand[0] == -5.0f);
        put16(b, 0x7c00);
        unpack(FLASH_TYPE_F16, b);
        CHECK(hand[0] == INFINITY);
        put16(b, 0xfe00);
        unpack(FLASH_TYPE_F16, b);
        CHECK(hand[0] != hand[0]);
    }

    SECTION("Q4_0");
    put16(b, TWO);
    for (int j = 0; j < 16; j++) b[2 + j] = (uint8_t)(j | (15 - j) << 4);
    unpack(FLASH_TYPE_Q4_0, b);
    for (int j = 0; j < 16; j++) {
        CHECK(hand[j] == 2.0f * (float)(j - 8));
        CHECK(hand[j + 16] == 2.0f * (float)(7 - j));
    }

    SECTION("Q4_1");
    put16(b, HALF);
    put16(b + 2, MINUS_ONE);
    for (int j = 0; j < 16; j++) b[4 + j] = (uint8_t)(j | (15 - j) << 4);
    unpack(FLASH_TYPE_Q4_1, b);
    for (int j = 0; j < 16; j++) {
        CHECK(hand[j] == 0.5f * (float)j - 1.0f);
        CHECK(hand[j + 16] == 0.5f * (float)(15 - j) - 1.0f);
    }

    SECTION("Q5_0"); /* one fifth bit at a time */
    for (int bit = 0; bit < 32; bit++) {
        memset(b, 0, sizeof b);
        put16(b, ONE);
        b[2 + bit / 8] = (uint8_t)(1 << bit % 8);
        memset(b + 6, 0x73, 16);
        unpack(FLASH_TYPE_Q5_0, b);
        for (int i = 0; i < 32; i++)
            CHECK(hand[i] == (i < 16 ? -13.0f : -9.0f) + (i == bit ? 16.0f : 0.0f));
    }

    SECTION("Q5_1");
    for (int bit = 0; bit < 32; bit++) {
        memset(b, 0, sizeof b);
        put16(b, TWO);
        put16(b + 2, ONE);
        b[4 + bit / 8] = (uint8_t)(1 << bit % 8);
        memset(b + 8, 0x73, 16);
        unpack(FLASH_TYPE_Q5_1, b);
        for (int i = 0; i < 32; i++)
            CHECK(hand[i] == (i < 16 ? 7.0f : 15.0f) + (i == bit ? 32.0f : 0.0f));
    }

    SECTION("Q8_0");
    put16(b, HALF);
    for (int j = 0; j < 32; j++) b[2 + j] = (uint8_t)(j * 8 - 128);
    unpack(FLASH_TYPE_Q8_0, b);
    for (int j = 0; j < 32; j++) CHECK(hand[j] == (float)(j * 4 - 64));

    /* 0xe4 holds 0, 1, 2, 3 from its lowest pair of bits up. */
    SECTION("Q2_K");
    memset(b, 0x21, 16);
    b[15] = 0x53;
    memset(b + 16, 0xe4, 64);
    put16(b + 80, ONE);
    put16(b + 82, HALF);
    unpack(FLASH_TYPE_Q2_K, b);
    for (int p = 0; p < 8; p++) expect(32 * p, 32 * p + (p < 7 ? 32 : 16), (float)(p % 4 - 1));
    expect(240, 256, 6.5f);

    SECTION("Q3_K"); /* high bits set in the first half; scales -31, 1, -15, 1, 2.. */
    memset(b, 0x0f, 32);
    memset(b + 32, 0xe4, 64);
    memset(b + 96, 0x21, 8);
    memset(b + 104, 0xaa, 4);
    b[104] = 0xe4;
    put16(b + 108, ONE);
    unpack(FLASH_TYPE_Q3_K, b);
    expect(0, 32, 0.0f);
    expect(32, 64, 1.0f);
    expect(64, 80, 2.0f * -15.0f);
    expect(80, 96, 2.0f);
    expect(96, 128, 3.0f);
    expect(128, 144, -4.0f * 2.0f);
    expect(144, 160, -4.0f * 2.0f);
    expect(160, 192, -3.0f * 2.0f);
    expect(192, 208, -2.0f * 18.0f);
    expect(208, 224, -2.0f * 2.0f);
    expect(224, 256, -1.0f * 2.0f);
    b[0] = 0x0e; /* item 0 loses its high bit: (0 - 4) * -31 */
    unpack(FLASH_TYPE_Q3_K, b);
    expect(0, 1, 124.0f);
    expect(1, 32, 0.0f);

    SECTION("Q4_K"); /* sub-blocks 0..3: scale 1, min 2; 4..7: scale 19, min 36 */
    put16(b, ONE);
    put16(b + 2, ONE);
    memset(b + 4, 0x41, 4);
    memset(b + 8, 0x82, 4);
    memset(b + 12, 0x43, 4);
    memset(b + 16, 0x95, 128);
    unpack(FLASH_TYPE_Q4_K, b);
    for (int j = 0; j < 8; j++)
        expect(32 * j, 32 * j + 32, j < 4 ? (j % 2 ? 7.0f : 3.0f) : (j % 2 ? 135.0f : 59.0f));

    SECTION("Q5_K"); /* Q4_K plus fifth bits, of item 0 and all of sub-block 6 */
    memset(b + 16, 0x40, 32);
    b[16] = 0x41;
    memset(b + 48, 0x95, 128);
    unpack(FLASH_TYPE_Q5_K, b);
    expect(0, 1, 19.0f);
    for (int j = 0; j < 8; j++) {
        expect(32 * j + (j == 0), 32 * j + 32,
               j < 4        ? (j % 2 ? 7.0f : 3.0f)
                   : j == 6 ? 363.0f
                            : (j % 2 ? 135.0f : 59.0f));
    }

    SECTION("Q6_K"); /* planes 5, 21, 41, 57 less 32; scales -8..7, times 1/2 */
    memset(b, 0x95, 128);
    memset(b + 128, 0xe4, 64);
    for (int s = 0; s < 16; s++) b[192 + s] = (uint8_t)(s - 8);
    put16(b + 208, HALF);
    unpack(FLASH_TYPE_Q6_K, b);
    for (int s = 0; s < 16; s++) {
        static const float plane[4] = {-27, -11, 9, 25};
        expect(16 * s, 16 * s + 16, 0.5f * (float)(s - 8) * plane[s / 2 % 4]);
    }

    {
        static const float nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
        static const float e2m1[16] = {0, 0.5f,  1,  1.5f,  2,  3,  4,  6,
                                       0, -0.5f, -1, -1.5f, -2, -3, -4, -6};
        SECTION("IQ4_NL");
        put16(b, TWO);
        for (int j = 0; j < 16; j++) b[2 + j] = (uint8_t)(j | (15 - j) << 4);
        unpack(FLASH_TYPE_IQ4_NL, b);
        for (int j = 0; j < 16; j++) {
            CHECK(hand[j] == 2.0f * nl[j]);
            CHECK(hand[j + 16] == 2.0f * nl[15 - j]);
        }
        SECTION("MXFP4");
        b[0] = 130; /* 2^3 */
        for (int j = 0; j < 16; j++) b[1 + j] = (uint8_t)(j | (15 - j) << 4);
        unpack(FLASH_TYPE_MXFP4, b);
        for (int j = 0; j < 16; j++) {
            CHECK(hand[j] == 8.0f * e2m1[j]);
            CHECK(hand[j + 16] == 8.0f * e2m1[15 - j]);
        }
        b[0] = 0; /* 2^-127: subnormal */
        unpack(FLASH_TYPE_MXFP4, b);
        CHECK(hand[7] == (float)ldexp(6, -127) && hand[1] == (float)ldexp(1, -128));
        SECTION("IQ4_XS"); /* scales 33 and 34, less 32; the last one 2 + 48 - 32 */
        put16(b, ONE);
        put16(b + 2, 0xeaaa);
        memset(b + 4, 0x21, 4);
        memset(b + 8, 0xf0, 128);
        b[8] = 0x48;
        unpack(FLASH_TYPE_IQ4_XS, b);
        expect(0, 1, 1.0f);
        expect(1, 16, -127.0f);
        expect(16, 17, -49.0f);
        expect(17, 32, 113.0f);
        for (int j = 1; j < 8; j++) {
            float s = j == 7 ? 18.0f : j % 2 ? 2.0f : 1.0f;
            expect(32 * j, 32 * j + 16, -127.0f * s);
            expect(32 * j + 16, 32 * j + 32, 113.0f * s);
        }
    }
}

/* --- random blocks ----------------------------------------------------------------- */

static void test_random(void)
{
    enum { BLOCKS = 8, TURNS = 64 };
    static uint8_t src[BLOCKS * 256 + 1];
    static float got[BLOCKS * 256 + 1];
    static double want[BLOCKS * 256];
    for (int t = 0; t < N_TYPES; t++) {
        size_t n = (size_t)(BLOCKS * types[t].items), wrong = 0;
        SECTION(types[t].name);
        for (int turn = 0; turn < TURNS; turn++) {
            uint8_t *p = src + turn % 2; /* rows may begin anywhere */
            random_blocks(t, p, BLOCKS, 0, 31);
            got[n] = 12345;
            CHECK_EQ(flash_dequantize(types[t].type, p, got, n), FLASH_OK);
            CHECK(got[n] == 12345);
            ref_dequantize((uint32_t)types[t].type, p, want, n);
            for (size_t i = 0; i < n; i++) wrong += !same_bits(got[i], (float)want[i]);
        }
        CHECK_EQ(wrong, 0);
        if (types[t].items > 1) {
            CHECK_EQ(flash_dequantize(types[t].type, src, got, n - 1), FLASH_E_ARGUMENT);
            CHECK_EQ(flash_dequantize(types[t].type, src, got, (size_t)types[t].items / 2),
                     FLASH_E_ARGUMENT);
        }
    }
    CHECK_EQ(flash_dequantize((flash_type)4, src, got, 32), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_dequantize(FLASH_TYPE_NONE, src, got, 32), FLASH_E_ARGUMENT);
}

/* Compares rows times x with the same sums in double, with activations rounded as documented. */
static void test_products(void)
{
    enum { N = 2048, ROWS = 5 };
    static uint8_t w[ROWS * N * 4];
    static float x[N], y[ROWS], y2[ROWS];
    static double xq[N], wd[N];
    uint8_t *work = (uint8_t *)malloc(flash_dot_work(N) + 1);
    if (!CHECK(work != NULL)) return;
    for (int t = 0; t < N_TYPES; t++) {
        int quantised = types[t].items > 1;
        double worst = 0;
        SECTION(types[t].name);
        for (int turn = 0; turn < 40; turn++) {
            size_t n = (size_t)types[t].items * (1 + (size_t)turn * 3 % (N / 256));
            size_t rows = 1 + (size_t)turn % ROWS, bytes = flash_row_bytes(types[t].type, n);
            random_blocks(t, w, rows * n / (size_t)types[t].items, 8, 8);
            for (size_t i = 0; i < n; i++) {
                float sign = test_rnd() & 256 ? 1.0f : -1.0f;
                x[i] = turn == 7 ? 0.0f : sign * (float)(test_rnd() >> 8) / (float)(1 << 22);
                if (turn % 4 == 3 && i % 32 == 5) x[i] *= 1000;
                if (turn == 11 && i / 32 % 2) x[i] = 0;
                xq[i] = x[i];
            }
            if (quantised) ref_int8(xq, xq, (int)n);
            memset(y, 0x55, sizeof y);
            CHECK_EQ(
                flash_dot_rows(types[t].type, w, rows, n, x, y, work + turn % 2, FLASH_ISA_SCALAR),
                FLASH_OK);
            for (size_t r = 0; r < rows; r++) {
                double sum = 0, size = 0;
                ref_dequantize((uint32_t)types[t].type, w + r * bytes, wd, n);
                for (size_t i = 0; i < n; i++) {
                    sum += wd[i] * xq[i];
                    size += fabs(wd[i] * xq[i]);
                }
                double error = size > 0 ? fabs(y[r] - sum) / size : y[r] != 0;
                worst = error > worst ? error : worst;
            }
            memset(y2, 0, sizeof y2);
            CHECK_EQ(flash_dot_rows(types[t].type, w, rows, n, x, y2, work, FLASH_ISA_AUTO),
                     FLASH_OK);
            CHECK(memcmp(y, y2, rows * sizeof *y) == 0);
        }
        if (!CHECK(worst <= 1e-5)) printf("    error %g of the sum of magnitudes\n", worst);
        if (quantised) {
            CHECK_EQ(flash_dot_rows(types[t].type, w, 1, (size_t)types[t].items + 1, x, y, work,
                                    FLASH_ISA_AUTO),
                     FLASH_E_ARGUMENT);
        }
    }
    free(work);
}

/* Scales and activations that are NaN, infinite or huge may give any result, but no crash and no
   undefined conversion. */
static void test_hostile(void)
{
    static const unsigned bad[] = {0x7c00, 0xfc00, 0x7e00, 0xffff, 0x7bff};
    const float odd[] = {INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 1e-45f, 1e-39f};
    static uint8_t w[512];
    float x[256], y[1];
    static float dst[256];
    uint8_t *work = (uint8_t *)malloc(flash_dot_work(256));
    SECTION("not numbers");
    for (int t = 0; work && t < N_TYPES; t++) {
        size_t n = (size_t)types[t].items;
        for (size_t k = 0; k < sizeof bad / sizeof *bad + 2; k++) {
            random_blocks(t, w, 1, 8, 8);
            for (int s = 0; s < 3 && types[t].scale[s] >= 0; s++)
                put16(w + types[t].scale[s], bad[k % (sizeof bad / sizeof *bad)]);
            if (k >= sizeof bad / sizeof *bad) memset(w, k % 2 ? 0xff : 0x7f, sizeof w);
            CHECK_EQ(flash_dequantize(types[t].type, w, dst, n), FLASH_OK);
            for (size_t o = 0; o < sizeof odd / sizeof *odd; o++) {
                for (size_t i = 0; i < n; i++) x[i] = i % 3 ? (float)i : odd[o];
                CHECK_EQ(flash_dot_rows(types[t].type, w, 1, n, x, y, work, FLASH_ISA_SCALAR),
                         FLASH_OK);
            }
        }
    }
    free(work);
}

/* --- real files -------------------------------------------------------------------- */

/* Inflate (RFC 1951), enough for one trusted archive: a wrong stream gives a wrong length. */
typedef struct bits {
    const uint8_t *p, *end;
    uint32_t hold;
    int n;
} bits;

static int take(bits *b, int n)
{
    while (b->n < n) {
        b->hold |= (uint32_t)(b->p < b->end ? *b->p++ : 0) << b->n;
        b->n += 8;
    }
    int v = (int)(b->hold & ((1u << n) - 1));
    b->hold >>= n;
    b->n -= n;
    return v;
}

typedef struct huffman {
    int count[16], symbol[288];
} huffman;

static void huffman_make(huffman *h, const uint8_t *len, int n)
{
    int at[16] = {0};
    memset(h, 0, sizeof *h);
    for (int i = 0; i < n; i++) h->count[len[i]] += len[i] > 0;
    for (int i = 1; i < 15; i++) at[i + 1] = at[i] + h->count[i];
    for (int i = 0; i < n; i++)
        if (len[i]) h->symbol[at[len[i]]++] = i;
}

static int huffman_take(bits *b, const huffman *h)
{
    int code = 0, first = 0, index = 0;
    for (int len = 1; len < 16; len++) {
        code |= take(b, 1);
        if (code - first < h->count[len]) return h->symbol[index + code - first];
        index += h->count[len];
        first = (first + h->count[len]) << 1;
        code <<= 1;
    }
    return 256;
}

static size_t inflate(const uint8_t *src, size_t bytes, uint8_t *dst, size_t cap)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
    bits b = {src, src + bytes, 0, 0};
    size_t out = 0;
    int last = 0;
    while (!last) {
        huffman lit, dist;
        uint8_t len[320] = {0};
        last = take(&b, 1);
        int kind = take(&b, 2), n_lit = 288, n_dist = 30;
        if (kind == 0) {
            b.hold = 0;
            b.n = 0;
            size_t n = b.end - b.p >= 4 ? (size_t)(b.p[0] | b.p[1] << 8) : 0;
            b.p += 4;
            if (n > (size_t)(b.end - b.p) || n > cap - out) return 0;
            memcpy(dst + out, b.p, n);
            out += n;
            b.p += n;
            continue;
        }
        if (kind == 1) {
            for (int i = 0; i < 288; i++)
                len[i] = (uint8_t)(i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8);
            memset(len + 288, 5, 30);
        } else {
            n_lit = 257 + take(&b, 5);
            n_dist = 1 + take(&b, 5);
            int n_code = 4 + take(&b, 4), n = 0;
            for (int i = 0; i < n_code; i++) len[order[i]] = (uint8_t)take(&b, 3);
            huffman_make(&lit, len, 19);
            memset(len, 0, sizeof len);
            while (n < n_lit + n_dist) {
                int s = huffman_take(&b, &lit), again = 1;
                uint8_t v = (uint8_t)s;
                if (s > 15) {
                    v = s == 16 && n ? len[n - 1] : 0;
                    again = s == 16 ? 3 + take(&b, 2)
                        : s == 17   ? 3 + take(&b, 3)
                                    : 11 + take(&b, 7);
                }
                while (again-- && n < 320) len[n++] = v;
            }
        }
        huffman_make(&lit, len, n_lit);
        huffman_make(&dist, len + n_lit, n_dist);
        for (int s; (s = huffman_take(&b, &lit)) != 256;) {
            if (s < 256 && out < cap) {
                dst[out++] = (uint8_t)s;
                continue;
            }
            /* The extra bits grow by one every four codes of lengths, every two of distances. */
            int k = s - 257, extra = k < 8 ? 0 : k / 4 - 1;
            size_t run = k == 28 ? 258 : k < 8 ? (size_t)k + 3 : (size_t)((4 + k % 4) << extra) + 3;
            run += k == 28 ? 0 : (size_t)take(&b, extra);
            int d = huffman_take(&b, &dist), more = d < 4 ? 0 : d / 2 - 1;
            size_t back = (size_t)(d < 4 ? d : (2 + d % 2) << more) + 1 + (size_t)take(&b, more);
            if (back > out || run > cap - out) return 0;
            for (; run; run--, out++) dst[out] = dst[out - back];
        }
    }
    return out;
}

/* Returns member i of a zip archive, unpacked, *n bytes (the caller frees them), or NULL if there
   is none. name becomes its name without ".npy". */
static uint8_t *zip_member(const uint8_t *zip, size_t bytes, int i, char *name, size_t cap,
                           size_t *n)
{
    const uint8_t *end = zip + bytes - 22, *c = zip + get32(end + 16);
    if (i >= (end[10] | end[11] << 8)) return NULL;
    while (i--) c += 46 + (c[28] | c[29] << 8) + (c[30] | c[31] << 8) + (c[32] | c[33] << 8);
    size_t name_bytes = (size_t)(c[28] | c[29] << 8) - 4;
    const uint8_t *local = zip + get32(c + 42);
    const uint8_t *data = local + 30 + (local[26] | local[27] << 8) + (local[28] | local[29] << 8);
    uint8_t *out = (uint8_t *)malloc(get32(c + 24));
    *n = out ? inflate(data, get32(c + 20), out, get32(c + 24)) : 0;
    snprintf(name, cap, "%.*s", (int)name_bytes, (const char *)(c + 46));
    return out;
}

static void test_truth(void)
{
    size_t zip_bytes, n;
    const char *path = test_shared("quant/devstral-slice/slice.gguf");
    const char *truth = test_shared("quant/devstral-slice/dequantized_truth.npz");
    uint8_t *zip = test_read(truth, &zip_bytes);
    flash_source source = {0};
    flash_gguf *g = NULL;
    SECTION("truth");
    if (!path || !zip) {
        SKIP("dequantised truth", "quant/devstral-slice");
        free(zip);
        return;
    }
    source.path = path;
    if (CHECK_EQ(flash_gguf_open(&g, &source, NULL, NULL), FLASH_OK)) {
        char name[64];
        uint8_t *npy;
        int members = 0;
        for (int i = 0; (npy = zip_member(zip, zip_bytes, i, name, sizeof name, &n)) != NULL; i++) {
            flash_tensor t;
            size_t head = n > 10 ? 10 + (size_t)(npy[8] | npy[9] << 8) : n, wrong = 0;
            if (CHECK_EQ(flash_gguf_find_tensor(g, name, &t), FLASH_OK)
                && CHECK_EQ((n - head) / 4, t.ne[0] * t.ne[1])) {
                float *row = (float *)malloc((size_t)t.ne[0] * 4);
                size_t cols = (size_t)t.ne[0], bytes = flash_row_bytes(t.type, cols);
                for (size_t r = 0; r < t.ne[1]; r++) {
                    CHECK_EQ(flash_dequantize(t.type, t.data + r * bytes, row, cols), FLASH_OK);
                    for (size_t k = 0; k < cols; k++) {
                        uint32_t u;
                        memcpy(&u, &row[k], 4);
                        wrong += u != get32(npy + head + 4 * (r * cols + k));
                    }
                }
                CHECK_EQ(wrong, 0);
                free(row);
            }
            free(npy);
            members++;
        }
        CHECK_EQ(members, 3);
    }
    flash_gguf_free(g);
    free(zip);
}

/* A tensor of a ggmf file. The file has six words of header and then, for each tensor: number of
   dimensions, length of the name, type, dimensions, name, data. */
typedef struct ggmf {
    char name[64];
    uint32_t type;
    size_t n, cols;
    const uint8_t *data;
} ggmf;

static const uint8_t *ggmf_next(const uint8_t *p, const uint8_t *end, ggmf *t)
{
    static const flash_type of[] = {
        FLASH_TYPE_F32,  FLASH_TYPE_F16,  FLASH_TYPE_Q4_0, FLASH_TYPE_Q4_1, FLASH_TYPE_NONE,
        FLASH_TYPE_NONE, FLASH_TYPE_NONE, FLASH_TYPE_Q5_0, FLASH_TYPE_Q5_1, FLASH_TYPE_Q8_0};
    if (end - p < 16) return NULL;
    uint32_t dims = get32(p), key = get32(p + 4), type = get32(p + 8);
    p += 12;
    t->type = type < 10 ? (uint32_t)of[type] : (uint32_t)FLASH_TYPE_NONE;
    t->cols = get32(p);
    for (t->n = 1; dims; dims--, p += 4) t->n *= get32(p);
    snprintf(t->name, sizeof t->name, "%.*s", (int)key, (const char *)p);
    t->data = p + key;
    return t->data + t->n / t->cols * flash_row_bytes((flash_type)t->type, t->cols);
}

/* Compares a file of a smaller type with its FP32 sibling. A value may be off by half a step, plus
   what float16 scales add (2^-11 of the largest value). Q5_0 makes the value of largest magnitude
   -16, so that its near opposite is clipped to 15: there a whole step is allowed. */
static void test_siblings(const char *rel, flash_type type)
{
    size_t n_full, n_quant;
    uint8_t *full = test_read(test_shared("quant/rwkv.cpp/tiny-rwkv-5v2-730K-FP32.bin"), &n_full);
    uint8_t *quant = test_read(test_shared(rel), &n_quant);
    SECTION(rel);
    if (!full || !quant) {
        SKIP("siblings of rwkv.cpp", rel);
    } else {
        const uint8_t *a = full + 24, *b = quant + 24;
        ggmf f, q;
        size_t blocks = 0, wrong = 0, tensors = 0;
        while ((a = ggmf_next(a, full + n_full, &f)) && (b = ggmf_next(b, quant + n_quant, &q))) {
            if (!CHECK_STR(f.name, q.name) || !CHECK_EQ(f.n, q.n)) break;
            float *v = (float *)malloc(q.n * sizeof *v);
            tensors += (flash_type)q.type == type;
            CHECK_EQ(flash_dequantize((flash_type)q.type, q.data, v, q.n), FLASH_OK);
            for (size_t i = 0; i < q.n; i++) {
                double x = ref_f32(f.data + 4 * i), half = fabs(x) / 2048, m = 0;
                if (type == FLASH_TYPE_F16 && half < 1.0 / (1 << 25))
                    half = 1.0 / (1 << 25); /* subnormal */
                const uint8_t *block = q.data + i / 32 * (type == FLASH_TYPE_Q5_0 ? 22 : 24);
                if ((flash_type)q.type == FLASH_TYPE_F32) {
                    half = 0;
                } else if (type == FLASH_TYPE_Q5_0) {
                    double d = fabs(ref_f16(block));
                    half = d * (fabs(v[i]) == d * 15 ? 1.01 : 0.51);
                    blocks += i % 32 == 0;
                } else if (type == FLASH_TYPE_Q5_1) {
                    double d = fabs(ref_f16(block));
                    m = fabs(ref_f16(block + 2));
                    half = d * 0.52 + m / 2048;
                    blocks += i % 32 == 0;
                }
                wrong += !(fabs(x - v[i]) <= half);
            }
            free(v);
        }
        CHECK_EQ(wrong, 0);
        CHECK(tensors > 10);
        CHECK(type == FLASH_TYPE_F16 || blocks > 10000);
    }
    free(full);
    free(quant);
}

int main(void)
{
    test_sizes();
    test_by_hand();
    test_random();
    test_products();
    test_hostile();
    test_truth();
    test_siblings("quant/rwkv.cpp/tiny-rwkv-5v2-730K-FP16.bin", FLASH_TYPE_F16);
    test_siblings("quant/rwkv.cpp/tiny-rwkv-5v2-730K-Q5_0.bin", FLASH_TYPE_Q5_0);
    test_siblings("quant/rwkv.cpp/tiny-rwkv-5v2-730K-Q5_1.bin", FLASH_TYPE_Q5_1);
    return test_done();
}
