/* SPDX-License-Identifier: MIT
 *
 * guard: what holds when the packet filter is gone. An IPsec policy (xfrm) of the kernel blocks all
 * that comes from the sandboxes' addresses, to the host and through it, unless it carries the mark
 * that our filter gives to what the policy allows. So `nft flush ruleset` closes the sandboxes
 * instead of opening them, whether a daemon runs or not; and the reverse path filter of each tap
 * (link.h) keeps other source addresses out of the same hole.
 *
 * The policy stays when the daemon ends, as taps and filter do. Linux: include/net/xfrm.h,
 * xfrm4_policy_check() in ip_forward() and before each socket.
 */
#pragma once

#include "daemon/link.h"

/* The one bit of the packet mark that is ours. */
#define GUARD_MARK 0x01000000u

/* Both directions; what is there already is replaced. ERR_NETWORK where the kernel has no xfrm. */
int guard_close(const struct subnet *net, struct err *e);
int guard_open(const struct subnet *net, struct err *e);    /* takes it away */

/* 1: settings of the host weaken what holds without the filter, and *ret says which, for people;
 * 0: none. Any thread. */
int guard_weakness(char *ret, size_t size, struct err *e);

/* Forwarding for the ways out, where the host does not forward at all: interfaces (indices, which
 * stay when names change) for which it has to be turned on, all but loopback and taps; owned array,
 * empty on a host that forwards. The filter has to keep them from forwarding anything but
 * sandboxes' packets before it is turned on. */
int guard_closed_ways(uint32_t **ret, size_t *ret_n, bool *ret_forwards, struct err *e);
/* One that is gone is no error. */
int guard_forward(uint32_t index, bool on, struct err *e);
