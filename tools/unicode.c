/* Makes the character class table of flash.h (section >>unicode) from the Unicode character
   database.

       cc tools/unicode.c -o build/unicode && build/unicode UnicodeData.txt PropList.txt

   Prints an entry start*16 + class for each run of characters of the same class, as in the table of
   flash.h. Class 9 is a run of upper and lower case letters that take turns, upper case first
   (Latin Extended has hundreds of such pairs). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OTHER, UPPER, LOWER, LETTER, MARK, NUMBER, PUNCT, SYMBOL, SPACE, CASES, LAST = 0x110000 };
static unsigned char kind[LAST + 1];

static int class_of(const char *category)
{
    switch (category[0]) {
    case 'L': return strchr("ut", category[1]) ? UPPER : category[1] == 'l' ? LOWER : LETTER;
    case 'M': return MARK;
    case 'N': return NUMBER;
    case 'P': return PUNCT;
    case 'S': return SYMBOL;
    default: return OTHER;
    }
}

static FILE *open_or_die(const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "unicode: cannot open %s\n", path);
        exit(1);
    }
    return f;
}

int main(int argc, char **argv)
{
    char line[1024];
    unsigned long first = 0, a, b, c, n = 0;
    FILE *f;
    if (argc != 3) {
        fprintf(stderr, "usage: unicode UnicodeData.txt PropList.txt\n");
        return 2;
    }
    f = open_or_die(argv[1]);
    while (fgets(line, sizeof line, f)) {
        char *name = strchr(line, ';'), *category = name ? strchr(name + 1, ';') : NULL;
        if (!category) continue;
        a = b = strtoul(line, NULL, 16);
        if (strstr(name, ", First>")) {
            first = a;
            continue;
        }
        if (strstr(name, ", Last>")) a = first;
        for (; a <= b && a < LAST; a++) kind[a] = (unsigned char)class_of(category + 1);
    }
    fclose(f);
    f = open_or_die(argv[2]);
    while (fgets(line, sizeof line, f)) {
        char *end;
        if (!strstr(line, "; White_Space")) continue;
        a = b = strtoul(line, &end, 16);
        if (*end == '.') b = strtoul(end + 2, NULL, 16);
        for (; a <= b && a < LAST; a++) kind[a] = SPACE;
    }
    fclose(f);
    kind[LAST] = 255;
    for (a = 128; a < LAST; a = b) { /* ASCII has classes of its own in flash.h */
        int k = kind[a];
        for (c = a; kind[c] == ((c - a) & 1 ? LOWER : UPPER); c++) {}
        if (c - a >= 4) {
            k = CASES;
            b = c - (c - a) % 2;
        } else
            for (b = a; kind[b] == kind[a]; b++) {
                for (c = b; kind[c] == ((c - b) & 1 ? LOWER : UPPER); c++) {}
                if (b > a && c - b >= 4) break;
            }
        printf("%s0x%lx,", n % 9 ? " " : n ? "\n    " : "    ", a * 16 + (unsigned long)k);
        n++;
    }
    printf("\n");
    fprintf(stderr, "%lu entries\n", n);
    return 0;
}
