/* use.c, compiled as C++. */
#include "use.c"
