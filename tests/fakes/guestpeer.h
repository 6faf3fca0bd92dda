/* SPDX-License-Identifier: MIT
 *
 * guestpeer: the guest's end of a channel, played by a test: QEMU's listening socket in a directory
 * of the test, and frames read and written by hand, right or wrong. One thread.
 */
#pragma once

#include "common/frame.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guestpeer {
    char dir[96];
    char path[108];
    int dir_fd;
    int listen_fd;
    int fd;                         /* the accepted connection, -1 none */
    struct frame_decoder dec;
    uint8_t buf[65536];
    size_t at, have;                /* not yet decoded bytes of buf */
    struct frame frame;             /* the last one read */
    bool may_break;                 /* writing to a closed connection is no failure */
    unsigned hellos;                /* seen so far */
    uint32_t abilities;             /* for the answer to hello; 0: as old agents, which say none */
};

/* A session for the answer to hello. */
struct guestsession {
    uint32_t stream;
    uint8_t state;
    uint64_t out, err, in;
    uint8_t how;                    /* with state 1 */
    uint32_t value;
    uint64_t out_end, err_end;
};

void guestpeer_init(struct guestpeer *p);           /* aborts the test on failure, as all here */
void guestpeer_done(struct guestpeer *p);           /* the directory goes with the test */
void guestpeer_accept(struct guestpeer *p, int timeout_ms);
void guestpeer_hangup(struct guestpeer *p);
void guestpeer_raw(struct guestpeer *p, const void *data, size_t len);
/* Non-blocking: bytes the socket took. */
size_t guestpeer_push(struct guestpeer *p, const void *data, size_t len);
void guestpeer_send(struct guestpeer *p, enum frame_type type, uint8_t fd, uint32_t stream,
                    const void *payload, size_t len);
/* Reads one frame into p->frame; false when none comes in time or the channel is closed. */
bool guestpeer_read(struct guestpeer *p, int timeout_ms);
/* Reads until a frame of this type, dropping others. */
bool guestpeer_expect(struct guestpeer *p, enum frame_type type, int timeout_ms);
/* Accepts if needed, waits for HELLO, answers it with these sessions. */
void guestpeer_greet(struct guestpeer *p, bool configured, const struct guestsession *s, size_t n);
/* The same without waiting for HELLO: to the epoch known. */
void guestpeer_answer(struct guestpeer *p, bool configured, const struct guestsession *s, size_t n);
void guestpeer_ready(struct guestpeer *p);

void guestpeer_started(struct guestpeer *p, uint32_t stream, uint32_t pid);
void guestpeer_failed(struct guestpeer *p, uint32_t stream, uint32_t sys, uint8_t kind,
                      const char *text);
void guestpeer_data(struct guestpeer *p, uint32_t stream, uint8_t fd, uint64_t offset,
                    const void *data, size_t len);
void guestpeer_u64(struct guestpeer *p, enum frame_type type, uint32_t stream, uint8_t fd,
                   uint64_t value);
void guestpeer_exit(struct guestpeer *p, uint32_t stream, uint8_t how, uint32_t value,
                    uint64_t out_end, uint64_t err_end);
/* A u64 of the last frame's payload, the i-th. */
uint64_t guestpeer_got_u64(const struct guestpeer *p, size_t i);
