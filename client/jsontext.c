/* SPDX-License-Identifier: MIT */
#include "client/jsontext.h"
#include "common/auto.h"
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Length of the string that begins at s with its quotes. */
static size_t string_length(const char *s, size_t len)
{
    for (size_t i = 1; i < len; i++) {
        if (s[i] == '\\')
            i++;
        else if (s[i] == '"')
            return i + 1;
    }
    return len;
}

static void add_string(struct sbuf *b, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)s[i];
        if (c == 0x7f) {
            sbuf_lit(b, "\\u007f");
        } else if (c == 0xc2 && i + 1 < len && (uint8_t)s[i + 1] < 0xa0) {
            sbuf_fmt(b, "\\u%04x", (uint8_t)s[++i]);
        } else {
            sbuf_chr(b, s[i]);
        }
    }
}

static void new_line(struct sbuf *b, unsigned depth)
{
    sbuf_chr(b, '\n');
    for (unsigned i = 0; i < depth; i++)
        sbuf_lit(b, "    ");
}

static void rewrite(struct sbuf *b, const char *text, size_t len, unsigned depth, bool pretty)
{
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        size_t next = i + 1;
        if (blank(c))
            continue;
        switch (c) {
        case '"': {
            size_t n = string_length(text + i, len - i);
            add_string(b, text + i, n);
            i += n - 1;
            break;
        }
        case '{':
        case '[':
            while (next < len && blank(text[next]))
                next++;
            sbuf_chr(b, c);
            if (next < len && (text[next] == '}' || text[next] == ']')) {
                sbuf_chr(b, text[next]);
                i = next;
                break;
            }
            depth++;
            if (pretty)
                new_line(b, depth);
            break;
        case '}':
        case ']':
            if (depth)
                depth--;
            if (pretty)
                new_line(b, depth);
            sbuf_chr(b, c);
            break;
        case ',':
            sbuf_chr(b, c);
            if (pretty)
                new_line(b, depth);
            break;
        case ':':
            sbuf_lit(b, pretty ? ": " : ":");
            break;
        default:
            sbuf_chr(b, c);
        }
    }
}

void json_pretty(struct sbuf *b, const char *text, size_t len, unsigned depth)
{
    rewrite(b, text, len, depth, true);
}

void json_compact(struct sbuf *b, const char *text, size_t len)
{
    rewrite(b, text, len, 0, false);
}

static int add_item(struct strv *ret, const char *s, size_t len, struct err *e)
{
    char *item = NULL;

    while (len && blank(*s))
        s++, len--;
    while (len && blank(s[len - 1]))
        len--;
    if (!len)
        return 0;
    item = strndup(s, len);
    return item ? strv_add_take(ret, &item, e) : err_nomem(e);
}

/* Elements of the array whose '[' is at text[at]. */
static int split_array(const char *text, size_t len, size_t at, struct strv *ret, struct err *e)
{
    size_t depth = 0, start = at + 1;

    for (size_t i = at; i < len; i++) {
        char c = text[i];
        if (c == '"') {
            i += string_length(text + i, len - i) - 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && --depth == 0) {
            return add_item(ret, text + start, i - start, e);
        } else if (c == ',' && depth == 1) {
            if (add_item(ret, text + start, i - start, e) < 0)
                return -1;
            start = i + 1;
        }
    }
    return err_set(e, ERR_JSON, "the list does not end");
}

int json_items(const char *text, size_t len, const char *key, struct strv *ret, struct err *e)
{
    size_t depth = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == '"') {
            size_t n = string_length(text + i, len - i);
            bool found = depth == 1 && n == strlen(key) + 2 &&
                         memcmp(text + i + 1, key, n - 2) == 0;
            i += n;
            while (i < len && blank(text[i]))
                i++;
            if (i < len && text[i] == ':' && found) {
                for (i++; i < len && blank(text[i]); i++)
                    ;
                if (i < len && text[i] == '[')
                    return split_array(text, len, i, ret, e);
                return err_set(e, ERR_JSON, "'%s' is not a list", key);
            }
            i--;
        }
    }
    return err_set(e, ERR_JSON, "there is no '%s'", key);
}
