/* SPDX-License-Identifier: MIT
 *
 * egress_priv: what egress*.c share. Only they include it.
 *
 * A box is a sandbox that has a link. Boxes are found by slot, which addresses, log prefixes and
 * the resolver's questions lead to. `lock` guards them all and the filter's socket; what is done
 * under it is memory and one netlink exchange. Lines for logs and counts for the store are gathered
 * under it and written by the writer, a thread of its own, without it.
 */
#pragma once

#include "common/auto.h"
#include "common/limits.h"
#include "common/resolve.h"
#include "daemon/egress.h"
#include "daemon/events.h"
#include "daemon/evloop.h"
#include "daemon/filter.h"
#include "daemon/filter_watch.h"
#include "daemon/packet_log.h"
#include "daemon/worker.h"

#include <pthread.h>

#define EGRESS_CHOICE_CUT "policy-cut"     /* id of who has new rules and old flows; "" none */
#include <time.h>

#define BOX_NAMES 1024          /* (name, address) pairs of one sandbox at once */
#define BOX_NAMES_ALIKE 128     /* of these of one address */
#define BOX_RECENT 64           /* events whose repeats are counted together */

/* What the resolver told: this name led to this address, and may until then. */
struct admitted {
    char *name;                 /* owned */
    uint32_t address;
    int64_t until;              /* now_mono_ms() */
};

/* An element of the kernel's set n-ID, as we put it there. */
struct element {
    uint32_t address;
    uint16_t port_lo, port_hi;
    uint8_t proto;              /* POLICY_TCP, POLICY_UDP */
    int64_t until;
    char *name;                 /* owned: one of those that lead there */
};

struct recent {                 /* an event that was told, and how often it came again */
    uint64_t hash;              /* 0: free */
    int64_t since;
    uint64_t repeats;
    char *line;                 /* owned: the event without time and count, for the repeats' line */
};

struct bucket {                 /* token bucket */
    double tokens;
    int64_t at;
    int64_t told;               /* when its emptiness was last told */
};

#define WITNESS_MAX 512
struct witness {                /* packets that were let through, while a proof goes on */
    bool on;
    size_t n;
    struct { uint32_t address; uint16_t port; uint8_t proto; } seen[WITNESS_MAX];
};

struct box {
    char id[LIMIT_ID + 1];
    uint32_t slot;
    struct link link;
    struct ruleset rules;       /* owned, as all below */
    uint64_t *fresh;            /* matches of each rule that the store does not have yet */
    struct policy_span *spans, *host_spans;
    size_t n_spans, n_host_spans;
    struct admitted *admitted;
    size_t n_admitted;
    struct element *elements;
    size_t n_elements;
    struct recent recent[BOX_RECENT];
    struct bucket questions;
    bool cut_again;             /* flows, at the next sweep */
    struct witness witness;
    uint64_t denied;            /* packets that were told as such */
    uint64_t denials;           /* and names */
};

struct line {                   /* for the log of a sandbox */
    char id[LIMIT_ID + 1];
    char *text;                 /* owned */
    struct line *next;
};

struct resolver;                /* egress_resolver.c */

struct egress {
    const struct config *config;    /* borrowed, as the next two */
    struct store *store;
    struct events *events;
    struct evloop *loop;            /* owned, as all below */
    struct worker *writer;          /* files and SQLite: names must not wait for a disk */
    struct subnet net;
    uint16_t mtu;
    struct policy_rule *ceiling;    /* NULL: none */
    size_t n_ceiling;

    pthread_mutex_t change;         /* one change of policy or registry at a time; first */
    pthread_mutex_t lock;           /* guards all below */
    bool dirty;                     /* the kernel may not have what it should: make it anew */
    uint64_t repairs;
    bool ready;                     /* range, guard, filter, log are there */
    struct err broken;              /* else why not */
    struct filter *filter;
    uint32_t *opened;               /* indices of interfaces that forward for sandboxes only */
    size_t n_opened;
    struct box *boxes[LIMIT_SANDBOXES + 1];     /* by slot */
    struct line *lines, **lines_end;
    size_t n_lines;
    uint64_t lines_lost;

    struct packet_log *log;
    struct filter_watch *watch;     /* changes of the ruleset */
    struct resolver *resolver;
    struct mnl_socket *guard_watch; /* and of the guard */
    struct mnl_socket *ways_watch;  /* interfaces that appear, and the host's forwarding */
    struct evsource *log_source, *watch_source, *guard_source, *ways_source;
    struct evsource *write_timer, *sweep_timer;
};

static inline void egress_unlock_cleanup(pthread_mutex_t **m)
{
    pthread_mutex_unlock(*m);
}
#define hold_lock(m)                                                                       \
    __attribute__((cleanup(egress_unlock_cleanup), unused)) pthread_mutex_t *held_ = (m);  \
    pthread_mutex_lock(held_)

/* All of the filter anew, from the registry. Under lock. */
int egress_rebuild(struct egress *g, struct err *e);
/* Reads all that was told. True: `fn` said so of something (its arg is a bool), or more came than
 * the socket holds. */
bool egress_drain(struct mnl_socket *s, mnl_cb_t fn);
/* Tries again what the kernel refused, before somebody builds on it. Under lock. */
void repair_if_dirty(struct egress *g);

/* --- boxes (egress_box.c); under lock unless said --- */
/* What rules mean for the filter. */
struct compiled {
    struct policy_span *spans, *host_spans;     /* owned, as the next */
    size_t n_spans, n_host_spans;
    uint64_t *fresh;
};
#define COMPILED_INIT ((struct compiled){ 0 })
void compiled_done(struct compiled *c);
#define autocompiled __attribute__((cleanup(compiled_done)))
/* The work of a change, so without `lock`, which names and packets wait for. */
int rules_compile(const struct egress *g, const struct ruleset *s, struct compiled *ret,
                  struct err *e);
/* Takes the rules over. No lock needed. */
int box_new(const struct egress *g, const char *id, uint32_t slot, struct ruleset *rules,
            struct box **ret, struct err *e);
void box_free(struct box *b);
struct box *box_find(struct egress *g, const char *id);
struct box *box_at(struct egress *g, uint32_t address);     /* NULL: nobody's */
struct policy box_policy(const struct egress *g, const struct box *b);
/* Other rules for it, and what they were compiled to: tells the kernel, keeps. The old ones stay on
 * failure; else they are in *rules and *c. */
int box_replace(struct egress *g, struct box *b, struct ruleset *rules, struct compiled *c,
                struct err *e);
/* As the filter wants it. names: room for b->n_elements; borrowed from b. */
struct filter_box box_filter(const struct box *b, struct filter_name *names);

/* How one thing a sandbox did was decided, in words for logs and answers. */
struct ruled {
    struct policy_ruling ruling;
    const char *name;           /* borrowed from the box: the name it was reached by; NULL none */
    char rule[RULE_TEXT];       /* "" none decided */
    char source[LIMIT_NAME + 16];
    char reason[200];           /* a sentence */
};
/* An address, by itself or by any name that led there. */
void box_judge(const struct egress *g, const struct box *b, uint32_t address, uint16_t port,
               uint8_t proto, struct ruled *ret);
void ruled_explain(const struct egress *g, const struct ruleset *rules,
                   const struct policy_question *q, struct ruled *r);
bool is_neighbour(const struct egress *g, uint32_t address);
void ruled_neighbour(struct ruled *ret);
void box_count(struct box *b, const struct ruled *r);
/* Ends its flows that the policy does not allow. */
void box_cut_flows(struct egress *g, struct box *b);

/* --- names (egress_names.c); under lock --- */
uint32_t names_ask(struct egress *g, const struct resolve_ask *q);      /* RESOLVE_… */
void names_admit(struct egress *g, const struct resolve_admit *a, struct resolve_admitted *ret);
/* What the box's elements should be, for all addresses or one (then has_one); and the kernel's
 * change to that, if apply. */
int names_settle(struct egress *g, struct box *b, const uint32_t *one, bool apply, struct err *e);
void names_restore(struct egress *g, struct box *b);    /* from what the kernel has */
void names_expire(struct box *b, int64_t now);
bool bucket_take(struct bucket *b, double per_second, double burst);

/* --- the log (egress_log.c); under lock unless said --- */
struct api_policy_event;
/* Counts repeats within LOG_WINDOW_MS into one further line. */
void log_event(struct egress *g, struct box *b, const struct api_policy_event *ev);
void log_packet(struct egress *g, const struct packet_seen *p);
void log_sweep(struct egress *g, int64_t now);
void log_write_all(struct egress *g);                   /* takes the lock itself; writes files */
void log_done(struct egress *g, struct box *b);         /* tells repeats that were not told yet */

/* --- ways out of a host that does not forward by itself (egress_ways.c) --- */
/* Under lock; g->opened is what the filter has. From then on what appears later is opened too. */
int ways_open(struct egress *g, struct err *e);
void ways_close(struct egress *g);                      /* no lock */

/* --- the resolver (egress_resolver.c); no lock --- */
int resolver_start(struct egress *g, struct err *e);
void resolver_stop(struct egress *g);
