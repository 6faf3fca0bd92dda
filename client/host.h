/* SPDX-License-Identifier: MIT
 *
 * host: where the daemon is and how to get there. unix:///PATH is a socket on this machine,
 * ssh://[USER@]HOST[:PORT][/PATH] runs `sbx system dial-stdio` over there and talks through it.
 * Both give a connected stream socket; nothing above this file knows the difference.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

enum host_kind { HOST_UNIX, HOST_SSH };

struct host {
    enum host_kind kind;
    char *url;          /* owned, as given: for messages */
    char *path;         /* owned: socket; NULL for ssh without one */
    char *user;         /* owned, ssh: NULL none */
    char *name;         /* owned, ssh */
    uint32_t port;      /* ssh: 0 none */
};

/* `given` is the value of --host or NULL; then SBX_HOST, SBX_SOCKET and the default count. */
int host_init(struct host *h, const char *given, struct err *e);
int host_parse(const char *text, struct host *ret, struct err *e);
void host_done(struct host *h);

/* A connected stream socket, close-on-exec, blocking. ERR_UNREACHABLE with what to do about it. */
int host_connect(const struct host *h, int *ret_fd, struct err *e);
/* The same for libcurl, which insists on connecting by itself (its way of being given a connection
 * does not work in 7.88): prepare says where to, and for ssh that is a socket of our own, whose
 * other end goes to ssh when the connection is there. */
struct host_dial {
    struct sockaddr_un address;
    socklen_t len;
    int hold;           /* owned: directory of a long path, or the socket that listens; -1 none */
    bool pending;       /* host_dial_accept() is to be called when `hold` is readable */
};
int host_dial_prepare(const struct host *h, struct host_dial *d, struct err *e);
int host_dial_accept(const struct host *h, struct host_dial *d, struct err *e);
void host_dial_done(struct host_dial *d);

/* After a connection broke: for ssh, why ssh ended, put in front of the error. */
void host_explain(const struct host *h, struct err *e);
