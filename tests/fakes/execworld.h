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
#define WORLD_UID 5001          /* its owner */

struct world {
    struct guestpeer peer;
    struct store *store;
    struct worker *worker;
    struct evloop *loop;
    struct exec_table *table;
    struct agent *agent;
    const char *socket;         /* where the agent connects: peer.path */
    int attach_ms, stall_ms, end_ms;    /* of struct exec_deps; set before world_open() */
    struct quota *quota;        /* borrowed, NULL none; set before world_open() */
    uint64_t timeout_ms;        /* of what start_begin() starts */
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

void world_begin(struct world *w);      /* init, open, ready */
/* exec_read(), waiting for the reader's descriptor; -2 when nothing comes. */
int64_t world_take(struct exec_reader *r, void *buf, size_t cap, int *fd, uint64_t *lost,
                   bool *ended);
uint8_t world_byte(uint64_t offset);    /* what the played guest writes at this offset */
/* The guest writes len bytes from offset on, in frames. */
void world_pour(struct world *w, uint32_t stream, uint8_t fd, uint64_t offset, uint64_t len);
/* Waits until the output of fd has this length. */
bool world_output_is(struct exec *x, int fd, uint64_t end);
/* The row in the store, without its strings; zeroes when there is none. */
struct exec_row world_row(struct world *w, const char *id);
/* Waits until the row says how it ended. */
bool world_row_ended(struct world *w, const char *id, int how, uint32_t value);
