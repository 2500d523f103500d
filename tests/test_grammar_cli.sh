#!/bin/sh
# Output of a form: flash run and chat with --grammar, --json and --json-schema.
. "$(dirname "$0")/cli.sh"

printf 'root ::= "yes" | "no" | "(" root ")"\n' >$T/yes.gbnf
printf 'root ::= root "x"\n' >$T/left.gbnf
cat >$T/mood.json <<'END'
{ "type": "object",
  "properties": { "mood": { "enum": ["calm", "angry"] },
                  "trust": { "type": "integer" } },
  "required": ["mood", "trust"], "additionalProperties": false }
END
printf '{"type":"string","pattern":"a+"}' >$T/pattern.json

for seed in 1 2 3 4 5 6 7 8; do
    check "--grammar, seed $seed" silent run $M -p x --grammar $T/yes.gbnf --temp 1.5 --seed $seed
    check "--grammar: a text of it, seed $seed" grep -qxE '\(*(yes|no)\)*' $T/out
    check "--json-schema, seed $seed" silent run $M -p x --json-schema $T/mood.json --temp 1.5 \
        --seed $seed
    check "--json-schema: a text of it, seed $seed" pipe "tr -d ' \n' <$T/out |
        grep -qxE '\{\"mood\":\"(calm|angry)\",\"trust\":-?[0-9]{1,16}\}'"
done
check "greedy" silent run $M -p x --grammar $T/yes.gbnf
check "greedy: a text of it" grep -qxE '\(*(yes|no)\)*' $T/out
check "--json" silent run $M -p x --json --temp 1 -n 5
check "--json: its beginning" grep -qE '^[[:space:]]*($|["{[0-9tfn-])' $T/out
check "a grammar on standard input" pipe "flash run $M -p x --grammar - <$T/yes.gbnf >$T/out"
check "a grammar on standard input: a text of it" grep -qxE '\(*(yes|no)\)*' $T/out
check "chat" pipe "echo hi | flash chat $M --format chatml --grammar $T/yes.gbnf >$T/out 2>$T/err"
check "chat: a text of it" grep -qxE '\(*(yes|no)\)*' $T/out

check "two of them" error 2 'one of them' run $M --json --grammar $T/yes.gbnf
check "chat: two of them" error 2 'one of them' chat $M --json --json-schema $T/mood.json
check "left recursion" error 1 'left.gbnf: line 1, column 1: .*left recursion): root' \
    run $M -p x --grammar $T/left.gbnf
check "no grammar" error 1 'there is no rule' run $M -p x --grammar /dev/null
check "no such file" error 1 nowhere run $M -p x --grammar $T/nowhere
check "a keyword" error 1 'pattern.json: line 1, column .*not supported: pattern' \
    run $M -p x --json-schema $T/pattern.json
check "no JSON" error 1 'this is no JSON' run $M -p x --json-schema $T/yes.gbnf
finish
