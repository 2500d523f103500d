#!/bin/sh
# Merges the line counts of flash.h over all programs of `make coverage`: a line is covered if any ran it.
# Prints the share; the lines no test ran go to build/coverage/flash.h.missed.
for data in $(find build/coverage -name '*.gcda'); do
    ${GCOV:-gcov} -t "$data" 2>/dev/null
done | awk -F: '
    $3 == "Source" { ours = $4 ~ /(^|\/)flash\.h$/ }
    ours && $2 + 0 > 0 && $1 !~ /-/ {
        line = $2 + 0
        text[line] = substr($0, index($0, $3))
        if ($1 !~ /#####|=====/) hit[line] = 1
    }
    END {
        out = "build/coverage/flash.h.missed"
        printf "" >out
        for (line in text) {
            all++
            if (line in hit) n++
            else printf "%6d:%s\n", line, text[line] | ("sort -n >" out)
        }
        printf "flash.h: %d of %d lines run by the tests, %.1f %%; the others: %s\n", n, all, all ? 100*n/all : 0, out
    }'
