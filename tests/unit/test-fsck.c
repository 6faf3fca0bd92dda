/* SPDX-License-Identifier: MIT
 *
 * What fsck finds, on directories, databases and worlds that are made up: no virtual machine.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "daemon/fsck.h"
#include "daemon/share.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define A "00000000000000aa"
#define B "bb00000000000000"
#define UID_BASE 5000u

/* --- worlds by hand: the comparison alone --- */

static struct world world;
static struct findings found;

static struct vm_row *row(const char *id, enum vm_state state)
{
    world.rows = reallocarray(world.rows, world.n_rows + 1, sizeof(*world.rows));
    ASSERT_NOT_NULL(world.rows);
    struct vm_row *r = &world.rows[world.n_rows++];
    *r = (struct vm_row){ .state = state, .slot = (uint32_t)world.n_rows, .started_at = 1 };
    snprintf(r->id, sizeof(r->id), "%s", id);
    r->name = strdup("box");
    return r;
}

static struct thing *thing(enum thing_kind kind, const char *id)
{
    struct thing *t = world_add(&world, kind, id);

    if (kind == TH_QEMU) {
        t->number = UID_BASE + 1;
        t->networked = true;
    }
    return t;
}

/* All that a running sandbox has. */
static struct vm_row *whole(const char *id)
{
    static const enum thing_kind all[] = { TH_DOMAIN, TH_QEMU, TH_SHARE, TH_CHAIN, TH_STATE,
                                           TH_DISK, TH_RUNTIME };
    char cut[13];

    world.uid_base = UID_BASE;
    world.network = true;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        thing(all[i], id);
    snprintf(cut, sizeof(cut), "%.12s", id);
    thing(TH_TAP, cut);
    thing(TH_TAP_CHAIN, cut);
    struct vm_row *r = row(id, VM_RUNNING);
    r->share_pid = 7;
    return r;
}

static void without(enum thing_kind kind)
{
    size_t kept = 0;

    for (size_t i = 0; i < world.n_things; i++)
        if (world.things[i].kind != kind)
            world.things[kept++] = world.things[i];
    ASSERT_EQ(kept, world.n_things - 1);
    world.n_things = kept;
}

/* The kinds of findings, in their order; notes in brackets. */
static const char *kinds(void)
{
    static char text[1000];
    struct err e = ERR_INIT;
    size_t len = 0;

    findings_done(&found);
    ASSERT_OK(fsck_compare(&world, &found, &e), e);
    text[0] = '\0';
    for (size_t i = 0; i < found.n && len < sizeof(text); i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, found.list[i].note ? "%s[%s]"
                                                                                    : "%s%s",
                                i ? " " : "", found.list[i].kind);
    return text;
}

static void forget(void)
{
    world_done(&world);
    findings_done(&found);
}

TEST(a_disk_that_was_being_made_is_left_where_nothing_runs)
{
    whole(A);
    thing(TH_HALF_DISK, A);
    ASSERT_STREQ(kinds(), "");
    forget();
    row(A, VM_STOPPED)->started_at = 0;
    thing(TH_STATE, A);
    thing(TH_HALF_DISK, A);
    ASSERT_STREQ(kinds(), "halfdisk-left");
    world.daemon = true;            /* on its way up */
    ASSERT_STREQ(kinds(), "");
    forget();
}

TEST(nothing_and_a_whole_sandbox_are_clean)
{
    ASSERT_STREQ(kinds(), "");
    whole(A);
    ASSERT_STREQ(kinds(), "");
    world.daemon = true;
    ASSERT_STREQ(kinds(), "");
    forget();
}

TEST(each_thing_that_a_running_sandbox_lacks_is_found)
{
    static const struct { enum thing_kind kind; const char *finds; } lacks[] = {
        { TH_DOMAIN, "domain-missing" },     { TH_QEMU, "qemu-missing" },
        { TH_SHARE, "share-missing" },       { TH_TAP, "tap-missing" },
        { TH_CHAIN, "chain-missing" },       { TH_TAP_CHAIN, "tapchain-missing" },
        { TH_DISK, "disk-missing" },         { TH_RUNTIME, "runtime-missing" },
        { TH_STATE, "" },                    /* a disk is in it, or missing */
    };

    for (size_t i = 0; i < ARRAY_SIZE(lacks); i++) {
        whole(A);
        without(lacks[i].kind);
        ASSERT_STREQ(kinds(), lacks[i].finds);
        world.daemon = true;
        ASSERT_STREQ(kinds(), lacks[i].finds);
        forget();
    }
}

TEST(what_a_sandbox_does_not_have_to_have_is_not_missed)
{
    whole(A)->share_pid = 0;
    without(TH_SHARE);
    without(TH_TAP);
    without(TH_CHAIN);
    without(TH_TAP_CHAIN);
    for (size_t i = 0; i < world.n_things; i++)
        world.things[i].networked = false;      /* it began without networks */
    row(B, VM_STOPPED)->started_at = 0;         /* never started: no disk yet */
    ASSERT_STREQ(kinds(), "");
    forget();
}

TEST(each_thing_without_a_row_is_found_also_beside_a_daemon)
{
    whole(A);
    vm_row_done(&world.rows[0]);
    world.n_rows = 0;
    ASSERT_STREQ(kinds(), "domain-stray qemu-stray share-stray chain-stray disk-stray "
                          "runtime-stray tap-stray tapchain-stray");
    world.daemon = true;
    ASSERT_EQ(findings_count(&found), 8);
    without(TH_DISK);           /* then the directory is the finding */
    ASSERT_CONTAINS(kinds(), "state-stray");
    forget();
}

TEST(what_a_stopped_sandbox_has_left_is_found_unless_a_daemon_may_be_starting_it)
{
    whole(A)->state = VM_STOPPED;
    ASSERT_STREQ(kinds(), "domain-left qemu-left share-left chain-left runtime-left tap-left "
                          "tapchain-left");
    world.daemon = true;
    ASSERT_STREQ(kinds(), "");
    forget();
}

TEST(what_is_under_way_without_a_daemon_is_found)
{
    static const enum vm_state states[] = { VM_CREATING, VM_STOPPING, VM_REMOVING };

    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        row(A, states[i]);
        ASSERT_STREQ(kinds(), "row-unsettled");
        world.daemon = true;
        ASSERT_STREQ(kinds(), "");
        forget();
    }
}

TEST(a_failed_row_is_a_note_once_its_disk_is_lost_and_to_be_removed_before)
{
    row(A, VM_FAILED)->reason = strdup("its disk is gone");
    ASSERT_STREQ(kinds(), "[row-failed]");
    ASSERT_CONTAINS(found.list[0].what, "its disk is gone");
    ASSERT_EQ(findings_count(&found), 0);
    thing(TH_DISK, A);
    ASSERT_STREQ(kinds(), "row-unsettled");
    forget();
}

TEST(another_uid_and_slots_twice_or_out_of_range_are_found)
{
    whole(A)->slot = 2;
    ASSERT_STREQ(kinds(), "qemu-uid");
    ASSERT_STREQ(found.list[0].repair, "");
    row(B, VM_STOPPED)->started_at = 0;
    world.rows[1].slot = 2;
    ASSERT_STREQ(kinds(), "slot qemu-uid");
    world.rows[1].slot = LIMIT_SANDBOXES + 1;
    ASSERT_STREQ(kinds(), "slot qemu-uid");
    forget();
}

TEST(rings_and_rows_of_commands_belong_together)
{
    whole(A);
    world.execs = calloc(1, sizeof(*world.execs));
    world.n_execs = 1;
    snprintf(world.execs[0].id, sizeof(world.execs[0].id), "%s", B);
    snprintf(world.execs[0].vm, sizeof(world.execs[0].vm), "%s", A);
    ASSERT_STREQ(kinds(), "ring-missing");
    snprintf(thing(TH_RING, A)->name, 80, "%s", B);
    snprintf(thing(TH_RING, A)->name, 80, "%s", B);     /* .out and .err */
    ASSERT_STREQ(kinds(), "");
    snprintf(thing(TH_RING, A)->name, 80, "00000000000000cc");
    snprintf(thing(TH_RING, A)->name, 80, "00000000000000cc");
    ASSERT_STREQ(kinds(), "ring-stray");
    forget();
    row(A, VM_STOPPED)->started_at = 0;
    world.execs = calloc(1, sizeof(*world.execs));
    world.n_execs = 1;
    snprintf(world.execs[0].vm, sizeof(world.execs[0].vm), "%s", A);
    ASSERT_STREQ(kinds(), "exec-left");
    forget();
}

TEST(images_and_kept_disks_are_told)
{
    snprintf(world_add(&world, TH_IMAGE, "")->name, 80, "sha256:aa");
    snprintf(world_add(&world, TH_KEPT, A)->name, 80, "%s.1", A);
    ASSERT_STREQ(kinds(), "[image-stray] [kept]");
    ASSERT_CONTAINS(found.list[1].what, "lost+found/" A ".1");
    world.images = calloc(1, sizeof(*world.images));
    world.n_images = 1;
    snprintf(world.images[0].digest, sizeof(world.images[0].digest), "sha256:aa");
    ASSERT_STREQ(kinds(), "[kept]");
    snprintf(world.images[0].digest, sizeof(world.images[0].digest), "sha256:bb");
    ASSERT_STREQ(kinds(), "image-missing [image-stray] [kept]");
    forget();
}

TEST(names_of_files_reach_no_terminal_as_they_are)
{
    snprintf(world_add(&world, TH_KEPT, A)->name, 80, "%s\033[2J\n", A);
    kinds();
    ASSERT_NULL(strchr(found.list[0].what, '\033'));
    ASSERT_NULL(strchr(found.list[0].what, '\n'));
    forget();
}

TEST(a_name_that_only_begins_like_ours_is_nobody_s)
{
    whole(A);
    thing(TH_TAP, "0000");
    ASSERT_STREQ(kinds(), "tap-stray");
    ASSERT_STREQ(found.list[0].id, "0000");
    forget();
}

TEST(only_what_is_seen_twice_stays)
{
    struct findings again = { 0 };
    struct err e = ERR_INIT;

    thing(TH_TAP, "00000000000a");
    thing(TH_TAP, "00000000000b");
    kinds();
    world.things[0].id[0] = 'f';
    ASSERT_OK(fsck_compare(&world, &again, &e), e);
    findings_keep_common(&found, &again);
    ASSERT_EQ(found.n, 1);
    ASSERT_STREQ(found.list[0].id, "00000000000b");
    findings_done(&again);
    forget();
}

/* As many as a daemon holds, with all the commands it keeps; within the time limit of a test. */
TEST(a_host_that_is_full_is_compared_too)
{
    char id[LIMIT_ID + 1], exec[LIMIT_ID + 1];

    world.execs = calloc((size_t)LIMIT_SANDBOXES * LIMIT_EXECS_KEPT, sizeof(*world.execs));
    ASSERT_NOT_NULL(world.execs);
    for (unsigned i = 1; i <= LIMIT_SANDBOXES; i++) {
        snprintf(id, sizeof(id), "%08x%08x", i * 2654435761u, i);
        struct vm_row *r = whole(id);
        r->slot = i;
        for (unsigned k = 0; k < LIMIT_EXECS_KEPT; k++) {
            struct exec_row *x = &world.execs[world.n_execs++];
            snprintf(exec, sizeof(exec), "%08x%08x", i * 2654435761u, k << 16 | i);
            snprintf(x->id, sizeof(x->id), "%s", exec);
            snprintf(x->vm, sizeof(x->vm), "%s", id);
            snprintf(thing(TH_RING, id)->name, 80, "%s", exec);
            snprintf(thing(TH_RING, id)->name, 80, "%s", exec);
        }
    }
    size_t slot = 0;
    for (size_t k = 0; k < world.n_things; k++)
        if (world.things[k].kind == TH_QEMU)
            world.things[k].number = UID_BASE + (uint32_t)++slot;
    ASSERT_STREQ(kinds(), "");
    world.n_execs--;
    ASSERT_STREQ(kinds(), "ring-stray");
    forget();
}

/* --- looking, at directories that are made up --- */

static struct config config;

static void make(const char *path)
{
    struct err e = ERR_INIT;

    ASSERT_OK(io_mkdir_parents(test_path(path), 0700, &e), e);
}

static void file(const char *path, const char *text)
{
    struct err e = ERR_INIT;

    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path(path), text, strlen(text), 0600, &e), e);
}

static void fresh(void)
{
    struct err e = ERR_INIT;
    struct store *st = NULL;

    make("state/sandboxes");
    make("run/sandboxes");
    config = (struct config){
        .state_dir = (char *)test_path("state"),
        .runtime_dir = (char *)test_path("run"),
        .libvirt_uri = (char *)"embed",
        .uid_base = 1879048192u,
    };
    ASSERT_OK(store_open(test_path("state/sandboxd.db"), &st, &e), e);
    store_close(st);
}

static void run_sql(const char *sql)
{
    sqlite3 *db = NULL;

    ASSERT_EQ(sqlite3_open(test_path("state/sandboxd.db"), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static const char *look(void)
{
    struct err e = ERR_INIT;

    world_done(&world);
    ASSERT_OK(fsck_look(&config, &world, &e), e);
    return kinds();
}

TEST(directories_disks_and_domains_without_rows_are_seen)
{
    fresh();
    ASSERT_STREQ(look(), "");
    make("state/sandboxes/" A "/log");
    make("state/sandboxes/not-an-id");
    ASSERT_STREQ(look(), "state-stray");
    make("state/sandboxes/" A "/vm");
    file("state/sandboxes/" A "/vm/disk.qcow2", "");
    ASSERT_STREQ(look(), "disk-stray");
    make("run/sandboxes/" B "/execs");
    ASSERT_STREQ(look(), "disk-stray runtime-stray");
    make("state/libvirt/run/qemu");
    file("state/libvirt/run/qemu/sbx-" A ".xml", "<domstatus state='running' pid='17'>");
    file("state/libvirt/run/qemu/sbx-" B ".xml", "<domstatus state='shutoff' pid='0'>");
    file("state/libvirt/run/qemu/sbx-other.xml", "<domstatus pid='1'>");
    ASSERT_STREQ(look(), "domain-stray disk-stray runtime-stray");
    make("state/lost+found/#1234");
    make("state/lost+found/" A ".2");
    make("state/images/.build-123456");
    make("state/images/0123");
    ASSERT_STREQ(look(), "domain-stray disk-stray runtime-stray [kept] [image-stray]");
    forget();
}

TEST(rows_meet_what_is_there)
{
    fresh();
    run_sql("INSERT INTO image VALUES ('sha256:a','debian','debian','Debian','6','r',1,1,1);"
            "INSERT INTO vm (id, name, uid, gid, groups, state, slot, image_name, image_digest,"
            " workspace_ro, cpus, memory, disk, env, labels, machine, created_at, started_at)"
            " VALUES ('" A "', 'box', 1, 1, '', 1, 1, 'debian', 'sha256:a', 0, 1, 1, 1, x'', x'',"
            " 'microvm', 1, 1)");
    ASSERT_STREQ(look(), "qemu-missing disk-missing image-missing");
    ASSERT_STREQ(found.list[0].name, "box");
    make("state/images/a");
    make("state/sandboxes/" A "/vm");
    file("state/sandboxes/" A "/vm/disk.qcow2", "");
    run_sql("UPDATE vm SET state = 3");
    ASSERT_STREQ(look(), "");
    run_sql("UPDATE vm SET image_digest = 'sha256:b'");
    ASSERT_STREQ(look(), "database");
    forget();
}

TEST(whether_a_daemon_runs_is_the_lock_and_looking_does_not_take_it)
{
    struct err e = ERR_INIT;
    bool runs = true;

    fresh();
    ASSERT_OK(fsck_daemon_runs(&config, &runs, &e), e);
    ASSERT_FALSE(runs);
    autoclose int fd = open(test_path("state/lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_SYS(flock(fd, LOCK_SH | LOCK_NB));       /* another that looks */
    ASSERT_OK(fsck_daemon_runs(&config, &runs, &e), e);
    ASSERT_FALSE(runs);
    ASSERT_SYS(flock(fd, LOCK_EX | LOCK_NB));
    ASSERT_OK(fsck_daemon_runs(&config, &runs, &e), e);
    ASSERT_TRUE(runs);
    ASSERT_SYS(flock(fd, LOCK_UN));
    ASSERT_SYS(flock(fd, LOCK_EX | LOCK_NB));
    forget();
}

TEST(processes_are_known_by_mark_and_by_uid_with_name_and_disk)
{
    char mark[200], disk[200], other[200];
    int ready[2];
    char byte;

    SKIP_IF(geteuid() != 0, "processes of other uids are started by root only");
    fresh();
    config.uid_base = 1900000000u;
    snprintf(mark, sizeof(mark), SHARE_MARK "%s/sandboxes/" A "/share.sock", config.runtime_dir);
    snprintf(disk, sizeof(disk), "file=%s/sandboxes/" B "/vm/disk.qcow2", config.state_dir);
    snprintf(other, sizeof(other), "file=%s-other/sandboxes/" B "/vm/disk.qcow2",
             config.state_dir);
    const char *const qemu[] = { "sh", "-c", "echo; read x", "-name", "guest=sbx-" B ",x=on", disk,
                                 "-netdev", NULL };
    const char *const foreign[] = { "sh", "-c", "echo; read x", "-name", "guest=sbx-" B, other,
                                    NULL };
    const char *const plain[] = { "sh", "-c", "echo; read x", NULL };
    const struct { const char *const *argv; const char *env; uid_t uid; } procs[] = {
        { plain, mark, 0 },
        { qemu, "X=1", 1900000005u },
        { qemu, "X=1", 1899999999u },           /* not of our range */
        { foreign, "X=1", 1900000006u },        /* of another daemon */
        { plain, SHARE_MARK "/elsewhere/" A "/share.sock", 0 },
    };
    pid_t pids[ARRAY_SIZE(procs)];
    int hold[2];

    ASSERT_SYS(pipe(ready));
    ASSERT_SYS(pipe(hold));
    for (size_t i = 0; i < ARRAY_SIZE(procs); i++) {
        pids[i] = ASSERT_SYS(fork());
        if (pids[i] == 0) {
            char *const env[] = { (char *)procs[i].env, NULL };
            dup2(hold[0], 0);
            dup2(ready[1], 1);
            if (procs[i].uid && setresuid(procs[i].uid, procs[i].uid, procs[i].uid) < 0)
                _exit(1);
            execve("/bin/sh", (char *const *)procs[i].argv, env);
            _exit(1);
        }
        ASSERT_EQ(read(ready[0], &byte, 1), 1);
    }
    ASSERT_STREQ(look(), "share-stray qemu-stray");
    ASSERT_STREQ(found.list[0].id, A);
    ASSERT_STREQ(found.list[1].id, B);
    for (size_t i = 0; i < world.n_things; i++)
        if (world.things[i].kind == TH_QEMU)
            ASSERT_TRUE(world.things[i].networked && world.things[i].number == 1900000005u);
    for (size_t i = 0; i < ARRAY_SIZE(procs); i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    forget();
}
