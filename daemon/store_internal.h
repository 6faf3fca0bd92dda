/* SPDX-License-Identifier: MIT
 *
 * store_internal: what store*.c share: the connection, the list of statements, binding and reading.
 * Only store*.c include it.
 *
 * Every public function of store.h takes the lock for its whole length (store_lock) and borrows
 * prepared statements, reset and unbound at the end of the scope (autostmt). The lock is a
 * leaf: nothing else is locked and nobody is called back while it is held.
 */
#pragma once

#include "daemon/store.h"
#include <pthread.h>
#include <sqlite3.h>

#define VM_COLUMNS                                                                             \
    "id, name, uid, gid, groups, state, reason, slot, image_name, image_digest, workspace, "  \
    "workspace_ro, cpus, memory, disk, env, labels, machine, accel, created_at, started_at, " \
    "stopped_at, share_pid, share_start, ttl_ms, idle_ms, stop_at, idle_spent, restart, "      \
    "restart_max, restarts, retry, stop_boot"
#define RULE_COLUMNS "vm, seq, allow, target, source, uid, added_at, matches"
#define EXEC_COLUMNS                                                                        \
    "id, vm, stream, command, user, workdir, tty, stdin_open, detach, pid, state, how, value, " \
    "created_at, ended_at"
#define IMAGE_COLUMNS \
    "digest, name, variant, os, kernel, recipe, size, root_size, created_at"

#define EVENT_COLUMNS "seq, time, kind, uid, sandbox, name, exec, detail, count"

#define STORE_STATEMENTS(X)                                                                       \
    X(ST_BEGIN, "BEGIN IMMEDIATE")                                                                \
    X(ST_COMMIT, "COMMIT")                                                                        \
    X(ST_ROLLBACK, "ROLLBACK")                                                                    \
    X(ST_VM_FREE_SLOT,                                                                            \
      "SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM vm WHERE slot = 1) THEN 1 ELSE "                \
      "(SELECT min(a.slot) + 1 FROM vm a WHERE NOT EXISTS "                                       \
      "(SELECT 1 FROM vm b WHERE b.slot = a.slot + 1)) END")                                      \
    X(ST_VM_INSERT,                                                                               \
      "INSERT INTO vm(" VM_COLUMNS ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, " \
      "?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, "     \
      "?30, ?31, ?32, ?33)")                                                                      \
    X(ST_VM_SET_STATE, "UPDATE vm SET state = ?2, reason = ?3 WHERE id = ?1")                     \
    X(ST_VM_UPDATE,                                                                               \
      "UPDATE vm SET state = ?2, reason = ?3, accel = ?4, started_at = ?5, stopped_at = ?6, "     \
      "share_pid = ?7, share_start = ?8, stop_at = ?9, restarts = ?10, retry = ?11, "             \
      "stop_boot = ?12 WHERE id = ?1")                                                            \
    X(ST_VM_SET_LIMITS,                                                                           \
      "UPDATE vm SET ttl_ms = ?2, idle_ms = ?3, restart = ?4, restart_max = ?5, stop_at = ?6, "   \
      "stop_boot = ?7, retry = ?8 WHERE id = ?1")                                                 \
    X(ST_VM_SET_IDLE, "UPDATE vm SET idle_spent = ?2 WHERE id = ?1")                              \
    X(ST_VM_DELETE, "DELETE FROM vm WHERE id = ?1")                                               \
    X(ST_VM_LIST, "SELECT " VM_COLUMNS ", policy FROM vm ORDER BY created_at, id")                \
    X(ST_VM_POLICY, "SELECT policy FROM vm WHERE id = ?1")                                        \
    X(ST_VM_SET_POLICY, "UPDATE vm SET policy = ?2 WHERE id = ?1")                                \
    X(ST_RULE_INSERT,                                                                             \
      "INSERT INTO rule(" RULE_COLUMNS ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")                \
    X(ST_RULE_CLEAR, "DELETE FROM rule WHERE vm = ?1")                                            \
    X(ST_RULE_LIST, "SELECT " RULE_COLUMNS " FROM rule WHERE vm = ?1 ORDER BY seq")               \
    X(ST_RULE_COUNT,                                                                              \
      "UPDATE rule SET matches = matches + ?4 WHERE vm = ?1 AND allow = ?2 AND target = ?3")      \
    X(ST_POLICY_PUT,                                                                              \
      "INSERT INTO policy(uid, name, rules, changed_at) VALUES(?1, ?2, ?3, ?4) "                  \
      "ON CONFLICT(uid, name) DO UPDATE SET rules = excluded.rules, "                             \
      "changed_at = excluded.changed_at")                                                         \
    X(ST_POLICY_OTHERS, "SELECT count(*) FROM policy WHERE uid = ?1 AND name <> ?2")              \
    X(ST_POLICY_LIST,                                                                             \
      "SELECT uid, name, rules, changed_at FROM policy "                                          \
      "WHERE uid = ?1 AND (?2 IS NULL OR name = ?2) ORDER BY name")                               \
    X(ST_POLICY_DELETE, "DELETE FROM policy WHERE uid = ?1 AND name = ?2")                        \
    X(ST_CHOICE_GET, "SELECT value FROM choice WHERE key = ?1")                                   \
    X(ST_CHOICE_PUT, "INSERT OR REPLACE INTO choice(key, value) VALUES(?1, ?2)")                  \
    X(ST_EXEC_INSERT,                                                                             \
      "INSERT INTO exec(" EXEC_COLUMNS ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, "  \
      "?12, ?13, ?14, ?15)")                                                                      \
    X(ST_EXEC_UPDATE,                                                                             \
      "UPDATE exec SET pid = ?2, state = ?3, how = ?4, value = ?5, ended_at = ?6, detach = ?7 "    \
      "WHERE id = ?1")                                                                             \
    X(ST_EXEC_DELETE, "DELETE FROM exec WHERE id = ?1")                                           \
    X(ST_EXEC_LIST, "SELECT " EXEC_COLUMNS " FROM exec WHERE vm = ?1 ORDER BY created_at, id")    \
    X(ST_IMAGE_INSERT,                                                                            \
      "INSERT INTO image(" IMAGE_COLUMNS ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) "          \
      "ON CONFLICT(digest) DO UPDATE SET name = excluded.name, recipe = excluded.recipe")         \
    X(ST_IMAGE_FORGET_NAME, "UPDATE image SET name = NULL WHERE name = ?1")                       \
    X(ST_IMAGE_DELETE, "DELETE FROM image WHERE digest = ?1")                                     \
    X(ST_IMAGE_LIST,                                                                              \
      "SELECT " IMAGE_COLUMNS ", (SELECT count(*) FROM vm WHERE vm.image_digest = image.digest) " \
      "FROM image ORDER BY created_at, digest")                                                   \
    X(ST_IDEM_PRUNE,                                                                              \
      "DELETE FROM idempotency WHERE rowid IN (SELECT rowid FROM idempotency "                    \
      "WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)")                                      \
    X(ST_IDEM_SUM,                                                                                \
      "SELECT count(*), coalesce(sum(size), 0) FROM idempotency WHERE uid = ?1")                  \
    X(ST_IDEM_CAP, /* what has no answer yet, then what has been there for the shortest time */   \
      "DELETE FROM idempotency WHERE rowid IN (SELECT rowid FROM (SELECT rowid, "                 \
      "row_number() OVER w AS n, sum(size) OVER w AS bytes FROM idempotency WHERE uid = ?1 "      \
      "WINDOW w AS (ORDER BY status = 0 DESC, rowid DESC ROWS UNBOUNDED PRECEDING)) "             \
      "WHERE n > ?2 OR bytes > ?3)")                                                              \
    X(ST_IDEM_GET,                                                                                \
      "SELECT request_hash, status, body FROM idempotency WHERE uid = ?1 AND key = ?2 "           \
      "AND created_at >= ?3")                                                                     \
    X(ST_IDEM_DROP, "DELETE FROM idempotency WHERE uid = ?1 AND key = ?2 AND status = 0")         \
    X(ST_IDEM_PUT,                                                                                \
      "INSERT OR REPLACE INTO idempotency(uid, key, request_hash, status, created_at, size, "     \
      "body) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)")                                                 \
    X(ST_EVENT_INSERT, /* of a sandbox that is gone its last event knows */                       \
      "INSERT INTO event(time, kind, uid, sandbox, name, exec, detail, count) VALUES(?1, ?2, "    \
      "coalesce(?3, (SELECT uid FROM vm WHERE id = ?4), (SELECT uid FROM event WHERE "            \
      "sandbox = ?4 ORDER BY seq DESC LIMIT 1)), ?4, "                                            \
      "coalesce(?5, (SELECT name FROM vm WHERE id = ?4), (SELECT name FROM event WHERE "          \
      "sandbox = ?4 ORDER BY seq DESC LIMIT 1)), ?6, ?7, ?8) RETURNING coalesce(uid, -1)")        \
    X(ST_EVENT_SHARES, "SELECT coalesce(uid, -1), count(*) FROM event GROUP BY uid")              \
    X(ST_EVENT_PRUNE,                                                                             \
      "DELETE FROM event WHERE seq = (SELECT min(seq) FROM event WHERE uid IS ?1) "               \
      "RETURNING seq")                                                                            \
    X(ST_EVENT_GONE_PUT,                                                                          \
      "INSERT INTO event_gone(uid, seq) VALUES(?1, ?2) "                                          \
      "ON CONFLICT(uid) DO UPDATE SET seq = excluded.seq")                                        \
    X(ST_EVENT_GONE, "SELECT max(seq) FROM event_gone WHERE uid = -2 OR uid = ?1")                \
    X(ST_EVENT_RANGE,                                                                             \
      "SELECT (SELECT min(seq) FROM event), (SELECT seq FROM sqlite_sequence "                    \
      "WHERE name = 'event'), (SELECT kind FROM event ORDER BY seq DESC LIMIT 1)")                \
    X(ST_EVENT_SINCE, "SELECT min(seq) FROM event WHERE time >= ?1")                              \
    X(ST_EVENT_LIST_OWN, /* by its index: any user may ask, again and again */                    \
      "SELECT " EVENT_COLUMNS " FROM event WHERE uid = ?2 AND seq >= ?1 AND "                     \
      "(?3 IS NULL OR sandbox = ?3 OR (?4 AND name = ?3)) ORDER BY seq LIMIT ?5")                 \
    X(ST_EVENT_LIST,                                                                              \
      "SELECT " EVENT_COLUMNS " FROM event WHERE seq >= ?1 AND "                                  \
      "(?3 IS NULL OR sandbox = ?3 OR (?4 AND name = ?3)) ORDER BY seq LIMIT ?5")

enum store_stmt {
#define STORE_ENUM(id, sql) id,
    STORE_STATEMENTS(STORE_ENUM)
#undef STORE_ENUM
    ST_MAX
};

struct event_share { int64_t uid; uint64_t n; };    /* rows of an owner; uid -1 the daemon's */

struct store {
    pthread_mutex_t lock;
    sqlite3 *db;                  /* owned */
    sqlite3_stmt *stmt[ST_MAX];   /* owned */
    struct event_share *shares;   /* owned: of store_event.c; NULL not counted yet */
    size_t n_shares, cap_shares;
    int64_t idem_pruned;          /* when store_idem.c looked for old rows; 0 never */
};

static inline void store_unlock_cleanup(struct store **st)
{
    pthread_mutex_unlock(&(*st)->lock);
}
#define store_lock(st)                                                               \
    __attribute__((cleanup(store_unlock_cleanup), unused)) struct store *locked_ = (st); \
    pthread_mutex_lock(&locked_->lock)

static inline void stmt_cleanup(sqlite3_stmt **s)
{
    if (*s) {
        sqlite3_reset(*s);
        sqlite3_clear_bindings(*s);
    }
}
#define autostmt __attribute__((cleanup(stmt_cleanup)))

/* A failed SQLite call as an error: full disk, i/o and corruption are told apart. */
int store_error(struct store *st, struct err *e, const char *what);
/* Runs a statement that returns no row. */
int store_step_done(struct store *st, sqlite3_stmt *s, struct err *e, const char *what);
/* 1 a row, 0 the end, -1 error. */
int store_step_row(struct store *st, sqlite3_stmt *s, struct err *e, const char *what);

/* A transaction; store_finish() is given how it went so far and returns how it ended. Ending one
 * needs no memory: one that stays open would swallow all that is written after it. */
int store_begin(struct store *st, struct err *e, const char *what);
int store_finish(struct store *st, int r, struct err *e, const char *what);

void bind_text(sqlite3_stmt *s, int i, const char *text);   /* NULL: NULL; borrowed until reset */
void bind_int(sqlite3_stmt *s, int i, int64_t v);
/* A vector as one text: each item followed by a NUL is what the blob column holds. */
int bind_strv(sqlite3_stmt *s, int i, const struct strv *v, struct err *e);
int column_strv(sqlite3_stmt *s, int i, struct strv *ret, struct err *e);
int column_text(sqlite3_stmt *s, int i, char **ret, struct err *e);   /* NULL stays NULL */
int column_id(sqlite3_stmt *s, int i, char *buf, size_t size, struct err *e);

/* Grows an array of rows by one zeroed item; *cap is the caller's bookkeeping. */
void *rows_grow(void **rows, size_t n, size_t *cap, size_t item, struct err *e);
