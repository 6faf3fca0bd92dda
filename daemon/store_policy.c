/* SPDX-License-Identifier: MIT
 *
 * store_policy: rules of sandboxes, policies with names, and the daemon's own choices.
 */
#include "common/auto.h"
#include "common/limits.h"
#include "daemon/store_internal.h"

#include <stdlib.h>
#include <string.h>

void rule_rows_done(struct rule_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(rows[i].target);
        free(rows[i].source);
    }
    free(rows);
}

void policy_rows_done(struct policy_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(rows[i].name);
        free(rows[i].rules);
    }
    free(rows);
}

/* --- rules --- */

static int set_policy(struct store *st, const char *vm, const char *policy, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_SET_POLICY];

    bind_text(s, 1, vm);
    bind_text(s, 2, policy);
    return store_step_done(st, s, e, "policy");
}

static int clear_rules(struct store *st, const char *vm, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_RULE_CLEAR];

    bind_text(s, 1, vm);
    return store_step_done(st, s, e, "policy");
}

static int insert_rule(struct store *st, const char *vm, size_t seq, const struct rule_row *r,
                       struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_RULE_INSERT];

    bind_text(s, 1, vm);
    bind_int(s, 2, (int64_t)seq);
    bind_int(s, 3, r->allow);
    bind_text(s, 4, r->target);
    bind_text(s, 5, r->source);
    bind_int(s, 6, r->uid);
    bind_int(s, 7, r->added_at);
    bind_int(s, 8, (int64_t)r->matches);
    return store_step_done(st, s, e, "policy");
}

int store_rules_set(struct store *st, const char *vm, const char *policy,
                    const struct rule_row *rows, size_t n, struct err *e)
{
    store_lock(st);

    if (store_begin(st, e, "policy") < 0)
        return -1;
    int r = set_policy(st, vm, policy, e) < 0 || clear_rules(st, vm, e) < 0 ? -1 : 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = insert_rule(st, vm, i, &rows[i], e);
    return store_finish(st, r, e, "policy");
}

static int read_policy(struct store *st, const char *vm, char **ret, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_VM_POLICY];

    bind_text(s, 1, vm);
    int r = store_step_row(st, s, e, "policy");
    if (r == 0)
        return err_set(e, ERR_SANDBOX_NOT_FOUND, "no sandbox '%s'", vm);
    return r < 0 ? -1 : column_text(s, 0, ret, e);
}

static int read_rule(sqlite3_stmt *s, struct rule_row *r, struct err *e)
{
    r->allow = sqlite3_column_int(s, 2) != 0;
    r->uid = (uid_t)sqlite3_column_int64(s, 5);
    r->added_at = sqlite3_column_int64(s, 6);
    r->matches = (uint64_t)sqlite3_column_int64(s, 7);
    return column_text(s, 3, &r->target, e) < 0 || column_text(s, 4, &r->source, e) < 0 ? -1 : 0;
}

int store_rules_list(struct store *st, const char *vm, char **ret_policy, struct rule_row **ret,
                     size_t *ret_n, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_RULE_LIST];
    autofree char *policy = NULL;
    void *rows = NULL;
    size_t n = 0, cap = 0;
    int r;

    if (read_policy(st, vm, &policy, e) < 0)
        return -1;
    bind_text(s, 1, vm);
    while ((r = store_step_row(st, s, e, "policy")) == 1) {
        struct rule_row *row = rows_grow(&rows, n, &cap, sizeof(*row), e);
        if (!row || (n++, read_rule(s, row, e)) < 0) {
            r = -1;
            break;
        }
    }
    if (r < 0) {
        rule_rows_done(rows, n);
        return -1;
    }
    *ret_policy = take_ptr(policy);
    *ret = rows;
    *ret_n = n;
    return 0;
}

static int count_rule(struct store *st, const char *vm, const struct rule_count *c, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_RULE_COUNT];

    bind_text(s, 1, vm);
    bind_int(s, 2, c->allow);
    bind_text(s, 3, c->target);
    bind_int(s, 4, (int64_t)c->matches);
    return store_step_done(st, s, e, "counts of rules");
}

int store_rules_count(struct store *st, const char *vm, const struct rule_count *counts, size_t n,
                      struct err *e)
{
    store_lock(st);

    if (store_begin(st, e, "counts of rules") < 0)
        return -1;
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = count_rule(st, vm, &counts[i], e);
    return store_finish(st, r, e, "counts of rules");
}

/* --- policies with names --- */

static int check_quota(struct store *st, const struct policy_row *p, struct err *e)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_POLICY_OTHERS];

    bind_int(s, 1, p->uid);
    bind_text(s, 2, p->name);
    int r = store_step_row(st, s, e, "policy");
    if (r < 0)
        return -1;
    if (r == 1 && sqlite3_column_int64(s, 0) >= LIMIT_POLICIES) {
        err_set(e, ERR_QUOTA, "you have %d policies, as many as one user can", LIMIT_POLICIES);
        e->quota = (struct err_quota){ .name = "policies", .limit = LIMIT_POLICIES,
                                       .used = (uint64_t)sqlite3_column_int64(s, 0),
                                       .requested = 1 };
        return err_hint(e, "`sbx policy ls` lists them, `sbx policy undefine NAME` removes one");
    }
    return 0;
}

int store_policy_put(struct store *st, const struct policy_row *p, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_POLICY_PUT];

    if (store_begin(st, e, "policy") < 0)
        return -1;
    bind_int(s, 1, p->uid);
    bind_text(s, 2, p->name);
    bind_text(s, 3, p->rules);
    bind_int(s, 4, p->changed_at);
    int r = check_quota(st, p, e) < 0 || store_step_done(st, s, e, "policy") < 0 ? -1 : 0;
    return store_finish(st, r, e, "policy");
}

static int not_found(const char *name, struct err *e)
{
    err_set(e, ERR_POLICY_NOT_FOUND, "no policy '%s'", name);
    return err_hint(e, "`sbx policy ls` lists presets and your policies");
}

int store_policy_list(struct store *st, uid_t uid, const char *name, struct policy_row **ret,
                      size_t *ret_n, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_POLICY_LIST];
    void *rows = NULL;
    size_t n = 0, cap = 0;
    int r;

    bind_int(s, 1, uid);
    bind_text(s, 2, name);
    while ((r = store_step_row(st, s, e, "policies")) == 1) {
        struct policy_row *row = rows_grow(&rows, n, &cap, sizeof(*row), e);
        if (!row || (n++, column_text(s, 1, &row->name, e)) < 0 ||
            column_text(s, 2, &row->rules, e) < 0) {
            r = -1;
            break;
        }
        row->uid = (uid_t)sqlite3_column_int64(s, 0);
        row->changed_at = sqlite3_column_int64(s, 3);
    }
    if (r == 0 && name && n == 0)
        r = not_found(name, e);
    if (r < 0) {
        policy_rows_done(rows, n);
        return -1;
    }
    *ret = rows;
    *ret_n = n;
    return 0;
}

int store_policy_delete(struct store *st, uid_t uid, const char *name, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_POLICY_DELETE];

    bind_int(s, 1, uid);
    bind_text(s, 2, name);
    if (store_step_done(st, s, e, "policy") < 0)
        return -1;
    return sqlite3_changes(st->db) == 1 ? 0 : not_found(name, e);
}

/* --- choices --- */

int store_choice_get(struct store *st, const char *key, char **ret, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_CHOICE_GET];

    *ret = NULL;
    bind_text(s, 1, key);
    int r = store_step_row(st, s, e, key);
    return r < 1 ? r : column_text(s, 0, ret, e);
}

int store_choice_put(struct store *st, const char *key, const char *value, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_CHOICE_PUT];

    bind_text(s, 1, key);
    bind_text(s, 2, value);
    return store_step_done(st, s, e, key);
}
