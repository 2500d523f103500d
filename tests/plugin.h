/* The interface of plugin.c for test_embed. */
#ifndef PLUGIN_H
#define PLUGIN_H
#include "../flash.h"

/* Loads the model at path, writes into text until 32 positions are full, and frees the model. text:
   [cap], NUL-terminated. */
flash_status plugin_tell(const char *path, const flash_host *host, int threads, char *text,
                         size_t cap);
typedef flash_status (*plugin_fn)(const char *path, const flash_host *host, int threads, char *text,
                                  size_t cap);

#endif
