/* Converts a checkpoint of llama2.c (version 0, float32) and its SentencePiece vocabulary, given as
   text, to GGUF: for measurements on real weights that were published in that form.
     build/tests/mkllama2c MODEL.bin VOCAB.txt OUT.gguf
   The format is that of export.py and run.c of github.com/karpathy/llama2.c. */
#include "../flash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB_MAX = 32768 };

static FILE *in;
static flash_gguf_writer w;

static int to_file(void *user, const void *data, size_t bytes)
{
    return fwrite(data, 1, bytes, (FILE *)user) != bytes;
}

static void fail(const char *what)
{
    fprintf(stderr, "mkllama2c: %s\n", what);
    exit(1);
}

/* One kind of weights. The checkpoint has the matrices of all layers in a row. */
typedef struct part {
    const char *name;
    long layers, rows, cols; /* layers 0: one matrix that belongs to no layer */
} part;

static void announce(const char *name, long rows, long cols)
{
    uint64_t ne[2] = {(uint64_t)cols, (uint64_t)rows};
    flash_gguf_write_tensor(&w, name, FLASH_TYPE_F32, rows > 1 ? 2 : 1, ne);
}

int main(int argc, char **argv)
{
    static char text[VOCAB_MAX][64];
    static const char *tokens[VOCAB_MAX];
    static float scores[VOCAB_MAX];
    static int32_t types[VOCAB_MAX];
    int32_t h[7]; /* d_model, d_ffn, layers, heads, key/value heads, vocabulary, context */
    char name[64];
    if (argc != 4) fail("usage: mkllama2c MODEL.bin VOCAB.txt OUT.gguf");
    FILE *vocab = fopen(argv[2], "r"), *out = fopen(argv[3], "wb");
    in = fopen(argv[1], "rb");
    if (!in || !vocab || !out || fread(h, 4, 7, in) != 7) fail("cannot open the files");
    long D = h[0], F = h[1], L = h[2], V = h[5], C = D / h[3], KV = h[4] * C;
    if (V < 3 || V > VOCAB_MAX) fail("no checkpoint of version 0 with a shared classifier");
    for (long i = 0; i < V; i++) {
        if (fscanf(vocab, " %63[^\t]\t%f", text[i], &scores[i]) != 2)
            fail("the vocabulary is too short");
        tokens[i] = text[i];
        types[i] = i == 0 ? 2 : i < 3 ? 3 : text[i][0] == '<' && text[i][1] == '0' ? 6 : 1;
    }
    const part parts[] = {
        {"token_embd", 0, V, D}, {"attn_norm", L, 1, D},   {"attn_q", L, D, D},
        {"attn_k", L, KV, D},    {"attn_v", L, KV, D},     {"attn_output", L, D, D},
        {"ffn_norm", L, 1, D},   {"ffn_gate", L, F, D},    {"ffn_down", L, D, F},
        {"ffn_up", L, F, D},     {"output_norm", 0, 1, D},
    };
    enum { PARTS = sizeof parts / sizeof *parts };
    w.write = to_file;
    w.user = out;
    flash_gguf_write_begin(&w, 15, (uint32_t)(2 + 9 * L));
    flash_gguf_write_string(&w, "general.architecture", "llama");
    flash_gguf_write_u32(&w, "llama.block_count", (uint32_t)L);
    flash_gguf_write_u32(&w, "llama.embedding_length", (uint32_t)D);
    flash_gguf_write_u32(&w, "llama.feed_forward_length", (uint32_t)F);
    flash_gguf_write_u32(&w, "llama.attention.head_count", (uint32_t)h[3]);
    flash_gguf_write_u32(&w, "llama.attention.head_count_kv", (uint32_t)h[4]);
    flash_gguf_write_u32(&w, "llama.context_length", (uint32_t)h[6]);
    flash_gguf_write_u32(&w, "llama.rope.dimension_count", (uint32_t)C);
    flash_gguf_write_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    flash_gguf_write_string(&w, "tokenizer.ggml.model", "llama");
    flash_gguf_write_strings(&w, "tokenizer.ggml.tokens", tokens, NULL, (size_t)V);
    flash_gguf_write_array(&w, "tokenizer.ggml.scores", FLASH_VALUE_F32, scores, (size_t)V);
    flash_gguf_write_array(&w, "tokenizer.ggml.token_type", FLASH_VALUE_I32, types, (size_t)V);
    flash_gguf_write_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    flash_gguf_write_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    for (int pass = 0; pass < 2; pass++) {
        fseek(in, 28, SEEK_SET);
        for (int p = 0; p < PARTS; p++) {
            for (long l = 0; l < (parts[p].layers ? parts[p].layers : 1); l++) {
                size_t n = (size_t)(parts[p].rows * parts[p].cols);
                if (parts[p].layers)
                    snprintf(name, sizeof name, "blk.%ld.%s.weight", l, parts[p].name);
                else
                    snprintf(name, sizeof name, "%s.weight", parts[p].name);
                if (!pass) {
                    announce(name, parts[p].rows, parts[p].cols);
                    continue;
                }
                float *x = (float *)malloc(n * 4);
                if (!x || fread(x, 4, n, in) != n) fail("the checkpoint ends early");
                flash_gguf_write_data(&w, x, n * 4, 1);
                free(x);
            }
        }
    }
    if (flash_gguf_write_end(&w) || fclose(out)) fail("cannot write the file");
    return 0;
}
