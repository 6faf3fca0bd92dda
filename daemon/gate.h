/* SPDX-License-Identifier: MIT
 *
 * gate: takes connections from a listening socket, on a thread of its own, and hands them over. It
 * keeps a descriptor in reserve: when there is no other, who connects is answered with it and does
 * not hang in the queue, and the thread does not spin on a socket that is always readable. What it
 * had to refuse for that is logged once a minute at most, with their number.
 */
#pragma once

#include "common/err.h"

struct gate;

struct gate_options {
    int listen_fd;                          /* borrowed; made non-blocking */
    /* Both on the gate's thread. take(): fd is the callee's. refuse(): borrowed, to be answered
     * without waiting. */
    void (*take)(void *arg, int fd);
    void (*refuse)(void *arg, int fd, const struct err *e);
    void *arg;
};

/* Takes from now on. */
int gate_new(const struct gate_options *o, struct gate **ret, struct err *e);
/* No more from now on: stops, joins. Who waits in the queue stays there. NULL is fine. */
void gate_free(struct gate *g);
