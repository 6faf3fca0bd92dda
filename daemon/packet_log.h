/* SPDX-License-Identifier: MIT
 *
 * packet_log: what the filter tells of single packets (NFLOG): the first packet of each connection
 * that it let through, and what it refused, as far as its rate limits go. Linux:
 * net/netfilter/nfnetlink_log.c. One thread.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum packet_why {
    PACKET_ALLOWED = 'a',
    PACKET_DENIED = 'd',    /* by the policy */
    PACKET_LIMITED = 'f',   /* allowed, but there are too many connections, or too fast */
    PACKET_FORGED = 'x',    /* another ethertype, or a sender that is not the guest */
};

struct packet_seen {
    uint32_t slot;          /* of the sandbox */
    enum packet_why why;
    uint16_t ethertype;     /* 0x0800 unless forged */
    uint32_t source, destination;   /* host order; IPv4 only */
    uint8_t proto;          /* IANA's number; 0 where there is none */
    bool first_fragment;    /* false: no port is in it */
    uint16_t port;          /* of the destination; icmp: its type */
};
typedef void (*packet_fn)(void *arg, const struct packet_seen *p);

struct packet_log;
int packet_log_open(uint16_t group, struct packet_log **ret, struct err *e);
void packet_log_close(struct packet_log *l);    /* NULL is fine */
/* For a loop, level-triggered. */
int packet_log_fd(const struct packet_log *l);
/* Tells what has come, a limited number of packets. 1: the kernel had to drop some. */
int packet_log_read(struct packet_log *l, packet_fn fn, void *arg, struct err *e);

/* One packet as the filter logs it: prefix "<slot> <why>" and the bytes from the network header on.
 * False for what is not ours. */
bool packet_log_parse(const char *prefix, uint16_t ethertype, const uint8_t *data, size_t len,
                      struct packet_seen *ret);
