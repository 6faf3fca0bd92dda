/* SPDX-License-Identifier: MIT */
#include "daemon/nft.h"

#include "common/auto.h"
#include "daemon/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/batch.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/gen.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PAGE 65536
#define OVERRUN 65536           /* the largest single message */
#define MESSAGES_MAX 65536      /* of one batch; a full rebuild of a thousand sandboxes has 30000 */
#define SEND_BUFFER (64 << 20)
#define ELEMS_PER_MESSAGE 256   /* each far below 250 bytes */

struct nft_batch {
    struct nftnl_batch *pages;  /* owned */
    bool failed;                /* out of memory, or too much */
    uint32_t first, seq;        /* sequence numbers of its messages */
    char (*what)[64];           /* owned: for each message, what it is about */
    size_t n, cap;

    /* being put together */
    struct nftnl_rule *rule;    /* owned */
    struct nftnl_set *elems;    /* owned */
    int family;
    bool adding;
    unsigned n_elems;
    char table[32], name[64];
};

static int begin(struct nft_batch *b)
{
    b->pages = nftnl_batch_alloc(PAGE, OVERRUN);
    if (!b->pages)
        return -1;
    b->n = 0;
    b->failed = false;
    b->first = b->seq = netlink_sequence(MESSAGES_MAX);
    nftnl_batch_begin(nftnl_batch_buffer(b->pages), b->seq++);
    nftnl_batch_update(b->pages);
    return 0;
}

int nft_batch_new(struct nft_batch **ret, struct err *e)
{
    struct nft_batch *b = calloc(1, sizeof(*b));

    if (!b || begin(b) < 0) {
        free(b);
        return err_nomem(e);
    }
    *ret = b;
    return 0;
}

static void drop_parts(struct nft_batch *b)
{
    if (b->rule)
        nftnl_rule_free(take_ptr(b->rule));
    if (b->elems)
        nftnl_set_free(take_ptr(b->elems));
    if (b->pages)
        nftnl_batch_free(take_ptr(b->pages));
}

void nft_batch_free(struct nft_batch *b)
{
    drop_parts(b);
    free(b->what);
    free(b);
}

/* Begins a message; the caller puts the payload in and calls put(). NULL once the batch failed. */
static struct nlmsghdr *message(struct nft_batch *b, uint16_t type, int family, uint16_t flags,
                                const char *what, const char *name)
{
    if (!b->failed && b->n == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 64;
        void *grown = cap <= MESSAGES_MAX ? realloc(b->what, cap * sizeof(*b->what)) : NULL;
        b->failed = !grown;
        if (grown) {
            b->what = grown;
            b->cap = cap;
        }
    }
    if (b->failed)
        return NULL;
    snprintf(b->what[b->n++], sizeof(*b->what), "%s %s", what, name);
    return nftnl_nlmsg_build_hdr(nftnl_batch_buffer(b->pages), type, (uint16_t)family, flags,
                                 b->seq++);
}

static void put(struct nft_batch *b)
{
    if (nftnl_batch_update(b->pages) < 0)
        b->failed = true;
}

/* --- sending --- */

static const char *what_of(const struct nft_batch *b, uint32_t seq)
{
    uint32_t i = seq - b->first - 1;

    return i < b->n ? b->what[i] : "begin or commit";
}

static int read_answers(struct mnl_socket *s, const struct nft_batch *b, struct err *e)
{
    char buf[PAGE];
    int r = 0;

    /* Answers were queued before sendmsg() came back; no answer means that all is well. */
    for (;;) {
        ssize_t n = recv(mnl_socket_get_fd(s), buf, sizeof(buf), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == ENOBUFS && r == 0)
            r = err_sys(e, ERR_NETWORK, errno, "the kernel's answer about the filter was lost");
        if (n <= 0)
            return r;
        int left = (int)n;
        for (const struct nlmsghdr *h = (void *)buf; mnl_nlmsg_ok(h, left);
             h = mnl_nlmsg_next(h, &left)) {
            const struct nlmsgerr *x = mnl_nlmsg_get_payload(h);
            if (h->nlmsg_type == NLMSG_ERROR && x->error != 0 && r == 0)
                r = err_sys(e, ERR_NETWORK, -x->error, "the kernel refused a change of its filter: "
                            "%s", what_of(b, h->nlmsg_seq));
        }
    }
}

static int send_batch(struct mnl_socket *s, struct nft_batch *b, struct err *e)
{
    struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
    uint32_t n = (uint32_t)nftnl_batch_iovec_len(b->pages);
    autofree struct iovec *iov = calloc(n, sizeof(*iov));
    int size = SEND_BUFFER;

    if (!iov)
        return err_nomem(e);
    nftnl_batch_iovec(b->pages, iov, n);
    struct msghdr m = { .msg_name = &kernel, .msg_namelen = sizeof(kernel), .msg_iov = iov,
                        .msg_iovlen = n };
    setsockopt(mnl_socket_get_fd(s), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    if (sendmsg(mnl_socket_get_fd(s), &m, 0) < 0) {
        err_sys(e, ERR_NETWORK, errno, "cannot change the kernel's packet filter");
        return err_hint(e, "the kernel needs nf_tables, and sandboxd CAP_NET_ADMIN");
    }
    return read_answers(s, b, e);
}

int nft_commit(struct mnl_socket *s, struct nft_batch *b, struct err *e)
{
    int r;

    if (b->failed) {
        r = err_set(e, ERR_NETWORK, "the change of the packet filter is too large");
    } else {
        nftnl_batch_end(nftnl_batch_buffer(b->pages), b->seq++);
        nftnl_batch_update(b->pages);
        r = send_batch(s, b, e);
    }
    drop_parts(b);
    if (begin(b) < 0)
        b->failed = true;
    return r;
}

static int on_generation(const struct nlmsghdr *h, void *arg)
{
    struct nftnl_gen *g = nftnl_gen_alloc();

    if (!g || nftnl_gen_nlmsg_parse(h, g) < 0) {
        if (g)
            nftnl_gen_free(g);
        return MNL_CB_ERROR;
    }
    *(uint32_t *)arg = nftnl_gen_get_u32(g, NFTNL_GEN_ID);
    nftnl_gen_free(g);
    return MNL_CB_OK;
}

int nft_generation(struct mnl_socket *s, uint32_t *ret, struct err *e)
{
    char buf[NETLINK_MESSAGE];

    return netlink_get(s, nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETGEN, AF_UNSPEC, 0,
                                                netlink_sequence(1)), on_generation, ret, e);
}

/* --- tables, chains, sets --- */

void nft_table(struct nft_batch *b, bool add, int family, const char *table)
{
    struct nlmsghdr *h = message(b, add ? NFT_MSG_NEWTABLE : NFT_MSG_DELTABLE, family,
                                 add ? NLM_F_CREATE : 0, add ? "add table" : "delete table", table);
    struct nftnl_table *t = h ? nftnl_table_alloc() : NULL;

    if (t) {
        nftnl_table_set_str(t, NFTNL_TABLE_NAME, table);
        nftnl_table_set_u32(t, NFTNL_TABLE_FAMILY, (uint32_t)family);
        nftnl_table_nlmsg_build_payload(h, t);
        nftnl_table_free(t);
        put(b);
    } else {
        b->failed = true;
    }
}

static void chain_message(struct nft_batch *b, bool add, int family, const char *table,
                          const char *chain, const struct nft_hook *k)
{
    struct nlmsghdr *h = message(b, add ? NFT_MSG_NEWCHAIN : NFT_MSG_DELCHAIN, family,
                                 add ? NLM_F_CREATE : 0, add ? "add chain" : "delete chain", chain);
    struct nftnl_chain *c = h ? nftnl_chain_alloc() : NULL;

    if (!c) {
        b->failed = true;
        return;
    }
    nftnl_chain_set_u32(c, NFTNL_CHAIN_FAMILY, (uint32_t)family);
    nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, table);
    nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, chain);
    if (k) {
        nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, k->type);
        nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, k->hook);
        nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, k->priority);
        nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, k->drop ? NF_DROP : NF_ACCEPT);
        if (k->device)
            nftnl_chain_set_str(c, NFTNL_CHAIN_DEV, k->device);
    }
    nftnl_chain_nlmsg_build_payload(h, c);
    nftnl_chain_free(c);
    put(b);
}

void nft_chain(struct nft_batch *b, bool add, int family, const char *table, const char *chain)
{
    chain_message(b, add, family, table, chain, NULL);
}

void nft_base_chain(struct nft_batch *b, int family, const char *table, const char *chain,
                    const struct nft_hook *k)
{
    chain_message(b, true, family, table, chain, k);
}

#define HOST_ENDIAN 1       /* nft(8)'s number of it */

void nft_set(struct nft_batch *b, int family, const char *table, const struct nft_set *s)
{
    static uint32_t ids;
    struct nlmsghdr *h = message(b, NFT_MSG_NEWSET, family, NLM_F_CREATE, "add set", s->name);
    struct nftnl_set *x = h ? nftnl_set_alloc() : NULL;

    if (!x) {
        b->failed = true;
        return;
    }
    nftnl_set_set_u32(x, NFTNL_SET_FAMILY, (uint32_t)family);
    nftnl_set_set_str(x, NFTNL_SET_TABLE, table);
    nftnl_set_set_str(x, NFTNL_SET_NAME, s->name);
    nftnl_set_set_u32(x, NFTNL_SET_ID, ++ids);
    nftnl_set_set_u32(x, NFTNL_SET_FLAGS, s->flags);
    nftnl_set_set_u32(x, NFTNL_SET_KEY_TYPE, s->key_type);
    nftnl_set_set_u32(x, NFTNL_SET_KEY_LEN, s->key_len);
    if (s->verdicts) {
        nftnl_set_set_u32(x, NFTNL_SET_DATA_TYPE, NFT_DATA_VERDICT);
        nftnl_set_set_u32(x, NFTNL_SET_DATA_LEN, 0);
    }
    if (s->fields[0]) {
        uint8_t fields[NFT_REG32_COUNT] = { 0 };
        memcpy(fields, s->fields, sizeof(s->fields));
        nftnl_set_set_data(x, NFTNL_SET_DESC_CONCAT, fields, sizeof(fields));
    }
    if (!s->fields[0] && !s->verdicts) {
        /* nft(8) shows strings right only if it is told whose order their bytes have. */
        struct nftnl_udata_buf *u = nftnl_udata_buf_alloc(64);
        if (u && nftnl_udata_put_u32(u, NFTNL_UDATA_SET_KEYBYTEORDER, HOST_ENDIAN))
            nftnl_set_set_data(x, NFTNL_SET_USERDATA, nftnl_udata_buf_data(u),
                               nftnl_udata_buf_len(u));
        if (u)
            nftnl_udata_buf_free(u);
    }
    if (s->counts) {
        struct nftnl_expr *counter = nftnl_expr_alloc("counter");
        if (counter)
            nftnl_set_add_expr(x, counter);     /* owned by the set now */
        else
            b->failed = true;
    }
    nftnl_set_nlmsg_build_payload(h, x);
    nftnl_set_free(x);
    put(b);
}

void nft_set_del(struct nft_batch *b, int family, const char *table, const char *set)
{
    struct nlmsghdr *h = message(b, NFT_MSG_DELSET, family, 0, "delete set", set);
    struct nftnl_set *x = h ? nftnl_set_alloc() : NULL;

    if (!x) {
        b->failed = true;
        return;
    }
    nftnl_set_set_u32(x, NFTNL_SET_FAMILY, (uint32_t)family);
    nftnl_set_set_str(x, NFTNL_SET_TABLE, table);
    nftnl_set_set_str(x, NFTNL_SET_NAME, set);
    nftnl_set_nlmsg_build_payload(h, x);
    nftnl_set_free(x);
    put(b);
}

/* --- elements --- */

static struct nftnl_set *elems_of(struct nft_batch *b)
{
    struct nftnl_set *x = nftnl_set_alloc();

    if (!x)
        return NULL;
    nftnl_set_set_u32(x, NFTNL_SET_FAMILY, (uint32_t)b->family);
    nftnl_set_set_str(x, NFTNL_SET_TABLE, b->table);
    nftnl_set_set_str(x, NFTNL_SET_NAME, b->name);
    return x;
}

void nft_elems(struct nft_batch *b, bool add, int family, const char *table, const char *set)
{
    b->family = family;
    b->adding = add;
    b->n_elems = 0;
    snprintf(b->table, sizeof(b->table), "%s", table);
    snprintf(b->name, sizeof(b->name), "%s", set);
    b->elems = elems_of(b);
    b->failed |= !b->elems;
}

static void flush_elems(struct nft_batch *b)
{
    if (b->elems && b->n_elems > 0) {
        struct nlmsghdr *h = message(b, b->adding ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
                                     b->family, b->adding ? NLM_F_CREATE : 0,
                                     b->adding ? "add elements to" : "delete elements of", b->name);
        if (h) {
            nftnl_set_elems_nlmsg_build_payload(h, b->elems);
            put(b);
        }
    }
    if (b->elems)
        nftnl_set_free(take_ptr(b->elems));
    b->n_elems = 0;
}

static void set_comment(struct nft_batch *b, struct nftnl_set_elem *el, const char *comment)
{
    struct nftnl_udata_buf *u = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);

    if (u && nftnl_udata_put_strz(u, NFTNL_UDATA_SET_ELEM_COMMENT, comment))
        nftnl_set_elem_set(el, NFTNL_SET_ELEM_USERDATA, nftnl_udata_buf_data(u),
                           nftnl_udata_buf_len(u));
    else
        b->failed = true;
    if (u)
        nftnl_udata_buf_free(u);
}

void nft_elem(struct nft_batch *b, const struct nft_elem *x)
{
    if (b->n_elems == ELEMS_PER_MESSAGE) {
        flush_elems(b);
        b->elems = elems_of(b);
    }
    struct nftnl_set_elem *el = b->elems ? nftnl_set_elem_alloc() : NULL;
    if (!el) {
        b->failed = true;
        return;
    }
    nftnl_set_elem_set(el, NFTNL_SET_ELEM_KEY, x->key, x->key_len);
    if (x->key_end)
        nftnl_set_elem_set(el, NFTNL_SET_ELEM_KEY_END, x->key_end, x->key_len);
    if (x->timeout_ms)
        nftnl_set_elem_set_u64(el, NFTNL_SET_ELEM_TIMEOUT, x->timeout_ms);
    if (x->comment)
        set_comment(b, el, x->comment);
    if (x->go) {
        nftnl_set_elem_set_u32(el, NFTNL_SET_ELEM_VERDICT, (uint32_t)NFT_GOTO);
        nftnl_set_elem_set_str(el, NFTNL_SET_ELEM_CHAIN, x->go);
    }
    nftnl_set_elem_add(b->elems, el);
    b->n_elems++;
}

void nft_elems_end(struct nft_batch *b)
{
    flush_elems(b);
}

void nft_flush_elems(struct nft_batch *b, int family, const char *table, const char *set)
{
    nft_elems(b, false, family, table, set);
    struct nlmsghdr *h = b->elems ? message(b, NFT_MSG_DELSETELEM, family, 0, "flush set", set)
                                  : NULL;
    if (h) {
        nftnl_set_elems_nlmsg_build_payload(h, b->elems);   /* none means all */
        put(b);
    }
    nft_elems_end(b);
}

void nft_flush_chain(struct nft_batch *b, int family, const char *table, const char *chain)
{
    struct nlmsghdr *h = message(b, NFT_MSG_DELRULE, family, 0, "flush chain", chain);
    struct nftnl_rule *r = h ? nftnl_rule_alloc() : NULL;

    if (!r) {
        b->failed = true;
        return;
    }
    nftnl_rule_set_u32(r, NFTNL_RULE_FAMILY, (uint32_t)family);
    nftnl_rule_set_str(r, NFTNL_RULE_TABLE, table);
    nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, chain);
    nftnl_rule_nlmsg_build_payload(h, r);
    nftnl_rule_free(r);
    put(b);
}

/* --- rules --- */

void nft_rule(struct nft_batch *b, int family, const char *table, const char *chain)
{
    b->rule = nftnl_rule_alloc();
    if (!b->rule) {
        b->failed = true;
        return;
    }
    b->family = family;
    snprintf(b->name, sizeof(b->name), "%s", chain);
    nftnl_rule_set_u32(b->rule, NFTNL_RULE_FAMILY, (uint32_t)family);
    nftnl_rule_set_str(b->rule, NFTNL_RULE_TABLE, table);
    nftnl_rule_set_str(b->rule, NFTNL_RULE_CHAIN, chain);
}

void nft_rule_end(struct nft_batch *b)
{
    struct nlmsghdr *h = b->rule ? message(b, NFT_MSG_NEWRULE, b->family,
                                           NLM_F_CREATE | NLM_F_APPEND, "add rule to", b->name)
                                 : NULL;

    if (h) {
        nftnl_rule_nlmsg_build_payload(h, b->rule);
        put(b);
    }
    if (b->rule)
        nftnl_rule_free(take_ptr(b->rule));
}

/* Registers of 4 bytes. */
static uint32_t reg32(unsigned reg)
{
    return NFT_REG32_00 + reg;
}

static struct nftnl_expr *expr(struct nft_batch *b, const char *name)
{
    struct nftnl_expr *x = b->rule ? nftnl_expr_alloc(name) : NULL;

    if (x)
        nftnl_rule_add_expr(b->rule, x);
    else
        b->failed = true;
    return x;
}

/* Attributes of an expression in pairs (attribute, value), ended by 0: NFTNL_EXPR_BASE is 1. */
static struct nftnl_expr *expr_u32(struct nft_batch *b, const char *name, const uint32_t *pairs)
{
    struct nftnl_expr *x = expr(b, name);

    for (; x && *pairs; pairs += 2)
        nftnl_expr_set_u32(x, (uint16_t)pairs[0], pairs[1]);
    return x;
}
#define EXPR(b, name, ...) expr_u32(b, name, (const uint32_t[]){ __VA_ARGS__ __VA_OPT__(,) 0 })

void nft_meta(struct nft_batch *b, uint32_t key, unsigned reg)
{
    EXPR(b, "meta", NFTNL_EXPR_META_KEY, key, NFTNL_EXPR_META_DREG, reg32(reg));
}

void nft_ct(struct nft_batch *b, uint32_t key, unsigned reg)
{
    EXPR(b, "ct", NFTNL_EXPR_CT_KEY, key, NFTNL_EXPR_CT_DREG, reg32(reg));
}

void nft_ct_source(struct nft_batch *b, unsigned reg)
{
    struct nftnl_expr *x = EXPR(b, "ct", NFTNL_EXPR_CT_KEY, NFT_CT_SRC_IP, NFTNL_EXPR_CT_DREG,
                                reg32(reg));

    if (x)
        nftnl_expr_set_u8(x, NFTNL_EXPR_CT_DIR, 0);     /* IP_CT_DIR_ORIGINAL */
}

void nft_payload(struct nft_batch *b, uint32_t base, uint32_t offset, uint32_t len, unsigned reg)
{
    EXPR(b, "payload", NFTNL_EXPR_PAYLOAD_BASE, base, NFTNL_EXPR_PAYLOAD_OFFSET, offset,
         NFTNL_EXPR_PAYLOAD_LEN, len, NFTNL_EXPR_PAYLOAD_DREG, reg32(reg));
}

void nft_fib_type(struct nft_batch *b, unsigned reg)
{
    EXPR(b, "fib", NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR, NFTNL_EXPR_FIB_RESULT,
         NFT_FIB_RESULT_ADDRTYPE, NFTNL_EXPR_FIB_DREG, reg32(reg));
}

static void bitwise(struct nft_batch *b, unsigned reg, uint32_t mask, uint32_t xor)
{
    struct nftnl_expr *x = EXPR(b, "bitwise", NFTNL_EXPR_BITWISE_SREG, reg32(reg),
                                NFTNL_EXPR_BITWISE_DREG, reg32(reg), NFTNL_EXPR_BITWISE_LEN, 4);
    if (x) {
        nftnl_expr_set(x, NFTNL_EXPR_BITWISE_MASK, &mask, sizeof(mask));
        nftnl_expr_set(x, NFTNL_EXPR_BITWISE_XOR, &xor, sizeof(xor));
    }
}

void nft_and(struct nft_batch *b, unsigned reg, uint32_t mask)
{
    bitwise(b, reg, mask, 0);
}

void nft_cmp(struct nft_batch *b, unsigned reg, uint32_t op, const void *data, uint32_t len)
{
    struct nftnl_expr *x = EXPR(b, "cmp", NFTNL_EXPR_CMP_SREG, reg32(reg), NFTNL_EXPR_CMP_OP, op);

    if (x)
        nftnl_expr_set(x, NFTNL_EXPR_CMP_DATA, data, len);
}

void nft_between(struct nft_batch *b, unsigned reg, uint32_t lo, uint32_t hi)
{
    const uint32_t from = htonl(lo), to = htonl(hi);

    /* Bytes are compared, so the number has to have its largest one first. */
    EXPR(b, "byteorder", NFTNL_EXPR_BYTEORDER_SREG, reg32(reg), NFTNL_EXPR_BYTEORDER_DREG,
         reg32(reg), NFTNL_EXPR_BYTEORDER_OP, NFT_BYTEORDER_HTON, NFTNL_EXPR_BYTEORDER_LEN, 4,
         NFTNL_EXPR_BYTEORDER_SIZE, 4);
    nft_cmp(b, reg, NFT_CMP_GTE, &from, sizeof(from));
    nft_cmp(b, reg, NFT_CMP_LTE, &to, sizeof(to));
}

void nft_lookup(struct nft_batch *b, unsigned reg, const char *set, bool verdict)
{
    struct nftnl_expr *x = EXPR(b, "lookup", NFTNL_EXPR_LOOKUP_SREG, reg32(reg));

    if (x) {
        nftnl_expr_set_str(x, NFTNL_EXPR_LOOKUP_SET, set);
        if (verdict)
            nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
    }
}

void nft_counter(struct nft_batch *b)
{
    EXPR(b, "counter");
}

void nft_limit(struct nft_batch *b, uint64_t per_second, uint32_t burst, bool over)
{
    struct nftnl_expr *x = EXPR(b, "limit", NFTNL_EXPR_LIMIT_BURST, burst, NFTNL_EXPR_LIMIT_TYPE,
                                NFT_LIMIT_PKTS, NFTNL_EXPR_LIMIT_FLAGS, over ? NFT_LIMIT_F_INV : 0);
    if (x) {
        nftnl_expr_set_u64(x, NFTNL_EXPR_LIMIT_RATE, per_second);
        nftnl_expr_set_u64(x, NFTNL_EXPR_LIMIT_UNIT, 1);    /* second */
    }
}

void nft_connections_over(struct nft_batch *b, uint32_t count)
{
    EXPR(b, "connlimit", NFTNL_EXPR_CONNLIMIT_COUNT, count, NFTNL_EXPR_CONNLIMIT_FLAGS,
         NFT_CONNLIMIT_F_INV);
}

void nft_log(struct nft_batch *b, uint16_t group, uint32_t snaplen, const char *prefix)
{
    struct nftnl_expr *x = EXPR(b, "log", NFTNL_EXPR_LOG_SNAPLEN, snaplen);

    if (x) {
        nftnl_expr_set_u16(x, NFTNL_EXPR_LOG_GROUP, group);
        nftnl_expr_set_u16(x, NFTNL_EXPR_LOG_QTHRESHOLD, 1);
        nftnl_expr_set_str(x, NFTNL_EXPR_LOG_PREFIX, prefix);
    }
}

void nft_mark(struct nft_batch *b, uint32_t bit)
{
    nft_meta(b, NFT_META_MARK, 0);
    bitwise(b, 0, ~bit, bit);
    EXPR(b, "meta", NFTNL_EXPR_META_KEY, NFT_META_MARK, NFTNL_EXPR_META_SREG, reg32(0));
}

static void reject(struct nft_batch *b, uint32_t type, uint8_t code)
{
    struct nftnl_expr *x = EXPR(b, "reject", NFTNL_EXPR_REJECT_TYPE, type);

    if (x)
        nftnl_expr_set_u8(x, NFTNL_EXPR_REJECT_CODE, code);
}

void nft_reject_tcp(struct nft_batch *b)
{
    reject(b, NFT_REJECT_TCP_RST, 0);
}

void nft_reject_icmp(struct nft_batch *b)
{
    reject(b, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
}

void nft_masquerade(struct nft_batch *b)
{
    EXPR(b, "masq");
}

void nft_verdict(struct nft_batch *b, int verdict)
{
    EXPR(b, "immediate", NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT, NFTNL_EXPR_IMM_VERDICT,
         (uint32_t)verdict);
}

void nft_goto(struct nft_batch *b, const char *chain)
{
    struct nftnl_expr *x = EXPR(b, "immediate", NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT,
                                NFTNL_EXPR_IMM_VERDICT, (uint32_t)NFT_GOTO);
    if (x)
        nftnl_expr_set_str(x, NFTNL_EXPR_IMM_CHAIN, chain);
}

/* --- reading --- */

struct dump {
    nft_elem_fn fn;
    void *arg;
};

static int each_elem(struct nftnl_set_elem *x, void *arg)
{
    struct dump *d = arg;

    d->fn(d->arg, x);
    return 0;
}

static int on_elems(const struct nlmsghdr *h, void *arg)
{
    struct nftnl_set *s = nftnl_set_alloc();

    if (!s)
        return MNL_CB_ERROR;
    if (nftnl_set_elems_nlmsg_parse(h, s) == 0)
        nftnl_set_elem_foreach(s, each_elem, arg);
    nftnl_set_free(s);
    return MNL_CB_OK;
}

int nft_dump_elems(struct mnl_socket *s, int family, const char *table, const char *set,
                   nft_elem_fn fn, void *arg, struct err *e)
{
    char buf[NETLINK_MESSAGE];
    struct dump d = { fn, arg };
    struct nftnl_set *x = nftnl_set_alloc();

    if (!x)
        return err_nomem(e);
    struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETSETELEM, (uint16_t)family,
                                               NLM_F_DUMP, netlink_sequence(1));
    nftnl_set_set_str(x, NFTNL_SET_TABLE, table);
    nftnl_set_set_str(x, NFTNL_SET_NAME, set);
    nftnl_set_elems_nlmsg_build_payload(h, x);
    nftnl_set_free(x);
    if (netlink_dump(s, h, on_elems, &d, e) == 0)
        return 0;
    if (e->sys != ENOENT)
        return -1;
    *e = ERR_INIT;
    return 0;
}

static int comment_attr(const struct nftnl_udata *attr, void *arg)
{
    if (nftnl_udata_type(attr) == NFTNL_UDATA_SET_ELEM_COMMENT)
        *(const struct nftnl_udata **)arg = attr;
    return 0;
}

void nft_elem_comment(struct nftnl_set_elem *x, char *buf, size_t size)
{
    const struct nftnl_udata *found = NULL;
    uint32_t len = 0;
    const void *data = nftnl_set_elem_get(x, NFTNL_SET_ELEM_USERDATA, &len);

    buf[0] = '\0';
    if (data && nftnl_udata_parse(data, len, comment_attr, &found) >= 0 && found)
        snprintf(buf, size, "%.*s", (int)nftnl_udata_len(found),
                 (const char *)nftnl_udata_get(found));
}

static int counter_expr(struct nftnl_expr *x, void *arg)
{
    if (strcmp(nftnl_expr_get_str(x, NFTNL_EXPR_NAME), "counter") == 0)
        *(uint64_t *)arg = nftnl_expr_get_u64(x, NFTNL_EXPR_CTR_PACKETS);
    return 0;
}

uint64_t nft_elem_packets(struct nftnl_set_elem *x)
{
    uint64_t packets = 0;

    nftnl_set_elem_expr_foreach(x, counter_expr, &packets);
    return packets;
}
