/* SPDX-License-Identifier: MIT
 *
 * The agent has one thread, so the child may do all that the agent may, memory included. What can
 * fail for want of something is prepared before the fork; the child arranges descriptors, enters
 * its cgroup while it still may, changes its identity, and looks for the program as the user it
 * has become: a program that only root can see is not found for others.
 */
#include "guest/spawn.h"
#include "common/auto.h"
#include "guest/group.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4u
#endif
#define FILES_SOFT 1024
#define FILES_HARD 524288
#define TTY_GROUP 5

struct child_fds {              /* the child's ends; with a terminal all three are the same */
    int fd[3];
    int report;
};

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fd_close(fds[i]);
}

static void spawned_drop(struct spawned *s)
{
    int fds[] = { s->in_fd, s->out_fd, s->err_fd, s->report_fd };

    close_all(fds, ARRAY_SIZE(fds));
}

/* In the child from here on; each step: errno or 0. */

static int set_limits(void)
{
    struct rlimit files = { FILES_SOFT, FILES_HARD }, core = { 0, RLIM_INFINITY }, now;
    struct sigaction dfl = { .sa_handler = SIG_DFL };
    sigset_t none;

    if (getrlimit(RLIMIT_NOFILE, &now) == 0) {  /* raising it takes privileges we may not have */
        if (now.rlim_max < files.rlim_max && geteuid() != 0)
            files.rlim_max = now.rlim_max;
        if (files.rlim_cur > files.rlim_max)
            files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    if (getrlimit(RLIMIT_CORE, &now) == 0 && now.rlim_max != RLIM_INFINITY)
        core.rlim_max = now.rlim_max;
    (void)setrlimit(RLIMIT_CORE, &core);
    autoclose int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (oom >= 0)
        (void)!write(oom, "0", 1);
    umask(022);
    for (int s = 1; s < NSIG; s++)
        sigaction(s, &dfl, NULL);       /* fails for those that cannot be caught anyway */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return 0;
}

static int arrange_fds(struct child_fds *c, bool tty)
{
    /* out of the way of 0, 1 and 2 first, then each to its place */
    for (int i = 0; i < 3; i++) {
        c->fd[i] = fcntl(c->fd[i], F_DUPFD_CLOEXEC, 3);
        if (c->fd[i] < 0)
            return errno;
    }
    if (c->report < 3 && (c->report = fcntl(c->report, F_DUPFD_CLOEXEC, 3)) < 0)
        return errno;
    if (tty && ioctl(c->fd[0], TIOCSCTTY, 0) < 0)
        return errno;
    for (int i = 0; i < 3; i++)
        if (dup2(c->fd[i], i) < 0)
            return errno;
    /* all of ours are close-on-exec from birth; this is for those we were born with */
    (void)syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
    return 0;
}

static int become(const struct user *u)
{
    if (setgroups(u->n_groups, u->groups) < 0 || setresgid(u->gid, u->gid, u->gid) < 0 ||
        setresuid(u->uid, u->uid, u->uid) < 0)
        return errno;
    return 0;
}

static int change_dir(const struct spawn_spec *spec)
{
    if (spec->workdir[0] != '\0')
        return chdir(spec->workdir) < 0 ? errno : 0;
    for (size_t i = 0; i < ARRAY_SIZE(spec->fallbacks) && spec->fallbacks[i]; i++)
        if (chdir(spec->fallbacks[i]) == 0)
            return 0;
    return chdir("/") < 0 ? errno : 0;
}

/* Returns on failure only, with the errno that says most: one that is there and cannot be run
 * is better news than one that is not there. */
static int become_program(const struct spawn_spec *spec)
{
    const char *name = spec->argv[0], *path = strv_env_get(spec->env, "PATH");
    static char *const no_env[] = { NULL };
    char *const *env = spec->env->items ? spec->env->items : no_env;
    int best = ENOENT;

    if (strchr(name, '/')) {
        execve(name, spec->argv, env);
        return errno;
    }
    for (const char *p = path ? path : ""; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL) {
        autofree char *file = NULL;
        int n = (int)strcspn(p, ":");

        if (asprintf(&file, "%.*s%s%s", n, p, n > 0 ? "/" : "", name) < 0) {
            file = NULL;
            return ENOMEM;
        }
        execve(file, spec->argv, env);
        if (errno != ENOENT && errno != ENOTDIR) {
            if (errno != EACCES)
                return errno;
            best = EACCES;
        }
    }
    return best;
}

static enum exec_fail kind_of(int sys)
{
    switch (sys) {
    case ENOENT:
    case ENOTDIR:
        return EXEC_FAIL_NOT_FOUND;
    case ENOMEM:
    case EAGAIN:
    case EMFILE:
    case ENFILE:
        return EXEC_FAIL_RESOURCE;
    default:
        return EXEC_FAIL_NOT_EXEC;
    }
}

static _Noreturn void run_child(const struct spawn_spec *spec, struct child_fds *c)
{
    struct spawn_report r = { EXEC_FAIL_RESOURCE, 0 };

    setsid();
    r.sys = group_enter(spec->group_fd);
    if (r.sys == 0)
        r.sys = arrange_fds(c, spec->tty);
    if (r.sys == 0)
        r.sys = set_limits();
    if (r.sys == 0 && spec->become_user && (r.sys = become(spec->user)) != 0)
        r.kind = EXEC_FAIL_USER;
    if (r.sys == 0 && (r.sys = change_dir(spec)) != 0)
        r.kind = EXEC_FAIL_WORKDIR;
    if (r.sys == 0) {
        r.sys = become_program(spec);
        r.kind = kind_of(r.sys);
    }
    while (write(c->report, &r, sizeof(r)) < 0 && errno == EINTR)
        ;
    _exit(127);
}

/* The agent again. */

static int failed(struct err *e, const char *what)
{
    return err_sys(e, ERR_INTERNAL, errno, "cannot make %s", what);
}

static int open_terminal(const struct spawn_spec *spec, struct spawned *s, struct child_fds *c,
                         struct err *e)
{
    struct winsize size = { .ws_row = spec->rows ? spec->rows : 24,
                            .ws_col = spec->cols ? spec->cols : 80 };
    struct termios t;
    int slave;

    s->out_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (s->out_fd < 0 || unlockpt(s->out_fd) < 0)
        return failed(e, "a terminal");
    s->in_fd = fcntl(s->out_fd, F_DUPFD_CLOEXEC, 3);
    /* by the master and not by name: /dev/pts may be another one, or none */
    slave = ioctl(s->out_fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return failed(e, "a terminal");
    c->fd[0] = c->fd[1] = c->fd[2] = slave;
    if (s->in_fd < 0 || ioctl(slave, TIOCSWINSZ, &size) < 0)
        return failed(e, "a terminal");
    if (tcgetattr(slave, &t) == 0) {
        t.c_iflag |= IUTF8;
        (void)tcsetattr(slave, TCSANOW, &t);
    }
    if (spec->become_user && (fchown(slave, spec->user->uid, TTY_GROUP) < 0 ||
                              fchmod(slave, 0620) < 0))
        return failed(e, "a terminal");
    return 0;
}

static int non_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* One end for us (`ours` is its place in the pair) and one for the child. */
static int open_pipe(int *ret_ours, int *ret_child, int ours, struct err *e)
{
    int p[2];

    if (pipe2(p, O_CLOEXEC) < 0)
        return failed(e, "a pipe");
    *ret_ours = p[ours];
    *ret_child = p[1 - ours];
    return non_blocking(p[ours]) < 0 ? failed(e, "a pipe") : 0;
}

static int open_pipes(const struct spawn_spec *spec, struct spawned *s, struct child_fds *c,
                      struct err *e)
{
    if (spec->stdin_open) {
        if (open_pipe(&s->in_fd, &c->fd[0], 1, e) < 0)
            return -1;
    } else {
        c->fd[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (c->fd[0] < 0)
            return failed(e, "/dev/null");
    }
    if (open_pipe(&s->out_fd, &c->fd[1], 0, e) < 0 || open_pipe(&s->err_fd, &c->fd[2], 0, e) < 0)
        return -1;
    return 0;
}

int spawn(const struct spawn_spec *spec, struct spawned *ret, struct err *e)
{
    struct spawned s = { .in_fd = -1, .out_fd = -1, .err_fd = -1, .report_fd = -1 };
    struct child_fds c = { .fd = { -1, -1, -1 }, .report = -1 };
    int rc = spec->tty ? open_terminal(spec, &s, &c, e) : open_pipes(spec, &s, &c, e);

    if (rc == 0)
        rc = open_pipe(&s.report_fd, &c.report, 0, e);
    if (rc == 0) {
        s.pid = fork();
        if (s.pid == 0)
            run_child(spec, &c);
        if (s.pid < 0)
            rc = err_sys(e, ERR_INTERNAL, errno, "cannot make a process");
    }
    close_all(c.fd, spec->tty ? 1 : 3);
    fd_close(c.report);
    if (rc < 0)
        spawned_drop(&s);
    else
        *ret = s;
    return rc;
}
