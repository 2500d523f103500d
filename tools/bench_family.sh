#!/bin/sh
# The latency table of MobileLLM-Flash (Meta 2026, table 6) measured here: time to first token and
# decode speed of random models of its shapes, Q4_0, keys and values Q8_0, next to its phone figures.
#   sh tools/bench_family.sh [-t THREADS] [-r REPEATS] [SHAPE...]       rows of Markdown
B=${B:-build} threads=2 repeats=3
while [ $# -gt 1 ]; do
    case $1 in
    -t) threads=$2 ;;
    -r) repeats=$2 ;;
    *) break ;;
    esac
    shift 2
done
# shape; seconds to the first token at 1k, 2k, 4k and tokens a second on a Galaxy S25, 4 threads
phone='gemma3-270m  0.99/3.13/5.64    123.7/82.9/52.4
lfm2-350m    0.84/2.18/4.52    147.5/96.9/63.6
flash-350m   0.91/2.78/5.33    165.6/112.6/95.6
qwen3-0.6b   4.63/11.59/25.40  44.6/28.7/18.5
lfm2-700m    2.05/6.01/8.24    86.3/53.6/44.4
flash-650m   1.62/3.34/8.48    96.6/85.4/60.7
gemma3-1b    3.55/9.29/18.86   58.6/43.1/36.3
llama3.2-1b  4.51/15.09/26.95  39.0/18.1/14.3
lfm2-1.2b    3.46/8.41/16.88   61.1/42.2/29.1
flash-1.4b   3.40/9.08/16.50   60.5/42.7/34.0'

printf '| shape | TTFT at 1k/2k/4k here [s] | on the phone | decode here [tok/s] |'
printf ' on the phone | peak memory [MB] |\n|---|---|---|---|---|---|\n'
echo "$phone" | while read -r shape first decode; do
    [ $# = 0 ] || case " $* " in *" $shape "*) ;; *) continue ;; esac
    $RUN "$B/flash" bench --shape "$shape" --type Q4_0 --kv q8_0 -t "$threads" -r "$repeats" \
        -n 16 -p 1024,2048,4096 --json </dev/null |
        awk -v shape="$shape" -v first="$first" -v decode="$decode" '
        function field(name) {
            if (!match($0, "\"" name "\":[0-9.e+]+")) return 0
            return substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3)
        }
        {
            t = t sprintf("%s%.2f", NR > 1 ? "/" : "", field("prompt") / field("prefill_tok_s"))
            d = d sprintf("%s%.1f", NR > 1 ? "/" : "", field("decode_tok_s"))
            peak = field("peak_bytes") / 1e6 > peak ? field("peak_bytes") / 1e6 : peak
        }
        END {
            printf "| %s | %s | %s | %s | %s | %.0f |\n", shape, t, first, d, decode, peak
            fflush()
        }'
done
