/* design.h - what flash design found, for its report. */
#ifndef FLASH_DESIGN_H
#define FLASH_DESIGN_H

#include "plan.h"
#include "profile.h"

enum { PICK_MAX = 32, MEMBERS_MAX = 2 * PICK_MAX }; /* each that is picked may have a rival */

/* A member is a model of the family, or a baseline that it is compared with: the backbone, cut by
   the same share everywhere. */
typedef struct member {
    char name[64];
    int trial; /* the trial that found it; 0: none, a baseline */
    candidate c;
    flash_interval ttft, decode; /* predicted [s]: time to the first token, time of a token */
    double least[2], median[2];  /* the same two, measured here [s] */
    double early;                /* loss in its trial [nat a token] */
    double loss, error;          /* of all held-out text, by the runtime; standard error */
    int rival;                   /* index of the baseline that is about as fast; 0: none */
    double gain, gain_error;     /* loss of the rival less its own; standard error */
    uint64_t bytes, params;
} member;

typedef struct design {
    plan p;
    journal j;
    char elsewhere[256]; /* machine of the latency model; "": this one */
    int n, chosen;       /* number of members; of those in the family, which come first */
    member member[MEMBERS_MAX];
    double backbone_loss;
} design;

/* Writes the report, one HTML file that needs no other. Fails like all of cli.h. */
void design_report(const char *path, const design *d);

#endif
