/* SPDX-License-Identifier: MIT */
#include "client/template.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/parse.h"
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#define VALUE_MAX (16 * MIB)

struct filler {
    bool escape;
    struct sbuf *b;
};

/* created_at, CreatedAt and createdAt are the same name. */
static bool same_name(const char *key, const char *name, size_t len)
{
    size_t i = 0;

    for (; *key; key++) {
        if (*key == '_')
            continue;
        if (i < len && name[i] == '_')
            i++;
        if (i == len || tolower((unsigned char)name[i]) != *key)
            return false;
        i++;
    }
    return i == len;
}

static void add_text(const struct filler *f, const char *s)
{
    if (f->escape)
        sbuf_text(f->b, s, strlen(s));
    else
        sbuf_add(f->b, s, strlen(s));
}

static void add_strv(const struct filler *f, const struct strv *v, const char *between)
{
    for (size_t i = 0; i < v->n; i++) {
        if (i)
            sbuf_lit(f->b, between);
        add_text(f, v->items[i]);
    }
}

static int add_value(const struct filler *f, const struct jfield *row, const char *place,
                     struct err *e)
{
    char time[40];

    switch (row->type) {
    case JT_STR:
        if (*(char *const *)place)
            add_text(f, *(char *const *)place);
        return 0;
    case JT_BOOL:
        sbuf_lit(f->b, *(const bool *)place ? "true" : "false");
        return 0;
    case JT_U32:
        sbuf_u64(f->b, *(const uint32_t *)place);
        return 0;
    case JT_U64:
        sbuf_u64(f->b, *(const uint64_t *)place);
        return 0;
    case JT_AMOUNT:
        if (*(const uint64_t *)place == JSON_UNLIMITED && row->flags & JF_UNLIMITED)
            sbuf_lit(f->b, "-1");
        else
            sbuf_u64(f->b, *(const uint64_t *)place);
        return 0;
    case JT_I32:
        sbuf_fmt(f->b, "%" PRId32, *(const int32_t *)place);
        return 0;
    case JT_TIME:
        if (*(const int64_t *)place) {
            format_time(*(const int64_t *)place, time);
            sbuf_lit(f->b, time);
        }
        return 0;
    case JT_STRV:
        add_strv(f, (const struct strv *)place, " ");
        return 0;
    case JT_MAP:
        add_strv(f, (const struct strv *)place, ",");
        return 0;
    case JT_OBJ:
        return json_encode(row->table, place, f->b, e);
    case JT_BYTES:
    case JT_LIST:
    case JT_DICT:
        break;
    }
    return err_set(e, ERR_USAGE, "'%s' cannot be shown by a template", row->key);
}

static int no_field(const char *path, size_t len, const struct jfield *table, struct err *e)
{
    autosbuf struct sbuf names = SBUF(160);

    err_set(e, ERR_USAGE, "template: there is no field '.%.*s'", (int)len, path);
    for (const struct jfield *r = table; r->key; r++)
        sbuf_fmt(&names, "%s%s", r == table ? "" : " ", r->key);
    if (names.failed)
        return err_hint(e, "'{{json .}}' shows all of them");
    return err_hint(e, "fields are: %s", sbuf_str(&names));
}

/* Finds the field of ".a.b". For a key of a map: the row of the map and *ret_key. */
static int find(const struct jfield *table, const char *obj, const char *path, size_t len,
                const struct jfield **ret_row, const char **ret_place, const char **ret_key,
                struct err *e)
{
    size_t n = 0;

    while (n < len && path[n] != '.')
        n++;
    for (const struct jfield *r = table; r->key; r++) {
        if (!same_name(r->key, path, n))
            continue;
        *ret_row = r;
        *ret_place = obj + r->offset;
        *ret_key = NULL;
        if (n == len)
            return 0;
        if (r->type == JT_OBJ)
            return find(r->table, obj + r->offset, path + n + 1, len - n - 1, ret_row, ret_place,
                        ret_key, e);
        if (r->type == JT_MAP) {
            *ret_key = path + n + 1;
            return 0;
        }
    }
    return no_field(path, len, table, e);
}

static int fill_json(const struct filler *f, const struct jfield *row, const char *place,
                     struct err *e)
{
    /* An object of one field is made and its braces and key taken off again. */
    const struct jfield one[] = { *row, JF_END };
    autosbuf struct sbuf b = SBUF(VALUE_MAX);
    size_t skip = strlen(row->key) + 4;     /* {"key": */

    if (json_encode(one, place - row->offset, &b, e) < 0)
        return -1;
    if (b.len <= skip + 1)
        sbuf_lit(f->b, "null");
    else
        sbuf_add(f->b, b.data + skip, b.len - skip - 1);
    return 0;
}

static int fill(const struct filler *f, const char *s, size_t len, const struct jfield *table,
                const void *obj, const char *raw, struct err *e)
{
    const struct jfield *row = NULL;
    const char *place = NULL, *key = NULL;
    bool json = false;

    while (len && isspace((unsigned char)*s))
        s++, len--;
    while (len && isspace((unsigned char)s[len - 1]))
        len--;
    if (len > 5 && strncmp(s, "json ", 5) == 0) {
        json = true;
        for (s += 5, len -= 5; len && *s == ' '; len--)
            s++;
    }
    if (!len || *s != '.') {
        err_set(e, ERR_USAGE, "template: '{{%.*s}}' is not a field", (int)len, s);
        return err_hint(e, "write {{.Name}}, {{.image.name}}, {{json .}}");
    }
    s++, len--;
    if (!len) {
        if (raw) {
            sbuf_add(f->b, raw, strlen(raw));
            return 0;
        }
        return json_encode(table, obj, f->b, e);
    }
    if (find(table, obj, s, len, &row, &place, &key, e) < 0)
        return -1;
    if (!key)
        return json ? fill_json(f, row, place, e) : add_value(f, row, place, e);
    autofree char *name = strndup(key, (size_t)(s + len - key));
    if (!name)
        return err_nomem(e);
    const char *value = strv_env_get((const struct strv *)(const void *)place, name);
    if (value)
        add_text(f, value);
    return 0;
}

int template_fill(const char *text, const struct jfield *table, const void *obj, const char *raw,
                  bool escape, struct sbuf *b, struct err *e)
{
    const struct filler f = { .escape = escape, .b = b };

    while (*text) {
        if (text[0] == '{' && text[1] == '{') {
            const char *end = strstr(text, "}}");
            if (!end)
                return err_set(e, ERR_USAGE, "template: '{{' without '}}'");
            if (fill(&f, text + 2, (size_t)(end - text - 2), table, obj, raw, e) < 0)
                return -1;
            text = end + 2;
        } else if (text[0] == '\\' && (text[1] == 't' || text[1] == 'n')) {
            sbuf_chr(b, text[1] == 't' ? '\t' : '\n');
            text += 2;
        } else {
            sbuf_chr(b, *text++);
        }
    }
    return b->failed ? err_nomem(e) : 0;
}
