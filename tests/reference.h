/* A llama model in double precision, loops only: what flash.h is measured against. It shares no
   code with the implementation; of flash.h it uses the GGUF functions, for keys and raw bytes.

   D d_model, H query heads, K key/value heads, C d_head, L layers, V vocabulary. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- weights ----------------------------------------------------------------------- */

static inline double ref_f16(const uint8_t *p)
{
    int bits = p[0] | p[1] << 8, e = bits >> 10 & 31, m = bits & 1023;
    double v = e == 31 ? (m ? (double)NAN : (double)INFINITY)
                       : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return bits >> 15 ? -v : v;
}

static inline double ref_f32(const uint8_t *p)
{
    uint32_t bits = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static inline double ref_bf16(const uint8_t *p)
{
    uint8_t q[4] = {0, 0, p[0], p[1]};
    return ref_f32(q);
}

/* Nibble i of a block of 32: the low halves of 16 bytes, then the high ones. */
static inline int ref_nibble(const uint8_t *qs, int i)
{
    return qs[i % 16] >> (i < 16 ? 0 : 4) & 15;
}

/* The 6-bit scale and minimum of sub-block j (0..7), as Q4_K and Q5_K pack them in 12 bytes. */
static inline void ref_scale_min(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

/* Weight i of the block at p. Every step before the last is exact in double, so that rounding the
   result to float gives the bits a float implementation gives. */
static inline double ref_weight(uint32_t type, const uint8_t *p, int i)
{
    static const int nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1, 13, 25, 38, 53, 69, 89, 113};
    static const int e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    /* In blocks of 256: half, two-bit plane in it, place in the plane of 32. */
    int n = i / 128, j = i % 128 / 32, l = i % 32, q, s, m;
    switch (type) {
    case 0:
        return ref_f32(p);
    case 1:
        return ref_f16(p);
    case 30:
        return ref_bf16(p);
    case 2: /* Q4_0: d, 16 bytes */
        return ref_f16(p) * (ref_nibble(p + 2, i) - 8);
    case 3: /* Q4_1: d, m, 16 bytes */
        return ref_f16(p) * ref_nibble(p + 4, i) + ref_f16(p + 2);
    case 6: /* Q5_0: d, 32 fifth bits, 16 bytes */
        return ref_f16(p) * ((ref_nibble(p + 6, i) | (p[2 + i / 8] >> i % 8 & 1) << 4) - 16);
    case 7: /* Q5_1: d, m, 32 fifth bits, 16 bytes */
        return ref_f16(p) * (ref_nibble(p + 8, i) | (p[4 + i / 8] >> i % 8 & 1) << 4) +
               ref_f16(p + 2);
    case 8: /* Q8_0: d, 32 signed bytes */
        return ref_f16(p) * (int8_t)p[2 + i];
    case 10: /* Q2_K: 16 (scale, min) nibbles, 64 bytes of quants, d, dmin */
        q = p[16 + 32 * n + l] >> 2 * j & 3;
        s = p[i / 16];
        return ref_f16(p + 80) * (s & 15) * q - ref_f16(p + 82) * (s >> 4);
    case 11: /* Q3_K: 32 high bits of 8, 64 bytes of quants, 12 of scales, d */
        q = (p[32 + 32 * n + l] >> 2 * j & 3) - (p[l] >> (4 * n + j) & 1 ? 0 : 4);
        m = i / 16;
        s = (m < 8 ? p[96 + m] & 15 : p[96 + m - 8] >> 4) | (p[104 + m % 4] >> m / 4 * 2 & 3) << 4;
        return ref_f16(p + 108) * (s - 32) * q;
    case 12: /* Q4_K: d, dmin, 12 bytes of scales, 128 of nibbles */
    case 13: /* Q5_K: the same with 32 fifth bits of 8 before the nibbles */
        ref_scale_min(p + 4, i / 32, &s, &m);
        q = p[(type == 12 ? 16 : 48) + i / 64 * 32 + l] >> (i / 32 % 2 ? 4 : 0) & 15;
        if (type == 13) {
            q |= (p[16 + l] >> i / 32 & 1) << 4;
        }
        return ref_f16(p) * s * q - ref_f16(p + 2) * m;
    case 14: /* Q6_K: 128 bytes low nibbles, 64 high pairs, 16 signed scales, d */
        q = (p[64 * n + 32 * (j % 2) + l] >> (j < 2 ? 0 : 4) & 15) |
            (p[128 + 32 * n + l] >> 2 * j & 3) << 4;
        return ref_f16(p + 208) * (int8_t)p[192 + i / 16] * (q - 32);
    case 20: /* IQ4_NL: d, 16 bytes of indices into a table */
        return ref_f16(p) * nl[ref_nibble(p + 2, i)];
    case 23: /* IQ4_XS: d, high pairs of 8 scales, their low nibbles, 8 x 16 bytes of indices */
        s = (p[4 + i / 64] >> (i / 32 % 2 ? 4 : 0) & 15) |
            ((p[2] | p[3] << 8) >> i / 32 * 2 & 3) << 4;
        return ref_f16(p) * (s - 32) * nl[ref_nibble(p + 8 + i / 32 * 16, l)];
    case 39: /* MXFP4: a power of two, 16 bytes of e2m1 (doubled here, hence 128) */
        return ldexp(e2m1[ref_nibble(p + 1, i)], p[0] - 128);
    default:
        return (double)NAN;
    }
}

/* Items and bytes of a block; 0 where the type is unknown. */
static inline int ref_block(uint32_t type, int *bytes)
{
    static const int t[][3] = {
        {0, 1, 4},      {1, 1, 2},      {2, 32, 18},    {3, 32, 20},    {6, 32, 22},   {7, 32, 24},
        {8, 32, 34},    {10, 256, 84},  {11, 256, 110}, {12, 256, 144}, {13, 256, 176},
        {14, 256, 210}, {20, 32, 18},   {23, 256, 136}, {30, 1, 2},     {39, 32, 17}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        if ((uint32_t)t[i][0] == type) {
            *bytes = t[i][2];
            return t[i][1];
        }
    }
    return *bytes = 0;
}

/* n weights as double. */
static inline void ref_dequantize(uint32_t type, const uint8_t *src, double *dst, size_t n)
{
    int bytes, items = ref_block(type, &bytes);
    for (size_t i = 0; items && i < n; i++) {
        dst[i] = ref_weight(type, src + i / (size_t)items * (size_t)bytes,
                            (int)(i % (size_t)items));
    }
}

/* x as a product with quantised weights sees it: int8 steps of amax/127 per 32, all in float. Gives
   how close, in steps, a value came to lying between two of them. */
static inline double ref_int8(const double *x, double *out, int n)
{
    double closest = 1;
    for (int b = 0; b < n; b += 32) {
        int len = n - b < 32 ? n - b : 32;
        float amax = 0;
        for (int i = 0; i < len; i++) {
            float a = (float)fabs(x[b + i]);
            amax = a > amax ? a : amax;
        }
        float step = amax / 127, inverse = amax > 0 ? 127 / amax : 0;
        for (int i = 0; i < len; i++) {
            float scaled = (float)x[b + i] * inverse;
            out[b + i] = nearbyint(scaled) * (double)step;
            closest = fmin(closest, 0.5 - fabs(scaled - nearbyint(scaled)));
        }
    }
    return closest;
}

/* --- model ------------------------------------------------------------------------- */

typedef struct ref_matrix {
    double *w;       /* [rows,cols]; NULL if the file has none */
    int rows, cols;
    int quantised;
} ref_matrix;

typedef struct ref_layer {
    int H, K;
    double *keys, *values;              /* [n_ctx,K,C]                                         */
    ref_matrix attn_norm, q, k, v, o, ffn_norm, gate, up, down;
    ref_matrix q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias;
} ref_layer;

typedef struct ref_model {
    int L, D, C, V;
    int n_ctx, rope_dims;
    int q8;                             /* 1: quantise activations where weights are           */
    double closest;                     /* the least that ref_int8 gave                        */
    int yarn;
    double eps, rope_base, rope_factor, attn_factor, beta_fast, beta_slow, rope_n_ctx;
    ref_matrix embd, norm, head, rope_freqs;
    ref_layer *layer;
} ref_model;

static inline double ref_key(const flash_gguf *g, const char *name, int index, double otherwise)
{
    flash_value v;
    if (flash_gguf_find(g, name, &v)) {
        return otherwise;
    }
    return flash_value_number(&v, v.type == FLASH_VALUE_ARRAY ? (uint64_t)index : 0);
}

static inline int ref_key_is(const flash_gguf *g, const char *name, const char *text)
{
    flash_value v;
    return !flash_gguf_find(g, name, &v) && v.type == FLASH_VALUE_STRING &&
           v.bytes == strlen(text) && memcmp(v.data, text, v.bytes) == 0;
}

static inline ref_matrix ref_tensor(const flash_gguf *g, int layer, const char *name)
{
    ref_matrix m = {NULL, 0, 0, 0};
    flash_tensor t;
    char full[64];
    if (layer < 0) {
        snprintf(full, sizeof full, "%s", name);
    } else {
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    }
    if (flash_gguf_find_tensor(g, full, &t)) {
        return m;
    }
    m.cols = (int)t.ne[0];
    m.rows = (int)t.ne[1];
    m.quantised = t.type_id > 1 && t.type_id != 30;
    m.w = (double *)malloc((size_t)m.rows * (size_t)m.cols * sizeof *m.w);
    ref_dequantize(t.type_id, t.data, m.w, (size_t)m.rows * (size_t)m.cols);
    return m;
}

static inline ref_model *ref_load(const flash_gguf *g)
{
    ref_model *r = (ref_model *)calloc(1, sizeof *r);
    int H = (int)ref_key(g, "llama.attention.head_count", 0, 0);
    r->L = (int)ref_key(g, "llama.block_count", 0, 0);
    r->D = (int)ref_key(g, "llama.embedding_length", 0, 0);
    r->C = (int)ref_key(g, "llama.attention.key_length", 0, r->D / H);
    r->n_ctx = (int)ref_key(g, "llama.context_length", 0, 0);
    r->eps = ref_key(g, "llama.attention.layer_norm_rms_epsilon", 0, 0);
    r->rope_dims = (int)ref_key(g, "llama.rope.dimension_count", 0, r->C);
    r->rope_base = ref_key(g, "llama.rope.freq_base", 0, 10000);
    r->rope_factor = ref_key(g, "llama.rope.scaling.factor", 0,
                             ref_key(g, "llama.rope.scale_linear", 0, 1));
    r->attn_factor = ref_key(g, "llama.rope.scaling.attn_factor", 0, 1);
    r->beta_fast = ref_key(g, "llama.rope.scaling.yarn_beta_fast", 0, 32);
    r->beta_slow = ref_key(g, "llama.rope.scaling.yarn_beta_slow", 0, 1);
    r->rope_n_ctx = ref_key(g, "llama.rope.scaling.original_context_length", 0, r->n_ctx);
    r->yarn = ref_key_is(g, "llama.rope.scaling.type", "yarn");
    if (r->rope_factor == 0 || ref_key_is(g, "llama.rope.scaling.type", "none")) {
        r->rope_factor = 1;
    }
    r->embd = ref_tensor(g, -1, "token_embd.weight");
    r->norm = ref_tensor(g, -1, "output_norm.weight");
    r->head = ref_tensor(g, -1, "output.weight");
    r->rope_freqs = ref_tensor(g, -1, "rope_freqs.weight");
    r->V = r->embd.rows;
    r->layer = (ref_layer *)calloc((size_t)r->L, sizeof *r->layer);
    for (int l = 0; l < r->L; l++) {
        ref_layer *y = &r->layer[l];
        y->H = (int)ref_key(g, "llama.attention.head_count", l, 0);
        y->K = (int)ref_key(g, "llama.attention.head_count_kv", l, y->H);
        y->attn_norm = ref_tensor(g, l, "attn_norm.weight");
        y->q = ref_tensor(g, l, "attn_q.weight");
        y->k = ref_tensor(g, l, "attn_k.weight");
        y->v = ref_tensor(g, l, "attn_v.weight");
        y->o = ref_tensor(g, l, "attn_output.weight");
        y->ffn_norm = ref_tensor(g, l, "ffn_norm.weight");
        y->gate = ref_tensor(g, l, "ffn_gate.weight");
        y->up = ref_tensor(g, l, "ffn_up.weight");
        y->down = ref_tensor(g, l, "ffn_down.weight");
        y->q_bias = ref_tensor(g, l, "attn_q.bias");
        y->k_bias = ref_tensor(g, l, "attn_k.bias");
        y->v_bias = ref_tensor(g, l, "attn_v.bias");
        y->o_bias = ref_tensor(g, l, "attn_output.bias");
        y->gate_bias = ref_tensor(g, l, "ffn_gate.bias");
        y->up_bias = ref_tensor(g, l, "ffn_up.bias");
        y->down_bias = ref_tensor(g, l, "ffn_down.bias");
        size_t cells = (size_t)r->n_ctx * (size_t)(y->K * r->C);
        y->keys = (double *)malloc(cells * 2 * sizeof *y->keys);
        y->values = y->keys + cells;
    }
    return r;
}

static inline void ref_free(ref_model *r)
{
    for (int l = 0; l < r->L; l++) {
        ref_layer *y = &r->layer[l];
        ref_matrix *m[] = {&y->attn_norm, &y->q, &y->k, &y->v, &y->o, &y->ffn_norm, &y->gate,
                           &y->up, &y->down, &y->q_bias, &y->k_bias, &y->v_bias, &y->o_bias,
                           &y->gate_bias, &y->up_bias, &y->down_bias};
        for (size_t i = 0; i < sizeof m / sizeof *m; i++) {
            free(m[i]->w);
        }
        free(y->keys);
    }
    free(r->embd.w);
    free(r->norm.w);
    free(r->head.w);
    free(r->rope_freqs.w);
    free(r->layer);
    free(r);
}

/* --- one token after another ------------------------------------------------------- */

static inline void ref_product(ref_model *r, const ref_matrix *m, const ref_matrix *bias,
                               const double *x, double *y)
{
    double *xq = NULL;
    if (r->q8 && m->quantised) {
        xq = (double *)malloc((size_t)m->cols * sizeof *xq);
        r->closest = fmin(r->closest, ref_int8(x, xq, m->cols));
        x = xq;
    }
    for (int i = 0; i < m->rows; i++) {
        double sum = 0;
        for (int j = 0; j < m->cols; j++) {
            sum += m->w[(size_t)i * (size_t)m->cols + (size_t)j] * x[j];
        }
        y[i] = sum + (bias && bias->w ? bias->w[i] : 0);
    }
    free(xq);
}

static inline void ref_rmsnorm(const ref_model *r, const ref_matrix *m, const double *x, double *y)
{
    double sum = 0;
    for (int i = 0; i < r->D; i++) {
        sum += x[i] * x[i];
    }
    for (int i = 0; i < r->D; i++) {
        y[i] = x[i] / sqrt(sum / r->D + r->eps) * m->w[i];
    }
}

/* Rotates the pairs (2i, 2i+1) of one head at a position. YaRN (arxiv 2309.00071): pairs that turn
   often keep their angle, those that turn seldom are interpolated, a ramp between them. */
static inline void ref_rope(const ref_model *r, double *head, int position)
{
    const double pi = 3.14159265358979323846;
    double low = 0, high = 0, magnitude = r->attn_factor;
    if (r->yarn) {
        double per_log = r->rope_dims / (2 * log(r->rope_base));
        low = floor(per_log * log(r->rope_n_ctx / (r->beta_fast * 2 * pi)));
        high = ceil(per_log * log(r->rope_n_ctx / (r->beta_slow * 2 * pi)));
        low = low < 0 ? 0 : low;
        high = high > r->rope_dims - 1 ? r->rope_dims - 1 : high;
        magnitude *= 1 + 0.1 * log(r->rope_factor);
    }
    for (int i = 0; i < r->rope_dims / 2; i++) {
        double turn = position * pow(r->rope_base, -2.0 * i / r->rope_dims);
        if (r->rope_freqs.w) {
            turn /= r->rope_freqs.w[i];
        }
        double keep = 0;
        if (r->yarn) {
            keep = 1 - (i - low) / (high - low > 0.001 ? high - low : 0.001);
            keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
        }
        double angle = turn * keep + turn / r->rope_factor * (1 - keep);
        double c = cos(angle) * magnitude, s = sin(angle) * magnitude;
        double a = head[2 * i], b = head[2 * i + 1];
        head[2 * i] = a * c - b * s;
        head[2 * i + 1] = a * s + b * c;
    }
}

/* Logits [V] after token id at position t; the positions before it have been worked on. */
static inline void ref_step(ref_model *r, int32_t id, int t, double *logits)
{
    int D = r->D, C = r->C, wide = t + 1 > D ? t + 1 : D;
    for (int l = 0; l < r->L; l++) {
        ref_layer *y = &r->layer[l];
        wide = y->H * C > wide ? y->H * C : wide;
        wide = y->up.rows > wide ? y->up.rows : wide;
    }
    double *x = (double *)malloc((size_t)wide * 6 * sizeof *x);
    double *h = x + wide, *q = h + wide, *a = q + wide, *p = a + wide, *g = p + wide;
    memcpy(x, r->embd.w + (size_t)id * (size_t)D, (size_t)D * sizeof *x);
    for (int l = 0; l < r->L; l++) {
        ref_layer *y = &r->layer[l];
        size_t row = (size_t)(y->K * C);
        double *k = y->keys + (size_t)t * row, *v = y->values + (size_t)t * row;
        ref_rmsnorm(r, &y->attn_norm, x, h);
        ref_product(r, &y->q, &y->q_bias, h, q);
        ref_product(r, &y->k, &y->k_bias, h, k);
        ref_product(r, &y->v, &y->v_bias, h, v);
        for (int i = 0; i < y->H; i++) {
            ref_rope(r, q + i * C, t);
        }
        for (int i = 0; i < y->K; i++) {
            ref_rope(r, k + i * C, t);
        }
        for (int i = 0; i < y->H; i++) {
            int group = i / (y->H / y->K) * C;
            double max = -INFINITY, sum = 0;
            for (int u = 0; u <= t; u++) {
                p[u] = 0;
                for (int c = 0; c < C; c++) {
                    p[u] += q[i * C + c] * y->keys[(size_t)u * row + (size_t)(group + c)];
                }
                p[u] /= sqrt(C);
                max = p[u] > max ? p[u] : max;
            }
            for (int u = 0; u <= t; u++) {
                sum += p[u] = exp(p[u] - max);
            }
            for (int c = 0; c < C; c++) {
                a[i * C + c] = 0;
                for (int u = 0; u <= t; u++) {
                    a[i * C + c] += p[u] / sum * y->values[(size_t)u * row + (size_t)(group + c)];
                }
            }
        }
        ref_product(r, &y->o, &y->o_bias, a, h);
        for (int i = 0; i < D; i++) {
            x[i] += h[i];
        }
        ref_rmsnorm(r, &y->ffn_norm, x, h);
        ref_product(r, &y->gate, &y->gate_bias, h, g);
        ref_product(r, &y->up, &y->up_bias, h, a);
        for (int i = 0; i < y->up.rows; i++) {
            a[i] *= g[i] / (1 + exp(-g[i]));
        }
        ref_product(r, &y->down, &y->down_bias, a, h);
        for (int i = 0; i < D; i++) {
            x[i] += h[i];
        }
    }
    ref_rmsnorm(r, &r->norm, x, h);
    ref_product(r, r->head.w ? &r->head : &r->embd, NULL, h, logits);
    free(x);
}

/* Logits [n,V] after each of the n tokens. */
static inline void ref_logits(ref_model *r, const int32_t *ids, int n, double *logits)
{
    for (int t = 0; t < n; t++) {
        ref_step(r, ids[t], t, logits + (size_t)t * (size_t)r->V);
    }
}

/* Probabilities of one row of logits. */
static inline void ref_softmax(const double *logits, double *p, int n)
{
    double max = logits[0], sum = 0;
    for (int i = 1; i < n; i++) {
        max = logits[i] > max ? logits[i] : max;
    }
    for (int i = 0; i < n; i++) {
        sum += p[i] = exp(logits[i] - max);
    }
    for (int i = 0; i < n; i++) {
        p[i] /= sum;
    }
}

#endif
