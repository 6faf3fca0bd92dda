/* SPDX-License-Identifier: MIT
 *
 * ops: what the agent does with each frame, by a table, and what it has to say that is not about
 * one exec: the answer to HELLO, READY, PONG, log lines.
 */
#pragma once

#include "guest/chan.h"
#include "guest/session.h"

#define OPS_PONGS 16
#define OPS_LOGS 32
#define OPS_LOG_TEXT 240
#define OPS_PARTS 64            /* commands that are being received at once */

/* What only the first process of a guest can do; members may be NULL. */
struct ops_host {
    /* Before `configure`, and again when the daemon says something new. An error ends a guest that
     * is not configured yet. */
    int (*net)(const struct guest_net *n, struct err *e);
    /* Once: name and workspace (enum as in struct guest_config). An error ends the guest. */
    int (*configure)(const char *hostname, uint8_t workspace, struct err *e);
    void (*set_time)(uint64_t realtime_ns, bool first);
    void (*shutdown)(bool reboot);      /* begins it */
};

struct ops_part {               /* an EXEC that is not complete */
    uint32_t stream;            /* 0: free */
    uint8_t *data;              /* owned */
    size_t len, cap;
};

struct ops_log {
    uint8_t level;
    char text[OPS_LOG_TEXT];
};

struct ops {
    struct chan chan;
    struct sessions sessions;
    const struct ops_host *host;    /* borrowed */
    uint32_t epoch;                 /* of the last HELLO */
    bool understood;                /* and it was of our version */
    bool configured;
    bool has_net;
    uint8_t net[GUEST_NET_BYTES];   /* what was done last */
    bool failed;                    /* the guest cannot be what it was asked to be */
    bool want_hello, want_ready;
    uint64_t kernel_us;         /* CLOCK_MONOTONIC when the agent began: how long the kernel took */
    uint64_t ready_us;
    char boot_id[40];
    uint64_t pongs[OPS_PONGS];
    size_t n_pongs;
    struct ops_log logs[OPS_LOGS];
    size_t n_logs;
    struct ops_part parts[OPS_PARTS];
};

/* Takes the descriptor of the channel, also on failure. `o` is large: not for a stack. */
int ops_init_take(struct ops *o, struct loop *loop, enum chan_kind kind, int *fd,
                  const struct ops_host *host, struct err *e);
void ops_done(struct ops *o);
/* A line for the agent log of the sandbox; kept while nobody listens, the oldest going first. */
void ops_log(struct ops *o, int level, const char *text);
