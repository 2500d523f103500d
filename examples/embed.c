/* embed.c - in firmware or a game: the model is bytes in memory, all working memory is one block,
   text leaves through a callback; the library uses no files and no malloc.
   build    cc -std=c99 -O2 -I. examples/embed.c -o build/embed -lm
   run      build/embed model.gguf
   expect   64 tokens of text, then what the model and the session took of the block, and that
            writing took nothing. Says "no memory" if BLOCK is too small. */
#include <stdio.h>
#include <stdlib.h>

#define FLASH_IMPLEMENTATION
#define FLASH_NO_STDIO
#define FLASH_NO_MMAP
#define FLASH_MALLOC(n) (abort(), (void *)(n)) /* nobody comes here: all of it is the arena's */
#define FLASH_FREE(p) ((void)(p), abort())
#include "flash.h"

enum { BLOCK = 8 << 20, TOKENS = 64 };

/* Gives out a block from its start; takes back what it gave last. */
typedef struct arena {
    unsigned char *block;
    size_t size, used;
    int calls;
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

/* The whole use of the library: model bytes in, text out through show. */
static flash_status tell(const void *data, size_t bytes, arena *a,
                         void (*show)(const char *text, size_t bytes))
{
    flash_model *m;
    flash_session *s;
    flash_piece piece;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    md.source.data = data; /* stays where it is: RAM, ROM, an archive of assets */
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

int main(int argc, char **argv) /* stands for whatever brings the bytes */
{
    static unsigned char block[BLOCK], model[BLOCK];
    arena a = {block, BLOCK, 0, 0};
    FILE *f = fopen(argc > 1 ? argv[1] : "model.gguf", "rb");
    size_t bytes = f ? fread(model, 1, BLOCK, f) : 0;
    flash_status st = tell(model, bytes, &a, show);
    if (st < 0) fprintf(stderr, "embed: %s\n", flash_status_text(st));
    return st < 0;
}
