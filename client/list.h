/* SPDX-License-Identifier: MIT
 *
 * list: what ls, execs and images have in common: fetch an object with one array, leave out what is
 * filtered, and show the rest as ids, JSON lines, by a template or in a table.
 */
#pragma once

#include "client/app.h"
#include "client/out.h"
#include "common/jfield.h"

struct list {
    const char *key;                    /* of the array */
    const struct jfield *list_table;    /* of the whole reply: a struct that begins with a jlist */
    const struct jfield *item_table;
    size_t item_size;
    const struct column *columns;
    size_t n_columns;
    /* Cells of one row. */
    int (*row)(struct table *t, const void *item, bool no_trunc, struct err *e);
    const char *(*id)(const void *item);            /* for -q */
    bool (*keep)(const void *item, const void *arg);/* NULL: all */
    const void *keep_arg;
};

/* Fetches `path` and prints. */
int list_show(struct app *app, const char *path, const struct list *l, const struct list_opts *o,
              struct err *e);

/* "2 minutes ago", or "-" for no time. buf of 40 bytes. */
const char *ago(int64_t at_us, char *buf);

/* For inspect and image inspect: one JSON array of what is at prefix + each name, or templates. */
int inspect_show(struct app *app, const char *prefix, char **names, size_t n,
                 const struct jfield *table, const char *format, struct err *e);
