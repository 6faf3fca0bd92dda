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
    /* Called by agent_open() before anything else can come, so that callbacks have somebody to
     * answer through; NULL is fine. If agent_open() then fails, `a` is closed already. */
    void (*opened)(void *arg, struct agent *a);
    /* One frame about `stream` (EXEC answers, DATA, EOF, CREDIT, EXIT, SESSION); also each HELLO
     * that is taken, as the beginning of a round of SESSION frames. Returns whether it made sense:
     * a guest that sends much that does not is read from less often. Event thread. */
    bool (*frame)(void *arg, const struct frame *f);
    /* Hello answered and all SESSION frames seen: sessions not named are gone. Comes again when the
     * two ends had to find each other anew. Event thread. */
    void (*synced)(void *arg);
    /* The channel is closed (QEMU gone); no further callbacks. Event thread. */
    void (*closed)(void *arg);
    /* A line for the agent log, at a limited rate. Event thread. */
    void (*log)(void *arg, int level, const char *text, size_t len);
};

/* socket_path: QEMU's listening socket; connecting is retried until the hello deadline, after which
 * the agent counts as closed. A guest that is connected and silent is greeted for ever, ever more
 * slowly. config is copied, sent after hello if the guest says it is not configured yet; it has to
 * fit one frame (ERR_TOO_LARGE). config->net goes ahead of it, and again at each handshake: a guest
 * is ready when it has its network, and one that cannot have it does not get ready. (An agent that
 * is too old for networks gets ready without, which is said in both logs.) ops is borrowed. */
int agent_open(struct evloop *loop, const char *sandbox_id, const char *socket_path,
               const struct guest_config *config, const struct agent_ops *ops, void *arg,
               struct agent **ret, struct err *e);
struct agent *agent_ref(struct agent *a);
/* Ends callbacks (waits for a running one unless called from it), closes, wakes all waiters. */
void agent_close(struct agent *a);
void agent_unref(struct agent *a);

/* Blocks until READY (0), close (ERR_SANDBOX_STATE) or deadline (ERR_TIMEOUT). ERR_GUEST: the guest
 * speaks another version. */
int agent_wait_ready(struct agent *a, int64_t deadline, struct err *e);
bool agent_is_ready(struct agent *a);
/* Queues a frame, waiting until deadline for the hello to be answered and for room. Never waits on
 * the event thread: there it fails with ERR_UNAVAILABLE. ERR_TIMEOUT: the guest does not read.
 * ERR_SANDBOX_STATE: closed. With a deadline that has passed it never waits, and may be called with
 * the lock held of a module above. */
int agent_send(struct agent *a, enum frame_type type, uint8_t fd, uint32_t stream,
               const void *payload, uint32_t len, int64_t deadline, struct err *e);
/* Round trip; ERR_TIMEOUT when the guest is silent. */
int agent_ping(struct agent *a, int64_t deadline, struct err *e);
/* Guest boot figures from READY, microseconds; 0 before. */
void agent_boot_times(struct agent *a, uint64_t *ret_kernel_us, uint64_t *ret_agent_us);
