/* SPDX-License-Identifier: MIT
 *
 * store_idem: answers kept for requests with an Idempotency-Key.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "daemon/store_internal.h"

#include <stdlib.h>
#include <string.h>

#define KEPT_US (24LL * 3600 * 1000000)
#define PRUNE_US (60LL * 1000000)   /* between two looks for older ones */
#define PRUNE_ROWS 200              /* deleted at once: others wait for the lock */

int store_idem_get(struct store *st, uid_t uid, const char *key, char **ret_request_hash,
                   int *ret_status, char **ret_body, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_IDEM_GET];
    autofree char *hash = NULL;

    bind_int(s, 1, uid);
    bind_text(s, 2, key);
    bind_int(s, 3, now_real_us() - KEPT_US);
    int r = store_step_row(st, s, e, "idempotency key");
    if (r <= 0)
        return r;
    if (column_text(s, 0, &hash, e) < 0 || column_text(s, 2, ret_body, e) < 0)
        return -1;
    *ret_request_hash = take_ptr(hash);
    *ret_status = sqlite3_column_int(s, 1);
    return 1;
}

int store_idem_drop(struct store *st, uid_t uid, const char *key, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_IDEM_DROP];

    bind_int(s, 1, uid);
    bind_text(s, 2, key);
    return store_step_done(st, s, e, "idempotency key");
}

/* Old ones of everybody, now and then. */
static int prune(struct store *st, int64_t now, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_IDEM_PRUNE];

    if (st->idem_pruned && now - st->idem_pruned < PRUNE_US && now >= st->idem_pruned)
        return 0;
    bind_int(s, 1, now - KEPT_US);
    bind_int(s, 2, PRUNE_ROWS);
    if (store_step_done(st, s, e, "idempotency key") < 0)
        return -1;
    if (sqlite3_changes(st->db) < PRUNE_ROWS)
        st->idem_pruned = now;
    return 0;
}

/* What one user has too many of. The sum is read from an index. */
static int cap(struct store *st, uid_t uid, struct err *e)
{
    autostmt sqlite3_stmt *sum = st->stmt[ST_IDEM_SUM];
    autostmt sqlite3_stmt *s = st->stmt[ST_IDEM_CAP];

    bind_int(sum, 1, uid);
    if (store_step_row(st, sum, e, "idempotency key") < 0)
        return -1;
    if (sqlite3_column_int64(sum, 0) <= LIMIT_KEYS &&
        sqlite3_column_int64(sum, 1) <= (int64_t)LIMIT_KEYS_BYTES)
        return 0;
    bind_int(s, 1, uid);
    bind_int(s, 2, LIMIT_KEYS);
    bind_int(s, 3, LIMIT_KEYS_BYTES);
    return store_step_done(st, s, e, "idempotency key");
}

static int put(struct store *st, uid_t uid, const char *key, const char *request_hash,
               int status, const char *body, int64_t now, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_IDEM_PUT];

    bind_int(s, 1, uid);
    bind_text(s, 2, key);
    bind_text(s, 3, request_hash);
    bind_int(s, 4, status);
    bind_int(s, 5, now);
    bind_int(s, 6, (int64_t)strlen(body));
    bind_text(s, 7, body);
    return store_step_done(st, s, e, "idempotency key");
}

int store_idem_put(struct store *st, uid_t uid, const char *key, const char *request_hash,
                   int status, const char *body, struct err *e)
{
    store_lock(st);
    int64_t now = now_real_us();

    if (store_begin(st, e, "idempotency key") < 0)
        return -1;
    int r = prune(st, now, e) < 0 || put(st, uid, key, request_hash, status, body, now, e) < 0 ||
                    cap(st, uid, e) < 0
                ? -1 : 0;
    return store_finish(st, r, e, "idempotency key");
}
