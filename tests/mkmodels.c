/* mkmodels DIR writes the random models of tests/data. mkmodels --seeds DIR writes the seeds of the
   fuzzers to DIR/gguf and DIR/tokenizer, which must exist. mkmodels --chat DIR NAME TEMPLATE writes
   the first of the models with a chat template. The bytes are the same on every machine. */
#include "mkmodel.h"

/* Rows of 256 hold whole blocks of every type; one layer and heads of 16 keep the matrices small.
   Matrices whose rows are too short for the model's type are Q8_0. */
#define SMALL 1, 256, 2, 1, 16, 32

static const struct {
    const char *name;
    mk_options o;
} models[] = {
    {"f32", {2, 32, 4, 2, 8, 24, 300, 256, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
    {"f16-bpe",
     {2, 32, 4, 2, 8, 64, 320, 256, 1, 1, "llama-bpe", MK_F16, MK_F16, MK_F16, MK_F16, MK_F16,
      MK_F16, 1}},
    {"bf16",
     {2, 32, 4, 2, 8, 64, 320, 256, 0, 0, 0, MK_BF16, MK_BF16, MK_BF16, MK_BF16, MK_BF16, 0, 2}},
    {"q4",
     {2, 32, 2, 1, 16, 64, 320, 256, 1, 0, 0, MK_Q4_0, MK_Q4_1, MK_Q4_0, MK_Q4_0, MK_Q4_1, MK_Q4_1,
      3}},
    {"q5",
     {2, 32, 2, 1, 16, 64, 320, 256, 1, 0, 0, MK_Q5_1, MK_Q5_0, MK_Q5_1, MK_Q5_1, MK_Q5_0, MK_Q5_0,
      4}},
    {"q8_0",
     {2, 32, 4, 2, 8, 64, 320, 256, 0, 0, 0, MK_Q8_0, MK_Q8_0, MK_Q8_0, MK_Q8_0, MK_Q8_0, 0, 5}},
    {"q23_k", {SMALL, 160, 256, 1, 0, 0, MK_Q2_K, MK_Q3_K, MK_Q8_0, MK_Q2_K, MK_Q8_0, MK_Q3_K, 6}},
    {"q4_k", {SMALL, 160, 256, 0, 0, 0, MK_Q4_K, MK_Q4_K, MK_Q8_0, MK_Q4_K, MK_Q8_0, 0, 7}},
    {"q5_k", {SMALL, 160, 256, 0, 0, 0, MK_Q5_K, MK_Q5_K, MK_Q8_0, MK_Q5_K, MK_Q8_0, 0, 8}},
    {"q6_k", {SMALL, 160, 256, 0, 0, 0, MK_Q6_K, MK_Q6_K, MK_Q8_0, MK_Q6_K, MK_Q8_0, 0, 9}},
    {"iq4",
     {SMALL, 160, 256, 1, 0, 0, MK_IQ4_NL, MK_IQ4_XS, MK_IQ4_NL, MK_IQ4_NL, MK_IQ4_NL, MK_IQ4_XS,
      10}},
    {"mxfp4",
     {2, 32, 2, 1, 16, 64, 320, 256, 1, 0, 0, MK_MXFP4, MK_MXFP4, MK_MXFP4, MK_MXFP4, MK_MXFP4,
      MK_MXFP4, 11}},
};

static void save(const char *dir, const char *name, const void *p, size_t n)
{
    char path[1024];
    FILE *out;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    out = fopen(path, "wb");
    if (!out || fwrite(p, 1, n, out) != n || fclose(out)) {
        fprintf(stderr, "mkmodels: cannot write %s\n", path);
        exit(1);
    }
    printf("%s: %lu bytes\n", path, (unsigned long)n);
}

static void save_file(const char *dir, const char *name, mk_file *f)
{
    size_t n;
    uint8_t *p = mk_emit(f, &n);
    save(dir, name, p, n);
    free(p);
    mk_free(f);
}

/* Builds a file with a key of every type, and an array of every type. */
static mk_file *values(void)
{
    static const int size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    mk_file *f = mk_new();
    char key[16];
    f->version = 2;
    for (uint32_t t = 0; t <= MK_V_F64; t++) {
        mk_buf *b;
        if (t == MK_V_ARRAY) continue;
        for (int array = 0; array < 2; array++) {
            snprintf(key, sizeof key, "%c%u", array ? 'a' : 'v', (unsigned)t);
            b = array ? mk_set_array(f, key, t, 2) : mk_set(f, key, t);
            for (int i = 0; i <= array; i++)
                if (t == MK_V_STRING)
                    mk_text(b, "text");
                else
                    mk_int(b, 1, size[t]);
        }
    }
    return f;
}

static void seeds(const char *dir)
{
    static const uint32_t types[] = {MK_F32,  MK_F16,    MK_BF16,   MK_Q4_0, MK_Q4_1, MK_Q5_0,
                                     MK_Q5_1, MK_Q8_0,   MK_Q2_K,   MK_Q3_K, MK_Q4_K, MK_Q5_K,
                                     MK_Q6_K, MK_IQ4_NL, MK_IQ4_XS, MK_MXFP4};
    static const mk_kind kinds[] = {{"deci", "fsl", 0}, {"flash", "wso", 2}, {"qwen2", "f", 0},
                                    {"qwen3", "f", 0},  {"gemma3", "wf", 2}, {"smollm3", "f", 0},
                                    {"lfm2", "cfc", 0}, {"llama4", "f", 0}};
    static const char *const texts[] = {
        "Once upon a time, there was a cat. It said: \"I'll don't WE'VE\"\n\n  the end.  ",
        "1234567 12,345.67 3 \xC2\xBD x86-64\t\ttabs\r\n\r\n    four spaces",
        ("caf\xC3\xA9 \xD0\x9F\xD1\x80\xD0\xB8 "
         "\xE4\xB8\xAD\xF0\x9F\x98\x80\xCC\x81\xE2\x96\x81"),
        "\xFF\xFE\x80\xE2\x96 \xC0\x80 \xED\xA0\x80 \xF4\x90\x80\x80 <s><0x41></s><|endoftext|>",
        "int main(void) { return !x && y_z != 0x1F; } // https://example.org/?a=b%20c#d",
    };
    char sub[1024], name[64];

    snprintf(sub, sizeof sub, "%s/gguf", dir);
    save_file(sub, "values.gguf", values());
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const mk_layout *l = mk_layout_of(types[i]);
        /* Rows of one block, and as few rows as possible. */
        mk_options o = {1, 8, 2, 1, 4, 8, 24, 32, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0};
        o.embd = o.qkv = o.ffn_up = types[i];
        if (l->items > 1) {
            o.d_model = l->items;
            o.n_head = 1;
            o.d_head = o.d_ffn = 2;
        }
        save_file(sub, l->name, mk_llama(&o));
    }
    {
        mk_options o = {1, 8, 2, 1, 4, 8, 280, 32, 1, 1, "llama-bpe", 0, 0, 0, 0, 0, 0, 0};
        mk_file *f = mk_llama(&o);
        uint64_t seed = 1;
        mk_set_text(f, "llama.rope.scaling.type", "yarn");
        mk_set_f32(f, "llama.rope.scaling.factor", 4);
        mk_set_u32(f, "llama.rope.scaling.original_context_length", 16);
        mk_add_tensor(f, "rope_freqs.weight", MK_F32, 2, 0, 1, 0.1, &seed);
        mk_add_tensor(f, "blk.0.attn_q.bias", MK_F32, 8, 0, 0, 0.1, &seed);
        mk_set_u32(f, "general.alignment", 64);
        f->align = 64;
        save_file(sub, "bpe", f);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        mk_options o = {3, 8, 2, 1, 4, 8, 24, 32, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0};
        mk_file *f = mk_model(&o, &kinds[i]);
        if (mk_is(&kinds[i], "gemma3")) {
            mk_set_f32(f, "gemma3.final_logit_softcapping", 30);
            mk_set_f32(f, "gemma3.rope.freq_base_swa", 10000);
        } else if (mk_is(&kinds[i], "llama4")) {
            mk_set_u32(f, "llama4.attention.sliding_window", 8192);
            mk_set_u32(f, "llama4.attention.sliding_window_pattern", 2);
        }
        save_file(sub, kinds[i].arch, f);
    }
    snprintf(sub, sizeof sub, "%s/tokenizer", dir);
    for (int i = 0; i < 18; i++) { /* one for each vocabulary of fuzz_tokenizer.c */
        const char *text = texts[i % 5];
        mk_buf b = {0};
        mk_u8(&b, (uint32_t)i);
        mk_u8(&b, (uint32_t)(i % 4 == 3 ? 1 : i % 4 == 2 ? 4 : 0));
        mk_bytes(&b, text, strlen(text));
        snprintf(name, sizeof name, "vocabulary%02d", i);
        save(sub, name, b.p, b.n);
        free(b.p);
    }
    {
        mk_buf b = {0};
        mk_u16(&b, 0);
        mk_fill(&b, ' ', 200);
        mk_fill(&b, 'a', 200);
        save(sub, "long", b.p, b.n);
        free(b.p);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--seeds")) {
        seeds(argv[2]);
        return 0;
    }
    if (argc == 5 && !strcmp(argv[1], "--chat")) {
        mk_file *f = mk_llama(&models[0].o);
        mk_set_text(f, "tokenizer.chat_template", argv[4]);
        save_file(argv[2], argv[3], f);
        return 0;
    }
    if (argc != 2) {
        fprintf(stderr, "usage: mkmodels [--seeds] DIR | --chat DIR NAME TEMPLATE\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.gguf", models[i].name);
        save_file(argv[1], name, mk_llama(&models[i].o));
    }
    return 0;
}
