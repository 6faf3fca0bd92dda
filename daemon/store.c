/* SPDX-License-Identifier: MIT
 *
 * store: opening, schema steps, statements and the small helpers around them.
 *
 * Durability: WAL with synchronous=NORMAL: a crash of the daemon loses nothing, a power cut may
 * lose the last transactions but never mixes them; after a power cut no guest runs anyway, and
 * reconcile repairs the rest from what it finds.
 */
#include "daemon/store_internal.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/sbuf.h"
#include "daemon/store_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUSY_MS 5000    /* what another process that has the database open is waited for */

static const char *const statement_text[] = {
#define STORE_TEXT(id, sql) [id] = sql,
    STORE_STATEMENTS(STORE_TEXT)
#undef STORE_TEXT
};
_Static_assert(ARRAY_SIZE(statement_text) == ST_MAX, "a text for each statement");

static const char *const state_names[] = {
    [VM_CREATING] = "creating", [VM_RUNNING] = "running",   [VM_STOPPING] = "stopping",
    [VM_STOPPED] = "stopped",   [VM_REMOVING] = "removing", [VM_FAILED] = "failed",
};
_Static_assert(ARRAY_SIZE(state_names) == VM_STATE_MAX, "a name for each state");

const char *vm_state_name(enum vm_state s)
{
    return s < VM_STATE_MAX ? state_names[s] : "unknown";
}

int store_error(struct store *st, struct err *e, const char *what)
{
    int rc = sqlite3_extended_errcode(st->db);

    if (rc == SQLITE_IOERR_NOMEM)
        return err_nomem(e);
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return err_set(e, ERR_NO_SPACE, "%s: no space left for the database", what);
    case SQLITE_NOMEM:
        return err_nomem(e);
    case SQLITE_BUSY:
        return err_set(e, ERR_UNAVAILABLE, "%s: the database is in use by another process", what);
    case SQLITE_READONLY:
        return err_set(e, ERR_UNAVAILABLE, "%s: the database can only be read", what);
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        return err_set(e, ERR_UNAVAILABLE, "%s: the database: %s (sqlite %d)", what,
                       sqlite3_errmsg(st->db), rc);
    default:
        return err_set(e, ERR_INTERNAL, "%s: %s (sqlite %d)", what, sqlite3_errmsg(st->db), rc);
    }
}

int store_step_row(struct store *st, sqlite3_stmt *s, struct err *e, const char *what)
{
    switch (sqlite3_step(s)) {
    case SQLITE_ROW:
        return 1;
    case SQLITE_DONE:
        return 0;
    default:
        return store_error(st, e, what);
    }
}

int store_step_done(struct store *st, sqlite3_stmt *s, struct err *e, const char *what)
{
    int r = store_step_row(st, s, e, what);

    return r < 0 ? -1 : 0;
}

int store_begin(struct store *st, struct err *e, const char *what)
{
    autostmt sqlite3_stmt *s = st->stmt[ST_BEGIN];

    return store_step_done(st, s, e, what);
}

int store_finish(struct store *st, int r, struct err *e, const char *what)
{
    autostmt sqlite3_stmt *commit = st->stmt[ST_COMMIT];
    autostmt sqlite3_stmt *rollback = st->stmt[ST_ROLLBACK];

    if (r == 0)
        r = store_step_done(st, commit, e, what);
    if (r < 0 && !sqlite3_get_autocommit(st->db))
        sqlite3_step(rollback);
    return r;
}

void bind_text(sqlite3_stmt *s, int i, const char *text)
{
    if (text)
        sqlite3_bind_text(s, i, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(s, i);
}

void bind_int(sqlite3_stmt *s, int i, int64_t v)
{
    sqlite3_bind_int64(s, i, v);
}

int bind_strv(sqlite3_stmt *s, int i, const struct strv *v, struct err *e)
{
    size_t len = 0, at = 0;

    for (size_t k = 0; k < v->n; k++)
        len += strlen(v->items[k]) + 1;
    if (len == 0)
        return sqlite3_bind_zeroblob(s, i, 0) == SQLITE_OK ? 0 : err_nomem(e);
    char *blob = malloc(len);
    if (!blob)
        return err_nomem(e);
    for (size_t k = 0; k < v->n; k++) {
        size_t n = strlen(v->items[k]) + 1;
        memcpy(blob + at, v->items[k], n);
        at += n;
    }
    return sqlite3_bind_blob64(s, i, blob, len, free) == SQLITE_OK ? 0 : err_nomem(e);
}

int column_strv(sqlite3_stmt *s, int i, struct strv *ret, struct err *e)
{
    const char *p = sqlite3_column_blob(s, i);
    size_t left = (size_t)sqlite3_column_bytes(s, i);

    if (!p && sqlite3_errcode(sqlite3_db_handle(s)) == SQLITE_NOMEM)
        return err_nomem(e);
    while (p && left > 0) {
        size_t n = strnlen(p, left);
        if (n == left)
            return err_set(e, ERR_INTERNAL, "database: a vector without its end");
        if (strv_add(ret, p, e) < 0)
            return -1;
        p += n + 1;
        left -= n + 1;
    }
    return 0;
}

int column_text(sqlite3_stmt *s, int i, char **ret, struct err *e)
{
    const unsigned char *t = sqlite3_column_text(s, i);

    if (!t) {
        *ret = NULL;
        return sqlite3_column_type(s, i) == SQLITE_NULL ? 0 : err_nomem(e);
    }
    *ret = strdup((const char *)t);
    return *ret ? 0 : err_nomem(e);
}

int column_id(sqlite3_stmt *s, int i, char *buf, size_t size, struct err *e)
{
    const unsigned char *t = sqlite3_column_text(s, i);
    size_t n = (size_t)sqlite3_column_bytes(s, i);

    if (!t && sqlite3_errcode(sqlite3_db_handle(s)) == SQLITE_NOMEM)
        return err_nomem(e);
    if (!t || n >= size)
        return err_set(e, ERR_INTERNAL, "database: an id of the wrong length");
    memcpy(buf, t, n + 1);
    return 0;
}

void *rows_grow(void **rows, size_t n, size_t *cap, size_t item, struct err *e)
{
    if (n == *cap) {
        size_t new_cap = *cap ? *cap * 2 : 8;
        void *p = reallocarray(*rows, new_cap, item);
        if (!p) {
            err_nomem(e);
            return NULL;
        }
        *rows = p;
        *cap = new_cap;
    }
    void *row = (char *)*rows + n * item;
    memset(row, 0, item);
    return row;
}

static int exec_sql(struct store *st, const char *sql, struct err *e, const char *what)
{
    return sqlite3_exec(st->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : store_error(st, e, what);
}

static int read_version(struct store *st, int *ret, struct err *e)
{
    sqlite3_stmt *s = NULL;

    if (sqlite3_prepare_v2(st->db, "PRAGMA user_version", -1, &s, NULL) != SQLITE_OK)
        return store_error(st, e, "database version");
    int r = store_step_row(st, s, e, "database version");
    if (r == 1)
        *ret = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return r < 0 ? -1 : 0;
}

/* One step in one transaction with its version number: after a crash it happened or it did not.
 * The version is read again inside, since another process may open at the same time. */
static int run_step(struct store *st, unsigned n, struct err *e)
{
    char pragma[64];
    int version = 0;

    snprintf(pragma, sizeof(pragma), "PRAGMA user_version = %u", n + 1);
    if (exec_sql(st, "BEGIN IMMEDIATE", e, store_steps[n].name) < 0)
        return -1;
    if (read_version(st, &version, e) < 0 ||
        (version == (int)n && (exec_sql(st, store_steps[n].sql, e, store_steps[n].name) < 0 ||
                               exec_sql(st, pragma, e, store_steps[n].name) < 0)) ||
        exec_sql(st, "COMMIT", e, store_steps[n].name) < 0) {
        sqlite3_exec(st->db, "ROLLBACK", NULL, NULL, NULL);    /* or the closing of it does that */
        return -1;
    }
    return 0;
}

static int migrate(struct store *st, const char *path, struct err *e)
{
    int version = 0;

    if (read_version(st, &version, e) < 0)
        return -1;
    if (version < 0 || (unsigned)version > store_steps_n) {
        err_set(e, ERR_UNAVAILABLE, "%s has schema version %d, this sandboxd knows up to %u", path,
                version, store_steps_n);
        return err_hint(e, "it was written by a newer sandboxd: install that version again");
    }
    for (unsigned n = (unsigned)version; n < store_steps_n; n++) {
        if (run_step(st, n, e) < 0)
            return err_wrap(e, "%s", path);
    }
    return 0;
}

static int prepare_all(struct store *st, struct err *e)
{
    for (int i = 0; i < ST_MAX; i++) {
        if (sqlite3_prepare_v3(st->db, statement_text[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &st->stmt[i], NULL) != SQLITE_OK)
            return store_error(st, e, "statements");
    }
    return 0;
}

AUTO_DEFINE(store, struct store, store_close)

/* A log that lies beside a database which is in no WAL mode is another's: a copy was put in the
 * place of one that was not closed. SQLite would apply it all the same, and ruin the copy. Ours is
 * in WAL mode from its first row on, and says so before there is a log. */
#define FORMAT_AT 18            /* of the file: https://www.sqlite.org/fileformat.html */
static int has_foreign_wal(const char *path, int fd, bool *ret, struct err *e)
{
    autofree char *wal = NULL;
    uint8_t format[2] = { 0 };
    struct stat sb;

    if (asprintf(&wal, "%s-wal", path) < 0) {
        wal = NULL;
        return err_nomem(e);
    }
    /* Who only looks leaves an empty one. */
    *ret = stat(wal, &sb) == 0 && sb.st_size > 0 &&
           (pread(fd, format, sizeof(format), FORMAT_AT) != sizeof(format) || format[0] == 1);
    return 0;
}

static int move_foreign_wal(const char *path, struct err *e)
{
    autosbuf struct sbuf wal = SBUF(LIMIT_PATH), away = SBUF(LIMIT_PATH), shm = SBUF(LIMIT_PATH);

    sbuf_fmt(&wal, "%s-wal", path);
    sbuf_fmt(&away, "%s-wal.foreign", path);
    sbuf_fmt(&shm, "%s-shm", path);
    if (wal.failed || away.failed || shm.failed)
        return err_nomem(e);
    if (rename(sbuf_str(&wal), sbuf_str(&away)) < 0 ||
        (unlink(sbuf_str(&shm)) < 0 && errno != ENOENT))
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot move %s away", sbuf_str(&wal));
    log_warn(NULL, "%s was put in the place of another database, whose log is moved to %s", path,
             sbuf_str(&away));
    return 0;
}

/* Environments of sandboxes are in it, so it is its owner's only; SQLite gives the files beside it
 * the same mode. Before SQLite opens it: closing any descriptor of it drops SQLite's locks. */
static int make_private(const char *path, struct err *e)
{
    autoclose int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool foreign = false;

    if (fd < 0 || fchmod(fd, 0600) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot open the database %s", path);
    if (has_foreign_wal(path, fd, &foreign, e) < 0)
        return -1;
    return foreign ? move_foreign_wal(path, e) : 0;
}

static int refuse_foreign_wal(const char *path, struct err *e)
{
    autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool foreign = false;

    if (fd < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot open the database %s", path);
    if (has_foreign_wal(path, fd, &foreign, e) < 0)
        return -1;
    if (!foreign)
        return 0;
    err_set(e, ERR_UNAVAILABLE, "%s-wal belongs to another database than %s", path, path);
    return err_hint(e, "a start of sandboxd moves it away");
}

/* Two that turn a new file to WAL at once would wait for each other, so SQLite tells one of them
 * "busy" without asking its busy handler (sqlite3_busy_handler()): here is the wait for that. */
static int set_wal(struct store *st, const char *path, struct err *e)
{
    int64_t deadline = deadline_in(BUSY_MS);

    for (;;) {
        int r = sqlite3_exec(st->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);
        if (r == SQLITE_OK)
            return 0;
        if (r != SQLITE_BUSY || deadline_left(deadline) == 0)
            return store_error(st, e, path);
        sqlite3_sleep(5);
    }
}

static int connect_to(const char *path, int flags, struct store **ret, struct err *e)
{
    autotype(store) struct store *st = calloc(1, sizeof(*st));

    if (!st)
        return err_nomem(e);
    pthread_mutex_init(&st->lock, NULL);
    flags |= SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
    if (sqlite3_open_v2(path, &st->db, flags, NULL) != SQLITE_OK) {
        if (!st->db)
            return err_nomem(e);
        return store_error(st, e, path);
    }
    sqlite3_busy_timeout(st->db, BUSY_MS);
    sqlite3_db_config(st->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(st->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    *ret = take_ptr(st);
    return 0;
}

int store_open(const char *path, struct store **ret, struct err *e)
{
    autotype(store) struct store *st = NULL;

    if (make_private(path, e) < 0 ||
        connect_to(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &st, e) < 0)
        return -1;
    if (set_wal(st, path, e) < 0 ||
        exec_sql(st, "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON", e, path) < 0 ||
        migrate(st, path, e) < 0 || prepare_all(st, e) < 0)
        return err_wrap(e, "database");
    *ret = take_ptr(st);
    return 0;
}

int store_open_look(const char *path, struct store **ret, struct err *e)
{
    autotype(store) struct store *st = NULL;
    int version = 0;

    if (refuse_foreign_wal(path, e) < 0 || connect_to(path, SQLITE_OPEN_READONLY, &st, e) < 0)
        return -1;
    if (read_version(st, &version, e) < 0)
        return err_wrap(e, "database");
    if (version != (int)store_steps_n) {
        err_set(e, ERR_UNAVAILABLE, "%s has schema version %d, this sandboxd is of version %u",
                path, version, store_steps_n);
        return err_hint(e, "restart sandboxd, or use the program of the one that runs");
    }
    if (prepare_all(st, e) < 0)
        return err_wrap(e, "database");
    *ret = take_ptr(st);
    return 0;
}

/* The log begins anew after 1,000 pages, in the blocks that it has: more than that many it does not
 * need before what is in it can be moved to the database. */
#define WAL_ROOM (1100 * (4096 + 24))

void store_reserve(struct store *st)
{
    const char *wal = sqlite3_filename_wal(sqlite3_db_filename(st->db, "main"));
    autoclose int fd = open(wal, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd >= 0)
        (void)fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, WAL_ROOM);
}

void store_close(struct store *st)
{
    if (!st)
        return;
    for (int i = 0; i < ST_MAX; i++)
        sqlite3_finalize(st->stmt[i]);
    sqlite3_close(st->db);
    pthread_mutex_destroy(&st->lock);
    free(st->shares);
    free(st);
}

const char *store_library_version(void)
{
    return sqlite3_libversion();
}
