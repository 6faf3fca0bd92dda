/* SPDX-License-Identifier: MIT
 *
 * store_event: what happened. Numbers come from SQLite's own count (sql/0003-event.sql), which goes
 * with the transaction: what is rolled back has used none.
 */
#include "common/auto.h"
#include "daemon/store_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define PRUNE_ROWS 1000     /* deleted at once: others wait for the lock */

void event_row_done(struct event_row *r)
{
    free(r->kind);
    free(r->sandbox);
    free(r->name);
    free(r->exec);
    free(r->detail);
    *r = (struct event_row){ 0 };
}

void event_rows_done(struct event_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        event_row_done(&rows[i]);
    free(rows);
}

/* --- whose they are; all under the lock --- */

/* What was counted is not true any more. */
static void forget_shares(struct store *st)
{
    free(take_ptr(st->shares));
    st->n_shares = st->cap_shares = 0;
}

static int add_share(struct store *st, int64_t uid, uint64_t n, struct err *e)
{
    void *list = st->shares;

    for (size_t i = 0; i < st->n_shares; i++) {
        if (st->shares[i].uid == uid) {
            st->shares[i].n += n;
            return 0;
        }
    }
    struct event_share *new = rows_grow(&list, st->n_shares, &st->cap_shares, sizeof(*new), e);
    st->shares = list;
    if (!new)
        return -1;
    *new = (struct event_share){ uid, n };
    st->n_shares++;
    return 0;
}

static int count_shares(struct store *st, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_EVENT_SHARES];
    int r = 0;

    if (st->shares)
        return 0;
    while (r == 0 && (r = store_step_row(st, s, e, "events")) == 1)
        r = add_share(st, sqlite3_column_int64(s, 0), (uint64_t)sqlite3_column_int64(s, 1), e);
    return r;
}

static int insert(struct store *st, struct event_row *r, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_EVENT_INSERT];

    bind_int(s, 1, r->time);
    bind_text(s, 2, r->kind);
    if (r->uid >= 0)
        bind_int(s, 3, r->uid);
    bind_text(s, 4, r->sandbox);
    bind_text(s, 5, r->name);
    bind_text(s, 6, r->exec);
    bind_text(s, 7, r->detail);
    bind_int(s, 8, (int64_t)r->count);
    if (store_step_row(st, s, e, "events") < 0)
        return -1;
    int64_t uid = sqlite3_column_int64(s, 0);
    if (store_step_done(st, s, e, "events") < 0)
        return -1;
    r->seq = (uint64_t)sqlite3_last_insert_rowid(st->db);
    return add_share(st, uid, 1, e);
}

/* The oldest row of this owner goes; 0: there is none. */
static int drop_oldest(struct store *st, int64_t uid, int64_t *ret_seq, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_EVENT_PRUNE];

    if (uid >= 0)
        bind_int(s, 1, uid);
    int r = store_step_row(st, s, e, "events");
    if (r <= 0)
        return r;
    *ret_seq = sqlite3_column_int64(s, 0);
    return store_step_done(st, s, e, "events") < 0 ? -1 : 1;
}

static int note_gone(struct store *st, int64_t uid, int64_t seq, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_EVENT_GONE_PUT];

    bind_int(s, 1, uid);
    bind_int(s, 2, seq);
    return store_step_done(st, s, e, "events");
}

/* Of whoever has most, one by one; a table that was much larger shrinks over some calls. */
static int prune(struct store *st, uint64_t keep, struct err *e)
{
    uint64_t total = 0;

    for (size_t i = 0; i < st->n_shares; i++)
        total += st->shares[i].n;
    for (int left = PRUNE_ROWS; total > keep && left > 0; left--, total--) {
        struct event_share *most = st->shares;
        int64_t seq = 0;
        for (size_t i = 1; i < st->n_shares; i++)
            if (st->shares[i].n > most->n)
                most = &st->shares[i];
        int r = drop_oldest(st, most->uid, &seq, e);
        if (r < 0 || (r > 0 && note_gone(st, most->uid, seq, e) < 0))
            return -1;
        most->n--;
    }
    return 0;
}

int store_event_add(struct store *st, struct event_row *rows, size_t n, uint64_t keep,
                    struct err *e)
{
    store_lock(st);

    if (n == 0)
        return 0;
    if (store_begin(st, e, "events") < 0)
        return -1;
    int r = count_shares(st, e);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = insert(st, &rows[i], e);
    if (r == 0)
        r = prune(st, keep, e);
    r = store_finish(st, r, e, "events");
    if (r < 0)
        forget_shares(st);
    return r;
}

static int read_range(struct store *st, struct event_range *ret, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_EVENT_RANGE];

    if (store_step_row(st, s, e, "events") < 0)
        return -1;
    const unsigned char *kind = sqlite3_column_text(s, 2);
    *ret = (struct event_range){ .last = (uint64_t)sqlite3_column_int64(s, 1) };
    ret->first = sqlite3_column_type(s, 0) == SQLITE_NULL ? ret->last + 1
                                                          : (uint64_t)sqlite3_column_int64(s, 0);
    snprintf(ret->kind, sizeof(ret->kind), "%s", kind ? (const char *)kind : "");
    return 0;
}

/* With the lock. */
static int range_of(struct store *st, int64_t uid, struct event_range *ret, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_EVENT_GONE];

    if (read_range(st, ret, e) < 0)
        return -1;
    if (uid < 0)
        return 0;
    bind_int(s, 1, uid);
    if (store_step_row(st, s, e, "events") < 0)
        return -1;
    ret->first = (uint64_t)sqlite3_column_int64(s, 0) + 1;
    return 0;
}

int store_event_range(struct store *st, int64_t uid, struct event_range *ret, struct err *e)
{
    store_lock(st);
    return range_of(st, uid, ret, e);
}

int store_event_since(struct store *st, int64_t time, uint64_t *ret_seq, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_EVENT_SINCE];
    struct event_range range;

    bind_int(s, 1, time);
    if (store_step_row(st, s, e, "events") < 0 || read_range(st, &range, e) < 0)
        return -1;
    *ret_seq = sqlite3_column_type(s, 0) == SQLITE_NULL ? range.last + 1
                                                        : (uint64_t)sqlite3_column_int64(s, 0);
    return 0;
}

static int read_row(sqlite3_stmt *s, struct event_row *r, struct err *e)
{
    r->seq = (uint64_t)sqlite3_column_int64(s, 0);
    r->time = sqlite3_column_int64(s, 1);
    r->uid = sqlite3_column_type(s, 3) == SQLITE_NULL ? -1 : sqlite3_column_int64(s, 3);
    r->count = (uint64_t)sqlite3_column_int64(s, 8);
    return column_text(s, 2, &r->kind, e) < 0 || column_text(s, 4, &r->sandbox, e) < 0 ||
                   column_text(s, 5, &r->name, e) < 0 || column_text(s, 6, &r->exec, e) < 0 ||
                   column_text(s, 7, &r->detail, e) < 0
               ? -1
               : 0;
}

int store_event_list(struct store *st, const struct event_query *q, struct event_page *ret,
                     struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[q->uid >= 0 ? ST_EVENT_LIST_OWN : ST_EVENT_LIST];
    void *rows = NULL;
    size_t n = 0, cap = 0;
    int r;

    bind_int(s, 1, (int64_t)q->from);
    if (q->uid >= 0)
        bind_int(s, 2, q->uid);
    bind_text(s, 3, q->sandbox);
    bind_int(s, 4, q->or_name);
    bind_int(s, 5, (int64_t)q->most);
    *ret = (struct event_page){ 0 };
    while ((r = store_step_row(st, s, e, "events")) == 1) {
        struct event_row *row = rows_grow(&rows, n, &cap, sizeof(*row), e);
        if (!row || (n++, read_row(s, row, e)) < 0) {
            r = -1;
            break;
        }
    }
    if (r == 0)
        r = range_of(st, q->range_of, &ret->range, e);
    if (r < 0) {
        event_rows_done(rows, n);
        return -1;
    }
    ret->rows = rows;
    ret->n = n;
    /* what does not concern the asker was looked at as well */
    ret->next = n == q->most && n ? ret->rows[n - 1].seq + 1 : ret->range.last + 1;
    if (ret->next < q->from)
        ret->next = q->from;
    return 0;
}
