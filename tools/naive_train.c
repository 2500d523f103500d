/* What a trainer in plain C does, in the manner of github.com/karpathy/llm.c (train_gpt2.c): one
   function for each step and its way back, matrix products of eight rows at a time, OpenMP over
   rows or outputs. The same model as flash.h trains: RMSNorm, attention with grouped heads and
   RoPE, SwiGLU, a tied head, AdamW. Attention goes back in O(T) a row, not llm.c's O(T^2), and in
   parallel. Compiled with -O3 and -fopenmp; only bench_train.c uses it. */
#include "naive_train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#define PARALLEL _Pragma("omp parallel for")
#else
#define PARALLEL
#endif

typedef struct layer_at {
    size_t an, q, k, v, o, fn, gate, up, down;
} layer_at;
typedef struct layer_act {
    float *x, *xn, *q, *k, *v, *p, *o, *mid, *mn, *g, *u, *s;
} layer_act;

struct naive {
    naive_shape s;
    size_t n;
    layer_at *at;
    layer_act *a;
    size_t embed, on;
    float *w, *g, *m, *v, *out, *outn, *z, *dx, *dn, *dwide, *dq, *dk, *dv, *du, *rope;
    int step;
};

static float *floats(size_t n) { return (float *)calloc(n, sizeof(float)); }

static size_t weights(naive *n, size_t count)
{
    size_t at = n->n;
    n->n += count;
    return at;
}

naive *naive_new(const naive_shape *s)
{
    naive *n = (naive *)calloc(1, sizeof *n);
    size_t N = (size_t)s->B * (size_t)s->T, D = (size_t)s->D, F = (size_t)s->F, V = (size_t)s->V;
    size_t Q = (size_t)(s->H * s->C), K = (size_t)(s->K * s->C), wide = F > Q ? F : Q;
    uint32_t r = 1;
    n->s = *s;
    n->at = (layer_at *)calloc((size_t)s->L, sizeof *n->at);
    n->a = (layer_act *)calloc((size_t)s->L, sizeof *n->a);
    n->embed = weights(n, V * D);
    for (int l = 0; l < s->L; l++) {
        layer_at at = {weights(n, D),     weights(n, Q * D), weights(n, K * D),
                       weights(n, K * D), weights(n, D * Q), weights(n, D),
                       weights(n, F * D), weights(n, F * D), weights(n, D * F)};
        layer_act a = {floats(N * D), floats(N * D), floats(N * Q),
                       floats(N * K), floats(N * K), floats(N * (size_t)(s->H * s->T)),
                       floats(N * Q), floats(N * D), floats(N * D),
                       floats(N * F), floats(N * F), floats(N * F)};
        n->at[l] = at;
        n->a[l] = a;
    }
    n->on = weights(n, D);
    n->w = floats(n->n);
    n->g = floats(n->n);
    n->m = floats(n->n);
    n->v = floats(n->n);
    n->out = floats(N * D);
    n->outn = floats(N * D);
    n->z = floats(N * V);
    n->dx = floats(N * D);
    n->dn = floats(N * D);
    n->dwide = floats(N * wide);
    n->du = floats(N * F);
    n->dq = floats(N * Q);
    n->dk = floats(N * K);
    n->dv = floats(N * K);
    n->rope = floats((size_t)(s->T * s->C));
    for (size_t i = 0; i < n->n; i++) {
        r = r * 1664525u + 1013904223u;
        n->w[i] = ((float)(r >> 8) / 8388608.0f - 1) * 0.035f;
    }
    for (size_t i = 0; i < D; i++) {
        n->w[n->on + i] = 1;
        for (int l = 0; l < s->L; l++) n->w[n->at[l].an + i] = n->w[n->at[l].fn + i] = 1;
    }
    for (int t = 0; t < s->T; t++) {
        for (int i = 0; i < s->C / 2; i++) {
            double angle = t * pow(10000, -2.0 * i / s->C);
            n->rope[t * s->C + 2 * i] = (float)cos(angle);
            n->rope[t * s->C + 2 * i + 1] = (float)sin(angle);
        }
    }
    return n;
}

void naive_free(naive *n)
{
    for (int l = 0; l < n->s.L; l++) {
        layer_act a = n->a[l];
        float *all[] = {a.x, a.xn, a.q, a.k, a.v, a.p, a.o, a.mid, a.mn, a.g, a.u, a.s};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    }
    float *all[] = {n->w,  n->g,     n->m,  n->v,  n->out, n->outn, n->z,   n->dx,
                    n->dn, n->dwide, n->dq, n->dk, n->dv,  n->du,   n->rope};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(n->at);
    free(n->a);
    free(n);
}

/* y = x W^T, eight rows of x at once so that a weight in a register serves them all. */
static void matmul(float *y, const float *x, const float *w, int N, int in, int out)
{
    PARALLEL
    for (int t0 = 0; t0 < N; t0 += 8) {
        int some = N - t0 < 8 ? N - t0 : 8;
        for (int o = 0; o < out; o++) {
            float sum[8] = {0};
            const float *row = w + (size_t)o * (size_t)in;
            for (int i = 0; i < in; i++) {
                float v = row[i];
                if (some == 8)
                    for (int t = 0; t < 8; t++)
                        sum[t] += x[(size_t)(t0 + t) * (size_t)in + (size_t)i] * v;
                else
                    for (int t = 0; t < some; t++)
                        sum[t] += x[(size_t)(t0 + t) * (size_t)in + (size_t)i] * v;
            }
            for (int t = 0; t < some; t++) y[(size_t)(t0 + t) * (size_t)out + (size_t)o] = sum[t];
        }
    }
}

static void matmul_back(float *dx, float *dw, const float *dy, const float *x, const float *w,
                        int N, int in, int out)
{
    PARALLEL
    for (int t = 0; t < N; t++) {
        float *d = dx + (size_t)t * (size_t)in;
        for (int o = 0; o < out; o++) {
            const float *row = w + (size_t)o * (size_t)in;
            float v = dy[(size_t)t * (size_t)out + (size_t)o];
            for (int i = 0; i < in; i++) d[i] += row[i] * v;
        }
    }
    PARALLEL
    for (int o = 0; o < out; o++) {
        float *d = dw + (size_t)o * (size_t)in;
        for (int t = 0; t < N; t++) {
            const float *row = x + (size_t)t * (size_t)in;
            float v = dy[(size_t)t * (size_t)out + (size_t)o];
            for (int i = 0; i < in; i++) d[i] += row[i] * v;
        }
    }
}

static void norm(float *y, const float *x, const float *w, int N, int D)
{
    for (int t = 0; t < N; t++, x += D, y += D) {
        float sum = 0, r;
        for (int i = 0; i < D; i++) sum += x[i] * x[i];
        r = 1 / sqrtf(sum / (float)D + 1e-5f);
        for (int i = 0; i < D; i++) y[i] = x[i] * r * w[i];
    }
}

static void norm_back(float *dx, float *dw, const float *dy, const float *x, const float *w, int N,
                      int D)
{
    for (int t = 0; t < N; t++, x += D, dy += D, dx += D) {
        float sum = 0, c = 0, r;
        for (int i = 0; i < D; i++) sum += x[i] * x[i];
        r = 1 / sqrtf(sum / (float)D + 1e-5f);
        for (int i = 0; i < D; i++) {
            c += w[i] * dy[i] * x[i];
            dw[i] += dy[i] * x[i] * r;
        }
        c *= r * r * r / (float)D;
        for (int i = 0; i < D; i++) dx[i] += r * w[i] * dy[i] - c * x[i];
    }
}

static void turn(const naive *n, float *x, int heads, float sign)
{
    int C = n->s.C;
    for (int row = 0; row < n->s.B * n->s.T; row++) {
        const float *r = n->rope + row % n->s.T * C;
        for (int h = 0; h < heads; h++, x += C) {
            for (int i = 0; i < C; i += 2) {
                float u = x[i], v = x[i + 1], c = r[i], s = r[i + 1] * sign;
                x[i] = u * c - v * s;
                x[i + 1] = u * s + v * c;
            }
        }
    }
}

static void attention(const naive *n, layer_act *a)
{
    int T = n->s.T, C = n->s.C, H = n->s.H, K = n->s.K, group = H / K;
    float scale = 1 / sqrtf((float)C);
    PARALLEL
    for (int item = 0; item < n->s.B * H; item++) {
        int b = item / H, h = item % H;
        for (int t = 0; t < T; t++) {
            const float *q = a->q + (size_t)((b * T + t) * H + h) * (size_t)C;
            float *p = a->p + ((size_t)item * (size_t)T + (size_t)t) * (size_t)T, most = -1e30f;
            float *o = a->o + (size_t)((b * T + t) * H + h) * (size_t)C, sum = 0;
            for (int j = 0; j <= t; j++) {
                const float *k = a->k + (size_t)((b * T + j) * K + h / group) * (size_t)C;
                float s = 0;
                for (int i = 0; i < C; i++) s += q[i] * k[i];
                p[j] = s * scale;
                most = p[j] > most ? p[j] : most;
            }
            for (int j = 0; j <= t; j++) sum += p[j] = expf(p[j] - most);
            memset(o, 0, (size_t)C * sizeof *o);
            for (int j = 0; j <= t; j++) {
                const float *v = a->v + (size_t)((b * T + j) * K + h / group) * (size_t)C;
                p[j] /= sum;
                for (int i = 0; i < C; i++) o[i] += p[j] * v[i];
            }
        }
    }
}

static void attention_back(naive *n, layer_act *a, const float *dout)
{
    int T = n->s.T, C = n->s.C, H = n->s.H, K = n->s.K, group = H / K;
    float scale = 1 / sqrtf((float)C);
    PARALLEL
    for (int item = 0; item < n->s.B * K; item++) {
        int b = item / K, kv = item % K;
        for (int h = kv * group; h < kv * group + group; h++) {
            for (int t = 0; t < T; t++) {
                size_t at = (size_t)((b * T + t) * H + h) * (size_t)C;
                const float *p = a->p + ((size_t)(b * H + h) * (size_t)T + (size_t)t) * (size_t)T;
                float dot = 0;
                for (int i = 0; i < C; i++) dot += dout[at + (size_t)i] * a->o[at + (size_t)i];
                for (int j = 0; j <= t; j++) {
                    size_t to = (size_t)((b * T + j) * K + kv) * (size_t)C;
                    float dp = 0, ds;
                    for (int i = 0; i < C; i++) {
                        dp += dout[at + (size_t)i] * a->v[to + (size_t)i];
                        n->dv[to + (size_t)i] += p[j] * dout[at + (size_t)i];
                    }
                    ds = p[j] * (dp - dot) * scale;
                    for (int i = 0; i < C; i++) {
                        n->dq[at + (size_t)i] += ds * a->k[to + (size_t)i];
                        n->dk[to + (size_t)i] += ds * a->q[at + (size_t)i];
                    }
                }
            }
        }
    }
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

static double loss(naive *n, const int32_t *tokens)
{
    int N = n->s.B * n->s.T, T = n->s.T, V = n->s.V;
    double sum = 0;
    PARALLEL
    for (int t = 0; t < N; t++) { /* logits become their gradient */
        float *z = n->z + (size_t)t * (size_t)V, most = -1e30f, total = 0;
        int target = tokens[t / T * (T + 1) + t % T + 1];
        for (int i = 0; i < V; i++) most = z[i] > most ? z[i] : most;
        for (int i = 0; i < V; i++) total += z[i] = expf(z[i] - most);
        for (int i = 0; i < V; i++) z[i] /= total * (float)N;
        z[target] -= 1 / (float)N;
    }
    for (int t = 0; t < N; t++) {
        float d = n->z[(size_t)t * (size_t)V + (size_t)tokens[t / T * (T + 1) + t % T + 1]];
        sum -= log((double)d * N + 1 + 1e-12);
    }
    return sum / N;
}

static void zero(float *p, int rows, int cols)
{
    memset(p, 0, (size_t)rows * (size_t)cols * sizeof *p);
}

double naive_step(naive *n, const int32_t *tokens)
{
    naive_shape s = n->s;
    int N = s.B * s.T, D = s.D, Q = s.H * s.C, K = s.K * s.C, F = s.F;
    size_t ND = (size_t)N * (size_t)D, NF = (size_t)N * (size_t)F;
    float *w = n->w, *g = n->g;
    double mean, norm2 = 0;
    for (int t = 0; t < N; t++) {
        memcpy(n->a[0].x + (size_t)t * (size_t)D,
               w + (size_t)tokens[t / s.T * (s.T + 1) + t % s.T] * (size_t)D,
               (size_t)D * sizeof *w);
    }
    for (int l = 0; l < s.L; l++) {
        layer_act *a = n->a + l;
        layer_at *at = n->at + l;
        float *out = l + 1 < s.L ? a[1].x : n->out;
        norm(a->xn, a->x, w + at->an, N, D);
        matmul(a->q, a->xn, w + at->q, N, D, Q);
        matmul(a->k, a->xn, w + at->k, N, D, K);
        matmul(a->v, a->xn, w + at->v, N, D, K);
        turn(n, a->q, s.H, 1);
        turn(n, a->k, s.K, 1);
        attention(n, a);
        matmul(a->mid, a->o, w + at->o, N, Q, D);
        add(a->mid, a->x, ND);
        norm(a->mn, a->mid, w + at->fn, N, D);
        matmul(a->g, a->mn, w + at->gate, N, D, F);
        matmul(a->u, a->mn, w + at->up, N, D, F);
        PARALLEL
        for (size_t i = 0; i < NF; i++) a->s[i] = a->g[i] / (1 + expf(-a->g[i])) * a->u[i];
        matmul(out, a->s, w + at->down, N, F, D);
        add(out, a->mid, ND);
    }
    norm(n->outn, n->out, w + n->on, N, D);
    matmul(n->z, n->outn, w + n->embed, N, D, s.V);
    mean = loss(n, tokens);

    memset(g, 0, n->n * sizeof *g);
    zero(n->dn, N, D);
    zero(n->dx, N, D);
    matmul_back(n->dn, g + n->embed, n->z, n->outn, w + n->embed, N, D, s.V);
    norm_back(n->dx, g + n->on, n->dn, n->out, w + n->on, N, D);
    for (int l = s.L; l-- > 0;) {
        layer_act *a = n->a + l;
        layer_at *at = n->at + l;
        zero(n->dwide, N, F);
        zero(n->dn, N, D);
        matmul_back(n->dwide, g + at->down, n->dx, a->s, w + at->down, N, F, D);
        PARALLEL
        for (size_t i = 0; i < NF; i++) {
            float x = a->g[i], sig = 1 / (1 + expf(-x)), d = n->dwide[i];
            n->du[i] = d * x * sig;
            n->dwide[i] = d * a->u[i] * sig * (1 + x * (1 - sig));
        }
        matmul_back(n->dn, g + at->gate, n->dwide, a->mn, w + at->gate, N, D, F);
        matmul_back(n->dn, g + at->up, n->du, a->mn, w + at->up, N, D, F);
        norm_back(n->dx, g + at->fn, n->dn, a->mid, w + at->fn, N, D);
        zero(n->dwide, N, Q);
        zero(n->dq, N, Q);
        zero(n->dk, N, K);
        zero(n->dv, N, K);
        zero(n->dn, N, D);
        matmul_back(n->dwide, g + at->o, n->dx, a->o, w + at->o, N, Q, D);
        attention_back(n, a, n->dwide);
        turn(n, n->dq, s.H, -1);
        turn(n, n->dk, s.K, -1);
        matmul_back(n->dn, g + at->q, n->dq, a->xn, w + at->q, N, D, Q);
        matmul_back(n->dn, g + at->k, n->dk, a->xn, w + at->k, N, D, K);
        matmul_back(n->dn, g + at->v, n->dv, a->xn, w + at->v, N, D, K);
        norm_back(n->dx, g + at->an, n->dn, a->x, w + at->an, N, D);
    }
    for (int t = 0; t < N; t++) {
        add(g + (size_t)tokens[t / s.T * (s.T + 1) + t % s.T] * (size_t)D,
            n->dx + (size_t)t * (size_t)D, (size_t)D);
    }
    for (size_t i = 0; i < n->n; i++) norm2 += (double)g[i] * g[i];
    n->step++;
    float clip = (float)fmin(1, 1 / sqrt(norm2)), c1 = 1 - powf(0.9f, (float)n->step),
          c2 = 1 - powf(0.95f, (float)n->step);
    for (size_t i = 0; i < n->n; i++) {
        float d = g[i] * clip;
        n->m[i] = 0.9f * n->m[i] + 0.1f * d;
        n->v[i] = 0.95f * n->v[i] + 0.05f * d * d;
        w[i] -= 1e-3f * (n->m[i] / c1 / (sqrtf(n->v[i] / c2) + 1e-8f));
    }
    return mean;
}
