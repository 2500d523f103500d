/* board.c - interrupt vectors, start-up code, and a console through the debugger. The C library has
   no part in the start-up: it provides memcpy and the like, and arithmetic on doubles, which this
   processor does not have. */
#include "board.h"
#include <stdint.h>
#include <string.h>

extern uint32_t data_rom[], data_begin[], data_end[], bss_begin[], bss_end[]; /* link.ld */
extern uint32_t stack_begin[], stack_end[];
int main(void);

/* Start-up fills the unused stack with this. Words that still hold it were never written to. */
enum { PAINT = 0x5a5a5a5a };

/* Asks the debugger for an operation (semihosting). what: its number; with: its argument. */
static int debugger(int what, const void *with)
{
    register int r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = with;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void board_write(const char *text) { debugger(0x04, text); } /* SYS_WRITE0 */

void board_exit(int status) /* SYS_EXIT_EXTENDED, "the application ended" */
{
    uint32_t how[2] = {0x20026, (uint32_t)status};
    debugger(0x20, how);
    for (;;);
}

size_t board_stack(void)
{
    uint32_t *p = stack_begin;
    while (*p == PAINT) p++;
    return (size_t)(stack_end - p) * sizeof *p;
}

static void fault(void) { board_exit(3); }

void reset(void);
void reset(void)
{
    volatile uint32_t *cpacr = (volatile uint32_t *)0xe000ed88;
    uint32_t here;
    *cpacr |= 15u << 20; /* enable the floating-point unit */
    __asm__ volatile("dsb\n isb" ::: "memory");
    memcpy(data_begin, data_rom, (size_t)(data_end - data_begin) * sizeof *data_begin);
    memset(bss_begin, 0, (size_t)(bss_end - bss_begin) * sizeof *bss_begin);
    for (volatile uint32_t *p = stack_begin; (uintptr_t)p < (uintptr_t)&here - 64; p++) *p = PAINT;
    board_exit(main());
}

/* The vector table: the initial stack pointer, then reset, NMI and faults. */
__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)stack_end, (uintptr_t)reset, (uintptr_t)fault, (uintptr_t)fault,
    (uintptr_t)fault,     (uintptr_t)fault, (uintptr_t)fault};
