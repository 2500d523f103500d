# What the tests of the command line share: `. "$(dirname "$0")/cli.sh"` first, `finish` last.
# B: the folder of build/flash, RUN: an emulator, FLASH_SHARED: the shared data.
B=${B:-build}
S=${FLASH_SHARED:-../shared}/data
self=$(basename "$0" .sh)
T=$B/tests/$self # what a test writes
O=$T/o.gguf # and what flash writes there
M=tests/data/f32.gguf # a random model; what it writes is nonsense, but always the same
export LC_ALL=C
passed=0 failed=0 skipped=0
rm -rf $T
mkdir -p $T
: >$T/err
exec </dev/null

# --- counting ---
check() # NAME COMMAND...: good if the command succeeds
{
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $name"
        sed 's/^/    /;3q' $T/err
    fi
}
skip() { echo "skip: $1 ($2)"; skipped=$((skipped + 1)); } # NAME WHY
here() { [ -r "$2" ] || { skip "$1" "$2"; return 1; }; } # NAME FILE: or the check is skipped
finish()
{
    echo "$self: $passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}

# --- running flash: $T/out and $T/err are what it wrote last ---
flash() { $RUN $B/flash "$@"; }
exits() # STATUS ARGUMENT...
{
    want=$1
    shift
    flash "$@" >$T/out 2>$T/err
    got=$?
    [ $got = "$want" ] && return
    echo "    flash $*: exit $got, want $want" >&2
    return 1
}
silent() { exits 0 "$@" && [ ! -s $T/err ]; } # good, and nothing on stderr
error() # STATUS PATTERN ARGUMENT...: one line, "flash COMMAND: ...", and no file $O
{
    status=$1 pattern=$2
    shift 2
    rm -f $O
    exits $status "$@" && [ ! -s $T/out ] && lines 1 $T/err &&
        grep -q "^flash $1: .*$pattern" $T/err && [ ! -e $O ] && nothing_left
}
start() { $RUN $B/flash "$@" >$T/out 2>$T/err & pid=$!; } # ARGUMENT...: in the background
stopped() { kill -INT $pid; wait $pid; [ $? = 130 ]; } # by Ctrl-C
refuses() # IN COMMAND ARGUMENT...: checks of a command that writes OUT from IN
{
    in=$1 c=$2
    shift 2
    cp $in $T/in.gguf
    ln -f $T/in.gguf $T/link.gguf
    head -c $(($(wc -c <$in) - 100)) $in >$T/cut.gguf
    check "$c: OUT is IN" error 2 'OUT is IN' $c $T/in.gguf $T/in.gguf "$@"
    check "$c: OUT is IN by another name" error 2 'OUT is IN' $c $T/in.gguf $T/./in.gguf "$@"
    check "$c: OUT is IN by a link" error 2 'OUT is IN' $c $T/in.gguf $T/link.gguf "$@"
    check "$c: IN is as it was" cmp -s $in $T/in.gguf
    check "$c: a folder is there" error 1 'not a file' $c $in $T "$@"
    check "$c: no such folder" error 1 nowhere $c $in $T/nowhere/o.gguf "$@"
    check "$c: no such file" error 1 nowhere $c $T/nowhere $O "$@"
    check "$c: a text" error 1 flash.h $c flash.h $O "$@"
    check "$c: a cut download" error 1 ends $c $T/cut.gguf $O "$@"
    check "$c: nothing" error 2 IN $c
    here "$c: a full device" /dev/full && ln -s /dev/full $O.part &&
        check "$c: a full device" error 1 'cannot write' $c $in $O "$@"
}

# --- looking at what is there ---
pipe() { eval "$1"; } # a check of more than one command
lines() { [ "$(grep -c '' "$2")" = "$1" ]; } # N FILE: of N lines
nothing_left() { [ -z "$(find $T -name '*.part')" ]; }
key() { flash info $1 | sed -n "s/^  $2 = //p"; } # FILE KEY
