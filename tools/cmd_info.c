/* cmd_info.c - flash info: says what a GGUF file is, if it runs, and the memory it needs. */
#include "cli.h"
#include <string.h>

/* Prints text of a file, cut to max bytes, with its control characters escaped for terminals. */
static void print_text(const char *text, size_t bytes, size_t max)
{
    for (size_t i = 0; i < bytes && i < max; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < ' ' || c == 127)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    if (bytes > max) printf("...");
}

/* Prints a blank and the value of a key, if it is there and a string. */
static void print_string(const flash_gguf *g, const char *key)
{
    flash_value v;
    if (flash_gguf_find(g, key, &v) || v.type != FLASH_VALUE_STRING) return;
    putchar(' ');
    print_text((const char *)v.data, v.bytes, 60);
}

static void print_value(const flash_value *v)
{
    enum { SHOWN = 4 };
    uint64_t n = v->item == FLASH_VALUE_ARRAY ? 0 : v->count < SHOWN ? v->count : SHOWN;
    size_t at = 0, bytes;
    if (v->type == FLASH_VALUE_ARRAY) printf(" %llu items:", (unsigned long long)v->count);
    for (uint64_t i = 0; i < n; i++) {
        const char *text = flash_value_string(v, &at, &bytes);
        putchar(' ');
        if (text) {
            putchar('"');
            print_text(text, bytes, 60);
            putchar('"');
        } else if (v->item == FLASH_VALUE_BOOL) {
            printf(flash_value_integer(v, i) ? "true" : "false");
        } else if (v->item == FLASH_VALUE_F32 || v->item == FLASH_VALUE_F64) {
            printf("%.9g", flash_value_number(v, i));
        } else if (v->item == FLASH_VALUE_U64) {
            printf("%llu", (unsigned long long)flash_value_integer(v, i));
        } else {
            printf("%lld", (long long)flash_value_integer(v, i));
        }
    }
    puts(v->count > n ? " ..." : "");
}

static void print_type(const flash_tensor *t)
{
    if (t->type == FLASH_TYPE_NONE)
        printf("type %lu", (unsigned long)t->type_id);
    else
        printf("%s", flash_type_name(t->type));
}

/* Prints how many tensors have which type, and returns the number of their weights. */
static uint64_t print_types(const flash_gguf *g)
{
    enum { IDS = 64 }; /* the last one collects all larger ids */
    struct {
        flash_tensor first;
        uint64_t tensors, bytes;
    } of[IDS] = {{{0}, 0, 0}};
    uint64_t weights = 0;
    flash_tensor t;
    char size[24];
    for (size_t i = 0; !flash_gguf_tensor(g, i, &t); i++) {
        uint32_t id = t.type_id < IDS ? t.type_id : IDS - 1;
        if (!of[id].tensors++) of[id].first = t;
        of[id].bytes += t.bytes;
        weights += t.ne[0] * t.ne[1] * t.ne[2] * t.ne[3];
    }
    for (int id = 0; id < IDS; id++) {
        if (!of[id].tensors) continue;
        printf("tensors       ");
        print_type(&of[id].first);
        printf(" %llu, %s\n", (unsigned long long)of[id].tensors, cli_size(of[id].bytes, size));
    }
    return weights;
}

static void print_tokenizer(const flash_gguf *g, const flash_model *m)
{
    flash_value v;
    printf("tokenizer    ");
    print_string(g, "tokenizer.ggml.model");
    print_string(g, "tokenizer.ggml.pre");
    if (flash_gguf_find(g, "tokenizer.ggml.tokens", &v))
        printf(" none");
    else
        printf(", %llu tokens", (unsigned long long)v.count);
    if (m && flash_token_bos(m) >= 0) printf(", BOS %ld", (long)flash_token_bos(m));
    if (m && flash_token_eos(m) >= 0) printf(", EOS %ld", (long)flash_token_eos(m));
    putchar('\n');
}

static void print_model(const flash_model *m, const flash_model_desc *md, flash_session_desc *sd)
{
    const flash_arch *a = flash_model_arch(m);
    char size[24], kv[24];
    int alike = 1;
    for (int i = 1; i < a->n_layer; i++)
        alike &= !memcmp(&a->layer[i], &a->layer[0], sizeof a->layer[0]);
    printf("shape         %d layers, d_model %d, %d heads of %d, %d of keys and values, d_ffn %ld%s"
           ", vocabulary %d, context %d\n",
           a->n_layer, a->d_model, a->layer[0].n_head, a->d_head, a->layer[0].n_kv_head,
           (long)a->layer[0].d_ffn, alike ? "" : " (first layer)", a->n_vocab, a->n_ctx);
    printf("attention     ");
    cli_print_attention(a);
    putchar('\n');
    if (!sd->n_ctx) sd->n_ctx = a->n_ctx < 4096 ? a->n_ctx : 4096;
    printf("memory        file %s", cli_size(flash_gguf_size(flash_model_gguf(m)), size));
    printf(", model %s", cli_size(flash_model_memory(md, NULL), size));
    printf(", session of %d tokens %s (keys and values %s)\n", sd->n_ctx,
           cli_size(flash_session_memory(m, sd), size),
           cli_size(flash_arch_kv_bytes(a, sd->n_ctx, sd->chunk, FLASH_TYPE_F32), kv));
}

static void print_tensors(const flash_gguf *g)
{
    flash_tensor t;
    printf("tensors: type, shape (row first), bytes, offset in the file, name\n");
    for (size_t i = 0; !flash_gguf_tensor(g, i, &t); i++) {
        printf("  ");
        print_type(&t);
        for (int d = 0; d < t.n_dims; d++)
            printf(d ? "x%llu" : "  %llu", (unsigned long long)t.ne[d]);
        printf("  %llu  %llu  ", (unsigned long long)t.bytes, (unsigned long long)t.offset);
        print_text(t.name, t.name_bytes, 64);
        putchar('\n');
    }
}

int cmd_info(int argc, char **argv)
{
    int tensors = 0;
    char size[24];
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    flash_model *m;
    flash_gguf *own = NULL; /* the file, if it is no model */
    flash_error err, why = {0};
    flash_value v;
    const cli_option options[] = {
        {"--tensors", NULL, CLI_FLAG, &tensors, 0, 0, "list type, shape, bytes, offset, name"},
        {"-c", "CTX", CLI_INT, &sd.n_ctx, 1, FLASH_CONTEXT_MAX,
         "count the memory for this context (as trained, at most 4096)"},
        CLI_ATTN_OPTION(md),
        CLI_PRE_OPTION(md),
        {0}};
    md.source.path = cli_parse(
        argc, argv, options,
        "Also says what a file is that cannot run, and why; fails only if it is broken.\n");

    int runs = !flash_model_load(&m, &md, &why);
    if (!runs) {
        md.vocab_only = md.source.headers = 1; /* a broken download is described, too */
        if (flash_model_load(&m, &md, &err) && flash_gguf_open(&own, &md.source, NULL, &err))
            cli_fail_file(md.source.path, &err);
    }
    const flash_gguf *g = m ? flash_model_gguf(m) : own;
    printf("file          %s, %s, GGUF v%d, %lu keys, %lu tensors\n", md.source.path,
           cli_size(flash_gguf_size(g), size), flash_gguf_version(g),
           (unsigned long)flash_gguf_keys(g), (unsigned long)flash_gguf_tensors(g));
    printf("architecture ");
    print_string(g, "general.architecture");
    putchar('\n');

    uint64_t weights = print_types(g);
    if (runs) weights = flash_arch_params(flash_model_arch(m));
    printf("parameters    %llu\n", (unsigned long long)weights);
    print_tokenizer(g, m);
    if (runs) print_model(m, &md, &sd);
    printf("runs          %s%s\n", runs ? "yes, best here with " : "no: ",
           runs ? flash_isa_name(flash_isa_best()) : why.text);
    puts("keys");
    for (size_t i = 0; !flash_gguf_key(g, i, &v); i++) {
        printf("  ");
        print_text(v.key, v.key_bytes, 64);
        printf(" =");
        print_value(&v);
    }
    if (tensors) print_tensors(g);
    flash_gguf_free(own);
    flash_model_free(m);
    return 0;
}
