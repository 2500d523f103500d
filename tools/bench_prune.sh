#!/bin/sh
# bench_prune.sh - bench_prune on a model, or on those there are: `make bench-prune`.
#   sh tools/bench_prune.sh [MODEL TEXT] [THREADS [STEPS]]
# B: the folder of build/bench_prune, FLASH_SHARED: the shared data.
set -eu
B=${B:-build}
S=${FLASH_SHARED:-../shared}/data
case ${1:-} in
*[!0-9]*) exec "$B/bench_prune" "$@" ;;
esac
here() { [ -r "$1" ] || { echo "skip: $1"; return 1; }; }
stories=$S/text/tinystories-4MB-lowercase.txt
sample=$S/text/tinystories-197KB.txt
here "$stories" && here "$sample" || exit 0
mkdir -p "$B/bench"
LC_ALL=C awk -f tools/stories.awk "$sample" "$stories" >"$B/bench/stories.txt"
run() { here "$1" && "$B/bench_prune" "$1" "$B/bench/stories.txt" $args || :; }
args=$*
run "$S/models/stories260K.gguf"
baby=$S/models/babyllama
if here $baby/babyllama-tok105.bin && here $baby/tok105.vocab; then
    "$B/tests/mkllama2c" $baby/babyllama-tok105.bin $baby/tok105.vocab "$B/bench/babyllama.gguf"
    run "$B/bench/babyllama.gguf"
fi
run examples/models/tale.gguf
