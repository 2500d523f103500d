/* cmd_probs.c - flash probs: prints the most probable next tokens of every position as JSON. */
#include "cli.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct candidate {
    float logit;
    int id;
} candidate;

typedef struct probs {
    const int32_t *ids;
    candidate *order; /* [V] all tokens, the most probable first */
    int V, top;       /* size of the vocabulary; how many to print */
} probs;

static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit) : x->id - y->id;
}

static void print_line(void *user, int position, const float *logits, double log_sum)
{
    probs *p = user;
    for (int i = 0; i < p->V; i++) {
        p->order[i].logit = logits[i];
        p->order[i].id = i;
    }
    qsort(p->order, (size_t)p->V, sizeof *p->order, by_logit);
    printf("{\"pos\":%d,\"token\":%ld,\"top\":[", position, (long)p->ids[position]);
    for (int i = 0; i < p->top && i < p->V; i++)
        printf("%s[%d,%.9g]", i ? "," : "", p->order[i].id, exp(p->order[i].logit - log_sum));
    puts("]}");
}

int cmd_probs(int argc, char **argv)
{
    const char *tokens = NULL, *text = NULL;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    probs p = {0};
    const cli_option options[] = {
        {"--tokens", "1,2,3", CLI_TEXT, &tokens, 0, 0, "token ids, or"},
        {"--text", "TEXT", CLI_TEXT, &text, 0, 0, "text, its control tokens read as such"},
        {"--top", "N", CLI_INT, &p.top, 1, FLASH_VOCAB_MAX, "so many tokens a position (20)"},
        CLI_RUN_OPTIONS(md, sd),
        {0}};
    p.top = 20;
    md.source.path = cli_parse(
        argc, argv, options,
        "A line a position, best first: {\"pos\":0,\"token\":1,\"top\":[[ID,PROBABILITY],...]}\n");
    if (!tokens == !text) cli_usage("--tokens or --text, one of them");

    size_t n;
    flash_model *m = cli_load(&md);
    int32_t *ids = tokens ? cli_ids(m, tokens, &n)
                          : cli_tokenize(m, text, strlen(text), FLASH_TEXT_SPECIAL, &n);
    if (n < 1 || n > FLASH_CONTEXT_MAX)
        cli_fail("%lu tokens: want 1 to %d", (unsigned long)n, FLASH_CONTEXT_MAX);
    sd.n_ctx = (int)n;
    sd.all_logits = 1;
    flash_session *s = cli_session(m, &sd);
    p.ids = ids;
    p.V = flash_model_arch(m)->n_vocab;
    p.order = malloc((size_t)p.V * sizeof *p.order);
    if (!p.order) cli_fail("out of memory");
    cli_logits(s, m, ids, n, print_line, &p);
    free(p.order);
    free(ids);
    flash_session_free(s);
    flash_model_free(m);
    return 0;
}
