/* bench_grammar.c - what a grammar costs a token: bench_grammar MODEL [TOKENS], where MODEL need
   have no weights. Texts of JSON are drawn at random, with logits that favour no token, which is the
   worst there is: a model that has learned JSON asks for far fewer states. One line on stdout. */
#define FLASH_IMPLEMENTATION
#include "../flash.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

int main(int argc, char **argv)
{
    flash_model_desc md = {0};
    flash_grammar_desc gd = {0};
    flash_sampler sp = {0};
    flash_model *m;
    flash_grammar *g;
    flash_error err;
    flash__arena a = {NULL, 0};
    int tokens = argc > 2 ? atoi(argv[2]) : 1000, texts = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_grammar MODEL [TOKENS]\n");
        return 2;
    }
    md.source.path = argv[1];
    md.vocab_only = 1;
    md.any_pretokenizer = 1;
    gd.text = flash_grammar_json();
    gd.bytes = strlen(gd.text);
    double begun = now();
    if (flash_model_load(&m, &md, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    double loaded = now();
    if (flash_grammar_create(&g, m, &gd, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    double made = now();
    size_t n = m->vocab.n;
    m->arch.n_vocab = (int)n;
    float *logits = malloc(n * sizeof *logits);
    flash__candidate *c = malloc(n * sizeof *c);
    flash__reading_plan(m, &a);
    size_t bytes = a.used;
    a.used = 0;
    a.base = malloc(bytes);
    if (!logits || !c || !a.base) {
        return 1;
    }
    flash__reading *t = flash__reading_plan(m, &a);
    uint64_t random = 1;
    sp.temperature = 1;
  for (int marks = 0; marks < 2; marks++) {
    double time[3] = {0, 0, 0}, worst = 0;
    texts = 0;
    flash__reading_start(t, g, 0);
    for (int i = 0; i < tokens; i++) {
        for (size_t k = 0; k < n; k++) {
            logits[k] = (float)(flash__random(&random) >> 40) / 16777216.0f * 4;
        }
        uint64_t r = random;
        double t0 = now();
        flash__sample(m, &sp, logits, NULL, 0, &r, c, NULL);
        double t1 = now();
        flash__mask(t, m);
        double t2 = now();
        int32_t id = flash__sample(m, &sp, logits, NULL, 0, &random, c, t);
        double t3 = now();
        time[0] += t1 - t0;
        time[1] += t2 - t1;
        time[2] += t3 - t2;
        worst = t2 - t1 > worst ? t2 - t1 : worst;
        if (id < 0 || flash_token_is_end(m, id)) {
            flash__reading_start(t, g, 0);
            texts++;
        } else {
            t->now = flash__read_token(t, m, id);
        }
    }
    printf("bench grammar vocab=%lu us_per_token=%.1f worst_us=%.0f sample_us=%.1f "
           "sample_with_us=%.1f texts=%d create_s=%.3f load_s=%.3f grammar_bytes=%lu "
           "session_bytes=%lu\n",
           (unsigned long)n, time[1] / tokens * 1e6, worst * 1e6, time[0] / tokens * 1e6,
           time[2] / tokens * 1e6, texts, made - loaded, loaded - begun, (unsigned long)g->block,
           (unsigned long)bytes);
    free(a.base);
    free(c);
    free(logits);
    flash_grammar_free(g);
    flash_model_free(m);
    return 0;
}
