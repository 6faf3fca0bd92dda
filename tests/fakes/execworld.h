/* SPDX-License-Identifier: MIT
 *
 * execworld: what an exec table needs around it: a store on disk with one sandbox, a worker, an
 * event loop, a guest played by the test (guestpeer). world_restart() is a daemon that was killed:
 * the table is forgotten, nothing is told to the guest, and a new one begins on the same files.
 */
#pragma once

#include "daemon/exec.h"
#include "tests/fakes/guestpeer.h"
#include <pthread.h>

#define WORLD_ID "0123456789abcdef"

struct world {
    struct guestpeer peer;
    struct store *store;
    struct worker *worker;
    struct evloop *loop;
    struct exec_table *table;
    struct agent *agent;
    const char *socket;         /* where the agent connects: peer.path */
    int attach_ms, stall_ms;    /* of struct exec_deps; set before world_open() */
    unsigned closed, logs;      /* hooks called */
};

void world_init(struct world *w);       /* all abort the test on failure */
void world_open(struct world *w);       /* table and agent */
void world_shut(struct world *w);       /* the daemon goes, orderly */
void world_ready(struct world *w);      /* handshake of the played guest, configured, no sessions */
void world_done(struct world *w);

/* exec_start() on a thread of its own. */
struct start {
    struct world *world;
    struct api_exec_req req;
    int64_t deadline;
    pthread_t thread;
    struct exec *x;
    int rc;
    struct err e;
};
extern int start_ms;                    /* the deadline given to exec_start() */
void start_begin(struct start *s, struct world *w, bool detach, bool with_stdin,
                 const char *const *argv);
int start_end(struct start *s);         /* joins; s->x is the caller's */

/* Starts against the played guest; returns the exec, *ret_stream its id on the channel. */
struct exec *world_start(struct world *w, bool detach, bool with_stdin, uint32_t *ret_stream);
