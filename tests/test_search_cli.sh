#!/bin/sh
# flash search and flash front from outside, with a command that takes no time.
. "$(dirname "$0")/cli.sh"
J=$T/run.jsonl
E="sh $T/evaluate {trial.json}"
ulimit -c 0

cat >$T/evaluate <<'END'
awk -F'[:,{}"]+' '{ for (i = 1; i < NF; i++) v[$i] = $(i + 1) }
    END { l = log(v["rate"]) + 4; k = v["p0"] == "skip"
        print "step 100"
        print 10 / v["layers"] + 500 / v["d"] + l * l / 10 + k, v["layers"] * v["d"] / 1000 - k / 2
    }' "$1"
END
space() # MORE: a space file with that in addition
{
    cat <<END
{"parameters": [{"name": "layers", "integer": [2, 6]}, {"name": "d", "ordinal": [512, 768, 1024]},
    {"name": "p0", "choice": ["full", "window", "skip"]},
    {"name": "p1", "choice": ["full", "window", "skip"], "active_if": "layers", "active_from": 4},
    {"name": "rate", "log": [1e-4, 1]}],
  "objectives": ["loss", "latency"], "trials": 16,
  "rules": [{"run": 1, "of": ["window", "skip"], "in": ["p*"]}]$1}
END
}
space >$T/space.json
search() { flash search $T/space.json --journal "$@"; } # JOURNAL ARGUMENT...
searches() { exits 0 search $T/space.json --journal "$@"; }
refused() { error 1 "$1" search $T/space.json --journal $J "$2" "$3"; } # PATTERN OPTION VALUE
states() { grep -c "^{\"$1\"" $J; }

# --- command lines ---
for c in search front; do
    check "$c --help" silent $c --help
    check "$c --help: usage first" pipe "head -1 $T/out | grep -q '^usage: flash $c .*options.'"
done
check "no space" error 2 'which SPACE' search --journal $J --cmd "$E"
check "no journal" error 2 'which journal' search $T/space.json --cmd "$E"
check "nothing to do" error 2 'what to do' search $T/space.json --journal $J
check "too much to do" error 2 'only one' search $T/space.json --journal $J --ask 1 --pending
check "a command without a place" error 2 'trial.json' search $T/space.json --journal $J --cmd true
check "no such space" error 1 nowhere search $T/nowhere --journal $J --cmd "$E"
check "no such folder" error 1 nowhere search $T/space.json --journal $T/nowhere/j --cmd "$E"
check "front: no such journal" error 1 nowhere front $T/nowhere
for bad in '-j 0' '-j 999' '--trials 0' '--timeout -1' '--seed x' '--ask 0' '--ask x'; do
    check "$bad" error 2 "${bad%% *}" search $T/space.json --journal $J $bad
done
rm -f $J

# --- hostile space files: nothing is begun ---
hostile() # NAME PATTERN TEXT
{
    printf '%s' "$3" >$T/bad.json
    check "space: $1" error 1 "$2" search $T/bad.json --journal $T/bad.jsonl --cmd "$E"
    rm -f $T/bad.jsonl
}
with() { printf '{"parameters":[%s],"objectives":["a","b"]%s}' "$1" "$2"; } # PARAMETERS MORE
p='{"name":"x","real":[0,1]}'
c='{"name":"k","choice":["u","v"]}'
hostile "empty" 'empty' ''
hostile "blanks" 'empty' '
 '
hostile "nothing in it" 'parameters' '{}'
hostile "no JSON" 'line 1, column 1' 'parameters'
hostile "cut" 'line 1, column' "$(with "$p" | head -c 40)"
hostile "more behind" 'more after' "$(with "$p"){}"
hostile "nested" 'nested' "$(awk 'BEGIN { while (i++ < 100000) printf "[" }')"
hostile "nested objects" 'nested' "$(awk 'BEGIN { while (i++ < 5000) printf "{\"a\":" }')"
hostile "no object" 'want an object' '[1]'
hostile "twice a key" '"parameters" was there' "$(with "$p" ',"parameters":[]')"
hostile "twice a name" '"x" was there' "$(with "$p,$p")"
hostile "an unknown key" '"trails"' "$(with "$p" ',"trails":5')"
hostile "an unknown key of a parameter" '"Real"' "$(with '{"name":"x","Real":[0,1]}')"
hostile "no parameter" 'parameters' "$(with '')"
hostile "65 parameters" 'parameters' "$(with "$(awk 'BEGIN {
    for (i = 0; i < 65; i++) printf "%s{\"name\":\"x%d\",\"real\":[0,1]}", i ? "," : "", i }')")"
hostile "no name" 'without "name"' "$(with '{"real":[0,1]}')"
hostile "an empty name" 'name' "$(with '{"name":"","real":[0,1]}')"
hostile "a name with a newline" 'control' "$(with '{"name":"a\nb","real":[0,1]}')"
hostile "not UTF-8" 'UTF-8' "$(with "$(printf '{"name":"\377","real":[0,1]}')")"
hostile "half a character" 'half' "$(with '{"name":"\ud800","real":[0,1]}')"
hostile "no kind" 'x: want one of' "$(with '{"name":"x"}')"
hostile "two kinds" 'x: both' "$(with '{"name":"x","real":[0,1],"log":[1,2]}')"
hostile "lo > hi" 'x: 2 is more' "$(with '{"name":"x","real":[2,1]}')"
hostile "lo = hi" 'x: want lo' "$(with '{"name":"x","real":[1,1]}')"
hostile "log of 0" 'x: .*logarithm' "$(with '{"name":"x","log":[0,1]}')"
hostile "one bound" 'x: want .lowest' "$(with '{"name":"x","real":[0]}')"
hostile "no numbers" 'x: want a number' "$(with '{"name":"x","real":["0","1"]}')"
hostile "no list" 'x: want a list' "$(with '{"name":"x","real":0}')"
hostile "1e400" 'too large' "$(with '{"name":"x","real":[0,1e400]}')"
hostile "NaN" 'no value of JSON' "$(with '{"name":"x","real":[0,NaN]}')"
hostile "a number of C" 'begins with 0' "$(with '{"name":"x","real":[0,010]}')"
hostile "half integers" 'x: want a whole' "$(with '{"name":"x","integer":[0.5,2]}')"
hostile "step 0" 'step' "$(with '{"name":"x","integer":[0,2],"step":0}')"
hostile "a billion integers" 'x: .*million' "$(with '{"name":"x","integer":[0,1000000000]}')"
hostile "falling ordinals" 'x: .*ascend' "$(with '{"name":"x","ordinal":[2,1]}')"
hostile "no ordinals" 'x: no values' "$(with '{"name":"x","ordinal":[]}')"
hostile "no choices" 'x: 0 choices' "$(with '{"name":"x","choice":[]}')"
hostile "twice a choice" '"u" was there' "$(with '{"name":"x","choice":["u","u"]}')"
hostile "choices that are numbers" 'x: want a text' "$(with '{"name":"x","choice":[1,2]}')"
hostile "active_if of nothing" 'no earlier parameter "y"' \
    "$(with '{"name":"x","real":[0,1],"active_if":"y","active_from":1}')"
hostile "active_if of itself" 'no earlier' \
    "$(with '{"name":"x","real":[0,1],"active_if":"x","active_from":1}')"
hostile "active_if without active_from" 'needs "active_from"' \
    "$(with "$p,"'{"name":"y","real":[0,1],"active_if":"x"}')"
hostile "no objectives" 'objectives' "{\"parameters\":[$p]}"
hostile "five objectives" 'objectives' \
    "{\"parameters\":[$p],\"objectives\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}"
hostile "twice an objective" '"a" was there' "$(with "$p" ',"constraints":["a"]')"
hostile "an objective like a parameter" '"a"' "$(with '{"name":"a","real":[0,1]}')"
hostile "a name that is taken" '"state"' "$(with '{"name":"state","real":[0,1]}')"
hostile "a short reference" 'reference: 1' "$(with "$p" ',"reference":[1]')"
hostile "a short noise" 'noise: 1' "$(with "$p" ',"noise":[1]')"
hostile "a noise below 0" 'noise of value 1' "$(with "$p" ',"noise":[-1,1]')"
hostile "no method" 'bayes' "$(with "$p" ',"method":"bayes"')"
hostile "too many trials" '5000 trials' "$(with "$p" ',"trials":5000')"
hostile "trials of a text" 'trials: want a number' "$(with "$p" ',"trials":"9"')"
hostile "seed -1" 'seed' "$(with "$p" ',"seed":-1')"
hostile "a rule of nothing" 'no parameter "q"' \
    "$(with "$c" ',"rules":[{"run":1,"of":["u"],"in":["q"]}]')"
hostile "a rule of no choice" 'w is no choice of k' \
    "$(with "$c" ',"rules":[{"run":1,"of":["w"],"in":["k"]}]')"
hostile "a sum of choices" 'sum: k has choices' \
    "$(with "$c" ',"rules":[{"sum":{"k":1},"at_most":1}]')"
hostile "a rule of an empty choice" 'nothing in' \
    "$(with "$c" ',"rules":[{"run":1,"of":[],"in":["k"]}]')"
hostile "a rule of no parameters" 'nothing in' \
    "$(with "$c" ',"rules":[{"run":1,"of":["u"],"in":[]}]')"
hostile "a rule of numbers" 'in: n has no choices' \
    "$(with '{"name":"n","integer":[0,99]}' ',"rules":[{"run":1,"of":["u"],"in":["n"]}]')"
hostile "infeasible everywhere" 'no feasible point' \
    "$(with "$p" ',"rules":[{"sum":{"x":1},"at_most":-1}]')"
head -c 16777217 /dev/zero | tr '\000' ' ' >$T/bad.json
check "space: over 16 MB" error 1 'too large' search $T/bad.json --journal $T/bad.jsonl --cmd "$E"
check "and nothing is left" [ -z "$(ls $T | grep -v -e space -e evaluate -e bad.json -e out -e err)" ]

# --- a whole search, twice the same ---
check "search" searches $J --cmd "$E"
check "a line for each trial" [ "$(grep -c '^trial [0-9]* done .* hypervolume .* front' $T/out)" = 16 ]
check "the front" grep -q '^trial  *loss  *latency  *layers' $T/out
check "the figures" grep -q '^search trials=16 done=16 failed=0 .*expected=' $T/out
check "no trial files left" pipe "! ls $T/run.jsonl.* >/dev/null 2>&1"
cp $J $T/whole
check "a finished one" searches $J --cmd "$E"
check "a finished one: as it was" cmp -s $J $T/whole
search $T/again --cmd "$E" >$T/null 2>&1
check "the same again" cmp -s $T/again $T/whole
search $T/other --cmd "$E" --seed 2 >$T/null 2>&1
check "another seed" pipe "! cmp -s $T/other $T/whole"
check "another seed goes on" exits 0 search $T/space.json --journal $T/other --cmd "$E"
check "not another seed" error 1 'seed 2' search $T/space.json --journal $T/other --cmd "$E" --seed 3
check "a rule holds" pipe "! flash front $J --csv | grep -E '(window|skip),(window|skip)'"

# --- stopped at any moment ---
kills=10 cuts=14
[ -z "$FLASH_QUICK" ] || kills=3 cuts=4
rm -f $J
i=0
while [ $i -lt $kills ]; do
    i=$((i + 1))
    start search $T/space.json --journal $J --cmd "$E"
    sleep 0.0$((i * 7 % 10))$i
    kill -KILL $pid 2>$T/null
    wait $pid 2>$T/null
done
check "killed, resumed" searches $J --cmd "$E"
check "killed, resumed: the same" cmp -s $J $T/whole
bytes=$(wc -c <$T/whole) line=$(head -1 $T/whole | wc -c) i=0
while [ $i -lt $cuts ]; do
    i=$((i + 1))
    case $i in 1) at=1;; 2) at=$((line - 1));; 3) at=$line;; 4) at=$((line + 1));;
    5) at=$((bytes - 1));; *) at=$((line + (bytes - line) * (i * 37 % 101) / 101));; esac
    head -c $at $T/whole >$J
    check "cut after $at bytes" searches $J --cmd "$E"
    check "cut after $at bytes: the same" cmp -s $J $T/whole
done
head -c $((bytes - 5)) $T/whole >$J
check "torn: it says so" pipe "search $J --cmd '$E' 2>&1 >$T/null | grep -q 'torn; cut off'"
head -c $((bytes - 5)) $T/whole >$J
check "front of a torn one" exits 0 front $J
check "front does not write" [ "$(wc -c <$J)" = $((bytes - 5)) ]
sed '5s/[0-9]/x/' $T/whole >$J
check "a damaged line" error 1 'run.jsonl, line 5: damaged' search $T/space.json --journal $J --cmd "$E"
check "front of a damaged one" error 1 'line 5: damaged' front $J
sed 5d $T/whole >$J
check "a line is missing" error 1 'line [0-9]*: a trial' search $T/space.json --journal $J --cmd "$E"
sed '1s/512/513/' $T/whole >$J
check "the first line is damaged" error 1 'line 1: damaged' front $J
for f in $T/space.json README.md $B/flash; do
    cp $f $J
    check "no journal" error 1 'no journal' search $T/space.json --journal $J --cmd "$E"
    check "no journal: as it was" cmp -s $f $J
    check "front of no journal" error 1 'no journal' front $J
done
printf 'a text' >$J
check "no journal, no newline" error 1 'no journal' search $T/space.json --journal $J --cmd "$E"
check "a journal that is a folder" error 1 "$T" search $T/space.json --journal $T --cmd "$E"

# --- another space ---
other() # NAME PATTERN SED
{
    sed "$3" $T/space.json >$T/bad.json
    cp $T/whole $J
    check "other: $1" error 1 "$2" search $T/bad.json --journal $J --cmd "$E"
    check "other: $1: as it was" cmp -s $J $T/whole
}
other "a range" 'parameter layers differs' 's/\[2, 6\]/[2, 7]/'
other "a choice" 'parameter p1 differs' 's/"full", "window", "skip"\], "active/"full", "window", "none", "skip"], "active/'
other "one less" 'parameter rate' '/"rate"/s/.*/],/;s/"active_from": 4},/"active_from": 4}/'
other "objectives" 'objectives differ' 's/"latency"/"seconds"/'
other "rules" 'rules differ' 's/"run": 1/"run": 2/'
other "method" 'method differs' 's/"trials": 16/"trials": 16, "method": "random"/'
sed 's/"trials": 16/"seed": 1, "trials": 16, "population": 100/; s/512, /5.12e2, /' \
    $T/space.json >$T/bad.json
cp $T/whole $J
check "the same in other words" exits 0 search $T/bad.json --journal $J --cmd "$E"
check "more trials" searches $J --cmd "$E" --trials 18
check "more trials: two" [ "$(wc -l <$J)" = $(($(wc -l <$T/whole) + 4)) ]
check "fewer again" searches $J --cmd "$E"

# --- commands that fail ---
fails() # NAME WHY COMMAND: the third trial does
{
    rm -f $J
    check "$1" searches $J --trials 6 --timeout 20 \
        --cmd "[ \$FLASH_TRIAL != 3 ] || { $3; }; $E"
    check "$1: why" grep -q "^flash search: trial 3 failed: $2" $T/err
    check "$1: the others" [ "$(states tell) $(states fail) $(states ask)" = "5 1 6" ]
}
fails "exit status" 'exit status 7' 'exit 7'
fails "nothing printed" 'printed no values' 'exit 0'
fails "nan" 'loss is nan' 'echo nan 1; exit 0'
fails "NaN" 'latency is -nan\|latency is nan' 'echo {\"loss\":1,\"latency\":NaN}; exit 0'
fails "inf" 'loss is inf' 'echo inf 1; exit 0'
fails "one value" '1 value, want 2' 'echo 1; exit 0'
fails "three values" '3 values, want 2' 'echo [1,2,3]; exit 0'
fails "no latency" 'no latency' 'echo {\"loss\":1}; exit 0'
fails "a text for a number" 'latency is no number' 'echo {\"loss\":1,\"latency\":\"2\"}; exit 0'
fails "numbers, then it fails" 'exit status 1' 'echo 1 2; exit 1'
fails "killed" 'killed by signal 9' 'kill -9 $$'
fails "bytes that are no text" 'printed no values' 'head -c 100000 /dev/zero; printf "\377\n"; exit 0'
rm -f $J
check "too long" searches $J --trials 2 --timeout 0.3 --cmd "[ \$FLASH_TRIAL = 2 ] || sleep 9; $E"
check "too long: why" grep -q 'trial 1 failed: not ready after 0.3 s' $T/err
rm -f $J
check "all fail" exits 1 search $T/space.json --journal $J --cmd ': {trial.json}; exit 9'
check "all fail: five tries" [ "$(states ask)" = 5 ]
check "all fail: it says so" grep -q 'the first 5 commands failed' $T/err
check "all fail: it can go on" searches $J --cmd "$E"
formats='echo "log: 3 4"; set -- $(sh '$T'/evaluate {trial.json} | tail -1)'
for f in 'echo $1 $2; echo bye' 'echo [$1,$2]' 'echo "{\"time\":3,\"latency\":$2,\"loss\":$1}"' \
    'echo 9 9; printf "%s\t%s" $1 $2' 'echo "$1, $2"; echo "[INFO] end"'; do
    rm -f $J
    search $J --cmd "$formats; $f" >$T/null 2>$T/err
    check "result: $f" cmp -s $J $T/whole
done
quoted="$T/it's a \"name\".jsonl"
check "a strange name" searches "$quoted" --cmd "cd /; $(echo "$E" | sed "s|$T|$(cd $T && pwd)|")"
check "a strange name: the same" cmp -s "$quoted" $T/whole
check "no place for the journal" pipe "! here full /dev/full ||
    error 1 'not a file' search $T/space.json --journal /dev/full --cmd '$E'"

# --- a disk that is full: an error, then it goes on ---
rm -f $J
longer="search $T/space.json --journal $J --trials 60 --cmd"
check "a full disk" pipe "(trap '' XFSZ; ulimit -f 8; exits 1 $longer '$E')"
check "a full disk: it says so" grep -q 'run.jsonl: the journal could not be written' $T/err
check "a full disk: it goes on" exits 0 $longer "$E"
cp $J $T/full
rm -f $J
check "a full disk: without" exits 0 $longer "$E"
check "a full disk: the same" cmp -s $J $T/full

# --- in batches: the same journal for any number at once, and after any end ---
rm -f $J
check "batches" searches $J --batch 5 --cmd "$E"
cp $J $T/batches
check "batches: asked for together" [ "$(cut -c 3-6 $J | sed -n '3,12p' | uniq -c | tr -s ' \n' ' ')" = ' 5 ask" 5 tell ' ]
rm -f $J
check "batches: -j 3" searches $J --batch 5 -j 3 --cmd "sleep 0.0\$((7 - FLASH_TRIAL % 7)); $E"
check "batches: -j 3: the same" cmp -s $J $T/batches
rm -f $J
for after in 0.05 0.15 0.1 0.25 0.02 0.3; do
    start search $T/space.json --journal $J --batch 5 -j 3 --cmd "sleep 0.03; $E"
    sleep $after
    kill -9 $pid 2>$T/null
    wait $pid 2>$T/null
done
check "batches: killed" searches $J --batch 5 -j 2 --cmd "$E"
check "batches: killed: the same" cmp -s $J $T/batches

# --- more pending ones than there may be commands at once, in batches ---
sed 's/"trials": 16/"trials": 300, "method": "random"/' $T/space.json >$T/many.json
rm -f $J
flash search $T/many.json --journal $J --ask 300 >$T/null
check "many pending" exits 0 search $T/many.json --journal $J --batch 4 -j 4 --cmd ': {trial.json}; echo 1 2'
check "many pending: all done" [ "$(states tell)" = 300 ]
check "many pending: told in order" pipe "head -300 $T/out | cut -d ' ' -f 2 | sort -nc"

# --- the live line, on a terminal and nowhere else ---
if script -qec true /dev/null >$T/out 2>$T/err; then
    rm -f $J
    script -qec "$RUN $B/flash search $T/space.json --journal $J --cmd '$E'" /dev/null >$T/out
    check "live" grep -q 'trial 8/16: hypervolume [0-9.e+-]*, front [0-9]*, [0-9]*:[0-9][0-9] left' $T/out
    check "live: no lines of trials" pipe "! grep -q '^trial [0-9]* done' $T/out"
    check "live: then the front" grep -q '^search trials=16 done=16' $T/out
    rm -f $J
    script -qec "$RUN $B/flash search $T/space.json --journal $J --cmd '$E' 2>$T/err" /dev/null >$T/out
    check "not live into a file" [ ! -s $T/err ]
else
    skip live "no command script"
fi

# --- several at once, stopped by hand ---
rm -f $J
check "-j 3" searches $J -j 3 --cmd "sleep 0.02; $E"
check "-j 3: all done" grep -q '^search trials=16 done=16' $T/out
rm -f $J
start search $T/space.json --journal $J -j 2 --cmd "echo \$\$ >>$T/pids; sleep 7 & wait; $E"
for i in 1 2 3 4 5 6 7 8 9 10; do [ "$(grep -c . $T/pids 2>$T/null)" = 2 ] || sleep 0.2; done
check "locked" error 1 'another flash search' search $T/space.json --journal $J --cmd "$E"
check "Ctrl-C" stopped
check "Ctrl-C: it says how to go on" grep -q 'the same command goes on' $T/err
check "Ctrl-C: nothing runs" pipe "! kill -0 \$(head -1 $T/pids) 2>$T/null"
check "Ctrl-C: two pending" [ "$(states ask) $(states tell) $(states fail)" = "2 0 0" ]
check "Ctrl-C: goes on" searches $J --cmd "$E"
check "Ctrl-C: all done" grep -q '^search trials=16 done=16' $T/out

# --- hopeless ones ---
rm -f $J
check "hopeless" searches $J --trials 4 \
    --cmd "[ \$FLASH_TRIAL = 1 ] && echo 0 0 && : {trial.json} && exit; echo best 1 1; sleep 5; echo 2 2"
check "hopeless: abandoned" [ "$(states tell) $(states stop)" = "1 3" ]
check "hopeless: said" grep -q '^trial 2 abandoned' $T/out
rm -f $J
check "not hopeless" searches $J --trials 2 \
    --cmd "echo best -\$FLASH_TRIAL 1; echo best x; : {trial.json}; echo -\$FLASH_TRIAL 1"
check "not hopeless: done" [ "$(states tell)" = 2 ]

# --- one by one ---
rm -f $J
check "ask" silent search $T/space.json --journal $J --ask 3
check "ask: three lines" lines 3 $T/out
check "ask: a trial" grep -q '^{"id":1,"x":{"layers":[2-6],"d":[0-9]*,"p0":"[a-z]*",.*"rate":[0-9.e-]*}}$' $T/out
cp $T/out $T/asked
check "pending" silent search $T/space.json --journal $J --pending
check "pending: the same" cmp -s $T/out $T/asked
check "tell" silent search $T/space.json --journal $J --tell '2 1.5 2.5'
check "tell: it says so" grep -q '^trial 2 done 1.5 2.5 hypervolume' $T/out
check "tell JSON" silent search $T/space.json --journal $J --tell '3 {"latency":3,"loss":1}'
check "fail" silent search $T/space.json --journal $J --fail 1
check "tell twice" refused 'trial 2 is not pending' --tell '2 1 1'
check "tell of none" refused 'no trial 9' --tell '9 1 1'
check "fail of none" refused 'no trial 9' --fail 9
check "tell: no id" error 2 'number of a trial' search $T/space.json --journal $J --tell x
search $J --ask 1 >$T/out
for bad in '4' '4 1' '4 1 2 3' '4 1 nan' '4 a b'; do
    check "tell: $bad" error 2 '--tell' search $T/space.json --journal $J --tell "$bad"
done
check "report: hopeless" exits 3 search $T/space.json --journal $J --report '4 1.6 2.6'
check "report: stop" grep -qx stop $T/out
check "report: not yet" exits 0 search $T/space.json --journal $J --report '4 1.4 2.4'
check "report: go" grep -qx go $T/out
check "a run takes up what is pending" searches $J --cmd "$E"
check "and does the rest" grep -q 'trials=16 done=15 failed=1 abandoned=0 pending=0' $T/out
check "ask: all were" refused 'all 16 trials' --ask 1
cat >$T/job <<END
s='$RUN $B/flash search $T/space.json --journal $J'
trial=\$(\$s --ask 1) || exit
id=\${trial#*:} id=\${id%%,*}
echo "\$trial" >$T/trial.\$id
\$s --tell "\$id \$(sh $T/evaluate $T/trial.\$id | tail -1)" || \$s --fail \$id
END
rm -f $J
for i in 1 2 3 4 5 6 7 8; do sh $T/job >$T/null 2>>$T/err & done
wait
check "jobs at the same time" [ "$(states ask) $(states tell)" = "8 8" ]
check "jobs at the same time: it can be read" silent front $J
if command -v parallel >$T/null 2>&1; then
    rm -f $J
    check "GNU parallel" pipe "seq 16 | parallel -j 3 -n0 sh $T/job >$T/null 2>$T/err"
    check "GNU parallel: all done" [ "$(states tell)" = 16 ]
else
    skip "GNU parallel" "not installed"
fi

# --- tables from elsewhere ---
flash front $T/whole --csv >$T/all.csv
rm -f $J
check "import" silent search $T/space.json --journal $J --import $T/all.csv
check "import: all" [ "$(states add)" = 16 ]
check "import: the same" pipe "flash front $J --csv | cmp -s - $T/all.csv"
check "import: no room" refused 'only 0 of 16' --import $T/all.csv
rm -f $J
header=loss,latency,layers,d,p0,p1,rate
table() # NAME PATTERN LINE...
{
    name=$1 pattern=$2
    shift 2
    printf '%s\n' "$@" >$T/bad.csv
    check "import: $name" refused "$pattern" --import $T/bad.csv
}
table "no header" 'line 1' 1,2,3
table "a column less" 'no column rate' loss,latency,layers,d,p0,p1 1,2,2,512,full,
table "a column twice" 'd is there twice' $header,d
table "a cell less" 'line 3' $header 1,2,2,512,full,,.1 1,2,2,512,full,
table "no number" 'line 2: loss' $header x,2,2,512,full,,.1
table "no such choice" 'line 2: p0: "all"' $header 1,2,2,512,all,,.1
table "outside" 'line 3: .*layers' $header 1,2,2,512,full,,.1 1,2,9,512,full,full,.1
table "against a rule" 'line 3: this point is not feasible' $header 1,2,2,512,full,,.1 \
    1,2,4,512,skip,window,.1
table "a quote" 'line 2: -1 columns\|line 2' $header '"1,2,2,512,full,,.1'
check "import: nothing was added" [ "$(states add)" = 0 ]
printf '%s\r\n' "$header" '-1,2,2,"512",full,,.1' >$T/good.csv
check "import: from Windows, quoted" silent search $T/space.json --journal $J --import $T/good.csv
check "import: no such file" refused nowhere --import $T/nowhere

# --- front ---
check "front" silent front $T/whole
check "front --csv" silent front $T/whole --csv
check "front --csv: all trials" lines 17 $T/out
check "front --csv: columns" pipe "head -1 $T/out | grep -qx 'id,state,layers,d,p0,p1,rate,loss,latency,front'"
check "front --csv: none is better" awk -F, '
    NR > 1 { a[NR] = $8; b[NR] = $9; f[NR] = $10 }
    END { for (i in a) { best = 1
        for (j in a) if (a[j] <= a[i] && b[j] <= b[i] && (a[j] < a[i] || b[j] < b[i])) best = 0
        if (best != f[i]) exit 1 } }' $T/out
page() # NAME JOURNAL: checks of its page
{
    check "$1: page" silent front $2 --html $T/r.html
    check "$1: alone" pipe "! grep -qE '(src|href)=|@import|<script|http' $T/r.html"
    check "$1: picture" silent front $2 --svg $T/r.svg
    check "$1: picture: one SVG" pipe "head -c 5 $T/r.svg | grep -q '<svg ' && tail -1 $T/r.svg | grep -q '</svg>'"
    check "$1: whole" pipe "tail -c 20 $T/r.html | grep -q '</html>'"
    check "$1: numbers" pipe "! grep -qiE '[^a-z](nan|inf)[^a-z]' $T/r.html"
    command -v xmllint >$T/null 2>&1 || { skip "$1: well-formed" "no xmllint"; return; }
    sed -n '/<body>/,/<\/body>/p' $T/r.html >$T/body.xml
    check "$1: well-formed" pipe "xmllint --noout $T/body.xml 2>$T/err"
}
page "a search" $T/whole
check "three pictures" [ "$(grep -o '<svg' $T/r.html | wc -l)" = 3 ]
check "tooltips" grep -q '<title>trial [0-9]*: loss' $T/r.html
check "front: not over the journal" error 2 'is the journal' front $T/whole --html $T/whole
check "front: no such folder" error 1 nowhere front $T/whole --html $T/nowhere/r.html
nasty='<b>&\"\u00e9'
printf '{"parameters":[{"name":"%s","integer":[1,3]},{"name":"k","choice":["</svg>","a,\\"b"]}],
    "objectives":["%s y"],"constraints":["c"],"trials":6,"noise":[0.5,0]}' "$nasty" "$nasty" >$T/nasty.json
check "strange names" exits 0 search $T/nasty.json --journal $T/nasty.jsonl --cmd \
    ': {trial.json}; echo $((FLASH_TRIAL % 4)) $((FLASH_TRIAL % 3 - 1))'
page "strange names" $T/nasty.jsonl
check "strange names: CSV back" exits 0 front $T/nasty.jsonl --csv
cp $T/out $T/nasty.csv
check "strange names: imported" exits 0 search $T/nasty.json --journal $T/nasty2 --import $T/nasty.csv
head -3 $T/whole >$T/begun
page "nothing done" $T/begun
sed 's/\["loss", "latency"\]/["loss", "latency", "a"], "constraints": ["c"]/' \
    $T/space.json >$T/three.json
check "three objectives" exits 0 search $T/three.json --journal $T/three --trials 7 --cmd \
    'n=$FLASH_TRIAL; : {trial.json}; echo $n $((9 - n)) $((n % 2)) 0'
page "three objectives" $T/three
check "constant objectives" exits 0 search $T/space.json --journal $T/flat --trials 8 --cmd \
    ': {trial.json}; echo 1 1'
page "constant objectives" $T/flat
check "no trial is good" exits 0 search $T/three.json --journal $T/none --trials 6 --cmd \
    ': {trial.json}; echo 1 2 3 4'
page "no trial is good" $T/none
awk 'BEGIN { printf "{\"parameters\": ["
    for (i = 0; i < 64; i++) printf "%s{\"name\": \"x%d\", \"real\": [0, 1]}", i ? ", " : "", i
    print "], \"objectives\": [\"a\", \"b\", \"c\"], \"method\": \"random\"}" }' >$T/wide.json
check "64 parameters" exits 0 search $T/wide.json --journal $T/wide --trials 3 --cmd \
    ': {trial.json}; echo $FLASH_TRIAL -$FLASH_TRIAL 1'
page "64 parameters" $T/wide
check "nothing else left" pipe "nothing_left && ! ls $T | grep -q '[0-9]\.json$'"
finish
