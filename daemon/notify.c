/* SPDX-License-Identifier: MIT */
#include "daemon/notify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>

int notify_listen_fds(struct notify_fds *ret, struct err *e)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(0, &names), twice = 0;

    *ret = (struct notify_fds){ .socket = -1, .readonly = -1 };
    if (n < 0)
        return err_sys(e, ERR_INVALID, -n, "sockets passed by the service manager");
    ret->n = n;
    for (int i = 0; i < n; i++) {
        bool readonly = names && strcmp(names[i], NOTIFY_READONLY) == 0;
        int *fd = readonly ? &ret->readonly : &ret->socket;
        twice |= *fd >= 0;
        *fd = SD_LISTEN_FDS_START + i;
    }
    for (int i = 0; names && i < n; i++)
        free(names[i]);
    free(names);
    return twice ? err_set(e, ERR_INVALID, "%d sockets were passed: one is expected, and one that "
                                           "is named " NOTIFY_READONLY " at most", n)
                 : 0;
}

static void note(const char *text)
{
    (void)sd_notify(0, text);
}
#else
int notify_listen_fds(struct notify_fds *ret, struct err *e)
{
    *ret = (struct notify_fds){ .socket = -1, .readonly = -1 };
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
