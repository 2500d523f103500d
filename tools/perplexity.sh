#!/bin/sh
# What each weight type does to a model's perplexity: rows of Markdown.
#   sh tools/perplexity.sh TEXT.txt [-c CTX] MODEL.gguf...     MODEL: F32 or F16
B=${B:-build} ctx=256
text=$1; shift
[ "$1" = -c ] && { ctx=$2; shift 2; }
out=$B/perplexity
mkdir -p "$out"

# perplexity MODEL [OPTION...]: the number alone
perplexity()
{
    model=$1; shift
    $RUN "$B/flash" perplexity "$model" -f "$text" -c "$ctx" "$@" | sed -n 's/^perplexity \([0-9.]*\) .*/\1/p'
}

printf '| weights |'
for m; do printf ' %s |' "$(basename "$m" .gguf)"; done
printf '\n|---|'
for m; do printf -- '---|'; done
printf '\n'
for type in F32 F16 BF16 Q8_0 Q6_K Q5_K Q5_1 Q5_0 Q4_K Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K Q2_K KV; do
    name=$type
    [ $type = KV ] && name='F32, keys and values Q8_0'
    printf '| %s |' "$name"
    i=0
    for m; do
        i=$((i + 1))
        case $type in
        F32) p=$(perplexity "$m"); echo "$p" >"$out/whole$i" ;;
        KV)  p=$(perplexity "$m" --kv q8_0) ;;
        *)   $RUN "$B/flash" quantize "$m" "$out/m.gguf" $type >/dev/null 2>&1
             p=$(perplexity "$out/m.gguf") ;;
        esac
        awk -v p="$p" -v whole="$(cat "$out/whole$i")" \
            'BEGIN { printf " %.3f (%+.2f %%) |", p, 100 * (p / whole - 1) }'
    done
    printf '\n'
done
rm -rf "$out"
