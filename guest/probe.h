/* SPDX-License-Identifier: MIT
 *
 * probe: `sbx-agent probe`, run inside of a guest as root: tries ways out of it and says what was
 * seen, so that the daemon can prove what its policy promises. It judges nothing.
 *
 * Standard input: one JSON object a line, flat, at most PROBES_MAX lines; standard output: one for
 * each, in the order in which they end. docs/GUEST-PROTOCOL.md has the table of both. Probes run
 * side by side, each in a process of its own, which is killed when it does not end in time.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROBES_MAX 512
#define PROBES_AT_ONCE 24
#define PROBE_LINE 2048
#define PROBE_MS 1500           /* default wait for an answer */
#define PROBE_MS_MAX 10000
#define PROBE_NAME 253
#define PROBE_PAYLOAD 1200      /* fits any MTU there is */
#define PROBE_ADDRESSES 8

/* name, what has to be given (letters of enum probe_needs) */
#define PROBE_KINDS(X)                                                                             \
    X(PROBE_TCP, "tcp", PN_ADDRESS | PN_PORT)                                                      \
    X(PROBE_UDP, "udp", PN_ADDRESS | PN_PORT)                                                      \
    X(PROBE_DNS, "dns", PN_NAME)                                                                   \
    X(PROBE_DNS_AT, "dns-at", PN_NAME | PN_ADDRESS)                                                \
    X(PROBE_IP, "ip", PN_ADDRESS | PN_PROTOCOL)                                                    \
    X(PROBE_ICMP, "icmp", PN_ADDRESS)                                                              \
    X(PROBE_SPOOF_ADDRESS, "spoof-address", PN_ADDRESS | PN_PORT | PN_SOURCE)                      \
    X(PROBE_SPOOF_MAC, "spoof-mac", PN_ADDRESS | PN_PORT | PN_MAC)                                 \
    X(PROBE_VLAN, "vlan", PN_ADDRESS | PN_PORT | PN_VLAN)                                          \
    X(PROBE_FRAGMENTS, "fragments", PN_ADDRESS | PN_PORT)                                          \
    X(PROBE_ARP, "arp", PN_ADDRESS)                                                                \
    X(PROBE_ARP_ANNOUNCE, "arp-announce", PN_ADDRESS)                                              \
    X(PROBE_IPV6_RS, "ipv6-rs", 0)                                                                 \
    X(PROBE_IPV6_NS, "ipv6-ns", 0)                                                                 \
    X(PROBE_IPV6_UDP, "ipv6-udp", PN_PORT)                                                         \
    X(PROBE_ETHERTYPE, "ethertype", PN_ETHERTYPE)

enum probe_needs {
    PN_ADDRESS = 1, PN_PORT = 2, PN_NAME = 4, PN_PROTOCOL = 8, PN_SOURCE = 16, PN_MAC = 32,
    PN_VLAN = 64, PN_ETHERTYPE = 128,
};

enum probe_kind {
#define PROBE_ENUM(constant, name, needs) constant,
    PROBE_KINDS(PROBE_ENUM)
#undef PROBE_ENUM
    PROBE_KIND_MAX
};

#define PROBE_SEEN(X)                                                                              \
    X(SEEN_CONNECTED, "connected")      /* a TCP connection */                                     \
    X(SEEN_ANSWERED, "answered")        /* something came back from there */                       \
    X(SEEN_RESOLVED, "resolved")        /* addresses */                                            \
    X(SEEN_EMPTY, "empty")              /* a DNS answer without error and addresses */             \
    X(SEEN_REFUSED, "refused")          /* DNS: REFUSED */                                         \
    X(SEEN_NXDOMAIN, "nxdomain")                                                                   \
    X(SEEN_SERVFAIL, "servfail")                                                                   \
    X(SEEN_DNSERROR, "dnserror")        /* another rcode, or no DNS at all */                      \
    X(SEEN_RESET, "reset")              /* a TCP reset */                                          \
    X(SEEN_PROHIBITED, "prohibited")    /* ICMP: administratively prohibited (9, 10, 13) */        \
    X(SEEN_UNREACHABLE, "unreachable")  /* another ICMP error, or there is no route */             \
    X(SEEN_TIMEOUT, "timeout")          /* of what has to be answered: nothing came */             \
    X(SEEN_SENT, "sent")                /* of what need not be answered: it left, nothing came */  \
    X(SEEN_FAILED, "failed")            /* the probe could not be made */

enum probe_seen {
#define PROBE_ENUM(constant, name) constant,
    PROBE_SEEN(PROBE_ENUM)
#undef PROBE_ENUM
    PROBE_SEEN_MAX
};

struct probe {
    uint32_t id;
    enum probe_kind kind;
    unsigned given;             /* enum probe_needs */
    uint32_t address, source;   /* host order */
    uint16_t port;
    uint16_t vlan;
    uint16_t ethertype;
    uint8_t protocol;
    uint8_t mac[6];
    bool tcp;                   /* instead of UDP */
    uint16_t qtype;             /* of DNS; 1: A */
    uint16_t size;              /* of the payload; 0: a few bytes */
    uint32_t timeout_ms;
    char name[PROBE_NAME + 1];
};

struct probe_result {
    enum probe_seen seen;
    char text[160];             /* in words, printable ASCII */
    bool has_rcode;
    uint8_t rcode;
    uint32_t addresses[PROBE_ADDRESSES];
    size_t n_addresses;
};

const char *probe_kind_name(enum probe_kind k);
const char *probe_seen_name(enum probe_seen s);

/* One line. On failure *ret has the id as far as it was read (0 else), for the answer. */
int probe_parse(const char *line, struct probe *ret, struct err *e);
/* Makes one: takes up to its timeout. */
void probe_make(const struct probe *p, struct probe_result *ret);
/* The whole program: exit status 0, also when probes fail; 1 when lists cannot be read. */
int probe_main(int in_fd, int out_fd);

/* Used between the files of this module. */
__attribute__((format(printf, 3, 4)))
void probe_say(struct probe_result *r, enum probe_seen seen, const char *fmt, ...);
void probe_say_icmp(struct probe_result *r, uint8_t type, uint8_t code, uint32_t from);
const char *probe_address(uint32_t address, char buf[20]);
/* Bytes of a query, 0 if the name cannot be one. */
size_t probe_dns_query(const struct probe *p, uint16_t id, uint8_t *buf, size_t cap);
/* What an answer says; false: it is none to this query. */
bool probe_dns_answer(const uint8_t *b, size_t len, uint16_t id, struct probe_result *r);
void probe_by_socket(const struct probe *p, struct probe_result *r);    /* probe_ip.c */
void probe_by_dns(const struct probe *p, struct probe_result *r);       /* probe_dns.c */
void probe_by_frame(const struct probe *p, struct probe_result *r);     /* probe_frame.c */
/* Waits for data on a connected socket of ours: 1 there is, 0 nothing in time, -1 an error was
 * told: r says it. */
int probe_wait(int fd, short events, int64_t deadline, struct probe_result *r);
/* A socket of the type, connected: with the events ICMP would send. -1: r says it. */
int probe_open(int type, int protocol, uint32_t address, uint16_t port, int64_t deadline,
               struct probe_result *r);
