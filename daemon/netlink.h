/* SPDX-License-Identifier: MIT
 *
 * netlink: requests to the kernel over one netlink socket, by libmnl: a message and its
 * acknowledgement, a dump, or a batch of nfnetlink messages that the kernel takes whole or not at
 * all. One thread at a time per socket. The kernel answers before sendmsg(2) returns, so nothing
 * here waits for long; a receive timeout of 5 s stands behind it all the same.
 *
 * Errors carry the errno of the kernel in err.sys; the code is ERR_NETWORK.
 */
#pragma once

#include "common/err.h"
#include <libmnl/libmnl.h>
#include <stddef.h>
#include <stdint.h>

#define NETLINK_MESSAGE 8192    /* room for any single message of ours that is not a batch's */

/* protocol: NETLINK_ROUTE, NETLINK_XFRM, NETLINK_NETFILTER. groups: multicast, 0 none. */
int netlink_open(int protocol, unsigned groups, struct mnl_socket **ret, struct err *e);
void netlink_close(struct mnl_socket *s);       /* NULL is fine */

/* A message of `type` in buf (NETLINK_MESSAGE bytes), with a zeroed header struct of `extra` bytes
 * after the netlink header, which *ret_extra points to. */
struct nlmsghdr *netlink_message(void *buf, uint16_t type, uint16_t flags, size_t extra,
                                 void **ret_extra);
/* Sends and waits for the kernel's word. `what` completes "cannot …". */
int netlink_do(struct mnl_socket *s, struct nlmsghdr *message, struct err *e, const char *what, ...)
    __attribute__((format(printf, 4, 5)));
/* The one answer to a question goes to fn (mnl_cb_t). */
int netlink_get(struct mnl_socket *s, struct nlmsghdr *message, mnl_cb_t fn, void *arg,
                struct err *e);
/* All answers to a dump request go to fn (mnl_cb_t). */
int netlink_dump(struct mnl_socket *s, struct nlmsghdr *message, mnl_cb_t fn, void *arg,
                 struct err *e);

/* A number for the next message. */
uint32_t netlink_sequence(uint32_t how_many);

static inline void netlink_close_cleanup(struct mnl_socket **s)
{
    netlink_close(*s);
}
#define autonetlink __attribute__((cleanup(netlink_close_cleanup)))
