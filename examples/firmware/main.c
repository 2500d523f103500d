/* main.c - a story teller in firmware on bare metal: no heap, no files, no threads. The model is
   used in place in ROM; all that the library needs is one block of RAM.
   build    `make firmware`: see run.sh, which runs it in qemu and compares the text with the text
            that the same model writes on the host
   expect   the story, token by token, then the memory that it took */
#include "board.h"

#define FLASH_RUNTIME_IMPLEMENTATION
#define FLASH_NO_STDIO
#define FLASH_NO_MMAP
#define FLASH_NO_THREADS
#define FLASH_NO_SIMD
#define FLASH_MALLOC(n) ((void)(n), board_exit(2), (void *)0) /* never called: see acquire */
#define FLASH_FREE(p)   ((void)(p), board_exit(2))
#define FLASH_ASSERT(c) ((void)sizeof(c))
#include "flash.h"

enum { ARENA = 384 << 10 }; /* RAM for the model and the session [B] */

extern const unsigned char model_begin[], model_end[]; /* model.S */

/* An allocator that hands out one block from its start to its end. It takes nothing back, because
   the model and the session are never freed. */
typedef struct arena {
    unsigned char *block;
    size_t size, used;
} arena;

static void *acquire(void *user, size_t bytes, size_t align)
{
    arena *a = (arena *)user;
    size_t start = (a->used + align - 1) & ~(align - 1);
    if (start > a->size || bytes > a->size - start) return NULL;
    a->used = start + bytes;
    return a->block + start;
}

static void release(void *user, void *ptr, size_t bytes)
{
    (void)user;
    (void)ptr;
    (void)bytes;
}

static void number(const char *before, size_t n)
{
    char digits[12], *p = digits + sizeof digits;
    *--p = 0;
    do *--p = (char)('0' + n % 10);
    while (n /= 10);
    board_write(before);
    board_write(p);
}

int main(void)
{
    static unsigned char block[ARENA] __attribute__((aligned(64)));
    arena a = {block, ARENA, 0};
    flash_model *m;
    flash_session *s;
    flash_piece piece;
    flash_error err;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    md.source.data = model_begin;
    md.source.bytes = (size_t)(model_end - model_begin);
    md.host.allocator.acquire = acquire;
    md.host.allocator.release = release;
    md.host.allocator.user = &a;
    sd.n_ctx = TOKENS + 1; /* one more for the token that begins the text */
    sd.chunk = 1;          /* enough without a prompt; 8 or 16 read a long prompt faster */
    size_t for_model = flash_model_memory(&md, &err);
    if (flash_model_load(&m, &md, &err)) {
        board_write(err.text);
        return 1;
    }
    size_t for_session = flash_session_memory(m, &sd);
    if (flash_session_create(&s, m, &sd)) {
        number("no memory: needs ", for_session);
        return 1;
    }
    size_t used = a.used;
    for (int n = 0; n < TOKENS && flash_session_next(s, NULL, &piece) == FLASH_OK; n++)
        board_write(piece.text);
    number("\n[RAM: model ", for_model);
    number(", session ", for_session);
    number(" (keys and values ",
           (size_t)flash_arch_kv_bytes(flash_model_arch(m), sd.n_ctx, sd.chunk, FLASH_TYPE_F32));
    number("), arena ", used);
    number(", stack ", board_stack());
    number(" bytes; acquired while writing: ", a.used - used);
    board_write("]\n");
    return used != for_model + for_session || a.used != used; /* 0: exactly what was predicted */
}
