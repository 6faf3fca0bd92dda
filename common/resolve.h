/* SPDX-License-Identifier: MIT
 *
 * resolve: what sandboxd and sandboxd-resolver say to one another, over a SOCK_SEQPACKET pair that
 * sandboxd has made: messages of fixed shapes, one per packet, in the host's byte order, as both
 * ends are of one build. The resolver only ever asks; it decides nothing.
 *
 *     resolver                                  sandboxd
 *       ASK: guest wants this name     ───────▶   policy_judge_name(), rate limits
 *       ◀───────  SAY: allow, or how to refuse
 *       (asks an upstream, if it has no answer in its cache)
 *       ADMIT: name, aliases, addresses ──────▶   policy_decide() for each; into the guest's set
 *       ◀───────  ADMITTED: the addresses that may be told
 *
 * A message of another size or type ends the connection. Names are canonical (common/policy.h) and
 * end with a NUL; the root is never asked for.
 */
#pragma once

#include "common/policy.h"

#define RESOLVE_NAME (POLICY_NAME_MAX + 1)
#define RESOLVE_ADDRESSES 32    /* of one answer; further ones are dropped */
#define RESOLVE_ALIASES 8       /* CNAMEs followed; a longer chain is SERVFAIL */

enum resolve_type {
    RESOLVE_ASK = 1, RESOLVE_SAY, RESOLVE_ADMIT, RESOLVE_ADMITTED,
};

enum resolve_verdict {
    RESOLVE_ALLOW = 1,
    RESOLVE_REFUSED,    /* denied: answer REFUSED */
    RESOLVE_NXDOMAIN,   /* denied, where the administrator wants it to look so */
    RESOLVE_FAIL,       /* not now: SERVFAIL (rate limit, the filter could not be changed) */
    RESOLVE_NOBODY,     /* no sandbox has this address: no answer at all */
};

struct resolve_ask {
    uint32_t type;      /* RESOLVE_ASK */
    uint32_t id;        /* chosen by the resolver, repeated in the reply */
    uint32_t guest;     /* IPv4 source address of the question, host order */
    uint16_t qtype;     /* RFC 1035 3.2.2 */
    uint16_t tcp;       /* 1: asked over TCP */
    char name[RESOLVE_NAME];
};

struct resolve_say {
    uint32_t type;      /* RESOLVE_SAY */
    uint32_t id;
    uint32_t verdict;   /* enum resolve_verdict */
};

struct resolve_admit {
    uint32_t type;      /* RESOLVE_ADMIT */
    uint32_t id;
    uint32_t guest;
    uint32_t ttl;       /* seconds: the least of all records of the answer */
    uint32_t n_addresses, n_aliases;
    uint32_t addresses[RESOLVE_ADDRESSES];      /* IPv4, host order */
    char name[RESOLVE_NAME];                    /* as asked */
    char aliases[RESOLVE_ALIASES][RESOLVE_NAME];/* the CNAMEs it led through */
};

struct resolve_admitted {
    uint32_t type;      /* RESOLVE_ADMITTED */
    uint32_t id;
    uint32_t verdict;   /* ALLOW: answer with these addresses, maybe none (all were removed) */
    uint32_t n_addresses;
    uint32_t addresses[RESOLVE_ADDRESSES];
};
