#!/bin/sh
# The table of contents of flash.h must list exactly the banners, in order. (The quick start has
# marks of its own.)
toc=$(sed -n '/TABLE OF CONTENTS/,/^ *LICENCE/p' flash.h | grep -o '^ *>>[a-z0-9-]*' | tr -d ' ')
banners=$(sed '/^\/\/ >>quick-start/,/^\/\/ <<quick-start/d' flash.h |
    grep -o '^/\* ===== >>[a-z0-9-]* =*=\{3\} \*/' | grep -o '>>[a-z0-9-]*')
[ -n "$toc" ] && [ "$toc" = "$banners" ] && exit 0
echo "the table of contents (<) and the banners (>) differ:"
mkdir -p build/lint
echo "$toc" >build/lint/toc
echo "$banners" | diff build/lint/toc - | grep '^[<>]'
exit 1
