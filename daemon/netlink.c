/* SPDX-License-Identifier: MIT */
#include "daemon/netlink.h"

#include "common/auto.h"
#include "common/sbuf.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define ANSWER_SECONDS 5
#define DUMP_BUFFER 65536

static _Atomic uint32_t sequence = 1;

uint32_t netlink_sequence(uint32_t how_many)
{
    return atomic_fetch_add(&sequence, how_many) + how_many;
}

int netlink_open(int protocol, unsigned groups, struct mnl_socket **ret, struct err *e)
{
    struct timeval limit = { .tv_sec = ANSWER_SECONDS };
    struct mnl_socket *s = mnl_socket_open2(protocol, SOCK_CLOEXEC);

    if (!s)
        return err_sys(e, ERR_NETWORK, errno, "cannot open a netlink socket (%d)", protocol);
    if (mnl_socket_bind(s, groups, MNL_SOCKET_AUTOPID) < 0 ||
        setsockopt(mnl_socket_get_fd(s), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0) {
        err_sys(e, ERR_NETWORK, errno, "cannot bind a netlink socket (%d)", protocol);
        mnl_socket_close(s);
        return -1;
    }
    *ret = s;
    return 0;
}

void netlink_close(struct mnl_socket *s)
{
    if (s)
        mnl_socket_close(s);
}

struct nlmsghdr *netlink_message(void *buf, uint16_t type, uint16_t flags, size_t extra,
                                 void **ret_extra)
{
    struct nlmsghdr *h = mnl_nlmsg_put_header(buf);

    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | flags;
    h->nlmsg_seq = ++sequence;
    *ret_extra = mnl_nlmsg_put_extra_header(h, extra);
    return h;
}

static int receive(struct mnl_socket *s, unsigned seq, mnl_cb_t fn, void *arg)
{
    autofree char *buf = malloc(DUMP_BUFFER);
    int r = MNL_CB_OK;

    if (!buf) {
        errno = ENOMEM;
        return -1;
    }
    while (r > MNL_CB_STOP) {
        ssize_t n = mnl_socket_recvfrom(s, buf, DUMP_BUFFER);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        r = mnl_cb_run(buf, (size_t)n, seq, mnl_socket_get_portid(s), fn, arg);
    }
    return r;
}

int netlink_do(struct mnl_socket *s, struct nlmsghdr *message, struct err *e, const char *what, ...)
{
    message->nlmsg_flags |= NLM_F_ACK;
    if (mnl_socket_sendto(s, message, message->nlmsg_len) >= 0 &&
        receive(s, message->nlmsg_seq, NULL, NULL) >= 0)
        return 0;
    int sys = errno;
    autosbuf struct sbuf text = SBUF(200);
    va_list ap;
    va_start(ap, what);
    sbuf_vfmt(&text, what, ap);
    va_end(ap);
    return err_sys(e, ERR_NETWORK, sys, "cannot %s", sbuf_str(&text));
}

int netlink_get(struct mnl_socket *s, struct nlmsghdr *message, mnl_cb_t fn, void *arg,
                struct err *e)
{
    message->nlmsg_flags |= NLM_F_ACK;      /* which ends it */
    if (mnl_socket_sendto(s, message, message->nlmsg_len) >= 0 &&
        receive(s, message->nlmsg_seq, fn, arg) >= 0)
        return 0;
    return err_sys(e, ERR_NETWORK, errno, "cannot ask the kernel");
}

int netlink_dump(struct mnl_socket *s, struct nlmsghdr *message, mnl_cb_t fn, void *arg,
                 struct err *e)
{
    message->nlmsg_flags |= NLM_F_DUMP;
    if (mnl_socket_sendto(s, message, message->nlmsg_len) >= 0 &&
        receive(s, message->nlmsg_seq, fn, arg) >= 0)
        return 0;
    return err_sys(e, ERR_NETWORK, errno, "cannot list what the kernel has");
}
