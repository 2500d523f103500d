/* bench_grammar.c - what a grammar of JSON costs a token.
   build: cc -std=c99 -O2 tools/bench_grammar.c -o bench_grammar -lm
   usage: bench_grammar MODEL [TOKENS]: MODEL need have no weights. Texts are drawn from random
   logits that favour no token (mostly long strings), then the tokens JSON is built with (a new
   state nearly each time, the worst there is). A line each on stdout: finding the tokens allowed,
   on average and at worst; sampling without a grammar, and after that with it. */
#define FLASH_IMPLEMENTATION
#include "../flash.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) { return (double)clock() / CLOCKS_PER_SEC; }

typedef struct bench {
    flash_model *m;
    flash_grammar *g;
    flash__reading *t;
    float *logits;       /* [V] */
    flash__candidate *c; /* [V] */
    size_t bytes;        /* that a session has for it */
} bench;

/* marks: what begins with punctuation of JSON is favoured. */
static void run(const bench *b, int tokens, int marks)
{
    size_t n = b->m->vocab.n, bytes;
    uint64_t random = 1;
    double time[3] = {0, 0, 0}, worst = 0;
    flash_sampler sp = {0};
    int texts = 0;
    sp.temperature = 1;
    flash__reading_start(b->t, b->g, 0);
    for (int i = 0; i < tokens; i++) {
        for (size_t k = 0; k < n; k++) {
            const char *text = flash_token_text(b->m, (int32_t)k, &bytes);
            b->logits[k] = (float)(flash__random(&random) >> 40) / 16777216.0f * 4
                + (marks && bytes && memchr("{}[],:\"", *text, 7) ? 12 : 0);
        }
        uint64_t r = random;
        double t0 = now();
        flash__sample(b->m, &sp, b->logits, NULL, 0, &r, b->c, NULL);
        double t1 = now();
        flash__mask(b->t, b->m);
        double t2 = now();
        int32_t id = flash__sample(b->m, &sp, b->logits, NULL, 0, &random, b->c, b->t);
        double t3 = now();
        time[0] += t1 - t0;
        time[1] += t2 - t1;
        time[2] += t3 - t2;
        worst = t2 - t1 > worst ? t2 - t1 : worst;
        if (id < 0 || flash_token_is_end(b->m, id)) {
            flash__reading_start(b->t, b->g, 0);
            texts++;
        } else {
            b->t->now = flash__read_token(b->t, b->m, id);
        }
    }
    printf("bench grammar texts=%s vocab=%lu us_per_token=%.1f worst_us=%.0f sample_us=%.1f "
           "sample_with_us=%.1f texts_ended=%d\n",
           marks ? "marks" : "random", (unsigned long)n, time[1] / tokens * 1e6, worst * 1e6,
           time[0] / tokens * 1e6, time[2] / tokens * 1e6, texts);
}

int main(int argc, char **argv)
{
    flash_model_desc md = {0};
    flash_grammar_desc gd = {0};
    flash__arena a = {NULL, 0};
    flash_error err;
    bench b;
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
    if (flash_model_load(&b.m, &md, &err)) {
        fprintf(stderr, "bench_grammar: %s\n", err.text);
        return 1;
    }
    double loaded = now();
    if (flash_grammar_create(&b.g, b.m, &gd, &err)) {
        fprintf(stderr, "bench_grammar: %s\n", err.text);
        return 1;
    }
    printf("bench grammar load_s=%.3f create_s=%.3f grammar_bytes=%lu", loaded - begun,
           now() - loaded, (unsigned long)b.g->block);
    b.m->arch.n_vocab = (int)b.m->vocab.n; /* what a session would have */
    flash__reading_plan(b.m, &a);
    b.bytes = a.used;
    a.used = 0;
    a.base = malloc(b.bytes);
    b.logits = malloc(b.m->vocab.n * sizeof *b.logits);
    b.c = malloc(b.m->vocab.n * sizeof *b.c);
    if (!a.base || !b.logits || !b.c) return 1;
    printf(" session_bytes=%lu\n", (unsigned long)b.bytes);
    b.t = flash__reading_plan(b.m, &a);
    for (int marks = 0; marks < 2; marks++) run(&b, argc > 2 ? atoi(argv[2]) : 1000, marks);
    free(a.base);
    free(b.c);
    free(b.logits);
    flash_grammar_free(b.g);
    flash_model_free(b.m);
    return 0;
}
