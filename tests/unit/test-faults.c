/* SPDX-License-Identifier: MIT
 *
 * What is written down: each write of audit log, rings and files meets no memory, no descriptor, a
 * full disk and a read-only one, at each place where it can. It is done or it is as before, the
 * caller is told which, and it goes on afterwards. The database is in test-faultsstore.c.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/jfield.h"
#include "common/limits.h"
#include "common/log.h"
#include "daemon/audit.h"
#include "daemon/ring.h"
#include "tests/harness/fault.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* --- the audit log --- */

static struct audit *a;

static int open_audit(struct err *e)
{
    return audit_open(&(struct audit_options){ .dir = fault_dir, .mode = AUDIT_REQUIRED,
                                               .size = 64 * KIB, .files = 2 }, &a, e);
}

static void begin_audit(void)
{
    struct err e = ERR_INIT;

    fault_fresh_dir();
    ASSERT_OK(open_audit(&e), e);
}

static void end_audit(void)
{
    audit_free(take_ptr(a));
    fault_drop_dir();
}

static int run_audit_open(struct err *e)
{
    if (open_audit(e) < 0)
        return -1;
    audit_free(take_ptr(a));
    return 0;
}

static int run_record(struct err *e)
{
    struct api_audit_record r = { .kind = (char *)"end", .action = (char *)"sandbox.create",
                                  .name = (char *)"faulty",
                                  .who = { .present = true, .uid = 1000 },
                                  .result = { .present = true, .status = 201 } };

    if (audit_reserve(a, 1, false, e) < 0)
        return -1;
    if (audit_write(a, &r, true, e) < 0)
        return -1;
    return audit_sync(a, e);
}

/* The chain is whole after whatever happened; 1: the record is in it. */
static int look_record(void)
{
    struct api_audit_verdict v = { 0 };
    struct err e = ERR_INIT;
    autofree char *text = NULL;
    char file[160];
    size_t len = 0;

    ASSERT_OK(audit_verify(a, fault_dir, &v, &e), e);
    if (!v.intact)
        return -1;
    json_done(api_audit_verdict_table, &v, sizeof(v));
    snprintf(file, sizeof(file), "%s/audit.log", fault_dir);
    ASSERT_OK(io_read_file_at(AT_FDCWD, file, 1 * MIB, &text, &len, &e), e);
    return strstr(text, "\"faulty\"") != NULL;
}

TEST_LIMIT(a_record_of_the_audit_log, 120)
{
    const struct fault_body open = { "audit_open", fault_fresh_dir, run_audit_open, NULL,
                                     fault_drop_dir, .survives = true };
    const struct fault_body record = { "audit_write", begin_audit, run_record, look_record,
                                       end_audit };

    fault_init();
    json_init();
    log_set_level(LOG_EMERG);
    fault_walk_memory(&open);
    ASSERT_GT(fault_walk(&open, FAULT_FILES), 0);
    ASSERT_GT(fault_walk(&open, FAULT_READONLY), 0);
    fault_walk_memory(&record);
    ASSERT_GT(fault_walk(&record, FAULT_FULL), 0);
    ASSERT_GT(fault_walk(&record, FAULT_READONLY), 0);
}

/* --- output of commands --- */

static struct ring *ring;
static int dir_fd = -1;

static void begin_ring(void)
{
    fault_fresh_dir();
    dir_fd = ASSERT_SYS(open(fault_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static void end_ring(void)
{
    fd_close(dir_fd);
    fault_drop_dir();
}

static int run_ring(struct err *e)
{
    char buf[16];
    uint64_t at = 0, lost = 0;

    if (ring_open(dir_fd, "r", 4096, &ring, e) < 0)
        return -1;
    int r = ring_write(ring, ring_end(ring), "hello", 5, e);
    if (r == 0)
        ring_park(ring);
    if (r == 0)
        r = ring_read(ring, &at, buf, sizeof(buf), &lost, e) < 0 ? -1 : 0;
    ring_free(take_ptr(ring));
    return r;
}

TEST_LIMIT(output_of_a_command, 60)
{
    fault_init();
    fault_walk_all(&(struct fault_body){ "ring", begin_ring, run_ring, NULL, end_ring });
}

/* --- files --- */

static int run_file(struct err *e)
{
    char file[160], below[160];

    snprintf(file, sizeof(file), "%s/file", fault_dir);
    snprintf(below, sizeof(below), "%s/sub/dir/x", fault_dir);
    if (io_write_file_at(AT_FDCWD, file, "new", 3, 0600, e) < 0)
        return -1;
    return io_mkdir_parents(below, 0700, e);
}

static int look_file(void)
{
    char file[160];
    autofree char *text = NULL;
    struct err e = ERR_INIT;
    size_t len = 0;

    snprintf(file, sizeof(file), "%s/file", fault_dir);
    ASSERT_OK(io_read_file_at(AT_FDCWD, file, 100, &text, &len, &e), e);
    if (strcmp(text, "old") == 0)
        return 0;
    snprintf(file, sizeof(file), "%s/sub/dir", fault_dir);
    return strcmp(text, "new") != 0 ? -1 : access(file, F_OK) == 0;
}

static void begin_file(void)
{
    char file[160];
    struct err e = ERR_INIT;

    fault_fresh_dir();
    snprintf(file, sizeof(file), "%s/file", fault_dir);
    ASSERT_OK(io_write_file_at(AT_FDCWD, file, "old", 3, 0600, &e), e);
}

static int run_remove(struct err *e)
{
    return io_remove_tree(AT_FDCWD, fault_dir, e);
}

static void begin_tree(void)
{
    char below[160];
    struct err e = ERR_INIT;

    begin_file();
    snprintf(below, sizeof(below), "%s/sub/dir/x", fault_dir);
    ASSERT_OK(io_mkdir_parents(below, 0700, &e), e);
}

TEST_LIMIT(files_and_trees, 60)
{
    const struct fault_body file = { "io_write_file_at", begin_file, run_file, look_file,
                                     fault_drop_dir };
    const struct fault_body tree = { "io_remove_tree", begin_tree, run_remove, NULL,
                                     fault_drop_dir };

    fault_init();
    ASSERT_GT(fault_walk(&file, FAULT_FILES), 0);
    ASSERT_GT(fault_walk(&file, FAULT_FULL), 0);
    ASSERT_GT(fault_walk(&file, FAULT_READONLY), 0);
    fault_walk_memory(&tree);
    ASSERT_GT(fault_walk(&tree, FAULT_FILES), 0);
    ASSERT_GT(fault_walk(&tree, FAULT_READONLY), 0);
}

TEST(the_page_about_reliability_names_what_was_walked)
{
    fault_compare("test-faults");
}
