/* SPDX-License-Identifier: MIT
 *
 * notify: readiness and sockets passed by a service manager. Without libsystemd, or when nobody
 * listens, notes go nowhere and no socket is found.
 */
#pragma once

#include "common/err.h"

/* The number of descriptors passed to this process, from 3 on, 0 for none. Close-on-exec is set on
 * them. */
int notify_listen_fds(struct err *e);
/* True when fd is a listening Unix stream socket. */
bool notify_is_listener(int fd);

void notify_ready(void);
void notify_stopping(void);
void notify_status(const char *text);
void notify_extend(unsigned seconds);   /* start or stop may take that much longer from now */
