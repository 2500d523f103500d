/* cmd_perplexity.c - flash perplexity: measures how well a model predicts a text. */
#include "cli.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct score {
    const int32_t *window; /* [n] tokens */
    size_t n;
    double count, mean, squares; /* losses [nat]: number, mean, squared deviations (Welford) */
    double total;                /* number of tokens to score */
} score;

static void add_loss(void *user, int position, const float *logits, double log_sum)
{
    score *p = user;
    if ((size_t)position + 1 == p->n) return;
    double loss = log_sum - logits[p->window[position + 1]], d = loss - p->mean;
    p->mean += d / ++p->count;
    p->squares += d * (loss - p->mean);
    cli_progress("perplexity", p->count, p->total);
}

int cmd_perplexity(int argc, char **argv)
{
    const char *file = NULL;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    score p = {0};
    const cli_option options[] = {
        {"-f", "FILE", CLI_TEXT, &file, 0, 0, "text, - is standard input"},
        {"-c", "CTX", CLI_INT, &sd.n_ctx, 2, FLASH_CONTEXT_MAX, "window (as trained, at most 512)"},
        CLI_RUN_OPTIONS(md, sd),
        {0}};
    md.source.path = cli_parse(
        argc, argv, options,
        "The text (control tokens in it are plain text) is cut into windows of CTX tokens, which\n"
        "do not overlap and know nothing of each other. If the model begins texts with BOS, a\n"
        "window is BOS and CTX-1 tokens. All tokens but the first of each window are scored, also\n"
        "those of a shorter last one. Loss is -ln p, in nats; +- is the standard error of the\n"
        "mean over tokens. Perplexity is exp(mean loss), its error that of the loss times it.\n");
    if (!file) cli_usage("-f FILE is missing");

    size_t n, n_begin, bytes;
    flash_model *m = cli_load(&md);
    char *text = cli_read(file, &bytes);
    int32_t *ids = cli_tokenize(m, text, bytes, FLASH_TEXT_NO_BOS, &n);
    int32_t *begin = cli_tokenize(m, "", 0, 0, &n_begin); /* what the model wants before a text */
    size_t bos = n_begin > 0 && begin[0] == flash_token_bos(m);
    if (!sd.n_ctx) sd.n_ctx = flash_model_arch(m)->n_ctx < 512 ? flash_model_arch(m)->n_ctx : 512;
    sd.all_logits = 1;
    flash_session *s = cli_session(m, &sd);
    int32_t *window = malloc((size_t)sd.n_ctx * sizeof *window);
    if (!window) cli_fail("out of memory");
    size_t step = (size_t)sd.n_ctx - bos;
    if (bos) window[0] = begin[0];
    p.window = window;
    p.total = (double)n - (bos ? 0 : ceil((double)n / (double)step));
    if (p.total < 2)
        cli_fail("%s: too short, there are %.0f tokens to score", file, p.total < 0 ? 0 : p.total);
    cli_progress("perplexity", 0, p.total);
    for (size_t at = 0; at < n; at += step) {
        size_t take = n - at < step ? n - at : step;
        memcpy(window + bos, ids + at, take * sizeof *ids);
        p.n = bos + take;
        if (p.n > 1) cli_logits(s, m, window, p.n, add_loss, &p);
    }
    double error = sqrt(p.squares / (p.count - 1) / p.count), perplexity = exp(p.mean);
    printf("perplexity %.3f +- %.3f (mean loss %.4f +- %.4f nats over %.0f tokens)\n", perplexity,
           perplexity * error, p.mean, error, p.count);
    free(window);
    free(begin);
    free(ids);
    free(text);
    flash_session_free(s);
    flash_model_free(m);
    return 0;
}
