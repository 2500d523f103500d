/* vocabulary.c - vocabularies learned from text, see vocabulary.h. */
#include "vocabulary.h"
#include <stdlib.h>
#include <string.h>

static const char space[] = "\xE2\x96\x81"; /* U+2581, which stands for a space in tokens */

static void *need(void *p)
{
    if (!p) cli_fail("out of memory");
    return p;
}

void cli_vocabulary_create(cli_vocabulary *v, int n)
{
    static const char *const control[] = {"<unk>", "<s>", "</s>"};
    v->from = NULL;
    v->n = n;
    v->token = need(malloc((size_t)n * sizeof *v->token));
    v->score = need(calloc((size_t)n, sizeof *v->score));
    v->type = need(malloc((size_t)n * sizeof *v->type));
    char *text = need(calloc((size_t)n, CLI_TOKEN_BYTES));
    for (int i = 0; i < n; i++, text += CLI_TOKEN_BYTES) {
        v->token[i] = text;
        if (i < CLI_VOCABULARY_CONTROL)
            strcpy(text, control[i]);
        else if (i < CLI_VOCABULARY_FIXED)
            snprintf(text, CLI_TOKEN_BYTES, "<0x%02X>", (unsigned)(i - CLI_VOCABULARY_CONTROL));
        else
            v->score[i] = (float)(CLI_VOCABULARY_FIXED - i);
        v->type[i] = i == 0 ? 2 : i < CLI_VOCABULARY_CONTROL ? 3 : i < CLI_VOCABULARY_FIXED ? 6 : 1;
    }
}

void cli_vocabulary_free(cli_vocabulary *v)
{
    if (v->n) free((void *)v->token[0]);
    free(v->token);
    free(v->score);
    free(v->type);
}

/* Copies the tokenizer's keys of a file (w NULL: does not) and returns how many there are. */
static uint32_t copy_keys(const flash_gguf *from, flash_gguf_writer *w)
{
    flash_value key;
    uint32_t n = 0;
    for (size_t i = 0; !flash_gguf_key(from, i, &key); i++)
        if (key.key_bytes > 10 && !memcmp(key.key, "tokenizer.", 10)) {
            n++;
            if (w) flash_gguf_write_value(w, &key);
        }
    return n;
}

uint32_t cli_vocabulary_keys(const cli_vocabulary *v)
{
    return v->from ? copy_keys(v->from, NULL) : 7;
}

void cli_vocabulary_write(const cli_vocabulary *v, flash_gguf_writer *w)
{
    if (v->from) {
        copy_keys(v->from, w);
        return;
    }
    flash_gguf_write_string(w, "tokenizer.ggml.model", "llama");
    flash_gguf_write_strings(w, "tokenizer.ggml.tokens", v->token, NULL, (size_t)v->n);
    flash_gguf_write_array(w, "tokenizer.ggml.scores", FLASH_VALUE_F32, v->score, (size_t)v->n);
    flash_gguf_write_array(w, "tokenizer.ggml.token_type", FLASH_VALUE_I32, v->type, (size_t)v->n);
    flash_gguf_write_u32(w, "tokenizer.ggml.bos_token_id", 1);
    flash_gguf_write_u32(w, "tokenizer.ggml.eos_token_id", 2);
    flash_gguf_write_u32(w, "tokenizer.ggml.unknown_token_id", 0);
}

/* ---- learning ------------------------------------------------------------------------- */

/* A table is a hash table of counts, with open addressing. The key of a text is its text_key; the
   key of a pair is its two symbols, and text is NULL. */
typedef struct entry {
    uint64_t key;
    const char *text;
    long count; /* 0 also for pairs that are merged */
    int used;   /* 0: free */
} entry;

typedef struct table {
    entry *at;       /* [slots] */
    size_t slots, n; /* n: entries in use */
} table;

/* Returns the entry of a key, a new one with count 0 if there is none. */
static entry *look(table *t, uint64_t key, const char *text, size_t bytes)
{
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    if (2 * t->n >= t->slots) { /* moves all entries to a table of twice the size */
        table more = {NULL, t->slots ? 2 * t->slots : 1024, 0};
        more.at = need(calloc(more.slots, sizeof *more.at));
        for (size_t i = 0; i < t->slots; i++)
            if (t->at[i].used)
                *look(&more, t->at[i].key, t->at[i].text, (size_t)(t->at[i].key >> 40)) = t->at[i];
        free(t->at);
        *t = more;
    }
    for (size_t i = (size_t)(h >> 20) % t->slots;; i = (i + 1) % t->slots) {
        entry *e = t->at + i;
        if (!e->used) {
            e->used = 1;
            e->key = key;
            e->text = text;
            t->n++;
            return e;
        }
        if (e->key == key && (!text || !memcmp(e->text, text, bytes))) return e;
    }
}

typedef struct word {
    int *symbol, n;
    long count;
} word;

typedef struct learner {
    cli_vocabulary *v;
    int known; /* number of tokens that are set */
    table words, pairs;
    word *word;
    size_t n_words;
} learner;

enum class { LETTER, DIGIT, BLANK, MARK };

static enum class class_of(const char *p) {
    unsigned char c = (unsigned char)*p; return (c | 32) >= 'a' && (c | 32) <= 'z' ? LETTER
        : c >= 0x80                                                                ? LETTER
        : c >= '0' && c <= '9'                                                     ? DIGIT
        : c <= ' '                                                                 ? BLANK
                                                                                   : MARK;
}

/* Returns the end of the piece of text at p: a word, with a space or an apostrophe before it, a
   digit, or marks. No token reaches beyond a piece. */
static const char *piece_end(const char *p, const char *end)
{
    const char *from = p;
    if (*p == ' ' && p + 1 < end && class_of(p + 1) != BLANK) p++;
    if (*p == '\'' && p == from && p + 1 < end && class_of(p + 1) == LETTER) p++;
    enum class c = class_of(p);
    p++;
    if (c == LETTER || c == MARK)
        while (p < end && class_of(p) == c) p++;
    return p;
}

/* Returns the length of the UTF-8 character at p [B]. */
static size_t character(const char *p, const char *end)
{
    size_t n = 1;
    while (p + n < end && ((unsigned char)p[n] & 0xC0) == 0x80) n++;
    return n;
}

/* Returns the low 40 bits of the FNV-1a hash of a text, and its length above them. */
static uint64_t text_key(const char *p, size_t bytes)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ (unsigned char)p[i]) * 1099511628211u;
    return (h & 0xffffffffffu) | (uint64_t)bytes << 40;
}

static int by_count(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    size_t n = (size_t)(x->key >> 40), m = (size_t)(y->key >> 40);
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    int order = memcmp(x->text, y->text, n < m ? n : m);
    return order ? order : (n > m) - (n < m);
}

/* Sorts the entries in use, the most frequent first. After that look cannot find them. */
static void sort_table(table *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->slots; i++)
        if (t->at[i].used) t->at[n++] = t->at[i];
    qsort(t->at, n, sizeof *t->at, by_count);
}

/* Makes tokens of the characters that are frequent enough, and counts the words, which become lists
   of symbols: a token, or -1 for a character that stays bytes and is merged with nothing. */
static void begin(learner *l, const char *text, size_t bytes)
{
    const char *end = text + bytes;
    table chars = {0};
    long total = 0;
    for (const char *p = text, *q; p < end; p = q) {
        q = p + sizeof CLI_TEXT_END - 1;
        if (*p == '<' && (size_t)(end - p) >= sizeof CLI_TEXT_END - 1
            && !memcmp(p, CLI_TEXT_END, sizeof CLI_TEXT_END - 1))
            continue;
        q = piece_end(p, end);
        size_t n = (size_t)(q - p);
        look(&l->words, text_key(p, n), p, n)->count++;
        for (; p < q; p += n, total++) {
            n = character(p, q);
            if (n <= 4 && (unsigned char)*p >= ' ') look(&chars, text_key(p, n), p, n)->count++;
        }
    }
    sort_table(&chars);
    table ids = {0};
    for (size_t i = 0; i < chars.n && l->known < l->v->n; i++) {
        if (chars.at[i].count <= total / 20000) break;
        size_t n = (size_t)(chars.at[i].key >> 40);
        const char *p = chars.at[i].text;
        look(&ids, chars.at[i].key, p, n)->count = l->known;
        memcpy((char *)l->v->token[l->known++], *p == ' ' ? space : p, *p == ' ' ? 3 : n);
    }
    sort_table(&l->words);
    l->n_words = l->words.n;
    l->word = need(calloc(l->n_words + 1, sizeof *l->word));
    for (size_t i = 0; i < l->n_words; i++) {
        word *w = l->word + i;
        size_t n = (size_t)(l->words.at[i].key >> 40);
        const char *p = l->words.at[i].text, *q = p + n;
        w->symbol = need(malloc(n * sizeof *w->symbol));
        w->count = l->words.at[i].count;
        for (; p < q; p += n) {
            n = character(p, q);
            int id = (int)look(&ids, text_key(p, n), p, n)->count;
            w->symbol[w->n++] = id ? id : -1;
        }
    }
    free(chars.at);
    free(ids.at);
}

/* Adds count to all pairs of neighbours in w. */
static void count_pairs(learner *l, const word *w, long count)
{
    for (int i = 0; i + 1 < w->n; i++)
        if (w->symbol[i] >= 0 && w->symbol[i + 1] >= 0) {
            uint64_t key = (uint64_t)w->symbol[i] << 32 | (uint64_t)w->symbol[i + 1];
            look(&l->pairs, key, NULL, 0)->count += count;
        }
}

/* Returns the most frequent pair whose token is not too long; of equally frequent ones, that of the
   oldest tokens. NULL: no pair comes twice. */
static const entry *best_pair(const learner *l)
{
    const entry *best = NULL;
    for (size_t i = 0; i < l->pairs.slots; i++) {
        const entry *e = l->pairs.at + i;
        if (e->count < 2
            || (best
                && (e->count < best->count || (e->count == best->count && e->key > best->key))))
            continue;
        const char *a = l->v->token[e->key >> 32], *b = l->v->token[e->key & 0xffffffff];
        if (strlen(a) + strlen(b) < CLI_TOKEN_BYTES) best = e;
    }
    return best;
}

/* Makes a token of the pair a, b, and replaces the pair in all words. */
static void merge(learner *l, int a, int b)
{
    snprintf((char *)l->v->token[l->known], CLI_TOKEN_BYTES, "%s%s", l->v->token[a],
             l->v->token[b]);
    for (size_t i = 0; i < l->n_words; i++) {
        word *w = l->word + i;
        int k = 0, n = 0;
        while (k + 1 < w->n && (w->symbol[k] != a || w->symbol[k + 1] != b)) k++;
        if (k + 1 >= w->n) continue;
        count_pairs(l, w, -w->count);
        for (k = 0; k < w->n; k++)
            if (k + 1 < w->n && w->symbol[k] == a && w->symbol[k + 1] == b) {
                w->symbol[n++] = l->known;
                k++;
            } else {
                w->symbol[n++] = w->symbol[k];
            }
        w->n = n;
        count_pairs(l, w, w->count);
    }
    l->known++;
}

void cli_vocabulary_learn(cli_vocabulary *v, int n, const char *text, size_t bytes)
{
    learner l = {0};
    const entry *e;
    cli_vocabulary_create(v, n);
    l.v = v;
    l.known = CLI_VOCABULARY_FIXED;
    cli_progress("vocabulary", 0, n);
    begin(&l, text, bytes);
    for (size_t i = 0; i < l.n_words; i++) count_pairs(&l, l.word + i, l.word[i].count);
    for (; l.known < n && (e = best_pair(&l)) != NULL; cli_progress("vocabulary", l.known, n))
        merge(&l, (int)(e->key >> 32), (int)(e->key & 0xffffffff));
    if (l.known < n)
        cli_fail("the text has pairs for a vocabulary of %d, not %d: ask for fewer, or give more "
                 "text",
                 l.known, n);
    for (size_t i = 0; i < l.n_words; i++) free(l.word[i].symbol);
    free(l.word);
    free(l.words.at);
    free(l.pairs.at);
}
