/* json.h - a strict reader of JSON (RFC 8259): UTF-8, no duplicate keys, bounded depth. */
#ifndef FLASH_JSON_H
#define FLASH_JSON_H

#include <stddef.h>

enum { JSON_DEPTH = 32, JSON_KEYS_MAX = 1024 };

typedef enum json_type {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_TEXT,
    JSON_LIST,
    JSON_OBJECT
} json_type;

typedef struct json {
    json_type type;
    int line, column; /* where it begins, from 1 */
    char *key;        /* of a member of an object, else NULL */
    char *text;       /* of texts and, as it was written, of numbers */
    double number;
    int n; /* items of lists and objects */
    struct json *child, *next;
} json;

typedef struct json_error {
    int line, column;
    char text[160];
} json_error;

/* [bytes] of text, which holds one value; NULL, and why in err. loose: numbers may be NaN and
   Infinity, as Python writes them. */
json *json_read(const char *text, size_t bytes, int loose, json_error *err);
void json_free(json *j);
/* The member of that name; NULL: none. */
json *json_get(const json *object, const char *key);

#endif
