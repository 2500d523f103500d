#!/bin/sh
# Compares build/flash with llama.cpp as its npm package ships it.
#   PEER_DIR=folder sh tests/peer.sh [MODEL.gguf...]     (or: make peer)
# PEER_DIR holds node_modules with node-llama-cpp, and peer.mjs and peer_probs.mjs of the shared
# data.
# Without models: stories260K of the shared data, its text and perplexity, and tests/data.
B=${B:-build}
shared=${FLASH_SHARED:-../shared}/data
story=$shared/models/stories260K.gguf
text=$shared/text/tinystories-197KB.txt
passed=0 failed=0 skipped=0

finish()
{
    echo "peer: $passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
    exit
}

verdict() # name, exit code
{
    case $2 in
    0) passed=$((passed + 1)) ;;
    *) failed=$((failed + 1)); echo "FAILED: $1" ;;
    esac
}

absolute()
{
    case $1 in
    /*) echo "$1" ;;
    *) echo "$PWD/$1" ;;
    esac
}

compare() # model, ids, tolerance
{
    model=$(absolute "$1")
    "$B/flash" probs "$1" --tokens "$2" --top 512 >"$out/flash.jsonl" &&
        (cd "$PEER_DIR" && node peer_probs.mjs "$model" --tokens "$2" --top 512) \
            >"$out/peer.jsonl" 2>"$out/peer.err" &&
        node tests/peer_compare.mjs probs "$1" "$out/flash.jsonl" "$out/peer.jsonl" "$3"
    verdict "$1" $?
}

ids() # model: 256 tokens of real text
{
    head -c 2000 "$text" >"$out/text.txt"
    "$B/flash" tokenize "$1" -f "$out/text.txt" | tr ' ' '\n' | head -n 256 | paste -s -d, -
}

if [ ! -d "${PEER_DIR:-}/node_modules" ] || ! command -v node >/dev/null; then
    echo "skip: peer (PEER_DIR names no folder with node_modules, or there is no node)"
    skipped=1
    finish
fi
PEER_DIR=$(cd "$PEER_DIR" && pwd)
out=$B/peer
mkdir -p "$out"

if [ $# -gt 0 ]; then
    for model; do
        compare "$model" "$(ids "$model")" 1e-2
    done
    finish
fi
some=$(awk 'BEGIN { for (i = 0; i < 256; i++) printf "%s%d", i ? "," : "", (i * 37 + 11) % 160 }')
for model in tests/data/*.gguf; do
    case $model in
    */f32* | */f16* | */bf16*) compare "$model" "$some" 1e-2 ;;
    *) compare "$model" "$some" 1e-1 ;; # llama.cpp rounds activations in another way
    esac
done
if [ ! -f "$story" ] || [ ! -f "$text" ]; then
    echo "skip: stories260K ($story, $text)"
    skipped=$((skipped + 1))
else
    compare "$story" "$(ids "$story")" 1e-2
    ours=$("$B/flash" perplexity "$story" -f "$text" -c 256 2>/dev/null)
    echo "flash: $ours"
    "$B/flash" tokenize "$story" --no-bos -f "$text" >"$out/ids.txt" &&
        node tests/peer_compare.mjs perplexity "$PEER_DIR" "$story" "$out/ids.txt" 256 "$ours"
    verdict "perplexity of $story" $?
fi
finish
