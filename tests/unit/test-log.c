/* SPDX-License-Identifier: MIT */
#include "common/log.h"
#include "common/auto.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int keep = -1;
static char got[200000];

static void capture(void)
{
    int fd = ASSERT_SYS(open(test_path("log"), O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600));

    keep = ASSERT_SYS(fcntl(2, F_DUPFD_CLOEXEC, 10));
    ASSERT_SYS(dup2(fd, 2));
    close(fd);
}

static const char *captured(void)
{
    ssize_t n = pread(2, got, sizeof(got) - 1, 0);

    dup2(keep, 2);
    close(keep);
    got[ASSERT_SYS(n)] = '\0';
    return got;
}

TEST(records_have_level_message_and_fields)
{
    struct err e = ERR_INIT;
    uid_t uid = 1000;

    err_sys(&e, ERR_GUEST, EIO, "it broke");
    log_init("test", LOG_INFO);
    capture();
    errno = 42;
    log_info(NULL, "plain %d", 1);
    log_err(LOG_CTX(.event = "0123", .request = "r1", .sandbox = "s 1", .exec = "", .uid = &uid,
                    .error = &e), "failed");
    log_warn(LOG_CTX(.error = &ERR_INIT), "no error");
    ASSERT_EQ(errno, 42);
    ASSERT_STREQ(captured(), "info plain 1\n"
                 "err failed request=r1 sandbox=\"s 1\" uid=1000 code=guest_error errno=5 "
                 "error=\"it broke: Input/output error\"\n"
                 "warning no error\n");
}

TEST(levels_decide)
{
    log_init("test", LOG_WARNING);
    capture();
    log_debug(NULL, "d1");
    log_notice(NULL, "n1");
    log_warn(NULL, "w1");
    log_set_level(LOG_DEBUG);
    log_debug(NULL, "d2");
    log_set_level(LOG_ERR);
    log_warn(NULL, "w2");
    log_write(-1, NULL, "f", 1, "below");
    log_write(99, NULL, "f", 1, "above");
    ASSERT_STREQ(captured(), "warning w1\ndebug d2\n");
}

TEST(foreign_text_stays_on_its_line_and_is_cut)
{
    static char big[20000];
    struct err e = ERR_INIT;

    memset(big, 'b', sizeof(big) - 1);
    err_set(&e, ERR_INVALID, "x");
    log_init("test", LOG_INFO);
    capture();
    log_info(LOG_CTX(.sandbox = "a\nerr forged\x1b[31m\xff", .request = big), "m\n%s", "err x");
    log_info(NULL, "%s", big);
    const char *text = captured();
    ASSERT_CONTAINS(text, "info m\\nerr x request=bbb");
    ASSERT_CONTAINS(text, " sandbox=\"a\\nerr forged\\x1b[31m\\xff\"\n");
    ASSERT_LT(strlen(text), 4000);
    int lines = 0;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    ASSERT_EQ(lines, 2);
}

TEST(a_reader_that_is_gone_is_no_harm)
{
    int p[2];

    log_init("test", LOG_INFO);
    signal(SIGPIPE, SIG_IGN);
    ASSERT_SYS(pipe2(p, O_CLOEXEC | O_NONBLOCK));
    keep = ASSERT_SYS(fcntl(2, F_DUPFD_CLOEXEC, 10));
    ASSERT_SYS(dup2(p[1], 2));
    for (int i = 0; i < 5000; i++)          /* full */
        log_info(NULL, "line of some length %d", i);
    close(p[0]);
    log_info(NULL, "gone");
    dup2(keep, 2);
}

TEST(another_stream_than_the_journals_is_plain)
{
    struct stat st;
    char name[64];

    ASSERT_SYS(fstat(0, &st));
    static const char *const bad[] = { "", "1", "1:", ":1", "x:y", "1:1", "0:0junk" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        setenv("JOURNAL_STREAM", bad[i], 1);
        log_init("test", LOG_INFO);
        capture();
        log_info(NULL, "here");
        ASSERT_STREQ(captured(), "info here\n");
    }
    capture();                              /* ours, with something behind it */
    ASSERT_SYS(fstat(2, &st));
    snprintf(name, sizeof(name), "%llu:%llux", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", name, 1);
    log_init("test", LOG_INFO);
    log_info(NULL, "here");
    ASSERT_STREQ(captured(), "info here\n");
}

TEST(floods_are_counted)
{
    struct log_rate r = { 0 };
    int passed = 0;

    log_init("test", LOG_INFO);
    capture();
    for (int i = 0; i < 100; i++)
        passed += log_rate_ok(&r, 3, 60000);
    ASSERT_EQ(passed, 3);
    ASSERT_EQ(r.dropped, 97);
    r.window_start_ms -= 60000;
    ASSERT_TRUE(log_rate_ok(&r, 3, 60000));
    ASSERT_EQ(r.dropped, 0);
    r.window_start_ms -= 60000;
    ASSERT_TRUE(log_rate_ok(&r, 3, 60000));
    ASSERT_STREQ(captured(), "warning 97 messages like the next one were left out\n");
}
