/* cli.h - what the subcommands of flash share: options, files, errors, progress. */
#ifndef FLASH_CLI_H
#define FLASH_CLI_H

#include "../flash.h"
#include <signal.h>
#include <stdio.h>

/* One list: prototypes, dispatch and `flash help` come from it. cmd_X is in cmd_X.c and returns the
   exit status. */
#define CLI_COMMANDS(X) \
    X(run,        "write text: continue a prompt, or begin one") \
    X(chat,       "talk with a model") \
    X(info,       "what a GGUF file is, and the memory it needs") \
    X(tokenize,   "text to token ids, and back") \
    X(probs,      "the most probable next tokens at every position, as JSON lines") \
    X(perplexity, "how well a model predicts a text") \
    X(eval,       "loss, divergence from another model, accuracy on test items") \
    X(bench,      "speed, next to what the machine could do") \
    X(measure,    "how fast shapes run here, into a profile") \
    X(fit,        "a latency model from a profile, and how good it is") \
    X(predict,    "how fast a model would be, from a latency model") \
    X(search,     "settings that are best in several ways at once, in few trials") \
    X(front,      "what a search has found: a table, CSV, a page with plots") \
    X(design,     "from a backbone and a device to a family of models") \
    X(study,      "what the designs of a run depend on: the questions of its paper") \
    X(trial,      "one candidate of a design: cut, healed and scored") \
    X(train,      "fit a model to text, or to another model") \
    X(vocab,      "learn a vocabulary from text") \
    X(quantize,   "a model file again, with smaller weights") \
    X(calibrate,  "what the parts of a model matter, for prune") \
    X(prune,      "a model file again, smaller, or with layers that skip attention") \
    X(convert,    "a model file again, as another architecture") \
    X(make,       "a model file with random weights of a real shape")

#define CLI_X(name, about) int cmd_##name(int argc, char **argv);
CLI_COMMANDS(CLI_X)
#undef CLI_X

typedef enum cli_kind {
    CLI_FLAG,  /* int, set to 1 */
    CLI_INT,   /* int */
    CLI_FLOAT, /* float */
    CLI_SEED,  /* uint64_t */
    CLI_TEXT,  /* const char * */
    CLI_TEXTS, /* cli_texts: what follows, up to the next option */
    CLI_ISA,   /* flash_isa */
    CLI_KV     /* flash_type of keys and values */
} cli_kind;

typedef struct cli_texts {
    const char *at[64];
    int n;
} cli_texts;

/* One option. A table of them ends with {0}; parsing, checks and --help read it. */
typedef struct cli_option {
    const char *name, *value; /* "-n", "N"; value NULL for a flag */
    cli_kind kind;
    void *to;
    double lo, hi; /* of numbers, both allowed */
    const char *about;
} cli_option;

/* The options that several commands have. */
#define CLI_PRE_OPTION(md) \
    {"--any-pretokenizer", NULL, CLI_FLAG, &(md).any_pretokenizer, 0, 0, \
     "read an unknown pre-tokenizer as \"default\", with a warning"}
#define CLI_ATTN_OPTION(md) \
    {"--attn", "PATTERN", CLI_TEXT, &(md).attention, 0, 0, \
     "another attention for the layers: full,skip,window:256, which repeats"}
#define CLI_SAMPLER_OPTIONS(by) \
    {"--temp", "X", CLI_FLOAT, &(by).temperature, 0, 100, "temperature (0: greedy)"}, \
    {"--top-k", "N", CLI_INT, &(by).top_k, 0, FLASH_VOCAB_MAX, "keep the N best (0: all)"}, \
    {"--top-p", "X", CLI_FLOAT, &(by).top_p, 0, 1, "keep the best of total mass X (1: all)"}, \
    {"--min-p", "X", CLI_FLOAT, &(by).min_p, 0, 1, "keep those >= X times the best (0: all)"}, \
    {"--typical", "X", CLI_FLOAT, &(by).typical_p, 0, 1, "keep the typical of mass X (1: all)"}, \
    {"--repeat-penalty", "X", CLI_FLOAT, &(by).repeat_penalty, 0.1, 10, \
     "of the last 64 tokens (1: none)"}, \
    {"--seed", "N", CLI_SEED, &(by).seed, 0, 18446744073709551615.0, "same seed, same text (1)"}
#define CLI_FORM_OPTIONS(form) \
    {"--grammar", "FILE", CLI_TEXT, &(form).gbnf, 0, 0, "the text is one of this GBNF grammar"}, \
    {"--json", NULL, CLI_FLAG, &(form).json, 0, 0, "the text is JSON"}, \
    {"--json-schema", "FILE", CLI_TEXT, &(form).schema, 0, 0, \
     "the text is JSON of this schema; -n may cut any of them"}
#define CLI_RUN_OPTIONS(md, sd) \
    {"-t", "THREADS", CLI_INT, &(sd).threads, 1, 1024, "threads (1)"}, \
    {"--isa", "NAME", CLI_ISA, &(md).isa, 0, 0, "instruction set (the best here):"}, \
    {"--kv", "TYPE", CLI_KV, &(sd).kv, 0, 0, "keys and values: f32, f16, q8_0 (f32)"}, \
    CLI_ATTN_OPTION(md), \
    CLI_PRE_OPTION(md)

/* Parses argv[1..] after the table and returns MODEL, the only other argument. --help prints the
   table and notes and exits 0, usage errors exit 2. All messages name argv[0] from here on. */
const char *cli_parse(int argc, char **argv, const cli_option *options, const char *notes);

/* The same for commands with other arguments: names as in "IN OUT TYPE", all of them needed, or
   "[MODEL]", needed by none; got: one for each, NULL where it is missing. */
void cli_parse_all(int argc, char **argv, const cli_option *options, const char *names,
                   const char *notes, const char **got);

/* One line on stderr, "flash COMMAND: ...", and exit: 1, or 2 for a wrong command line. */
void cli_fail(const char *format, ...);
void cli_usage(const char *format, ...);
void cli_fail_file(const char *path, const flash_error *err);
/* The same line, and on it goes. */
void cli_note(const char *format, ...);
/* The library's warnings, one line each on stderr: a flash_host.log. */
void cli_log(void *user, int level, const char *text);

/* Whole file, or stdin for NULL and "-"; [*bytes] and a NUL, the caller frees it. */
char *cli_read(const char *path, size_t *bytes);
/* Files of text one after another, what parts texts between them; fails if one is empty or no
   text. */
#define CLI_TEXT_END "<|endoftext|>"
char *cli_read_texts(const cli_texts *files, size_t *bytes);
/* Token ids of such texts, [*n], each text between what the model wants before and after it; the
   caller frees them. */
int32_t *cli_text_ids(const flash_model *m, const cli_texts *files, size_t *n);
int cli_is_terminal(FILE *f);
/* Keeps \n as it is where the system would turn it into \r\n. */
void cli_binary(FILE *f);
/* An unsigned number at *p, which it moves on; -1 if there is none. */
long cli_number(const char **p);
/* 64 random bits from a counter: SplitMix64. */
uint64_t cli_random(uint64_t *state);
/* x: 0 .. n - 1 in random order. */
void cli_shuffle(int *x, int n, uint64_t *state);
/* The lengths of prompts in a list such as "512,2048", and how many: of option -p. */
enum { CLI_LENGTHS = 16 };
int cli_lengths(const char *text, int to[CLI_LENGTHS]);
/* Of real time, since any moment. */
double cli_seconds(void);
/* From here on Ctrl-C cancels the step of s and sets cli_interrupted, which is 0 now; a second one
   ends the program. NULL: the first does, again. */
void cli_interrupts(flash_session *s);
extern volatile sig_atomic_t cli_interrupted;
/* Control characters, quotes and backslashes in text, which it returns, become blanks. */
char *cli_plain(char *text);
/* "1.13 MiB" in text, which it returns. */
const char *cli_size(uint64_t bytes, char text[24]);
/* "what: 40 %, 0:12 left" on stderr, if that is a terminal and more than 2 [s] have passed since
   done was 0; rewritten once a second, wiped when done reaches total. */
void cli_progress(const char *what, double done, double total);

/* A file to write that appears under its name whole or not at all: it is PATH.part until cli_close,
   and removed if the program ends before, by Ctrl-C, too. One at a time. */
FILE *cli_open(const char *path);
void cli_close(const char *path);
/* The same for w to write. */
void cli_create(const char *path, flash_gguf_writer *w);
void cli_finish(const char *path, flash_gguf_writer *w);
/* The state of a session in such a file; restored: 0 if there is no file. */
void cli_save(const char *path, const flash_session *s);
int cli_restore(const char *path, flash_session *s);
/* A file in memory; a write callback whose user is one. The caller frees data. */
typedef struct cli_image {
    char *data;
    size_t bytes, cap;
} cli_image;
int cli_image_add(void *user, const void *data, size_t bytes);
/* Fails if something that is no file has that name, which a file would replace. */
void cli_may_write(const char *path);
/* Whether both are the same file, or would be once they are written. */
int cli_same_file(const char *a, const char *b);
/* The name of a tensor, valid until the next call. */
const char *cli_tensor_name(const flash_tensor *t);
/* Weights from *from up to `to` were the last use of them: the pages of the file there need not
   stay in memory. Moves *from. */
void cli_forget(const uint8_t **from, const uint8_t *to);
/* The type for a row of n weights where want is asked for: itself if its blocks fit, else Q8_0 if
   that fits, else F16. */
flash_type cli_type_for(flash_type want, uint64_t n);
/* The weight type of that name; a usage error that lists the names if there is none, or for MXFP4
   unless that is allowed. what: the option's name. */
flash_type cli_type(const char *what, const char *text, int mxfp4);
/* The type of keys and values of that name; a usage error if it is none. */
flash_type cli_kv(const char *what, const char *text);
/* The number that general.file_type has for a model of mostly type t. */
int cli_file_type(flash_type t);

/* These fail with the file's name and the reason. */
flash_model *cli_load(const flash_model_desc *desc);
flash_session *cli_session(const flash_model *m, const flash_session_desc *desc);
/* "full x 3, skip 2 4-6, window 256: 1 3": what the layers do, on stdout. */
void cli_print_attention(const flash_arch *a);
/* What CLI_FORM_OPTIONS ask for: a usage error if it is more than one thing; then the grammar, NULL
   if it is nothing, or why the file is none. */
typedef struct cli_form {
    const char *gbnf, *schema;
    int json;
} cli_form;
void cli_check_form(const cli_form *form);
flash_grammar *cli_grammar(const flash_model *m, const cli_form *form);
/* Token ids of text, [*n], the caller frees them. */
int32_t *cli_tokenize(const flash_model *m, const char *text, size_t bytes, unsigned flags,
                      size_t *n);
/* Fails, naming the first token that differs, if the models in the files a and b_path have other
   vocabularies. */
void cli_same_vocabulary(const flash_model *a, const char *a_path, const flash_model *b,
                         const char *b_path);
/* Ids in decimal, separated by white space or commas: [*n], each in the vocabulary of m; the caller
   frees them. */
int32_t *cli_ids(const flash_model *m, const char *text, size_t *n);
/* logits: [V] after the token at position; log_sum: log of the sum of exp(logits), so that
   log p(i) = logits[i] - log_sum. */
typedef void cli_each(void *user, int position, const float *logits, double log_sum);
/* Runs ids through s, created with all_logits, and calls each for every position in order. */
void cli_logits(flash_session *s, const flash_model *m, const int32_t *ids, size_t n,
                cli_each *each, void *user);

#endif
