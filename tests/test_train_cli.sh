#!/bin/sh
# flash train from outside: losses fall, what was killed goes on with the same bits, messages.
. "$(dirname "$0")/cli.sh"
A=$T/a.gguf
D=$T/text
N=60
[ -z "$FLASH_QUICK" ] || N=6
i=0
while [ $i -lt 150 ]; do
    echo "The cat sat on the mat number $((i % 7)). A dog ran to the tree and saw $((i % 5)) birds."
    i=$((i + 1))
done >$D
flash make $A --shape d=32,layers=2,heads=4,kv=2,head=8,ffn=64,vocab=300,ctx=64 --type F32
small="--steps $N --batch 2 --ctx 16 --lr 1e-2 --warmup 2"
begun() # ARGUMENT...: started in the background, at its first step, where it hears signals
{
    : >$T/out
    start "$@"
    tries=0
    until grep -q '^step' $T/out || [ $((tries += 1)) = 600 ]; do sleep 0.1; done
}
train() { silent train $A --data $D $small -o "$@"; }

check "learns" train $O --log $T/log
check "the held-out loss falls" pipe "awk '\$3 == \"held\" { last = \$5; if (!n++) first = \$5 }
    \$3 == \"loss\" { last = \$7 } END { exit !(n && last < first - 0.2) }' $T/out"
check "a line a step" [ "$(grep -c '^[1-9]' $T/log)" = $N ]
check "OUT runs" silent run $O -n 3
check "no checkpoint is left" [ ! -e $O.checkpoint ]
cp $O $T/once.gguf
check "more threads" train $O -t 3
check "more threads: the same bits" cmp -s $O $T/once.gguf
check "another seed" train $O --seed 2
check "another seed: other bits" pipe "! cmp -s $O $T/once.gguf"
check "types" train $O --type Q8_0
check "types: runs" silent run $O -n 3
check "a teacher" train $O --teacher $T/once.gguf --temperature 2
check "a teacher: its divergence" grep -q 'kl [0-9]' $T/out
check "standard input" pipe "silent train $A --data - $small -o $O <$D && cmp -s $O $T/once.gguf"

# --- killed at any moment, and on it goes ---
steps=400
[ -z "$FLASH_QUICK" ] || steps=36
killed="train $A --data $D --steps $steps --batch 8 --ctx 64 --lr 1e-3 -o $O"
check "not killed" exits 0 $killed
mv $O $T/long.gguf
rm -f $T/log
kills=0 resumed=0
done_steps() { grep -c '^[1-9]' $T/log 2>/dev/null; }
for part in 1 2 3 4; do # of 6
    case $part in 3) how=INT ;; *) how=KILL ;; esac
    : >$T/out
    start $killed --log $T/log --save-every 0
    tries=0
    until [ "$(done_steps || echo 0)" -ge $((part * steps / 6)) ] || [ $((tries += 1)) = 1200 ]; do
        sleep 0.05
    done
    [ -e $O.checkpoint ] && kill -$how $pid 2>/dev/null
    wait $pid 2>/dev/null
    case $? in 130 | 137) kills=$((kills + 1)) ;; esac
    ! grep -q '^flash train: goes on after step' $T/err || resumed=$((resumed + 1))
done
check "killed $kills times" [ $kills -ge 3 ]
check "killed: it went on" [ $resumed = 3 ]
check "to the end" exits 0 $killed --log $T/log
check "to the end: from where it was" grep -q 'goes on after step' $T/err
check "killed: the same bits" cmp -s $O $T/long.gguf
check "killed: a line a step in the log" [ "$(done_steps)" = $steps ]
check "killed: steps in order" pipe "grep '^[1-9]' $T/log | cut -d, -f1 | sort -nc"

# --- an OUT that cannot be written in the end: nothing is lost ---
mkdir $O.part
check "OUT in the end" exits 1 train $A --data $D $small -o $O
check "OUT in the end: said" grep -q "^flash train: cannot write $O.part" $T/err
rmdir $O.part
check "OUT in the end: written later" pipe "exits 0 train $A --data $D $small -o $O && cmp -s $O $T/once.gguf"
check "OUT in the end: nothing was learned again" grep -q "goes on after step $N of $N" $T/err

# --- losses that are no numbers on the way ---
diverge="train $A --data $D --steps 60 --batch 2 --ctx 16 --clip 0 --warmup 0 --weight-decay 10 -o $O"
check "no numbers" exits 1 $diverge --lr 10
check "no numbers: said" grep -q '^flash train: step [0-9]*: loss or gradient is no number; .* remove it and begin anew with a lower --lr' $T/err
check "no numbers: the checkpoint" [ -s $O.checkpoint ]
check "no numbers: again at the same step" pipe "cp $T/err $T/a; exits 1 $diverge --lr 10 &&
    grep -q 'goes on after step' $T/err && tail -1 $T/err | cmp -s - $T/a"
check "no numbers: a lower --lr alone" exits 1 $diverge --lr 1e-3
check "no numbers: what it says" grep -q 'remove it to begin anew' $T/err
rm $O.checkpoint
check "no numbers: what was said helps" exits 0 $diverge --lr 1e-3
begun train $A --data $D --steps 100000 --batch 2 --ctx 16 -o $T/long
check "Ctrl-C" stopped
check "Ctrl-C: what to do is said" grep -q 'the same command goes on' $T/err
check "Ctrl-C: the checkpoint" [ -e $T/long.checkpoint ]
check "other options" error 1 'other data, models or options: remove it' train $A --data $D --steps 99999 \
    --batch 2 --ctx 16 -o $T/long
head -c 3000 $T/long.checkpoint >$T/a && cp $T/a $T/long.checkpoint
check "a torn checkpoint" error 1 'remove it to begin anew' train $A --data $D --steps 100000 --batch 2 --ctx 16 \
    -o $T/long
echo text >$T/long.checkpoint
cp $T/once.gguf $T/teacher.gguf
begun train $A --data $D --teacher $T/teacher.gguf --steps 100000 --batch 2 --ctx 16 -o $T/taught
check "another teacher: stopped" stopped
flash train $A --data $D $small --seed 2 -o $T/teacher.gguf >/dev/null
check "another teacher under the same name" error 1 'other data, models or options' train $A --data $D \
    --teacher $T/teacher.gguf --steps 100000 --batch 2 --ctx 16 -o $T/taught
ln -s loop.checkpoint $T/loop.checkpoint
check "a checkpoint that cannot be opened" error 1 'cannot open .*loop.checkpoint' train $A --data $D $small -o $T/loop
rm $T/loop.checkpoint
check "no checkpoint" error 1 'no checkpoint' train $A --data $D --steps 100000 --batch 2 --ctx 16 -o $T/long
check "a disk that is full" pipe "(trap '' XFSZ; ulimit -f 8; ! flash train $A --data $D $small -o $T/full \
    >$T/out 2>$T/err) && grep -q '^flash train: cannot write' $T/err && [ ! -e $T/full ]"

# a checkpoint that cannot be replaced stays
long="train $A --data $D --steps 100000 --batch 2 --ctx 16 -o $T/full"
begun $long
check "a full disk later: stopped" stopped
cp $T/full.checkpoint $T/before
small_disk() { (trap '' XFSZ; ulimit -f 8; exec $RUN $B/flash "$@" >$T/out 2>$T/err) & pid=$!; }
: >$T/out
small_disk $long
tries=0
until grep -q '^step' $T/out || [ $((tries += 1)) = 600 ]; do sleep 0.1; done
kill -INT $pid
wait $pid
check "a full disk later: an error" [ $? = 1 ]
check "a full disk later: said" grep -q 'cannot write .*the checkpoint before it is as it was' $T/err
check "a full disk later: so it is" cmp -s $T/full.checkpoint $T/before

# --- refused ---
check "no data" error 2 --data train $A -o $O
check "no OUT" error 2 -o train $A --data $D
check "no such data" error 1 nowhere train $A --data $T/nowhere -o $O
check "no such folder" error 1 nowhere train $A --data $D $small -o $T/nowhere/o
check "data that is no text" error 1 'no text' train $A --data $A -o $O
check "a short text" error 1 'need .* at least' train $A --data tests/test_train_cli.sh --ctx 60000 -o $O
check "OUT is MODEL" error 2 'is a model that is read' train $A --data $D -o $A
cp $A $T/ct
cp $D $T/ht
before=$(cat $A $D $T/ct $T/ht $T/once.gguf | cksum)
for file in $A $T/ct $D $T/ht; do
    case $file in *gguf | *ct) what=model ;; *) what=text ;; esac
    check "--log is $file" error 2 "--log is a $what that is read" train $A --teacher $T/ct --data $D \
        --held-out $T/ht $small -o $O --log $file
    check "OUT is $file" error 2 "OUT is a $what that is read" train $A --teacher $T/ct --data $D \
        --held-out $T/ht $small -o $file
done
ln $T/ht $T/h.checkpoint
check "OUT.checkpoint is a text" error 2 "OUT.checkpoint is a text" train $A --data $D --held-out $T/ht $small -o $T/h
rm $T/h.checkpoint
check "--log is OUT" error 2 '--log is OUT' train $A --data $D $small -o $O --log $O
check "--log is OUT.checkpoint" error 2 '--log is OUT' train $A --data $D $small -o $O --log $O.checkpoint
check "--log is the vocabulary" error 2 '--log is a model' train --new d=32 --vocab $T/once.gguf --data $D $small \
    -o $O --log $T/once.gguf
check "what is read is as it was" [ "$(cat $A $D $T/ct $T/ht $T/once.gguf | cksum)" = "$before" ]
check "OUT is a folder" error 1 'not a file' train $A --data $D $small -o $T
check "--log is a folder" error 1 'not a file' train $A --data $D $small -o $O --log $T
check "--kl without a teacher" error 2 teacher train $A --data $D --kl 1 -o $O
check "nothing to learn" error 2 nothing train $A --data $D --ce 0 -o $O
flash make $T/b.gguf --shape d=32,layers=2,heads=4,kv=2,head=8,ffn=64,vocab=301,ctx=64 --type F32
check "a teacher of another vocabulary" error 1 301 train $A --data $D --teacher $T/b.gguf -o $O
sed "s/<unk>/<unj>/" $A >$T/b.gguf
check "a teacher of other tokens" error 1 'token 0 is "<unk>" in .*, "<unj>" in ' train $A --data $D \
    --teacher $T/b.gguf -o $O
flash make $T/b.gguf --shape tiny --arch gemma3 --type F32
check "an architecture it cannot train" error 1 . train $T/b.gguf --data $D --ctx 16 -o $O
cp $A $T/huge.gguf
printf '\377\377\177\177\377\377\177\177' |
    dd of=$T/huge.gguf bs=1 seek=$(($(wc -c <$A) - 8)) conv=notrunc 2>/dev/null
check "losses that are no numbers" exits 1 train $T/huge.gguf --data $D $small -o $O
check "losses that are no numbers: said" grep -q 'is no number' $T/err

# --- new models ---
fresh="--new d=32,layers=2,heads=4,kv=2,ffn=64,vocab=300,ctx=64 --data $D $small"
check "a new model" silent train $fresh -o $O
cp $O $T/once.gguf
check "a new model: runs" silent run $O -n 5
check "a new model: again the same" pipe "silent train $fresh -t 2 -o $O && cmp -s $O $T/once.gguf"
check "a new model: killed" pipe "begun train $fresh --steps 100000 -o $T/new; stopped"
check "a new model: tied, with layers that skip" silent train --new \
    d=32,layers=2,heads=4,kv=2,ffn=64,vocab=300,ctx=64,tied=1 --arch flash --attn full,skip --data $D $small -o $O
check "another model's vocabulary" silent train --new d=32,layers=2,heads=4,kv=2,ffn=64,ctx=64 --data $D $small \
    --vocab tests/data/f16-bpe.gguf --teacher tests/data/f16-bpe.gguf -o $O
check "another model's vocabulary: its keys" pipe "for f in tests/data/f16-bpe.gguf $O; do
    flash info \$f | grep '^  tokenizer' >$T/\$(basename \$f).k; done; [ -s $T/o.gguf.k ] && cmp -s $T/o.gguf.k $T/f16-bpe.gguf.k"
check "another model's vocabulary: runs" silent run $O -n 5
check "held-out text" silent train $fresh --held-out $D -o $O
check "MODEL and --new" error 2 'not both' train $A $fresh -o $O
check "neither" error 2 'which MODEL' train --data $D -o $O
check "--attn without --new" error 2 'go with' train $A --data $D --attn full -o $O
check "--vocab without --new" error 2 'go with' train $A --data $D --vocab $A -o $O
check "a vocabulary that is none" error 1 . train --new d=32 --data $D --vocab $D -o $O
check "a shape that is none" error 2 'want d=N' train --new d=0 --data $D -o $O
check "a vocabulary that is too large" error 1 'ask for fewer' train --new d=32,vocab=60000 --data $D -o $O
finish
