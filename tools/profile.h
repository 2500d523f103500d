/* profile.h - profiles: text files of measured shapes, for flash measure, fit and predict.

   Each line is a JSON object. Its last member, "sum", is the FNV-1a hash (32 bits, in hex) of all
   bytes of the line before it. Texts have no control characters, quotes or backslashes, so that no
   escapes are needed. Times of shapes are above 0. There are two kinds of lines, which are appended
   as they come:
     machine      {"profile":1,"machine":"...","isa":"avx512","processors":2,"system":"...",
                  "plan":"...","started":SECONDS SINCE 1970,"sum":"..."}: the machine, and the
                  options of flash measure ("plan"), of the measurements below
     measurement  {"job":N,"shape":"d=1024,...","arch":"flash","attn":"full,skip","weights":"Q4_0",
                  "kv":"Q8_0","threads":2,"chunk":256,"prompt":2048,"position":2048,"at":SECONDS
                  SINCE started,"prefill":[SECONDS OF EACH REPEAT],"decode":[SECONDS OF A TOKEN IN
                  EACH REPEAT],"reference":[PREFILL,DECODE],"sum":"..."}; reference: seconds of a
                  fixed shape, measured just before */
#ifndef FLASH_PROFILE_H
#define FLASH_PROFILE_H

#include "shapes.h"

enum { PROFILE_TEXT = 4096 };

typedef struct profile_machine {
    char name[128], isa[24], system[64];
    int processors; /* number, with those that are switched off */
} profile_machine;

typedef struct profile_entry {
    int plan, job;                   /* plan: index into profile.plan */
    const char *text;                /* the whole line, in profile.file */
    int line;                        /* its number in the file, from 1 */
    const char *shape, *arch, *attn; /* as the file spells them */
    flash_arch *a;
    flash_workload work; /* its arch is a */
    double at;           /* as in the file [s] */
    flash_measurement time;
    flash_timing reference;
} profile_entry;

typedef struct profile {
    char *file; /* its text; each line ends with a 0 */
    profile_machine machine;
    char (*plan)[PROFILE_TEXT];
    int n_plans;
    profile_entry *entry; /* [n], in the order of the file */
    int n, lines, bad;    /* lines: all; bad: those that were skipped */
    int whole;            /* 1: the last line is complete */
    int foreign;          /* 1: the file does not even begin like a profile */
} profile;

/* Reads a file. Skips lines that are not of a profile, damaged, there twice, without a machine's
   line above or of a workload that cannot be measured, and names the first of them on stderr. Fails
   if the file cannot be read, or if its lines are of several machines or instruction sets. */
void profile_read(const char *path, profile *p);
void profile_free(profile *p);
/* Append a line and flush it. All texts must be plain, see cli_plain. */
void profile_write_machine(FILE *f, const profile_machine *m, const char *plan);
void profile_write(FILE *f, const profile_entry *e);
/* Describes this machine, in plain texts. */
void profile_here(profile_machine *m, flash_isa isa);
/* Returns 1 if shape and settings are the same. */
int profile_same_work(const flash_workload *a, const flash_workload *b);
/* Returns 1 if measurements of the two machines may be used together. */
int profile_same_machine(const profile_machine *a, const profile_machine *b);

#endif
