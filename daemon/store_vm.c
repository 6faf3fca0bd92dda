/* SPDX-License-Identifier: MIT
 *
 * store_vm: rows of sandboxes.
 */
#include "common/auto.h"
#include "common/limits.h"
#include "daemon/store_internal.h"

#include <stdlib.h>
#include <string.h>

void vm_row_done(struct vm_row *r)
{
    free(r->name);
    free(r->groups);
    free(r->reason);
    free(r->image_name);
    free(r->image_digest);
    free(r->workspace);
    strv_done(&r->env);
    strv_done(&r->labels);
    free(r->machine);
    free(r->accel);
    free(r->policy);
    memset(r, 0, sizeof(*r));
}

static int free_slot(struct store *st, uint32_t *ret, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_FREE_SLOT];
    int r = store_step_row(st, s, e, "free slot");

    if (r < 0)
        return -1;
    int64_t slot = r == 1 ? sqlite3_column_int64(s, 0) : 0;
    if (slot < 1 || slot > LIMIT_SANDBOXES) {
        err_set(e, ERR_QUOTA, "this daemon has %d sandboxes, as many as it can hold",
                LIMIT_SANDBOXES);
        e->quota = (struct err_quota){ .name = "daemon_sandboxes", .limit = LIMIT_SANDBOXES,
                                       .used = LIMIT_SANDBOXES, .requested = 1 };
        return err_hint(e, "`sbx ls` lists yours, `sbx rm NAME` removes one");
    }
    *ret = (uint32_t)slot;
    return 0;
}

static int insert_row(struct store *st, const struct vm_row *r, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_INSERT];

    bind_text(s, 1, r->id);
    bind_text(s, 2, r->name);
    bind_int(s, 3, r->uid);
    bind_int(s, 4, r->gid);
    bind_text(s, 5, r->groups ? r->groups : "");
    bind_int(s, 6, r->state);
    bind_text(s, 7, r->reason);
    bind_int(s, 8, r->slot);
    bind_text(s, 9, r->image_name);
    bind_text(s, 10, r->image_digest);
    bind_text(s, 11, r->workspace);
    bind_int(s, 12, r->workspace_ro);
    bind_int(s, 13, r->cpus);
    bind_int(s, 14, (int64_t)r->memory);
    bind_int(s, 15, (int64_t)r->disk);
    if (bind_strv(s, 16, &r->env, e) < 0 || bind_strv(s, 17, &r->labels, e) < 0)
        return -1;
    bind_text(s, 18, r->machine);
    bind_text(s, 19, r->accel);
    bind_int(s, 20, r->created_at);
    bind_int(s, 21, r->started_at);
    bind_int(s, 22, r->stopped_at);
    bind_int(s, 23, r->share_pid);
    bind_int(s, 24, (int64_t)r->share_start);
    bind_int(s, 25, (int64_t)r->limits.ttl_ms);
    bind_int(s, 26, (int64_t)r->limits.idle_ms);
    bind_int(s, 27, r->stop_at);
    bind_int(s, 28, (int64_t)r->idle_spent);
    bind_int(s, 29, r->limits.restart.policy);
    bind_int(s, 30, r->limits.restart.max);
    bind_int(s, 31, r->restarts);
    bind_int(s, 32, r->retry);
    bind_text(s, 33, r->stop_boot);
    if (sqlite3_step(s) == SQLITE_DONE)
        return 0;
    switch (sqlite3_extended_errcode(st->db)) {
    case SQLITE_CONSTRAINT_UNIQUE:
        err_set(e, ERR_NAME_IN_USE, "a sandbox named '%s' exists already", r->name);
        return err_hint(e, "choose another name, or remove it with `sbx rm %s`", r->name);
    case SQLITE_CONSTRAINT_FOREIGNKEY:
        return err_set(e, ERR_IMAGE_NOT_FOUND, "image '%s' was removed meanwhile", r->image_name);
    default:
        return store_error(st, e, "insert sandbox");
    }
}

int store_vm_insert(struct store *st, struct vm_row *r, struct err *e)
{
    store_lock(st);

    if (store_begin(st, e, "insert sandbox") < 0)
        return -1;
    int ok = free_slot(st, &r->slot, e) < 0 || insert_row(st, r, e) < 0 ? -1 : 0;
    return store_finish(st, ok, e, "insert sandbox");
}

int store_vm_set_state(struct store *st, const char *id, enum vm_state state, const char *reason,
                       struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_SET_STATE];

    bind_text(s, 1, id);
    bind_int(s, 2, state);
    bind_text(s, 3, reason);
    return store_step_done(st, s, e, "sandbox state");
}

int store_vm_update(struct store *st, const struct vm_row *r, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_UPDATE];

    bind_text(s, 1, r->id);
    bind_int(s, 2, r->state);
    bind_text(s, 3, r->reason);
    bind_text(s, 4, r->accel);
    bind_int(s, 5, r->started_at);
    bind_int(s, 6, r->stopped_at);
    bind_int(s, 7, r->share_pid);
    bind_int(s, 8, (int64_t)r->share_start);
    bind_int(s, 9, r->stop_at);
    bind_int(s, 10, r->restarts);
    bind_int(s, 11, r->retry);
    bind_text(s, 12, r->stop_boot);
    return store_step_done(st, s, e, "sandbox");
}

int store_vm_set_limits(struct store *st, const struct vm_row *r, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_SET_LIMITS];

    bind_text(s, 1, r->id);
    bind_int(s, 2, (int64_t)r->limits.ttl_ms);
    bind_int(s, 3, (int64_t)r->limits.idle_ms);
    bind_int(s, 4, r->limits.restart.policy);
    bind_int(s, 5, r->limits.restart.max);
    bind_int(s, 6, r->stop_at);
    bind_text(s, 7, r->stop_boot);
    bind_int(s, 8, r->retry);
    return store_step_done(st, s, e, "limits of a sandbox");
}

int store_vm_set_idle(struct store *st, const char *id, uint64_t spent_ms, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_SET_IDLE];

    bind_text(s, 1, id);
    bind_int(s, 2, (int64_t)spent_ms);
    return store_step_done(st, s, e, "idle time of a sandbox");
}

int store_vm_delete(struct store *st, const char *id, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_DELETE];

    bind_text(s, 1, id);
    return store_step_done(st, s, e, "remove sandbox");
}

static int read_row(sqlite3_stmt *s, struct vm_row *r, struct err *e)
{
    if (column_id(s, 0, r->id, sizeof(r->id), e) < 0 || column_text(s, 1, &r->name, e) < 0 ||
        column_text(s, 4, &r->groups, e) < 0 || column_text(s, 6, &r->reason, e) < 0 ||
        column_text(s, 8, &r->image_name, e) < 0 || column_text(s, 9, &r->image_digest, e) < 0 ||
        column_text(s, 10, &r->workspace, e) < 0 || column_strv(s, 15, &r->env, e) < 0 ||
        column_strv(s, 16, &r->labels, e) < 0 || column_text(s, 17, &r->machine, e) < 0 ||
        column_text(s, 18, &r->accel, e) < 0 || column_text(s, 33, &r->policy, e) < 0 ||
        column_id(s, 32, r->stop_boot, sizeof(r->stop_boot), e) < 0)
        return -1;
    int state = sqlite3_column_int(s, 5), restart = sqlite3_column_int(s, 28);
    if (restart < 0 || restart >= RESTART_POLICY_MAX)
        return err_set(e, ERR_INTERNAL, "database: sandbox %s has restart %d", r->id, restart);
    if (state < 0 || state >= VM_STATE_MAX)
        return err_set(e, ERR_INTERNAL, "database: sandbox %s has state %d", r->id, state);
    r->uid = (uid_t)sqlite3_column_int64(s, 2);
    r->gid = (gid_t)sqlite3_column_int64(s, 3);
    r->state = (enum vm_state)state;
    r->slot = (uint32_t)sqlite3_column_int64(s, 7);
    r->workspace_ro = sqlite3_column_int(s, 11) != 0;
    r->cpus = (uint32_t)sqlite3_column_int64(s, 12);
    r->memory = (uint64_t)sqlite3_column_int64(s, 13);
    r->disk = (uint64_t)sqlite3_column_int64(s, 14);
    r->created_at = sqlite3_column_int64(s, 19);
    r->started_at = sqlite3_column_int64(s, 20);
    r->stopped_at = sqlite3_column_int64(s, 21);
    r->share_pid = sqlite3_column_int(s, 22);
    r->share_start = (uint64_t)sqlite3_column_int64(s, 23);
    r->limits.ttl_ms = (uint64_t)sqlite3_column_int64(s, 24);
    r->limits.idle_ms = (uint64_t)sqlite3_column_int64(s, 25);
    r->stop_at = sqlite3_column_int64(s, 26);
    r->idle_spent = (uint64_t)sqlite3_column_int64(s, 27);
    r->limits.restart = (struct restart){ .policy = (enum restart_policy)restart,
                                          .max = (uint32_t)sqlite3_column_int64(s, 29) };
    r->restarts = (uint32_t)sqlite3_column_int64(s, 30);
    r->retry = sqlite3_column_int(s, 31) != 0;
    return 0;
}

int store_vm_list(struct store *st, struct vm_row **ret, size_t *ret_n, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_LIST];
    void *rows = NULL;
    size_t n = 0, cap = 0;
    int r;

    while ((r = store_step_row(st, s, e, "list sandboxes")) == 1) {
        struct vm_row *row = rows_grow(&rows, n, &cap, sizeof(*row), e);
        if (!row || (n++, read_row(s, row, e)) < 0) {
            r = -1;
            break;
        }
    }
    if (r < 0) {
        for (size_t i = 0; i < n; i++)
            vm_row_done((struct vm_row *)rows + i);
        free(rows);
        return -1;
    }
    *ret = rows;
    *ret_n = n;
    return 0;
}
