#!/bin/sh
# flash quantize and flash make from outside: files that run, types, keys, messages, what is left
# behind. B: the folder of build/flash, RUN: an emulator, FLASH_SHARED: the shared data.
B=${B:-build}
S=${FLASH_SHARED:-../shared}/data
T=$B/tests/quantize
M=tests/data/f32.gguf
TYPES='F32 F16 BF16 Q8_0 Q6_K Q5_K Q5_1 Q5_0 Q4_K Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K Q2_K'
export LC_ALL=C
passed=0 failed=0 skipped=0
rm -rf $T
mkdir -p $T

flash() { $RUN $B/flash "$@"; }
check() # NAME COMMAND...: good if the command succeeds
{
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $name"
    fi
}
exits() # STATUS ARGUMENT...: of flash, with nothing on standard input; leaves $T/out and $T/err
{
    want=$1
    shift
    flash "$@" </dev/null >$T/out 2>$T/err
    got=$?
    [ $got = "$want" ] && return
    echo "    flash $*: exit $got, want $want; $(head -1 $T/err)"
    return 1
}
error() # STATUS PATTERN ARGUMENT...: one line on stderr, "flash COMMAND: ...", no OUT, nothing left
{
    status=$1 pattern=$2
    shift 2
    rm -f $T/o.gguf
    exits $status "$@" && [ ! -s $T/out ] && [ "$(grep -c '' $T/err)" = 1 ] &&
        grep -q "^flash $1: .*$pattern" $T/err && [ ! -e $T/o.gguf ] && nothing_left && return
    sed 's/^/    /' $T/err
    return 1
}
nothing_left() { [ -z "$(find $T -name '*.part')" ]; }
silent() { exits 0 "$@" && [ ! -s $T/err ]; }
pipe() { eval "$1"; }
tensor_type() # FILE NAME: prints its type
{
    flash info $1 --tensors | awk -v name="$2" '$NF == name { print $1 }'
}
key() { flash info $1 | sed -n "s/^  $2 = //p"; } # FILE KEY

# --- make ---
for type in $TYPES MXFP4; do
    f=$T/m.$type.gguf
    check "make $type" silent make $f --shape tiny --type $type
    check "make $type: it runs" silent run $f -n 3
    check "make $type: the type" [ "$(tensor_type $f blk.1.ffn_down.weight)" = $type ]
    check "make $type: norms" [ "$(tensor_type $f blk.1.ffn_norm.weight)" = F32 ]
done
f=$T/m.Q4_0.gguf
check "make: seed 1 by default" pipe "flash make $T/o.gguf --shape tiny --seed 1 && cmp -s $f $T/o.gguf"
check "make: another seed" pipe "flash make $T/o.gguf --shape tiny --seed 2 && ! cmp -s $f $T/o.gguf"
check "make: the size is that of the types" pipe "[ $(wc -c <$T/m.Q5_0.gguf) -gt $(wc -c <$f) ]"
check "make: a folder is there" error 1 'not a file' make $T --shape tiny
check "make: replaces a file" silent make $T/o.gguf --shape tiny --type F16
check "make: no head of its own" pipe "[ -n '$(tensor_type $f output.weight)' ] &&
    silent make $T/o.gguf --shape tiny --tied && [ -z \"\$(tensor_type $T/o.gguf output.weight)\" ]"
check "make: a shape in full" silent make $T/o.gguf --type Q4_K \
    --shape d=96,layers=3,heads=6,kv=3,head=16,ffn=172,vocab=400,ctx=128
check "make: it is that" pipe "flash info $T/o.gguf | grep -qF \
    '3 layers, d_model 96, 6 heads of 16, 3 of keys and values, d_ffn 172, vocabulary 400, context 128'"
check "make: rows of 96 are Q8_0" [ "$(tensor_type $T/o.gguf blk.0.ffn_up.weight)" = Q8_0 ]
check "make: rows of 172 are F16" [ "$(tensor_type $T/o.gguf blk.0.ffn_down.weight)" = F16 ]
check "make: it runs" silent run $T/o.gguf -n 3
check "make: words come back" pipe "printf 'the tree, \303\251\n' >$T/a
    flash tokenize $f -f $T/a | flash tokenize $f --decode | cmp -s - $T/a"
for shape in huge '' d d= d=x d=0 =5 d=64, d=64,x=1 d=64=3 heads=4,kv=3 head=7 layers=9999 vocab=10; do
    check "make --shape '$shape'" error 2 -- make $T/o.gguf --shape "$shape"
done
while read -r arch attn absent there; do
    check "make $arch" silent make $T/o.gguf --shape tiny --arch $arch --attn $attn
    check "make $arch: its name" pipe "flash info $T/o.gguf | grep -qx 'architecture  $arch'"
    check "make $arch: no $absent" [ -z "$(tensor_type $T/o.gguf $absent)" ]
    check "make $arch: $there" [ -n "$(tensor_type $T/o.gguf $there)" ]
done <<EOF
deci full,skip blk.1.attn_norm.weight blk.0.attn_output.weight
flash skip,window:5@700 blk.0.attn_q.weight blk.1.attn_q_norm.weight
qwen2 full blk.0.attn_q_norm.weight blk.1.attn_q.bias
qwen3 full blk.0.attn_q.bias blk.1.attn_k_norm.weight
gemma3 window:9,full blk.0.attn_q.bias blk.1.post_ffw_norm.weight
smollm3 full blk.0.attn_q.bias blk.1.attn_k.weight
lfm2 conv,full output_norm.weight blk.0.shortconv.conv.weight
llama4 full blk.0.attn_q_norm.weight blk.1.ffn_up.weight
EOF
for wrong in "llama skip" "deci skip,full" "huge full" "deci window:9" "flash window" "flash window:0" \
    "flash full," "flash full,skip,full" "flash full:9" "gemma3 window:9,window:8" "qwen3 full@0"; do
    check "make --arch and --attn $wrong" error 2 -- make $T/o.gguf --shape tiny \
        --arch ${wrong% *} --attn ${wrong#* }
done
for shape in ffn=0 heads=4/3 heads=4/ heads=4//2 d=64/32; do
    check "make --shape '$shape'" error 2 -- make $T/o.gguf --shape "$shape"
done
check "make without shape" error 2 shape make $T/o.gguf
check "make without OUT" error 2 OUT make --shape tiny
check "make: two OUT" error 2 OUT make $T/o.gguf $T/p.gguf --shape tiny
check "make --type" error 2 'Q4_0.*MXFP4' make $T/o.gguf --shape tiny --type Q9
check "make: no such folder" error 1 nowhere make $T/nowhere/o.gguf --shape tiny

# --- quantize: every type to every type's file ---
for type in $TYPES; do
    f=$T/q.$type.gguf
    check "quantize $type" silent quantize $T/m.F32.gguf $f $type
    check "quantize $type: the line" grep -q "^$f: .*iB, was 5.5" $T/out
    check "quantize $type: it runs" silent run $f -n 3
    check "quantize $type: the type" [ "$(tensor_type $f token_embd.weight)" = $type ]
    check "quantize $type: norms" [ "$(tensor_type $f output_norm.weight)" = F32 ]
    check "quantize $type: file_type" [ "$(key $f general.file_type)" = \
        "$(key $T/m.$type.gguf general.file_type)" ]
    check "quantize $type: the size" [ $(wc -c <$f) = $(wc -c <$T/m.$type.gguf) ]
done
check "quantize: quantization_version" [ "$(key $T/q.Q4_K.gguf general.quantization_version)" = 2 ]
check "quantize: other keys unchanged" pipe "
    for f in m.F32 q.Q4_K; do
        flash info $T/\$f.gguf | sed -n '/^keys/,\$p' | grep -vE 'file_type|quantization_version' |
            sort >$T/\$f.keys
    done; cmp -s $T/m.F32.keys $T/q.Q4_K.keys && [ -s $T/q.Q4_K.keys ]"
check "quantize F32 to F32: the weights" pipe "
    tail -c 1000000 $T/m.F32.gguf >$T/a; tail -c 1000000 $T/q.F32.gguf | cmp -s - $T/a"
check "quantize: the type it has" pipe "
    tail -c 300000 $T/q.Q4_K.gguf >$T/a
    silent quantize $T/q.Q4_K.gguf $T/o.gguf Q4_K && tail -c 300000 $T/o.gguf | cmp -s - $T/a"
for m in tests/data/*.gguf; do # from every type, with both tokenizers, tied and not
    n=$(basename $m .gguf)
    check "quantize $n" exits 0 quantize $m $T/o.gguf q8_0
    check "quantize $n: it runs" silent run $T/o.gguf -n 3
done

# --- rows that do not fit, and tensors to keep ---
flash make $T/odd.gguf --type F32 --shape d=96,heads=6,kv=3,head=16,ffn=172,vocab=400
check "rows that do not fit" exits 0 quantize $T/odd.gguf $T/o.gguf q4_k
check "are reported in a line each type" [ "$(grep -c '' $T/err)" = 2 ]
check "with name, wanted, used: F16" grep -qx 'flash quantize: 2 tensors, first blk\.0\.ffn_down\.weight (rows of 172): Q4_K wanted, F16 used' $T/err
check "with name, wanted, used: Q8_0" grep -qx 'flash quantize: 14 tensors, first token_embd\.weight (rows of 96): Q4_K wanted, Q8_0 used' $T/err
check "rows of 172 are F16" [ "$(tensor_type $T/o.gguf blk.0.ffn_down.weight)" = F16 ]
check "rows of 96 are Q8_0" [ "$(tensor_type $T/o.gguf blk.0.ffn_up.weight)" = Q8_0 ]
check "the rest runs" silent run $T/o.gguf -n 3
if flash quantize $T/m.F32.gguf $T/o.gguf Q4_0 --keep x >$T/out 2>$T/err ||
    ! grep -q 'no POSIX' $T/err; then
    check "--keep" silent quantize $T/m.F32.gguf $T/o.gguf Q4_0 --keep '^output|ffn_(up|gate)'
    check "--keep: kept" [ "$(tensor_type $T/o.gguf blk.0.ffn_up.weight)" = F32 ]
    check "--keep: kept" [ "$(tensor_type $T/o.gguf output.weight)" = F32 ]
    check "--keep: not kept" [ "$(tensor_type $T/o.gguf blk.0.attn_output.weight)" = Q4_0 ]
    check "--keep: no expression" error 2 '--keep' quantize $M $T/o.gguf Q4_0 --keep '('
else
    echo "skip: --keep (no POSIX regular expressions)"
    skipped=$((skipped + 1))
fi

# --- refused ---
cp $M $T/in.gguf
ln $T/in.gguf $T/link.gguf
check "OUT is IN" error 2 'OUT is IN' quantize $T/in.gguf $T/in.gguf Q8_0
check "OUT is IN by another name" error 2 'OUT is IN' quantize $T/in.gguf $T/../quantize/in.gguf Q8_0
check "OUT is IN by a link" error 2 'OUT is IN' quantize $T/in.gguf $T/link.gguf Q8_0
check "IN is as it was" cmp -s $M $T/in.gguf
for type in MXFP4 Q9 Q8_1 unknown ''; do
    check "type '$type'" error 2 'F32, F16, Q4_0.*Q2_K' quantize $M $T/o.gguf "$type"
done
check "no type" error 2 TYPE quantize $M $T/o.gguf
check "nothing" error 2 IN quantize
check "one too many" error 2 more quantize $M $T/o.gguf Q8_0 more
check "no such file" error 1 nowhere quantize $T/nowhere $T/o.gguf Q8_0
check "a text" error 1 flash.h quantize flash.h $T/o.gguf Q8_0
head -c $(($(wc -c <$M) - 100)) $M >$T/cut.gguf
check "a cut download" error 1 ends quantize $T/cut.gguf $T/o.gguf Q8_0
check "no such folder" error 1 nowhere quantize $M $T/nowhere/o.gguf Q8_0
check "a full device" pipe "[ ! -w /dev/full ] || { ln -sf /dev/full $T/p.gguf.part &&
    ! flash quantize $M $T/p.gguf Q8_0 2>$T/err && [ ! -e $T/p.gguf ] && [ -s $T/err ]; }"

# --- Ctrl-C: nothing is left, and what was there stays ---
echo old >$T/o.gguf
$RUN $B/flash make $T/o.gguf --shape llama3.2-1b >$T/out 2>$T/err &
pid=$!
sleep 1
check "a part while it runs" [ -e $T/o.gguf.part ]
kill -INT $pid
wait $pid
check "stopped" [ $? = 130 ]
check "nothing left" nothing_left
check "the old file stays" [ "$(cat $T/o.gguf)" = old ]

# --- a real model ---
G=$S/models/stories260K.gguf
if [ -r "$G" ]; then
    check "stories260K as Q8_0" exits 0 quantize "$G" $T/s.gguf Q8_0
    check "stories260K: what does not fit" grep -q '(rows of 172): Q8_0 wanted, F16 used$' $T/err
    text=$S/text/tinystories-197KB.txt
    loss() { head -c 12000 "$text" | flash perplexity "$1" -f - -c 256 | awk '{ print $2 }'; }
    check "stories260K: perplexity within 0.1 %" pipe "echo $(loss "$G") $(loss $T/s.gguf) |
        awk '{ exit !(\$1 > 1 && \$2 < \$1 * 1.001 && \$2 > \$1 * 0.999) }'"
else
    echo "skip: stories260K ($G)"
    skipped=$((skipped + 1))
fi

echo "test_quantize_cli: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
