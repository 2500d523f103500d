#!/bin/sh
# The command line from outside: exit codes, messages, text.
. "$(dirname "$0")/cli.sh"

sums() # N FILE: N lines of probs that fall, and sum to 1
{
    awk -F'[][,:}]+' -v n="$1" '
        { sum = 0
          for (i = 7; i < NF; i += 2) { sum += $i; bad += i > 7 && $i > $(i - 2) }
          bad += sum < 0.999999 || sum > 1.000001 }
        END { exit bad || NR != n }' "$2"
}

# --- help and usage ---
check "help" silent help
check "--help" silent --help
check "no command" exits 2
check "no command: usage on stderr" [ -s $T/err ]
check "unknown command" exits 2 frobnicate
check "unknown command is named" grep -q frobnicate $T/err
check "--version" silent --version
models=0
version=$(sed -n 's/^\/\* flash\.h - v\([0-9.]*\).*/\1/p' flash.h)
check "--version: $version" grep -qF "$version" $T/out
for c in $(flash help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    check "$c --help" silent $c --help
    check "$c --help: usage first" pipe "head -1 $T/out | grep -q '^usage: flash $c '"
    cp $T/out $T/help
    check "help $c" silent help $c
    check "help $c = $c --help" cmp -s $T/out $T/help
    grep -q "^usage: flash $c MODEL" $T/help || continue # has other arguments, and a test of its own
    models=$((models + 1))
    check "$c: no model" error 2 MODEL $c
    check "$c: unknown option" error 2 '--frob' $c $M --frob
    check "$c: two models" error 2 MODEL $c $M $M
    case $c in
    probs) more="--tokens 1" ;;
    perplexity) more="-f $0" ;;
    eval) more="--text $0" ;;
    calibrate) more="--text $0 -o $T/calibration" ;;
    *) more= ;;
    esac
    check "$c: no such file" error 1 nowhere.gguf $c $T/nowhere.gguf $more
    check "$c: a folder" error 1 $T $c $T $more
    check "$c: a text" error 1 flash.h $c flash.h $more
done
check "commands found" [ $models -ge 5 ]

# --- numbers in options ---
for bad in '-n 0' '-n -1' '-n x' '-n 5x' '-n' '-n 99999999999999999999' '-c 2000000' '-t 0' \
    '--temp hot' '--temp -1' '--temp nan' '--top-p 1.5' '--top-k 1.5' '--min-p 2' \
    '--typical -1' '--seed -1' '--seed 18446744073709551616' '--repeat-penalty 0' '--isa z80'; do
    check "run $bad" error 2 "${bad%% *}" run $M $bad
done
check "seed up to 2^64-1" exits 0 run $M -n 1 --seed 18446744073709551615
check "-p and -f" error 2 '-f' run $M -p x -f $0
check "probs without tokens" error 2 '--tokens' probs $M
check "probs: no number" error 1 '"x"' probs $M --tokens 1,x
check "probs: negative" error 1 '"-2"' probs $M --tokens 1,-2
check "probs: outside the vocabulary" error 1 99999 probs $M --tokens 1,99999
check "perplexity without file" error 2 '-f' perplexity $M
check "perplexity: empty file" error 1 'too short' perplexity $M -f /dev/null
check "run: no prompt file" error 1 nowhere run $M -f $T/nowhere
check "run: the context is too small" error 1 '-c' run $M -c 4 -f $0
check "run: nothing to begin with" error 1 '-p' run $M --no-bos

# --- every small model: info, run, tokenize, probs ---
printf 'Once upon a time,\n  \303\251t\303\251 \360\237\220\261 and\ta "tree"; 12 = \344\270\255' \
    >$T/text
printf 'the tree and the river' >$T/words
for m in tests/data/*.gguf; do
    here models "$m" || continue
    n=$(basename $m .gguf)
    check "$n: info" silent info $m --tensors -c 64
    check "$n: info says yes" grep -q '^runs *yes' $T/out
    check "$n: run" silent run $m -n 16
    cp $T/out $T/default
    check "$n: run, scalar" silent run $m -n 16 --isa scalar -t 3
    check "$n: same text" cmp -s $T/default $T/out
    text=$T/text
    flash info $m | grep -q '^tokenizer .* 160 tokens' && text=$T/words # these have no byte tokens
    check "$n: tokenize" silent tokenize $m -f $text
    check "$n: ids on one line" pipe "lines 1 $T/out && grep -qxE '[0-9]+( [0-9]+)*' $T/out"
    check "$n: and back" pipe "flash tokenize $m --decode <$T/out | cmp -s - $text"
    check "$n: probs" silent probs $m --tokens 1,5,7,9 --top 100000
    check "$n: probs sum to 1, best first" sums 4 $T/out
done
check "probs: the line" grep -qE \
    '^\{"pos":3,"token":9,"top":\[(\[[0-9]+,[0-9.e-]+\],)+\[[0-9]+,[0-9.e-]+\]\]\}$' $T/out
check "probs: 20 of them" pipe "flash probs $M --tokens 1,5 | awk -F'[[]' 'NF != 22 { exit 1 }'"

# --- choosing tokens ---
check "run writes" pipe "silent run $M -n 16 && [ -s $T/out ]"
seeded()
{
    flash run $M -n 60 --temp 1.5 --top-k 200 --top-p 0.99 --min-p 0.001 --typical 0.99 --seed $1
}
check "a seed, twice" pipe "seeded 7 >$T/a; seeded 7 >$T/b; [ -s $T/a ] && cmp -s $T/a $T/b"
check "another seed" pipe "seeded 8 >$T/b; ! cmp -s $T/a $T/b"
flash run $M -n 40 >$T/a
check "--repeat-penalty" silent run $M -n 40 --repeat-penalty 1.5
check "changes the text" pipe "! cmp -s $T/out $T/a"
check "a prompt" silent run $M -p 'Once upon' -n 9
cp $T/out $T/a
{ printf 'Once upon'; cat $T/a; } >$T/b
check "with --echo" silent run $M -p 'Once upon' -n 9 --echo
check "writes it, too" cmp $T/out $T/b
check "a prompt from a file" pipe "printf 'Once upon' | flash run $M -f - -n 9 | cmp -s - $T/a"
check "another prompt" silent run $M -p 'Twice a day' -n 9
check "has another text" pipe "! cmp -s $T/out $T/a"
check "no BOS" silent run $M -p 'Once upon' -n 9 --no-bos
check "has another text, too" pipe "! cmp -s $T/out $T/a"
check "a full context ends the text" silent run $M -c 8
check "no room on the device" pipe "[ ! -w /dev/full ] || ! flash info $M >/dev/full 2>$T/err"

# --- tokenize ---
check "tokenize --no-bos: all but the first" pipe "flash tokenize $M <$T/text | cut -d' ' -f2- >$T/a
    flash tokenize $M --no-bos <$T/text | cmp -s - $T/a"
check "decode reads commas" pipe "tr ' ' , <$T/a | flash tokenize $M --decode | cmp -s - $T/text"
check "tokenize nothing: BOS" pipe "[ \"\$(flash tokenize $M </dev/null)\" = 1 ]"
echo 1 >$T/a
check "decode --special shows BOS" silent tokenize $M --decode --special -f $T/a
check "as <s>" grep -qx '<s>' $T/out
check "decode hides it without" pipe "silent tokenize $M --decode -f $T/a && [ ! -s $T/out ]"

# --- a pre-tokenizer nobody knows ---
sed 's/llama-bpe/lama2-bpe/' tests/data/f16-bpe.gguf >$T/unknown.gguf
check "an unknown pre-tokenizer is named" error 1 lama2-bpe tokenize $T/unknown.gguf
check "--any-pretokenizer" exits 0 tokenize $T/unknown.gguf --any-pretokenizer -f $T/words
check "warns" pipe "lines 1 $T/err && grep -q '^flash tokenize: warning: .*lama2-bpe' $T/err"
check "info tells of it" silent info $T/unknown.gguf
check "as the reason" grep -q '^runs *no: .*lama2-bpe' $T/out

# --- perplexity: the same from probs, for windows of 32 tokens that begin with BOS ---
perplexity_of_probs() # FILE
{
    flash tokenize $M --no-bos -f $1 | tr ' ' '\n' | awk -v bos="$(flash tokenize $M </dev/null)" '
        NR % 31 == 1 { if (NR > 1) print ""; printf "%d", bos }
        { printf ",%d", $1 }
        END { print "" }' | while read -r ids; do
        flash probs $M --top 100000 --tokens $ids
    done | awk -F'[][,:}]+' '
        # the token of a line is what the line before it predicts
        { if ($2 > 0) { loss = -log(p[$4]); n++; sum += loss; squares += loss * loss }
          split("", p)
          for (i = 6; i < NF; i += 2) p[$i] = $(i + 1) }
        END { mean = sum / n; e = sqrt((squares / n - mean * mean) / (n - 1))
              printf "perplexity %.3f +- %.3f (mean loss %.4f +- %.4f nats over %d tokens)\n",
                  exp(mean), exp(mean) * e, mean, e, n }'
}
near() # FILE FILE: the same numbers to 3e-4 of their size or the last digit, and the same words
{
    paste -d ' ' $1 $2 | awk '
        { half = NF / 2
          for (i = 1; i <= half; i++) {
              a = $i; b = $(i + half); gsub(/[()]/, "", a); gsub(/[()]/, "", b)
              d = a - b; if (d < 0) d = -d
              if (a + 0 == 0 ? a != b : d > 3e-4 * a + 0.0011) bad++
          } }
        END { exit bad || NR != 1 || NF != 26 }'
}
head -c 300 flash.h >$T/prose
check "perplexity" silent perplexity $M -f $T/prose -c 32
check "perplexity: the line" grep -qxE \
    'perplexity [0-9.]+ \+- [0-9.]+ \(mean loss [0-9.]+ \+- [0-9.]+ nats over [0-9]+ tokens\)' \
    $T/out
cp $T/out $T/a
perplexity_of_probs $T/prose >$T/b
check "perplexity = that of probs" near $T/a $T/b
check "perplexity of standard input" pipe \
    "flash perplexity $M -f - -c 32 -t 2 --isa scalar <$T/prose | cmp -s - $T/a"
check "perplexity of other windows" silent perplexity $M -f $T/prose -c 16
check "is another number" pipe "! near $T/a $T/out"

# --- Ctrl-C: in the prompt and in the text; exit 130, what was written stays ---
interrupted() { start run "$@"; sleep 2; stopped && [ ! -s $T/err ]; }
i=0
while [ $i -lt 3000 ]; do i=$((i + 1)); echo "the tree and the river $i"; done >$T/long
check "Ctrl-C in the prompt" interrupted $M -f $T/long -c 100000
check "nothing written then" [ ! -s $T/out ]
check "Ctrl-C in the text" interrupted $M -c 100000
check "what was written stays" [ -s $T/out ]

# --- files that are no model that runs ---
for f in "$S"/gguf-quirks/*.* "$S"/gguf-quirks/*/*.gguf "$S"/gguf-quirks/*/*/*.gguf \
    "$S"/tokenizers/*.gguf "$S"/quant/devstral-slice/slice.gguf; do
    n=$(basename "$f")
    here "info of $n" "$f" || continue
    case $(od -An -tx1 -N8 "$f" | tr -d ' \n') in
    4747554602000000 | 4747554603000000)
        check "info of $n" silent info "$f" --tensors
        check "info of $n: why it does not run" grep -qE '^runs +no: .{10}' $T/out
        check "info of $n: keys" grep -qE '^  general\.architecture = ' $T/out
        ;;
    *)
        check "info of $n" error 1 . info "$f"
        ;;
    esac
done
n=quant/devstral-slice/slice_corrupt.gguf
here $n "$S/$n" && check $n error 1 . info "$S/$n"
head -c 5000 $M >$T/short.gguf
check "info of half a header" error 1 . info $T/short.gguf
head -c $(($(wc -c <$M) - 100)) $M >$T/cut.gguf
check "info of a cut download" silent info $T/cut.gguf
check "info of a cut download: why it does not run" grep -q '^runs *no: .*end' $T/out
check "run of a cut download" error 1 . run $T/cut.gguf
check "run of half a file" error 1 . run $T/short.gguf

# --- the model that comes with it ---
N=120
[ -z "$FLASH_QUICK" ] || N=30
G=examples/models/tale.gguf
check "tale" silent run $G --temp 0 -n $N
cp $T/out $T/tale
check "tale: the golden text" pipe "head -c $(wc -c <$T/tale) tests/golden/tale.txt | cmp -s - $T/tale"
check "tale: a text of some length" [ $(wc -c <$T/tale) -ge $((N * 2)) ]
check "tale: stories end by themselves" pipe "flash run $G --temp 0.6 --top-p 0.9 --seed 2 | tail -c 2 | grep -q '[.!]'"

check "tale: words stay apart after a prompt" pipe \
    "flash run $G --temp 0 -n 2 --echo -p 'One day, a little dog' | grep -qx 'One day, a little dog named Max'"
# --- a session in a file ---
K="--temp 0.9 --seed 3 --session $T/session"
flash run $G -p 'One day' -n 40 --temp 0.9 --seed 3 >$T/a
check "--session writes it" silent run $G -p 'One day' -n 25 $K
cp $T/out $T/b
check "--session goes on" silent run $G -n 15 $K
check "as if in one" pipe "cat $T/b $T/out | cmp -s - $T/a"
rm $T/session
check "--session, a prompt" silent run $G -p 'One' -n 1 --session $T/session
check "--session, another after it" silent run $G -p ' Then the dog' -n 9 --session $T/session --kv f32
cp $T/session $T/other
check "--session of another type" error 1 'are of type' run $G -n 3 --session $T/other --kv f16
check "--session of another model" error 1 'another model' run $M -n 3 --session $T/other
check "is left as it was" cmp -s $T/session $T/other
check "--session, too long for the context" error 1 'holds 12' run $G -n 3 --session $T/other -c 12
head -c 3000 $T/session >$T/other
check "half a session" error 1 'bytes of' run $G -n 3 --session $T/other
check "--session that is no file" error 1 'not a file' run $G -n 3 --session /dev/null
check "nothing is left over" nothing_left

# --- a real model ---
G=$S/models/stories260K.gguf
if here stories260K "$G"; then
    check "stories260K" silent run "$G" -n 200
    check "stories260K: the golden text" cmp $T/out "$S/models/stories260K.greedy200.txt"
    check "stories260K: scalar" pipe "flash run '$G' -n 200 --isa scalar | cmp -s - $T/out"
    check "stories260K: info" silent info "$G"
    check "stories260K: parameters" grep -qE '^parameters +292800$' $T/out
fi

# --- examples ---
small() { $RUN $B/"$@" >$T/out 2>$T/err; }
check "hello" small hello $M "Once upon"
check "hello = flash run" pipe "{ flash run $M -p 'Once upon'; echo; } | cmp -s - $T/out"
check "embed" small embed $M
check "embed: nothing acquired while writing" grep -q ', 0 acquired while writing]$' $T/out
check "chat" pipe "printf 'Once upon\n/reset\nOnce upon\nand then\n' | small chat $M"
check "chat: three answers" pipe "[ \$(grep -c '^> ' $T/out) -ge 4 ]"
check "search" small search 12
check "search: a front, from the quickest on" awk 'NR > 1 { if (NF != 6 || /nan|inf/ || NR > 2 && !($5 > s && $6 < e)) exit 1; s = $5; e = $6 }
    END { if (NR < 3) exit 1 }' $T/out
for e in hello chat embed; do
    check "$e: no such file" pipe "! small $e $T/nowhere && [ -s $T/err ]"
done

finish
