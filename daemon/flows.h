/* SPDX-License-Identifier: MIT
 *
 * flows: connections that go on (conntrack). The filter lets pass what belongs to one, so those
 * that a new policy denies have to be taken out of the kernel's table: their next packet is then a
 * new connection's, and is refused as such. Any thread.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>

struct flow {               /* as its first packet was */
    uint32_t source, destination;   /* host order */
    uint8_t proto;          /* IANA's number */
    uint16_t port;          /* of the destination; 0 where there is none */
};
/* Whether it goes on. Must not block. */
typedef bool (*flow_fn)(void *arg, const struct flow *f);

typedef void (*flow_seen_fn)(void *arg, const struct flow *f);
/* To fn each that is open: TCP from its first packet until both ends have closed it, anything else
 * as long as conntrack remembers it. fn must not block. */
int flows_open(flow_seen_fn fn, void *arg, struct err *e);

/* Ends all flows from this address that `keep` does not want; NULL: all, and those to it as well.
 * *ret_n: how many. */
int flows_cut(uint32_t address, flow_fn keep, void *arg, unsigned *ret_n, struct err *e);
