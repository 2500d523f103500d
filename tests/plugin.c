/* A shared object with its own copy of the implementation inside, like the plugin of a game.
   test_embed loads and unloads it. */
#define FLASH_RUNTIME_IMPLEMENTATION
#include "../flash.h"
#include "plugin.h"

flash_status plugin_tell(const char *path, const flash_host *host, int threads, char *text,
                         size_t cap)
{
    flash_model *m;
    flash_session *s;
    flash_piece piece;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    size_t n = 0;
    md.source.path = path;
    md.host = *host;
    sd.n_ctx = 32;
    sd.threads = threads;
    flash_status st = flash_model_load(&m, &md, NULL);
    if (st) return st;
    st = flash_session_create(&s, m, &sd);
    while (!st && !(st = flash_session_next(s, NULL, &piece))) {
        if (piece.bytes < cap - n) {
            memcpy(text + n, piece.text, piece.bytes + 1);
            n += piece.bytes;
        }
    }
    flash_session_free(s);
    flash_model_free(m);
    return st == FLASH_E_RANGE ? FLASH_OK : st;
}
