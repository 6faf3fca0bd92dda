/* SPDX-License-Identifier: MIT
 *
 * dns: messages as they are on the wire (RFC 1035), and nothing else: no sockets, no clock, no
 * state. What comes from guests and upstreams is limited first (dns.c walks the names, so that no
 * pointer leads in circles), then read by ldns, then checked.
 *
 * Names are canonical text (common/policy.h): lower case, labels of letters, digits, '-' and '_',
 * no dot at the end. A question keeps its name also as it was sent, since the answer repeats it
 * letter by letter: clients mix upper and lower case to recognise forgeries.
 */
#pragma once

#include "common/resolve.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_HEADER 12
#define DNS_NAME_WIRE 255       /* RFC 1035 2.3.4 */
#define DNS_UDP_PLAIN 512       /* an answer by UDP, where the question said nothing else */
#define DNS_UDP_MAX 1232        /* and the most it can say: fits any path without fragments */
#define DNS_QUESTION_MAX 512    /* bytes of a question by UDP; more is FORMERR */
#define DNS_QUESTION_TCP 4096   /* by TCP; more ends the connection */
#define DNS_REPLY_MAX 16384     /* of an upstream, by TCP; more is a failure */
#define DNS_RECORDS 32          /* TXT, MX, SRV of one answer; further ones are dropped */
#define DNS_RECORD_BYTES 8192   /* what they take on the wire together */
#define DNS_TTL_MIN 1u
#define DNS_TTL_MAX 3600u

enum dns_type {
    DNS_A = 1, DNS_NS = 2, DNS_CNAME = 5, DNS_SOA = 6, DNS_MX = 15, DNS_TXT = 16, DNS_AAAA = 28,
    DNS_SRV = 33, DNS_OPT = 41, DNS_SVCB = 64, DNS_HTTPS = 65,
    DNS_META_FIRST = 249, DNS_META_LAST = 255,  /* TKEY … AXFR … ANY: questions only */
};

enum dns_rcode {
    DNS_NOERROR = 0, DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_NOTIMP = 4,
    DNS_REFUSED = 5, DNS_BADVERS = 16,
};

struct dns_question {
    uint16_t id;
    uint16_t qtype;
    uint16_t room;          /* bytes that the answer may have */
    bool rd, edns;
    uint8_t wire_len;       /* 0: the question could not be read, the answer has none */
    uint8_t wire[DNS_NAME_WIRE];
    char name[RESOLVE_NAME];
};

#define DNS_SILENCE (-1)    /* not to be answered */

/* What a guest sent. An rcode: DNS_NOERROR, all of *ret is set and the daemon may be asked; else
 * what to answer at once. DNS_SILENCE for what is no question at all. */
int dns_question_read(const uint8_t *data, size_t len, bool tcp, struct dns_question *ret);

/* What an upstream found out: shared by the cache and whoever waits. */
struct ldns_struct_rr_list;
struct dns_answer {
    unsigned refs;
    int rcode;                          /* DNS_NOERROR, DNS_NXDOMAIN */
    uint32_t ttl;                       /* the least of all; for a negative one how long it holds */
    uint32_t n_aliases, n_addresses;
    char *aliases[RESOLVE_ALIASES];     /* owned: where the CNAMEs led, in order */
    uint32_t addresses[RESOLVE_ADDRESSES];  /* host order */
    struct ldns_struct_rr_list *records;/* owned; TXT, MX, SRV of the last name; NULL: none */
    size_t bytes;                       /* about what it takes in memory */
};

struct dns_answer *dns_answer_new(void);    /* one reference; NULL: no memory */
struct dns_answer *dns_answer_ref(struct dns_answer *a);
void dns_answer_unref(struct dns_answer *a);
bool dns_answer_negative(const struct dns_answer *a);
/* The name the chain has come to: the last alias, or `name` while there is none. */
const char *dns_answer_end(const struct dns_answer *a, const char *name);

enum dns_ede { DNS_EDE_BLOCKED = 15, DNS_EDE_FILTERED = 17 };   /* RFC 8914 */

/* What goes back to the guest. */
struct dns_told {
    int rcode;
    enum dns_ede ede;                   /* 0: none. Why, for clients that show it */
    const char *why;                    /* with ede: a few words */
    const struct dns_answer *answer;    /* borrowed; NULL: none */
    uint32_t ttl;                       /* of all its records */
    const uint32_t *addresses;          /* those of the answer that may be told */
    uint32_t n_addresses;
    bool soa;                           /* with NOERROR or NXDOMAIN: say for how long to remember */
};
/* *ret is owned (free()). -1: no memory. Cut to an empty answer with TC where it has no room. */
int dns_answer_write(const struct dns_question *q, const struct dns_told *told, uint8_t **ret,
                     size_t *ret_len);

/* A question to an upstream. */
struct dns_query {
    uint16_t id;
    uint16_t qtype;
    bool plain;             /* without EDNS, for upstreams that do not know it */
    uint8_t wire_len;
    uint8_t wire[DNS_NAME_WIRE];        /* with upper and lower case at random */
};
#define DNS_QUERY_MAX 320
/* `random` of 34 bytes: the id and a bit for each letter. -1: not a name. */
#define DNS_QUERY_RANDOM 34
int dns_query_make(struct dns_query *q, const char *name, uint16_t qtype, const uint8_t *random);
/* The bytes of it: how many. buf of DNS_QUERY_MAX. */
size_t dns_query_write(const struct dns_query *q, uint8_t *buf);

enum dns_reply {
    DNS_REPLY_FOREIGN,      /* not the answer to this query: ignore it and wait on */
    DNS_REPLY_CASE,         /* it would be, but for the case of the letters */
    DNS_REPLY_TRUNCATED,    /* ask again by TCP */
    DNS_REPLY_PLAIN,        /* the upstream does not know EDNS */
    DNS_REPLY_FAILED,       /* the upstream cannot or will not, or sent something unreadable */
    DNS_REPLY_LOOP,         /* CNAMEs in a circle, too many of them, or to what is no host name */
    DNS_REPLY_PARTIAL,      /* led to an alias that is to be asked for */
    DNS_REPLY_DONE,
};
/* Reads a reply to `q` and adds what it tells about dns_answer_end(a, name) to `a`, which is to be
 * thrown away unless PARTIAL or DONE. */
enum dns_reply dns_reply_read(const uint8_t *data, size_t len, const struct dns_query *q,
                              const char *name, uint32_t negative_ttl, struct dns_answer *a);

/* Shared by the three files of this module. */

/* A name at data[*pos], uncompressed into wire (may be NULL); *pos moves behind it. Pointers lead
 * backwards only and at most 64 times. -1: not a name. */
int dns_name_walk(const uint8_t *data, size_t len, size_t *pos, uint8_t *wire, uint8_t *wire_len);
/* Into canonical text; false for the root and for names with other bytes. */
bool dns_name_text(const uint8_t *wire, size_t len, char *ret);
/* Back; -1: not a name. */
int dns_name_wire(const char *name, uint8_t *wire, uint8_t *wire_len);

static inline uint16_t dns_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
