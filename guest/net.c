/* SPDX-License-Identifier: MIT */
#include "guest/net.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/sbuf.h"
#include "guest/boot.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#define ANSWER_S 5              /* the kernel answers at once; a bound all the same */
#define CARRIER_MS 1000         /* from up to a carrier; some milliseconds are usual */
#define LOOK_AGAIN_MS 2
#define RESOLV_MAX 4096

/* ---- netlink ---- */

struct message {
    struct nlmsghdr h;
    uint8_t body[256];
};

/* Returns the family's header, zeroed. */
static void *begin(struct message *m, uint16_t type, uint16_t flags, size_t size)
{
    memset(m, 0, sizeof(*m));
    m->h.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
    m->h.nlmsg_type = type;
    m->h.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
    return m->body;
}

/* All of ours are short: there is room. */
static void attr(struct message *m, uint16_t type, const void *data, size_t len)
{
    struct rtattr *a = (struct rtattr *)((uint8_t *)m + NLMSG_ALIGN(m->h.nlmsg_len));

    a->rta_type = type;
    a->rta_len = (uint16_t)RTA_LENGTH(len);
    memcpy(RTA_DATA(a), data, len);
    m->h.nlmsg_len = NLMSG_ALIGN(m->h.nlmsg_len) + (uint32_t)RTA_ALIGN(a->rta_len);
}

static void attr_u32(struct message *m, uint16_t type, uint32_t v)
{
    attr(m, type, &v, sizeof(v));
}

static void attr_address(struct message *m, uint16_t type, uint32_t address)
{
    attr_u32(m, type, htonl(address));
}

static int ask(int fd, struct message *m, const char *what, struct err *e)
{
    static uint32_t seq;
    struct { struct nlmsghdr h; struct nlmsgerr e; uint8_t rest[512]; } answer;

    m->h.nlmsg_seq = ++seq;
    if (send(fd, m, m->h.nlmsg_len, 0) != (ssize_t)m->h.nlmsg_len)
        return err_sys(e, ERR_INTERNAL, errno, "cannot %s", what);
    for (;;) {
        ssize_t n = recv(fd, &answer, sizeof(answer), 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, ERR_INTERNAL, errno, "cannot %s", what);
        if (n < (ssize_t)(sizeof(answer.h) + sizeof(answer.e.error)) || answer.h.nlmsg_seq != seq ||
            answer.h.nlmsg_type != NLMSG_ERROR)
            continue;
        if (answer.e.error == 0)
            return 0;
        return err_sys(e, ERR_INTERNAL, -answer.e.error, "cannot %s", what);
    }
}

static int open_netlink(struct err *e)
{
    struct timeval limit = { .tv_sec = ANSWER_S };
    autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open a netlink socket");
    return take_fd(&fd);
}

/* ---- the steps ---- */

struct state {
    const struct guest_net *net;
    int index;                  /* of the interface */
    char name[IFNAMSIZ];
    int fd;
};

static bool find_interface(void *arg)
{
    struct state *s = arg;
    autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct if_nameindex *all = if_nameindex();

    for (struct if_nameindex *i = all; i && fd >= 0 && i->if_index && !s->index; i++) {
        struct ifreq r = { 0 };

        snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", i->if_name);
        if (ioctl(fd, SIOCGIFHWADDR, &r) == 0 && r.ifr_hwaddr.sa_family == ARPHRD_ETHER &&
            memcmp(r.ifr_hwaddr.sa_data, s->net->mac, sizeof(s->net->mac)) == 0) {
            s->index = (int)i->if_index;
            snprintf(s->name, sizeof(s->name), "%s", i->if_name);
        }
    }
    if (all)
        if_freenameindex(all);
    return s->index != 0;
}

/* For this interface and those to come. The loopback keeps ::1, which programs listen on. */
static int without_ipv6(struct state *s, struct err *e)
{
    const char *const names[] = { "default", s->name };
    char path[80];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%.15s/disable_ipv6", names[i]);
        autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
            return 0;               /* a kernel without IPv6 */
        if (fd < 0 || write(fd, "1", 1) != 1)
            return err_sys(e, ERR_INTERNAL, errno, "cannot write %s", path);
    }
    return 0;
}

static int set_mtu(struct state *s, struct err *e)
{
    struct message m;
    struct ifinfomsg *i = begin(&m, RTM_NEWLINK, 0, sizeof(*i));

    i->ifi_index = s->index;
    attr_u32(&m, IFLA_MTU, s->net->mtu);
    return ask(s->fd, &m, "set the MTU", e);
}

static int set_address(struct state *s, struct err *e)
{
    struct message m;
    struct ifaddrmsg *a = begin(&m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*a));

    a->ifa_family = AF_INET;
    a->ifa_prefixlen = 32;
    a->ifa_index = (uint32_t)s->index;
    a->ifa_scope = RT_SCOPE_UNIVERSE;
    attr_address(&m, IFA_LOCAL, s->net->address);
    attr_address(&m, IFA_ADDRESS, s->net->address);
    return ask(s->fd, &m, "set the address", e);
}

static int set_up(struct state *s, struct err *e)
{
    struct message m;
    struct ifinfomsg *i = begin(&m, RTM_NEWLINK, 0, sizeof(*i));

    i->ifi_index = s->index;
    i->ifi_flags = i->ifi_change = IFF_UP;
    return ask(s->fd, &m, "bring the interface up", e);
}

/* Whether what is sent now leaves: there is a carrier, and the queue is not the one that drops all.
 * The state that programs show ("UP") follows up to a second later, and nothing depends on it. */
static int is_open(struct state *s, bool *ret, struct err *e)
{
    struct message m;
    struct ifinfomsg *i = begin(&m, RTM_GETLINK, 0, sizeof(*i));
    struct { struct nlmsghdr h; struct ifinfomsg i; uint8_t rest[8192]; } answer;
    const char *queue = "noop";
    uint8_t carrier = 0;
    ssize_t n;

    m.h.nlmsg_flags = NLM_F_REQUEST;
    i->ifi_index = s->index;
    if (send(s->fd, &m, m.h.nlmsg_len, 0) != (ssize_t)m.h.nlmsg_len ||
        (n = recv(s->fd, &answer, sizeof(answer), 0)) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read the state of %s", s->name);
    if (n < (ssize_t)sizeof(answer.h) || !NLMSG_OK(&answer.h, (uint32_t)n) ||
        answer.h.nlmsg_type != RTM_NEWLINK)
        return err_set(e, ERR_INTERNAL, "cannot read the state of %s", s->name);
    struct rtattr *a = IFLA_RTA(&answer.i);
    uint32_t left = (uint32_t)IFLA_PAYLOAD(&answer.h);
    for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == IFLA_QDISC)
            queue = RTA_DATA(a);        /* the kernel ends it by a NUL */
        if (a->rta_type == IFLA_CARRIER)
            memcpy(&carrier, RTA_DATA(a), sizeof(carrier));
    }
    *ret = carrier && strcmp(queue, "noop") != 0;
    return 0;
}

/* The driver finds its carrier in the background; what is sent before is lost, and a resolver would
 * wait seconds to say it again. Without a carrier the network may still get one later. */
static int wait_for_carrier(struct state *s, struct err *e)
{
    int64_t deadline = deadline_in(CARRIER_MS);

    for (;;) {
        bool open = false;

        if (is_open(s, &open, e) < 0)
            return -1;
        if (open || deadline_left(deadline) == 0)
            return 0;
        (void)poll(NULL, 0, LOOK_AGAIN_MS);
    }
}

static int set_neighbour(struct state *s, struct err *e)
{
    struct message m;
    struct ndmsg *n = begin(&m, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*n));

    n->ndm_family = AF_INET;
    n->ndm_ifindex = s->index;
    n->ndm_state = NUD_PERMANENT;
    attr_address(&m, NDA_DST, s->net->gateway);
    attr(&m, NDA_LLADDR, s->net->gateway_mac, sizeof(s->net->gateway_mac));
    return ask(s->fd, &m, "set the gateway's MAC", e);
}

static struct rtmsg *begin_route(struct message *m, const struct state *s)
{
    struct rtmsg *r = begin(m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*r));

    r->rtm_family = AF_INET;
    r->rtm_table = RT_TABLE_MAIN;
    r->rtm_protocol = RTPROT_STATIC;
    r->rtm_type = RTN_UNICAST;
    attr_u32(m, RTA_OIF, (uint32_t)s->index);
    attr_address(m, RTA_PREFSRC, s->net->address);
    return r;
}

static int set_routes(struct state *s, struct err *e)
{
    struct message m;
    struct rtmsg *r = begin_route(&m, s);

    r->rtm_dst_len = 32;
    r->rtm_scope = RT_SCOPE_LINK;
    attr_address(&m, RTA_DST, s->net->gateway);
    if (ask(s->fd, &m, "set the route to the gateway", e) < 0)
        return -1;
    r = begin_route(&m, s);
    r->rtm_scope = RT_SCOPE_UNIVERSE;
    attr_address(&m, RTA_GATEWAY, s->net->gateway);
    return ask(s->fd, &m, "set the default route", e);
}

static int set_resolver(const struct guest_net *n, const char *path, struct err *e)
{
    autosbuf struct sbuf b = SBUF(RESOLV_MAX);
    autofree char *old = NULL;
    struct err unread = ERR_INIT;
    uint32_t a = n->resolver;
    size_t len = 0;

    if (a == 0)
        return 0;
    /* EDNS0: longer answers by UDP. Few and short attempts: it is next door, or gone. */
    sbuf_fmt(&b, "nameserver %u.%u.%u.%u\noptions edns0 timeout:3 attempts:2\n", a >> 24,
             a >> 16 & 255, a >> 8 & 255, a & 255);
    if (b.failed)
        return err_nomem(e);
    if (io_read_file_at(AT_FDCWD, path, RESOLV_MAX, &old, &len, &unread) == 0 && len == b.len &&
        memcmp(old, b.data, len) == 0)
        return 0;
    return io_write_file_at(AT_FDCWD, path, b.data, b.len, 0644, e);
}

int net_configure(const struct guest_net *n, const char *resolv_conf, int64_t deadline,
                  struct err *e)
{
    static int (*const steps[])(struct state *s, struct err *e) = {
        without_ipv6, set_mtu, set_address, set_up, wait_for_carrier, set_neighbour, set_routes,
    };
    struct state s = { .net = n, .fd = -1 };
    int r = uevent_wait(find_interface, &s, deadline, e);

    if (r < 0)
        return -1;
    if (r == 0)
        return err_set(e, ERR_NETWORK, "there is no interface %02x:%02x:%02x:%02x:%02x:%02x",
                       n->mac[0], n->mac[1], n->mac[2], n->mac[3], n->mac[4], n->mac[5]);
    autoclose int fd = open_netlink(e);
    if (fd < 0)
        return -1;
    s.fd = fd;
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
        if (steps[i](&s, e) < 0)
            return -1;
    return set_resolver(n, resolv_conf, e);
}
