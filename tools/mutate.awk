# For tools/mutate.sh. With STRIP=1: flash.h without comments and empty lines, whose line numbers then
# depend on code alone. Otherwise lists all changes of that in a random order that SEED decides: one
# operator, constant or bound each. A line out, with @ between: section, line number, column, length,
# replacement, old text, and 1 if it is known to change no result (KNOWN: see tools/mutate.known).
#   awk -v STRIP=1 -f tools/mutate.awk flash.h
#   awk -v SEED=1 -v SECTION=name -v KNOWN=tools/mutate.known -f tools/mutate.awk stripped
# Code alone is changed: no texts, preprocessor lines, declarations of the interface, and no rows of
# bare numbers, which are data. The formatter's blanks tell a product from a pointer.

function random() # minimal standard generator (Park and Miller 1988): the same in every awk
{
    state = state * 16807 % 2147483647
    return state / 2147483647
}
function site(at, length_, new,    old, line, why)
{
    old = substr($0, at, length_)
    line = $0
    sub(/^ */, "", line)
    why = reason[section "\t" old " -> " new "\t" line]
    if (why == "") why = reason[section "\t*\t" line]
    text[++n] = why ~ /^speed/ ? "" : section "@" NR "@" at "@" length_ "@" new "@" old "@" (why != "")
}
# Code of the line with what is not code blanked, so that columns stay; plain still has its texts.
function code_of(s,    out, i, c, two)
{
    out = plain = ""
    for (i = 1; i <= length(s); i++) {
        c = substr(s, i, 1)
        two = substr(s, i, 2)
        if (comment) {
            if (two == "*/") {
                comment = 0
                i++
                out = out " "
                plain = plain " "
            }
            out = out " "
            plain = plain " "
        } else if (quote != "") {
            plain = plain c
            if (c == "\\") {
                plain = plain substr(s, ++i, 1)
                out = out " "
            } else if (c == quote)
                quote = ""
            out = out " "
        } else if (two == "/*") {
            comment = 1
            i++
            out = out "  "
            plain = plain "  "
        } else if (c == "\"" || c == "'") {
            quote = c
            out = out " "
            plain = plain c
        } else {
            out = out c
            plain = plain c
        }
    }
    quote = ""
    return out
}
BEGIN {
    state = SEED % 2147483646 + 1
    for (i = 0; i < 10; i++) random()
    split("+ - * / % < <= > >= == != && || & | ^ << >> += -= *= |= &= <<= >>=", from)
    split("- + + * / <= < >= > != == || && | & | >> << -= += += &= |= >>= <<=", to)
    for (i in from) other[from[i]] = to[i]
    while (KNOWN != "" && (getline line < KNOWN) > 0)
        if (line !~ /^#/ && split(line, field, " @ ") == 4)
            reason[field[1] "\t" field[2] "\t" field[3]] = field[4]
}
/^\/\* ===== >>/ {
    section = substr($3, 3)
    if (section == "config") inside = 1
    if (section == "cleanup") inside = 0
}
{
    before = comment
    code = code_of($0)
    if (STRIP) {
        sub(/ +$/, "", plain)
        if (/^\/\* ===== >>/) print
        else if (plain != "") print plain
        next
    }
    macro = continued || (!before && code ~ /^ *#/)
    continued = macro && /\\$/
    if (!inside || macro || section == "config" || (SECTION != "" && section != SECTION)) next
    rest = code
    gsub(/[-0-9a-fA-FxuUlL., ]/, "", rest)
    if (rest == "") next
    for (i = 1; i <= length(code); i++) {
        c = substr(code, i, 1)
        if (c == " ") {
            rest = substr(code, i + 1)
            if (match(rest, /^[-+*\/%<>=!&|^]+ /) && (op = substr(rest, 1, RLENGTH - 1)) in other)
                site(i + 1, RLENGTH - 1, other[op])
            continue
        }
        if (c == "!" && substr(code, i + 1, 1) ~ /[a-zA-Z_(*]/) site(i, 1, "")
        if (substr(code, i, 2) == "++") site(i++, 2, "--")
        else if (substr(code, i, 2) == "--") site(i++, 2, "++")
        else if (c ~ /[A-Za-z_]/) {
            match(substr(code, i), /^[A-Za-z0-9_]+/)
            i += RLENGTH - 1
        } else if (c ~ /[0-9]/ && substr(code, i, 2) != "0x") {
            match(substr(code, i), /^[0-9][0-9.]*([eE][-+]?[0-9]+)?[uUlLfF]*/)
            number = substr(code, i, RLENGTH)
            # arrays become shorter, not longer: a longer one changes nothing
            bound = substr(code, i - 1, 1) == "[" && substr(code, i + RLENGTH, 1) == "]"
            if (number ~ /[.eEfF]/) site(i, RLENGTH, "(2 * " number ")")
            else if (number ~ /^0/) site(i, RLENGTH, "1")
            else site(i, RLENGTH, "(" number (bound || NR % 2 ? " - 1)" : " + 1)"))
            i += RLENGTH - 1
        }
    }
}
END {
    for (i = n; i > 1; i--) { # Fisher and Yates
        j = int(random() * i) + 1
        t = text[i]
        text[i] = text[j]
        text[j] = t
    }
    for (i = 1; i <= n; i++) if (text[i] != "") print text[i]
}
