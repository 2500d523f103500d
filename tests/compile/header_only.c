/* Uses the declarations alone. tools/lint.sh compares what this file includes and defines with and
   without the header (-DWITHOUT). */
#include <stddef.h>
#include <stdint.h>
#ifndef WITHOUT
#include "../../flash.h"
#endif

extern int header_only; /* a translation unit must declare something */
