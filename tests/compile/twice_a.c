/* Two private copies in one program, this one with main: no symbol may meet the other's. */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#include "../../flash.h"

int twice_b(void);

int main(void) { return flash_version() == twice_b() ? 0 : 1; }
