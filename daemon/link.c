/* SPDX-License-Identifier: MIT */
#include "daemon/link.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/policy.h"
#include "daemon/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#define DETACH_MS 2000      /* fork() to execve() of another thread */

const uint8_t link_gateway_mac[6] = { 0x02, 0x5b, 0x78, 0, 0, 1 };

const char *address_format(uint32_t address, char buf[ADDRESS_TEXT])
{
    snprintf(buf, ADDRESS_TEXT, "%u.%u.%u.%u", address >> 24, address >> 16 & 255,
             address >> 8 & 255, address & 255);
    return buf;
}

bool address_parse(const char *text, uint32_t *ret)
{
    struct in_addr a;

    if (inet_pton(AF_INET, text, &a) != 1)
        return false;
    *ret = ntohl(a.s_addr);
    return true;
}

void link_describe(const struct subnet *net, const char *id, uint32_t slot, uint16_t mtu,
                   struct link *ret)
{
    *ret = (struct link){
        .gateway = net->address + 1,
        .address = net->address + 1 + slot,
        .mac = { 0x02, 0x5b, 0x78, 1, (uint8_t)(slot >> 8), (uint8_t)slot },
        .mtu = mtu,
    };
    snprintf(ret->name, sizeof(ret->name), LINK_PREFIX "%.12s", id);
}

/* --- making --- */

static int make_tap(const struct link *l, uid_t owner, struct err *e)
{
    struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL };

    autoclose int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        err_sys(e, ERR_NETWORK, errno, "cannot open /dev/net/tun");
        return err_hint(e, "the kernel's module tun is needed, and the device inside a container");
    }
    memcpy(ifr.ifr_name, l->name, sizeof(ifr.ifr_name));
    if (ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETOWNER, (unsigned long)owner) < 0 ||
        ioctl(fd, TUNSETPERSIST, 1UL) < 0)
        return err_sys(e, ERR_NETWORK, errno, "cannot make the interface %s", l->name);
    return 0;
}

/* Settings that exist once per interface. Ours are the strict ones whatever the host's are, and no
 * file below /proc/sys has to be written. */
static const struct { uint16_t which; uint32_t value; } ipv4_settings[] = {
    { IPV4_DEVCONF_FORWARDING, 1 },
    { IPV4_DEVCONF_RP_FILTER, 1 },          /* no source address but the guest's */
    { IPV4_DEVCONF_SRC_VMARK, 0 },
    { IPV4_DEVCONF_ACCEPT_REDIRECTS, 0 },
    { IPV4_DEVCONF_SECURE_REDIRECTS, 0 },
    { IPV4_DEVCONF_SEND_REDIRECTS, 0 },
    { IPV4_DEVCONF_ACCEPT_SOURCE_ROUTE, 0 },
    { IPV4_DEVCONF_PROXY_ARP, 0 },
    { IPV4_DEVCONF_ROUTE_LOCALNET, 0 },
    { IPV4_DEVCONF_ACCEPT_LOCAL, 0 },
    { IPV4_DEVCONF_NOPOLICY, 0 },           /* guard.h lives by it */
    { IPV4_DEVCONF_ARP_IGNORE, 1 },
};

static int set_up_tap(struct mnl_socket *s, const struct link *l, int index, struct err *e)
{
    char buf[NETLINK_MESSAGE];
    struct ifinfomsg *info;
    struct nlmsghdr *h = netlink_message(buf, RTM_NEWLINK, 0, sizeof(*info), (void **)&info);

    info->ifi_index = index;
    mnl_attr_put(h, IFLA_ADDRESS, sizeof(link_gateway_mac), link_gateway_mac);
    mnl_attr_put_u32(h, IFLA_MTU, l->mtu);
    struct nlattr *families = mnl_attr_nest_start(h, IFLA_AF_SPEC);
    struct nlattr *v4 = mnl_attr_nest_start(h, AF_INET);
    struct nlattr *conf = mnl_attr_nest_start(h, IFLA_INET_CONF);
    for (size_t i = 0; i < ARRAY_SIZE(ipv4_settings); i++)
        mnl_attr_put_u32(h, ipv4_settings[i].which, ipv4_settings[i].value);
    mnl_attr_nest_end(h, conf);
    mnl_attr_nest_end(h, v4);
    mnl_attr_nest_end(h, families);
    return netlink_do(s, h, e, "set up the interface %s", l->name);
}

/* No IPv6 address makes itself, where there is IPv6 at all. */
static void without_ipv6(struct mnl_socket *s, int index)
{
    char buf[NETLINK_MESSAGE];
    struct ifinfomsg *info;
    struct nlmsghdr *h = netlink_message(buf, RTM_NEWLINK, 0, sizeof(*info), (void **)&info);
    struct err ignored = ERR_INIT;

    info->ifi_index = index;
    struct nlattr *families = mnl_attr_nest_start(h, IFLA_AF_SPEC);
    struct nlattr *v6 = mnl_attr_nest_start(h, AF_INET6);
    mnl_attr_put_u8(h, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(h, v6);
    mnl_attr_nest_end(h, families);
    netlink_do(s, h, &ignored, "turn IPv6 off");
}

static int add_address(struct mnl_socket *s, const struct link *l, int index, struct err *e)
{
    char buf[NETLINK_MESSAGE];
    struct ifaddrmsg *a;
    struct nlmsghdr *h = netlink_message(buf, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*a),
                                         (void **)&a);

    a->ifa_family = AF_INET;
    a->ifa_prefixlen = 32;
    a->ifa_index = (unsigned)index;
    a->ifa_scope = RT_SCOPE_LINK;           /* never the source of what leaves by another way */
    mnl_attr_put_u32(h, IFA_LOCAL, htonl(l->gateway));
    mnl_attr_put_u32(h, IFA_ADDRESS, htonl(l->gateway));
    return netlink_do(s, h, e, "give %s its address", l->name);
}

static int add_neighbour(struct mnl_socket *s, const struct link *l, int index, struct err *e)
{
    char buf[NETLINK_MESSAGE];
    struct ndmsg *n;
    struct nlmsghdr *h = netlink_message(buf, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
                                         sizeof(*n), (void **)&n);

    n->ndm_family = AF_INET;
    n->ndm_ifindex = index;
    n->ndm_state = NUD_PERMANENT;
    mnl_attr_put_u32(h, NDA_DST, htonl(l->address));
    mnl_attr_put(h, NDA_LLADDR, sizeof(l->mac), l->mac);
    return netlink_do(s, h, e, "tell %s its neighbour", l->name);
}

static int add_route(struct mnl_socket *s, const struct link *l, int index, struct err *e)
{
    char buf[NETLINK_MESSAGE];
    struct rtmsg *r;
    struct nlmsghdr *h = netlink_message(buf, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE,
                                         sizeof(*r), (void **)&r);

    r->rtm_family = AF_INET;
    r->rtm_dst_len = 32;
    r->rtm_table = RT_TABLE_MAIN;
    r->rtm_protocol = RTPROT_STATIC;
    r->rtm_scope = RT_SCOPE_LINK;
    r->rtm_type = RTN_UNICAST;
    mnl_attr_put_u32(h, RTA_DST, htonl(l->address));
    mnl_attr_put_u32(h, RTA_PREFSRC, htonl(l->gateway));
    mnl_attr_put_u32(h, RTA_OIF, (unsigned)index);
    return netlink_do(s, h, e, "route to %s", l->name);
}

static int set_flags(struct mnl_socket *s, int index, unsigned flags, struct err *e)
{
    char buf[NETLINK_MESSAGE];
    struct ifinfomsg *info;
    struct nlmsghdr *h = netlink_message(buf, RTM_NEWLINK, 0, sizeof(*info), (void **)&info);

    info->ifi_index = index;
    info->ifi_flags = flags;
    info->ifi_change = IFF_UP | IFF_MULTICAST;
    return netlink_do(s, h, e, "bring interface %d up", index);
}

static int on_carrier(const struct nlmsghdr *h, void *arg)
{
    const struct nlattr *a;

    mnl_attr_for_each(a, h, sizeof(struct ifinfomsg)) {
        if (mnl_attr_get_type(a) == IFLA_CARRIER && mnl_attr_get_payload_len(a) == 1)
            *(bool *)arg = mnl_attr_get_u8(a) != 0;
    }
    return MNL_CB_OK;
}

/* Our descriptor of the tap is closed, but a process that another thread has just forked has one
 * until it executes its program, and as long nobody else can attach: libvirt's "Device or resource
 * busy". A tap has a carrier while somebody is attached. Rare, and over in milliseconds. */
static int await_detached(struct mnl_socket *s, int index, struct err *e)
{
    static const struct timespec look = { .tv_nsec = 1000000 };
    int64_t deadline = deadline_in(DETACH_MS);
    char buf[NETLINK_MESSAGE];
    struct ifinfomsg *i;

    for (;;) {
        bool attached = false;
        struct nlmsghdr *h = netlink_message(buf, RTM_GETLINK, 0, sizeof(*i), (void **)&i);
        i->ifi_index = index;
        if (netlink_get(s, h, on_carrier, &attached, e) < 0)
            return -1;
        if (!attached)
            return 0;
        if (deadline_left(deadline) == 0)
            return err_set(e, ERR_NETWORK, "interface %d is held by another process", index);
        nanosleep(&look, NULL);     /* nobody tells of an interface that is down */
    }
}

int link_create(const struct link *l, uid_t owner, struct err *e)
{
    struct err ignored = ERR_INIT;
    autonetlink struct mnl_socket *s = NULL;

    if (netlink_open(NETLINK_ROUTE, 0, &s, e) < 0 || link_delete(l->name, e) < 0 ||
        make_tap(l, owner, e) < 0)
        return -1;
    int index = (int)if_nametoindex(l->name);
    if (index == 0)
        return err_sys(e, ERR_NETWORK, errno, "cannot find the interface %s", l->name);
    if (set_up_tap(s, l, index, e) < 0 || await_detached(s, index, e) < 0) {
        link_delete(l->name, &ignored);
        return -1;
    }
    without_ipv6(s, index);
    return 0;
}

int link_up(const struct link *l, struct err *e)
{
    autonetlink struct mnl_socket *s = NULL;
    int index = (int)if_nametoindex(l->name);

    if (index == 0)
        return err_set(e, ERR_NETWORK, "the interface %s is gone", l->name);
    /* A route wants an interface that is up; nothing passes before the guest has a QEMU. */
    if (netlink_open(NETLINK_ROUTE, 0, &s, e) < 0 || add_address(s, l, index, e) < 0 ||
        set_flags(s, index, IFF_UP, e) < 0 || add_neighbour(s, l, index, e) < 0 ||
        add_route(s, l, index, e) < 0)
        return -1;
    return 0;
}

int link_delete(const char *name, struct err *e)
{
    autonetlink struct mnl_socket *s = NULL;
    char buf[NETLINK_MESSAGE];
    struct ifinfomsg *info;
    int index = (int)if_nametoindex(name);

    if (index == 0)
        return 0;
    if (netlink_open(NETLINK_ROUTE, 0, &s, e) < 0)
        return -1;
    struct nlmsghdr *h = netlink_message(buf, RTM_DELLINK, 0, sizeof(*info), (void **)&info);
    info->ifi_index = index;
    if (netlink_do(s, h, e, "remove the interface %s", name) == 0)
        return 0;
    if (e->sys != ENODEV)
        return -1;
    *e = ERR_INIT;
    return 0;
}

bool link_exists(const char *name)
{
    return if_nametoindex(name) != 0;
}

static int on_counters(const struct nlmsghdr *h, void *arg)
{
    struct link_counters *c = arg;
    struct rtnl_link_stats64 s = { 0 };
    const struct nlattr *a;

    mnl_attr_for_each(a, h, sizeof(struct ifinfomsg)) {
        size_t len = mnl_attr_get_payload_len(a);
        if (mnl_attr_get_type(a) != IFLA_STATS64)
            continue;
        /* aligned to 4 bytes only; its end differs from kernel to kernel */
        memcpy(&s, mnl_attr_get_payload(a), len < sizeof(s) ? len : sizeof(s));
        /* what the host's end sends the guest receives */
        *c = (struct link_counters){ .rx_bytes = s.tx_bytes, .rx_packets = s.tx_packets,
                                     .tx_bytes = s.rx_bytes, .tx_packets = s.rx_packets };
    }
    return MNL_CB_OK;
}

int link_counters(const char *name, struct link_counters *ret, struct err *e)
{
    autonetlink struct mnl_socket *s = NULL;
    struct link_counters c = { 0 };
    char buf[NETLINK_MESSAGE];
    struct ifinfomsg *i;

    if (netlink_open(NETLINK_ROUTE, 0, &s, e) < 0)
        return -1;
    struct nlmsghdr *h = netlink_message(buf, RTM_GETLINK, 0, sizeof(*i), (void **)&i);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    if (netlink_get(s, h, on_counters, &c, e) < 0)
        return -1;
    *ret = c;
    return 0;
}

int link_list(char (**ret)[IFNAMSIZ], size_t *ret_n, struct err *e)
{
    struct if_nameindex *all = if_nameindex();
    size_t n = 0;

    *ret = NULL;
    *ret_n = 0;
    if (!all)
        return err_sys(e, ERR_NETWORK, errno, "cannot list interfaces");
    for (const struct if_nameindex *i = all; i->if_index; i++)
        n++;
    char (*names)[IFNAMSIZ] = calloc(n + 1, sizeof(*names));
    n = 0;
    for (const struct if_nameindex *i = all; names && i->if_index; i++)
        if (strncmp(i->if_name, LINK_PREFIX, strlen(LINK_PREFIX)) == 0)
            snprintf(names[n++], IFNAMSIZ, "%s", i->if_name);
    if_freenameindex(all);
    if (!names)
        return err_nomem(e);
    *ret = names;
    *ret_n = n;
    return 0;
}
