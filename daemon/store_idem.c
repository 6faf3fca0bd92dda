/* SPDX-License-Identifier: MIT
 *
 * store_idem: answers kept for requests with an Idempotency-Key.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/store_internal.h"

#include <stdlib.h>

#define KEPT_US (24LL * 3600 * 1000000)

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

int store_idem_put(struct store *st, uid_t uid, const char *key, const char *request_hash,
                   int status, const char *body, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *prune = st->stmt[ST_IDEM_PRUNE];
    autostmt sqlite3_stmt *s = st->stmt[ST_IDEM_PUT];
    int64_t now = now_real_us();

    bind_int(prune, 1, now - KEPT_US);
    if (store_step_done(st, prune, e, "idempotency key") < 0)
        return -1;
    bind_int(s, 1, uid);
    bind_text(s, 2, key);
    bind_text(s, 3, request_hash);
    bind_int(s, 4, status);
    bind_text(s, 5, body);
    bind_int(s, 6, now);
    return store_step_done(st, s, e, "idempotency key");
}
