/* A reference implementation of language models, in double precision and plain loops, that the
   results of flash.h are compared with. It shares no code with the implementation; of flash.h it
   uses only the GGUF functions, for keys and raw bytes. Architectures: llama, deci, flash, qwen2,
   qwen3, gemma3, smollm3, lfm2, and llama4 without experts.

   Letters: D d_model, H query heads, K key/value heads, C d_head, L layers, V vocabulary size. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- weights ----------------------------------------------------------------------- */

static inline double ref_f16(const uint8_t *p)
{
    int bits = p[0] | p[1] << 8, e = bits >> 10 & 31, m = bits & 1023;
    double v = e == 31 ? (m ? (double)NAN : (double)INFINITY)
        : e            ? ldexp(1024 + m, e - 25)
                       : ldexp(m, -24);
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

/* Returns number i of a block of 32 numbers of 4 bits: the low halves of 16 bytes come first, then
   the high halves. */
static inline int ref_nibble(const uint8_t *qs, int i)
{
    return qs[i % 16] >> (i < 16 ? 0 : 4) & 15;
}

/* Unpacks the 6-bit scale and minimum of sub-block j (0..7), which Q4_K and Q5_K pack in 12
   bytes. */
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

/* Returns weight i of the block at p. Every step before the last is exact in double, so that
   rounding the result to float gives the same bits as an implementation in float. */
static inline double ref_weight(uint32_t type, const uint8_t *p, int i)
{
    static const int nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113};
    static const int e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    /* For blocks of 256: n is the half, j the two-bit plane in it, l the place in this plane. */
    int n = i / 128, j = i % 128 / 32, l = i % 32, q, s, m;
    switch (type) {
    case 0: return ref_f32(p);
    case 1: return ref_f16(p);
    case 30: return ref_bf16(p);
    case 2: /* Q4_0: scale d, 16 bytes */ return ref_f16(p) * (ref_nibble(p + 2, i) - 8);
    case 3: /* Q4_1: d, m, 16 bytes */ return ref_f16(p) * ref_nibble(p + 4, i) + ref_f16(p + 2);
    case 6: /* Q5_0: d, 32 fifth bits, 16 bytes */
        return ref_f16(p) * ((ref_nibble(p + 6, i) | (p[2 + i / 8] >> i % 8 & 1) << 4) - 16);
    case 7: /* Q5_1: d, m, 32 fifth bits, 16 bytes */
        return ref_f16(p) * (ref_nibble(p + 8, i) | (p[4 + i / 8] >> i % 8 & 1) << 4)
            + ref_f16(p + 2);
    case 8: /* Q8_0: d, 32 signed bytes */ return ref_f16(p) * (int8_t)p[2 + i];
    case 10: /* Q2_K: 16 (scale, min) nibbles, 64 bytes of quants, d, dmin */
        q = p[16 + 32 * n + l] >> 2 * j & 3;
        s = p[i / 16];
        return ref_f16(p + 80) * (s & 15) * q - ref_f16(p + 82) * (s >> 4);
    case 11: /* Q3_K: 32 bytes of high bits, 64 bytes of quants, 12 of scales, d */
        q = (p[32 + 32 * n + l] >> 2 * j & 3) - (p[l] >> (4 * n + j) & 1 ? 0 : 4);
        m = i / 16;
        s = (m < 8 ? p[96 + m] & 15 : p[96 + m - 8] >> 4) | (p[104 + m % 4] >> m / 4 * 2 & 3) << 4;
        return ref_f16(p + 108) * (s - 32) * q;
    case 12: /* Q4_K: d, dmin, 12 bytes of scales, 128 of nibbles */
    case 13: /* Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles */
        ref_scale_min(p + 4, i / 32, &s, &m);
        q = p[(type == 12 ? 16 : 48) + i / 64 * 32 + l] >> (i / 32 % 2 ? 4 : 0) & 15;
        if (type == 13) q |= (p[16 + l] >> i / 32 & 1) << 4;
        return ref_f16(p) * s * q - ref_f16(p + 2) * m;
    case 14: /* Q6_K: 128 bytes of low nibbles, 64 of high pairs of bits, 16 signed scales, d */
        q = (p[64 * n + 32 * (j % 2) + l] >> (j < 2 ? 0 : 4) & 15)
            | (p[128 + 32 * n + l] >> 2 * j & 3) << 4;
        return ref_f16(p + 208) * (int8_t)p[192 + i / 16] * (q - 32);
    case 20: /* IQ4_NL: d, 16 bytes of indices into a table */
        return ref_f16(p) * nl[ref_nibble(p + 2, i)];
    case 23: /* IQ4_XS: d, high bit pairs of 8 scales, their low nibbles, 8 x 16 bytes of indices */
        s = (p[4 + i / 64] >> (i / 32 % 2 ? 4 : 0) & 15)
            | ((p[2] | p[3] << 8) >> i / 32 * 2 & 3) << 4;
        return ref_f16(p) * (s - 32) * nl[ref_nibble(p + 8 + i / 32 * 16, l)];
    case 39: /* MXFP4: exponent of a power of two, 16 bytes of e2m1 (doubled here, hence 128) */
        return ldexp(e2m1[ref_nibble(p + 1, i)], p[0] - 128);
    default: return (double)NAN;
    }
}

/* Returns the number of weights in a block, and its size [B] in *bytes. Both are 0 if the type is
   unknown. */
static inline int ref_block(uint32_t type, int *bytes)
{
    static const int t[][3] = {{0, 1, 4},      {1, 1, 2},      {2, 32, 18},    {3, 32, 20},
                               {6, 32, 22},    {7, 32, 24},    {8, 32, 34},    {10, 256, 84},
                               {11, 256, 110}, {12, 256, 144}, {13, 256, 176}, {14, 256, 210},
                               {20, 32, 18},   {23, 256, 136}, {30, 1, 2},     {39, 32, 17}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        if ((uint32_t)t[i][0] == type) {
            *bytes = t[i][2];
            return t[i][1];
        }
    }
    return *bytes = 0;
}

/* Dequantises n weights. */
static inline void ref_dequantize(uint32_t type, const uint8_t *src, double *dst, size_t n)
{
    int bytes, items = ref_block(type, &bytes);
    for (size_t i = 0; items && i < n; i++) {
        dst[i] = ref_weight(type, src + i / (size_t)items * (size_t)bytes,
                            (int)(i % (size_t)items));
    }
}

/* Rounds x as it is rounded for a product with quantised weights: to int8 steps of amax/127, for
   each 32 values, all in float. Returns how far the value closest to a tie was from it, in steps:
   near 0, its rounding may go either way. */
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
    double *w; /* [rows,cols]; NULL if the file has no such tensor */
    int rows, cols;
    int quantised;
} ref_matrix;

typedef struct ref_layer {
    int H, K;                      /* H 0: no attention; K 0: one matrix in its place */
    int conv;                      /* taps of a short convolution in place of attention; 0: none */
    int window, chunk;             /* attention window; size of chunked attention; 0: none */
    double rope_base, rope_factor; /* base 0: no rotation */
    double *keys, *values;         /* [n_ctx,K,C] */
    double *gated;                 /* [n_ctx,D] input of the convolution */
    ref_matrix attn_norm, q, k, v, o, ffn_norm, gate, up, down;
    ref_matrix q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias;
    ref_matrix q_norm, k_norm, post_attn_norm, post_ffn_norm, conv_in, conv_w, conv_out;
} ref_layer;

typedef struct ref_model {
    int L, D, C, V;
    int n_ctx, rope_dims;
    int q8;               /* 1: quantise activations before products with quantised weights */
    double closest;       /* the smallest result of ref_int8 so far */
    int yarn, halves;     /* halves: RoPE rotates the pairs (i, i + rope_dims/2) */
    int gelu, norm_after; /* norm_after: q and k are normed after RoPE, without weights */
    double eps, attn_factor, beta_fast, beta_slow, rope_n_ctx;
    double embd_scale, attn_scale, softcap, temperature, floor;
    ref_matrix embd, norm, head, rope_freqs;
    ref_layer *layer;
} ref_model;

static const struct {
    const char *name;
    size_t at;
} ref_tensors[] = {
#define REF_AT(name, field) {name, offsetof(ref_layer, field)}
    REF_AT("attn_norm.weight", attn_norm),
    REF_AT("attn_q.weight", q),
    REF_AT("attn_k.weight", k),
    REF_AT("attn_v.weight", v),
    REF_AT("attn_output.weight", o),
    REF_AT("ffn_norm.weight", ffn_norm),
    REF_AT("ffn_gate.weight", gate),
    REF_AT("ffn_up.weight", up),
    REF_AT("ffn_down.weight", down),
    REF_AT("attn_q.bias", q_bias),
    REF_AT("attn_k.bias", k_bias),
    REF_AT("attn_v.bias", v_bias),
    REF_AT("attn_output.bias", o_bias),
    REF_AT("ffn_gate.bias", gate_bias),
    REF_AT("ffn_up.bias", up_bias),
    REF_AT("ffn_down.bias", down_bias),
    REF_AT("attn_q_norm.weight", q_norm),
    REF_AT("attn_k_norm.weight", k_norm),
    REF_AT("post_attention_norm.weight", post_attn_norm),
    REF_AT("post_ffw_norm.weight", post_ffn_norm),
    REF_AT("shortconv.in_proj.weight", conv_in),
    REF_AT("shortconv.conv.weight", conv_w),
    REF_AT("shortconv.out_proj.weight", conv_out),
#undef REF_AT
};
enum { REF_TENSORS = sizeof ref_tensors / sizeof *ref_tensors };

static inline ref_matrix *ref_matrix_at(ref_layer *y, int i)
{
    return (ref_matrix *)(void *)((char *)y + ref_tensors[i].at);
}

static inline int ref_key_find(const flash_gguf *g, const char *name, flash_value *v)
{
    char key[128];
    flash_value arch;
    if (flash_gguf_find(g, "general.architecture", &arch)) return 0;
    snprintf(key, sizeof key, "%.*s.%s", (int)arch.bytes, (const char *)arch.data, name);
    return !flash_gguf_find(g, key, v);
}

/* Returns a numeric key of the architecture, or its item index if it is an array, or `otherwise` if
   there is no such key. */
static inline double ref_key(const flash_gguf *g, const char *name, int index, double otherwise)
{
    flash_value v;
    if (!ref_key_find(g, name, &v)) return otherwise;
    return flash_value_number(&v, v.type == FLASH_VALUE_ARRAY ? (uint64_t)index : 0);
}

static inline int ref_is(const flash_value *v, const char *text)
{
    return v->type == FLASH_VALUE_STRING && v->bytes == strlen(text)
        && memcmp(v->data, text, v->bytes) == 0;
}

static inline int ref_key_is(const flash_gguf *g, const char *name, const char *text)
{
    flash_value v;
    return ref_key_find(g, name, &v) && ref_is(&v, text);
}

static inline int ref_arch_is(const flash_gguf *g, const char *text)
{
    flash_value v;
    return !flash_gguf_find(g, "general.architecture", &v) && ref_is(&v, text);
}

static inline ref_matrix ref_tensor(const flash_gguf *g, int layer, const char *name)
{
    ref_matrix m = {NULL, 0, 0, 0};
    flash_tensor t;
    char full[64];
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    if (flash_gguf_find_tensor(g, full, &t)) return m;
    m.cols = (int)t.ne[0];
    m.rows = (int)t.ne[1];
    m.quantised = t.type_id > 1 && t.type_id != 30;
    m.w = (double *)malloc((size_t)m.rows * (size_t)m.cols * sizeof *m.w);
    ref_dequantize(t.type_id, t.data, m.w, (size_t)m.rows * (size_t)m.cols);
    return m;
}

/* Positions after which llama4's queries grow: 8,192 in every model, fewer for a short test. */
static double ref_floor = 8192;

/* Sets which positions layer l attends to, and its RoPE. */
static inline void ref_load_pattern(const ref_model *r, const flash_gguf *g, int l)
{
    ref_layer *y = &r->layer[l];
    int window = (int)ref_key(g, "attention.sliding_window", l, 0);
    int period = (int)ref_key(g, "attention.sliding_window_pattern", 0, r->norm_after ? 4 : 6);
    int local = period == 0 || l % period < period - 1;
    flash_value pattern;
    if (ref_key_find(g, "attention.sliding_window_pattern", &pattern)
        && pattern.type == FLASH_VALUE_ARRAY) {
        local = flash_value_number(&pattern, (uint64_t)l) != 0;
    }
    y->rope_base = ref_key(g, "rope.freq_base", l, 10000);
    y->rope_factor = ref_key(g, "rope.scaling.factor", 0, ref_key(g, "rope.scale_linear", 0, 1));
    if (y->rope_factor == 0 || ref_key_is(g, "rope.scaling.type", "none")) y->rope_factor = 1;
    if (ref_arch_is(g, "flash")) {
        y->window = ref_key(g, "attention.pattern", l, 0) == 1 ? window : 0;
    } else if (ref_arch_is(g, "gemma3") && window && local) {
        y->window = window;
        y->rope_base = ref_key(g, "rope.freq_base_swa", 0, 10000);
        y->rope_factor = 1;
    } else if (ref_arch_is(g, "smollm3") && (l + 1) % 4 == 0) {
        y->rope_base = 0;
    } else if (ref_arch_is(g, "lfm2")) {
        y->conv = y->K ? 0 : (int)ref_key(g, "shortconv.l_cache", 0, 0);
        y->window = window;
    } else if (ref_arch_is(g, "llama4") && ref_key(g, "attention.sliding_window", 0, 1) != 0) {
        /* Chunks have 8192 positions, whatever the file says. Every fourth layer has no RoPE. */
        y->chunk = local ? 8192 : 0;
        y->rope_base = (l + 1) % 4 == 0 ? 0
            : local                     ? ref_key(g, "rope.freq_base_swa", 0, y->rope_base)
                                        : y->rope_base;
    }
}

static inline ref_model *ref_load(const flash_gguf *g)
{
    ref_model *r = (ref_model *)calloc(1, sizeof *r);
    int gemma = ref_arch_is(g, "gemma3"), H = 0;
    r->L = (int)ref_key(g, "block_count", 0, 0);
    r->D = (int)ref_key(g, "embedding_length", 0, 0);
    for (int l = 0; l < r->L && !H; l++) H = (int)ref_key(g, "attention.head_count", l, 0);
    r->C = (int)ref_key(g, "attention.key_length", 0, r->D / (H ? H : 1));
    r->n_ctx = (int)ref_key(g, "context_length", 0, 0);
    r->eps = ref_key(g, "attention.layer_norm_rms_epsilon", 0, 0);
    r->rope_dims = (int)ref_key(g, "rope.dimension_count", 0, r->C);
    r->attn_factor = ref_key(g, "rope.scaling.attn_factor", 0, 1);
    r->beta_fast = ref_key(g, "rope.scaling.yarn_beta_fast", 0, 32);
    r->beta_slow = ref_key(g, "rope.scaling.yarn_beta_slow", 0, 1);
    r->rope_n_ctx = ref_key(g, "rope.scaling.original_context_length", 0, r->n_ctx);
    r->yarn = ref_key_is(g, "rope.scaling.type", "yarn");
    r->halves = gemma || ref_arch_is(g, "qwen2") || ref_arch_is(g, "qwen3")
        || ref_arch_is(g, "lfm2");
    r->gelu = gemma;
    r->norm_after = ref_arch_is(g, "llama4");
    r->temperature = r->norm_after ? 0.1 : 0;
    r->floor = ref_floor;
    r->embd_scale = gemma ? sqrt(r->D) : 1;
    r->attn_scale = 1 / sqrt(gemma && r->L == 62 ? (double)r->D / H : r->C);
    r->softcap = gemma ? ref_key(g, "final_logit_softcapping", 0, 0) : 0;
    r->embd = ref_tensor(g, -1, "token_embd.weight");
    r->norm = ref_tensor(g, -1,
                         ref_arch_is(g, "lfm2") ? "token_embd_norm.weight" : "output_norm.weight");
    r->head = ref_tensor(g, -1, "output.weight");
    r->rope_freqs = ref_tensor(g, -1, "rope_freqs.weight");
    r->V = r->embd.rows;
    r->layer = (ref_layer *)calloc((size_t)r->L, sizeof *r->layer);
    for (int l = 0; l < r->L; l++) {
        ref_layer *y = &r->layer[l];
        y->H = (int)ref_key(g, "attention.head_count", l, 0);
        y->K = (int)ref_key(g, "attention.head_count_kv", l, y->H);
        for (int i = 0; i < REF_TENSORS; i++)
            *ref_matrix_at(y, i) = ref_tensor(g, l, ref_tensors[i].name);
        ref_load_pattern(r, g, l);
        size_t cells = (size_t)r->n_ctx * (size_t)(y->K * r->C);
        y->keys = (double *)malloc((cells * 2 + 1) * sizeof *y->keys);
        y->values = y->keys + cells;
        y->gated = (double *)malloc((y->conv ? (size_t)(r->n_ctx * r->D) : 1) * sizeof *y->gated);
    }
    return r;
}

static inline void ref_free(ref_model *r)
{
    for (int l = 0; l < r->L; l++) {
        for (int i = 0; i < REF_TENSORS; i++) free(ref_matrix_at(&r->layer[l], i)->w);
        free(r->layer[l].keys);
        free(r->layer[l].gated);
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
        for (int j = 0; j < m->cols; j++)
            sum += m->w[(size_t)i * (size_t)m->cols + (size_t)j] * x[j];
        y[i] = sum + (bias && bias->w ? bias->w[i] : 0);
    }
    free(xq);
}

/* RMSNorm: y = x / its root mean square, times the weights if there are any. y may be x. */
static inline void ref_rmsnorm(const ref_model *r, const ref_matrix *m, const double *x, double *y,
                               int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    for (int i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / n + r->eps) * (m->w ? m->w[i] : 1);
}

/* Applies RoPE to one head at a position. YaRN (arxiv 2309.00071): pairs of high frequency keep
   their angle, pairs of low frequency are interpolated, and a ramp lies between them. */
static inline void ref_rope(const ref_model *r, const ref_layer *y, double *head, int position)
{
    const double pi = 3.14159265358979323846;
    double low = 0, high = 0, magnitude = r->attn_factor;
    if (r->yarn) {
        double per_log = r->rope_dims / (2 * log(y->rope_base));
        low = floor(per_log * log(r->rope_n_ctx / (r->beta_fast * 2 * pi)));
        high = ceil(per_log * log(r->rope_n_ctx / (r->beta_slow * 2 * pi)));
        low = low < 0 ? 0 : low;
        high = high > r->rope_dims - 1 ? r->rope_dims - 1 : high;
        magnitude *= 1 + 0.1 * log(y->rope_factor);
    }
    for (int i = 0; i < r->rope_dims / 2 && y->rope_base != 0; i++) {
        double turn = position * pow(y->rope_base, -2.0 * i / r->rope_dims);
        if (r->rope_freqs.w) turn /= r->rope_freqs.w[i];
        double keep = 0;
        if (r->yarn) {
            keep = 1 - (i - low) / (high - low > 0.001 ? high - low : 0.001);
            keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
        }
        double angle = turn * keep + turn / y->rope_factor * (1 - keep);
        double c = cos(angle) * magnitude, s = sin(angle) * magnitude;
        double *a = head + (r->halves ? i : 2 * i), *b = a + (r->halves ? r->rope_dims / 2 : 1);
        double first = *a;
        *a = first * c - *b * s;
        *b = first * s + *b * c;
    }
}

/* Applies the norm and RoPE to n heads of queries or keys at position t. */
static inline void ref_heads(const ref_model *r, const ref_layer *y, const ref_matrix *norm,
                             double *heads, int n, int t)
{
    for (int i = 0; i < n; i++) {
        double *head = heads + i * r->C;
        if (norm->w) ref_rmsnorm(r, norm, head, head, r->C);
        ref_rope(r, y, head, t);
        if (r->norm_after && y->rope_base != 0) ref_rmsnorm(r, norm, head, head, r->C);
    }
}

/* Computes the attention of the queries q at position t into out [H*C]. p: [t+1] scratch. */
static inline void ref_attention(const ref_model *r, const ref_layer *y, const double *q, int t,
                                 double *p, double *out)
{
    int C = r->C, row = y->K * C, from = 0;
    if (y->window && t >= y->window) from = t - y->window + 1;
    if (y->chunk) from = t / y->chunk * y->chunk;
    for (int i = 0; i < y->H; i++) {
        const double *k = y->keys + i / (y->H / y->K) * C;
        const double *v = y->values + i / (y->H / y->K) * C;
        double max = -INFINITY, sum = 0;
        for (int u = from; u <= t; u++) {
            p[u] = 0;
            for (int c = 0; c < C; c++)
                p[u] += q[i * C + c] * k[(size_t)u * (size_t)row + (size_t)c];
            p[u] *= r->attn_scale;
            max = p[u] > max ? p[u] : max;
        }
        for (int u = from; u <= t; u++) sum += p[u] = exp(p[u] - max);
        for (int c = 0; c < C; c++) {
            out[i * C + c] = 0;
            for (int u = from; u <= t; u++)
                out[i * C + c] += p[u] / sum * v[(size_t)u * (size_t)row + (size_t)c];
        }
    }
}

/* Replaces the normed input h by the output of the attention of layer y (or of what stands in its
   place) at position t. q, a, p: scratch. */
static inline void ref_mix(ref_model *r, ref_layer *y, int t, double *h, double *q, double *a,
                           double *p)
{
    int D = r->D;
    size_t row = (size_t)(y->K * r->C);
    if (y->conv) { /* conv_in computes a gate of the input, a gate of the output, and the input */
        ref_product(r, &y->conv_in, NULL, h, q);
        for (int d = 0; d < D; d++) {
            y->gated[t * D + d] = q[d] * q[2 * D + d];
            a[d] = 0;
            for (int j = 0; j < y->conv; j++) {
                int u = t - (y->conv - 1) + j;
                a[d] += u < 0 ? 0 : y->conv_w.w[d * y->conv + j] * y->gated[u * D + d];
            }
            a[d] *= q[D + d];
        }
        ref_product(r, &y->conv_out, NULL, a, h);
        return;
    }
    if (!y->K) {
        memcpy(a, h, (size_t)D * sizeof *a);
    } else {
        double *k = y->keys + (size_t)t * row;
        ref_product(r, &y->q, &y->q_bias, h, q);
        ref_product(r, &y->k, &y->k_bias, h, k);
        ref_product(r, &y->v, &y->v_bias, h, y->values + (size_t)t * row);
        ref_heads(r, y, &y->q_norm, q, y->H, t);
        ref_heads(r, y, &y->k_norm, k, y->K, t);
        for (int i = 0; i < y->H * r->C && y->rope_base == 0; i++)
            q[i] *= 1 + r->temperature * log(floor((t + 1) / r->floor) + 1);
        ref_attention(r, y, q, t, p, a);
    }
    ref_product(r, &y->o, &y->o_bias, a, h);
}

/* Replaces the normed input h by the output of the feed-forward of layer y. g, a: scratch. */
static inline void ref_ffn(ref_model *r, ref_layer *y, double *h, double *g, double *a)
{
    ref_product(r, &y->gate, &y->gate_bias, h, g);
    ref_product(r, &y->up, &y->up_bias, h, a);
    for (int i = 0; i < y->up.rows; i++) {
        double z = g[i], cubic = 0.79788456080286536 * (z + 0.044715 * z * z * z);
        a[i] *= r->gelu ? 0.5 * z * (1 + tanh(cubic)) : z / (1 + exp(-z));
    }
    ref_product(r, &y->down, &y->down_bias, a, h);
}

/* Computes the logits [V] after token id at position t. The positions before t must be done. */
static inline void ref_step(ref_model *r, int32_t id, int t, double *logits)
{
    int D = r->D, wide = t + 1 > 3 * D ? t + 1 : 3 * D;
    for (int l = 0; l < r->L; l++) {
        ref_layer *y = &r->layer[l];
        wide = y->H * r->C > wide ? y->H * r->C : wide;
        wide = y->up.rows > wide ? y->up.rows : wide;
    }
    double *x = (double *)malloc((size_t)wide * 6 * sizeof *x);
    double *h = x + wide, *q = h + wide, *a = q + wide, *p = a + wide, *g = p + wide;
    for (int i = 0; i < D; i++)
        x[i] = r->embd.w[(size_t)id * (size_t)D + (size_t)i] * r->embd_scale;
    for (int l = 0; l < r->L; l++) {
        ref_layer *y = &r->layer[l];
        for (int half = y->H ? 0 : 1; half < (y->up.w ? 2 : 1); half++) {
            const ref_matrix *post = half ? &y->post_ffn_norm : &y->post_attn_norm;
            ref_rmsnorm(r, half ? &y->ffn_norm : &y->attn_norm, x, h, D);
            if (half)
                ref_ffn(r, y, h, g, a);
            else
                ref_mix(r, y, t, h, q, a, p);
            if (post->w) ref_rmsnorm(r, post, h, h, D);
            for (int i = 0; i < D; i++) x[i] += h[i];
        }
    }
    ref_rmsnorm(r, &r->norm, x, h, D);
    ref_product(r, r->head.w ? &r->head : &r->embd, NULL, h, logits);
    for (int i = 0; i < r->V && r->softcap != 0; i++)
        logits[i] = r->softcap * tanh(logits[i] / r->softcap);
    free(x);
}

/* Computes the logits [n,V] after each of n tokens. */
static inline void ref_logits(ref_model *r, const int32_t *ids, int n, double *logits)
{
    for (int t = 0; t < n; t++) ref_step(r, ids[t], t, logits + (size_t)t * (size_t)r->V);
}

/* Computes the probabilities p of one row of n logits. */
static inline void ref_softmax(const double *logits, double *p, int n)
{
    double max = logits[0], sum = 0;
    for (int i = 1; i < n; i++) max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < n; i++) sum += p[i] = exp(logits[i] - max);
    for (int i = 0; i < n; i++) p[i] /= sum;
}

#endif
