/* board.h - the functions of a board that main.c needs. board.c implements them for Arm's MPS2
   with a Cortex-M4 (in qemu: mps2-an386), with a debugger attached (semihosting). */
#ifndef BOARD_H
#define BOARD_H
#include <stddef.h>

void board_write(const char *text);
void board_exit(int status);
size_t board_stack(void); /* the largest stack so far [B] */

#endif
