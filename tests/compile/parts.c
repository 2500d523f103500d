/* One part of the library alone. tools/lint.sh compiles this file with -DPART_X for each part X. */
#ifdef PART_RUNTIME
#define FLASH_RUNTIME_IMPLEMENTATION
#endif
#ifdef PART_LATENCY
#define FLASH_LATENCY_IMPLEMENTATION
#endif
#ifdef PART_SEARCH
#define FLASH_SEARCH_IMPLEMENTATION
#endif
#ifdef PART_TRAIN
#define FLASH_TRAIN_IMPLEMENTATION
#endif
#include "../../flash.h"

int parts(void);

int parts(void)
{
#ifdef PART_RUNTIME
    return flash_version() + (int)flash_session_memory(NULL, NULL);
#elif defined(PART_LATENCY)
    return (int)flash_latency_predict(NULL, NULL, NULL, NULL);
#elif defined(PART_SEARCH)
    return flash_version() + flash_search_front(NULL, NULL, 0);
#elif defined(PART_TRAIN)
    return flash_version() + (int)flash_trainer_memory(NULL, NULL);
#else
    return FLASH_VERSION;
#endif
}
