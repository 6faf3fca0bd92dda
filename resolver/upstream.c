/* SPDX-License-Identifier: MIT */
#include "resolver/upstream.h"
#include "common/auto.h"
#include "common/log.h"

#include <string.h>
#include <sys/random.h>

TAILQ_HEAD(waiters, upstream_waiter);

struct lookup {
    struct upstreams *up;           /* borrowed */
    bool used;
    uint16_t qtype;
    char name[RESOLVE_NAME];
    struct waiters waiters;
    struct dns_answer *answer;      /* ref: what is known so far */
    struct timer total, wait;       /* `wait`: a try, or the wait for the right case */

    uint8_t order[UPSTREAMS_MAX];   /* of the servers */
    size_t at;                      /* the one asked now: up->n: none is left */
    unsigned tries;                 /* of this one that are over */
    bool by_tcp;                    /* this one, this name: UDP has shown that it will not do */
    bool wrong_case;                /* a reply would have fitted but for the case */
    unsigned n_foreign;
    struct dns_query query;
    struct exchange x;
};

static void step(struct lookup *l);

static struct upstream_server *server(struct lookup *l)
{
    return &l->up->servers[l->order[l->at]];
}

/* Calls all who wait. The place is kept until then, so that one who asks again now is told too. */
static void finish(struct lookup *l, bool found)
{
    struct upstreams *u = l->up;
    struct dns_answer *a = found ? l->answer : NULL;
    struct upstream_waiter *w;

    timer_stop(&l->total);
    timer_stop(&l->wait);
    exchange_end(&l->x);
    if (a)
        cache_put(&u->cache, l->name, l->qtype, a, u->loop->now);
    while ((w = TAILQ_FIRST(&l->waiters))) {
        upstreams_forget(w);
        w->done(w->arg, a, a ? a->ttl : 0);
    }
    dns_answer_unref(l->answer);
    l->answer = NULL;
    l->used = false;
    u->hashes[l - u->lookups] = 0;
    u->n_lookups--;
}

/* The next server begins with the name that was asked for, whatever the one before had said. */
static void next_server(struct lookup *l)
{
    l->at++;
    l->tries = 0;
    l->by_tcp = false;
    dns_answer_unref(l->answer);
    l->answer = dns_answer_new();
    if (!l->answer)
        return finish(l, false);
    step(l);
}

/* This try has come to nothing. */
static void try_over(void *arg)
{
    static struct log_rate rate;
    struct lookup *l = arg;

    if (l->wrong_case && !l->by_tcp) {
        l->by_tcp = true;
        return step(l);
    }
    if (++l->tries < UPSTREAM_TRIES)
        return step(l);
    server(l)->avoid_until = l->up->loop->now + UPSTREAM_AVOID_MS;
    if (log_rate_ok(&rate, 3, 60000))
        log_warn(NULL, "upstream %u does not reply, the next one is asked", l->order[l->at] + 1u);
    next_server(l);
}

static void total_over(void *arg)
{
    finish(arg, false);
}

/* UDP will not do for this name: once only, so that nobody goes in circles. */
static void ask_by_tcp(struct lookup *l)
{
    if (l->by_tcp || l->x.tcp)
        return next_server(l);
    l->by_tcp = true;
    step(l);
}

static void wrong_case(struct lookup *l)
{
    if (l->x.tcp)
        return next_server(l);
    if (l->wrong_case)
        return;
    l->wrong_case = true;
    timer_start(l->up->loop, &l->up->cases, &l->wait);
}

/* The server has replied: its habits are known now. */
static void learn(struct lookup *l)
{
    struct upstream_server *s = server(l);

    s->avoid_until = 0;
    if (l->wrong_case && l->x.tcp)
        s->tcp_until = l->up->loop->now + UPSTREAM_LEARNT_MS;
}

static void got(void *arg, const uint8_t *data, size_t len)
{
    struct lookup *l = arg;

    switch (dns_reply_read(data, len, &l->query, l->name, UPSTREAM_NEGATIVE_TTL, l->answer)) {
    case DNS_REPLY_FOREIGN:
        if (l->x.tcp)
            next_server(l);
        else if (++l->n_foreign >= UPSTREAM_FOREIGN)
            ask_by_tcp(l);
        return;
    case DNS_REPLY_CASE:
        return wrong_case(l);
    case DNS_REPLY_TRUNCATED:
        return ask_by_tcp(l);
    case DNS_REPLY_PLAIN:
        server(l)->plain_until = l->up->loop->now + UPSTREAM_LEARNT_MS;
        return step(l);
    case DNS_REPLY_FAILED:
        return next_server(l);
    case DNS_REPLY_LOOP:
        return finish(l, false);
    case DNS_REPLY_PARTIAL:
        learn(l);
        l->tries = 0;
        l->by_tcp = false;
        return step(l);
    case DNS_REPLY_DONE:
        learn(l);
        return finish(l, true);
    }
}

static void exchange_failed(void *arg)
{
    struct lookup *l = arg;

    timer_stop(&l->wait);
    try_over(l);
}

/* Sends a query for where the chain has come to. -1: this server cannot be asked. */
static int send_query(struct lookup *l)
{
    struct upstream_server *s = server(l);
    int64_t now = l->up->loop->now;
    bool tcp = l->by_tcp || s->tcp_until > now;
    uint8_t random[DNS_QUERY_RANDOM], buf[DNS_QUERY_MAX];

    l->wrong_case = l->wrong_case && l->by_tcp;     /* kept for learn() */
    l->n_foreign = 0;
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return -1;
    if (tcp)
        memset(random + 2, 0, sizeof(random) - 2);  /* lower case: there is nobody to fool */
    if (dns_query_make(&l->query, dns_answer_end(l->answer, l->name), l->qtype, random) < 0)
        return -1;
    l->query.plain = s->plain_until > now;
    size_t len = dns_query_write(&l->query, buf);
    return exchange_begin(&l->x, &s->address, tcp, buf, len);
}

static void step(struct lookup *l)
{
    while (l->at < l->up->n) {
        if (send_query(l) == 0) {
            timer_start(l->up->loop, &l->up->tries, &l->wait);
            return;
        }
        /* No route, no port left: as if it did not reply. */
        server(l)->avoid_until = l->up->loop->now + UPSTREAM_AVOID_MS;
        l->at++;
        l->tries = 0;
        l->by_tcp = false;
    }
    finish(l, false);
}

/* Those that reply first, each kind as it was configured. */
static void order_servers(struct lookup *l)
{
    const struct upstreams *u = l->up;
    size_t n = 0;

    for (int avoided = 0; avoided <= 1; avoided++)
        for (size_t i = 0; i < u->n; i++)
            if ((u->servers[i].avoid_until > u->loop->now) == (avoided == 1))
                l->order[n++] = (uint8_t)i;
}

int upstreams_init(struct upstreams *u, struct loop *l, const struct upstream_address *servers,
                   size_t n, struct err *e)
{
    uint64_t seed;

    *u = (struct upstreams){ .loop = l };
    if (n > UPSTREAMS_MAX)
        return err_set(e, ERR_USAGE, "%d upstreams at most", UPSTREAMS_MAX);
    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        return err_set(e, ERR_INTERNAL, "no random numbers");
    cache_init(&u->cache, seed);
    u->lookups = calloc(UPSTREAM_LOOKUPS, sizeof(*u->lookups));
    if (!u->lookups)
        return err_nomem(e);
    for (size_t i = 0; i < n; i++)
        u->servers[i].address = servers[i];
    u->n = n;
    loop_timers(l, &u->tries, UPSTREAM_TRY_MS);
    loop_timers(l, &u->cases, UPSTREAM_CASE_MS);
    loop_timers(l, &u->totals, UPSTREAM_TOTAL_MS);
    return 0;
}

void upstreams_done(struct upstreams *u)
{
    for (size_t i = 0; u->lookups && i < UPSTREAM_LOOKUPS; i++)
        if (u->lookups[i].used)
            finish(&u->lookups[i], false);
    free(u->lookups);
    u->lookups = NULL;
    cache_done(&u->cache);
}

struct dns_answer *upstreams_cached(struct upstreams *u, const char *name, uint16_t qtype,
                                    uint32_t *ret_ttl)
{
    return cache_find(&u->cache, name, qtype, u->loop->now, ret_ttl);
}

static struct lookup *begin(struct upstreams *u, size_t i, uint64_t hash, const char *name,
                            uint16_t qtype)
{
    struct lookup *l = &u->lookups[i];

    *l = (struct lookup){ .up = u, .qtype = qtype, .answer = dns_answer_new() };
    if (!l->answer)
        return NULL;
    l->used = true;
    memcpy(l->name, name, strlen(name) + 1);
    TAILQ_INIT(&l->waiters);
    l->total.fn = total_over;
    l->wait.fn = try_over;
    l->total.arg = l->wait.arg = l;
    exchange_init(&l->x, u->loop, got, exchange_failed, l);
    u->hashes[i] = hash;
    u->n_lookups++;
    order_servers(l);
    timer_start(u->loop, &u->totals, &l->total);
    return l;
}

int upstreams_ask(struct upstreams *u, const char *name, uint16_t qtype,
                  struct upstream_waiter *w)
{
    uint64_t hash = cache_hash(&u->cache, name, qtype) | 1;     /* 0 is a place that is free */
    size_t empty = UPSTREAM_LOOKUPS;
    struct lookup *l = NULL;

    for (size_t i = 0; i < UPSTREAM_LOOKUPS && !l; i++) {
        if (u->hashes[i] == 0)
            empty = i;
        else if (u->hashes[i] == hash && u->lookups[i].qtype == qtype &&
                 strcmp(u->lookups[i].name, name) == 0)
            l = &u->lookups[i];
    }
    bool fresh = !l;
    if (fresh && (empty == UPSTREAM_LOOKUPS || !(l = begin(u, empty, hash, name, qtype))))
        return -1;
    if (fresh) {
        step(l);
        if (!l->used)
            return -1;      /* no server could be asked */
    }
    w->in = l;
    TAILQ_INSERT_TAIL(&l->waiters, w, link);
    return 0;
}

void upstreams_forget(struct upstream_waiter *w)
{
    if (!w->in)
        return;
    TAILQ_REMOVE(&w->in->waiters, w, link);
    w->in = NULL;
}
