/* SPDX-License-Identifier: MIT */
#include "common/jfield.h"
#include "common/auto.h"
#include "common/base64.h"
#include "common/limits.h"
#include "common/parse.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where in the document we are, for messages: a chain of keys and indexes on the stack. */
struct place {
    const struct place *up;
    const char *key;    /* NULL: an index */
    size_t index;
};

struct decoder {
    bool lenient;
};

static void *member(const void *obj, const struct jfield *f)
{
    return (char *)(uintptr_t)obj + f->offset;
}

static void json_release(json_t **j)
{
    json_decref(*j);
}
#define autojson __attribute__((cleanup(json_release)))

/* ---- memory of the library ---- */

/* jansson (2.14) does not look whether the text of a token could be kept, and then reads beyond its
 * end. So while it parses it never sees an allocation fail: we leave it by longjmp(), and free what
 * it had. What is parsed is freed by the thread that parsed it. */
struct block { struct block *next, *prev; };    /* two pointers keep what follows aligned */

static _Thread_local struct block parsed;       /* head of a ring; zeroes: not begun */
static _Thread_local jmp_buf give_up;
static _Thread_local bool parsing;

static void *library_malloc(size_t n)
{
    struct block *b = n < SIZE_MAX - sizeof(*b) ? malloc(sizeof(*b) + n) : NULL;

    if (!b && parsing)
        longjmp(give_up, 1);
    if (!b)
        return NULL;
    *b = (struct block){ b, b };
    if (parsing) {
        *b = (struct block){ parsed.next, &parsed };
        parsed.next = b->next->prev = b;
    }
    return b + 1;
}

static void library_free(void *p)
{
    struct block *b = p;

    if (!b--)
        return;
    b->prev->next = b->next;
    b->next->prev = b->prev;
    free(b);
}

/* NULL with error->text[0] 0: out of memory. */
static json_t *load(const char *text, size_t len, json_error_t *error)
{
    parsed = (struct block){ &parsed, &parsed };
    if (setjmp(give_up)) {
        parsing = false;
        while (parsed.next != &parsed)
            library_free(parsed.next + 1);
        error->text[0] = '\0';
        return NULL;
    }
    parsing = true;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, error);
    parsing = false;
    return root;
}

void json_init(void)
{
    json_set_alloc_funcs(library_malloc, library_free);
    json_object_seed(0);
}

/* ---- messages ---- */

static void place_text(const struct place *p, struct sbuf *b)
{
    if (!p)
        return;
    place_text(p->up, b);
    if (!p->key)
        sbuf_fmt(b, "[%zu]", p->index);
    else
        sbuf_fmt(b, "%s%s", b->len > 0 ? "." : "", p->key);
}

/* "field 'workspace.path': text". The place is cut where it does not fit: keys of maps are the
 * caller's words. */
static __attribute__((format(printf, 4, 5))) int field_error(const struct place *p,
                                                             enum err_code code, struct err *e,
                                                             const char *fmt, ...)
{
    autosbuf struct sbuf where = SBUF(1024);
    char text[160];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    place_text(p, &where);
    return err_set(e, code, "field '%.*s': %s", 80, where.failed ? "…" : sbuf_str(&where), text);
}

static int bad_type(const struct place *p, const char *want, const json_t *j, struct err *e)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a number with a fraction or exponent",
        [JSON_TRUE] = "true",          [JSON_FALSE] = "false",    [JSON_NULL] = "null",
    };
    _Static_assert(ARRAY_SIZE(names) == JSON_NULL + 1, "a name for each type");

    return field_error(p, ERR_FIELD_INVALID, e, "must be %s, not %s", want,
                       names[json_typeof(j)]);
}

static void hint_known_keys(const struct jfield *table, struct err *e)
{
    autosbuf struct sbuf keys = SBUF(4096);

    for (const struct jfield *f = table; f->key; f++)
        sbuf_fmt(&keys, "%s%s", f == table ? "" : ", ", f->key);
    err_hint(e, "known here: %s", sbuf_str(&keys));
}

/* ---- freeing and defaults ---- */

static void free_fields(const struct jfield *table, void *obj)
{
    for (const struct jfield *f = table; f->key; f++) {
        void *m = member(obj, f);

        switch (f->type) {
        case JT_STR:
            free(*(char **)m);
            break;
        case JT_BYTES:
            free(((struct jbytes *)m)->data);
            break;
        case JT_STRV:
        case JT_MAP:
            strv_done(m);
            break;
        case JT_OBJ:
            free_fields(f->table, m);
            break;
        case JT_LIST:
        case JT_DICT: {
            struct jlist *l = m;

            for (size_t i = 0; i < l->n; i++) {
                void *item = (char *)l->items + i * f->item_size;
                free_fields(f->table, item);
                if (f->type == JT_DICT)
                    free(*(char **)item);
            }
            free(l->items);
            break;
        }
        case JT_BOOL:
        case JT_U32:
        case JT_U64:
        case JT_AMOUNT:
        case JT_I32:
        case JT_TIME:
            break;
        }
    }
}

/* What absent means: NULL, empty, or the row's default. */
static void set_defaults(const struct jfield *table, void *obj)
{
    for (const struct jfield *f = table; f->key; f++) {
        void *m = member(obj, f);

        switch (f->type) {
        case JT_STR:
            *(char **)m = NULL;
            break;
        case JT_BOOL:
            *(bool *)m = f->def != 0;
            break;
        case JT_U32:
            *(uint32_t *)m = (uint32_t)f->def;
            break;
        case JT_U64:
        case JT_AMOUNT:
            *(uint64_t *)m = f->flags & JF_UNSET ? JSON_UNSET : f->def;
            break;
        case JT_I32:
            *(int32_t *)m = (int32_t)f->def;
            break;
        case JT_TIME:
            *(int64_t *)m = (int64_t)f->def;
            break;
        case JT_BYTES:
            *(struct jbytes *)m = (struct jbytes){ 0 };
            break;
        case JT_STRV:
        case JT_MAP:
            *(struct strv *)m = STRV_INIT;
            break;
        case JT_OBJ:
            set_defaults(f->table, m);
            if (f->flags & JF_OPT)
                *(bool *)m = false;
            break;
        case JT_LIST:
        case JT_DICT:
            *(struct jlist *)m = (struct jlist){ 0 };
            break;
        }
    }
}

void json_done(const struct jfield *table, void *obj, size_t size)
{
    free_fields(table, obj);
    memset(obj, 0, size);
}

/* ---- decoding ---- */

static int decode_object(const struct decoder *d, const struct jfield *table, json_t *j, void *obj,
                         const struct place *at, struct err *e);

static int check_string(const struct jfield *f, const char *s, size_t len, uint64_t min,
                        uint64_t max, const struct place *at, struct err *e)
{
    if (len < min && min == 1)
        return field_error(at, ERR_FIELD_INVALID, e, "must not be empty");
    if (len < min)
        return field_error(at, ERR_FIELD_INVALID, e, "must have at least %llu bytes",
                           (unsigned long long)min);
    if (max > 0 && len > max)
        return field_error(at, ERR_FIELD_INVALID, e, "has %zu bytes, at most %llu are allowed", len,
                           (unsigned long long)max);
    if (f->check && !f->check(s))
        return field_error(at, ERR_FIELD_INVALID, e, "must be %s", f->rule ? f->rule : "valid");
    return 0;
}

static int decode_string(const struct jfield *f, json_t *j, char **ret, const struct place *at,
                         struct err *e)
{
    if (!json_is_string(j))
        return bad_type(at, "a string", j, e);
    if (check_string(f, json_string_value(j), json_string_length(j), f->min, f->max, at, e) < 0)
        return -1;
    *ret = strdup(json_string_value(j));
    return *ret ? 0 : err_nomem(e);
}

static int decode_bytes(const struct jfield *f, json_t *j, struct jbytes *ret,
                        const struct place *at, struct err *e)
{
    autofree uint8_t *data = NULL;
    size_t len;

    if (!json_is_string(j))
        return bad_type(at, "a base64 string", j, e);
    if (f->max > 0 && json_string_length(j) / 4 > f->max / 3 + 1)
        return field_error(at, ERR_FIELD_INVALID, e, "has more than %llu bytes",
                           (unsigned long long)f->max);
    data = malloc(json_string_length(j) / 4 * 3 + 1);
    if (!data)
        return err_nomem(e);
    if (!base64_decode(json_string_value(j), json_string_length(j), data, &len))
        return field_error(at, ERR_FIELD_INVALID, e, "must be base64 with padding");
    data[len] = '\0';
    if (len < f->min || (f->max > 0 && len > f->max))
        return field_error(at, ERR_FIELD_INVALID, e, "has %zu bytes, %llu to %llu are allowed", len,
                           (unsigned long long)f->min, (unsigned long long)f->max);
    *ret = (struct jbytes){ take_ptr(data), len };
    return 0;
}

/* The range of a row within what its type can hold. JSON integers are 64-bit signed here. */
static int decode_integer(const struct jfield *f, json_t *j, int64_t *ret, const struct place *at,
                          struct err *e)
{
    int64_t min = (int64_t)f->min, max = (int64_t)f->max, v;

    if (!json_is_integer(j))
        return bad_type(at, "an integer", j, e);
    v = json_integer_value(j);
    if (f->max == 0 && f->type == JT_I32) {
        min = INT32_MIN;
        max = INT32_MAX;
    } else if (f->max == 0 || f->max > INT64_MAX) {
        max = f->type == JT_U32 ? UINT32_MAX : INT64_MAX;
    }
    if ((v < min && !(v == 0 && f->flags & JF_ZERO)) || v > max)
        return field_error(at, ERR_FIELD_INVALID, e, "must be %lld to %lld, not %lld",
                           (long long)min, (long long)max, (long long)v);
    *ret = v;
    return 0;
}

static int decode_amount(const struct jfield *f, json_t *j, uint64_t *ret, const struct place *at,
                         struct err *e)
{
    bool size = f->flags & JF_SIZE, unlimited = f->flags & JF_UNLIMITED;
    uint64_t max = f->max ? f->max : INT64_MAX, v = 0;
    const char *text = json_is_string(j) ? json_string_value(j) : NULL;
    bool ok = json_is_integer(j) || (text && size && parse_size(text, &v));

    if (unlimited && text && strcmp(text, "unlimited") == 0) {
        *ret = JSON_UNLIMITED;
        return 0;
    }
    if (json_is_integer(j) && json_integer_value(j) == -1 && unlimited) {
        *ret = JSON_UNLIMITED;
        return 0;
    }
    if (json_is_integer(j)) {
        ok = json_integer_value(j) >= 0;
        v = (uint64_t)json_integer_value(j);
    }
    if (!ok)
        return field_error(at, ERR_FIELD_INVALID, e, "must be a number%s%s",
                           size ? ", or a size such as \"16G\"" : "",
                           unlimited ? ", or -1 or \"unlimited\" for no limit" : "");
    if (v < f->min || v > max)
        return field_error(at, ERR_FIELD_INVALID, e, "must be %llu to %llu, not %llu",
                           (unsigned long long)f->min, (unsigned long long)max,
                           (unsigned long long)v);
    *ret = v;
    return 0;
}

static int decode_time(json_t *j, int64_t *ret, const struct place *at, struct err *e)
{
    if (!json_is_string(j))
        return bad_type(at, "a time as a string", j, e);
    if (!parse_time(json_string_value(j), ret))
        return field_error(at, ERR_FIELD_INVALID, e,
                           "must be a time as 2026-01-02T03:04:05.678Z");
    return 0;
}

static int check_count(const struct jfield *f, size_t n, const struct place *at, struct err *e)
{
    if (n < f->min && f->min == 1)
        return field_error(at, ERR_FIELD_INVALID, e, "must not be empty");
    if (n < f->min)
        return field_error(at, ERR_FIELD_INVALID, e, "must have at least %llu items",
                           (unsigned long long)f->min);
    if (f->max > 0 && n > f->max)
        return field_error(at, ERR_FIELD_INVALID, e, "has %zu items, at most %llu are allowed", n,
                           (unsigned long long)f->max);
    return 0;
}

static int decode_strv(const struct jfield *f, json_t *j, struct strv *ret, const struct place *at,
                       struct err *e)
{
    json_t *item;
    size_t i;

    if (!json_is_array(j))
        return bad_type(at, "an array of strings", j, e);
    if (check_count(f, json_array_size(j), at, e) < 0)
        return -1;
    json_array_foreach(j, i, item) {
        struct place here = { .up = at, .index = i };

        if (!json_is_string(item))
            return bad_type(&here, "a string", item, e);
        if (check_string(f, json_string_value(item), json_string_length(item), 0, f->item_max,
                         &here, e) < 0 ||
            strv_add(ret, json_string_value(item), e) < 0)
            return -1;
    }
    return 0;
}

static int decode_map(const struct jfield *f, json_t *j, struct strv *ret, const struct place *at,
                      struct err *e)
{
    const char *key;
    json_t *item;

    if (!json_is_object(j))
        return bad_type(at, "an object of strings", j, e);
    if (check_count(f, json_object_size(j), at, e) < 0)
        return -1;
    json_object_foreach(j, key, item) {
        struct place here = { .up = at, .key = key };
        const char *value = json_string_value(item);

        if (!value)
            return bad_type(&here, "a string", item, e);
        /* "=" divides key from value in the vector */
        if (key[0] == '\0' || strchr(key, '='))
            return field_error(&here, ERR_FIELD_INVALID, e,
                               "the key must not be empty or have '='");
        if (f->item_max > 0 && json_string_length(item) > f->item_max)
            return field_error(&here, ERR_FIELD_INVALID, e,
                               "has %zu bytes, at most %llu are allowed", json_string_length(item),
                               (unsigned long long)f->item_max);
        if (strv_addf(ret, e, "%s=%s", key, value) < 0)
            return -1;
        if (f->check && !f->check(ret->items[ret->n - 1]))
            return field_error(&here, ERR_FIELD_INVALID, e, "must be %s",
                               f->rule ? f->rule : "valid");
    }
    return 0;
}

static int decode_list(const struct decoder *d, const struct jfield *f, json_t *j,
                       struct jlist *ret, const struct place *at, struct err *e)
{
    size_t i, n = json_array_size(j);
    json_t *item;

    if (!json_is_array(j))
        return bad_type(at, "an array of objects", j, e);
    if (check_count(f, n, at, e) < 0)
        return -1;
    if (n == 0)
        return 0;
    ret->items = calloc(n, f->item_size);
    if (!ret->items)
        return err_nomem(e);
    json_array_foreach(j, i, item) {
        struct place here = { .up = at, .index = i };
        void *obj = (char *)ret->items + i * f->item_size;

        set_defaults(f->table, obj);
        ret->n = i + 1;     /* half-built items are freed too */
        if (decode_object(d, f->table, item, obj, &here, e) < 0)
            return -1;
    }
    return 0;
}

static int decode_dict(const struct decoder *d, const struct jfield *f, json_t *j,
                       struct jlist *ret, const struct place *at, struct err *e)
{
    const char *key;
    json_t *value;

    if (!json_is_object(j))
        return bad_type(at, "an object of objects", j, e);
    if (check_count(f, json_object_size(j), at, e) < 0)
        return -1;
    if (json_object_size(j) == 0)
        return 0;
    ret->items = calloc(json_object_size(j), f->item_size);
    if (!ret->items)
        return err_nomem(e);
    json_object_foreach(j, key, value) {
        struct place here = { .up = at, .key = key };
        void *obj = (char *)ret->items + ret->n * f->item_size;

        if (check_string(f, key, strlen(key), 1, f->item_max, &here, e) < 0)
            return -1;
        set_defaults(f->table, obj);
        ret->n++;       /* half-built items are freed too */
        *(char **)obj = strdup(key);
        if (!*(char **)obj)
            return err_nomem(e);
        if (decode_object(d, f->table, value, obj, &here, e) < 0)
            return -1;
    }
    return 0;
}

static int decode_value(const struct decoder *d, const struct jfield *f, json_t *j, void *m,
                        const struct place *at, struct err *e)
{
    int64_t v;

    switch (f->type) {
    case JT_STR:
        return decode_string(f, j, m, at, e);
    case JT_BOOL:
        if (!json_is_boolean(j))
            return bad_type(at, "true or false", j, e);
        *(bool *)m = json_is_true(j);
        return 0;
    case JT_U32:
        if (decode_integer(f, j, &v, at, e) < 0)
            return -1;
        *(uint32_t *)m = (uint32_t)v;
        return 0;
    case JT_U64:
        if (decode_integer(f, j, &v, at, e) < 0)
            return -1;
        *(uint64_t *)m = (uint64_t)v;
        return 0;
    case JT_AMOUNT:
        return decode_amount(f, j, m, at, e);
    case JT_I32:
        if (decode_integer(f, j, &v, at, e) < 0)
            return -1;
        *(int32_t *)m = (int32_t)v;
        return 0;
    case JT_TIME:
        return decode_time(j, m, at, e);
    case JT_BYTES:
        return decode_bytes(f, j, m, at, e);
    case JT_STRV:
        return decode_strv(f, j, m, at, e);
    case JT_MAP:
        return decode_map(f, j, m, at, e);
    case JT_OBJ:
        if (decode_object(d, f->table, j, m, at, e) < 0)
            return -1;
        if (f->flags & JF_OPT)
            *(bool *)m = true;
        return 0;
    case JT_LIST:
        return decode_list(d, f, j, m, at, e);
    case JT_DICT:
        return decode_dict(d, f, j, m, at, e);
    }
    return err_set(e, ERR_INTERNAL, "row '%s' has no known type", f->key);
}

static const struct jfield *find_row(const struct jfield *table, const char *key)
{
    for (const struct jfield *f = table; f->key; f++)
        if (strcmp(f->key, key) == 0)
            return f;
    return NULL;
}

static int decode_object(const struct decoder *d, const struct jfield *table, json_t *j, void *obj,
                         const struct place *at, struct err *e)
{
    const char *key;
    json_t *value;

    if (!json_is_object(j))
        return bad_type(at, "an object", j, e);
    /* what is unknown comes before what is missing: most often they are one misspelt word */
    if (!d->lenient)
        json_object_foreach(j, key, value)
            if (!find_row(table, key)) {
                field_error(&(struct place){ .up = at, .key = key }, ERR_FIELD_UNKNOWN, e,
                            "is not known");
                hint_known_keys(table, e);
                return -1;
            }
    for (const struct jfield *f = table; f->key; f++) {
        struct place here = { .up = at, .key = f->key };

        value = json_object_get(j, f->key);
        if (!value || json_is_null(value)) {
            if (f->flags & JF_REQUIRED)
                return field_error(&here, ERR_FIELD_MISSING, e, "is required");
            continue;
        }
        if (decode_value(d, f, value, member(obj, f), &here, e) < 0)
            return -1;
    }
    return 0;
}

/* Levels of nesting, by a scan that knows only brackets and strings. Before the parser, which goes
 * much deeper by recursion. */
static bool depth_ok(const char *text, size_t len)
{
    bool in_string = false;
    unsigned depth = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > LIMIT_JSON_DEPTH)
                return false;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return true;
}

static int decode_text(const struct decoder *d, const struct jfield *table, const char *text,
                       size_t len, void *out, struct err *e)
{
    json_error_t error;
    autojson json_t *root = NULL;

    set_defaults(table, out);
    if (!depth_ok(text, len))
        return err_set(e, ERR_JSON, "not valid JSON here: more than %d levels", LIMIT_JSON_DEPTH);
    root = load(text, len, &error);
    if (!root && error.text[0] == '\0')
        return err_nomem(e);
    /* JSON, but no field's value */
    if (!root && json_error_code(&error) == json_error_numeric_overflow)
        return err_set(e, ERR_FIELD_INVALID, "a number is out of range: %s (line %d, column %d)",
                       error.text, error.line, error.column);
    if (!root)
        return err_set(e, ERR_JSON, "not valid JSON: %s (line %d, column %d)", error.text,
                       error.line, error.column);
    if (!json_is_object(root))
        return err_set(e, ERR_JSON, "not valid JSON here: an object is expected");
    if (decode_object(d, table, root, out, NULL, e) < 0) {
        free_fields(table, out);
        set_defaults(table, out);
        return -1;
    }
    return 0;
}

int json_decode(const struct jfield *table, const char *text, size_t len, void *out, struct err *e)
{
    return decode_text(&(struct decoder){ .lenient = false }, table, text, len, out, e);
}

int json_decode_lenient(const struct jfield *table, const char *text, size_t len, void *out,
                        struct err *e)
{
    return decode_text(&(struct decoder){ .lenient = true }, table, text, len, out, e);
}
