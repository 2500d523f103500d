/* flash.h - v0.1.0 - small language models in one C file - MIT OR public domain

   In exactly one C (or C++) file:

       #define FLASH_IMPLEMENTATION
       #include "flash.h"

   everywhere else just #include it. Link with -lm (and -lpthread where threads live in a library of
   their own).

   WHAT IT DOES       reads GGUF files (v2, v3) from a path, from memory or through a callback;
                      tokenises; runs the model; samples text. Weights stay where they are: mapped
                      file, your memory, ROM. Predicts how fast a model would be on a device;
                      searches for better settings of anything; trains small models from text or
                      from a larger model.
   WHAT IT DOES NOT   images, GPUs, downloading; it prints nothing, exits nowhere, has no writable
                      globals.
   SAFE ON            any file, any text: hostile input gives an error code and a sentence.
   SAME BITS          on every compiler, instruction set, thread count and slicing of the work.

   QUICK START      (this is examples/hello.c; `make lint` keeps the two equal)

// >>quick-start
#define FLASH_IMPLEMENTATION
#include "flash.h"
#include <stdio.h>

int main(int argc, char **argv)
{
    flash_model *model;
    flash_session *s;
    flash_piece piece;
    flash_error err;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    md.source.path = argc > 1 ? argv[1] : "model.gguf";
    if (flash_model_load(&model, &md, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (flash_session_create(&s, model, &sd)) {
        fprintf(stderr, "out of memory\n");
        return 1;
    }
    flash_session_feed_text(s, argc > 2 ? argv[2] : "Once upon a time", 0);
    while (flash_session_next(s, NULL, &piece) == FLASH_OK)
        fwrite(piece.text, 1, piece.bytes, stdout);
    putchar('\n');
    flash_session_free(s);
    flash_model_free(model);
    return 0;
}
// <<quick-start

   TABLE OF CONTENTS                    (search for ">>tag"; `make lint` keeps this list true)

     DECLARATIONS
       >>version       version, linkage, fixed limits
       >>status        status codes, error text
       >>host          what the library asks of its surroundings: memory, clock, threads, log
       >>types         weight types: names and block sizes
       >>api-gguf      GGUF files: read keys and tensors, write files
       >>api-arch      architecture: plain facts about a model
       >>api-model     models: load, query
       >>api-text      text to tokens and back
       >>api-chat      chat formats: turns of a conversation as text and tokens
       >>api-grammar   text that must have a form: GBNF, JSON Schema
       >>api-session   sessions: feed, step, sample, next
       >>api-latency   how fast a model would be: measure shapes, fit, predict
       >>api-search    what to try next: ask, tell, front, journal
       >>api-train     learning: steps, losses, checkpoints
       >>api-prune     smaller models out of larger ones
       >>api-low       instruction sets, rows of weights
     IMPLEMENTATION
       >>config        parts, overridable macros, compiler and target
       >>base          checked sizes, arena, error text, sort, random
       >>numbers       exp and log with fixed bits
       >>gp            Gaussian-process regression
       >>bytes         little-endian readers, order of texts
       >>os            files, memory maps, clock
       >>threads       a small pool of workers
       >>cpu           what this processor can run
       >>floats        f16, bf16, exp, sin and cos with fixed bits
       >>quant         block formats: layout, unpack, dequantise, quantise activations
       >>quantize      floats to block formats
       >>k-table       the kernel list and the table type
       >>k-scalar      reference kernels: these DEFINE the results
       >>k-sse41       x86-64 since 2008
       >>k-avx2        x86-64 since 2013
       >>k-avx512      x86-64 with VNNI
       >>k-amx         x86-64 with int8 tiles
       >>k-neon        AArch64: NEON, dotprod, i8mm
       >>k-wasm        WebAssembly simd128
       >>k-select      choosing kernels for an instruction set
       >>gguf          GGUF reader and writer
       >>unicode       character classes for the pre-tokenizers
       >>pretokenize   splitting text into words
       >>vocab         vocabulary: load, look up, token text
       >>arch          tensors and keys of each architecture
       >>model         load, validate, memory plan
       >>tokenize      merging words into tokens, tokens back into text
       >>chat          the table of chat formats, recognising and using them
       >>forward       the forward pass
       >>grammar       GBNF to steps, states found on the way, masks of tokens
       >>sampler       from logits to a token
       >>session       feed, step, next
       >>state         sessions saved, restored, forked
       >>measure       models of made-up weights, timed
       >>latency       counted work, the fit, predictions, the model as text
       >>pareto        fronts, hypervolume, its expected growth
       >>search        spaces, suggestions, journal
       >>train         forward, backward, AdamW
       >>prune         layers, channels, units and heads that stay
       >>cleanup       undefine what must not leak
     LICENCE

   PARTS     Define as many as you need, all in the same single file. Declarations of all parts are
             always visible; calling a part you did not implement is a link error.

     FLASH_IMPLEMENTATION           everything
     FLASH_RUNTIME_IMPLEMENTATION   GGUF, tokenizers, models, sessions
     FLASH_LATENCY_IMPLEMENTATION   the runtime and the latency model
     FLASH_SEARCH_IMPLEMENTATION    the search, which needs neither
     FLASH_TRAIN_IMPLEMENTATION     the runtime and the trainer

   CONFIGURATION   Defined or not, never =0. Only the file with the implementation looks at them
                   (except the first two).

     FLASH_STATIC                   all functions static: two copies can live in one program
     FLASH_API                      linkage of public functions (default extern)
     FLASH_MALLOC(n) FLASH_FREE(p)  last resort if no allocator is given; both or neither (libc)
     FLASH_ASSERT(cond)             internal contracts, never about input (assert)
     FLASH_NO_STDIO                 no paths: models come from memory or a callback
     FLASH_NO_MMAP                  paths are read into memory instead of mapped
     FLASH_NO_THREADS               no threads of our own (a host's parallel_for still works)
     FLASH_NO_SIMD                  only the scalar kernels
     FLASH_NO_FP_PRAGMA             leave fp contraction alone (then pass -ffp-contract=off)
     FLASH_ALLOW_FAST_MATH          lift the #error under -ffast-math
     FLASH_KEEP_INTERNALS           tests: keep the FLASH__ macros

   CONCEPTS
     token     an integer in [0, V), the unit the model reads and writes
     model     read-only after load; shared by any number of sessions and threads
     session   one conversation: keys and values of its tokens, a position, a sampler; one thread
               at a time
     block     32 (or 256) weights stored together with their scale
     shapes    T tokens in a step, D d_model, F d_ffn, H query heads, K key/value heads, C d_head,
               L layers, V vocabulary, N n_ctx.  [T,D] is T rows of D, the last index contiguous.
     units     in brackets: [B] bytes, [s] seconds.
     memory    flash_X_memory() says what flash_X_load/_create will acquire; only those (and
               flash_tokenize, for words too long for its stack buffer, given back before it
               returns) acquire anything. Stepping never does.
     errors    every fallible function returns a flash_status: 0 ok, positive unfinished, negative
               failed. On failure out objects are NULL, other outputs untouched, nothing leaks.

   DETERMINISM
     A quantised dot product is, block after block in index order, the exact integer sum of the
     block converted to float, times the product of the two scales, multiply and add rounded
     separately. Float reductions use sixteen lanes and one tree. exp, sin, cos, log are our own. So
     logits are the same bits on every machine with IEEE floats (on 32-bit x86 compile with
     -msse2 -mfpmath=sse), however a prompt is cut into steps.

   MAINTAINER NOTES
     a weight type     one line in FLASH_TYPE_LIST, one unpacker in >>quant, its test
     a kernel          one line in FLASH__KERNELS, its scalar version, overlays
     an architecture   one row in flash__archs, its tensors in the rules (>>arch); steps in
                       >>forward only if it does something new
     a pre-tokenizer   one row in flash__pre_table (>>pretokenize)
     a chat format     one row in flash__chat_table (>>chat), its golden in tests/golden/chat
     any change        `make format lint test matrix`; `make mutate SECTION=name` says what the
tests of that section would not notice
*/

#ifndef FLASH_LANGUAGE_MODELS_H /* not FLASH_H: on-chip flash drivers own that one */
#define FLASH_LANGUAGE_MODELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ===== >>version ========================================================== */

/* Version, linkage, and the limits that are part of the interface (structs below have them as array
   sizes). */

#define FLASH_VERSION_MAJOR 0
#define FLASH_VERSION_MINOR 1
#define FLASH_VERSION_PATCH 0
#define FLASH_VERSION (FLASH_VERSION_MAJOR*10000 + FLASH_VERSION_MINOR*100 + FLASH_VERSION_PATCH)

/* clang-format off */
#ifndef FLASH_API
#  if defined(FLASH_STATIC) && (defined(__GNUC__) || defined(__clang__))
#    define FLASH_API static __attribute__((unused)) /* no warning for what you do not call */
#  elif defined(FLASH_STATIC)
#    define FLASH_API static
#  else
#    define FLASH_API extern
#  endif
#endif
/* clang-format on */

enum {
    FLASH_LAYERS_MAX = 512,       /* layers of a model */
    FLASH_CONTEXT_MAX = 1 << 20,  /* positions of a session */
    FLASH_VOCAB_MAX = 1 << 20,    /* tokens of a vocabulary */
    FLASH_DIM_MAX = 1 << 20,      /* d_model, d_ffn, heads times d_head */
    FLASH_HEAD_MAX = 512,         /* d_head */
    FLASH_THREADS_MAX = 64,       /* threads of a session */
    FLASH_TOKEN_BYTES_MAX = 65535 /* bytes of one token's text */
};

/* Returns the FLASH_VERSION that the implementation was compiled with. It differs from the caller's
   only if two copies of this file are mixed. */
FLASH_API int flash_version(void);
/* Returns one line: the version, the instruction sets compiled in, and whether files are mapped.
   Static, never NULL. */
FLASH_API const char *flash_build_info(void);

/* ===== >>status =========================================================== */

/* The enum, the sentences and the tests all come from this list. 0: done; positive: unfinished, but
   not failed; negative: failed. */
#define FLASH_STATUS_LIST(X) \
    X(FLASH_E_NONE,          0, "ok") \
    X(FLASH_MORE,            1, "the budget is spent; call again to go on") \
    X(FLASH_END_OF_TEXT,     2, "the model or a stop string ended the text") \
    X(FLASH_E_ARGUMENT,     -1, "an argument is out of its documented range") \
    X(FLASH_E_MEMORY,       -2, "the allocator returned NULL") \
    X(FLASH_E_IO,           -3, "a file could not be opened, read or written") \
    X(FLASH_E_FORMAT,       -4, "the input is not what it claims to be") \
    X(FLASH_E_TRUNCATED,    -5, "the input ends too early") \
    X(FLASH_E_TOO_LARGE,    -6, "a size in the input exceeds a limit of this library or machine") \
    X(FLASH_E_UNSUPPORTED,  -7, "valid, but this build or this processor cannot do it") \
    X(FLASH_E_RANGE,        -8, "the context is full") \
    X(FLASH_E_CANCELLED,    -9, "cancelled by the caller") \
    X(FLASH_E_INTERNAL,    -10, "a bug in flash.h; please report it") \
    X(FLASH_E_GRAMMAR,     -11, "the grammar allows none of the vocabulary's tokens here")

/* clang-format off */
typedef enum flash_status {
#define FLASH__X(name, value, text) name = value,
    FLASH_STATUS_LIST(FLASH__X)
#undef FLASH__X
#ifndef FLASH_OK /* drivers of on-chip flash define it, as 0 too */
    FLASH_OK = FLASH_E_NONE,
#endif
    FLASH_STATUS_FORCE_32BIT = 0x7fffffff
} flash_status;
/* clang-format on */

/* Returns a sentence for any value. Static, never NULL. */
FLASH_API const char *flash_status_text(flash_status s);

/* What went wrong, in the caller's memory. It is filled only on failure. */
typedef struct flash_error {
    flash_status status;
    uint64_t offset; /* in the input [B]; 0 if the error has no place there */
    /* one line, NUL-terminated: "blk.3.attn_q.weight: shape 896x896, want 896x1024" */
    char text[240];
} flash_error;

/* ===== >>host ============================================================= */

/* All that the library asks of its surroundings; all zero means libc and the system. */

typedef struct flash_allocator {
    /* align: a power of two, at most 64. Returns NULL if there is no memory */
    void *(*acquire)(void *user, size_t bytes, size_t align);
    /* bytes is what was acquired, so that an arena needs no headers */
    void (*release)(void *user, void *ptr, size_t bytes);
    void *user;
} flash_allocator;

typedef struct flash_host {
    flash_allocator allocator; /* both functions or neither; thread-safe if models are shared */
    /* runs task(ctx, 0) to task(ctx, tasks - 1) and returns when all are done */
    void (*parallel_for)(void *user, int tasks, void (*task)(void *ctx, int index), void *ctx);
    double (*clock)(void *user); /* monotonic [s]; needed for deadlines only */
    /* one line, no newline; level 0 info, 1 warning */
    void (*log)(void *user, int level, const char *text);
    /* called after each layer of a step, by the thread that steps, with flash_session_progress: it
       may cancel the session, but not touch it otherwise */
    void (*progress)(void *user, double done);
    void *user;
} flash_host;

/* Where a file comes from: exactly one of path, data and read is set. Functions copy the struct,
   but not what it points to. */
typedef struct flash_source {
    const char *path; /* is mapped, or read whole where there is no mmap */
    /* [bytes]: not copied; must outlive the object made from it */
    const void *data;
    size_t bytes;
    /* copies n bytes from offset at; 0 ok, else failed */
    int (*read)(void *user, uint64_t at, void *dst, size_t n);
    /* of what read() gives [B], all of which is read into memory on load */
    uint64_t size;
    void *user;
    /* 1, for flash_gguf_open: the weights may be missing (a cut download); see flash_tensor.data */
    int headers;
} flash_source;

/* ===== >>types ============================================================ */

/* Weight types: name, id as in GGUF files, weights per block, bytes per block. Their layouts are
   described in >>quant. */
#define FLASH_TYPE_LIST(X) \
    X(F32,     0,   1,   4) \
    X(F16,     1,   1,   2) \
    X(Q4_0,    2,  32,  18) \
    X(Q4_1,    3,  32,  20) \
    X(Q5_0,    6,  32,  22) \
    X(Q5_1,    7,  32,  24) \
    X(Q8_0,    8,  32,  34) \
    X(Q2_K,   10, 256,  84) \
    X(Q3_K,   11, 256, 110) \
    X(Q4_K,   12, 256, 144) \
    X(Q5_K,   13, 256, 176) \
    X(Q6_K,   14, 256, 210) \
    X(IQ4_NL, 20,  32,  18) \
    X(IQ4_XS, 23, 256, 136) \
    X(BF16,   30,   1,   2) \
    X(MXFP4,  39,  32,  17)

/* clang-format off */
typedef enum flash_type {
#define FLASH__X(name, id, items, bytes) FLASH_TYPE_##name = id,
    FLASH_TYPE_LIST(FLASH__X)
#undef FLASH__X
    FLASH_TYPE_NONE = 0x7fffffff
} flash_type;
/* clang-format on */

/* Returns a name such as "Q4_0", or "unknown". Static. */
FLASH_API const char *flash_type_name(flash_type t);
/* Returns the type of that name, in upper or lower case; FLASH_TYPE_NONE if there is none. */
FLASH_API flash_type flash_type_parse(const char *name);
/* Returns the weights per block: 1, 32 or 256; 0 for an unknown type. */
FLASH_API int flash_type_block(flash_type t);
/* Returns the size of a row of n weights [B]; 0 if the type is unknown, n is not a multiple of its
   block, or the size overflows. */
FLASH_API size_t flash_row_bytes(flash_type t, size_t n);

/* ===== >>api-gguf ========================================================= */

/* The container, whatever is in it. The format is described in
   github.com/ggml-org/ggml/blob/master/docs/gguf.md */

typedef struct flash_gguf flash_gguf; /* opaque, read-only: for any number of threads */

typedef enum flash_value_type {
    FLASH_VALUE_U8,
    FLASH_VALUE_I8,
    FLASH_VALUE_U16,
    FLASH_VALUE_I16,
    FLASH_VALUE_U32,
    FLASH_VALUE_I32,
    FLASH_VALUE_F32,
    FLASH_VALUE_BOOL,
    FLASH_VALUE_STRING,
    FLASH_VALUE_ARRAY,
    FLASH_VALUE_U64,
    FLASH_VALUE_I64,
    FLASH_VALUE_F64,
    FLASH_VALUE_COUNT
} flash_value_type;

/* One key and its value. The pointers lead into the file: they are valid while the object lives,
   and texts are not NUL-terminated. */
typedef struct flash_value {
    const char *key;
    size_t key_bytes;
    flash_value_type type;
    flash_value_type item; /* type of an array's items; otherwise the same as type */
    uint64_t count;        /* items of an array; otherwise 1 */
    const uint8_t *data;   /* the value or an array's first item, little-endian, unaligned */
    size_t bytes;          /* size of data [B]; for a string, of its text alone */
} flash_value;

/* One tensor. The pointers lead into the file. Rows of ne[0] weights are contiguous. */
typedef struct flash_tensor {
    const char *name;
    size_t name_bytes;
    uint32_t type_id; /* as in the file */
    /* FLASH_TYPE_NONE if flash.h does not know the file's type */
    flash_type type;
    int n_dims;
    /* ne[0] is the length of a row; unused dimensions are 1 */
    uint64_t ne[4];
    uint64_t bytes;
    uint64_t offset;     /* of the data, from the start of the file [B] */
    const uint8_t *data; /* [bytes]; NULL if the file ends too early (only with source.headers) */
} flash_tensor;

/* Opens and checks the whole container: header, keys, tensor list, places of the data. Safe on
   untrusted bytes. No allocation is larger than the file (plus 64 kB). host may be NULL. */
FLASH_API flash_status flash_gguf_open(flash_gguf **out, const flash_source *source,
                                       const flash_host *host, flash_error *err);
FLASH_API void flash_gguf_free(flash_gguf *g); /* NULL is allowed */
FLASH_API int flash_gguf_version(const flash_gguf *g);
FLASH_API uint64_t flash_gguf_size(const flash_gguf *g); /* of the file [B] */
FLASH_API size_t flash_gguf_keys(const flash_gguf *g);
FLASH_API size_t flash_gguf_tensors(const flash_gguf *g);
/* Give the i-th key or tensor in the order of the file. FLASH_E_ARGUMENT if there is none. */
FLASH_API flash_status flash_gguf_key(const flash_gguf *g, size_t i, flash_value *out);
FLASH_API flash_status flash_gguf_tensor(const flash_gguf *g, size_t i, flash_tensor *out);
/* Find a key or tensor by its name. FLASH_E_ARGUMENT if there is none; *out is then untouched. */
FLASH_API flash_status flash_gguf_find(const flash_gguf *g, const char *key, flash_value *out);
FLASH_API flash_status flash_gguf_find_tensor(const flash_gguf *g, const char *name,
                                              flash_tensor *out);
/* Returns item i of a value as a number; 0 if it is no number or i is out of range. */
FLASH_API double flash_value_number(const flash_value *v, uint64_t i);
/* Like flash_value_number, with fractions cut off; 0 if the number does not fit. */
FLASH_API int64_t flash_value_integer(const flash_value *v, uint64_t i);
/* Returns the next string of an array of strings, of *bytes bytes; NULL at the end. *at starts at 0
   and is moved on. */
FLASH_API const char *flash_value_string(const flash_value *v, size_t *at, size_t *bytes);

/* Writes a GGUF v3 file through a callback, in this order: begin, keys, tensor infos, the data of
   each tensor, end. The struct lies in the caller's memory and starts as all zero but for write and
   user. After a failure every call returns the same status. */
typedef struct flash_gguf_writer {
    int (*write)(void *user, const void *data, size_t bytes); /* returns 0 if it could */
    void *user;
    flash_status status; /* the first failure so far */
    uint64_t written;    /* [B] */
    uint64_t offset;     /* of the next tensor, from the data start [B] */
    uint64_t filled;     /* data written so far, from the data start [B] */
    uint32_t keys_left, tensors_left, tensors;
} flash_gguf_writer;

FLASH_API flash_status flash_gguf_write_begin(flash_gguf_writer *w, uint32_t n_keys,
                                              uint32_t n_tensors);
FLASH_API flash_status flash_gguf_write_u32(flash_gguf_writer *w, const char *key, uint32_t v);
FLASH_API flash_status flash_gguf_write_f32(flash_gguf_writer *w, const char *key, float v);
FLASH_API flash_status flash_gguf_write_bool(flash_gguf_writer *w, const char *key, int v);
FLASH_API flash_status flash_gguf_write_string(flash_gguf_writer *w, const char *key,
                                               const char *text);
/* item: U32, I32 or F32. data: [n] uint32_t, int32_t or float in the host's byte order. */
FLASH_API flash_status flash_gguf_write_array(flash_gguf_writer *w, const char *key,
                                              flash_value_type item, const void *data, size_t n);
/* text: [n] pointers; bytes: [n] lengths, or NULL where they are NUL-terminated. */
FLASH_API flash_status flash_gguf_write_strings(flash_gguf_writer *w, const char *key,
                                                const char *const *text, const size_t *bytes,
                                                size_t n);
/* Copies a key as it is, whatever its type. */
FLASH_API flash_status flash_gguf_write_value(flash_gguf_writer *w, const flash_value *v);
/* Announces a tensor of n_dims dimensions ne (row first). */
FLASH_API flash_status flash_gguf_write_tensor(flash_gguf_writer *w, const char *name,
                                               flash_type type, int n_dims, const uint64_t *ne);
/* Writes the data of the tensors in the order announced, as stored in files, in pieces of any size.
   last: 1 with the last piece of each tensor, after which padding is written. */
FLASH_API flash_status flash_gguf_write_data(flash_gguf_writer *w, const void *data, size_t bytes,
                                             int last);
/* Ends the file. FLASH_E_ARGUMENT if keys, tensors or data are missing. */
FLASH_API flash_status flash_gguf_write_end(flash_gguf_writer *w);

/* ===== >>api-arch ========================================================= */

/* Architecture: plain facts, filled by the loader, shared by every part. */

typedef enum flash_attention {
    FLASH_ATTENTION_FULL,
    FLASH_ATTENTION_WINDOW, /* the last `window` positions, itself included */
    FLASH_ATTENTION_SKIP,   /* none: the layer is its feed-forward part */
    FLASH_ATTENTION_CONV,   /* a gated short convolution in its place (LFM2) */
    FLASH_ATTENTION_LINEAR, /* one matrix in its place (DeciLM) */
    FLASH_ATTENTION_CHUNK   /* back to the last multiple of `window` (Llama 4) */
} flash_attention;
typedef enum flash_activation { FLASH_ACTIVATION_SILU, FLASH_ACTIVATION_GELU } flash_activation;
/* PAIRS rotates the components (2i, 2i+1) of a head, HALVES (i, i + C/2). */
typedef enum flash_rope_style { FLASH_ROPE_PAIRS, FLASH_ROPE_HALVES } flash_rope_style;
typedef enum flash_rope_scaling {
    FLASH_ROPE_PLAIN,
    FLASH_ROPE_LINEAR,
    FLASH_ROPE_LLAMA3,
    FLASH_ROPE_YARN
} flash_rope_scaling;

typedef struct flash_layer {
    uint8_t attention;  /* flash_attention */
    uint8_t rope_plain; /* 1: RoPE is not scaled in this layer */
    uint16_t n_head;    /* H; 0 in a layer without keys and values */
    uint16_t n_kv_head; /* K; divides n_head */
    int32_t d_ffn;      /* F; 0 if there is no feed-forward part */
    int32_t window;     /* W of WINDOW and CHUNK */
    float rope_base;    /* 0: no RoPE */
} flash_layer;

typedef struct flash_arch {
    char name[32]; /* as in general.architecture */
    int n_layer, d_model, d_head, n_vocab;
    int n_ctx; /* context it was trained for */
    int tied;  /* the head shares the embedding's weights */
    float norm_eps;
    int rope_dims;    /* of each head, even, <= d_head */
    int rope_style;   /* flash_rope_style */
    int rope_scaling; /* flash_rope_scaling */
    /* base of the first layer that has one; factor 1 means no scaling */
    float rope_base, rope_factor, rope_attn_factor, rope_beta_fast, rope_beta_slow;
    float rope_low_freq, rope_high_freq; /* Llama 3 scaling */
    int rope_n_ctx;                      /* context before scaling */
    float attention_scale;               /* of q.k, normally 1/sqrt(d_head) */
    int activation;                      /* flash_activation of the gate */
    int conv_length; /* positions a CONV layer sees, its own included; 0: no such layers */
    int qk_norm;     /* 1: queries and keys are normed after RoPE, no weights */
    float embedding_scale;
    float logit_cap; /* c: logits are c tanh(logits/c); 0: none */
    /* n: queries of layers without RoPE grow by 1 + 0.1 ln(1 + floor((p + 1)/n)); 0: none */
    int temperature_n_ctx;
    flash_layer layer[FLASH_LAYERS_MAX];
} flash_arch;

/* Returns the number of weights. A tied head does not count, and neither does what the architecture
   can do without (biases of llama, norms of queries and keys in flash). 0 if there is no
   architecture of that name. */
FLASH_API uint64_t flash_arch_params(const flash_arch *a);
/* Returns the size of a session's keys and values of type kv [B]: n_ctx positions in layers that
   see all, window + chunk in others (in blocks of 64), none in layers without attention. chunk 0:
   the default. Returns 0 if an argument is out of range. */
FLASH_API uint64_t flash_arch_kv_bytes(const flash_arch *a, int n_ctx, int chunk, flash_type kv);
/* Gives layers another attention by a list such as "full,skip,window:256": full, window:N, skip,
   or keep, which is the only one for conv and linear layers other than skip; it is repeated until
   every layer has one. On failure nothing changes: FLASH_E_FORMAT for what cannot be read,
   FLASH_E_UNSUPPORTED for a layer without what it would need. */
FLASH_API flash_status flash_attention_parse(flash_arch *a, const char *pattern, flash_error *err);

/* ===== >>api-model ======================================================== */

/* Opaque. A model is read-only after load, and any number of threads may use it. */
typedef struct flash_model flash_model;
typedef struct flash_session flash_session; /* opaque, for one thread at a time */

#define FLASH_ISA_LIST(X) \
    X(AUTO,         "auto")         /* the best this processor runs */ \
    X(SCALAR,       "scalar")       /* defines the results          */ \
    X(SSE41,        "sse41") \
    X(AVX2,         "avx2")         /* with F16C                    */ \
    X(AVXVNNI,      "avxvnni")      /* AVX2 and VEX-encoded VNNI    */ \
    X(AVX512,       "avx512")       /* F, BW, VL, DQ, VNNI          */ \
    X(AMX,          "amx")          /* and int8 tiles (Linux)       */ \
    X(NEON,         "neon") \
    X(NEON_DOTPROD, "neon-dotprod") \
    X(NEON_I8MM,    "neon-i8mm") \
    X(WASM,         "wasm")

/* clang-format off */
typedef enum flash_isa {
#define FLASH__X(name, text) FLASH_ISA_##name,
    FLASH_ISA_LIST(FLASH__X)
#undef FLASH__X
    FLASH_ISA_COUNT,
    FLASH_ISA_FORCE_32BIT = 0x7fffffff
} flash_isa;
/* clang-format on */

typedef struct flash_model_desc {
    flash_source source; /* required */
    flash_isa isa;       /* FLASH_E_UNSUPPORTED if this processor lacks it */
    int vocab_only;      /* 1: tokenizer only; files without weights load; sessions are refused */
    /* 1: an unknown tokenizer.ggml.pre is read as "default", with a warning */
    int any_pretokenizer;
    /* replaces the file's attention, see flash_attention_parse; NULL: the file's */
    const char *attention;
    flash_host host;
} flash_model_desc;

/* Returns what flash_model_load will acquire for this file [B]; 0 on failure. A source that cannot
   be mapped is read whole for this. */
FLASH_API size_t flash_model_memory(const flash_model_desc *desc, flash_error *err);
/* Loads and checks a model. Safe on untrusted files. desc is copied; the data it points to is not
   and must outlive the model. */
FLASH_API flash_status flash_model_load(flash_model **out, const flash_model_desc *desc,
                                        flash_error *err);
/* m may be NULL. Sessions of m and views over it must have been freed before. */
FLASH_API void flash_model_free(flash_model *m);
FLASH_API const flash_arch *flash_model_arch(const flash_model *m);
/* Returns the file's keys and tensors, owned by m; for a view (flash_prune_view) those of the model
   below it. */
FLASH_API const flash_gguf *flash_model_gguf(const flash_model *m);
FLASH_API flash_isa flash_model_isa(const flash_model *m);

/* ===== >>api-text ========================================================= */

/* Flags, for text to tokens / tokens to text. */
enum {
    FLASH_TEXT_SPECIAL = 1, /* read control tokens such as <|im_end|> in the text / show them */
    FLASH_TEXT_NO_BOS = 2,  /* add no BOS or EOS, even if the model wants it / no effect */
    /* it continues a text: no BOS and no space prefix / a leading space is kept */
    FLASH_TEXT_CONTINUE = 4
};

/* Turns text into tokens. text: [bytes], any bytes (invalid UTF-8 is kept byte by byte). ids:
   [cap]. *n becomes the number needed; FLASH_E_RANGE if it exceeds cap (ids then holds the first
   cap). flags 0: BOS and EOS are added as the model asks, control tokens are read as plain text.
   Words over 64 bytes borrow memory from the model's allocator. Safe on untrusted text; takes n log
   n time. */
FLASH_API flash_status flash_tokenize(const flash_model *m, const char *text, size_t bytes,
                                      unsigned flags, int32_t *ids, size_t cap, size_t *n);
/* Turns tokens into text: the inverse of flash_tokenize for any bytes that the vocabulary can
   spell. text: [cap], not NUL-terminated; *bytes becomes the number needed. Control tokens are left
   out without FLASH_TEXT_SPECIAL. FLASH_E_RANGE if cap is too small, FLASH_E_ARGUMENT for ids out
   of range. */
FLASH_API flash_status flash_detokenize(const flash_model *m, const int32_t *ids, size_t n,
                                        unsigned flags, char *text, size_t cap, size_t *bytes);
/* State of flash_detokenize_next, which works like flash_detokenize token by token, and in whole
   characters: it holds back an unfinished one and replaces bytes that belong to none by U+FFFD. All
   zero at the start. */
typedef struct flash_detokenizer {
    uint8_t held[4];
    uint8_t n_held, begun;
} flash_detokenizer;
/* text: [cap], where cap >= flash_token_bytes_max(m). A token below 0 gives out the rest. */
FLASH_API flash_status flash_detokenize_next(const flash_model *m, flash_detokenizer *d,
                                             int32_t token, unsigned flags, char *text, size_t cap,
                                             size_t *bytes);
/* Returns a size that is enough for any one call of flash_detokenize_next [B]. */
FLASH_API size_t flash_token_bytes_max(const flash_model *m);
/* Returns a token's text as the vocabulary spells it, [*bytes] in the file, not NUL-terminated;
   NULL if the token is out of range. */
FLASH_API const char *flash_token_text(const flash_model *m, int32_t token, size_t *bytes);
/* Returns the token that the vocabulary spells so; -1 if there is none. */
FLASH_API int32_t flash_token_find(const flash_model *m, const char *text);
FLASH_API int32_t flash_token_bos(const flash_model *m); /* -1 if there is none */
FLASH_API int32_t flash_token_eos(const flash_model *m); /* -1 if there is none */
/* Returns 1 if the token ends a text or a turn. */
FLASH_API int flash_token_is_end(const flash_model *m, int32_t token);
FLASH_API int flash_token_is_control(const flash_model *m, int32_t token);

/* ===== >>api-chat ========================================================= */

/* Chat formats: what stands around each turn of a conversation. A model's template is recognised by
   what is in it, never run. What templates add on their own is left out: dates, a system prompt
   where none is given, tools, the removal of earlier reasoning. */

/* Who speaks; NONE where there is no turn. */
typedef enum flash_role {
    FLASH_ROLE_NONE,
    FLASH_ROLE_SYSTEM,
    FLASH_ROLE_USER,
    FLASH_ROLE_ASSISTANT
} flash_role;

/* Plain data, so that a caller may make one for a model of its own. Only entries of marks may be
   NULL. */
typedef struct flash_chat_format {
    const char *name;
    /* parts of a template by which the format is known; one after '!' must not occur */
    const char *marks[3];
    int merge; /* 1: a user's turn after the system's continues it, without its own first part */
    int trim;  /* 1: white space around the text is taken off */
    /* [system, user, assistant]: what stands before and after the text, without the BOS that the
       tokenizer adds */
    const char *turn[3][2];
    const char *open; /* what makes the model answer */
    /* what the model ends its answer with: a stop string where the vocabulary has no such token */
    const char *end;
} flash_chat_format;

/* Returns all formats, [*n]. Static. */
FLASH_API const flash_chat_format *flash_chat_formats(size_t *n);
/* Returns the format of that name; NULL if there is none. */
FLASH_API const flash_chat_format *flash_chat_find(const char *name);
/* Returns the format that a Jinja template writes; NULL if it is not in the list. Looks at the
   first 256 KiB. Safe on untrusted text. */
FLASH_API const flash_chat_format *flash_chat_recognise(const char *text, size_t bytes);
/* Returns the format of the model's template; NULL if it has no template, or an unknown one. */
FLASH_API const flash_chat_format *flash_chat_of(const flash_model *m);
/* Writes one turn as text. before: whose turn was the last, NONE at the beginning; the assistant's
   is closed first, so that an answer just generated is, too. text: [bytes]; NULL with the
   assistant's role writes what makes the model answer. out: [cap], not NUL-terminated; *n becomes
   the number needed; FLASH_E_RANGE if it exceeds cap. */
FLASH_API flash_status flash_chat_render(const flash_chat_format *f, flash_role before,
                                         flash_role role, const char *text, size_t bytes, char *out,
                                         size_t cap, size_t *n);
/* Like flash_chat_render, but gives tokens, with BOS at the beginning if the model asks for it.
   Control tokens are read in the format's own parts only, so that no text can close its turn. ids,
   cap and n are those of flash_tokenize. */
FLASH_API flash_status flash_chat_tokenize(const flash_model *m, const flash_chat_format *f,
                                           flash_role before, flash_role role, const char *text,
                                           size_t bytes, int32_t *ids, size_t cap, size_t *n);

/* ===== >>api-grammar ====================================================== */

/* Text that must have a form: a grammar in GBNF, llama.cpp's notation
   (github.com/ggml-org/llama.cpp/blob/master/grammars/README.md), all of it but tokens in angle
   brackets. Set as flash_sampler.grammar it leaves only tokens with which the text can still become
   one of the grammar's, and end-of-text tokens exactly where it is one. */

typedef struct flash_grammar flash_grammar; /* opaque, read-only: any number of sessions */

typedef struct flash_grammar_desc {
    /* [bytes] of UTF-8; not needed after creation. The text has to match the rule "root" */
    const char *text;
    size_t bytes;
    /* another grammar for the same model, which must outlive this one: its index of the vocabulary
       (about 20 bytes a token) is used; NULL: one of its own is made */
    const flash_grammar *share;
    flash_allocator allocator; /* all zero: that of the model */
} flash_grammar_desc;

/* Returns what flash_grammar_create will acquire [B]; 0 on failure. */
FLASH_API size_t flash_grammar_memory(const flash_model *m, const flash_grammar_desc *desc,
                                      flash_error *err);
/* Reads a grammar. m must outlive it. FLASH_E_FORMAT for what is no grammar, and for rules that are
   missing, begin with themselves (left recursion) or never end: err says line and column.
   FLASH_E_TOO_LARGE: more than 32,767 steps (characters, choices, calls; repetitions are written
   out) or 4,096 rules. FLASH_E_UNSUPPORTED: tokens in angle brackets, or a model without a
   vocabulary. Safe on untrusted text. */
FLASH_API flash_status flash_grammar_create(flash_grammar **out, const flash_model *m,
                                            const flash_grammar_desc *desc, flash_error *err);
FLASH_API void flash_grammar_free(flash_grammar *g); /* NULL is allowed */
/* Returns a grammar of JSON (RFC 8259) without lone surrogates. Static. */
FLASH_API const char *flash_grammar_json(void);
/* Writes a JSON Schema as a grammar. text: [cap], not NUL-terminated; *n is the number needed;
   FLASH_E_RANGE if it exceeds cap. Understood: type (also a list), properties (in their order;
   nothing but these), required, additionalProperties (without properties), items, minItems,
   maxItems, minLength, maxLength, enum, const, anyOf, oneOf (as anyOf), $ref to #, #/$defs/NAME and
   #/definitions/NAME; title, description, default, examples, $schema, $id and $comment change
   nothing. FLASH_E_UNSUPPORTED, and err names it, for any other keyword; FLASH_E_FORMAT for what is
   no JSON or no schema; FLASH_E_TOO_LARGE over 64 KiB. Numbers get at most 16 digits before the
   point and 16 after it, white space is a blank, or a new line and up to 16 blanks. Safe on
   untrusted text. */
FLASH_API flash_status flash_grammar_from_schema(const char *schema, size_t bytes, char *text,
                                                 size_t cap, size_t *n, flash_error *err);

/* ===== >>api-session ====================================================== */

typedef struct flash_logit_bias {
    int32_t token;
    float bias;
} flash_logit_bias;

/* How the next token is chosen. Fields are applied in their order, 0 stands for the default. All
   zero: greedy, without penalties. */
typedef struct flash_sampler {
    /* [n_bias], added to the logits first; owned by the caller, must outlive the session */
    const flash_logit_bias *bias;
    int n_bias;
    /* logits of recent tokens are divided by it if positive, else multiplied; default 1 */
    float repeat_penalty;
    /* subtracted from the logits of recent tokens: as often as each occurs; once */
    float frequency_penalty, presence_penalty;
    int penalty_last_n; /* how many tokens are recent; default 64, -1: all */
    float temperature;  /* 0: the most probable token (of equal ones the lowest id) */
    int top_k;          /* keep the k best; 0: all */
    float typical_p;    /* keep the most typical mass (arxiv 2202.00666); 0 or 1: off */
    float top_p;        /* keep the best mass p; 0 or 1: off */
    float min_p;        /* keep those at least min_p times as probable as the best; 0: off */
    uint64_t seed;      /* of the random numbers; default 1 */
    /* [n_stop] strings that end the text; owned by the caller, must outlive the session */
    const char *const *stop;
    int n_stop;
    int ignore_end; /* 1: end-of-text tokens are never chosen */
    /* what the text must match, which begins after the last token fed (a token that
       flash_session_sample gave and that is then fed alone belongs to the text). Tokens that do not
       fit are left out after bias and penalties, before any are kept or drawn. Made for this
       model; must outlive the session; NULL: anything */
    const flash_grammar *grammar;
} flash_sampler;

typedef struct flash_session_desc {
    int n_ctx; /* positions; default: what the model was trained for, at most 4096 */
    int chunk; /* prompt tokens worked on together; default 256 */
    /* default 1. Threads do not survive fork(2): a child process makes such a session anew */
    int threads;
    flash_type kv; /* keys and values: F32 (0), F16 or Q8_0 (heads of a multiple of 8) */
    /* 1: logits of every token of a chunk; step returns after each chunk */
    int all_logits;
    flash_sampler sampler;
    flash_host host; /* all zero: that of the model */
} flash_session_desc;

typedef struct flash_budget {
    int tokens; /* prompt tokens to work on in this call; 0: no limit */
    /* the call returns soon after the host's clock passes this [s]; 0: no deadline. Fewer prompt
       tokens are then worked on together, so that one layer takes about a quarter of a
       millisecond: the results have the same bits, long prompts take a little longer */
    double deadline;
} flash_budget;

typedef struct flash_piece {
    int32_t token;    /* -1 where only text that was held back is given out */
    const char *text; /* whole UTF-8 characters, [bytes] and a NUL; valid until the next call */
    size_t bytes;     /* may be 0: text is held back that may be part of a stop string */
} flash_piece;

/* Returns what flash_session_create will acquire [B]; 0 if desc is invalid. */
FLASH_API size_t flash_session_memory(const flash_model *m, const flash_session_desc *desc);
/* Creates a session at position 0. m must outlive it. desc is copied. */
FLASH_API flash_status flash_session_create(flash_session **out, const flash_model *m,
                                            const flash_session_desc *desc);
FLASH_API void flash_session_free(flash_session *s); /* NULL is allowed */
/* Queues tokens. FLASH_E_RANGE if the context has no room for all (then none is queued),
   FLASH_E_ARGUMENT for ids outside the vocabulary. */
FLASH_API flash_status flash_session_feed(flash_session *s, const int32_t *ids, size_t n);
/* Tokenises NUL-terminated text and queues the tokens; BOS is added only at position 0. */
FLASH_API flash_status flash_session_feed_text(flash_session *s, const char *text, unsigned flags);
/* Works on queued tokens. FLASH_OK: the queue is empty and the last token's logits are there.
   FLASH_MORE: the budget is spent, call again. FLASH_E_CANCELLED: the same, after
   flash_session_cancel; what was finished stays. budget NULL: no limit. Allocates nothing. */
FLASH_API flash_status flash_session_step(flash_session *s, const flash_budget *budget);
/* Writes one token of text: steps, samples and queues it. FLASH_OK: *piece is there; FLASH_MORE:
   the budget went into the prompt; FLASH_END_OF_TEXT; FLASH_E_RANGE: the context is full. At
   position 0 with an empty queue the text begins with BOS. With a grammar: FLASH_END_OF_TEXT also
   where the text is complete and nothing can follow; FLASH_E_GRAMMAR where it is not, and the
   vocabulary cannot spell what could (or nesting is over 4,000 deep, or there are over 256 ways to
   read the text at once). */
FLASH_API flash_status flash_session_next(flash_session *s, const flash_budget *budget,
                                          flash_piece *piece);
/* Samples a token from the current logits without queueing it; -1 if there are no logits, or the
   grammar allows no token. Advances the random numbers. */
FLASH_API int32_t flash_session_sample(flash_session *s);
/* Returns the logits of the last token worked on, [V]; owned by s, valid until the next step. NULL
   before the first step and while tokens are queued (as after flash_session_next). */
FLASH_API const float *flash_session_logits(const flash_session *s);
/* With all_logits: returns the logits of the chunk just worked on, [*n,V], whose first token is at
   position *first. NULL if there is none. */
FLASH_API const float *flash_session_chunk_logits(const flash_session *s, int *first, int *n);
FLASH_API int flash_session_position(const flash_session *s); /* tokens worked on */
/* Returns the number of tokens that are queued and not yet worked on. */
FLASH_API int flash_session_pending(const flash_session *s);
/* Returns which share, in [0,1], of the tokens queued since the queue was last empty is done,
   layers of a chunk under way included; 1 if none are queued. */
FLASH_API double flash_session_progress(const flash_session *s);
FLASH_API int flash_session_capacity(const flash_session *s); /* n_ctx */
/* Returns the tokens so far, [position + pending]; owned by s. */
FLASH_API const int32_t *flash_session_tokens(const flash_session *s);
/* Forgets everything from position on, queue included. FLASH_E_ARGUMENT if position is not in [0,
   flash_session_position]. FLASH_E_RANGE, nothing changed, if a layer no longer has what it needs
   to go on from there: one with a window may go back by chunk positions at least from the furthest
   there was since 0 (a chunk under way included; what was not saved does not come back by
   flash_session_restore), one with a convolution only to 0. Logits are gone until the next step. */
FLASH_API flash_status flash_session_truncate(flash_session *s, int position);
/* Makes s as it was created: position 0, random numbers from the seed. */
FLASH_API void flash_session_reset(flash_session *s);
/* May be called from any thread: the running (or next) step returns FLASH_E_CANCELLED between two
   layers, or before the head. */
FLASH_API void flash_session_cancel(flash_session *s);
/* Replaces the sampler; random numbers start anew from its seed, and so does what the grammar is
   asked of. No stop string may be longer than the longest at creation, and a grammar there may only
   be if there was one. */
FLASH_API flash_status flash_session_sampler(flash_session *s, const flash_sampler *sampler);
/* Queues a whole text, ids [n] from position 0, and keeps what its beginning has in common with the
   tokens worked on: only the rest is computed, the last token always unless its logits are there.
   *kept (NULL is fine) is the number kept; 0 where flash_session_truncate cannot go back so far.
   Otherwise as flash_session_truncate and flash_session_feed: all is checked before anything
   changes, random numbers go on. */
FLASH_API flash_status flash_session_feed_prompt(flash_session *s, const int32_t *ids, size_t n,
                                                 size_t *kept);
/* Another session like s as it is now, which goes on as s would: position, queue, keys and values,
   logits, held text, random numbers. A chunk under way is queued again. It takes what s did
   (flash_session_memory of the same desc) from the same allocator; only what is in use is copied.
   Either may go first. NULL on failure: FLASH_E_MEMORY. */
FLASH_API flash_status flash_session_fork(flash_session **out, const flash_session *s);
/* Returns what flash_session_save would write now [B]. */
FLASH_API uint64_t flash_session_save_bytes(const flash_session *s);
/* Writes all that a fork would have, but for sampler and desc, through a callback, which returns 0
   if it could (otherwise FLASH_E_IO). Any machine, number of threads and instruction set can go on
   from it. Allocates nothing. */
FLASH_API flash_status flash_session_save(const flash_session *s,
                                          int (*write)(void *user, const void *data, size_t bytes),
                                          void *user);
/* Goes on from what was saved, bit for bit; what s did before is gone. n_ctx, chunk, threads and
   sampler may be others than they were. Refused with one line in err, s then as before:
   FLASH_E_TRUNCATED; FLASH_E_FORMAT for what is no state or a damaged one; FLASH_E_UNSUPPORTED for
   one of a later version; FLASH_E_ARGUMENT for one of another model (facts and a sample of its
   weights), of another type of keys and values, or one that holds back more text than the stop
   strings of s are long; FLASH_E_RANGE for more tokens than n_ctx. Safe on untrusted bytes.
   Acquires nothing but what a callback, or a path without mmap, is read into until it returns. */
FLASH_API flash_status flash_session_restore(flash_session *s, const flash_source *source,
                                             flash_error *err);

/* ===== >>api-latency ====================================================== */

/* How fast a model would be on a device, without building it: shapes are measured with made-up
   weights; from those measurements any other shape is predicted, with an interval. */

/* One shape at work. */
typedef struct flash_workload {
    const flash_arch *arch; /* owned by the caller */
    flash_type weights, kv; /* types of all matrices; of keys and values */
    int threads, chunk;     /* default 1 and 256, as in flash_session_desc */
    int prompt;             /* tokens of the prompt: prefill */
    int position;           /* where a token is written: decode */
} flash_workload;

/* What one workload took; 0 stands for not measured. */
typedef struct flash_timing {
    double prefill; /* time of the prompt, to the first token after it [s] */
    double decode;  /* time of one token [s] */
} flash_timing;

enum { FLASH_LATENCY_POINTS_MAX = 2048, FLASH_LATENCY_REPEATS_MAX = 64 };

typedef struct flash_measure_desc {
    int repeats;     /* after the warm-up; default 5, at most FLASH_LATENCY_REPEATS_MAX */
    int tokens;      /* written in each repeat, all at the position; default 8, at most 4096 */
    flash_isa isa;   /* FLASH_E_UNSUPPORTED if this processor lacks it */
    flash_host host; /* its clock measures (NULL: the system's) */
} flash_measure_desc;

typedef struct flash_measurement {
    int n;                                        /* repeats */
    flash_timing each[FLASH_LATENCY_REPEATS_MAX]; /* [n], as they came; decode: the mean
                                                     of the tokens                      */
    flash_timing median;
    flash_timing spread; /* (largest - least)/median */
} flash_measurement;

/* Returns the operations (2 for each product) of n tokens after `from` others: matrices, scores and
   values, and the head once; 0 if the shape is out of range. */
FLASH_API double flash_arch_flops(const flash_arch *a, int from, int n);
/* Returns what flash_latency_measure will acquire [B]: the weights and a session. desc may be NULL,
   here and below. Returns 0, and says why in err, if a size, type, length or number of threads is
   out of range, the architecture is unknown or has no such layers, the shape does not fit the
   blocks of the weight type, or the type is only read (MXFP4). */
FLASH_API size_t flash_latency_memory(const flash_workload *work, const flash_measure_desc *desc,
                                      flash_error *err);
/* Times the runtime itself on made-up weights of the true sizes: after a warm-up of one chunk it
   repeats the prompt (unless prompt is 0), then single tokens at the position. FLASH_E_ARGUMENT
   for what flash_latency_memory refuses, before anything is acquired; FLASH_E_UNSUPPORTED without
   a clock. */
FLASH_API flash_status flash_latency_measure(flash_measurement *out, const flash_workload *work,
                                             const flash_measure_desc *desc, flash_error *err);

/* A time [s] and the interval that nine of ten measurements fall into. */
typedef struct flash_interval {
    double mean, lo, hi;
} flash_interval;

typedef struct flash_latency flash_latency; /* opaque, read-only: for any number of threads */

/* Fits a latency model to n measurements, at most FLASH_LATENCY_POINTS_MAX. For prefill and decode
   each it is the work and traffic of a shape times constants of the device (least squares of
   relative errors, none below 0), and a Gaussian process of what is left of the logarithm.
   FLASH_E_ARGUMENT for shapes out of range, times below 0 or not finite, and fewer than 8
   measurements of a kind that was measured. Keeps about 8 n (n + 16) bytes for each of the two, and
   24 n (n + 16) more while it works, which takes n^3 operations a step. host may be NULL. */
FLASH_API flash_status flash_latency_fit(flash_latency **out, const flash_workload *work,
                                         const flash_timing *time, size_t n, const flash_host *host,
                                         flash_error *err);
FLASH_API void flash_latency_free(flash_latency *l); /* NULL is allowed */
/* Gives the mean relative errors of measurements when each is predicted from all others, with the
   constants and length scales of the whole fit (which flatters a little: to quote figures, fit anew
   without them). 0: not measured. */
FLASH_API void flash_latency_errors(const flash_latency *l, double *prefill, double *decode);
/* Writes the model as text: lines of ASCII, the same bits on every machine. text: [cap], may be
   NULL with cap 0. Returns the bytes it takes, which were all written if that is at most cap. */
FLASH_API size_t flash_latency_save(const flash_latency *l, char *text, size_t cap);
/* Makes a model again from its text, [bytes], in front of which the caller may have put lines that
   begin with #. Predictions have the same bits as before. FLASH_E_FORMAT for what is no such text,
   has more behind it than white space, or has numbers that no fit could have made;
   FLASH_E_TRUNCATED if it ends early. Takes a Cholesky factorisation of the n measurements (n^3/3
   operations). host may be NULL. */
FLASH_API flash_status flash_latency_load(flash_latency **out, const char *text, size_t bytes,
                                          const flash_host *host, flash_error *err);
/* Predicts the times of a workload; either result may be NULL. Allocates nothing; takes n^2
   operations a phase for n measurements (about 10 us at 100). FLASH_E_ARGUMENT without l or work,
   for what flash_latency_memory refuses, and for prefill of a prompt of 0; FLASH_E_UNSUPPORTED if
   nothing with these types, threads and chunk, or none of the phase, was measured; FLASH_E_FORMAT
   if the model gives no time that is finite and above 0: the workload is too far from what was
   measured, or the model is forged. */
FLASH_API flash_status flash_latency_predict(const flash_latency *l, const flash_workload *work,
                                             flash_interval *prefill, flash_interval *decode);

/* ===== >>api-search ======================================================= */

/* Which settings to try next when each trial is costly: multi-objective Bayesian optimisation of
   mixed discrete and real parameters by ask and tell. It knows neither models nor devices and
   starts nothing by itself. All objectives are minimised. */

enum {
    FLASH_SEARCH_PARAMS_MAX = 64,
    FLASH_SEARCH_OBJECTIVES_MAX = 4,
    FLASH_SEARCH_CONSTRAINTS_MAX = 4,
    FLASH_SEARCH_VALUES_MAX = FLASH_SEARCH_OBJECTIVES_MAX + FLASH_SEARCH_CONSTRAINTS_MAX,
    FLASH_SEARCH_TRIALS_MAX = 1 << 20, /* FLASH_SEARCH_MODEL_TRIALS_MAX with EHVI */
    FLASH_SEARCH_MODEL_TRIALS_MAX = 4096
};

typedef enum flash_param_kind {
    FLASH_PARAM_INTEGER,  /* lo, lo + step, ... up to hi */
    FLASH_PARAM_ORDINAL,  /* one of value[n_value], which are in order */
    FLASH_PARAM_CATEGORY, /* one of 0 .. n_value - 1, which have no order */
    FLASH_PARAM_REAL,     /* [lo, hi] */
    FLASH_PARAM_LOG       /* [lo, hi] on a logarithmic scale, lo > 0 */
} flash_param_kind;

typedef struct flash_param {
    const char *name; /* unique */
    flash_param_kind kind;
    double lo, hi;
    double step;         /* of integers; default 1 */
    const double *value; /* [n_value], ascending; for ordinals */
    int n_value;
    /* name of an earlier parameter: this one counts only where that one is >= active_from, and has
       its least value elsewhere; NULL: it always counts */
    const char *active_if;
    double active_from;
} flash_param;

typedef enum flash_search_method {
    FLASH_SEARCH_EHVI,  /* Gaussian processes, expected hypervolume improvement */
    FLASH_SEARCH_NSGA2, /* Deb et al. 2002; for thousands of cheap trials */
    FLASH_SEARCH_RANDOM /* scrambled Sobol' points */
} flash_search_method;

typedef struct flash_search_desc {
    const flash_param *param; /* [n_param]; the caller keeps it and all it points to */
    int n_param;
    int n_objective;  /* default 2 */
    int n_constraint; /* values told after the objectives; a trial is good where <= 0 */
    /* return objectives that need no trial: finite values that depend on x alone; NULL: told */
    double (*known[FLASH_SEARCH_OBJECTIVES_MAX])(void *user, const double *x);
    /* returns 0 if x, [n_param], must not be tried; NULL: all may */
    int (*feasible)(void *user, const double *x);
    /* changes x so that it is feasible, if it can; optional, saves rejected draws */
    void (*repair)(void *user, double *x);
    /* stores a line of the journal, [bytes] with its newline, before it returns. If it could not it
       returns other than 0, and the call that led to it fails and changes nothing. NULL: no
       journal */
    int (*journal)(void *user, const char *line, size_t bytes);
    void *user;
    /* [n_objective] worst values of interest; NULL: a tenth of the front's range beyond it */
    const double *reference;
    flash_search_method method;
    uint64_t seed;
    int max_trials; /* of any kind, in all; default 200 */
    int initial;    /* Sobol' points first; 0: 2 n_param, at least 5 and at most a
                       fifth of max_trials                                           */
    int population; /* of NSGA-II; default 100 */
    int noisy;      /* 1: the same trial again would give other values */
    /* if noisy, standard deviations of the values, [n_objective + n_constraint]; 0 where one is not
       known; NULL: none is known. Those are found from the trials, which takes many */
    const double *noise;
    flash_host host;
} flash_search_desc;

typedef enum flash_trial_state {
    FLASH_TRIAL_PENDING,  /* asked for */
    FLASH_TRIAL_DONE,     /* its values were told */
    FLASH_TRIAL_FAILED,   /* it has no values and is not tried again */
    FLASH_TRIAL_ABANDONED /* stopped early; y: the best it might have become, or 0 */
} flash_trial_state;

typedef struct flash_trial {
    int id; /* from 1, in the order of asking */
    flash_trial_state state;
    double x[FLASH_SEARCH_PARAMS_MAX]; /* [n_param] */
    double y[FLASH_SEARCH_VALUES_MAX]; /* objectives, then constraints; known ones
                                          already while it is pending               */
} flash_trial;

/* How far a search has come. */
typedef struct flash_search_summary {
    int trials, pending, done, failed, abandoned, front;
    double reference[FLASH_SEARCH_OBJECTIVES_MAX];
    double hypervolume; /* that the front dominates, up to the reference */
    /* reasons to stop, to be judged by the caller: how much the last 20 trials that were told grew
       the hypervolume, and how much the last one that was asked for was expected to, both as shares
       of it; below 0: not known yet */
    double gain, expected;
} flash_search_summary;

typedef struct flash_search flash_search; /* opaque, for one thread at a time */

/* Returns what flash_search_create will acquire [B]; 0, and says why in err, if desc is invalid. */
FLASH_API size_t flash_search_memory(const flash_search_desc *desc, flash_error *err);
FLASH_API flash_status flash_search_create(flash_search **out, const flash_search_desc *desc,
                                           flash_error *err);
FLASH_API void flash_search_free(flash_search *s); /* NULL is allowed */
/* Gives the next trial to run; any number may be pending. The same seed, trials and values give the
   same bits. FLASH_E_RANGE if all of max_trials were asked for, or 4,096 draws found no feasible
   point that was not tried. With EHVI it takes time: about 0.1 [s] at 150 trials, which grows with
   their cube. With NSGA-II a trial that is told after the first one of the next generation was
   asked for never becomes a parent. */
FLASH_API flash_status flash_search_ask(flash_search *s, flash_trial *out, flash_error *err);
/* Tells the values of a pending trial: y, [n_objective + n_constraint], known ones ignored.
   FLASH_E_ARGUMENT if it is not pending or a value is not finite. */
FLASH_API flash_status flash_search_tell(flash_search *s, int id, const double *y,
                                         flash_error *err);
/* Ends a pending trial without values. state: FLASH_TRIAL_FAILED or _ABANDONED. */
FLASH_API flash_status flash_search_drop(flash_search *s, int id, flash_trial_state state,
                                         flash_error *err);
/* Stops a pending trial early, as flash_search_hopeless advises. It is abandoned, but the model
   learns best, [n_objective], the best it might have become, so that its neighbours need not be
   tried as well. Nothing is learned where there are constraints or a value is not finite. */
FLASH_API flash_status flash_search_stop(flash_search *s, int id, const double *best,
                                         flash_error *err);
/* Adds a trial from elsewhere with its values, as if it had been asked for and told. x: [n_param],
   in the space and feasible. */
FLASH_API flash_status flash_search_add(flash_search *s, const double *x, const double *y,
                                        flash_error *err);
/* Returns 1 if a pending trial cannot improve the front any more. best: [n_objective], the best
   values it may still reach (known ones are ignored). */
FLASH_API int flash_search_hopeless(const flash_search *s, int id, const double *best);
/* Gives the trial of that id, from 1; FLASH_E_ARGUMENT if there is none. */
FLASH_API flash_status flash_search_trial(const flash_search *s, int id, flash_trial *out);
/* Gives the ids of the trials that no other dominates, ordered by their first objective: [cap], may
   be NULL with cap 0. Returns how many there are. If values are noisy, with EHVI and at least 4
   trials told, the model's means are compared, which takes as long as asking; constraints are as
   they were told. */
FLASH_API int flash_search_front(flash_search *s, int *ids, int cap);
FLASH_API void flash_search_summarize(flash_search *s, flash_search_summary *out);
/* Does again what a journal says, text: [bytes], in a new search of the same desc, and writes
   nothing. FLASH_E_TRUNCATED if the last line is torn: all lines before it were done, and
   err->offset [B] is where to cut the journal and go on. FLASH_E_FORMAT, with its number, for a
   line that is damaged or of another search; then free s. */
FLASH_API flash_status flash_search_replay(flash_search *s, const char *text, size_t bytes,
                                           flash_error *err);
/* Returns the hypervolume between n points y, [n,m], and the reference, [m], for m in [2, 4]. work:
   [n*m]. */
FLASH_API double flash_hypervolume(const double *y, size_t n, int m, const double *reference,
                                   uint32_t *work);

/* ===== >>api-train ======================================================== */

/* Learning: a model's weights, or new ones, fitted to text by AdamW (Loshchilov and Hutter 2019,
   arxiv 1711.05101), from the next tokens (cross-entropy) or from the probabilities of a larger
   model (Hinton et al. 2015, arxiv 1503.02531). Layers of RMSNorm, attention (all, window or none)
   with RoPE, and SwiGLU; all in float. The same bits on every machine, for any number of threads,
   and whether a training ran through or went on from a checkpoint. */

typedef struct flash_trainer flash_trainer; /* opaque, for one thread at a time */

typedef struct flash_trainer_desc {
    const flash_model *init; /* weights to begin with, of any type; not needed after _create */
    /* where init is NULL: random weights of this shape (deviation 0.02, less for what is added to
       the residual stream; 0 in a scale or factor: 1, in rope_dims: d_head, in norm_eps: 1e-5) */
    const flash_arch *arch;
    int qk_norm; /* 1, with arch flash: norms of queries and keys */
    /* model whose probabilities are learned; must outlive the trainer and have as many tokens */
    const flash_model *teacher;
    int batch;      /* sequences worked on together; default 1 */
    int n_ctx;      /* tokens of each; default: what the model was trained for, at most 256 */
    int accumulate; /* batches of a step; default 1 */
    int threads;    /* default 1 */
    float kl_weight, ce_weight; /* default: 1 and 0 with a teacher, 0 and 1 without */
    /* both models' logits are divided by it for the KL divergence, which is multiplied by its
       square; default 1 */
    float temperature;
    /* learning rate after the warm-up, default 1e-3. It falls along half a cosine to the share
       final_lr of it at the last step (default 0.1, below 0: 0). steps 0: no decline */
    float lr, final_lr;
    int warmup, steps;
    float beta1, beta2, epsilon; /* default 0.9, 0.95, 1e-8 */
    float weight_decay;          /* of matrices alone; 0: none */
    float clip;                  /* largest norm of the gradient; default 1, below 0: no limit */
    uint64_t seed;               /* of random weights; default 1 */
    flash_isa isa;               /* FLASH_E_UNSUPPORTED if this processor lacks it */
    flash_host host;             /* all zero: libc, and threads of the library */
} flash_trainer_desc;

typedef struct flash_trainer_report {
    /* means of all tokens [nat]: what is minimised; cross-entropy; divergence from the teacher */
    double loss, ce, kl;
    double grad_norm;      /* before it was clipped */
    double lr;             /* of this step */
    uint64_t step, tokens; /* done, this one included */
} flash_trainer_report;

/* Returns what flash_trainer_create will acquire in one block [B]; 0, and says why in err, if desc
   is invalid. */
FLASH_API size_t flash_trainer_memory(const flash_trainer_desc *desc, flash_error *err);
/* Creates a trainer. desc is copied. FLASH_E_UNSUPPORTED for layers that it cannot train, with the
   name of what is in the way (biases, convolutions, other norms); weights of attention in layers
   that skip it are left out. FLASH_E_ARGUMENT if the teacher has another vocabulary. */
FLASH_API flash_status flash_trainer_create(flash_trainer **out, const flash_trainer_desc *desc,
                                            flash_error *err);
FLASH_API void flash_trainer_free(flash_trainer *t); /* NULL is allowed */
/* Does one step of learning. tokens: [accumulate*batch,n_ctx+1], each sequence and the token after
   it. report may be NULL. FLASH_E_ARGUMENT for ids outside the vocabulary. FLASH_E_RANGE if loss or
   gradient are not finite: weights, moments and step are then as before. Allocates nothing. */
FLASH_API flash_status flash_trainer_step(flash_trainer *t, const int32_t *tokens,
                                          flash_trainer_report *report);
/* Computes the losses of any number of sequences, [n,n_ctx+1]; nothing is learned. */
FLASH_API flash_status flash_trainer_evaluate(flash_trainer *t, const int32_t *tokens, size_t n,
                                              flash_trainer_report *report);
/* Returns the architecture, that of init or arch as completed; owned by t. */
FLASH_API const flash_arch *flash_trainer_arch(const flash_trainer *t);
/* Returns the steps done, those before a load included. */
FLASH_API uint64_t flash_trainer_steps(const flash_trainer *t);

/* Weights as they are now, named as in GGUF files. The pointers belong to the trainer and are valid
   while it lives. */
typedef struct flash_trainer_tensor {
    const char *name; /* NUL-terminated */
    int n_dims;       /* 1: a vector of cols */
    int rows, cols;
    const float *data; /* [rows,cols] */
} flash_trainer_tensor;

FLASH_API size_t flash_trainer_tensors(const flash_trainer *t);
/* Gives the i-th tensor; FLASH_E_ARGUMENT if there is none. */
FLASH_API flash_status flash_trainer_weights(const flash_trainer *t, size_t i,
                                             flash_trainer_tensor *out);
/* Writes a checkpoint (weights, moments, steps and a checksum) through a callback, which returns 0
   if it could (otherwise FLASH_E_IO). Schedules are not in it: they belong to the desc. */
FLASH_API flash_status flash_trainer_save(const flash_trainer *t,
                                          int (*write)(void *user, const void *data, size_t bytes),
                                          void *user);
/* Goes on from a checkpoint, bit for bit. FLASH_E_TRUNCATED, FLASH_E_FORMAT for what is no
   checkpoint or a damaged one, FLASH_E_ARGUMENT for one of another shape; t is then as before. */
FLASH_API flash_status flash_trainer_load(flash_trainer *t, const flash_source *source,
                                          flash_error *err);

/* ===== >>api-prune ======================================================== */

/* Smaller models out of larger ones, with their weights: layers, channels of the residual stream,
   units of FFNs and heads of keys and values (with the queries that use them) go; what is left has
   the same names and architecture. An index list may have any order: a full one rearranges, which
   changes no result but by rounding. */

typedef struct flash_prune_desc {
    const flash_model *model; /* no view itself (FLASH_E_UNSUPPORTED) */
    /* parts that stay, and how many; 0 and NULL: all. Layers ascend; ffn and kv_head are lists of
       lists, one for each layer of the model (NULL where that layer does not stay or has none),
       their sizes hold for all layers that have such parts; channels are the same everywhere. With
       a size and no list the first ones stay */
    int n_layer;
    const int *layer;
    int d_model;
    const int *channel;
    int d_ffn;
    const int *const *ffn;
    int n_kv_head;
    const int *const *kv_head;
    /* replaces the attention of the layers that stay, see flash_attention_parse; NULL: as it is.
       Not for files */
    const char *attention;
    /* share of the sum of squares that the channels that stay had at each norm, two of each layer
       of the model (before attention, before the FFN) and the last one: norms of fewer channels are
       scaled by sqrt(share d/d'), d' of d channels being left; NULL: 1 */
    const float *share;
    /* of matrices, if it is not 0 or retype is 1 (F32 is 0); otherwise they keep theirs. Where rows
       do not fit the type's blocks it is Q8_0 or F16 */
    flash_type type;
    int retype;
    flash_host host; /* allocator alone */
} flash_prune_desc;

/* Tells the architecture of the result. FLASH_E_ARGUMENT, with what is wrong, for lists and sizes
   that do not fit the model, FLASH_E_UNSUPPORTED for what its architecture's files cannot say:
   fewer channels of short convolutions or gemma3, layers that would be of another kind under their
   new number (smollm3, gemma3, llama4). */
FLASH_API flash_status flash_prune_arch(const flash_prune_desc *desc, flash_arch *out,
                                        flash_error *err);
/* Writes the result as a GGUF file; if all parts stay in their order, it has the same bytes as the
   model's file. Rows whose blocks stay whole are copied, others are quantised anew. FLASH_E_IO when
   write does not return 0. */
FLASH_API flash_status flash_prune_write(const flash_prune_desc *desc,
                                         int (*write)(void *user, const void *data, size_t bytes),
                                         void *user, flash_error *err);
/* Returns what flash_prune_view will acquire [B], of which it keeps all but room for a few rows; 0
   on failure. */
FLASH_API size_t flash_prune_view_memory(const flash_prune_desc *desc, flash_error *err);
/* Makes the model as which that file would load, without the file: results have the same bits. It
   shares the vocabulary, and points into the weights of desc->model, which must outlive it: where
   neighbours stay as they are (layers, the first units, heads or channels, in whole blocks of the
   type) nothing is copied; norms that are scaled, and what must be gathered or quantised anew, are.
   For sessions and trainers; freed by flash_model_free. */
FLASH_API flash_status flash_prune_view(flash_model **out, const flash_prune_desc *desc,
                                        flash_error *err);

/* How much the parts of a model matter, measured on text that its trainer runs: activations of FFN
   units, of heads of keys and values and their queries, and of channels after every norm, where
   s = sqrt(sum over sequences of (mean over tokens of |x|)^2) (Muralidharan et al. 2024, arxiv
   2407.14679), of a unit times the norm of its column in ffn_down; 1 - cos between the input and
   the result of attentions and of layers (Men et al. 2024, arxiv 2403.03853). One thread at a
   time. */

typedef struct flash_calibration flash_calibration;

typedef enum flash_part {
    FLASH_PART_UNIT,
    FLASH_PART_KV_HEAD,
    FLASH_PART_CHANNEL,
    FLASH_PART_ATTENTION,
    FLASH_PART_LAYER
} flash_part;

/* Creates an empty calibration for models of that shape, which is copied. FLASH_E_UNSUPPORTED for
   layers that cannot be trained. host: only its allocator is used; may be NULL. */
FLASH_API flash_status flash_calibration_create(flash_calibration **out, const flash_arch *a,
                                                const flash_host *host, flash_error *err);
FLASH_API void flash_calibration_free(flash_calibration *c); /* NULL is allowed */
/* Adds n sequences, [n,n_ctx+1] of t, which was made of the model and has not learned since.
   FLASH_E_ARGUMENT for another shape or ids outside the vocabulary; FLASH_E_RANGE if the
   activations are not finite: c is then as before but for a part of the sequences. */
FLASH_API flash_status flash_calibration_add(flash_calibration *c, flash_trainer *t,
                                             const int32_t *tokens, size_t n);
/* Returns how many parts there are: of a layer, or (CHANNEL, ATTENTION, LAYER) of the model. */
FLASH_API int flash_calibration_count(const flash_calibration *c, flash_part part, int layer);
/* Gives a score for each part, [count]; larger ones matter more. energy 1: root mean squares of
   activations in place of s, as MobileLLM-Flash has them (arxiv 2603.15954). */
FLASH_API flash_status flash_calibration_scores(const flash_calibration *c, flash_part part,
                                                int layer, int energy, double *out);
/* Chooses the n parts that matter most, ascending, in whole blocks of `block` neighbours, whose
   scores count by their sum of squares. FLASH_E_ARGUMENT if n or the count is no multiple of block,
   FLASH_E_RANGE if a score is no number. */
FLASH_API flash_status flash_calibration_choose(const flash_calibration *c, flash_part part,
                                                int layer, int energy, int n, int block, int *out);
/* Computes flash_prune_desc.share of n channels, [2 n_layer + 1]. */
FLASH_API flash_status flash_calibration_share(const flash_calibration *c, const int *channel,
                                               int n, float *share);
/* Returns all that c knows, [*n], to be kept and put back into another calibration of the same
   shape. Owned by c. */
FLASH_API double *flash_calibration_numbers(flash_calibration *c, size_t *n);
/* Computes the Kullback-Leibler divergence [nat a token] from the model of the model without
   attention in layers where skip, [n_layer], is not 0: the mean over n sequences, [n,n_ctx+1].
   Nothing is learned. Needs an n_ctx of at least 2. */
FLASH_API flash_status flash_trainer_skip(flash_trainer *t, const int32_t *tokens, size_t n,
                                          const uint8_t *skip, double *kl);

/* ===== >>api-low ========================================================== */

/* Returns the best instruction set usable here: compiled in, in the processor, and enabled by the
   operating system (Linux is asked to let the process use AMX tiles where there are any). */
FLASH_API flash_isa flash_isa_best(void);
/* Returns a name such as "scalar", or "unknown". Static. */
FLASH_API const char *flash_isa_name(flash_isa isa);
/* Returns the instruction set of that name; FLASH_ISA_COUNT if there is none. */
FLASH_API flash_isa flash_isa_parse(const char *name);
/* Turns a row of n weights into floats. src: [flash_row_bytes(t, n)] as in files, any alignment.
   FLASH_E_ARGUMENT if n does not fit. */
FLASH_API flash_status flash_dequantize(flash_type t, const void *src, float *dst, size_t n);
/* Turns a row of n floats into weights of type t. dst: [flash_row_bytes(t, n)], any alignment. In
   types with blocks NaN becomes 0, and a weight beyond float16 its largest number. FLASH_E_ARGUMENT
   if n does not fit, and for MXFP4, which is only read. */
FLASH_API flash_status flash_quantize(flash_type t, const float *src, void *dst, size_t n);
/* Computes y[r] = row r of w times x, the product that sessions use: activations are quantised to
   int8 where w is quantised. w: [rows,n] of type t; x: [n]; y: [rows]; work: [flash_dot_work(n)]
   bytes, any alignment. */
FLASH_API size_t flash_dot_work(size_t n);
FLASH_API flash_status flash_dot_rows(flash_type t, const void *w, size_t rows, size_t n,
                                      const float *x, float *y, void *work, flash_isa isa);
/* A processor's limits, for benchmarks. spin: `rounds` turns of int8 multiply-adds in registers;
   returns the operations done (2 a product), 0 if isa is not available. read: reads bytes (a
   multiple of 256) with wide loads; returns a sum. Each call first asks the processor what it can
   do, which in a virtual machine takes some 20 us: ask for milliseconds of work. */
FLASH_API double flash_isa_spin(flash_isa isa, int rounds);
FLASH_API uint64_t flash_isa_read(flash_isa isa, const void *p, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif /* FLASH_LANGUAGE_MODELS_H */

/* ========================================================================== */
/* IMPLEMENTATION                                                             */
/* ========================================================================== */

/* ===== >>config =========================================================== */

/* The only place where the user's macros are read; sections below test FLASH__ names alone. */

/* clang-format off */
#if defined(__INTELLISENSE__) || defined(__JETBRAINS_IDE__)
#  define FLASH_IMPLEMENTATION /* so that editors show the implementation in colour */
#endif

#if defined(FLASH_IMPLEMENTATION) || defined(FLASH_RUNTIME_IMPLEMENTATION) \
    || defined(FLASH_LATENCY_IMPLEMENTATION) || defined(FLASH_SEARCH_IMPLEMENTATION) \
    || defined(FLASH_TRAIN_IMPLEMENTATION)
#ifndef FLASH__IMPLEMENTED
#define FLASH__IMPLEMENTED

#if defined(FLASH_IMPLEMENTATION) || defined(FLASH_LATENCY_IMPLEMENTATION)
#  define FLASH__LATENCY
#endif
#if defined(FLASH_IMPLEMENTATION) || defined(FLASH_SEARCH_IMPLEMENTATION)
#  define FLASH__SEARCH
#endif
#if defined(FLASH_IMPLEMENTATION) || defined(FLASH_TRAIN_IMPLEMENTATION)
#  define FLASH__TRAIN
#endif
#if defined(FLASH__LATENCY) || defined(FLASH__TRAIN) || defined(FLASH_RUNTIME_IMPLEMENTATION)
#  define FLASH__RUNTIME
#endif
#if defined(FLASH__LATENCY) || defined(FLASH__SEARCH)
#  define FLASH__GP
#endif
#if defined(FLASH__TRAIN) || defined(FLASH__SEARCH)
#  define FLASH__NORMAL
#endif
#ifndef FLASH__REAL
#  define FLASH__REAL float /* what is trained in; tests check gradients in double, too */
#endif

#if defined(__FAST_MATH__) && !defined(FLASH_ALLOW_FAST_MATH)
#  error "flash.h: drop -ffast-math/-Ofast (results change), or define FLASH_ALLOW_FAST_MATH."
#endif
#if defined(FLASH_MALLOC) != defined(FLASH_FREE)
#  error "flash.h: define both of FLASH_MALLOC(size), FLASH_FREE(ptr), or neither."
#endif
#ifndef FLASH_MALLOC
#  include <stdlib.h>
#  define FLASH_MALLOC(size) malloc(size)
#  define FLASH_FREE(ptr)    free(ptr)
#  define FLASH__OWN_MALLOC
#endif
#ifndef FLASH_ASSERT
#  include <assert.h>
#  define FLASH_ASSERT(cond) assert(cond)
#  define FLASH__OWN_ASSERT
#endif
#include <float.h>
#include <math.h>   /* sqrt, sqrtf, floor: exact by IEEE 754 */
#include <stdarg.h>
#include <string.h>

#if defined(FLASH_NO_STDIO) || !defined(FLASH__RUNTIME)
#elif defined(FLASH_NO_MMAP)
#  define FLASH__FILE_STDIO
#  include <stdio.h>
#elif defined(_WIN32)
#  define FLASH__FILE_WIN32
#  include <windows.h>
#elif defined(__unix__) || defined(__APPLE__)
#  define FLASH__FILE_MMAP
#  include <fcntl.h>
#  include <sys/mman.h>
#  include <sys/stat.h>
#  include <unistd.h>
#else
#  define FLASH__FILE_STDIO
#  include <stdio.h>
#endif
#if !defined(FLASH__RUNTIME)
#elif defined(__unix__) || defined(__APPLE__)
#  define FLASH__HOSTED
#  include <time.h>
#elif defined(_WIN32)
#  define FLASH__HOSTED
#endif

/* No silent a*b+c -> fma(a,b,c): results would depend on compiler and flags. Undone in
   >>cleanup. */
#if defined(FLASH_NO_FP_PRAGMA)
#elif defined(__clang__)
#  pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#  pragma GCC push_options
#  pragma GCC optimize ("fp-contract=off")
#elif defined(_MSC_VER)
#  pragma fp_contract(off)
#endif

/* Where floats are kept wider than float (x87, gcc -std=c99 on s390x) a store makes them floats.
   The results are then right but not the same bits as elsewhere: there -msse2 -mfpmath=sse or
   -std=gnu99 help. */
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
#  define FLASH__FLOAT volatile float
#else
#  define FLASH__FLOAT float
#endif
#define FLASH__STATIC_ASSERT(cond, name) typedef char flash__assert_##name[(cond) ? 1 : -1]
#define FLASH__COUNT(array) (sizeof(array)/sizeof((array)[0]))
#define FLASH__MIN(a, b) ((a) < (b) ? (a) : (b))
#define FLASH__MAX(a, b) ((a) > (b) ? (a) : (b))

#if defined(__GNUC__) || defined(__clang__)
#  define FLASH__TARGET(isa) __attribute__((target(isa)))
#  define FLASH__INLINE      inline __attribute__((always_inline))
#else
#  define FLASH__TARGET(isa)
#  define FLASH__INLINE      inline
#endif
#if defined(FLASH_NO_THREADS) || defined(__TINYC__) || !defined(FLASH__HOSTED)
#elif defined(_WIN32)
#  define FLASH__THREADS
#  define FLASH__THREADS_WIN32
#  ifndef FLASH__FILE_WIN32
#    include <windows.h>
#  endif
#else
#  define FLASH__THREADS
#  define FLASH__THREADS_POSIX
#  include <pthread.h>
#  include <unistd.h>
#endif
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__TINYC__)
#  define FLASH__ATOMIC_GNU
#  define FLASH__PREFETCH(p) __builtin_prefetch(p, 0, 2)
#else
#  define FLASH__PREFETCH(p) ((void)(p))
#  if defined(_MSC_VER)
#    define FLASH__ATOMIC_MSVC
#  endif
#endif
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#  define FLASH__PAUSE() __asm__ volatile ("pause")
#elif defined(__GNUC__) && defined(__aarch64__)
#  define FLASH__PAUSE() __asm__ volatile ("yield")
#else
#  define FLASH__PAUSE() ((void)0)
#endif
#if defined(__GNUC__) && defined(__x86_64__)
#  define FLASH__OPAQUE(v) __asm__ volatile ("" : "+x"(v))
#else
#  define FLASH__OPAQUE(v)
#endif
#if defined(__clang__)
#  define FLASH__UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__) && __GNUC__ >= 8
#  define FLASH__UNROLL _Pragma("GCC unroll 16")
#else
#  define FLASH__UNROLL
#endif
#if defined(FLASH__RUNTIME) && !defined(FLASH_NO_SIMD) && !defined(__TINYC__)
#  if defined(__x86_64__) || defined(_M_X64)
#    define FLASH__X86
#    define FLASH__SSE41
#    define FLASH__AVX2
#    define FLASH__AVX512
#    include <immintrin.h>
#    if defined(__clang__) ? __clang_major__ >= 13 : defined(__GNUC__) && __GNUC__ >= 11
#      define FLASH__AVXVNNI
#      define FLASH__DPBUSD(sum, u, q) \
           __asm__ ("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u), "x"(q))
#      if defined(__linux__) && !defined(__ILP32__)
#        define FLASH__AMX
#      endif
#    else
#      define FLASH__DPBUSD(sum, u, q) ((void)(q))
#    endif
#  elif (defined(__aarch64__) && !defined(__AARCH64EB__)) || defined(_M_ARM64)
#    define FLASH__NEON
#    include <arm_neon.h>
#    if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 10)
#      define FLASH__NEON_DOT
#    endif
#    if defined(__linux__)
#      include <sys/auxv.h>
#    elif defined(__APPLE__)
#      include <sys/sysctl.h>
#    endif
#  elif defined(__wasm_simd128__)
#    define FLASH__WASM
#    include <wasm_simd128.h>
#  endif
#endif
/* clang-format on */

#ifdef __cplusplus
extern "C" {
#endif

/* ===== >>base ============================================================= */

/* Small tools that every part uses: memory, errors, sorting, random bits. Every size that is
   computed from input goes through flash__mul, which returns 0 if the product overflows. */

FLASH_API int flash_version(void) { return FLASH_VERSION; }

FLASH_API const char *flash_status_text(flash_status s)
{
    switch ((int)s) {
#define FLASH__X(name, value, text) case value: return text;
        FLASH_STATUS_LIST(FLASH__X)
#undef FLASH__X
    default: return "unknown status";
    }
}

static int flash__mul(size_t *out, size_t a, size_t b)
{
    if (b && a > SIZE_MAX / b) return 0;
    *out = a * b;
    return 1;
}

static double flash__bits_f64(uint64_t u)
{
    double d;
    memcpy(&d, &u, 8);
    return d;
}
static uint64_t flash__f64_bits(double d)
{
    uint64_t u;
    memcpy(&u, &d, 8);
    return u;
}

/* An arena hands out the pieces of one block in a fixed order, each aligned to 64 bytes. With base
   NULL it only counts, so the same plan function first computes the size of an object and then
   carves the object out of its block. */
typedef struct flash__arena {
    uint8_t *base; /* NULL: only count */
    size_t used;   /* [B]; SIZE_MAX after an overflow */
} flash__arena;

/* Takes count * item bytes. Returns NULL if the arena only counts, or after an overflow. */
static void *flash__take(flash__arena *a, size_t count, size_t item)
{
    size_t bytes, at = a->used;
    if (at == SIZE_MAX || !flash__mul(&bytes, count, item) || bytes > SIZE_MAX - 127
        || at > SIZE_MAX - 64 - bytes) {
        a->used = SIZE_MAX;
        return NULL;
    }
    a->used = at + ((bytes + 63) & ~(size_t)63);
    return a->base ? a->base + at : NULL;
}

/* Returns a block that is aligned to 64 bytes, or NULL. Blocks from FLASH_MALLOC are aligned here:
   they are longer by 64 bytes and a pointer, which keeps their true address just before the aligned
   block. */
static void *flash__acquire(const flash_allocator *a, size_t bytes)
{
    uint8_t *raw, *p;
    if (a->acquire) return a->acquire(a->user, bytes, 64);
    if (bytes > SIZE_MAX - 64 - sizeof raw) return NULL;
    raw = (uint8_t *)FLASH_MALLOC(bytes + 64 + sizeof raw);
    if (!raw) return NULL;
    p = raw + sizeof raw;
    p += (64 - ((uintptr_t)p & 63)) & 63;
    memcpy(p - sizeof raw, &raw, sizeof raw);
    return p;
}
static void flash__release(const flash_allocator *a, void *ptr, size_t bytes)
{
    uint8_t *raw;
    if (!ptr) return;
    if (a->acquire) {
        a->release(a->user, ptr, bytes);
        return;
    }
    memcpy(&raw, (uint8_t *)ptr - sizeof raw, sizeof raw);
    FLASH_FREE(raw);
}

/* Copies n bytes of text to p, but not past end. Returns the end of what it wrote. */
static char *flash__put(char *p, char *end, const char *text, size_t n)
{
    size_t i;
    for (i = 0; i < n && p < end; i++) {
        unsigned char c = (unsigned char)text[i];
        *p++ = c < 32 || c > 126 ? '?' : (char)c; /* file names and texts: printable ASCII only */
    }
    return p;
}

/* Writes the formatted text and a NUL, which may lie at end. Returns the address of the NUL. */
static char *flash__format(char *p, char *end, const char *format, va_list args)
{
    char digits[24];
    for (; *format; format++) {
        const char *s;
        uint64_t u;
        int n = 24;
        if (*format != '%') {
            p = flash__put(p, end, format, 1);
            continue;
        }
        switch (*++format) {
        case 's':
            s = va_arg(args, const char *);
            p = flash__put(p, end, s, strlen(s));
            break;
        case 't':
            s = va_arg(args, const char *);
            p = flash__put(p, end, s, va_arg(args, size_t));
            break;
        default: /* 'i', 'u' */
            if (*format == 'i') {
                int v = va_arg(args, int);
                if (v < 0) p = flash__put(p, end, "-", 1);
                u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
            } else
                u = va_arg(args, uint64_t);
            do digits[--n] = (char)('0' + u % 10);
            while ((u /= 10) != 0);
            p = flash__put(p, end, digits + n, (size_t)(24 - n));
        }
    }
    *p = 0;
    return p;
}

/* Fills err, unless it is NULL, and returns status. at: offset in the input [B], or 0. format knows
   only %s (a C string), %t (a text and its length as size_t), %i (int) and %u (uint64_t). */
static flash_status flash__fail(flash_error *err, flash_status status, uint64_t at,
                                const char *format, ...)
{
    va_list args;
    if (!err) return status;
    err->status = status;
    err->offset = at;
    va_start(args, format);
    flash__format(err->text, err->text + sizeof err->text - 1, format, args);
    va_end(args);
    return status;
}

/* Sorts a [n] in place by heap sort: no recursion, n log n steps on any input. less(ctx, a, b) is
   not 0 if a comes before b. */
static void flash__sort(uint32_t *a, size_t n, int (*less)(const void *ctx, uint32_t a, uint32_t b),
                        const void *ctx)
{
    size_t root = n / 2, child, end = n;
    while (end > 1) {
        uint32_t v;
        size_t hole;
        if (root)
            v = a[--root];
        else {
            v = a[--end];
            a[end] = a[0];
        }
        for (hole = root; (child = 2 * hole + 1) < end; hole = child) {
            if (child + 1 < end && less(ctx, a[child], a[child + 1])) child++;
            if (!less(ctx, v, a[child])) break;
            a[hole] = a[child];
        }
        a[hole] = v;
    }
}

/* Advances the counter *state and returns 64 random bits: SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t flash__random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ===== >>numbers ========================================================== */

/* Functions that give the same bits on every machine: they use only +, -, *, / and bit
   operations, each rounded once. Their relative error, measured in tests/test_quant.c against
   libm, is 4e-15. */

/* Sets y[c] = e^x[c] for x[c] in [-700, 700]; y[c] is 0 below that range and for NaN, and e^700
   above it. It takes several numbers (lanes <= 4) at once, so that compilers can use vector
   instructions. The result is 2^n times a Taylor sum on [-ln 2/2, ln 2/2]; the sums of the even
   and of the odd terms are independent, which halves the chain of dependent operations. */
static FLASH__INLINE void flash__exps(const double *x, double *y, const int lanes)
{
    double v[4], n[4], r[4], r2[4], p[4], q[4];
    uint64_t u[4];
    int c;
    for (c = 0; c < lanes; c++) {
        v[c] = x[c] > -700 ? x[c] : -700; /* also for NaN */
        v[c] = v[c] < 700 ? v[c] : 700;
        u[c] = flash__f64_bits(v[c] * 1.4426950408889634 + 6755399441055744.0);
        n[c] = flash__bits_f64(u[c]) - 6755399441055744.0; /* 1.5 2^52 made it whole */
        r[c] = v[c] - n[c] * 6.93147180369123816490e-01;
        r[c] = r[c] - n[c] * 1.90821492927058770002e-10;
        r2[c] = r[c] * r[c];
        p[c] = ((1 / 87178291200.0 * r2[c] + 1 / 479001600.0) * r2[c] + 1 / 3628800.0) * r2[c]
            + 1 / 40320.0;
        q[c] = ((1 / 1307674368000.0 * r2[c] + 1 / 6227020800.0) * r2[c] + 1 / 39916800.0) * r2[c]
            + 1 / 362880.0;
        p[c] = (((p[c] * r2[c] + 1 / 720.0) * r2[c] + 1 / 24.0) * r2[c] + 0.5) * r2[c] + 1;
        q[c] = (((q[c] * r2[c] + 1 / 5040.0) * r2[c] + 1 / 120.0) * r2[c] + 1 / 6.0) * r2[c] + 1;
        p[c] = p[c] + q[c] * r[c];
        y[c] = x[c] > -700 ? p[c] * flash__bits_f64((u[c] + 1023) << 52) : 0;
    }
}
static double flash__exp(double x)
{
    double y;
    flash__exps(&x, &y, 1);
    return y;
}

/* Returns the natural logarithm of x, which must be positive and normal (not subnormal), as that of
   the exponent plus 2 artanh((m-1)/(m+1)) of the mantissa m. */
static double flash__log(double x)
{
    static const double c[12] = {1 / 23.0, 1 / 21.0, 1 / 19.0, 1 / 17.0, 1 / 15.0, 1 / 13.0,
                                 1 / 11.0, 1 / 9.0,  1 / 7.0,  1 / 5.0,  1 / 3.0,  1};
    uint64_t u = flash__f64_bits(x);
    double e = (double)((int)(u >> 52 & 2047) - 1023), m, t, t2, s = 0;
    int i;
    m = flash__bits_f64((u & 0xfffffffffffffu) | 0x3ff0000000000000u);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e += 1;
    }
    t = (m - 1) / (m + 1);
    t2 = t * t;
    for (i = 0; i < 12; i++) s = s * t2 + c[i];
    return 2 * t * s + e * 0.69314718055994530942;
}

#ifdef FLASH__NORMAL
static int flash__finite(double v) { return v > -1e300 && v < 1e300; }
/* Returns a number in [0, 1). */
static double flash__uniform(uint64_t *state)
{
    return (double)(flash__random(state) >> 11) * 1.1102230246251565e-16; /* 2^-53 */
}
/* Returns a standard normal number by Marsaglia's polar method. */
static double flash__normal(uint64_t *state)
{
    for (;;) {
        double a = 2 * flash__uniform(state) - 1, b = 2 * flash__uniform(state) - 1,
               r = a * a + b * b;
        if (r > 0 && r < 1) return a * sqrt(-2 * flash__log(r) / r);
    }
}
#endif

/* ===== >>gp =============================================================== */

/* Gaussian-process regression in double precision, the surrogate model of the latency model and of
   the search. The formulas are those of Rasmussen and Williams 2006, Gaussian Processes for Machine
   Learning, chapters 2 and 5. The kernel is Matern 5/2 with a length scale for each input; inputs
   that are categories are compared instead of subtracted. Matrices are row-major; triangles are
   walked along rows, so that every inner loop runs over contiguous memory; all dot products have
   the same four partial sums on every machine. KNOWN TRAPS: the kernel's derivative is finite at
   distance 0 only if it is taken with respect to the squared distance; equal points need noise. */

#ifdef FLASH__GP
enum { FLASH__GP_INPUTS = 64, FLASH__GP_THETA = FLASH__GP_INPUTS + 2, FLASH__LBFGS = 8 };

static double flash__dot64(const double *a, const double *b, size_t n)
{
    double s[4] = {0, 0, 0, 0};
    size_t i;
    for (i = 0; i + 4 <= n; i += 4) {
        s[0] += a[i] * b[i];
        s[1] += a[i + 1] * b[i + 1];
        s[2] += a[i + 2] * b[i + 2];
        s[3] += a[i + 3] * b[i + 3];
    }
    for (; i < n; i++) s[i & 3] += a[i] * b[i];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* Replaces the lower triangle of the symmetric matrix a [n,n] by its Cholesky factor. Returns 0 if
   a is not positive definite. */
static int flash__cholesky(double *a, size_t n)
{
    size_t i, j;
    for (i = 0; i < n; i++) {
        double *row = a + i * n, s;
        for (j = 0; j < i; j++) row[j] = (row[j] - flash__dot64(row, a + j * n, j)) / a[j * n + j];
        s = row[i] - flash__dot64(row, row, i);
        if (!(s > 0)) return 0; /* also for NaN */
        row[i] = sqrt(s);
    }
    return 1;
}

/* Solve triangular systems in place: flash__solve_lower sets x = L^-1 x, flash__solve_upper sets x
   = L'^-1 x. Both together solve L L' x = b. L: [n,n], of which only the lower triangle is read. */
static void flash__solve_lower(const double *L, double *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) x[i] = (x[i] - flash__dot64(L + i * n, x, i)) / L[i * n + i];
}
static void flash__solve_upper(const double *L, double *x, size_t n)
{
    size_t i, k;
    for (i = n; i-- > 0;) {
        x[i] /= L[i * n + i];
        for (k = 0; k < i; k++) x[k] -= L[i * n + k] * x[i];
    }
}

/* Sets out [n,n] to the inverse of L L'. rows: [n,n] scratch, whose row i becomes column i of
   L^-1. */
static void flash__inverse(const double *L, double *rows, double *out, size_t n)
{
    size_t i, j;
    for (i = 0; i < n; i++) {
        double *x = rows + i * n;
        x[i] = 1 / L[i * n + i];
        for (j = i + 1; j < n; j++)
            x[j] = -flash__dot64(L + j * n + i, x + i, j - i) / L[j * n + j];
    }
    for (i = 0; i < n; i++)
        for (j = 0; j <= i; j++)
            out[i * n + j] = out[j * n + i] = flash__dot64(rows + i * n + i, rows + j * n + i,
                                                           n - i);
}

/* Returns f(x) and writes its gradient to g [n]. */
typedef double flash__function(void *ctx, const double *x, double *g);

/* Minimises f from the start x [n] within [lo, hi] and leaves the best point in x. Returns f(x).
   The method is L-BFGS (Nocedal and Wright 2006, algorithm 7.4), with steps that are cut at the
   bounds and halved until they lower f enough. turns: the most iterations. */
static double flash__minimise(flash__function *f, void *ctx, double *x, const double *lo,
                              const double *hi, int n, int turns)
{
    double s[FLASH__LBFGS][FLASH__GP_THETA], y[FLASH__LBFGS][FLASH__GP_THETA], rho[FLASH__LBFGS],
        a[FLASH__LBFGS], g[FLASH__GP_THETA], d[FLASH__GP_THETA], next[FLASH__GP_THETA],
        g_next[FLASH__GP_THETA], value = f(ctx, x, g), scale, step, v;
    size_t m = (size_t)n;
    int pairs = 0, turn, i, k, halvings;
    for (turn = 0; turn < turns; turn++) {
        int used = FLASH__MIN(pairs, FLASH__LBFGS);
        for (i = 0; i < n; i++) /* an input that its bound holds does not move */
            d[i] = (x[i] <= lo[i] && g[i] > 0) || (x[i] >= hi[i] && g[i] < 0) ? 0 : -g[i];
        if (!(flash__dot64(d, d, m) > 1e-14)) break;
        for (k = 1; k <= used; k++) {
            int p = (pairs - k) % FLASH__LBFGS;
            a[p] = rho[p] * flash__dot64(s[p], d, m);
            for (i = 0; i < n; i++) d[i] -= a[p] * y[p][i];
        }
        if (used) {
            int p = (pairs - 1) % FLASH__LBFGS;
            scale = 1 / (rho[p] * flash__dot64(y[p], y[p], m));
            for (i = 0; i < n; i++) d[i] *= scale;
        }
        for (k = used; k >= 1; k--) {
            int p = (pairs - k) % FLASH__LBFGS;
            v = rho[p] * flash__dot64(y[p], d, m);
            for (i = 0; i < n; i++) d[i] += (a[p] - v) * s[p][i];
        }
        if (!(flash__dot64(d, g, m) < 0)) { /* not downhill: forget the pairs */
            if (!pairs) break;
            pairs = 0;
            continue;
        }
        for (i = 0, v = 0; i < n; i++) v = FLASH__MAX(v, d[i] < 0 ? -d[i] : d[i]);
        step = v > 2 ? 2 / v : used ? 1 : FLASH__MIN(1, 0.5 / v);
        for (halvings = 0; halvings < 30; halvings++, step *= 0.5) {
            double better, moved = 0;
            for (i = 0; i < n; i++) {
                next[i] = FLASH__MIN(FLASH__MAX(x[i] + step * d[i], lo[i]), hi[i]);
                moved += g[i] * (next[i] - x[i]);
            }
            better = f(ctx, next, g_next);
            if (better <= value + 1e-4 * moved && better <= value) {
                int p = pairs % FLASH__LBFGS, done = value - better <= 1e-10 * (1 + fabs(value));
                for (v = 0, i = 0; i < n; i++) v += (next[i] - x[i]) * (g_next[i] - g[i]);
                for (i = 0; i < n; i++) {
                    if (v > 1e-12) {
                        s[p][i] = next[i] - x[i];
                        y[p][i] = g_next[i] - g[i];
                    }
                    x[i] = next[i];
                    g[i] = g_next[i];
                }
                if (v > 1e-12) {
                    rho[p] = 1 / v;
                    pairs++;
                }
                value = better;
                if (done) return value;
                break;
            }
        }
        if (halvings == 30) {
            if (!pairs) break;
            pairs = 0;
        }
    }
    return value;
}

/* A Gaussian process with n points of d inputs, of which the last `categories` are compared instead
   of subtracted. theta: [d+2] logarithms of the d length scales, of the signal's variance and of
   the noise's variance. The caller owns the memory. */
typedef struct flash__gp {
    size_t n;
    int d, categories, priors;  /* priors: 1 to use them in flash__gp_cost */
    double *x, *y;              /* [n,d] inputs, [n] values */
    double *L, *inverse, *rows; /* [n,n] each: Cholesky factor of A = K + noise; A^-1; scratch */
    double *alpha, *k;          /* [n] each: A^-1 y; scratch */
    double theta[FLASH__GP_THETA];
    double noise, noise_spread; /* prior of the log noise variance: its mean, its variance */
    double nugget;              /* what was added to the diagonal of K to make A */
    double lml;                 /* log marginal likelihood at theta */
} flash__gp;

/* Takes the arrays of a process of n points from the arena. predict: 1 to leave out those that only
   fitting needs. */
static void flash__gp_plan(flash__gp *g, size_t n, int d, int categories, int predict,
                           flash__arena *a)
{
    size_t square = 0;
    if (!flash__mul(&square, n, n)) square = SIZE_MAX; /* flash__take refuses that */
    g->n = n;
    g->d = d;
    g->categories = categories;
    g->x = (double *)flash__take(a, n, (size_t)d * sizeof *g->x);
    g->y = (double *)flash__take(a, n, sizeof *g->y);
    g->L = (double *)flash__take(a, square, sizeof *g->L);
    g->alpha = (double *)flash__take(a, n, sizeof *g->alpha);
    g->k = (double *)flash__take(a, n, sizeof *g->k);
    g->inverse = predict ? NULL : (double *)flash__take(a, square, sizeof *g->inverse);
    g->rows = predict ? NULL : (double *)flash__take(a, square, sizeof *g->rows);
}

/* D_j, the squared distance of two points in input j. Of a category, whose values are whole
   numbers, it is min((a-b)^2, 1), without a branch, which would be mispredicted half the time. */
static double flash__gp_plain(double a, double b) { return (a - b) * (a - b); }
static double flash__gp_category(double a, double b)
{
    double v = (a - b) * (a - b);
    return 0.5 * (v + 1 - fabs(v - 1));
}

/* Returns sum_j w_j D_j of points a and b [d], in four partial sums. */
static double flash__gp_distance(const flash__gp *g, const double *w, const double *a,
                                 const double *b)
{
    double s[4] = {0, 0, 0, 0};
    int j, plain = g->d - g->categories;
    for (j = 0; j + 4 <= plain; j += 4) {
        s[0] += w[j] * flash__gp_plain(a[j], b[j]);
        s[1] += w[j + 1] * flash__gp_plain(a[j + 1], b[j + 1]);
        s[2] += w[j + 2] * flash__gp_plain(a[j + 2], b[j + 2]);
        s[3] += w[j + 3] * flash__gp_plain(a[j + 3], b[j + 3]);
    }
    for (; j < plain; j++) s[0] += w[j] * flash__gp_plain(a[j], b[j]);
    for (; j + 4 <= g->d; j += 4) {
        s[0] += w[j] * flash__gp_category(a[j], b[j]);
        s[1] += w[j + 1] * flash__gp_category(a[j + 1], b[j + 1]);
        s[2] += w[j + 2] * flash__gp_category(a[j + 2], b[j + 2]);
        s[3] += w[j + 3] * flash__gp_category(a[j + 3], b[j + 3]);
    }
    for (; j < g->d; j++) s[1] += w[j] * flash__gp_category(a[j], b[j]);
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* Replaces n squared distances r^2 = sum_j D_j/l_j^2 in k by the kernel values sf2 (1 + q + q^2/3)
   e^-q, where q^2 = 5 r^2. slope: [n], becomes the derivatives with respect to r^2; or NULL. */
static void flash__gp_kernels(double sf2, size_t n, double *k, double *slope)
{
    double q[4], e[4];
    size_t i;
    int c, lanes;
    for (i = 0; i < n; i += 4) {
        lanes = n - i < 4 ? (int)(n - i) : 4;
        for (c = 0; c < 4; c++) q[c] = c < lanes ? -sqrt(5 * k[i + (size_t)c]) : 0;
        flash__exps(q, e, 4);
        for (c = 0; c < lanes; c++) {
            if (slope) slope[i + (size_t)c] = -5.0 / 6 * (1 - q[c]) * (sf2 * e[c]);
            k[i + (size_t)c] = (1 - q[c] + q[c] * q[c] / 3) * (sf2 * e[c]);
        }
    }
}

/* Sets w[j] = 1/l_j^2 for the d inputs and returns the signal's variance sf2. */
static double flash__gp_weights(const flash__gp *g, double *w)
{
    int j;
    for (j = 0; j < g->d; j++) w[j] = flash__exp(-2 * g->theta[j]);
    return flash__exp(g->theta[g->d]);
}

/* Computes A, its Cholesky factor L, alpha and lml at theta, and leaves the kernel's derivatives
   above the diagonal of L. If A cannot be factored, its diagonal is raised step by step. Returns 0
   if that does not help. */
static int flash__gp_factor(flash__gp *g)
{
    double w[FLASH__GP_INPUTS], sf2 = flash__gp_weights(g, w), jitter = 0,
                                noise = flash__exp(g->theta[g->d + 1]), logs = 0;
    size_t n = g->n, i, j;
    for (;;) {
        for (i = 0; i < n; i++) {
            double *row = g->L + i * n;
            for (j = 0; j < i; j++)
                row[j] = flash__gp_distance(g, w, g->x + i * (size_t)g->d, g->x + j * (size_t)g->d);
            flash__gp_kernels(sf2, i, row, g->k);
            for (j = 0; j < i; j++) g->L[j * n + i] = g->k[j];
            row[i] = sf2 + noise + jitter;
        }
        if (flash__cholesky(g->L, n)) break;
        jitter = jitter > 0 ? 10 * jitter : 1e-8 * (sf2 + noise);
        if (!(jitter <= 1e-3 * (sf2 + noise))) return 0;
    }
    g->nugget = noise + jitter;
    memcpy(g->alpha, g->y, n * sizeof *g->alpha);
    flash__solve_lower(g->L, g->alpha, n);
    g->lml = -0.5 * flash__dot64(g->alpha, g->alpha, n) - 0.9189385332046727 * (double)n;
    for (i = 0; i < n; i++) logs += flash__log(g->L[i * n + i]);
    g->lml -= logs;
    flash__solve_upper(g->L, g->alpha, n);
    return 1;
}

/* Sets grad [d+2] to d lml/d theta, after flash__gp_factor: half the trace of (alpha alpha' - A^-1)
   dA. For the signal's variance dA = K = A - nugget, so K itself is not needed. */
static void flash__gp_gradient(flash__gp *g, double *grad)
{
    double w[FLASH__GP_INPUTS], noise = flash__exp(g->theta[g->d + 1]), squares, trace = 0, v;
    size_t n = g->n, i, j, d = (size_t)g->d, t, plain = d - (size_t)g->categories;
    flash__gp_weights(g, w);
    flash__inverse(g->L, g->rows, g->inverse, n);
    for (t = 0; t < d; t++) grad[t] = 0;
    for (i = 0; i < n; i++) {
        const double *a = g->x + i * d;
        for (j = 0; j < i; j++) {
            const double *b = g->x + j * d;
            v = (g->alpha[i] * g->alpha[j] - g->inverse[i * n + j]) * g->L[j * n + i];
            for (t = 0; t < plain; t++) grad[t] += v * flash__gp_plain(a[t], b[t]);
            for (; t < d; t++) grad[t] += v * flash__gp_category(a[t], b[t]);
        }
        trace += g->inverse[i * n + i];
    }
    for (t = 0; t < d; t++) grad[t] *= -2 * w[t];
    squares = flash__dot64(g->alpha, g->alpha, n);
    grad[d] = 0.5
        * (flash__dot64(g->alpha, g->y, n) - g->nugget * squares - (double)n + g->nugget * trace);
    grad[d + 1] = 0.5 * noise * (squares - trace);
}

/* The function that flash__minimise lowers: -lml and, with priors, minus the log of their density
   at theta, without its constants. The priors expect length scales that grow with the number of
   inputs (Hvarfner et al. 2024, arxiv 2402.02229), a signal's variance of about 1 and a noise's
   variance of about e^g->noise, both in units of y's variance. ctx: a flash__gp. Returns 1e300 if A
   cannot be factored. */
static double flash__gp_cost(void *ctx, const double *theta, double *grad)
{
    flash__gp *g = (flash__gp *)ctx;
    double cost, v;
    int t, d = g->d;
    memcpy(g->theta, theta, (size_t)(d + 2) * sizeof *theta);
    for (t = 0; t < d + 2; t++) grad[t] = 0;
    if (!flash__gp_factor(g)) return 1e300;
    flash__gp_gradient(g, grad);
    cost = -g->lml;
    for (t = 0; t < d + 2; t++) {
        double middle = t < d ? 1.4142135623730951 + 0.5 * flash__log(d)
            : t == d          ? 0
                              : g->noise,
               variance = t < d ? 3
            : t == d            ? 4
                                : g->noise_spread;
        v = theta[t] - middle;
        grad[t] = -grad[t] + (g->priors ? v / variance : 0);
        cost += g->priors ? 0.5 * v * v / variance : 0;
    }
    return cost;
}

/* Chooses theta and calls flash__gp_factor there. Returns 0 if A cannot be factored. y should have
   mean 0 and variance 1. The search for theta begins at 1 to 3 starts: length scales that suit the
   number of inputs, short ones, long ones. Above 200 points the starts are compared on a random 200
   of them, since each evaluation costs n^3 operations. turns: the most iterations. Reorders the
   points. */
static int flash__gp_fit(flash__gp *g, int starts, int turns)
{
    double lo[FLASH__GP_THETA], hi[FLASH__GP_THETA], best[FLASH__GP_THETA], theta[FLASH__GP_THETA],
        least = 1e300, cost, v;
    size_t all = g->n, i, j, k;
    uint64_t state = 1;
    int t, start, d = g->d;
    for (i = all; i > 1; i--) {
        j = (size_t)(flash__random(&state) >> 33) % i;
        v = g->y[i - 1];
        g->y[i - 1] = g->y[j];
        g->y[j] = v;
        for (k = 0; k < (size_t)d; k++) {
            double *a = g->x + (i - 1) * (size_t)d + k, *b = g->x + j * (size_t)d + k;
            v = *a;
            *a = *b;
            *b = v;
        }
    }
    g->n = FLASH__MIN(all, 200);
    for (t = 0; t < d + 2; t++) { /* l in [0.02, 3000], variances in [1e-6, 3000] */
        lo[t] = t < d ? -3.9 : -13.8;
        hi[t] = 8;
    }
    for (start = 0; start < starts; start++) { /* a third of the iterations shows the best start */
        for (t = 0; t < d; t++) theta[t] = start == 0 ? 0.5 * flash__log(d) : start == 1 ? -1 : 3;
        theta[d] = start == 2 ? -1 : 0;
        theta[d + 1] = g->noise - 1;
        cost = flash__minimise(flash__gp_cost, g, theta, lo, hi, d + 2, turns / 3);
        if (cost < least) {
            least = cost;
            memcpy(best, theta, sizeof best);
        }
    }
    if (least >= 1e300) return 0;
    flash__minimise(flash__gp_cost, g, best, lo, hi, d + 2, turns);
    if (all > g->n) {
        g->n = all;
        flash__minimise(flash__gp_cost, g, best, lo, hi, d + 2, turns / 4);
    }
    memcpy(g->theta, best, sizeof best);
    return flash__gp_factor(g);
}

#endif

/* ===== >>bytes ============================================================ */

/* Numbers in files are little-endian and may lie at any address. The flash__rd and flash__wr
   functions read and write them correctly on every machine; flash__rd compiles to one load. The
   runtime begins here and ends with >>state. */

#ifdef FLASH__RUNTIME
static uint32_t flash__rd16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t flash__rd32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static uint64_t flash__rd64(const uint8_t *p)
{
    return (uint64_t)flash__rd32(p) | (uint64_t)flash__rd32(p + 4) << 32;
}
static void flash__wr32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}
static void flash__wr64(uint8_t *p, uint64_t v)
{
    flash__wr32(p, (uint32_t)v);
    flash__wr32(p + 4, (uint32_t)(v >> 32));
}
static float flash__bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static uint32_t flash__f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static float flash__rdf32(const uint8_t *p) { return flash__bits_f32(flash__rd32(p)); }

/* Sends a line to the host's log, if it has one. format: as in flash__fail. */
static void flash__note(const flash_host *h, int level, const char *format, ...)
{
    char line[240];
    va_list args;
    if (!h->log) return;
    va_start(args, format);
    flash__format(line, line + sizeof line - 1, format, args);
    va_end(args);
    h->log(h->user, level, line);
}

/* Adds one word to a checksum. A change of any single word always changes the final sum. */
static uint64_t flash__sum_word(uint64_t sum, uint64_t word)
{
    sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 29;
}

static uint64_t flash__sum_words(uint64_t sum, const uint8_t *p, size_t words)
{
    for (; words--; p += 8) sum = flash__sum_word(sum, flash__rd64(p));
    return sum;
}

/* Compares two texts of na and nb bytes, with a result as from memcmp; if one text begins with the
   other, the shorter one comes first. */
static int flash__compare(const void *a, size_t na, const void *b, size_t nb)
{
    int c = memcmp(a, b, FLASH__MIN(na, nb));
    return c ? c : na < nb ? -1 : na > nb;
}

/* Returns the smallest power of two >= n. */
static size_t flash__pow2(size_t n)
{
    size_t p = 1;
    while (p < n) p <<= 1;
    return p;
}

static int flash__lower(int c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }
/* Returns 1 if a and b are the same but for ASCII case. */
static int flash__same_word(const char *a, const char *b)
{
    while (*a && flash__lower((unsigned char)*a) == flash__lower((unsigned char)*b)) {
        a++;
        b++;
    }
    return !*a && !*b;
}

/* ===== >>os =============================================================== */

/* A file is used as one array of bytes, which is the caller's own, mapped, or read into memory that
   the library acquires. The clock is here, too. */

enum { FLASH__FILE_CALLER, FLASH__FILE_MAPPED, FLASH__FILE_ACQUIRED };
typedef struct flash__file {
    const uint8_t *data;
    size_t size; /* [B] */
    int how;     /* FLASH__FILE_...: whose memory `data` is */
} flash__file;

static void flash__file_close(flash__file *f, const flash_host *host)
{
    void *p;
    memcpy(&p, &f->data, sizeof p);
    if (f->how == FLASH__FILE_ACQUIRED) flash__release(&host->allocator, p, f->size);
#if defined(FLASH__FILE_MMAP)
    else if (f->how == FLASH__FILE_MAPPED)
        munmap(p, f->size);
#elif defined(FLASH__FILE_WIN32)
    else if (f->how == FLASH__FILE_MAPPED)
        UnmapViewOfFile(p);
#endif
    memset(f, 0, sizeof *f);
}

/* Acquires size bytes for the content of a file and sets f. *buffer: that memory, writable. */
static flash_status flash__file_acquire(flash__file *f, uint64_t size, const flash_host *host,
                                        flash_error *err, uint8_t **buffer)
{
    if (!size) return flash__fail(err, FLASH_E_TRUNCATED, 0, "the file is empty");
    if (size > SIZE_MAX)
        return flash__fail(err, FLASH_E_TOO_LARGE, 0,
                           "file of %u bytes: more than this machine "
                           "can address",
                           size);
    *buffer = (uint8_t *)flash__acquire(&host->allocator, (size_t)size);
    if (!*buffer)
        return flash__fail(err, FLASH_E_MEMORY, 0, "no memory to read a file of %u bytes", size);
    f->data = *buffer;
    f->size = (size_t)size;
    f->how = FLASH__FILE_ACQUIRED;
    return FLASH_E_NONE;
}

#if defined(FLASH__FILE_MMAP)
static flash_status flash__file_path(flash__file *f, const char *path, const flash_host *host,
                                     flash_error *err)
{
    struct stat st;
    void *p;
    int fd = open(path, O_RDONLY);
    (void)host;
    if (fd < 0)
        return flash__fail(err, FLASH_E_IO, 0, "%s: cannot be opened: check path and permission",
                           path);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return flash__fail(err, FLASH_E_IO, 0, "%s: not a file", path);
    }
    if (st.st_size <= 0 || (uint64_t)st.st_size > SIZE_MAX / 2) {
        close(fd);
        return flash__fail(
            err, st.st_size > 0 ? FLASH_E_TOO_LARGE : FLASH_E_TRUNCATED, 0,
            st.st_size > 0 ? "%s: too large for this machine" : "%s: the file is empty", path);
    }
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return flash__fail(err, FLASH_E_IO, 0, "%s: cannot be mapped", path);
    f->data = (const uint8_t *)p;
    f->size = (size_t)st.st_size;
    f->how = FLASH__FILE_MAPPED;
    return FLASH_E_NONE;
}
#elif defined(FLASH__FILE_WIN32)
static flash_status flash__file_path(flash__file *f, const char *path, const flash_host *host,
                                     flash_error *err)
{
    LARGE_INTEGER size;
    HANDLE file, map;
    (void)host;
    file = CreateFileA(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING,
                       FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return flash__fail(err, FLASH_E_IO, 0, "%s: cannot be opened: check path and permission",
                           path);
    if (!GetFileSizeEx(file, &size) || size.QuadPart <= 0
        || (uint64_t)size.QuadPart > SIZE_MAX / 2) {
        CloseHandle(file);
        return flash__fail(err, FLASH_E_TRUNCATED, 0, "%s: empty, or too large for this machine",
                           path);
    }
    map = CreateFileMappingA(file, NULL, PAGE_READONLY, 0, 0, NULL);
    f->data = map ? (const uint8_t *)MapViewOfFile(map, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (map) CloseHandle(map);
    CloseHandle(file);
    if (!f->data) return flash__fail(err, FLASH_E_IO, 0, "%s: cannot be mapped", path);
    f->size = (size_t)size.QuadPart;
    f->how = FLASH__FILE_MAPPED;
    return FLASH_E_NONE;
}
#elif defined(FLASH__FILE_STDIO)
static flash_status flash__file_path(flash__file *f, const char *path, const flash_host *host,
                                     flash_error *err)
{
    FILE *in = fopen(path, "rb");
    uint8_t *buffer = NULL;
    flash_status s = FLASH_E_NONE;
    long size = -1;
    if (!in)
        return flash__fail(err, FLASH_E_IO, 0, "%s: cannot be opened: check path and permission",
                           path);
    if (!fseek(in, 0, SEEK_END)) size = ftell(in);
    if (size < 0 || fseek(in, 0, SEEK_SET))
        s = flash__fail(err, FLASH_E_IO, 0, "%s: cannot be read", path);
    if (!s) s = flash__file_acquire(f, (uint64_t)size, host, err, &buffer);
    if (!s && fread(buffer, 1, f->size, in) != f->size) {
        s = flash__fail(err, FLASH_E_IO, 0, "%s: cannot be read to its end", path);
        flash__file_close(f, host);
    }
    fclose(in);
    return s;
}
#else
static flash_status flash__file_path(flash__file *f, const char *path, const flash_host *host,
                                     flash_error *err)
{
    (void)f;
    (void)host;
    return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                       "%s: built with FLASH_NO_STDIO: give data or read", path);
}
#endif

/* Opens the path, the data or the read callback of s. After success the caller closes f with
   flash__file_close. */
static flash_status flash__file_open(flash__file *f, const flash_source *s, const flash_host *host,
                                     flash_error *err)
{
    uint8_t *buffer;
    flash_status status;
    memset(f, 0, sizeof *f);
    if (!s->path + !s->data + !s->read != 2)
        return flash__fail(err, FLASH_E_ARGUMENT, 0,
                           "source: give exactly one of path, data and read");
    if (s->path) return flash__file_path(f, s->path, host, err);
    if (s->data) {
        if (!s->bytes) return flash__fail(err, FLASH_E_TRUNCATED, 0, "the file is empty");
        f->data = (const uint8_t *)s->data;
        f->size = s->bytes;
        return FLASH_E_NONE;
    }
    status = flash__file_acquire(f, s->size, host, err, &buffer);
    if (!status && s->read(s->user, 0, buffer, f->size)) {
        flash__file_close(f, host);
        return flash__fail(err, FLASH_E_IO, 0, "the read callback failed");
    }
    return status;
}

/* Returns the time [s] of the host's clock or else of the system's; 0 if there is none. */
static double flash__clock(const flash_host *host)
{
    if (host->clock) return host->clock(host->user);
#if defined(_WIN32) && defined(FLASH__FILE_WIN32)
    {
        LARGE_INTEGER t, f;
        QueryPerformanceCounter(&t);
        QueryPerformanceFrequency(&f);
        return (double)t.QuadPart / (double)f.QuadPart;
    }
#elif defined(CLOCK_MONOTONIC)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    }
#else
    return 0;
#endif
}

/* ===== >>threads ========================================================== */

/* A pool runs one job at a time, on the caller and on the workers that are awake. A worker enters a
   job by taking the next index; the caller never waits for a worker that has not entered. So the
   work gets done by any subset of the workers, even by none, and a machine with fewer processors
   than threads loses nothing. Idle workers, and the caller while it waits for workers that have
   entered, spin for about 50 microseconds and then sleep. */

/* Takes work of the job ctx until none is left. index: the number of this task in the job. */
typedef void (*flash__task)(void *ctx, int index);

#if defined(FLASH__ATOMIC_GNU)
static int flash__add(volatile int *p, int n) { return __atomic_fetch_add(p, n, __ATOMIC_ACQ_REL); }
static int flash__get(volatile int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
#elif defined(FLASH__ATOMIC_MSVC)
static int flash__add(volatile int *p, int n)
{
    return (int)_InterlockedExchangeAdd((volatile long *)p, n);
}
#else
static int flash__add(volatile int *p, int n)
{
    int v = *p;
    *p = v + n;
    return v;
}
#endif
#ifndef FLASH__ATOMIC_GNU
static int flash__get(volatile int *p) { return flash__add(p, 0); }
#endif

#if defined(FLASH__THREADS_POSIX)
typedef pthread_t flash__thread;
typedef pthread_mutex_t flash__mutex;
typedef pthread_cond_t flash__cond;
static void flash__mutex_make(flash__mutex *m) { pthread_mutex_init(m, NULL); }
static void flash__mutex_end(flash__mutex *m) { pthread_mutex_destroy(m); }
static void flash__lock(flash__mutex *m) { pthread_mutex_lock(m); }
static void flash__unlock(flash__mutex *m) { pthread_mutex_unlock(m); }
static void flash__cond_make(flash__cond *c) { pthread_cond_init(c, NULL); }
static void flash__cond_end(flash__cond *c) { pthread_cond_destroy(c); }
static void flash__wait(flash__cond *c, flash__mutex *m) { pthread_cond_wait(c, m); }
static void flash__wake(flash__cond *c) { pthread_cond_broadcast(c); }
#define FLASH__THREAD_RESULT void *
static int flash__thread_start(flash__thread *t, void *(*run)(void *), void *arg)
{
    return !pthread_create(t, NULL, run, arg);
}
static void flash__thread_join(flash__thread t) { pthread_join(t, NULL); }
static int flash__processors(void)
{
#ifdef _SC_NPROCESSORS_ONLN
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    if (n > 0) return n < (int)FLASH_THREADS_MAX ? (int)n : (int)FLASH_THREADS_MAX;
#endif
    return (int)FLASH_THREADS_MAX;
}
#elif defined(FLASH__THREADS_WIN32)
typedef HANDLE flash__thread;
typedef SRWLOCK flash__mutex;
typedef CONDITION_VARIABLE flash__cond;
static void flash__mutex_make(flash__mutex *m) { InitializeSRWLock(m); }
static void flash__mutex_end(flash__mutex *m) { (void)m; }
static void flash__lock(flash__mutex *m) { AcquireSRWLockExclusive(m); }
static void flash__unlock(flash__mutex *m) { ReleaseSRWLockExclusive(m); }
static void flash__cond_make(flash__cond *c) { InitializeConditionVariable(c); }
static void flash__cond_end(flash__cond *c) { (void)c; }
static void flash__wait(flash__cond *c, flash__mutex *m)
{
    SleepConditionVariableSRW(c, m, INFINITE, 0);
}
static void flash__wake(flash__cond *c) { WakeAllConditionVariable(c); }
#define FLASH__THREAD_RESULT DWORD WINAPI
static int flash__thread_start(flash__thread *t, DWORD(WINAPI *run)(void *), void *arg)
{
    return (*t = CreateThread(NULL, 0, run, arg, 0, NULL)) != NULL;
}
static void flash__thread_join(flash__thread t)
{
    WaitForSingleObject(t, INFINITE);
    CloseHandle(t);
}
static int flash__processors(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (int)info.dwNumberOfProcessors;
}
#endif

#ifdef FLASH__THREADS
enum { FLASH__SPINS = 4000 };

typedef struct flash__pool {
    flash__mutex lock;
    flash__cond work, done; /* wake the idle workers; wake the caller */
    flash__task task;
    void *ctx;
    volatile int turn, stop, inside; /* number of jobs so far; 1 to end; workers in a task */
    int next, tasks, asleep, n;      /* next index; end of indices; sleeping workers; workers */
    flash__thread thread[FLASH_THREADS_MAX];
} flash__pool;

static FLASH__THREAD_RESULT flash__pool_worker(void *arg)
{
    flash__pool *p = (flash__pool *)arg;
    int seen = 0, spins;
    for (;;) {
        for (spins = 0;
             spins < FLASH__SPINS && flash__get(&p->turn) == seen && !flash__get(&p->stop); spins++)
            FLASH__PAUSE();
        flash__lock(&p->lock);
        while (p->turn == seen && !p->stop) {
            p->asleep++;
            flash__wait(&p->work, &p->lock);
            p->asleep--;
        }
        seen = p->turn;
        while (p->next < p->tasks) {
            int index = p->next++;
            flash__add(&p->inside, 1);
            flash__unlock(&p->lock);
            p->task(p->ctx, index);
            flash__lock(&p->lock);
            if (flash__add(&p->inside, -1) == 1) flash__wake(&p->done);
        }
        if (p->stop) break;
        flash__unlock(&p->lock);
    }
    flash__unlock(&p->lock);
    return 0;
}

/* Runs task(ctx, 0) on the calling thread and task(ctx, i), 0 < i < tasks, on those workers that
   are awake in time. Indices that no worker has taken when task(ctx, 0) returns are dropped: by
   then the tasks have shared out all work among themselves. Waits for those that have begun. */
static void flash__pool_run(flash__pool *p, int tasks, flash__task task, void *ctx)
{
    int spins;
    flash__lock(&p->lock);
    p->task = task;
    p->ctx = ctx;
    p->next = 1;
    p->tasks = tasks;
    flash__add(&p->turn, 1);
    if (p->asleep) flash__wake(&p->work);
    flash__unlock(&p->lock);
    task(ctx, 0);
    flash__lock(&p->lock);
    /* Task 0 returns when all work has been taken, so late workers need not start. */
    p->tasks = 0;
    flash__unlock(&p->lock);
    for (spins = 0; spins < FLASH__SPINS && flash__get(&p->inside); spins++) FLASH__PAUSE();
    flash__lock(&p->lock);
    while (p->inside) flash__wait(&p->done, &p->lock);
    flash__unlock(&p->lock);
}

/* Starts up to n workers: fewer if the system refuses, and at most one less than there are
   processors, because more would only take time from each other. p->n becomes their number. */
static void flash__pool_start(flash__pool *p, int n)
{
    n = FLASH__MIN(n, flash__processors() - 1);
    memset(p, 0, sizeof *p);
    flash__mutex_make(&p->lock);
    flash__cond_make(&p->work);
    flash__cond_make(&p->done);
    while (p->n < n && flash__thread_start(&p->thread[p->n], flash__pool_worker, p)) p->n++;
}

static void flash__pool_end(flash__pool *p)
{
    flash__lock(&p->lock);
    flash__add(&p->stop, 1);
    flash__wake(&p->work);
    flash__unlock(&p->lock);
    while (p->n) flash__thread_join(p->thread[--p->n]);
    flash__cond_end(&p->work);
    flash__cond_end(&p->done);
    flash__mutex_end(&p->lock);
}
#else
typedef struct flash__pool {
    int n;
} flash__pool;
static void flash__pool_run(flash__pool *p, int tasks, flash__task task, void *ctx)
{
    (void)p;
    (void)tasks;
    task(ctx, 0);
}
static void flash__pool_start(flash__pool *p, int n)
{
    (void)n;
    p->n = 0;
}
static void flash__pool_end(flash__pool *p) { (void)p; }
#endif

/* ===== >>cpu ============================================================== */

/* Finds the instruction sets that can run here. A set must be compiled in, present in the processor
   (cpuid) and enabled by the operating system (xgetbv tells whether it saves the wide registers).
   The processor is asked anew each time, so that nothing global has to be kept. */

#ifdef FLASH__X86
#if defined(_MSC_VER) && !defined(__clang__)
static void flash__cpuid(int leaf, int sub, int r[4]) { __cpuidex(r, leaf, sub); }
static uint64_t flash__xcr0(void) { return _xgetbv(0); }
#else
static void flash__cpuid(int leaf, int sub, int r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}
static uint64_t flash__xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(lo), "=d"(hi) : "c"(0)); /* xgetbv */
    return (uint64_t)hi << 32 | lo;
}
#endif

/* Returns 1 if this process may use AMX tiles. Linux grants them on request (arch_prctl
   ARCH_REQ_XCOMP_PERM for XFEATURE_XTILEDATA; Documentation/arch/x86/xstate.rst); the request may
   be repeated. */
static int flash__amx_granted(void)
{
#ifdef FLASH__AMX
    long r = 158;
    __asm__ volatile("syscall" : "+a"(r) : "D"(0x1023L), "S"(18L) : "rcx", "r11", "memory");
    return r == 0;
#else
    return 0;
#endif
}

/* Returns the usable instruction sets as bits 1 << flash_isa. */
static unsigned flash__isa_sets(void)
{
    unsigned sets = 1u << FLASH_ISA_SCALAR;
    int r[4], most;
    uint32_t ecx1, ebx7, ecx7, edx7;
    uint64_t saved;
    flash__cpuid(0, 0, r);
    most = r[0];
    flash__cpuid(1, 0, r);
    ecx1 = (uint32_t)r[2];
    if (!(ecx1 >> 19 & 1)) return sets; /* SSE4.1 */
    sets |= 1u << FLASH_ISA_SSE41;
    /* OSXSAVE, FMA, F16C */
    if (most < 7 || !(ecx1 >> 27 & 1) || !(ecx1 >> 12 & 1) || !(ecx1 >> 29 & 1)) return sets;
    saved = flash__xcr0();
    flash__cpuid(7, 0, r);
    most = r[0];
    ebx7 = (uint32_t)r[1];
    ecx7 = (uint32_t)r[2];
    edx7 = (uint32_t)r[3];
    if ((saved & 0x06) != 0x06 || !(ebx7 >> 5 & 1)) return sets; /* YMM saved, AVX2 */
    sets |= 1u << FLASH_ISA_AVX2;
#ifdef FLASH__AVXVNNI
    if (most >= 1) flash__cpuid(7, 1, r);
    if (most >= 1 && r[0] >> 4 & 1) sets |= 1u << FLASH_ISA_AVXVNNI;
#endif
    /* ZMM saved, F DQ BW VL, VNNI */
    if ((saved & 0xe6) != 0xe6 || !(ebx7 >> 16 & 1) || !(ebx7 >> 17 & 1) || !(ebx7 >> 30 & 1)
        || !(ebx7 >> 31 & 1) || !(ecx7 >> 11 & 1))
        return sets;
    sets |= 1u << FLASH_ISA_AVX512;
    /* tiles saved, AMX-TILE, AMX-INT8 */
    if ((saved >> 17 & 3) == 3 && edx7 >> 24 & 1 && edx7 >> 25 & 1 && flash__amx_granted())
        sets |= 1u << FLASH_ISA_AMX;
    return sets;
}
#elif !defined(FLASH__NEON)
static unsigned flash__isa_sets(void)
{
#ifdef FLASH__WASM
    return 1u << FLASH_ISA_SCALAR | 1u << FLASH_ISA_WASM;
#else
    return 1u << FLASH_ISA_SCALAR;
#endif
}
#endif

#ifdef FLASH__NEON
/* Like flash__isa_sets of x86. i8mm counts only together with dotprod. */
static unsigned flash__isa_sets(void)
{
    int dot = 0, i8 = 0;
#ifndef FLASH__NEON_DOT
#elif defined(__linux__)
    dot = (getauxval(16) >> 20 & 1) != 0; /* AT_HWCAP, HWCAP_ASIMDDP */
    i8 = (getauxval(26) >> 13 & 1) != 0;  /* AT_HWCAP2, HWCAP2_I8MM */
#elif defined(__APPLE__)
    size_t size = sizeof dot;
    if (sysctlbyname("hw.optional.arm.FEAT_DotProd", &dot, &size, NULL, 0)) dot = 0;
    size = sizeof i8;
    if (sysctlbyname("hw.optional.arm.FEAT_I8MM", &i8, &size, NULL, 0)) i8 = 0;
#elif defined(_WIN32)
    dot = IsProcessorFeaturePresent(43) != 0; /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
    i8 = IsProcessorFeaturePresent(66) != 0;  /* PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE */
#else
#ifdef __ARM_FEATURE_DOTPROD
    dot = 1;
#endif
#ifdef __ARM_FEATURE_MATMUL_INT8
    i8 = 1;
#endif
#endif
    return 1u << FLASH_ISA_SCALAR | 1u << FLASH_ISA_NEON | (unsigned)dot << FLASH_ISA_NEON_DOTPROD
        | (unsigned)(dot && i8) << FLASH_ISA_NEON_I8MM;
}
#endif

FLASH_API flash_isa flash_isa_best(void)
{
    unsigned sets = flash__isa_sets();
    int isa = FLASH_ISA_COUNT - 1;
    while (!(sets >> isa & 1)) isa--;
    return (flash_isa)isa;
}

static int flash__isa_usable(flash_isa isa)
{
    return isa > FLASH_ISA_AUTO && isa < FLASH_ISA_COUNT && flash__isa_sets() >> isa & 1;
}

FLASH_API const char *flash_isa_name(flash_isa isa)
{
    static const char *const name[] = {
#define FLASH__X(name, text) text,
        FLASH_ISA_LIST(FLASH__X)
#undef FLASH__X
    };
    return (unsigned)isa < FLASH_ISA_COUNT ? name[isa] : "unknown";
}

FLASH_API flash_isa flash_isa_parse(const char *name)
{
    int i = 0;
    while (i < FLASH_ISA_COUNT && !flash__same_word(name, flash_isa_name((flash_isa)i))) i++;
    return (flash_isa)i;
}

FLASH_API const char *flash_build_info(void)
{
#if defined(FLASH__X86)
#define FLASH__SETS "scalar sse41 avx2 avxvnni avx512 amx"
#elif defined(FLASH__NEON)
#define FLASH__SETS "scalar neon neon-dotprod neon-i8mm"
#elif defined(FLASH__WASM)
#define FLASH__SETS "scalar wasm"
#else
#define FLASH__SETS "scalar"
#endif
#if defined(FLASH__FILE_MMAP) || defined(FLASH__FILE_WIN32)
    return "flash.h 0.1.0, " FLASH__SETS ", mapped files";
#elif defined(FLASH__FILE_STDIO)
    return "flash.h 0.1.0, " FLASH__SETS ", stdio files";
#else
    return "flash.h 0.1.0, " FLASH__SETS ", no files";
#endif
}

/* ===== >>floats =========================================================== */

/* Conversions and functions that give the same bits on every machine, as in >>numbers. The error of
   flash__expf, measured in tests/test_quant.c against libm, is 2 ulp. */

static float flash__f16_f32(uint32_t h)
{
    uint32_t sign = (h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
    if (e == 31) return flash__bits_f32(sign | 0x7f800000 | m << 13);
    if (e) return flash__bits_f32(sign | (e + 112) << 23 | m << 13);
    return flash__bits_f32(sign
                           | flash__f32_bits((float)m * 5.9604644775390625e-8f)); /* m * 2^-24 */
}

/* Rounds to the nearest float16, ties to even. NaN stays NaN. */
static uint16_t flash__f32_f16(float f)
{
    uint32_t u = flash__f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff, r;
    if (a >= 0x7f800000)
        return (uint16_t)(sign | 0x7c00 | (a > 0x7f800000 ? 0x200 | (a >> 13 & 0x3ff) : 0));
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* rounds past 65504 */
    if (a < 0x38800000) { /* below 2^-14, subnormal: a float addition rounds it */
        float x = flash__bits_f32(a) + 0.5f; /* the ulp of 0.5 is 2^-24 */
        return (uint16_t)(sign | (flash__f32_bits(x) - 0x3f000000));
    }
    r = a - 0x38000000;
    r += 0xfff + (r >> 13 & 1);
    return (uint16_t)(sign | r >> 13);
}

static float flash__bf16_f32(uint32_t h) { return flash__bits_f32(h << 16); }

/* Returns the nearest integer, ties to even, for |x| < 2^22. */
static float flash__round(float x)
{
    FLASH__FLOAT y = x + 12582912.0f;
    return y - 12582912.0f;
}

/* Returns e^x by the polynomial of Cephes expf (Moshier). x is clipped to [-87.3, 88]. */
static float flash__expf(float x)
{
    float n, r, p;
    x = x < 88.0f ? x : 88.0f; /* NaN becomes 88, as with the SIMD minimum */
    x = x > -87.3f ? x : -87.3f;
    n = flash__round(x * 1.44269504088896341f);
    r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    return p * flash__bits_f32((uint32_t)((int32_t)n + 127) << 23);
}

/* Sets *c = cos x and *s = sin x, for |x| < 2^20, by Taylor sums after a Cody-Waite reduction with
   pi/2 in three parts. */
static void flash__cos_sin(double x, double *c, double *s)
{
    double n = floor(x * 0.63661977236758134308 + 0.5), r, r2, a = 1, b = 1;
    int i;
    r = x - n * 1.57079632673412561417e+00;
    r = r - n * 6.07710050630396597660e-11;
    r = r - n * 2.02226624879595063154e-21;
    r2 = r * r;
    for (i = 18; i > 0; i -= 2) {
        a = 1 - a * r2 / (i * (i - 1));
        b = 1 - b * r2 / (i * (i + 1));
    }
    b *= r;
    switch ((int)((int64_t)n & 3)) {
        /* clang-format off */
    case 0:  *c =  a; *s =  b; break;
    case 1:  *c = -b; *s =  a; break;
    case 2:  *c = -a; *s = -b; break;
    default: *c =  b; *s = -a;
        /* clang-format on */
    }
}

/* ===== >>quant ============================================================ */

/* Block formats of weights (facts: ggml-common.h and ggml-quants.c of github.com/ggml-org/ggml).
   Each type has one unpacker, which turns group i of 32 weights of a row into int8 q and, for each
   half of the group, a float scale d and minimum m: weight = d*q + m. Dequantising, the dot
   products and the panels of the matrix kernels all use it. KNOWN TRAPS: a byte of a 4-bit block
   holds items i and i+16, not neighbours; a byte of a K block holds items 32 apart (the low bits of
   Q6_K: 64); the high bits of Q5_0 and Q5_1 are one 32-bit mask in the order of the items; the
   6-bit scales of Q3_K are spread over 12 bytes. */

typedef struct flash__type_fact {
    const char *name;
    int id, items, bytes; /* number of the type in GGUF; of a block: weights, size [B] */
} flash__type_fact;

static const flash__type_fact flash__types[] = {
#define FLASH__X(name, id, items, bytes) { #name, id, items, bytes },
    FLASH_TYPE_LIST(FLASH__X)
#undef FLASH__X
};
/* Types that files may hold but no kernel can compute with. Their sizes are known, so that the
   container can be checked. */
static const flash__type_fact flash__other_types[] = {
    {"Q8_1", 9, 32, 36},     {"Q8_K", 15, 256, 292},   {"IQ2_XXS", 16, 256, 66},
    {"IQ2_XS", 17, 256, 74}, {"IQ3_XXS", 18, 256, 98}, {"IQ1_S", 19, 256, 50},
    {"IQ3_S", 21, 256, 110}, {"IQ2_S", 22, 256, 82},   {"I8", 24, 1, 1},
    {"I16", 25, 1, 2},       {"I32", 26, 1, 4},        {"I64", 27, 1, 8},
    {"F64", 28, 1, 8},       {"IQ1_M", 29, 256, 56},   {"TQ1_0", 34, 256, 54},
    {"TQ2_0", 35, 256, 66},  {"NVFP4", 40, 64, 36},    {"Q1_0", 41, 128, 18},
    {"Q2_0", 42, 64, 18},
};

static const flash__type_fact *flash__type_of(uint32_t id)
{
    size_t i;
    for (i = 0; i < FLASH__COUNT(flash__types); i++)
        if ((uint32_t)flash__types[i].id == id) return flash__types + i;
    return NULL;
}

FLASH_API const char *flash_type_name(flash_type t)
{
    const flash__type_fact *f = flash__type_of((uint32_t)t);
    return f ? f->name : "unknown";
}

FLASH_API flash_type flash_type_parse(const char *name)
{
    size_t i;
    for (i = 0; i < FLASH__COUNT(flash__types); i++)
        if (flash__same_word(name, flash__types[i].name)) return (flash_type)flash__types[i].id;
    return FLASH_TYPE_NONE;
}

FLASH_API int flash_type_block(flash_type t)
{
    const flash__type_fact *f = flash__type_of((uint32_t)t);
    return f ? f->items : 0;
}

FLASH_API size_t flash_row_bytes(flash_type t, size_t n)
{
    const flash__type_fact *f = flash__type_of((uint32_t)t);
    size_t bytes;
    if (!f || n % (size_t)f->items || !flash__mul(&bytes, n / (size_t)f->items, (size_t)f->bytes))
        return 0;
    return bytes;
}

/* 32 weights: item i is d[i/16]*q[i] + m[i/16]. */
typedef struct flash__group {
    int8_t q[32];
    float d[2], m[2];
} flash__group;

/* 32 activations: item i is d*q[i]. Its size is one cache line. */
typedef struct flash__q8 {
    float d, ds[3];        /* scale; scale times the sums of q: first half, second half, all */
    int32_t start[3], pad; /* -128 times these sums of q, for kernels with weights q + 128 */
    int8_t q[32];
} flash__q8;
FLASH__STATIC_ASSERT(sizeof(flash__q8) == 64, q8_is_a_cache_line);

static void flash__group_scale(flash__group *g, float d, float m)
{
    g->d[0] = g->d[1] = d;
    g->m[0] = g->m[1] = m;
}
/* Unpacks 16 bytes into 32 items q and subtracts `minus` from each. Low nibbles are items 0-15,
   high nibbles items 16-31. It handles eight bytes at once: 128 is added before the subtraction, so
   that no byte borrows, and removed after it. */
static void flash__nibbles(int8_t *q, const uint8_t *p, int minus)
{
    const uint64_t ones = 0x0101010101010101u, low = 15 * ones, high = 128 * ones;
    uint64_t v, a, b;
    int i;
    for (i = 0; i < 16; i += 8) {
        memcpy(&v, p + i, 8);
        a = ((v & low) + (high - (uint64_t)minus * ones)) ^ high;
        b = ((v >> 4 & low) + (high - (uint64_t)minus * ones)) ^ high;
        memcpy(q + i, &a, 8);
        memcpy(q + i + 16, &b, 8);
    }
}

static void flash__unpack_q4_0(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i * 18;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), 0);
    flash__nibbles(g->q, b + 2, 8);
}

static void flash__unpack_q4_1(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i * 20;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), flash__f16_f32(flash__rd16(b + 2)));
    flash__nibbles(g->q, b + 4, 0);
}

/* Adds bit 4 of 32 items, which is bit i of `high` for item i, and subtracts `minus`. */
static void flash__fifth_bits(int8_t *q, uint32_t high, int minus)
{
    int i;
    for (i = 0; i < 32; i++) q[i] = (int8_t)(q[i] + (int)(high >> i & 1) * 16 - minus);
}

static void flash__unpack_q5_0(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i * 22;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), 0);
    flash__nibbles(g->q, b + 6, 0);
    flash__fifth_bits(g->q, flash__rd32(b + 2), 16);
}

static void flash__unpack_q5_1(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i * 24;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), flash__f16_f32(flash__rd16(b + 2)));
    flash__nibbles(g->q, b + 8, 0);
    flash__fifth_bits(g->q, flash__rd32(b + 4), 0);
}

static void flash__unpack_q8_0(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i * 34;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), 0);
    memcpy(g->q, b + 2, 32);
}

/* A block holds 256 items in two runs of 128. A run has 32 bytes of 2-bit items; its four groups of
   32 differ by the shift. Each 16 items have a 4-bit scale and a 4-bit minimum. */
static void flash__unpack_q2_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i / 8 * 84, *sc = b + i % 8 * 2, *q = b + 16 + i % 8 / 4 * 32;
    float d = flash__f16_f32(flash__rd16(b + 80)), dmin = flash__f16_f32(flash__rd16(b + 82));
    int shift = (int)(i % 4) * 2, j;
    for (j = 0; j < 32; j++) g->q[j] = (int8_t)(q[j] >> shift & 3);
    for (j = 0; j < 2; j++) {
        g->d[j] = d * (float)(sc[j] & 15);
        g->m[j] = -(dmin * (float)(sc[j] >> 4));
    }
}

/* Returns the i-th of the 16 scales: 4 low bits and 2 high bits, stored with 32 added. */
static int flash__q3_k_scale(const uint8_t *s, size_t i)
{
    int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4, high = s[8 + i % 4] >> (i / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

static void flash__unpack_q3_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i / 8 * 110, *q = b + 32 + i % 8 / 4 * 32;
    float d = flash__f16_f32(flash__rd16(b + 108));
    int shift = (int)(i % 4) * 2, j;
    for (j = 0; j < 32; j++) g->q[j] = (int8_t)((q[j] >> shift & 3) - (b[j] >> i % 8 & 1 ? 0 : 4));
    for (j = 0; j < 2; j++) {
        g->d[j] = d * (float)flash__q3_k_scale(b + 96, i % 8 * 2 + (size_t)j);
        g->m[j] = 0;
    }
}

/* Sets the scale and the minimum of group i of a Q4_K or Q5_K block: 8 scales and 8 minima of 6
   bits, in 12 bytes. */
static void flash__k_scales(flash__group *g, const uint8_t *b, size_t i)
{
    float d = flash__f16_f32(flash__rd16(b)), dmin = flash__f16_f32(flash__rd16(b + 2));
    const uint8_t *s = b + 4;
    int sc, mn;
    if (i < 4) {
        sc = s[i] & 63;
        mn = s[i + 4] & 63;
    } else {
        sc = (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
        mn = s[i + 4] >> 4 | s[i] >> 6 << 4;
    }
    flash__group_scale(g, d * (float)sc, -(dmin * (float)mn));
}

static void flash__unpack_q4_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i / 8 * 144, *q = b + 16 + i % 8 / 2 * 32;
    int shift = (int)(i & 1) * 4, j;
    flash__k_scales(g, b, i % 8);
    for (j = 0; j < 32; j++) g->q[j] = (int8_t)(q[j] >> shift & 15);
}

static void flash__unpack_q5_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i / 8 * 176, *q = b + 48 + i % 8 / 2 * 32, *high = b + 16;
    int shift = (int)(i & 1) * 4, j;
    flash__k_scales(g, b, i % 8);
    for (j = 0; j < 32; j++) g->q[j] = (int8_t)((q[j] >> shift & 15) | (high[j] >> i % 8 & 1) << 4);
}

static void flash__unpack_q6_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i / 8 * 210, *low = b + i % 8 / 4 * 64 + (i & 1) * 32,
                  *high = b + 128 + i % 8 / 4 * 32;
    float d = flash__f16_f32(flash__rd16(b + 208));
    int shift = (int)(i % 4 / 2) * 4, high_shift = (int)(i % 4) * 2, j;
    for (j = 0; j < 32; j++)
        g->q[j] = (int8_t)(((low[j] >> shift & 15) | (high[j] >> high_shift & 3) << 4) - 32);
    for (j = 0; j < 2; j++) {
        uint8_t s = b[192 + i % 8 * 2 + (size_t)j];
        g->d[j] = d * (float)(s < 128 ? (int)s : (int)s - 256);
        g->m[j] = 0;
    }
}

static const int8_t flash__iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                             1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t flash__mxfp4_values[16] = /* twice the value of the 4-bit float E2M1 */
    {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Unpacks 16 bytes into 32 indices and replaces each by its value in a codebook [16]. */
static void flash__lookup(flash__group *g, const uint8_t *p, const int8_t *values)
{
    int i;
    flash__nibbles(g->q, p, 0);
    for (i = 0; i < 32; i++) g->q[i] = values[g->q[i]];
}

static void flash__unpack_iq4_nl(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i * 18;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), 0);
    flash__lookup(g, b + 2, flash__iq4_values);
}

static void flash__unpack_iq4_xs(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i / 8 * 136;
    size_t k = i % 8;
    int low = b[4 + k / 2] >> (k & 1) * 4 & 15, high = (int)(flash__rd16(b + 2) >> 2 * k & 3);
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)) * (float)((low | high << 4) - 32), 0);
    flash__lookup(g, b + 8 + k * 16, flash__iq4_values);
}

static void flash__unpack_mxfp4(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i * 17;
    uint32_t e = b[0]; /* 2^(e-127), halved because the values are doubled */
    flash__group_scale(g, flash__bits_f32(e < 2 ? 0x00200000u << e : (e - 1) << 23), 0);
    flash__lookup(g, b + 1, flash__mxfp4_values);
}

/* flash__type_halves: 1 if each 16 items have their own scale. flash__type_minima: 1 if the type
   has minima. */
static int flash__type_halves(flash_type t)
{
    return t == FLASH_TYPE_Q2_K || t == FLASH_TYPE_Q3_K || t == FLASH_TYPE_Q6_K;
}
static int flash__type_minima(flash_type t)
{
    return t == FLASH_TYPE_Q4_1 || t == FLASH_TYPE_Q5_1 || t == FLASH_TYPE_Q2_K
        || t == FLASH_TYPE_Q4_K || t == FLASH_TYPE_Q5_K;
}

/* Unpacks group i, the weights 32*i to 32*i + 31 of a row. */
typedef void (*flash__unpack_fn)(const uint8_t *row, size_t i, flash__group *g);

static flash__unpack_fn flash__unpacker(flash_type t)
{
    switch (t) {
    case FLASH_TYPE_Q4_0: return flash__unpack_q4_0;
    case FLASH_TYPE_Q4_1: return flash__unpack_q4_1;
    case FLASH_TYPE_Q5_0: return flash__unpack_q5_0;
    case FLASH_TYPE_Q5_1: return flash__unpack_q5_1;
    case FLASH_TYPE_Q8_0: return flash__unpack_q8_0;
    case FLASH_TYPE_Q2_K: return flash__unpack_q2_k;
    case FLASH_TYPE_Q3_K: return flash__unpack_q3_k;
    case FLASH_TYPE_Q4_K: return flash__unpack_q4_k;
    case FLASH_TYPE_Q5_K: return flash__unpack_q5_k;
    case FLASH_TYPE_Q6_K: return flash__unpack_q6_k;
    case FLASH_TYPE_IQ4_NL: return flash__unpack_iq4_nl;
    case FLASH_TYPE_IQ4_XS: return flash__unpack_iq4_xs;
    case FLASH_TYPE_MXFP4: return flash__unpack_mxfp4;
    default: return NULL; /* F32, F16, BF16 */
    }
}

/* Returns item i of an F32, F16 or BF16 row. */
static float flash__plain(flash_type t, const uint8_t *row, size_t i)
{
    if (t == FLASH_TYPE_F32) return flash__rdf32(row + 4 * i);
    return t == FLASH_TYPE_F16 ? flash__f16_f32(flash__rd16(row + 2 * i))
                               : flash__bf16_f32(flash__rd16(row + 2 * i));
}

FLASH_API flash_status flash_dequantize(flash_type t, const void *src, float *dst, size_t n)
{
    const uint8_t *row = (const uint8_t *)src;
    flash__unpack_fn unpack = flash__unpacker(t);
    flash__group g;
    size_t i, j;
    if ((!src || !dst) && n) return FLASH_E_ARGUMENT;
    if (n && !flash_row_bytes(t, n)) return FLASH_E_ARGUMENT;
    if (!unpack)
        for (i = 0; i < n; i++) dst[i] = flash__plain(t, row, i);
    else
        for (i = 0; i < n / 32; i++) {
            unpack(row, i, &g);
            for (j = 0; j < 32; j++) {
                float v = g.d[j / 16] * (float)g.q[j];
                dst[32 * i + j] = flash__type_minima(t) ? v + g.m[j / 16] : v;
            }
        }
    return FLASH_E_NONE;
}

/* Sets all of y but q. amax: the largest absolute activation; first, second: sums of the halves of
   q. */
static void flash__q8_sums(flash__q8 *y, float amax, int first, int second)
{
    int i, sum[3];
    sum[0] = first;
    sum[1] = second;
    sum[2] = first + second;
    y->d = amax / 127.0f;
    y->pad = 0;
    for (i = 0; i < 3; i++) {
        y->ds[i] = y->d * (float)sum[i];
        y->start[i] = -128 * sum[i];
    }
}

/* Quantises n activations x to y [n/32], in the same way for every weight type: scale amax/127,
   items rounded to nearest, ties to even. */
static void flash__quantize_scalar(const float *x, size_t n, flash__q8 *y)
{
    size_t b;
    int i;
    for (b = 0; b < n / 32; b++, x += 32, y++) {
        float amax = 0, inverse;
        int sum[2] = {0, 0};
        for (i = 0; i < 32; i++) {
            float a = x[i] < 0 ? -x[i] : x[i];
            amax = a > amax ? a : amax; /* ignores NaN */
        }
        if (!(amax <= 3e38f)) amax = 3e38f; /* infinities: finite scale, items clipped */
        inverse = amax > 1e-30f ? 127.0f / amax : 0.0f;
        for (i = 0; i < 32; i++) {
            float v = x[i] * inverse;
            v = v < 127.0f ? v : 127.0f;
            v = v > -127.0f ? v : -127.0f;
            y->q[i] = (int8_t)flash__round(v);
            sum[i / 16] += y->q[i];
        }
        flash__q8_sums(y, amax, sum[0], sum[1]);
    }
}

/* ===== >>quantize ========================================================= */

/* Quantises floats to block formats. Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 use the scale formulas of
   ggml-quants.c (github.com/ggml-org/ggml) and give the same bytes. The K and IQ4 types search: for
   each group flash__fit tries 19 scales, solves each time for the best scale by least squares, in
   which large weights count more, and keeps the one with the least error. The group scales are then
   rounded to the few bits that the block has for them, and the weights to the nearest levels under
   the scales that the unpacker returns. The root mean square errors are 0.91 to 1.00 (Q2_K: 0.80 to
   0.98) times those of ggml's reference quantisers on normal, squared normal, uniform and offset
   data. */

/* Rounds to the nearest bfloat16, ties to even. NaN stays NaN. */
static uint16_t flash__f32_bf16(float f)
{
    uint32_t u = flash__f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static void flash__wr16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static void flash__wr_scale(uint8_t *p, float d) { flash__wr16(p, flash__f32_f16(d)); }

/* Returns v clipped to [lo, hi]; NaN becomes lo. */
static float flash__clip(float v, float lo, float hi)
{
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
}

/* The levels that the items of a type can have: the whole numbers from lo to hi, or a codebook. */
typedef struct flash__levels {
    float lo, hi, step;   /* step: relative distance of the scales that are tried */
    const int8_t *values; /* [16] codebook from lo to hi, ascending; NULL if there is none */
} flash__levels;

/* Returns the index of the level nearest to v; the lowest level has index 0. */
static int flash__nearest(const flash__levels *l, float v)
{
    int i = 0, half;
    if (!l->values) return (int)(flash__round(flash__clip(v, l->lo, l->hi)) - l->lo);
    for (half = 8; half; half >>= 1) /* branches would be mispredicted */
        i += (v + v >= (float)(l->values[i + half - 1] + l->values[i + half])) * half;
    return i;
}

/* Returns the scale d, and sets the minimum *m <= 0 unless m is NULL, for which d*level + *m comes
   closest to x [n] in the sense of squared errors weighted by w [n]. n <= 32. */
static float flash__fit(const flash__levels *l, const float *x, const float *w, int n, float *m)
{
    float least = 0, most = 0, sw = 0, sx = 0, d = 0, best = FLT_MAX, level[32];
    int i, k;
    for (i = 0; i < n; i++) {
        least = i && least < x[i] ? least : x[i];
        most = i && most > x[i] ? most : x[i];
        sw += w[i];
        sx += w[i] * x[i];
    }
    if (m)
        *m = least = least < 0 ? least : 0;
    else
        most = most < -least ? least : most; /* the largest in size, with its sign */
    if (m ? !(most - least > 1e-15f) : most < 1e-15f && most > -1e-15f) return 0;
    for (k = -9; k <= 9; k++) {
        float from = m ? *m : 0, inverse, sl = 0, sll = 0, slx = 0, det, error = 0;
        float try_d, try_m = 0;
        inverse = m ? l->hi * (1 + (float)k * l->step) / (most - from)
                    : l->lo * (1 + (float)k * l->step) / most;
        for (i = 0; i < n; i++) {
            float v = (x[i] - from) * inverse;
            level[i] = l->values ? (float)l->values[flash__nearest(l, v)]
                                 : flash__round(flash__clip(v, l->lo, l->hi));
            sl += w[i] * level[i];
            sll += w[i] * level[i] * level[i];
            slx += w[i] * level[i] * x[i];
        }
        if (!(sll > 0)) continue;
        det = sw * sll - sl * sl;
        if (m && det > 1e-6f * sw * sll)
            try_m = (sll * sx - sl * slx) / det; /* det is 0 if all have one level */
        if (try_m > 0) try_m = 0;
        try_d = try_m < 0 ? (sw * slx - sx * sl) / det : slx / sll;
        for (i = 0; i < n; i++) {
            float e = try_d * level[i] + try_m - x[i];
            error += w[i] * e * e;
        }
        if (!(error < best)) continue;
        best = error;
        d = try_d;
        if (m) *m = try_m;
    }
    return d;
}

/* Rounds n group scales d to whole numbers q times a common float16 unit, which is written to p. q
   lies in [-edge, edge-1] if is_signed, else in [0, edge]. */
static void flash__fit_scales(uint8_t *p, const float *d, int n, float edge, int is_signed, int *q)
{
    float most = 0, unit;
    int i;
    for (i = 0; i < n; i++)
        if ((d[i] < 0 ? -d[i] : d[i]) > (most < 0 ? -most : most)) most = d[i];
    flash__wr_scale(p, most / (is_signed ? -edge : edge));
    unit = flash__f16_f32(flash__rd16(p));
    for (i = 0; i < n; i++)
        q[i] = unit == 0 ? 0
                         : (int)flash__round(flash__clip(d[i] / unit, is_signed ? -edge : 0,
                                                         is_signed ? edge - 1 : edge));
}

/* ORs the bits q >> down & mask of 32 levels into 32 bytes, shifted left by `up`. */
static void flash__pack(uint8_t *p, const uint8_t *q, int down, int mask, int up)
{
    int i;
    for (i = 0; i < 32; i++) p[i] = (uint8_t)(p[i] | (q[i] >> down & mask) << up);
}
static void flash__pack_nibbles(uint8_t *p, const uint8_t *q)
{
    int i;
    for (i = 0; i < 16; i++) p[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

/* Writes 32 levels q, counted from 0, as group g of block b, whose bits for levels must be 0. The
   unpackers do the reverse. */
static void flash__put_levels(flash_type t, uint8_t *b, int g, const uint8_t *q)
{
    uint32_t high = 0;
    int i;
    for (i = 0; i < 32; i++) high |= (uint32_t)(q[i] >> 4 & 1) << i;
    switch (t) {
    case FLASH_TYPE_Q4_0:
    case FLASH_TYPE_IQ4_NL: flash__pack_nibbles(b + 2, q); break;
    case FLASH_TYPE_Q4_1: flash__pack_nibbles(b + 4, q); break;
    case FLASH_TYPE_Q5_0:
        flash__pack_nibbles(b + 6, q);
        flash__wr32(b + 2, high);
        break;
    case FLASH_TYPE_Q5_1:
        flash__pack_nibbles(b + 8, q);
        flash__wr32(b + 4, high);
        break;
    case FLASH_TYPE_IQ4_XS: flash__pack_nibbles(b + 8 + g * 16, q); break;
    case FLASH_TYPE_Q2_K: flash__pack(b + 16 + g / 4 * 32, q, 0, 3, g % 4 * 2); break;
    case FLASH_TYPE_Q3_K:
        flash__pack(b + 32 + g / 4 * 32, q, 0, 3, g % 4 * 2);
        flash__pack(b, q, 2, 1, g);
        break;
    case FLASH_TYPE_Q4_K: flash__pack(b + 16 + g / 2 * 32, q, 0, 15, g % 2 * 4); break;
    case FLASH_TYPE_Q5_K:
        flash__pack(b + 48 + g / 2 * 32, q, 0, 15, g % 2 * 4);
        flash__pack(b + 16, q, 4, 1, g);
        break;
    default: /* Q6_K */
        flash__pack(b + g / 4 * 64 + g % 2 * 32, q, 0, 15, g % 4 / 2 * 4);
        flash__pack(b + 128 + g / 4 * 32, q, 4, 3, g % 4 * 2);
    }
}

/* Quantises a block of 32 floats to Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0, without a search. top is the
   highest level. */
static void flash__quantize_32(flash_type t, const float *x, uint8_t *b)
{
    int minimum = t == FLASH_TYPE_Q4_1 || t == FLASH_TYPE_Q5_1, i;
    int top = t == FLASH_TYPE_Q4_0 || t == FLASH_TYPE_Q4_1 ? 15 : t == FLASH_TYPE_Q8_0 ? 127 : 31;
    float least = x[0], most = x[0], edge = 0, d, inverse;
    uint8_t q[32];
    for (i = 0; i < 32; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
        if ((x[i] < 0 ? -x[i] : x[i]) > (edge < 0 ? -edge : edge)) edge = x[i];
    }
    if (t == FLASH_TYPE_Q8_0)
        d = (edge < 0 ? -edge : edge) / 127;
    else
        d = minimum ? (most - least) / (float)top : edge / -(float)(top / 2 + 1);
    inverse = d != 0 ? 1 / d : 0;
    flash__wr_scale(b, d);
    if (minimum) flash__wr_scale(b + 2, least);
    for (i = 0; i < 32; i++) {
        float v = (minimum ? x[i] - least : x[i]) * inverse;
        if (t == FLASH_TYPE_Q8_0) {
            v = flash__clip(v, -127, 127);
            b[2 + i] = (uint8_t)(int8_t)((double)v + (v < 0 ? -0.5 : 0.5));
        } else
            q[i] = (uint8_t)flash__clip(v + (minimum ? 0.5f : (float)(top / 2) + 1.5f), 0,
                                        (float)top);
    }
    if (t != FLASH_TYPE_Q8_0) flash__put_levels(t, b, 0, q);
}

/* Quantises a block of one of the types that search: fits a scale for each group, rounds these
   scales, then chooses the levels. */
static void flash__quantize_k(flash_type t, const float *x, uint8_t *b)
{
    int bits = t == FLASH_TYPE_Q2_K ? 2
        : t == FLASH_TYPE_Q3_K      ? 3
        : t == FLASH_TYPE_Q5_K      ? 5
        : t == FLASH_TYPE_Q6_K      ? 6
                                    : 4,
        minima = flash__type_minima(t);
    int n = t == FLASH_TYPE_IQ4_NL ? 32 : 256, per = flash__type_halves(t) ? 16 : 32, i, j;
    int q[16], qm[16];
    float d[16], m[16], w[32];
    flash__levels l;
    flash__group g;
    l.lo = minima ? 0 : -(float)(1 << (bits - 1));
    l.hi = l.lo + (float)((1 << bits) - 1);
    l.step = 0.2f / (float)(1 << (minima ? bits : bits - 1));
    l.values = NULL;
    if (t == FLASH_TYPE_IQ4_NL || t == FLASH_TYPE_IQ4_XS) {
        l.values = flash__iq4_values;
        l.lo = -127;
        l.hi = 113;
        l.step = 0.012f;
    }
    for (i = 0; i < n / per; i++) {
        const float *y = x + i * per;
        float mean = 0;
        for (j = 0; j < per; j++) mean += y[j] * y[j];
        mean = sqrtf(mean / (float)per);
        for (j = 0; j < per; j++) w[j] = mean + (y[j] < 0 ? -y[j] : y[j]);
        d[i] = flash__fit(&l, y, w, per, minima ? m + i : NULL);
        m[i] = minima ? -m[i] : 0;
    }
    switch (t) {
    case FLASH_TYPE_IQ4_NL: flash__wr_scale(b, d[0]); break;
    case FLASH_TYPE_IQ4_XS:
        flash__fit_scales(b, d, 8, 32, 1, q);
        for (i = 0; i < 8; i++) {
            b[4 + i / 2] = (uint8_t)(b[4 + i / 2] | ((q[i] + 32) & 15) << i % 2 * 4);
            b[2 + i / 4] = (uint8_t)(b[2 + i / 4] | (q[i] + 32) >> 4 << i % 4 * 2);
        }
        break;
    case FLASH_TYPE_Q2_K:
        flash__fit_scales(b + 80, d, 16, 15, 0, q);
        flash__fit_scales(b + 82, m, 16, 15, 0, qm);
        for (i = 0; i < 16; i++) b[i] = (uint8_t)(q[i] | qm[i] << 4);
        break;
    case FLASH_TYPE_Q3_K:
        flash__fit_scales(b + 108, d, 16, 32, 1, q);
        for (i = 0; i < 16; i++) {
            b[96 + i % 8] = (uint8_t)(b[96 + i % 8] | ((q[i] + 32) & 15) << i / 8 * 4);
            b[104 + i % 4] = (uint8_t)(b[104 + i % 4] | (q[i] + 32) >> 4 << i / 4 * 2);
        }
        break;
    case FLASH_TYPE_Q6_K:
        flash__fit_scales(b + 208, d, 16, 128, 1, q);
        for (i = 0; i < 16; i++) b[192 + i] = (uint8_t)q[i];
        break;
    default: /* Q4_K, Q5_K */
        flash__fit_scales(b, d, 8, 63, 0, q);
        flash__fit_scales(b + 2, m, 8, 63, 0, qm);
        for (i = 0; i < 4; i++) {
            b[4 + i] = (uint8_t)(q[i] | q[i + 4] >> 4 << 6);
            b[8 + i] = (uint8_t)(qm[i] | qm[i + 4] >> 4 << 6);
            b[12 + i] = (uint8_t)((q[i + 4] & 15) | (qm[i + 4] & 15) << 4);
        }
    }
    for (i = 0; i < n / 32; i++) {
        uint8_t level[32];
        flash__unpacker(t)(b, (size_t)i, &g);
        for (j = 0; j < 32; j++) {
            float unit = g.d[j / 16];
            level[j] = (uint8_t)flash__nearest(
                &l, unit != 0 ? (x[32 * i + j] - g.m[j / 16]) / unit : 0);
        }
        flash__put_levels(t, b, i, level);
    }
}

FLASH_API flash_status flash_quantize(flash_type t, const float *src, void *dst, size_t n)
{
    size_t bytes = flash_row_bytes(t, n), items, i, j;
    uint8_t *p = (uint8_t *)dst;
    if (t == FLASH_TYPE_MXFP4 || !flash_type_block(t) || (n && (!bytes || !src || !dst)))
        return FLASH_E_ARGUMENT;
    if (!n) return FLASH_OK;
    if (t == FLASH_TYPE_F32)
        for (i = 0; i < n; i++) flash__wr32(p + 4 * i, flash__f32_bits(src[i]));
    else if (t == FLASH_TYPE_F16)
        for (i = 0; i < n; i++) flash__wr16(p + 2 * i, flash__f32_f16(src[i]));
    else if (t == FLASH_TYPE_BF16)
        for (i = 0; i < n; i++) flash__wr16(p + 2 * i, flash__f32_bf16(src[i]));
    else {
        items = (size_t)flash_type_block(t);
        memset(p, 0, bytes);
        for (i = 0; i < n; i += items, p += flash_row_bytes(t, items)) {
            float x[256];
            for (j = 0; j < items; j++)
                x[j] = src[i + j] == src[i + j] ? flash__clip(src[i + j], -65504, 65504) : 0;
            if (items == 256 || t == FLASH_TYPE_IQ4_NL)
                flash__quantize_k(t, x, p);
            else
                flash__quantize_32(t, x, p);
        }
    }
    return FLASH_OK;
}

/* ===== >>k-table ========================================================== */

/* The list of kernels. A line of the list makes a slot of the kernel table; tests and benchmarks
   use the same list. The scalar version of each kernel in >>k-scalar explains its parameters. A
   table is a value inside its owner, so there are no globals and two instruction sets can run in
   one process. Quantised matrices are multiplied in two ways. For one token or a few, `rows` reads
   the layout of the file at the speed of the memory. For many tokens, `pack` turns panel_rows rows
   into a panel, which holds int8 weights in the order that the instruction set wants and float
   scales, and `panel` multiplies it with all tokens of a chunk. To pack, a weight type needs
   nothing but its unpacker. */

#define FLASH__KERNELS(X) \
    X(quantize, void, (const float *x, size_t n, flash__q8 *y)) \
    X(rows,     void, (flash_type t, const uint8_t *w, size_t row_bytes, int rows, \
                       const void *x, size_t n, float *y)) \
    X(pack,     void, (flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n, \
                       uint8_t *panel)) \
    X(panel,    void, (flash_type t, const uint8_t *panel, int rows, const flash__q8 *x, \
                       int tokens, \
                       size_t n, float *y, size_t ldy)) \
    X(sgemm,    void, (const float *a, size_t lda, size_t ka, const float *b, size_t ldb, \
                       float *c, size_t ldc, int M, int N, int K)) \
    X(softmax,  float, (float *x, float scale, int from, int to, float *total)) \
    X(blend,    void, (float *y, float keep, const float *x, float add, size_t n)) \
    X(rmsnorm,  void, (const float *x, const float *w, float eps, size_t n, float *y)) \
    X(rope,     void, (float *x, const float *cos_sin, int dims, int style)) \
    X(glu,      void, (int gelu, const float *gate, const float *up, size_t n, float *y)) \
    X(glu_back, void, (float *gate, float *up, const float *dy, size_t n)) \
    X(turn,     void, (const float *x, size_t ldx, int rows, int cols, float *y, size_t ldy)) \
    X(fade,     void, (float *p, float *dp, float f, float d, float scale)) \
    X(adamw,    void, (float *w, float *m, float *v, const float *g, size_t n, \
                       const flash__rates *r)) \
    X(widen,    void, (const uint16_t *h, size_t n, float *y)) \
    X(widen8,   void, (const int8_t *q, const float *d, int each, size_t n, float *y)) \
    X(spin,     double, (int rounds)) \
    X(read,     uint64_t, (const uint8_t *p, size_t n))

enum { FLASH__PANEL_ROWS_MAX = 32 };

/* The factors of one step of AdamW: of the gradients (scale), of the old moments (b1, b2) and what
   is added to them (a1, a2), of the old weights (keep), of what is taken from them (rate), and of
   the second moment before its root (c2). */
typedef struct flash__rates {
    float scale, b1, b2, a1, a2, keep, rate, c2, epsilon;
} flash__rates;

typedef struct flash__kernels {
    flash_isa isa;
    int panel_rows;   /* rows in a panel, at most FLASH__PANEL_ROWS_MAX */
    int panels;       /* most panels, adjacent in memory, that a call of `panel` takes */
    int panel_tokens; /* tokens in a call of `panel`: they stay in the caches for all panels */
#define FLASH__X(op, ret, args) ret (*op) args;
    FLASH__KERNELS(FLASH__X)
#undef FLASH__X
} flash__kernels;

/* Returns the size [B] of one block of a panel, which is 32 items of each of its rows: the int8
   weights, then the scales, then the minima if the type has them, one or two floats a row each. */
static size_t flash__panel_stride(flash_type t, int rows)
{
    int parts = flash__type_halves(t) ? 2 : 1;
    return (size_t)rows * (32 + 4 * (size_t)parts * (flash__type_minima(t) ? 2 : 1));
}

/* ===== >>k-scalar ========================================================= */

/* The reference kernels. They define the results: every other instruction set must give the same
   bits. A quantised dot product goes block after block. It adds the exact integer sum, as a float,
   times (d_w*d_x) and then, if the type has minima, m_w times (d_x*sum x); each product and each
   sum is rounded separately. A block is 32 items, or 16 if the scale of the type changes inside 32.
   Float reductions have 16 lanes: lane i%16 takes item i, and at the end lanes that are 8, 4, 2 and
   1 apart are added. */

/* Adds 16 lanes in the order that all instruction sets use. Overwrites them. */
static float flash__tree16(float *lane)
{
    int s, j;
    for (s = 8; s; s >>= 1)
        for (j = 0; j < s; j++) lane[j] = lane[j] + lane[j + s];
    return lane[0];
}

static float flash__dot_f32_scalar(const float *a, const float *b, size_t n)
{
    float lane[16] = {0};
    size_t i;
    for (i = 0; i < n; i++) lane[i & 15] = lane[i & 15] + a[i] * b[i];
    return flash__tree16(lane);
}

/* Returns the dot product of a row of n weights and x, which is as in flash__rows_scalar. */
static float flash__dot_scalar(flash_type t, const uint8_t *row, const void *x, size_t n)
{
    flash__unpack_fn unpack = flash__unpacker(t);
    const flash__q8 *q = (const flash__q8 *)x;
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), h, j;
    flash__group g;
    float acc = 0;
    size_t i;
    if (!unpack) {
        const float *f = (const float *)x;
        float lane[16] = {0};
        for (i = 0; i < n; i++) lane[i & 15] = lane[i & 15] + flash__plain(t, row, i) * f[i];
        return flash__tree16(lane);
    }
    for (i = 0; i < n / 32; i++) {
        unpack(row, i, &g);
        for (h = 0; h < parts; h++) {
            int sum = 0;
            for (j = 32 / parts * h; j < 32 / parts * (h + 1); j++) sum += g.q[j] * q[i].q[j];
            acc = acc + (float)sum * (g.d[h] * q[i].d);
            if (minima) acc = acc + g.m[h] * q[i].ds[parts == 2 ? h : 2];
        }
    }
    return acc;
}

/* Sets y[r] = row r times x, for one token. x: [n] floats for F32, F16 and BF16, [n/32] flash__q8
   for the other types. */
static void flash__rows_scalar(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                               const void *x, size_t n, float *y)
{
    int r;
    for (r = 0; r < rows; r++) y[r] = flash__dot_scalar(t, w + (size_t)r * row_bytes, x, n);
}

/* Unpacks `rows` rows of n weights into a panel of R rows. Each of its n/32 blocks has bytes
   [8][R][4] (8 groups of 4 items), to which offset is added (-1: signed bytes, unchanged), then
   scales [parts][R] and, if the type has them, minima [parts][R]. Rows beyond `rows` get
   weights of 0. */
static void flash__pack_rows(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                             uint8_t *panel, int R, int offset)
{
    flash__unpack_fn unpack = flash__unpacker(t);
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, k, h;
    size_t stride = flash__panel_stride(t, R), i;
    uint64_t more = (uint64_t)(128 - offset) * 0x0101010101010101u, v;
    for (r = 0; r < R; r++) {
        uint8_t *p = panel + 4 * r;
        for (i = 0; i < n / 32; i++, p += stride) {
            float *scale = (float *)(void *)(p + 32 * R);
            flash__group g;
            if (r < rows)
                unpack(w + (size_t)r * row_bytes, i, &g);
            else
                memset(&g, 0, sizeof g);
            /* eight bytes at once: q + 128 never carries, minus (128 - offset) never borrows */
            for (k = 0; k < 4; k++) {
                memcpy(&v, g.q + 8 * k, 8);
                if (offset >= 0) v = (v ^ 0x8080808080808080u) - more;
                memcpy(p + 8 * R * k, &v, 4);
                memcpy(p + 8 * R * k + 4 * R, (uint8_t *)&v + 4, 4);
            }
            for (h = 0; h < parts; h++) {
                scale[R * h] = g.d[h];
                if (minima) scale[R * (parts + h)] = g.m[h];
            }
        }
    }
}

static void flash__pack_scalar(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                               uint8_t *panel)
{
    flash__pack_rows(t, w, row_bytes, rows, n, panel, 4, -1);
}

/* Sets y[token*ldy + r] = row r of the panel times that token. x: [tokens,n/32]. */
static void flash__panel_scalar(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                                int tokens, size_t n, float *y, size_t ldy)
{
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, k, h, token;
    size_t stride = flash__panel_stride(t, 4), i;
    for (token = 0; token < tokens; token++, x += n / 32, y += ldy)
        for (r = 0; r < rows; r++) {
            float acc = 0;
            for (i = 0; i < n / 32; i++) {
                const int8_t *q = (const int8_t *)(panel + i * stride) + 4 * r;
                const float *scale = (const float *)(const void *)(panel + i * stride + 128) + r;
                for (h = 0; h < parts; h++) {
                    int sum = 0;
                    for (k = 32 / parts * h; k < 32 / parts * (h + 1); k++)
                        sum += q[k / 4 * 16 + k % 4] * x[i].q[k];
                    acc = acc + (float)sum * (scale[4 * h] * x[i].d);
                    if (minima) acc = acc + scale[4 * (parts + h)] * x[i].ds[parts == 2 ? h : 2];
                }
            }
            y[r] = acc;
        }
}

/* Sets c = a b. a: [M,K], with item (i,k) at a[i*lda + k*ka], so that a transposed matrix can be
   read in place; b: [K,N]; c: [M,N]; lda, ldb, ldc: strides of rows. Each item of c is summed in
   the order of k. */
static void flash__sgemm_scalar(const float *a, size_t lda, size_t ka, const float *b, size_t ldb,
                                float *c, size_t ldc, int M, int N, int K)
{
    int i, j, k;
    for (i = 0; i < M; i++, a += lda, c += ldc) {
        for (j = 0; j < N; j++) c[j] = 0;
        for (k = 0; k < K; k++)
            for (j = 0; j < N; j++)
                c[j] = c[j] + a[(size_t)k * ka] * b[(size_t)k * ldb + (size_t)j];
    }
}

/* Replaces the attention scores x [64] of a block by weights: e^(x scale - max) in [from, to), 0
   elsewhere. Returns the maximum of x scale and sets *total to the weights' sum (16 lanes). */
static float flash__softmax_scalar(float *x, float scale, int from, int to, float *total)
{
    float lane[16] = {0}, most = -3.4e38f;
    int i;
    for (i = from; i < to; i++) {
        x[i] = x[i] * scale;
        most = x[i] > most ? x[i] : most;
    }
    for (i = 0; i < 64; i++) {
        x[i] = i >= from && i < to ? flash__expf(x[i] - most) : 0;
        lane[i & 15] = lane[i & 15] + x[i];
    }
    *total = flash__tree16(lane);
    return most;
}

/* Runs a loop that uses registers only, of int8 products where the instruction set has them, to
   measure the limit of a processor. Returns the operations done, 2 for each product. */
static double flash__spin_scalar(int rounds)
{
    uint32_t a = 1, b = 2, c = 3, d = 4;
    int i;
    for (i = 0; i < rounds; i++) {
        a = a * b + 1;
        b = b * c + 1;
        c = c * d + 1;
        d = d * a + 1;
    }
    return (a ^ b ^ c ^ d) == 12345 ? 0 : 8.0 * rounds;
}
/* Sets y[i] = d[i]*q[i] if each item has its own scale, else y[i] = d[0]*q[i]. */
static void flash__widen8_scalar(const int8_t *q, const float *d, int each, size_t n, float *y)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = d[each ? i : 0] * (float)q[i];
}

/* y = y*keep + x*add */
static void flash__blend_scalar(float *y, float keep, const float *x, float add, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = y[i] * keep + x[i] * add;
}

/* Reads n bytes, a multiple of 256, to measure the speed of memory. Returns a sum of them as words,
   which the compiler can only get by reading. */
static uint64_t flash__read_scalar(const uint8_t *p, size_t n)
{
    uint64_t sum = 0, v;
    size_t i;
    for (i = 0; i + 8 <= n; i += 8) {
        memcpy(&v, p + i, 8);
        sum += v;
    }
    return sum;
}

/* Converts n float16 to floats. */
static void flash__widen_scalar(const uint16_t *h, size_t n, float *y)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = flash__f16_f32(h[i]);
}

/* y = x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019, arxiv 1910.07467). y may be x. */
static void flash__rmsnorm_scalar(const float *x, const float *w, float eps, size_t n, float *y)
{
    float r = 1.0f / sqrtf(flash__dot_f32_scalar(x, x, n) / (float)n + eps);
    size_t i;
    for (i = 0; i < n; i++) y[i] = x[i] * r * w[i];
}

/* Applies rotary position embedding to the first dims items of one head, in place (Su et al. 2021,
   arxiv 2104.09864). cos_sin: [dims/2] pairs of cosine and sine. style: a flash_rope_style. */
static void flash__rope_scalar(float *x, const float *cos_sin, int dims, int style)
{
    int i, a, b;
    for (i = 0; i < dims / 2; i++) {
        float c = cos_sin[2 * i], sine = cos_sin[2 * i + 1], minus = -sine, u, v;
        a = style == FLASH_ROPE_PAIRS ? 2 * i : i;
        b = style == FLASH_ROPE_PAIRS ? 2 * i + 1 : i + dims / 2;
        u = x[a];
        v = x[b];
        /* v * minus is added, because gcc 12 makes a fused vfmaddsub of a pair of + and -, even
           with contraction off. */
        x[a] = u * c + v * minus;
        x[b] = u * sine + v * c;
    }
}

/* Sets y = f(gate)*up, a gated linear unit (Shazeer 2020, arxiv 2002.05202). y may be gate. f is
   SiLU, x/(1 + exp(-x)), or, if gelu is not 0, GELU with tanh (Hendrycks and Gimpel 2016, arxiv
   1606.08415), which is x/(1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3). */
#define FLASH__GELU_1 1.5957691216f /* 2 sqrt(2/pi) */
#define FLASH__GELU_3 0.0713548163f /* 2 sqrt(2/pi) 0.044715 */
static void flash__glu_scalar(int gelu, const float *gate, const float *up, size_t n, float *y)
{
    size_t i;
    for (i = 0; i < n; i++) {
        float g = gate[i], u = gelu ? g * (FLASH__GELU_1 + FLASH__GELU_3 * (g * g)) : g;
        y[i] = g / (1.0f + flash__expf(-u)) * up[i];
    }
}

/* Does the backward pass of y = silu(gate)*up: replaces gate and up by their gradients. dy: the
   gradient of y. */
static void flash__glu_back_scalar(float *gate, float *up, const float *dy, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) {
        float g = gate[i], s = 1.0f / (1.0f + flash__expf(-g));
        gate[i] = dy[i] * up[i] * (s * (1.0f + g * (1.0f - s)));
        up[i] = dy[i] * (g * s);
    }
}

/* Transposes x: y[c*ldy + r] = x[r*ldx + c]. */
static void flash__turn_scalar(const float *x, size_t ldx, int rows, int cols, float *y, size_t ldy)
{
    int r, c, c0;
    for (c0 = 0; c0 < cols; c0 += 16) /* a cache line of x at a time */
        for (r = 0; r < rows; r++)
            for (c = c0; c < FLASH__MIN(c0 + 16, cols); c++)
                y[(size_t)c * ldy + (size_t)r] = x[(size_t)r * ldx + (size_t)c];
}

/* Sets p = p f, then dp = p (dp - d) scale, for 64 attention weights: f completes their softmax,
   and the gradients dp of the weights become those of the scores. d: the sum of p dp over the whole
   row. */
static void flash__fade_scalar(float *p, float *dp, float f, float d, float scale)
{
    int i;
    for (i = 0; i < 64; i++) {
        p[i] = p[i] * f;
        dp[i] = p[i] * (dp[i] - d) * scale;
    }
}

/* Does one step of AdamW (Loshchilov and Hutter 2019, arxiv 1711.05101). w: weights; m, v: first
   and second moments; g: gradients; each [n]. */
static void flash__adamw_scalar(float *w, float *m, float *v, const float *g, size_t n,
                                const flash__rates *r)
{
    size_t i;
    for (i = 0; i < n; i++) {
        float x = g[i] * r->scale;
        m[i] = m[i] * r->b1 + x * r->a1;
        v[i] = v[i] * r->b2 + x * x * r->a2;
        w[i] = w[i] * r->keep - m[i] / (sqrtf(v[i] * r->c2) + r->epsilon) * r->rate;
    }
}

/* ===== >>k-sse41 ========================================================== */

/* SSE4.1 with SSSE3: Intel Penryn (2008) and later, every AMD since Bulldozer. The four lanes of a
   register are four rows. The panel kernel works like the one in >>k-avx2 and is explained there.
   Some helpers here serve >>k-avx2 and >>k-avx512, too. */

#ifdef FLASH__SSE41
#define FLASH__T128 FLASH__TARGET("sse4.1")
#define FLASH__I128 FLASH__T128 static FLASH__INLINE

/* The kernel `panel` with one more parameter. carry: 1 if y holds the sums over earlier items and
   this call adds to them. */
typedef void (*flash__panel_fn)(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                                int tokens, size_t n, float *y, size_t ldy, int carry);
typedef void (*flash__pack_fn)(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                               uint8_t *panel);

enum { FLASH__SEGMENT = 256 }; /* items of each row that flash__rows_packed packs at a time */

/* Does what the kernel `rows` does, for types that have no code of their own there: packs R rows
   at a time, segment after segment, into a panel on the stack and multiplies that. */
static void flash__rows_packed(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                               const flash__q8 *x, size_t n, float *y, int R, flash__pack_fn pack,
                               flash__panel_fn panel)
{
    uint8_t room[FLASH__SEGMENT / 32 * 16 * 48 + 64],
        *p = room + ((64 - ((uintptr_t)room & 63)) & 63);
    size_t i, items;
    int r;
    for (r = 0; r < rows; r += R)
        for (i = 0; i < n; i += items) {
            int some = FLASH__MIN(R, rows - r);
            items = FLASH__MIN(n - i, (size_t)FLASH__SEGMENT);
            pack(t, w + (size_t)r * row_bytes + flash_row_bytes(t, i), row_bytes, some, items, p);
            panel(t, p, some, x + i / 32, 1, items, y + r, 0, i > 0);
        }
}

/* Prefetches weights that are needed soon. The caller works through `rows`, `size` [B] in all, in
   shares of n bytes; at: bytes done before this share. The same share of what follows the rows in
   the file is fetched, so that addresses ascend linearly, which suits the memory. It begins at
   least 2 KiB after the end of the rows and 12 KiB after their start, so as not to be too near. */
static FLASH__INLINE void flash__fetch(const uint8_t *rows, size_t size, size_t at, size_t n)
{
    const char *p = (const char *)rows + FLASH__MAX(size + 2048, (size_t)12288) + at;
    size_t i;
    for (i = 0; i < n; i += 64) _mm_prefetch(p + i, _MM_HINT_T0);
}

/* Returns the offset that makes the int8 items of a type unsigned when it is added to them, or -1
   if they stay signed. *groups becomes the number of groups of four items whose products can be
   added in 16 bits without saturation; 0 for signed items. */
static int flash__type_offset(flash_type t, int *groups)
{
    *groups = 8;
    switch (t) {
    case FLASH_TYPE_Q4_0: return 8;
    case FLASH_TYPE_Q3_K: return 4;
    case FLASH_TYPE_Q4_1:
    case FLASH_TYPE_Q4_K:
    case FLASH_TYPE_Q2_K: return 0;
    case FLASH_TYPE_Q5_0: *groups = 4; return 16;
    case FLASH_TYPE_Q5_1:
    case FLASH_TYPE_Q5_K: *groups = 4; return 0;
    case FLASH_TYPE_Q6_K: *groups = 2; return 32;
    default: *groups = 0; return -1;
    }
}

static void flash__pack_sse41(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                              uint8_t *panel)
{
    int groups, offset = flash__type_offset(t, &groups);
    flash__pack_rows(t, w, row_bytes, rows, n, panel, 4, offset);
}

/* Multiplies a panel of 4 rows by NT tokens; the parameters are those of flash__tile_avx2. */
FLASH__I128 void flash__tile_sse41(const uint8_t *panel, size_t stride, int rows,
                                   const flash__q8 *x, size_t blocks, float *y, size_t ldy,
                                   int carry, const int NT, const int parts, const int minima,
                                   const int groups, const int shift)
{
    const int step = groups ? FLASH__MIN(groups, 8 / parts) : 1;
    const __m128i ones = _mm_set1_epi16(1);
    __m128 acc[4];
    float out[4] = {0};
    size_t b;
    int t, h, k, g;
    FLASH__UNROLL for (t = 0; t < NT; t++)
    {
        if (carry) memcpy(out, y + (size_t)t * ldy, (size_t)rows * sizeof *out);
        acc[t] = _mm_loadu_ps(out);
    }
    for (b = 0; b < blocks; b++, panel += stride, x++) {
        const float *scale = (const float *)(const void *)(panel + 128);
        FLASH__UNROLL for (h = 0; h < parts; h++)
        {
            __m128i sum[4], part[4];
            __m128 d = _mm_loadu_ps(scale + 4 * h);
            FLASH__UNROLL for (t = 0; t < NT; t++)
            {
                sum[t] = _mm_set1_epi32(x[(size_t)t * blocks].start[parts == 2 ? h : 2]);
                sum[t] = shift ? _mm_srai_epi32(sum[t], shift) : _mm_setzero_si128();
            }
            FLASH__UNROLL for (k = 0; k < 8 / parts; k += step)
            {
                FLASH__UNROLL for (g = 0; g < step; g++)
                {
                    __m128i v = _mm_loadu_si128(
                        (const __m128i *)(const void *)(panel + 16 * (k + g + h * 4)));
                    __m128i u = groups ? v : _mm_sign_epi8(v, v);
                    FLASH__UNROLL for (t = 0; t < NT; t++)
                    {
                        __m128i q, p;
                        int32_t four;
                        memcpy(&four, x[(size_t)t * blocks].q + 4 * (k + g + h * 4), 4);
                        q = _mm_set1_epi32(four);
                        p = _mm_maddubs_epi16(u, groups ? q : _mm_sign_epi8(q, v));
                        part[t] = g ? _mm_add_epi16(part[t], p) : p;
                        FLASH__OPAQUE(part[t]); /* else GCC adds in a tree and spills */
                    }
                }
                FLASH__UNROLL for (t = 0; t < NT; t++)
                {
                    sum[t] = _mm_add_epi32(sum[t], _mm_madd_epi16(part[t], ones));
                    FLASH__OPAQUE(sum[t]);
                }
            }
            FLASH__UNROLL for (t = 0; t < NT; t++)
            {
                __m128 s = _mm_mul_ps(d, _mm_set1_ps(x[(size_t)t * blocks].d));
                acc[t] = _mm_add_ps(acc[t], _mm_mul_ps(_mm_cvtepi32_ps(sum[t]), s));
            }
            if (minima) {
                __m128 m = _mm_loadu_ps(scale + 4 * (parts + h));
                FLASH__UNROLL for (t = 0; t < NT; t++)
                {
                    float ds = x[(size_t)t * blocks].ds[parts == 2 ? h : 2];
                    acc[t] = _mm_add_ps(acc[t], _mm_mul_ps(m, _mm_set1_ps(ds)));
                }
            }
        }
    }
    FLASH__UNROLL for (t = 0; t < NT; t++)
    {
        _mm_storeu_ps(out, acc[t]);
        memcpy(y + (size_t)t * ldy, out, (size_t)rows * sizeof *out);
    }
}

#define FLASH__PANEL_SSE41(parts, minima, groups, shift) do { \
    for (; tokens >= 4; tokens -= 4, x += 4*blocks, y += 4*ldy) \
        flash__tile_sse41(panel, stride, rows, x, blocks, y, ldy, carry, 4, parts, minima, groups, \
                          shift); \
    for (; tokens >= 1; tokens--, x += blocks, y += ldy) \
        flash__tile_sse41(panel, stride, rows, x, blocks, y, ldy, carry, 1, parts, minima, groups, \
                          shift); \
    } while (0)

FLASH__T128 static void flash__panel_on_sse41(flash_type t, const uint8_t *panel, int rows,
                                              const flash__q8 *x, int tokens, size_t n, float *y,
                                              size_t ldy, int carry)
{
    size_t stride = flash__panel_stride(t, 4), blocks = n / 32;
    switch (t) {
    case FLASH_TYPE_Q4_0: FLASH__PANEL_SSE41(1, 0, 8, 4); break;
    case FLASH_TYPE_Q4_1:
    case FLASH_TYPE_Q4_K: FLASH__PANEL_SSE41(1, 1, 8, 0); break;
    case FLASH_TYPE_Q5_0: FLASH__PANEL_SSE41(1, 0, 4, 3); break;
    case FLASH_TYPE_Q5_1:
    case FLASH_TYPE_Q5_K: FLASH__PANEL_SSE41(1, 1, 4, 0); break;
    case FLASH_TYPE_Q2_K: FLASH__PANEL_SSE41(2, 1, 4, 0); break;
    case FLASH_TYPE_Q3_K: FLASH__PANEL_SSE41(2, 0, 4, 5); break;
    case FLASH_TYPE_Q6_K: FLASH__PANEL_SSE41(2, 0, 2, 2); break;
    default: FLASH__PANEL_SSE41(1, 0, 0, 0);
    }
}

static void flash__panel_sse41(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                               int tokens, size_t n, float *y, size_t ldy)
{
    flash__panel_on_sse41(t, panel, rows, x, tokens, n, y, ldy, 0);
}

/* Returns four partial sums of the products of one block of a row with x. t: Q4_0 or Q8_0. The
   items of Q4_0 are taken as unsigned; the caller corrects the sum for their offset of 8. */
FLASH__I128 __m128i flash__block_sse41(const flash_type t, const uint8_t *p, const flash__q8 *x)
{
    const __m128i low = _mm_set1_epi8(15), ones = _mm_set1_epi16(1);
    __m128i x0 = _mm_loadu_si128((const __m128i *)(const void *)x->q),
            x1 = _mm_loadu_si128((const __m128i *)(const void *)(x->q + 16)),
            v = _mm_loadu_si128((const __m128i *)(const void *)(p + 2)), u;
    if (t == FLASH_TYPE_Q4_0) {
        u = _mm_and_si128(_mm_srli_epi16(v, 4), low);
        v = _mm_maddubs_epi16(_mm_and_si128(v, low), x0);
        return _mm_madd_epi16(_mm_add_epi16(v, _mm_maddubs_epi16(u, x1)), ones);
    }
    u = _mm_loadu_si128((const __m128i *)(const void *)(p + 18));
    v = _mm_madd_epi16(_mm_maddubs_epi16(_mm_abs_epi8(v), _mm_sign_epi8(x0, v)), ones);
    u = _mm_madd_epi16(_mm_maddubs_epi16(_mm_abs_epi8(u), _mm_sign_epi8(x1, u)), ones);
    return _mm_add_epi32(v, u);
}

/* Returns the products of four rows with x. t: Q4_0 or Q8_0; row: bytes of a row. */
FLASH__I128 __m128 flash__rows4_sse41(const flash_type t, const uint8_t *w, size_t row,
                                      const flash__q8 *x, size_t n)
{
    const size_t step = t == FLASH_TYPE_Q4_0 ? 18 : 34;
    __m128 acc = _mm_setzero_ps();
    size_t b;
    int r;
    for (b = 0; b < n / 32; b++, x++) {
        const uint8_t *p = w + step * b;
        __m128i s[4], sum;
        float d[4];
        flash__fetch(w, 4 * row, 4 * step * b, 4 * step);
        FLASH__UNROLL for (r = 0; r < 4; r++)
        {
            s[r] = flash__block_sse41(t, p + (size_t)r * row, x);
            d[r] = flash__f16_f32(flash__rd16(p + (size_t)r * row));
        }
        sum = _mm_hadd_epi32(_mm_hadd_epi32(s[0], s[1]), _mm_hadd_epi32(s[2], s[3]));
        if (t == FLASH_TYPE_Q4_0) sum = _mm_add_epi32(sum, _mm_set1_epi32(x->start[2] >> 4));
        acc = _mm_add_ps(
            acc, _mm_mul_ps(_mm_cvtepi32_ps(sum), _mm_mul_ps(_mm_loadu_ps(d), _mm_set1_ps(x->d))));
    }
    return acc;
}

FLASH__T128 static void flash__rows_sse41(flash_type t, const uint8_t *w, size_t row_bytes,
                                          int rows, const void *x, size_t n, float *y)
{
    const flash__q8 *q = (const flash__q8 *)x;
    int r = 0;
    if (t == FLASH_TYPE_Q4_0 || t == FLASH_TYPE_Q8_0)
        for (; r + 4 <= rows; r += 4) {
            const uint8_t *p = w + (size_t)r * row_bytes;
            _mm_storeu_ps(y + r,
                          t == FLASH_TYPE_Q4_0
                              ? flash__rows4_sse41(FLASH_TYPE_Q4_0, p, row_bytes, q, n)
                              : flash__rows4_sse41(FLASH_TYPE_Q8_0, p, row_bytes, q, n));
        }
    else if (flash__unpacker(t)) {
        flash__rows_packed(t, w, row_bytes, rows, q, n, y, 4, flash__pack_sse41,
                           flash__panel_on_sse41);
        return;
    }
    flash__rows_scalar(t, w + (size_t)r * row_bytes, row_bytes, rows - r, x, n, y + r);
}

/* Computes MT rows by 8 columns of c; the other parameters are those of flash__sgemm_scalar. */
FLASH__I128 void flash__sgemm_tile_sse41(const float *a, size_t lda, size_t ka, const float *b,
                                         size_t ldb, float *c, size_t ldc, int K, const int MT)
{
    __m128 acc[4][2];
    int i, k;
    FLASH__UNROLL for (i = 0; i < MT; i++) acc[i][0] = acc[i][1] = _mm_setzero_ps();
    for (k = 0; k < K; k++, a += ka, b += ldb) {
        __m128 b0 = _mm_loadu_ps(b), b1 = _mm_loadu_ps(b + 4);
        FLASH__UNROLL for (i = 0; i < MT; i++)
        {
            __m128 v = _mm_set1_ps(a[(size_t)i * lda]);
            acc[i][0] = _mm_add_ps(acc[i][0], _mm_mul_ps(v, b0));
            acc[i][1] = _mm_add_ps(acc[i][1], _mm_mul_ps(v, b1));
        }
    }
    FLASH__UNROLL for (i = 0; i < MT; i++)
    {
        _mm_storeu_ps(c + (size_t)i * ldc, acc[i][0]);
        _mm_storeu_ps(c + (size_t)i * ldc + 4, acc[i][1]);
    }
}

FLASH__T128 static void flash__sgemm_sse41(const float *a, size_t lda, size_t ka, const float *b,
                                           size_t ldb, float *c, size_t ldc, int M, int N, int K)
{
    int i, j;
    for (j = 0; j + 8 <= N; j += 8) {
        for (i = 0; i + 4 <= M; i += 4)
            flash__sgemm_tile_sse41(a + (size_t)i * lda, lda, ka, b + j, ldb,
                                    c + (size_t)i * ldc + j, ldc, K, 4);
        for (; i < M; i++)
            flash__sgemm_tile_sse41(a + (size_t)i * lda, lda, ka, b + j, ldb,
                                    c + (size_t)i * ldc + j, ldc, K, 1);
    }
    if (j < N) flash__sgemm_scalar(a, lda, ka, b + j, ldb, c + j, ldc, M, N - j, K);
}

FLASH__T128 static void flash__turn_sse41(const float *x, size_t ldx, int rows, int cols, float *y,
                                          size_t ldy)
{
    int r, c, c0, end, whole = cols & ~3;
    for (c0 = 0; c0 < whole; c0 += 64) { /* few columns: what is written stays in L1 */
        end = FLASH__MIN(c0 + 64, whole);
        for (r = 0; r + 4 <= rows; r += 4)
            for (c = c0; c < end; c += 4) {
                const float *p = x + (size_t)r * ldx + (size_t)c;
                float *q = y + (size_t)c * ldy + (size_t)r;
                __m128 v0 = _mm_loadu_ps(p), v1 = _mm_loadu_ps(p + ldx);
                __m128 v2 = _mm_loadu_ps(p + 2 * ldx), v3 = _mm_loadu_ps(p + 3 * ldx);
                __m128 lo = _mm_unpacklo_ps(v0, v1), hi = _mm_unpackhi_ps(v0, v1);
                v0 = _mm_unpacklo_ps(v2, v3);
                v1 = _mm_unpackhi_ps(v2, v3);
                _mm_storeu_ps(q, _mm_movelh_ps(lo, v0));
                _mm_storeu_ps(q + ldy, _mm_movehl_ps(v0, lo));
                _mm_storeu_ps(q + 2 * ldy, _mm_movelh_ps(hi, v1));
                _mm_storeu_ps(q + 3 * ldy, _mm_movehl_ps(v1, hi));
            }
        flash__turn_scalar(x + (size_t)r * ldx + (size_t)c0, ldx, rows - r, end - c0,
                           y + (size_t)c0 * ldy + (size_t)r, ldy);
    }
    flash__turn_scalar(x + whole, ldx, rows, cols - whole, y + (size_t)whole * ldy, ldy);
}

FLASH__T128 static double flash__spin_sse41(int rounds)
{
    __m128i a[8], x = _mm_set1_epi8((char)(rounds & 15)), w = _mm_set1_epi8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm_set1_epi16((short)i);
    for (r = 0; r < rounds; r++) {
        FLASH__UNROLL for (i = 0; i < 8; i++)
        {
            FLASH__OPAQUE(x); /* else the product would be moved out of the loop */
            a[i] = _mm_add_epi16(a[i], _mm_maddubs_epi16(x, w));
        }
    }
    for (i = 1; i < 8; i++) a[0] = _mm_add_epi16(a[0], a[i]);
    return _mm_cvtsi128_si32(a[0]) == 12345 ? 0 : 8.0 * 32 * rounds;
}

static void flash__overlay_sse41(flash__kernels *k)
{
    k->spin = flash__spin_sse41;
    k->pack = flash__pack_sse41;
    k->panel = flash__panel_sse41;
    k->rows = flash__rows_sse41;
    k->sgemm = flash__sgemm_sse41;
    k->turn = flash__turn_sse41;
}
#undef FLASH__T128
#undef FLASH__I128
#endif

/* ===== >>k-avx2 =========================================================== */

/* AVX2 with F16C: Intel Haswell (2013) and later, AMD Excavator and Zen. The eight lanes of a
   register are eight rows. vpmaddubsw multiplies unsigned by signed bytes and adds two products in
   16 bits, which saturate. Weights are made unsigned by an offset, and the sum of a block starts at
   -offset times the sum of its activations. The 16 bits have room for a whole block of 32 items if
   weights have 4 bits, for 16 items if they have 5, for 8 items if they have 6. Weights of other
   types stay signed: their magnitude is multiplied by the activation with the weight's sign, and
   only four items are added before the sum is widened to 32 bits. */

#ifdef FLASH__AVX2
#define FLASH__T256 FLASH__TARGET("avx2,fma,f16c")
#define FLASH__I256 FLASH__T256 static FLASH__INLINE

/* Multiplies a panel of 8 rows by NT tokens. stride: bytes of a block of the panel; rows: number of
   results written for a token; x: [NT,blocks]; y: [NT,ldy]; carry: see flash__panel_fn; parts:
   scales of a row in a block, 1 or 2; minima: 1 if the type has them; groups: see
   flash__type_offset; shift: the right shift that makes -offset*sum of the -128*sum in x, 0 for
   offset 0; vnni: 1 to use vpdpbusd. */
FLASH__I256 void flash__tile_avx2(const uint8_t *panel, size_t stride, int rows, const flash__q8 *x,
                                  size_t blocks, float *y, size_t ldy, int carry, const int NT,
                                  const int parts, const int minima, const int groups,
                                  const int shift, const int vnni)
{
    const int step = groups ? FLASH__MIN(groups, 8 / parts) : 1;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 acc[4];
    float out[8] = {0};
    size_t b;
    int t, h, k, g;
    FLASH__UNROLL for (t = 0; t < NT; t++)
    {
        if (carry) memcpy(out, y + (size_t)t * ldy, (size_t)rows * sizeof *out);
        acc[t] = _mm256_loadu_ps(out);
    }
    for (b = 0; b < blocks; b++, panel += stride, x++) {
        const float *scale = (const float *)(const void *)(panel + 256);
        FLASH__UNROLL for (h = 0; h < parts; h++)
        {
            __m256i sum[4], part[4];
            __m256 d = _mm256_loadu_ps(scale + 8 * h);
            FLASH__UNROLL for (t = 0; t < NT; t++)
                sum[t] = _mm256_set1_epi32(x[(size_t)t * blocks].start[parts == 2 ? h : 2]);
            FLASH__UNROLL for (t = 0; t < NT; t++) sum[t] = shift ? _mm256_srai_epi32(sum[t], shift)
                                                                  : _mm256_setzero_si256();
            FLASH__UNROLL for (k = 0; k < 8 / parts; k += step)
            {
                FLASH__UNROLL for (g = 0; g < step; g++)
                {
                    __m256i v = _mm256_loadu_si256(
                        (const __m256i *)(const void *)(panel + 32 * (k + g + h * 4)));
                    __m256i u = groups ? v : _mm256_sign_epi8(v, v);
                    FLASH__UNROLL for (t = 0; t < NT; t++)
                    {
                        __m256i q, p;
                        int32_t four;
                        memcpy(&four, x[(size_t)t * blocks].q + 4 * (k + g + h * 4), 4);
                        q = _mm256_set1_epi32(four);
                        if (!groups) q = _mm256_sign_epi8(q, v);
                        if (vnni) {
                            FLASH__DPBUSD(sum[t], u, q);
                            continue;
                        }
                        p = _mm256_maddubs_epi16(u, q);
                        part[t] = g ? _mm256_add_epi16(part[t], p) : p;
                        FLASH__OPAQUE(part[t]); /* else GCC adds in a tree and spills */
                    }
                }
                if (!vnni) FLASH__UNROLL for (t = 0; t < NT; t++)
                    {
                        sum[t] = _mm256_add_epi32(sum[t], _mm256_madd_epi16(part[t], ones));
                        FLASH__OPAQUE(sum[t]);
                    }
            }
            FLASH__UNROLL for (t = 0; t < NT; t++)
            {
                __m256 s = _mm256_mul_ps(d, _mm256_set1_ps(x[(size_t)t * blocks].d));
                acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(_mm256_cvtepi32_ps(sum[t]), s));
            }
            if (minima) {
                __m256 m = _mm256_loadu_ps(scale + 8 * (parts + h));
                FLASH__UNROLL for (t = 0; t < NT; t++)
                {
                    float ds = x[(size_t)t * blocks].ds[parts == 2 ? h : 2];
                    acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(m, _mm256_set1_ps(ds)));
                }
            }
        }
    }
    FLASH__UNROLL for (t = 0; t < NT; t++)
    {
        _mm256_storeu_ps(out, acc[t]);
        memcpy(y + (size_t)t * ldy, out, (size_t)rows * sizeof *out);
    }
}

#define FLASH__PANEL_AVX2(parts, minima, groups, shift) do { \
    for (; tokens >= 4; tokens -= 4, x += 4*blocks, y += 4*ldy) \
        flash__tile_avx2(panel, stride, rows, x, blocks, y, ldy, carry, 4, parts, minima, groups, \
                         shift, vnni); \
    for (; tokens >= 1; tokens--, x += blocks, y += ldy) \
        flash__tile_avx2(panel, stride, rows, x, blocks, y, ldy, carry, 1, parts, minima, groups, \
                         shift, vnni); \
    } while (0)

FLASH__I256 void flash__panels_avx2(flash_type t, const uint8_t *panel, int rows,
                                    const flash__q8 *x, int tokens, size_t n, float *y, size_t ldy,
                                    int carry, const int vnni)
{
    size_t stride = flash__panel_stride(t, 8), blocks = n / 32;
    switch (t) {
    case FLASH_TYPE_Q4_0: FLASH__PANEL_AVX2(1, 0, 8, 4); break;
    case FLASH_TYPE_Q4_1:
    case FLASH_TYPE_Q4_K: FLASH__PANEL_AVX2(1, 1, 8, 0); break;
    case FLASH_TYPE_Q5_0: FLASH__PANEL_AVX2(1, 0, 4, 3); break;
    case FLASH_TYPE_Q5_1:
    case FLASH_TYPE_Q5_K: FLASH__PANEL_AVX2(1, 1, 4, 0); break;
    case FLASH_TYPE_Q2_K: FLASH__PANEL_AVX2(2, 1, 4, 0); break;
    case FLASH_TYPE_Q3_K: FLASH__PANEL_AVX2(2, 0, 4, 5); break;
    case FLASH_TYPE_Q6_K: FLASH__PANEL_AVX2(2, 0, 2, 2); break;
    default: FLASH__PANEL_AVX2(1, 0, 0, 0);
    }
}

FLASH__T256 static void flash__panel_on_avx2(flash_type t, const uint8_t *panel, int rows,
                                             const flash__q8 *x, int tokens, size_t n, float *y,
                                             size_t ldy, int carry)
{
    flash__panels_avx2(t, panel, rows, x, tokens, n, y, ldy, carry, 0);
}

static void flash__panel_avx2(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                              int tokens, size_t n, float *y, size_t ldy)
{
    flash__panel_on_avx2(t, panel, rows, x, tokens, n, y, ldy, 0);
}

/* Like flash__panel_avx2, with the VEX-encoded VNNI of Intel Alder Lake (2021): vpdpbusd adds four
   products of bytes into 32 bits at once, so that weights of any width cannot saturate. */
FLASH__T256 static void flash__panel_avxvnni(flash_type t, const uint8_t *panel, int rows,
                                             const flash__q8 *x, int tokens, size_t n, float *y,
                                             size_t ldy)
{
    flash__panels_avx2(t, panel, rows, x, tokens, n, y, ldy, 0, 1);
}

/* Returns the float16 scales at p of eight rows, as floats. row: bytes from a row to the next. */
FLASH__I256 __m256 flash__scales_avx2(const uint8_t *p, size_t row)
{
    __m128i v = _mm_setzero_si128();
#define FLASH__X(i) v = _mm_insert_epi16(v, (short)flash__rd16(p + (i)*row), i);
    /* clang-format off */
    FLASH__X(0) FLASH__X(1) FLASH__X(2) FLASH__X(3) FLASH__X(4) FLASH__X(5) FLASH__X(6) FLASH__X(7)
#undef FLASH__X
    return _mm256_cvtph_ps(v);
    /* clang-format on */
}
FLASH__I256 __m128i flash__load16_avx2(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}
FLASH__I256 __m256i flash__load_avx2(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
/* Returns the 16 bytes at p of a row and those of the fourth row after it. */
FLASH__I256 __m256i flash__pair_avx2(const uint8_t *p, size_t row)
{
    __m256i v = _mm256_castsi128_si256(flash__load16_avx2(p));
    return _mm256_inserti128_si256(v, flash__load16_avx2(p + 4 * row), 1);
}
/* Returns, in each 128-bit lane, the sums of the four numbers that a, b, c and d have there. */
FLASH__I256 __m256i flash__sum4_avx2(__m256i a, __m256i b, __m256i c, __m256i d)
{
    return _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
}
/* Returns acc + sum*(d*dx), rounded as in the scalar kernels. */
FLASH__I256 __m256 flash__step_avx2(__m256 acc, __m256i sum, __m256 d, float dx)
{
    return _mm256_add_ps(
        acc, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(d, _mm256_set1_ps(dx))));
}
/* Returns the 32 bits at p of each of eight rows. The 32-bit offsets are large enough because rows
   are shorter than 128 MB (FLASH_DIM_MAX). */
FLASH__I256 __m256i flash__words_avx2(const uint8_t *p, size_t row)
{
    return _mm256_i32gather_epi32(
        (const int *)(const void *)p,
        _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32((int)row)),
        1);
}
/* Returns byte k%4 of each 32-bit lane, 0 to 255, as a float. */
FLASH__I256 __m256 flash__byte_avx2(__m256i v, int k)
{
    v = _mm256_srl_epi32(v, _mm_cvtsi32_si128(k % 4 * 8));
    return _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32(255)));
}
/* Adds the partial sums of eight rows, s: [8], one register of eight 32-bit sums a row. *first
   becomes the rows' sums over items 0 to 15, *second those over items 16 to 31. */
FLASH__I256 void flash__halves_avx2(const __m256i *s, __m256i *first, __m256i *second)
{
    __m256i a = flash__sum4_avx2(s[0], s[1], s[2], s[3]),
            b = flash__sum4_avx2(s[4], s[5], s[6], s[7]);
    *first = _mm256_permute2x128_si256(a, b, 0x20);
    *second = _mm256_permute2x128_si256(a, b, 0x31);
}

/* Reads the scales d: [8] and the negated minima m: [8] of the 8 blocks of 32 items in the Q4_K
   block of 256 items at p, each for eight rows. */
FLASH__I256 void flash__scales_q4_k_avx2(const uint8_t *p, size_t row, __m256 *d, __m256 *m)
{
    const __m256i six = _mm256_set1_epi32(0x3f3f3f3f), four = _mm256_set1_epi32(0x0f0f0f0f),
                  high = _mm256_set1_epi32(0x30303030);
    __m256 scale = flash__scales_avx2(p, row), least = flash__scales_avx2(p + 2, row);
    __m256i a = flash__words_avx2(p + 4, row), b = flash__words_avx2(p + 8, row),
            c = flash__words_avx2(p + 12, row), s[2], t[2]; /* blocks 0-3 and 4-7, a byte each */
    int k;
    s[0] = _mm256_and_si256(a, six);
    t[0] = _mm256_and_si256(b, six);
    s[1] = _mm256_or_si256(_mm256_and_si256(c, four),
                           _mm256_and_si256(_mm256_srli_epi32(a, 2), high));
    t[1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(c, 4), four),
                           _mm256_and_si256(_mm256_srli_epi32(b, 2), high));
    FLASH__UNROLL for (k = 0; k < 8; k++)
    {
        d[k] = _mm256_mul_ps(scale, flash__byte_avx2(s[k / 4], k));
        m[k] = _mm256_xor_ps(_mm256_mul_ps(least, flash__byte_avx2(t[k / 4], k)),
                             _mm256_set1_ps(-0.0f));
    }
}
/* Reads the scales d: [16], one for every 16 items, of the Q6_K block of 256 items that begins at
   p, each for eight rows. */
FLASH__I256 void flash__scales_q6_k_avx2(const uint8_t *p, size_t row, __m256 *d)
{
    __m256 scale = flash__scales_avx2(p + 208, row);
    int k;
    FLASH__UNROLL for (k = 0; k < 16; k++)
    {
        __m256i v = _mm256_sll_epi32(flash__words_avx2(p + 192 + k / 4 * 4, row),
                                     _mm_cvtsi32_si128(24 - k % 4 * 8));
        d[k] = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_srai_epi32(v, 24)));
    }
}

/* This function and the next three return the products of eight rows of one type with x. n: items
   of a row; row: its bytes. */
FLASH__T256 static __m256 flash__rows8_q4_0_avx2(const uint8_t *w, size_t row, const flash__q8 *x,
                                                 size_t n)
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 acc = _mm256_setzero_ps();
    size_t b;
    int i;
    for (b = 0; b < n / 32; b++, x++) {
        const uint8_t *p = w + 18 * b;
        __m256i x0 = _mm256_broadcastsi128_si256(flash__load16_avx2(x->q));
        __m256i x1 = _mm256_broadcastsi128_si256(flash__load16_avx2(x->q + 16));
        __m256i s[4], sum;
        flash__fetch(w, 8 * row, 8 * (18 * b), 8 * 18);
        FLASH__UNROLL for (i = 0; i < 4; i++)
        {
            __m256i v = flash__pair_avx2(p + 2 + (size_t)i * row, row);
            s[i] = _mm256_add_epi16(
                _mm256_maddubs_epi16(_mm256_and_si256(v, low), x0),
                _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(v, 4), low), x1));
            s[i] = _mm256_madd_epi16(s[i], ones);
        }
        sum = _mm256_add_epi32(flash__sum4_avx2(s[0], s[1], s[2], s[3]),
                               _mm256_set1_epi32(x->start[2] >> 4));
        acc = flash__step_avx2(acc, sum, flash__scales_avx2(p, row), x->d);
    }
    return acc;
}

FLASH__T256 static __m256 flash__rows8_q8_0_avx2(const uint8_t *w, size_t row, const flash__q8 *x,
                                                 size_t n)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 acc = _mm256_setzero_ps();
    size_t b;
    int i;
    for (b = 0; b < n / 32; b++, x++) {
        const uint8_t *p = w + 34 * b;
        __m256i q = flash__load_avx2(x->q), s[8], first, second;
        flash__fetch(w, 8 * row, 8 * (34 * b), 8 * 34);
        FLASH__UNROLL for (i = 0; i < 8; i++)
        {
            __m256i v = flash__load_avx2(p + 2 + (size_t)i * row);
            s[i] = _mm256_madd_epi16(
                _mm256_maddubs_epi16(_mm256_sign_epi8(v, v), _mm256_sign_epi8(q, v)), ones);
        }
        flash__halves_avx2(s, &first, &second);
        acc = flash__step_avx2(acc, _mm256_add_epi32(first, second), flash__scales_avx2(p, row),
                               x->d);
    }
    return acc;
}

FLASH__T256 static __m256 flash__rows8_q4_k_avx2(const uint8_t *w, size_t row, const flash__q8 *x,
                                                 size_t n)
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 acc = _mm256_setzero_ps();
    size_t b;
    int i, k;
    for (b = 0; b < n / 256; b++, x += 8) {
        const uint8_t *p = w + 144 * b;
        __m256 d[8], m[8];
        flash__scales_q4_k_avx2(p, row, d, m);
        for (k = 0; k < 8; k++) {
            __m256i q = flash__load_avx2(x[k].q), s[8], first, second;
            if (!(k & 1)) flash__fetch(w, 8 * row, 8 * (144 * b + 36 * (size_t)(k / 2)), 8 * 36);
            FLASH__UNROLL for (i = 0; i < 8; i++)
            {
                __m256i v = flash__load_avx2(p + 16 + 32 * (k / 2) + (size_t)i * row);
                v = _mm256_and_si256(k & 1 ? _mm256_srli_epi16(v, 4) : v, low);
                s[i] = _mm256_madd_epi16(_mm256_maddubs_epi16(v, q), ones);
            }
            flash__halves_avx2(s, &first, &second);
            acc = flash__step_avx2(acc, _mm256_add_epi32(first, second), d[k], x[k].d);
            acc = _mm256_add_ps(acc, _mm256_mul_ps(m[k], _mm256_set1_ps(x[k].ds[2])));
        }
    }
    return acc;
}

FLASH__T256 static __m256 flash__rows8_q6_k_avx2(const uint8_t *w, size_t row, const flash__q8 *x,
                                                 size_t n)
{
    const __m256i low = _mm256_set1_epi8(15), two = _mm256_set1_epi8(3),
                  ones = _mm256_set1_epi16(1);
    __m256 acc = _mm256_setzero_ps();
    size_t b;
    int i, k;
    for (b = 0; b < n / 256; b++, x += 8) {
        const uint8_t *p = w + 210 * b;
        __m256 d[16];
        flash__scales_q6_k_avx2(p, row, d);
        for (k = 0; k < 8; k++) {
            const uint8_t *ql = p + k / 4 * 64 + (k & 1) * 32, *qh = p + 128 + k / 4 * 32;
            __m256i q = flash__load_avx2(x[k].q), s[8], first, second;
            flash__fetch(w, 8 * row, 8 * (210 * b + 26 * (size_t)k), 8 * 27);
            FLASH__UNROLL for (i = 0; i < 8; i++)
            {
                __m256i l = flash__load_avx2(ql + (size_t)i * row),
                        h = flash__load_avx2(qh + (size_t)i * row);
                if (k & 2) l = _mm256_srli_epi16(l, 4);
                h = _mm256_and_si256(_mm256_srl_epi16(h, _mm_cvtsi32_si128(k % 4 * 2)), two);
                l = _mm256_or_si256(_mm256_and_si256(l, low), _mm256_slli_epi16(h, 4));
                s[i] = _mm256_madd_epi16(_mm256_maddubs_epi16(l, q), ones);
            }
            flash__halves_avx2(s, &first, &second);
            for (i = 0; i < 2; i++) {
                __m256i sum = _mm256_add_epi32(i ? second : first,
                                               _mm256_set1_epi32(x[k].start[i] >> 2));
                acc = flash__step_avx2(acc, sum, d[2 * k + i], x[k].d);
            }
        }
    }
    return acc;
}

/* Returns items 16h to 16h + 15 of block b (of 32 items) of rows i and i + 4, with the offset of
   the type added, as panels hold them. */
FLASH__I256 __m256i flash__items_avx2(const flash_type t, const uint8_t *w, size_t row, size_t b,
                                      int h, int i)
{
    const __m256i low = _mm256_set1_epi8(15);
    const __m128i four = _mm_cvtsi32_si128(4);
    size_t k = b % 8, half = 16 * (size_t)h;
    __m256i v, high;
    w += (size_t)i * row;
    if (t == FLASH_TYPE_Q8_0) return flash__pair_avx2(w + 34 * b + 2 + half, row);
    if (t == FLASH_TYPE_Q4_0) {
        v = flash__pair_avx2(w + 18 * b + 2, row);
        return _mm256_and_si256(h ? _mm256_srl_epi16(v, four) : v, low);
    }
    if (t == FLASH_TYPE_Q4_K) {
        v = flash__pair_avx2(w + 144 * (b / 8) + 16 + 32 * (k / 2) + half, row);
        return _mm256_and_si256(k & 1 ? _mm256_srl_epi16(v, four) : v, low);
    }
    w += 210 * (b / 8) + half;
    v = flash__pair_avx2(w + k / 4 * 64 + (k & 1) * 32, row);
    high = flash__pair_avx2(w + 128 + k / 4 * 32, row);
    high = _mm256_and_si256(_mm256_srl_epi16(high, _mm_cvtsi32_si128((int)k % 4 * 2)),
                            _mm256_set1_epi8(3));
    v = _mm256_and_si256(k & 2 ? _mm256_srl_epi16(v, four) : v, low);
    return _mm256_or_si256(v, _mm256_slli_epi16(high, 4));
}

/* Packs eight rows of n items into a panel, with the same result as flash__pack_rows. */
FLASH__I256 void flash__pack8_avx2(const flash_type t, const uint8_t *w, size_t row, size_t n,
                                   uint8_t *panel)
{
    size_t b, stride = flash__panel_stride(t, 8);
    __m256 d[16], m[8];
    int h, i;
    for (b = 0; b < n / 32; b++, panel += stride) {
        float *scale = (float *)(void *)(panel + 256);
        size_t k = b % 8;
        FLASH__UNROLL for (h = 0; h < 2; h++)
        {
            __m256i v[4], u[4];
            FLASH__UNROLL for (i = 0; i < 4; i++) v[i] = flash__items_avx2(t, w, row, b, h, i);
            u[0] = _mm256_unpacklo_epi32(v[0], v[1]);
            u[1] = _mm256_unpackhi_epi32(v[0], v[1]);
            u[2] = _mm256_unpacklo_epi32(v[2], v[3]);
            u[3] = _mm256_unpackhi_epi32(v[2], v[3]);
            v[0] = _mm256_unpacklo_epi64(u[0], u[2]);
            v[1] = _mm256_unpackhi_epi64(u[0], u[2]);
            v[2] = _mm256_unpacklo_epi64(u[1], u[3]);
            v[3] = _mm256_unpackhi_epi64(u[1], u[3]);
            FLASH__UNROLL for (i = 0; i < 4; i++)
                _mm256_storeu_si256((__m256i *)(void *)(panel + 128 * h + 32 * i), v[i]);
        }
        if (t == FLASH_TYPE_Q4_0) _mm256_storeu_ps(scale, flash__scales_avx2(w + 18 * b, row));
        if (t == FLASH_TYPE_Q8_0) _mm256_storeu_ps(scale, flash__scales_avx2(w + 34 * b, row));
        if (t == FLASH_TYPE_Q4_K) {
            if (k == 0) flash__scales_q4_k_avx2(w + 144 * (b / 8), row, d, m);
            _mm256_storeu_ps(scale, d[k]);
            _mm256_storeu_ps(scale + 8, m[k]);
        }
        if (t == FLASH_TYPE_Q6_K) {
            if (k == 0) flash__scales_q6_k_avx2(w + 210 * (b / 8), row, d);
            _mm256_storeu_ps(scale, d[2 * k]);
            _mm256_storeu_ps(scale + 8, d[2 * k + 1]);
        }
    }
}

FLASH__T256 static void flash__pack_avx2(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                                         size_t n, uint8_t *panel)
{
    int groups, offset = flash__type_offset(t, &groups);
    switch (rows == 8 ? t : FLASH_TYPE_NONE) {
    case FLASH_TYPE_Q4_0: flash__pack8_avx2(FLASH_TYPE_Q4_0, w, row_bytes, n, panel); break;
    case FLASH_TYPE_Q8_0: flash__pack8_avx2(FLASH_TYPE_Q8_0, w, row_bytes, n, panel); break;
    case FLASH_TYPE_Q4_K: flash__pack8_avx2(FLASH_TYPE_Q4_K, w, row_bytes, n, panel); break;
    case FLASH_TYPE_Q6_K: flash__pack8_avx2(FLASH_TYPE_Q6_K, w, row_bytes, n, panel); break;
    default: flash__pack_rows(t, w, row_bytes, rows, n, panel, 8, offset);
    }
}

/* Returns the sum of sixteen lanes, the first eight in lo, in the order of flash__tree16. */
FLASH__I256 float flash__tree_avx2(__m256 lo, __m256 hi)
{
    __m256 a = _mm256_add_ps(lo, hi);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
/* Returns eight floats of an F32, F16 or BF16 row, from item i on. */
FLASH__I256 __m256 flash__plain_avx2(const flash_type t, const uint8_t *row, size_t i)
{
    __m128i h;
    if (t == FLASH_TYPE_F32) return _mm256_loadu_ps((const float *)(const void *)(row + 4 * i));
    h = _mm_loadu_si128((const __m128i *)(const void *)(row + 2 * i));
    return t == FLASH_TYPE_F16
        ? _mm256_cvtph_ps(h)
        : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

FLASH__I256 void flash__rows_plain_avx2(const flash_type t, const uint8_t *w, size_t row, int rows,
                                        const float *x, size_t n, float *y)
{
    int r;
    for (r = 0; r < rows; r++, w += row) {
        __m256 lo = _mm256_setzero_ps(), hi = lo;
        float lane[16];
        size_t i, whole = n & ~(size_t)15;
        for (i = 0; i < whole; i += 16) {
            lo = _mm256_add_ps(lo,
                               _mm256_mul_ps(flash__plain_avx2(t, w, i), _mm256_loadu_ps(x + i)));
            hi = _mm256_add_ps(
                hi, _mm256_mul_ps(flash__plain_avx2(t, w, i + 8), _mm256_loadu_ps(x + i + 8)));
        }
        if (i == n) {
            y[r] = flash__tree_avx2(lo, hi);
            continue;
        }
        _mm256_storeu_ps(lane, lo);
        _mm256_storeu_ps(lane + 8, hi);
        for (; i < n; i++) lane[i & 15] = lane[i & 15] + flash__plain(t, w, i) * x[i];
        y[r] = flash__tree16(lane);
    }
}

FLASH__T256 static void flash__rows_avx2(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                                         const void *x, size_t n, float *y)
{
    const flash__q8 *q = (const flash__q8 *)x;
    int r;
    switch (t) {
    case FLASH_TYPE_F32:
        flash__rows_plain_avx2(FLASH_TYPE_F32, w, row_bytes, rows, (const float *)x, n, y);
        return;
    case FLASH_TYPE_F16:
        flash__rows_plain_avx2(FLASH_TYPE_F16, w, row_bytes, rows, (const float *)x, n, y);
        return;
    case FLASH_TYPE_BF16:
        flash__rows_plain_avx2(FLASH_TYPE_BF16, w, row_bytes, rows, (const float *)x, n, y);
        return;
    case FLASH_TYPE_Q4_0:
    case FLASH_TYPE_Q8_0:
    case FLASH_TYPE_Q4_K:
    case FLASH_TYPE_Q6_K: break;
    default:
        flash__rows_packed(t, w, row_bytes, rows, q, n, y, 8, flash__pack_avx2,
                           flash__panel_on_avx2);
        return;
    }
    for (r = 0; r + 8 <= rows; r += 8, w += 8 * row_bytes) {
        switch (t) {
        case FLASH_TYPE_Q4_0:
            _mm256_storeu_ps(y + r, flash__rows8_q4_0_avx2(w, row_bytes, q, n));
            break;
        case FLASH_TYPE_Q8_0:
            _mm256_storeu_ps(y + r, flash__rows8_q8_0_avx2(w, row_bytes, q, n));
            break;
        case FLASH_TYPE_Q4_K:
            _mm256_storeu_ps(y + r, flash__rows8_q4_k_avx2(w, row_bytes, q, n));
            break;
        default: _mm256_storeu_ps(y + r, flash__rows8_q6_k_avx2(w, row_bytes, q, n));
        }
    }
    flash__rows_scalar(t, w, row_bytes, rows - r, x, n, y + r);
}

FLASH__I256 float flash__max_avx2(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

FLASH__T256 static void flash__quantize_avx2(const float *x, size_t n, flash__q8 *y)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), most = _mm256_set1_ps(127.0f),
                 least = _mm256_set1_ps(-127.0f);
    size_t b;
    int i;
    for (b = 0; b < n / 32; b++, x += 32, y++) {
        __m256 v[4], m = _mm256_setzero_ps();
        __m256i q[4], s;
        __m128i a[2];
        int sum[2];
        float amax, inverse;
        FLASH__UNROLL for (i = 0; i < 4; i++)
        {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            m = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), m);
        }
        amax = flash__max_avx2(m);
        if (!(amax <= 3e38f)) amax = 3e38f;
        inverse = amax > 1e-30f ? 127.0f / amax : 0.0f;
        FLASH__UNROLL for (i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_max_ps(
            _mm256_min_ps(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)), most), least));
        s = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        s = _mm256_permutevar8x32_epi32(s, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)y->q, s);
        for (i = 0; i < 2; i++) {
            s = _mm256_add_epi32(q[2 * i], q[2 * i + 1]);
            a[i] = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
            a[i] = _mm_hadd_epi32(a[i], a[i]);
            sum[i] = _mm_cvtsi128_si32(_mm_hadd_epi32(a[i], a[i]));
        }
        flash__q8_sums(y, amax, sum[0], sum[1]);
    }
}

/* Returns e^x, by the same steps as flash__expf and so with the same bits. */
FLASH__I256 __m256 flash__exp_avx2(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    __m256 n, r, p;
    x = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(88.0f)), _mm256_set1_ps(-87.3f));
    n = _mm256_sub_ps(_mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)), magic),
                      magic);
    r = _mm256_sub_ps(x, _mm256_mul_ps(n, _mm256_set1_ps(0.693359375f)));
    r = _mm256_sub_ps(r, _mm256_mul_ps(n, _mm256_set1_ps(-2.12194440e-4f)));
    p = _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(1.9875691500e-4f), r),
                      _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_add_ps(_mm256_add_ps(_mm256_mul_ps(p, _mm256_mul_ps(r, r)), r),
                      _mm256_set1_ps(1.0f));
    return _mm256_mul_ps(p,
                         _mm256_castsi256_ps(_mm256_slli_epi32(
                             _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
}

FLASH__T256 static void flash__glu_avx2(int gelu, const float *gate, const float *up, size_t n,
                                        float *y)
{
    const __m256 c1 = _mm256_set1_ps(FLASH__GELU_1), c3 = _mm256_set1_ps(FLASH__GELU_3);
    size_t i;
    for (i = 0; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i), e = g;
        if (gelu) e = _mm256_mul_ps(g, _mm256_add_ps(c1, _mm256_mul_ps(c3, _mm256_mul_ps(g, g))));
        e = flash__exp_avx2(_mm256_xor_ps(e, _mm256_set1_ps(-0.0f)));
        _mm256_storeu_ps(y + i,
                         _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e)),
                                       _mm256_loadu_ps(up + i)));
    }
    flash__glu_scalar(gelu, gate + i, up + i, n - i, y + i);
}

FLASH__T256 static void flash__glu_back_avx2(float *gate, float *up, const float *dy, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    size_t i;
    for (i = 0; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i), u = _mm256_loadu_ps(up + i);
        __m256 d = _mm256_loadu_ps(dy + i);
        __m256 s = flash__exp_avx2(_mm256_xor_ps(g, _mm256_set1_ps(-0.0f)));
        s = _mm256_div_ps(one, _mm256_add_ps(one, s));
        _mm256_storeu_ps(up + i, _mm256_mul_ps(d, _mm256_mul_ps(g, s)));
        s = _mm256_mul_ps(s, _mm256_add_ps(one, _mm256_mul_ps(g, _mm256_sub_ps(one, s))));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_mul_ps(d, u), s));
    }
    flash__glu_back_scalar(gate + i, up + i, dy + i, n - i);
}

FLASH__T256 static void flash__fade_avx2(float *p, float *dp, float f, float d, float scale)
{
    int i;
    for (i = 0; i < 64; i += 8) {
        __m256 w = _mm256_mul_ps(_mm256_loadu_ps(p + i), _mm256_set1_ps(f));
        __m256 x = _mm256_sub_ps(_mm256_loadu_ps(dp + i), _mm256_set1_ps(d));
        _mm256_storeu_ps(p + i, w);
        _mm256_storeu_ps(dp + i, _mm256_mul_ps(_mm256_mul_ps(w, x), _mm256_set1_ps(scale)));
    }
}

FLASH__T256 static void flash__adamw_avx2(float *w, float *m, float *v, const float *g, size_t n,
                                          const flash__rates *r)
{
    size_t i;
    for (i = 0; i + 8 <= n; i += 8) {
        __m256 x = _mm256_mul_ps(_mm256_loadu_ps(g + i), _mm256_set1_ps(r->scale)), a, b, c;
        a = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(m + i), _mm256_set1_ps(r->b1)),
                          _mm256_mul_ps(x, _mm256_set1_ps(r->a1)));
        b = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(v + i), _mm256_set1_ps(r->b2)),
                          _mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(r->a2)));
        c = _mm256_add_ps(_mm256_sqrt_ps(_mm256_mul_ps(b, _mm256_set1_ps(r->c2))),
                          _mm256_set1_ps(r->epsilon));
        c = _mm256_mul_ps(_mm256_div_ps(a, c), _mm256_set1_ps(r->rate));
        _mm256_storeu_ps(m + i, a);
        _mm256_storeu_ps(v + i, b);
        x = _mm256_mul_ps(_mm256_loadu_ps(w + i), _mm256_set1_ps(r->keep));
        _mm256_storeu_ps(w + i, _mm256_sub_ps(x, c));
    }
    flash__adamw_scalar(w + i, m + i, v + i, g + i, n - i, r);
}

FLASH__T256 static float flash__softmax_avx2(float *x, float scale, int from, int to, float *total)
{
    const __m256i item = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 low = _mm256_set1_ps(-3.4e38f);
    __m256 lanes[2], most = low, in[8], v[8];
    float best;
    int i;
    lanes[0] = lanes[1] = _mm256_setzero_ps();
    for (i = 0; i < 8; i++) {
        __m256i at = _mm256_add_epi32(item, _mm256_set1_epi32(8 * i));
        in[i] = _mm256_castsi256_ps(
            _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(from), at),
                                _mm256_cmpgt_epi32(_mm256_set1_epi32(to), at)));
        v[i] = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(scale));
        most = _mm256_max_ps(_mm256_blendv_ps(low, v[i], in[i]), most);
    }
    best = flash__max_avx2(most);
    for (i = 0; i < 8; i++) {
        v[i] = _mm256_and_ps(in[i], flash__exp_avx2(_mm256_sub_ps(v[i], _mm256_set1_ps(best))));
        _mm256_storeu_ps(x + 8 * i, v[i]);
        lanes[i & 1] = _mm256_add_ps(lanes[i & 1], v[i]);
    }
    *total = flash__tree_avx2(lanes[0], lanes[1]);
    return best;
}

FLASH__T256 static void flash__rmsnorm_avx2(const float *x, const float *w, float eps, size_t n,
                                            float *y)
{
    float sum, r;
    size_t i;
    flash__rows_plain_avx2(FLASH_TYPE_F32, (const uint8_t *)(const void *)x, 0, 1, x, n, &sum);
    r = 1.0f / sqrtf(sum / (float)n + eps);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i,
                         _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(r)),
                                       _mm256_loadu_ps(w + i)));
    for (; i < n; i++) y[i] = x[i] * r * w[i];
}

/* Computes MT rows by 8*NV columns of c; the other parameters are those of flash__sgemm_scalar. */
FLASH__I256 void flash__sgemm_tile_avx2(const float *a, size_t lda, size_t ka, const float *b,
                                        size_t ldb, float *c, size_t ldc, int K, const int MT,
                                        const int NV)
{
    __m256 acc[4][2], v[2];
    int i, j, k;
    FLASH__UNROLL for (i = 0; i < MT; i++) FLASH__UNROLL for (j = 0; j < NV; j++)
        acc[i][j] = _mm256_setzero_ps();
    for (k = 0; k < K; k++, a += ka, b += ldb) {
        FLASH__UNROLL for (j = 0; j < NV; j++) v[j] = _mm256_loadu_ps(b + 8 * j);
        FLASH__UNROLL for (i = 0; i < MT; i++)
        {
            __m256 x = _mm256_set1_ps(a[(size_t)i * lda]);
            FLASH__UNROLL for (j = 0; j < NV; j++)
                acc[i][j] = _mm256_add_ps(acc[i][j], _mm256_mul_ps(x, v[j]));
        }
    }
    FLASH__UNROLL for (i = 0; i < MT; i++) FLASH__UNROLL for (j = 0; j < NV; j++)
        _mm256_storeu_ps(c + (size_t)i * ldc + 8 * j, acc[i][j]);
}

FLASH__T256 static void flash__sgemm_avx2(const float *a, size_t lda, size_t ka, const float *b,
                                          size_t ldb, float *c, size_t ldc, int M, int N, int K)
{
    int i, j;
    for (j = 0; j + 16 <= N; j += 16) {
        for (i = 0; i + 4 <= M; i += 4)
            flash__sgemm_tile_avx2(a + (size_t)i * lda, lda, ka, b + j, ldb,
                                   c + (size_t)i * ldc + j, ldc, K, 4, 2);
        for (; i < M; i++)
            flash__sgemm_tile_avx2(a + (size_t)i * lda, lda, ka, b + j, ldb,
                                   c + (size_t)i * ldc + j, ldc, K, 1, 2);
    }
    if (j + 8 <= N) { /* else heads of 8 would be left to the scalar loop */
        for (i = 0; i + 4 <= M; i += 4)
            flash__sgemm_tile_avx2(a + (size_t)i * lda, lda, ka, b + j, ldb,
                                   c + (size_t)i * ldc + j, ldc, K, 4, 1);
        for (; i < M; i++)
            flash__sgemm_tile_avx2(a + (size_t)i * lda, lda, ka, b + j, ldb,
                                   c + (size_t)i * ldc + j, ldc, K, 1, 1);
        j += 8;
    }
    if (j < N) flash__sgemm_scalar(a, lda, ka, b + j, ldb, c + j, ldc, M, N - j, K);
}

FLASH__T256 static void flash__widen8_avx2(const int8_t *q, const float *d, int each, size_t n,
                                           float *y)
{
    size_t i;
    for (i = 0; i + 8 <= n; i += 8) {
        __m256i v = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(q + i)));
        __m256 scale = each ? _mm256_loadu_ps(d + i) : _mm256_set1_ps(d[0]);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(v)));
    }
    flash__widen8_scalar(q + i, each ? d + i : d, each, n - i, y + i);
}

FLASH__T256 static void flash__blend_avx2(float *y, float keep, const float *x, float add, size_t n)
{
    size_t i;
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i,
                         _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(y + i), _mm256_set1_ps(keep)),
                                       _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(add))));
    flash__blend_scalar(y + i, keep, x + i, add, n - i);
}

FLASH__T256 static double flash__spin_avx2(int rounds)
{
    __m256i a[8], x = _mm256_set1_epi8((char)(rounds & 15)), w = _mm256_set1_epi8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm256_set1_epi16((short)i);
    for (r = 0; r < rounds; r++) {
        FLASH__UNROLL for (i = 0; i < 8; i++)
        {
            FLASH__OPAQUE(x); /* else the product would be moved out of the loop */
            a[i] = _mm256_add_epi16(a[i], _mm256_maddubs_epi16(x, w));
        }
    }
    for (i = 1; i < 8; i++) a[0] = _mm256_add_epi16(a[0], a[i]);
    return _mm256_extract_epi32(a[0], 0) == 12345 ? 0 : 8.0 * 64 * rounds;
}

FLASH__T256 static double flash__spin_avxvnni(int rounds)
{
    __m256i a[8], x = _mm256_set1_epi8((char)(rounds & 15)), w = _mm256_set1_epi8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm256_set1_epi32(i);
    for (r = 0; r < rounds; r++) FLASH__UNROLL for (i = 0; i < 8; i++) FLASH__DPBUSD(a[i], x, w);
    for (i = 1; i < 8; i++) a[0] = _mm256_add_epi32(a[0], a[i]);
    return _mm_cvtsi128_si32(_mm256_castsi256_si128(a[0])) == 12345 ? 0 : 8.0 * 64 * rounds;
}

FLASH__T256 static uint64_t flash__read_avx2(const uint8_t *p, size_t n)
{
    __m256i a = _mm256_setzero_si256(), b = a;
    uint64_t out[4];
    size_t i;
    for (i = 0; i + 128 <= n; i += 128) {
        _mm_prefetch((const char *)p + i + 4096, _MM_HINT_T0);
        _mm_prefetch((const char *)p + i + 4160, _MM_HINT_T0);
        a = _mm256_add_epi64(
            a, _mm256_add_epi64(flash__load_avx2(p + i), flash__load_avx2(p + i + 32)));
        b = _mm256_add_epi64(
            b, _mm256_add_epi64(flash__load_avx2(p + i + 64), flash__load_avx2(p + i + 96)));
    }
    _mm256_storeu_si256((__m256i *)(void *)out, _mm256_add_epi64(a, b));
    return out[0] + out[1] + out[2] + out[3];
}

FLASH__T256 static void flash__widen_avx2(const uint16_t *h, size_t n, float *y)
{
    size_t i;
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i,
                         _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(h + i))));
    flash__widen_scalar(h + i, n - i, y + i);
}

static void flash__overlay_avx2(flash__kernels *k)
{
    k->panel_rows = 8;
    k->pack = flash__pack_avx2;
    k->panel = flash__panel_avx2;
    k->rows = flash__rows_avx2;
    k->quantize = flash__quantize_avx2;
    k->glu_back = flash__glu_back_avx2;
    k->fade = flash__fade_avx2;
    k->adamw = flash__adamw_avx2;
    k->glu = flash__glu_avx2;
    k->softmax = flash__softmax_avx2;
    k->rmsnorm = flash__rmsnorm_avx2;
    k->sgemm = flash__sgemm_avx2;
    k->spin = flash__spin_avx2;
    k->read = flash__read_avx2;
    k->widen = flash__widen_avx2;
    k->blend = flash__blend_avx2;
    k->widen8 = flash__widen8_avx2;
    if (k->isa == FLASH_ISA_AVXVNNI) {
        k->panel = flash__panel_avxvnni;
        k->spin = flash__spin_avxvnni;
    }
}
#undef FLASH__T256
#undef FLASH__I256
#endif

/* ===== >>k-avx512 ========================================================= */

/* AVX-512 with VNNI: Intel Ice Lake servers (2021), Rocket Lake, Sapphire Rapids; AMD Zen 4 (2022)
   and later. In `panel` the sixteen lanes of a register are sixteen rows, so the float steps keep
   the order of the scalar kernels at no cost. vpdpbusd multiplies unsigned by signed bytes: panels
   hold weights + 128, and sums start at -128 times the sum of the activations. In `rows` the lanes
   are sixteen rows, or a few blocks of a few rows. Partial sums are integers there, so they can be
   added across lanes in a tree: their order does not change the result. */

#ifdef FLASH__AVX512
#if defined(__GNUC__) && !defined(__clang__) /* GCC 12 warns inside its own avx512fintrin.h */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#endif
#define FLASH__T512 FLASH__TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#define FLASH__I512 FLASH__T512 static FLASH__INLINE

/* Multiplies NV panels of 16 rows, `next` bytes apart, by NT tokens. The other parameters are those
   of flash__tile_avx2. Two panels at once share the loads of activations, which are the bottleneck
   otherwise. */
FLASH__I512 void flash__tile_avx512(const uint8_t *panel, size_t stride, size_t next, int rows,
                                    const flash__q8 *x, size_t blocks, float *y, size_t ldy,
                                    int carry, const int NV, const int NT, const int parts,
                                    const int minima)
{
    __m512 acc[2][8];
    __mmask16 keep[2];
    size_t b;
    int t, h, k, i;
    keep[0] = (__mmask16)(rows < 16 ? (1u << rows) - 1 : 0xffff);
    keep[1] = (__mmask16)((1u << FLASH__MAX(rows - 16, 0)) - 1);
    FLASH__UNROLL for (i = 0; i < NV; i++) FLASH__UNROLL for (t = 0; t < NT; t++) acc[i][t] = carry
        ? _mm512_maskz_loadu_ps(keep[i], y + (size_t)t * ldy + 16 * i)
        : _mm512_setzero_ps();
    for (b = 0; b < blocks; b++, panel += stride, x++) {
        FLASH__UNROLL for (h = 0; h < parts; h++)
        {
            __m512i sum[2][8];
            FLASH__UNROLL for (t = 0; t < NT; t++) FLASH__UNROLL for (i = 0; i < NV; i++)
                sum[i][t] = _mm512_set1_epi32(x[(size_t)t * blocks].start[parts == 2 ? h : 2]);
            FLASH__UNROLL for (k = 0; k < 8 / parts; k++)
            {
                __m512i v[2];
                FLASH__UNROLL for (i = 0; i < NV; i++)
                    v[i] = _mm512_loadu_si512(panel + (size_t)i * next + 64 * (k + h * 4));
                FLASH__UNROLL for (t = 0; t < NT; t++)
                {
                    __m512i u;
                    int32_t q;
                    memcpy(&q, x[(size_t)t * blocks].q + 4 * (k + h * 4), 4);
                    u = _mm512_set1_epi32(q);
                    FLASH__UNROLL for (i = 0; i < NV; i++)
                        sum[i][t] = _mm512_dpbusd_epi32(sum[i][t], v[i], u);
                }
            }
            FLASH__UNROLL for (i = 0; i < NV; i++)
            {
                const float *scale = (const float *)(const void *)(panel + (size_t)i * next + 512);
                __m512 d = _mm512_loadu_ps(scale + 16 * h), m;
                FLASH__UNROLL for (t = 0; t < NT; t++)
                {
                    __m512 s = _mm512_mul_ps(d, _mm512_set1_ps(x[(size_t)t * blocks].d));
                    acc[i][t] = _mm512_add_ps(acc[i][t],
                                              _mm512_mul_ps(_mm512_cvtepi32_ps(sum[i][t]), s));
                }
                if (!minima) continue;
                m = _mm512_loadu_ps(scale + 16 * (parts + h));
                FLASH__UNROLL for (t = 0; t < NT; t++) acc[i][t] = _mm512_add_ps(
                    acc[i][t],
                    _mm512_mul_ps(m, _mm512_set1_ps(x[(size_t)t * blocks].ds[parts == 2 ? h : 2])));
            }
        }
    }
    FLASH__UNROLL for (i = 0; i < NV; i++) FLASH__UNROLL for (t = 0; t < NT; t++)
        _mm512_mask_storeu_ps(y + (size_t)t * ldy + 16 * i, keep[i], acc[i][t]);
}

#define FLASH__PANEL_AVX512(NV, NT, parts, minima) \
    for (; tokens >= NT; tokens -= NT, x += NT*blocks, y += NT*ldy) \
        flash__tile_avx512(panel, stride, stride*blocks, rows, x, blocks, y, ldy, carry, NV, NT, \
                           parts, minima);
#define FLASH__PANELS_AVX512(parts, minima) do { \
    if (rows > 16) { \
        FLASH__PANEL_AVX512(2, 6, parts, minima) FLASH__PANEL_AVX512(2, 4, parts, minima) \
        FLASH__PANEL_AVX512(2, 1, parts, minima) \
    } else { \
        FLASH__PANEL_AVX512(1, 8, parts, minima) FLASH__PANEL_AVX512(1, 4, parts, minima) \
        FLASH__PANEL_AVX512(1, 1, parts, minima) \
    } } while (0)

FLASH__T512 static void flash__panel_on_avx512(flash_type t, const uint8_t *panel, int rows,
                                               const flash__q8 *x, int tokens, size_t n, float *y,
                                               size_t ldy, int carry)
{
    size_t stride = flash__panel_stride(t, 16), blocks = n / 32;
    if (!flash__type_minima(t))
        if (flash__type_halves(t))
            FLASH__PANELS_AVX512(2, 0);
        else
            FLASH__PANELS_AVX512(1, 0);
    else if (flash__type_halves(t))
        FLASH__PANELS_AVX512(2, 1);
    else
        FLASH__PANELS_AVX512(1, 1);
}

static void flash__panel_avx512(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                                int tokens, size_t n, float *y, size_t ldy)
{
    flash__panel_on_avx512(t, panel, rows, x, tokens, n, y, ldy, 0);
}

/* Returns the float16 scales at p of sixteen rows, as floats. */
FLASH__I512 __m512 flash__scales_avx512(const uint8_t *p, size_t row)
{
    __m128i lo = _mm_setzero_si128(), hi = lo;
#define FLASH__X(i) \
    lo = _mm_insert_epi16(lo, (short)flash__rd16(p + (i)*row), i); \
    hi = _mm_insert_epi16(hi, (short)flash__rd16(p + ((i) + 8)*row), i);
    /* clang-format off */
    FLASH__X(0) FLASH__X(1) FLASH__X(2) FLASH__X(3) FLASH__X(4) FLASH__X(5) FLASH__X(6) FLASH__X(7)
#undef FLASH__X
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(lo), hi, 1));
    /* clang-format on */
}

/* Returns the 16 bytes at p of a row and those of the 4th, 8th and 12th row after it. */
FLASH__I512 __m512i flash__quads_avx512(const uint8_t *p, size_t row)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 4 * row)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 8 * row)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 12 * row)), 3);
}
/* Returns the 32 bytes at p of a row and those of the fourth row after it. */
FLASH__I512 __m512i flash__pairs_avx512(const uint8_t *p, size_t row)
{
    __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)(const void *)(p + 4 * row)),
                              1);
}

/* Returns, in each 128-bit lane, the sums of the four numbers that a, b, c and d have there. */
FLASH__I512 __m512i flash__sum4_avx512(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}
/* Multiplies 32 items of 16 rows by those of x (from flash__x32_avx512). w: [8] registers from
   flash__pairs_avx512, for rows 0 to 3 and 8 to 11, each with the fourth row after it. *first
   becomes the rows' sums over items 0 to 15, *second those over 16 to 31, in the order of rows. */
FLASH__I512 void flash__dot16_avx512(const __m512i *w, __m512i x, __m512i *first, __m512i *second)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i a = flash__sum4_avx512(
        _mm512_dpbusd_epi32(zero, w[0], x), _mm512_dpbusd_epi32(zero, w[1], x),
        _mm512_dpbusd_epi32(zero, w[2], x), _mm512_dpbusd_epi32(zero, w[3], x));
    __m512i b = flash__sum4_avx512(
        _mm512_dpbusd_epi32(zero, w[4], x), _mm512_dpbusd_epi32(zero, w[5], x),
        _mm512_dpbusd_epi32(zero, w[6], x), _mm512_dpbusd_epi32(zero, w[7], x));
    *first = _mm512_shuffle_i32x4(a, b, 0x88);
    *second = _mm512_shuffle_i32x4(a, b, 0xdd);
}

/* Returns acc + sum*(d*dx), rounded as in the scalar kernels. */
FLASH__I512 __m512 flash__step_avx512(__m512 acc, __m512i sum, __m512 d, float dx)
{
    return _mm512_add_ps(
        acc, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(d, _mm512_set1_ps(dx))));
}
/* Returns the 32 items of x, twice. */
FLASH__I512 __m512i flash__x32_avx512(const flash__q8 *x)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)x->q));
}
/* Returns the 32 bits at p of each of sixteen rows. The 32-bit offsets are large enough because
   rows are shorter than 128 MB (FLASH_DIM_MAX). */
FLASH__I512 __m512i flash__words_avx512(const uint8_t *p, size_t row)
{
    return _mm512_i32gather_epi32(
        _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                           _mm512_set1_epi32((int)row)),
        (const void *)p, 1);
}
/* Returns byte k%4 of each 32-bit lane, 0 to 255, as a float. */
FLASH__I512 __m512 flash__byte_avx512(__m512i v, int k)
{
    v = _mm512_srl_epi32(v, _mm_cvtsi32_si128(k % 4 * 8));
    return _mm512_cvtepi32_ps(_mm512_and_si512(v, _mm512_set1_epi32(255)));
}

/* Reads the scales d: [8] and the negated minima m: [8] of the 8 blocks of 32 items in the Q4_K
   block of 256 items at p, each for sixteen rows. */
FLASH__I512 void flash__scales_q4_k_avx512(const uint8_t *p, size_t row, __m512 *d, __m512 *m)
{
    const __m512i six = _mm512_set1_epi32(0x3f3f3f3f), four = _mm512_set1_epi32(0x0f0f0f0f),
                  high = _mm512_set1_epi32(0x30303030);
    __m512 scale = flash__scales_avx512(p, row), least = flash__scales_avx512(p + 2, row);
    __m512i a = flash__words_avx512(p + 4, row), b = flash__words_avx512(p + 8, row),
            c = flash__words_avx512(p + 12, row), s[2], t[2]; /* blocks 0-3 and 4-7, a byte each */
    int k;
    s[0] = _mm512_and_si512(a, six);
    t[0] = _mm512_and_si512(b, six);
    s[1] = _mm512_or_si512(_mm512_and_si512(c, four),
                           _mm512_and_si512(_mm512_srli_epi32(a, 2), high));
    t[1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 4), four),
                           _mm512_and_si512(_mm512_srli_epi32(b, 2), high));
    FLASH__UNROLL for (k = 0; k < 8; k++)
    {
        d[k] = _mm512_mul_ps(scale, flash__byte_avx512(s[k / 4], k));
        m[k] = _mm512_xor_ps(_mm512_mul_ps(least, flash__byte_avx512(t[k / 4], k)),
                             _mm512_set1_ps(-0.0f));
    }
}
/* Reads the scales d: [16], one for every 16 items, of the Q6_K block of 256 items that begins at
   p, each for sixteen rows. */
FLASH__I512 void flash__scales_q6_k_avx512(const uint8_t *p, size_t row, __m512 *d)
{
    __m512 scale = flash__scales_avx512(p + 208, row);
    int k;
    FLASH__UNROLL for (k = 0; k < 16; k++)
    {
        __m512i v = _mm512_sll_epi32(flash__words_avx512(p + 192 + k / 4 * 4, row),
                                     _mm_cvtsi32_si128(24 - k % 4 * 8));
        d[k] = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_srai_epi32(v, 24)));
    }
}

/* Returns 16 bytes of each of four blocks of a row. at: those of the first block; step: bytes from
   a block to the next. */
FLASH__I512 __m512i flash__blocks4_avx512(const void *at, size_t step)
{
    const uint8_t *p = (const uint8_t *)at;
    __m512i v = _mm512_castsi128_si512(flash__load16_avx2(p));
    v = _mm512_inserti32x4(v, flash__load16_avx2(p + step), 1);
    v = _mm512_inserti32x4(v, flash__load16_avx2(p + 2 * step), 2);
    return _mm512_inserti32x4(v, flash__load16_avx2(p + 3 * step), 3);
}
/* Returns the 32 bytes at `at` of a block and those of the fourth block after it. */
FLASH__I512 __m512i flash__blocks2_avx512(const void *at, size_t step)
{
    const uint8_t *p = (const uint8_t *)at;
    __m512i v = _mm512_castsi256_si512(flash__load_avx2(p));
    return _mm512_inserti64x4(v, flash__load_avx2(p + 4 * step), 1);
}
/* Returns the float16 scales of eight blocks of two rows, as floats in lanes 2*block + row. row and
   step: bytes from a row and from a block to the next. */
FLASH__I512 __m512 flash__scales2_avx512(const uint8_t *p, size_t row, size_t step)
{
    __m128i lo = _mm_setzero_si128(), hi = lo;
#define FLASH__X(i) \
    lo = _mm_insert_epi16(lo, (short)flash__rd16(p + (i)%2*row + (i)/2*step), i); \
    hi = _mm_insert_epi16(hi, (short)flash__rd16(p + (i)%2*row + ((i)/2 + 4)*step), i);
    /* clang-format off */
    FLASH__X(0) FLASH__X(1) FLASH__X(2) FLASH__X(3) FLASH__X(4) FLASH__X(5) FLASH__X(6) FLASH__X(7)
#undef FLASH__X
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(lo), hi, 1));
    /* clang-format on */
}
/* Returns one 32-bit member of the flash__q8 of each of 16/R blocks, R times: lane R*block + row
   holds that of the block. at: this member in the first flash__q8; R: number of rows, 2 or 4. */
FLASH__I512 __m512i flash__block_words_avx512(const void *at, int R)
{
    const __m512i fours = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                  twos = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const uint8_t *p = (const uint8_t *)at;
#define FLASH__X(i) (int)flash__rd32(p + (i)*sizeof(flash__q8))
    __m128i lo = _mm_setr_epi32(FLASH__X(0), FLASH__X(1), FLASH__X(2), FLASH__X(3)), hi;
    if (R == 4) return _mm512_permutexvar_epi32(fours, _mm512_castsi128_si512(lo));
    hi = _mm_setr_epi32(FLASH__X(4), FLASH__X(5), FLASH__X(6), FLASH__X(7));
#undef FLASH__X
    return _mm512_permutexvar_epi32(
        twos, _mm512_castsi256_si512(_mm256_inserti128_si256(_mm256_castsi128_si256(lo), hi, 1)));
}

/* Returns acc, the sums of R rows, plus the products of 16/R blocks, one block after the other. sum
   and d: integer sums and scales of the weights, in lanes R*block + row. */
FLASH__I512 __m128 flash__add_blocks_avx512(__m128 acc, __m512i sum, __m512 d, const flash__q8 *x,
                                            int R)
{
    float out[16];
    int k;
    d = _mm512_mul_ps(d, _mm512_castsi512_ps(flash__block_words_avx512(&x->d, R)));
    _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d));
    FLASH__UNROLL for (k = 0; k < 16 / R; k++) acc = _mm_add_ps(
        acc,
        R == 4 ? _mm_loadu_ps(out + 4 * k)
               : _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(const void *)(out + 2 * k))));
    return acc;
}

/* This function and the next return acc plus the products of a few blocks of a few rows: four
   blocks of four rows of Q4_0, or eight blocks of two rows of Q8_0. With so few rows at once memory
   is read almost linearly. */
FLASH__I512 __m128 flash__four_q4_0_avx512(__m128 acc, const uint8_t *w, size_t row,
                                           const flash__q8 *x)
{
    /* The four blocks of a row are 36 words of 16 bits. Words 0 to 31 are in one register, words
       28 to 35 in a second one, where they have the numbers 32 to 39. items: the numbers of words
       that are not scales. scales: those of the scales of two rows, each twice, so that two results
       can be blended into lanes 4*block + row. */
    static const int16_t items[32] = {1,  2,  3,  4,  5,  6,  7,  8,  10, 11, 12,
                                      13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 24,
                                      25, 26, 32, 33, 34, 35, 36, 37, 38, 39};
    static const int16_t scales[32] = {0, 32, 0, 32, 9, 41, 9, 41, 18, 50, 18, 50, 27, 59, 27, 59};
    const __m512i low = _mm512_set1_epi8(15), zero = _mm512_setzero_si512(),
                  where = _mm512_loadu_si512(items), which = _mm512_loadu_si512(scales);
    const __m512i x0 = flash__blocks4_avx512(x->q, sizeof *x),
                  x1 = flash__blocks4_avx512(x->q + 16, sizeof *x);
    __m512i s[4], v[4], sum;
    __m256i a, b;
    int r;
    FLASH__UNROLL for (r = 0; r < 4; r++)
    {
        const uint8_t *p = w + (size_t)r * row;
        __m512i q = _mm512_castsi128_si512(flash__load16_avx2(p + 56));
        v[r] = _mm512_loadu_si512(p);
        q = _mm512_permutex2var_epi16(v[r], where, q);
        s[r] = _mm512_dpbusd_epi32(zero, _mm512_and_si512(q, low), x0);
        s[r] = _mm512_dpbusd_epi32(s[r], _mm512_and_si512(_mm512_srli_epi16(q, 4), low), x1);
    }
    a = _mm512_castsi512_si256(_mm512_permutex2var_epi16(v[0], which, v[1]));
    b = _mm512_castsi512_si256(_mm512_permutex2var_epi16(v[2], which, v[3]));
    sum = _mm512_srai_epi32(flash__block_words_avx512(x->start + 2, 4), 4);
    sum = _mm512_add_epi32(flash__sum4_avx512(s[0], s[1], s[2], s[3]), sum);
    a = _mm256_mask_blend_epi16(0xcccc, a, b);
    return flash__add_blocks_avx512(acc, sum, _mm512_cvtph_ps(a), x, 4);
}
FLASH__I512 __m128 flash__two_q8_0_avx512(__m128 acc, const uint8_t *w, size_t row,
                                          const flash__q8 *x)
{
    const __m512i flip = _mm512_set1_epi8(-128), zero = _mm512_setzero_si512(),
                  turn = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    __m512i s[2][4], a, b, sum;
    size_t r, k;
    FLASH__UNROLL for (k = 0; k < 4; k++)
    {
        __m512i v = flash__blocks2_avx512(x[k].q, sizeof *x);
        FLASH__UNROLL for (r = 0; r < 2; r++) s[r][k] = _mm512_dpbusd_epi32(
            zero, _mm512_xor_si512(flash__blocks2_avx512(w + r * row + 34 * k + 2, 34), flip), v);
    }
    a = flash__sum4_avx512(s[0][0], s[0][1], s[0][2], s[0][3]);
    b = flash__sum4_avx512(s[1][0], s[1][1], s[1][2], s[1][3]);
    sum = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
    sum = _mm512_add_epi32(_mm512_permutexvar_epi32(turn, sum),
                           flash__block_words_avx512(x->start + 2, 2));
    return flash__add_blocks_avx512(acc, sum, flash__scales2_avx512(w, row, 34), x, 2);
}

/* Multiplies wide rows with x, four of Q4_0 or two of Q8_0 at a time, until fewer are left. Returns
   the number of rows done. n: a multiple of 256. */
FLASH__I512 int flash__few_avx512(const flash_type t, const uint8_t *w, size_t row, int rows,
                                  const flash__q8 *x, size_t n, float *y)
{
    const int R = t == FLASH_TYPE_Q4_0 ? 4 : 2;
    const size_t step = t == FLASH_TYPE_Q4_0 ? 18 : 34;
    size_t b;
    int r;
    for (r = 0; r + R <= rows; r += R, w += (size_t)R * row) {
        __m128 acc = _mm_setzero_ps();
        for (b = 0; b < n / 32; b += (size_t)(16 / R)) {
            flash__fetch(w, (size_t)R * row, (size_t)R * step * b, 16 * step);
            acc = t == FLASH_TYPE_Q4_0 ? flash__four_q4_0_avx512(acc, w + step * b, row, x + b)
                                       : flash__two_q8_0_avx512(acc, w + step * b, row, x + b);
        }
        if (R == 4)
            _mm_storeu_ps(y + r, acc);
        else
            _mm_storel_epi64((__m128i *)(void *)(y + r), _mm_castps_si128(acc));
    }
    return r;
}

/* This function and the next three return the products of sixteen rows of one type with x. n: items
   of a row; row: its bytes. */
FLASH__T512 static __m512 flash__rows16_q4_0_avx512(const uint8_t *w, size_t row,
                                                    const flash__q8 *x, size_t n)
{
    const __m512i low = _mm512_set1_epi8(15), zero = _mm512_setzero_si512();
    __m512 acc = _mm512_setzero_ps();
    size_t b;
    int i;
    for (b = 0; b < n / 32; b++, x++) {
        const uint8_t *p = w + 18 * b;
        __m512i x0 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)x->q));
        __m512i x1 = _mm512_broadcast_i32x4(
            _mm_loadu_si128((const __m128i *)(const void *)(x->q + 16)));
        __m512i s[4], sum;
        flash__fetch(w, 16 * row, 16 * (18 * b), 16 * 18);
        FLASH__UNROLL for (i = 0; i < 4; i++)
        {
            __m512i v = flash__quads_avx512(p + 2 + (size_t)i * row, row);
            s[i] = _mm512_dpbusd_epi32(zero, _mm512_and_si512(v, low), x0);
            s[i] = _mm512_dpbusd_epi32(s[i], _mm512_and_si512(_mm512_srli_epi16(v, 4), low), x1);
        }
        sum = _mm512_add_epi32(flash__sum4_avx512(s[0], s[1], s[2], s[3]),
                               _mm512_set1_epi32(x->start[2] >> 4));
        acc = flash__step_avx512(acc, sum, flash__scales_avx512(p, row), x->d);
    }
    return acc;
}

FLASH__T512 static __m512 flash__rows16_q8_0_avx512(const uint8_t *w, size_t row,
                                                    const flash__q8 *x, size_t n)
{
    const __m512i flip = _mm512_set1_epi8(-128);
    __m512 acc = _mm512_setzero_ps();
    size_t b;
    int i;
    for (b = 0; b < n / 32; b++, x++) {
        const uint8_t *p = w + 34 * b;
        __m512i v[8], first, second;
        flash__fetch(w, 16 * row, 16 * (34 * b), 16 * 34);
        FLASH__UNROLL for (i = 0; i < 8; i++) v[i] = _mm512_xor_si512(
            flash__pairs_avx512(p + 2 + (size_t)(i + i / 4 * 4) * row, row), flip);
        flash__dot16_avx512(v, flash__x32_avx512(x), &first, &second);
        first = _mm512_add_epi32(_mm512_add_epi32(first, second), _mm512_set1_epi32(x->start[2]));
        acc = flash__step_avx512(acc, first, flash__scales_avx512(p, row), x->d);
    }
    return acc;
}

FLASH__T512 static __m512 flash__rows16_q4_k_avx512(const uint8_t *w, size_t row,
                                                    const flash__q8 *x, size_t n)
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512 acc = _mm512_setzero_ps();
    size_t b;
    int i, k;
    for (b = 0; b < n / 256; b++, x += 8) {
        const uint8_t *p = w + 144 * b;
        __m512 d[8], m[8];
        flash__scales_q4_k_avx512(p, row, d, m);
        for (k = 0; k < 8; k++) {
            __m512i v[8], first, second;
            if (!(k & 1)) flash__fetch(w, 16 * row, 16 * (144 * b + 36 * (size_t)(k / 2)), 16 * 36);
            FLASH__UNROLL for (i = 0; i < 8; i++)
            {
                v[i] = flash__pairs_avx512(p + 16 + 32 * (k / 2) + (size_t)(i + i / 4 * 4) * row,
                                           row);
                v[i] = _mm512_and_si512(k & 1 ? _mm512_srli_epi16(v[i], 4) : v[i], low);
            }
            flash__dot16_avx512(v, flash__x32_avx512(x + k), &first, &second);
            acc = flash__step_avx512(acc, _mm512_add_epi32(first, second), d[k], x[k].d);
            acc = _mm512_add_ps(acc, _mm512_mul_ps(m[k], _mm512_set1_ps(x[k].ds[2])));
        }
    }
    return acc;
}

FLASH__T512 static __m512 flash__rows16_q6_k_avx512(const uint8_t *w, size_t row,
                                                    const flash__q8 *x, size_t n)
{
    const __m512i low = _mm512_set1_epi8(15), two = _mm512_set1_epi8(3);
    __m512 acc = _mm512_setzero_ps();
    size_t b;
    int i, k;
    for (b = 0; b < n / 256; b++, x += 8) {
        const uint8_t *p = w + 210 * b;
        __m512 d[16];
        flash__scales_q6_k_avx512(p, row, d);
        for (k = 0; k < 8; k++) {
            const uint8_t *ql = p + k / 4 * 64 + (k & 1) * 32, *qh = p + 128 + k / 4 * 32;
            __m512i v[8], first, second;
            flash__fetch(w, 16 * row, 16 * (210 * b + 26 * (size_t)k), 16 * 27);
            FLASH__UNROLL for (i = 0; i < 8; i++)
            {
                size_t at = (size_t)(i + i / 4 * 4) * row;
                __m512i l = flash__pairs_avx512(ql + at, row),
                        h = flash__pairs_avx512(qh + at, row);
                if (k & 2) l = _mm512_srli_epi16(l, 4);
                h = _mm512_and_si512(_mm512_srl_epi16(h, _mm_cvtsi32_si128(k % 4 * 2)), two);
                v[i] = _mm512_or_si512(_mm512_and_si512(l, low), _mm512_slli_epi16(h, 4));
            }
            flash__dot16_avx512(v, flash__x32_avx512(x + k), &first, &second);
            for (i = 0; i < 2; i++) {
                __m512i sum = _mm512_add_epi32(i ? second : first,
                                               _mm512_set1_epi32(x[k].start[i] >> 2));
                acc = flash__step_avx512(acc, sum, d[2 * k + i], x[k].d);
            }
        }
    }
    return acc;
}

/* Returns items 16h to 16h + 15 of block b (of 32 items) of rows i, i + 4, i + 8 and i + 12, with
   128 added. */
FLASH__I512 __m512i flash__items_avx512(const flash_type t, const uint8_t *w, size_t row, size_t b,
                                        int h, int i)
{
    const __m512i low = _mm512_set1_epi8(15);
    const __m128i four = _mm_cvtsi32_si128(4);
    size_t k = b % 8, half = 16 * (size_t)h;
    __m512i v, high;
    w += (size_t)i * row;
    if (t == FLASH_TYPE_Q8_0)
        return _mm512_xor_si512(flash__quads_avx512(w + 34 * b + 2 + half, row),
                                _mm512_set1_epi8(-128));
    if (t == FLASH_TYPE_Q4_0) {
        v = flash__quads_avx512(w + 18 * b + 2, row);
        v = _mm512_and_si512(h ? _mm512_srl_epi16(v, four) : v, low);
        return _mm512_add_epi8(v, _mm512_set1_epi8(120));
    }
    if (t == FLASH_TYPE_Q4_K) {
        v = flash__quads_avx512(w + 144 * (b / 8) + 16 + 32 * (k / 2) + half, row);
        v = _mm512_and_si512(k & 1 ? _mm512_srl_epi16(v, four) : v, low);
        return _mm512_or_si512(v, _mm512_set1_epi8(-128));
    }
    w += 210 * (b / 8) + half;
    v = flash__quads_avx512(w + k / 4 * 64 + (k & 1) * 32, row);
    high = flash__quads_avx512(w + 128 + k / 4 * 32, row);
    high = _mm512_and_si512(_mm512_srl_epi16(high, _mm_cvtsi32_si128((int)k % 4 * 2)),
                            _mm512_set1_epi8(3));
    v = _mm512_and_si512(k & 2 ? _mm512_srl_epi16(v, four) : v, low);
    return _mm512_add_epi8(_mm512_or_si512(v, _mm512_slli_epi16(high, 4)), _mm512_set1_epi8(96));
}

/* Packs sixteen rows of n items into a panel, with the same result as flash__pack_rows. */
FLASH__I512 void flash__pack16_avx512(const flash_type t, const uint8_t *w, size_t row, size_t n,
                                      uint8_t *panel)
{
    size_t b, stride = flash__panel_stride(t, 16);
    __m512 d[16], m[8];
    int h, i;
    for (b = 0; b < n / 32; b++, panel += stride) {
        float *scale = (float *)(void *)(panel + 512);
        size_t k = b % 8;
        FLASH__UNROLL for (h = 0; h < 2; h++)
        {
            __m512i v[4], u[4];
            FLASH__UNROLL for (i = 0; i < 4; i++) v[i] = flash__items_avx512(t, w, row, b, h, i);
            u[0] = _mm512_unpacklo_epi32(v[0], v[1]);
            u[1] = _mm512_unpackhi_epi32(v[0], v[1]);
            u[2] = _mm512_unpacklo_epi32(v[2], v[3]);
            u[3] = _mm512_unpackhi_epi32(v[2], v[3]);
            v[0] = _mm512_unpacklo_epi64(u[0], u[2]);
            v[1] = _mm512_unpackhi_epi64(u[0], u[2]);
            v[2] = _mm512_unpacklo_epi64(u[1], u[3]);
            v[3] = _mm512_unpackhi_epi64(u[1], u[3]);
            FLASH__UNROLL for (i = 0; i < 4; i++)
                _mm512_storeu_si512(panel + 256 * h + 64 * i, v[i]);
        }
        if (t == FLASH_TYPE_Q4_0) _mm512_storeu_ps(scale, flash__scales_avx512(w + 18 * b, row));
        if (t == FLASH_TYPE_Q8_0) _mm512_storeu_ps(scale, flash__scales_avx512(w + 34 * b, row));
        if (t == FLASH_TYPE_Q4_K) {
            if (k == 0) flash__scales_q4_k_avx512(w + 144 * (b / 8), row, d, m);
            _mm512_storeu_ps(scale, d[k]);
            _mm512_storeu_ps(scale + 16, m[k]);
        }
        if (t == FLASH_TYPE_Q6_K) {
            if (k == 0) flash__scales_q6_k_avx512(w + 210 * (b / 8), row, d);
            _mm512_storeu_ps(scale, d[2 * k]);
            _mm512_storeu_ps(scale + 16, d[2 * k + 1]);
        }
    }
}

FLASH__T512 static void flash__pack_avx512(flash_type t, const uint8_t *w, size_t row_bytes,
                                           int rows, size_t n, uint8_t *panel)
{
    switch (rows == 16 ? t : FLASH_TYPE_NONE) {
    case FLASH_TYPE_Q4_0: flash__pack16_avx512(FLASH_TYPE_Q4_0, w, row_bytes, n, panel); break;
    case FLASH_TYPE_Q8_0: flash__pack16_avx512(FLASH_TYPE_Q8_0, w, row_bytes, n, panel); break;
    case FLASH_TYPE_Q4_K: flash__pack16_avx512(FLASH_TYPE_Q4_K, w, row_bytes, n, panel); break;
    case FLASH_TYPE_Q6_K: flash__pack16_avx512(FLASH_TYPE_Q6_K, w, row_bytes, n, panel); break;
    default: flash__pack_rows(t, w, row_bytes, rows, n, panel, 16, 128);
    }
}

/* Returns the sum of the sixteen lanes in the order of flash__tree16. */
FLASH__I512 float flash__tree_avx512(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

/* Returns sixteen floats of an F32, F16 or BF16 row, from item i on, with 0 in the lanes that are
   not in the mask m. */
FLASH__I512 __m512 flash__plain_avx512(flash_type t, const uint8_t *row, size_t i, __mmask16 m)
{
    __m256i h;
    if (t == FLASH_TYPE_F32) return _mm512_maskz_loadu_ps(m, row + 4 * i);
    h = _mm256_maskz_loadu_epi16(m, row + 2 * i);
    return t == FLASH_TYPE_F16
        ? _mm512_cvtph_ps(h)
        : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

FLASH__I512 void flash__rows_plain_avx512(const flash_type t, const uint8_t *w, size_t row,
                                          int rows, const float *x, size_t n, float *y)
{
    int r, k;
    for (r = 0; r < rows; r += 4, w += 4 * row) {
        __m512 acc[4];
        size_t i;
        int R = FLASH__MIN(rows - r, 4);
        FLASH__UNROLL for (k = 0; k < 4; k++) acc[k] = _mm512_setzero_ps();
        for (i = 0; i < n; i += 16) {
            __mmask16 m = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
            __m512 v = _mm512_maskz_loadu_ps(m, x + i);
            /* lanes outside the mask keep their sums; missing rows are replaced by the first */
            FLASH__UNROLL for (k = 0; k < 4; k++) acc[k] = _mm512_mask_add_ps(
                acc[k], m, acc[k],
                _mm512_mul_ps(flash__plain_avx512(t, w + (size_t)(k < R ? k : 0) * row, i, m), v));
        }
        for (k = 0; k < R; k++) y[r + k] = flash__tree_avx512(acc[k]);
    }
}

FLASH__T512 static void flash__rows_avx512(flash_type t, const uint8_t *w, size_t row_bytes,
                                           int rows, const void *x, size_t n, float *y)
{
    const flash__q8 *q = (const flash__q8 *)x;
    int r = 0;
    switch (t) {
    case FLASH_TYPE_F32:
        flash__rows_plain_avx512(FLASH_TYPE_F32, w, row_bytes, rows, (const float *)x, n, y);
        return;
    case FLASH_TYPE_F16:
        flash__rows_plain_avx512(FLASH_TYPE_F16, w, row_bytes, rows, (const float *)x, n, y);
        return;
    case FLASH_TYPE_BF16:
        flash__rows_plain_avx512(FLASH_TYPE_BF16, w, row_bytes, rows, (const float *)x, n, y);
        return;
    case FLASH_TYPE_Q4_0:
    case FLASH_TYPE_Q8_0:
    case FLASH_TYPE_Q4_K:
    case FLASH_TYPE_Q6_K: break;
    default:
        flash__rows_packed(t, w, row_bytes, rows, q, n, y, 16, flash__pack_avx512,
                           flash__panel_on_avx512);
        return;
    }
    if (n >= 1024 && n % 256 == 0 && t == FLASH_TYPE_Q4_0)
        r = flash__few_avx512(FLASH_TYPE_Q4_0, w, row_bytes, rows, q, n, y);
    else if (n >= 1024 && n % 256 == 0 && t == FLASH_TYPE_Q8_0)
        r = flash__few_avx512(FLASH_TYPE_Q8_0, w, row_bytes, rows, q, n, y);
    for (; r + 16 <= rows; r += 16) {
        const uint8_t *p = w + (size_t)r * row_bytes;
        switch (t) {
        case FLASH_TYPE_Q4_0:
            _mm512_storeu_ps(y + r, flash__rows16_q4_0_avx512(p, row_bytes, q, n));
            break;
        case FLASH_TYPE_Q8_0:
            _mm512_storeu_ps(y + r, flash__rows16_q8_0_avx512(p, row_bytes, q, n));
            break;
        case FLASH_TYPE_Q4_K:
            _mm512_storeu_ps(y + r, flash__rows16_q4_k_avx512(p, row_bytes, q, n));
            break;
        default: _mm512_storeu_ps(y + r, flash__rows16_q6_k_avx512(p, row_bytes, q, n));
        }
    }
    flash__rows_scalar(t, w + (size_t)r * row_bytes, row_bytes, rows - r, x, n, y + r);
}

FLASH__T512 static void flash__quantize_avx512(const float *x, size_t n, flash__q8 *y)
{
    size_t b;
    for (b = 0; b < n / 32; b++, x += 32, y++) {
        __m512 v0 = _mm512_loadu_ps(x), v1 = _mm512_loadu_ps(x + 16), inverse;
        float amax = _mm512_reduce_max_ps(
            _mm512_max_ps(_mm512_max_ps(_mm512_abs_ps(v0), _mm512_setzero_ps()),
                          _mm512_max_ps(_mm512_abs_ps(v1), _mm512_setzero_ps())));
        __m128i q0, q1;
        if (!(amax <= 3e38f)) amax = 3e38f;
        inverse = _mm512_set1_ps(amax > 1e-30f ? 127.0f / amax : 0.0f);
        v0 = _mm512_max_ps(_mm512_min_ps(_mm512_mul_ps(v0, inverse), _mm512_set1_ps(127.0f)),
                           _mm512_set1_ps(-127.0f));
        v1 = _mm512_max_ps(_mm512_min_ps(_mm512_mul_ps(v1, inverse), _mm512_set1_ps(127.0f)),
                           _mm512_set1_ps(-127.0f));
        q0 = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v0));
        q1 = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v1));
        _mm_storeu_si128((__m128i *)(void *)y->q, q0);
        _mm_storeu_si128((__m128i *)(void *)(y->q + 16), q1);
        flash__q8_sums(y, amax, _mm512_reduce_add_epi32(_mm512_cvtps_epi32(v0)),
                       _mm512_reduce_add_epi32(_mm512_cvtps_epi32(v1)));
    }
}

/* Returns e^x, by the same steps as flash__expf and so with the same bits. */
FLASH__I512 __m512 flash__exp_avx512(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(12582912.0f);
    __m512 n, r, p;
    x = _mm512_min_ps(x, _mm512_set1_ps(88.0f));
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.3f));
    n = _mm512_sub_ps(_mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), magic),
                      magic);
    r = _mm512_sub_ps(x, _mm512_mul_ps(n, _mm512_set1_ps(0.693359375f)));
    r = _mm512_sub_ps(r, _mm512_mul_ps(n, _mm512_set1_ps(-2.12194440e-4f)));
    p = _mm512_add_ps(_mm512_mul_ps(_mm512_set1_ps(1.9875691500e-4f), r),
                      _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_add_ps(_mm512_mul_ps(p, r), _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_add_ps(_mm512_mul_ps(p, r), _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_add_ps(_mm512_mul_ps(p, r), _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_add_ps(_mm512_mul_ps(p, r), _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(p, _mm512_mul_ps(r, r)), r),
                      _mm512_set1_ps(1.0f));
    return _mm512_mul_ps(p,
                         _mm512_castsi512_ps(_mm512_slli_epi32(
                             _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23)));
}

FLASH__T512 static void flash__glu_avx512(int gelu, const float *gate, const float *up, size_t n,
                                          float *y)
{
    const __m512 c1 = _mm512_set1_ps(FLASH__GELU_1), c3 = _mm512_set1_ps(FLASH__GELU_3);
    size_t i;
    for (i = 0; i < n; i += 16) {
        __mmask16 m = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
        __m512 g = _mm512_maskz_loadu_ps(m, gate + i), u = _mm512_maskz_loadu_ps(m, up + i);
        __m512 e = g;
        if (gelu) e = _mm512_mul_ps(g, _mm512_add_ps(c1, _mm512_mul_ps(c3, _mm512_mul_ps(g, g))));
        e = flash__exp_avx512(_mm512_xor_ps(e, _mm512_set1_ps(-0.0f)));
        _mm512_mask_storeu_ps(
            y + i, m, _mm512_mul_ps(_mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), e)), u));
    }
}

FLASH__T512 static void flash__glu_back_avx512(float *gate, float *up, const float *dy, size_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16) {
        __m512 g = _mm512_loadu_ps(gate + i), u = _mm512_loadu_ps(up + i);
        __m512 d = _mm512_loadu_ps(dy + i);
        __m512 s = flash__exp_avx512(_mm512_xor_ps(g, _mm512_set1_ps(-0.0f)));
        s = _mm512_div_ps(one, _mm512_add_ps(one, s));
        _mm512_storeu_ps(up + i, _mm512_mul_ps(d, _mm512_mul_ps(g, s)));
        s = _mm512_mul_ps(s, _mm512_add_ps(one, _mm512_mul_ps(g, _mm512_sub_ps(one, s))));
        _mm512_storeu_ps(gate + i, _mm512_mul_ps(_mm512_mul_ps(d, u), s));
    }
    flash__glu_back_scalar(gate + i, up + i, dy + i, n - i);
}

FLASH__T512 static void flash__fade_avx512(float *p, float *dp, float f, float d, float scale)
{
    int i;
    for (i = 0; i < 64; i += 16) {
        __m512 w = _mm512_mul_ps(_mm512_loadu_ps(p + i), _mm512_set1_ps(f));
        __m512 x = _mm512_sub_ps(_mm512_loadu_ps(dp + i), _mm512_set1_ps(d));
        _mm512_storeu_ps(p + i, w);
        _mm512_storeu_ps(dp + i, _mm512_mul_ps(_mm512_mul_ps(w, x), _mm512_set1_ps(scale)));
    }
}

FLASH__T512 static void flash__adamw_avx512(float *w, float *m, float *v, const float *g, size_t n,
                                            const flash__rates *r)
{
    size_t i;
    for (i = 0; i + 16 <= n; i += 16) {
        __m512 x = _mm512_mul_ps(_mm512_loadu_ps(g + i), _mm512_set1_ps(r->scale)), a, b, c;
        a = _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(m + i), _mm512_set1_ps(r->b1)),
                          _mm512_mul_ps(x, _mm512_set1_ps(r->a1)));
        b = _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(v + i), _mm512_set1_ps(r->b2)),
                          _mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(r->a2)));
        c = _mm512_add_ps(_mm512_sqrt_ps(_mm512_mul_ps(b, _mm512_set1_ps(r->c2))),
                          _mm512_set1_ps(r->epsilon));
        c = _mm512_mul_ps(_mm512_div_ps(a, c), _mm512_set1_ps(r->rate));
        _mm512_storeu_ps(m + i, a);
        _mm512_storeu_ps(v + i, b);
        x = _mm512_mul_ps(_mm512_loadu_ps(w + i), _mm512_set1_ps(r->keep));
        _mm512_storeu_ps(w + i, _mm512_sub_ps(x, c));
    }
    flash__adamw_scalar(w + i, m + i, v + i, g + i, n - i, r);
}

FLASH__T512 static float flash__softmax_avx512(float *x, float scale, int from, int to,
                                               float *total)
{
    __m512 v[4], lanes = _mm512_setzero_ps(), most = _mm512_set1_ps(-3.4e38f);
    __mmask16 m[4];
    uint64_t mask = (to < 64 ? ((uint64_t)1 << to) - 1 : ~(uint64_t)0)
        & ~(((uint64_t)1 << from) - 1);
    float best;
    int i;
    FLASH__UNROLL for (i = 0; i < 4; i++)
    {
        m[i] = (__mmask16)(mask >> 16 * i);
        v[i] = _mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), _mm512_set1_ps(scale));
        most = _mm512_mask_max_ps(most, m[i], v[i], most);
    }
    best = _mm512_reduce_max_ps(most);
    FLASH__UNROLL for (i = 0; i < 4; i++)
    {
        v[i] = _mm512_maskz_mov_ps(m[i],
                                   flash__exp_avx512(_mm512_sub_ps(v[i], _mm512_set1_ps(best))));
        _mm512_storeu_ps(x + 16 * i, v[i]);
        lanes = _mm512_add_ps(lanes, v[i]);
    }
    *total = flash__tree_avx512(lanes);
    return best;
}

FLASH__T512 static void flash__rmsnorm_avx512(const float *x, const float *w, float eps, size_t n,
                                              float *y)
{
    __m512 acc = _mm512_setzero_ps(), r;
    size_t i;
    for (i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps((__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff),
                                         x + i);
        acc = _mm512_add_ps(acc, _mm512_mul_ps(v, v));
    }
    r = _mm512_set1_ps(1.0f / sqrtf(flash__tree_avx512(acc) / (float)n + eps));
    for (i = 0; i < n; i += 16) {
        __mmask16 m = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), r),
                                            _mm512_maskz_loadu_ps(m, w + i)));
    }
}

/* Computes MT rows of c by up to 16*NV columns: those in the masks m: [NV]. The other parameters
   are those of flash__sgemm_scalar. */
FLASH__I512 void flash__sgemm_tile_avx512(const float *a, size_t lda, size_t ka, const float *b,
                                          size_t ldb, float *c, size_t ldc, int K,
                                          const __mmask16 *m, const int MT, const int NV)
{
    __m512 acc[4][4], v[4];
    int i, j, k;
    FLASH__UNROLL for (i = 0; i < MT; i++) FLASH__UNROLL for (j = 0; j < NV; j++)
        acc[i][j] = _mm512_setzero_ps();
    for (k = 0; k < K; k++, a += ka, b += ldb) {
        FLASH__UNROLL for (j = 0; j < NV; j++) v[j] = _mm512_maskz_loadu_ps(m[j], b + 16 * j);
        FLASH__UNROLL for (i = 0; i < MT; i++)
        {
            __m512 x = _mm512_set1_ps(a[(size_t)i * lda]);
            FLASH__UNROLL for (j = 0; j < NV; j++)
                acc[i][j] = _mm512_add_ps(acc[i][j], _mm512_mul_ps(x, v[j]));
        }
    }
    FLASH__UNROLL for (i = 0; i < MT; i++) FLASH__UNROLL for (j = 0; j < NV; j++)
        _mm512_mask_storeu_ps(c + (size_t)i * ldc + 16 * j, m[j], acc[i][j]);
}

/* Computes all M rows of the first N columns of c, or of the first 16*NV if N is larger. */
FLASH__I512 void flash__sgemm_strip_avx512(const float *a, size_t lda, size_t ka, const float *b,
                                           size_t ldb, float *c, size_t ldc, int M, int N, int K,
                                           const int NV)
{
    uint64_t mask = N < 64 ? ((uint64_t)1 << N) - 1 : ~(uint64_t)0;
    __mmask16 m[4];
    int i;
    for (i = 0; i < 4; i++) m[i] = (__mmask16)(mask >> 16 * i);
    for (i = 0; i + 4 <= M; i += 4)
        flash__sgemm_tile_avx512(a + (size_t)i * lda, lda, ka, b, ldb, c + (size_t)i * ldc, ldc, K,
                                 m, 4, NV);
    for (; i < M; i++)
        flash__sgemm_tile_avx512(a + (size_t)i * lda, lda, ka, b, ldb, c + (size_t)i * ldc, ldc, K,
                                 m, 1, NV);
}

FLASH__T512 static void flash__sgemm_avx512(const float *a, size_t lda, size_t ka, const float *b,
                                            size_t ldb, float *c, size_t ldc, int M, int N, int K)
{
    int j;
    for (j = 0; N - j > 32; j += 64)
        flash__sgemm_strip_avx512(a, lda, ka, b + j, ldb, c + j, ldc, M, N - j, K, 4);
    if (N - j > 16)
        flash__sgemm_strip_avx512(a, lda, ka, b + j, ldb, c + j, ldc, M, N - j, K, 2);
    else if (N > j) /* a head of 8 would waste 7/8 of a strip of 64 columns */
        flash__sgemm_strip_avx512(a, lda, ka, b + j, ldb, c + j, ldc, M, N - j, K, 1);
}

FLASH__T512 static double flash__spin_avx512(int rounds)
{
    __m512i a[8], x = _mm512_set1_epi8((char)(rounds & 15)), w = _mm512_set1_epi8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm512_set1_epi32(i);
    for (r = 0; r < rounds; r++)
        FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm512_dpbusd_epi32(a[i], x, w);
    for (i = 1; i < 8; i++) a[0] = _mm512_add_epi32(a[0], a[i]);
    return _mm_cvtsi128_si32(_mm512_castsi512_si128(a[0])) == 12345 ? 0 : 8.0 * 128 * rounds;
}

FLASH__T512 static uint64_t flash__read_avx512(const uint8_t *p, size_t n)
{
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    uint64_t out[8];
    size_t i;
    for (i = 0; i + 256 <= n; i += 256) {
        _mm_prefetch((const char *)p + i + 4096, _MM_HINT_T0);
        _mm_prefetch((const char *)p + i + 4160, _MM_HINT_T0);
        _mm_prefetch((const char *)p + i + 4224, _MM_HINT_T0);
        _mm_prefetch((const char *)p + i + 4288, _MM_HINT_T0);
        a = _mm512_add_epi64(a, _mm512_loadu_si512(p + i));
        b = _mm512_add_epi64(b, _mm512_loadu_si512(p + i + 64));
        c = _mm512_add_epi64(c, _mm512_loadu_si512(p + i + 128));
        d = _mm512_add_epi64(d, _mm512_loadu_si512(p + i + 192));
    }
    _mm512_storeu_si512(out, _mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d)));
    return out[0] + out[1] + out[2] + out[3] + out[4] + out[5] + out[6] + out[7];
}

static void flash__overlay_avx512(flash__kernels *k)
{
    k->panel_rows = 16;
    k->panels = 2;
    k->panel_tokens = 48;
    k->pack = flash__pack_avx512;
    k->panel = flash__panel_avx512;
    k->rows = flash__rows_avx512;
    k->quantize = flash__quantize_avx512;
    k->glu_back = flash__glu_back_avx512;
    k->fade = flash__fade_avx512;
    k->adamw = flash__adamw_avx512;
    k->glu = flash__glu_avx512;
    k->softmax = flash__softmax_avx512;
    k->rmsnorm = flash__rmsnorm_avx512;
    k->sgemm = flash__sgemm_avx512;
    k->spin = flash__spin_avx512;
    k->read = flash__read_avx512;
}
#endif

/* ===== >>k-amx ============================================================ */

/* AMX: Intel Sapphire Rapids (2023) and later. One tile instruction adds the products of 16 tokens
   with 16 rows over the 32 (or 16) items of a block; a block of a panel has the layout that it
   needs. Most of the time goes into the float step between two blocks, the same as in >>k-avx512.
   Tiles multiply signed bytes, so panels hold the weights without an offset. Each call configures
   the tiles and releases them at its end: no tile state stays in the caller's thread. KNOWN TRAP:
   the intrinsics of GCC 12 do not tell the compiler that they read memory, hence FLASH__TILES. */

#ifdef FLASH__AMX
#define FLASH__TAMX \
    FLASH__TARGET("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")

/* Configures the tiles, and makes the compiler complete earlier writes to memory before it, so that
   tile loads after it see them. */
#define FLASH__TILES(config) __asm__ volatile ("ldtilecfg %0" : : "m"(config) : "memory")

/* Packs rows like flash__pack_avx512, then takes the 128 away from each weight again. */
FLASH__T512 static void flash__pack_amx(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                                        size_t n, uint8_t *panel)
{
    size_t b, i, stride = flash__panel_stride(t, 16);
    flash__pack_avx512(t, w, row_bytes, rows, n, panel);
    for (b = 0; b < n / 32; b++, panel += stride)
        for (i = 0; i < 512; i += 64)
            _mm512_storeu_si512(
                panel + i, _mm512_xor_si512(_mm512_loadu_si512(panel + i), _mm512_set1_epi8(-128)));
}

/* Configures the tiles; tokens: at most 16. Tile 0: sums, [tokens,16] of int32; tiles 1 and 2:
   activations, [tokens,32], and weights, [8,16,4]; tiles 3 and 4: activations and weights of half a
   block. */
FLASH__TAMX static void flash__tiles_amx(int tokens)
{
    uint8_t config[64] = {1}, *rows = config + 48; /* palette 1; bytes of a row are uint16 */
    config[16] = 64;
    config[18] = 32;
    config[20] = 64;
    config[22] = 16;
    config[24] = 64;
    rows[0] = rows[1] = rows[3] = (uint8_t)tokens;
    rows[2] = 8;
    rows[4] = 4;
    FLASH__TILES(config);
}

/* Multiplies a panel of 16 rows by up to 16 tokens. The other parameters are those of
   flash__tile_avx2. */
FLASH__TAMX static FLASH__INLINE void flash__tile_amx(const uint8_t *panel, size_t stride, int rows,
                                                      const flash__q8 *x, int tokens, size_t blocks,
                                                      float *y, size_t ldy, const int parts,
                                                      const int minima)
{
    __m512 acc[16];
    __m512i sum[16];
    __mmask16 keep = (__mmask16)((1u << rows) - 1);
    const flash__q8 *at[16];
    size_t b, row = blocks * sizeof *x;
    int t, h;
    FLASH__UNROLL for (t = 0; t < 16; t++)
    {
        at[t] = x + (size_t)FLASH__MIN(t, tokens - 1) * blocks;
        acc[t] = _mm512_setzero_ps();
        sum[t] = _mm512_setzero_si512(); /* stays 0 beyond the tokens */
    }
    for (b = 0; b < blocks; b++, panel += stride) {
        const float *scale = (const float *)(const void *)(panel + 512);
        FLASH__UNROLL for (h = 0; h < parts; h++)
        {
            __m512 d = _mm512_loadu_ps(scale + 16 * h);
            _tile_zero(0);
            if (parts == 1) {
                _tile_loadd(1, x[b].q, row);
                _tile_loadd(2, panel, 64);
                _tile_dpbssd(0, 1, 2);
            } else {
                _tile_loadd(3, x[b].q + 16 * h, row);
                _tile_loadd(4, panel + 256 * h, 64);
                _tile_dpbssd(0, 3, 4);
            }
            _tile_stored(0, sum, 64);
            FLASH__UNROLL for (t = 0; t < 16; t++)
            {
                __m512 s = _mm512_mul_ps(d, _mm512_set1_ps(at[t][b].d));
                acc[t] = _mm512_add_ps(acc[t], _mm512_mul_ps(_mm512_cvtepi32_ps(sum[t]), s));
            }
            if (minima) {
                __m512 m = _mm512_loadu_ps(scale + 16 * (parts + h));
                FLASH__UNROLL for (t = 0; t < 16; t++)
                {
                    float ds = at[t][b].ds[parts == 2 ? h : 2];
                    acc[t] = _mm512_add_ps(acc[t], _mm512_mul_ps(m, _mm512_set1_ps(ds)));
                }
            }
        }
    }
    FLASH__UNROLL for (t = 0; t < 16; t++) if (t < tokens)
        _mm512_mask_storeu_ps(y + (size_t)t * ldy, keep, acc[t]);
}

FLASH__TAMX static void flash__panel_amx(flash_type t, const uint8_t *panel, int rows,
                                         const flash__q8 *x, int tokens, size_t n, float *y,
                                         size_t ldy)
{
    size_t stride = flash__panel_stride(t, 16), blocks = n / 32;
    int halves = flash__type_halves(t), minima = flash__type_minima(t), set = 0, T;
    for (; tokens > 0; tokens -= T, x += (size_t)T * blocks, y += (size_t)T * ldy) {
        T = FLASH__MIN(tokens, 16);
        if (T != set) flash__tiles_amx(set = T);
        if (!minima && !halves)
            flash__tile_amx(panel, stride, rows, x, T, blocks, y, ldy, 1, 0);
        else if (!minima)
            flash__tile_amx(panel, stride, rows, x, T, blocks, y, ldy, 2, 0);
        else if (!halves)
            flash__tile_amx(panel, stride, rows, x, T, blocks, y, ldy, 1, 1);
        else
            flash__tile_amx(panel, stride, rows, x, T, blocks, y, ldy, 2, 1);
    }
    _tile_release();
}

FLASH__TAMX static double flash__spin_amx(int rounds)
{
    uint8_t config[64] = {1};
    int32_t out[256];
    int i, r;
    for (i = 0; i < 6; i++) {
        config[16 + 2 * i] = 64;
        config[48 + i] = 16;
    }
    FLASH__TILES(config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    for (r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_stored(0, out, 64);
    _tile_release();
    return out[0] == 12345 ? 0 : 4.0 * 2 * 16 * 16 * 64 * rounds;
}

static void flash__overlay_amx(flash__kernels *k)
{
    k->panel_tokens = 16;
    k->panels = 1;
    k->pack = flash__pack_amx;
    k->panel = flash__panel_amx;
    k->spin = flash__spin_amx;
}
#undef FLASH__TAMX
#undef FLASH__TILES
#endif
#ifdef FLASH__AVX512
#undef FLASH__T512
#undef FLASH__I512
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

/* ===== >>k-neon =========================================================== */

/* Kernels for AArch64 at three levels. Plain NEON runs on every processor (Cortex-A53, A72),
   dotprod on Cortex-A55, A76, Neoverse N1, Apple A13 and later, i8mm on Cortex-A510, X2, Neoverse
   V1, N2, Apple M2 and later. Each level replaces some kernels of the one before.
   Each lane of an accumulator belongs to one row and one token, so adding up blocks in floats keeps
   the order of the scalar kernels at no cost.
   In the panel kernels of dotprod and i8mm, integer sums start as the bits of the float 1.5*2^23.
   Read as a float, such a sum is 1.5*2^23 plus the sum, and one subtraction gives the sum as a
   float. A conversion would use only one of the two vector pipes of a Cortex-A76, at half speed.
   The start value is loaded again for each block, because the load pipes have time to spare and the
   vector pipes have none.
   For one block of 32 items, a dotprod tile of 4 tokens by 8 rows takes 96 vector operations: 64
   are sdot, the others work on floats. The order of rounding that the scalar kernels prescribe
   therefore limits the tile to two thirds of the sdot rate. */

#ifdef FLASH__NEON
#define FLASH__INEON static FLASH__INLINE
/* Both make the compiler forget what it knows about the value of a variable: FLASH__HIDE of a
   pointer, so that loads through it are repeated; FLASH__HIDEV of a vector, which stays in a
   register. */
#if defined(__GNUC__) || defined(__clang__)
#define FLASH__HIDE(p)  __asm__("" : "+r"(p))
#define FLASH__HIDEV(v) __asm__ volatile("" : "+w"(v))
#else
#define FLASH__HIDE(p)  ((void)0)
#define FLASH__HIDEV(v) ((void)0)
#endif

/* Calls tile(..., parts, minima) for type t. parts and minima are constants in each call, so that
   the compiler makes a version of the inlined tile for each case. */
#define FLASH__TILES_NEON(t, tile, ...) do { \
    if (!flash__type_minima(t)) { \
        if (flash__type_halves(t)) tile(__VA_ARGS__, 2, 0); else tile(__VA_ARGS__, 1, 0); \
    } else if (flash__type_halves(t)) tile(__VA_ARGS__, 2, 1); \
    else tile(__VA_ARGS__, 1, 1); } while (0)

/* Unpacks rows into a panel of R rows. The panel holds, for each block of 32 items, bytes
   [32/G][R][G] (groups of G items), then scales [parts][R], then minima [parts][R] if the type has
   minima. Missing rows (from `rows` to R - 1) become zeros. */
FLASH__INEON void flash__pack_groups_neon(flash_type t, const uint8_t *w, size_t row_bytes,
                                          int rows, size_t n, uint8_t *panel, const int R,
                                          const int G)
{
    flash__unpack_fn unpack = flash__unpacker(t);
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, k, h;
    size_t stride = flash__panel_stride(t, R), i;
    for (r = 0; r < R; r++) {
        uint8_t *p = panel + G * r;
        float *scale = (float *)(void *)(panel + 32 * R) + r;
        for (i = 0; i < n / 32; i++, p += stride, scale += stride / 4) {
            flash__group g;
            if (r < rows)
                unpack(w + (size_t)r * row_bytes, i, &g);
            else
                memset(&g, 0, sizeof g);
            FLASH__UNROLL for (k = 0; k < 32 / G; k++)
                memcpy(p + G * R * k, g.q + G * k, (size_t)G);
            for (h = 0; h < parts; h++) {
                scale[R * h] = g.d[h];
                if (minima) scale[R * (parts + h)] = g.m[h];
            }
        }
    }
}

static void flash__pack_neon(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                             uint8_t *panel)
{
    flash__pack_groups_neon(t, w, row_bytes, rows, n, panel, 8, 32);
}

/* Returns as floats the integer sums that started as flash__start_neon. */
FLASH__INEON float32x4_t flash__floats_neon(int32x4_t sum)
{
    return vsubq_f32(vreinterpretq_f32_s32(sum), vdupq_n_f32(12582912.0f));
}
#define FLASH__X 0x4b400000, 0x4b400000, 0x4b400000, 0x4b400000 /* bits of 1.5*2^23 */
static const int32_t flash__start_neon[32] = {FLASH__X, FLASH__X, FLASH__X, FLASH__X,
                                              FLASH__X, FLASH__X, FLASH__X, FLASH__X};
#undef FLASH__X

/* Returns acc + sum*(d*dx), the step that every product of quantised blocks consists of. */
FLASH__INEON float32x4_t flash__step_neon(float32x4_t acc, float32x4_t sum, float32x4_t d, float dx)
{
    return vaddq_f32(acc, vmulq_f32(sum, vmulq_n_f32(d, dx)));
}
/* Returns the sums of the lanes of s[0], s[1], s[2] and s[3]. */
FLASH__INEON int32x4_t flash__sum4_neon(const int32x4_t *s)
{
    return vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
}
/* Multiplies 16 items and adds the products of items i and i + 8. The sum of two products, each at
   most 127*128 in magnitude, fits into 16 bits. */
FLASH__INEON int16x8_t flash__mul16_neon(int8x16_t a, int8x16_t b)
{
    int16x8_t p = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    return vmlal_s8(p, vget_high_s8(a), vget_high_s8(b));
}
/* Multiplies 4 rows of 32 bytes, q[2*row] and q[2*row + 1], by x0 and x1. Returns one sum per row
   over all 32 items. If second is not NULL, returns the sums over the first 16 items and stores
   those over the last 16 in *second. */
FLASH__INEON int32x4_t flash__dots_neon(const int8x16_t *q, int8x16_t x0, int8x16_t x1,
                                        int32x4_t *second)
{
    int32x4_t s[4], u[4];
    int r;
    FLASH__UNROLL for (r = 0; r < 4; r++)
    {
        s[r] = vpaddlq_s16(flash__mul16_neon(q[2 * r], x0));
        if (second)
            u[r] = vpaddlq_s16(flash__mul16_neon(q[2 * r + 1], x1));
        else
            s[r] = vpadalq_s16(s[r], flash__mul16_neon(q[2 * r + 1], x1));
    }
    if (second) *second = flash__sum4_neon(u);
    return flash__sum4_neon(s);
}

/* Points at[i] to the first block of token i, for 4 tokens. If there are fewer, the last token is
   repeated. x: [tokens][blocks] */
FLASH__INEON void flash__tokens_neon(const flash__q8 **at, const flash__q8 *x, int tokens,
                                     size_t blocks)
{
    int i;
    for (i = 0; i < 4; i++) at[i] = x + (size_t)FLASH__MIN(i, tokens - 1) * blocks;
}
/* Copies the results acc[token][row/4] to y, which has ldy floats from token to token. */
FLASH__INEON void flash__store_neon(float32x4_t acc[4][2], int rows, int tokens, float *y,
                                    size_t ldy)
{
    float tile[4][8];
    int t;
    FLASH__UNROLL for (t = 0; t < 4; t++) /* constant indices keep acc in registers */
    {
        vst1q_f32(tile[t], acc[t][0]);
        vst1q_f32(tile[t] + 4, acc[t][1]);
    }
    for (t = 0; t < 4 && t < tokens; t++, y += ldy) memcpy(y, tile[t], (size_t)rows * sizeof *y);
}

/* Multiplies a panel of 8 rows by up to 4 tokens. */
FLASH__INEON void flash__tile_neon(const uint8_t *panel, size_t stride, int rows,
                                   const flash__q8 *x, int tokens, size_t blocks, float *y,
                                   size_t ldy, const int parts, const int minima)
{
    const flash__q8 *at[4];
    float32x4_t acc[4][2];
    size_t b;
    int t, g, i, h;
    flash__tokens_neon(at, x, tokens, blocks);
    FLASH__UNROLL for (t = 0; t < 4; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (b = 0; b < blocks; b++, panel += stride) FLASH__UNROLL for (g = 0; g < 2; g++)
        {
            const float *scale = (const float *)(const void *)(panel + 256) + 4 * g;
            int8x16_t q[8];
            FLASH__UNROLL for (i = 0; i < 8; i++)
                q[i] = vreinterpretq_s8_u8(vld1q_u8(panel + 128 * g + 16 * i));
            FLASH__UNROLL for (t = 0; t < 4; t++)
            {
                const flash__q8 *v = at[t] + b;
                int32x4_t sum[2];
                sum[0] = flash__dots_neon(q, vld1q_s8(v->q), vld1q_s8(v->q + 16),
                                          parts == 2 ? sum + 1 : NULL);
                FLASH__UNROLL for (h = 0; h < parts; h++)
                {
                    acc[t][g] = flash__step_neon(acc[t][g], vcvtq_f32_s32(sum[h]),
                                                 vld1q_f32(scale + 8 * h), v->d);
                    if (minima)
                        acc[t][g] = vaddq_f32(acc[t][g],
                                              vmulq_n_f32(vld1q_f32(scale + 8 * (parts + h)),
                                                          v->ds[parts == 2 ? h : 2]));
                }
            }
        }
    flash__store_neon(acc, rows, tokens, y, ldy);
}

static void flash__panel_neon(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                              int tokens, size_t n, float *y, size_t ldy)
{
    size_t stride = flash__panel_stride(t, 8), blocks = n / 32;
    for (; tokens > 0; tokens -= 4, x += 4 * blocks, y += 4 * ldy)
        FLASH__TILES_NEON(t, flash__tile_neon, panel, stride, rows, x, tokens, blocks, y, ldy);
}

/* --- one token: rows of weights in the layout of the file ---- */

/* The type of flash__dots_neon and flash__dots_dotprod. */
typedef int32x4_t (*flash__dots_fn_neon)(const int8x16_t *q, int8x16_t x0, int8x16_t x1,
                                         int32x4_t *second);

FLASH__INEON uint64_t flash__u16_neon(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
/* Returns as floats the f16 at p in each of 4 rows. row: bytes from row to row. */
FLASH__INEON float32x4_t flash__halves_neon(const uint8_t *p, size_t row)
{
    uint64_t v = flash__u16_neon(p) | flash__u16_neon(p + row) << 16
        | flash__u16_neon(p + 2 * row) << 32 | flash__u16_neon(p + 3 * row) << 48;
    return vcvt_f32_f16(vreinterpret_f16_u16(vcreate_u16(v)));
}
/* Converts 8 unsigned bytes to floats, the lowest byte first. */
FLASH__INEON void flash__widen8_neon(uint64_t bytes, float32x4_t *lo, float32x4_t *hi)
{
    uint16x8_t v = vmovl_u8(vcreate_u8(bytes));
    *lo = vcvtq_f32_u32(vmovl_u16(vget_low_u16(v)));
    *hi = vcvtq_f32_u32(vmovl_u16(vget_high_u16(v)));
}

/* Computes the scales d[8][4] and the minima m[8][4] (by group, by row) of a Q4_K block in each of
   4 rows. row: bytes from row to row. */
FLASH__INEON void flash__scales_q4_k_neon(const uint8_t *p, size_t row, float *d, float *m)
{
    float32x4x4_t sc[2], mn[2];
    int r, i;
    FLASH__UNROLL for (r = 0; r < 4; r++, p += row)
    {
        uint32_t u = flash__rd32(p + 4), v = flash__rd32(p + 8), w = flash__rd32(p + 12);
        float32x4_t two = vcvt_f32_f16(vreinterpret_f16_u32(vdup_n_u32(flash__rd32(p))));
        uint32_t hi = (w & 0x0f0f0f0f) | (u >> 2 & 0x30303030);
        flash__widen8_neon((uint64_t)hi << 32 | (u & 0x3f3f3f3f), &sc[0].val[r], &sc[1].val[r]);
        hi = (w >> 4 & 0x0f0f0f0f) | (v >> 2 & 0x30303030);
        flash__widen8_neon((uint64_t)hi << 32 | (v & 0x3f3f3f3f), &mn[0].val[r], &mn[1].val[r]);
        FLASH__UNROLL for (i = 0; i < 2; i++)
        {
            sc[i].val[r] = vmulq_laneq_f32(sc[i].val[r], two, 0);
            mn[i].val[r] = vnegq_f32(vmulq_laneq_f32(mn[i].val[r], two, 1));
        }
    }
    FLASH__UNROLL for (i = 0; i < 2; i++)
    {
        vst4q_f32(d + 16 * i, sc[i]);
        vst4q_f32(m + 16 * i, mn[i]);
    }
}

/* Computes the scales d[16][4] (by half group of 16 items, by row) of a Q6_K block in each of 4
   rows. row: bytes from row to row. */
FLASH__INEON void flash__scales_q6_k_neon(const uint8_t *p, size_t row, float *d)
{
    float32x4x4_t sc[4];
    float32x4_t scale = flash__halves_neon(p + 208, row);
    float each[4];
    int r, i;
    vst1q_f32(each, scale);
    FLASH__UNROLL for (r = 0; r < 4; r++, p += row)
    {
        int8x16_t v = vreinterpretq_s8_u8(vld1q_u8(p + 192));
        int16x8_t lo = vmovl_s8(vget_low_s8(v)), hi = vmovl_s8(vget_high_s8(v));
        sc[0].val[r] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo)));
        sc[1].val[r] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo)));
        sc[2].val[r] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi)));
        sc[3].val[r] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)));
        FLASH__UNROLL for (i = 0; i < 4; i++) sc[i].val[r] = vmulq_n_f32(sc[i].val[r], each[r]);
    }
    FLASH__UNROLL for (i = 0; i < 4; i++) vst4q_f32(d + 16 * i, sc[i]);
}

/* Multiplies four rows by x, one token, and returns the four results. row: bytes from row to row.
   Callers pass t and dots as constants where speed matters. */
FLASH__INEON float32x4_t flash__rows4_neon(const flash_type t, const uint8_t *w, size_t row,
                                           const flash__q8 *x, size_t n, flash__dots_fn_neon dots)
{
    const uint8x16_t low = vdupq_n_u8(15);
    float32x4_t acc = vdupq_n_f32(0);
    int8x16_t q[8];
    size_t b;
    int r, k, i;
    if (t == FLASH_TYPE_Q4_0 || t == FLASH_TYPE_Q8_0) {
        const size_t bytes = t == FLASH_TYPE_Q4_0 ? 18 : 34;
        for (b = 0; b < n / 32; b++, x++, w += bytes) {
            FLASH__UNROLL for (r = 0; r < 4; r++)
            {
                const uint8_t *p = w + (size_t)r * row + 2;
                uint8x16_t v = vld1q_u8(p);
                if (t == FLASH_TYPE_Q4_0) {
                    const int8x16_t eight = vdupq_n_s8(8);
                    q[2 * r] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(v, low)), eight);
                    q[2 * r + 1] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(v, 4)), eight);
                } else {
                    q[2 * r] = vreinterpretq_s8_u8(v);
                    q[2 * r + 1] = vreinterpretq_s8_u8(vld1q_u8(p + 16));
                }
            }
            acc = flash__step_neon(
                acc, vcvtq_f32_s32(dots(q, vld1q_s8(x->q), vld1q_s8(x->q + 16), NULL)),
                flash__halves_neon(w, row), x->d);
        }
    } else if (t == FLASH_TYPE_Q4_K) {
        for (b = 0; b < n / 256; b++, w += 144) {
            float d[8][4], m[8][4];
            flash__scales_q4_k_neon(w, row, d[0], m[0]);
            for (k = 0; k < 8; k += 2) {
                uint8x16_t v[8];
                FLASH__UNROLL for (r = 0; r < 8; r++)
                    v[r] = vld1q_u8(w + (size_t)(r / 2) * row + 16 + 16 * k + 16 * (r & 1));
                FLASH__UNROLL for (i = 0; i < 2; i++, x++)
                {
                    FLASH__UNROLL for (r = 0; r < 8; r++)
                        q[r] = vreinterpretq_s8_u8(i ? vshrq_n_u8(v[r], 4) : vandq_u8(v[r], low));
                    acc = flash__step_neon(
                        acc, vcvtq_f32_s32(dots(q, vld1q_s8(x->q), vld1q_s8(x->q + 16), NULL)),
                        vld1q_f32(d[k + i]), x->d);
                    acc = vaddq_f32(acc, vmulq_n_f32(vld1q_f32(m[k + i]), x->ds[2]));
                }
            }
        }
    } else if (t == FLASH_TYPE_Q6_K) {
        const uint8x16_t high = vdupq_n_u8(48);
        for (b = 0; b < n / 256; b++, w += 210) {
            float d[16][4];
            flash__scales_q6_k_neon(w, row, d[0]);
            for (k = 0; k < 2; k++) FLASH__UNROLL for (i = 0; i < 4; i++, x++)
                {
                    int32x4_t first, second;
                    FLASH__UNROLL for (r = 0; r < 8; r++)
                    {
                        const uint8_t *p = w + (size_t)(r / 2) * row + 16 * (r & 1);
                        uint8x16_t l = vld1q_u8(p + 64 * k + 32 * (i & 1));
                        uint8x16_t h = vld1q_u8(p + 128 + 32 * k);
                        l = i < 2 ? vandq_u8(l, low) : vshrq_n_u8(l, 4);
                        h = i == 0   ? vshlq_n_u8(h, 4)
                            : i == 1 ? vshlq_n_u8(h, 2)
                            : i == 2 ? h
                                     : vshrq_n_u8(h, 2);
                        l = vorrq_u8(l, vandq_u8(h, high));
                        q[r] = vsubq_s8(vreinterpretq_s8_u8(l), vdupq_n_s8(32));
                    }
                    first = dots(q, vld1q_s8(x->q), vld1q_s8(x->q + 16), &second);
                    acc = flash__step_neon(acc, vcvtq_f32_s32(first), vld1q_f32(d[8 * k + 2 * i]),
                                           x->d);
                    acc = flash__step_neon(acc, vcvtq_f32_s32(second),
                                           vld1q_f32(d[8 * k + 2 * i + 1]), x->d);
                }
        }
    } else {
        flash__unpack_fn unpack = flash__unpacker(t);
        int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t);
        for (b = 0; b < n / 32; b++, x++) {
            flash__group g;
            float d[2][4], m[2][4];
            int32x4_t first, second;
            for (r = 0; r < 4; r++) {
                unpack(w + (size_t)r * row, b, &g);
                q[2 * r] = vld1q_s8(g.q);
                q[2 * r + 1] = vld1q_s8(g.q + 16);
                for (i = 0; i < 2; i++) {
                    d[i][r] = g.d[i];
                    m[i][r] = g.m[i];
                }
            }
            first = dots(q, vld1q_s8(x->q), vld1q_s8(x->q + 16), &second);
            if (parts == 1) first = vaddq_s32(first, second);
            for (i = 0; i < parts; i++) {
                acc = flash__step_neon(acc, vcvtq_f32_s32(i ? second : first), vld1q_f32(d[i]),
                                       x->d);
                if (minima)
                    acc = vaddq_f32(acc, vmulq_n_f32(vld1q_f32(m[i]), x->ds[parts == 2 ? i : 2]));
            }
        }
    }
    return acc;
}

/* Returns the sum of 16 lanes, added in the order of flash__tree16. */
FLASH__INEON float flash__tree_neon(const float32x4_t *v)
{
    float32x4_t s = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
    float32x2_t p = vadd_f32(vget_low_f32(s), vget_high_f32(s));
    return vget_lane_f32(p, 0) + vget_lane_f32(p, 1);
}

/* Returns items i to i + 3 of an F32, F16 or BF16 row as floats. */
FLASH__INEON float32x4_t flash__plain_neon(const flash_type t, const uint8_t *row, size_t i)
{
    if (t == FLASH_TYPE_F32) return vreinterpretq_f32_u8(vld1q_u8(row + 4 * i));
    if (t == FLASH_TYPE_F16) return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(row + 2 * i)));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(row + 2 * i)), 16));
}

FLASH__INEON float flash__dot_plain_neon(const flash_type t, const uint8_t *row, const float *x,
                                         size_t n)
{
    float32x4_t acc[4];
    float lane[16];
    size_t i;
    int k;
    FLASH__UNROLL for (k = 0; k < 4; k++) acc[k] = vdupq_n_f32(0);
    for (i = 0; i + 16 <= n; i += 16)
        FLASH__UNROLL for (k = 0; k < 4; k++) acc[k] = vaddq_f32(
            acc[k],
            vmulq_f32(flash__plain_neon(t, row, i + 4 * (size_t)k), vld1q_f32(x + i + 4 * k)));
    if (i == n) return flash__tree_neon(acc);
    FLASH__UNROLL for (k = 0; k < 4; k++) vst1q_f32(lane + 4 * k, acc[k]);
    for (; i < n; i++) lane[i & 15] = lane[i & 15] + flash__plain(t, row, i) * x[i];
    return flash__tree16(lane);
}

/* Does the work of the kernel `rows`; dots multiplies quantised rows. */
FLASH__INEON void flash__rows_with_neon(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                                        const void *x, size_t n, float *y, flash__dots_fn_neon dots)
{
    const flash__q8 *q = (const flash__q8 *)x;
    const float *f = (const float *)x;
    for (; rows > 0;) {
        int step = rows >= 4 ? 4 : 1;
        size_t row = step == 4 ? row_bytes : 0; /* a single row is read four times */
        float32x4_t v;
        switch (t) {
        case FLASH_TYPE_F32:
            *y++ = flash__dot_plain_neon(FLASH_TYPE_F32, w, f, n);
            rows--;
            w += row_bytes;
            continue;
        case FLASH_TYPE_F16:
            *y++ = flash__dot_plain_neon(FLASH_TYPE_F16, w, f, n);
            rows--;
            w += row_bytes;
            continue;
        case FLASH_TYPE_BF16:
            *y++ = flash__dot_plain_neon(FLASH_TYPE_BF16, w, f, n);
            rows--;
            w += row_bytes;
            continue;
        case FLASH_TYPE_Q4_0: v = flash__rows4_neon(FLASH_TYPE_Q4_0, w, row, q, n, dots); break;
        case FLASH_TYPE_Q8_0: v = flash__rows4_neon(FLASH_TYPE_Q8_0, w, row, q, n, dots); break;
        case FLASH_TYPE_Q4_K: v = flash__rows4_neon(FLASH_TYPE_Q4_K, w, row, q, n, dots); break;
        case FLASH_TYPE_Q6_K: v = flash__rows4_neon(FLASH_TYPE_Q6_K, w, row, q, n, dots); break;
        default: v = flash__rows4_neon(t, w, row, q, n, dots);
        }
        if (step == 4)
            vst1q_f32(y, v);
        else
            *y = vgetq_lane_f32(v, 0);
        rows -= step;
        y += step;
        w += (size_t)step * row_bytes;
    }
}

static void flash__rows_neon(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                             const void *x, size_t n, float *y)
{
    flash__rows_with_neon(t, w, row_bytes, rows, x, n, y, flash__dots_neon);
}

/* --- floats ---- */

/* Returns b > a ? b : a in each lane, so a NaN in b never wins. */
FLASH__INEON float32x4_t flash__more_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(b, a), b, a);
}
/* Returns b < a ? b : a in each lane, so a NaN in b never wins. */
FLASH__INEON float32x4_t flash__less_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcltq_f32(b, a), b, a);
}
/* Returns the largest of the four lanes, compared as in flash__more_neon. */
FLASH__INEON float flash__most_neon(float32x4_t v)
{
    v = flash__more_neon(v, vextq_f32(v, v, 2));
    v = flash__more_neon(v, vextq_f32(v, v, 1));
    return vgetq_lane_f32(v, 0);
}

static void flash__quantize_neon(const float *x, size_t n, flash__q8 *y)
{
    size_t b;
    int i;
    for (b = 0; b < n / 32; b++, x += 32, y++) {
        float32x4_t v[8], most = vdupq_n_f32(0);
        int32x4_t q[8];
        int8x16_t h[2];
        float amax, inverse;
        FLASH__UNROLL for (i = 0; i < 8; i++)
        {
            v[i] = vld1q_f32(x + 4 * i);
            most = flash__more_neon(most, vabsq_f32(v[i]));
        }
        amax = flash__most_neon(most);
        if (!(amax <= 3e38f)) amax = 3e38f;
        inverse = amax > 1e-30f ? 127.0f / amax : 0.0f;
        FLASH__UNROLL for (i = 0; i < 8; i++)
        {
            v[i] = flash__less_neon(vdupq_n_f32(127.0f), vmulq_n_f32(v[i], inverse));
            q[i] = vcvtnq_s32_f32(flash__more_neon(vdupq_n_f32(-127.0f), v[i]));
        }
        FLASH__UNROLL for (i = 0; i < 2; i++)
        {
            const int32x4_t *p = q + 4 * i;
            h[i] = vcombine_s8(vmovn_s16(vcombine_s16(vmovn_s32(p[0]), vmovn_s32(p[1]))),
                               vmovn_s16(vcombine_s16(vmovn_s32(p[2]), vmovn_s32(p[3]))));
            vst1q_s8(y->q + 16 * i, h[i]);
        }
        flash__q8_sums(y, amax, vaddlvq_s8(h[0]), vaddlvq_s8(h[1]));
    }
}

/* Returns e^x, computed in the same steps as flash__expf. */
FLASH__INEON float32x4_t flash__exp_neon(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(12582912.0f);
    float32x4_t n, r, p;
    x = flash__less_neon(vdupq_n_f32(88.0f), x);
    x = flash__more_neon(vdupq_n_f32(-87.3f), x);
    n = vsubq_f32(vaddq_f32(vmulq_n_f32(x, 1.44269504088896341f), magic), magic);
    r = vsubq_f32(x, vmulq_n_f32(n, 0.693359375f));
    r = vsubq_f32(r, vmulq_n_f32(n, -2.12194440e-4f));
    p = vaddq_f32(vmulq_n_f32(r, 1.9875691500e-4f), vdupq_n_f32(1.3981999507e-3f));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(8.3334519073e-3f));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(4.1665795894e-2f));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(1.6666665459e-1f));
    p = vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(5.0000001201e-1f));
    p = vaddq_f32(vaddq_f32(vmulq_f32(p, vmulq_f32(r, r)), r), vdupq_n_f32(1.0f));
    return vmulq_f32(
        p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23)));
}

static void flash__glu_neon(int gelu, const float *gate, const float *up, size_t n, float *y)
{
    const float32x4_t c1 = vdupq_n_f32(FLASH__GELU_1), c3 = vdupq_n_f32(FLASH__GELU_3);
    size_t i;
    for (i = 0; i + 4 <= n; i += 4) {
        float32x4_t g = vld1q_f32(gate + i), e = g;
        if (gelu) e = vmulq_f32(g, vaddq_f32(c1, vmulq_f32(c3, vmulq_f32(g, g))));
        e = vaddq_f32(vdupq_n_f32(1.0f), flash__exp_neon(vnegq_f32(e)));
        vst1q_f32(y + i, vmulq_f32(vdivq_f32(g, e), vld1q_f32(up + i)));
    }
    flash__glu_scalar(gelu, gate + i, up + i, n - i, y + i);
}

static float flash__softmax_neon(float *x, float scale, int from, int to, float *total)
{
    static const int32_t index[4] = {0, 1, 2, 3};
    const int32x4_t first = vdupq_n_s32(from), last = vdupq_n_s32(to);
    float32x4_t most = vdupq_n_f32(-3.4e38f), sum[4];
    int32x4_t at = vld1q_s32(index);
    float best;
    int i;
    FLASH__UNROLL for (i = 0; i < 4; i++) sum[i] = vdupq_n_f32(0);
    for (i = from / 4 * 4; i < to; i += 4) {
        int32x4_t j = vaddq_s32(at, vdupq_n_s32(i));
        uint32x4_t in = vandq_u32(vcgeq_s32(j, first), vcltq_s32(j, last));
        float32x4_t v = vmulq_n_f32(vld1q_f32(x + i), scale);
        most = vbslq_f32(vandq_u32(in, vcgtq_f32(v, most)), v, most);
    }
    best = flash__most_neon(most);
    for (i = 0; i < 64; i += 4) {
        int32x4_t j = vaddq_s32(at, vdupq_n_s32(i));
        uint32x4_t in = vandq_u32(vcgeq_s32(j, first), vcltq_s32(j, last));
        float32x4_t v = vsubq_f32(vmulq_n_f32(vld1q_f32(x + i), scale), vdupq_n_f32(best));
        v = vreinterpretq_f32_u32(vandq_u32(in, vreinterpretq_u32_f32(flash__exp_neon(v))));
        vst1q_f32(x + i, v);
        sum[i / 4 & 3] = vaddq_f32(sum[i / 4 & 3], v);
    }
    *total = flash__tree_neon(sum);
    return best;
}

static void flash__rmsnorm_neon(const float *x, const float *w, float eps, size_t n, float *y)
{
    float sum = flash__dot_plain_neon(FLASH_TYPE_F32, (const uint8_t *)(const void *)x, x, n);
    float r = 1.0f / sqrtf(sum / (float)n + eps);
    size_t i;
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), r), vld1q_f32(w + i)));
    for (; i < n; i++) y[i] = x[i] * r * w[i];
}

static void flash__rope_neon(float *x, const float *cos_sin, int dims, int style)
{
    int half = dims / 2, i;
    if (half % 4) {
        flash__rope_scalar(x, cos_sin, dims, style);
        return;
    }
    for (i = 0; i < half; i += 4) {
        float32x4x2_t cs = vld2q_f32(cos_sin + 2 * i), v, r;
        if (style == FLASH_ROPE_PAIRS)
            v = vld2q_f32(x + 2 * i);
        else {
            v.val[0] = vld1q_f32(x + i);
            v.val[1] = vld1q_f32(x + i + half);
        }
        r.val[0] = vsubq_f32(vmulq_f32(v.val[0], cs.val[0]), vmulq_f32(v.val[1], cs.val[1]));
        r.val[1] = vaddq_f32(vmulq_f32(v.val[0], cs.val[1]), vmulq_f32(v.val[1], cs.val[0]));
        if (style == FLASH_ROPE_PAIRS)
            vst2q_f32(x + 2 * i, r);
        else {
            vst1q_f32(x + i, r.val[0]);
            vst1q_f32(x + i + half, r.val[1]);
        }
    }
}

static void flash__widen_neon(const uint16_t *h, size_t n, float *y)
{
    size_t i;
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h + i))));
    flash__widen_scalar(h + i, n - i, y + i);
}

/* Computes MT rows by 4*NQ columns of c; the parameters are those of flash__sgemm_scalar. */
FLASH__INEON void flash__sgemm_tile_neon(const float *a, size_t lda, size_t ka, const float *b,
                                         size_t ldb, float *c, size_t ldc, int K, const int MT,
                                         const int NQ)
{
    float32x4_t acc[4][4];
    int i, j, k;
    FLASH__UNROLL for (i = 0; i < MT; i++) FLASH__UNROLL for (j = 0; j < NQ; j++)
        acc[i][j] = vdupq_n_f32(0);
    for (k = 0; k < K; k++, a += ka, b += ldb) {
        float32x4_t v[4];
        FLASH__UNROLL for (j = 0; j < NQ; j++) v[j] = vld1q_f32(b + 4 * j);
        FLASH__UNROLL for (i = 0; i < MT; i++) FLASH__UNROLL for (j = 0; j < NQ; j++)
            acc[i][j] = vaddq_f32(acc[i][j], vmulq_n_f32(v[j], a[(size_t)i * lda]));
    }
    FLASH__UNROLL for (i = 0; i < MT; i++) FLASH__UNROLL for (j = 0; j < NQ; j++)
        vst1q_f32(c + (size_t)i * ldc + 4 * j, acc[i][j]);
}

static void flash__sgemm_neon(const float *a, size_t lda, size_t ka, const float *b, size_t ldb,
                              float *c, size_t ldc, int M, int N, int K)
{
    for (; M > 0;) {
        int rows = M >= 4 ? 4 : 1, j;
        for (j = 0; j + 16 <= N; j += 16)
            if (rows == 4)
                flash__sgemm_tile_neon(a, lda, ka, b + j, ldb, c + j, ldc, K, 4, 4);
            else
                flash__sgemm_tile_neon(a, lda, ka, b + j, ldb, c + j, ldc, K, 1, 4);
        for (; j + 4 <= N; j += 4)
            if (rows == 4)
                flash__sgemm_tile_neon(a, lda, ka, b + j, ldb, c + j, ldc, K, 4, 1);
            else
                flash__sgemm_tile_neon(a, lda, ka, b + j, ldb, c + j, ldc, K, 1, 1);
        if (j < N) flash__sgemm_scalar(a, lda, ka, b + j, ldb, c + j, ldc, rows, N - j, K);
        M -= rows;
        a += (size_t)rows * lda;
        c += (size_t)rows * ldc;
    }
}

/* --- limits of the processor, for benchmarks ---- */

static double flash__spin_neon(int rounds)
{
    int16x8_t a[8];
    int8x8_t x[8], w = vdup_n_s8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++)
    {
        a[i] = vdupq_n_s16((int16_t)i);
        x[i] = vdup_n_s8((int8_t)(rounds + i));
    }
    for (r = 0; r < rounds; r++) FLASH__UNROLL for (i = 0; i < 8; i++)
        {
            FLASH__HIDEV(x[i]);
            a[i] = vmlal_s8(a[i], x[i], w);
        }
    for (i = 1; i < 8; i++) a[0] = veorq_s16(a[0], a[i]);
    return vaddvq_s16(a[0]) == 12345 ? 0 : 8.0 * 16 * rounds;
}

static uint64_t flash__read_neon(const uint8_t *p, size_t n)
{
    uint64x2_t s[4];
    size_t i;
    int k;
    FLASH__UNROLL for (k = 0; k < 4; k++) s[k] = vdupq_n_u64(0);
    for (i = 0; i + 128 <= n; i += 128)
        FLASH__UNROLL for (k = 0; k < 8; k++)
            s[k & 3] = vaddq_u64(s[k & 3], vreinterpretq_u64_u8(vld1q_u8(p + i + 16 * k)));
    return vaddvq_u64(vaddq_u64(vaddq_u64(s[0], s[1]), vaddq_u64(s[2], s[3])));
}

/* --- dotprod ---- */

#ifdef FLASH__NEON_DOT
/* gcc accepts an intrinsic in a function only if the function's target has all features of the
   intrinsic, armv8.2-a among them. It inlines a helper only if the target also has all features
   that the command line gives. clang before 16 hides intrinsics that the command line does not
   allow, but not the builtins behind them. */
#if defined(__clang__)
#define FLASH__TDOT FLASH__TARGET("dotprod")
#define FLASH__TI8  FLASH__TARGET("dotprod,i8mm")
#elif defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC) \
    || defined(__ARM_FEATURE_SVE)
#define FLASH__TDOT FLASH__TARGET("+dotprod")
#define FLASH__TI8  FLASH__TARGET("+dotprod+i8mm")
#elif defined(__ARM_FEATURE_CRYPTO)
#define FLASH__TDOT FLASH__TARGET("arch=armv8.2-a+crypto+dotprod")
#define FLASH__TI8  FLASH__TARGET("arch=armv8.2-a+crypto+dotprod+i8mm")
#else
#define FLASH__TDOT FLASH__TARGET("arch=armv8.2-a+dotprod")
#define FLASH__TI8  FLASH__TARGET("arch=armv8.2-a+dotprod+i8mm")
#endif
#if defined(__clang__) && __clang_major__ < 16 && !defined(__ARM_FEATURE_DOTPROD)
#define FLASH__SDOT(a, w, x) \
    ((int32x4_t)__builtin_neon_vdotq_v((int8x16_t)(a), w, x, 34))
#define FLASH__SDOT_LANE(a, w, x, lane) \
    FLASH__SDOT(a, w, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), lane)))
#else
#define FLASH__SDOT(a, w, x)            vdotq_s32(a, w, x)
#define FLASH__SDOT_LANE(a, w, x, lane) vdotq_laneq_s32(a, w, x, lane)
#endif
#if defined(__clang__) && __clang_major__ < 16 && !defined(__ARM_FEATURE_MATMUL_INT8)
#define FLASH__SMMLA(a, w, x) ((int32x4_t)__builtin_neon_vmmlaq_v((int8x16_t)(a), w, x, 34))
#else
#define FLASH__SMMLA(a, w, x) vmmlaq_s32(a, w, x)
#endif

static void flash__pack_dotprod(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                                size_t n, uint8_t *panel)
{
    flash__pack_groups_neon(t, w, row_bytes, rows, n, panel, 8, 4);
}

/* Multiplies a panel of 8 rows by up to 4 tokens. */
FLASH__TDOT FLASH__INEON void flash__tile_dotprod(const uint8_t *panel, size_t stride, int rows,
                                                  const flash__q8 *x, int tokens, size_t blocks,
                                                  float *y, size_t ldy, const int parts,
                                                  const int minima)
{
    const int32_t *start = flash__start_neon;
    const flash__q8 *at[4];
    float32x4_t acc[4][2];
    size_t b;
    int t, g, h, c;
    flash__tokens_neon(at, x, tokens, blocks);
    FLASH__UNROLL for (t = 0; t < 4; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (b = 0; b < blocks; b++, panel += stride) {
        const float *scale = (const float *)(const void *)(panel + 256);
        FLASH__UNROLL for (h = 0; h < parts; h++)
        {
            int32x4_t sum[4][2];
            FLASH__HIDE(start);
            FLASH__UNROLL for (t = 0; t < 4; t++) FLASH__UNROLL for (g = 0; g < 2; g++)
                sum[t][g] = vld1q_s32(start + 8 * t + 4 * g);
            FLASH__UNROLL for (c = 0; c < 2 / parts; c++)
            {
                int8x16_t q[4], w[2];
                FLASH__UNROLL for (t = 0; t < 4; t++) q[t] = vld1q_s8(at[t][b].q + 16 * (c + h));
#define FLASH__X(lane) \
                FLASH__UNROLL for (g = 0; g < 2; g++) \
                    w[g] = vreinterpretq_s8_u8(vld1q_u8(panel + 128*(c + h) + 32*lane + 16*g)); \
                FLASH__UNROLL for (t = 0; t < 4; t++) \
                    FLASH__UNROLL for (g = 0; g < 2; g++) \
                        sum[t][g] = FLASH__SDOT_LANE(sum[t][g], w[g], q[t], lane);
                FLASH__X(0) FLASH__X(1) FLASH__X(2) FLASH__X(3)
#undef FLASH__X
            }
            FLASH__UNROLL for (t = 0; t < 4; t++) FLASH__UNROLL for (g = 0; g < 2; g++)
            {
                acc[t][g] = flash__step_neon(acc[t][g], flash__floats_neon(sum[t][g]),
                                             vld1q_f32(scale + 8 * h + 4 * g), at[t][b].d);
                if (minima)
                    acc[t][g] = vaddq_f32(acc[t][g],
                                          vmulq_n_f32(vld1q_f32(scale + 8 * (parts + h) + 4 * g),
                                                      at[t][b].ds[parts == 2 ? h : 2]));
            }
        }
    }
    flash__store_neon(acc, rows, tokens, y, ldy);
}

FLASH__TDOT static void flash__panel_dotprod(flash_type t, const uint8_t *panel, int rows,
                                             const flash__q8 *x, int tokens, size_t n, float *y,
                                             size_t ldy)
{
    size_t stride = flash__panel_stride(t, 8), blocks = n / 32;
    for (; tokens > 0; tokens -= 4, x += 4 * blocks, y += 4 * ldy)
        FLASH__TILES_NEON(t, flash__tile_dotprod, panel, stride, rows, x, tokens, blocks, y, ldy);
}

FLASH__TDOT FLASH__INEON int32x4_t flash__dots_dotprod(const int8x16_t *q, int8x16_t x0,
                                                       int8x16_t x1, int32x4_t *second)
{
    const int32x4_t zero = vdupq_n_s32(0);
    int32x4_t s[4], u[4];
    int r;
    FLASH__UNROLL for (r = 0; r < 4; r++)
    {
        s[r] = FLASH__SDOT(zero, q[2 * r], x0);
        if (second)
            u[r] = FLASH__SDOT(zero, q[2 * r + 1], x1);
        else
            s[r] = FLASH__SDOT(s[r], q[2 * r + 1], x1);
    }
    if (second) *second = flash__sum4_neon(u);
    return flash__sum4_neon(s);
}

FLASH__TDOT static void flash__rows_dotprod(flash_type t, const uint8_t *w, size_t row_bytes,
                                            int rows, const void *x, size_t n, float *y)
{
    flash__rows_with_neon(t, w, row_bytes, rows, x, n, y, flash__dots_dotprod);
}

FLASH__TDOT static double flash__spin_dotprod(int rounds)
{
    int32x4_t a[8];
    int8x16_t x = vdupq_n_s8((int8_t)rounds), w = vdupq_n_s8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = vdupq_n_s32(i);
    for (r = 0; r < rounds; r++) {
        FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = FLASH__SDOT(a[i], x, w);
        FLASH__HIDEV(x);
    }
    for (i = 1; i < 8; i++) a[0] = veorq_s32(a[0], a[i]);
    return vaddvq_s32(a[0]) == 12345 ? 0 : 8.0 * 32 * rounds;
}

/* --- i8mm ---- */

/* One block of 4 tokens in the order that smmla needs. smmla multiplies 2 rows by 2 tokens, 8 items
   each, and gives four sums in the order r0t0 r0t1 r1t0 r1t1 (row, token). Sums keep this order to
   the end. Up to 16 blocks of 4 tokens are rearranged once and serve all 16 rows of a panel.
   d: the scales of tokens 0 1 0 1 and 2 3 2 3. ds: d times the sum of q, in the same order for each
   half of the block, or in ds[0] for the whole block where the type has one scale per block. */
typedef struct flash__x4_i8mm {
    int8_t q[4][4][8]; /* by group of 8 items, token, item */
    float d[2][4], ds[2][2][4];
} flash__x4_i8mm;

static void flash__pack_i8mm(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                             uint8_t *panel)
{
    flash__pack_groups_neon(t, w, row_bytes, rows, n, panel, 16, 8);
}

/* Fills v from the blocks at[4] of 4 tokens. */
FLASH__INEON void flash__weave_i8mm(flash__x4_i8mm *v, const flash__q8 *const *at, int parts)
{
    int t, k, i;
    for (t = 0; t < 4; t++) {
        FLASH__UNROLL for (k = 0; k < 4; k++) memcpy(v->q[k][t], at[t]->q + 8 * k, 8);
        for (i = t & 1; i < 4; i += 2) {
            v->d[t / 2][i] = at[t]->d;
            for (k = 0; k < parts; k++) v->ds[k][t / 2][i] = at[t]->ds[parts == 2 ? k : 2];
        }
    }
}

/* Multiplies 8 of the 16 rows of a panel by 4 tokens and adds the products to sums, [4][2][4] by
   row/2, token/2 and place in the 2 x 2 sums. panel, scale: first byte and first scale of the 8
   rows. */
FLASH__TI8 FLASH__INEON void flash__tile_i8mm(const uint8_t *panel, const float *scale,
                                              size_t stride, const flash__x4_i8mm *x, size_t blocks,
                                              float *sums, const int parts, const int minima)
{
    const int32_t *start = flash__start_neon;
    float32x4_t acc[4][2];
    size_t b;
    int r, p, k, h;
    FLASH__UNROLL for (r = 0; r < 4; r++) FLASH__UNROLL for (p = 0; p < 2; p++)
        acc[r][p] = vld1q_f32(sums + 8 * r + 4 * p);
    for (b = 0; b < blocks; b++, x++, panel += stride, scale += stride / 4)
        FLASH__UNROLL for (h = 0; h < parts; h++)
        {
            int32x4_t sum[4][2];
            FLASH__HIDE(start);
            FLASH__UNROLL for (r = 0; r < 4; r++) FLASH__UNROLL for (p = 0; p < 2; p++)
                sum[r][p] = vld1q_s32(start + 8 * r + 4 * p);
            FLASH__UNROLL for (k = 0; k < 4 / parts; k++) FLASH__UNROLL for (r = 0; r < 4; r++)
            {
                const int8_t *q = x->q[k + 2 * h][0];
                int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(panel + 128 * (k + 2 * h) + 16 * r));
                FLASH__UNROLL for (p = 0; p < 2; p++)
                    sum[r][p] = FLASH__SMMLA(sum[r][p], w, vld1q_s8(q + 16 * p));
            }
            FLASH__UNROLL for (r = 0; r < 4; r++)
            {
                const float *s = scale + 16 * h + 4 * (r / 2);
                float32x4_t d = vld1q_f32(s), m = d;
                d = r & 1 ? vzip2q_f32(d, d) : vzip1q_f32(d, d);
                if (minima) {
                    m = vld1q_f32(s + 16 * parts);
                    m = r & 1 ? vzip2q_f32(m, m) : vzip1q_f32(m, m);
                }
                FLASH__UNROLL for (p = 0; p < 2; p++)
                {
                    float32x4_t f = flash__floats_neon(sum[r][p]);
                    acc[r][p] = vaddq_f32(acc[r][p],
                                          vmulq_f32(f, vmulq_f32(d, vld1q_f32(x->d[p]))));
                    if (minima)
                        acc[r][p] = vaddq_f32(acc[r][p], vmulq_f32(m, vld1q_f32(x->ds[h][p])));
                }
            }
        }
    FLASH__UNROLL for (r = 0; r < 4; r++) FLASH__UNROLL for (p = 0; p < 2; p++)
        vst1q_f32(sums + 8 * r + 4 * p, acc[r][p]);
}

FLASH__TI8 static void flash__panel_i8mm(flash_type t, const uint8_t *panel, int rows,
                                         const flash__q8 *x, int tokens, size_t n, float *y,
                                         size_t ldy)
{
    enum { CHUNK = 16 };
    size_t stride = flash__panel_stride(t, 16), blocks = n / 32, b, i;
    int parts = flash__type_halves(t) ? 2 : 1, g, r, k;
    for (; tokens > 0; tokens -= 4, x += 4 * blocks, y += 4 * ldy) {
        flash__x4_i8mm v[CHUNK];
        const flash__q8 *at[4];
        float sums[2][4][2][4]; /* by row/8, pair of rows, pair of tokens, 2 x 2 */
        memset(sums, 0, sizeof sums);
        flash__tokens_neon(at, x, tokens, blocks);
        for (b = 0; b < blocks; b += CHUNK) {
            size_t m = FLASH__MIN(blocks - b, (size_t)CHUNK);
            for (i = 0; i < m; i++) {
                flash__weave_i8mm(v + i, at, parts);
                for (k = 0; k < 4; k++) at[k]++;
            }
            for (g = 0; 8 * g < rows; g++) {
                const uint8_t *p = panel + b * stride;
                const float *scale = (const float *)(const void *)(p + 512) + 8 * g;
                FLASH__TILES_NEON(t, flash__tile_i8mm, p + 64 * g, scale, stride, v, m,
                                  &sums[g][0][0][0]);
            }
        }
        for (k = 0; k < 4 && k < tokens; k++)
            for (r = 0; r < rows; r++)
                y[(size_t)k * ldy + (size_t)r] = sums[r / 8][r % 8 / 2][k / 2][r % 2 * 2 + k % 2];
    }
}

FLASH__TI8 static double flash__spin_i8mm(int rounds)
{
    int32x4_t a[8];
    int8x16_t x = vdupq_n_s8((int8_t)rounds), w = vdupq_n_s8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = vdupq_n_s32(i);
    for (r = 0; r < rounds; r++) {
        FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = FLASH__SMMLA(a[i], x, w);
        FLASH__HIDEV(x);
    }
    for (i = 1; i < 8; i++) a[0] = veorq_s32(a[0], a[i]);
    return vaddvq_s32(a[0]) == 12345 ? 0 : 8.0 * 64 * rounds;
}
#undef FLASH__TDOT
#undef FLASH__TI8
#undef FLASH__SDOT
#undef FLASH__SDOT_LANE
#undef FLASH__SMMLA
#endif

static void flash__overlay_neon(flash__kernels *k, flash_isa isa)
{
    k->panel_rows = 8;
    k->pack = flash__pack_neon;
    k->panel = flash__panel_neon;
    k->rows = flash__rows_neon;
    k->quantize = flash__quantize_neon;
    k->glu = flash__glu_neon;
    k->softmax = flash__softmax_neon;
    k->rmsnorm = flash__rmsnorm_neon;
    k->sgemm = flash__sgemm_neon;
    k->rope = flash__rope_neon;
    k->widen = flash__widen_neon;
    k->spin = flash__spin_neon;
    k->read = flash__read_neon;
#ifdef FLASH__NEON_DOT
    if (isa == FLASH_ISA_NEON) return;
    k->pack = flash__pack_dotprod;
    k->panel = flash__panel_dotprod;
    k->rows = flash__rows_dotprod;
    k->spin = flash__spin_dotprod;
    if (isa == FLASH_ISA_NEON_DOTPROD) return;
    k->panel_rows = 16;
    k->pack = flash__pack_i8mm;
    k->panel = flash__panel_i8mm;
    k->spin = flash__spin_i8mm;
#else
    (void)isa;
#endif
}
#undef FLASH__INEON
#undef FLASH__HIDE
#undef FLASH__HIDEV
#undef FLASH__TILES_NEON
#endif

/* ===== >>k-wasm =========================================================== */

/* Kernels for WebAssembly with fixed-width SIMD (Chrome 91, Firefox 89, Safari 16.4). They are
   chosen at compile time, because a module cannot ask what the browser supports. Bytes are widened
   to 16 bits, and i32x4.dot_i16x8 multiplies them and adds neighbouring products. A block of 4 rows
   ends in a vector of four sums, one for each row. */

#ifdef FLASH__WASM
#define FLASH__IWASM static FLASH__INLINE

/* Unpacks rows into a panel. It holds, for each block of 32 items, bytes [8 rows][32], then scales
   [parts][8], then minima [parts][8] if the type has minima. Missing rows become zeros. */
static void flash__pack_wasm(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                             uint8_t *panel)
{
    flash__unpack_fn unpack = flash__unpacker(t);
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, h;
    size_t stride = flash__panel_stride(t, 8), i;
    for (r = 0; r < 8; r++)
        for (i = 0; i < n / 32; i++) {
            uint8_t *p = panel + i * stride;
            float *scale = (float *)(void *)(p + 256) + r;
            flash__group g;
            if (r < rows)
                unpack(w + (size_t)r * row_bytes, i, &g);
            else
                memset(&g, 0, sizeof g);
            memcpy(p + 32 * r, g.q, 32);
            for (h = 0; h < parts; h++) {
                scale[8 * h] = g.d[h];
                if (minima) scale[8 * (parts + h)] = g.m[h];
            }
        }
}

/* Widens 32 signed bytes to four vectors of 16-bit integers. */
FLASH__IWASM void flash__widen32_wasm(v128_t *v, v128_t a, v128_t b)
{
    v[0] = wasm_i16x8_extend_low_i8x16(a);
    v[1] = wasm_i16x8_extend_high_i8x16(a);
    v[2] = wasm_i16x8_extend_low_i8x16(b);
    v[3] = wasm_i16x8_extend_high_i8x16(b);
}
/* Multiplies 16 items and adds the products in groups of four; the results are 4 partial sums. */
FLASH__IWASM v128_t flash__dot16_wasm(const v128_t *a, const v128_t *b)
{
    return wasm_i32x4_add(wasm_i32x4_dot_i16x8(a[0], b[0]), wasm_i32x4_dot_i16x8(a[1], b[1]));
}
/* Returns the sums of the lanes of a, b, c and d. */
FLASH__IWASM v128_t flash__sum4_wasm(v128_t a, v128_t b, v128_t c, v128_t d)
{
    v128_t ab = wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5),
                               wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
    v128_t cd = wasm_i32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5),
                               wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
    return wasm_i32x4_add(wasm_i32x4_shuffle(ab, cd, 0, 1, 4, 5),
                          wasm_i32x4_shuffle(ab, cd, 2, 3, 6, 7));
}
/* Returns acc + sum*(d*dx). */
FLASH__IWASM v128_t flash__step_wasm(v128_t acc, v128_t sum, v128_t d, float dx)
{
    v128_t s = wasm_f32x4_mul(d, wasm_f32x4_splat(dx));
    return wasm_f32x4_add(acc, wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sum), s));
}
/* Returns acc + m*ds. */
FLASH__IWASM v128_t flash__least_wasm(v128_t acc, v128_t m, float ds)
{
    return wasm_f32x4_add(acc, wasm_f32x4_mul(m, wasm_f32x4_splat(ds)));
}

/* Multiplies a panel of 8 rows by up to 4 tokens. If there are fewer, the last one is repeated. */
FLASH__IWASM void flash__tile_wasm(const uint8_t *panel, size_t stride, int rows,
                                   const flash__q8 *x, int tokens, size_t blocks, float *y,
                                   size_t ldy, const int parts, const int minima)
{
    const flash__q8 *at[4];
    v128_t acc[4][2];
    float tile[4][8];
    size_t b;
    int t, g, r, h;
    FLASH__UNROLL for (t = 0; t < 4; t++)
    {
        at[t] = x + (size_t)FLASH__MIN(t, tokens - 1) * blocks;
        acc[t][0] = acc[t][1] = wasm_f32x4_splat(0);
    }
    for (b = 0; b < blocks; b++, panel += stride) {
        v128_t q[4][4];
        FLASH__UNROLL for (t = 0; t < 4; t++)
            flash__widen32_wasm(q[t], wasm_v128_load(at[t][b].q), wasm_v128_load(at[t][b].q + 16));
        FLASH__UNROLL for (g = 0; g < 2; g++)
        {
            const float *scale = (const float *)(const void *)(panel + 256) + 4 * g;
            v128_t s[4][2][4]; /* by token, half, row */
            FLASH__UNROLL for (r = 0; r < 4; r++)
            {
                const uint8_t *p = panel + 128 * g + 32 * r;
                v128_t w[4];
                flash__widen32_wasm(w, wasm_v128_load(p), wasm_v128_load(p + 16));
                FLASH__UNROLL for (t = 0; t < 4; t++)
                {
                    v128_t lo = flash__dot16_wasm(w, q[t]), hi = flash__dot16_wasm(w + 2, q[t] + 2);
                    s[t][0][r] = parts == 2 ? lo : wasm_i32x4_add(lo, hi);
                    s[t][1][r] = hi;
                }
            }
            FLASH__UNROLL for (t = 0; t < 4; t++) FLASH__UNROLL for (h = 0; h < parts; h++)
            {
                v128_t sum = flash__sum4_wasm(s[t][h][0], s[t][h][1], s[t][h][2], s[t][h][3]);
                acc[t][g] = flash__step_wasm(acc[t][g], sum, wasm_v128_load(scale + 8 * h),
                                             at[t][b].d);
                if (minima)
                    acc[t][g] = flash__least_wasm(acc[t][g],
                                                  wasm_v128_load(scale + 8 * (parts + h)),
                                                  at[t][b].ds[parts == 2 ? h : 2]);
            }
        }
    }
    FLASH__UNROLL for (t = 0; t < 4; t++)
    {
        wasm_v128_store(tile[t], acc[t][0]);
        wasm_v128_store(tile[t] + 4, acc[t][1]);
    }
    for (t = 0; t < 4 && t < tokens; t++, y += ldy) memcpy(y, tile[t], (size_t)rows * sizeof *y);
}

static void flash__panel_wasm(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                              int tokens, size_t n, float *y, size_t ldy)
{
    size_t stride = flash__panel_stride(t, 8), blocks = n / 32;
    int halves = flash__type_halves(t), minima = flash__type_minima(t);
    for (; tokens > 0; tokens -= 4, x += 4 * blocks, y += 4 * ldy)
        if (!halves && !minima)
            flash__tile_wasm(panel, stride, rows, x, tokens, blocks, y, ldy, 1, 0);
        else if (!halves)
            flash__tile_wasm(panel, stride, rows, x, tokens, blocks, y, ldy, 1, 1);
        else if (!minima)
            flash__tile_wasm(panel, stride, rows, x, tokens, blocks, y, ldy, 2, 0);
        else
            flash__tile_wasm(panel, stride, rows, x, tokens, blocks, y, ldy, 2, 1);
}

/* Converts four f16, which lie in the low halves of 32-bit lanes, to floats. Multiplying by 2^112
   corrects the exponent and makes subnormal numbers normal. */
FLASH__IWASM v128_t flash__half_wasm(v128_t h)
{
    v128_t m = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x7fff)), 13);
    v128_t sign = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x8000)), 16);
    v128_t odd = wasm_i32x4_gt(m, wasm_i32x4_splat(0x0f7fffff)); /* infinity or NaN */
    v128_t f = wasm_f32x4_mul(m, wasm_i32x4_splat(0x77800000));
    f = wasm_v128_bitselect(wasm_v128_or(m, wasm_i32x4_splat(0x7f800000)), f, odd);
    return wasm_v128_or(f, sign);
}
/* Returns as floats the f16 at p in each of 4 rows. row: bytes from row to row. */
FLASH__IWASM v128_t flash__halves_wasm(const uint8_t *p, size_t row)
{
    return flash__half_wasm(wasm_i32x4_make((int)flash__rd16(p), (int)flash__rd16(p + row),
                                            (int)flash__rd16(p + 2 * row),
                                            (int)flash__rd16(p + 3 * row)));
}

/* Multiplies four rows by x, one token, and returns the four results. row: bytes from row to row.
   Callers pass t as a constant where speed matters. */
FLASH__IWASM v128_t flash__rows4_wasm(const flash_type t, const uint8_t *w, size_t row,
                                      const flash__q8 *x, size_t n)
{
    const size_t bytes = t == FLASH_TYPE_Q4_0 ? 18
        : t == FLASH_TYPE_Q8_0                ? 34
        : t == FLASH_TYPE_Q4_K                ? 144
                                              : 210;
    const int groups = bytes < 100 ? 1 : 8;
    flash__unpack_fn unpack = flash__unpacker(t);
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, k, i;
    const v128_t low = wasm_i8x16_splat(15);
    v128_t acc = wasm_f32x4_splat(0);
    size_t b;
    const int known = t == FLASH_TYPE_Q4_0 || t == FLASH_TYPE_Q8_0 || t == FLASH_TYPE_Q4_K
        || t == FLASH_TYPE_Q6_K;
    for (b = 0; b < n / 32; b += known ? (size_t)groups : 1) {
        const uint8_t *p = w + (known ? b / (size_t)groups * bytes : 0);
        float d[16][4], m[8][4];
        if (t == FLASH_TYPE_Q4_0 || t == FLASH_TYPE_Q8_0)
            wasm_v128_store(d[0], flash__halves_wasm(p, row));
        for (r = 0; t == FLASH_TYPE_Q4_K && r < 4; r++)
            for (k = 0; k < 8; k++) {
                flash__group g;
                flash__k_scales(&g, p + (size_t)r * row, (size_t)k);
                d[k][r] = g.d[0];
                m[k][r] = g.m[0];
            }
        for (r = 0; t == FLASH_TYPE_Q6_K && r < 4; r++) {
            const uint8_t *v = p + (size_t)r * row + 192;
            float one = flash__f16_f32(flash__rd16(v + 16));
            for (k = 0; k < 16; k++)
                d[k][r] = one * (float)(v[k] < 128 ? (int)v[k] : (int)v[k] - 256);
        }
        for (k = 0; k < (known ? groups : 1); k++, x++) {
            v128_t q[4], s[4], u[4];
            flash__widen32_wasm(q, wasm_v128_load(x->q), wasm_v128_load(x->q + 16));
            FLASH__UNROLL for (r = 0; r < 4; r++)
            {
                const uint8_t *v = p + (size_t)r * row;
                v128_t c[4], lo, hi;
                if (t == FLASH_TYPE_Q4_0) {
                    lo = wasm_v128_load(v + 2);
                    hi = wasm_i8x16_sub(wasm_u8x16_shr(lo, 4), wasm_i8x16_splat(8));
                    lo = wasm_i8x16_sub(wasm_v128_and(lo, low), wasm_i8x16_splat(8));
                } else if (t == FLASH_TYPE_Q8_0) {
                    lo = wasm_v128_load(v + 2);
                    hi = wasm_v128_load(v + 18);
                } else if (t == FLASH_TYPE_Q4_K) {
                    v += 16 + k / 2 * 32;
                    lo = wasm_v128_and(wasm_u8x16_shr(wasm_v128_load(v), (uint32_t)(k & 1) * 4),
                                       low);
                    hi = wasm_v128_and(
                        wasm_u8x16_shr(wasm_v128_load(v + 16), (uint32_t)(k & 1) * 4), low);
                } else if (t == FLASH_TYPE_Q6_K) {
                    const uint8_t *l = v + k / 4 * 64 + (k & 1) * 32, *h = v + 128 + k / 4 * 32;
                    uint32_t shift = (uint32_t)(k % 4 / 2) * 4, two = (uint32_t)(k % 4) * 2;
                    v128_t mask = wasm_i8x16_splat(3), bias = wasm_i8x16_splat(32);
                    lo = wasm_v128_and(wasm_u8x16_shr(wasm_v128_load(l), shift), low);
                    hi = wasm_v128_and(wasm_u8x16_shr(wasm_v128_load(l + 16), shift), low);
                    lo = wasm_v128_or(
                        lo,
                        wasm_i8x16_shl(wasm_v128_and(wasm_u8x16_shr(wasm_v128_load(h), two), mask),
                                       4));
                    hi = wasm_v128_or(
                        hi,
                        wasm_i8x16_shl(
                            wasm_v128_and(wasm_u8x16_shr(wasm_v128_load(h + 16), two), mask), 4));
                    lo = wasm_i8x16_sub(lo, bias);
                    hi = wasm_i8x16_sub(hi, bias);
                } else {
                    flash__group g;
                    unpack(v, b, &g);
                    for (i = 0; i < parts; i++) {
                        d[i][r] = g.d[i];
                        m[i][r] = g.m[i];
                    }
                    lo = wasm_v128_load(g.q);
                    hi = wasm_v128_load(g.q + 16);
                }
                flash__widen32_wasm(c, lo, hi);
                s[r] = flash__dot16_wasm(c, q);
                u[r] = flash__dot16_wasm(c + 2, q + 2);
                if (parts == 1) s[r] = wasm_i32x4_add(s[r], u[r]);
            }
            for (i = 0; i < parts; i++) {
                v128_t sum = i ? flash__sum4_wasm(u[0], u[1], u[2], u[3])
                               : flash__sum4_wasm(s[0], s[1], s[2], s[3]);
                acc = flash__step_wasm(acc, sum, wasm_v128_load(d[parts * k + i]), x->d);
                if (minima)
                    acc = flash__least_wasm(acc, wasm_v128_load(m[parts * k + i]),
                                            x->ds[parts == 2 ? i : 2]);
            }
        }
    }
    return acc;
}

/* Returns the sum of 16 lanes, added in the order of flash__tree16. */
FLASH__IWASM float flash__tree_wasm(const v128_t *v)
{
    v128_t s = wasm_f32x4_add(wasm_f32x4_add(v[0], v[2]), wasm_f32x4_add(v[1], v[3]));
    s = wasm_f32x4_add(s, wasm_i32x4_shuffle(s, s, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(s, 0) + wasm_f32x4_extract_lane(s, 1);
}

/* Returns items i to i + 3 of an F32, F16 or BF16 row as floats. */
FLASH__IWASM v128_t flash__plain_wasm(const flash_type t, const uint8_t *row, size_t i)
{
    if (t == FLASH_TYPE_F32) return wasm_v128_load(row + 4 * i);
    if (t == FLASH_TYPE_F16) return flash__half_wasm(wasm_u32x4_load16x4(row + 2 * i));
    return wasm_i32x4_shl(wasm_u32x4_load16x4(row + 2 * i), 16);
}

FLASH__IWASM float flash__dot_plain_wasm(const flash_type t, const uint8_t *row, const float *x,
                                         size_t n)
{
    v128_t acc[4];
    float lane[16];
    size_t i;
    int k;
    FLASH__UNROLL for (k = 0; k < 4; k++) acc[k] = wasm_f32x4_splat(0);
    for (i = 0; i + 16 <= n; i += 16)
        FLASH__UNROLL for (k = 0; k < 4; k++)
            acc[k] = wasm_f32x4_add(acc[k],
                                    wasm_f32x4_mul(flash__plain_wasm(t, row, i + 4 * (size_t)k),
                                                   wasm_v128_load(x + i + 4 * k)));
    if (i == n) return flash__tree_wasm(acc);
    FLASH__UNROLL for (k = 0; k < 4; k++) wasm_v128_store(lane + 4 * k, acc[k]);
    for (; i < n; i++) lane[i & 15] = lane[i & 15] + flash__plain(t, row, i) * x[i];
    return flash__tree16(lane);
}

static void flash__rows_wasm(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                             const void *x, size_t n, float *y)
{
    const flash__q8 *q = (const flash__q8 *)x;
    const float *f = (const float *)x;
    int plain = !flash__unpacker(t), step;
    for (; rows > 0; rows -= step, y += step, w += (size_t)step * row_bytes) {
        size_t row;
        v128_t v;
        step = plain || rows < 4 ? 1 : 4;
        row = step == 4 ? row_bytes : 0; /* a single row is read four times */
        switch (t) {
        case FLASH_TYPE_F32: *y = flash__dot_plain_wasm(FLASH_TYPE_F32, w, f, n); continue;
        case FLASH_TYPE_F16: *y = flash__dot_plain_wasm(FLASH_TYPE_F16, w, f, n); continue;
        case FLASH_TYPE_BF16: *y = flash__dot_plain_wasm(FLASH_TYPE_BF16, w, f, n); continue;
        case FLASH_TYPE_Q4_0: v = flash__rows4_wasm(FLASH_TYPE_Q4_0, w, row, q, n); break;
        case FLASH_TYPE_Q8_0: v = flash__rows4_wasm(FLASH_TYPE_Q8_0, w, row, q, n); break;
        case FLASH_TYPE_Q4_K: v = flash__rows4_wasm(FLASH_TYPE_Q4_K, w, row, q, n); break;
        case FLASH_TYPE_Q6_K: v = flash__rows4_wasm(FLASH_TYPE_Q6_K, w, row, q, n); break;
        default: v = flash__rows4_wasm(t, w, row, q, n);
        }
        if (step == 4)
            wasm_v128_store(y, v);
        else
            *y = wasm_f32x4_extract_lane(v, 0);
    }
}

/* Returns the largest lane. pmax(a, b) is b > a ? b : a, so a NaN in b never wins. */
FLASH__IWASM float flash__most_wasm(v128_t v)
{
    v = wasm_f32x4_pmax(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
    v = wasm_f32x4_pmax(v, wasm_i32x4_shuffle(v, v, 1, 0, 3, 2));
    return wasm_f32x4_extract_lane(v, 0);
}

static void flash__quantize_wasm(const float *x, size_t n, flash__q8 *y)
{
    size_t b;
    int i;
    for (b = 0; b < n / 32; b++, x += 32, y++) {
        v128_t v[8], most = wasm_f32x4_splat(0), sum[2];
        float amax, inverse;
        FLASH__UNROLL for (i = 0; i < 8; i++)
        {
            v[i] = wasm_v128_load(x + 4 * i);
            most = wasm_f32x4_pmax(most, wasm_f32x4_abs(v[i]));
        }
        amax = flash__most_wasm(most);
        if (!(amax <= 3e38f)) amax = 3e38f;
        inverse = amax > 1e-30f ? 127.0f / amax : 0.0f;
        FLASH__UNROLL for (i = 0; i < 8; i++)
        {
            v[i] = wasm_f32x4_pmin(wasm_f32x4_splat(127.0f),
                                   wasm_f32x4_mul(v[i], wasm_f32x4_splat(inverse)));
            v[i] = wasm_f32x4_nearest(wasm_f32x4_pmax(wasm_f32x4_splat(-127.0f), v[i]));
            v[i] = wasm_i32x4_trunc_sat_f32x4(v[i]);
        }
        FLASH__UNROLL for (i = 0; i < 2; i++)
        {
            const v128_t *p = v + 4 * i;
            wasm_v128_store(y->q + 16 * i,
                            wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(p[0], p[1]),
                                                    wasm_i16x8_narrow_i32x4(p[2], p[3])));
            sum[i] = wasm_i32x4_add(wasm_i32x4_add(p[0], p[1]), wasm_i32x4_add(p[2], p[3]));
        }
        sum[0] = flash__sum4_wasm(sum[0], sum[1], sum[0], sum[1]);
        flash__q8_sums(y, amax, wasm_i32x4_extract_lane(sum[0], 0),
                       wasm_i32x4_extract_lane(sum[0], 1));
    }
}

/* Returns e^x, computed in the same steps as flash__expf. */
FLASH__IWASM v128_t flash__exp_wasm(v128_t x)
{
    const v128_t magic = wasm_f32x4_splat(12582912.0f);
    v128_t n, r, p;
    x = wasm_f32x4_pmin(wasm_f32x4_splat(88.0f), x);
    x = wasm_f32x4_pmax(wasm_f32x4_splat(-87.3f), x);
    n = wasm_f32x4_add(wasm_f32x4_mul(x, wasm_f32x4_splat(1.44269504088896341f)), magic);
    n = wasm_f32x4_sub(n, magic);
    r = wasm_f32x4_sub(x, wasm_f32x4_mul(n, wasm_f32x4_splat(0.693359375f)));
    r = wasm_f32x4_sub(r, wasm_f32x4_mul(n, wasm_f32x4_splat(-2.12194440e-4f)));
    p = wasm_f32x4_mul(r, wasm_f32x4_splat(1.9875691500e-4f));
    p = wasm_f32x4_add(p, wasm_f32x4_splat(1.3981999507e-3f));
    p = wasm_f32x4_add(wasm_f32x4_mul(p, r), wasm_f32x4_splat(8.3334519073e-3f));
    p = wasm_f32x4_add(wasm_f32x4_mul(p, r), wasm_f32x4_splat(4.1665795894e-2f));
    p = wasm_f32x4_add(wasm_f32x4_mul(p, r), wasm_f32x4_splat(1.6666665459e-1f));
    p = wasm_f32x4_add(wasm_f32x4_mul(p, r), wasm_f32x4_splat(5.0000001201e-1f));
    p = wasm_f32x4_add(wasm_f32x4_mul(p, wasm_f32x4_mul(r, r)), r);
    p = wasm_f32x4_add(p, wasm_f32x4_splat(1.0f));
    n = wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_splat(127));
    return wasm_f32x4_mul(p, wasm_i32x4_shl(n, 23));
}

static void flash__glu_wasm(int gelu, const float *gate, const float *up, size_t n, float *y)
{
    const v128_t c1 = wasm_f32x4_splat(FLASH__GELU_1), c3 = wasm_f32x4_splat(FLASH__GELU_3);
    size_t i;
    for (i = 0; i + 4 <= n; i += 4) {
        v128_t g = wasm_v128_load(gate + i), e = g;
        if (gelu)
            e = wasm_f32x4_mul(g, wasm_f32x4_add(c1, wasm_f32x4_mul(c3, wasm_f32x4_mul(g, g))));
        e = wasm_f32x4_add(wasm_f32x4_splat(1.0f), flash__exp_wasm(wasm_f32x4_neg(e)));
        wasm_v128_store(y + i, wasm_f32x4_mul(wasm_f32x4_div(g, e), wasm_v128_load(up + i)));
    }
    flash__glu_scalar(gelu, gate + i, up + i, n - i, y + i);
}

/* Returns a mask of the lanes, numbered i to i + 3, that lie in [from, to). */
FLASH__IWASM v128_t flash__inside_wasm(int i, int from, int to)
{
    v128_t j = wasm_i32x4_add(wasm_i32x4_make(0, 1, 2, 3), wasm_i32x4_splat(i));
    return wasm_v128_and(wasm_i32x4_ge(j, wasm_i32x4_splat(from)),
                         wasm_i32x4_lt(j, wasm_i32x4_splat(to)));
}

static float flash__softmax_wasm(float *x, float scale, int from, int to, float *total)
{
    const v128_t by = wasm_f32x4_splat(scale);
    v128_t most = wasm_f32x4_splat(-3.4e38f), sum[4];
    float best;
    int i;
    FLASH__UNROLL for (i = 0; i < 4; i++) sum[i] = wasm_f32x4_splat(0);
    for (i = from / 4 * 4; i < to; i += 4) {
        v128_t v = wasm_f32x4_mul(wasm_v128_load(x + i), by);
        most = wasm_v128_bitselect(wasm_f32x4_pmax(most, v), most, flash__inside_wasm(i, from, to));
    }
    best = flash__most_wasm(most);
    for (i = 0; i < 64; i += 4) {
        v128_t v = wasm_f32x4_mul(wasm_v128_load(x + i), by);
        v = flash__exp_wasm(wasm_f32x4_sub(v, wasm_f32x4_splat(best)));
        v = wasm_v128_and(v, flash__inside_wasm(i, from, to));
        wasm_v128_store(x + i, v);
        sum[i / 4 & 3] = wasm_f32x4_add(sum[i / 4 & 3], v);
    }
    *total = flash__tree_wasm(sum);
    return best;
}

static void flash__rmsnorm_wasm(const float *x, const float *w, float eps, size_t n, float *y)
{
    float sum = flash__dot_plain_wasm(FLASH_TYPE_F32, (const uint8_t *)(const void *)x, x, n);
    float r = 1.0f / sqrtf(sum / (float)n + eps);
    size_t i;
    for (i = 0; i + 4 <= n; i += 4)
        wasm_v128_store(y + i,
                        wasm_f32x4_mul(wasm_f32x4_mul(wasm_v128_load(x + i), wasm_f32x4_splat(r)),
                                       wasm_v128_load(w + i)));
    for (; i < n; i++) y[i] = x[i] * r * w[i];
}

static void flash__rope_wasm(float *x, const float *cos_sin, int dims, int style)
{
    int half = dims / 2, pairs = style == FLASH_ROPE_PAIRS, i;
    if (half % 4) {
        flash__rope_scalar(x, cos_sin, dims, style);
        return;
    }
    for (i = 0; i < half; i += 4) {
        float *p = pairs ? x + 2 * i : x + i, *q = pairs ? p + 4 : p + half;
        v128_t a = wasm_v128_load(p), b = wasm_v128_load(q), u = a, v = b;
        v128_t c = wasm_v128_load(cos_sin + 2 * i), d = wasm_v128_load(cos_sin + 2 * i + 4);
        v128_t cosine = wasm_i32x4_shuffle(c, d, 0, 2, 4, 6);
        v128_t sine = wasm_i32x4_shuffle(c, d, 1, 3, 5, 7);
        if (pairs) {
            u = wasm_i32x4_shuffle(a, b, 0, 2, 4, 6);
            v = wasm_i32x4_shuffle(a, b, 1, 3, 5, 7);
        }
        a = wasm_f32x4_sub(wasm_f32x4_mul(u, cosine), wasm_f32x4_mul(v, sine));
        b = wasm_f32x4_add(wasm_f32x4_mul(u, sine), wasm_f32x4_mul(v, cosine));
        wasm_v128_store(p, pairs ? wasm_i32x4_shuffle(a, b, 0, 4, 1, 5) : a);
        wasm_v128_store(q, pairs ? wasm_i32x4_shuffle(a, b, 2, 6, 3, 7) : b);
    }
}

static void flash__widen_wasm(const uint16_t *h, size_t n, float *y)
{
    size_t i;
    for (i = 0; i + 4 <= n; i += 4)
        wasm_v128_store(y + i, flash__half_wasm(wasm_u32x4_load16x4(h + i)));
    flash__widen_scalar(h + i, n - i, y + i);
}

/* Computes MT rows by 4*NQ columns of c; the parameters are those of flash__sgemm_scalar. */
FLASH__IWASM void flash__sgemm_tile_wasm(const float *a, size_t lda, size_t ka, const float *b,
                                         size_t ldb, float *c, size_t ldc, int K, const int MT,
                                         const int NQ)
{
    v128_t acc[4][2];
    int i, j, k;
    FLASH__UNROLL for (i = 0; i < MT; i++) FLASH__UNROLL for (j = 0; j < NQ; j++)
        acc[i][j] = wasm_f32x4_splat(0);
    for (k = 0; k < K; k++, a += ka, b += ldb) FLASH__UNROLL for (i = 0; i < MT; i++)
        {
            v128_t v = wasm_f32x4_splat(a[(size_t)i * lda]);
            FLASH__UNROLL for (j = 0; j < NQ; j++)
                acc[i][j] = wasm_f32x4_add(acc[i][j], wasm_f32x4_mul(v, wasm_v128_load(b + 4 * j)));
        }
    FLASH__UNROLL for (i = 0; i < MT; i++) FLASH__UNROLL for (j = 0; j < NQ; j++)
        wasm_v128_store(c + (size_t)i * ldc + 4 * j, acc[i][j]);
}

static void flash__sgemm_wasm(const float *a, size_t lda, size_t ka, const float *b, size_t ldb,
                              float *c, size_t ldc, int M, int N, int K)
{
    for (; M > 0;) {
        int rows = M >= 4 ? 4 : 1, j;
        for (j = 0; j + 8 <= N; j += 8)
            if (rows == 4)
                flash__sgemm_tile_wasm(a, lda, ka, b + j, ldb, c + j, ldc, K, 4, 2);
            else
                flash__sgemm_tile_wasm(a, lda, ka, b + j, ldb, c + j, ldc, K, 1, 2);
        for (; j + 4 <= N; j += 4)
            if (rows == 4)
                flash__sgemm_tile_wasm(a, lda, ka, b + j, ldb, c + j, ldc, K, 4, 1);
            else
                flash__sgemm_tile_wasm(a, lda, ka, b + j, ldb, c + j, ldc, K, 1, 1);
        if (j < N) flash__sgemm_scalar(a, lda, ka, b + j, ldb, c + j, ldc, rows, N - j, K);
        M -= rows;
        a += (size_t)rows * lda;
        c += (size_t)rows * ldc;
    }
}

static double flash__spin_wasm(int rounds)
{
    volatile int16_t seed = 3; /* read again in each round, so no product can be reused */
    v128_t a[8];
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = wasm_i32x4_splat(i);
    for (r = 0; r < rounds; r++) {
        v128_t x = wasm_i16x8_splat(seed);
        FLASH__UNROLL for (i = 0; i < 8; i++)
            a[i] = wasm_i32x4_add(a[i], wasm_i32x4_dot_i16x8(a[(i + 1) & 7], x));
    }
    for (i = 1; i < 8; i++) a[0] = wasm_v128_xor(a[0], a[i]);
    return wasm_i32x4_extract_lane(a[0], 0) == 12345 ? 0 : 8.0 * 16 * rounds;
}

static uint64_t flash__read_wasm(const uint8_t *p, size_t n)
{
    v128_t s[4];
    size_t i;
    int k;
    FLASH__UNROLL for (k = 0; k < 4; k++) s[k] = wasm_i64x2_splat(0);
    for (i = 0; i + 64 <= n; i += 64)
        FLASH__UNROLL for (k = 0; k < 4; k++)
            s[k] = wasm_i64x2_add(s[k], wasm_v128_load(p + i + 16 * k));
    s[0] = wasm_i64x2_add(wasm_i64x2_add(s[0], s[1]), wasm_i64x2_add(s[2], s[3]));
    return (uint64_t)wasm_i64x2_extract_lane(s[0], 0) + (uint64_t)wasm_i64x2_extract_lane(s[0], 1);
}

static void flash__overlay_wasm(flash__kernels *k)
{
    k->panel_rows = 8;
    k->pack = flash__pack_wasm;
    k->panel = flash__panel_wasm;
    k->rows = flash__rows_wasm;
    k->quantize = flash__quantize_wasm;
    k->glu = flash__glu_wasm;
    k->softmax = flash__softmax_wasm;
    k->rmsnorm = flash__rmsnorm_wasm;
    k->sgemm = flash__sgemm_wasm;
    k->rope = flash__rope_wasm;
    k->widen = flash__widen_wasm;
    k->spin = flash__spin_wasm;
    k->read = flash__read_wasm;
}
#undef FLASH__IWASM
#endif

/* ===== >>k-select ========================================================= */

/* Fills a kernel table. It starts with the reference kernels; the wanted instruction set and those
   below it then replace the kernels that they have faster versions of. To ask for an instruction
   set that is missing is an error: nothing is substituted silently. */

static flash_status flash__kernels_select(flash__kernels *k, flash_isa want)
{
    memset(k, 0, sizeof *k);
    k->isa = want == FLASH_ISA_AUTO ? flash_isa_best() : want;
    k->panel_rows = 4;
    k->panels = 1;
    k->panel_tokens = 8;
#define FLASH__X(op, ret, args) k->op = flash__##op##_scalar;
    FLASH__KERNELS(FLASH__X)
#undef FLASH__X
    if (k->isa == FLASH_ISA_SCALAR) return FLASH_E_NONE;
    if (!flash__isa_usable(k->isa)) return FLASH_E_UNSUPPORTED;
#ifdef FLASH__SSE41
    flash__overlay_sse41(k);
#endif
#ifdef FLASH__AVX2
    if (k->isa >= FLASH_ISA_AVX2) flash__overlay_avx2(k);
#endif
#ifdef FLASH__AVX512
    if (k->isa >= FLASH_ISA_AVX512) flash__overlay_avx512(k);
#endif
#ifdef FLASH__AMX
    if (k->isa == FLASH_ISA_AMX) flash__overlay_amx(k);
#endif
#ifdef FLASH__NEON
    flash__overlay_neon(k, k->isa);
#endif
#ifdef FLASH__WASM
    flash__overlay_wasm(k);
#endif
    return FLASH_E_NONE;
}

FLASH_API double flash_isa_spin(flash_isa isa, int rounds)
{
    flash__kernels k;
    return flash__kernels_select(&k, isa) ? 0 : k.spin(rounds);
}

FLASH_API uint64_t flash_isa_read(flash_isa isa, const void *p, size_t bytes)
{
    flash__kernels k;
    return flash__kernels_select(&k, isa) ? 0 : k.read((const uint8_t *)p, bytes);
}

FLASH_API size_t flash_dot_work(size_t n) { return n / 32 * sizeof(flash__q8) + 64; }

FLASH_API flash_status flash_dot_rows(flash_type t, const void *w, size_t rows, size_t n,
                                      const float *x, float *y, void *work, flash_isa isa)
{
    flash__kernels k;
    size_t bytes = flash_row_bytes(t, n);
    const void *input = x;
    flash_status s = flash__kernels_select(&k, isa);
    if (s) return s;
    if (!w || !x || !y || !work || !bytes) return FLASH_E_ARGUMENT;
    if (flash__unpacker(t)) {
        uint8_t *q = (uint8_t *)work + ((64 - ((uintptr_t)work & 63)) & 63);
        k.quantize(x, n, (flash__q8 *)(void *)q);
        input = q;
    }
    k.rows(t, (const uint8_t *)w, bytes, (int)rows, input, n, y);
    return FLASH_E_NONE;
}

/* ===== >>gguf ============================================================= */

/* GGUF reader and writer. The reader walks through the bytes with a cursor that knows where they
   end, and checks every count against the bytes that are left before using it. There are two walks:
   the first checks everything and allocates nothing, the second fills the index of keys and
   tensors. Some rules are stricter than the text of the format, as in the reference loader: no
   duplicate names, no nested arrays, and tensors stored in order without gaps. */

enum { FLASH__NAME_MAX = 63, FLASH__ALIGN_MAX = 1 << 20, FLASH__JUMPS = 8 };

struct flash_gguf {
    flash__file file;
    flash_host host;
    size_t block; /* acquired for this object [B]; 0 inside a model */
    uint32_t version, n_key, n_tensor, alignment;
    size_t keys_at, infos_at;     /* file offsets of the first key and of the first tensor info */
    uint64_t data_at;             /* file offset of the weights */
    int headers;                  /* 1: the weights may be missing */
    size_t jump[FLASH__JUMPS][2]; /* long arrays of strings, to skip at once: start, end */
    int n_jump;
    uint64_t *key_at, *info_at;       /* [n_key], [n_tensor] file offsets, in file order */
    uint32_t *key_order, *info_order; /* [n_key], [n_tensor] numbers, sorted by name */
};

/* A reading position in the file. The first error stays in status; reads after it return NULL or
   0. */
typedef struct flash__cursor {
    const flash_gguf *g;
    size_t at;
    flash_error *err;
    flash_status status;
} flash__cursor;

/* Returns the next n bytes and moves the cursor behind them. Returns NULL and sets the status if
   the file ends before; the message then names `what`. */
static const uint8_t *flash__read(flash__cursor *c, uint64_t n, const char *what)
{
    size_t at = c->at;
    if (c->status) return NULL;
    if (n > c->g->file.size - at) {
        c->status = flash__fail(c->err, FLASH_E_TRUNCATED, at,
                                "the file ends inside %s: %u bytes wanted, %u left", what, n,
                                (uint64_t)(c->g->file.size - at));
        return NULL;
    }
    c->at = at + (size_t)n;
    return c->g->file.data + at;
}
static uint32_t flash__read32(flash__cursor *c, const char *what)
{
    const uint8_t *p = flash__read(c, 4, what);
    return p ? flash__rd32(p) : 0;
}
static uint64_t flash__read64(flash__cursor *c, const char *what)
{
    const uint8_t *p = flash__read(c, 8, what);
    return p ? flash__rd64(p) : 0;
}

static int flash__value_bytes(flash_value_type t) /* [B]; 0 for strings and arrays */
{
    static const uint8_t bytes[FLASH_VALUE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[t];
}

/* Fails with a message about the key or tensor whose name has n bytes, unless the cursor has failed
   before. Returns the cursor's status. */
static flash_status flash__bad(flash__cursor *c, flash_status s, const char *what, const char *name,
                               size_t n)
{
    if (!c->status)
        c->status = flash__fail(c->err, s, c->at, "%s: \"%t\"", what, name,
                                FLASH__MIN(n, (size_t)64));
    return c->status;
}

/* Reads one key and its value and moves the cursor behind them. */
static flash_status flash__read_key(flash__cursor *c, flash_value *v)
{
    uint64_t n = flash__read64(c, "a key's length"), i, length;
    uint32_t type;
    size_t j;
    if (!c->status && (n == 0 || n > 65535))
        return c->status = flash__fail(c->err, FLASH_E_FORMAT, c->at - 8,
                                       "a key of %u bytes; 1 to 65535 are allowed", n);
    v->key = (const char *)flash__read(c, n, "a key");
    v->key_bytes = (size_t)n;
    type = flash__read32(c, "a value's type");
    v->count = 1;
    if (type == FLASH_VALUE_ARRAY) {
        type = flash__read32(c, "an array's type");
        v->count = flash__read64(c, "an array's length");
        if (type == FLASH_VALUE_ARRAY)
            return flash__bad(c, FLASH_E_FORMAT, "an array of arrays under key", v->key,
                              v->key_bytes);
        v->type = FLASH_VALUE_ARRAY;
    } else
        v->type = (flash_value_type)type;
    if (c->status) return c->status;
    if (type >= FLASH_VALUE_COUNT)
        return flash__bad(c, FLASH_E_FORMAT, "unknown value type under key", v->key, v->key_bytes);
    v->item = (flash_value_type)type;
    if (v->item != FLASH_VALUE_STRING) {
        uint64_t item = (uint64_t)flash__value_bytes(v->item);
        if (v->count > (c->g->file.size - c->at) / item)
            return flash__bad(c, FLASH_E_TRUNCATED, "more array items than bytes left under key",
                              v->key, v->key_bytes);
        v->bytes = (size_t)(v->count * item);
        v->data = flash__read(c, v->bytes, "a value");
        return c->status;
    }
    for (j = 0; j < (size_t)c->g->n_jump; j++)
        if (c->g->jump[j][0] == c->at) {
            v->data = c->g->file.data + c->at;
            c->at = c->g->jump[j][1];
            v->bytes = c->at - c->g->jump[j][0];
            return FLASH_E_NONE;
        }
    v->data = c->g->file.data + c->at;
    for (i = 0; i < v->count && !c->status; i++) {
        length = flash__read64(c, "a string's length");
        flash__read(c, length, "a string");
    }
    v->bytes = c->status ? 0 : (size_t)(c->g->file.data + c->at - v->data);
    if (v->type == FLASH_VALUE_STRING && !c->status) {
        v->data += 8;
        v->bytes -= 8;
    }
    return c->status;
}

/* Reads one tensor info, but not t->offset and t->data. *offset becomes the place of its weights
   that the file states, from data_at [B]. */
static flash_status flash__read_info(flash__cursor *c, flash_tensor *t, uint64_t *offset)
{
    uint64_t n = flash__read64(c, "a tensor name's length"), items = 1;
    const flash__type_fact *f;
    uint32_t dims;
    size_t i;
    int d;
    if (!c->status && (n == 0 || n > FLASH__NAME_MAX))
        return c->status = flash__fail(c->err, FLASH_E_FORMAT, c->at - 8,
                                       "a tensor name of %u bytes; 1 to 63 are allowed", n);
    t->name = (const char *)flash__read(c, n, "a tensor's name");
    t->name_bytes = (size_t)n;
    dims = flash__read32(c, "a tensor's dimensions");
    t->n_dims = (int)FLASH__MIN(dims, 5u);
    if (!c->status && (dims < 1 || dims > 4))
        return flash__bad(c, FLASH_E_FORMAT, "not 1 to 4 dimensions: tensor", t->name,
                          t->name_bytes);
    for (d = 0; d < 4; d++) {
        t->ne[d] = d < t->n_dims ? flash__read64(c, "a tensor's shape") : 1;
        if (c->status) return c->status;
        if (t->ne[d] == 0 || t->ne[d] > (uint64_t)INT64_MAX / items)
            return flash__bad(c, FLASH_E_FORMAT, "impossible shape: tensor", t->name,
                              t->name_bytes);
        items *= t->ne[d];
    }
    t->type_id = flash__read32(c, "a tensor's type");
    *offset = flash__read64(c, "a tensor's offset");
    if (c->status) return c->status;
    f = flash__type_of(t->type_id);
    t->type = f ? (flash_type)f->id : FLASH_TYPE_NONE;
    for (i = 0; !f && i < FLASH__COUNT(flash__other_types); i++)
        if ((uint32_t)flash__other_types[i].id == t->type_id) f = flash__other_types + i;
    if (!f)
        return flash__bad(c, FLASH_E_FORMAT, "unknown weight type: tensor", t->name, t->name_bytes);
    if (t->ne[0] % (uint64_t)f->items)
        return flash__bad(c, FLASH_E_FORMAT,
                          "row length is no multiple of the type's block: tensor", t->name,
                          t->name_bytes);
    if (items / (uint64_t)f->items > (uint64_t)INT64_MAX / (uint64_t)f->bytes)
        return flash__bad(c, FLASH_E_TOO_LARGE, "more bytes than can be counted: tensor", t->name,
                          t->name_bytes);
    t->bytes = items / (uint64_t)f->items * (uint64_t)f->bytes;
    return FLASH_E_NONE;
}

/* Returns an error, with a message that says what a file that does not begin as GGUF probably
   is. */
static flash_status flash__not_gguf(const flash_gguf *g, flash_error *err)
{
    static const struct {
        const char *magic, *text;
        flash_status status;
    } table[] = {
        {"FUGG",
         "a byte-swapped (big-endian) GGUF file: convert the model for little-endian "
         "machines",
         FLASH_E_UNSUPPORTED},
        {"tjgg", "a ggjt file from before GGUF (2023): convert it to GGUF first",
         FLASH_E_UNSUPPORTED},
        {"fmgg", "a ggmf file from before GGUF (2023): convert it to GGUF first",
         FLASH_E_UNSUPPORTED},
        {"lmgg", "a ggml file from before GGUF (2023): convert it to GGUF first",
         FLASH_E_UNSUPPORTED},
        {"algg", "a ggla adapter file from before GGUF, not a model", FLASH_E_UNSUPPORTED},
        {"version https://git-lfs",
         "a Git LFS pointer, not the model itself: fetch it with git lfs pull", FLASH_E_FORMAT},
        {"PK\3\4", "a zip archive (a PyTorch checkpoint?): convert the model to GGUF first",
         FLASH_E_FORMAT},
        {"<!DOCTYPE", "a web page, not a model: the download went wrong", FLASH_E_FORMAT},
        {"<html", "a web page, not a model: the download went wrong", FLASH_E_FORMAT},
    };
    size_t i, n;
    for (i = 0; i < FLASH__COUNT(table); i++) {
        n = strlen(table[i].magic);
        if (g->file.size >= n && !memcmp(g->file.data, table[i].magic, n))
            return flash__fail(err, table[i].status, 0, "%s", table[i].text);
    }
    if (g->file.size >= 10 && g->file.data[8] == '{' && flash__rd64(g->file.data) < g->file.size)
        return flash__fail(err, FLASH_E_FORMAT, 0,
                           "a safetensors file: convert the model to GGUF first");
    n = FLASH__MIN(g->file.size, 4u);
    if (n < 4 && !memcmp(g->file.data, "GGUF", n))
        return flash__fail(err, FLASH_E_TRUNCATED, 0, "the file ends inside the header");
    return flash__fail(err, FLASH_E_FORMAT, 0, "not a GGUF file: it begins with \"%t\"",
                       (const char *)g->file.data, n);
}

static int flash__key_less(const void *ctx, uint32_t a, uint32_t b);
static int flash__info_less(const void *ctx, uint32_t a, uint32_t b);

/* Returns the name of the key or tensor info at a file offset. *n becomes its length [B]. */
static const char *flash__name_at(const flash_gguf *g, uint64_t at, size_t *n)
{
    *n = (size_t)flash__rd64(g->file.data + at);
    return (const char *)g->file.data + at + 8;
}
/* Compares the names at file offsets at[a] and at[b]. Returns a negative number, 0 or a positive
   one. */
static int flash__names_differ(const flash_gguf *g, const uint64_t *at, uint32_t a, uint32_t b)
{
    size_t na, nb;
    const char *ta = flash__name_at(g, at[a], &na), *tb = flash__name_at(g, at[b], &nb);
    return flash__compare(ta, na, tb, nb);
}
static int flash__key_less(const void *ctx, uint32_t a, uint32_t b)
{
    const flash_gguf *g = (const flash_gguf *)ctx;
    return flash__names_differ(g, g->key_at, a, b) < 0;
}
static int flash__info_less(const void *ctx, uint32_t a, uint32_t b)
{
    const flash_gguf *g = (const flash_gguf *)ctx;
    return flash__names_differ(g, g->info_at, a, b) < 0;
}

/* Does the first walk: checks the whole container and finds its sections. */
static flash_status flash__gguf_scan(flash_gguf *g, flash_error *err)
{
    flash__cursor c;
    flash_value v;
    flash_tensor t;
    uint64_t n_key, n_tensor, i, offset, end = 0, room;
    c.g = g;
    c.at = 0;
    c.err = err;
    c.status = FLASH_E_NONE;
    g->alignment = 32;
    if (g->file.size < 4 || memcmp(g->file.data, "GGUF", 4)) return flash__not_gguf(g, err);
    c.at = 4;
    g->version = flash__read32(&c, "the header");
    if (!c.status && g->version == 1)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 4,
                           "GGUF version 1, an early draft: convert the model again");
    if (!c.status && !(g->version & 0xffff))
        return flash__fail(err, FLASH_E_UNSUPPORTED, 4,
                           "a big-endian GGUF file: convert the model for little-endian machines");
    if (!c.status && g->version != 2 && g->version != 3)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 4,
                           "GGUF version %u: versions 2 and 3 are known", (uint64_t)g->version);
    n_tensor = flash__read64(&c, "the header");
    n_key = flash__read64(&c, "the header");
    if (c.status) return c.status;
    room = g->file.size - c.at; /* the smallest key takes 14 bytes, the smallest tensor info 33 */
    if (n_key > room / 14 || n_tensor > (room - n_key * 14) / 33 || n_key > UINT32_MAX
        || n_tensor > UINT32_MAX)
        return flash__fail(err, FLASH_E_TRUNCATED, 8,
                           "the header promises %u tensors and %u keys; the file is too "
                           "short for them",
                           n_tensor, n_key);
    g->n_key = (uint32_t)n_key;
    g->n_tensor = (uint32_t)n_tensor;
    room = g->headers ? (uint64_t)INT64_MAX / 2 : g->file.size;
    g->keys_at = c.at;
    for (i = 0; i < n_key; i++) {
        if (flash__read_key(&c, &v)) return c.status;
        if (v.type == FLASH_VALUE_ARRAY && v.item == FLASH_VALUE_STRING && v.count > 256
            && g->n_jump < FLASH__JUMPS) {
            g->jump[g->n_jump][0] = (size_t)(v.data - g->file.data);
            g->jump[g->n_jump++][1] = c.at;
        }
        if (v.key_bytes == 17 && !memcmp(v.key, "general.alignment", 17)) {
            g->alignment = v.type == FLASH_VALUE_U32 ? flash__rd32(v.data) : 0;
            if (g->alignment < 8 || (g->alignment & (g->alignment - 1))
                || g->alignment > FLASH__ALIGN_MAX)
                return flash__fail(err, FLASH_E_FORMAT, c.at,
                                   "general.alignment is not a power of two from 8 to 1 MiB");
        }
    }
    g->infos_at = c.at;
    for (i = 0; i < n_tensor; i++) {
        if (flash__read_info(&c, &t, &offset)) return c.status;
        if (offset != end)
            return flash__fail(err, FLASH_E_FORMAT, c.at - 8,
                               "tensor \"%t\" lies at data offset %u; %u is next in line", t.name,
                               t.name_bytes, offset, end);
        if (t.bytes > room - FLASH__MIN(end, room))
            return flash__fail(err, FLASH_E_TRUNCATED, c.at - 8,
                               "tensor \"%t\" reaches beyond the end of the file", t.name,
                               t.name_bytes);
        end = offset + ((t.bytes + g->alignment - 1) & ~(uint64_t)(g->alignment - 1));
    }
    room = ((uint64_t)c.at + g->alignment - 1) & ~(uint64_t)(g->alignment - 1);
    if (n_tensor && !g->headers && (room > g->file.size || offset + t.bytes > g->file.size - room))
        return flash__fail(err, FLASH_E_TRUNCATED, g->file.size,
                           "the file ends inside the weights: %u bytes are there, "
                           "%u are needed",
                           (uint64_t)g->file.size, room + offset + t.bytes);
    g->data_at = room;
    return FLASH_E_NONE;
}

/* Takes memory for the index from the arena, after flash__gguf_scan. If the arena has memory, does
   the second walk, which fills the index; otherwise only counts the bytes. */
static flash_status flash__gguf_index(flash_gguf *g, flash__arena *arena, flash_error *err)
{
    uint64_t *key_at = (uint64_t *)flash__take(arena, g->n_key, 8),
             *info_at = (uint64_t *)flash__take(arena, g->n_tensor, 8);
    uint32_t *key_order = (uint32_t *)flash__take(arena, g->n_key, 4);
    uint32_t *info_order = (uint32_t *)flash__take(arena, g->n_tensor, 4), i;
    flash__cursor c;
    flash_value v;
    flash_tensor t;
    uint64_t offset;
    if (!arena->base) return FLASH_E_NONE;
    c.g = g;
    c.at = g->keys_at;
    c.err = err;
    c.status = FLASH_E_NONE;
    for (i = 0; i < g->n_key; i++) {
        key_at[i] = c.at;
        key_order[i] = i;
        flash__read_key(&c, &v);
    }
    for (i = 0; i < g->n_tensor; i++) {
        info_at[i] = c.at;
        info_order[i] = i;
        flash__read_info(&c, &t, &offset);
    }
    if (c.status) return c.status;
    g->key_at = key_at;
    g->key_order = key_order;
    g->info_at = info_at;
    g->info_order = info_order;
    flash__sort(key_order, g->n_key, flash__key_less, g);
    flash__sort(info_order, g->n_tensor, flash__info_less, g);
    for (i = 1; i < g->n_key; i++)
        if (!flash__names_differ(g, key_at, key_order[i - 1], key_order[i])) {
            c.at = (size_t)key_at[key_order[i]];
            flash__read_key(&c, &v);
            return flash__bad(&c, FLASH_E_FORMAT, "two keys of the same name", v.key, v.key_bytes);
        }
    for (i = 1; i < g->n_tensor; i++)
        if (!flash__names_differ(g, info_at, info_order[i - 1], info_order[i])) {
            c.at = (size_t)info_at[info_order[i]];
            flash__read_info(&c, &t, &offset);
            return flash__bad(&c, FLASH_E_FORMAT, "two tensors of the same name", t.name,
                              t.name_bytes);
        }
    return FLASH_E_NONE;
}

FLASH_API void flash_gguf_free(flash_gguf *g)
{
    flash_host host;
    if (!g) return;
    host = g->host;
    flash__file_close(&g->file, &host);
    flash__release(&host.allocator, g, g->block);
}

FLASH_API flash_status flash_gguf_open(flash_gguf **out, const flash_source *source,
                                       const flash_host *host, flash_error *err)
{
    flash_gguf g;
    flash__arena arena = {NULL, 0};
    flash_status s;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the file");
    *out = NULL;
    if (!source) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no source");
    memset(&g, 0, sizeof g);
    if (host) g.host = *host;
    g.headers = source->headers != 0;
    s = flash__file_open(&g.file, source, &g.host, err);
    if (s) return s;
    s = flash__gguf_scan(&g, err);
    if (!s) {
        flash__take(&arena, 1, sizeof g);
        flash__gguf_index(&g, &arena, err);
        g.block = arena.used;
        arena.used = 0;
        arena.base = g.block == SIZE_MAX ? NULL
                                         : (uint8_t *)flash__acquire(&g.host.allocator, g.block);
        if (!arena.base)
            s = flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the index of the file");
    }
    if (s) {
        flash__file_close(&g.file, &g.host);
        return s;
    }
    *out = (flash_gguf *)flash__take(&arena, 1, sizeof g);
    **out = g;
    s = flash__gguf_index(*out, &arena, err);
    if (s) {
        flash_gguf_free(*out);
        *out = NULL;
    }
    return s;
}

FLASH_API int flash_gguf_version(const flash_gguf *g) { return g ? (int)g->version : 0; }
FLASH_API uint64_t flash_gguf_size(const flash_gguf *g) { return g ? g->file.size : 0; }
FLASH_API size_t flash_gguf_keys(const flash_gguf *g) { return g ? g->n_key : 0; }
FLASH_API size_t flash_gguf_tensors(const flash_gguf *g) { return g ? g->n_tensor : 0; }

FLASH_API flash_status flash_gguf_key(const flash_gguf *g, size_t i, flash_value *out)
{
    flash__cursor c;
    if (!g || !out || i >= g->n_key) return FLASH_E_ARGUMENT;
    c.g = g;
    c.at = (size_t)g->key_at[i];
    c.err = NULL;
    c.status = FLASH_E_NONE;
    return flash__read_key(&c, out);
}

/* Reads the tensor info at file offset `at`. */
static flash_status flash__info_at(const flash_gguf *g, size_t at, flash_tensor *out)
{
    flash__cursor c;
    uint64_t offset = 0;
    c.g = g;
    c.at = at;
    c.err = NULL;
    c.status = FLASH_E_NONE;
    if (flash__read_info(&c, out, &offset)) return c.status;
    out->offset = g->data_at + offset;
    out->data = out->offset > g->file.size || out->bytes > g->file.size - out->offset
        ? NULL
        : g->file.data + out->offset;
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_gguf_tensor(const flash_gguf *g, size_t i, flash_tensor *out)
{
    if (!g || !out || i >= g->n_tensor) return FLASH_E_ARGUMENT;
    return flash__info_at(g, (size_t)g->info_at[i], out);
}

/* Returns the position of a name in order[n], or n if it is not there. */
static uint32_t flash__search_name(const flash_gguf *g, const uint64_t *at, const uint32_t *order,
                                   uint32_t n, const char *name)
{
    uint32_t lo = 0, hi = n;
    size_t length = strlen(name), bytes;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const char *text = flash__name_at(g, at[order[mid]], &bytes);
        int c = flash__compare(text, bytes, name, length);
        if (!c) return mid;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return n;
}

FLASH_API flash_status flash_gguf_find(const flash_gguf *g, const char *key, flash_value *out)
{
    uint32_t i;
    if (!g || !key || !out) return FLASH_E_ARGUMENT;
    if (!g->key_order) { /* no index yet: the memory plan asks for a few keys */
        flash__cursor c;
        flash_value v;
        c.g = g;
        c.at = g->keys_at;
        c.err = NULL;
        c.status = FLASH_E_NONE;
        for (i = 0; i < g->n_key && !flash__read_key(&c, &v); i++)
            if (v.key_bytes == strlen(key) && !memcmp(v.key, key, v.key_bytes)) {
                *out = v;
                return FLASH_E_NONE;
            }
        return FLASH_E_ARGUMENT;
    }
    i = flash__search_name(g, g->key_at, g->key_order, g->n_key, key);
    return i < g->n_key ? flash_gguf_key(g, g->key_order[i], out) : FLASH_E_ARGUMENT;
}

FLASH_API flash_status flash_gguf_find_tensor(const flash_gguf *g, const char *name,
                                              flash_tensor *out)
{
    uint32_t i;
    if (!g || !name || !out) return FLASH_E_ARGUMENT;
    i = flash__search_name(g, g->info_at, g->info_order, g->n_tensor, name);
    return i < g->n_tensor ? flash_gguf_tensor(g, g->info_order[i], out) : FLASH_E_ARGUMENT;
}

FLASH_API int64_t flash_value_integer(const flash_value *v, uint64_t i)
{
    const uint8_t *p;
    double d;
    if (!v || i >= v->count || v->item == FLASH_VALUE_STRING) return 0;
    p = v->data + i * (uint64_t)flash__value_bytes(v->item);
    switch (v->item) {
    case FLASH_VALUE_U8:
    case FLASH_VALUE_BOOL: return p[0];
    case FLASH_VALUE_I8: return p[0] < 128 ? p[0] : (int64_t)p[0] - 256;
    case FLASH_VALUE_U16: return flash__rd16(p);
    case FLASH_VALUE_I16: return (int16_t)flash__rd16(p);
    case FLASH_VALUE_U32: return flash__rd32(p);
    case FLASH_VALUE_I32: return (int32_t)flash__rd32(p);
    case FLASH_VALUE_U64:
    case FLASH_VALUE_I64: return (int64_t)flash__rd64(p);
    default: d = flash_value_number(v, i); return d > -9e18 && d < 9e18 ? (int64_t)d : 0;
    }
}

FLASH_API double flash_value_number(const flash_value *v, uint64_t i)
{
    if (!v || i >= v->count || v->item == FLASH_VALUE_STRING) return 0;
    if (v->item == FLASH_VALUE_F32) return flash__rdf32(v->data + 4 * i);
    if (v->item == FLASH_VALUE_F64) return flash__bits_f64(flash__rd64(v->data + 8 * i));
    if (v->item == FLASH_VALUE_U64) return (double)flash__rd64(v->data + 8 * i);
    return (double)flash_value_integer(v, i);
}

FLASH_API const char *flash_value_string(const flash_value *v, size_t *at, size_t *bytes)
{
    const char *text;
    if (!v || !at || !bytes || v->item != FLASH_VALUE_STRING) return NULL;
    if (v->type == FLASH_VALUE_STRING) {
        if (*at) return NULL;
        *at = 1;
        *bytes = v->bytes;
        return (const char *)v->data;
    }
    if (*at >= v->bytes) return NULL;
    *bytes = (size_t)flash__rd64(v->data + *at);
    text = (const char *)v->data + *at + 8;
    *at += 8 + *bytes;
    return text;
}

/* --- writing --------------------------------------------------------------- */

static flash_status flash__write(flash_gguf_writer *w, const void *data, size_t n)
{
    if (!w->status && n && w->write(w->user, data, n)) w->status = FLASH_E_IO;
    if (!w->status) w->written += n;
    return w->status;
}
static void flash__write32(flash_gguf_writer *w, uint32_t v)
{
    uint8_t b[4];
    flash__wr32(b, v);
    flash__write(w, b, 4);
}
static void flash__write64(flash_gguf_writer *w, uint64_t v)
{
    uint8_t b[8];
    flash__wr64(b, v);
    flash__write(w, b, 8);
}
static void flash__write_text(flash_gguf_writer *w, const char *text, size_t n)
{
    flash__write64(w, n);
    flash__write(w, text, n);
}
static void flash__write_zeros(flash_gguf_writer *w, uint64_t n)
{
    static const uint8_t zeros[32] = {0};
    for (; n > 32; n -= 32) flash__write(w, zeros, 32);
    flash__write(w, zeros, (size_t)n);
}
static uint64_t flash__pad32(uint64_t n) { return (n + 31) & ~(uint64_t)31; }

/* Writes a key and the type of the value that follows. Fails if flash_gguf_write_begin announced
   fewer keys. */
static flash_status flash__write_key(flash_gguf_writer *w, const char *key, size_t n,
                                     flash_value_type type)
{
    if (!w->keys_left || !n || n > 65535) w->status = w->status ? w->status : FLASH_E_ARGUMENT;
    if (w->status) return w->status;
    w->keys_left--;
    flash__write_text(w, key, n);
    flash__write32(w, (uint32_t)type);
    return w->status;
}

FLASH_API flash_status flash_gguf_write_begin(flash_gguf_writer *w, uint32_t n_keys,
                                              uint32_t n_tensors)
{
    if (!w || !w->write) return FLASH_E_ARGUMENT;
    w->keys_left = n_keys;
    w->tensors_left = w->tensors = n_tensors;
    flash__write(w, "GGUF", 4);
    flash__write32(w, 3);
    flash__write64(w, n_tensors);
    flash__write64(w, n_keys);
    return w->status;
}

FLASH_API flash_status flash_gguf_write_u32(flash_gguf_writer *w, const char *key, uint32_t v)
{
    if (!flash__write_key(w, key, strlen(key), FLASH_VALUE_U32)) flash__write32(w, v);
    return w->status;
}
FLASH_API flash_status flash_gguf_write_f32(flash_gguf_writer *w, const char *key, float v)
{
    if (!flash__write_key(w, key, strlen(key), FLASH_VALUE_F32))
        flash__write32(w, flash__f32_bits(v));
    return w->status;
}
FLASH_API flash_status flash_gguf_write_bool(flash_gguf_writer *w, const char *key, int v)
{
    uint8_t b = v != 0;
    if (!flash__write_key(w, key, strlen(key), FLASH_VALUE_BOOL)) flash__write(w, &b, 1);
    return w->status;
}
FLASH_API flash_status flash_gguf_write_string(flash_gguf_writer *w, const char *key,
                                               const char *text)
{
    if (!flash__write_key(w, key, strlen(key), FLASH_VALUE_STRING))
        flash__write_text(w, text, strlen(text));
    return w->status;
}

FLASH_API flash_status flash_gguf_write_array(flash_gguf_writer *w, const char *key,
                                              flash_value_type item, const void *data, size_t n)
{
    size_t i;
    if (item != FLASH_VALUE_U32 && item != FLASH_VALUE_I32 && item != FLASH_VALUE_F32)
        return w->status = w->status ? w->status : FLASH_E_ARGUMENT;
    if (flash__write_key(w, key, strlen(key), FLASH_VALUE_ARRAY)) return w->status;
    flash__write32(w, (uint32_t)item);
    flash__write64(w, n);
    for (i = 0; i < n && !w->status; i++) {
        uint32_t u;
        memcpy(&u, (const uint8_t *)data + 4 * i, 4);
        flash__write32(w, u);
    }
    return w->status;
}

FLASH_API flash_status flash_gguf_write_strings(flash_gguf_writer *w, const char *key,
                                                const char *const *text, const size_t *bytes,
                                                size_t n)
{
    size_t i;
    if (flash__write_key(w, key, strlen(key), FLASH_VALUE_ARRAY)) return w->status;
    flash__write32(w, FLASH_VALUE_STRING);
    flash__write64(w, n);
    for (i = 0; i < n && !w->status; i++)
        flash__write_text(w, text[i], bytes ? bytes[i] : strlen(text[i]));
    return w->status;
}

FLASH_API flash_status flash_gguf_write_value(flash_gguf_writer *w, const flash_value *v)
{
    if (flash__write_key(w, v->key, v->key_bytes, v->type)) return w->status;
    if (v->type == FLASH_VALUE_ARRAY) {
        flash__write32(w, (uint32_t)v->item);
        flash__write64(w, v->count);
    }
    if (v->type == FLASH_VALUE_STRING) flash__write64(w, v->bytes);
    return flash__write(w, v->data, v->bytes);
}

FLASH_API flash_status flash_gguf_write_tensor(flash_gguf_writer *w, const char *name,
                                               flash_type type, int n_dims, const uint64_t *ne)
{
    size_t bytes = 0, n = strlen(name);
    int d,
        bad = w->keys_left || !w->tensors_left || n_dims < 1 || n_dims > 4 || !n
        || n > FLASH__NAME_MAX || ne[0] > SIZE_MAX;
    if (!bad) bytes = flash_row_bytes(type, (size_t)ne[0]);
    for (d = 1; d < n_dims && !bad; d++)
        bad = ne[d] > SIZE_MAX || !flash__mul(&bytes, bytes, (size_t)ne[d]);
    if (w->status) return w->status;
    if (bad || !bytes) return w->status = FLASH_E_ARGUMENT;
    flash__write_text(w, name, n);
    flash__write32(w, (uint32_t)n_dims);
    for (d = 0; d < n_dims; d++) flash__write64(w, ne[d]);
    flash__write32(w, (uint32_t)type);
    flash__write64(w, w->offset);
    w->offset = flash__pad32(w->offset + bytes);
    w->tensors_left--;
    return w->status;
}

FLASH_API flash_status flash_gguf_write_data(flash_gguf_writer *w, const void *data, size_t bytes,
                                             int last)
{
    if (w->keys_left || w->tensors_left) w->status = w->status ? w->status : FLASH_E_ARGUMENT;
    if (!w->filled && !w->status) flash__write_zeros(w, flash__pad32(w->written) - w->written);
    flash__write(w, data, bytes);
    w->filled += bytes;
    if (last && !w->status) {
        flash__write_zeros(w, flash__pad32(w->filled) - w->filled);
        w->filled = flash__pad32(w->filled);
    }
    return w->status;
}

FLASH_API flash_status flash_gguf_write_end(flash_gguf_writer *w)
{
    if (!w->status && (w->keys_left || w->tensors_left || w->filled != w->offset))
        w->status = FLASH_E_ARGUMENT;
    return w->status;
}

/* ===== >>unicode ========================================================== */

/* Character classes for the pre-tokenizers, and UTF-8. tools/unicode.c makes the table from
   UnicodeData.txt and PropList.txt (Unicode 17). Its entries are start*16 + class, sorted; each
   holds up to the start of the next. The class FLASH__CASES is a run in which upper and lower case
   letters alternate, upper case first. A byte that is not valid UTF-8 counts as a character of one
   byte with the class of U+FFFD. */

enum {
    FLASH__OTHER,
    FLASH__UPPER,  /* Lu, Lt */
    FLASH__LOWER,  /* Ll */
    FLASH__LETTER, /* Lm, Lo */
    FLASH__MARK,
    FLASH__NUMBER,
    FLASH__PUNCT,
    FLASH__SYMBOL,
    FLASH__SPACE,
    FLASH__CASES
};

/* [128] the classes of the ASCII characters; each digit is a value of the enum above. */
static const char flash__ascii_class[] = "00000000088888000000000000000000"
                                         "86667666666766665555555555667776"
                                         "61111111111111111111111111166676"
                                         "7"
                                         "22222222222222222222222222"
                                         "67670";

/* clang-format off */
static const uint32_t flash__unicode[] = {
    0x800, 0x858, 0x860, 0xa08, 0xa16, 0xa27, 0xa76, 0xa87, 0xaa3,
    0xab6, 0xac7, 0xad0, 0xae7, 0xb25, 0xb47, 0xb52, 0xb66, 0xb87,
    0xb95, 0xba3, 0xbb6, 0xbc5, 0xbf6, 0xc01, 0xd77, 0xd81, 0xdf2,
    0xf77, 0xf82, 0x1009, 0x1382, 0x1399, 0x1492, 0x14a9, 0x1781, 0x1799,
    0x17f2, 0x1811, 0x1829, 0x1861, 0x1882, 0x1891, 0x18c2, 0x18e1, 0x1922,
    0x1931, 0x1952, 0x1961, 0x1992, 0x19c1, 0x19e2, 0x19f1, 0x1a09, 0x1a61,
    0x1a79, 0x1ab2, 0x1ac1, 0x1ad2, 0x1ae1, 0x1b02, 0x1b11, 0x1b39, 0x1b71,
    0x1b92, 0x1bb3, 0x1bc1, 0x1bd2, 0x1c03, 0x1c41, 0x1c62, 0x1c71, 0x1c92,
    0x1ca1, 0x1cb9, 0x1dd2, 0x1de9, 0x1f02, 0x1f11, 0x1f29, 0x1f61, 0x1f89,
    0x2342, 0x23a1, 0x23c2, 0x23d1, 0x23f2, 0x2411, 0x2422, 0x2431, 0x2469,
    0x2502, 0x2943, 0x2962, 0x2b03, 0x2c27, 0x2c63, 0x2d27, 0x2e03, 0x2e57,
    0x2ec3, 0x2ed7, 0x2ee3, 0x2ef7, 0x3004, 0x3709, 0x3743, 0x3757, 0x3761,
    0x3772, 0x3780, 0x37a3, 0x37b2, 0x37e6, 0x37f1, 0x3800, 0x3847, 0x3861,
    0x3876, 0x3881, 0x38b0, 0x38c1, 0x38d0, 0x38e1, 0x3902, 0x3911, 0x3a20,
    0x3a31, 0x3ac2, 0x3cf1, 0x3d02, 0x3d21, 0x3d52, 0x3d89, 0x3f02, 0x3f41,
    0x3f52, 0x3f67, 0x3f71, 0x3f82, 0x3f91, 0x3fb2, 0x3fd1, 0x4302, 0x4609,
    0x4827, 0x4834, 0x48a9, 0x4c01, 0x4c19, 0x4cf2, 0x4d09, 0x5300, 0x5311,
    0x5570, 0x5593, 0x55a6, 0x5602, 0x5896, 0x58b0, 0x58d7, 0x5900, 0x5914,
    0x5be6, 0x5bf4, 0x5c06, 0x5c14, 0x5c36, 0x5c44, 0x5c66, 0x5c74, 0x5c80,
    0x5d03, 0x5eb0, 0x5ef3, 0x5f36, 0x5f50, 0x6067, 0x6096, 0x60b7, 0x60c6,
    0x60e7, 0x6104, 0x61b6, 0x61c0, 0x61d6, 0x6203, 0x64b4, 0x6605, 0x66a6,
    0x66e3, 0x6704, 0x6713, 0x6d46, 0x6d53, 0x6d64, 0x6dd0, 0x6de7, 0x6df4,
    0x6e53, 0x6e74, 0x6e97, 0x6ea4, 0x6ee3, 0x6f05, 0x6fa3, 0x6fd7, 0x6ff3,
    0x7006, 0x70e0, 0x7103, 0x7114, 0x7123, 0x7304, 0x74b0, 0x74d3, 0x7a64,
    0x7b13, 0x7b20, 0x7c05, 0x7ca3, 0x7eb4, 0x7f43, 0x7f67, 0x7f76, 0x7fa3,
    0x7fb0, 0x7fd4, 0x7fe7, 0x8003, 0x8164, 0x81a3, 0x81b4, 0x8243, 0x8254,
    0x8283, 0x8294, 0x82e0, 0x8306, 0x83f0, 0x8403, 0x8594, 0x85c0, 0x85e6,
    0x85f0, 0x8603, 0x86b0, 0x8703, 0x8887, 0x8893, 0x8900, 0x8974, 0x8a03,
    0x8ca4, 0x8e20, 0x8e34, 0x9043, 0x93a4, 0x93d3, 0x93e4, 0x9503, 0x9514,
    0x9583, 0x9624, 0x9646, 0x9665, 0x9706, 0x9713, 0x9814, 0x9840, 0x9853,
    0x98d0, 0x98f3, 0x9910, 0x9933, 0x9a90, 0x9aa3, 0x9b10, 0x9b23, 0x9b30,
    0x9b63, 0x9ba0, 0x9bc4, 0x9bd3, 0x9be4, 0x9c50, 0x9c74, 0x9c90, 0x9cb4,
    0x9ce3, 0x9cf0, 0x9d74, 0x9d80, 0x9dc3, 0x9de0, 0x9df3, 0x9e24, 0x9e40,
    0x9e65, 0x9f03, 0x9f27, 0x9f45, 0x9fa7, 0x9fc3, 0x9fd6, 0x9fe4, 0x9ff0,
    0xa014, 0xa040, 0xa053, 0xa0b0, 0xa0f3, 0xa110, 0xa133, 0xa290, 0xa2a3,
    0xa310, 0xa323, 0xa340, 0xa353, 0xa370, 0xa383, 0xa3a0, 0xa3c4, 0xa3d0,
    0xa3e4, 0xa430, 0xa474, 0xa490, 0xa4b4, 0xa4e0, 0xa514, 0xa520, 0xa593,
    0xa5d0, 0xa5e3, 0xa5f0, 0xa665, 0xa704, 0xa723, 0xa754, 0xa766, 0xa770,
    0xa814, 0xa840, 0xa853, 0xa8e0, 0xa8f3, 0xa920, 0xa933, 0xaa90, 0xaaa3,
    0xab10, 0xab23, 0xab40, 0xab53, 0xaba0, 0xabc4, 0xabd3, 0xabe4, 0xac60,
    0xac74, 0xaca0, 0xacb4, 0xace0, 0xad03, 0xad10, 0xae03, 0xae24, 0xae40,
    0xae65, 0xaf06, 0xaf17, 0xaf20, 0xaf93, 0xafa4, 0xb000, 0xb014, 0xb040,
    0xb053, 0xb0d0, 0xb0f3, 0xb110, 0xb133, 0xb290, 0xb2a3, 0xb310, 0xb323,
    0xb340, 0xb353, 0xb3a0, 0xb3c4, 0xb3d3, 0xb3e4, 0xb450, 0xb474, 0xb490,
    0xb4b4, 0xb4e0, 0xb554, 0xb580, 0xb5c3, 0xb5e0, 0xb5f3, 0xb624, 0xb640,
    0xb665, 0xb707, 0xb713, 0xb725, 0xb780, 0xb824, 0xb833, 0xb840, 0xb853,
    0xb8b0, 0xb8e3, 0xb910, 0xb923, 0xb960, 0xb993, 0xb9b0, 0xb9c3, 0xb9d0,
    0xb9e3, 0xba00, 0xba33, 0xba50, 0xba83, 0xbab0, 0xbae3, 0xbba0, 0xbbe4,
    0xbc30, 0xbc64, 0xbc90, 0xbca4, 0xbce0, 0xbd03, 0xbd10, 0xbd74, 0xbd80,
    0xbe65, 0xbf37, 0xbfb0, 0xc004, 0xc053, 0xc0d0, 0xc0e3, 0xc110, 0xc123,
    0xc290, 0xc2a3, 0xc3a0, 0xc3c4, 0xc3d3, 0xc3e4, 0xc450, 0xc464, 0xc490,
    0xc4a4, 0xc4e0, 0xc554, 0xc570, 0xc583, 0xc5b0, 0xc5c3, 0xc5e0, 0xc603,
    0xc624, 0xc640, 0xc665, 0xc700, 0xc776, 0xc785, 0xc7f7, 0xc803, 0xc814,
    0xc846, 0xc853, 0xc8d0, 0xc8e3, 0xc910, 0xc923, 0xca90, 0xcaa3, 0xcb40,
    0xcb53, 0xcba0, 0xcbc4, 0xcbd3, 0xcbe4, 0xcc50, 0xcc64, 0xcc90, 0xcca4,
    0xcce0, 0xcd54, 0xcd70, 0xcdc3, 0xcdf0, 0xce03, 0xce24, 0xce40, 0xce65,
    0xcf00, 0xcf13, 0xcf34, 0xcf40, 0xd004, 0xd043, 0xd0d0, 0xd0e3, 0xd110,
    0xd123, 0xd3b4, 0xd3d3, 0xd3e4, 0xd450, 0xd464, 0xd490, 0xd4a4, 0xd4e3,
    0xd4f7, 0xd500, 0xd543, 0xd574, 0xd585, 0xd5f3, 0xd624, 0xd640, 0xd665,
    0xd797, 0xd7a3, 0xd800, 0xd814, 0xd840, 0xd853, 0xd970, 0xd9a3, 0xdb20,
    0xdb33, 0xdbc0, 0xdbd3, 0xdbe0, 0xdc03, 0xdc70, 0xdca4, 0xdcb0, 0xdcf4,
    0xdd50, 0xdd64, 0xdd70, 0xdd84, 0xde00, 0xde65, 0xdf00, 0xdf24, 0xdf46,
    0xdf50, 0xe013, 0xe314, 0xe323, 0xe344, 0xe3b0, 0xe3f7, 0xe403, 0xe474,
    0xe4f6, 0xe505, 0xe5a6, 0xe5c0, 0xe813, 0xe830, 0xe843, 0xe850, 0xe863,
    0xe8b0, 0xe8c3, 0xea40, 0xea53, 0xea60, 0xea73, 0xeb14, 0xeb23, 0xeb44,
    0xebd3, 0xebe0, 0xec03, 0xec50, 0xec63, 0xec70, 0xec84, 0xecf0, 0xed05,
    0xeda0, 0xedc3, 0xee00, 0xf003, 0xf017, 0xf046, 0xf137, 0xf146, 0xf157,
    0xf184, 0xf1a7, 0xf205, 0xf347, 0xf354, 0xf367, 0xf374, 0xf387, 0xf394,
    0xf3a6, 0xf3e4, 0xf403, 0xf480, 0xf493, 0xf6d0, 0xf714, 0xf856, 0xf864,
    0xf883, 0xf8d4, 0xf980, 0xf994, 0xfbd0, 0xfbe7, 0xfc64, 0xfc77, 0xfcd0,
    0xfce7, 0xfd06, 0xfd57, 0xfd96, 0xfdb0, 0x10003, 0x102b4, 0x103f3, 0x10405,
    0x104a6, 0x10503, 0x10564, 0x105a3, 0x105e4, 0x10613, 0x10624, 0x10653, 0x10674,
    0x106e3, 0x10714, 0x10753, 0x10824, 0x108e3, 0x108f4, 0x10905, 0x109a4, 0x109e7,
    0x10a01, 0x10c60, 0x10c71, 0x10c80, 0x10cd1, 0x10ce0, 0x10d02, 0x10fb6, 0x10fc3,
    0x10fd2, 0x11003, 0x12490, 0x124a3, 0x124e0, 0x12503, 0x12570, 0x12583, 0x12590,
    0x125a3, 0x125e0, 0x12603, 0x12890, 0x128a3, 0x128e0, 0x12903, 0x12b10, 0x12b23,
    0x12b60, 0x12b83, 0x12bf0, 0x12c03, 0x12c10, 0x12c23, 0x12c60, 0x12c83, 0x12d70,
    0x12d83, 0x13110, 0x13123, 0x13160, 0x13183, 0x135b0, 0x135d4, 0x13606, 0x13695,
    0x137d0, 0x13803, 0x13907, 0x139a0, 0x13a01, 0x13f60, 0x13f82, 0x13fe0, 0x14006,
    0x14013, 0x166d7, 0x166e6, 0x166f3, 0x16808, 0x16813, 0x169b6, 0x169d0, 0x16a03,
    0x16eb6, 0x16ee5, 0x16f13, 0x16f90, 0x17003, 0x17124, 0x17160, 0x171f3, 0x17324,
    0x17356, 0x17370, 0x17403, 0x17524, 0x17540, 0x17603, 0x176d0, 0x176e3, 0x17710,
    0x17724, 0x17740, 0x17803, 0x17b44, 0x17d46, 0x17d73, 0x17d86, 0x17db7, 0x17dc3,
    0x17dd4, 0x17de0, 0x17e05, 0x17ea0, 0x17f05, 0x17fa0, 0x18006, 0x180b4, 0x180e0,
    0x180f4, 0x18105, 0x181a0, 0x18203, 0x18790, 0x18803, 0x18854, 0x18873, 0x18a94,
    0x18aa3, 0x18ab0, 0x18b03, 0x18f60, 0x19003, 0x191f0, 0x19204, 0x192c0, 0x19304,
    0x193c0, 0x19407, 0x19410, 0x19446, 0x19465, 0x19503, 0x196e0, 0x19703, 0x19750,
    0x19803, 0x19ac0, 0x19b03, 0x19ca0, 0x19d05, 0x19db0, 0x19de7, 0x1a003, 0x1a174,
    0x1a1c0, 0x1a1e6, 0x1a203, 0x1a554, 0x1a5f0, 0x1a604, 0x1a7d0, 0x1a7f4, 0x1a805,
    0x1a8a0, 0x1a905, 0x1a9a0, 0x1aa06, 0x1aa73, 0x1aa86, 0x1aae0, 0x1ab04, 0x1ade0,
    0x1ae04, 0x1aec0, 0x1b004, 0x1b053, 0x1b344, 0x1b453, 0x1b4d0, 0x1b4e6, 0x1b505,
    0x1b5a6, 0x1b617, 0x1b6b4, 0x1b747, 0x1b7d6, 0x1b804, 0x1b833, 0x1ba14, 0x1bae3,
    0x1bb05, 0x1bba3, 0x1be64, 0x1bf40, 0x1bfc6, 0x1c003, 0x1c244, 0x1c380, 0x1c3b6,
    0x1c405, 0x1c4a0, 0x1c4d3, 0x1c505, 0x1c5a3, 0x1c7e6, 0x1c802, 0x1c891, 0x1c8a2,
    0x1c8b0, 0x1c901, 0x1cbb0, 0x1cbd1, 0x1cc06, 0x1cc80, 0x1cd04, 0x1cd36, 0x1cd44,
    0x1ce93, 0x1ced4, 0x1cee3, 0x1cf44, 0x1cf53, 0x1cf74, 0x1cfa3, 0x1cfb0, 0x1d002,
    0x1d2c3, 0x1d6b2, 0x1d783, 0x1d792, 0x1d9b3, 0x1dc04, 0x1e009, 0x1e962, 0x1e9e9,
    0x1f002, 0x1f081, 0x1f102, 0x1f160, 0x1f181, 0x1f1e0, 0x1f202, 0x1f281, 0x1f302,
    0x1f381, 0x1f402, 0x1f460, 0x1f481, 0x1f4e0, 0x1f502, 0x1f580, 0x1f591, 0x1f5a0,
    0x1f5b1, 0x1f5c0, 0x1f5d1, 0x1f5e0, 0x1f5f1, 0x1f602, 0x1f681, 0x1f702, 0x1f7e0,
    0x1f802, 0x1f881, 0x1f902, 0x1f981, 0x1fa02, 0x1fa81, 0x1fb02, 0x1fb50, 0x1fb62,
    0x1fb81, 0x1fbd7, 0x1fbe2, 0x1fbf7, 0x1fc22, 0x1fc50, 0x1fc62, 0x1fc81, 0x1fcd7,
    0x1fd02, 0x1fd40, 0x1fd62, 0x1fd81, 0x1fdc0, 0x1fdd7, 0x1fe02, 0x1fe81, 0x1fed7,
    0x1ff00, 0x1ff22, 0x1ff50, 0x1ff62, 0x1ff81, 0x1ffd7, 0x1fff0, 0x20008, 0x200b0,
    0x20106, 0x20288, 0x202a0, 0x202f8, 0x20306, 0x20447, 0x20456, 0x20527, 0x20536,
    0x205f8, 0x20600, 0x20705, 0x20713, 0x20720, 0x20745, 0x207a7, 0x207d6, 0x207f3,
    0x20805, 0x208a7, 0x208d6, 0x208f0, 0x20903, 0x209d0, 0x20a07, 0x20c20, 0x20d04,
    0x20f10, 0x21007, 0x21021, 0x21037, 0x21071, 0x21087, 0x210a2, 0x210b1, 0x210e2,
    0x21101, 0x21132, 0x21147, 0x21151, 0x21167, 0x21191, 0x211e7, 0x21241, 0x21257,
    0x21261, 0x21277, 0x21281, 0x21297, 0x212a1, 0x212e7, 0x212f2, 0x21301, 0x21342,
    0x21353, 0x21392, 0x213a7, 0x213c2, 0x213e1, 0x21407, 0x21451, 0x21462, 0x214a7,
    0x214e2, 0x214f7, 0x21505, 0x21831, 0x21842, 0x21855, 0x218a7, 0x218c0, 0x21907,
    0x23086, 0x230c7, 0x23296, 0x232b7, 0x242a0, 0x24407, 0x244b0, 0x24605, 0x249c7,
    0x24ea5, 0x25007, 0x27686, 0x27765, 0x27947, 0x27c56, 0x27c77, 0x27e66, 0x27f07,
    0x29836, 0x29997, 0x29d86, 0x29dc7, 0x29fc6, 0x29fe7, 0x2b740, 0x2b767, 0x2c001,
    0x2c302, 0x2c601, 0x2c612, 0x2c621, 0x2c652, 0x2c679, 0x2c6d1, 0x2c709, 0x2c742,
    0x2c751, 0x2c762, 0x2c7c3, 0x2c7e1, 0x2c809, 0x2ce42, 0x2ce57, 0x2ceb9, 0x2cef4,
    0x2cf21, 0x2cf32, 0x2cf40, 0x2cf96, 0x2cfd5, 0x2cfe6, 0x2d002, 0x2d260, 0x2d272,
    0x2d280, 0x2d2d2, 0x2d2e0, 0x2d303, 0x2d680, 0x2d6f3, 0x2d706, 0x2d710, 0x2d7f4,
    0x2d803, 0x2d970, 0x2da03, 0x2da70, 0x2da83, 0x2daf0, 0x2db03, 0x2db70, 0x2db83,
    0x2dbf0, 0x2dc03, 0x2dc70, 0x2dc83, 0x2dcf0, 0x2dd03, 0x2dd70, 0x2dd83, 0x2ddf0,
    0x2de04, 0x2e006, 0x2e2f3, 0x2e306, 0x2e507, 0x2e526, 0x2e5e0, 0x2e807, 0x2e9a0,
    0x2e9b7, 0x2ef40, 0x2f007, 0x2fd60, 0x2ff07, 0x30008, 0x30016, 0x30047, 0x30053,
    0x30075, 0x30086, 0x30127, 0x30146, 0x30207, 0x30215, 0x302a4, 0x30306, 0x30313,
    0x30367, 0x30385, 0x303b3, 0x303d6, 0x303e7, 0x30400, 0x30413, 0x30970, 0x30994,
    0x309b7, 0x309d3, 0x30a06, 0x30a13, 0x30fb6, 0x30fc3, 0x31000, 0x31053, 0x31300,
    0x31313, 0x318f0, 0x31907, 0x31925, 0x31967, 0x31a03, 0x31c07, 0x31e60, 0x31ef7,
    0x31f03, 0x32007, 0x321f0, 0x32205, 0x322a7, 0x32485, 0x32507, 0x32515, 0x32607,
    0x32805, 0x328a7, 0x32b15, 0x32c07, 0x34003, 0x4dc07, 0x4e003, 0xa48d0, 0xa4907,
    0xa4c70, 0xa4d03, 0xa4fe6, 0xa5003, 0xa60d6, 0xa6103, 0xa6205, 0xa62a3, 0xa62c0,
    0xa6409, 0xa66e3, 0xa66f4, 0xa6736, 0xa6744, 0xa67e6, 0xa67f3, 0xa6809, 0xa69c3,
    0xa69e4, 0xa6a03, 0xa6e65, 0xa6f04, 0xa6f26, 0xa6f80, 0xa7007, 0xa7173, 0xa7207,
    0xa7229, 0xa7302, 0xa7329, 0xa7703, 0xa7712, 0xa7799, 0xa77d1, 0xa77e9, 0xa7883,
    0xa7897, 0xa78b9, 0xa78f3, 0xa7909, 0xa7942, 0xa7969, 0xa7aa1, 0xa7af2, 0xa7b01,
    0xa7b49, 0xa7c41, 0xa7c79, 0xa7cb1, 0xa7cc9, 0xa7dc1, 0xa7dd0, 0xa7f13, 0xa7f51,
    0xa7f62, 0xa7f73, 0xa7fa2, 0xa7fb3, 0xa8024, 0xa8033, 0xa8064, 0xa8073, 0xa80b4,
    0xa80c3, 0xa8234, 0xa8287, 0xa82c4, 0xa82d0, 0xa8305, 0xa8367, 0xa83a0, 0xa8403,
    0xa8746, 0xa8780, 0xa8804, 0xa8823, 0xa8b44, 0xa8c60, 0xa8ce6, 0xa8d05, 0xa8da0,
    0xa8e04, 0xa8f23, 0xa8f86, 0xa8fb3, 0xa8fc6, 0xa8fd3, 0xa8ff4, 0xa9005, 0xa90a3,
    0xa9264, 0xa92e6, 0xa9303, 0xa9474, 0xa9540, 0xa95f6, 0xa9603, 0xa97d0, 0xa9804,
    0xa9843, 0xa9b34, 0xa9c16, 0xa9ce0, 0xa9cf3, 0xa9d05, 0xa9da0, 0xa9de6, 0xa9e03,
    0xa9e54, 0xa9e63, 0xa9f05, 0xa9fa3, 0xa9ff0, 0xaa003, 0xaa294, 0xaa370, 0xaa403,
    0xaa434, 0xaa443, 0xaa4c4, 0xaa4e0, 0xaa505, 0xaa5a0, 0xaa5c6, 0xaa603, 0xaa777,
    0xaa7a3, 0xaa7b4, 0xaa7e3, 0xaab04, 0xaab13, 0xaab24, 0xaab53, 0xaab74, 0xaab93,
    0xaabe4, 0xaac03, 0xaac14, 0xaac23, 0xaac30, 0xaadb3, 0xaade6, 0xaae03, 0xaaeb4,
    0xaaf06, 0xaaf23, 0xaaf54, 0xaaf70, 0xab013, 0xab070, 0xab093, 0xab0f0, 0xab113,
    0xab170, 0xab203, 0xab270, 0xab283, 0xab2f0, 0xab302, 0xab5b7, 0xab5c3, 0xab602,
    0xab693, 0xab6a7, 0xab6c0, 0xab702, 0xabc03, 0xabe34, 0xabeb6, 0xabec4, 0xabee0,
    0xabf05, 0xabfa0, 0xac003, 0xd7a40, 0xd7b03, 0xd7c70, 0xd7cb3, 0xd7fc0, 0xf9003,
    0xfa6e0, 0xfa703, 0xfada0, 0xfb002, 0xfb070, 0xfb132, 0xfb180, 0xfb1d3, 0xfb1e4,
    0xfb1f3, 0xfb297, 0xfb2a3, 0xfb370, 0xfb383, 0xfb3d0, 0xfb3e3, 0xfb3f0, 0xfb403,
    0xfb420, 0xfb433, 0xfb450, 0xfb463, 0xfbb27, 0xfbd33, 0xfd3e6, 0xfd407, 0xfd503,
    0xfd907, 0xfd923, 0xfdc87, 0xfdd00, 0xfdf03, 0xfdfc7, 0xfe004, 0xfe106, 0xfe1a0,
    0xfe204, 0xfe306, 0xfe530, 0xfe546, 0xfe627, 0xfe636, 0xfe647, 0xfe670, 0xfe686,
    0xfe697, 0xfe6a6, 0xfe6c0, 0xfe703, 0xfe750, 0xfe763, 0xfefd0, 0xff016, 0xff047,
    0xff056, 0xff0b7, 0xff0c6, 0xff105, 0xff1a6, 0xff1c7, 0xff1f6, 0xff211, 0xff3b6,
    0xff3e7, 0xff3f6, 0xff407, 0xff412, 0xff5b6, 0xff5c7, 0xff5d6, 0xff5e7, 0xff5f6,
    0xff663, 0xffbf0, 0xffc23, 0xffc80, 0xffca3, 0xffd00, 0xffd23, 0xffd80, 0xffda3,
    0xffdd0, 0xffe07, 0xffe70, 0xffe87, 0xffef0, 0xfffc7, 0xfffe0, 0x100003, 0x1000c0,
    0x1000d3, 0x100270, 0x100283, 0x1003b0, 0x1003c3, 0x1003e0, 0x1003f3, 0x1004e0, 0x100503,
    0x1005e0, 0x100803, 0x100fb0, 0x101006, 0x101030, 0x101075, 0x101340, 0x101377, 0x101405,
    0x101797, 0x1018a5, 0x1018c7, 0x1018f0, 0x101907, 0x1019d0, 0x101a07, 0x101a10, 0x101d07,
    0x101fd4, 0x101fe0, 0x102803, 0x1029d0, 0x102a03, 0x102d10, 0x102e04, 0x102e15, 0x102fc0,
    0x103003, 0x103205, 0x103240, 0x1032d3, 0x103415, 0x103423, 0x1034a5, 0x1034b0, 0x103503,
    0x103764, 0x1037b0, 0x103803, 0x1039e0, 0x1039f6, 0x103a03, 0x103c40, 0x103c83, 0x103d06,
    0x103d15, 0x103d60, 0x104001, 0x104282, 0x104503, 0x1049e0, 0x104a05, 0x104aa0, 0x104b01,
    0x104d40, 0x104d82, 0x104fc0, 0x105003, 0x105280, 0x105303, 0x105640, 0x1056f6, 0x105701,
    0x1057b0, 0x1057c1, 0x1058b0, 0x1058c1, 0x105930, 0x105941, 0x105960, 0x105972, 0x105a20,
    0x105a32, 0x105b20, 0x105b32, 0x105ba0, 0x105bb2, 0x105bd0, 0x105c03, 0x105f40, 0x106003,
    0x107370, 0x107403, 0x107560, 0x107603, 0x107680, 0x107803, 0x107860, 0x107873, 0x107b10,
    0x107b23, 0x107bb0, 0x108003, 0x108060, 0x108083, 0x108090, 0x1080a3, 0x108360, 0x108373,
    0x108390, 0x1083c3, 0x1083d0, 0x1083f3, 0x108560, 0x108576, 0x108585, 0x108603, 0x108777,
    0x108795, 0x108803, 0x1089f0, 0x108a75, 0x108b00, 0x108e03, 0x108f30, 0x108f43, 0x108f60,
    0x108fb5, 0x109003, 0x109165, 0x1091c0, 0x1091f6, 0x109203, 0x1093a0, 0x1093f6, 0x109403,
    0x1095a0, 0x109803, 0x109b80, 0x109bc5, 0x109be3, 0x109c05, 0x109d00, 0x109d25, 0x10a003,
    0x10a014, 0x10a040, 0x10a054, 0x10a070, 0x10a0c4, 0x10a103, 0x10a140, 0x10a153, 0x10a180,
    0x10a193, 0x10a360, 0x10a384, 0x10a3b0, 0x10a3f4, 0x10a405, 0x10a490, 0x10a506, 0x10a590,
    0x10a603, 0x10a7d5, 0x10a7f6, 0x10a803, 0x10a9d5, 0x10aa00, 0x10ac03, 0x10ac87, 0x10ac93,
    0x10ae54, 0x10ae70, 0x10aeb5, 0x10af06, 0x10af70, 0x10b003, 0x10b360, 0x10b396, 0x10b403,
    0x10b560, 0x10b585, 0x10b603, 0x10b730, 0x10b785, 0x10b803, 0x10b920, 0x10b996, 0x10b9d0,
    0x10ba95, 0x10bb00, 0x10c003, 0x10c490, 0x10c801, 0x10cb30, 0x10cc02, 0x10cf30, 0x10cfa5,
    0x10d003, 0x10d244, 0x10d280, 0x10d305, 0x10d3a0, 0x10d405, 0x10d4a3, 0x10d501, 0x10d660,
    0x10d694, 0x10d6e6, 0x10d6f3, 0x10d702, 0x10d860, 0x10d8e7, 0x10d900, 0x10e605, 0x10e7f0,
    0x10e803, 0x10eaa0, 0x10eab4, 0x10ead6, 0x10eae0, 0x10eb03, 0x10eb20, 0x10ec23, 0x10ec80,
    0x10ed06, 0x10ed17, 0x10ed90, 0x10efa4, 0x10f003, 0x10f1d5, 0x10f273, 0x10f280, 0x10f303,
    0x10f464, 0x10f515, 0x10f556, 0x10f5a0, 0x10f703, 0x10f824, 0x10f866, 0x10f8a0, 0x10fb03,
    0x10fc55, 0x10fcc0, 0x10fe03, 0x10ff70, 0x110004, 0x110033, 0x110384, 0x110476, 0x1104e0,
    0x110525, 0x110704, 0x110713, 0x110734, 0x110753, 0x110760, 0x1107f4, 0x110833, 0x110b04,
    0x110bb6, 0x110bd0, 0x110be6, 0x110c24, 0x110c30, 0x110d03, 0x110e90, 0x110f05, 0x110fa0,
    0x111004, 0x111033, 0x111274, 0x111350, 0x111365, 0x111406, 0x111443, 0x111454, 0x111473,
    0x111480, 0x111503, 0x111734, 0x111746, 0x111763, 0x111770, 0x111804, 0x111833, 0x111b34,
    0x111c13, 0x111c56, 0x111c94, 0x111cd6, 0x111ce4, 0x111d05, 0x111da3, 0x111db6, 0x111dc3,
    0x111dd6, 0x111e00, 0x111e15, 0x111f50, 0x112003, 0x112120, 0x112133, 0x1122c4, 0x112386,
    0x1123e4, 0x1123f3, 0x112414, 0x112420, 0x112803, 0x112870, 0x112883, 0x112890, 0x1128a3,
    0x1128e0, 0x1128f3, 0x1129e0, 0x1129f3, 0x112a96, 0x112aa0, 0x112b03, 0x112df4, 0x112eb0,
    0x112f05, 0x112fa0, 0x113004, 0x113040, 0x113053, 0x1130d0, 0x1130f3, 0x113110, 0x113133,
    0x113290, 0x1132a3, 0x113310, 0x113323, 0x113340, 0x113353, 0x1133a0, 0x1133b4, 0x1133d3,
    0x1133e4, 0x113450, 0x113474, 0x113490, 0x1134b4, 0x1134e0, 0x113503, 0x113510, 0x113574,
    0x113580, 0x1135d3, 0x113624, 0x113640, 0x113664, 0x1136d0, 0x113704, 0x113750, 0x113803,
    0x1138a0, 0x1138b3, 0x1138c0, 0x1138e3, 0x1138f0, 0x113903, 0x113b60, 0x113b73, 0x113b84,
    0x113c10, 0x113c24, 0x113c30, 0x113c54, 0x113c60, 0x113c74, 0x113cb0, 0x113cc4, 0x113d13,
    0x113d24, 0x113d33, 0x113d46, 0x113d60, 0x113d76, 0x113d90, 0x113e14, 0x113e30, 0x114003,
    0x114354, 0x114473, 0x1144b6, 0x114505, 0x1145a6, 0x1145c0, 0x1145d6, 0x1145e4, 0x1145f3,
    0x114620, 0x114803, 0x114b04, 0x114c43, 0x114c66, 0x114c73, 0x114c80, 0x114d05, 0x114da0,
    0x115803, 0x115af4, 0x115b60, 0x115b84, 0x115c16, 0x115d83, 0x115dc4, 0x115de0, 0x116003,
    0x116304, 0x116416, 0x116443, 0x116450, 0x116505, 0x1165a0, 0x116606, 0x1166d0, 0x116803,
    0x116ab4, 0x116b83, 0x116b96, 0x116ba0, 0x116c05, 0x116ca0, 0x116d05, 0x116e40, 0x117003,
    0x1171b0, 0x1171d4, 0x1172c0, 0x117305, 0x1173c6, 0x1173f7, 0x117403, 0x117470, 0x118003,
    0x1182c4, 0x1183b6, 0x1183c0, 0x118a01, 0x118c02, 0x118e05, 0x118f30, 0x118ff3, 0x119070,
    0x119093, 0x1190a0, 0x1190c3, 0x119140, 0x119153, 0x119170, 0x119183, 0x119304, 0x119360,
    0x119374, 0x119390, 0x1193b4, 0x1193f3, 0x119404, 0x119413, 0x119424, 0x119446, 0x119470,
    0x119505, 0x1195a0, 0x119a03, 0x119a80, 0x119aa3, 0x119d14, 0x119d80, 0x119da4, 0x119e13,
    0x119e26, 0x119e33, 0x119e44, 0x119e50, 0x11a003, 0x11a014, 0x11a0b3, 0x11a334, 0x11a3a3,
    0x11a3b4, 0x11a3f6, 0x11a474, 0x11a480, 0x11a503, 0x11a514, 0x11a5c3, 0x11a8a4, 0x11a9a6,
    0x11a9d3, 0x11a9e6, 0x11aa30, 0x11ab03, 0x11af90, 0x11b006, 0x11b0a0, 0x11b604, 0x11b680,
    0x11bc03, 0x11be16, 0x11be20, 0x11bf05, 0x11bfa0, 0x11c003, 0x11c090, 0x11c0a3, 0x11c2f4,
    0x11c370, 0x11c384, 0x11c403, 0x11c416, 0x11c460, 0x11c505, 0x11c6d0, 0x11c706, 0x11c723,
    0x11c900, 0x11c924, 0x11ca80, 0x11ca94, 0x11cb70, 0x11d003, 0x11d070, 0x11d083, 0x11d0a0,
    0x11d0b3, 0x11d314, 0x11d370, 0x11d3a4, 0x11d3b0, 0x11d3c4, 0x11d3e0, 0x11d3f4, 0x11d463,
    0x11d474, 0x11d480, 0x11d505, 0x11d5a0, 0x11d603, 0x11d660, 0x11d673, 0x11d690, 0x11d6a3,
    0x11d8a4, 0x11d8f0, 0x11d904, 0x11d920, 0x11d934, 0x11d983, 0x11d990, 0x11da05, 0x11daa0,
    0x11db03, 0x11ddc0, 0x11de05, 0x11dea0, 0x11ee03, 0x11ef34, 0x11ef76, 0x11ef90, 0x11f004,
    0x11f023, 0x11f034, 0x11f043, 0x11f110, 0x11f123, 0x11f344, 0x11f3b0, 0x11f3e4, 0x11f436,
    0x11f505, 0x11f5a4, 0x11f5b0, 0x11fb03, 0x11fb10, 0x11fc05, 0x11fd57, 0x11ff20, 0x11fff6,
    0x120003, 0x1239a0, 0x124005, 0x1246f0, 0x124706, 0x124750, 0x124803, 0x125440, 0x12f903,
    0x12ff16, 0x12ff30, 0x130003, 0x134300, 0x134404, 0x134413, 0x134474, 0x134560, 0x134603,
    0x143fb0, 0x144003, 0x146470, 0x161003, 0x1611e4, 0x161305, 0x1613a0, 0x168003, 0x16a390,
    0x16a403, 0x16a5f0, 0x16a605, 0x16a6a0, 0x16a6e6, 0x16a703, 0x16abf0, 0x16ac05, 0x16aca0,
    0x16ad03, 0x16aee0, 0x16af04, 0x16af56, 0x16af60, 0x16b003, 0x16b304, 0x16b376, 0x16b3c7,
    0x16b403, 0x16b446, 0x16b457, 0x16b460, 0x16b505, 0x16b5a0, 0x16b5b5, 0x16b620, 0x16b633,
    0x16b780, 0x16b7d3, 0x16b900, 0x16d403, 0x16d6d6, 0x16d705, 0x16d7a0, 0x16e401, 0x16e602,
    0x16e805, 0x16e976, 0x16e9b0, 0x16ea01, 0x16eb90, 0x16ebb2, 0x16ed40, 0x16f003, 0x16f4b0,
    0x16f4f4, 0x16f503, 0x16f514, 0x16f880, 0x16f8f4, 0x16f933, 0x16fa00, 0x16fe03, 0x16fe26,
    0x16fe33, 0x16fe44, 0x16fe50, 0x16ff04, 0x16ff23, 0x16ff45, 0x16ff70, 0x170003, 0x18cd60,
    0x18cff3, 0x18d1f0, 0x18d803, 0x18df30, 0x1aff03, 0x1aff40, 0x1aff53, 0x1affc0, 0x1affd3,
    0x1afff0, 0x1b0003, 0x1b1230, 0x1b1323, 0x1b1330, 0x1b1503, 0x1b1530, 0x1b1553, 0x1b1560,
    0x1b1643, 0x1b1680, 0x1b1703, 0x1b2fc0, 0x1bc003, 0x1bc6b0, 0x1bc703, 0x1bc7d0, 0x1bc803,
    0x1bc890, 0x1bc903, 0x1bc9a0, 0x1bc9c7, 0x1bc9d4, 0x1bc9f6, 0x1bca00, 0x1cc007, 0x1ccf05,
    0x1ccfa7, 0x1ccfd0, 0x1cd007, 0x1ceb40, 0x1ceba7, 0x1ced10, 0x1cee07, 0x1cef10, 0x1cf004,
    0x1cf2e0, 0x1cf304, 0x1cf470, 0x1cf507, 0x1cfc40, 0x1d0007, 0x1d0f60, 0x1d1007, 0x1d1270,
    0x1d1297, 0x1d1654, 0x1d16a7, 0x1d16d4, 0x1d1730, 0x1d17b4, 0x1d1837, 0x1d1854, 0x1d18c7,
    0x1d1aa4, 0x1d1ae7, 0x1d1eb0, 0x1d2007, 0x1d2424, 0x1d2457, 0x1d2460, 0x1d2c05, 0x1d2d40,
    0x1d2e05, 0x1d2f40, 0x1d3007, 0x1d3570, 0x1d3605, 0x1d3790, 0x1d4001, 0x1d41a2, 0x1d4341,
    0x1d44e2, 0x1d4550, 0x1d4562, 0x1d4681, 0x1d4822, 0x1d49c1, 0x1d49d0, 0x1d49e1, 0x1d4a00,
    0x1d4a21, 0x1d4a30, 0x1d4a51, 0x1d4a70, 0x1d4a91, 0x1d4ad0, 0x1d4ae1, 0x1d4b62, 0x1d4ba0,
    0x1d4bb2, 0x1d4bc0, 0x1d4bd2, 0x1d4c40, 0x1d4c52, 0x1d4d01, 0x1d4ea2, 0x1d5041, 0x1d5060,
    0x1d5071, 0x1d50b0, 0x1d50d1, 0x1d5150, 0x1d5161, 0x1d51d0, 0x1d51e2, 0x1d5381, 0x1d53a0,
    0x1d53b1, 0x1d53f0, 0x1d5401, 0x1d5450, 0x1d5461, 0x1d5470, 0x1d54a1, 0x1d5510, 0x1d5522,
    0x1d56c1, 0x1d5862, 0x1d5a01, 0x1d5ba2, 0x1d5d41, 0x1d5ee2, 0x1d6081, 0x1d6222, 0x1d63c1,
    0x1d6562, 0x1d6701, 0x1d68a2, 0x1d6a60, 0x1d6a81, 0x1d6c17, 0x1d6c22, 0x1d6db7, 0x1d6dc2,
    0x1d6e21, 0x1d6fb7, 0x1d6fc2, 0x1d7157, 0x1d7162, 0x1d71c1, 0x1d7357, 0x1d7362, 0x1d74f7,
    0x1d7502, 0x1d7561, 0x1d76f7, 0x1d7702, 0x1d7897, 0x1d78a2, 0x1d7901, 0x1d7a97, 0x1d7aa2,
    0x1d7c37, 0x1d7c42, 0x1d7ca1, 0x1d7cb2, 0x1d7cc0, 0x1d7ce5, 0x1d8007, 0x1da004, 0x1da377,
    0x1da3b4, 0x1da6d7, 0x1da754, 0x1da767, 0x1da844, 0x1da857, 0x1da876, 0x1da8c0, 0x1da9b4,
    0x1daa00, 0x1daa14, 0x1dab00, 0x1df002, 0x1df0a3, 0x1df0b2, 0x1df1f0, 0x1df252, 0x1df2b0,
    0x1e0004, 0x1e0070, 0x1e0084, 0x1e0190, 0x1e01b4, 0x1e0220, 0x1e0234, 0x1e0250, 0x1e0264,
    0x1e02b0, 0x1e0303, 0x1e06e0, 0x1e08f4, 0x1e0900, 0x1e1003, 0x1e12d0, 0x1e1304, 0x1e1373,
    0x1e13e0, 0x1e1405, 0x1e14a0, 0x1e14e3, 0x1e14f7, 0x1e1500, 0x1e2903, 0x1e2ae4, 0x1e2af0,
    0x1e2c03, 0x1e2ec4, 0x1e2f05, 0x1e2fa0, 0x1e2ff7, 0x1e3000, 0x1e4d03, 0x1e4ec4, 0x1e4f05,
    0x1e4fa0, 0x1e5d03, 0x1e5ee4, 0x1e5f03, 0x1e5f15, 0x1e5fb0, 0x1e5ff6, 0x1e6000, 0x1e6c03,
    0x1e6df0, 0x1e6e03, 0x1e6e34, 0x1e6e43, 0x1e6e64, 0x1e6e73, 0x1e6ee4, 0x1e6f03, 0x1e6f54,
    0x1e6f60, 0x1e6fe3, 0x1e7000, 0x1e7e03, 0x1e7e70, 0x1e7e83, 0x1e7ec0, 0x1e7ed3, 0x1e7ef0,
    0x1e7f03, 0x1e7ff0, 0x1e8003, 0x1e8c50, 0x1e8c75, 0x1e8d04, 0x1e8d70, 0x1e9001, 0x1e9222,
    0x1e9444, 0x1e94b3, 0x1e94c0, 0x1e9505, 0x1e95a0, 0x1e95e6, 0x1e9600, 0x1ec715, 0x1ecac7,
    0x1ecad5, 0x1ecb07, 0x1ecb15, 0x1ecb50, 0x1ed015, 0x1ed2e7, 0x1ed2f5, 0x1ed3e0, 0x1ee003,
    0x1ee040, 0x1ee053, 0x1ee200, 0x1ee213, 0x1ee230, 0x1ee243, 0x1ee250, 0x1ee273, 0x1ee280,
    0x1ee293, 0x1ee330, 0x1ee343, 0x1ee380, 0x1ee393, 0x1ee3a0, 0x1ee3b3, 0x1ee3c0, 0x1ee423,
    0x1ee430, 0x1ee473, 0x1ee480, 0x1ee493, 0x1ee4a0, 0x1ee4b3, 0x1ee4c0, 0x1ee4d3, 0x1ee500,
    0x1ee513, 0x1ee530, 0x1ee543, 0x1ee550, 0x1ee573, 0x1ee580, 0x1ee593, 0x1ee5a0, 0x1ee5b3,
    0x1ee5c0, 0x1ee5d3, 0x1ee5e0, 0x1ee5f3, 0x1ee600, 0x1ee613, 0x1ee630, 0x1ee643, 0x1ee650,
    0x1ee673, 0x1ee6b0, 0x1ee6c3, 0x1ee730, 0x1ee743, 0x1ee780, 0x1ee793, 0x1ee7d0, 0x1ee7e3,
    0x1ee7f0, 0x1ee803, 0x1ee8a0, 0x1ee8b3, 0x1ee9c0, 0x1eea13, 0x1eea40, 0x1eea53, 0x1eeaa0,
    0x1eeab3, 0x1eebc0, 0x1eef07, 0x1eef20, 0x1f0007, 0x1f02c0, 0x1f0307, 0x1f0940, 0x1f0a07,
    0x1f0af0, 0x1f0b17, 0x1f0c00, 0x1f0c17, 0x1f0d00, 0x1f0d17, 0x1f0f60, 0x1f1005, 0x1f10d7,
    0x1f1ae0, 0x1f1e67, 0x1f2030, 0x1f2107, 0x1f23c0, 0x1f2407, 0x1f2490, 0x1f2507, 0x1f2520,
    0x1f2607, 0x1f2660, 0x1f3007, 0x1f6d90, 0x1f6dc7, 0x1f6ed0, 0x1f6f07, 0x1f6fd0, 0x1f7007,
    0x1f7da0, 0x1f7e07, 0x1f7ec0, 0x1f7f07, 0x1f7f10, 0x1f8007, 0x1f80c0, 0x1f8107, 0x1f8480,
    0x1f8507, 0x1f85a0, 0x1f8607, 0x1f8880, 0x1f8907, 0x1f8ae0, 0x1f8b07, 0x1f8bc0, 0x1f8c07,
    0x1f8c20, 0x1f8d07, 0x1f8d90, 0x1f9007, 0x1fa580, 0x1fa607, 0x1fa6e0, 0x1fa707, 0x1fa7d0,
    0x1fa807, 0x1fa8b0, 0x1fa8e7, 0x1fac70, 0x1fac87, 0x1fac90, 0x1facd7, 0x1fadd0, 0x1fadf7,
    0x1faeb0, 0x1faef7, 0x1faf90, 0x1fb007, 0x1fb930, 0x1fb947, 0x1fbf05, 0x1fbfa7, 0x1fbfb0,
    0x200003, 0x2a6e00, 0x2a7003, 0x2b81e0, 0x2b8203, 0x2ceae0, 0x2ceb03, 0x2ebe10, 0x2ebf03,
    0x2ee5e0, 0x2f8003, 0x2fa1e0, 0x300003, 0x3134b0, 0x313503, 0x3347a0, 0xe01004, 0xe01f00,
};
/* clang-format on */

/* Returns the class of a code point, FLASH__OTHER to FLASH__SPACE. */
static int flash__class(uint32_t c)
{
    size_t lo = 0, hi = FLASH__COUNT(flash__unicode);
    uint32_t e;
    if (c < 128) return flash__ascii_class[c] - '0';
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (flash__unicode[mid] >> 4 <= c)
            lo = mid;
        else
            hi = mid;
    }
    e = flash__unicode[lo];
    if ((e & 15) != FLASH__CASES) return (int)(e & 15);
    return (c - (e >> 4)) & 1 ? FLASH__LOWER : FLASH__UPPER;
}

/* Returns the length of the character at p (p < end), 1 to 4 bytes, and sets *c to its code point.
   If the bytes are not valid UTF-8, returns 0 and sets *c to U+FFFD. */
static int flash__utf8(const uint8_t *p, const uint8_t *end, uint32_t *c)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    int n = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0, i;
    uint32_t v = n < 2 ? *p : *p & (0x7fu >> n);
    *c = 0xfffd;
    if (!n || end - p < n) return 0;
    for (i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        v = v << 6 | (p[i] & 0x3fu);
    }
    if (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000)) return 0;
    *c = v;
    return n;
}

/* Like flash__utf8, but returns 1 for an invalid byte, as the tokenizers count characters. */
static int flash__char(const uint8_t *p, const uint8_t *end, uint32_t *c)
{
    int n = flash__utf8(p, end, c);
    return n ? n : 1;
}

/* Returns the start of the character that ends at p (begin < p). Going backward finds the same
   characters as going forward, because a lead byte never lies inside another character. */
static const uint8_t *flash__char_before(const uint8_t *begin, const uint8_t *p)
{
    uint32_t c;
    int n;
    for (n = 2; n <= 4 && p - begin >= n; n++)
        if (p[-n] >= 0xc2) return flash__utf8(p - n, p, &c) == n ? p - n : p - 1;
    return p - 1;
}

/* ===== >>pretokenize ====================================================== */

/* Byte-level BPE splits text into words before it merges. The regular expressions that models
   publish for this (in tokenizer.json) use few constructs. They are written here as alternatives
   between |, made of items of two characters, and are matched directly. The first character of an
   item is a class; the second says how often it occurs: . once, ? 0-1, * any number, + 1 or more, 3
   one to three times (all greedy, with backtracking). Classes:
     L \p{L}   N \p{N}   s \s   n [\r\n]   / [\r\n/]   a [A-Za-z]   d [0-9]   m [\p{L}\p{M}]
     u \p{P}   P [\p{P}\p{S}]   x [^\s\p{L}\p{N}]   p [^\r\n\p{L}\p{N}]   q [^\r\n\p{L}\p{P}\p{S}]
     U [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]   l [\p{Ll}\p{Lm}\p{Lo}\p{M}]   A ASCII \p{P}\p{S}
     D [\p{P}$+<=>^~|]   F D and `   C [4E00-9FA5 3040-30FF]   K [0800-9FA5 AC00-D7FF]
     Z, Y: DeepSeek's lists of letters with case and of punctuation   ! (?!\S)   $ end
     ' 's|'t|'re|'ve|'m|'ll|'d   I the same in upper or lower case   any other: that character
   A model may have several passes. Each pass splits the pieces that the pass before has left; text
   between two matches stays a piece too. */

#define FLASH__GPT2   "'.| ?L+| ?N+| ?x+|s+!.|s+"
#define FLASH__LLAMA3 "I.|p?L+|N3| ?x+n*|s*n+|s+!.|s+"
#define FLASH__QWEN2  "I.|p?L+|N.| ?x+n*|s*n+|s+!.|s+"
#define FLASH__TEKKEN "p?U*l+|p?U+l*|N.| ?x+/*|s*n+|s+!.|s+"
#define FLASH__GPT4O  "p?U*l+I?|p?U+l*I?|N3| ?x+/*|s*n+|s+!.|s+"

/* A pre-tokenizer. whole_words: 1 if a word is looked up in the vocabulary before its bytes are
   merged; bos: 1 if text begins with BOS unless the file says otherwise. */
typedef struct flash__pre {
    const char *name; /* value of tokenizer.ggml.pre */
    uint8_t whole_words, bos;
    const char *pass[7]; /* NULL after the last one */
} flash__pre;

/* name, whole_words, bos, passes */
/* clang-format off */
static const flash__pre flash__pre_table[] = {
    { "default",        0, 0, { "D+", FLASH__GPT2, "N+", "d.d.d." } },
    { "gpt-2",          0, 0, { FLASH__GPT2 } },
    { "mpt",            0, 0, { FLASH__GPT2 } },
    { "olmo",           0, 0, { FLASH__GPT2 } },
    { "starcoder",      0, 0, { "N.", FLASH__GPT2 } },
    { "refact",         0, 0, { "N.", FLASH__GPT2 } },
    { "command-r",      0, 0, { "N.", FLASH__GPT2 } },
    { "smollm",         0, 0, { "N.", FLASH__GPT2 } },
    { "llama-bpe",      1, 1, { FLASH__LLAMA3 } },
    { "llama3",         1, 1, { FLASH__LLAMA3 } },
    { "llama-v3",       1, 1, { FLASH__LLAMA3 } },
    { "lfm2",           1, 1, { FLASH__LLAMA3 } },
    { "qwen2",          0, 0, { FLASH__QWEN2 } },
    { "deepseek-r1-qwen", 0, 0, { FLASH__QWEN2 } },
    { "falcon",         0, 0, { "F+", FLASH__GPT2, "d.d.d." } },
    { "deepseek-llm",   0, 0, { "n.", "s?Z+", "s?Y+", "s+$.", "K+", "N+" } },
    { "deepseek-coder", 0, 0, { "n.", "s?L+", "s?u+", "K+", "N." } },
    { "deepseek-v3",    0, 0, { "N3", "C+", "A.a+|q?m+| ?P+n*|s*n+|s+!.|s+" } },
    { "gpt-4o",         0, 0, { FLASH__GPT4O } },
    { "llama4",         0, 0, { FLASH__GPT4O } },
    { "tekken",         1, 1, { FLASH__TEKKEN } },
};
/* clang-format on */

/* Returns the pre-tokenizer of this name, NULL if it is not known. */
static const flash__pre *flash__pre_find(const char *name, size_t n)
{
    size_t i;
    for (i = 0; i < FLASH__COUNT(flash__pre_table); i++)
        if (!flash__compare(name, n, flash__pre_table[i].name, strlen(flash__pre_table[i].name)))
            return flash__pre_table + i;
    return NULL;
}

/* Returns 1 if c lies in one of the ranges. range: [n] numbers, in pairs of first and last. */
static int flash__in_ranges(uint32_t c, const uint32_t *range, size_t n)
{
    size_t i;
    for (i = 0; i + 1 < n; i += 2)
        if (c >= range[i] && c <= range[i + 1]) return 1;
    return 0;
}

/* Returns 1 if the character c belongs to the class `what` of a pattern. */
static int flash__in(char what, uint32_t c)
{
    /* Letters with case that the Unicode of the table has, but not DeepSeek's list, which was made
       for an older Unicode. */
    static const uint32_t uncased[] = {0x560,   0x588,   0x10c7,  0x10c7,  0x10cd,  0x10cd,
                                       0x10d0,  0x10ff,  0x1c80,  0x1c8a,  0x2d00,  0x2d2d,
                                       0xa790,  0xa7fa,  0xab30,  0xab68,  0x10570, 0x105bc,
                                       0x10d50, 0x10d85, 0x16e40, 0x16ed3, 0x1d400, 0x1df2a};
    static const uint32_t punct[] = {'!',    '/',    ':',    '~',    0xff01, 0xff0f,
                                     0xff1a, 0xff5e, 0x2018, 0x201f, 0x3000, 0x3002};
    int k, letter, cased, newline = c == '\r' || c == '\n';
    switch (what) { /* classes that do not need flash__class */
    case 'n': return newline;
    case '/': return newline || c == '/';
    case 'd': return c >= '0' && c <= '9';
    case 'C': return (c >= 0x4e00 && c <= 0x9fa5) || (c >= 0x3040 && c <= 0x30ff);
    case 'K': return (c >= 0x800 && c <= 0x9fa5) || (c >= 0xac00 && c <= 0xd7ff);
    case 'Y': return flash__in_ranges(c, punct, FLASH__COUNT(punct));
    default: break;
    }
    k = flash__class(c);
    cased = k == FLASH__UPPER || k == FLASH__LOWER;
    letter = cased || k == FLASH__LETTER;
    switch (what) {
    case 'L': return letter;
    case 'N': return k == FLASH__NUMBER;
    case 's': return k == FLASH__SPACE;
    case 'a': return c < 128 && cased;
    case 'm': return letter || k == FLASH__MARK;
    case 'u': return k == FLASH__PUNCT;
    case 'P': return k == FLASH__PUNCT || k == FLASH__SYMBOL;
    case 'A': return c < 128 && (k == FLASH__PUNCT || k == FLASH__SYMBOL);
    case 'x': return !letter && k != FLASH__NUMBER && k != FLASH__SPACE;
    case 'p': return !letter && k != FLASH__NUMBER && !newline;
    case 'q': return !letter && k != FLASH__PUNCT && k != FLASH__SYMBOL && !newline;
    case 'U': return k == FLASH__UPPER || k == FLASH__LETTER || k == FLASH__MARK;
    case 'l': return k == FLASH__LOWER || k == FLASH__LETTER || k == FLASH__MARK;
    case 'D':
    case 'F':
        return k == FLASH__PUNCT || (c < 128 && k == FLASH__SYMBOL && (c != '`' || what == 'F'));
    case 'Z': return cased ? !flash__in_ranges(c, uncased, FLASH__COUNT(uncased)) : c == 0x295;
    default: return c == (uint32_t)(unsigned char)what;
    }
}

/* Returns the length [B] of 's, 't, 're, 've, 'm, 'll or 'd at p, or 0 if there is none. */
static size_t flash__contraction(const uint8_t *p, const uint8_t *end, int any_case)
{
    int a, b;
    if (end - p < 2 || *p != '\'') return 0;
    a = any_case ? flash__lower(p[1]) : p[1];
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (end - p < 3) return 0;
    b = any_case ? flash__lower(p[2]) : p[2];
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* Matches one alternative of a pattern, from item on, at p. Returns the end of the match, NULL if
   there is none. May move *stuck ahead to say that no match begins before *stuck. */
static const uint8_t *flash__match(const char *item, const uint8_t *p, const uint8_t *end,
                                   const uint8_t **stuck)
{
    const uint8_t *q = p, *r;
    uint32_t c;
    int n, count = 0, least = item[0] && item[1] != '?' && item[1] != '*', most;
    if (!*item || *item == '|') return p;
    if (*item == '!') {
        if (p < end) flash__char(p, end, &c);
        return p == end || flash__class(c) == FLASH__SPACE ? flash__match(item + 2, p, end, stuck)
                                                           : NULL;
    }
    if (*item == '$') return p == end ? flash__match(item + 2, p, end, stuck) : NULL;
    if (*item == '\'' || *item == 'I') {
        size_t length = flash__contraction(p, end, *item == 'I');
        return length || !least ? flash__match(item + 2, p + length, end, stuck) : NULL;
    }
    most = item[1] == '3' ? 3 : item[1] == '.' || item[1] == '?' ? 1 : INT32_MAX;
    for (; q < end && count < most; q += n, count++) {
        n = flash__char(q, end, &c);
        if (!flash__in(*item, c)) break;
    }
    for (; count >= least; count--) {
        r = flash__match(item + 2, q, end, stuck);
        if (r) return r;
        /* neither a shorter run nor one that begins later reaches the end */
        if (item[2] == '$') {
            *stuck = q;
            return NULL;
        }
        if (count) q = flash__char_before(p, q);
    }
    return NULL;
}

/* Tries the alternatives of a pattern in order. Returns the end of the first match at p that is not
   empty, or NULL. stuck: as in flash__match. */
static const uint8_t *flash__match_any(const char *pattern, const uint8_t *p, const uint8_t *end,
                                       const uint8_t **stuck)
{
    const uint8_t *r;
    for (;;) {
        r = flash__match(pattern, p, end, stuck);
        if (r && r > p) return r;
        while (*pattern && *pattern != '|') pattern += 2;
        if (!*pattern++) return NULL;
    }
}

/* ===== >>vocab ============================================================ */

/* The vocabulary: the token strings stay in the file, and an index is built over them. Every token
   stands for raw bytes: in SentencePiece files U+2581 is a space; in byte-level BPE files each
   character is one byte (GPT-2's table). All look-ups compare raw bytes, so text is never
   rewritten. flash__vocab_find finds normal and user tokens only, flash__special_at control,
   unknown and user tokens; unused and byte tokens are not found by their text. KNOWN TRAPS: ids of
   special tokens, and their defaults too, must be checked to lie in [0, n); the arrays of scores
   and types may be shorter than the vocabulary or hold items of other types; <0x-1> is not a byte
   token. */

enum { FLASH__VOCAB_NONE, FLASH__VOCAB_SPM, FLASH__VOCAB_BPE };
enum {
    FLASH__TOKEN_NORMAL = 1,
    FLASH__TOKEN_UNKNOWN,
    FLASH__TOKEN_CONTROL,
    FLASH__TOKEN_USER,
    FLASH__TOKEN_UNUSED,
    FLASH__TOKEN_BYTE
};
enum { FLASH__SPECIAL_BYTES_MAX = 512, FLASH__ENDS_MAX = 16, FLASH__PROBES_MAX = 512 };

/* text, scores and types lie in the file; the memory of the other arrays comes from
   flash__vocab_plan. The number of slots of each hash table is a power of two, and an empty
   slot holds -1. */
typedef struct flash__vocab {
    int kind;                                        /* FLASH__VOCAB_... */
    uint32_t n, n_merge, n_special, token_bytes_max; /* token_bytes_max: longest string [B] */
    const uint8_t *text;           /* the token strings, 8 bytes of length before each */
    const uint8_t *scores, *types; /* [n] f32, [n] i32; NULL if the file has none */
    uint32_t *at;                  /* [n] offset of each string in text [B] */
    int32_t *slot;                 /* [slots] hash table: raw bytes -> token */
    size_t slots;
    uint32_t *left, *right, *result; /* [n_merge] tokens of each merge, in order of rank */
    int32_t *merge_slot;             /* [merge_slots] hash table: (left, right) -> rank */
    size_t merge_slots;
    uint32_t *special; /* [n_special] control, unknown and user tokens, sorted by text */
    int32_t byte[256]; /* token of each byte, -1: none */
    int32_t bos, eos, unk, ends[FLASH__ENDS_MAX]; /* -1: none; ends: tokens that end a text */
    /* inner_space: 1 if a token has a space after another character */
    int n_ends, add_bos, add_eos, space_prefix, inner_space;
    const flash__pre *pre; /* byte-level BPE only */
} flash__vocab;

/* Reads the raw bytes of one or two spans of text, one by one. mode: FLASH__RAW gives the bytes as
   they are, FLASH__SPM_TEXT and FLASH__BPE_TEXT decode token strings. p2 is NULL without a second
   span. */
enum { FLASH__RAW, FLASH__SPM_TEXT, FLASH__BPE_TEXT };
typedef struct flash__bytes {
    const uint8_t *p, *end, *p2, *end2;
    int mode;
} flash__bytes;

/* Applies GPT-2's table backwards: returns the byte that a character stands for, -1 if none.
   Printable Latin-1 characters stand for themselves; the other 68 bytes are written as U+0100 and
   up, in order (github.com/openai/gpt-2/blob/master/src/encoder.py). */
static int flash__bpe_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xff && c != 0xad)) return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    c -= 0x100;
    return (int)(c < 33 ? c : c < 67 ? c + 0x7f - 33 : 0xad);
}

/* Returns the next raw byte, -1 at the end. */
static int flash__next_byte(flash__bytes *b)
{
    uint32_t c;
    int n, byte;
    if (b->p == b->end) {
        if (b->p2 == b->end2) return -1;
        b->p = b->p2;
        b->end = b->end2;
        b->p2 = b->end2 = NULL;
    }
    if (b->mode == FLASH__SPM_TEXT && b->end - b->p >= 3 && b->p[0] == 0xe2 && b->p[1] == 0x96
        && b->p[2] == 0x81) {
        b->p += 3;
        return ' ';
    }
    if (b->mode == FLASH__BPE_TEXT && (n = flash__utf8(b->p, b->end, &c)) != 0
        && (byte = flash__bpe_byte(c)) >= 0) {
        b->p += n;
        return byte;
    }
    return *b->p++;
}

static flash__bytes flash__span(const uint8_t *p, size_t n, int mode)
{
    flash__bytes b;
    b.p = p;
    b.end = p + n;
    b.p2 = b.end2 = NULL;
    b.mode = mode;
    return b;
}

/* Returns the string of a token as it lies in the file. *n becomes its length [B]. */
static const uint8_t *flash__token_span(const flash__vocab *v, uint32_t id, size_t *n)
{
    const uint8_t *p = v->text + v->at[id];
    *n = (size_t)flash__rd32(p - 8);
    return p;
}
static int flash__token_type(const flash__vocab *v, uint32_t id)
{
    return v->types ? (int)flash__rd32(v->types + 4 * (size_t)id) : FLASH__TOKEN_NORMAL;
}
/* Returns 1 for a control or unknown token, whose string is not text. */
static int flash__token_special(const flash__vocab *v, uint32_t id)
{
    int t = flash__token_type(v, id);
    return t == FLASH__TOKEN_CONTROL || t == FLASH__TOKEN_UNKNOWN;
}

/* Returns a reader of the raw bytes of a normal or user token. */
static flash__bytes flash__token_bytes(const flash__vocab *v, uint32_t id)
{
    size_t n;
    const uint8_t *p = flash__token_span(v, id, &n);
    if (v->kind == FLASH__VOCAB_SPM) return flash__span(p, n, FLASH__SPM_TEXT);
    return flash__span(
        p, n, flash__token_type(v, id) == FLASH__TOKEN_NORMAL ? FLASH__BPE_TEXT : FLASH__RAW);
}

static uint32_t flash__hash(flash__bytes b) /* FNV-1a, then mixed */
{
    uint32_t h = 2166136261u;
    int c;
    while ((c = flash__next_byte(&b)) >= 0) h = (h ^ (uint32_t)c) * 16777619u;
    return (h ^ h >> 15) * 0x2c1b3c6du;
}

/* Returns the slot where the token with these raw bytes is, or would go. A slot holds -1, or 11
   bits of the hash above the 20 bits of the token. */
static size_t flash__vocab_slot(const flash__vocab *v, flash__bytes b, uint32_t hash)
{
    size_t i = hash & (v->slots - 1);
    for (; v->slot[i] >= 0; i = (i + 1) & (v->slots - 1)) {
        uint32_t id = (uint32_t)v->slot[i] & (FLASH_VOCAB_MAX - 1);
        flash__bytes x = b, y;
        int c;
        if ((uint32_t)v->slot[i] >> 20 != hash >> 21) continue;
        y = flash__token_bytes(v, id);
        while ((c = flash__next_byte(&x)) == flash__next_byte(&y))
            if (c < 0) return i;
    }
    return i;
}

/* Returns the token with these raw bytes, -1 if there is none. */
static int32_t flash__vocab_find(const flash__vocab *v, flash__bytes b)
{
    int32_t s = v->slot[flash__vocab_slot(v, b, flash__hash(b))];
    return s < 0 ? s : s & (FLASH_VOCAB_MAX - 1);
}

/* Enters a token into the hash table; of several tokens with the same bytes, the first one stays.
   Returns 0 if this took suspiciously many probes. That does not happen by chance (odds below 1e-15
   at load 2/3), so someone has chosen the tokens to make look-ups slow. */
static int flash__vocab_add(flash__vocab *v, uint32_t id)
{
    flash__bytes b = flash__token_bytes(v, id);
    uint32_t hash = flash__hash(b);
    size_t i = flash__vocab_slot(v, b, hash);
    if (v->slot[i] < 0) v->slot[i] = (int32_t)(hash >> 21 << 20 | id);
    return ((i - hash) & (v->slots - 1)) < FLASH__PROBES_MAX;
}

static size_t flash__merge_hash(const flash__vocab *v, uint32_t l, uint32_t r)
{
    uint64_t h = ((uint64_t)l << 32 | r) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u;
    return (size_t)(h >> 32) & (v->merge_slots - 1);
}

/* Returns the rank of the merge of l and r, -1 if there is none. */
static int32_t flash__merge_rank(const flash__vocab *v, uint32_t l, uint32_t r)
{
    size_t i = v->n_merge ? flash__merge_hash(v, l, r) : 0;
    int32_t k;
    for (; v->n_merge && (k = v->merge_slot[i]) >= 0; i = (i + 1) & (v->merge_slots - 1))
        if (v->left[k] == l && v->right[k] == r) return k;
    return -1;
}

static int flash__special_less(const void *ctx, uint32_t a, uint32_t b)
{
    const flash__vocab *v = (const flash__vocab *)ctx;
    size_t na, nb;
    const uint8_t *pa = flash__token_span(v, a, &na), *pb = flash__token_span(v, b, &nb);
    int c = flash__compare(pa, na, pb, nb);
    return c ? c < 0 : a < b;
}

/* Returns the longest special token that the text at p begins with, -1 if there is none. *length
   becomes its length [B]. all: 0 for user tokens only. For each byte of the text, a binary search
   narrows the range of tokens that agree with it so far. */
static int32_t flash__special_at(const flash__vocab *v, const uint8_t *p, const uint8_t *end,
                                 int all, size_t *length)
{
    uint32_t lo = 0, hi = v->n_special;
    size_t k, n;
    int32_t found = -1;
    for (k = 0; lo < hi && p + k < end; k++) {
        uint32_t a = lo, b = hi, mid;
        /* finds the first token whose byte k is not below p[k]; tokens of k bytes sort before */
        while (a < b) {
            const uint8_t *t = flash__token_span(v, v->special[mid = a + (b - a) / 2], &n);
            if (n <= k || t[k] < p[k])
                a = mid + 1;
            else
                b = mid;
        }
        lo = a;
        for (b = hi; a < b;) {
            const uint8_t *t = flash__token_span(v, v->special[mid = a + (b - a) / 2], &n);
            if (t[k] <= p[k])
                a = mid + 1;
            else
                b = mid;
        }
        hi = a;
        if (lo == hi) break;
        flash__token_span(v, v->special[lo], &n);
        if (n == k + 1) { /* a token that ends here sorts first; equal ones follow it */
            for (a = lo; a < hi && n == k + 1; a++) {
                uint32_t id = v->special[a];
                flash__token_span(v, id, &n);
                if (n == k + 1 && (all || flash__token_type(v, id) == FLASH__TOKEN_USER)) {
                    found = (int32_t)id;
                    *length = n;
                    break;
                }
            }
        }
    }
    return found;
}

/* Returns the value of the string <0xHH> of a byte token, -1 for any other string. */
static int flash__byte_token(const uint8_t *p, size_t n)
{
    int v = 0, i;
    if (n != 6 || memcmp(p, "<0x", 3) || p[5] != '>') return -1;
    for (i = 3; i < 5; i++) {
        int c = flash__lower(p[i]);
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return -1;
        v = v * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return v;
}

/* Finds a key that may be absent (*found becomes 0) and fails if its value has another type. item:
   type of an array's items, otherwise the same as type. */
static flash_status flash__want(const flash_gguf *g, const char *key, flash_value_type type,
                                flash_value_type item, flash_value *v, int *found, flash_error *err)
{
    *found = !flash_gguf_find(g, key, v);
    if (*found && (v->type != type || v->item != item))
        return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(v->data - g->file.data),
                           "key %s has the wrong type", key);
    return FLASH_E_NONE;
}

/* Like flash__want, for one number. Leaves *out as it is if the key is absent. */
static flash_status flash__want_u32(const flash_gguf *g, const char *key, uint32_t *out, int *found,
                                    flash_error *err)
{
    flash_value v;
    flash_status s = flash__want(g, key, FLASH_VALUE_U32, FLASH_VALUE_U32, &v, found, err);
    if (!s && *found) *out = flash__rd32(v.data);
    return s;
}

static flash_status flash__want_bool(const flash_gguf *g, const char *key, int *out,
                                     flash_error *err)
{
    flash_value v;
    int found;
    flash_status s = flash__want(g, key, FLASH_VALUE_BOOL, FLASH_VALUE_BOOL, &v, &found, err);
    if (!s && found) *out = v.data[0] != 0;
    return s;
}

/* Finds and checks the arrays of the vocabulary and counts what the memory plan needs: tokens,
   merges, special tokens. Works before the index of the file exists. */
static flash_status flash__vocab_survey(const flash_gguf *g, flash__vocab *v, flash_error *err)
{
    flash_value x;
    int found;
    uint32_t i, t;
    flash_status s = flash__want(g, "tokenizer.ggml.model", FLASH_VALUE_STRING, FLASH_VALUE_STRING,
                                 &x, &found, err);
    if (s) return s;
    if (!found)
        return flash__fail(err, FLASH_E_FORMAT, 0,
                           "the file has no tokenizer (key tokenizer.ggml.model)");
    if (x.bytes == 5 && !memcmp(x.data, "llama", 5))
        v->kind = FLASH__VOCAB_SPM;
    else if (x.bytes == 4 && !memcmp(x.data, "gpt2", 4))
        v->kind = FLASH__VOCAB_BPE;
    else if ((x.bytes == 4 && !memcmp(x.data, "none", 4))
             || (x.bytes == 8 && !memcmp(x.data, "no_vocab", 8)))
        return FLASH_E_NONE;
    else
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "tokenizer model \"%t\" is not supported; llama and gpt2 are",
                           (const char *)x.data, FLASH__MIN(x.bytes, (size_t)40));
    s = flash__want(g, "tokenizer.ggml.tokens", FLASH_VALUE_ARRAY, FLASH_VALUE_STRING, &x, &found,
                    err);
    if (s) return s;
    if (!found || !x.count)
        return flash__fail(err, FLASH_E_FORMAT, 0,
                           "the tokenizer has no tokens (key tokenizer.ggml.tokens)");
    if (x.count > FLASH_VOCAB_MAX || x.bytes > UINT32_MAX)
        return flash__fail(err, FLASH_E_TOO_LARGE, 0, "%u tokens; %u are allowed", x.count,
                           (uint64_t)FLASH_VOCAB_MAX);
    v->n = (uint32_t)x.count;
    v->text = x.data;
    s = flash__want(g, "tokenizer.ggml.token_type", FLASH_VALUE_ARRAY, FLASH_VALUE_I32, &x, &found,
                    err);
    if (!s && found && x.count != v->n)
        s = flash__fail(err, FLASH_E_FORMAT, 0,
                        "tokenizer.ggml.token_type has %u items for %u tokens", x.count,
                        (uint64_t)v->n);
    if (s) return s;
    v->types = found ? x.data : NULL;
    for (i = 0; found && i < v->n; i++) {
        t = flash__rd32(x.data + 4 * (size_t)i);
        v->n_special += t == FLASH__TOKEN_CONTROL || t == FLASH__TOKEN_USER
            || t == FLASH__TOKEN_UNKNOWN;
    }
    s = flash__want(g, "tokenizer.ggml.scores", FLASH_VALUE_ARRAY, FLASH_VALUE_F32, &x, &found,
                    err);
    if (!s && found && x.count != v->n)
        s = flash__fail(err, FLASH_E_FORMAT, 0, "tokenizer.ggml.scores has %u items for %u tokens",
                        x.count, (uint64_t)v->n);
    if (s) return s;
    v->scores = found ? x.data : NULL;
    if (v->kind == FLASH__VOCAB_SPM && !found)
        return flash__fail(err, FLASH_E_FORMAT, 0,
                           "a llama tokenizer needs scores (key tokenizer.ggml.scores)");
    s = flash__want(g, "tokenizer.ggml.merges", FLASH_VALUE_ARRAY, FLASH_VALUE_STRING, &x, &found,
                    err);
    if (s) return s;
    if (v->kind == FLASH__VOCAB_BPE) {
        if (!found)
            return flash__fail(err, FLASH_E_FORMAT, 0,
                               "a gpt2 tokenizer needs merges (key tokenizer.ggml.merges)");
        if (x.count > INT32_MAX / 4)
            return flash__fail(err, FLASH_E_TOO_LARGE, 0, "%u merges", x.count);
        v->n_merge = (uint32_t)x.count;
    }
    v->slots = flash__pow2(v->n + v->n / 2 + 1);
    v->merge_slots = flash__pow2(v->n_merge + v->n_merge / 2 + 1);
    return FLASH_E_NONE;
}

/* Takes memory for the arrays of the vocabulary from the arena. */
static void flash__vocab_plan(flash__vocab *v, flash__arena *a)
{
    v->at = (uint32_t *)flash__take(a, v->n, 4);
    v->slot = (int32_t *)flash__take(a, v->n ? v->slots : 0, 4);
    v->special = (uint32_t *)flash__take(a, v->n_special, 4);
    v->left = (uint32_t *)flash__take(a, v->n_merge, 4);
    v->right = (uint32_t *)flash__take(a, v->n_merge, 4);
    v->result = (uint32_t *)flash__take(a, v->n_merge, 4);
    v->merge_slot = (int32_t *)flash__take(a, v->n_merge ? v->merge_slots : 0, 4);
}

/* Reads the merges and finds their tokens. In the file a merge is the string "left right", and its
   rank is its place in the array. */
static flash_status flash__vocab_merges(const flash_gguf *g, flash__vocab *v, flash_error *err)
{
    flash_value x;
    size_t at = 0, n, i, k;
    const char *text;
    uint32_t rank = 0;
    if (!v->n_merge) return FLASH_E_NONE;
    flash_gguf_find(g, "tokenizer.ggml.merges", &x);
    memset(v->merge_slot, 0xff, v->merge_slots * 4);
    for (; (text = flash_value_string(&x, &at, &n)) != NULL; rank++) {
        const uint8_t *p = (const uint8_t *)text;
        flash__bytes l, r, both;
        int32_t id[3];
        for (i = 1; i < n && p[i] != ' '; i++) {}
        if (i + 1 >= n)
            return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(p - g->file.data),
                               "merge %u is not two parts with a space "
                               "between: \"%t\"",
                               (uint64_t)rank, text, FLASH__MIN(n, (size_t)64));
        l = flash__span(p, i, FLASH__BPE_TEXT);
        r = flash__span(p + i + 1, n - i - 1, FLASH__BPE_TEXT);
        both = l;
        both.p2 = r.p;
        both.end2 = r.end;
        id[0] = flash__vocab_find(v, l);
        id[1] = flash__vocab_find(v, r);
        id[2] = flash__vocab_find(v, both);
        if (id[0] < 0 || id[1] < 0 || id[2] < 0)
            return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(p - g->file.data),
                               "merge %u names a token that the vocabulary "
                               "lacks: \"%t\"",
                               (uint64_t)rank, text, FLASH__MIN(n, (size_t)64));
        v->left[rank] = (uint32_t)id[0];
        v->right[rank] = (uint32_t)id[1];
        v->result[rank] = (uint32_t)id[2];
        /* of repeated merges the first counts */
        if (flash__merge_rank(v, v->left[rank], v->right[rank]) >= 0) continue;
        k = flash__merge_hash(v, v->left[rank], v->right[rank]);
        for (i = 0; v->merge_slot[k] >= 0 && i < FLASH__PROBES_MAX; i++)
            k = (k + 1) & (v->merge_slots - 1);
        if (i == FLASH__PROBES_MAX)
            return flash__fail(err, FLASH_E_FORMAT, 0, "the merges are made to be slow to look up");
        v->merge_slot[k] = (int32_t)rank;
    }
    return FLASH_E_NONE;
}

/* Reads the id of a special token. If the key is absent, *out becomes fallback, or -1 if that is no
   token. */
static flash_status flash__vocab_id(const flash_gguf *g, const flash__vocab *v, const char *key,
                                    int32_t fallback, int32_t *out, flash_error *err)
{
    uint32_t id = 0;
    int found;
    flash_status s = flash__want_u32(g, key, &id, &found, err);
    if (s) return s;
    if (found && id >= v->n)
        return flash__fail(err, FLASH_E_FORMAT, 0, "%s is %u; there are %u tokens", key,
                           (uint64_t)id, (uint64_t)v->n);
    *out = found ? (int32_t)id : fallback >= 0 && (uint32_t)fallback < v->n ? fallback : -1;
    return FLASH_E_NONE;
}

static void flash__add_end(flash__vocab *v, int32_t id)
{
    if (id >= 0 && v->n_ends < FLASH__ENDS_MAX) v->ends[v->n_ends++] = id;
}

/* Fills the arrays that flash__vocab_plan has made, and reads the settings of the tokenizer. */
static flash_status flash__vocab_load(const flash_gguf *g, flash__vocab *v,
                                      const flash_model_desc *desc, flash_error *err)
{
    static const char *const end_text[] = {
        "<|eot_id|>",      "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
        "<|end_of_text|>", "<|eom_id|>", "<|eot|>", "</s>",          "<|end_of_turn|>"};
    flash_value x;
    size_t at = 0, n, k;
    const char *text;
    uint32_t i = 0, special = 0;
    int found, spm = v->kind == FLASH__VOCAB_SPM;
    int32_t id;
    flash_status s;
    v->bos = v->eos = v->unk = -1;
    if (v->kind == FLASH__VOCAB_NONE) return FLASH_E_NONE;
    for (k = 0; k < 256; k++) v->byte[k] = -1;
    memset(v->slot, 0xff, v->slots * 4);
    flash_gguf_find(g, "tokenizer.ggml.tokens", &x);
    for (; (text = flash_value_string(&x, &at, &n)) != NULL; i++) {
        const uint8_t *p = (const uint8_t *)text;
        int type, byte = flash__byte_token(p, n), last = -1, c;
        if (n > FLASH_TOKEN_BYTES_MAX)
            return flash__fail(err, FLASH_E_TOO_LARGE, (uint64_t)(p - g->file.data),
                               "token %u has %u bytes; %u are allowed", (uint64_t)i, (uint64_t)n,
                               (uint64_t)FLASH_TOKEN_BYTES_MAX);
        v->at[i] = (uint32_t)(p - v->text);
        v->token_bytes_max = FLASH__MAX(v->token_bytes_max, (uint32_t)n);
        type = flash__token_type(v, i);
        if (!v->types && spm && byte >= 0) type = FLASH__TOKEN_BYTE;
        if (type == FLASH__TOKEN_BYTE) {
            if (byte < 0)
                return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(p - g->file.data),
                                   "token %u is a byte token "
                                   "without a byte: \"%t\"",
                                   (uint64_t)i, text, FLASH__MIN(n, (size_t)64));
            if (v->byte[byte] < 0) v->byte[byte] = (int32_t)i;
        } else if (type == FLASH__TOKEN_NORMAL || type == FLASH__TOKEN_USER) {
            flash__bytes b = flash__token_bytes(v, i);
            if (n && !flash__vocab_add(v, i))
                return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(p - g->file.data),
                                   "the tokens are made to be slow to look up");
            while ((c = flash__next_byte(&b)) >= 0) {
                if (c == ' ' && last != ' ' && last >= 0) v->inner_space = 1;
                last = c;
            }
        }
        if (type == FLASH__TOKEN_CONTROL || type == FLASH__TOKEN_USER
            || type == FLASH__TOKEN_UNKNOWN) {
            if (n > FLASH__SPECIAL_BYTES_MAX)
                return flash__fail(err, FLASH_E_TOO_LARGE, (uint64_t)(p - g->file.data),
                                   "special token %u has %u bytes; %u "
                                   "are allowed",
                                   (uint64_t)i, (uint64_t)n, (uint64_t)FLASH__SPECIAL_BYTES_MAX);
            if (n) v->special[special++] = i;
        }
    }
    v->n_special = special;
    flash__sort(v->special, special, flash__special_less, v);
    for (k = 0; k < 256 && !spm; k++) {
        uint8_t byte = (uint8_t)k;
        v->byte[k] = flash__vocab_find(v, flash__span(&byte, 1, FLASH__RAW));
    }
    if ((s = flash__vocab_merges(g, v, err)) != 0) return s;
    if ((s = flash__vocab_id(g, v, "tokenizer.ggml.bos_token_id", spm ? 1 : -1, &v->bos, err)) != 0)
        return s;
    if ((s = flash__vocab_id(g, v, "tokenizer.ggml.eos_token_id", spm ? 2 : -1, &v->eos, err)) != 0)
        return s;
    if ((s = flash__vocab_id(g, v, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1, &v->unk, err))
        != 0)
        return s;
    flash__add_end(v, v->eos);
    if ((s = flash__vocab_id(g, v, "tokenizer.ggml.eot_token_id", -1, &id, err)) != 0) return s;
    flash__add_end(v, id);
    if ((s = flash__vocab_id(g, v, "tokenizer.ggml.eom_token_id", -1, &id, err)) != 0) return s;
    flash__add_end(v, id);
    for (k = 0; k < FLASH__COUNT(end_text); k++) {
        const uint8_t *p = (const uint8_t *)end_text[k];
        id = flash__special_at(v, p, p + strlen(end_text[k]), 1, &n);
        if (id >= 0 && n == strlen(end_text[k])
            && flash__token_type(v, (uint32_t)id) == FLASH__TOKEN_CONTROL)
            flash__add_end(v, id);
    }
    v->space_prefix = spm;
    v->add_bos = spm;
    if (v->kind == FLASH__VOCAB_BPE) {
        s = flash__want(g, "tokenizer.ggml.pre", FLASH_VALUE_STRING, FLASH_VALUE_STRING, &x, &found,
                        err);
        if (s) return s;
        if (!found)
            flash__note(&desc->host, 1,
                        "the file names no pre-tokenizer: using \"default\", which may be "
                        "wrong");
        v->pre = found ? flash__pre_find((const char *)x.data, x.bytes)
                       : flash__pre_find("default", 7);
        if (!v->pre) {
            if (!desc->any_pretokenizer)
                return flash__fail(err, FLASH_E_UNSUPPORTED, (uint64_t)(x.data - g->file.data),
                                   "pre-tokenizer \"%t\" is not known; "
                                   "the option any_pretokenizer reads it as \"default\"",
                                   (const char *)x.data, FLASH__MIN(x.bytes, (size_t)64));
            flash__note(&desc->host, 1, "pre-tokenizer \"%t\" is not known: using \"default\"",
                        (const char *)x.data, FLASH__MIN(x.bytes, (size_t)64));
            v->pre = flash__pre_find("default", 7);
        }
        v->add_bos = v->pre->bos;
    }
    if ((s = flash__want_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos, err)) != 0) return s;
    if ((s = flash__want_bool(g, "tokenizer.ggml.add_eos_token", &v->add_eos, err)) != 0) return s;
    return flash__want_bool(g, "tokenizer.ggml.add_space_prefix", &v->space_prefix, err);
}

/* ===== >>arch ============================================================= */

/* The supported architectures. Tables of rules, not code, say which tensors each of them has, by
   name and shape; the functions after them read the hyper-parameters from the keys of a file into a
   flash_arch. Names and shapes are those of docs/gguf.md and src/llama-arch.cpp of
   github.com/ggml-org/llama.cpp. Shapes are written [rows, cols]; files store cols first. KNOWN
   TRAPS: RoPE rotates neighbouring pairs in llama files (their converter permutes the rows of q and
   k); an array with a value per layer must have exactly one item for each; a division by a head
   count must expect 0. */

/* The sizes that shapes are made of; flash__dim gives their values. */
enum {
    FLASH__DIM_ONE,
    FLASH__DIM_D,
    FLASH__DIM_3D,
    FLASH__DIM_C,
    FLASH__DIM_Q,
    FLASH__DIM_KV,
    FLASH__DIM_O,
    FLASH__DIM_F,
    FLASH__DIM_V,
    FLASH__DIM_ROPE,
    FLASH__DIM_CONV
};

/* A bit for each architecture, for the masks in the tensor rules. */
enum {
    FLASH__IS_LLAMA = 1,
    FLASH__IS_DECI = 2,
    FLASH__IS_FLASH = 4,
    FLASH__IS_QWEN2 = 8,
    FLASH__IS_QWEN3 = 16,
    FLASH__IS_GEMMA3 = 32,
    FLASH__IS_SMOLLM3 = 64,
    FLASH__IS_LFM2 = 128,
    FLASH__IS_LLAMA4 = 256,
    FLASH__IS_ANY = 511
};
typedef struct flash__arch_fact {
    const char *name;    /* value of general.architecture */
    int bit, rope_style; /* FLASH__IS_..., FLASH_ROPE_... */
} flash__arch_fact;
/* clang-format off */
static const flash__arch_fact flash__archs[] = {
    { "llama",   FLASH__IS_LLAMA,   FLASH_ROPE_PAIRS  },
    { "deci",    FLASH__IS_DECI,    FLASH_ROPE_PAIRS  },
    { "flash",   FLASH__IS_FLASH,   FLASH_ROPE_PAIRS  },
    { "qwen2",   FLASH__IS_QWEN2,   FLASH_ROPE_HALVES },
    { "qwen3",   FLASH__IS_QWEN3,   FLASH_ROPE_HALVES },
    { "gemma3",  FLASH__IS_GEMMA3,  FLASH_ROPE_HALVES },
    { "smollm3", FLASH__IS_SMOLLM3, FLASH_ROPE_PAIRS  },
    { "lfm2",    FLASH__IS_LFM2,    FLASH_ROPE_HALVES },
    { "llama4",  FLASH__IS_LLAMA4,  FLASH_ROPE_PAIRS  },
};
/* clang-format on */

/* Returns NULL if there is no architecture of that name. */
static const flash__arch_fact *flash__arch_find(const char *name)
{
    size_t k;
    for (k = 0; k < FLASH__COUNT(flash__archs); k++)
        if (!strcmp(flash__archs[k].name, name)) return flash__archs + k;
    return NULL;
}

/* A bit for each part of a layer, for the masks in the tensor rules. MIXER is any of the first
   three. */
enum {
    FLASH__HAS_KV = 1,
    FLASH__HAS_CONV = 2,
    FLASH__HAS_LINEAR = 4,
    FLASH__HAS_FFN = 8,
    FLASH__HAS_MIXER = 7,
    FLASH__HAS_ANY = 15
};
/* Returns the FLASH__HAS_... bits of a layer. */
static int flash__parts(const flash_layer *l)
{
    int mixer = l->attention == FLASH_ATTENTION_SKIP ? 0
        : l->attention == FLASH_ATTENTION_CONV       ? FLASH__HAS_CONV
        : l->attention == FLASH_ATTENTION_LINEAR     ? FLASH__HAS_LINEAR
                                                     : FLASH__HAS_KV;
    return mixer | (l->d_ffn ? FLASH__HAS_FFN : 0);
}

/* A matrix of weights, in the file's memory. */
typedef struct flash__mat {
    const uint8_t *data;
    flash_type type;
    int rows, cols;
    size_t row_bytes; /* [B] */
} flash__mat;

typedef struct flash__layer {
    const float *attn_norm, *ffn_norm;                    /* [D] */
    const float *attn_post, *ffn_post, *q_norm, *k_norm;  /* [D], [D], [C], [C]; NULL: none */
    const float *bq, *bk, *bv, *bo, *bgate, *bup, *bdown; /* biases; NULL: none */
    const float *conv;                                    /* [D,conv_length] */
    flash__mat q, k, v, o, gate, up, down, conv_in, conv_out;
} flash__layer;

typedef struct flash__root { /* the tensors outside the layers */
    const float *out_norm, *rope_factors;
    flash__mat embed, head;
} flash__root;

/* What is known about one tensor. matrix: 1 for a flash__mat; 0 for floats, which the file must
   store as F32 and which are copied. parts: FLASH__HAS_... bits; a layer with none of these parts
   has no such tensor. */
typedef struct flash__tensor_rule {
    const char *name;                  /* in a layer: without "blk.3." */
    uint8_t matrix, parts, rows, cols; /* rows, cols: FLASH__DIM_... */
    uint16_t may, need;                /* masks of architectures that may and that must have it */
    uint16_t at;                       /* offset of its field in flash__layer or flash__root [B] */
} flash__tensor_rule;

#define FLASH__LAYER(field) (uint16_t)offsetof(flash__layer, field)
#define FLASH__BIASED (FLASH__IS_LLAMA | FLASH__IS_DECI | FLASH__IS_FLASH | FLASH__IS_QWEN2 \
    | FLASH__IS_SMOLLM3)
#define FLASH__NORMED (FLASH__IS_QWEN3 | FLASH__IS_GEMMA3 | FLASH__IS_LFM2)
/* clang-format off */
static const flash__tensor_rule flash__layer_rules[] = {
    { "attn_norm.weight",   0, FLASH__HAS_MIXER, FLASH__DIM_ONE, FLASH__DIM_D,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__LAYER(attn_norm) },
    { "attn_q.weight",      1, FLASH__HAS_KV, FLASH__DIM_Q, FLASH__DIM_D,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__LAYER(q) },
    { "attn_k.weight",      1, FLASH__HAS_KV, FLASH__DIM_KV, FLASH__DIM_D,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__LAYER(k) },
    { "attn_v.weight",      1, FLASH__HAS_KV, FLASH__DIM_KV, FLASH__DIM_D,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__LAYER(v) },
    { "attn_output.weight", 1, FLASH__HAS_KV | FLASH__HAS_LINEAR, FLASH__DIM_D, FLASH__DIM_O,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__LAYER(o) },
    { "attn_q.bias",        0, FLASH__HAS_KV, FLASH__DIM_ONE, FLASH__DIM_Q,
      FLASH__BIASED, FLASH__IS_QWEN2, FLASH__LAYER(bq) },
    { "attn_k.bias",        0, FLASH__HAS_KV, FLASH__DIM_ONE, FLASH__DIM_KV,
      FLASH__BIASED, FLASH__IS_QWEN2, FLASH__LAYER(bk) },
    { "attn_v.bias",        0, FLASH__HAS_KV, FLASH__DIM_ONE, FLASH__DIM_KV,
      FLASH__BIASED, FLASH__IS_QWEN2, FLASH__LAYER(bv) },
    { "attn_output.bias",   0, FLASH__HAS_KV | FLASH__HAS_LINEAR, FLASH__DIM_ONE, FLASH__DIM_D,
      FLASH__BIASED, 0, FLASH__LAYER(bo) },
    { "attn_q_norm.weight", 0, FLASH__HAS_KV, FLASH__DIM_ONE, FLASH__DIM_C,
      FLASH__NORMED | FLASH__IS_FLASH, FLASH__NORMED, FLASH__LAYER(q_norm) },
    { "attn_k_norm.weight", 0, FLASH__HAS_KV, FLASH__DIM_ONE, FLASH__DIM_C,
      FLASH__NORMED | FLASH__IS_FLASH, FLASH__NORMED, FLASH__LAYER(k_norm) },
    { "post_attention_norm.weight", 0, FLASH__HAS_KV, FLASH__DIM_ONE, FLASH__DIM_D,
      FLASH__IS_GEMMA3, FLASH__IS_GEMMA3, FLASH__LAYER(attn_post) },
    { "shortconv.conv.weight",     0, FLASH__HAS_CONV, FLASH__DIM_D, FLASH__DIM_CONV,
      FLASH__IS_LFM2, FLASH__IS_LFM2, FLASH__LAYER(conv) },
    { "shortconv.in_proj.weight",  1, FLASH__HAS_CONV, FLASH__DIM_3D, FLASH__DIM_D,
      FLASH__IS_LFM2, FLASH__IS_LFM2, FLASH__LAYER(conv_in) },
    { "shortconv.out_proj.weight", 1, FLASH__HAS_CONV, FLASH__DIM_D, FLASH__DIM_D,
      FLASH__IS_LFM2, FLASH__IS_LFM2, FLASH__LAYER(conv_out) },
    { "ffn_norm.weight",    0, FLASH__HAS_FFN, FLASH__DIM_ONE, FLASH__DIM_D,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__LAYER(ffn_norm) },
    { "ffn_gate.weight",    1, FLASH__HAS_FFN, FLASH__DIM_F, FLASH__DIM_D,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__LAYER(gate) },
    { "ffn_up.weight",      1, FLASH__HAS_FFN, FLASH__DIM_F, FLASH__DIM_D,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__LAYER(up) },
    { "ffn_down.weight",    1, FLASH__HAS_FFN, FLASH__DIM_D, FLASH__DIM_F,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__LAYER(down) },
    { "ffn_gate.bias",      0, FLASH__HAS_FFN, FLASH__DIM_ONE, FLASH__DIM_F,
      FLASH__BIASED, 0, FLASH__LAYER(bgate) },
    { "ffn_up.bias",        0, FLASH__HAS_FFN, FLASH__DIM_ONE, FLASH__DIM_F,
      FLASH__BIASED, 0, FLASH__LAYER(bup) },
    { "ffn_down.bias",      0, FLASH__HAS_FFN, FLASH__DIM_ONE, FLASH__DIM_D,
      FLASH__BIASED, 0, FLASH__LAYER(bdown) },
    { "post_ffw_norm.weight", 0, FLASH__HAS_FFN, FLASH__DIM_ONE, FLASH__DIM_D,
      FLASH__IS_GEMMA3, FLASH__IS_GEMMA3, FLASH__LAYER(ffn_post) },
};
/* clang-format on */
#define FLASH__ROOT(field) (uint16_t)offsetof(flash__root, field)
/* clang-format off */
static const flash__tensor_rule flash__root_rules[] = {
    { "token_embd.weight",      1, FLASH__HAS_ANY, FLASH__DIM_V, FLASH__DIM_D,
      FLASH__IS_ANY, FLASH__IS_ANY, FLASH__ROOT(embed) },
    { "output_norm.weight",     0, FLASH__HAS_ANY, FLASH__DIM_ONE, FLASH__DIM_D,
      FLASH__IS_ANY & ~FLASH__IS_LFM2, FLASH__IS_ANY & ~FLASH__IS_LFM2, FLASH__ROOT(out_norm) },
    { "token_embd_norm.weight", 0, FLASH__HAS_ANY, FLASH__DIM_ONE, FLASH__DIM_D,
      FLASH__IS_LFM2, FLASH__IS_LFM2, FLASH__ROOT(out_norm) },
    { "output.weight",          1, FLASH__HAS_ANY, FLASH__DIM_V, FLASH__DIM_D,
      FLASH__IS_ANY, 0, FLASH__ROOT(head) },
    { "rope_freqs.weight",      0, FLASH__HAS_ANY, FLASH__DIM_ONE, FLASH__DIM_ROPE,
      FLASH__IS_LLAMA | FLASH__IS_DECI | FLASH__IS_FLASH | FLASH__IS_LLAMA4, 0,
          FLASH__ROOT(rope_factors) },
};
/* clang-format on */

static uint64_t flash__dim(const flash_arch *a, const flash_layer *l, int dim)
{
    switch (dim) {
    case FLASH__DIM_D: return (uint64_t)a->d_model;
    case FLASH__DIM_3D: return 3 * (uint64_t)a->d_model;
    case FLASH__DIM_C: return (uint64_t)a->d_head;
    case FLASH__DIM_O:
        if (l->attention == FLASH_ATTENTION_LINEAR) return (uint64_t)a->d_model;
        return (uint64_t)l->n_head * (uint64_t)a->d_head;
    case FLASH__DIM_CONV: return (uint64_t)a->conv_length;
    case FLASH__DIM_Q: return (uint64_t)l->n_head * (uint64_t)a->d_head;
    case FLASH__DIM_KV: return (uint64_t)l->n_kv_head * (uint64_t)a->d_head;
    case FLASH__DIM_F: return (uint64_t)l->d_ffn;
    case FLASH__DIM_V: return (uint64_t)a->n_vocab;
    case FLASH__DIM_ROPE: return (uint64_t)a->rope_dims / 2;
    default: return 1;
    }
}

/* Returns how many items of a key or value of size C share one scale in Q8_0: the largest of 32, 16
   and 8 that divides C, or 0 if none does. */
static int flash__kv_group(int C) { return C % 32 == 0 ? 32 : C % 16 == 0 ? 16 : C % 8 ? 0 : 8; }

/* Returns the size of one block of 64 keys or values of one head [B]; flash__kv_store in >>forward
   tells its layout. */
static size_t flash__kv_block(flash_type kv, int C)
{
    return kv == FLASH_TYPE_Q8_0 ? 64 * (size_t)C + 128 * (size_t)(C / flash__kv_group(C))
                                 : flash_row_bytes(kv, 64 * (size_t)C);
}

/* Returns 1 if keys and values of size C can be stored as type kv. */
static int flash__kv_type_ok(flash_type kv, int C)
{
    return kv == FLASH_TYPE_F32 || kv == FLASH_TYPE_F16
        || (kv == FLASH_TYPE_Q8_0 && flash__kv_group(C));
}

/* Returns the number of weights in the tensors that the n rules demand. bit: of the architecture;
   parts: of the layer. */
static uint64_t flash__rules_params(const flash_arch *a, const flash_layer *l, int bit, int parts,
                                    const flash__tensor_rule *rules, size_t n)
{
    uint64_t sum = 0;
    size_t k;
    for (k = 0; k < n; k++)
        if ((rules[k].need & bit) && (rules[k].parts & parts))
            sum += flash__dim(a, l, rules[k].rows) * flash__dim(a, l, rules[k].cols);
    return sum;
}

FLASH_API uint64_t flash_arch_params(const flash_arch *a)
{
    const flash__arch_fact *fact = a ? flash__arch_find(a->name) : NULL;
    uint64_t n;
    int i, bit;
    if (!fact) return 0;
    bit = fact->bit;
    n = a->tied ? 0 : (uint64_t)a->n_vocab * (uint64_t)a->d_model;
    n += flash__rules_params(a, a->layer, bit, FLASH__HAS_ANY, flash__root_rules,
                             FLASH__COUNT(flash__root_rules));
    for (i = 0; i < a->n_layer; i++)
        n += flash__rules_params(a, a->layer + i, bit, flash__parts(a->layer + i),
                                 flash__layer_rules, FLASH__COUNT(flash__layer_rules));
    return n;
}

enum { FLASH__CHUNK = 256 }; /* default number of tokens in a chunk */

/* Returns how many blocks of 64 positions a layer keeps: enough for n_ctx positions, or, if that is
   less and its attention is limited, a ring of blocks in which a window and a chunk fit. */
static int flash__kv_blocks(const flash_layer *l, int n_ctx, int chunk)
{
    int all = (n_ctx + 63) / 64, ring = (int)(((int64_t)l->window + chunk + 62) / 64) + 1;
    return l->attention == FLASH_ATTENTION_FULL ? all : FLASH__MIN(all, ring);
}

FLASH_API uint64_t flash_arch_kv_bytes(const flash_arch *a, int n_ctx, int chunk, flash_type kv)
{
    uint64_t n = 0;
    int i;
    if (!a || n_ctx < 1 || n_ctx > FLASH_CONTEXT_MAX || chunk < 0
        || !flash__kv_type_ok(kv, a->d_head))
        return 0;
    chunk = FLASH__MIN(chunk ? chunk : FLASH__CHUNK, n_ctx);
    for (i = 0; i < a->n_layer; i++)
        n += 2 * (uint64_t)a->layer[i].n_kv_head
            * (uint64_t)flash__kv_blocks(a->layer + i, n_ctx, chunk)
            * flash__kv_block(kv, a->d_head);
    return n;
}

/* Gives layer i the attention that one entry p, [n], of a pattern asks for. */
static flash_status flash__attention_change(flash_arch *a, int i, const char *p, size_t n,
                                            flash_error *err)
{
    flash_layer *l = a->layer + i;
    int64_t window = 0;
    size_t k;
    if (!flash__compare(p, n, "keep", 4)) return FLASH_E_NONE;
    if (!flash__compare(p, n, "skip", 4)) {
        l->attention = FLASH_ATTENTION_SKIP;
        l->n_head = l->n_kv_head = 0;
        return FLASH_E_NONE;
    }
    for (k = 7; n > 7 && !memcmp(p, "window:", 7) && k < n && window <= FLASH_CONTEXT_MAX; k++)
        window = p[k] >= '0' && p[k] <= '9' ? window * 10 + p[k] - '0' : FLASH_CONTEXT_MAX + 1;
    if (flash__compare(p, n, "full", 4) && (window < 1 || window > FLASH_CONTEXT_MAX))
        return flash__fail(err, FLASH_E_FORMAT, 0,
                           "layer %i: \"%t\" is none of full, window:N, skip and keep", i, p,
                           FLASH__MIN(n, (size_t)40));
    if (!l->n_head)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "layer %i has no attention: it can be kept or skipped", i);
    l->attention = window ? FLASH_ATTENTION_WINDOW : FLASH_ATTENTION_FULL;
    l->window = (int32_t)window;
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_attention_parse(flash_arch *a, const char *pattern, flash_error *err)
{
    const char *p = pattern;
    flash_status s = FLASH_E_NONE;
    flash_arch changed;
    int i, entries = 1;
    if (!a || !pattern)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no architecture or no pattern");
    while ((p = strchr(p, ',')) != NULL && entries <= a->n_layer) {
        p++;
        entries++;
    }
    if (entries > a->n_layer)
        return flash__fail(err, FLASH_E_FORMAT, 0, "more attentions than %i layers", a->n_layer);
    changed = *a;
    for (i = 0, p = pattern; i < a->n_layer && !s; i++) {
        size_t n = strcspn(p, ",");
        s = flash__attention_change(&changed, i, p, n, err);
        p = p[n] ? p + n + 1 : pattern;
    }
    if (!s) *a = changed;
    return s;
}

/* --- reading the hyper-parameters ------------------------------------------ */

/* A reader of hyper-parameters. Its first error stays in status, so that callers can read many keys
   in a row and check it once. */
typedef struct flash__hyper {
    const flash_gguf *g;
    const char *arch;
    flash_error *err;
    flash_status status;
    char key[96]; /* full name of the key looked up last */
} flash__hyper;

/* Looks up the key "<architecture>.<name>". Returns 0 if it is absent or after an error. */
static int flash__hyper_find(flash__hyper *h, const char *name, flash_value *v)
{
    char *p = h->key, *end = h->key + sizeof h->key - 1;
    p = flash__put(p, end, h->arch, strlen(h->arch));
    p = flash__put(p, end, ".", 1);
    p = flash__put(p, end, name, strlen(name));
    *p = 0;
    return !h->status && !flash_gguf_find(h->g, h->key, v);
}

/* Returns integer i of a value; sets the status if it is not in [least, most]. */
static int64_t flash__hyper_range(flash__hyper *h, const flash_value *v, uint64_t i, int64_t least,
                                  int64_t most)
{
    int64_t x = flash_value_integer(v, i);
    if (x < least || x > most)
        h->status = flash__fail(h->err, x > most ? FLASH_E_TOO_LARGE : FLASH_E_FORMAT,
                                (uint64_t)(v->data - h->g->file.data),
                                "%s is %s%u; %i to %i are allowed", h->key, x < 0 ? "-" : "",
                                (uint64_t)(x < 0 ? -x : x), (int)least, (int)most);
    return x;
}

static void flash__hyper_absent(flash__hyper *h)
{
    if (!h->status) h->status = flash__fail(h->err, FLASH_E_FORMAT, 0, "key %s is missing", h->key);
}

/* Returns the integer of a key, or fallback if the key is absent. With fallback < least the key
   must be there. */
static int flash__hyper_int(flash__hyper *h, const char *name, int64_t fallback, int64_t least,
                            int64_t most)
{
    flash_value v;
    int64_t x;
    if (!flash__hyper_find(h, name, &v)) {
        if (fallback < least) flash__hyper_absent(h);
        return (int)fallback;
    }
    if (v.type != FLASH_VALUE_U32) {
        h->status = flash__fail(h->err, FLASH_E_FORMAT, (uint64_t)(v.data - h->g->file.data),
                                "key %s has the wrong type", h->key);
        return (int)fallback;
    }
    x = flash__hyper_range(h, &v, 0, least, most);
    return (int)(h->status ? fallback : x);
}

/* Returns the number of a key, which must be finite and above 0, or fallback if the key is absent.
   With fallback 0 the key must be there. */
static float flash__hyper_float(flash__hyper *h, const char *name, float fallback)
{
    flash_value v;
    float x;
    if (!flash__hyper_find(h, name, &v)) {
        if (!(fallback > 0)) flash__hyper_absent(h);
        return fallback;
    }
    x = v.type == FLASH_VALUE_F32 ? flash__rdf32(v.data) : 0;
    if (!(x > 0 && x < 3e38f))
        h->status = flash__fail(h->err, FLASH_E_FORMAT, (uint64_t)(v.data - h->g->file.data),
                                "key %s is no finite 32-bit float above 0", h->key);
    return x;
}

/* Reads a key that holds one integer for all layers, or an array with one for each, into out,
   [n_layer]. If the key is absent, out keeps what it holds; with fallback -1 it must be there. */
static void flash__hyper_layers(flash__hyper *h, const char *name, int n_layer, int fallback,
                                int least, int most, int32_t *out)
{
    flash_value v;
    int i, found = flash__hyper_find(h, name, &v);
    if (!found && fallback == -1) flash__hyper_absent(h);
    if (found && v.item != FLASH_VALUE_U32
        && ((v.item != FLASH_VALUE_I32 && v.item != FLASH_VALUE_BOOL)
            || v.type != FLASH_VALUE_ARRAY))
        h->status = flash__fail(h->err, FLASH_E_FORMAT, (uint64_t)(v.data - h->g->file.data),
                                "key %s has the wrong type", h->key);
    else if (found && v.type == FLASH_VALUE_ARRAY && v.count != (uint64_t)n_layer)
        h->status = flash__fail(h->err, FLASH_E_FORMAT, (uint64_t)(v.data - h->g->file.data),
                                "key %s has %u items for %i layers", h->key, v.count, n_layer);
    for (i = 0; i < n_layer && !h->status && found; i++)
        out[i] = (int32_t)flash__hyper_range(h, &v, v.type == FLASH_VALUE_ARRAY ? (uint64_t)i : 0,
                                             least, most);
}

/* Reads the RoPE base of architecture flash: one number for all layers, or an array with one for
   each. In a layer with 0 nothing is rotated. */
static void flash__hyper_bases(flash__hyper *h, flash_arch *a)
{
    flash_value v;
    int i;
    if (!flash__hyper_find(h, "rope.freq_base", &v)) return;
    if (v.item != FLASH_VALUE_F32
        || (v.type == FLASH_VALUE_ARRAY && v.count != (uint64_t)a->n_layer)) {
        h->status = flash__fail(h->err, FLASH_E_FORMAT, (uint64_t)(v.data - h->g->file.data),
                                "key %s is no 32-bit float, nor one for each of %i layers", h->key,
                                a->n_layer);
        return;
    }
    for (i = 0; i < a->n_layer; i++) {
        float x = flash__rdf32(v.data + (v.type == FLASH_VALUE_ARRAY ? 4 * (size_t)i : 0));
        if (!(x == 0 || (x >= 1 && x < 3e38f)))
            h->status = flash__fail(h->err, FLASH_E_FORMAT, (uint64_t)(v.data - h->g->file.data),
                                    "key %s has an item that is neither 0 nor a number from 1 on",
                                    h->key);
        a->layer[i].rope_base = x;
    }
    for (i = a->n_layer; i-- > 0;)
        if (a->layer[i].rope_base > 0) a->rope_base = a->layer[i].rope_base;
}

/* Reads the name of the architecture, which must be a string of 1 to 31 bytes. */
static flash_status flash__arch_name(const flash_gguf *g, char name[32], flash_error *err)
{
    flash_value v;
    int found;
    flash_status s = flash__want(g, "general.architecture", FLASH_VALUE_STRING, FLASH_VALUE_STRING,
                                 &v, &found, err);
    if (s) return s;
    if (!found || !v.bytes || v.bytes > 31 || memchr(v.data, 0, v.bytes))
        return flash__fail(err, FLASH_E_FORMAT, 0,
                           "key general.architecture is missing or no short text");
    memcpy(name, v.data, v.bytes);
    name[v.bytes] = 0;
    return FLASH_E_NONE;
}

/* Reads the base and the scaling of RoPE. Returns the status of h. */
static flash_status flash__arch_rope(flash__hyper *h, flash_arch *a, int bit)
{
    flash_value v;
    int i;
    a->rope_base = bit & FLASH__IS_FLASH ? 10000.0f
                                         : flash__hyper_float(h, "rope.freq_base", 10000.0f);
    if (!h->status && a->rope_base < 1)
        h->status = flash__fail(h->err, FLASH_E_FORMAT, 0, "key %s is below 1", h->key);
    for (i = 0; i < a->n_layer; i++) a->layer[i].rope_base = a->rope_base;
    if (bit & FLASH__IS_FLASH) flash__hyper_bases(h, a);
    a->rope_factor = flash__hyper_float(h, "rope.scaling.factor",
                                        flash__hyper_float(h, "rope.scale_linear", 1.0f));
    a->rope_attn_factor = flash__hyper_float(h, "rope.scaling.attn_factor", 1.0f);
    a->rope_beta_fast = flash__hyper_float(h, "rope.scaling.yarn_beta_fast", 32.0f);
    a->rope_beta_slow = flash__hyper_float(h, "rope.scaling.yarn_beta_slow", 1.0f);
    a->rope_n_ctx = flash__hyper_int(h, "rope.scaling.original_context_length", a->n_ctx, 1,
                                     INT32_MAX);
    a->rope_scaling = a->rope_factor != 1.0f ? FLASH_ROPE_LINEAR : FLASH_ROPE_PLAIN;
    if (flash__hyper_find(h, "rope.scaling.type", &v)) {
        const char *text = (const char *)v.data;
        if (v.type != FLASH_VALUE_STRING)
            return h->status = flash__fail(h->err, FLASH_E_FORMAT, 0, "key %s has the wrong type",
                                           h->key);
        if (!flash__compare(text, v.bytes, "none", 4)) {
            a->rope_scaling = FLASH_ROPE_PLAIN;
            a->rope_factor = 1;
        } else if (!flash__compare(text, v.bytes, "linear", 6))
            a->rope_scaling = FLASH_ROPE_LINEAR;
        else if (!flash__compare(text, v.bytes, "llama3", 6))
            a->rope_scaling = FLASH_ROPE_LLAMA3;
        else if (!flash__compare(text, v.bytes, "yarn", 4))
            a->rope_scaling = FLASH_ROPE_YARN;
        else
            h->status = flash__fail(h->err, FLASH_E_UNSUPPORTED,
                                    (uint64_t)(v.data - h->g->file.data),
                                    "rope scaling \"%t\" is not "
                                    "supported; none, linear, llama3 and yarn are",
                                    text, FLASH__MIN(v.bytes, (size_t)40));
    }
    a->rope_low_freq = flash__hyper_float(h, "rope.scaling.low_freq_factor", 1.0f);
    a->rope_high_freq = flash__hyper_float(h, "rope.scaling.high_freq_factor", 4.0f);
    if (!h->status && a->rope_high_freq <= a->rope_low_freq)
        h->status = flash__fail(h->err, FLASH_E_FORMAT, 0, "key %s is not above low_freq_factor",
                                h->key);
    return h->status;
}

/* Reads the heads, key/value heads and feed-forward width of each layer and sets its attention:
   SKIP without heads (deci, flash); with heads but no key/value heads, CONV (lfm2) or LINEAR (deci,
   flash). Returns the heads of the first layer that has any, 1 if none has. */
static int flash__arch_heads(flash__hyper *h, flash_arch *a, int bit)
{
    int32_t heads[FLASH_LAYERS_MAX], kv[FLASH_LAYERS_MAX], ffn[FLASH_LAYERS_MAX];
    int lists = bit & (FLASH__IS_DECI | FLASH__IS_FLASH), first = 0, i;
    flash__hyper_layers(h, "attention.head_count", a->n_layer, -1, !lists, 65535, heads);
    memcpy(kv, heads, sizeof kv);
    flash__hyper_layers(h, "attention.head_count_kv", a->n_layer, 0,
                        !(lists || bit & FLASH__IS_LFM2), 65535, kv);
    flash__hyper_layers(h, "feed_forward_length", a->n_layer, -1, !lists, FLASH_DIM_MAX, ffn);
    for (i = 0; i < a->n_layer && !h->status; i++) {
        flash_layer *l = a->layer + i;
        if (!first) first = heads[i];
        l->d_ffn = ffn[i];
        if (heads[i] && kv[i] && heads[i] % kv[i])
            h->status = flash__fail(h->err, FLASH_E_FORMAT, 0,
                                    "layer %i: %i heads cannot share %i key/value heads", i,
                                    (int)heads[i], (int)kv[i]);
        l->attention = !heads[i]   ? FLASH_ATTENTION_SKIP
            : kv[i]                ? FLASH_ATTENTION_FULL
            : bit & FLASH__IS_LFM2 ? FLASH_ATTENTION_CONV
                                   : FLASH_ATTENTION_LINEAR;
        if (heads[i] && kv[i]) {
            l->n_head = (uint16_t)heads[i];
            l->n_kv_head = (uint16_t)kv[i];
        }
    }
    return first ? first : 1;
}

static void flash__arch_window(flash_arch *a, int i, int window, int attention)
{
    if (!a->layer[i].n_head || !window) return;
    a->layer[i].attention = (uint8_t)attention;
    a->layer[i].window = window;
}

/* Sets the window of each layer, and its RoPE base where that depends on the kind of layer, as each
   architecture does. */
static void flash__arch_windows(flash__hyper *h, flash_arch *a, int bit)
{
    int32_t list[FLASH_LAYERS_MAX];
    flash_value v;
    int i, n = a->n_layer, window = 0, period;
    if (bit & (FLASH__IS_GEMMA3 | FLASH__IS_LFM2))
        window = flash__hyper_int(h, "attention.sliding_window", 0, 0, FLASH_CONTEXT_MAX);
    if (bit & FLASH__IS_LFM2)
        for (i = 0; i < n; i++) flash__arch_window(a, i, window, FLASH_ATTENTION_WINDOW);
    if (bit & FLASH__IS_SMOLLM3)
        for (i = 3; i < n; i += 4) a->layer[i].rope_base = 0;
    if (bit & FLASH__IS_GEMMA3) {
        float base = flash__hyper_float(h, "rope.freq_base_swa", 10000.0f);
        int is_list = flash__hyper_find(h, "attention.sliding_window_pattern", &v)
            && v.type == FLASH_VALUE_ARRAY;
        period = is_list ? 0
                         : flash__hyper_int(h, "attention.sliding_window_pattern", 6, 0, INT32_MAX);
        for (i = 0; i < n; i++) list[i] = !period || i % period < period - 1;
        if (is_list)
            flash__hyper_layers(h, "attention.sliding_window_pattern", n, 0, 0, INT32_MAX, list);
        if (!h->status && base < 1)
            h->status = flash__fail(h->err, FLASH_E_FORMAT, 0, "key rope.freq_base_swa is below 1");
        for (i = 0; i < n && window; i++) {
            if (!list[i]) continue;
            flash__arch_window(a, i, window, FLASH_ATTENTION_WINDOW);
            a->layer[i].rope_base = base;
            a->layer[i].rope_plain = 1;
        }
    }
    if (bit & FLASH__IS_LLAMA4
        && flash__hyper_int(h, "attention.sliding_window", 8192, 0, INT32_MAX)) {
        period = flash__hyper_int(h, "attention.sliding_window_pattern", 4, 0, INT32_MAX);
        a->temperature_n_ctx = 8192;
        for (i = 0; i < n; i++)
            if (!period || i % period < period - 1)
                flash__arch_window(a, i, 8192, FLASH_ATTENTION_CHUNK);
            else
                a->layer[i].rope_base = 0;
    }
    if (!(bit & FLASH__IS_FLASH)) return;
    /* attention.pattern: 0 full, 1 window, 2 skip; window 1 is a mark for the last loop */
    for (i = 0; i < n; i++) list[i] = a->layer[i].attention == FLASH_ATTENTION_SKIP ? 2 : 0;
    flash__hyper_layers(h, "attention.pattern", n, 0, 0, 2, list);
    for (i = 0; i < n && !h->status; i++) {
        if ((list[i] == 2) != (a->layer[i].attention == FLASH_ATTENTION_SKIP))
            h->status = flash__fail(h->err, FLASH_E_FORMAT, 0, "layer %i: pattern %i, but %i heads",
                                    i, (int)list[i], (int)a->layer[i].n_head);
        window |= list[i] == 1;
        a->layer[i].window = list[i] == 1;
    }
    memset(list, 0, sizeof list);
    flash__hyper_layers(h, "attention.sliding_window", n, window ? -1 : 0, 0, FLASH_CONTEXT_MAX,
                        list);
    for (i = 0; i < n && !h->status; i++) {
        if (!a->layer[i].window) continue;
        if (!list[i])
            h->status = flash__fail(h->err, FLASH_E_FORMAT, 0, "layer %i: a window of 0", i);
        flash__arch_window(a, i, (int)list[i], FLASH_ATTENTION_WINDOW);
    }
}

/* Sets the scales that no key holds. heads: those of the first layer that has any. */
static void flash__arch_scales(flash_arch *a, int bit, int heads)
{
    a->attention_scale = 1.0f / sqrtf((float)a->d_head);
    a->embedding_scale = 1;
    if (!(bit & FLASH__IS_GEMMA3)) return;
    a->embedding_scale = sqrtf((float)a->d_model);
    /* only the 27B model, known by its 62 layers */
    if (a->n_layer == 62) a->attention_scale = 1.0f / sqrtf((float)a->d_model / (float)heads);
}

/* Reads and checks all hyper-parameters. n_layer: as the survey found it; n_token: size of the
   vocabulary, 0 if there is none. *bit becomes the architecture's FLASH__IS_... bit. */
static flash_status flash__arch_load(const flash_gguf *g, int n_layer, uint32_t n_token,
                                     flash_arch *a, int *bit, flash_error *err)
{
    flash__hyper h;
    flash_value v;
    flash_tensor t;
    const flash__arch_fact *fact;
    int i, heads, experts;
    memset(a, 0, sizeof *a);
    h.g = g;
    h.arch = a->name;
    h.err = err;
    h.status = flash__arch_name(g, a->name, err);
    if (h.status) return h.status;
    fact = flash__arch_find(a->name);
    if (!fact)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "architecture \"%s\" is not supported; llama, deci, flash, qwen2, "
                           "qwen3, gemma3, smollm3, lfm2 and llama4 are",
                           a->name);
    *bit = fact->bit;
    a->rope_style = fact->rope_style;
    a->n_layer = n_layer;
    a->d_model = flash__hyper_int(&h, "embedding_length", 0, 1, FLASH_DIM_MAX);
    a->n_ctx = flash__hyper_int(&h, "context_length", 0, 1, INT32_MAX);
    a->norm_eps = flash__hyper_float(&h, "attention.layer_norm_rms_epsilon", 0);
    experts = flash__hyper_int(&h, "expert_count", 0, 0, INT32_MAX);
    if (*bit & FLASH__IS_LLAMA4) {
        a->qk_norm = experts != 128;
        if (!flash__hyper_int(&h, "interleave_moe_layer_step", 0, 0, INT32_MAX)) experts = 0;
    }
    if (experts > 0 && !h.status)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "mixtures of experts are not supported");
    heads = flash__arch_heads(&h, a, *bit);
    if (h.status) return h.status;
    a->d_head = flash__hyper_int(&h, "attention.key_length", a->d_model / heads, 1, FLASH_HEAD_MAX);
    if (flash__hyper_int(&h, "attention.value_length", a->d_head, 1, FLASH_HEAD_MAX) != a->d_head
        && !h.status)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "values of another size than keys are not supported");
    if (a->d_head > FLASH_HEAD_MAX && !h.status) /* d_model / heads is too large */
        return flash__fail(err, FLASH_E_TOO_LARGE, 0, "heads of %i; %i are allowed", a->d_head,
                           (int)FLASH_HEAD_MAX);
    a->rope_dims = flash__hyper_int(&h, "rope.dimension_count", a->d_head, 2, a->d_head);
    if (!h.status && a->rope_dims & 1)
        return flash__fail(err, FLASH_E_FORMAT, 0, "key %s is odd", h.key);
    if (flash__arch_rope(&h, a, *bit)) return h.status;
    flash__arch_windows(&h, a, *bit);
    if (*bit & FLASH__IS_LFM2) a->conv_length = flash__hyper_int(&h, "shortconv.l_cache", 0, 2, 64);
    flash__arch_scales(a, *bit, heads);
    if (*bit & FLASH__IS_GEMMA3) {
        a->activation = FLASH_ACTIVATION_GELU;
        if (flash__hyper_find(&h, "final_logit_softcapping", &v)) {
            a->logit_cap = v.type == FLASH_VALUE_F32 ? flash__rdf32(v.data) : -1;
            if (!(a->logit_cap >= 0 && a->logit_cap < 3e38f))
                return flash__fail(err, FLASH_E_FORMAT, 0,
                                   "key %s is no finite 32-bit float from 0 on", h.key);
        }
    }
    for (i = 0; i < n_layer; i++)
        if (flash__dim(a, a->layer + i, FLASH__DIM_Q) > FLASH_DIM_MAX)
            return flash__fail(err, FLASH_E_TOO_LARGE, 0, "layer %i: %i heads of %i", i,
                               (int)a->layer[i].n_head, a->d_head);
    if (flash_gguf_find_tensor(g, "token_embd.weight", &t))
        return flash__fail(err, FLASH_E_FORMAT, 0, "tensor token_embd.weight is missing");
    if (t.ne[1] > FLASH_VOCAB_MAX)
        return flash__fail(err, FLASH_E_TOO_LARGE, 0, "an embedding of %u tokens", t.ne[1]);
    a->n_vocab = (int)t.ne[1];
    if (n_token && n_token != (uint32_t)a->n_vocab)
        return flash__fail(err, FLASH_E_FORMAT, 0, "token_embd.weight has %i rows for %u tokens",
                           a->n_vocab, (uint64_t)n_token);
    if (flash__hyper_find(&h, "vocab_size", &v))
        flash__hyper_int(&h, "vocab_size", 0, a->n_vocab, a->n_vocab);
    a->tied = flash_gguf_find_tensor(g, "output.weight", &t) != FLASH_E_NONE;
    return h.status;
}

/* ===== >>model ============================================================ */

/* Loading a model takes three steps: survey the file (how large will the index be), plan one block
   of memory and acquire it, fill it. Matrices stay in the file; vectors (norms, biases) are copied
   as floats, since a file may be unaligned or the machine big-endian. */

struct flash_model {
    flash_gguf g; /* the open file, into which vocab and the matrices point */
    flash_model_desc desc;
    flash_arch arch;
    flash__kernels k;
    flash__vocab vocab;
    flash__root root;
    flash__layer *layer; /* [L] */
    float *vector;       /* [n_vector] the vectors of all layers and of root */
    size_t n_vector, vector_used;
    int bit;                    /* FLASH__IS_... of the architecture */
    float ones[FLASH_HEAD_MAX]; /* weights for norms that have none */
    size_t block;               /* size of the block that holds this model [B] */
    int view; /* 1: another model owns the file, the vocabulary and the shared weights */
};

/* What the plan needs to know about a file. */
typedef struct flash__survey {
    flash_gguf g;
    flash__vocab vocab;
    int n_layer;
    size_t n_vector; /* floats of all vectors, each vector padded to 16 */
} flash__survey;

static int flash__ends_with(const flash_tensor *t, const char *end)
{
    size_t n = strlen(end);
    return t->name_bytes > n && !memcmp(t->name + t->name_bytes - n, end, n);
}

/* Opens and checks the file and finds the sizes that the plan needs. On success the file stays
   open, in s->g; on failure it is closed. */
static flash_status flash__model_survey(flash__survey *s, const flash_model_desc *desc,
                                        flash_error *err)
{
    flash__hyper h;
    flash__cursor c;
    flash_value v;
    flash_tensor t;
    uint64_t offset;
    uint32_t i;
    int found;
    char name[32];
    memset(s, 0, sizeof *s);
    s->g.host = desc->host;
    h.status = flash__file_open(&s->g.file, &desc->source, &desc->host, err);
    if (h.status) return h.status;
    h.g = &s->g;
    h.arch = name;
    h.err = err;
    h.status = flash__gguf_scan(&s->g, err);
    if (!h.status) h.status = flash__vocab_survey(&s->g, &s->vocab, err);
    if (!h.status && !desc->vocab_only) {
        h.status = flash__arch_name(&s->g, name, err);
        if (!h.status)
            h.status = flash__want(&s->g, "split.count", FLASH_VALUE_U16, FLASH_VALUE_U16, &v,
                                   &found, err);
        if (!h.status && found && flash__rd16(v.data) > 1)
            h.status = flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                                   "one part of a model split into %i "
                                   "files: merge them first (llama-gguf-split --merge)",
                                   (int)flash__rd16(v.data));
        if (!h.status) s->n_layer = flash__hyper_int(&h, "block_count", 0, 1, FLASH_LAYERS_MAX);
        if (!h.status && s->g.n_tensor < (uint32_t)s->n_layer)
            h.status = flash__fail(err, FLASH_E_FORMAT, 0, "%i layers, but only %u tensors",
                                   s->n_layer, (uint64_t)s->g.n_tensor);
        c.g = &s->g;
        c.at = s->g.infos_at;
        c.err = err;
        c.status = FLASH_E_NONE;
        for (i = 0; i < s->g.n_tensor && !h.status && !flash__read_info(&c, &t, &offset); i++)
            if (t.type == FLASH_TYPE_F32
                && (t.ne[0] * 4 == t.bytes || flash__ends_with(&t, ".shortconv.conv.weight")))
                s->n_vector += (size_t)((t.bytes / 4 + 15) & ~(uint64_t)15);
    }
    if (h.status) flash__file_close(&s->g.file, &desc->host);
    return h.status;
}

/* Takes everything a model holds from the arena, in a fixed order, and copies the survey into it.
 *out becomes NULL if the arena only counts. */
static flash_status flash__model_plan(flash_model **out, flash__survey *s, flash__arena *a,
                                      flash_error *err)
{
    flash_model *m = (flash_model *)flash__take(a, 1, sizeof *m);
    flash__layer *layer;
    float *vector;
    flash_status status;
    if (m) {
        memset(m, 0, sizeof *m);
        m->g = s->g;
        m->vocab = s->vocab;
    }
    status = flash__gguf_index(m ? &m->g : &s->g, a, err);
    flash__vocab_plan(m ? &m->vocab : &s->vocab, a);
    layer = (flash__layer *)flash__take(a, (size_t)s->n_layer, sizeof *layer);
    vector = (float *)flash__take(a, s->n_vector, 4);
    if (m) {
        if (layer) memset(layer, 0, (size_t)s->n_layer * sizeof *layer);
        m->layer = layer;
        m->vector = vector;
        m->n_vector = s->n_vector;
    }
    *out = m;
    return status;
}

/* Returns 1 if layer l of this model, or with in_layer 0 the model outside its layers, may have the
   tensor of a rule. */
static int flash__rule_holds(const flash_model *m, const flash__tensor_rule *rule,
                             const flash_layer *l, int in_layer)
{
    return (rule->may & m->bit) && (!in_layer || (rule->parts & flash__parts(l)));
}

/* Finds the tensor of a rule and fills the rule's field of base: a flash__layer with prefix
   "blk.3.", or the flash__root with prefix "". */
static flash_status flash__tensor_load(flash_model *m, const flash__tensor_rule *rule,
                                       const char *prefix, const flash_layer *l, void *base,
                                       flash_error *err)
{
    uint64_t rows = flash__dim(&m->arch, l, rule->rows), cols = flash__dim(&m->arch, l, rule->cols);
    flash_tensor t;
    char name[64], *p = flash__put(name, name + 63, prefix, strlen(prefix));
    if (!flash__rule_holds(m, rule, l, *prefix)) return FLASH_E_NONE;
    *flash__put(p, name + 63, rule->name, strlen(rule->name)) = 0;
    if (flash_gguf_find_tensor(&m->g, name, &t))
        return rule->need & m->bit
            ? flash__fail(err, FLASH_E_FORMAT, 0, "tensor %s is missing", name)
            : FLASH_E_NONE;
    if (t.ne[0] != cols || t.ne[1] != rows || t.ne[2] != 1 || t.ne[3] != 1)
        return flash__fail(err, FLASH_E_FORMAT,
                           (uint64_t)((const uint8_t *)t.name - m->g.file.data),
                           "tensor %s is %ux%u, must be %ux%u", name, t.ne[0],
                           t.ne[1] * t.ne[2] * t.ne[3], cols, rows);
    if (rule->matrix) {
        flash__mat *w = (flash__mat *)(void *)((uint8_t *)base + rule->at);
        if (t.type == FLASH_TYPE_NONE)
            return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                               "tensor %s has weight type %u, which is not supported", name,
                               (uint64_t)t.type_id);
        w->data = t.data;
        w->type = t.type;
        w->rows = (int)rows;
        w->cols = (int)cols;
        w->row_bytes = flash_row_bytes(t.type, (size_t)cols);
    } else {
        float *v = m->vector + m->vector_used;
        const float *shown = v;
        size_t i;
        if (t.type != FLASH_TYPE_F32)
            return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "tensor %s is of type %s, must be F32",
                               name, flash_type_name(t.type));
        m->vector_used += (size_t)((rows * cols + 15) & ~(uint64_t)15);
        FLASH_ASSERT(m->vector_used <= m->n_vector);
        for (i = 0; i < (size_t)(rows * cols); i++) v[i] = flash__rdf32(t.data + 4 * i);
        memcpy((uint8_t *)base + rule->at, &shown, sizeof shown);
    }
    return FLASH_E_NONE;
}

/* Fails if the file has a tensor that no rule names: the model would compute something that this
   code does not. */
static flash_status flash__tensors_known(const flash_model *m, flash_error *err)
{
    uint32_t i;
    size_t k, n;
    for (i = 0; i < m->g.n_tensor; i++) {
        const char *p = flash__name_at(&m->g, m->g.info_at[i], &n), *end = p + n, *dot = p + 4;
        const flash__tensor_rule *rules = flash__root_rules;
        size_t count = FLASH__COUNT(flash__root_rules);
        int layer = 0, in_layer = 0;
        if (n > 6 && !memcmp(p, "blk.", 4)) {
            for (; dot < end && *dot >= '0' && *dot <= '9' && layer < FLASH_LAYERS_MAX; dot++)
                layer = layer * 10 + (*dot - '0');
            if (dot < end && *dot == '.' && layer < m->arch.n_layer) {
                p = dot + 1;
                in_layer = 1;
                rules = flash__layer_rules;
                count = FLASH__COUNT(flash__layer_rules);
            }
        }
        for (k = 0; k < count; k++)
            if (!flash__compare(p, (size_t)(end - p), rules[k].name, strlen(rules[k].name))
                && flash__rule_holds(m, rules + k, m->arch.layer + layer * in_layer, in_layer))
                break;
        if (k == count) {
            p = flash__name_at(&m->g, m->g.info_at[i], &n);
            return flash__fail(err, FLASH_E_UNSUPPORTED,
                               (uint64_t)((const uint8_t *)p - m->g.file.data),
                               "tensor \"%t\" is not one that "
                               "architecture %s is known to have%s",
                               p, n, m->arch.name, in_layer ? " in this layer" : "");
        }
    }
    return FLASH_E_NONE;
}

/* Writes "blk.3." for layer 3. */
static void flash__layer_prefix(char prefix[16], int i)
{
    char *p = prefix + 4;
    memcpy(prefix, "blk.", 4);
    if (i > 99) *p++ = (char)('0' + i / 100);
    if (i > 9) *p++ = (char)('0' + i / 10 % 10);
    *p++ = (char)('0' + i % 10);
    *p++ = '.';
    *p = 0;
}

/* Fills speed, [rope_dims/2], for RoPE in layer l: at position p, pair i is rotated by the angle
   p*speed[i]. Returns the factor by which cos and sin are multiplied. Linear scaling divides all
   speeds by rope_factor. Llama 3 divides low frequencies, keeps high ones and blends between
   (github.com/meta-llama/llama-models, apply_scaling). YaRN does so with a ramp over the
   dimensions, and multiplies cos and sin by 0.1 ln(rope_factor) + 1 (Peng et al. 2023, arxiv
   2309.00071). factors: [rope_dims/2] more divisors, from rope_freqs.weight; NULL if there are
   none. */
static float flash__rope_speeds(const flash_arch *a, const float *factors, const flash_layer *l,
                                double *speed)
{
    const double two_pi = 6.283185307179586, log_base = flash__log(l->rope_base),
                 factor = a->rope_factor;
    double low = 0, high = 0, blend, scale = 1;
    int i, n = a->rope_dims, scaling = l->rope_plain ? FLASH_ROPE_PLAIN : a->rope_scaling;
    if (!l->rope_plain) scale = a->rope_attn_factor;
    if (scaling == FLASH_ROPE_YARN) {
        low = floor(n * flash__log(a->rope_n_ctx / (a->rope_beta_fast * two_pi)) / (2 * log_base));
        high = ceil(n * flash__log(a->rope_n_ctx / (a->rope_beta_slow * two_pi)) / (2 * log_base));
        low = FLASH__MAX(low, 0);
        high = FLASH__MIN(high, n - 1);
        scale = scale * (1 + 0.1 * flash__log(factor));
    }
    for (i = 0; i < n / 2; i++) {
        double v = flash__exp(-2.0 * i / n * log_base);
        if (factors) v /= factors[i];
        blend = 0; /* weight of the unscaled speed, 0 to 1 */
        if (scaling == FLASH_ROPE_YARN) blend = 1 - (i - low) / FLASH__MAX(0.001, high - low);
        if (scaling == FLASH_ROPE_LLAMA3)
            blend = (a->rope_n_ctx * v / two_pi - a->rope_low_freq)
                / (a->rope_high_freq - a->rope_low_freq);
        blend = FLASH__MIN(FLASH__MAX(blend, 0.0), 1.0);
        if (scaling != FLASH_ROPE_PLAIN) v = v / factor * (1 - blend) + v * blend;
        speed[i] = FLASH__MIN(v, 1e6); /* bounds the angles for flash__cos_sin */
    }
    return (float)scale;
}

/* Loads the vocabulary, the hyper-parameters and the tensors into a planned model. */
static flash_status flash__model_fill(flash_model *m, int n_layer, flash_error *err)
{
    size_t k;
    int i;
    flash_status s = flash__vocab_load(&m->g, &m->vocab, &m->desc, err);
    if (s || m->desc.vocab_only) return s;
    s = flash__arch_load(&m->g, n_layer, m->vocab.n, &m->arch, &m->bit, err);
    if (s) return s;
    for (k = 0; k < FLASH__COUNT(flash__root_rules); k++)
        if ((s = flash__tensor_load(m, flash__root_rules + k, "", m->arch.layer, &m->root, err))
            != 0)
            return s;
    for (i = 0; i < n_layer; i++) {
        char prefix[16];
        flash__layer_prefix(prefix, i);
        for (k = 0; k < FLASH__COUNT(flash__layer_rules); k++)
            if ((s = flash__tensor_load(m, flash__layer_rules + k, prefix, m->arch.layer + i,
                                        m->layer + i, err))
                != 0)
                return s;
        if (!m->layer[i].q_norm != !m->layer[i].k_norm)
            return flash__fail(err, FLASH_E_FORMAT, 0,
                               "layer %i norms only one of queries and keys", i);
    }
    if (m->arch.tied) m->root.head = m->root.embed;
    for (i = 0; m->root.rope_factors && i < m->arch.rope_dims / 2; i++)
        if (!(m->root.rope_factors[i] > 1e-6f && m->root.rope_factors[i] < 1e6f))
            return flash__fail(err, FLASH_E_FORMAT, 0,
                               "rope_freqs.weight holds a factor that is not between 1e-6 and 1e6");
    for (i = 0; i < FLASH_HEAD_MAX; i++) m->ones[i] = 1;
    if (!(s = flash__tensors_known(m, err)) && m->desc.attention)
        s = flash_attention_parse(&m->arch, m->desc.attention, err);
    return s;
}

FLASH_API size_t flash_model_memory(const flash_model_desc *desc, flash_error *err)
{
    flash__survey s;
    flash__arena a = {NULL, 0};
    flash_model *none;
    size_t n;
    if (!desc) flash__fail(err, FLASH_E_ARGUMENT, 0, "no desc");
    if (!desc || flash__model_survey(&s, desc, err)) return 0;
    flash__model_plan(&none, &s, &a, err);
    n = a.used == SIZE_MAX ? 0
                           : a.used + (s.g.file.how == FLASH__FILE_ACQUIRED ? s.g.file.size : 0);
    flash__file_close(&s.g.file, &desc->host);
    if (!n) flash__fail(err, FLASH_E_TOO_LARGE, 0, "more memory than this machine can address");
    return n;
}

FLASH_API flash_status flash_model_load(flash_model **out, const flash_model_desc *desc,
                                        flash_error *err)
{
    flash__survey s;
    flash__arena a = {NULL, 0};
    flash_model *m;
    flash__kernels k;
    flash_status status;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the model");
    *out = NULL;
    if (!desc || !desc->host.allocator.acquire != !desc->host.allocator.release)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no desc, or only one half of an allocator");
    status = flash__kernels_select(&k, desc->isa);
    if (status)
        return flash__fail(err, status, 0, "instruction set %s is not available here",
                           flash_isa_name(desc->isa));
    status = flash__model_survey(&s, desc, err);
    if (status) return status;
    flash__model_plan(&m, &s, &a, err);
    s.g.block = a.used;
    a.used = 0;
    a.base = s.g.block == SIZE_MAX ? NULL
                                   : (uint8_t *)flash__acquire(&desc->host.allocator, s.g.block);
    if (!a.base) {
        flash__file_close(&s.g.file, &desc->host);
        return flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the model's index (%u bytes)",
                           (uint64_t)s.g.block);
    }
    status = flash__model_plan(&m, &s, &a, err);
    m->block = s.g.block;
    m->desc = *desc;
    m->k = k;
    if (!status) status = flash__model_fill(m, s.n_layer, err);
    if (status) {
        flash_model_free(m);
        return status;
    }
    *out = m;
    return FLASH_E_NONE;
}

FLASH_API void flash_model_free(flash_model *m)
{
    flash_host host;
    if (!m) return;
    host = m->desc.host;
    flash__file_close(&m->g.file, &host);
    flash__release(&host.allocator, m, m->block);
}

FLASH_API const flash_arch *flash_model_arch(const flash_model *m) { return m ? &m->arch : NULL; }
FLASH_API const flash_gguf *flash_model_gguf(const flash_model *m) { return m ? &m->g : NULL; }
FLASH_API flash_isa flash_model_isa(const flash_model *m) { return m ? m->k.isa : FLASH_ISA_AUTO; }

/* ===== >>tokenize ========================================================= */

/* Turns text into tokens and back. A text is cut into words, and each word into tokens: it starts
   as a list of symbols, which are single characters (SentencePiece) or bytes (BPE). Of all pairs of
   neighbours that the vocabulary can join, the one with the best score (SentencePiece) or merge
   rank (BPE) is joined, the leftmost of equals, until no pair is left. A heap holds the candidates,
   and stale ones are skipped, so a word of n bytes costs n log n. BPE words are those of the
   pre-tokenizer. SentencePiece text is cut before each space that follows a non-space, unless the
   vocabulary has a token with such a place inside: without one, no token can reach across the cut,
   and the words stay short. KNOWN TRAPS: the space prefix goes before the first word and before the
   first one after each special token; U+2581 in the text is not a space: it is spelled in byte
   tokens, so that decoding gives it back. */

/* NO_EOS: a flag of flash_tokenize for the library's own calls: no EOS; WORD_STACK: the longest
   word that needs no memory from the allocator [B]. */

enum { FLASH__NO_EOS = 1 << 16, FLASH__WORD_STACK = 64 };

typedef struct flash__symbol {
    uint32_t at, n;             /* place and length in the word [B]; n 0: joined to the left */
    int32_t id, next, previous; /* token, numbers of the neighbours; -1: none */
} flash__symbol;
/* A candidate: joining symbol `left` with the next one. */
typedef struct flash__joint {
    uint32_t key, left, n; /* key: the smallest is best; n: length of the two together [B] */
    int32_t id;            /* token of the two together */
} flash__joint;

typedef struct flash__tokens {
    const flash__vocab *v;
    const flash_host *host;
    int32_t *ids;  /* [cap] */
    size_t cap, n; /* n: tokens so far, those beyond cap included */
    flash_status status;
    const uint8_t *word;   /* the current word in the text */
    uint32_t word_bytes;   /* with the prefix */
    int prefix;            /* 1: byte 0 of the word is a space that is not in the text */
    flash__symbol *symbol; /* [word_bytes] */
    flash__joint *heap;    /* [2*word_bytes] */
    size_t heap_n;
} flash__tokens;

static void flash__emit(flash__tokens *t, int32_t id)
{
    if (id < 0) return;
    if (t->n < t->cap) t->ids[t->n] = id;
    t->n++;
}

/* Returns a reader of n bytes of the current word, from byte `at` on; the prefix is byte 0. */
static flash__bytes flash__word_span(const flash__tokens *t, uint32_t at, uint32_t n)
{
    static const uint8_t space[1] = {' '};
    flash__bytes b;
    if (!t->prefix) return flash__span(t->word + at, n, FLASH__RAW);
    if (at) return flash__span(t->word + at - 1, n, FLASH__RAW);
    b = flash__span(space, 1, FLASH__RAW);
    b.p2 = t->word;
    b.end2 = t->word + n - 1;
    return b;
}

static int flash__joint_before(const flash__joint *a, const flash__joint *b)
{
    return a->key != b->key ? a->key < b->key : a->left < b->left;
}

/* Maps the score of a token to an integer: the higher the score, the smaller the integer. */
static uint32_t flash__score_key(const flash__vocab *v, int32_t id)
{
    uint32_t u = flash__rd32(v->scores + 4 * (size_t)id);
    return ~(u & 0x80000000u ? ~u : u | 0x80000000u);
}

/* Puts the joint of symbol `left` and the next one on the heap if the vocabulary can join them.
   Does nothing if left is -1. */
static void flash__push_joint(flash__tokens *t, int32_t left)
{
    const flash__symbol *a = t->symbol + left, *b;
    flash__joint j;
    size_t i;
    if (left < 0 || a->next < 0) return;
    b = t->symbol + a->next;
    j.left = (uint32_t)left;
    j.n = a->n + b->n;
    if (t->v->kind == FLASH__VOCAB_BPE) {
        int32_t rank = a->id < 0 || b->id < 0
            ? -1
            : flash__merge_rank(t->v, (uint32_t)a->id, (uint32_t)b->id);
        if (rank < 0) return;
        j.key = (uint32_t)rank;
        j.id = (int32_t)t->v->result[rank];
    } else {
        j.id = j.n > t->v->token_bytes_max
            ? -1
            : flash__vocab_find(t->v, flash__word_span(t, a->at, j.n));
        if (j.id < 0) return;
        j.key = flash__score_key(t->v, j.id);
    }
    for (i = t->heap_n++; i && flash__joint_before(&j, t->heap + (i - 1) / 2); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = j;
}

static flash__joint flash__pop_joint(flash__tokens *t)
{
    flash__joint top = t->heap[0], last = t->heap[--t->heap_n];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < t->heap_n; i = child) {
        if (child + 1 < t->heap_n && flash__joint_before(t->heap + child + 1, t->heap + child))
            child++;
        if (!flash__joint_before(t->heap + child, &last)) break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return top;
}

/* Joins the n symbols of the word and emits the tokens of those that remain. A symbol without a
   token is spelled in byte tokens; from a byte that has none, one `unk` stands for the rest. */
static void flash__join(flash__tokens *t, uint32_t n)
{
    const flash__vocab *v = t->v;
    uint32_t i, k;
    int32_t s;
    t->heap_n = 0;
    for (i = 0; i + 1 < n; i++) flash__push_joint(t, (int32_t)i);
    while (t->heap_n) {
        flash__joint j = flash__pop_joint(t);
        flash__symbol *a = t->symbol + j.left, *b;
        if (!a->n || a->next < 0) continue;
        b = t->symbol + a->next;
        if (a->n + b->n != j.n) continue; /* stale: one of them has grown */
        a->n = j.n;
        a->id = j.id;
        a->next = b->next;
        b->n = 0;
        if (a->next >= 0) t->symbol[a->next].previous = (int32_t)j.left;
        flash__push_joint(t, a->previous);
        flash__push_joint(t, (int32_t)j.left);
    }
    for (s = 0; s >= 0; s = t->symbol[s].next) {
        const flash__symbol *a = t->symbol + s;
        flash__bytes b = flash__word_span(t, a->at, a->n);
        if (a->id >= 0) {
            flash__emit(t, a->id);
            continue;
        }
        for (k = 0; k < a->n; k++) {
            int c = flash__next_byte(&b);
            flash__emit(t, v->byte[c] >= 0 ? v->byte[c] : v->unk);
            if (v->byte[c] < 0) break;
        }
    }
}

/* Tokenises one word: n bytes of text at p, with a space put before them if prefix is 1. */
static void flash__word(flash__tokens *t, const uint8_t *p, size_t n, int prefix)
{
    flash__symbol symbols[FLASH__WORD_STACK];
    flash__joint joints[2 * FLASH__WORD_STACK];
    void *block = NULL;
    size_t bytes = 0;
    uint32_t at = 0, count = 0, c;
    if (t->status || !(n + (size_t)prefix)) return;
    t->word = p;
    t->word_bytes = (uint32_t)n + (uint32_t)prefix;
    t->prefix = prefix;
    if (t->v->pre && t->v->pre->whole_words) {
        int32_t id = flash__vocab_find(t->v, flash__word_span(t, 0, t->word_bytes));
        if (id >= 0) {
            flash__emit(t, id);
            return;
        }
    }
    t->symbol = symbols;
    t->heap = joints;
    if (t->word_bytes > FLASH__WORD_STACK) {
        if (n > INT32_MAX / 2
            || !flash__mul(&bytes, t->word_bytes,
                           sizeof(flash__symbol) + 2 * sizeof(flash__joint))) {
            t->status = FLASH_E_TOO_LARGE;
            return;
        }
        block = flash__acquire(&t->host->allocator, bytes);
        if (!block) {
            t->status = FLASH_E_MEMORY;
            return;
        }
        t->heap = (flash__joint *)block;
        t->symbol = (flash__symbol *)(void *)(t->heap + 2 * (size_t)t->word_bytes);
    }
    while (at < t->word_bytes) {
        flash__symbol *s = t->symbol + count;
        const uint8_t *q = p + at - (prefix ? 1 : 0);
        s->at = at;
        s->n = prefix && !at                 ? 1
            : t->v->kind == FLASH__VOCAB_BPE ? 1
                                             : (uint32_t)flash__char(q, p + n, &c);
        s->id = t->v->kind == FLASH__VOCAB_BPE
            ? t->v->byte[*q]
            : flash__vocab_find(t->v, flash__word_span(t, at, s->n));
        s->previous = (int32_t)count - 1;
        at += s->n;
        s->next = at < t->word_bytes ? (int32_t)count + 1 : -1;
        count++;
    }
    flash__join(t, count);
    flash__release(&t->host->allocator, block, bytes);
}

/* Splits [p, end) into the matches of pattern `pass` of the pre-tokenizer and the text between
   them, and each of these pieces by the next pattern. What the last pattern leaves are words. */
static void flash__split(flash__tokens *t, int pass, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *gap = p, *r, *stuck;
    const char *pattern = t->v->pre->pass[pass];
    uint32_t c;
    if (!pattern) {
        flash__word(t, p, (size_t)(end - p), 0);
        return;
    }
    while (p < end && !t->status) {
        stuck = p;
        r = flash__match_any(pattern, p, end, &stuck);
        if (r) {
            if (gap < p) flash__split(t, pass + 1, gap, p);
            flash__split(t, pass + 1, p, r);
            p = gap = r;
        } else {
            p += flash__char(p, end, &c);
            p = FLASH__MAX(p, stuck);
        }
    }
    if (gap < p) flash__split(t, pass + 1, gap, p);
}

/* Tokenises text without special tokens. fresh: 1 at the beginning of the text and right after a
   special token. */
static void flash__fragment(flash__tokens *t, const uint8_t *p, const uint8_t *end, int fresh)
{
    int prefix = fresh && t->v->space_prefix;
    const uint8_t *q;
    if (p == end) return;
    if (t->v->kind == FLASH__VOCAB_BPE) {
        flash__split(t, 0, p, end);
        return;
    }
    for (q = p + 1; q < end; q++)
        if (!t->v->inner_space && *q == ' ' && q[-1] != ' ') {
            flash__word(t, p, (size_t)(q - p), prefix);
            prefix = 0;
            p = q;
        }
    flash__word(t, p, (size_t)(end - p), prefix);
}

FLASH_API flash_status flash_tokenize(const flash_model *m, const char *text, size_t bytes,
                                      unsigned flags, int32_t *ids, size_t cap, size_t *n)
{
    flash__tokens t;
    const uint8_t *p = (const uint8_t *)text, *end, *from;
    int fresh = !(flags & FLASH_TEXT_CONTINUE);
    uint8_t first[32] = {0};
    uint32_t i;
    if (!m || (!text && bytes) || (!ids && cap) || !n) return FLASH_E_ARGUMENT;
    memset(&t, 0, sizeof t);
    t.v = &m->vocab;
    t.host = &m->desc.host;
    t.ids = ids;
    t.cap = cap;
    if (t.v->kind == FLASH__VOCAB_NONE) return FLASH_E_UNSUPPORTED;
    if (t.v->add_bos && !(flags & (FLASH_TEXT_NO_BOS | FLASH_TEXT_CONTINUE)))
        flash__emit(&t, t.v->bos);
    for (i = 0; i < t.v->n_special; i++) {
        size_t length;
        const uint8_t *s = flash__token_span(t.v, t.v->special[i], &length);
        if ((flags & FLASH_TEXT_SPECIAL)
            || flash__token_type(t.v, t.v->special[i]) == FLASH__TOKEN_USER)
            first[*s >> 3] |= (uint8_t)(1 << (*s & 7));
    }
    for (end = bytes ? p + bytes : p, from = p; p < end && !t.status;) {
        size_t length = 0;
        int32_t id = -1;
        if (first[*p >> 3] >> (*p & 7) & 1)
            id = flash__special_at(t.v, p, end, (flags & FLASH_TEXT_SPECIAL) != 0, &length);
        if (id < 0) {
            p++;
            continue;
        }
        flash__fragment(&t, from, p, fresh);
        flash__emit(&t, id);
        from = p += length;
        fresh = 1;
    }
    if (bytes) flash__fragment(&t, from, end, fresh);
    if (t.status) return t.status;
    if (t.v->add_eos && !(flags & (FLASH_TEXT_NO_BOS | FLASH_TEXT_CONTINUE | FLASH__NO_EOS)))
        flash__emit(&t, t.v->eos);
    *n = t.n;
    return t.n > cap ? FLASH_E_RANGE : FLASH_E_NONE;
}

/* Returns a reader of the bytes that a token adds to the text. *byte: memory for the byte of a byte
   token, which must last as long as the reader. */
static flash__bytes flash__token_out(const flash__vocab *v, uint32_t id, unsigned flags,
                                     uint8_t *byte)
{
    size_t n;
    const uint8_t *p = flash__token_span(v, id, &n);
    int type = flash__token_type(v, id), value = flash__byte_token(p, n);
    if (flash__token_special(v, id))
        return flash__span(p, flags & FLASH_TEXT_SPECIAL ? n : 0, FLASH__RAW);
    if (type == FLASH__TOKEN_BYTE || (!v->types && v->kind == FLASH__VOCAB_SPM && value >= 0)) {
        *byte = (uint8_t)value;
        return flash__span(byte, 1, FLASH__RAW);
    }
    return flash__token_bytes(v, id);
}

FLASH_API flash_status flash_detokenize(const flash_model *m, const int32_t *ids, size_t n,
                                        unsigned flags, char *text, size_t cap, size_t *bytes)
{
    const flash__vocab *v;
    size_t i, used = 0;
    int fresh = !(flags & FLASH_TEXT_CONTINUE), c;
    uint8_t byte;
    if (!m || (!ids && n) || (!text && cap) || !bytes) return FLASH_E_ARGUMENT;
    v = &m->vocab;
    if (v->kind == FLASH__VOCAB_NONE) return FLASH_E_UNSUPPORTED;
    for (i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= v->n) return FLASH_E_ARGUMENT;
    for (i = 0; i < n; i++) {
        flash__bytes b = flash__token_out(v, (uint32_t)ids[i], flags, &byte);
        int special = flash__token_type(v, (uint32_t)ids[i]) == FLASH__TOKEN_USER
            || flash__token_special(v, (uint32_t)ids[i]);
        while ((c = flash__next_byte(&b)) >= 0) {
            /* leaves out the space prefix */
            if (fresh && c == ' ' && v->space_prefix && !special) {
                fresh = 0;
                continue;
            }
            fresh = 0;
            if (used < cap) text[used] = (char)c;
            used++;
        }
        if (special) fresh = 1; /* flash_tokenize puts the prefix again */
    }
    *bytes = used;
    return used > cap ? FLASH_E_RANGE : FLASH_E_NONE;
}

/* Moves the bytes of d->held that need not wait to text: whole characters, and a U+FFFD for each
   byte that cannot become part of one. all: 1 if no byte follows, so that nothing waits. Returns
   the number of bytes written, at most 3*n_held. */
static size_t flash__let_go(flash_detokenizer *d, int all, char *text)
{
    size_t used = 0, at = 0;
    uint32_t c;
    while (at < d->n_held) {
        const uint8_t *p = d->held + at, *end = d->held + d->n_held;
        int n = flash__utf8(p, end, &c), want = *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4, k;
        /* an unfinished character, if all bytes after the first continue it, waits for more */
        if (!n && !all && *p >= 0xc2 && *p < 0xf5 && end - p < want) {
            for (k = 1; k < end - p && (p[k] & 0xc0) == 0x80; k++) {}
            if (k == end - p) break;
        }
        if (n) {
            memcpy(text + used, p, (size_t)n);
            used += (size_t)n;
        } else {
            memcpy(text + used, "\xef\xbf\xbd", 3);
            used += 3;
        }
        at += n ? (size_t)n : 1;
    }
    d->n_held = (uint8_t)(d->n_held - at);
    memmove(d->held, d->held + at, d->n_held);
    return used;
}

FLASH_API size_t flash_token_bytes_max(const flash_model *m)
{
    return m ? 3 * ((size_t)m->vocab.token_bytes_max + 4) : 0; /* each byte may become U+FFFD */
}

FLASH_API flash_status flash_detokenize_next(const flash_model *m, flash_detokenizer *d,
                                             int32_t token, unsigned flags, char *text, size_t cap,
                                             size_t *bytes)
{
    const flash__vocab *v;
    size_t used = 0;
    uint8_t byte;
    int c;
    if (!m || !d || !text || !bytes || cap < flash_token_bytes_max(m) || d->n_held > 4)
        return FLASH_E_ARGUMENT;
    v = &m->vocab;
    if (v->kind == FLASH__VOCAB_NONE) return FLASH_E_UNSUPPORTED;
    if (token >= 0 && (uint32_t)token >= v->n) return FLASH_E_ARGUMENT;
    if (token < 0)
        used = flash__let_go(d, 1, text);
    else {
        flash__bytes b = flash__token_out(v, (uint32_t)token, flags, &byte);
        int special = flash__token_special(v, (uint32_t)token);
        while ((c = flash__next_byte(&b)) >= 0) {
            if (!d->begun && c == ' ' && v->space_prefix && !special
                && !(flags & FLASH_TEXT_CONTINUE)) {
                d->begun = 1;
                continue;
            }
            d->begun = 1;
            d->held[d->n_held++] = (uint8_t)c;
            used += flash__let_go(d, 0, text + used);
        }
        if (special) d->begun = 0;
    }
    *bytes = used;
    return FLASH_E_NONE;
}

FLASH_API const char *flash_token_text(const flash_model *m, int32_t token, size_t *bytes)
{
    const flash__vocab *v = m ? &m->vocab : NULL;
    if (!v || token < 0 || (uint32_t)token >= v->n || !bytes) return NULL;
    return (const char *)flash__token_span(v, (uint32_t)token, bytes);
}

FLASH_API int32_t flash_token_find(const flash_model *m, const char *text)
{
    const flash__vocab *v = m ? &m->vocab : NULL;
    size_t n, length;
    uint32_t i;
    if (!v || !text) return -1;
    for (i = 0, length = strlen(text); i < v->n; i++) {
        const uint8_t *p = flash__token_span(v, i, &n);
        if (n == length && !memcmp(p, text, n)) return (int32_t)i;
    }
    return -1;
}

FLASH_API int32_t flash_token_bos(const flash_model *m) { return m ? m->vocab.bos : -1; }
FLASH_API int32_t flash_token_eos(const flash_model *m) { return m ? m->vocab.eos : -1; }

FLASH_API int flash_token_is_end(const flash_model *m, int32_t token)
{
    const flash__vocab *v = m ? &m->vocab : NULL;
    int i;
    for (i = 0; v && token >= 0 && i < v->n_ends; i++)
        if (v->ends[i] == token) return 1;
    return 0;
}

FLASH_API int flash_token_is_control(const flash_model *m, int32_t token)
{
    const flash__vocab *v = m ? &m->vocab : NULL;
    return v && token >= 0 && (uint32_t)token < v->n && flash__token_special(v, (uint32_t)token);
}

/* ===== >>chat ============================================================= */

/* Chat formats are rows of a table. The format of a template is the first row whose marks fit, so
   special formats stand before general ones. A row gives what its template renders, without what
   templates add on their own (>>api-chat lists that). A turn is tokenised in pieces: the format's
   part before the text, the text, the part after it. KNOWN TRAPS: the end of an answer is written
   before the next turn, not after the answer, since the model may be stopped before it writes the
   end; SentencePiece puts a space before text, so a space of the format before the text must not be
   put again; tokens of type user are found in plain text, too. Tokenising in pieces has a price:
   where the part after the text begins with line ends (smollm3, mistral-nemo: after the system
   prompt) ".\n\n" becomes two tokens, not one. */

enum { FLASH__TEMPLATE_MAX = 1 << 18 }; /* bytes of a template that are looked at */

#define FLASH__CHATML_TURNS \
    { { "<|im_start|>system\n", "<|im_end|>\n" }, \
      { "<|im_start|>user\n", "<|im_end|>\n" }, \
      { "<|im_start|>assistant\n", "<|im_end|>\n" } }, "<|im_start|>assistant\n", "<|im_end|>"
#define FLASH__DEEPSEEK_TURNS \
    { { "", "" }, { "<\xef\xbd\x9cUser\xef\xbd\x9c>", "" }, \
      { FLASH__DEEPSEEK_OPEN, FLASH__DEEPSEEK_END } }
#define FLASH__DEEPSEEK_OPEN "<\xef\xbd\x9c" "Assistant\xef\xbd\x9c>"
#define FLASH__DEEPSEEK_END \
    "<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"

/* clang-format off */
static const flash_chat_format flash__chat_table[] = {
    /* SmolLM3 with reasoning. Its template writes a system prompt of 160 words if none is given. */
    { "smollm3", { "<|im_start|>", "## Custom Instructions", NULL }, 0, 0,
      { { "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\n"
          "Reasoning Mode: /think\n\n## Custom Instructions\n\n", "\n\n<|im_end|>\n" },
        { "<|im_start|>user\n", "<|im_end|>\n" }, { "<|im_start|>assistant\n", "<|im_end|>\n" } },
      "<|im_start|>assistant\n", "<|im_end|>" },
    /* SmolLM and SmolLM2. If no system prompt is given, their templates write one that tells the
       model who it is. */
    { "smollm", { "<|im_start|>", "named SmolLM", NULL }, 0, 0, FLASH__CHATML_TURNS },
    { "lfm2", { "<|im_start|>", "List of tools: ", NULL }, 0, 0, FLASH__CHATML_TURNS },
    /* The template of Qwen2.5 writes a system prompt if none is given. A template with <|im_sep|>
       is that of phi-4, which is another format. */
    { "chatml", { "<|im_start|>", "<|im_end|>", "!<|im_sep|>" }, 0, 0, FLASH__CHATML_TURNS },
    /* From Llama 3.1 on, templates begin with a system turn that gives the dates of training and of
       today. With a template that has >>> (functionary), the model first names a recipient. */
    { "llama-3", { "<|start_header_id|>", "<|eot_id|>", "!>>>" }, 0, 1,
      { { "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>" },
        { "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>" },
        { "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>" } },
      "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>" },
    { "llama-4", { "<|header_start|>", "<|eot|>", NULL }, 0, 0,
      { { "<|header_start|>system<|header_end|>\n\n", "<|eot|>" },
        { "<|header_start|>user<|header_end|>\n\n", "<|eot|>" },
        { "<|header_start|>assistant<|header_end|>\n\n", "<|eot|>" } },
      "<|header_start|>assistant<|header_end|>\n\n", "<|eot|>" },
    /* Templates of Gemma 2 and older refuse a system prompt; this row writes it as Gemma 3 does. */
    { "gemma", { "<start_of_turn>", "<end_of_turn>", NULL }, 1, 1,
      { { "<start_of_turn>user\n", "\n\n" }, { "<start_of_turn>user\n", "<end_of_turn>\n" },
        { "<start_of_turn>model\n", "<end_of_turn>\n" } },
      "<start_of_turn>model\n", "<end_of_turn>" },
    /* A template with <|tool|> is that of phi-4-mini, which writes no line ends. */
    { "phi-3", { "<|assistant|>", "<|end|>", "!<|tool|>" }, 0, 0,
      { { "<|system|>\n", "<|end|>\n" }, { "<|user|>\n", "<|end|>\n" },
        { "<|assistant|>\n", "<|end|>\n" } }, "<|assistant|>\n", "<|end|>" },
    /* Zephyr and TinyLlama. The template's eos_token is taken to be </s>. */
    { "zephyr", { "<|user|>", "eos_token", "!<|end|>" }, 0, 0,
      { { "<|system|>\n", "</s>\n" }, { "<|user|>\n", "</s>\n" }, { "<|assistant|>\n", "</s>\n" } },
      "<|assistant|>\n", "</s>" },
    { "llama-2", { "[INST]", "<<SYS>>", NULL }, 1, 1,
      { { "[INST] <<SYS>>\n", "\n<</SYS>>\n\n" }, { "[INST] ", " [/INST]" },
        { " ", " </s><s>" } }, "", "</s>" },
    /* Mistral 7B v0.1 and v0.2. Their templates put a space before [INST]; here the tokenizer does.
       The first of these templates refused a system prompt and put no space before answers. */
    { "mistral", { "[INST] ", " [/INST]", NULL }, 1, 0,
      { { "[INST] ", "\n\n" }, { "[INST] ", " [/INST]" }, { " ", "</s>" } }, "", "</s>" },
    /* Mistral 7B v0.3 and others of that time. Their templates put the system prompt before the
       last question, so that it moves with each turn; here it stays before the first. */
    { "mistral-v3", { "[INST] ", "[/INST]", "![SYSTEM_PROMPT]" }, 1, 0,
      { { "[INST] ", "\n\n" }, { "[INST] ", "[/INST]" }, { " ", "</s>" } }, "", "</s>" },
    /* Mistral Nemo and Ministral: like mistral-v3, but without spaces. */
    { "mistral-nemo", { "[INST]", "[/INST]", "![SYSTEM_PROMPT]" }, 1, 0,
      { { "[INST]", "\n\n" }, { "[INST]", "[/INST]" }, { "", "</s>" } }, "", "</s>" },
    /* DeepSeek-R1 and the models distilled from it. An answer begins with reasoning; the template
       removes it from earlier answers, this row does not. */
    { "deepseek-r1", { FLASH__DEEPSEEK_OPEN "<think>", NULL, NULL }, 0, 0, FLASH__DEEPSEEK_TURNS,
      FLASH__DEEPSEEK_OPEN "<think>\n", FLASH__DEEPSEEK_END },
    { "deepseek", { FLASH__DEEPSEEK_OPEN, NULL, NULL }, 0, 0, FLASH__DEEPSEEK_TURNS,
      FLASH__DEEPSEEK_OPEN, FLASH__DEEPSEEK_END },
};
/* clang-format on */
#undef FLASH__CHATML_TURNS
#undef FLASH__DEEPSEEK_TURNS
#undef FLASH__DEEPSEEK_OPEN
#undef FLASH__DEEPSEEK_END

FLASH_API const flash_chat_format *flash_chat_formats(size_t *n)
{
    if (n) *n = sizeof flash__chat_table / sizeof *flash__chat_table;
    return flash__chat_table;
}

FLASH_API const flash_chat_format *flash_chat_find(const char *name)
{
    size_t n, i;
    const flash_chat_format *f = flash_chat_formats(&n);
    for (i = 0; name && i < n; i++)
        if (!strcmp(f[i].name, name)) return f + i;
    return NULL;
}

/* Returns 1 if part, [n], occurs in text. */
static int flash__contains(const char *text, size_t bytes, const char *part, size_t n)
{
    const char *end = text + bytes;
    for (; (size_t)(end - text) >= n; text++) {
        text = (const char *)memchr(text, *part, (size_t)(end - text) - n + 1);
        if (!text) return 0;
        if (!memcmp(text, part, n)) return 1;
    }
    return 0;
}

FLASH_API const flash_chat_format *flash_chat_recognise(const char *text, size_t bytes)
{
    size_t n, i, k;
    const flash_chat_format *f = flash_chat_formats(&n);
    bytes = FLASH__MIN(bytes, (size_t)FLASH__TEMPLATE_MAX);
    for (i = 0; text && i < n; i++) {
        for (k = 0; k < 3 && f[i].marks[k]; k++) {
            int not_in = *f[i].marks[k] == '!';
            const char *mark = f[i].marks[k] + not_in;
            if (flash__contains(text, bytes, mark, strlen(mark)) == not_in) break;
        }
        if (k == 3 || !f[i].marks[k]) return f + i;
    }
    return NULL;
}

FLASH_API const flash_chat_format *flash_chat_of(const flash_model *m)
{
    flash_value x;
    if (!m || flash_gguf_find(flash_model_gguf(m), "tokenizer.chat_template", &x)
        || x.type != FLASH_VALUE_STRING)
        return NULL;
    return flash_chat_recognise((const char *)x.data, x.bytes);
}

static int flash__is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

enum {
    FLASH__CHAT_CLOSE,  /* the end of the answer before this turn */
    FLASH__CHAT_BEFORE, /* the format's part before the text */
    FLASH__CHAT_TEXT,
    FLASH__CHAT_AFTER, /* the part after the text, but for an answer, which the next turn ends */
    FLASH__CHAT_PIECES /* number of pieces */
};
/* Sets piece and n, [FLASH__CHAT_PIECES], to the pieces of a turn and their lengths [B]; before,
   role and text are those of flash_chat_render. Returns 0 if they make no turn. */
static int flash__chat_pieces(const flash_chat_format *f, flash_role before, flash_role role,
                              const char *text, size_t bytes, const char **piece, size_t *n)
{
    int i, answer = role == FLASH_ROLE_ASSISTANT;
    if (!f || (unsigned)before > FLASH_ROLE_ASSISTANT || role < FLASH_ROLE_SYSTEM
        || role > FLASH_ROLE_ASSISTANT || (!text && (bytes || !answer)))
        return 0;
    piece[FLASH__CHAT_CLOSE] = before == FLASH_ROLE_ASSISTANT ? f->turn[2][1] : "";
    piece[FLASH__CHAT_BEFORE] = !text ? f->open
        : f->merge && before == FLASH_ROLE_SYSTEM && role == FLASH_ROLE_USER
        ? ""
        : f->turn[role - FLASH_ROLE_SYSTEM][0];
    piece[FLASH__CHAT_AFTER] = answer ? "" : f->turn[role - FLASH_ROLE_SYSTEM][1];
    for (; f->trim && bytes && flash__is_white(*text); text++) bytes--;
    while (f->trim && bytes && flash__is_white(text[bytes - 1])) bytes--;
    piece[FLASH__CHAT_TEXT] = text;
    for (i = 0; i < FLASH__CHAT_PIECES; i++)
        n[i] = i == FLASH__CHAT_TEXT ? bytes : strlen(piece[i]);
    return 1;
}

FLASH_API flash_status flash_chat_render(const flash_chat_format *f, flash_role before,
                                         flash_role role, const char *text, size_t bytes, char *out,
                                         size_t cap, size_t *n)
{
    const char *piece[FLASH__CHAT_PIECES];
    size_t length[FLASH__CHAT_PIECES], used = 0;
    int i;
    if ((!out && cap) || !n || !flash__chat_pieces(f, before, role, text, bytes, piece, length))
        return FLASH_E_ARGUMENT;
    for (i = 0; i < FLASH__CHAT_PIECES; i++) {
        size_t fits = used < cap ? FLASH__MIN(length[i], cap - used) : 0;
        if (fits) memcpy(out + used, piece[i], fits);
        used += length[i];
    }
    *n = used;
    return used > cap ? FLASH_E_RANGE : FLASH_E_NONE;
}

/* Returns 1 if p, the n bytes of a token in a text, also occurs in the format itself. Only tokens
   of 3 bytes and more that begin with < or [ count; others, such as white space, mark nothing. */
static int flash__chat_has(const flash_chat_format *f, const char *p, size_t n)
{
    int i;
    if (n < 3 || (*p != '<' && *p != '[')) return 0;
    for (i = 0; i < 6; i++) {
        const char *part = f->turn[i / 2][i % 2];
        if (flash__contains(part, strlen(part), p, n)) return 1;
    }
    return flash__contains(f->open, strlen(f->open), p, n);
}

/* Returns where to cut the text [p, end) so that no token of the format is found in it: after the
   first byte of the first such token, or at the end. Without the cut, tokens of type user would be
   found in plain text. */
static const char *flash__chat_cut(const flash__vocab *v, const flash_chat_format *f, const char *p,
                                   const char *end)
{
    size_t n = 0;
    for (; p < end; p++)
        if (flash__special_at(v, (const uint8_t *)p, (const uint8_t *)end, 0, &n) >= 0
            && flash__chat_has(f, p, n))
            return p + 1;
    return end;
}

/* Returns 1 if text ends with a special token, after which SentencePiece puts its space again. */
static int flash__chat_ends_special(const flash__vocab *v, const char *text, size_t n)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + n;
    size_t length;
    for (; p < end; p++)
        if (flash__special_at(v, p, end, 1, &length) >= 0 && p + length == end) return 1;
    return 0;
}

/* Appends the tokens of text, without EOS, to the *used tokens in ids, and increases *used. Tokens
   beyond cap are counted, not stored, and are no failure here. */
static flash_status flash__chat_put(const flash_model *m, const char *text, size_t bytes,
                                    unsigned flags, int32_t *ids, size_t cap, size_t *used)
{
    size_t n = 0, at = FLASH__MIN(*used, cap);
    flash_status s = flash_tokenize(m, text, bytes, flags | FLASH__NO_EOS, ids ? ids + at : NULL,
                                    cap - at, &n);
    *used += n;
    return s == FLASH_E_RANGE ? FLASH_E_NONE : s;
}

FLASH_API flash_status flash_chat_tokenize(const flash_model *m, const flash_chat_format *f,
                                           flash_role before, flash_role role, const char *text,
                                           size_t bytes, int32_t *ids, size_t cap, size_t *n)
{
    const char *piece[FLASH__CHAT_PIECES], *p, *end, *cut;
    size_t length[FLASH__CHAT_PIECES], used = 0;
    int i, fresh = before == FLASH_ROLE_NONE;
    flash_status s = FLASH_E_NONE;
    if (!m || (!ids && cap) || !n
        || !flash__chat_pieces(f, before, role, text, bytes, piece, length))
        return FLASH_E_ARGUMENT;
    if (fresh) s = flash__chat_put(m, "", 0, 0, ids, cap, &used); /* BOS */
    for (i = 0; i < FLASH__CHAT_PIECES; i++) {
        unsigned flags = FLASH_TEXT_NO_BOS | (i == FLASH__CHAT_TEXT ? 0 : FLASH_TEXT_SPECIAL);
        /* 1: the piece ends with a space that the tokenizer will put before the text */
        int space = i == FLASH__CHAT_BEFORE && length[i] && piece[i][length[i] - 1] == ' '
            && length[FLASH__CHAT_TEXT] && m->vocab.space_prefix;
        if (!length[i]) continue;
        for (p = piece[i], end = p + length[i] - space; p < end && !s; p = cut) {
            cut = i == FLASH__CHAT_TEXT ? flash__chat_cut(&m->vocab, f, p, end) : end;
            s = flash__chat_put(m, p, (size_t)(cut - p), flags | (fresh ? 0 : FLASH_TEXT_CONTINUE),
                                ids, cap, &used);
            fresh = 0;
        }
        fresh = space
            || (i != FLASH__CHAT_TEXT && flash__chat_ends_special(&m->vocab, piece[i], length[i]));
    }
    if (s) return s;
    *n = used;
    return used > cap ? FLASH_E_RANGE : FLASH_E_NONE;
}

/* ===== >>forward ========================================================== */

/* The forward pass runs a chunk of T tokens through the model, one layer at a time, so that a step
   can stop between two layers. Attention never holds the T x T matrix of scores. It takes the
   positions in blocks of 64 that begin at multiples of 64; each block has its own maximum, and
   blocks are joined by rescaling (online softmax; Milakov and Gimelshein 2018, arxiv 1805.02867).
   Eight blocks make a span: blocks are joined to spans, and spans to the whole. Workers can
   therefore share the spans of a single token, and the result has the same bits. Blocks and spans
   do not depend on how the prompt was cut into chunks, so the bits do not either.
   Inside a block, q.k is summed over the head in order, and weights times values are summed over
   the positions in order. SIMD lanes are positions and columns, so a block of keys is stored
   transposed, [C,64], and a block of values as [64,C]. A layer with an attention window keeps its
   blocks in a ring. A layer without attention keeps no keys and values.
   KNOWN TRAPS: the columns of a block beyond a query's own position hold later keys or none at all;
   their scores are computed but never used. Values are multiplied by weights of 0 up to the last
   query of a tile, which is harmless unless a model yields Inf or NaN. */

enum {
    FLASH__PICK_ROWS = 64,         /* most rows of a matrix that a worker takes at once */
    FLASH__TILE = 64,              /* most queries of one head that are handled together */
    FLASH__SPAN = 8,               /* blocks in a span */
    FLASH__HEAD_WEIGHTS = 1 << 20, /* weights of the output head per step before a deadline */
    FLASH__SLICE = 250             /* wanted length of a step before a deadline [us] */
};

struct flash_session {
    const flash_model *m;
    flash_session_desc desc;
    flash__pool pool;
    size_t block;            /* size of the session's memory [B] */
    int n_ctx, chunk, slots; /* slots: most workers at a time; each has a workspace */
    int pos, fed;            /* tokens processed; tokens processed or queued */
    int run, layer;          /* tokens of the chunk in progress, 0 if none; its next layer */
    int head;                /* rows of the output head done, once all layers are */
    int begin;               /* position at which the queue was last empty */
    int high;                /* one above the highest position written to the rings so far */
    int slice, sliced;       /* tokens per chunk before a deadline; 1: the chunk has that size */
    double slowest;          /* time of the chunk's slowest step so far [s] */
    int side;                /* half of conv (0 or 1) with the state before the chunk */
    int rope_layer;          /* layer whose angles are in rope, -1 if none */
    int last, last_n;        /* first position and number of tokens of the last finished chunk */
    int have_logits, ended;
    int text_at, text_fresh;      /* token where the text begins; 1: its first space is hidden */
    int32_t sampled;              /* last result of flash_session_sample, -1: none, or fed since */
    struct flash__reading *match; /* NULL if the session was created without a grammar */
    volatile int cancel;
    int32_t *ids;                       /* [n_ctx] all tokens fed */
    uint8_t **k, **v;                   /* [L] of [K,blocks] blocks of flash__kv_block bytes */
    int *blocks;                        /* [L] blocks of 64 positions kept: all, or a ring */
    int *from;                          /* [L] first position that a restored state had, else 0 */
    float **conv;                       /* [L] of [2,conv_length-1,D]: last inputs, in two halves */
    float *x, *h;                       /* [T,D] residual stream; [T,max(D,H*C)] normed, attended */
    float *q, *kk, *vv;                 /* [T,max(D,H*C)], 3D for CONV; [T,K*C], [T,K*C] */
    float *gate, *up;                   /* [T,F] */
    float *rope;                        /* [T,rope_dims] cos and sin */
    float *span;                        /* [spans,H,C+2] of one token: sums, maximum, total */
    flash__q8 *q8;                      /* [T,max(D,H*C,F)/32] quantised input of a product */
    float *logits;                      /* [V], or [T,V] with all_logits */
    struct flash__candidate *candidate; /* [V] */
    uint8_t *work;                      /* [slots,work_bytes] */
    size_t work_bytes;
    uint64_t random; /* state of the sampler's random numbers */
    flash_detokenizer detok;
    char *text, *piece;                /* [text_cap] text held back; text last handed out */
    size_t text_n, text_cap, stop_max; /* bytes held back; size of both; longest stop string [B] */
};

/* A job is up to three products of the same input, or one step over tokens or heads. Its items are
   shared out to workers, one task each. */
typedef struct flash__job {
    flash_session *s;
    const flash__mat *w[3];
    float *y[3]; /* [T,rows] */
    const float *bias[3];
    const float *x;    /* [T,cols] */
    const float *norm; /* [D] */
    int tokens, layer, items, width, tasks;
    volatile int next[FLASH_THREADS_MAX]; /* [tasks] next item of each task's share */
} flash__job;

/* Returns the first item of task i's share. Shares are equal, and in the order of the tasks. */
static int flash__share(const flash__job *j, int i)
{
    return (int)((int64_t)j->items * i / j->tasks);
}

/* Returns the next item for the worker with number index, or -1 if all are taken. A worker takes
   the items of its own share first, so that it reads consecutive weights, which memory delivers
   fastest. It then takes items from the shares of the others. */
static int flash__pick(flash__job *j, int index)
{
    int k, i, at = index;
    for (k = 0; k < j->tasks; k++, at = at + 1 < j->tasks ? at + 1 : 0) {
        if (flash__get(&j->next[at]) >= flash__share(j, at + 1)) continue;
        i = flash__add(&j->next[at], 1);
        if (i < flash__share(j, at + 1)) return i;
    }
    return -1;
}

/* Runs the items of a job on as many workers as there are, and returns when all are done. */
static void flash__run(flash_session *s, flash__job *job, int items, flash__task task)
{
    const flash_host *host = &s->desc.host;
    int i, tasks = FLASH__MAX(FLASH__MIN(items, s->slots), 1);
    job->s = s;
    job->items = items;
    job->tasks = tasks;
    for (i = 0; i < tasks; i++) job->next[i] = flash__share(job, i);
    if (tasks == 1)
        task(job, 0);
    else if (host->parallel_for)
        host->parallel_for(host->user, tasks, task, job);
    else
        flash__pool_run(&s->pool, tasks, task, job);
}

/* --- matrix products -------------------------------------------------------- */

/* Returns the number of rows that a worker takes at once: few enough that their panels, of at most
   1.5 bytes a weight, stay in the second-level cache. */
static int flash__pick_rows(const flash__kernels *k, int cols)
{
    int rows = 393216 / (cols + cols / 2 + 1) / k->panel_rows * k->panel_rows;
    return FLASH__MAX(FLASH__MIN(rows, FLASH__PICK_ROWS), k->panel_rows);
}

/* Computes rows [from, from + rows) of the job's product `which` for all tokens. panels: the
   worker's workspace. */
static void flash__matmul_rows(const flash__job *j, int which, int from, int rows, uint8_t *panels)
{
    const flash__mat *w = j->w[which];
    const flash__kernels *k = &j->s->m->k;
    const uint8_t *data = w->data + (size_t)from * w->row_bytes;
    size_t cols = (size_t)w->cols, ldy = (size_t)w->rows, bytes;
    float *y = j->y[which] + from;
    int quantised = flash_type_block(w->type) > 1, R = k->panel_rows, some = k->panel_tokens, t, r,
        i;
    if (!quantised || j->tokens < 4) {
        for (t = 0; t < j->tokens; t++) {
            const void *x = quantised ? (const void *)(j->s->q8 + (size_t)t * (cols / 32))
                                      : (const void *)(j->x + (size_t)t * cols);
            k->rows(w->type, data, w->row_bytes, rows, x, cols, y + (size_t)t * ldy);
        }
    } else {
        bytes = flash__panel_stride(w->type, R) * (cols / 32);
        for (r = 0; r < rows; r += R)
            k->pack(w->type, data + (size_t)r * w->row_bytes, w->row_bytes, FLASH__MIN(R, rows - r),
                    cols, panels + (size_t)(r / R) * bytes);
        for (t = 0; t < j->tokens; t += some)
            for (r = 0; r < rows; r += R * k->panels)
                k->panel(w->type, panels + (size_t)(r / R) * bytes,
                         FLASH__MIN(R * k->panels, rows - r), j->s->q8 + (size_t)t * (cols / 32),
                         FLASH__MIN(some, j->tokens - t), cols, y + (size_t)t * ldy + r, ldy);
    }
    for (t = 0; j->bias[which] && t < j->tokens; t++)
        for (i = 0; i < rows; i++) y[(size_t)t * ldy + (size_t)i] += j->bias[which][from + i];
}

static void flash__matmul_task(void *ctx, int index)
{
    flash__job *j = (flash__job *)ctx;
    uint8_t *work = j->s->work + (size_t)index * j->s->work_bytes;
    int i, which, step = j->width;
    while ((i = flash__pick(j, index)) >= 0) {
        for (which = 0; i * step >= j->w[which]->rows; which++)
            i -= (j->w[which]->rows + step - 1) / step;
        flash__matmul_rows(j, which, i * step, FLASH__MIN(step, j->w[which]->rows - i * step),
                           work);
    }
}

static void flash__product(flash__job *job, int i, const flash__mat *w, const float *bias, float *y)
{
    job->w[i] = w;
    job->bias[i] = bias;
    job->y[i] = y;
}

/* Computes y[t] = w x[t] (+ bias) for the n products set up in job by flash__product. x: [T,cols];
   s->q8 must hold the same x quantised. */
static void flash__matmul(flash_session *s, flash__job *job, int n, const float *x, int T)
{
    int i, items = 0, rows = 0;
    job->x = x;
    job->tokens = T;
    job->width = flash__pick_rows(&s->m->k, job->w[0]->cols);
    if (T < 4) { /* without panels, rows need not fit a cache: at most about 8 picks a worker */
        for (i = 0; i < n; i++) rows += job->w[i]->rows;
        while (job->width * s->slots * 8 < rows) job->width *= 2;
    }
    for (i = 0; i < n; i++) items += (job->w[i]->rows + job->width - 1) / job->width;
    flash__run(s, job, items, flash__matmul_task);
}

/* --- steps over tokens ------------------------------------------------------ */

static void flash__quantize_row(flash_session *s, const float *x, int t, int n)
{
    if (n % 32 == 0)
        s->m->k.quantize(x + (size_t)t * (size_t)n, (size_t)n,
                         s->q8 + (size_t)t * (size_t)(n / 32));
}

static void flash__norm_task(void *ctx, int index) /* h = norm(x), quantised */
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    size_t D = (size_t)s->m->arch.d_model;
    int t;
    while ((t = flash__pick(j, index)) >= 0) {
        s->m->k.rmsnorm(j->x + (size_t)t * D, j->norm, s->m->arch.norm_eps, D,
                        s->h + (size_t)t * D);
        flash__quantize_row(s, s->h, t, (int)D);
    }
}

static void flash__quantize_task(void *ctx, int index) /* rows of x, j->width items each */
{
    flash__job *j = (flash__job *)ctx;
    int t;
    while ((t = flash__pick(j, index)) >= 0) flash__quantize_row(j->s, j->x, t, j->width);
}

static void flash__gate_task(void *ctx, int index) /* gate = f(gate)*up, quantised */
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    int t;
    while ((t = flash__pick(j, index)) >= 0) {
        size_t at = (size_t)t * (size_t)j->width;
        s->m->k.glu(s->m->arch.activation == FLASH_ACTIVATION_GELU, s->gate + at, s->up + at,
                    (size_t)j->width, s->gate + at);
        flash__quantize_row(s, s->gate, t, j->width);
    }
}

/* Returns the residual stream of the chunk's last T tokens, [T,D]. */
static float *flash__last_rows(const flash_session *s, int T)
{
    return s->x + (size_t)(s->run - T) * (size_t)s->m->arch.d_model;
}

/* Sets h = norm(x) for T rows, and q8 to the same quantised. w: [D] weights of the norm. */
static void flash__norm_rows(flash_session *s, const float *x, const float *w, int T)
{
    flash__job job;
    job.x = x;
    job.norm = w;
    flash__run(s, &job, T, flash__norm_task);
}

static void flash__residual_task(void *ctx, int index)
{
    flash__job *j = (flash__job *)ctx;
    size_t D = (size_t)j->s->m->arch.d_model, i;
    int t;
    while ((t = flash__pick(j, index)) >= 0) {
        float *x = flash__last_rows(j->s, j->tokens) + (size_t)t * D, *y = j->y[0] + (size_t)t * D;
        if (j->norm) j->s->m->k.rmsnorm(y, j->norm, j->s->m->arch.norm_eps, D, y);
        for (i = 0; i < D; i++) x[i] += y[i];
    }
}

/* Adds y [T,D] to the residual stream of the chunk's last T tokens. If norm is not NULL, y is first
   replaced by norm(y). */
static void flash__residual(flash_session *s, float *y, const float *norm, int T)
{
    flash__job job;
    job.y[0] = y;
    job.norm = norm;
    job.tokens = T;
    flash__run(s, &job, T, flash__residual_task);
}

/* --- keys and values -------------------------------------------------------- */

/* Stores one key (turned = 1: transposed) or value x [C] at place t of its block. A Q8_0 block
   holds int8 [64*C] in the same order as other types, then f16 scales. A scale belongs to G items
   (flash__kv_group) of a head at one position: [C/G,64] for keys, [64,C/G] for values. */
static void flash__kv_store(flash_type kv, uint8_t *block, int t, const float *x, int C, int turned)
{
    size_t step = turned ? 64 : 1, at = turned ? (size_t)t : (size_t)t * (size_t)C, i, g,
           n = (size_t)C, G = (size_t)flash__kv_group(C);
    uint8_t *scale = block + 64 * n;
    for (i = 0; kv == FLASH_TYPE_F32 && i < n; i++) memcpy(block + 4 * (at + i * step), x + i, 4);
    for (i = 0; kv == FLASH_TYPE_F16 && i < n; i++) {
        uint16_t h = flash__f32_f16(x[i]);
        memcpy(block + 2 * (at + i * step), &h, 2);
    }
    for (g = 0; kv == FLASH_TYPE_Q8_0 && g < n / G; g++, x += G) {
        float amax = 0, inverse;
        uint16_t d;
        for (i = 0; i < G; i++) {
            float a = x[i] < 0 ? -x[i] : x[i];
            amax = a > amax ? a : amax;
        }
        amax = amax < 8e6f ? amax : 8e6f; /* so that the scale fits f16 */
        inverse = amax > 1e-4f ? 127.0f / amax : 0;
        d = flash__f32_f16(inverse > 0 ? amax / 127.0f : 0);
        for (i = 0; i < G; i++) {
            float v = x[i] * inverse;
            v = v < 127.0f ? v : 127.0f;
            v = v > -127.0f ? v : -127.0f;
            block[at + (G * g + i) * step] = (uint8_t)(int8_t)flash__round(v);
        }
        memcpy(scale + 2 * (turned ? g * 64 + (size_t)t : (size_t)t * (n / G) + g), &d, 2);
    }
}

/* Returns a block as floats: the block itself if it is F32, else a copy converted into room [64*C].
   turned: 1 for a block of keys. */
static const float *flash__kv_floats(const flash_session *s, const uint8_t *block, int C,
                                     int turned, float *room)
{
    const uint16_t *scale = (const uint16_t *)(const void *)(block + 64 * (size_t)C);
    const int8_t *q = (const int8_t *)block;
    float d[64], *y = room;
    int i, k, G = flash__kv_group(C);
    if (s->desc.kv == FLASH_TYPE_F32) return (const float *)(const void *)block;
    if (s->desc.kv == FLASH_TYPE_F16)
        s->m->k.widen((const uint16_t *)(const void *)block, 64 * (size_t)C, room);
    else
        for (i = 0; i < C / G * 64; i += 64, q += 64 * G, y += 64 * G) {
            s->m->k.widen(scale + i, 64, d);
            for (k = 0; turned && k < G; k++) s->m->k.widen8(q + 64 * k, d, 1, 64, y + 64 * k);
            for (k = 0; !turned && k < 64; k++)
                s->m->k.widen8(q + G * k, d + k, 0, (size_t)G, y + G * k);
        }
    return room;
}

/* Fills s->rope with cos and sin for the chunk's positions in layer il, unless the values already
   there, of an earlier layer, are the same. */
static void flash__rope_angles(flash_session *s, int il)
{
    const flash_arch *a = &s->m->arch;
    const flash_layer *l = a->layer + il, *had = a->layer + FLASH__MAX(s->rope_layer, 0);
    double speed[FLASH_HEAD_MAX / 2];
    float scale;
    int t, i;
    if (l->rope_base == 0
        || (s->rope_layer >= 0 && l->rope_base == had->rope_base
            && l->rope_plain == had->rope_plain))
        return;
    scale = flash__rope_speeds(a, s->m->root.rope_factors, l, speed);
    for (t = 0; t < s->run; t++)
        for (i = 0; i < a->rope_dims / 2; i++) {
            float *r = s->rope + (size_t)t * (size_t)a->rope_dims + 2 * (size_t)i;
            double c, sine;
            flash__cos_sin((s->pos + t) * speed[i], &c, &sine);
            r[0] = (float)c * scale;
            r[1] = (float)sine * scale;
        }
    s->rope_layer = il;
}

/* Normalises and rotates one query or key x [C]. norm: [C] or NULL; rope: cos and sin of its
   position. With qk_norm, x is also normalised after the rotation. */
static void flash__turn(const flash_session *s, const flash_layer *l, const float *norm,
                        const float *rope, float *x)
{
    const flash_arch *a = &s->m->arch;
    size_t C = (size_t)a->d_head;
    if (norm) s->m->k.rmsnorm(x, norm, a->norm_eps, C, x);
    if (l->rope_base == 0) return;
    s->m->k.rope(x, rope, a->rope_dims, a->rope_style);
    if (a->qk_norm) s->m->k.rmsnorm(x, s->m->ones, a->norm_eps, C, x);
}

/* Normalises and rotates the queries of the chunk's last j->tokens tokens and the keys of all its
   tokens, and stores keys and values in the cache. */
static void flash__rope_task(void *ctx, int index)
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    const flash_arch *a = &s->m->arch;
    const flash_layer *l = a->layer + j->layer;
    const flash__layer *w = s->m->layer + j->layer;
    int t, h, i, C = a->d_head, H = l->n_head, K = l->n_kv_head, blocks = s->blocks[j->layer];
    size_t bytes = flash__kv_block(s->desc.kv, C);
    while ((t = flash__pick(j, index)) >= 0) {
        const float *rope = s->rope + (size_t)t * (size_t)a->rope_dims;
        int p = s->pos + t, row = t - (s->run - j->tokens), heads = row < 0 ? 0 : H;
        float *q = s->q + (size_t)FLASH__MAX(row, 0) * (size_t)(H * C);
        for (h = 0; h < heads; h++) flash__turn(s, l, w->q_norm, rope, q + h * C);
        if (a->temperature_n_ctx && l->rope_base == 0) {
            float grow = 1 + 0.1f * (float)flash__log(1 + (p + 1) / a->temperature_n_ctx);
            for (i = 0; i < heads * C; i++) q[i] = q[i] * grow;
        }
        for (h = 0; h < K; h++) {
            size_t from = ((size_t)t * (size_t)K + (size_t)h) * (size_t)C,
                   at = (size_t)(h * blocks + p / 64 % blocks) * bytes;
            flash__turn(s, l, w->k_norm, rope, s->kk + from);
            flash__kv_store(s->desc.kv, s->k[j->layer] + at, p % 64, s->kk + from, C, 1);
            flash__kv_store(s->desc.kv, s->v[j->layer] + at, p % 64, s->vv + from, C, 0);
        }
    }
}

/* --- attention -------------------------------------------------------------- */

/* Returns the first position that a query at position p attends to. */
static int flash__sees(const flash_layer *l, int p)
{
    if (l->attention == FLASH_ATTENTION_WINDOW) return FLASH__MAX(p + 1 - l->window, 0);
    return l->attention == FLASH_ATTENTION_CHUNK ? p / l->window * l->window : 0;
}

/* n <= 64 queries that share a key/value head. Query r is at position first + r*step: step is 1 for
   one head of many tokens and 0 for many heads of one token. */
typedef struct flash__queries {
    const float *q;            /* [n,C] */
    float *out, *best, *total; /* [n,C]; [n] maximum and sum so far, total 0: nothing yet */
    int n, first, step;
    const flash_layer *layer;
} flash__queries;

/* The buffers of one worker for attention. group: query heads per key/value head. */
typedef struct flash__room {
    float *keys, *values, *score, *sum; /* [C,64], [64,C] one block; [64,64], [64,C] its result */
    float *q, *out, *best, *total;      /* of a span: [group,64,C] twice, [group,64] twice */
    float *whole_best, *whole_total;    /* [group,64] of all spans so far */
} flash__room;

static size_t flash__room_floats(int C, int group)
{
    return (size_t)(64 * (3 * C + 64 + 2 * group * (C + 2)));
}

/* Joins the result for later positions to that for earlier ones, which is updated. A result is the
   maximum score (most, *best), the sum of the weights (l, *total) and the weighted sum of the
   values [C] (sum, out). *total 0: there is no earlier result. */
static void flash__attend_join(const flash__kernels *k, float *best, float *total, float *out,
                               float most, float l, const float *sum, size_t C)
{
    float keep = 1, add = 1;
    if (*total == 0) {
        *best = most;
        *total = l;
        memcpy(out, sum, C * sizeof *out);
        return;
    }
    if (most > *best) {
        keep = flash__expf(*best - most);
        *best = most;
    } else
        add = flash__expf(most - *best);
    *total = *total * keep + l * add;
    k->blend(out, keep, sum, add, C);
}

/* Attends to one block of 64 positions, of which the first is begin, and joins the result to that
   of the blocks before it. */
static void flash__attend(const flash_session *s, const flash__queries *u, const flash__room *room,
                          int begin, const float *keys, const float *values)
{
    const flash__kernels *k = &s->m->k;
    int C = s->m->arch.d_head, top = u->n, end = 0, last = 0, r;
    float most[FLASH__TILE], l[FLASH__TILE];
    k->sgemm(u->q, (size_t)C, 1, keys, 64, room->score, 64, u->n, 64, C);
    for (r = 0; r < u->n; r++) {
        int p = u->first + r * u->step, to = FLASH__MIN(p + 1 - begin, 64),
            from = FLASH__MAX(flash__sees(u->layer, p) - begin, 0);
        if (from >= to) continue; /* sees nothing of it: one of the first or the last */
        top = FLASH__MIN(top, r);
        end = r + 1;
        last = to;
        most[r] = k->softmax(room->score + 64 * r, s->m->arch.attention_scale, from, to, &l[r]);
    }
    /* The weights of positions not seen are 0, and adding 0 times a finite value changes no bit. */
    if (top < end)
        k->sgemm(room->score + 64 * top, 64, 1, values, (size_t)C, room->sum + top * C, (size_t)C,
                 end - top, C, last);
    for (r = top; r < end; r++)
        flash__attend_join(k, u->best + r, u->total + r, u->out + r * C, most[r], l[r],
                           room->sum + r * C, (size_t)C);
}

/* Attends to blocks [from, to] of key/value head kv, which lie in one span, for `heads` query heads
   in room->q. The results go to room->out, best and total. u: the queries of each of the heads. */
static void flash__attend_span(flash_session *s, int il, int kv, int from, int to, int heads,
                               flash__queries *u, const flash__room *room)
{
    int C = s->m->arch.d_head, blocks = s->blocks[il], b, g;
    size_t bytes = flash__kv_block(s->desc.kv, C), line;
    memset(room->total, 0, 64 * (size_t)heads * sizeof *room->total);
    for (b = from; b <= to; b++) {
        size_t at = (size_t)(kv * blocks + b % blocks) * bytes;
        size_t after = (size_t)(kv * blocks + (b + 1) % blocks) * bytes;
        const float *keys = flash__kv_floats(s, s->k[il] + at, C, 1, room->keys);
        const float *values = flash__kv_floats(s, s->v[il] + at, C, 0, room->values);
        for (line = 0; !u->step && b < to && line < bytes; line += 64) {
            FLASH__PREFETCH(s->k[il] + after + line);
            FLASH__PREFETCH(s->v[il] + after + line);
        }
        for (g = 0; g < heads; g++) {
            u->q = room->q + 64 * g * C;
            u->out = room->out + 64 * g * C;
            u->best = room->best + 64 * g;
            u->total = room->total + 64 * g;
            flash__attend(s, u, room, 64 * b, keys, values);
        }
    }
}

/* Finishes a query's result: divides the weighted sum out [C] by the sum of the weights. */
static void flash__attended(float *out, float total, int C)
{
    int i;
    for (i = 0; i < C; i++) out[i] = out[i] / total;
}

/* Computes h = softmax(q K^T scale) V for the chunk's last j->tokens tokens. An item is one
   key/value head and a tile of up to 64 tokens. If there is only one token, an item is one
   key/value head, up to 64 of its query heads and one of j->width spans, and its result goes to
   s->span. */
static void flash__attention_task(void *ctx, int index)
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    const flash_layer *l = s->m->arch.layer + j->layer;
    int C = s->m->arch.d_head, H = l->n_head, K = l->n_kv_head, group = H / K, item, g, r, span,
        one = j->tokens == 1, heads = one ? 1 : group, spans = j->width,
        tiles = j->items / K / spans;
    float *floats = (float *)(void *)(s->work + (size_t)index * s->work_bytes);
    flash__room room;
    room.keys = floats;
    room.values = room.keys + 64 * C;
    room.score = room.values + 64 * C;
    room.sum = room.score + 64 * 64;
    room.q = room.sum + 64 * C;
    room.out = room.q + 64 * group * C;
    room.best = room.out + 64 * group * C;
    room.total = room.best + 64 * group;
    room.whole_best = room.total + 64 * group;
    room.whole_total = room.whole_best + 64 * group;
    while ((item = flash__pick(j, index)) >= 0) {
        int kv = item / spans / tiles, tile = item / spans % tiles, first_block, last_block;
        /* the rows of s->q and s->h are heads of one token, or one head of many tokens */
        size_t first = ((size_t)(kv * group) + (size_t)(64 * tile) * (size_t)(one ? 1 : H))
            * (size_t)C,
               ld = (size_t)(one ? C : H * C), row = (size_t)C * sizeof *s->q;
        flash__queries u;
        u.n = FLASH__MIN((one ? group : j->tokens) - 64 * tile, 64);
        u.first = s->pos + s->run - j->tokens + (one ? 0 : 64 * tile);
        u.step = !one;
        u.layer = l;
        first_block = flash__sees(l, u.first) / 64;
        last_block = (u.first + (u.n - 1) * u.step) / 64;
        for (g = 0; g < heads; g++)
            for (r = 0; r < u.n; r++) {
                room.whole_total[64 * g + r] = 0;
                memcpy(room.q + (64 * g + r) * C, s->q + first + (size_t)(g * C) + (size_t)r * ld,
                       row);
            }
        for (span = first_block / FLASH__SPAN; span <= last_block / FLASH__SPAN; span++) {
            int from = FLASH__MAX(first_block, span * FLASH__SPAN),
                to = FLASH__MIN(last_block, span * FLASH__SPAN + FLASH__SPAN - 1),
                which = span - first_block / FLASH__SPAN;
            if (one && which != item % spans) continue;
            flash__attend_span(s, j->layer, kv, from, to, heads, &u, &room);
            for (g = 0; g < heads; g++)
                for (r = 0; r < u.n; r++) {
                    int i = 64 * g + r;
                    float *part = s->span
                        + ((size_t)which * (size_t)H + (size_t)(kv * group + 64 * tile + r))
                            * (size_t)(C + 2);
                    if (one) {
                        memcpy(part, room.out + i * C, row);
                        part[C] = room.best[i];
                        part[C + 1] = room.total[i];
                    } else if (room.total[i] > 0)
                        flash__attend_join(&s->m->k, room.whole_best + i, room.whole_total + i,
                                           s->h + first + (size_t)(g * C) + (size_t)r * ld,
                                           room.best[i], room.total[i], room.out + i * C,
                                           (size_t)C);
                }
        }
        for (g = 0; !one && g < heads; g++)
            for (r = 0; r < u.n; r++)
                flash__attended(s->h + first + (size_t)(g * C) + (size_t)r * ld,
                                room.whole_total[64 * g + r], C);
    }
}

/* Joins the results of the spans of a single token, in the order of positions, into s->h [H,C]. */
static void flash__attention_join(flash_session *s, int H, int spans)
{
    int C = s->m->arch.d_head, h, i;
    for (h = 0; h < H; h++) {
        float best = 0, total = 0, *out = s->h + h * C;
        for (i = 0; i < spans; i++) {
            const float *part = s->span + ((size_t)i * (size_t)H + (size_t)h) * (size_t)(C + 2);
            flash__attend_join(&s->m->k, &best, &total, out, part[C], part[C + 1], part, (size_t)C);
        }
        flash__attended(out, total, C);
    }
}

/* Returns the size of one worker's workspace [B], which holds the panels of one pick or the buffers
   of attention. widest: most columns of any matrix. */
static size_t flash__work_bytes(const flash_model *m, size_t widest)
{
    size_t panels = 0, room = 0, cols;
    int i, group = 1;
    for (cols = 32; cols < widest + 32; cols += 32) {
        size_t c = FLASH__MIN(cols, (widest + 31) / 32 * 32),
               n = (size_t)flash__pick_rows(&m->k, (int)c) * 48 * (c / 32);
        panels = FLASH__MAX(panels, n);
    }
    for (i = 0; i < m->arch.n_layer; i++)
        if (m->arch.layer[i].n_kv_head)
            group = FLASH__MAX(group, m->arch.layer[i].n_head / m->arch.layer[i].n_kv_head);
    room = 4 * flash__room_floats(m->arch.d_head, group);
    return (FLASH__MAX(panels, room) + 63) / 64 * 64;
}

/* --- layers ----------------------------------------------------------------- */

/* x += attention(norm(x)). Computes keys and values for the whole chunk, and everything else only
   for its last T tokens, which may be 0. */
static void flash__attention(flash_session *s, int il, int T)
{
    const flash_arch *a = &s->m->arch;
    const flash_layer *l = a->layer + il;
    const flash__layer *w = s->m->layer + il;
    int group = l->n_head / l->n_kv_head, one = T == 1, pos = s->pos + s->run - T, n = 0,
        spans = pos / 64 / FLASH__SPAN - flash__sees(l, pos) / 64 / FLASH__SPAN + 1;
    flash__job job;
    flash__norm_rows(s, s->x, w->attn_norm, s->run);
    if (T == s->run) flash__product(&job, n++, &w->q, w->bq, s->q);
    flash__product(&job, n++, &w->k, w->bk, s->kk);
    flash__product(&job, n++, &w->v, w->bv, s->vv);
    flash__matmul(s, &job, n, s->h, s->run);
    if (T < s->run && T) {
        flash__norm_rows(s, flash__last_rows(s, T), w->attn_norm, T);
        flash__product(&job, 0, &w->q, w->bq, s->q);
        flash__matmul(s, &job, 1, s->h, T);
    }
    job.layer = il;
    job.tokens = T;
    flash__rope_angles(s, il);
    flash__run(s, &job, s->run, flash__rope_task);
    if (!T) return;
    job.width = one ? spans : 1;
    flash__run(s, &job, l->n_kv_head * (((one ? group : T) + 63) / 64) * job.width,
               flash__attention_task);
    if (one) flash__attention_join(s, l->n_head, spans);
    job.x = s->h;
    job.width = l->n_head * a->d_head;
    flash__run(s, &job, T, flash__quantize_task);
    flash__product(&job, 0, &w->o, w->bo, s->q);
    flash__matmul(s, &job, 1, s->h, T);
    flash__residual(s, s->q, w->attn_post, T);
}

/* x += o(norm(x)) */
static void flash__linear(flash_session *s, int il, int T)
{
    const flash__layer *w = s->m->layer + il;
    flash__job job;
    flash__norm_rows(s, s->x, w->attn_norm, T);
    flash__product(&job, 0, &w->o, w->bo, s->q);
    flash__matmul(s, &job, 1, s->h, T);
    flash__residual(s, s->q, NULL, T);
}

/* Computes h = c*conv(b*u), also quantised, where s->q is [T,3,D] and holds b, c, u. z = b*u of the
   last positions goes to the other half of the state. */
static void flash__conv_task(void *ctx, int index)
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    int D = s->m->arch.d_model, n = s->m->arch.conv_length, t, i, d;
    const float *w = s->m->layer[j->layer].conv;
    const float *before = s->conv[j->layer] + (size_t)(s->side * (n - 1)) * (size_t)D;
    float *after = s->conv[j->layer] + (size_t)(!s->side * (n - 1)) * (size_t)D;
    while ((t = flash__pick(j, index)) >= 0) {
        float *y = s->h + (size_t)t * (size_t)D;
        const float *c = s->q + ((size_t)t * 3 + 1) * (size_t)D;
        for (d = 0; d < D; d++) y[d] = 0;
        for (i = 0; i < n; i++) { /* sums in the order of positions */
            int from = t - (n - 1) + i;
            const float *b = s->q + (size_t)FLASH__MAX(from, 0) * 3 * (size_t)D, *u = b + 2 * D;
            const float *old = before + (size_t)FLASH__MAX(from + n - 1, 0) * (size_t)D;
            float *keep = j->tokens - t <= n - 1 && i == n - 1
                ? after + (size_t)(t + n - 1 - j->tokens) * (size_t)D
                : NULL;
            if (s->pos + from < 0) continue;
            for (d = 0; d < D; d++) {
                float z = from < 0 ? old[d] : b[d] * u[d];
                y[d] = y[d] + w[d * n + i] * z;
                if (keep) keep[d] = z;
            }
        }
        for (d = 0; d < D; d++) y[d] = c[d] * y[d];
        flash__quantize_row(s, s->h, t, D);
    }
}

/* x += out(c*conv(b*u)), where b, c, u = in(norm(x)): the short convolution of LFM2 (Liquid AI
   2025, arxiv 2511.23404) */
static void flash__convolution(flash_session *s, int il, int T)
{
    const flash__layer *w = s->m->layer + il;
    int n = s->m->arch.conv_length, i;
    size_t row = (size_t)s->m->arch.d_model;
    flash__job job;
    flash__norm_rows(s, s->x, w->attn_norm, T);
    flash__product(&job, 0, &w->conv_in, NULL, s->q);
    flash__matmul(s, &job, 1, s->h, T);
    job.layer = il;
    for (i = 0; i < n - 1 - T; i++) /* the chunk is too short to replace all: the rest moves */
        memcpy(s->conv[il] + (size_t)(!s->side * (n - 1) + i) * row,
               s->conv[il] + (size_t)(s->side * (n - 1) + i + T) * row, row * sizeof **s->conv);
    flash__run(s, &job, T, flash__conv_task);
    flash__product(&job, 0, &w->conv_out, NULL, s->q);
    flash__matmul(s, &job, 1, s->h, T);
    flash__residual(s, s->q, NULL, T);
}

/* x += down(f(gate(norm(x)))*up(norm(x))) for the chunk's last T tokens */
static void flash__ffn(flash_session *s, int il, int T)
{
    const flash__layer *w = s->m->layer + il;
    flash__job job;
    if (!T) return;
    flash__norm_rows(s, flash__last_rows(s, T), w->ffn_norm, T);
    flash__product(&job, 0, &w->gate, w->bgate, s->gate);
    flash__product(&job, 1, &w->up, w->bup, s->up);
    flash__matmul(s, &job, 2, s->h, T);
    job.width = s->m->arch.layer[il].d_ffn;
    flash__run(s, &job, T, flash__gate_task);
    flash__product(&job, 0, &w->down, w->bdown, s->h);
    flash__matmul(s, &job, 1, s->gate, T);
    flash__residual(s, s->h, w->ffn_post, T);
}

/* Begins a chunk: sets x to the embeddings of the next T tokens. */
static void flash__chunk_begin(flash_session *s, int T)
{
    const flash_model *m = s->m;
    const flash__mat *e = &m->root.embed;
    size_t D = (size_t)m->arch.d_model, i;
    float scale = m->arch.embedding_scale;
    int t;
    for (t = 0; t < T; t++)
        flash_dequantize(e->type, e->data + (size_t)s->ids[s->pos + t] * e->row_bytes,
                         s->x + (size_t)t * D, D);
    for (i = 0; scale != 1 && i < (size_t)T * D; i++) s->x[i] = s->x[i] * scale;
    s->run = T;
    s->layer = s->head = 0;
    s->slowest = 0;
    s->rope_layer = -1;
    s->high = FLASH__MAX(s->high, s->pos + T);
}

/* Limits logits: x = c tanh(x/c), where tanh(u) = 1 - 2/(exp(2u) + 1). c = 0 changes nothing. */
static void flash__cap(float c, float *x, size_t n)
{
    size_t i;
    for (i = 0; c > 0 && i < n; i++) x[i] = (float)(c * (1 - 2 / (flash__exp(2.0 * x[i] / c) + 1)));
}

/* Returns the number of the chunk's last tokens whose logits are needed: all, 1 or 0. */
static int flash__wanted(const flash_session *s)
{
    return s->desc.all_logits ? s->run : s->pos + s->run == s->fed;
}

/* Computes the logits after the last layer. Before a deadline, a call for one token takes only
   about FLASH__HEAD_WEIGHTS weights. Returns 1 when all logits are done, 0 if some are missing. */
static int flash__head(flash_session *s, int deadline)
{
    const flash_model *m = s->m;
    int n = flash__wanted(s), some = FLASH__HEAD_WEIGHTS / m->root.head.cols / 64 * 64;
    flash__mat part = m->root.head;
    flash__job job;
    if (!n) return 1;
    if (!s->head) flash__norm_rows(s, flash__last_rows(s, n), m->root.out_norm, n);
    part.data += (size_t)s->head * part.row_bytes;
    part.rows -= s->head;
    if (deadline && n == 1) part.rows = FLASH__MIN(part.rows, FLASH__MAX(some, 64));
    flash__product(&job, 0, &part, NULL, s->logits + s->head);
    flash__matmul(s, &job, 1, s->h, n);
    s->head += part.rows;
    if (s->head < m->root.head.rows) return 0;
    flash__cap(m->arch.logit_cap, s->logits, (size_t)n * (size_t)m->arch.n_vocab);
    return 1;
}

static void flash__chunk_end(flash_session *s)
{
    s->side = !s->side;
    s->have_logits = flash__wanted(s) > 0;
    s->last = s->pos;
    s->last_n = s->run;
    s->pos += s->run;
    s->run = 0;
}

/* Runs the next layer. After the attention of the last layer only those tokens count whose logits
   are needed. */
static void flash__layer_step(flash_session *s)
{
    int parts = flash__parts(s->m->arch.layer + s->layer),
        T = s->layer + 1 < s->m->arch.n_layer ? s->run : flash__wanted(s);
    if (parts & FLASH__HAS_KV) flash__attention(s, s->layer, T);
    if (parts & FLASH__HAS_CONV) flash__convolution(s, s->layer, s->run);
    if (parts & FLASH__HAS_LINEAR) flash__linear(s, s->layer, s->run);
    if (parts & FLASH__HAS_FFN) flash__ffn(s, s->layer, T);
    s->layer++;
}

/* Sets how many tokens the next chunk before a deadline has. The aim is that no step takes longer
   than FLASH__SLICE, judged by the slowest step of the last such chunk. The first chunk has one
   token, and each has at most four times as many as the one before. */
static void flash__slice(flash_session *s)
{
    double slice = 1e-6 * (int)FLASH__SLICE, fit = slice / FLASH__MAX(s->slowest, slice / 4);
    if (s->sliced && s->last_n && (fit < 1 || s->last_n == s->slice))
        s->slice = FLASH__MAX((int)(FLASH__MIN(s->last_n * fit, s->chunk)), 1);
}

/* Processes queued tokens until the queue is empty (FLASH_E_NONE), the budget is spent (FLASH_MORE)
   or the caller cancels (FLASH_E_CANCELLED). */
static flash_status flash__forward(flash_session *s, const flash_budget *budget)
{
    int left = budget && budget->tokens > 0 ? budget->tokens : INT32_MAX, worked = 0, T;
    double deadline = budget && budget->deadline > 0 ? budget->deadline : 0, now, before = 0;
    /* A cancelled chunk that was begun without a deadline has too many tokens: it begins anew. */
    if (deadline > 0 && !s->sliced) s->run = 0;
    for (; s->pos < s->fed; worked = 1) {
        if (s->cancel) {
            s->cancel = 0;
            return FLASH_E_CANCELLED;
        }
        if (deadline > 0) {
            now = flash__clock(&s->desc.host);
            if (worked) s->slowest = FLASH__MAX(s->slowest, now - before);
            if (worked && now >= deadline) return FLASH_MORE;
            before = now;
        }
        if (!s->run) {
            if (left <= 0 || (s->desc.all_logits && worked)) return FLASH_MORE;
            if (deadline > 0) flash__slice(s);
            T = FLASH__MIN(deadline > 0 ? s->slice : s->chunk, s->fed - s->pos);
            flash__chunk_begin(s, FLASH__MIN(T, left));
            s->sliced = deadline > 0;
        }
        if (s->layer < s->m->arch.n_layer)
            flash__layer_step(s);
        else if (flash__head(s, deadline > 0)) {
            left -= s->run;
            flash__chunk_end(s);
        }
        if (s->desc.host.progress)
            s->desc.host.progress(s->desc.host.user, flash_session_progress(s));
    }
    s->begin = s->pos;
    return FLASH_E_NONE;
}

/* ===== >>grammar ========================================================== */

/* A grammar is compiled to a short program of one 32-bit word per step: match a character or one of
   a set, choose, jump, call a rule, return. A frame says at which step, and with which frame, to go
   on when a rule returns. A place in a text is a set of (step, frame) pairs. Equal frames are
   stored once, and so are equal sets. The sets are thus the states of an automaton that is built
   while it runs: each character inside a string leads back to the same state.
   The tokens allowed in a state come from one walk over the vocabulary sorted by bytes. The prefix
   that two neighbours share is matched once, and tokens that share a failed prefix are skipped. The
   last few of these masks are kept. A state reads bytes, so a token may end inside a character.
   The bytes read of that character are part of the state, unless all its endings are allowed.
   All memory has a fixed size. When the pool of states and frames is full, all but the state of the
   text is discarded. A token for which not even that is enough (nesting over 4,000 deep, over 256
   readings at once) counts as not allowed. So the answer never depends on what was matched before.
   KNOWN TRAPS: a call that is the last step of a rule needs no frame, so right recursion does not
   use up frames. SentencePiece drops one space at the beginning of a text: see FLASH__FRESH. */

/* The kinds of steps, and their arguments. */
enum {
    FLASH__G_CHAR,  /* reads a character; its code point */
    FLASH__G_SET,   /* reads a character of a set; the set's number */
    FLASH__G_SPLIT, /* goes on at the next step and at another; offset of the other */
    FLASH__G_JUMP,  /* goes on at another step; its offset */
    FLASH__G_CALL,  /* calls a rule; the rule's number */
    FLASH__G_TAIL,  /* calls a rule without a frame, as the last step of a rule; its number */
    FLASH__G_RETURN /* ends the rule */
};
enum {
    FLASH__STEPS_MAX = 32767,
    FLASH__RULES_MAX = 4096,
    FLASH__GROUPS_MAX = 100,
    FLASH__SPANS_MAX = 256
};
/* Sizes of the pool, and FLASH__FRESH: a value of flash__place.left that is no number of bytes but
   means the beginning of a text whose first space is not shown. FLASH__ANY is a flash__place.value:
   a character begun, all of whose endings are allowed. */
enum {
    FLASH__FRAMES = 4096,
    FLASH__STATES = 254,   /* state + 2 fits a byte */
    FLASH__HEADS = 8192,   /* heads of all states */
    FLASH__READINGS = 256, /* heads of one state */
    FLASH__VISITS = 1024,  /* pairs looked at to find one state */
    FLASH__MASKS = 8,
    FLASH__FRESH = 8
};
#define FLASH__ANY 0xffffffffu

/* A set of characters: a bit for each of the first 128, and n spans [lo, hi], in order and without
   surrogates. at: the number of the first span. */
typedef struct flash__charset {
    uint32_t ascii[4], at, n;
} flash__charset;

/* The tokens that add bytes to the text, sorted by these bytes. */
typedef struct flash__spelling {
    uint32_t n, total;   /* number of tokens; bytes of all of them */
    uint32_t *token;     /* [n] */
    uint32_t *at;        /* [n + 1] where each token begins in `bytes` */
    uint16_t *shared;    /* [n] length of the prefix shared with the token before [B] */
    uint8_t *bytes;      /* [total] */
    uint32_t first[257]; /* first[b]: the first token that begins with byte b or a higher one */
} flash__spelling;

struct flash_grammar {
    const flash_model *m;
    flash_allocator allocator;
    size_t block;                    /* size of the grammar's memory [B] */
    flash__spelling own;             /* empty if another grammar's is used */
    const flash__spelling *spelling; /* own, or that of the grammar `share` */
    uint32_t n_step, n_set, n_span, n_rule, root;
    uint32_t most;       /* largest n_step while reading: {0} removes steps again */
    uint32_t *step;      /* [n_step] kind << 24 | argument; offsets are relative to the step */
    flash__charset *set; /* [n_set] */
    uint32_t *span;      /* [2 n_span] lo and hi */
    uint32_t *rule;      /* [n_rule + 1] first step */
    uint32_t *name;      /* [2 n_rule] offset and length in the text */
    uint16_t *slot;      /* [slots] hash table: name -> rule + 1, 0 if empty */
    size_t slots;
    uint8_t *reach; /* [n_step] bits FLASH__G_EMPTY and FLASH__G_ENDS */
    uint8_t *fact;  /* [n_rule] the same bits and FLASH__G_SOUND */
};

/* --- reading GBNF ------------------------------------------------------------------ */

/* The text is read in three passes: the first counts, the second enters the names of the rules, and
   the third writes steps and sets. */
enum { FLASH__GBNF_COUNT, FLASH__GBNF_NAMES, FLASH__GBNF_WRITE };

typedef struct flash__gbnf {
    flash_grammar *g; /* its n_step, n_set ... count what the pass has read so far */
    const uint8_t *text, *p, *end;
    int pass;
    flash_status status; /* the first failure */
    flash_error *err;
} flash__gbnf;

/* Fills err with "line 3, column 7: ..." for a place in text. */
static flash_status flash__fail_at(flash_error *err, flash_status status, const uint8_t *text,
                                   const uint8_t *p, const char *what, const char *name, size_t n)
{
    uint64_t line = 1, column = 1;
    const uint8_t *q;
    for (q = text; q < p; q++) {
        column = *q == '\n' ? 1 : column + ((*q & 0xc0) != 0x80);
        line += *q == '\n';
    }
    return flash__fail(err, status, (uint64_t)(p - text), "line %u, column %u: %s%t", line, column,
                       what, name, FLASH__MIN(n, (size_t)64));
}

static void flash__gbnf_fail(flash__gbnf *b, flash_status status, const char *what)
{
    if (!b->status) b->status = flash__fail_at(b->err, status, b->text, b->p, what, "", 0);
}

static void flash__gbnf_room(flash__gbnf *b, uint64_t more)
{
    if (b->g->n_step + more > FLASH__STEPS_MAX)
        flash__gbnf_fail(b, FLASH_E_TOO_LARGE, "the grammar takes more than 32767 steps");
}

static uint32_t flash__step(uint32_t kind, uint32_t argument)
{
    return kind << 24 | (argument & 0xffffff);
}

static void flash__gbnf_emit(flash__gbnf *b, uint32_t step)
{
    flash__gbnf_room(b, 1);
    if (b->status) return;
    if (b->pass == FLASH__GBNF_WRITE) b->g->step[b->g->n_step] = step;
    b->g->n_step++;
}

/* Like flash__gbnf_emit, but puts the step in front of the steps from at on. */
static void flash__gbnf_insert(flash__gbnf *b, uint32_t at, uint32_t step)
{
    uint32_t n = b->g->n_step - at, *p;
    flash__gbnf_emit(b, step);
    if (b->status || b->pass != FLASH__GBNF_WRITE) return;
    p = b->g->step + at;
    memmove(p + 1, p, n * sizeof *p);
    *p = step;
}

/* Skips blanks and comments and, if lines is 1, ends of lines. */
static void flash__gbnf_space(flash__gbnf *b, int lines)
{
    for (; b->p < b->end; b->p++) {
        if (*b->p == '#')
            while (b->p + 1 < b->end && b->p[1] != '\n' && b->p[1] != '\r') b->p++;
        else if (*b->p != ' ' && *b->p != '\t' && !(lines && (*b->p == '\n' || *b->p == '\r')))
            return;
    }
}

static int flash__gbnf_is(const flash__gbnf *b, char c)
{
    return b->p < b->end && *b->p == (uint8_t)c;
}

static int flash__name_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'
        || c == '_';
}

static size_t flash__gbnf_name(flash__gbnf *b)
{
    const uint8_t *begin = b->p;
    while (b->p < b->end && flash__name_char(*b->p)) b->p++;
    return (size_t)(b->p - begin);
}

/* Returns the hash slot of the rule with this name, or the empty slot where it would go. */
static size_t flash__gbnf_slot(const flash__gbnf *b, const uint8_t *name, size_t n)
{
    const flash_grammar *g = b->g;
    size_t i = flash__hash(flash__span(name, n, FLASH__RAW)) & (g->slots - 1);
    for (; g->slot[i]; i = (i + 1) & (g->slots - 1)) {
        const uint32_t *k = g->name + 2 * (g->slot[i] - 1u);
        if (!flash__compare(name, n, b->text + k[0], k[1])) break;
    }
    return i;
}

/* Reads one character of a literal or a set, which may be an escape, and returns its code point. */
static uint32_t flash__gbnf_char(flash__gbnf *b)
{
    static const char plain[] = "\"\\[]-", letters[] = "trn", controls[] = "\t\r\n";
    uint32_t c = 0;
    const char *known;
    int digits, d;
    if (*b->p != '\\') {
        b->p += flash__char(b->p, b->end, &c);
        return c;
    }
    if (++b->p == b->end) {
        flash__gbnf_fail(b, FLASH_E_FORMAT, "the text ends here");
        return 0;
    }
    if ((known = strchr(plain, *b->p)) != NULL) {
        b->p++;
        return (uint8_t)*known;
    }
    if ((known = strchr(letters, *b->p)) != NULL) {
        b->p++;
        return (uint8_t)controls[known - letters];
    }
    digits = *b->p == 'x' ? 2 : *b->p == 'u' ? 4 : *b->p == 'U' ? 8 : 0;
    if (!digits) {
        flash__gbnf_fail(b, FLASH_E_FORMAT, "no such escape");
        return 0;
    }
    for (b->p++; digits; digits--, b->p++) {
        d = b->p < b->end ? flash__lower(*b->p) : 0;
        d = d >= '0' && d <= '9' ? d - '0' : d >= 'a' && d <= 'f' ? d - 'a' + 10 : -1;
        if (d < 0) {
            flash__gbnf_fail(b, FLASH_E_FORMAT, "not a hexadecimal digit");
            return 0;
        }
        c = c << 4 | (uint32_t)d;
    }
    if (c > 0x10ffff) flash__gbnf_fail(b, FLASH_E_FORMAT, "characters end at 10FFFF");
    return c;
}

/* Adds the span [lo, hi] without surrogates to the set in progress. write: 0 only counts. */
static void flash__set_add(flash_grammar *g, int write, uint32_t lo, uint32_t hi)
{
    uint32_t c;
    if (lo < 0xd800 && hi > 0xdfff) {
        flash__set_add(g, write, lo, 0xd7ff);
        lo = 0xe000;
    }
    if (lo >= 0xd800 && lo < 0xe000) lo = 0xe000;
    if (hi >= 0xd800 && hi < 0xe000) hi = 0xd7ff;
    if (lo > hi) return;
    if (write) {
        flash__charset *s = g->set + g->n_set;
        g->span[2 * g->n_span] = lo;
        g->span[2 * g->n_span + 1] = hi;
        s->n++;
        for (c = lo; c < 128 && c <= hi; c++) s->ascii[c / 32] |= 1u << c % 32;
    }
    g->n_span++;
}

/* Adds the set of n spans or, if negated, of all other characters, and a step that matches it. The
   spans may overlap; they are sorted in place. */
static void flash__gbnf_set(flash__gbnf *b, uint32_t (*span)[2], uint32_t n, int negated)
{
    flash_grammar *g = b->g;
    int write = b->pass == FLASH__GBNF_WRITE;
    uint32_t i, k, next = 0, before = g->n_span;
    for (i = 1; i < n; i++)
        for (k = i; k && span[k][0] < span[k - 1][0]; k--) {
            uint32_t lo = span[k][0], hi = span[k][1];
            memcpy(span[k], span[k - 1], sizeof *span);
            span[k - 1][0] = lo;
            span[k - 1][1] = hi;
        }
    if (write) {
        memset(g->set + g->n_set, 0, sizeof *g->set);
        g->set[g->n_set].at = g->n_span;
    }
    for (i = 0; i < n; i++) {
        uint32_t lo = FLASH__MAX(span[i][0], next), hi = span[i][1];
        if (negated && span[i][0] > next) flash__set_add(g, write, next, span[i][0] - 1);
        if (!negated && lo <= hi) flash__set_add(g, write, lo, hi);
        next = FLASH__MAX(next, hi + 1);
    }
    if (negated && next <= 0x10ffff) flash__set_add(g, write, next, 0x10ffff);
    if (g->n_span == before) flash__gbnf_fail(b, FLASH_E_FORMAT, "no character can be in this set");
    flash__gbnf_emit(b, flash__step(FLASH__G_SET, g->n_set));
    g->n_set++;
}

static void flash__gbnf_brackets(flash__gbnf *b)
{
    uint32_t span[FLASH__SPANS_MAX][2], n = 0;
    int negated = 0;
    b->p++;
    if (flash__gbnf_is(b, '^')) {
        negated = 1;
        b->p++;
    }
    for (; !b->status && !flash__gbnf_is(b, ']'); n++) {
        if (b->p == b->end) {
            flash__gbnf_fail(b, FLASH_E_FORMAT, "the set has no ]");
            return;
        }
        if (n == FLASH__SPANS_MAX) {
            flash__gbnf_fail(b, FLASH_E_TOO_LARGE, "a set of more than 256 parts");
            return;
        }
        span[n][0] = span[n][1] = flash__gbnf_char(b);
        if (b->status || !flash__gbnf_is(b, '-') || b->end - b->p < 2 || b->p[1] == ']') continue;
        b->p++;
        span[n][1] = flash__gbnf_char(b);
        if (!b->status && span[n][1] < span[n][0])
            flash__gbnf_fail(b, FLASH_E_FORMAT, "a range that ends before it begins");
    }
    if (!b->status) flash__gbnf_set(b, span, n, negated);
    b->p++;
}

static void flash__gbnf_literal(flash__gbnf *b)
{
    for (b->p++; !b->status && !flash__gbnf_is(b, '"');) {
        uint32_t c;
        if (b->p == b->end) {
            flash__gbnf_fail(b, FLASH_E_FORMAT, "the literal has no \"");
            return;
        }
        c = flash__gbnf_char(b);
        if (c >= 0xd800 && c < 0xe000)
            flash__gbnf_fail(b, FLASH_E_FORMAT, "a surrogate is no character");
        flash__gbnf_emit(b, flash__step(FLASH__G_CHAR, c));
    }
    b->p++;
}

/* Appends a copy of the k steps from `from` on. */
static void flash__gbnf_copy(flash__gbnf *b, uint32_t from, uint32_t k)
{
    flash_grammar *g = b->g;
    if (b->pass == FLASH__GBNF_WRITE)
        memcpy(g->step + g->n_step, g->step + from, k * sizeof *g->step);
    g->n_step += k;
}

/* Repeats the steps from at on lo to hi times or, if endless is 1, at least lo times. All jumps in
   these steps are relative and stay inside, so the steps can be moved and copied. */
static void flash__gbnf_repeat(flash__gbnf *b, uint32_t at, uint32_t lo, uint32_t hi, int endless)
{
    uint32_t k = b->g->n_step - at, i, optional = hi > lo ? hi - lo : 0, from = at;
    if (!k) return;
    if (endless) {
        if (lo > 1) flash__gbnf_room(b, (uint64_t)(lo - 1) * k);
        for (i = 1; i < lo && !b->status; i++) flash__gbnf_copy(b, at, k);
        if (lo)
            flash__gbnf_emit(b, flash__step(FLASH__G_SPLIT, 0u - k));
        else {
            flash__gbnf_insert(b, at, flash__step(FLASH__G_SPLIT, k + 2));
            flash__gbnf_emit(b, flash__step(FLASH__G_JUMP, 0u - (k + 1)));
        }
        return;
    }
    if (!hi) {
        b->g->most = FLASH__MAX(b->g->most, b->g->n_step);
        b->g->n_step = at;
        return;
    }
    flash__gbnf_room(b, (uint64_t)lo * k + (uint64_t)optional * (k + 1));
    for (i = 1; i < lo && !b->status; i++) flash__gbnf_copy(b, at, k);
    for (i = optional; i && !b->status; i--) {
        uint32_t split = flash__step(FLASH__G_SPLIT, i * (k + 1));
        if (!lo && i == optional) {
            flash__gbnf_insert(b, at, split);
            from = at + 1;
            continue;
        }
        flash__gbnf_emit(b, split);
        flash__gbnf_copy(b, from, k);
    }
}

static uint32_t flash__gbnf_number(flash__gbnf *b)
{
    uint32_t v = 0;
    if (b->p == b->end || *b->p < '0' || *b->p > '9')
        flash__gbnf_fail(b, FLASH_E_FORMAT, "not a number of times");
    for (; b->p < b->end && *b->p >= '0' && *b->p <= '9'; b->p++)
        v = FLASH__MIN(v * 10 + (uint32_t)(*b->p - '0'), (uint32_t)FLASH__STEPS_MAX + 1);
    if (v > FLASH__STEPS_MAX) flash__gbnf_fail(b, FLASH_E_TOO_LARGE, "more than 32767 repetitions");
    return v;
}

/* Reads {m}, {m,} or {m,n}, and repeats the steps from at on. lines: 1 if lines may end inside. */
static void flash__gbnf_braces(flash__gbnf *b, uint32_t at, int lines)
{
    uint32_t lo, hi;
    int endless = 0;
    b->p++;
    flash__gbnf_space(b, lines);
    hi = lo = flash__gbnf_number(b);
    flash__gbnf_space(b, lines);
    if (flash__gbnf_is(b, ',')) {
        b->p++;
        flash__gbnf_space(b, lines);
        if (flash__gbnf_is(b, '}'))
            endless = 1;
        else
            hi = flash__gbnf_number(b);
        if (hi < lo) flash__gbnf_fail(b, FLASH_E_FORMAT, "at most is less than at least");
        flash__gbnf_space(b, lines);
    }
    if (!flash__gbnf_is(b, '}')) flash__gbnf_fail(b, FLASH_E_FORMAT, "a } is missing");
    b->p++;
    if (!b->status) flash__gbnf_repeat(b, at, lo, hi, endless);
}

static void flash__gbnf_choices(flash__gbnf *b, int depth);

/* Reads one item without its repetition. Returns 0 if no item begins here. depth: open groups. */
static int flash__gbnf_item(flash__gbnf *b, int depth)
{
    const uint8_t *name = b->p;
    size_t n;
    switch (*b->p) {
    case '"': flash__gbnf_literal(b); return 1;
    case '[': flash__gbnf_brackets(b); return 1;
    case '.':
        flash__gbnf_set(b, NULL, 0, 1);
        b->p++;
        return 1;
    case '<':
    case '!':
        flash__gbnf_fail(b, FLASH_E_UNSUPPORTED, "tokens in a grammar are not supported");
        return 0;
    case '(':
        if (depth == FLASH__GROUPS_MAX) {
            flash__gbnf_fail(b, FLASH_E_TOO_LARGE, "groups inside more than 100 others");
            return 0;
        }
        b->p++;
        flash__gbnf_space(b, 1);
        flash__gbnf_choices(b, depth + 1);
        if (!b->status && !flash__gbnf_is(b, ')'))
            flash__gbnf_fail(b, FLASH_E_FORMAT, "a ) is missing");
        b->p++;
        return 1;
    default:
        if ((n = flash__gbnf_name(b)) == 0) return 0;
        if (b->pass == FLASH__GBNF_WRITE) {
            size_t i = flash__gbnf_slot(b, name, n);
            if (!b->g->slot[i])
                b->status = flash__fail_at(b->err, FLASH_E_FORMAT, b->text, name,
                                           "there is no rule ", (const char *)name, n);
            else
                flash__gbnf_emit(b, flash__step(FLASH__G_CALL, b->g->slot[i] - 1u));
        } else
            flash__gbnf_emit(b, 0);
        return 1;
    }
}

static void flash__gbnf_sequence(flash__gbnf *b, int depth)
{
    uint32_t at = 0;
    int lines = depth > 0, any = 0;
    while (!b->status && b->p < b->end) {
        int c = *b->p;
        if (c == '*' || c == '+' || c == '?' || c == '{') {
            if (!any) {
                flash__gbnf_fail(b, FLASH_E_FORMAT, "nothing to repeat");
                return;
            }
            if (c == '{')
                flash__gbnf_braces(b, at, lines);
            else {
                b->p++;
                flash__gbnf_repeat(b, at, c == '+', c == '?', c != '?');
            }
        } else {
            at = b->g->n_step;
            if (!flash__gbnf_item(b, depth)) return;
            any = 1;
        }
        if (!b->status) flash__gbnf_space(b, lines);
    }
}

/* Reads alternatives. Each but the last becomes a SPLIT to the next one, its own steps, and a JUMP
   to the end of all. Until that end is known, the jumps are a linked list: each holds the position
   of the jump before it. */
static void flash__gbnf_choices(flash__gbnf *b, int depth)
{
    const uint32_t none = 0xffffff;
    uint32_t start, jump = none, before;
    flash_grammar *g = b->g;
    for (;;) {
        start = g->n_step;
        flash__gbnf_sequence(b, depth);
        if (b->status || !flash__gbnf_is(b, '|')) break;
        flash__gbnf_insert(b, start, flash__step(FLASH__G_SPLIT, g->n_step - start + 2));
        flash__gbnf_emit(b, flash__step(FLASH__G_JUMP, jump));
        jump = g->n_step - 1;
        b->p++;
        flash__gbnf_space(b, 1);
    }
    for (; !b->status && b->pass == FLASH__GBNF_WRITE && jump != none; jump = before) {
        before = g->step[jump] & 0xffffff;
        g->step[jump] = flash__step(FLASH__G_JUMP, g->n_step - jump);
    }
}

static void flash__gbnf_rule(flash__gbnf *b)
{
    flash_grammar *g = b->g;
    const uint8_t *name = b->p;
    size_t n = flash__gbnf_name(b), i;
    if (!n) {
        flash__gbnf_fail(b, FLASH_E_FORMAT, "not the name of a rule");
        return;
    }
    if (g->n_rule == FLASH__RULES_MAX) {
        flash__gbnf_fail(b, FLASH_E_TOO_LARGE, "more than 4096 rules");
        return;
    }
    if (b->pass == FLASH__GBNF_NAMES) {
        i = flash__gbnf_slot(b, name, n);
        if (g->slot[i]) {
            b->status = flash__fail_at(b->err, FLASH_E_FORMAT, b->text, name,
                                       "there already is a rule ", (const char *)name, n);
            return;
        }
        g->name[2 * g->n_rule] = (uint32_t)(name - b->text);
        g->name[2 * g->n_rule + 1] = (uint32_t)n;
        g->slot[i] = (uint16_t)(g->n_rule + 1);
    }
    if (b->pass == FLASH__GBNF_WRITE) g->rule[g->n_rule] = g->n_step;
    g->n_rule++;
    flash__gbnf_space(b, 0);
    if (b->end - b->p < 3 || memcmp(b->p, "::=", 3)) {
        flash__gbnf_fail(b, FLASH_E_FORMAT, "::= is missing");
        return;
    }
    b->p += 3;
    flash__gbnf_space(b, 1);
    flash__gbnf_choices(b, 0);
    flash__gbnf_emit(b, flash__step(FLASH__G_RETURN, 0));
    if (!b->status && b->p < b->end && *b->p != '\n' && *b->p != '\r')
        flash__gbnf_fail(b, FLASH_E_FORMAT, "neither part of a rule nor the end of its line");
    flash__gbnf_space(b, 1);
}

/* Does one pass over the text. The first pass also checks that the text is UTF-8. */
static flash_status flash__gbnf_read(flash_grammar *g, const flash_grammar_desc *desc, int pass,
                                     flash_error *err)
{
    flash__gbnf b;
    memset(&b, 0, sizeof b);
    b.g = g;
    b.text = b.p = (const uint8_t *)desc->text;
    b.end = b.text + desc->bytes;
    b.pass = pass;
    b.err = err;
    g->n_step = g->n_set = g->n_span = g->n_rule = g->most = 0;
    if (pass == FLASH__GBNF_COUNT) {
        uint32_t c;
        if (desc->bytes > UINT32_MAX / 2)
            flash__gbnf_fail(&b, FLASH_E_TOO_LARGE, "more text than 2 GiB");
        for (; !b.status && b.p < b.end; b.p += flash__utf8(b.p, b.end, &c))
            if (!*b.p || !flash__utf8(b.p, b.end, &c))
                flash__gbnf_fail(&b, FLASH_E_FORMAT, "not UTF-8");
        if (!b.status) b.p = b.text;
    }
    if (!b.status) flash__gbnf_space(&b, 1);
    while (!b.status && b.p < b.end) flash__gbnf_rule(&b);
    if (!b.status && !g->n_rule) flash__gbnf_fail(&b, FLASH_E_FORMAT, "there is no rule");
    if (!b.status && pass == FLASH__GBNF_NAMES) {
        size_t i = flash__gbnf_slot(&b, (const uint8_t *)"root", 4);
        if (!g->slot[i]) flash__gbnf_fail(&b, FLASH_E_FORMAT, "there is no rule root");
        g->root = g->slot[i] - 1u;
    }
    return b.status;
}

/* --- what is wrong with a grammar that can be read --------------------------------- */

/* Returns the step to which the JUMP or SPLIT at `at` leads. */
static uint32_t flash__jump(const flash_grammar *g, uint32_t at)
{
    uint32_t offset = g->step[at] & 0xffffff;
    return at + (offset & 0x800000 ? offset - 0x1000000 : offset);
}

/* Bits of reach (of a step) and fact (of a rule).
   EMPTY: the step can be reached, or the rule can end, without reading a character.
   ENDS: the step can be reached, or the rule can end, if calls return only from rules that can end.
   SOUND: no left recursion is reached from the rule before a character is read. */
enum { FLASH__G_EMPTY = 1, FLASH__G_ENDS = 2, FLASH__G_SOUND = 4 };

/* Sets a bit of a step. Returns 1 if it was not set before. */
static int flash__mark(flash_grammar *g, uint32_t at, uint8_t bit)
{
    int news = !(g->reach[at] & bit);
    g->reach[at] |= bit;
    return news;
}

/* Sets EMPTY or ENDS of all steps and rules, in passes until nothing changes. */
static void flash__grammar_reach(flash_grammar *g, uint8_t bit)
{
    int again = 1;
    uint32_t r, at;
    while (again)
        for (again = 0, r = 0; r < g->n_rule; r++) {
            flash__mark(g, g->rule[r], bit);
            for (at = g->rule[r]; at < g->rule[r + 1]; at++) {
                uint32_t kind = g->step[at] >> 24;
                if (!(g->reach[at] & bit)) continue;
                if (kind == FLASH__G_RETURN) {
                    again |= !(g->fact[r] & bit);
                    g->fact[r] |= bit;
                } else if (kind == FLASH__G_JUMP || kind == FLASH__G_SPLIT) {
                    again |= flash__mark(g, flash__jump(g, at), bit);
                    if (kind == FLASH__G_SPLIT) flash__mark(g, at + 1, bit);
                } else if (kind == FLASH__G_CALL ? (g->fact[g->step[at] & 0xffffff] & bit) != 0
                                                 : bit != FLASH__G_EMPTY)
                    flash__mark(g, at + 1, bit);
            }
        }
}

/* Returns a rule that rule r can call before it has read a character and that is not known to be
   SOUND, or n_rule if there is none. */
static uint32_t flash__grammar_begins(const flash_grammar *g, uint32_t r)
{
    uint32_t at, to;
    for (at = g->rule[r]; at < g->rule[r + 1]; at++) {
        to = g->step[at] & 0xffffff;
        if (g->step[at] >> 24 == FLASH__G_CALL && (g->reach[at] & FLASH__G_EMPTY)
            && !(g->fact[to] & FLASH__G_SOUND))
            return to;
    }
    return g->n_rule;
}

/* Fails if a rule begins with itself or never ends. Otherwise turns each call that ends a rule
   into a TAIL. */
static flash_status flash__grammar_check(flash_grammar *g, const flash_grammar_desc *desc,
                                         flash_error *err)
{
    const uint8_t *text = (const uint8_t *)desc->text;
    const char *what = "this rule begins with itself (left recursion): ";
    uint32_t r, k, at, to;
    int again = 1;
    flash__grammar_reach(g, FLASH__G_EMPTY);
    flash__grammar_reach(g, FLASH__G_ENDS);
    while (again)
        for (again = 0, r = 0; r < g->n_rule; r++)
            if (!(g->fact[r] & FLASH__G_SOUND) && flash__grammar_begins(g, r) == g->n_rule) {
                g->fact[r] |= FLASH__G_SOUND;
                again = 1;
            }
    for (r = 0; r < g->n_rule && (g->fact[r] & FLASH__G_SOUND); r++) {}
    /* each rule left begins with another one left, so after n_rule of them r is part of a cycle */
    for (k = 0; r < g->n_rule && k < g->n_rule; k++) r = flash__grammar_begins(g, r);
    if (r == g->n_rule) {
        what = "this rule never ends: ";
        for (r = 0; r < g->n_rule && (g->fact[r] & FLASH__G_ENDS); r++) {}
    }
    if (r < g->n_rule)
        return flash__fail_at(err, FLASH_E_FORMAT, text, text + g->name[2 * r], what,
                              desc->text + g->name[2 * r], g->name[2 * r + 1]);
    for (at = 0; at < g->n_step; at++) {
        if (g->step[at] >> 24 != FLASH__G_CALL) continue;
        for (to = at + 1; g->step[to] >> 24 == FLASH__G_JUMP;) to = flash__jump(g, to);
        if (g->step[to] >> 24 == FLASH__G_RETURN)
            g->step[at] = flash__step(FLASH__G_TAIL, g->step[at]);
    }
    return FLASH_E_NONE;
}

/* --- the vocabulary by spelling ---------------------------------------------------- */

static int flash__is_end(const flash__vocab *v, int32_t id)
{
    int i;
    for (i = 0; i < v->n_ends; i++)
        if (v->ends[i] == id) return 1;
    return 0;
}

/* Returns the bytes that a token adds to the text; 0 for end-of-text tokens. */
static uint32_t flash__token_length(const flash__vocab *v, uint32_t id)
{
    uint8_t byte;
    uint32_t n = 0;
    flash__bytes b = flash__token_out(v, id, 0, &byte);
    if (flash__is_end(v, (int32_t)id)) return 0;
    while (flash__next_byte(&b) >= 0) n++;
    return n;
}

static int flash__spelling_less(const void *ctx, uint32_t a, uint32_t b)
{
    const flash__vocab *v = (const flash__vocab *)ctx;
    uint8_t byte_a, byte_b;
    flash__bytes x = flash__token_out(v, a, 0, &byte_a), y = flash__token_out(v, b, 0, &byte_b);
    int c, d;
    while ((c = flash__next_byte(&x)) == (d = flash__next_byte(&y)))
        if (c < 0) return a < b;
    return c < d;
}

/* Counts tokens and bytes, and takes the arrays from the arena, which may only be counting. */
static void flash__spelling_plan(flash__spelling *s, const flash__vocab *v, flash__arena *a)
{
    uint32_t id, n;
    s->n = s->total = 0;
    for (id = 0; id < v->n; id++)
        if ((n = flash__token_length(v, id)) != 0) {
            s->n++;
            s->total += n;
        }
    s->token = (uint32_t *)flash__take(a, s->n, 4);
    s->at = (uint32_t *)flash__take(a, (size_t)s->n + 1, 4);
    s->shared = (uint16_t *)flash__take(a, s->n, 2);
    s->bytes = (uint8_t *)flash__take(a, s->total, 1);
}

/* Fills the arrays, once they have memory. */
static void flash__spelling_fill(flash__spelling *s, const flash__vocab *v)
{
    uint32_t id, i, k = 0, at = 0, before = 0;
    int c;
    uint8_t byte;
    for (id = 0; id < v->n; id++)
        if (flash__token_length(v, id)) s->token[k++] = id;
    flash__sort(s->token, s->n, flash__spelling_less, v);
    for (i = 0; i < s->n; i++) {
        flash__bytes b = flash__token_out(v, s->token[i], 0, &byte);
        s->at[i] = at;
        while ((c = flash__next_byte(&b)) >= 0) s->bytes[at++] = (uint8_t)c;
        for (k = 0; i && s->at[i] + k < at && before + k < s->at[i]
             && s->bytes[before + k] == s->bytes[s->at[i] + k];)
            k++;
        s->shared[i] = (uint16_t)k;
        before = s->at[i];
    }
    s->at[s->n] = at;
    for (k = 0, i = 0; k < 257; k++) {
        while (i < s->n && s->bytes[s->at[i]] < k) i++;
        s->first[k] = i;
    }
}

/* --- the object -------------------------------------------------------------------- */

static flash_status flash__grammar_plan(flash_grammar **out, const flash_model *m,
                                        const flash_grammar_desc *desc, flash__arena *a,
                                        flash_error *err)
{
    flash_grammar plan, *g = (flash_grammar *)flash__take(a, 1, sizeof plan);
    flash_status s;
    *out = g;
    if (!m || !desc || (!desc->text && desc->bytes)
        || !desc->allocator.acquire != !desc->allocator.release)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no model, no text, or half an allocator");
    if (m->vocab.kind == FLASH__VOCAB_NONE)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "the model has no vocabulary");
    if (desc->share && desc->share->m->vocab.text != m->vocab.text)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "share is a grammar for another model");
    memset(&plan, 0, sizeof plan);
    if ((s = flash__gbnf_read(&plan, desc, FLASH__GBNF_COUNT, err)) != 0) return s;
    plan.m = m;
    plan.allocator = desc->allocator.acquire ? desc->allocator : m->desc.host.allocator;
    plan.slots = flash__pow2(2 * plan.n_rule);
    plan.step = (uint32_t *)flash__take(a, FLASH__MAX(plan.most, plan.n_step), 4);
    plan.set = (flash__charset *)flash__take(a, plan.n_set, sizeof *plan.set);
    plan.span = (uint32_t *)flash__take(a, plan.n_span, 8);
    plan.rule = (uint32_t *)flash__take(a, plan.n_rule + 1, 4);
    plan.name = (uint32_t *)flash__take(a, plan.n_rule, 8);
    plan.slot = (uint16_t *)flash__take(a, plan.slots, 2);
    plan.reach = (uint8_t *)flash__take(a, plan.n_step, 1);
    plan.fact = (uint8_t *)flash__take(a, plan.n_rule, 1);
    if (!desc->share) flash__spelling_plan(&plan.own, &m->vocab, a);
    if (g) *g = plan;
    return a->used == SIZE_MAX ? FLASH_E_TOO_LARGE : FLASH_E_NONE;
}

FLASH_API size_t flash_grammar_memory(const flash_model *m, const flash_grammar_desc *desc,
                                      flash_error *err)
{
    flash__arena a = {NULL, 0};
    flash_grammar *none;
    return flash__grammar_plan(&none, m, desc, &a, err) ? 0 : a.used;
}

FLASH_API flash_status flash_grammar_create(flash_grammar **out, const flash_model *m,
                                            const flash_grammar_desc *desc, flash_error *err)
{
    flash__arena a = {NULL, 0};
    const flash_allocator *alloc;
    flash_grammar *g;
    flash_status s;
    size_t block;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the grammar");
    *out = NULL;
    if ((s = flash__grammar_plan(&g, m, desc, &a, err)) != 0) return s;
    alloc = desc->allocator.acquire ? &desc->allocator : &m->desc.host.allocator;
    block = a.used;
    a.used = 0;
    a.base = (uint8_t *)flash__acquire(alloc, block);
    if (!a.base)
        return flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the grammar (%u bytes)",
                           (uint64_t)block);
    flash__grammar_plan(&g, m, desc, &a, err);
    g->block = block;
    memset(g->slot, 0, g->slots * sizeof *g->slot);
    memset(g->reach, 0, g->n_step);
    memset(g->fact, 0, g->n_rule);
    s = flash__gbnf_read(g, desc, FLASH__GBNF_NAMES, err);
    if (!s) s = flash__gbnf_read(g, desc, FLASH__GBNF_WRITE, err);
    if (!s) {
        g->rule[g->n_rule] = g->n_step;
        s = flash__grammar_check(g, desc, err);
    }
    if (s) {
        flash_grammar_free(g);
        return s;
    }
    g->spelling = desc->share ? desc->share->spelling : &g->own;
    if (!desc->share) flash__spelling_fill(&g->own, &m->vocab);
    *out = g;
    return FLASH_E_NONE;
}

FLASH_API void flash_grammar_free(flash_grammar *g)
{
    flash_allocator a;
    if (!g) return;
    a = g->allocator;
    flash__release(&a, g, g->block);
}

FLASH_API const char *flash_grammar_json(void)
{
    return "root ::= ws value ws\n"
           "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
           "object ::= \"{\" ws (member (ws \",\" ws member)*)? ws \"}\"\n"
           "member ::= string ws \":\" ws value\n"
           "array ::= \"[\" ws (value (ws \",\" ws value)*)? ws \"]\"\n"
           "string ::= \"\\\"\" char* \"\\\"\"\n"
           "char ::= [^\"\\\\\\x00-\\x1f] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" unit)\n"
           "unit ::= [0-9abcefABCEF] hex{3} | [dD] ([0-7] hex{2}\n"
           "    | [89abAB] hex{2} \"\\\\u\" [dD] [c-fC-F] hex{2})\n"
           "hex ::= [0-9a-fA-F]\n"
           "number ::= \"-\"? (\"0\" | [1-9] [0-9]*) (\".\" [0-9]+)? ([eE] [-+]? [0-9]+)?\n"
           "ws ::= [ \\t\\n\\r]*\n";
}

/* --- JSON Schema ------------------------------------------------------------------- */

/* Writes a JSON Schema as a grammar. Every schema becomes a rule, whose name is s and the schema's
   offset in the text. Every property becomes one more rule, whose name is p and the offset of the
   property's schema. So references need no table, and the grammar grows with the schema, not with
   its nesting. The text is first parsed once, to know that it is JSON. After that, a keyword is
   found by skipping the values before it. */
enum { FLASH__JSON_DEPTH = 64, FLASH__OPTIONAL_MAX = 64, FLASH__SCHEMA_MAX = 1 << 16 };

typedef struct flash__schema {
    const uint8_t *text, *end;
    char *out;     /* [cap] the grammar */
    size_t cap, n; /* n: bytes of the whole grammar so far, also beyond cap */
    flash_status status;
    flash_error *err;
} flash__schema;

static void flash__schema_fail(flash__schema *s, flash_status status, const uint8_t *p,
                               const char *what, const uint8_t *name, size_t n)
{
    if (!s->status)
        s->status = flash__fail_at(s->err, status, s->text, p, what, (const char *)name, n);
}

static const uint8_t *flash__json_space(const flash__schema *s, const uint8_t *p)
{
    while (p < s->end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

static const uint8_t *flash__json_digits(const flash__schema *s, const uint8_t *p)
{
    while (p < s->end && *p >= '0' && *p <= '9') p++;
    return p;
}

/* Returns the end of the string at p, or NULL if there is no valid string. */
static const uint8_t *flash__json_string(const flash__schema *s, const uint8_t *p)
{
    int i;
    if (p == s->end || *p++ != '"') return NULL;
    for (; p < s->end && *p != '"'; p++) {
        if (*p < 32) return NULL;
        if (*p != '\\') continue;
        if (++p == s->end) return NULL;
        if (*p == 'u') {
            for (i = 0; i < 4; i++) {
                int c = ++p < s->end ? flash__lower(*p) : 0;
                if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return NULL;
            }
        } else if (!*p || !strchr("\"\\/bfnrt", *p))
            return NULL;
    }
    return p < s->end ? p + 1 : NULL;
}

/* Returns the end of the number at p, or NULL if there is no valid number. */
static const uint8_t *flash__json_number(const flash__schema *s, const uint8_t *p)
{
    const uint8_t *q;
    if (p < s->end && *p == '-') p++;
    q = flash__json_digits(s, p);
    if (q == p || (*p == '0' && q - p > 1)) return NULL;
    if ((p = q) < s->end && *p == '.') {
        if ((q = flash__json_digits(s, p + 1)) == p + 1) return NULL;
        p = q;
    }
    if (p < s->end && (*p == 'e' || *p == 'E')) {
        if (++p < s->end && (*p == '+' || *p == '-')) p++;
        if ((q = flash__json_digits(s, p)) == p) return NULL;
        p = q;
    }
    return p;
}

/* Returns the end of the value at p, or NULL, and s has failed, if there is no valid value. depth:
   the number of values around it. */
static const uint8_t *flash__json_skip(flash__schema *s, const uint8_t *p, int depth)
{
    static const char *const words[] = {"true", "false", "null"};
    const uint8_t *q = NULL;
    size_t i, n;
    int object = p < s->end && *p == '{';
    if (p < s->end && (object || *p == '[')) {
        const uint8_t close = object ? '}' : ']';
        if (depth == FLASH__JSON_DEPTH) {
            flash__schema_fail(s, FLASH_E_TOO_LARGE, p, "values inside more than 64 others", p, 0);
            return NULL;
        }
        q = p + 1;
        for (i = 0;; i++) {
            q = flash__json_space(s, q);
            if (q < s->end && *q == close && !i) return q + 1;
            if (object) {
                p = q;
                if ((q = flash__json_string(s, p)) == NULL) break;
                q = flash__json_space(s, p = q);
                if (q == s->end || *q++ != ':') {
                    q = NULL;
                    break;
                }
                q = flash__json_space(s, q);
            }
            q = flash__json_skip(s, q, depth + 1);
            if (!q) return NULL;
            q = flash__json_space(s, p = q);
            if (q < s->end && *q == close) return q + 1;
            if (q == s->end || *q++ != ',') {
                q = NULL;
                break;
            }
        }
    } else if (p < s->end && *p == '"')
        q = flash__json_string(s, p);
    else if (p < s->end && (*p == '-' || (*p >= '0' && *p <= '9')))
        q = flash__json_number(s, p);
    else
        for (i = 0; i < 3 && !q; i++) {
            n = strlen(words[i]);
            if ((size_t)(s->end - p) >= n && !memcmp(p, words[i], n)) q = p + n;
        }
    if (!q) flash__schema_fail(s, FLASH_E_FORMAT, p, "this is no JSON", p, 0);
    return q;
}

/* Returns the next item of a list or the value of the next member of an object, or NULL at the end.
   *at: behind the opening bracket or the item before; it moves behind the item returned. key: NULL
   for a list; *key becomes the member's name without quotes. The text must be valid JSON. */
static const uint8_t *flash__json_next(flash__schema *s, const uint8_t **at, const uint8_t **key,
                                       size_t *key_bytes)
{
    const uint8_t *p = flash__json_space(s, *at), *q;
    if (*p == ',') p = flash__json_space(s, p + 1);
    if (*p == '}' || *p == ']') return NULL;
    if (key) {
        q = flash__json_string(s, p);
        *key = p + 1;
        *key_bytes = (size_t)(q - p) - 2;
        p = flash__json_space(s, flash__json_space(s, q) + 1);
    }
    *at = flash__json_skip(s, p, 0);
    return p;
}

/* Returns the value of the object's member with this name, or NULL if there is none. */
static const uint8_t *flash__json_find(flash__schema *s, const uint8_t *object, const uint8_t *name,
                                       size_t n)
{
    const uint8_t *at = object + 1, *p, *key;
    size_t bytes;
    while ((p = flash__json_next(s, &at, &key, &bytes)) != NULL)
        if (!flash__compare(key, bytes, name, n)) return p;
    return NULL;
}

/* Returns a keyword's value in the schema at p, or NULL if it is missing. Fails if the value does
   not begin with the character kind (0: any). */
static const uint8_t *flash__schema_get(flash__schema *s, const uint8_t *p, const char *name,
                                        uint8_t kind)
{
    const uint8_t *v = flash__json_find(s, p, (const uint8_t *)name, strlen(name));
    if (!v || !kind || *v == kind) return v;
    flash__schema_fail(s, FLASH_E_FORMAT, v, "this is no value for ", (const uint8_t *)name,
                       strlen(name));
    return NULL;
}

/* Returns a keyword's value, a number up to 99999, or `otherwise` if it is missing. */
static uint32_t flash__schema_number(flash__schema *s, const uint8_t *p, const char *name,
                                     uint32_t otherwise)
{
    const uint8_t *v = flash__schema_get(s, p, name, 0), *q;
    uint32_t n = 0;
    if (!v) return otherwise;
    for (q = v; q < s->end && *q >= '0' && *q <= '9' && n < 10000; q++)
        n = n * 10 + (uint32_t)(*q - '0');
    if (q == v || q != flash__json_skip(s, v, 0))
        flash__schema_fail(s, FLASH_E_FORMAT, v, "not a whole number up to 99999 for ",
                           (const uint8_t *)name, strlen(name));
    return n;
}

/* Appends text to the grammar; what exceeds cap is only counted. */
static void flash__schema_put(flash__schema *s, const char *text, size_t n)
{
    size_t room = s->n < s->cap ? s->cap - s->n : 0;
    if (room) memcpy(s->out + s->n, text, FLASH__MIN(n, room));
    s->n += n;
}

static void flash__schema_text(flash__schema *s, const char *text)
{
    flash__schema_put(s, text, strlen(text));
}

static void flash__schema_digits(flash__schema *s, uint64_t v)
{
    char digits[24];
    size_t n = 24;
    do digits[--n] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    flash__schema_put(s, digits + n, 24 - n);
}

/* Appends the name of the rule for the schema at p. letter: s, or p for the rule of a property. */
static void flash__schema_name(flash__schema *s, char letter, const uint8_t *p)
{
    flash__schema_put(s, &letter, 1);
    flash__schema_digits(s, (uint64_t)(p - s->text));
}

/* Appends {lo,hi}, or {lo,} if hi is UINT32_MAX. */
static void flash__schema_times(flash__schema *s, uint32_t lo, uint32_t hi)
{
    flash__schema_text(s, "{");
    flash__schema_digits(s, lo);
    flash__schema_text(s, ",");
    if (hi != UINT32_MAX) flash__schema_digits(s, hi);
    flash__schema_text(s, "}");
}

/* Appends the bytes [p, end) as a literal. */
static void flash__schema_literal(flash__schema *s, const uint8_t *p, const uint8_t *end)
{
    static const char hex[] = "0123456789abcdef";
    char x[4] = {'\\', 'x', 0, 0};
    flash__schema_text(s, "\"");
    for (; p < end; p++) {
        if (*p == '"' || *p == '\\') flash__schema_text(s, "\\");
        x[2] = hex[*p >> 4];
        x[3] = hex[*p & 15];
        if (*p < 32)
            flash__schema_put(s, x, 4);
        else
            flash__schema_put(s, (const char *)p, 1);
    }
    flash__schema_text(s, "\"");
}

/* Returns the schema that the $ref with the string at p refers to; the root if s has failed. */
static const uint8_t *flash__schema_target(flash__schema *s, const uint8_t *p)
{
    static const char *const homes[] = {"$defs", "definitions"};
    const uint8_t *root = flash__json_space(s, s->text), *home, *found = NULL;
    const uint8_t *end = flash__json_string(s, p) - 1;
    size_t i, n = (size_t)(end - p) - 1, k;
    if (n == 1 && p[1] == '#') return root;
    for (i = 0; i < 2; i++) {
        k = strlen(homes[i]);
        if (n < k + 3 || memcmp(p + 1, "#/", 2) || memcmp(p + 3, homes[i], k) || p[3 + k] != '/')
            continue;
        home = flash__schema_get(s, root, homes[i], '{');
        if (home) found = flash__json_find(s, home, p + 4 + k, n - k - 3);
        if (!found) flash__schema_fail(s, FLASH_E_FORMAT, p, "nothing is there: ", p + 1, n);
        return found ? found : root;
    }
    flash__schema_fail(s, FLASH_E_UNSUPPORTED, p, "$ref to elsewhere is not supported: ", p + 1, n);
    return root;
}

/* Fails if a keyword of the schema at p is not supported, or not beside the others there. */
static void flash__schema_keywords(flash__schema *s, const uint8_t *p)
{
    /* kinds: 0 ignored; 1 without any other of kinds 1 to 4; 2 beside type at most; 3 type
       itself; 4 beside type and others of kind 4; 5 only at the root */
    static const struct {
        const char *name;
        int kind;
    } known[] = {
        {"title", 0},     {"description", 0}, {"default", 0},    {"examples", 0},
        {"$schema", 0},   {"$id", 0},         {"$comment", 0},   {"$ref", 1},
        {"anyOf", 1},     {"oneOf", 1},       {"enum", 2},       {"const", 2},
        {"type", 3},      {"properties", 4},  {"required", 4},   {"additionalProperties", 4},
        {"items", 4},     {"minItems", 4},    {"maxItems", 4},   {"minLength", 4},
        {"maxLength", 4}, {"$defs", 5},       {"definitions", 5}};
    const uint8_t *at = p + 1, *key;
    size_t bytes, i;
    int count[6] = {0, 0, 0, 0, 0, 0};
    while (!s->status && flash__json_next(s, &at, &key, &bytes)) {
        for (i = 0; i < FLASH__COUNT(known)
             && flash__compare(key, bytes, (const uint8_t *)known[i].name, strlen(known[i].name));
             i++) {}
        if (i == FLASH__COUNT(known)
            || (known[i].kind == 5 && p != flash__json_space(s, s->text))) {
            flash__schema_fail(s, FLASH_E_UNSUPPORTED, key, "keyword not supported: ", key, bytes);
            return;
        }
        count[known[i].kind]++;
        if (count[1] + count[2] > 1 || (count[1] && count[3]) || (count[1] + count[2] && count[4]))
            flash__schema_fail(s, FLASH_E_UNSUPPORTED, key,
                               "keyword not supported beside the "
                               "others: ",
                               key, bytes);
    }
}

/* Returns 1 if the list `required`, which may be NULL, contains the name `key`. */
static int flash__schema_required(flash__schema *s, const uint8_t *required, const uint8_t *key,
                                  size_t bytes)
{
    const uint8_t *at = required ? required + 1 : NULL, *p;
    while (at && (p = flash__json_next(s, &at, NULL, NULL)) != NULL)
        if (*p == '"' && !flash__compare(p + 1, (size_t)(at - p) - 2, key, bytes)) return 1;
    return 0;
}

/* Appends what matches an object, with its properties in their order. An optional property brings
   its own comma: behind it if it comes before the first required property, else in front of it. If
   none is required, there is one alternative for each property that can be the first. */
static void flash__schema_object(flash__schema *s, const uint8_t *p)
{
    const uint8_t *properties = flash__schema_get(s, p, "properties", '{'), *at, *key, *v, *after;
    const uint8_t *required = flash__schema_get(s, p, "required", '[');
    const uint8_t *more = flash__schema_get(s, p, "additionalProperties", 0);
    size_t bytes, n = 0, needed = 0;
    int seen = 0;
    for (at = properties ? properties + 1 : NULL; at; n++) {
        if (!flash__json_next(s, &at, &key, &bytes)) break;
        needed += (size_t)flash__schema_required(s, required, key, bytes);
    }
    for (at = required ? required + 1 : NULL;
         at && (v = flash__json_next(s, &at, NULL, NULL)) != NULL;)
        if (*v != '"' || !properties
            || !flash__json_find(s, properties, v + 1, (size_t)(at - v) - 2))
            flash__schema_fail(s, FLASH_E_FORMAT, v, "required, but not among the properties", v,
                               0);
    if (more && n && *more != 'f')
        flash__schema_fail(s, FLASH_E_UNSUPPORTED, more,
                           "additionalProperties beside properties "
                           "must be false",
                           more, 0);
    if (!needed && n > FLASH__OPTIONAL_MAX)
        flash__schema_fail(s, FLASH_E_TOO_LARGE, p, "more than 64 properties and none required", p,
                           0);
    if (s->status) return;
    if (!n && (!more || *more == 't') && !properties) {
        flash__schema_text(s, "object");
        return;
    }
    flash__schema_text(s, "\"{\" ws");
    if (!n && more && *more == '{') {
        flash__schema_text(s, " (string \":\" ws ");
        flash__schema_name(s, 's', more);
        flash__schema_text(s, " (\",\" ws string \":\" ws ");
        flash__schema_name(s, 's', more);
        flash__schema_text(s, ")*)?");
    }
    if (!needed && n) flash__schema_text(s, " (");
    for (at = properties ? properties + 1 : NULL;
         at && (v = flash__json_next(s, &at, &key, &bytes)) != NULL; seen++) {
        int must = flash__schema_required(s, required, key, bytes);
        if (!needed) {
            flash__schema_text(s, seen ? " | " : "");
            flash__schema_name(s, 'p', v);
            for (after = at; (v = flash__json_next(s, &after, &key, &bytes)) != NULL;) {
                flash__schema_text(s, " (\",\" ws ");
                flash__schema_name(s, 'p', v);
                flash__schema_text(s, ")?");
            }
        } else {
            flash__schema_text(s, must ? " " : " (");
            if (needed == SIZE_MAX) flash__schema_text(s, "\",\" ws ");
            flash__schema_name(s, 'p', v);
            if (!must) flash__schema_text(s, needed == SIZE_MAX ? ")?" : " \",\" ws)?");
            if (must) needed = SIZE_MAX; /* the first required property is written */
        }
    }
    flash__schema_text(s, !needed && n ? ")? ws \"}\"" : " ws \"}\"");
}

static void flash__schema_array(flash__schema *s, const uint8_t *p)
{
    const uint8_t *items = flash__schema_get(s, p, "items", 0);
    uint32_t lo = flash__schema_number(s, p, "minItems", 0), i;
    uint32_t hi = flash__schema_number(s, p, "maxItems", UINT32_MAX);
    if (hi < lo) flash__schema_fail(s, FLASH_E_FORMAT, p, "maxItems is less than minItems", p, 0);
    flash__schema_text(s, "\"[\" ws");
    for (i = 0; i < 2 && hi; i++) {
        flash__schema_text(s, i ? " (\",\" ws " : lo ? " " : " (");
        if (items)
            flash__schema_name(s, 's', items);
        else
            flash__schema_text(s, "value");
    }
    if (hi) {
        flash__schema_text(s, ")");
        flash__schema_times(s, lo ? lo - 1 : 0, hi == UINT32_MAX ? hi : hi - 1);
        if (!lo) flash__schema_text(s, ")?");
    }
    flash__schema_text(s, " ws \"]\"");
}

/* Appends what matches the schema at p if it has this type. type: a JSON string. */
static void flash__schema_type(flash__schema *s, const uint8_t *p, const uint8_t *type)
{
    static const char *const plain[] = {"\"number\"", "\"integer\"", "\"boolean\"", "\"null\""};
    size_t i, n = (size_t)(flash__json_skip(s, type, 0) - type);
    for (i = 0; i < FLASH__COUNT(plain); i++)
        if (!flash__compare(type, n, (const uint8_t *)plain[i], strlen(plain[i]))) {
            flash__schema_put(s, (const char *)type + 1, n - 2);
            return;
        }
    if (!flash__compare(type, n, (const uint8_t *)"\"object\"", 8))
        flash__schema_object(s, p);
    else if (!flash__compare(type, n, (const uint8_t *)"\"array\"", 7))
        flash__schema_array(s, p);
    else if (!flash__compare(type, n, (const uint8_t *)"\"string\"", 8)) {
        uint32_t lo = flash__schema_number(s, p, "minLength", 0);
        uint32_t hi = flash__schema_number(s, p, "maxLength", UINT32_MAX);
        if (hi < lo)
            flash__schema_fail(s, FLASH_E_FORMAT, p, "maxLength is less than minLength", p, 0);
        flash__schema_text(s, "\"\\\"\" char");
        flash__schema_times(s, lo, hi);
        flash__schema_text(s, " \"\\\"\"");
    } else
        flash__schema_fail(s, FLASH_E_FORMAT, type, "there is no type ", type, n);
}

/* Appends alternatives: the rules of the schemas in a list or, if literal, the items' own text. */
static void flash__schema_choice(flash__schema *s, const uint8_t *list, int literal)
{
    const uint8_t *at = list + 1, *p;
    int n = 0;
    for (; (p = flash__json_next(s, &at, NULL, NULL)) != NULL; n++) {
        if (n) flash__schema_text(s, " | ");
        if (literal)
            flash__schema_literal(s, p, at);
        else
            flash__schema_name(s, 's', p);
    }
    if (!n) flash__schema_fail(s, FLASH_E_FORMAT, list, "nothing to choose from", list, 0);
}

static void flash__schema_rule(flash__schema *s, const uint8_t *p);

/* Appends the rules of the schemas in a list or an object. list: NULL appends nothing; properties:
   1 if it is an object's properties, which get a rule each, too. */
static void flash__schema_rules(flash__schema *s, const uint8_t *list, int properties)
{
    const uint8_t *at = list ? list + 1 : NULL, *p, *key = NULL;
    size_t bytes;
    while (at && !s->status
           && (p = flash__json_next(s, &at, *list == '{' ? &key : NULL, &bytes)) != NULL) {
        if (properties) {
            flash__schema_name(s, 'p', p);
            flash__schema_text(s, " ::= ");
            flash__schema_literal(s, key - 1, key + bytes + 1);
            flash__schema_text(s, " \":\" ws ");
            flash__schema_name(s, 's', p);
            flash__schema_text(s, "\n");
        }
        flash__schema_rule(s, p);
    }
}

/* Appends the rule of the schema at p, then the rules of the schemas inside it. */
static void flash__schema_rule(flash__schema *s, const uint8_t *p)
{
    const uint8_t *v, *at;
    flash__schema_name(s, 's', p);
    flash__schema_text(s, " ::= ");
    if (*p == 't') {
        flash__schema_text(s, "value\n");
        return;
    }
    if (*p != '{') {
        flash__schema_fail(s, *p == 'f' ? FLASH_E_UNSUPPORTED : FLASH_E_FORMAT, p,
                           "this is no schema that anything can match", p, 0);
        return;
    }
    flash__schema_keywords(s, p);
    if (s->status) return;
    if ((v = flash__schema_get(s, p, "$ref", '"')) != NULL)
        flash__schema_name(s, 's', flash__schema_target(s, v));
    else if ((v = flash__schema_get(s, p, "const", 0)) != NULL)
        flash__schema_literal(s, v, flash__json_skip(s, v, 0));
    else if ((v = flash__schema_get(s, p, "enum", '[')) != NULL)
        flash__schema_choice(s, v, 1);
    else if ((v = flash__schema_get(s, p, "anyOf", '[')) != NULL)
        flash__schema_choice(s, v, 0);
    else if ((v = flash__schema_get(s, p, "oneOf", '[')) != NULL)
        flash__schema_choice(s, v, 0);
    else if ((v = flash__schema_get(s, p, "type", 0)) != NULL && *v == '[') {
        const uint8_t *type;
        int n = 0;
        for (at = v + 1; (type = flash__json_next(s, &at, NULL, NULL)) != NULL; n++) {
            if (n) flash__schema_text(s, " | ");
            flash__schema_type(s, p, type);
        }
        if (!n) flash__schema_fail(s, FLASH_E_FORMAT, v, "nothing to choose from", v, 0);
    } else if (v)
        flash__schema_type(s, p, v);
    else if (flash__schema_get(s, p, "properties", 0)
             || flash__schema_get(s, p, "additionalProperties", 0))
        flash__schema_object(s, p);
    else if (flash__schema_get(s, p, "items", 0))
        flash__schema_array(s, p);
    else
        flash__schema_text(s, "value");
    flash__schema_text(s, "\n");
    flash__schema_rules(s, flash__schema_get(s, p, "anyOf", '['), 0);
    flash__schema_rules(s, flash__schema_get(s, p, "oneOf", '['), 0);
    flash__schema_rules(s, flash__schema_get(s, p, "properties", '{'), 1);
    flash__schema_rules(s, flash__schema_get(s, p, "$defs", '{'), 0);
    flash__schema_rules(s, flash__schema_get(s, p, "definitions", '{'), 0);
    if ((v = flash__schema_get(s, p, "items", 0)) != NULL && !s->status) flash__schema_rule(s, v);
    v = flash__schema_get(s, p, "additionalProperties", 0);
    if (v && *v == '{' && !s->status) flash__schema_rule(s, v);
}

FLASH_API flash_status flash_grammar_from_schema(const char *schema, size_t bytes, char *text,
                                                 size_t cap, size_t *n, flash_error *err)
{
    flash__schema s;
    const uint8_t *p, *root;
    uint32_t c;
    if (!schema || (!text && cap) || !n)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no schema, or no place for the grammar");
    if (bytes > FLASH__SCHEMA_MAX) /* the search for names takes quadratic time */
        return flash__fail(err, FLASH_E_TOO_LARGE, 0, "a schema of more than 64 KiB");
    memset(&s, 0, sizeof s);
    s.text = (const uint8_t *)schema;
    s.end = s.text + bytes;
    s.out = text;
    s.cap = cap;
    s.err = err;
    for (p = s.text; p < s.end && !s.status; p += flash__utf8(p, s.end, &c))
        if (!flash__utf8(p, s.end, &c))
            flash__schema_fail(&s, FLASH_E_FORMAT, p, "not UTF-8", p, 0);
    root = flash__json_space(&s, s.text);
    p = s.status ? NULL : flash__json_skip(&s, root, 0);
    if (p) p = flash__json_space(&s, p);
    if (p && p < s.end) flash__schema_fail(&s, FLASH_E_FORMAT, p, "this is no JSON", p, 0);
    if (s.status) return s.status;
    flash__schema_text(&s, "root ::= ");
    flash__schema_name(&s, 's', root);
    flash__schema_text(&s, "\n");
    flash__schema_rule(&s, root);
    flash__schema_text(&s,
                       "value ::= object | array | string | number | boolean | null\n"
                       "object ::= \"{\" ws (member (\",\" ws member)*)? ws \"}\"\n"
                       "member ::= string \":\" ws value\n"
                       "array ::= \"[\" ws (value (\",\" ws value)*)? ws \"]\"\n"
                       "string ::= \"\\\"\" char* \"\\\"\"\n"
                       "char ::= [^\"\\\\\\x00-\\x1f] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" unit)\n"
                       "unit ::= [0-9abcefABCEF] hex{3} | [dD] ([0-7] hex{2}\n"
                       "    | [89abAB] hex{2} \"\\\\u\" [dD] [c-fC-F] hex{2})\n"
                       "hex ::= [0-9a-fA-F]\n"
                       "integer ::= \"-\"? (\"0\" | [1-9] [0-9]{0,15})\n"
                       "number ::= integer (\".\" [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?\n"
                       "boolean ::= \"true\" | \"false\"\n"
                       "null ::= \"null\"\n"
                       "ws ::= \" \"? | \"\\n\" \" \"{0,16}\n");
    if (s.status) return s.status;
    *n = s.n;
    return s.n > cap ? FLASH_E_RANGE : FLASH_E_NONE;
}

/* --- matching ---------------------------------------------------------------------- */

/* Where to go on when a rule returns. */
typedef struct flash__frame {
    uint16_t at, below; /* a step; the frame to go on with, 0 in the root rule */
} flash__frame;

/* A state has n heads: pairs of a step that reads a character and a frame. Inside a character, left
   is the number of its bytes still to come, and value is what its bytes so far give. ends: 1 if the
   text may end here. */
typedef struct flash__place {
    uint32_t hash, first, value; /* first: the number of the first head */
    uint16_t n;
    uint8_t left, ends;
} flash__place;

/* What a session has for its grammar. It follows from the grammar and the session's tokens from
   text_at on, so it can be dropped and made again. */
typedef struct flash__reading {
    const flash_grammar *g;
    int at;    /* number of the session's tokens read, -1: not begun */
    int stuck; /* 1: a token was not allowed */
    int now;   /* the text's state */
    int full;  /* 1: the pool is full; 2: another limit, which flash__refresh cannot lift */
    uint32_t n_frame, n_place, n_head, n_visit, n_new; /* n_new: heads of the next state */
    int ends;                                          /* 1: the text may end in the next state */
    flash__frame *frame;                  /* [FRAMES]; number 0 is no frame: the root rule */
    uint16_t *frame_slot;                 /* [2 FRAMES] hash table -> frame, 0 if empty */
    flash__place *place;                  /* [STATES] */
    uint32_t *head;                       /* [HEADS] step << 16 | frame */
    uint8_t *next;                        /* [STATES,256] state + 2; 0: not known yet, 1: none */
    uint32_t *visit;                      /* [VISITS] step << 16 | frame, of the next state */
    uint16_t *visit_slot;                 /* [2 VISITS] hash table -> visit + 1, 0 if empty */
    uint8_t *path;                        /* [longest token + 2] states after its bytes */
    uint32_t *mask;                       /* [MASKS,words] tokens allowed, a bit each */
    int mask_of[FLASH__MASKS], mask_turn; /* their states, -1: none; the mask made last */
    size_t words;
} flash__reading;

static flash__reading *flash__reading_plan(const flash_model *m, flash__arena *a)
{
    flash__reading plan, *t = (flash__reading *)flash__take(a, 1, sizeof plan);
    memset(&plan, 0, sizeof plan);
    plan.at = -1;
    plan.words = ((size_t)m->vocab.n + 31) / 32;
    plan.frame = (flash__frame *)flash__take(a, FLASH__FRAMES, sizeof *plan.frame);
    plan.frame_slot = (uint16_t *)flash__take(a, 2 * FLASH__FRAMES, 2);
    plan.place = (flash__place *)flash__take(a, FLASH__STATES, sizeof *plan.place);
    plan.head = (uint32_t *)flash__take(a, FLASH__HEADS, 4);
    plan.next = (uint8_t *)flash__take(a, FLASH__STATES, 256);
    plan.visit = (uint32_t *)flash__take(a, FLASH__VISITS, 4);
    plan.visit_slot = (uint16_t *)flash__take(a, 2 * FLASH__VISITS, 2);
    plan.path = (uint8_t *)flash__take(a, (size_t)m->vocab.token_bytes_max + 2, 1);
    plan.mask = (uint32_t *)flash__take(a, FLASH__MASKS * plan.words, 4);
    if (t) *t = plan;
    return t;
}

static uint32_t flash__scatter(uint32_t x)
{
    x *= 0x9e3779b1u;
    return x ^ x >> 15;
}

/* Returns the frame with these values, which is made if it is new, or 0 if the pool is full. */
static uint32_t flash__frame_of(flash__reading *t, uint32_t at, uint32_t below)
{
    uint32_t i = flash__scatter(at << 16 | below) & (2 * FLASH__FRAMES - 1), f;
    for (; (f = t->frame_slot[i]) != 0; i = (i + 1) & (2 * FLASH__FRAMES - 1))
        if (t->frame[f].at == at && t->frame[f].below == below) return f;
    if (t->n_frame == FLASH__FRAMES) {
        t->full = 1;
        return 0;
    }
    f = t->n_frame++;
    t->frame[f].at = (uint16_t)at;
    t->frame[f].below = (uint16_t)below;
    t->frame_slot[i] = (uint16_t)f;
    return f;
}

/* Adds a step and a frame to those visited, unless they are there. */
static void flash__visit(flash__reading *t, uint32_t at, uint32_t frame)
{
    uint32_t key = at << 16 | frame, i = flash__scatter(key) & (2 * FLASH__VISITS - 1);
    for (; t->visit_slot[i]; i = (i + 1) & (2 * FLASH__VISITS - 1))
        if (t->visit[t->visit_slot[i] - 1] == key) return;
    if (t->n_visit == FLASH__VISITS) {
        t->full = FLASH__MAX(t->full, 2);
        return;
    }
    t->visit[t->n_visit++] = key;
    t->visit_slot[i] = (uint16_t)t->n_visit;
}

/* Adds a head to the next state, whose heads are sorted and begin at n_head. */
static void flash__head_add(flash__reading *t, uint32_t key)
{
    uint32_t i;
    if (t->n_new == FLASH__READINGS) {
        t->full = FLASH__MAX(t->full, 2);
        return;
    }
    if (t->n_head + t->n_new == FLASH__HEADS) {
        t->full = FLASH__MAX(t->full, 1);
        return;
    }
    for (i = t->n_head + t->n_new++; i > t->n_head && t->head[i - 1] > key; i--)
        t->head[i] = t->head[i - 1];
    t->head[i] = key;
}

/* Adds all heads that can be reached from the steps visited without reading a character. */
static void flash__close(flash__reading *t)
{
    const flash_grammar *g = t->g;
    uint32_t i, k, key, at, frame;
    t->ends = 0;
    for (i = 0; i < t->n_visit && !t->full; i++) {
        key = t->visit[i];
        at = key >> 16;
        frame = key & 0xffff;
        switch (g->step[at] >> 24) {
        case FLASH__G_SPLIT: flash__visit(t, at + 1, frame); /* fall through */
        case FLASH__G_JUMP: flash__visit(t, flash__jump(g, at), frame); break;
        case FLASH__G_CALL: frame = flash__frame_of(t, at + 1, frame); /* fall through */
        case FLASH__G_TAIL:
            if (!t->full) flash__visit(t, g->rule[g->step[at] & 0xffffff], frame);
            break;
        case FLASH__G_RETURN:
            if (frame)
                flash__visit(t, t->frame[frame].at, t->frame[frame].below);
            else
                t->ends = 1;
            break;
        default: flash__head_add(t, key);
        }
    }
    for (i = 0; i < t->n_visit; i++) { /* empties the hash table */
        k = flash__scatter(t->visit[i]) & (2 * FLASH__VISITS - 1);
        for (; t->visit_slot[k]; k = (k + 1) & (2 * FLASH__VISITS - 1)) t->visit_slot[k] = 0;
    }
    t->n_visit = 0;
}

/* Returns the state with the heads added, which is made if it is new. Returns -1 if nothing can
   follow, or if the pool is full. */
static int flash__place_of(flash__reading *t, uint32_t left, uint32_t value, int ends)
{
    uint32_t i, hash = left + 16 * (uint32_t)ends + value * 31, n = t->n_new;
    flash__place *p;
    t->n_new = 0;
    if (t->full || (!n && !ends)) return -1;
    for (i = 0; i < n; i++) hash = (hash ^ t->head[t->n_head + i]) * 16777619u;
    for (i = 0; i < t->n_place; i++) {
        p = t->place + i;
        if (p->hash == hash && p->n == n && p->left == left && p->value == value && p->ends == ends
            && !memcmp(t->head + p->first, t->head + t->n_head, n * sizeof *t->head))
            return (int)i;
    }
    if (t->n_place == FLASH__STATES) {
        t->full = 1;
        return -1;
    }
    p = t->place + t->n_place;
    memset(t->next + 256 * (size_t)t->n_place, 0, 256);
    p->hash = hash;
    p->first = t->n_head;
    p->value = value;
    p->n = (uint16_t)n;
    p->left = (uint8_t)left;
    p->ends = (uint8_t)ends;
    t->n_head += n;
    return (int)t->n_place++;
}

/* Returns which characters of [lo, hi] a step can read: 0 none, 1 some, 2 all. */
static int flash__reads(const flash_grammar *g, uint32_t step, uint32_t lo, uint32_t hi)
{
    uint32_t c = step & 0xffffff, a, b, mid;
    const flash__charset *s;
    const uint32_t *span;
    if (step >> 24 == FLASH__G_CHAR) return c < lo || c > hi ? 0 : lo == hi ? 2 : 1;
    s = g->set + c;
    if (hi < 128 && lo == hi) return s->ascii[lo / 32] >> lo % 32 & 1 ? 2 : 0;
    for (span = g->span + 2 * s->at, a = 0, b = s->n; a < b;) { /* first span not below lo */
        mid = a + (b - a) / 2;
        if (span[2 * mid + 1] < lo)
            a = mid + 1;
        else
            b = mid;
    }
    if (a == s->n || span[2 * a] > hi) return 0;
    return span[2 * a] <= lo && span[2 * a + 1] >= hi ? 2 : 1;
}

/* Returns the state after character c in state p, or -1. If c is ANY, all heads of p read it. */
static int flash__read_char(flash__reading *t, const flash__place *p, uint32_t c)
{
    uint32_t i;
    for (i = 0; i < p->n; i++) {
        uint32_t key = t->head[p->first + i];
        if (c == FLASH__ANY || flash__reads(t->g, t->g->step[key >> 16], c, c))
            flash__visit(t, (key >> 16) + 1, key & 0xffff);
    }
    flash__close(t);
    return flash__place_of(t, 0, 0, t->ends);
}

/* Returns the state after a byte in state p, or -1 if the byte is not allowed or t->full is set. */
static int flash__read_byte(flash__reading *t, const flash__place *p, uint8_t byte)
{
    uint32_t left = p->left, value = p->value, i, lo, hi;
    int all = 1, how;
    if (left == FLASH__FRESH && byte == ' ') {
        for (i = 0; i < p->n; i++) flash__head_add(t, t->head[p->first + i]);
        return flash__place_of(t, 0, 0, p->ends);
    }
    if (left == FLASH__FRESH || !left) {
        if (byte < 0x80) return flash__read_char(t, p, byte);
        if (byte < 0xc2 || byte > 0xf4) return -1;
        left = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
        value = byte & (0x3fu >> left);
    } else {
        if ((byte & 0xc0) != 0x80) return -1;
        /* no overlong forms: after E0 comes A0 or more, after F0 comes 90 or more */
        if (!value && (byte & 0x3f) < (left == 2 ? 0x20 : 0x10)) return -1;
        if (value != FLASH__ANY) value = value << 6 | (byte & 0x3f);
        if (!--left) return flash__read_char(t, p, value);
    }
    lo = value << 6 * left;
    hi = lo + (1u << 6 * left) - 1;
    if (!value) {
        lo = left == 2 ? 0x800 : 0x10000;
        all = 0;
    }
    for (i = 0; i < p->n; i++) {
        uint32_t key = t->head[p->first + i];
        how = value == FLASH__ANY ? 2 : flash__reads(t->g, t->g->step[key >> 16], lo, hi);
        if (how) flash__head_add(t, key);
        if (how == 1) all = 0;
    }
    return flash__place_of(t, left, all ? FLASH__ANY : value, 0);
}

/* Empties the pool but for the state of the text, which becomes state 0. */
static void flash__refresh(flash__reading *t)
{
    uint16_t *to = t->frame_slot; /* [FRAMES] new numbers, until the hash table is filled again */
    flash__place p = t->place[t->now];
    uint32_t i, f, n = 1;
    memset(to, 0, 2 * FLASH__FRAMES * sizeof *to);
    for (i = 0; i < p.n; i++)
        for (f = t->head[p.first + i] & 0xffff; f && !to[f]; f = t->frame[f].below) to[f] = 1;
    for (f = 1; f < t->n_frame; f++) {
        if (!to[f]) continue;
        t->frame[n].at = t->frame[f].at; /* frames below a frame have lower numbers */
        t->frame[n].below = t->frame[f].below ? to[t->frame[f].below] : (uint16_t)0;
        to[f] = (uint16_t)n++;
    }
    memmove(t->head, t->head + p.first, p.n * sizeof *t->head);
    for (i = 0; i < p.n; i++) {
        f = t->head[i] & 0xffff;
        t->head[i] = (t->head[i] & 0xffff0000u) | (f ? to[f] : 0u);
    }
    memset(to, 0, 2 * FLASH__FRAMES * sizeof *to);
    t->n_frame = 1;
    while (t->n_frame < n) { /* enters each frame in the hash table; its number stays */
        f = t->n_frame;
        flash__frame_of(t, t->frame[f].at, t->frame[f].below);
    }
    t->n_head = 0;
    t->n_place = 0;
    t->full = 0;
    t->n_new = p.n;
    t->now = flash__place_of(t, p.left, p.value, p.ends);
    for (i = 0; i < FLASH__MASKS; i++) t->mask_of[i] = -1;
}

/* Begins a text. fresh: 1 if its first space is not shown. */
static void flash__reading_start(flash__reading *t, const flash_grammar *g, int fresh)
{
    uint32_t i;
    t->g = g;
    memset(t->frame_slot, 0, 2 * FLASH__FRAMES * sizeof *t->frame_slot);
    memset(t->visit_slot, 0, 2 * FLASH__VISITS * sizeof *t->visit_slot);
    t->n_frame = 1;
    t->n_place = t->n_head = t->n_visit = t->n_new = 0;
    t->full = 0;
    for (i = 0; i < FLASH__MASKS; i++) t->mask_of[i] = -1;
    flash__visit(t, g->rule[g->root], 0);
    flash__close(t);
    t->now = flash__place_of(t, fresh ? FLASH__FRESH : 0, 0, t->ends);
    t->stuck = t->now < 0;
    t->full = 0;
}

/* Returns the state after a byte in a state, -1 if there is none, or -2 if the pool is full. */
static int flash__advance(flash__reading *t, int state, uint8_t byte)
{
    uint8_t *next = t->next + 256 * (size_t)state + byte;
    int to;
    if (*next) return *next - 2;
    to = flash__read_byte(t, t->place + state, byte);
    if (t->full == 1) {
        t->full = 0;
        return -2;
    }
    t->full = 0;
    *next = (uint8_t)(to + 2);
    return to;
}

/* Returns the state after a token, or -1 if the token is not allowed. */
static int flash__read_token(flash__reading *t, const flash_model *m, int32_t id)
{
    int again, state = -2, c, n;
    for (again = 0; again < 2 && state == -2; again++) {
        uint8_t byte;
        flash__bytes b = flash__token_out(&m->vocab, (uint32_t)id, 0, &byte);
        if (again) flash__refresh(t);
        for (n = 0, state = t->now; state >= 0 && (c = flash__next_byte(&b)) >= 0; n++)
            state = flash__advance(t, state, (uint8_t)c);
        if (!n) return -1;
    }
    return FLASH__MAX(state, -1);
}

static int flash__allowed(flash__reading *t, const flash_model *m, int32_t id)
{
    if (t->stuck) return 0;
    return flash__is_end(&m->vocab, id) ? t->place[t->now].ends : flash__read_token(t, m, id) >= 0;
}

/* Returns the tokens allowed next: [words], one bit per token of the vocabulary. */
static const uint32_t *flash__mask(flash__reading *t, const flash_model *m)
{
    const flash__spelling *v = t->g->spelling;
    uint32_t *mask, i, n, d, good = 0;
    int k, again, to;
    for (k = 0; k < FLASH__MASKS; k++)
        if (t->mask_of[k] == t->now && !t->stuck) return t->mask + (size_t)k * t->words;
    k = t->mask_turn = (t->mask_turn + 1) % FLASH__MASKS;
    mask = t->mask + (size_t)k * t->words;
    memset(mask, 0, t->words * sizeof *mask);
    if (t->stuck) {
        t->mask_of[k] = -1;
        return mask;
    }
    t->path[0] = (uint8_t)t->now;
    for (i = 0; i < v->n; i++) {
        const uint8_t *p = v->bytes + v->at[i];
        if (v->shared[i] > good) continue; /* it has the byte at which the token before failed */
        n = v->at[i + 1] - v->at[i];
        for (d = v->shared[i], again = 0; d < n;) {
            to = flash__advance(t, t->path[d], p[d]);
            if (to >= 0) {
                t->path[++d] = (uint8_t)to;
                continue;
            }
            if (to == -1 || again++) break;
            flash__refresh(t);
            t->path[d = 0] = (uint8_t)t->now;
        }
        good = d;
        if (d == n)
            mask[v->token[i] / 32] |= 1u << v->token[i] % 32;
        else if (!d)
            i = v->first[*p + 1] - 1;
    }
    for (k = 0; t->place[t->now].ends && k < m->vocab.n_ends; k++)
        mask[m->vocab.ends[k] / 32] |= 1u << m->vocab.ends[k] % 32;
    t->mask_of[t->mask_turn] = t->now;
    return mask;
}

/* ===== >>sampler ========================================================== */

/* Chooses the next token from the logits. All arithmetic is in double, with the library's own exp,
   and of equal logits the lower id comes first: the same seed gives the same text on every machine.
   Each filter (top-k, typical, top-p, min-p) keeps the first of the candidates sorted by logit;
   without a filter nothing is sorted. */

typedef struct flash__candidate {
    float logit;
    int32_t id;
} flash__candidate;

static int flash__better(const flash__candidate *a, const flash__candidate *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

/* Sifts candidate i down in a heap of n candidates, whose root is the worst of them. */
static void flash__sift(flash__candidate *c, size_t n, size_t i)
{
    flash__candidate v = c[i];
    size_t child;
    for (; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && flash__better(c + child, c + child + 1)) child++;
        if (!flash__better(&v, c + child)) break;
        c[i] = c[child];
    }
    c[i] = v;
}

/* Puts the best `keep` of the n candidates at the front, best first; the rest is left undefined.
   A heap holds the best seen so far. */
static void flash__best_first(flash__candidate *c, size_t n, size_t keep)
{
    size_t i;
    for (i = keep / 2; i-- > 0;) flash__sift(c, keep, i);
    for (i = keep; i < n; i++) {
        if (!flash__better(c + i, c)) continue;
        c[0] = c[i];
        flash__sift(c, keep, 0);
    }
    for (i = keep; i-- > 1;) {
        flash__candidate t = c[0];
        c[0] = c[i];
        c[i] = t;
        flash__sift(c, i, 0);
    }
}

/* Returns the index of the largest of the n values, the first one if several are equal. NaN counts
   as less than any number. The sixteen independent maxima let compilers use vector instructions. */
static size_t flash__first_best(const float *x, size_t n)
{
    float best[16];
    size_t i, j;
    for (j = 0; j < 16; j++) best[j] = -3e38f;
    for (i = 0; i + 16 <= n; i += 16)
        for (j = 0; j < 16; j++) best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
    for (; i < n; i++) best[0] = x[i] > best[0] ? x[i] : best[0];
    for (j = 1; j < 16; j++) best[0] = best[j] > best[0] ? best[j] : best[0];
    for (i = 0; i + 1 < n; i++)
        if (x[i] == best[0]) return i;
    return x[i] == best[0] ? i : 0;
}

static int flash__penalised(const flash_sampler *p)
{
    return (p->repeat_penalty > 0 && p->repeat_penalty != 1) || p->frequency_penalty != 0
        || p->presence_penalty != 0;
}

/* Applies the penalties of p to the logits of the recent tokens. recent: [n] the tokens so far; c:
   [V] candidates in the order of their ids. */
static void flash__penalties(const flash_sampler *p, const int32_t *recent, int n,
                             flash__candidate *c)
{
    int last = p->penalty_last_n < 0 ? n
                                     : FLASH__MIN(n, p->penalty_last_n ? p->penalty_last_n : 64),
        i;
    float repeat = p->repeat_penalty > 0 ? p->repeat_penalty : 1;
    if (!flash__penalised(p)) return;
    for (i = n - last; i < n; i++) {
        flash__candidate *t = c + recent[i];
        if (t->id >= 0) { /* first occurrence of the token; a negative id marks it as seen */
            t->logit = t->logit > 0 ? t->logit / repeat : t->logit * repeat;
            t->logit -= p->presence_penalty;
            t->id = ~t->id;
        }
        t->logit -= p->frequency_penalty;
    }
    for (i = n - last; i < n; i++)
        if (c[recent[i]].id < 0) c[recent[i]].id = ~c[recent[i]].id;
}

/* Keeps the candidates whose surprise (-log probability) is nearest to the entropy, until their
   total probability reaches p (Meister et al. 2022, arxiv 2202.00666). c: [n], sorted best first;
   scale: 1/temperature; best: the largest logit. Returns how many stay, sorted best first. */
static size_t flash__typical(flash__candidate *c, size_t n, double p, double scale, double best)
{
    double sum = 0, entropy = 0, mass = 0;
    size_t i, keep, lo, hi;
    for (i = 0; i < n; i++) sum += flash__exp((c[i].logit - best) * scale);
    for (i = 0; i < n; i++) {
        double w = flash__exp((c[i].logit - best) * scale) / sum;
        entropy -= w > 0 ? w * ((c[i].logit - best) * scale - flash__log(sum)) : 0;
    }
    for (lo = 0; lo < n && -((c[lo].logit - best) * scale - flash__log(sum)) < entropy; lo++) {}
    /* [lo, hi) are the candidates kept; the range grows on the side nearer to the entropy */
    for (hi = lo, keep = 0; keep < n && mass < p; keep++) {
        double below = lo > 0 ? entropy + ((c[lo - 1].logit - best) * scale - flash__log(sum))
                              : 1e300;
        double above = hi < n ? -((c[hi].logit - best) * scale - flash__log(sum)) - entropy : 1e300;
        size_t take = below <= above ? --lo : hi++;
        mass += flash__exp((c[take].logit - best) * scale) / sum;
    }
    memmove(c, c + lo, keep * sizeof *c);
    return keep;
}

/* Returns the next token, or -1 if the grammar allows none. recent: [n_recent] the tokens so far;
   random: state of the random numbers; c: [n_vocab] scratch; t: state of the grammar, or NULL. */
static int32_t flash__sample(const flash_model *m, const flash_sampler *p, const float *logits,
                             const int32_t *recent, int n_recent, uint64_t *random,
                             flash__candidate *c, flash__reading *t)
{
    size_t n = (size_t)m->arch.n_vocab, i, kept = n;
    double scale, sum = 0, mass = 0, u, best;
    int k, greedy = !(p->temperature > 0) || p->top_k == 1;
    if (greedy && !p->n_bias && !p->ignore_end && !flash__penalised(p)) {
        i = flash__first_best(logits, n);
        if (!t || flash__allowed(t, m, (int32_t)i)) return (int32_t)i;
    }
    for (i = 0; i < n; i++) {
        c[i].logit = logits[i] == logits[i] ? logits[i] : -3e38f;
        c[i].id = (int32_t)i;
    }
    for (k = 0; k < p->n_bias; k++)
        if (p->bias[k].token >= 0 && (size_t)p->bias[k].token < n)
            c[p->bias[k].token].logit += p->bias[k].bias;
    for (k = 0; p->ignore_end && k < m->vocab.n_ends; k++) c[m->vocab.ends[k]].logit = -3e38f;
    flash__penalties(p, recent, n_recent, c);
    if (t) {
        const uint32_t *mask = flash__mask(t, m);
        for (i = 0, kept = 0; i < n; i++)
            if (mask[i / 32] >> i % 32 & 1) c[kept++] = c[i];
        if ((n = kept) == 0) return -1;
    }
    if (greedy) {
        for (i = 1, kept = 0; i < n; i++)
            if (flash__better(c + i, c + kept)) kept = i;
        return c[kept].id;
    }
    scale = 1.0 / p->temperature;
    best = c[0].logit;
    for (i = 1; i < n; i++) best = c[i].logit > best ? c[i].logit : best;
    if (p->top_k > 0 || (p->top_p > 0 && p->top_p < 1) || (p->typical_p > 0 && p->typical_p < 1)
        || p->min_p > 0) {
        if (p->top_k > 0 && (size_t)p->top_k < n) kept = (size_t)p->top_k;
        flash__best_first(c, n, kept);
        if (p->typical_p > 0 && p->typical_p < 1)
            kept = flash__typical(c, kept, p->typical_p, scale, best);
        for (i = 0; i < kept; i++) sum += flash__exp((c[i].logit - best) * scale);
        if (p->top_p > 0 && p->top_p < 1) {
            for (i = 0; i < kept && mass < p->top_p * sum; i++)
                mass += flash__exp((c[i].logit - best) * scale);
            kept = i;
        }
        for (i = 1; i < kept && p->min_p > 0; i++)
            if (flash__exp((c[i].logit - c[0].logit) * scale) < p->min_p) {
                kept = i;
                break;
            }
    }
    for (sum = 0, i = 0; i < kept; i++) sum += flash__exp((c[i].logit - best) * scale);
    u = (double)(flash__random(random) >> 11) * (1.0 / 9007199254740992.0) * sum;
    for (mass = 0, i = 0; i + 1 < kept; i++)
        if ((mass += flash__exp((c[i].logit - best) * scale)) > u) break;
    return c[i].id;
}

/* ===== >>session ========================================================== */

/* A session lies in one block of memory: the KV cache, work buffers, the tokens so far and the text
   that is held back because a stop string may begin in it. flash_session_next joins the steps that
   generate text: forward pass, sampling, detokenising, stop strings. */

/* Returns the length of the longest stop string [B]. */
static size_t flash__stops_longest(const flash_sampler *p)
{
    size_t longest = 0, n;
    int i;
    for (i = 0; i < p->n_stop; i++) {
        n = strlen(p->stop[i]);
        longest = FLASH__MAX(longest, n);
    }
    return longest;
}

static int flash__sampler_ok(const flash_model *m, const flash_sampler *p)
{
    int i;
    if (p->grammar && p->grammar->m->vocab.text != m->vocab.text) return 0;
    if (p->n_bias < 0 || (p->n_bias && !p->bias) || p->n_stop < 0 || (p->n_stop && !p->stop))
        return 0;
    for (i = 0; i < p->n_stop; i++)
        if (!p->stop[i] || !p->stop[i][0]) return 0;
    return p->temperature == p->temperature && p->top_k >= 0; /* no NaN */
}

/* Takes a session from the arena and fills in its sizes and pointers. While the arena only counts,
   *out becomes NULL. stop_max: least room for held text [B], for stop strings longer than those of
   desc. Returns 0 if desc is invalid or the size overflows. */
static int flash__session_plan(flash_session **out, const flash_model *m,
                               const flash_session_desc *desc, size_t stop_max, flash__arena *a)
{
    flash_session plan, *s = (flash_session *)flash__take(a, 1, sizeof plan);
    const flash_arch *arch;
    size_t T, D, Q = 0, KV = 0, F = 0, L, widest, V, convs = 0;
    int i;
    *out = s;
    if (!m || !desc || m->desc.vocab_only || desc->n_ctx < 0 || desc->chunk < 0 || desc->threads < 0
        || desc->threads > FLASH_THREADS_MAX || desc->n_ctx > FLASH_CONTEXT_MAX
        || !flash__kv_type_ok(desc->kv, m->arch.d_head)
        || !desc->host.allocator.acquire != !desc->host.allocator.release
        || !flash__sampler_ok(m, &desc->sampler))
        return 0;
    arch = &m->arch;
    memset(&plan, 0, sizeof plan);
    plan.m = m;
    plan.desc = *desc;
    if (!desc->host.allocator.acquire) plan.desc.host.allocator = m->desc.host.allocator;
    if (!desc->host.parallel_for && !desc->host.clock && !desc->host.log && !desc->host.progress) {
        flash_allocator own = plan.desc.host.allocator;
        plan.desc.host = m->desc.host;
        plan.desc.host.allocator = own;
    }
    plan.n_ctx = desc->n_ctx ? desc->n_ctx : FLASH__MIN(arch->n_ctx, 4096);
    plan.chunk = FLASH__MIN(desc->chunk ? desc->chunk : FLASH__CHUNK, plan.n_ctx);
    plan.slots = FLASH__MAX(desc->threads, 1);
    plan.slice = 1;
    T = (size_t)plan.chunk;
    D = (size_t)arch->d_model;
    L = (size_t)arch->n_layer;
    V = (size_t)arch->n_vocab;
    for (i = 0; i < arch->n_layer; i++) {
        Q = FLASH__MAX(Q, (size_t)flash__dim(arch, arch->layer + i, FLASH__DIM_Q));
        KV = FLASH__MAX(KV, (size_t)flash__dim(arch, arch->layer + i, FLASH__DIM_KV));
        F = FLASH__MAX(F, (size_t)arch->layer[i].d_ffn);
        if (arch->layer[i].attention == FLASH_ATTENTION_CONV)
            convs = 2 * (size_t)(arch->conv_length - 1);
    }
    widest = FLASH__MAX(D, Q);
    /* the products below fit, on 32-bit machines too */
    if (FLASH__MAX(3 * widest, FLASH__MAX(F, desc->all_logits ? V : 0)) > SIZE_MAX / 4 / T)
        return 0;
    plan.ids = (int32_t *)flash__take(a, (size_t)plan.n_ctx, 4);
    plan.k = (uint8_t **)flash__take(a, L, sizeof *plan.k);
    plan.v = (uint8_t **)flash__take(a, L, sizeof *plan.v);
    plan.conv = (float **)flash__take(a, L, sizeof *plan.conv);
    plan.blocks = (int *)flash__take(a, L, sizeof *plan.blocks);
    plan.from = (int *)flash__take(a, L, sizeof *plan.from);
    plan.x = (float *)flash__take(a, T * D, 4);
    plan.h = (float *)flash__take(a, T * widest, 4);
    plan.q = (float *)flash__take(a, T * (convs ? FLASH__MAX(widest, 3 * D) : widest), 4);
    plan.kk = (float *)flash__take(a, T * KV, 4);
    plan.vv = (float *)flash__take(a, T * KV, 4);
    plan.gate = (float *)flash__take(a, T * F, 4);
    plan.up = (float *)flash__take(a, T * F, 4);
    plan.rope = (float *)flash__take(a, T * (size_t)arch->rope_dims, 4);
    plan.span = (float *)flash__take(
        a, ((size_t)plan.n_ctx / 64 / FLASH__SPAN + 1) * (Q + 2 * Q / (size_t)arch->d_head), 4);
    plan.q8 = (flash__q8 *)flash__take(a, T * (FLASH__MAX(widest, F) / 32), sizeof *plan.q8);
    plan.logits = (float *)flash__take(a, desc->all_logits ? T * V : V, 4);
    plan.candidate = (flash__candidate *)flash__take(a, V, sizeof *plan.candidate);
    if (desc->sampler.grammar) plan.match = flash__reading_plan(m, a);
    plan.stop_max = FLASH__MAX(flash__stops_longest(&desc->sampler), stop_max);
    plan.text_cap = flash_token_bytes_max(m) + plan.stop_max + 16;
    plan.text = (char *)flash__take(a, plan.text_cap, 1);
    plan.piece = (char *)flash__take(a, plan.text_cap, 1);
    plan.work_bytes = flash__work_bytes(m, FLASH__MAX(widest, F));
    plan.work = (uint8_t *)flash__take(a, (size_t)plan.slots, plan.work_bytes);
    for (i = 0; i < arch->n_layer; i++) {
        const flash_layer *l = arch->layer + i;
        int blocks = flash__kv_blocks(l, plan.n_ctx, plan.chunk);
        size_t bytes = (size_t)blocks * flash__kv_block(desc->kv, arch->d_head);
        uint8_t *k = (uint8_t *)flash__take(a, l->n_kv_head, bytes);
        uint8_t *v = (uint8_t *)flash__take(a, l->n_kv_head, bytes);
        float *conv = (float *)flash__take(a, l->attention == FLASH_ATTENTION_CONV ? convs : 0,
                                           D * 4);
        if (a->base) {
            plan.k[i] = k;
            plan.v[i] = v;
            plan.conv[i] = conv;
            plan.blocks[i] = blocks;
        }
    }
    if (s) *s = plan;
    return a->used != SIZE_MAX;
}

FLASH_API size_t flash_session_memory(const flash_model *m, const flash_session_desc *desc)
{
    flash__arena a = {NULL, 0};
    flash_session *none;
    return flash__session_plan(&none, m, desc, 0, &a) ? a.used : 0;
}

/* Returns the first position whose keys and values layer il still holds. */
static int flash__kept(const flash_session *s, int il)
{
    int block = (s->high - 1) / 64 - s->blocks[il] + 1;
    return FLASH__MAX(s->high && block > 0 ? 64 * block : 0, s->from[il]);
}

/* Marks the KV cache as empty, before work begins at position 0 again. */
static void flash__forget(flash_session *s)
{
    s->high = 0;
    memset(s->from, 0, (size_t)s->m->arch.n_layer * sizeof *s->from);
}

/* Makes the text that the grammar must match begin after the last token fed. */
static void flash__text_begins(flash_session *s)
{
    s->text_at = s->fed;
    s->text_fresh = !s->detok.begun && s->m->vocab.space_prefix;
    s->sampled = -1;
    if (s->match) s->match->at = -1;
}

/* Returns the state of the grammar after the text so far, or NULL if there is no grammar. */
static flash__reading *flash__text_state(flash_session *s)
{
    flash__reading *t = s->match;
    if (!t || !s->desc.sampler.grammar) return NULL;
    if (t->at < 0) {
        flash__reading_start(t, s->desc.sampler.grammar, s->text_fresh);
        t->at = s->text_at;
    }
    for (; t->at < s->fed && !t->stuck; t->at++) {
        int state = flash__read_token(t, s->m, s->ids[t->at]);
        if (state < 0)
            t->stuck = 1;
        else
            t->now = state;
    }
    return t;
}

FLASH_API void flash_session_reset(flash_session *s)
{
    if (!s) return;
    s->pos = s->fed = s->run = s->have_logits = s->ended = s->last_n = s->begin = 0;
    flash__forget(s);
    s->cancel = 0;
    s->text_n = 0;
    s->random = s->desc.sampler.seed ? s->desc.sampler.seed : 1;
    memset(&s->detok, 0, sizeof s->detok);
    flash__text_begins(s);
}

static flash_status flash__session_new(flash_session **out, const flash_model *m,
                                       const flash_session_desc *desc, size_t stop_max)
{
    flash__arena a = {NULL, 0};
    const flash_allocator *alloc;
    size_t block;
    if (!out) return FLASH_E_ARGUMENT;
    *out = NULL;
    if (!flash__session_plan(out, m, desc, stop_max, &a)) return FLASH_E_ARGUMENT;
    alloc = desc->host.allocator.acquire ? &desc->host.allocator : &m->desc.host.allocator;
    block = a.used;
    a.used = 0;
    a.base = (uint8_t *)flash__acquire(alloc, block);
    if (!a.base) return FLASH_E_MEMORY;
    flash__session_plan(out, m, desc, stop_max, &a);
    (*out)->block = block;
    flash_session_reset(*out);
    if (!(*out)->desc.host.parallel_for) flash__pool_start(&(*out)->pool, (*out)->slots - 1);
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_session_create(flash_session **out, const flash_model *m,
                                            const flash_session_desc *desc)
{
    return flash__session_new(out, m, desc, 0);
}

FLASH_API void flash_session_free(flash_session *s)
{
    flash_allocator a;
    if (!s) return;
    if (!s->desc.host.parallel_for) flash__pool_end(&s->pool);
    a = s->desc.host.allocator;
    flash__release(&a, s, s->block);
}

FLASH_API flash_status flash_session_feed(flash_session *s, const int32_t *ids, size_t n)
{
    size_t i;
    if (!s || (!ids && n)) return FLASH_E_ARGUMENT;
    if (n > (size_t)(s->n_ctx - s->fed)) return FLASH_E_RANGE;
    for (i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->m->arch.n_vocab) return FLASH_E_ARGUMENT;
    if (n) {
        memcpy(s->ids + s->fed, ids, n * sizeof *ids);
        /* text after text continues it, so that its leading space is shown */
        s->detok.begun = ids[n - 1] != s->m->vocab.bos && !flash_token_is_control(s->m, ids[n - 1]);
    }
    s->fed += (int)n;
    s->ended = 0;
    if (n == 1 && *ids == s->sampled && !flash_token_is_end(s->m, *ids))
        s->sampled = -1;
    else if (n)
        flash__text_begins(s);
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_session_feed_text(flash_session *s, const char *text, unsigned flags)
{
    size_t n;
    flash_status status;
    if (!s || !text) return FLASH_E_ARGUMENT;
    if (s->fed) flags |= FLASH_TEXT_CONTINUE;
    status = flash_tokenize(s->m, text, strlen(text), flags | FLASH__NO_EOS, s->ids + s->fed,
                            (size_t)(s->n_ctx - s->fed), &n);
    if (status) return status;
    s->fed += (int)n;
    s->ended = 0;
    /* what follows continues the text, so that its leading space is shown */
    if (*text) s->detok.begun = 1;
    flash__text_begins(s);
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_session_step(flash_session *s, const flash_budget *budget)
{
    return s ? flash__forward(s, budget) : FLASH_E_ARGUMENT;
}

FLASH_API int32_t flash_session_sample(flash_session *s)
{
    const float *logits = flash_session_logits(s);
    if (!logits) return -1;
    s->sampled = flash__sample(s->m, &s->desc.sampler, logits, s->ids, s->fed, &s->random,
                               s->candidate, flash__text_state(s));
    return s->sampled;
}

/* Returns how much of the held text can be handed out [B]: all before a stop string, in which case
 *stopped becomes 1, or else all before the first place where a stop string may have begun. */
static size_t flash__sure_text(const flash_session *s, int *stopped)
{
    const flash_sampler *p = &s->desc.sampler;
    size_t at, n;
    int i;
    for (at = 0; at < s->text_n; at++) {
        int half = 0; /* 1: the held text ends inside of what may be a stop string */
        for (i = 0; i < p->n_stop; i++) {
            n = strlen(p->stop[i]);
            if (memcmp(s->text + at, p->stop[i], FLASH__MIN(n, s->text_n - at))) continue;
            if (n <= s->text_n - at) {
                *stopped = 1;
                return at;
            }
            half = 1;
        }
        if (half) return at;
    }
    return s->text_n;
}

/* Moves the first n bytes of the held text to the piece, whose text stays valid until the next. */
static void flash__hand_out(flash_session *s, size_t n, flash_piece *piece)
{
    memcpy(s->piece, s->text, n);
    s->piece[n] = 0;
    memmove(s->text, s->text + n, s->text_n - n);
    s->text_n -= n;
    piece->text = s->piece;
    piece->bytes = n;
}

/* Ends the text: hands out what is still held back as a last piece of token -1, or returns `why` if
   nothing is held back. */
static flash_status flash__last_piece(flash_session *s, flash_status why, flash_piece *piece)
{
    size_t n = 0;
    if (s->m->vocab.kind != FLASH__VOCAB_NONE)
        flash_detokenize_next(s->m, &s->detok, -1, 0, s->text + s->text_n, s->text_cap - s->text_n,
                              &n);
    s->text_n += n;
    if (!s->text_n) return why;
    piece->token = -1;
    flash__hand_out(s, s->text_n, piece);
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_session_next(flash_session *s, const flash_budget *budget,
                                          flash_piece *piece)
{
    flash_status status;
    int stopped = 0;
    size_t n = 0;
    if (!s || !piece) return FLASH_E_ARGUMENT;
    if (s->ended) return FLASH_END_OF_TEXT;
    if (!s->fed) {
        int32_t bos = s->m->vocab.bos;
        if (bos < 0) return FLASH_E_ARGUMENT;
        if ((status = flash_session_feed(s, &bos, 1)) != 0) return status;
    }
    do status = flash__forward(s, budget);
    while (status == FLASH_MORE && s->desc.all_logits && !budget);
    if (status) return status;
    if (!s->have_logits) return FLASH_E_ARGUMENT;
    if (s->fed == s->n_ctx) return flash__last_piece(s, FLASH_E_RANGE, piece);
    piece->token = flash_session_sample(s);
    s->sampled = -1;
    if (piece->token < 0 && (s->match->stuck || !s->match->place[s->match->now].ends))
        return flash__last_piece(s, FLASH_E_GRAMMAR, piece);
    if (piece->token < 0 || flash_token_is_end(s->m, piece->token)) {
        s->ended = 1;
        return flash__last_piece(s, FLASH_END_OF_TEXT, piece);
    }
    s->ids[s->fed++] = piece->token;
    if (s->m->vocab.kind != FLASH__VOCAB_NONE)
        flash_detokenize_next(s->m, &s->detok, piece->token, 0, s->text + s->text_n,
                              s->text_cap - s->text_n, &n);
    s->text_n += n;
    n = flash__sure_text(s, &stopped);
    flash__hand_out(s, n, piece);
    if (stopped) {
        s->ended = 1;
        s->text_n = 0;
        if (!n) return FLASH_END_OF_TEXT;
    }
    return FLASH_E_NONE;
}

FLASH_API const float *flash_session_logits(const flash_session *s)
{
    if (!s || !s->have_logits || s->pos != s->fed) return NULL;
    return s->desc.all_logits ? s->logits + (size_t)(s->last_n - 1) * (size_t)s->m->arch.n_vocab
                              : s->logits;
}

FLASH_API const float *flash_session_chunk_logits(const flash_session *s, int *first, int *n)
{
    if (!s || !s->desc.all_logits || !s->have_logits || s->run || !s->last_n || !first || !n)
        return NULL;
    *first = s->last;
    *n = s->last_n;
    return s->logits;
}

FLASH_API int flash_session_position(const flash_session *s) { return s ? s->pos : 0; }
FLASH_API int flash_session_pending(const flash_session *s) { return s ? s->fed - s->pos : 0; }
FLASH_API double flash_session_progress(const flash_session *s)
{
    double layers;
    if (!s || s->pos == s->fed) return 1;
    layers = (double)s->layer / (s->m->arch.n_layer + 1); /* the head counts as a layer */
    return (s->pos - s->begin + s->run * layers) / (s->fed - s->begin);
}
FLASH_API int flash_session_capacity(const flash_session *s) { return s ? s->n_ctx : 0; }
FLASH_API const int32_t *flash_session_tokens(const flash_session *s) { return s ? s->ids : NULL; }

FLASH_API flash_status flash_session_truncate(flash_session *s, int position)
{
    const flash_layer *l;
    int i;
    if (!s || position < 0 || position > s->pos) return FLASH_E_ARGUMENT;
    for (i = 0; position && position < s->pos + s->run && i < s->m->arch.n_layer; i++) {
        l = s->m->arch.layer + i;
        if (l->attention == FLASH_ATTENTION_CONV && position < s->pos) return FLASH_E_RANGE;
        if (l->n_head && flash__sees(l, position) < flash__kept(s, i)) return FLASH_E_RANGE;
    }
    if (!position) flash__forget(s);
    s->pos = s->fed = s->begin = position;
    s->run = s->have_logits = s->ended = s->last_n = 0;
    s->text_n = 0;
    memset(&s->detok, 0, sizeof s->detok);
    s->detok.begun = position > 1;
    s->sampled = -1;
    if (position <= s->text_at)
        flash__text_begins(s);
    else if (s->match)
        s->match->at = -1; /* the grammar reads the rest of the text anew */
    return FLASH_E_NONE;
}

FLASH_API void flash_session_cancel(flash_session *s)
{
    if (s) s->cancel = 1;
}

FLASH_API flash_status flash_session_sampler(flash_session *s, const flash_sampler *sampler)
{
    if (!s || !sampler || !flash__sampler_ok(s->m, sampler)
        || flash__stops_longest(sampler) > s->stop_max || (sampler->grammar && !s->match))
        return FLASH_E_ARGUMENT;
    s->desc.sampler = *sampler;
    s->random = sampler->seed ? sampler->seed : 1;
    flash__text_begins(s);
    return FLASH_E_NONE;
}

/* ===== >>state ============================================================ */

/* The state of a session as bytes: a header of twelve 64-bit words, the last of which is a checksum
   of the others; the tokens; the logits; for each layer the part of the KV cache and of the
   convolution state that it still holds; the held text; zeros up to whole words; a checksum of all
   after the header. Numbers are little-endian, and of a cache block only the positions in use are
   stored: the layout does not depend on the machine, on n_ctx or on the chunk. Later versions
   will leave the mark, the version and the header's checksum where they are. One walk counts,
   writes, checks and reads, so that all four agree. A chunk under way is not saved: its tokens
   are saved as queued. */

#define FLASH__STATE_MARK 0x7365736873616c66u /* "flashses" */
enum { FLASH__STATE_VERSION = 1, FLASH__STATE_HEAD = 96, FLASH__STATE_ROOM = 2048 };

typedef struct flash__state {
    int (*write)(void *user, const void *data, size_t bytes); /* NULL: counts, or reads data */
    void *user;
    const uint8_t *data;  /* NULL: counts, or writes */
    uint64_t at, end;     /* offset reached [B]; offset of the last checksum in data [B] */
    uint64_t sum;         /* checksum of what was written */
    size_t used;          /* bytes waiting in room */
    int failed;           /* 1: write failed, data ends too early or a layer's range is wrong */
    int pos, fed, logits; /* as in the session; 1: logits are included */
    size_t text_n;        /* bytes of held text */
    uint8_t room[FLASH__STATE_ROOM + 8];
} flash__state;

/* Writes n items of 1, 2 or 4 bytes from p, or reads them into p. If p is NULL, or if st neither
   writes nor reads, only the offset moves on. */
static void flash__state_move(flash__state *st, void *p, size_t n, size_t item)
{
    uint8_t *x = (uint8_t *)p, *y;
    uint32_t v;
    uint16_t h;
    size_t i, take;
    st->at += n * item;
    if (st->data && (st->failed || st->at > st->end)) {
        st->failed = 1;
        return;
    }
    for (; x && (st->write || st->data) && n; n -= take, x += take * item) {
        take = st->write ? FLASH__MIN(n, (FLASH__STATE_ROOM + 7 - st->used) / item) : n;
        y = st->room + st->used;
        if (st->data) {
            const uint8_t *from = st->data + (size_t)(st->at - n * item);
            for (i = 0; item == 1 && i < n; i++) x[i] = from[i];
            for (i = 0; item == 2 && i < n; i++) {
                h = (uint16_t)flash__rd16(from + 2 * i);
                memcpy(x + 2 * i, &h, 2);
            }
            for (i = 0; item == 4 && i < n; i++) {
                v = flash__rd32(from + 4 * i);
                memcpy(x + 4 * i, &v, 4);
            }
            continue;
        }
        for (i = 0; item == 1 && i < take; i++) y[i] = x[i];
        for (i = 0; item == 2 && i < take; i++, y += 2) {
            memcpy(&h, x + 2 * i, 2);
            y[0] = (uint8_t)h;
            y[1] = (uint8_t)(h >> 8);
        }
        for (i = 0; item == 4 && i < take; i++) {
            memcpy(&v, x + 4 * i, 4);
            flash__wr32(y + 4 * i, v);
        }
        st->used += take * item;
        if (st->used < FLASH__STATE_ROOM) continue;
        st->sum = flash__sum_words(st->sum, st->room, FLASH__STATE_ROOM / 8);
        st->failed = st->failed || st->write(st->user, st->room, FLASH__STATE_ROOM);
        st->used -= FLASH__STATE_ROOM;
        memmove(st->room, st->room + FLASH__STATE_ROOM, st->used);
    }
}

/* Moves the first n positions of a block of keys (turned 1) or values (turned 0), whose layout
   flash__kv_store describes. C: width of a head. If block is NULL, only the offset moves on. */
static void flash__state_block(flash__state *st, flash_type kv, uint8_t *block, size_t C, size_t n,
                               int turned)
{
    size_t item = kv == FLASH_TYPE_F32 ? 4
        : kv == FLASH_TYPE_F16         ? 2
                                       : 1,
           i, groups = kv == FLASH_TYPE_Q8_0 ? C / (size_t)flash__kv_group((int)C) : 0;
    uint8_t *scales = block ? block + 64 * C : NULL;
    if (!turned || n == 64) {
        flash__state_move(st, block, n * C, item);
        flash__state_move(st, scales, n * groups, 2);
        return;
    }
    for (i = 0; i < C; i++) flash__state_move(st, block ? block + 64 * i * item : NULL, n, item);
    for (i = 0; i < groups; i++) flash__state_move(st, scales ? scales + 128 * i : NULL, n, 2);
}

/* Moves the convolution state, keys and values of layer il. Keys and values are preceded by the
   first position that they hold. touch 0: they are only counted or checked. */
static void flash__state_layer(flash__state *st, const flash_session *s, int il, int touch)
{
    const flash_layer *l = s->m->arch.layer + il;
    int first = flash__kept(s, il), blocks = s->blocks[il], b, h, last, n;
    size_t C = (size_t)s->m->arch.d_head, D = (size_t)s->m->arch.d_model,
           bytes = flash__kv_block(s->desc.kv, (int)C);
    uint32_t word = (uint32_t)first;
    if (l->attention == FLASH_ATTENTION_CONV) {
        n = FLASH__MIN(s->m->arch.conv_length - 1, st->pos);
        flash__state_move(st,
                          touch ? s->conv[il]
                                  + (size_t)((s->side + 1) * (s->m->arch.conv_length - 1) - n) * D
                                : NULL,
                          (size_t)n * D, 4);
    }
    if (!l->n_kv_head) return;
    flash__state_move(st, &word, 1, 4);
    first = (int)word;
    if (st->failed || word > (uint32_t)flash__sees(l, st->pos) || first % 64) {
        st->failed = 1;
        return;
    }
    if (st->data && touch) s->from[il] = first;
    last = (st->pos - 1) / 64;
    for (h = 0; st->pos && h < l->n_kv_head; h++)
        for (b = first / 64; b <= last; b++) { /* in order: a smaller ring keeps the last ones */
            size_t at = (size_t)(h * blocks + b % blocks) * bytes;
            n = FLASH__MIN(st->pos - 64 * b, 64);
            flash__state_block(st, s->desc.kv, touch ? s->k[il] + at : NULL, C, (size_t)n, 1);
            flash__state_block(st, s->desc.kv, touch ? s->v[il] + at : NULL, C, (size_t)n, 0);
        }
}

/* Moves all that lies between the two checksums. touch 0: it is only counted or checked. */
static void flash__state_walk(flash__state *st, const flash_session *s, int touch)
{
    size_t V = (size_t)s->m->arch.n_vocab;
    int i;
    flash__state_move(st, touch ? s->ids : NULL, (size_t)st->fed, 4);
    if (st->logits)
        flash__state_move(
            st,
            touch ? s->logits + (s->desc.all_logits && s->last_n ? (size_t)(s->last_n - 1) * V : 0)
                  : NULL,
            V, 4);
    for (i = 0; i < s->m->arch.n_layer; i++) flash__state_layer(st, s, i, touch);
    flash__state_move(st, touch ? s->text : NULL, st->text_n, 1);
}

/* Returns the checksum with a sample of n tensors added: of a matrix its type, shape and 64 bytes
   from the middle, of a vector its length and middle number. base: struct to which the offsets in
   the rules refer. */
static uint64_t flash__sum_tensors(uint64_t sum, const flash_model *m,
                                   const flash__tensor_rule *rule, size_t n, const flash_layer *l,
                                   const void *base)
{
    const uint8_t *at;
    const float *v;
    flash__mat w;
    size_t i, k;
    for (i = 0; i < n; i++, rule++) {
        at = (const uint8_t *)base + rule->at;
        if (rule->matrix) {
            memcpy(&w, at, sizeof w);
            if (!w.data) continue;
            k = (size_t)w.rows * w.row_bytes / 8;
            sum = flash__sum_word(
                sum, (uint64_t)w.type << 56 | (uint64_t)w.rows << 28 | (uint64_t)w.cols);
            sum = flash__sum_words(sum, w.data + k / 2 * 8 - FLASH__MIN(k / 2, 4) * 8,
                                   FLASH__MIN(k, 8));
        } else {
            memcpy(&v, at, sizeof v);
            if (!v) continue;
            k = (size_t)(flash__dim(&m->arch, l, rule->rows) * flash__dim(&m->arch, l, rule->cols));
            sum = flash__sum_word(sum, (uint64_t)k << 32 | flash__f32_bits(v[k / 2]));
        }
    }
    return sum;
}

/* Returns a checksum of all that the results of a session depend on: the architecture and a sample
   of each tensor. It reads only about one page of each matrix, so it is computed anew each time. */
static uint64_t flash__fingerprint(const flash_model *m)
{
    const flash_arch *a = &m->arch;
    const int ints[] = {a->n_layer,           a->d_model,      a->d_head,
                        a->n_vocab,           a->tied,         a->rope_dims,
                        a->rope_style,        a->rope_scaling, a->rope_n_ctx,
                        a->activation,        a->conv_length,  a->qk_norm,
                        a->temperature_n_ctx, m->vocab.kind,   m->vocab.bos};
    const float floats[] = {a->norm_eps,         a->rope_base,      a->rope_factor,
                            a->rope_attn_factor, a->rope_beta_fast, a->rope_beta_slow,
                            a->rope_low_freq,    a->rope_high_freq, a->attention_scale,
                            a->embedding_scale,  a->logit_cap};
    uint64_t sum = 1;
    size_t i;
    for (i = 0; a->name[i]; i++) sum = flash__sum_word(sum, (uint8_t)a->name[i]);
    for (i = 0; i < FLASH__COUNT(ints); i++) sum = flash__sum_word(sum, (uint32_t)ints[i]);
    for (i = 0; i < FLASH__COUNT(floats); i++)
        sum = flash__sum_word(sum, flash__f32_bits(floats[i]));
    sum = flash__sum_tensors(sum, m, flash__root_rules, FLASH__COUNT(flash__root_rules), a->layer,
                             &m->root);
    for (i = 0; i < (size_t)a->n_layer; i++) {
        const flash_layer *l = a->layer + i;
        sum = flash__sum_word(sum,
                              (uint64_t)l->attention << 40 | (uint64_t)l->rope_plain << 32
                                  | (uint64_t)l->n_head << 16 | l->n_kv_head);
        sum = flash__sum_word(sum, (uint64_t)(uint32_t)l->d_ffn << 32 | (uint32_t)l->window);
        sum = flash__sum_word(sum, flash__f32_bits(l->rope_base));
        sum = flash__sum_tensors(sum, m, flash__layer_rules, FLASH__COUNT(flash__layer_rules), l,
                                 m->layer + i);
    }
    return sum;
}

/* Prepares st for counting or writing the state of s. */
static void flash__state_of(flash__state *st, const flash_session *s)
{
    memset(st, 0, sizeof *st);
    st->pos = s->pos;
    st->fed = s->fed;
    st->logits = flash_session_logits(s) != NULL;
    st->text_n = s->text_n;
    st->at = FLASH__STATE_HEAD;
}

/* Returns the size of a state [B] whose text ends at offset `at`: whole words and a checksum. */
static uint64_t flash__state_size(uint64_t at) { return (at + 7) / 8 * 8 + 8; }

FLASH_API uint64_t flash_session_save_bytes(const flash_session *s)
{
    flash__state st;
    if (!s) return 0;
    flash__state_of(&st, s);
    flash__state_walk(&st, s, 0);
    return flash__state_size(st.at);
}

FLASH_API flash_status flash_session_save(const flash_session *s,
                                          int (*write)(void *user, const void *data, size_t bytes),
                                          void *user)
{
    flash__state st;
    uint8_t head[FLASH__STATE_HEAD];
    if (!s || !write) return FLASH_E_ARGUMENT;
    flash__state_of(&st, s);
    flash__wr64(head, FLASH__STATE_MARK);
    flash__wr64(head + 8, FLASH__STATE_VERSION);
    flash__wr64(head + 16, flash__fingerprint(s->m));
    flash__wr64(head + 24, (uint64_t)s->desc.kv);
    flash__wr64(head + 32, (uint64_t)st.pos);
    flash__wr64(head + 40, (uint64_t)st.fed);
    flash__wr64(head + 48, st.text_n);
    flash__wr64(head + 56, s->random);
    memcpy(head + 64, s->detok.held, 4);
    head[68] = s->detok.n_held;
    head[69] = s->detok.begun;
    head[70] = (uint8_t)s->ended;
    head[71] = (uint8_t)st.logits;
    flash__wr64(head + 72, flash_session_save_bytes(s));
    flash__wr64(head + 80, (uint64_t)(uint32_t)s->text_at | (uint64_t)(s->text_fresh != 0) << 32);
    flash__wr64(head + 88, flash__sum_words(0, head, 11));
    if (write(user, head, sizeof head)) return FLASH_E_IO;
    st.write = write;
    st.user = user;
    flash__state_walk(&st, s, 1);
    for (; st.used % 8; st.used++) st.room[st.used] = 0;
    st.sum = flash__sum_words(st.sum, st.room, st.used / 8);
    flash__wr64(head, st.sum);
    return st.failed || (st.used && write(user, st.room, st.used)) || write(user, head, 8)
        ? FLASH_E_IO
        : FLASH_E_NONE;
}

/* Prepares st for reading the file and checks all of the state in it. Nothing is read into s. */
static flash_status flash__state_check(flash__state *st, const flash_session *s,
                                       const flash__file *f, flash_error *err)
{
    const uint8_t *p = f->data;
    uint8_t mark[8];
    uint64_t bytes, pos, fed, text;
    size_t i;
    flash__wr64(mark, FLASH__STATE_MARK);
    if (memcmp(p, mark, FLASH__MIN(f->size, 8)))
        return flash__fail(err, FLASH_E_FORMAT, 0, "this is no state of a session");
    if (f->size < FLASH__STATE_HEAD)
        return flash__fail(err, FLASH_E_TRUNCATED, f->size, "the state ends in its head");
    if (flash__rd64(p + 88) != flash__sum_words(0, p, 11))
        return flash__fail(err, FLASH_E_FORMAT, 0, "the state's head is damaged");
    if (flash__rd64(p + 8) != FLASH__STATE_VERSION)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 8, "a state of version %u, known is %i",
                           flash__rd64(p + 8), (int)FLASH__STATE_VERSION);
    if (flash__rd64(p + 16) != flash__fingerprint(s->m))
        return flash__fail(err, FLASH_E_ARGUMENT, 16, "the state is of another model");
    if (flash__rd64(p + 24) != (uint64_t)s->desc.kv)
        return flash__fail(err, FLASH_E_ARGUMENT, 24,
                           "keys and values of the state are of type "
                           "%u, the session's are %s",
                           flash__rd64(p + 24), flash_type_name(s->desc.kv));
    pos = flash__rd64(p + 32);
    fed = flash__rd64(p + 40);
    text = flash__rd64(p + 48);
    bytes = flash__rd64(p + 72);
    if (fed > (uint64_t)s->n_ctx)
        return flash__fail(err, FLASH_E_RANGE, 40, "the state has %u tokens, the session holds %i",
                           fed, s->n_ctx);
    if (text > s->stop_max)
        return flash__fail(err, FLASH_E_ARGUMENT, 48,
                           "the state holds back %u bytes for its stop "
                           "strings, the session's have at most %u",
                           text, (uint64_t)s->stop_max);
    if (f->size < bytes)
        return flash__fail(err, FLASH_E_TRUNCATED, f->size, "the state has %u bytes of %u",
                           (uint64_t)f->size, bytes);
    if (f->size > bytes || bytes % 8 || bytes < FLASH__STATE_HEAD + 8
        || flash__rd64(p + bytes - 8)
            != flash__sum_words(0, p + FLASH__STATE_HEAD,
                                (size_t)(bytes - FLASH__STATE_HEAD - 8) / 8))
        return flash__fail(err, FLASH_E_FORMAT, 0, "the state is damaged: its sum is wrong");
    /* a forged state can have the right checksum, so each value is checked as well */
    memset(st, 0, sizeof *st);
    st->data = p;
    st->at = FLASH__STATE_HEAD;
    st->end = bytes - 8;
    st->pos = (int)FLASH__MIN(pos, fed);
    st->fed = (int)fed;
    st->logits = p[71];
    st->text_n = (size_t)text;
    flash__state_walk(st, s, 0);
    if (st->failed || flash__state_size(st->at) != bytes || pos > fed || p[68] > 3 || p[69] > 1
        || p[70] > 1 || p[71] > 1 || flash__rd32(p + 80) > fed || flash__rd32(p + 84) > 1
        || (p[71] && (pos != fed || !pos)))
        return flash__fail(err, FLASH_E_FORMAT, 0, "the state contradicts itself");
    for (i = 0; i < fed; i++)
        if (flash__rd32(p + FLASH__STATE_HEAD + 4 * i) >= (uint32_t)s->m->arch.n_vocab)
            return flash__fail(err, FLASH_E_FORMAT, FLASH__STATE_HEAD + 4 * i,
                               "the state has a token that is not in the vocabulary");
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_session_restore(flash_session *s, const flash_source *source,
                                             flash_error *err)
{
    flash__state st;
    flash__file f;
    flash_status status;
    if (!s || !source) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no session or no source");
    status = flash__file_open(&f, source, &s->desc.host, err);
    if (status) return status;
    status = flash__state_check(&st, s, &f, err);
    if (!status) {
        const uint8_t *p = f.data;
        s->side = 0;
        s->run = s->last_n = 0;
        st.at = FLASH__STATE_HEAD;
        flash__state_walk(&st, s, 1);
        s->pos = s->high = s->begin = st.pos;
        s->fed = st.fed;
        s->random = flash__rd64(p + 56);
        memcpy(s->detok.held, p + 64, 4);
        s->detok.n_held = p[68];
        s->detok.begun = p[69];
        s->ended = p[70];
        s->text_at = (int)flash__rd32(p + 80);
        s->text_fresh = (int)flash__rd32(p + 84);
        s->sampled = -1;
        if (s->match) s->match->at = -1;
        s->have_logits = st.logits;
        s->last = st.pos - 1;
        s->last_n = st.logits;
        s->text_n = st.text_n;
    }
    flash__file_close(&f, &s->desc.host);
    return status;
}

FLASH_API flash_status flash_session_fork(flash_session **out, const flash_session *s)
{
    flash_session *t;
    flash_status status;
    int i, h, b;
    if (!out) return FLASH_E_ARGUMENT;
    *out = NULL;
    if (!s) return FLASH_E_ARGUMENT;
    status = flash__session_new(&t, s->m, &s->desc, s->stop_max);
    if (status) return status;
    t->pos = s->pos;
    t->fed = s->fed;
    t->begin = s->begin;
    t->high = s->high;
    t->side = s->side;
    t->last = s->last;
    t->last_n = s->last_n;
    t->have_logits = s->pos == s->fed && s->have_logits;
    t->ended = s->ended;
    t->random = s->random;
    t->detok = s->detok;
    t->text_n = s->text_n;
    t->text_at = s->text_at;
    t->text_fresh = s->text_fresh;
    t->sampled = s->sampled;
    if (t->match) t->match->at = -1; /* the grammar reads the text anew */
    memcpy(t->from, s->from, (size_t)s->m->arch.n_layer * sizeof *s->from);
    memcpy(t->ids, s->ids, (size_t)s->fed * sizeof *s->ids);
    memcpy(t->text, s->text, s->text_n);
    if (t->have_logits)
        memcpy(t->logits, s->logits,
               (s->desc.all_logits ? (size_t)s->last_n : 1) * (size_t)s->m->arch.n_vocab
                   * sizeof *s->logits);
    for (i = 0; i < s->m->arch.n_layer; i++) {
        const flash_layer *l = s->m->arch.layer + i;
        size_t bytes = flash__kv_block(s->desc.kv, s->m->arch.d_head),
               side = (size_t)(s->m->arch.conv_length - 1) * (size_t)s->m->arch.d_model;
        if (l->attention == FLASH_ATTENTION_CONV)
            memcpy(t->conv[i] + (size_t)s->side * side, s->conv[i] + (size_t)s->side * side,
                   side * sizeof **s->conv);
        for (h = 0; s->pos && h < l->n_kv_head; h++)
            for (b = flash__kept(s, i) / 64; b <= (s->pos - 1) / 64; b++) {
                size_t at = (size_t)(h * s->blocks[i] + b % s->blocks[i]) * bytes;
                memcpy(t->k[i] + at, s->k[i] + at, bytes);
                memcpy(t->v[i] + at, s->v[i] + at, bytes);
            }
    }
    *out = t;
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_session_feed_prompt(flash_session *s, const int32_t *ids, size_t n,
                                                 size_t *kept)
{
    size_t i, same = 0;
    int last_n, logits;
    if (!s || (!ids && n)) return FLASH_E_ARGUMENT;
    if (n > (size_t)s->n_ctx) return FLASH_E_RANGE;
    for (i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->m->arch.n_vocab) return FLASH_E_ARGUMENT;
    while (same < n && same < (size_t)s->pos && s->ids[same] == ids[same]) same++;
    logits = s->have_logits && same == n && s->pos == s->fed && (size_t)s->fed == n;
    last_n = s->last_n;
    if (same && same == n && !logits) same--; /* the last one is worked on again for its logits */
    if (flash_session_truncate(s, (int)same)) flash_session_truncate(s, (int)(same = 0));
    s->have_logits = logits;
    if (logits) s->last_n = last_n;
    if (kept) *kept = same;
    return flash_session_feed(s, same < n ? ids + same : ids, n - same);
}

#endif

/* ===== >>measure ========================================================== */

/* Measures how long a shape takes, on a made-up model that needs no file: the rules of >>arch say
   which matrices the shape has, and one block of memory holds them all. Their weights repeat one
   quantised pattern. The values do not matter to the time, but each matrix must have memory of its
   own. KNOWN TRAP: many systems map all memory that was never written to one page of zeros, which
   reads too fast, so keys and values are written once, too. */

#ifdef FLASH__LATENCY
enum { FLASH__PATTERN = 16384 }; /* number of weights in the pattern */

static int flash__workload_ok(const flash_workload *u)
{
    const flash_arch *a = u ? u->arch : NULL;
    const flash__arch_fact *fact = a ? flash__arch_find(a->name) : NULL;
    size_t k;
    int i, lacks = 0;
    if (!fact || a->n_layer < 1 || a->n_layer > FLASH_LAYERS_MAX || a->d_model < 1
        || a->d_model > FLASH_DIM_MAX || a->d_head < 1 || a->d_head > FLASH_HEAD_MAX
        || a->n_vocab < 1 || a->n_vocab > FLASH_VOCAB_MAX || a->rope_dims < 0
        || a->rope_dims > a->d_head || a->rope_dims & 1 || !flash_row_bytes(u->weights, 256)
        || !flash__kv_type_ok(u->kv, a->d_head) || u->threads < 0 || u->threads > FLASH_THREADS_MAX
        || u->chunk < 0 || u->prompt < 0 || u->prompt > FLASH_CONTEXT_MAX || u->position < 0
        || u->position >= FLASH_CONTEXT_MAX)
        return 0;
    for (k = 0; k < FLASH__COUNT(flash__layer_rules); k++) /* parts the architecture lacks */
        if (flash__layer_rules[k].matrix && !(flash__layer_rules[k].need & fact->bit))
            lacks |= flash__layer_rules[k].parts;
    for (i = 0; i < a->n_layer; i++) {
        const flash_layer *l = a->layer + i;
        if (l->attention > FLASH_ATTENTION_CHUNK || flash__parts(l) & lacks || l->d_ffn < 0
            || l->d_ffn > FLASH_DIM_MAX || l->window < 0
            || (int)l->n_head * a->d_head > FLASH_DIM_MAX
            || (flash__parts(l) & FLASH__HAS_KV ? !l->n_kv_head || l->n_head % l->n_kv_head
                                                : l->n_kv_head)
            || ((l->attention == FLASH_ATTENTION_CHUNK || l->attention == FLASH_ATTENTION_WINDOW)
                && !l->window)
            || (l->attention == FLASH_ATTENTION_CONV
                && (a->conv_length < 2 || a->conv_length > 64)))
            return 0;
    }
    return 1;
}

/* What the parts of a made-up model share. */
typedef struct flash__invention {
    const flash_arch *arch;
    int bit;                /* of the architecture, in flash__tensor_rule.need */
    flash_type type;        /* of all matrices */
    const float *ones;      /* as long as the longest vector; stands for each of them */
    const uint8_t *pattern; /* FLASH__PATTERN weights, quantised */
    flash__arena *arena;
} flash__invention;

/* Makes the tensors of one layer or of the root, according to n rules: sets the fields of base and
   takes the memory of matrices from the arena, or only counts it if the arena has none. Returns 0
   if the length of a row is no multiple of the type's block. */
static int flash__invent_part(const flash__invention *v, const flash_layer *l,
                              const flash__tensor_rule *rule, size_t n, void *base)
{
    size_t bytes = flash_row_bytes(v->type, FLASH__PATTERN), rows, cols, size, at;
    for (; n--; rule++) {
        void *field = (uint8_t *)base + rule->at;
        flash__mat w;
        int root = rule->parts == FLASH__HAS_ANY;
        if (root && rule->at == offsetof(flash__root, head)
                ? v->arch->tied
                : !(rule->need & v->bit) || !(root || rule->parts & flash__parts(l)))
            continue;
        if (!rule->matrix) { /* norms, biases, convolutions */
            memcpy(field, &v->ones, sizeof v->ones);
            continue;
        }
        rows = (size_t)flash__dim(v->arch, l, rule->rows);
        cols = (size_t)flash__dim(v->arch, l, rule->cols);
        size = flash_row_bytes(v->type, cols);
        if (!size) return 0;
        w.data = (uint8_t *)flash__take(v->arena, rows, size);
        if (!w.data) continue;
        w.type = v->type;
        w.rows = (int)rows;
        w.cols = (int)cols;
        w.row_bytes = size;
        memcpy(field, &w, sizeof w);
        for (at = 0; at < rows * size; at += bytes)
            memcpy((uint8_t *)(uintptr_t)w.data + at, v->pattern,
                   FLASH__MIN(bytes, rows * size - at));
    }
    return 1;
}

/* Makes the model of u in memory from the arena; *out becomes NULL while the arena only counts.
   Returns 0 if the length of a row is no multiple of the type's block. */
static int flash__invent(flash_model **out, const flash_workload *u, flash__arena *a)
{
    const flash_arch *arch = u->arch;
    flash_model *m = (flash_model *)flash__take(a, 1, sizeof *m);
    flash__layer *layer = (flash__layer *)flash__take(a, (size_t)arch->n_layer, sizeof *layer), one;
    flash__root root;
    flash__invention v;
    uint64_t state = 1;
    size_t k,
        longest = FLASH__MAX((size_t)arch->d_model * (size_t)FLASH__MAX(arch->conv_length, 1),
                             (size_t)FLASH__PATTERN);
    int i, ok;
    float *ones;
    uint8_t *pattern;
    v.arch = arch;
    v.bit = flash__arch_find(arch->name)->bit;
    for (i = 0; i < arch->n_layer; i++)
        longest = FLASH__MAX(longest, (size_t)flash__dim(arch, arch->layer + i, FLASH__DIM_Q));
    v.type = u->weights;
    v.arena = a;
    ones = (float *)flash__take(a, longest, sizeof *ones);
    pattern = (uint8_t *)flash__take(a, FLASH__PATTERN, sizeof(float));
    v.ones = ones;
    v.pattern = pattern;
    memset(&root, 0, sizeof root);
    *out = m;
    if (m) {
        for (k = 0; k < FLASH__PATTERN; k++) /* uniform, standard deviation 1/sqrt(D) */
            ones[k] = ((float)(flash__random(&state) >> 40) / 8388608.0f - 1)
                * sqrtf(3.0f / (float)arch->d_model);
        flash_quantize(v.type, ones, pattern, FLASH__PATTERN);
        for (k = 0; k < longest; k++) ones[k] = 1;
        memset(m, 0, sizeof *m);
        m->arch = *arch;
        m->layer = layer;
        m->bit = v.bit;
        m->vocab.n = (uint32_t)arch->n_vocab;
        for (i = 0; i < FLASH_HEAD_MAX; i++) m->ones[i] = 1;
    }
    ok = flash__invent_part(&v, arch->layer, flash__root_rules, FLASH__COUNT(flash__root_rules),
                            &root);
    for (i = 0; ok && i < arch->n_layer; i++) {
        memset(&one, 0, sizeof one);
        ok = flash__invent_part(&v, arch->layer + i, flash__layer_rules,
                                FLASH__COUNT(flash__layer_rules), &one);
        if (m) layer[i] = one;
    }
    if (arch->tied) root.head = root.embed;
    if (m) m->root = root;
    return ok;
}

/* Sets what has no influence on the time to values that are in range. */
static void flash__arch_plain(flash_arch *a)
{
    int i;
    a->norm_eps = 1e-5f;
    a->rope_scaling = FLASH_ROPE_PLAIN;
    a->rope_factor = a->rope_attn_factor = a->embedding_scale = 1;
    a->attention_scale = 1 / sqrtf((float)a->d_head);
    a->n_ctx = FLASH_CONTEXT_MAX;
    a->temperature_n_ctx = 0;
    a->name[sizeof a->name - 1] = 0;
    for (i = 0; i < a->n_layer; i++)
        if (a->layer[i].rope_base != 0) a->layer[i].rope_base = 10000;
}

/* Describes a session that is long enough for the prompt and the position of u. */
static void flash__workload_session(const flash_workload *u, const flash_host *host,
                                    flash_session_desc *d)
{
    memset(d, 0, sizeof *d);
    d->n_ctx = FLASH__MAX(FLASH__MAX(u->prompt, u->position + 1), 2);
    d->chunk = u->chunk;
    d->threads = u->threads;
    d->kv = u->kv;
    d->host = *host;
}

/* Returns the size of the model of u [B], and of its session in *session [B]; 0, with the reason in
   err, if u cannot be measured. The architecture has gone through flash__arch_plain. */
static size_t flash__workload_plan(const flash_workload *u, const flash_session_desc *d,
                                   flash_isa isa, size_t *session, flash_error *err)
{
    flash__arena a = {NULL, 0};
    flash_model *m, counted;
    uint8_t probe[256];
    float zeros[256];
    const char *type = flash_type_name(u->weights);
    memset(zeros, 0, sizeof zeros);
    memset(&counted, 0, sizeof counted);
    *session = 0;
    if (flash__kernels_select(&counted.k, isa))
        flash__fail(err, FLASH_E_UNSUPPORTED, 0, "instruction set %s is not available here",
                    flash_isa_name(isa));
    else if (flash_type_block(u->weights) > 1
             && flash_quantize(u->weights, zeros, probe, (size_t)flash_type_block(u->weights)))
        flash__fail(err, FLASH_E_ARGUMENT, 0, "weights of type %s cannot be made", type);
    else if (!flash__invent(&m, u, &a))
        flash__fail(err, FLASH_E_ARGUMENT, 0,
                    "a width of the shape is no multiple of %i, the "
                    "block of %s",
                    flash_type_block(u->weights), type);
    else {
        counted.arch = *u->arch;
        *session = flash_session_memory(&counted, d);
        if (*session && a.used < SIZE_MAX - *session) return a.used;
        flash__fail(err, FLASH_E_TOO_LARGE, 0, "more memory than this machine can address");
    }
    return 0;
}

static int flash__workload_check(const flash_workload *u, flash_error *err)
{
    if (flash__workload_ok(u)) return 1;
    flash__fail(err, FLASH_E_ARGUMENT, 0,
                "a shape, type or length is out of range, or the "
                "architecture has no such layers");
    return 0;
}

FLASH_API size_t flash_latency_memory(const flash_workload *work, const flash_measure_desc *desc,
                                      flash_error *err)
{
    flash_session_desc d;
    flash_workload u;
    flash_arch arch;
    flash_host none;
    size_t session, model;
    if (!flash__workload_check(work, err)) return 0;
    memset(&none, 0, sizeof none);
    u = *work;
    arch = *work->arch;
    flash__arch_plain(&arch);
    u.arch = &arch;
    flash__workload_session(&u, &none, &d);
    model = flash__workload_plan(&u, &d, desc ? desc->isa : FLASH_ISA_AUTO, &session, err);
    return model ? model + session : 0;
}

/* Returns the time [s] to work on n made-up tokens that begin at `position`, and to sample the next
   one. The KV cache before the position is taken as it is. */
static double flash__time_tokens(flash_session *s, int position, int n)
{
    double begin = flash__clock(&s->desc.host);
    int i;
    flash_session_reset(s);
    s->pos = position;
    s->fed = position + n;
    for (i = position; i < s->fed; i++)
        s->ids[i] = (int32_t)((3 + (int64_t)i * 7919 % 509) % s->m->arch.n_vocab);
    flash__forward(s, NULL);
    flash_session_sample(s);
    return flash__clock(&s->desc.host) - begin;
}

static double flash__phase_time(const flash_timing *t, int phase)
{
    return phase ? t->decode : t->prefill;
}

/* Computes the median and the spread of both phases from out->each. */
static void flash__measurement_sum_up(flash_measurement *out)
{
    double x[FLASH_LATENCY_REPEATS_MAX], v, middle[2], spread[2];
    int phase, i, j;
    for (phase = 0; phase < 2; phase++) {
        for (i = 0; i < out->n; i++) { /* insertion sort */
            v = flash__phase_time(&out->each[i], phase);
            for (j = i; j > 0 && x[j - 1] > v; j--) x[j] = x[j - 1];
            x[j] = v;
        }
        middle[phase] = v = (x[(out->n - 1) / 2] + x[out->n / 2]) / 2;
        spread[phase] = v > 0 ? (x[out->n - 1] - x[0]) / v : 0;
    }
    out->median.prefill = middle[0];
    out->median.decode = middle[1];
    out->spread.prefill = spread[0];
    out->spread.decode = spread[1];
}

FLASH_API flash_status flash_latency_measure(flash_measurement *out, const flash_workload *work,
                                             const flash_measure_desc *desc, flash_error *err)
{
    flash__arena a = {NULL, 0};
    flash_measure_desc how;
    flash_session_desc d;
    flash_workload u;
    flash_arch arch;
    flash_model *m;
    flash_session *s;
    flash_error own;
    flash_status status;
    size_t session, bytes, n;
    int i, j;
    memset(&how, 0, sizeof how);
    if (desc) how = *desc;
    if (!how.repeats) how.repeats = 5;
    if (!how.tokens) how.tokens = 8;
    if (!out || how.repeats < 0 || how.repeats > FLASH_LATENCY_REPEATS_MAX || how.tokens < 0
        || how.tokens > 4096 || !how.host.allocator.acquire != !how.host.allocator.release)
        return flash__fail(err, FLASH_E_ARGUMENT, 0,
                           "no place for the measurement, or repeats or "
                           "tokens out of range, or only one half of an allocator");
    if (!flash__workload_check(work, err)) return FLASH_E_ARGUMENT;
    u = *work;
    arch = *work->arch;
    flash__arch_plain(&arch);
    u.arch = &arch;
    flash__workload_session(&u, &how.host, &d);
    bytes = flash__workload_plan(&u, &d, how.isa, &session, err ? err : &own);
    if (!bytes) return (err ? err : &own)->status;
    if (!(flash__clock(&how.host) > 0))
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "no clock: give host.clock");
    a.base = (uint8_t *)flash__acquire(&how.host.allocator, bytes);
    if (!a.base)
        return flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the weights (%u bytes)",
                           (uint64_t)bytes);
    flash__invent(&m, &u, &a);
    flash__kernels_select(&m->k, how.isa);
    m->desc.host = how.host;
    status = flash_session_create(&s, m, &d);
    if (status) {
        flash__release(&how.host.allocator, a.base, bytes);
        return flash__fail(err, status, 0, "no memory for the session (%u bytes)",
                           (uint64_t)session);
    }
    memset(out, 0, sizeof *out);
    out->n = how.repeats;
    for (i = 0; i < arch.n_layer; i++) {
        n = arch.layer[i].n_kv_head * (size_t)s->blocks[i] * flash__kv_block(u.kv, arch.d_head);
        if (n) {
            memset(s->k[i], 0, n);
            memset(s->v[i], 0, n);
        }
    }
    if (u.prompt) flash__time_tokens(s, 0, FLASH__MIN(u.prompt, s->chunk));
    flash__time_tokens(s, u.position, 1);
    for (i = 0; i < out->n; i++) {
        flash_timing *t = &out->each[i];
        if (u.prompt) t->prefill = flash__time_tokens(s, 0, u.prompt);
        for (j = 0; j < how.tokens; j++)
            t->decode += flash__time_tokens(s, u.position, 1) / how.tokens;
    }
    flash__measurement_sum_up(out);
    flash_session_free(s);
    flash__release(&how.host.allocator, a.base, bytes);
    return FLASH_E_NONE;
}
#endif

/* ===== >>latency ========================================================== */

/* Predicts times from measurements. Columns of counted work (operations, bytes, steps), each times
   a constant of the device, add up to the counted time, as in the "Roofline" model of Williams,
   Waterman and Patterson 2009. A Gaussian process on the logarithm of measured over counted time
   adds what counting misses: caches, shapes that suit a kernel. Kennedy and O'Hagan 2001 describe
   the two together. KNOWN TRAP: where the measured shapes differ little, the columns are nearly
   multiples of each other. Negative constants would make extrapolation absurd then, so all
   constants are at least 0. */

#ifdef FLASH__LATENCY
/* Returns the mean of the function at x, and its variance without noise in *variance. x: [d] scaled
   inputs; k: [n] scratch. */
static double flash__gp_predict(const flash__gp *g, const double *x, double *k, double *variance)
{
    double w[FLASH__GP_INPUTS], sf2 = flash__gp_weights(g, w), mean, v;
    size_t i;
    for (i = 0; i < g->n; i++) k[i] = flash__gp_distance(g, w, x, g->x + i * (size_t)g->d);
    flash__gp_kernels(sf2, g->n, k, NULL);
    mean = flash__dot64(k, g->alpha, g->n);
    flash__solve_lower(g->L, k, g->n);
    v = sf2 - flash__dot64(k, k, g->n);
    *variance = FLASH__MAX(v, 1e-12 * sf2);
    return mean;
}

/* Computes the mean and the variance (noise included) that all other points predict for each point:
   Rasmussen and Williams, equation 5.12. mean, variance: [n]. */
static void flash__gp_leave_one_out(flash__gp *g, double *mean, double *variance)
{
    size_t n = g->n, i;
    flash__inverse(g->L, g->rows, g->inverse, n);
    for (i = 0; i < n; i++) {
        variance[i] = 1 / g->inverse[i * n + i];
        mean[i] = g->y[i] - g->alpha[i] * variance[i];
    }
}

/* Finds the b >= 0 that minimises |a b - y|^2 + ridge b'b, by active sets (Lawson and Hanson 1974,
   Solving Least Squares Problems, chapter 23). a: [n,m], m <= 16; y: [n]; b: [m]. */
static void flash__least_squares(const double *a, const double *y, size_t n, int m, double ridge,
                                 double *b)
{
    double H[16 * 16], h[16], L[16 * 16], z[16], slope;
    int free_[16] = {0}, order[16], i, j, k, turn, used;
    size_t r;
    for (i = 0; i < m; i++) {
        for (j = 0; j <= i; j++) {
            double s = i == j ? ridge : 0;
            for (r = 0; r < n; r++)
                s += a[r * (size_t)m + (size_t)i] * a[r * (size_t)m + (size_t)j];
            H[i * m + j] = H[j * m + i] = s;
        }
        for (h[i] = 0, r = 0; r < n; r++) h[i] += a[r * (size_t)m + (size_t)i] * y[r];
        b[i] = 0;
    }
    for (turn = 0; turn < 10 * m; turn++) {
        int enters = -1;
        double most = 1e-10;
        for (i = 0; i < m; i++) {
            slope = h[i] - flash__dot64(H + i * m, b, (size_t)m);
            if (!free_[i] && slope > most * (1 + fabs(h[i]))) {
                most = slope / (1 + fabs(h[i]));
                enters = i;
            }
        }
        if (enters < 0) return;
        free_[enters] = 1;
        for (;;) { /* solve for the free ones; those that would fall below 0 become 0 */
            double share = 1;
            for (used = i = 0; i < m; i++)
                if (free_[i]) order[used++] = i;
            for (i = 0; i < used; i++) {
                for (j = 0; j <= i; j++) L[i * used + j] = H[order[i] * m + order[j]];
                z[i] = h[order[i]];
            }
            if (!flash__cholesky(L, (size_t)used)) {
                free_[enters] = 0;
                return;
            }
            flash__solve_lower(L, z, (size_t)used);
            flash__solve_upper(L, z, (size_t)used);
            for (i = 0; i < used; i++) {
                k = order[i];
                if (z[i] <= 0) share = FLASH__MIN(share, b[k] > 0 ? b[k] / (b[k] - z[i]) : 0);
            }
            for (i = 0; i < used; i++) {
                k = order[i];
                b[k] += share * (z[i] - b[k]);
                if (share < 1 && z[i] <= 0 && b[k] <= 1e-14) {
                    b[k] = 0;
                    free_[k] = 0;
                }
            }
            if (share >= 1) break;
        }
    }
}

/* The columns of counted work. A mixer is attention, or what a layer has in its place. */
enum {
    FLASH__WORK_MIX,     /* operations in the matrices of mixers */
    FLASH__WORK_FFN,     /* operations in feed-forward parts */
    FLASH__WORK_FULL,    /* operations on scores and values, in layers of full attention */
    FLASH__WORK_WINDOW,  /* the same operations, in layers with a window or a chunk */
    FLASH__WORK_HEAD,    /* weights of the output head, used for one token */
    FLASH__WORK_WEIGHTS, /* bytes of the layers' weights, read once in each chunk */
    FLASH__WORK_KV,      /* bytes of keys and values */
    FLASH__WORK_FLOATS,  /* activations between matrices, in floats */
    FLASH__WORK_STEPS,   /* mixers and feed-forward parts, once in each chunk */
    FLASH__WORK_ONE,     /* 1: the fixed time of a phase */
    FLASH__WORK_COUNT
};
enum {
    FLASH__SHAPE_INPUTS = 8,
    FLASH__SHAPE_KINDS = 4,
    FLASH__SHAPE = FLASH__SHAPE_INPUTS + FLASH__SHAPE_KINDS
};

/* The model of one phase: beta times the columns gives the counted time, and a Gaussian process
   over inputs scaled to [0, 1] gives the logarithm of measured over counted time. */
typedef struct flash__phase {
    int m, d, categories; /* number of columns, of inputs, and of categories at their end */
    double beta[16], lo[FLASH__GP_INPUTS], range[FLASH__GP_INPUTS];
    double mean, scale; /* mean and standard deviation of log(measured/counted) */
    double error;       /* mean relative error, each point left out in turn */
    flash__gp gp;
} flash__phase;

struct flash_latency {
    flash_host host;
    size_t block;          /* size of the memory block [B] */
    flash__phase phase[2]; /* prefill, decode; gp.n 0: not measured */
};

/* Returns how many positions the tokens [from, from + T) see in a layer, added up over tokens. */
static double flash__seen(const flash_layer *l, int from, int T)
{
    double n = T, first = from, w = l->window, whole, rest;
    if (l->attention == FLASH_ATTENTION_WINDOW) {
        double grow = FLASH__MIN(FLASH__MAX(w - first, 0), n); /* tokens that see all before */
        return grow * (first + (grow + 1) / 2) + (n - grow) * w;
    }
    if (l->attention != FLASH_ATTENTION_CHUNK) return n * (first + (n + 1) / 2);
    whole = floor((first + n) / w); /* sum up to the end, less that up to `from` */
    rest = first + n - whole * w;
    n = whole * w * (w + 1) / 2 + rest * (rest + 1) / 2;
    whole = floor(first / w);
    rest = first - whole * w;
    return n - whole * w * (w + 1) / 2 - rest * (rest + 1) / 2;
}

/* Counts the work of T tokens, done in chunks, from position `from` on. c:
   [FLASH__WORK_COUNT] columns. */
static void flash__work(const flash_workload *u, int from, int T, double *c)
{
    const flash_arch *a = u->arch;
    double tokens = T, D = a->d_model, C = a->d_head, all = 0, mats;
    int i, chunk = u->chunk ? u->chunk : FLASH__CHUNK, chunks = (T + chunk - 1) / chunk;
    for (i = 0; i < FLASH__WORK_COUNT; i++) c[i] = 0;
    for (i = 0; i < a->n_layer; i++) {
        const flash_layer *l = a->layer + i;
        double H = l->n_head, K = l->n_kv_head, F = l->d_ffn, seen;
        int parts = flash__parts(l);
        mats = parts & FLASH__HAS_KV    ? D * C * (2 * H + 2 * K)
            : parts & FLASH__HAS_CONV   ? 4 * D * D
            : parts & FLASH__HAS_LINEAR ? D * D
                                        : 0;
        c[FLASH__WORK_MIX] += 2 * tokens * mats;
        c[FLASH__WORK_FFN] += 2 * tokens * 3 * D * F;
        all += mats + 3 * D * F;
        if (parts & FLASH__HAS_KV) {
            seen = flash__seen(l, from, T);
            c[l->attention == FLASH_ATTENTION_FULL ? FLASH__WORK_FULL : FLASH__WORK_WINDOW] += 4 * H
                * C * seen;
            c[FLASH__WORK_KV] += K / 64 * (double)flash__kv_block(u->kv, a->d_head)
                * (T == 1 ? 2 * seen : 2 * tokens);
        }
        if (parts & FLASH__HAS_MIXER) c[FLASH__WORK_FLOATS] += tokens * (4 * D + 2 * C * (H + K));
        if (parts & FLASH__HAS_FFN) c[FLASH__WORK_FLOATS] += tokens * (4 * D + 3 * F);
        c[FLASH__WORK_STEPS] += chunks
            * (!!(parts & FLASH__HAS_MIXER) + !!(parts & FLASH__HAS_FFN));
    }
    c[FLASH__WORK_HEAD] = D * a->n_vocab;
    /* 256 weights are a whole number of blocks in every type */
    c[FLASH__WORK_WEIGHTS] = chunks * all * (double)flash_row_bytes(u->weights, 256) / 256;
    c[FLASH__WORK_ONE] = 1;
}

FLASH_API double flash_arch_flops(const flash_arch *a, int from, int n)
{
    double c[FLASH__WORK_COUNT];
    flash_workload u;
    memset(&u, 0, sizeof u);
    u.arch = a;
    u.prompt = n;
    u.position = from;
    if (n < 1 || !flash__workload_ok(&u)) return 0;
    flash__work(&u, from, n, c);
    return c[FLASH__WORK_MIX] + c[FLASH__WORK_FFN] + c[FLASH__WORK_FULL] + c[FLASH__WORK_WINDOW]
        + 2 * c[FLASH__WORK_HEAD];
}

/* Computes the inputs that tell shapes apart. z: [FLASH__SHAPE], first FLASH__SHAPE_INPUTS sizes,
   then FLASH__SHAPE_KINDS categories (types, threads and chunk). */
static void flash__shape(const flash_workload *u, int from, int T, double *z)
{
    const flash_arch *a = u->arch;
    double heads = 0, ffn = 0, full = 0, window = 0, other = 0;
    int i;
    for (i = 0; i < a->n_layer; i++) {
        const flash_layer *l = a->layer + i;
        heads += l->n_head;
        ffn += l->d_ffn;
        if (l->attention == FLASH_ATTENTION_FULL)
            full++;
        else if (l->n_kv_head)
            window++;
        else if (l->attention != FLASH_ATTENTION_SKIP)
            other++;
    }
    z[0] = flash__log(1.0 + from + T);
    z[1] = flash__log(a->d_model);
    z[2] = flash__log(1 + ffn / a->n_layer);
    z[3] = a->n_layer;
    z[4] = full;
    z[5] = window;
    z[6] = other;
    z[7] = heads * a->d_head / FLASH__MAX(full + window, 1);
    z[8] = u->weights;
    z[9] = u->kv;
    z[10] = FLASH__MAX(u->threads, 1);
    z[11] = u->chunk ? u->chunk : FLASH__CHUNK;
}

/* Fits p, whose Gaussian process has memory for n points. c: [n,m] columns, overwritten; z: [n,d]
   inputs; y: [n] times [s]. Returns 0 if the numbers cannot be fitted. */
static int flash__phase_fit(flash__phase *p, double *c, double *z, double *y)
{
    size_t n = p->gp.n, m = (size_t)p->m, d = (size_t)p->d, i, j;
    double most[16], ones = 0;
    for (i = 0; i < n; i++)
        if (!(y[i] > 0)) return 0;
    /* divide rows by their time, for relative errors, and columns by their largest number */
    for (j = 0; j < m; j++) {
        for (most[j] = 0, i = 0; i < n; i++) {
            c[i * m + j] /= y[i];
            most[j] = FLASH__MAX(most[j], c[i * m + j]);
        }
        if (!(most[j] > 0)) most[j] = 1;
        for (i = 0; i < n; i++) c[i * m + j] /= most[j];
    }
    for (i = 0; i < n; i++) p->gp.alpha[i] = 1;
    flash__least_squares(c, p->gp.alpha, n, p->m, 1e-9 * (double)n, p->beta);
    for (j = 0; j < m; j++) ones += p->beta[j];
    if (!(ones > 0)) return 0;
    for (p->mean = 0, i = 0; i < n; i++) {
        double counted = flash__dot64(c + i * m, p->beta, m);
        if (!(counted > 1e-6)) return 0;
        p->gp.y[i] = -flash__log(counted);
        p->mean += p->gp.y[i] / (double)n;
    }
    for (p->scale = 0, i = 0; i < n; i++) {
        p->gp.y[i] -= p->mean;
        p->scale += p->gp.y[i] * p->gp.y[i] / (double)n;
    }
    p->scale = FLASH__MAX(sqrt(p->scale), 1e-6);
    for (i = 0; i < n; i++) p->gp.y[i] /= p->scale;
    for (j = 0; j < m; j++) p->beta[j] /= most[j];
    for (j = 0; j < d; j++) {
        double hi = z[j];
        p->lo[j] = z[j];
        for (i = 0; i < n; i++) {
            p->lo[j] = FLASH__MIN(p->lo[j], z[i * d + j]);
            hi = FLASH__MAX(hi, z[i * d + j]);
        }
        p->range[j] = hi > p->lo[j] ? hi - p->lo[j] : 1;
        for (i = 0; i < n; i++) p->gp.x[i * d + j] = (z[i * d + j] - p->lo[j]) / p->range[j];
    }
    p->gp.priors = 1;
    p->gp.noise = -3;
    p->gp.noise_spread = 4;
    if (!flash__gp_fit(&p->gp, 3, 60)) return 0;
    flash__gp_leave_one_out(&p->gp, c, c + n);
    for (p->error = 0, i = 0; i < n; i++)
        p->error += fabs(flash__exp(p->scale * (c[i] - p->gp.y[i])) - 1) / (double)n;
    return 1;
}

/* Predicts the time [s] of columns c and inputs z, with an interval of 90 %. */
static flash_interval flash__phase_predict(const flash__phase *p, const double *c, const double *z)
{
    double x[FLASH__GP_INPUTS], k[FLASH_LATENCY_POINTS_MAX], variance, mean, sd, counted;
    flash_interval t;
    int j;
    for (j = 0; j < p->d; j++) x[j] = (z[j] - p->lo[j]) / p->range[j];
    mean = p->mean + p->scale * flash__gp_predict(&p->gp, x, k, &variance);
    sd = 1.6448536269514722 * p->scale * sqrt(variance + flash__exp(p->gp.theta[p->d + 1]));
    counted = flash__dot64(c, p->beta, (size_t)p->m);
    t.mean = counted * flash__exp(mean);
    t.lo = counted * flash__exp(mean - sd);
    t.hi = counted * flash__exp(mean + sd);
    return t;
}

/* Returns 1 if the phase was measured with the same types, threads and chunk as in z. */
static int flash__phase_knows(const flash__phase *p, const double *z)
{
    size_t i;
    int j, same;
    for (i = 0; i < p->gp.n; i++) {
        const double *x = p->gp.x + i * FLASH__SHAPE;
        for (same = 1, j = FLASH__SHAPE_INPUTS; j < FLASH__SHAPE; j++)
            same &= x[j] == (z[j] - p->lo[j]) / p->range[j];
        if (same) return 1;
    }
    return 0;
}

/* Computes the columns c and inputs z of a phase of u: 0 prefill, 1 decode. */
static void flash__phase_of(const flash_workload *u, int phase, double *c, double *z)
{
    int from = phase ? u->position : 0, T = phase ? 1 : u->prompt;
    flash__work(u, from, T, c);
    flash__shape(u, from, T, z);
}

/* Takes memory from the arena for n[0] and n[1] points and sets up phase[0] and phase[1]. fit 0:
   for the model that is kept, which is returned (NULL while the arena only counts); fit 1: for what
   fitting needs. */
static flash_latency *flash__latency_plan(flash__arena *a, const size_t *n, int fit,
                                          flash__phase *phase)
{
    flash_latency *l = (flash_latency *)flash__take(a, fit ? 0 : 1, sizeof *l);
    int k;
    for (k = 0; k < 2; k++) {
        phase[k].m = FLASH__WORK_COUNT;
        phase[k].d = FLASH__SHAPE;
        phase[k].categories = FLASH__SHAPE_KINDS;
        flash__gp_plan(&phase[k].gp, n[k], FLASH__SHAPE, FLASH__SHAPE_KINDS, !fit, a);
    }
    return l;
}

FLASH_API flash_status flash_latency_fit(flash_latency **out, const flash_workload *work,
                                         const flash_timing *time, size_t n, const flash_host *host,
                                         flash_error *err)
{
    static const char *const name[2] = {"prefill", "decode"};
    flash__arena rest = {NULL, 0}, room = {NULL, 0};
    flash__phase fitted[2], kept[2];
    flash_host h;
    flash_latency *l;
    double *c, *z, *y;
    size_t count[2] = {0, 0}, most, need, i, j, d = FLASH__SHAPE, m = FLASH__WORK_COUNT;
    int k, ok = 1;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the latency model");
    *out = NULL;
    memset(&h, 0, sizeof h);
    memset(fitted, 0, sizeof fitted);
    if (host) h = *host;
    if (!work || !time || n > FLASH_LATENCY_POINTS_MAX)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no measurements, or more than %i",
                           (int)FLASH_LATENCY_POINTS_MAX);
    for (i = 0; i < n; i++) {
        if (!flash__workload_ok(work + i))
            return flash__fail(err, FLASH_E_ARGUMENT, 0, "measurement %u: a shape out of range",
                               (uint64_t)i);
        for (k = 0; k < 2; k++) {
            double t = flash__phase_time(time + i, k);
            if (!(t >= 0 && t < 1e9) || (t > 0 && !k && !work[i].prompt))
                return flash__fail(err, FLASH_E_ARGUMENT, 0, "measurement %u: no time of %t",
                                   (uint64_t)i, name[k], strlen(name[k]));
            count[k] += t > 0;
        }
    }
    for (k = 0; k < 2; k++)
        if (count[k] < 8 && (count[k] || !count[!k]))
            return flash__fail(err, FLASH_E_ARGUMENT, 0, "%u measurements of %t; 8 are needed",
                               (uint64_t)count[k], name[k], strlen(name[k]));
    /* two blocks of memory: one for what is kept, one for what fitting needs */
    memcpy(kept, fitted, sizeof kept);
    flash__latency_plan(&rest, count, 0, kept);
    flash__latency_plan(&room, count, 1, fitted);
    most = FLASH__MAX(count[0], count[1]);
    flash__take(&room, most * (m + d + 1), sizeof(double));
    if (rest.used == SIZE_MAX || room.used == SIZE_MAX)
        return flash__fail(err, FLASH_E_TOO_LARGE, 0, "more memory than this machine can address");
    need = rest.used;
    rest.base = (uint8_t *)flash__acquire(&h.allocator, need);
    room.base = rest.base ? (uint8_t *)flash__acquire(&h.allocator, room.used) : NULL;
    if (!room.base) {
        flash__release(&h.allocator, rest.base, need);
        return flash__fail(err, FLASH_E_MEMORY, 0, "no memory to fit %u measurements", (uint64_t)n);
    }
    most = room.used;
    rest.used = room.used = 0;
    l = flash__latency_plan(&rest, count, 0, kept);
    flash__latency_plan(&room, count, 1, fitted);
    c = (double *)flash__take(&room, FLASH__MAX(count[0], count[1]) * (m + d + 1), sizeof *c);
    for (k = 0; k < 2; k++) {
        z = c + count[k] * m;
        y = z + count[k] * d;
        for (i = j = 0; i < n; i++) {
            y[j] = flash__phase_time(time + i, k);
            if (y[j] > 0) {
                flash__phase_of(work + i, k, c + j * m, z + j * d);
                j++;
            }
            if (j == count[k]) break;
        }
        if (count[k]) ok &= flash__phase_fit(&fitted[k], c, z, y);
        l->phase[k] = fitted[k];
        l->phase[k].gp = kept[k].gp;
        l->phase[k].gp.lml = fitted[k].gp.lml;
        memcpy(l->phase[k].gp.theta, fitted[k].gp.theta, sizeof kept[k].gp.theta);
        for (i = 0; ok && i < count[k]; i++) {
            memcpy(kept[k].gp.x + i * d, fitted[k].gp.x + i * d, d * sizeof *c);
            memcpy(kept[k].gp.L + i * count[k], fitted[k].gp.L + i * count[k],
                   count[k] * sizeof *c);
            kept[k].gp.y[i] = fitted[k].gp.y[i];
            kept[k].gp.alpha[i] = fitted[k].gp.alpha[i];
        }
    }
    l->host = h;
    l->block = need;
    flash__release(&h.allocator, room.base, most);
    if (!ok) {
        flash_latency_free(l);
        return flash__fail(err, FLASH_E_FORMAT, 0, "these measurements cannot be fitted");
    }
    *out = l;
    return FLASH_E_NONE;
}

FLASH_API void flash_latency_free(flash_latency *l)
{
    flash_allocator a;
    if (!l) return;
    a = l->host.allocator;
    flash__release(&a, l, l->block);
}

/* The text of a latency model: a first line "flash-latency 1", then words of 16 hexadecimal digits:
   the number of points of both phases; for each phase that has any, the bits of its doubles in the
   order of flash__hex_phase; a hash of all words. */
typedef struct flash__hexes {
    char *to;         /* [cap], or NULL while it reads or only counts */
    const char *from; /* [n], or NULL while it writes */
    size_t n, cap;    /* bytes written so far, or left to read; room in `to` [B] */
    uint64_t hash;    /* of the words so far */
    int bad;          /* 1: a word is malformed or a number out of its limits */
} flash__hexes;

/* Appends n characters. w->n also counts those for which there is no room. */
static void flash__hex_put(flash__hexes *w, const char *text, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++, w->n++)
        if (w->n < w->cap) w->to[w->n] = text[i];
}

/* Writes the word v, or reads a word in its place. Returns the word. */
static uint64_t flash__hex(flash__hexes *w, uint64_t v)
{
    char digits[17];
    int i, c = 0;
    if (w->from) {
        for (v = 0, i = 0; i < 17 && w->n; i++, w->from++, w->n--) {
            c = (unsigned char)*w->from;
            if (c >= '0' && c <= '9')
                c -= '0';
            else if (c >= 'a' && c <= 'f')
                c -= 'a' - 10;
            else
                break;
            v = v << 4 | (uint64_t)c;
        }
        w->bad |= i != 16 || !w->n || (c != ' ' && c != '\n');
        if (w->n) {
            w->from++;
            w->n--;
        }
    } else {
        for (i = 0; i < 16; i++) digits[i] = "0123456789abcdef"[v >> (60 - 4 * i) & 15];
        digits[16] = '\n';
        flash__hex_put(w, digits, 17);
    }
    w->hash = (w->hash ^ v) * 0x9e3779b97f4a7c15u;
    w->hash ^= w->hash >> 29;
    return v;
}

/* Writes or reads n doubles. lo, hi: limits within which every fitted model stays. */
static void flash__hex_doubles(flash__hexes *w, double *x, size_t n, double lo, double hi)
{
    for (; n--; x++) {
        *x = flash__bits_f64(flash__hex(w, flash__f64_bits(*x)));
        w->bad |= !(*x >= lo && *x <= hi);
    }
}

/* Writes or reads the numbers of a phase. */
static void flash__hex_phase(flash__hexes *w, flash__phase *p)
{
    size_t d = (size_t)p->d;
    flash__hex_doubles(w, p->beta, (size_t)p->m, 0, 1e300);
    flash__hex_doubles(w, p->lo, d, 0, 1e12);
    flash__hex_doubles(w, p->range, d, 1e-17, 1e12); /* least: last bit of a logarithm */
    flash__hex_doubles(w, &p->mean, 1, -710, 710);   /* log of any double */
    flash__hex_doubles(w, &p->scale, 1, 1e-6, 1420);
    flash__hex_doubles(w, &p->error, 1, 0, 1e300);
    flash__hex_doubles(w, p->gp.theta, d + 2, -14, 8);
    flash__hex_doubles(w, p->gp.x, p->gp.n * d, 0, 1);
    flash__hex_doubles(w, p->gp.y, p->gp.n, -46, 46); /* variance is 1: at most sqrt(n) */
}

static const char flash__latency_title[] = "flash-latency 1\n";

FLASH_API size_t flash_latency_save(const flash_latency *l, char *text, size_t cap)
{
    flash__hexes w;
    flash_latency same;
    int k;
    memset(&w, 0, sizeof w);
    if (!l) return 0;
    same = *l; /* flash__hex_phase takes no const; it stores each number back unchanged */
    w.to = text;
    w.cap = text ? cap : 0;
    flash__hex_put(&w, flash__latency_title, sizeof flash__latency_title - 1);
    for (k = 0; k < 2; k++) flash__hex(&w, l->phase[k].gp.n);
    for (k = 0; k < 2; k++)
        if (l->phase[k].gp.n) flash__hex_phase(&w, &same.phase[k]);
    flash__hex(&w, w.hash);
    return w.n;
}

FLASH_API flash_status flash_latency_load(flash_latency **out, const char *text, size_t bytes,
                                          const flash_host *host, flash_error *err)
{
    const size_t title = sizeof flash__latency_title - 1;
    flash__arena a = {NULL, 0};
    flash__phase phase[2];
    flash__hexes w;
    flash_host h;
    flash_latency *l;
    size_t n[2], need;
    uint64_t hash;
    int k;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the latency model");
    *out = NULL;
    memset(&w, 0, sizeof w);
    memset(&h, 0, sizeof h);
    memset(phase, 0, sizeof phase);
    if (host) h = *host;
    if (!text) bytes = 0;
    w.from = text;
    w.n = bytes;
    while (w.n && *w.from == '#') {
        while (w.n && *w.from != '\n') {
            w.from++;
            w.n--;
        }
        if (w.n) {
            w.from++;
            w.n--;
        }
    }
    if (w.n < title || memcmp(w.from, flash__latency_title, title))
        return flash__fail(err, FLASH_E_FORMAT, bytes - w.n, "this is no latency model");
    w.from += title;
    w.n -= title;
    for (k = 0; k < 2; k++) {
        uint64_t points = flash__hex(&w, 0);
        if (points > FLASH_LATENCY_POINTS_MAX || (points && points < 8)) w.bad = 1;
        n[k] = (size_t)points;
    }
    if (w.bad || !(n[0] + n[1]))
        return flash__fail(err, FLASH_E_FORMAT, bytes - w.n, "a number of measurements is wrong");
    if (w.n < 17 * (n[0] + n[1]) * (FLASH__SHAPE + 1))
        return flash__fail(err, FLASH_E_TRUNCATED, bytes, "the text ends too early");
    flash__latency_plan(&a, n, 0, phase);
    need = a.used;
    a.base = need == SIZE_MAX ? NULL : (uint8_t *)flash__acquire(&h.allocator, need);
    if (!a.base) return flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the latency model");
    a.used = 0;
    l = flash__latency_plan(&a, n, 0, phase);
    memcpy(l->phase, phase, sizeof phase);
    l->host = h;
    l->block = need;
    for (k = 0; k < 2; k++)
        if (n[k]) flash__hex_phase(&w, &l->phase[k]);
    hash = w.hash;
    w.bad |= flash__hex(&w, 0) != hash;
    for (; w.n; w.from++, w.n--)
        w.bad |= *w.from != '\n' && *w.from != '\r' && *w.from != ' ' && *w.from != '\t';
    for (k = 0; k < 2 && !w.bad; k++)
        if (n[k]) w.bad = !flash__gp_factor(&l->phase[k].gp);
    if (!w.bad) {
        *out = l;
        return FLASH_E_NONE;
    }
    flash_latency_free(l);
    return flash__fail(err, FLASH_E_FORMAT, bytes - w.n,
                       "the numbers are not those of a latency "
                       "model: damaged?");
}

FLASH_API void flash_latency_errors(const flash_latency *l, double *prefill, double *decode)
{
    *prefill = l ? l->phase[0].error : 0;
    *decode = l ? l->phase[1].error : 0;
}

FLASH_API flash_status flash_latency_predict(const flash_latency *l, const flash_workload *work,
                                             flash_interval *prefill, flash_interval *decode)
{
    double c[FLASH__WORK_COUNT], z[FLASH__SHAPE];
    flash_interval t[2], *to[2];
    int k;
    to[0] = prefill;
    to[1] = decode;
    if (!l || !work || !flash__workload_ok(work) || (prefill && !work->prompt))
        return FLASH_E_ARGUMENT;
    for (k = 0; k < 2; k++) {
        if (!to[k]) continue;
        flash__phase_of(work, k, c, z);
        if (!flash__phase_knows(&l->phase[k], z)) return FLASH_E_UNSUPPORTED;
        t[k] = flash__phase_predict(&l->phase[k], c, z);
        if (!(t[k].lo > 0 && t[k].hi < 1e300)) return FLASH_E_FORMAT;
    }
    for (k = 0; k < 2; k++)
        if (to[k]) *to[k] = t[k];
    return FLASH_E_NONE;
}

#endif

/* ===== >>pareto =========================================================== */

/* Pareto fronts: all objectives are minimised, and a front holds the points that no other point
   dominates. This section finds the front of a set of points (flash__front), the volume that the
   front dominates (flash__volume), and the volume that a new point with normally distributed values
   is expected to add (expected hypervolume improvement, EHVI; flash__log_ehvi). The EHVI of two
   objectives follows Emmerich, Yang, Deutz 2019, arxiv 1904.12672, here as a sum over the n + 1
   strips between neighbours of the front. It is computed in logarithms (Ament et al. 2023, arxiv
   2310.20708), because its plain value underflows to 0 at some 38 standard deviations from the
   front, and its gradient long before. */

#ifdef FLASH__SEARCH
#define FLASH__NOTHING (-1e300) /* stands for the logarithm of 0 */

/* These two return log(1 + x) and e^x - 1, accurate near 0 too: the rounding error of u = 1 + x, or
   of u = e^x, cancels in the quotient (Kahan; Goldberg 1991, "What every computer scientist should
   know", theorem 4). */
static double flash__log1p(double x)
{
    double u = 1 + x;
    return u == 1 ? x : flash__log(u) * x / (u - 1);
}
static double flash__expm1(double x)
{
    double u = flash__exp(x);
    return u == 1 ? x : x < -30 || x > 30 ? u - 1 : (u - 1) * x / flash__log(u);
}

/* Returns log(1 - e^w) for w < 0. */
static double flash__log1mexp(double w)
{
    return w > -0.6931471805599453 ? flash__log(-flash__expm1(w)) : flash__log1p(-flash__exp(w));
}
/* Returns log(e^a + e^b). */
static double flash__log_add(double a, double b)
{
    double hi = FLASH__MAX(a, b), lo = FLASH__MIN(a, b);
    return lo <= FLASH__NOTHING ? hi : hi + flash__log1p(flash__exp(lo - hi));
}

/* Returns p(x)/q(x), two polynomials of n coefficients each, the highest power first. */
static double flash__ratio(const double *p, int n, const double *q, double x)
{
    double a = p[0], b = q[0];
    int i;
    for (i = 1; i < n; i++) {
        a = a * x + p[i];
        b = b * x + q[i];
    }
    return a / b;
}

/* Returns e^(x^2) erfc(x) for x >= 0, by the rational approximations of Cody 1969, Mathematics of
   Computation 23. */
static double flash__erfcx(double x)
{
    /* clang-format off */
    static const double p0[5] = { 1.85777706184603153e-1, 3.16112374387056560,
        1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3 };
    static const double q0[5] = { 1, 2.36012909523441209e1, 2.44024637934444173e2,
        1.28261652607737228e3, 2.84423683343917062e3 };
    static const double p1[9] = { 2.15311535474403846e-8, 5.64188496988670089e-1,
        8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
        1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3 };
    static const double q1[9] = { 1, 1.57449261107098347e1, 1.17693950891312499e2,
        5.37181101862009858e2, 1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3,
        3.43936767414372164e3, 1.23033935480374942e3 };
    static const double p2[6] = { 1.63153871373020978e-2, 3.05326634961232344e-1,
        3.60344899949804439e-1, 1.25781726111229246e-1, 1.60837851487422766e-2,
        6.58749161529837803e-4 };
    static const double q2[6] = { 1, 2.56852019228982242, 1.87295284992346725,
        5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3 };
    /* clang-format on */
    double y = x * x;
    if (x <= 0.46875) return flash__exp(y) * (1 - x * flash__ratio(p0, 5, q0, y));
    if (x <= 4) return flash__ratio(p1, 9, q1, x);
    y = 1 / y;
    return (0.56418958354775628695 - y * flash__ratio(p2, 6, q2, y)) / x;
}

/* Returns log Phi(z), where Phi is the standard normal distribution function and phi its density.
 *slope becomes the derivative, phi/Phi. */
static double flash__log_normal(double z, double *slope)
{
    double x = fabs(z) * 0.70710678118654752, log_phi = -0.5 * z * z - 0.91893853320467274,
           tail = 0.5 * flash__erfcx(x), v; /* tail * e^(-z^2/2) = Phi(-|z|) */
    v = z < 0 ? flash__log(tail) - 0.5 * z * z : flash__log1p(-tail * flash__exp(-0.5 * z * z));
    *slope = flash__exp(log_phi - v);
    return v;
}

/* Returns log g(z), g = phi + z Phi: g(z) = E max(z - Y, 0), the expected excess of z over a
   standard normal value Y. *mean becomes Phi/g and *sd becomes phi/g. For a normal value of mean m
   and standard deviation s, and z = (t - m)/s, the derivatives of log(s g(z)) are -*mean/s by m and
   *sd/s by s. */
static double flash__log_excess(double z, double *mean, double *sd)
{
    const double half_log_half_pi = 0.22579135264472743;
    double log_phi = -0.5 * z * z - 0.91893853320467274,
           e = flash__erfcx(fabs(z) * 0.70710678118654752), w;
    if (z > -1) {
        double phi = flash__exp(log_phi), Phi = phi * 1.2533141373155003 * e, g;
        if (z > 0) Phi = 1 - Phi;
        g = phi + z * Phi;
        *mean = Phi / g;
        *sd = phi / g;
        return flash__log(g);
    }
    w = z < -1e6 ? -2 * flash__log(-z) : flash__log1mexp(flash__log(-z * e) + half_log_half_pi);
    *sd = flash__exp(-w);
    *mean = *sd * 1.2533141373155003 * e;
    return log_phi + w;
}

/* Returns log E max(t - Y, 0), where Y is normal with mean m and standard deviation s, or is
   exactly m if s is 0. *mean becomes minus the derivative by m, and *sd the derivative by s. */
static double flash__log_below(double t, double m, double s, double *mean, double *sd)
{
    if (s > 0) {
        double v = flash__log(s) + flash__log_excess((t - m) / s, mean, sd);
        *mean /= s;
        *sd /= s;
        return v;
    }
    *sd = *mean = 0;
    if (!(t > m)) return FLASH__NOTHING;
    *mean = 1 / (t - m);
    return flash__log(t - m);
}

/* Returns the logarithm of the EHVI of two objectives: by how much a new point is expected to
   increase the area that a front of n points dominates up to the reference r [2]. The values of the
   new point are independent and normal, of means m [2] and standard deviations s [2] (0 if the
   value is known). a, b: [n] first and second objectives of the front, all better than r, a
   ascending and b descending. dm, ds: [2] become the derivatives of the result by m and s. */
static double flash__log_ehvi(const double *a, const double *b, size_t n, const double *r,
                              const double *m, const double *s, double *dm, double *ds)
{
    double sum = FLASH__NOTHING, below = FLASH__NOTHING, low_m = 0, low_s = 0;
    size_t i;
    dm[0] = dm[1] = ds[0] = ds[1] = 0;
    for (i = 0; i <= n; i++) { /* strip i: from a[i - 1] to a[i], up to b[i - 1] */
        double up_m, up_s, h_m, h_s, high, width, d_m, d_s, share,
            up = flash__log_below(i < n ? a[i] : r[0], m[0], s[0], &up_m, &up_s);
        if (up > below) {
            high = flash__log_below(i ? b[i - 1] : r[1], m[1], s[1], &h_m, &h_s);
            if (below <= FLASH__NOTHING) {
                width = up;
                d_m = up_m;
                d_s = up_s;
            } else {
                double less = flash__log1mexp(below - up), p = flash__exp(-less),
                       q = flash__exp(below - up - less);
                width = up + less;
                d_m = p * up_m - q * low_m;
                d_s = p * up_s - q * low_s;
            }
            if (high > FLASH__NOTHING) {
                double all = flash__log_add(sum, width + high), old = flash__exp(sum - all);
                share = flash__exp(width + high - all);
                dm[0] = old * dm[0] - share * d_m;
                ds[0] = old * ds[0] + share * d_s;
                dm[1] = old * dm[1] - share * h_m;
                ds[1] = old * ds[1] + share * h_s;
                sum = all;
            }
        }
        below = up;
        low_m = up_m;
        low_s = up_s;
    }
    return sum;
}

/* Returns 1 if a is at least as good as b in each of the m objectives. */
static int flash__covers(const double *a, const double *b, int m)
{
    int k;
    for (k = 0; k < m; k++)
        if (a[k] > b[k]) return 0;
    return 1;
}

/* How flash__row_less orders the rows of y [.,m]: by column `first`, then by the others. */
typedef struct flash__rows {
    const double *y;
    int m, first;
} flash__rows;

static int flash__row_less(const void *ctx, uint32_t i, uint32_t j)
{
    const flash__rows *c = (const flash__rows *)ctx;
    const double *a = c->y + i * (size_t)c->m, *b = c->y + j * (size_t)c->m;
    int k;
    if (a[c->first] < b[c->first] || a[c->first] > b[c->first]) return a[c->first] < b[c->first];
    for (k = 0; k < c->m; k++)
        if (a[k] < b[k] || a[k] > b[k]) return a[k] < b[k];
    return i < j;
}

/* Finds the front among the rows of y [.,m] whose numbers are in index [n]: moves the numbers of
   the rows that no other row covers to the beginning of index, sorted by their first column.
   Returns how many there are. Of equal rows the one with the lowest number stays. */
static size_t flash__front(const double *y, int m, uint32_t *index, size_t n)
{
    flash__rows c;
    size_t i, j, kept = 0;
    c.y = y;
    c.m = m;
    c.first = 0;
    flash__sort(index, n, flash__row_less, &c);
    for (i = 0; i < n; i++) { /* only a row that sorts before this one can cover it */
        const double *row = y + index[i] * (size_t)m;
        uint32_t v = index[i];
        if (m == 2)
            j = kept && y[index[kept - 1] * (size_t)2 + 1] <= row[1] ? 0 : kept;
        else
            for (j = 0; j < kept; j++)
                if (flash__covers(y + index[j] * (size_t)m, row, m)) break;
        if (j < kept) continue;
        index[i] = index[kept]; /* covered rows end up behind the front, in any order */
        index[kept++] = v;
    }
    return kept;
}

/* Returns the volume that some rows of y [.,stride] dominate up to the reference r [m], by their
   first m columns; index: [n] numbers of these rows. Cuts the volume into slices between
   neighbouring values of column m - 1. The cross section of a slice is the volume, in one column
   less, of the rows that are at least as good there. work: [n*(m - 1)]. */
static double flash__volume(const double *y, int stride, const uint32_t *index, size_t n, int m,
                            const double *r, uint32_t *work)
{
    double sum = 0, least = r[0];
    flash__rows c;
    size_t i;
    c.y = y;
    c.m = stride;
    c.first = m - 1;
    memcpy(work, index, n * sizeof *work);
    flash__sort(work, n, flash__row_less, &c);
    for (i = 0; i < n; i++) {
        const double *row = y + work[i] * (size_t)stride;
        double top = i + 1 < n ? y[work[i + 1] * (size_t)stride + (size_t)(m - 1)] : r[m - 1];
        top = FLASH__MIN(top, r[m - 1]);
        if (row[0] < least) least = row[0];
        if (!(top > row[m - 1])) continue;
        sum += (top - row[m - 1])
            * (m == 2 ? r[0] - least : flash__volume(y, stride, work, i + 1, m - 1, r, work + n));
    }
    return sum;
}

FLASH_API double flash_hypervolume(const double *y, size_t n, int m, const double *reference,
                                   uint32_t *work)
{
    size_t i;
    if (!y || !reference || !work || m < 2 || m > FLASH_SEARCH_OBJECTIVES_MAX) return 0;
    for (i = 0; i < n; i++) work[i] = (uint32_t)i;
    return flash__volume(y, m, work, n, m, reference, work + n);
}
#endif

/* ===== >>search =========================================================== */

/* The search by ask and tell: the caller asks for a suggestion, runs the trial and tells its
   values. A suggestion is a function of the desc and of the trials with their values, and of
   nothing else: its random numbers come from the seed and the number of the trial, and the models
   are fitted anew whenever the number of values has grown enough. So a journal of the trials is all
   that must be kept in order to continue a search. How points are proposed: with EHVI, a Gaussian
   process for each value predicts it, and the point that promises the largest growth of the
   hypervolume is taken (Daulton et al. 2021, arxiv 2105.08195, for noise and pending trials); with
   NSGA-II, by crossover and mutation of the best trials (Deb et al. 2002); else by scrambled Sobol'
   points. KNOWN TRAPS: a parameter that is inactive must have one value only, or equal trials look
   different; a space may have fewer points than the number of trials that is wanted. */

#ifdef FLASH__SEARCH
enum {
    FLASH__SEARCH_DRAWS = 1536, /* points drawn and judged for a suggestion, at most */
    FLASH__SEARCH_STARTS = 8,   /* how many of these points climb, at most */
    FLASH__SEARCH_SAMPLES = 16, /* samples of the true values behind noisy ones */
    FLASH__SEARCH_VOLUME = 512, /* sample points of the volume of more than two objectives */
    FLASH__SEARCH_LINE = 4096,  /* longest line of the journal [B] */
    FLASH__SEARCH_WINDOW = 20   /* values over which a summary measures the gain */
};

/* What the model predicts at one x: for each value, a normal distribution. */
typedef struct flash__outlook {
    double mean[FLASH_SEARCH_VALUES_MAX][FLASH__SEARCH_SAMPLES]; /* one for each sample */
    double sd[FLASH_SEARCH_VALUES_MAX];                          /* 0 if the value is known */
} flash__outlook;

struct flash_search {
    flash_search_desc desc;
    size_t block;            /* size of the memory of this search [B] */
    int P, m, values;        /* parameters; objectives, at least 2; objectives and constraints */
    int samples, categories; /* samples if noisy, else 1; parameters that are categories */
    int active[FLASH_SEARCH_PARAMS_MAX]; /* 1 + index of the active_if parameter, or 0 */
    int slot[FLASH_SEARCH_PARAMS_MAX];   /* its input of the process; categories are last */
    double reference[FLASH_SEARCH_OBJECTIVES_MAX];
    int trials, told; /* number of all trials, and of those with values */
    int begun;        /* 1 if the journal has its first line */
    int replaying;    /* 1 while a journal is read: nothing is written to it */
    double expected;  /* growth of the hypervolume by the last suggestion; below 0: not known */
    double *x, *y;    /* [max_trials,P], [max_trials,values] */
    uint8_t *state;   /* [max_trials] */
    uint32_t *turn;   /* [max_trials] order in which values were told: 0, 1, ... */
    uint32_t *sobol;  /* [P,32] direction numbers */
    /* These have max_trials rows; with NSGA-II at least 2 population. */
    uint32_t *index, *work; /* [rows], [rows,m] */
    double *row;            /* [rows,m] objectives to be compared */
    /* NSGA-II: the parents that the first `bred` trials gave */
    uint32_t *parent, *rank; /* [3 population] trials and ranks; last third: a copy to restore */
    double *crowd;           /* [3 population] crowding distances */
    int parents, bred;
    /* EHVI: a Gaussian process for each value that is not known, all on the same n points */
    flash__gp gp; /* one for all outputs, which use its arrays in turn */
    int fitted;   /* number of values that the thetas were fitted to */
    double theta[FLASH_SEARCH_VALUES_MAX][FLASH__GP_THETA];
    /* a value is shift + scale * (value in the model's units) */
    double shift[FLASH_SEARCH_VALUES_MAX], scale[FLASH_SEARCH_VALUES_MAX];
    double noise[FLASH_SEARCH_VALUES_MAX];  /* standard deviations, 0 where not known */
    double *Q[FLASH_SEARCH_VALUES_MAX];     /* [n,n] inverse covariance */
    double *beta[FLASH_SEARCH_VALUES_MAX];  /* [samples,n] weights: k times these is the mean */
    double *f[FLASH_SEARCH_VALUES_MAX];     /* [samples,n] samples of the values at the points */
    double *mean[FLASH_SEARCH_VALUES_MAX];  /* [n] posterior means at the points */
    double *k[FLASH_SEARCH_VALUES_MAX];     /* [n] kernel of the judged x with the points */
    double *r2[FLASH_SEARCH_VALUES_MAX];    /* [n] their squared distances from the centre */
    double centre[FLASH_SEARCH_PARAMS_MAX]; /* inputs of the point set by flash__centre */
    int centred;                            /* 1 if there is a centre */
    double *slope[FLASH_SEARCH_VALUES_MAX]; /* [n] derivatives of k by squared distance */
    /* weights of the inputs and variance of the signal, from theta */
    double w[FLASH_SEARCH_VALUES_MAX][FLASH__GP_INPUTS], sf2[FLASH_SEARCH_VALUES_MAX];
    double *a, *b; /* [samples,n] first and second objective of the front of each sample */
    uint32_t n_front[FLASH__SEARCH_SAMPLES]; /* number of points of each front */
    double *u;         /* [VOLUME,m] for m > 2: random points that the front does not dominate */
    int n_u;           /* number of these points */
    double log_volume; /* log of the volume they are spread over */
    double limit[FLASH_SEARCH_OBJECTIVES_MAX]; /* the reference */
    double r[FLASH_SEARCH_OBJECTIVES_MAX];     /* the reference in the model's units */
    double *draw, *score, *key;                /* [DRAWS,P], [DRAWS], [DRAWS or 2 population] */
    const double *from; /* x whose discrete parameters stay while the real ones are searched */
};

/* ---- the space ---- */

static int flash__param_discrete(const flash_param *p) { return p->kind < FLASH_PARAM_REAL; }

/* Returns how many values a discrete parameter has. */
static int flash__param_count(const flash_param *p)
{
    double step = p->step > 0 ? p->step : 1;
    return p->kind == FLASH_PARAM_INTEGER ? (int)floor((p->hi - p->lo) / step + 1e-9) + 1
                                          : p->n_value;
}

/* Returns value i of a discrete parameter, i from 0. */
static double flash__param_value(const flash_param *p, int i)
{
    if (p->kind == FLASH_PARAM_ORDINAL) return p->value[i];
    return p->kind == FLASH_PARAM_CATEGORY ? i : p->lo + i * (p->step > 0 ? p->step : 1);
}
/* Returns the index of the value that is nearest to v. */
static int flash__param_index(const flash_param *p, double v)
{
    int i = 0, n = flash__param_count(p), middle;
    double at;
    if (p->kind == FLASH_PARAM_ORDINAL) { /* bisection: the distances from v fall, then rise */
        while (n > 1) {
            middle = i + n / 2;
            if (p->value[middle] - v <= v - p->value[middle - 1]) {
                n -= n / 2;
                i = middle;
            } else
                n = n / 2;
        }
        return i;
    }
    at = p->kind == FLASH_PARAM_CATEGORY ? v : (v - p->lo) / (p->step > 0 ? p->step : 1);
    return at > 0 ? at < n - 1 ? (int)(at + 0.5) : n - 1 : 0; /* NaN gives 0 */
}

/* Returns the value of a parameter at u in [0, 1]; each value of a discrete one has an equal share
   of this range. */
static double flash__param_at(const flash_param *p, double u)
{
    int n;
    if (p->kind == FLASH_PARAM_LOG) return p->lo * flash__exp(u * flash__log(p->hi / p->lo));
    if (p->kind == FLASH_PARAM_REAL) return p->lo + u * (p->hi - p->lo);
    n = flash__param_count(p);
    return flash__param_value(p, u > 0 ? FLASH__MIN((int)(u * n), n - 1) : 0);
}
/* Returns the u of value v: the inverse of flash__param_at, for a discrete value the middle of its
   share. */
static double flash__param_unit(const flash_param *p, double v)
{
    if (p->kind == FLASH_PARAM_LOG) return flash__log(v / p->lo) / flash__log(p->hi / p->lo);
    if (p->kind == FLASH_PARAM_REAL) return (v - p->lo) / (p->hi - p->lo);
    return (flash__param_index(p, v) + 0.5) / flash__param_count(p);
}

/* Moves every value to the nearest one that its parameter may have, and sets parameters that are
   inactive (see active_if) to their least value. */
static void flash__canonical(const flash_search *s, double *x)
{
    int j;
    for (j = 0; j < s->P; j++) {
        const flash_param *p = s->desc.param + j;
        int off = s->active[j] && !(x[s->active[j] - 1] >= p->active_from);
        if (flash__param_discrete(p))
            x[j] = flash__param_value(p, off ? 0 : flash__param_index(p, x[j]));
        else if (off || !(x[j] > p->lo))
            x[j] = p->lo;
        else if (x[j] > p->hi)
            x[j] = p->hi;
    }
}

/* Like flash__canonical, and then repairs x if it is not feasible. Returns 0 if it stays
   infeasible. */
static int flash__settle(const flash_search *s, double *x)
{
    const flash_search_desc *d = &s->desc;
    flash__canonical(s, x);
    if (!d->feasible || d->feasible(d->user, x)) return 1;
    if (!d->repair) return 0;
    d->repair(d->user, x);
    flash__canonical(s, x);
    return d->feasible(d->user, x);
}

/* Returns 1 if there is a trial at x already. */
static int flash__tried(const flash_search *s, const double *x)
{
    int i, j;
    for (i = s->trials - 1; i >= 0; i--) {
        const double *old = s->x + (size_t)i * (size_t)s->P;
        for (j = 0; j < s->P && !(x[j] < old[j] || x[j] > old[j]); j++) {}
        if (j == s->P) return 1;
    }
    return 0;
}

/* Computes z [P], the inputs of the Gaussian processes at x [P]: numbers in [0, 1], or the number
   of a category. */
static void flash__inputs(const flash_search *s, const double *x, double *z)
{
    int j;
    for (j = 0; j < s->P; j++) {
        const flash_param *p = s->desc.param + j;
        int n = flash__param_discrete(p) ? flash__param_count(p) : 0;
        z[s->slot[j]] = p->kind == FLASH_PARAM_CATEGORY ? x[j]
            : n > 1 ? flash__param_index(p, x[j]) / (double)(n - 1)
            : n     ? 0
                    : flash__param_unit(p, x[j]);
    }
}

/* ---- random points ---- */

/* Returns the start of the stream of random numbers for the n-th suggestion. */
static uint64_t flash__stream(const flash_search *s, int n)
{
    uint64_t state = s->desc.seed * 0x9e3779b97f4a7c15u + (uint64_t)n;
    return flash__random(&state);
}

/* Returns 1 if a polynomial over GF(2) is primitive: x has the order 2^degree - 1 modulo it. Its
   bits are the coefficients. */
static int flash__primitive(uint32_t polynomial, int degree)
{
    uint32_t r = 1, k;
    for (k = 1; k < 1u << degree; k++) {
        r <<= 1;
        if (r >> degree & 1) r ^= polynomial;
        if (r == 1) break;
    }
    return k == (1u << degree) - 1;
}

/* Computes the direction numbers of the Sobol' sequence (1967) by the recurrence of Bratley and Fox
   1988, algorithm 659; the dimensions take the primitive polynomials in order. The first numbers of
   each dimension are random, which scrambles the points as a random triangular matrix would
   (Matousek 1998). */
static void flash__sobol_plan(flash_search *s, uint64_t *random)
{
    uint32_t polynomial = 2;
    int degree = 0, j, k, i;
    for (j = 0; j < s->P; j++) {
        uint32_t *v = s->sobol + (size_t)j * 32;
        do {
            polynomial++;
            if (polynomial >> (degree + 1)) degree++;
        } while (j && (!(polynomial & 1) || !flash__primitive(polynomial, degree)));
        if (!j) {
            polynomial = 2;
            degree = 1;
        }
        for (k = 0; k < 32; k++) {
            if (!j || k < degree) {
                /* bit k from the top is 1; random bits follow it if j is 0, else they precede it */
                uint32_t bits = (uint32_t)(flash__random(random) >> 32), one = 0x80000000u >> k;
                v[k] = one | (j ? bits & ~(2 * one - 1) : bits & (one - 1));
            } else {
                v[k] = v[k - degree] ^ v[k - degree] >> degree;
                for (i = 1; i < degree; i++)
                    if (polynomial >> (degree - i) & 1) v[k] ^= v[k - i];
            }
        }
    }
}

/* Computes the n-th point of the Sobol' sequence, with the bits of each coordinate flipped at
   random (by the seed, in the same way for all points). */
static void flash__sobol(const flash_search *s, uint32_t n, double *x)
{
    uint64_t shift = s->desc.seed ^ 0x5b0b01u;
    int j, k;
    for (j = 0; j < s->P; j++) {
        uint32_t bits = (uint32_t)(flash__random(&shift) >> 32);
        for (k = 0; k < 32; k++)
            if (n >> k & 1) bits ^= s->sobol[(size_t)j * 32 + (size_t)k];
        x[j] = flash__param_at(s->desc.param + j, (bits + 0.5) * 2.3283064365386963e-10);
    }
}

/* Finds a feasible point x that was not tried, among 4096 of the Sobol' sequence from the n-th on.
   Returns 0 if there is none. */
static int flash__fresh(const flash_search *s, uint32_t n, double *x)
{
    int i;
    for (i = 0; i < 4096; i++) {
        flash__sobol(s, n + (uint32_t)i, x);
        if (flash__settle(s, x) && !flash__tried(s, x)) return 1;
    }
    return 0;
}

/* Changes parameter j of x at random: a discrete one to any other value, a real one by a normal
   step of a tenth of its range. */
static void flash__mutate(const flash_search *s, int j, double *x, uint64_t *random)
{
    const flash_param *p = s->desc.param + j;
    double u;
    if (flash__param_discrete(p)) {
        int n = flash__param_count(p), i = flash__param_index(p, x[j]);
        if (n > 1)
            x[j] = flash__param_value(p, (i + 1 + (int)(flash__uniform(random) * (n - 1))) % n);
        return;
    }
    u = flash__param_unit(p, x[j]) + 0.1 * flash__normal(random);
    x[j] = flash__param_at(p, FLASH__MIN(FLASH__MAX(u, 0), 1));
}

/* ---- values ---- */

static double *flash__trial_x(const flash_search *s, int i)
{
    return s->x + (size_t)i * (size_t)s->P;
}
static double *flash__trial_y(const flash_search *s, int i)
{
    return s->y + (size_t)i * (size_t)s->values;
}

/* Returns 1 if value o is an objective that needs no trial. */
static int flash__known(const flash_search *s, int o)
{
    return o >= s->desc.n_objective ? o < s->m : o < s->m && s->desc.known[o] != NULL;
}
/* Returns objective o, which needs no trial, at x. A search of one objective has a second one that
   is always 0. */
static double flash__known_at(const flash_search *s, int o, const double *x)
{
    return o >= s->desc.n_objective ? 0 : s->desc.known[o](s->desc.user, x);
}

static int flash__good(const flash_search *s, const double *y) /* 1: all constraints hold */
{
    int k;
    for (k = s->m; k < s->values; k++)
        if (y[k] > 0) return 0;
    return 1;
}

/* Puts into s->index the numbers of the trials that are done and keep the constraints, among the
   first `told` trials that got values. Returns how many there are. */
static size_t flash__done_good(flash_search *s, int told)
{
    size_t n = 0;
    int i;
    for (i = 0; i < s->trials; i++)
        if (s->state[i] == FLASH_TRIAL_DONE && s->turn[i] < (uint32_t)told
            && flash__good(s, flash__trial_y(s, i)))
            s->index[n++] = (uint32_t)i;
    return n;
}

/* Like flash__done_good, and also copies the objectives of each of these trials into its row of
   s->row. */
static size_t flash__done_rows(flash_search *s, int told)
{
    size_t n = flash__done_good(s, told), m = (size_t)s->m, i;
    for (i = 0; i < n; i++)
        memcpy(s->row + s->index[i] * m, flash__trial_y(s, (int)s->index[i]), m * sizeof *s->row);
    return n;
}

/* Sets r [m] to the reference: the one that was given, or else, for each objective, the worst value
   of the front (rows index[n] of y [.,m]) plus a tenth of the range of the front, or 1/n of it if
   that is more, since the ends of a front of few points are not known yet. If the range is 0, the
   margin is a tenth of the size of the value. These are the rules of BoTorch's
   infer_reference_point and Trieste's get_reference_point. */
static void flash__reference(const flash_search *s, const double *y, const uint32_t *index,
                             size_t n, double *r)
{
    size_t i;
    int k;
    for (k = 0; k < s->m; k++) {
        double lo = 1e300, hi = -1e300;
        if (k >= s->desc.n_objective) {
            r[k] = 1;
            continue;
        }
        if (s->desc.reference) {
            r[k] = s->reference[k];
            continue;
        }
        for (i = 0; i < n; i++) {
            double v = y[index[i] * (size_t)s->m + (size_t)k];
            lo = FLASH__MIN(lo, v);
            hi = FLASH__MAX(hi, v);
        }
        if (!n) lo = hi = 0;
        r[k] = hi
            + (hi > lo ? FLASH__MAX(0.1, 1 / (double)n) * (hi - lo)
                       : 0.1 * FLASH__MAX(fabs(hi), 1e-7));
    }
}

/* ---- the model ---- */

/* Returns 1 if trial i is among the first `told` trials that got values. The values of an abandoned
   trial are the best that it could have reached. */
static int flash__has_values(const flash_search *s, int i, int told)
{
    return (s->state[i] == FLASH_TRIAL_DONE || s->state[i] == FLASH_TRIAL_ABANDONED)
        && s->turn[i] < (uint32_t)told;
}

/* Puts into s->index the numbers of the trials that are the points of the model: the first `told`
   trials that got values, in ascending order, and behind them, if pending is 1, those that are
   pending. Returns how many there are. */
static size_t flash__points(flash_search *s, int told, int pending)
{
    size_t n = 0;
    int i;
    for (i = 0; i < s->trials; i++)
        if (flash__has_values(s, i, told)) s->index[n++] = (uint32_t)i;
    for (i = 0; pending && i < s->trials; i++)
        if (s->state[i] == FLASH_TRIAL_PENDING) s->index[n++] = (uint32_t)i;
    return n;
}

/* Sets s->limit to the reference that follows from the first `told` trials that got values. */
static void flash__limits(flash_search *s, int told)
{
    size_t n = flash__front(s->row, s->m, s->index, flash__done_rows(s, told));
    flash__reference(s, s->row, s->index, n, s->limit);
}

/* Sets gp.y to value o of the first n points, in units of the model (mean 0, variance 1), and sets
   the shift and scale of these units. By how much an objective is worse than the reference does not
   matter, so the excess is replaced by a logarithm, and the process fits what does matter. Values
   far beyond the others are cut: a 1e9 that means "failed" would make all others look alike, and
   the square of 1e200 is not finite. */
static void flash__targets(flash_search *s, int o, size_t n)
{
    double mean = 0, variance = 0, least = 1e300, limit = o < s->m ? s->limit[o] : 0, v, middle,
           *y = s->gp.y;
    flash__rows order;
    int turn;
    size_t i;
    for (i = 0; i < n; i++) {
        y[i] = flash__trial_y(s, (int)s->index[i])[o];
        least = FLASH__MIN(least, y[i]);
        s->work[i] = (uint32_t)i;
    }
    order.y = y;
    order.m = 1;
    order.first = 0;
    flash__sort(s->work, n, flash__row_less, &order);
    middle = FLASH__MAX(limit, y[s->work[n / 2]]);
    v = middle > least ? FLASH__MIN(middle + 5 * (middle - least), 1e150) : 1e150;
    for (i = 0; i < n; i++) y[i] = FLASH__MAX(FLASH__MIN(y[i], v), -1e150);
    for (turn = o < s->m ? 0 : 1; turn < 2; turn++) {
        for (mean = 0, i = 0; i < n; i++) mean += y[i] / (double)n;
        for (variance = 0, i = 0; i < n; i++) variance += (y[i] - mean) * (y[i] - mean) / (double)n;
        v = FLASH__MAX(3 * (limit - least), sqrt(variance));
        for (i = 0; !turn && v > 0 && i < n; i++)
            if (y[i] > limit) y[i] = limit + v * flash__log1p((y[i] - limit) / v);
    }
    s->shift[o] = mean;
    s->scale[o] = FLASH__MAX(sqrt(variance), 1e-12 * FLASH__MAX(fabs(mean), 1));
    for (i = 0; i < n; i++) y[i] = (y[i] - mean) / s->scale[o];
}

static void flash__load_inputs(flash_search *s, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        flash__inputs(s, flash__trial_x(s, (int)s->index[i]), s->gp.x + i * (size_t)s->P);
}

/* Returns how many of n values are used to fit theta (length scales and variances): all of them up
   to 64; beyond that theta is fitted anew only when there are a sixteenth more values. */
static int flash__fit_at(int n)
{
    int at = 64;
    if (n <= at) return n;
    while (at + at / 16 <= n) at += at / 16;
    return at;
}

/* Fits theta of every output that is not known. Uses the first flash__fit_at(told) values and none
   that came later, so that a search that runs on and one that replays its journal choose the same.
   Returns 0 if no fit is found. */
static int flash__model_fit(flash_search *s)
{
    int o, n = flash__fit_at(s->told);
    double noise;
    if (n == s->fitted) return 1;
    s->fitted = 0;
    flash__limits(s, n);
    flash__points(s, n, 0);
    for (o = 0; o < s->values; o++) {
        if (flash__known(s, o)) continue;
        s->gp.n = (size_t)n;
        s->gp.priors = 1;
        flash__load_inputs(s, (size_t)n);
        flash__targets(s, o, (size_t)n);
        noise = s->noise[o] / s->scale[o];
        s->gp.noise = noise > 0 ? 2 * flash__log(FLASH__MAX(noise, 0.002))
            : s->desc.noisy     ? -3
                                : -9;
        /* A known noise may be off by about a tenth of its standard deviation: that is 0.2 in the
           logarithm of its variance, and 0.04 is the square of it. */
        s->gp.noise_spread = noise > 0 ? 0.04 : 4;
        if (!flash__gp_fit(&s->gp, 2, n > 96 ? 12 : 18)) return 0;
        memcpy(s->theta[o], s->gp.theta, sizeof s->gp.theta);
    }
    s->fitted = n;
    return 1;
}

/* Sets k[o] to the kernel between z and the points, for output o, and slope[o] to its derivatives.
   If z differs from the centre in at most four inputs, the distances are those of the centre
   plus the change that these inputs make. */
static void flash__near(flash_search *s, int o, const double *z)
{
    const flash__gp *g = &s->gp;
    const double *w = s->w[o], *at = g->x, *c = s->centre;
    size_t i;
    int changed[4], n = 0, j, t;
    for (j = 0; j < s->P && n <= 4 && s->centred; j++)
        if (z[j] < c[j] || z[j] > c[j]) {
            if (n < 4) changed[n] = j;
            n++;
        }
    for (i = 0; i < g->n; i++, at += s->P) {
        double r2 = s->r2[o][i];
        if (!s->centred || n > 4)
            r2 = flash__gp_distance(g, w, z, at);
        else
            for (t = 0; t < n; t++) {
                j = changed[t];
                r2 += w[j]
                    * (j < s->P - s->categories
                           ? flash__gp_plain(z[j], at[j]) - flash__gp_plain(c[j], at[j])
                           : flash__gp_category(z[j], at[j]) - flash__gp_category(c[j], at[j]));
            }
        s->k[o][i] = r2 > 0 ? r2 : 0;
    }
    flash__gp_kernels(s->sf2[o], g->n, s->k[o], s->slope[o]);
}

/* Makes x the centre, so that points which differ from x in a few inputs are judged faster. */
static void flash__centre(flash_search *s, const double *x)
{
    size_t i;
    int o;
    flash__inputs(s, x, s->centre);
    for (o = 0; o < s->values; o++)
        for (i = 0; !flash__known(s, o) && i < s->gp.n; i++)
            s->r2[o][i] = flash__gp_distance(&s->gp, s->w[o], s->centre,
                                             s->gp.x + i * (size_t)s->P);
    s->centred = 1;
}

/* Prepares the process of output o at n points, of which the first `done` have values. The others
   are pending and get the mean that the process predicts, so that they count as known but teach
   nothing (Ginsbourger et al. 2010: the kriging believer). s->f becomes the values at the points:
   as they are if they are exact; if they are noisy, the posterior means, or with two objectives
   samples of the posterior. Each sample has a front of its own, and predictions from it take it as
   exact. Predictions of a constraint come from the process itself and not from a sample. Returns 0
   if a matrix cannot be factored. */
static int flash__model_output(flash_search *s, int o, size_t n, size_t done, uint64_t *random)
{
    flash__gp *g = &s->gp;
    double noise, *z;
    size_t i, j, c;
    g->n = done;
    flash__targets(s, o, done);
    memcpy(g->theta, s->theta[o], sizeof g->theta);
    s->sf2[o] = flash__gp_weights(g, s->w[o]);
    if (!flash__gp_factor(g)) return 0;
    if (n > done) {
        for (i = done; i < n; i++) {
            flash__near(s, o, g->x + i * (size_t)s->P);
            g->y[i] = flash__dot64(s->k[o], g->alpha, done);
        }
        g->n = n;
        if (!flash__gp_factor(g)) return 0;
    }
    flash__inverse(g->L, g->rows, g->inverse, n);
    /* The posterior at the points has the mean y - noise alpha and the covariance
       noise I - noise^2 A^-1. */
    noise = s->desc.noisy ? flash__exp(g->theta[s->P + 1]) : 0;
    for (i = 0; i < n; i++) s->f[o][i] = s->mean[o][i] = g->y[i] - noise * g->alpha[i];
    if (s->samples > 1) {
        for (i = 0; i < n; i++)
            for (j = 0; j <= i; j++)
                g->rows[i * n + j] = noise * ((i == j) * 1.000001 - noise * g->inverse[i * n + j]);
        if (!flash__cholesky(g->rows, n)) return 0;
        for (c = 0; c < (size_t)s->samples; c++) {
            z = s->beta[o] + c * n;
            for (i = 0; i < n; i++) z[i] = flash__normal(random);
            for (i = 0; i < n; i++)
                s->f[o][c * n + i] = s->mean[o][i] + flash__dot64(g->rows + i * n, z, i + 1);
        }
    }
    memcpy(s->beta[o], g->alpha, n * sizeof *g->alpha);
    if (s->samples > 1 && o < s->m) {
        g->theta[s->P + 1] = g->theta[s->P] - 13.8; /* samples are exact */
        if (!flash__gp_factor(g)) return 0;
        for (c = 0; c < (size_t)s->samples; c++) {
            z = s->beta[o] + c * n;
            memcpy(z, s->f[o] + c * n, n * sizeof *z);
            flash__solve_lower(g->L, z, n);
            flash__solve_upper(g->L, z, n);
        }
        flash__inverse(g->L, g->rows, g->inverse, n);
    }
    memcpy(s->Q[o], g->inverse, n * n * sizeof *g->inverse);
    return 1;
}

/* Draws the points s->u, by which more than two objectives are judged: points in the box from
   somewhat beyond the best values of a front to the reference, which the front does not dominate
   and which lie near some point of it. front: [n] its rows in s->row. Points farther away are out
   of reach, and would leave few points where a trial makes a difference. As long as the front has
   no point near the reference, all of the box is far and the distance does not count. */
static void flash__volume_points(flash_search *s, const uint32_t *front, size_t n, uint64_t *random)
{
    double lo[FLASH_SEARCH_OBJECTIVES_MAX], beyond[FLASH_SEARCH_OBJECTIVES_MAX];
    int turn, k, m = s->m, away, near_it = 0;
    size_t i;
    for (k = 0; k < m; k++) {
        lo[k] = s->r[k] - 1;
        for (i = 0; i < n; i++) lo[k] = FLASH__MIN(lo[k], s->row[front[i] * (size_t)m + (size_t)k]);
        lo[k] -= 0.2 * (s->r[k] - lo[k]);
        beyond[k] = s->r[k] + 0.2 * (s->r[k] - lo[k]);
    }
    for (i = 0; i < n; i++) near_it |= flash__covers(s->row + front[i] * (size_t)m, beyond, m);
    for (s->log_volume = 0, k = 0; k < m; k++) s->log_volume += flash__log(s->r[k] - lo[k]);
    for (s->n_u = turn = 0; turn < 16 * FLASH__SEARCH_VOLUME && s->n_u < FLASH__SEARCH_VOLUME;
         turn++) {
        double *u = s->u + s->n_u * m;
        for (k = 0; k < m; k++) {
            u[k] = lo[k] + flash__uniform(random) * (s->r[k] - lo[k]);
            beyond[k] = u[k] + 0.2 * (s->r[k] - lo[k]);
        }
        for (away = near_it, i = 0; i < n; i++) {
            const double *row = s->row + front[i] * (size_t)m;
            if (flash__covers(row, u, m)) break;
            if (flash__covers(row, beyond, m)) away = 0;
        }
        s->n_u += i == n && !away;
    }
    s->log_volume += flash__log(FLASH__MAX(s->n_u, 1) / (double)turn);
}

/* Prepares everything that flash__judge needs. Returns 0 if there are fewer than 4 values or if
   they cannot be fitted. */
static int flash__model(flash_search *s, uint64_t *random)
{
    size_t done = (size_t)s->told, n, i, c, kept;
    int o, m = s->m;
    s->centred = 0;
    if (done < 4 || !flash__model_fit(s)) return 0;
    flash__limits(s, s->told);
    n = flash__points(s, s->told, 1);
    flash__load_inputs(s, n);
    for (o = 0; o < s->values; o++) {
        if (!flash__known(s, o)) {
            if (!flash__model_output(s, o, n, done, random)) return 0;
        } else {
            s->shift[o] = 0;
            s->scale[o] = 1;
            for (c = 0; c < (size_t)s->samples; c++)
                for (i = 0; i < n; i++)
                    s->f[o][c * n + i] = s->mean[o][i] = flash__trial_y(s, (int)s->index[i])[o];
        }
    }
    for (o = 0; o < m; o++) s->r[o] = (s->limit[o] - s->shift[o]) / s->scale[o];
    s->gp.n = n;
    for (c = 0; c < (size_t)s->samples; c++) { /* the front of each sample */
        uint32_t *index = s->work, *count = s->n_front + c;
        for (kept = i = 0; i < n; i++) {
            for (o = m; o < s->values && s->f[o][c * n + i] <= -s->shift[o] / s->scale[o]; o++) {}
            if (o < s->values) continue;
            for (o = 0; o < m; o++) s->row[i * (size_t)m + (size_t)o] = s->f[o][c * n + i];
            index[kept++] = (uint32_t)i;
        }
        kept = flash__front(s->row, m, index, kept);
        for (*count = 0, i = 0; i < kept; i++) {
            const double *row = s->row + index[i] * (size_t)m;
            for (o = 0; o < m && row[o] < s->r[o]; o++) {}
            if (o < m) continue;
            s->a[c * n + *count] = row[0];
            s->b[c * n + *count] = row[1];
            ++*count;
        }
        if (!c && m > 2) flash__volume_points(s, index, kept, random);
    }
    return 1;
}

/* ---- judging a point ---- */

/* Returns the logarithm of the growth of the hypervolume that is expected of a point with the
   predictions v: the average over the samples, times the probability that all constraints hold.
   g_m, g_s: [values][samples] and [values] become its derivatives by the means and the standard
   deviations. */
static double flash__growth(const flash_search *s, const flash__outlook *v,
                            double g_m[][FLASH__SEARCH_SAMPLES], double *g_s)
{
    double sum = FLASH__NOTHING, one, dm[FLASH_SEARCH_OBJECTIVES_MAX],
           ds[FLASH_SEARCH_OBJECTIVES_MAX], mean[2], slope;
    int c, o, k, i, m = s->m, samples = m == 2 ? s->samples : 1;
    for (o = 0; o < s->values; o++) {
        g_s[o] = 0;
        for (c = 0; c < s->samples; c++) g_m[o][c] = 0;
    }
    for (c = 0; c < samples && m == 2; c++) {
        double all, old, share;
        for (o = 0; o < 2; o++) mean[o] = v->mean[o][c];
        one = flash__log_ehvi(s->a + (size_t)c * s->gp.n, s->b + (size_t)c * s->gp.n, s->n_front[c],
                              s->r, mean, v->sd, dm, ds);
        if (one <= FLASH__NOTHING) continue;
        all = flash__log_add(sum, one);
        old = flash__exp(sum - all);
        share = flash__exp(one - all);
        for (o = 0; o < 2; o++) {
            for (k = 0; k < c; k++) g_m[o][k] *= old;
            g_m[o][c] = share * dm[o];
            g_s[o] = old * g_s[o] + share * ds[o];
        }
        sum = all;
    }
    for (i = 0; i < s->n_u && m > 2; i++) {
        const double *u = s->u + i * m;
        double all, old, share;
        for (one = 0, o = 0; o < m; o++) {
            double z, sd = v->sd[o];
            dm[o] = ds[o] = 0;
            if (!(sd > 0)) {
                if (u[o] < v->mean[o][0]) one = FLASH__NOTHING;
                continue;
            }
            z = (u[o] - v->mean[o][0]) / sd;
            one += flash__log_normal(z, &slope);
            dm[o] = -slope / sd;
            ds[o] = -slope * z / sd;
        }
        if (one <= FLASH__NOTHING) continue;
        all = flash__log_add(sum, one);
        old = flash__exp(sum - all);
        share = flash__exp(one - all);
        for (o = 0; o < m; o++) {
            g_m[o][0] = old * g_m[o][0] + share * dm[o];
            g_s[o] = old * g_s[o] + share * ds[o];
        }
        sum = all;
    }
    if (sum <= FLASH__NOTHING) return sum;
    sum -= flash__log(m == 2 ? samples : s->n_u);
    if (m > 2) sum += s->log_volume;
    for (o = m; o < s->values; o++) { /* the probability that each constraint holds */
        double z = (-s->shift[o] / s->scale[o] - v->mean[o][0]) / v->sd[o];
        sum += flash__log_normal(z, &slope);
        g_m[o][0] = -slope / v->sd[o];
        g_s[o] = -slope * z / v->sd[o];
    }
    return sum;
}

/* Returns the standard deviation of output o at the point that flash__near was given last. */
static double flash__deviation(const flash_search *s, int o)
{
    const double *k = s->k[o];
    double variance = 0;
    size_t n = s->gp.n, i;
    for (i = 0; i < n; i++) { /* k'Qk, by the lower triangle of Q */
        const double *row = s->Q[o] + i * n;
        variance += k[i] * (2 * flash__dot64(row, k, i) + row[i] * k[i]);
    }
    return sqrt(FLASH__MAX(s->sf2[o] - variance, 1e-12 * s->sf2[o]));
}

/* Returns how promising x is: the logarithm of the expected growth of the hypervolume, in the units
   of the model. grad: [P] becomes its derivatives by the inputs of the real parameters, and 0 for
   the others; may be NULL. */
static double flash__judge(flash_search *s, const double *x, double *grad)
{
    flash__outlook v;
    double z[FLASH_SEARCH_PARAMS_MAX], g_m[FLASH_SEARCH_VALUES_MAX][FLASH__SEARCH_SAMPLES],
        g_s[FLASH_SEARCH_VALUES_MAX], value;
    size_t n = s->gp.n, i, c;
    int o, j;
    flash__inputs(s, x, z);
    for (o = 0; o < s->values; o++) {
        size_t samples = (size_t)(o < s->m ? s->samples : 1);
        v.sd[o] = 0;
        if (flash__known(s, o)) {
            value = flash__known_at(s, o, x);
            if (!flash__finite(value)) return FLASH__NOTHING;
            for (c = 0; c < samples; c++) v.mean[o][c] = value;
            if (value >= s->r[o]) return FLASH__NOTHING;
            continue;
        }
        flash__near(s, o, z);
        for (c = 0; c < samples; c++) v.mean[o][c] = flash__dot64(s->k[o], s->beta[o] + c * n, n);
        v.sd[o] = flash__deviation(s, o);
    }
    value = flash__growth(s, &v, g_m, g_s);
    if (!grad || value <= FLASH__NOTHING) return value;
    for (j = 0; j < s->P; j++) grad[j] = 0;
    for (o = 0; o < s->values; o++) {
        if (flash__known(s, o)) {
            double total = 0, there[FLASH_SEARCH_PARAMS_MAX], up, down, u;
            for (c = 0; c < (size_t)s->samples; c++) total += g_m[o][c];
            for (j = 0; j < s->P; j++) { /* by differences: the caller gives no derivative */
                const flash_param *p = s->desc.param + j;
                if (flash__param_discrete(p)) continue;
                memcpy(there, x, (size_t)s->P * sizeof *x);
                u = flash__param_unit(p, x[j]);
                there[j] = flash__param_at(p, FLASH__MIN(u + 1e-5, 1));
                up = flash__known_at(s, o, there);
                there[j] = flash__param_at(p, FLASH__MAX(u - 1e-5, 0));
                down = flash__known_at(s, o, there);
                up = (up - down) / (FLASH__MIN(u + 1e-5, 1) - FLASH__MAX(u - 1e-5, 0));
                if (flash__finite(up)) grad[j] += total * up;
            }
            continue;
        }
        for (i = 0; i < n; i++) { /* by: derivative by k_i, through the means and deviation */
            double by = -g_s[o] * flash__dot64(s->Q[o] + i * n, s->k[o], n) / v.sd[o];
            const double *point = s->gp.x + i * (size_t)s->P;
            for (c = 0; c < (size_t)(o < s->m ? s->samples : 1); c++)
                by += g_m[o][c] * s->beta[o][c * n + i];
            by *= 2 * s->slope[o][i];
            for (j = 0; j < s->P; j++) {
                int t = s->slot[j];
                if (!flash__param_discrete(s->desc.param + j))
                    grad[j] += by * s->w[o][t] * (z[t] - point[t]);
            }
        }
    }
    return value;
}

/* Sets x to s->from, but with its real parameters at z [P], which are in [0, 1]. */
static void flash__reals(const flash_search *s, const double *z, double *x)
{
    int j;
    memcpy(x, s->from, (size_t)s->P * sizeof *x);
    for (j = 0; j < s->P; j++)
        if (!flash__param_discrete(s->desc.param + j))
            x[j] = flash__param_at(s->desc.param + j, z[j]);
    flash__canonical(s, x);
}
/* Returns -flash__judge at such an x, and its gradient, for flash__minimise. */
static double flash__judge_reals(void *ctx, const double *z, double *grad)
{
    flash_search *s = (flash_search *)ctx;
    double x[FLASH_SEARCH_PARAMS_MAX], value;
    int j;
    flash__reals(s, z, x);
    for (j = 0; j < s->P; j++) grad[j] = 0;
    if (s->desc.feasible && !s->desc.feasible(s->desc.user, x)) return 1e300;
    value = flash__judge(s, x, grad);
    for (j = 0; j < s->P; j++) grad[j] = -grad[j];
    return -value;
}

/* Tries a change of x: parameter j becomes v, or if k >= 0 parameters j and k exchange their
   values. If the result is feasible, not tried yet and better than *best, it replaces x, its score
   becomes *best, and 1 is returned. Returns 0 if x stays. */
static int flash__try(flash_search *s, double *x, double *best, int j, int k, double v)
{
    double there[FLASH_SEARCH_PARAMS_MAX], score;
    memcpy(there, x, (size_t)s->P * sizeof *x);
    there[j] = k < 0 ? v : x[k];
    if (k >= 0) there[k] = x[j];
    flash__canonical(s, there);
    if (s->desc.feasible && !s->desc.feasible(s->desc.user, there)) return 0;
    if (flash__tried(s, there)) return 0;
    score = flash__judge(s, there, NULL);
    if (!(score > *best)) return 0;
    *best = score;
    memcpy(x, there, (size_t)s->P * sizeof *x);
    flash__centre(s, x);
    return 1;
}

/* Improves x, whose score is best, until no change of one discrete parameter, no exchange of two
   alike parameters and no search along the real ones makes it more promising, or for 16 turns.
   Returns the score of x. */
static double flash__climb(flash_search *s, double *x, double best)
{
    const flash_param *param = s->desc.param;
    double lo[FLASH_SEARCH_PARAMS_MAX], hi[FLASH_SEARCH_PARAMS_MAX], z[FLASH_SEARCH_PARAMS_MAX],
        there[FLASH_SEARCH_PARAMS_MAX], value;
    int turn, better, j, k, i, n, reals = 0;
    flash__centre(s, x);
    for (turn = 0; turn < 16; turn++) {
        for (better = j = 0; j < s->P; j++) {
            if (!flash__param_discrete(param + j)) {
                reals = 1;
                continue;
            }
            n = flash__param_count(param + j);
            if (n <= 16)
                for (i = 0; i < n; i++)
                    better |= flash__try(s, x, &best, j, -1, flash__param_value(param + j, i));
            else
                for (i = 1; i < n; i *= 4) /* many values: steps of 1, 4, 16, ... both ways */
                    for (k = -i; k <= i; k += 2 * i) {
                        int to = flash__param_index(param + j, x[j]) + k;
                        if (to >= 0 && to < n)
                            better |= flash__try(s, x, &best, j, -1,
                                                 flash__param_value(param + j, to));
                    }
        }
        if (reals) {
            s->from = x;
            for (j = 0; j < s->P; j++) {
                lo[j] = hi[j] = z[j] = 0;
                if (flash__param_discrete(param + j)) continue;
                hi[j] = 1;
                z[j] = flash__param_unit(param + j, x[j]);
            }
            value = -flash__minimise(flash__judge_reals, s, z, lo, hi, s->P, 24);
            flash__reals(s, z, there);
            if (value > best + 1e-9 && !flash__tried(s, there)) {
                better |= value > best + 1e-4;
                best = value;
                memcpy(x, there, (size_t)s->P * sizeof *x);
                flash__centre(s, x);
            }
            if (better && turn > 3) break;
        }
        if (better) continue;
        for (j = 0; j < s->P; j++)
            for (k = j + 1; k < s->P && flash__param_discrete(param + j); k++) {
                if (param[j].kind != param[k].kind
                    || flash__param_count(param + j) != flash__param_count(param + k)
                    || !(x[j] < x[k] || x[j] > x[k]))
                    continue;
                better |= flash__try(s, x, &best, j, k, 0);
            }
        if (!better) break;
    }
    return best;
}

/* Sets x to that one of the n points drawn at which the predictions are the most uncertain: where
   the product of their standard deviations is largest. */
static void flash__least_known(flash_search *s, size_t n, double *x)
{
    double z[FLASH_SEARCH_PARAMS_MAX], value, top = -1;
    size_t P = (size_t)s->P, i;
    int o;
    for (i = 0; i < n; i++) {
        flash__inputs(s, s->draw + i * P, z);
        for (value = 1, o = 0; o < s->values; o++) {
            if (flash__known(s, o)) continue;
            flash__near(s, o, z);
            value *= flash__deviation(s, o);
        }
        if (value <= top) continue;
        top = value;
        memcpy(x, s->draw + i * P, P * sizeof *x);
    }
}

/* Sets x to the most promising point: draws many points, two thirds from all of the space and one
   third near the front, judges them, and lets some of the best climb. If no growth is expected of
   any of them, x is the most uncertain one. Returns 0 if no point is found. */
static int flash__propose(flash_search *s, int id, uint64_t *random, double *x)
{
    /* Judging by samples, or more than two objectives, takes longer, so fewer points are drawn. */
    size_t P = (size_t)s->P, i, n = 0, start, best, few = s->samples > 1 ? 4 : s->m > 2 ? 2 : 1;
    size_t front = flash__front(s->row, s->m, s->index, flash__done_rows(s, s->told));
    double mean = 0, sd = 0, top = FLASH__NOTHING, value;
    int turn, j, kept = 0, found = 0;
    for (turn = 0; turn < 2 * FLASH__SEARCH_DRAWS && n < FLASH__SEARCH_DRAWS / few; turn++) {
        double *there = s->draw + n * P;
        if (turn % 3 || !front)
            flash__sobol(s, (uint32_t)(id * FLASH__SEARCH_DRAWS + turn), there);
        else {
            size_t one = (size_t)(flash__uniform(random) * (double)front);
            memcpy(there, flash__trial_x(s, (int)s->index[one]), P * sizeof *there);
            for (j = 0; j < 3 && (!j || flash__uniform(random) < 0.6); j++)
                flash__mutate(s, (int)(flash__uniform(random) * s->P), there, random);
        }
        if (flash__settle(s, there) && !flash__tried(s, there)) n++;
    }
    for (i = 0; i < n; i++) {
        s->score[i] = flash__judge(s, s->draw + i * P, NULL);
        if (s->score[i] <= FLASH__NOTHING) continue;
        mean += s->score[i];
        kept++;
    }
    if (!kept) flash__least_known(s, n, x);
    if (!kept) return n > 0;
    mean /= kept;
    for (i = 0; i < n; i++)
        if (s->score[i] > FLASH__NOTHING) sd += (s->score[i] - mean) * (s->score[i] - mean) / kept;
    sd = sqrt(sd) + 1e-9;
    for (best = i = 0; i < n; i++) { /* Gumbel noise: Boltzmann sampling without replacement */
        s->key[i] = s->score[i] <= FLASH__NOTHING ? FLASH__NOTHING
                                                  : 2 * (s->score[i] - mean) / sd
                - flash__log(-flash__log(flash__uniform(random) + 1e-17));
        if (s->score[i] > s->score[best]) best = i;
    }
    for (start = 0; start < FLASH__SEARCH_STARTS / few; start++) {
        if (start)
            for (best = 0, i = 1; i < n; i++)
                if (s->key[i] > s->key[best]) best = i;
        if (s->key[best] <= FLASH__NOTHING) break;
        s->key[best] = FLASH__NOTHING;
        value = flash__climb(s, s->draw + best * P, s->score[best]);
        if (value > top) {
            top = value;
            found = 1;
            memcpy(x, s->draw + best * P, P * sizeof *x);
        }
    }
    for (value = 1, j = 0; j < s->desc.n_objective; j++) value *= s->scale[j];
    s->expected = flash__exp(top) * value; /* in units of the objectives */
    return found;
}

/* ---- NSGA-II ---- */

/* Order of selection, for flash__sort: by rank, then by crowding distance, the larger one first. */
static int flash__fitter(const void *ctx, uint32_t i, uint32_t j)
{
    const flash_search *s = (const flash_search *)ctx;
    if (s->rank[i] != s->rank[j]) return s->rank[i] < s->rank[j];
    if (s->crowd[i] < s->crowd[j] || s->crowd[i] > s->crowd[j]) return s->crowd[i] > s->crowd[j];
    return i < j;
}

/* Computes s->rank and s->crowd of n rows of objectives, s->row [n,m]. Rows that keep the
   constraints have the rank of their front, from 0. The others have ranks behind all of these, in
   the order of their violation [n], which is the sum of their constraint values above 0. */
static void flash__rank(flash_search *s, size_t n, const double *violation)
{
    uint32_t *left = s->work, rank = 0;
    size_t count = 0, i, j, kept;
    int k, m = s->m;
    for (i = 0; i < n; i++) {
        s->crowd[i] = 0;
        s->rank[i] = (uint32_t)(2 * n);
        if (!(violation[i] > 0)) {
            left[count++] = (uint32_t)i;
            continue;
        }
        s->rank[i] = (uint32_t)n;
        for (j = 0; j < n; j++) s->rank[i] += violation[j] < violation[i];
    }
    while (count) {
        kept = flash__front(s->row, m, left, count);
        for (i = 0; i < kept; i++) s->rank[left[i]] = rank;
        for (k = 0; k < m; k++) {
            flash__rows c;
            double range;
            c.y = s->row;
            c.m = m;
            c.first = k;
            flash__sort(left, kept, flash__row_less, &c);
            range = s->row[left[kept - 1] * (size_t)m + (size_t)k]
                - s->row[left[0] * (size_t)m + (size_t)k];
            s->crowd[left[0]] = s->crowd[left[kept - 1]] = 1e300;
            for (i = 1; i + 1 < kept && range > 0; i++)
                s->crowd[left[i]] += (s->row[left[i + 1] * (size_t)m + (size_t)k]
                                      - s->row[left[i - 1] * (size_t)m + (size_t)k])
                    / range;
        }
        rank++;
        count -= kept;
        memmove(left, left + kept, count * sizeof *left);
    }
}

/* Selects new parents, the fittest `population` of the last parents and the next `population`
   trials. */
static void flash__generation(flash_search *s)
{
    int i, k, n = s->parents, pop = s->desc.population, next = s->bred + pop;
    for (i = s->bred; i < next; i++)
        if (s->state[i] == FLASH_TRIAL_DONE) s->parent[n++] = (uint32_t)i;
    for (i = 0; i < n; i++) {
        const double *y = flash__trial_y(s, (int)s->parent[i]);
        memcpy(s->row + (size_t)i * (size_t)s->m, y, (size_t)s->m * sizeof *y);
        for (s->key[i] = 0, k = s->m; k < s->values; k++) s->key[i] += FLASH__MAX(y[k], 0);
    }
    flash__rank(s, (size_t)n, s->key);
    for (i = 0; i < n; i++) s->index[i] = (uint32_t)i;
    flash__sort(s->index, (size_t)n, flash__fitter, s);
    s->parents = FLASH__MIN(n, pop);
    for (i = 0; i < n; i++) s->work[i] = s->parent[s->index[i]];
    memcpy(s->parent, s->work, (size_t)s->parents * sizeof *s->parent);
    for (i = 0; i < s->parents; i++) { /* sorted: the earlier of two parents is fitter */
        s->key[i] = s->crowd[s->index[i]];
        s->work[i] = s->rank[s->index[i]];
    }
    memcpy(s->crowd, s->key, (size_t)s->parents * sizeof *s->crowd);
    memcpy(s->rank, s->work, (size_t)s->parents * sizeof *s->rank);
    s->bred = next;
}

/* Copies n parents from one place of their arrays to another. */
static void flash__copy_parents(flash_search *s, int to, int from, int n)
{
    memcpy(s->parent + to, s->parent + from, (size_t)n * sizeof *s->parent);
    memcpy(s->rank + to, s->rank + from, (size_t)n * sizeof *s->rank);
    memcpy(s->crowd + to, s->crowd + from, (size_t)n * sizeof *s->crowd);
}

/* Selects parents from all generations that are complete: all of their trials were asked for. */
static void flash__breed(flash_search *s)
{
    while (s->bred + s->desc.population <= s->trials) flash__generation(s);
}

/* Simulated binary crossover of one coordinate in [0, 1] with index 15 (Deb and Agrawal 1995). The
   two children replace *a and *b, in either order with the same probability. */
static void flash__cross(double *a, double *b, uint64_t *random)
{
    double lo = FLASH__MIN(*a, *b), hi = FLASH__MAX(*a, *b), u = flash__uniform(random), side, q,
           c[2];
    int i;
    if (hi - lo < 1e-14) return;
    for (i = 0; i < 2; i++) {
        side = 1 + 2 * (i ? 1 - hi : lo) / (hi - lo);
        q = 2 - flash__exp(-16 * flash__log(side));
        q = u <= 1 / q ? u * q : 1 / (2 - u * q);
        q = q > 0 ? flash__exp(flash__log(q) / 16) : 0;
        c[i] = 0.5 * (lo + hi + (i ? q : -q) * (hi - lo));
        c[i] = FLASH__MIN(FLASH__MAX(c[i], 0), 1);
    }
    i = flash__uniform(random) < 0.5;
    *a = c[i];
    *b = c[!i];
}
/* Returns v in [0, 1] after polynomial mutation with index 20 (Deb and Goyal 1996). */
static double flash__nudge(double v, uint64_t *random)
{
    double u = flash__uniform(random), room = u < 0.5 ? v : 1 - v, q;
    q = u < 0.5 ? 2 * u : 2 * (1 - u);
    q = q + (1 - q) * flash__exp(21 * flash__log(FLASH__MAX(1 - room, 1e-300)));
    q = q > 0 ? flash__exp(flash__log(q) / 21) : 0;
    v += u < 0.5 ? q - 1 : 1 - q;
    return FLASH__MIN(FLASH__MAX(v, 0), 1);
}

/* Sets x to one of the two children of a pair of parents. Trials id and id ^ 1 get the two children
   of the same pair. again: number of the attempt, from 0; each has other random numbers. */
static void flash__child(const flash_search *s, int id, int again, double *x)
{
    uint64_t random = flash__stream(s, id / 2 * 4096 + again);
    double both[2][FLASH_SEARCH_PARAMS_MAX], unit[2];
    int pick[2], i, j, cross;
    for (i = 0; i < 2; i++) {
        int a = (int)(flash__uniform(&random) * s->parents),
            b = (int)(flash__uniform(&random) * s->parents);
        /* binary tournament: parents are sorted, so the lower index is the fitter one */
        pick[i] = s->rank[a] == s->rank[b]
                && !(s->crowd[a] < s->crowd[b] || s->crowd[a] > s->crowd[b])
            ? a
            : FLASH__MIN(a, b);
        memcpy(both[i], flash__trial_x(s, (int)s->parent[pick[i]]), (size_t)s->P * sizeof *x);
    }
    cross = flash__uniform(&random) < 0.9;
    for (j = 0; j < s->P; j++) {
        const flash_param *p = s->desc.param + j;
        double chance = FLASH__MIN(0.5, 1.0 / s->P);
        for (i = 0; i < 2; i++) unit[i] = flash__param_unit(p, both[i][j]);
        if (cross && flash__uniform(&random) < 0.5) {
            if (p->kind == FLASH_PARAM_CATEGORY) {
                double v = unit[0];
                unit[0] = unit[1];
                unit[1] = v;
            } else
                flash__cross(&unit[0], &unit[1], &random);
        }
        for (i = 0; i < 2; i++) {
            int moves = flash__uniform(&random) < chance;
            if (!flash__param_discrete(p) && moves) unit[i] = flash__nudge(unit[i], &random);
            both[i][j] = flash__param_at(p, unit[i]);
            if (flash__param_discrete(p) && moves) flash__mutate(s, j, both[i], &random);
        }
    }
    memcpy(x, both[id & 1], (size_t)s->P * sizeof *x);
}

/* ---- numbers and lines of the journal ---- */

/* Computes the first 17 significant digits of |v|, rounded to nearest with ties to even, and the
   decimal exponent of the first digit. They are exact, because v = m 2^e is an integer, or for
   negative e the integer m 5^-e divided by 10^-e. Returns 0 if v is 0. */
static int flash__digits(double v, char *digits, int *exponent)
{
    enum { BASE = 1000000000 };
    uint32_t n[96];
    uint64_t u = flash__f64_bits(v) & 0x7fffffffffffffffu, m = u & 0xfffffffffffffu;
    int e = (int)(u >> 52), size = 0, i, at, left, count = 0;
    char all[96 * 9 + 1];
    if (!u) return 0;
    if (e) m |= 0x10000000000000u;
    e = (e ? e : 1) - 1075;
    for (; m; m /= BASE) n[size++] = (uint32_t)(m % BASE);
    for (left = e < 0 ? -e : e; left; left -= at) { /* times 2^e or 5^-e, 12 factors at a time */
        uint32_t factor = 1;
        uint64_t carry = 0;
        for (at = 0; at < left && at < 12; at++) factor *= e < 0 ? 5 : 2;
        for (i = 0; i < size; i++) {
            carry += (uint64_t)n[i] * factor;
            n[i] = (uint32_t)(carry % BASE);
            carry /= BASE;
        }
        if (carry) n[size++] = (uint32_t)carry;
    }
    for (i = size; i-- > 0;)
        for (at = BASE / 10; at; at /= 10) {
            int d = (int)(n[i] / (uint32_t)at % 10);
            if (count || d) all[count++] = (char)('0' + d);
        }
    *exponent = count - 1 + FLASH__MIN(e, 0);
    for (i = 0; i < 17; i++) digits[i] = i < count ? all[i] : '0';
    for (i = count - 1; i > 17 && all[i] == '0'; i--) {}
    if (count > 17 && (i > 17 || all[17] != '5' ? all[17] >= '5' : all[16] & 1)) { /* tie: even */
        for (i = 16; i >= 0 && ++digits[i] > '9'; i--) digits[i] = '0';
        if (i < 0) {
            digits[0] = '1';
            ++*exponent;
        }
    }
    return 1;
}

/* Reads the number at *p and moves *p behind it. Returns 0 if there is none or if it is too large.
   What flash__put_number wrote is read exactly; of another text the result may be wrong by some
   units in the last place. */
static int flash__number(const char **p, const char *end, double *to)
{
    char digits[17], same[17];
    const char *q = *p;
    int minus = q < end && *q == '-', n = 0, e = -1, seen = 0, point = 0, x = 0, down = 0, k, i;
    double v = 0, scale = 1, ten = 10;
    memset(digits, '0', sizeof digits);
    for (q += minus; q < end && ((*q >= '0' && *q <= '9') || (*q == '.' && !point)); q++) {
        if (*q == '.') {
            point = 1;
            continue;
        }
        if (++seen > 400) return 0;
        if (n < 17 && (n || *q != '0')) {
            digits[n++] = *q;
            v = 10 * v + (*q - '0');
        }
        if (n ? !point : point) e += n ? 1 : -1; /* exponent of the first digit that is not 0 */
    }
    if (!seen) return 0;
    if (q < end && (*q == 'e' || *q == 'E')) {
        q++;
        if (q < end && (*q == '-' || *q == '+')) down = *q++ == '-';
        if (q == end || *q < '0' || *q > '9') return 0;
        for (; q < end && *q >= '0' && *q <= '9'; q++)
            if (x < 10000) x = 10 * x + (*q - '0');
        e += down ? -x : x;
    }
    *p = q;
    *to = minus ? -0.0 : 0;
    if (!n || e < -324) return 1;
    if (e > 300) return 0;
    k = e - (n - 1);
    down = k < 0;
    if (k < -256) {
        v /= 1e256;
        k += 256;
    }
    for (k = down ? -k : k; k; k >>= 1, ten *= ten)
        if (k & 1) scale *= ten;
    v = down ? v / scale : v * scale;
    for (i = 0; i < 33; i++) { /* find the neighbour of v with exactly these digits */
        uint64_t u = flash__f64_bits(v), apart = (uint64_t)(i + 1) / 2;
        double there = flash__bits_f64(i & 1 ? u + apart : u - FLASH__MIN(apart, u));
        if (flash__digits(there, same, &k) && k == e && !memcmp(same, digits, sizeof same)) {
            v = there;
            break;
        }
    }
    *to = minus ? -v : v;
    return 1;
}

/* A line of the journal while it is written. */
typedef struct flash__line {
    char text[FLASH__SEARCH_LINE];
    size_t n;
} flash__line;

static void flash__put_text(flash__line *l, const char *text)
{
    size_t n = strlen(text);
    FLASH_ASSERT(l->n + n <= sizeof l->text);
    memcpy(l->text + l->n, text, n);
    l->n += n;
}
static void flash__put_count(flash__line *l, uint64_t v)
{
    char digits[24];
    int n = 23;
    digits[n] = 0;
    do digits[--n] = (char)('0' + v % 10);
    while (v /= 10);
    flash__put_text(l, digits + n);
}
static void flash__put_number(flash__line *l, double v)
{
    char digits[17], one[2] = {0, 0};
    int e, n = 17, i;
    if (flash__f64_bits(v) >> 63) flash__put_text(l, "-");
    if (!flash__digits(v, digits, &e)) {
        flash__put_text(l, "0");
        return;
    }
    while (n > 1 && digits[n - 1] == '0') n--;
    if (e < -5 || e > 16) { /* d.ddde-xx */
        for (i = 0; i < n; i++) {
            if (i == 1) flash__put_text(l, ".");
            one[0] = digits[i];
            flash__put_text(l, one);
        }
        flash__put_text(l, e < 0 ? "e-" : "e");
        flash__put_count(l, (uint64_t)(e < 0 ? -e : e));
        return;
    }
    if (e < 0) flash__put_text(l, "0.");
    for (i = -1; i > e; i--) flash__put_text(l, "0");
    for (i = 0; i < n || i <= e; i++) {
        if (i && i == e + 1) flash__put_text(l, ".");
        one[0] = i < n ? digits[i] : '0';
        flash__put_text(l, one);
    }
}
static void flash__put_numbers(flash__line *l, const char *name, const double *v, int n)
{
    int i;
    flash__put_text(l, name);
    for (i = 0; i < n; i++) {
        flash__put_text(l, i ? "," : "[");
        flash__put_number(l, v[i]);
    }
    flash__put_text(l, "]");
}

/* Returns the FNV-1a hash (Fowler, Noll, Vo) of n bytes. */
static uint32_t flash__fnv(const char *p, size_t n)
{
    uint32_t h = 2166136261u;
    for (; n--; p++) h = (h ^ (unsigned char)*p) * 16777619u;
    return h;
}
static uint32_t flash__fold(double v)
{
    uint64_t u = flash__f64_bits(v);
    return (uint32_t)(u ^ u >> 32);
}

/* Ends the line with the FNV-1a hash of the text before and hands it to the caller's journal. Does
   nothing if there is no journal or if one is being replayed. */
static flash_status flash__journal(flash_search *s, flash__line *l, flash_error *err)
{
    char hash[9];
    uint32_t h = flash__fnv(l->text, l->n);
    int i;
    if (!s->desc.journal || s->replaying) return FLASH_E_NONE;
    for (i = 0; i < 8; i++) hash[i] = "0123456789abcdef"[h >> (28 - 4 * i) & 15];
    hash[8] = 0;
    flash__put_text(l, ",\"sum\":\"");
    flash__put_text(l, hash);
    flash__put_text(l, "\"}\n");
    if (s->desc.journal(s->desc.user, l->text, l->n))
        return flash__fail(err, FLASH_E_IO, 0, "the journal could not be written");
    return FLASH_E_NONE;
}

/* Writes the first line of the journal, without its hash. It describes the search and its space, so
   that a search with another description cannot continue this journal. */
static void flash__title(const flash_search *s, flash__line *l)
{
    const flash_search_desc *d = &s->desc;
    uint32_t h = 2166136261u;
    int j, i;
    l->n = 0;
    for (j = 0; j < s->P; j++) {
        const flash_param *p = d->param + j;
        double facts[7];
        facts[0] = p->kind;
        facts[1] = p->lo;
        facts[2] = p->hi;
        facts[3] = p->step;
        facts[4] = p->n_value;
        facts[5] = s->active[j];
        facts[6] = s->active[j] ? p->active_from : 0;
        for (i = 0; i < 7; i++) h = (h ^ flash__fold(facts[i])) * 16777619u;
        for (i = 0; p->kind == FLASH_PARAM_ORDINAL && i < p->n_value; i++)
            h = (h ^ flash__fold(p->value[i])) * 16777619u;
    }
    flash__put_text(l, "{\"flash-search\":1,\"parameters\":");
    flash__put_count(l, (uint64_t)s->P);
    flash__put_text(l, ",\"objectives\":");
    flash__put_count(l, (uint64_t)d->n_objective);
    flash__put_text(l, ",\"constraints\":");
    flash__put_count(l, (uint64_t)d->n_constraint);
    flash__put_text(l, ",\"method\":");
    flash__put_count(l, (uint64_t)d->method);
    flash__put_text(l, ",\"seed\":");
    flash__put_count(l, d->seed);
    flash__put_text(l, ",\"space\":");
    flash__put_count(l, h);
}

/* Writes a line about trial id to the journal: what happened, and x and y unless they are NULL. The
   caller makes the change afterwards, and only if this succeeds. */
static flash_status flash__record(flash_search *s, const char *what, int id, const double *x,
                                  const double *y, flash_error *err)
{
    flash__line l;
    flash_status status = FLASH_E_NONE;
    if (!s->begun) {
        flash__title(s, &l);
        status = flash__journal(s, &l, err);
        if (status) return status;
        s->begun = 1;
    }
    l.n = 0;
    flash__put_text(&l, "{\"");
    flash__put_text(&l, what);
    flash__put_text(&l, "\":");
    flash__put_count(&l, (uint64_t)id);
    if (x) flash__put_numbers(&l, ",\"x\":", x, s->P);
    if (y) flash__put_numbers(&l, ",\"y\":", y, s->desc.n_objective + s->desc.n_constraint);
    return flash__journal(s, &l, err);
}

/* ---- ask and tell ---- */

static flash_status flash__no_param(flash_error *err, const flash_param *p, int j, const char *what)
{
    return flash__fail(err, FLASH_E_ARGUMENT, 0, "parameter %i, %s: %s", j + 1,
                       p->name ? p->name : "without a name", what);
}

/* Checks desc, copies it to s->desc with defaults in place of 0, and sets the fields of s that
   follow from it. The arrays of s are not set. */
static flash_status flash__search_check(flash_search *s, const flash_search_desc *desc,
                                        flash_error *err)
{
    flash_search_desc *d = &s->desc;
    int i, j, k;
    memset(s, 0, sizeof *s);
    if (!desc || !desc->param || desc->n_param < 1 || desc->n_param > FLASH_SEARCH_PARAMS_MAX)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "%i parameters; want 1 to %i",
                           desc ? desc->n_param : 0, (int)FLASH_SEARCH_PARAMS_MAX);
    *d = *desc;
    if (!d->n_objective) d->n_objective = 2;
    if (!d->max_trials) d->max_trials = 200;
    if (!d->population) d->population = 100;
    if (!d->initial) d->initial = FLASH__MAX(FLASH__MIN(2 * d->n_param, d->max_trials / 5), 5);
    if (d->n_objective < 1 || d->n_objective > FLASH_SEARCH_OBJECTIVES_MAX || d->n_constraint < 0
        || d->n_constraint > FLASH_SEARCH_CONSTRAINTS_MAX)
        return flash__fail(err, FLASH_E_ARGUMENT, 0,
                           "%i objectives, %i constraints; want 1 to %i "
                           "and 0 to %i",
                           d->n_objective, d->n_constraint, (int)FLASH_SEARCH_OBJECTIVES_MAX,
                           (int)FLASH_SEARCH_CONSTRAINTS_MAX);
    k = d->method == FLASH_SEARCH_EHVI ? FLASH_SEARCH_MODEL_TRIALS_MAX : FLASH_SEARCH_TRIALS_MAX;
    if (d->max_trials < 1 || d->max_trials > k)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "%i trials; want 1 to %i", d->max_trials, k);
    if (d->initial < 1 || d->population < 4 || d->population > FLASH_SEARCH_TRIALS_MAX
        || (unsigned)d->method > FLASH_SEARCH_RANDOM)
        return flash__fail(err, FLASH_E_ARGUMENT, 0,
                           "initial, population (at least 4) or method "
                           "out of range");
    s->P = d->n_param;
    s->m = FLASH__MAX(d->n_objective, 2);
    s->values = s->m + d->n_constraint;
    s->samples = d->noisy && s->m == 2 ? FLASH__SEARCH_SAMPLES : 1;
    s->expected = -1;
    for (k = 0; k < d->n_objective && d->reference; k++) {
        s->reference[k] = d->reference[k];
        if (!flash__finite(s->reference[k]))
            return flash__fail(err, FLASH_E_ARGUMENT, 0, "reference of objective %i is no number",
                               k + 1);
    }
    for (k = 0; k < d->n_objective + d->n_constraint && d->noisy && d->noise; k++) {
        if (!(d->noise[k] >= 0) || !flash__finite(d->noise[k]))
            return flash__fail(err, FLASH_E_ARGUMENT, 0, "noise of value %i is no deviation",
                               k + 1);
        s->noise[k < d->n_objective ? k : s->m + k - d->n_objective] = d->noise[k];
    }
    for (j = 0; j < s->P; j++) {
        const flash_param *p = d->param + j;
        double step = p->step > 0 ? p->step : 1;
        if (!p->name || !*p->name) return flash__no_param(err, p, j, "no name");
        for (i = 0; i < j; i++)
            if (!strcmp(p->name, d->param[i].name))
                return flash__no_param(err, p, j, "this name was there before");
        switch ((int)p->kind) {
        case FLASH_PARAM_INTEGER:
            if (!flash__finite(p->lo) || !flash__finite(p->hi) || !(p->step >= 0)
                || !flash__finite(p->step) || p->hi < p->lo || !((p->hi - p->lo) / step < 1e6))
                return flash__no_param(err, p, j,
                                       "want lo <= hi, step > 0, at most a million "
                                       "values");
            break;
        case FLASH_PARAM_ORDINAL:
            if (!p->value || p->n_value < 1 || p->n_value > 1000000)
                return flash__no_param(err, p, j, "no values, or too many");
            for (i = 0; i < p->n_value; i++)
                if (!flash__finite(p->value[i]) || (i && !(p->value[i] > p->value[i - 1])))
                    return flash__no_param(err, p, j, "values must be numbers and ascend");
            break;
        case FLASH_PARAM_CATEGORY:
            if (p->n_value < 1 || p->n_value > 1000000)
                return flash__no_param(err, p, j, "no values, or too many");
            s->categories++;
            break;
        case FLASH_PARAM_REAL:
        case FLASH_PARAM_LOG:
            if (!flash__finite(p->lo) || !flash__finite(p->hi) || !(p->lo < p->hi)
                || (p->kind == FLASH_PARAM_LOG && !(p->lo >= 1e-300))
                || !flash__finite(p->kind == FLASH_PARAM_LOG ? p->hi / p->lo : p->hi - p->lo))
                return flash__no_param(err, p, j, "want lo < hi, on a logarithmic scale 0 < lo");
            break;
        default: return flash__no_param(err, p, j, "of no known kind");
        }
        if (!p->active_if) continue;
        for (i = 0; i < j; i++)
            if (!strcmp(p->active_if, d->param[i].name)) s->active[j] = i + 1;
        if (!s->active[j] || !flash__finite(p->active_from))
            return flash__no_param(err, p, j, "depends on no earlier parameter, or on no number");
    }
    for (i = j = k = 0; j < s->P; j++)
        s->slot[j] = d->param[j].kind == FLASH_PARAM_CATEGORY ? s->P - s->categories + k++ : i++;
    return FLASH_E_NONE;
}

/* Carves the search and the arrays of s from the arena. Returns the place for the search. If
   a->base is NULL, only the bytes are counted. */
static flash_search *flash__search_plan(flash__arena *a, flash_search *s)
{
    const size_t n = (size_t)s->desc.max_trials, P = (size_t)s->P, m = (size_t)s->m,
                 samples = (size_t)s->samples, pop = 2 * (size_t)s->desc.population,
                 most = pop / 2 * 3;
    flash_search *own = (flash_search *)flash__take(a, 1, sizeof *own);
    size_t square = SIZE_MAX, rows = n;
    int o;
    if (s->desc.method == FLASH_SEARCH_NSGA2) rows = FLASH__MAX(n, pop);
    s->x = (double *)flash__take(a, n, P * sizeof *s->x);
    s->y = (double *)flash__take(a, n, (size_t)s->values * sizeof *s->y);
    s->state = (uint8_t *)flash__take(a, n, 1);
    s->turn = (uint32_t *)flash__take(a, n, sizeof *s->turn);
    s->sobol = (uint32_t *)flash__take(a, P, 32 * sizeof *s->sobol);
    s->index = (uint32_t *)flash__take(a, rows, sizeof *s->index);
    s->work = (uint32_t *)flash__take(a, rows, m * sizeof *s->work);
    s->row = (double *)flash__take(a, rows, m * sizeof *s->row);
    if (s->desc.method == FLASH_SEARCH_NSGA2) {
        s->parent = (uint32_t *)flash__take(a, most, sizeof *s->parent);
        s->rank = (uint32_t *)flash__take(a, most, sizeof *s->rank);
        s->crowd = (double *)flash__take(a, most, sizeof *s->crowd);
        s->key = (double *)flash__take(a, pop, sizeof *s->key);
    }
    if (s->desc.method == FLASH_SEARCH_EHVI) {
        if (!flash__mul(&square, n, n)) square = SIZE_MAX;
        flash__gp_plan(&s->gp, n, s->P, s->categories, 0, a);
        for (o = 0; o < s->values; o++) {
            s->f[o] = (double *)flash__take(a, n, samples * sizeof(double));
            s->mean[o] = (double *)flash__take(a, n, sizeof(double));
            if (flash__known(s, o)) continue;
            s->beta[o] = (double *)flash__take(a, n, samples * sizeof(double));
            s->Q[o] = (double *)flash__take(a, square, sizeof(double));
            s->k[o] = (double *)flash__take(a, n, sizeof(double));
            s->slope[o] = (double *)flash__take(a, n, sizeof(double));
            s->r2[o] = (double *)flash__take(a, n, sizeof(double));
        }
        s->a = (double *)flash__take(a, n, samples * sizeof(double));
        s->b = (double *)flash__take(a, n, samples * sizeof(double));
        s->u = (double *)flash__take(a, FLASH__SEARCH_VOLUME, m * sizeof(double));
        s->draw = (double *)flash__take(a, FLASH__SEARCH_DRAWS, P * sizeof(double));
        s->score = (double *)flash__take(a, FLASH__SEARCH_DRAWS, sizeof(double));
        s->key = (double *)flash__take(a, FLASH__SEARCH_DRAWS, sizeof(double));
    }
    return own;
}

FLASH_API size_t flash_search_memory(const flash_search_desc *desc, flash_error *err)
{
    flash__arena a = {NULL, 0};
    flash_search s;
    if (flash__search_check(&s, desc, err)) return 0;
    flash__search_plan(&a, &s);
    if (a.used != SIZE_MAX) return a.used;
    flash__fail(err, FLASH_E_TOO_LARGE, 0, "more memory than this machine can address");
    return 0;
}

FLASH_API flash_status flash_search_create(flash_search **out, const flash_search_desc *desc,
                                           flash_error *err)
{
    flash__arena a = {NULL, 0};
    flash_search s, *own;
    flash_status status;
    uint64_t random;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the search");
    *out = NULL;
    status = flash__search_check(&s, desc, err);
    if (status) return status;
    flash__search_plan(&a, &s);
    if (a.used == SIZE_MAX)
        return flash__fail(err, FLASH_E_TOO_LARGE, 0, "more memory than this machine can address");
    s.block = a.used;
    a.base = (uint8_t *)flash__acquire(&s.desc.host.allocator, s.block);
    if (!a.base)
        return flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the search: %u bytes",
                           (uint64_t)s.block);
    a.used = 0;
    own = flash__search_plan(&a, &s);
    random = flash__stream(&s, -1);
    flash__sobol_plan(&s, &random);
    *own = s;
    *out = own;
    return FLASH_E_NONE;
}

FLASH_API void flash_search_free(flash_search *s)
{
    flash_allocator a;
    if (!s) return;
    a = s->desc.host.allocator;
    flash__release(&a, s, s->block);
}

/* Adds a trial at x, once the journal has it. y: its values if it is done already, or NULL if it is
   pending. */
static flash_status flash__begin(flash_search *s, const double *x, const double *y,
                                 flash_error *err)
{
    double *row = flash__trial_y(s, s->trials), known, values[FLASH_SEARCH_VALUES_MAX];
    int o, told = s->desc.n_objective;
    flash_status status;
    for (o = 0; o < s->values; o++) row[o] = 0;
    for (o = 0; o < told; o++) {
        known = s->desc.known[o] ? flash__known_at(s, o, x) : y ? y[o] : 0;
        if (!flash__finite(known))
            return flash__fail(err, FLASH_E_ARGUMENT, 0, "objective %i is no number", o + 1);
        row[o] = values[o] = known;
    }
    for (o = 0; y && o < s->desc.n_constraint; o++) {
        if (!flash__finite(y[told + o]))
            return flash__fail(err, FLASH_E_ARGUMENT, 0, "constraint %i is no number", o + 1);
        row[s->m + o] = values[told + o] = y[told + o];
    }
    status = flash__record(s, y ? "add" : "ask", s->trials + 1, x, y ? values : NULL, err);
    if (status) return status;
    memcpy(flash__trial_x(s, s->trials), x, (size_t)s->P * sizeof *x);
    s->state[s->trials] = (uint8_t)(y ? FLASH_TRIAL_DONE : FLASH_TRIAL_PENDING);
    if (y) s->turn[s->trials] = (uint32_t)s->told++;
    s->trials++;
    return FLASH_E_NONE;
}

static flash_status flash__full(const flash_search *s, flash_error *err)
{
    return flash__fail(err, FLASH_E_RANGE, 0, "all %i trials were asked for", s->desc.max_trials);
}

FLASH_API flash_status flash_search_ask(flash_search *s, flash_trial *out, flash_error *err)
{
    double x[FLASH_SEARCH_PARAMS_MAX];
    const flash_search_desc *d;
    uint64_t random;
    flash_status status;
    double expected;
    int found = 0, again, i, alive = 0, parents, bred;
    if (!s || !out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no search, or no place for x");
    d = &s->desc;
    if (s->trials == d->max_trials) return flash__full(s, err);
    random = flash__stream(s, s->trials);
    for (i = 0; i < s->trials; i++)
        alive += s->state[i] == FLASH_TRIAL_PENDING || flash__has_values(s, i, s->told);
    expected = s->expected;
    parents = s->parents;
    bred = s->bred;
    s->expected = -1;
    if (d->method == FLASH_SEARCH_NSGA2 && s->trials >= d->population) {
        flash__copy_parents(s, 2 * d->population, 0, parents);
        flash__breed(s);
        for (again = 0; again < 64 && !found && s->parents; again++) {
            flash__child(s, s->trials, again, x);
            found = flash__settle(s, x) && !flash__tried(s, x);
        }
    }
    if (d->method == FLASH_SEARCH_EHVI && alive >= d->initial && flash__model(s, &random))
        found = flash__propose(s, s->trials, &random, x);
    if (!found && !flash__fresh(s, (uint32_t)s->trials, x))
        status = flash__fail(err, FLASH_E_RANGE, 0,
                             "no feasible point was found that was not "
                             "tried before (%i were)",
                             s->trials);
    else
        status = flash__begin(s, x, NULL, err);
    if (!status) return flash_search_trial(s, s->trials, out);
    s->expected = expected; /* undo: the journal knows nothing of this call */
    if (s->bred != bred) flash__copy_parents(s, 0, 2 * d->population, parents);
    s->parents = parents;
    s->bred = bred;
    return status;
}

static flash_status flash__pending(const flash_search *s, int id, flash_error *err)
{
    if (s && id >= 1 && id <= s->trials && s->state[id - 1] == FLASH_TRIAL_PENDING)
        return FLASH_E_NONE;
    return flash__fail(err, FLASH_E_ARGUMENT, 0, "trial %i is not pending", id);
}

static flash_status flash__tell(flash_search *s, int id, const double *y, flash_trial_state state,
                                flash_error *err)
{
    double row[FLASH_SEARCH_VALUES_MAX], told[FLASH_SEARCH_VALUES_MAX];
    int o, n;
    flash_status status = flash__pending(s, id, err);
    if (status) return status;
    if (!y) return flash__fail(err, FLASH_E_ARGUMENT, 0, "trial %i: no values", id);
    n = s->desc.n_objective;
    memcpy(row, flash__trial_y(s, id - 1), (size_t)s->values * sizeof *row);
    for (o = 0; o < n + s->desc.n_constraint; o++) {
        double *to = row + (o < n ? o : s->m + o - n);
        if (o >= n || !s->desc.known[o]) *to = y[o];
        told[o] = *to;
        if (!flash__finite(*to))
            return flash__fail(err, FLASH_E_ARGUMENT, 0, "trial %i: %t %i is no number", id,
                               o < n ? "objective" : "constraint", (size_t)(o < n ? 9 : 10),
                               o < n ? o + 1 : o - n + 1);
    }
    status = flash__record(s, state == FLASH_TRIAL_DONE ? "tell" : "stop", id, NULL, told, err);
    if (status) return status;
    memcpy(flash__trial_y(s, id - 1), row, (size_t)s->values * sizeof *row);
    s->state[id - 1] = (uint8_t)state;
    s->turn[id - 1] = (uint32_t)s->told++;
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_search_tell(flash_search *s, int id, const double *y, flash_error *err)
{
    return flash__tell(s, id, y, FLASH_TRIAL_DONE, err);
}

FLASH_API flash_status flash_search_drop(flash_search *s, int id, flash_trial_state state,
                                         flash_error *err)
{
    flash_status status = flash__pending(s, id, err);
    if (status) return status;
    if (state != FLASH_TRIAL_FAILED && state != FLASH_TRIAL_ABANDONED)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "a trial ends failed or abandoned");
    status = flash__record(s, state == FLASH_TRIAL_FAILED ? "fail" : "abandon", id, NULL, NULL,
                           err);
    if (status) return status;
    s->state[id - 1] = (uint8_t)state;
    s->turn[id - 1] = UINT32_MAX; /* it has no values */
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_search_stop(flash_search *s, int id, const double *best,
                                         flash_error *err)
{
    int o, learns = best != NULL && s && !s->desc.n_constraint;
    for (o = 0; learns && o < s->desc.n_objective; o++)
        learns = s->desc.known[o] || flash__finite(best[o]);
    return learns ? flash__tell(s, id, best, FLASH_TRIAL_ABANDONED, err)
                  : flash_search_drop(s, id, FLASH_TRIAL_ABANDONED, err);
}

FLASH_API flash_status flash_search_add(flash_search *s, const double *x, const double *y,
                                        flash_error *err)
{
    double same[FLASH_SEARCH_PARAMS_MAX];
    int j;
    if (!s || !x || !y) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no search, x or y");
    if (s->trials == s->desc.max_trials) return flash__full(s, err);
    memcpy(same, x, (size_t)s->P * sizeof *x);
    flash__canonical(s, same);
    for (j = 0; j < s->P; j++)
        if (!(fabs(x[j] - same[j]) <= 1e-9 * fabs(same[j])))
            return flash__no_param(err, s->desc.param + j, j, "this value is not in the space");
    if (s->desc.feasible && !s->desc.feasible(s->desc.user, same))
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "this point is not feasible");
    return flash__begin(s, same, y, err);
}

FLASH_API int flash_search_hopeless(const flash_search *s, int id, const double *best)
{
    double y[FLASH_SEARCH_VALUES_MAX];
    int i, o;
    if (!best || flash__pending(s, id, NULL)) return 0;
    memcpy(y, flash__trial_y(s, id - 1), (size_t)s->values * sizeof *y);
    for (o = 0; o < s->desc.n_objective; o++) {
        if (!s->desc.known[o]) y[o] = best[o];
        if (s->desc.reference && y[o] >= s->reference[o]) return 1;
    }
    for (o = 0; o < s->m; o++)
        if (!(y[o] <= 0 || y[o] > 0)) return 0; /* a NaN proves nothing */
    for (i = 0; i < s->trials; i++) {
        const double *row = flash__trial_y(s, i);
        if (s->state[i] == FLASH_TRIAL_DONE && flash__good(s, row) && flash__covers(row, y, s->m))
            return 1;
    }
    return 0;
}

FLASH_API flash_status flash_search_trial(const flash_search *s, int id, flash_trial *out)
{
    int n;
    if (!s || !out || id < 1 || id > s->trials) return FLASH_E_ARGUMENT;
    n = s->desc.n_objective;
    memset(out, 0, sizeof *out);
    out->id = id;
    out->state = (flash_trial_state)s->state[id - 1];
    memcpy(out->x, flash__trial_x(s, id - 1), (size_t)s->P * sizeof *out->x);
    memcpy(out->y, flash__trial_y(s, id - 1), (size_t)n * sizeof *out->y);
    memcpy(out->y + n, flash__trial_y(s, id - 1) + s->m,
           (size_t)s->desc.n_constraint * sizeof *out->y);
    return FLASH_E_NONE;
}

/* Finds the front of the trials that were told: their numbers in s->index, and the objectives of
   trial i in row i of s->row. With noise and EHVI the objectives are the means of the model.
   Returns how many trials are in the front. */
static size_t flash__best(flash_search *s)
{
    size_t n = 0, i;
    uint64_t random = flash__stream(s, -2);
    int o, m = s->m;
    if (!s->desc.noisy || s->desc.method != FLASH_SEARCH_EHVI || !flash__model(s, &random))
        return flash__front(s->row, m, s->index, flash__done_rows(s, s->told));
    flash__points(s, s->told, 0);
    for (i = 0; i < (size_t)s->told; i++) {
        uint32_t t = s->index[i];
        if (s->state[t] != FLASH_TRIAL_DONE || !flash__good(s, flash__trial_y(s, (int)t))) continue;
        for (o = 0; o < m; o++)
            s->row[t * (size_t)m + (size_t)o] = s->shift[o] + s->scale[o] * s->mean[o][i];
        s->index[n++] = t;
    }
    return flash__front(s->row, m, s->index, n);
}

FLASH_API int flash_search_front(flash_search *s, int *ids, int cap)
{
    size_t n, i;
    if (!s) return 0;
    n = flash__best(s);
    for (i = 0; ids && i < n && i < (size_t)FLASH__MAX(cap, 0); i++) ids[i] = (int)s->index[i] + 1;
    return (int)n;
}

FLASH_API void flash_search_summarize(flash_search *s, flash_search_summary *out)
{
    double r[FLASH_SEARCH_OBJECTIVES_MAX], before;
    size_t n;
    int i, m;
    if (!out) return;
    memset(out, 0, sizeof *out);
    out->gain = out->expected = -1;
    if (!s) return;
    m = s->m;
    out->trials = s->trials;
    for (i = 0; i < s->trials; i++) {
        out->pending += s->state[i] == FLASH_TRIAL_PENDING;
        out->done += s->state[i] == FLASH_TRIAL_DONE;
        out->failed += s->state[i] == FLASH_TRIAL_FAILED;
        out->abandoned += s->state[i] == FLASH_TRIAL_ABANDONED;
    }
    n = flash__best(s);
    out->front = (int)n;
    flash__reference(s, s->row, s->index, n, r);
    memcpy(out->reference, r, (size_t)s->desc.n_objective * sizeof *r);
    out->hypervolume = flash__volume(s->row, m, s->index, n, m, r, s->work);
    if (!(out->hypervolume > 0)) return;
    if (s->expected / out->hypervolume >= 0) /* false for NaN, if both are infinite */
        out->expected = s->expected / out->hypervolume;
    if (s->told <= FLASH__SEARCH_WINDOW) return;
    /* s->row stays as flash__best left it: with noise and EHVI, the means of the model */
    n = flash__done_good(s, s->told - FLASH__SEARCH_WINDOW);
    n = flash__front(s->row, m, s->index, n);
    before = flash__volume(s->row, m, s->index, n, m, r, s->work);
    out->gain = FLASH__MAX(1 - before / out->hypervolume, 0);
}

/* Moves *p behind a fixed text. Returns 0 if another text is there. */
static int flash__expect(const char **p, const char *end, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(end - *p) < n || memcmp(*p, text, n)) return 0;
    *p += n;
    return 1;
}

/* Reads a name and then n numbers, written as [v,v,...]. Returns 0 if something else is there. */
static int flash__read_numbers(const char **p, const char *end, const char *name, double *v, int n)
{
    int i;
    if (!flash__expect(p, end, name)) return 0;
    for (i = 0; i < n; i++)
        if (!flash__expect(p, end, i ? "," : "[") || !flash__number(p, end, v + i)) return 0;
    return flash__expect(p, end, "]");
}

/* Does what one line of a journal says; its hash is cut off. Returns NULL, or what is wrong. */
static const char *flash__replay_line(flash_search *s, const char *p, const char *end)
{
    static const char *const what[] = {"ask", "tell", "fail", "abandon", "add", "stop"};
    static const char damaged[] = "not a line of a journal";
    double x[FLASH_SEARCH_PARAMS_MAX], y[FLASH_SEARCH_VALUES_MAX], same[FLASH_SEARCH_PARAMS_MAX],
        id;
    flash_status status;
    int kind, j;
    if (!s->begun) {
        flash__line l;
        flash__title(s, &l);
        if ((size_t)(end - p) != l.n || memcmp(p, l.text, l.n)) return "of another search";
        s->begun = 1;
        return NULL;
    }
    if (!flash__expect(&p, end, "{\"")) return damaged;
    for (kind = 0; kind < 6; kind++)
        if (flash__expect(&p, end, what[kind])) break;
    if (kind == 6 || !flash__expect(&p, end, "\":") || !flash__number(&p, end, &id)) return damaged;
    if (kind == 0 || kind == 4) {
        if (!flash__read_numbers(&p, end, ",\"x\":", x, s->P)) return damaged;
        memcpy(same, x, sizeof same);
        flash__canonical(s, same);
        for (j = 0; j < s->P; j++)
            if (x[j] < same[j] || x[j] > same[j]) return "a value that is not in the space";
    }
    if ((kind == 1 || kind > 3)
        && !flash__read_numbers(&p, end, ",\"y\":", y, s->desc.n_objective + s->desc.n_constraint))
        return damaged;
    if (p != end) return damaged;
    if (!(id >= 1 && id <= s->trials + 1)) return "a trial out of turn";
    if (kind == 0 || kind == 4) {
        if (id <= s->trials) return "a trial that was there before";
        if (s->trials == s->desc.max_trials) return "more trials than the search may have";
        if (!kind && s->desc.method == FLASH_SEARCH_NSGA2) flash__breed(s); /* as ask did then */
        status = flash__begin(s, x, kind ? y : NULL, NULL);
    } else if (kind == 1 || kind == 5)
        status = flash__tell(s, (int)id, y, kind == 1 ? FLASH_TRIAL_DONE : FLASH_TRIAL_ABANDONED,
                             NULL);
    else
        status = flash_search_drop(s, (int)id,
                                   kind == 2 ? FLASH_TRIAL_FAILED : FLASH_TRIAL_ABANDONED, NULL);
    return status ? "a trial that is not pending, or a value that is no number" : NULL;
}

FLASH_API flash_status flash_search_replay(flash_search *s, const char *text, size_t bytes,
                                           flash_error *err)
{
    static const char sum[] = ",\"sum\":\"";
    const char *p = text, *end, *why;
    uint64_t line = 0;
    uint32_t hash;
    int i;
    if (!s || (!text && bytes) || s->trials)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "a journal is read into a new search");
    s->replaying = 1;
    for (; bytes; bytes -= (size_t)(end + 1 - p), p = end + 1) {
        size_t n;
        line++;
        end = (const char *)memchr(p, '\n', bytes);
        if (!end) {
            s->replaying = 0;
            return flash__fail(err, FLASH_E_TRUNCATED, (uint64_t)(p - text), "line %u is torn",
                               line);
        }
        n = (size_t)(end - p);
        why = "damaged";
        if (n > 18 && !memcmp(p + n - 18, sum, 8) && !memcmp(end - 2, "\"}", 2)) {
            for (hash = 0, i = 0; i < 8; i++) {
                const char *digits = "0123456789abcdef", *d = strchr(digits, end[i - 10]);
                if (!d || !*d) break;
                hash = hash << 4 | (uint32_t)(d - digits);
            }
            if (i == 8 && hash == flash__fnv(p, n - 18)) why = flash__replay_line(s, p, p + n - 18);
        }
        if (!why) continue;
        s->replaying = 0;
        return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(p - text), "line %u: %s", line, why);
    }
    s->replaying = 0;
    return FLASH_E_NONE;
}

#endif

#ifdef __cplusplus
}
#endif

/* ===== >>train ============================================================ */

/* Trains a model: forward pass, backward pass, AdamW. Weights, gradients and the two moments are
   four arrays with the same layout. All matrix products go through one driver around k->sgemm,
   which rounds products and sums separately and adds in order. The work is cut into items of fixed
   sizes (rows, columns and inner dimension of a product; one sequence and one head), never by the
   number of threads, and the partial sums of several items are added in order. Hence the results
   have the same bits everywhere. Each layer keeps its input, q, k and v before norms and RoPE, the
   result of attention, the log-sum-exp of each row of scores, and gate and up. The backward pass
   recomputes norms, attention weights and the products of gate and up, and writes its results over
   what they came from: gate, up, q, k and v are replaced by their gradients. Logits exist for 128
   tokens at a time. Formulas: Rumelhart et al. 1986; for attention in blocks Dao et al. 2022 (arxiv
   2205.14135), where sum_j p_j dp_j = do.o saves the T x T matrix. KNOWN TRAPS: a head that shares
   its weights with the embedding gets two gradients, which add up; k->softmax needs room for 64
   items, even where fewer of them count. */

#ifdef FLASH__TRAIN
typedef FLASH__REAL flash__real; /* float; double in the tests that check the gradients */
enum { FLASH__IN_FLOAT = sizeof(flash__real) == sizeof(float) ? 1 : 0 };
enum {
    FLASH__LOSS_ROWS = 128, /* tokens whose logits exist at a time */
    FLASH__UPDATE = 16384,  /* weights of an item of an update */
    FLASH__GEMM_K = 256,    /* inner dimension that a matrix product works on at once */
    FLASH__GEMM_ROWS = 32,  /* rows that it works on at once */
    FLASH__GEMM_COLS = 64,  /* columns that it works on at once */
    FLASH__GEMM_WIDE = 256, /* most columns of an item of a matrix product */
    /* numbers of a worker: packed b, a tile of c, packed a */
    FLASH__GEMM_ROOM = FLASH__GEMM_K * (FLASH__GEMM_WIDE + FLASH__GEMM_ROWS)
        + FLASH__GEMM_ROWS * FLASH__GEMM_COLS
};

/* The tensors of a layer that are trained, and their fields in the tensor rules of >>arch. */
enum {
    FLASH__W_ATTN_NORM,
    FLASH__W_Q,
    FLASH__W_K,
    FLASH__W_V,
    FLASH__W_O,
    FLASH__W_Q_NORM,
    FLASH__W_K_NORM,
    FLASH__W_FFN_NORM,
    FLASH__W_GATE,
    FLASH__W_UP,
    FLASH__W_DOWN,
    FLASH__W_COUNT
};
static const uint16_t flash__learned[FLASH__W_COUNT] = {
    FLASH__LAYER(attn_norm), FLASH__LAYER(q),      FLASH__LAYER(k),      FLASH__LAYER(v),
    FLASH__LAYER(o),         FLASH__LAYER(q_norm), FLASH__LAYER(k_norm), FLASH__LAYER(ffn_norm),
    FLASH__LAYER(gate),      FLASH__LAYER(up),     FLASH__LAYER(down)};

typedef struct flash__leaf { /* one trained tensor */
    char name[40];
    /* residual: 1 if its product is added to the residual stream */
    int matrix, residual, rows, cols;
    size_t at; /* index of its first weight in each of the four arrays */
} flash__leaf;

typedef struct flash__lesson {    /* what one layer keeps for the backward pass */
    size_t at[FLASH__W_COUNT];    /* where its tensors begin; 0: it has none (0 is the embedding) */
    int rope;                     /* number of its RoPE table */
    flash__real *in, *q, *k, *v;  /* [N,D], [N,H*C], [N,K*C], [N,K*C] */
    flash__real *o, *lse;         /* [N,H*C] result of attention, [N,H] log-sum-exp of scores */
    flash__real *mid, *gate, *up; /* [N,D] residual stream after attention, [N,F], [N,F] */
} flash__lesson;

struct flash_trainer {
    flash_trainer_desc desc; /* defaults filled in */
    flash_arch arch;
    flash__kernels k;
    flash__pool pool;
    flash_session *teacher;     /* NULL: none; lies in the trainer's block */
    size_t block;               /* size of the block that holds the whole trainer [B] */
    int slots, N;               /* workers; rows (tokens) of a batch */
    uint64_t step, tokens;      /* done so far */
    flash__leaf *leaf;          /* [n_leaf] */
    size_t n_leaf, n;           /* tensors; weights, each tensor padded to a multiple of 16 */
    size_t head, out_norm;      /* where they begin; head is 0 where it is the embedding */
    flash__lesson *layer;       /* [L] */
    flash__real *w, *g, *m, *v; /* [n] weights, gradients, first and second moments */
    flash__real *out;           /* [N,D] residual stream after the last layer */
    /* [N,D] result of a norm, its gradient, gradient of the residual stream */
    flash__real *normed, *dnorm, *dx;
    flash__real *wide;        /* [N,max(F,H*C)] product of gate and up, or gradients */
    flash__real *z;           /* [min(n_ctx,LOSS_ROWS),V] logits, then their gradients */
    flash__real *part;        /* [n_part] partial sums of gradients, one piece per item */
    double *sums;             /* partial sums of losses and of squared gradients */
    flash__real *rope, *back; /* [tables_n,n_ctx,rope_dims] cos and sin; cos and -sin */
    flash__real *work;        /* [slots,work_n] */
    size_t work_n, n_part, tables_n;
};

/* --- kernels, in either precision ------------------------------------------ */

/* Where the table has a kernel, these call it in float, and compute the same in plain loops in
   double. What the kernels return and write is described in >>k-scalar. */

static float *flash__floats(flash__real *p) { return (float *)(void *)p; }
static const float *flash__floats_of(const flash__real *p)
{
    return (const float *)(const void *)p;
}

static flash__real flash__t_exp(flash__real x)
{
    return FLASH__IN_FLOAT ? (flash__real)flash__expf((float)x) : (flash__real)flash__exp(x);
}

static void flash__t_gemm(const flash__kernels *k, const flash__real *a, size_t lda, size_t ka,
                          const flash__real *b, size_t ldb, flash__real *c, size_t ldc, int M,
                          int N, int K)
{
    int i, j, l;
    if (FLASH__IN_FLOAT) {
        k->sgemm(flash__floats_of(a), lda, ka, flash__floats_of(b), ldb, flash__floats(c), ldc, M,
                 N, K);
        return;
    }
    for (i = 0; i < M; i++, a += lda, c += ldc) {
        for (j = 0; j < N; j++) c[j] = 0;
        for (l = 0; l < K; l++)
            for (j = 0; j < N; j++) c[j] += a[(size_t)l * ka] * b[(size_t)l * ldb + (size_t)j];
    }
}

static flash__real flash__t_dot(const flash__kernels *k, const flash__real *a, const flash__real *b,
                                size_t n)
{
    flash__real sum = 0;
    size_t i;
    if (FLASH__IN_FLOAT) {
        /* k->rows reads a as the little-endian bytes of a file; big-endian machines have only the
           scalar kernels */
        float y;
        if (k->isa == FLASH_ISA_SCALAR)
            return flash__dot_f32_scalar(flash__floats_of(a), flash__floats_of(b), n);
        k->rows(FLASH_TYPE_F32, (const uint8_t *)(const void *)a, 0, 1, b, n, &y);
        return (flash__real)y;
    }
    for (i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* y += x */
static void flash__t_add(const flash__kernels *k, flash__real *y, const flash__real *x, size_t n)
{
    size_t i;
    if (FLASH__IN_FLOAT)
        k->blend(flash__floats(y), 1, flash__floats_of(x), 1, n);
    else
        for (i = 0; i < n; i++) y[i] += x[i];
}

static void flash__t_blend(const flash__kernels *k, flash__real *y, flash__real keep,
                           const flash__real *x, flash__real add, size_t n)
{
    size_t i;
    if (FLASH__IN_FLOAT)
        k->blend(flash__floats(y), (float)keep, flash__floats_of(x), (float)add, n);
    else
        for (i = 0; i < n; i++) y[i] = y[i] * keep + x[i] * add;
}

static flash__real flash__t_softmax(const flash__kernels *k, flash__real *x, flash__real scale,
                                    int from, int to, flash__real *total)
{
    flash__real most = (flash__real)-3.4e38f, sum = 0;
    int i;
    if (FLASH__IN_FLOAT) {
        float l, best = k->softmax(flash__floats(x), (float)scale, from, to, &l);
        *total = (flash__real)l;
        return (flash__real)best;
    }
    for (i = from; i < to; i++) {
        x[i] = x[i] * scale;
        most = FLASH__MAX(most, x[i]);
    }
    for (i = 0; i < 64; i++) {
        x[i] = i >= from && i < to ? flash__t_exp(x[i] - most) : 0;
        sum += x[i];
    }
    *total = sum;
    return most;
}

/* 1/sqrt(mean(x^2) + eps) */
static flash__real flash__t_rms(const flash__kernels *k, const flash__real *x, flash__real eps,
                                size_t n)
{
    flash__real mean = flash__t_dot(k, x, x, n) / (flash__real)n + eps;
    return 1 / (FLASH__IN_FLOAT ? (flash__real)sqrtf((float)mean) : (flash__real)sqrt(mean));
}

static void flash__t_norm(const flash__kernels *k, const flash__real *x, const flash__real *w,
                          flash__real eps, size_t n, flash__real *y)
{
    flash__real r;
    size_t i;
    if (FLASH__IN_FLOAT) {
        k->rmsnorm(flash__floats_of(x), flash__floats_of(w), (float)eps, n, flash__floats(y));
        return;
    }
    r = flash__t_rms(k, x, eps, n);
    for (i = 0; i < n; i++) y[i] = x[i] * r * w[i];
}

/* Computes the gradients of the norm y = w x r, where r = 1/sqrt(mean(x^2) + eps), from dy, the
   gradient of y: dx = r w dy - x r^3/n sum(w dy x), or dx += that if `add`; dw += dy x r. Without
   `add`, dx may be dy. x, w, dy, dx and dw are [n]. */
static void flash__t_norm_back(const flash__kernels *k, const flash__real *x, const flash__real *w,
                               flash__real eps, size_t n, const flash__real *dy, int add,
                               flash__real *dx, flash__real *dw)
{
    flash__real r = flash__t_rms(k, x, eps, n), lane[4] = {0, 0, 0, 0}, c;
    size_t i;
    for (i = 0; i < n; i++) {
        flash__real d = dy[i] * x[i];
        lane[i & 3] = lane[i & 3] + d * w[i];
        dw[i] = dw[i] + d * r;
    }
    c = ((lane[0] + lane[1]) + (lane[2] + lane[3])) * (r * r * r / (flash__real)n);
    for (i = 0; i < n; i++) dx[i] = (add ? dx[i] : 0) + (r * (w[i] * dy[i]) - c * x[i]);
}

static void flash__t_rope(const flash__kernels *k, flash__real *x, const flash__real *cos_sin,
                          int dims, int style)
{
    int i;
    if (FLASH__IN_FLOAT) {
        k->rope(flash__floats(x), flash__floats_of(cos_sin), dims, style);
        return;
    }
    for (i = 0; i < dims / 2; i++) {
        int a = style == FLASH_ROPE_PAIRS ? 2 * i : i,
            b = style == FLASH_ROPE_PAIRS ? a + 1 : i + dims / 2;
        flash__real u = x[a], v = x[b], c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
        x[a] = u * c - v * s;
        x[b] = u * s + v * c;
    }
}

static void flash__t_glu(const flash__kernels *k, const flash__real *gate, const flash__real *up,
                         size_t n, flash__real *y)
{
    size_t i;
    if (FLASH__IN_FLOAT)
        k->glu(0, flash__floats_of(gate), flash__floats_of(up), n, flash__floats(y));
    else
        for (i = 0; i < n; i++) y[i] = gate[i] / (1 + flash__t_exp(-gate[i])) * up[i];
}

/* Replaces gate and up by their gradients; dy is the gradient of y = silu(gate) up. */
static void flash__t_glu_back(const flash__kernels *k, flash__real *gate, flash__real *up,
                              const flash__real *dy, size_t n)
{
    size_t i;
    if (FLASH__IN_FLOAT) {
        k->glu_back(flash__floats(gate), flash__floats(up), flash__floats_of(dy), n);
        return;
    }
    for (i = 0; i < n; i++) {
        flash__real g = gate[i], s = 1 / (1 + flash__t_exp(-g));
        gate[i] = dy[i] * up[i] * (s * (1 + g * (1 - s)));
        up[i] = dy[i] * (g * s);
    }
}

/* Computes p = p f, then dp = p (dp - d) scale, for 64 attention weights and their gradients. */
static void flash__t_fade(const flash__kernels *k, flash__real *p, flash__real *dp, flash__real f,
                          flash__real d, flash__real scale)
{
    int i;
    if (FLASH__IN_FLOAT) {
        k->fade(flash__floats(p), flash__floats(dp), (float)f, (float)d, (float)scale);
        return;
    }
    for (i = 0; i < 64; i++) {
        p[i] = p[i] * f;
        dp[i] = p[i] * (dp[i] - d) * scale;
    }
}

/* Writes the transpose of x, [rows,cols], to y. */
static void flash__t_turn_over(const flash__kernels *k, const flash__real *x, size_t ldx, int rows,
                               int cols, flash__real *y, size_t ldy)
{
    int r, c;
    if (FLASH__IN_FLOAT) {
        k->turn(flash__floats_of(x), ldx, rows, cols, flash__floats(y), ldy);
        return;
    }
    for (r = 0; r < rows; r++)
        for (c = 0; c < cols; c++) y[(size_t)c * ldy + (size_t)r] = x[(size_t)r * ldx + (size_t)c];
}

static void flash__t_adamw(const flash__kernels *k, flash__real *w, flash__real *m, flash__real *v,
                           const flash__real *g, size_t n, const flash__rates *r)
{
    size_t i;
    if (FLASH__IN_FLOAT) {
        k->adamw(flash__floats(w), flash__floats(m), flash__floats(v), flash__floats_of(g), n, r);
        return;
    }
    for (i = 0; i < n; i++) {
        flash__real x = g[i] * r->scale;
        m[i] = m[i] * r->b1 + x * r->a1;
        v[i] = v[i] * r->b2 + x * x * r->a2;
        w[i] = w[i] * r->keep - m[i] / ((flash__real)sqrt(v[i] * r->c2) + r->epsilon) * r->rate;
    }
}

/* --- matrix products -------------------------------------------------------- */

/* A matrix product c = a b, or c += a b if `add`. Item (i,k) of a is at a[i*lda + k*ka]. Item (k,j)
   of b is at b[k*ldb + j], or at b[j*ldb + k] if b is transposed (`turned`). */
typedef struct flash__gemm {
    const flash__real *a, *b;
    flash__real *c;
    size_t lda, ka, ldb, ldc;
    int M, N, K, turned, add;
} flash__gemm;

/* The parameters of one parallel step, which is cut into items that workers pick one by one. Each
   kind of step uses some of the fields. */
typedef struct flash__effort {
    flash_trainer *t;
    flash__gemm gemm[4]; /* n products are set up */
    flash__lesson *layer;
    const flash_layer *facts; /* of the architecture, for this layer */
    const flash__real *x, *dy;
    flash__real *y, *copy;
    const int32_t *tokens; /* [batch,n_ctx+1]; of a loss: from the first row's token on */
    const float *teacher;  /* [rows,V] the teacher's logits, NULL: none */
    flash__real scale;     /* factor of the loss, or of the gradients */
    double lr, c1, c2;     /* of an update: learning rate and bias corrections */
    size_t at;             /* where the norm's weights begin */
    /* products; rows of a norm; 1: gradients are wanted; items of the step */
    int n, width, grad, items;
    volatile int next; /* the item that is picked next */
} flash__effort;

/* Returns the number of an item that nobody has picked yet, or -1 if there is none left. */
static int flash__effort_pick(flash__effort *e)
{
    int i = flash__add(&e->next, 1);
    return i < e->items ? i : -1;
}

static void flash__effort_run(flash_trainer *t, flash__effort *e, int items, flash__task task)
{
    const flash_host *host = &t->desc.host;
    int tasks = FLASH__MIN(items, t->slots);
    e->t = t;
    e->items = items;
    e->next = 0;
    if (tasks <= 1)
        task(e, 0);
    else if (host->parallel_for)
        host->parallel_for(host->user, tasks, task, e);
    else
        flash__pool_run(&t->pool, tasks, task, e);
}

/* Runs the tasks of the teacher's session on the trainer's threads. user: the trainer. */
static void flash__effort_lend(void *user, int tasks, void (*task)(void *ctx, int index), void *ctx)
{
    flash_trainer *t = (flash_trainer *)user;
    if (t->desc.host.parallel_for)
        t->desc.host.parallel_for(t->desc.host.user, tasks, task, ctx);
    else
        flash__pool_run(&t->pool, tasks, task, ctx);
}

/* Copies n numbers, 16 at a time. Where gcc does not know the size of a memcpy, it moves single
   words, which took a tenth of the time of the matrix products. */
static void flash__t_copy(flash__real *to, const flash__real *from, int n)
{
    int i;
    for (i = 0; i + 16 <= n; i += 16) memcpy(to + i, from + i, 16 * sizeof *to);
    for (; i < n; i++) to[i] = from[i];
}

/* Packs columns [j0, last) of the K rows of b from row k0 on into room, in panels of
   [K,GEMM_COLS], one every GEMM_K*GEMM_COLS numbers. */
static void flash__gemm_pack(const flash__kernels *kernels, const flash__gemm *g, int k0, int j0,
                             int last, int K, flash__real *room)
{
    int j, k;
    for (j = j0; g->turned && j < last; j += FLASH__GEMM_COLS)
        flash__t_turn_over(kernels, g->b + (size_t)j * g->ldb + (size_t)k0, g->ldb,
                           FLASH__MIN(FLASH__GEMM_COLS, last - j), K,
                           room + (j - j0) * FLASH__GEMM_K, FLASH__GEMM_COLS);
    for (k = 0; !g->turned && k < K; k++) { /* row by row, as rows may be a page apart */
        const flash__real *b = g->b + (size_t)(k0 + k) * g->ldb;
        for (j = j0; j < last; j += FLASH__GEMM_COLS)
            flash__t_copy(room + (j - j0) * FLASH__GEMM_K + FLASH__GEMM_COLS * k, b + j,
                          FLASH__MIN(FLASH__GEMM_COLS, last - j));
    }
}

/* These return the rows and columns of an item. Transposing b costs most, so an item with a
   transposed b has more rows, which share it. A transposed a is copied first, so an item with one
   has more columns. */
static int flash__gemm_rows(const flash__gemm *g) { return g->turned || g->M >= 512 ? 256 : 64; }
static int flash__gemm_cols(const flash__gemm *g)
{
    return g->lda == 1 ? FLASH__GEMM_WIDE : FLASH__GEMM_COLS;
}

static int flash__gemm_items(const flash__gemm *g)
{
    int rows = flash__gemm_rows(g), cols = flash__gemm_cols(g);
    return (g->M + rows - 1) / rows * ((g->N + cols - 1) / cols);
}

/* Copies `rows` rows of a transposed a, K items of each, to room, [K,GEMM_ROWS]. In a, the items
   of a row may be a page apart, and strides of a power of two fall into the same cache sets. */
static void flash__gemm_pack_turned(const flash__real *a, size_t ka, int rows, int K,
                                    flash__real *room)
{
    int k;
    for (k = 0; k < K; k++, a += ka) flash__t_copy(room + FLASH__GEMM_ROWS * k, a, rows);
}

static void flash__gemm_item(const flash__kernels *k, const flash__gemm *g, int item,
                             flash__real *room)
{
    int some = flash__gemm_rows(g), strips = (g->M + some - 1) / some, i0 = item % strips * some,
        end = FLASH__MIN(i0 + some, g->M), cols = flash__gemm_cols(g), j0 = item / strips * cols,
        last = FLASH__MIN(j0 + cols, g->N), i, j, r, k0;
    flash__real *tile = room + FLASH__GEMM_WIDE * FLASH__GEMM_K,
                *turned = tile + FLASH__GEMM_COLS * FLASH__GEMM_ROWS;
    for (k0 = 0; k0 < g->K; k0 += FLASH__GEMM_K) {
        int K = FLASH__MIN(FLASH__GEMM_K, g->K - k0);
        flash__gemm_pack(k, g, k0, j0, last, K, room);
        for (i = i0; i < end; i += FLASH__GEMM_ROWS) {
            int rows = FLASH__MIN(FLASH__GEMM_ROWS, end - i);
            const flash__real *a = g->a + (size_t)i * g->lda + (size_t)k0 * g->ka;
            size_t lda = g->lda, ka = g->ka;
            if (lda == 1 && ka > 1) {
                flash__gemm_pack_turned(a, ka, rows, K, turned);
                a = turned;
                ka = FLASH__GEMM_ROWS;
            }
            for (j = j0; j < last; j += FLASH__GEMM_COLS) {
                int n = FLASH__MIN(FLASH__GEMM_COLS, last - j), add = k0 || g->add;
                const flash__real *b = room + (j - j0) * FLASH__GEMM_K;
                flash__real *c = g->c + (size_t)i * g->ldc + (size_t)j;
                size_t ldc = g->ldc;
                if (add) ldc = FLASH__GEMM_COLS;
                flash__t_gemm(k, a, lda, ka, b, FLASH__GEMM_COLS, add ? tile : c, ldc, rows, n, K);
                for (r = 0; add && r < rows; r++)
                    flash__t_add(k, c + (size_t)r * g->ldc, tile + FLASH__GEMM_COLS * r, (size_t)n);
            }
        }
    }
}

static flash__real *flash__effort_room(const flash__effort *e, int index)
{
    return e->t->work + (size_t)index * e->t->work_n;
}

static void flash__gemm_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    int i, which;
    while ((i = flash__effort_pick(e)) >= 0) {
        for (which = 0; i >= flash__gemm_items(e->gemm + which); which++)
            i -= flash__gemm_items(e->gemm + which);
        flash__gemm_item(&e->t->k, e->gemm + which, i, flash__effort_room(e, index));
    }
}

/* Computes the e->n products that are set up in e. None of them may write what another one reads
   or writes. */
static void flash__gemm_run(flash_trainer *t, flash__effort *e)
{
    int i, items = 0;
    for (i = 0; i < e->n; i++) items += flash__gemm_items(e->gemm + i);
    flash__effort_run(t, e, items, flash__gemm_task);
    e->n = 0;
}

static flash__gemm *flash__gemm_new(flash__effort *e, const flash__real *a, const flash__real *b,
                                    flash__real *c, int M, int N, int K, int add)
{
    flash__gemm *g = e->gemm + e->n++;
    g->a = a;
    g->b = b;
    g->c = c;
    g->M = M;
    g->N = N;
    g->K = K;
    g->lda = (size_t)K;
    g->ka = 1;
    g->ldb = (size_t)N;
    g->ldc = (size_t)N;
    g->turned = 0;
    g->add = add;
    return g;
}

/* Sets up y = x W^T, or y += x W^T if `add`. x: [T,in], w: [out,in], y: [T,out]. */
static void flash__gemm_forward(flash__effort *e, const flash__real *x, const flash__real *w,
                                flash__real *y, int T, int out, int in, int add)
{
    flash__gemm *g = flash__gemm_new(e, x, w, y, T, out, in, add);
    g->ldb = (size_t)in;
    g->turned = 1;
}

/* Sets up dx = dy W, or dx += dy W if `add`: the gradient of x. Shapes as above. */
static void flash__gemm_input(flash__effort *e, const flash__real *dy, const flash__real *w,
                              flash__real *dx, int T, int out, int in, int add)
{
    flash__gemm_new(e, dy, w, dx, T, in, out, add);
}

/* Sets up dW += dy^T x: the gradient of the weights. */
static void flash__gemm_weights(flash__effort *e, const flash__real *dy, const flash__real *x,
                                flash__real *dw, int T, int out, int in)
{
    flash__gemm *g = flash__gemm_new(e, dy, x, dw, out, in, T, 1);
    g->lda = 1;
    g->ka = (size_t)out;
}

/* --- steps over rows -------------------------------------------------------- */

/* Computes y = norm(x) in items of 64 rows. If `copy` is not NULL, x is also copied there: the next
   product is added to that copy. */
static void flash__t_norm_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    flash_trainer *t = e->t;
    size_t D = (size_t)t->arch.d_model;
    int item, r;
    (void)index;
    while ((item = flash__effort_pick(e)) >= 0)
        for (r = 64 * item; r < FLASH__MIN(64 * item + 64, e->width); r++) {
            flash__t_norm(&t->k, e->x + (size_t)r * D, t->w + e->at, (flash__real)t->arch.norm_eps,
                          D, e->y + (size_t)r * D);
            if (e->copy) memcpy(e->copy + (size_t)r * D, e->x + (size_t)r * D, D * sizeof *e->copy);
        }
}

static void flash__t_norm_rows(flash_trainer *t, flash__effort *e, const flash__real *x, size_t at,
                               flash__real *y, flash__real *copy, int rows)
{
    e->x = x;
    e->y = y;
    e->copy = copy;
    e->at = at;
    e->width = rows;
    flash__effort_run(t, e, (rows + 63) / 64, flash__t_norm_task);
}

/* Adds the gradient of x to y, in items of 64 rows, where dy is the gradient of norm(x). Each item
   writes its part of the gradient of the norm's weights to t->part. */
static void flash__t_norm_back_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    flash_trainer *t = e->t;
    size_t D = (size_t)t->arch.d_model;
    int item, r;
    (void)index;
    while ((item = flash__effort_pick(e)) >= 0) {
        flash__real *dw = t->part + (size_t)item * D;
        memset(dw, 0, D * sizeof *dw);
        for (r = 64 * item; r < FLASH__MIN(64 * item + 64, e->width); r++)
            flash__t_norm_back(&t->k, e->x + (size_t)r * D, t->w + e->at,
                               (flash__real)t->arch.norm_eps, D, e->dy + (size_t)r * D, 1,
                               e->y + (size_t)r * D, dw);
    }
}

/* Adds `pieces` partial sums of n numbers to the gradients from g[at] on, in order. The first one
   is at t->part[from], each next one `apart` numbers further on. */
static void flash__t_gather(flash_trainer *t, size_t at, size_t from, size_t n, size_t pieces,
                            size_t apart)
{
    size_t i;
    for (i = 0; i < pieces; i++) flash__t_add(&t->k, t->g + at, t->part + from + i * apart, n);
}

static void flash__t_norm_back_rows(flash_trainer *t, flash__effort *e, const flash__real *x,
                                    size_t at, const flash__real *dy, flash__real *dx, int rows)
{
    size_t D = (size_t)t->arch.d_model;
    e->x = x;
    e->dy = dy;
    e->y = dx;
    e->at = at;
    e->width = rows;
    flash__effort_run(t, e, (rows + 63) / 64, flash__t_norm_back_task);
    flash__t_gather(t, at, 0, D, (size_t)((rows + 63) / 64), D);
}

/* Works on items of 64 rows of gate and up: writes silu(gate) up to t->wide, or, with e->grad,
   replaces gate and up by their gradients, where t->wide holds that of the product. */
static void flash__t_glu_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    flash_trainer *t = e->t;
    size_t F = (size_t)e->facts->d_ffn;
    int item;
    (void)index;
    while ((item = flash__effort_pick(e)) >= 0) {
        size_t at = 64 * (size_t)item * F, n = (size_t)FLASH__MIN(64, t->N - 64 * item) * F;
        if (e->grad)
            flash__t_glu_back(&t->k, e->layer->gate + at, e->layer->up + at, t->wide + at, n);
        else
            flash__t_glu(&t->k, e->layer->gate + at, e->layer->up + at, n, t->wide + at);
    }
}

static void flash__t_glu_rows(flash_trainer *t, flash__effort *e, int grad)
{
    e->grad = grad;
    flash__effort_run(t, e, (t->N + 63) / 64, flash__t_glu_task);
}

/* --- attention -------------------------------------------------------------- */

/* A worker's memory for one sequence and one key/value head. P is n_ctx rounded up to 64. */
typedef struct flash__desk {
    flash__real *keys, *values; /* [P,C] keys after norm and RoPE; values as they are */
    flash__real *keys_turned, *values_turned; /* [P/64,C,64] transposed in blocks of 64 */
    flash__real *dk, *dv;                     /* [P,C] their gradients */
    flash__real *q, *o, *sum;    /* [64,C] queries; results or their gradients; a product */
    flash__real *score, *dscore; /* [64,64] scores, then weights; their gradients */
} flash__desk;

/* Points the fields of d into room, or sets them to NULL if room is NULL. Returns how many numbers
   they take. */
static size_t flash__desk_plan(flash__desk *d, const flash_trainer *t, flash__real *room)
{
    size_t C = (size_t)t->arch.d_head, P = (size_t)(t->desc.n_ctx + 63) / 64 * 64, at = 0;
    flash__real **field[] = {&d->keys,          &d->values, &d->keys_turned,
                             &d->values_turned, &d->dk,     &d->dv};
    flash__real **tile[] = {&d->q, &d->o, &d->sum};
    size_t i;
    for (i = 0; i < 6; i++, at += P * C) *field[i] = room ? room + at : NULL;
    for (i = 0; i < 3; i++, at += 64 * C) *tile[i] = room ? room + at : NULL;
    d->score = room ? room + at : NULL;
    d->dscore = room ? room + at + 4096 : NULL;
    return at + 8192;
}

/* Applies the norm and RoPE to x, [C], the query or key at position p. norm: where the norm's
   weights begin; 0: there is no norm. */
static void flash__t_turn(const flash__effort *e, size_t norm, int p, flash__real *x)
{
    const flash_trainer *t = e->t;
    const flash_arch *a = &t->arch;
    if (norm) flash__t_norm(&t->k, x, t->w + norm, (flash__real)a->norm_eps, (size_t)a->d_head, x);
    if (e->facts->rope_base != 0)
        flash__t_rope(&t->k, x,
                      t->rope
                          + ((size_t)(e->layer->rope * t->desc.n_ctx + p)) * (size_t)a->rope_dims,
                      a->rope_dims, a->rope_style);
}

/* The backward pass of flash__t_turn: makes the gradient of x out of d, the gradient of the result,
   and writes it over x. dw: [C] gradient of the norm's weights, added to; d is overwritten. */
static void flash__t_turn_back(const flash__effort *e, size_t norm, int p, flash__real *d,
                               flash__real *x, flash__real *dw)
{
    const flash_trainer *t = e->t;
    const flash_arch *a = &t->arch;
    size_t C = (size_t)a->d_head;
    if (e->facts->rope_base != 0)
        flash__t_rope(&t->k, d,
                      t->back
                          + ((size_t)(e->layer->rope * t->desc.n_ctx + p)) * (size_t)a->rope_dims,
                      a->rope_dims, a->rope_style);
    if (norm) flash__t_norm_back(&t->k, x, t->w + norm, (flash__real)a->norm_eps, C, d, 0, d, dw);
    memcpy(x, d, C * sizeof *x);
}

/* Transposes x, [P,C], in blocks of 64 rows into y, [P/64,C,64]. */
static void flash__desk_turn(const flash__kernels *k, const flash__real *x, int P, int C,
                             flash__real *y)
{
    int p;
    for (p = 0; p < P; p += 64) flash__t_turn_over(k, x + p * C, (size_t)C, 64, C, y + p * C, 64);
}

/* Fills in keys, values and keys_turned of d for the key/value head kv of the sequence that begins
   at a row of the batch. Beyond the sequence's end they are 0. */
static void flash__desk_fill(const flash__effort *e, const flash__desk *d, int row, int kv)
{
    const flash_trainer *t = e->t;
    int C = t->arch.d_head, T = t->desc.n_ctx, P = (T + 63) / 64 * 64, KD = e->facts->n_kv_head * C,
        p;
    size_t bytes = (size_t)C * sizeof *d->keys;
    for (p = 0; p < T; p++) {
        size_t at = (size_t)(row + p) * (size_t)KD + (size_t)(kv * C);
        memcpy(d->keys + p * C, e->layer->k + at, bytes);
        memcpy(d->values + p * C, e->layer->v + at, bytes);
        flash__t_turn(e, e->layer->at[FLASH__W_K_NORM], p, d->keys + p * C);
    }
    memset(d->keys + T * C, 0, (size_t)(P - T) * bytes);
    memset(d->values + T * C, 0, (size_t)(P - T) * bytes);
    flash__desk_turn(&t->k, d->keys, P, C, d->keys_turned);
}

/* Sets [*from, *to) to those of the 64 keys from position `begin` on that the query at position p
   sees, counted from `begin`. Returns 0 if it sees none of them. */
static int flash__desk_sees(const flash_layer *l, int p, int begin, int *from, int *to)
{
    *to = FLASH__MIN(p + 1 - begin, 64);
    *from = FLASH__MAX(flash__sees(l, p) - begin, 0);
    return *from < *to;
}

/* Computes o and lse of one query head for up to 64 queries from position 64*tile on, by blocks of
   64 keys with a running maximum and sum. row: where the sequence begins in the batch. */
static void flash__t_attend(const flash__effort *e, const flash__desk *d, int row, int head,
                            int tile)
{
    const flash_trainer *t = e->t;
    int C = t->arch.d_head, H = e->facts->n_head, n = FLASH__MIN(64, t->desc.n_ctx - 64 * tile), j,
        r, from, to;
    flash__real best[64], total[64], l, most, scale = (flash__real)t->arch.attention_scale;
    size_t bytes = (size_t)C * sizeof *d->q;
    for (r = 0; r < n; r++) {
        memcpy(d->q + r * C,
               e->layer->q + (size_t)(row + 64 * tile + r) * (size_t)(H * C) + (size_t)(head * C),
               bytes);
        flash__t_turn(e, e->layer->at[FLASH__W_Q_NORM], 64 * tile + r, d->q + r * C);
        total[r] = 0;
        best[r] = 0;
    }
    memset(d->o, 0, 64 * bytes);
    for (j = flash__sees(e->facts, 64 * tile) / 64; j <= tile; j++) {
        flash__real keep[64], add[64];
        flash__t_gemm(&t->k, d->q, (size_t)C, 1, d->keys_turned + 64 * j * C, 64, d->score, 64, n,
                      64, C);
        for (r = 0; r < n; r++) {
            add[r] = keep[r] = 1;
            if (!flash__desk_sees(e->facts, 64 * tile + r, 64 * j, &from, &to)) {
                memset(d->score + 64 * r, 0, 64 * sizeof *d->score);
                continue;
            }
            most = flash__t_softmax(&t->k, d->score + 64 * r, scale, from, to, &l);
            if (total[r] == 0) {
                best[r] = most;
                total[r] = l;
                continue;
            }
            if (most > best[r]) {
                keep[r] = flash__t_exp(best[r] - most);
                best[r] = most;
            } else
                add[r] = flash__t_exp(most - best[r]);
            total[r] = total[r] * keep[r] + l * add[r];
        }
        flash__t_gemm(&t->k, d->score, 64, 1, d->values + 64 * j * C, (size_t)C, d->sum, (size_t)C,
                      n, C, 64);
        for (r = 0; r < n; r++)
            flash__t_blend(&t->k, d->o + r * C, keep[r], d->sum + r * C, add[r], (size_t)C);
    }
    for (r = 0; r < n; r++) {
        size_t at = (size_t)(row + 64 * tile + r) * (size_t)H + (size_t)head;
        for (j = 0; j < C; j++) d->o[r * C + j] = d->o[r * C + j] / total[r];
        memcpy(e->layer->o + at * (size_t)C, d->o + r * C, bytes);
        e->layer->lse[at] = best[r] + (flash__real)flash__log(total[r]);
    }
}

/* The backward pass of flash__t_attend, from the gradient of o, which is in t->wide. The gradient
   of q is written over q; d->dk and d->dv are added to. dq: [64,C], work. dw: [C] gradient of the
   weights of the queries' norm, added to. */
static void flash__t_attend_back(const flash__effort *e, const flash__desk *d, int row, int head,
                                 int tile, flash__real *dq, flash__real *dw)
{
    const flash_trainer *t = e->t;
    int C = t->arch.d_head, H = e->facts->n_head, n = FLASH__MIN(64, t->desc.n_ctx - 64 * tile), j,
        r, from, to;
    flash__real delta[64], l, most, scale = (flash__real)t->arch.attention_scale;
    size_t bytes = (size_t)C * sizeof *d->q, c = (size_t)C, some = 64 * c;
    size_t first = (size_t)(row + 64 * tile) * (size_t)H + (size_t)head; /* in heads */
    const flash__real *lse = e->layer->lse + first;
    flash__real *q = e->layer->q + first * c;
    for (r = 0; r < n; r++) {
        size_t at = (size_t)(r * H) * c;
        memcpy(d->q + r * C, q + at, bytes);
        flash__t_turn(e, e->layer->at[FLASH__W_Q_NORM], 64 * tile + r, d->q + r * C);
        memcpy(d->o + r * C, t->wide + first * c + at, bytes);
        delta[r] = flash__t_dot(&t->k, d->o + r * C, e->layer->o + first * c + at, c);
    }
    memset(dq, 0, 64 * bytes);
    for (j = flash__sees(e->facts, 64 * tile) / 64; j <= tile; j++) {
        size_t at = 64 * (size_t)j * c;
        flash__t_gemm(&t->k, d->q, c, 1, d->keys_turned + at, 64, d->score, 64, n, 64, C);
        flash__t_gemm(&t->k, d->o, c, 1, d->values_turned + at, 64, d->dscore, 64, n, 64, C);
        for (r = 0; r < n; r++) {
            if (!flash__desk_sees(e->facts, 64 * tile + r, 64 * j, &from, &to)) {
                memset(d->score + 64 * r, 0, 64 * sizeof *d->score);
                memset(d->dscore + 64 * r, 0, 64 * sizeof *d->score);
                continue;
            }
            most = flash__t_softmax(&t->k, d->score + 64 * r, scale, from, to, &l);
            flash__t_fade(&t->k, d->score + 64 * r, d->dscore + 64 * r,
                          flash__t_exp(most - lse[r * H]), delta[r], scale);
        }
        flash__t_gemm(&t->k, d->score, 1, 64, d->o, c, d->sum, c, 64, C, n);
        flash__t_add(&t->k, d->dv + at, d->sum, some);
        flash__t_gemm(&t->k, d->dscore, 1, 64, d->q, c, d->sum, c, 64, C, n);
        flash__t_add(&t->k, d->dk + at, d->sum, some);
        flash__t_gemm(&t->k, d->dscore, 64, 1, d->keys + at, c, d->sum, c, n, C, 64);
        flash__t_add(&t->k, dq, d->sum, (size_t)n * c);
    }
    for (r = 0; r < n; r++)
        flash__t_turn_back(e, e->layer->at[FLASH__W_Q_NORM], 64 * tile + r, dq + r * C,
                           q + (size_t)(r * H) * c, dw);
}

/* Computes attention, or with e->grad its backward pass. An item is one sequence and one key/value
   head with all its query heads, so that dk and dv have only one writer. */
static void flash__t_attention_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    flash_trainer *t = e->t;
    int C = t->arch.d_head, K = e->facts->n_kv_head, group = e->facts->n_head / K,
        T = t->desc.n_ctx, P = (T + 63) / 64 * 64, item, tile, g, p;
    flash__real *room = flash__effort_room(e, index), *dq;
    flash__desk d;
    size_t bytes = (size_t)C * sizeof *room;
    dq = room + flash__desk_plan(&d, t, room);
    while ((item = flash__effort_pick(e)) >= 0) {
        int row = item / K * T, kv = item % K;
        flash__real *dw = t->part + 2 * (size_t)item * (size_t)C;
        flash__desk_fill(e, &d, row, kv);
        if (e->grad) {
            flash__desk_turn(&t->k, d.values, P, C, d.values_turned);
            memset(d.dk, 0, (size_t)P * bytes);
            memset(d.dv, 0, (size_t)P * bytes);
            memset(dw, 0, 2 * bytes);
        }
        for (g = 0; g < group; g++)
            for (tile = 0; tile < P / 64; tile++)
                if (e->grad)
                    flash__t_attend_back(e, &d, row, kv * group + g, tile, dq, dw);
                else
                    flash__t_attend(e, &d, row, kv * group + g, tile);
        for (p = 0; e->grad && p < T; p++) {
            size_t at = ((size_t)(row + p) * (size_t)K + (size_t)kv) * (size_t)C;
            flash__t_turn_back(e, e->layer->at[FLASH__W_K_NORM], p, d.dk + p * C, e->layer->k + at,
                               dw + C);
            memcpy(e->layer->v + at, d.dv + p * C, bytes);
        }
    }
}

/* --- layers ----------------------------------------------------------------- */

static void flash__layer_forward(flash_trainer *t, int il)
{
    const flash_layer *facts = t->arch.layer + il;
    flash__lesson *l = t->layer + il;
    flash__real *out = il + 1 < t->arch.n_layer ? t->layer[il + 1].in : t->out, *w = t->w;
    int D = t->arch.d_model, QD = facts->n_head * t->arch.d_head, F = facts->d_ffn,
        KD = facts->n_kv_head * t->arch.d_head, N = t->N;
    flash__effort e;
    e.layer = l;
    e.facts = facts;
    e.n = 0;
    e.grad = 0;
    if (l->at[FLASH__W_Q]) {
        flash__t_norm_rows(t, &e, l->in, l->at[FLASH__W_ATTN_NORM], t->normed, l->mid, N);
        flash__gemm_forward(&e, t->normed, w + l->at[FLASH__W_Q], l->q, N, QD, D, 0);
        flash__gemm_forward(&e, t->normed, w + l->at[FLASH__W_K], l->k, N, KD, D, 0);
        flash__gemm_forward(&e, t->normed, w + l->at[FLASH__W_V], l->v, N, KD, D, 0);
        flash__gemm_run(t, &e);
        flash__effort_run(t, &e, t->N / t->desc.n_ctx * facts->n_kv_head, flash__t_attention_task);
        flash__gemm_forward(&e, l->o, w + l->at[FLASH__W_O], l->mid, N, D, QD, 1);
        flash__gemm_run(t, &e);
    }
    if (l->at[FLASH__W_GATE]) {
        flash__t_norm_rows(t, &e, l->mid, l->at[FLASH__W_FFN_NORM], t->normed, out, N);
        flash__gemm_forward(&e, t->normed, w + l->at[FLASH__W_GATE], l->gate, N, F, D, 0);
        flash__gemm_forward(&e, t->normed, w + l->at[FLASH__W_UP], l->up, N, F, D, 0);
        flash__gemm_run(t, &e);
        flash__t_glu_rows(t, &e, 0);
        flash__gemm_forward(&e, t->wide, w + l->at[FLASH__W_DOWN], out, N, D, F, 1);
        flash__gemm_run(t, &e);
    }
}

/* Runs a layer backwards and adds to the gradients of its weights. On entry, t->dx is the gradient
   of the layer's result; on return, it is the gradient of the layer's input. */
static void flash__layer_backward(flash_trainer *t, int il)
{
    const flash_layer *facts = t->arch.layer + il;
    flash__lesson *l = t->layer + il;
    flash__real *w = t->w, *g = t->g;
    int D = t->arch.d_model, QD = facts->n_head * t->arch.d_head, F = facts->d_ffn,
        KD = facts->n_kv_head * t->arch.d_head, N = t->N, C = t->arch.d_head;
    flash__effort e;
    e.layer = l;
    e.facts = facts;
    e.n = 0;
    if (l->at[FLASH__W_GATE]) {
        flash__t_glu_rows(t, &e, 0);
        flash__gemm_weights(&e, t->dx, t->wide, g + l->at[FLASH__W_DOWN], N, D, F);
        flash__gemm_run(t, &e);
        flash__gemm_input(&e, t->dx, w + l->at[FLASH__W_DOWN], t->wide, N, D, F, 0);
        flash__gemm_run(t, &e);
        flash__t_glu_rows(t, &e, 1);
        flash__t_norm_rows(t, &e, l->mid, l->at[FLASH__W_FFN_NORM], t->normed, NULL, N);
        flash__gemm_weights(&e, l->gate, t->normed, g + l->at[FLASH__W_GATE], N, F, D);
        flash__gemm_weights(&e, l->up, t->normed, g + l->at[FLASH__W_UP], N, F, D);
        flash__gemm_input(&e, l->gate, w + l->at[FLASH__W_GATE], t->dnorm, N, F, D, 0);
        flash__gemm_run(t, &e);
        flash__gemm_input(&e, l->up, w + l->at[FLASH__W_UP], t->dnorm, N, F, D, 1);
        flash__gemm_run(t, &e);
        flash__t_norm_back_rows(t, &e, l->mid, l->at[FLASH__W_FFN_NORM], t->dnorm, t->dx, N);
    }
    if (l->at[FLASH__W_Q]) {
        size_t items = (size_t)(N / t->desc.n_ctx * facts->n_kv_head), c = (size_t)C;
        flash__gemm_weights(&e, t->dx, l->o, g + l->at[FLASH__W_O], N, D, QD);
        flash__gemm_input(&e, t->dx, w + l->at[FLASH__W_O], t->wide, N, D, QD, 0);
        flash__gemm_run(t, &e);
        e.grad = 1;
        flash__effort_run(t, &e, (int)items, flash__t_attention_task);
        if (l->at[FLASH__W_Q_NORM]) {
            flash__t_gather(t, l->at[FLASH__W_Q_NORM], 0, c, items, 2 * c);
            flash__t_gather(t, l->at[FLASH__W_K_NORM], c, c, items, 2 * c);
        }
        flash__t_norm_rows(t, &e, l->in, l->at[FLASH__W_ATTN_NORM], t->normed, NULL, N);
        flash__gemm_weights(&e, l->q, t->normed, g + l->at[FLASH__W_Q], N, QD, D);
        flash__gemm_weights(&e, l->k, t->normed, g + l->at[FLASH__W_K], N, KD, D);
        flash__gemm_weights(&e, l->v, t->normed, g + l->at[FLASH__W_V], N, KD, D);
        flash__gemm_input(&e, l->q, w + l->at[FLASH__W_Q], t->dnorm, N, QD, D, 0);
        flash__gemm_run(t, &e);
        flash__gemm_input(&e, l->k, w + l->at[FLASH__W_K], t->dnorm, N, KD, D, 1);
        flash__gemm_run(t, &e);
        flash__gemm_input(&e, l->v, w + l->at[FLASH__W_V], t->dnorm, N, KD, D, 1);
        flash__gemm_run(t, &e);
        flash__t_norm_back_rows(t, &e, l->in, l->at[FLASH__W_ATTN_NORM], t->dnorm, t->dx, N);
    }
}

/* --- loss ------------------------------------------------------------------- */

/* Copies 64 logits of a row from i on, or as many as are left, to room, [64], and fills it up with
   0. The row is z, or other if z is NULL, [V]. Returns the number of logits copied. */
static int flash__logits_take(const flash__real *z, const float *other, int V, int i,
                              flash__real *room)
{
    int n = FLASH__MIN(64, V - i), j;
    for (j = 0; z && j < n; j++) room[j] = z[i + j];
    for (j = 0; !z && j < n; j++) room[j] = (flash__real)other[i + j];
    for (j = n; j < 64; j++) room[j] = 0;
    return n;
}

/* Returns ln sum e^(z scale) over the row z, [V], or over other if z is NULL; NaN if the sum is not
   finite. */
static double flash__logits_total(const flash__kernels *k, const flash__real *z, const float *other,
                                  int V, flash__real scale)
{
    flash__real room[64], l, most;
    double best = 0, total = 0;
    int i, n;
    for (i = 0; i < V; i += 64) {
        n = flash__logits_take(z, other, V, i, room);
        most = flash__t_softmax(k, room, scale, 0, n, &l);
        if (total == 0) {
            best = most;
            total = l;
            continue;
        }
        if (most > best) {
            total = total * flash__exp(best - most) + l;
            best = most;
        } else
            total += l * flash__exp(most - best);
    }
    /* flash__log takes only normal numbers: of others it could make a finite result */
    return total > 0 && total < 1e300 ? best + flash__log(total)
                                      : flash__bits_f64(0x7ff8000000000000u);
}

/* Computes the probabilities softmax(z scale) of up to 64 items from i on into p, [64]; other takes
   the place of z if z is NULL. total: what flash__logits_total returned for the row. Returns the
   number of probabilities. */
static int flash__logits_probs(const flash__kernels *k, const flash__real *z, const float *other,
                               int V, int i, flash__real scale, double total, flash__real *p)
{
    int n = flash__logits_take(z, other, V, i, p), j;
    flash__real l, f = flash__t_softmax(k, p, scale, 0, n, &l);
    f = (flash__real)flash__exp((double)f - total);
    for (j = 0; j < n; j++) p[j] = p[j] * f;
    return n;
}

/* Computes the losses of one row of logits z, [V]: loss[0] is the cross-entropy of the token
   `target`, loss[1] the KL divergence from the teacher's logits (0 if NULL), both in nats. With
   e->grad, z is replaced by the gradient of the weighted losses. */
static void flash__loss_row(const flash__effort *e, flash__real *z, const float *teacher,
                            int target, double *loss)
{
    const flash_trainer *t = e->t;
    const flash__kernels *k = &t->k;
    int V = t->arch.n_vocab, i, j, n;
    flash__real temperature = (flash__real)t->desc.temperature, cool = 1 / temperature,
                a = (flash__real)t->desc.kl_weight * temperature * e->scale,
                b = (flash__real)t->desc.ce_weight * e->scale, ours[64], theirs[64], warm[64];
    double total = flash__logits_total(k, z, NULL, V, 1), kl = 0, cooled = total, other = 0;
    loss[0] = total - (double)z[target];
    loss[1] = 0;
    if (teacher) {
        if (cool != 1) cooled = flash__logits_total(k, z, NULL, V, cool);
        other = flash__logits_total(k, NULL, teacher, V, cool);
    }
    for (i = 0; i < V && (e->grad || teacher); i += 64) {
        n = flash__logits_probs(k, z, NULL, V, i, 1, total, ours);
        if (teacher) {
            flash__logits_probs(k, NULL, teacher, V, i, cool, other, theirs);
            for (j = 0; j < n; j++)
                kl += (double)theirs[j] * ((double)teacher[i + j] - (double)z[i + j]);
        }
        if (!e->grad) continue;
        if (teacher && cool != 1)
            flash__logits_probs(k, z, NULL, V, i, cool, cooled, warm);
        else
            memcpy(warm, ours, sizeof warm);
        for (j = 0; j < n; j++) z[i + j] = b * ours[j];
        for (j = 0; teacher && j < n; j++) z[i + j] += a * (warm[j] - theirs[j]);
    }
    if (e->grad) z[target] -= b;
    if (teacher) loss[1] = kl * (double)cool + cooled - other;
}

static void flash__loss_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    flash_trainer *t = e->t;
    size_t V = (size_t)t->arch.n_vocab;
    int r;
    (void)index;
    while ((r = flash__effort_pick(e)) >= 0)
        flash__loss_row(e, t->z + (size_t)r * V, e->teacher ? e->teacher + (size_t)r * V : NULL,
                        e->tokens[r + 1], t->sums + 2 * r);
}

/* Adds the losses of n rows of the batch from `row` on to sum. tokens: [n+1], from the first row's
   token on; the target of a row is the token after it. teacher: the teacher's logits, [n,V], or
   NULL. With grad, also computes t->dx of these rows and adds to the gradients of the head and of
   the last norm; scale is the weight of a row. */
static void flash__loss_rows(flash_trainer *t, const int32_t *tokens, const float *teacher, int row,
                             int n, int grad, double scale, double sum[2])
{
    int D = t->arch.d_model, V = t->arch.n_vocab, i;
    size_t at = (size_t)row * (size_t)D;
    flash__effort e;
    e.n = 0;
    flash__t_norm_rows(t, &e, t->out + at, t->out_norm, t->normed, NULL, n);
    flash__gemm_forward(&e, t->normed, t->w + t->head, t->z, n, V, D, 0);
    flash__gemm_run(t, &e);
    e.tokens = tokens;
    e.teacher = teacher;
    e.scale = (flash__real)scale;
    e.grad = grad;
    flash__effort_run(t, &e, n, flash__loss_task);
    for (i = 0; i < n; i++) {
        sum[0] += t->sums[2 * i];
        sum[1] += t->sums[2 * i + 1];
    }
    if (!grad) return;
    flash__gemm_weights(&e, t->z, t->normed, t->g + t->head, n, V, D);
    flash__gemm_input(&e, t->z, t->w + t->head, t->dnorm, n, V, D, 0);
    flash__gemm_run(t, &e);
    memset(t->dx + at, 0, (size_t)n * (size_t)D * sizeof *t->dx);
    flash__t_norm_back_rows(t, &e, t->out + at, t->out_norm, t->dnorm, t->dx + at, n);
}

/* Adds the gradients in t->dx to those of the embedding. An item is 64 columns of all rows, so that
   no two workers write the same weight. */
static void flash__embed_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    flash_trainer *t = e->t;
    int T = t->desc.n_ctx, item, r;
    size_t D = (size_t)t->arch.d_model;
    (void)index;
    while ((item = flash__effort_pick(e)) >= 0) {
        size_t j = 64 * (size_t)item, n = FLASH__MIN(64, D - j);
        for (r = 0; r < t->N; r++)
            flash__t_add(&t->k, t->g + (size_t)e->tokens[r / T * (T + 1) + r % T] * D + j,
                         t->dx + (size_t)r * D + j, n);
    }
}

/* Runs one batch of n sequences, tokens: [n,n_ctx+1]. Adds the losses of its rows to sum and, with
   grad, the gradients of the losses times scale to t->g. */
static flash_status flash__batch(flash_trainer *t, const int32_t *tokens, int n, int grad,
                                 double scale, double sum[2])
{
    int T = t->desc.n_ctx, D = t->arch.d_model, s, r, first, some, il;
    flash__real *x = t->arch.n_layer ? t->layer[0].in : t->out;
    const float *logits = NULL;
    flash__effort e;
    t->N = n * T;
    for (r = 0; r < t->N; r++)
        memcpy(x + (size_t)r * (size_t)D,
               t->w + (size_t)tokens[r / T * (T + 1) + r % T] * (size_t)D, (size_t)D * sizeof *x);
    for (il = 0; il < t->arch.n_layer; il++) flash__layer_forward(t, il);
    for (s = 0; s < n; s++) {
        const int32_t *own = tokens + (size_t)s * (size_t)(T + 1);
        if (t->teacher) {
            flash_session_reset(t->teacher);
            flash_session_feed(t->teacher, own, (size_t)T);
        }
        for (r = 0; r < T; r += FLASH__LOSS_ROWS) {
            int rows = FLASH__MIN(FLASH__LOSS_ROWS, T - r);
            if (t->teacher) {
                flash_status status = flash_session_step(t->teacher, NULL);
                if (status < 0) return status;
                logits = flash_session_chunk_logits(t->teacher, &first, &some);
                if (!logits || first != r || some != rows) return FLASH_E_INTERNAL;
            }
            flash__loss_rows(t, own + r, logits, s * T + r, rows, grad, scale, sum);
        }
    }
    if (!grad) return FLASH_E_NONE;
    for (il = t->arch.n_layer; il-- > 0;) flash__layer_backward(t, il);
    e.tokens = tokens;
    flash__effort_run(t, &e, (D + 63) / 64, flash__embed_task);
    return FLASH_E_NONE;
}

/* --- the step --------------------------------------------------------------- */

static int flash__update_items(const flash_trainer *t)
{
    return (int)((t->n + FLASH__UPDATE - 1) / FLASH__UPDATE);
}

/* The items of this task and of the next two are pieces of FLASH__UPDATE weights. */
static void flash__zero_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    flash_trainer *t = e->t;
    int item;
    (void)index;
    while ((item = flash__effort_pick(e)) >= 0) {
        size_t at = (size_t)item * FLASH__UPDATE;
        memset(t->g + at, 0, FLASH__MIN((size_t)FLASH__UPDATE, t->n - at) * sizeof *t->g);
    }
}

static void flash__square_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    flash_trainer *t = e->t;
    int item;
    (void)index;
    while ((item = flash__effort_pick(e)) >= 0) {
        size_t at = (size_t)item * FLASH__UPDATE, end = FLASH__MIN(at + FLASH__UPDATE, t->n);
        double lane[4] = {0, 0, 0, 0};
        for (; at < end; at += 4) { /* tensors are multiples of 16 */
            lane[0] += (double)t->g[at] * (double)t->g[at];
            lane[1] += (double)t->g[at + 1] * (double)t->g[at + 1];
            lane[2] += (double)t->g[at + 2] * (double)t->g[at + 2];
            lane[3] += (double)t->g[at + 3] * (double)t->g[at + 3];
        }
        t->sums[item] = (lane[0] + lane[1]) + (lane[2] + lane[3]);
    }
}

/* Returns the number of the tensor that contains the weight at `at`. */
static size_t flash__leaf_at(const flash_trainer *t, size_t at)
{
    size_t lo = 0, hi = t->n_leaf;
    while (hi - lo > 1) {
        size_t middle = (lo + hi) / 2;
        if (t->leaf[middle].at <= at)
            lo = middle;
        else
            hi = middle;
    }
    return lo;
}

/* Updates weights and moments by AdamW. e->scale is a factor of the gradients, e->c1 and e->c2 are
   the factors by which bias correction multiplies the first and second moments. */
static void flash__adamw_task(void *ctx, int index)
{
    flash__effort *e = (flash__effort *)ctx;
    flash_trainer *t = e->t;
    const flash_trainer_desc *d = &t->desc;
    flash__rates r;
    int item;
    r.scale = (float)e->scale;
    r.b1 = d->beta1;
    r.a1 = 1 - d->beta1;
    r.b2 = d->beta2;
    r.a2 = 1 - d->beta2;
    r.rate = (float)(e->lr * e->c1);
    r.c2 = (float)e->c2;
    r.epsilon = d->epsilon;
    (void)index;
    while ((item = flash__effort_pick(e)) >= 0) {
        size_t at = (size_t)item * FLASH__UPDATE, end = FLASH__MIN(at + FLASH__UPDATE, t->n), stop,
               leaf;
        for (leaf = flash__leaf_at(t, at); at < end; leaf++) {
            r.keep = (float)(t->leaf[leaf].matrix ? 1 - e->lr * (double)d->weight_decay : 1);
            stop = leaf + 1 < t->n_leaf ? FLASH__MIN(end, t->leaf[leaf + 1].at) : end;
            flash__t_adamw(&t->k, t->w + at, t->m + at, t->v + at, t->g + at, stop - at, &r);
            at = stop;
        }
    }
}

/* Returns the learning rate of the step that follows `step` completed ones: linear warm-up, then
   half a cosine down to the share final_lr. */
static double flash__learning_rate(const flash_trainer_desc *d, uint64_t step)
{
    double lr = d->lr, share = d->final_lr, c, s, way;
    if (step < (uint64_t)d->warmup) return lr * ((double)step + 1) / d->warmup;
    if (!d->steps) return lr;
    way = ((double)step - d->warmup) / FLASH__MAX(d->steps - 1 - d->warmup, 1);
    flash__cos_sin(3.14159265358979323846 * FLASH__MIN(way, 1.0), &c, &s);
    return lr * (share + (1 - share) * 0.5 * (1 + c));
}

static int flash__tokens_ok(const flash_trainer *t, const int32_t *tokens, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= t->arch.n_vocab) return 0;
    return 1;
}

static void flash__report_losses(const flash_trainer *t, const double sum[2], double tokens,
                                 flash_trainer_report *r)
{
    double temperature = t->desc.temperature;
    memset(r, 0, sizeof *r);
    r->ce = sum[0] / tokens;
    r->kl = sum[1] / tokens;
    r->loss = t->desc.ce_weight * r->ce;
    if (t->teacher) r->loss += t->desc.kl_weight * temperature * temperature * r->kl;
    r->step = t->step;
    r->tokens = t->tokens;
}

/* Computes the gradients of all batches of a step into t->g, and the mean losses into *r. */
static flash_status flash__gradients(flash_trainer *t, const int32_t *tokens,
                                     flash_trainer_report *r)
{
    size_t batch = (size_t)t->desc.batch * (size_t)(t->desc.n_ctx + 1);
    double sum[2] = {0, 0}, count = (double)t->desc.accumulate * t->desc.batch * t->desc.n_ctx;
    flash__effort e;
    flash_status s = FLASH_E_NONE;
    int i;
    flash__effort_run(t, &e, flash__update_items(t), flash__zero_task);
    for (i = 0; i < t->desc.accumulate && !s; i++) {
        s = flash__batch(t, tokens + (size_t)i * batch, t->desc.batch, 1, 1 / count, sum);
        if (!s && !flash__finite(sum[0] + sum[1])) s = FLASH_E_RANGE;
    }
    flash__report_losses(t, sum, count, r);
    return s;
}

FLASH_API flash_status flash_trainer_step(flash_trainer *t, const int32_t *tokens,
                                          flash_trainer_report *report)
{
    flash_trainer_report r;
    flash__effort e;
    flash_status s;
    double norm = 0;
    size_t n;
    int i;
    if (!t || !tokens) return FLASH_E_ARGUMENT;
    n = (size_t)t->desc.accumulate * (size_t)t->desc.batch;
    if (!flash__tokens_ok(t, tokens, n * (size_t)(t->desc.n_ctx + 1))) return FLASH_E_ARGUMENT;
    s = flash__gradients(t, tokens, &r);
    if (s) return s;
    flash__effort_run(t, &e, flash__update_items(t), flash__square_task);
    for (i = 0; i < flash__update_items(t); i++) norm += t->sums[i];
    norm = sqrt(norm);
    if (!flash__finite(norm) || norm > 1e30) return FLASH_E_RANGE;
    r.grad_norm = norm;
    r.lr = flash__learning_rate(&t->desc, t->step);
    t->step++;
    t->tokens += n * (uint64_t)t->desc.n_ctx;
    e.scale = (flash__real)(t->desc.clip > 0 && norm > t->desc.clip ? t->desc.clip / norm : 1);
    e.lr = r.lr;
    e.c1 = 1 / (1 - flash__exp((double)t->step * flash__log(t->desc.beta1)));
    e.c2 = 1 / (1 - flash__exp((double)t->step * flash__log(t->desc.beta2)));
    flash__effort_run(t, &e, flash__update_items(t), flash__adamw_task);
    r.step = t->step;
    r.tokens = t->tokens;
    if (report) *report = r;
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_trainer_evaluate(flash_trainer *t, const int32_t *tokens, size_t n,
                                              flash_trainer_report *report)
{
    double sum[2] = {0, 0};
    size_t i, some, row;
    flash_status s = FLASH_E_NONE;
    if (!t || !tokens || !report || !n || n > SIZE_MAX / 4 / (size_t)(t->desc.n_ctx + 1))
        return FLASH_E_ARGUMENT;
    row = (size_t)(t->desc.n_ctx + 1);
    if (!flash__tokens_ok(t, tokens, n * row)) return FLASH_E_ARGUMENT;
    for (i = 0; i < n && !s; i += some) {
        some = FLASH__MIN((size_t)t->desc.batch, n - i);
        s = flash__batch(t, tokens + i * row, (int)some, 0, 0, sum);
    }
    if (!s && !flash__finite(sum[0] + sum[1])) s = FLASH_E_RANGE;
    if (!s) flash__report_losses(t, sum, (double)n * t->desc.n_ctx, report);
    return s;
}

/* --- making one ------------------------------------------------------------- */

/* Replaces settings of 0 by their defaults. Returns 0 if a setting is out of range. */
static int flash__trainer_defaults(flash_trainer_desc *d)
{
    const float *number[] = {&d->kl_weight,    &d->ce_weight, &d->temperature, &d->lr,
                             &d->final_lr,     &d->beta1,     &d->beta2,       &d->epsilon,
                             &d->weight_decay, &d->clip};
    size_t i;
    for (i = 0; i < FLASH__COUNT(number); i++)
        if (!flash__finite(*number[i])) return 0;
    if (!d->batch) d->batch = 1;
    if (!d->accumulate) d->accumulate = 1;
    if (d->kl_weight == 0 && d->ce_weight == 0) {
        if (d->teacher)
            d->kl_weight = 1;
        else
            d->ce_weight = 1;
    }
    if (d->temperature == 0) d->temperature = 1;
    if (d->lr == 0) d->lr = 1e-3f;
    d->final_lr = d->final_lr == 0 ? 0.1f : FLASH__MAX(d->final_lr, 0.0f);
    if (d->beta1 == 0) d->beta1 = 0.9f;
    if (d->beta2 == 0) d->beta2 = 0.95f;
    if (d->epsilon == 0) d->epsilon = 1e-8f;
    if (d->clip == 0) d->clip = 1;
    if (!d->seed) d->seed = 1;
    return d->batch > 0 && d->accumulate > 0 && d->threads >= 0 && d->threads <= FLASH_THREADS_MAX
        && d->n_ctx >= 0 && d->n_ctx <= FLASH_CONTEXT_MAX && d->kl_weight >= 0 && d->ce_weight >= 0
        && (d->teacher || d->kl_weight == 0) && d->temperature >= 1e-3f && d->temperature <= 1e3f
        && d->lr > 0 && d->beta1 > 0 && d->beta1 < 1 && d->beta2 > 0 && d->beta2 < 1
        && d->epsilon > 0 && d->weight_decay >= 0 && d->warmup >= 0 && d->steps >= 0
        && d->accumulate <= (1 << 20) && d->batch <= (1 << 20)
        && !d->host.allocator.acquire == !d->host.allocator.release;
}

/* Returns the name of what makes training impossible, for error messages; NULL: nothing does. */
static const char *flash__arch_untrainable(const flash_arch *a)
{
    int i;
    if (a->activation != FLASH_ACTIVATION_SILU) return "gates of GELU";
    if (a->qk_norm) return "norms without weights";
    if (a->logit_cap != 0) return "a cap on logits";
    if (a->embedding_scale != 1) return "a scaled embedding";
    if (a->temperature_n_ctx) return "queries that grow with the position";
    for (i = 0; i < a->n_layer; i++) switch (a->layer[i].attention) {
        case FLASH_ATTENTION_FULL:
        case FLASH_ATTENTION_WINDOW:
        case FLASH_ATTENTION_SKIP: break;
        case FLASH_ATTENTION_CONV: return "convolutions";
        case FLASH_ATTENTION_LINEAR: return "a matrix in place of attention";
        default: return "attention in chunks";
        }
    return NULL;
}

/* Completes an architecture that the user wrote: fields that are 0 but must not be get their
   defaults. Returns 0 if a field is out of range. */
static int flash__arch_complete(flash_arch *a)
{
    float *number[] = {&a->norm_eps,        &a->rope_factor,     &a->rope_attn_factor,
                       &a->attention_scale, &a->embedding_scale, &a->rope_beta_fast,
                       &a->rope_beta_slow,  &a->rope_low_freq,   &a->rope_high_freq};
    static const float usual[] = {1e-5f, 1, 1, 0, 1, 32, 1, 1, 4};
    size_t k;
    int i;
    if (a->n_layer < 1 || a->n_layer > FLASH_LAYERS_MAX || a->d_model < 1
        || a->d_model > FLASH_DIM_MAX || a->d_head < 1 || a->d_head > FLASH_HEAD_MAX
        || a->n_vocab < 1 || a->n_vocab > FLASH_VOCAB_MAX || a->rope_dims < 0
        || a->rope_dims > a->d_head || a->rope_dims & 1 || a->n_ctx < 0)
        return 0;
    if (!a->n_ctx) a->n_ctx = 256;
    if (!a->rope_n_ctx) a->rope_n_ctx = a->n_ctx;
    if (!a->rope_dims) a->rope_dims = a->d_head & ~1;
    for (k = 0; k < FLASH__COUNT(number); k++) {
        if (*number[k] == 0) *number[k] = usual[k];
        if (*number[k] == 0) *number[k] = 1 / sqrtf((float)a->d_head);
        if (!(*number[k] > 0 && flash__finite(*number[k]))) return 0;
    }
    if (!(a->rope_high_freq > a->rope_low_freq)) return 0;
    for (i = 0; i < a->n_layer; i++) {
        flash_layer *l = a->layer + i;
        if (l->attention == FLASH_ATTENTION_SKIP) l->n_head = l->n_kv_head = 0;
        if (l->d_ffn < 0 || l->d_ffn > FLASH_DIM_MAX || l->window < 0
            || (int)l->n_head * a->d_head > FLASH_DIM_MAX
            || (flash__parts(l) & FLASH__HAS_KV
                && (!l->n_kv_head || l->n_head % l->n_kv_head || l->n_head < l->n_kv_head))
            || (l->attention == FLASH_ATTENTION_WINDOW && !l->window)
            || (l->rope_base != 0
                && !(l->rope_base >= 1 && flash__finite(l->rope_base) && a->rope_dims)))
            return 0;
    }
    return 1;
}

/* Checks desc and fills in desc, arch, k, slots and N of t. *bit becomes the architecture's bit,
   FLASH__IS_... */
static flash_status flash__trainer_resolve(flash_trainer *t, const flash_trainer_desc *desc,
                                           int *bit, flash_error *err)
{
    const flash__arch_fact *fact;
    const char *lacks;
    flash_status s;
    memset(t, 0, sizeof *t);
    if (!desc || (!desc->init && !desc->arch))
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no model and no shape to begin with");
    t->desc = *desc;
    if (!flash__trainer_defaults(&t->desc))
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "a setting of the training is out of range");
    if (desc->init && desc->init->desc.vocab_only)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "the model was loaded without weights");
    t->arch = desc->init ? desc->init->arch : *desc->arch;
    t->arch.name[sizeof t->arch.name - 1] = 0;
    fact = flash__arch_find(t->arch.name);
    if (!fact)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "there is no architecture \"%s\"",
                           t->arch.name);
    *bit = fact->bit;
    if (!desc->init && !flash__arch_complete(&t->arch))
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "the shape is out of range");
    lacks = flash__arch_untrainable(&t->arch);
    if (lacks)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "%s cannot be trained: it has %s",
                           t->arch.name, lacks);
    if (!t->desc.n_ctx) t->desc.n_ctx = FLASH__MIN(t->arch.n_ctx, 256);
    if (t->desc.n_ctx > (1 << 24) / t->desc.batch)
        return flash__fail(err, FLASH_E_TOO_LARGE, 0, "a batch of more than %i tokens", 1 << 24);
    if (t->desc.teacher && t->desc.teacher->arch.n_vocab != t->arch.n_vocab)
        return flash__fail(err, FLASH_E_ARGUMENT, 0,
                           "the teacher has %i tokens, the model %i: they must have the same "
                           "vocabulary",
                           t->desc.teacher->arch.n_vocab, t->arch.n_vocab);
    s = flash__kernels_select(&t->k, desc->isa);
    if (s)
        return flash__fail(err, s, 0, "instruction set %s is not available here",
                           flash_isa_name(desc->isa));
    t->desc.arch = NULL;
    t->slots = FLASH__MAX(t->desc.threads, 1);
    t->N = t->desc.batch * t->desc.n_ctx;
    return FLASH_E_NONE;
}

/* Returns whether the model has the tensor of a rule. part: the flash__layer or flash__root that
   would hold it; NULL: there is no model, and the architecture's rules and desc.qk_norm decide. */
static int flash__leaf_there(const flash_trainer *t, const flash__tensor_rule *rule, int bit,
                             const void *part)
{
    flash__mat w;
    const float *vector;
    if (!part)
        return rule->need & bit
            || (t->desc.qk_norm && rule->may & bit
                && (rule->at == FLASH__LAYER(q_norm) || rule->at == FLASH__LAYER(k_norm)));
    if (rule->matrix)
        memcpy(&w, (const uint8_t *)part + rule->at, sizeof w);
    else
        memcpy(&vector, (const uint8_t *)part + rule->at, sizeof vector);
    return rule->matrix ? w.data != NULL : vector != NULL;
}

/* Appends a tensor and returns where its weights begin. If t has memory, its weights are also
   copied from source, a flash__layer or flash__root, or if that is NULL, made: random for matrices,
   1 for norms. */
static size_t flash__leaf_new(flash_trainer *t, const flash__tensor_rule *rule, const char *prefix,
                              const flash_layer *l, const void *source)
{
    size_t rows = (size_t)flash__dim(&t->arch, l, rule->rows),
           cols = (size_t)flash__dim(&t->arch, l, rule->cols), at = t->n, r, i;
    flash__leaf *leaf = t->leaf ? t->leaf + t->n_leaf : NULL;
    t->n_leaf++;
    if (cols && rows > (SIZE_MAX / 16 - t->n) / cols)
        t->n = SIZE_MAX / 16; /* more than any arena holds: counting fails */
    else
        t->n += (rows * cols + 15) & ~(size_t)15;
    if (!leaf) return at;
    *flash__put(flash__put(leaf->name, leaf->name + sizeof leaf->name - 1, prefix, strlen(prefix)),
                leaf->name + sizeof leaf->name - 1, rule->name, strlen(rule->name)) = 0;
    leaf->matrix = rule->matrix;
    leaf->residual = *prefix && (rule->at == FLASH__LAYER(o) || rule->at == FLASH__LAYER(down));
    leaf->rows = (int)rows;
    leaf->cols = (int)cols;
    leaf->at = at;
    if (source && !rule->matrix) {
        const float *vector;
        memcpy(&vector, (const uint8_t *)source + rule->at, sizeof vector);
        for (i = 0; i < cols; i++) t->w[at + i] = (flash__real)vector[i];
    } else if (source) {
        flash__mat w;
        float room[256];
        size_t block, bytes, n;
        memcpy(&w, (const uint8_t *)source + rule->at, sizeof w);
        block = (size_t)flash_type_block(w.type);
        bytes = flash_row_bytes(w.type, block);
        for (r = 0; r < rows; r++)
            for (i = 0; i < cols; i += n) {
                size_t k;
                n = FLASH__MIN(256, cols - i);
                flash_dequantize(w.type, w.data + r * w.row_bytes + i / block * bytes, room, n);
                for (k = 0; k < n; k++) t->w[at + r * cols + i + k] = (flash__real)room[k];
            }
    } else {
        double deviation = leaf->residual ? 0.02 / sqrt(2.0 * t->arch.n_layer) : 0.02;
        uint64_t state = t->desc.seed + (uint64_t)t->n_leaf * 0xd1342543de82ef95u;
        for (i = 0; i < rows * cols; i++)
            t->w[at + i] = (flash__real)(rule->matrix ? deviation * flash__normal(&state) : 1);
    }
    return at;
}

/* Counts all tensors and their weights. If t has memory, also fills them in. */
static flash_status flash__leaves(flash_trainer *t, int bit, flash_error *err)
{
    const flash_model *m = t->desc.init;
    size_t k, at;
    int i, f;
    t->n_leaf = t->n = 0;
    for (k = 0; k < FLASH__COUNT(flash__root_rules); k++) {
        const flash__tensor_rule *rule = flash__root_rules + k;
        int head = rule->at == FLASH__ROOT(head);
        if (rule->at == FLASH__ROOT(rope_factors)
            || (head ? t->arch.tied
                     : !flash__leaf_there(t, rule, bit, m ? &m->root : NULL)
                        || (m && !(rule->may & bit))))
            continue;
        at = flash__leaf_new(t, rule, "", t->arch.layer, m ? &m->root : NULL);
        if (head) t->head = at;
        if (rule->at == FLASH__ROOT(out_norm)) t->out_norm = at;
    }
    for (i = 0; i < t->arch.n_layer; i++) {
        const flash__layer *source = m ? m->layer + i : NULL;
        const flash_layer *l = t->arch.layer + i;
        char prefix[16];
        flash__layer_prefix(prefix, i);
        for (k = 0; k < FLASH__COUNT(flash__layer_rules); k++) {
            const flash__tensor_rule *rule = flash__layer_rules + k;
            if (!(rule->parts & flash__parts(l)) || !flash__leaf_there(t, rule, bit, source))
                continue;
            for (f = 0; f < FLASH__W_COUNT && flash__learned[f] != rule->at; f++) {}
            if (f == FLASH__W_COUNT)
                return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "%s cannot be trained: it has %s%s",
                                   t->arch.name, prefix, rule->name);
            at = flash__leaf_new(t, rule, prefix, l, source);
            if (t->layer) t->layer[i].at[f] = at;
        }
    }
    return FLASH_E_NONE;
}

/* Returns aligned memory for [rows,cols] numbers; NULL while the arena only counts. */
static flash__real *flash__take_real(flash__arena *a, size_t rows, size_t cols)
{
    return (flash__real *)flash__take(a, rows, cols * sizeof(flash__real));
}

/* Fills in the RoPE tables, t->rope and t->back, and the number of each layer's table; layers whose
   angles are equal share one. Returns the number of tables. Fields of t that are NULL are left
   out. */
static size_t flash__ropes(flash_trainer *t)
{
    const float *factors = t->desc.init ? t->desc.init->root.rope_factors : NULL;
    size_t n = 0, dims = (size_t)t->arch.rope_dims;
    double speed[FLASH_HEAD_MAX / 2], c, s;
    float scale;
    int i, j, p, k;
    for (i = 0; i < t->arch.n_layer; i++) {
        const flash_layer *l = t->arch.layer + i;
        for (j = 0; j < i; j++)
            if (t->arch.layer[j].rope_base == l->rope_base
                && t->arch.layer[j].rope_plain == l->rope_plain)
                break;
        if (l->rope_base == 0) continue;
        if (t->layer) t->layer[i].rope = j < i ? t->layer[j].rope : (int)n;
        n += j == i;
        if (j < i || !t->rope) continue;
        scale = flash__rope_speeds(&t->arch, factors, l, speed);
        for (p = 0; p < t->desc.n_ctx; p++)
            for (k = 0; k < t->arch.rope_dims / 2; k++) {
                size_t at = ((n - 1) * (size_t)t->desc.n_ctx + (size_t)p) * dims + 2 * (size_t)k;
                flash__cos_sin(p * speed[k], &c, &s);
                /* floats in double builds, too, so that angles are those of sessions */
                t->rope[at] = t->back[at] = (flash__real)((float)c * scale);
                t->rope[at + 1] = (flash__real)((float)s * scale);
                t->back[at + 1] = -t->rope[at + 1];
            }
    }
    return n;
}

/* Takes the memory for what each layer keeps. The result of a layer is the input of the next one,
   and a part that a layer lacks (attention or feed-forward) takes none. */
static void flash__lessons(flash_trainer *t, flash__arena *a)
{
    size_t N = (size_t)t->N, D = (size_t)t->arch.d_model, C = (size_t)t->arch.d_head;
    flash__real *stream = flash__take_real(a, N, D);
    int i;
    for (i = 0; i < t->arch.n_layer; i++) {
        const flash_layer *facts = t->arch.layer + i;
        size_t QD = facts->n_head * C, KD = facts->n_kv_head * C, F = (size_t)facts->d_ffn;
        flash__lesson l;
        memset(&l, 0, sizeof l);
        l.in = l.mid = stream;
        if (flash__parts(facts) & FLASH__HAS_KV) {
            l.q = flash__take_real(a, N, QD);
            l.k = flash__take_real(a, N, KD);
            l.v = flash__take_real(a, N, KD);
            l.o = flash__take_real(a, N, QD);
            l.lse = flash__take_real(a, N, facts->n_head);
            l.mid = stream = flash__take_real(a, N, D);
        }
        if (F) {
            l.gate = flash__take_real(a, N, F);
            l.up = flash__take_real(a, N, F);
            stream = flash__take_real(a, N, D);
        }
        if (t->layer) {
            memcpy(l.at, t->layer[i].at, sizeof l.at);
            l.rope = t->layer[i].rope;
            t->layer[i] = l;
        }
    }
    t->out = stream;
}

/* Takes a trainer out of the arena and fills it in. While the arena only counts, *out becomes NULL.
   plan: the result of flash__trainer_resolve. */
static flash_status flash__trainer_plan(flash_trainer **out, flash_trainer *plan, int bit,
                                        flash__arena *a, flash_error *err)
{
    flash_trainer *t = (flash_trainer *)flash__take(a, 1, sizeof *t);
    const flash_arch *arch = &plan->arch;
    flash_session_desc sd;
    flash_status s;
    flash__desk desk;
    size_t N = (size_t)plan->N, D = (size_t)arch->d_model, widest = 0, K = 0, L, T, dims;
    int i;
    *out = t;
    s = flash__leaves(plan, bit, err);
    if (s) return s;
    L = (size_t)arch->n_layer;
    T = (size_t)plan->desc.n_ctx;
    dims = (size_t)arch->rope_dims;
    plan->tables_n = flash__ropes(plan);
    for (i = 0; i < arch->n_layer; i++) {
        const flash_layer *l = arch->layer + i;
        widest = FLASH__MAX(widest, (size_t)l->d_ffn);
        widest = FLASH__MAX(widest, (size_t)l->n_head * (size_t)arch->d_head);
        K = FLASH__MAX(K, l->n_kv_head);
    }
    plan->n_part = FLASH__MAX((N + 63) / 64 * D,
                              2 * (size_t)plan->desc.batch * K * (size_t)arch->d_head);
    plan->work_n = flash__desk_plan(&desk, plan, NULL) + 64 * (size_t)arch->d_head;
    plan->work_n = FLASH__MAX(plan->work_n, (size_t)FLASH__GEMM_ROOM);
    plan->work_n = (plan->work_n + 15) & ~(size_t)15;
    if (t) {
        *t = *plan;
        plan = t;
    }
    plan->leaf = (flash__leaf *)flash__take(a, plan->n_leaf, sizeof *plan->leaf);
    plan->layer = (flash__lesson *)flash__take(a, L, sizeof *plan->layer);
    if (plan->layer) memset(plan->layer, 0, L * sizeof *plan->layer);
    plan->w = flash__take_real(a, plan->n, 1);
    plan->g = flash__take_real(a, plan->n, 1);
    plan->m = flash__take_real(a, plan->n, 1);
    plan->v = flash__take_real(a, plan->n, 1);
    plan->normed = flash__take_real(a, N, D);
    plan->dnorm = flash__take_real(a, N, D);
    plan->dx = flash__take_real(a, N, D);
    plan->wide = flash__take_real(a, N, widest);
    plan->z = flash__take_real(a, FLASH__MIN(T, (size_t)FLASH__LOSS_ROWS), (size_t)arch->n_vocab);
    plan->part = flash__take_real(a, plan->n_part, 1);
    plan->sums = (double *)flash__take(
        a, FLASH__MAX((size_t)2 * FLASH__LOSS_ROWS, plan->n / FLASH__UPDATE + 1), sizeof(double));
    plan->rope = flash__take_real(a, plan->tables_n * T, dims);
    plan->back = flash__take_real(a, plan->tables_n * T, dims);
    plan->work = flash__take_real(a, (size_t)plan->slots, plan->work_n);
    flash__lessons(plan, a);
    if (plan->desc.teacher) {
        memset(&sd, 0, sizeof sd);
        sd.n_ctx = plan->desc.n_ctx;
        sd.chunk = FLASH__MIN(plan->desc.n_ctx, FLASH__LOSS_ROWS);
        sd.threads = plan->slots;
        sd.all_logits = 1;
        sd.host.parallel_for = flash__effort_lend;
        sd.host.user = t;
        if (!flash__session_plan(&plan->teacher, plan->desc.teacher, &sd, 0, a))
            return flash__fail(err, FLASH_E_ARGUMENT, 0, "the teacher cannot run at this length");
    }
    if (!t) return FLASH_E_NONE;
    memset(t->w, 0, t->n * sizeof *t->w);
    memset(t->m, 0, t->n * sizeof *t->m);
    memset(t->v, 0, t->n * sizeof *t->v);
    flash__ropes(t);
    return flash__leaves(t, bit, err);
}

/* Resolves desc into plan. *bytes becomes the size of the trainer's block [B], 0 on failure. */
static flash_status flash__trainer_count(flash_trainer *plan, const flash_trainer_desc *desc,
                                         int *bit, size_t *bytes, flash_error *err)
{
    flash__arena a = {NULL, 0};
    flash_trainer *none;
    flash_status s = flash__trainer_resolve(plan, desc, bit, err);
    if (!s) s = flash__trainer_plan(&none, plan, *bit, &a, err);
    if (!s && a.used == SIZE_MAX)
        s = flash__fail(err, FLASH_E_TOO_LARGE, 0, "more memory than this machine can address");
    *bytes = s ? 0 : a.used;
    return s;
}

FLASH_API size_t flash_trainer_memory(const flash_trainer_desc *desc, flash_error *err)
{
    flash_trainer plan;
    size_t bytes;
    int bit;
    flash__trainer_count(&plan, desc, &bit, &bytes, err);
    return bytes;
}

FLASH_API flash_status flash_trainer_create(flash_trainer **out, const flash_trainer_desc *desc,
                                            flash_error *err)
{
    flash_trainer plan;
    flash__arena a = {NULL, 0};
    flash_status s;
    size_t block;
    int bit;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the trainer");
    *out = NULL;
    s = flash__trainer_count(&plan, desc, &bit, &block, err);
    if (s) return s;
    a.base = (uint8_t *)flash__acquire(&desc->host.allocator, block);
    if (!a.base)
        return flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the training (%u bytes)",
                           (uint64_t)block);
    flash__trainer_resolve(&plan, desc, &bit, err);
    flash__trainer_plan(out, &plan, bit, &a, err);
    (*out)->block = block;
    (*out)->desc.init = NULL;
    if (!desc->host.parallel_for) flash__pool_start(&(*out)->pool, (*out)->slots - 1);
    return FLASH_E_NONE;
}

FLASH_API void flash_trainer_free(flash_trainer *t)
{
    flash_allocator a;
    if (!t) return;
    if (!t->desc.host.parallel_for) flash__pool_end(&t->pool);
    a = t->desc.host.allocator;
    flash__release(&a, t, t->block);
}

FLASH_API const flash_arch *flash_trainer_arch(const flash_trainer *t)
{
    return t ? &t->arch : NULL;
}

FLASH_API uint64_t flash_trainer_steps(const flash_trainer *t) { return t ? t->step : 0; }

FLASH_API size_t flash_trainer_tensors(const flash_trainer *t) { return t ? t->n_leaf : 0; }

FLASH_API flash_status flash_trainer_weights(const flash_trainer *t, size_t i,
                                             flash_trainer_tensor *out)
{
    if (!t || !out || i >= t->n_leaf) return FLASH_E_ARGUMENT;
    out->name = t->leaf[i].name;
    out->n_dims = t->leaf[i].matrix ? 2 : 1;
    out->rows = t->leaf[i].rows;
    out->cols = t->leaf[i].cols;
    out->data = flash__floats_of(t->w + t->leaf[i].at);
    return FLASH_E_NONE;
}

/* --- checkpoints ------------------------------------------------------------ */

/* The format, little-endian: a head of eight 64-bit words (mark, version, checksum of the shape,
   number of weights, steps, tokens, 0, checksum of these seven), the weights, the first and the
   second moments as floats, and a checksum of all 64-bit words after the head. */

enum { FLASH__SAVE_HEAD = 64, FLASH__SAVE_VERSION = 1, FLASH__SAVE_FLOATS = 1024 };
#define FLASH__SAVE_MARK 0x6e72747268736166u

/* Returns a checksum of all that must be the same for a checkpoint's weights to fit. */
static uint64_t flash__shape_sum(const flash_trainer *t)
{
    const flash_arch *a = &t->arch;
    uint64_t sum = 1;
    size_t i, k;
    for (i = 0; i < t->n_leaf; i++) {
        const flash__leaf *l = t->leaf + i;
        for (k = 0; l->name[k]; k++) sum = flash__sum_word(sum, (uint8_t)l->name[k]);
        sum = flash__sum_word(sum, (uint64_t)l->rows << 32 | (uint64_t)l->cols);
    }
    for (i = 0; i < (size_t)a->n_layer; i++) {
        const flash_layer *l = a->layer + i;
        sum = flash__sum_word(
            sum, (uint64_t)l->attention << 56 | (uint64_t)l->n_head << 24 | l->n_kv_head);
        sum = flash__sum_word(sum,
                              (uint64_t)(l->attention == FLASH_ATTENTION_WINDOW ? l->window : 0)
                                      << 32
                                  | flash__f32_bits(l->rope_base));
    }
    sum = flash__sum_word(sum, (uint64_t)a->d_head << 32 | flash__f32_bits(a->norm_eps));
    return flash__sum_word(sum, (uint64_t)a->rope_style << 32 | (uint64_t)a->rope_dims);
}

static void flash__save_head(const flash_trainer *t, uint8_t head[FLASH__SAVE_HEAD])
{
    flash__wr64(head, FLASH__SAVE_MARK);
    flash__wr64(head + 8, FLASH__SAVE_VERSION);
    flash__wr64(head + 16, flash__shape_sum(t));
    flash__wr64(head + 24, t->n);
    flash__wr64(head + 32, t->step);
    flash__wr64(head + 40, t->tokens);
    flash__wr64(head + 48, 0);
    flash__wr64(head + 56, flash__sum_words(0, head, 7));
}

FLASH_API flash_status flash_trainer_save(const flash_trainer *t,
                                          int (*write)(void *user, const void *data, size_t bytes),
                                          void *user)
{
    uint8_t room[4 * FLASH__SAVE_FLOATS];
    const flash__real *part[3];
    uint64_t sum = 0;
    size_t i, k, n;
    int which;
    if (!t || !write) return FLASH_E_ARGUMENT;
    part[0] = t->w;
    part[1] = t->m;
    part[2] = t->v;
    flash__save_head(t, room);
    if (write(user, room, FLASH__SAVE_HEAD)) return FLASH_E_IO;
    for (which = 0; which < 3; which++)
        for (i = 0; i < t->n; i += n) {
            n = FLASH__MIN((size_t)FLASH__SAVE_FLOATS, t->n - i);
            for (k = 0; k < n; k++)
                flash__wr32(room + 4 * k, flash__f32_bits((float)part[which][i + k]));
            sum = flash__sum_words(sum, room, n / 2);
            if (write(user, room, 4 * n)) return FLASH_E_IO;
        }
    flash__wr64(room, sum);
    return write(user, room, 8) ? FLASH_E_IO : FLASH_E_NONE;
}

static flash_status flash__load_check(const flash_trainer *t, const flash__file *f,
                                      flash_error *err)
{
    uint8_t head[FLASH__SAVE_HEAD];
    size_t words = t->n / 2 * 3, bytes = FLASH__SAVE_HEAD + 8 * words + 8, n;
    flash__save_head(t, head);
    n = FLASH__MIN(f->size, 8);
    if (memcmp(f->data, head, n))
        return flash__fail(err, FLASH_E_FORMAT, 0, "this is no checkpoint of a training");
    if (f->size < FLASH__SAVE_HEAD)
        return flash__fail(err, FLASH_E_TRUNCATED, f->size, "the checkpoint ends in its head");
    if (flash__rd64(f->data + 56) != flash__sum_words(0, f->data, 7) || flash__rd64(f->data + 48))
        return flash__fail(err, FLASH_E_FORMAT, 0, "the checkpoint's head is damaged");
    if (flash__rd64(f->data + 8) != FLASH__SAVE_VERSION)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 8, "a checkpoint of version %u, known is %i",
                           flash__rd64(f->data + 8), (int)FLASH__SAVE_VERSION);
    if (memcmp(f->data + 16, head + 16, 16))
        return flash__fail(err, FLASH_E_ARGUMENT, 16,
                           "the checkpoint is of a model of another "
                           "shape: %u weights, this has %u",
                           flash__rd64(f->data + 24), (uint64_t)t->n);
    if (f->size < bytes)
        return flash__fail(err, FLASH_E_TRUNCATED, f->size, "the checkpoint has %u bytes of %u",
                           (uint64_t)f->size, (uint64_t)bytes);
    if (f->size > bytes
        || flash__rd64(f->data + bytes - 8)
            != flash__sum_words(0, f->data + FLASH__SAVE_HEAD, words))
        return flash__fail(err, FLASH_E_FORMAT, 0, "the checkpoint is damaged: its sum is wrong");
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_trainer_load(flash_trainer *t, const flash_source *source,
                                          flash_error *err)
{
    flash__real *part[3];
    const uint8_t *p;
    flash__file f;
    flash_status s;
    size_t i;
    int which;
    if (!t || !source) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no trainer or no source");
    s = flash__file_open(&f, source, &t->desc.host, err);
    if (s) return s;
    s = flash__load_check(t, &f, err);
    if (!s) {
        part[0] = t->w;
        part[1] = t->m;
        part[2] = t->v;
        t->step = flash__rd64(f.data + 32);
        t->tokens = flash__rd64(f.data + 40);
        p = f.data + FLASH__SAVE_HEAD;
        for (which = 0; which < 3; which++)
            for (i = 0; i < t->n; i++, p += 4) part[which][i] = (flash__real)flash__rdf32(p);
    }
    flash__file_close(&f, &t->desc.host);
    return s;
}
#endif

/* ===== >>prune ============================================================ */

/* Makes a smaller model out of a larger one, as a GGUF file or as a view that points into the
   larger one's weights, and measures which parts matter (calibration). The description says which
   layers, channels, units and heads stay. Which rows and columns of a tensor stay follows from that
   and from the tensor's dimensions in the rules of >>arch. */

#ifdef FLASH__TRAIN
typedef struct flash__cut {
    const flash_prune_desc *d;
    const flash_model *m;        /* the larger model */
    flash_arch to;               /* of the result */
    int layer[FLASH_LAYERS_MAX]; /* numbers in the model of the layers that stay */
    float *row, *picked;         /* [widest] a row of the model; what stays of it */
    uint8_t *bytes;              /* [4*widest] what stays, as it is stored */
    flash_gguf_writer w;
    uint32_t keys; /* number of keys; while w.write is NULL, keys are counted but not written */
} flash__cut;

/* One tensor, as it is in the model and as it will be in the result. */
typedef struct flash__piece {
    flash_tensor t; /* in the model */
    char name[64];  /* in the result */
    const flash__tensor_rule *rule;
    int layer, to;     /* number of its layer in the model, -1: none; in the result */
    size_t rows, cols; /* in the result */
    flash_type type;   /* in the result */
    float gain;        /* factor of its values; 1 but for some norms */
    int whole;         /* 1: the columns that stay are whole blocks of t.type, each in order */
} flash__piece;

static const flash_layer *flash__cut_layer(const flash__cut *c, int layer)
{
    return c->m->arch.layer + FLASH__MAX(layer, 0);
}

/* Returns the index in the model of the i-th item that stays along a dimension, FLASH__DIM_...,
   of a tensor of that layer. */
static size_t flash__cut_from(const flash__cut *c, int layer, int dim, size_t i)
{
    const flash_layer *l = flash__cut_layer(c, layer);
    const int *list = NULL;
    size_t C = (size_t)c->m->arch.d_head, ratio = l->n_kv_head ? l->n_head / l->n_kv_head : 1;
    if (dim == FLASH__DIM_O && l->attention == FLASH_ATTENTION_LINEAR) dim = FLASH__DIM_D;
    if (dim == FLASH__DIM_D) return c->d->channel ? (size_t)c->d->channel[i] : i;
    if (dim == FLASH__DIM_F) {
        if (c->d->ffn) list = c->d->ffn[layer];
        return list ? (size_t)list[i] : i;
    }
    if (dim != FLASH__DIM_Q && dim != FLASH__DIM_O && dim != FLASH__DIM_KV) return i;
    if (c->d->kv_head) list = c->d->kv_head[layer];
    if (!list) return i;
    if (dim == FLASH__DIM_KV) ratio = 1;
    C *= ratio; /* now the items of all query heads that share a key/value head */
    return (size_t)list[i / C] * C + i % C;
}

/* Returns 1 if the numbers of the list, [n], are in [0, all) and none is there twice. seen: [all]
   zeros, work; zeros again on return. */
static int flash__cut_list(const int *list, int n, int all, uint8_t *seen)
{
    int i, good = 1, marked = 0;
    for (i = 0; i < n && good; i++) {
        good = list[i] >= 0 && list[i] < all && !seen[list[i]];
        if (good) {
            seen[list[i]] = 1;
            marked = i + 1;
        }
    }
    for (i = 0; i < marked; i++) seen[list[i]] = 0;
    return good;
}

/* Returns 1 if the list, [n], is NULL or holds 0 to n - 1 in this order. */
static int flash__in_order(const int *list, int n)
{
    int i = 0;
    while (list && i < n && list[i] == i) i++;
    return !list || i == n;
}

/* Fails if n of `all` parts cannot stay. n 0 means all of them; then there may be no list. */
static flash_status flash__cut_size(const char *what, int n, int all, int list, flash_error *err)
{
    if (n < 0 || n > all || (!n && list))
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "%i %s are to stay; there are %i", n, what,
                           all);
    return FLASH_E_NONE;
}

/* Fills in m, to and layer of c from its description. Of the lists it reads only that of layers. */
static flash_status flash__cut_resolve(flash__cut *c, flash_error *err)
{
    const flash_prune_desc *d = c->d;
    const flash_arch *a;
    flash_status s;
    int i, n;
    if (!d || !d->model || d->model->desc.vocab_only)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no model with weights");
    c->m = d->model;
    if (c->m->view) return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "a view cannot be cut again");
    if (!flash_type_block(d->type) || !d->host.allocator.acquire != !d->host.allocator.release)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no such type, or one half of an allocator");
    a = &c->m->arch;
    c->to = *a;
    s = flash__cut_size("layers", d->n_layer, a->n_layer, d->layer != NULL, err);
    if (!s) s = flash__cut_size("channels", d->d_model, a->d_model, d->channel != NULL, err);
    if (s) return s;
    n = c->to.n_layer = d->n_layer ? d->n_layer : a->n_layer;
    if (d->d_model) c->to.d_model = d->d_model;
    for (i = 0; i < n; i++) {
        int from = c->layer[i] = d->layer ? d->layer[i] : i;
        flash_layer *l = c->to.layer + i;
        if (from < 0 || from >= a->n_layer || (i && from <= c->layer[i - 1]))
            return flash__fail(err, FLASH_E_ARGUMENT, 0,
                               "layers that stay must ascend, from 0 to "
                               "%i",
                               a->n_layer - 1);
        *l = a->layer[from];
        if (l->attention == FLASH_ATTENTION_CONV && d->d_model && d->d_model != a->d_model)
            return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                               "layer %i has a short convolution, "
                               "whose channels cannot go",
                               from);
        if (d->d_ffn && l->d_ffn) {
            s = flash__cut_size("units", d->d_ffn, l->d_ffn, d->ffn != NULL, err);
            if (s) return s;
            l->d_ffn = d->d_ffn;
        }
        if (d->n_kv_head && l->n_kv_head) {
            s = flash__cut_size("heads of keys and values", d->n_kv_head, l->n_kv_head,
                                d->kv_head != NULL, err);
            if (s) return s;
            l->n_head = (uint16_t)(l->n_head / l->n_kv_head * d->n_kv_head);
            l->n_kv_head = (uint16_t)d->n_kv_head;
        }
    }
    return FLASH_E_NONE;
}

/* Fails if a file could not express c->to. In some architectures the kind of a layer follows from
   its number, unless the file lists the kinds, and scales follow from sizes. */
static flash_status flash__cut_sayable(const flash__cut *c, flash_error *err)
{
    const flash_arch *a = &c->m->arch;
    flash_arch as_read = c->to;
    flash_value v;
    int i, heads = 0,
           listed = !flash_gguf_find(flash_model_gguf(c->m),
                                     "gemma3.attention.sliding_window_pattern", &v)
        && v.type == FLASH_VALUE_ARRAY;
    if (c->m->desc.attention)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "the model's attention is not that of its "
                           "file: load it without a pattern");
    for (i = 0; i < c->to.n_layer; i++) {
        const flash_layer *l = c->to.layer + i, *there = a->layer + i;
        if (!heads) heads = l->n_head;
        if (c->m->bit & (FLASH__IS_SMOLLM3 | FLASH__IS_GEMMA3 | FLASH__IS_LLAMA4) && !listed
            && (l->attention != there->attention || l->window != there->window
                || l->rope_base != there->rope_base))
            return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                               "layer %i would become layer %i, which "
                               "is of another kind in %s%s",
                               c->layer[i], i, a->name,
                               c->m->bit & FLASH__IS_SMOLLM3 ? ": convert it to flash first" : "");
    }
    flash__arch_scales(&as_read, c->m->bit, FLASH__MAX(heads, 1));
    if (as_read.embedding_scale != a->embedding_scale)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "%s scales embeddings by the number of "
                           "channels: all must stay",
                           a->name);
    if (as_read.attention_scale != a->attention_scale)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "%s of 62 layers scales attention in its "
                           "own way: layers and heads must stay",
                           a->name);
    return FLASH_E_NONE;
}

/* Checks the lists of channels, units and heads. seen: zeros, as many as the largest of these
   dimensions of the model. */
static flash_status flash__cut_lists(const flash__cut *c, uint8_t *seen, flash_error *err)
{
    const flash_prune_desc *d = c->d;
    const char *what = NULL;
    int i;
    if (d->channel && !flash__cut_list(d->channel, d->d_model, c->m->arch.d_model, seen))
        what = "channels";
    for (i = 0; i < c->to.n_layer && !what; i++) {
        const flash_layer *l = flash__cut_layer(c, c->layer[i]);
        const int *ffn = d->ffn ? d->ffn[c->layer[i]] : NULL,
                  *kv = d->kv_head ? d->kv_head[c->layer[i]] : NULL;
        if (ffn && l->d_ffn && !flash__cut_list(ffn, d->d_ffn, l->d_ffn, seen)) what = "units";
        if (kv && l->n_kv_head && !flash__cut_list(kv, d->n_kv_head, l->n_kv_head, seen))
            what = "heads of keys and values";
    }
    if (!what) return FLASH_E_NONE;
    return flash__fail(err, FLASH_E_ARGUMENT, 0,
                       "%s that stay: one is out of range, or there "
                       "twice",
                       what);
}

/* Checks the description, fills in c and acquires one block of memory, c->row, for a row of weights
   and for the check of the lists. *block becomes its size [B]. The caller releases it; on failure
   there is nothing to release. */
static flash_status flash__cut_begin(flash__cut *c, const flash_prune_desc *desc, size_t *block,
                                     flash_error *err)
{
    const flash_gguf *g;
    flash_tensor t;
    flash_status s;
    size_t widest = 0, i;
    int k;
    memset(c, 0, sizeof *c);
    c->d = desc;
    s = flash__cut_resolve(c, err);
    if (!s) s = flash__cut_sayable(c, err);
    if (s) return s;
    g = flash_model_gguf(c->m);
    for (i = 0; !flash_gguf_tensor(g, i, &t); i++) widest = FLASH__MAX(widest, (size_t)t.ne[0]);
    widest = FLASH__MAX(widest, (size_t)c->m->arch.d_model);
    for (k = 0; k < c->m->arch.n_layer; k++)
        widest = FLASH__MAX(
            widest,
            FLASH__MAX((size_t)c->m->arch.layer[k].d_ffn, (size_t)c->m->arch.layer[k].n_kv_head));
    *block = 12 * widest;
    c->row = (float *)flash__acquire(&desc->host.allocator, *block);
    if (!c->row) return flash__fail(err, FLASH_E_MEMORY, 0, "no memory for a row of weights");
    c->picked = c->row + widest;
    c->bytes = (uint8_t *)(c->picked + widest);
    memset(c->bytes, 0, 4 * widest);
    s = flash__cut_lists(c, c->bytes, err);
    if (!s && desc->attention) s = flash_attention_parse(&c->to, desc->attention, err);
    if (s) flash__release(&desc->host.allocator, c->row, *block);
    return s;
}

FLASH_API flash_status flash_prune_arch(const flash_prune_desc *desc, flash_arch *out,
                                        flash_error *err)
{
    flash__cut c;
    size_t block;
    flash_status s;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the architecture");
    s = flash__cut_begin(&c, desc, &block, err);
    if (s) return s;
    flash__release(&desc->host.allocator, c.row, block);
    *out = c.to;
    return FLASH_E_NONE;
}

/* --- tensors ----------------------------------------------------------------- */

/* Returns the N of a tensor's name that begins with "blk.N." and points *rest behind that. Returns
   -1 if it begins otherwise; *rest is then the whole name. */
static int flash__layer_of(const char *name, size_t n, const char **rest)
{
    int layer = 0;
    const char *p = name + 4, *end = name + n;
    *rest = name;
    if (n < 6 || memcmp(name, "blk.", 4)) return -1;
    for (; p < end && *p >= '0' && *p <= '9' && layer < FLASH_LAYERS_MAX; p++)
        layer = 10 * layer + *p - '0';
    if (p == name + 4 || p == end || *p != '.') return -1;
    *rest = p + 1;
    return layer;
}

static const flash__tensor_rule *flash__rule_of(const char *name, size_t n, int layer)
{
    const flash__tensor_rule *rule = layer < 0 ? flash__root_rules : flash__layer_rules;
    size_t k = layer < 0 ? FLASH__COUNT(flash__root_rules) : FLASH__COUNT(flash__layer_rules);
    for (; k--; rule++)
        if (strlen(rule->name) == n && !memcmp(rule->name, name, n)) return rule;
    return NULL;
}

/* Returns 1 if the columns that stay are whole blocks of the tensor's type, each in order. */
static int flash__cut_whole(const flash__cut *c, const flash__piece *p)
{
    size_t block = (size_t)flash_type_block(p->t.type), i;
    if (p->cols % block) return 0;
    for (i = 0; i < p->cols; i++) {
        size_t from = flash__cut_from(c, p->layer, p->rule->cols, i);
        if (i % block ? from != flash__cut_from(c, p->layer, p->rule->cols, i - 1) + 1
                      : from % block)
            return 0;
    }
    return 1;
}

/* Returns the type of the tensor in the result: the wanted one, or Q8_0 or F16 if its blocks do not
   fit the columns or it would have to be quantised to MXFP4. */
static flash_type flash__cut_type(const flash__cut *c, const flash__piece *p)
{
    flash_type want = c->d->type || c->d->retype ? c->d->type : p->t.type;
    if (!p->rule->matrix) return p->t.type;
    if (p->cols % (size_t)flash_type_block(want)
        || (want == FLASH_TYPE_MXFP4 && (want != p->t.type || !p->whole)))
        return p->cols % 32 ? FLASH_TYPE_F16 : FLASH_TYPE_Q8_0;
    return want;
}

/* Returns the factor sqrt(share d/d') of a norm's weights, where d' of d channels stay (see
   flash_prune_desc.share), or 1 for any other tensor. Shares are numbered 2l for the attention of
   layer l, 2l + 1 for its feed-forward part, and 2 n_layer for the last norm. */
static float flash__cut_gain(const flash__cut *c, const flash__piece *p)
{
    const flash_arch *a = &c->m->arch;
    int norm = p->layer < 0 ? 2 * a->n_layer
                            : 2 * p->layer
            + (p->rule->at != FLASH__LAYER(attn_norm) && p->rule->at != FLASH__LAYER(attn_post));
    double share = c->d->share ? c->d->share[norm] : 1;
    if (p->rule->matrix || p->rule->cols != FLASH__DIM_D || c->to.d_model == a->d_model
        || p->rule->at == FLASH__LAYER(bo) || p->rule->at == FLASH__LAYER(bdown))
        return 1;
    return (float)sqrt(share * a->d_model / c->to.d_model);
}

/* Fills in *p for the model's i-th tensor. *stays becomes 0 if its layer, or the part of the layer
   that it belongs to, does not stay; *p is then incomplete. */
static flash_status flash__cut_piece(const flash__cut *c, size_t i, flash__piece *p, int *stays,
                                     flash_error *err)
{
    const char *rest;
    const flash_layer *l;
    size_t n;
    int k = 0;
    memset(p, 0, sizeof *p);
    flash_gguf_tensor(flash_model_gguf(c->m), i, &p->t);
    p->layer = flash__layer_of(p->t.name, p->t.name_bytes, &rest);
    n = p->t.name_bytes - (size_t)(rest - p->t.name);
    p->rule = flash__rule_of(rest, n, p->layer);
    if (!p->rule || p->layer >= c->m->arch.n_layer || n > 40 || !p->t.data
        || p->t.type == FLASH_TYPE_NONE)
        return flash__fail(err, FLASH_E_UNSUPPORTED, p->t.offset,
                           "tensor %t is not one that can "
                           "be cut",
                           p->t.name, FLASH__MIN(p->t.name_bytes, (size_t)64));
    while (p->layer >= 0 && k < c->to.n_layer && c->layer[k] != p->layer) k++;
    *stays = k < c->to.n_layer;
    if (!*stays) return FLASH_E_NONE;
    l = c->to.layer + k;
    p->rows = (size_t)flash__dim(&c->to, l, p->rule->rows);
    p->cols = (size_t)flash__dim(&c->to, l, p->rule->cols);
    if (flash__dim(&c->m->arch, flash__cut_layer(c, p->layer), p->rule->cols) != p->t.ne[0]
        || flash__dim(&c->m->arch, flash__cut_layer(c, p->layer), p->rule->rows) != p->t.ne[1])
        return flash__fail(err, FLASH_E_UNSUPPORTED, p->t.offset,
                           "tensor %t belongs to a layer "
                           "that has no use for it",
                           p->t.name, FLASH__MIN(p->t.name_bytes, (size_t)64));
    *stays = p->layer < 0 || (p->rule->parts & flash__parts(l));
    if (!*stays) return FLASH_E_NONE;
    p->to = k;
    if (p->layer >= 0) flash__layer_prefix(p->name, k);
    n += strlen(p->name);
    memcpy(p->name + strlen(p->name), rest, n - strlen(p->name));
    p->whole = flash__cut_whole(c, p);
    p->type = flash__cut_type(c, p);
    p->gain = flash__cut_gain(c, p);
    return FLASH_E_NONE;
}

/* Writes what stays of the tensor's row `from` to c->bytes, in the type p->type. */
static void flash__cut_row(flash__cut *c, const flash__piece *p, size_t from)
{
    size_t block = (size_t)flash_type_block(p->t.type), to = (size_t)p->t.ne[0], i,
           bytes = flash_row_bytes(p->t.type, block);
    const uint8_t *row = p->t.data + from * flash_row_bytes(p->t.type, to);
    if (p->type == p->t.type && p->whole && p->gain == 1) {
        for (i = 0; i < p->cols; i += block)
            memcpy(c->bytes + i / block * bytes,
                   row + flash__cut_from(c, p->layer, p->rule->cols, i) / block * bytes, bytes);
        return;
    }
    flash_dequantize(p->t.type, row, c->row, to);
    for (i = 0; i < p->cols; i++)
        c->picked[i] = c->row[flash__cut_from(c, p->layer, p->rule->cols, i)] * p->gain;
    flash_quantize(p->type, c->picked, c->bytes, p->cols);
}

/* --- keys ---------------------------------------------------------------------- */

static void flash__cut_u32(flash__cut *c, const char *key, uint32_t v)
{
    c->keys++;
    if (c->w.write) flash_gguf_write_u32(&c->w, key, v);
}

/* Keys whose values change, or that the file may leave out. flash__cut_fact returns their values in
   the result: for layer i, or for the whole model, where i does not matter. */
enum {
    FLASH__FACT_LAYERS,
    FLASH__FACT_D,
    FLASH__FACT_F,
    FLASH__FACT_H,
    FLASH__FACT_K,
    FLASH__FACT_C,
    FLASH__FACT_VALUE,
    FLASH__FACT_ROPE,
    FLASH__FACTS
};
static const char *const flash__fact_name[FLASH__FACTS] = {"block_count",
                                                           "embedding_length",
                                                           "feed_forward_length",
                                                           "attention.head_count",
                                                           "attention.head_count_kv",
                                                           "attention.key_length",
                                                           "attention.value_length",
                                                           "rope.dimension_count"};

static uint32_t flash__cut_fact(const flash__cut *c, int fact, int i)
{
    const flash_layer *l = c->to.layer + i;
    switch (fact) {
    case FLASH__FACT_LAYERS: return (uint32_t)c->to.n_layer;
    case FLASH__FACT_D: return (uint32_t)c->to.d_model;
    case FLASH__FACT_F: return (uint32_t)l->d_ffn;
    case FLASH__FACT_H: return l->n_head;
    case FLASH__FACT_K: return l->n_kv_head;
    case FLASH__FACT_ROPE: return (uint32_t)c->to.rope_dims;
    default: return (uint32_t)c->to.d_head;
    }
}

static uint32_t flash__cut_most(const flash__cut *c, int fact)
{
    uint32_t most = 0;
    int i;
    for (i = 0; i < c->to.n_layer; i++) most = FLASH__MAX(most, flash__cut_fact(c, fact, i));
    return most;
}

/* Writes an array that has one item for each layer, reduced to the layers that stay. fact: the
   FLASH__FACT_... that gives the new items; -1: they are as in the model. */
static flash_status flash__cut_array(flash__cut *c, const char *key, const flash_value *v, int fact,
                                     flash_error *err)
{
    uint32_t whole[FLASH_LAYERS_MAX];
    float real[FLASH_LAYERS_MAX];
    int i, n = c->to.n_layer;
    if (v->item != FLASH_VALUE_F32 && v->item != FLASH_VALUE_I32 && v->item != FLASH_VALUE_U32)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "%s: a list whose items are no int32, "
                           "uint32 or float32",
                           key);
    c->keys++;
    for (i = 0; i < n; i++) {
        real[i] = (float)flash_value_number(v, (uint64_t)c->layer[i]);
        whole[i] = fact >= 0 ? flash__cut_fact(c, fact, i)
                             : (uint32_t)flash_value_integer(v, (uint64_t)c->layer[i]);
    }
    if (c->w.write)
        flash_gguf_write_array(&c->w, key, v->item,
                               v->item == FLASH_VALUE_F32 ? (void *)real : (void *)whole,
                               (size_t)n);
    return FLASH_E_NONE;
}

/* Counts the keys of the result in c->keys and, if c->w has a write function, writes them. */
static flash_status flash__cut_keys(flash__cut *c, flash_error *err)
{
    const flash_arch *a = &c->m->arch;
    size_t prefix = strlen(a->name), i, n;
    unsigned found = 0;
    flash_value v;
    flash_status s = FLASH_E_NONE;
    char key[80];
    int fact;
    c->keys = 0;
    for (i = 0; !s && !flash_gguf_key(flash_model_gguf(c->m), i, &v); i++) {
        if (v.key_bytes == 17 && !memcmp(v.key, "general.alignment", 17)) continue;
        n = v.key_bytes - prefix - 1;
        if (v.key_bytes <= prefix + 1 || v.key_bytes >= sizeof key || memcmp(v.key, a->name, prefix)
            || v.key[prefix] != '.') {
            c->keys++;
            if (c->w.write) flash_gguf_write_value(&c->w, &v);
            continue;
        }
        memcpy(key, v.key, v.key_bytes);
        key[v.key_bytes] = 0;
        for (fact = FLASH__FACTS - 1; fact >= 0; fact--)
            if (strlen(flash__fact_name[fact]) == n
                && !memcmp(key + prefix + 1, flash__fact_name[fact], n))
                break;
        if (fact >= 0) found |= 1u << fact;
        if (v.type == FLASH_VALUE_ARRAY && v.count == (uint64_t)a->n_layer)
            s = flash__cut_array(c, key, &v, fact, err);
        else if (fact >= 0)
            flash__cut_u32(c, key, flash__cut_most(c, fact));
        else {
            c->keys++;
            if (c->w.write) flash_gguf_write_value(&c->w, &v);
        }
    }
    /* where the file leaves these out they follow from other keys, which no longer holds */
    for (fact = FLASH__FACT_C; fact < FLASH__FACTS && !s; fact++)
        if (!(found >> fact & 1)) {
            memcpy(key, a->name, prefix);
            key[prefix] = '.';
            strcpy(key + prefix + 1, flash__fact_name[fact]);
            flash__cut_u32(c, key, flash__cut_most(c, fact));
        }
    return s;
}

static flash_status flash__cut_write(flash__cut *c, flash_error *err)
{
    flash__piece p;
    flash_status s = FLASH_E_NONE;
    const flash_gguf *g = flash_model_gguf(c->m);
    size_t i, r, n = flash_gguf_tensors(g);
    uint32_t tensors = 0;
    uint64_t ne[2];
    int stays;
    for (i = 0; i < n && !s; i++) {
        s = flash__cut_piece(c, i, &p, &stays, err);
        tensors += !s && stays;
    }
    if (s) return s;
    flash_gguf_write_begin(&c->w, c->keys, tensors);
    s = flash__cut_keys(c, err);
    for (i = 0; i < n; i++) {
        flash__cut_piece(c, i, &p, &stays, err);
        ne[0] = p.cols;
        ne[1] = p.rows;
        if (stays) flash_gguf_write_tensor(&c->w, p.name, p.type, p.t.n_dims, ne);
    }
    for (i = 0; i < n; i++) {
        flash__cut_piece(c, i, &p, &stays, err);
        for (r = 0; stays && r < p.rows && !c->w.status; r++) {
            flash__cut_row(c, &p, flash__cut_from(c, p.layer, p.rule->rows, r));
            flash_gguf_write_data(&c->w, c->bytes, flash_row_bytes(p.type, p.cols),
                                  r + 1 == p.rows);
        }
    }
    s = flash_gguf_write_end(&c->w);
    return s ? flash__fail(err, s, 0, "the file cannot be written") : s;
}

/* Returns 1 if the result is the model itself: everything stays, in the same order and type. */
static int flash__cut_nothing(const flash__cut *c)
{
    const flash_prune_desc *d = c->d;
    int i, same = !d->type && !d->retype && !memcmp(&c->to, &c->m->arch, sizeof c->to);
    if (same && d->channel) same = flash__in_order(d->channel, c->to.d_model);
    for (i = 0; same && i < c->to.n_layer; i++)
        same = (!d->ffn || flash__in_order(d->ffn[i], c->to.layer[i].d_ffn))
            && (!d->kv_head || flash__in_order(d->kv_head[i], c->to.layer[i].n_kv_head));
    return same;
}

FLASH_API flash_status flash_prune_write(const flash_prune_desc *desc,
                                         int (*write)(void *user, const void *data, size_t bytes),
                                         void *user, flash_error *err)
{
    flash__cut c;
    flash_status s;
    size_t block;
    if (!write) return flash__fail(err, FLASH_E_ARGUMENT, 0, "nothing to write to");
    if (desc && desc->attention)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "another attention is for views");
    s = flash__cut_begin(&c, desc, &block, err);
    if (s) return s;
    if (flash__cut_nothing(&c))
        s = write(user, flash_model_gguf(c.m)->file.data, flash_model_gguf(c.m)->file.size)
            ? flash__fail(err, FLASH_E_IO, 0, "the file cannot be written")
            : FLASH_E_NONE;
    else {
        s = flash__cut_keys(&c, err);
        c.w.write = write;
        c.w.user = user;
        if (!s) s = flash__cut_write(&c, err);
    }
    flash__release(&desc->host.allocator, c.row, block);
    return s;
}

/* --- views ---------------------------------------------------------------------- */

/* Returns 1 if the n items that stay along a dimension are neighbours, in order. */
static int flash__cut_run(const flash__cut *c, const flash__piece *p, int dim, size_t n)
{
    size_t first = flash__cut_from(c, p->layer, dim, 0), i;
    for (i = 1; i < n; i++)
        if (flash__cut_from(c, p->layer, dim, i) != first + i) return 0;
    return 1;
}

/* Fills in the field of one tensor in `part`, a layer or the root of the view; `had` is that of the
   model. Where what stays is an unchanged rectangle of the model's tensor, the field points into
   that; elsewhere the rows are gathered in memory of the arena. part NULL: only counts. */
static void flash__view_tensor(flash__cut *c, const flash__piece *p, const void *had, void *part,
                               flash__arena *a)
{
    size_t row = flash__cut_from(c, p->layer, p->rule->rows, 0),
           col = flash__cut_from(c, p->layer, p->rule->cols, 0), at = p->rule->at,
           bytes = flash_row_bytes(p->type, p->cols), r, i;
    int there = p->type == p->t.type && p->gain == 1 && p->whole
        && flash__cut_run(c, p, p->rule->rows, p->rows)
        && flash__cut_run(c, p, p->rule->cols, p->cols);
    uint8_t *own = there ? NULL : (uint8_t *)flash__take(a, p->rows, bytes);
    if (!part) return;
    for (r = 0; own && r < p->rows; r++) {
        flash__cut_row(c, p, flash__cut_from(c, p->layer, p->rule->rows, r));
        memcpy(own + r * bytes, c->bytes, bytes);
    }
    if (p->rule->matrix) {
        flash__mat w;
        memcpy(&w, (const uint8_t *)had + at, sizeof w);
        w.data = own ? own : w.data + row * w.row_bytes + flash_row_bytes(w.type, col);
        w.type = p->type;
        w.rows = (int)p->rows;
        w.cols = (int)p->cols;
        if (own) w.row_bytes = bytes;
        memcpy((uint8_t *)part + at, &w, sizeof w);
    } else {
        const float *v;
        memcpy(&v, (const uint8_t *)had + at, sizeof v);
        v = own ? (const float *)(const void *)own : v + row * (size_t)p->t.ne[0] + col;
        for (i = 0; own && i < p->rows * p->cols; i++) {
            float x = flash__rdf32(own + 4 * i);
            memcpy(own + 4 * i, &x, 4);
        }
        memcpy((uint8_t *)part + at, &v, sizeof v);
    }
}

/* Takes the view out of the arena and fills it in. While the arena only counts, *out becomes
   NULL. */
static flash_status flash__view_plan(flash_model **out, flash__cut *c, flash__arena *a,
                                     flash_error *err)
{
    const flash_model *had = c->m;
    flash_model *m = (flash_model *)flash__take(a, 1, sizeof *m);
    flash__layer *layer = (flash__layer *)flash__take(a, (size_t)c->to.n_layer, sizeof *layer);
    flash__piece p;
    flash_status s = FLASH_E_NONE;
    size_t i, n = flash_gguf_tensors(&had->g);
    int stays;
    *out = m;
    if (m) {
        *m = *had;
        m->view = 1;
        m->g.file.how = FLASH__FILE_CALLER;
        m->desc.host.allocator = c->d->host.allocator;
        m->arch = c->to;
        m->layer = layer;
        memset(&m->root, 0, sizeof m->root);
        memset(layer, 0, (size_t)c->to.n_layer * sizeof *layer);
    }
    for (i = 0; i < n && !s; i++) {
        s = flash__cut_piece(c, i, &p, &stays, err);
        if (s || !stays) continue;
        if (p.layer < 0)
            flash__view_tensor(c, &p, &had->root, m ? &m->root : NULL, a);
        else
            flash__view_tensor(c, &p, had->layer + p.layer, m ? layer + p.to : NULL, a);
    }
    if (m && m->arch.tied) m->root.head = m->root.embed;
    return s;
}

FLASH_API size_t flash_prune_view_memory(const flash_prune_desc *desc, flash_error *err)
{
    flash__cut c;
    flash__arena a = {NULL, 0};
    flash_model *none;
    size_t rows, n = 0;
    if (flash__cut_begin(&c, desc, &rows, err)) return 0;
    if (!flash__view_plan(&none, &c, &a, err)) {
        n = a.used < SIZE_MAX - rows ? a.used + rows : 0;
        if (!n) flash__fail(err, FLASH_E_TOO_LARGE, 0, "more memory than this machine can address");
    }
    flash__release(&desc->host.allocator, c.row, rows);
    return n;
}

FLASH_API flash_status flash_prune_view(flash_model **out, const flash_prune_desc *desc,
                                        flash_error *err)
{
    flash__cut c;
    flash__arena a = {NULL, 0};
    flash_model *m;
    flash_status s;
    size_t rows, block;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the view");
    *out = NULL;
    s = flash__cut_begin(&c, desc, &rows, err);
    if (s) return s;
    s = flash__view_plan(&m, &c, &a, err);
    block = a.used;
    a.used = 0;
    if (!s && block != SIZE_MAX) a.base = (uint8_t *)flash__acquire(&desc->host.allocator, block);
    if (!s && !a.base)
        s = flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the view (%u bytes)",
                        (uint64_t)block);
    if (!s) {
        flash__view_plan(&m, &c, &a, err);
        m->block = block;
        *out = m;
    }
    flash__release(&desc->host.allocator, c.row, rows);
    return s;
}

/* --- calibration ----------------------------------------------------------------- */

/* Sums over all sequences so far. For channels, units and heads, [0] holds the sums over sequences
   of (mean over tokens of |x|)^2, and [1] the sums over tokens of x^2. */
struct flash_calibration {
    flash_arch arch;
    flash_allocator allocator;
    size_t block, n; /* size of the block [B]; numbers in `all` */
    double *all;     /* [n] number of sequences, of tokens, then what the next fields point to */
    double *cos_attention, *cos_layer; /* [L] sums of 1 - cos */
    double *norm[3];                   /* [2L+1,D] after a norm; [2]: sums of x^2 before it */
    double *unit[FLASH_LAYERS_MAX][3]; /* [F] silu(gate) up; [2]: norms of ffn_down's columns */
    double *head[FLASH_LAYERS_MAX][2]; /* [K] over all items of its query heads */
    double *mean;                      /* [largest dimension], work */
};

/* Points the fields of c into `at`; c NULL: only counts. Returns the numbers that are kept. *work
   becomes the numbers needed after those, for c->mean. */
static size_t flash__calibration_plan(flash_calibration *c, const flash_arch *a, double *at,
                                      size_t *work)
{
    size_t n = 2, L = (size_t)a->n_layer, D = (size_t)a->d_model, i, k;
    *work = D;
    if (c) {
        c->all = at;
        c->cos_attention = at + n;
        c->cos_layer = at + n + L;
    }
    n += 2 * L;
    for (k = 0; k < 3; k++, n += (2 * L + 1) * D)
        if (c) c->norm[k] = at + n;
    for (i = 0; i < L; i++) {
        const flash_layer *l = a->layer + i;
        for (k = 0; k < 3; k++, n += (size_t)l->d_ffn)
            if (c) c->unit[i][k] = at + n;
        for (k = 0; k < 2; k++, n += l->n_kv_head)
            if (c) c->head[i][k] = at + n;
        *work = FLASH__MAX(*work, FLASH__MAX((size_t)l->d_ffn, l->n_head * (size_t)a->d_head));
    }
    if (c) {
        c->n = n;
        c->mean = at + n;
    }
    return n;
}

FLASH_API flash_status flash_calibration_create(flash_calibration **out, const flash_arch *a,
                                                const flash_host *host, flash_error *err)
{
    flash_allocator none;
    flash_calibration *c;
    size_t work, n, block;
    int i;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the calibration");
    *out = NULL;
    if (!a || a->n_layer < 0 || a->n_layer > FLASH_LAYERS_MAX || a->d_model < 1
        || a->d_model > FLASH_DIM_MAX)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no architecture");
    for (i = 0; i < a->n_layer; i++)
        if (a->layer[i].d_ffn < 0 || a->layer[i].d_ffn > FLASH_DIM_MAX
            || a->layer[i].attention == FLASH_ATTENTION_CONV)
            return flash__fail(err, FLASH_E_UNSUPPORTED, 0, "layer %i cannot be trained", i);
    n = flash__calibration_plan(NULL, a, NULL, &work);
    block = sizeof *c + (n + work) * sizeof(double);
    memset(&none, 0, sizeof none);
    c = (flash_calibration *)flash__acquire(host ? &host->allocator : &none, block);
    if (!c) return flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the calibration");
    memset(c, 0, block);
    c->arch = *a;
    c->allocator = host ? host->allocator : none;
    c->block = block;
    flash__calibration_plan(c, a, (double *)(void *)(c + 1), &work);
    *out = c;
    return FLASH_E_NONE;
}

FLASH_API void flash_calibration_free(flash_calibration *c)
{
    flash_allocator a;
    if (!c) return;
    a = c->allocator;
    flash__release(&a, c, c->block);
}

/* Sets c->mean, [n], to the mean of |x| over T rows of n numbers, and adds the sums of x^2 to
   squares, [n], unless it is NULL. */
static void flash__see(flash_calibration *c, const flash__real *x, int T, size_t n, double *squares)
{
    size_t i;
    int r;
    memset(c->mean, 0, n * sizeof *c->mean);
    for (r = 0; r < T; r++, x += n)
        for (i = 0; i < n; i++) {
            c->mean[i] += fabs((double)x[i]) / T;
            if (squares) squares[i] += (double)x[i] * (double)x[i];
        }
}

/* Adds T rows x before and after a norm, whose weights begin at `weights`. norm: its number, 2l,
   2l + 1 or 2L. */
static void flash__see_norm(flash_calibration *c, const flash_trainer *t, int norm, size_t weights,
                            const flash__real *x, int T)
{
    size_t D = (size_t)t->arch.d_model, at = (size_t)norm * D, i;
    int r;
    for (r = 0; r < T; r++)
        flash__t_norm(&t->k, x + (size_t)r * D, t->w + weights, (flash__real)t->arch.norm_eps, D,
                      t->normed + (size_t)r * D);
    flash__see(c, x, T, D, c->norm[2] + at);
    flash__see(c, t->normed, T, D, c->norm[1] + at);
    for (i = 0; i < D; i++) c->norm[0][at + i] += c->mean[i] * c->mean[i];
}

/* Returns the sum over T rows of 1 - cos of the angle between rows of x and y, both [T,D]. */
static double flash__see_cos(const flash__real *x, const flash__real *y, int T, size_t D)
{
    double sum = 0;
    size_t i;
    int r;
    for (r = 0; r < T; r++, x += D, y += D) {
        double xx = 0, yy = 0, xy = 0;
        for (i = 0; i < D; i++) {
            xx += (double)x[i] * (double)x[i];
            yy += (double)y[i] * (double)y[i];
            xy += (double)x[i] * (double)y[i];
        }
        sum += xx > 0 && yy > 0 ? 1 - xy / sqrt(xx * yy) : 0;
    }
    return sum;
}

/* Adds the activations of layer il for the sequence whose rows begin at `row`. */
static void flash__see_layer(flash_calibration *c, flash_trainer *t, int il, int row)
{
    const flash_layer *facts = t->arch.layer + il;
    const flash__lesson *l = t->layer + il;
    const flash__real *out = il + 1 < t->arch.n_layer ? t->layer[il + 1].in : t->out;
    size_t D = (size_t)t->arch.d_model, F = (size_t)facts->d_ffn, QD, r = (size_t)row, i, j;
    int T = t->desc.n_ctx;
    if (l->at[FLASH__W_Q]) {
        size_t each = (size_t)(facts->n_head / facts->n_kv_head) * (size_t)t->arch.d_head;
        QD = facts->n_head * (size_t)t->arch.d_head;
        flash__see_norm(c, t, 2 * il, l->at[FLASH__W_ATTN_NORM], l->in + r * D, T);
        flash__see(c, l->o + r * QD, T, QD, NULL);
        for (i = 0; i < facts->n_kv_head; i++)
            for (j = i * each; j < (i + 1) * each; j++) {
                const flash__real *x = l->o + r * QD + j;
                int k;
                c->head[il][0][i] += c->mean[j] * c->mean[j];
                for (k = 0; k < T; k++, x += QD) c->head[il][1][i] += (double)*x * (double)*x;
            }
        c->cos_attention[il] += flash__see_cos(l->in + r * D, l->mid + r * D, T, D);
    }
    if (l->at[FLASH__W_GATE]) {
        flash__see_norm(c, t, 2 * il + 1, l->at[FLASH__W_FFN_NORM], l->mid + r * D, T);
        flash__t_glu(&t->k, l->gate + r * F, l->up + r * F, (size_t)T * F, t->wide);
        flash__see(c, t->wide, T, F, c->unit[il][1]);
        for (i = 0; i < F; i++) c->unit[il][0][i] += c->mean[i] * c->mean[i];
    }
    c->cos_layer[il] += flash__see_cos(l->in + r * D, out + r * D, T, D);
}

static int flash__same_shape(const flash_arch *a, const flash_arch *b)
{
    int i, same = a->n_layer == b->n_layer && a->d_model == b->d_model && a->d_head == b->d_head;
    for (i = 0; same && i < a->n_layer; i++)
        same = a->layer[i].d_ffn == b->layer[i].d_ffn && a->layer[i].n_head == b->layer[i].n_head
            && a->layer[i].n_kv_head == b->layer[i].n_kv_head;
    return same;
}

FLASH_API flash_status flash_calibration_add(flash_calibration *c, flash_trainer *t,
                                             const int32_t *tokens, size_t n)
{
    size_t row, some, i, D, F, j, r;
    double sum[2];
    flash_status s = FLASH_E_NONE;
    int il, k;
    if (!c || !t || !tokens || !flash__same_shape(&c->arch, &t->arch)
        || n > SIZE_MAX / 4 / (size_t)(t->desc.n_ctx + 1))
        return FLASH_E_ARGUMENT;
    row = (size_t)(t->desc.n_ctx + 1);
    D = (size_t)t->arch.d_model;
    if (!flash__tokens_ok(t, tokens, n * row)) return FLASH_E_ARGUMENT;
    for (il = 0; il < t->arch.n_layer; il++) {
        const flash__lesson *l = t->layer + il;
        F = (size_t)t->arch.layer[il].d_ffn;
        for (j = 0; j < F; j++) {
            double squares = 0, w;
            for (r = 0; r < D; r++) {
                w = (double)t->w[l->at[FLASH__W_DOWN] + r * F + j];
                squares += w * w;
            }
            c->unit[il][2][j] = sqrt(squares);
        }
    }
    for (i = 0; i < n && !s; i += some) {
        some = FLASH__MIN((size_t)t->desc.batch, n - i);
        sum[0] = sum[1] = 0;
        s = flash__batch(t, tokens + i * row, (int)some, 0, 0, sum);
        if (!s && !flash__finite(sum[0])) s = FLASH_E_RANGE;
        for (k = 0; k < (int)some && !s; k++) {
            int first = k * t->desc.n_ctx;
            for (il = 0; il < t->arch.n_layer; il++) flash__see_layer(c, t, il, first);
            flash__see_norm(c, t, 2 * t->arch.n_layer, t->out_norm, t->out + (size_t)first * D,
                            t->desc.n_ctx);
            c->all[0] += 1;
            c->all[1] += t->desc.n_ctx;
        }
    }
    return s;
}

FLASH_API int flash_calibration_count(const flash_calibration *c, flash_part part, int layer)
{
    int in = c && layer >= 0 && layer < c->arch.n_layer;
    if (part == FLASH_PART_UNIT) return in ? c->arch.layer[layer].d_ffn : 0;
    if (part == FLASH_PART_KV_HEAD) return in ? c->arch.layer[layer].n_kv_head : 0;
    if (!c || (unsigned)part > FLASH_PART_LAYER) return 0;
    return part == FLASH_PART_CHANNEL ? c->arch.d_model : c->arch.n_layer;
}

static double flash__score(const flash_calibration *c, flash_part part, int layer, int energy,
                           int i)
{
    double tokens = FLASH__MAX(c->all[1], 1), sum = 0;
    size_t D = (size_t)c->arch.d_model, k;
    switch (part) {
    case FLASH_PART_UNIT:
        return energy ? sqrt(c->unit[layer][1][i] / tokens)
                      : sqrt(c->unit[layer][0][i]) * c->unit[layer][2][i];
    case FLASH_PART_KV_HEAD:
        return sqrt(energy ? c->head[layer][1][i] / tokens : c->head[layer][0][i]);
    case FLASH_PART_CHANNEL:
        for (k = 0; k <= 2 * (size_t)c->arch.n_layer; k++)
            sum += energy ? c->norm[1][k * D + (size_t)i] / tokens
                          : sqrt(c->norm[0][k * D + (size_t)i]);
        return energy ? sqrt(sum) : sum;
    case FLASH_PART_ATTENTION: return c->cos_attention[i] / tokens;
    default: return c->cos_layer[i] / tokens;
    }
}

FLASH_API flash_status flash_calibration_scores(const flash_calibration *c, flash_part part,
                                                int layer, int energy, double *out)
{
    int n = flash_calibration_count(c, part, layer), i;
    if (!n || !out) return FLASH_E_ARGUMENT;
    for (i = 0; i < n; i++) out[i] = flash__score(c, part, layer, energy, i);
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_calibration_choose(const flash_calibration *c, flash_part part,
                                                int layer, int energy, int n, int block, int *out)
{
    int all = flash_calibration_count(c, part, layer), taken, best, b, i, k;
    double *score, most, v;
    if (!all || !out || block < 1 || n < 1 || n > all || n % block || all % block)
        return FLASH_E_ARGUMENT;
    /* c->mean has room for any units, heads and channels; the number of layers is checked next */
    score = c->mean;
    if (all > c->arch.d_model && part > FLASH_PART_CHANNEL) return FLASH_E_ARGUMENT;
    for (b = 0; b < all / block; b++)
        for (score[b] = 0, i = b * block; i < (b + 1) * block; i++) {
            v = flash__score(c, part, layer, energy, i);
            score[b] += v * v;
            if (!(v * v >= 0)) return FLASH_E_RANGE;
        }
    for (taken = 0; taken < n / block; taken++) {
        for (best = -1, most = 0, b = 0; b < all / block; b++)
            if (score[b] >= 0 && (best < 0 || score[b] > most)) {
                best = b;
                most = score[b];
            }
        score[best] = -1;
    }
    for (k = 0, b = 0; b < all / block; b++)
        for (i = 0; score[b] < 0 && i < block; i++) out[k++] = b * block + i;
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_calibration_share(const flash_calibration *c, const int *channel,
                                               int n, float *share)
{
    int k, i, D = c ? c->arch.d_model : 0;
    if (!c || !channel || !share || n < 1 || n > D) return FLASH_E_ARGUMENT;
    for (i = 0; i < n; i++)
        if (channel[i] < 0 || channel[i] >= D) return FLASH_E_ARGUMENT;
    for (k = 0; k <= 2 * c->arch.n_layer; k++) {
        const double *x = c->norm[2] + (size_t)k * (size_t)D;
        double all = 0, some = 0;
        for (i = 0; i < D; i++) all += x[i];
        for (i = 0; i < n; i++) some += x[channel[i]];
        share[k] = all > 0 && some > 0 ? (float)(some / all) : 1;
    }
    return FLASH_E_NONE;
}

FLASH_API double *flash_calibration_numbers(flash_calibration *c, size_t *n)
{
    if (n) *n = c ? c->n : 0;
    return c ? c->all : NULL;
}

/* --- without some attentions ------------------------------------------------------- */

/* Returns sum_v p (log p - log q) [nat], where p and q are the softmax of the logits x and y,
   [V]. */
static double flash__divergence(const flash__real *x, const flash__real *y, int V)
{
    double a = (double)x[0], b = (double)y[0], p = 0, q = 0, sum = 0;
    int i;
    for (i = 1; i < V; i++) {
        a = FLASH__MAX(a, (double)x[i]);
        b = FLASH__MAX(b, (double)y[i]);
    }
    for (i = 0; i < V; i++) {
        p += flash__exp((double)x[i] - a);
        q += flash__exp((double)y[i] - b);
    }
    a += flash__log(p);
    b += flash__log(q);
    for (i = 0; i < V; i++)
        sum += flash__exp((double)x[i] - a) * ((double)x[i] - a - ((double)y[i] - b));
    return sum;
}

/* Returns the sum over the batch's rows of the divergences between the logits of `full`, [N,D], and
   those of t->out. t->z holds both, hence half of its rows at a time. */
static double flash__divergences(flash_trainer *t, const flash__real *full)
{
    int V = t->arch.n_vocab, D = t->arch.d_model,
        most = FLASH__MIN(t->desc.n_ctx, FLASH__LOSS_ROWS) / 2, r, i, k, n;
    flash__effort e;
    double sum = 0;
    for (r = 0; r < t->N; r += n) {
        n = FLASH__MIN(most, t->N - r);
        for (k = 0; k < 2; k++) {
            size_t at = (size_t)r * (size_t)D;
            e.n = 0;
            flash__t_norm_rows(t, &e, (k ? t->out : full) + at, t->out_norm, t->normed, NULL, n);
            flash__gemm_forward(&e, t->normed, t->w + t->head, t->z + (size_t)(k * n) * (size_t)V,
                                n, V, D, 0);
            flash__gemm_run(t, &e);
        }
        for (i = 0; i < n; i++)
            sum += flash__divergence(t->z + (size_t)i * (size_t)V,
                                     t->z + (size_t)(n + i) * (size_t)V, V);
    }
    return sum;
}

FLASH_API flash_status flash_trainer_skip(flash_trainer *t, const int32_t *tokens, size_t n,
                                          const uint8_t *skip, double *kl)
{
    size_t row, i, some, bytes;
    double sum = 0, loss[2];
    flash_status s = FLASH_E_NONE;
    int il;
    if (!t || !tokens || !skip || !kl || !n || t->desc.n_ctx < 2
        || n > SIZE_MAX / 4 / (size_t)(t->desc.n_ctx + 1))
        return FLASH_E_ARGUMENT;
    row = (size_t)(t->desc.n_ctx + 1);
    if (!flash__tokens_ok(t, tokens, n * row)) return FLASH_E_ARGUMENT;
    for (i = 0; i < n && !s; i += some) {
        some = FLASH__MIN((size_t)t->desc.batch, n - i);
        loss[0] = loss[1] = 0;
        s = flash__batch(t, tokens + i * row, (int)some, 0, 0, loss);
        bytes = (size_t)t->N * (size_t)t->arch.d_model * sizeof *t->dx;
        memcpy(t->dx, t->out, bytes); /* dx is free: only a backward pass uses it */
        for (il = 0; il < t->arch.n_layer && !s; il++) {
            flash__lesson *l = t->layer + il;
            size_t q = l->at[FLASH__W_Q];
            if (skip[il] && q) {
                l->at[FLASH__W_Q] = 0;
                memcpy(l->mid, l->in, bytes);
            }
            flash__layer_forward(t, il);
            l->at[FLASH__W_Q] = q;
        }
        if (!s) sum += flash__divergences(t, t->dx);
    }
    if (!s && !flash__finite(sum)) s = FLASH_E_RANGE;
    if (!s) *kl = sum / ((double)n * t->desc.n_ctx);
    return s;
}
#endif

/* ===== >>cleanup ========================================================== */

/* Undoes what was set and defined above for the library's own use, so that the user's code after
   the include is not affected. */

#if defined(FLASH_NO_FP_PRAGMA)
#elif defined(__clang__)
#pragma STDC FP_CONTRACT DEFAULT
#elif defined(__GNUC__)
#pragma GCC pop_options
#elif defined(_MSC_VER)
#pragma fp_contract(on)
#endif

#ifdef FLASH__OWN_MALLOC
#undef FLASH_MALLOC
#undef FLASH_FREE
#endif
#ifdef FLASH__OWN_ASSERT
#undef FLASH_ASSERT
#endif
#ifndef FLASH_KEEP_INTERNALS /* tests keep them */
#undef FLASH__OWN_MALLOC
#undef FLASH__OWN_ASSERT
#undef FLASH__FILE_STDIO
#undef FLASH__FILE_WIN32
#undef FLASH__FILE_MMAP
#undef FLASH__STATIC_ASSERT
#undef FLASH__FLOAT
#undef FLASH__COUNT
#undef FLASH__MIN
#undef FLASH__MAX
#undef FLASH__KERNELS
#undef FLASH__ANY
#undef FLASH__GPT2
#undef FLASH__LLAMA3
#undef FLASH__QWEN2
#undef FLASH__TEKKEN
#undef FLASH__GPT4O
#undef FLASH__LAYER
#undef FLASH__BIASED
#undef FLASH__NORMED
#undef FLASH__GELU_1
#undef FLASH__GELU_3
#undef FLASH__ROOT
#undef FLASH__HOSTED
#undef FLASH__RUNTIME
#undef FLASH__LATENCY
#undef FLASH__SEARCH
#undef FLASH__TRAIN
#undef FLASH__GP
#undef FLASH__NORMAL
#undef FLASH__REAL
#undef FLASH__SAVE_MARK
#undef FLASH__STATE_MARK
#undef FLASH__NOTHING
#undef FLASH__THREADS
#undef FLASH__THREADS_POSIX
#undef FLASH__THREADS_WIN32
#undef FLASH__THREAD_RESULT
#undef FLASH__ATOMIC_GNU
#undef FLASH__ATOMIC_MSVC
#undef FLASH__PAUSE
#undef FLASH__PREFETCH
#undef FLASH__OPAQUE
#undef FLASH__TARGET
#undef FLASH__INLINE
#undef FLASH__UNROLL
#undef FLASH__X86
#undef FLASH__SSE41
#undef FLASH__AVX2
#undef FLASH__AVX512
#undef FLASH__AVXVNNI
#undef FLASH__AMX
#undef FLASH__DPBUSD
#undef FLASH__NEON
#undef FLASH__NEON_DOT
#undef FLASH__WASM
#undef FLASH__SETS
#undef FLASH__PANEL_SSE41
#undef FLASH__PANEL_AVX2
#undef FLASH__PANEL_AVX512
#undef FLASH__PANELS_AVX512
#endif

#endif /* FLASH__IMPLEMENTED */
#endif /* any FLASH_..._IMPLEMENTATION */

/* LICENCE

   flash.h is available under two licences; choose the one you like.

   ALTERNATIVE A - MIT License. Copyright (c) 2026 the flash.h authors. Permission is hereby
   granted, free of charge, to any person obtaining a copy of this software and associated
   documentation files (the "Software"), to deal in the Software without restriction, including
   without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
   and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do
   so, subject to the following conditions: The above copyright notice and this permission notice
   shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED
   "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
   WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT
   SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY,
   WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH
   THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

   ALTERNATIVE B - Public Domain (www.unlicense.org). This is free and unencumbered software
   released into the public domain. Anyone is free to copy, modify, publish, use, compile, sell, or
   distribute this software, either in source code form or as a compiled binary, for any purpose,
   commercial or non-commercial, and by any means. In jurisdictions that recognize copyright laws,
   the author or authors of this software dedicate any and all copyright interest in the software to
   the public domain. We make this dedication for the benefit of the public at large and to the
   detriment of our heirs and successors. We intend this dedication to be an overt act of
   relinquishment in perpetuity of all present and future rights to this software under copyright
   law. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND. */
