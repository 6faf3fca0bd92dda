/* SPDX-License-Identifier: MIT
 *
 * sbx-agent: first process of a guest, and the daemon's hand in it. As process 1 it boots the guest
 * (boot.h) and serves the virtio-serial port. With --channel-fd or --channel it is an ordinary
 * process that serves a socket and leaves the machine alone; with `probe` it tries ways out of the
 * guest (probe.h).
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/parse.h"
#include "guest/boot.h"
#include "guest/ops.h"
#include "guest/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHUTDOWN_TERM_MS 3000   /* from SIGTERM to SIGKILL */
#define SHUTDOWN_KILL_MS 2000   /* from SIGKILL to the end, whoever is left */

static struct ops ops;          /* large, and lives as long as the program */
static struct loop loop = { .fd = -1 };

/* The orderly end: everybody is asked to go, then made to. */
static struct {
    bool wanted, reboot, killed;
    int64_t at;                 /* next step */
} ending;

static void begin_shutdown(bool reboot)
{
    if (ending.wanted)
        return;
    ending.wanted = true;
    ending.reboot = reboot;
    ending.at = deadline_in(SHUTDOWN_TERM_MS);
    if (getpid() != 1)
        return;
    kill(-1, SIGTERM);
    kill(-1, SIGHUP);           /* interactive shells do not mind SIGTERM */
    kill(-1, SIGCONT);
}

static const struct ops_host guest_host = {
    .net = boot_net,
    .configure = boot_configure,
    .set_time = boot_set_time,
    .shutdown = begin_shutdown,
};

static const struct ops_host process_host = { .shutdown = begin_shutdown };

/* True when there is no child left. */
static bool reap(void)
{
    for (;;) {
        int status = 0;
        pid_t pid = waitpid(-1, &status, WNOHANG);

        if (pid > 0)
            sessions_reaped(&ops.sessions, pid, status);
        else if (pid == 0)
            return false;
        else if (errno != EINTR)
            return true;
    }
}

static void on_signal(void *arg, uint32_t events)
{
    struct source *s = arg;
    struct signalfd_siginfo info;

    while (read(s->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        if (info.ssi_signo != SIGCHLD)
            begin_shutdown(info.ssi_signo == SIGINT);   /* ctrl-alt-del */
}

static int watch_signals(struct source *s, struct err *e)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    *s = (struct source){ .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                          .fn = on_signal, .arg = s };
    if (s->fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot watch signals");
    return loop_watch(&loop, s, EPOLLIN, e);
}

/* Whether everything is over. As process 1 every process of the guest is our child in the end. */
static bool shutdown_step(bool childless)
{
    if (!ending.wanted)
        return false;
    if (getpid() != 1 || childless)
        return true;
    if (now_mono_ms() < ending.at)
        return false;
    if (ending.killed)
        return true;
    ending.killed = true;
    ending.at = deadline_in(SHUTDOWN_KILL_MS);
    kill(-1, SIGKILL);
    return false;
}

static int64_t soonest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int serve(struct err *e)
{
    bool busy = false;

    for (;;) {
        int64_t at = soonest(sessions_deadline(&ops.sessions), chan_deadline(&ops.chan));

        if (ending.wanted)
            at = soonest(at, ending.at);
        if (loop_turn(&loop, busy ? now_mono_ms() : at, e) < 0)
            return -1;
        bool childless = reap();
        sessions_tick(&ops.sessions);
        busy = chan_turn(&ops.chan);
        if (ops.failed) {
            (void)chan_turn(&ops.chan);     /* the log line that says why */
            return err_set(e, ERR_INTERNAL, "%s", "cannot set up the sandbox");
        }
        if (ops.chan.ended || shutdown_step(childless))
            return 0;
    }
}

static void raise_files(void)
{
    struct rlimit r = { 65536, 524288 };

    if (setrlimit(RLIMIT_NOFILE, &r) < 0 && getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

static int begin(enum chan_kind kind, int *fd, const struct ops_host *host, struct source *signals,
                 struct err *e)
{
    raise_files();
    if (loop_init(&loop, e) < 0 || watch_signals(signals, e) < 0)
        return -1;
    return ops_init_take(&ops, &loop, kind, fd, host, e);
}

/* Process 1: never returns to the kernel, which would panic. */
static _Noreturn void run_guest(void)
{
    uint64_t began = (uint64_t)now_mono_us();
    struct source signals = SOURCE_NONE;
    struct err e = ERR_INIT;
    int fd = -1, rc = boot_guest(&fd, &e);

    if (rc == 0)
        rc = begin(CHAN_PORT, &fd, &guest_host, &signals, &e);
    if (rc == 0) {
        ops.kernel_us = began;
        ops.sessions.become_user = true;
        rc = serve(&e);
    }
    if (rc < 0)
        boot_complain(&e);
    boot_end(ending.reboot && rc == 0);
}

static int listen_at(const char *path, struct err *e)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    autoclose int fd = -1;

    if (strlen(path) >= sizeof(sa.sun_path))
        return err_set(e, ERR_USAGE, "the path '%s' is too long for a socket", path);
    memcpy(sa.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || (unlink(path) < 0 && errno != ENOENT) ||
        bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 4) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot listen on '%s'", path);
    return take_fd(&fd);
}

static int run_process(enum chan_kind kind, int fd, struct err *e)
{
    struct source signals = SOURCE_NONE;
    char uid[16];

    if (begin(kind, &fd, &process_host, &signals, e) < 0)
        return -1;
    snprintf(uid, sizeof(uid), "%u", geteuid());
    ops.sessions.user = uid;
    ops.sessions.become_user = geteuid() == 0;
    int rc = serve(e);
    ops_done(&ops);
    loop_close(&loop, &signals);
    loop_done(&loop);
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    uint32_t fd = 0;
    int rc = -1;

    /* the kernel hands on words of its command line that it does not know, but none like ours */
    if (getpid() == 1 && (argc < 2 || strncmp(argv[1], "--channel", 9) != 0))
        run_guest();
    log_init("sbx-agent", LOG_INFO);
    if (argc == 3 && strcmp(argv[1], "--channel-fd") == 0 && parse_u32(argv[2], 0, 65535, &fd)) {
        (void)fcntl((int)fd, F_SETFD, FD_CLOEXEC);
        rc = run_process(CHAN_SOCKET, (int)fd, &e);
    } else if (argc == 3 && strcmp(argv[1], "--channel") == 0) {
        int listener = listen_at(argv[2], &e);

        if (listener >= 0)
            rc = run_process(CHAN_LISTEN, listener, &e);
    } else if (argc == 2 && strcmp(argv[1], "probe") == 0) {
        return probe_main(STDIN_FILENO, STDOUT_FILENO);
    } else if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("sbx-agent %s, protocol %d\n", SBX_VERSION, FRAME_VERSION);
        return 0;
    } else {
        fprintf(stderr, "usage: sbx-agent --channel-fd N | --channel SOCKET | probe | --version\n"
                        "It is meant to be the first process of a sandbox's guest.\n");
        return 2;
    }
    if (rc < 0)
        log_err(LOG_CTX(.error = &e), "the agent ends");
    return rc < 0;
}
