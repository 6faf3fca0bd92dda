/* SPDX-License-Identifier: MIT
 *
 * The store on a real file: rows come back as they went in, survive closing, and what must not be
 * lost or doubled is refused.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/name.h"
#include "daemon/store.h"
#include "daemon/store_steps.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], path[96];

static void fresh(void)
{
    snprintf(dir, sizeof(dir), "/tmp/test-store-XXXXXX");
    ASSERT_TRUE(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/db", dir);
}

static void clean(void)
{
    struct err e = ERR_INIT;

    ASSERT_EQ(io_remove_tree(AT_FDCWD, dir, &e), 0);
}

static struct store *open_store(void)
{
    struct store *st = NULL;
    struct err e = ERR_INIT;

    if (store_open(path, &st, &e) < 0)
        FAIL("store_open: %s", e.msg);
    return st;
}

static void add_image(struct store *st, const char *digest, const char *name)
{
    struct err e = ERR_INIT;
    struct image_row r = { .size = 5, .root_size = 6, .created_at = 7 };

    snprintf(r.digest, sizeof(r.digest), "%s", digest);
    r.name = strdup(name);
    r.variant = strdup("debian");
    r.os = strdup("Debian");
    r.kernel = strdup("6.1");
    r.recipe = strdup("recipe");
    if (store_image_insert(st, &r, &e) < 0)
        FAIL("%s", e.msg);
    image_row_done(&r);
}

static struct vm_row make_vm(const char *name, uid_t uid)
{
    struct err e = ERR_INIT;
    struct vm_row r = { .uid = uid, .gid = 9, .state = VM_CREATING, .cpus = 2, .memory = 1ULL << 40,
                        .disk = 1ULL << 41, .created_at = 1234567890123456, .workspace_ro = true };

    ASSERT_EQ(id_new(r.id, &e), 0);
    r.name = strdup(name);
    r.groups = strdup("4,27");
    r.image_name = strdup("debian");
    r.image_digest = strdup("sha256:a");
    r.workspace = strdup("/tmp/a b\n\xff");
    r.machine = strdup("microvm");
    ASSERT_EQ(strv_add(&r.env, "A=1", &e), 0);
    ASSERT_EQ(strv_add(&r.env, "B=", &e), 0);
    ASSERT_EQ(strv_add(&r.labels, "k=", &e), 0);
    return r;
}

static void insert_vm(struct store *st, struct vm_row *r)
{
    struct err e = ERR_INIT;

    if (store_vm_insert(st, r, &e) < 0)
        FAIL("insert: %s", e.msg);
}

static size_t count_vms(struct store *st)
{
    struct vm_row *rows = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    ASSERT_EQ(store_vm_list(st, &rows, &n, &e), 0);
    for (size_t i = 0; i < n; i++)
        vm_row_done(&rows[i]);
    free(rows);
    return n;
}

TEST(a_sandbox_comes_back_as_it_went_in)
{
    struct err e = ERR_INIT;
    struct vm_row *rows = NULL;
    size_t n = 0;

    fresh();
    struct store *st = open_store();
    add_image(st, "sha256:a", "debian");
    struct vm_row r = make_vm("box", 1000);
    r.limits.ttl_ms = 1234;
    insert_vm(st, &r);
    ASSERT_EQ(r.slot, 1);
    r.state = VM_RUNNING;
    r.accel = strdup("tcg");
    r.started_at = 77;
    r.share_pid = 4242;
    r.share_start = UINT64_MAX / 2;
    r.stop_at = 5000000000000000;
    memset(r.stop_boot, 'f', sizeof(r.stop_boot) - 1);
    r.restarts = 3;
    r.retry = true;
    ASSERT_EQ(store_vm_update(st, &r, &e), 0);
    ASSERT_EQ(store_vm_set_idle(st, r.id, 4711, &e), 0);
    store_close(st);

    st = open_store();
    ASSERT_EQ(store_vm_list(st, &rows, &n, &e), 0);
    ASSERT_EQ(n, 1);
    ASSERT_STREQ(rows[0].id, r.id);
    ASSERT_STREQ(rows[0].name, "box");
    ASSERT_EQ(rows[0].uid, 1000);
    ASSERT_EQ(rows[0].gid, 9);
    ASSERT_STREQ(rows[0].groups, "4,27");
    ASSERT_STREQ(rows[0].workspace, "/tmp/a b\n\xff");
    ASSERT_TRUE(rows[0].workspace_ro);
    ASSERT_EQ(rows[0].state, VM_RUNNING);
    ASSERT_STREQ(rows[0].accel, "tcg");
    ASSERT_EQ(rows[0].memory, 1ULL << 40);
    ASSERT_EQ(rows[0].env.n, 2);
    ASSERT_STREQ(rows[0].env.items[1], "B=");
    ASSERT_STREQ(rows[0].labels.items[0], "k=");
    ASSERT_EQ(rows[0].share_pid, 4242);
    ASSERT_EQ(rows[0].share_start, UINT64_MAX / 2);
    ASSERT_EQ(rows[0].created_at, 1234567890123456);
    ASSERT_EQ(rows[0].limits.ttl_ms, 1234);
    ASSERT_EQ(rows[0].limits.idle_ms, 0);
    ASSERT_EQ(rows[0].limits.restart.policy, RESTART_NO);
    ASSERT_EQ(rows[0].stop_at, 5000000000000000);
    ASSERT_STREQ(rows[0].stop_boot, r.stop_boot);
    ASSERT_EQ(rows[0].idle_spent, 4711);
    ASSERT_EQ(rows[0].restarts, 3);
    ASSERT_TRUE(rows[0].retry);
    r.limits = (struct vm_limits){ .ttl_ms = 1, .idle_ms = 2,
                                   .restart = { .policy = RESTART_ON_FAILURE, .max = 9 } };
    r.stop_at = 6;
    memcpy(r.stop_boot, "other", 6);
    r.retry = false;
    ASSERT_EQ(store_vm_set_limits(st, &r, &e), 0);
    vm_row_done(&rows[0]);
    free(rows);
    ASSERT_EQ(store_vm_list(st, &rows, &n, &e), 0);
    ASSERT_EQ(rows[0].limits.ttl_ms, 1);
    ASSERT_EQ(rows[0].limits.idle_ms, 2);
    ASSERT_EQ(rows[0].limits.restart.policy, RESTART_ON_FAILURE);
    ASSERT_EQ(rows[0].limits.restart.max, 9);
    ASSERT_EQ(rows[0].stop_at, 6);
    ASSERT_STREQ(rows[0].stop_boot, "other");
    ASSERT_FALSE(rows[0].retry);
    ASSERT_EQ(rows[0].idle_spent, 4711);
    ASSERT_EQ(rows[0].restarts, 3);
    vm_row_done(&rows[0]);
    free(rows);
    vm_row_done(&r);
    store_close(st);
    clean();
}

TEST(a_name_is_taken_once_per_owner)
{
    struct err e = ERR_INIT;

    fresh();
    struct store *st = open_store();
    add_image(st, "sha256:a", "debian");
    struct vm_row a = make_vm("box", 1000), b = make_vm("box", 1001), c = make_vm("box", 1000);
    insert_vm(st, &a);
    insert_vm(st, &b);
    ASSERT_EQ(store_vm_insert(st, &c, &e), -1);
    ASSERT_EQ(e.code, ERR_NAME_IN_USE);
    ASSERT_TRUE(strstr(e.msg, "box") != NULL);
    ASSERT_TRUE(e.hint[0] != '\0');
    ASSERT_EQ(count_vms(st), 2);
    vm_row_done(&a);
    vm_row_done(&b);
    vm_row_done(&c);
    store_close(st);
    clean();
}

static void sql(sqlite3 *db, const char *text)
{
    if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
        FAIL("%s: %s", text, sqlite3_errmsg(db));
}

/* The row there is, as often as a daemon can have sandboxes. */
static void fill_slots(void)
{
    sqlite3 *db = NULL;
    char text[160];

    ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
    sql(db, "BEGIN; CREATE TEMP TABLE one AS SELECT * FROM vm");
    for (int i = 2; i <= LIMIT_SANDBOXES; i++) {
        snprintf(text, sizeof(text), "UPDATE one SET id = '%016x', name = 'm%d', slot = %d; "
                 "INSERT INTO vm SELECT * FROM one", (unsigned)i, i, i);
        sql(db, text);
    }
    sql(db, "COMMIT");
    sqlite3_close(db);
}

TEST(a_daemon_holds_so_many_sandboxes)
{
    struct err e = ERR_INIT;

    fresh();
    struct store *st = open_store();
    add_image(st, "sha256:a", "debian");
    struct vm_row r = make_vm("first", 0), more = make_vm("more", 0);
    insert_vm(st, &r);
    fill_slots();
    ASSERT_EQ(store_vm_insert(st, &more, &e), -1);
    ASSERT_EQ(e.code, ERR_QUOTA);
    ASSERT_STREQ(e.quota.name, "daemon_sandboxes");
    ASSERT_EQ(e.quota.limit, LIMIT_SANDBOXES);
    ASSERT_EQ(e.quota.used, LIMIT_SANDBOXES);
    ASSERT_EQ(e.quota.requested, 1);
    ASSERT_CONTAINS(e.hint, "sbx rm");
    vm_row_done(&r);
    vm_row_done(&more);
    store_close(st);
    clean();
}

TEST(slots_are_the_smallest_free_numbers)
{
    struct err e = ERR_INIT;
    struct vm_row r[4];
    char name[8];

    fresh();
    struct store *st = open_store();
    add_image(st, "sha256:a", "debian");
    for (unsigned i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        r[i] = make_vm(name, 0);
        insert_vm(st, &r[i]);
        ASSERT_EQ(r[i].slot, i + 1);
    }
    ASSERT_EQ(store_vm_delete(st, r[0].id, &e), 0);
    r[3] = make_vm("n3", 0);
    insert_vm(st, &r[3]);
    ASSERT_EQ(r[3].slot, 1);
    ASSERT_EQ(store_vm_delete(st, r[1].id, &e), 0);
    vm_row_done(&r[1]);
    r[1] = make_vm("n4", 0);
    insert_vm(st, &r[1]);
    ASSERT_EQ(r[1].slot, 2);
    for (unsigned i = 0; i < 4; i++)
        vm_row_done(&r[i]);
    store_close(st);
    clean();
}

TEST(an_image_in_use_stays)
{
    struct err e = ERR_INIT;
    struct image_row *rows = NULL;
    size_t n = 0;

    fresh();
    struct store *st = open_store();
    add_image(st, "sha256:a", "debian");
    struct vm_row r = make_vm("box", 0);
    insert_vm(st, &r);
    add_image(st, "sha256:b", "debian");        /* a rebuild takes the name */
    ASSERT_EQ(store_image_list(st, &rows, &n, &e), 0);
    ASSERT_EQ(n, 2);
    for (size_t i = 0; i < n; i++) {
        bool old = strcmp(rows[i].digest, "sha256:a") == 0;
        ASSERT_EQ(rows[i].name == NULL, old);
        ASSERT_EQ(rows[i].sandboxes, old ? 1 : 0);
        image_row_done(&rows[i]);
    }
    free(rows);
    ASSERT_EQ(store_image_delete(st, "sha256:a", &e), -1);
    ASSERT_EQ(e.code, ERR_IMAGE_IN_USE);
    ASSERT_EQ(store_vm_delete(st, r.id, &e), 0);
    ASSERT_EQ(store_image_delete(st, "sha256:a", &e), 0);
    ASSERT_EQ(store_image_delete(st, "sha256:a", &e), -1);
    ASSERT_EQ(e.code, ERR_IMAGE_NOT_FOUND);
    vm_row_done(&r);
    store_close(st);
    clean();
}

TEST(a_sandbox_needs_its_image)
{
    struct err e = ERR_INIT;

    fresh();
    struct store *st = open_store();
    struct vm_row r = make_vm("box", 0);
    ASSERT_EQ(store_vm_insert(st, &r, &e), -1);
    ASSERT_EQ(e.code, ERR_IMAGE_NOT_FOUND);
    vm_row_done(&r);
    store_close(st);
    clean();
}

TEST(execs_go_with_their_sandbox)
{
    struct err e = ERR_INIT;
    struct exec_row x = { .stream = 4000000000u, .tty = true, .pid = 12, .created_at = 3 };
    struct exec_row *rows = NULL;
    size_t n = 0;

    fresh();
    struct store *st = open_store();
    add_image(st, "sha256:a", "debian");
    struct vm_row r = make_vm("box", 0);
    insert_vm(st, &r);
    ASSERT_EQ(id_new(x.id, &e), 0);
    memcpy(x.vm, r.id, sizeof(x.vm));
    ASSERT_EQ(strv_add(&x.command, "sh", &e), 0);
    ASSERT_EQ(strv_add(&x.command, "", &e), 0);
    ASSERT_EQ(store_exec_insert(st, &x, &e), 0);
    x.state = 1;
    x.how = 1;
    x.value = 9;
    x.ended_at = 5;
    ASSERT_EQ(store_exec_update(st, &x, &e), 0);
    ASSERT_EQ(store_exec_list(st, r.id, &rows, &n, &e), 0);
    ASSERT_EQ(n, 1);
    ASSERT_EQ(rows[0].stream, 4000000000u);
    ASSERT_EQ(rows[0].command.n, 2);
    ASSERT_STREQ(rows[0].command.items[1], "");
    ASSERT_TRUE(rows[0].tty);
    ASSERT_EQ(rows[0].value, 9);
    exec_row_done(&rows[0]);
    free(rows);
    rows = NULL;
    ASSERT_EQ(store_vm_delete(st, r.id, &e), 0);
    ASSERT_EQ(store_exec_list(st, r.id, &rows, &n, &e), 0);
    ASSERT_EQ(n, 0);
    free(rows);
    exec_row_done(&x);
    vm_row_done(&r);
    store_close(st);
    clean();
}

TEST(an_idempotency_key_belongs_to_its_owner)
{
    struct err e = ERR_INIT;
    char *hash = NULL, *body = NULL;
    int status = 0;

    fresh();
    struct store *st = open_store();
    ASSERT_EQ(store_idem_get(st, 1, "k", &hash, &status, &body, &e), 0);
    ASSERT_EQ(store_idem_put(st, 1, "k", "h", 201, "{}", &e), 0);
    ASSERT_EQ(store_idem_get(st, 2, "k", &hash, &status, &body, &e), 0);
    ASSERT_EQ(store_idem_get(st, 1, "k", &hash, &status, &body, &e), 1);
    ASSERT_STREQ(hash, "h");
    ASSERT_STREQ(body, "{}");
    ASSERT_EQ(status, 201);
    free(hash);
    free(body);
    store_close(st);
    clean();
}

static bool has_key(struct store *st, uid_t uid, const char *key)
{
    struct err e = ERR_INIT;
    autofree char *hash = NULL, *body = NULL;
    int status = 0, r = store_idem_get(st, uid, key, &hash, &status, &body, &e);

    ASSERT_TRUE(r >= 0);
    return r == 1;
}

static void put_key(struct store *st, uid_t uid, const char *key, int status, const char *body)
{
    struct err e = ERR_INIT;

    ASSERT_OK(store_idem_put(st, uid, key, "h", status, body, &e), e);
}

TEST(one_user_keeps_so_many_answers)
{
    char key[16];

    fresh();
    struct store *st = open_store();
    put_key(st, 2, "theirs", 201, "{}");
    put_key(st, 1, "begun", 0, "0123456789abcdef");
    for (int i = 0; i < LIMIT_KEYS; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        put_key(st, 1, key, 201, "{}");
    }
    /* the one that has no answer yet stays; of the others the oldest went */
    ASSERT_TRUE(has_key(st, 1, "begun"));
    ASSERT_TRUE(!has_key(st, 1, "k0"));
    ASSERT_TRUE(has_key(st, 1, "k1"));
    ASSERT_TRUE(has_key(st, 1, "k999"));
    put_key(st, 1, "k1", 201, "{}");                /* again: is the newest now */
    put_key(st, 1, "one more", 201, "{}");
    ASSERT_TRUE(has_key(st, 1, "k1"));
    ASSERT_TRUE(!has_key(st, 1, "k2"));
    ASSERT_TRUE(has_key(st, 2, "theirs"));
    store_close(st);
    clean();
}

TEST(one_user_keeps_so_much_text_of_answers)
{
    static char body[LIMIT_KEYS_BYTES / 4];
    char key[16];

    fresh();
    struct store *st = open_store();
    memset(body, 'x', sizeof(body) - 1);
    put_key(st, 2, "theirs", 201, body);
    for (int i = 0; i < 5; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        put_key(st, 1, key, 201, body);
    }
    ASSERT_TRUE(!has_key(st, 1, "k0"));
    ASSERT_TRUE(has_key(st, 1, "k1"));
    ASSERT_TRUE(has_key(st, 1, "k4"));
    ASSERT_TRUE(has_key(st, 2, "theirs"));
    store_close(st);
    clean();
}

static int64_t keys_in_file(void)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;

    ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_prepare_v2(db, "SELECT count(*) FROM idempotency", -1, &s, NULL), SQLITE_OK);
    ASSERT_EQ(sqlite3_step(s), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return n;
}

/* A database of before step 5, with a key that is as old as it is. */
TEST(answers_of_an_older_database_stay_and_old_ones_go)
{
    sqlite3 *db = NULL;
    char text[256];

    fresh();
    ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
    for (int i = 0; i < 4; i++)
        sql(db, store_steps[i].sql);
    sql(db, "PRAGMA user_version = 4");
    snprintf(text, sizeof(text), "INSERT INTO idempotency(uid, key, request_hash, status, body, "
             "created_at) VALUES(1, 'new', 'h', 201, '{}', %lld), (1, 'old', 'h', 201, '{}', 5)",
             (long long)now_real_us());
    sql(db, text);
    sqlite3_close(db);
    struct store *st = open_store();
    ASSERT_EQ(keys_in_file(), 2);
    ASSERT_TRUE(has_key(st, 1, "new"));
    ASSERT_TRUE(!has_key(st, 1, "old"));
    put_key(st, 2, "next", 201, "{}");              /* the first put of a daemon looks for them */
    ASSERT_EQ(keys_in_file(), 2);
    ASSERT_TRUE(has_key(st, 1, "new"));
    store_close(st);
    clean();
}

#define OLD_VM "00000000000000aa"
#define OLD_EXEC "00000000000000ee"

/* A database as a daemon of that version left it when it was killed: a running sandbox, with all
 * the columns there were, and a command in it. */
static void make_old(unsigned version)
{
    sqlite3 *db = NULL;
    char text[256];

    ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
    sql(db, "PRAGMA journal_mode = WAL");
    for (unsigned i = 0; i < version; i++)
        sql(db, store_steps[i].sql);
    snprintf(text, sizeof(text), "PRAGMA user_version = %u", version);
    sql(db, text);
    sql(db, "INSERT INTO image VALUES('sha256:a', 'debian', 'debian', 'Debian', '6.1', 'r', 5, 6, "
        "7)");
    sql(db, "INSERT INTO vm(id, name, uid, gid, groups, state, reason, slot, image_name, "
        "image_digest, workspace, workspace_ro, cpus, memory, disk, env, labels, machine, accel, "
        "created_at, started_at, stopped_at, share_pid, share_start) VALUES('" OLD_VM "', 'box', "
        "1000, 9, '4,27', 1, NULL, 3, 'debian', 'sha256:a', '/home/a', 1, 2, 1024, 2048, "
        "x'413D3100', x'6B3D00', 'microvm', 'tcg', 11, 12, 0, 4242, 13)");
    sql(db, "INSERT INTO exec VALUES('" OLD_EXEC "', '" OLD_VM "', 5, x'736C65657000313000', "
        "'root', '/', 1, 1, 1, 99, 0, 0, 0, 14, 0)");
    snprintf(text, sizeof(text), "INSERT INTO idempotency(uid, key, request_hash, status, body, "
             "created_at%s) VALUES(1000, 'k', 'h', 201, '{}', %lld%s)",
             version >= 5 ? ", size" : "", (long long)now_real_us(), version >= 5 ? ", 2" : "");
    sql(db, text);
    if (version >= 2) {
        sql(db, "UPDATE vm SET policy = 'agent'");
        sql(db, "INSERT INTO rule VALUES('" OLD_VM "', 1, 1, 'a.example', 'user', 1000, 15, 16)");
        sql(db, "INSERT INTO policy VALUES(1000, 'mine', 'allow b.example', 17)");
        sql(db, "INSERT INTO choice VALUES('subnet', '10.1.0.0/16')");
    }
    if (version >= 3) {     /* the first is gone by now */
        for (int i = 0; i < 3; i++)
            sql(db, "INSERT INTO event(time, kind, uid, sandbox, name, count) "
                "VALUES(18, 'sandbox.start', 1000, '" OLD_VM "', 'box', 1)");
        sql(db, "DELETE FROM event WHERE seq = 1");
    }
    if (version >= 6)
        sql(db, "UPDATE event_gone SET seq = 1 WHERE uid = -2");
    if (version >= 4)
        sql(db, "UPDATE vm SET ttl_ms = 21, idle_ms = 22, stop_at = 23, stop_boot = 'boot', "
            "idle_spent = 24, restart = 1, restart_max = 25, restarts = 26, retry = 1");
    sqlite3_close(db);
}

static void check_old_vm(struct store *st, unsigned version)
{
    struct vm_row *r = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;
    bool limits = version >= 4;         /* before, there were none: they are none now */

    ASSERT_OK(store_vm_list(st, &r, &n, &e), e);
    ASSERT_EQ(n, 1);
    ASSERT_STREQ(r->id, OLD_VM);
    ASSERT_STREQ(r->name, "box");
    ASSERT_EQ(r->uid, 1000);
    ASSERT_EQ(r->gid, 9);
    ASSERT_STREQ(r->groups, "4,27");
    ASSERT_EQ(r->state, VM_RUNNING);
    ASSERT_NULL(r->reason);
    ASSERT_EQ(r->slot, 3);
    ASSERT_STREQ(r->image_name, "debian");
    ASSERT_STREQ(r->image_digest, "sha256:a");
    ASSERT_STREQ(r->workspace, "/home/a");
    ASSERT_TRUE(r->workspace_ro);
    ASSERT_EQ(r->cpus, 2);
    ASSERT_EQ(r->memory, 1024);
    ASSERT_EQ(r->disk, 2048);
    ASSERT_EQ(r->env.n, 1);
    ASSERT_STREQ(r->env.items[0], "A=1");
    ASSERT_EQ(r->labels.n, 1);
    ASSERT_STREQ(r->labels.items[0], "k=");
    ASSERT_STREQ(r->machine, "microvm");
    ASSERT_STREQ(r->accel, "tcg");
    ASSERT_EQ(r->created_at, 11);
    ASSERT_EQ(r->started_at, 12);
    ASSERT_EQ(r->stopped_at, 0);
    ASSERT_EQ(r->share_pid, 4242);
    ASSERT_EQ(r->share_start, 13);
    ASSERT_STREQ(r->policy, version >= 2 ? "agent" : "none");
    ASSERT_EQ(r->limits.ttl_ms, limits ? 21 : 0);
    ASSERT_EQ(r->limits.idle_ms, limits ? 22 : 0);
    ASSERT_EQ(r->limits.restart.policy, limits ? RESTART_ON_FAILURE : RESTART_NO);
    ASSERT_EQ(r->limits.restart.max, limits ? 25 : 0);
    ASSERT_EQ(r->stop_at, limits ? 23 : 0);
    ASSERT_STREQ(r->stop_boot, limits ? "boot" : "");
    ASSERT_EQ(r->idle_spent, limits ? 24 : 0);
    ASSERT_EQ(r->restarts, limits ? 26 : 0);
    ASSERT_EQ(r->retry, limits);
    vm_row_done(r);
    free(r);
}

static void check_old_exec(struct store *st)
{
    struct exec_row *r = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    ASSERT_OK(store_exec_list(st, OLD_VM, &r, &n, &e), e);
    ASSERT_EQ(n, 1);
    ASSERT_STREQ(r->id, OLD_EXEC);
    ASSERT_EQ(r->stream, 5);
    ASSERT_EQ(r->command.n, 2);
    ASSERT_STREQ(r->command.items[0], "sleep");
    ASSERT_STREQ(r->command.items[1], "10");
    ASSERT_STREQ(r->user, "root");
    ASSERT_TRUE(r->tty && r->stdin_open && r->detach);
    ASSERT_EQ(r->pid, 99);
    ASSERT_EQ(r->state, 0);
    ASSERT_EQ(r->created_at, 14);
    exec_row_done(r);
    free(r);
}

static void check_old_rules(struct store *st, bool had_any)
{
    autofree char *base = NULL;
    autofree char *subnet = NULL;
    struct rule_row *rules = NULL;
    struct policy_row *named = NULL;
    struct err e = ERR_INIT;
    size_t n = 0, n_named = 0;

    ASSERT_OK(store_rules_list(st, OLD_VM, &base, &rules, &n, &e), e);
    ASSERT_OK(store_policy_list(st, 1000, NULL, &named, &n_named, &e), e);
    ASSERT_OK(store_choice_get(st, "subnet", &subnet, &e), e);
    ASSERT_STREQ(base, had_any ? "agent" : "none");
    ASSERT_STREQ(subnet, had_any ? "10.1.0.0/16" : NULL);
    ASSERT_EQ(n, had_any);
    ASSERT_EQ(n_named, had_any);
    if (had_any) {
        ASSERT_STREQ(rules[0].target, "a.example");
        ASSERT_EQ(rules[0].matches, 16);
        ASSERT_STREQ(named[0].rules, "allow b.example");
    }
    rule_rows_done(rules, n);
    policy_rows_done(named, n_named);
}

static void no_fault(void *arg, const char *what)
{
    FAIL("version %u: %s", *(unsigned *)arg, what);
}

TEST(a_database_of_any_earlier_version_comes_with_all_that_is_in_it)
{
    struct event_range range;
    struct err e = ERR_INIT;

    ASSERT_GE(store_steps_n, 6);
    for (unsigned version = 1; version < store_steps_n; version++) {
        printf("# version %u\n", version);
        fresh();
        make_old(version);
        for (int round = 0; round < 2; round++) {       /* and it is brought up to date once */
            struct store *st = open_store();
            check_old_vm(st, version);
            check_old_exec(st);
            check_old_rules(st, version >= 2);
            ASSERT_TRUE(has_key(st, 1000, "k"));
            ASSERT_OK(store_event_range(st, 1000, &range, &e), e);
            ASSERT_EQ(range.first, version >= 3 ? 2 : 1);
            ASSERT_EQ(range.last, version >= 3 ? 3 : 0);
            ASSERT_OK(store_check(st, no_fault, &version, &e), e);
            store_close(st);
        }
        struct store *st = open_store();
        struct vm_row more = make_vm("more", 1000);     /* what is new goes beside it */
        insert_vm(st, &more);
        ASSERT_EQ(more.slot, 1);
        vm_row_done(&more);
        ASSERT_OK(store_vm_delete(st, OLD_VM, &e), e);
        ASSERT_EQ(count_vms(st), 1);
        store_close(st);
        clean();
    }
}

TEST(a_newer_database_is_refused_and_left_alone)
{
    sqlite3 *db = NULL;
    struct store *st = NULL;
    struct err e = ERR_INIT;

    fresh();
    store_close(open_store());
    ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, "PRAGMA user_version = 9999", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    ASSERT_EQ(store_open(path, &st, &e), -1);
    ASSERT_EQ(e.code, ERR_UNAVAILABLE);
    ASSERT_TRUE(strstr(e.msg, "9999") != NULL);
    ASSERT_TRUE(e.hint[0] != '\0');
    clean();
}

TEST(a_file_that_is_no_database_is_refused)
{
    struct store *st = NULL;
    struct err e = ERR_INIT;

    fresh();
    ASSERT_EQ(
        io_write_file_at(AT_FDCWD, path, "not a database, just some text......", 36, 0600, &e), 0);
    ASSERT_EQ(store_open(path, &st, &e), -1);
    ASSERT_TRUE(strstr(e.msg, path) != NULL);
    clean();
}

/* Processes, not threads: one that opens the file gives up the locks that others of its process
 * have on it (fcntl(2)). */
TEST(processes_may_open_a_new_database_at_once)
{
    for (int round = 0; round < 20; round++) {
        pid_t child[6];
        fresh();
        for (size_t i = 0; i < ARRAY_SIZE(child); i++) {
            child[i] = fork();
            ASSERT_TRUE(child[i] >= 0);
            if (child[i] == 0) {
                store_close(open_store());
                _exit(0);
            }
        }
        for (size_t i = 0; i < ARRAY_SIZE(child); i++) {
            int status = 0;
            ASSERT_EQ(waitpid(child[i], &status, 0), child[i]);
            ASSERT_EQ(status, 0);
        }
        clean();
    }
}

static struct store *shared;

static void *insert_many(void *arg)
{
    char name[32];

    for (unsigned i = 0; i < 25; i++) {
        snprintf(name, sizeof(name), "t%u-%u", (unsigned)(uintptr_t)arg, i);
        struct vm_row r = make_vm(name, 0);
        insert_vm(shared, &r);
        vm_row_done(&r);
    }
    return NULL;
}

TEST(threads_share_one_store)
{
    pthread_t t[4];
    struct vm_row *rows = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;
    bool seen[101] = { false };

    fresh();
    shared = open_store();
    add_image(shared, "sha256:a", "debian");
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        ASSERT_EQ(pthread_create(&t[i], NULL, insert_many, (void *)i), 0);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        pthread_join(t[i], NULL);
    ASSERT_EQ(store_vm_list(shared, &rows, &n, &e), 0);
    ASSERT_EQ(n, 100);
    for (size_t i = 0; i < n; i++) {
        ASSERT_TRUE(rows[i].slot >= 1 && rows[i].slot <= 100 && !seen[rows[i].slot]);
        seen[rows[i].slot] = true;
        vm_row_done(&rows[i]);
    }
    free(rows);
    store_close(shared);
    clean();
}
