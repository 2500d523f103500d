#!/bin/sh
# flash measure, fit and predict from outside. No time is judged but those of a committed profile.
. "$(dirname "$0")/cli.sh"
P=$T/p.profile
D=tests/data/epyc.profile # a real one

cat >$T/space <<'END'
# shapes

d=64,layers=1,heads=2,kv=1,head=32,ffn=64,vocab=300
d=64,layers=2,heads=2,kv=1,head=32,ffn=128,vocab=300 full,skip flash
d=64,layers=3,heads=2,kv=1,head=32,ffn=192,vocab=300 window:32 flash # small
d=96,layers=1,heads=2,kv=1,head=32,ffn=64,vocab=300
d=96,layers=2,heads=2,kv=1,head=32,ffn=96,vocab=300
d=128,layers=1,heads=2,kv=1,head=32,ffn=64,vocab=400
d=128,layers=2,heads=4,kv=1,head=32,ffn=96,vocab=300
d=128,layers=1,heads=2,kv=2,head=32,ffn=256,vocab=300
END
reference=d=64,layers=1,heads=2,kv=1,head=32,ffn=64,vocab=300
small="--reference $reference -r 2 -n 2 -p 8,16"
measure() { silent measure --space $T/space $small -o "$@"; }
jobs() { grep -c '"job"' $1; }
fits() { exits 0 fit "$@"; }
bad_line() { awk -v n=$2 -v text="$3" 'NR == n { $0 = text } { print }' $P >$1; } # FILE N TEXT

# --- command lines ---
for c in measure fit predict; do
    check "$c --help" silent $c --help
    check "$c --help: usage first" pipe "head -1 $T/out | grep -q '^usage: flash $c .*options.'"
done
check "no profile to write" error 2 '-o PROFILE' measure
check "too much" error 2 'one too many' measure x -o $O
for bad in '-p 0' '-p x' '-p 8,' '--n 0' '--rounds 0' '-t 0' '-t 99' '-r 0' '-r 65' '-n 0' \
    '--type Q9' '--kv q4_0' '--chunk 0' '--isa z80' '--seed x' '--n'; do
    check "$bad" error 2 "${bad%% *}" measure $bad -o $O
done
check "no such space" error 1 nowhere measure --space $T/nowhere -o $O
for bad in 'd=63,heads=2' 'nonsense' 'tiny conv' 'tiny full nonsense'; do
    printf 'tiny\n%s\n' "$bad" >$T/bad
    check "space: $bad" error 1 'line 2' measure --space $T/bad -o $O
done
: >$T/bad
check "space: empty" error 1 'no shape' measure --space $T/bad -o $O
echo 'd=80,layers=1,heads=2,kv=1,head=40,ffn=64,vocab=300' >$T/bad
check "no multiple of the block" error 1 'no multiple of 32' measure --space $T/bad -o $O
echo 'd=1048576,layers=512,heads=2,kv=1,head=32,ffn=1048576,vocab=300' >$T/bad
check "too large for the machine" error 1 'this machine' measure --space $T/bad -o $O
echo 'tiny' >$T/bad
check "a reference that is none" error 1 nonsense measure --space $T/bad --reference nonsense -o $O
check "cannot write" error 1 nowhere measure --space $T/bad --reference tiny -o $T/nowhere/p

# --- measuring, again, further ---
check "measure" measure $P
check "a line for the machine" [ "$(grep -c '"profile":1' $P)" = 1 ]
check "a line for each shape, length and round" [ $(jobs $P) = 48 ]
check "all of them in the first round" pipe "
    sed 1d $P | head -16 | grep -o '\"shape\":[^ ]*,\"attn\":\"[^\"]*' | sort -u | lines 8 /dev/stdin"
cp $P $T/copy
check "there already" error 1 'resume' measure --space $T/space $small -o $P
check "as it was" cmp -s $P $T/copy
check "nothing left to do" measure $P --resume
check "nothing left to do: no measurement" [ $(jobs $P) = 48 ]
check "one more round" measure $P --resume --rounds 4
check "one more round: so many lines" [ $(jobs $P) = 64 ]
check "another plan" measure $P --resume --seed 9 --rounds 1
check "another plan: so many lines" [ $(jobs $P) = 80 ]
measure $T/scalar --isa scalar --rounds 1
if grep -q '"isa":"scalar"' $P; then
    skip "another instruction set" "there is only scalar"
else
    check "another instruction set" error 1 'choose another file' \
        measure --space $T/space $small -o $P --resume --isa scalar
    cat $P $T/scalar >$T/both
    check "two machines in one file" error 1 'line [0-9]*: .*cannot be used together' fit $T/both
fi

# --- stopped at any moment ---
rm -f $T/k
moments='05 10 20 30 45 60 75 90' rounds=8 cuts='1 20 150'
[ -z "$FLASH_QUICK" ] || moments='20 60' rounds=2 cuts=150
for ms in $moments; do
    start measure --space $T/space $small -o $T/k --resume --rounds $rounds
    sleep 0.$ms
    kill -KILL $pid 2>$T/null
    wait $pid 2>$T/null
done
check "killed, resumed" exits 0 measure --space $T/space $small -o $T/k --resume \
    --rounds $rounds
each() { grep -o '"job":[0-9]*,.*"prompt":[0-9]*' $1 | sed 's/,.*,/ /' | sort | uniq -c; }
check "everything is there" [ $(each $T/k | wc -l) = $((16 * rounds)) ]
check "and once" pipe "each $T/k | awk '\$1 != 1 { bad = 1 } END { exit bad }'"
check "it can be fitted" fits $T/k
bytes=$(wc -c <$P)
for cut in $cuts $((bytes / 2)) $((bytes - 30)) $((bytes - 1)); do
    head -c $cut $P >$T/cut
    check "cut after $cut bytes" exits 0 measure --space $T/space $small -o $T/cut --resume \
        --rounds 4
    check "cut after $cut bytes: all there" fits $T/cut
    check "cut after $cut bytes: at most one line lost" [ "$(grep -c skipped $T/err)" -le 1 ]
done

# --- damaged, foreign ---
bad_line $T/bad1 7 'hello'
check "a foreign line" fits $T/bad1
check "a foreign line is named" grep -q "line 7: no line of a profile; skipped" $T/err
bad_line $T/bad2 8 "$(sed -n 8p $P | sed 's/"threads":1/"threads":2/')"
check "a changed digit" fits $T/bad2
check "a changed digit is named" grep -q 'line 8: damaged' $T/err
printf 'a\0b\n\377\376\n' | cat $P - >$T/bad3
check "bytes that are no text" fits $T/bad3
check "bytes that are no text are named" [ "$(grep -c 'skipped' $T/err)" = 2 ]
awk '{ printf "%s\r\n", $0 }' $P >$T/crlf
check "from Windows" silent fit $T/crlf
check "no profile at all" exits 1 fit README.md
check "no profile at all: at most 5 lines named" [ "$(grep -c '' $T/err)" = 7 ]
check "no profile at all: why" pipe "tail -1 $T/err | grep -q 'no measurement'"
check "no file" error 1 nowhere fit $T/nowhere
grep -v '"profile"' $P >$T/headless
check "no machine" exits 1 fit $T/headless
check "no machine: why" grep -q 'line 1: no line above says which machine' $T/err
head -4 $P >$T/few
check "too few" error 1 '8 are needed' fit $T/few

# --- a model, predictions ---
check "fit" silent fit $P -o $T/m.latency --report $T/r.html
for line in drift cv chronological tau; do
    check "fit says $line" grep -q "^$line phase=decode" $T/out
done
check "report: pictures" [ "$(grep -o '<svg' $T/r.html | wc -l)" -ge 4 ]
check "report: alone" pipe "! grep -qE '(src|href)=|@import|<script' $T/r.html"
check "report: whole" pipe "tail -c 20 $T/r.html | grep -q '</html>'"
check "nothing else left" nothing_left
check "a folder is there" error 1 'not a file' fit $P -o $T
check "a report: no such folder" exits 1 fit $P --report $T/nowhere/r
check "only longer prompts" error 1 'no prompts longer' fit $P --up-to 16
S="d=64,layers=2,heads=2,kv=1,head=32,ffn=96,vocab=300"
check "predict" silent predict $T/m.latency --shape $S -p 8,16,12
check "predict: the machine, three lengths" lines 4 $T/out
check "predict --json" silent predict $T/m.latency --shape $S -p 8,16 --json
check "predict --json: two lines" lines 2 $T/out
check "predict --json: in order" awk -F'[:,}]' '
    !($6 > 0 && $6 <= $4 && $4 <= $8 && $12 <= $10 && $10 <= $14) { bad = 1 }
    END { exit bad || NR != 2 }' $T/out
check "predict: other threads" error 1 'nothing there was measured.* 3 threads' \
    predict $T/m.latency --shape $S -t 3
check "predict: another type" error 1 'nothing there was measured.* Q8_0 weights' \
    predict $T/m.latency --shape $S --type q8_0
check "predict: a model" silent predict $T/m.latency tests/data/q4.gguf -p 16 --type q4_0
check "predict: its own type" error 1 'F32 weights' predict $T/m.latency $M -p 16
check "predict: nothing" error 2 'which LATENCY' predict
check "predict: neither" error 2 'MODEL or --shape' predict $T/m.latency
check "predict: a profile" error 1 'no latency model' predict $P --shape $S
head -c 3000 $T/m.latency >$T/cut
check "predict: cut" error 1 'ends too early' predict $T/cut --shape $S
sed '20s/[0-7]/8/' $T/m.latency >$T/cut
check "predict: damaged" error 1 'damaged' predict $T/cut --shape $S
check "predict: bad lengths" error 2 '-p' predict $T/m.latency --shape $S -p 0
fits $P -o $T/again.latency
check "the same model every time" cmp -s $T/m.latency $T/again.latency
check "predict.c" pipe "$RUN $B/predict $T/m.latency tests/data/q4.gguf 16 9999 1 >$T/out"
check "predict.c: yes" grep -q '^yes: 16 tokens' $T/out

check "fit: one length" silent fit $P -p 16
check "fit: one length: half of it" grep -q '^model n=8 ' $T/out
check "fit: a length that is not there" error 1 'no prompt of 17' fit $P -p 17

# --- a real profile: 100 shapes of the paper's space; the figures are README's ---
figure() # WHAT PHASE NAME: of the line "WHAT phase=PHASE ..."
{
    sed -n "s/^$1 phase=$2 .*$3=\([0-9.]*\).*/\1/p" $T/out | head -1
}
within() # LOW HIGH WHAT PHASE NAME
{
    awk -v x="$(figure $3 $4 $5)" -v lo=$1 -v hi=$2 'BEGIN { exit !(x != "" && x >= lo && x <= hi) }'
}
D=tests/data/epyc.profile
[ -z "$FLASH_QUICK" ] || { finish; exit; }
check "real: fit" silent fit $D -p 2048 --least -o $T/d.latency
check "real: at most 100 shapes" grep -q '^cv phase=decode n=100 ' $T/out
for phase in prefill decode; do
    check "real: $phase: R^2" within .97 1 cv $phase r2
    check "real: $phase: mean error" within 0 .04 cv $phase mape
    check "real: $phase: within 10 %" within .99 1 cv $phase within10
    check "real: $phase: order" within .98 1 cv $phase spearman
    check "real: $phase: interval" within .85 .95 cv $phase cover90
    check "real: $phase: a ceiling" within .9 1 cv $phase ceiling
    check "real: $phase: later ones" within .95 1 chronological $phase r2
done
check "real: longer prompts" silent fit $D --up-to 2048 --least
for phase in prefill decode; do
    check "real: $phase of longer prompts" within 0 .1 lengths $phase mape
done
check "real: a shape of the family" silent predict $T/d.latency --shape flash-350m -t 2 --json
check "real: between a second and ten" grep -qE '"ttft_s":[1-9]\.' $T/out
finish
