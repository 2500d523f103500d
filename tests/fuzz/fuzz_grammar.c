/* Fuzzes grammars: reads any bytes as a grammar or, if the first byte is odd, as a schema that is
   converted to one; then draws a random text that the grammar allows. Built with libFuzzer, or with
   -DFUZZ_MAIN to replay the files named on the command line. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#include "../../flash.h"
#include "../mkmodel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok) abort();
}

/* Returns a model with the vocabulary only, which is kept until the process ends. */
static const flash_model *vocabulary(int bpe)
{
    static flash_model *models[2];
    if (!models[bpe]) {
        mk_options o = {0};
        flash_model_desc d = {0};
        mk_file *f;
        o.d_model = 8;
        o.bpe = bpe;
        f = mk_llama(&o);
        d.source.data = mk_emit(f, &d.source.bytes);
        d.vocab_only = 1;
        must(flash_model_load(&models[bpe], &d, NULL) == FLASH_OK);
        mk_free(f);
    }
    return models[bpe];
}

/* Draws a random text of the grammar. Every token that the mask allows must be accepted. */
static void draw(const flash_model *m, const flash_grammar *g, uint64_t seed)
{
    static uint8_t *block[2];
    flash__arena a = {NULL, 0};
    flash__reading *t;
    int bpe = m == vocabulary(1);
    flash__reading_plan(m, &a);
    if (!block[bpe]) block[bpe] = (uint8_t *)mk_alloc(NULL, a.used);
    a.base = block[bpe];
    a.used = 0;
    t = flash__reading_plan(m, &a);
    flash__reading_start(t, g, m->vocab.space_prefix);
    for (int step = 0; step < 12; step++) {
        const uint32_t *mask = flash__mask(t, m);
        int32_t id = -1;
        int n = 0;
        for (uint32_t i = 0; i < m->vocab.n; i++)
            if (mask[i / 32] >> i % 32 & 1 && mk_rnd(&seed) % (uint64_t)++n == 0) id = (int32_t)i;
        if (t->stuck || id < 0) break;
        must(flash__allowed(t, m, id));
        if (flash_token_is_end(m, id)) {
            must(t->place[t->now].ends);
            break;
        }
        t->now = flash__read_token(t, m, id);
        must(t->now >= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    flash_grammar_desc d = {0};
    flash_grammar *g;
    flash_error err;
    flash_status st;
    const flash_model *m;
    char *text, *made = NULL;
    size_t n = 0, again = 0;

    if (!size) return 0;
    m = vocabulary(data[0] >> 1 & 1);
    text = (char *)mk_alloc(NULL, --size); /* exact size: reads past the end are found */
    if (size) memcpy(text, data + 1, size);
    d.text = text;
    d.bytes = size;
    if (data[0] & 1) {
        st = flash_grammar_from_schema(text, size, NULL, 0, &n, &err);
        must(st != FLASH_OK && st != FLASH_E_INTERNAL);
        if (st != FLASH_E_RANGE) {
            must(err.text[0] != 0);
            free(text);
            return 0;
        }
        made = (char *)mk_alloc(NULL, n);
        must(flash_grammar_from_schema(text, size, made, n, &again, &err) == FLASH_OK);
        must(n == again);
        d.text = made;
        d.bytes = n;
    }
    st = flash_grammar_create(&g, m, &d, &err);
    must(!st == (g != NULL) && st != FLASH_E_INTERNAL);
    if (g) {
        must(flash_grammar_memory(m, &d, NULL) == g->block);
        draw(m, g, size);
    } else {
        must(err.status == st && err.text[0] != 0);
    }
    flash_grammar_free(g);
    free(made);
    free(text);
    return 0;
}

#ifdef FUZZ_MAIN
#include "replay.h"
#endif
