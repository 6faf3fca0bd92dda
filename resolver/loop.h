/* SPDX-License-Identifier: MIT
 *
 * loop: the resolver's one epoll. A source is embedded in what it belongs to, which lives as long
 * as the program (tables of fixed size), so an event that comes late finds at worst another user of
 * the same place; callbacks therefore try and see, and believe no event.
 */
#pragma once

#include "common/err.h"
#include <stdint.h>

struct source {
    int fd;                 /* owned by whoever embeds the source; -1 none */
    uint32_t events;        /* watched now; 0: not in the epoll */
    void (*fn)(void *arg);
    void *arg;              /* borrowed */
};

#define SOURCE_NONE ((struct source){ .fd = -1 })

struct loop {
    int fd;                 /* owned */
    int64_t now;            /* now_mono_ms() of this turn */
};

int loop_init(struct loop *l, struct err *e);
void loop_done(struct loop *l);
/* Watches for `events` (EPOLLIN, EPOLLOUT), 0 for nothing. */
int loop_watch(struct loop *l, struct source *s, uint32_t events, struct err *e);
/* Not watched any more, and the descriptor closed. */
void loop_close(struct loop *l, struct source *s);
/* Waits for timeout_ms at most (-1: for events only) and calls what is ready. */
int loop_turn(struct loop *l, int timeout_ms, struct err *e);
