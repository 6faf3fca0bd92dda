/* SPDX-License-Identifier: MIT */
#include "daemon/firewalls.h"

#include "common/auto.h"
#include "daemon/filter.h"
#include "daemon/link.h"
#include "daemon/netlink.h"

#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <string.h>

#define CHAINS_MAX 32
#define CHAIN_NAME 64

struct chain {                  /* that sees what is forwarded */
    uint32_t family;
    char table[CHAIN_NAME], name[CHAIN_NAME];
    bool drops;                 /* what no rule of it lets pass */
    bool knows_us;
};
struct census {
    struct chain chains[CHAINS_MAX];
    size_t n;
};

static int on_chain(const struct nlmsghdr *h, void *arg)
{
    struct census *s = arg;
    struct nftnl_chain *c = nftnl_chain_alloc();

    if (!c)
        return MNL_CB_ERROR;
    if (nftnl_chain_nlmsg_parse(h, c) == 0 && nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM) &&
        nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM) == NF_INET_FORWARD && s->n < CHAINS_MAX) {
        struct chain *x = &s->chains[s->n];
        x->family = nftnl_chain_get_u32(c, NFTNL_CHAIN_FAMILY);
        x->drops = nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) == NF_DROP;
        snprintf(x->table, CHAIN_NAME, "%s", nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE));
        snprintf(x->name, CHAIN_NAME, "%s", nftnl_chain_get_str(c, NFTNL_CHAIN_NAME));
        s->n += (x->family == NFPROTO_IPV4 || x->family == NFPROTO_INET) &&
                strcmp(x->table, FILTER_TABLE) != 0;
    }
    nftnl_chain_free(c);
    return MNL_CB_OK;
}

struct look {                   /* at one rule */
    bool conditional;           /* it holds for some packets only */
    bool ends;                  /* by dropping or rejecting */
    bool knows_us;
};

static int on_expr(struct nftnl_expr *x, void *arg)
{
    struct look *l = arg;
    const char *name = nftnl_expr_get_str(x, NFTNL_EXPR_NAME);
    uint32_t len = 0;

    if (strcmp(name, "cmp") == 0) {
        const void *data = nftnl_expr_get(x, NFTNL_EXPR_CMP_DATA, &len);
        l->knows_us |= data && len >= strlen(LINK_PREFIX) &&
                       memcmp(data, LINK_PREFIX, strlen(LINK_PREFIX)) == 0;
    }
    if (strcmp(name, "reject") == 0)
        l->ends = true;
    else if (strcmp(name, "immediate") == 0 &&
             nftnl_expr_is_set(x, NFTNL_EXPR_IMM_VERDICT))
        l->ends |= nftnl_expr_get_u32(x, NFTNL_EXPR_IMM_VERDICT) == NF_DROP;
    else if (strcmp(name, "counter") != 0 && strcmp(name, "log") != 0)
        l->conditional = true;
    return 0;
}

static int on_rule(const struct nlmsghdr *h, void *arg)
{
    struct census *s = arg;
    struct look l = { 0 };
    struct nftnl_rule *r = nftnl_rule_alloc();

    if (!r)
        return MNL_CB_ERROR;
    if (nftnl_rule_nlmsg_parse(h, r) == 0) {
        const char *table = nftnl_rule_get_str(r, NFTNL_RULE_TABLE);
        const char *chain = nftnl_rule_get_str(r, NFTNL_RULE_CHAIN);
        nftnl_expr_foreach(r, on_expr, &l);
        for (size_t i = 0; i < s->n; i++) {
            struct chain *x = &s->chains[i];
            if (x->family != nftnl_rule_get_u32(r, NFTNL_RULE_FAMILY) ||
                strcmp(x->table, table) != 0)
                continue;
            x->knows_us |= l.knows_us;
            x->drops |= strcmp(x->name, chain) == 0 && l.ends && !l.conditional;
        }
    }
    nftnl_rule_free(r);
    return MNL_CB_OK;
}

int firewalls_in_the_way(char *ret, size_t size, struct err *e)
{
    autonetlink struct mnl_socket *s = NULL;
    struct census all = { 0 };
    char buf[NETLINK_MESSAGE];

    if (netlink_open(NETLINK_NETFILTER, 0, &s, e) < 0 ||
        netlink_dump(s, nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NLM_F_DUMP,
                                              netlink_sequence(1)), on_chain, &all, e) < 0 ||
        netlink_dump(s, nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETRULE, NFPROTO_UNSPEC, NLM_F_DUMP,
                                              netlink_sequence(1)), on_rule, &all, e) < 0)
        return -1;
    for (size_t i = 0; i < all.n; i++) {
        const struct chain *x = &all.chains[i];
        if (!x->drops || x->knows_us)
            continue;
        snprintf(ret, size, "chain %s of table %s %s drops what it does not know: let interfaces "
                 LINK_PREFIX "* pass there, both ways (docs/EGRESS.md)", x->name,
                 x->family == NFPROTO_INET ? "inet" : "ip", x->table);
        return 1;
    }
    return 0;
}
