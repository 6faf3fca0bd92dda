/* SPDX-License-Identifier: MIT */
#include "daemon/guard.h"

#include "common/auto.h"
#include "common/io.h"
#include "daemon/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t directions[] = { XFRM_POLICY_IN, XFRM_POLICY_FWD };

static void fill_selector(struct xfrm_selector *sel, const struct subnet *net)
{
    sel->family = AF_INET;
    sel->saddr.a4 = htonl(net->address);
    sel->prefixlen_s = net->prefix;
}

static int set_policy(struct mnl_socket *s, const struct subnet *net, uint8_t dir, struct err *e)
{
    char buf[NETLINK_MESSAGE];
    struct xfrm_userpolicy_info *p;
    struct xfrm_mark mark = { .v = 0, .m = GUARD_MARK };    /* what does not carry it */
    struct nlmsghdr *h = netlink_message(buf, XFRM_MSG_UPDPOLICY, 0, sizeof(*p), (void **)&p);

    fill_selector(&p->sel, net);
    p->dir = dir;
    p->action = XFRM_POLICY_BLOCK;
    p->lft.soft_byte_limit = p->lft.hard_byte_limit = XFRM_INF;
    p->lft.soft_packet_limit = p->lft.hard_packet_limit = XFRM_INF;
    mnl_attr_put(h, XFRMA_MARK, sizeof(mark), &mark);
    return netlink_do(s, h, e, "block what the filter has not let through");
}

static int drop_policy(struct mnl_socket *s, const struct subnet *net, uint8_t dir, struct err *e)
{
    char buf[NETLINK_MESSAGE];
    struct xfrm_userpolicy_id *p;
    struct xfrm_mark mark = { .v = 0, .m = GUARD_MARK };
    struct nlmsghdr *h = netlink_message(buf, XFRM_MSG_DELPOLICY, 0, sizeof(*p), (void **)&p);

    fill_selector(&p->sel, net);
    p->dir = dir;
    mnl_attr_put(h, XFRMA_MARK, sizeof(mark), &mark);
    if (netlink_do(s, h, e, "take the block away") == 0)
        return 0;
    if (e->sys != ENOENT)
        return -1;
    *e = ERR_INIT;
    return 0;
}

static int for_both(const struct subnet *net, struct err *e,
                    int (*fn)(struct mnl_socket *, const struct subnet *, uint8_t, struct err *))
{
    autonetlink struct mnl_socket *s = NULL;

    if (netlink_open(NETLINK_XFRM, 0, &s, e) < 0)
        return err_hint(e, "the kernel needs CONFIG_XFRM_USER (module xfrm_user)");
    for (size_t i = 0; i < ARRAY_SIZE(directions); i++)
        if (fn(s, net, directions[i], e) < 0)
            return -1;
    return 0;
}

int guard_close(const struct subnet *net, struct err *e)
{
    return for_both(net, e, set_policy);
}

int guard_open(const struct subnet *net, struct err *e)
{
    return for_both(net, e, drop_policy);
}

/* --- what of the host's settings stands against it --- */

/* Values that the kernel takes instead of, or besides, those of a tap. */
static const struct { const char *path; char bad; const char *what; } settings[] = {
    { "/proc/sys/net/ipv4/conf/all/rp_filter", '2',
      "net.ipv4.conf.all.rp_filter is 2: forged source addresses would pass" },
    { "/proc/sys/net/ipv4/conf/all/disable_policy", '1',
      "net.ipv4.conf.all.disable_policy is 1: all would pass" },
    { "/proc/sys/net/ipv6/conf/all/forwarding", '1',
      "net.ipv6.conf.all.forwarding is 1: IPv6 would pass" },
};

int guard_weakness(char *ret, size_t size, struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        autofree char *text = NULL;
        size_t len = 0;
        if (io_read_file_at(AT_FDCWD, settings[i].path, 64, &text, &len, e) < 0) {
            if (e->sys != ENOENT)       /* a kernel without IPv6, say */
                return -1;
            *e = ERR_INIT;
            continue;
        }
        if (text[0] == settings[i].bad) {
            snprintf(ret, size, "%s, one way, if somebody removed the filter (docs/EGRESS.md)",
                     settings[i].what);
            return 1;
        }
    }
    return 0;
}

/* --- forwarding --- */

struct census {
    bool all;                   /* the host forwards anyway */
    uint32_t off[4096];         /* interfaces that do not */
    size_t n;
    bool full;                  /* and more */
};

static int on_netconf(const struct nlmsghdr *h, void *arg)
{
    struct census *c = arg;
    const struct nlattr *a;
    int32_t index = NETCONFA_IFINDEX_DEFAULT, forwards = -1;

    mnl_attr_for_each(a, h, sizeof(struct netconfmsg)) {
        if (mnl_attr_get_type(a) == NETCONFA_IFINDEX)
            index = (int32_t)mnl_attr_get_u32(a);
        else if (mnl_attr_get_type(a) == NETCONFA_FORWARDING)
            forwards = (int32_t)mnl_attr_get_u32(a);
    }
    if (index == NETCONFA_IFINDEX_ALL)
        c->all = forwards == 1;
    else if (index > 0 && forwards == 0 && c->n < ARRAY_SIZE(c->off))
        c->off[c->n++] = (uint32_t)index;
    else
        c->full |= index > 0 && forwards == 0;
    return MNL_CB_OK;
}

int guard_forward(uint32_t index, bool on, struct err *e)
{
    autonetlink struct mnl_socket *s = NULL;
    char buf[NETLINK_MESSAGE];
    struct ifinfomsg *info;
    struct nlmsghdr *h = netlink_message(buf, RTM_NEWLINK, 0, sizeof(*info), (void **)&info);

    if (netlink_open(NETLINK_ROUTE, 0, &s, e) < 0)
        return -1;
    info->ifi_index = (int)index;
    struct nlattr *families = mnl_attr_nest_start(h, IFLA_AF_SPEC);
    struct nlattr *v4 = mnl_attr_nest_start(h, AF_INET);
    struct nlattr *conf = mnl_attr_nest_start(h, IFLA_INET_CONF);
    mnl_attr_put_u32(h, IPV4_DEVCONF_FORWARDING, on);
    mnl_attr_nest_end(h, conf);
    mnl_attr_nest_end(h, v4);
    mnl_attr_nest_end(h, families);
    if (netlink_do(s, h, e, "turn forwarding %s for interface %u", on ? "on" : "off", index) == 0)
        return 0;
    if (e->sys != ENODEV)
        return -1;
    *e = ERR_INIT;              /* it has gone meanwhile */
    return 0;
}

int guard_closed_ways(uint32_t **ret, size_t *ret_n, bool *ret_forwards, struct err *e)
{
    autonetlink struct mnl_socket *s = NULL;
    struct census c = { 0 };
    char buf[NETLINK_MESSAGE], name[IFNAMSIZ];
    struct netconfmsg *m;
    size_t n = 0;

    if (netlink_open(NETLINK_ROUTE, 0, &s, e) < 0)
        return -1;
    struct nlmsghdr *h = netlink_message(buf, RTM_GETNETCONF, 0, sizeof(*m), (void **)&m);
    m->ncm_family = AF_INET;
    if (netlink_dump(s, h, on_netconf, &c, e) < 0)
        return -1;
    if (c.full)
        return err_set(e, ERR_NETWORK, "more than %zu interfaces do not forward",
                       ARRAY_SIZE(c.off));
    uint32_t *list = calloc(c.n + 1, sizeof(*list));
    if (!list)
        return err_nomem(e);
    for (size_t i = 0; !c.all && i < c.n; i++)
        if (if_indextoname(c.off[i], name) && strcmp(name, "lo") != 0 &&
            strncmp(name, LINK_PREFIX, strlen(LINK_PREFIX)) != 0)
            list[n++] = c.off[i];
    *ret = list;
    *ret_n = n;
    *ret_forwards = c.all;
    return 0;
}
