#!/bin/sh
# What flash.h adds to a program: code and constants [B] of its parts by -Os, for x86-64, a
# Cortex-M4 and WebAssembly (simd128); then which sections of the file, and which functions, the
# runtime's are from on the Cortex-M4. Called by `make size`; fails if that is more than 120 kB.
# Where a compiler is missing, or a macro set does not fit the target, the table has a dash.
B=${B:-build}/size
BAR=120000
export LC_ALL=C
mkdir -p $B
rm -f $B/*

X86=gcc
[ "$(uname -m)" = x86_64 ] || X86=x86_64-linux-gnu-gcc
M4='arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16'
WASM='clang --target=wasm32 -msimd128 -isystem examples/web/include'
OWN='-DFLASH_MALLOC(n)=((void*)(n)) -DFLASH_FREE(p)=((void)(p)) -DFLASH_ASSERT(c)=((void)0)'

# Everything a part has: what a program does not call, its linker leaves out of this.
column() # NAME SIZE-PROGRAM MACROS COMPILER...
{
    o=$B/$1.o size=$2 macros=$3
    shift 3
    rm -f $o
    command -v "$1" >/dev/null && echo '#include "flash.h"' | "$@" -std=c99 -Os -w -I. \
        -fno-asynchronous-unwind-tables $OWN $macros -xc -c - -o $o 2>$o.log
    [ -s $o ] && $size $o | awk 'NR == 2 { printf "%10d", $1 + $2 }' || printf '%10s' -
}

row() # LABEL PART MACRO...
{
    printf '%-38s' "$1"
    macros=-DFLASH_$2
    shift 2
    for m; do macros="$macros -DFLASH_NO_$m"; done
    column x86 size "$macros" $X86
    column m4 arm-none-eabi-size "$macros" $M4
    column wasm llvm-size "$macros" $WASM
    echo
}

bare='STDIO MMAP THREADS'
printf '%-38s%10s%10s%10s\n' '' x86-64 Cortex-M4 wasm32
row 'everything' IMPLEMENTATION
row 'everything, bare' IMPLEMENTATION $bare
row 'search, bare' SEARCH_IMPLEMENTATION $bare
row 'runtime and training, bare, no SIMD' TRAIN_IMPLEMENTATION $bare SIMD
row 'runtime and latency, bare, no SIMD' LATENCY_IMPLEMENTATION $bare SIMD
row 'runtime' RUNTIME_IMPLEMENTATION
row 'runtime, no SIMD' RUNTIME_IMPLEMENTATION SIMD
row 'runtime, bare' RUNTIME_IMPLEMENTATION $bare
row 'runtime, bare, no SIMD' RUNTIME_IMPLEMENTATION $bare SIMD
echo '(bare: no stdio, mmap, threads)'

[ -s $B/m4.o ] || { echo 'skip: the runtime on a Cortex-M4 (no arm-none-eabi-gcc)'; exit 0; }
echo
echo 'The last one on the Cortex-M4: sections of flash.h'
arm-none-eabi-nm -S --defined-only $B/m4.o >$B/m4.sym
awk '
    FNR == NR { # a name belongs to the section that has it first at the start of a line
        if (/^\/\* ===== >>config/) begun = 1
        if (/^\/\* ===== >>/) tag = substr($3, 3)
        if (begun && /^[a-zA-Z]/)
            while (match($0, /flash_[a-zA-Z0-9_]+ *[(\[]/)) {
                name = substr($0, RSTART, RLENGTH - 1)
                $0 = substr($0, RSTART + RLENGTH)
                sub(/ *$/, "", name)
                if (!(name in of)) of[name] = tag
            }
        next
    }
    NF == 4 { name = $4; sub(/\..*/, "", name); print $2, (name in of) ? of[name] : "-" }
' flash.h $B/m4.sym >$B/m4.tags
while read -r hex tag; do echo $((0x$hex)) $tag; done <$B/m4.tags |
    awk '{ n[$2] += $1; all += $1 } END { for (t in n) print n[t], t; print all, "named" }' |
    sort -rn | awk '{ printf "%8d  %s\n", $1, $2 }'
echo
echo '... and the largest functions and tables'
arm-none-eabi-nm -S --size-sort -r --defined-only $B/m4.o | head -12 |
    while read -r _ hex _ name; do printf '%8d  %s\n' $((0x$hex)) $name; done
n=$(arm-none-eabi-size $B/m4.o | awk 'NR == 2 { print $1 + $2 }')
echo
echo "runtime on a Cortex-M4: $n of at most $BAR bytes"
[ $n -le $BAR ]
