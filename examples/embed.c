/* embed.c - use inside firmware or a game: the model is an array of bytes in memory, all working
   memory comes from one block, and text leaves through a callback. The library uses no files and
   no malloc.
   build    cc -std=c99 -O2 -I. examples/embed.c -o build/embed -lm
   run      build/embed model.gguf
   expect   up to TOKENS tokens of text, then the bytes of the block that the model and the session
            take, and how often writing acquired memory: 0. An error if BLOCK is too small. */
#include <stdio.h>
#include <stdlib.h>

#define FLASH_IMPLEMENTATION
#define FLASH_NO_STDIO
#define FLASH_NO_MMAP
#define FLASH_MALLOC(n) (abort(), (void *)(n)) /* never called: all memory is from the arena */
#define FLASH_FREE(p) ((void)(p), abort())
#include "flash.h"

enum { BLOCK = 8 << 20, TOKENS = 64 };

/* An allocator that hands out one block from its start to its end. A piece that is released can be
   used again only if it was the last one handed out. */
typedef struct arena {
    unsigned char *block;
    size_t size, used; /* [B] */
    int calls;         /* acquisitions so far */
} arena;

static void *acquire(void *user, size_t bytes, size_t align)
{
    arena *a = (arena *)user;
    size_t skip = (align - (uintptr_t)(a->block + a->used) % align) % align;
    if (skip > a->size - a->used || bytes > a->size - a->used - skip) return NULL;
    a->calls++;
    a->used += skip + bytes;
    return a->block + a->used - bytes;
}

static void release(void *user, void *ptr, size_t bytes)
{
    arena *a = (arena *)user;
    if ((unsigned char *)ptr + bytes == a->block + a->used) a->used -= bytes;
}

/* Loads the model at data, writes TOKENS tokens through show, and frees everything. All calls of
   the library are here. */
static flash_status tell(const void *data, size_t bytes, arena *a,
                         void (*show)(const char *text, size_t bytes))
{
    flash_model *m;
    flash_session *s;
    flash_piece piece;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    md.source.data = data; /* used in place, not copied: RAM, ROM, an archive of assets */
    md.source.bytes = bytes;
    md.host.allocator.acquire = acquire;
    md.host.allocator.release = release;
    md.host.allocator.user = a;
    sd.n_ctx = TOKENS + 1;
    flash_status st = flash_model_load(&m, &md, NULL);
    if (st) return st;
    st = flash_session_create(&s, m, &sd);
    int calls = a->calls;
    for (int n = 0; n < TOKENS && !st && !(st = flash_session_next(s, NULL, &piece)); n++)
        show(piece.text, piece.bytes);
    printf("\n[model %lu + session %lu of %d bytes, %d acquired while writing]\n",
           (unsigned long)flash_model_memory(&md, NULL),
           (unsigned long)flash_session_memory(m, &sd), BLOCK, a->calls - calls);
    flash_session_free(s);
    flash_model_free(m);
    return st;
}

static void show(const char *text, size_t bytes) { fwrite(text, 1, bytes, stdout); }

int main(int argc, char **argv) /* reads a file, in place of whatever brings the bytes */
{
    static unsigned char block[BLOCK], model[BLOCK];
    arena a = {block, BLOCK, 0, 0};
    FILE *f = fopen(argc > 1 ? argv[1] : "model.gguf", "rb");
    size_t bytes = f ? fread(model, 1, BLOCK, f) : 0;
    flash_status st = tell(model, bytes, &a, show);
    if (st < 0) fprintf(stderr, "embed: %s\n", flash_status_text(st));
    return st < 0;
}
