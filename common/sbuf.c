/* SPDX-License-Identifier: MIT */
#include "common/sbuf.h"
#include "common/name.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 64

void sbuf_done(struct sbuf *b)
{
    free(b->data);
    *b = (struct sbuf){ .max = b->max };
}

/* Room for `more` bytes and the NUL; false when the builder has failed. */
static bool reserve(struct sbuf *b, size_t more)
{
    size_t need, cap;
    char *grown;

    if (b->failed)
        return false;
    if (b->len > b->max || more > b->max - b->len || b->max - b->len == SIZE_MAX) {
        b->failed = E2BIG;
        return false;
    }
    need = b->len + more + 1;
    if (need <= b->cap)
        return true;

    cap = b->cap > 0 ? b->cap : FIRST_CAPACITY;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > b->max + 1)
        cap = b->max + 1;
    grown = realloc(b->data, cap);
    if (!grown) {
        b->failed = ENOMEM;
        return false;
    }
    b->data = grown;
    b->cap = cap;
    return true;
}

void sbuf_add(struct sbuf *b, const void *data, size_t len)
{
    if (!reserve(b, len))
        return;
    if (len > 0)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void sbuf_lit(struct sbuf *b, const char *literal)
{
    sbuf_add(b, literal, strlen(literal));
}

void sbuf_chr(struct sbuf *b, char c)
{
    sbuf_add(b, &c, 1);
}

void sbuf_vfmt(struct sbuf *b, const char *fmt, va_list ap)
{
    va_list again;
    int n;

    if (b->failed)
        return;
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) {
        b->failed = errno == ENOMEM ? ENOMEM : E2BIG;
        return;
    }
    if (!reserve(b, (size_t)n))
        return;
    if (vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap) != n) {
        b->data[b->len] = '\0';
        b->failed = ENOMEM;
        return;
    }
    b->len += (size_t)n;
}

void sbuf_fmt(struct sbuf *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    sbuf_vfmt(b, fmt, ap);
    va_end(ap);
}

void sbuf_u64(struct sbuf *b, uint64_t v)
{
    char digits[20];
    size_t i = sizeof(digits);

    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    sbuf_add(b, digits + i, sizeof(digits) - i);
}

/* How a byte is written in XML text and in attribute values of either quote; NULL: as it is. White
 * space other than the blank is written by number, or a parser would turn it into blanks. */
static const char *xml_escape(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&apos;";
    case '\t':
        return "&#9;";
    case '\n':
        return "&#10;";
    case '\r':
        return "&#13;";
    default:
        return NULL;
    }
}

void sbuf_xml(struct sbuf *b, const char *text)
{
    size_t left = strlen(text);

    while (left > 0 && !b->failed) {
        size_t step = utf8_step(text, left);
        const char *escape = xml_escape(*text);
        bool nonchar = step == 3 && memcmp(text, "\xef\xbf", 2) == 0 &&
                       ((unsigned char)text[2] & 0xfe) == 0xbe;     /* U+FFFE and U+FFFF */

        if (escape) {
            sbuf_lit(b, escape);
        } else if (step == 0 || nonchar || (unsigned char)*text < 0x20) {
            b->failed = EINVAL;
            return;
        } else {
            sbuf_add(b, text, step);
        }
        text += step;
        left -= step;
    }
}

static void add_hex(struct sbuf *b, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char out[4] = { '\\', 'x', hex[c >> 4], hex[c & 15] };

    sbuf_add(b, out, sizeof(out));
}

static void add_plain(struct sbuf *b, const char *s, size_t len, bool quoted)
{
    while (len > 0 && !b->failed) {
        size_t step = utf8_step_plain(s, len);

        if (step == 0) {
            step = 1;
            if (*s == '\n')
                sbuf_lit(b, "\\n");
            else if (*s == '\t')
                sbuf_lit(b, "\\t");
            else if (*s == '\r')
                sbuf_lit(b, "\\r");
            else
                add_hex(b, (unsigned char)*s);
        } else if (*s == '\\' || (quoted && *s == '"')) {
            sbuf_chr(b, '\\');
            sbuf_chr(b, *s);
        } else {
            sbuf_add(b, s, step);
        }
        s += step;
        len -= step;
    }
}

static bool needs_quotes(const char *s, size_t len)
{
    if (len == 0)
        return true;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f || c == '\'')
            return true;
    }
    return !utf8_valid(s, len);
}

void sbuf_log(struct sbuf *b, const void *text, size_t len)
{
    bool quoted = needs_quotes(text, len);

    if (quoted)
        sbuf_chr(b, '"');
    add_plain(b, text, len, quoted);
    if (quoted)
        sbuf_chr(b, '"');
}

void sbuf_text(struct sbuf *b, const void *text, size_t len)
{
    add_plain(b, text, len, false);
}

int sbuf_check(const struct sbuf *b, struct err *e)
{
    if (b->failed == ENOMEM)
        return err_nomem(e);
    if (b->failed == EINVAL)
        return err_set(e, ERR_INVALID, "the text has bytes that XML cannot hold");
    if (b->failed)
        return err_set(e, ERR_TOO_LARGE, "the text is longer than %zu bytes", b->max);
    return 0;
}

int sbuf_take(struct sbuf *b, char **ret_string, struct err *e)
{
    sbuf_add(b, "", 0);     /* gives an empty builder its NUL */
    if (sbuf_check(b, e) < 0)
        return -1;
    *ret_string = b->data;
    *b = (struct sbuf){ .max = b->max };
    return 0;
}

const char *sbuf_str(const struct sbuf *b)
{
    return b->data && !b->failed ? b->data : "";
}
