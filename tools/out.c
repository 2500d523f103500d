/* out.c - writes output files that appear complete or not at all, see cli.h. */
#define _DEFAULT_SOURCE /* madvise */
#define _POSIX_C_SOURCE 200809L /* fileno, fsync, unlink */
#include "cli.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <io.h>
#define unlink _unlink
#else
#include <sys/mman.h>
#include <unistd.h>
#endif
#include <sys/stat.h>
#include <sys/types.h>

/* The file that is written, one at a time. Its name is set before the signal handlers, which read
   it, are installed. */
static char *out_temporary;
static FILE *out_file;

static void out_remove(void)
{
#ifdef _WIN32
    if (out_file) fclose(out_file); /* Windows does not remove an open file */
#endif
    if (out_temporary) unlink(out_temporary);
}

static void out_stop(int number)
{
    unlink(out_temporary);
    signal(number, SIG_DFL); /* end as if the signal had not been caught */
    raise(number);
}

static int out_write(void *user, const void *data, size_t bytes)
{
    return fwrite(data, 1, bytes, user) != bytes;
}

void cli_may_write(const char *path)
{
    struct stat st;
    if (!stat(path, &st) && !S_ISREG(st.st_mode)) /* rename would replace even /dev/null */
        cli_fail("%s is there and not a file: choose another name", path);
}

FILE *cli_open(const char *path)
{
    char *name = malloc(strlen(path) + 6);
    if (!name) cli_fail("out of memory");
    cli_may_write(path);
    strcat(strcpy(name, path), ".part");
    out_file = fopen(name, "wb");
    if (!out_file) cli_fail("cannot write %s: %s", name, strerror(errno));
    /* A file written in large pieces lies in large pieces of memory, which are read faster. */
    setvbuf(out_file, NULL, _IOFBF, 1 << 20);
    out_temporary = name;
    atexit(out_remove);
    signal(SIGINT, out_stop);
    signal(SIGTERM, out_stop);
#ifdef SIGHUP
    if (signal(SIGHUP, out_stop) == SIG_IGN) /* nohup: it stays ignored */
        signal(SIGHUP, SIG_IGN);
#endif
    return out_file;
}

void cli_close(const char *path)
{
    char *name = out_temporary;
    int bad = fflush(out_file) || ferror(out_file);
#ifndef _WIN32
    bad = bad || fsync(fileno(out_file)); /* a crash must not leave the name without data */
#endif
    bad |= fclose(out_file);
    out_file = NULL;
#ifdef _WIN32
    if (!bad) remove(path); /* rename does not replace a file on Windows */
#endif
    if (bad || rename(name, path)) cli_fail("cannot write %s: %s", path, strerror(errno));
    out_temporary = NULL;
    free(name);
}

void cli_create(const char *path, flash_gguf_writer *w)
{
    w->user = cli_open(path);
    w->write = out_write;
}

void cli_finish(const char *path, flash_gguf_writer *w)
{
    if (flash_gguf_write_end(w) && w->status && w->status != FLASH_E_IO)
        cli_fail("cannot write %s: %s", path, flash_status_text(w->status));
    cli_close(path);
}

void cli_save(const char *path, const flash_session *s)
{
    if (flash_session_save(s, out_write, cli_open(path)))
        cli_fail("cannot write %s: %s", path, strerror(errno));
    cli_close(path);
}

int cli_restore(const char *path, flash_session *s)
{
    flash_source source = {0};
    flash_error err;
    struct stat st;
    if (stat(path, &st) && errno == ENOENT) return 0;
    source.path = path;
    if (flash_session_restore(s, &source, &err)) cli_fail_file(path, &err);
    return 1;
}

int cli_image_add(void *user, const void *data, size_t bytes)
{
    cli_image *to = user;
    if (to->bytes + bytes > to->cap) {
        to->cap = 2 * (to->bytes + bytes);
        to->data = realloc(to->data, to->cap);
        if (!to->data) cli_fail("out of memory");
    }
    memcpy(to->data + to->bytes, data, bytes);
    to->bytes += bytes;
    return 0;
}

#ifndef _WIN32
/* Returns the name after the last / in path, and sets *st to the state of its folder; NULL if there
   is no such folder. */
static const char *out_folder(const char *path, struct stat *st)
{
    const char *name = strrchr(path, '/');
    char folder[4096];
    name = name ? name + 1 : path;
    if (snprintf(folder, sizeof folder, "%.*s.", (int)(name - path), path) >= (int)sizeof folder)
        return NULL;
    return stat(folder, st) ? NULL : name;
}
#endif

int cli_same_file(const char *a, const char *b)
{
#ifndef _WIN32
    struct stat s, t;
    if (!stat(a, &s) && !stat(b, &t)) return s.st_dev == t.st_dev && s.st_ino == t.st_ino;
    const char *x = out_folder(a, &s), *y = out_folder(b, &t);
    if (x && y) /* not both exist: the same if they have one name and folder */
        return !strcmp(x, y) && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
#endif
    return !strcmp(a, b);
}

const char *cli_tensor_name(const flash_tensor *t)
{
    static char name[1024];
    if (t->name_bytes >= sizeof name || memchr(t->name, 0, t->name_bytes))
        cli_fail("a tensor with a strange name: %.60s", t->name);
    memcpy(name, t->name, t->name_bytes);
    name[t->name_bytes] = 0;
    return name;
}

void cli_forget(const uint8_t **from, const uint8_t *to)
{
#ifdef MADV_DONTNEED
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t a = ((uintptr_t)*from + page - 1) / page * page, b = (uintptr_t)to / page * page;
    if (b > a) madvise((void *)a, b - a, MADV_DONTNEED);
#endif
    *from = to;
}

flash_type cli_type_for(flash_type want, uint64_t n)
{
    int block = flash_type_block(want);
    if (block && n % (unsigned)block == 0) return want;
    return n % 32 ? FLASH_TYPE_F16 : FLASH_TYPE_Q8_0;
}

int cli_file_type(flash_type t)
{
    static const struct {
        flash_type type;
        int number;
    } files[] = {
        {FLASH_TYPE_F32, 0},     {FLASH_TYPE_F16, 1},     {FLASH_TYPE_Q4_0, 2},
        {FLASH_TYPE_Q4_1, 3},    {FLASH_TYPE_Q8_0, 7},    {FLASH_TYPE_Q5_0, 8},
        {FLASH_TYPE_Q5_1, 9},    {FLASH_TYPE_Q2_K, 10},   {FLASH_TYPE_Q3_K, 12},
        {FLASH_TYPE_Q4_K, 14},   {FLASH_TYPE_Q5_K, 16},   {FLASH_TYPE_Q6_K, 18},
        {FLASH_TYPE_IQ4_NL, 25}, {FLASH_TYPE_IQ4_XS, 30}, {FLASH_TYPE_BF16, 32},
        {FLASH_TYPE_MXFP4, 38},
    };
    size_t i = 0;
    while (files[i].type != t) i++;
    return files[i].number;
}

flash_type cli_type(const char *what, const char *text, int mxfp4)
{
    flash_type t = flash_type_parse(text);
    char names[200] = "";
    if (t != FLASH_TYPE_NONE && (mxfp4 || t != FLASH_TYPE_MXFP4)) return t;
#define CLI_X(name, id, items, bytes) \
    if (mxfp4 || id != FLASH_TYPE_MXFP4) \
        strcat(strcat(names, *names ? ", " : ""), #name);
    FLASH_TYPE_LIST(CLI_X)
#undef CLI_X
    cli_usage("%s %s: want one of %s", what, text, names);
    return t;
}
