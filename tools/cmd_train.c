/* cmd_train.c - flash train: fits the weights of a model to text or to another model. */
#define _POSIX_C_SOURCE 200809L /* fileno, fsync */
#include "rewrite.h"
#include "shapes.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <unistd.h>
#endif

enum { HELD_OUT_MAX = 64, HEADER = 48 }; /* sequences; first line of a checkpoint [B] */

static volatile sig_atomic_t stop_signal;

static void on_stop(int sig)
{
    stop_signal = sig;
    signal(sig, SIG_DFL); /* a second signal ends the program at once */
}

typedef struct job {
    const char *out, *log;
    char *checkpoint;       /* file: OUT.checkpoint, `title` and what flash_trainer_save writes */
    char title[HEADER + 1]; /* see set_title */
    flash_trainer *t;
    flash_trainer_desc d;
    int32_t *ids; /* [n] tokens: n_learn to learn from, then the held-out ones */
    size_t n, n_learn;
    uint64_t seed;
    int32_t *tokens;  /* [sequences,n_ctx + 1] of one step */
    FILE *csv;        /* the file `log`; NULL if there is none */
    uint64_t step;    /* number of steps that are done */
    size_t sequences; /* in one step */
    int save_every;   /* time between checkpoints [s] */
} job;

static void *need(void *p)
{
    if (!p) cli_fail("out of memory");
    return p;
}

/* ---- data ----------------------------------------------------------------------------- */

static void add_texts(job *k, const flash_model *m, const cli_texts *files)
{
    size_t n;
    int32_t *ids = cli_text_ids(m, files, &n);
    k->ids = need(realloc(k->ids, (k->n + n) * sizeof *ids));
    memcpy(k->ids + k->n, ids, n * sizeof *ids);
    k->n += n;
    free(ids);
}

/* Copies the sequences of the next step to k->tokens. Where they begin depends on the seed and the
   number of the step alone, so that a training that is resumed draws the same sequences as one that
   ran through. */
static void draw(const job *k)
{
    size_t row = (size_t)k->d.n_ctx + 1;
    uint64_t state = k->seed * 0x9e3779b97f4a7c15u + k->step;
    for (size_t i = 0; i < k->sequences; i++) {
        size_t from = (size_t)(cli_random(&state) % (k->n_learn - row + 1));
        memcpy(k->tokens + i * row, k->ids + from, row * sizeof *k->ids);
    }
}

/* Sets *r to the losses on held-out text, of at most HELD_OUT_MAX sequences. */
static void held_out(const job *k, flash_trainer_report *r)
{
    size_t row = (size_t)k->d.n_ctx + 1, n = (k->n - k->n_learn) / row;
    if (flash_trainer_evaluate(k->t, k->ids + k->n_learn, n < HELD_OUT_MAX ? n : HELD_OUT_MAX, r))
        cli_fail("the loss of the held-out text is no number: the weights are too large%s",
                 k->step ? "; begin anew with a lower --lr" : "");
}

/* ---- checkpoints ---------------------------------------------------------------------- */

static int put(void *user, const void *data, size_t bytes)
{
    return fwrite(data, 1, bytes, user) != bytes;
}

/* Returns PATH.part; the caller frees it. */
static char *part_of(const char *path)
{
    char *part = need(malloc(strlen(path) + 6));
    return strcat(strcpy(part, path), ".part");
}

/* Closes f, the file `part`, and renames it to `path` once all of it is on the disk. Returns 1 if
   that fails. */
static int replace(const char *path, const char *part, FILE *f)
{
    int bad = fflush(f) || ferror(f);
#ifndef _WIN32
    bad = bad || fsync(fileno(f));
#endif
    bad = fclose(f) || bad;
#ifdef _WIN32
    if (!bad) remove(path);
#endif
    return bad || rename(part, path);
}

static void save(const job *k)
{
    char *part = part_of(k->checkpoint);
    FILE *f = fopen(part, "wb");
    int bad = !f || put(f, k->title, HEADER) || flash_trainer_save(k->t, put, f);
    if (f && bad) fclose(f);
    if (bad || replace(k->checkpoint, part, f)) {
        int why = errno;
        remove(part);
        cli_fail("cannot write %s: %s; the checkpoint before it is as it was", k->checkpoint,
                 strerror(why));
    }
    free(part);
}

/* Returns the FNV-1a hash h, continued with data. */
static uint64_t hash(uint64_t h, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) h = (h ^ ((const unsigned char *)data)[i]) * 1099511628211u;
    return h;
}

/* Continues h with a model (NULL: none): the size of its file, all that precedes the first tensor,
   and the first 4096 bytes of each tensor, so that not all of a large file has to be read. */
static uint64_t hash_model(uint64_t h, const flash_model *m)
{
    flash_tensor t;
    uint64_t bytes = m ? flash_gguf_size(flash_model_gguf(m)) : 0;
    h = hash(h, &bytes, sizeof bytes);
    for (size_t i = 0; m && !flash_gguf_tensor(flash_model_gguf(m), i, &t); i++) {
        if (!i) h = hash(h, t.data - t.offset, (size_t)t.offset);
        h = hash(h, t.data, t.bytes < 4096 ? (size_t)t.bytes : 4096);
    }
    return h;
}

/* Writes the first line of checkpoints to k->title: a hash of all that determines the weights. A
   checkpoint with another line is of other settings and cannot be resumed. */
static void set_title(job *k, const flash_model *m)
{
    const flash_trainer_desc *d = &k->d;
    double facts[] = {d->batch,
                      d->n_ctx,
                      d->accumulate,
                      d->kl_weight,
                      d->ce_weight,
                      d->temperature,
                      d->lr,
                      d->final_lr,
                      d->warmup,
                      d->steps,
                      d->weight_decay,
                      d->clip,
                      (double)(k->seed >> 32),
                      (double)(k->seed & 0xffffffffu),
                      (double)k->n_learn,
                      d->init != NULL};
    uint64_t h = hash(14695981039346656037u, facts, sizeof facts);
    h = hash(h, k->ids, k->n * sizeof *k->ids);
    h = hash_model(hash_model(h, m), d->teacher);
    snprintf(k->title, sizeof k->title, "flash train 1 %016llx%*s", (unsigned long long)h,
             HEADER - 30, "\n");
}

/* Loads the checkpoint, if there is one, and sets k->step to its number of steps. */
static void resume(job *k)
{
    FILE *f = fopen(k->checkpoint, "rb");
    flash_source source = {0};
    flash_error err;
    size_t bytes;
    if (!f && errno == ENOENT) return;
    if (f) fclose(f);
    char *file = cli_read(k->checkpoint, &bytes);
    if (bytes < HEADER || memcmp(file, "flash train 1 ", 14))
        cli_fail("%s is no checkpoint: remove it to begin anew", k->checkpoint);
    if (memcmp(file, k->title, HEADER))
        cli_fail("%s is of other data, models or options: remove it to begin anew", k->checkpoint);
    source.data = file + HEADER;
    source.bytes = bytes - HEADER;
    if (flash_trainer_load(k->t, &source, &err))
        cli_fail("%s: %s: remove it to begin anew", k->checkpoint, err.text);
    k->step = flash_trainer_steps(k->t);
    cli_note("goes on after step %llu of %d", (unsigned long long)k->step, k->d.steps);
    free(file);
}

/* Opens the log to append to it. Lines of steps after the checkpoint are removed first, as these
   steps are done again. */
static void open_log(job *k)
{
    static const char head[] = "step,tokens,lr,loss,ce,kl,grad_norm,held_out\n";
    FILE *old = k->step ? fopen(k->log, "rb") : NULL;
    char *text = NULL, *p, *line;
    size_t bytes;
    if (old) {
        fclose(old);
        text = cli_read(k->log, &bytes);
    }
    char *part = part_of(k->log);
    FILE *f = fopen(part, "wb");
    if (!f) cli_fail("cannot write %s: %s", k->log, strerror(errno));
    fputs(head, f);
    for (line = text; line && (p = strchr(line, '\n')) != NULL; line = p + 1)
        if (*line >= '0' && *line <= '9' && strtoull(line, NULL, 10) <= k->step)
            fwrite(line, 1, (size_t)(p + 1 - line), f);
    if (replace(k->log, part, f) || !(k->csv = fopen(k->log, "ab")))
        cli_fail("cannot write %s: %s", k->log, strerror(errno));
    free(part);
    free(text);
}

/* ---- training ------------------------------------------------------------------------- */

static void show(const job *k, const flash_trainer_report *r, double mean, double speed,
                 double held)
{
    double left = (double)((uint64_t)k->d.steps - r->step) * (double)k->sequences * k->d.n_ctx
        / speed;
    if (cli_is_terminal(stderr)) {
        fprintf(stderr, "\rstep %llu/%d: loss %.4f, held out %.4f, %.0f tok/s, %.0f:%02.0f left   ",
                (unsigned long long)r->step, k->d.steps, mean, held, speed, floor(left / 60),
                floor(fmod(left, 60)));
        fflush(stderr);
    }
}

static void wipe(void)
{
    if (cli_is_terminal(stderr)) fprintf(stderr, "\r%78s\r", "");
}

static void learn(job *k, int every)
{
    flash_trainer_report r = {0}, h = {0};
    double mean = 0, weight = 0, from = cli_seconds(), saved = from, shown = 0;
    uint64_t first = k->step;
    held_out(k, &h);
    printf("step %llu held out %.4f\n", (unsigned long long)first, h.ce);
    fflush(stdout);
    while (k->step < (uint64_t)k->d.steps) {
        draw(k);
        flash_status status = flash_trainer_step(k->t, k->tokens, &r);
        if (status) {
            wipe();
            save(k);
            cli_fail("step %llu: loss or gradient is no number; the step before it is in %s: "
                     "remove it and begin anew with a lower --lr",
                     (unsigned long long)k->step + 1, k->checkpoint);
        }
        k->step = r.step;
        mean = 0.98 * mean + 0.02 * r.loss;
        weight = 0.98 * weight + 0.02;
        int look = k->step % (uint64_t)every == 0 || k->step == (uint64_t)k->d.steps;
        if (look) held_out(k, &h);
        double now = cli_seconds(), seconds = now - from;
        if (k->csv) {
            fprintf(k->csv, "%llu,%llu,%.6g,%.6f,%.6f,%.6f,%.5g,", (unsigned long long)r.step,
                    (unsigned long long)r.tokens, r.lr, r.loss, r.ce, r.kl, r.grad_norm);
            fprintf(k->csv, look ? "%.6f\n" : "\n", h.ce);
            if (fflush(k->csv)) cli_fail("cannot write %s: %s", k->log, strerror(errno));
        }
        if (look) {
            wipe();
            printf("step %llu loss %.4f held out %.4f", (unsigned long long)k->step, mean / weight,
                   h.ce);
            if (k->d.teacher) printf(" kl %.4f", h.kl);
            putchar('\n');
            fflush(stdout);
        }
        if (seconds > 2 && now > shown + 1) {
            show(k, &r, mean / weight,
                 (double)(k->step - first) * (double)k->sequences * k->d.n_ctx / seconds, h.ce);
            shown = now;
        }
        if (stop_signal || now - saved >= k->save_every) {
            save(k);
            saved = cli_seconds();
        }
        if (stop_signal) {
            wipe();
            cli_note("stopped after step %llu of %d; the same command goes on",
                     (unsigned long long)k->step, k->d.steps);
            exit(128 + stop_signal);
        }
    }
    wipe();
}

static const float *weights_of(void *user, const char *name)
{
    const flash_trainer *t = user;
    flash_trainer_tensor w;
    for (size_t i = 0; !flash_trainer_weights(t, i, &w); i++)
        if (!strcmp(w.name, name)) return w.data;
    return NULL;
}

/* ---- a new model ---------------------------------------------------------------------- */

/* Returns a model file in memory: random weights of the shape `text`, and the vocabulary of the
   model file `vocabulary` or, if that is NULL, one learned from the texts. The caller frees its
   data. */
static cli_image new_model(const char *text, const char *arch, const char *attn,
                           const char *vocabulary, const cli_texts *files)
{
    static cli_shape shape; /* static as it is large */
    const char *why;
    cli_image to = {0};
    flash_gguf_writer w = {0};
    cli_vocabulary v = {0};
    flash_model_desc md = {0};
    flash_model *m = NULL;
    size_t bytes;
    if (!cli_shape_parse(text, arch, attn, &shape, &why))
        cli_usage("--new %s: %s; want d=N,layers=N,heads=N,kv=N,head=N,ffn=N,vocab=N,ctx=N,tied=0 "
                  "with kv a divisor of heads and an even head",
                  text, why);
    if (vocabulary) {
        flash_value tokens;
        md.source.path = vocabulary;
        md.vocab_only = 1;
        m = cli_load(&md);
        v.from = flash_model_gguf(m);
        if (!flash_gguf_find(v.from, "tokenizer.ggml.tokens", &tokens))
            shape.vocab = (int)tokens.count;
    } else {
        if (shape.vocab <= CLI_VOCABULARY_FIXED)
            cli_usage("--new %s: vocab must be above %d", text, CLI_VOCABULARY_FIXED);
        char *texts = cli_read_texts(files, &bytes);
        cli_vocabulary_learn(&v, shape.vocab, texts, bytes);
        free(texts);
    }
    w.write = cli_image_add;
    w.user = &to;
    cli_make_gguf(&w, &shape, &v, FLASH_TYPE_F32, 1, 1);
    flash_gguf_write_end(&w);
    cli_vocabulary_free(&v);
    flash_model_free(m);
    return to;
}

/* Fails if the file path, which is to be written, is one of the files that are read. what: its name
   in messages. */
static void not_read(const char *what, const char *path, const cli_texts texts[2],
                     const char *const models[3])
{
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < texts[i].n; j++)
            if (cli_same_file(texts[i].at[j], path))
                cli_usage("%s is a text that is read, %s", what, path);
    for (int i = 0; i < 3; i++)
        if (models[i] && cli_same_file(models[i], path))
            cli_usage("%s is a model that is read, %s", what, path);
    cli_may_write(path);
}

int cmd_train(int argc, char **argv)
{
    const char *path, *fresh = NULL, *arch = NULL, *attn = NULL, *teacher = NULL, *type = "F32";
    const char *vocabulary = NULL;
    static cli_texts texts[2];
    cli_texts *data = &texts[0], *other = &texts[1];
    int every = 0;
    float lr = 0, decay = 0.1f, clip = 1, final_lr = 0.1f, kl = -1, ce = -1;
    job k = {0};
    cli_image file = {0};
    flash_model_desc md = {0};
    char size[24];
    flash_error err;
    k.seed = 1;
    k.d.batch = 8;
    k.d.accumulate = 1;
    k.d.steps = 400;
    k.d.warmup = -1;
    k.d.threads = 1;
    k.d.temperature = 1;
    k.save_every = 30;
    const cli_option options[] = {
        {"-o", "OUT", CLI_TEXT, &k.out, 0, 0, "the model that comes of it"},
        {"--data", "FILE...", CLI_TEXTS, data, 0, 0, "text to learn from, - is standard input"},
        {"--held-out", "FILE...", CLI_TEXTS, other, 0, 0,
         "text for the held-out loss (the last twentieth of the data)"},
        {"--teacher", "MODEL", CLI_TEXT, &teacher, 0, 0, "a model whose probabilities are learned"},
        {"--new", "SHAPE", CLI_TEXT, &fresh, 0, 0, "random weights in place of MODEL, see below"},
        {"--arch", "ARCH", CLI_TEXT, &arch, 0, 0, "of --new (llama)"},
        {"--attn", "LIST", CLI_TEXT, &attn, 0, 0, "what layers of --new do, as in flash make"},
        {"--vocab", "FILE", CLI_TEXT, &vocabulary, 0, 0,
         "a model, as the teacher, whose vocabulary --new takes instead of learning one"},
        {"--steps", "N", CLI_INT, &k.d.steps, 1, 1e9, "changes of the weights (400)"},
        {"--batch", "N", CLI_INT, &k.d.batch, 1, 1 << 16, "sequences worked on together (8)"},
        {"--accumulate", "N", CLI_INT, &k.d.accumulate, 1, 1 << 16, "such batches in a step (1)"},
        {"--ctx", "N", CLI_INT, &k.d.n_ctx, 2, FLASH_CONTEXT_MAX,
         "tokens of a sequence (as trained, at most 256)"},
        {"--lr", "X", CLI_FLOAT, &lr, 1e-9, 10, "learning rate (2e-4; with --new 1e-3)"},
        {"--final-lr", "X", CLI_FLOAT, &final_lr, 0, 1, "the last step's share of it (0.1)"},
        {"--warmup", "N", CLI_INT, &k.d.warmup, 0, 1e9,
         "steps until it is reached (a tenth, at most 100)"},
        {"--weight-decay", "X", CLI_FLOAT, &decay, 0, 10, "of matrices (0.1)"},
        {"--clip", "X", CLI_FLOAT, &clip, 0, 1e9, "longest gradient (1; 0: any)"},
        {"--kl", "X", CLI_FLOAT, &kl, 0, 1e6, "weight of the teacher (1)"},
        {"--ce", "X", CLI_FLOAT, &ce, 0, 1e6, "weight of the text (0 with a teacher, else 1)"},
        {"--temperature", "X", CLI_FLOAT, &k.d.temperature, 0.01, 100,
         "of both models' probabilities (1)"},
        {"--seed", "N", CLI_SEED, &k.seed, 0, 18446744073709551615.0,
         "of the order of text, and of new weights (1)"},
        {"--eval-every", "N", CLI_INT, &every, 1, 1e9, "steps between held-out losses (a tenth)"},
        {"--save-every", "SECONDS", CLI_INT, &k.save_every, 0, 1e9,
         "between checkpoints (30; 0: every step)"},
        {"--log", "CSV", CLI_TEXT, &k.log, 0, 0, "a line for each step"},
        {"--type", "TYPE", CLI_TEXT, &type, 0, 0, "of the matrices of OUT (F32)"},
        {"-t", "THREADS", CLI_INT, &k.d.threads, 1, FLASH_THREADS_MAX, "threads (1)"},
        {"--isa", "NAME", CLI_ISA, &k.d.isa, 0, 0, "instruction set (the best here):"},
        {0}};
    cli_parse_all(
        argc, argv, options, "[MODEL]",
        "Cross-entropy of the next token, or with --teacher the divergence from its\n"
        "probabilities, lowered by AdamW, with warm-up and half a cosine. Losses are in nats a\n"
        "token; the held-out one is of text that is not learned from, at most 64 sequences. Texts\n"
        "are parted by <|endoftext|>. What is done so far is in OUT.checkpoint, now and then and\n"
        "after Ctrl-C: the same command goes on, and gives the same bits for any number of\n"
        "threads. SHAPE is as in flash make; its vocabulary is learned from the data first, as by\n"
        "flash vocab, or that of --vocab, of any size.\n"
        "  flash train pruned.gguf --data stories.txt --teacher full.gguf -t 2 -o healed.gguf\n"
        "  flash train --new d=128,layers=6,heads=4,kv=2,ffn=352,vocab=1024,tied=1,ctx=512 \\\n"
        "      --data stories.txt --steps 5000 -o tale.gguf --type Q8_0\n",
        &path);
    if (!data->n || !k.out) cli_usage("%s is missing", data->n ? "-o OUT" : "--data FILE");
    if (!path == !fresh)
        cli_usage(path ? "MODEL or --new, not both" : "which MODEL? (or --new SHAPE)");
    if (!fresh && (arch || attn || vocabulary))
        cli_usage("--arch, --attn and --vocab go with --new");
    flash_type want = cli_type("--type", type, 0);
    const char *const models[3] = {path, teacher, vocabulary};
    k.checkpoint = need(malloc(strlen(k.out) + 16));
    strcat(strcpy(k.checkpoint, k.out), ".checkpoint");
    not_read("OUT", k.out, texts, models);
    not_read("OUT.checkpoint", k.checkpoint, texts, models);
    if (k.log) {
        not_read("--log", k.log, texts, models);
        if (cli_same_file(k.log, k.out) || cli_same_file(k.log, k.checkpoint))
            cli_usage("--log is OUT or OUT.checkpoint, %s", k.log);
    }

    if (fresh) {
        file = new_model(fresh, arch, attn, vocabulary, data);
        md.source.data = file.data;
        md.source.bytes = file.bytes;
    }
    md.source.path = path;
    md.isa = k.d.isa;
    flash_model *m = cli_load(&md), *by = NULL;
    if (teacher) {
        memset(&md.source, 0, sizeof md.source);
        md.source.path = teacher;
        by = cli_load(&md);
        cli_same_vocabulary(m, path ? path : "the new model", by, teacher);
    }
    add_texts(&k, m, data);
    k.n_learn = k.n;
    if (other->n) add_texts(&k, m, other);
    if (fresh)
        k.d.arch = flash_model_arch(m);
    else
        k.d.init = m;
    k.d.teacher = by;
    k.d.seed = k.seed ? k.seed : 1;
    k.d.lr = lr > 0 ? lr : fresh ? 1e-3f : 2e-4f;
    k.d.final_lr = final_lr > 0 ? final_lr : -1;
    k.d.weight_decay = decay;
    k.d.clip = clip > 0 ? clip : -1;
    k.d.kl_weight = kl >= 0 ? kl : by ? 1 : 0;
    k.d.ce_weight = ce >= 0 ? ce : by ? 0 : 1;
    if (k.d.kl_weight > 0 && !by) cli_usage("--kl without --teacher");
    if (!(k.d.kl_weight > 0) && !(k.d.ce_weight > 0)) cli_usage("--kl and --ce: nothing to learn");
    if (!k.d.n_ctx) k.d.n_ctx = flash_model_arch(m)->n_ctx < 256 ? flash_model_arch(m)->n_ctx : 256;
    if (k.d.warmup < 0) k.d.warmup = k.d.steps / 10 < 100 ? k.d.steps / 10 : 100;
    if (!every) every = k.d.steps / 10 > 0 ? k.d.steps / 10 : 1;
    size_t row = (size_t)k.d.n_ctx + 1, rest = k.n / 20 / row;
    if (!other->n) {
        rest = rest < 1 ? 1 : rest > HELD_OUT_MAX ? HELD_OUT_MAX : rest;
        k.n_learn = k.n < rest * row ? 0 : k.n - rest * row;
    }
    if (k.n_learn < row || k.n - k.n_learn < row)
        cli_fail("%s: %lu tokens; sequences of %d need %lu at least: give more text, or a smaller "
                 "--ctx",
                 k.n_learn < row || !other->n ? data->at[0] : other->at[0],
                 (unsigned long)(k.n_learn < row ? k.n_learn : k.n - k.n_learn), k.d.n_ctx,
                 (unsigned long)row);
    k.sequences = (size_t)k.d.batch * (size_t)k.d.accumulate;
    k.tokens = need(malloc(k.sequences * row * sizeof *k.tokens));
    size_t bytes = flash_trainer_memory(&k.d, &err);
    if (!bytes || flash_trainer_create(&k.t, &k.d, &err))
        cli_fail("%s: %s", path ? path : fresh, err.text);
    set_title(&k, m);
    resume(&k);
    if (!k.step) { /* a file that cannot be written is reported before the training, not after it */
        save(&k);
        remove(k.checkpoint);
    }
    if (k.log) open_log(&k);
    printf("%lu tokens, %lu held out; %lu a step; %s of memory\n", (unsigned long)k.n_learn,
           (unsigned long)(k.n - k.n_learn), (unsigned long)(k.sequences * (row - 1)),
           cli_size(bytes, size));
    signal(SIGINT, on_stop);
    signal(SIGTERM, on_stop);
    learn(&k, every);
    if (k.csv && fclose(k.csv)) cli_fail("cannot write %s: %s", k.log, strerror(errno));
    save(&k); /* keeps the weights if OUT cannot be written */
    cli_rewrite_weights(flash_model_gguf(m), k.out, want, weights_of, k.t);
    remove(k.checkpoint);
    flash_trainer_free(k.t);
    flash_model_free(m);
    flash_model_free(by);
    free(k.ids);
    free(k.tokens);
    free(k.checkpoint);
    free(file.data);
    return 0;
}
