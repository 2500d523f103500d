#!/bin/sh
# Changes flash.h at random in one place at a time and tells which changes no test notices: a test
# that cannot fail is found by the change that it lets pass (mutation testing; DeMillo, Lipton and
# Sayward 1978).
#   make mutate [N=100] [SECTION=name] [SEED=1]
# N changes count: those that compile and give other machine code (equal code needs no test; Papadakis
# and others 2015). Each runs the tests of its section until one fails: quick ones with tcc where
# there is one, which compiles at once, then whole ones optimised, then quick ones sanitized.
# What was found is in build/mutate/SEED-SECTION.txt, to which the same command adds what is missing,
# so that it can be stopped at any time; `kept` are the changes that nothing noticed, and RETRY=1
# tries them again. With other code in flash.h it begins anew. tools/mutate.known says why some change
# no result; they count as kept, but those that change nothing but speed are never made.
N=${N:-100} SEED=${SEED:-1} JOBS=${JOBS:-2}
ROOT=$PWD/build/mutate
OUT=$ROOT/$SEED-${SECTION:-all}.txt
export FLASH_SHARED=${FLASH_SHARED:-$(cd .. && pwd)/shared} LC_ALL=C

# The tests of each section, quick ones first. A section may name a machine of its own: neon, wasm.
tests_of()
{
    case $1 in
    base) echo gguf api oom state search ;;
    numbers) echo latency search train ;;
    gp) echo latency search ;;
    bytes) echo gguf quant state ;;
    os) echo gguf oom hostile ;;
    threads) echo embed state forward ;;
    cpu) echo api kernels ;;
    floats) echo quant kernels train ;;
    quant) echo quant quantize kernels ;;
    quantize) echo quantize ;;
    k-table | k-select) echo kernels api ;;
    k-scalar) echo quant kernels attention train forward ;;
    k-*) echo kernels ;;
    gguf) echo gguf api hostile ;;
    unicode | pretokenize | vocab | tokenize) echo tokenizer chat hostile ;;
    arch) echo gguf api attention forward hostile prune ;;
    model) echo api oom forward hostile ;;
    chat) echo chat ;;
    forward) echo attention state forward ;;
    grammar) echo grammar ;;
    sampler) echo sampler state grammar ;;
    session) echo api state sampler forward ;;
    state) echo state ;;
    measure) echo measure oom ;;
    latency) echo latency measure ;;
    pareto | search) echo search ;;
    train) echo train train_double prune ;;
    prune) echo prune ;;
    esac
}

prepare() # FOLDER CC CFLAGS [RUN]: a copy of what the tests need, to be changed there
{
    rm -rf "$1"
    mkdir -p "$1/b"
    cp -r flash.h Makefile tests tools examples "$1"
    printf '%s\n' "$2" "$3" "$4" >"$1/how"
    (cd "$1" && $2 -std=c99 $3 -c tests/compile/impl.c -o same.o)
}

passes() # FOLDER TEST SECONDS [QUICK]: whether it does with the file in the folder, in time
{
    (cd "$1" && { read -r cc; read -r flags; read -r run; } <how
        make -s B=b CC="$cc" CFLAGS="$flags" "b/tests/test_$2" &&
        env ${4:+FLASH_QUICK=1} timeout "$3" $run "b/tests/test_$2") >"$1/log" 2>&1
}

worker() # NUMBER
{
    fast=$ROOT/fast$1 native=$ROOT/native$1 neon=$ROOT/neon$1 checked=$ROOT/checked$1
    left=$(((N + JOBS - 1 - $1) / JOBS))
    ! command -v tcc >/dev/null || prepare "$fast" tcc
    prepare "$native" cc -O1
    prepare "$checked" clang '-O0 -g -fsanitize=address,undefined -fno-sanitize-recover=all'
    case $skip in *neon*) ;; *) prepare "$neon" "$AARCH64" "-O1 -static $trap" qemu-aarch64 ;; esac
    awk -v "k=$1" -v "jobs=$JOBS" 'NR % jobs == k' "$ROOT/sites" >"$ROOT/sites$1"
    while [ "$left" -gt 0 ] && IFS=@ read -r section line at bytes new old known <&3; do
        id="$section:$line:$at"
        found=$(grep "^[a-z]*$tab$id$tab" "$OUT" | head -1)
        if [ -z "$found" ]; then
            awk -v "line=$line" -v "at=$at" -v "n=$bytes" -v "new=$new" 'NR == line {
                $0 = substr($0, 1, at - 1) new substr($0, at + n) } 1' "$ROOT/flash.h" >"$ROOT/changed$1"
            [ "$known" = 1 ] && found=kept || found=$(judge "$ROOT/changed$1")
            found="$found$tab$id$tab$old -> $new$tab$(sed -n "${line}s/^ *//p" "$ROOT/flash.h")"
            printf '%s\n' "$found" | tee -a "$OUT"
        fi
        case $found in noticed* | kept*) left=$((left - 1)) ;; esac
    done 3<"$ROOT/sites$1"
}

# Compiles the library named as what the Makefile would make of it, so that tests link it.
changed() # FOLDER CHANGED
{
    cp "$2" "$1/flash.h"
    (cd "$1" && { read -r cc; read -r flags; } <how
        $cc -std=c99 $flags -c tests/compile/impl.c -o b/flash.o 2>/dev/null)
}

# What comes of a change: broken (does not compile), same (code), noticed or kept.
judge() # CHANGED
{
    w=$native passed=' '
    case $section in
    k-neon) w=$neon ;;
    k-[!s]* | k-sse41) ;; # tcc has the scalar kernels alone
    *)
        if [ -d "$fast" ]; then
            changed "$fast" "$1" || { echo broken; return; }
            for test in $(tests_of "$section"); do # too slow says nothing yet
                if passes "$fast" "$test" 5 quick; then
                    passed="$passed$test "
                elif [ $? != 124 ]; then
                    echo noticed
                    return
                fi
            done
        fi
        ;;
    esac
    changed "$w" "$1" || { echo broken; return; }
    ! cmp -s "$w/b/flash.o" "$w/same.o" || { echo same; return; }
    if [ "$w" = "$neon" ]; then
        passes "$w" kernels 200 quick && echo kept || echo noticed
        return
    fi
    for test in $(tests_of "$section"); do
        case $passed$test in
        *kernels) ;; # tcc has nothing that scalar kernels are compared with
        *" $test "*) grep -qi quick "tests/test_$test.c" || continue ;;
        esac
        passes "$w" "$test" 200 || { echo noticed; return; }
    done
    changed "$checked" "$1"
    case $section in k-*) slow=90 ;; *) slow=15 ;; esac # kernels have one test
    for test in $(tests_of "$section"); do # those that are quick, or else the main one
        case $passed in *" $test "* | ' ') ;; *) continue ;; esac
        passes "$checked" "$test" "$slow" quick || [ $? = 124 ] || { echo noticed; return; }
        passed="$passed. "
    done
    echo kept
}

trap='-fsanitize=undefined -fsanitize-undefined-trap-on-error' # needs no library, so that it can be emulated
unset MAKEFLAGS MFLAGS MAKELEVEL
tab=$(printf '\t')
mkdir -p "$ROOT"
awk -v STRIP=1 -f tools/mutate.awk flash.h >"$ROOT/stripped.h"
cmp -s "$ROOT/stripped.h" "$ROOT/flash.h" || rm -f "$ROOT"/*.txt
mv "$ROOT/stripped.h" "$ROOT/flash.h"
[ -z "$RETRY" ] || { grep -v ^kept "$OUT" >"$ROOT/rest"; mv "$ROOT/rest" "$OUT"; }
touch "$OUT"
for AARCH64 in aarch64-linux-gnu-gcc aarch64-linux-gnu-gcc-12; do
    command -v $AARCH64 >/dev/null && break
done
# What this machine cannot run is not changed: WebAssembly in any case, tiles and NEON by its means.
skip='k-wasm'
grep -q amx_int8 /proc/cpuinfo 2>/dev/null || skip="$skip|k-amx"
command -v $AARCH64 qemu-aarch64 >/dev/null || skip="$skip|k-neon"
awk -v "SEED=$SEED" -v "SECTION=$SECTION" -v KNOWN=tools/mutate.known -f tools/mutate.awk "$ROOT/flash.h" |
    grep -vE "^($skip)@" >"$ROOT/sites"

pids=
trap 'kill $pids 2>/dev/null; exit 130' INT TERM
k=0
while [ $k -lt "$JOBS" ]; do
    worker $k &
    pids="$pids $!"
    k=$((k + 1))
done
wait
echo
awk -F '\t' '
    /^#/ { next }
    FNR == NR { split($0, it, " @ "); why[it[1] FS it[2] FS it[3]] = it[4]; next }
    { n[$1]++ }
    $1 == "kept" {
        split($2, at, ":")
        because = why[at[1] FS $3 FS $4]
        if (because == "") because = why[at[1] FS "*" FS $4]
        known += because != ""
        printf "%s: %s\n    %s\n    %s\n", at[1], $3, $4, because == "" ? "???" : because
    }
    END {
        all = n["noticed"] + n["kept"]
        printf "%d of %d noticed (%.1f %%); of the %d kept above %d are known to change no result; ", \
            n["noticed"], all, all ? 100 * n["noticed"] / all : 0, n["kept"], known
        printf "%d did not compile, %d gave the same code; sections left out: %s\n", \
            n["broken"], n["same"], "'"$skip"'"
    }' tools/mutate.known "$OUT"
