#!/bin/sh
# design_demo.sh - designs a family of small models out of the story teller that comes with flash.h,
# for this machine, without other data: the story teller writes the text itself.
#   sh tools/design_demo.sh RUN [quick] [OPTION...]      (quick: 2 minutes of two cores)
# RUN: a folder for all that comes of it; the same command goes on with what is there. OPTIONs are
# those of flash design.
set -eu
[ $# -ge 1 ] || { sed -n 's/^# //p' "$0" >&2; exit 2; }
F=${B:-build}/flash
M=examples/models/tale.gguf
run=$1 stories=2500 trials=48 steps=256 final=2048
shift
[ "${1:-}" != quick ] || { stories=500 trials=16 steps=24 final=160; shift; }
mkdir -p "$run"
if [ ! -s "$run/stories.txt" ]; then
    echo "the story teller writes $stories stories"
    s=0
    while [ $s -lt $stories ]; do
        s=$((s + 1))
        $RUN "$F" run $M --temp 1 --top-p 0.95 --seed $s
        printf '\n<|endoftext|>\n'
    done | LC_ALL=C awk -f tools/teller.awk >"$run/stories.part"
    mv "$run/stories.part" "$run/stories.txt"
fi
$RUN "$F" design $M --data "$run/stories.txt" -o "$run" -j 2 --trials $trials --steps $steps \
    --final-steps $final --type Q8_0 --deci --baseline "$@"
for m in "$run"/family/trial-*.gguf; do
    printf '\n%s: Once upon a time' "$m"
    $RUN "$F" run "$m" -p 'Once upon a time' -n 40 --temp 0
    echo
done
