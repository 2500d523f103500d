# stories.awk - the training text of examples/models: stories in lower case get their capitals back.
#   awk -f tools/stories.awk SAMPLE STORIES >OUT
# SAMPLE, text with capitals, tells which words are names; so does "named" in a story. A story of
# STORIES ends where a line is followed by another without an empty one between; in OUT, before
# <|endoftext|>. Stories with other marks than ASCII's are left out.

# Adds word by word what SAMPLE shows within sentences.
FNR == NR {
    n = split($0, w, " ")
    for (i = 2; i <= n; i++) {
        if (w[i - 1] ~ /[.!?"]$/ || w[i] ~ /^"/)
            continue
        gsub(/'s$|[^A-Za-z']/, "", w[i])
        if (w[i] ~ /^[A-Z]/)
            high[tolower(w[i])]++
        else
            low[w[i]]++
    }
    next
}

function is_name(word)
{
    return ((word in here) && low[word] < 9) || (high[word] > 1 && high[word] > low[word])
}

# The text with capitals where sentences and names begin.
function capitals(text,    out, word, start, c)
{
    out = ""
    start = 1
    while (match(text, /[a-z]+/)) {
        c = substr(text, 1, RSTART - 1)
        word = substr(text, RSTART, RLENGTH)
        text = substr(text, RSTART + RLENGTH)
        if (c ~ /[.!?]["' ]* "?$/ || c ~ /(^|[ \n])"$/ || c ~ /\n/)
            start = 1
        # not the s of it's, nor the m of i'm
        if (start || ((word == "i" || is_name(word)) && c !~ /'$/))
            word = toupper(substr(word, 1, 1)) substr(word, 2)
        out = out c word
        start = 0
    }
    return out text
}

function flush(    n, i, w)
{
    if (length(story) > 200 && story !~ /[^ -~\n]/) {
        split("", here)
        n = split(story, w, /[ \n]+/)
        for (i = 1; i < n; i++)
            if (w[i] == "named" && w[i + 1] !~ /^(after|the|a|it|him|her|his)[^a-z]*$/) {
                gsub(/'s|[^a-z]/, "", w[i + 1])
                here[w[i + 1]]
            }
        printf "%s\n<|endoftext|>\n", capitals(story)
    }
    story = ""
}

$0 == "" { blank = 1; next }
{
    gsub(/â€œ|â€\235|â€|“|”/, "\"") # some were read in a wrong encoding
    gsub(/â€™|’/, "'")
    gsub(/â€“|â€”|–|—/, "-")
    if (story != "" && !blank)
        flush()
    story = story == "" ? $0 : story "\n\n" $0
    blank = 0
}
END { flush() }
