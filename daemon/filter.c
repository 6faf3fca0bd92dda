/* SPDX-License-Identifier: MIT */
#include "daemon/filter.h"

#include "common/auto.h"
#include "daemon/guard.h"
#include "daemon/netlink.h"
#include "daemon/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/table.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define T FILTER_TABLE
#define INET NFPROTO_INET
#define NETDEV NFPROTO_NETDEV

#define SNAPLEN 96              /* of a packet that is logged: addresses and ports */
#define LOG_PER_SECOND 20       /* denials of one sandbox that are told one by one */
#define LOG_BURST 100
#define ARP_PER_SECOND 20
#define RESOLVER_CONNECTIONS 32 /* of one sandbox, by TCP */

/* nft(8)'s numbers of types, 6 bits each in a concatenation; only it reads them. */
#define TYPE_IPV4 7u
#define TYPE_PROTO 12u
#define TYPE_PORT 13u
#define TYPE_IFINDEX 20u
#define TYPE_IFNAME 41u

/* Bits of ct state. */
#define STATE_INVALID 1u
#define STATE_ESTABLISHED 2u
#define STATE_RELATED 4u
#define STATE_NEW 8u
#define STATE_UNTRACKED 64u

struct filter {
    struct filter_options o;
    struct mnl_socket *s;       /* owned */
    struct nft_batch *b;        /* owned */
    struct filter_upstream upstreams[FILTER_UPSTREAMS];
    size_t n_upstreams;
    uint32_t generation;        /* of the whole ruleset, after our last change */
    bool met_others;            /* somebody else's changes came between ours */
};

int filter_open(const struct filter_options *o, struct filter **ret, struct err *e)
{
    struct filter *f = calloc(1, sizeof(*f));

    if (!f)
        return err_nomem(e);
    f->o = *o;
    if (netlink_open(NETLINK_NETFILTER, 0, &f->s, e) < 0 || nft_batch_new(&f->b, e) < 0) {
        filter_close(f);
        return err_hint(e, "the kernel needs nf_tables (CONFIG_NF_TABLES_INET)");
    }
    filter_alone(f);            /* from here on */
    *ret = f;
    return 0;
}

void filter_close(struct filter *f)
{
    if (f->b)
        nft_batch_free(f->b);
    netlink_close(f->s);
    free(f);
}

uint32_t filter_port(const struct filter *f)
{
    return mnl_socket_get_portid(f->s);
}

/* Each change that changes something makes the generation one more. */
static void note_generation(struct filter *f, uint32_t expected)
{
    struct err ignored = ERR_INIT;
    uint32_t now = 0;

    if (nft_generation(f->s, &now, &ignored) < 0 || now - f->generation > expected)
        f->met_others = true;
    f->generation = now;
}

static int commit(struct filter *f, struct err *e)
{
    int r = nft_commit(f->s, f->b, e);

    note_generation(f, r == 0 ? 1 : 0);
    return r;
}

struct mnl_socket *filter_socket(struct filter *f)
{
    return f->s;
}

bool filter_alone(struct filter *f)
{
    note_generation(f, 0);
    bool r = !f->met_others;
    f->met_others = false;
    return r;
}

/* --- names of what belongs to a sandbox --- */

struct names {
    char box[24], ok[24], no[24], full[24], s[24], h[24], n[24];
};

static struct names names_of(const char *id)
{
    struct names x;

    snprintf(x.box, sizeof(x.box), "box-%.16s", id);
    snprintf(x.ok, sizeof(x.ok), "ok-%.16s", id);
    snprintf(x.no, sizeof(x.no), "no-%.16s", id);
    snprintf(x.full, sizeof(x.full), "full-%.16s", id);
    snprintf(x.s, sizeof(x.s), "s-%.16s", id);
    snprintf(x.h, sizeof(x.h), "h-%.16s", id);
    snprintf(x.n, sizeof(x.n), "n-%.16s", id);
    return x;
}

/* --- pieces of rules --- */

static void match_u8(struct nft_batch *b, uint8_t v)
{
    nft_cmp(b, 0, NFT_CMP_EQ, &v, sizeof(v));
}

static void match_u32(struct nft_batch *b, uint32_t op, uint32_t v)
{
    nft_cmp(b, 0, op, &v, sizeof(v));
}

static void match_bytes(struct nft_batch *b, uint32_t base, uint32_t offset, const void *v,
                        uint32_t len)
{
    nft_payload(b, base, offset, len, 0);
    nft_cmp(b, 0, NFT_CMP_EQ, v, len);
}

static void match_state(struct nft_batch *b, uint32_t states)
{
    nft_ct(b, NFT_CT_STATE, 0);
    nft_and(b, 0, states);
    match_u32(b, NFT_CMP_NEQ, 0);
}

static void match_direction(struct nft_batch *b, uint8_t direction)
{
    nft_ct(b, NFT_CT_DIRECTION, 0);
    match_u8(b, direction);
}

static void match_unmarked(struct nft_batch *b)
{
    nft_meta(b, NFT_META_MARK, 0);
    nft_and(b, 0, GUARD_MARK);
    match_u32(b, NFT_CMP_EQ, 0);
}

/* key: NFT_META_IIFNAME or NFT_META_OIFNAME. */
static void match_taps(struct nft_batch *b, uint32_t key, uint32_t op)
{
    nft_meta(b, key, 0);
    nft_cmp(b, 0, op, LINK_PREFIX, strlen(LINK_PREFIX));
}

static void match_ipv4(struct nft_batch *b)
{
    nft_meta(b, NFT_META_NFPROTO, 0);
    match_u8(b, NFPROTO_IPV4);
}

static void match_proto(struct nft_batch *b, uint8_t proto)
{
    nft_meta(b, NFT_META_L4PROTO, 0);
    match_u8(b, proto);
}

static void rule(struct filter *f, const char *chain)
{
    nft_rule(f->b, INET, T, chain);
}

static void ends(struct filter *f, int verdict)
{
    nft_verdict(f->b, verdict);
    nft_rule_end(f->b);
}

static void goes(struct filter *f, const char *chain)
{
    nft_goto(f->b, chain);
    nft_rule_end(f->b);
}

/* address . proto . port of the packet, in consecutive registers, are in the set */
static void match_destination(struct nft_batch *b, const char *set)
{
    nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, 0);
    nft_meta(b, NFT_META_L4PROTO, 1);
    nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, 2);
    nft_lookup(b, 0, set, false);
}

/* --- the parts that are there once --- */

static void put_tables(struct filter *f)
{
    /* Added so that they can be deleted, whether they were there or not. */
    for (int pass = 0; pass < 3; pass++) {
        nft_table(f->b, pass != 1, INET, T);
        nft_table(f->b, pass != 1, NETDEV, T);
    }
}

static void put_from_guests(struct filter *f)
{
    struct nft_batch *b = f->b;
    static const struct nft_hook hook = { "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_MANGLE, false,
                                          NULL };
    static const struct nft_set boxes = {
        .name = "boxes", .flags = NFT_SET_MAP, .key_type = TYPE_IFNAME << 6 | TYPE_IPV4,
        .key_len = IFNAMSIZ + 4, .verdicts = true,
    };

    nft_set(b, INET, T, &boxes);
    nft_base_chain(b, INET, T, "from_guests", &hook);
    rule(f, "from_guests");
    match_ipv4(b);
    nft_meta(b, NFT_META_IIFNAME, 0);
    nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, IFNAMSIZ / 4);
    nft_lookup(b, 0, "boxes", true);
    nft_rule_end(b);
    rule(f, "from_guests");
    match_taps(b, NFT_META_IIFNAME, NFT_CMP_EQ);
    nft_counter(b);
    ends(f, NF_DROP);
}

static void put_opened(struct filter *f, const uint32_t *opened, size_t n)
{
    if (n == 0)
        return;
    nft_elems(f->b, true, INET, T, "opened");
    for (size_t i = 0; i < n; i++) {
        nft_elem(f->b, &(struct nft_elem){ .key = &opened[i], .key_len = sizeof(opened[i]) });
    }
    nft_elems_end(f->b);
}

static void put_forward(struct filter *f, const uint32_t *opened, size_t n)
{
    struct nft_batch *b = f->b;
    static const struct nft_hook hook = { "filter", NF_INET_FORWARD, NF_IP_PRI_FILTER, false,
                                          NULL };
    static const struct nft_set set = {
        .name = "opened", .key_type = TYPE_IFINDEX, .key_len = sizeof(uint32_t),
    };

    nft_set(b, INET, T, &set);
    nft_base_chain(b, INET, T, "forward", &hook);
    /* What comes from a tap has its mark or was rejected before. */
    rule(f, "forward");
    match_taps(b, NFT_META_IIFNAME, NFT_CMP_EQ);
    match_unmarked(b);
    nft_counter(b);
    ends(f, NF_DROP);
    rule(f, "forward");
    match_taps(b, NFT_META_IIFNAME, NFT_CMP_EQ);
    match_taps(b, NFT_META_OIFNAME, NFT_CMP_EQ);
    nft_counter(b);
    ends(f, NF_DROP);
    /* Into a sandbox only what answers it: a flow that began elsewhere may have been let through
     * when there was no link yet, and would be an established one ever after. */
    rule(f, "forward");
    match_taps(b, NFT_META_IIFNAME, NFT_CMP_NEQ);
    match_taps(b, NFT_META_OIFNAME, NFT_CMP_EQ);
    match_direction(b, IP_CT_DIR_ORIGINAL);
    nft_counter(b);
    ends(f, NF_DROP);
    rule(f, "forward");
    match_taps(b, NFT_META_IIFNAME, NFT_CMP_NEQ);
    match_taps(b, NFT_META_OIFNAME, NFT_CMP_EQ);
    match_state(b, STATE_NEW | STATE_INVALID | STATE_UNTRACKED);
    nft_counter(b);
    ends(f, NF_DROP);
    rule(f, "forward");
    nft_meta(b, NFT_META_IIF, 0);
    nft_lookup(b, 0, "opened", false);
    match_taps(b, NFT_META_OIFNAME, NFT_CMP_NEQ);
    nft_counter(b);
    ends(f, NF_DROP);
    put_opened(f, opened, n);
}

static void put_masquerade(struct filter *f)
{
    struct nft_batch *b = f->b;
    static const struct nft_hook hook = { "nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC, false,
                                          NULL };
    uint32_t mask = htonl(UINT32_MAX << (32 - f->o.net.prefix));

    nft_base_chain(b, INET, T, "masquerade", &hook);
    rule(f, "masquerade");
    match_ipv4(b);
    nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, 0);
    nft_and(b, 0, mask);
    match_u32(b, NFT_CMP_EQ, htonl(f->o.net.address));
    match_taps(b, NFT_META_OIFNAME, NFT_CMP_NEQ);
    nft_masquerade(b);
    nft_rule_end(b);
}

static void put_upstreams(struct filter *f)
{
    nft_elems(f->b, true, INET, T, "upstreams");
    for (size_t i = 0; i < f->n_upstreams; i++) {
        uint32_t address = htonl(f->upstreams[i].address);
        uint16_t port = htons(f->upstreams[i].port);
        uint8_t key[8] = { 0 };
        memcpy(key, &address, sizeof(address));
        memcpy(key + 4, &port, sizeof(port));
        nft_elem(f->b, &(struct nft_elem){ .key = key, .key_len = sizeof(key) });
    }
    nft_elems_end(f->b);
}

static void match_resolver(struct filter *f)
{
    rule(f, "from_helpers");
    nft_meta(f->b, NFT_META_SKUID, 0);
    match_u32(f->b, NFT_CMP_EQ, f->o.uid_resolver);
}

static void put_from_resolver(struct filter *f)
{
    struct nft_batch *b = f->b;
    static const struct nft_set upstreams = {
        .name = "upstreams", .key_type = TYPE_IPV4 << 6 | TYPE_PORT, .key_len = 8,
    };

    nft_set(b, INET, T, &upstreams);
    put_upstreams(f);
    match_resolver(f);          /* answers to guests by TCP, whose sockets it has accepted itself */
    match_direction(b, IP_CT_DIR_REPLY);
    ends(f, NF_ACCEPT);
    match_resolver(f);
    match_ipv4(b);
    nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, 0);
    nft_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, 1);
    nft_lookup(b, 0, "upstreams", false);
    ends(f, NF_ACCEPT);
    match_resolver(f);
    nft_counter(b);
    ends(f, NF_DROP);
}

/* QEMU speaks to Unix sockets and its tap only. */
static void put_from_helpers(struct filter *f)
{
    struct nft_batch *b = f->b;
    static const struct nft_hook hook = { "filter", NF_INET_LOCAL_OUT, NF_IP_PRI_FILTER, false,
                                          NULL };

    nft_base_chain(b, INET, T, "from_helpers", &hook);
    /* The resolver has sockets that the daemon opened, and by their uid is root: so by address. */
    rule(f, "from_helpers");
    match_ipv4(b);
    nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, 0);
    nft_and(b, 0, htonl(UINT32_MAX << (32 - f->o.net.prefix)));
    match_u32(b, NFT_CMP_EQ, htonl(f->o.net.address));
    match_taps(b, NFT_META_OIFNAME, NFT_CMP_NEQ);
    nft_meta(b, NFT_META_OIFNAME, 0);
    nft_cmp(b, 0, NFT_CMP_NEQ, "lo", sizeof("lo"));
    nft_counter(b);
    ends(f, NF_DROP);
    if (f->o.uid_lo) {
        rule(f, "from_helpers");
        nft_meta(b, NFT_META_SKUID, 0);
        nft_between(b, 0, f->o.uid_lo, f->o.uid_hi);
        nft_counter(b);
        ends(f, NF_DROP);
    }
    if (f->o.uid_resolver)
        put_from_resolver(f);
}

/* --- a sandbox --- */

static void put_ingress(struct filter *f, const struct link *l, uint32_t slot)
{
    struct nft_batch *b = f->b;
    const struct nft_hook hook = { "filter", NF_NETDEV_INGRESS, -500, true, l->name };
    uint16_t ip = htons(ETH_P_IP), arp = htons(ETH_P_ARP);
    uint32_t address = htonl(l->address);
    char prefix[32];

    nft_base_chain(b, NETDEV, T, l->name, &hook);
    /* A tag that the driver took off is put back for this look: 802.1Q is no IPv4 then. */
    nft_rule(b, NETDEV, T, l->name);
    match_bytes(b, NFT_PAYLOAD_LL_HEADER, 12, &ip, sizeof(ip));
    match_bytes(b, NFT_PAYLOAD_LL_HEADER, 6, l->mac, sizeof(l->mac));
    match_bytes(b, NFT_PAYLOAD_NETWORK_HEADER, 12, &address, sizeof(address));
    ends(f, NF_ACCEPT);
    nft_rule(b, NETDEV, T, l->name);
    match_bytes(b, NFT_PAYLOAD_LL_HEADER, 12, &arp, sizeof(arp));
    match_bytes(b, NFT_PAYLOAD_LL_HEADER, 6, l->mac, sizeof(l->mac));
    match_bytes(b, NFT_PAYLOAD_NETWORK_HEADER, 8, l->mac, sizeof(l->mac));
    match_bytes(b, NFT_PAYLOAD_NETWORK_HEADER, 14, &address, sizeof(address));
    nft_limit(b, ARP_PER_SECOND, ARP_PER_SECOND, false);
    ends(f, NF_ACCEPT);
    nft_rule(b, NETDEV, T, l->name);
    nft_counter(b);
    nft_limit(b, LOG_PER_SECOND, LOG_BURST, false);
    snprintf(prefix, sizeof(prefix), "%u x", slot);
    nft_log(b, FILTER_LOG_GROUP, SNAPLEN, prefix);
    nft_rule_end(b);
    nft_rule(b, NETDEV, T, l->name);
    ends(f, NF_DROP);
}

static void put_reject(struct filter *f, const char *chain, uint32_t slot, char why)
{
    struct nft_batch *b = f->b;
    char prefix[32];

    snprintf(prefix, sizeof(prefix), "%u %c", slot, why);
    rule(f, chain);
    nft_counter(b);
    nft_limit(b, LOG_PER_SECOND, LOG_BURST, false);
    nft_log(b, FILTER_LOG_GROUP, SNAPLEN, prefix);
    nft_rule_end(b);
    rule(f, chain);
    match_proto(b, IPPROTO_TCP);
    nft_reject_tcp(b);
    nft_rule_end(b);
    rule(f, chain);
    nft_reject_icmp(b);
    nft_rule_end(b);
}

static void put_accept(struct filter *f, const char *chain, const char *full, uint32_t slot)
{
    struct nft_batch *b = f->b;
    char prefix[32];

    snprintf(prefix, sizeof(prefix), "%u a", slot);
    rule(f, chain);
    nft_connections_over(b, f->o.connections);
    goes(f, full);
    rule(f, chain);
    nft_counter(b);
    nft_log(b, FILTER_LOG_GROUP, SNAPLEN, prefix);
    nft_mark(b, GUARD_MARK);
    ends(f, NF_ACCEPT);
}

/* Begins a rule about questions to the resolver. */
static void match_dns(struct filter *f, const char *chain, const uint32_t *gateway, uint8_t proto)
{
    uint16_t dns = htons(53);

    rule(f, chain);
    match_bytes(f->b, NFT_PAYLOAD_NETWORK_HEADER, 16, gateway, sizeof(*gateway));
    match_proto(f->b, proto);
    match_bytes(f->b, NFT_PAYLOAD_TRANSPORT_HEADER, 2, &dns, sizeof(dns));
}

static void put_box_chain(struct filter *f, const struct names *x, const struct link *l)
{
    struct nft_batch *b = f->b;
    static const uint8_t dns_over[] = { IPPROTO_UDP, IPPROTO_TCP };
    uint32_t gateway = htonl(l->gateway);

    /* Before all else, as questions by one socket are one flow, however many. */
    if (f->o.questions_per_second) {
        match_dns(f, x->box, &gateway, IPPROTO_UDP);
        nft_limit(b, f->o.questions_per_second, 4 * f->o.questions_per_second, true);
        nft_counter(b);
        ends(f, NF_DROP);
    }
    /* Nor does it answer anybody who began by himself, but the host. */
    rule(f, x->box);
    match_direction(b, IP_CT_DIR_REPLY);
    nft_fib_type(b, 0);
    match_u32(b, NFT_CMP_NEQ, RTN_LOCAL);
    goes(f, x->no);
    rule(f, x->box);
    match_state(b, STATE_ESTABLISHED);
    nft_counter(b);
    nft_mark(b, GUARD_MARK);
    ends(f, NF_ACCEPT);
    /* An ICMP error about a flow of its own; one about another's would be a message to that one. */
    rule(f, x->box);
    match_state(b, STATE_RELATED);
    match_proto(b, IPPROTO_ICMP);
    nft_ct_source(b, 0);
    match_u32(b, NFT_CMP_EQ, htonl(l->address));
    nft_mark(b, GUARD_MARK);
    ends(f, NF_ACCEPT);
    rule(f, x->box);
    match_state(b, STATE_INVALID);
    nft_counter(b);
    ends(f, NF_DROP);
    rule(f, x->box);
    nft_limit(b, f->o.new_per_second, 2 * f->o.new_per_second, true);
    goes(f, x->full);
    for (size_t i = 0; i < ARRAY_SIZE(dns_over); i++) {
        match_dns(f, x->box, &gateway, dns_over[i]);
        nft_connections_over(b, dns_over[i] == IPPROTO_TCP ? RESOLVER_CONNECTIONS
                                                           : f->o.connections);
        goes(f, x->full);
        match_dns(f, x->box, &gateway, dns_over[i]);
        nft_mark(b, GUARD_MARK);
        ends(f, NF_ACCEPT);
    }
    /* The host's own addresses, whatever they are just now. */
    rule(f, x->box);
    nft_fib_type(b, 0);
    match_u32(b, NFT_CMP_EQ, RTN_LOCAL);
    match_destination(b, x->h);
    goes(f, x->ok);
    rule(f, x->box);
    nft_fib_type(b, 0);
    match_u32(b, NFT_CMP_NEQ, RTN_UNICAST);
    goes(f, x->no);
    /* Other sandboxes, which no policy of this one can agree to. */
    rule(f, x->box);
    nft_payload(b, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, 0);
    nft_and(b, 0, htonl(UINT32_MAX << (32 - f->o.net.prefix)));
    match_u32(b, NFT_CMP_EQ, htonl(f->o.net.address));
    goes(f, x->no);
    rule(f, x->box);
    match_destination(b, x->s);
    goes(f, x->ok);
    rule(f, x->box);
    match_destination(b, x->n);
    goes(f, x->ok);
    rule(f, x->box);
    goes(f, x->no);
}

static void destination_key(uint8_t key[12], uint32_t address, uint8_t proto, uint16_t port)
{
    uint32_t a = htonl(address);
    uint16_t p = htons(port);

    memset(key, 0, 12);
    memcpy(key, &a, 4);
    key[4] = proto == POLICY_UDP ? IPPROTO_UDP : IPPROTO_TCP;
    memcpy(key + 8, &p, 2);
}

static void put_spans(struct filter *f, const char *set, const struct policy_span *s, size_t n)
{
    nft_elems(f->b, true, INET, T, set);
    for (size_t i = 0; i < n; i++) {
        uint8_t lo[12], hi[12];
        destination_key(lo, s[i].lo, s[i].proto, s[i].port_lo);
        destination_key(hi, s[i].hi, s[i].proto, s[i].port_hi);
        nft_elem(f->b, &(struct nft_elem){ .key = lo, .key_end = hi, .key_len = sizeof(lo) });
    }
    nft_elems_end(f->b);
}

static void put_names(struct filter *f, const char *set, bool add, const struct filter_name *s,
                      size_t n)
{
    nft_elems(f->b, add, INET, T, set);
    for (size_t i = 0; i < n; i++) {
        uint8_t lo[12], hi[12];
        destination_key(lo, s[i].address, s[i].proto, s[i].port_lo);
        destination_key(hi, s[i].address, s[i].proto, s[i].port_hi);
        nft_elem(f->b, &(struct nft_elem){ .key = lo, .key_end = hi, .key_len = sizeof(lo),
                                           .timeout_ms = add ? s[i].timeout_ms : 0,
                                           .comment = add ? s[i].name : NULL });
    }
    nft_elems_end(f->b);
}

static void put_contents(struct filter *f, const struct names *x, const struct filter_box *box)
{
    put_spans(f, x->s, box->spans, box->n_spans);
    put_spans(f, x->h, box->host_spans, box->n_host_spans);
    put_names(f, x->n, true, box->names, box->n_names);
}

static void boxes_key(uint8_t key[IFNAMSIZ + 4], const struct link *l)
{
    uint32_t address = htonl(l->address);

    memset(key, 0, IFNAMSIZ + 4);
    memcpy(key, l->name, strnlen(l->name, IFNAMSIZ - 1));
    memcpy(key + IFNAMSIZ, &address, sizeof(address));
}

static void put_box(struct filter *f, const struct filter_box *box)
{
    struct names x = names_of(box->id);
    struct nft_set set = {
        .flags = NFT_SET_INTERVAL | NFT_SET_CONCAT, .key_len = 12, .fields = { 4, 1, 2 },
        .key_type = TYPE_IPV4 << 12 | TYPE_PROTO << 6 | TYPE_PORT, .counts = true,
    };
    uint8_t key[IFNAMSIZ + 4];

    set.name = x.s;
    nft_set(f->b, INET, T, &set);
    set.name = x.h;
    nft_set(f->b, INET, T, &set);
    set.name = x.n;
    set.flags |= NFT_SET_TIMEOUT;
    nft_set(f->b, INET, T, &set);
    nft_chain(f->b, true, INET, T, x.full);
    nft_chain(f->b, true, INET, T, x.no);
    nft_chain(f->b, true, INET, T, x.ok);
    nft_chain(f->b, true, INET, T, x.box);
    put_reject(f, x.full, box->slot, 'f');
    put_reject(f, x.no, box->slot, 'd');
    put_accept(f, x.ok, x.full, box->slot);
    put_box_chain(f, &x, box->link);
    put_contents(f, &x, box);
    put_ingress(f, box->link, box->slot);
    boxes_key(key, box->link);
    nft_elems(f->b, true, INET, T, "boxes");
    nft_elem(f->b, &(struct nft_elem){ .key = key, .key_len = sizeof(key), .go = x.box });
    nft_elems_end(f->b);
}

/* --- changes --- */

int filter_rebuild(struct filter *f, const struct filter_box *boxes, size_t n,
                   const uint32_t *opened, size_t n_opened, struct err *e)
{
    put_tables(f);
    put_from_guests(f);
    put_forward(f, opened, n_opened);
    put_masquerade(f);
    put_from_helpers(f);
    for (size_t i = 0; i < n; i++)
        put_box(f, &boxes[i]);
    return commit(f, e);
}

static int tolerate(struct err *e, int r)
{
    if (r < 0 && e->sys == ENOENT) {
        *e = ERR_INIT;
        return 0;
    }
    return r;
}

int filter_opened(struct filter *f, const uint32_t *opened, size_t n, struct err *e)
{
    nft_flush_elems(f->b, INET, T, "opened");
    put_opened(f, opened, n);
    return commit(f, e);
}

int filter_upstreams(struct filter *f, const struct filter_upstream *list, size_t n, struct err *e)
{
    f->n_upstreams = n < FILTER_UPSTREAMS ? n : FILTER_UPSTREAMS;
    memcpy(f->upstreams, list, f->n_upstreams * sizeof(*list));
    nft_flush_elems(f->b, INET, T, "upstreams");
    put_upstreams(f);
    return tolerate(e, commit(f, e));   /* tables of an older daemon: the next rebuild has it */
}

int filter_add(struct filter *f, const struct filter_box *box, struct err *e)
{
    put_box(f, box);
    return commit(f, e);
}

int filter_replace(struct filter *f, const struct filter_box *box, struct err *e)
{
    struct names x = names_of(box->id);

    nft_flush_elems(f->b, INET, T, x.s);
    nft_flush_elems(f->b, INET, T, x.h);
    nft_flush_elems(f->b, INET, T, x.n);
    put_contents(f, &x, box);
    return commit(f, e);
}

int filter_remove(struct filter *f, const char *id, const struct link *l, struct err *e)
{
    struct names x = names_of(id);
    const char *const chains[] = { x.box, x.ok, x.no, x.full };
    const char *const sets[] = { x.s, x.h, x.n };
    uint8_t key[IFNAMSIZ + 4];

    boxes_key(key, l);
    nft_elems(f->b, false, INET, T, "boxes");
    nft_elem(f->b, &(struct nft_elem){ .key = key, .key_len = sizeof(key), .go = NULL });
    nft_elems_end(f->b);
    for (size_t i = 0; i < ARRAY_SIZE(chains); i++)     /* rules first: they hold one another */
        nft_flush_chain(f->b, INET, T, chains[i]);
    for (size_t i = 0; i < ARRAY_SIZE(chains); i++)
        nft_chain(f->b, false, INET, T, chains[i]);
    for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
        nft_set_del(f->b, INET, T, sets[i]);
    if (tolerate(e, commit(f, e)) < 0)
        return -1;
    /* Of a tap that is gone the kernel took the chain with it, or left it without a hook. */
    nft_flush_chain(f->b, NETDEV, T, l->name);
    nft_chain(f->b, false, NETDEV, T, l->name);
    return tolerate(e, commit(f, e));
}

int filter_names(struct filter *f, const char *id, const struct filter_name *del, size_t n_del,
                 const struct filter_name *add, size_t n_add, struct err *e)
{
    struct names x = names_of(id);

    put_names(f, x.n, false, del, n_del);
    put_names(f, x.n, true, add, n_add);
    int r = commit(f, e);
    if (r == 0 || e->sys != ENOENT || n_del == 0)
        return r;
    /* One to be deleted has timed out just now. Delete what is left one by one, then add. */
    for (size_t i = 0; i < n_del; i++) {
        *e = ERR_INIT;
        put_names(f, x.n, false, &del[i], 1);
        if (tolerate(e, commit(f, e)) < 0)
            return -1;
    }
    put_names(f, x.n, true, add, n_add);
    return commit(f, e);
}

int filter_clear(struct filter *f, struct err *e)
{
    for (int pass = 0; pass < 2; pass++) {
        nft_table(f->b, pass == 0, INET, T);
        nft_table(f->b, pass == 0, NETDEV, T);
    }
    return commit(f, e);
}

static bool has_table(struct filter *f, int family)
{
    char buf[NETLINK_MESSAGE];
    struct nftnl_table *t = nftnl_table_alloc();
    struct err ignored = ERR_INIT;

    if (!t)
        return false;
    struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETTABLE, (uint16_t)family, 0,
                                               netlink_sequence(1));
    nftnl_table_set_str(t, NFTNL_TABLE_NAME, T);
    nftnl_table_nlmsg_build_payload(h, t);
    nftnl_table_free(t);
    return netlink_do(f->s, h, &ignored, "see our table") == 0;
}

bool filter_present(struct filter *f)
{
    return has_table(f, INET) && has_table(f, NETDEV);
}
