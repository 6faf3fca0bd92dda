/* SPDX-License-Identifier: MIT
 *
 * filter_list: which sandboxes and taps the kernel has chains for, asked without changing anything.
 */
#include "common/auto.h"
#include "daemon/filter.h"
#include "daemon/netlink.h"

#include <errno.h>
#include <libnftnl/chain.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
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
