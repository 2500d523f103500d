#!/bin/sh
# flash prune, flash convert and --attn from outside: the same probabilities, what is left out,
# which architecture and why, what is refused.
. "$(dirname "$0")/cli.sh"
SHAPE=d=64,layers=6,heads=4,kv=2,head=16,ffn=96,vocab=320,ctx=512
ids=$(awk 'BEGIN { for (i = 0; i < 100; i++) printf "%s%d", i ? "," : "", (i * 137 + 11) % 320 }')

line() { flash info $1 | sed -n "s/^$2  *//p"; } # FILE WORD: what follows it
probs() { flash probs "$@" --tokens $ids --top 320; }
near() # FILE FILE: every probability of every token within 1e-5
{
    awk -F'[][,:}]+' '
        { for (i = 6; i < NF; i += 2)
              if (NR == FNR) {
                  p[FNR, $i] = $(i + 1)
                  n++
              } else {
                  d = p[FNR, $i] - $(i + 1)
                  bad += d > 1e-5 || d < -1e-5
                  m++
              } }
        END { exit bad || !n || m != n }' $1 $2
}
same() # cmp or near, IN OUT PATTERN: OUT is IN with that pattern
{
    probs $2 --attn "$4" >$T/a && probs $3 >$T/b && [ -s $T/a ] && case $1 in
    cmp) cmp -s $T/a $T/b ;;
    near) near $T/a $T/b ;;
    esac
}
written() # ARCH WHY ARGUMENT...: prune or convert writes ARCH, and says WHY, nothing if it is empty
{
    arch=$1 why=$2
    shift 2
    exits 0 "$@" && grep -q "^$3: $arch, .*iB, was" $T/out &&
        [ "$(line $3 architecture)" = $arch ] &&
        if [ "$why" ]; then
            [ "$(cat $T/err)" = "flash $1: $why: written as flash" ]
        else
            [ ! -s $T/err ]
        fi
}
tensors() # FILE: type, shape, bytes, name
{
    flash info $1 --tensors | sed -n '/^tensors: /,$p' | awk 'NR > 1 { print $1, $2, $3, $5 }'
}
data() # FILE: bytes of weights
{
    flash info $1 --tensors | sed -n '/^tensors: /,$p' | awk '
        NR > 1 { end = $3 + $4 > end ? $3 + $4 : end; begin = NR == 2 || $4 < begin ? $4 : begin }
        END { print end - begin }'
}
left_out() # IN OUT LAYERS: OUT has the tensors of IN, but those of attention in the LAYERS (2|4)
{
    tensors $1 | grep -vE " blk\.($3)\.attn_" >$T/a
    tensors $2 >$T/b
    # this model's tensors are multiples of the alignment
    gone=$(tensors $1 | awk -v of=" blk[.]($3)[.]attn_" '$0 ~ of { n += $3 } END { print n }')
    cmp -s $T/a $T/b && [ $(($(data $1) - $(data $2))) = $gone ]
}

# --- the same numbers, and less of them ---
while read -r how model make; do
    f=$T/$model.gguf
    flash make $f --shape $SHAPE $make
    for pattern in keep keep,skip skip,keep,window:20 window:9,keep,skip,keep keep,keep,keep,skip; do
        o=$T/$model.o.gguf
        check "$model $pattern" exits 0 prune $f $o --attn $pattern
        check "$model $pattern: probabilities" same $how $f $o $pattern
        check "$model $pattern: info" [ "$(line $o attention)" = "$(flash info $f --attn $pattern |
            sed -n 's/^attention *//p')" ]
        check "$model $pattern: keys and values" [ "$(line $o memory | sed 's/.*(//')" = \
            "$(flash info $f --attn $pattern | sed -n 's/^memory.*(//p')" ]
    done
    check "$model: what is left out" pipe "exits 0 prune $f $o --skip 2,4-5 && left_out $f $o '2|4|5'"
    check "$model as flash" written flash '' convert $f $o --arch flash
    check "$model as flash: probabilities" same $how $f $o keep
    check "$model as flash again" written flash '' convert $o $O --arch flash
    check "$model as flash again: the same file" cmp -s $o $O
done <<END
cmp llama --type F32
cmp smollm3 --arch smollm3 --type F32
cmp smollm3-q4_0 --arch smollm3
cmp llama-q8_0 --type Q8_0 --tied
cmp deci --arch deci --attn full,linear,full,linear,full,full --type F16
cmp flash --arch flash --attn full,window:30@700,full@0 --type F32
near qwen2 --arch qwen2 --type F32
near qwen3 --arch qwen3 --type F32
END
# Rows change places as they are: before or after they are quantised. (Probabilities of quantised
# models would tell less: the last bit of a sum may turn one of an activation's 8.)
for type in F16 BF16 Q8_0 Q4_0 IQ4_NL; do
    check "rows of $type" pipe "exits 0 convert $T/qwen3.gguf $O --arch flash &&
        exits 0 quantize $O $T/a.gguf $type && exits 0 quantize $T/qwen3.gguf $O $type &&
        exits 0 convert $O $T/b.gguf --arch flash && n=\$(data $O) &&
        tail -c \$n $T/a.gguf >$T/a && tail -c \$n $T/b.gguf | cmp -s - $T/a"
done
flash make $T/llama4.gguf --shape $SHAPE --arch llama4 --type F32
check "llama4" written flash "layer 0 norms queries and keys, which deci cannot say" \
    prune $T/llama4.gguf $O --attn full,window:30,skip
check "llama4: probabilities" same near $T/llama4.gguf $O full,window:30,skip
check "llama4: norms of 1" [ "$(tensors $O | grep -c '^F32 16 64 .*_norm.weight$')" = 8 ]
check "llama4: its own keys are gone" [ -z "$(flash info $O | grep -E 'expert|interleave')" ]

# --- deci or flash, and why ---
m=$T/llama.gguf
check "skip: deci" written deci '' prune $m $O --skip 1
check "layer 0 skips" written flash "layer 0 skips attention, which deci readers cannot" \
    prune $m $O --skip 0
check "a window" written flash "layer 3 has a window, which deci cannot say" prune $m $O --window 3:9
check "norms" written flash "layer 0 norms queries and keys, which deci cannot say" \
    prune $T/qwen3.gguf $O --skip 1
check "no RoPE" written flash "layer 3 has no RoPE, which deci cannot say" \
    prune $T/smollm3.gguf $O --skip 1
check "no layer without RoPE is left" written deci '' prune $T/smollm3.gguf $O --skip 3
flash make $T/bases.gguf --shape $SHAPE --arch flash --attn full@700,full
check "RoPE bases" error 1 "layer 0 norms" convert $T/bases.gguf $O --arch deci
flash make $T/ffn.gguf --shape d=64,layers=3,ffn=96/0,vocab=320 --arch deci --attn full
check "no FFN" written flash "layer 1 has attention and no FFN, which deci readers take for nothing" \
    prune $T/ffn.gguf $O --attn full
check "no FFN and no attention" written deci '' prune $T/ffn.gguf $O --skip 1
flash make $T/last.gguf --shape d=64,layers=2,ffn=96/0,vocab=320 --arch deci --attn full
check "the last layer without FFN" written flash \
    "layer 1 is the last and has no FFN, which deci readers cannot" prune $T/last.gguf $O --skip 1
check "that deci file is written as asked" written flash '' prune $m $O --skip 1 --arch flash
check "deci is asked for" error 1 "layer 0 skips attention" prune $m $O --skip 0 --arch deci
check "convert to deci" written deci '' convert $T/qwen2.gguf $O --arch deci
check "convert to deci: probabilities" same near $T/qwen2.gguf $O keep
check "convert to deci: not this one" error 1 "layer 0 norms" convert $T/qwen3.gguf $O --arch deci
check "back from flash" pipe "written flash '' convert $m $T/there.gguf --arch flash &&
    written deci '' convert $T/there.gguf $T/back.gguf --arch deci && same cmp $m $T/back.gguf keep"

# --- options together, keys, the line ---
check "--attn, --skip, --window" exits 0 prune $m $O --attn full,skip --skip 2 --window 0,4-4:9
check "--attn, --skip, --window: info" [ "$(line $O attention)" = 'window 9: 0 4, skip 1-3 5' ]
check "two windows" exits 0 prune $m $O --window 1,3-4:256,5:300
check "two windows: info" [ "$(line $O attention)" = 'full x 2, window 256: 1 3-4, window 300: 5' ]
check "two windows: on stdout" grep -qF "$O: flash, full x 2, window 256: 1 3-4, window 300: 5; " $T/out
check "pattern and windows" [ "$(key $O flash.attention.pattern) $(key $O \
    flash.attention.sliding_window)" = '6 items: 0 1 0 1 ... 6 items: 0 256 0 256 ...' ]
for k in context_length embedding_length block_count vocab_size attention.layer_norm_rms_epsilon \
    rope.freq_base attention.key_length; do
    check "key $k" [ "$(key $O flash.$k)" = "$(key $m llama.$k)" ]
done
check "no key of llama is left" [ -z "$(flash info $O | grep '^  llama')" ]
check "the tokenizer, the name" pipe "
    for f in $m $O; do flash info \$f | grep -E '^  (tokenizer|general)' | grep -v architecture >$T/\$(basename \$f).k; done
    [ -s $T/o.gguf.k ] && cmp -s $T/llama.gguf.k $T/o.gguf.k"
check "bases of RoPE" pipe "exits 0 convert $T/smollm3.gguf $O --arch flash &&
    [ \"\$(key $O flash.rope.freq_base)\" = '6 items: 5000000 5000000 5000000 0 ...' ]"
check "no RoPE: info" [ "$(line $O attention)" = 'full x 6, no RoPE 3' ]
for m2 in tests/data/*.gguf; do # every type, both tokenizers, tied and not
    check "$m2" written deci '' convert $m2 $O --arch deci
    check "$m2: the same" pipe "flash run $m2 -n 8 >$T/a && flash run $O -n 8 | cmp -s - $T/a"
    check "$m2 without attention" exits 0 prune $m2 $O --attn skip
    check "$m2 without attention: the same" pipe "flash run $m2 --attn skip -n 8 >$T/a &&
        flash run $O -n 8 | cmp -s - $T/a"
done

# --- --attn of the others ---
check "run --attn" pipe "flash run $m --attn keep,skip -n 5 >$T/a && flash run $m -n 5 >$T/b &&
    ! cmp -s $T/a $T/b"
check "perplexity --attn" pipe "echo a b c d e f g >$T/text &&
    exits 0 perplexity $m --attn skip -f $T/text && cp $T/out $T/a &&
    exits 0 perplexity $m -f $T/text && ! cmp -s $T/a $T/out"
check "bench --attn" exits 0 bench $m --attn full,skip -p 8 -n 2 -r 1 --buffer 2 --json
check "bench --attn: keys and values" grep -q "\"kv_bytes\":$((3 * 2 * 2 * 64 * 16 * 2))," $T/out
check "run --attn: wrong" error 1 'layer 1: "half"' run $m --attn full,half

# --- refused ---
flash make $T/gemma3.gguf --shape $SHAPE --arch gemma3 --type F32
flash make $T/lfm2.gguf --shape $SHAPE --arch lfm2 --type F32
check "gemma3" error 1 "GELU.* neither deci nor flash" prune $T/gemma3.gguf $O --skip 1
check "gemma3" error 1 "GELU.* neither deci nor flash" convert $T/gemma3.gguf $O --arch flash
check "lfm2" error 1 "convolutions.* neither deci nor flash" prune $T/lfm2.gguf $O --skip 1
for pattern in '' , full, half window window: window:0 window:x window:9999999 skip:1 full,full,full,full,full,full,full; do
    check "--attn '$pattern'" error 1 '\(layer\|attentions\)' prune $m $O --attn "$pattern"
done
for list in '' , 1, x 6 1-6 3-2 1- -1 1:9 99999999999999999999; do
    check "--skip '$list'" error 2 "--skip .*layers 0 to 5" prune $m $O --skip "$list"
done
for list in '' 1 1, 1:256, :256 6:256 1,3 1:256,3 1:99999999999999999999999; do
    check "--window '$list'" error 2 "--window .*layers 0 to 5" prune $m $O --window "$list"
done
for list in 1: 1:0 1:x 1:9999999; do
    check "--window '$list'" error 1 'layer 1: "window:' prune $m $O --window "$list"
done
check "a window where attention is skipped" error 1 "layer 2 has no attention" \
    prune $m $O --skip 2 --window 1-3:9
check "nothing to change" error 2 "nothing to change" prune $m $O
check "--arch" error 2 "want deci or flash" prune $m $O --skip 1 --arch llama
check "convert --arch" error 2 "want deci or flash" convert $m $O --arch llama
check "convert without --arch" error 2 "which --arch" convert $m $O
check "no OUT" error 2 OUT prune $m --skip 1
refuses $m prune --skip 1
refuses $m convert --arch deci

# --- progress: on a terminal and nowhere else, once it takes more than 2 seconds ---
if script -qec true /dev/null >$T/out 2>$T/err; then
    flash make $T/w.gguf --shape tiny --type F32 # more than is written in one piece
    mkfifo $T/a.part $T/b.part
    readers=
    for p in a b; do { sleep 3; cat; } <$T/$p.part >$T/$p.gguf & readers="$readers $!"; done
    script -qec "$RUN $B/flash prune $T/w.gguf $T/a --skip 1" /dev/null >$T/a.out &
    pid=$!
    script -qec "$RUN $B/flash prune $T/w.gguf $T/b --skip 0 2>$T/err" /dev/null >$T/b.out
    wait $pid
    kill $readers 2>/dev/null # which wait on if flash failed before it wrote
    check "progress" grep -q 'write: *[1-9][0-9]* %, [0-9]*:[0-9][0-9] left' $T/a.out
    check "no progress in a file" pipe "! grep -q left $T/b.out $T/err && [ -s $T/err ]"
else
    skip progress "no command script"
fi

# --- Ctrl-C: nothing is left, and what was there stays ---
if mkfifo $O.part 2>/dev/null; then # writing to it waits for a reader, which never comes
    echo old >$O
    start prune $m $O --skip 1
    exec 3<>$O.part # holds it open; a pipe has room for less than this model
    sleep 1
    check "it waits" [ -e $O.part ]
    check "stopped" stopped
    exec 3>&-
    check "nothing left" nothing_left
    check "the old file stays" [ "$(cat $O)" = old ]
else
    skip Ctrl-C "no named pipes"
fi

finish
