/* SPDX-License-Identifier: MIT */
#include "daemon/notify.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>

int notify_listen_fds(struct err *e)
{
    int n = sd_listen_fds(0);
    return n < 0 ? err_sys(e, ERR_INVALID, -n, "sockets passed by the service manager") : n;
}

static void note(const char *text)
{
    (void)sd_notify(0, text);
}
#else
int notify_listen_fds(struct err *e)
{
    return 0;
}

static void note(const char *text)
{
}
#endif

bool notify_is_listener(int fd)
{
    int type = 0, listening = 0, domain = 0;
    socklen_t len = sizeof(int);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening;
}

void notify_ready(void)
{
    note("READY=1");
}

void notify_stopping(void)
{
    note("STOPPING=1");
}

void notify_status(const char *text)
{
    char line[256];

    snprintf(line, sizeof(line), "STATUS=%s", text);
    note(line);
}

void notify_extend(unsigned seconds)
{
    char line[64];

    snprintf(line, sizeof(line), "EXTEND_TIMEOUT_USEC=%llu", seconds * 1000000ULL);
    note(line);
}
