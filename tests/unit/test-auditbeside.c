/* SPDX-License-Identifier: MIT
 *
 * Records of commands beside the daemon: how they wait, and how they come into the chain.
 */
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "daemon/audit_beside.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static struct audit *a;
static const char *dir;
static struct err e;
static struct api_audit_record seen[16];
static size_t n_seen;

static void start(void)
{
    struct audit_options o = { .mode = AUDIT_REQUIRED, .size = 16 * MIB, .files = 8 };

    log_set_level(LOG_EMERG);
    json_init();
    if (!dir)
        dir = test_dir();
    o.dir = dir;
    ASSERT_OK(audit_open(&o, &a, &e), e);
}

static void add(const char *kind)
{
    struct audit_self self;
    struct api_audit_record r = { .kind = (char *)kind, .action = (char *)"image.build",
                                  .target = (char *)"debian", .request = (char *)"req1" };

    audit_beside_self(&self, &r.who);
    ASSERT_OK(audit_beside_add(dir, &r, &e), e);
}

static int queue(int flags)
{
    autosbuf struct sbuf path = SBUF(256);

    sbuf_fmt(&path, "%s/audit.queue", dir);
    int fd = open(sbuf_str(&path), flags | O_CLOEXEC, 0600);
    ASSERT_TRUE(fd >= 0);
    return fd;
}

static off_t queue_size(void)
{
    autoclose int fd = queue(O_RDONLY);
    struct stat sb;

    ASSERT_EQ(fstat(fd, &sb), 0);
    return sb.st_size;
}

/* All records; the chain must be whole. */
static void read_log(void)
{
    struct audit_reader *r = NULL;
    struct api_audit_verdict v = { 0 };
    const char *line;
    size_t len;

    for (size_t i = 0; i < n_seen; i++)
        json_done(api_audit_record_table, &seen[i], sizeof(seen[i]));
    ASSERT_OK(audit_reader_new(a, 1, &r, &e), e);
    for (n_seen = 0; audit_reader_next(r, &line, &len, &e) == 1; n_seen++) {
        ASSERT_LT(n_seen, ARRAY_SIZE(seen));
        ASSERT_OK(json_decode(api_audit_record_table, line, len, &seen[n_seen], &e), e);
    }
    audit_reader_free(r);
    ASSERT_OK(audit_verify(a, dir, &v, &e), e);
    ASSERT_TRUE(v.intact);
    ASSERT_EQ(v.count, n_seen);
    json_done(api_audit_verdict_table, &v, sizeof(v));
}

TEST(what_was_done_without_a_daemon_is_in_the_chain_of_the_next)
{
    int64_t before = now_real_us();

    dir = test_dir();
    setenv("SUDO_UID", "4000000000", 1);
    add("begin");
    add("end");
    start();
    ASSERT_OK(audit_beside_take(a, dir, &e), e);
    ASSERT_EQ(queue_size(), 0);
    ASSERT_OK(audit_beside_take(a, dir, &e), e);
    read_log();
    ASSERT_EQ(n_seen, 3);
    ASSERT_STREQ(seen[0].kind, "start");
    ASSERT_STREQ(seen[1].kind, "begin");
    ASSERT_STREQ(seen[2].kind, "end");
    ASSERT_EQ(seen[2].seq, 3);
    ASSERT_STREQ(seen[2].target, "debian");
    ASSERT_EQ(seen[2].who.uid, getuid());
    ASSERT_EQ(seen[2].who.pid, getpid());
    ASSERT_STREQ(seen[2].who.comm, "test-auditbesid");      /* the kernel keeps 15 bytes */
    ASSERT_EQ(seen[2].who.sudo.present, getuid() == 0);
    if (getuid() == 0)
        ASSERT_EQ(seen[2].who.sudo.uid, 4000000000);
    ASSERT_TRUE(seen[2].waited.present);
    ASSERT_TRUE(seen[2].waited.since >= before && seen[2].waited.since <= seen[2].time);
}

TEST(who_called_sudo_is_no_word_but_a_number)
{
    struct audit_self self;
    struct api_audit_who who;

    setenv("SUDO_UID", "1000; rm", 1);
    audit_beside_self(&self, &who);
    ASSERT_FALSE(who.sudo.present);
    unsetenv("SUDO_UID");
    audit_beside_self(&self, &who);
    ASSERT_FALSE(who.sudo.present);
}

TEST(a_daemon_that_runs_takes_it_behind_its_own)
{
    struct api_audit_record r = { .kind = (char *)"end", .action = (char *)"read" };

    start();
    ASSERT_OK(audit_beside_take(a, dir, &e), e);    /* nothing was ever there */
    ASSERT_OK(audit_write(a, &r, false, &e), e);
    add("end");
    ASSERT_OK(audit_beside_take(a, dir, &e), e);
    ASSERT_OK(audit_write(a, &r, false, &e), e);
    read_log();
    ASSERT_EQ(n_seen, 4);
    ASSERT_STREQ(seen[2].action, "image.build");
    ASSERT_FALSE(seen[3].waited.present);
}

TEST(a_piece_of_a_line_costs_nothing_but_itself)
{
    start();
    add("begin");
    int fd = queue(O_WRONLY | O_APPEND);
    ASSERT_EQ(write(fd, "{\"seq\":1,\"ki", 12), 12);
    fd_close(fd);
    add("end");
    fd = queue(O_WRONLY | O_APPEND);
    ASSERT_EQ(write(fd, "{\"se", 4), 4);
    fd_close(fd);
    ASSERT_OK(audit_beside_take(a, dir, &e), e);
    ASSERT_EQ(queue_size(), 0);
    read_log();
    ASSERT_EQ(n_seen, 3);
    ASSERT_STREQ(seen[1].kind, "begin");
    ASSERT_STREQ(seen[2].kind, "end");
}

TEST(nobody_waits_for_a_command_that_holds_the_queue)
{
    start();
    add("end");
    int fd = queue(O_RDWR);
    ASSERT_EQ(flock(fd, LOCK_EX), 0);
    ASSERT_OK(audit_beside_take(a, dir, &e), e);
    read_log();
    ASSERT_EQ(n_seen, 1);
    fd_close(fd);
    ASSERT_OK(audit_beside_take(a, dir, &e), e);
    read_log();
    ASSERT_EQ(n_seen, 2);
}

TEST(what_cannot_be_recorded_goes_on_waiting)
{
    start();
    add("end");
    audit_free(a);
    struct audit_options o = { .mode = AUDIT_OFF };
    ASSERT_OK(audit_open(&o, &a, &e), e);
    ASSERT_OK(audit_beside_take(a, dir, &e), e);
    ASSERT_TRUE(queue_size() > 0);
}

TEST(a_queue_that_is_full_refuses)
{
    struct api_audit_record r = { .kind = (char *)"end" };

    dir = test_dir();
    int fd = queue(O_WRONLY | O_CREAT);
    ASSERT_EQ(ftruncate(fd, AUDIT_QUEUE_MAX), 0);
    ASSERT_ERR(audit_beside_add(dir, &r, &e), e, ERR_UNAVAILABLE);
    ASSERT_EQ(queue_size(), AUDIT_QUEUE_MAX);
    fd_close(fd);
}

TEST(a_link_in_its_place_is_not_followed)
{
    autosbuf struct sbuf path = SBUF(256);
    struct api_audit_record r = { .kind = (char *)"end" };

    dir = test_dir();
    sbuf_fmt(&path, "%s/audit.queue", dir);
    ASSERT_EQ(symlink("/dev/null", sbuf_str(&path)), 0);
    ASSERT_ERR(audit_beside_add(dir, &r, &e), e, ERR_UNAVAILABLE);
}
