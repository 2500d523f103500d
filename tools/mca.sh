#!/bin/sh
# Cycles that the inner loops of the NEON matrix kernels take by llvm-mca, for a tile of 32 items,
# 4 tokens, 8 rows, beside two limits of the same machine model: the multiply-accumulate
# instructions alone, and all vector arithmetic of the loop (the float steps that the order of
# rounding asks for too). Needs clang, the headers of an AArch64 libc and llvm-mca; MCA and CC say
# which. LLVM's cortex-a76 is scheduled by its tables for the A57 (half-width float pipes), the
# same core's tables are under neoverse-n1; neoverse-v1 has its own since LLVM 17.
tab=$(printf '\t')
set -eu
cd "$(dirname "$0")/.."
cc=${CC:-clang}
if [ -z "${MCA:-}" ]; then
    for v in '' 14 15 16 17 18 19 20 21 22; do # the newest
        if command -v "llvm-mca${v:+-$v}" >/dev/null; then MCA=llvm-mca${v:+-$v}; fi
    done
fi
[ -n "${MCA:-}" ] || { echo "mca.sh: no llvm-mca" >&2; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cat >"$tmp/k.c" <<'END'
#define FLASH_STATIC
#define FLASH_KEEP_INTERNALS
#define FLASH_IMPLEMENTATION
#include "flash.h"
int kernels(flash__kernels *k, int isa);
int kernels(flash__kernels *k, int isa) { return (int)flash__kernels_select(k, (flash_isa)isa); }
END
"$cc" --target=aarch64-linux-gnu -std=c99 -D_GNU_SOURCE -O2 -w -I"${FLASH_DIR:-.}" -S \
    "$tmp/k.c" -o "$tmp/k.s"

# loop FUNCTION OP COUNT: the shortest loop of that function with COUNT times OP in it, which is
# the one for types with one scale a block and no minimum.
loop() {
    awk -v fn="$1" -v op="$2" -v want="$3" '
    function cut(   i, j, l, c, from, to) {
        for (i = 1; i <= n; i++) {
            if (line[i] !~ /^\tb\.?[a-z]*[ \t]+\.L[A-Za-z0-9_]+$/ &&
                line[i] !~ /^\t[ct]bn?z[ \t].*\.L[A-Za-z0-9_]+$/) continue
            l = line[i]; sub(/.*[ \t]/, "", l)
            if (!(l in at) || at[l] > i) continue
            c = 0
            for (j = at[l]; j <= i; j++) if (line[j] ~ "^\t" op "[ \t]") c++
            if (c == want && (!from || i - at[l] < to - from)) { from = at[l]; to = i }
        }
        for (j = from; from && j <= to; j++) if (line[j] ~ /^\t[a-z]/) print line[j]
    }
    index($0, fn ":") == 1 { on = 1; n = 0 }
    on { sub(/[ \t]*\/\/.*/, ""); line[++n] = $0 }
    on && /^\.L[A-Za-z0-9_]+:/ { l = $1; sub(/:.*/, "", l); at[l] = n }
    on && /^\t\.size/ { cut(); on = 0 }' "$tmp/k.s"
}
# mca CPU FIELD <assembly
mca() {
    "$MCA" -mtriple=aarch64-linux-gnu -mcpu="$1" -mattr=+dotprod,+i8mm -iterations=200 |
        awk -v f="$2:" 'index($0, f) == 1 { print $NF }'
}

echo "$("$MCA" --version | sed -n 's/.*LLVM version /LLVM /p'), $("$cc" --version | head -n 1)"
printf '%-12s %-8s %7s  %9s %8s  %10s %8s\n' cpu kernel cycles 'dot limit' percent 'with float' percent
for row in cortex-a76:dotprod:sdot:64 neoverse-n1:dotprod:sdot:64 neoverse-v1:dotprod:sdot:64 \
    neoverse-v1:i8mm:smmla:32; do
    cpu=${row%%:*} rest=${row#*:}
    kernel=${rest%%:*} rest=${rest#*:}
    op=${rest%%:*} count=${rest#*:}
    loop "flash__panel_$kernel" "$op" "$count" >"$tmp/loop.s"
    [ -s "$tmp/loop.s" ] || { echo "mca.sh: no loop found for $kernel" >&2; exit 1; }
    total=$(mca "$cpu" 'Total Cycles' <"$tmp/loop.s")
    dot=$(grep "^${tab}$op" "$tmp/loop.s" | mca "$cpu" 'Block RThroughput')
    all=$(grep -E "^$tab(sdot|smmla|f|zip|mov[[:space:]]+v|movi|dup)" "$tmp/loop.s" |
        mca "$cpu" 'Block RThroughput')
    awk -v c="$cpu" -v k="$kernel" -v t="$total" -v d="$dot" -v a="$all" 'BEGIN {
        t /= 200
        printf "%-12s %-8s %7.1f  %9.1f %7.0f%%  %10.1f %7.0f%%\n", c, k, t, d, 100*d/t, a, 100*a/t }'
done
