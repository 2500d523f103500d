#!/bin/sh
# flash vocab from outside: what is learned, that texts come back, messages.
. "$(dirname "$0")/cli.sh"
D=$T/text
V=$T/v.gguf
learn() { silent vocab --text $D --size $1 -o $V; } # SIZE
ids() { printf %s "$1" | flash tokenize $V --no-bos; } # TEXT

# "low" 5, "lower" 2, "newest" 6, "widest" 3 times: the first merges of Sennrich et al. 2016, table
# in 3.2, are es, est, lo, low; here words have their space, and pairs of equal counts go by age
for w in low low low low low lower lower newest newest newest newest newest newest widest widest widest
do printf ' %s' $w; done >$D
check "learns" learn 280
flash info $V >$T/out 2>$T/err
check "the file says what it is" grep -q llama $T/out
check "the most frequent words are tokens" [ "$(ids 'low newest' | wc -w)" -le 4 ]
check "and rare ones are not" [ "$(ids 'wider' | wc -w)" -ge 3 ]
for text in 'low' ' low  lower ' 'a Zebra, 12%%' 'na\303\257ve \360\237\230\200' '  tab\tline\n\nend\n'; do
    printf "$text" >$T/in
    check "comes back: $text" pipe "flash tokenize $V -f $T/in >$T/ids 2>$T/err &&
        flash tokenize $V --decode -f $T/ids 2>$T/err | cmp -s - $T/in"
done
check "again the same" pipe "cp $V $T/w.gguf && learn 280 && cmp -s $V $T/w.gguf"
cp README.md $D
check "a real text" learn 700
check "a real text: comes back" pipe "flash tokenize $V -f $D >$T/ids && flash tokenize $V --decode -f $T/ids |
    cmp -s - $D"
check "a real text: shorter than its bytes" pipe '[ $(wc -w <$T/ids) -lt $(($(wc -c <$D) * 2 / 3)) ]'
check "texts are parted" pipe "{ cat $D; printf '<|endoftext|>'; cat $D; } | flash vocab --text - --size 700 -o $O \
    >$T/out && flash tokenize $O --decode <$T/ids >/dev/null"
check "several files" silent vocab --text $D $D --size 700 -o $O
check "the control tokens are none of it" pipe "! flash info $O | grep -q endoftext"

check "too many for the text" error 1 'ask for fewer' vocab --text $D --size 60000 -o $O
check "no text" error 2 '--text' vocab --size 300 -o $O
check "no OUT" error 2 '-o' vocab --text $D
check "too few" error 2 'from 260' vocab --text $D --size 259 -o $O
check "no such file" error 1 nowhere vocab --text $T/nowhere -o $O
check "an empty file" pipe ": >$T/empty; error 1 empty vocab --text $T/empty -o $O"
check "a model" error 1 'no text' vocab --text $M -o $O
check "OUT is a text" error 2 'OUT is' vocab --text $D -o $D
check "no such folder" error 1 nowhere vocab --text $D --size 300 -o $T/nowhere/o
finish
