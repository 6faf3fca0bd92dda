/* SPDX-License-Identifier: MIT
 *
 * egress_probe: what the host's kernel has of what networks of sandboxes need, each thing tried by
 * itself in a network namespace that is gone afterwards. A thread may have one of its own
 * (unshare(2)), so nothing of the daemon's or the host's is touched.
 */
#include "daemon/egress_priv.h"

#include "common/io.h"
#include "common/sbuf.h"
#include "daemon/flows.h"
#include "daemon/guard.h"
#include "daemon/netlink.h"
#include "daemon/nft.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define T "probe"

static const struct subnet range = { 0x0ad10000, 16 };
static const struct nft_hook prerouting = { "filter", NF_INET_PRE_ROUTING, 0, false, NULL };

/* A rule of one expression in a chain of its own. */
static int try_rule(const struct nft_hook *hook, void (*expression)(struct nft_batch *),
                    struct err *e)
{
    autonetlink struct mnl_socket *s = NULL;
    autobatch struct nft_batch *b = NULL;

    if (netlink_open(NETLINK_NETFILTER, 0, &s, e) < 0 || nft_batch_new(&b, e) < 0)
        return -1;
    nft_table(b, true, NFPROTO_INET, T);
    nft_base_chain(b, NFPROTO_INET, T, "c", hook);
    nft_rule(b, NFPROTO_INET, T, "c");
    if (expression)
        expression(b);
    nft_rule_end(b);
    int r = nft_commit(s, b, e);
    struct err ignored = ERR_INIT;
    nft_table(b, false, NFPROTO_INET, T);
    nft_commit(s, b, &ignored);
    return r;
}

static int probe_tables(struct err *e)
{
    return try_rule(&prerouting, NULL, e);
}

static int probe_nat(struct err *e)
{
    static const struct nft_hook hook = { "nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC, false,
                                          NULL };

    return try_rule(&hook, nft_masquerade, e);
}

static void log_packets(struct nft_batch *b)
{
    nft_log(b, FILTER_LOG_GROUP, 96, "probe");
}

static int probe_log(struct err *e)
{
    struct packet_log *l = NULL;

    if (packet_log_open(FILTER_LOG_GROUP, &l, e) < 0)
        return -1;
    packet_log_close(l);
    return try_rule(&prerouting, log_packets, e);
}

static void count_connections(struct nft_batch *b)
{
    nft_connections_over(b, 10);
}

static int probe_count(struct err *e)
{
    return try_rule(&prerouting, count_connections, e);
}

static void ask_routes(struct nft_batch *b)
{
    nft_fib_type(b, 0);
}

static int probe_fib(struct err *e)
{
    return try_rule(&prerouting, ask_routes, e);
}

/* All of a sandbox, with its chain at the device's ingress and its sets. */
static int probe_sandbox(struct err *e)
{
    struct filter_options o = { .net = range, .connections = 10, .new_per_second = 10,
                                .uid_lo = 1, .uid_hi = 2 };
    struct filter_box box = { .id = "0123456789abcdef", .slot = 1 };
    struct filter *f = NULL;
    struct link l;
    struct err ignored = ERR_INIT;

    link_describe(&range, box.id, 1, LINK_MTU, &l);
    box.link = &l;
    if (link_create(&l, 0, e) < 0)
        return -1;
    int r = filter_open(&o, &f, e);
    if (r == 0)
        r = filter_rebuild(f, &box, 1, NULL, 0, e);
    if (r == 0)
        r = link_up(&l, e);
    if (f)
        filter_close(f);
    link_delete(l.name, &ignored);
    return r;
}

static int probe_tun(struct err *e)
{
    struct link l;

    link_describe(&range, "0123456789abcdef", 1, LINK_MTU, &l);
    return link_create(&l, 0, e) < 0 ? -1 : link_delete(l.name, e);
}

static int probe_guard(struct err *e)
{
    return guard_close(&range, e) < 0 ? -1 : guard_open(&range, e);
}

static int probe_flows(struct err *e)
{
    unsigned n;

    return flows_cut(range.address, NULL, NULL, &n, e);
}

static const struct {
    const char *what;
    int (*probe)(struct err *e);
} probes[] = {
    { "tun: links for sandboxes", probe_tun },
    { "nf_tables: the packet filter", probe_tables },
    { "nft masquerade: the way out", probe_nat },
    { "nft log: what sandboxes did", probe_log },
    { "nft ct count: limits of connections", probe_count },
    { "nft fib: the host's own addresses", probe_fib },
    { "netdev hook: forged frames", probe_sandbox },
    { "xfrm: closed when the filter is gone", probe_guard },
    { "conntrack: ending connections", probe_flows },
};
_Static_assert(ARRAY_SIZE(probes) == EGRESS_PROBES, "as many as the header says");

static void err_words(const struct err *e, char *buf, size_t size)
{
    autosbuf struct sbuf b = SBUF(size - 1);

    sbuf_add(&b, e->msg, strlen(e->msg));
    if (e->hint[0])
        sbuf_fmt(&b, "; %s", e->hint);
    snprintf(buf, size, "%s", b.failed ? e->msg : sbuf_str(&b));
}

static void *probe_all(void *arg)
{
    struct egress_probe *ret = arg;
    int sys = unshare(CLONE_NEWNET) < 0 ? errno : 0;

    for (size_t i = 0; i < ARRAY_SIZE(probes); i++) {
        struct err e = ERR_INIT;
        ret[i] = (struct egress_probe){ .what = probes[i].what };
        if (sys)
            err_sys(&e, ERR_NETWORK, sys, "cannot make a network to try it in");
        ret[i].ok = !sys && probes[i].probe(&e) == 0;
        if (!ret[i].ok)
            err_words(&e, ret[i].why, sizeof(ret[i].why));
    }
    return NULL;
}

int egress_probe(struct egress_probe ret[EGRESS_PROBES], struct err *e)
{
    pthread_t t;
    int sys = pthread_create(&t, NULL, probe_all, ret);

    if (sys)
        return err_sys(e, ERR_INTERNAL, sys, "cannot start a thread");
    pthread_join(t, NULL);
    return 0;
}

bool egress_status(struct egress *g, char *ret, size_t size)
{
    char text[ADDRESS_TEXT];

    if (!egress_enabled(g)) {
        snprintf(ret, size, "switched off by \"network\" of the configuration");
        return true;
    }
    hold_lock(&g->change);
    if (g->ready)
        snprintf(ret, size, "%s/%u", address_format(g->net.address, text), g->net.prefix);
    else
        err_words(&g->broken, ret, size);
    return g->ready;
}
