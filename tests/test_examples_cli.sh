#!/bin/sh
# Examples that need more than a compiler of C, or more than a run: cpp.cpp, game.c. The others are
# in test_cli.sh.
. "$(dirname "$0")/cli.sh"
G=examples/models/tale.gguf

# --- cpp.cpp: with the C++ compiler that belongs to CC ---
case ${CC:-cc} in
cc | c99) cxx=c++ ;;
*gcc*) cxx=$(echo $CC | sed 's/gcc/g++/') ;;
*clang*) cxx=$(echo $CC | sed 's/clang/clang++/') ;;
*) cxx= ;;
esac
[ "${CC#musl}" = "$CC" ] || cxx=
cpp() { $RUN $T/cpp "$@" >$T/out 2>$T/err; }
if [ -z "$cxx" ] || ! command -v $cxx >/dev/null; then
    skip cpp.cpp "no C++ compiler beside ${CC:-cc}"
elif ! echo 'int main() { return 0; }' | $cxx $CFLAGS -xc++ - -o $T/cxx 2>/dev/null; then
    skip cpp.cpp "no C++ library for ${CC:-cc} $CFLAGS"
else
    check "cpp: compiles" pipe "$cxx -std=c++11 -I. -Wall -Wextra -Wpedantic -Wshadow -Werror \
        $CFLAGS examples/cpp.cpp -o $T/cpp -lm 2>$T/err"
    check "cpp" cpp $M "Once upon"
    check "cpp = flash run" pipe "{ flash run $M -p 'Once upon'; echo; } | cmp -s - $T/out"
    check "cpp: no such file" pipe "! cpp $T/nowhere && grep -q nowhere $T/err"
fi

# --- game.c: no time is judged; the words do not depend on the budget ---
game() { $RUN $B/game $G "$@" >$T/out 2>$T/err; }
first() { sed '/^$/,$d' $T/out; } # the scene
counted() { [ $(awk '/ ms +[0-9]+  / { n += $(NF - 2) } END { print n + 0 }' $T/out) = $1 ]; }
begins() { head -n $(grep -c '' $1) $2 | cmp -s - $1; } # $1 is how $2 begins
if [ -n "$RUN" ]; then
    skip game.c "no words to speak of in a second: emulated"
else
    check "game" game 1 1
    check "game: every frame is counted" counted 60
    first >$T/slow
    check "game, no limit to speak of" game 0.2 250
    first >$T/quick
    check "game: someone speaks, in a mood" \
        grep -qE '^Tom \((happy|sad|angry|scared|surprised)\): [A-Z]' $T/quick
    check "game: the same words by any budget" pipe \
        "begins $T/slow $T/quick || begins $T/quick $T/slow"
fi
check "game: no such file" pipe "! $RUN $B/game $T/nowhere 2>$T/err && [ -s $T/err ]"

finish
