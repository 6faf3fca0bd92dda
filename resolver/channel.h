/* SPDX-License-Identifier: MIT
 *
 * channel: the connection with sandboxd (common/resolve.h). What it says is believed, but for its
 * shape: a message that is none of ours ends the connection, and with it the program.
 */
#pragma once

#include "common/resolve.h"
#include "resolver/loop.h"

struct channel_calls {
    void (*said)(void *arg, const struct resolve_say *m);
    void (*admitted)(void *arg, const struct resolve_admitted *m);
    void (*writable)(void *arg);        /* after a send that had no room */
};

enum channel_state { CHANNEL_OPEN, CHANNEL_ENDED, CHANNEL_BROKEN };

struct channel {
    struct loop *loop;                  /* borrowed */
    struct source source;
    enum channel_state state;
    struct err error;                   /* BROKEN: why */
    const struct channel_calls *calls;  /* borrowed */
    void *arg;                          /* borrowed */
};

/* Takes the descriptor: a SOCK_SEQPACKET that does not block. */
int channel_init(struct channel *c, struct loop *l, int fd, const struct channel_calls *calls,
                 void *arg, struct err *e);
void channel_done(struct channel *c);
/* One message of common/resolve.h. 1 sent, 0 no room at the moment (calls->writable says when),
 * -1 the connection is gone. */
int channel_send(struct channel *c, const void *message, size_t size);
