/* SPDX-License-Identifier: MIT
 *
 * filter: what the kernel does with sandboxes' packets. Two tables, both ours alone:
 *
 *   netdev sandboxd    a chain per tap, at its ingress: nothing but IPv4 with the guest's own MAC
 *                      and address, and ARP that says the same. No other ethertype, no VLAN.
 *   inet sandboxd      from_guests  (prerouting): interface and source address lead to the
 *                                   sandbox's chain by one map, whatever their number
 *                      forward      nothing new into a sandbox; on interfaces for which we turned
 *                                   forwarding on, nothing but sandboxes' packets
 *                      masquerade   (postrouting)
 *                      from_helpers (output) who breaks out of a guest into QEMU has no network,
 * who
 *                                   takes the resolver over reaches its upstreams
 *     for each sandbox:
 *                      box-ID       flows that go on; its resolver; the host's addresses; then sets
 *                      ok-ID        counts connections, logs new ones, gives the mark (guard.h)
 *                      no-ID        counts, logs, rejects
 *                      full-ID      the same for what is beyond the limits
 *                      s-ID, h-ID   what address rules allow: of the world, of the host
 *                      n-ID         what names led to, with timeouts
 *
 * A change is one batch: the kernel has the old or the new, and nothing between. All stays when the
 * daemon ends. Not thread-safe: egress.c holds a lock.
 */
#pragma once

#include "common/policy.h"
#include "daemon/link.h"
#include <libmnl/libmnl.h>

#define FILTER_LOG_GROUP 0x5b78     /* NFLOG */
#define FILTER_TABLE "sandboxd"

struct filter;

struct filter_options {
    struct subnet net;
    uint32_t connections;           /* of one sandbox at once */
    uint32_t new_per_second;        /* new ones, with twice that as a burst */
    uint32_t questions_per_second;  /* packets to the resolver, with four times that as a burst */
    uint32_t uid_lo, uid_hi;        /* of the sandboxes' QEMUs; 0: whoever it is */
    uint32_t uid_resolver;          /* 0: the same */
};
int filter_open(const struct filter_options *o, struct filter **ret, struct err *e);
void filter_close(struct filter *f);    /* what the kernel has stays */
/* By which the kernel's notices tell our own changes from others'. */
uint32_t filter_port(const struct filter *f);
/* Whether nobody else changed anything of nftables, ours or not, since this was last asked. */
bool filter_alone(struct filter *f);

struct filter_name {                /* an element of n-ID */
    uint32_t address;
    uint16_t port_lo, port_hi;
    uint8_t proto;
    uint64_t timeout_ms;
    const char *name;               /* borrowed: goes along as the element's comment */
};
struct filter_box {                 /* borrowed */
    const char *id;
    uint32_t slot;
    const struct link *link;
    const struct policy_span *spans, *host_spans;
    size_t n_spans, n_host_spans;
    const struct filter_name *names;
    size_t n_names;
};

/* All anew, atomically: these sandboxes, and these interfaces that forward for them only. */
int filter_rebuild(struct filter *f, const struct filter_box *boxes, size_t n,
                   const char (*opened)[IFNAMSIZ], size_t n_opened, struct err *e);
/* The tap must exist and be down. */
int filter_add(struct filter *f, const struct filter_box *box, struct err *e);
/* New contents for all three sets of a sandbox. */
int filter_replace(struct filter *f, const struct filter_box *box, struct err *e);
/* The tap must be gone. What is not there is no error. */
int filter_remove(struct filter *f, const char *id, const struct link *l, struct err *e);
/* Takes the one away and puts the other in, at once. */
int filter_names(struct filter *f, const char *id, const struct filter_name *del, size_t n_del,
                 const struct filter_name *add, size_t n_add, struct err *e);
/* The list of interfaces that forward for sandboxes only, anew. */
int filter_opened(struct filter *f, const char (*opened)[IFNAMSIZ], size_t n, struct err *e);
/* What the resolver may ask: at most FILTER_UPSTREAMS. */
#define FILTER_UPSTREAMS 16
struct filter_upstream {
    uint32_t address;
    uint16_t port;
};
int filter_upstreams(struct filter *f, const struct filter_upstream *list, size_t n, struct err *e);
/* Takes all of it away: tables, not taps. */
int filter_clear(struct filter *f, struct err *e);
/* Whether both tables are there. */
bool filter_present(struct filter *f);

struct filter_elem {
    uint32_t lo, hi;
    uint16_t port_lo, port_hi;
    uint8_t proto;
    uint64_t packets;
    uint64_t expires_ms;            /* from now; 0: never */
    char name[POLICY_NAME_MAX + 1]; /* "" none */
};
typedef void (*filter_elem_fn)(void *arg, const struct filter_elem *x);
/* set: 's', 'h' or 'n'. A sandbox without sets has no elements. */
int filter_read(struct filter *f, const char *id, char set, filter_elem_fn fn, void *arg,
                struct err *e);
/* Names of all chains in both tables: "box-ID" and taps among them. No struct filter is needed, and
 * nothing is changed (filter_list.c). */
typedef void (*filter_chain_fn)(void *arg, const char *chain);
int filter_chains(filter_chain_fn fn, void *arg, struct err *e);
