#!/bin/sh
# flash design, trial and study, from outside.
. "$(dirname "$0")/cli.sh"
A=$T/a.gguf
D=$T/text
L=$T/one/device.latency
N=6 lines=90 layers=4 sizes="--steps 4 --final-steps 6 --trials 6 --batch 3"
[ -z "$FLASH_QUICK" ] || { N=4 lines=45 layers=3 sizes="--steps 2 --final-steps 2 --trials 4 --batch 2"; }
i=0
while [ $i -lt $lines ]; do
    echo "The cat sat on the mat number $((i % 7)). A dog ran to the tree and saw $((i % 5)) birds."
    [ $((i % 9)) != 8 ] || echo '<|endoftext|>'
    i=$((i + 1))
done >$D
flash make $A --shape d=64,layers=$layers,heads=2,kv=1,head=32,ffn=128,vocab=300,ctx=64 --type F32
small="--data $D --calibrate 512 --ctx 16 --sequences 2 $sizes --pick 2 --type Q8_0 --deci"
design() { flash design $A $small "$@" >$T/out 2>$T/err; } # in place of cli.sh's `small`
family() { (cd $1/family && cksum *.gguf); } # RUN: names and bytes

# --- from nothing, on this machine ---
check "designs" design -o $T/one --shapes 8 --rounds 1 --baseline
check "the line of the family" grep -q '^family n=[2-4] backbone_loss=.* ttft_mean_error=' $T/out
for f in plan.json space.json calibration device.profile device.latency latency.html journal.jsonl \
    family.csv report.html; do
    check "there is $f" [ -s $T/one/$f ]
done
check "the page is one file" pipe "! grep -E '(src|href)=' $T/one/report.html"
check "the page has the family" grep -q '>trial-' $T/one/report.html
check "rivals" pipe "grep -q '^trial-.*,uniform-' $T/one/family.csv"
for m in $T/one/family/*.gguf; do
    check "$(basename $m) runs" silent run $m -n 3
    check "$(basename $m) has its type" pipe "flash info $m | grep -q Q8_0"
done
check "no windows: deci or llama" pipe "for m in $T/one/family/trial-*.gguf; do
    flash info \$m | grep -qE 'architecture.*(deci|llama)' || exit 1; done"
check "the front of its journal" pipe "flash front $T/one/journal.jsonl | grep -q '^search trials='$N"
family $T/one >$T/family
check "again: nothing to do" design -o $T/one --shapes 8 --rounds 1 --baseline
check "again: no stage" pipe "! grep '^\\$' $T/out"
check "again: the same family" pipe "family $T/one | cmp -s - $T/family"
check "other options" pipe "! design -o $T/one --lr 1e-3 && grep -q 'plan.json is of another' $T/err"
check "another space" pipe "! design -o $T/one --seed 2 && grep -q 'space.json is of another' $T/err"

# --- a latency model that is there; any number at once; killed at any moment ---
check "with a latency model" design -o $T/two --device $L
family $T/two >$T/family
check "with a latency model: nothing measured" [ ! -e $T/two/device.profile ]
if [ -z "$FLASH_QUICK" ]; then
check "three at once" design -o $T/three --device $L -j 3
check "three at once: the same family" pipe "family $T/three | cmp -s - $T/family"
check "three at once: the same journal" cmp -s $T/two/journal.jsonl $T/three/journal.jsonl
check "by a command" design -o $T/four --device $L -j 2 \
    --cmd "$RUN $B/flash trial $T/four/plan.json {trial.json}"
check "by a command: the same family" pipe "family $T/four | cmp -s - $T/family"
fi
for after in 0.2 ${FLASH_QUICK:-0.05 0.1 0.3 0.15 0.4}; do
    start design $A $small -o $T/five --device $L -j 2
    sleep $after
    kill -9 $pid 2>$T/null
    wait $pid 2>$T/null
done
check "killed, and again" design -o $T/five --device $L -j 2
check "killed: the same family" pipe "family $T/five | cmp -s - $T/family"
check "killed: the same journal" cmp -s $T/two/journal.jsonl $T/five/journal.jsonl

# --- one trial; questions ---
flash search $T/two/space.json --journal $T/other.jsonl --ask 1 >$T/trial.json 2>$T/err
sed 's/"id":1/"id":901/' $T/trial.json >$T/new.json
check "a trial" silent trial $T/two/plan.json $T/new.json
check "a trial: loss and time" grep -q '^{"loss":[0-9.]*,"ttft":[0-9.e-]*}$' $T/out
cp $T/out $T/first
check "a trial: kept" [ -s $T/two/trials/901 ]
check "a trial: again" pipe "flash trial $T/two/plan.json $T/new.json | tail -1 | cmp -s - \$(tail -1 $T/first >$T/last; echo $T/last)"
sed 's/"layers":[0-9]*/"layers":9/' $T/new.json >$T/bad.json
check "a trial: out of the space" error 1 'layers' trial $T/two/plan.json $T/bad.json
echo '{"x":1}' >$T/bad.json
check "a trial: none" error 1 'is no trial' trial $T/two/plan.json $T/bad.json
check "a trial: no plan" error 1 'no plan' trial $T/trial.json $T/new.json
study() { flash study $T/two "$@" >$T/out 2>$T/err; }
if [ -z "$FLASH_QUICK" ]; then
check "rank" study rank -n 4 --longer 2 -j 2
check "rank: short and long" grep -q '^study rank short-long n=4 .*tau=' $T/out
check "window" study window -n 2 -j 2
check "window: its time" grep -q 'ttft_window_over_skip=[0-9]' $T/out
check "place" study place -n 2
check "place: both" grep -q 'consecutive=[0-9.]* .*interleaved=[0-9.]*' $T/out
fi
check "depth" study depth
check "depth: several" [ "$(grep -c '^study depth layers=' $T/out)" -ge 2 ]
check "search" study search --trials 10 --seeds 2 -j 2
check "search: three methods" [ "$(grep -c '^study search' $T/out)" = 3 ]
check "another question" error 2 'want rank' study $T/two speed

# --- refused ---
check "no data" error 2 '--data' design $A -o $T/no
check "no RUN" error 2 '-o RUN' design $A --data $D
check "no text" error 1 . design $A --data $T/nowhere -o $T/no
echo 'Too short.' >$T/short
check "too short a text" error 1 'give more text' design $A --data $T/short -o $T/no --device $L
check "too few layers" error 1 'up to 16, but .* has '$layers design $A --data $D -o $T/no2 --space paper \
    --device $L
check "RUN is a file" error 1 'no folder' design $A --data $D -o $D --device $L
check "RUN in no folder" error 1 'cannot make' design $A --data $D -o $T/no/where/x --device $L
sed '1s/, /-other, /' $L >$T/other.latency
check "of another machine" error 2 'not of this machine' design $A --data $D -o $T/no3 \
    --device $T/other.latency
check "of another machine: said" design -o $T/six --device $T/other.latency --elsewhere
check "of another machine: not timed" pipe "! grep measured_ms $T/out"
check "of this machine, said to be of another" error 2 'is of this machine' design $A --data $D \
    -o $T/no4 --device $L --elsewhere
check "no latency model" error 1 . design $A --data $D -o $T/no5 --device $D --elsewhere
echo '{"parameters":[{"name":"width","integer":[1,2]}],"objectives":["loss","ttft"]}' >$T/space
check "a space of other parameters" error 1 'want layers, d_model' design $A --data $D -o $T/no6 \
    --device $L --space $T/space
echo '{"parameters":[{"name":"p1","choice":["full","full,skip"]}],"objectives":["loss","ttft"]}' >$T/space
check "a choice of two layers" error 1 'want full, window:N' design $A --data $D -o $T/no9 --device $L \
    --type Q8_0 --space $T/space
echo '{"parameters":[{"name":"layers","integer":[1,3]}],"objectives":["loss","size"]}' >$T/space
check "a space of other objectives" error 1 'objectives' design $A --data $D -o $T/no7 --device $L \
    --space $T/space
flash make $T/qwen2.gguf --shape d=64,layers=4,heads=2,kv=1,head=32,ffn=128,vocab=300,ctx=64 \
    --arch qwen2 >$T/out 2>$T/err
check "a backbone that cannot be trained" pipe "! flash design $T/qwen2.gguf --data $D -o $T/no8 \
    --device $L --type Q8_0 --ctx 16 >$T/out 2>$T/err && grep -q 'calibrate did not end well' $T/err"
if [ "$(id -u)" != 0 ] || (ulimit -f 8) 2>$T/null; then
    check "a full disk" pipe "! (ulimit -f 2; trap '' XFSZ; design -o $T/seven --device $L)"
    check "a full disk: it goes on" design -o $T/seven --device $L
    check "a full disk: the same family" pipe "family $T/seven | cmp -s - $T/family"
fi
finish
