/* SPDX-License-Identifier: MIT
 *
 * Execs end to end: table, agent link, and the real sbx-agent as an ordinary process. Between them
 * stands a bridge in the place of QEMU: it listens for the daemon, and keeps the guest's end of the
 * channel open when the daemon goes; bytes on their way to a daemon that went are lost, as there.
 */
#include "common/auto.h"
#include "common/io.h"
#include "tests/fakes/execworld.h"
#include "tests/harness/test.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct pipebuf {
    uint8_t data[65536];
    size_t at, have;
};

struct bridge {
    int listen_fd, guest_fd, stop_fd;
    int conn;
    struct pipebuf to_guest, to_daemon;
    pthread_t thread;
};

/* Moves what it can; false: the writing or the reading end is closed. */
static bool move(int from, int to, struct pipebuf *b, bool can_read)
{
    if (b->have == 0 && can_read) {
        ssize_t n = recv(from, b->data, sizeof(b->data), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        b->at = 0;
        b->have = n > 0 ? (size_t)n : 0;
    }
    while (b->have > 0) {
        ssize_t n = send(to, b->data + b->at, b->have, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        b->at += (size_t)n;
        b->have -= (size_t)n;
    }
    return true;
}

static void *bridge_thread(void *arg)
{
    struct bridge *b = arg;
    for (;;) {
        struct pollfd p[4] = {
            { .fd = b->stop_fd, .events = POLLIN },
            { .fd = b->conn < 0 ? b->listen_fd : -1, .events = POLLIN },
            { .fd = b->conn,
              .events = (b->to_guest.have ? 0 : POLLIN) | (b->to_daemon.have ? POLLOUT : 0) },
            { .fd = b->conn < 0 ? -1 : b->guest_fd,
              .events = (b->to_daemon.have ? 0 : POLLIN) | (b->to_guest.have ? POLLOUT : 0) },
        };
        if (poll(p, 4, -1) < 0)
            continue;
        if (p[0].revents)
            break;
        if (p[1].revents)
            b->conn = accept4(b->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (b->conn < 0)
            continue;
        bool daemon = move(b->conn, b->guest_fd, &b->to_guest, p[2].revents != 0);
        bool guest = move(b->guest_fd, b->conn, &b->to_daemon, p[3].revents != 0);
        if (!daemon || !guest) {
            fd_close(b->conn);
            b->conn = -1;
            b->to_daemon.have = b->to_guest.have = 0;
        }
        char peek;
        if (!guest && recv(b->guest_fd, &peek, 1, MSG_DONTWAIT | MSG_PEEK) == 0)
            break; /* the guest itself is gone */
    }
    fd_close(b->conn);
    return NULL;
}

struct box {
    struct world w;
    struct bridge bridge;
    pid_t pid;
};

static pid_t spawn_agent(const char *path, int fd)
{
    char number[16];
    snprintf(number, sizeof(number), "%d", fd);
    pid_t pid = fork();
    if (pid == 0) {
        fcntl(fd, F_SETFD, 0);
        if (!getenv("SBX_AGENT_LOG")) {
            int null = open("/dev/null", O_WRONLY);
            dup2(null, 2);
        }
        execl(path, "sbx-agent", "--channel-fd", number, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void connect_world(struct box *b)
{
    struct err e = ERR_INIT;
    world_open(&b->w);
    ASSERT_OK(agent_wait_ready(b->w.agent, deadline_in(15000), &e), e);
}

static void begin(struct box *b)
{
    const char *path = getenv("SBX_AGENT");
    SKIP_IF(!path || access(path, X_OK) < 0, "SBX_AGENT names no sbx-agent");
    memset(b, 0, sizeof(*b));
    world_init(&b->w);
    int pair[2];
    ASSERT_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    b->bridge = (struct bridge){ .listen_fd = b->w.peer.listen_fd,
                                 .guest_fd = pair[0],
                                 .conn = -1,
                                 .stop_fd = eventfd(0, EFD_CLOEXEC) };
    b->pid = spawn_agent(path, pair[1]);
    close(pair[1]);
    ASSERT_EQ(pthread_create(&b->bridge.thread, NULL, bridge_thread, &b->bridge), 0);
    connect_world(b);
}

static void finish(struct box *b)
{
    uint64_t one = 1;
    world_shut(&b->w);
    kill(b->pid, SIGKILL);
    waitpid(b->pid, NULL, 0);
    ASSERT_EQ(write(b->bridge.stop_fd, &one, 8), 8);
    pthread_join(b->bridge.thread, NULL);
    close(b->bridge.stop_fd);
    close(b->bridge.guest_fd);
    world_done(&b->w);
}

static void restart(struct box *b)
{
    world_shut(&b->w);
    connect_world(b);
}

struct want {
    bool detach, stdin, tty;
    uint64_t timeout_ms;
    const char *workdir, *user;
    uint32_t rows, cols;
};

static int run(struct box *b, const struct want *want, const char *script, struct exec **ret,
               struct err *e)
{
    static const struct want none;
    const struct want *o = want ? want : &none;
    struct api_exec_req req = {
        .workdir = (char *)(o->workdir ? o->workdir : "/"),
        .user = (char *)o->user,
        .detach = o->detach,
        .stdin = o->stdin,
        .tty = o->tty,
        .timeout_ms = o->timeout_ms,
        .rows = o->rows,
        .cols = o->cols,
    };
    ASSERT_OK(strv_add(&req.command, "/bin/sh", e), *e);
    ASSERT_OK(strv_add(&req.command, "-c", e), *e);
    ASSERT_OK(strv_add(&req.command, script, e), *e);
    int rc = exec_start(b->w.table, "", &req, deadline_in(15000), ret, e);
    strv_done(&req.command);
    return rc;
}

static struct exec *must_run(struct box *b, const struct want *want, const char *script)
{
    struct err e = ERR_INIT;
    struct exec *x = NULL;
    ASSERT_OK(run(b, want, script, &x, &e), e);
    return x;
}

static struct exec_reader *must_attach(struct exec *x, uint64_t out)
{
    struct err e = ERR_INIT;
    struct exec_reader *r = NULL;
    ASSERT_OK(exec_attach(x, out, 0, &r, &e), e);
    return r;
}

/* One piece, waiting for it; 0 only at the end. */
static int64_t piece(struct exec_reader *r, void *buf, size_t cap, int *fd)
{
    struct err e = ERR_INIT;
    int64_t deadline = deadline_in(60000);
    for (;;) {
        uint64_t lost = 0;
        bool ended = false;
        int64_t n = exec_read(r, buf, cap, fd, &lost, &ended, &e);
        ASSERT_OK(n, e);
        ASSERT_EQ(lost, 0);
        if (n > 0 || ended)
            return n;
        ASSERT_EQ(io_wait(exec_reader_fd(r), POLLIN, deadline, &e), 1);
    }
}

/* All of stdout as a string (cut at cap), to the end. */
static void slurp(struct exec_reader *r, char *buf, size_t cap)
{
    char tmp[4096];
    size_t len = 0;
    int fd;
    int64_t n;
    while ((n = piece(r, tmp, sizeof(tmp), &fd)) > 0)
        for (int64_t i = 0; i < n && fd == 1 && len + 1 < cap; i++)
            buf[len++] = tmp[i];
    buf[len] = '\0';
}

static void check_end(struct exec *x, const char *end, int code)
{
    struct err e = ERR_INIT;
    struct api_exec d = { 0 };
    ASSERT_EQ(exec_wait(x, deadline_in(30000), &e), 1);
    ASSERT_OK(exec_describe(x, &d, &e), e);
    ASSERT_STREQ(d.end, end);
    ASSERT_EQ(d.exit_code, code);
    json_done(api_exec_table, &d, sizeof(d));
}

static void drop(struct exec_reader *r, struct exec *x)
{
    exec_detach(r);
    exec_unref(x);
}

TEST(output_of_both_streams_and_the_exit_code)
{
    struct box b;
    char out[100];
    begin(&b);
    struct exec *x = must_run(&b, NULL, "echo one; echo two >&2; exit 42");
    struct exec_reader *r = must_attach(x, 0);
    slurp(r, out, sizeof(out));
    ASSERT_STREQ(out, "one\n");
    check_end(x, "exit", 42);
    uint64_t offset = 0, lost;
    struct err e = ERR_INIT;
    ASSERT_EQ(exec_output(x, 2, &offset, out, sizeof(out), &lost, &e), 4);
    ASSERT_MEMEQ(out, 4, "two\n", 4);
    drop(r, x);
    finish(&b);
}

TEST(what_cannot_start)
{
    struct box b;
    struct err e = ERR_INIT;
    struct exec *x = NULL;
    struct api_exec_req req = { .workdir = (char *)"/" };
    begin(&b);
    ASSERT_OK(strv_add(&req.command, "no-such-program-here", &e), e);
    ASSERT_ERR(exec_start(b.w.table, "", &req, deadline_in(15000), &x, &e), e,
               ERR_COMMAND_NOT_FOUND);
    ASSERT_STREQ(e.msg, "no-such-program-here: command not found");
    strv_done(&req.command);
    e = ERR_INIT;
    ASSERT_OK(strv_add(&req.command, "/etc/passwd", &e), e);
    ASSERT_ERR(exec_start(b.w.table, "", &req, deadline_in(15000), &x, &e), e,
               ERR_COMMAND_NOT_EXEC);
    strv_done(&req.command);
    struct want nowhere = { .workdir = "/no/such/place" }, nobody = { .user = "no-such-user" };
    ASSERT_ERR(run(&b, &nowhere, "true", &x, &e), e, ERR_INVALID);
    ASSERT_ERR(run(&b, &nobody, "true", &x, &e), e, ERR_INVALID);
    ASSERT_EQ(exec_table_running(b.w.table), 0);
    finish(&b);
}

struct job {
    struct box *b;
    int number;
    struct exec *x;
    pthread_t thread;
    struct err e;
    int rc;
};

static void *job_thread(void *arg)
{
    struct job *j = arg;
    char script[100];
    snprintf(script, sizeof(script), "echo out-%d; echo err-%d >&2; sleep 0.2; exit %d", j->number,
             j->number, j->number % 100);
    j->rc = run(j->b, NULL, script, &j->x, &j->e);
    return NULL;
}

TEST_LIMIT(a_hundred_at_once, 120)
{
    static struct job jobs[100];
    struct box b;
    begin(&b);
    for (int i = 0; i < 100; i++) {
        jobs[i] = (struct job){ .b = &b, .number = i, .e = ERR_INIT };
        ASSERT_EQ(pthread_create(&jobs[i].thread, NULL, job_thread, &jobs[i]), 0);
    }
    for (int i = 0; i < 100; i++) {
        char out[100], want[100];
        pthread_join(jobs[i].thread, NULL);
        ASSERT_OK(jobs[i].rc, jobs[i].e);
        struct exec_reader *r = must_attach(jobs[i].x, 0);
        slurp(r, out, sizeof(out));
        snprintf(want, sizeof(want), "out-%d\n", i);
        ASSERT_STREQ(out, want);
        check_end(jobs[i].x, "exit", i);
        drop(r, jobs[i].x);
    }
    ASSERT_EQ(exec_table_running(b.w.table), 0);
    finish(&b);
}

#define LINE "0123456789abcde\n"

/* Reads `LINE` over and over from offset at until `until` (or the end), byte by byte right. */
static uint64_t check_lines(struct exec_reader *r, uint64_t at, uint64_t until)
{
    static char buf[65536];
    int fd;
    while (at < until) {
        int64_t n = piece(r, buf, sizeof(buf), &fd);
        if (n == 0)
            break;
        if (fd != 1)
            continue;
        for (int64_t i = 0; i < n; i++)
            if (buf[i] != LINE[(at + (uint64_t)i) % 16])
                FAIL("byte %llu is wrong", (unsigned long long)(at + (uint64_t)i));
        at += (uint64_t)n;
    }
    return at;
}

TEST_LIMIT(much_output_through_one_reader, 120)
{
    struct box b;
    begin(&b);
    int64_t before = now_mono_ms();
    struct exec *x = must_run(&b, NULL, "yes 0123456789abcde | head -c 67108864");
    struct exec_reader *r = must_attach(x, 0);
    ASSERT_EQ(check_lines(r, 0, UINT64_MAX), 67108864);
    int64_t ms = now_mono_ms() - before;
    fprintf(stderr, "# 64 MiB in %lld ms\n", (long long)ms);
    check_end(x, "exit", 0);
    drop(r, x);
    finish(&b);
}

TEST_LIMIT(a_slow_reader_stops_only_its_own, 120)
{
    struct box b;
    begin(&b);
    struct exec *slow = must_run(&b, NULL, "yes 0123456789abcde | head -c 4194304");
    struct exec *fast = must_run(&b, NULL, "yes 0123456789abcde | head -c 8388608");
    struct exec_reader *rs = must_attach(slow, 0), *rf = must_attach(fast, 0);
    ASSERT_EQ(check_lines(rf, 0, UINT64_MAX), 8388608);
    check_end(fast, "exit", 0);
    struct err e = ERR_INIT;
    ASSERT_EQ(exec_wait(slow, deadline_in(100), &e), 0);
    struct api_exec d = { 0 };
    ASSERT_OK(exec_describe(slow, &d, &e), e);
    ASSERT_LE(d.stdout_end, LIMIT_WINDOW);
    json_done(api_exec_table, &d, sizeof(d));
    ASSERT_EQ(check_lines(rs, 0, UINT64_MAX), 4194304);
    check_end(slow, "exit", 0);
    drop(rs, slow);
    drop(rf, fast);
    finish(&b);
}

TEST_LIMIT(a_reader_that_vanishes_frees_the_way, 120)
{
    struct box b;
    struct err e = ERR_INIT;
    struct want o = { .detach = true };
    begin(&b);
    struct exec *x = must_run(&b, &o, "yes 0123456789abcde | head -c 8388608; echo end");
    struct exec_reader *r = must_attach(x, 0);
    check_lines(r, 0, 100000);
    exec_detach(r);
    check_end(x, "exit", 0);
    char buf[8] = { 0 };
    uint64_t offset = 8388608, lost;
    ASSERT_EQ(exec_output(x, 1, &offset, buf, sizeof(buf), &lost, &e), 4);
    ASSERT_STREQ(buf, "end\n");
    exec_unref(x);
    finish(&b);
}

TEST_LIMIT(each_byte_once_over_restarts_of_the_daemon, 120)
{
    struct box b;
    struct err e = ERR_INIT;
    begin(&b);
    struct exec *x = must_run(&b, NULL, "yes 0123456789abcde | head -c 16777216; exit 5");
    char id[17];
    memcpy(id, exec_id(x), sizeof(id));
    struct exec_reader *r = must_attach(x, 0);
    uint64_t at = 0;
    for (int i = 0; i < 8; i++) {
        at = check_lines(r, at, at + 1500000);
        drop(r, x);
        restart(&b);
        ASSERT_OK(exec_find(b.w.table, id, &x, &e), e);
        r = must_attach(x, at);
    }
    ASSERT_EQ(check_lines(r, at, UINT64_MAX), 16777216);
    check_end(x, "exit", 5);
    drop(r, x);
    finish(&b);
}

TEST(an_end_while_no_daemon_was_there)
{
    struct box b;
    struct err e = ERR_INIT;
    char id[17], out[100];
    struct want o = { .detach = true };
    begin(&b);
    struct exec *x = must_run(&b, &o, "sleep 0.3; echo late; exit 7");
    memcpy(id, exec_id(x), sizeof(id));
    exec_unref(x);
    world_shut(&b.w);
    struct timespec ts = { .tv_nsec = 800000000 };
    nanosleep(&ts, NULL);
    connect_world(&b);
    ASSERT_OK(exec_find(b.w.table, id, &x, &e), e);
    check_end(x, "exit", 7);
    uint64_t offset = 0, lost;
    ASSERT_EQ(exec_output(x, 1, &offset, out, sizeof(out), &lost, &e), 5);
    exec_unref(x);
    finish(&b);
}

/* Writes all of it, reading what comes back meanwhile; returns the bytes read. */
static uint64_t write_all(struct exec_reader *r, uint64_t total, uint64_t *ret_at)
{
    static char chunk[30000], back[65536];
    struct err e = ERR_INIT;
    uint64_t sent = 0, got = 0;
    while (sent < total) {
        size_t n = total - sent < sizeof(chunk) ? (size_t)(total - sent) : sizeof(chunk);
        for (size_t i = 0; i < n; i++)
            chunk[i] = LINE[(*ret_at + sent + i) % 16];
        int64_t took = exec_stdin(r, chunk, n, &e);
        ASSERT_OK(took, e);
        sent += (uint64_t)took;
        uint64_t lost;
        bool ended;
        int fd;
        int64_t m = exec_read(r, back, sizeof(back), &fd, &lost, &ended, &e);
        ASSERT_OK(m, e);
        for (int64_t i = 0; i < m; i++)
            ASSERT_EQ(back[i], LINE[(got + (uint64_t)i) % 16]);
        got += (uint64_t)m;
        if (took == 0 && m == 0)
            ASSERT_EQ(io_wait(exec_reader_fd(r), POLLIN, deadline_in(20000), &e), 1);
    }
    *ret_at += sent;
    return got;
}

TEST_LIMIT(input_comes_back_and_ends, 120)
{
    struct box b;
    struct err e = ERR_INIT;
    struct want o = { .stdin = true };
    begin(&b);
    struct exec *x = must_run(&b, &o, "cat; echo '0123456789abcde'");
    struct exec_reader *r = must_attach(x, 0);
    uint64_t at = 0, got = write_all(r, 4194304, &at);
    ASSERT_OK(exec_stdin(r, NULL, 0, &e), e);
    ASSERT_EQ(check_lines(r, got, UINT64_MAX), 4194304 + 16);
    check_end(x, "exit", 0);
    drop(r, x);
    finish(&b);
}

TEST_LIMIT(input_goes_on_after_a_restart, 120)
{
    struct box b;
    struct err e = ERR_INIT;
    struct want o = { .stdin = true, .detach = true };
    char id[17];
    begin(&b);
    struct exec *x = must_run(&b, &o, "exec cat");
    memcpy(id, exec_id(x), sizeof(id));
    struct exec_reader *r = must_attach(x, 0);
    uint64_t at = 0;
    uint64_t got = write_all(r, 160000, &at);
    got = check_lines(r, got, 160000); /* all of it has arrived and come back */
    ASSERT_EQ(got, 160000);
    drop(r, x);
    restart(&b);
    ASSERT_OK(exec_find(b.w.table, id, &x, &e), e);
    r = must_attach(x, 160000);
    static const char more[] = LINE LINE;
    size_t sent = 0;
    while (sent < 32) {
        int64_t n = exec_stdin(r, more + sent, 32 - sent, &e);
        ASSERT_OK(n, e);
        sent += (size_t)n;
        if (n == 0)
            ASSERT_EQ(io_wait(exec_reader_fd(r), POLLIN, deadline_in(20000), &e), 1);
    }
    ASSERT_OK(exec_stdin(r, NULL, 0, &e), e);
    ASSERT_EQ(check_lines(r, 160000, UINT64_MAX), 160032);
    check_end(x, "exit", 0);
    drop(r, x);
    finish(&b);
}

TEST(signals_reach_the_command)
{
    struct box b;
    struct err e = ERR_INIT;
    char buf[100];
    int fd;
    begin(&b);
    struct exec *x = must_run(&b, NULL,
                              "trap 'echo got; exit 9' TERM; echo ready; "
                              "while :; do sleep 0.05; done");
    struct exec_reader *r = must_attach(x, 0);
    ASSERT_EQ(piece(r, buf, sizeof(buf), &fd), 6);
    ASSERT_OK(exec_signal(x, SIGTERM, &e), e);
    slurp(r, buf, sizeof(buf));
    ASSERT_STREQ(buf, "got\n");
    check_end(x, "exit", 9);
    drop(r, x);
    x = must_run(&b, NULL, "kill -9 $$");
    check_end(x, "signal", 137);
    exec_unref(x);
    finish(&b);
}

TEST(time_runs_out)
{
    struct box b;
    struct want o = { .timeout_ms = 300 };
    begin(&b);
    struct exec *x = must_run(&b, &o, "sleep 60");
    check_end(x, "timeout", 124);
    exec_unref(x);
    finish(&b);
}

TEST(an_abandoned_command_is_hung_up_then_killed)
{
    struct box b;
    char buf[10];
    int fd;
    begin(&b);
    struct exec *x = must_run(&b, NULL, "sleep 60");
    struct exec *y = must_run(&b, NULL, "trap '' HUP; echo ready; sleep 60");
    struct exec_reader *r = must_attach(y, 0);
    ASSERT_EQ(piece(r, buf, sizeof(buf), &fd), 6);
    int64_t before = now_mono_ms();
    exec_end(x);
    exec_end(y);
    check_end(x, "signal", 128 + SIGHUP);
    ASSERT_LT(now_mono_ms() - before, DEADLINE_END_GRACE);
    check_end(y, "signal", 128 + SIGKILL);
    exec_unref(x);
    drop(r, y);
    finish(&b);
}

TEST(a_terminal_has_the_size_it_is_given)
{
    struct box b;
    struct err e = ERR_INIT;
    char buf[200];
    struct want o = { .tty = true, .stdin = true, .rows = 33, .cols = 77 };
    begin(&b);
    struct exec *x = must_run(&b, &o, "stty size; read line; stty size");
    struct exec_reader *r = must_attach(x, 0);
    int fd;
    size_t len = 0;
    while (len < 7) {
        int64_t n = piece(r, buf + len, sizeof(buf) - len - 1, &fd);
        ASSERT_GT(n, 0);
        len += (size_t)n;
    }
    buf[len] = '\0';
    ASSERT_STREQ(buf, "33 77\r\n");
    ASSERT_OK(exec_resize(x, 44, 88, &e), e);
    while (exec_stdin(r, "x\n", 2, &e) == 0)
        ASSERT_EQ(io_wait(exec_reader_fd(r), POLLIN, deadline_in(20000), &e), 1);
    slurp(r, buf, sizeof(buf));
    ASSERT_CONTAINS(buf, "44 88");
    check_end(x, "exit", 0);
    drop(r, x);
    finish(&b);
}

TEST(a_guest_that_dies_loses_what_ran)
{
    struct box b;
    begin(&b);
    struct exec *x = must_run(&b, NULL, "sleep 5");
    kill(b.pid, SIGKILL);
    check_end(x, "lost", 125);
    exec_unref(x);
    finish(&b);
}

TEST_LIMIT(execs_one_after_the_other, 120)
{
    struct box b;
    begin(&b);
    int64_t before = now_mono_us();
    for (int i = 0; i < 100; i++) {
        struct exec *x = must_run(&b, NULL, "exit 0");
        check_end(x, "exit", 0);
        exec_unref(x);
    }
    fprintf(stderr, "# %lld us for one exec\n", (long long)(now_mono_us() - before) / 100);
    finish(&b);
}
