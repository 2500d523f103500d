# Sums the lines "NAME: N passed, N failed, N skipped" of the test logs. A program without such a
# line, or with an exit code its line does not explain, counts as one failed.
/[0-9]+ passed, [0-9]+ failed/ {
    p = f = s = 0
    for (i = 1; i < NF; i++) {
        if ($(i + 1) ~ /^passed/) p = $i
        if ($(i + 1) ~ /^failed/) f = $i
        if ($(i + 1) ~ /^skipped/) s = $i
    }
    seen = 1
}
/^[0-9]+ files, no crash$/ { # a fuzzer's replay of its corpus
    p = $1
    f = s = 0
    seen = 1
}
/^exit [0-9]+, [0-9]+ s$/ {
    if (!seen || ($2 + 0 && !f)) {
        print FILENAME ": " (seen ? "" : "no summary, ") $0
        f = seen ? 1 : f + 1
    }
    passed += p; failed += f; skipped += s
    p = f = s = seen = 0
}
END {
    printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
    exit failed > 0
}
