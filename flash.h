/* flash.h - v0.1.0 - small language models in one C file - MIT OR public domain

   In exactly one C (or C++) file:

       #define FLASH_IMPLEMENTATION
       #include "flash.h"

   everywhere else just #include it. Link with -lm (and -lpthread where threads live in a library of
   their own).

   WHAT IT DOES       reads GGUF files (v2, v3) from a path, from memory or through a callback;
                      tokenises; runs the model; samples text. Weights stay where they are: mapped
                      file, your memory, ROM.
   WHAT IT DOES NOT   training, images, GPUs, downloading; it prints nothing, exits nowhere, has no
                      writable globals.
   SAFE ON            any file, any text: hostile input gives an error code and a sentence.
   SAME BITS          on every compiler, instruction set, thread count and slicing of the work.

   QUICK START      (this is examples/hello.c; `make lint` keeps the two equal)

// >>quick-start
#define FLASH_IMPLEMENTATION
#include "flash.h"
#include <stdio.h>

int main(int argc, char **argv)
{
    flash_model *model; flash_session *s; flash_piece piece; flash_error err;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    md.source.path = argc > 1 ? argv[1] : "model.gguf";
    if (flash_model_load(&model, &md, &err)) { fprintf(stderr, "%s\n", err.text); return 1; }
    if (flash_session_create(&s, model, &sd)) { fprintf(stderr, "out of memory\n"); return 1; }
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
       >>api-session   sessions: feed, step, sample, next
       >>api-latency   how fast a model would be: measure shapes, fit, predict
       >>api-low       instruction sets, rows of weights
     IMPLEMENTATION
       >>config        parts, overridable macros, compiler and target
       >>base          checked sizes, little-endian readers, arena, error text, sort, random
       >>os            files, memory maps, clock
       >>threads       a small pool of workers
       >>cpu           what this processor can run
       >>numbers       f16, bf16, exp, log, sin and cos with fixed bits
       >>gp            Gaussian-process regression, non-negative least squares
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
       >>sampler       from logits to a token
       >>session       feed, step, next
       >>measure       models of made-up weights, timed
       >>latency       counted work, the fit, predictions, the model as text
       >>cleanup       undefine what must not leak
     LICENCE

   PARTS     Define as many as you need, all in the same single file. Declarations of all parts are
             always visible; calling a part you did not implement is a link error.

     FLASH_IMPLEMENTATION           everything
     FLASH_RUNTIME_IMPLEMENTATION   GGUF, tokenizers, models, sessions
     FLASH_LATENCY_IMPLEMENTATION   the runtime and the latency model

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

#ifndef FLASH_API
#  if defined(FLASH_STATIC) && (defined(__GNUC__) || defined(__clang__))
#    define FLASH_API static __attribute__((unused)) /* no warning for what you do not call */
#  elif defined(FLASH_STATIC)
#    define FLASH_API static
#  else
#    define FLASH_API extern
#  endif
#endif

enum {
    FLASH_LAYERS_MAX  = 512,     /* layers of a model                                     */
    FLASH_CONTEXT_MAX = 1 << 20, /* positions of a session                                */
    FLASH_VOCAB_MAX   = 1 << 20, /* tokens of a vocabulary                                */
    FLASH_DIM_MAX     = 1 << 20, /* d_model, d_ffn, heads times d_head                    */
    FLASH_HEAD_MAX    = 512,     /* d_head                                                */
    FLASH_THREADS_MAX = 64,      /* threads of a session                                  */
    FLASH_TOKEN_BYTES_MAX = 65535 /* bytes of one token's text                            */
};

/* Version the implementation was built from; differs from FLASH_VERSION only if two copies are
   mixed. */
FLASH_API int flash_version(void);
/* One line: version, instruction sets compiled in, memory maps or not. Static, never NULL. */
FLASH_API const char *flash_build_info(void);

/* ===== >>status =========================================================== */

/* One list: the enum, the sentences and the tests come from it. 0 done; positive: not finished, not
   failed. */
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
    X(FLASH_E_INTERNAL,    -10, "a bug in flash.h; please report it")

typedef enum flash_status {
#define FLASH__X(name, value, text) name = value,
    FLASH_STATUS_LIST(FLASH__X)
#undef FLASH__X
#ifndef FLASH_OK /* drivers of on-chip flash define it, as 0 too */
    FLASH_OK = FLASH_E_NONE,
#endif
    FLASH_STATUS_FORCE_32BIT = 0x7fffffff
} flash_status;

/* A sentence for any value. Static, never NULL. */
FLASH_API const char *flash_status_text(flash_status s);

/* What went wrong, in the caller's memory. Filled only on failure. */
typedef struct flash_error {
    flash_status status;
    /* byte offset in the input, 0 if it has no place */
    uint64_t     offset;
    /* one line, NUL-terminated: "blk.3.attn_q.weight: shape 896x896, want 896x1024" */
    char         text[240];
} flash_error;

/* ===== >>host ============================================================= */

/* All that the library asks of its surroundings; all zero means libc and the system. */

typedef struct flash_allocator {
    /* align: a power of two, at most 64; NULL: no memory */
    void *(*acquire)(void *user, size_t bytes, size_t align);
    /* bytes as acquired, so an arena needs no headers */
    void  (*release)(void *user, void *ptr, size_t bytes);
    void   *user;
} flash_allocator;

typedef struct flash_host {
    /* both functions or neither; thread-safe if models are shared */
    flash_allocator allocator;
    /* returns when all are done */
    void   (*parallel_for)(void *user, int tasks, void (*task)(void *ctx, int index), void *ctx);
    /* monotonic [s]; needed for deadlines only */
    double (*clock)(void *user);
    /* one line, no newline; level 0 info, 1 warning */
    void   (*log)(void *user, int level, const char *text);
    void    *user;
} flash_host;

/* Where a file comes from: exactly one of path, data, read. Plain facts, copied by whoever takes
   it. */
typedef struct flash_source {
    /* mapped, or read whole where there is no mmap */
    const char *path;
    /* [bytes]: not copied; must outlive the object made from it */
    const void *data;
    size_t      bytes;
    /* copies n bytes from offset at; 0 ok, else failed */
    int       (*read)(void *user, uint64_t at, void *dst, size_t n);
    /* of what read() reads [B]; read whole into memory on load */
    uint64_t    size;
    void       *user;
    /* 1, for flash_gguf_open: the weights may be missing (a cut download); see flash_tensor.data */
    int         headers;
} flash_source;

/* ===== >>types ============================================================ */

/* Weight types: name, id as in GGUF files, items per block, bytes per block. Layouts in >>quant. */
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

typedef enum flash_type {
#define FLASH__X(name, id, items, bytes) FLASH_TYPE_##name = id,
    FLASH_TYPE_LIST(FLASH__X)
#undef FLASH__X
    FLASH_TYPE_NONE = 0x7fffffff
} flash_type;

/* "Q4_0"; "unknown" for anything else. Static. */
FLASH_API const char *flash_type_name(flash_type t);
/* The type of that name, in any case; FLASH_TYPE_NONE if there is none. */
FLASH_API flash_type  flash_type_parse(const char *name);
/* Items per block: 1, 32 or 256; 0 for an unknown type. */
FLASH_API int         flash_type_block(flash_type t);
/* Bytes of a row of n weights [B]; 0 if the type is unknown, n is not a multiple of its block, or
   the size overflows. */
FLASH_API size_t      flash_row_bytes(flash_type t, size_t n);

/* ===== >>api-gguf ========================================================= */

/* The container, without knowing what is in it. Format:
   github.com/ggml-org/ggml/blob/master/docs/gguf.md */

typedef struct flash_gguf flash_gguf; /* opaque, read-only: any number of threads */

typedef enum flash_value_type {
    FLASH_VALUE_U8, FLASH_VALUE_I8, FLASH_VALUE_U16, FLASH_VALUE_I16, FLASH_VALUE_U32,
        FLASH_VALUE_I32, FLASH_VALUE_F32,
    FLASH_VALUE_BOOL, FLASH_VALUE_STRING, FLASH_VALUE_ARRAY, FLASH_VALUE_U64, FLASH_VALUE_I64,
        FLASH_VALUE_F64,
    FLASH_VALUE_COUNT
} flash_value_type;

/* One key and its value. Pointers lie in the file: valid while the object lives, not
   NUL-terminated. */
typedef struct flash_value {
    const char      *key;    size_t key_bytes;
    flash_value_type type;
    /* of an array's items; for others the same as type */
    flash_value_type item;
    /* items of an array; 1 for others */
    uint64_t         count;
    /* little-endian, unaligned: the value, or an array's first item */
    const uint8_t   *data;
    /* of data [B]; of a string: its text alone */
    size_t           bytes;
} flash_value;

/* One tensor. Pointers lie in the file. Rows of ne[0] items are contiguous. */
typedef struct flash_tensor {
    const char    *name;  size_t name_bytes;
    /* as in the file */
    uint32_t       type_id;
    /* FLASH_TYPE_NONE if the file's type is not one of ours */
    flash_type     type;
    int            n_dims;
    /* ne[0] is the row; unused ones are 1 */
    uint64_t       ne[4];
    uint64_t       bytes;
    /* of the data in the file [B] */
    uint64_t       offset;
    /* [bytes]; NULL if the file ends before (only with source.headers) */
    const uint8_t *data;
} flash_tensor;

/* Opens and checks the whole container: header, keys, tensor list, places of the data. Safe on
   untrusted bytes. No allocation is larger than the file (plus 64 kB). host may be NULL. */
FLASH_API flash_status flash_gguf_open(flash_gguf **out, const flash_source *source,
                                       const flash_host *host, flash_error *err);
FLASH_API void         flash_gguf_free(flash_gguf *g); /* NULL is fine */
FLASH_API int          flash_gguf_version(const flash_gguf *g);
FLASH_API uint64_t     flash_gguf_size(const flash_gguf *g);      /* of the file [B] */
FLASH_API size_t       flash_gguf_keys(const flash_gguf *g);
FLASH_API size_t       flash_gguf_tensors(const flash_gguf *g);
/* The i-th key or tensor in file order. FLASH_E_ARGUMENT if there is none. */
FLASH_API flash_status flash_gguf_key(const flash_gguf *g, size_t i, flash_value *out);
FLASH_API flash_status flash_gguf_tensor(const flash_gguf *g, size_t i, flash_tensor *out);
/* By name. FLASH_E_ARGUMENT if there is none; *out is then untouched. */
FLASH_API flash_status flash_gguf_find(const flash_gguf *g, const char *key, flash_value *out);
FLASH_API flash_status flash_gguf_find_tensor(const flash_gguf *g, const char *name,
                                              flash_tensor *out);
/* Item i of a value as a number; 0 if it is no number or i is out of range. */
FLASH_API double       flash_value_number(const flash_value *v, uint64_t i);
/* floats are cut; 0 if out of range */
FLASH_API int64_t      flash_value_integer(const flash_value *v, uint64_t i);
/* Next string of an array of strings: *at starts at 0 and is moved on. NULL at the end. */
FLASH_API const char  *flash_value_string(const flash_value *v, size_t *at, size_t *bytes);

/* Writes a GGUF v3 file through a callback, in order: begin, keys, tensor infos, then each tensor's
   data. A plain struct in the caller's memory; all zero but for write and user. The first failure
   sticks. */
typedef struct flash_gguf_writer {
    int        (*write)(void *user, const void *data, size_t bytes); /* 0 ok */
    void        *user;
    flash_status status;   /* of everything so far                        */
    uint64_t     written;  /* [B]                                         */
    uint64_t     offset;   /* of the next tensor, from the data start [B] */
    uint64_t     filled;   /* data written so far, from the data start [B]*/
    uint32_t     keys_left, tensors_left, tensors;
} flash_gguf_writer;

FLASH_API flash_status flash_gguf_write_begin(flash_gguf_writer *w, uint32_t n_keys,
                                              uint32_t n_tensors);
FLASH_API flash_status flash_gguf_write_u32   (flash_gguf_writer *w, const char *key, uint32_t v);
FLASH_API flash_status flash_gguf_write_f32   (flash_gguf_writer *w, const char *key, float v);
FLASH_API flash_status flash_gguf_write_bool  (flash_gguf_writer *w, const char *key, int v);
FLASH_API flash_status flash_gguf_write_string(flash_gguf_writer *w, const char *key,
                                               const char *text);
/* item: U32, I32 or F32; data: [n] of the host's uint32_t, int32_t or float. */
FLASH_API flash_status flash_gguf_write_array (flash_gguf_writer *w, const char *key,
                                               flash_value_type item, const void *data, size_t n);
/* text: [n] pointers; bytes: [n] lengths, or NULL where they are NUL-terminated. */
FLASH_API flash_status flash_gguf_write_strings(flash_gguf_writer *w, const char *key,
                                                const char *const *text, const size_t *bytes,
    size_t n);
/* Copies a key as it is, whatever its type. */
FLASH_API flash_status flash_gguf_write_value (flash_gguf_writer *w, const flash_value *v);
/* Announces a tensor of n_dims dimensions ne (row first). */
FLASH_API flash_status flash_gguf_write_tensor(flash_gguf_writer *w, const char *name,
                                               flash_type type, int n_dims, const uint64_t *ne);
/* Data of the tensors in the order announced, as stored in files, in pieces of any size; last: 1
   with the last piece of each tensor (padding follows). */
FLASH_API flash_status flash_gguf_write_data  (flash_gguf_writer *w, const void *data,
                                               size_t bytes, int last);
/* FLASH_E_ARGUMENT if keys, tensors or data are missing. */
FLASH_API flash_status flash_gguf_write_end   (flash_gguf_writer *w);

/* ===== >>api-arch ========================================================= */

/* Architecture: plain facts, filled by the loader, shared by every part. */

typedef enum flash_attention {
    FLASH_ATTENTION_FULL,
    FLASH_ATTENTION_WINDOW,   /* the last `window` positions, itself included               */
    FLASH_ATTENTION_SKIP,     /* none: the layer is its feed-forward part                   */
    FLASH_ATTENTION_CONV,     /* a gated short convolution in its place (LFM2)              */
    FLASH_ATTENTION_LINEAR,   /* one matrix in its place (DeciLM)                           */
    FLASH_ATTENTION_CHUNK     /* back to the last multiple of `window` (Llama 4)            */
} flash_attention;
typedef enum flash_activation { FLASH_ACTIVATION_SILU, FLASH_ACTIVATION_GELU } flash_activation;
/* rotates (2i,2i+1) or (i,i+C/2) */
typedef enum flash_rope_style { FLASH_ROPE_PAIRS, FLASH_ROPE_HALVES } flash_rope_style;
typedef enum flash_rope_scaling { FLASH_ROPE_PLAIN, FLASH_ROPE_LINEAR, FLASH_ROPE_LLAMA3,
                                  FLASH_ROPE_YARN } flash_rope_scaling;

typedef struct flash_layer {
    uint8_t  attention;       /* flash_attention                                         */
    uint8_t  rope_plain;      /* 1: the scaling of RoPE is not for this layer            */
    uint16_t n_head;          /* H; 0 in a layer without keys and values                 */
    uint16_t n_kv_head;       /* K; divides n_head                                       */
    int32_t  d_ffn;           /* F; 0: no feed-forward part                              */
    int32_t  window;          /* W of WINDOW and CHUNK                                   */
    float    rope_base;       /* 0: no RoPE                                              */
} flash_layer;

typedef struct flash_arch {
    char   name[32];          /* as in general.architecture                              */
    int    n_layer, d_model, d_head, n_vocab;
    int    n_ctx;             /* trained for                                             */
    int    tied;              /* the head shares the embedding's weights                 */
    float  norm_eps;
    int    rope_dims;         /* of each head, even, <= d_head                           */
    int    rope_style;        /* flash_rope_style                                        */
    int    rope_scaling;      /* flash_rope_scaling                                      */
    /* base: of the first layer that has one; factor 1: none */
    float  rope_base, rope_factor, rope_attn_factor, rope_beta_fast, rope_beta_slow;
    float  rope_low_freq, rope_high_freq; /* Llama 3 scaling                             */
    int    rope_n_ctx;        /* context before scaling                                  */
    float  attention_scale;   /* of q.k, normally 1/sqrt(d_head)                         */
    int    activation;        /* flash_activation of the gate                            */
    int    conv_length;       /* positions a CONV layer sees, itself included; 0: none   */
    int    qk_norm;           /* 1: queries and keys are normed after RoPE, no weights   */
    float  embedding_scale;
    float  logit_cap;         /* c: logits are c tanh(logits/c); 0: none                 */
    /* n: queries of layers without RoPE grow by 1 + 0.1 ln(1 + floor((p + 1)/n)); 0: none */
    int    temperature_n_ctx;
    flash_layer layer[FLASH_LAYERS_MAX];
} flash_arch;

/* Weights of the model, embedding and head counted once each (a tied head not at all). What its
   architecture may do without (biases of llama, norms of queries and keys in flash) does not count.
   */
FLASH_API uint64_t flash_arch_params(const flash_arch *a);
/* Bytes of keys and values of a session as type kv [B]: for n_ctx positions in layers that see all,
   for window + chunk in the others (stored 64 at a time), nothing in layers without attention.
   chunk 0: the default. 0 if out of range. */
FLASH_API uint64_t flash_arch_kv_bytes(const flash_arch *a, int n_ctx, int chunk, flash_type kv);
/* Gives layers another attention by a list such as "full,skip,window:256": full, window:N, skip,
   or keep, which is the only one for conv and linear layers other than skip; it is repeated until
   every layer has one. On failure nothing changes: FLASH_E_FORMAT for what cannot be read,
   FLASH_E_UNSUPPORTED for a layer without what it would need. */
FLASH_API flash_status flash_attention_parse(flash_arch *a, const char *pattern, flash_error *err);

/* ===== >>api-model ======================================================== */

typedef struct flash_model   flash_model;   /* opaque, read-only after load */
typedef struct flash_session flash_session; /* opaque, one thread at a time */

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

typedef enum flash_isa {
#define FLASH__X(name, text) FLASH_ISA_##name,
    FLASH_ISA_LIST(FLASH__X)
#undef FLASH__X
    FLASH_ISA_COUNT,
    FLASH_ISA_FORCE_32BIT = 0x7fffffff
} flash_isa;

typedef struct flash_model_desc {
    /* must be named */
    flash_source source;
    /* FLASH_E_UNSUPPORTED if this processor lacks it */
    flash_isa    isa;
    /* 1: tokenizer only; files without weights load; sessions are refused */
    int          vocab_only;
    /* 1: an unknown tokenizer.ggml.pre is read as "default", with a warning */
    int          any_pretokenizer;
    /* another attention than the file's, for flash_attention_parse; NULL: the file's */
    const char  *attention;
    flash_host   host;
} flash_model_desc;

/* What flash_model_load acquires for this file [B]; 0 on failure. A source that must be read whole
   is read for this. */
FLASH_API size_t       flash_model_memory(const flash_model_desc *desc, flash_error *err);
/* Loads and checks a model. Safe on untrusted files. desc is copied; data it points to is not. */
FLASH_API flash_status flash_model_load(flash_model **out, const flash_model_desc *desc,
                                        flash_error *err);
/* NULL is fine; sessions of m must be gone */
FLASH_API void         flash_model_free(flash_model *m);
FLASH_API const flash_arch *flash_model_arch(const flash_model *m);
/* keys and tensors, owned by m */
FLASH_API const flash_gguf *flash_model_gguf(const flash_model *m);
FLASH_API flash_isa    flash_model_isa(const flash_model *m);

/* ===== >>api-text ========================================================= */

/* read control tokens such as <|im_end|> in the text / show them */
enum { FLASH_TEXT_SPECIAL = 1,
       /* do not begin with BOS even if the model wants it */
       FLASH_TEXT_NO_BOS  = 2,
       /* not the beginning: no BOS, no space prefix / keep a leading space */
       FLASH_TEXT_CONTINUE = 4 };

/* Text to tokens. text: [bytes], any bytes (invalid UTF-8 is kept byte by byte). ids: [cap]. *n is
   the number needed; FLASH_E_RANGE if it exceeds cap (ids then holds the first cap). flags 0: BOS
   and EOS as the model asks, control tokens are plain text. Words over 64 characters borrow memory
   from the model's allocator. Safe on untrusted text; n log n. */
FLASH_API flash_status flash_tokenize(const flash_model *m, const char *text, size_t bytes,
                                      unsigned flags,
                                      int32_t *ids, size_t cap, size_t *n);
/* Tokens to text. The inverse of flash_tokenize for any bytes the vocabulary can spell. text:
   [cap], not NUL-terminated; *bytes is the number needed. Control tokens are left out unless
   flagged. FLASH_E_ARGUMENT for ids out of range. */
FLASH_API flash_status flash_detokenize(const flash_model *m, const int32_t *ids, size_t n,
                                        unsigned flags,
                                        char *text, size_t cap, size_t *bytes);
/* As flash_detokenize, token by token, in whole characters: holds back an unfinished one, replaces
   bytes that can be none by U+FFFD. All zero at the start. */
typedef struct flash_detokenizer { uint8_t held[4]; uint8_t n_held, begun; } flash_detokenizer;
/* text: [cap], cap >= flash_token_bytes_max(m); a token < 0 flushes what is held. */
FLASH_API flash_status flash_detokenize_next(const flash_model *m, flash_detokenizer *d,
                                             int32_t token, unsigned flags,
                                             char *text, size_t cap, size_t *bytes);
/* enough for any one call of flash_detokenize_next [B] */
FLASH_API size_t  flash_token_bytes_max(const flash_model *m);
/* A token's text as the vocabulary spells it (in the file, not NUL-terminated); NULL if out of
   range. */
FLASH_API const char *flash_token_text(const flash_model *m, int32_t token, size_t *bytes);
/* by that spelling; -1 if there is none */
FLASH_API int32_t flash_token_find(const flash_model *m, const char *text);
FLASH_API int32_t flash_token_bos(const flash_model *m);  /* -1 if there is none */
FLASH_API int32_t flash_token_eos(const flash_model *m);  /* -1 if there is none */
/* ends a text or a turn */
FLASH_API int     flash_token_is_end(const flash_model *m, int32_t token);
FLASH_API int     flash_token_is_control(const flash_model *m, int32_t token);

/* ===== >>api-chat ========================================================= */

/* Chat formats: what stands around each turn of a conversation. A model's template is recognised by
   what is in it, never run. What templates add on their own is left out: dates, a system prompt
   where none is given, tools, the removal of earlier reasoning. */

/* NONE: there is no turn */
typedef enum flash_role { FLASH_ROLE_NONE, FLASH_ROLE_SYSTEM, FLASH_ROLE_USER,
                          FLASH_ROLE_ASSISTANT } flash_role;

/* Plain data, so a caller may make one for a model of its own. NULL only in marks. */
typedef struct flash_chat_format {
    const char *name;
    /* parts of the template by which it is known; after a '!' one it must not have */
    const char *marks[3];
    /* 1: a user's turn after the system's continues it, without its own first part */
    int         merge;
    /* 1: white space around the text is taken off */
    int         trim;
    /* [system, user, assistant]: before and after the text. No BOS at the start: it is the
       tokenizer's */
    const char *turn[3][2];
    /* makes the model answer */
    const char *open;
    /* what it ends the answer with: a stop string for vocabularies where this is no token */
    const char *end;
} flash_chat_format;

/* All of them, [*n]; static. */
FLASH_API const flash_chat_format *flash_chat_formats(size_t *n);
/* by name; NULL if there is none */
FLASH_API const flash_chat_format *flash_chat_find(const char *name);
/* The format of a Jinja template, NULL if it is none of ours. Looks at 256 KiB; safe on untrusted
   text. */
FLASH_API const flash_chat_format *flash_chat_recognise(const char *text, size_t bytes);
/* That of the model's template; NULL if it has none, too. */
FLASH_API const flash_chat_format *flash_chat_of(const flash_model *m);
/* One turn as text. before: whose turn was the last, NONE at the beginning; if it was the
   assistant's it is closed first, so that an answer just generated is, too. text: [bytes]; NULL
   with the assistant's role: what makes the model answer. out: [cap], not NUL-terminated; *n is the
   number needed; FLASH_E_RANGE if it exceeds cap. */
FLASH_API flash_status flash_chat_render(const flash_chat_format *f, flash_role before,
                                         flash_role role, const char *text, size_t bytes,
                                         char *out, size_t cap, size_t *n);
/* The same as tokens, with BOS at the beginning if the model asks for it. Control tokens are read
   in the format's own parts only: text cannot close its turn. ids, cap, n: as flash_tokenize. */
FLASH_API flash_status flash_chat_tokenize(const flash_model *m, const flash_chat_format *f,
                                           flash_role before, flash_role role,
                                           const char *text, size_t bytes,
                                           int32_t *ids, size_t cap, size_t *n);

/* ===== >>api-session ====================================================== */

typedef struct flash_logit_bias { int32_t token; float bias; } flash_logit_bias;

/* How the next token is chosen. All zero: the most probable one. Applied in this order. */
typedef struct flash_sampler {
    /* added to logits first; the caller's, must outlive the session */
    const flash_logit_bias *bias; int n_bias;
    /* 0: 1. Logits of recent tokens: divided if positive, else multiplied */
    float repeat_penalty;
    /* subtracted: times the count; once */
    float frequency_penalty, presence_penalty;
    /* recent means so many tokens; 0: 64, -1: all */
    int   penalty_last_n;
    /* 0: greedy (ties: the lowest id) */
    float temperature;
    /* keep the k best; 0: all */
    int   top_k;
    /* keep the most typical mass (arxiv 2202.00666); 0 or 1: off */
    float typical_p;
    /* keep the best mass p; 0 or 1: off */
    float top_p;
    /* keep those >= min_p times the best; 0: off */
    float min_p;
    /* 0: 1 */
    uint64_t seed;
    /* strings that end the text; the caller's, must outlive the session */
    const char *const *stop; int n_stop;
    /* 1: end-of-text tokens are never chosen */
    int   ignore_end;
} flash_sampler;

typedef struct flash_session_desc {
    /* positions; 0: what the model was trained for, at most 4096 */
    int           n_ctx;
    /* prompt tokens worked on together; 0: 256 */
    int           chunk;
    /* 0: 1 */
    int           threads;
    /* keys and values: F32 (0), F16 or Q8_0 (heads of a multiple of 8) */
    flash_type    kv;
    /* 1: logits of every token of a chunk; step returns after each chunk */
    int           all_logits;
    flash_sampler sampler;
    /* all zero: the model's */
    flash_host    host;
} flash_session_desc;

typedef struct flash_budget {
    /* prompt tokens to work on in this call, 0: no limit */
    int    tokens;
    /* return soon after the host's clock passes this [s], 0: none */
    double deadline;
} flash_budget;

typedef struct flash_piece {
    /* -1 where only held text is let go */
    int32_t     token;
    /* whole UTF-8 characters, [bytes] and a NUL; valid until the next call */
    const char *text;
    /* may be 0: held back until it is sure */
    size_t      bytes;
} flash_piece;

/* What flash_session_create acquires [B]; 0 if desc is invalid. */
FLASH_API size_t       flash_session_memory(const flash_model *m, const flash_session_desc *desc);
/* m must outlive the session. desc is copied. */
FLASH_API flash_status flash_session_create(flash_session **out, const flash_model *m,
                                            const flash_session_desc *desc);
FLASH_API void         flash_session_free(flash_session *s); /* NULL is fine */
/* Queues tokens. FLASH_E_RANGE if the context has no room for all (then none is queued),
   FLASH_E_ARGUMENT for ids outside the vocabulary. */
FLASH_API flash_status flash_session_feed(flash_session *s, const int32_t *ids, size_t n);
/* Tokenises (NUL-terminated text) and queues; BOS only at position 0. */
FLASH_API flash_status flash_session_feed_text(flash_session *s, const char *text, unsigned flags);
/* Works on queued tokens. FLASH_OK: the queue is empty and the last token's logits are there.
   FLASH_MORE: call again. FLASH_E_CANCELLED: as FLASH_MORE, what was finished stays. budget NULL:
   no limit. Allocates nothing. */
FLASH_API flash_status flash_session_step(flash_session *s, const flash_budget *budget);
/* One token of text: step, sample, queue. FLASH_OK: *piece is there; FLASH_MORE: the budget went
   into the prompt; FLASH_END_OF_TEXT; FLASH_E_RANGE: context full. At position 0 with an empty
   queue it begins with BOS. */
FLASH_API flash_status flash_session_next(flash_session *s, const flash_budget *budget,
                                          flash_piece *piece);
/* Samples from the current logits without queueing; -1 if there are none. Advances the random
   numbers. */
FLASH_API int32_t      flash_session_sample(flash_session *s);
/* [V] f32, of the last token worked on; owned by s, valid until the next step. NULL before the
   first step and while tokens are queued (as after flash_session_next). */
FLASH_API const float *flash_session_logits(const flash_session *s);
/* With all_logits: [n,V] of the chunk just worked on, whose first token is at position *first. NULL
   if there is none. */
FLASH_API const float *flash_session_chunk_logits(const flash_session *s, int *first, int *n);
FLASH_API int          flash_session_position(const flash_session *s); /* tokens worked on */
/* tokens queued, not yet worked on */
FLASH_API int          flash_session_pending(const flash_session *s);
FLASH_API int          flash_session_capacity(const flash_session *s); /* n_ctx */
/* [position + pending] tokens so far; owned by s. */
FLASH_API const int32_t *flash_session_tokens(const flash_session *s);
/* Forgets everything from position on, queue included. FLASH_E_ARGUMENT if position is not in [0,
   flash_session_position]. FLASH_E_RANGE, nothing changed, if a layer no longer has what it needs
   to go on from there: one with a window may go back by chunk positions at least from the furthest
   there was since 0 (a chunk under way included), one with a convolution only to 0. Logits are gone
   until the next step. */
FLASH_API flash_status flash_session_truncate(flash_session *s, int position);
/* As created: position 0, random numbers from the seed. */
FLASH_API void         flash_session_reset(flash_session *s);
/* From any thread: the running (or next) step returns FLASH_E_CANCELLED between two layers. */
FLASH_API void         flash_session_cancel(flash_session *s);
/* Replaces the sampler; random numbers start anew from its seed. No stop string may be longer than
   the longest at creation. */
FLASH_API flash_status flash_session_sampler(flash_session *s, const flash_sampler *sampler);

/* ===== >>api-latency ====================================================== */

/* How fast a model would be on a device, without building it: shapes are measured with made-up
   weights; from those measurements any other shape is predicted, with an interval. */

/* One shape at work. */
typedef struct flash_workload {
    const flash_arch *arch;     /* the caller's                                              */
    flash_type weights, kv;     /* of all matrices; of keys and values                       */
    int        threads, chunk;  /* 0: 1 and 256, as in flash_session_desc                    */
    int        prompt;          /* tokens read at once: prefill                              */
    int        position;        /* of a token written: decode                                */
} flash_workload;

/* What one workload took. 0: not measured. */
typedef struct flash_timing {
    double prefill;             /* of the prompt [s], to the first token after it            */
    double decode;              /* of one token [s]                                          */
} flash_timing;

enum { FLASH_LATENCY_POINTS_MAX = 2048, FLASH_LATENCY_REPEATS_MAX = 64 };

typedef struct flash_measure_desc {
    /* after the warm-up; 0: 5, at most FLASH_LATENCY_REPEATS_MAX */
    int        repeats;
    /* written in each of them, all at the position; 0: 8, at most 4096 */
    int        tokens;
    /* of the machine; FLASH_E_UNSUPPORTED if this processor lacks it */
    flash_isa  isa;
    /* its clock is the one that measures (NULL: the system's) */
    flash_host host;
} flash_measure_desc;

typedef struct flash_measurement {
    int          n;                                /* repeats                            */
    flash_timing each[FLASH_LATENCY_REPEATS_MAX];  /* [n], as they came; decode: the mean
                                                      of the tokens                      */
    flash_timing median;
    flash_timing spread;                           /* (largest - least)/median           */
} flash_measurement;

/* Operations (2 a product) of n tokens after `from` others: matrices, scores and values, and the
   head once; 0 if the shape is out of range. */
FLASH_API double       flash_arch_flops(const flash_arch *a, int from, int n);
/* Bytes that flash_latency_measure acquires: the weights, and a session. desc may be NULL, here and
   below. 0, and why in err, if the shape is out of range, fits no blocks of the weight type, or the
   type is one that is only read (MXFP4). */
FLASH_API size_t       flash_latency_memory(const flash_workload *work,
                                            const flash_measure_desc *desc, flash_error *err);
/* Times the runtime itself on made-up weights of the true sizes: repeats of the prompt (prompt 0:
   none), then of single tokens at the position, after a warm-up of one chunk. Takes as long as
   that. FLASH_E_ARGUMENT as for flash_latency_memory, before anything is
   acquired; FLASH_E_UNSUPPORTED without a clock. */
FLASH_API flash_status flash_latency_measure(flash_measurement *out, const flash_workload *work,
                                             const flash_measure_desc *desc, flash_error *err);

/* A time [s] and the interval that nine of ten measurements fall into. */
typedef struct flash_interval { double mean, lo, hi; } flash_interval;

typedef struct flash_latency flash_latency; /* opaque, read-only: any number of threads */

/* Fits a model to n measurements, at most FLASH_LATENCY_POINTS_MAX: for prefill and decode each the
   work and traffic of a shape times constants of the device (least squares of relative errors, none
   below 0), and a Gaussian process on what is left of the logarithm. FLASH_E_ARGUMENT for shapes
   out of range, times below 0 or not finite, fewer than 8 of a kind that was measured. Keeps about
   8 n (n + 16) bytes for each of the two, and takes 24 n (n + 16) more while it works, which is
   n^3 operations a step. host may be NULL. */
FLASH_API flash_status flash_latency_fit(flash_latency **out, const flash_workload *work,
                                         const flash_timing *time, size_t n,
                                         const flash_host *host, flash_error *err);
FLASH_API void         flash_latency_free(flash_latency *l); /* NULL is fine */
/* Mean relative errors of measurements predicted each from all others, with the constants and
   length scales of the whole (which flatters a little: to quote figures, fit anew without them).
   0: not measured. */
FLASH_API void         flash_latency_errors(const flash_latency *l, double *prefill,
                                            double *decode);
/* The model as text: lines of ASCII, the same bits on every machine. text: [cap], may be NULL with
   cap 0; returns the bytes it takes, which were all written if that is at most cap. */
FLASH_API size_t       flash_latency_save(const flash_latency *l, char *text, size_t cap);
/* Back from text: [bytes]; lines that begin with # are the caller's. FLASH_E_FORMAT for what is no
   such text, FLASH_E_TRUNCATED if it ends early; predictions have the same bits as before. The time
   is that of a Cholesky factorisation of the measurements (n^3/3 operations). host may be NULL. */
FLASH_API flash_status flash_latency_load(flash_latency **out, const char *text, size_t bytes,
                                          const flash_host *host, flash_error *err);
/* Predicts; either result may be NULL. Allocates nothing. FLASH_E_UNSUPPORTED if nothing with these
   types, threads and chunk was measured, or none of the phase. */
FLASH_API flash_status flash_latency_predict(const flash_latency *l, const flash_workload *work,
                                             flash_interval *prefill, flash_interval *decode);

/* ===== >>api-low ========================================================== */

/* Best set usable here: compiled in, in the processor, and enabled by the operating system (Linux
   is asked to let the process use AMX tiles where there are any). */
FLASH_API flash_isa   flash_isa_best(void);
/* "scalar", ...; "unknown". Static. */
FLASH_API const char *flash_isa_name(flash_isa isa);
/* FLASH_ISA_COUNT if there is none of that name. */
FLASH_API flash_isa   flash_isa_parse(const char *name);
/* A row of n weights as f32. src: [flash_row_bytes(t, n)] as in files, any alignment.
   FLASH_E_ARGUMENT if n does not fit. */
FLASH_API flash_status flash_dequantize(flash_type t, const void *src, float *dst, size_t n);
/* A row of n floats as weights of type t. dst: [flash_row_bytes(t, n)], any alignment. In types
   with blocks NaN becomes 0, and a weight beyond float16 its largest number. FLASH_E_ARGUMENT if n
   does not fit, and for MXFP4, which is only read. */
FLASH_API flash_status flash_quantize(flash_type t, const float *src, void *dst, size_t n);
/* y[r] = row r of w times x, with activations quantised to int8 where w is quantised: the product
   sessions use. w: [rows,n] of type t; x: [n]; y: [rows]; work: [flash_dot_work(n)] bytes, any
   alignment. */
FLASH_API size_t       flash_dot_work(size_t n);
FLASH_API flash_status flash_dot_rows(flash_type t, const void *w, size_t rows, size_t n,
                                      const float *x, float *y, void *work, flash_isa isa);
/* A processor's limits, for benchmarks. spin: `rounds` turns of int8 multiply-adds in registers;
   returns the operations done (2 a product), 0 if isa is not available. read: reads bytes (a
   multiple of 256) with wide loads; returns a sum. */
FLASH_API double   flash_isa_spin(flash_isa isa, int rounds);
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

#if defined(__INTELLISENSE__) || defined(__JETBRAINS_IDE__)
#  define FLASH_IMPLEMENTATION /* so that editors show the implementation in colour */
#endif

#if defined(FLASH_IMPLEMENTATION) || defined(FLASH_RUNTIME_IMPLEMENTATION) \
    || defined(FLASH_LATENCY_IMPLEMENTATION)
#ifndef FLASH__IMPLEMENTED
#define FLASH__IMPLEMENTED

#if defined(FLASH_IMPLEMENTATION) || defined(FLASH_LATENCY_IMPLEMENTATION)
#  define FLASH__LATENCY
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

#if defined(FLASH_NO_STDIO)
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
#if defined(__unix__) || defined(__APPLE__)
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
#if !defined(FLASH_NO_SIMD) && !defined(__TINYC__)
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

#ifdef __cplusplus
extern "C" {
#endif

/* ===== >>base ============================================================= */

/* Small tools that every section uses. Sizes computed from input go through flash__mul and
   flash__add; bytes from files through the flash__rd functions, which are right on every machine
   and compile to one load. */

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
    if (b && a > SIZE_MAX/b) return 0;
    *out = a*b;
    return 1;
}

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
    p[0] = (uint8_t)v; p[1] = (uint8_t)(v >> 8); p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}
static void flash__wr64(uint8_t *p, uint64_t v)
{
    flash__wr32(p, (uint32_t)v); flash__wr32(p + 4, (uint32_t)(v >> 32));
}
static float flash__bits_f32(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static uint32_t flash__f32_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static double flash__bits_f64(uint64_t u) { double d; memcpy(&d, &u, 8); return d; }
static uint64_t flash__f64_bits(double d) { uint64_t u; memcpy(&u, &d, 8); return u; }
static float flash__rdf32(const uint8_t *p) { return flash__bits_f32(flash__rd32(p)); }

/* Hands out 64-byte aligned pieces of one block in a fixed order. With base NULL it only counts, so
   the same plan function says how much an object takes and carves it. used is SIZE_MAX after an
   overflow. */
typedef struct flash__arena { uint8_t *base; size_t used; } flash__arena;

static void *flash__take(flash__arena *a, size_t count, size_t item)
{
    size_t bytes, at = a->used;
    if (at == SIZE_MAX || !flash__mul(&bytes, count, item) || bytes > SIZE_MAX - 127
        || at > SIZE_MAX - 64 - bytes) { a->used = SIZE_MAX; return NULL; }
    a->used = at + ((bytes + 63) & ~(size_t)63);
    return a->base ? a->base + at : NULL;
}

/* Blocks of libc are aligned by hand: 64 bytes more, the true address just before the block. */
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
    if (a->acquire) { a->release(a->user, ptr, bytes); return; }
    memcpy(&raw, (uint8_t *)ptr - sizeof raw, sizeof raw);
    FLASH_FREE(raw);
}

static char *flash__put(char *p, char *end, const char *text, size_t n)
{
    size_t i;
    for (i = 0; i < n && p < end; i++) {
        unsigned char c = (unsigned char)text[i];
        *p++ = c < 32 || c > 126 ? '?' : (char)c; /* names come from files: one line, no escapes */
    }
    return p;
}

static char *flash__format(char *p, char *end, const char *format, va_list args)
{
    char digits[24];
    for (; *format; format++) {
        const char *s;
        uint64_t u;
        int n = 24;
        if (*format != '%') { p = flash__put(p, end, format, 1); continue; }
        switch (*++format) {
        case 's': s = va_arg(args, const char *); p = flash__put(p, end, s, strlen(s)); break;
        case 't': s = va_arg(args, const char *); p = flash__put(p, end, s, va_arg(args, size_t));
        break;
        default: /* 'i', 'u' */
            if (*format == 'i') {
                int v = va_arg(args, int);
                if (v < 0) p = flash__put(p, end, "-", 1);
                u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
            } else u = va_arg(args, uint64_t);
            do digits[--n] = (char)('0' + u % 10); while ((u /= 10) != 0);
            p = flash__put(p, end, digits + n, (size_t)(24 - n));
        }
    }
    *p = 0;
    return p;
}

/* Fills err (if any) and returns status. %s text, %t text and its size_t, %i int, %u uint64_t. */
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

/* Heap sort: in place, no recursion, n log n on any input. less(ctx, a, b): a comes before b. */
static void flash__sort(uint32_t *a, size_t n, int (*less)(const void *ctx, uint32_t a,
                                                           uint32_t b), const void *ctx)
{
    size_t root = n/2, child, end = n;
    while (end > 1) {
        uint32_t v;
        size_t hole;
        if (root) v = a[--root];
        else { v = a[--end]; a[end] = a[0]; }
        for (hole = root; (child = 2*hole + 1) < end; hole = child) {
            if (child + 1 < end && less(ctx, a[child], a[child + 1])) child++;
            if (!less(ctx, v, a[child])) break;
            a[hole] = a[child];
        }
        a[hole] = v;
    }
}

/* Order of two counted texts, as memcmp: bytes first, then length. */
static int flash__compare(const void *a, size_t na, const void *b, size_t nb)
{
    int c = memcmp(a, b, FLASH__MIN(na, nb));
    return c ? c : na < nb ? -1 : na > nb;
}

/* Smallest power of two >= n. */
static size_t flash__pow2(size_t n)
{
    size_t p = 1;
    while (p < n) p <<= 1;
    return p;
}

static int flash__lower(int c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }
static int flash__same_word(const char *a, const char *b) /* ignoring ASCII case */
{
    while (*a && flash__lower((unsigned char)*a) == flash__lower((unsigned char)*b)) { a++; b++; }
    return !*a && !*b;
}

/* SplitMix64 (Steele, Lea, Flood 2014): 64 random bits from a counter. */
static uint64_t flash__random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30)*0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27)*0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ===== >>os =============================================================== */

/* A whole file as bytes: the caller's own, mapped, or read into acquired memory. */

enum { FLASH__FILE_CALLER, FLASH__FILE_MAPPED, FLASH__FILE_ACQUIRED };
typedef struct flash__file { const uint8_t *data; size_t size; int how; } flash__file;

static void flash__file_close(flash__file *f, const flash_host *host)
{
    void *p;
    memcpy(&p, &f->data, sizeof p);
    if (f->how == FLASH__FILE_ACQUIRED) flash__release(&host->allocator, p, f->size);
#if defined(FLASH__FILE_MMAP)
    else if (f->how == FLASH__FILE_MAPPED) munmap(p, f->size);
#elif defined(FLASH__FILE_WIN32)
    else if (f->how == FLASH__FILE_MAPPED) UnmapViewOfFile(p);
#endif
    memset(f, 0, sizeof *f);
}

static flash_status flash__file_acquire(flash__file *f, uint64_t size, const flash_host *host,
                                        flash_error *err,
                                        uint8_t **buffer)
{
    if (!size) return flash__fail(err, FLASH_E_TRUNCATED, 0, "the file is empty");
    if (size > SIZE_MAX)
        return flash__fail(err, FLASH_E_TOO_LARGE, 0, "file of %u bytes: more than this machine "
                                            "can address", size);
    *buffer = (uint8_t *)flash__acquire(&host->allocator, (size_t)size);
    if (!*buffer) return flash__fail(err, FLASH_E_MEMORY, 0,
                                     "no memory to read a file of %u bytes", size);
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
    if (fd < 0) return flash__fail(err, FLASH_E_IO, 0,
                                   "%s: cannot be opened: check path and permission", path);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return flash__fail(err, FLASH_E_IO, 0, "%s: not a file", path);
    }
    if (st.st_size <= 0 || (uint64_t)st.st_size > SIZE_MAX/2) {
        close(fd);
        return flash__fail(err, st.st_size > 0 ? FLASH_E_TOO_LARGE : FLASH_E_TRUNCATED, 0,
                           st.st_size > 0 ? "%s: too large for this machine"
                               : "%s: the file is empty", path);
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
    if (!GetFileSizeEx(file, &size) || size.QuadPart <= 0 || (uint64_t)size.QuadPart > SIZE_MAX/2) {
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
    if (!in) return flash__fail(err, FLASH_E_IO, 0,
                                "%s: cannot be opened: check path and permission", path);
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
    (void)f; (void)host;
    return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                       "%s: built with FLASH_NO_STDIO: give data or read", path);
}
#endif

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

/* Seconds of the host's clock, or the system's; 0 where there is none. */
static double flash__clock(const flash_host *host)
{
    if (host->clock) return host->clock(host->user);
#if defined(_WIN32) && defined(FLASH__FILE_WIN32)
    {
        LARGE_INTEGER t, f;
        QueryPerformanceCounter(&t);
        QueryPerformanceFrequency(&f);
        return (double)t.QuadPart/(double)f.QuadPart;
    }
#elif defined(CLOCK_MONOTONIC)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + 1e-9*(double)t.tv_nsec;
    }
#else
    return 0;
#endif
}

/* ===== >>threads ========================================================== */

/* One job at a time, done by the caller and whoever else turns up: workers enter a job by taking a
   number, the caller never waits for one that has not entered. So a machine with fewer processors
   than threads loses nothing, and the work is done with any subset of workers, even none. Idle
   workers spin for some 50 microseconds, then sleep. */

typedef void (*flash__task)(void *ctx, int index);

#if defined(FLASH__ATOMIC_GNU)
static int  flash__add(volatile int *p, int n) { return __atomic_fetch_add(p, n,
        __ATOMIC_ACQ_REL); }
#elif defined(FLASH__ATOMIC_MSVC)
static int  flash__add(volatile int *p,
                       int n) { return (int)_InterlockedExchangeAdd((volatile long *)p, n); }
#else
static int  flash__add(volatile int *p, int n) { int v = *p; *p = v + n; return v; }
#endif

#if defined(FLASH__THREADS_POSIX)
typedef pthread_t       flash__thread;
typedef pthread_mutex_t flash__mutex;
typedef pthread_cond_t  flash__cond;
static void flash__mutex_make(flash__mutex *m) { pthread_mutex_init(m, NULL); }
static void flash__mutex_end(flash__mutex *m)  { pthread_mutex_destroy(m); }
static void flash__lock(flash__mutex *m)       { pthread_mutex_lock(m); }
static void flash__unlock(flash__mutex *m)     { pthread_mutex_unlock(m); }
static void flash__cond_make(flash__cond *c)   { pthread_cond_init(c, NULL); }
static void flash__cond_end(flash__cond *c)    { pthread_cond_destroy(c); }
static void flash__wait(flash__cond *c, flash__mutex *m) { pthread_cond_wait(c, m); }
static void flash__wake(flash__cond *c)        { pthread_cond_broadcast(c); }
#define FLASH__THREAD_RESULT void *
static int  flash__thread_start(flash__thread *t, void *(*run)(void *), void *arg)
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
typedef HANDLE             flash__thread;
typedef SRWLOCK            flash__mutex;
typedef CONDITION_VARIABLE flash__cond;
static void flash__mutex_make(flash__mutex *m) { InitializeSRWLock(m); }
static void flash__mutex_end(flash__mutex *m)  { (void)m; }
static void flash__lock(flash__mutex *m)       { AcquireSRWLockExclusive(m); }
static void flash__unlock(flash__mutex *m)     { ReleaseSRWLockExclusive(m); }
static void flash__cond_make(flash__cond *c)   { InitializeConditionVariable(c); }
static void flash__cond_end(flash__cond *c)    { (void)c; }
static void flash__wait(flash__cond *c, flash__mutex *m) { SleepConditionVariableSRW(c, m,
        INFINITE, 0); }
static void flash__wake(flash__cond *c)        { WakeAllConditionVariable(c); }
#define FLASH__THREAD_RESULT DWORD WINAPI
static int  flash__thread_start(flash__thread *t, DWORD (WINAPI *run)(void *), void *arg)
{
    return (*t = CreateThread(NULL, 0, run, arg, 0, NULL)) != NULL;
}
static void flash__thread_join(flash__thread t) { WaitForSingleObject(t,
                                                                      INFINITE); CloseHandle(t); }
static int flash__processors(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (int)info.dwNumberOfProcessors;
}
#endif

#ifdef FLASH__THREADS
#if defined(FLASH__ATOMIC_GNU)
static int flash__get(volatile int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
#else
static int flash__get(volatile int *p) { return flash__add(p, 0); }
#endif

typedef struct flash__pool {
    flash__mutex lock;
    flash__cond  work, done;
    flash__task  task;
    void        *ctx;
    volatile int turn, stop;              /* turn: counts jobs                              */
    int          next, tasks, inside, asleep, n;
    flash__thread thread[FLASH_THREADS_MAX];
} flash__pool;

static FLASH__THREAD_RESULT flash__pool_worker(void *arg)
{
    flash__pool *p = (flash__pool *)arg;
    int seen = 0, spins;
    for (;;) {
        for (spins = 0; spins < 4000 && flash__get(&p->turn) == seen
             && !flash__get(&p->stop); spins++) FLASH__PAUSE();
        flash__lock(&p->lock);
        while (p->turn == seen && !p->stop) {
            p->asleep++;
            flash__wait(&p->work, &p->lock);
            p->asleep--;
        }
        seen = p->turn;
        while (p->next < p->tasks) {
            int index = p->next++;
            p->inside++;
            flash__unlock(&p->lock);
            p->task(p->ctx, index);
            flash__lock(&p->lock);
            if (!--p->inside) flash__wake(&p->done);
        }
        if (p->stop) break;
        flash__unlock(&p->lock);
    }
    flash__unlock(&p->lock);
    return 0;
}

/* Runs task for indices [0, tasks): 0 here, the others wherever a worker is awake, the rest
   here. */
static void flash__pool_run(flash__pool *p, int tasks, flash__task task, void *ctx)
{
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
    /* the work is done: tasks pick their share until none is left, so late ones need not start */
    p->tasks = 0;
    while (p->inside) flash__wait(&p->done, &p->lock);
    flash__unlock(&p->lock);
}

/* Starts n workers; fewer if the system gives fewer, and none beyond its processors: they would
   only take time from each other. */
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
    p->stop = 1;
    flash__wake(&p->work);
    flash__unlock(&p->lock);
    while (p->n) flash__thread_join(p->thread[--p->n]);
    flash__cond_end(&p->work);
    flash__cond_end(&p->done);
    flash__mutex_end(&p->lock);
}
#else
typedef struct flash__pool { int n; } flash__pool;
static void flash__pool_run(flash__pool *p, int tasks, flash__task task,
                            void *ctx) { (void)p; (void)tasks; task(ctx, 0); }
static void flash__pool_start(flash__pool *p, int n) { (void)n; p->n = 0; }
static void flash__pool_end(flash__pool *p) { (void)p; }
#endif

/* ===== >>cpu ============================================================== */

/* What this processor can run: compiled in, in the processor, and enabled by the operating system
   (cpuid is half of it; xgetbv tells whether wide registers are saved). Asked anew each time:
   nothing is cached, nothing global. */

#ifdef FLASH__X86
#if defined(_MSC_VER) && !defined(__clang__)
static void flash__cpuid(int leaf, int sub, int r[4]) { __cpuidex(r, leaf, sub); }
static uint64_t flash__xcr0(void) { return _xgetbv(0); }
#else
static void flash__cpuid(int leaf, int sub, int r[4])
{
    __asm__ volatile ("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf),
                      "c"(sub));
}
static uint64_t flash__xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile (".byte 0x0f, 0x01, 0xd0" : "=a"(lo), "=d"(hi) : "c"(0)); /* xgetbv */
    return (uint64_t)hi << 32 | lo;
}
#endif

/* 1 if this process may use tiles: Linux wants to be asked (arch_prctl ARCH_REQ_XCOMP_PERM for
   XFEATURE_XTILEDATA; Documentation/arch/x86/xstate.rst), as often as one likes. */
static int flash__amx_granted(void)
{
#ifdef FLASH__AMX
    long r = 158;
    __asm__ volatile ("syscall" : "+a"(r) : "D"(0x1023L), "S"(18L) : "rcx", "r11", "memory");
    return r == 0;
#else
    return 0;
#endif
}

/* A bit, 1 << flash_isa, for each set usable here. */
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
        || !(ebx7 >> 31 & 1) || !(ecx7 >> 11 & 1)) return sets;
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
/* i8mm counts only where dotprod is too. */
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
#  ifdef __ARM_FEATURE_DOTPROD
    dot = 1;
#  endif
#  ifdef __ARM_FEATURE_MATMUL_INT8
    i8 = 1;
#  endif
#endif
    return 1u << FLASH_ISA_SCALAR | 1u << FLASH_ISA_NEON
        | (unsigned)dot << FLASH_ISA_NEON_DOTPROD | (unsigned)(dot && i8) << FLASH_ISA_NEON_I8MM;
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
#  define FLASH__SETS "scalar sse41 avx2 avxvnni avx512 amx"
#elif defined(FLASH__NEON)
#  define FLASH__SETS "scalar neon neon-dotprod neon-i8mm"
#elif defined(FLASH__WASM)
#  define FLASH__SETS "scalar wasm"
#else
#  define FLASH__SETS "scalar"
#endif
#if defined(FLASH__FILE_MMAP) || defined(FLASH__FILE_WIN32)
    return "flash.h 0.1.0, " FLASH__SETS ", mapped files";
#elif defined(FLASH__FILE_STDIO)
    return "flash.h 0.1.0, " FLASH__SETS ", stdio files";
#else
    return "flash.h 0.1.0, " FLASH__SETS ", no files";
#endif
}

/* ===== >>numbers ========================================================== */

/* Conversions and functions with the same bits everywhere: only +, -, *, / and bit operations, each
   rounded once. Accuracy, measured in tests/test_quant.c against libm: expf 2 ulp; the double ones
   4e-15 relative. */

static float flash__f16_f32(uint32_t h)
{
    uint32_t sign = (h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
    if (e == 31) return flash__bits_f32(sign | 0x7f800000 | m << 13);
    if (e) return flash__bits_f32(sign | (e + 112) << 23 | m << 13);
    return flash__bits_f32(sign | flash__f32_bits((float)m*5.9604644775390625e-8f)); /* m * 2^-24 */
}

/* Nearest, ties to even; NaN stays NaN. */
static uint16_t flash__f32_f16(float f)
{
    uint32_t u = flash__f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff, r;
    if (a >= 0x7f800000)
        return (uint16_t)(sign | 0x7c00 | (a > 0x7f800000 ? 0x200 | (a >> 13 & 0x3ff) : 0));
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00);        /* rounds past 65504 */
    /* below 2^-14: subnormal, by a float add */
    if (a < 0x38800000) {
        float x = flash__bits_f32(a) + 0.5f;                      /* 0.5 has an ulp of 2^-24 */
        return (uint16_t)(sign | (flash__f32_bits(x) - 0x3f000000));
    }
    r = a - 0x38000000;
    r += 0xfff + (r >> 13 & 1);
    return (uint16_t)(sign | r >> 13);
}

static float flash__bf16_f32(uint32_t h) { return flash__bits_f32(h << 16); }

/* Nearest integer, ties to even, for |x| < 2^22. */
static float flash__round(float x)
{
    FLASH__FLOAT y = x + 12582912.0f;
    return y - 12582912.0f;
}

/* e^x. Polynomial of Cephes expf (Moshier); x is held in [-87.3, 88]. */
static float flash__expf(float x)
{
    float n, r, p;
    x = x < 88.0f ? x : 88.0f; /* in this form NaN becomes 88, as the SIMD minimum has it */
    x = x > -87.3f ? x : -87.3f;
    n = flash__round(x*1.44269504088896341f);
    r = x - n*0.693359375f;
    r = r - n*-2.12194440e-4f;
    p = 1.9875691500e-4f*r + 1.3981999507e-3f;
    p = p*r + 8.3334519073e-3f;
    p = p*r + 4.1665795894e-2f;
    p = p*r + 1.6666665459e-1f;
    p = p*r + 5.0000001201e-1f;
    p = p*(r*r) + r;
    p = p + 1.0f;
    return p*flash__bits_f32((uint32_t)((int32_t)n + 127) << 23);
}

/* e^x for x in [-700, 700]: 2^n times a Taylor sum on [-ln 2/2, ln 2/2]. */
static double flash__exp(double x)
{
    double n, r, p = 1;
    int i;
    if (!(x > -700)) return 0;
    if (x > 700) x = 700;
    n = floor(x*1.4426950408889634 + 0.5);
    r = x - n*6.93147180369123816490e-01;
    r = r - n*1.90821492927058770002e-10;
    for (i = 14; i > 0; i--) p = p*r/i + 1;
    return p*flash__bits_f64((uint64_t)((int64_t)n + 1023) << 52);
}

/* Natural logarithm of a normal x > 0: 2 artanh((m-1)/(m+1)) of the mantissa. */
static double flash__log(double x)
{
    uint64_t u = flash__f64_bits(x);
    double e = (double)((int)(u >> 52 & 2047) - 1023), m, t, t2, s = 0;
    int i;
    m = flash__bits_f64((u & 0xfffffffffffffu) | 0x3ff0000000000000u);
    if (m > 1.4142135623730951) { m *= 0.5; e += 1; }
    t = (m - 1)/(m + 1);
    t2 = t*t;
    for (i = 23; i > 0; i -= 2) s = s*t2 + 1.0/i;
    return 2*t*s + e*0.69314718055994530942;
}

/* cos and sin for |x| < 2^20: Cody-Waite reduction by pi/2 in three parts, Taylor sums. */
static void flash__cos_sin(double x, double *c, double *s)
{
    double n = floor(x*0.63661977236758134308 + 0.5), r, r2, a = 1, b = 1;
    int i;
    r = x - n*1.57079632673412561417e+00;
    r = r - n*6.07710050630396597660e-11;
    r = r - n*2.02226624879595063154e-21;
    r2 = r*r;
    for (i = 18; i > 0; i -= 2) { a = 1 - a*r2/(i*(i - 1)); b = 1 - b*r2/(i*(i + 1)); }
    b *= r;
    switch ((int)((int64_t)n & 3)) {
    case 0:  *c =  a; *s =  b; break;
    case 1:  *c = -b; *s =  a; break;
    case 2:  *c = -a; *s = -b; break;
    default: *c =  b; *s = -a;
    }
}

/* ===== >>gp =============================================================== */

/* Gaussian-process regression in double: the surrogate of the latency model and of the search.
   Formulas: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapters 2 and 5;
   kernel Matern 5/2 with a length scale for each input, categories compared instead of subtracted.
   Matrices are row-major; triangles are walked along rows, so that every inner loop is a dot
   product of contiguous memory with the same four chains of sums everywhere. KNOWN TRAPS: the
   derivative by a distance is finite at 0 only if taken by its square; equal points need noise. */

#ifdef FLASH__LATENCY
enum { FLASH__GP_INPUTS = 40, FLASH__GP_THETA = FLASH__GP_INPUTS + 2, FLASH__LBFGS = 8 };

static double flash__dot64(const double *a, const double *b, size_t n)
{
    double s[4] = { 0, 0, 0, 0 };
    size_t i;
    for (i = 0; i + 4 <= n; i += 4) {
        s[0] += a[i]*b[i];
        s[1] += a[i + 1]*b[i + 1];
        s[2] += a[i + 2]*b[i + 2];
        s[3] += a[i + 3]*b[i + 3];
    }
    for (; i < n; i++) s[i & 3] += a[i]*b[i];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* The lower factor of a symmetric matrix, in place of its lower triangle; 0: not positive
   definite. */
static int flash__cholesky(double *a, size_t n)
{
    size_t i, j;
    for (i = 0; i < n; i++) {
        double *row = a + i*n, s;
        for (j = 0; j < i; j++) row[j] = (row[j] - flash__dot64(row, a + j*n, j))/a[j*n + j];
        s = row[i] - flash__dot64(row, row, i);
        if (!(s > 0)) return 0; /* NaN too */
        row[i] = sqrt(s);
    }
    return 1;
}

/* x = L^-1 x, then, from there, x = L'^-1 x. */
static void flash__solve_lower(const double *L, double *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) x[i] = (x[i] - flash__dot64(L + i*n, x, i))/L[i*n + i];
}
static void flash__solve_upper(const double *L, double *x, size_t n)
{
    size_t i, k;
    for (i = n; i-- > 0;) {
        x[i] /= L[i*n + i];
        for (k = 0; k < i; k++) x[k] -= L[i*n + k]*x[i];
    }
}

/* The inverse of L L' from L. rows: [n,n] work, whose row i is column i of L^-1. */
static void flash__inverse(const double *L, double *rows, double *out, size_t n)
{
    size_t i, j;
    for (i = 0; i < n; i++) {
        double *x = rows + i*n;
        x[i] = 1/L[i*n + i];
        for (j = i + 1; j < n; j++) x[j] = -flash__dot64(L + j*n + i, x + i, j - i)/L[j*n + j];
    }
    for (i = 0; i < n; i++)
        for (j = 0; j <= i; j++)
            out[i*n + j] = out[j*n + i] = flash__dot64(rows + i*n + i, rows + j*n + i, n - i);
}

/* f(x) and its gradient g [n]. */
typedef double flash__function(void *ctx, const double *x, double *g);

/* Lowers f from x within [lo, hi]: L-BFGS (Nocedal and Wright 2006, algorithm 7.4) with steps cut
   at the bounds and halved until they lower f enough. Returns f(x). */
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
        for (i = 0; i < n; i++) /* what a bound holds stays */
            d[i] = (x[i] <= lo[i] && g[i] > 0) || (x[i] >= hi[i] && g[i] < 0) ? 0 : -g[i];
        if (!(flash__dot64(d, d, m) > 1e-14)) break;
        for (k = 1; k <= used; k++) {
            int p = (pairs - k)%FLASH__LBFGS;
            a[p] = rho[p]*flash__dot64(s[p], d, m);
            for (i = 0; i < n; i++) d[i] -= a[p]*y[p][i];
        }
        if (used) {
            int p = (pairs - 1)%FLASH__LBFGS;
            scale = 1/(rho[p]*flash__dot64(y[p], y[p], m));
            for (i = 0; i < n; i++) d[i] *= scale;
        }
        for (k = used; k >= 1; k--) {
            int p = (pairs - k)%FLASH__LBFGS;
            v = rho[p]*flash__dot64(y[p], d, m);
            for (i = 0; i < n; i++) d[i] += (a[p] - v)*s[p][i];
        }
        if (!(flash__dot64(d, g, m) < 0)) { /* not downhill any more: begin anew */
            if (!pairs) break;
            pairs = 0;
            continue;
        }
        for (i = 0, v = 0; i < n; i++) v = FLASH__MAX(v, d[i] < 0 ? -d[i] : d[i]);
        step = v > 2 ? 2/v : used ? 1 : FLASH__MIN(1, 0.5/v);
        for (halvings = 0; halvings < 30; halvings++, step *= 0.5) {
            double better, moved = 0;
            for (i = 0; i < n; i++) {
                next[i] = FLASH__MIN(FLASH__MAX(x[i] + step*d[i], lo[i]), hi[i]);
                moved += g[i]*(next[i] - x[i]);
            }
            better = f(ctx, next, g_next);
            if (better <= value + 1e-4*moved && better <= value) {
                int p = pairs%FLASH__LBFGS, done = value - better <= 1e-10*(1 + fabs(value));
                for (i = 0; i < n; i++) {
                    s[p][i] = next[i] - x[i];
                    y[p][i] = g_next[i] - g[i];
                    x[i] = next[i];
                    g[i] = g_next[i];
                }
                v = flash__dot64(s[p], y[p], m);
                if (v > 1e-12) { rho[p] = 1/v; pairs++; }
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

/* n points of d inputs, of which the last `categories` are compared. theta: logs of the length
   scales, of the signal's variance and of the noise's. Memory is the caller's. */
typedef struct flash__gp {
    size_t n;
    int d, categories, priors;
    double *x, *y;           /* [n,d], [n]                                                  */
    double *L, *inverse, *rows; /* [n,n]: factor of A = K + noise; A^-1; work                 */
    double *alpha, *k;       /* [n] A^-1 y; [n] work                                        */
    double theta[FLASH__GP_THETA];
    double lml;              /* log marginal likelihood at theta                            */
} flash__gp;

/* Carves a process of n points; predict: 1 for what prediction needs alone. */
static void flash__gp_plan(flash__gp *g, size_t n, int d, int categories, int predict,
                           flash__arena *a)
{
    size_t square = 0;
    if (!flash__mul(&square, n, n)) square = SIZE_MAX; /* which flash__take refuses */
    g->n = n;
    g->d = d;
    g->categories = categories;
    g->x = (double *)flash__take(a, n, (size_t)d*sizeof *g->x);
    g->y = (double *)flash__take(a, n, sizeof *g->y);
    g->L = (double *)flash__take(a, square, sizeof *g->L);
    g->alpha = (double *)flash__take(a, n, sizeof *g->alpha);
    g->k = (double *)flash__take(a, n, sizeof *g->k);
    g->inverse = predict ? NULL : (double *)flash__take(a, square, sizeof *g->inverse);
    g->rows = predict ? NULL : (double *)flash__take(a, square, sizeof *g->rows);
}

static double flash__gp_apart(const flash__gp *g, const double *a, const double *b, int j)
{
    double v = a[j] - b[j];
    return j >= g->d - g->categories ? v != 0 : v*v;
}

/* sf2 (1 + q + q^2/3) e^-q, q^2 = 5 sum_j D_j/l_j^2. w: [d] 1/l^2. slope: its derivative by r^2. */
static double flash__gp_kernel(const flash__gp *g, const double *w, double sf2, const double *a,
                               const double *b, double *slope)
{
    double r2 = 0, q, e;
    int j;
    for (j = 0; j < g->d; j++) r2 += w[j]*flash__gp_apart(g, a, b, j);
    q = sqrt(5*r2);
    e = sf2*flash__exp(-q);
    *slope = -5.0/6*(1 + q)*e;
    return (1 + q + q*q/3)*e;
}

static double flash__gp_weights(const flash__gp *g, double *w)
{
    int j;
    for (j = 0; j < g->d; j++) w[j] = flash__exp(-2*g->theta[j]);
    return flash__exp(g->theta[g->d]);
}

/* A, its factor and alpha at theta; a diagonal that will not factor is raised little by little.
   0 if nothing helps. */
static int flash__gp_factor(flash__gp *g)
{
    double w[FLASH__GP_INPUTS], sf2 = flash__gp_weights(g, w), slope, jitter = 0,
        noise = flash__exp(g->theta[g->d + 1]), logs = 0;
    size_t n = g->n, i, j;
    for (;;) {
        for (i = 0; i < n; i++) {
            for (j = 0; j < i; j++)
                g->L[i*n + j] = flash__gp_kernel(g, w, sf2, g->x + i*(size_t)g->d,
                                                 g->x + j*(size_t)g->d, &slope);
            g->L[i*n + i] = sf2 + noise + jitter;
        }
        if (flash__cholesky(g->L, n)) break;
        jitter = jitter > 0 ? 10*jitter : 1e-8*(sf2 + noise);
        if (!(jitter <= 1e-3*(sf2 + noise))) return 0;
    }
    memcpy(g->alpha, g->y, n*sizeof *g->alpha);
    flash__solve_lower(g->L, g->alpha, n);
    g->lml = -0.5*flash__dot64(g->alpha, g->alpha, n) - 0.9189385332046727*(double)n;
    for (i = 0; i < n; i++) logs += flash__log(g->L[i*n + i]);
    g->lml -= logs;
    flash__solve_upper(g->L, g->alpha, n);
    return 1;
}

/* d lml/d theta, after flash__gp_factor: half the trace of (alpha alpha' - A^-1) dA. */
static void flash__gp_gradient(flash__gp *g, double *grad)
{
    double w[FLASH__GP_INPUTS], sf2 = flash__gp_weights(g, w), slope, k,
        noise = flash__exp(g->theta[g->d + 1]);
    size_t n = g->n, i, j, d = (size_t)g->d;
    int t;
    flash__inverse(g->L, g->rows, g->inverse, n);
    for (t = 0; t < g->d + 2; t++) grad[t] = 0;
    for (i = 0; i < n; i++) {
        const double *a = g->x + i*d;
        for (j = 0; j < i; j++) {
            const double *b = g->x + j*d;
            double v = g->alpha[i]*g->alpha[j] - g->inverse[i*n + j];
            k = flash__gp_kernel(g, w, sf2, a, b, &slope);
            grad[g->d] += v*k;
            v *= -2*slope;
            for (t = 0; t < g->d; t++) grad[t] += v*w[t]*flash__gp_apart(g, a, b, t);
        }
        k = 0.5*(g->alpha[i]*g->alpha[i] - g->inverse[i*n + i]);
        grad[g->d] += k*sf2;
        grad[g->d + 1] += k*noise;
    }
}

/* What flash__minimise lowers: -lml, and with priors -log of their density in theta: length scales
   that grow with the number of inputs (Hvarfner et al. 2024, arxiv 2402.02229), signal about 1,
   noise about 0.05, both in units of y's variance. */
static double flash__gp_cost(void *ctx, const double *theta, double *grad)
{
    flash__gp *g = (flash__gp *)ctx;
    double cost, v;
    int t, d = g->d;
    memcpy(g->theta, theta, (size_t)(d + 2)*sizeof *theta);
    for (t = 0; t < d + 2; t++) grad[t] = 0;
    if (!flash__gp_factor(g)) return 1e300;
    flash__gp_gradient(g, grad);
    cost = -g->lml;
    for (t = 0; t < d + 2; t++) {
        double middle = t < d ? 1.4142135623730951 + 0.5*flash__log(d) : t == d ? 0 : -3,
            variance = t < d ? 3 : 4;
        v = theta[t] - middle;
        grad[t] = -grad[t] + (g->priors ? v/variance : 0);
        cost += g->priors ? 0.5*v*v/variance : 0;
    }
    return cost;
}

/* Chooses theta from several beginnings and factors there; y should have mean 0 and variance 1.
   Above some hundred points the beginnings are tried on a random part of them, since a look costs
   n^3. Reorders the points. */
static int flash__gp_fit(flash__gp *g, int turns)
{
    double lo[FLASH__GP_THETA], hi[FLASH__GP_THETA], best[FLASH__GP_THETA], theta[FLASH__GP_THETA],
        least = 1e300, cost, v;
    size_t all = g->n, i, j, k;
    uint64_t state = 1;
    int t, start, d = g->d;
    for (i = all; i > 1; i--) {
        j = (size_t)(flash__random(&state) >> 33)%i;
        v = g->y[i - 1]; g->y[i - 1] = g->y[j]; g->y[j] = v;
        for (k = 0; k < (size_t)d; k++) {
            double *a = g->x + (i - 1)*(size_t)d + k, *b = g->x + j*(size_t)d + k;
            v = *a; *a = *b; *b = v;
        }
    }
    g->n = FLASH__MIN(all, 200);
    for (t = 0; t < d + 2; t++) { /* l in [0.02, 3000], variances in [1e-6, 3000] */
        lo[t] = t < d ? -3.9 : -13.8;
        hi[t] = 8;
    }
    for (start = 0; start < 3; start++) {
        for (t = 0; t < d; t++) theta[t] = start == 0 ? 0.5*flash__log(d) : start == 1 ? 3 : -1;
        theta[d] = start == 1 ? -1 : 0;
        theta[d + 1] = start == 2 ? -1 : -4;
        cost = flash__minimise(flash__gp_cost, g, theta, lo, hi, d + 2, turns);
        if (cost < least) { least = cost; memcpy(best, theta, sizeof best); }
    }
    g->n = all;
    if (least >= 1e300) return 0;
    if (all > 200) flash__minimise(flash__gp_cost, g, best, lo, hi, d + 2, turns/4);
    memcpy(g->theta, best, sizeof best);
    return flash__gp_factor(g);
}

/* Mean and variance of the function at x, without noise. */
static double flash__gp_predict(const flash__gp *g, const double *x, double *k, double *variance)
{
    double w[FLASH__GP_INPUTS], sf2 = flash__gp_weights(g, w), slope, mean, v;
    size_t i;
    for (i = 0; i < g->n; i++)
        k[i] = flash__gp_kernel(g, w, sf2, x, g->x + i*(size_t)g->d, &slope);
    mean = flash__dot64(k, g->alpha, g->n);
    flash__solve_lower(g->L, k, g->n);
    v = sf2 - flash__dot64(k, k, g->n);
    *variance = FLASH__MAX(v, 1e-12*sf2);
    return mean;
}

/* Mean and variance (noise included) of each point given all others: Rasmussen and Williams
   5.12. */
static void flash__gp_leave_one_out(flash__gp *g, double *mean, double *variance)
{
    size_t n = g->n, i;
    flash__inverse(g->L, g->rows, g->inverse, n);
    for (i = 0; i < n; i++) {
        variance[i] = 1/g->inverse[i*n + i];
        mean[i] = g->y[i] - g->alpha[i]*variance[i];
    }
}

/* b >= 0 that brings a b near y in the sense of least squares plus ridge b'b: active sets (Lawson
   and Hanson 1974, Solving Least Squares Problems, chapter 23). a: [n,m], m <= 16. */
static void flash__least_squares(const double *a, const double *y, size_t n, int m, double ridge,
                                 double *b)
{
    double H[16*16], h[16], L[16*16], z[16], slope;
    int free_[16] = { 0 }, order[16], i, j, k, turn, used;
    size_t r;
    for (i = 0; i < m; i++) {
        for (j = 0; j <= i; j++) {
            double s = i == j ? ridge : 0;
            for (r = 0; r < n; r++) s += a[r*(size_t)m + (size_t)i]*a[r*(size_t)m + (size_t)j];
            H[i*m + j] = H[j*m + i] = s;
        }
        for (h[i] = 0, r = 0; r < n; r++) h[i] += a[r*(size_t)m + (size_t)i]*y[r];
        b[i] = 0;
    }
    for (turn = 0; turn < 10*m; turn++) {
        int enters = -1;
        double most = 1e-10;
        for (i = 0; i < m; i++) {
            slope = h[i] - flash__dot64(H + i*m, b, (size_t)m);
            if (!free_[i] && slope > most*(1 + fabs(h[i])))
                { most = slope/(1 + fabs(h[i])); enters = i; }
        }
        if (enters < 0) return;
        free_[enters] = 1;
        for (;;) { /* solve for the free ones; those that would fall below 0 leave */
            double share = 1;
            for (used = i = 0; i < m; i++) if (free_[i]) order[used++] = i;
            for (i = 0; i < used; i++) {
                for (j = 0; j <= i; j++) L[i*used + j] = H[order[i]*m + order[j]];
                z[i] = h[order[i]];
            }
            if (!flash__cholesky(L, (size_t)used)) { free_[enters] = 0; return; }
            flash__solve_lower(L, z, (size_t)used);
            flash__solve_upper(L, z, (size_t)used);
            for (i = 0; i < used; i++) {
                k = order[i];
                if (z[i] <= 0) share = FLASH__MIN(share, b[k] > 0 ? b[k]/(b[k] - z[i]) : 0);
            }
            for (i = 0; i < used; i++) {
                k = order[i];
                b[k] += share*(z[i] - b[k]);
                if (share < 1 && z[i] <= 0 && b[k] <= 1e-14) { b[k] = 0; free_[k] = 0; }
            }
            if (share >= 1) break;
        }
    }
}
#endif

/* ===== >>quant ============================================================ */

/* Block formats (facts: ggml-common.h and ggml-quants.c of github.com/ggml-org/ggml). One unpacker
   per type turns 32 weights into int8 q, and for each half a float scale d and minimum m: weight =
   d*q + m. Dequantising, the dot products and the panels of the matrix kernels all go through it.
   KNOWN TRAPS: 4-bit blocks hold item i and item i+16 in one byte, not neighbours; K blocks put 32
   items, not 16, that far apart; Q5 high bits are one 32-bit mask, item order; Q3_K scales are 6
   bits spread over 12 bytes. */

typedef struct flash__type_fact { const char *name; int id, items, bytes; } flash__type_fact;

static const flash__type_fact flash__types[] = {
#define FLASH__X(name, id, items, bytes) { #name, id, items, bytes },
    FLASH_TYPE_LIST(FLASH__X)
#undef FLASH__X
};
/* Types that files may hold and we cannot compute with: known by size, so that the container can be
   checked. */
static const flash__type_fact flash__other_types[] = {
    { "Q8_1", 9, 32, 36 }, { "Q8_K", 15, 256, 292 }, { "IQ2_XXS", 16, 256, 66 },
        { "IQ2_XS", 17, 256, 74 },
    { "IQ3_XXS", 18, 256, 98 }, { "IQ1_S", 19, 256, 50 }, { "IQ3_S", 21, 256, 110 },
        { "IQ2_S", 22, 256, 82 },
    { "I8", 24, 1, 1 }, { "I16", 25, 1, 2 }, { "I32", 26, 1, 4 }, { "I64", 27, 1, 8 },
        { "F64", 28, 1, 8 },
    { "IQ1_M", 29, 256, 56 }, { "TQ1_0", 34, 256, 54 }, { "TQ2_0", 35, 256, 66 },
        { "NVFP4", 40, 64, 36 },
    { "Q1_0", 41, 128, 18 }, { "Q2_0", 42, 64, 18 },
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
    if (!f || n % (size_t)f->items || !flash__mul(&bytes, n/(size_t)f->items, (size_t)f->bytes))
        return 0;
    return bytes;
}

/* 32 weights: item i is d[i/16]*q[i] + m[i/16]. */
typedef struct flash__group { int8_t q[32]; float d[2], m[2]; } flash__group;

/* 32 activations: item i is d*q[i]. One cache line. */
typedef struct flash__q8 {
    float   d, ds[3];       /* scale; scale times the sum of q: first half, second half, both */
    int32_t start[3], pad;  /* -128 times those sums                                          */
    int8_t  q[32];
} flash__q8;
FLASH__STATIC_ASSERT(sizeof(flash__q8) == 64, q8_is_a_cache_line);

static void flash__group_scale(flash__group *g, float d, float m)
{
    g->d[0] = g->d[1] = d;
    g->m[0] = g->m[1] = m;
}
/* Low nibbles are items 0-15, high nibbles items 16-31. Eight at once: 128 is added before the
   subtraction, so that no byte borrows, and taken away after it. */
static void flash__nibbles(int8_t *q, const uint8_t *p, int minus)
{
    const uint64_t ones = 0x0101010101010101u, low = 15*ones, high = 128*ones;
    uint64_t v, a, b;
    int i;
    for (i = 0; i < 16; i += 8) {
        memcpy(&v, p + i, 8);
        a = ((v & low) + (high - (uint64_t)minus*ones)) ^ high;
        b = ((v >> 4 & low) + (high - (uint64_t)minus*ones)) ^ high;
        memcpy(q + i, &a, 8);
        memcpy(q + i + 16, &b, 8);
    }
}

static void flash__unpack_q4_0(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i*18;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), 0);
    flash__nibbles(g->q, b + 2, 8);
}

static void flash__unpack_q4_1(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i*20;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), flash__f16_f32(flash__rd16(b + 2)));
    flash__nibbles(g->q, b + 4, 0);
}

static void flash__fifth_bits(int8_t *q, uint32_t high, int minus)
{
    int i;
    for (i = 0; i < 32; i++) q[i] = (int8_t)(q[i] + (int)(high >> i & 1)*16 - minus);
}

static void flash__unpack_q5_0(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i*22;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), 0);
    flash__nibbles(g->q, b + 6, 0);
    flash__fifth_bits(g->q, flash__rd32(b + 2), 16);
}

static void flash__unpack_q5_1(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i*24;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), flash__f16_f32(flash__rd16(b + 2)));
    flash__nibbles(g->q, b + 8, 0);
    flash__fifth_bits(g->q, flash__rd32(b + 4), 0);
}

static void flash__unpack_q8_0(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i*34;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), 0);
    memcpy(g->q, b + 2, 32);
}

/* 256 items in two runs of 128; 2-bit items 32 bytes a run, run by shift; a 4-bit scale and minimum
   per 16. */
static void flash__unpack_q2_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i/8*84, *sc = b + i%8*2, *q = b + 16 + i%8/4*32;
    float d = flash__f16_f32(flash__rd16(b + 80)), dmin = flash__f16_f32(flash__rd16(b + 82));
    int shift = (int)(i%4)*2, j;
    for (j = 0; j < 32; j++) g->q[j] = (int8_t)(q[j] >> shift & 3);
    for (j = 0; j < 2; j++)
        { g->d[j] = d*(float)(sc[j] & 15); g->m[j] = -(dmin*(float)(sc[j] >> 4)); }
}

/* i-th of 16: 4 low bits, 2 high bits, biased by 32 */
static int flash__q3_k_scale(const uint8_t *s, size_t i)
{
    int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4, high = s[8 + i%4] >> (i/4*2) & 3;
    return (low | high << 4) - 32;
}

static void flash__unpack_q3_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i/8*110, *q = b + 32 + i%8/4*32;
    float d = flash__f16_f32(flash__rd16(b + 108));
    int shift = (int)(i%4)*2, j;
    for (j = 0; j < 32; j++) g->q[j] = (int8_t)((q[j] >> shift & 3) - (b[j] >> i%8 & 1 ? 0 : 4));
    for (j = 0; j < 2; j++) {
        g->d[j] = d*(float)flash__q3_k_scale(b + 96, i%8*2 + (size_t)j);
        g->m[j] = 0;
    }
}

/* Eight 6-bit scales and minima in 12 bytes, shared by Q4_K and Q5_K. */
static void flash__k_scales(flash__group *g, const uint8_t *b, size_t i)
{
    float d = flash__f16_f32(flash__rd16(b)), dmin = flash__f16_f32(flash__rd16(b + 2));
    const uint8_t *s = b + 4;
    int sc, mn;
    if (i < 4) { sc = s[i] & 63; mn = s[i + 4] & 63; }
    else { sc = (s[i + 4] & 15) | s[i - 4] >> 6 << 4; mn = s[i + 4] >> 4 | s[i] >> 6 << 4; }
    flash__group_scale(g, d*(float)sc, -(dmin*(float)mn));
}

static void flash__unpack_q4_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i/8*144, *q = b + 16 + i%8/2*32;
    int shift = (int)(i & 1)*4, j;
    flash__k_scales(g, b, i%8);
    for (j = 0; j < 32; j++) g->q[j] = (int8_t)(q[j] >> shift & 15);
}

static void flash__unpack_q5_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i/8*176, *q = b + 48 + i%8/2*32, *high = b + 16;
    int shift = (int)(i & 1)*4, j;
    flash__k_scales(g, b, i%8);
    for (j = 0; j < 32; j++) g->q[j] = (int8_t)((q[j] >> shift & 15) | (high[j] >> i%8 & 1) << 4);
}

static void flash__unpack_q6_k(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i/8*210, *low = b + i%8/4*64 + (i & 1)*32, *high = b + 128 + i%8/4*32;
    float d = flash__f16_f32(flash__rd16(b + 208));
    int shift = (int)(i%4/2)*4, high_shift = (int)(i%4)*2, j;
    for (j = 0; j < 32; j++)
        g->q[j] = (int8_t)(((low[j] >> shift & 15) | (high[j] >> high_shift & 3) << 4) - 32);
    for (j = 0; j < 2; j++) {
        uint8_t s = b[192 + i%8*2 + (size_t)j];
        g->d[j] = d*(float)(s < 128 ? (int)s : (int)s - 256);
        g->m[j] = 0;
    }
}

static const int8_t flash__iq4_values[16] =
    { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
static const int8_t flash__mxfp4_values[16] = /* twice the value of the 4-bit float E2M1 */
    { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

static void flash__lookup(flash__group *g, const uint8_t *p, const int8_t *values)
{
    int i;
    flash__nibbles(g->q, p, 0);
    for (i = 0; i < 32; i++) g->q[i] = values[g->q[i]];
}

static void flash__unpack_iq4_nl(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i*18;
    flash__group_scale(g, flash__f16_f32(flash__rd16(b)), 0);
    flash__lookup(g, b + 2, flash__iq4_values);
}

static void flash__unpack_iq4_xs(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i/8*136;
    size_t k = i%8;
    int low = b[4 + k/2] >> (k & 1)*4 & 15, high = (int)(flash__rd16(b + 2) >> 2*k & 3);
    flash__group_scale(g, flash__f16_f32(flash__rd16(b))*(float)((low | high << 4) - 32), 0);
    flash__lookup(g, b + 8 + k*16, flash__iq4_values);
}

static void flash__unpack_mxfp4(const uint8_t *row, size_t i, flash__group *g)
{
    const uint8_t *b = row + i*17;
    uint32_t e = b[0]; /* 2^(e-127), halved because the values are doubled */
    flash__group_scale(g, flash__bits_f32(e < 2 ? 0x00200000u << e : (e - 1) << 23), 0);
    flash__lookup(g, b + 1, flash__mxfp4_values);
}

/* Types whose scale changes inside 32 items, and types that have minima. */
static int flash__type_halves(flash_type t)
{
    return t == FLASH_TYPE_Q2_K || t == FLASH_TYPE_Q3_K || t == FLASH_TYPE_Q6_K;
}
static int flash__type_minima(flash_type t)
{
    return t == FLASH_TYPE_Q4_1 || t == FLASH_TYPE_Q5_1 || t == FLASH_TYPE_Q2_K
        || t == FLASH_TYPE_Q4_K
        || t == FLASH_TYPE_Q5_K;
}

typedef void (*flash__unpack_fn)(const uint8_t *row, size_t i, flash__group *g);

static flash__unpack_fn flash__unpacker(flash_type t)
{
    switch (t) {
    case FLASH_TYPE_Q4_0:   return flash__unpack_q4_0;
    case FLASH_TYPE_Q4_1:   return flash__unpack_q4_1;
    case FLASH_TYPE_Q5_0:   return flash__unpack_q5_0;
    case FLASH_TYPE_Q5_1:   return flash__unpack_q5_1;
    case FLASH_TYPE_Q8_0:   return flash__unpack_q8_0;
    case FLASH_TYPE_Q2_K:   return flash__unpack_q2_k;
    case FLASH_TYPE_Q3_K:   return flash__unpack_q3_k;
    case FLASH_TYPE_Q4_K:   return flash__unpack_q4_k;
    case FLASH_TYPE_Q5_K:   return flash__unpack_q5_k;
    case FLASH_TYPE_Q6_K:   return flash__unpack_q6_k;
    case FLASH_TYPE_IQ4_NL: return flash__unpack_iq4_nl;
    case FLASH_TYPE_IQ4_XS: return flash__unpack_iq4_xs;
    case FLASH_TYPE_MXFP4:  return flash__unpack_mxfp4;
    default:                return NULL; /* F32, F16, BF16 */
    }
}

/* One float of an F32, F16 or BF16 row. */
static float flash__plain(flash_type t, const uint8_t *row, size_t i)
{
    if (t == FLASH_TYPE_F32) return flash__rdf32(row + 4*i);
    return t == FLASH_TYPE_F16 ? flash__f16_f32(flash__rd16(row + 2*i))
        : flash__bf16_f32(flash__rd16(row + 2*i));
}

FLASH_API flash_status flash_dequantize(flash_type t, const void *src, float *dst, size_t n)
{
    const uint8_t *row = (const uint8_t *)src;
    flash__unpack_fn unpack = flash__unpacker(t);
    flash__group g;
    size_t i, j;
    if ((!src || !dst) && n) return FLASH_E_ARGUMENT;
    if (n && !flash_row_bytes(t, n)) return FLASH_E_ARGUMENT;
    if (!unpack) for (i = 0; i < n; i++) dst[i] = flash__plain(t, row, i);
    else for (i = 0; i < n/32; i++) {
        unpack(row, i, &g);
        for (j = 0; j < 32; j++) {
            float v = g.d[j/16]*(float)g.q[j];
            dst[32*i + j] = flash__type_minima(t) ? v + g.m[j/16] : v;
        }
    }
    return FLASH_E_NONE;
}

static void flash__q8_sums(flash__q8 *y, float amax, int first, int second)
{
    int i, sum[3];
    sum[0] = first; sum[1] = second; sum[2] = first + second;
    y->d = amax/127.0f;
    y->pad = 0;
    for (i = 0; i < 3; i++) { y->ds[i] = y->d*(float)sum[i]; y->start[i] = -128*sum[i]; }
}

/* Activations: scale amax/127, items rounded to nearest even. The same for every weight type. */
static void flash__quantize_scalar(const float *x, size_t n, flash__q8 *y)
{
    size_t b;
    int i;
    for (b = 0; b < n/32; b++, x += 32, y++) {
        float amax = 0, inverse;
        int sum[2] = { 0, 0 };
        for (i = 0; i < 32; i++) {
            float a = x[i] < 0 ? -x[i] : x[i];
            amax = a > amax ? a : amax; /* NaN never wins */
        }
        if (!(amax <= 3e38f)) amax = 3e38f; /* infinities: a finite scale, items clipped below */
        inverse = amax > 1e-30f ? 127.0f/amax : 0.0f;
        for (i = 0; i < 32; i++) {
            float v = x[i]*inverse;
            v = v < 127.0f ? v : 127.0f;
            v = v > -127.0f ? v : -127.0f;
            y->q[i] = (int8_t)flash__round(v);
            sum[i/16] += y->q[i];
        }
        flash__q8_sums(y, amax, sum[0], sum[1]);
    }
}

/* ===== >>quantize ========================================================= */

/* Floats to block formats. Types of 32 items with 4, 5 or 8 whole bits have the scale formulas of
   ggml-quants.c (github.com/ggml-org/ggml) and give its bytes. The others search: flash__fit tries
   19 scales for each group, solves for the best one by least squares, large weights counting more;
   group scales are rounded to the block's few bits, and weights to what the unpacker makes of
   those. Root mean square errors are 0.91 to 1.00 (Q2_K 0.80 to 0.98) of the reference's on normal,
   squared normal, uniform and offset data. */

static uint16_t flash__f32_bf16(float f) /* nearest, ties to even; NaN stays NaN */
{
    uint32_t u = flash__f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static void flash__wr16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)v; p[1] = (uint8_t)(v >> 8); }
static void flash__wr_scale(uint8_t *p, float d) { flash__wr16(p, flash__f32_f16(d)); }

/* NaN becomes lo. */
static float flash__clip(float v, float lo, float hi)
{
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
}

/* The levels of a type: whole numbers lo to hi, or the 16 values of a codebook. step: between the
   scales tried, relative. */
typedef struct flash__levels { float lo, hi, step; const int8_t *values; } flash__levels;

/* Index from the lowest level of the one nearest to v. */
static int flash__nearest(const flash__levels *l, float v)
{
    int i = 0, half;
    if (!l->values) return (int)(flash__round(flash__clip(v, l->lo, l->hi)) - l->lo);
    for (half = 8; half; half >>= 1) /* without branches: they would be random */
        i += (v + v >= (float)(l->values[i + half - 1] + l->values[i + half]))*half;
    return i;
}

/* Scale d, and minimum m <= 0 unless that is NULL, for which d*level + m comes closest to x [n]: at
   most 32, squared errors weighted by w. */
static float flash__fit(const flash__levels *l, const float *x, const float *w, int n, float *m)
{
    float least = 0, most = 0, sw = 0, sx = 0, d = 0, best = FLT_MAX, level[32];
    int i, k;
    for (i = 0; i < n; i++) {
        least = i && least < x[i] ? least : x[i];
        most = i && most > x[i] ? most : x[i];
        sw += w[i];
        sx += w[i]*x[i];
    }
    if (m) *m = least = least < 0 ? least : 0;
    else most = most < -least ? least : most; /* of either sign */
    if (m ? !(most - least > 1e-15f) : most < 1e-15f && most > -1e-15f) return 0;
    for (k = -9; k <= 9; k++) {
        float from = m ? *m : 0, inverse, sl = 0, sll = 0, slx = 0, det, error = 0;
        float try_d, try_m = 0;
        inverse = m ? l->hi*(1 + (float)k*l->step)/(most - from)
                : l->lo*(1 + (float)k*l->step)/most;
        for (i = 0; i < n; i++) {
            float v = (x[i] - from)*inverse;
            level[i] = l->values ? (float)l->values[flash__nearest(l, v)]
                     : flash__round(flash__clip(v, l->lo, l->hi));
            sl += w[i]*level[i];
            sll += w[i]*level[i]*level[i];
            slx += w[i]*level[i]*x[i];
        }
        if (!(sll > 0)) continue;
        det = sw*sll - sl*sl;
        if (m && det > 1e-6f*sw*sll) try_m = (sll*sx - sl*slx)/det; /* else all on one level */
        if (try_m > 0) try_m = 0;
        try_d = try_m < 0 ? (sw*slx - sx*sl)/det : slx/sll;
        for (i = 0; i < n; i++) {
            float e = try_d*level[i] + try_m - x[i];
            error += w[i]*e*e;
        }
        if (!(error < best)) continue;
        best = error;
        d = try_d;
        if (m) *m = try_m;
    }
    return d;
}

/* Group scales as whole numbers q, -edge to edge-1, or 0 to edge if unsigned, of a float16 unit
   that is written to p. */
static void flash__fit_scales(uint8_t *p, const float *d, int n, float edge, int is_signed, int *q)
{
    float most = 0, unit;
    int i;
    for (i = 0; i < n; i++)
        if ((d[i] < 0 ? -d[i] : d[i]) > (most < 0 ? -most : most)) most = d[i];
    flash__wr_scale(p, most/(is_signed ? -edge : edge));
    unit = flash__f16_f32(flash__rd16(p));
    for (i = 0; i < n; i++)
        q[i] = unit == 0 ? 0 : (int)flash__round(flash__clip(d[i]/unit, is_signed ? -edge : 0,
                                                             is_signed ? edge - 1 : edge));
}

/* ORs bits of 32 levels into 32 bytes. */
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

/* 32 levels into block b (its levels zero before); g: which 32 of its items. What the unpackers
   undo. */
static void flash__put_levels(flash_type t, uint8_t *b, int g, const uint8_t *q)
{
    uint32_t high = 0;
    int i;
    for (i = 0; i < 32; i++) high |= (uint32_t)(q[i] >> 4 & 1) << i;
    switch (t) {
    case FLASH_TYPE_Q4_0: case FLASH_TYPE_IQ4_NL: flash__pack_nibbles(b + 2, q); break;
    case FLASH_TYPE_Q4_1:   flash__pack_nibbles(b + 4, q); break;
    case FLASH_TYPE_Q5_0:   flash__pack_nibbles(b + 6, q); flash__wr32(b + 2, high); break;
    case FLASH_TYPE_Q5_1:   flash__pack_nibbles(b + 8, q); flash__wr32(b + 4, high); break;
    case FLASH_TYPE_IQ4_XS: flash__pack_nibbles(b + 8 + g*16, q); break;
    case FLASH_TYPE_Q2_K:   flash__pack(b + 16 + g/4*32, q, 0, 3, g%4*2); break;
    case FLASH_TYPE_Q3_K:
        flash__pack(b + 32 + g/4*32, q, 0, 3, g%4*2);
        flash__pack(b, q, 2, 1, g);
        break;
    case FLASH_TYPE_Q4_K:   flash__pack(b + 16 + g/2*32, q, 0, 15, g%2*4); break;
    case FLASH_TYPE_Q5_K:
        flash__pack(b + 48 + g/2*32, q, 0, 15, g%2*4);
        flash__pack(b + 16, q, 4, 1, g);
        break;
    default: /* Q6_K */
        flash__pack(b + g/4*64 + g%2*32, q, 0, 15, g%4/2*4);
        flash__pack(b + 128 + g/4*32, q, 4, 3, g%4*2);
    }
}

/* Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: one pass, no search. top: the highest level. */
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
    if (t == FLASH_TYPE_Q8_0) d = (edge < 0 ? -edge : edge)/127;
    else d = minimum ? (most - least)/(float)top : edge/-(float)(top/2 + 1);
    inverse = d != 0 ? 1/d : 0;
    flash__wr_scale(b, d);
    if (minimum) flash__wr_scale(b + 2, least);
    for (i = 0; i < 32; i++) {
        float v = (minimum ? x[i] - least : x[i])*inverse;
        if (t == FLASH_TYPE_Q8_0) {
            v = flash__clip(v, -127, 127);
            b[2 + i] = (uint8_t)(int8_t)((double)v + (v < 0 ? -0.5 : 0.5));
        } else q[i] = (uint8_t)flash__clip(v + (minimum ? 0.5f : (float)(top/2) + 1.5f), 0,
                                           (float)top);
    }
    if (t != FLASH_TYPE_Q8_0) flash__put_levels(t, b, 0, q);
}

/* One block of the types that search: group scales, block scales, levels. */
static void flash__quantize_k(flash_type t, const float *x, uint8_t *b)
{
    int bits = t == FLASH_TYPE_Q2_K ? 2 : t == FLASH_TYPE_Q3_K ? 3 : t == FLASH_TYPE_Q5_K ? 5
             : t == FLASH_TYPE_Q6_K ? 6 : 4, minima = flash__type_minima(t);
    int n = t == FLASH_TYPE_IQ4_NL ? 32 : 256, per = flash__type_halves(t) ? 16 : 32, i, j;
    int q[16], qm[16];
    float d[16], m[16], w[32];
    flash__levels l;
    flash__group g;
    l.lo = minima ? 0 : -(float)(1 << (bits - 1));
    l.hi = l.lo + (float)((1 << bits) - 1);
    l.step = 0.2f/(float)(1 << (minima ? bits : bits - 1));
    l.values = NULL;
    if (t == FLASH_TYPE_IQ4_NL || t == FLASH_TYPE_IQ4_XS)
        { l.values = flash__iq4_values; l.lo = -127; l.hi = 113; l.step = 0.012f; }
    for (i = 0; i < n/per; i++) {
        const float *y = x + i*per;
        float mean = 0;
        for (j = 0; j < per; j++) mean += y[j]*y[j];
        mean = sqrtf(mean/(float)per);
        for (j = 0; j < per; j++) w[j] = mean + (y[j] < 0 ? -y[j] : y[j]);
        d[i] = flash__fit(&l, y, w, per, minima ? m + i : NULL);
        m[i] = minima ? -m[i] : 0;
    }
    switch (t) {
    case FLASH_TYPE_IQ4_NL: flash__wr_scale(b, d[0]); break;
    case FLASH_TYPE_IQ4_XS:
        flash__fit_scales(b, d, 8, 32, 1, q);
        for (i = 0; i < 8; i++) {
            b[4 + i/2] = (uint8_t)(b[4 + i/2] | ((q[i] + 32) & 15) << i%2*4);
            b[2 + i/4] = (uint8_t)(b[2 + i/4] | (q[i] + 32) >> 4 << i%4*2);
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
            b[96 + i%8] = (uint8_t)(b[96 + i%8] | ((q[i] + 32) & 15) << i/8*4);
            b[104 + i%4] = (uint8_t)(b[104 + i%4] | (q[i] + 32) >> 4 << i/4*2);
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
    for (i = 0; i < n/32; i++) {
        uint8_t level[32];
        flash__unpacker(t)(b, (size_t)i, &g);
        for (j = 0; j < 32; j++) {
            float unit = g.d[j/16];
            level[j] = (uint8_t)flash__nearest(&l, unit != 0 ? (x[32*i + j] - g.m[j/16])/unit : 0);
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
        for (i = 0; i < n; i++) flash__wr32(p + 4*i, flash__f32_bits(src[i]));
    else if (t == FLASH_TYPE_F16)
        for (i = 0; i < n; i++) flash__wr16(p + 2*i, flash__f32_f16(src[i]));
    else if (t == FLASH_TYPE_BF16)
        for (i = 0; i < n; i++) flash__wr16(p + 2*i, flash__f32_bf16(src[i]));
    else {
        items = (size_t)flash_type_block(t);
        memset(p, 0, bytes);
        for (i = 0; i < n; i += items, p += flash_row_bytes(t, items)) {
            float x[256];
            for (j = 0; j < items; j++)
                x[j] = src[i + j] == src[i + j] ? flash__clip(src[i + j], -65504, 65504) : 0;
            if (items == 256 || t == FLASH_TYPE_IQ4_NL) flash__quantize_k(t, x, p);
            else flash__quantize_32(t, x, p);
        }
    }
    return FLASH_OK;
}

/* ===== >>k-table ========================================================== */

/* The kernel list. A line here adds the table slot; tests and benchmarks walk the same list. The
   table is a value inside its owner: no globals, and two instruction sets can run in one process.
   Quantised matrices are multiplied in two ways. One token: `rows` reads the file's own layout at
   the memory's speed. Many: `pack` turns panel_rows rows into a panel, int8 laid out as the
   instruction set wants it plus float scales, and `panel` runs it against all tokens of a chunk.
   Every weight type is only an unpacker to that panel. */

#define FLASH__KERNELS(X) \
    X(quantize, void, (const float *x, size_t n, flash__q8 *y)) \
    X(rows,     void, (flash_type t, const uint8_t *w, size_t row_bytes, int rows, \
                       const void *x, size_t n, float *y)) \
    X(pack,     void, (flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n, \
                       uint8_t *panel)) \
    X(panel,    void, (flash_type t, const uint8_t *panel, int rows, const flash__q8 *x, \
                       int tokens, \
                       size_t n, float *y, size_t ldy)) \
    X(sgemm,    void, (const float *a, size_t lda, const float *b, size_t ldb, float *c, \
                       size_t ldc, \
                       int M, int N, int K)) \
    X(softmax,  float, (float *x, float scale, int from, int to, float *total)) \
    X(blend,    void, (float *y, float keep, const float *x, float add, size_t n)) \
    X(rmsnorm,  void, (const float *x, const float *w, float eps, size_t n, float *y)) \
    X(rope,     void, (float *x, const float *cos_sin, int dims, int style)) \
    X(glu,      void, (int gelu, const float *gate, const float *up, size_t n, float *y)) \
    X(widen,    void, (const uint16_t *h, size_t n, float *y)) \
    X(widen8,   void, (const int8_t *q, const float *d, int each, size_t n, float *y)) \
    X(spin,     double, (int rounds)) \
    X(read,     uint64_t, (const uint8_t *p, size_t n))

enum { FLASH__PANEL_ROWS_MAX = 32 };

typedef struct flash__kernels {
    flash_isa isa;
    int panel_rows;   /* <= FLASH__PANEL_ROWS_MAX */
    int panel_tokens; /* a few that stay in the first-level cache while the panels pass */
#define FLASH__X(op, ret, args) ret (*op) args;
    FLASH__KERNELS(FLASH__X)
#undef FLASH__X
} flash__kernels;

/* Bytes of one 32-wide block of a panel: the int8 of its rows, then scales, then minima, one or two
   floats a row. */
static size_t flash__panel_stride(flash_type t, int rows)
{
    int parts = flash__type_halves(t) ? 2 : 1;
    return (size_t)rows*(32 + 4*(size_t)parts*(flash__type_minima(t) ? 2 : 1));
}

/* ===== >>k-scalar ========================================================= */

/* These define the results; every other instruction set must give the same bits. Quantised: block
   after block, the exact integer sum as float times (d_w*d_x), then where the type has minima m_w
   times (d_x*sum x); product and sum rounded separately. A block is 32 items, or 16 where the
   type's scale changes inside. Float reductions: lane i%16 takes item i, then lanes are added 8, 4,
   2, 1 apart. */

static float flash__tree16(float *lane)
{
    int s, j;
    for (s = 8; s; s >>= 1) for (j = 0; j < s; j++) lane[j] = lane[j] + lane[j + s];
    return lane[0];
}

static float flash__dot_f32_scalar(const float *a, const float *b, size_t n)
{
    float lane[16] = { 0 };
    size_t i;
    for (i = 0; i < n; i++) lane[i & 15] = lane[i & 15] + a[i]*b[i];
    return flash__tree16(lane);
}

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
        float lane[16] = { 0 };
        for (i = 0; i < n; i++) lane[i & 15] = lane[i & 15] + flash__plain(t, row, i)*f[i];
        return flash__tree16(lane);
    }
    for (i = 0; i < n/32; i++) {
        unpack(row, i, &g);
        for (h = 0; h < parts; h++) {
            int sum = 0;
            for (j = 32/parts*h; j < 32/parts*(h + 1); j++) sum += g.q[j]*q[i].q[j];
            acc = acc + (float)sum*(g.d[h]*q[i].d);
            if (minima) acc = acc + g.m[h]*q[i].ds[parts == 2 ? h : 2];
        }
    }
    return acc;
}

/* y[r] = row r times x, one token. x: [n] floats for F32, F16, BF16; [n/32] flash__q8 for the
   others. */
static void flash__rows_scalar(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                               const void *x, size_t n, float *y)
{
    int r;
    for (r = 0; r < rows; r++) y[r] = flash__dot_scalar(t, w + (size_t)r*row_bytes, x, n);
}

/* Unpacks rows into a panel of R rows: [b][8 groups of 4 items][R][4] bytes with offset added (-1:
   as they are), then scales [parts][R], minima [parts][R]. Missing rows become zeros. */
static void flash__pack_rows(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                             uint8_t *panel, int R,
                             int offset)
{
    flash__unpack_fn unpack = flash__unpacker(t);
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, k, h;
    size_t stride = flash__panel_stride(t, R), i;
    uint64_t more = (uint64_t)(128 - offset)*0x0101010101010101u, v;
    for (r = 0; r < R; r++) {
        uint8_t *p = panel + 4*r;
        for (i = 0; i < n/32; i++, p += stride) {
            float *scale = (float *)(void *)(p + 32*R);
            flash__group g;
            if (r < rows) unpack(w + (size_t)r*row_bytes, i, &g);
            else memset(&g, 0, sizeof g);
            /* eight bytes at once: q + 128 never carries, minus 128 - offset never borrows */
            for (k = 0; k < 4; k++) {
                memcpy(&v, g.q + 8*k, 8);
                if (offset >= 0) v = (v ^ 0x8080808080808080u) - more;
                memcpy(p + 8*R*k, &v, 4);
                memcpy(p + 8*R*k + 4*R, (uint8_t *)&v + 4, 4);
            }
            for (h = 0; h < parts; h++) {
                scale[R*h] = g.d[h];
                if (minima) scale[R*(parts + h)] = g.m[h];
            }
        }
    }
}

static void flash__pack_scalar(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                               size_t n, uint8_t *panel)
{
    flash__pack_rows(t, w, row_bytes, rows, n, panel, 4, -1);
}

static void flash__panel_scalar(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                                int tokens, size_t n,
                                float *y, size_t ldy)
{
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, k, h, token;
    size_t stride = flash__panel_stride(t, 4), i;
    for (token = 0; token < tokens; token++, x += n/32, y += ldy)
        for (r = 0; r < rows; r++) {
            float acc = 0;
            for (i = 0; i < n/32; i++) {
                const int8_t *q = (const int8_t *)(panel + i*stride) + 4*r;
                const float *scale = (const float *)(const void *)(panel + i*stride + 128) + r;
                for (h = 0; h < parts; h++) {
                    int sum = 0;
                    for (k = 32/parts*h; k < 32/parts*(h + 1); k++)
                        sum += q[k/4*16 + k%4]*x[i].q[k];
                    acc = acc + (float)sum*(scale[4*h]*x[i].d);
                    if (minima) acc = acc + scale[4*(parts + h)]*x[i].ds[parts == 2 ? h : 2];
                }
            }
            y[r] = acc;
        }
}

/* c = a b. a: [M,K] rows lda apart, b: [K,N], c: [M,N]. Each item of c is summed over k in
   order. */
static void flash__sgemm_scalar(const float *a, size_t lda, const float *b, size_t ldb, float *c,
                                size_t ldc, int M, int N,
                                int K)
{
    int i, j, k;
    for (i = 0; i < M; i++, a += lda, c += ldc) {
        for (j = 0; j < N; j++) c[j] = 0;
        for (k = 0; k < K; k++) for (j = 0; j < N; j++)
            c[j] = c[j] + a[k]*b[(size_t)k*ldb + (size_t)j];
    }
}

/* Scores x[64] of a block, of which [from, to) count: these become e^(x scale - max), the others 0.
   Returns the maximum; *total: the sum (lane i%16 takes item i). */
static float flash__softmax_scalar(float *x, float scale, int from, int to, float *total)
{
    float lane[16] = { 0 }, most = -3.4e38f;
    int i;
    for (i = from; i < to; i++) { x[i] = x[i]*scale; most = x[i] > most ? x[i] : most; }
    for (i = 0; i < 64; i++) {
        x[i] = i >= from && i < to ? flash__expf(x[i] - most) : 0;
        lane[i & 15] = lane[i & 15] + x[i];
    }
    *total = flash__tree16(lane);
    return most;
}

/* Operations of a register-only loop of int8 products, for measuring a processor's limit. */
static double flash__spin_scalar(int rounds)
{
    uint32_t a = 1, b = 2, c = 3, d = 4;
    int i;
    for (i = 0; i < rounds; i++) { a = a*b + 1; b = b*c + 1; c = c*d + 1; d = d*a + 1; }
    return (a ^ b ^ c ^ d) == 12345 ? 0 : 8.0*rounds;
}
/* y[i] = d[i]*q[i], or d[0]*q[i] if not each has its own */
static void flash__widen8_scalar(const int8_t *q, const float *d, int each, size_t n, float *y)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = d[each ? i : 0]*(float)q[i];
}

/* y = y*keep + x*add */
static void flash__blend_scalar(float *y, float keep, const float *x, float add, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = y[i]*keep + x[i]*add;
}

/* Reads n bytes; their sum keeps the compiler honest. */
static uint64_t flash__read_scalar(const uint8_t *p, size_t n)
{
    uint64_t sum = 0, v;
    size_t i;
    for (i = 0; i + 8 <= n; i += 8) { memcpy(&v, p + i, 8); sum += v; }
    return sum;
}

static void flash__widen_scalar(const uint16_t *h, size_t n, float *y)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = flash__f16_f32(h[i]);
}

/* y = x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019, arxiv 1910.07467). y may be x. */
static void flash__rmsnorm_scalar(const float *x, const float *w, float eps, size_t n, float *y)
{
    float r = 1.0f/sqrtf(flash__dot_f32_scalar(x, x, n)/(float)n + eps);
    size_t i;
    for (i = 0; i < n; i++) y[i] = x[i]*r*w[i];
}

/* Rotates the first dims items of one head in place (Su et al. 2021, arxiv 2104.09864). cos_sin:
   [dims/2] pairs. */
static void flash__rope_scalar(float *x, const float *cos_sin, int dims, int style)
{
    int i, a, b;
    for (i = 0; i < dims/2; i++) {
        float c = cos_sin[2*i], sine = cos_sin[2*i + 1], minus = -sine, u, v;
        a = style == FLASH_ROPE_PAIRS ? 2*i : i;
        b = style == FLASH_ROPE_PAIRS ? 2*i + 1 : i + dims/2;
        u = x[a]; v = x[b];
        /* + and minus, not -: gcc 12 makes vfmaddsub of a pair of + and -, contraction off or
           not */
        x[a] = u*c + v*minus;
        x[b] = u*sine + v*c;
    }
}

/* y = gate * sigmoid(gate) * up (Shazeer 2020, arxiv 2002.05202). y may be gate. */
/* y = f(gate)*up, a gated linear unit (Shazeer 2020, arxiv 2002.05202). f is SiLU, x/(1 + exp(-x)),
   or GELU by tanh (Hendrycks and Gimpel 2016, arxiv 1606.08415), which is x/(1 + exp(-2u)) with
   u = sqrt(2/pi) (x + 0.044715 x^3). */
#define FLASH__GELU_1 1.5957691216f /* 2 sqrt(2/pi)          */
#define FLASH__GELU_3 0.0713548163f /* 2 sqrt(2/pi) 0.044715 */
static void flash__glu_scalar(int gelu, const float *gate, const float *up, size_t n, float *y)
{
    size_t i;
    for (i = 0; i < n; i++) {
        float g = gate[i], u = gelu ? g*(FLASH__GELU_1 + FLASH__GELU_3*(g*g)) : g;
        y[i] = g/(1.0f + flash__expf(-u))*up[i];
    }
}

/* ===== >>k-sse41 ========================================================== */

/* SSE4.1 with SSSE3: Intel Penryn (2008) and later, every AMD since Bulldozer. Four rows side by
   side; the panel kernel as in >>k-avx2, where it is explained. Decoding goes through the scalar
   kernels. */

#ifdef FLASH__SSE41
#define FLASH__T128 FLASH__TARGET("sse4.1")
#define FLASH__I128 FLASH__T128 static FLASH__INLINE

/* Panels of sums carried on: y holds what the items before gave. */
typedef void (*flash__panel_fn)(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                                int tokens, size_t n, float *y, size_t ldy, int carry);
typedef void (*flash__pack_fn)(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                               uint8_t *panel);

enum { FLASH__SEGMENT = 256 };

/* The kernel `rows` by way of panels, for types without one of their own. */
static void flash__rows_packed(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                               const flash__q8 *x, size_t n, float *y, int R, flash__pack_fn pack,
                               flash__panel_fn panel)
{
    uint8_t room[FLASH__SEGMENT/32*16*48 + 64], *p = room + ((64 - ((uintptr_t)room & 63)) & 63);
    size_t i, items;
    int r;
    for (r = 0; r < rows; r += R)
        for (i = 0; i < n; i += items) {
            int some = FLASH__MIN(R, rows - r);
            items = FLASH__MIN(n - i, (size_t)FLASH__SEGMENT);
            pack(t, w + (size_t)r*row_bytes + flash_row_bytes(t, i), row_bytes, some, items, p);
            panel(t, p, some, x + i/32, 1, items, y + r, 0, i > 0);
        }
}

/* How the int8 items of a type become unsigned: offset, and groups of four that 16 bits can hold;
   0: signed. */
static int flash__type_offset(flash_type t, int *groups)
{
    *groups = 8;
    switch (t) {
    case FLASH_TYPE_Q4_0: return 8;
    case FLASH_TYPE_Q3_K: return 4;
    case FLASH_TYPE_Q4_1: case FLASH_TYPE_Q4_K: case FLASH_TYPE_Q2_K: return 0;
    case FLASH_TYPE_Q5_0: *groups = 4; return 16;
    case FLASH_TYPE_Q5_1: case FLASH_TYPE_Q5_K: *groups = 4; return 0;
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

/* 4 rows by NT tokens. */
FLASH__I128 void flash__tile_sse41(const uint8_t *panel, size_t stride, int rows,
                                   const flash__q8 *x, size_t blocks, float *y,
                                   size_t ldy, int carry, const int NT, const int parts,
                                   const int minima, const int groups, const int shift)
{
    const int step = groups ? FLASH__MIN(groups, 8/parts) : 1;
    const __m128i ones = _mm_set1_epi16(1);
    __m128 acc[4];
    float out[4] = { 0 };
    size_t b;
    int t, h, k, g;
    FLASH__UNROLL for (t = 0; t < NT; t++) {
        if (carry) memcpy(out, y + (size_t)t*ldy, (size_t)rows*sizeof *out);
        acc[t] = _mm_loadu_ps(out);
    }
    for (b = 0; b < blocks; b++, panel += stride, x++) {
        const float *scale = (const float *)(const void *)(panel + 128);
        FLASH__UNROLL for (h = 0; h < parts; h++) {
            __m128i sum[4], part[4];
            __m128 d = _mm_loadu_ps(scale + 4*h);
            FLASH__UNROLL for (t = 0; t < NT; t++) {
                sum[t] = _mm_set1_epi32(x[(size_t)t*blocks].start[parts == 2 ? h : 2]);
                sum[t] = shift ? _mm_srai_epi32(sum[t], shift) : _mm_setzero_si128();
            }
            FLASH__UNROLL for (k = 0; k < 8/parts; k += step) {
                FLASH__UNROLL for (g = 0; g < step; g++) {
                    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(panel
                            + 16*(k + g + h*4)));
                    __m128i u = groups ? v : _mm_sign_epi8(v, v);
                    FLASH__UNROLL for (t = 0; t < NT; t++) {
                        __m128i q, p;
                        int32_t four;
                        memcpy(&four, x[(size_t)t*blocks].q + 4*(k + g + h*4), 4);
                        q = _mm_set1_epi32(four);
                        p = _mm_maddubs_epi16(u, groups ? q : _mm_sign_epi8(q, v));
                        part[t] = g ? _mm_add_epi16(part[t], p) : p;
                        FLASH__OPAQUE(part[t]); /* else GCC adds in a tree, and spills */
                    }
                }
                FLASH__UNROLL for (t = 0; t < NT; t++) {
                    sum[t] = _mm_add_epi32(sum[t], _mm_madd_epi16(part[t], ones));
                    FLASH__OPAQUE(sum[t]);
                }
            }
            FLASH__UNROLL for (t = 0; t < NT; t++) {
                __m128 s = _mm_mul_ps(d, _mm_set1_ps(x[(size_t)t*blocks].d));
                acc[t] = _mm_add_ps(acc[t], _mm_mul_ps(_mm_cvtepi32_ps(sum[t]), s));
            }
            if (minima) {
                __m128 m = _mm_loadu_ps(scale + 4*(parts + h));
                FLASH__UNROLL for (t = 0; t < NT; t++) {
                    float ds = x[(size_t)t*blocks].ds[parts == 2 ? h : 2];
                    acc[t] = _mm_add_ps(acc[t], _mm_mul_ps(m, _mm_set1_ps(ds)));
                }
            }
        }
    }
    FLASH__UNROLL for (t = 0; t < NT; t++) {
        _mm_storeu_ps(out, acc[t]);
        memcpy(y + (size_t)t*ldy, out, (size_t)rows*sizeof *out);
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
                                              const flash__q8 *x, int tokens,
                                              size_t n, float *y, size_t ldy, int carry)
{
    size_t stride = flash__panel_stride(t, 4), blocks = n/32;
    switch (t) {
    case FLASH_TYPE_Q4_0: FLASH__PANEL_SSE41(1, 0, 8, 4); break;
    case FLASH_TYPE_Q4_1: case FLASH_TYPE_Q4_K: FLASH__PANEL_SSE41(1, 1, 8, 0); break;
    case FLASH_TYPE_Q5_0: FLASH__PANEL_SSE41(1, 0, 4, 3); break;
    case FLASH_TYPE_Q5_1: case FLASH_TYPE_Q5_K: FLASH__PANEL_SSE41(1, 1, 4, 0); break;
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

static void flash__rows_sse41(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                              const void *x, size_t n, float *y)
{
    if (!flash__unpacker(t)) flash__rows_scalar(t, w, row_bytes, rows, x, n, y);
    else flash__rows_packed(t, w, row_bytes, rows, (const flash__q8 *)x, n, y, 4,
                            flash__pack_sse41, flash__panel_on_sse41);
}

/* MT rows of c by 8 columns. */
FLASH__I128 void flash__sgemm_tile_sse41(const float *a, size_t lda, const float *b, size_t ldb,
                                         float *c, size_t ldc, int K,
                                         const int MT)
{
    __m128 acc[4][2];
    int i, k;
    FLASH__UNROLL for (i = 0; i < MT; i++) acc[i][0] = acc[i][1] = _mm_setzero_ps();
    for (k = 0; k < K; k++, b += ldb) {
        __m128 b0 = _mm_loadu_ps(b), b1 = _mm_loadu_ps(b + 4);
        FLASH__UNROLL for (i = 0; i < MT; i++) {
            __m128 v = _mm_set1_ps(a[(size_t)i*lda + (size_t)k]);
            acc[i][0] = _mm_add_ps(acc[i][0], _mm_mul_ps(v, b0));
            acc[i][1] = _mm_add_ps(acc[i][1], _mm_mul_ps(v, b1));
        }
    }
    FLASH__UNROLL for (i = 0; i < MT; i++) {
        _mm_storeu_ps(c + (size_t)i*ldc, acc[i][0]);
        _mm_storeu_ps(c + (size_t)i*ldc + 4, acc[i][1]);
    }
}

FLASH__T128 static void flash__sgemm_sse41(const float *a, size_t lda, const float *b, size_t ldb,
                                           float *c, size_t ldc, int M,
                                           int N, int K)
{
    int i, j;
    for (j = 0; j + 8 <= N; j += 8) {
        for (i = 0; i + 4 <= M; i += 4)
            flash__sgemm_tile_sse41(a + (size_t)i*lda, lda, b + j, ldb, c + (size_t)i*ldc + j, ldc,
                                    K, 4);
        for (; i < M; i++) flash__sgemm_tile_sse41(a + (size_t)i*lda, lda, b + j, ldb,
                                                   c + (size_t)i*ldc + j, ldc, K, 1);
    }
    if (j < N) flash__sgemm_scalar(a, lda, b + j, ldb, c + j, ldc, M, N - j, K);
}

FLASH__T128 static double flash__spin_sse41(int rounds)
{
    __m128i a[8], x = _mm_set1_epi8((char)(rounds & 15)), w = _mm_set1_epi8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm_set1_epi16((short)i);
    for (r = 0; r < rounds; r++) {
        FLASH__UNROLL for (i = 0; i < 8; i++) {
            FLASH__OPAQUE(x); /* or the product would be taken out of the loop */
            a[i] = _mm_add_epi16(a[i], _mm_maddubs_epi16(x, w));
        }
    }
    for (i = 1; i < 8; i++) a[0] = _mm_add_epi16(a[0], a[i]);
    return _mm_cvtsi128_si32(a[0]) == 12345 ? 0 : 8.0*32*rounds;
}

static void flash__overlay_sse41(flash__kernels *k)
{
    k->spin = flash__spin_sse41;
    k->pack = flash__pack_sse41;
    k->panel = flash__panel_sse41;
    k->rows = flash__rows_sse41;
    k->sgemm = flash__sgemm_sse41;
}
#undef FLASH__T128
#undef FLASH__I128
#endif

/* ===== >>k-avx2 =========================================================== */

/* AVX2, F16C: Intel Haswell (2013) and later, AMD Excavator and Zen. Eight rows side by side.
   vpmaddubsw adds two products of an unsigned and a signed byte into 16 bits that saturate: 4-bit
   weights leave room for a whole block of 32, 5-bit for 16 items, 6-bit for 8; wider ones are
   multiplied by magnitude and sign, four items at a time. */

#ifdef FLASH__AVX2
#define FLASH__T256 FLASH__TARGET("avx2,fma,f16c")
#define FLASH__I256 FLASH__T256 static FLASH__INLINE

/* 8 rows by NT tokens. shift: what makes -offset*sum of -128*sum, 0 for offset 0. */
FLASH__I256 void flash__tile_avx2(const uint8_t *panel, size_t stride, int rows,
                                  const flash__q8 *x, size_t blocks, float *y,
                                  size_t ldy, int carry, const int NT, const int parts,
                                  const int minima, const int groups, const int shift,
                                  const int vnni)
{
    const int step = groups ? FLASH__MIN(groups, 8/parts) : 1;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 acc[4];
    float out[8] = { 0 };
    size_t b;
    int t, h, k, g;
    FLASH__UNROLL for (t = 0; t < NT; t++) {
        if (carry) memcpy(out, y + (size_t)t*ldy, (size_t)rows*sizeof *out);
        acc[t] = _mm256_loadu_ps(out);
    }
    for (b = 0; b < blocks; b++, panel += stride, x++) {
        const float *scale = (const float *)(const void *)(panel + 256);
        FLASH__UNROLL for (h = 0; h < parts; h++) {
            __m256i sum[4], part[4];
            __m256 d = _mm256_loadu_ps(scale + 8*h);
            FLASH__UNROLL for (t = 0; t < NT; t++)
                sum[t] = _mm256_set1_epi32(x[(size_t)t*blocks].start[parts == 2 ? h : 2]);
            FLASH__UNROLL for (t = 0; t < NT; t++)
                sum[t] = shift ? _mm256_srai_epi32(sum[t], shift) : _mm256_setzero_si256();
            FLASH__UNROLL for (k = 0; k < 8/parts; k += step) {
                FLASH__UNROLL for (g = 0; g < step; g++) {
                    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(panel
                            + 32*(k + g + h*4)));
                    __m256i u = groups ? v : _mm256_sign_epi8(v, v);
                    FLASH__UNROLL for (t = 0; t < NT; t++) {
                        __m256i q, p;
                        int32_t four;
                        memcpy(&four, x[(size_t)t*blocks].q + 4*(k + g + h*4), 4);
                        q = _mm256_set1_epi32(four);
                        if (!groups) q = _mm256_sign_epi8(q, v);
                        if (vnni) { FLASH__DPBUSD(sum[t], u, q); continue; }
                        p = _mm256_maddubs_epi16(u, q);
                        part[t] = g ? _mm256_add_epi16(part[t], p) : p;
                        FLASH__OPAQUE(part[t]); /* else GCC adds in a tree, and spills */
                    }
                }
                if (!vnni) FLASH__UNROLL for (t = 0; t < NT; t++) {
                    sum[t] = _mm256_add_epi32(sum[t], _mm256_madd_epi16(part[t], ones));
                    FLASH__OPAQUE(sum[t]);
                }
            }
            FLASH__UNROLL for (t = 0; t < NT; t++) {
                __m256 s = _mm256_mul_ps(d, _mm256_set1_ps(x[(size_t)t*blocks].d));
                acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(_mm256_cvtepi32_ps(sum[t]), s));
            }
            if (minima) {
                __m256 m = _mm256_loadu_ps(scale + 8*(parts + h));
                FLASH__UNROLL for (t = 0; t < NT; t++) {
                    float ds = x[(size_t)t*blocks].ds[parts == 2 ? h : 2];
                    acc[t] = _mm256_add_ps(acc[t], _mm256_mul_ps(m, _mm256_set1_ps(ds)));
                }
            }
        }
    }
    FLASH__UNROLL for (t = 0; t < NT; t++) {
        _mm256_storeu_ps(out, acc[t]);
        memcpy(y + (size_t)t*ldy, out, (size_t)rows*sizeof *out);
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
                                    const flash__q8 *x, int tokens, size_t n,
                                    float *y, size_t ldy, int carry, const int vnni)
{
    size_t stride = flash__panel_stride(t, 8), blocks = n/32;
    switch (t) {
    case FLASH_TYPE_Q4_0: FLASH__PANEL_AVX2(1, 0, 8, 4); break;
    case FLASH_TYPE_Q4_1: case FLASH_TYPE_Q4_K: FLASH__PANEL_AVX2(1, 1, 8, 0); break;
    case FLASH_TYPE_Q5_0: FLASH__PANEL_AVX2(1, 0, 4, 3); break;
    case FLASH_TYPE_Q5_1: case FLASH_TYPE_Q5_K: FLASH__PANEL_AVX2(1, 1, 4, 0); break;
    case FLASH_TYPE_Q2_K: FLASH__PANEL_AVX2(2, 1, 4, 0); break;
    case FLASH_TYPE_Q3_K: FLASH__PANEL_AVX2(2, 0, 4, 5); break;
    case FLASH_TYPE_Q6_K: FLASH__PANEL_AVX2(2, 0, 2, 2); break;
    default: FLASH__PANEL_AVX2(1, 0, 0, 0);
    }
}

FLASH__T256 static void flash__panel_on_avx2(flash_type t, const uint8_t *panel, int rows,
                                             const flash__q8 *x, int tokens, size_t n,
                                             float *y, size_t ldy, int carry)
{
    flash__panels_avx2(t, panel, rows, x, tokens, n, y, ldy, carry, 0);
}

static void flash__panel_avx2(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                              int tokens, size_t n, float *y, size_t ldy)
{
    flash__panel_on_avx2(t, panel, rows, x, tokens, n, y, ldy, 0);
}

/* The same panels with VEX-encoded VNNI, as in Intel Alder Lake (2021): sums of four products of
   bytes in 32 bits at once, so any weights will do. */
FLASH__T256 static void flash__panel_avxvnni(flash_type t, const uint8_t *panel, int rows,
                                             const flash__q8 *x, int tokens, size_t n, float *y,
                                             size_t ldy)
{
    flash__panels_avx2(t, panel, rows, x, tokens, n, y, ldy, 0, 1);
}

FLASH__I256 __m256 flash__scales_avx2(const uint8_t *p, size_t row)
{
    __m128i v = _mm_setzero_si128();
#define FLASH__X(i) v = _mm_insert_epi16(v, (short)flash__rd16(p + (i)*row), i);
    FLASH__X(0) FLASH__X(1) FLASH__X(2) FLASH__X(3) FLASH__X(4) FLASH__X(5) FLASH__X(6) FLASH__X(7)
#undef FLASH__X
    return _mm256_cvtph_ps(v);
}
FLASH__I256 __m128i flash__load16_avx2(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}
FLASH__I256 __m256i flash__load_avx2(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
FLASH__I256 __m256i flash__pair_avx2(const uint8_t *p, size_t row) /* 16 bytes of rows r, r+4 */
{
    __m256i v = _mm256_castsi128_si256(flash__load16_avx2(p));
    return _mm256_inserti128_si256(v, flash__load16_avx2(p + 4*row), 1);
}
FLASH__I256 __m256i flash__sum4_avx2(__m256i a, __m256i b, __m256i c, __m256i d)
{
    return _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
}
FLASH__I256 __m256 flash__step_avx2(__m256 acc, __m256i sum, __m256 d, float dx)
{
    return _mm256_add_ps(acc, _mm256_mul_ps(_mm256_cvtepi32_ps(sum),
                                            _mm256_mul_ps(d, _mm256_set1_ps(dx))));
}
/* 32 bits of each row. Rows are shorter than 128 MB (FLASH_DIM_MAX). */
FLASH__I256 __m256i flash__words_avx2(const uint8_t *p, size_t row)
{
    return _mm256_i32gather_epi32((const int *)(const void *)p,
                                  _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                                     _mm256_set1_epi32((int)row)), 1);
}
/* Byte k%4 of each, as an integer. */
FLASH__I256 __m256 flash__byte_avx2(__m256i v, int k)
{
    v = _mm256_srl_epi32(v, _mm_cvtsi32_si128(k%4*8));
    return _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32(255)));
}
FLASH__I256 void flash__fetch_avx2(const uint8_t *p, size_t row, size_t at, size_t bytes)
{
    /* The same share of rows further on, in file order: far ahead into the second level, the next
       eight rows into the first where they fit there. */
    size_t i;
    for (i = 0; i < 8*bytes; i += 64) {
        _mm_prefetch((const char *)p + 98304 + 8*at + i, _MM_HINT_T1);
        if (row <= 3072) _mm_prefetch((const char *)p + 8*row + 8*at + i, _MM_HINT_T0);
    }
}
/* 32-bit partial sums of eight rows into the sums of their first and second 16 items. */
FLASH__I256 void flash__halves_avx2(const __m256i *s, __m256i *first, __m256i *second)
{
    __m256i a = flash__sum4_avx2(s[0], s[1], s[2], s[3]), b = flash__sum4_avx2(s[4], s[5], s[6],
            s[7]);
    *first = _mm256_permute2x128_si256(a, b, 0x20);
    *second = _mm256_permute2x128_si256(a, b, 0x31);
}

/* Scales and minima of the 8 blocks of a Q4_K block of 256. */
FLASH__I256 void flash__scales_q4_k_avx2(const uint8_t *p, size_t row, __m256 *d, __m256 *m)
{
    const __m256i six = _mm256_set1_epi32(0x3f3f3f3f), four = _mm256_set1_epi32(0x0f0f0f0f),
        high = _mm256_set1_epi32(0x30303030);
    __m256 scale = flash__scales_avx2(p, row), least = flash__scales_avx2(p + 2, row);
    __m256i a = flash__words_avx2(p + 4, row), b = flash__words_avx2(p + 8, row),
        c = flash__words_avx2(p + 12, row), s[2], t[2]; /* a byte each of parts 0-3 and 4-7 */
    int k;
    s[0] = _mm256_and_si256(a, six);
    t[0] = _mm256_and_si256(b, six);
    s[1] = _mm256_or_si256(_mm256_and_si256(c, four),
                           _mm256_and_si256(_mm256_srli_epi32(a, 2), high));
    t[1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(c, 4), four),
                           _mm256_and_si256(_mm256_srli_epi32(b, 2), high));
    FLASH__UNROLL for (k = 0; k < 8; k++) {
        d[k] = _mm256_mul_ps(scale, flash__byte_avx2(s[k/4], k));
        m[k] = _mm256_xor_ps(_mm256_mul_ps(least, flash__byte_avx2(t[k/4], k)),
                             _mm256_set1_ps(-0.0f));
    }
}
/* Scales of the 16 halves of blocks of a Q6_K block of 256. */
FLASH__I256 void flash__scales_q6_k_avx2(const uint8_t *p, size_t row, __m256 *d)
{
    __m256 scale = flash__scales_avx2(p + 208, row);
    int k;
    FLASH__UNROLL for (k = 0; k < 16; k++) {
        __m256i v = _mm256_sll_epi32(flash__words_avx2(p + 192 + k/4*4, row),
                                     _mm_cvtsi32_si128(24 - k%4*8));
        d[k] = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_srai_epi32(v, 24)));
    }
}

FLASH__T256 static __m256 flash__rows8_q4_0_avx2(const uint8_t *w, size_t row, const flash__q8 *x,
                                                 size_t n)
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 acc = _mm256_setzero_ps();
    size_t b;
    int i;
    for (b = 0; b < n/32; b++, x++) {
        const uint8_t *p = w + 18*b;
        __m256i x0 = _mm256_broadcastsi128_si256(flash__load16_avx2(x->q));
        __m256i x1 = _mm256_broadcastsi128_si256(flash__load16_avx2(x->q + 16));
        __m256i s[4], sum;
        flash__fetch_avx2(w, row, 18*b, 18);
        FLASH__UNROLL for (i = 0; i < 4; i++) {
            __m256i v = flash__pair_avx2(p + 2 + (size_t)i*row, row);
            s[i] = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(v, low), x0),
                                    _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(v, 4),
                                            low), x1));
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
    for (b = 0; b < n/32; b++, x++) {
        const uint8_t *p = w + 34*b;
        __m256i q = flash__load_avx2(x->q), s[8], first, second;
        flash__fetch_avx2(w, row, 34*b, 34);
        FLASH__UNROLL for (i = 0; i < 8; i++) {
            __m256i v = flash__load_avx2(p + 2 + (size_t)i*row);
            s[i] = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_sign_epi8(v, v),
                                                          _mm256_sign_epi8(q, v)), ones);
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
    for (b = 0; b < n/256; b++, x += 8) {
        const uint8_t *p = w + 144*b;
        __m256 d[8], m[8];
        flash__scales_q4_k_avx2(p, row, d, m);
        for (k = 0; k < 8; k++) {
            __m256i q = flash__load_avx2(x[k].q), s[8], first, second;
            if (!(k & 1)) flash__fetch_avx2(w, row, 144*b + 36*(size_t)(k/2), 36);
            FLASH__UNROLL for (i = 0; i < 8; i++) {
                __m256i v = flash__load_avx2(p + 16 + 32*(k/2) + (size_t)i*row);
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
    for (b = 0; b < n/256; b++, x += 8) {
        const uint8_t *p = w + 210*b;
        __m256 d[16];
        flash__scales_q6_k_avx2(p, row, d);
        for (k = 0; k < 8; k++) {
            const uint8_t *ql = p + k/4*64 + (k & 1)*32, *qh = p + 128 + k/4*32;
            __m256i q = flash__load_avx2(x[k].q), s[8], first, second;
            flash__fetch_avx2(w, row, 210*b + 26*(size_t)k, 27);
            FLASH__UNROLL for (i = 0; i < 8; i++) {
                __m256i l = flash__load_avx2(ql + (size_t)i*row),
                    h = flash__load_avx2(qh + (size_t)i*row);
                if (k & 2) l = _mm256_srli_epi16(l, 4);
                h = _mm256_and_si256(_mm256_srl_epi16(h, _mm_cvtsi32_si128(k%4*2)), two);
                l = _mm256_or_si256(_mm256_and_si256(l, low), _mm256_slli_epi16(h, 4));
                s[i] = _mm256_madd_epi16(_mm256_maddubs_epi16(l, q), ones);
            }
            flash__halves_avx2(s, &first, &second);
            for (i = 0; i < 2; i++) {
                __m256i sum = _mm256_add_epi32(i ? second : first,
                                               _mm256_set1_epi32(x[k].start[i] >> 2));
                acc = flash__step_avx2(acc, sum, d[2*k + i], x[k].d);
            }
        }
    }
    return acc;
}

/* Items 16h to 16h + 15 of block b of rows i and i + 4, as panels hold them. */
FLASH__I256 __m256i flash__items_avx2(const flash_type t, const uint8_t *w, size_t row, size_t b,
                                      int h, int i)
{
    const __m256i low = _mm256_set1_epi8(15);
    const __m128i four = _mm_cvtsi32_si128(4);
    size_t k = b%8, half = 16*(size_t)h;
    __m256i v, high;
    w += (size_t)i*row;
    if (t == FLASH_TYPE_Q8_0) return flash__pair_avx2(w + 34*b + 2 + half, row);
    if (t == FLASH_TYPE_Q4_0) {
        v = flash__pair_avx2(w + 18*b + 2, row);
        return _mm256_and_si256(h ? _mm256_srl_epi16(v, four) : v, low);
    }
    if (t == FLASH_TYPE_Q4_K) {
        v = flash__pair_avx2(w + 144*(b/8) + 16 + 32*(k/2) + half, row);
        return _mm256_and_si256(k & 1 ? _mm256_srl_epi16(v, four) : v, low);
    }
    w += 210*(b/8) + half;
    v = flash__pair_avx2(w + k/4*64 + (k & 1)*32, row);
    high = flash__pair_avx2(w + 128 + k/4*32, row);
    high = _mm256_and_si256(_mm256_srl_epi16(high, _mm_cvtsi32_si128((int)k%4*2)),
                            _mm256_set1_epi8(3));
    v = _mm256_and_si256(k & 2 ? _mm256_srl_epi16(v, four) : v, low);
    return _mm256_or_si256(v, _mm256_slli_epi16(high, 4));
}

/* A panel of eight whole rows. */
FLASH__I256 void flash__pack8_avx2(const flash_type t, const uint8_t *w, size_t row, size_t n,
                                   uint8_t *panel)
{
    size_t b, stride = flash__panel_stride(t, 8);
    __m256 d[16], m[8];
    int h, i;
    for (b = 0; b < n/32; b++, panel += stride) {
        float *scale = (float *)(void *)(panel + 256);
        size_t k = b%8;
        FLASH__UNROLL for (h = 0; h < 2; h++) {
            __m256i v[4], u[4];
            FLASH__UNROLL for (i = 0; i < 4; i++) v[i] = flash__items_avx2(t, w, row, b, h, i);
            u[0] = _mm256_unpacklo_epi32(v[0], v[1]); u[1] = _mm256_unpackhi_epi32(v[0], v[1]);
            u[2] = _mm256_unpacklo_epi32(v[2], v[3]); u[3] = _mm256_unpackhi_epi32(v[2], v[3]);
            v[0] = _mm256_unpacklo_epi64(u[0], u[2]); v[1] = _mm256_unpackhi_epi64(u[0], u[2]);
            v[2] = _mm256_unpacklo_epi64(u[1], u[3]); v[3] = _mm256_unpackhi_epi64(u[1], u[3]);
            FLASH__UNROLL for (i = 0; i < 4; i++)
                _mm256_storeu_si256((__m256i *)(void *)(panel + 128*h + 32*i), v[i]);
        }
        if (t == FLASH_TYPE_Q4_0) _mm256_storeu_ps(scale, flash__scales_avx2(w + 18*b, row));
        if (t == FLASH_TYPE_Q8_0) _mm256_storeu_ps(scale, flash__scales_avx2(w + 34*b, row));
        if (t == FLASH_TYPE_Q4_K) {
            if (k == 0) flash__scales_q4_k_avx2(w + 144*(b/8), row, d, m);
            _mm256_storeu_ps(scale, d[k]);
            _mm256_storeu_ps(scale + 8, m[k]);
        }
        if (t == FLASH_TYPE_Q6_K) {
            if (k == 0) flash__scales_q6_k_avx2(w + 210*(b/8), row, d);
            _mm256_storeu_ps(scale, d[2*k]);
            _mm256_storeu_ps(scale + 8, d[2*k + 1]);
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

/* Sixteen lanes in two registers, summed in the order of flash__tree16. */
FLASH__I256 float flash__tree_avx2(__m256 lo, __m256 hi)
{
    __m256 a = _mm256_add_ps(lo, hi);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
FLASH__I256 __m256 flash__plain_avx2(const flash_type t, const uint8_t *row, size_t i)
{
    __m128i h;
    if (t == FLASH_TYPE_F32) return _mm256_loadu_ps((const float *)(const void *)(row + 4*i));
    h = _mm_loadu_si128((const __m128i *)(const void *)(row + 2*i));
    return t == FLASH_TYPE_F16 ? _mm256_cvtph_ps(h)
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
            lo = _mm256_add_ps(lo, _mm256_mul_ps(flash__plain_avx2(t, w, i),
                                                 _mm256_loadu_ps(x + i)));
            hi = _mm256_add_ps(hi, _mm256_mul_ps(flash__plain_avx2(t, w, i + 8),
                                                 _mm256_loadu_ps(x + i + 8)));
        }
        if (i == n) { y[r] = flash__tree_avx2(lo, hi); continue; }
        _mm256_storeu_ps(lane, lo);
        _mm256_storeu_ps(lane + 8, hi);
        for (; i < n; i++) lane[i & 15] = lane[i & 15] + flash__plain(t, w, i)*x[i];
        y[r] = flash__tree16(lane);
    }
}

FLASH__T256 static void flash__rows_avx2(flash_type t, const uint8_t *w, size_t row_bytes,
                                         int rows, const void *x, size_t n, float *y)
{
    const flash__q8 *q = (const flash__q8 *)x;
    int r;
    switch (t) {
    case FLASH_TYPE_F32:  flash__rows_plain_avx2(FLASH_TYPE_F32, w, row_bytes, rows,
                                                 (const float *)x, n, y); return;
    case FLASH_TYPE_F16:  flash__rows_plain_avx2(FLASH_TYPE_F16, w, row_bytes, rows,
                                                 (const float *)x, n, y); return;
    case FLASH_TYPE_BF16: flash__rows_plain_avx2(FLASH_TYPE_BF16, w, row_bytes, rows,
                                                 (const float *)x, n, y); return;
    case FLASH_TYPE_Q4_0: case FLASH_TYPE_Q8_0: case FLASH_TYPE_Q4_K: case FLASH_TYPE_Q6_K: break;
    default: flash__rows_packed(t, w, row_bytes, rows, q, n, y, 8, flash__pack_avx2,
                                flash__panel_on_avx2); return;
    }
    for (r = 0; r + 8 <= rows; r += 8, w += 8*row_bytes) {
        switch (t) {
        case FLASH_TYPE_Q4_0: _mm256_storeu_ps(y + r, flash__rows8_q4_0_avx2(w, row_bytes, q, n));
        break;
        case FLASH_TYPE_Q8_0: _mm256_storeu_ps(y + r, flash__rows8_q8_0_avx2(w, row_bytes, q, n));
        break;
        case FLASH_TYPE_Q4_K: _mm256_storeu_ps(y + r, flash__rows8_q4_k_avx2(w, row_bytes, q, n));
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
    for (b = 0; b < n/32; b++, x += 32, y++) {
        __m256 v[4], m = _mm256_setzero_ps();
        __m256i q[4], s;
        __m128i a[2];
        int sum[2];
        float amax, inverse;
        FLASH__UNROLL for (i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8*i);
            m = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), m);
        }
        amax = flash__max_avx2(m);
        if (!(amax <= 3e38f)) amax = 3e38f;
        inverse = amax > 1e-30f ? 127.0f/amax : 0.0f;
        FLASH__UNROLL for (i = 0; i < 4; i++)
            q[i] = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(_mm256_mul_ps(v[i],
                    _mm256_set1_ps(inverse)), most), least));
        s = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        s = _mm256_permutevar8x32_epi32(s, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)y->q, s);
        for (i = 0; i < 2; i++) {
            s = _mm256_add_epi32(q[2*i], q[2*i + 1]);
            a[i] = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
            a[i] = _mm_hadd_epi32(a[i], a[i]);
            sum[i] = _mm_cvtsi128_si32(_mm_hadd_epi32(a[i], a[i]));
        }
        flash__q8_sums(y, amax, sum[0], sum[1]);
    }
}

/* e^x, step by step as flash__expf. */
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
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n),
                                                                   _mm256_set1_epi32(127)), 23)));
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

FLASH__T256 static float flash__softmax_avx2(float *x, float scale, int from, int to, float *total)
{
    const __m256i item = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 low = _mm256_set1_ps(-3.4e38f);
    __m256 lanes[2], most = low, in[8], v[8];
    float best;
    int i;
    lanes[0] = lanes[1] = _mm256_setzero_ps();
    for (i = 0; i < 8; i++) {
        __m256i at = _mm256_add_epi32(item, _mm256_set1_epi32(8*i));
        in[i] = _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(from),
                at),
                                                        _mm256_cmpgt_epi32(_mm256_set1_epi32(to),
                                                                at)));
        v[i] = _mm256_mul_ps(_mm256_loadu_ps(x + 8*i), _mm256_set1_ps(scale));
        most = _mm256_max_ps(_mm256_blendv_ps(low, v[i], in[i]), most);
    }
    best = flash__max_avx2(most);
    for (i = 0; i < 8; i++) {
        v[i] = _mm256_and_ps(in[i], flash__exp_avx2(_mm256_sub_ps(v[i], _mm256_set1_ps(best))));
        _mm256_storeu_ps(x + 8*i, v[i]);
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
    r = 1.0f/sqrtf(sum/(float)n + eps);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i,
                         _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(r)),
                                       _mm256_loadu_ps(w + i)));
    for (; i < n; i++) y[i] = x[i]*r*w[i];
}

/* MT rows of c by 16 columns. */
FLASH__I256 void flash__sgemm_tile_avx2(const float *a, size_t lda, const float *b, size_t ldb,
                                        float *c, size_t ldc, int K, const int MT)
{
    __m256 acc[6][2];
    int i, k;
    FLASH__UNROLL for (i = 0; i < MT; i++) acc[i][0] = acc[i][1] = _mm256_setzero_ps();
    for (k = 0; k < K; k++, b += ldb) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
        FLASH__UNROLL for (i = 0; i < MT; i++) {
            __m256 v = _mm256_set1_ps(a[(size_t)i*lda + (size_t)k]);
            acc[i][0] = _mm256_add_ps(acc[i][0], _mm256_mul_ps(v, b0));
            acc[i][1] = _mm256_add_ps(acc[i][1], _mm256_mul_ps(v, b1));
        }
    }
    FLASH__UNROLL for (i = 0; i < MT; i++) {
        _mm256_storeu_ps(c + (size_t)i*ldc, acc[i][0]);
        _mm256_storeu_ps(c + (size_t)i*ldc + 8, acc[i][1]);
    }
}

FLASH__T256 static void flash__sgemm_avx2(const float *a, size_t lda, const float *b, size_t ldb,
                                          float *c, size_t ldc, int M, int N, int K)
{
    int i, j;
    for (j = 0; j + 16 <= N; j += 16) {
        for (i = 0; i + 4 <= M; i += 4)
            flash__sgemm_tile_avx2(a + (size_t)i*lda, lda, b + j, ldb, c + (size_t)i*ldc + j, ldc,
                                   K, 4);
        for (; i < M; i++) flash__sgemm_tile_avx2(a + (size_t)i*lda, lda, b + j, ldb,
                                                  c + (size_t)i*ldc + j, ldc, K, 1);
    }
    if (j < N) flash__sgemm_scalar(a, lda, b + j, ldb, c + j, ldc, M, N - j, K);
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
                                       _mm256_mul_ps(_mm256_loadu_ps(x + i),
                                                     _mm256_set1_ps(add))));
    flash__blend_scalar(y + i, keep, x + i, add, n - i);
}

FLASH__T256 static double flash__spin_avx2(int rounds)
{
    __m256i a[8], x = _mm256_set1_epi8((char)(rounds & 15)), w = _mm256_set1_epi8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm256_set1_epi16((short)i);
    for (r = 0; r < rounds; r++) {
        FLASH__UNROLL for (i = 0; i < 8; i++) {
            FLASH__OPAQUE(x); /* or the product would be taken out of the loop */
            a[i] = _mm256_add_epi16(a[i], _mm256_maddubs_epi16(x, w));
        }
    }
    for (i = 1; i < 8; i++) a[0] = _mm256_add_epi16(a[0], a[i]);
    return _mm256_extract_epi32(a[0], 0) == 12345 ? 0 : 8.0*64*rounds;
}

FLASH__T256 static double flash__spin_avxvnni(int rounds)
{
    __m256i a[8], x = _mm256_set1_epi8((char)(rounds & 15)), w = _mm256_set1_epi8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm256_set1_epi32(i);
    for (r = 0; r < rounds; r++) {
        FLASH__UNROLL for (i = 0; i < 8; i++) FLASH__DPBUSD(a[i], x, w);
    }
    for (i = 1; i < 8; i++) a[0] = _mm256_add_epi32(a[0], a[i]);
    return _mm_cvtsi128_si32(_mm256_castsi256_si128(a[0])) == 12345 ? 0 : 8.0*64*rounds;
}

FLASH__T256 static uint64_t flash__read_avx2(const uint8_t *p, size_t n)
{
    __m256i a = _mm256_setzero_si256(), b = a;
    uint64_t out[4];
    size_t i;
    for (i = 0; i + 128 <= n; i += 128) {
        _mm_prefetch((const char *)p + i + 4096, _MM_HINT_T0);
        _mm_prefetch((const char *)p + i + 4160, _MM_HINT_T0);
        a = _mm256_add_epi64(a, _mm256_add_epi64(flash__load_avx2(p + i),
                                                 flash__load_avx2(p + i + 32)));
        b = _mm256_add_epi64(b, _mm256_add_epi64(flash__load_avx2(p + i + 64),
                                                 flash__load_avx2(p + i + 96)));
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
    k->pack = flash__pack_avx2;         k->panel = flash__panel_avx2;
    k->rows = flash__rows_avx2;         k->quantize = flash__quantize_avx2;
    k->glu = flash__glu_avx2; k->softmax = flash__softmax_avx2;
    k->rmsnorm = flash__rmsnorm_avx2;   k->sgemm = flash__sgemm_avx2;
    k->spin = flash__spin_avx2;         k->read = flash__read_avx2;
    k->widen = flash__widen_avx2;       k->blend = flash__blend_avx2;
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
   and later. Sixteen lanes are sixteen rows, so a float step keeps the order of the scalar kernels
   for free. vpdpbusd multiplies unsigned by signed bytes: panels carry weights +128 and sums start
   at -128 times the sum of the activations. rows: sixteen rows side by side; partial sums of whole
   integers are added across lanes in a tree, any order. */

#ifdef FLASH__AVX512
#if defined(__GNUC__) && !defined(__clang__) /* GCC 12 warns inside its own avx512fintrin.h */
#  pragma GCC diagnostic push
#  pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#  pragma GCC diagnostic ignored "-Wuninitialized"
#  pragma GCC diagnostic ignored "-Wsign-conversion"
#endif
#define FLASH__T512 FLASH__TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#define FLASH__I512 FLASH__T512 static FLASH__INLINE

/* 16 rows by NT tokens; carry: y holds the sums so far. */
FLASH__I512 void flash__tile_avx512(const uint8_t *panel, size_t stride, int rows,
                                    const flash__q8 *x, size_t blocks, float *y, size_t ldy,
                                    int carry, const int NT, const int parts, const int minima)
{
    __m512 acc[8];
    __mmask16 keep = (__mmask16)((1u << rows) - 1);
    size_t b;
    int t, h, k;
    FLASH__UNROLL for (t = 0; t < NT; t++)
        acc[t] = carry ? _mm512_maskz_loadu_ps(keep, y + (size_t)t*ldy) : _mm512_setzero_ps();
    for (b = 0; b < blocks; b++, panel += stride, x++) {
        const float *scale = (const float *)(const void *)(panel + 512);
        FLASH__UNROLL for (h = 0; h < parts; h++) {
            __m512i sum[8];
            __m512 d = _mm512_loadu_ps(scale + 16*h);
            FLASH__UNROLL for (t = 0; t < NT; t++)
                sum[t] = _mm512_set1_epi32(x[(size_t)t*blocks].start[parts == 2 ? h : 2]);
            FLASH__UNROLL for (k = 0; k < 8/parts; k++) {
                __m512i v = _mm512_loadu_si512(panel + 64*(k + h*4));
                FLASH__UNROLL for (t = 0; t < NT; t++) {
                    int32_t q;
                    memcpy(&q, x[(size_t)t*blocks].q + 4*(k + h*4), 4);
                    sum[t] = _mm512_dpbusd_epi32(sum[t], v, _mm512_set1_epi32(q));
                }
            }
            FLASH__UNROLL for (t = 0; t < NT; t++) {
                __m512 s = _mm512_mul_ps(d, _mm512_set1_ps(x[(size_t)t*blocks].d));
                acc[t] = _mm512_add_ps(acc[t], _mm512_mul_ps(_mm512_cvtepi32_ps(sum[t]), s));
            }
            if (minima) {
                __m512 m = _mm512_loadu_ps(scale + 16*(parts + h));
                FLASH__UNROLL for (t = 0; t < NT; t++)
                    acc[t] = _mm512_add_ps(acc[t], _mm512_mul_ps(m,
                                           _mm512_set1_ps(x[(size_t)t*blocks].ds[parts == 2 ? h
                                                   : 2])));
            }
        }
    }
    FLASH__UNROLL for (t = 0; t < NT; t++) _mm512_mask_storeu_ps(y + (size_t)t*ldy, keep, acc[t]);
}

#define FLASH__PANEL_AVX512(NT, parts, minima) \
    for (; tokens >= NT; tokens -= NT, x += NT*blocks, y += NT*ldy) \
        flash__tile_avx512(panel, stride, rows, x, blocks, y, ldy, carry, NT, parts, minima);
#define FLASH__PANELS_AVX512(parts, minima) do { \
    FLASH__PANEL_AVX512(8, parts, minima) FLASH__PANEL_AVX512(4, parts, minima) \
    FLASH__PANEL_AVX512(1, parts, minima) \
    } while (0)

FLASH__T512 static void flash__panel_on_avx512(flash_type t, const uint8_t *panel, int rows,
                                               const flash__q8 *x, int tokens, size_t n, float *y,
                                               size_t ldy, int carry)
{
    size_t stride = flash__panel_stride(t, 16), blocks = n/32;
    if (!flash__type_minima(t)) {
        if (flash__type_halves(t)) FLASH__PANELS_AVX512(2, 0);
        else FLASH__PANELS_AVX512(1, 0);
    } else if (flash__type_halves(t)) FLASH__PANELS_AVX512(2, 1);
    else FLASH__PANELS_AVX512(1, 1);
}

static void flash__panel_avx512(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                                int tokens, size_t n, float *y, size_t ldy)
{
    flash__panel_on_avx512(t, panel, rows, x, tokens, n, y, ldy, 0);
}

/* Sixteen f16 scales, one from each row. */
FLASH__I512 __m512 flash__scales_avx512(const uint8_t *p, size_t row)
{
    __m128i lo = _mm_setzero_si128(), hi = lo;
#define FLASH__X(i) \
    lo = _mm_insert_epi16(lo, (short)flash__rd16(p + (i)*row), i); \
    hi = _mm_insert_epi16(hi, (short)flash__rd16(p + ((i) + 8)*row), i);
    FLASH__X(0) FLASH__X(1) FLASH__X(2) FLASH__X(3) FLASH__X(4) FLASH__X(5) FLASH__X(6) FLASH__X(7)
#undef FLASH__X
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(lo), hi, 1));
}

/* 16 bytes of rows r, r+4, r+8, r+12; and 32 bytes of rows r, r+4. */
FLASH__I512 __m512i flash__quads_avx512(const uint8_t *p, size_t row)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 4*row)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 8*row)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 12*row)), 3);
}
FLASH__I512 __m512i flash__pairs_avx512(const uint8_t *p, size_t row)
{
    __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)(const void *)(p + 4*row)), 1);
}

/* In each 128-bit lane: the sums of a, b, c, d there. */
FLASH__I512 __m512i flash__sum4_avx512(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}
/* Products of 32 bytes of 16 rows (8 registers from flash__pairs_avx512) with x: the sums of the
   rows' first and second 16 items, in order of rows. */
FLASH__I512 void flash__dot16_avx512(const __m512i *w, __m512i x, __m512i *first, __m512i *second)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i a = flash__sum4_avx512(_mm512_dpbusd_epi32(zero, w[0], x),
                                   _mm512_dpbusd_epi32(zero, w[1], x),
                                   _mm512_dpbusd_epi32(zero, w[2], x),
                                       _mm512_dpbusd_epi32(zero, w[3], x));
    __m512i b = flash__sum4_avx512(_mm512_dpbusd_epi32(zero, w[4], x),
                                   _mm512_dpbusd_epi32(zero, w[5], x),
                                   _mm512_dpbusd_epi32(zero, w[6], x),
                                       _mm512_dpbusd_epi32(zero, w[7], x));
    *first = _mm512_shuffle_i32x4(a, b, 0x88);
    *second = _mm512_shuffle_i32x4(a, b, 0xdd);
}

FLASH__I512 __m512 flash__step_avx512(__m512 acc, __m512i sum, __m512 d, float dx)
{
    return _mm512_add_ps(acc, _mm512_mul_ps(_mm512_cvtepi32_ps(sum),
                                            _mm512_mul_ps(d, _mm512_set1_ps(dx))));
}
FLASH__I512 __m512i flash__x32_avx512(const flash__q8 *x)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)x->q));
}
/* 32 bits of each row. Rows are shorter than 128 MB (FLASH_DIM_MAX). */
FLASH__I512 __m512i flash__words_avx512(const uint8_t *p, size_t row)
{
    return _mm512_i32gather_epi32(_mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8,
            9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32((int)row)), (const void *)p, 1);
}
/* Byte k%4 of each, as an integer. */
FLASH__I512 __m512 flash__byte_avx512(__m512i v, int k)
{
    v = _mm512_srl_epi32(v, _mm_cvtsi32_si128(k%4*8));
    return _mm512_cvtepi32_ps(_mm512_and_si512(v, _mm512_set1_epi32(255)));
}
FLASH__I512 void flash__fetch_avx512(const uint8_t *p, size_t row, size_t at, size_t bytes)
{
    /* The same share of rows further on, in file order: far ahead into the second level, the next
       16 rows into the first where they fit there. */
    size_t i;
    for (i = 0; i < 16*bytes; i += 64) {
        _mm_prefetch((const char *)p + 98304 + 16*at + i, _MM_HINT_T1);
        if (row <= 1536) _mm_prefetch((const char *)p + 16*row + 16*at + i, _MM_HINT_T0);
    }
}

/* Scales and minima of the 8 blocks of a Q4_K block of 256. */
FLASH__I512 void flash__scales_q4_k_avx512(const uint8_t *p, size_t row, __m512 *d, __m512 *m)
{
    const __m512i six = _mm512_set1_epi32(0x3f3f3f3f), four = _mm512_set1_epi32(0x0f0f0f0f),
        high = _mm512_set1_epi32(0x30303030);
    __m512 scale = flash__scales_avx512(p, row), least = flash__scales_avx512(p + 2, row);
    __m512i a = flash__words_avx512(p + 4, row), b = flash__words_avx512(p + 8, row),
        c = flash__words_avx512(p + 12, row), s[2], t[2]; /* a byte each of parts 0-3 and 4-7 */
    int k;
    s[0] = _mm512_and_si512(a, six);
    t[0] = _mm512_and_si512(b, six);
    s[1] = _mm512_or_si512(_mm512_and_si512(c, four),
                           _mm512_and_si512(_mm512_srli_epi32(a, 2), high));
    t[1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 4), four),
                           _mm512_and_si512(_mm512_srli_epi32(b, 2), high));
    FLASH__UNROLL for (k = 0; k < 8; k++) {
        d[k] = _mm512_mul_ps(scale, flash__byte_avx512(s[k/4], k));
        m[k] = _mm512_xor_ps(_mm512_mul_ps(least, flash__byte_avx512(t[k/4], k)),
                             _mm512_set1_ps(-0.0f));
    }
}
/* Scales of the 16 halves of blocks of a Q6_K block of 256. */
FLASH__I512 void flash__scales_q6_k_avx512(const uint8_t *p, size_t row, __m512 *d)
{
    __m512 scale = flash__scales_avx512(p + 208, row);
    int k;
    FLASH__UNROLL for (k = 0; k < 16; k++) {
        __m512i v = _mm512_sll_epi32(flash__words_avx512(p + 192 + k/4*4, row),
                                     _mm_cvtsi32_si128(24 - k%4*8));
        d[k] = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_srai_epi32(v, 24)));
    }
}

FLASH__T512 static __m512 flash__rows16_q4_0_avx512(const uint8_t *w, size_t row,
                                                    const flash__q8 *x, size_t n)
{
    const __m512i low = _mm512_set1_epi8(15), zero = _mm512_setzero_si512();
    __m512 acc = _mm512_setzero_ps();
    size_t b;
    int i;
    for (b = 0; b < n/32; b++, x++) {
        const uint8_t *p = w + 18*b;
        __m512i x0 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)x->q));
        __m512i x1 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(x->q
                + 16)));
        __m512i s[4], sum;
        flash__fetch_avx512(w, row, 18*b, 18);
        FLASH__UNROLL for (i = 0; i < 4; i++) {
            __m512i v = flash__quads_avx512(p + 2 + (size_t)i*row, row);
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
    for (b = 0; b < n/32; b++, x++) {
        const uint8_t *p = w + 34*b;
        __m512i v[8], first, second;
        flash__fetch_avx512(w, row, 34*b, 34);
        FLASH__UNROLL for (i = 0; i < 8; i++)
            v[i] = _mm512_xor_si512(flash__pairs_avx512(p + 2 + (size_t)(i + i/4*4)*row, row),
                                    flip);
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
    for (b = 0; b < n/256; b++, x += 8) {
        const uint8_t *p = w + 144*b;
        __m512 d[8], m[8];
        flash__scales_q4_k_avx512(p, row, d, m);
        for (k = 0; k < 8; k++) {
            __m512i v[8], first, second;
            if (!(k & 1)) flash__fetch_avx512(w, row, 144*b + 36*(size_t)(k/2), 36);
            FLASH__UNROLL for (i = 0; i < 8; i++) {
                v[i] = flash__pairs_avx512(p + 16 + 32*(k/2) + (size_t)(i + i/4*4)*row, row);
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
    for (b = 0; b < n/256; b++, x += 8) {
        const uint8_t *p = w + 210*b;
        __m512 d[16];
        flash__scales_q6_k_avx512(p, row, d);
        for (k = 0; k < 8; k++) {
            const uint8_t *ql = p + k/4*64 + (k & 1)*32, *qh = p + 128 + k/4*32;
            __m512i v[8], first, second;
            flash__fetch_avx512(w, row, 210*b + 26*(size_t)k, 27);
            FLASH__UNROLL for (i = 0; i < 8; i++) {
                size_t at = (size_t)(i + i/4*4)*row;
                __m512i l = flash__pairs_avx512(ql + at, row),
                    h = flash__pairs_avx512(qh + at, row);
                if (k & 2) l = _mm512_srli_epi16(l, 4);
                h = _mm512_and_si512(_mm512_srl_epi16(h, _mm_cvtsi32_si128(k%4*2)), two);
                v[i] = _mm512_or_si512(_mm512_and_si512(l, low), _mm512_slli_epi16(h, 4));
            }
            flash__dot16_avx512(v, flash__x32_avx512(x + k), &first, &second);
            for (i = 0; i < 2; i++) {
                __m512i sum = _mm512_add_epi32(i ? second : first,
                                               _mm512_set1_epi32(x[k].start[i] >> 2));
                acc = flash__step_avx512(acc, sum, d[2*k + i], x[k].d);
            }
        }
    }
    return acc;
}

/* Items 16h to 16h + 15 of block b of rows i, i + 4, i + 8, i + 12, with 128 added. */
FLASH__I512 __m512i flash__items_avx512(const flash_type t, const uint8_t *w, size_t row, size_t b,
                                        int h, int i)
{
    const __m512i low = _mm512_set1_epi8(15);
    const __m128i four = _mm_cvtsi32_si128(4);
    size_t k = b%8, half = 16*(size_t)h;
    __m512i v, high;
    w += (size_t)i*row;
    if (t == FLASH_TYPE_Q8_0)
        return _mm512_xor_si512(flash__quads_avx512(w + 34*b + 2 + half, row),
                                _mm512_set1_epi8(-128));
    if (t == FLASH_TYPE_Q4_0) {
        v = flash__quads_avx512(w + 18*b + 2, row);
        v = _mm512_and_si512(h ? _mm512_srl_epi16(v, four) : v, low);
        return _mm512_add_epi8(v, _mm512_set1_epi8(120));
    }
    if (t == FLASH_TYPE_Q4_K) {
        v = flash__quads_avx512(w + 144*(b/8) + 16 + 32*(k/2) + half, row);
        v = _mm512_and_si512(k & 1 ? _mm512_srl_epi16(v, four) : v, low);
        return _mm512_or_si512(v, _mm512_set1_epi8(-128));
    }
    w += 210*(b/8) + half;
    v = flash__quads_avx512(w + k/4*64 + (k & 1)*32, row);
    high = flash__quads_avx512(w + 128 + k/4*32, row);
    high = _mm512_and_si512(_mm512_srl_epi16(high, _mm_cvtsi32_si128((int)k%4*2)),
                            _mm512_set1_epi8(3));
    v = _mm512_and_si512(k & 2 ? _mm512_srl_epi16(v, four) : v, low);
    return _mm512_add_epi8(_mm512_or_si512(v, _mm512_slli_epi16(high, 4)), _mm512_set1_epi8(96));
}

/* A panel of sixteen whole rows. */
FLASH__I512 void flash__pack16_avx512(const flash_type t, const uint8_t *w, size_t row, size_t n,
                                      uint8_t *panel)
{
    size_t b, stride = flash__panel_stride(t, 16);
    __m512 d[16], m[8];
    int h, i;
    for (b = 0; b < n/32; b++, panel += stride) {
        float *scale = (float *)(void *)(panel + 512);
        size_t k = b%8;
        FLASH__UNROLL for (h = 0; h < 2; h++) {
            __m512i v[4], u[4];
            FLASH__UNROLL for (i = 0; i < 4; i++) v[i] = flash__items_avx512(t, w, row, b, h, i);
            u[0] = _mm512_unpacklo_epi32(v[0], v[1]); u[1] = _mm512_unpackhi_epi32(v[0], v[1]);
            u[2] = _mm512_unpacklo_epi32(v[2], v[3]); u[3] = _mm512_unpackhi_epi32(v[2], v[3]);
            v[0] = _mm512_unpacklo_epi64(u[0], u[2]); v[1] = _mm512_unpackhi_epi64(u[0], u[2]);
            v[2] = _mm512_unpacklo_epi64(u[1], u[3]); v[3] = _mm512_unpackhi_epi64(u[1], u[3]);
            FLASH__UNROLL for (i = 0; i < 4; i++)
                _mm512_storeu_si512(panel + 256*h + 64*i, v[i]);
        }
        if (t == FLASH_TYPE_Q4_0) _mm512_storeu_ps(scale, flash__scales_avx512(w + 18*b, row));
        if (t == FLASH_TYPE_Q8_0) _mm512_storeu_ps(scale, flash__scales_avx512(w + 34*b, row));
        if (t == FLASH_TYPE_Q4_K) {
            if (k == 0) flash__scales_q4_k_avx512(w + 144*(b/8), row, d, m);
            _mm512_storeu_ps(scale, d[k]);
            _mm512_storeu_ps(scale + 16, m[k]);
        }
        if (t == FLASH_TYPE_Q6_K) {
            if (k == 0) flash__scales_q6_k_avx512(w + 210*(b/8), row, d);
            _mm512_storeu_ps(scale, d[2*k]);
            _mm512_storeu_ps(scale + 16, d[2*k + 1]);
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

/* Sum over lanes in the order of flash__tree16. */
FLASH__I512 float flash__tree_avx512(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

/* Sixteen floats of an F32, F16 or BF16 row; zeros where the mask has none. */
FLASH__I512 __m512 flash__plain_avx512(flash_type t, const uint8_t *row, size_t i, __mmask16 m)
{
    __m256i h;
    if (t == FLASH_TYPE_F32) return _mm512_maskz_loadu_ps(m, row + 4*i);
    h = _mm256_maskz_loadu_epi16(m, row + 2*i);
    return t == FLASH_TYPE_F16 ? _mm512_cvtph_ps(h)
        : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

FLASH__I512 void flash__rows_plain_avx512(const flash_type t, const uint8_t *w, size_t row,
                                          int rows, const float *x, size_t n, float *y)
{
    int r, k;
    for (r = 0; r < rows; r += 4, w += 4*row) {
        __m512 acc[4];
        size_t i;
        int R = FLASH__MIN(rows - r, 4);
        FLASH__UNROLL for (k = 0; k < 4; k++) acc[k] = _mm512_setzero_ps();
        for (i = 0; i < n; i += 16) {
            __mmask16 m = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
            __m512 v = _mm512_maskz_loadu_ps(m, x + i);
            /* missing lanes add zero: x and w are zero there */
            FLASH__UNROLL for (k = 0; k < 4; k++)
                acc[k] = _mm512_mask_add_ps(acc[k], m, acc[k],
                                            _mm512_mul_ps(flash__plain_avx512(t,
                        w + (size_t)(k < R ? k : 0)*row, i, m), v));
        }
        for (k = 0; k < R; k++) y[r + k] = flash__tree_avx512(acc[k]);
    }
}

FLASH__T512 static void flash__rows_avx512(flash_type t, const uint8_t *w, size_t row_bytes,
                                           int rows, const void *x, size_t n, float *y)
{
    const flash__q8 *q = (const flash__q8 *)x;
    int r;
    switch (t) {
    case FLASH_TYPE_F32:  flash__rows_plain_avx512(FLASH_TYPE_F32, w, row_bytes, rows,
                                                   (const float *)x, n, y); return;
    case FLASH_TYPE_F16:  flash__rows_plain_avx512(FLASH_TYPE_F16, w, row_bytes, rows,
                                                   (const float *)x, n, y); return;
    case FLASH_TYPE_BF16: flash__rows_plain_avx512(FLASH_TYPE_BF16, w, row_bytes, rows,
                                                   (const float *)x, n, y); return;
    case FLASH_TYPE_Q4_0: case FLASH_TYPE_Q8_0: case FLASH_TYPE_Q4_K: case FLASH_TYPE_Q6_K: break;
    default: flash__rows_packed(t, w, row_bytes, rows, q, n, y, 16, flash__pack_avx512,
                                flash__panel_on_avx512); return;
    }
    for (r = 0; r + 16 <= rows; r += 16, w += 16*row_bytes) {
        switch (t) {
        case FLASH_TYPE_Q4_0: _mm512_storeu_ps(y + r, flash__rows16_q4_0_avx512(w, row_bytes, q,
                n)); break;
        case FLASH_TYPE_Q8_0: _mm512_storeu_ps(y + r, flash__rows16_q8_0_avx512(w, row_bytes, q,
                n)); break;
        case FLASH_TYPE_Q4_K: _mm512_storeu_ps(y + r, flash__rows16_q4_k_avx512(w, row_bytes, q,
                n)); break;
        default: _mm512_storeu_ps(y + r, flash__rows16_q6_k_avx512(w, row_bytes, q, n));
        }
    }
    flash__rows_scalar(t, w, row_bytes, rows - r, x, n, y + r);
}

FLASH__T512 static void flash__quantize_avx512(const float *x, size_t n, flash__q8 *y)
{
    size_t b;
    for (b = 0; b < n/32; b++, x += 32, y++) {
        __m512 v0 = _mm512_loadu_ps(x), v1 = _mm512_loadu_ps(x + 16), inverse;
        float amax = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(_mm512_abs_ps(v0),
                                                                      _mm512_setzero_ps()),
                                                        _mm512_max_ps(_mm512_abs_ps(v1),
                                                                      _mm512_setzero_ps())));
        __m128i q0, q1;
                if (!(amax <= 3e38f)) amax = 3e38f;
        inverse = _mm512_set1_ps(amax > 1e-30f ? 127.0f/amax : 0.0f);
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

/* e^x, step by step as flash__expf. */
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
            _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n),
                                                                   _mm512_set1_epi32(127)), 23)));
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
        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_mul_ps(_mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f),
                e)), u));
    }
}

FLASH__T512 static float flash__softmax_avx512(float *x, float scale, int from, int to,
                                               float *total)
{
    __m512 v[4], lanes = _mm512_setzero_ps(), most = _mm512_set1_ps(-3.4e38f);
    __mmask16 m[4];
    uint64_t mask = (to < 64 ? ((uint64_t)1 << to) - 1 : ~(uint64_t)0) & ~(((uint64_t)1 << from)
            - 1);
    float best;
    int i;
    FLASH__UNROLL for (i = 0; i < 4; i++) {
        m[i] = (__mmask16)(mask >> 16*i);
        v[i] = _mm512_mul_ps(_mm512_loadu_ps(x + 16*i), _mm512_set1_ps(scale));
        most = _mm512_mask_max_ps(most, m[i], v[i], most);
    }
    best = _mm512_reduce_max_ps(most);
    FLASH__UNROLL for (i = 0; i < 4; i++) {
        v[i] = _mm512_maskz_mov_ps(m[i],
                                   flash__exp_avx512(_mm512_sub_ps(v[i], _mm512_set1_ps(best))));
        _mm512_storeu_ps(x + 16*i, v[i]);
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
    r = _mm512_set1_ps(1.0f/sqrtf(flash__tree_avx512(acc)/(float)n + eps));
    for (i = 0; i < n; i += 16) {
        __mmask16 m = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), r),
                                            _mm512_maskz_loadu_ps(m, w + i)));
    }
}

/* MT rows of c by 64 columns (or as many as the masks have). */
FLASH__I512 void flash__sgemm_tile_avx512(const float *a, size_t lda, const float *b, size_t ldb,
                                          float *c, size_t ldc, int K,
                                          const __mmask16 *m, const int MT)
{
    __m512 acc[4][4], v[4];
    int i, j, k;
    FLASH__UNROLL for (i = 0; i < MT; i++)
        FLASH__UNROLL for (j = 0; j < 4; j++) acc[i][j] = _mm512_setzero_ps();
    for (k = 0; k < K; k++, b += ldb) {
        FLASH__UNROLL for (j = 0; j < 4; j++) v[j] = _mm512_maskz_loadu_ps(m[j], b + 16*j);
        FLASH__UNROLL for (i = 0; i < MT; i++) {
            __m512 x = _mm512_set1_ps(a[(size_t)i*lda + (size_t)k]);
            FLASH__UNROLL for (j = 0; j < 4; j++)
                acc[i][j] = _mm512_add_ps(acc[i][j], _mm512_mul_ps(x, v[j]));
        }
    }
    FLASH__UNROLL for (i = 0; i < MT; i++)
        FLASH__UNROLL for (j = 0; j < 4; j++)
            _mm512_mask_storeu_ps(c + (size_t)i*ldc + 16*j, m[j], acc[i][j]);
}

FLASH__T512 static void flash__sgemm_avx512(const float *a, size_t lda, const float *b, size_t ldb,
                                            float *c, size_t ldc, int M, int N, int K)
{
    __mmask16 m[4];
    int i, j;
    for (j = 0; j < N; j += 64) {
        uint64_t mask = N - j < 64 ? ((uint64_t)1 << (N - j)) - 1 : ~(uint64_t)0;
        for (i = 0; i < 4; i++) m[i] = (__mmask16)(mask >> 16*i);
        for (i = 0; i + 4 <= M; i += 4)
            flash__sgemm_tile_avx512(a + (size_t)i*lda, lda, b + j, ldb, c + (size_t)i*ldc + j,
                                     ldc, K, m, 4);
        for (; i < M; i++) flash__sgemm_tile_avx512(a + (size_t)i*lda, lda, b + j, ldb,
                                                    c + (size_t)i*ldc + j, ldc, K, m, 1);
    }
}

FLASH__T512 static double flash__spin_avx512(int rounds)
{
    __m512i a[8], x = _mm512_set1_epi8((char)(rounds & 15)), w = _mm512_set1_epi8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm512_set1_epi32(i);
    for (r = 0; r < rounds; r++) {
        FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = _mm512_dpbusd_epi32(a[i], x, w);
    }
    for (i = 1; i < 8; i++) a[0] = _mm512_add_epi32(a[0], a[i]);
    return _mm_cvtsi128_si32(_mm512_castsi512_si128(a[0])) == 12345 ? 0 : 8.0*128*rounds;
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
    k->pack = flash__pack_avx512;         k->panel = flash__panel_avx512;
    k->rows = flash__rows_avx512;         k->quantize = flash__quantize_avx512;
    k->glu = flash__glu_avx512; k->softmax = flash__softmax_avx512;
    k->rmsnorm = flash__rmsnorm_avx512;   k->sgemm = flash__sgemm_avx512;
    k->spin = flash__spin_avx512;         k->read = flash__read_avx512;
}
#endif

/* ===== >>k-amx ============================================================ */

/* AMX: Intel Sapphire Rapids (2023) and later. One tile instruction adds the products of 16 tokens,
   16 rows and the 32 (or 16) items of a block: a panel's block is laid out as that wants it. The
   float step between two blocks, the same as in >>k-avx512, is what takes the time. Tiles multiply
   signed bytes, so panels carry weights as they are. They are configured and released in each call:
   nothing of them stays in the caller's thread. KNOWN TRAP: GCC 12's intrinsics do not tell the
   compiler that they read memory, hence FLASH__TILES. */

#ifdef FLASH__AMX
#define FLASH__TAMX \
    FLASH__TARGET("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")

/* Configures tiles; what was written before is there for the tile loads after it. */
#define FLASH__TILES(config) __asm__ volatile ("ldtilecfg %0" : : "m"(config) : "memory")

FLASH__T512 static void flash__pack_amx(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                                        size_t n, uint8_t *panel)
{
    size_t b, i, stride = flash__panel_stride(t, 16);
    flash__pack_avx512(t, w, row_bytes, rows, n, panel);
    for (b = 0; b < n/32; b++, panel += stride)
        for (i = 0; i < 512; i += 64)
            _mm512_storeu_si512(panel + i, _mm512_xor_si512(_mm512_loadu_si512(panel + i),
                                                            _mm512_set1_epi8(-128)));
}

/* Tiles: 0 sums [tokens,16] of int32; 1 and 2 activations [tokens,32] and weights [8,16,4]; 3 and 4
   the same of half a block. */
FLASH__TAMX static void flash__tiles_amx(int tokens)
{
    uint8_t config[64] = { 1 }, *rows = config + 48; /* palette 1; bytes of a row are 16 bits */
    config[16] = 64; config[18] = 32; config[20] = 64; config[22] = 16; config[24] = 64;
    rows[0] = rows[1] = rows[3] = (uint8_t)tokens;
    rows[2] = 8;
    rows[4] = 4;
    FLASH__TILES(config);
}

/* 16 rows by up to 16 tokens. */
FLASH__TAMX static FLASH__INLINE void flash__tile_amx(const uint8_t *panel, size_t stride, int rows,
                                                      const flash__q8 *x, int tokens,
                                                      size_t blocks, float *y, size_t ldy,
                                                      const int parts, const int minima)
{
    __m512 acc[16];
    __m512i sum[16];
    __mmask16 keep = (__mmask16)((1u << rows) - 1);
    const flash__q8 *at[16];
    size_t b, row = blocks*sizeof *x;
    int t, h;
    FLASH__UNROLL for (t = 0; t < 16; t++) {
        at[t] = x + (size_t)FLASH__MIN(t, tokens - 1)*blocks;
        acc[t] = _mm512_setzero_ps();
        sum[t] = _mm512_setzero_si512(); /* beyond the tokens it stays so */
    }
    for (b = 0; b < blocks; b++, panel += stride) {
        const float *scale = (const float *)(const void *)(panel + 512);
        FLASH__UNROLL for (h = 0; h < parts; h++) {
            __m512 d = _mm512_loadu_ps(scale + 16*h);
            _tile_zero(0);
            if (parts == 1) {
                _tile_loadd(1, x[b].q, row);
                _tile_loadd(2, panel, 64);
                _tile_dpbssd(0, 1, 2);
            } else {
                _tile_loadd(3, x[b].q + 16*h, row);
                _tile_loadd(4, panel + 256*h, 64);
                _tile_dpbssd(0, 3, 4);
            }
            _tile_stored(0, sum, 64);
            FLASH__UNROLL for (t = 0; t < 16; t++) {
                __m512 s = _mm512_mul_ps(d, _mm512_set1_ps(at[t][b].d));
                acc[t] = _mm512_add_ps(acc[t], _mm512_mul_ps(_mm512_cvtepi32_ps(sum[t]), s));
            }
            if (minima) {
                __m512 m = _mm512_loadu_ps(scale + 16*(parts + h));
                FLASH__UNROLL for (t = 0; t < 16; t++) {
                    float ds = at[t][b].ds[parts == 2 ? h : 2];
                    acc[t] = _mm512_add_ps(acc[t], _mm512_mul_ps(m, _mm512_set1_ps(ds)));
                }
            }
        }
    }
    FLASH__UNROLL for (t = 0; t < 16; t++)
        if (t < tokens) _mm512_mask_storeu_ps(y + (size_t)t*ldy, keep, acc[t]);
}

FLASH__TAMX static void flash__panel_amx(flash_type t, const uint8_t *panel, int rows,
                                         const flash__q8 *x, int tokens, size_t n, float *y,
                                         size_t ldy)
{
    size_t stride = flash__panel_stride(t, 16), blocks = n/32;
    int halves = flash__type_halves(t), minima = flash__type_minima(t), set = 0, T;
    for (; tokens > 0; tokens -= T, x += (size_t)T*blocks, y += (size_t)T*ldy) {
        T = FLASH__MIN(tokens, 16);
        if (T != set) flash__tiles_amx(set = T);
        if (!minima && !halves) flash__tile_amx(panel, stride, rows, x, T, blocks, y, ldy, 1, 0);
        else if (!minima) flash__tile_amx(panel, stride, rows, x, T, blocks, y, ldy, 2, 0);
        else if (!halves) flash__tile_amx(panel, stride, rows, x, T, blocks, y, ldy, 1, 1);
        else flash__tile_amx(panel, stride, rows, x, T, blocks, y, ldy, 2, 1);
    }
    _tile_release();
}

FLASH__TAMX static double flash__spin_amx(int rounds)
{
    uint8_t config[64] = { 1 };
    int32_t out[256];
    int i, r;
    for (i = 0; i < 6; i++) { config[16 + 2*i] = 64; config[48 + i] = 16; }
    FLASH__TILES(config);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); _tile_zero(4); _tile_zero(5);
    for (r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 5); _tile_dpbssd(1, 4, 5); _tile_dpbssd(2, 4, 5); _tile_dpbssd(3, 4, 5);
    }
    _tile_stored(0, out, 64);
    _tile_release();
    return out[0] == 12345 ? 0 : 4.0*2*16*16*64*rounds;
}

static void flash__overlay_amx(flash__kernels *k)
{
    k->panel_tokens = 16;
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
#  pragma GCC diagnostic pop
#endif
#endif

/* ===== >>k-neon =========================================================== */

/* AArch64. Plain NEON: every processor (Cortex-A53, A72). dotprod: Cortex-A55, A76, Neoverse N1,
   Apple A13 and later. i8mm: Cortex-A510, X2, Neoverse V1, N2, Apple M2 and later.
   A vector of sums holds four rows, so a float step keeps the order of the scalar kernels for free.
   Sums start as the bits of 1.5*2^23: read as a float they are that plus the sum, and a subtraction
   gives the sum as a float. A conversion would use one pipe of the two of an A76, at half speed.
   That start is loaded anew for each block, because the load pipes have time and the vector pipes
   have none.
   Of 96 vector operations of a dotprod tile (32 items, 4 tokens, 8 rows) 64 are sdot, the rest
   float steps: two thirds of the sdot rate is the limit of the order of rounding here. */

#ifdef FLASH__NEON
#define FLASH__INEON static FLASH__INLINE
#if defined(__GNUC__) || defined(__clang__)
#  define FLASH__HIDE(p)  __asm__("" : "+r"(p))
#  define FLASH__HIDEV(v) __asm__ volatile("" : "+w"(v))
#else
#  define FLASH__HIDE(p)  ((void)0)
#  define FLASH__HIDEV(v) ((void)0)
#endif

/* Calls tile(..., parts, minima) with constants. */
#define FLASH__TILES_NEON(t, tile, ...) do { \
    if (!flash__type_minima(t)) { \
        if (flash__type_halves(t)) tile(__VA_ARGS__, 2, 0); else tile(__VA_ARGS__, 1, 0); \
    } else if (flash__type_halves(t)) tile(__VA_ARGS__, 2, 1); \
    else tile(__VA_ARGS__, 1, 1); } while (0)

/* A panel of R rows: [b][32/G groups of G items][R][G] bytes, then scales [parts][R], minima
   [parts][R]. Missing rows become zeros. */
FLASH__INEON void flash__pack_groups_neon(flash_type t, const uint8_t *w, size_t row_bytes,
                                          int rows, size_t n, uint8_t *panel, const int R,
                                          const int G)
{
    flash__unpack_fn unpack = flash__unpacker(t);
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, k, h;
    size_t stride = flash__panel_stride(t, R), i;
    for (r = 0; r < R; r++) {
        uint8_t *p = panel + G*r;
        float *scale = (float *)(void *)(panel + 32*R) + r;
        for (i = 0; i < n/32; i++, p += stride, scale += stride/4) {
            flash__group g;
            if (r < rows) unpack(w + (size_t)r*row_bytes, i, &g);
            else memset(&g, 0, sizeof g);
            FLASH__UNROLL for (k = 0; k < 32/G; k++) memcpy(p + G*R*k, g.q + G*k, (size_t)G);
            for (h = 0; h < parts; h++) {
                scale[R*h] = g.d[h];
                if (minima) scale[R*(parts + h)] = g.m[h];
            }
        }
    }
}

static void flash__pack_neon(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                             uint8_t *panel)
{
    flash__pack_groups_neon(t, w, row_bytes, rows, n, panel, 8, 32);
}

FLASH__INEON float32x4_t flash__floats_neon(int32x4_t sum)
{
    return vsubq_f32(vreinterpretq_f32_s32(sum), vdupq_n_f32(12582912.0f));
}
#define FLASH__X 0x4b400000, 0x4b400000, 0x4b400000, 0x4b400000
static const int32_t flash__start_neon[32] =
    { FLASH__X, FLASH__X, FLASH__X, FLASH__X, FLASH__X, FLASH__X, FLASH__X, FLASH__X };
#undef FLASH__X

/* acc + sum*(d*dx): the one step every quantised product is made of. */
FLASH__INEON float32x4_t flash__step_neon(float32x4_t acc, float32x4_t sum, float32x4_t d, float dx)
{
    return vaddq_f32(acc, vmulq_f32(sum, vmulq_n_f32(d, dx)));
}
FLASH__INEON int32x4_t flash__sum4_neon(const int32x4_t *s)
{
    return vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
}
/* Products of 16 items, in pairs: two of |127*128| fit 16 bits. */
FLASH__INEON int16x8_t flash__mul16_neon(int8x16_t a, int8x16_t b)
{
    int16x8_t p = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    return vmlal_s8(p, vget_high_s8(a), vget_high_s8(b));
}
/* Sums over 4 rows of 32 bytes, q[2*row] and q[2*row + 1]: of both halves, or if second is given of
   the first alone with those of the second in *second. */
FLASH__INEON int32x4_t flash__dots_neon(const int8x16_t *q, int8x16_t x0, int8x16_t x1,
                                        int32x4_t *second)
{
    int32x4_t s[4], u[4];
    int r;
    FLASH__UNROLL for (r = 0; r < 4; r++) {
        s[r] = vpaddlq_s16(flash__mul16_neon(q[2*r], x0));
        if (second) u[r] = vpaddlq_s16(flash__mul16_neon(q[2*r + 1], x1));
        else s[r] = vpadalq_s16(s[r], flash__mul16_neon(q[2*r + 1], x1));
    }
    if (second) *second = flash__sum4_neon(u);
    return flash__sum4_neon(s);
}

/* The first of 4 tokens' rows of blocks, the last one again where there are fewer. */
FLASH__INEON void flash__tokens_neon(const flash__q8 **at, const flash__q8 *x, int tokens,
                                     size_t blocks)
{
    int i;
    for (i = 0; i < 4; i++) at[i] = x + (size_t)FLASH__MIN(i, tokens - 1)*blocks;
}
/* acc[token][row/4] into y. */
FLASH__INEON void flash__store_neon(float32x4_t acc[4][2], int rows, int tokens, float *y,
                                    size_t ldy)
{
    float tile[4][8];
    int t;
    FLASH__UNROLL for (t = 0; t < 4; t++) /* constant indices keep acc in registers */
        { vst1q_f32(tile[t], acc[t][0]); vst1q_f32(tile[t] + 4, acc[t][1]); }
    for (t = 0; t < 4 && t < tokens; t++, y += ldy) memcpy(y, tile[t], (size_t)rows*sizeof *y);
}

/* 8 rows by up to 4 tokens. */
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
    for (b = 0; b < blocks; b++, panel += stride)
        FLASH__UNROLL for (g = 0; g < 2; g++) {
            const float *scale = (const float *)(const void *)(panel + 256) + 4*g;
            int8x16_t q[8];
            FLASH__UNROLL for (i = 0; i < 8; i++)
                q[i] = vreinterpretq_s8_u8(vld1q_u8(panel + 128*g + 16*i));
            FLASH__UNROLL for (t = 0; t < 4; t++) {
                const flash__q8 *v = at[t] + b;
                int32x4_t sum[2];
                sum[0] = flash__dots_neon(q, vld1q_s8(v->q), vld1q_s8(v->q + 16),
                                          parts == 2 ? sum + 1 : NULL);
                FLASH__UNROLL for (h = 0; h < parts; h++) {
                    acc[t][g] = flash__step_neon(acc[t][g], vcvtq_f32_s32(sum[h]),
                                                 vld1q_f32(scale + 8*h), v->d);
                    if (minima) acc[t][g] = vaddq_f32(acc[t][g],
                        vmulq_n_f32(vld1q_f32(scale + 8*(parts + h)), v->ds[parts == 2 ? h : 2]));
                }
            }
        }
    flash__store_neon(acc, rows, tokens, y, ldy);
}

static void flash__panel_neon(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                              int tokens, size_t n, float *y, size_t ldy)
{
    size_t stride = flash__panel_stride(t, 8), blocks = n/32;
    for (; tokens > 0; tokens -= 4, x += 4*blocks, y += 4*ldy)
        FLASH__TILES_NEON(t, flash__tile_neon, panel, stride, rows, x, tokens, blocks, y, ldy);
}

/* --- one token: rows of weights as they lie in the file ---- */

typedef int32x4_t (*flash__dots_fn_neon)(const int8x16_t *q, int8x16_t x0, int8x16_t x1,
                                         int32x4_t *second);

FLASH__INEON uint64_t flash__u16_neon(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
/* The f16 at p of 4 rows. */
FLASH__INEON float32x4_t flash__halves_neon(const uint8_t *p, size_t row)
{
    uint64_t v = flash__u16_neon(p) | flash__u16_neon(p + row) << 16
        | flash__u16_neon(p + 2*row) << 32 | flash__u16_neon(p + 3*row) << 48;
    return vcvt_f32_f16(vreinterpret_f16_u16(vcreate_u16(v)));
}
FLASH__INEON void flash__widen8_neon(uint64_t bytes, float32x4_t *lo, float32x4_t *hi)
{
    uint16x8_t v = vmovl_u8(vcreate_u8(bytes));
    *lo = vcvtq_f32_u32(vmovl_u16(vget_low_u16(v)));
    *hi = vcvtq_f32_u32(vmovl_u16(vget_high_u16(v)));
}

/* Scales d[k][row] and minima m[k][row] of 8 groups of a Q4_K block in each of 4 rows. */
FLASH__INEON void flash__scales_q4_k_neon(const uint8_t *p, size_t row, float *d, float *m)
{
    float32x4x4_t sc[2], mn[2];
    int r, i;
    FLASH__UNROLL for (r = 0; r < 4; r++, p += row) {
        uint32_t u = flash__rd32(p + 4), v = flash__rd32(p + 8), w = flash__rd32(p + 12);
        float32x4_t two = vcvt_f32_f16(vreinterpret_f16_u32(vdup_n_u32(flash__rd32(p))));
        uint32_t hi = (w & 0x0f0f0f0f) | (u >> 2 & 0x30303030);
        flash__widen8_neon((uint64_t)hi << 32 | (u & 0x3f3f3f3f), &sc[0].val[r], &sc[1].val[r]);
        hi = (w >> 4 & 0x0f0f0f0f) | (v >> 2 & 0x30303030);
        flash__widen8_neon((uint64_t)hi << 32 | (v & 0x3f3f3f3f), &mn[0].val[r], &mn[1].val[r]);
        FLASH__UNROLL for (i = 0; i < 2; i++) {
            sc[i].val[r] = vmulq_laneq_f32(sc[i].val[r], two, 0);
            mn[i].val[r] = vnegq_f32(vmulq_laneq_f32(mn[i].val[r], two, 1));
        }
    }
    FLASH__UNROLL for (i = 0; i < 2; i++)
        { vst4q_f32(d + 16*i, sc[i]); vst4q_f32(m + 16*i, mn[i]); }
}

/* Scales d[k][row] of 16 half groups of a Q6_K block in each of 4 rows. */
FLASH__INEON void flash__scales_q6_k_neon(const uint8_t *p, size_t row, float *d)
{
    float32x4x4_t sc[4];
    float32x4_t scale = flash__halves_neon(p + 208, row);
    float each[4];
    int r, i;
    vst1q_f32(each, scale);
    FLASH__UNROLL for (r = 0; r < 4; r++, p += row) {
        int8x16_t v = vreinterpretq_s8_u8(vld1q_u8(p + 192));
        int16x8_t lo = vmovl_s8(vget_low_s8(v)), hi = vmovl_s8(vget_high_s8(v));
        sc[0].val[r] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo)));
        sc[1].val[r] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo)));
        sc[2].val[r] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi)));
        sc[3].val[r] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)));
        FLASH__UNROLL for (i = 0; i < 4; i++) sc[i].val[r] = vmulq_n_f32(sc[i].val[r], each[r]);
    }
    FLASH__UNROLL for (i = 0; i < 4; i++) vst4q_f32(d + 16*i, sc[i]);
}

/* Four rows times x. t and dots are constants where speed matters. */
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
        for (b = 0; b < n/32; b++, x++, w += bytes) {
            FLASH__UNROLL for (r = 0; r < 4; r++) {
                const uint8_t *p = w + (size_t)r*row + 2;
                uint8x16_t v = vld1q_u8(p);
                if (t == FLASH_TYPE_Q4_0) {
                    const int8x16_t eight = vdupq_n_s8(8);
                    q[2*r] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(v, low)), eight);
                    q[2*r + 1] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(v, 4)), eight);
                } else {
                    q[2*r] = vreinterpretq_s8_u8(v);
                    q[2*r + 1] = vreinterpretq_s8_u8(vld1q_u8(p + 16));
                }
            }
            acc = flash__step_neon(acc, vcvtq_f32_s32(dots(q, vld1q_s8(x->q), vld1q_s8(x->q + 16),
                                                           NULL)),
                                   flash__halves_neon(w, row), x->d);
        }
    } else if (t == FLASH_TYPE_Q4_K) {
        for (b = 0; b < n/256; b++, w += 144) {
            float d[8][4], m[8][4];
            flash__scales_q4_k_neon(w, row, d[0], m[0]);
            for (k = 0; k < 8; k += 2) {
                uint8x16_t v[8];
                FLASH__UNROLL for (r = 0; r < 8; r++)
                    v[r] = vld1q_u8(w + (size_t)(r/2)*row + 16 + 16*k + 16*(r & 1));
                FLASH__UNROLL for (i = 0; i < 2; i++, x++) {
                    FLASH__UNROLL for (r = 0; r < 8; r++)
                        q[r] = vreinterpretq_s8_u8(i ? vshrq_n_u8(v[r], 4) : vandq_u8(v[r], low));
                    acc = flash__step_neon(acc, vcvtq_f32_s32(dots(q, vld1q_s8(x->q),
                                                                   vld1q_s8(x->q + 16), NULL)),
                                           vld1q_f32(d[k + i]), x->d);
                    acc = vaddq_f32(acc, vmulq_n_f32(vld1q_f32(m[k + i]), x->ds[2]));
                }
            }
        }
    } else if (t == FLASH_TYPE_Q6_K) {
        const uint8x16_t high = vdupq_n_u8(48);
        for (b = 0; b < n/256; b++, w += 210) {
            float d[16][4];
            flash__scales_q6_k_neon(w, row, d[0]);
            for (k = 0; k < 2; k++)
                FLASH__UNROLL for (i = 0; i < 4; i++, x++) {
                    int32x4_t first, second;
                    FLASH__UNROLL for (r = 0; r < 8; r++) {
                        const uint8_t *p = w + (size_t)(r/2)*row + 16*(r & 1);
                        uint8x16_t l = vld1q_u8(p + 64*k + 32*(i & 1));
                        uint8x16_t h = vld1q_u8(p + 128 + 32*k);
                        l = i < 2 ? vandq_u8(l, low) : vshrq_n_u8(l, 4);
                        h = i == 0 ? vshlq_n_u8(h, 4) : i == 1 ? vshlq_n_u8(h, 2)
                            : i == 2 ? h : vshrq_n_u8(h, 2);
                        l = vorrq_u8(l, vandq_u8(h, high));
                        q[r] = vsubq_s8(vreinterpretq_s8_u8(l), vdupq_n_s8(32));
                    }
                    first = dots(q, vld1q_s8(x->q), vld1q_s8(x->q + 16), &second);
                    acc = flash__step_neon(acc, vcvtq_f32_s32(first),
                                           vld1q_f32(d[8*k + 2*i]), x->d);
                    acc = flash__step_neon(acc, vcvtq_f32_s32(second),
                                           vld1q_f32(d[8*k + 2*i + 1]), x->d);
                }
        }
    } else {
        flash__unpack_fn unpack = flash__unpacker(t);
        int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t);
        for (b = 0; b < n/32; b++, x++) {
            flash__group g;
            float d[2][4], m[2][4];
            int32x4_t first, second;
            for (r = 0; r < 4; r++) {
                unpack(w + (size_t)r*row, b, &g);
                q[2*r] = vld1q_s8(g.q);
                q[2*r + 1] = vld1q_s8(g.q + 16);
                for (i = 0; i < 2; i++) { d[i][r] = g.d[i]; m[i][r] = g.m[i]; }
            }
            first = dots(q, vld1q_s8(x->q), vld1q_s8(x->q + 16), &second);
            if (parts == 1) first = vaddq_s32(first, second);
            for (i = 0; i < parts; i++) {
                acc = flash__step_neon(acc, vcvtq_f32_s32(i ? second : first), vld1q_f32(d[i]),
                                       x->d);
                if (minima) acc = vaddq_f32(acc, vmulq_n_f32(vld1q_f32(m[i]),
                                                             x->ds[parts == 2 ? i : 2]));
            }
        }
    }
    return acc;
}

/* Sum over 16 lanes in the order of flash__tree16. */
FLASH__INEON float flash__tree_neon(const float32x4_t *v)
{
    float32x4_t s = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
    float32x2_t p = vadd_f32(vget_low_f32(s), vget_high_f32(s));
    return vget_lane_f32(p, 0) + vget_lane_f32(p, 1);
}

/* Four floats of an F32, F16 or BF16 row. */
FLASH__INEON float32x4_t flash__plain_neon(const flash_type t, const uint8_t *row, size_t i)
{
    if (t == FLASH_TYPE_F32) return vreinterpretq_f32_u8(vld1q_u8(row + 4*i));
    if (t == FLASH_TYPE_F16) return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(row + 2*i)));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(row + 2*i)), 16));
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
        FLASH__UNROLL for (k = 0; k < 4; k++)
            acc[k] = vaddq_f32(acc[k], vmulq_f32(flash__plain_neon(t, row, i + 4*(size_t)k),
                                                 vld1q_f32(x + i + 4*k)));
    if (i == n) return flash__tree_neon(acc);
    FLASH__UNROLL for (k = 0; k < 4; k++) vst1q_f32(lane + 4*k, acc[k]);
    for (; i < n; i++) lane[i & 15] = lane[i & 15] + flash__plain(t, row, i)*x[i];
    return flash__tree16(lane);
}

FLASH__INEON void flash__rows_with_neon(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                                        const void *x, size_t n, float *y, flash__dots_fn_neon dots)
{
    const flash__q8 *q = (const flash__q8 *)x;
    const float *f = (const float *)x;
    for (; rows > 0; ) {
        int step = rows >= 4 ? 4 : 1;
        size_t row = step == 4 ? row_bytes : 0; /* a single row: itself four times */
        float32x4_t v;
        switch (t) {
        case FLASH_TYPE_F32:
            *y++ = flash__dot_plain_neon(FLASH_TYPE_F32, w, f, n);
            rows--; w += row_bytes; continue;
        case FLASH_TYPE_F16:
            *y++ = flash__dot_plain_neon(FLASH_TYPE_F16, w, f, n);
            rows--; w += row_bytes; continue;
        case FLASH_TYPE_BF16:
            *y++ = flash__dot_plain_neon(FLASH_TYPE_BF16, w, f, n);
            rows--; w += row_bytes; continue;
        case FLASH_TYPE_Q4_0: v = flash__rows4_neon(FLASH_TYPE_Q4_0, w, row, q, n, dots); break;
        case FLASH_TYPE_Q8_0: v = flash__rows4_neon(FLASH_TYPE_Q8_0, w, row, q, n, dots); break;
        case FLASH_TYPE_Q4_K: v = flash__rows4_neon(FLASH_TYPE_Q4_K, w, row, q, n, dots); break;
        case FLASH_TYPE_Q6_K: v = flash__rows4_neon(FLASH_TYPE_Q6_K, w, row, q, n, dots); break;
        default:              v = flash__rows4_neon(t, w, row, q, n, dots);
        }
        if (step == 4) vst1q_f32(y, v);
        else *y = vgetq_lane_f32(v, 0);
        rows -= step; y += step; w += (size_t)step*row_bytes;
    }
}

static void flash__rows_neon(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                             const void *x, size_t n, float *y)
{
    flash__rows_with_neon(t, w, row_bytes, rows, x, n, y, flash__dots_neon);
}

/* --- floats ---- */

/* b > a ? b : a in each lane, so NaN in b never wins. */
FLASH__INEON float32x4_t flash__more_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(b, a), b, a);
}
FLASH__INEON float32x4_t flash__less_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcltq_f32(b, a), b, a);
}
/* The same over four lanes. */
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
    for (b = 0; b < n/32; b++, x += 32, y++) {
        float32x4_t v[8], most = vdupq_n_f32(0);
        int32x4_t q[8];
        int8x16_t h[2];
        float amax, inverse;
        FLASH__UNROLL for (i = 0; i < 8; i++) {
            v[i] = vld1q_f32(x + 4*i);
            most = flash__more_neon(most, vabsq_f32(v[i]));
        }
        amax = flash__most_neon(most);
        if (!(amax <= 3e38f)) amax = 3e38f;
        inverse = amax > 1e-30f ? 127.0f/amax : 0.0f;
        FLASH__UNROLL for (i = 0; i < 8; i++) {
            v[i] = flash__less_neon(vdupq_n_f32(127.0f), vmulq_n_f32(v[i], inverse));
            q[i] = vcvtnq_s32_f32(flash__more_neon(vdupq_n_f32(-127.0f), v[i]));
        }
        FLASH__UNROLL for (i = 0; i < 2; i++) {
            const int32x4_t *p = q + 4*i;
            h[i] = vcombine_s8(
                vmovn_s16(vcombine_s16(vmovn_s32(p[0]), vmovn_s32(p[1]))),
                vmovn_s16(vcombine_s16(vmovn_s32(p[2]), vmovn_s32(p[3]))));
            vst1q_s8(y->q + 16*i, h[i]);
        }
        flash__q8_sums(y, amax, vaddlvq_s8(h[0]), vaddlvq_s8(h[1]));
    }
}

/* e^x, step by step as flash__expf. */
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
    return vmulq_f32(p, vreinterpretq_f32_s32(
        vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23)));
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
    static const int32_t index[4] = { 0, 1, 2, 3 };
    const int32x4_t first = vdupq_n_s32(from), last = vdupq_n_s32(to);
    float32x4_t most = vdupq_n_f32(-3.4e38f), sum[4];
    int32x4_t at = vld1q_s32(index);
    float best;
    int i;
    FLASH__UNROLL for (i = 0; i < 4; i++) sum[i] = vdupq_n_f32(0);
    for (i = from/4*4; i < to; i += 4) {
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
        sum[i/4 & 3] = vaddq_f32(sum[i/4 & 3], v);
    }
    *total = flash__tree_neon(sum);
    return best;
}

static void flash__rmsnorm_neon(const float *x, const float *w, float eps, size_t n, float *y)
{
    float sum = flash__dot_plain_neon(FLASH_TYPE_F32, (const uint8_t *)(const void *)x, x, n);
    float r = 1.0f/sqrtf(sum/(float)n + eps);
    size_t i;
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), r), vld1q_f32(w + i)));
    for (; i < n; i++) y[i] = x[i]*r*w[i];
}

static void flash__rope_neon(float *x, const float *cos_sin, int dims, int style)
{
    int half = dims/2, i;
    if (half % 4) { flash__rope_scalar(x, cos_sin, dims, style); return; }
    for (i = 0; i < half; i += 4) {
        float32x4x2_t cs = vld2q_f32(cos_sin + 2*i), v, r;
        if (style == FLASH_ROPE_PAIRS) v = vld2q_f32(x + 2*i);
        else { v.val[0] = vld1q_f32(x + i); v.val[1] = vld1q_f32(x + i + half); }
        r.val[0] = vsubq_f32(vmulq_f32(v.val[0], cs.val[0]), vmulq_f32(v.val[1], cs.val[1]));
        r.val[1] = vaddq_f32(vmulq_f32(v.val[0], cs.val[1]), vmulq_f32(v.val[1], cs.val[0]));
        if (style == FLASH_ROPE_PAIRS) vst2q_f32(x + 2*i, r);
        else { vst1q_f32(x + i, r.val[0]); vst1q_f32(x + i + half, r.val[1]); }
    }
}

static void flash__widen_neon(const uint16_t *h, size_t n, float *y)
{
    size_t i;
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h + i))));
    flash__widen_scalar(h + i, n - i, y + i);
}

/* MT rows of c by 4*NQ columns. */
FLASH__INEON void flash__sgemm_tile_neon(const float *a, size_t lda, const float *b, size_t ldb,
                                         float *c, size_t ldc, int K, const int MT, const int NQ)
{
    float32x4_t acc[4][4];
    int i, j, k;
    FLASH__UNROLL for (i = 0; i < MT; i++)
        FLASH__UNROLL for (j = 0; j < NQ; j++) acc[i][j] = vdupq_n_f32(0);
    for (k = 0; k < K; k++, b += ldb) {
        float32x4_t v[4];
        FLASH__UNROLL for (j = 0; j < NQ; j++) v[j] = vld1q_f32(b + 4*j);
        FLASH__UNROLL for (i = 0; i < MT; i++)
            FLASH__UNROLL for (j = 0; j < NQ; j++)
                acc[i][j] = vaddq_f32(acc[i][j], vmulq_n_f32(v[j], a[(size_t)i*lda + (size_t)k]));
    }
    FLASH__UNROLL for (i = 0; i < MT; i++)
        FLASH__UNROLL for (j = 0; j < NQ; j++) vst1q_f32(c + (size_t)i*ldc + 4*j, acc[i][j]);
}

static void flash__sgemm_neon(const float *a, size_t lda, const float *b, size_t ldb, float *c,
                              size_t ldc, int M, int N, int K)
{
    for (; M > 0; ) {
        int rows = M >= 4 ? 4 : 1, j;
        for (j = 0; j + 16 <= N; j += 16) {
            if (rows == 4) flash__sgemm_tile_neon(a, lda, b + j, ldb, c + j, ldc, K, 4, 4);
            else flash__sgemm_tile_neon(a, lda, b + j, ldb, c + j, ldc, K, 1, 4);
        }
        for (; j + 4 <= N; j += 4) {
            if (rows == 4) flash__sgemm_tile_neon(a, lda, b + j, ldb, c + j, ldc, K, 4, 1);
            else flash__sgemm_tile_neon(a, lda, b + j, ldb, c + j, ldc, K, 1, 1);
        }
        if (j < N) flash__sgemm_scalar(a, lda, b + j, ldb, c + j, ldc, rows, N - j, K);
        M -= rows; a += (size_t)rows*lda; c += (size_t)rows*ldc;
    }
}

/* --- limits of the machine, for the bench ---- */

static double flash__spin_neon(int rounds)
{
    int16x8_t a[8];
    int8x8_t x[8], w = vdup_n_s8(3);
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++)
        { a[i] = vdupq_n_s16((int16_t)i); x[i] = vdup_n_s8((int8_t)(rounds + i)); }
    for (r = 0; r < rounds; r++)
        FLASH__UNROLL for (i = 0; i < 8; i++)
            { FLASH__HIDEV(x[i]); a[i] = vmlal_s8(a[i], x[i], w); }
    for (i = 1; i < 8; i++) a[0] = veorq_s16(a[0], a[i]);
    return vaddvq_s16(a[0]) == 12345 ? 0 : 8.0*16*rounds;
}

static uint64_t flash__read_neon(const uint8_t *p, size_t n)
{
    uint64x2_t s[4];
    size_t i;
    int k;
    FLASH__UNROLL for (k = 0; k < 4; k++) s[k] = vdupq_n_u64(0);
    for (i = 0; i + 128 <= n; i += 128)
        FLASH__UNROLL for (k = 0; k < 8; k++)
            s[k & 3] = vaddq_u64(s[k & 3], vreinterpretq_u64_u8(vld1q_u8(p + i + 16*k)));
    return vaddvq_u64(vaddq_u64(vaddq_u64(s[0], s[1]), vaddq_u64(s[2], s[3])));
}

/* --- dotprod ---- */

#ifdef FLASH__NEON_DOT
/* gcc lets an intrinsic into a function only if that has all of its features, armv8.2-a too, and a
   helper only if the function has all of the features given on the command line. clang before 16
   hides the intrinsics where the command line does not allow them, not the builtins. */
#if defined(__clang__)
#  define FLASH__TDOT FLASH__TARGET("dotprod")
#  define FLASH__TI8  FLASH__TARGET("dotprod,i8mm")
#elif defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC) \
    || defined(__ARM_FEATURE_SVE)
#  define FLASH__TDOT FLASH__TARGET("+dotprod")
#  define FLASH__TI8  FLASH__TARGET("+dotprod+i8mm")
#elif defined(__ARM_FEATURE_CRYPTO)
#  define FLASH__TDOT FLASH__TARGET("arch=armv8.2-a+crypto+dotprod")
#  define FLASH__TI8  FLASH__TARGET("arch=armv8.2-a+crypto+dotprod+i8mm")
#else
#  define FLASH__TDOT FLASH__TARGET("arch=armv8.2-a+dotprod")
#  define FLASH__TI8  FLASH__TARGET("arch=armv8.2-a+dotprod+i8mm")
#endif
#if defined(__clang__) && __clang_major__ < 16 && !defined(__ARM_FEATURE_DOTPROD)
#  define FLASH__SDOT(a, w, x) \
    ((int32x4_t)__builtin_neon_vdotq_v((int8x16_t)(a), w, x, 34))
#  define FLASH__SDOT_LANE(a, w, x, lane) \
    FLASH__SDOT(a, w, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), lane)))
#else
#  define FLASH__SDOT(a, w, x)            vdotq_s32(a, w, x)
#  define FLASH__SDOT_LANE(a, w, x, lane) vdotq_laneq_s32(a, w, x, lane)
#endif
#if defined(__clang__) && __clang_major__ < 16 && !defined(__ARM_FEATURE_MATMUL_INT8)
#  define FLASH__SMMLA(a, w, x) ((int32x4_t)__builtin_neon_vmmlaq_v((int8x16_t)(a), w, x, 34))
#else
#  define FLASH__SMMLA(a, w, x) vmmlaq_s32(a, w, x)
#endif

static void flash__pack_dotprod(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                                size_t n, uint8_t *panel)
{
    flash__pack_groups_neon(t, w, row_bytes, rows, n, panel, 8, 4);
}

/* 8 rows by up to 4 tokens. */
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
        FLASH__UNROLL for (h = 0; h < parts; h++) {
            int32x4_t sum[4][2];
            FLASH__HIDE(start);
            FLASH__UNROLL for (t = 0; t < 4; t++)
                FLASH__UNROLL for (g = 0; g < 2; g++) sum[t][g] = vld1q_s32(start + 8*t + 4*g);
            FLASH__UNROLL for (c = 0; c < 2/parts; c++) {
                int8x16_t q[4], w[2];
                FLASH__UNROLL for (t = 0; t < 4; t++) q[t] = vld1q_s8(at[t][b].q + 16*(c + h));
#define FLASH__X(lane) \
                FLASH__UNROLL for (g = 0; g < 2; g++) \
                    w[g] = vreinterpretq_s8_u8(vld1q_u8(panel + 128*(c + h) + 32*lane + 16*g)); \
                FLASH__UNROLL for (t = 0; t < 4; t++) \
                    FLASH__UNROLL for (g = 0; g < 2; g++) \
                        sum[t][g] = FLASH__SDOT_LANE(sum[t][g], w[g], q[t], lane);
                FLASH__X(0) FLASH__X(1) FLASH__X(2) FLASH__X(3)
#undef FLASH__X
            }
            FLASH__UNROLL for (t = 0; t < 4; t++)
                FLASH__UNROLL for (g = 0; g < 2; g++) {
                    acc[t][g] = flash__step_neon(acc[t][g], flash__floats_neon(sum[t][g]),
                                                 vld1q_f32(scale + 8*h + 4*g), at[t][b].d);
                    if (minima) acc[t][g] = vaddq_f32(acc[t][g],
                        vmulq_n_f32(vld1q_f32(scale + 8*(parts + h) + 4*g),
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
    size_t stride = flash__panel_stride(t, 8), blocks = n/32;
    for (; tokens > 0; tokens -= 4, x += 4*blocks, y += 4*ldy)
        FLASH__TILES_NEON(t, flash__tile_dotprod, panel, stride, rows, x, tokens, blocks, y, ldy);
}

FLASH__TDOT FLASH__INEON int32x4_t flash__dots_dotprod(const int8x16_t *q, int8x16_t x0,
                                                       int8x16_t x1, int32x4_t *second)
{
    const int32x4_t zero = vdupq_n_s32(0);
    int32x4_t s[4], u[4];
    int r;
    FLASH__UNROLL for (r = 0; r < 4; r++) {
        s[r] = FLASH__SDOT(zero, q[2*r], x0);
        if (second) u[r] = FLASH__SDOT(zero, q[2*r + 1], x1);
        else s[r] = FLASH__SDOT(s[r], q[2*r + 1], x1);
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
    return vaddvq_s32(a[0]) == 12345 ? 0 : 8.0*32*rounds;
}

/* --- i8mm ---- */

/* smmla multiplies 2 rows by 2 tokens, 8 items each. Sums stay in that order, r0t0 r0t1 r1t0 r1t1,
   to the end; 4 tokens by 16 blocks are brought into it once for the 16 rows of a panel. */
typedef struct flash__x4_i8mm {
    int8_t q[4][4][8];          /* group, token, item                        */
    float  d[2][4], ds[2][2][4]; /* by pairs of tokens: 0 1 0 1, 2 3 2 3; ds by half, or [0] all */
} flash__x4_i8mm;

static void flash__pack_i8mm(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                             uint8_t *panel)
{
    flash__pack_groups_neon(t, w, row_bytes, rows, n, panel, 16, 8);
}

FLASH__INEON void flash__weave_i8mm(flash__x4_i8mm *v, const flash__q8 *const *at, int parts)
{
    int t, k, i;
    for (t = 0; t < 4; t++) {
        FLASH__UNROLL for (k = 0; k < 4; k++) memcpy(v->q[k][t], at[t]->q + 8*k, 8);
        for (i = t & 1; i < 4; i += 2) {
            v->d[t/2][i] = at[t]->d;
            for (k = 0; k < parts; k++) v->ds[k][t/2][i] = at[t]->ds[parts == 2 ? k : 2];
        }
    }
}

/* 8 rows, from panel on (scales from scale), by 4 tokens; acc[row/2][token/2] is kept in sums. */
FLASH__TI8 FLASH__INEON void flash__tile_i8mm(const uint8_t *panel, const float *scale,
                                              size_t stride, const flash__x4_i8mm *x,
                                              size_t blocks, float *sums, const int parts,
                                              const int minima)
{
    const int32_t *start = flash__start_neon;
    float32x4_t acc[4][2];
    size_t b;
    int r, p, k, h;
    FLASH__UNROLL for (r = 0; r < 4; r++)
        FLASH__UNROLL for (p = 0; p < 2; p++) acc[r][p] = vld1q_f32(sums + 8*r + 4*p);
    for (b = 0; b < blocks; b++, x++, panel += stride, scale += stride/4)
        FLASH__UNROLL for (h = 0; h < parts; h++) {
            int32x4_t sum[4][2];
            FLASH__HIDE(start);
            FLASH__UNROLL for (r = 0; r < 4; r++)
                FLASH__UNROLL for (p = 0; p < 2; p++) sum[r][p] = vld1q_s32(start + 8*r + 4*p);
            FLASH__UNROLL for (k = 0; k < 4/parts; k++)
                FLASH__UNROLL for (r = 0; r < 4; r++) {
                    const int8_t *q = x->q[k + 2*h][0];
                    int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(panel + 128*(k + 2*h) + 16*r));
                    FLASH__UNROLL for (p = 0; p < 2; p++)
                        sum[r][p] = FLASH__SMMLA(sum[r][p], w, vld1q_s8(q + 16*p));
                }
            FLASH__UNROLL for (r = 0; r < 4; r++) {
                const float *s = scale + 16*h + 4*(r/2);
                float32x4_t d = vld1q_f32(s), m = d;
                d = r & 1 ? vzip2q_f32(d, d) : vzip1q_f32(d, d);
                if (minima) {
                    m = vld1q_f32(s + 16*parts);
                    m = r & 1 ? vzip2q_f32(m, m) : vzip1q_f32(m, m);
                }
                FLASH__UNROLL for (p = 0; p < 2; p++) {
                    float32x4_t f = flash__floats_neon(sum[r][p]);
                    acc[r][p] = vaddq_f32(acc[r][p],
                                          vmulq_f32(f, vmulq_f32(d, vld1q_f32(x->d[p]))));
                    if (minima) acc[r][p] = vaddq_f32(acc[r][p],
                                                      vmulq_f32(m, vld1q_f32(x->ds[h][p])));
                }
            }
        }
    FLASH__UNROLL for (r = 0; r < 4; r++)
        FLASH__UNROLL for (p = 0; p < 2; p++) vst1q_f32(sums + 8*r + 4*p, acc[r][p]);
}

FLASH__TI8 static void flash__panel_i8mm(flash_type t, const uint8_t *panel, int rows,
                                         const flash__q8 *x, int tokens, size_t n, float *y,
                                         size_t ldy)
{
    enum { CHUNK = 16 };
    size_t stride = flash__panel_stride(t, 16), blocks = n/32, b, i;
    int parts = flash__type_halves(t) ? 2 : 1, g, r, k;
    for (; tokens > 0; tokens -= 4, x += 4*blocks, y += 4*ldy) {
        flash__x4_i8mm v[CHUNK];
        const flash__q8 *at[4];
        float sums[2][4][2][4]; /* rows/8, pair of rows, pair of tokens, 2 x 2 */
        memset(sums, 0, sizeof sums);
        flash__tokens_neon(at, x, tokens, blocks);
        for (b = 0; b < blocks; b += CHUNK) {
            size_t m = FLASH__MIN(blocks - b, (size_t)CHUNK);
            for (i = 0; i < m; i++) {
                flash__weave_i8mm(v + i, at, parts);
                for (k = 0; k < 4; k++) at[k]++;
            }
            for (g = 0; 8*g < rows; g++) {
                const uint8_t *p = panel + b*stride;
                const float *scale = (const float *)(const void *)(p + 512) + 8*g;
                FLASH__TILES_NEON(t, flash__tile_i8mm, p + 64*g, scale, stride, v, m,
                                  &sums[g][0][0][0]);
            }
        }
        for (k = 0; k < 4 && k < tokens; k++)
            for (r = 0; r < rows; r++)
                y[(size_t)k*ldy + (size_t)r] = sums[r/8][r%8/2][k/2][r%2*2 + k%2];
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
    return vaddvq_s32(a[0]) == 12345 ? 0 : 8.0*64*rounds;
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
    k->pack = flash__pack_neon;         k->panel = flash__panel_neon;
    k->rows = flash__rows_neon;         k->quantize = flash__quantize_neon;
    k->glu = flash__glu_neon; k->softmax = flash__softmax_neon;
    k->rmsnorm = flash__rmsnorm_neon;   k->sgemm = flash__sgemm_neon;
    k->rope = flash__rope_neon;         k->widen = flash__widen_neon;
    k->spin = flash__spin_neon;         k->read = flash__read_neon;
#ifdef FLASH__NEON_DOT
    if (isa == FLASH_ISA_NEON) return;
    k->pack = flash__pack_dotprod; k->panel = flash__panel_dotprod;
    k->rows = flash__rows_dotprod; k->spin = flash__spin_dotprod;
    if (isa == FLASH_ISA_NEON_DOTPROD) return;
    k->panel_rows = 16;
    k->pack = flash__pack_i8mm;    k->panel = flash__panel_i8mm;
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

/* WebAssembly with fixed-width SIMD (Chrome 91, Firefox 89, Safari 16.4), chosen when compiling:
   modules cannot ask. Bytes are widened to 16 bits, i32x4.dot_i16x8 multiplies and adds pairs; a
   block of 4 rows ends in a vector of four sums, one a row. */

#ifdef FLASH__WASM
#define FLASH__IWASM static FLASH__INLINE

/* Rows of a panel lie side by side, 8 of 32 bytes, then scales [parts][8], minima [parts][8]. */
static void flash__pack_wasm(flash_type t, const uint8_t *w, size_t row_bytes, int rows, size_t n,
                             uint8_t *panel)
{
    flash__unpack_fn unpack = flash__unpacker(t);
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, h;
    size_t stride = flash__panel_stride(t, 8), i;
    for (r = 0; r < 8; r++)
        for (i = 0; i < n/32; i++) {
            uint8_t *p = panel + i*stride;
            float *scale = (float *)(void *)(p + 256) + r;
            flash__group g;
            if (r < rows) unpack(w + (size_t)r*row_bytes, i, &g);
            else memset(&g, 0, sizeof g);
            memcpy(p + 32*r, g.q, 32);
            for (h = 0; h < parts; h++) {
                scale[8*h] = g.d[h];
                if (minima) scale[8*(parts + h)] = g.m[h];
            }
        }
}

/* 32 bytes as four vectors of 16 bits. */
FLASH__IWASM void flash__widen32_wasm(v128_t *v, v128_t a, v128_t b)
{
    v[0] = wasm_i16x8_extend_low_i8x16(a); v[1] = wasm_i16x8_extend_high_i8x16(a);
    v[2] = wasm_i16x8_extend_low_i8x16(b); v[3] = wasm_i16x8_extend_high_i8x16(b);
}
FLASH__IWASM v128_t flash__dot16_wasm(const v128_t *a, const v128_t *b)
{
    return wasm_i32x4_add(wasm_i32x4_dot_i16x8(a[0], b[0]), wasm_i32x4_dot_i16x8(a[1], b[1]));
}
/* The sums of a, b, c, d. */
FLASH__IWASM v128_t flash__sum4_wasm(v128_t a, v128_t b, v128_t c, v128_t d)
{
    v128_t ab = wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5),
                               wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
    v128_t cd = wasm_i32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5),
                               wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
    return wasm_i32x4_add(wasm_i32x4_shuffle(ab, cd, 0, 1, 4, 5),
                          wasm_i32x4_shuffle(ab, cd, 2, 3, 6, 7));
}
/* acc + sum*(d*dx) */
FLASH__IWASM v128_t flash__step_wasm(v128_t acc, v128_t sum, v128_t d, float dx)
{
    v128_t s = wasm_f32x4_mul(d, wasm_f32x4_splat(dx));
    return wasm_f32x4_add(acc, wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sum), s));
}
/* acc + m*ds */
FLASH__IWASM v128_t flash__least_wasm(v128_t acc, v128_t m, float ds)
{
    return wasm_f32x4_add(acc, wasm_f32x4_mul(m, wasm_f32x4_splat(ds)));
}

/* 8 rows by up to 4 tokens; the last token again where there are fewer. */
FLASH__IWASM void flash__tile_wasm(const uint8_t *panel, size_t stride, int rows,
                                   const flash__q8 *x, int tokens, size_t blocks, float *y,
                                   size_t ldy, const int parts, const int minima)
{
    const flash__q8 *at[4];
    v128_t acc[4][2];
    float tile[4][8];
    size_t b;
    int t, g, r, h;
    FLASH__UNROLL for (t = 0; t < 4; t++) {
        at[t] = x + (size_t)FLASH__MIN(t, tokens - 1)*blocks;
        acc[t][0] = acc[t][1] = wasm_f32x4_splat(0);
    }
    for (b = 0; b < blocks; b++, panel += stride) {
        v128_t q[4][4];
        FLASH__UNROLL for (t = 0; t < 4; t++)
            flash__widen32_wasm(q[t], wasm_v128_load(at[t][b].q), wasm_v128_load(at[t][b].q + 16));
        FLASH__UNROLL for (g = 0; g < 2; g++) {
            const float *scale = (const float *)(const void *)(panel + 256) + 4*g;
            v128_t s[4][2][4]; /* token, half, row */
            FLASH__UNROLL for (r = 0; r < 4; r++) {
                const uint8_t *p = panel + 128*g + 32*r;
                v128_t w[4];
                flash__widen32_wasm(w, wasm_v128_load(p), wasm_v128_load(p + 16));
                FLASH__UNROLL for (t = 0; t < 4; t++) {
                    v128_t lo = flash__dot16_wasm(w, q[t]), hi = flash__dot16_wasm(w + 2, q[t] + 2);
                    s[t][0][r] = parts == 2 ? lo : wasm_i32x4_add(lo, hi);
                    s[t][1][r] = hi;
                }
            }
            FLASH__UNROLL for (t = 0; t < 4; t++)
                FLASH__UNROLL for (h = 0; h < parts; h++) {
                    v128_t sum = flash__sum4_wasm(s[t][h][0], s[t][h][1], s[t][h][2], s[t][h][3]);
                    acc[t][g] = flash__step_wasm(acc[t][g], sum, wasm_v128_load(scale + 8*h),
                                                 at[t][b].d);
                    if (minima) acc[t][g] = flash__least_wasm(acc[t][g],
                        wasm_v128_load(scale + 8*(parts + h)), at[t][b].ds[parts == 2 ? h : 2]);
                }
        }
    }
    FLASH__UNROLL for (t = 0; t < 4; t++)
        { wasm_v128_store(tile[t], acc[t][0]); wasm_v128_store(tile[t] + 4, acc[t][1]); }
    for (t = 0; t < 4 && t < tokens; t++, y += ldy) memcpy(y, tile[t], (size_t)rows*sizeof *y);
}

static void flash__panel_wasm(flash_type t, const uint8_t *panel, int rows, const flash__q8 *x,
                              int tokens, size_t n, float *y, size_t ldy)
{
    size_t stride = flash__panel_stride(t, 8), blocks = n/32;
    int halves = flash__type_halves(t), minima = flash__type_minima(t);
    for (; tokens > 0; tokens -= 4, x += 4*blocks, y += 4*ldy) {
        if (!halves && !minima)
            flash__tile_wasm(panel, stride, rows, x, tokens, blocks, y, ldy, 1, 0);
        else if (!halves) flash__tile_wasm(panel, stride, rows, x, tokens, blocks, y, ldy, 1, 1);
        else if (!minima) flash__tile_wasm(panel, stride, rows, x, tokens, blocks, y, ldy, 2, 0);
        else flash__tile_wasm(panel, stride, rows, x, tokens, blocks, y, ldy, 2, 1);
    }
}

/* Four f16 in the low halves of 32-bit lanes. A multiplication by 2^112 moves the exponent and
   makes subnormal ones normal. */
FLASH__IWASM v128_t flash__half_wasm(v128_t h)
{
    v128_t m = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x7fff)), 13);
    v128_t sign = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x8000)), 16);
    v128_t odd = wasm_i32x4_gt(m, wasm_i32x4_splat(0x0f7fffff)); /* infinity, NaN */
    v128_t f = wasm_f32x4_mul(m, wasm_i32x4_splat(0x77800000));
    f = wasm_v128_bitselect(wasm_v128_or(m, wasm_i32x4_splat(0x7f800000)), f, odd);
    return wasm_v128_or(f, sign);
}
/* The f16 at p of 4 rows. */
FLASH__IWASM v128_t flash__halves_wasm(const uint8_t *p, size_t row)
{
    return flash__half_wasm(wasm_i32x4_make((int)flash__rd16(p), (int)flash__rd16(p + row),
                                            (int)flash__rd16(p + 2*row),
                                            (int)flash__rd16(p + 3*row)));
}

/* Four rows times x. t is a constant where speed matters. */
FLASH__IWASM v128_t flash__rows4_wasm(const flash_type t, const uint8_t *w, size_t row,
                                      const flash__q8 *x, size_t n)
{
    const size_t bytes = t == FLASH_TYPE_Q4_0 ? 18 : t == FLASH_TYPE_Q8_0 ? 34
        : t == FLASH_TYPE_Q4_K ? 144 : 210;
    const int groups = bytes < 100 ? 1 : 8;
    flash__unpack_fn unpack = flash__unpacker(t);
    int parts = flash__type_halves(t) ? 2 : 1, minima = flash__type_minima(t), r, k, i;
    const v128_t low = wasm_i8x16_splat(15);
    v128_t acc = wasm_f32x4_splat(0);
    size_t b;
    const int known = t == FLASH_TYPE_Q4_0 || t == FLASH_TYPE_Q8_0 || t == FLASH_TYPE_Q4_K
        || t == FLASH_TYPE_Q6_K;
    for (b = 0; b < n/32; b += known ? (size_t)groups : 1) {
        const uint8_t *p = w + (known ? b/(size_t)groups*bytes : 0);
        float d[16][4], m[8][4];
        if (t == FLASH_TYPE_Q4_0 || t == FLASH_TYPE_Q8_0)
            wasm_v128_store(d[0], flash__halves_wasm(p, row));
        for (r = 0; t == FLASH_TYPE_Q4_K && r < 4; r++)
            for (k = 0; k < 8; k++) {
                flash__group g;
                flash__k_scales(&g, p + (size_t)r*row, (size_t)k);
                d[k][r] = g.d[0]; m[k][r] = g.m[0];
            }
        for (r = 0; t == FLASH_TYPE_Q6_K && r < 4; r++) {
            const uint8_t *v = p + (size_t)r*row + 192;
            float one = flash__f16_f32(flash__rd16(v + 16));
            for (k = 0; k < 16; k++)
                d[k][r] = one*(float)(v[k] < 128 ? (int)v[k] : (int)v[k] - 256);
        }
        for (k = 0; k < (known ? groups : 1); k++, x++) {
            v128_t q[4], s[4], u[4];
            flash__widen32_wasm(q, wasm_v128_load(x->q), wasm_v128_load(x->q + 16));
            FLASH__UNROLL for (r = 0; r < 4; r++) {
                const uint8_t *v = p + (size_t)r*row;
                v128_t c[4], lo, hi;
                if (t == FLASH_TYPE_Q4_0) {
                    lo = wasm_v128_load(v + 2);
                    hi = wasm_i8x16_sub(wasm_u8x16_shr(lo, 4), wasm_i8x16_splat(8));
                    lo = wasm_i8x16_sub(wasm_v128_and(lo, low), wasm_i8x16_splat(8));
                } else if (t == FLASH_TYPE_Q8_0) {
                    lo = wasm_v128_load(v + 2); hi = wasm_v128_load(v + 18);
                } else if (t == FLASH_TYPE_Q4_K) {
                    v += 16 + k/2*32;
                    lo = wasm_v128_and(wasm_u8x16_shr(wasm_v128_load(v), (uint32_t)(k & 1)*4), low);
                    hi = wasm_v128_and(wasm_u8x16_shr(wasm_v128_load(v + 16), (uint32_t)(k & 1)*4),
                                       low);
                } else if (t == FLASH_TYPE_Q6_K) {
                    const uint8_t *l = v + k/4*64 + (k & 1)*32, *h = v + 128 + k/4*32;
                    uint32_t shift = (uint32_t)(k%4/2)*4, two = (uint32_t)(k%4)*2;
                    v128_t mask = wasm_i8x16_splat(3), bias = wasm_i8x16_splat(32);
                    lo = wasm_v128_and(wasm_u8x16_shr(wasm_v128_load(l), shift), low);
                    hi = wasm_v128_and(wasm_u8x16_shr(wasm_v128_load(l + 16), shift), low);
                    lo = wasm_v128_or(lo, wasm_i8x16_shl(wasm_v128_and(
                        wasm_u8x16_shr(wasm_v128_load(h), two), mask), 4));
                    hi = wasm_v128_or(hi, wasm_i8x16_shl(wasm_v128_and(
                        wasm_u8x16_shr(wasm_v128_load(h + 16), two), mask), 4));
                    lo = wasm_i8x16_sub(lo, bias);
                    hi = wasm_i8x16_sub(hi, bias);
                } else {
                    flash__group g;
                    unpack(v, b, &g);
                    for (i = 0; i < parts; i++) { d[i][r] = g.d[i]; m[i][r] = g.m[i]; }
                    lo = wasm_v128_load(g.q); hi = wasm_v128_load(g.q + 16);
                }
                flash__widen32_wasm(c, lo, hi);
                s[r] = flash__dot16_wasm(c, q);
                u[r] = flash__dot16_wasm(c + 2, q + 2);
                if (parts == 1) s[r] = wasm_i32x4_add(s[r], u[r]);
            }
            for (i = 0; i < parts; i++) {
                v128_t sum = i ? flash__sum4_wasm(u[0], u[1], u[2], u[3])
                    : flash__sum4_wasm(s[0], s[1], s[2], s[3]);
                acc = flash__step_wasm(acc, sum, wasm_v128_load(d[parts*k + i]), x->d);
                if (minima) acc = flash__least_wasm(acc, wasm_v128_load(m[parts*k + i]),
                                                    x->ds[parts == 2 ? i : 2]);
            }
        }
    }
    return acc;
}

/* Sum over 16 lanes in the order of flash__tree16. */
FLASH__IWASM float flash__tree_wasm(const v128_t *v)
{
    v128_t s = wasm_f32x4_add(wasm_f32x4_add(v[0], v[2]), wasm_f32x4_add(v[1], v[3]));
    s = wasm_f32x4_add(s, wasm_i32x4_shuffle(s, s, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(s, 0) + wasm_f32x4_extract_lane(s, 1);
}

/* Four floats of an F32, F16 or BF16 row. */
FLASH__IWASM v128_t flash__plain_wasm(const flash_type t, const uint8_t *row, size_t i)
{
    if (t == FLASH_TYPE_F32) return wasm_v128_load(row + 4*i);
    if (t == FLASH_TYPE_F16) return flash__half_wasm(wasm_u32x4_load16x4(row + 2*i));
    return wasm_i32x4_shl(wasm_u32x4_load16x4(row + 2*i), 16);
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
            acc[k] = wasm_f32x4_add(acc[k], wasm_f32x4_mul(
                flash__plain_wasm(t, row, i + 4*(size_t)k), wasm_v128_load(x + i + 4*k)));
    if (i == n) return flash__tree_wasm(acc);
    FLASH__UNROLL for (k = 0; k < 4; k++) wasm_v128_store(lane + 4*k, acc[k]);
    for (; i < n; i++) lane[i & 15] = lane[i & 15] + flash__plain(t, row, i)*x[i];
    return flash__tree16(lane);
}

static void flash__rows_wasm(flash_type t, const uint8_t *w, size_t row_bytes, int rows,
                             const void *x, size_t n, float *y)
{
    const flash__q8 *q = (const flash__q8 *)x;
    const float *f = (const float *)x;
    int plain = !flash__unpacker(t), step;
    for (; rows > 0; rows -= step, y += step, w += (size_t)step*row_bytes) {
        size_t row;
        v128_t v;
        step = plain || rows < 4 ? 1 : 4;
        row = step == 4 ? row_bytes : 0; /* a single row: itself four times */
        switch (t) {
        case FLASH_TYPE_F32:  *y = flash__dot_plain_wasm(FLASH_TYPE_F32, w, f, n); continue;
        case FLASH_TYPE_F16:  *y = flash__dot_plain_wasm(FLASH_TYPE_F16, w, f, n); continue;
        case FLASH_TYPE_BF16: *y = flash__dot_plain_wasm(FLASH_TYPE_BF16, w, f, n); continue;
        case FLASH_TYPE_Q4_0: v = flash__rows4_wasm(FLASH_TYPE_Q4_0, w, row, q, n); break;
        case FLASH_TYPE_Q8_0: v = flash__rows4_wasm(FLASH_TYPE_Q8_0, w, row, q, n); break;
        case FLASH_TYPE_Q4_K: v = flash__rows4_wasm(FLASH_TYPE_Q4_K, w, row, q, n); break;
        case FLASH_TYPE_Q6_K: v = flash__rows4_wasm(FLASH_TYPE_Q6_K, w, row, q, n); break;
        default:              v = flash__rows4_wasm(t, w, row, q, n);
        }
        if (step == 4) wasm_v128_store(y, v);
        else *y = wasm_f32x4_extract_lane(v, 0);
    }
}

/* The largest lane; pmax(a, b) is b > a ? b : a, so NaN in b never wins. */
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
    for (b = 0; b < n/32; b++, x += 32, y++) {
        v128_t v[8], most = wasm_f32x4_splat(0), sum[2];
        float amax, inverse;
        FLASH__UNROLL for (i = 0; i < 8; i++) {
            v[i] = wasm_v128_load(x + 4*i);
            most = wasm_f32x4_pmax(most, wasm_f32x4_abs(v[i]));
        }
        amax = flash__most_wasm(most);
        if (!(amax <= 3e38f)) amax = 3e38f;
        inverse = amax > 1e-30f ? 127.0f/amax : 0.0f;
        FLASH__UNROLL for (i = 0; i < 8; i++) {
            v[i] = wasm_f32x4_pmin(wasm_f32x4_splat(127.0f),
                                   wasm_f32x4_mul(v[i], wasm_f32x4_splat(inverse)));
            v[i] = wasm_f32x4_nearest(wasm_f32x4_pmax(wasm_f32x4_splat(-127.0f), v[i]));
            v[i] = wasm_i32x4_trunc_sat_f32x4(v[i]);
        }
        FLASH__UNROLL for (i = 0; i < 2; i++) {
            const v128_t *p = v + 4*i;
            wasm_v128_store(y->q + 16*i, wasm_i8x16_narrow_i16x8(
                wasm_i16x8_narrow_i32x4(p[0], p[1]), wasm_i16x8_narrow_i32x4(p[2], p[3])));
            sum[i] = wasm_i32x4_add(wasm_i32x4_add(p[0], p[1]), wasm_i32x4_add(p[2], p[3]));
        }
        sum[0] = flash__sum4_wasm(sum[0], sum[1], sum[0], sum[1]);
        flash__q8_sums(y, amax, wasm_i32x4_extract_lane(sum[0], 0),
                       wasm_i32x4_extract_lane(sum[0], 1));
    }
}

/* e^x, step by step as flash__expf. */
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

/* Lanes of i..i+3 in [from, to). */
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
    for (i = from/4*4; i < to; i += 4) {
        v128_t v = wasm_f32x4_mul(wasm_v128_load(x + i), by);
        most = wasm_v128_bitselect(wasm_f32x4_pmax(most, v), most,
                                   flash__inside_wasm(i, from, to));
    }
    best = flash__most_wasm(most);
    for (i = 0; i < 64; i += 4) {
        v128_t v = wasm_f32x4_mul(wasm_v128_load(x + i), by);
        v = flash__exp_wasm(wasm_f32x4_sub(v, wasm_f32x4_splat(best)));
        v = wasm_v128_and(v, flash__inside_wasm(i, from, to));
        wasm_v128_store(x + i, v);
        sum[i/4 & 3] = wasm_f32x4_add(sum[i/4 & 3], v);
    }
    *total = flash__tree_wasm(sum);
    return best;
}

static void flash__rmsnorm_wasm(const float *x, const float *w, float eps, size_t n, float *y)
{
    float sum = flash__dot_plain_wasm(FLASH_TYPE_F32, (const uint8_t *)(const void *)x, x, n);
    float r = 1.0f/sqrtf(sum/(float)n + eps);
    size_t i;
    for (i = 0; i + 4 <= n; i += 4)
        wasm_v128_store(y + i, wasm_f32x4_mul(wasm_f32x4_mul(wasm_v128_load(x + i),
                                                             wasm_f32x4_splat(r)),
                                              wasm_v128_load(w + i)));
    for (; i < n; i++) y[i] = x[i]*r*w[i];
}

static void flash__rope_wasm(float *x, const float *cos_sin, int dims, int style)
{
    int half = dims/2, pairs = style == FLASH_ROPE_PAIRS, i;
    if (half % 4) { flash__rope_scalar(x, cos_sin, dims, style); return; }
    for (i = 0; i < half; i += 4) {
        float *p = pairs ? x + 2*i : x + i, *q = pairs ? p + 4 : p + half;
        v128_t a = wasm_v128_load(p), b = wasm_v128_load(q), u = a, v = b;
        v128_t c = wasm_v128_load(cos_sin + 2*i), d = wasm_v128_load(cos_sin + 2*i + 4);
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

/* MT rows of c by 4*NQ columns. */
FLASH__IWASM void flash__sgemm_tile_wasm(const float *a, size_t lda, const float *b, size_t ldb,
                                         float *c, size_t ldc, int K, const int MT, const int NQ)
{
    v128_t acc[4][2];
    int i, j, k;
    FLASH__UNROLL for (i = 0; i < MT; i++)
        FLASH__UNROLL for (j = 0; j < NQ; j++) acc[i][j] = wasm_f32x4_splat(0);
    for (k = 0; k < K; k++, b += ldb)
        FLASH__UNROLL for (i = 0; i < MT; i++) {
            v128_t v = wasm_f32x4_splat(a[(size_t)i*lda + (size_t)k]);
            FLASH__UNROLL for (j = 0; j < NQ; j++)
                acc[i][j] = wasm_f32x4_add(acc[i][j], wasm_f32x4_mul(v, wasm_v128_load(b + 4*j)));
        }
    FLASH__UNROLL for (i = 0; i < MT; i++)
        FLASH__UNROLL for (j = 0; j < NQ; j++)
            wasm_v128_store(c + (size_t)i*ldc + 4*j, acc[i][j]);
}

static void flash__sgemm_wasm(const float *a, size_t lda, const float *b, size_t ldb, float *c,
                              size_t ldc, int M, int N, int K)
{
    for (; M > 0; ) {
        int rows = M >= 4 ? 4 : 1, j;
        for (j = 0; j + 8 <= N; j += 8) {
            if (rows == 4) flash__sgemm_tile_wasm(a, lda, b + j, ldb, c + j, ldc, K, 4, 2);
            else flash__sgemm_tile_wasm(a, lda, b + j, ldb, c + j, ldc, K, 1, 2);
        }
        for (; j + 4 <= N; j += 4) {
            if (rows == 4) flash__sgemm_tile_wasm(a, lda, b + j, ldb, c + j, ldc, K, 4, 1);
            else flash__sgemm_tile_wasm(a, lda, b + j, ldb, c + j, ldc, K, 1, 1);
        }
        if (j < N) flash__sgemm_scalar(a, lda, b + j, ldb, c + j, ldc, rows, N - j, K);
        M -= rows; a += (size_t)rows*lda; c += (size_t)rows*ldc;
    }
}

static double flash__spin_wasm(int rounds)
{
    volatile int16_t seed = 3; /* read anew each round: products cannot be kept */
    v128_t a[8];
    int i, r;
    FLASH__UNROLL for (i = 0; i < 8; i++) a[i] = wasm_i32x4_splat(i);
    for (r = 0; r < rounds; r++) {
        v128_t x = wasm_i16x8_splat(seed);
        FLASH__UNROLL for (i = 0; i < 8; i++)
            a[i] = wasm_i32x4_add(a[i], wasm_i32x4_dot_i16x8(a[(i + 1) & 7], x));
    }
    for (i = 1; i < 8; i++) a[0] = wasm_v128_xor(a[0], a[i]);
    return wasm_i32x4_extract_lane(a[0], 0) == 12345 ? 0 : 8.0*16*rounds;
}

static uint64_t flash__read_wasm(const uint8_t *p, size_t n)
{
    v128_t s[4];
    size_t i;
    int k;
    FLASH__UNROLL for (k = 0; k < 4; k++) s[k] = wasm_i64x2_splat(0);
    for (i = 0; i + 64 <= n; i += 64)
        FLASH__UNROLL for (k = 0; k < 4; k++)
            s[k] = wasm_i64x2_add(s[k], wasm_v128_load(p + i + 16*k));
    s[0] = wasm_i64x2_add(wasm_i64x2_add(s[0], s[1]), wasm_i64x2_add(s[2], s[3]));
    return (uint64_t)wasm_i64x2_extract_lane(s[0], 0) + (uint64_t)wasm_i64x2_extract_lane(s[0], 1);
}

static void flash__overlay_wasm(flash__kernels *k)
{
    k->panel_rows = 8;
    k->pack = flash__pack_wasm;         k->panel = flash__panel_wasm;
    k->rows = flash__rows_wasm;         k->quantize = flash__quantize_wasm;
    k->glu = flash__glu_wasm; k->softmax = flash__softmax_wasm;
    k->rmsnorm = flash__rmsnorm_wasm;   k->sgemm = flash__sgemm_wasm;
    k->rope = flash__rope_wasm;         k->widen = flash__widen_wasm;
    k->spin = flash__spin_wasm;         k->read = flash__read_wasm;
}
#undef FLASH__IWASM
#endif

/* ===== >>k-select ========================================================= */

/* Start from the reference, lay better kernels over it. Asking for what is not there is an error,
   never a silent substitute. */

static flash_status flash__kernels_select(flash__kernels *k, flash_isa want)
{
    memset(k, 0, sizeof *k);
    k->isa = want == FLASH_ISA_AUTO ? flash_isa_best() : want;
    k->panel_rows = 4;
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

FLASH_API size_t flash_dot_work(size_t n) { return n/32*sizeof(flash__q8) + 64; }

FLASH_API flash_status flash_dot_rows(flash_type t, const void *w, size_t rows, size_t n,
                                      const float *x, float *y,
                                      void *work, flash_isa isa)
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

/* GGUF reader and writer. The reader walks the bytes with a cursor that knows where they end; every
   count is checked against the bytes that are left before it is believed. Two walks: the first
   checks everything and allocates nothing, the second fills the index of keys and tensors. Rules
   stricter than the format's text, as the reference loader has them: no duplicate names, no nested
   arrays, tensors back to back in order. */

enum { FLASH__NAME_MAX = 63, FLASH__ALIGN_MAX = 1 << 20, FLASH__JUMPS = 8 };

struct flash_gguf {
    flash__file file;
    flash_host  host;
    /* acquired for this object [B]; 0 inside a model */
    size_t      block;
    uint32_t    version, n_key, n_tensor, alignment;
    size_t      keys_at, infos_at;
    uint64_t    data_at;
    int         headers;                 /* data may be missing */
    /* long arrays of strings: first byte, byte after */
    size_t      jump[FLASH__JUMPS][2];
    int         n_jump;
    /* [n_key], [n_tensor] offsets in file order */
    uint64_t   *key_at, *info_at;
    /* the same by name */
    uint32_t   *key_order, *info_order;
};

typedef struct flash__cursor {
                               const flash_gguf *g; size_t at; flash_error *err;
flash_status status; } flash__cursor;

/* n bytes at the cursor, or NULL (and a status) if the file ends before. */
static const uint8_t *flash__read(flash__cursor *c, uint64_t n, const char *what)
{
    size_t at = c->at;
    if (c->status) return NULL;
    if (n > c->g->file.size - at) {
        c->status = flash__fail(c->err, FLASH_E_TRUNCATED, at,
                                "the file ends inside %s: %u bytes wanted, %u left",
                                what, n, (uint64_t)(c->g->file.size - at));
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

static int flash__value_bytes(flash_value_type t) /* 0 for strings and arrays */
{
    static const uint8_t bytes[FLASH_VALUE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return bytes[t];
}

static flash_status flash__bad(flash__cursor *c, flash_status s, const char *what,
                               const char *name, size_t n)
{
    if (!c->status) c->status = flash__fail(c->err, s, c->at, "%s: \"%t\"", what, name,
                                            FLASH__MIN(n, (size_t)64));
    return c->status;
}

/* Reads one key and its value; the cursor ends up behind it. */
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
    } else v->type = (flash_value_type)type;
    if (c->status) return c->status;
    if (type >= FLASH_VALUE_COUNT)
        return flash__bad(c, FLASH_E_FORMAT, "unknown value type under key", v->key, v->key_bytes);
    v->item = (flash_value_type)type;
    if (v->item != FLASH_VALUE_STRING) {
        uint64_t item = (uint64_t)flash__value_bytes(v->item);
        if (v->count > (c->g->file.size - c->at)/item)
            return flash__bad(c, FLASH_E_TRUNCATED, "more array items than bytes left under key",
                              v->key, v->key_bytes);
        v->bytes = (size_t)(v->count*item);
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
    if (v->type == FLASH_VALUE_STRING && !c->status) { v->data += 8; v->bytes -= 8; }
    return c->status;
}

/* Reads one tensor info; *offset is where its data says it lies. */
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
        if (t->ne[d] == 0 || t->ne[d] > (uint64_t)INT64_MAX/items)
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
    if (!f) return flash__bad(c, FLASH_E_FORMAT, "unknown weight type: tensor", t->name,
                              t->name_bytes);
    if (t->ne[0] % (uint64_t)f->items)
        return flash__bad(c, FLASH_E_FORMAT,
                          "row length is no multiple of the type's block: tensor", t->name,
            t->name_bytes);
    if (items/(uint64_t)f->items > (uint64_t)INT64_MAX/(uint64_t)f->bytes)
        return flash__bad(c, FLASH_E_TOO_LARGE, "more bytes than can be counted: tensor", t->name,
                          t->name_bytes);
    t->bytes = items/(uint64_t)f->items*(uint64_t)f->bytes;
    return FLASH_E_NONE;
}

/* What a file without the right first bytes really is. */
static flash_status flash__not_gguf(const flash_gguf *g, flash_error *err)
{
    static const struct { const char *magic, *text; flash_status status; } table[] = {
        { "FUGG", "a byte-swapped (big-endian) GGUF file: convert the model for little-endian "
         "machines",
          FLASH_E_UNSUPPORTED },
        { "tjgg", "a ggjt file from before GGUF (2023): convert it to GGUF first",
          FLASH_E_UNSUPPORTED },
        { "fmgg", "a ggmf file from before GGUF (2023): convert it to GGUF first",
          FLASH_E_UNSUPPORTED },
        { "lmgg", "a ggml file from before GGUF (2023): convert it to GGUF first",
          FLASH_E_UNSUPPORTED },
        { "algg", "a ggla adapter file from before GGUF, not a model", FLASH_E_UNSUPPORTED },
        { "version https://git-lfs",
          "a Git LFS pointer, not the model itself: fetch it with git lfs pull",
          FLASH_E_FORMAT },
        { "PK\3\4", "a zip archive (a PyTorch checkpoint?): convert the model to GGUF first",
          FLASH_E_FORMAT },
        { "<!DOCTYPE", "a web page, not a model: the download went wrong", FLASH_E_FORMAT },
        { "<html", "a web page, not a model: the download went wrong", FLASH_E_FORMAT },
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

/* The name behind an offset of a key or a tensor info. */
static const char *flash__name_at(const flash_gguf *g, uint64_t at, size_t *n)
{
    *n = (size_t)flash__rd64(g->file.data + at);
    return (const char *)g->file.data + at + 8;
}
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

/* Checks the whole container and finds its sections. */
static flash_status flash__gguf_scan(flash_gguf *g, flash_error *err)
{
    flash__cursor c;
    flash_value v;
    flash_tensor t;
    uint64_t n_key, n_tensor, i, offset, end = 0, room;
    c.g = g; c.at = 0; c.err = err; c.status = FLASH_E_NONE;
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
    if (n_key > room/14 || n_tensor > (room - n_key*14)/33 || n_key > UINT32_MAX
        || n_tensor > UINT32_MAX)
        return flash__fail(err, FLASH_E_TRUNCATED, 8,
                           "the header promises %u tensors and %u keys; the file is too "
                           "short for them", n_tensor, n_key);
    g->n_key = (uint32_t)n_key;
    g->n_tensor = (uint32_t)n_tensor;
    room = g->headers ? (uint64_t)INT64_MAX/2 : g->file.size;
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
                               "tensor \"%t\" lies at data offset %u; %u is next in line",
                               t.name, t.name_bytes, offset, end);
        if (t.bytes > room - FLASH__MIN(end, room))
            return flash__fail(err, FLASH_E_TRUNCATED, c.at - 8,
                               "tensor \"%t\" reaches beyond the end of the file",
                               t.name, t.name_bytes);
        end = offset + ((t.bytes + g->alignment - 1) & ~(uint64_t)(g->alignment - 1));
    }
    room = ((uint64_t)c.at + g->alignment - 1) & ~(uint64_t)(g->alignment - 1);
    if (n_tensor && !g->headers
        && (room > g->file.size || offset + t.bytes > g->file.size - room))
        return flash__fail(err, FLASH_E_TRUNCATED, g->file.size,
                           "the file ends inside the weights: %u bytes are there, "
                           "%u are needed", (uint64_t)g->file.size, room + offset + t.bytes);
    g->data_at = room;
    return FLASH_E_NONE;
}

/* Carves the index out of the arena; with memory behind it, fills it. After flash__gguf_scan. */
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
    c.g = g; c.at = g->keys_at; c.err = err; c.status = FLASH_E_NONE;
    for (i = 0; i < g->n_key; i++) { key_at[i] = c.at; key_order[i] = i; flash__read_key(&c, &v); }
    for (i = 0; i < g->n_tensor; i++)
        { info_at[i] = c.at; info_order[i] = i; flash__read_info(&c, &t, &offset); }
    if (c.status) return c.status;
    g->key_at = key_at; g->key_order = key_order;
    g->info_at = info_at; g->info_order = info_order;
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
    flash__arena arena = { NULL, 0 };
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
        arena.base = g.block == SIZE_MAX ? NULL : (uint8_t *)flash__acquire(&g.host.allocator,
                g.block);
        if (!arena.base) s = flash__fail(err, FLASH_E_MEMORY, 0,
                                         "no memory for the index of the file");
    }
    if (s) { flash__file_close(&g.file, &g.host); return s; }
    *out = (flash_gguf *)flash__take(&arena, 1, sizeof g);
    **out = g;
    s = flash__gguf_index(*out, &arena, err);
    if (s) { flash_gguf_free(*out); *out = NULL; }
    return s;
}

FLASH_API int      flash_gguf_version(const flash_gguf *g) { return g ? (int)g->version : 0; }
FLASH_API uint64_t flash_gguf_size(const flash_gguf *g)    { return g ? g->file.size : 0; }
FLASH_API size_t   flash_gguf_keys(const flash_gguf *g)    { return g ? g->n_key : 0; }
FLASH_API size_t   flash_gguf_tensors(const flash_gguf *g) { return g ? g->n_tensor : 0; }

FLASH_API flash_status flash_gguf_key(const flash_gguf *g, size_t i, flash_value *out)
{
    flash__cursor c;
    if (!g || !out || i >= g->n_key) return FLASH_E_ARGUMENT;
    c.g = g; c.at = (size_t)g->key_at[i]; c.err = NULL; c.status = FLASH_E_NONE;
    return flash__read_key(&c, out);
}

static flash_status flash__info_at(const flash_gguf *g, size_t at, flash_tensor *out)
{
    flash__cursor c;
    uint64_t offset = 0;
    c.g = g; c.at = at; c.err = NULL; c.status = FLASH_E_NONE;
    if (flash__read_info(&c, out, &offset)) return c.status;
    out->offset = g->data_at + offset;
    out->data = out->offset > g->file.size || out->bytes > g->file.size - out->offset
              ? NULL : g->file.data + out->offset;
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_gguf_tensor(const flash_gguf *g, size_t i, flash_tensor *out)
{
    if (!g || !out || i >= g->n_tensor) return FLASH_E_ARGUMENT;
    return flash__info_at(g, (size_t)g->info_at[i], out);
}

/* Position in order[] of a name, or n. */
static uint32_t flash__search_name(const flash_gguf *g, const uint64_t *at, const uint32_t *order,
                                   uint32_t n, const char *name)
{
    uint32_t lo = 0, hi = n;
    size_t length = strlen(name), bytes;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo)/2;
        const char *text = flash__name_at(g, at[order[mid]], &bytes);
        int c = flash__compare(text, bytes, name, length);
        if (!c) return mid;
        if (c < 0) lo = mid + 1; else hi = mid;
    }
    return n;
}

FLASH_API flash_status flash_gguf_find(const flash_gguf *g, const char *key, flash_value *out)
{
    uint32_t i;
    if (!g || !key || !out) return FLASH_E_ARGUMENT;
    if (!g->key_order) { /* before the index is there: the memory plan's few questions */
        flash__cursor c;
        flash_value v;
        c.g = g; c.at = g->keys_at; c.err = NULL; c.status = FLASH_E_NONE;
        for (i = 0; i < g->n_key && !flash__read_key(&c, &v); i++)
            if (v.key_bytes == strlen(key) && !memcmp(v.key, key, v.key_bytes))
                { *out = v; return FLASH_E_NONE; }
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
    p = v->data + i*(uint64_t)flash__value_bytes(v->item);
    switch (v->item) {
    case FLASH_VALUE_U8: case FLASH_VALUE_BOOL: return p[0];
    case FLASH_VALUE_I8:  return p[0] < 128 ? p[0] : (int64_t)p[0] - 256;
    case FLASH_VALUE_U16: return flash__rd16(p);
    case FLASH_VALUE_I16: return (int16_t)flash__rd16(p);
    case FLASH_VALUE_U32: return flash__rd32(p);
    case FLASH_VALUE_I32: return (int32_t)flash__rd32(p);
    case FLASH_VALUE_U64: case FLASH_VALUE_I64: return (int64_t)flash__rd64(p);
    default: d = flash_value_number(v, i); return d > -9e18 && d < 9e18 ? (int64_t)d : 0;
    }
}

FLASH_API double flash_value_number(const flash_value *v, uint64_t i)
{
    if (!v || i >= v->count || v->item == FLASH_VALUE_STRING) return 0;
    if (v->item == FLASH_VALUE_F32) return flash__rdf32(v->data + 4*i);
    if (v->item == FLASH_VALUE_F64) return flash__bits_f64(flash__rd64(v->data + 8*i));
    if (v->item == FLASH_VALUE_U64) return (double)flash__rd64(v->data + 8*i);
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
static void flash__write32(flash_gguf_writer *w, uint32_t v) { uint8_t b[4]; flash__wr32(b,
        v); flash__write(w, b, 4); }
static void flash__write64(flash_gguf_writer *w, uint64_t v) { uint8_t b[8]; flash__wr64(b,
        v); flash__write(w, b, 8); }
static void flash__write_text(flash_gguf_writer *w, const char *text, size_t n)
{
    flash__write64(w, n);
    flash__write(w, text, n);
}
static void flash__write_zeros(flash_gguf_writer *w, uint64_t n)
{
    static const uint8_t zeros[32] = { 0 };
    for (; n > 32; n -= 32) flash__write(w, zeros, 32);
    flash__write(w, zeros, (size_t)n);
}
static uint64_t flash__pad32(uint64_t n) { return (n + 31) & ~(uint64_t)31; }

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
        memcpy(&u, (const uint8_t *)data + 4*i, 4);
        flash__write32(w, u);
    }
    return w->status;
}

FLASH_API flash_status flash_gguf_write_strings(flash_gguf_writer *w, const char *key,
                                                const char *const *text,
                                                const size_t *bytes, size_t n)
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
    if (v->type == FLASH_VALUE_ARRAY)
        { flash__write32(w, (uint32_t)v->item); flash__write64(w, v->count); }
    if (v->type == FLASH_VALUE_STRING) flash__write64(w, v->bytes);
    return flash__write(w, v->data, v->bytes);
}

FLASH_API flash_status flash_gguf_write_tensor(flash_gguf_writer *w, const char *name,
                                               flash_type type, int n_dims, const uint64_t *ne)
{
    size_t bytes = 0, n = strlen(name);
    int d, bad = w->keys_left || !w->tensors_left || n_dims < 1 || n_dims > 4 || !n
        || n > FLASH__NAME_MAX
                 || ne[0] > SIZE_MAX;
    if (!bad) bytes = flash_row_bytes(type, (size_t)ne[0]);
    for (d = 1; d < n_dims && !bad; d++) bad = ne[d] > SIZE_MAX
        || !flash__mul(&bytes, bytes, (size_t)ne[d]);
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

/* Character classes for the pre-tokenizers, and UTF-8. The table is made by tools/unicode.c from
   UnicodeData.txt and PropList.txt (Unicode 17): entries start*16 + class, sorted. FLASH__CASES is
   a run of upper and lower case letters taking turns. Bytes that are no UTF-8 count as characters
   of one byte, class of U+FFFD. */

enum { FLASH__OTHER, FLASH__UPPER, FLASH__LOWER, FLASH__LETTER, FLASH__MARK, FLASH__NUMBER,
       FLASH__PUNCT,
       FLASH__SYMBOL, FLASH__SPACE, FLASH__CASES };

/* [128] classes of ASCII as digits of the enum above. */
static const char flash__ascii_class[] =
    "00000000088888000000000000000000" "86667666666766665555555555667776"
    "61111111111111111111111111166676" "7" "22222222222222222222222222" "67670";

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

static int flash__class(uint32_t c)
{
    size_t lo = 0, hi = FLASH__COUNT(flash__unicode);
    uint32_t e;
    if (c < 128) return flash__ascii_class[c] - '0';
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo)/2;
        if (flash__unicode[mid] >> 4 <= c) lo = mid; else hi = mid;
    }
    e = flash__unicode[lo];
    if ((e & 15) != FLASH__CASES) return (int)(e & 15);
    return (c - (e >> 4)) & 1 ? FLASH__LOWER : FLASH__UPPER;
}

/* Length of the character at p (p < end): 1 to 4, and *c; or 0 for bytes that are no UTF-8. *c is
   then U+FFFD. */
static int flash__utf8(const uint8_t *p, const uint8_t *end, uint32_t *c)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
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

/* The character at p as the tokenizers count: always at least one byte. */
static int flash__char(const uint8_t *p, const uint8_t *end, uint32_t *c)
{
    int n = flash__utf8(p, end, c);
    return n ? n : 1;
}

/* Start of the character that ends at p (begin < p). Splits text exactly as going forward does: a
   lead byte is never the inside of another character. */
static const uint8_t *flash__char_before(const uint8_t *begin, const uint8_t *p)
{
    uint32_t c;
    int n;
    for (n = 2; n <= 4 && p - begin >= n; n++)
        if (p[-n] >= 0xc2) return flash__utf8(p - n, p, &c) == n ? p - n : p - 1;
    return p - 1;
}

/* ===== >>pretokenize ====================================================== */

/* Byte-level BPE splits text into words before it merges. The published regular expressions (each
   model's tokenizer.json) use few constructs, so they are written here in two characters an item
   and matched directly: a class, then how often: . once, ? 0-1, * any, + 1 or more, 3 one to three
   (all greedy, backtracking). Classes:
     L \p{L}   N \p{N}   s \s   n [\r\n]   / [\r\n/]   a [A-Za-z]   d [0-9]   m [\p{L}\p{M}]
     u \p{P}   P [\p{P}\p{S}]   x [^\s\p{L}\p{N}]   p [^\r\n\p{L}\p{N}]   q [^\r\n\p{L}\p{P}\p{S}]
     U [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]   l [\p{Ll}\p{Lm}\p{Lo}\p{M}]   A ASCII \p{P}\p{S}
     D [\p{P}$+<=>^~|]   F D and `   C [4E00-9FA5 3040-30FF]   K [0800-9FA5 AC00-D7FF]
     Z, Y: DeepSeek's lists of cased letters, of punctuation   ! (?!\S)   $ end
     ' 's|'t|'re|'ve|'m|'ll|'d   I the same in any case   anything else is itself
   Several passes: each splits the pieces of the one before; what a pass does not match stays a
   piece. */

#define FLASH__GPT2   "'.| ?L+| ?N+| ?x+|s+!.|s+"
#define FLASH__LLAMA3 "I.|p?L+|N3| ?x+n*|s*n+|s+!.|s+"
#define FLASH__QWEN2  "I.|p?L+|N.| ?x+n*|s*n+|s+!.|s+"
#define FLASH__TEKKEN "p?U*l+|p?U+l*|N.| ?x+/*|s*n+|s+!.|s+"
#define FLASH__GPT4O  "p?U*l+I?|p?U+l*I?|N3| ?x+/*|s*n+|s+!.|s+"

typedef struct flash__pre { const char *name; uint8_t whole_words,
                            bos; const char *pass[7]; } flash__pre;

/* name, whole words are looked up first, BOS by default, passes */
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

static const flash__pre *flash__pre_find(const char *name, size_t n)
{
    size_t i;
    for (i = 0; i < FLASH__COUNT(flash__pre_table); i++)
        if (!flash__compare(name, n, flash__pre_table[i].name, strlen(flash__pre_table[i].name)))
            return flash__pre_table + i;
    return NULL;
}

/* [n] first, last, first, last ... */
static int flash__in_ranges(uint32_t c, const uint32_t *range, size_t n)
{
    size_t i;
    for (i = 0; i + 1 < n; i += 2) if (c >= range[i] && c <= range[i + 1]) return 1;
    return 0;
}

static int flash__in(char what, uint32_t c)
{
    /* Cased letters of today's Unicode that DeepSeek's list, made for an older one, does not
       have. */
    static const uint32_t uncased[] = { 0x560, 0x588, 0x10c7, 0x10c7, 0x10cd, 0x10cd, 0x10d0,
                                        0x10ff, 0x1c80, 0x1c8a,
        0x2d00, 0x2d2d, 0xa790, 0xa7fa, 0xab30, 0xab68, 0x10570, 0x105bc, 0x10d50, 0x10d85,
            0x16e40, 0x16ed3,
        0x1d400, 0x1df2a };
    static const uint32_t punct[] = { '!', '/', ':', '~', 0xff01, 0xff0f, 0xff1a, 0xff5e, 0x2018,
                                      0x201f,
        0x3000, 0x3002 };
    int k, letter, cased, newline = c == '\r' || c == '\n';
    switch (what) { /* those that need no class */
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
    case 'D': case 'F': return k == FLASH__PUNCT
        || (c < 128 && k == FLASH__SYMBOL && (c != '`' || what == 'F'));
    case 'Z': return cased ? !flash__in_ranges(c, uncased, FLASH__COUNT(uncased)) : c == 0x295;
    default:  return c == (uint32_t)(unsigned char)what;
    }
}

/* Length of 's, 't, 're, 've, 'm, 'll, 'd at p, or 0. */
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

/* End of the match of one alternative at p, NULL if it does not match. *stuck: no match begins
   before it. */
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
        /* a shorter run cannot reach the end either */
        if (item[2] == '$') { *stuck = q; return NULL; }
        if (count) q = flash__char_before(p, q);
    }
    return NULL;
}

/* The first alternative of pattern that matches something at p, or NULL. */
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

/* The vocabulary, left where the file has it, plus an index. Every token stands for raw bytes: in
   SentencePiece files U+2581 is a space; in byte-level BPE files each character is one byte
   (GPT-2's table). All look-ups compare raw bytes, so text is never rewritten. Control, unknown,
   unused and byte tokens are not found by text. KNOWN TRAPS: special ids and their defaults lie in
   [0, V) only if checked; scores and types may be shorter arrays or of other types; <0x-1> is not a
   byte token. */

enum { FLASH__VOCAB_NONE, FLASH__VOCAB_SPM, FLASH__VOCAB_BPE };
enum { FLASH__TOKEN_NORMAL = 1, FLASH__TOKEN_UNKNOWN, FLASH__TOKEN_CONTROL, FLASH__TOKEN_USER,
       FLASH__TOKEN_UNUSED,
       FLASH__TOKEN_BYTE };
enum { FLASH__SPECIAL_BYTES_MAX = 512, FLASH__ENDS_MAX = 16, FLASH__PROBES_MAX = 512 };

typedef struct flash__vocab {
    int             kind;
    uint32_t        n, n_merge, n_special, token_bytes_max;
    /* the token strings, 8 bytes of length before each */
    const uint8_t  *text;
    /* [n] f32, i32; or NULL */
    const uint8_t  *scores, *types;
    /* [n] offset of each text */
    uint32_t       *at;
    /* hash: raw bytes -> token */
    int32_t        *slot;   size_t slots;
    /* [n_merge] tokens, in order of rank */
    uint32_t       *left, *right, *result;
    /* hash: (left, right) -> rank */
    int32_t        *merge_slot; size_t merge_slots;
    /* [n_special] control and user tokens, sorted by text */
    uint32_t       *special;
    /* token of a byte, -1: none */
    int32_t         byte[256];
    int32_t         bos, eos, unk, ends[FLASH__ENDS_MAX];
    int             n_ends, add_bos, add_eos, space_prefix, inner_space;
    const flash__pre *pre;
} flash__vocab;

/* Raw bytes of up to two spans, one by one. */
enum { FLASH__RAW, FLASH__SPM_TEXT, FLASH__BPE_TEXT };
typedef struct flash__bytes { const uint8_t *p, *end, *p2, *end2; int mode; } flash__bytes;

/* GPT-2's table backwards: the byte that a character stands for, -1 for none. Printable Latin-1 is
   itself; the other 68 bytes are U+0100... in order
   (github.com/openai/gpt-2/blob/master/src/encoder.py). */
static int flash__bpe_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xff && c != 0xad)) return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    c -= 0x100;
    return (int)(c < 33 ? c : c < 67 ? c + 0x7f - 33 : 0xad);
}

static int flash__next_byte(flash__bytes *b)
{
    uint32_t c;
    int n, byte;
    if (b->p == b->end) {
        if (b->p2 == b->end2) return -1;
        b->p = b->p2; b->end = b->end2;
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
    b.p = p; b.end = p + n;
    b.p2 = b.end2 = NULL;
    b.mode = mode;
    return b;
}

static const uint8_t *flash__token_span(const flash__vocab *v, uint32_t id, size_t *n)
{
    const uint8_t *p = v->text + v->at[id];
    *n = (size_t)flash__rd32(p - 8);
    return p;
}
static int flash__token_type(const flash__vocab *v, uint32_t id)
{
    return v->types ? (int)flash__rd32(v->types + 4*(size_t)id) : FLASH__TOKEN_NORMAL;
}
static int flash__token_special(const flash__vocab *v, uint32_t id)
{
    int t = flash__token_type(v, id);
    return t == FLASH__TOKEN_CONTROL || t == FLASH__TOKEN_UNKNOWN;
}

/* The raw bytes of a normal or user token. */
static flash__bytes flash__token_bytes(const flash__vocab *v, uint32_t id)
{
    size_t n;
    const uint8_t *p = flash__token_span(v, id, &n);
    if (v->kind == FLASH__VOCAB_SPM) return flash__span(p, n, FLASH__SPM_TEXT);
    return flash__span(p, n, flash__token_type(v, id) == FLASH__TOKEN_NORMAL ? FLASH__BPE_TEXT
                       : FLASH__RAW);
}

static uint32_t flash__hash(flash__bytes b) /* FNV-1a, spread */
{
    uint32_t h = 2166136261u;
    int c;
    while ((c = flash__next_byte(&b)) >= 0) h = (h ^ (uint32_t)c)*16777619u;
    return (h ^ h >> 15)*0x2c1b3c6du;
}

/* Where the token with these raw bytes is, or would go: its slot holds -1 or tag and token. */
static size_t flash__vocab_slot(const flash__vocab *v, flash__bytes b, uint32_t hash)
{
    size_t i = hash & (v->slots - 1);
    for (; v->slot[i] >= 0; i = (i + 1) & (v->slots - 1)) {
        uint32_t id = (uint32_t)v->slot[i] & (FLASH_VOCAB_MAX - 1);
        flash__bytes x = b, y;
        int c;
        if ((uint32_t)v->slot[i] >> 20 != hash >> 21) continue;
        y = flash__token_bytes(v, id);
        while ((c = flash__next_byte(&x)) == flash__next_byte(&y)) if (c < 0) return i;
    }
    return i;
}

/* The token with these raw bytes, -1 for none. */
static int32_t flash__vocab_find(const flash__vocab *v, flash__bytes b)
{
    int32_t s = v->slot[flash__vocab_slot(v, b, flash__hash(b))];
    return s < 0 ? s : s & (FLASH_VOCAB_MAX - 1);
}

/* Makes a token findable, the first of those that spell the same. 0 if that took suspiciously long:
   by chance it does not happen (odds below 1e-15 at load 2/3), so someone chose the tokens to make
   us slow. */
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
    uint64_t h = ((uint64_t)l << 32 | r)*0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29)*0xbf58476d1ce4e5b9u;
    return (size_t)(h >> 32) & (v->merge_slots - 1);
}

/* Rank of a merge, or -1. */
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

/* The longest special token that text begins with, -1 for none. Binary search, one more byte at a
   time. */
static int32_t flash__special_at(const flash__vocab *v, const uint8_t *p, const uint8_t *end,
                                 int all, size_t *length)
{
    uint32_t lo = 0, hi = v->n_special;
    size_t k, n;
    int32_t found = -1;
    for (k = 0; lo < hi && p + k < end; k++) {
        uint32_t a = lo, b = hi, mid;
        /* first whose byte k is not below p[k]; a text that ends before k comes first */
        while (a < b) {
            const uint8_t *t = flash__token_span(v, v->special[mid = a + (b - a)/2], &n);
            if (n <= k || t[k] < p[k]) a = mid + 1; else b = mid;
        }
        lo = a;
        for (b = hi; a < b;) {
            const uint8_t *t = flash__token_span(v, v->special[mid = a + (b - a)/2], &n);
            if (t[k] <= p[k]) a = mid + 1; else b = mid;
        }
        hi = a;
        if (lo == hi) break;
        flash__token_span(v, v->special[lo], &n);
        if (n == k + 1) { /* texts sorted: the whole match, if any, is first; equal texts follow */
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

/* The value of a byte token's text <0xHH>, -1 for anything else. */
static int flash__byte_token(const uint8_t *p, size_t n)
{
    int v = 0, i;
    if (n != 6 || memcmp(p, "<0x", 3) || p[5] != '>') return -1;
    for (i = 3; i < 5; i++) {
        int c = flash__lower(p[i]);
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return -1;
        v = v*16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return v;
}

/* A key that must be of this type if it is there at all. *found 0: absent. */
static flash_status flash__want(const flash_gguf *g, const char *key, flash_value_type type,
                                flash_value_type item,
                                flash_value *v, int *found, flash_error *err)
{
    *found = !flash_gguf_find(g, key, v);
    if (*found && (v->type != type || v->item != item))
        return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(v->data - g->file.data),
                           "key %s has the wrong type", key);
    return FLASH_E_NONE;
}

static flash_status flash__want_u32(const flash_gguf *g, const char *key, uint32_t *out,
                                    int *found, flash_error *err)
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

/* Sizes that the plan needs: tokens, merges, special tokens. Before the index is there. */
static flash_status flash__vocab_survey(const flash_gguf *g, flash__vocab *v, flash_error *err)
{
    flash_value x;
    int found;
    uint32_t i, t;
    flash_status s = flash__want(g, "tokenizer.ggml.model", FLASH_VALUE_STRING, FLASH_VALUE_STRING,
                                 &x, &found, err);
    if (s) return s;
    if (!found) return flash__fail(err, FLASH_E_FORMAT, 0,
                                   "the file has no tokenizer (key tokenizer.ggml.model)");
    if (x.bytes == 5 && !memcmp(x.data, "llama", 5)) v->kind = FLASH__VOCAB_SPM;
    else if (x.bytes == 4 && !memcmp(x.data, "gpt2", 4)) v->kind = FLASH__VOCAB_BPE;
    else if ((x.bytes == 4 && !memcmp(x.data, "none", 4))
             || (x.bytes == 8 && !memcmp(x.data, "no_vocab", 8))) return FLASH_E_NONE;
    else return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
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
        t = flash__rd32(x.data + 4*(size_t)i);
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
        if (!found) return flash__fail(err, FLASH_E_FORMAT, 0,
                                       "a gpt2 tokenizer needs merges (key tokenizer.ggml.merges)");
        if (x.count > INT32_MAX/4)
            return flash__fail(err, FLASH_E_TOO_LARGE, 0, "%u merges", x.count);
        v->n_merge = (uint32_t)x.count;
    }
    v->slots = flash__pow2(v->n + v->n/2 + 1);
    v->merge_slots = flash__pow2(v->n_merge + v->n_merge/2 + 1);
    return FLASH_E_NONE;
}

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

/* Reads the merges as tokens: "left right" in the file, rank by place. */
static flash_status flash__vocab_merges(const flash_gguf *g, flash__vocab *v, flash_error *err)
{
    flash_value x;
    size_t at = 0, n, i, k;
    const char *text;
    uint32_t rank = 0;
    if (!v->n_merge) return FLASH_E_NONE;
    flash_gguf_find(g, "tokenizer.ggml.merges", &x);
    memset(v->merge_slot, 0xff, v->merge_slots*4);
    for (; (text = flash_value_string(&x, &at, &n)) != NULL; rank++) {
        const uint8_t *p = (const uint8_t *)text;
        flash__bytes l, r, both;
        int32_t id[3];
        for (i = 1; i < n && p[i] != ' '; i++) {}
        if (i + 1 >= n)
            return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(p - g->file.data),
                               "merge %u is not two parts with a space "
                               "between: \"%t\"", (uint64_t)rank, text, FLASH__MIN(n, (size_t)64));
        l = flash__span(p, i, FLASH__BPE_TEXT);
        r = flash__span(p + i + 1, n - i - 1, FLASH__BPE_TEXT);
        both = l;
        both.p2 = r.p; both.end2 = r.end;
        id[0] = flash__vocab_find(v, l);
        id[1] = flash__vocab_find(v, r);
        id[2] = flash__vocab_find(v, both);
        if (id[0] < 0 || id[1] < 0 || id[2] < 0)
            return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(p - g->file.data),
                               "merge %u names a token that the vocabulary "
                               "lacks: \"%t\"", (uint64_t)rank, text, FLASH__MIN(n, (size_t)64));
        v->left[rank] = (uint32_t)id[0];
        v->right[rank] = (uint32_t)id[1];
        v->result[rank] = (uint32_t)id[2];
        /* a repeat: the first counts */
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

static flash_status flash__vocab_id(const flash_gguf *g, const flash__vocab *v, const char *key,
                                    int32_t fallback,
                                    int32_t *out, flash_error *err)
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

/* Fills the index that flash__vocab_plan has carved. */
static flash_status flash__vocab_load(const flash_gguf *g, flash__vocab *v,
                                      const flash_model_desc *desc, flash_error *err)
{
    static const char *const end_text[] = { "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",
                                            "<|endoftext|>",
        "<|end_of_text|>", "<|eom_id|>", "<|eot|>", "</s>", "<|end_of_turn|>" };
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
    memset(v->slot, 0xff, v->slots*4);
    flash_gguf_find(g, "tokenizer.ggml.tokens", &x);
    for (; (text = flash_value_string(&x, &at, &n)) != NULL; i++) {
        const uint8_t *p = (const uint8_t *)text;
        int type, byte = flash__byte_token(p, n), last = -1, c;
        if (n > FLASH_TOKEN_BYTES_MAX)
            return flash__fail(err, FLASH_E_TOO_LARGE, (uint64_t)(p - g->file.data),
                               "token %u has %u bytes; %u are allowed",
                               (uint64_t)i, (uint64_t)n, (uint64_t)FLASH_TOKEN_BYTES_MAX);
        v->at[i] = (uint32_t)(p - v->text);
        v->token_bytes_max = FLASH__MAX(v->token_bytes_max, (uint32_t)n);
        type = flash__token_type(v, i);
        if (!v->types && spm && byte >= 0) type = FLASH__TOKEN_BYTE;
        if (type == FLASH__TOKEN_BYTE) {
            if (byte < 0) return flash__fail(err, FLASH_E_FORMAT, (uint64_t)(p - g->file.data),
                                             "token %u is a byte token "
                                             "without a byte: \"%t\"", (uint64_t)i, text,
                                                 FLASH__MIN(n, (size_t)64));
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
                                   "are allowed", (uint64_t)i, (uint64_t)n,
                                       (uint64_t)FLASH__SPECIAL_BYTES_MAX);
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
    if ((s = flash__vocab_id(g, v, "tokenizer.ggml.bos_token_id", spm ? 1 : -1, &v->bos,
                             err)) != 0) return s;
    if ((s = flash__vocab_id(g, v, "tokenizer.ggml.eos_token_id", spm ? 2 : -1, &v->eos,
                             err)) != 0) return s;
    if ((s = flash__vocab_id(g, v, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1, &v->unk,
                             err)) != 0) return s;
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
        s = flash__want(g, "tokenizer.ggml.pre", FLASH_VALUE_STRING, FLASH_VALUE_STRING, &x,
                        &found, err);
        if (s) return s;
        if (!found) flash__note(&desc->host, 1,
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
                        (const char *)x.data,
                       FLASH__MIN(x.bytes, (size_t)64));
            v->pre = flash__pre_find("default", 7);
        }
        v->add_bos = v->pre->bos;
    }
    if ((s = flash__want_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos, err)) != 0) return s;
    if ((s = flash__want_bool(g, "tokenizer.ggml.add_eos_token", &v->add_eos, err)) != 0) return s;
    return flash__want_bool(g, "tokenizer.ggml.add_space_prefix", &v->space_prefix, err);
}

/* ===== >>arch ============================================================= */

/* What each architecture calls its tensors and which shapes they have: data, not code. Names and
   shapes: docs/gguf.md and src/llama-arch.cpp of github.com/ggml-org/llama.cpp. Shapes are written
   [rows, cols]; files store cols first. KNOWN TRAPS: llama files rotate neighbouring pairs (their
   converter permutes q and k); per-layer arrays must have one item per layer; a head count of 0
   divides. */

enum { FLASH__DIM_ONE, FLASH__DIM_D, FLASH__DIM_3D, FLASH__DIM_C, FLASH__DIM_Q, FLASH__DIM_KV,
       FLASH__DIM_O, FLASH__DIM_F, FLASH__DIM_V, FLASH__DIM_ROPE, FLASH__DIM_CONV };

/* A bit for each architecture, for the masks of the rules. */
enum { FLASH__IS_LLAMA = 1, FLASH__IS_DECI = 2, FLASH__IS_FLASH = 4, FLASH__IS_QWEN2 = 8,
       FLASH__IS_QWEN3 = 16,
       FLASH__IS_GEMMA3 = 32, FLASH__IS_SMOLLM3 = 64, FLASH__IS_LFM2 = 128, FLASH__IS_LLAMA4 = 256,
       FLASH__IS_ANY = 511 };
typedef struct flash__arch_fact { const char *name; int bit, rope_style; } flash__arch_fact;
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

/* Parts of a layer, for the rules' masks. */
enum { FLASH__HAS_KV = 1, FLASH__HAS_CONV = 2, FLASH__HAS_LINEAR = 4, FLASH__HAS_FFN = 8,
       FLASH__HAS_MIXER = 7, FLASH__HAS_ANY = 15 };
static int flash__parts(const flash_layer *l)
{
    int mixer = l->attention == FLASH_ATTENTION_SKIP ? 0
        : l->attention == FLASH_ATTENTION_CONV ? FLASH__HAS_CONV
        : l->attention == FLASH_ATTENTION_LINEAR ? FLASH__HAS_LINEAR : FLASH__HAS_KV;
    return mixer | (l->d_ffn ? FLASH__HAS_FFN : 0);
}

typedef struct flash__mat { const uint8_t *data; flash_type type; int rows,
                            cols; size_t row_bytes; } flash__mat;

typedef struct flash__layer {
    const float *attn_norm, *ffn_norm;                    /* [D]                        */
    const float *attn_post, *ffn_post, *q_norm, *k_norm;  /* [D], [D], [C], [C]; NULL: none */
    const float *bq, *bk, *bv, *bo, *bgate, *bup, *bdown; /* biases, NULL: none         */
    const float *conv;                                    /* [D,conv_length]            */
    flash__mat   q, k, v, o, gate, up, down, conv_in, conv_out;
} flash__layer;

typedef struct flash__root { /* what is not in a layer */
    const float *out_norm, *rope_factors;
    flash__mat   embed, head;
} flash__root;

typedef struct flash__tensor_rule {
    const char *name;
    uint8_t  matrix, parts, rows, cols; /* matrix 0: floats, stored as F32; parts: of a layer */
    uint16_t may, need;                 /* architectures that may, that must have it          */
    uint16_t at;                        /* offset of its field                                */
} flash__tensor_rule;

#define FLASH__LAYER(field) (uint16_t)offsetof(flash__layer, field)
#define FLASH__BIASED (FLASH__IS_LLAMA | FLASH__IS_DECI | FLASH__IS_FLASH | FLASH__IS_QWEN2 \
    | FLASH__IS_SMOLLM3)
#define FLASH__NORMED (FLASH__IS_QWEN3 | FLASH__IS_GEMMA3 | FLASH__IS_LFM2)
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
#define FLASH__ROOT(field) (uint16_t)offsetof(flash__root, field)
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

static uint64_t flash__dim(const flash_arch *a, const flash_layer *l, int dim)
{
    switch (dim) {
    case FLASH__DIM_D:    return (uint64_t)a->d_model;
    case FLASH__DIM_3D:   return 3*(uint64_t)a->d_model;
    case FLASH__DIM_C:    return (uint64_t)a->d_head;
    case FLASH__DIM_O:    if (l->attention == FLASH_ATTENTION_LINEAR) return (uint64_t)a->d_model;
                          return (uint64_t)l->n_head*(uint64_t)a->d_head;
    case FLASH__DIM_CONV: return (uint64_t)a->conv_length;
    case FLASH__DIM_Q:    return (uint64_t)l->n_head*(uint64_t)a->d_head;
    case FLASH__DIM_KV:   return (uint64_t)l->n_kv_head*(uint64_t)a->d_head;
    case FLASH__DIM_F:    return (uint64_t)l->d_ffn;
    case FLASH__DIM_V:    return (uint64_t)a->n_vocab;
    case FLASH__DIM_ROPE: return (uint64_t)a->rope_dims/2;
    default:              return 1;
    }
}

/* Items of a head that share a scale in Q8_0: 32, or what divides smaller heads; 0: none does. */
static int flash__kv_group(int C) { return C % 32 == 0 ? 32 : C % 16 == 0 ? 16 : C % 8 ? 0 : 8; }

/* Bytes of one block of 64 keys or values of one head: see >>forward. */
static size_t flash__kv_block(flash_type kv, int C)
{
    return kv == FLASH_TYPE_Q8_0 ? 64*(size_t)C + 128*(size_t)(C/flash__kv_group(C))
        : flash_row_bytes(kv, 64*(size_t)C);
}

static int flash__kv_type_ok(flash_type kv, int C)
{
    return kv == FLASH_TYPE_F32 || kv == FLASH_TYPE_F16
        || (kv == FLASH_TYPE_Q8_0 && flash__kv_group(C));
}

/* Sum of what the rules demand. */
static uint64_t flash__rules_params(const flash_arch *a, const flash_layer *l, int bit, int parts,
                                    const flash__tensor_rule *rules, size_t n)
{
    uint64_t sum = 0;
    size_t k;
    for (k = 0; k < n; k++)
        if ((rules[k].need & bit) && (rules[k].parts & parts))
            sum += flash__dim(a, l, rules[k].rows)*flash__dim(a, l, rules[k].cols);
    return sum;
}

FLASH_API uint64_t flash_arch_params(const flash_arch *a)
{
    uint64_t n;
    size_t k;
    int i, bit = FLASH__IS_LLAMA;
    if (!a) return 0;
    for (k = 0; k < FLASH__COUNT(flash__archs); k++)
        if (!strcmp(flash__archs[k].name, a->name)) bit = flash__archs[k].bit;
    n = a->tied ? 0 : (uint64_t)a->n_vocab*(uint64_t)a->d_model;
    n += flash__rules_params(a, a->layer, bit, FLASH__HAS_ANY, flash__root_rules,
                             FLASH__COUNT(flash__root_rules));
    for (i = 0; i < a->n_layer; i++)
        n += flash__rules_params(a, a->layer + i, bit, flash__parts(a->layer + i),
                                 flash__layer_rules, FLASH__COUNT(flash__layer_rules));
    return n;
}

enum { FLASH__CHUNK = 256 }; /* tokens worked on at once, unless asked for otherwise */

/* Blocks of 64 positions that a layer keeps: all, or a ring in which a window and a chunk fit. */
static int flash__kv_blocks(const flash_layer *l, int n_ctx, int chunk)
{
    int all = (n_ctx + 63)/64, ring = (int)(((int64_t)l->window + chunk + 62)/64) + 1;
    return l->attention == FLASH_ATTENTION_FULL ? all : FLASH__MIN(all, ring);
}

FLASH_API uint64_t flash_arch_kv_bytes(const flash_arch *a, int n_ctx, int chunk, flash_type kv)
{
    uint64_t n = 0;
    int i;
    if (!a || n_ctx < 1 || n_ctx > FLASH_CONTEXT_MAX || chunk < 0
        || !flash__kv_type_ok(kv, a->d_head)) return 0;
    chunk = FLASH__MIN(chunk ? chunk : FLASH__CHUNK, n_ctx);
    for (i = 0; i < a->n_layer; i++)
        n += 2*(uint64_t)a->layer[i].n_kv_head
            *(uint64_t)flash__kv_blocks(a->layer + i, n_ctx, chunk)*flash__kv_block(kv, a->d_head);
    return n;
}

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
        window = p[k] >= '0' && p[k] <= '9' ? window*10 + p[k] - '0' : FLASH_CONTEXT_MAX + 1;
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
    while ((p = strchr(p, ',')) != NULL && entries <= a->n_layer) { p++; entries++; }
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

/* One reader with a sticky status, so that the list below reads as a list. */
typedef struct flash__hyper {
                              const flash_gguf *g; const char *arch; flash_error *err;
flash_status status; char key[96]; } flash__hyper;

static int flash__hyper_find(flash__hyper *h, const char *name, flash_value *v)
{
    char *p = h->key, *end = h->key + sizeof h->key - 1;
    p = flash__put(p, end, h->arch, strlen(h->arch));
    p = flash__put(p, end, ".", 1);
    p = flash__put(p, end, name, strlen(name));
    *p = 0;
    return !h->status && !flash_gguf_find(h->g, h->key, v);
}

static int64_t flash__hyper_range(flash__hyper *h, const flash_value *v, uint64_t i, int64_t least,
                                  int64_t most)
{
    int64_t x = flash_value_integer(v, i);
    if (x < least || x > most)
        h->status = flash__fail(h->err, x > most ? FLASH_E_TOO_LARGE : FLASH_E_FORMAT,
                                (uint64_t)(v->data - h->g->file.data),
                                    "%s is %s%u; %i to %i are allowed",
                                h->key, x < 0 ? "-" : "", (uint64_t)(x < 0 ? -x : x), (int)least,
                                    (int)most);
    return x;
}

static void flash__hyper_absent(flash__hyper *h)
{
    if (!h->status) h->status = flash__fail(h->err, FLASH_E_FORMAT, 0, "key %s is missing", h->key);
}

/* fallback < least: the key must be there. */
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

/* A finite number above 0. fallback 0: the key must be there. */
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

/* One number for all layers, or one for each. fallback -1: the key must be there. */
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
                                "key %s has %u items for %i layers",
                                h->key, v.count, n_layer);
    for (i = 0; i < n_layer && !h->status && found; i++)
        out[i] = (int32_t)flash__hyper_range(h, &v, v.type == FLASH_VALUE_ARRAY ? (uint64_t)i : 0,
                                             least, most);
}

/* The base of RoPE, for all layers or for each, 0: none. */
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
        float x = flash__rdf32(v.data + (v.type == FLASH_VALUE_ARRAY ? 4*(size_t)i : 0));
        if (!(x == 0 || (x >= 1 && x < 3e38f)))
            h->status = flash__fail(h->err, FLASH_E_FORMAT, (uint64_t)(v.data - h->g->file.data),
                                    "key %s has an item that is neither 0 nor a number from 1 on",
                                    h->key);
        a->layer[i].rope_base = x;
    }
    for (i = a->n_layer; i-- > 0;)
        if (a->layer[i].rope_base > 0) a->rope_base = a->layer[i].rope_base;
}

/* Name of the architecture; "general.architecture" must be a short text. */
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

static flash_status flash__arch_rope(flash__hyper *h, flash_arch *a, int bit)
{
    flash_value v;
    int i;
    a->rope_base = bit & FLASH__IS_FLASH ? 10000.0f : flash__hyper_float(h, "rope.freq_base",
                                                                      10000.0f);
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
        if (!flash__compare(text, v.bytes, "none", 4))
            { a->rope_scaling = FLASH_ROPE_PLAIN; a->rope_factor = 1; }
        else if (!flash__compare(text, v.bytes, "linear", 6)) a->rope_scaling = FLASH_ROPE_LINEAR;
        else if (!flash__compare(text, v.bytes, "llama3", 6)) a->rope_scaling = FLASH_ROPE_LLAMA3;
        else if (!flash__compare(text, v.bytes, "yarn", 4)) a->rope_scaling = FLASH_ROPE_YARN;
        else h->status = flash__fail(h->err, FLASH_E_UNSUPPORTED,
                                     (uint64_t)(v.data - h->g->file.data),
            "rope scaling \"%t\" is not "
                                     "supported; none, linear, llama3 and yarn are", text,
                                         FLASH__MIN(v.bytes, (size_t)40));
    }
    a->rope_low_freq = flash__hyper_float(h, "rope.scaling.low_freq_factor", 1.0f);
    a->rope_high_freq = flash__hyper_float(h, "rope.scaling.high_freq_factor", 4.0f);
    if (!h->status && a->rope_high_freq <= a->rope_low_freq)
        h->status = flash__fail(h->err, FLASH_E_FORMAT, 0, "key %s is not above low_freq_factor",
                                h->key);
    return h->status;
}

/* Heads, key/value heads and feed-forward widths; what 0 means depends on the architecture. Returns
   the heads of the first layer that has any, 1 if none has. */
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
        l->attention = !heads[i] ? FLASH_ATTENTION_SKIP : kv[i] ? FLASH_ATTENTION_FULL
            : bit & FLASH__IS_LFM2 ? FLASH_ATTENTION_CONV : FLASH_ATTENTION_LINEAR;
        if (heads[i] && kv[i]) { l->n_head = (uint16_t)heads[i]; l->n_kv_head = (uint16_t)kv[i]; }
    }
    return first ? first : 1;
}

static void flash__arch_window(flash_arch *a, int i, int window, int attention)
{
    if (!a->layer[i].n_head || !window) return;
    a->layer[i].attention = (uint8_t)attention;
    a->layer[i].window = window;
}

/* What each architecture does with windows and RoPE, layer by layer. */
static void flash__arch_windows(flash__hyper *h, flash_arch *a, int bit)
{
    int32_t list[FLASH_LAYERS_MAX];
    flash_value v;
    int i, n = a->n_layer, window = 0, period;
    if (bit & (FLASH__IS_GEMMA3 | FLASH__IS_LFM2))
        window = flash__hyper_int(h, "attention.sliding_window", 0, 0, FLASH_CONTEXT_MAX);
    if (bit & FLASH__IS_LFM2)
        for (i = 0; i < n; i++) flash__arch_window(a, i, window, FLASH_ATTENTION_WINDOW);
    if (bit & FLASH__IS_SMOLLM3) for (i = 3; i < n; i += 4) a->layer[i].rope_base = 0;
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
            else a->layer[i].rope_base = 0;
    }
    if (!(bit & FLASH__IS_FLASH)) return;
    for (i = 0; i < n; i++)
        list[i] = a->layer[i].attention == FLASH_ATTENTION_SKIP ? 2 : 0;
    flash__hyper_layers(h, "attention.pattern", n, 0, 0, 2, list);
    for (i = 0; i < n && !h->status; i++) {
        if ((list[i] == 2) != (a->layer[i].attention == FLASH_ATTENTION_SKIP))
            h->status = flash__fail(h->err, FLASH_E_FORMAT, 0,
                                    "layer %i: pattern %i, but %i heads", i, (int)list[i],
                                    (int)a->layer[i].n_head);
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

/* Reads and checks all hyper-parameters. n_layer is known already. *bit: which architecture. */
static flash_status flash__arch_load(const flash_gguf *g, int n_layer, uint32_t n_token,
                                     flash_arch *a, int *bit, flash_error *err)
{
    flash__hyper h;
    flash_value v;
    flash_tensor t;
    size_t k;
    int i, heads, experts;
    memset(a, 0, sizeof *a);
    h.g = g; h.arch = a->name; h.err = err;
    h.status = flash__arch_name(g, a->name, err);
    if (h.status) return h.status;
    for (k = 0; k < FLASH__COUNT(flash__archs) && strcmp(flash__archs[k].name, a->name); k++) {}
    if (k == FLASH__COUNT(flash__archs))
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "architecture \"%s\" is not supported; llama, deci, flash, qwen2, "
                           "qwen3, gemma3, smollm3, lfm2 and llama4 are", a->name);
    *bit = flash__archs[k].bit;
    a->rope_style = flash__archs[k].rope_style;
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
    a->d_head = flash__hyper_int(&h, "attention.key_length", a->d_model/heads, 1, FLASH_HEAD_MAX);
    if (flash__hyper_int(&h, "attention.value_length", a->d_head, 1, FLASH_HEAD_MAX) != a->d_head
        && !h.status)
        return flash__fail(err, FLASH_E_UNSUPPORTED, 0,
                           "values of another size than keys are not supported");
    if (a->d_head > FLASH_HEAD_MAX && !h.status) /* no key said so */
        return flash__fail(err, FLASH_E_TOO_LARGE, 0, "heads of %i; %i are allowed", a->d_head,
                           (int)FLASH_HEAD_MAX);
    a->rope_dims = flash__hyper_int(&h, "rope.dimension_count", a->d_head, 2, a->d_head);
    if (!h.status && a->rope_dims & 1)
        return flash__fail(err, FLASH_E_FORMAT, 0, "key %s is odd", h.key);
    if (flash__arch_rope(&h, a, *bit)) return h.status;
    flash__arch_windows(&h, a, *bit);
    if (*bit & FLASH__IS_LFM2)
        a->conv_length = flash__hyper_int(&h, "shortconv.l_cache", 0, 2, 64);
    a->attention_scale = 1.0f/sqrtf((float)a->d_head);
    a->embedding_scale = 1;
    if (*bit & FLASH__IS_GEMMA3) {
        a->activation = FLASH_ACTIVATION_GELU;
        a->embedding_scale = sqrtf((float)a->d_model);
        if (flash__hyper_find(&h, "final_logit_softcapping", &v)) {
            a->logit_cap = v.type == FLASH_VALUE_F32 ? flash__rdf32(v.data) : -1;
            if (!(a->logit_cap >= 0 && a->logit_cap < 3e38f))
                return flash__fail(err, FLASH_E_FORMAT, 0,
                                   "key %s is no finite 32-bit float from 0 on", h.key);
        }
        /* the 27B model alone (no key says so) */
        if (n_layer == 62) a->attention_scale = 1.0f/sqrtf((float)a->d_model/(float)heads);
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

/* Loading: survey the file (how large will the index be), plan one block, fill it. Matrices stay in
   the file; vectors (norms, biases) are copied as floats, since a file may be unaligned or the
   machine big-endian. */

struct flash_model {
    flash_gguf       g;      /* must be first among what holds the file */
    flash_model_desc desc;
    flash_arch       arch;
    flash__kernels   k;
    flash__vocab     vocab;
    flash__root      root;
    flash__layer    *layer;  /* [L] */
    float           *vector; /* pool for vectors */
    size_t           n_vector, vector_used;
    int              bit;    /* of the architecture */
    float            ones[FLASH_HEAD_MAX];
    size_t           block;  /* [B] */
};

typedef struct flash__survey {
                               flash_gguf g; flash__vocab vocab; int n_layer; size_t n_vector;
} flash__survey;

static int flash__ends_with(const flash_tensor *t, const char *end)
{
    size_t n = strlen(end);
    return t->name_bytes > n && !memcmp(t->name + t->name_bytes - n, end, n);
}

/* Finds the sizes that the plan needs; checks the container. Leaves the file open on success. */
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
    h.g = &s->g; h.arch = name; h.err = err;
    h.status = flash__gguf_scan(&s->g, err);
    if (!h.status) h.status = flash__vocab_survey(&s->g, &s->vocab, err);
    if (!h.status && !desc->vocab_only) {
        h.status = flash__arch_name(&s->g, name, err);
        if (!h.status)
            h.status = flash__want(&s->g, "split.count", FLASH_VALUE_U16, FLASH_VALUE_U16, &v,
                                   &found,
                                   err);
        if (!h.status && found && flash__rd16(v.data) > 1)
            h.status = flash__fail(err, FLASH_E_UNSUPPORTED, 0, "one part of a model split into %i "
                                   "files: merge them first (llama-gguf-split --merge)",
                                   (int)flash__rd16(v.data));
        if (!h.status) s->n_layer = flash__hyper_int(&h, "block_count", 0, 1, FLASH_LAYERS_MAX);
        if (!h.status && s->g.n_tensor < (uint32_t)s->n_layer)
            h.status = flash__fail(err, FLASH_E_FORMAT, 0, "%i layers, but only %u tensors",
                                   s->n_layer, (uint64_t)s->g.n_tensor);
        c.g = &s->g; c.at = s->g.infos_at; c.err = err; c.status = FLASH_E_NONE;
        for (i = 0; i < s->g.n_tensor && !h.status && !flash__read_info(&c, &t, &offset); i++)
            if (t.type == FLASH_TYPE_F32
                && (t.ne[0]*4 == t.bytes || flash__ends_with(&t, ".shortconv.conv.weight")))
                s->n_vector += (size_t)((t.bytes/4 + 15) & ~(uint64_t)15);
    }
    if (h.status) flash__file_close(&s->g.file, &desc->host);
    return h.status;
}

/* Carves everything out of the arena, in a fixed order. */
static flash_status flash__model_plan(flash_model **out, flash__survey *s, flash__arena *a,
                                      flash_error *err)
{
    flash_model *m = (flash_model *)flash__take(a, 1, sizeof *m);
    flash__layer *layer;
    float *vector;
    flash_status status;
    if (m) { memset(m, 0, sizeof *m); m->g = s->g; m->vocab = s->vocab; }
    status = flash__gguf_index(m ? &m->g : &s->g, a, err);
    flash__vocab_plan(m ? &m->vocab : &s->vocab, a);
    layer = (flash__layer *)flash__take(a, (size_t)s->n_layer, sizeof *layer);
    vector = (float *)flash__take(a, s->n_vector, 4);
    if (m) {
        if (layer) memset(layer, 0, (size_t)s->n_layer*sizeof *layer);
        m->layer = layer; m->vector = vector; m->n_vector = s->n_vector;
    }
    *out = m;
    return status;
}

/* Whether a layer, or the root, of this model may have the tensor. */
static int flash__rule_holds(const flash_model *m, const flash__tensor_rule *rule,
                             const flash_layer *l, int in_layer)
{
    return (rule->may & m->bit) && (!in_layer || (rule->parts & flash__parts(l)));
}

/* Fills one field of base (a layer or the root) by its rule. prefix: "blk.3." or "". */
static flash_status flash__tensor_load(flash_model *m, const flash__tensor_rule *rule,
                                       const char *prefix, const flash_layer *l,
                                       void *base, flash_error *err)
{
    uint64_t rows = flash__dim(&m->arch, l, rule->rows), cols = flash__dim(&m->arch, l, rule->cols);
    flash_tensor t;
    char name[64], *p = flash__put(name, name + 63, prefix, strlen(prefix));
    if (!flash__rule_holds(m, rule, l, *prefix)) return FLASH_E_NONE;
    *flash__put(p, name + 63, rule->name, strlen(rule->name)) = 0;
    if (flash_gguf_find_tensor(&m->g, name, &t))
        return rule->need & m->bit
            ? flash__fail(err, FLASH_E_FORMAT, 0, "tensor %s is missing", name) : FLASH_E_NONE;
    if (t.ne[0] != cols || t.ne[1] != rows || t.ne[2] != 1 || t.ne[3] != 1)
        return flash__fail(err, FLASH_E_FORMAT,
                           (uint64_t)((const uint8_t *)t.name - m->g.file.data),
            "tensor %s is %ux%u, must be %ux%u",
                           name, t.ne[0], t.ne[1]*t.ne[2]*t.ne[3], cols, rows);
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
        m->vector_used += (size_t)((rows*cols + 15) & ~(uint64_t)15);
        FLASH_ASSERT(m->vector_used <= m->n_vector);
        for (i = 0; i < (size_t)(rows*cols); i++) v[i] = flash__rdf32(t.data + 4*i);
        memcpy((uint8_t *)base + rule->at, &shown, sizeof shown);
    }
    return FLASH_E_NONE;
}

/* Every tensor of the file must be one that a rule names: a leftover means the model does something
   we would not do. */
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
                layer = layer*10 + (*dot - '0');
            if (dot < end && *dot == '.' && layer < m->arch.n_layer) {
                p = dot + 1;
                in_layer = 1;
                rules = flash__layer_rules;
                count = FLASH__COUNT(flash__layer_rules);
            }
        }
        for (k = 0; k < count; k++)
            if (!flash__compare(p, (size_t)(end - p), rules[k].name, strlen(rules[k].name))
                && flash__rule_holds(m, rules + k, m->arch.layer + layer*in_layer, in_layer)) break;
        if (k == count) {
            p = flash__name_at(&m->g, m->g.info_at[i], &n);
            return flash__fail(err, FLASH_E_UNSUPPORTED,
                               (uint64_t)((const uint8_t *)p - m->g.file.data),
                "tensor \"%t\" is not one that "
                               "architecture %s is known to have%s", p, n, m->arch.name,
                               in_layer ? " in this layer" : "");
        }
    }
    return FLASH_E_NONE;
}

/* Position p turns pair i by the angle p*speed[i]; returns a scale of cos and sin. Linear: speeds
   divided by the factor. Llama 3: low frequencies divided, high ones kept, a blend between
   (github.com/meta-llama/llama-models, apply_scaling). YaRN: the same with a ramp over the
   dimensions, and cos and sin scaled by 0.1 ln(factor) + 1 (Peng et al. 2023, arxiv 2309.00071).
   rope_freqs.weight divides too. speed: [rope_dims/2]. */
static float flash__rope_speeds(const flash_model *m, const flash_layer *l, double *speed)
{
    const flash_arch *a = &m->arch;
    const double two_pi = 6.283185307179586, log_base = flash__log(l->rope_base),
        factor = a->rope_factor;
    double low = 0, high = 0, blend, scale = 1;
    int i, n = a->rope_dims, scaling = l->rope_plain ? FLASH_ROPE_PLAIN : a->rope_scaling;
    if (!l->rope_plain) scale = a->rope_attn_factor;
    if (scaling == FLASH_ROPE_YARN) {
        low = floor(n*flash__log(a->rope_n_ctx/(a->rope_beta_fast*two_pi))/(2*log_base));
        high = ceil(n*flash__log(a->rope_n_ctx/(a->rope_beta_slow*two_pi))/(2*log_base));
        low = FLASH__MAX(low, 0);
        high = FLASH__MIN(high, n - 1);
        scale = scale*(1 + 0.1*flash__log(factor));
    }
    for (i = 0; i < n/2; i++) {
        double v = flash__exp(-2.0*i/n*log_base);
        if (m->root.rope_factors) v /= m->root.rope_factors[i];
        blend = 0; /* share of the unscaled speed */
        if (scaling == FLASH_ROPE_YARN) blend = 1 - (i - low)/FLASH__MAX(0.001, high - low);
        if (scaling == FLASH_ROPE_LLAMA3)
            blend = (a->rope_n_ctx*v/two_pi - a->rope_low_freq)/(a->rope_high_freq
                                                                 - a->rope_low_freq);
        blend = FLASH__MIN(FLASH__MAX(blend, 0.0), 1.0);
        if (scaling != FLASH_ROPE_PLAIN) v = v/factor*(1 - blend) + v*blend;
        speed[i] = FLASH__MIN(v, 1e6); /* keeps angles where flash__cos_sin is defined */
    }
    return (float)scale;
}

static flash_status flash__model_fill(flash_model *m, int n_layer, flash_error *err)
{
    size_t k;
    int i;
    flash_status s = flash__vocab_load(&m->g, &m->vocab, &m->desc, err);
    if (s || m->desc.vocab_only) return s;
    s = flash__arch_load(&m->g, n_layer, m->vocab.n, &m->arch, &m->bit, err);
    if (s) return s;
    for (k = 0; k < FLASH__COUNT(flash__root_rules); k++)
        if ((s = flash__tensor_load(m, flash__root_rules + k, "", m->arch.layer, &m->root,
                                    err)) != 0) return s;
    for (i = 0; i < n_layer; i++) {
        char prefix[16] = "blk.", *p = prefix + 4;
        if (i > 99) *p++ = (char)('0' + i/100);
        if (i > 9) *p++ = (char)('0' + i/10%10);
        *p++ = (char)('0' + i%10);
        *p++ = '.';
        *p = 0;
        for (k = 0; k < FLASH__COUNT(flash__layer_rules); k++)
            if ((s = flash__tensor_load(m, flash__layer_rules + k, prefix, m->arch.layer + i,
                                        m->layer + i, err)) != 0) return s;
        if (!m->layer[i].q_norm != !m->layer[i].k_norm)
            return flash__fail(err, FLASH_E_FORMAT, 0,
                               "layer %i norms only one of queries and keys", i);
    }
    if (m->arch.tied) m->root.head = m->root.embed;
    for (i = 0; m->root.rope_factors && i < m->arch.rope_dims/2; i++)
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
    flash__arena a = { NULL, 0 };
    flash_model *none;
    size_t n;
    if (!desc) flash__fail(err, FLASH_E_ARGUMENT, 0, "no desc");
    if (!desc || flash__model_survey(&s, desc, err)) return 0;
    flash__model_plan(&none, &s, &a, err);
    n = a.used == SIZE_MAX ? 0 : a.used + (s.g.file.how == FLASH__FILE_ACQUIRED ? s.g.file.size
                                           : 0);
    flash__file_close(&s.g.file, &desc->host);
    if (!n) flash__fail(err, FLASH_E_TOO_LARGE, 0, "more memory than this machine can address");
    return n;
}

FLASH_API flash_status flash_model_load(flash_model **out, const flash_model_desc *desc,
                                        flash_error *err)
{
    flash__survey s;
    flash__arena a = { NULL, 0 };
    flash_model *m;
    flash__kernels k;
    flash_status status;
    if (!out) return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the model");
    *out = NULL;
    if (!desc || !desc->host.allocator.acquire != !desc->host.allocator.release)
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no desc, or only one half of an allocator");
    status = flash__kernels_select(&k, desc->isa);
    if (status) return flash__fail(err, status, 0, "instruction set %s is not available here",
                                   flash_isa_name(desc->isa));
    status = flash__model_survey(&s, desc, err);
    if (status) return status;
    flash__model_plan(&m, &s, &a, err);
    s.g.block = a.used;
    a.used = 0;
    a.base = s.g.block == SIZE_MAX ? NULL : (uint8_t *)flash__acquire(&desc->host.allocator,
                                                                      s.g.block);
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
    if (status) { flash_model_free(m); return status; }
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

/* Words into tokens: start from characters (SentencePiece) or bytes (BPE) and join the neighbours
   whose joint is best, by score or by rank, leftmost first, until none is left. A heap holds the
   candidates, stale ones are passed over, so any word costs n log n. SentencePiece text is cut
   before each space that follows a non-space, unless some token reaches across such a place: no
   joint can, and the words stay short. KNOWN TRAPS: the space prefix goes before the first word and
   after each special token; U+2581 in the text is not a space: it is spelled in bytes, so that
   decoding gives it back. */

enum { FLASH__NO_EOS = 1 << 16, FLASH__WORD_STACK = 64 };

typedef struct flash__symbol { uint32_t at, n; int32_t id, next, previous; } flash__symbol;
typedef struct flash__joint  { uint32_t key, left, n; int32_t id; } flash__joint;

typedef struct flash__tokens {
    const flash__vocab *v;
    const flash_host   *host;
    int32_t *ids; size_t cap, n;
    flash_status status;
    /* prefix: byte 0 of the word is a space that is not in the text */
    const uint8_t *word; uint32_t word_bytes; int prefix;
    flash__symbol *symbol;
    flash__joint  *heap; size_t heap_n;
} flash__tokens;

static void flash__emit(flash__tokens *t, int32_t id)
{
    if (id < 0) return;
    if (t->n < t->cap) t->ids[t->n] = id;
    t->n++;
}

static flash__bytes flash__word_span(const flash__tokens *t, uint32_t at, uint32_t n)
{
    static const uint8_t space[1] = { ' ' };
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

/* Scores as integers in falling order. */
static uint32_t flash__score_key(const flash__vocab *v, int32_t id)
{
    uint32_t u = flash__rd32(v->scores + 4*(size_t)id);
    return ~(u & 0x80000000u ? ~u : u | 0x80000000u);
}

/* Considers joining symbol left with the one after it. */
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
        int32_t rank = a->id < 0 || b->id < 0 ? -1 : flash__merge_rank(t->v, (uint32_t)a->id,
                (uint32_t)b->id);
        if (rank < 0) return;
        j.key = (uint32_t)rank;
        j.id = (int32_t)t->v->result[rank];
    } else {
        j.id = j.n > t->v->token_bytes_max ? -1
            : flash__vocab_find(t->v, flash__word_span(t, a->at, j.n));
        if (j.id < 0) return;
        j.key = flash__score_key(t->v, j.id);
    }
    for (i = t->heap_n++; i && flash__joint_before(&j, t->heap + (i - 1)/2); i = (i - 1)/2)
        t->heap[i] = t->heap[(i - 1)/2];
    t->heap[i] = j;
}

static flash__joint flash__pop_joint(flash__tokens *t)
{
    flash__joint top = t->heap[0], last = t->heap[--t->heap_n];
    size_t i = 0, child;
    for (; (child = 2*i + 1) < t->heap_n; i = child) {
        if (child + 1 < t->heap_n && flash__joint_before(t->heap + child + 1, t->heap + child))
            child++;
        if (!flash__joint_before(t->heap + child, &last)) break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return top;
}

/* Joins the symbols [0, n) of the word and emits what is left. */
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
        if (a->n + b->n != j.n) continue;
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
        if (a->id >= 0) { flash__emit(t, a->id); continue; }
        for (k = 0; k < a->n; k++) {
            int c = flash__next_byte(&b);
            flash__emit(t, v->byte[c] >= 0 ? v->byte[c] : v->unk);
            if (v->byte[c] < 0) break;
        }
    }
}

/* One word: [n] bytes of text, with a space before them if prefix. */
static void flash__word(flash__tokens *t, const uint8_t *p, size_t n, int prefix)
{
    flash__symbol symbols[FLASH__WORD_STACK];
    flash__joint joints[2*FLASH__WORD_STACK];
    void *block = NULL;
    size_t bytes = 0;
    uint32_t at = 0, count = 0, c;
    if (t->status || !(n + (size_t)prefix)) return;
    t->word = p;
    t->word_bytes = (uint32_t)n + (uint32_t)prefix;
    t->prefix = prefix;
    if (t->v->pre && t->v->pre->whole_words) {
        int32_t id = flash__vocab_find(t->v, flash__word_span(t, 0, t->word_bytes));
        if (id >= 0) { flash__emit(t, id); return; }
    }
    t->symbol = symbols;
    t->heap = joints;
    if (t->word_bytes > FLASH__WORD_STACK) {
        if (n > INT32_MAX/2 || !flash__mul(&bytes, t->word_bytes,
                                           sizeof(flash__symbol) + 2*sizeof(flash__joint))) {
            t->status = FLASH_E_TOO_LARGE;
            return;
        }
        block = flash__acquire(&t->host->allocator, bytes);
        if (!block) { t->status = FLASH_E_MEMORY; return; }
        t->heap = (flash__joint *)block;
        t->symbol = (flash__symbol *)(void *)(t->heap + 2*(size_t)t->word_bytes);
    }
    while (at < t->word_bytes) {
        flash__symbol *s = t->symbol + count;
        const uint8_t *q = p + at - (prefix ? 1 : 0);
        s->at = at;
        s->n = prefix && !at ? 1 : t->v->kind == FLASH__VOCAB_BPE ? 1
            : (uint32_t)flash__char(q, p + n, &c);
        s->id = t->v->kind == FLASH__VOCAB_BPE ? t->v->byte[*q]
            : flash__vocab_find(t->v, flash__word_span(t, at, s->n));
        s->previous = (int32_t)count - 1;
        at += s->n;
        s->next = at < t->word_bytes ? (int32_t)count + 1 : -1;
        count++;
    }
    flash__join(t, count);
    flash__release(&t->host->allocator, block, bytes);
}

/* Splits [p, end) by the passes from pass on; the last pieces are words. */
static void flash__split(flash__tokens *t, int pass, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *gap = p, *r, *stuck;
    const char *pattern = t->v->pre->pass[pass];
    uint32_t c;
    if (!pattern) { flash__word(t, p, (size_t)(end - p), 0); return; }
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

/* Text without special tokens. fresh: at the beginning, or right after a special token. */
static void flash__fragment(flash__tokens *t, const uint8_t *p, const uint8_t *end, int fresh)
{
    int prefix = fresh && t->v->space_prefix;
    const uint8_t *q;
    if (p == end) return;
    if (t->v->kind == FLASH__VOCAB_BPE) { flash__split(t, 0, p, end); return; }
    for (q = p + 1; q < end; q++)
        if (!t->v->inner_space && *q == ' ' && q[-1] != ' ') {
            flash__word(t, p, (size_t)(q - p), prefix);
            prefix = 0;
            p = q;
        }
    flash__word(t, p, (size_t)(end - p), prefix);
}

FLASH_API flash_status flash_tokenize(const flash_model *m, const char *text, size_t bytes,
                                      unsigned flags,
                                      int32_t *ids, size_t cap, size_t *n)
{
    flash__tokens t;
    const uint8_t *p = (const uint8_t *)text, *end, *from;
    int fresh = !(flags & FLASH_TEXT_CONTINUE);
    uint8_t first[32] = { 0 };
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
        if (id < 0) { p++; continue; }
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

/* What a token adds to the text. byte: room for a byte token's one byte. */
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
                                        unsigned flags,
                                        char *text, size_t cap, size_t *bytes)
{
    const flash__vocab *v;
    size_t i, used = 0;
    int fresh = !(flags & FLASH_TEXT_CONTINUE), c;
    uint8_t byte;
    if (!m || (!ids && n) || (!text && cap) || !bytes) return FLASH_E_ARGUMENT;
    v = &m->vocab;
    if (v->kind == FLASH__VOCAB_NONE) return FLASH_E_UNSUPPORTED;
    for (i = 0; i < n; i++) if (ids[i] < 0 || (uint32_t)ids[i] >= v->n) return FLASH_E_ARGUMENT;
    for (i = 0; i < n; i++) {
        flash__bytes b = flash__token_out(v, (uint32_t)ids[i], flags, &byte);
        int special = flash__token_type(v, (uint32_t)ids[i]) == FLASH__TOKEN_USER
            || flash__token_special(v, (uint32_t)ids[i]);
        while ((c = flash__next_byte(&b)) >= 0) {
            /* the prefix */
            if (fresh && c == ' ' && v->space_prefix && !special) { fresh = 0; continue; }
            fresh = 0;
            if (used < cap) text[used] = (char)c;
            used++;
        }
        if (special) fresh = 1; /* after a special token encoding puts a prefix again */
    }
    *bytes = used;
    return used > cap ? FLASH_E_RANGE : FLASH_E_NONE;
}

/* Bytes of d->held that can go out: whole characters, or bytes that can no longer become one
   (written as U+FFFD). */
static size_t flash__let_go(flash_detokenizer *d, int all, char *text)
{
    size_t used = 0, at = 0;
    uint32_t c;
    while (at < d->n_held) {
        const uint8_t *p = d->held + at, *end = d->held + d->n_held;
        int n = flash__utf8(p, end, &c), want = *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4, k;
        /* may go on: all but the first must continue */
        if (!n && !all && *p >= 0xc2 && *p < 0xf5 && end - p < want) {
            for (k = 1; k < end - p && (p[k] & 0xc0) == 0x80; k++) {}
            if (k == end - p) break;
        }
        if (n) { memcpy(text + used, p, (size_t)n); used += (size_t)n; }
        else { memcpy(text + used, "\xef\xbf\xbd", 3); used += 3; }
        at += n ? (size_t)n : 1;
    }
    d->n_held = (uint8_t)(d->n_held - at);
    memmove(d->held, d->held + at, d->n_held);
    return used;
}

FLASH_API size_t flash_token_bytes_max(const flash_model *m)
{
    return m ? 3*((size_t)m->vocab.token_bytes_max + 4) : 0; /* each byte may become U+FFFD */
}

FLASH_API flash_status flash_detokenize_next(const flash_model *m, flash_detokenizer *d,
                                             int32_t token, unsigned flags,
                                             char *text, size_t cap, size_t *bytes)
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
    if (token < 0) used = flash__let_go(d, 1, text);
    else {
        flash__bytes b = flash__token_out(v, (uint32_t)token, flags, &byte);
        int special = flash__token_special(v, (uint32_t)token);
        while ((c = flash__next_byte(&b)) >= 0) {
            if (!d->begun && c == ' ' && v->space_prefix && !special
                && !(flags & FLASH_TEXT_CONTINUE)) { d->begun = 1; continue; }
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
    for (i = 0; v && token >= 0 && i < v->n_ends; i++) if (v->ends[i] == token) return 1;
    return 0;
}

FLASH_API int flash_token_is_control(const flash_model *m, int32_t token)
{
    const flash__vocab *v = m ? &m->vocab : NULL;
    return v && token >= 0 && (uint32_t)token < v->n && flash__token_special(v, (uint32_t)token);
}

/* ===== >>chat ============================================================= */

/* Chat formats, one row each; the first whose marks fit is a template's, so the special ones come
   first. Rows say what their templates render, less what a plain chat does not want (see there). A
   turn is tokenised piece by piece: format, text, format. KNOWN TRAPS: the end of an answer is
   written before the next turn, not after the answer, since the model may be stopped; SentencePiece
   puts a space before text, so a format's space before the text must not be put again; tokens of
   type user are read in plain text, too. The price of the pieces: where a format goes on with line
   ends (smollm3, mistral-nemo: after the system prompt) ".\n\n" is two tokens, not one. */

enum { FLASH__TEMPLATE_MAX = 1 << 18 };

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

static const flash_chat_format flash__chat_table[] = {
    /* SmolLM3, reasoning. Without a system prompt its template writes one of 160 words. */
    { "smollm3", { "<|im_start|>", "## Custom Instructions", NULL }, 0, 0,
      { { "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\n"
          "Reasoning Mode: /think\n\n## Custom Instructions\n\n", "\n\n<|im_end|>\n" },
        { "<|im_start|>user\n", "<|im_end|>\n" }, { "<|im_start|>assistant\n", "<|im_end|>\n" } },
      "<|im_start|>assistant\n", "<|im_end|>" },
    /* SmolLM and SmolLM2. Without a system prompt their templates say who they are. */
    { "smollm", { "<|im_start|>", "named SmolLM", NULL }, 0, 0, FLASH__CHATML_TURNS },
    { "lfm2", { "<|im_start|>", "List of tools: ", NULL }, 0, 0, FLASH__CHATML_TURNS },
    /* Qwen2.5 writes a system prompt where there is none; phi-4 has <|im_sep|> and is another. */
    { "chatml", { "<|im_start|>", "<|im_end|>", "!<|im_sep|>" }, 0, 0, FLASH__CHATML_TURNS },
    /* From 3.1 on templates begin with a system turn of the dates of training and of today. A
       template with >>> (functionary) has the model name a recipient first. */
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
    /* Gemma 2 and older refuse a system prompt; this is what Gemma 3 does with it. */
    { "gemma", { "<start_of_turn>", "<end_of_turn>", NULL }, 1, 1,
      { { "<start_of_turn>user\n", "\n\n" }, { "<start_of_turn>user\n", "<end_of_turn>\n" },
        { "<start_of_turn>model\n", "<end_of_turn>\n" } },
      "<start_of_turn>model\n", "<end_of_turn>" },
    /* <|tool|> is phi-4-mini, which has no line ends */
    { "phi-3", { "<|assistant|>", "<|end|>", "!<|tool|>" }, 0, 0,
      { { "<|system|>\n", "<|end|>\n" }, { "<|user|>\n", "<|end|>\n" },
        { "<|assistant|>\n", "<|end|>\n" } }, "<|assistant|>\n", "<|end|>" },
    /* and TinyLlama; its end of text is taken to be </s> */
    { "zephyr", { "<|user|>", "eos_token", "!<|end|>" }, 0, 0,
      { { "<|system|>\n", "</s>\n" }, { "<|user|>\n", "</s>\n" }, { "<|assistant|>\n", "</s>\n" } },
      "<|assistant|>\n", "</s>" },
    { "llama-2", { "[INST]", "<<SYS>>", NULL }, 1, 1,
      { { "[INST] <<SYS>>\n", "\n<</SYS>>\n\n" }, { "[INST] ", " [/INST]" },
        { " ", " </s><s>" } }, "", "</s>" },
    /* 7B v0.1 and v0.2. Their templates put a space before [INST]; here the tokenizer does. The
       first of them refused a system prompt and put no space before answers. */
    { "mistral", { "[INST] ", " [/INST]", NULL }, 1, 0,
      { { "[INST] ", "\n\n" }, { "[INST] ", " [/INST]" }, { " ", "</s>" } }, "", "</s>" },
    /* 7B v0.3 and others of that time. Templates put the system prompt before the last question,
       which would move with each turn; here it is before the first. */
    { "mistral-v3", { "[INST] ", "[/INST]", "![SYSTEM_PROMPT]" }, 1, 0,
      { { "[INST] ", "\n\n" }, { "[INST] ", "[/INST]" }, { " ", "</s>" } }, "", "</s>" },
    /* Nemo, Ministral: the same without spaces */
    { "mistral-nemo", { "[INST]", "[/INST]", "![SYSTEM_PROMPT]" }, 1, 0,
      { { "[INST]", "\n\n" }, { "[INST]", "[/INST]" }, { "", "</s>" } }, "", "</s>" },
    /* R1 and what was distilled from it: an answer begins with reasoning, which the template takes
       out of earlier ones */
    { "deepseek-r1", { FLASH__DEEPSEEK_OPEN "<think>", NULL, NULL }, 0, 0, FLASH__DEEPSEEK_TURNS,
      FLASH__DEEPSEEK_OPEN "<think>\n", FLASH__DEEPSEEK_END },
    { "deepseek", { FLASH__DEEPSEEK_OPEN, NULL, NULL }, 0, 0, FLASH__DEEPSEEK_TURNS,
      FLASH__DEEPSEEK_OPEN, FLASH__DEEPSEEK_END },
};
#undef FLASH__CHATML_TURNS
#undef FLASH__DEEPSEEK_TURNS
#undef FLASH__DEEPSEEK_OPEN
#undef FLASH__DEEPSEEK_END

FLASH_API const flash_chat_format *flash_chat_formats(size_t *n)
{
    if (n) *n = sizeof flash__chat_table/sizeof *flash__chat_table;
    return flash__chat_table;
}

FLASH_API const flash_chat_format *flash_chat_find(const char *name)
{
    size_t n, i;
    const flash_chat_format *f = flash_chat_formats(&n);
    for (i = 0; name && i < n; i++) if (!strcmp(f[i].name, name)) return f + i;
    return NULL;
}

/* Whether part, [n], is in text. */
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
        || x.type != FLASH_VALUE_STRING) return NULL;
    return flash_chat_recognise((const char *)x.data, x.bytes);
}

static int flash__is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The pieces of a turn. 0 if it is none. */
enum { FLASH__CHAT_CLOSE, FLASH__CHAT_BEFORE, FLASH__CHAT_TEXT, FLASH__CHAT_AFTER,
       FLASH__CHAT_PIECES };
static int flash__chat_pieces(const flash_chat_format *f, flash_role before, flash_role role,
                              const char *text, size_t bytes, const char **piece, size_t *n)
{
    int i, answer = role == FLASH_ROLE_ASSISTANT;
    if (!f || before < FLASH_ROLE_NONE || before > FLASH_ROLE_ASSISTANT || role < FLASH_ROLE_SYSTEM
        || role > FLASH_ROLE_ASSISTANT || (!text && (bytes || !answer))) return 0;
    piece[FLASH__CHAT_CLOSE] = before == FLASH_ROLE_ASSISTANT ? f->turn[2][1] : "";
    piece[FLASH__CHAT_BEFORE] = !text ? f->open
        : f->merge && before == FLASH_ROLE_SYSTEM && role == FLASH_ROLE_USER ? ""
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
                                         flash_role role, const char *text, size_t bytes,
                                         char *out, size_t cap, size_t *n)
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

/* Whether the format itself has p, [n], somewhere. White space does not count: it means nothing. */
static int flash__chat_has(const flash_chat_format *f, const char *p, size_t n)
{
    int i;
    if (n < 3 || (*p != '<' && *p != '[')) return 0;
    for (i = 0; i < 6; i++) {
        const char *part = f->turn[i/2][i%2];
        if (flash__contains(part, strlen(part), p, n)) return 1;
    }
    return flash__contains(f->open, strlen(f->open), p, n);
}

/* As far as text can be read without finding one of the format's tokens, which are read in plain
   text if their type is user: into the first of them, or to the end. */
static const char *flash__chat_cut(const flash__vocab *v, const flash_chat_format *f,
                                   const char *p, const char *end)
{
    size_t n;
    for (; p < end; p++)
        if (flash__special_at(v, (const uint8_t *)p, (const uint8_t *)end, 0, &n) >= 0
            && flash__chat_has(f, p, n)) return p + 1;
    return end;
}

/* Whether text ends with a special token, after which SentencePiece puts its space again. */
static int flash__chat_ends_special(const flash__vocab *v, const char *text, size_t n)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + n;
    size_t length;
    for (; p < end; p++)
        if (flash__special_at(v, p, end, 1, &length) >= 0 && p + length == end) return 1;
    return 0;
}

/* flash_tokenize behind the *used tokens that are there. */
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
                                           flash_role before, flash_role role,
                                           const char *text, size_t bytes,
                                           int32_t *ids, size_t cap, size_t *n)
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
        int space = i == FLASH__CHAT_BEFORE && length[i] && piece[i][length[i] - 1] == ' '
            && length[FLASH__CHAT_TEXT] && m->vocab.space_prefix;
        if (!length[i]) continue;
        for (p = piece[i], end = p + length[i] - space; p < end && !s; p = cut) {
            cut = i == FLASH__CHAT_TEXT ? flash__chat_cut(&m->vocab, f, p, end) : end;
            s = flash__chat_put(m, p, (size_t)(cut - p), flags | (fresh ? 0 : FLASH_TEXT_CONTINUE),
                                ids, cap, &used);
            fresh = 0;
        }
        fresh = space || (i != FLASH__CHAT_TEXT
                          && flash__chat_ends_special(&m->vocab, piece[i], length[i]));
    }
    if (s) return s;
    *n = used;
    return used > cap ? FLASH_E_RANGE : FLASH_E_NONE;
}

/* ===== >>forward ========================================================== */

/* The forward pass over a chunk of T tokens, one layer at a time, so that a step can stop between
   two layers. Attention never holds the T x T matrix: positions are taken in blocks of 64 that
   begin at multiples of 64, each with its own maximum, joined by rescaling (online softmax; Milakov
   and Gimelshein 2018, arxiv 1805.02867). The blocks do not depend on how the prompt was cut, so
   the bits do not either. Inside a block q.k is summed over the head in order and weights times
   values over positions in order: SIMD lanes are positions and columns, which is why keys are
   stored turned, [C,64] a block, values [64,C]. KNOWN TRAPS: columns of a block beyond a query's
   own position hold later keys or none at all; their scores are computed and never looked at.
   Values are multiplied by weights of 0 up to the last query of a tile: harmless unless a model
   yields Inf or NaN. A layer with a window keeps its blocks in a ring; a layer without attention
   keeps nothing and does nothing. Eight blocks make a span: blocks are joined to spans and spans to
   the whole, so that workers can share the spans of a single token and the bits stay the same. */

enum { FLASH__PICK_ROWS = 64, FLASH__TILE = 64, FLASH__SPAN = 8 };

struct flash_session {
    const flash_model *m;
    flash_session_desc desc;
    flash__pool pool;
    size_t   block;            /* [B] */
    int      n_ctx, chunk, slots; /* slots: workers at once, each with a workspace           */
    int      pos, fed;         /* tokens worked on; tokens queued or worked on               */
    int      run, layer;       /* tokens of the chunk under way, 0: none; its next layer     */
    int      high;             /* positions that rings have seen                             */
    int      side;             /* which conv state is that before the chunk                  */
    int      rope_layer;       /* whose angles are in rope, -1: none                         */
    int      last, last_n;     /* first position and tokens of the last finished chunk       */
    int      have_logits, ended;
    volatile int cancel;
    int32_t *ids;              /* [N]                                                        */
    uint8_t **k, **v;          /* [L] of [K,blocks] blocks of flash__kv_block bytes          */
    int     *blocks;           /* [L] of 64 positions kept: all, or a ring                   */
    float  **conv;             /* [L] of [2,conv_length-1,D]: last inputs, on two sides      */
    float   *x, *h;            /* [T,D] residual stream; [T,max(D,H*C)] normed, attended     */
    float   *q, *kk, *vv;      /* [T,max(D,H*C)], 3D for CONV; [T,K*C], [T,K*C]              */
    float   *gate, *up;        /* [T,F]                                                      */
    float   *rope;             /* [T,rope_dims] cos and sin                                  */
    float   *span;             /* [spans,H,C+2] what spans gave: sums, maximum, total        */
    flash__q8 *q8;             /* [T,max(D,H*C,F)/32]                                        */
    float   *logits;           /* [V], or [T,V] with all_logits                              */
    struct flash__candidate *candidate; /* [V]                                               */
    uint8_t *work;             /* [slots,work_bytes]                                         */
    size_t   work_bytes;
    uint64_t random;
    flash_detokenizer detok;
    char    *text, *piece;     /* held back; handed out                                      */
    size_t   text_n, text_cap, stop_max;
};

/* One job: up to three products of the same input, or one step over tokens or heads. */
typedef struct flash__job {
    flash_session *s;
    const flash__mat *w[3];
    float       *y[3];         /* [T,rows] */
    const float *bias[3];
    const float *x;            /* [T,cols] */
    const float *norm;         /* [D]      */
    int tokens, layer, items, width;
    volatile int next;
} flash__job;

/* The next item of a job for a worker, or -1. */
static int flash__pick(flash__job *j)
{
    int i = flash__add(&j->next, 1);
    return i < j->items ? i : -1;
}

static void flash__run(flash_session *s, flash__job *job, int items, flash__task task)
{
    const flash_host *host = &s->desc.host;
    int tasks = FLASH__MIN(items, s->slots);
    job->s = s;
    job->items = items;
    job->next = 0;
    if (tasks <= 1) task(job, 0);
    else if (host->parallel_for) host->parallel_for(host->user, tasks, task, job);
    else flash__pool_run(&s->pool, tasks, task, job);
}

/* --- matrix products -------------------------------------------------------- */

/* Rows a worker takes at once: few enough that their panels stay in the second-level cache. */
static int flash__pick_rows(const flash__kernels *k, int cols)
{
    int rows = 393216/(cols + cols/2 + 1)/k->panel_rows*k->panel_rows;
    return FLASH__MAX(FLASH__MIN(rows, FLASH__PICK_ROWS), k->panel_rows);
}

/* Rows [from, from + rows) of a matrix for all tokens. */
static void flash__matmul_rows(const flash__job *j, int which, int from, int rows, uint8_t *panels)
{
    const flash__mat *w = j->w[which];
    const flash__kernels *k = &j->s->m->k;
    const uint8_t *data = w->data + (size_t)from*w->row_bytes;
    size_t cols = (size_t)w->cols, ldy = (size_t)w->rows, bytes;
    float *y = j->y[which] + from;
    int quantised = flash_type_block(w->type) > 1, R = k->panel_rows, some = k->panel_tokens,
        t, r, i;
    if (!quantised || j->tokens < 4) {
        for (t = 0; t < j->tokens; t++) {
            const void *x = quantised ? (const void *)(j->s->q8 + (size_t)t*(cols/32))
                : (const void *)(j->x + (size_t)t*cols);
            k->rows(w->type, data, w->row_bytes, rows, x, cols, y + (size_t)t*ldy);
        }
    } else {
        bytes = flash__panel_stride(w->type, R)*(cols/32);
        for (r = 0; r < rows; r += R)
            k->pack(w->type, data + (size_t)r*w->row_bytes, w->row_bytes, FLASH__MIN(R, rows - r),
                    cols,
                    panels + (size_t)(r/R)*bytes);
        for (t = 0; t < j->tokens; t += some)
            for (r = 0; r < rows; r += R)
                k->panel(w->type, panels + (size_t)(r/R)*bytes, FLASH__MIN(R, rows - r),
                         j->s->q8 + (size_t)t*(cols/32),
                         FLASH__MIN(some, j->tokens - t), cols, y + (size_t)t*ldy + r, ldy);
    }
    for (t = 0; j->bias[which] && t < j->tokens; t++)
        for (i = 0; i < rows; i++) y[(size_t)t*ldy + (size_t)i] += j->bias[which][from + i];
}

static void flash__matmul_task(void *ctx, int index)
{
    flash__job *j = (flash__job *)ctx;
    uint8_t *work = j->s->work + (size_t)index*j->s->work_bytes;
    int i, which, step = j->width;
    while ((i = flash__pick(j)) >= 0) {
        for (which = 0; i*step >= j->w[which]->rows; which++)
            i -= (j->w[which]->rows + step - 1)/step;
        flash__matmul_rows(j, which, i*step, FLASH__MIN(step, j->w[which]->rows - i*step), work);
    }
}

static void flash__product(flash__job *job, int i, const flash__mat *w, const float *bias, float *y)
{
    job->w[i] = w;
    job->bias[i] = bias;
    job->y[i] = y;
}

/* y[t] = w x[t] (+ bias) for the n products set up in job. s->q8 holds x quantised. */
static void flash__matmul(flash_session *s, flash__job *job, int n, const float *x, int T)
{
    int i, items = 0;
    job->x = x;
    job->tokens = T;
    job->width = flash__pick_rows(&s->m->k, job->w[0]->cols);
    for (i = 0; i < n; i++) items += (job->w[i]->rows + job->width - 1)/job->width;
    flash__run(s, job, items, flash__matmul_task);
}

/* --- steps over tokens ------------------------------------------------------ */

static void flash__quantize_row(flash_session *s, const float *x, int t, int n)
{
    if (n % 32 == 0) s->m->k.quantize(x + (size_t)t*(size_t)n, (size_t)n,
                                      s->q8 + (size_t)t*(size_t)(n/32));
}

static void flash__norm_task(void *ctx, int index) /* h = norm(x), quantised */
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    size_t D = (size_t)s->m->arch.d_model;
    int t;
    (void)index;
    while ((t = flash__pick(j)) >= 0) {
        s->m->k.rmsnorm(j->x + (size_t)t*D, j->norm, s->m->arch.norm_eps, D, s->h + (size_t)t*D);
        flash__quantize_row(s, s->h, t, (int)D);
    }
}

static void flash__quantize_task(void *ctx, int index) /* rows of width items */
{
    flash__job *j = (flash__job *)ctx;
    int t;
    (void)index;
    while ((t = flash__pick(j)) >= 0) flash__quantize_row(j->s, j->x, t, j->width);
}

static void flash__gate_task(void *ctx, int index) /* gate = f(gate)*up, quantised */
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    int t;
    (void)index;
    while ((t = flash__pick(j)) >= 0) {
        size_t at = (size_t)t*(size_t)j->width;
        s->m->k.glu(s->m->arch.activation == FLASH_ACTIVATION_GELU, s->gate + at, s->up + at,
                    (size_t)j->width, s->gate + at);
        flash__quantize_row(s, s->gate, t, j->width);
    }
}

static void flash__norm_rows(flash_session *s, const float *x, const float *w, int T)
{
    flash__job job;
    job.x = x;
    job.norm = w;
    flash__run(s, &job, T, flash__norm_task);
}

/* x += y, or norm(y) if there is one */
static void flash__residual(flash_session *s, float *y, const float *norm, int T)
{
    size_t D = (size_t)s->m->arch.d_model, i;
    int t;
    for (t = 0; norm && t < T; t++)
        s->m->k.rmsnorm(y + (size_t)t*D, norm, s->m->arch.norm_eps, D, y + (size_t)t*D);
    for (i = 0; i < (size_t)T*D; i++) s->x[i] += y[i];
}

/* --- keys and values -------------------------------------------------------- */

/* Stores one key (turned) or value at place t of its block. A Q8_0 block: int8 [64*C] in that
   order, then f16 scales, one for G items (flash__kv_group) of a head at one position: [C/G,64] for
   keys, [64,C/G] for values. */
static void flash__kv_store(flash_type kv, uint8_t *block, int t, const float *x, int C, int turned)
{
    size_t step = turned ? 64 : 1, at = turned ? (size_t)t : (size_t)t*(size_t)C, i, g,
        n = (size_t)C, G = (size_t)flash__kv_group(C);
    uint8_t *scale = block + 64*n;
    for (i = 0; kv == FLASH_TYPE_F32 && i < n; i++) memcpy(block + 4*(at + i*step), x + i, 4);
    for (i = 0; kv == FLASH_TYPE_F16 && i < n; i++) {
        uint16_t h = flash__f32_f16(x[i]);
        memcpy(block + 2*(at + i*step), &h, 2);
    }
    for (g = 0; kv == FLASH_TYPE_Q8_0 && g < n/G; g++, x += G) {
        float amax = 0, inverse;
        uint16_t d;
        for (i = 0; i < G; i++) {
            float a = x[i] < 0 ? -x[i] : x[i];
            amax = a > amax ? a : amax;
        }
        amax = amax < 8e6f ? amax : 8e6f; /* what an f16 scale can hold */
        inverse = amax > 1e-4f ? 127.0f/amax : 0;
        d = flash__f32_f16(inverse > 0 ? amax/127.0f : 0);
        for (i = 0; i < G; i++) {
            float v = x[i]*inverse;
            v = v < 127.0f ? v : 127.0f;
            v = v > -127.0f ? v : -127.0f;
            block[at + (G*g + i)*step] = (uint8_t)(int8_t)flash__round(v);
        }
        memcpy(scale + 2*(turned ? g*64 + (size_t)t : (size_t)t*(n/G) + g), &d, 2);
    }
}

/* A block as floats: itself, or converted into room [64*C]. */
static const float *flash__kv_floats(const flash_session *s, const uint8_t *block, int C,
                                     int turned, float *room)
{
    const uint16_t *scale = (const uint16_t *)(const void *)(block + 64*(size_t)C);
    const int8_t *q = (const int8_t *)block;
    float d[64], *y = room;
    int i, k, G = flash__kv_group(C);
    if (s->desc.kv == FLASH_TYPE_F32) return (const float *)(const void *)block;
    if (s->desc.kv == FLASH_TYPE_F16)
        s->m->k.widen((const uint16_t *)(const void *)block, 64*(size_t)C, room);
    else for (i = 0; i < C/G*64; i += 64, q += 64*G, y += 64*G) {
        s->m->k.widen(scale + i, 64, d);
        for (k = 0; turned && k < G; k++) s->m->k.widen8(q + 64*k, d, 1, 64, y + 64*k);
        for (k = 0; !turned && k < 64; k++) s->m->k.widen8(q + G*k, d + k, 0, (size_t)G, y + G*k);
    }
    return room;
}

/* Cos and sin for the chunk's positions, unless those of a layer alike are there. */
static void flash__rope_angles(flash_session *s, int il)
{
    const flash_arch *a = &s->m->arch;
    const flash_layer *l = a->layer + il, *had = a->layer + FLASH__MAX(s->rope_layer, 0);
    double speed[FLASH_HEAD_MAX/2];
    float scale;
    int t, i;
    if (l->rope_base == 0 || (s->rope_layer >= 0 && l->rope_base == had->rope_base
                              && l->rope_plain == had->rope_plain)) return;
    scale = flash__rope_speeds(s->m, l, speed);
    for (t = 0; t < s->run; t++)
        for (i = 0; i < a->rope_dims/2; i++) {
            float *r = s->rope + (size_t)t*(size_t)a->rope_dims + 2*(size_t)i;
            double c, sine;
            flash__cos_sin((s->pos + t)*speed[i], &c, &sine);
            r[0] = (float)c*scale;
            r[1] = (float)sine*scale;
        }
    s->rope_layer = il;
}

/* One query or key: normed, rotated. */
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

/* norms and rotates queries and keys, stores keys and values */
static void flash__rope_task(void *ctx, int index)
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    const flash_arch *a = &s->m->arch;
    const flash_layer *l = a->layer + j->layer;
    const flash__layer *w = s->m->layer + j->layer;
    int t, h, i, C = a->d_head, H = l->n_head, K = l->n_kv_head, blocks = s->blocks[j->layer];
    size_t bytes = flash__kv_block(s->desc.kv, C);
    (void)index;
    while ((t = flash__pick(j)) >= 0) {
        const float *rope = s->rope + (size_t)t*(size_t)a->rope_dims;
        float *q = s->q + (size_t)t*(size_t)(H*C);
        int p = s->pos + t;
        for (h = 0; h < H; h++) flash__turn(s, l, w->q_norm, rope, q + h*C);
        if (a->temperature_n_ctx && l->rope_base == 0) {
            float grow = 1 + 0.1f*(float)flash__log(1 + (p + 1)/a->temperature_n_ctx);
            for (i = 0; i < H*C; i++) q[i] = q[i]*grow;
        }
        for (h = 0; h < K; h++) {
            size_t from = ((size_t)t*(size_t)K + (size_t)h)*(size_t)C,
                at = (size_t)(h*blocks + p/64%blocks)*bytes;
            flash__turn(s, l, w->k_norm, rope, s->kk + from);
            flash__kv_store(s->desc.kv, s->k[j->layer] + at, p%64, s->kk + from, C, 1);
            flash__kv_store(s->desc.kv, s->v[j->layer] + at, p%64, s->vv + from, C, 0);
        }
    }
}

/* --- attention -------------------------------------------------------------- */

/* The first position that a query at p sees. */
static int flash__sees(const flash_layer *l, int p)
{
    if (l->attention == FLASH_ATTENTION_WINDOW) return FLASH__MAX(p + 1 - l->window, 0);
    return l->attention == FLASH_ATTENTION_CHUNK ? p/l->window*l->window : 0;
}

/* n <= 64 queries of one head, at positions first + r*step. */
typedef struct flash__queries {
    const float *q;            /* [n,C]                                                     */
    float *out, *best, *total; /* [n,C]; [n] maximum and sum so far, total 0: none yet      */
    int n, first, step;
    const flash_layer *layer;
} flash__queries;

/* A worker's room for attention. */
typedef struct flash__room {
    float *keys, *values, *score, *sum;
    float *q, *out, *best, *total; /* [group,64,C] twice, [group,64] twice */
    float *whole_best, *whole_total; /* [group,64] of all spans */
} flash__room;

static size_t flash__room_floats(int C, int group)
{
    return (size_t)(64*(3*C + 64 + 2*group*(C + 2)));
}

/* Joins what later positions gave (maximum, sum of weights, weighted values) to what earlier ones
   did. */
static void flash__attend_join(const flash__kernels *k, float *best, float *total, float *out,
                        float most, float l, const float *sum, size_t C)
{
    float keep = 1, add = 1;
    if (*total == 0) {
        *best = most;
        *total = l;
        memcpy(out, sum, C*sizeof *out);
        return;
    }
    if (most > *best) { keep = flash__expf(*best - most); *best = most; }
    else add = flash__expf(most - *best);
    *total = *total*keep + l*add;
    k->blend(out, keep, sum, add, C);
}

/* Joins one block of 64 positions to what the blocks before gave. */
static void flash__attend(const flash_session *s, const flash__queries *u, const flash__room *room,
                          int begin,
                          const float *keys, const float *values)
{
    const flash__kernels *k = &s->m->k;
    int C = s->m->arch.d_head, top = u->n, end = 0, last = 0, r;
    float most[FLASH__TILE], l[FLASH__TILE];
    k->sgemm(u->q, (size_t)C, keys, 64, room->score, 64, u->n, 64, C);
    for (r = 0; r < u->n; r++) {
        int p = u->first + r*u->step, to = FLASH__MIN(p + 1 - begin, 64),
            from = FLASH__MAX(flash__sees(u->layer, p) - begin, 0);
        if (from >= to) continue; /* before the block, or beyond the window: the first or last */
        top = FLASH__MIN(top, r);
        end = r + 1;
        last = to;
        most[r] = k->softmax(room->score + 64*r, s->m->arch.attention_scale, from, to, &l[r]);
    }
    /* Weights of positions not seen are 0: adding 0 times a finite value changes no bit. */
    if (top < end)
        k->sgemm(room->score + 64*top, 64, values, (size_t)C, room->sum + top*C, (size_t)C,
                 end - top, C, last);
    for (r = top; r < end; r++)
        flash__attend_join(k, u->best + r, u->total + r, u->out + r*C, most[r], l[r],
                           room->sum + r*C, (size_t)C);
}

/* One span of the positions that u's heads see: the first of them at block from. */
static void flash__attend_span(flash_session *s, int il, int kv, int from, int to, int heads,
                               flash__queries *u, const flash__room *room)
{
    int C = s->m->arch.d_head, blocks = s->blocks[il], b, g;
    size_t bytes = flash__kv_block(s->desc.kv, C), line;
    memset(room->total, 0, 64*(size_t)heads*sizeof *room->total);
    for (b = from; b <= to; b++) {
        size_t at = (size_t)(kv*blocks + b%blocks)*bytes;
        size_t after = (size_t)(kv*blocks + (b + 1)%blocks)*bytes;
        const float *keys = flash__kv_floats(s, s->k[il] + at, C, 1, room->keys);
        const float *values = flash__kv_floats(s, s->v[il] + at, C, 0, room->values);
        for (line = 0; !u->step && b < to && line < bytes; line += 64) {
            FLASH__PREFETCH(s->k[il] + after + line);
            FLASH__PREFETCH(s->v[il] + after + line);
        }
        for (g = 0; g < heads; g++) {
            u->q = room->q + 64*g*C;
            u->out = room->out + 64*g*C;
            u->best = room->best + 64*g;
            u->total = room->total + 64*g;
            flash__attend(s, u, room, 64*b, keys, values);
        }
    }
}

/* The result of a query: its sum over its total. */
static void flash__attended(float *out, float total, int C)
{
    int i;
    for (i = 0; i < C; i++) out[i] = out[i]/total;
}

/* h = softmax(q K^T scale) V. An item: one key/value head and 64 tokens; or, for one token, up to
   64 of the head's queries and one of width spans, whose sums go to s->span. */
static void flash__attention_task(void *ctx, int index)
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    const flash_layer *l = s->m->arch.layer + j->layer;
    int C = s->m->arch.d_head, H = l->n_head, K = l->n_kv_head, group = H/K, item, g, r, span,
        one = j->tokens == 1, heads = one ? 1 : group, spans = j->width,
        tiles = j->items/K/spans;
    float *floats = (float *)(void *)(s->work + (size_t)index*s->work_bytes);
    flash__room room;
    room.keys = floats;                 room.values = room.keys + 64*C;
    room.score = room.values + 64*C;    room.sum = room.score + 64*64;
    room.q = room.sum + 64*C;           room.out = room.q + 64*group*C;
    room.best = room.out + 64*group*C;  room.total = room.best + 64*group;
    room.whole_best = room.total + 64*group;
    room.whole_total = room.whole_best + 64*group;
    while ((item = flash__pick(j)) >= 0) {
        int kv = item/spans/tiles, tile = item/spans%tiles, first_block, last_block;
        /* rows of s->q and s->h: heads of one token, or one head of many tokens */
        size_t first = ((size_t)(kv*group) + (size_t)(64*tile)*(size_t)(one ? 1 : H))*(size_t)C,
            ld = (size_t)(one ? C : H*C), row = (size_t)C*sizeof *s->q;
        flash__queries u;
        u.n = FLASH__MIN((one ? group : j->tokens) - 64*tile, 64);
        u.first = s->pos + (one ? 0 : 64*tile);
        u.step = !one;
        u.layer = l;
        first_block = flash__sees(l, u.first)/64;
        last_block = (u.first + (u.n - 1)*u.step)/64;
        for (g = 0; g < heads; g++) for (r = 0; r < u.n; r++) {
            room.whole_total[64*g + r] = 0;
            memcpy(room.q + (64*g + r)*C, s->q + first + (size_t)(g*C) + (size_t)r*ld, row);
        }
        for (span = first_block/FLASH__SPAN; span <= last_block/FLASH__SPAN; span++) {
            int from = FLASH__MAX(first_block, span*FLASH__SPAN),
                to = FLASH__MIN(last_block, span*FLASH__SPAN + FLASH__SPAN - 1),
                which = span - first_block/FLASH__SPAN;
            if (one && which != item%spans) continue;
            flash__attend_span(s, j->layer, kv, from, to, heads, &u, &room);
            for (g = 0; g < heads; g++) for (r = 0; r < u.n; r++) {
                int i = 64*g + r;
                float *part = s->span
                    + ((size_t)which*(size_t)H + (size_t)(kv*group + 64*tile + r))*(size_t)(C + 2);
                if (one) {
                    memcpy(part, room.out + i*C, row);
                    part[C] = room.best[i];
                    part[C + 1] = room.total[i];
                } else if (room.total[i] > 0)
                    flash__attend_join(&s->m->k, room.whole_best + i, room.whole_total + i,
                                       s->h + first + (size_t)(g*C) + (size_t)r*ld, room.best[i],
                                       room.total[i], room.out + i*C, (size_t)C);
            }
        }
        for (g = 0; !one && g < heads; g++) for (r = 0; r < u.n; r++)
            flash__attended(s->h + first + (size_t)(g*C) + (size_t)r*ld,
                            room.whole_total[64*g + r], C);
    }
}

/* One token's spans, joined in order. */
static void flash__attention_join(flash_session *s, int H, int spans)
{
    int C = s->m->arch.d_head, h, i;
    for (h = 0; h < H; h++) {
        float best = 0, total = 0, *out = s->h + h*C;
        for (i = 0; i < spans; i++) {
            const float *part = s->span + ((size_t)i*(size_t)H + (size_t)h)*(size_t)(C + 2);
            flash__attend_join(&s->m->k, &best, &total, out, part[C], part[C + 1], part, (size_t)C);
        }
        flash__attended(out, total, C);
    }
}

/* Bytes of one worker's workspace: panels of the widest pick, or attention. */
static size_t flash__work_bytes(const flash_model *m, size_t widest)
{
    size_t panels = 0, room = 0, cols;
    int i, group = 1;
    for (cols = 32; cols < widest + 32; cols += 32) {
        size_t c = FLASH__MIN(cols, (widest + 31)/32*32), n = (size_t)flash__pick_rows(&m->k,
                (int)c)*48*(c/32);
        panels = FLASH__MAX(panels, n);
    }
    for (i = 0; i < m->arch.n_layer; i++)
        if (m->arch.layer[i].n_kv_head)
            group = FLASH__MAX(group, m->arch.layer[i].n_head/m->arch.layer[i].n_kv_head);
    room = 4*flash__room_floats(m->arch.d_head, group);
    return (FLASH__MAX(panels, room) + 63)/64*64;
}

/* --- layers ----------------------------------------------------------------- */

/* x += attention(norm(x)) */
static void flash__attention(flash_session *s, int il, int T)
{
    const flash_arch *a = &s->m->arch;
    const flash_layer *l = a->layer + il;
    const flash__layer *w = s->m->layer + il;
    int group = l->n_head/l->n_kv_head, one = T == 1,
        spans = s->pos/64/FLASH__SPAN - flash__sees(l, s->pos)/64/FLASH__SPAN + 1;
    flash__job job;
    flash__norm_rows(s, s->x, w->attn_norm, T);
    flash__product(&job, 0, &w->q, w->bq, s->q);
    flash__product(&job, 1, &w->k, w->bk, s->kk);
    flash__product(&job, 2, &w->v, w->bv, s->vv);
    flash__matmul(s, &job, 3, s->h, T);
    job.layer = il;
    flash__rope_angles(s, il);
    flash__run(s, &job, T, flash__rope_task);
    job.tokens = T;
    job.width = one ? spans : 1;
    flash__run(s, &job, l->n_kv_head*(((one ? group : T) + 63)/64)*job.width,
               flash__attention_task);
    if (one) flash__attention_join(s, l->n_head, spans);
    job.x = s->h;
    job.width = l->n_head*a->d_head;
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

/* h = c*conv(b*u), quantised, where s->q is [T,3,D]: b, c, u; z = b*u of the last positions goes to
   the other side of the state. */
static void flash__conv_task(void *ctx, int index)
{
    flash__job *j = (flash__job *)ctx;
    flash_session *s = j->s;
    int D = s->m->arch.d_model, n = s->m->arch.conv_length, t, i, d;
    const float *w = s->m->layer[j->layer].conv;
    const float *before = s->conv[j->layer] + (size_t)(s->side*(n - 1))*(size_t)D;
    float *after = s->conv[j->layer] + (size_t)(!s->side*(n - 1))*(size_t)D;
    (void)index;
    while ((t = flash__pick(j)) >= 0) {
        float *y = s->h + (size_t)t*(size_t)D;
        const float *c = s->q + ((size_t)t*3 + 1)*(size_t)D;
        for (d = 0; d < D; d++) y[d] = 0;
        for (i = 0; i < n; i++) { /* in order of positions */
            int from = t - (n - 1) + i;
            const float *b = s->q + (size_t)FLASH__MAX(from, 0)*3*(size_t)D, *u = b + 2*D;
            const float *old = before + (size_t)FLASH__MAX(from + n - 1, 0)*(size_t)D;
            float *keep = j->tokens - t <= n - 1 && i == n - 1
                ? after + (size_t)(t + n - 1 - j->tokens)*(size_t)D : NULL;
            if (s->pos + from < 0) continue;
            for (d = 0; d < D; d++) {
                float z = from < 0 ? old[d] : b[d]*u[d];
                y[d] = y[d] + w[d*n + i]*z;
                if (keep) keep[d] = z;
            }
        }
        for (d = 0; d < D; d++) y[d] = c[d]*y[d];
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
    for (i = 0; i < n - 1 - T; i++) /* a chunk shorter than the state leaves its end there */
        memcpy(s->conv[il] + (size_t)(!s->side*(n - 1) + i)*row,
               s->conv[il] + (size_t)(s->side*(n - 1) + i + T)*row, row*sizeof **s->conv);
    flash__run(s, &job, T, flash__conv_task);
    flash__product(&job, 0, &w->conv_out, NULL, s->q);
    flash__matmul(s, &job, 1, s->h, T);
    flash__residual(s, s->q, NULL, T);
}

/* x += down(f(gate(norm(x)))*up(norm(x))) */
static void flash__ffn(flash_session *s, int il, int T)
{
    const flash__layer *w = s->m->layer + il;
    flash__job job;
    flash__norm_rows(s, s->x, w->ffn_norm, T);
    flash__product(&job, 0, &w->gate, w->bgate, s->gate);
    flash__product(&job, 1, &w->up, w->bup, s->up);
    flash__matmul(s, &job, 2, s->h, T);
    job.width = s->m->arch.layer[il].d_ffn;
    flash__run(s, &job, T, flash__gate_task);
    flash__product(&job, 0, &w->down, w->bdown, s->h);
    flash__matmul(s, &job, 1, s->gate, T);
    flash__residual(s, s->h, w->ffn_post, T);
}

/* Begins a chunk: embeddings of T tokens. */
static void flash__chunk_begin(flash_session *s, int T)
{
    const flash_model *m = s->m;
    const flash__mat *e = &m->root.embed;
    size_t D = (size_t)m->arch.d_model, i;
    float scale = m->arch.embedding_scale;
    int t;
    for (t = 0; t < T; t++)
        flash_dequantize(e->type, e->data + (size_t)s->ids[s->pos + t]*e->row_bytes,
                         s->x + (size_t)t*D, D);
    for (i = 0; scale != 1 && i < (size_t)T*D; i++) s->x[i] = s->x[i]*scale;
    s->run = T;
    s->layer = 0;
    s->rope_layer = -1;
    s->high = FLASH__MAX(s->high, s->pos + T);
}

/* x = c tanh(x/c), where tanh(u) = 1 - 2/(exp(2u) + 1) */
static void flash__cap(float c, float *x, size_t n)
{
    size_t i;
    for (i = 0; c > 0 && i < n; i++)
        x[i] = (float)(c*(1 - 2/(flash__exp(2.0*x[i]/c) + 1)));
}

/* Ends a chunk: logits where they are asked for. */
static void flash__chunk_end(flash_session *s)
{
    const flash_model *m = s->m;
    size_t D = (size_t)m->arch.d_model;
    int T = s->run, all = s->desc.all_logits, wanted = all || s->pos + T == s->fed, n = all ? T : 1;
    flash__job job;
    if (wanted) {
        flash__norm_rows(s, all ? s->x : s->x + (size_t)(T - 1)*D, m->root.out_norm, n);
        flash__product(&job, 0, &m->root.head, NULL, s->logits);
        flash__matmul(s, &job, 1, s->h, n);
        flash__cap(m->arch.logit_cap, s->logits, (size_t)n*(size_t)m->arch.n_vocab);
    }
    s->side = !s->side;
    s->have_logits = wanted;
    s->last = s->pos;
    s->last_n = T;
    s->pos += T;
    s->run = 0;
}

/* Works on the queue until it is empty, the budget is spent or the caller cancels. */
static flash_status flash__forward(flash_session *s, const flash_budget *budget)
{
    int left = budget && budget->tokens > 0 ? budget->tokens : INT32_MAX, worked = 0, parts;
    double deadline = budget && budget->deadline > 0 ? budget->deadline : 0;
    while (s->pos < s->fed) {
        if (!s->run) {
            if (left <= 0 || (s->desc.all_logits && worked)) return FLASH_MORE;
            flash__chunk_begin(s, FLASH__MIN(FLASH__MIN(s->chunk, s->fed - s->pos), left));
        }
        for (; s->layer < s->m->arch.n_layer; s->layer++) {
            if (s->cancel) { s->cancel = 0; return FLASH_E_CANCELLED; }
            if (deadline > 0 && worked && flash__clock(&s->desc.host) >= deadline)
                return FLASH_MORE;
            parts = flash__parts(s->m->arch.layer + s->layer);
            if (parts & FLASH__HAS_KV) flash__attention(s, s->layer, s->run);
            if (parts & FLASH__HAS_CONV) flash__convolution(s, s->layer, s->run);
            if (parts & FLASH__HAS_LINEAR) flash__linear(s, s->layer, s->run);
            if (parts & FLASH__HAS_FFN) flash__ffn(s, s->layer, s->run);
            worked = 1;
        }
        left -= s->run;
        flash__chunk_end(s);
        worked = 1;
    }
    return FLASH_E_NONE;
}

/* ===== >>sampler ========================================================== */

/* From logits to a token. All arithmetic in double with our own exp, ties by id: the same seed
   gives the same text everywhere. A filter keeps a prefix of the candidates sorted by logit;
   without filters nothing is sorted. */

typedef struct flash__candidate { float logit; int32_t id; } flash__candidate;

static int flash__better(const flash__candidate *a, const flash__candidate *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

/* A heap whose root is the worst of n. */
static void flash__sift(flash__candidate *c, size_t n, size_t i)
{
    flash__candidate v = c[i];
    size_t child;
    for (; (child = 2*i + 1) < n; i = child) {
        if (child + 1 < n && flash__better(c + child, c + child + 1)) child++;
        if (!flash__better(&v, c + child)) break;
        c[i] = c[child];
    }
    c[i] = v;
}

/* Sorts the best `keep` of n to the front, best first: a heap of the best so far. */
static void flash__best_first(flash__candidate *c, size_t n, size_t keep)
{
    size_t i;
    for (i = keep/2; i-- > 0;) flash__sift(c, keep, i);
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

/* The first of the largest of n; NaN counts as the least there is. Four chains, as comparing is
   bound by the wait for the one before. */
static size_t flash__first_best(const float *x, size_t n)
{
    float best[4] = { -3e38f, -3e38f, -3e38f, -3e38f };
    size_t i, j;
    for (i = 0; i + 4 <= n; i += 4)
        for (j = 0; j < 4; j++) best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
    for (; i < n; i++) best[0] = x[i] > best[0] ? x[i] : best[0];
    for (j = 1; j < 4; j++) best[0] = best[j] > best[0] ? best[j] : best[0];
    for (i = 0; i + 1 < n; i++) if (x[i] == best[0]) return i;
    return x[i] == best[0] ? i : 0;
}

static int flash__penalised(const flash_sampler *p)
{
    return (p->repeat_penalty > 0 && p->repeat_penalty != 1) || p->frequency_penalty != 0
        || p->presence_penalty != 0;
}

static void flash__penalties(const flash_sampler *p, const int32_t *recent, int n,
                             flash__candidate *c)
{
    int last = p->penalty_last_n < 0 ? n : FLASH__MIN(n, p->penalty_last_n ? p->penalty_last_n
                                                      : 64), i;
    float repeat = p->repeat_penalty > 0 ? p->repeat_penalty : 1;
    if (!flash__penalised(p)) return;
    for (i = n - last; i < n; i++) {
        flash__candidate *t = c + recent[i];
        if (t->id >= 0) { /* its first occurrence: marked by a negative id */
            t->logit = t->logit > 0 ? t->logit/repeat : t->logit*repeat;
            t->logit -= p->presence_penalty;
            t->id = ~t->id;
        }
        t->logit -= p->frequency_penalty;
    }
    for (i = n - last; i < n; i++) if (c[recent[i]].id < 0) c[recent[i]].id = ~c[recent[i]].id;
}

/* Keeps the candidates whose surprise is nearest to the entropy, up to mass p (Meister et al. 2022,
   arxiv 2202.00666). c: sorted, best first, n of them with total weight sum. Returns how many stay,
   sorted best first again. */
static size_t flash__typical(flash__candidate *c, size_t n, double p, double scale, double best)
{
    double sum = 0, entropy = 0, mass = 0;
    size_t i, keep, lo, hi;
    for (i = 0; i < n; i++) sum += flash__exp((c[i].logit - best)*scale);
    for (i = 0; i < n; i++) {
        double w = flash__exp((c[i].logit - best)*scale)/sum;
        entropy -= w > 0 ? w*((c[i].logit - best)*scale - flash__log(sum)) : 0;
    }
    for (lo = 0; lo < n && -((c[lo].logit - best)*scale - flash__log(sum)) < entropy; lo++) {}
    /* [lo, hi) grows towards the nearer side */
    for (hi = lo, keep = 0; keep < n && mass < p; keep++) {
        double below = lo > 0 ? entropy + ((c[lo - 1].logit - best)*scale - flash__log(sum))
            : 1e300;
        double above = hi < n ? -((c[hi].logit - best)*scale - flash__log(sum)) - entropy : 1e300;
        size_t take = below <= above ? --lo : hi++;
        mass += flash__exp((c[take].logit - best)*scale)/sum;
    }
    memmove(c, c + lo, keep*sizeof *c);
    return keep;
}

/* The next token. c: [n] scratch. recent: [n_recent] the tokens so far. */
static int32_t flash__sample(const flash_model *m, const flash_sampler *p, const float *logits,
                             const int32_t *recent, int n_recent,
                             uint64_t *random, flash__candidate *c)
{
    size_t n = (size_t)m->arch.n_vocab, i, kept = n;
    double scale, sum = 0, mass = 0, u, best;
    int k, greedy = !(p->temperature > 0) || p->top_k == 1;
    if (greedy && !p->n_bias && !p->ignore_end && !flash__penalised(p))
        return (int32_t)flash__first_best(logits, n);
    for (i = 0; i < n; i++)
        { c[i].logit = logits[i] == logits[i] ? logits[i] : -3e38f; c[i].id = (int32_t)i; }
    for (k = 0; k < p->n_bias; k++)
        if (p->bias[k].token >= 0 && (size_t)p->bias[k].token < n)
            c[p->bias[k].token].logit += p->bias[k].bias;
    for (k = 0; p->ignore_end && k < m->vocab.n_ends; k++) c[m->vocab.ends[k]].logit = -3e38f;
    flash__penalties(p, recent, n_recent, c);
    if (greedy) {
        for (i = 1, kept = 0; i < n; i++) if (flash__better(c + i, c + kept)) kept = i;
        return c[kept].id;
    }
    scale = 1.0/p->temperature;
    best = c[0].logit;
    for (i = 1; i < n; i++) best = c[i].logit > best ? c[i].logit : best;
    if (p->top_k > 0 || (p->top_p > 0 && p->top_p < 1) || (p->typical_p > 0 && p->typical_p < 1)
        || p->min_p > 0) {
        if (p->top_k > 0 && (size_t)p->top_k < n) kept = (size_t)p->top_k;
        flash__best_first(c, n, kept);
        if (p->typical_p > 0 && p->typical_p < 1)
            kept = flash__typical(c, kept, p->typical_p, scale, best);
        for (i = 0; i < kept; i++) sum += flash__exp((c[i].logit - best)*scale);
        if (p->top_p > 0 && p->top_p < 1) {
            for (i = 0; i < kept && mass < p->top_p*sum; i++)
                mass += flash__exp((c[i].logit - best)*scale);
            kept = i;
        }
        for (i = 1; i < kept && p->min_p > 0; i++)
            if (flash__exp((c[i].logit - c[0].logit)*scale) < p->min_p) { kept = i; break; }
    }
    for (sum = 0, i = 0; i < kept; i++) sum += flash__exp((c[i].logit - best)*scale);
    u = (double)(flash__random(random) >> 11)*(1.0/9007199254740992.0)*sum;
    for (mass = 0, i = 0; i + 1 < kept; i++)
        if ((mass += flash__exp((c[i].logit - best)*scale)) > u) break;
    return c[i].id;
}

/* ===== >>session ========================================================== */

/* A session is one block: keys and values, work buffers, the tokens so far, text held back for stop
   strings. */

static size_t flash__stops_longest(const flash_sampler *p)
{
    size_t longest = 0, n;
    int i;
    for (i = 0; i < p->n_stop; i++) { n = strlen(p->stop[i]); longest = FLASH__MAX(longest, n); }
    return longest;
}

static int flash__sampler_ok(const flash_sampler *p)
{
    int i;
    if (p->n_bias < 0 || (p->n_bias && !p->bias) || p->n_stop < 0 || (p->n_stop && !p->stop))
        return 0;
    for (i = 0; i < p->n_stop; i++) if (!p->stop[i] || !p->stop[i][0]) return 0;
    return p->temperature == p->temperature && p->top_k >= 0; /* no NaN */
}

/* Fills *s (sizes, pointers) from the arena; s may be a scratch copy while counting. 0 if desc is
   invalid. */
static int flash__session_plan(flash_session **out, const flash_model *m,
                               const flash_session_desc *desc, flash__arena *a)
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
        || !flash__sampler_ok(&desc->sampler)) return 0;
    arch = &m->arch;
    memset(&plan, 0, sizeof plan);
    plan.m = m;
    plan.desc = *desc;
    if (!desc->host.allocator.acquire) plan.desc.host.allocator = m->desc.host.allocator;
    if (!desc->host.parallel_for && !desc->host.clock && !desc->host.log) {
        flash_allocator own = plan.desc.host.allocator;
        plan.desc.host = m->desc.host;
        plan.desc.host.allocator = own;
    }
    plan.n_ctx = desc->n_ctx ? desc->n_ctx : FLASH__MIN(arch->n_ctx, 4096);
    plan.chunk = FLASH__MIN(desc->chunk ? desc->chunk : FLASH__CHUNK, plan.n_ctx);
    plan.slots = FLASH__MAX(desc->threads, 1);
    T = (size_t)plan.chunk; D = (size_t)arch->d_model; L = (size_t)arch->n_layer;
    V = (size_t)arch->n_vocab;
    for (i = 0; i < arch->n_layer; i++) {
        Q = FLASH__MAX(Q, (size_t)flash__dim(arch, arch->layer + i, FLASH__DIM_Q));
        KV = FLASH__MAX(KV, (size_t)flash__dim(arch, arch->layer + i, FLASH__DIM_KV));
        F = FLASH__MAX(F, (size_t)arch->layer[i].d_ffn);
        if (arch->layer[i].attention == FLASH_ATTENTION_CONV)
            convs = 2*(size_t)(arch->conv_length - 1);
    }
    widest = FLASH__MAX(D, Q);
    /* the products below fit, on 32-bit machines too */
    if (FLASH__MAX(3*widest, FLASH__MAX(F, desc->all_logits ? V : 0)) > SIZE_MAX/4/T) return 0;
    plan.ids = (int32_t *)flash__take(a, (size_t)plan.n_ctx, 4);
    plan.k = (uint8_t **)flash__take(a, L, sizeof *plan.k);
    plan.v = (uint8_t **)flash__take(a, L, sizeof *plan.v);
    plan.conv = (float **)flash__take(a, L, sizeof *plan.conv);
    plan.blocks = (int *)flash__take(a, L, sizeof *plan.blocks);
    plan.x = (float *)flash__take(a, T*D, 4);
    plan.h = (float *)flash__take(a, T*widest, 4);
    plan.q = (float *)flash__take(a, T*(convs ? FLASH__MAX(widest, 3*D) : widest), 4);
    plan.kk = (float *)flash__take(a, T*KV, 4);
    plan.vv = (float *)flash__take(a, T*KV, 4);
    plan.gate = (float *)flash__take(a, T*F, 4);
    plan.up = (float *)flash__take(a, T*F, 4);
    plan.rope = (float *)flash__take(a, T*(size_t)arch->rope_dims, 4);
    plan.span = (float *)flash__take(a, ((size_t)plan.n_ctx/64/FLASH__SPAN + 1)
                                     *(Q + 2*Q/(size_t)arch->d_head), 4);
    plan.q8 = (flash__q8 *)flash__take(a, T*(FLASH__MAX(widest, F)/32), sizeof *plan.q8);
    plan.logits = (float *)flash__take(a, desc->all_logits ? T*V : V, 4);
    plan.candidate = (flash__candidate *)flash__take(a, V, sizeof *plan.candidate);
    plan.stop_max = flash__stops_longest(&desc->sampler);
    plan.text_cap = flash_token_bytes_max(m) + plan.stop_max + 16;
    plan.text = (char *)flash__take(a, plan.text_cap, 1);
    plan.piece = (char *)flash__take(a, plan.text_cap, 1);
    plan.work_bytes = flash__work_bytes(m, FLASH__MAX(widest, F));
    plan.work = (uint8_t *)flash__take(a, (size_t)plan.slots, plan.work_bytes);
    for (i = 0; i < arch->n_layer; i++) {
        const flash_layer *l = arch->layer + i;
        int blocks = flash__kv_blocks(l, plan.n_ctx, plan.chunk);
        size_t bytes = (size_t)blocks*flash__kv_block(desc->kv, arch->d_head);
        uint8_t *k = (uint8_t *)flash__take(a, l->n_kv_head, bytes);
        uint8_t *v = (uint8_t *)flash__take(a, l->n_kv_head, bytes);
        float *conv = (float *)flash__take(a, l->attention == FLASH_ATTENTION_CONV ? convs : 0,
                                           D*4);
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
    flash__arena a = { NULL, 0 };
    flash_session *none;
    return flash__session_plan(&none, m, desc, &a) ? a.used : 0;
}

FLASH_API void flash_session_reset(flash_session *s)
{
    if (!s) return;
    s->pos = s->fed = s->run = s->have_logits = s->ended = s->last_n = s->high = 0;
    s->cancel = 0;
    s->text_n = 0;
    s->random = s->desc.sampler.seed ? s->desc.sampler.seed : 1;
    memset(&s->detok, 0, sizeof s->detok);
}

FLASH_API flash_status flash_session_create(flash_session **out, const flash_model *m,
                                            const flash_session_desc *desc)
{
    flash__arena a = { NULL, 0 };
    const flash_allocator *alloc;
    size_t block;
    if (!out) return FLASH_E_ARGUMENT;
    *out = NULL;
    if (!flash__session_plan(out, m, desc, &a)) return FLASH_E_ARGUMENT;
    alloc = desc->host.allocator.acquire ? &desc->host.allocator : &m->desc.host.allocator;
    block = a.used;
    a.used = 0;
    a.base = (uint8_t *)flash__acquire(alloc, block);
    if (!a.base) return FLASH_E_MEMORY;
    flash__session_plan(out, m, desc, &a);
    (*out)->block = block;
    flash_session_reset(*out);
    if (!(*out)->desc.host.parallel_for) flash__pool_start(&(*out)->pool, (*out)->slots - 1);
    return FLASH_E_NONE;
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
    for (i = 0; i < n; i++) if (ids[i] < 0 || ids[i] >= s->m->arch.n_vocab) return FLASH_E_ARGUMENT;
    if (n) memcpy(s->ids + s->fed, ids, n*sizeof *ids);
    s->fed += (int)n;
    s->ended = 0;
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
    /* what follows continues it: a leading space belongs to the text */
    if (*text) s->detok.begun = 1;
    return FLASH_E_NONE;
}

FLASH_API flash_status flash_session_step(flash_session *s, const flash_budget *budget)
{
    return s ? flash__forward(s, budget) : FLASH_E_ARGUMENT;
}

FLASH_API int32_t flash_session_sample(flash_session *s)
{
    const float *logits = flash_session_logits(s);
    return logits ? flash__sample(s->m, &s->desc.sampler, logits, s->ids, s->fed, &s->random,
                                  s->candidate) : -1;
}

/* How much of the held text can go out: all before a stop string (*stopped 1), or all that no stop
   string can begin in. */
static size_t flash__sure_text(const flash_session *s, int *stopped)
{
    const flash_sampler *p = &s->desc.sampler;
    size_t at, n;
    int i;
    for (at = 0; at < s->text_n; at++) {
        int half = 0; /* a stop string may begin here and go on */
        for (i = 0; i < p->n_stop; i++) {
            n = strlen(p->stop[i]);
            if (memcmp(s->text + at, p->stop[i], FLASH__MIN(n, s->text_n - at))) continue;
            if (n <= s->text_n - at) { *stopped = 1; return at; }
            half = 1;
        }
        if (half) return at;
    }
    return s->text_n;
}

static void flash__hand_out(flash_session *s, size_t n, flash_piece *piece)
{
    memcpy(s->piece, s->text, n);
    s->piece[n] = 0;
    memmove(s->text, s->text + n, s->text_n - n);
    s->text_n -= n;
    piece->text = s->piece;
    piece->bytes = n;
}

/* The end of the text, for the reason why: first what is still held back, then the reason. */
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
    if (flash_token_is_end(s->m, piece->token)) {
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
    return s->desc.all_logits ? s->logits + (size_t)(s->last_n - 1)*(size_t)s->m->arch.n_vocab
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
FLASH_API int flash_session_pending(const flash_session *s)  { return s ? s->fed - s->pos : 0; }
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
        if (l->n_head && (s->high - 1)/64 - flash__sees(l, position)/64 >= s->blocks[i])
            return FLASH_E_RANGE;
    }
    if (!position) s->high = 0;
    s->pos = s->fed = position;
    s->run = s->have_logits = s->ended = s->last_n = 0;
    s->text_n = 0;
    memset(&s->detok, 0, sizeof s->detok);
    s->detok.begun = position > 1;
    return FLASH_E_NONE;
}

FLASH_API void flash_session_cancel(flash_session *s) { if (s) s->cancel = 1; }

FLASH_API flash_status flash_session_sampler(flash_session *s, const flash_sampler *sampler)
{
    if (!s || !sampler || !flash__sampler_ok(sampler)
        || flash__stops_longest(sampler) > s->stop_max) return FLASH_E_ARGUMENT;
    s->desc.sampler = *sampler;
    s->random = sampler->seed ? sampler->seed : 1;
    return FLASH_E_NONE;
}

/* ===== >>measure ========================================================== */

/* A model without a file: the rules of >>arch say which matrices a shape has, one block holds them
   all. Their weights are one quantised pattern over and over; what they say does not matter to the
   time, that each has memory of its own does. KNOWN TRAP: memory never written to is one page of
   zeros to many systems and reads too fast, so keys and values are written once, too. */

#ifdef FLASH__LATENCY
enum { FLASH__PATTERN = 16384 }; /* weights of the pattern */

static int flash__workload_ok(const flash_workload *u)
{
    const flash_arch *a = u ? u->arch : NULL;
    int i;
    if (!a || a->n_layer < 1 || a->n_layer > FLASH_LAYERS_MAX || a->d_model < 1
        || a->d_model > FLASH_DIM_MAX || a->d_head < 1 || a->d_head > FLASH_HEAD_MAX
        || a->n_vocab < 1 || a->n_vocab > FLASH_VOCAB_MAX || a->rope_dims < 0
        || a->rope_dims > a->d_head || a->rope_dims & 1 || !flash_row_bytes(u->weights, 256)
        || !flash__kv_type_ok(u->kv, a->d_head) || u->threads < 0 || u->threads > FLASH_THREADS_MAX
        || u->chunk < 0 || u->prompt < 0 || u->prompt > FLASH_CONTEXT_MAX || u->position < 0
        || u->position >= FLASH_CONTEXT_MAX) return 0;
    for (i = 0; i < a->n_layer; i++) {
        const flash_layer *l = a->layer + i;
        if (l->d_ffn < 0 || l->d_ffn > FLASH_DIM_MAX || l->window < 0
            || (int)l->n_head*a->d_head > FLASH_DIM_MAX
            || (flash__parts(l) & FLASH__HAS_KV ? !l->n_kv_head || l->n_head % l->n_kv_head
                : l->n_kv_head)
            || ((l->attention == FLASH_ATTENTION_CHUNK || l->attention == FLASH_ATTENTION_WINDOW)
                && !l->window)
            || (l->attention == FLASH_ATTENTION_CONV
                && (a->conv_length < 2 || a->conv_length > 64))) return 0;
    }
    return 1;
}

/* What the parts of a made-up model share. ones: [D conv_length] or more; pattern: quantised. */
typedef struct flash__invention {
    const flash_arch *arch;
    int               bit;
    flash_type        type;
    const float      *ones;
    const uint8_t    *pattern;
    flash__arena     *arena;
} flash__invention;

/* The tensors of one layer, or of the root: fields of base, memory from the arena. Without memory
   it counts. 0: a row is no multiple of the type's block. */
static int flash__invent_part(const flash__invention *v, const flash_layer *l,
                              const flash__tensor_rule *rule, size_t n, void *base)
{
    size_t bytes = flash_row_bytes(v->type, FLASH__PATTERN), rows, cols, size, at;
    for (; n--; rule++) {
        void *field = (uint8_t *)base + rule->at;
        flash__mat w;
        int root = rule->parts == FLASH__HAS_ANY;
        if (root && rule->at == offsetof(flash__root, head) ? v->arch->tied
            : !(rule->need & v->bit) || !(root || rule->parts & flash__parts(l))) continue;
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
        for (at = 0; at < rows*size; at += bytes)
            memcpy((uint8_t *)(uintptr_t)w.data + at, v->pattern,
                   FLASH__MIN(bytes, rows*size - at));
    }
    return 1;
}

/* Carves the model of u; *out NULL while it counts. 0: a row fits no blocks. */
static int flash__invent(flash_model **out, const flash_workload *u, flash__arena *a)
{
    const flash_arch *arch = u->arch;
    flash_model *m = (flash_model *)flash__take(a, 1, sizeof *m);
    flash__layer *layer = (flash__layer *)flash__take(a, (size_t)arch->n_layer, sizeof *layer), one;
    flash__root root;
    flash__invention v;
    uint64_t state = 1;
    size_t k, longest = FLASH__MAX((size_t)arch->d_model*(size_t)FLASH__MAX(arch->conv_length, 1),
                                   (size_t)FLASH__PATTERN);
    int i, ok;
    float *ones;
    uint8_t *pattern;
    v.arch = arch;
    v.bit = FLASH__IS_LLAMA;
    for (k = 0; k < FLASH__COUNT(flash__archs); k++)
        if (!strcmp(flash__archs[k].name, arch->name)) v.bit = flash__archs[k].bit;
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
        for (k = 0; k < FLASH__PATTERN; k++) /* of deviation 1/sqrt(D) */
            ones[k] = ((float)(flash__random(&state) >> 40)/8388608.0f - 1)
                *sqrtf(3.0f/(float)arch->d_model);
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

/* What changes no time, as it is nowhere out of range. */
static void flash__arch_plain(flash_arch *a)
{
    int i;
    a->norm_eps = 1e-5f;
    a->rope_scaling = FLASH_ROPE_PLAIN;
    a->rope_factor = a->rope_attn_factor = a->embedding_scale = 1;
    a->attention_scale = 1/sqrtf((float)a->d_head);
    a->n_ctx = FLASH_CONTEXT_MAX;
    a->temperature_n_ctx = 0;
    a->name[sizeof a->name - 1] = 0;
    for (i = 0; i < a->n_layer; i++) if (a->layer[i].rope_base != 0) a->layer[i].rope_base = 10000;
}

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

/* Bytes of the model of u, whose architecture is plain, and of its session; 0: refused. */
static size_t flash__workload_plan(const flash_workload *u, const flash_session_desc *d,
                                   flash_isa isa, size_t *session, flash_error *err)
{
    flash__arena a = { NULL, 0 };
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
        flash__fail(err, FLASH_E_ARGUMENT, 0, "a width of the shape is no multiple of %i, the "
                    "block of %s", flash_type_block(u->weights), type);
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
    flash__fail(err, FLASH_E_ARGUMENT, 0, "a shape, type or length is out of range");
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

/* One token, or so many from the beginning, and the choice of the next. Seconds. */
static double flash__time_tokens(flash_session *s, int position, int n)
{
    double begin = flash__clock(&s->desc.host);
    int i;
    flash_session_reset(s);
    s->pos = position;
    s->fed = position + n;
    for (i = position; i < s->fed; i++)
        s->ids[i] = (int32_t)((3 + (int64_t)i*7919%509)%s->m->arch.n_vocab);
    flash__forward(s, NULL);
    flash_session_sample(s);
    return flash__clock(&s->desc.host) - begin;
}

static double flash__phase_time(const flash_timing *t, int phase)
{
    return phase ? t->decode : t->prefill;
}

static void flash__measurement_sum_up(flash_measurement *out)
{
    double x[FLASH_LATENCY_REPEATS_MAX], v, middle[2], spread[2];
    int phase, i, j;
    for (phase = 0; phase < 2; phase++) {
        for (i = 0; i < out->n; i++) { /* into order */
            v = flash__phase_time(&out->each[i], phase);
            for (j = i; j > 0 && x[j - 1] > v; j--) x[j] = x[j - 1];
            x[j] = v;
        }
        middle[phase] = v = (x[(out->n - 1)/2] + x[out->n/2])/2;
        spread[phase] = v > 0 ? (x[out->n - 1] - x[0])/v : 0;
    }
    out->median.prefill = middle[0];
    out->median.decode = middle[1];
    out->spread.prefill = spread[0];
    out->spread.decode = spread[1];
}

FLASH_API flash_status flash_latency_measure(flash_measurement *out, const flash_workload *work,
                                             const flash_measure_desc *desc, flash_error *err)
{
    flash__arena a = { NULL, 0 };
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
        return flash__fail(err, FLASH_E_ARGUMENT, 0, "no place for the measurement, or repeats or "
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
    if (!a.base) return flash__fail(err, FLASH_E_MEMORY, 0, "no memory for the weights (%u bytes)",
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
        n = arch.layer[i].n_kv_head*(size_t)s->blocks[i]*flash__kv_block(u.kv, arch.d_head);
        if (n) { memset(s->k[i], 0, n); memset(s->v[i], 0, n); }
    }
    if (u.prompt) flash__time_tokens(s, 0, FLASH__MIN(u.prompt, s->chunk));
    flash__time_tokens(s, u.position, 1);
    for (i = 0; i < out->n; i++) {
        flash_timing *t = &out->each[i];
        if (u.prompt) t->prefill = flash__time_tokens(s, 0, u.prompt);
        for (j = 0; j < how.tokens; j++)
            t->decode += flash__time_tokens(s, u.position, 1)/how.tokens;
    }
    flash__measurement_sum_up(out);
    flash_session_free(s);
    flash__release(&how.host.allocator, a.base, bytes);
    return FLASH_E_NONE;
}
#endif

/* ===== >>latency ========================================================== */

/* A time is work over speed: columns of counted work (operations, bytes, steps), each with a
   constant of the device, give its mean; a Gaussian process on the logarithm of measured over
   counted carries what counting misses (caches, shapes that suit a kernel). Williams, Waterman and
   Patterson 2009, "Roofline"; Kennedy and O'Hagan 2001 for the two together. KNOWN TRAP: columns of
   a space in which little varies are nearly multiples of each other; constants below 0 would make
   extrapolation absurd, so there are none. */

#ifdef FLASH__LATENCY
enum {
    FLASH__WORK_MIX,        /* operations of matrices in place of or around attention */
    FLASH__WORK_FFN,        /* of feed-forward parts                                  */
    FLASH__WORK_FULL,       /* of scores and values where all positions are seen      */
    FLASH__WORK_WINDOW,     /* where a window or a chunk is                           */
    FLASH__WORK_HEAD,       /* weights of the head, for one token                     */
    FLASH__WORK_WEIGHTS,    /* bytes of the layers' weights, once a chunk             */
    FLASH__WORK_KV,         /* bytes of keys and values                               */
    FLASH__WORK_FLOATS,     /* activations between matrices                           */
    FLASH__WORK_STEPS,      /* mixers and feed-forward parts, once a chunk            */
    FLASH__WORK_ONE,
    FLASH__WORK_COUNT
};
enum { FLASH__SHAPE_INPUTS = 8, FLASH__SHAPE_KINDS = 4,
       FLASH__SHAPE = FLASH__SHAPE_INPUTS + FLASH__SHAPE_KINDS };

/* One phase: mean by columns times beta, residual by a process over scaled inputs. */
typedef struct flash__phase {
    int m, d, categories;               /* columns, inputs, the last of which are compared  */
    double beta[16], lo[FLASH__GP_INPUTS], range[FLASH__GP_INPUTS];
    double mean, scale;                 /* of the residual's logarithm                      */
    double error;                       /* mean relative one, each point left out in turn   */
    flash__gp gp;
} flash__phase;

struct flash_latency {
    flash_host host;
    size_t block;                       /* [B] */
    flash__phase phase[2];              /* prefill, decode; gp.n 0: not measured            */
};

/* Positions that tokens [from, from + T) see in a layer, added up. */
static double flash__seen(const flash_layer *l, int from, int T)
{
    double n = T, first = from, w = l->window, whole, rest;
    if (l->attention == FLASH_ATTENTION_WINDOW) {
        double grow = FLASH__MIN(FLASH__MAX(w - first, 0), n); /* tokens that see all before them */
        return grow*(first + (grow + 1)/2) + (n - grow)*w;
    }
    if (l->attention != FLASH_ATTENTION_CHUNK) return n*(first + (n + 1)/2);
    whole = floor((first + n)/w); /* up to the end, less up to the beginning */
    rest = first + n - whole*w;
    n = whole*w*(w + 1)/2 + rest*(rest + 1)/2;
    whole = floor(first/w);
    rest = first - whole*w;
    return n - whole*w*(w + 1)/2 - rest*(rest + 1)/2;
}

/* The columns of T tokens after `from`, worked on in chunks. */
static void flash__work(const flash_workload *u, int from, int T, double *c)
{
    const flash_arch *a = u->arch;
    double tokens = T, D = a->d_model, C = a->d_head, all = 0, mats;
    int i, chunk = u->chunk ? u->chunk : FLASH__CHUNK, chunks = (T + chunk - 1)/chunk;
    for (i = 0; i < FLASH__WORK_COUNT; i++) c[i] = 0;
    for (i = 0; i < a->n_layer; i++) {
        const flash_layer *l = a->layer + i;
        double H = l->n_head, K = l->n_kv_head, F = l->d_ffn, seen;
        int parts = flash__parts(l);
        mats = parts & FLASH__HAS_KV ? D*C*(2*H + 2*K) : parts & FLASH__HAS_CONV ? 4*D*D
            : parts & FLASH__HAS_LINEAR ? D*D : 0;
        c[FLASH__WORK_MIX] += 2*tokens*mats;
        c[FLASH__WORK_FFN] += 2*tokens*3*D*F;
        all += mats + 3*D*F;
        if (parts & FLASH__HAS_KV) {
            seen = flash__seen(l, from, T);
            c[l->attention == FLASH_ATTENTION_FULL ? FLASH__WORK_FULL : FLASH__WORK_WINDOW]
                += 4*H*C*seen;
            c[FLASH__WORK_KV] += K/64*(double)flash__kv_block(u->kv, a->d_head)
                *(T == 1 ? 2*seen : 2*tokens);
        }
        if (parts & FLASH__HAS_MIXER)
            c[FLASH__WORK_FLOATS] += tokens*(4*D + 2*C*(H + K));
        if (parts & FLASH__HAS_FFN) c[FLASH__WORK_FLOATS] += tokens*(4*D + 3*F);
        c[FLASH__WORK_STEPS] += chunks*(!!(parts & FLASH__HAS_MIXER) + !!(parts & FLASH__HAS_FFN));
    }
    c[FLASH__WORK_HEAD] = D*a->n_vocab;
    /* bytes of 256 weights are exact in every type */
    c[FLASH__WORK_WEIGHTS] = chunks*all*(double)flash_row_bytes(u->weights, 256)/256;
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
        + 2*c[FLASH__WORK_HEAD];
}

/* What tells shapes apart: sizes first, then what is compared. */
static void flash__shape(const flash_workload *u, int from, int T, double *z)
{
    const flash_arch *a = u->arch;
    double heads = 0, ffn = 0, full = 0, window = 0, other = 0;
    int i;
    for (i = 0; i < a->n_layer; i++) {
        const flash_layer *l = a->layer + i;
        heads += l->n_head;
        ffn += l->d_ffn;
        if (l->attention == FLASH_ATTENTION_FULL) full++;
        else if (l->n_kv_head) window++;
        else if (l->attention != FLASH_ATTENTION_SKIP) other++;
    }
    z[0] = flash__log(1.0 + from + T);
    z[1] = flash__log(a->d_model);
    z[2] = flash__log(1 + ffn/a->n_layer);
    z[3] = a->n_layer;
    z[4] = full;
    z[5] = window;
    z[6] = other;
    z[7] = heads*a->d_head/FLASH__MAX(full + window, 1);
    z[8] = u->weights;
    z[9] = u->kv;
    z[10] = FLASH__MAX(u->threads, 1);
    z[11] = u->chunk ? u->chunk : FLASH__CHUNK;
}

/* Fits p, whose process is carved for n points. c: [n,m] columns, overwritten; z: [n,d] inputs; y:
   [n] times. 0: the numbers cannot be fitted. */
static int flash__phase_fit(flash__phase *p, double *c, double *z, double *y)
{
    size_t n = p->gp.n, m = (size_t)p->m, d = (size_t)p->d, i, j;
    double most[16], ones = 0;
    for (i = 0; i < n; i++) if (!(y[i] > 0)) return 0;
    for (j = 0; j < m; j++) { /* relative errors: rows over their time; columns of about 1 */
        for (most[j] = 0, i = 0; i < n; i++) {
            c[i*m + j] /= y[i];
            most[j] = FLASH__MAX(most[j], c[i*m + j]);
        }
        if (!(most[j] > 0)) most[j] = 1;
        for (i = 0; i < n; i++) c[i*m + j] /= most[j];
    }
    for (i = 0; i < n; i++) p->gp.alpha[i] = 1;
    flash__least_squares(c, p->gp.alpha, n, p->m, 1e-9*(double)n, p->beta);
    for (j = 0; j < m; j++) ones += p->beta[j];
    if (!(ones > 0)) return 0;
    for (p->mean = 0, i = 0; i < n; i++) {
        double counted = flash__dot64(c + i*m, p->beta, m);
        if (!(counted > 1e-6)) return 0;
        p->gp.y[i] = -flash__log(counted);
        p->mean += p->gp.y[i]/(double)n;
    }
    for (p->scale = 0, i = 0; i < n; i++) {
        p->gp.y[i] -= p->mean;
        p->scale += p->gp.y[i]*p->gp.y[i]/(double)n;
    }
    p->scale = FLASH__MAX(sqrt(p->scale), 1e-6);
    for (i = 0; i < n; i++) p->gp.y[i] /= p->scale;
    for (j = 0; j < m; j++) p->beta[j] /= most[j];
    for (j = 0; j < d; j++) {
        double hi = z[j];
        p->lo[j] = z[j];
        for (i = 0; i < n; i++) {
            p->lo[j] = FLASH__MIN(p->lo[j], z[i*d + j]);
            hi = FLASH__MAX(hi, z[i*d + j]);
        }
        p->range[j] = hi > p->lo[j] ? hi - p->lo[j] : 1;
        for (i = 0; i < n; i++) p->gp.x[i*d + j] = (z[i*d + j] - p->lo[j])/p->range[j];
    }
    p->gp.priors = 1;
    if (!flash__gp_fit(&p->gp, 60)) return 0;
    flash__gp_leave_one_out(&p->gp, c, c + n);
    for (p->error = 0, i = 0; i < n; i++)
        p->error += fabs(flash__exp(p->scale*(c[i] - p->gp.y[i])) - 1)/(double)n;
    return 1;
}

/* The time of columns c and inputs z. */
static flash_interval flash__phase_predict(const flash__phase *p, const double *c, const double *z)
{
    double x[FLASH__GP_INPUTS], k[FLASH_LATENCY_POINTS_MAX], variance, mean, sd, counted;
    flash_interval t;
    int j;
    for (j = 0; j < p->d; j++) x[j] = (z[j] - p->lo[j])/p->range[j];
    mean = p->mean + p->scale*flash__gp_predict(&p->gp, x, k, &variance);
    sd = 1.6448536269514722*p->scale*sqrt(variance + flash__exp(p->gp.theta[p->d + 1]));
    counted = flash__dot64(c, p->beta, (size_t)p->m);
    t.mean = counted*flash__exp(mean);
    t.lo = counted*flash__exp(mean - sd);
    t.hi = counted*flash__exp(mean + sd);
    return t;
}

/* 1 if the phase was measured with the same types, threads and chunk. */
static int flash__phase_knows(const flash__phase *p, const double *z)
{
    size_t i;
    int j, same;
    for (i = 0; i < p->gp.n; i++) {
        const double *x = p->gp.x + i*(size_t)p->d;
        for (same = 1, j = p->d - p->categories; j < p->d; j++)
            same &= x[j] == (z[j] - p->lo[j])/p->range[j];
        if (same) return 1;
    }
    return 0;
}

/* Columns and inputs of a phase of u: 0 prefill, 1 decode. */
static void flash__phase_of(const flash_workload *u, int phase, double *c, double *z)
{
    int from = phase ? u->position : 0, T = phase ? 1 : u->prompt;
    flash__work(u, from, T, c);
    flash__shape(u, from, T, z);
}

/* Carves l for as many points as each phase has; fit: 1 for what fitting needs. */
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
                                         const flash_timing *time, size_t n,
                                         const flash_host *host, flash_error *err)
{
    static const char *const name[2] = { "prefill", "decode" };
    flash__arena rest = { NULL, 0 }, room = { NULL, 0 };
    flash__phase fitted[2], kept[2];
    flash_host h;
    flash_latency *l;
    double *c, *z, *y;
    size_t count[2] = { 0, 0 }, most, need, i, j, d = FLASH__SHAPE, m = FLASH__WORK_COUNT;
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
    /* two blocks: what stays, and what fitting needs */
    memcpy(kept, fitted, sizeof kept);
    flash__latency_plan(&rest, count, 0, kept);
    flash__latency_plan(&room, count, 1, fitted);
    most = FLASH__MAX(count[0], count[1]);
    flash__take(&room, most*(m + d + 1), sizeof(double));
    if (rest.used == SIZE_MAX || room.used == SIZE_MAX)
        return flash__fail(err, FLASH_E_TOO_LARGE, 0,
                           "more memory than this machine can address");
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
    c = (double *)flash__take(&room, FLASH__MAX(count[0], count[1])*(m + d + 1), sizeof *c);
    for (k = 0; k < 2; k++) {
        z = c + count[k]*m;
        y = z + count[k]*d;
        for (i = j = 0; i < n; i++) {
            y[j] = flash__phase_time(time + i, k);
            if (y[j] > 0) { flash__phase_of(work + i, k, c + j*m, z + j*d); j++; }
            if (j == count[k]) break;
        }
        if (count[k]) ok &= flash__phase_fit(&fitted[k], c, z, y);
        l->phase[k] = fitted[k];
        l->phase[k].gp = kept[k].gp;
        l->phase[k].gp.lml = fitted[k].gp.lml;
        memcpy(l->phase[k].gp.theta, fitted[k].gp.theta, sizeof kept[k].gp.theta);
        for (i = 0; ok && i < count[k]; i++) {
            memcpy(kept[k].gp.x + i*d, fitted[k].gp.x + i*d, d*sizeof *c);
            memcpy(kept[k].gp.L + i*count[k], fitted[k].gp.L + i*count[k], count[k]*sizeof *c);
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

/* Text of a model: "flash-latency 1", then words of hexadecimal digits: the number of points of
   both phases; for each that has any the bits of its doubles in the order below; a hash of all. */
typedef struct flash__hexes {
    char       *to;     /* [cap], or NULL while it reads                    */
    const char *from;   /* [n], or NULL while it writes                     */
    size_t      n, cap;
    uint64_t    hash;
    int         bad;
} flash__hexes;

static void flash__hex_put(flash__hexes *w, const char *text, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++, w->n++) if (w->n < w->cap) w->to[w->n] = text[i];
}

static uint64_t flash__hex(flash__hexes *w, uint64_t v)
{
    char digits[17];
    int i, c = 0;
    if (w->from) {
        for (v = 0, i = 0; i < 17 && w->n; i++, w->from++, w->n--) {
            c = (unsigned char)*w->from;
            if (c >= '0' && c <= '9') c -= '0';
            else if (c >= 'a' && c <= 'f') c -= 'a' - 10;
            else break;
            v = v << 4 | (uint64_t)c;
        }
        w->bad |= i != 16 || !w->n || (c != ' ' && c != '\n');
        if (w->n) { w->from++; w->n--; }
    } else {
        for (i = 0; i < 16; i++) digits[i] = "0123456789abcdef"[v >> (60 - 4*i) & 15];
        digits[16] = '\n';
        flash__hex_put(w, digits, 17);
    }
    w->hash = (w->hash ^ v)*0x9e3779b97f4a7c15u;
    w->hash ^= w->hash >> 29;
    return v;
}

static void flash__hex_doubles(flash__hexes *w, double *x, size_t n)
{
    for (; n--; x++) {
        *x = flash__bits_f64(flash__hex(w, flash__f64_bits(*x)));
        w->bad |= !(*x > -1e300 && *x < 1e300);
    }
}

static void flash__hex_phase(flash__hexes *w, flash__phase *p)
{
    size_t d = (size_t)p->d;
    flash__hex_doubles(w, p->beta, (size_t)p->m);
    flash__hex_doubles(w, p->lo, d);
    flash__hex_doubles(w, p->range, d);
    flash__hex_doubles(w, &p->mean, 1);
    flash__hex_doubles(w, &p->scale, 1);
    flash__hex_doubles(w, &p->error, 1);
    flash__hex_doubles(w, p->gp.theta, d + 2);
    flash__hex_doubles(w, p->gp.x, p->gp.n*d);
    flash__hex_doubles(w, p->gp.y, p->gp.n);
}

static const char flash__latency_title[] = "flash-latency 1\n";

FLASH_API size_t flash_latency_save(const flash_latency *l, char *text, size_t cap)
{
    flash__hexes w;
    flash_latency same;
    int k;
    memset(&w, 0, sizeof w);
    if (!l) return 0;
    same = *l; /* its points are only read */
    w.to = text;
    w.cap = text ? cap : 0;
    flash__hex_put(&w, flash__latency_title, sizeof flash__latency_title - 1);
    for (k = 0; k < 2; k++) flash__hex(&w, l->phase[k].gp.n);
    for (k = 0; k < 2; k++) if (l->phase[k].gp.n) flash__hex_phase(&w, &same.phase[k]);
    flash__hex(&w, w.hash);
    return w.n;
}

FLASH_API flash_status flash_latency_load(flash_latency **out, const char *text, size_t bytes,
                                          const flash_host *host, flash_error *err)
{
    const size_t title = sizeof flash__latency_title - 1;
    flash__arena a = { NULL, 0 };
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
        while (w.n && *w.from != '\n') { w.from++; w.n--; }
        if (w.n) { w.from++; w.n--; }
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
    if (w.n < 17*(n[0] + n[1])*(FLASH__SHAPE + 1))
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
    for (k = 0; k < 2; k++) if (n[k]) flash__hex_phase(&w, &l->phase[k]);
    hash = w.hash;
    w.bad |= flash__hex(&w, 0) != hash;
    for (k = 0; k < 2 && !w.bad; k++)
        if (n[k]) w.bad = !flash__gp_factor(&l->phase[k].gp);
    if (!w.bad) { *out = l; return FLASH_E_NONE; }
    flash_latency_free(l);
    return flash__fail(err, FLASH_E_FORMAT, bytes - w.n, "the numbers are not those of a latency "
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
    }
    for (k = 0; k < 2; k++) if (to[k]) *to[k] = t[k];
    return FLASH_E_NONE;
}

#endif

#ifdef __cplusplus
}
#endif

/* ===== >>cleanup ========================================================== */

/* Whatever was set or defined above for our own use ends here; the user's code after the include is
   as before. */

#if defined(FLASH_NO_FP_PRAGMA)
#elif defined(__clang__)
#  pragma STDC FP_CONTRACT DEFAULT
#elif defined(__GNUC__)
#  pragma GCC pop_options
#elif defined(_MSC_VER)
#  pragma fp_contract(on)
#endif

#ifdef FLASH__OWN_MALLOC
#  undef FLASH_MALLOC
#  undef FLASH_FREE
#endif
#ifdef FLASH__OWN_ASSERT
#  undef FLASH_ASSERT
#endif
#ifndef FLASH_KEEP_INTERNALS /* tests keep them */
#  undef FLASH__OWN_MALLOC
#  undef FLASH__OWN_ASSERT
#  undef FLASH__FILE_STDIO
#  undef FLASH__FILE_WIN32
#  undef FLASH__FILE_MMAP
#  undef FLASH__STATIC_ASSERT
#  undef FLASH__FLOAT
#  undef FLASH__COUNT
#  undef FLASH__MIN
#  undef FLASH__MAX
#  undef FLASH__KERNELS
#  undef FLASH__GPT2
#  undef FLASH__LLAMA3
#  undef FLASH__QWEN2
#  undef FLASH__TEKKEN
#  undef FLASH__GPT4O
#  undef FLASH__LAYER
#  undef FLASH__BIASED
#  undef FLASH__NORMED
#  undef FLASH__GELU_1
#  undef FLASH__GELU_3
#  undef FLASH__ROOT
#  undef FLASH__HOSTED
#  undef FLASH__LATENCY
#  undef FLASH__THREADS
#  undef FLASH__THREADS_POSIX
#  undef FLASH__THREADS_WIN32
#  undef FLASH__THREAD_RESULT
#  undef FLASH__ATOMIC_GNU
#  undef FLASH__ATOMIC_MSVC
#  undef FLASH__PAUSE
#  undef FLASH__PREFETCH
#  undef FLASH__OPAQUE
#  undef FLASH__TARGET
#  undef FLASH__INLINE
#  undef FLASH__UNROLL
#  undef FLASH__X86
#  undef FLASH__SSE41
#  undef FLASH__AVX2
#  undef FLASH__AVX512
#  undef FLASH__AVXVNNI
#  undef FLASH__AMX
#  undef FLASH__DPBUSD
#  undef FLASH__NEON
#  undef FLASH__NEON_DOT
#  undef FLASH__WASM
#  undef FLASH__SETS
#  undef FLASH__PANEL_SSE41
#  undef FLASH__PANEL_AVX2
#  undef FLASH__PANEL_AVX512
#  undef FLASH__PANELS_AVX512
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
