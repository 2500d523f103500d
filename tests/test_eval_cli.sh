#!/bin/sh
# flash eval from outside: against flash perplexity and sums over flash probs; items; messages.
. "$(dirname "$0")/cli.sh"
W=$T/w.gguf
flash quantize $M $W Q4_0 >/dev/null 2>&1
text='The cat sat on the mat, and 3 dogs ran.'
printf %s "$text" >$T/text
number() { sed -n "s/.*$1 \\([-0-9.]*\\) .*/\\1/p" $T/out | head -1; } # WORD: the number after it
close() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && b != "" && a - b < 1.5e-4 && b - a < 1.5e-4) }'; }

# --- text ---
check "a text" silent eval $M --text $T/text --reference $W -c 100
loss=$(number loss) kl=$(number KL) more=$(number difference)
check "its loss is that of perplexity" close "$loss" \
    "$(flash perplexity $M -f $T/text -c 100 | sed 's/.*loss \([0-9.]*\) .*/\1/')"
for m in $M $W; do
    flash probs $m --tokens "$(flash tokenize $M -f $T/text)" --top 300
done >$T/probs
# lines: position, token, then 300 pairs; first those of M, then of W
sed 's/"[a-z]*"//g' $T/probs | tr -cs '0-9.e\n-' ' ' | awk -v ids="$(flash tokenize $M -f $T/text)" '
    { pos = $1 }
    pos in seen { second = 1 }
    { if (!second) seen[pos]; for (i = 3; i < NF; i += 2) p[second + 0, pos, $i] = $(i + 1) }
    END {
        n = split(ids, id, " ")
        for (pos = 0; pos < n - 1; pos++) {
            loss[0] -= log(p[0, pos, id[pos + 2]]); loss[1] -= log(p[1, pos, id[pos + 2]])
            for (i = 0; i < 300; i++) kl += p[1, pos, i] * log(p[1, pos, i] / p[0, pos, i])
        }
        printf "%.4f %.4f %.4f\n", loss[0] / (n - 1), (loss[0] - loss[1]) / (n - 1), kl / (n - 1)
    }' >$T/want
check "the loss from probabilities" close "$loss" "$(cut -d' ' -f1 $T/want)"
check "the difference" close "$more" "$(cut -d' ' -f2 $T/want)"
check "KL" close "$kl" "$(cut -d' ' -f3 $T/want)"
check "bits a byte" pipe "awk -v l=$loss -v b=\$(sed -n 's/.*, \([0-9.]*\) bits.*/\1/p;q' $T/out) -v n=\$(sed -n 's/.*(\([0-9]*\) tok.*/\1/p;q' $T/out) \
    'BEGIN { d = l * n / log(2) / ${#text} - b; exit !(d < 2e-3 && d > -2e-3) }'"
check "several windows" silent eval $M --text $T/text -c 16
check "several windows: the loss is that of perplexity" close "$(number loss)" \
    "$(flash perplexity $M -f $T/text -c 16 | sed 's/.*loss \([0-9.]*\) .*/\1/')"
check "several windows: an error" pipe "number '+-' | grep -q '^0*[.0-9]*[1-9]'"
check "against itself" silent eval $M --text $T/text --reference $M
check "against itself: nothing" grep -q 'difference 0.0000 .*KL -*0.0000 .*choice 100.00' $T/out
check "standard input" pipe "flash eval $M --text - <$T/text >$T/out && close $loss \$(number loss)"

# --- items: what the model itself writes is right, what it never writes is not ---
best=$(flash run $M -p 'The cat' -n 1 --temp 0)
{
    for gold in 0 1 2 3; do
        echo "The cat"
        echo $gold
        for c in 0 1 2 3; do
            if [ $c = 2 ]; then echo x; else echo "zqjx vkzq $c wwqk zzj"; fi
        done
    done
} >$T/items
check "endings" silent eval $M --hellaswag $T/items
check "endings: the shortest of them has the least loss" grep -q ' 4 items, accuracy 25.00 +- 25.00 %' $T/out
check "endings, fewer" silent eval $M --hellaswag $T/items --items 2 --reference $W
check "endings, fewer: so many" grep -q ': 2 items' $T/out
check "endings: differences" grep -q 'difference on the same items, accuracy' $T/out
# Losses by flash probs: xx 15.81, éé 16.61, zqj 23.43, zqjx 29.07, zqjxvkzqwwqk 74.47. By character
# the last is the least, 6.21; by byte it were éé, with the space before an ending counted xx.
for second in éé zqj; do
    printf 'The cat\n3\nxx\n%s\nzqjx\nzqjxvkzqwwqk\n' $second >$T/lengths
    check "by characters: $second" silent eval $M --hellaswag $T/lengths
    check "by characters: $second: right" grep -q 'accuracy 0.00 .*, by characters 100.00 ' $T/out
done
# a text whose last word is the likeliest: the first token after "a b" that is a word by itself
flash make $T/v.gguf --shape d=32,layers=1,heads=2,kv=1,ffn=32,vocab=300,ctx=32 --type F32 >/dev/null
i=0
while [ $i -lt 26 ]; do
    word=$(printf "\\$(printf %o $((97 + i)))")
    echo "{\"text\": \"a b $word\"}"
    i=$((i + 1))
done >$T/words
check "last words" silent eval $T/v.gguf --lambada $T/words
check "last words: one at most is right" grep -Eq '26 items, accuracy (0.00|3.85) ' $T/out
flash tokenize $T/v.gguf >$T/ids <<X
a b
X
check "last words: their loss" grep -q 'nats a word' $T/out
check "long texts" exits 0 eval $T/v.gguf --lambada $T/words -c 3
check "long texts: said" grep -q '26 texts lost their beginning' $T/err

# --- refused ---
check "nothing to do" error 2 'one of' eval $M
check "two things to do" error 2 'one of' eval $M --text $T/text --lambada $T/words
check "no such text" error 1 nowhere eval $M --text $T/nowhere
: >$T/empty
check "an empty text" error 1 'too short' eval $M --text $T/empty
check "an empty file of items" error 1 'no items' eval $M --hellaswag $T/empty
check "an empty file of words" error 1 'no items' eval $M --lambada $T/empty
head -10 $T/items >$T/cut
check "a cut item" error 1 'lines 7 to 12' eval $M --hellaswag $T/cut
sed 's/^2$/5/' $T/items >$T/cut
check "a number that is none" error 1 'lines 13 to 18' eval $M --hellaswag $T/cut
check "no JSON" error 1 'line 1 ' eval $M --lambada $T/items
echo '{"text": "word"}' >$T/cut
check "one word" error 1 'several words' eval $M --lambada $T/cut
sed 's/<extra_296>/<extra_2z6>/' $M >$T/tokens.gguf
check "other tokens" error 1 'token 296 is "<extra_296>" in .*, "<extra_2z6>" in .*cannot be compared' \
    eval $M --text $T/text --reference $T/tokens.gguf
check "another vocabulary" error 1 'cannot be compared' eval $M --text $T/text --reference tests/data/f16-bpe.gguf
if here "LAMBADA" $S/eval/lambada_test.jsonl && here "a model" $S/models/stories260K.gguf; then
    check "LAMBADA" silent eval $S/models/stories260K.gguf --lambada $S/eval/lambada_test.jsonl --items 20
fi
if here "HellaSwag" $S/eval/hellaswag_val_full.txt.bz2 && here "a model" $S/models/stories260K.gguf; then
    if command -v bunzip2 >/dev/null; then
        bunzip2 -c $S/eval/hellaswag_val_full.txt.bz2 >$T/hellaswag
        check "HellaSwag" silent eval $S/models/stories260K.gguf --hellaswag $T/hellaswag --items 8 --reference $S/models/stories260K.gguf
        check "HellaSwag: so many" grep -q ': 8 items, accuracy [0-9.]* +- [0-9.]* %, by characters [0-9.]* +- [0-9.]* %$' $T/out
        check "HellaSwag: no difference" grep -q 'same items, accuracy 0.00 +- 0.00 %, by characters 0.00 +- 0.00 %' $T/out
    else
        skip "HellaSwag" "no bunzip2"
    fi
fi
finish
