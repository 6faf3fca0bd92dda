/* SPDX-License-Identifier: MIT
 *
 * jsonlines: answers that are lines of JSON and may go on as more comes, cut anywhere by the
 * network: as they are, or as a table. What is in them was made up by others, and is escaped.
 */
#pragma once

#include "client/app.h"
#include "common/sbuf.h"
#include <stdbool.h>
#include <stddef.h>

/* Least widths: a stream cannot know what is to come. The last one has none. */
struct lines_column { const char *title; size_t width; };

struct json_lines {
    bool json;                          /* lines as they are */
    const struct lines_column *columns; /* borrowed */
    size_t n_columns;
    /* Decodes a line and adds its row by lines_cell(). */
    int (*row)(struct json_lines *l, struct sbuf *b, const char *text, size_t len);
    struct err e;                       /* of row() */

    bool titled;                        /* inside: */
    struct sbuf line;
};

/* GETs `path` and shows what comes, to its end or for as long as the daemon sends. */
int json_lines_show(struct app *app, struct json_lines *l, const char *path, bool follow,
                    struct err *e);
/* Column i of a row, with the newline after the last one. */
void lines_cell(const struct json_lines *l, struct sbuf *b, size_t i, const char *text);
