/* SPDX-License-Identifier: MIT
 *
 * Theory of operation. The daemon is root and must not look at a user's path with root's eyes: what
 * the user cannot reach must stay out of reach, and the path may change between a look and its use.
 * So a child takes on the caller's uid, gid and groups, without capabilities, opens the path once
 * and sends the descriptor back with what fstat and access said about that very descriptor. The
 * parent judges by the path the kernel gives for the descriptor, and never uses the user's again.
 *
 * Only the child touches the file system of the path: it may be a FUSE mount of the caller's whose
 * server never answers. The child is then killed at the deadline, and left alone if even that takes
 * long (such a request can be waited for without interruption); the daemon goes on.
 *
 * Magic links (/proc/PID/root, /proc/PID/cwd) are not followed: they lead into other mount
 * namespaces, for which neither our rules nor the mount we make later mean anything.
 */
#include "daemon/workspace.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/name.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum step { STEP_DONE, STEP_IDENTITY, STEP_OPEN, STEP_STAT, STEP_READ, STEP_WRITE, STEP_KIND };

/* What the child reports, in one record next to the descriptor. */
struct report {
    uint32_t step; /* where it ended */
    int32_t sys;   /* errno there */
    uint64_t dev, ino;
    uint32_t links;
};

/* ---- the child: only async-signal-safe calls, since the daemon has threads ---- */

static bool become(const struct identity *who)
{
    /* Raw calls: the C library's would try to change threads that do not exist in the child. */
    if (syscall(SYS_setgroups, who->n_groups, who->groups) < 0 ||
        syscall(SYS_setresgid, who->gid, who->gid, who->gid) < 0)
        return false;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_setresuid, who->uid, who->uid, who->uid) < 0)
        return false;
    if (who->uid != 0) {
        /* setresuid() took them already, unless the daemon was started with odd securebits. */
        struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[2] = { 0 };
        if (syscall(SYS_capset, &head, none) < 0)
            return false;
    }
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* File systems that are windows into the kernel and hold no files anybody could work on. */
static bool kernel_window(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return false;
    switch ((unsigned long)fs.f_type) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case BPF_FS_MAGIC:
    case DEVPTS_SUPER_MAGIC:
        return true;
    default:
        return false;
    }
}

static void child_look(const struct identity *who, const char *path, bool read_only,
                       struct report *r, int *ret_fd)
{
    r->step = STEP_IDENTITY;
    if (!become(who)) {
        r->sys = errno;
        return;
    }
    r->step = STEP_OPEN;
    struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
    if (fd < 0) {
        r->sys = errno;
        return;
    }
    r->step = STEP_STAT;
    struct stat st;
    if (fstat(fd, &st) < 0) {
        r->sys = errno;
        return;
    }
    r->dev = st.st_dev;
    r->ino = st.st_ino;
    r->links = (uint32_t)st.st_nlink;
    r->step = STEP_KIND;
    if (kernel_window(fd))
        return;
    r->step = STEP_READ;
    if (syscall(SYS_faccessat2, fd, "", R_OK | X_OK, AT_EACCESS | AT_EMPTY_PATH) < 0) {
        r->sys = errno;
        return;
    }
    r->step = STEP_WRITE;
    if (!read_only &&
        syscall(SYS_faccessat2, fd, "", R_OK | W_OK | X_OK, AT_EACCESS | AT_EMPTY_PATH) < 0) {
        r->sys = errno;
        return;
    }
    r->step = STEP_DONE;
    *ret_fd = fd;
}

/* One record, with the descriptor if there is one. */
static void child_send(int sock, const struct report *r, int fd)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec iov = { .iov_base = (void *)r, .iov_len = sizeof(*r) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (fd >= 0) {
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    while (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

/* ---- the parent ---- */

static int parent_receive(int sock, int64_t deadline, struct report *r, int *ret_fd, struct err *e)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec iov = { .iov_base = r, .iov_len = sizeof(*r) };
    struct msghdr msg = { .msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.space,
                          .msg_controllen = sizeof(control.space) };

    int ready = io_wait(sock, POLLIN, deadline, e);
    if (ready < 0)
        return -1;
    if (ready == 0) {
        err_set(e, ERR_TIMEOUT, "the workspace did not answer in time");
        return err_hint(e, "is it on a network or FUSE mount that hangs?");
    }
    ssize_t n;
    do
        n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(*r))
        return err_set(e, ERR_INTERNAL, "the workspace opener ended without a report");
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(sizeof(int)))
            memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
    return 0;
}

static void child_reap(pid_t pid)
{
    siginfo_t info;
    struct err ignored = ERR_INIT;
    autoclose int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

    kill(pid, SIGKILL);
    /* A child stuck in a request to a dead FUSE server cannot even be killed: do not wait for it.
     */
    if (pidfd < 0 || io_wait(pidfd, POLLIN, deadline_in(1000), &ignored) == 1)
        waitid(P_PID, (id_t)pid, &info, WEXITED);
}

static int ask_child(const struct identity *who, const char *path, bool read_only, struct report *r,
                     int *ret_fd, struct err *e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "socketpair");
    autoclose int ours = pair[0], theirs = pair[1];

    pid_t pid = fork();
    if (pid < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot fork the workspace opener");
    if (pid == 0) {
        int fd = -1;
        /* It may hang: nobody else's connection shall stay open because of that. */
        if (dup2(theirs, STDERR_FILENO + 1) < 0 ||
            syscall(SYS_close_range, STDERR_FILENO + 2, ~0U, 0) < 0)
            _exit(1);
        child_look(who, path, read_only, r, &fd);
        child_send(STDERR_FILENO + 1, r, fd);
        _exit(0);
    }
    fd_close(take_fd(&theirs));
    int rc = parent_receive(ours, deadline_in(DEADLINE_CHILD), r, ret_fd, e);
    child_reap(pid);
    return rc;
}

/* Turns where the child stopped into words. */
static int explain(const struct report *r, const char *path, struct err *e)
{
    switch ((enum step)r->step) {
    case STEP_DONE:
        return err_set(e, ERR_INTERNAL, "the workspace opener sent no descriptor");
    case STEP_OPEN:
        switch (r->sys) {
        case ENOENT:
            return err_set(e, ERR_WORKSPACE_INVALID, "workspace %s does not exist", path);
        case ENOTDIR:
            return err_set(e, ERR_WORKSPACE_INVALID, "workspace %s is not a directory", path);
        case ELOOP:
            return err_set(e, ERR_WORKSPACE_INVALID,
                           "workspace %s leads through a link that cannot be followed", path);
        case ENAMETOOLONG:
            return err_set(e, ERR_WORKSPACE_INVALID, "workspace path is too long");
        case EACCES:
        case EPERM:
            return err_set(e, ERR_WORKSPACE_DENIED, "you may not open workspace %s", path);
        default:
            return err_sys(e, ERR_WORKSPACE_INVALID, r->sys, "cannot open workspace %s", path);
        }
    case STEP_STAT:
        return err_sys(e, ERR_WORKSPACE_INVALID, r->sys, "cannot look at workspace %s", path);
    case STEP_KIND:
        return err_set(e, ERR_WORKSPACE_INVALID,
                       "workspace %s is on a file system of the kernel's own", path);
    case STEP_READ:
        return err_set(e, ERR_WORKSPACE_DENIED, "you may not read workspace %s", path);
    case STEP_WRITE:
        err_set(e, ERR_WORKSPACE_DENIED,
                r->sys == EROFS ? "workspace %s is on a read-only file system"
                                : "you may not write to workspace %s",
                path);
        return err_hint(e, "share it read-only: --workspace DIR:ro");
    case STEP_IDENTITY:
        break;
    }
    return err_sys(e, ERR_INTERNAL, r->sys, "cannot take on the caller's identity");
}

/* a is b or lies below it; both are absolute and have no slash at the end. */
static bool path_within(const char *a, const char *b)
{
    size_t n = strlen(b);
    return strncmp(a, b, n) == 0 && (a[n] == '\0' || a[n] == '/');
}

static int forbidden_check(const struct report *r, const char *path, const char *const *forbidden,
                           struct err *e)
{
    for (size_t i = 0; forbidden && forbidden[i]; i++) {
        autofree char *real = realpath(forbidden[i], NULL);
        const char *dir = real ? real : forbidden[i];
        struct stat st;
        bool same = stat(dir, &st) == 0 && st.st_dev == r->dev && st.st_ino == r->ino;

        if (same || path_within(path, dir) || path_within(dir, path)) {
            err_set(e, ERR_WORKSPACE_DENIED, "workspace %s %s the daemon's own files", path,
                    path_within(dir, path) && !same ? "contains" : "is part of");
            return err_hint(e, "share a directory that has nothing to do with %s", dir);
        }
    }
    return 0;
}

/* The path as the kernel knows it. Reads no directory and asks no file system. */
static int kernel_path(int fd, char **ret, struct err *e)
{
    char link[32];
    autofree char *path = malloc(PATH_MAX + 1);
    if (!path)
        return err_nomem(e);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX);
    if (n < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read the workspace's path");
    if (n > LIMIT_PATH)
        return err_set(e, ERR_WORKSPACE_INVALID, "workspace path is too long");
    path[n] = '\0';
    if (path[0] != '/')
        return err_set(e, ERR_WORKSPACE_INVALID, "the workspace is out of the daemon's reach");
    *ret = take_ptr(path);
    return 0;
}

int workspace_open(const struct identity *who, const char *path, bool read_only,
                   const char *const *forbidden, int *ret_fd, char **ret_path, struct err *e)
{
    if (path[0] != '/')
        return err_set(e, ERR_WORKSPACE_INVALID, "workspace path must be absolute: %s", path);
    if (strlen(path) > LIMIT_PATH)
        return err_set(e, ERR_WORKSPACE_INVALID, "workspace path is too long");

    struct report r = { 0 };
    autoclose int fd = -1;
    if (ask_child(who, path, read_only, &r, &fd, e) < 0)
        return -1;
    if (r.step != STEP_DONE || fd < 0)
        return explain(&r, path, e);

    autofree char *real = NULL;
    if (kernel_path(fd, &real, e) < 0)
        return -1;
    if (r.links == 0)
        return err_set(e, ERR_WORKSPACE_INVALID, "workspace %s has been removed", path);
    if (!utf8_valid(real, strlen(real)))
        return err_set(e, ERR_WORKSPACE_INVALID, "the workspace's path is not UTF-8: %s", real);
    struct stat root;
    if (strcmp(real, "/") == 0 ||
        (stat("/", &root) == 0 && root.st_dev == r.dev && root.st_ino == r.ino)) {
        err_set(e, ERR_WORKSPACE_INVALID, "the root directory cannot be a workspace");
        return err_hint(e, "share the directory of one project");
    }
    if (forbidden_check(&r, real, forbidden, e) < 0)
        return -1;

    *ret_fd = take_fd(&fd);
    *ret_path = take_ptr(real);
    return 0;
}
