/* SPDX-License-Identifier: MIT
 *
 * outfd: stdout and stderr written without ever blocking and without changing their flags, which
 * belong to everyone who shares the open file. Pipes and terminals are opened anew for us alone,
 * sockets are sent to with MSG_DONTWAIT, files just written.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct outfd {
    int fd;         /* written to */
    bool owned;     /* fd is ours to close */
    bool socket;
    size_t most;    /* bytes at once; less where a larger write could block */
};

void outfd_init(struct outfd *o, int fd);
void outfd_done(struct outfd *o);
/* Bytes written; 0: wait for POLLOUT; -1: errno is EPIPE or another failure. */
ssize_t outfd_write(const struct outfd *o, const void *data, size_t len);
