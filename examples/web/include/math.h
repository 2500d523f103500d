/* math.h - what flash.h uses of it: each is one instruction of WebAssembly. */
#ifndef MATH_H
#define MATH_H
#define sqrtf(x)  __builtin_sqrtf(x)
#define sqrt(x)   __builtin_sqrt(x)
#define floor(x)  __builtin_floor(x)
#define ceil(x)   __builtin_ceil(x)
#define fabs(x)   __builtin_fabs(x)
#define fabsf(x)  __builtin_fabsf(x)
#endif
