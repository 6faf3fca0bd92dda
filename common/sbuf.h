/* SPDX-License-Identifier: MIT
 *
 * sbuf: the one string builder. Born with a maximum; the first failure (over the maximum, out of
 * memory) sticks, later appends do nothing, and sbuf_take() reports it once. Text from outside goes
 * in by an escaping appender; sbuf_lit() is for literals and sbuf_add() for text checked before.
 * Always NUL-terminated; embedded NUL bytes count as content.
 */
#pragma once

#include "common/err.h"
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct sbuf {
    char *data;     /* owned; NULL while empty */
    size_t len;
    size_t cap;
    size_t max;     /* longest content, without the NUL */
    int failed;     /* 0, ENOMEM, E2BIG or (text XML cannot hold) EINVAL */
};

#define SBUF(maximum) ((struct sbuf){ .max = (maximum) })
#define autosbuf __attribute__((cleanup(sbuf_done)))

void sbuf_done(struct sbuf *b);
void sbuf_lit(struct sbuf *b, const char *literal);
void sbuf_add(struct sbuf *b, const void *data, size_t len);
void sbuf_chr(struct sbuf *b, char c);
void sbuf_fmt(struct sbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sbuf_vfmt(struct sbuf *b, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
void sbuf_u64(struct sbuf *b, uint64_t v);
void sbuf_xml(struct sbuf *b, const char *text);              /* text or attribute value; control
                                                                 bytes XML 1.0 lacks are an error */
/* One line: escapes \n, ESC, bad UTF-8 as \xHH, and quotes where needed. */
void sbuf_log(struct sbuf *b, const void *text, size_t len);
void sbuf_text(struct sbuf *b, const void *text, size_t len); /* for terminals: as sbuf_log without
                                                                 quotes */

/* -1: it failed on the way (ERR_NO_MEMORY, ERR_TOO_LARGE or ERR_INVALID). To be asked before
 * sbuf_str() is used as a path or a command: that is "" then. */
int sbuf_check(const struct sbuf *b, struct err *e);
/* The same, and moves the string out and leaves the builder empty. */
int sbuf_take(struct sbuf *b, char **ret_string, struct err *e);
/* Borrowed view, never NULL; NULL-terminated; "" when empty or failed. */
const char *sbuf_str(const struct sbuf *b);
