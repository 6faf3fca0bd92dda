/* SPDX-License-Identifier: MIT
 *
 * filter_list: what the kernel has of the filter, asked without changing anything: chains, and
 * elements of sets.
 */
#include "common/auto.h"
#include "daemon/filter.h"
#include "daemon/netlink.h"
#include "daemon/nft.h"

#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/set.h>
#include <netinet/in.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <string.h>

AUTO_DEFINE(nftchain, struct nftnl_chain, nftnl_chain_free)

struct listing {
    filter_chain_fn fn;
    void *arg;
};

static int on_chain(const struct nlmsghdr *h, void *arg)
{
    autotype(nftchain) struct nftnl_chain *c = nftnl_chain_alloc();
    const struct listing *l = arg;

    if (!c || nftnl_chain_nlmsg_parse(h, c) < 0)
        return MNL_CB_OK;
    const char *table = nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE);
    const char *name = nftnl_chain_get_str(c, NFTNL_CHAIN_NAME);
    if (table && name && strcmp(table, FILTER_TABLE) == 0)
        l->fn(l->arg, name);
    return MNL_CB_OK;
}

int filter_chains(filter_chain_fn fn, void *arg, struct err *e)
{
    static const uint16_t families[] = { NFPROTO_INET, NFPROTO_NETDEV };
    autonetlink struct mnl_socket *s = NULL;
    struct listing l = { fn, arg };

    if (netlink_open(NETLINK_NETFILTER, 0, &s, e) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        char buf[NETLINK_MESSAGE];
        struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETCHAIN, families[i], 0,
                                                   netlink_sequence(1));
        if (netlink_dump(s, h, on_chain, &l, e) == 0)
            continue;
        /* A kernel without nftables, or without that family, has nothing in it. */
        if (e->sys != ENOENT && e->sys != EOPNOTSUPP && e->sys != EINVAL)
            return err_wrap(e, "packet filter");
        *e = ERR_INIT;
    }
    return 0;
}

/* --- elements --- */

struct reading {
    filter_elem_fn fn;
    void *arg;
};

static bool split_key(struct nftnl_set_elem *x, uint16_t attr, uint32_t *address, uint8_t *proto,
                      uint16_t *port)
{
    uint32_t len = 0;
    const uint8_t *key = nftnl_set_elem_get(x, attr, &len);
    uint32_t a;
    uint16_t p;

    if (!key || len < 10)
        return false;
    memcpy(&a, key, sizeof(a));
    memcpy(&p, key + 8, sizeof(p));
    *address = ntohl(a);
    *proto = key[4] == IPPROTO_UDP ? POLICY_UDP : POLICY_TCP;
    *port = ntohs(p);
    return true;
}

static void on_elem(void *arg, struct nftnl_set_elem *x)
{
    const struct reading *r = arg;
    struct filter_elem out = { 0 };
    uint8_t proto;

    if (!split_key(x, NFTNL_SET_ELEM_KEY, &out.lo, &out.proto, &out.port_lo))
        return;
    if (!split_key(x, NFTNL_SET_ELEM_KEY_END, &out.hi, &proto, &out.port_hi)) {
        out.hi = out.lo;
        out.port_hi = out.port_lo;
    }
    out.packets = nft_elem_packets(x);
    if (nftnl_set_elem_is_set(x, NFTNL_SET_ELEM_EXPIRATION))
        out.expires_ms = nftnl_set_elem_get_u64(x, NFTNL_SET_ELEM_EXPIRATION);
    nft_elem_comment(x, out.name, sizeof(out.name));
    r->fn(r->arg, &out);
}

int filter_read(struct filter *f, const char *id, char set, filter_elem_fn fn, void *arg,
                struct err *e)
{
    struct reading r = { fn, arg };
    char name[24];

    snprintf(name, sizeof(name), "%c-%.16s", set, id);
    return nft_dump_elems(filter_socket(f), NFPROTO_INET, FILTER_TABLE, name, on_elem, &r, e);
}
