/* SPDX-License-Identifier: MIT
 *
 * notify: readiness and sockets passed by a service manager. Without libsystemd, or when nobody
 * listens, notes go nowhere and no socket is found.
 */
#pragma once

#include "common/err.h"

/* Sockets passed to this process; -1: not that one. By the name that its unit gives
 * (FileDescriptorName=): NOTIFY_READONLY, or any other for the socket that serves all. One of each
 * at most, from descriptor 3 on: n of them. Close-on-exec is set. */
#define NOTIFY_READONLY "readonly"
struct notify_fds { int n, socket, readonly; };
int notify_listen_fds(struct notify_fds *ret, struct err *e);
/* True when fd is a listening Unix stream socket. */
bool notify_is_listener(int fd);

void notify_ready(void);
void notify_stopping(void);
void notify_status(const char *text);
void notify_extend(unsigned seconds);   /* start or stop may take that much longer from now */
