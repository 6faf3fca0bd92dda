/* SPDX-License-Identifier: MIT
 *
 * agent: the host's end of one guest channel. Connects to QEMU's socket, says hello with a new
 * epoch until it is answered, configures the guest, moves frames. Everything that arrives is
 * hostile: lengths, order, stream ids and rates are checked, unknown streams are counted and
 * dropped, and memory per guest is bounded (decoder buffer + LIMIT_GUEST_OUTQ).
 *
 * Reading and callbacks: event thread. Everything else: any thread. Shared by references.
 */
#pragma once

#include "common/err.h"
#include "common/frame.h"
#include "daemon/evloop.h"
#include <stdbool.h>
#include <stdint.h>

struct agent;

struct agent_ops {
    /* One frame about `stream` (EXEC answers, DATA, EOF, CREDIT, EXIT, SESSION). Event thread. */
    void (*frame)(void *arg, const struct frame *f);
    /* Hello answered and all SESSION frames seen: sessions not named are gone. Event thread. */
    void (*synced)(void *arg);
    /* The channel is closed (QEMU gone); no further callbacks. Event thread. */
    void (*closed)(void *arg);
    /* A line for the agent log. Event thread. */
    void (*log)(void *arg, int level, const char *text, size_t len);
};

/* socket_path: QEMU's listening socket; connecting is retried until the hello deadline. config is
 * copied, sent after hello if the guest says it is not configured yet. */
int agent_open(struct evloop *loop, const char *sandbox_id, const char *socket_path,
               const struct guest_config *config, const struct agent_ops *ops, void *arg,
               struct agent **ret, struct err *e);
struct agent *agent_ref(struct agent *a);
/* Ends callbacks (waits for a running one unless called from it), closes, wakes all waiters. */
void agent_close(struct agent *a);
void agent_unref(struct agent *a);

/* Blocks until READY, close or deadline. */
int agent_wait_ready(struct agent *a, int64_t deadline, struct err *e);
bool agent_is_ready(struct agent *a);
/* Queues a frame, waiting for room until deadline. Never waits on the event thread: there it fails
 * with ERR_UNAVAILABLE when the queue is full. */
int agent_send(struct agent *a, enum frame_type type, uint8_t fd, uint32_t stream,
               const void *payload, uint32_t len, int64_t deadline, struct err *e);
/* Round trip; ERR_TIMEOUT when the guest is silent. */
int agent_ping(struct agent *a, int64_t deadline, struct err *e);
/* Guest boot figures from READY, microseconds; 0 before. */
void agent_boot_times(struct agent *a, uint64_t *ret_kernel_us, uint64_t *ret_agent_us);
