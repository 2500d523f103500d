#!/bin/sh
# flash chat from outside.
. "$(dirname "$0")/cli.sh"

chat() # STATUS INPUT ARGUMENT...: of flash chat, with printf's INPUT
{
    status=$1 input=$2
    shift 2
    printf "$input" | exits $status chat "$@"
}
quiet() { chat 0 "$@" && [ ! -s $T/err ]; } # good, and nothing on stderr
model() { $RUN $B/tests/mkmodels --chat $T $1 "$2" >/dev/null; } # FILE TEMPLATE

# --- formats ---
check "no template" error 1 'no chat template.*--format.*chatml' chat $M
check "unknown format" error 2 'choose from .*llama-3' chat $M --format llama-9
model unknown.gguf '{{ messages }}'
check "unknown template" error 1 'none of the known.*--format.*chatml' chat $T/unknown.gguf
check "unknown template, --format" quiet 'Hi\n' $T/unknown.gguf --format gemma -n 4
model known.gguf '<|im_start|>{{ role }}<|im_end|>'
check "known template" quiet 'Hi\n' $T/known.gguf -n 9
cp $T/out $T/a
check "by name" quiet 'Hi\n' $M --format chatml -n 9
check "the same" cmp -s $T/out $T/a
check "another format" quiet 'Hi\n' $T/known.gguf --format llama-2 -n 9
check "another answer" pipe "! cmp -s $T/out $T/a"
read_by() { chat 0 'Hi\n' $T/known.gguf --speed -n 9 "$@"; sed 's/^.\([0-9]*\) .*/\1/' $T/err; }
check "a system prompt is read" [ $(read_by --system 'the tree') -gt $(($(read_by) + 8)) ]
for f in $(flash chat --help | sed -n 's/^Formats: \(.*\)\.$/\1/p' | tr -d ,); do
    check "$f" quiet 'Hi\nthe tree\n' $M --format $f --system 'and' -n 4
done

# --- lines ---
C="$M --format chatml -n 9"
check "nothing" quiet '' $C
check "writes nothing" [ ! -s $T/out ]
check "blank lines" quiet '\n \t\r\n\n' $C
check "are no questions" [ ! -s $T/out ]
check "no line end" quiet 'Hi' $C
check "is a line" cmp -s $T/out $T/a
check "carriage return" quiet 'Hi\r\n' $C
check "is no text" cmp -s $T/out $T/a
check "two questions" quiet 'Hi\nthe tree and the river\n' $C
check "the first answer is the same" pipe "head -n $(grep -c '' $T/a) $T/out | cmp -s - $T/a"
check "there are two" pipe "! cmp -s $T/out $T/a"
check "--speed" chat 0 'Hi\nHi\n' $C --speed
check "a line each" pipe "lines 2 $T/err && grep -q '^\[.* read, .*/s; 9 written, .*/s\]$' $T/err"
cp $T/out $T/b
check "scalar, threads" quiet 'Hi\nHi\n' $C --isa scalar -t 3
check "same text" cmp -s $T/out $T/b
check "a seed" quiet 'Hi\n' $C --temp 1.5 --seed 7
check "changes the answer" pipe "! cmp -s $T/out $T/a"

# --- a full context: the oldest questions go, the system prompt stays ---
i=0 many=
while [ $i -lt 12 ]; do i=$((i + 1)) many="${many}the tree and the river\\n"; done
check "many questions" chat 0 "$many" $C -c 160 --system 'the tree' --speed
check "all are answered" lines 12 $T/err
check "each after the system prompt" [ "$(cut -d' ' -f1 $T/err | uniq -c | grep -c '')" = 1 ]
check "a long question" chat 1 "$(head -c 400 flash.h | tr -c 'a-z' ' ')\nHi\n" $C -c 100
check "is refused" pipe "lines 1 $T/err && grep -q 'no room for this question.*-c' $T/err"
check "the next is answered" cmp -s $T/out $T/a
check "a long answer" chat 0 'Hi\nHi\n' $M --format chatml -c 100
check "ends" pipe "lines 2 $T/err && grep -q 'the context of 100 tokens is full' $T/err"

# --- Ctrl-C: ends the answer, then, at the prompt, the program ---
mkfifo $T/in
$RUN $B/flash chat $M --format chatml -c 100000 --speed <$T/in >$T/out 2>$T/err &
pid=$!
exec 3>$T/in
echo Hi >&3
sleep 1
kill -INT $pid
sleep 1
check "Ctrl-C: there is an answer" [ -s $T/out ]
check "Ctrl-C: it ended" lines 1 $T/err
echo Hi >&3
sleep 1
kill -INT $pid
sleep 1
kill -INT $pid
wait $pid
check "Ctrl-C at the prompt" [ $? -ge 128 ]
exec 3>&-
check "Ctrl-C: the next question was answered" pipe "lines 2 $T/err && ! grep -qv '^\[.* read' $T/err"

finish
