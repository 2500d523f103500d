/* Builds GGUF files in memory: small random models for tests, and the same models broken on
   purpose. It shares no code with flash.h, so that the two check each other. Any number of programs
   may include it. If there is no memory, it ends the program. */
#ifndef MKMODEL_H
#define MKMODEL_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- bytes ---------------------------------------------------------------------------------- */

typedef struct mk_buf {
    uint8_t *p;
    size_t n, cap;
} mk_buf;

static inline void *mk_alloc(void *old, size_t n)
{
    void *p = realloc(old, n ? n : 1);
    if (!p) {
        fprintf(stderr, "mkmodel: out of memory\n");
        exit(1);
    }
    return p;
}

/* Grows the buffer by n bytes and returns the address of the first new one. */
static inline uint8_t *mk_grow(mk_buf *b, size_t n)
{
    if (b->cap - b->n < n) {
        b->cap = (b->n + n) * 2;
        b->p = (uint8_t *)mk_alloc(b->p, b->cap);
    }
    b->n += n;
    return b->p + b->n - n;
}

static inline void mk_bytes(mk_buf *b, const void *p, size_t n)
{
    if (n) memcpy(mk_grow(b, n), p, n);
}

static inline void mk_fill(mk_buf *b, int byte, size_t n)
{
    if (n) memset(mk_grow(b, n), byte, n);
}

/* Appends the low `size` bytes of v, in little-endian order on any host. */
static inline void mk_int(mk_buf *b, uint64_t v, int size)
{
    uint8_t *p = mk_grow(b, (size_t)size);
    for (int i = 0; i < size; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static inline void mk_u8(mk_buf *b, uint32_t v) { mk_int(b, v, 1); }

static inline void mk_u16(mk_buf *b, uint32_t v) { mk_int(b, v, 2); }

static inline void mk_u32(mk_buf *b, uint32_t v) { mk_int(b, v, 4); }

static inline void mk_u64(mk_buf *b, uint64_t v) { mk_int(b, v, 8); }

static inline void mk_f32(mk_buf *b, float v)
{
    uint32_t u;
    memcpy(&u, &v, 4);
    mk_u32(b, u);
}

static inline void mk_f64(mk_buf *b, double v)
{
    uint64_t u;
    memcpy(&u, &v, 8);
    mk_u64(b, u);
}

static inline void mk_text(mk_buf *b, const char *text)
{
    mk_u64(b, strlen(text));
    mk_bytes(b, text, strlen(text));
}

/* --- random numbers and small floats -------------------------------------------------------- */

/* splitmix64 */
static inline uint64_t mk_rnd(uint64_t *seed)
{
    uint64_t z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Returns a number in [0,1) of 24 random bits: the same numbers on every machine. */
static inline double mk_uniform(uint64_t *seed)
{
    return (double)(mk_rnd(seed) >> 40) / 16777216.0;
}

/* Returns a number with mean 0 and standard deviation 1. A sum of four uniform numbers is close
   enough to normal for weights, and needs no libm. */
static inline double mk_normal(uint64_t *seed)
{
    double s = -2;
    for (int i = 0; i < 4; i++) s += mk_uniform(seed);
    return s * 1.7320508075688772;
}

/* Converts to IEEE half precision, rounding to nearest even. NaN stays NaN. */
static inline uint16_t mk_half(float v)
{
    uint32_t u, sign, mant;
    int e;
    memcpy(&u, &v, 4);
    sign = u >> 16 & 0x8000u;
    e = (int)(u >> 23 & 255) - 127 + 15;
    mant = u & 0x7FFFFFu;
    if (e == 255 - 127 + 15) return (uint16_t)(sign | 0x7C00u | (mant ? 0x200u : 0));
    if (e < -10) return (uint16_t)sign;
    mant |= 0x800000u;
    int drop = e > 0 ? 13 : 14 - e;
    uint32_t r = (mant >> drop) + (e > 0 ? (uint32_t)(e - 1) << 10 : 0);
    uint32_t rest = mant & ((1u << drop) - 1), tie = 1u << (drop - 1);
    r += rest > tie || (rest == tie && (r & 1));
    return (uint16_t)(sign | (r > 0x7C00u ? 0x7C00u : r));
}

/* --- weight types --------------------------------------------------------------------------- */

enum {
    MK_F32 = 0,
    MK_F16 = 1,
    MK_Q4_0 = 2,
    MK_Q4_1 = 3,
    MK_Q5_0 = 6,
    MK_Q5_1 = 7,
    MK_Q8_0 = 8,
    MK_Q2_K = 10,
    MK_Q3_K = 11,
    MK_Q4_K = 12,
    MK_Q5_K = 13,
    MK_Q6_K = 14,
    MK_IQ4_NL = 20,
    MK_IQ4_XS = 23,
    MK_BF16 = 30,
    MK_MXFP4 = 39
};

/* The layout of a weight type. Random bytes become a valid block once its scales are set. */
typedef struct mk_layout {
    const char *name;
    uint32_t id;
    int items, bytes, at, min_at; /* sizes of a block; offsets of its f16 scale and f16 minimum,
                                     -1: none */
    double min, unit;             /* minimum / scale for weights of mean 0; standard deviation of
                                     random weights with scale 1 */
} mk_layout;

static inline const mk_layout *mk_layout_of(uint32_t id)
{
    static const mk_layout table[] = {
        {"f32", MK_F32, 1, 4, -1, -1, 0, 1},
        {"f16", MK_F16, 1, 2, -1, -1, 0, 1},
        {"bf16", MK_BF16, 1, 2, -1, -1, 0, 1},
        {"q4_0", MK_Q4_0, 32, 18, 0, -1, 0, 4.6},
        {"q4_1", MK_Q4_1, 32, 20, 0, 2, -7.5, 4.6},
        {"q5_0", MK_Q5_0, 32, 22, 0, -1, 0, 9.2},
        {"q5_1", MK_Q5_1, 32, 24, 0, 2, -15.5, 9.2},
        {"q8_0", MK_Q8_0, 32, 34, 0, -1, 0, 74},
        {"q2_k", MK_Q2_K, 256, 84, 80, 82, 1.5, 14},
        {"q3_k", MK_Q3_K, 256, 110, 108, -1, 0, 43},
        {"q4_k", MK_Q4_K, 256, 144, 0, 2, 7.5, 257},
        {"q5_k", MK_Q5_K, 256, 176, 0, 2, 15.5, 523},
        {"q6_k", MK_Q6_K, 256, 210, 208, -1, 0, 1369},
        {"iq4_nl", MK_IQ4_NL, 32, 18, 0, -1, 0, 70},
        {"iq4_xs", MK_IQ4_XS, 256, 136, 0, -1, 0, 1290},
        {"mxfp4", MK_MXFP4, 32, 17, 0, -1, 0, 2.8},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].id == id) return &table[i];
    return NULL;
}

/* Appends n random weights of the given mean and standard deviation. */
static inline void mk_weights(mk_buf *b, uint32_t type, size_t n, double mean, double deviation,
                              uint64_t *seed)
{
    const mk_layout *l = mk_layout_of(type);
    for (size_t i = 0; i < n; i += (size_t)l->items) {
        if (l->items == 1) {
            float v = (float)(mean + deviation * mk_normal(seed));
            uint32_t u;
            memcpy(&u, &v, 4);
            mk_int(b, type == MK_F32 ? u : type == MK_F16 ? mk_half(v) : u >> 16, l->bytes);
            continue;
        }
        uint8_t *p = mk_grow(b, (size_t)l->bytes);
        for (int k = 0; k < l->bytes; k++) p[k] = (uint8_t)(mk_rnd(seed) >> 56);
        double d = deviation / l->unit * (0.7 + 0.6 * mk_uniform(seed));
        if (type == MK_MXFP4) {
            /* The scale is a power of two, stored as its exponent plus 127. */
            p[0] = (uint8_t)(127 + (int)floor(log2(d) + 0.5));
            continue;
        }
        uint16_t h = mk_half((float)d), m = mk_half((float)(d * l->min));
        p[l->at] = (uint8_t)h;
        p[l->at + 1] = (uint8_t)(h >> 8);
        if (l->min_at >= 0) {
            p[l->min_at] = (uint8_t)m;
            p[l->min_at + 1] = (uint8_t)(m >> 8);
        }
    }
}

/* --- files ---------------------------------------------------------------------------------- */

enum { MK_KEYS = 64, MK_TENSORS = 896 };

enum {
    MK_V_U8,
    MK_V_I8,
    MK_V_U16,
    MK_V_I16,
    MK_V_U32,
    MK_V_I32,
    MK_V_F32,
    MK_V_BOOL,
    MK_V_STRING,
    MK_V_ARRAY,
    MK_V_U64,
    MK_V_I64,
    MK_V_F64
};

typedef struct mk_key {
    mk_buf name, value;  /* value: the bytes written after the type */
    uint64_t name_bytes; /* the length of the name as written; normally name.n */
    uint32_t type;
} mk_key;

typedef struct mk_tensor {
    char name[80];
    uint32_t n_dims; /* as written */
    int n_ne;        /* how many of ne are written */
    uint64_t ne[8];
    uint32_t type;
    int own_offset; /* 1: offset is written as it is; 0: mk_emit computes it */
    uint64_t offset;
    mk_buf data;
} mk_tensor;

typedef struct mk_file {
    uint32_t version, align; /* align: of the data; general.alignment is set separately */
    int own_counts;          /* 1: n_tensors and n_kv are written in place of the true counts */
    uint64_t n_tensors, n_kv;
    size_t keys, tensors;
    size_t data_at; /* set by mk_emit: where the data of the tensors begins */
    mk_key key[MK_KEYS];
    mk_tensor tensor[MK_TENSORS];
} mk_file;

static inline void mk_free(mk_file *f)
{
    for (size_t i = 0; i < f->keys; i++) {
        free(f->key[i].name.p);
        free(f->key[i].value.p);
    }
    for (size_t i = 0; i < f->tensors; i++) free(f->tensor[i].data.p);
    free(f);
}

static inline mk_file *mk_new(void)
{
    mk_file *f = (mk_file *)mk_alloc(NULL, sizeof *f);
    memset(f, 0, sizeof *f);
    f->version = 3;
    f->align = 32;
    return f;
}

static inline mk_key *mk_find(mk_file *f, const char *name)
{
    for (size_t i = 0; i < f->keys; i++)
        if (f->key[i].name.n == strlen(name) && !memcmp(f->key[i].name.p, name, strlen(name)))
            return &f->key[i];
    return NULL;
}

/* Adds a key, even if there is already one of that name. The caller appends its value to the
   buffer returned. */
static inline mk_buf *mk_add(mk_file *f, const char *name, uint32_t type)
{
    mk_key *k = &f->key[f->keys++];
    memset(k, 0, sizeof *k);
    mk_bytes(&k->name, name, strlen(name));
    k->name_bytes = strlen(name);
    k->type = type;
    return &k->value;
}

/* Replaces the value of a key in its place, or adds the key. The caller appends the new value to
   the buffer returned. */
static inline mk_buf *mk_set(mk_file *f, const char *name, uint32_t type)
{
    mk_key *k = mk_find(f, name);
    if (!k) return mk_add(f, name, type);
    k->type = type;
    k->value.n = 0;
    return &k->value;
}

static inline void mk_set_u32(mk_file *f, const char *name, uint32_t v)
{
    mk_u32(mk_set(f, name, MK_V_U32), v);
}

static inline void mk_set_f32(mk_file *f, const char *name, float v)
{
    mk_f32(mk_set(f, name, MK_V_F32), v);
}

static inline void mk_set_bool(mk_file *f, const char *name, int v)
{
    mk_u8(mk_set(f, name, MK_V_BOOL), (uint32_t)v);
}

static inline void mk_set_text(mk_file *f, const char *name, const char *v)
{
    mk_text(mk_set(f, name, MK_V_STRING), v);
}

/* Sets a key to an array of n items. The caller appends them to the buffer returned. */
static inline mk_buf *mk_set_array(mk_file *f, const char *name, uint32_t item, uint64_t n)
{
    mk_buf *b = mk_set(f, name, MK_V_ARRAY);
    mk_u32(b, item);
    mk_u64(b, n);
    return b;
}

static inline void mk_remove(mk_file *f, const char *name)
{
    mk_key *k = mk_find(f, name);
    if (k) {
        free(k->name.p);
        free(k->value.p);
        memmove(k, k + 1, (size_t)(f->key + --f->keys - k) * sizeof *k);
    }
}

static inline mk_tensor *mk_find_tensor(mk_file *f, const char *name)
{
    for (size_t i = 0; i < f->tensors; i++)
        if (!strcmp(f->tensor[i].name, name)) return &f->tensor[i];
    return NULL;
}

/* Adds a tensor with random weights. ne1 is 0 for a tensor of one dimension. */
static inline mk_tensor *mk_add_tensor(mk_file *f, const char *name, uint32_t type, uint64_t ne0,
                                       uint64_t ne1, double mean, double deviation, uint64_t *seed)
{
    mk_tensor *t = &f->tensor[f->tensors++];
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->type = type;
    t->n_ne = ne1 ? 2 : 1;
    t->n_dims = (uint32_t)t->n_ne;
    t->ne[0] = ne0;
    t->ne[1] = ne1;
    mk_weights(&t->data, type, (size_t)(ne0 * (ne1 ? ne1 : 1)), mean, deviation, seed);
    return t;
}

static inline void mk_remove_tensor(mk_file *f, const char *name)
{
    mk_tensor *t = mk_find_tensor(f, name);
    if (t) {
        free(t->data.p);
        memmove(t, t + 1, (size_t)(f->tensor + --f->tensors - t) * sizeof *t);
    }
}

/* Returns the bytes of the file in an allocation of exactly that size. The caller frees it. */
static inline uint8_t *mk_emit(mk_file *f, size_t *bytes)
{
    mk_buf b = {0};
    uint64_t offset = 0;
    mk_bytes(&b, "GGUF", 4);
    mk_u32(&b, f->version);
    mk_u64(&b, f->own_counts ? f->n_tensors : f->tensors);
    mk_u64(&b, f->own_counts ? f->n_kv : f->keys);
    for (size_t i = 0; i < f->keys; i++) {
        mk_u64(&b, f->key[i].name_bytes);
        mk_bytes(&b, f->key[i].name.p, f->key[i].name.n);
        mk_u32(&b, f->key[i].type);
        mk_bytes(&b, f->key[i].value.p, f->key[i].value.n);
    }
    for (size_t i = 0; i < f->tensors; i++) {
        mk_tensor *t = &f->tensor[i];
        mk_text(&b, t->name);
        mk_u32(&b, t->n_dims);
        for (int d = 0; d < t->n_ne; d++) mk_u64(&b, t->ne[d]);
        mk_u32(&b, t->type);
        t->offset = t->own_offset ? t->offset : offset;
        mk_u64(&b, t->offset);
        offset += (t->data.n + f->align - 1) / f->align * f->align;
    }
    f->data_at = (b.n + f->align - 1) / f->align * f->align;
    for (size_t i = 0; i < f->tensors; i++) {
        mk_fill(&b, 0, (f->align - b.n % f->align) % f->align);
        mk_bytes(&b, f->tensor[i].data.p, f->tensor[i].data.n);
    }
    mk_fill(&b, 0, (f->align - b.n % f->align) % f->align);
    *bytes = b.n;
    return (uint8_t *)mk_alloc(b.p, b.n);
}

/* --- models --------------------------------------------------------------------------------- */

/* What to build. All zero gives an F32 llama model with tied embeddings and a SentencePiece
   vocabulary. */
typedef struct mk_options {
    int n_layer, d_model, n_head, n_kv_head, d_head, d_ffn; /* 0: 2 32 4 2 8 64 */
    int n_vocab; /* 0: 320. SentencePiece: byte tokens only for ASCII below 300, none below 160 */
    int n_ctx;   /* 0: 256 */
    int untied, bpe;
    const char *pre;                                         /* pre-tokenizer; NULL: "gpt-2" */
    uint32_t embd, qkv, attn_output, ffn_up, ffn_down, head; /* weight types */
    uint64_t seed;
} mk_options;

/* Writes the UTF-8 form of a code point below 0x800, NUL-terminated. Returns its bytes. */
static inline int mk_utf8(char *out, int cp)
{
    int n = 0;
    if (cp >= 0x80) {
        out[n++] = (char)(0xC0 | cp >> 6);
        cp = 0x80 | (cp & 63);
    }
    out[n++] = (char)cp;
    out[n] = 0;
    return n;
}

/* Returns the printable character that stands for a byte in byte-level BPE: the byte itself if it
   is printable, else the next free code point from 256 on. */
static inline int mk_byte_char(int byte)
{
    int next = 256;
    for (int i = 0;; i++) {
        int plain = (i > 32 && i < 127) || (i > 160 && i < 256 && i != 173);
        if (i == byte) return plain ? i : next;
        next += !plain;
    }
}

#define MK_SPACE "\xE2\x96\x81" /* U+2581 stands for a space in SentencePiece */

static inline void mk_spm(mk_file *f, int n_vocab)
{
    static const char *const words[] = {
        MK_SPACE "t",
        "he",
        "in",
        MK_SPACE "a",
        "er",
        "on",
        MK_SPACE "the",
        MK_SPACE "s",
        "re",
        "nd",
        MK_SPACE "and",
        "ou",
        MK_SPACE MK_SPACE,
        "ing",
        MK_SPACE,
        "e",
        "t",
        "a",
        "o",
        "i",
        "n",
        "s",
        "h",
        "r",
        "d",
        "l",
        "u",
        "c",
        "m",
        "w",
        "g",
        "y",
        ".",
        ",",
        "\xC3\xA9",
        "\xE4\xB8\xAD",
        "\xF0\x9F\x98\x80",
    };
    const int n_words = (int)(sizeof words / sizeof words[0]);
    int bytes = n_vocab >= 300 ? 256 : n_vocab >= 160 ? 128 : 0;
    char text[32];
    mk_buf *tokens = mk_set_array(f, "tokenizer.ggml.tokens", MK_V_STRING, (uint64_t)n_vocab);
    mk_buf *scores = mk_set_array(f, "tokenizer.ggml.scores", MK_V_F32, (uint64_t)n_vocab);
    mk_buf *types = mk_set_array(f, "tokenizer.ggml.token_type", MK_V_I32, (uint64_t)n_vocab);
    for (int i = 0; i < n_vocab; i++) {
        int word = i - 3 - bytes, type = i == 0 ? 2 : i < 3 ? 3 : word < 0 ? 6 : 1;
        snprintf(text, sizeof text, "<extra_%d>", i);
        if (i < 3)
            snprintf(text, sizeof text, "%s", i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>");
        else if (word < 0)
            snprintf(text, sizeof text, "<0x%02X>", i - 3);
        else if (word < n_words)
            snprintf(text, sizeof text, "%s", words[word]);
        mk_text(tokens, text);
        mk_f32(scores, word < 0 ? 0.0f : -(float)word);
        mk_u32(types, (uint32_t)(word >= n_words ? 5 : type));
    }
    mk_set_text(f, "tokenizer.ggml.model", "llama");
    mk_set_u32(f, "tokenizer.ggml.bos_token_id", 1);
    mk_set_u32(f, "tokenizer.ggml.eos_token_id", 2);
    mk_set_u32(f, "tokenizer.ggml.unknown_token_id", 0);
    mk_set_bool(f, "tokenizer.ggml.add_bos_token", 1);
}

static inline void mk_bpe(mk_file *f, int n_vocab, const char *pre)
{
    /* U+0120 stands for a space, U+010A for a line feed. */
    static const char *const merges[] = {
        "t h",
        "h e",
        "\xC4\xA0 t",
        "\xC4\xA0t he",
        "i n",
        "a n",
        "an d",
        "\xC4\xA0 and",
        "\xC4\xA0 a",
        "e r",
        "o u",
        "in g",
        "\xC4\xA0 \xC4\xA0",
        "\xC4\xA0\xC4\xA0 \xC4\xA0\xC4\xA0",
        "\xC4\x8A \xC4\x8A",
        "1 2",
        "12 3",
        "l l",
        "' ll",
        "\xC3\x83 \xC2\xA9",
    };
    const int n_merges = (int)(sizeof merges / sizeof merges[0]);
    char text[32];
    mk_buf *b = mk_set_array(f, "tokenizer.ggml.tokens", MK_V_STRING, (uint64_t)n_vocab);
    mk_buf *types = mk_set_array(f, "tokenizer.ggml.token_type", MK_V_I32, (uint64_t)n_vocab);
    for (int i = 0; i < n_vocab; i++) {
        snprintf(text, sizeof text, "<extra_%d>", i);
        if (i < 256) {
            mk_utf8(text, mk_byte_char(i));
        } else if (i < 256 + n_merges) {
            const char *space = strchr(merges[i - 256], ' ');
            snprintf(text, sizeof text, "%.*s%s", (int)(space - merges[i - 256]), merges[i - 256],
                     space + 1);
        } else if (i == 256 + n_merges) {
            snprintf(text, sizeof text, "<|endoftext|>");
        }
        mk_text(b, text);
        mk_u32(types, i < 256 + n_merges ? 1 : i == 256 + n_merges ? 3 : 5);
    }
    b = mk_set_array(f, "tokenizer.ggml.merges", MK_V_STRING, (uint64_t)n_merges);
    for (int i = 0; i < n_merges; i++) mk_text(b, merges[i]);
    mk_set_text(f, "tokenizer.ggml.model", "gpt2");
    mk_set_text(f, "tokenizer.ggml.pre", pre);
    mk_set_u32(f, "tokenizer.ggml.bos_token_id", (uint32_t)(256 + n_merges));
    mk_set_u32(f, "tokenizer.ggml.eos_token_id", (uint32_t)(256 + n_merges));
}

static inline int mk_or(int v, int otherwise) { return v ? v : otherwise; }

typedef struct mk_kind {
    const char *arch; /* llama, deci, flash, qwen2, qwen3, gemma3, smollm3, lfm2, llama4 */
    const char *attn; /* one letter a layer, repeated: f full, w window, s skip, l linear, c conv;
                         in flash also n full without RoPE, o window without RoPE */
    int window;       /* positions; 0: 32 */
} mk_kind;

/* Writes "ARCHITECTURE.name" into text and returns it. */
static inline const char *mk_name(const mk_kind *kind, const char *name, char text[80])
{
    snprintf(text, 80, "%s.%s", kind->arch, name);
    return text;
}

static inline int mk_is(const mk_kind *kind, const char *arch) { return !strcmp(kind->arch, arch); }

static inline char mk_layer(const mk_kind *kind, int layer)
{
    return kind->attn[(size_t)layer % strlen(kind->attn)];
}

/* Sets a key to v for each layer with one of these letters, and to 0 for the other layers: a list,
   or one number if all layers have v and the architecture does not need a list. */
static inline void mk_set_layers(mk_file *f, const mk_kind *kind, const char *name, int layers,
                                 int v, const char *letters)
{
    int n = 0;
    char text[80];
    for (int i = 0; i < layers; i++) n += strchr(letters, mk_layer(kind, i)) != NULL;
    if (n == layers && !mk_is(kind, "deci") && !mk_is(kind, "flash")) {
        mk_set_u32(f, mk_name(kind, name, text), (uint32_t)v);
        return;
    }
    mk_buf *b = mk_set_array(f, mk_name(kind, name, text), MK_V_I32, (uint64_t)layers);
    for (int i = 0; i < layers; i++)
        mk_u32(b, strchr(letters, mk_layer(kind, i)) ? (uint32_t)v : 0);
}

/* Sets the keys of the other architectures that llama does not have. */
static inline void mk_arch_keys(mk_file *f, const mk_kind *kind, int layers, int ffn)
{
    int window = mk_or(kind->window, 32);
    char text[80];
    if (mk_is(kind, "flash")) {
        mk_buf *b = mk_set_array(f, "flash.attention.pattern", MK_V_I32, (uint64_t)layers);
        for (int i = 0; i < layers; i++) {
            char c = mk_layer(kind, i);
            mk_u32(b, c == 's' ? 2 : c == 'w' || c == 'o');
        }
        mk_set_u32(f, "flash.attention.sliding_window", (uint32_t)window);
        b = mk_set_array(f, "flash.rope.freq_base", MK_V_F32, (uint64_t)layers);
        for (int i = 0; i < layers; i++)
            mk_f32(b, strchr("no", mk_layer(kind, i)) ? 0.0f : 10000.0f + 500 * (float)i);
    } else if (mk_is(kind, "gemma3") && strchr(kind->attn, 'w')) {
        mk_set_u32(f, "gemma3.attention.sliding_window", (uint32_t)window);
        mk_set_layers(f, kind, "attention.sliding_window_pattern", layers, 1, "w");
        mk_set_f32(f, "gemma3.rope.freq_base", 1e6f);
    } else if (mk_is(kind, "lfm2")) {
        mk_set_u32(f, "lfm2.shortconv.l_cache", 3);
    } else if (mk_is(kind, "llama4")) {
        mk_set_u32(f, "llama4.expert_count", 0);
        mk_set_u32(f, "llama4.interleave_moe_layer_step", 0);
        mk_set_u32(f, "llama4.expert_feed_forward_length", (uint32_t)ffn);
        mk_set_u32(f, mk_name(kind, "attention.sliding_window", text), 0);
    }
}

/* Builds a random model of any architecture. The caller frees it with mk_free. */
static inline mk_file *mk_model(const mk_options *o, const mk_kind *kind)
{
    mk_file *f = mk_new();
    uint64_t seed = o->seed + 1;
    int layers = mk_or(o->n_layer, 2), vocab = mk_or(o->n_vocab, 320);
    int heads = mk_or(o->n_head, 4), kv_heads = mk_or(o->n_kv_head, 2), c = mk_or(o->d_head, 8);
    int gemma = mk_is(kind, "gemma3"), lfm2 = mk_is(kind, "lfm2"), qwen2 = mk_is(kind, "qwen2");
    int normed = gemma || lfm2 || mk_is(kind, "flash") || mk_is(kind, "qwen3");
    uint64_t d = (uint64_t)mk_or(o->d_model, 32), ffn = (uint64_t)mk_or(o->d_ffn, 64);
    uint64_t q = (uint64_t)(heads * c), kv = (uint64_t)(kv_heads * c);
    double s_d = 1 / sqrt((double)d), s_q = 1 / sqrt((double)q), s_f = 1 / sqrt((double)ffn);
    char name[80];

    mk_set_text(f, "general.architecture", kind->arch);
    mk_set_text(f, "general.name", "random");
    mk_set_u32(f, mk_name(kind, "vocab_size", name), (uint32_t)vocab);
    mk_set_u32(f, mk_name(kind, "context_length", name), (uint32_t)mk_or(o->n_ctx, 256));
    mk_set_u32(f, mk_name(kind, "embedding_length", name), (uint32_t)d);
    mk_set_u32(f, mk_name(kind, "block_count", name), (uint32_t)layers);
    mk_set_layers(f, kind, "feed_forward_length", layers, (int)ffn, "fwslcno");
    mk_set_layers(f, kind, "attention.head_count", layers, heads, "fwlcno");
    mk_set_layers(f, kind, "attention.head_count_kv", layers, kv_heads, "fwno");
    mk_set_u32(f, mk_name(kind, "attention.key_length", name), (uint32_t)c);
    mk_set_u32(f, mk_name(kind, "attention.value_length", name), (uint32_t)c);
    mk_set_u32(f, mk_name(kind, "rope.dimension_count", name), (uint32_t)c);
    mk_set_f32(f, mk_name(kind, "rope.freq_base", name), 10000);
    mk_set_f32(f, mk_name(kind, "attention.layer_norm_rms_epsilon", name), 1e-5f);
    mk_arch_keys(f, kind, layers, (int)ffn);
    if (o->bpe)
        mk_bpe(f, vocab, o->pre ? o->pre : "gpt-2");
    else
        mk_spm(f, vocab);

    mk_add_tensor(f, "token_embd.weight", o->embd, d, (uint64_t)vocab, 0, s_d, &seed);
    for (int i = 0; i < layers; i++) {
        char mix = mk_layer(kind, i);
        int conv = mix == 'c', mixed = mix != 's', linear = mix == 'l';
        int attends = mixed && !conv && !linear;
        const struct {
            int there;
            const char *name;
            uint32_t type;
            uint64_t ne0, ne1;
            double mean, deviation;
        } w[] = {
            {mixed, "attn_norm.weight", MK_F32, d, 0, 1, 0.1},
            {attends, "attn_q.weight", o->qkv, d, q, 0, s_d},
            {attends, "attn_k.weight", o->qkv, d, kv, 0, s_d},
            {attends, "attn_v.weight", o->qkv, d, kv, 0, s_d},
            {attends, "attn_output.weight", o->attn_output, q, d, 0, s_q},
            {linear, "attn_output.weight", o->attn_output, d, d, 0, s_d},
            {conv, "shortconv.in_proj.weight", o->qkv, d, 3 * d, 0, s_d},
            {conv, "shortconv.conv.weight", MK_F32, 3, d, 0, 0.6},
            {conv, "shortconv.out_proj.weight", o->attn_output, d, d, 0, s_d},
            {1, "ffn_norm.weight", MK_F32, d, 0, 1, 0.1},
            {1, "ffn_gate.weight", o->ffn_up, d, ffn, 0, s_d},
            {1, "ffn_up.weight", o->ffn_up, d, ffn, 0, s_d},
            {1, "ffn_down.weight", o->ffn_down, ffn, d, 0, s_f},
            {attends && normed, "attn_q_norm.weight", MK_F32, (uint64_t)c, 0, 1.5, 0.1},
            {attends && normed, "attn_k_norm.weight", MK_F32, (uint64_t)c, 0, 1.5, 0.1},
            {attends && qwen2, "attn_q.bias", MK_F32, q, 0, 0, 0.5},
            {attends && qwen2, "attn_k.bias", MK_F32, kv, 0, 0, 0.5},
            {attends && qwen2, "attn_v.bias", MK_F32, kv, 0, 0, 0.5},
            {gemma, "post_attention_norm.weight", MK_F32, d, 0, 1, 0.1},
            {gemma, "post_ffw_norm.weight", MK_F32, d, 0, 1, 0.1},
        };
        for (size_t k = 0; k < sizeof w / sizeof w[0]; k++) {
            if (w[k].there) {
                snprintf(name, sizeof name, "blk.%d.%s", i, w[k].name);
                mk_add_tensor(f, name, w[k].type, w[k].ne0, w[k].ne1, w[k].mean, w[k].deviation,
                              &seed);
            }
        }
    }
    mk_add_tensor(f, lfm2 ? "token_embd_norm.weight" : "output_norm.weight", MK_F32, d, 0, 1, 0.1,
                  &seed);
    if (o->untied)
        mk_add_tensor(f, "output.weight", o->head, d, (uint64_t)vocab, 0, 2 * s_d, &seed);
    return f;
}

static inline mk_file *mk_llama(const mk_options *o)
{
    static const mk_kind kind = {"llama", "f", 0};
    return mk_model(o, &kind);
}

/* --- a heap that counts ---------------------------------------------------------------------- */

/* A heap for flash_allocator, whose `user` points to it. New memory is filled with garbage. A
   release checks the size, and that nothing was written past the end of the block. */
typedef struct mk_heap {
    long fail_at;      /* number of the acquisition that fails, from 0; negative: none */
    long count;        /* acquisitions so far */
    long live, errors; /* blocks not yet released; wrong sizes, alignments and overruns so far */
    size_t bytes;      /* in blocks not yet released */
    size_t total;      /* in all blocks ever acquired */
    size_t largest;    /* largest block ever asked for */
} mk_heap;

enum { MK_HEAP_HEAD = 64 + 16, MK_HEAP_TAIL = 16 };

static inline void *mk_heap_acquire(void *user, size_t bytes, size_t align)
{
    mk_heap *h = (mk_heap *)user;
    uint8_t *raw, *p;
    h->largest = bytes > h->largest ? bytes : h->largest;
    h->errors += align == 0 || (align & (align - 1)) || align > 64;
    if (h->count++ == h->fail_at || bytes > (size_t)1 << 30) return NULL;
    raw = (uint8_t *)mk_alloc(NULL, bytes + MK_HEAP_HEAD + MK_HEAP_TAIL);
    p = raw + MK_HEAP_HEAD - ((uintptr_t)raw + MK_HEAP_HEAD) % 64;
    memcpy(p - 16, &bytes, sizeof bytes);
    memcpy(p - 8, &raw, sizeof raw);
    memset(p, 0xCD, bytes);
    memset(p + bytes, 0xA5, MK_HEAP_TAIL);
    h->live++;
    h->bytes += bytes;
    h->total += bytes;
    return p;
}

static inline void mk_heap_release(void *user, void *ptr, size_t bytes)
{
    mk_heap *h = (mk_heap *)user;
    uint8_t *p = (uint8_t *)ptr, *raw;
    size_t had;
    memcpy(&had, p - 16, sizeof had);
    memcpy(&raw, p - 8, sizeof raw);
    h->errors += had != bytes;
    for (int i = 0; i < MK_HEAP_TAIL; i++) h->errors += p[had + (size_t)i] != 0xA5;
    h->live--;
    h->bytes -= had;
    memset(p, 0xDD, had);
    free(raw);
}

#endif
