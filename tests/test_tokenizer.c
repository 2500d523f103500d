/* Tokenizers: published token ids, round trips, word splits worked out by hand from the published
   regular expressions, streaming, and texts made to be slow. */
#include "../flash.h"
#include "mkmodel.h"
#include "test.h"
#include <time.h>

static const char *const vocabs[] = {"gpt-2", "llama-spm", "phi-3",
                                     "qwen2", "starcoder", "deepseek-coder"};
enum { N_VOCABS = sizeof vocabs / sizeof *vocabs };

static flash_model *load_vocab(const char *path)
{
    flash_model_desc d = {0};
    flash_model *m = NULL;
    flash_error err = {FLASH_OK, 0, ""};
    d.source.path = path;
    d.vocab_only = 1;
    if (!CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK)) printf("    %s: %s\n", path, err.text);
    return m;
}

/* Returns the tokens of a text, which the caller frees. */
static int32_t *encode(const flash_model *m, const char *text, size_t bytes, unsigned flags,
                       size_t *n)
{
    size_t cap = bytes + 8;
    int32_t *ids = (int32_t *)malloc(cap * sizeof *ids);
    *n = 0;
    CHECK_EQ(flash_tokenize(m, text, bytes, flags, ids, cap, n), FLASH_OK);
    return ids;
}

/* Returns the text of n tokens and a NUL behind it. The caller frees it. */
static char *decode(const flash_model *m, const int32_t *ids, size_t n, unsigned flags,
                    size_t *bytes)
{
    *bytes = 0;
    flash_detokenize(m, ids, n, flags, NULL, 0, bytes);
    size_t cap = *bytes, again = 0;
    char *text = (char *)malloc(cap + 1);
    CHECK_EQ(flash_detokenize(m, ids, n, flags, text, cap, &again), FLASH_OK);
    CHECK_EQ(again, cap);
    text[cap] = 0;
    return text;
}

static int valid_utf8(const char *text, size_t bytes)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + bytes;
    while (p < end) {
        int n = *p < 0x80             ? 1
            : *p >= 0xc2 && *p < 0xe0 ? 2
            : *p >= 0xe0 && *p < 0xf0 ? 3
            : *p >= 0xf0 && *p < 0xf5 ? 4
                                      : 0;
        if (!n || end - p < n) return 0;
        for (int i = 1; i < n; i++)
            if ((p[i] & 0xc0) != 0x80) return 0;
        if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f)
            || (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f)) {
            return 0;
        }
        p += n;
    }
    return 1;
}

/* --- published ids -------------------------------------------------------------------------- */

static void test_published(const flash_model *m, const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char rel[128];
    size_t in_bytes, out_bytes;
    snprintf(rel, sizeof rel, "tokenizers/ggml-vocab-%s.gguf.inp", name);
    char *in = (char *)test_read(test_shared(rel), &in_bytes);
    snprintf(rel, sizeof rel, "tokenizers/ggml-vocab-%s.gguf.out", name);
    char *out = (char *)test_read(test_shared(rel), &out_bytes), *line = out;
    SECTION(name);
    if (!in || !out) {
        SKIP("published ids", rel);
    } else {
        int texts = 0;
        for (char *text = in; text < in + in_bytes && line < out + out_bytes; texts++) {
            char *end = strstr(text, separator), *eol = strchr(line, '\n');
            size_t n, k = 0, wrong = 0;
            end = end ? end : in + in_bytes;
            eol = eol ? eol : out + out_bytes;
            int32_t *ids = encode(m, text, (size_t)(end - text), FLASH_TEXT_NO_BOS, &n);
            for (char *p = line;; k++) {
                char *after;
                long id = strtol(p, &after, 10);
                if (after == p || after > eol) break;
                wrong += k >= n || ids[k] != id;
                p = after;
            }
            if (!CHECK(k == n && !wrong)) {
                printf("    %s, text %d \"%.*s\": got", name, texts, (int)(end - text), text);
                for (size_t i = 0; i < n; i++) printf(" %d", (int)ids[i]);
                printf("\n    expected%.*s\n", (int)(eol - line), line);
            }
            free(ids);
            text = end + sizeof separator - 1;
            line = eol + 1;
        }
        CHECK(texts > 40 && line >= out + out_bytes);
    }
    free(in);
    free(out);
}

/* --- round trips ---------------------------------------------------------------------------- */

/* 1 for each byte that the vocabulary can spell. Two of the published vocabularies lack some bytes
   that valid UTF-8 never has (deepseek-coder's tokens for them are user-defined texts, not
   bytes). */
static int spells[256];

static int find_spelled(const flash_model *m, int spm)
{
    int n = 0;
    flash_value types;
    CHECK_EQ(flash_gguf_find(flash_model_gguf(m), "tokenizer.ggml.token_type", &types), FLASH_OK);
    for (int i = 0; i < 256; i++) {
        char one[8];
        mk_utf8(one, mk_byte_char(i));
        int32_t id = flash_token_find(m, one);
        n += spells[i] = spm || (id >= 0 && flash_value_integer(&types, (uint64_t)id) == 1);
    }
    return n;
}

/* Tokenises a text and detokenises it, at once and streamed. From the stream, valid UTF-8 comes
   back unchanged, and any other text comes back as valid UTF-8. Drops the bytes of text that the
   vocabulary cannot spell. */
static void test_round_trip(const flash_model *m, const char *name, char *text, size_t bytes)
{
    size_t n, back_bytes, cap = flash_token_bytes_max(m), streamed = 0, part, kept = 0;
    int32_t *ids = encode(m, text, bytes, FLASH_TEXT_NO_BOS, &n);
    char *back = decode(m, ids, n, 0, &back_bytes);
    for (size_t i = 0; i < bytes; i++) {
        text[kept] = text[i];
        kept += spells[(uint8_t)text[i]] != 0;
    }
    bytes = kept;
    if (!CHECK(back_bytes == bytes && memcmp(back, text, bytes) == 0)) {
        size_t i = 0;
        while (i < bytes && i < back_bytes && back[i] == text[i]) i++;
        printf("    %s: %zu bytes came back as %zu, different from byte %zu\n", name, bytes,
               back_bytes, i);
    }
    flash_detokenizer d = {{0}, 0, 0};
    char *piece = (char *)malloc(cap + 1), *all = (char *)malloc(bytes * 3 + cap + 8);
    size_t halves = 0, failures = 0;
    for (size_t i = 0; i <= n; i++) {
        piece[cap] = 77;
        part = 0;
        failures += flash_detokenize_next(m, &d, i < n ? ids[i] : -1, 0, piece, cap, &part) != 0;
        failures += part > cap || piece[cap] != 77;
        halves += !valid_utf8(piece, part);
        if (streamed + part <= bytes * 3 + 8) memcpy(all + streamed, piece, part);
        streamed += part;
    }
    CHECK_EQ(failures, 0);
    CHECK_EQ(halves, 0);
    if (valid_utf8(text, bytes)) CHECK(streamed == bytes && memcmp(all, text, bytes) == 0);
    free(all);
    free(piece);
    free(back);
    free(ids);
}

static void test_round_trips(const flash_model *m, const char *name)
{
    static const char *const files[] = {"unicode/UTF-8-test.txt",
                                        "text/opensubtitles2018-ru-huge-utf8.txt",
                                        "text/opensubtitles2018-zh-huge-utf8.txt"};
    SECTION(name);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t bytes;
        char *text = (char *)test_read(test_shared(files[i]), &bytes);
        if (!text) {
            SKIP("round trip", files[i]);
            continue;
        }
        if (getenv("FLASH_QUICK") && bytes > 65536) {
            for (bytes = 65536; ((uint8_t)text[bytes] & 0xc0) == 0x80; bytes--) {}
        }
        test_round_trip(m, files[i], text, bytes);
        free(text);
    }
    enum { RANDOM = 65536 };
    char *text = (char *)malloc(RANDOM);
    for (size_t i = 0; i < RANDOM; i++) text[i] = (char)(test_rnd() >> 13);
    test_round_trip(m, "random bytes", text, RANDOM);
    for (size_t n = 0; n < 40; n++) test_round_trip(m, "a few random bytes", text + n * n, n);
    for (size_t i = 0; i < RANDOM; i++) text[i] = (char)(test_rnd() >> 13 & 127);
    test_round_trip(m, "random ASCII", text, RANDOM);
    free(text);
}

/* --- details of the interface ---------------------------------------------------------------- */

static void test_interface(const flash_model *m, const char *name)
{
    static const char text[] = "Hello, little world! \xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80";
    size_t len = sizeof text - 1, n, k, bytes;
    int32_t *ids = encode(m, text, len, FLASH_TEXT_NO_BOS, &n), few[64];
    SECTION(name);
    for (size_t cap = 0; cap < n; cap++) {
        memset(few, 0x11, sizeof few);
        k = 0;
        CHECK_EQ(flash_tokenize(m, text, len, FLASH_TEXT_NO_BOS, few, cap, &k), FLASH_E_RANGE);
        CHECK_EQ(k, n);
        CHECK(memcmp(few, ids, cap * sizeof *few) == 0 && few[cap] == 0x11111111);
    }
    CHECK_EQ(flash_tokenize(m, text, len, FLASH_TEXT_NO_BOS, NULL, 0, &k), FLASH_E_RANGE);
    char out[64];
    for (size_t cap = 0; cap < len; cap += 5) {
        memset(out, 77, sizeof out);
        CHECK_EQ(flash_detokenize(m, ids, n, 0, out, cap, &bytes), FLASH_E_RANGE);
        CHECK_EQ(bytes, len);
        CHECK(out[cap] == 77);
    }
    free(ids);

    CHECK_EQ(flash_tokenize(m, "", 0, FLASH_TEXT_NO_BOS, few, 64, &n), FLASH_OK);
    CHECK_EQ(n, 0);
    CHECK_EQ(flash_tokenize(m, NULL, 0, FLASH_TEXT_NO_BOS, NULL, 0, &n), FLASH_OK);
    CHECK_EQ(n, 0);
    CHECK_EQ(flash_detokenize(m, few, 0, 0, out, 64, &bytes), FLASH_OK);
    CHECK_EQ(bytes, 0);

    CHECK(flash_token_text(m, -1, &bytes) == NULL);
    CHECK(flash_token_text(m, 1 << 20, &bytes) == NULL);
    CHECK_EQ(flash_token_find(m, "no token is spelled like this"), -1);
    few[0] = -1;
    CHECK_EQ(flash_detokenize(m, few, 1, 0, out, 64, &bytes), FLASH_E_ARGUMENT);
    few[0] = 1 << 20;
    CHECK_EQ(flash_detokenize(m, few, 1, 0, out, 64, &bytes), FLASH_E_ARGUMENT);
    for (int32_t id = 3; id < 3000; id += 37) { /* a search for a spelling finds it */
        const char *spelled = flash_token_text(m, id, &bytes);
        if (CHECK(spelled != NULL) && bytes < sizeof out) {
            memcpy(out, spelled, bytes);
            out[bytes] = 0;
            int32_t found = flash_token_find(m, out);
            size_t b2 = 0;
            const char *s2 = flash_token_text(m, found, &b2);
            CHECK(s2 && b2 == bytes && memcmp(s2, spelled, bytes) == 0);
        }
    }

    /* Control tokens are recognised and shown only on request. */
    int32_t eos = flash_token_eos(m);
    const char *spelled = flash_token_text(m, eos, &bytes);
    if (CHECK(spelled != NULL) && CHECK(bytes < 40)) {
        char with[64];
        int count = 0;
        size_t with_bytes = (size_t)snprintf(with, sizeof with, "a%.*sb", (int)bytes, spelled);
        CHECK(flash_token_is_end(m, eos));
        CHECK(flash_token_is_control(m, eos));
        ids = encode(m, with, with_bytes, FLASH_TEXT_NO_BOS | FLASH_TEXT_SPECIAL, &n);
        for (size_t i = 0; i < n; i++) count += ids[i] == eos;
        CHECK_EQ(count, 1);
        char *shown = decode(m, ids, n, FLASH_TEXT_SPECIAL, &bytes);
        CHECK_STR(shown, with);
        free(shown);
        shown = decode(m, ids, n, 0, &bytes);
        CHECK_STR(shown, "ab");
        free(shown);
        free(ids);
        ids = encode(m, with, with_bytes, FLASH_TEXT_NO_BOS, &n);
        for (size_t i = 0; i < n; i++) CHECK(ids[i] != eos);
        shown = decode(m, ids, n, 0, &bytes);
        CHECK_STR(shown, with);
        free(shown);
        free(ids);
    }
    CHECK(!flash_token_is_end(m, -1) && !flash_token_is_control(m, -1));
    CHECK(!flash_token_is_end(m, 1 << 20) && !flash_token_is_control(m, 1 << 20));
}

/* Tests BOS, and the space that SentencePiece puts before a text. */
static void test_beginnings(const flash_model *m, const char *name, int bos, int spm)
{
    size_t n, k, bytes;
    int32_t *ids = encode(m, "Hello", 5, 0, &n), *plain;
    SECTION(name);
    CHECK_EQ(n > 0 && ids[0] == flash_token_bos(m), bos);
    free(ids);
    ids = encode(m, "", 0, 0, &n);
    CHECK_EQ(n, bos);
    free(ids);
    plain = encode(m, "Hello", 5, FLASH_TEXT_NO_BOS, &k);
    ids = encode(m, "Hello", 5, FLASH_TEXT_CONTINUE, &n);
    CHECK_EQ(n == k && memcmp(ids, plain, n * sizeof *ids) == 0, !spm);
    char *text = decode(m, ids, n, FLASH_TEXT_CONTINUE, &bytes);
    CHECK_STR(text, "Hello");
    free(text);
    text = decode(m, plain, k, FLASH_TEXT_CONTINUE, &bytes);
    CHECK_STR(text, spm ? " Hello" : "Hello");
    free(text);
    free(ids);
    free(plain);
}

/* --- texts made to be slow ------------------------------------------------------------------- */

static void test_slow(const flash_model *m, const char *name)
{
    static const char *const kinds[] = {"one word", "spaces", "U+2581", "random bytes",
                                        "one letter"};
    size_t bytes = getenv("FLASH_QUICK") ? 100000 : 1 << 20;
    char *text = (char *)malloc(bytes);
    int32_t *ids = (int32_t *)malloc((bytes + 8) * sizeof *ids);
    SECTION(name);
    printf("%-14s", name);
    for (int kind = 0; text && ids && kind < 5; kind++) {
        for (size_t i = 0; i < bytes; i++) {
            uint32_t r = test_rnd() >> 8;
            text[i] = kind == 0 ? (char)('a' + r % 26)
                : kind == 1     ? ' '
                : kind == 2     ? "\xe2\x96\x81"[i % 3]
                : kind == 3     ? (char)r
                                : 'a';
        }
        size_t n = 0;
        clock_t t0 = clock();
        CHECK_EQ(flash_tokenize(m, text, bytes, FLASH_TEXT_NO_BOS, ids, bytes + 8, &n), FLASH_OK);
        double s = (double)(clock() - t0) / CLOCKS_PER_SEC;
        printf("  %s %.2f s", kinds[kind], s);
        fflush(stdout);
        CHECK(n > 0 && s < 20);
    }
    printf("\n");
    free(text);
    free(ids);
}

/* --- words ----------------------------------------------------------------------------------- */

/* Returns a BPE model that can merge every substring of `text`. Each word that the pre-tokenizer
   makes then becomes one token, and the tokens show where it cut. Token 256 both begins and ends
   texts: adds is 1 if it is added before a text, 2 if after it, 3 if both. */
static flash_model *all_stretches(const char *pre, const char *text, int adds)
{
    enum { MAX = 32 };
    static char spelled[MAX + 1][3]; /* each byte in byte-level BPE's alphabet */
    static char token[MAX * MAX][MAX * 2 + 1];
    static char merge[MAX * MAX * MAX / 4][MAX * 2 + 2];
    int n = (int)strlen(text), tokens = 0, merges = 0;
    if (!CHECK(n <= MAX - 2)) return NULL;
    for (int i = 0; i < n; i++) mk_utf8(spelled[i], mk_byte_char((uint8_t)text[i]));
    for (int len = 1; len <= n; len++) {
        for (int i = 0; i + len <= n; i++) {
            char whole[MAX * 2 + 1] = "";
            for (int j = i; j < i + len; j++) strcat(whole, spelled[j]);
            for (int t = 0; t < tokens; t++)
                if (!strcmp(token[t], whole)) goto known;
            if (len > 1) strcpy(token[tokens++], whole);
            for (int cut = i + 1; cut < i + len; cut++) {
                char *p = merge[merges++];
                *p = 0;
                for (int j = i; j < i + len; j++)
                    strcat(strcat(p, j == cut ? " " : ""), spelled[j]);
            }
        known:;
        }
    }
    mk_file *f = mk_new();
    mk_set_text(f, "general.architecture", "llama");
    mk_set_text(f, "tokenizer.ggml.model", "gpt2");
    mk_set_text(f, "tokenizer.ggml.pre", pre);
    mk_buf *b = mk_set_array(f, "tokenizer.ggml.tokens", MK_V_STRING, (uint64_t)(257 + tokens));
    for (int i = 0; i < 256; i++) {
        char one[8];
        mk_utf8(one, mk_byte_char(i));
        mk_text(b, one);
    }
    mk_text(b, "<end>");
    for (int i = 0; i < tokens; i++) mk_text(b, token[i]);
    b = mk_set_array(f, "tokenizer.ggml.token_type", MK_V_I32, (uint64_t)(257 + tokens));
    for (int i = 0; i < 257 + tokens; i++) mk_u32(b, i == 256 ? 3 : 1);
    b = mk_set_array(f, "tokenizer.ggml.merges", MK_V_STRING, (uint64_t)merges);
    for (int i = 0; i < merges; i++) mk_text(b, merge[i]);
    mk_set_u32(f, "tokenizer.ggml.bos_token_id", 256);
    mk_set_u32(f, "tokenizer.ggml.eos_token_id", 256);
    mk_set_bool(f, "tokenizer.ggml.add_bos_token", adds & 1);
    mk_set_bool(f, "tokenizer.ggml.add_eos_token", adds >> 1);
    static uint8_t *file; /* lives until the next call: the model points into it */
    flash_model_desc d = {0};
    flash_model *m = NULL;
    flash_error err = {FLASH_OK, 0, ""};
    free(file);
    d.source.data = file = mk_emit(f, &d.source.bytes);
    d.vocab_only = 1;
    if (!CHECK_EQ(flash_model_load(&m, &d, &err), FLASH_OK)) printf("    %s: %s\n", pre, err.text);
    mk_free(f);
    return m;
}

/* Checks where a pre-tokenizer cuts a text. expected: the text with a bar between its words. */
static void words(const char *pre, const char *expected)
{
    char text[64], got[128] = "";
    size_t n = 0, k, bytes;
    for (const char *p = expected; *p; p++)
        if (*p != '|') text[n++] = *p;
    text[n] = 0;
    flash_model *m = all_stretches(pre, text, 0);
    if (!m) return;
    int32_t *ids = encode(m, text, n, FLASH_TEXT_NO_BOS, &k);
    for (size_t i = 0; i < k; i++) {
        char *word = decode(m, ids + i, 1, FLASH_TEXT_CONTINUE, &bytes);
        strcat(strcat(got, i ? "|" : ""), word);
        free(word);
    }
    if (!CHECK_STR(got, expected)) printf("    pre-tokenizer %s\n", pre);
    free(ids);
    flash_model_free(m);
}

static void test_words(void)
{
    SECTION("words");
    static const char *const gpt2[] = {"gpt-2", "mpt", "olmo"};
    for (size_t i = 0; i < sizeof gpt2 / sizeof *gpt2; i++) {
        words(gpt2[i], "I|'ll| go| | 12345|\n|x");
        words(gpt2[i], "I|'|LL| we|'re| a|_|b|?!");
        words(gpt2[i], "a|  | b|  \t| c| ");
        words(gpt2[i], "a|\xc2\xa0|b| \xc2\xb2\xd9\xa1|x");
        words(gpt2[i], "\xd0\x9f\xd1\x80\xd0\xb8| \xd0\xbc\xd0\xb8\xd1\x80|.");
        words(gpt2[i], "e|\xcc\x81|a| \xe4\xb8\xad\xe6\x96\x87|\xe3\x80\x82");
    }
    static const char *const digits[] = {"smollm", "starcoder", "refact", "command-r"};
    for (size_t i = 0; i < sizeof digits / sizeof *digits; i++) {
        words(digits[i], "I|'ll| go| |1|2|3|\n|x");
        words(digits[i], "I|'|LL| a|_|b|?!");
        words(digits[i], "a|1|b|  | c");
        words(digits[i], "x|\xc2\xb2|\xd9\xa1| y");
    }
    static const char *const llama3[] = {"llama-bpe", "llama3", "lfm2"};
    for (size_t i = 0; i < sizeof llama3 / sizeof *llama3; i++) {
        words(llama3[i], "I|'LL| go| | |123|45|\n\n|x");
        words(llama3[i], " !|ab|_c|?!\n| y");
        words(llama3[i], "a|  \n \n|  | b|\t\t");
        words(llama3[i],
              "a|\xc2\xa0"
              "b|\r\n| .\r\n|c");
        words(llama3[i],
              "e|\xcc\x81"
              "a|'x|'VE|'|1");
        words(llama3[i], "123|456|78|a");
    }
    words("qwen2", "I|'LL| go| | |1|2|\n\n|x");
    words("qwen2", " !|ab|_c|?!\n| y");

    words("deepseek-llm", "Hi| | you|,| |123|\n");
    words("deepseek-llm", "a|\r|\n|b| c|!?| d");
    words("deepseek-llm", "a|\xe4\xb8\xad\xe6\x96\x87|b|12");
    words("deepseek-coder", "Hi| | you|,| |1|2|\n");
    words("deepseek-coder", "a|\xe4\xb8\xad\xe6\x96\x87|b");
    words("deepseek-v3", "ab| |123|45|!c|\n| x");
    words("deepseek-v3", "a|\xe4\xb8\xad\xe3\x81\x82|b| $$\n\n|_d");
    words("deepseek-v3",
          "e\xcc\x81"
          "a|.b| .\n|  | c");

    words("falcon", "a| |$|b| |123|45");
    words("falcon", "!`|a| 12| b|  | c");
    words("default", "a| |$|b| |123|45");
    words("default", "!|`|a| |12| b|  | c");

    static const char *const o200k[] = {"gpt-4o", "llama4"};
    for (size_t i = 0; i < sizeof o200k / sizeof *o200k; i++) {
        words(o200k[i], "Hello|World's| ABCdef| |123|4");
        words(o200k[i], "IT'S|a|!/\n/|x|?| .");
        words(o200k[i], "a|  \n|  | b");
    }
    words("tekken", "Hello|World|'s| ABCdef| |1|2");
    words("tekken", "IT|'Sa|!/\n/|x");
    words("tekken", "a|  \n|  | b");
}

/* Tokens added before and after a text: as the file says, unless the text is a part of one. */
static void test_added(void)
{
    static const unsigned flags[] = {0, FLASH_TEXT_NO_BOS, FLASH_TEXT_CONTINUE};
    SECTION("added tokens");
    for (int i = 0; i < 12; i++) {
        size_t n;
        int first = i / 3 & 1 && !flags[i % 3], last = i / 6 && !flags[i % 3];
        flash_model *m = all_stretches("gpt-2", "ab", i / 3);
        if (!m) return;
        int32_t *ids = encode(m, "ab", 2, flags[i % 3], &n);
        if (CHECK_EQ(n, 1 + first + last))
            CHECK((ids[0] == 256) == first && (ids[n - 1] == 256) == last);
        free(ids);
        flash_model_free(m);
    }
}

int main(void)
{
    for (int i = 0; i < N_VOCABS; i++) {
        char rel[128];
        snprintf(rel, sizeof rel, "tokenizers/ggml-vocab-%s.gguf", vocabs[i]);
        const char *path = test_shared(rel);
        if (!path) {
            SKIP("vocabulary", rel);
            continue;
        }
        SECTION(vocabs[i]);
        flash_model *m = load_vocab(path);
        if (m) {
            int spm = i == 1 || i == 2;
            test_published(m, vocabs[i]);
            test_interface(m, vocabs[i]);
            test_beginnings(m, vocabs[i], spm || i == 5, spm);
            CHECK_EQ(find_spelled(m, spm), i == 4 ? 242 : i == 5 ? 243 : 256);
            test_round_trips(m, vocabs[i]);
            test_slow(m, vocabs[i]);
            flash_model_free(m);
        }
    }
    test_words();
    test_added();
    return test_done();
}
