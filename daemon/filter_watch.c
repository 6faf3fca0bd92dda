/* SPDX-License-Identifier: MIT */
#include "daemon/filter_watch.h"

#include "common/auto.h"
#include "daemon/netlink.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BUFFER (4 << 20)        /* some hundred sandboxes anew */

struct filter_watch {
    struct filter *filter;      /* borrowed */
    struct mnl_socket *s;       /* owned */
    bool others;
    _Alignas(struct nlmsghdr) char buf[64 * 1024];
};

int filter_watch_open(struct filter *f, struct filter_watch **ret, struct err *e)
{
    struct filter_watch *w = calloc(1, sizeof(*w));
    int size = BUFFER;

    if (!w)
        return err_nomem(e);
    w->filter = f;
    if (netlink_open(NETLINK_NETFILTER, 1u << (NFNLGRP_NFTABLES - 1), &w->s, e) < 0) {
        free(w);
        return -1;
    }
    setsockopt(mnl_socket_get_fd(w->s), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    *ret = w;
    return 0;
}

void filter_watch_close(struct filter_watch *w)
{
    if (!w)
        return;
    netlink_close(w->s);
    free(w);
}

int filter_watch_fd(const struct filter_watch *w)
{
    return mnl_socket_get_fd(w->s);
}

static int on_change(const struct nlmsghdr *h, void *arg)
{
    struct filter_watch *w = arg;
    const struct nlattr *a;

    if (h->nlmsg_pid == filter_port(w->filter) || h->nlmsg_pid == 0 ||
        h->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES || (h->nlmsg_type & 0xff) == NFT_MSG_NEWGEN)
        return MNL_CB_OK;
    /* The first attribute is the table's name in all messages but those about generations. */
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg)) {
        if (mnl_attr_get_type(a) == NFTA_TABLE_NAME) {
            w->others |= mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0 &&
                         strcmp(mnl_attr_get_str(a), FILTER_TABLE) == 0;
            break;
        }
    }
    return MNL_CB_OK;
}

bool filter_watch_others(struct filter_watch *w)
{
    bool lost = false;

    w->others = false;
    for (;;) {
        ssize_t n = recv(mnl_socket_get_fd(w->s), w->buf, sizeof(w->buf), MSG_DONTWAIT);
        if (n < 0 && errno == ENOBUFS)
            lost = true;
        else if (n <= 0)
            break;
        else
            mnl_cb_run(w->buf, (size_t)n, 0, 0, on_change, w);
    }
    return w->others || (lost && !filter_alone(w->filter));
}
