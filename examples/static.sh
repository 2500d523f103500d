#!/bin/sh
# chat.c as one static, stripped binary for any Linux of this processor: what it weighs with all
# instruction sets and with none, and that both say the same. Called by `make chat-static`.
B=${B:-build}
BAR=400000
mkdir -p $B
failed=0
for sets in all none; do
    o=$B/chat-static
    [ $sets = all ] || o=$o-scalar
    ${MUSL_CC:-musl-gcc} -std=c99 -Os -I. $([ $sets = all ] || echo -DFLASH_NO_SIMD) \
        -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -Wl,--gc-sections \
        -static -s examples/chat.c -o $o -lm || exit 1
    n=$(wc -c <$o)
    echo "$o: $n of at most $BAR bytes"
    [ $n -le $BAR ] || failed=1
    echo 'One day, a little dog' | $o examples/models/tale.gguf >$o.txt || failed=1
done
cat $B/chat-static.txt
cmp $B/chat-static.txt $B/chat-static-scalar.txt && [ $failed = 0 ]
