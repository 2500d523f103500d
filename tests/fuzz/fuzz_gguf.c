/* Fuzzes the model loader: opens and loads any bytes as a model, and runs a short step of it. Built
   with libFuzzer, or with -DFUZZ_MAIN to replay the files named on the command line. */
#include "../../flash.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink; /* keeps the compiler from removing the reads */

static void impossible(flash_status s)
{
    if (s == FLASH_E_INTERNAL) abort();
}

static void use(const flash_model *m)
{
    flash_session_desc d = {0};
    flash_session *s;
    flash_piece piece;
    static const char text[] = "The cat sat. 123\n\xF0\x9F\x98\x80\xFF";
    int32_t ids[64];
    char back[256];
    size_t n;
    impossible(flash_tokenize(m, text, sizeof text - 1, FLASH_TEXT_SPECIAL, ids, 64, &n));
    impossible(flash_detokenize(m, ids, n < 64 ? n : 0, 0, back, sizeof back, &n));
    d.n_ctx = 8;
    d.chunk = 2;
    d.sampler.temperature = 1;
    d.sampler.top_p = 0.9f;
    if (flash_session_memory(m, &d) > (size_t)64 << 20 || flash_session_create(&s, m, &d)) return;
    ids[0] = ids[1] = ids[2] = 0;
    impossible(flash_session_feed(s, ids, 3));
    impossible(flash_session_step(s, NULL));
    impossible(flash_session_next(s, NULL, &piece));
    if (flash_session_truncate(s, 1) == FLASH_E_RANGE) flash_session_reset(s);
    impossible(flash_session_feed(s, ids, 2));
    impossible(flash_session_step(s, NULL));
    flash_session_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *p = (uint8_t *)malloc(size ? size : 1); /* exact size: reads past the end are found */
    flash_model_desc d = {0};
    flash_gguf *g;
    flash_model *m;
    flash_error err;
    flash_value v;
    flash_tensor t;
    unsigned sum = 0, how = size ? data[size - 1] % 4u : 0;

    if (!p) return 0;
    memcpy(p, data, size);
    d.source.data = p;
    d.source.bytes = size;
    impossible(flash_gguf_open(&g, &d.source, NULL, &err));
    for (size_t i = 0; g && flash_gguf_key(g, i, &v) == FLASH_OK; i++) {
        const char *s;
        size_t at = 0, n;
        sum += (unsigned)flash_value_integer(&v, v.count - 1) + (v.bytes ? v.data[v.bytes - 1] : 0);
        while ((s = flash_value_string(&v, &at, &n)) != NULL)
            sum += n ? (unsigned char)s[n - 1] : 0;
    }
    for (size_t i = 0; g && flash_gguf_tensor(g, i, &t) == FLASH_OK; i++)
        sum += t.bytes ? t.data[t.bytes - 1] : 0;
    sink = sum;
    flash_gguf_free(g);
    for (d.vocab_only = 0; d.vocab_only < 2; d.vocab_only++) {
        d.any_pretokenizer = !d.vocab_only;
        d.attention = how == 1 ? "keep,skip" : how == 2 ? "window:2,keep" : NULL;
        impossible(flash_model_load(&m, &d, &err));
        if (m && !d.vocab_only) use(m);
        flash_model_free(m);
    }
    free(p);
    return 0;
}

#ifdef FUZZ_MAIN
#include "replay.h"
#endif
