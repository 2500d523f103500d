#!/bin/sh
# Compares build/flash with llama.cpp as its npm package ships it.
#   PEER_DIR=folder sh tests/peer.sh [MODEL.gguf...]     (or: make peer)
# PEER_DIR holds node_modules with node-llama-cpp, and peer.mjs and peer_probs.mjs of the shared
# data.
# Without models: stories260K of the shared data, its text and perplexity, tests/data, a random model
# of each architecture that llama.cpp opens (not flash, nor llama4 without experts), models that
# flash prune wrote, and the tokens that the package's grammars allow along texts drawn from them.
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

compare() # model, ids: within 1e-2; quantised: within 3 times llama.cpp's own noise, 1e-1 at most
{
    model=$(absolute "$1") allowed=1e-2
    "$B/flash" probs "$1" --tokens "$2" --top 512 >"$out/flash.jsonl" &&
        (cd "$PEER_DIR" && node peer_probs.mjs "$model" --tokens "$2" --top 512) \
            >"$out/peer.jsonl" 2>"$out/peer.err" || { verdict "$1" 1; return; }
    if "$B/flash" info "$1" | grep -q '^tensors  *[A-Z]*Q[0-9]\|^tensors  *MXFP4'; then
        noise=$(node tests/peer_compare.mjs noise "$PEER_DIR" "$model" "$2" "$out/peer.jsonl")
        allowed=$(awk -v n="$noise" 'BEGIN { n *= 3; print (n < 1e-2 ? 1e-2 : n > 1e-1 ? 1e-1 : n) }')
        printf 'llama.cpp differs from itself by %s; ' "$noise"
    fi
    node tests/peer_compare.mjs probs "$1" "$out/flash.jsonl" "$out/peer.jsonl" "$allowed"
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
        compare "$model" "$(ids "$model")"
    done
    finish
fi
some=$(awk 'BEGIN { for (i = 0; i < 256; i++) printf "%s%d", i ? "," : "", (i * 37 + 11) % 160 }')
for model in tests/data/*.gguf; do
    compare "$model" "$some"
done
many=$(awk 'BEGIN { for (i = 0; i < 300; i++) printf "%s%d", i ? "," : "", (i * 137 + 11) % 320 }')
while read -r name arch shape attn; do
    model=$out/$name.gguf
    "$B/flash" make "$model" --type F32 --arch "$arch" --attn "$attn" \
        --shape "d=64,heads=4,kv=2,head=16,ffn=96,vocab=320,ctx=512,$shape" &&
        compare "$model" "$many" </dev/null
done <<EOF
deci deci layers=4 full,skip,linear,full
deci-lists deci layers=6,heads=4/2/8,kv=2/1/4,ffn=96/32 full,full,skip
deci-no-ffn deci layers=3,ffn=96/0/96 full,skip,full
qwen2 qwen2 layers=2 full
qwen3 qwen3 layers=2 full
gemma3 gemma3 layers=6 window:40,window:40,full
gemma3-list gemma3 layers=5 full,window:30,window:30
gemma3-full gemma3 layers=2 full
smollm3 smollm3 layers=6 full
lfm2 lfm2 layers=4 conv,conv,full,conv
EOF
while read -r arch skip; do
    model=$out/$arch-pruned.gguf
    "$B/flash" make "$out/whole.gguf" --type F32 --arch "$arch" \
        --shape "d=64,layers=6,heads=4,kv=2,head=16,ffn=96,vocab=320,ctx=512" &&
        "$B/flash" prune "$out/whole.gguf" "$model" --arch deci --skip "$skip" &&
        compare "$model" "$many" </dev/null
done <<EOF
llama 1,4-5
qwen2 2-3
smollm3 3,5
EOF
for rules in "$PEER_DIR"/node_modules/node-llama-cpp/llama/grammars/*.gbnf; do
    [ -e "$rules" ] || { echo "skip: grammars ($rules)"; skipped=$((skipped + 1)); break; }
    model=$PWD/examples/models/tale.gguf
    "$B/tests/mkallowed" "$model" "$rules" 40 80 >"$out/allowed" &&
        node tests/peer_compare.mjs grammar "$PEER_DIR" "$model" "$rules" "$out/allowed"
    verdict "$rules" $?
done
if [ ! -f "$story" ] || [ ! -f "$text" ]; then
    echo "skip: stories260K ($story, $text)"
    skipped=$((skipped + 1))
else
    compare "$story" "$(ids "$story")"
    for type in F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS; do
        model=$out/stories260K-$type.gguf
        "$B/flash" quantize "$story" "$model" "$type" >"$out/quantize.log" 2>&1 &&
            compare "$model" "$(ids "$model")"
    done
    ours=$("$B/flash" perplexity "$story" -f "$text" -c 256 2>/dev/null)
    echo "flash: $ours"
    "$B/flash" tokenize "$story" --no-bos -f "$text" >"$out/ids.txt" &&
        node tests/peer_compare.mjs perplexity "$PEER_DIR" "$story" "$out/ids.txt" 256 "$ours"
    verdict "perplexity of $story" $?
fi
finish
