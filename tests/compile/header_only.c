/* The declarations alone. tools/lint.sh compares what this pulls in and defines with the same file
   without the header (-DWITHOUT). */
#include <stddef.h>
#include <stdint.h>
#ifndef WITHOUT
#include "../../flash.h"
#endif

extern int header_only; /* a translation unit must declare something */
