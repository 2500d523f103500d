#!/bin/sh
# Speed of build/flash next to llama.cpp's, as its npm package ships it, on the same files.
#   PEER_DIR=folder sh tools/bench_peer.sh [options]      (or: make bench-peer ARGS='options')
#   --shape flash-350m  --types Q4_0,Q8_0,Q4_K  -t 1,2  -p 512,2048  -n 64   what is measured, with
#                      attention in every layer
#   --isa avx2|sse41   both sides with this instruction set at most: a copy of the package that
#                      lacks the libraries for better ones; without it each takes its best
#   -r 5               rounds: llama.cpp, flash, llama.cpp, flash ...; the medians are compared
# PEER_DIR holds node_modules with node-llama-cpp, and peer.mjs and peer_bench.mjs of the shared
# data. Keys and values are F16 on both sides. Ratios over 1: flash is faster.
B=${B:-build}
shape=flash-350m types=Q4_0,Q8_0,Q4_K threads=1,2 prompts=512,2048 gen=64 rounds=5 isa=
out=$B/bench-peer

fail() { echo "bench-peer: $*" >&2; exit 1; }
words() { echo "$1" | tr , ' '; }
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || { echo "bench-peer: $1 needs a value" >&2; exit 2; }
    case $1 in
    --shape) shape=$2 ;;
    --types) types=$2 ;;
    --isa) isa=$2 ;;
    -t) threads=$2 ;;
    -p) prompts=$2 ;;
    -n) gen=$2 ;;
    -r) rounds=$2 ;;
    *) echo "bench-peer: unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
case $isa in
'') keep= ;;
avx2) keep=haswell ;;
sse41) keep='sse42 x64' ;;
*) echo "bench-peer: --isa $isa: want avx2 or sse41" >&2; exit 2 ;;
esac

if [ ! -d "${PEER_DIR:-}/node_modules" ] || ! command -v node >/dev/null; then
    echo "skip: bench-peer (PEER_DIR names no folder with node_modules, or there is no node)"
    exit 0
fi
[ -f "$PEER_DIR/peer_bench.mjs" ] || fail "$PEER_DIR/peer_bench.mjs is missing"
mkdir -p "$out"
out=$(cd "$out" && pwd)
peer=$(cd "$PEER_DIR" && pwd)

# node finds packages by their real path, so links would lead to the libraries that must be gone.
if [ "$keep" ]; then
    rm -rf "${out:?}/$isa"
    mkdir "$out/$isa"
    cp -R "$peer/." "$out/$isa"
    peer=$out/$isa left=
    for lib in "$peer"/node_modules/@node-llama-cpp/*/bins/*/libggml-cpu-*; do
        name=${lib##*/libggml-cpu-}
        case " $keep " in
        *" ${name%%.*} "*) left="$left ${name%%.*}" ;;
        *) rm "$lib" ;;
        esac
    done
    [ "$left" ] || fail "no library of llama.cpp's package is left: want $keep"
fi

field() { sed -n "s/.*\"$1\":\([0-9.e+-]*\).*/\1/p" "$2"; }
median() # FILE FIELD
{
    field "$2" "$1" | sort -g | awk '
        { x[NR] = $1 }
        END { print NR ? (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2 : 0 }'
}
spread() # FILE FIELD: (largest - least) / median, in percent
{
    field "$2" "$1" | sort -g | awk -v mid="$(median "$1" "$2")" '
        NR == 1 { least = $1 }
        END { printf "%.0f", 100 * ($1 - least) / mid }'
}
row() # FIELD: llama.cpp, flash, flash / llama.cpp
{
    awk -v a="$(median "$out/peer.jsonl" "$1")" -v sa="$(spread "$out/peer.jsonl" "$1")" \
        -v b="$(median "$out/flash.jsonl" "$1")" -v sb="$(spread "$out/flash.jsonl" "$1")" \
        'BEGIN { printf "   %8.1f +-%-3s %8.1f +-%-3s %6.2f", a, sa, b, sb, b / a }'
}

echo "$shape, $gen tokens written, tok/s: medians of $rounds rounds, +- their spread in %${isa:+, at most $isa}"
printf '%-6s %3s %6s   %-36s   %s\n' type thr prompt 'prefill: llama.cpp, flash, ratio' \
    'decode: llama.cpp, flash, ratio'
for type in $(words "$types"); do
    model=$out/$shape-full-$type.gguf
    [ -f "$model" ] || $RUN "$B/flash" make "$model" --shape "$shape" --arch llama --attn full \
        --type "$type" --seed 1 >/dev/null || fail "cannot make $model"
    for t in $(words "$threads"); do
        for p in $(words "$prompts"); do
            : >"$out/peer.jsonl"
            : >"$out/flash.jsonl"
            i=0
            while [ $i -lt "$rounds" ]; do
                i=$((i + 1))
                [ -t 2 ] && printf '\r%s, %s threads, %s tokens: round %s of %s ' "$type" "$t" \
                    "$p" $i "$rounds" >&2
                (cd "$peer" && node peer_bench.mjs "$model" --prompt "$p" --gen "$gen" \
                    --threads "$t" --reps 1) >>"$out/peer.jsonl" 2>"$out/peer.err" ||
                    fail "llama.cpp: $(head -3 "$out/peer.err")"
                $RUN "$B/flash" bench "$model" -p "$p" -n "$gen" -t "$t" --kv f16 -r 1 --json \
                    ${isa:+--isa $isa} >>"$out/flash.jsonl" || fail "flash bench failed"
            done
            [ -t 2 ] && printf '\r%60s\r' '' >&2
            printf '%-6s %3s %6s' "$type" "$t" "$p"
            row prefill_tok_s
            row decode_tok_s
            echo
        done
    done
done
