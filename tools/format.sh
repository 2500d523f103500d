#!/bin/sh
# Formats every C file by .clang-format (-i), or names the lines that differ (--dry-run -Werror).
# The version matters: others break some lines in other places.
for format in clang-format-19 clang-format; do
    case $($format --version 2>/dev/null) in *' version 19.'*) break ;; esac
    format=
done
[ -n "$format" ] || { echo 'clang-format 19 is not installed'; exit 3; }
printf '%s\n' flash.h examples/*.c* examples/*/*.[ch] examples/*/*/*.h tools/*.[ch] tests/*.[ch] \
    tests/compile/*.c* tests/fuzz/*.[ch] | xargs -n 1 -P 2 $format "$@"
