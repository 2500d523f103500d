/* plan.h - what a design has settled, and its candidates: the backbone cut to a shape, healed and
   scored. For flash trial, design and study.

   RUN/plan.json is one JSON object:
     {"flash-design":1,"backbone":"FILE","data":["FILE",...],"held_out":["FILE",...],
      "calibration":"FILE","latency":"FILE","space":"FILE","prompt":N,"threads":N,"chunk":N,
      "type":"Q4_0","kv":"Q8_0","ctx":N,"batch":N,"steps":N,"final_steps":N,"lr":X,"seed":N,
      "sum":"HASH"}
   Names are as the program was given them, from its folder; sum is of the backbone, the space and
   the texts. */
#ifndef FLASH_PLAN_H
#define FLASH_PLAN_H

#include "cut.h"
#include "space.h"

enum { PLAN_TESTS_MAX = 256, PLAN_EVERY = 4, PLAN_ATTN = 24 * FLASH_LAYERS_MAX };

typedef struct plan {
    const char *path, *backbone, *calibration, *latency, *space; /* files */
    cli_texts data, held_out;
    int prompt, threads, chunk; /* of the device: tokens to the first new one, and how */
    flash_type type, kv;        /* of weights and of keys and values there */
    int ctx, batch;             /* healing: tokens of a sequence, sequences of a step */
    int steps, final_steps;     /* of a trial, of a model of the family */
    double lr;
    uint64_t seed, sum;
    json *doc;

    flash_model *m; /* what follows is made by plan_open */
    calibration k;
    flash_latency *l;
    struct space sp;
    int role[FLASH_SEARCH_PARAMS_MAX]; /* of the space's parameters: a layer, or below 0 */
    int32_t *ids;                      /* [n] to learn from */
    size_t n;
    int32_t *test; /* [tests,ctx+1] held out */
    int tests;
} plan;

/* A shape that the backbone may be cut to; 0: as it is. */
typedef struct candidate {
    int layers, d_model, d_ffn, kv_heads;
    char attn[PLAN_ATTN]; /* as in flash_attention_parse; "": as it is */
} candidate;

/* All of these fail like cli.h. The plan as text; the caller frees it. */
char *plan_text(const plan *p);
/* The hash of all its files that decide a result. */
uint64_t plan_sum(const plan *p);
void plan_read(const char *path, plan *p);
/* Opens what it names, in this order: m, the backbone, and the space, which must fit it; the
   latency model; calibration and texts. */
void plan_fit(plan *p, flash_model *m);
void plan_device(plan *p);
void plan_texts(plan *p);
void plan_open(plan *p); /* all of them */
void plan_close(plan *p);

void plan_candidate(const plan *p, const double *x, candidate *c);
/* How it is said to flash prune: "--layers 4 --d-ffn 96 ...", in text, which is returned. */
char *candidate_options(const candidate *c, char text[PLAN_ATTN + 128]);
void candidate_arch(const plan *p, const candidate *c, flash_arch *a);
/* 1 if programs that read deci can run it: no windows, and attention in layer 0. */
int candidate_is_deci(const plan *p, const candidate *c);
/* Predicted times; 0: they cannot be. */
int candidate_times(const plan *p, const candidate *c, flash_interval *ttft,
                    flash_interval *decode);
/* The backbone cut to it, in float; image is to be freed after the model. */
flash_model *candidate_model(const plan *p, const candidate *c, cli_image *image);

/* Of candidate models, or with scratch 1 of random weights of their shape: learns from the backbone
   (scratch: from text), the same sequences for all. */
flash_trainer *heal_begin(const plan *p, const flash_model *m, int scratch, int steps, int threads);
void heal_step(const plan *p, flash_trainer *t);
/* Mean loss of every PLAN_EVERY-th held-out sequence [nat a token]; each: [tests/PLAN_EVERY + 1]
   theirs, *n of them; *kl: mean divergence from the backbone. NULL: not wanted. */
double heal_score(const plan *p, flash_trainer *t, double *each, int *n, double *kl);
/* That of all of them, of a model as the runtime computes it; each: [tests]. */
double model_score(const plan *p, const flash_model *m, int threads, double *each);

/* A trial file of flash search: its id and x. */
int trial_read(const plan *p, const char *path, double x[FLASH_SEARCH_PARAMS_MAX]);

typedef struct result {
    double loss, kl;              /* of the held-out text: next tokens, from the backbone */
    double unhealed, unhealed_kl; /* the same before any step */
    double ttft;                  /* predicted [s] */
    int n;
    double each[PLAN_TESTS_MAX]; /* [n] losses of the sequences */
} result;

/* What comes of a candidate after so many steps, 0: none; scratch: see heal_begin. Kept in the file
   path (NULL: nowhere), from which it is taken if it is there, of the same candidate and plan.
   with_best: lines
   "best LOSS TTFT" on the way, as flash search reads them. */
void result_get(const plan *p, const candidate *c, int steps, int scratch, int threads,
                const char *path, int with_best, result *r);

#endif
