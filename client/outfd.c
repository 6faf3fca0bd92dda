/* SPDX-License-Identifier: MIT */
#include "client/outfd.h"
#include "common/auto.h"
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>

void outfd_init(struct outfd *o, int fd)
{
    struct stat st;
    char path[32];

    *o = (struct outfd){ .fd = fd, .most = SIZE_MAX };
    if (fstat(fd, &st) < 0 || S_ISREG(st.st_mode))
        return;
    if (S_ISSOCK(st.st_mode)) {
        o->socket = true;
        return;
    }
    if (S_ISFIFO(st.st_mode) || isatty(fd)) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0) {
            o->fd = own;
            o->owned = true;
            return;
        }
    }
    o->most = PIPE_BUF;     /* room for this much is what POLLOUT promises */
}

void outfd_done(struct outfd *o)
{
    if (o->owned)
        fd_close(o->fd);
    o->fd = -1;
    o->owned = false;
}

ssize_t outfd_write(const struct outfd *o, const void *data, size_t len)
{
    struct pollfd p = { .fd = o->fd, .events = POLLOUT };
    ssize_t r = -1;

    if (len > o->most) {
        len = o->most;
    }
    if (o->most == PIPE_BUF && poll(&p, 1, 0) == 0)
        return 0;
    do
        r = o->socket ? send(o->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : write(o->fd, data, len);
    while (r < 0 && errno == EINTR);
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    return r;
}
