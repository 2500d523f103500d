/* web.c - a story teller in a browser: WebAssembly without a runtime or a C library, called by
   worker.js.
   build    `make web` makes the page in build/web, for any web server to serve
   expect   see index.html. load, begin and next return a flash_status. Texts and the model's file
            are passed as addresses in the memory of the module. */
#define FLASH_RUNTIME_IMPLEMENTATION
#define FLASH_NO_STDIO
#define FLASH_NO_MMAP
#define FLASH_NO_THREADS
#define FLASH_MALLOC(n) (__builtin_trap(), (void *)(n)) /* never called: see acquire */
#define FLASH_FREE(p)   ((void)(p), __builtin_trap())
#define FLASH_ASSERT(c) ((c) ? (void)0 : __builtin_trap())
#include "flash.h"

#define EXPORT(name) __attribute__((export_name(#name))) name

/* The memory behind the program is one block that grows. The model's file, the model and the
   session are placed there once and stay until the page is closed. */
extern unsigned char __heap_base;

static void *acquire(void *user, size_t bytes, size_t align)
{
    size_t *top = (size_t *)user, page = 65536;
    size_t start = (*top + align - 1) & ~(align - 1), end = start + bytes;
    size_t have = __builtin_wasm_memory_size(0) * page;
    if (end < start) return NULL;
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + page - 1) / page) == (size_t)-1)
        return NULL;
    *top = end;
    return (void *)start;
}

static void release(void *user, void *ptr, size_t bytes)
{
    size_t *top = (size_t *)user;
    if ((size_t)ptr + bytes == *top) *top = (size_t)ptr;
}

static struct {
    size_t top; /* address of the first free byte */
    flash_model *model;
    flash_session *session;
    flash_error error;
    flash_piece piece;
} web;

/* Returns memory for the model's file or for a text, or NULL if there is none left. */
void *EXPORT(room)(size_t bytes)
{
    if (!web.top) web.top = (size_t)&__heap_base;
    return acquire(&web.top, bytes, 64);
}

int EXPORT(load)(const void *file, size_t bytes)
{
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    md.source.data = file;
    md.source.bytes = bytes;
    md.host.allocator.acquire = acquire;
    md.host.allocator.release = release;
    md.host.allocator.user = &web.top;
    flash_status st = flash_model_load(&web.model, &md, &web.error);
    return st ? st : flash_session_create(&web.session, web.model, &sd);
}

/* Starts a new text that begins with prompt. */
int EXPORT(begin)(const char *prompt, float temperature, unsigned seed)
{
    flash_sampler how = {0};
    how.temperature = temperature;
    how.top_p = 0.95f;
    how.seed = seed;
    flash_session_reset(web.session);
    flash_status st = flash_session_sampler(web.session, &how);
    return st ? st : flash_session_feed_text(web.session, prompt, 0);
}

/* Writes one token, or reads 8 tokens of the prompt and returns FLASH_MORE. Each call is short, so
   that the worker can react to a stop between two calls. */
int EXPORT(next)(void)
{
    flash_budget budget = {8, 0};
    return flash_session_next(web.session, &budget, &web.piece);
}

const char *EXPORT(text)(void) { return web.piece.text; }
size_t EXPORT(text_bytes)(void) { return web.piece.bytes; }
const char *EXPORT(why)(int status)
{
    return web.error.text[0] ? web.error.text : flash_status_text(status);
}

/* The few functions of a C library that flash.h needs. Copying and filling are instructions of
   WebAssembly (-mbulk-memory). */
void *memcpy(void *to, const void *from, size_t n) { return __builtin_memcpy(to, from, n); }
void *memmove(void *to, const void *from, size_t n) { return __builtin_memmove(to, from, n); }
void *memset(void *to, int byte, size_t n) { return __builtin_memset(to, byte, n); }

void *memchr(const void *p, int byte, size_t n)
{
    const unsigned char *s = p;
    for (; n; n--, s++)
        if (*s == (unsigned char)byte) return (void *)s;
    return NULL;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *s = a, *t = b;
    for (; n; n--, s++, t++)
        if (*s != *t) return *s - *t;
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;
    while (s[n]) n++;
    return n;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return (unsigned char)*a - (unsigned char)*b;
}

char *strchr(const char *s, int byte)
{
    while (*s && *s != (char)byte) s++;
    return *s == (char)byte ? (char *)s : NULL;
}

size_t strcspn(const char *s, const char *stop)
{
    size_t n = 0;
    while (s[n] && !strchr(stop, s[n])) n++;
    return n;
}
