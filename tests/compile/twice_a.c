/* Two private copies in one program, this file and twice_b.c: no symbol of one may collide with a
   symbol of the other. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#include "../../flash.h"

int twice_b(void);

int main(void) { return flash_version() == twice_b() ? 0 : 1; }
