/* plan.h - the plan of a design (its files and settings), and its candidates: the backbone cut to a
   shape, healed (trained with the backbone as teacher) and scored. For flash trial, design, study.

   RUN/plan.json is one JSON object:
     {"flash-design":1,"backbone":"FILE","data":["FILE",...],"held_out":["FILE",...],
      "calibration":"FILE","latency":"FILE","space":"FILE","prompt":N,"threads":N,"chunk":N,
      "type":"Q4_0","kv":"Q8_0","ctx":N,"batch":N,"steps":N,"final_steps":N,"lr":X,"seed":N,
      "sum":"HASH"}
   File names are as the program was given them, relative to the folder it was started in. sum is
   the result of plan_sum, in hex. */
#ifndef FLASH_PLAN_H
#define FLASH_PLAN_H

#include "cut.h"
#include "space.h"

enum { PLAN_TESTS_MAX = 256, PLAN_EVERY = 4, PLAN_ATTN = 24 * FLASH_LAYERS_MAX };

typedef struct plan {
    const char *path, *backbone, *calibration, *latency, *space; /* files; path: the plan's */
    cli_texts data, held_out;
    int prompt, threads, chunk; /* on the device; prompt: tokens that TTFT is for */
    flash_type type, kv;        /* on the device: of weights, of keys and values */
    int ctx, batch;             /* healing: tokens of a sequence, sequences of a step */
    int steps, final_steps;     /* of healing: in a trial, for a model of the family */
    double lr;
    uint64_t seed, sum;
    json *doc; /* owns the names */

    flash_model *m; /* from here on: set by plan_open */
    calibration k;
    flash_latency *l;
    struct space sp;
    int role[FLASH_SEARCH_PARAMS_MAX]; /* of each parameter: number of a layer, or below 0 */
    int32_t *ids;                      /* [n] tokens to learn from */
    size_t n;
    int32_t *test; /* [tests,ctx+1] held-out sequences */
    int tests;
} plan;

/* A candidate is a shape that the backbone may be cut to. A size of 0 stays as it is. */
typedef struct candidate {
    int layers, d_model, d_ffn, kv_heads;
    char attn[PLAN_ATTN]; /* as in flash_attention_parse; "": it stays */
} candidate;

/* All functions here fail like those of cli.h. This one returns the plan as JSON; the caller frees
   it. */
char *plan_text(const plan *p);
/* Returns the hash of the files that decide a result: the backbone, the space and the texts. */
uint64_t plan_sum(const plan *p);
/* Reads the plan, but none of the files that it names. */
void plan_read(const char *path, plan *p);
/* Open the files that the plan names, to be called in this order: plan_fit takes over m, the
   backbone, and reads the space, which must fit m; plan_device loads the latency model; plan_texts
   loads the calibration and the texts. */
void plan_fit(plan *p, flash_model *m);
void plan_device(plan *p);
void plan_texts(plan *p);
void plan_open(plan *p); /* loads the backbone and does all of these */
void plan_close(plan *p);

/* Sets *c to the shape that the point x of the space stands for. */
void plan_candidate(const plan *p, const double *x, candidate *c);
/* Writes the options of flash prune that make the candidate, "--layers 4 --d-ffn 96 ...", into text
   and returns it. */
char *candidate_options(const candidate *c, char text[PLAN_ATTN + 128]);
void candidate_arch(const plan *p, const candidate *c, flash_arch *a);
/* Returns 1 if programs that read the architecture deci can run the candidate, which has no windows
   then, and attention in layer 0. */
int candidate_is_deci(const plan *p, const candidate *c);
/* Predicts the time to the first token, and (NULL: not wanted) of one token after the prompt.
   Returns 0 if the latency model cannot. */
int candidate_times(const plan *p, const candidate *c, flash_interval *ttft,
                    flash_interval *decode);
/* Returns the backbone cut to the candidate, in F32. The weights lie in *image, whose data the
   caller frees after the model. */
flash_model *candidate_model(const plan *p, const candidate *c, cli_image *image);

/* Returns a trainer that heals m, the model of a candidate: it learns from the probabilities of the
   backbone. scratch 1: it begins with random weights of the shape of m and learns from the text
   alone. heal_step does a step, on the same sequences for all candidates. */
flash_trainer *heal_begin(const plan *p, const flash_model *m, int scratch, int steps, int threads);
void heal_step(const plan *p, flash_trainer *t);
/* Returns the mean loss of every PLAN_EVERY-th held-out sequence [nat a token]. each becomes the
   losses of these sequences, [tests/PLAN_EVERY + 1], *n their number, *kl the mean KL divergence
   from the backbone. NULL: not wanted. */
double heal_score(const plan *p, flash_trainer *t, double *each, int *n, double *kl);
/* Returns the mean loss of all held-out sequences, as the runtime computes it. each becomes the
   losses of the sequences, [tests]; NULL: not wanted. */
double model_score(const plan *p, const flash_model *m, int threads, double *each);

/* Reads a trial file of flash search: returns its id and sets x. */
int trial_read(const plan *p, const char *path, double x[FLASH_SEARCH_PARAMS_MAX]);

/* A result is what a trial found out about a candidate. */
typedef struct result {
    double loss, kl;              /* heal_score: loss, KL divergence from the backbone */
    double unhealed, unhealed_kl; /* the same before the first step */
    double ttft;                  /* predicted time to the first token [s] */
    int n;
    double each[PLAN_TESTS_MAX]; /* [n] losses of the held-out sequences */
} result;

/* Sets *r to the result of a candidate after so many steps of healing (0: none); scratch: see
   heal_begin. The result is kept in the file path (NULL: nowhere). If that file has a result of the
   same candidate and plan, it is read from there. with_best 1: prints lines "best LOSS TTFT" on the
   way, the best values still possible, which flash search reads. */
void result_get(const plan *p, const candidate *c, int steps, int scratch, int threads,
                const char *path, int with_best, result *r);

#endif
