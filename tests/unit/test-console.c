/* SPDX-License-Identifier: MIT
 *
 * The console's pipe with a writer as QEMU is one: it does not wait, and holds both ends.
 */
#include "daemon/console.h"

#include "common/io.h"
#include "common/limits.h"
#include "tests/harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char base[128], out[160], logpath[160];
static struct evloop *loop;
static struct console *console;
static struct err e;

static int open_qemu(void)
{
    snprintf(base, sizeof(base), "%s/console", test_dir());
    snprintf(out, sizeof(out), "%s.out", base);
    snprintf(logpath, sizeof(logpath), "%s.log", base);
    ASSERT_OK(evloop_new(&loop, &e), e);
    ASSERT_OK(console_make(base, getuid(), getgid(), &e), e);
    ASSERT_OK(console_open(loop, base, logpath, &console, &e), e);
    ASSERT_NOT_NULL(console);
    int fd = open(out, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    ASSERT_TRUE(fd >= 0);
    return fd;
}

static void done(int fd)
{
    console_close(console);
    close(fd);
    evloop_free(loop);
}

static off_t log_size(void)
{
    struct stat sb;

    return stat(logpath, &sb) == 0 ? sb.st_size : 0;
}

static bool log_has(const char *text)
{
    char *data = NULL;
    size_t len = 0;
    struct err ignored = ERR_INIT;

    if (io_read_file_at(AT_FDCWD, logpath, 16 * MIB, &data, &len, &ignored) < 0)
        return false;
    bool has = memmem(data, len, text, strlen(text)) != NULL;
    free(data);
    return has;
}

static void await(const char *text)
{
    for (int64_t deadline = deadline_in(20000); !log_has(text);) {
        ASSERT_TRUE(now_mono_ms() < deadline);
        usleep(1000);
    }
}

TEST(what_is_printed_is_in_the_log)
{
    int fd = open_qemu();

    ASSERT_EQ(write(fd, "hello\n", 6), 6);
    await("hello\n");
    done(fd);
}

TEST(what_is_there_at_the_end_is_taken)
{
    int fd = open_qemu();

    ASSERT_EQ(write(fd, "last words", 10), 10);
    console_close(console);
    console = NULL;
    ASSERT_TRUE(log_has("last words"));
    done(fd);
}

TEST(a_flood_is_slowed_down_and_the_log_is_bounded)
{
    static char piece[8192];
    int fd = open_qemu();
    int64_t began = now_mono_ms();
    uint64_t written = 0;
    off_t biggest = 0;

    memset(piece, 'x', sizeof(piece));
    while (now_mono_ms() - began < 7000) {
        ssize_t n = write(fd, piece, sizeof(piece));
        if (n < 0) {
            ASSERT_EQ(errno, EAGAIN);
            usleep(100);
        } else {
            written += (uint64_t)n;
        }
        off_t now = log_size();
        biggest = now > biggest ? now : biggest;
    }
    int64_t seconds = (now_mono_ms() - began) / 1000 + 2;
    ASSERT_TRUE(written <= (uint64_t)seconds * LIMIT_CONSOLE_RATE + LIMIT_CONSOLE_PIPE);
    ASSERT_TRUE(written > LIMIT_CONSOLE_LOG);
    ASSERT_TRUE(biggest <= (off_t)(LIMIT_CONSOLE_LOG + LIMIT_CONSOLE_PIPE));
    ASSERT_TRUE(log_has("[console: more than can be kept, some is left out]"));
    done(fd);
}

TEST(without_a_daemon_the_pipe_keeps_its_beginning)
{
    static char piece[4096];
    int fd = open_qemu();
    ssize_t n;
    uint64_t written = 0;

    console_close(console);
    ASSERT_EQ(write(fd, "meanwhile", 9), 9);
    while ((n = write(fd, piece, sizeof(piece))) > 0)
        written += (uint64_t)n;
    ASSERT_EQ(errno, EAGAIN);
    ASSERT_TRUE(written <= LIMIT_CONSOLE_PIPE);
    ASSERT_EQ(log_size(), 0);
    ASSERT_OK(console_open(loop, base, logpath, &console, &e), e);
    await("meanwhile");
    for (int64_t deadline = deadline_in(20000); (n = write(fd, "and now", 7)) < 0;) {
        ASSERT_TRUE(now_mono_ms() < deadline);
        usleep(1000);
    }
    await("and now");
    done(fd);
}

TEST(the_end_of_qemu_is_seen_once)
{
    int fd = open_qemu();

    ASSERT_EQ(write(fd, "bye", 3), 3);
    close(fd);
    await("bye");
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    usleep(400000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);    /* a loop that spins would use all of it */
    int64_t us = (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000;
    ASSERT_TRUE(us < 100000);
    done(-1);
}

TEST(a_machine_without_pipes_writes_its_log_itself)
{
    int fd = open_qemu();
    struct console *other = NULL;

    unlink(out);
    ASSERT_OK(console_open(loop, base, logpath, &other, &e), e);
    ASSERT_NULL(other);
    /* and what is in its place is not read */
    ASSERT_EQ(symlink("/dev/zero", out), 0);
    ASSERT_ERR(console_open(loop, base, logpath, &other, &e), e, ERR_INTERNAL);
    unlink(out);
    e = ERR_INIT;
    ASSERT_EQ(mkdir(out, 0700), 0);
    ASSERT_ERR(console_open(loop, base, logpath, &other, &e), e, ERR_INTERNAL);
    e = ERR_INIT;
    done(fd);
}
