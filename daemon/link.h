/* SPDX-License-Identifier: MIT
 *
 * link: the host's end of a sandbox's network: a tap for each, point to point, without a bridge, so
 * that no frame of one sandbox can reach another. All by rtnetlink.
 *
 *     host   sbx<id>   02:5b:78:00:00:01   <gateway>/32, the same on all taps
 *     guest            02:5b:78:01:<slot>  <gateway + slot>/32, default route through the gateway
 *
 * Both ends have each other's MAC as a permanent neighbour. A tap is made down and comes up by
 * link_up(), when its rules are there. It is its sandbox's QEMU uid's, and outlives the daemon.
 */
#pragma once

#include "common/err.h"
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LINK_PREFIX "sbx"       /* of the names of all taps, and of nobody else's interfaces */
#define LINK_MTU 1500

struct subnet {
    uint32_t address;           /* host order, no bits below the prefix */
    uint8_t prefix;
};

struct link {                   /* what belongs to one sandbox */
    char name[IFNAMSIZ];
    uint32_t address;           /* the guest's */
    uint32_t gateway;
    uint8_t mac[6];             /* the guest's */
    uint16_t mtu;
};

extern const uint8_t link_gateway_mac[6];

/* From the sandbox's id and slot (1 and up). */
void link_describe(const struct subnet *net, const char *id, uint32_t slot, uint16_t mtu,
                   struct link *ret);
/* Makes the tap, down: owner, addresses, forwarding, reverse path filter. One that is left over is
 * taken away first. Nothing stays on failure. */
int link_create(const struct link *l, uid_t owner, struct err *e);
int link_up(const struct link *l, struct err *e);
int link_delete(const char *name, struct err *e);           /* not there is success */
bool link_exists(const char *name);
struct link_counters { uint64_t rx_bytes, rx_packets, tx_bytes, tx_packets; };   /* the guest's */
/* What went through a tap since it was made. ERR_NETWORK if there is none. */
int link_counters(const char *name, struct link_counters *ret, struct err *e);
/* Names of all taps of ours: *ret is an owned array. */
int link_list(char (**ret)[IFNAMSIZ], size_t *ret_n, struct err *e);

/* "10.209.0.0/16". ERR_INVALID also for what cannot be one: public, 100.64/10, narrower than what
 * `slots` sandboxes need. */
int subnet_parse(const char *text, uint32_t slots, struct subnet *ret, struct err *e);
/* What of the host's addresses and routes it would hide, apart from our own taps': 1 and a text
 * like "the route 10.0.0.0/8 of eth0", 0 nothing. Default routes are no collision. */
int subnet_collides(const struct subnet *net, char *ret_with, size_t size, struct err *e);
/* The first of our own list that collides with nothing; ERR_NETWORK if all do. */
int subnet_choose(uint32_t slots, struct subnet *ret, struct err *e);
/* MTU of the interface that default routes lead to, LINK_MTU if there is none. */
uint16_t link_uplink_mtu(void);
/* Whether the host itself has this address. */
bool link_is_host(uint32_t address);

#define ADDRESS_TEXT 20
const char *address_format(uint32_t address, char buf[ADDRESS_TEXT]);
bool address_parse(const char *text, uint32_t *ret);
