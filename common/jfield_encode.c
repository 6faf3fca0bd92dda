/* SPDX-License-Identifier: MIT
 *
 * The other half of jfield.c: struct to JSON.
 */
#include "common/auto.h"
#include "common/base64.h"
#include "common/jfield.h"
#include "common/name.h"
#include "common/parse.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const void *member(const void *obj, const struct jfield *f)
{
    return (const char *)obj + f->offset;
}

static void json_release(json_t **j)
{
    json_decref(*j);
}
#define autojson __attribute__((cleanup(json_release)))

static json_t *encode_object(const struct jfield *table, const void *obj);

/* Text may come from a guest: what is not UTF-8 becomes U+FFFD, for JSON can hold nothing else. */
static json_t *encode_text(const char *s, size_t len)
{
    autosbuf struct sbuf clean = SBUF(SIZE_MAX / 8);

    if (utf8_valid(s, len))
        return json_stringn_nocheck(s, len);
    while (len > 0) {
        size_t step = utf8_step(s, len);

        if (step > 0)
            sbuf_add(&clean, s, step);
        else
            sbuf_lit(&clean, "\xef\xbf\xbd");
        step = step > 0 ? step : 1;
        s += step;
        len -= step;
    }
    return clean.failed ? NULL : json_stringn_nocheck(sbuf_str(&clean), clean.len);
}

static json_t *encode_time(int64_t us)
{
    char buf[32];

    if (us == 0)
        return json_null();
    format_time(us, buf);
    return json_string(buf);
}

static json_t *encode_strv(const struct strv *v)
{
    autojson json_t *list = json_array();

    for (size_t i = 0; list && i < v->n; i++)
        if (json_array_append_new(list, encode_text(v->items[i], strlen(v->items[i]))) < 0)
            return NULL;
    return json_incref(list);
}

static json_t *encode_map(const struct strv *v)
{
    autojson json_t *map = json_object();

    for (size_t i = 0; map && i < v->n; i++) {
        const char *eq = strchr(v->items[i], '=');
        autofree char *key = eq ? strndup(v->items[i], (size_t)(eq - v->items[i])) : NULL;

        if (!eq || !utf8_valid(v->items[i], (size_t)(eq - v->items[i])))
            continue;   /* not a pair: nothing JSON could say */
        if (!key || json_object_set_new_nocheck(map, key, encode_text(eq + 1, strlen(eq + 1))) < 0)
            return NULL;
    }
    return json_incref(map);
}

static json_t *encode_list(const struct jfield *f, const struct jlist *l)
{
    autojson json_t *list = json_array();

    for (size_t i = 0; list && i < l->n; i++)
        if (json_array_append_new(
                list, encode_object(f->table, (const char *)l->items + i * f->item_size)) < 0)
            return NULL;
    return json_incref(list);
}

static json_t *encode_dict(const struct jfield *f, const struct jlist *l)
{
    autojson json_t *dict = json_object();

    for (size_t i = 0; dict && i < l->n; i++) {
        const char *item = (const char *)l->items + i * f->item_size;
        if (json_object_set_new_nocheck(dict, *(char *const *)(const void *)item,
                                        encode_object(f->table, item)) < 0)
            return NULL;
    }
    return json_incref(dict);
}

static json_t *encode_bytes(const struct jbytes *bytes)
{
    autofree char *text = base64_encode(bytes->data, bytes->len);

    return text ? json_string_nocheck(text) : NULL;
}

/* NULL: out of memory. */
static json_t *encode_value(const struct jfield *f, const void *m)
{
    switch (f->type) {
    case JT_STR:
        return encode_text(*(char *const *)m, strlen(*(char *const *)m));
    case JT_BOOL:
        return json_boolean(*(const bool *)m);
    case JT_U32:
        return json_integer(*(const uint32_t *)m);
    case JT_U64: {
        uint64_t v = *(const uint64_t *)m;

        return json_integer(v > INT64_MAX ? INT64_MAX : (int64_t)v);
    }
    case JT_AMOUNT: {
        uint64_t v = *(const uint64_t *)m;

        if (v == JSON_UNLIMITED && f->flags & JF_UNLIMITED)
            return json_integer(-1);
        return json_integer(v > INT64_MAX ? INT64_MAX : (int64_t)v);
    }
    case JT_I32:
        return json_integer(*(const int32_t *)m);
    case JT_TIME:
        return encode_time(*(const int64_t *)m);
    case JT_BYTES:
        return encode_bytes(m);
    case JT_STRV:
        return encode_strv(m);
    case JT_MAP:
        return encode_map(m);
    case JT_OBJ:
        return encode_object(f->table, m);
    case JT_LIST:
        return encode_list(f, m);
    case JT_DICT:
        return encode_dict(f, m);
    }
    return NULL;
}

static bool absent(const struct jfield *f, const void *m)
{
    switch (f->type) {
    case JT_STR:
        return *(char *const *)m == NULL;
    case JT_BYTES:
        return ((const struct jbytes *)m)->data == NULL;
    case JT_OBJ:
        return f->flags & JF_OPT && !*(const bool *)m;
    case JT_U64:
        return f->flags & JF_UNSET && *(const uint64_t *)m == JSON_UNSET;
    default:
        return false;
    }
}

static json_t *encode_object(const struct jfield *table, const void *obj)
{
    autojson json_t *j = json_object();

    for (const struct jfield *f = table; j && f->key; f++) {
        const void *m = member(obj, f);
        bool none = absent(f, m);

        if (none && !(f->flags & JF_NULL))
            continue;
        /* a NULL value makes it fail */
        if (json_object_set_new_nocheck(j, f->key, none ? json_null() : encode_value(f, m)) < 0)
            return NULL;
    }
    return json_incref(j);
}

static int append(const char *data, size_t len, void *sbuf)
{
    struct sbuf *b = sbuf;

    sbuf_add(b, data, len);
    return b->failed ? -1 : 0;
}

/* j is consumed; NULL: there was no memory for it. */
static bool put(json_t *j, struct sbuf *b)
{
    autojson json_t *value = j;

    return value && json_dump_callback(value, append, b, JSON_COMPACT | JSON_ENCODE_ANY) == 0;
}

/* One item at a time, so that a list of thousands is never there as a tree. */
static bool put_list(const struct jfield *f, const struct jlist *l, struct sbuf *b)
{
    bool done = true;

    sbuf_lit(b, "[");
    for (size_t i = 0; done && i < l->n; i++) {
        if (i > 0)
            sbuf_lit(b, ",");
        done = put(encode_object(f->table, (const char *)l->items + i * f->item_size), b);
    }
    sbuf_lit(b, "]");
    return done;
}

int json_encode(const struct jfield *table, const void *in, struct sbuf *b, struct err *e)
{
    const char *before = "{";
    bool done = true;

    for (const struct jfield *f = table; done && f->key; f++) {
        const void *m = member(in, f);
        bool none = absent(f, m);

        if (none && !(f->flags & JF_NULL))
            continue;
        sbuf_fmt(b, "%s\"%s\":", before, f->key);     /* our own keys need no escapes */
        before = ",";
        done = f->type == JT_LIST ? put_list(f, m, b)
                                  : put(none ? json_null() : encode_value(f, m), b);
    }
    sbuf_lit(b, *before == '{' ? "{}" : "}");
    if (b->failed == E2BIG)
        return err_set(e, ERR_TOO_LARGE, "the JSON text is longer than %zu bytes", b->max);
    return b->failed || !done ? err_nomem(e) : 0;
}
