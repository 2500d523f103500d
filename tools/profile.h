/* profile.h - profiles: text files of measured shapes, for flash measure, fit and predict.

   A line is a JSON object; the last member of each, "sum", is the FNV-1a hash (32 bits, in hex) of
   the bytes of the line before it. Texts have no control characters, quotes or backslashes, and so
   no escapes; shapes took more than 0 seconds. Lines of two kinds, appended as they come:
     machine      {"profile":1,"machine":"...","isa":"avx512","processors":2,"system":"...",
                  "plan":"...","started":SECONDS SINCE 1970,"sum":"..."}: what the lines below were
                  measured on, and by which options
     measurement  {"job":N,"shape":"d=1024,...","arch":"flash","attn":"full,skip","weights":"Q4_0",
                  "kv":"Q8_0","threads":2,"chunk":256,"prompt":2048,"position":2048,"at":SECONDS
                  SINCE started,"prefill":[SECONDS OF EACH REPEAT],"decode":[SECONDS OF A TOKEN IN
                  EACH REPEAT],"reference":[PREFILL, DECODE of a fixed shape just before],"sum":...}
   */
#ifndef FLASH_PROFILE_H
#define FLASH_PROFILE_H

#include "shapes.h"

enum { PROFILE_TEXT = 4096 };

typedef struct profile_machine {
    char name[128], isa[24], system[64];
    int processors; /* switched off or not */
} profile_machine;

typedef struct profile_entry {
    int plan, job;                   /* plan: index into plans */
    const char *text;                /* the line */
    int line;                        /* in the file, from 1 */
    const char *shape, *arch, *attn; /* as the file spells them */
    flash_arch *a;
    flash_workload work; /* of a */
    double at;
    flash_measurement time;
    flash_timing reference;
} profile_entry;

typedef struct profile {
    char *file; /* its text, cut into lines */
    profile_machine machine;
    char (*plan)[PROFILE_TEXT];
    int n_plans;
    profile_entry *entry; /* [n], in the order of the file */
    int n, lines, bad;    /* bad: lines that were skipped */
    int whole;            /* the last line ends */
    int foreign;          /* it does not even begin like a profile */
} profile;

/* Reads a file. Lines that are no profile's, damaged, there twice, under no machine's or of what
   cannot be measured are skipped, and the first of them named on stderr. Fails if it cannot be
   read, or if its lines are of several machines or instruction sets. */
void profile_read(const char *path, profile *p);
void profile_free(profile *p);
/* Appends a line and flushes it; its texts are plain (cli_plain). */
void profile_write_machine(FILE *f, const profile_machine *m, const char *plan);
void profile_write(FILE *f, const profile_entry *e);
/* This machine, in plain texts. */
void profile_here(profile_machine *m, flash_isa isa);
/* 1 if it is the same shape at the same work. */
int profile_same_work(const flash_workload *a, const flash_workload *b);
/* 1 if measurements of the two may be used together. */
int profile_same_machine(const profile_machine *a, const profile_machine *b);

#endif
