#!/bin/sh
# flash calibrate, and the sizes of flash prune, from outside.
. "$(dirname "$0")/cli.sh"
A=$T/a.gguf
D=$T/text
C=$T/calib
i=0
while [ $i -lt 60 ]; do
    echo "The cat sat on the mat number $((i % 7)). A dog ran to the tree and saw $((i % 5)) birds."
    i=$((i + 1))
done >$D
flash make $A --shape d=64,layers=4,heads=4,kv=2,head=16,ffn=96,vocab=300,ctx=64 --type F32
calibrate() { silent calibrate $A --text $D --ctx 32 --tokens 256 --kl-tokens 64 -o "$@"; }
types() { flash info $O --tensors | awk 'on { print $1 } /^tensors: / { on = 1 }' | sort -u; }
fact() { flash info $1 | sed -n "s/^  llama\.$2 = //p"; } # FILE KEY

check "calibrates" calibrate $C
check "a line a layer" [ "$(grep -c '^ *[0-3] ' $T/out)" = 4 ]
check "skips that are found" grep -q 'attentions to skip' $T/out
check "no three in a row" [ "$(grep -c '^skip [0-3] ' $C)" = 3 ]
cp $C $T/once
check "more threads" calibrate $C -t 3
check "more threads: the same" cmp -s $C $T/once
check "no divergences" silent calibrate $A --text $D --ctx 32 --kl-tokens 0 -o $C
check "no divergences: none" grep -q '^skips 0$' $C
cp $T/once $C

# --- pruning with it and without ---
for with in "" "--calib $C"; do
    check "fewer of all $with" silent prune $A $O --layers 3 --d-model 48 --d-ffn 64 --kv-heads 1 $with
    check "fewer of all $with: layers" [ "$(fact $O block_count)" = 3 ]
    check "fewer of all $with: channels" [ "$(fact $O embedding_length)" = 48 ]
    check "fewer of all $with: units" [ "$(fact $O feed_forward_length)" = 64 ]
    check "fewer of all $with: heads" [ "$(fact $O attention.head_count)" = 2 ]
    check "fewer of all $with: their size" [ "$(fact $O attention.key_length)" = 16 ]
    check "fewer of all $with: runs" silent run $O -n 3
    check "fewer of all $with: trains" silent train $O --data $D --steps 2 --batch 1 --ctx 16 -o $T/healed
done
check "by energy" silent prune $A $O --d-ffn 48 --calib $C --energy
check "all of it" silent prune $A $O --layers 4 --d-model 64 --d-ffn 96 --kv-heads 2 --calib $C
check "all of it: the same logits" pipe "flash run $A -n 20 --temp 0 >$T/x; flash run $O -n 20 --temp 0 | cmp -s - $T/x"
check "nothing but sizes that are there" silent prune $A $O --layers 4
check "nothing but sizes that are there: the same weights" pipe "flash probs $A --tokens 1,2,3 >$T/x;
    flash probs $O --tokens 1,2,3 | cmp -s - $T/x"
if here "all of a published file" $S/models/stories260K.gguf; then
    check "all of a published file" silent prune $S/models/stories260K.gguf $O --layers 5
    check "all of a published file: the same bytes" cmp -s $S/models/stories260K.gguf $O
fi
flash make $T/s.gguf --shape d=32,layers=8,heads=2,kv=1,ffn=32,vocab=300 --arch smollm3 --type F32
check "layers of another kind" error 1 'convert it to flash first' prune $T/s.gguf $O --drop 1
check "layers of another kind: converted first" pipe "exits 0 convert $T/s.gguf $T/sf.gguf --arch flash &&
    silent prune $T/sf.gguf $O --drop 1 && flash info $O | grep -q 'no RoPE 2 6\$'"
check "layers that go" silent prune $A $O --drop 1-2
check "layers that go: two stay" [ "$(fact $O block_count)" = 2 ]
check "sizes and attention" silent prune $A $O --d-ffn 64 --layers 3 --attn full,skip --calib $C
check "sizes and attention: said" grep -q 'deci, full x 2, skip 1' $T/out
check "sizes and attention: runs" silent run $O -n 3
flash quantize $A $T/q.gguf Q4_0 >/dev/null
check "quantised" silent prune $T/q.gguf $O --d-model 32 --d-ffn 64
check "quantised: as it was" pipe "flash info $O | grep -q 'Q4_0'"
check "quantised anew" silent prune $T/q.gguf $O --d-ffn 64 --type Q8_0
check "quantised: to floats" silent prune $T/q.gguf $O --d-ffn 64 --type F32
check "quantised: floats" [ "$(types)" = F32 ]
check "quantised: to floats and nothing else" silent prune $T/q.gguf $O --type F32
check "quantised: nothing but floats" [ "$(types)" = F32 ]
check "quantised: odd sizes" silent prune $T/q.gguf $O --d-ffn 40
check "quantised: odd sizes run" silent run $O -n 3

# --- the order of attentions to skip ---
order() { sed -n 's/^skip \([0-9]*\) .*/\1/p' $C | head -$1 | paste -sd, -; } # N: the first of them
for n in 1 2; do
    check "the first $n attentions" exits 0 prune $A $O --calib $C --skips $n
    check "the first $n attentions: as by name" pipe "exits 0 prune $A $T/x --skip $(order $n) && cmp -s $O $T/x"
done
check "of layers that stay" exits 0 prune $A $O --calib $C --skips 2 --drop 0
two=$(order 3 | tr , '\n' | awk '$1 { print $1 - 1 }' | head -2 | paste -sd, -)
check "of layers that stay: as by name" pipe "exits 0 prune $A $T/x --drop 0 --skip $two && cmp -s $O $T/x"

# --- refused ---
check "--skips without --calib" error 2 'needs --calib' prune $A $O --skips 1
check "--skips and --skip" error 2 'not both' prune $A $O --skips 1 --skip 1 --calib $C
check "more --skips than there are" error 1 'an order of 3' prune $A $O --skips 4 --calib $C
check "more --skips than stay" error 1 'of layers that go' prune $A $O --skips 3 --drop $(order 1) --calib $C
check "no text" error 2 '--text' calibrate $A -o $O
check "no OUT" error 2 '-o' calibrate $A --text $D
check "OUT is the model" error 2 'is the model' calibrate $A --text $D -o $A
check "OUT is a text" error 2 'is a text' calibrate $A --text $D -o $D
check "a short text" error 1 'give more text' calibrate $A --text $D --ctx 60000 -o $O
check "no such folder" error 1 nowhere calibrate $A --text $D --ctx 32 --tokens 32 -o $T/nowhere/c
flash make $T/g.gguf --shape tiny --arch gemma3 --type F32
check "a model that cannot be trained" error 1 'cannot be trained' calibrate $T/g.gguf --text $D --ctx 32 -o $O
check "too many layers" error 1 'has 4' prune $A $O --layers 5
check "too many channels" error 1 'has 64' prune $A $O --d-model 65
check "blocks that do not fit" error 1 'multiple of 7' prune $A $O --d-ffn 64 --block 7
check "a layer that is not there" error 2 'layers 0 to 3' prune $A $O --drop 4
check "all layers" error 2 'no layer' prune $A $O --drop 0-3
check "two ways" error 2 'not both' prune $A $O --drop 1 --layers 2
check "--calib alone" error 2 'goes with' prune $A $O --calib $C --skip 1
check "OUT is IN" error 2 'OUT is IN' prune $A $A --layers 2
spoil() # NAME PATTERN SED: a calibration that is spoilt
{
    sed "$3" $T/once >$C
    check "$1" error 1 "$2" prune $A $O --d-ffn 48 --calib $C
}
spoil "another first line" 'line 1: .*no calibration' '1s/1/2/'
spoil "of another model" 'line 2: .*another model' '2s/64/65/'
spoil "of another layer" 'line 4: .*another model' '4s/96/97/'
spoil "a divergence that is none" 'want a number' '3s/skip=.*/skip=nan/'
spoil "a number below 0" 'want a number' '$!s/^[0-9.e-]*$/-1/'
spoil "infinite" 'want a number' '20s/.*/inf/'
spoil "a line more" 'more behind' '$s/$/\nend/'
spoil "a layer to skip that is not there" 'want skip' 's/^skip [0-3] /skip 9 /'
for n in 10 100 1000; do
    head -c $n $T/once >$C
    check "cut after $n bytes" error 1 'make it again' prune $A $O --d-ffn 48 --calib $C
done
check "no file" error 1 nowhere prune $A $O --d-ffn 48 --calib $T/nowhere
check "a model" error 1 'no calibration' prune $A $O --d-ffn 48 --calib $A
finish
