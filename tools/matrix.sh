#!/bin/sh
# The tests natively, sanitized, emulated and with other compilers, and the implementation compiled
# under its options. Run by `make matrix`, what every change must pass, and by `make matrix-full`,
# everything, before a release. Two jobs at a time; logs in build/matrix. Last come the counts. A
# missing compiler is skipped by name (with CI=true: an error). ONLY=PATTERN runs the jobs whose
# name matches.
B=build/matrix
C=tests/compile
WARN='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wundef -Wcast-qual
      -Wpointer-arith -Werror'

if [ "$1" = job ]; then # NAME|COMMAND, from xargs below
    name=${2%%|*} from=$(date +%s)
    log=$B/$(echo "$name" | tr -c 'A-Za-z0-9.\n' -).log
    if timeout 3600 sh -c "${2#*|}" >"$log" 2>&1; then
        echo "ok     $name, $(($(date +%s) - from)) s$(tail -1 "$log" | sed -n '/ passed, /s/^/: /p')"
    else
        echo "FAILED $name: $log"
        grep -E 'FAILED|[Ee]rror|ERROR|warning|exit [1-9]|no summary' "$log" | head -6 | sed 's/^/    /'
    fi
    exit 0
fi

unset MAKEFLAGS MFLAGS MAKELEVEL # jobs run make themselves, with a configuration of their own
rm -rf $B
mkdir -p $B
: >$B/jobs
: >$B/missing

job() # NAME COMMAND
{
    printf '%s|%s\n' "$1" "$(echo "$2" | tr '\n' ' ')" >>$B/jobs
}
have() # all of the programs named, or the name is noted
{
    for program; do
        command -v "$program" >/dev/null || { echo "$program" >>$B/missing; return 1; }
    done
}
tests() # NAME CC CFLAGS RUN [MAKE'S VARIABLES]: the tests, shortened, in a folder of their own
{
    dir=$(echo "$1" | tr -c 'A-Za-z0-9\n' -)
    job "tests, $1" "FLASH_QUICK=1 make -s test B=$B/$dir CC='$2' CFLAGS='$3' RUN='$4' $5"
}

# What every change is checked with: the tests whose results depend on the kernels, on byte order,
# on the C library or on the width of types. Training takes minutes in an emulator.
if [ -z "$FULL" ]; then
    chosen=
    for test in gguf quant quantize kernels tokenizer attention forward sampler state latency; do
        chosen="$chosen \$(B)/tests/test_$test"
    done
    emulated="SCRIPTS= REPLAYS= TESTS='$chosen'"
    library="SCRIPTS= REPLAYS= TESTS='$chosen \$(B)/tests/test_train'"
    elsewhere=$library cxx_std=c++11 std_list=c99 opts=-O0
else
    library='SCRIPTS= REPLAYS=' emulated= elsewhere= cxx_std='c++11 c++17 c++20'
    std_list='c99 gnu99 c11 c17' opts='-O0 -O2'
fi

# The slow ones first: two workers then end together. gcc for s390x computes floats as doubles in
# strict ISO mode, which changes bits, unless told not to.
# The library itself sanitized with -O1 runs twice as fast, and compiles in a minute with checks of
# large functions as calls.
have clang && tests 'ASan and UBSan' clang \
    '-O0 -g -fsanitize=address,undefined -fno-sanitize-recover=all' '' \
    "LIBFLAGS='-O1 -mllvm -asan-instrumentation-with-call-threshold=500'"
arch=$(uname -m)
for target in s390x:s390x-linux-gnu aarch64:aarch64-linux-gnu; do
    cpu=${target%:*} cc=${target#*:}-gcc scripts=$emulated
    command -v $cc >/dev/null || cc=$cc-12
    [ -z "$FULL" ] || [ $cpu != s390x ] || scripts="SCRIPTS='\$(B)/tests/test_cli'"
    [ $arch = $cpu ] || { have $cc qemu-$cpu &&
        tests "$cpu emulated" $cc '-static -fexcess-precision=fast' qemu-$cpu "$scripts"; }
done
have tcc && tests tcc tcc '' '' "$elsewhere"
have musl-gcc && tests 'musl, static' musl-gcc -static '' "$elsewhere"
# 32 bit x86 computes in SSE registers, else excess precision changes bits. Debian's cross compilers
# exclude gcc-multilib, whose one link -idirafter replaces.
if [ $arch = x86_64 ] && have gcc; then
    flags='-m32 -msse2 -mfpmath=sse -idirafter /usr/include/x86_64-linux-gnu'
    if echo 'int main(void) { return 0; }' | gcc $flags -xc - -o $B/m32 2>/dev/null; then
        tests -m32 gcc "$flags" '' "$library"
    else
        echo 'gcc -m32' >>$B/missing
    fi
fi
if [ -n "$FULL" ]; then
    have clang && tests 'clang -O2' clang '' '' "$library"
    have gcc && tests 'gcc -O3 -march=native gnu11' gcc \
        '-O3 -march=native -std=gnu11 -Werror' '' "$library"
    job 'sizes of the code' 'make -s size'
    # NEON's kernels: traps need no library, which emulated programs would lack.
    [ $arch = aarch64 ] || { have $cc qemu-aarch64 && tests 'kernels, aarch64 emulated, UBSan' $cc \
        '-O1 -static -fsanitize=undefined -fsanitize-undefined-trap-on-error' qemu-aarch64 \
        "SCRIPTS= REPLAYS= TESTS='\$(B)/tests/test_kernels'"; }
fi
have clang && job 'sessions in threads, TSan' "clang -std=c99 -I. -O0 -g -fsanitize=thread \
    tests/test_state.c -o $B/tsan -lm && FLASH_QUICK=1 $B/tsan"
have x86_64-w64-mingw32-gcc &&
    job 'link only, mingw-w64' "make -s programs config=debug B=$B/mingw CC=x86_64-w64-mingw32-gcc"

for cxx in g++ clang++; do
    have $cxx && for std in $cxx_std; do
        out=$B/$cxx-$std
        job "$cxx $std" "$cxx -std=$std -O1 $WARN $C/impl.cpp $C/use.cpp -lm -o $out && $out"
    done
done
for cc in gcc clang; do
    have $cc && for std in $std_list; do
        for opt in $opts; do
            for def in '' FLASH_NO_SIMD FLASH_STATIC FLASH_NO_STDIO FLASH_NO_MMAP FLASH_NO_THREADS; do
                name="$cc $std $opt${def:+ $def}"
                job "$name" "$cc -std=$std $opt ${def:+-D$def} $WARN -Wstrict-prototypes \
                    -Wmissing-prototypes -Wc++-compat -c $C/impl.c -o '$B/$name.o'"
            done
        done
    done
done

if [ -n "$ONLY" ]; then
    grep -E "^[^|]*($ONLY)" $B/jobs >$B/only
    mv $B/only $B/jobs
    [ -s $B/jobs ] || { echo "no job matches $ONLY"; exit 1; }
fi
tr '\n' '\0' <$B/jobs | xargs -0 -n 1 -P ${JOBS:-2} sh "$0" job | tee $B/results
passed=$(grep -c '^ok ' $B/results)
failed=$(($(grep -c '' $B/jobs) - passed))
skipped=$(grep -c '' $B/missing)
word=skip:
if [ "$CI" = true ]; then
    failed=$((failed + skipped)) skipped=0 word=FAILED
fi
sed "s/.*/$word & (not installed)/" $B/missing
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
