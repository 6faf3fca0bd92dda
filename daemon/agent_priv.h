/* SPDX-License-Identifier: MIT
 *
 * agent_priv: inside of the agent module: agent.c (connection, handshake, reading) and
 * agent_queue.c (what goes to the guest).
 */
#pragma once

#include "common/log.h"
#include "common/strv.h"
#include "daemon/agent.h"
#include <pthread.h>

enum agent_state {
    AGENT_CONNECTING,
    AGENT_HELLO,        /* connected, hello not answered */
    AGENT_SYNCING,      /* answered, SESSION frames outstanding */
    AGENT_OPEN,         /* in step; not configured yet, or not ready */
    AGENT_READY,
    AGENT_CLOSED,
};

struct agent_ping {     /* on the stack of the thread that waits */
    uint64_t cookie;
    bool answered;
    struct agent_ping *next;
};

struct agent {
    unsigned refs;                  /* atomic */
    struct evloop *loop;            /* borrowed */
    const struct agent_ops *ops;    /* borrowed */
    void *arg;                      /* borrowed */
    char sandbox[LIMIT_ID + 1];
    char *path;                     /* owned */
    char *hostname;                 /* owned: of the configuration */
    struct strv env;
    uint8_t workspace;
    bool has_net;
    struct guest_net net;

    pthread_mutex_t lock;           /* from here to the next comment */
    pthread_cond_t changed;         /* state, room in the queue, answers */
    enum agent_state state;
    bool busy;                      /* a callback of ours runs on the event thread */
    bool version_differs;
    int fd;
    struct evsource *io, *tick, *rest;
    bool want_out;
    bool paused;                    /* not read from for a while */
    uint32_t epoch;
    uint8_t *q;                     /* owned: circle of q_cap bytes, q_len used from q_head */
    size_t q_cap, q_head, q_len;
    struct agent_ping *pings;
    uint64_t cookie;
    uint64_t kernel_us, agent_us;

    /* event thread only */
    struct frame_decoder dec;
    uint64_t dec_skipped;           /* of dec.skipped, counted already */
    int64_t connect_until, synced_by;
    int64_t hello_since;
    int64_t greeted_ms, greet_backoff;
    uint32_t sessions_left;
    bool configured;                /* as the guest's hello says */
    bool config_sent;
    bool net_sent;
    uint32_t abilities;
    int64_t heard_ms;               /* the last sensible frame */
    int64_t time_next, ping_next;
    size_t chunk;                   /* bytes taken per wakeup */
    int64_t junk_since;
    size_t junk;                    /* nonsense in this second */
    int rest_ms;
    int64_t log_since;
    size_t log_bytes;
    struct log_rate rate;
};

/* Sends what the socket takes; asks for EPOLLOUT while something is left. */
void agent_flush_locked(struct agent *a);
/* Queues without asking for the state: 0, or -1 when there is no room (or no memory for it). */
int agent_queue_locked(struct agent *a, enum frame_type type, uint8_t fd, uint32_t stream,
                       const void *payload, uint32_t len);
void agent_pong_locked(struct agent *a, uint64_t cookie);
