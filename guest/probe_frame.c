/* SPDX-License-Identifier: MIT
 *
 * Probes by whole frames, past the kernel's network stack: addresses, MACs and protocols that are
 * not the guest's. A second look at the same interface says what comes back.
 */
#include "guest/probe.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>

#define FRAME_MAX 2048
#define TCP_BYTES 20
#define UDP_BYTES 8
#define IP_BYTES 20
#define FRAGMENT_UDP 24         /* first piece: the header and a little */
#define FRAGMENT_TCP 8          /* only the ports: the flags come with the second */
#define MORE_FRAGMENTS 0x2000

struct where {                  /* the way to the default gateway */
    char interface[IFNAMSIZ];
    int index;
    uint32_t address, gateway;
    uint8_t mac[6], gateway_mac[6];
};

struct packet {
    uint8_t b[FRAME_MAX];
    size_t len;
};

struct sent {                   /* what an answer has to fit */
    const struct probe *probe;
    const struct where *w;
    uint32_t source;
    uint16_t port, id;          /* ours */
};

static const uint8_t broadcast[6] = { 255, 255, 255, 255, 255, 255 };

/* ---- where we are ---- */

/* Eight hex digits, as /proc/net/route has them: the bytes as they lie in memory. */
static bool hex32(const char *s, uint32_t *ret)
{
    uint32_t v = 0;

    if (!s || strlen(s) != 8)
        return false;
    for (; *s; s++) {
        const char *digits = "0123456789ABCDEF", *at = strchr(digits, *s);

        if (!at)
            return false;
        v = v << 4 | (uint32_t)(at - digits);
    }
    *ret = v;
    return true;
}

/* Interface, destination, gateway, flags, counters, metric, mask */
static bool find_route(struct where *w)
{
    autofclose FILE *f = fopen("/proc/net/route", "re");
    char line[256];

    while (f && fgets(line, sizeof(line), f)) {
        uint32_t destination, gateway, mask;
        char *word[8] = { NULL }, *rest = line;

        for (size_t i = 0; i < ARRAY_SIZE(word); i++)
            word[i] = strtok_r(i ? NULL : line, " \t\n", &rest);
        if (!word[0] || strlen(word[0]) >= IFNAMSIZ || !hex32(word[1], &destination) ||
            !hex32(word[2], &gateway) || !hex32(word[7], &mask))
            continue;
        if (destination == 0 && mask == 0 && gateway != 0) {
            memcpy(w->interface, word[0], strlen(word[0]) + 1);
            w->gateway = ntohl(gateway);
            return true;
        }
    }
    return false;
}

static bool find_neighbour(struct where *w, int fd)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr = { htonl(w->gateway) } };
    struct arpreq q = { 0 };

    memcpy(&q.arp_pa, &sa, sizeof(sa));
    memcpy(q.arp_dev, w->interface, sizeof(q.arp_dev));
    if (ioctl(fd, SIOCGARP, &q) < 0 || !(q.arp_flags & ATF_COM))
        return false;
    memcpy(w->gateway_mac, q.arp_ha.sa_data, sizeof(w->gateway_mac));
    return true;
}

static bool find_where(struct where *w, struct probe_result *r)
{
    autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq q = { 0 };
    struct sockaddr_in sa;

    *w = (struct where){ 0 };
    if (fd < 0 || !find_route(w) || !find_neighbour(w, fd)) {
        probe_say(r, SEEN_FAILED, "there is no way to a gateway here");
        return false;
    }
    memcpy(q.ifr_name, w->interface, sizeof(q.ifr_name));
    if (ioctl(fd, SIOCGIFADDR, &q) == 0) {
        memcpy(&sa, &q.ifr_addr, sizeof(sa));
        w->address = ntohl(sa.sin_addr.s_addr);
    }
    if (ioctl(fd, SIOCGIFHWADDR, &q) == 0)
        memcpy(w->mac, q.ifr_hwaddr.sa_data, sizeof(w->mac));
    w->index = (int)if_nametoindex(w->interface);
    if (w->index > 0 && w->address != 0)
        return true;
    probe_say(r, SEEN_FAILED, "%s has no address", w->interface);
    return false;
}

/* ---- building ---- */

static void put(struct packet *f, const void *data, size_t len)
{
    if (f->len + len > sizeof(f->b))
        return;                 /* sizes are bounded in probe_parse() */
    memcpy(f->b + f->len, data, len);
    f->len += len;
}

static void put8(struct packet *f, unsigned v)
{
    put(f, &(uint8_t){ (uint8_t)v }, 1);
}

static void put16(struct packet *f, unsigned v)
{
    put8(f, v >> 8);
    put8(f, v);
}

static void put32(struct packet *f, uint32_t v)
{
    put16(f, v >> 16);
    put16(f, v);
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void set16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint32_t add_up(uint32_t sum, const uint8_t *b, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum += i % 2 ? b[i] : (uint32_t)b[i] << 8;
    return sum;
}

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void put_ethernet(struct packet *f, const uint8_t to[6], const uint8_t from[6],
                         unsigned type)
{
    put(f, to, 6);
    put(f, from, 6);
    put16(f, type);
}

/* TCP SYN or a UDP datagram: for port 53 a question, so that whoever lets it through answers. */
static void put_transport(struct packet *f, const struct sent *s)
{
    const struct probe *p = s->probe;
    struct probe question = { .name = "probe.invalid", .qtype = 1 };
    uint8_t payload[FRAME_MAX], pseudo[12];
    size_t n = p->size ? p->size : 9, at = f->len;

    memset(payload, 'p', sizeof(payload));
    if (p->port == 53 && !p->size)
        n = probe_dns_query(&question, s->id, payload, sizeof(payload));
    if (p->kind == PROBE_FRAGMENTS && n < 64)
        n = 64;                 /* a resolver passes over the zeros after its question */
    put16(f, s->port);
    put16(f, p->port);
    if (p->tcp) {
        put32(f, (uint32_t)s->id << 16);
        put32(f, 0);
        put16(f, 0x5002);       /* five words, SYN */
        put16(f, 0xffff);
        put32(f, 0);
    } else {
        put16(f, (unsigned)(UDP_BYTES + n));
        put16(f, 0);
        put(f, payload, n);
    }
    uint32_t whom = htonl(p->address), who = htonl(s->source);
    memcpy(pseudo, &who, 4);
    memcpy(pseudo + 4, &whom, 4);
    pseudo[8] = 0;
    pseudo[9] = p->tcp ? IPPROTO_TCP : IPPROTO_UDP;
    set16(pseudo + 10, (uint16_t)(f->len - at));
    uint16_t sum = fold(add_up(add_up(0, pseudo, sizeof(pseudo)), f->b + at, f->len - at));
    set16(f->b + at + (p->tcp ? 16 : 6), sum);
}

static void put_ipv4(struct packet *f, const struct sent *s, unsigned fragment, const void *data,
                     size_t len)
{
    size_t at = f->len;

    put16(f, 0x4500);
    put16(f, (unsigned)(IP_BYTES + len));
    put16(f, s->id);
    put16(f, fragment);
    put8(f, 64);
    put8(f, s->probe->tcp ? IPPROTO_TCP : IPPROTO_UDP);
    put16(f, 0);
    put32(f, s->source);
    put32(f, s->probe->address);
    set16(f->b + at + 10, fold(add_up(0, f->b + at, IP_BYTES)));
    put(f, data, len);
}

static void put_arp(struct packet *f, const struct where *w, unsigned op, uint32_t sender,
                    uint32_t target)
{
    put16(f, 1);
    put16(f, ETH_P_IP);
    put16(f, 0x0604);
    put16(f, op);
    put(f, w->mac, 6);
    put32(f, sender);
    put(f, op == 1 ? (const uint8_t[6]){ 0 } : broadcast, 6);
    put32(f, target);
}

/* fe80::<MAC> as an interface would have it. */
static void link_local(uint8_t ret[16], const uint8_t mac[6])
{
    const uint8_t a[16] = { 0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe,
                            mac[3], mac[4], mac[5] };

    memcpy(ret, a, sizeof(a));
}

static void put_ipv6(struct packet *f, const struct where *w, const struct probe *p)
{
    static const uint8_t all_nodes[16] = { 0xff, 2, [15] = 1 }, routers[16] = { 0xff, 2, [15] = 2 };
    uint8_t from[16], gateway[16], to[16], body[64] = { 0 };
    size_t n = 8;

    link_local(from, w->mac);
    link_local(gateway, w->gateway_mac);
    memcpy(to, p->kind == PROBE_IPV6_RS ? routers : all_nodes, 16);
    if (p->kind == PROBE_IPV6_UDP) {
        memcpy(to, gateway, 16);
        set16(body, 40053);
        set16(body + 2, p->port);
        n = 16;
        set16(body + 4, (uint16_t)n);
    } else if (p->kind == PROBE_IPV6_RS) {
        body[0] = 133;
    } else {
        /* who has the gateway's address? To its solicited-node group. */
        const uint8_t group[16] = { 0xff, 2, [11] = 1, 0xff, gateway[13], gateway[14],
                                    gateway[15] };
        memcpy(to, group, 16);
        body[0] = 135;
        memcpy(body + 8, gateway, 16);
        body[24] = 1;
        body[25] = 1;
        memcpy(body + 26, w->mac, 6);
        n = 32;
    }
    uint8_t next = p->kind == PROBE_IPV6_UDP ? IPPROTO_UDP : IPPROTO_ICMPV6;
    uint32_t sum = add_up(add_up((uint32_t)n + next, from, 16), to, 16);
    set16(body + (next == IPPROTO_UDP ? 6 : 2), fold(add_up(sum, body, n)));
    const uint8_t group_mac[6] = { 0x33, 0x33, to[12], to[13], to[14], to[15] };
    put_ethernet(f, p->kind == PROBE_IPV6_UDP ? w->gateway_mac : group_mac, w->mac, ETH_P_IPV6);
    put32(f, 0x60000000);
    put16(f, (unsigned)n);
    put8(f, next);
    put8(f, 255);
    put(f, from, 16);
    put(f, to, 16);
    put(f, body, n);
}

/* One or two frames. */
static size_t build(const struct sent *s, struct packet f[2])
{
    const struct probe *p = s->probe;
    const struct where *w = s->w;
    struct packet inner = { .len = 0 };

    f[0].len = f[1].len = 0;
    switch (p->kind) {
    case PROBE_ARP:
        put_ethernet(&f[0], broadcast, w->mac, ETH_P_ARP);
        put_arp(&f[0], w, 1, w->address, p->address);
        return 1;
    case PROBE_ARP_ANNOUNCE:
        put_ethernet(&f[0], broadcast, w->mac, ETH_P_ARP);
        put_arp(&f[0], w, 2, p->address, p->address);
        return 1;
    case PROBE_IPV6_RS:
    case PROBE_IPV6_NS:
    case PROBE_IPV6_UDP:
        put_ipv6(&f[0], w, p);
        return 1;
    case PROBE_ETHERTYPE:
        put_ethernet(&f[0], w->gateway_mac, w->mac, p->ethertype);
        for (size_t i = 0; i < 46; i++)
            put8(&f[0], 0);
        return 1;
    default:
        break;
    }
    put_transport(&inner, s);
    put_ethernet(&f[0], w->gateway_mac, p->kind == PROBE_SPOOF_MAC ? p->mac : w->mac,
                 p->kind == PROBE_VLAN ? ETH_P_8021Q : ETH_P_IP);
    if (p->kind == PROBE_VLAN) {
        put16(&f[0], p->vlan);
        put16(&f[0], ETH_P_IP);
    }
    if (p->kind != PROBE_FRAGMENTS) {
        put_ipv4(&f[0], s, 0, inner.b, inner.len);
        return 1;
    }
    size_t first = p->tcp ? FRAGMENT_TCP : FRAGMENT_UDP;
    put_ipv4(&f[0], s, MORE_FRAGMENTS, inner.b, first);
    put_ethernet(&f[1], w->gateway_mac, w->mac, ETH_P_IP);
    put_ipv4(&f[1], s, (unsigned)first / 8, inner.b + first, inner.len - first);
    return 2;
}

/* ---- looking ---- */

static bool is_answer_ipv4(const struct sent *s, const uint8_t *b, size_t n, struct probe_result *r)
{
    size_t header = n >= IP_BYTES ? (b[0] & 15u) * 4 : 0;
    const uint8_t *t = b + header;

    if (header < IP_BYTES || n < header + 8)
        return false;
    if (b[9] == IPPROTO_ICMP && (t[0] == 3 || t[0] == 11)) {
        if (n < header + 8 + IP_BYTES || get16(t + 8 + 4) != s->id ||
            get32(t + 8 + 16) != s->probe->address)
            return false;
        probe_say_icmp(r, t[0], t[1], get32(b + 12));
        return true;
    }
    if (get32(b + 12) != s->probe->address || b[9] != (s->probe->tcp ? IPPROTO_TCP : IPPROTO_UDP) ||
        get16(t) != s->probe->port || get16(t + 2) != s->port)
        return false;
    if (s->probe->tcp && n >= header + TCP_BYTES && (t[13] & 4))
        probe_say(r, SEEN_RESET, "a TCP reset came back");
    else
        probe_say(r, SEEN_ANSWERED, "%zu bytes came back", n - header);
    return true;
}

static bool is_answer(const struct sent *s, const uint8_t *b, size_t n, struct probe_result *r)
{
    const struct probe *p = s->probe;
    unsigned type = n >= ETH_HLEN ? get16(b + 12) : 0;
    const uint8_t *x = b + ETH_HLEN;

    if (type == ETH_P_IP)
        return is_answer_ipv4(s, x, n - ETH_HLEN, r);
    if (type == ETH_P_ARP && p->kind == PROBE_ARP && n >= ETH_HLEN + 28 && get16(x + 6) == 2 &&
        get32(x + 14) == p->address) {
        probe_say(r, SEEN_ANSWERED, "it is at %02x:%02x:%02x:%02x:%02x:%02x", x[8], x[9], x[10],
                  x[11], x[12], x[13]);
        return true;
    }
    if (type == ETH_P_IPV6 && (p->kind == PROBE_IPV6_RS || p->kind == PROBE_IPV6_NS ||
                               p->kind == PROBE_IPV6_UDP)) {
        probe_say(r, SEEN_ANSWERED, "an IPv6 packet came back");
        return true;
    }
    return false;
}

static void watch(const struct sent *s, int fd, int64_t deadline, struct probe_result *r)
{
    uint8_t b[FRAME_MAX];
    struct err e = ERR_INIT;

    while (deadline_left(deadline) > 0 && io_wait(fd, POLLIN, deadline, &e) > 0) {
        struct sockaddr_ll from = { 0 };
        socklen_t len = sizeof(from);
        ssize_t n = recvfrom(fd, b, sizeof(b), MSG_DONTWAIT, (struct sockaddr *)&from, &len);

        if (n > 0 && from.sll_pkttype != PACKET_OUTGOING && is_answer(s, b, (size_t)n, r))
            return;
    }
    probe_say(r, SEEN_SENT, "sent, nothing came back");
}

void probe_by_frame(const struct probe *p, struct probe_result *r)
{
    int64_t deadline = deadline_in(p->timeout_ms);
    uint16_t random[2] = { 1, 1 };
    struct packet frames[2];
    struct where w;

    if (!find_where(&w, r))
        return;
    if (getrandom(random, sizeof(random), GRND_NONBLOCK) < 0)
        random[0] = random[1] = (uint16_t)now_mono_us();
    const struct sent s = {
        .probe = p,
        .w = &w,
        .source = p->kind == PROBE_SPOOF_ADDRESS ? p->source : w.address,
        .port = (uint16_t)(20000 + random[0] % 10000),  /* below those the kernel gives away */
        .id = (uint16_t)(random[1] | 1),
    };
    struct sockaddr_ll sa = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
                              .sll_ifindex = w.index };
    autoclose int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        probe_say(r, SEEN_FAILED, "cannot open the interface: %s", strerror(errno));
        return;
    }
    for (size_t i = 0, n = build(&s, frames); i < n; i++) {
        if (send(fd, frames[i].b, frames[i].len, 0) != (ssize_t)frames[i].len) {
            probe_say(r, SEEN_FAILED, "cannot send: %s", strerror(errno));
            return;
        }
    }
    watch(&s, fd, deadline, r);
}
