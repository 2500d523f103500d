/* design.h - what flash design found, for its report. */
#ifndef FLASH_DESIGN_H
#define FLASH_DESIGN_H

#include "plan.h"
#include "profile.h"

enum { MEMBERS_MAX = 32 };

/* A model of the family, or one that it is compared with. */
typedef struct member {
    char name[64];
    int trial; /* that found it; 0: none */
    candidate c;
    flash_interval ttft, decode; /* predicted [s] */
    double least[2], median[2];  /* TTFT and time of a token, measured here [s] */
    double early;                /* loss in its trial */
    double loss, error;          /* as the runtime computes it, all held-out text */
    int rival;                   /* index of the one cut by hand that is about as quick; 0: none */
    double gain, gain_error;     /* loss that the rival has more */
    uint64_t bytes, params;
} member;

typedef struct design {
    plan p;
    journal j;
    char elsewhere[256]; /* the machine of the latency model; "": this one */
    int n, chosen;       /* members; those of the family, which come first */
    member member[MEMBERS_MAX];
    double backbone_loss;
} design;

/* One HTML file with everything in it; fails like all of cli.h. */
void design_report(const char *path, const design *d);

#endif
