/* mkallowed.c - prints which tokens a grammar allows along random texts, for tests/peer.sh.
   usage: mkallowed MODEL GRAMMAR.gbnf [TEXTS [TOKENS]]
   Prints a line for each token of a text: the number of the text, the token chosen (-1 if none is
   allowed), and a digit for each token of the vocabulary: 1 if it was allowed there, else 0. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#include "../flash.h"
#include <stdio.h>
#include <stdlib.h>

static char *read_whole(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    char *text = malloc(1 << 20);
    *bytes = f && text ? fread(text, 1, 1 << 20, f) : 0;
    if (!*bytes) {
        fprintf(stderr, "mkallowed: cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    return text;
}

static void walk(flash__reading *t, const flash_model *m, int text, int tokens, uint64_t *random)
{
    for (int i = 0; i < tokens; i++) {
        const uint32_t *mask = flash__mask(t, m);
        int32_t chosen = -1;
        uint32_t ways = 0;
        for (int32_t id = 0; id < (int32_t)m->vocab.n; id++) /* each allowed one equally likely */
            if (mask[id / 32] >> id % 32 & 1 && !(flash__random(random) % ++ways)) chosen = id;
        printf("%d %d ", text, (int)chosen);
        for (size_t id = 0; id < m->vocab.n; id++)
            putchar('0' + (int)(mask[id / 32] >> id % 32 & 1));
        putchar('\n');
        if (chosen < 0 || flash_token_is_end(m, chosen)) return;
        t->now = flash__read_token(t, m, chosen);
    }
}

int main(int argc, char **argv)
{
    flash_model_desc md = {0};
    flash_grammar_desc gd = {0};
    flash__arena a = {NULL, 0};
    flash_model *m = NULL;
    flash_grammar *g = NULL;
    flash_error err;
    uint64_t random = 1;
    if (argc < 3) {
        fprintf(stderr, "usage: mkallowed MODEL GRAMMAR.gbnf [TEXTS [TOKENS]]\n");
        return 2;
    }
    md.source.path = argv[1];
    md.vocab_only = 1;
    char *text = read_whole(argv[2], &gd.bytes);
    gd.text = text;
    if (flash_model_load(&m, &md, &err) || flash_grammar_create(&g, m, &gd, &err)) {
        fprintf(stderr, "mkallowed: %s\n", err.text);
        return 1;
    }
    m->arch.n_vocab = (int)m->vocab.n; /* as in a model with weights */
    flash__reading_plan(m, &a);
    a.base = malloc(a.used);
    a.used = 0;
    if (!a.base) return 1;
    flash__reading *t = flash__reading_plan(m, &a);
    for (int i = 0; i < (argc > 3 ? atoi(argv[3]) : 8); i++) {
        flash__reading_start(t, g, 0);
        walk(t, m, i, argc > 4 ? atoi(argv[4]) : 60, &random);
    }
    free(a.base);
    free(text);
    flash_grammar_free(g);
    flash_model_free(m);
    return 0;
}
