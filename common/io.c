/* SPDX-License-Identifier: MIT */
#include "common/io.h"
#include "common/auto.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_us(clockid_t id)
{
    struct timespec ts = { 0 };

    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t now_mono_ms(void)
{
    return clock_us(CLOCK_MONOTONIC) / 1000;
}

int64_t now_mono_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

int64_t now_real_us(void)
{
    return clock_us(CLOCK_REALTIME);
}

int64_t deadline_in(int64_t ms)
{
    int64_t at;

    return __builtin_add_overflow(now_mono_ms(), ms, &at) ? DEADLINE_NONE : at;
}

int deadline_left(int64_t deadline)
{
    int64_t left;

    if (deadline == DEADLINE_NONE)
        return -1;
    if (__builtin_sub_overflow(deadline, now_mono_ms(), &left))
        return 0;   /* far in the past */
    if (left <= 0)
        return 0;
    return left > INT_MAX ? INT_MAX : (int)left;
}

int io_wait(int fd, short events, int64_t deadline, struct err *e)
{
    struct pollfd p = { .fd = fd, .events = events };

    for (;;) {
        int n = poll(&p, 1, deadline_left(deadline));

        if (n > 0 && p.revents & POLLNVAL)
            return err_sys(e, ERR_INTERNAL, EBADF, "cannot wait for fd %d", fd);
        if (n > 0)
            return 1;
        if (n == 0 && deadline_left(deadline) == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_sys(e, ERR_INTERNAL, errno, "cannot wait for fd %d", fd);
    }
}

/* Before a transfer that may block: 0 go on, -1 error or deadline. */
static int wait_turn(int fd, short events, int64_t deadline, struct err *e)
{
    int r = io_wait(fd, events, deadline, e);

    if (r == 0)
        return err_set(e, ERR_TIMEOUT, "no %s within the time allowed",
                       events & POLLIN ? "data came" : "data was taken");
    return r < 0 ? -1 : 0;
}

int io_read_full(int fd, void *buf, size_t n, int64_t deadline, struct err *e)
{
    char *p = buf;

    while (n > 0) {
        ssize_t got;

        if (deadline != DEADLINE_NONE && wait_turn(fd, POLLIN, deadline, e) < 0)
            return -1;
        got = read(fd, p, n);
        if (got == 0)
            return err_set(e, ERR_UNAVAILABLE, "the other side closed the connection");
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        } else if (errno == EAGAIN) {
            if (wait_turn(fd, POLLIN, deadline, e) < 0)
                return -1;
        } else if (errno == ECONNRESET) {
            return err_sys(e, ERR_UNAVAILABLE, errno, "cannot read");
        } else if (errno != EINTR) {
            return err_sys(e, ERR_INTERNAL, errno, "cannot read");
        }
    }
    return 0;
}

int io_write_full(int fd, const void *buf, size_t n, int64_t deadline, struct err *e)
{
    const char *p = buf;

    while (n > 0) {
        ssize_t put;

        if (deadline != DEADLINE_NONE && wait_turn(fd, POLLOUT, deadline, e) < 0)
            return -1;
        put = write(fd, p, n);
        if (put >= 0) {
            p += put;
            n -= (size_t)put;
        } else if (errno == EAGAIN) {
            if (wait_turn(fd, POLLOUT, deadline, e) < 0)
                return -1;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return err_sys(e, ERR_UNAVAILABLE, errno, "cannot write");
        } else if (errno != EINTR) {
            return err_sys(e, ERR_INTERNAL, errno, "cannot write");
        }
    }
    return 0;
}

int io_read_file_at(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len,
                    struct err *e)
{
    /* O_NONBLOCK: a fifo put where a file should be must not hold us up */
    autoclose int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    autofree char *data = NULL;
    size_t cap = 0, len = 0;
    struct stat st;

    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", path);
    if (fstat(fd, &st) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot look at %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INTERNAL, "%s is not a regular file", path);

    /* st_size is a guess: files in /proc have none, others may grow while they are read */
    cap = st.st_size > 0 && (uint64_t)st.st_size < max ? (size_t)st.st_size + 2 : 4096;
    for (;;) {
        ssize_t got;

        if (!data || len + 1 >= cap) {
            char *grown;

            if (data)
                cap *= 2;
            grown = realloc(data, cap);
            if (!grown)
                return err_nomem(e);
            data = grown;
        }
        got = read(fd, data + len, cap - len - 1);
        if (got == 0)
            break;
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return err_sys(e, ERR_INTERNAL, errno, "cannot read %s", path);
        }
        len += (size_t)got;
        if (len > max)
            return err_set(e, ERR_TOO_LARGE, "%s is longer than %zu bytes", path, max);
    }
    data[len] = '\0';
    if (ret_len)
        *ret_len = len;
    *ret = take_ptr(data);
    return 0;
}

/* Makes a rename in the directory of `path` last over a crash. */
static int sync_parent(int dirfd, const char *path, struct err *e)
{
    autofree char *dir = strdup(path);
    autoclose int fd = -1;
    char *slash;

    if (!dir)
        return err_nomem(e);
    slash = strrchr(dir, '/');
    if (slash == dir)
        slash[1] = '\0';
    else if (slash)
        *slash = '\0';
    fd = openat(dirfd, slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot sync the directory of %s", path);
    return 0;
}

static int write_temporary(int dirfd, const char *tmp, const void *data, size_t len, mode_t mode,
                           struct err *e)
{
    autoclose int fd =
        openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot create %s", tmp);
    if (io_write_full(fd, data, len, DEADLINE_NONE, e) < 0)
        return err_wrap(e, "%s", tmp);
    if (fchmod(fd, mode) < 0 || fsync(fd) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot finish %s", tmp);
    return 0;
}

int io_write_file_at(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                     struct err *e)
{
    autofree char *tmp = NULL;

    if (asprintf(&tmp, "%s.tmp", path) < 0) {
        tmp = NULL;
        return err_nomem(e);
    }
    if (unlinkat(dirfd, tmp, 0) < 0 && errno != ENOENT)     /* of a writer that died */
        return err_sys(e, ERR_INTERNAL, errno, "cannot remove %s", tmp);
    if (write_temporary(dirfd, tmp, data, len, mode, e) < 0) {
        unlinkat(dirfd, tmp, 0);
        return -1;
    }
    if (renameat(dirfd, tmp, dirfd, path) < 0) {
        err_sys(e, ERR_INTERNAL, errno, "cannot rename %s", tmp);
        unlinkat(dirfd, tmp, 0);
        return -1;
    }
    return sync_parent(dirfd, path, e);
}

int fd_set_nonblock(int fd, bool on, struct err *e)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot change the flags of fd %d", fd);
    return 0;
}

int io_mkdir(const char *path, mode_t mode, struct err *e)
{
    struct stat st;

    if (mkdir(path, mode) == 0) {
        /* the umask has no say in who may enter */
        autoclose int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0 || fchmod(fd, mode) < 0) {
            err_sys(e, ERR_INTERNAL, errno, "cannot set the mode of %s", path);
            rmdir(path);    /* else the next one takes it as it is */
            return -1;
        }
        return 0;
    }
    if (errno != EEXIST)
        return err_sys(e, ERR_INTERNAL, errno, "cannot create the directory %s", path);
    if (stat(path, &st) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot look at %s", path);
    if (!S_ISDIR(st.st_mode))
        return err_sys(e, ERR_INTERNAL, ENOTDIR, "%s is in the way", path);
    return 0;
}

int io_mkdir_parents(const char *path, mode_t mode, struct err *e)
{
    autofree char *copy = strdup(path);

    if (!copy)
        return err_nomem(e);
    for (char *p = copy + 1; *copy && *p; p++)
        if (*p == '/' && p[-1] != '/') {
            *p = '\0';
            if (io_mkdir(copy, mode, e) < 0)
                return -1;
            *p = '/';
        }
    return io_mkdir(path, mode, e);
}

/*
 * Removing a tree needs no more than three descriptors and no recursion, however deep it is: the
 * directories found in a child of the top are moved up to the top, so that nothing lies deeper than
 * two levels. Each directory is moved at most once per level and removed once.
 */
struct tree {
    int top;
    uint64_t mount;         /* id of the mount all must lie on */
    bool mount_known;
    unsigned long moved;    /* names the next directory that comes up */
    const char *name;       /* for messages */
};

static void mount_of(int fd, uint64_t *ret, bool *ret_known)
{
    struct statx sx;

    *ret_known = false;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &sx) == 0 && sx.stx_mask & STATX_MNT_ID) {
        *ret = sx.stx_mnt_id;
        *ret_known = true;
    }
}

static bool dot_entry(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Opens a second descriptor for reading names; fdopendir() would own the first. */
static DIR *open_names(int fd)
{
    autoclose int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = again < 0 ? NULL : fdopendir(again);

    if (d)
        take_fd(&again);
    return d;
}

static void close_names(DIR **d)
{
    if (*d)
        closedir(*d);
}
#define autonames __attribute__((cleanup(close_names)))

/* Removes a name that is not a directory, or is an empty one. 1: a directory with content. */
static int remove_simple(const struct tree *t, int dir, const char *name, struct err *e)
{
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return err_sys(e, ERR_INTERNAL, errno, "cannot remove %s below %s", name, t->name);
    if (unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    if (errno == ENOTEMPTY || errno == EEXIST)
        return 1;
    return err_sys(e, ERR_INTERNAL, errno, "cannot remove %s below %s", name, t->name);
}

static int move_up(struct tree *t, int dir, const char *name, struct err *e)
{
    for (;;) {
        char up[32];

        snprintf(up, sizeof(up), ".gone-%lu", t->moved++);
        if (renameat(dir, name, t->top, up) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR)
            return err_sys(e, ERR_INTERNAL, errno, "cannot remove %s below %s", name, t->name);
    }
}

/* Empties one child of the top, with its own directories moved up, and removes it. */
static int remove_child(struct tree *t, const char *name, struct err *e)
{
    autoclose int dir = openat(t->top, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    autonames DIR *names = NULL;
    struct dirent *entry;
    uint64_t mount = 0;
    bool known;

    if (dir < 0 && errno == ENOENT)
        return 0;
    if (dir < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s below %s", name, t->name);
    mount_of(dir, &mount, &known);
    if (known && t->mount_known && mount != t->mount)
        return err_sys(e, ERR_INTERNAL, EBUSY, "%s below %s is a mount point", name, t->name);
    names = open_names(dir);
    if (!names)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read %s below %s", name, t->name);

    while (errno = 0, entry = readdir(names)) {
        int r;

        if (dot_entry(entry->d_name))
            continue;
        r = remove_simple(t, dir, entry->d_name, e);
        if (r < 0 || (r > 0 && move_up(t, dir, entry->d_name, e) < 0))
            return -1;
    }
    if (errno)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read %s below %s", name, t->name);
    return remove_simple(t, t->top, name, e) < 0 ? -1 : 0;
}

/* One pass over the top; *ret_left says whether there was anything. */
static int remove_pass(struct tree *t, bool *ret_left, struct err *e)
{
    autonames DIR *names = open_names(t->top);
    struct dirent *entry;

    *ret_left = false;
    if (!names)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read %s", t->name);
    while (errno = 0, entry = readdir(names)) {
        int r;

        if (dot_entry(entry->d_name))
            continue;
        *ret_left = true;
        r = remove_simple(t, t->top, entry->d_name, e);
        if (r < 0 || (r > 0 && remove_child(t, entry->d_name, e) < 0))
            return -1;
    }
    return errno ? err_sys(e, ERR_INTERNAL, errno, "cannot read %s", t->name) : 0;
}

int io_remove_tree(int dirfd, const char *name, struct err *e)
{
    autoclose int top = -1;
    struct tree t = { .name = name };
    bool left = true;
    int r = remove_simple(&t, dirfd, name, e);

    if (r <= 0)
        return r;
    top = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0)
        return errno == ENOENT ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot open %s", name);
    t.top = top;
    mount_of(top, &t.mount, &t.mount_known);
    while (left)
        if (remove_pass(&t, &left, e) < 0)
            return -1;
    if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_sys(e, ERR_INTERNAL, errno, "cannot remove %s", name);
    return 0;
}

union fd_control {
    char buf[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

int io_send_fd(int sock, int fd, struct err *e)
{
    union fd_control control = { 0 };
    char byte = 0;
    struct iovec iov = { &byte, 1 };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
                        .msg_controllen = sizeof(control.buf) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    while (sendmsg(sock, &m, MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return err_sys(e, ERR_INTERNAL, errno, "cannot pass a descriptor");
    return 0;
}

int io_recv_fd(int sock, int64_t deadline, int *ret_fd, struct err *e)
{
    union fd_control control = { 0 };
    char byte;
    struct iovec iov = { &byte, 1 };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
                        .msg_controllen = sizeof(control.buf) };
    struct cmsghdr *c;
    size_t count = 0;
    ssize_t n;
    int fd;

    do {
        if (wait_turn(sock, POLLIN, deadline, e) < 0)
            return -1;
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (n < 0 && (errno == EINTR || errno == EAGAIN));
    if (n < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot receive a descriptor");
    if (n == 0)
        return err_set(e, ERR_UNAVAILABLE, "the other side closed the connection");

    c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    if (count != 1 || m.msg_flags & MSG_CTRUNC) {
        /* because of its alignment the buffer holds more than one, and those are ours now */
        for (size_t i = 0; i < count; i++) {
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            fd_close(fd);
        }
        return err_set(e, ERR_UNAVAILABLE, "the message carried no descriptor, or too many");
    }
    memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
    return 0;
}
