/* The implementation as C. A second inclusion with the macro still defined must do no harm. */
#define FLASH_IMPLEMENTATION
#include "../../flash.h"
#include "../../flash.h"
