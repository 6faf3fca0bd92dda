/* SPDX-License-Identifier: MIT */
#include "guest/boot.h"
#include "common/auto.h"
#include "common/io.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>

/* A device may be complete a moment after its event was sent (its name, its node): so look again
 * now and then even if nothing is said. */
#define LOOK_AGAIN_MS 100

int uevent_wait(bool (*there)(void *arg), void *arg, int64_t deadline, struct err *e)
{
    struct sockaddr_nl sa = { .nl_family = AF_NETLINK, .nl_groups = 1 };
    autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                              NETLINK_KOBJECT_UEVENT);

    if (there(arg))
        return 1;
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot listen to the kernel's events");
    /* from here on nothing is missed */
    while (!there(arg)) {
        int64_t again = deadline_in(LOOK_AGAIN_MS);
        char event[4096];

        if (deadline_left(deadline) == 0)
            return 0;
        if (io_wait(fd, POLLIN, again < deadline ? again : deadline, e) < 0)
            return -1;
        while (recv(fd, event, sizeof(event), 0) > 0)
            ;
    }
    return 1;
}
