/* SPDX-License-Identifier: MIT
 *
 * egress_ways: forwarding on a host that does not forward. Linux wants it turned on for the
 * interfaces that answers come back by, too; the filter then keeps those from forwarding anything
 * that is not a sandbox's. They are known by index: names change (udev renames what has just
 * appeared), indices do not, and no interface gets a former one's before the next boot.
 *
 * A host that begins to forward by itself is left to its own rules from then on; one that ends it
 * turns ours off as well, so it is turned on again.
 */
#include "daemon/egress_priv.h"

#include "common/io.h"
#include "common/log.h"
#include "common/parse.h"
#include "common/sbuf.h"
#include "daemon/guard.h"
#include "daemon/netlink.h"

#include <fcntl.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

static int add_opened(struct egress *g, uint32_t index, struct err *e)
{
    for (size_t i = 0; i < g->n_opened; i++)
        if (g->opened[i] == index)
            return 0;
    uint32_t *grown = reallocarray(g->opened, g->n_opened + 1, sizeof(*grown));
    if (!grown)
        return err_nomem(e);
    g->opened = grown;
    g->opened[g->n_opened++] = index;
    return 0;
}

static int path_of(const struct egress *g, char **ret, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);

    sbuf_fmt(&path, "%s/forwarding", g->config->runtime_dir);
    return sbuf_take(&path, ret, e);
}

/* Interfaces for which an earlier daemon turned forwarding on cannot be told from others any more:
 * they are written down, before it is done. */
static int load(struct egress *g, struct err *e)
{
    autofree char *text = NULL, *path = NULL;
    struct err none = ERR_INIT;
    char *save = NULL;
    size_t len = 0;
    uint32_t index;

    if (path_of(g, &path, e) < 0)
        return -1;
    if (io_read_file_at(AT_FDCWD, path, 64 * KIB, &text, &len, &none) < 0)
        return 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (parse_u32(line, 1, UINT32_MAX, &index) && add_opened(g, index, e) < 0)
            return -1;
    return 0;
}

static int save(const struct egress *g, struct err *e)
{
    autosbuf struct sbuf all = SBUF(64 * KIB);
    autofree char *path = NULL;

    for (size_t i = 0; i < g->n_opened; i++)
        sbuf_fmt(&all, "%u\n", g->opened[i]);
    if (path_of(g, &path, e) < 0)
        return -1;
    return io_write_file_at(AT_FDCWD, path, sbuf_str(&all), all.len, 0600, e);
}

/* A table without that set is an older daemon's. */
static int tell_filter(struct egress *g, struct err *e)
{
    if (filter_opened(g->filter, g->opened, g->n_opened, e) == 0)
        return 0;
    if (e->sys != ENOENT && e->sys != EINVAL)
        return -1;
    *e = ERR_INIT;
    return egress_rebuild(g, e);
}

/* All or none. */
static int turn_on(const uint32_t *ways, size_t n, struct err *e)
{
    struct err ignored = ERR_INIT;
    size_t on = 0;

    while (on < n && guard_forward(ways[on], true, e) == 0)
        on++;
    if (on == n)
        return 0;
    while (on-- > 0)
        guard_forward(ways[on], false, &ignored);
    return -1;
}

static int settle(struct egress *g, struct err *e)
{
    autofree uint32_t *closed = NULL;
    size_t n = 0, before = g->n_opened;
    bool forwards;

    if (guard_closed_ways(&closed, &n, &forwards, e) < 0)
        return -1;
    if (forwards)
        g->n_opened = 0;
    for (size_t i = 0; i < n; i++)
        if (add_opened(g, closed[i], e) < 0)
            return -1;
    if (g->ready && n == 0 && g->n_opened == before)
        return 0;
    return save(g, e) < 0 || tell_filter(g, e) < 0 ? -1 : turn_on(closed, n, e);
}

/* --- news --- */

static int on_news(const struct nlmsghdr *h, void *arg)
{
    const struct nlattr *a;
    bool *news = arg;

    if (h->nlmsg_type == RTM_NEWLINK) {
        mnl_attr_for_each(a, h, sizeof(struct ifinfomsg))
            if (mnl_attr_get_type(a) == IFLA_IFNAME &&
                mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0)
                *news |= strncmp(mnl_attr_get_str(a), LINK_PREFIX, strlen(LINK_PREFIX)) != 0;
    } else if (h->nlmsg_type == RTM_NEWNETCONF) {
        mnl_attr_for_each(a, h, sizeof(struct netconfmsg))
            if (mnl_attr_get_type(a) == NETCONFA_IFINDEX)
                *news |= (int32_t)mnl_attr_get_u32(a) == NETCONFA_IFINDEX_ALL;
    }
    return MNL_CB_OK;
}

/* Whoever turns the host's forwarding off turns that of taps off. */
static void keep_taps_on(struct egress *g)
{
    struct err ignored = ERR_INIT;

    for (size_t i = 0; i <= LIMIT_SANDBOXES; i++) {
        unsigned index = g->boxes[i] ? if_nametoindex(g->boxes[i]->link.name) : 0;
        if (index)
            guard_forward(index, true, &ignored);
    }
}

static void on_ways(void *arg, uint32_t events)
{
    struct egress *g = arg;
    struct err e = ERR_INIT;
    static struct log_rate rate;

    pthread_mutex_lock(&g->lock);
    if (egress_drain(g->ways_watch, on_news)) {
        if (settle(g, &e) < 0 && log_rate_ok(&rate, 1, 60000))
            log_warn(LOG_CTX(.error = &e),
                     "some interfaces do not forward for sandboxes, ignoring");
        keep_taps_on(g);
    }
    pthread_mutex_unlock(&g->lock);
}

int ways_open(struct egress *g, struct err *e)
{
    const unsigned groups = 1u << (RTNLGRP_LINK - 1) | 1u << (RTNLGRP_IPV4_NETCONF - 1);

    if (load(g, e) < 0 || settle(g, e) < 0 ||
        netlink_open(NETLINK_ROUTE, groups, &g->ways_watch, e) < 0 ||
        evloop_add_fd(g->loop, mnl_socket_get_fd(g->ways_watch), EPOLLIN, on_ways, g,
                      &g->ways_source, e) < 0)
        return -1;
    return settle(g, e);        /* what appeared in between */
}

void ways_close(struct egress *g)
{
    evloop_remove(take_ptr(g->ways_source));
    netlink_close(take_ptr(g->ways_watch));
    free(take_ptr(g->opened));
    g->n_opened = 0;
}
