/* SPDX-License-Identifier: MIT
 *
 * store_backup: what SQLite says of the file, and copies of it.
 *
 * VACUUM INTO reads in one transaction, so the copy is of one moment; in WAL mode nobody who writes
 * waits for it. And it copies rows, not pages: what was deleted is not in the copy.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/parse.h"
#include "common/sbuf.h"
#include "daemon/fault.h"
#include "daemon/store_internal.h"

#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>

#define FAULTS_MAX 20       /* lines of one kind: who has more needs his backup, not a list */

AUTO_DEFINE(lookstore, struct store, store_close)
AUTO_DEFINE(anystmt, sqlite3_stmt, sqlite3_finalize)

/* --- what is wrong --- */

static int check_pages(struct store *st, store_fault_fn fn, void *arg, struct err *e)
{
    autotype(anystmt) sqlite3_stmt *s = NULL;
    int r, n = 0;

    if (sqlite3_prepare_v2(st->db, "PRAGMA integrity_check(20)", -1, &s, NULL) != SQLITE_OK)
        return store_error(st, e, "check");
    while ((r = store_step_row(st, s, e, "check")) == 1) {
        const char *text = (const char *)sqlite3_column_text(s, 0);
        if (text && strcmp(text, "ok") != 0 && n++ < FAULTS_MAX)
            fn(arg, text);
    }
    return r;
}

static int check_references(struct store *st, store_fault_fn fn, void *arg, struct err *e)
{
    autotype(anystmt) sqlite3_stmt *s = NULL;
    int r, n = 0;

    if (sqlite3_prepare_v2(st->db, "PRAGMA foreign_key_check", -1, &s, NULL) != SQLITE_OK)
        return store_error(st, e, "check");
    while ((r = store_step_row(st, s, e, "check")) == 1) {
        autosbuf struct sbuf line = SBUF(256);
        if (n++ >= FAULTS_MAX)
            continue;
        sbuf_fmt(&line, "a row of table %s leads to one of %s that is not there",
                 (const char *)sqlite3_column_text(s, 0), (const char *)sqlite3_column_text(s, 2));
        fn(arg, sbuf_str(&line));
    }
    return r;
}

int store_check(struct store *st, store_fault_fn fn, void *arg, struct err *e)
{
    store_lock(st);

    return check_pages(st, fn, arg, e) < 0 || check_references(st, fn, arg, e) < 0 ? -1 : 0;
}

/* --- a copy --- */

static int copy_into(const char *from, const char *to, struct err *e)
{
    autotype(lookstore) struct store *st = NULL;
    autotype(anystmt) sqlite3_stmt *s = NULL;

    if (store_open_look(from, &st, e) < 0)
        return -1;
    if (sqlite3_prepare_v2(st->db, "VACUUM INTO ?1", -1, &s, NULL) != SQLITE_OK)
        return store_error(st, e, "copy");
    bind_text(s, 1, to);
    return store_step_done(st, s, e, "copy the database");
}

static void first_fault(void *arg, const char *what)
{
    struct sbuf *b = arg;

    if (b->len == 0)
        sbuf_text(b, what, strlen(what));
}

/* The copy says that it is one: what was under way when it was made is not to be taken for the
 * newest word about a sandbox (reconcile.c). Without a journal: if this fails, it goes. */
static int mark(struct store *copy, struct err *e)
{
    char now[40];

    format_time(now_real_us(), now);
    if (sqlite3_exec(copy->db, "PRAGMA journal_mode = OFF", NULL, NULL, NULL) != SQLITE_OK)
        return store_error(copy, e, "mark the copy");
    autotype(anystmt) sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(copy->db, "INSERT INTO choice (key, value) VALUES (?1, ?2) "
                                     "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                           -1, &s, NULL) != SQLITE_OK)
        return store_error(copy, e, "mark the copy");
    bind_text(s, 1, STORE_COPIED);
    bind_text(s, 2, now);
    return store_step_done(copy, s, e, "mark the copy");
}

static int mark_and_check(const char *path, struct err *e)
{
    struct store copy = { .lock = PTHREAD_MUTEX_INITIALIZER };
    autosbuf struct sbuf fault = SBUF(200);
    int r = -1;

    if (sqlite3_open_v2(path, &copy.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW, NULL) !=
        SQLITE_OK)
        copy.db ? store_error(&copy, e, "cannot open the copy") : err_nomem(e);
    else if (mark(&copy, e) == 0 && store_check(&copy, first_fault, &fault, e) == 0)
        r = fault.len == 0 ? 0 : err_set(e, ERR_INTERNAL, "the copy is not whole: %s",
                                         sbuf_str(&fault));
    sqlite3_close(copy.db);
    return r;
}

static int sync_path(const char *path, int flags, struct err *e)
{
    autoclose int fd = open(path, flags | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot write %s out", path);
    return 0;
}

/* A copy over the database itself, or what SQLite has beside it, would be the end of it. */
static int check_target(const char *from, const char *to, bool force, struct err *e)
{
    static const char *const parts[] = { "", "-wal", "-shm" };
    struct stat target, part;

    if (lstat(to, &target) < 0)
        return errno == ENOENT ? 0 : err_sys(e, ERR_INVALID, errno, "cannot look at %s", to);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        autosbuf struct sbuf path = SBUF(LIMIT_PATH);
        sbuf_fmt(&path, "%s%s", from, parts[i]);
        if (sbuf_check(&path, e) < 0)
            return -1;
        if (stat(sbuf_str(&path), &part) == 0 && part.st_dev == target.st_dev &&
            part.st_ino == target.st_ino)
            return err_set(e, ERR_INVALID, "%s is the database itself", to);
    }
    if (!S_ISREG(target.st_mode))
        return err_set(e, ERR_INVALID, "%s is there and not a file", to);
    if (!force) {
        err_set(e, ERR_INVALID, "%s is there already", to);
        return err_hint(e, "choose another name, or say --force to replace it");
    }
    return 0;
}

static int place(const char *made, const char *to, bool force, struct err *e)
{
    autofree char *dir = strdup(to);

    if (!dir)
        return err_nomem(e);
    if (renameat2(AT_FDCWD, made, AT_FDCWD, to, force ? 0 : RENAME_NOREPLACE) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot give the copy its name, %s", to);
    return sync_path(dirname(dir), O_RDONLY | O_DIRECTORY, e);
}

int store_backup(const char *from, const char *to, bool force, struct err *e)
{
    autosbuf struct sbuf name = SBUF(LIMIT_PATH);
    autofree char *making = NULL;

    sbuf_fmt(&name, "%s.XXXXXX", to);
    if (check_target(from, to, force, e) < 0 || sbuf_take(&name, &making, e) < 0)
        return -1;
    autoclose int fd = mkostemp(making, O_CLOEXEC);     /* 0600 from birth, and empty */
    if (fd < 0)
        return err_sys(e, ERR_INVALID, errno, "cannot make a file beside %s", to);
    if (fault_at(FAULT_BACKUP_COPY, e) == 0 && copy_into(from, making, e) == 0 &&
        fault_at(FAULT_BACKUP_MARK, e) == 0 && mark_and_check(making, e) == 0 &&
        sync_path(making, O_RDWR, e) == 0 && fault_at(FAULT_BACKUP_NAME, e) == 0 &&
        place(making, to, force, e) == 0) {
        fault_here(FAULT_BACKUP_DONE);
        return 0;
    }
    unlink(making);
    return -1;
}
