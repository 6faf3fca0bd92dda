/* SPDX-License-Identifier: MIT
 *
 * store_exec: rows of execs.
 */
#include "common/auto.h"
#include "daemon/store_internal.h"

#include <stdlib.h>
#include <string.h>

void exec_row_done(struct exec_row *r)
{
    strv_done(&r->command);
    free(r->user);
    free(r->workdir);
    memset(r, 0, sizeof(*r));
}

int store_exec_insert(struct store *st, const struct exec_row *r, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_EXEC_INSERT];

    bind_text(s, 1, r->id);
    bind_text(s, 2, r->vm);
    bind_int(s, 3, r->stream);
    if (bind_strv(s, 4, &r->command, e) < 0)
        return -1;
    bind_text(s, 5, r->user ? r->user : "");
    bind_text(s, 6, r->workdir ? r->workdir : "");
    bind_int(s, 7, r->tty);
    bind_int(s, 8, r->stdin_open);
    bind_int(s, 9, r->detach);
    bind_int(s, 10, r->pid);
    bind_int(s, 11, r->state);
    bind_int(s, 12, r->how);
    bind_int(s, 13, r->value);
    bind_int(s, 14, r->created_at);
    bind_int(s, 15, r->ended_at);
    return store_step_done(st, s, e, "insert exec");
}

int store_exec_update(struct store *st, const struct exec_row *r, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_EXEC_UPDATE];

    bind_text(s, 1, r->id);
    bind_int(s, 2, r->pid);
    bind_int(s, 3, r->state);
    bind_int(s, 4, r->how);
    bind_int(s, 5, r->value);
    bind_int(s, 6, r->ended_at);
    bind_int(s, 7, r->detach);
    return store_step_done(st, s, e, "update exec");
}

int store_exec_delete(struct store *st, const char *id, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_EXEC_DELETE];

    bind_text(s, 1, id);
    return store_step_done(st, s, e, "remove exec");
}

/* What was not given is "" in its column, which has no NULL. */
static void empty_is_none(char **s)
{
    if (*s && !**s) {
        free(*s);
        *s = NULL;
    }
}

static int read_row(sqlite3_stmt *s, struct exec_row *r, struct err *e)
{
    if (column_id(s, 0, r->id, sizeof(r->id), e) < 0 ||
        column_id(s, 1, r->vm, sizeof(r->vm), e) < 0 || column_strv(s, 3, &r->command, e) < 0 ||
        column_text(s, 4, &r->user, e) < 0 || column_text(s, 5, &r->workdir, e) < 0)
        return -1;
    empty_is_none(&r->user);
    empty_is_none(&r->workdir);
    r->stream = (uint32_t)sqlite3_column_int64(s, 2);
    r->tty = sqlite3_column_int(s, 6) != 0;
    r->stdin_open = sqlite3_column_int(s, 7) != 0;
    r->detach = sqlite3_column_int(s, 8) != 0;
    r->pid = (uint32_t)sqlite3_column_int64(s, 9);
    r->state = sqlite3_column_int(s, 10);
    r->how = sqlite3_column_int(s, 11);
    r->value = (uint32_t)sqlite3_column_int64(s, 12);
    r->created_at = sqlite3_column_int64(s, 13);
    r->ended_at = sqlite3_column_int64(s, 14);
    return 0;
}

int store_exec_list(struct store *st, const char *vm, struct exec_row **ret, size_t *ret_n,
                    struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_EXEC_LIST];
    void *rows = NULL;
    size_t n = 0, cap = 0;
    int r;

    bind_text(s, 1, vm);
    while ((r = store_step_row(st, s, e, "list execs")) == 1) {
        struct exec_row *row = rows_grow(&rows, n, &cap, sizeof(*row), e);
        if (!row || (n++, read_row(s, row, e)) < 0) {
            r = -1;
            break;
        }
    }
    if (r < 0) {
        for (size_t i = 0; i < n; i++)
            exec_row_done((struct exec_row *)rows + i);
        free(rows);
        return -1;
    }
    *ret = rows;
    *ret_n = n;
    return 0;
}
