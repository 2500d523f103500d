#!/bin/sh
# Runs every command of README.md as it stands there, in an empty folder: a copy of what git has. Only
# `make test` is passed over, which every change runs anyway. Called by .ci/run.
set -u
export MAKEFLAGS=-j2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
git archive HEAD | tar x -C "$dir"
passed=0 failed=0
awk '/^```/ { code = !code } !code && sub(/^    /, "")' "$dir/README.md" >"$dir/commands"
while IFS= read -r command <&3; do
    case $command in
    'make test') continue ;;
    esac
    echo "$ $command"
    if (cd "$dir" && timeout 600 sh -c "$command" </dev/null >"$dir/log" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $command"
        tail -5 "$dir/log"
    fi
done 3<"$dir/commands"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
