/* shapes.c - model shapes, and GGUF files of random weights, see shapes.h. */
#include "shapes.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* flash-*: the published family, every layer with attention; llama-1b: Llama 3.2 1B. */
static const cli_shape shapes[] = {
    {"tiny",        2,  256,  512,  4, 2, 64,    512, 0,   2048},
    {"flash-350m", 12, 1024, 4096, 32, 8, 64, 202048, 1,   8192},
    {"flash-650m", 13, 1280, 6144, 32, 8, 64, 202048, 1,   8192},
    {"flash-1.4b", 16, 2048, 8192, 32, 8, 64, 202048, 1,   8192},
    {"llama-1b",   16, 2048, 8192, 32, 8, 64, 128256, 1, 131072},
};
const char cli_shape_names[] = "tiny, flash-350m, flash-650m, flash-1.4b, llama-1b";

int cli_shape_parse(const char *text, cli_shape *out)
{
    cli_shape s = shapes[0];
    const struct { const char *name; int *to, lo, hi; } part[] = {
        {"d", &s.d_model, 1, 1 << 20},   {"layers", &s.layers, 1, FLASH_LAYERS_MAX},
        {"heads", &s.heads, 1, 65535},   {"kv", &s.kv_heads, 1, 65535},
        {"head", &s.d_head, 2, 1 << 16}, {"ffn", &s.d_ffn, 1, 1 << 20},
        {"vocab", &s.vocab, 300, 1 << 21}, {"ctx", &s.ctx, 1, FLASH_CONTEXT_MAX},
    };
    enum { PARTS = sizeof part / sizeof *part };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!strcmp(text, shapes[i].name)) {
            *out = shapes[i];
            return 1;
        }
    s.name = "custom";
    s.d_head = 0;
    for (;;) {
        size_t n = strcspn(text, "="), i = 0;
        char *end;
        while (i < PARTS && (strlen(part[i].name) != n || strncmp(text, part[i].name, n)))
            i++;
        if (i == PARTS || text[n] != '=' || text[n + 1] < '0' || text[n + 1] > '9')
            return 0;
        long v = strtol(text + n + 1, &end, 10);
        if ((*end && *end != ',') || v < part[i].lo || v > part[i].hi)
            return 0;
        *part[i].to = (int)v;
        if (!*end)
            break;
        text = end + 1;
    }
    if (!s.d_head)
        s.d_head = s.d_model / s.heads;
    if (s.heads % s.kv_heads || s.d_head < 2 || s.d_head % 2)
        return 0;
    *out = s;
    return 1;
}

/* ---- random weights ---------------------------------------------------------- */

static uint64_t random64(uint64_t *state) /* SplitMix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Blocks of random bits are random weights once these are set: where the f16 scales of weights and
   of minima lie (-1: none), and the mean of the unsigned weights, which the minima take away. */
static const struct blocks {
    flash_type type;
    int scale, minimum;
    float mean;
} blocks[] = {
    {FLASH_TYPE_Q4_0, 0, -1, 0},    {FLASH_TYPE_Q4_1, 0, 2, -7.5f}, {FLASH_TYPE_Q5_0, 0, -1, 0},
    {FLASH_TYPE_Q5_1, 0, 2, -15.5f}, {FLASH_TYPE_Q8_0, 0, -1, 0},   {FLASH_TYPE_Q2_K, 80, 82, 1.5f},
    {FLASH_TYPE_Q3_K, 108, -1, 0},  {FLASH_TYPE_Q4_K, 0, 2, 7.5f},  {FLASH_TYPE_Q5_K, 0, 2, 15.5f},
    {FLASH_TYPE_Q6_K, 208, -1, 0},  {FLASH_TYPE_IQ4_NL, 0, -1, 0},  {FLASH_TYPE_IQ4_XS, 0, -1, 0},
    {FLASH_TYPE_MXFP4, -1, -1, 0},
};

/* n weights in blocks with scales of +-d; the sign is random, so that types whose weights are not
   even about 0 have no mean either. MXFP4 takes the next smaller power of two. */
static void random_blocks(uint8_t *to, flash_type t, size_t n, float d, uint64_t *state)
{
    const struct blocks *b = blocks;
    size_t items = (size_t)flash_type_block(t), size = flash_row_bytes(t, items), left;
    uint8_t scale[2][2], minimum[2][2];
    int exponent;
    while (b->type != t)
        b++;
    for (int s = 0; s < 2; s++) {
        float signed_d = s ? -d : d, m = b->mean * signed_d;
        flash_quantize(FLASH_TYPE_F16, &signed_d, scale[s], 1);
        flash_quantize(FLASH_TYPE_F16, &m, minimum[s], 1);
    }
    frexp(d, &exponent);
    left = n / items * size;
    for (uint8_t *p = to; left; ) {
        uint64_t bits = random64(state);
        for (int i = 0; i < 8 && left; i++, left--)
            *p++ = (uint8_t)(bits >> 8 * i);
    }
    for (n /= items; n; n--, to += size) {
        int s = to[size - 1] >> 7; /* of a byte of weights, or the scale's own */
        if (b->scale >= 0)
            memcpy(to + b->scale, scale[s], 2);
        else
            to[0] = (uint8_t)(126 + exponent);
        if (b->minimum >= 0)
            memcpy(to + b->minimum, minimum[s], 2);
        /* every minimum as its scale */
        if (t == FLASH_TYPE_Q2_K)
            for (int i = 0; i < 16; i++)
                to[i] = (uint8_t)((to[i] & 15) * 17);
        if (t == FLASH_TYPE_Q4_K || t == FLASH_TYPE_Q5_K)
            for (int i = 4; i < 8; i++) {
                to[i + 4] = to[i];
                to[i + 8] = (uint8_t)((to[i + 8] & 15) * 17);
            }
    }
}

/* n floats of about normal distribution. */
static void random_floats(float *to, size_t n, float deviation, uint64_t *state)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t bits = random64(state);
        int sum = (int)(bits & 65535) + (int)(bits >> 16 & 65535) + (int)(bits >> 32 & 65535)
                + (int)(bits >> 48);
        to[i] = deviation * ((float)(sum - 2 * 65535) / 37837.2f); /* of four uniform ones */
    }
}

/* ---- the file ------------------------------------------------------------------ */

typedef struct maker {
    flash_gguf_writer w;
    const cli_shape *shape;
    flash_type type;
    uint64_t seed;
    int quiet, data; /* data: the second pass, which writes the weights */
    double done, total;
    float *floats;   /* a row  */
    uint8_t *bytes;  /* a row  */
} maker;

/* [rows,n]; rows 0: a vector of ones. */
static void make_tensor(maker *k, const char *name, size_t n, size_t rows)
{
    flash_type t = rows ? cli_type_for(k->type, n) : FLASH_TYPE_F32;
    size_t size = flash_row_bytes(t, n);
    float d = 1 / sqrtf((float)n);
    uint64_t ne[2], state = k->seed;
    ne[0] = n;
    ne[1] = rows;
    if (!k->data) {
        flash_gguf_write_tensor(&k->w, name, t, rows ? 2 : 1, ne);
        k->total += (double)size * (double)(rows ? rows : 1);
        return;
    }
    for (const char *p = name; *p; p++) /* a sequence of its own for each tensor */
        state = random64(&state) ^ (unsigned char)*p;
    if (!rows) {
        for (size_t i = 0; i < n; i++)
            k->floats[i] = 1;
        flash_quantize(t, k->floats, k->bytes, n);
        flash_gguf_write_data(&k->w, k->bytes, size, 1);
    } else if (flash_type_block(t) > 1) { /* the scale for that deviation, from a trial */
        double sum = 0;
        for (int trial = 0; trial < 16; trial++) {
            random_blocks(k->bytes, t, n, 1, &state);
            flash_dequantize(t, k->bytes, k->floats, n);
            for (size_t i = 0; i < n; i++)
                sum += k->floats[i] * k->floats[i];
        }
        d /= (float)sqrt(sum / (16 * (double)n));
    }
    for (size_t r = 0; r < rows && !k->w.status; r++) {
        if (flash_type_block(t) > 1) {
            random_blocks(k->bytes, t, n, d, &state);
        } else {
            random_floats(k->floats, n, d, &state);
            flash_quantize(t, k->floats, k->bytes, n);
        }
        flash_gguf_write_data(&k->w, k->bytes, size, r + 1 == rows);
        k->done += (double)size;
        if (!k->quiet)
            cli_progress("make", k->done, k->total);
    }
}

static void make_tensors(maker *k)
{
    const cli_shape *s = k->shape;
    size_t d = (size_t)s->d_model, f = (size_t)s->d_ffn, v = (size_t)s->vocab;
    size_t q = (size_t)s->heads * (size_t)s->d_head, kv = (size_t)s->kv_heads * (size_t)s->d_head;
    const struct { const char *name; size_t n, rows; } part[] = {
        {"attn_norm", d, 0}, {"attn_q", d, q}, {"attn_k", d, kv}, {"attn_v", d, kv},
        {"attn_output", q, d}, {"ffn_norm", d, 0}, {"ffn_gate", d, f}, {"ffn_up", d, f},
        {"ffn_down", f, d},
    };
    char name[64];
    make_tensor(k, "token_embd.weight", d, v);
    for (int i = 0; i < s->layers; i++)
        for (size_t p = 0; p < sizeof part / sizeof *part; p++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", i, part[p].name);
            make_tensor(k, name, part[p].n, part[p].rows);
        }
    make_tensor(k, "output_norm.weight", d, 0);
    if (!s->tied)
        make_tensor(k, "output.weight", d, v);
}

/* A SentencePiece vocabulary: 3 control tokens, 256 bytes, U+2581 for a space, then all the words
   a, b, ... z, aa, ab, ... without and with that in front. */
static void make_vocabulary(flash_gguf_writer *w, int n)
{
    enum { BYTES = 3, WORDS = BYTES + 256, LONGEST = 16 };
    static const char *const control[] = {"<unk>", "<s>", "</s>"};
    const char **token = malloc((size_t)n * sizeof *token);
    char *text = malloc((size_t)n * LONGEST), *p = text;
    float *score = malloc((size_t)n * sizeof *score);
    int32_t *type = malloc((size_t)n * sizeof *type);
    if (!token || !text || !score || !type)
        cli_fail("out of memory");
    for (int i = 0; i < n; i++, p += LONGEST) {
        token[i] = p;
        score[i] = i < WORDS ? 0 : (float)(WORDS - i);
        type[i] = i == 0 ? 2 : i < BYTES ? 3 : i < WORDS ? 6 : 1; /* unknown, control, byte */
        if (i < BYTES) {
            strcpy(p, control[i]);
        } else if (i < WORDS) {
            snprintf(p, LONGEST, "<0x%02X>", (unsigned)(i - BYTES));
        } else {
            char *end = p + LONGEST - 1;
            *end = 0;
            for (int word = (i - WORDS + 1) / 2; word; word = (word - 1) / 26)
                *--end = (char)('a' + (word - 1) % 26);
            token[i] = end;
            if ((i - WORDS) % 2 == 0) {
                memcpy(end - 3, "\xE2\x96\x81", 3);
                token[i] = end - 3;
            }
        }
    }
    flash_gguf_write_string(w, "tokenizer.ggml.model", "llama");
    flash_gguf_write_strings(w, "tokenizer.ggml.tokens", token, NULL, (size_t)n);
    flash_gguf_write_array(w, "tokenizer.ggml.scores", FLASH_VALUE_F32, score, (size_t)n);
    flash_gguf_write_array(w, "tokenizer.ggml.token_type", FLASH_VALUE_I32, type, (size_t)n);
    flash_gguf_write_u32(w, "tokenizer.ggml.bos_token_id", 1);
    flash_gguf_write_u32(w, "tokenizer.ggml.eos_token_id", 2);
    flash_gguf_write_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    free(token);
    free(text);
    free(score);
    free(type);
}

void cli_make_model(const char *path, const cli_shape *shape, flash_type t, uint64_t seed,
                    int quiet)
{
    const cli_shape *s = shape;
    const struct { const char *key; int value; } number[] = {
        {"llama.context_length", s->ctx},
        {"llama.embedding_length", s->d_model},
        {"llama.block_count", s->layers},
        {"llama.feed_forward_length", s->d_ffn},
        {"llama.attention.head_count", s->heads},
        {"llama.attention.head_count_kv", s->kv_heads},
        {"llama.attention.key_length", s->d_head},
        {"llama.attention.value_length", s->d_head},
        {"llama.rope.dimension_count", s->d_head},
        {"llama.vocab_size", s->vocab},
        {"general.file_type", cli_file_type(t)},
        {"general.quantization_version", 2},
    };
    enum { NUMBERS = sizeof number / sizeof *number, KEYS = NUMBERS + 2 + 2 + 7 };
    maker k = {0};
    int widest = s->d_model > s->d_ffn ? s->d_model : s->d_ffn;
    if (widest < s->heads * s->d_head)
        widest = s->heads * s->d_head;
    cli_create(path, &k.w);
    k.shape = s;
    k.type = t;
    k.seed = seed;
    k.quiet = quiet;
    k.floats = malloc((size_t)widest * sizeof *k.floats);
    k.bytes = malloc((size_t)widest * sizeof *k.floats); /* no type takes more */
    if (!k.floats || !k.bytes)
        cli_fail("out of memory");
    flash_gguf_write_begin(&k.w, KEYS, (uint32_t)(2 + 9 * s->layers + !s->tied));
    flash_gguf_write_string(&k.w, "general.architecture", "llama");
    flash_gguf_write_string(&k.w, "general.name", s->name);
    for (int i = 0; i < NUMBERS; i++)
        flash_gguf_write_u32(&k.w, number[i].key, (uint32_t)number[i].value);
    flash_gguf_write_f32(&k.w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    flash_gguf_write_f32(&k.w, "llama.rope.freq_base", 500000);
    make_vocabulary(&k.w, s->vocab);
    make_tensors(&k);
    if (!quiet)
        cli_progress("make", 0, k.total);
    k.data = 1;
    make_tensors(&k);
    cli_finish(path, &k.w);
    free(k.floats);
    free(k.bytes);
}
