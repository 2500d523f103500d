/* cli.h - what the subcommands of flash share: options, files, errors, progress. */
#ifndef FLASH_CLI_H
#define FLASH_CLI_H

#include "../flash.h"
#include <signal.h>
#include <stdio.h>

/* The list of subcommands, from which prototypes, dispatch and `flash help` are made. cmd_X is in
   cmd_X.c and returns the exit status. */
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

/* The kind of an option says what type of variable it sets. */
typedef enum cli_kind {
    CLI_FLAG,  /* int, set to 1 */
    CLI_INT,   /* int */
    CLI_FLOAT, /* float */
    CLI_SEED,  /* uint64_t */
    CLI_TEXT,  /* const char * */
    CLI_TEXTS, /* cli_texts: all arguments up to the next option */
    CLI_ISA,   /* flash_isa */
    CLI_KV     /* flash_type of keys and values */
} cli_kind;

typedef struct cli_texts {
    const char *at[64];
    int n;
} cli_texts;

/* An option of a subcommand. A table of options ends with {0}; parsing, checks and --help read
   it. */
typedef struct cli_option {
    const char *name, *value; /* "-n"; its value in --help, "N", NULL for a flag */
    cli_kind kind;
    void *to;          /* variable to set */
    double lo, hi;     /* least and largest number allowed */
    const char *about; /* its line in --help */
} cli_option;

/* Options that several commands share. md, by, form and sd: the structs that they set. */
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

/* Parses argv[1..] by the table and returns MODEL, the only argument that is no option. --help
   prints the table and the notes and exits with 0; usage errors exit with 2. From this call on, all
   messages name argv[0]. */
const char *cli_parse(int argc, char **argv, const cli_option *options, const char *notes);

/* Like cli_parse, for commands with other arguments. names: "IN OUT TYPE"; one in brackets, such as
   "[MODEL]", may be missing. got becomes one argument for each name, NULL where it is missing. */
void cli_parse_all(int argc, char **argv, const cli_option *options, const char *names,
                   const char *notes, const char **got);

/* Print one line on stderr, "flash COMMAND: ...", and exit with 1 or, in cli_usage, which is for a
   wrong command line, with 2. cli_fail_file says what is wrong with a file. */
void cli_fail(const char *format, ...);
void cli_usage(const char *format, ...);
void cli_fail_file(const char *path, const flash_error *err);
/* Prints such a line and returns. */
void cli_note(const char *format, ...);
/* Prints warnings of the library on stderr, one line each; for flash_host.log. */
void cli_log(void *user, int level, const char *text);

/* Reads a whole file, or standard input if path is NULL or "-". Returns [*bytes] and a NUL; the
   caller frees it. */
char *cli_read(const char *path, size_t *bytes);
/* CLI_TEXT_END separates texts in a file. cli_read_texts returns the files one after another, with
   this separator between them, [*bytes] and a NUL; the caller frees the result. It fails if a file
   is empty or has a NUL in it. */
#define CLI_TEXT_END "<|endoftext|>"
char *cli_read_texts(const cli_texts *files, size_t *bytes);
/* Returns the token ids of all texts in such files, [*n]: each text begins with BOS if the model
   asks for it, and ends with EOS if the model has one. The caller frees them. */
int32_t *cli_text_ids(const flash_model *m, const cli_texts *files, size_t *n);
int cli_is_terminal(FILE *f);
/* Switches f to binary mode on Windows, which would turn \n into \r\n. */
void cli_binary(FILE *f);
/* Returns the unsigned decimal number at *p, and moves *p behind it; -1 if there is none. */
long cli_number(const char **p);
/* Returns 64 random bits and advances the state, a counter: SplitMix64. */
uint64_t cli_random(uint64_t *state);
/* Fills x, [n], with 0 .. n - 1 in random order. */
void cli_shuffle(int *x, int n, uint64_t *state);
/* Reads the lengths of prompts from a list such as "512,2048", the value of option -p, and returns
   how many there are. */
enum { CLI_LENGTHS = 16 };
int cli_lengths(const char *text, int to[CLI_LENGTHS]);
/* Returns the real time since some fixed moment [s]. */
double cli_seconds(void);
/* From this call on, Ctrl-C cancels the step of s and sets cli_interrupted, which begins as 0; a
   second Ctrl-C ends the program. s NULL: the first Ctrl-C ends the program again. */
void cli_interrupts(flash_session *s);
extern volatile sig_atomic_t cli_interrupted;
/* Replaces control characters, quotes and backslashes in text by blanks, and returns text. */
char *cli_plain(char *text);
/* Writes a size such as "1.13 MiB" to text, and returns text. */
const char *cli_size(uint64_t bytes, char text[24]);
/* Shows "what: 40 %, 0:12 left" on stderr, if that is a terminal and more than 2 [s] have passed
   since the call with done 0. Rewrites it once a second, and wipes it when done reaches total. */
void cli_progress(const char *what, double done, double total);

/* Opens a file to write that appears under its name complete or not at all: it is PATH.part until
   cli_close, and is removed if the program ends before that, also by Ctrl-C. Only one such file can
   be open at a time. */
FILE *cli_open(const char *path);
void cli_close(const char *path);
/* Like cli_open and cli_close, for a GGUF file that w writes; cli_finish also ends w. */
void cli_create(const char *path, flash_gguf_writer *w);
void cli_finish(const char *path, flash_gguf_writer *w);
/* Writes the state of a session to such a file. cli_restore reads it; it returns 0 if there is no
   file, else 1. */
void cli_save(const char *path, const flash_session *s);
int cli_restore(const char *path, flash_session *s);
/* A file in memory. cli_image_add is a write callback, whose user is the image that it appends to.
   The caller frees data. */
typedef struct cli_image {
    char *data;
    size_t bytes, cap; /* size of the file, of the memory [B] */
} cli_image;
int cli_image_add(void *user, const void *data, size_t bytes);
/* Fails if path names something else than a file, such as a device, which a file would replace. */
void cli_may_write(const char *path);
/* Returns 1 if both names are the same file, or would be once it is written. */
int cli_same_file(const char *a, const char *b);
/* Returns the name of a tensor, NUL-terminated and valid until the next call. */
const char *cli_tensor_name(const flash_tensor *t);
/* Tells the system that the weights from *from up to `to` are not needed again, so that these pages
   of the mapped file need not stay in memory. Moves *from to `to`. */
void cli_forget(const uint8_t **from, const uint8_t *to);
/* Returns the type for a row of n weights where want is asked for: want if n is a multiple of its
   block, else Q8_0 if n is a multiple of 32, else F16. */
flash_type cli_type_for(flash_type want, uint64_t n);
/* Returns the weight type of that name. Fails with a usage error that lists the names if there is
   none, and for MXFP4 unless mxfp4 is 1. what: name of the option, for the message. */
flash_type cli_type(const char *what, const char *text, int mxfp4);
/* Like cli_type, for the type of keys and values. */
flash_type cli_kv(const char *what, const char *text);
/* Returns the number that the key general.file_type has for a model of mostly type t. */
int cli_file_type(flash_type t);

/* Return a model and a session, which the caller frees, or fail with the reason. */
flash_model *cli_load(const flash_model_desc *desc);
flash_session *cli_session(const flash_model *m, const flash_session_desc *desc);
/* Prints what the layers do, such as "full x 3, skip 2 4-6, window 256: 1 3". */
void cli_print_attention(const flash_arch *a);
/* What CLI_FORM_OPTIONS ask for. cli_check_form fails with a usage error if that is more than one
   thing. cli_grammar returns the grammar, which the caller frees, or NULL if nothing is asked for;
   it fails if the file is not valid. */
typedef struct cli_form {
    const char *gbnf, *schema; /* names of files; NULL: not asked for */
    int json;                  /* 1: any JSON */
} cli_form;
void cli_check_form(const cli_form *form);
flash_grammar *cli_grammar(const flash_model *m, const cli_form *form);
/* Returns the token ids of text, [*n]; the caller frees them. flags: as for flash_tokenize. */
int32_t *cli_tokenize(const flash_model *m, const char *text, size_t bytes, unsigned flags,
                      size_t *n);
/* Fails if the vocabularies of a and b differ, and names the first token that does. a_path, b_path:
   the files of the models, for the message. */
void cli_same_vocabulary(const flash_model *a, const char *a_path, const flash_model *b,
                         const char *b_path);
/* Reads token ids in decimal, which white space or commas separate, and returns them, [*n]; the
   caller frees them. Fails if one is not in the vocabulary of m. */
int32_t *cli_ids(const flash_model *m, const char *text, size_t *n);
/* Receives the logits, [V], that follow the token at position. log_sum: log of the sum of
   exp(logits), so that log p(i) = logits[i] - log_sum. */
typedef void cli_each(void *user, int position, const float *logits, double log_sum);
/* Resets s, runs ids through it and calls each for every position in order. s must have been
   created with all_logits. */
void cli_logits(flash_session *s, const flash_model *m, const int32_t *ids, size_t n,
                cli_each *each, void *user);

#endif
