/* SPDX-License-Identifier: MIT */
#include "common/io.h"
#include "common/auto.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

TEST(deadlines)
{
    int64_t now = now_mono_ms();

    ASSERT_EQ(deadline_left(DEADLINE_NONE), -1);
    ASSERT_EQ(deadline_left(now - 1), 0);
    ASSERT_EQ(deadline_left(INT64_MIN), 0);
    ASSERT_EQ(deadline_left(DEADLINE_NONE - 1), INT_MAX);
    ASSERT_EQ(deadline_in(INT64_MAX), DEADLINE_NONE);
    ASSERT_GT(deadline_left(deadline_in(10000)), 5000);
    ASSERT_LE(deadline_left(deadline_in(10000)), 10000);
}

/* Signals that interrupt everything, all the time. */
static void nothing(int sig)
{
}

static void disturb(void)
{
    struct sigaction sa = { .sa_handler = nothing };    /* without SA_RESTART */
    struct itimerval every = { { 0, 2000 }, { 0, 2000 } };

    ASSERT_SYS(sigaction(SIGALRM, &sa, NULL));
    ASSERT_SYS(setitimer(ITIMER_REAL, &every, NULL));
}

static void calm(void)
{
    struct itimerval never = { 0 };

    setitimer(ITIMER_REAL, &never, NULL);
}

static void through_a_pipe(bool nonblock, int64_t deadline)
{
    static char data[300000], got[sizeof(data)];
    struct err e = ERR_INIT;
    int p[2];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 31 >> 3);
    memset(got, 0, sizeof(got));
    ASSERT_SYS(pipe2(p, O_CLOEXEC));
    pid_t pid = ASSERT_SYS(fork());
    if (pid == 0) {
        for (size_t at = 0, n; at < sizeof(data); at += n) {    /* in odd pieces, with pauses */
            n = sizeof(data) - at < 7777 ? sizeof(data) - at : 7777;
            if (write(p[1], data + at, n) != (ssize_t)n)
                _exit(1);
            if (at % 3 == 0)
                usleep(1000);
        }
        _exit(0);
    }
    close(p[1]);
    ASSERT_OK(fd_set_nonblock(p[0], nonblock, &e), e);
    disturb();
    ASSERT_OK(io_read_full(p[0], got, sizeof(got), deadline, &e), e);
    ASSERT_MEMEQ(got, sizeof(got), data, sizeof(data));
    ASSERT_ERR(io_read_full(p[0], got, 1, deadline, &e), e, ERR_UNAVAILABLE);
    calm();
    close(p[0]);
    waitpid(pid, NULL, 0);

    ASSERT_SYS(pipe2(p, O_CLOEXEC));
    pid = ASSERT_SYS(fork());
    if (pid == 0) {
        size_t at = 0;
        ssize_t n;

        close(p[1]);
        while ((n = read(p[0], got, 5000)) > 0) {
            if (memcmp(got, data + at, (size_t)n) != 0)
                _exit(1);
            at += (size_t)n;
            usleep(500);
        }
        _exit(at == sizeof(data) ? 0 : 2);
    }
    close(p[0]);
    ASSERT_OK(fd_set_nonblock(p[1], nonblock, &e), e);
    disturb();
    ASSERT_OK(io_write_full(p[1], data, sizeof(data), deadline, &e), e);
    calm();
    close(p[1]);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
}

TEST(whole_buffers_through_pieces_and_signals)
{
    through_a_pipe(true, DEADLINE_NONE);
    through_a_pipe(false, DEADLINE_NONE);
    through_a_pipe(true, deadline_in(20000));
}

TEST(a_deadline_is_kept_under_signals)
{
    struct err e = ERR_INIT;
    int64_t before = now_mono_ms();
    static char big[1 << 20];
    int p[2];

    ASSERT_SYS(pipe2(p, O_CLOEXEC | O_NONBLOCK));
    disturb();
    ASSERT_ERR(io_read_full(p[0], big, 1, deadline_in(60), &e), e, ERR_TIMEOUT);
    ASSERT_ERR(io_write_full(p[1], big, sizeof(big), deadline_in(60), &e), e, ERR_TIMEOUT);
    ASSERT_EQ(io_wait(p[1], POLLOUT, deadline_in(60), &e), 0);
    calm();
    ASSERT_GE(now_mono_ms() - before, 170);
    ASSERT_LT(now_mono_ms() - before, 10000);
    ASSERT_EQ(io_wait(p[0], POLLIN, 0, &e), 1);      /* long past, and yet ready */
}

TEST(ends_and_bad_descriptors)
{
    struct err e = ERR_INIT;
    char c;
    int p[2];

    signal(SIGPIPE, SIG_IGN);
    ASSERT_SYS(pipe2(p, O_CLOEXEC));
    close(p[0]);
    ASSERT_ERR(io_write_full(p[1], "x", 1, DEADLINE_NONE, &e), e, ERR_UNAVAILABLE);
    close(p[1]);
    ASSERT_ERR(io_write_full(p[1], "x", 1, DEADLINE_NONE, &e), e, ERR_INTERNAL);
    ASSERT_ERR(io_read_full(p[1], &c, 1, DEADLINE_NONE, &e), e, ERR_INTERNAL);
    ASSERT_ERR(io_wait(p[1], POLLIN, DEADLINE_NONE, &e), e, ERR_INTERNAL);
    ASSERT_ERR(fd_set_nonblock(p[1], true, &e), e, ERR_INTERNAL);
    ASSERT_OK(io_read_full(p[1], &c, 0, DEADLINE_NONE, &e), e);
}

TEST(files_are_read_to_a_limit)
{
    static char text[10001];
    struct err e = ERR_INIT;
    autofree char *got = NULL;
    size_t len = 0;
    int fds = test_count_fds();

    memset(text, 't', sizeof(text) - 1);
    for (size_t n = 0; n <= 10000; n += n < 3 ? 1 : 1999) {
        ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("f"), text, n, 0640, &e), e);
        ASSERT_OK(io_read_file_at(AT_FDCWD, test_path("f"), n, &got, &len, &e), e);
        ASSERT_MEMEQ(got, len, text, n);
        ASSERT_EQ(got[len], '\0');
        free(take_ptr(got));
        if (n > 0)
            ASSERT_ERR(io_read_file_at(AT_FDCWD, test_path("f"), n - 1, &got, &len, &e), e,
                       ERR_TOO_LARGE);
        ASSERT_NULL(got);
    }
    ASSERT_OK(io_read_file_at(AT_FDCWD, "/proc/self/status", 65536, &got, NULL, &e), e);
    ASSERT_CONTAINS(got, "Pid:");
    free(take_ptr(got));
    ASSERT_ERR(io_read_file_at(AT_FDCWD, test_dir(), 100, &got, &len, &e), e, ERR_INTERNAL);
    ASSERT_SYS(mkfifo(test_path("fifo"), 0600));
    ASSERT_ERR(io_read_file_at(AT_FDCWD, test_path("fifo"), 100, &got, &len, &e), e, ERR_INTERNAL);
    ASSERT_ERR(io_read_file_at(AT_FDCWD, test_path("none"), 100, &got, &len, &e), e, ERR_INTERNAL);
    ASSERT_EQ(e.sys, ENOENT);
    ASSERT_EQ(test_count_fds(), fds);
}

TEST(files_are_replaced_whole_and_never_through_a_link)
{
    struct err e = ERR_INIT;
    autofree char *got = NULL;
    struct stat st;
    int dir = ASSERT_SYS(open(test_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));

    umask(0);
    ASSERT_OK(io_write_file_at(dir, "victim", "v", 1, 0600, &e), e);
    ASSERT_SYS(symlinkat("victim", dir, "f.tmp"));      /* waits for a writer */
    ASSERT_SYS(symlinkat("victim", dir, "f"));
    ASSERT_OK(io_write_file_at(dir, "f", "new", 3, 0640, &e), e);
    ASSERT_SYS(fstatat(dir, "f", &st, AT_SYMLINK_NOFOLLOW));
    ASSERT_EQ(st.st_mode, S_IFREG | 0640);
    ASSERT_EQ(st.st_size, 3);
    ASSERT_OK(io_read_file_at(dir, "victim", 10, &got, NULL, &e), e);
    ASSERT_STREQ(got, "v");
    ASSERT_EQ(faccessat(dir, "f.tmp", F_OK, 0), -1);
    ASSERT_SYS(mkdirat(dir, "d", 0700));
    ASSERT_ERR(io_write_file_at(dir, "d", "x", 1, 0600, &e), e, ERR_INTERNAL);
    ASSERT_EQ(faccessat(dir, "d.tmp", F_OK, 0), -1);    /* nothing stays behind */
    ASSERT_ERR(io_write_file_at(dir, "no/f", "x", 1, 0600, &e), e, ERR_INTERNAL);
}

TEST(directories)
{
    struct err e = ERR_INIT;
    struct stat st;

    umask(077);
    ASSERT_OK(io_mkdir_parents(test_path("a/b//c/"), 0751, &e), e);
    ASSERT_SYS(stat(test_path("a/b/c"), &st));
    ASSERT_EQ(st.st_mode, S_IFDIR | 0751);
    ASSERT_OK(io_mkdir(test_path("a"), 0700, &e), e);
    ASSERT_SYS(stat(test_path("a"), &st));
    ASSERT_EQ(st.st_mode & 0777, 0751);                 /* what is there stays as it is */
    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("f"), "", 0, 0600, &e), e);
    ASSERT_ERR(io_mkdir(test_path("f"), 0700, &e), e, ERR_INTERNAL);
    ASSERT_ERR(io_mkdir_parents(test_path("f/x"), 0700, &e), e, ERR_INTERNAL);
    ASSERT_ERR(io_mkdir(test_path("x/y"), 0700, &e), e, ERR_INTERNAL);
}

TEST(trees_are_removed_and_links_not_followed)
{
    struct err e = ERR_INIT;
    int fds = test_count_fds();
    int dir = ASSERT_SYS(open(test_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int at = ASSERT_SYS(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

    ASSERT_OK(io_write_file_at(dir, "outside", "keep", 4, 0600, &e), e);
    ASSERT_OK(io_mkdir_parents(test_path("kept/in"), 0700, &e), e);
    ASSERT_SYS(mkdirat(dir, "top", 0700));
    ASSERT_SYS(symlinkat("../kept", dir, "top/link"));
    ASSERT_SYS(symlinkat("../outside", dir, "top/file"));
    ASSERT_SYS(mkdirat(dir, "top/.gone-0", 0700));      /* a name it uses itself */
    ASSERT_SYS(mkdirat(dir, "top/.gone-0/x", 0700));
    /* deeper than PATH_MAX */
    ASSERT_SYS(mkdirat(at, "top/deep", 0700));
    int down = ASSERT_SYS(openat(at, "top/deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (int i = 0; i < 600; i++) {
        ASSERT_SYS(mkdirat(down, "directory-name", 0700));
        ASSERT_SYS(symlinkat("/", down, "root"));
        int next = ASSERT_SYS(openat(down, "directory-name", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        close(down);
        down = next;
    }
    close(down);
    ASSERT_OK(io_remove_tree(dir, "top", &e), e);
    ASSERT_EQ(faccessat(dir, "top", F_OK, AT_SYMLINK_NOFOLLOW), -1);
    ASSERT_EQ(faccessat(dir, "kept/in", F_OK, 0), 0);
    ASSERT_EQ(faccessat(dir, "outside", F_OK, 0), 0);
    ASSERT_OK(io_remove_tree(dir, "top", &e), e);       /* not there is success */
    ASSERT_SYS(symlinkat("kept", dir, "l"));
    ASSERT_OK(io_remove_tree(dir, "l", &e), e);
    ASSERT_EQ(faccessat(dir, "kept/in", F_OK, 0), 0);
    close(at);
    close(dir);
    ASSERT_EQ(test_count_fds(), fds);
}

TEST(descriptors_travel)
{
    struct err e = ERR_INIT;
    int s[2], p[2], got = -1;
    char c = 0;

    ASSERT_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
    ASSERT_SYS(pipe2(p, O_CLOEXEC));
    ASSERT_ERR(io_recv_fd(s[1], deadline_in(30), &got, &e), e, ERR_TIMEOUT);
    ASSERT_OK(io_send_fd(s[0], p[1], &e), e);
    ASSERT_OK(io_recv_fd(s[1], deadline_in(5000), &got, &e), e);
    ASSERT_EQ(fcntl(got, F_GETFD), FD_CLOEXEC);
    ASSERT_EQ(write(got, "z", 1), 1);
    ASSERT_EQ(read(p[0], &c, 1), 1);
    ASSERT_EQ(c, 'z');
    close(got);
    got = -1;
    ASSERT_EQ(write(s[0], "x", 1), 1);
    ASSERT_ERR(io_recv_fd(s[1], deadline_in(5000), &got, &e), e, ERR_UNAVAILABLE);
    ASSERT_EQ(got, -1);
    close(s[0]);
    ASSERT_ERR(io_recv_fd(s[1], deadline_in(5000), &got, &e), e, ERR_UNAVAILABLE);
}

/* More descriptors than are wanted must not stay open in here. */
TEST(too_many_descriptors_do_not_leak)
{
    for (int n = 2; n < 6; n++) {
        union { char buf[CMSG_SPACE(8 * sizeof(int))]; struct cmsghdr align; } control = { 0 };
        char byte = 0;
        struct iovec iov = { &byte, 1 };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
                            .msg_controllen = CMSG_SPACE((size_t)n * sizeof(int)) };
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        struct err e = ERR_INIT;
        int s[2], got = -1;

        ASSERT_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
        for (int i = 0; i < n; i++)
            memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &s[0], sizeof(int));
        ASSERT_SYS(sendmsg(s[0], &m, 0));
        int before = test_count_fds();
        ASSERT_ERR(io_recv_fd(s[1], deadline_in(5000), &got, &e), e, ERR_UNAVAILABLE);
        ASSERT_EQ(got, -1);
        ASSERT_EQ(test_count_fds(), before);
        close(s[0]);
        close(s[1]);
    }
}
