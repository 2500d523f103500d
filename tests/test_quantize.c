/* Tests of flash_quantize: errors within the limits of the reference project's tests, the same
   bytes on every machine, round trips, unusual rows (zeros, constants, outliers, NaN, infinities),
   real weights. */
#include "../flash.h"
#include "test.h"
#include <float.h>
#include <math.h>

enum { N = 4096 };

/* error, dot: limits from llama.cpp's tests/test-quantize-fns.cpp, for the error (root of the sum
   of squares, divided by N) and for the absolute error of a dot product (divided by N). hash: of
   the bytes that a row of smooth() gives, the same on every machine. */
static const struct {
    flash_type type;
    double error, dot;
    uint32_t hash;
} types[] = {
    {FLASH_TYPE_F32, 0, 1e-6, 0x918cf23e},        {FLASH_TYPE_F16, 0.002, 0.02, 0x080e0f98},
    {FLASH_TYPE_BF16, 0.002, 0.02, 0x74d5aa9b},   {FLASH_TYPE_Q4_0, 0.002, 0.02, 0x4c40de5b},
    {FLASH_TYPE_Q4_1, 0.002, 0.02, 0x5c8f8320},   {FLASH_TYPE_Q5_0, 0.002, 0.02, 0xe090e89a},
    {FLASH_TYPE_Q5_1, 0.002, 0.02, 0xa7293937},   {FLASH_TYPE_Q8_0, 0.002, 0.02, 0xf2677f9c},
    {FLASH_TYPE_Q2_K, 0.0075, 0.04, 0x51b93d2d},  {FLASH_TYPE_Q3_K, 0.004, 0.02, 0x82d17a62},
    {FLASH_TYPE_Q4_K, 0.002, 0.02, 0x91c827fa},   {FLASH_TYPE_Q5_K, 0.002, 0.02, 0x70fccef7},
    {FLASH_TYPE_Q6_K, 0.002, 0.02, 0x75cffd4e},   {FLASH_TYPE_IQ4_NL, 0.002, 0.02, 0x707d09e3},
    {FLASH_TYPE_IQ4_XS, 0.002, 0.02, 0xfaef2a95},
};
enum { N_TYPES = sizeof types / sizeof *types };

static float x[N], y[N], z[N];
static uint8_t a[N * 4 + 1], b[N * 4];

/* Quantises and dequantises n floats, at an address that is unaligned on purpose. */
static void there_and_back(flash_type t, const float *from, float *to, size_t n)
{
    CHECK_EQ(flash_quantize(t, from, a + 1, n), FLASH_OK);
    CHECK_EQ(flash_dequantize(t, a + 1, to, n), FLASH_OK);
}

/* Returns the root of the sum of squared differences, NaN if a value is NaN. */
static double distance(const float *p, const float *q, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((double)p[i] - q[i]) * ((double)p[i] - q[i]);
    return sqrt(sum);
}

static int all_zero(const float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0) return 0;
    return 1;
}

static int all_finite(const float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(p[i]) <= FLT_MAX)) return 0;
    return 1;
}

/* Fills p with random numbers of about normal distribution, exact in every arithmetic. */
static void smooth(float *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = test_rnd(), v = test_rnd();
        p[i] = (float)((int)(u & 0xffff) + (int)(u >> 16) - (int)(v & 0xffff) - (int)(v >> 16))
            / 1048576;
    }
}

static void test_limits(void)
{
    static uint8_t work[N * 4 + 4096];
    SECTION("limits");
    if (!CHECK(flash_dot_work(N) <= sizeof work)) return;
    for (int i = 0; i < N; i++) {
        x[i] = 0.1f + 2 * cosf((float)i);
        z[i] = 0.1f + 2 * cosf((float)i + 1);
    }
    for (int t = 0; t < N_TYPES; t++) {
        double exact = 0, error, dot;
        float product = 0;
        there_and_back(types[t].type, x, y, N);
        error = distance(x, y, N) / N;
        for (int i = 0; i < N; i++) exact += (double)x[i] * z[i];
        CHECK_EQ(flash_dot_rows(types[t].type, a + 1, 1, N, z, &product, work, FLASH_ISA_SCALAR),
                 FLASH_OK);
        dot = fabs(product - exact) / N;
        if (!CHECK(error <= types[t].error) || !CHECK(dot < types[t].dot)) {
            printf("    %s: error %.6f, product %.6f\n", flash_type_name(types[t].type), error,
                   dot);
        }
        if (getenv("FLASH_VERBOSE")) {
            printf("%-7s error %.6f of %.4f, product %.6f of %.2f\n",
                   flash_type_name(types[t].type), error, types[t].error, dot, types[t].dot);
        }
    }
}

static void test_bytes(void)
{
    /* -8 ... 7 and 7 ... -8: the scale is 1, item i and item i+16 share a byte */
    static const uint8_t q4_0[18] = {0x00, 0x3c, 0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96,
                                     0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f};
    SECTION("bytes");
    for (int i = 0; i < 16; i++) {
        x[i] = (float)(i - 8);
        x[i + 16] = (float)(7 - i);
    }
    CHECK_EQ(flash_quantize(FLASH_TYPE_Q4_0, x, a, 32), FLASH_OK);
    CHECK(!memcmp(a, q4_0, sizeof q4_0));
    CHECK_EQ(flash_quantize(FLASH_TYPE_Q4_1, x, a, 32), FLASH_OK); /* the same with minimum -8 */
    CHECK(a[0] == 0x00 && a[1] == 0x3c && a[2] == 0x00 && a[3] == 0xc8);
    CHECK(!memcmp(a + 4, q4_0 + 2, 16));

    smooth(x, N);
    for (int t = 0; t < N_TYPES; t++) {
        size_t n = flash_row_bytes(types[t].type, N);
        uint32_t hash = 2166136261u; /* FNV-1a */
        CHECK_EQ(flash_quantize(types[t].type, x, a, N), FLASH_OK);
        for (size_t i = 0; i < n; i++) hash = (hash ^ a[i]) * 16777619u;
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
        if (!CHECK_EQ(hash, types[t].hash))
            printf("    %s: 0x%08lx\n", flash_type_name(types[t].type), (unsigned long)hash);
#endif
        /* the same in pieces of 256 items, whose places may be unaligned */
        for (size_t i = 0; i < N; i += 256) {
            size_t at = flash_row_bytes(types[t].type, i);
            CHECK_EQ(flash_quantize(types[t].type, x + i, b + at, 256), FLASH_OK);
        }
        CHECK(!memcmp(a, b, n));
    }
}

/* Quantises once more what was dequantised. Types whose scales come from the extremes give the same
   bytes; the others lose little. */
static void test_again(void)
{
    SECTION("again");
    smooth(x, N);
    for (int t = 0; t < N_TYPES; t++) {
        flash_type type = types[t].type;
        double first, second;
        size_t n = flash_row_bytes(type, N);
        int same = flash_type_block(type) == 1 || type == FLASH_TYPE_Q8_0 || type == FLASH_TYPE_Q4_0
            || type == FLASH_TYPE_Q4_1 || type == FLASH_TYPE_Q5_0 || type == FLASH_TYPE_Q5_1;
        there_and_back(type, x, y, N);
        memcpy(b, a + 1, n);
        first = distance(x, y, N);
        there_and_back(type, y, z, N);
        second = distance(y, z, N);
        if (same)
            CHECK(!memcmp(a + 1, b, n));
        else if (!CHECK(second <= 0.5 * first))
            printf("    %s: %.6f, again %.6f\n", flash_type_name(type), first, second);
    }
}

static void test_floats(void)
{
    static const struct {
        uint32_t from;
        uint16_t to;
    } bf16[] = {
        {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82},
        {0xbf80ffff, 0xbf81}, {0x7f7fffff, 0x7f80}, {0x7f800000, 0x7f80}, {0xff800000, 0xff80},
        {0x00000001, 0x0000}, {0x00018000, 0x0002}, {0x80000000, 0x8000}, {0x7f800001, 0x7fc0},
    };
    uint8_t p[2], q[2];
    int wrong = 0;
    SECTION("floats");
    for (uint32_t h = 0; h < 65536; h++) {
        for (int k = 0; k < 2; k++) {
            flash_type t = k ? FLASH_TYPE_BF16 : FLASH_TYPE_F16;
            float f;
            p[0] = (uint8_t)h;
            p[1] = (uint8_t)(h >> 8);
            flash_dequantize(t, p, &f, 1);
            flash_quantize(t, &f, q, 1);
            if (f == f) {
                wrong += memcmp(p, q, 2) != 0;
            } else { /* NaN stays NaN */
                flash_dequantize(t, q, &f, 1);
                wrong += f == f;
            }
        }
    }
    CHECK_EQ(wrong, 0);
    for (size_t i = 0; i < sizeof bf16 / sizeof *bf16; i++) {
        float f;
        memcpy(&f, &bf16[i].from, 4);
        CHECK_EQ(flash_quantize(FLASH_TYPE_BF16, &f, p, 1), FLASH_OK);
        CHECK_EQ(p[0] | p[1] << 8, bf16[i].to);
    }
}

/* Rows that no network has, but that must give sane results. */
static void test_odd(void)
{
    static const float level[] = {1, -1, 3.5f, -0.02f, 1000, -60000, 1e-3f};
    const float inf = (float)HUGE_VAL;
    SECTION("odd rows");
    for (int t = 0; t < N_TYPES; t++) {
        flash_type type = types[t].type;
        int blocks = flash_type_block(type) > 1;
        memset(x, 0, sizeof x);
        there_and_back(type, x, y, 512);
        CHECK(all_zero(y, 512));
        for (size_t k = 0; k < sizeof level / sizeof *level; k++) { /* constants: one level */
            double worst = 0;
            for (int i = 0; i < 512; i++) x[i] = level[k];
            there_and_back(type, x, y, 512);
            for (int i = 0; i < 512; i++) {
                double off = fabs(y[i] / level[k] - 1);
                worst = worst > off ? worst : off; /* gcc 12 for AArch64 fails at fmax here */
            }
            /* the scales of small constants may be near the smallest float16 */
            if (!CHECK(worst < (level[k] < 0.01f && level[k] > 0 ? 0.04 : 0.01)))
                printf("    %s: %g off by %g of it\n", flash_type_name(type), level[k], worst);
        }
        /* one outlier a million times larger: it stays, and harms no other block */
        for (int sign = -1; sign <= 1; sign += 2) {
            smooth(x, 512);
            for (int i = 0; i < 512; i++) x[i] *= 0.01f;
            x[77] = (float)sign * 10000;
            there_and_back(type, x, y, 512);
            CHECK(all_finite(y, 512));
            CHECK(fabs(y[77] / x[77] - 1) < 0.15);
            CHECK(distance(x + 256, y + 256, 256) <= distance(x + 256, x, 256)); /* another block */
        }
        for (int i = 0; i < 512; i++) /* subnormals */
            x[i] = (float)(i % 7 - 3) * 1e-45f;
        there_and_back(type, x, y, 512);
        CHECK(all_finite(y, 512));
        for (int i = 0; i < 512; i++) /* the bottom of float16, and far below */
            x[i] = (float)(i % 7 - 3) * (i < 256 ? 1e-7f : 1e-20f);
        there_and_back(type, x, y, 512);
        CHECK(all_finite(y, 512) && distance(x, y, 512) < 1e-4);
        /* NaN, infinities and numbers too large for float16: one of them, and a block full */
        for (int k = 0; k < 6; k++) {
            const float wild[6] = {inf - inf, inf, -inf, FLT_MAX, -FLT_MAX, 70000};
            smooth(x, 512);
            x[5] = wild[k];
            for (int i = 256; i < 512; i++) x[i] = k ? wild[i % 2 ? k : 1 + i / 2 % 5] : wild[0];
            there_and_back(type, x, y, 512);
            if (blocks) {
                CHECK(all_finite(y, 512));
                CHECK(k ? k > 1 || y[5] > 50000 : fabsf(y[5]) < 0.2f);
                CHECK(k || all_zero(y + 256, 256));
            }
        }
    }
}

static void test_arguments(void)
{
    SECTION("arguments");
    CHECK_EQ(flash_quantize(FLASH_TYPE_MXFP4, x, a, 32), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_quantize(FLASH_TYPE_NONE, x, a, 32), FLASH_E_ARGUMENT);
    CHECK_EQ(flash_quantize((flash_type)9, x, a, 32), FLASH_E_ARGUMENT);
    for (int t = 0; t < N_TYPES; t++) {
        size_t block = (size_t)flash_type_block(types[t].type);
        CHECK_EQ(flash_quantize(types[t].type, NULL, NULL, 0), FLASH_OK);
        CHECK_EQ(flash_quantize(types[t].type, NULL, a, block), FLASH_E_ARGUMENT);
        CHECK_EQ(flash_quantize(types[t].type, x, NULL, block), FLASH_E_ARGUMENT);
        if (block > 1) {
            CHECK_EQ(flash_quantize(types[t].type, x, a, block - 1), FLASH_E_ARGUMENT);
            CHECK_EQ(flash_quantize(types[t].type, x, a, block + block / 2), FLASH_E_ARGUMENT);
        }
    }
}

/* Weights of a trained model, which the reference implementation stored as Q4_K (attn_k) and Q6_K
   (attn_v). k, v: the most that each type may lose of them [%], which is little for the type that
   they are stored in. */
static void test_real(void)
{
    static const struct {
        flash_type type;
        double k, v;
    } most[] = {
        {FLASH_TYPE_BF16, 0.2, 0.2}, {FLASH_TYPE_Q8_0, 0.7, 0.6}, {FLASH_TYPE_Q6_K, 2, 0.1},
        {FLASH_TYPE_Q5_K, 2.2, 4},   {FLASH_TYPE_Q4_K, 1.2, 8},   {FLASH_TYPE_IQ4_XS, 9, 9},
        {FLASH_TYPE_IQ4_NL, 9, 9},   {FLASH_TYPE_Q4_0, 11, 10},   {FLASH_TYPE_Q3_K, 17, 17},
        {FLASH_TYPE_Q2_K, 30, 30},
    };
    flash_source source = {0};
    flash_gguf *g;
    SECTION("real weights");
    source.path = test_shared("quant/devstral-slice/slice.gguf");
    if (!source.path) {
        SKIP("real weights", "quant/devstral-slice");
        return;
    }
    if (!CHECK_EQ(flash_gguf_open(&g, &source, NULL, NULL), FLASH_OK)) return;
    for (int which = 0; which < 2; which++) {
        flash_tensor t;
        size_t n, bytes;
        if (!CHECK_EQ(flash_gguf_find_tensor(
                          g, which ? "blk.0.attn_v.weight" : "blk.0.attn_k.weight", &t),
                      FLASH_OK)) {
            break;
        }
        n = (size_t)t.ne[0] < N ? (size_t)t.ne[0] : N;
        bytes = flash_row_bytes(t.type, (size_t)t.ne[0]);
        for (size_t m = 0; m < sizeof most / sizeof *most; m++) {
            double lost = 0, all = 0, percent;
            for (size_t r = 0; r < t.ne[1]; r++) {
                CHECK_EQ(flash_dequantize(t.type, t.data + r * bytes, x, n), FLASH_OK);
                there_and_back(most[m].type, x, y, n);
                lost += pow(distance(x, y, n), 2);
                memset(y, 0, sizeof y);
                all += pow(distance(x, y, n), 2);
            }
            percent = 100 * sqrt(lost / all);
            if (!CHECK(percent <= (which ? most[m].v : most[m].k)) || getenv("FLASH_VERBOSE")) {
                printf("    %s as %s: %.3f %% lost\n", flash_type_name(t.type),
                       flash_type_name(most[m].type), percent);
            }
        }
    }
    flash_gguf_free(g);
}

int main(void)
{
    test_limits();
    test_bytes();
    test_again();
    test_floats();
    test_odd();
    test_arguments();
    test_real();
    return test_done();
}
