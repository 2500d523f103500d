/* shapes.c - model shapes, and GGUF files with random weights, see shapes.h. */
#include "shapes.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- shapes ------------------------------------------------------------------ */

/* Sources: flash-*: table 5 of arxiv 2603.15954, where queries and keys are normed; the others but
   tiny: config.json of LiquidAI/LFM2-350M, -700M, -1.2B (the FFN width is the one that
   block_auto_adjust_ff_dim leaves), google/gemma-3-270m, -1b-pt, Qwen/Qwen3-0.6B and
   meta-llama/Llama-3.2-1B at huggingface.co. */
#define LFM2 "conv,conv,full,conv,conv,full,conv,conv,full,conv,full,conv,full,conv,full,conv"
static const struct named {
    const char *name, *arch;
    int layers, d_model, d_ffn, heads, kv_heads, d_head, vocab, tied, ctx;
    const char *attn; /* NULL: that of the architecture */
} shapes[] = {
    {"tiny", "llama", 2, 256, 512, 4, 2, 64, 512, 0, 2048, NULL},
    {"flash-350m", "flash", 12, 1024, 4096, 32, 8, 64, 202048, 1, 8192,
     "full,full,skip,full,skip,skip,full,full,skip,full,skip,full"},
    {"flash-650m", "flash", 13, 1280, 6144, 32, 8, 64, 202048, 1, 8192,
     "full,skip,full,full,skip,full,skip,full,full,full,full,skip,skip"},
    {"flash-1.4b", "flash", 16, 2048, 8192, 32, 8, 64, 202048, 1, 8192, "full"},
    {"lfm2-350m", "lfm2", 16, 1024, 4608, 16, 8, 64, 65536, 1, 128000, LFM2},
    {"lfm2-700m", "lfm2", 16, 1536, 6912, 24, 8, 64, 65536, 1, 128000, LFM2},
    {"lfm2-1.2b", "lfm2", 16, 2048, 8192, 32, 8, 64, 65536, 1, 128000, LFM2},
    {"gemma3-270m", "gemma3", 18, 640, 2048, 4, 1, 256, 262144, 1, 32768, NULL},
    {"gemma3-1b", "gemma3", 26, 1152, 6912, 4, 1, 256, 262144, 1, 32768, NULL},
    {"qwen3-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 128, 151936, 1, 40960, NULL},
    {"llama3.2-1b", "llama", 16, 2048, 8192, 32, 8, 64, 128256, 1, 131072, NULL},
};
const char cli_shape_names[] = "tiny, flash-350m, flash-650m, flash-1.4b, lfm2-350m, lfm2-700m, "
                               "lfm2-1.2b, gemma3-270m, gemma3-1b, qwen3-0.6b, llama3.2-1b";

enum {                /* what an architecture has that llama does not have */
       BIAS = 1,      /* biases of queries, keys and values */
       QK_NORM = 2,   /* a norm of each query head and key head */
       POST_NORM = 4, /* norms of the outputs of attention and FFN */
       LISTS = 8,     /* heads, key/value heads and FFN widths by layer, 0 for none */
       PATTERN = 16,  /* a window and a RoPE base for each layer */
       PERIOD = 32,   /* windows of one size, and every n-th layer full */
       CONVS = 64,    /* layers without key/value heads are convolutions; other names of tensors */
       EXPERTS = 128  /* keys that say that there are no experts */
};
static const struct arch {
    const char *name;
    unsigned has, mixes; /* mixes: bit i is set if cli_mix i is allowed */
    float eps, rope_base;
    const char *attn;
} archs[] = {
    {"llama", 0, 1, 1e-5f, 500000, "full"},
    {"deci", LISTS, 1 | 4 | 8, 1e-5f, 500000, "full,skip"},
    {"flash", LISTS | PATTERN | QK_NORM, 1 | 2 | 4 | 8, 1e-5f, 500000, "full,skip,window:256"},
    {"qwen2", BIAS, 1, 1e-6f, 1000000, "full"},
    {"qwen3", QK_NORM, 1, 1e-6f, 1000000, "full"},
    {"gemma3", QK_NORM | POST_NORM | PERIOD, 1 | 2, 1e-6f, 1000000,
     "window:512,window:512,window:512,window:512,window:512,full"},
    {"smollm3", 0, 1, 1e-6f, 5000000, "full"},
    {"lfm2", QK_NORM | CONVS, 1 | 16, 1e-5f, 1000000, "conv,full"},
    {"llama4", EXPERTS, 1, 1e-5f, 8000000, "full"},
};
const char cli_arch_names[] = "llama, deci, flash, qwen2, qwen3, gemma3, smollm3, lfm2, llama4";

enum { TAPS = 3 }; /* length of a convolution */

static const struct arch *find_arch(const char *name)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!strcmp(archs[i].name, name)) return &archs[i];
    return NULL;
}

/* Sets what the layers of s do by a list such as "full,skip,window:256@10000", which is repeated
   until every layer has an item. Returns 0 if the list is wrong; s->period stays 0 if it is longer
   than the layers. */
static int parse_attn(const char *p, cli_shape *s)
{
    static const char *const mixes[] = {"full", "window", "skip", "linear", "conv"};
    const char *text = p;
    s->period = 0;
    for (int l = 0; l < s->layers; l++) {
        cli_shape_layer *y = &s->layer[l];
        size_t n = strcspn(p, ",:@");
        int mix = 0;
        long v;
        while (mix < 5 && (strlen(mixes[mix]) != n || strncmp(p, mixes[mix], n))) mix++;
        p += n;
        if (mix == 5 || (*p == ':') != (mix == CLI_WINDOW)) return 0;
        y->mix = (cli_mix)mix;
        if (mix == CLI_WINDOW) {
            p++;
            if ((v = cli_number(&p)) < 1 || v > FLASH_CONTEXT_MAX) return 0;
            y->window = (int)v;
        }
        y->rope_base = -1;
        if (*p == '@') {
            p++;
            if ((v = cli_number(&p)) < 0 || v > 1000000000) return 0;
            y->rope_base = (float)v;
        }
        if (mix == CLI_SKIP) y->heads = 0;
        if (mix >= CLI_SKIP) y->kv_heads = 0;
        if (*p && (*p != ',' || !*++p)) return 0;
        if (!*p) {
            p = text;
            s->period = s->period ? s->period : l + 1;
        }
    }
    return 1;
}

/* Returns why the architecture cannot have the shape s; NULL if it can. */
static const char *check(const cli_shape *s, const struct arch *a)
{
    const cli_shape_layer *first = s->layer;
    int window = 0;
    for (const cli_shape_layer *y = first; y < first + s->layers; y++) {
        if (!(a->mixes >> y->mix & 1) || (y->rope_base >= 0 && !(a->has & PATTERN)))
            return "no layers of this kind in this architecture";
        if ((a->has & PERIOD) && window && y->window && y->window != window)
            return "this architecture has windows of one size";
        window = y->window ? y->window : window;
        if (!y->d_ffn && !(a->has & LISTS)) return "this architecture has an FFN in every layer";
        if (y->kv_heads && y->heads % y->kv_heads) return "kv is no divisor of heads";
    }
    return !strcmp(a->name, "deci") && first->mix != CLI_FULL
        ? "llama.cpp takes the head size of deci from layer 0, which must be full"
        : NULL;
}

int cli_shape_parse(const char *text, const char *arch, const char *attn, cli_shape *out,
                    const char **why)
{
    enum { PARTS = 9, LISTED = 3 };
    struct named s = shapes[0];
    const struct {
        const char *name;
        int *to, lo, hi;
    } part[PARTS] = {
        {"heads", &s.heads, 1, 65535},
        {"kv", &s.kv_heads, 1, 65535},
        {"ffn", &s.d_ffn, 0, 1 << 20},
        {"d", &s.d_model, 1, 1 << 20},
        {"layers", &s.layers, 1, FLASH_LAYERS_MAX},
        {"head", &s.d_head, 2, 1 << 16},
        {"vocab", &s.vocab, 300, 1 << 21},
        {"ctx", &s.ctx, 1, FLASH_CONTEXT_MAX},
        {"tied", &s.tied, 0, 1},
    };
    const char *list[LISTED] = {"", "", ""}; /* where the values of heads, kv, ffn begin */
    size_t named = 0;
    *why = "bad shape";
    while (named < sizeof shapes / sizeof *shapes && strcmp(text, shapes[named].name)) named++;
    if (named < sizeof shapes / sizeof *shapes) {
        s = shapes[named];
    } else {
        s.name = "custom";
        s.d_head = 0;
        for (const char *p = text;; p++) {
            size_t n = strcspn(p, "="), i = 0;
            while (i < PARTS && (strlen(part[i].name) != n || strncmp(p, part[i].name, n))) i++;
            if (i == PARTS || p[n] != '=') return 0;
            p += n + 1;
            if (i < LISTED) list[i] = p;
            for (int items = 0;; p++, items++) {
                long v = cli_number(&p);
                if (v < part[i].lo || v > part[i].hi) return 0;
                if (!items) *part[i].to = (int)v;
                if (*p != '/' || i >= LISTED) break;
            }
            if (!*p) break;
            if (*p != ',') return 0;
        }
    }
    if (!s.d_head) s.d_head = s.d_model / s.heads;
    if (s.d_head < 2 || s.d_head % 2) return 0;
    const struct arch *a = find_arch(arch ? arch : s.arch);
    *why = "no such architecture";
    if (!a) return 0;
    memset(out, 0, sizeof *out);
    out->name = s.name;
    out->arch = a->name;
    out->layers = s.layers;
    out->d_model = s.d_model;
    out->d_head = s.d_head;
    out->vocab = s.vocab;
    out->tied = s.tied;
    out->ctx = s.ctx;
    const char *at[LISTED] = {list[0], list[1], list[2]};
    for (int l = 0; l < s.layers; l++) {
        int v[LISTED] = {s.heads, s.kv_heads, s.d_ffn};
        for (int i = 0; i < LISTED; i++)
            if (*at[i]) { /* the next item, after the last one the first again */
                v[i] = (int)cli_number(&at[i]);
                at[i] = *at[i] == '/' ? at[i] + 1 : list[i];
            }
        out->layer[l].heads = v[0];
        out->layer[l].kv_heads = v[1];
        out->layer[l].d_ffn = v[2];
    }
    *why = "the list of what layers do is wrong or too long";
    if (!parse_attn(attn ? attn : s.attn ? s.attn : a->attn, out) || (attn && !out->period))
        return 0;
    *why = check(out, a);
    return !*why;
}

void cli_shape_arch(const cli_shape *s, flash_arch *a)
{
    static const flash_attention kinds[] = {FLASH_ATTENTION_FULL, FLASH_ATTENTION_WINDOW,
                                            FLASH_ATTENTION_SKIP, FLASH_ATTENTION_LINEAR,
                                            FLASH_ATTENTION_CONV};
    const struct arch *of = find_arch(s->arch);
    memset(a, 0, sizeof *a);
    strcpy(a->name, of->name);
    a->n_layer = s->layers;
    a->d_model = s->d_model;
    a->d_head = s->d_head;
    a->n_vocab = s->vocab;
    a->n_ctx = s->ctx;
    a->tied = s->tied;
    a->rope_dims = s->d_head;
    a->qk_norm = !strcmp(of->name, "flash") && (of->has & QK_NORM);
    a->conv_length = of->has & CONVS ? TAPS : 0;
    for (int l = 0; l < s->layers; l++) {
        const cli_shape_layer *y = &s->layer[l];
        a->layer[l].attention = (uint8_t)kinds[y->mix];
        if (y->mix <= CLI_WINDOW) {
            a->layer[l].n_head = (uint16_t)y->heads;
            a->layer[l].n_kv_head = (uint16_t)y->kv_heads;
        }
        a->layer[l].d_ffn = y->d_ffn;
        a->layer[l].window = y->window;
        a->layer[l].rope_base = y->rope_base < 0 ? of->rope_base : y->rope_base;
    }
}

/* ---- random weights ---------------------------------------------------------- */

/* A block of random bits is a block of random weights once its scales are set. scale, minimum:
   where the F16 scales of weights and of minima lie in a block [B]; -1: there is none. mean: the
   mean of the unsigned weights, which the minimum takes away; below 0 where the type adds it. */
static const struct blocks {
    flash_type type;
    int scale, minimum;
    float mean;
} blocks[] = {
    {FLASH_TYPE_Q4_0, 0, -1, 0},    {FLASH_TYPE_Q4_1, 0, 2, -7.5f},
    {FLASH_TYPE_Q5_0, 0, -1, 0},    {FLASH_TYPE_Q5_1, 0, 2, -15.5f},
    {FLASH_TYPE_Q8_0, 0, -1, 0},    {FLASH_TYPE_Q2_K, 80, 82, 1.5f},
    {FLASH_TYPE_Q3_K, 108, -1, 0},  {FLASH_TYPE_Q4_K, 0, 2, 7.5f},
    {FLASH_TYPE_Q5_K, 0, 2, 15.5f}, {FLASH_TYPE_Q6_K, 208, -1, 0},
    {FLASH_TYPE_IQ4_NL, 0, -1, 0},  {FLASH_TYPE_IQ4_XS, 0, -1, 0},
    {FLASH_TYPE_MXFP4, -1, -1, 0},
};

/* Writes n random weights in blocks with scales of +-d. The sign is random, so that the mean is 0
   also for types whose weights are not symmetric about 0. For MXFP4, which has scales of powers of
   two, d is rounded down. */
static void random_blocks(uint8_t *to, flash_type t, size_t n, float d, uint64_t *state)
{
    const struct blocks *b = blocks;
    size_t items = (size_t)flash_type_block(t), size = flash_row_bytes(t, items), left;
    uint8_t scale[2][2], minimum[2][2];
    int exponent;
    while (b->type != t) b++;
    for (int s = 0; s < 2; s++) {
        float signed_d = s ? -d : d, m = b->mean * signed_d;
        flash_quantize(FLASH_TYPE_F16, &signed_d, scale[s], 1);
        flash_quantize(FLASH_TYPE_F16, &m, minimum[s], 1);
    }
    frexp(d, &exponent);
    left = n / items * size;
    for (uint8_t *p = to; left;) {
        uint64_t bits = cli_random(state);
        for (int i = 0; i < 8 && left; i++, left--) *p++ = (uint8_t)(bits >> 8 * i);
    }
    for (n /= items; n; n--, to += size) {
        int s = to[size - 1] >> 7; /* a random bit: of a weight, or of the scale before it is set */
        if (b->scale >= 0)
            memcpy(to + b->scale, scale[s], 2);
        else
            to[0] = (uint8_t)(126 + exponent);
        if (b->minimum >= 0) memcpy(to + b->minimum, minimum[s], 2);
        /* each sub-block's minimum gets the value of its scale */
        if (t == FLASH_TYPE_Q2_K)
            for (int i = 0; i < 16; i++) to[i] = (uint8_t)((to[i] & 15) * 17);
        if (t == FLASH_TYPE_Q4_K || t == FLASH_TYPE_Q5_K)
            for (int i = 4; i < 8; i++) {
                to[i + 4] = to[i];
                to[i + 8] = (uint8_t)((to[i + 8] & 15) * 17);
            }
    }
}

/* Writes n random numbers, nearly normally distributed around 0. */
static void random_floats(float *to, size_t n, float deviation, uint64_t *state)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t bits = cli_random(state);
        int sum = (int)(bits & 65535) + (int)(bits >> 16 & 65535) + (int)(bits >> 32 & 65535)
            + (int)(bits >> 48);
        to[i] = deviation * ((float)(sum - 2 * 65535) / 37837.2f); /* of four uniform ones */
    }
}

/* ---- the file ------------------------------------------------------------------ */

/* Tensors are counted, announced, then written; keys are counted, then written with ANNOUNCE. */
enum pass { COUNT, ANNOUNCE, WRITE };

typedef struct maker {
    flash_gguf_writer *w;
    const cli_shape *shape;
    const struct arch *arch;
    flash_type type;
    uint64_t seed;
    int quiet;
    enum pass pass;
    uint32_t keys, tensors;
    double done, total; /* weights written, to write [B] */
    float *floats;      /* room for a row */
    uint8_t *bytes;     /* room for a row of any type */
} maker;

/* Makes a tensor [rows,n] (rows 0: a vector) of random weights with standard deviation d around
   mean. Vectors and rows of at most 16 weights are F32. */
static void make_tensor(maker *k, const char *name, size_t n, size_t rows, float mean, float d)
{
    flash_type t = rows && n > 16 ? cli_type_for(k->type, n) : FLASH_TYPE_F32;
    size_t size = flash_row_bytes(t, n), left = rows ? rows : 1;
    uint64_t ne[2], state = k->seed;
    ne[0] = n;
    ne[1] = rows;
    if (k->pass == COUNT) {
        k->tensors++;
        return;
    }
    if (k->pass == ANNOUNCE) {
        flash_gguf_write_tensor(k->w, name, t, rows ? 2 : 1, ne);
        k->total += (double)size * (double)left;
        return;
    }
    for (const char *p = name; *p; p++) /* each tensor has a random sequence of its own */
        state = cli_random(&state) ^ (unsigned char)*p;
    if (flash_type_block(t) > 1) { /* finds the scale that gives this deviation by 16 trials */
        double sum = 0;
        for (int trial = 0; trial < 16; trial++) {
            random_blocks(k->bytes, t, n, 1, &state);
            flash_dequantize(t, k->bytes, k->floats, n);
            for (size_t i = 0; i < n; i++) sum += k->floats[i] * k->floats[i];
        }
        d /= (float)sqrt(sum / (16 * (double)n));
    }
    for (; left && !k->w->status; left--) {
        if (flash_type_block(t) > 1) {
            random_blocks(k->bytes, t, n, d, &state);
        } else {
            random_floats(k->floats, n, d, &state);
            for (size_t i = 0; i < n; i++) k->floats[i] += mean;
            flash_quantize(t, k->floats, k->bytes, n);
        }
        flash_gguf_write_data(k->w, k->bytes, size, left == 1);
        k->done += (double)size;
        if (!k->quiet) cli_progress("make", k->done, k->total);
    }
}

enum dim { NONE, D, D3, Q, KV, F, C, TAP };                        /* see dim() */
enum part { MIX = 1, ATTENTION = 2, OUT = 4, CONV = 8, FFN = 16 }; /* parts of a layer */

static size_t dim(const cli_shape *s, const cli_shape_layer *y, enum dim which)
{
    size_t d = (size_t)s->d_model, c = (size_t)s->d_head;
    switch (which) {
    case D: return d;
    case D3: return 3 * d;
    case Q: return y->mix == CLI_LINEAR ? d : (size_t)y->heads * c;
    case KV: return (size_t)y->kv_heads * c;
    case F: return (size_t)y->d_ffn;
    case C: return c;
    case TAP: return TAPS;
    default: return 0;
    }
}

/* The tensors of a layer: shape, part of the layer, what the architecture must have, mean and
   deviation. Norms are near 1 but not 1, so that it shows if one is left out; queries and keys are
   larger, so that attention prefers some positions. */
static const struct {
    const char *name;
    enum dim n, rows;
    unsigned part, has;
    float mean, d;
} tensors[] = {
    {"attn_norm.weight", D, NONE, MIX, 0, 1, 0.1f},
    {"attn_q.weight", D, Q, ATTENTION, 0, 0, 1.5f},
    {"attn_q.bias", Q, NONE, ATTENTION, BIAS, 0, 0.5f},
    {"attn_k.weight", D, KV, ATTENTION, 0, 0, 1.5f},
    {"attn_k.bias", KV, NONE, ATTENTION, BIAS, 0, 0.5f},
    {"attn_v.weight", D, KV, ATTENTION, 0, 0, 1},
    {"attn_v.bias", KV, NONE, ATTENTION, BIAS, 0, 0.5f},
    {"attn_q_norm.weight", C, NONE, ATTENTION, QK_NORM, 1.5f, 0.1f},
    {"attn_k_norm.weight", C, NONE, ATTENTION, QK_NORM, 1.5f, 0.1f},
    {"attn_output.weight", Q, D, OUT, 0, 0, 1},
    {"post_attention_norm.weight", D, NONE, OUT, POST_NORM, 1, 0.1f},
    {"shortconv.in_proj.weight", D, D3, CONV, 0, 0, 1},
    {"shortconv.conv.weight", TAP, D, CONV, 0, 0, 1},
    {"shortconv.out_proj.weight", D, D, CONV, 0, 0, 1},
    {"ffn_norm.weight", D, NONE, FFN, 0, 1, 0.1f},
    {"ffn_gate.weight", D, F, FFN, 0, 0, 1},
    {"ffn_up.weight", D, F, FFN, 0, 0, 1},
    {"ffn_down.weight", F, D, FFN, 0, 0, 1},
    {"post_ffw_norm.weight", D, NONE, FFN, POST_NORM, 1, 0.1f},
};

static void make_tensors(maker *k, enum pass pass)
{
    static const unsigned parts[] = {MIX | ATTENTION | OUT, MIX | ATTENTION | OUT, 0, MIX | OUT,
                                     MIX | CONV}; /* indexed by cli_mix */
    const cli_shape *s = k->shape;
    size_t d = (size_t)s->d_model, v = (size_t)s->vocab;
    float unit = 1 / sqrtf((float)d);
    char name[64];
    k->pass = pass;
    make_tensor(k, "token_embd.weight", d, v, 0, unit);
    for (int l = 0; l < s->layers; l++) {
        const cli_shape_layer *y = &s->layer[l];
        unsigned part = parts[y->mix] | (y->d_ffn ? (unsigned)FFN : 0);
        for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
            size_t n = dim(s, y, tensors[i].n), rows = dim(s, y, tensors[i].rows);
            if (!(tensors[i].part & part) || (tensors[i].has & ~k->arch->has)) continue;
            snprintf(name, sizeof name, "blk.%d.%s", l, tensors[i].name);
            make_tensor(k, name, n, rows, tensors[i].mean,
                        rows ? tensors[i].d / sqrtf((float)n) : tensors[i].d);
        }
    }
    make_tensor(k, k->arch->has & CONVS ? "token_embd_norm.weight" : "output_norm.weight", d, 0, 1,
                0.1f);
    if (!s->tied) make_tensor(k, "output.weight", d, v, 0, unit);
}

/* Makes up n tokens: the words a, b, ... z, aa, ab, ..., each without and with a space in front. */
static void make_vocabulary(cli_vocabulary *v, int n)
{
    cli_vocabulary_create(v, n);
    for (int i = CLI_VOCABULARY_FIXED; i < n; i++) {
        char *end = (char *)v->token[i] + CLI_TOKEN_BYTES - 1;
        int k = i - CLI_VOCABULARY_FIXED;
        for (int word = (k + 1) / 2; word; word = (word - 1) / 26)
            *--end = (char)('a' + (word - 1) % 26);
        if (k % 2 == 0) {
            end -= 3;
            memcpy(end, "\xE2\x96\x81", 3);
        }
        memmove((char *)v->token[i], end, strlen(end) + 1);
    }
}

/* Returns "ARCH.name", in text; NULL in the pass COUNT, in which it counts the key. */
static const char *key(maker *k, const char *name, char text[80])
{
    if (k->pass == COUNT) {
        k->keys++;
        return NULL;
    }
    snprintf(text, 80, "%s.%s", k->arch->name, name);
    return text;
}

static void set_int(maker *k, const char *name, int v)
{
    char text[80];
    if (key(k, name, text)) flash_gguf_write_u32(k->w, text, (uint32_t)v);
}

static void set_float(maker *k, const char *name, float v)
{
    char text[80];
    if (key(k, name, text)) flash_gguf_write_f32(k->w, text, v);
}

/* Writes a list with a number for each layer, the field at offset `at` of cli_shape_layer. With
   single 1 it is one number if all layers have the same. */
static void set_layers(maker *k, const char *name, size_t at, int single)
{
    int32_t v[FLASH_LAYERS_MAX];
    int layers = k->shape->layers, same = 1;
    char text[80];
    for (int l = 0; l < layers; l++) {
        int item;
        memcpy(&item, (const char *)&k->shape->layer[l] + at, sizeof item);
        v[l] = item;
        same &= v[l] == v[0];
    }
    if (same && single)
        set_int(k, name, v[0]);
    else if (key(k, name, text))
        flash_gguf_write_array(k->w, text, FLASH_VALUE_I32, v, (size_t)layers);
}

static void make_keys(maker *k)
{
    const cli_shape *s = k->shape;
    unsigned has = k->arch->has;
    float base[FLASH_LAYERS_MAX];
    int own_base = 0, window = 0, periodic = 1;
    int32_t kind[FLASH_LAYERS_MAX];
    char text[80];
    set_int(k, "context_length", s->ctx);
    set_int(k, "embedding_length", s->d_model);
    set_int(k, "block_count", s->layers);
    set_layers(k, "feed_forward_length", offsetof(cli_shape_layer, d_ffn), !(has & LISTS));
    set_layers(k, "attention.head_count", offsetof(cli_shape_layer, heads), !(has & LISTS));
    set_layers(k, "attention.head_count_kv", offsetof(cli_shape_layer, kv_heads),
               !(has & (LISTS | CONVS)));
    set_int(k, "attention.key_length", s->d_head);
    set_int(k, "attention.value_length", s->d_head);
    set_int(k, "rope.dimension_count", s->d_head);
    set_int(k, "vocab_size", s->vocab);
    set_float(k, "attention.layer_norm_rms_epsilon", k->arch->eps);
    for (int l = 0; l < s->layers; l++) {
        const cli_shape_layer *y = &s->layer[l];
        base[l] = y->rope_base < 0 ? k->arch->rope_base : y->rope_base;
        own_base |= y->rope_base >= 0;
        window = y->window ? y->window : window;
        periodic &= (y->mix == CLI_FULL) == (s->period && l % s->period == s->period - 1);
        kind[l] = y->mix == CLI_LINEAR ? CLI_FULL : (int32_t)y->mix;
    }
    if (!own_base)
        set_float(k, "rope.freq_base", k->arch->rope_base);
    else if (key(k, "rope.freq_base", text))
        flash_gguf_write_array(k->w, text, FLASH_VALUE_F32, base, (size_t)s->layers);
    if (has & PATTERN) {
        if (key(k, "attention.pattern", text))
            flash_gguf_write_array(k->w, text, FLASH_VALUE_I32, kind, (size_t)s->layers);
        set_layers(k, "attention.sliding_window", offsetof(cli_shape_layer, window), 0);
    }
    if ((has & PERIOD) && window) {
        set_int(k, "attention.sliding_window", window);
        if (periodic)
            set_int(k, "attention.sliding_window_pattern", s->period);
        else if (key(k, "attention.sliding_window_pattern", text))
            flash_gguf_write_array(k->w, text, FLASH_VALUE_I32, kind, (size_t)s->layers);
    }
    if (has & CONVS) set_int(k, "shortconv.l_cache", TAPS);
    if (has & EXPERTS) {
        set_int(k, "expert_count", 0);
        set_int(k, "expert_feed_forward_length", s->layer[0].d_ffn);
        set_int(k, "interleave_moe_layer_step", 0);
        set_int(k, "attention.sliding_window", 0);
    }
}

void cli_make_gguf(flash_gguf_writer *w, const cli_shape *shape, const cli_vocabulary *vocabulary,
                   flash_type t, uint64_t seed, int quiet)
{
    enum { GENERAL = 4 }; /* number of keys that begin with general. */
    const cli_shape *s = shape;
    maker k = {0};
    size_t widest = 3 * (size_t)s->d_model;
    for (int l = 0; l < s->layers; l++)
        for (int i = Q; i <= F; i++)
            if (dim(s, &s->layer[l], (enum dim)i) > widest)
                widest = dim(s, &s->layer[l], (enum dim)i);
    k.shape = s;
    k.arch = find_arch(s->arch);
    k.type = t;
    k.seed = seed;
    k.quiet = quiet;
    k.w = w;
    k.floats = malloc(widest * sizeof *k.floats);
    k.bytes = malloc(widest * sizeof *k.floats); /* no type takes more than F32 */
    if (!k.floats || !k.bytes) cli_fail("out of memory");
    make_keys(&k);
    make_tensors(&k, COUNT);
    flash_gguf_write_begin(w, k.keys + GENERAL + cli_vocabulary_keys(vocabulary), k.tensors);
    k.pass = ANNOUNCE;
    flash_gguf_write_string(w, "general.architecture", s->arch);
    flash_gguf_write_string(w, "general.name", s->name);
    flash_gguf_write_u32(w, "general.file_type", (uint32_t)cli_file_type(t));
    flash_gguf_write_u32(w, "general.quantization_version", 2);
    make_keys(&k);
    cli_vocabulary_write(vocabulary, w);
    make_tensors(&k, ANNOUNCE);
    if (!quiet) cli_progress("make", 0, k.total);
    make_tensors(&k, WRITE);
    free(k.floats);
    free(k.bytes);
}

void cli_make_model(const char *path, const cli_shape *shape, flash_type t, uint64_t seed,
                    int quiet)
{
    flash_gguf_writer w = {0};
    cli_vocabulary v;
    make_vocabulary(&v, shape->vocab);
    cli_create(path, &w);
    cli_make_gguf(&w, shape, &v, t, seed, quiet);
    cli_finish(path, &w);
    cli_vocabulary_free(&v);
}
