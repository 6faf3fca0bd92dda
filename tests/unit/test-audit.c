/* SPDX-License-Identifier: MIT
 *
 * The file of the audit log: the chain, what breaks it, what a crash and a full disk leave.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/jfield.h"
#include "common/limits.h"
#include "common/log.h"
#include "daemon/audit.h"
#include "daemon/audit_peer.h"
#include "daemon/digest.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define LINES_MAX 4096

static struct audit *a;
static struct err e;
static const char *dir;

static void open_with(uint64_t size, uint32_t files)
{
    struct audit_options o = { .dir = dir ? dir : test_dir(), .mode = AUDIT_REQUIRED,
                               .size = size, .files = files };

    log_set_level(LOG_EMERG);
    json_init();
    ASSERT_OK(audit_open(&o, &a, &e), e);
}

static void start(void)
{
    open_with(16 * MIB, 8);
}

static void stop(void)
{
    audit_free(take_ptr(a));
}

static void put(const char *name)
{
    struct api_audit_record r = { .kind = (char *)"end", .action = (char *)"sandbox.create",
                                  .name = (char *)name,
                                  .who = { .present = true, .uid = 1000 },
                                  .result = { .present = true, .status = 201 } };

    ASSERT_OK(audit_write(a, &r, false, &e), e);
}

static const char *path(const char *name)
{
    static char bufs[2][512];       /* two can be used at once */
    static unsigned turn;
    char *buf = bufs[turn++ % 2];

    snprintf(buf, sizeof(bufs[0]), "%s/%s", dir ? dir : test_dir(), name);
    return buf;
}

/* --- the file as text --- */

static char *lines[LINES_MAX];
static size_t n_lines;
static char *owned[8 * LINES_MAX];      /* all that lines[] ever had: moved about, and forgotten */
static size_t n_owned;

static char *own(char *line)
{
    ASSERT_LT(n_owned, ARRAY_SIZE(owned));
    return owned[n_owned++] = line;
}

static void load(const char *name)
{
    char *text = NULL;
    size_t len = 0;

    ASSERT_OK(io_read_file_at(AT_FDCWD, path(name), 64 * MIB, &text, &len, &e), e);
    n_lines = 0;
    for (char *p = text; *p; n_lines++) {
        char *nl = strchr(p, '\n');
        ASSERT_LT(n_lines, LINES_MAX);
        if (!nl)
            nl = p + strlen(p) - 1;
        lines[n_lines] = own(strndup(p, (size_t)(nl + 1 - p)));
        p = nl + 1;
    }
    free(text);
}

static void save(const char *name)
{
    FILE *f = fopen(path(name), "w");

    ASSERT_NOT_NULL(f);
    for (size_t i = 0; i < n_lines; i++)
        fputs(lines[i], f);
    fclose(f);
}

static void cut_line(size_t i)
{
    memmove(lines + i, lines + i + 1, (n_lines - i - 1) * sizeof(*lines));
    n_lines--;
}

static struct api_audit_verdict v;

static void verify(void)
{
    json_done(api_audit_verdict_table, &v, sizeof(v));
    ASSERT_OK(audit_verify(a, dir ? dir : test_dir(), &v, &e), e);
}

static void assert_broken(const char *file, uint64_t line, uint64_t seq, const char *why)
{
    verify();
    ASSERT_FALSE(v.intact);
    ASSERT_STREQ(v.broken.file, file);
    ASSERT_EQ(v.broken.line, line);
    ASSERT_EQ(v.broken.seq, seq);
    ASSERT_CONTAINS(v.broken.reason, why);
}

static void assert_intact(uint64_t count, uint64_t first)
{
    verify();
    if (!v.intact)
        FAIL("%s:%llu: %s", v.broken.file, (unsigned long long)v.broken.line, v.broken.reason);
    ASSERT_EQ(v.count, count);
    ASSERT_EQ(v.first, first);
    ASSERT_EQ(v.last, first + count - 1);
}

static void replace(size_t i, const char *from, const char *to)
{
    char *at = strstr(lines[i], from);

    ASSERT_NOT_NULL(at);
    ASSERT_EQ(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
}

/* --- the chain --- */

TEST(a_line_holds_the_hash_of_the_one_before)
{
    char hex[DIGEST_HEX];
    struct stat sb;

    start();
    put("one");
    put("two");
    stop();
    load("audit.log");
    ASSERT_EQ(n_lines, 3);
    ASSERT_CONTAINS(lines[0], "\"seq\":1,");
    ASSERT_CONTAINS(lines[0], "\"kind\":\"start\"");
    ASSERT_CONTAINS(lines[0], "\"prev\":\"00000000000000000000");
    for (size_t i = 1; i < 3; i++) {
        digest_hex(lines[i - 1], strlen(lines[i - 1]), hex);
        ASSERT_CONTAINS(lines[i], hex);
    }
    ASSERT_CONTAINS(lines[2], "\"seq\":3,");
    ASSERT_SYS(stat(path("audit.log"), &sb));
    ASSERT_EQ(sb.st_mode & 07777, 0600);
    assert_intact(3, 1);
    digest_hex(lines[2], strlen(lines[2]), hex);
    ASSERT_STREQ(v.head, hex);
}

TEST(the_next_start_goes_on)
{
    start();
    put("one");
    stop();
    start();
    put("two");
    assert_intact(4, 1);
    stop();
    assert_intact(4, 1);
}

static void five(void)
{
    start();
    for (int i = 1; i < 5; i++)
        put("box");
    stop();
    assert_intact(5, 1);
    load("audit.log");
}

TEST(a_changed_line_is_found)
{
    for (size_t i = 0; i < 4; i++) {
        five();
        replace(i, i ? "box" : "start", i ? "fox" : "stort");
        save("audit.log");
        assert_broken("audit.log", i + 1, i + 1, "changed");
        unlink(path("audit.log"));
    }
}

/* Its own fields fit then, and yet it is this one that was changed. */
TEST(a_line_whose_hash_was_changed_is_found)
{
    five();
    char *at = strstr(lines[2], "\"prev\":\"") + 8;
    *at = *at == '0' ? '1' : '0';
    save("audit.log");
    assert_broken("audit.log", 3, 3, "changed");
}

TEST(a_removed_line_is_found)
{
    five();
    cut_line(2);
    save("audit.log");
    assert_broken("audit.log", 3, 3, "it is record 4");
}

TEST(swapped_lines_are_found)
{
    five();
    char *third = lines[2];
    lines[2] = lines[3];
    lines[3] = third;
    save("audit.log");
    assert_broken("audit.log", 3, 3, "it is record 4");
}

TEST(an_inserted_line_is_found)
{
    five();
    memmove(lines + 3, lines + 2, 3 * sizeof(*lines));
    lines[2] = lines[1];
    n_lines++;
    save("audit.log");
    assert_broken("audit.log", 3, 3, "it is record 2");
    lines[2] = own(strdup("{\"seq\":3}\n"));
    save("audit.log");
    assert_broken("audit.log", 3, 3, "not a record");
}

/* The chain cannot know its end; whoever wrote it can. */
TEST(a_daemon_knows_what_the_end_was)
{
    start();
    for (int i = 1; i < 5; i++)
        put("box");
    load("audit.log");
    replace(4, "box", "fox");
    save("audit.log");
    assert_broken("audit.log", 5, 5, "changed");
    n_lines = 3;
    save("audit.log");
    assert_broken("audit.log", 4, 4, "missing");
    stop();
    assert_intact(3, 1);        /* without it */
}

TEST(the_first_of_all_names_none_before)
{
    five();
    char *at = strstr(lines[0], "\"prev\":\"") + 8;
    *at = '1';
    save("audit.log");
    assert_broken("audit.log", 1, 0, "names one before");
}

/* --- crashes --- */

TEST(a_repair_is_a_link_of_the_chain)
{
    struct audit_options o = { .dir = test_dir(), .mode = AUDIT_REQUIRED, .size = 16 * MIB,
                               .files = 8, .repair = true };

    start();
    put("before");
    stop();
    ASSERT_OK(audit_open(&o, &a, &e), e);
    stop();
    start();
    verify();
    ASSERT_TRUE(v.intact);
    ASSERT_EQ(v.count, 4);
    stop();
    load("audit.log");
    ASSERT_CONTAINS(lines[2], "\"kind\":\"repair\"");
    ASSERT_CONTAINS(lines[3], "\"kind\":\"start\"");
}

TEST(a_torn_line_is_put_aside_and_recorded)
{
    five();
    FILE *f = fopen(path("audit.log"), "a");
    fputs("{\"seq\":6,\"ti", f);
    fclose(f);
    assert_broken("audit.log", 6, 6, "not written to its end");
    start();
    put("after");
    assert_intact(8, 1);
    stop();
    load("audit.log");
    ASSERT_CONTAINS(lines[5], "\"kind\":\"torn\"");
    ASSERT_CONTAINS(lines[5], "\"torn\":{\"length\":12,");
    char hex[DIGEST_HEX];
    digest_hex("{\"seq\":6,\"ti", 12, hex);
    ASSERT_CONTAINS(lines[5], hex);
    ASSERT_CONTAINS(lines[6], "\"kind\":\"start\"");
    load("audit.log.torn");
    ASSERT_STREQ(lines[0], "{\"seq\":6,\"ti");
}

/* What a power cut may leave: blocks that were never written, with whatever behind them. */
TEST(zeros_at_the_end_are_torn)
{
    five();
    FILE *f = fopen(path("audit.log"), "a");
    for (int i = 0; i < 5000; i++)
        fputc(i % 1000 == 999 ? '\n' : 0, f);
    fclose(f);
    start();
    assert_intact(7, 1);
    stop();
    load("audit.log");
    ASSERT_CONTAINS(lines[5], "\"torn\":{\"length\":5000,");
}

TEST_LIMIT(a_killed_writer_leaves_a_log_that_goes_on, 120)
{
    uint64_t seq = 0;

    dir = test_dir();           /* made here, not by a child */
    for (int round = 0; round < 20; round++) {
        int p[2];
        char byte;
        ASSERT_SYS(pipe2(p, O_CLOEXEC));
        pid_t pid = fork();
        if (pid == 0) {
            open_with(64 * KIB, 3);
            for (int i = 0;; i++) {
                put("a-name-that-takes-some-room-in-the-line");
                if (i == 50)
                    (void)!write(p[1], "", 1);
            }
        }
        ASSERT_GT(pid, 0);
        close(p[1]);
        ASSERT_EQ(read(p[0], &byte, 1), 1);
        close(p[0]);
        usleep(500 * (unsigned)round);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        open_with(64 * KIB, 3);
        verify();
        if (!v.intact)
            FAIL("round %d: %s:%llu: %s", round, v.broken.file,
                 (unsigned long long)v.broken.line, v.broken.reason);
        ASSERT_GT(v.last, seq);
        seq = v.last;
        stop();
    }
    ASSERT_GT(seq, 20 * 50);
}

/* --- rotation --- */

TEST(rotation_continues_the_chain)
{
    char hex[DIGEST_HEX];

    open_with(2 * 4096, 3);
    for (int i = 0; i < 30; i++)
        put("box");
    load("audit.log.1");
    digest_hex(lines[n_lines - 1], strlen(lines[n_lines - 1]), hex);
    load("audit.log");
    ASSERT_CONTAINS(lines[0], "\"kind\":\"rotate\"");
    ASSERT_CONTAINS(lines[0], hex);
    verify();
    ASSERT_TRUE(v.intact);
    ASSERT_EQ(v.first, 1);      /* none is gone so far */
    uint64_t last = v.last;
    for (int i = 0; i < 200; i++)
        put("box");
    verify();
    ASSERT_TRUE(v.intact);
    ASSERT_GT(v.first, 1);
    ASSERT_GT(v.last, last + 200);
    ASSERT_EQ(access(path("audit.log.3"), F_OK), 0);
    ASSERT_EQ(access(path("audit.log.4"), F_OK), -1);
    stop();
    /* a line of an older file */
    load("audit.log.2");
    replace(3, "box", "fox");
    save("audit.log.2");
    verify();
    ASSERT_FALSE(v.intact);
    ASSERT_STREQ(v.broken.file, "audit.log.2");
    ASSERT_EQ(v.broken.line, 4);
    /* a whole file */
    unlink(path("audit.log.2"));
    ASSERT_SYS(rename(path("audit.log.3"), path("audit.log.2")));
    verify();
    ASSERT_FALSE(v.intact);
    ASSERT_STREQ(v.broken.file, "audit.log.1");
    ASSERT_EQ(v.broken.line, 1);
}

TEST(a_crash_between_the_renames_loses_nothing)
{
    five();
    ASSERT_SYS(rename(path("audit.log"), path("audit.log.1")));
    start();
    put("box");
    stop();
    load("audit.log");
    assert_intact(8, 1);
    ASSERT_CONTAINS(lines[0], "\"kind\":\"rotate\"");
    ASSERT_CONTAINS(lines[0], "\"seq\":6,");
}

TEST(a_reader_goes_through_rotations)
{
    struct audit_reader *r = NULL;
    const char *line;
    size_t len;
    uint64_t seen = 0;

    open_with(2 * 4096, 100);
    ASSERT_OK(audit_reader_new(a, 0, &r, &e), e);
    for (int i = 0; i < 300; i++) {
        put("box");
        if (i % 7 == 0)     /* sometimes it lags behind */
            while (audit_reader_next(r, &line, &len, &e) == 1) {
                char want[40];
                snprintf(want, sizeof(want), "{\"seq\":%llu,", (unsigned long long)++seen);
                ASSERT_MEMEQ(line, strlen(want), want, strlen(want));
            }
    }
    while (audit_reader_next(r, &line, &len, &e) == 1)
        seen++;
    ASSERT_EQ(seen, audit_head(a));
    audit_reader_free(r);
    ASSERT_OK(audit_reader_new(a, 50, &r, &e), e);
    ASSERT_EQ(audit_reader_next(r, &line, &len, &e), 1);
    ASSERT_MEMEQ(line, 10, "{\"seq\":50,", 10);
    audit_reader_free(r);
    stop();
}

/* --- a full disk --- */

static void small_disk(const char *size)
{
    char options[64];

    SKIP_IF(unshare(CLONE_NEWNS) < 0, "no mount namespaces");
    ASSERT_SYS(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    snprintf(options, sizeof(options), "size=%s", size);
    ASSERT_SYS(mount("small", "/mnt", "tmpfs", 0, options));
    dir = "/mnt";
}

static int filler = -1;

static void fill_up(void)
{
    static char block[4096];

    filler = ASSERT_SYS(open("/mnt/filler", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    while (write(filler, block, sizeof(block)) > 0)
        ;
    ASSERT_EQ(errno, ENOSPC);
}

TEST(a_promised_record_finds_room_on_a_full_disk)
{
    char name[3600];            /* a record of nearly all that one may have */
    struct api_audit_record r = { .kind = (char *)"end", .name = name };
    unsigned n = 0;

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    small_disk("2m");
    start();
    fill_up();
    while (audit_reserve(a, 1, true, &e) == 0 && n < 10000)
        n++;
    ASSERT_EQ(e.code, ERR_NO_SPACE);
    ASSERT_GT(n, 10);
    e = ERR_INIT;
    for (unsigned i = 0; i < n; i++)
        ASSERT_OK(audit_write(a, &r, true, &e), e);
    assert_intact(n + 1, 1);
    stop();
}

TEST(a_full_disk_refuses_and_leaves_the_last_room_to_what_frees)
{
    struct api_audit_record r = { .kind = (char *)"end" };
    int n = 0, spare = 0;

    small_disk("2m");
    start();
    fill_up();
    while (audit_reserve(a, 1, false, &e) == 0 && n++ < 10000)
        ASSERT_OK(audit_write(a, &r, true, &e), e);
    ASSERT_EQ(e.code, ERR_NO_SPACE);
    ASSERT_CONTAINS(e.msg, "No space left");
    e = ERR_INIT;
    while (audit_reserve(a, 1, true, &e) == 0 && spare++ < 10000)
        ASSERT_OK(audit_write(a, &r, true, &e), e);
    ASSERT_EQ(e.code, ERR_NO_SPACE);
    ASSERT_GT(spare, 100);
    /* nothing was torn, and there is room again */
    ASSERT_SYS(unlink("/mnt/filler"));
    close(filler);
    ASSERT_OK(audit_reserve(a, 1, false, &e), e);
    ASSERT_OK(audit_write(a, &r, true, &e), e);
    verify();
    ASSERT_TRUE(v.intact);
    stop();
}

/* What has no promise takes nothing of what others were promised, and is counted. */
TEST(what_could_not_be_written_is_counted)
{
    struct api_audit_record r = { .kind = (char *)"end", .action = (char *)"run" };
    int n = 0;

    small_disk("2m");
    start();
    fill_up();
    for (int i = 0; i < 10; i++)
        ASSERT_EQ(audit_reserve(a, 1, false, &e), 0);
    while (audit_write(a, &r, false, &e) == 0 && n++ < 20000)
        ;
    ASSERT_EQ(e.code, ERR_NO_SPACE);
    ASSERT_ERR(audit_write(a, &r, false, &e), e, ERR_NO_SPACE);
    e = ERR_INIT;
    for (int i = 0; i < 10; i++)
        ASSERT_OK(audit_write(a, &r, true, &e), e);
    ASSERT_EQ(audit_reserve(a, 1, true, &e), 0);    /* the spare is there */
    audit_release(a, 1);
    ASSERT_SYS(unlink("/mnt/filler"));
    close(filler);
    ASSERT_OK(audit_write(a, &r, false, &e), e);
    verify();
    ASSERT_TRUE(v.intact);
    uint64_t last = v.last;
    stop();
    load("audit.log");
    ASSERT_EQ(n_lines, last);
    unsigned told = 0;
    for (size_t i = 0; i < n_lines; i++)
        told += strstr(lines[i], "\"lost\":{\"count\":2}") != NULL;
    ASSERT_EQ(told, 1);
    ASSERT_CONTAINS(lines[n_lines - 1], "\"action\":\"run\"");
}

/* Half a line is taken back, so that the next one is not torn. */
TEST(a_write_that_comes_short_leaves_the_file_as_it_was)
{
    struct api_audit_record r = { .kind = (char *)"end" };
    struct rlimit all, some;
    struct stat sb;

    start();
    put("box");
    ASSERT_OK(audit_reserve(a, 1, false, &e), e);
    ASSERT_SYS(stat(path("audit.log"), &sb));
    signal(SIGXFSZ, SIG_IGN);
    ASSERT_SYS(getrlimit(RLIMIT_FSIZE, &all));
    some = all;
    some.rlim_cur = (rlim_t)sb.st_size + 50;
    ASSERT_SYS(setrlimit(RLIMIT_FSIZE, &some));
    ASSERT_ERR(audit_write(a, &r, true, &e), e, ERR_UNAVAILABLE);
    ASSERT_CONTAINS(e.msg, "File too large");
    e = ERR_INIT;
    assert_intact(2, 1);
    ASSERT_SYS(setrlimit(RLIMIT_FSIZE, &all));
    put("box");
    assert_intact(4, 1);        /* "lost" is one of them */
    stop();
    assert_intact(4, 1);
}

TEST(a_full_disk_does_not_keep_the_daemon_from_starting)
{
    small_disk("256k");
    fill_up();
    start();
    ASSERT_ERR(audit_reserve(a, 1, true, &e), e, ERR_NO_SPACE);
    ASSERT_SYS(unlink("/mnt/filler"));
    close(filler);
    put("box");
    stop();
    load("audit.log");
    ASSERT_CONTAINS(lines[0], "\"lost\":{\"count\":1}");
}

/* --- threads --- */

static void *writer(void *arg)
{
    for (int i = 0; i < 1000; i++)
        put(arg);
    return NULL;
}

static void *syncer(void *arg)
{
    struct err own = ERR_INIT;

    for (int i = 0; i < 50; i++)
        if (audit_sync(a, &own) < 0)
            return arg;
    return NULL;
}

TEST_LIMIT(threads_make_one_chain, 120)
{
    pthread_t t[3];
    void *failed = NULL;

    open_with(64 * KIB, 100);
    pthread_create(&t[0], NULL, writer, (void *)"one");
    pthread_create(&t[1], NULL, writer, (void *)"two");
    pthread_create(&t[2], NULL, syncer, a);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], i == 2 ? &failed : NULL);
    ASSERT_NULL(failed);
    verify();
    ASSERT_TRUE(v.intact);
    ASSERT_EQ(v.first, 1);
    ASSERT_GE(v.last, 2001);
    stop();
}

/* --- who --- */

TEST(the_peer_has_a_name_and_an_origin)
{
    char *argv[] = { (char *)"sleep", (char *)"30", NULL };
    char *env[] = { (char *)"A=b", (char *)"SSH_CONNECTION=192.0.2.7 5 192.0.2.1 22\x1b", NULL };
    struct audit_peer p = { 0 };
    pid_t pid = fork();

    if (pid == 0) {
        execve("/bin/sleep", argv, env);
        _exit(127);
    }
    for (int i = 0; i < 200 && strcmp(p.comm, "sleep") != 0; i++) {
        usleep(10000);
        audit_peer_read(pid, getuid(), &p);
    }
    ASSERT_STREQ(p.comm, "sleep");
    ASSERT_STREQ(p.ssh, "192.0.2.7 5 192.0.2.1 22?");
    /* of another owner: the pid has been taken by somebody else */
    audit_peer_read(pid, getuid() + 1, &p);
    ASSERT_STREQ(p.comm, "");
    ASSERT_STREQ(p.ssh, "");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    audit_peer_read(pid, getuid(), &p);
    ASSERT_STREQ(p.comm, "");
}

/* Pipes in place of environments: one that nothing is written to never comes. */
static void read_from(int fd, uid_t uid, char ssh[AUDIT_SSH])
{
    autoclose int environment = ASSERT_SYS(fcntl(fd, F_DUPFD_CLOEXEC, 3));

    ssh[0] = '\0';
    audit_peer_ssh(&environment, uid, ssh);
}

/* One that is there; it may still come too late on a busy host, so again. */
static void read_until_there(uid_t uid)
{
    static const char env[] = "A=b\0SSH_CONNECTION=192.0.2.7 5 192.0.2.1 22";
    int64_t deadline = deadline_in(20000);
    char ssh[AUDIT_SSH];
    int p[2];

    do {
        ASSERT_SYS(pipe(p));
        ASSERT_EQ(write(p[1], env, sizeof(env)), (ssize_t)sizeof(env));
        close(p[1]);
        read_from(p[0], uid, ssh);
        close(p[0]);
    } while (ssh[0] == '\0' && now_mono_ms() < deadline);
    ASSERT_STREQ(ssh, "192.0.2.7 5 192.0.2.1 22");
}

TEST(one_who_holds_back_his_environment_hurts_himself)
{
    char ssh[AUDIT_SSH];
    int his[2];

    ASSERT_SYS(pipe(his));
    for (int i = 0; i < 100; i++) {
        read_from(his[0], 5001, ssh);
        ASSERT_STREQ(ssh, "");
    }
    read_until_there(5002);
    close(his[1]);                  /* he lets them go: they come back */
    read_until_there(5001);
    close(his[0]);
}

TEST(texts_are_cut_between_characters)
{
    char t[6];

    audit_text(t, sizeof(t), "abcd\xc3\xa4");
    ASSERT_STREQ(t, "abcd");
    audit_text(t, sizeof(t), "a\n\xff\xc3\xa4x");
    ASSERT_STREQ(t, "a??\xc3\xa4");
}
