/* The implementation as C; a second inclusion with the macro still defined must be harmless. */
#define FLASH_IMPLEMENTATION
#include "../../flash.h"
#include "../../flash.h"
