/* SPDX-License-Identifier: MIT
 *
 * loop: the resolver's one epoll, and its deadlines. A source is embedded in what it belongs to,
 * which lives as long as the program (tables of fixed size), so an event that comes late finds at
 * worst another user of the same place; callbacks therefore try and see, and believe no event.
 *
 * Deadlines are kept by how long they are: all timers of one list wait equally long, so the first
 * one in is the first one due, and starting, stopping and finding the next cost nothing.
 */
#pragma once

#include "common/err.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct source {
    int fd;                 /* owned by whoever embeds the source; -1 none */
    uint32_t events;        /* watched now; 0: not in the epoll */
    void (*fn)(void *arg);
    void *arg;              /* borrowed */
};

#define SOURCE_NONE ((struct source){ .fd = -1 })

struct timer {
    TAILQ_ENTRY(timer) link;
    struct timers *in;      /* NULL: not running */
    int64_t due;            /* monotonic, milliseconds */
    void (*fn)(void *arg);
    void *arg;              /* borrowed */
};

TAILQ_HEAD(timer_queue, timer);
struct timers {
    int64_t ms;
    struct timer_queue queue;
};

#define LOOP_TIMERS 8       /* lists */

struct loop {
    int fd;                 /* owned */
    int64_t now;            /* now_mono_ms() of this turn */
    struct timers *lists[LOOP_TIMERS];  /* borrowed */
    size_t n_lists;
};

int loop_init(struct loop *l, struct err *e);
void loop_done(struct loop *l);
/* Watches for `events` (EPOLLIN, EPOLLOUT), 0 for nothing. */
int loop_watch(struct loop *l, struct source *s, uint32_t events, struct err *e);
/* Not watched any more, and the descriptor closed. */
void loop_close(struct loop *l, struct source *s);
/* Waits for an event or a deadline, for timeout_ms at most (-1: as long as it takes), and calls
 * what is ready and what is due. */
int loop_turn(struct loop *l, int timeout_ms, struct err *e);

/* A list of timers of `ms`; it has to outlive the loop's use. */
void loop_timers(struct loop *l, struct timers *t, int64_t ms);
/* Starts it, or starts it anew. */
void timer_start(struct loop *l, struct timers *t, struct timer *x);
void timer_stop(struct timer *x);
