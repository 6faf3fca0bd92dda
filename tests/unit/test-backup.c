/* SPDX-License-Identifier: MIT
 *
 * Copies of the database: of one moment, whole or not there at all.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/store.h"
#include "tests/harness/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static struct store *fresh(void)
{
    struct store *st = NULL;
    struct err e = ERR_INIT;

    ASSERT_OK(store_open(test_path("sandboxd.db"), &st, &e), e);
    return st;
}

static int64_t number(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;

    ASSERT_EQ(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    ASSERT_EQ(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
    ASSERT_EQ(sqlite3_step(s), SQLITE_ROW);
    int64_t r = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return r;
}

static int entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;

    ASSERT_NOT_NULL(d);
    for (struct dirent *de; (de = readdir(d));)
        n += de->d_name[0] != '.';
    closedir(d);
    return n;
}

static void text_file(const char *path, const char *text)
{
    struct err e = ERR_INIT;

    ASSERT_OK(io_write_file_at(AT_FDCWD, path, text, strlen(text), 0644, &e), e);
}

TEST(a_copy_has_the_rows_is_private_and_says_that_it_is_a_copy)
{
    struct store *st = fresh();
    struct err e = ERR_INIT;
    autofree char *value = NULL;
    struct stat sb;

    ASSERT_OK(store_choice_put(st, "subnet", "10.1.0.0/16", &e), e);
    ASSERT_OK(store_backup(test_path("sandboxd.db"), test_path("copy"), false, &e), e);
    store_close(st);
    ASSERT_SYS(stat(test_path("copy"), &sb));
    ASSERT_EQ(sb.st_mode & 07777, 0600);
    ASSERT_OK(store_open(test_path("copy"), &st, &e), e);
    ASSERT_OK(store_choice_get(st, "subnet", &value, &e), e);
    ASSERT_STREQ(value, "10.1.0.0/16");
    free(take_ptr(value));
    ASSERT_OK(store_choice_get(st, STORE_COPIED, &value, &e), e);
    ASSERT_TRUE(value && value[0] == '2');
    store_close(st);
    ASSERT_OK(store_open(test_path("sandboxd.db"), &st, &e), e);
    free(take_ptr(value));
    ASSERT_OK(store_choice_get(st, STORE_COPIED, &value, &e), e);
    ASSERT_NULL(value);
    store_close(st);
}

TEST(nothing_is_overwritten_unless_asked)
{
    struct store *st = fresh();
    struct err e = ERR_INIT;
    autofree char *text = NULL;
    size_t len;

    text_file(test_path("copy"), "mine");
    ASSERT_ERR(store_backup(test_path("sandboxd.db"), test_path("copy"), false, &e), e,
               ERR_INVALID);
    ASSERT_CONTAINS(e.hint, "--force");
    e = ERR_INIT;
    ASSERT_OK(io_read_file_at(AT_FDCWD, test_path("copy"), 100, &text, &len, &e), e);
    ASSERT_STREQ(text, "mine");
    ASSERT_OK(store_backup(test_path("sandboxd.db"), test_path("copy"), true, &e), e);
    ASSERT_EQ(number(test_path("copy"), "SELECT count(*) FROM vm"), 0);
    store_close(st);
}

TEST(the_database_is_not_overwritten_by_its_copy_even_by_force)
{
    struct store *st = fresh();
    struct err e = ERR_INIT;

    ASSERT_SYS(link(test_path("sandboxd.db"), test_path("alias")));
    ASSERT_ERR(store_backup(test_path("sandboxd.db"), test_path("alias"), true, &e), e,
               ERR_INVALID);
    ASSERT_ERR(store_backup(test_path("sandboxd.db"), test_path("sandboxd.db"), true, &e), e,
               ERR_INVALID);
    ASSERT_ERR(store_backup(test_path("sandboxd.db"), test_path("sandboxd.db-wal"), true, &e), e,
               ERR_INVALID);
    ASSERT_ERR(store_backup(test_path("sandboxd.db"), test_dir(), true, &e), e, ERR_INVALID);
    store_close(st);
}

TEST(nothing_stays_where_there_is_no_database_or_no_directory)
{
    struct err e = ERR_INIT;

    ASSERT_ERR(store_backup(test_path("sandboxd.db"), test_path("copy"), false, &e), e,
               ERR_UNAVAILABLE);
    ASSERT_EQ(entries(test_dir()), 0);
    store_close(fresh());
    ASSERT_TRUE(store_backup(test_path("sandboxd.db"), test_path("none/copy"), false, &e) < 0);
    ASSERT_EQ(entries(test_dir()), 1);
}

static atomic_bool enough;
static atomic_int rounds;

/* Two rows that are equal whenever a transaction has ended. */
static void *write_pairs(void *arg)
{
    sqlite3 *db = NULL;
    char sql[300];

    if (sqlite3_open(test_path("sandboxd.db"), &db) != SQLITE_OK)
        return (void *)"cannot open";
    sqlite3_busy_timeout(db, 5000);
    for (int i = 1; !enough; i++) {
        snprintf(sql, sizeof(sql),
                 "BEGIN IMMEDIATE; INSERT OR REPLACE INTO choice VALUES ('a', '%d');"
                 "INSERT OR REPLACE INTO choice VALUES ('pad' || %d, hex(zeroblob(2000)));"
                 "INSERT OR REPLACE INTO choice VALUES ('b', '%d'); COMMIT", i, i % 500, i);
        if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
            return (void *)"a writer was held up";
        rounds = i;
    }
    sqlite3_close(db);
    return NULL;
}

TEST(a_copy_made_while_others_write_is_of_one_moment)
{
    struct store *st = fresh();
    struct err e = ERR_INIT;
    pthread_t writer;
    void *why = NULL;
    int64_t last = 0;

    ASSERT_EQ(pthread_create(&writer, NULL, write_pairs, NULL), 0);
    for (int i = 0; i < 20; i++) {
        int before = rounds;
        while (rounds == before)
            sched_yield();
        ASSERT_OK(store_backup(test_path("sandboxd.db"), test_path("copy"), true, &e), e);
        int64_t a = number(test_path("copy"), "SELECT value + 0 FROM choice WHERE key = 'a'");
        ASSERT_EQ(a, number(test_path("copy"), "SELECT value + 0 FROM choice WHERE key = 'b'"));
        ASSERT_LE(before, a);
        ASSERT_LE(last, a);
        last = a;
    }
    enough = true;
    pthread_join(writer, &why);
    ASSERT_STREQ(why, NULL);
    ASSERT_TRUE(last > 0);
    store_close(st);
}

TEST(a_full_disk_leaves_the_old_copy_and_nothing_else)
{
    struct store *st = fresh();
    struct err e = ERR_INIT;
    char big[40000];
    autofree char *text = NULL;
    size_t len;

    SKIP_IF(geteuid() != 0, "a small file system is mounted by root only");
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    for (int i = 0; i < 8; i++) {
        char key[8];
        snprintf(key, sizeof(key), "k%d", i);
        ASSERT_OK(store_choice_put(st, key, big, &e), e);
    }
    ASSERT_SYS(mkdir(test_path("small"), 0700));
    ASSERT_SYS(unshare(CLONE_NEWNS));
    ASSERT_SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    ASSERT_SYS(mount("none", test_path("small"), "tmpfs", 0, "size=128k"));
    text_file(test_path("small/copy"), "the old one");
    ASSERT_ERR(store_backup(test_path("sandboxd.db"), test_path("small/copy"), true, &e), e,
               ERR_NO_SPACE);
    ASSERT_EQ(entries(test_path("small")), 1);
    e = ERR_INIT;
    ASSERT_OK(io_read_file_at(AT_FDCWD, test_path("small/copy"), 100, &text, &len, &e), e);
    ASSERT_STREQ(text, "the old one");
    ASSERT_SYS(umount(test_path("small")));
    store_close(st);
}

static void note(void *arg, const char *what)
{
    snprintf(arg, 200, "%s", what);
}

TEST(rows_that_lead_nowhere_are_found)
{
    struct store *st = fresh();
    struct err e = ERR_INIT;
    char found[200] = "";
    sqlite3 *db = NULL;

    ASSERT_OK(store_check(st, note, found, &e), e);
    ASSERT_STREQ(found, "");
    ASSERT_EQ(sqlite3_open(test_path("sandboxd.db"), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, "INSERT INTO rule VALUES ('0123456789abcdef',1,1,'x','y',0,0,0)",
                           NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    ASSERT_OK(store_check(st, note, found, &e), e);
    ASSERT_CONTAINS(found, "table rule leads to one of vm");
    store_close(st);
}

TEST(looking_changes_nothing_and_refuses_other_versions)
{
    struct store *st = NULL;
    struct err e = ERR_INIT;
    sqlite3 *db = NULL;

    ASSERT_ERR(store_open_look(test_path("sandboxd.db"), &st, &e), e, ERR_UNAVAILABLE);
    ASSERT_EQ(entries(test_dir()), 0);
    store_close(fresh());
    e = ERR_INIT;
    ASSERT_OK(store_open_look(test_path("sandboxd.db"), &st, &e), e);
    ASSERT_TRUE(store_choice_put(st, "a", "b", &e) < 0);
    store_close(st);
    ASSERT_EQ(sqlite3_open(test_path("sandboxd.db"), &db), SQLITE_OK);
    sqlite3_exec(db, "PRAGMA user_version = 1", NULL, NULL, NULL);
    sqlite3_close(db);
    ASSERT_ERR(store_open_look(test_path("sandboxd.db"), &st, &e), e, ERR_UNAVAILABLE);
    ASSERT_EQ(number(test_path("sandboxd.db"), "PRAGMA user_version"), 1);
}

/* As it is when the daemon was killed, and only the main file was put back. */
TEST(a_log_that_was_left_does_not_ruin_a_copy_that_was_put_back)
{
    struct err e = ERR_INIT;
    autofree char *value = NULL, *copy = NULL, *wal = NULL;
    char found[200] = "";
    size_t len, wal_len;
    struct store *st = fresh();

    for (int i = 0; i < 200; i++) {     /* pages that the log will have other contents for */
        char key[8];
        snprintf(key, sizeof(key), "k%d", i);
        ASSERT_OK(store_choice_put(st, key, "of the copy", &e), e);
    }
    ASSERT_OK(store_backup(test_path("sandboxd.db"), test_path("copy"), false, &e), e);
    ASSERT_OK(store_choice_put(st, "k7", "of the log", &e), e);
    ASSERT_OK(io_read_file_at(AT_FDCWD, test_path("sandboxd.db-wal"), 64 << 20, &wal, &wal_len, &e),
              e);
    store_close(st);
    ASSERT_OK(io_read_file_at(AT_FDCWD, test_path("copy"), 64 << 20, &copy, &len, &e), e);
    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("sandboxd.db"), copy, len, 0600, &e), e);
    text_file(test_path("sandboxd.db-wal"), "");        /* of one that looked: no matter */
    ASSERT_OK(store_open_look(test_path("sandboxd.db"), &st, &e), e);
    store_close(st);
    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("sandboxd.db-wal"), wal, wal_len, 0600, &e), e);
    ASSERT_ERR(store_open_look(test_path("sandboxd.db"), &st, &e), e, ERR_UNAVAILABLE);
    ASSERT_CONTAINS(e.msg, "another database");
    e = ERR_INIT;
    ASSERT_OK(store_open(test_path("sandboxd.db"), &st, &e), e);
    ASSERT_OK(store_choice_get(st, "k7", &value, &e), e);
    ASSERT_STREQ(value, "of the copy");
    ASSERT_OK(store_check(st, note, found, &e), e);
    ASSERT_STREQ(found, "");
    store_close(st);
    ASSERT_SYS(access(test_path("sandboxd.db-wal.foreign"), F_OK));
}
