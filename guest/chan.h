/* SPDX-License-Identifier: MIT
 *
 * chan: the agent's end of the channel: a virtio-serial port, or a socket in tests. Bytes in,
 * frames out of the decoder; frames put, bytes out. It keeps one buffer of output and no queue:
 * whoever has something to say remembers that, and is asked (`fill`) when there is room. So a
 * daemon that does not read makes nothing grow.
 *
 * Before a HELLO, and from the moment the host's end is closed, nothing is asked for.
 */
#pragma once

#include "common/err.h"
#include "common/frame.h"
#include "guest/loop.h"
#include <stdbool.h>

enum chan_kind {
    CHAN_PORT,          /* no connections: end of file means that nobody is there just now */
    CHAN_SOCKET,        /* end of file is the end */
    CHAN_LISTEN,        /* one connection after the other, as QEMU does it */
};

struct chan_ops {
    void (*frame)(void *arg, const struct frame *f);
    void (*fill)(void *arg);    /* put as long as it is taken */
};

struct chan {
    struct loop *loop;          /* borrowed */
    const struct chan_ops *ops; /* borrowed */
    void *arg;
    enum chan_kind kind;
    struct source listener;     /* CHAN_LISTEN */
    struct source io;           /* edge-triggered */
    bool can_read, can_write;   /* until the descriptor says otherwise */
    bool greeted;
    bool ended;                 /* CHAN_SOCKET: the other side is gone */
    int64_t quiet_at;           /* 0, or when the silence inside of a frame is long enough */
    struct frame_decoder dec;
    size_t out_at, out_len;
    uint8_t out[2 * (FRAME_OVERHEAD + LIMIT_FRAME)];
};

/* Takes the descriptor, also on failure. */
int chan_init_take(struct chan *c, struct loop *loop, enum chan_kind kind, int *fd,
                   const struct chan_ops *ops, void *arg, struct err *e);
void chan_done(struct chan *c);
/* Reads, decodes and writes for a while; returns whether it has more to do at once. */
bool chan_turn(struct chan *c);
/* When chan_turn() is to be called without an event; DEADLINE_NONE. */
int64_t chan_deadline(const struct chan *c);
/* A HELLO was accepted; `anew`: with another epoch, so that what waits is of no use any more. */
void chan_greeted(struct chan *c, bool anew);
/* From `fill`: false when there is no room, then nothing was put. */
bool chan_put(struct chan *c, enum frame_type type, uint8_t fd, uint32_t stream,
              const void *payload, uint32_t len);
/* Payload room of the next frame, 0 to LIMIT_FRAME. */
uint32_t chan_room(const struct chan *c);
