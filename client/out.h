/* SPDX-License-Identifier: MIT
 *
 * out: results on stdout: tables for people, JSON for programs, templates for scripts.
 *
 * Text of guests and of the daemon is escaped on its way into a table, so that it cannot drive the
 * terminal. Columns line up by the width characters have on a terminal. When stdout is a terminal
 * the flexible columns are cut to its width; colour is for states alone, and not with NO_COLOR.
 */
#pragma once

#include "common/err.h"
#include "common/jfield.h"
#include "common/sbuf.h"
#include "common/strv.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COLUMNS_MAX 12

struct column {
    const char *title;
    bool flex;          /* may be cut */
    bool state;         /* coloured */
};

struct table {
    const struct column *columns;   /* borrowed */
    size_t n_columns;
    struct strv cells;              /* row by row, escaped */
    bool no_trunc;
};
#define autotable __attribute__((cleanup(table_done)))

void table_done(struct table *t);
/* Next cell; NULL is shown as nothing. */
int table_cell(struct table *t, const char *text, struct err *e);
int table_cellf(struct table *t, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int table_print(struct table *t, struct err *e);

/* Columns the text takes on a terminal; a sequence that is not valid counts a column per byte. */
size_t text_width(const char *s);
/* The longest beginning of s that fits in `width` columns: its length in bytes. */
size_t text_fit(const char *s, size_t width);
/* Width of the terminal stdout is, or 0. */
size_t out_width(void);

/* Everything to stdout. EPIPE ends the program as SIGPIPE does. */
int out_write(const char *data, size_t len, struct err *e);
int out_line(const char *text, struct err *e);
int out_flush(struct err *e);       /* at the end: what could not be written is an error */

/* How a list is shown: --format and -q. */
enum format_kind { FORMAT_TABLE, FORMAT_JSON, FORMAT_TEMPLATE };
struct format {
    enum format_kind kind;
    const char *text;   /* template */
};
/* NULL: a table. "json", "table", or a template with {{…}}. */
int format_parse(const char *given, struct format *ret, struct err *e);
