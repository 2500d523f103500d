#!/bin/sh
# flash bench from outside: help, options, the fields and their sizes.
. "$(dirname "$0")/cli.sh"
M=tests/data/q4.gguf
TMPDIR=$T/tmp
export TMPDIR
mkdir $TMPDIR

# The numbers of the one line of $T/out are there and positive, its texts there.
fields()
{
    awk -v numbers="$1" -v texts="$2" '
        function value(name) {
            if (!match($0, "\"" name "\":(\"[^\"]+\"|[0-9.e+-]+)[,}]")) return ""
            return substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 4)
        }
        { n = split(numbers, a, " ")
          for (i = 1; i <= n; i++) if (!(value(a[i]) > 0)) { print "    no " a[i]; bad++ }
          n = split(texts, a, " ")
          for (i = 1; i <= n; i++) if (value(a[i]) !~ /^".+"$/) { print "    no " a[i]; bad++ } }
        END { exit bad || NR != 1 }' $T/out
}
has() { grep -qF -e "$1" $T/out; }

check "--help" silent bench --help
check "--help: usage first" pipe "head -1 $T/out | grep -qx 'usage: flash bench .MODEL. .options.'"
for o in --shape --type -p -n -t --isa --kv --chunk -r --buffer --json; do
    check "--help: $o" has "  $o "
done

check "no model" error 2 MODEL bench
check "a model and a shape" error 2 'MODEL or --shape' bench $M --shape tiny
check "two models" error 2 'one .MODEL' bench $M $M
check "no such file" error 1 nowhere.gguf bench $T/nowhere.gguf
for bad in '-p 0' '-p x' '-p 8,' '-p 8,,9' '-p -1' '-p 999999999999' '-n 0' '-n x' '-t 0' '-t 1,0' \
    '-t 2000' '--isa z80' '--isa scalar,' '--kv q4_0' '--kv f99' '--chunk 0' '-r 0' '-r 1001' \
    '--buffer 0' '--type Q4_0' '-p'; do
    check "$bad" error 2 "${bad%% *}" bench $M $bad
done
check "--json 1" error 2 'one .MODEL' bench $M --json 1
check "--shape nonsense" error 2 '--shape' bench --shape nonsense
check "--shape without value" error 2 '--shape' bench --shape
check "--shape, bad --type" error 2 '--type' bench --shape tiny --type Q9_9

quick="-r 1 -p 8 -n 2 --buffer 4"
check "JSON" silent bench $M $quick --json
check "JSON: one line" lines 1 $T/out
check "JSON: fields" fields \
    "threads prompt gen prefill_tok_s decode_tok_s decode_gb_s read_peak_gb_s prefill_gop_s
     int8_peak_gop_s peak_bytes load_s" "model isa kv"
check "JSON: what was asked" has '"threads":1,"kv":"F16","prompt":8,"gen":2,'
check "JSON: the file" has "\"model\":\"$M\""
check "JSON: an instruction set by name" pipe "! grep -q auto $T/out"
check "memory is more than the file" pipe "
    tr ',{}' '\n\n\n' <$T/out | awk -F: '/peak_bytes/ { p = \$2 } /file_bytes/ { f = \$2 }
        END { exit !(f > 1000 && p > f) }'"
check "every combination" silent bench $M $quick -p 4,8 --kv f16,f32 --isa scalar --json
check "every combination: 4 lines" lines 4 $T/out
check "every combination: the last" has '"isa":"scalar","threads":1,"kv":"F32","prompt":8,"gen":2,'
check "two threads" silent bench $M $quick -t 2 --json
check "two threads: fields" fields "threads prefill_tok_s read_peak_gb_s int8_peak_gop_s" ""
check "a table" silent bench $M $quick -p 4,8
check "a table: model, head, two rows" lines 4 $T/out
check "--shape" silent bench --shape tiny $quick --type Q8_0 --json --chunk 3
check "--shape: its name" has '"model":"tiny Q8_0"'
check "--shape: fields" fields "prefill_tok_s decode_tok_s peak_bytes load_s" "isa"
check "--shape: no file is left" [ -z "$(ls $TMPDIR)" ]

finish
