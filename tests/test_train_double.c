/* Checks the trainer's gradients in double precision, where finite differences are accurate. */
#define FLASH__REAL double
#define FLASH_NO_SIMD /* differences of the loss use no kernels but the teacher's */
#define FLASH_STATIC
#define FLASH_IMPLEMENTATION
#define FLASH_KEEP_INTERNALS
#include "../flash.h"
#include "train.h"

int main(void)
{
    for (size_t i = 0; i < COUNT(gradient_cases); i++)
        check_gradients(gradient_cases + i, 1e-5, 1e-4, 1e-5, getenv("FLASH_QUICK") ? 1 : 24);
    check_golden(1e-5);
    return test_done();
}
