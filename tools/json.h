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
    int line, column; /* where the value begins, from 1 */
    char *key;        /* name of a member of an object, else NULL */
    char *text;       /* of a text; of a number: as it was written */
    double number;
    int n;                     /* number of items of a list or an object */
    struct json *child, *next; /* first item; next item of the same list or object */
} json;

typedef struct json_error {
    int line, column;
    char text[160];
} json_error;

/* Reads [bytes] of text, which holds one value, and returns it; json_free frees it. Returns NULL
   and sets *err if the text is wrong. loose 1: numbers may be NaN and Infinity, as Python writes
   them. */
json *json_read(const char *text, size_t bytes, int loose, json_error *err);
void json_free(json *j);
/* Returns the member of that name; NULL if there is none. */
json *json_get(const json *object, const char *key);

#endif
