/* The speed of training: matrix products next to what the processor's registers can do, and tokens
   per second next to a trainer of plain loops, in alternating runs.
     bench_train [THREADS] [ROUNDS]          (make bench-train) */
#define FLASH_IMPLEMENTATION
#define FLASH_KEEP_INTERNALS
#include "../flash.h"
#include "naive_train.h"
#include <stdio.h>
#include <stdlib.h>

static double now(void)
{
    flash_host host;
    memset(&host, 0, sizeof host);
    return flash__clock(&host);
}

/* --- the processor's limit -------------------------------------------------------------------- */

/* Multiplies and adds in registers, never fused: 2*12 chains cover the wait for one another. */
#if defined(__GNUC__) && !defined(__TINYC__)
#define SPIN(name, bytes, lanes, attribute) \
    typedef float name##_v __attribute__((vector_size(bytes))); \
    attribute static double spin_##name(int rounds) \
    { \
        name##_v a[12], x = (name##_v){0} + 0.999f, y = (name##_v){0} + 0.001f; \
        float sum = 0; \
        FLASH__UNROLL for (int i = 0; i < 12; i++) { \
            a[i] = (name##_v){0} + (float)i; \
        } \
        for (int r = 0; r < rounds; r++) { \
            FLASH__UNROLL for (int i = 0; i < 12; i++) { \
                a[i] = a[i] * x; \
                __asm__ volatile("" : "+x"(a[i])); \
                a[i] = a[i] + y; \
            } \
        } \
        FLASH__UNROLL for (int i = 0; i < 12; i++) { \
            sum += a[i][0]; \
        } \
        return sum == 12345 ? 0 : 24.0 * (lanes) * rounds; \
    }
#if defined(__x86_64__)
SPIN(avx512, 64, 16, __attribute__((target("avx512f"))))
SPIN(avx2, 32, 8, __attribute__((target("avx2"))))
SPIN(sse, 16, 4, )
#endif
#endif

/* Operations per second of one core, 0: unknown. */
static double peak(flash_isa isa)
{
    double best = 0;
    for (int i = 0; i < 20; i++) {
        double t = now(), ops = 0;
#if defined(__GNUC__) && !defined(__TINYC__) && defined(__x86_64__)
        ops = isa >= FLASH_ISA_AVX512 ? spin_avx512(200000)
            : isa >= FLASH_ISA_AVX2   ? spin_avx2(200000)
                                      : spin_sse(200000);
#endif
        t = now() - t;
        best = ops / t > best ? ops / t : best;
    }
    return best;
}

/* --- matrix products -------------------------------------------------------------------------- */

static void bench_products(flash_isa isa, double limit)
{
    static const char *const form[] = {"x W^T", "dy W", "dy^T x"};
    static const int size[] = {256, 512, 1024};
    static float room[FLASH__GEMM_ROOM];
    flash__kernels k;
    flash__kernels_select(&k, isa);
    for (size_t s = 0; s < 3; s++) {
        int n = size[s];
        size_t nn = (size_t)n * (size_t)n;
        float *a = (float *)malloc(nn * 4), *b = (float *)malloc(nn * 4);
        float *c = (float *)calloc(nn, 4);
        for (size_t i = 0; i < nn; i++) {
            a[i] = (float)(i % 17) - 8;
            b[i] = (float)(i % 23) - 11;
        }
        for (int f = 0; f < 3; f++) {
            double best = 0;
            for (int turn = 0; turn < 12; turn++) {
                flash__effort e;
                double t = now();
                int rounds = n == 256 ? 8 : 1;
                e.n = 0;
                if (f == 0) flash__gemm_forward(&e, a, b, c, n, n, n, 0);
                if (f == 1) flash__gemm_input(&e, a, b, c, n, n, n, 0);
                if (f == 2) flash__gemm_weights(&e, a, b, c, n, n, n);
                for (int r = 0; r < rounds; r++)
                    for (int i = 0; i < flash__gemm_items(e.gemm); i++)
                        flash__gemm_item(&k, e.gemm, i, room);
                t = 2.0 * n * n * n * rounds / (now() - t);
                best = t > best ? t : best;
            }
            printf("product %-7s %4d^3   %6.1f GFLOP/s", form[f], n, best * 1e-9);
            printf(limit > 0 ? "   %3.0f %% of %.1f\n" : "\n", 100 * best / limit, limit * 1e-9);
        }
        free(a);
        free(b);
        free(c);
    }
}

/* --- training --------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench_training(const char *name, const naive_shape *s, int threads, int rounds,
                           int steps)
{
    enum { MOST = 64 };
    static flash_arch a;
    flash_trainer_desc d;
    flash_trainer_report r;
    flash_trainer *t;
    double ours[MOST], theirs[MOST], ratio[MOST], tokens = (double)s->B * s->T * steps, loss = 0;
    size_t n = (size_t)s->B * (size_t)(s->T + 1);
    int32_t *ids = (int32_t *)malloc(n * sizeof *ids);
    naive *plain = naive_new(s);
    rounds = rounds > MOST ? MOST : rounds;
    memset(&a, 0, sizeof a);
    memset(&d, 0, sizeof d);
    strcpy(a.name, "llama");
    a.n_layer = s->L;
    a.d_model = s->D;
    a.d_head = s->C;
    a.n_vocab = s->V;
    a.tied = 1;
    for (int i = 0; i < s->L; i++) {
        a.layer[i].n_head = (uint16_t)s->H;
        a.layer[i].n_kv_head = (uint16_t)s->K;
        a.layer[i].d_ffn = s->F;
        a.layer[i].rope_base = 10000;
    }
    d.arch = &a;
    d.batch = s->B;
    d.n_ctx = s->T;
    d.threads = threads;
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 2654435761u >> 7 & 0xffffff) % (size_t)s->V);
    if (!plain || flash_trainer_create(&t, &d, NULL)) {
        printf("%s: no memory\n", name);
        exit(1);
    }
    flash_trainer_step(t, ids, &r); /* touches the memory */
    naive_step(plain, ids);
    for (int i = 0; i < rounds; i++) {
        double at = now();
        for (int k = 0; k < steps; k++) flash_trainer_step(t, ids, &r);
        ours[i] = now() - at;
        at = now();
        for (int k = 0; k < steps; k++) loss = naive_step(plain, ids);
        theirs[i] = now() - at;
        ratio[i] = theirs[i] / ours[i];
    }
    qsort(ours, (size_t)rounds, sizeof *ours, by_value);
    qsort(theirs, (size_t)rounds, sizeof *theirs, by_value);
    qsort(ratio, (size_t)rounds, sizeof *ratio, by_value);
    printf("train %-11s %d x %d tokens   %8.0f tok/s   %6.0f in plain loops   %.1f x (%.1f-%.1f)   "
           "%.0f bytes/token, %.0f with weights   losses %.3f %.3f\n",
           name, s->B, s->T, tokens / ours[rounds / 2], tokens / theirs[rounds / 2],
           ratio[rounds / 2], ratio[0], ratio[rounds - 1],
           ((double)t->block - 16.0 * (double)t->n) / (s->B * s->T),
           (double)t->block / (s->B * s->T), r.loss, loss);
    flash_trainer_free(t);
    naive_free(plain);
    free(ids);
}

int main(int argc, char **argv)
{
    static const naive_shape small260k = {512, 64, 5, 8, 4, 8, 172, 4, 256};
    static const naive_shape shape15m = {32000, 288, 6, 6, 6, 48, 768, 1, 256};
    int threads = argc > 1 ? atoi(argv[1]) : 1, rounds = argc > 2 ? atoi(argv[2]) : 5;
    flash_isa isa = flash_isa_best();
    double limit = peak(isa);
    printf("%s, %d threads, %s\n", flash_isa_name(isa), threads, flash_build_info());
    bench_products(isa, limit);
    if (rounds < 1) return 0;
    bench_training("260K", &small260k, threads, rounds, 2);
    bench_training("15M", &shape15m, threads, rounds, 1);
    return 0;
}
