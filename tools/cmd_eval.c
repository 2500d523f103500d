/* cmd_eval.c - flash eval: loss, divergence from another model, accuracy on test items. */
#include "cli.h"
#include "json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MODELS = 2, CHUNK = 32, CHOICES = 4 };

/* What the models say of one token. */
typedef struct value {
    double loss[MODELS], kl; /* [nat]; kl: of the reference from the model */
    int best[MODELS];        /* token of the largest logit */
} value;

/* A mean over tokens or items. Its error comes from the sums s and counts n of groups (windows of
   text, items), as the tokens of one group are not independent. */
typedef struct mean {
    double sum, count, squares, crossed, counts, groups; /* sums of s, n, s^2, s n, n^2, 1 */
} mean;

typedef struct eval {
    const char *name[MODELS];
    flash_model *m[MODELS];
    flash_session *s[MODELS];
    int models, n_ctx, cut; /* cut: number of texts that were too long */
    int32_t *ids;           /* [n_ctx] tokens to run */
    value *got;             /* [n_ctx], of the token at each position; none at 0 */
} eval;

static void *need(void *p)
{
    if (!p) cli_fail("out of memory");
    return p;
}

/* Adds a group to a mean. */
static void add(mean *a, double sum, double count)
{
    a->sum += sum;
    a->count += count;
    a->squares += sum * sum;
    a->crossed += sum * count;
    a->counts += count * count;
    a->groups++;
}

static double mean_of(const mean *a) { return a->sum / a->count; }

/* Returns the standard error of a mean, a ratio of sums (Cochran 1977, Sampling Techniques, 6.4);
   NaN of fewer than 2 groups. */
static double error_of(const mean *a)
{
    double r = mean_of(a), s = a->squares - 2 * r * a->crossed + r * r * a->counts;
    return a->groups < 2 ? NAN : sqrt(fmax(s, 0) * a->groups / (a->groups - 1)) / a->count;
}

/* ---- running the models --------------------------------------------------------------- */

/* Sets loss and best token of model k in v: x, [V], are the logits before the token `next`. Returns
   the log of the sum of exp(x). */
static double look(const float *x, int V, int32_t next, value *v, int k)
{
    double sum = 0;
    int best = 0;
    for (int i = 1; i < V; i++)
        if (x[i] > x[best]) best = i;
    for (int i = 0; i < V; i++) sum += exp(x[i] - x[best]);
    if (!(sum >= 1 && sum <= V)) cli_fail("the logits are no numbers: the weights are damaged");
    v->best[k] = best;
    sum = x[best] + log(sum);
    v->loss[k] = sum - x[next];
    return sum;
}

/* Runs the models on the n ids in e->ids, and sets e->got[from .. n - 1]; from is at least 1. */
static void run(eval *e, int n, int from)
{
    int V = flash_model_arch(e->m[0])->n_vocab, first, rows;
    for (int k = 0; k < e->models; k++) {
        flash_session_reset(e->s[k]);
        flash_session_feed(e->s[k], e->ids, (size_t)n - 1); /* nothing follows the last one */
    }
    while (flash_session_pending(e->s[0])) {
        const float *x[MODELS];
        for (int k = 0; k < e->models; k++) {
            flash_status st = flash_session_step(e->s[k], NULL);
            x[k] = flash_session_chunk_logits(e->s[k], &first, &rows);
            if (st < 0 || !x[k]) cli_fail("cannot run %s: %s", e->name[k], flash_status_text(st));
        }
        for (int r = 0; r < rows; r++, first++) {
            value *v = e->got + first + 1;
            double log_sum[MODELS];
            if (first + 1 < from) continue;
            for (int k = 0; k < e->models; k++)
                log_sum[k] = look(x[k] + (size_t)r * (size_t)V, V, e->ids[first + 1], v, k);
            v->kl = 0;
            if (e->models < 2) continue;
            const float *p = x[1] + (size_t)r * (size_t)V, *q = x[0] + (size_t)r * (size_t)V;
            for (int i = 0; i < V; i++)
                v->kl += exp(p[i] - log_sum[1]) * (p[i] - log_sum[1] - q[i] + log_sum[0]);
        }
    }
}

/* Runs context and more as one text. Returns the index in e->ids of the first token that is not the
   context's; *n becomes the number of ids. A text that is too long loses its beginning. */
static int run_pair(eval *e, const char *context, const char *more, int *n)
{
    size_t a = strlen(context), b = strlen(more), n_context, n_all, same = 0;
    char *text = need(malloc(a + b + 1));
    memcpy(text, context, a);
    memcpy(text + a, more, b + 1);
    int32_t *all = cli_tokenize(e->m[0], text, a + b, 0, &n_all);
    int32_t *part = cli_tokenize(e->m[0], text, a, 0, &n_context);
    if (n_all && all[n_all - 1] == flash_token_eos(e->m[0]))
        n_all--; /* the model wants EOS after texts */
    while (same < n_context && same < n_all && all[same] == part[same]) same++;
    if (same == n_all) same = n_all - 1; /* nothing new: `more` is empty */
    size_t drop = n_all > (size_t)e->n_ctx ? n_all - (size_t)e->n_ctx : 0;
    e->cut += drop > 0;
    memcpy(e->ids, all + drop, (n_all - drop) * sizeof *all);
    if (drop && n_all && all[0] == flash_token_bos(e->m[0])) e->ids[0] = all[0];
    *n = (int)(n_all - drop);
    int from = same > drop + 1 ? (int)(same - drop) : 1;
    if (*n > 1) run(e, *n, from);
    free(all);
    free(part);
    free(text);
    return from;
}

/* ---- what is printed ------------------------------------------------------------------ */

static void print_share(const char *what, const mean *a)
{
    printf(", %s %.2f +- %.2f %%", what, 100 * mean_of(a), 100 * error_of(a));
}

/* ---- text ------------------------------------------------------------------------------ */

static void eval_text(eval *e, const char *path)
{
    size_t bytes, n, n_begin;
    char *text = cli_read(path, &bytes);
    int32_t *ids = cli_tokenize(e->m[0], text, bytes, FLASH_TEXT_NO_BOS, &n);
    int32_t *begin = cli_tokenize(e->m[0], "", 0, 0, &n_begin);
    size_t bos = n_begin > 0 && begin[0] == flash_token_bos(e->m[0]);
    size_t step = (size_t)e->n_ctx - bos;
    mean loss[MODELS] = {{0}}, more = {0}, kl = {0}, same = {0};
    if (bos) e->ids[0] = begin[0];
    if (n + bos < 2) cli_fail("%s: too short, nothing to score", path);
    cli_progress("eval", 0, (double)n);
    for (size_t at = 0; at < n; at += step) {
        size_t take = n - at < step ? n - at : step;
        int all = (int)(bos + take);
        double sum[MODELS] = {0, 0}, divergence = 0, equal = 0;
        memcpy(e->ids + bos, ids + at, take * sizeof *ids);
        if (all < 2) continue;
        run(e, all, 1);
        for (int i = 1; i < all; i++) {
            for (int k = 0; k < e->models; k++) sum[k] += e->got[i].loss[k];
            divergence += e->got[i].kl;
            equal += e->models == 2 && e->got[i].best[0] == e->got[i].best[1];
        }
        for (int k = 0; k < e->models; k++) add(loss + k, sum[k], all - 1);
        add(&more, sum[0] - sum[1], all - 1);
        add(&kl, divergence, all - 1);
        add(&same, equal, all - 1);
        cli_progress("eval", (double)(at + take), (double)n);
    }
    for (int k = 0; k < e->models; k++)
        printf("%s: loss %.4f +- %.4f nats a token (%.0f tokens), %.4f bits a byte\n", e->name[k],
               mean_of(loss + k), error_of(loss + k), loss[k].count,
               loss[k].sum / log(2) / (double)bytes);
    if (e->models == 2) {
        printf("difference %.4f +- %.4f, KL %.4f +- %.4f nats a token", mean_of(&more),
               error_of(&more), mean_of(&kl), error_of(&kl));
        print_share("same first choice", &same);
        putchar('\n');
    }
    free(text);
    free(ids);
    free(begin);
}

/* ---- items ----------------------------------------------------------------------------- */

static void print_items(const eval *e, const char *what[2], mean right[MODELS][2], mean more[2],
                        const mean *loss)
{
    for (int k = 0; k < e->models; k++) {
        printf("%s: %.0f items", e->name[k], right[k][0].count);
        for (int i = 0; i < 2 && what[i]; i++) print_share(what[i], right[k] + i);
        if (loss) printf(", loss %.4f +- %.4f nats a word", mean_of(loss + k), error_of(loss + k));
        putchar('\n');
    }
    if (e->models == 2) {
        printf("difference on the same items");
        for (int i = 0; i < 2 && what[i]; i++) print_share(what[i], more + i);
        putchar('\n');
    }
    if (e->cut)
        cli_note("%d texts lost their beginning: they have more than %d tokens", e->cut, e->n_ctx);
}

/* Returns the line at *p, without its end, and moves *p behind it; NULL at the end of the text. */
static char *next_line(char **p)
{
    char *line = *p, *end = strchr(line, '\n');
    if (!*line) return NULL;
    *p = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    if (end && end > line && end[-1] == '\r') end[-1] = 0;
    return line;
}

/* Returns 1 if item i of n is among the `want` that are scored, evenly spread; want 0: all. */
static int among(long i, long n, long want)
{
    return !want || want >= n || i * want / n != (i + 1) * want / n;
}

/* Returns the number of characters of UTF-8 text, but at least 1. */
static double characters(const char *p)
{
    double n = 0;
    for (; *p; p++) n += ((unsigned char)*p & 0xc0) != 0x80;
    return n > 1 ? n : 1;
}

/* Scores items of HellaSwag. The model chooses the ending with the least loss, in all or by
   character: the scores acc and acc_norm of EleutherAI's lm-evaluation-harness, which does not
   count the space before an ending. */
static void eval_hellaswag(eval *e, const char *path, long want)
{
    static const char *what[2] = {"accuracy", "by characters"};
    size_t bytes;
    char *text = cli_read(path, &bytes), *p = text, *line;
    mean right[MODELS][2] = {{{0}}}, more[2] = {{0}};
    long lines = 0, n;
    for (char *q = text; (q = strchr(q, '\n')) != NULL; q++) lines++;
    n = (lines + (bytes && text[bytes - 1] != '\n')) / (CHOICES + 2);
    cli_progress("eval", 0, (double)n);
    for (long i = 0, at = 0; (line = next_line(&p)) != NULL; i++, at += CHOICES + 2) {
        const char *gold = next_line(&p), *ending[CHOICES] = {0};
        for (int c = 0; c < CHOICES; c++) ending[c] = next_line(&p);
        if (!ending[CHOICES - 1] || !*line || gold[0] < '0' || gold[0] > '3' || gold[1])
            cli_fail("%s: lines %ld to %ld are no item: a text, 0 to 3, and 4 endings", path,
                     at + 1, at + CHOICES + 2);
        if (!among(i, n, want)) continue;
        double least[MODELS][2], good[MODELS][2] = {{0}};
        for (int c = 0; c < CHOICES; c++) {
            char *with = need(malloc(strlen(ending[c]) + 2));
            double sum[MODELS] = {0, 0};
            int all, from;
            strcat(strcpy(with, " "), ending[c]);
            from = run_pair(e, line, with, &all);
            for (int k = 0; k < e->models; k++) {
                for (int j = from; j < all; j++) sum[k] += e->got[j].loss[k];
                for (int way = 0; way < 2; way++) {
                    double v = way ? sum[k] / characters(ending[c]) : sum[k];
                    if (c && !(v < least[k][way])) continue;
                    least[k][way] = v;
                    good[k][way] = c == gold[0] - '0';
                }
            }
            free(with);
        }
        for (int way = 0; way < 2; way++) {
            for (int k = 0; k < e->models; k++) add(&right[k][way], good[k][way], 1);
            add(more + way, good[0][way] - good[1][way], 1);
        }
        cli_progress("eval", (double)i + 1, (double)n);
    }
    if (!right[0][0].count) cli_fail("%s: no items", path);
    print_items(e, what, right, more, NULL);
    free(text);
}

/* Scores the last word of each text of LAMBADA, which is right if all its tokens are the most
   probable ones. */
static void eval_lambada(eval *e, const char *path, long want)
{
    static const char *what[2] = {"accuracy", NULL};
    size_t bytes;
    char *text = cli_read(path, &bytes), *p = text, *line;
    mean right[MODELS][2] = {{{0}}}, more[2] = {{0}}, loss[MODELS] = {{0}};
    long n = bytes && text[bytes - 1] != '\n';
    for (char *q = text; (q = strchr(q, '\n')) != NULL; q++) n++;
    cli_progress("eval", 0, (double)n);
    for (long i = 0; (line = next_line(&p)) != NULL; i++) {
        json_error err;
        json *j = json_read(line, strlen(line), 0, &err);
        const json *t = j && j->type == JSON_OBJECT ? json_get(j, "text") : NULL;
        char *space = t && t->type == JSON_TEXT ? strrchr(t->text, ' ') : NULL;
        if (!space || space == t->text || !space[1])
            cli_fail("%s: line %ld is no {\"text\": \"...\"} of several words", path, i + 1);
        if (among(i, n, want)) {
            char *word = need(malloc(strlen(space) + 1));
            double good[MODELS] = {1, 1};
            int all, from;
            strcpy(word, space);
            *space = 0;
            from = run_pair(e, t->text, word, &all);
            for (int k = 0; k < e->models; k++) {
                double sum = 0;
                for (int at = from; at < all; at++) {
                    sum += e->got[at].loss[k];
                    good[k] *= e->got[at].best[k] == e->ids[at];
                }
                add(&right[k][0], good[k], 1);
                add(loss + k, sum, 1);
            }
            add(more, good[0] - good[1] * (e->models == 2), 1);
            free(word);
        }
        json_free(j);
        cli_progress("eval", (double)i + 1, (double)n);
    }
    if (!right[0][0].count) cli_fail("%s: no items", path);
    print_items(e, what, right, more, loss);
    free(text);
}

int cmd_eval(int argc, char **argv)
{
    const char *text = NULL, *hellaswag = NULL, *lambada = NULL, *reference = NULL;
    int items = 0;
    eval e = {0};
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    const cli_option options[] = {
        {"--text", "FILE", CLI_TEXT, &text, 0, 0, "loss on a text, - is standard input"},
        {"--hellaswag", "FILE", CLI_TEXT, &hellaswag, 0, 0, "items of a text and 4 endings"},
        {"--lambada", "FILE", CLI_TEXT, &lambada, 0, 0, "last words, JSON lines"},
        {"--reference", "MODEL", CLI_TEXT, &reference, 0, 0,
         "compare with it, token by token and item by item"},
        {"--items", "N", CLI_INT, &items, 1, 1e9, "only so many, evenly spread (all)"},
        {"-c", "CTX", CLI_INT, &sd.n_ctx, 2, FLASH_CONTEXT_MAX,
         "context (as trained, at most 512; of items 1024)"},
        CLI_RUN_OPTIONS(md, sd),
        {0}};
    e.name[0] = cli_parse(
        argc, argv, options,
        "A text is cut into windows of CTX tokens as by flash perplexity. KL is that of the\n"
        "reference from MODEL. +- is the standard error: of the mean over windows or items, of\n"
        "differences on the same ones. An item of HellaSwag is 6 lines, text, number of the right\n"
        "ending (0 to 3), 4 endings, and counts as right by the least loss of an ending, in all\n"
        "and by character; one of LAMBADA is {\"text\": \"...\"}, and right if the last word is\n"
        "what the model would write. KL and differences need a reference with the same\n"
        "vocabulary.\n");
    if (!text + !hellaswag + !lambada != 2) cli_usage("one of --text, --hellaswag and --lambada");
    e.name[1] = reference;
    e.models = reference ? 2 : 1;
    for (int k = 0; k < e.models; k++) {
        md.source.path = e.name[k];
        e.m[k] = cli_load(&md);
    }
    const flash_arch *a = flash_model_arch(e.m[0]);
    if (reference) cli_same_vocabulary(e.m[0], e.name[0], e.m[1], reference);
    e.n_ctx = sd.n_ctx ? sd.n_ctx : text ? 512 : 1024;
    if (!sd.n_ctx && a->n_ctx < e.n_ctx) e.n_ctx = a->n_ctx;
    sd.n_ctx = e.n_ctx;
    sd.chunk = CHUNK;
    sd.all_logits = 1;
    for (int k = 0; k < e.models; k++) e.s[k] = cli_session(e.m[k], &sd);
    e.ids = need(malloc((size_t)e.n_ctx * sizeof *e.ids));
    e.got = need(malloc((size_t)e.n_ctx * sizeof *e.got));
    if (text)
        eval_text(&e, text);
    else if (hellaswag)
        eval_hellaswag(&e, hellaswag, items);
    else
        eval_lambada(&e, lambada, items);
    for (int k = 0; k < e.models; k++) {
        flash_session_free(e.s[k]);
        flash_model_free(e.m[k]);
    }
    free(e.ids);
    free(e.got);
    return 0;
}
