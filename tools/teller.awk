# teller.awk - what a story model wrote, as training text: texts end before <|endoftext|> lines, and
# where another begins in the middle; what is cut off at the end is left out.
#   awk -f tools/teller.awk TEXT >OUT
function flush(    i)
{
    while (match(story, /[.!?"](Once upon a time|One day)/)) {
        put(substr(story, 1, RSTART))
        story = substr(story, RSTART + 1)
    }
    put(story)
    story = ""
}

function put(text)
{
    if (length(text) > 200 && text ~ /[.!?"]$/ && text !~ /[^ -~\n]/)
        printf "%s\n<|endoftext|>\n", text
}

$0 == "<|endoftext|>" { flush(); next }
$0 != "" { story = story == "" ? $0 : story "\n\n" $0 }
END { flush() }
