#!/bin/sh
# tale.sh - trains examples/models/tale.gguf anew, bit for bit, in about 40 minutes of one thread.
#   sh tools/tale.sh DATA OUT [THREADS]
# DATA: a folder with tinystories-4MB-lowercase.txt (the first 4.2 MB of TinyStories, of Eldan and
# Li 2023, arxiv 2305.07759, in lower case) and tinystories-197KB.txt (its beginning, with capitals).
set -eu
[ $# -ge 2 ] || { sed -n 's/^# //p' "$0" >&2; exit 2; }
B=${B:-build}
mkdir -p "$B/tale"
LC_ALL=C awk -f tools/stories.awk "$1/tinystories-197KB.txt" "$1/tinystories-4MB-lowercase.txt" \
    >"$B/tale/stories.txt"
"$B/flash" train --new d=128,layers=6,heads=4,kv=2,ffn=352,vocab=1024,tied=1,ctx=256 \
    --data "$B/tale/stories.txt" --steps 3500 --batch 16 --ctx 256 --warmup 100 --lr 2e-3 \
    -t "${3:-1}" --type Q8_0 --log "$B/tale/log.csv" -o "$2"
