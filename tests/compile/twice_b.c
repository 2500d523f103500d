/* The second private copy: see twice_a.c. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#include "../../flash.h"

int twice_b(void);

int twice_b(void) { return flash_version(); }
