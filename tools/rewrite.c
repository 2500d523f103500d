/* rewrite.c - rewrites a model file with another attention or as another architecture, see
   rewrite.h. */
#include "rewrite.h"
#include <stdlib.h>
#include <string.h>

typedef struct job {
    const char *in, *to; /* file that is read; architecture to write, deci or flash */
    const flash_gguf *g;
    flash_arch a; /* with the new attention */
    flash_gguf_writer w;
    int counting; /* 1: keys are only counted, not written */
    uint32_t keys;
    double done, total; /* weights written, to write [B] */
} job;

/* ---- what to change ------------------------------------------------------------ */

static void change_all(job *k, const char *pattern)
{
    flash_error err;
    if (flash_attention_parse(&k->a, pattern, &err)) cli_fail("%s: %s", k->in, err.text);
}

static void change_layer(job *k, int layer, const char *attention)
{
    char pattern[5 * FLASH_LAYERS_MAX + 64];
    size_t n = 0;
    for (int l = 0; l < k->a.n_layer; l++)
        n += (size_t)snprintf(pattern + n, sizeof pattern - n, "%s%s", l ? "," : "",
                              l == layer ? attention : "keep");
    change_all(k, pattern);
}

/* Changes the layers of a list: "2,4-6" of --skip or, with window 1, "1,3-5:256,7:512" of --window:
   a window is for all layers listed since the last one. */
static void change_layers(job *k, const char *option, const char *text, int window)
{
    unsigned char chosen[FLASH_LAYERS_MAX] = {0};
    char attention[32] = "skip";
    for (const char *p = text;; p++) {
        long first = cli_number(&p), last = *p == '-' ? (p++, cli_number(&p)) : first;
        if (first < 0 || last < first || last >= k->a.n_layer) break;
        memset(chosen + first, 1, (size_t)(last - first) + 1);
        if (window && *p == ',') /* their window comes later in the list */
            continue;
        if (window) {
            size_t n = strcspn(p, ",");
            if (*p != ':' || n > 20) break;
            snprintf(attention, sizeof attention, "window%.*s", (int)n, p);
            p += n;
        }
        for (int l = 0; l < k->a.n_layer; l++)
            if (chosen[l]) change_layer(k, l, attention);
        memset(chosen, 0, sizeof chosen);
        if (!*p) return;
        if (*p != ',') break;
    }
    cli_usage("%s %s: want %s, of layers 0 to %d", option, text, window ? "1,3-5:256" : "2,4-6",
              k->a.n_layer - 1);
}

/* ---- which architecture can describe the model --------------------------------- */

/* Returns 1 if queries or keys of a layer are normed. */
static int has_norms(const job *k, int layer)
{
    char q[64], key[64];
    flash_tensor t;
    snprintf(q, sizeof q, "blk.%d.attn_q_norm.weight", layer);
    snprintf(key, sizeof key, "blk.%d.attn_k_norm.weight", layer);
    return k->a.layer[layer].n_head
        && (k->a.qk_norm || !flash_gguf_find_tensor(k->g, q, &t)
            || !flash_gguf_find_tensor(k->g, key, &t));
}

/* Returns the RoPE base that all layers with keys have; 0 if they differ. */
static float one_base(const flash_arch *a)
{
    float base = -1;
    for (const flash_layer *y = a->layer; y < a->layer + a->n_layer; y++)
        if (y->n_head) base = base < 0 || base == y->rope_base ? y->rope_base : 0;
    return base < 0 ? a->rope_base : base;
}

/* Returns why neither deci nor flash can describe the model, in why if need be; NULL if flash
   can. */
static const char *not_flash(const job *k, char why[128])
{
    static const struct {
        const char *arch, *why;
    } known[] = {
        {"llama", NULL},
        {"deci", NULL},
        {"flash", NULL},
        {"qwen2", NULL},
        {"qwen3", NULL},
        {"smollm3", NULL},
        {"llama4", NULL},
        {"gemma3", "gemma3 norms what attention and FFN add, and has GELU"},
        {"lfm2", "lfm2 has short convolutions"},
    };
    const flash_arch *a = &k->a;
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(known[i].arch, a->name)) i++;
    if (i == sizeof known / sizeof *known) return "its architecture has what is not known here";
    if (known[i].why) return known[i].why;
    if (a->qk_norm && (a->rope_scaling == FLASH_ROPE_YARN || a->rope_attn_factor != 1))
        return "queries and keys are normed after a RoPE that scales them";
    for (int l = 0; l < a->n_layer; l++) {
        const flash_layer *y = &a->layer[l];
        const char *what = y->attention == FLASH_ATTENTION_CHUNK ? "attends within chunks"
            : y->n_head && y->rope_base == 0 && a->temperature_n_ctx
            ? "has queries that grow with the position"
            : NULL;
        if (!what) continue;
        snprintf(why, 128, "layer %d %s", l, what);
        return why;
    }
    return NULL;
}

/* Returns why deci cannot describe the model, or why programs that read deci cannot run it; NULL if
   they can. The latter was observed with llama.cpp: it takes the head size from layer 0, does not
   open a last layer without FFN, and drops the attention of other layers without FFN. */
static const char *not_deci(const job *k, char why[128])
{
    const flash_arch *a = &k->a;
    const flash_layer *first = NULL; /* the first layer with keys */
    for (int l = 0; l < a->n_layer; l++) {
        const flash_layer *y = &a->layer[l];
        if (y->n_head && !first) first = y;
        const char *what = !l && y->attention == FLASH_ATTENTION_SKIP
            ? "skips attention, which deci readers cannot"
            : y->attention == FLASH_ATTENTION_WINDOW ? "has a window, which deci cannot say"
            : has_norms(k, l)                ? "norms queries and keys, which deci cannot say"
            : y->n_head && y->rope_base == 0 ? "has no RoPE, which deci cannot say"
            : y->n_head && y->rope_base != first->rope_base
            ? "has a RoPE of another base than others, which deci cannot say"
            : y->attention != FLASH_ATTENTION_SKIP && !y->d_ffn
            ? "has attention and no FFN, which deci readers take for nothing"
            : l == a->n_layer - 1 && !y->d_ffn
            ? "is the last and has no FFN, which deci readers cannot"
            : NULL;
        if (!what) continue;
        snprintf(why, 128, "layer %d %s", l, what);
        return why;
    }
    return a->rope_dims == a->d_head ? NULL
                                     : "RoPE turns a part of each head, which deci cannot say";
}

/* ---- keys ---------------------------------------------------------------------- */

/* Counts a key and returns "deci.name", in text, or NULL if keys are only counted. */
static const char *key(job *k, const char *name, char text[80])
{
    k->keys++;
    snprintf(text, 80, "%s.%s", k->to, name);
    return k->counting ? NULL : text;
}

static void set_int(job *k, const char *name, int v)
{
    char text[80];
    if (key(k, name, text)) flash_gguf_write_u32(&k->w, text, (uint32_t)v);
}

static void set_list(job *k, const char *name, flash_value_type item, const void *list)
{
    char text[80];
    if (key(k, name, text)) flash_gguf_write_array(&k->w, text, item, list, (size_t)k->a.n_layer);
}

static void set_own(job *k)
{
    const flash_arch *a = &k->a;
    int32_t heads[FLASH_LAYERS_MAX], kv[FLASH_LAYERS_MAX], ffn[FLASH_LAYERS_MAX];
    int32_t pattern[FLASH_LAYERS_MAX], window[FLASH_LAYERS_MAX];
    float bases[FLASH_LAYERS_MAX], base = one_base(a);
    int windows = 0;
    char text[80];
    for (int l = 0; l < a->n_layer; l++) {
        const flash_layer *y = &a->layer[l];
        /* A linear layer is written as one with heads, which it does not use, and without key/value
           heads. */
        heads[l] = y->attention == FLASH_ATTENTION_LINEAR ? (a->d_model - 1) / a->d_head + 1
                                                          : y->n_head;
        kv[l] = y->n_kv_head;
        ffn[l] = y->d_ffn;
        pattern[l] = y->attention == FLASH_ATTENTION_WINDOW ? 1
            : y->attention == FLASH_ATTENTION_SKIP          ? 2
                                                            : 0;
        window[l] = pattern[l] == 1 ? y->window : 0;
        windows |= window[l];
        bases[l] = y->rope_base;
    }
    set_list(k, "feed_forward_length", FLASH_VALUE_I32, ffn);
    set_list(k, "attention.head_count", FLASH_VALUE_I32, heads);
    set_list(k, "attention.head_count_kv", FLASH_VALUE_I32, kv);
    set_int(k, "attention.key_length", a->d_head);
    set_int(k, "attention.value_length", a->d_head);
    set_int(k, "rope.dimension_count", a->rope_dims);
    if (base == 0)
        set_list(k, "rope.freq_base", FLASH_VALUE_F32, bases);
    else if (key(k, "rope.freq_base", text))
        flash_gguf_write_f32(&k->w, text, base);
    if (!strcmp(k->to, "flash")) set_list(k, "attention.pattern", FLASH_VALUE_I32, pattern);
    if (windows) set_list(k, "attention.sliding_window", FLASH_VALUE_I32, window);
}

static int begins(const flash_value *v, const char *with)
{
    return v->key_bytes >= strlen(with) && !memcmp(v->key, with, strlen(with));
}

/* Returns 1 for a key that is not copied: one that is written anew, or that only the old
   architecture has. The lists hold beginnings of names. general.alignment is dropped, as the new
   file has the default of 32. */
static int is_dropped(const job *k, const flash_value *v)
{
    static const char *const general[] = {"general.architecture", "general.alignment"};
    static const char *const own[] = {
        "attention.head_count",      "attention.key_length",     "attention.value_length",
        "attention.pattern",         "attention.sliding_window", "feed_forward_length",
        "rope.dimension_count",      "rope.freq_base",           "expert_",
        "interleave_moe_layer_step",
    };
    char text[80];
    for (size_t i = 0; i < sizeof general / sizeof *general; i++)
        if (begins(v, general[i])) return 1;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        snprintf(text, sizeof text, "%s.%s", k->a.name, own[i]);
        if (begins(v, text)) return 1;
    }
    return 0;
}

/* Copies or counts all keys that are not dropped; "qwen2.name" becomes "deci.name". */
static void copy_keys(job *k)
{
    char from[40], text[1024];
    flash_value v;
    snprintf(from, sizeof from, "%s.", k->a.name);
    for (size_t i = 0; !flash_gguf_key(k->g, i, &v); i++) {
        size_t old = strlen(from), n = strlen(k->to);
        if (is_dropped(k, &v)) continue;
        if (begins(&v, from)) {
            n += 1 + v.key_bytes - old;
            if (n >= sizeof text) cli_fail("%s: a key with a strange name: %.60s", k->in, v.key);
            snprintf(text, sizeof text, "%s.%.*s", k->to, (int)(v.key_bytes - old), v.key + old);
            v.key = text;
            v.key_bytes = n;
        }
        k->keys++;
        if (!k->counting) flash_gguf_write_value(&k->w, &v);
    }
}

/* ---- tensors --------------------------------------------------------------------- */

/* Returns what follows "blk.N." in the name of a tensor, and sets *layer to N; "" if it is in no
   layer. Valid until the next call. */
static const char *part_of(const flash_tensor *t, int *layer)
{
    const char *name = cli_tensor_name(t),
               *dot = strncmp(name, "blk.", 4) ? NULL : strchr(name + 4, '.');
    *layer = dot ? atoi(name + 4) : 0;
    return dot ? dot + 1 : "";
}

int cli_skipped(const flash_arch *a, const flash_tensor *t)
{
    int layer;
    return !strncmp(part_of(t, &layer), "attn_", 5)
        && a->layer[layer].attention == FLASH_ATTENTION_SKIP;
}

/* Returns 1 if the rows of each head must change places: RoPE of the model rotates halves, that of
   deci and flash rotates pairs. */
static int is_turned(const job *k, const flash_tensor *t)
{
    static const char *const turned[] = {"attn_q", "attn_k", "attn_q_norm", "attn_k_norm"};
    int layer;
    const char *part = part_of(t, &layer);
    size_t n = strcspn(part, ".");
    for (int i = 0; i < 4 && k->a.rope_style == FLASH_ROPE_HALVES; i++)
        if (n == strlen(turned[i]) && !strncmp(part, turned[i], n)) return 1;
    return 0;
}

/* Norms without weights become tensors of ones, two for each layer with RoPE. Announces them or
   (announce 0) writes their data. */
static void write_ones(job *k, int announce)
{
    static const char *const names[] = {"attn_q_norm.weight", "attn_k_norm.weight"};
    float ones[FLASH_HEAD_MAX];
    uint8_t bytes[4 * FLASH_HEAD_MAX];
    uint64_t n = (uint64_t)k->a.d_head;
    char name[64];
    for (int i = 0; i < k->a.d_head; i++) ones[i] = 1;
    flash_quantize(FLASH_TYPE_F32, ones, bytes, (size_t)n);
    for (int l = 0; l < k->a.n_layer; l++)
        for (int i = 0; i < 2 && k->a.qk_norm && k->a.layer[l].n_head; i++) {
            snprintf(name, sizeof name, "blk.%d.%s", l, names[i]);
            if (announce)
                flash_gguf_write_tensor(&k->w, name, FLASH_TYPE_F32, 1, &n);
            else
                flash_gguf_write_data(&k->w, bytes, 4 * (size_t)n, 1);
        }
}

static uint32_t count_tensors(job *k)
{
    flash_tensor t;
    uint32_t n = 0;
    for (size_t i = 0; !flash_gguf_tensor(k->g, i, &t); i++) {
        if (cli_skipped(&k->a, &t)) continue;
        n++;
        k->total += (double)t.bytes;
    }
    for (int l = 0; l < k->a.n_layer; l++) n += k->a.qk_norm && k->a.layer[l].n_head ? 2 : 0;
    return n;
}

static void write_infos(job *k)
{
    flash_tensor t;
    for (size_t i = 0; !flash_gguf_tensor(k->g, i, &t); i++)
        if (!cli_skipped(&k->a, &t))
            flash_gguf_write_tensor(&k->w, cli_tensor_name(&t), t.type, t.n_dims, t.ne);
    write_ones(k, 1);
}

static void write_weights(job *k)
{
    enum { STRETCH = 1 << 20 };
    uint64_t C = (uint64_t)k->a.d_head, R = (uint64_t)k->a.rope_dims;
    flash_tensor t;
    cli_progress("write", 0, k->total);
    for (size_t i = 0; !flash_gguf_tensor(k->g, i, &t); i++) {
        int turned = is_turned(k, &t);
        /* Unit to move: a row, which is whole blocks of any type, or an item of a vector, which is
           F32 in all models that can be loaded. */
        uint64_t n = !turned ? STRETCH : t.ne[1] > 1 ? t.bytes / t.ne[1] : 4;
        const uint8_t *used = t.data;
        if (cli_skipped(&k->a, &t)) continue;
        for (uint64_t at = 0; at < t.bytes && !k->w.status; at += n) {
            uint64_t from = at, row = at / n, j = row % C;
            n = t.bytes - at < n ? t.bytes - at : n;
            if (turned && j < R) /* rows i and i + R/2 of the halves become the pair 2i, 2i + 1 */
                from = (row - j + j / 2 + j % 2 * (R / 2)) * n;
            flash_gguf_write_data(&k->w, t.data + (size_t)from, (size_t)n, at + n == t.bytes);
            k->done += (double)n;
            cli_progress("write", k->done, k->total);
            if (!turned || at + n == t.bytes) cli_forget(&used, t.data + (size_t)(at + n));
        }
    }
    write_ones(k, 0);
}

void cli_rewrite(const char *in, const char *out, const cli_change *change)
{
    cli_rewrite_image(NULL, in, out, change);
}

void cli_rewrite_image(const cli_image *image, const char *in, const char *out,
                       const cli_change *change)
{
    static job k; /* static as it is large */
    flash_model_desc md = {0};
    flash_model *m;
    flash_error err;
    char why[128] = "", size[2][24];
    const char *reason;
    if (change->arch && strcmp(change->arch, "deci") && strcmp(change->arch, "flash"))
        cli_usage("--arch %s: want deci or flash", change->arch);
    if (cli_same_file(in, out)) cli_usage("OUT is IN, %s", in);
    if (image) {
        md.source.data = image->data;
        md.source.bytes = image->bytes;
    } else {
        md.source.path = in;
    }
    md.any_pretokenizer = 1; /* no text is tokenized here */
    if (flash_model_load(&m, &md, &err)) cli_fail_file(in, &err);
    memset(&k, 0, sizeof k);
    k.in = in;
    k.g = flash_model_gguf(m);
    k.a = *flash_model_arch(m);
    if (change->attention) change_all(&k, change->attention);
    if (change->skip) change_layers(&k, "--skip", change->skip, 0);
    if (change->window) change_layers(&k, "--window", change->window, 1);

    reason = not_flash(&k, why);
    if (reason) cli_fail("%s: %s, which neither deci nor flash can say", in, reason);
    k.to = change->arch ? change->arch : "deci";
    reason = strcmp(k.to, "deci") ? NULL : not_deci(&k, why);
    if (reason && change->arch) cli_fail("%s: %s", in, reason);
    if (reason) {
        cli_note("%s: written as flash", reason);
        k.to = "flash";
    }

    cli_create(out, &k.w);
    k.counting = 1;
    copy_keys(&k);
    set_own(&k);
    flash_gguf_write_begin(&k.w, k.keys + 1, count_tensors(&k));
    k.counting = 0;
    flash_gguf_write_string(&k.w, "general.architecture", k.to);
    copy_keys(&k);
    set_own(&k);
    write_infos(&k);
    write_weights(&k);
    cli_finish(out, &k.w);
    printf("%s: %s, ", out, k.to);
    cli_print_attention(&k.a);
    printf("; %s, was %s\n", cli_size(k.w.written, size[0]),
           cli_size(flash_gguf_size(k.g), size[1]));
    flash_model_free(m);
}
