/* Fuzzes the tokenizers: converts any bytes to tokens and back. The first byte selects the
   vocabulary, the second the flags. Built with libFuzzer, or with -DFUZZ_MAIN to replay the files
   named on the command line. */
#include "../../flash.h"
#include "../mkmodel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const pres[] = {
    NULL,          "default", "gpt-2",  "llama-bpe", "qwen2",        "smollm",
    "starcoder",   "refact",  "falcon", "mpt",       "deepseek-llm", "deepseek-coder",
    "deepseek-v3", "gpt-4o",  "llama4", "tekken",    "command-r",    "olmo",
};
enum { PRES = sizeof pres / sizeof pres[0] };

static void must(int ok)
{
    if (!ok) abort();
}

/* Returns a model with vocabulary i only, which is kept until the process ends. A name NULL in pres
   stands for the SentencePiece vocabulary. */
static const flash_model *vocabulary(unsigned i)
{
    static flash_model *models[PRES];
    if (!models[i]) {
        mk_options o = {0};
        flash_model_desc d = {0};
        mk_file *f;
        o.d_model = 8;
        o.bpe = pres[i] != NULL;
        o.pre = pres[i];
        f = mk_llama(&o);
        d.source.data = mk_emit(f, &d.source.bytes);
        d.vocab_only = 1;
        must(flash_model_load(&models[i], &d, NULL) == FLASH_OK);
        mk_free(f);
    }
    return models[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const flash_model *m;
    unsigned flags;
    char *text, *back;
    int32_t *ids;
    size_t n, again, bytes, cap, at = 0;
    flash_detokenizer stream = {{0}, 0, 0};

    if (size < 2) return 0;
    m = vocabulary(data[0] % PRES);
    flags = data[1] & (FLASH_TEXT_SPECIAL | FLASH_TEXT_NO_BOS | FLASH_TEXT_CONTINUE);
    size -= 2;
    text = (char *)mk_alloc(NULL, size); /* exact size: reads past the end are found */
    if (size) memcpy(text, data + 2, size);

    must(flash_tokenize(m, text, size, flags, NULL, 0, &n) == (n ? FLASH_E_RANGE : FLASH_OK));
    must(n <= size + 4);
    ids = (int32_t *)mk_alloc(NULL, n * sizeof *ids);
    must(flash_tokenize(m, text, size, flags, ids, n, &again) == FLASH_OK && again == n);
    for (size_t i = 0; i < n; i++) must(flash_token_text(m, ids[i], &bytes) != NULL);

    cap = size + 64;
    back = (char *)mk_alloc(NULL, cap);
    must(flash_detokenize(m, ids, n, flags, back, cap, &bytes) == FLASH_OK);
    if (!(flags & FLASH_TEXT_SPECIAL)) must(bytes == size && !memcmp(back, text, size));
    free(back);

    /* The stream gives the same text, except that it replaces bytes that are no valid UTF-8. */
    cap = flash_token_bytes_max(m);
    back = (char *)mk_alloc(NULL, cap);
    for (size_t i = 0; i <= n; i++) {
        size_t piece;
        must(flash_detokenize_next(m, &stream, i < n ? ids[i] : -1, flags, back, cap, &piece)
             == FLASH_OK);
        must(piece <= cap);
        if (!(flags & FLASH_TEXT_SPECIAL) && at <= size) {
            if (piece <= size - at && !memcmp(back, text + at, piece)) {
                at += piece;
            } else {
                must(memchr(back, 0xEF, piece) != NULL); /* U+FFFD */
                at = size + 1;
            }
        }
    }
    must((flags & FLASH_TEXT_SPECIAL) || at >= size);
    free(back);
    free(ids);
    free(text);
    return 0;
}

#ifdef FUZZ_MAIN
#include "replay.h"
#endif
