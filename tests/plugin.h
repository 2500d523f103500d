/* What test_embed finds in plugin.c. */
#ifndef PLUGIN_H
#define PLUGIN_H
#include "../flash.h"

/* Loads, writes until 32 positions are full, frees. text: [cap], NUL-terminated. */
flash_status plugin_tell(const char *path, const flash_host *host, int threads, char *text,
                         size_t cap);
typedef flash_status (*plugin_fn)(const char *path, const flash_host *host, int threads, char *text,
                                  size_t cap);

#endif
