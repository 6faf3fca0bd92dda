/* SPDX-License-Identifier: MIT
 *
 * loop: the agent's one epoll. A source is embedded in what it belongs to and is watched while it
 * wants events; wanting none takes it out of the epoll, since hang-ups cannot be masked otherwise.
 */
#pragma once

#include "common/err.h"
#include <stdint.h>

struct source {
    int fd;                 /* owned by whoever embeds the source; -1 none */
    uint32_t events;        /* watched now; 0: not in the epoll */
    void (*fn)(void *arg, uint32_t events);
    void *arg;              /* borrowed */
};

#define SOURCE_NONE ((struct source){ .fd = -1 })

struct loop {
    int fd;                 /* owned */
};

int loop_init(struct loop *l, struct err *e);
void loop_done(struct loop *l);
/* Watches for `events` (EPOLLIN …; EPOLLET allowed), 0 for nothing. */
int loop_watch(struct loop *l, struct source *s, uint32_t events, struct err *e);
/* Not watched any more, and the descriptor closed. */
void loop_close(struct loop *l, struct source *s);
/* Waits until the deadline at most and calls what is ready. A callback may close other sources, but
 * the memory of a source must live to the end of the turn. */
int loop_turn(struct loop *l, int64_t deadline, struct err *e);
