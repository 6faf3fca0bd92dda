/* SPDX-License-Identifier: MIT
 *
 * subnet: which addresses sandboxes have, so that they hide none of the host's.
 */
#include "common/auto.h"
#include "common/parse.h"
#include "common/policy.h"
#include "daemon/link.h"
#include "daemon/netlink.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Little used parts of the private ranges: not those that home routers, docker, libvirt, podman and
 * the usual clusters take for themselves. */
static const char *const candidates[] = {
    "10.209.0.0/16", "172.28.0.0/16", "10.83.0.0/16", "192.168.208.0/20", "172.23.0.0/16",
    "10.157.0.0/16", "10.241.0.0/16",
};

static uint32_t mask_of(uint8_t prefix)
{
    return prefix == 0 ? 0 : UINT32_MAX << (32 - prefix);
}

int subnet_parse(const char *text, uint32_t slots, struct subnet *ret, struct err *e)
{
    struct policy_target t;
    uint8_t wide = 0;

    if (policy_target_parse(text, &t, e) < 0)
        return -1;
    const char *what = t.kind == POLICY_ADDRESS ? policy_special(t.address, &wide) : NULL;
    if (t.kind != POLICY_ADDRESS || t.port_lo != 0 || t.port_hi != UINT16_MAX || t.protos)
        return err_set(e, ERR_INVALID, "'%s' is no range of addresses like 10.209.0.0/16", text);
    if (!what || strcmp(what, "private") != 0 || wide > t.prefix)
        return err_set(e, ERR_INVALID, "'%s' does not lie in a private range (RFC 1918)", text);
    /* network, gateway, and what is all ones */
    if (t.prefix > 30 || (UINT32_MAX >> t.prefix) < slots + 2)
        return err_set(e, ERR_INVALID, "'%s' has no room for %u sandboxes", text, slots);
    *ret = (struct subnet){ t.address, t.prefix };
    return 0;
}

struct search {
    const struct subnet *net;
    char *with;         /* where to say what was found */
    size_t size;
    bool found;
};

static bool overlaps(const struct subnet *a, uint32_t address, uint8_t prefix)
{
    uint32_t mask = mask_of(a->prefix < prefix ? a->prefix : prefix);

    return (a->address & mask) == (address & mask);
}

static int on_route(const struct nlmsghdr *h, void *arg)
{
    struct search *s = arg;
    const struct rtmsg *r = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    uint32_t dst = 0, oif = 0;
    char name[IFNAMSIZ] = "?", text[ADDRESS_TEXT];

    if (r->rtm_family != AF_INET || s->found || r->rtm_dst_len == 0 ||
        r->rtm_type == RTN_BROADCAST || r->rtm_type == RTN_MULTICAST)
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof(*r)) {
        if (mnl_attr_get_type(a) == RTA_DST)
            dst = ntohl(mnl_attr_get_u32(a));
        else if (mnl_attr_get_type(a) == RTA_OIF)
            oif = mnl_attr_get_u32(a);
    }
    if (oif)
        if_indextoname(oif, name);
    if (strncmp(name, LINK_PREFIX, strlen(LINK_PREFIX)) == 0 ||
        !overlaps(s->net, dst, r->rtm_dst_len))
        return MNL_CB_OK;
    s->found = true;
    snprintf(s->with, s->size, "the %s %s/%u of %s", r->rtm_type == RTN_LOCAL ? "address" : "route",
             address_format(dst, text), r->rtm_dst_len, name);
    return MNL_CB_OK;
}

int subnet_collides(const struct subnet *net, char *ret_with, size_t size, struct err *e)
{
    autonetlink struct mnl_socket *s = NULL;
    struct search search = { .net = net, .with = ret_with, .size = size };
    char buf[NETLINK_MESSAGE];
    struct rtmsg *r;

    if (netlink_open(NETLINK_ROUTE, 0, &s, e) < 0)
        return -1;
    struct nlmsghdr *h = netlink_message(buf, RTM_GETROUTE, 0, sizeof(*r), (void **)&r);
    r->rtm_family = AF_INET;
    if (netlink_dump(s, h, on_route, &search, e) < 0)   /* all tables: local addresses too */
        return -1;
    return search.found;
}

int subnet_choose(uint32_t slots, struct subnet *ret, struct err *e)
{
    char with[128] = "";

    for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
        if (subnet_parse(candidates[i], slots, ret, e) < 0) {
            *e = ERR_INIT;
            continue;
        }
        int r = subnet_collides(ret, with, sizeof(with), e);
        if (r <= 0)
            return r;
    }
    err_set(e, ERR_NETWORK, "all ranges known for sandboxes are in use, the last one by %s", with);
    return err_hint(e, "name a free one as `subnet` in daemon.json");
}

static int on_default(const struct nlmsghdr *h, void *arg)
{
    const struct rtmsg *r = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;

    if (r->rtm_family != AF_INET || r->rtm_dst_len != 0 || r->rtm_type != RTN_UNICAST)
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof(*r))
        if (mnl_attr_get_type(a) == RTA_OIF)
            *(uint32_t *)arg = mnl_attr_get_u32(a);
    return MNL_CB_OK;
}

static int on_link(const struct nlmsghdr *h, void *arg)
{
    const struct nlattr *a;

    mnl_attr_for_each(a, h, sizeof(struct ifinfomsg))
        if (mnl_attr_get_type(a) == IFLA_MTU)
            *(uint32_t *)arg = mnl_attr_get_u32(a);
    return MNL_CB_OK;
}

uint16_t link_uplink_mtu(void)
{
    autonetlink struct mnl_socket *s = NULL;
    char buf[NETLINK_MESSAGE];
    struct rtmsg *r;
    uint32_t oif = 0, mtu = 0;
    struct err ignored = ERR_INIT;

    if (netlink_open(NETLINK_ROUTE, 0, &s, &ignored) < 0)
        return LINK_MTU;
    struct nlmsghdr *h = netlink_message(buf, RTM_GETROUTE, 0, sizeof(*r), (void **)&r);
    r->rtm_family = AF_INET;
    if (netlink_dump(s, h, on_default, &oif, &ignored) < 0 || oif == 0)
        return LINK_MTU;
    struct ifinfomsg *info;
    h = netlink_message(buf, RTM_GETLINK, 0, sizeof(*info), (void **)&info);
    info->ifi_index = (int)oif;
    if (netlink_get(s, h, on_link, &mtu, &ignored) < 0)
        return LINK_MTU;
    return mtu >= 576 && mtu < LINK_MTU ? (uint16_t)mtu : LINK_MTU;
}

static int on_answer(const struct nlmsghdr *h, void *arg)
{
    const struct rtmsg *r = mnl_nlmsg_get_payload(h);

    *(uint8_t *)arg = r->rtm_type;
    return MNL_CB_OK;
}

/* Where a packet to it would go: one question, however many addresses there are. */
bool link_is_host(uint32_t address)
{
    autonetlink struct mnl_socket *s = NULL;
    char buf[NETLINK_MESSAGE];
    struct rtmsg *r;
    uint8_t type = RTN_UNSPEC;
    struct err ignored = ERR_INIT;

    if (address >> 24 == 127)
        return true;
    if (netlink_open(NETLINK_ROUTE, 0, &s, &ignored) < 0)
        return false;
    struct nlmsghdr *h = netlink_message(buf, RTM_GETROUTE, 0, sizeof(*r), (void **)&r);
    r->rtm_family = AF_INET;
    r->rtm_dst_len = 32;
    mnl_attr_put_u32(h, RTA_DST, htonl(address));
    return netlink_get(s, h, on_answer, &type, &ignored) == 0 && type == RTN_LOCAL;
}
