/* SPDX-License-Identifier: MIT */
#include "resolver/server.h"
#include "common/auto.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define DATAGRAMS_PER_TURN 64

static_assert(SERVER_QUESTIONS <= UPSTREAM_LOOKUPS, "who may ask finds room for a lookup");

enum state { FREE, ASKED, LOOKING, ADMITTING };

/* Where a question came from. */
struct origin {
    struct sockaddr_in from;
    struct tcp_connection *connection;  /* borrowed; NULL: by UDP */
    uint32_t generation;                /* of the connection */
};

struct pending {
    struct server *server;              /* borrowed */
    TAILQ_ENTRY(pending) link;          /* of those that are free, or unsent */
    enum state state;
    bool unsent;                        /* waits for room in the channel */
    uint32_t id;                        /* in the channel: names the place and the user of it */
    struct origin origin;
    struct dns_question q;
    struct timer timer;
    struct upstream_waiter waiter;
    struct dns_answer *answer;          /* ref; ADMITTING */
    uint32_t ttl;
};
TAILQ_HEAD(pendings, pending);

struct server {
    struct loop *loop;                  /* borrowed */
    struct channel channel;
    struct upstreams upstreams;
    struct guests guests;
    struct source udp;
    struct timers channel_timers;
    uint32_t denied_ttl;
    struct pendings empty, unsent;
    uint32_t n_empty;
    uint64_t keys[SERVER_QUESTIONS];    /* see question_key(); 0: free */
    struct pending pendings[SERVER_QUESTIONS];
    struct tcp tcp;
};

static uint32_t guest_of(const struct origin *o)
{
    return ntohl(o->from.sin_addr.s_addr);
}

/* --- answering --- */

static void send_answer(struct server *s, const struct origin *o, const uint8_t *data, size_t len)
{
    if (o->connection)
        tcp_reply(o->connection, o->generation, data, len);
    else if (len > 0)       /* what the socket has no room for is lost, as datagrams may be */
        (void)sendto(s->udp.fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT,
                     (const struct sockaddr *)&o->from, sizeof(o->from));
}

static void tell(struct server *s, const struct origin *o, const struct dns_question *q,
                 const struct dns_told *told)
{
    autofree uint8_t *data = NULL;
    size_t len = 0;

    if (dns_answer_write(q, told, &data, &len) < 0)
        len = 0;
    send_answer(s, o, data, len);
}

static void silence(struct server *s, const struct origin *o)
{
    send_answer(s, o, NULL, 0);
}

/* --- questions on their way --- */

static void release(struct pending *p)
{
    struct server *s = p->server;

    timer_stop(&p->timer);
    upstreams_forget(&p->waiter);
    if (p->unsent)
        TAILQ_REMOVE(&s->unsent, p, link);
    p->unsent = false;
    dns_answer_unref(p->answer);
    p->answer = NULL;
    p->state = FREE;
    p->id += SERVER_QUESTIONS;          /* a reply that comes late names nobody */
    s->keys[p - s->pendings] = 0;
    guests_give(&s->guests, guest_of(&p->origin), GUESTS_QUESTIONS);
    TAILQ_INSERT_TAIL(&s->empty, p, link);
    s->n_empty++;
}

/* Ends it. The place is free before the answer goes out, as sending can bring new questions. */
static void finish(struct pending *p, const struct dns_told *told)
{
    struct server *s = p->server;
    struct origin o = p->origin;
    autofree uint8_t *data = NULL;
    size_t len = 0;

    if (told && dns_answer_write(&p->q, told, &data, &len) < 0)
        len = 0;
    release(p);
    send_answer(s, &o, data, len);
}

static void finish_rcode(struct pending *p, int rcode)
{
    finish(p, &(struct dns_told){ .rcode = rcode });
}

static void finish_empty(struct pending *p, uint32_t ttl)
{
    finish(p, &(struct dns_told){ .rcode = DNS_NOERROR, .soa = true, .ttl = ttl });
}

static void finish_denied(struct pending *p, uint32_t verdict)
{
    switch (verdict) {
    case RESOLVE_NOBODY:
        return finish(p, NULL);
    case RESOLVE_REFUSED:
        return finish(p, &(struct dns_told){ .rcode = DNS_REFUSED, .ede = DNS_EDE_BLOCKED,
                                             .why = "not allowed by the sandbox's policy" });
    case RESOLVE_NXDOMAIN:
        return finish(p, &(struct dns_told){ .rcode = DNS_NXDOMAIN, .soa = true,
                                             .ttl = p->server->denied_ttl });
    default:
        return finish_rcode(p, DNS_SERVFAIL);
    }
}

static void timed_out(void *arg)
{
    finish_rcode(arg, DNS_SERVFAIL);
}

/* --- the channel --- */

static int send_ask(struct pending *p)
{
    struct resolve_ask m = { .type = RESOLVE_ASK, .id = p->id, .guest = guest_of(&p->origin),
                             .qtype = p->q.qtype, .tcp = p->origin.connection != NULL };

    memcpy(m.name, p->q.name, strlen(p->q.name) + 1);
    return channel_send(&p->server->channel, &m, sizeof(m));
}

static int send_admit(struct pending *p)
{
    const struct dns_answer *a = p->answer;
    struct resolve_admit m = { .type = RESOLVE_ADMIT, .id = p->id, .guest = guest_of(&p->origin),
                               .ttl = p->ttl, .n_addresses = a->n_addresses,
                               .n_aliases = a->n_aliases };

    memcpy(m.addresses, a->addresses, a->n_addresses * sizeof(a->addresses[0]));
    memcpy(m.name, p->q.name, strlen(p->q.name) + 1);
    for (uint32_t i = 0; i < a->n_aliases; i++)
        memcpy(m.aliases[i], a->aliases[i], strlen(a->aliases[i]) + 1);
    return channel_send(&p->server->channel, &m, sizeof(m));
}

/* False: no room for now. A channel that is gone ends all soon. */
static bool send_message(struct pending *p)
{
    return (p->state == ASKED ? send_ask(p) : send_admit(p)) != 0;
}

static void consult(struct pending *p, enum state state)
{
    struct server *s = p->server;

    p->state = state;
    timer_start(s->loop, &s->channel_timers, &p->timer);
    if (TAILQ_EMPTY(&s->unsent) && send_message(p))
        return;
    p->unsent = true;
    TAILQ_INSERT_TAIL(&s->unsent, p, link);
}

static void channel_writable(void *arg)
{
    struct server *s = arg;
    struct pending *p;

    while ((p = TAILQ_FIRST(&s->unsent)) && send_message(p)) {
        TAILQ_REMOVE(&s->unsent, p, link);
        p->unsent = false;
    }
}

static struct pending *find(struct server *s, uint32_t id, enum state state)
{
    struct pending *p = &s->pendings[id % SERVER_QUESTIONS];

    return p->id == id && p->state == state && !p->unsent ? p : NULL;
}

/* --- the way of a question --- */

static void found(void *arg, struct dns_answer *a, uint32_t ttl)
{
    struct pending *p = arg;

    if (!a)
        return finish_rcode(p, DNS_SERVFAIL);
    if (a->n_addresses == 0) {
        bool nothing = dns_answer_negative(a);
        return finish(p, &(struct dns_told){ .rcode = a->rcode, .answer = a, .ttl = ttl,
                                             .soa = nothing });
    }
    p->answer = dns_answer_ref(a);
    p->ttl = ttl;
    consult(p, ADMITTING);
}

static void look_up(struct pending *p)
{
    struct server *s = p->server;
    uint32_t ttl;
    struct dns_answer *a = upstreams_cached(&s->upstreams, p->q.name, p->q.qtype, &ttl);

    p->state = LOOKING;
    timer_stop(&p->timer);      /* the lookup has its own */
    if (a)
        found(p, a, ttl);
    else if (upstreams_ask(&s->upstreams, p->q.name, p->q.qtype, &p->waiter) < 0)
        finish_rcode(p, DNS_SERVFAIL);
}

static void said(void *arg, const struct resolve_say *m)
{
    struct pending *p = find(arg, m->id, ASKED);

    if (!p)
        return;
    if (m->verdict != RESOLVE_ALLOW)
        return finish_denied(p, m->verdict);
    switch (p->q.qtype) {
    case DNS_A:
    case DNS_TXT:
    case DNS_MX:
    case DNS_SRV:
        return look_up(p);
    default:                    /* nothing but IPv4 leads out, so there is nothing else to know */
        return finish_empty(p, SERVER_EMPTY_TTL);
    }
}

static bool is_of(const struct dns_answer *a, uint32_t address)
{
    for (uint32_t i = 0; i < a->n_addresses; i++)
        if (a->addresses[i] == address)
            return true;
    return false;
}

static void admitted(void *arg, const struct resolve_admitted *m)
{
    struct pending *p = find(arg, m->id, ADMITTING);

    if (!p)
        return;
    for (uint32_t i = 0; i < m->n_addresses; i++)
        if (!is_of(p->answer, m->addresses[i]))
            return finish_rcode(p, DNS_SERVFAIL);
    if (m->verdict != RESOLVE_ALLOW)
        return finish_denied(p, m->verdict);
    if (m->n_addresses == 0)
        return finish(p, &(struct dns_told){ .rcode = DNS_NOERROR, .soa = true,
                                             .ttl = p->server->denied_ttl,
                                             .ede = DNS_EDE_FILTERED,
                                             .why = "its addresses are not allowed by the "
                                                    "sandbox's policy" });
    finish(p, &(struct dns_told){ .rcode = DNS_NOERROR, .answer = p->answer, .ttl = p->ttl,
                                  .addresses = m->addresses, .n_addresses = m->n_addresses });
}

/* --- arrival --- */

/* The same for a question that is repeated; 0 for none, and by TCP, where nobody repeats. */
static uint64_t question_key(struct server *s, const struct origin *o,
                             const struct dns_question *q)
{
    if (o->connection)
        return 1;
    uint64_t h = cache_hash(&s->upstreams.cache, q->name, q->qtype);
    uint64_t from = (uint64_t)guest_of(o) << 32 | (uint32_t)o->from.sin_port << 16 | q->id;
    return (h ^ from * 0x9e3779b97f4a7c15u) | 2;
}

static bool is_repeated(const struct server *s, uint64_t key, const struct origin *o,
                        const struct dns_question *q)
{
    for (size_t i = 0; key > 1 && i < SERVER_QUESTIONS; i++) {
        const struct pending *p = &s->pendings[i];
        if (s->keys[i] == key && p->q.id == q->id && p->q.qtype == q->qtype &&
            p->origin.from.sin_port == o->from.sin_port &&
            p->origin.from.sin_addr.s_addr == o->from.sin_addr.s_addr &&
            p->q.wire_len == q->wire_len && memcmp(p->q.wire, q->wire, q->wire_len) == 0)
            return true;
    }
    return false;
}

static void question(struct server *s, const struct origin *o, const uint8_t *data, size_t len)
{
    struct dns_question q;
    int rcode = dns_question_read(data, len, o->connection != NULL, &q);

    if (rcode == DNS_SILENCE)
        return silence(s, o);
    if (rcode != DNS_NOERROR)
        return tell(s, o, &q, &(struct dns_told){ .rcode = rcode });
    uint64_t key = question_key(s, o, &q);
    if (is_repeated(s, key, o, &q))
        return;
    struct pending *p = TAILQ_FIRST(&s->empty);
    if (!p || !guests_take(&s->guests, guest_of(o), GUESTS_QUESTIONS, SERVER_PER_GUEST,
                           s->n_empty))
        return tell(s, o, &q, &(struct dns_told){ .rcode = DNS_SERVFAIL });
    TAILQ_REMOVE(&s->empty, p, link);
    s->n_empty--;
    s->keys[p - s->pendings] = key;
    p->origin = *o;
    p->q = q;
    consult(p, ASKED);
}

static void udp_ready(void *arg)
{
    struct server *s = arg;
    uint8_t data[DNS_QUESTION_MAX + 1];     /* one more, so that longer ones are noticed */

    for (int i = 0; i < DATAGRAMS_PER_TURN; i++) {
        struct origin o = { 0 };
        socklen_t size = sizeof(o.from);
        ssize_t n = recvfrom(s->udp.fd, data, sizeof(data), 0, (struct sockaddr *)&o.from, &size);
        if (n < 0)
            return;
        if (o.from.sin_family == AF_INET && o.from.sin_port != 0)
            question(s, &o, data, (size_t)n);
    }
}

static void tcp_question(void *arg, struct tcp_connection *c, const uint8_t *data, size_t len)
{
    struct origin o = { .from = c->from, .connection = c, .generation = c->generation };

    question(arg, &o, data, len);
}

/* --- beginning and end --- */

static const struct channel_calls calls = {
    .said = said, .admitted = admitted, .writable = channel_writable,
};

static int init(struct server *s, struct loop *l, const struct server_config *c, struct err *e)
{
    s->loop = l;
    s->denied_ttl = c->denied_ttl;
    s->udp = (struct source){ .fd = c->udp, .fn = udp_ready, .arg = s };
    TAILQ_INIT(&s->empty);
    TAILQ_INIT(&s->unsent);
    loop_timers(l, &s->channel_timers, SERVER_CHANNEL_MS);
    for (size_t i = 0; i < SERVER_QUESTIONS; i++) {
        struct pending *p = &s->pendings[i];
        *p = (struct pending){ .server = s, .id = (uint32_t)i,
                               .timer = { .fn = timed_out, .arg = p },
                               .waiter = { .done = found, .arg = p } };
        TAILQ_INSERT_TAIL(&s->empty, p, link);
        s->n_empty++;
    }
    if (channel_init(&s->channel, l, c->channel, &calls, s, e) < 0 ||
        tcp_init(&s->tcp, l, &s->guests, c->tcp, tcp_question, s, e) < 0 ||
        upstreams_init(&s->upstreams, l, c->upstreams, c->n_upstreams, e) < 0)
        return -1;
    return loop_watch(l, &s->udp, EPOLLIN, e);
}

struct server *server_new(struct loop *l, const struct server_config *c, struct err *e)
{
    autofree struct server *s = calloc(1, sizeof(*s));

    if (!s) {
        err_nomem(e);
        return NULL;
    }
    return init(s, l, c, e) < 0 ? NULL : take_ptr(s);
}

void server_free(struct server *s)
{
    for (size_t i = 0; i < SERVER_QUESTIONS; i++)
        if (s->pendings[i].state != FREE)
            release(&s->pendings[i]);
    tcp_done(&s->tcp);
    upstreams_done(&s->upstreams);
    channel_done(&s->channel);
    loop_close(s->loop, &s->udp);
    guests_done(&s->guests);
    free(s);
}

enum channel_state server_state(const struct server *s, struct err *e)
{
    if (s->channel.state == CHANNEL_BROKEN)
        *e = s->channel.error;
    return s->channel.state;
}
