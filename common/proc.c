/* SPDX-License-Identifier: MIT
 *
 * Between fork and exec the child of a program with threads may only do what a signal handler may:
 * another thread may have held any lock, that of malloc too. So all is looked up before the fork,
 * and the child makes system calls only. It sends what went wrong through a close-on-exec pipe; end
 * of file there means that exec worked.
 */
#include "common/proc.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STDERR_KEPT 4096

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4u
#endif

static const char *const default_env[] = {
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/", NULL,
};

enum child_stage { STAGE_FDS, STAGE_PREPARE, STAGE_EXEC };

struct child_report {
    enum child_stage stage;
    int sys;
};

/* Where a name without a slash is looked for; never the PATH of the caller. */
static int find_program(const char *name, char **ret, struct err *e)
{
    static const char *const dirs[] = { "/usr/sbin", "/usr/bin", "/sbin", "/bin" };

    if (name[0] == '/') {
        *ret = strdup(name);
        return *ret ? 0 : err_nomem(e);
    }
    if (name[0] == '\0' || strchr(name, '/'))
        return err_set(e, ERR_INTERNAL, "'%s' is not the name or absolute path of a program", name);
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        autofree char *path = NULL;

        if (asprintf(&path, "%s/%s", dirs[i], name) < 0) {
            path = NULL;
            return err_nomem(e);
        }
        if (access(path, X_OK) == 0) {
            *ret = take_ptr(path);
            return 0;
        }
    }
    err_sys(e, ERR_UNAVAILABLE, ENOENT, "cannot run %s", name);
    return err_hint(e, "install the package that has %s", name);
}

/* From here to the end of run_child(): async-signal-safe calls only. */

static int set_cloexec(int fd, bool on)
{
    return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0);
}

/* Marks all descriptors from 3 on; exec closes them then. Marked and not closed, so that `prepare`
 * and the report still have theirs. */
static int mark_all(int limit)
{
    if (syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) == 0)
        return 0;
    if (errno != ENOSYS && errno != EINVAL && errno != EPERM)
        return -1;
    for (int fd = 3; fd < limit; fd++)      /* a kernel or tracer without the call */
        if (set_cloexec(fd, true) < 0 && errno != EBADF)
            return -1;
    return 0;
}

static int arrange_fds(const struct proc_spec *spec, int limit)
{
    const int wanted[3] = { spec->stdin_fd, spec->stdout_fd, spec->stderr_fd };
    int from[3];

    /* first out of the way of 0, 1 and 2, then each to its place */
    for (int i = 0; i < 3; i++) {
        from[i] = wanted[i] < 0 ? open("/dev/null", i == 0 ? O_RDONLY : O_WRONLY) : wanted[i];
        if (from[i] >= 0 && from[i] < 3)
            from[i] = fcntl(from[i], F_DUPFD, 3);
        if (from[i] < 0)
            return -1;
    }
    for (int i = 0; i < 3; i++)
        if (dup2(from[i], i) < 0)
            return -1;
    if (mark_all(limit) < 0)
        return -1;
    for (size_t i = 0; i < spec->n_keep_fds; i++)
        if (set_cloexec(spec->keep_fds[i], false) < 0)
            return -1;
    return 0;
}

static void reset_signals(void)
{
    struct sigaction dfl = { .sa_handler = SIG_DFL };
    sigset_t none;

    for (int s = 1; s < NSIG; s++)
        sigaction(s, &dfl, NULL);   /* fails for those that cannot be caught anyway */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void run_child(const struct proc_spec *spec, const char *path, int report_fd,
                                int limit)
{
    const char *const *env = spec->env ? spec->env : default_env;
    struct child_report report = { .stage = STAGE_FDS };

    reset_signals();
    umask(022);
    if (spec->new_session)
        setsid();
    if (arrange_fds(spec, limit) < 0) {
        report.sys = errno;
    } else if (spec->prepare && (report.sys = spec->prepare(spec->prepare_arg)) != 0) {
        report.stage = STAGE_PREPARE;
    } else {
        execve(path, (char *const *)spec->argv, (char *const *)env);
        report = (struct child_report){ STAGE_EXEC, errno };
    }
    while (write(report_fd, &report, sizeof(report)) < 0 && errno == EINTR)
        ;
    _exit(127);
}

/* The write end must not be one of the numbers the child fills. */
static int report_pipe(int ret[2], struct err *e)
{
    int p[2], moved;

    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make a pipe");
    if (p[1] < 3) {
        moved = fcntl(p[1], F_DUPFD_CLOEXEC, 3);
        fd_close(p[1]);
        p[1] = moved;
        if (moved < 0) {
            fd_close(p[0]);
            return err_sys(e, ERR_INTERNAL, errno, "cannot make a pipe");
        }
    }
    ret[0] = p[0];
    ret[1] = p[1];
    return 0;
}

static void kill_and_reap(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static int report_error(const struct child_report *r, const char *program, struct err *e)
{
    switch (r->stage) {
    case STAGE_PREPARE:
        return err_sys(e, ERR_INTERNAL, r->sys, "cannot prepare to run %s", program);
    case STAGE_EXEC:
        err_sys(e, ERR_UNAVAILABLE, r->sys, "cannot run %s", program);
        if (r->sys == ENOENT)
            err_hint(e, "install the package that has %s", program);
        return -1;
    case STAGE_FDS:
        break;
    }
    return err_sys(e, ERR_INTERNAL, r->sys, "cannot set up the files of %s", program);
}

/* Waits until the child has become the program. */
static int await_exec(int fd, const char *program, struct err *e)
{
    struct child_report report = { 0 };
    ssize_t n;
    int r;

    do {
        r = io_wait(fd, POLLIN, deadline_in(DEADLINE_CHILD), e);
        if (r <= 0)
            return r < 0 ? -1 : err_set(e, ERR_TIMEOUT, "%s did not start in time", program);
        n = read(fd, &report, sizeof(report));
    } while (n < 0 && errno == EINTR);
    if (n == 0)
        return 0;
    if (n != (ssize_t)sizeof(report))
        return err_set(e, ERR_INTERNAL, "%s did not start", program);
    return report_error(&report, program, e);
}

static int open_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);    /* close-on-exec from birth */
}

int proc_spawn(const struct proc_spec *spec, pid_t *ret_pid, int *ret_pidfd, struct err *e)
{
    autofree char *path = NULL;
    int pipefd[2] = { -1, -1 };
    struct rlimit files = { .rlim_cur = 1024 };
    sigset_t all, saved;
    pid_t pid;

    if (find_program(spec->argv[0], &path, e) < 0 || report_pipe(pipefd, e) < 0)
        return -1;
    autoclose int from = pipefd[0];
    autoclose int to = pipefd[1];
    autoclose int pidfd = -1;

    getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur > 65536)
        files.rlim_cur = 65536;

    /* no handler of ours may run in the child before it has reset them */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    pid = fork();
    if (pid == 0)
        run_child(spec, path, to, (int)files.rlim_cur);
    int sys = errno;
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    if (pid < 0)
        return err_sys(e, ERR_INTERNAL, sys, "cannot start %s", path);

    fd_close(take_fd(&to));
    if (await_exec(from, path, e) < 0) {
        kill_and_reap(pid);
        return -1;
    }
    if (ret_pidfd && (pidfd = open_pidfd(pid)) < 0) {
        err_sys(e, ERR_INTERNAL, errno, "cannot watch %s", path);
        kill_and_reap(pid);
        return -1;
    }
    *ret_pid = pid;
    if (ret_pidfd)
        *ret_pidfd = take_fd(&pidfd);
    return 0;
}

int proc_wait(pid_t pid, int pidfd, int64_t deadline, int *ret_status, struct err *e)
{
    autoclose int own = -1;
    int status, r;

    if (pidfd < 0 && (pidfd = own = open_pidfd(pid)) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot watch process %d", (int)pid);
    r = io_wait(pidfd, POLLIN, deadline, e);
    if (r <= 0)
        return r;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(e, ERR_INTERNAL, errno, "cannot wait for process %d", (int)pid);
    if (ret_status)
        *ret_status = status;
    return 1;
}

/* One output of a running child. */
struct sink {
    int fd;             /* owned; -1 at its end */
    struct sbuf head;   /* the first max bytes; those after are dropped */
    char tail[STDERR_KEPT];
    size_t tail_len;
    bool keep_tail;
};

static void sink_done(struct sink *s)
{
    fd_close(s->fd);
    sbuf_done(&s->head);
}
#define autosink __attribute__((cleanup(sink_done)))

static void sink_put(struct sink *s, const char *data, size_t n)
{
    if (!s->keep_tail) {
        size_t room = s->head.max - s->head.len;

        sbuf_add(&s->head, data, n < room ? n : room);
        return;
    }
    if (n >= sizeof(s->tail)) {
        data += n - sizeof(s->tail);
        n = sizeof(s->tail);
    }
    if (s->tail_len + n > sizeof(s->tail)) {
        size_t cut = s->tail_len + n - sizeof(s->tail);

        s->tail_len -= cut;
        memmove(s->tail, s->tail + cut, s->tail_len);
    }
    memcpy(s->tail + s->tail_len, data, n);
    s->tail_len += n;
}

/* Takes what is there now; false when nothing was. */
static bool sink_read(struct sink *s)
{
    char buf[16384];
    ssize_t n = s->fd < 0 ? -1 : read(s->fd, buf, sizeof(buf));

    if (n > 0) {
        sink_put(s, buf, (size_t)n);
        return true;
    }
    if (s->fd >= 0 && (n == 0 || (errno != EAGAIN && errno != EINTR)))
        fd_close(take_fd(&s->fd));
    return false;
}

static int sink_open(struct sink *s, int *ret_write_end, struct err *e)
{
    int p[2];

    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make a pipe");
    s->fd = p[0];
    *ret_write_end = p[1];
    return fd_set_nonblock(p[0], true, e);
}

static void last_line(const struct sink *s, const char **ret, size_t *ret_len)
{
    size_t end = s->tail_len, start;

    while (end > 0 && (s->tail[end - 1] == '\n' || s->tail[end - 1] == '\r' ||
                       s->tail[end - 1] == ' '))
        end--;
    for (start = end; start > 0 && s->tail[start - 1] != '\n';)
        start--;
    *ret = s->tail + start;
    *ret_len = end - start;
}

static int status_error(const char *program, int status, const struct sink *err_sink, struct err *e)
{
    static const char full[] = "No space left on device";   /* of strerror(ENOSPC) in our locale */
    const char *line;
    size_t len;

    last_line(err_sink, &line, &len);
    if (memmem(line, len, full, strlen(full)))      /* in front: two long paths would hide it */
        return err_set(e, ERR_NO_SPACE, "no space left on the device: %s failed: %.*s", program,
                       (int)len, line);
    if (WIFSIGNALED(status))
        return err_set(e, ERR_INTERNAL, "%s was killed by signal %d%s%.*s", program,
                       WTERMSIG(status), len ? ": " : "", (int)len, line);
    return err_set(e, ERR_INTERNAL, "%s failed with status %d%s%.*s", program, WEXITSTATUS(status),
                   len ? ": " : "", (int)len, line);
}

/* Serves both outputs until the child has ended. What a grandchild still holds open is not waited
 * for. Returns 1 ended, 0 deadline, -1 error. */
static int serve(int pidfd, struct sink *out, struct sink *err_sink, int64_t deadline,
                 struct err *e)
{
    for (;;) {
        struct pollfd p[3] = { { .fd = pidfd, .events = POLLIN },
                               { .fd = out->fd, .events = POLLIN },
                               { .fd = err_sink->fd, .events = POLLIN } };

        if (poll(p, 3, deadline_left(deadline)) < 0 && errno != EINTR)
            return err_sys(e, ERR_INTERNAL, errno, "cannot wait for a program");
        if (p[1].revents)
            sink_read(out);
        if (p[2].revents)
            sink_read(err_sink);
        if (p[0].revents) {
            /* at most what a pipe holds, so that an endless writer left behind is no matter */
            for (int i = 0; i < 64 && sink_read(out); i++)
                ;
            for (int i = 0; i < 64 && sink_read(err_sink); i++)
                ;
            return 1;
        }
        if (deadline_left(deadline) == 0)
            return 0;
    }
}

/* The caller's thread waits for it, so it has no business when that thread is gone. */
static int die_with_caller(void *arg)
{
    const pid_t *caller = arg;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return errno;
    return getppid() == *caller ? 0 : ESRCH;
}

int proc_run(const char *const *argv, int64_t deadline, size_t max_out, char **ret_out,
             struct err *e)
{
    autosink struct sink out = { .fd = -1, .head = SBUF(max_out) };
    autosink struct sink err_sink = { .fd = -1, .keep_tail = true };
    autoclose int out_w = -1;
    autoclose int err_w = -1;
    autoclose int pidfd = -1;
    pid_t caller = getpid();
    struct proc_spec spec = { .argv = argv, .stdin_fd = -1, .new_session = true,
                              .prepare = die_with_caller, .prepare_arg = &caller };
    int status = 0, r;
    pid_t pid;

    if (sink_open(&out, &out_w, e) < 0 || sink_open(&err_sink, &err_w, e) < 0)
        return -1;
    spec.stdout_fd = out_w;
    spec.stderr_fd = err_w;
    if (proc_spawn(&spec, &pid, &pidfd, e) < 0)
        return -1;
    fd_close(take_fd(&out_w));
    fd_close(take_fd(&err_w));

    r = serve(pidfd, &out, &err_sink, deadline, e);
    if (r <= 0)
        kill(-pid, SIGKILL);    /* its session, children of its own too */
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(e, ERR_INTERNAL, errno, "cannot wait for %s", argv[0]);
    if (r == 0)
        return err_set(e, ERR_TIMEOUT, "%s did not end in time", argv[0]);
    if (r < 0)
        return -1;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return status_error(argv[0], status, &err_sink, e);
    return ret_out ? sbuf_take(&out.head, ret_out, e) : 0;
}
