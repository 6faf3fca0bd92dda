/* SPDX-License-Identifier: MIT
 *
 * jfield: JSON to struct and back by tables. Only jfield.c and jfield_encode.c include jansson.
 * A table row maps a key to a type, a place in a struct and its limits. Decoding refuses unknown
 * and duplicate keys, wrong types, out-of-range values, NUL in strings, invalid UTF-8, more than
 * LIMIT_JSON_DEPTH levels and trailing bytes; the error names the field and the rule it broke
 * (ERR_JSON, ERR_FIELD_UNKNOWN, ERR_FIELD_MISSING, ERR_FIELD_INVALID).
 *
 * Absent or null means: strings NULL, vectors empty, numbers and booleans the row's `def`, optional
 * objects `present` false. Encoding leaves out NULL strings and absent objects unless JF_NULL asks
 * for null; numbers (but see JF_UNSET), booleans, vectors and maps are always written.
 */
#pragma once

#include "common/err.h"
#include "common/sbuf.h"
#include "common/strv.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum jtype {
    JT_STR,     /* char *, owned */
    JT_BOOL,    /* bool */
    JT_U32,     /* uint32_t */
    JT_U64,     /* uint64_t */
    JT_AMOUNT,  /* uint64_t; a number, with JF_SIZE also as in "16G"; see JF_UNLIMITED */
    JT_I32,     /* int32_t */
    JT_TIME,    /* int64_t microseconds; RFC 3339 on the wire; 0 is written as null */
    JT_BYTES,   /* struct jbytes: base64 on the wire */
    JT_STRV,    /* struct strv; array of strings */
    JT_MAP,     /* struct strv of "key=value"; object of strings */
    JT_OBJ,     /* embedded struct with a table; its first member may be `bool present` (JF_OPT) */
    JT_LIST,    /* struct jlist of structs with a table */
    JT_DICT,    /* the same as an object; each struct begins with `char *key`, owned */
};

struct jbytes { uint8_t *data; size_t len; };              /* data owned */
struct jlist { void *items; size_t n; };                   /* items owned, array of structs */

#define JF_REQUIRED 1u   /* must be there on decode */
#define JF_NULL 2u       /* write null instead of leaving it out */
#define JF_OPT 4u        /* JT_OBJ: optional; the struct begins with `bool present` */
#define JF_ZERO 8u       /* numbers: 0 ("the default") is right whatever min says */
#define JF_SIZE 16u      /* JT_AMOUNT: text that parse_size() knows is right too */
#define JF_UNLIMITED 32u /* JT_AMOUNT: -1 and "unlimited" are JSON_UNLIMITED; written as -1 */
#define JF_UNSET 64u     /* JT_U64: absent is JSON_UNSET, and that is left out: 0 can be said */
#define JSON_UNLIMITED UINT64_MAX
#define JSON_UNSET UINT64_MAX

struct jfield {
    const char *key;
    enum jtype type;
    size_t offset;
    unsigned flags;
    uint64_t min, max;          /* numbers: range; strings: length; vectors: items; max 0: any */
    uint64_t item_max;          /* JT_STRV, JT_MAP: bytes of one item or value; JT_DICT: of a key */
    uint64_t def;               /* numbers and booleans */
    bool (*check)(const char *);/* strings, each item of a vector ("key=value" for maps), keys */
    const char *rule;           /* words for what `check` wants: "a name of [a-z0-9_.-]" */
    const struct jfield *table; /* JT_OBJ, JT_LIST, JT_DICT */
    size_t item_size;           /* JT_LIST, JT_DICT */
};

/* A table ends with a row whose key is NULL. */
#define JF_END { .key = NULL }
#define JF(struct_type, member, jtype_, ...) \
    { .key = #member, .type = jtype_, .offset = offsetof(struct_type, member), ##__VA_ARGS__ }

/* `out` is zeroed first; on failure everything is freed again. len is limited by the caller. */
int json_decode(const struct jfield *table, const char *text, size_t len, void *out, struct err *e);
/* The same for replies a client reads: keys it does not know, at any depth, are passed over, so
 * that
 * a newer daemon may say more. */
int json_decode_lenient(const struct jfield *table, const char *text, size_t len, void *out,
                        struct err *e);
/* Appends compact JSON of the struct. */
int json_encode(const struct jfield *table, const void *in, struct sbuf *b, struct err *e);
/* Frees all that the table owns and zeroes it. `size` of the struct. */
void json_done(const struct jfield *table, void *obj, size_t size);
/* Sets jansson up, its hash and its allocations; call before the first thread. */
void json_init(void);
