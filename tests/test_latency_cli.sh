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
summed() # TEXT: a line of a profile, with its sum
{
    h=2166136261
    for c in $(printf %s "$1" | od -An -v -tu1); do
        h=$(((h ^ c) * 16777619 & 4294967295))
    done
    printf '%s"sum":"%08x"}\n' "$1" $h
}
forged() # FILE N SED: line N changed, its sum is right
{
    sed -n "$2{s/\"sum.*//;$3;p;}" $P >$T/line
    { head -n $(($2 - 1)) $P; summed "$(cat $T/line)"; sed "1,$2d" $P; } >$1
}
bad_line() { awk -v n=$2 -v text="$3" 'NR == n { $0 = text } { print }' $P >$1; } # FILE N TEXT

# --- command lines ---
for c in measure fit predict; do
    check "$c --help" silent $c --help
    check "$c --help: usage first" pipe "head -1 $T/out | grep -q '^usage: flash $c .*options.'"
done
check "no profile to write" error 2 '-o PROFILE' measure
check "too much" error 2 'one too many' measure x -o $O
for bad in '-p 0' '-p x' '-p 8,' '-p 1048576' '-p 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17' '--n 0' '--rounds 0' '-t 0' '-t 99' '-r 0' '-r 65' '-n 0' \
    '--type Q9' '--kv q4_0' '--chunk 0' '--isa z80' '--seed x' '--n'; do
    check "$bad" error 2 "${bad%% *}" measure $bad -o $O
done
check "-p 0: why" error 2 'up to 16 lengths below 1048576' measure -p 0 -o $O
check "no such space" error 1 nowhere measure --space $T/nowhere -o $O
for bad in 'd=63,heads=2' 'nonsense' 'tiny conv' 'tiny full nonsense' 'tiny full llama tiny' \
    'tiny\0full'; do
    printf "tiny\n$bad\n" >$T/bad
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
check "a reference of another type" error 1 'no multiple of 32' measure --space $T/bad -o $O \
    --reference d=80,layers=1,heads=2,kv=1,head=40,ffn=64,vocab=300
zeros=00000000000000000000000000000000000000000000000000
check "a long reference" error 2 'more than 159' measure --space $T/bad -o $O \
    --reference d=256,layers=1,heads=2,kv=1,head=32,ffn=64,vocab=$zeros$zeros${zeros}300
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
cp $T/space "$T/a\"b\\c"
for i in 1 2; do
    check "a quote in a name, $i" silent measure --space "$T/a\"b\\c" $small -o $T/quote --resume \
        --rounds 1
done
check "a quote in a name: once" [ $(jobs $T/quote) = 16 ]
cp $T/space $T/shapes
measure() { silent measure --space $T/shapes $small -o "$@"; }
check "shapes of a file" measure $T/more --rounds 2
{ echo d=96,layers=3,heads=2,kv=1,head=32,ffn=64,vocab=300; cat $T/space; } >$T/shapes
check "one more shape" measure $T/more --rounds 2 --resume
check "one more shape: measured once a round and length" [ $(jobs $T/more) = 36 ]
check "one more shape: only that" [ $(grep -c layers=3,heads=2,kv=1,head=32,ffn=64 $T/more) = 4 ]
check "other lines, other places" pipe "sort $T/space >$T/shapes;
    measure $T/more --rounds 2 --resume"
check "other lines, other places: nothing to do" [ $(jobs $T/more) = 36 ]
measure() { silent measure --space $T/space $small -o "$@"; }
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do cat $T/space; done >$T/many
check "more than 100 shapes" silent measure --space $T/many --reference $reference -r 1 -n 1 -p 1 \
    --rounds 1 -o $T/m.profile
check "more than 100 shapes: all" [ $(jobs $T/m.profile) = 104 ]
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
head -3 README.md >$T/text
cp $T/text $T/copy
check "no profile" exits 1 measure --space $T/space $small -o $T/text --resume
check "no profile: why" pipe "tail -1 $T/err | grep -q 'text is no profile'"
check "no profile: as it was" cmp -s $T/text $T/copy
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
esc=$(printf '\033')
for bad in 's/"prompt":[0-9]*/"prompt":0/|no prompt' 's/Q4_0/MXFP4/|of type MXFP4 cannot' \
    's/Q4_0/nonsense/|out of range' 's/Q8_0/Q4_0/|out of range' 's/d=[0-9]*/d=80/|no multiple' \
    's/vocab=[0-9]*/vocab=0/|bad shape' 's/"arch":"[a-z]*/"arch":"nonsense/|no such architecture' \
    's/"prefill":\[[^,]*/"prefill":[0/|not above 0' 's/"decode":\[[^,]*/"decode":[0/|not above 0' \
    "s/Q4_0/$esc[2J/|not all of"; do
    forged $T/bad4 8 "${bad%|*}"
    check "a line with ${bad%|*}" fits $T/bad4
    check "a line with ${bad%|*}: named" grep -q "line 8: .*${bad#*|}.*; skipped" $T/err
done
forged $T/bad5 1 "s/\"machine\":\"/&$esc[2J/"
check "a machine's name that is no text" fits $T/bad5
check "a machine's name that is no text: named" grep -q 'line 1: not all of a machine' $T/err
sed -n 8p $P | cat $P - >$T/bad6
check "a line again" fits $T/bad6
check "a line again is named" grep -q 'the same line is above; skipped' $T/err
check "a line again: one less" pipe "fits $P && grep '^drift' $T/out >$T/drift &&
    fits $T/bad6 && grep '^drift' $T/out | cmp -s - $T/drift"
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
check "fit says what noise allows" grep -q '^cv phase=decode .* ceiling=' $T/out
check "report: pictures" [ "$(grep -o '<svg' $T/r.html | wc -l)" -ge 4 ]
check "report: alone" pipe "! grep -qE '(src|href)=|@import|<script' $T/r.html"
check "report: whole" pipe "tail -c 20 $T/r.html | grep -q '</html>'"
check "nothing else left" nothing_left
check "a folder is there" error 1 'not a file' fit $P -o $T
check "a report: no such folder" exits 1 fit $P --report $T/nowhere/r
cp $P $T/mine
ln -f $T/mine $T/link
for same in "-o $T/mine" "--report $T/mine" "-o $T/link" "-o $T/./mine" "-o $T/new --report $T/new" \
    "-o $T/new --report $T/../$(basename $T)/new"; do
    check "fit $same" error 2 'are the same file' fit $T/mine $same
done
check "fit: the profile is as it was" cmp -s $P $T/mine
check "only longer prompts" error 1 'no prompts longer' fit $P --up-to 16
S="d=64,layers=2,heads=2,kv=1,head=32,ffn=96,vocab=300"
check "predict" silent predict $T/m.latency --shape $S -p 8,16,12
check "predict: the machine, three lengths" lines 4 $T/out
{ echo "# a ${esc}[2J b"; cat $T/m.latency; } >$T/comment
check "predict: a comment that is no text" silent predict $T/comment --shape $S -p 8
check "predict: a comment that is no text: made one" grep -q '^a  \[2J b$' $T/out
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
check "predict: bad lengths" error 2 'up to 16' predict $T/m.latency --shape $S -p 0
check "predict: an architecture for a model" error 2 '--arch nonsense: MODEL has one' \
    predict $T/m.latency $M --arch nonsense
check "predict: no such architecture" error 2 'no such arch' \
    predict $T/m.latency --shape $S --arch nonsense
fits $P -o $T/again.latency
check "the same model every time" cmp -s $T/m.latency $T/again.latency
check "predict.c" pipe "$RUN $B/predict $T/m.latency tests/data/q4.gguf 16 9999 1 >$T/out"
check "predict.c: yes" grep -q '^yes: 16 tokens' $T/out
for bad in '0|usage' 'x|usage' '9999999|usage' '16 4 99|not measured'; do
    check "predict.c: ${bad%|*}" pipe "
        ! $RUN $B/predict $T/m.latency tests/data/q4.gguf ${bad%|*} 2>$T/err >$T/out"
    check "predict.c: ${bad%|*}: why" grep -q "${bad#*|}" $T/err
done

check "fit: the least has no ceiling" pipe "fits $P --least && grep -q ^cv $T/out &&
    ! grep -q ceiling $T/out"
check "fit: one length" silent fit $P -p 16
check "fit: one length: half of it" grep -q '^model n=8 ' $T/out
check "fit: one length: too few to leave any out" pipe "! grep -qE '^(cv|tau|chron)|nan' $T/out"
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
    check "real: $phase: later ones" within .95 1 chronological $phase r2
done
check "real: longer prompts" silent fit $D --up-to 2048 --least
for phase in prefill decode; do
    check "real: $phase of longer prompts" within 0 .1 lengths $phase mape
done
check "real: a shape of the family" silent predict $T/d.latency --shape flash-350m -t 2 --json
check "real: between a second and ten" grep -qE '"ttft_s":[1-9]\.' $T/out
finish
