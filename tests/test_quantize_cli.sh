#!/bin/sh
# flash quantize and flash make from outside: files that run, types, keys, messages, what is left
# behind.
. "$(dirname "$0")/cli.sh"
TYPES='F32 F16 BF16 Q8_0 Q6_K Q5_K Q5_1 Q5_0 Q4_K Q4_1 Q4_0 IQ4_NL IQ4_XS Q3_K Q2_K'
[ -z "$FLASH_QUICK" ] || TYPES='F32 F16 Q8_0 Q5_0 Q4_K Q4_0'

tensor_type() # FILE NAME: prints its type
{
    flash info $1 --tensors | awk -v name="$2" '$NF == name { print $1 }'
}

# --- make ---
for type in $TYPES MXFP4; do
    f=$T/m.$type.gguf
    check "make $type" silent make $f --shape tiny --type $type
    check "make $type: it runs" silent run $f -n 3
    check "make $type: the type" [ "$(tensor_type $f blk.1.ffn_down.weight)" = $type ]
    check "make $type: norms" [ "$(tensor_type $f blk.1.ffn_norm.weight)" = F32 ]
done
f=$T/m.Q4_0.gguf
check "make: seed 1 by default" pipe "flash make $O --shape tiny --seed 1 && cmp -s $f $O"
check "make: another seed" pipe "flash make $O --shape tiny --seed 2 && ! cmp -s $f $O"
check "make: the size is that of the types" pipe "[ $(wc -c <$T/m.Q5_0.gguf) -gt $(wc -c <$f) ]"
check "make: a folder is there" error 1 'not a file' make $T --shape tiny
check "make: replaces a file" silent make $O --shape tiny --type F16
check "make: no head of its own" pipe "[ -n '$(tensor_type $f output.weight)' ] &&
    silent make $O --shape tiny --tied && [ -z \"\$(tensor_type $O output.weight)\" ]"
check "make: a shape in full" silent make $O --type Q4_K \
    --shape d=96,layers=3,heads=6,kv=3,head=16,ffn=172,vocab=400,ctx=128
check "make: it is that" pipe "flash info $O | grep -qF \
    '3 layers, d_model 96, 6 heads of 16, 3 of keys and values, d_ffn 172, vocabulary 400, context 128'"
check "make: rows of 96 are Q8_0" [ "$(tensor_type $O blk.0.ffn_up.weight)" = Q8_0 ]
check "make: rows of 172 are F16" [ "$(tensor_type $O blk.0.ffn_down.weight)" = F16 ]
check "make: it runs" silent run $O -n 3
check "make: words come back" pipe "printf 'the tree, \303\251\n' >$T/a
    flash tokenize $f -f $T/a | flash tokenize $f --decode | cmp -s - $T/a"
for shape in huge '' d d= d=x d=0 =5 d=64, d=64,x=1 d=64=3 heads=4,kv=3 head=7 layers=9999 vocab=10; do
    check "make --shape '$shape'" error 2 -- make $O --shape "$shape"
done
while read -r arch attn absent there; do
    check "make $arch" silent make $O --shape tiny --arch $arch --attn $attn
    check "make $arch: its name" pipe "flash info $O | grep -qx 'architecture  $arch'"
    check "make $arch: no $absent" [ -z "$(tensor_type $O $absent)" ]
    check "make $arch: $there" [ -n "$(tensor_type $O $there)" ]
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
    check "make --arch and --attn $wrong" error 2 -- make $O --shape tiny \
        --arch ${wrong% *} --attn ${wrong#* }
done
for shape in ffn=0 heads=4/3 heads=4/ heads=4//2 d=64/32; do
    check "make --shape '$shape'" error 2 -- make $O --shape "$shape"
done
check "make without shape" error 2 shape make $O
check "make without OUT" error 2 OUT make --shape tiny
check "make: two OUT" error 2 OUT make $O $T/p.gguf --shape tiny
check "make --type" error 2 'Q4_0.*MXFP4' make $O --shape tiny --type Q9
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
    silent quantize $T/q.Q4_K.gguf $O Q4_K && tail -c 300000 $O | cmp -s - $T/a"
for m in tests/data/*.gguf; do # from every type, with both tokenizers, tied and not
    n=$(basename $m .gguf)
    check "quantize $n" exits 0 quantize $m $O q8_0
    check "quantize $n: it runs" silent run $O -n 3
done

# --- rows that do not fit, and tensors to keep ---
flash make $T/odd.gguf --type F32 --shape d=96,heads=6,kv=3,head=16,ffn=172,vocab=400
check "rows that do not fit" exits 0 quantize $T/odd.gguf $O q4_k
check "are reported in a line each type" [ "$(grep -c '' $T/err)" = 2 ]
check "with name, wanted, used: F16" grep -qx 'flash quantize: 2 tensors, first blk\.0\.ffn_down\.weight (rows of 172): Q4_K wanted, F16 used' $T/err
check "with name, wanted, used: Q8_0" grep -qx 'flash quantize: 14 tensors, first token_embd\.weight (rows of 96): Q4_K wanted, Q8_0 used' $T/err
check "rows of 172 are F16" [ "$(tensor_type $O blk.0.ffn_down.weight)" = F16 ]
check "rows of 96 are Q8_0" [ "$(tensor_type $O blk.0.ffn_up.weight)" = Q8_0 ]
check "the rest runs" silent run $O -n 3
if flash quantize $T/m.F32.gguf $O Q4_0 --keep x >$T/out 2>$T/err ||
    ! grep -q 'no POSIX' $T/err; then
    check "--keep" silent quantize $T/m.F32.gguf $O Q4_0 --keep '^output|ffn_(up|gate)'
    check "--keep: kept" [ "$(tensor_type $O blk.0.ffn_up.weight)" = F32 ]
    check "--keep: kept" [ "$(tensor_type $O output.weight)" = F32 ]
    check "--keep: not kept" [ "$(tensor_type $O blk.0.attn_output.weight)" = Q4_0 ]
    check "--keep: no expression" error 2 '--keep' quantize $M $O Q4_0 --keep '('
else
    skip --keep "no POSIX regular expressions"
fi

# --- refused ---
refuses $T/m.F32.gguf quantize Q8_0
for type in MXFP4 Q9 Q8_1 unknown ''; do
    check "type '$type'" error 2 'F32, F16, Q4_0.*Q2_K' quantize $M $O "$type"
done
check "no type" error 2 TYPE quantize $M $O
check "one too many" error 2 more quantize $M $O Q8_0 more

# --- Ctrl-C: nothing is left, and what was there stays ---
echo old >$O
start make $O --shape llama3.2-1b
i=0
while [ ! -e $O.part ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
check "a part while it runs" [ -e $O.part ]
check "stopped" stopped
check "nothing left" nothing_left
check "the old file stays" [ "$(cat $O)" = old ]

# --- a real model ---
G=$S/models/stories260K.gguf
if here stories260K "$G"; then
    check "stories260K as Q8_0" exits 0 quantize "$G" $T/s.gguf Q8_0
    check "stories260K: what does not fit" grep -q '(rows of 172): Q8_0 wanted, F16 used$' $T/err
    text=$S/text/tinystories-197KB.txt
    loss() { head -c 12000 "$text" | flash perplexity "$1" -f - -c 256 | awk '{ print $2 }'; }
    check "stories260K: perplexity within 0.1 %" pipe "echo $(loss "$G") $(loss $T/s.gguf) |
        awk '{ exit !(\$1 > 1 && \$2 < \$1 * 1.001 && \$2 > \$1 * 0.999) }'"
fi

finish
