/* board.h - what main.c needs of a board; board.c has it for Arm's MPS2 with a Cortex-M4 (qemu:
   mps2-an386) and a debugger that listens (semihosting). */
#ifndef BOARD_H
#define BOARD_H
#include <stddef.h>

void board_write(const char *text);
void board_exit(int status);
size_t board_stack(void); /* the most that was used so far [B] */

#endif
