/* Tests the library inside other programs: no memory of libc if the host has an allocator, shared
   objects that are loaded and unloaded, a second copy of the implementation, and fork. */
#define _DEFAULT_SOURCE /* RTLD_NOLOAD; fork */
#include "test.h"
#include "mkmodel.h"

static int libc_calls; /* acquisitions from libc, though the host has an allocator */

static void *libc_memory(size_t bytes)
{
    libc_calls++;
    return malloc(bytes);
}

#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#define FLASH_MALLOC(n) libc_memory(n)
#define FLASH_FREE(p)   free(p)
#include "../flash.h"
#include "plugin.h"

#if (defined(__unix__) || defined(__APPLE__)) && !defined(__wasm__)
#define HERE_POSIX
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

static const char *const path = "tests/data/f32.gguf";

static flash_host own(mk_heap *heap)
{
    flash_host h;
    memset(&h, 0, sizeof h);
    memset(heap, 0, sizeof *heap);
    heap->fail_at = -1;
    h.allocator.acquire = mk_heap_acquire;
    h.allocator.release = mk_heap_release;
    h.allocator.user = heap;
    return h;
}

static int read_file(void *user, uint64_t at, void *dst, size_t n)
{
    memcpy(dst, (const uint8_t *)user + at, n);
    return 0;
}

/* Returns the text that a session writes until its context is full, and frees the session. */
static const char *all_of(flash_session *s)
{
    static char text[4096];
    flash_piece piece;
    size_t n = 0;
    text[0] = 0;
    while (flash_session_next(s, NULL, &piece) == FLASH_OK) {
        if (piece.bytes < sizeof text - n) {
            memcpy(text + n, piece.text, piece.bytes + 1);
            n += piece.bytes;
        }
    }
    flash_session_free(s);
    return text;
}

/* With an allocator of the host, no part of the library acquires memory from libc. */
static void test_no_libc_memory(void)
{
    mk_heap heap;
    flash_host host = own(&heap);
    flash_model *m = NULL;
    flash_session *s = NULL;
    flash_latency *l = NULL;
    flash_trainer *t = NULL;
    flash_search *search = NULL;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    flash_search_desc search_desc = {0};
    flash_trainer_desc td = {0};
    flash_param param = {0};
    flash_trial trial;
    flash_error err;
    size_t bytes;
    unsigned char *file = test_read(path, &bytes);
    char word[400];
    double y[2] = {1, 2};

    SECTION("no memory of libc");
    memset(word, 'a', sizeof word - 1);
    word[sizeof word - 1] = 0;
    for (int source = 0; source < 3; source++) {
        memset(&md, 0, sizeof md);
        md.host = host;
        if (source == 0) {
            md.source.path = path;
        } else if (source == 1) {
            md.source.data = file;
            md.source.bytes = bytes;
        } else {
            md.source.read = read_file;
            md.source.user = file;
            md.source.size = bytes;
        }
        flash_model_free(m);
        if (!CHECK_EQ(flash_model_load(&m, &md, &err), FLASH_OK)) return;
    }
    sd.n_ctx = 32;
    sd.threads = 2;
    CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_OK);
    flash_session_feed_text(s, word, 0);
    CHECK(strlen(all_of(s)) > 0);

    td.init = m;
    td.n_ctx = 8;
    td.host = host;
    CHECK_EQ(flash_trainer_create(&t, &td, &err), FLASH_OK);
    flash_trainer_free(t);

    param.name = "x";
    param.kind = FLASH_PARAM_REAL;
    param.hi = 1;
    search_desc.param = &param;
    search_desc.n_param = 1;
    search_desc.max_trials = 8;
    search_desc.host = host;
    CHECK_EQ(flash_search_create(&search, &search_desc, &err), FLASH_OK);
    for (int i = 0; i < 8 && !flash_search_ask(search, &trial, &err); i++) {
        y[0] = trial.x[0];
        y[1] = 1 - trial.x[0];
        CHECK_EQ(flash_search_tell(search, trial.id, y, &err), FLASH_OK);
    }
    flash_search_free(search);

    flash_workload work[8];
    flash_timing time[8];
    memset(work, 0, sizeof work);
    for (int i = 0; i < 8; i++) {
        work[i].arch = flash_model_arch(m);
        work[i].weights = work[i].kv = FLASH_TYPE_F32;
        work[i].prompt = work[i].position = 4 + i;
        time[i].prefill = time[i].decode = 1e-3 * (4 + i);
    }
    CHECK_EQ(flash_latency_fit(&l, work, time, 8, &host, &err), FLASH_OK);
    flash_latency_free(l);

    flash_model_free(m);
    free(file);
    CHECK_EQ(libc_calls, 0);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.errors, 0);
}

#ifdef HERE_POSIX
/* Loads, uses and unloads the plugin 100 times, every other time with two threads. No memory and no
   shared object may stay. */
static void test_plugin(const char *program)
{
    char file[1024], text[4096], here[4096];
    const char *end = strrchr(program, '/');
    mk_heap heap;
    flash_host host = own(&heap);
    flash_model *m = NULL;
    flash_session *s = NULL;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    size_t bytes;
    int good = 0, gone = 0;

    SECTION("shared object");
    snprintf(file, sizeof file, "%.*s/plugin.so", end ? (int)(end - program) : 1,
             end ? program : ".");
    free(test_read(file, &bytes));
    if (!bytes) { /* the Makefile makes an empty file where there are no shared objects */
        SKIP("plugin.so", "this build has no shared objects");
        return;
    }
    md.source.path = path;
    sd.n_ctx = 32;
    if (!CHECK_EQ(flash_model_load(&m, &md, NULL), FLASH_OK)
        || !CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_OK)) {
        return;
    }
    snprintf(here, sizeof here, "%s", all_of(s));
    for (int i = 0; i < 100; i++) {
        void *so = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        void *symbol = so ? dlsym(so, "plugin_tell") : NULL;
        plugin_fn tell;
        if (!CHECK(symbol)) {
            printf("    %s\n", dlerror());
            break;
        }
        memcpy(&tell, &symbol, sizeof tell);
        text[0] = 0;
        good += tell(path, &host, 1 + i % 2, text, sizeof text) == FLASH_OK && !strcmp(text, here);
        good -= heap.live != 0;
        CHECK_EQ(dlclose(so), 0);
#ifdef __GLIBC__ /* other C libraries may never unload */
        gone += !dlopen(file, RTLD_NOW | RTLD_NOLOAD);
#else
        gone++;
#endif
    }
    CHECK_EQ(good, 100);
    CHECK_EQ(gone, 100);
    CHECK_EQ(heap.errors, 0);
    flash_model_free(m);
}

/* After a fork in the middle of a text, the session goes on in both processes, with the same
   text. */
static void test_fork(void)
{
    flash_model *m = NULL;
    flash_session *s = NULL;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    flash_piece piece;
    char theirs[4096] = "";
    size_t n = 0;
    ssize_t got;
    int end[2], status = -1;
    pid_t child;

    SECTION("fork");
    md.source.path = path;
    sd.n_ctx = 64;
    if (!CHECK_EQ(flash_model_load(&m, &md, NULL), FLASH_OK)
        || !CHECK_EQ(flash_session_create(&s, m, &sd), FLASH_OK) || !CHECK_EQ(pipe(end), 0)) {
        return;
    }
    flash_session_feed_text(s, "Once upon a time", 0);
    for (int i = 0; i < 5; i++) CHECK_EQ(flash_session_next(s, NULL, &piece), FLASH_OK);
    fflush(stdout);
    child = fork();
    if (!CHECK(child >= 0)) return;
    if (!child) { /* new sessions of the child may have threads */
        flash_session *more;
        const char *text = all_of(s);
        int ok = write(end[1], text, strlen(text)) == (ssize_t)strlen(text);
        sd.threads = 2;
        ok = ok && !flash_session_create(&more, m, &sd) && strlen(all_of(more)) > 0;
        flash_model_free(m);
        _exit(ok ? 0 : 1);
    }
    close(end[1]);
    while ((got = read(end[0], theirs + n, sizeof theirs - 1 - n)) > 0) n += (size_t)got;
    close(end[0]);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK(n > 0);
    CHECK_STR(theirs, all_of(s));
    flash_model_free(m);
}
#endif

int main(int argc, char **argv)
{
    test_no_libc_memory();
#ifdef HERE_POSIX
    test_plugin(argc ? argv[0] : "");
    test_fork();
#else
    (void)argc;
    (void)argv;
    SKIP("shared objects, fork", "not POSIX");
#endif
    return test_done();
}
