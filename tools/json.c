/* json.c - see json.h. */
#include "json.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    const char *at, *end, *begin_line;
    int line, loose;
    json_error *err;
} reader;

/* Records an error, found at `at`, unless there is one already. Returns 0. */
static int wrong(reader *r, const char *at, const char *what)
{
    if (!*r->err->text) {
        r->err->line = r->line;
        r->err->column = (int)(at - r->begin_line) + 1;
        snprintf(r->err->text, sizeof r->err->text, "%s", what);
    }
    return 0;
}

static void blanks(reader *r)
{
    for (; r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at; r->at++)
        if (*r->at == '\n') {
            r->line++;
            r->begin_line = r->at + 1;
        }
}

/* Skips text if it comes next. Returns 1 if so. */
static int word(reader *r, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, text, n)) return 0;
    r->at += n;
    return 1;
}

/* Returns how many bytes the UTF-8 character at p has; 0 if it is not valid. */
static int utf8(const unsigned char *p, size_t left)
{
    int n = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;
    if ((size_t)n > left) return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90)
        || (*p == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

/* Reads four hexadecimal digits; returns -1 if there are not four. */
static long hex(reader *r)
{
    long v = 0;
    if (r->end - r->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef", *d;
        int c = *r->at++;
        d = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;
        if (!d) return -1;
        v = v << 4 | (long)(d - digits);
    }
    return v;
}

/* Reads an escape sequence and appends its character to *to, as UTF-8. Returns 0 on an error. */
static int escape(reader *r, char **to)
{
    static const char from[] = "\"\\/bfnrt", is[] = "\"\\/\b\f\n\r\t";
    const char *at = r->at++, *p;
    long u, low;
    if (r->at == r->end) return wrong(r, at, "the text does not end");
    if (*r->at != 'u') {
        p = *r->at ? strchr(from, *r->at++) : NULL;
        if (!p) return wrong(r, at, "no escape of JSON");
        *(*to)++ = is[p - from];
        return 1;
    }
    r->at++;
    u = hex(r);
    if (u >= 0xd800 && u < 0xdc00) {
        low = word(r, "\\u") ? hex(r) : -1;
        u = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((u - 0xd800) << 10) + low - 0xdc00 : -1;
    }
    if (u <= 0 || (u >= 0xd800 && u < 0xe000)) return wrong(r, at, "no character, or half of one");
    if (u < 0x80) {
        *(*to)++ = (char)u;
    } else {
        int n = u < 0x800 ? 1 : u < 0x10000 ? 2 : 3;
        *(*to)++ = (char)((0xff00 >> (n + 1) & 0xff) | u >> 6 * n);
        while (n--) *(*to)++ = (char)(0x80 | (u >> 6 * n & 0x3f));
    }
    return 1;
}

/* Reads a text in quotes, which the caller frees; NULL on an error. */
static char *text(reader *r)
{
    const char *begin = r->at, *stop = r->at + 1;
    while (stop < r->end && *stop != '"') stop += *stop == '\\' && stop + 1 < r->end ? 2 : 1;
    char *out = malloc((size_t)(stop - begin) + 1), *to = out;
    if (!out) {
        wrong(r, begin, "out of memory");
        return NULL;
    }
    for (r->at++; r->at < r->end && *r->at != '"';) {
        int n = utf8((const unsigned char *)r->at, (size_t)(r->end - r->at));
        if (!n || (unsigned char)*r->at < ' ') {
            wrong(r, r->at, n ? "a control character in a text" : "not UTF-8");
            break;
        }
        if (*r->at == '\\') {
            if (!escape(r, &to)) break;
            continue;
        }
        memcpy(to, r->at, (size_t)n);
        to += n;
        r->at += n;
    }
    *to = 0;
    if (r->at < r->end && *r->at == '"' && !*r->err->text) {
        r->at++;
        return out;
    }
    free(out);
    wrong(r, begin, "the text does not end");
    return NULL;
}

static void digits(const char **p, const char *end)
{
    while (*p < end && **p >= '0' && **p <= '9') ++*p;
}

static int number(reader *r, json *j)
{
    const char *begin = r->at, *p = begin, *from;
    if (r->loose) {
        int minus = word(r, "-");
        int found = word(r, "NaN") ? 1 : word(r, "Infinity") ? 2 : 0;
        j->number = found == 1 ? NAN : minus ? -INFINITY : INFINITY;
        if (found) return 1;
        r->at = begin;
    }
    p += *p == '-';
    from = p;
    digits(&p, r->end);
    if (p == from || (*from == '0' && p > from + 1))
        return wrong(r, begin, p == from ? "no value of JSON" : "a number that begins with 0");
    if (p < r->end && *p == '.') {
        from = ++p;
        digits(&p, r->end);
        if (p == from) return wrong(r, begin, "a number without digits after its point");
    }
    if (p < r->end && (*p == 'e' || *p == 'E')) {
        p++;
        p += p < r->end && (*p == '+' || *p == '-');
        from = p;
        digits(&p, r->end);
        if (p == from) return wrong(r, begin, "a number without digits after its e");
    }
    j->text = malloc((size_t)(p - begin) + 1);
    if (!j->text) return wrong(r, begin, "out of memory");
    memcpy(j->text, begin, (size_t)(p - begin));
    j->text[p - begin] = 0;
    j->number = strtod(j->text, NULL);
    if (!isfinite(j->number)) return wrong(r, begin, "a number that is too large");
    r->at = p;
    return 1;
}

static json *value(reader *r, int depth);

/* Reads the items of the list or object j. Returns 0 on an error. */
static int items(reader *r, json *j, int depth)
{
    json **to = &j->child;
    char close = j->type == JSON_LIST ? ']' : '}';
    const char *begin = r->at++;
    if (depth == JSON_DEPTH) return wrong(r, begin, "nested too deeply");
    blanks(r);
    if (r->at < r->end && *r->at == close) {
        r->at++;
        return 1;
    }
    for (;;) {
        char *key = NULL;
        blanks(r);
        if (j->type == JSON_OBJECT) {
            const char *at = r->at;
            char what[140];
            if (at == r->end || *at != '"') return wrong(r, at, "want a key in quotes");
            key = text(r);
            if (!key) return 0;
            if (json_get(j, key) || j->n == JSON_KEYS_MAX) {
                snprintf(what, sizeof what,
                         j->n == JSON_KEYS_MAX ? "too many keys" : "\"%.100s\" was there before",
                         key);
                free(key);
                return wrong(r, at, what);
            }
            blanks(r);
            if (r->at == r->end || *r->at != ':') {
                free(key);
                return wrong(r, r->at, "want a colon after the key");
            }
            r->at++;
        }
        *to = value(r, depth + 1);
        if (!*to) {
            free(key);
            return 0;
        }
        (*to)->key = key;
        to = &(*to)->next;
        j->n++;
        blanks(r);
        if (r->at < r->end && *r->at == close) {
            r->at++;
            return 1;
        }
        if (r->at == r->end || *r->at != ',')
            return wrong(r, r->at, close == ']' ? "want , or ]" : "want , or }");
        r->at++;
    }
}

static json *value(reader *r, int depth)
{
    json *j = calloc(1, sizeof *j);
    int good;
    blanks(r);
    if (!j || r->at == r->end) {
        wrong(r, r->at, j ? "it ends here, too early" : "out of memory");
        free(j);
        return NULL;
    }
    j->line = r->line;
    j->column = (int)(r->at - r->begin_line) + 1;
    switch (*r->at) {
    case '{':
        j->type = JSON_OBJECT;
        good = items(r, j, depth);
        break;
    case '[':
        j->type = JSON_LIST;
        good = items(r, j, depth);
        break;
    case '"':
        j->type = JSON_TEXT;
        j->text = text(r);
        good = j->text != NULL;
        break;
    case 't':
        j->type = JSON_TRUE;
        good = word(r, "true");
        break;
    case 'f':
        j->type = JSON_FALSE;
        good = word(r, "false");
        break;
    case 'n':
        j->type = JSON_NULL;
        good = word(r, "null");
        break;
    default: j->type = JSON_NUMBER; good = number(r, j);
    }
    if (good) return j;
    wrong(r, r->at, "no value of JSON");
    json_free(j);
    return NULL;
}

json *json_read(const char *s, size_t bytes, int loose, json_error *err)
{
    reader r = {s, s + bytes, s, 1, loose, err};
    json *j;
    memset(err, 0, sizeof *err);
    j = value(&r, 0);
    blanks(&r);
    if (j && r.at < r.end) {
        wrong(&r, r.at, "more after the end");
        json_free(j);
        j = NULL;
    }
    return j;
}

void json_free(json *j)
{
    while (j) {
        json *next = j->next;
        json_free(j->child);
        free(j->key);
        free(j->text);
        free(j);
        j = next;
    }
}

json *json_get(const json *object, const char *key)
{
    json *j = object->type == JSON_OBJECT ? object->child : NULL;
    while (j && strcmp(j->key, key)) j = j->next;
    return j;
}
