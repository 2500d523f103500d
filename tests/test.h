/* The framework of the test programs: checks that are counted, sections, skips, and access to the
   shared data. A program includes this file once, runs its checks from main and ends with
   `return test_done();`. */
#ifndef TEST_H
#define TEST_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_passed, test_failed, test_skipped;
static const char *test_section = "";

/* A check that fails is printed and counted, and the program goes on. Each check returns 1 if it
   held, else 0. */
#define CHECK(cond) test_check((cond) != 0, #cond, __FILE__, __LINE__)
#define CHECK_EQ(a, b) test_eq((long long)(a), (long long)(b), #a " == " #b, __FILE__, __LINE__)
#define CHECK_STR(a, b) test_str((a), (b), #a " == " #b, __FILE__, __LINE__)
#define SECTION(name) (test_section = (name))
#define SKIP(what, why) (test_skipped++, (void)printf("skip: %s (%s)\n", (what), (why)))

static inline int test_check(int ok, const char *text, const char *file, int line)
{
    if (ok) {
        test_passed++;
    } else {
        test_failed++;
        printf("%s:%d: FAILED [%s] %s\n", file, line, test_section, text);
        fflush(stdout);
    }
    return ok;
}

static inline int test_eq(long long a, long long b, const char *text, const char *file, int line)
{
    if (!test_check(a == b, text, file, line)) printf("    got %lld, expected %lld\n", a, b);
    return a == b;
}

static inline int test_str(const char *a, const char *b, const char *text, const char *file,
                           int line)
{
    int ok = a && b ? strcmp(a, b) == 0 : a == b;
    if (!test_check(ok, text, file, line))
        printf("    got \"%s\", expected \"%s\"\n", a ? a : "(null)", b ? b : "(null)");
    return ok;
}

/* Returns the path of a file of the shared data, or NULL if the file cannot be read. rel is its
   path in the folder data of FLASH_SHARED, like "models/x.gguf". The result stays valid for the
   next three calls. */
static inline const char *test_shared(const char *rel)
{
    static char buf[4][1024];
    static int turn;
    char *p = buf[turn++ & 3];
    const char *root = getenv("FLASH_SHARED");
    int n = snprintf(p, sizeof buf[0], "%s/data/%s", root ? root : "../shared", rel);
    FILE *f = n < (int)sizeof buf[0] ? fopen(p, "rb") : NULL;
    if (!f) return NULL;
    fclose(f);
    return p;
}

/* xorshift32: the same random numbers on every machine. */
static inline uint32_t test_rnd(void)
{
    static uint32_t s = 2463534242u;
    s ^= s << 13;
    s ^= s >> 17;
    s ^= s << 5;
    return s;
}

/* Returns the bytes of a whole file, followed by a zero byte, or NULL. The caller frees them. */
static inline unsigned char *test_read(const char *path, size_t *n)
{
    FILE *f = path ? fopen(path, "rb") : NULL;
    unsigned char *p = NULL;
    long len;
    *n = 0;
    if (f && fseek(f, 0, SEEK_END) == 0 && (len = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0) {
        p = (unsigned char *)calloc((size_t)len + 1, 1);
        if (p && fread(p, 1, (size_t)len, f) != (size_t)len) {
            free(p);
            p = NULL;
        }
        *n = p ? (size_t)len : 0;
    }
    if (f) fclose(f);
    return p;
}

/* Prints the summary of the program. Returns the exit code for main. */
#define test_done() test_summary(__FILE__)
static inline int test_summary(const char *file)
{
    printf("%s: %d passed, %d failed, %d skipped\n", file, test_passed, test_failed, test_skipped);
    return test_failed != 0;
}

#endif
