/* SPDX-License-Identifier: MIT
 *
 * template: {{.Name}} in the text of --format, filled from a struct by its JSON table, so that
 * every field of the API can be named. Names may be written as in JSON (created_at) or as docker's
 * users know them (CreatedAt); a dot goes into an object or a map ({{.image.name}},
 * {{.labels.team}}). {{json .}} and {{json .field}} give JSON. \t and \n stand for tab and newline.
 */
#pragma once

#include "common/err.h"
#include "common/jfield.h"
#include "common/sbuf.h"

/* Appends the filled text. Field values are foreign: with `escape` they are escaped for terminals.
 * `raw` is the JSON of the whole object, for {{json .}}; NULL: made from the struct. */
int template_fill(const char *text, const struct jfield *table, const void *obj, const char *raw,
                  bool escape, struct sbuf *b, struct err *e);
