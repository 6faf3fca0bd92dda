/* SPDX-License-Identifier: MIT
 *
 * upstream: finds out what the world says of a name: from the cache, or by asking the upstream
 * servers, following CNAMEs. It knows nothing of guests. Whoever wants the same name and type while
 * it is being found out waits for the one answer.
 *
 * A server is given two tries of 1.5 s by UDP, then the next one has its turn; one that did not
 * reply at all comes last for half a minute. What is truncated is asked for by TCP. A reply must
 * have come from the server's address to the port of the query (the kernel sees to that), repeat
 * its id, and its name letter by letter in upper and lower case; others are ignored. Where one
 * would fit but for the case and no better one follows soon, or so many do not fit that somebody
 * may be guessing, TCP decides, in which nobody can join who cannot see it.
 */
#pragma once

#include "resolver/cache.h"
#include "resolver/upstream_io.h"

#define UPSTREAMS_MAX 8
#define UPSTREAM_LOOKUPS 512        /* at one time */
#define UPSTREAM_TRY_MS 1500
#define UPSTREAM_TRIES 2
#define UPSTREAM_CASE_MS 200        /* for the right one, after a reply in the wrong case */
#define UPSTREAM_TOTAL_MS 10000     /* of a lookup with all its tries and CNAMEs */
#define UPSTREAM_FOREIGN 32         /* replies that do not fit, until TCP decides */
#define UPSTREAM_AVOID_MS 30000     /* a server that did not reply */
#define UPSTREAM_LEARNT_MS 600000   /* that it knows no EDNS, or does not keep the case */
#define UPSTREAM_NEGATIVE_TTL 300u  /* the longest that "there is none" is remembered */

struct lookup;

/* Who wants to know. Embedded; must be forgotten before its memory is reused. */
struct upstream_waiter {
    TAILQ_ENTRY(upstream_waiter) link;
    struct lookup *in;              /* NULL: waits for nothing */
    /* The answer, borrowed, and for how long it holds; NULL: could not be found out. */
    void (*done)(void *arg, struct dns_answer *a, uint32_t ttl);
    void *arg;                      /* borrowed */
};

struct upstream_server {
    struct upstream_address address;
    int64_t avoid_until, plain_until, tcp_until;
};

struct upstreams {
    struct loop *loop;              /* borrowed */
    struct timers tries, cases, totals;
    struct upstream_server servers[UPSTREAMS_MAX];
    size_t n;
    struct cache cache;
    struct lookup *lookups;         /* owned: UPSTREAM_LOOKUPS */
    size_t n_lookups;               /* in use */
    uint64_t hashes[UPSTREAM_LOOKUPS];  /* of name and type; 0: not in use */
};

/* n up to UPSTREAMS_MAX; without any, every lookup fails. */
int upstreams_init(struct upstreams *u, struct loop *l, const struct upstream_address *servers,
                   size_t n, struct err *e);
void upstreams_done(struct upstreams *u);
/* What the cache has, borrowed until the next call; else NULL. */
struct dns_answer *upstreams_cached(struct upstreams *u, const char *name, uint16_t qtype,
                                    uint32_t *ret_ttl);
/* w->done will be called, once, and not before this returns. -1: too much is going on. */
int upstreams_ask(struct upstreams *u, const char *name, uint16_t qtype,
                  struct upstream_waiter *w);
/* It is not called any more. The lookup goes on, as the cache has use for it. */
void upstreams_forget(struct upstream_waiter *w);
