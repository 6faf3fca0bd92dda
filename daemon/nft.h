/* SPDX-License-Identifier: MIT
 *
 * nft: changes of the kernel's packet filter in batches that are taken whole or not at all, by
 * libnftnl. A batch is put together by calls that return nothing; the first failure sticks, and
 * nft_commit() reports it, or which of the calls the kernel did not like. What the tables mean is
 * filter.c; nobody else builds rules.
 *
 * A rule: nft_rule(), then its expressions in order, then nft_rule_end(). Registers are 4 bytes
 * each, named by number 0 to 15; concatenated keys lie in consecutive ones.
 */
#pragma once

#include "common/err.h"
#include <libmnl/libmnl.h>
#include <libnftnl/set.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nft_batch;

int nft_batch_new(struct nft_batch **ret, struct err *e);
void nft_batch_free(struct nft_batch *b);
/* Sends; empties the batch in any case. s: of NETLINK_NETFILTER. */
int nft_commit(struct mnl_socket *s, struct nft_batch *b, struct err *e);
/* Of the namespace's whole ruleset: one more with each batch that changed something, anybody's. */
int nft_generation(struct mnl_socket *s, uint32_t *ret, struct err *e);

/* family: NFPROTO_INET, NFPROTO_NETDEV. */
void nft_table(struct nft_batch *b, bool add, int family, const char *table);
void nft_chain(struct nft_batch *b, bool add, int family, const char *table, const char *chain);
struct nft_hook {
    const char *type;   /* "filter", "nat" */
    uint32_t hook;      /* NF_INET_…, NF_NETDEV_INGRESS */
    int32_t priority;
    bool drop;          /* what no rule decided */
    const char *device; /* NULL: all */
};
void nft_base_chain(struct nft_batch *b, int family, const char *table, const char *chain,
                    const struct nft_hook *h);

struct nft_set {
    const char *name;
    uint32_t flags;                 /* NFT_SET_… */
    uint32_t key_type, key_len;     /* what nft(8) shows it as; bytes with padding */
    uint8_t fields[4];              /* bytes of each part of an interval key, 0: none */
    bool verdicts;                  /* a verdict map */
    bool counts;                    /* a counter in each element */
};
void nft_set(struct nft_batch *b, int family, const char *table, const struct nft_set *s);
void nft_set_del(struct nft_batch *b, int family, const char *table, const char *set);

/* Elements: nft_elems(), nft_elem() for each, nft_elems_end(). */
void nft_elems(struct nft_batch *b, bool add, int family, const char *table, const char *set);
struct nft_elem {
    const void *key, *key_end;      /* key_end NULL: no interval */
    uint32_t key_len;
    uint64_t timeout_ms;            /* 0 none */
    const char *comment;            /* NULL none; at most 253 bytes */
    const char *go;                 /* chain of a verdict map */
};
void nft_elem(struct nft_batch *b, const struct nft_elem *x);
void nft_elems_end(struct nft_batch *b);
/* All elements of a set, all rules of a chain. */
void nft_flush_elems(struct nft_batch *b, int family, const char *table, const char *set);
void nft_flush_chain(struct nft_batch *b, int family, const char *table, const char *chain);

void nft_rule(struct nft_batch *b, int family, const char *table, const char *chain);
void nft_rule_end(struct nft_batch *b);

/* expressions */
void nft_meta(struct nft_batch *b, uint32_t key, unsigned reg);         /* NFT_META_… */
void nft_ct(struct nft_batch *b, uint32_t key, unsigned reg);           /* NFT_CT_… */
/* IPv4 source of the first packet of the flow that this one belongs or is related to. */
void nft_ct_source(struct nft_batch *b, unsigned reg);
void nft_payload(struct nft_batch *b, uint32_t base, uint32_t offset, uint32_t len, unsigned reg);
void nft_fib_type(struct nft_batch *b, unsigned reg);                   /* RTN_… of daddr */
void nft_and(struct nft_batch *b, unsigned reg, uint32_t mask);         /* 4 bytes, host order */
void nft_cmp(struct nft_batch *b, unsigned reg, uint32_t op, const void *data, uint32_t len);
/* The number in a register (as NFT_META_SKUID gives it) lies between the two. */
void nft_between(struct nft_batch *b, unsigned reg, uint32_t lo, uint32_t hi);
void nft_lookup(struct nft_batch *b, unsigned reg, const char *set, bool verdict);
void nft_counter(struct nft_batch *b);
void nft_limit(struct nft_batch *b, uint64_t per_second, uint32_t burst, bool over);
void nft_connections_over(struct nft_batch *b, uint32_t count);
void nft_log(struct nft_batch *b, uint16_t group, uint32_t snaplen, const char *prefix);
void nft_mark(struct nft_batch *b, uint32_t bit);                       /* uses register 0 */
void nft_reject_tcp(struct nft_batch *b);                               /* reset */
void nft_reject_icmp(struct nft_batch *b);                              /* admin-prohibited */
void nft_masquerade(struct nft_batch *b);
void nft_verdict(struct nft_batch *b, int verdict);                     /* NF_ACCEPT, NF_DROP */
void nft_goto(struct nft_batch *b, const char *chain);

/* Elements of a set as the kernel has them. Returns 0 also for a set that is not there. */
typedef void (*nft_elem_fn)(void *arg, struct nftnl_set_elem *x);
int nft_dump_elems(struct mnl_socket *s, int family, const char *table, const char *set,
                   nft_elem_fn fn, void *arg, struct err *e);
/* Of an element: its comment ("" none) into buf, its counter. */
void nft_elem_comment(struct nftnl_set_elem *x, char *buf, size_t size);
uint64_t nft_elem_packets(struct nftnl_set_elem *x);

static inline void nft_batch_cleanup(struct nft_batch **b)
{
    if (*b)
        nft_batch_free(*b);
}
#define autobatch __attribute__((cleanup(nft_batch_cleanup)))
