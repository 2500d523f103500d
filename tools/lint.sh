#!/bin/sh
# What can be checked without running the library: each finding is printed, last come the counts.
# Needs gcc, clang, g++ and binutils; a missing compiler is skipped by name (with CI=true: an error).
export LC_ALL=C.UTF-8
B=build/lint
C=tests/compile
mkdir -p $B
passed=0 failed=0 skipped=0

WARN='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wundef -Wcast-qual
      -Wpointer-arith -Werror'
WARN_C="$WARN -Wstrict-prototypes -Wmissing-prototypes -Wc++-compat"
# One optimised object serves all that needs one. GNU C is where compilers fuse multiply-adds unasked.
OPTIMISED='-std=gnu11 -O3'
[ "$(uname -m)" != x86_64 ] || OPTIMISED="$OPTIMISED -march=haswell"

# check NAME FINDINGS: nothing found is good.
check()
{
    if [ -z "$2" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $1"
        printf '%s\n' "$2" | head -12 | sed 's/^/    /'
    fi
}

# runs COMMAND...: its output if it failed.
runs()
{
    out=$("$@" 2>&1) || printf '%s\n' "${out:-$* failed}"
}

have()
{
    command -v "$1" >/dev/null && return
    if [ "$CI" = true ]; then
        check "$1" "not installed"
    else
        echo "skip: $1 (not installed)"
        skipped=$((skipped + 1))
    fi
    return 1
}

# --- the text of the files ---------------------------------------------------------------------

c_files=$(ls flash.h examples/*.c* examples/*/*.[ch] examples/*/*/*.h tools/*.[ch] tests/*.[ch] $C/*.c* tests/fuzz/*.[ch] 2>/dev/null)
all_files="$c_files $(ls README.md CHANGELOG.md LICENSE examples/*.md examples/firmware/*.* examples/web/*.* tools/*.* tests/*.sh \
    tests/*.awk .ci/run 2>/dev/null)"
check "table of contents = banners" "$(runs sh tools/toc.sh)"
long=$(grep -nE '^.{101}' $c_files | cut -c1-90)
check "lines over 100 columns: $(printf '%s' "$long" | grep -c '')" "$long"
check "tabs" "$(grep -nP '\t' $all_files)"
check "blanks at line ends" "$(grep -nE '[[:space:]]$' $all_files Makefile)"
check "last line without a newline" "$(for f in $all_files; do tail -c1 $f | grep -q . && echo $f; done)"

quick_start()
{
    sed -n '/^\/\/ >>quick-start/,/^\/\/ <<quick-start/p' flash.h | sed '1d;$d'
}
# A file without its leading comment block and the blank lines after it.
without_comment()
{
    awk 'NR == 1 && /^\/\*/ { inside = 1 }
         !inside && (begun || NF) { begun = 1; print }
         inside && /\*\// { inside = 0 }' "$1"
}
quick_start >$B/quick-start.c
without_comment examples/hello.c >$B/hello.c
sed -n '/^```c$/,/^```$/p' README.md | sed '/^```$/,$d;1d' >$B/readme.c
check "examples/hello.c = quick start" "$(diff $B/quick-start.c $B/hello.c 2>&1)"
check "README's program = quick start" "$(diff $B/quick-start.c $B/readme.c 2>&1)"
check "README of at most 150 lines" "$(awk 'END { if (NR > 150) print NR }' README.md)"

number() { sed -n "s/^#define FLASH_VERSION_$1 \([0-9]*\)$/\1/p" flash.h; }
first() { grep -oE '\bv[0-9]+\.[0-9]+\.[0-9]+' "$1" | head -1; }
version="v$(number MAJOR).$(number MINOR).$(number PATCH)"
for f in flash.h README.md CHANGELOG.md; do
    [ "$(first $f)" = "$version" ] && wrong= || wrong="$(first $f), FLASH_VERSION_* say $version"
    check "version in $f" "$wrong"
done
check "licences at the end of flash.h" "$(tail -60 flash.h | grep -qi 'public domain' || echo none)"

# --- the implementation as code -----------------------------------------------------------------

c_compiler()
{
    cc=$1
    have $cc || return
    cc99="$cc -std=c99 -I."
    O=$B/$cc
    check "strict warnings, $cc" "$(runs $cc99 $WARN_C -c $C/impl.c -o $O-impl.o)"
    check "strict warnings, optimised, $cc" "$(runs $cc99 $OPTIMISED $WARN_C -c $C/impl.c -o $O-impl-opt.o)"
    check "-fPIC, $cc" "$(runs $cc99 -fPIC -c $C/impl.c -o $O-impl-pic.o)"
    check "use.c, $cc" "$(runs $cc99 $WARN_C $C/use.c $O-impl.o -lm -o $O-use; runs $O-use)"
    check "two private copies, $cc" \
        "$(runs $cc99 $WARN_C $C/twice_a.c $C/twice_b.c -lm -o $O-twice; runs $O-twice)"
    check "after a vendor's header, $cc" "$(runs $cc99 -Wall -Wextra -Werror -c $C/vendor.c -o $O-vendor.o)"
    check "no part, $cc" "$(runs $cc99 $WARN_C -c $C/parts.c -o $O-parts.o)"
    for part in $(grep -o 'FLASH_[A-Z]*_IMPLEMENTATION' flash.h | sort -u | cut -d_ -f2); do
        check "part $part is in parts.c" "$(grep -q "PART_$part" $C/parts.c || echo missing)"
        check "part $part, $cc" "$(runs $cc99 $WARN_C -DPART_$part -c $C/parts.c -o $O-parts.o)"
    done
    for o in $O-impl.o $O-impl-opt.o $O-impl-pic.o; do
        [ -f $o ] || continue
        check "writable data in $o" "$(size -A $o |
            awk '$1 ~ /^\.(t?data|t?bss)(\.|$)/ && $1 !~ /^\.data\.rel\.ro/ && $2 > 0')"
        check "exports of $o" "$(nm -g --defined-only $o | grep -v ' flash_[a-z]')"
    done
    # What the object asks of the C library: no output, no exit; and no function of libm whose last
    # bit differs between libraries (sqrt, floor and their kind are exact).
    check "calls of the library, $cc" "$(nm -u $O-impl-opt.o | awk '{ print $2 }' | grep -xE \
        'v?f?d?printf|f?puts|f?putc|putchar|perror|_*exit|abort|__errno_location|setlocale|(exp|exp2|exp10|expm1|log|log2|log10|log1p|sin|cos|tan|sincos|tanh|pow|cbrt|hypot)[fl]?')"

    # A fused multiply-add rounds once instead of twice. gcc 12.2 makes some even with contraction off.
    check "no fused multiply-add, $cc" "$(objdump -d --no-show-raw-insn $O-impl-opt.o 2>&1 | awk '
        /^[0-9a-f]+ <.*>:$/ { name = $2 }
        /\tvfn?m(add|sub)/ { n[name]++ }
        END { for (name in n) print name, n[name] }')"

    # Declared = exported.
    $cc99 -E -P $C/header_only.c | tr '\n' ' ' | grep -oE 'extern [^(;]*\(' |
        grep -oE 'flash_[a-z0-9_]+ *\($' | tr -d ' (' | sort >$O-declared
    nm -g --defined-only $O-impl.o | grep -o 'flash_.*' | sort >$O-exported
    check "declared (<) = defined (>), $cc" "$(grep -xvf $O-exported $O-declared | sed 's/^/< /'
        grep -xvf $O-declared $O-exported | sed 's/^/> /')"

    # Macros: without the implementation only FLASH_ names, after it no FLASH__ name but the guard.
    $cc99 -dM -E -DWITHOUT $C/header_only.c | grep -v ' WITHOUT ' | sort >$O-macros-without
    $cc99 -dM -E $C/header_only.c | sort >$O-macros-with
    check "macros of the declarations, $cc" "$(comm -13 $O-macros-without $O-macros-with |
        grep -vE '^#define FLASH_[A-Z]')"
    check "headers of the declarations, $cc" "$($cc99 -M $C/header_only.c | tr -s ' \\' '\n\n' |
        grep -vxE "$(basename $C/header_only.o):|.*flash\.h" >$O-deps
        $cc99 -M -DWITHOUT $C/header_only.c | tr -s ' \\' '\n\n' | grep -vxFf - $O-deps)"
    check "FLASH__ macros after the implementation, $cc" "$($cc99 -dM -E $C/impl.c |
        grep -E '^#define FLASH__' | grep -vE '^#define FLASH__IMPLEMENTED\b')"
    # Every macro the file leaves behind, by the place of its definition.
    check "macros defined in flash.h, $cc" "$($cc99 -dD -E $C/impl.c | awk '
        /^# [0-9]+ "/ { ours = $3 ~ /flash\.h"$/ }
        ours && $1 == "#define" { sub(/\(.*/, "", $2); defined[$2] = 1 }
        $1 == "#undef" { delete defined[$2] }
        END { for (name in defined) if (name !~ /^FLASH_/) print name }')"
}

# Names that print or leave, in the code itself: comments are gone, macros are not expanded.
sed -n '/^\/\* ===== >>config/,$p' flash.h >$B/implementation.h
check "implementation found" "$([ -s $B/implementation.h ] || echo 'no section >>config')"
if have gcc; then
    gcc -fpreprocessed -dD -E -P -xc $B/implementation.h 2>/dev/null |
        sed 's/"\([^"\\]\|\\.\)*"/""/g' >$B/code.h
    check "names not for a library" "$(grep -nE \
        '\<(v?f?printf|f?puts|f?putc|putchar|perror|_?exit|_Exit|abort|setlocale|strtok|stdout|stderr)\>|\<errno\>' $B/code.h)"
fi

cxx_compiler()
{
    have $1 && check "C++11, $1" \
        "$(runs $1 -std=c++11 $WARN $C/impl.cpp $C/use.cpp -lm -o $B/$1; runs $B/$1)"
}

# With the first compiler that is there: the tests make warns with the others.
around()
{
    cc=$(command -v clang || echo gcc)
    for f in examples/*.c tools/*.c tests/*.c tests/fuzz/*.c; do
        check "warnings in $f" \
            "$(runs $cc -std=c99 -I. -Wall -Wextra -Wpedantic -Werror -DFUZZ_MAIN -fsyntax-only $f)"
    done
    { echo '#include "flash.h"
            typedef struct engine engine;
            void engine_parallel_for(engine *, int, void (*)(void *, int), void *);
            double engine_time(engine *);
            void engine_say(engine *, const char *, size_t);
            void *engine_alloc(engine *, size_t, size_t);
            void engine_free(engine *, void *, size_t);
            int engine_can_spare(engine *, size_t);'
        sed -n '/^```c$/,/^```$/p' examples/engine.md | grep -v '^```'
        echo 'void all(void);
            void all(void) { (void)jobs; (void)think; (void)start; }'; } >$B/engine.c
    check "the code in examples/engine.md" \
        "$(runs $cc -std=c99 -I. -Wall -Wextra -Wpedantic -Werror -fsyntax-only $B/engine.c)"
}

formatted()
{
    out=$(sh tools/format.sh --dry-run -Werror 2>&1)
    code=$?
    if [ $code = 3 ] && [ "$CI" != true ]; then
        echo "skip: the format ($out)"
        skipped=$((skipped + 1))
    else
        check "the format: make format mends it" "$([ $code = 0 ] || echo "$out" | grep -v '^ ')"
    fi
}

# Apart: what each finds goes to a file, and so do its counts.
apart() # NAME COMMAND...
{
    (passed=0 failed=0 skipped=0 name=$1
    while [ $# -gt 1 ]; do $2; shift; done
    echo "$passed $failed $skipped" >$B/$name.counts) >$B/$1.out &
}
apart one 'c_compiler gcc' 'cxx_compiler g++'
apart two 'c_compiler clang' 'cxx_compiler clang++' around
apart three formatted
wait
for part in one two three; do
    cat $B/$part.out
    read -r p f s <$B/$part.counts
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done

[ $skipped = 0 ] || skips=", $skipped skipped"
echo "$passed passed, $failed failed$skips"
[ $failed = 0 ]
