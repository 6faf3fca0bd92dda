/* SPDX-License-Identifier: MIT
 *
 * events: what happened to sandboxes, for people who watch and programs that react: a bounded table
 * in the database, each row with the number after its predecessor's, over restarts and kills too.
 * docs/OPERATIONS.md lists the kinds.
 *
 * events_add() may be called from any thread and under any lock: it copies, and never waits. A
 * thread of its own writes what was added, in that order; numbers are given then. So nothing that
 * is done ever waits for its event or fails for it. While the database cannot be written up to
 * EVENT_QUEUE of them wait; those beyond are counted, and an event `events.lost` takes their place.
 * What waits when the daemon is killed is gone with it, and has had no number.
 *
 * What a guest or user can cause as often as he likes goes in by events_repeat(): the first at
 * once, and after EVENT_WINDOW_MS one that says how many there were meanwhile.
 */
#pragma once

#include "common/err.h"
#include "daemon/store.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define EVENT_QUEUE 4096
#define EVENT_WINDOW_MS 10000
#define EVENT_WINDOWS 256       /* of different things at once; beyond that the oldest is closed */
#define EVENT_DETAIL 240        /* bytes */

/*   constant                 word */
#define EVENT_KINDS(X)                          \
    X(EVENT_DAEMON_START,     "daemon.start")   \
    X(EVENT_DAEMON_STOP,      "daemon.stop")    \
    X(EVENT_CREATE,           "sandbox.create") \
    X(EVENT_START,            "sandbox.start")  \
    X(EVENT_RUNNING,          "sandbox.running") \
    X(EVENT_STOP,             "sandbox.stop")   \
    X(EVENT_STOPPED,          "sandbox.stopped") \
    X(EVENT_FAILED,           "sandbox.failed") \
    X(EVENT_REMOVE,           "sandbox.remove") \
    X(EVENT_STALL,            "sandbox.stall")  \
    X(EVENT_RESUME,           "sandbox.resume") \
    X(EVENT_EXEC_START,       "exec.start")     \
    X(EVENT_EXEC_EXIT,        "exec.exit")      \
    X(EVENT_POLICY_CHANGE,    "policy.change")  \
    X(EVENT_DENIED,           "network.denied") \
    X(EVENT_QUOTA,            "quota.refused")  \
    X(EVENT_REPAIR,           "network.repair") \
    X(EVENT_LOST,             "events.lost")

enum event_kind {
#define EVENT_ENUM(constant, word) constant,
    EVENT_KINDS(EVENT_ENUM)
#undef EVENT_ENUM
    EVENT_KIND_MAX
};
const char *event_kind_name(enum event_kind k);

struct events;

/* keep: rows that stay. The first event is daemon.start with this text, and whether the daemon
 * before ended in order. Starts the thread. */
int events_open(struct store *st, uint64_t keep, const char *detail, struct events **ret,
                struct err *e);
/* Adds daemon.stop if `orderly`, writes what waits (one try when the database fails), joins. NULL
 * is fine. */
void events_free(struct events *ev, bool orderly);

struct event {              /* strings borrowed for the call, cut; NULL none */
    enum event_kind kind;
    const char *sandbox;    /* id */
    const char *name;       /* NULL with a sandbox: looked up, as its owner is */
    const uid_t *uid;
    const char *exec;
    const char *detail;     /* one line, escaped by whoever made it of foreign text */
};
/* ev may be NULL: nobody keeps events. */
void events_add(struct events *ev, const struct event *x);
/* The same kind about the same sandbox and user within the window is counted. */
void events_repeat(struct events *ev, const struct event *x);

/* Waits until what was added is written, `ms` at most; false: it is not. */
bool events_flush(struct events *ev, int64_t ms);

struct events_state {
    uint64_t last;          /* number of the newest that is written */
    uint64_t written, lost; /* since the start */
    uint32_t waiting;
};
void events_state(struct events *ev, struct events_state *ret);
