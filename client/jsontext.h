/* SPDX-License-Identifier: MIT
 *
 * jsontext: JSON of the daemon shown as it came, with fields this client does not know. The text
 * has been through json_decode_lenient() before, so its syntax is right.
 */
#pragma once

#include "common/err.h"
#include "common/sbuf.h"
#include "common/strv.h"
#include <stddef.h>

/* Appends the text indented by four, `depth` levels deep. Control characters that JSON lets stand
 * (DEL and U+0080 to U+009F) become escapes, as terminals obey them. */
void json_pretty(struct sbuf *b, const char *text, size_t len, unsigned depth);
/* The same on one line. */
void json_compact(struct sbuf *b, const char *text, size_t len);
/* The elements of the array under `key` of an object, each as it stands in the text. */
int json_items(const char *text, size_t len, const char *key, struct strv *ret, struct err *e);
