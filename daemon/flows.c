/* SPDX-License-Identifier: MIT */
#include "daemon/flows.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack_tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

struct cut {
    uint32_t address;
    flow_fn keep;
    void *arg;
    struct nfct_handle *h;      /* owned: deletes, while the other lists */
    unsigned n;
    int failed;                 /* errno of the first that could not be ended */
};

static void read_flow(struct nf_conntrack *ct, struct flow *ret)
{
    *ret = (struct flow){
        .source = ntohl(nfct_get_attr_u32(ct, ATTR_ORIG_IPV4_SRC)),
        .destination = ntohl(nfct_get_attr_u32(ct, ATTR_ORIG_IPV4_DST)),
        .proto = nfct_get_attr_u8(ct, ATTR_ORIG_L4PROTO),
    };
    if (nfct_attr_is_set(ct, ATTR_ORIG_PORT_DST))
        ret->port = ntohs(nfct_get_attr_u16(ct, ATTR_ORIG_PORT_DST));
}

static int on_flow(enum nf_conntrack_msg_type type, struct nf_conntrack *ct, void *data)
{
    struct cut *c = data;
    struct flow f;

    read_flow(ct, &f);
    if (f.source != c->address && (c->keep || f.destination != c->address))
        return NFCT_CB_CONTINUE;
    if (c->keep && c->keep(c->arg, &f))
        return NFCT_CB_CONTINUE;
    /* ENOENT: it has ended by itself meanwhile. */
    if (nfct_query(c->h, NFCT_Q_DESTROY, ct) == 0)
        c->n++;
    else if (errno != ENOENT && !c->failed)
        c->failed = errno;
    return NFCT_CB_CONTINUE;
}

static struct nfct_handle *open_table(struct err *e)
{
    struct nfct_handle *h = nfct_open(CONNTRACK, 0);

    if (!h) {
        err_sys(e, ERR_NETWORK, errno, "cannot see connections");
        err_hint(e, "the kernel needs CONFIG_NF_CT_NETLINK (nf_conntrack_netlink)");
    }
    return h;
}

int flows_cut(uint32_t address, flow_fn keep, void *arg, unsigned *ret_n, struct err *e)
{
    struct cut c = { .address = address, .keep = keep, .arg = arg };
    uint32_t family = AF_INET;

    *ret_n = 0;
    struct nfct_handle *list = open_table(e);
    if (!list)
        return -1;
    c.h = open_table(e);
    if (!c.h) {
        nfct_close(list);
        return -1;
    }
    nfct_callback_register(list, NFCT_T_ALL, on_flow, &c);
    int r = nfct_query(list, NFCT_Q_DUMP, &family);
    int sys = r < 0 ? errno : c.failed;
    nfct_close(c.h);
    nfct_close(list);
    *ret_n = c.n;
    return sys ? err_sys(e, ERR_NETWORK, sys, "cannot end connections") : 0;
}

struct look {
    flow_seen_fn fn;
    void *arg;
};

static int on_open_flow(enum nf_conntrack_msg_type type, struct nf_conntrack *ct, void *data)
{
    const struct look *l = data;
    struct flow f;

    read_flow(ct, &f);
    /* The kernel keeps what is closed for two minutes, so that stray packets are known. */
    if (f.proto == IPPROTO_TCP) {
        uint8_t state = nfct_get_attr_u8(ct, ATTR_TCP_STATE);
        if (state < TCP_CONNTRACK_SYN_SENT || state > TCP_CONNTRACK_CLOSE_WAIT)
            return NFCT_CB_CONTINUE;
    }
    l->fn(l->arg, &f);
    return NFCT_CB_CONTINUE;
}

int flows_open(flow_seen_fn fn, void *arg, struct err *e)
{
    struct look l = { .fn = fn, .arg = arg };
    uint32_t family = AF_INET;
    struct nfct_handle *h = open_table(e);

    if (!h)
        return -1;
    nfct_callback_register(h, NFCT_T_ALL, on_open_flow, &l);
    int r = nfct_query(h, NFCT_Q_DUMP, &family), sys = errno;
    nfct_close(h);
    return r < 0 ? err_sys(e, ERR_NETWORK, sys, "cannot see connections") : 0;
}
