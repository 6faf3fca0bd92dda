/* SPDX-License-Identifier: MIT
 *
 * lifetime: how long a sandbox runs, and whether it starts again: decisions only. Whoever looks
 * brings the time and what he saw; nothing here has a clock, waits, or touches anything.
 *
 * ttl: a point in time, by the clock of this boot of the host, so that a clock that is set neither
 * stops a sandbox nor lets it run on. A guest lives no longer than the boot; a point of another
 * boot says nothing, and what its policy starts after that has its ttl anew.
 *
 * Idle timeout: a sum of time in which it was seen to do nothing. One look at work makes it zero.
 * What nobody saw does not count: a daemon that is away, or a host that sleeps, makes nobody idle.
 * So a clock counts that stands still while the host sleeps, and what lies between two looks that
 * are further apart than LIFE_STEP_MAX is not counted at all. Where it cannot be told, the sum
 * stays as it is.
 *
 * Restart: docker's meaning. What ended by itself starts again if its policy says so; what somebody
 * or a limit stopped does not. A guest that powered itself off has ended well, so "on-failure"
 * lets it be.
 */
#pragma once

#include "daemon/store.h"

#define LIFE_STEP_MAX 20000         /* ms between two looks, which are 2 s apart */
#define LIFE_WARN_MS 60000          /* before the end; sooner where the limit is short */
#define LIFE_AGAIN_MS 60000         /* a stop that failed is tried again */
#define LIFE_STEADY_MS 60000        /* ran so long: the next back-off is the first one again */
#define LIFE_BACKOFF_FIRST 1000
#define LIFE_BACKOFF_MAX 300000

struct life_clock {
    const char *boot_id;        /* of this boot of the host */
    int64_t boot;               /* CLOCK_BOOTTIME, ms: time asleep included */
    int64_t awake;              /* CLOCK_MONOTONIC, ms: without it */
    int64_t real;               /* microseconds since the epoch */
};

struct life {                   /* of one run; whoever owns it has the lock */
    int64_t stop_at;            /* boot; 0 no ttl */
    int64_t began_at;           /* awake; or when this daemon found it */
    int64_t looked_at;          /* awake */
    int64_t idle;               /* ms */
    bool warned, warned_idle;   /* of the ttl; of the idle timeout */
    int64_t not_before;         /* boot: a stop that failed */
    uint64_t cpu_ns;            /* last sample of CPU time */
    int64_t cpu_at;             /* awake; 0: none yet */
};

enum life_seen { LIFE_IDLE, LIFE_UNSURE, LIFE_AT_WORK };
enum life_verdict { LIFE_GO_ON, LIFE_WARN, LIFE_STOP_TTL, LIFE_STOP_IDLE };
enum life_end { LIFE_ENDED_WELL, LIFE_FAILED };

/* It has started: `stop_at` of the row is set anew, unless it was its policy that started it. */
void life_begin(struct life *l, struct vm_row *row, bool by_policy, const struct life_clock *now);
/* It runs, as a former daemon left it. */
void life_resume(struct life *l, struct vm_row *row, const struct life_clock *now);
/* Its limits were changed: a ttl counts from now on. */
void life_change(struct life *l, struct vm_row *row, const struct life_clock *now);

/* At work now, as somebody knows who needs no look. */
void life_touch(struct life *l, const struct life_clock *now);
/* CPU time since the last sample against a share of one processor. Unsure where there is no sample
 * before, or none that is recent. */
enum life_seen life_cpu(struct life *l, uint64_t cpu_ns, uint32_t percent,
                        const struct life_clock *now);
enum life_verdict life_look(struct life *l, const struct vm_limits *limits, enum life_seen seen,
                            const struct life_clock *now);
/* A stop did not work out. */
void life_defer(struct life *l, const struct life_clock *now);
/* When it will be stopped if nothing happens (real time), 0: nothing counts. *ret_idle_since 0: at
 * work, or without an idle timeout. */
int64_t life_stops_at(const struct life *l, const struct vm_limits *limits,
                      const struct life_clock *now, int64_t *ret_idle_since);

/* Stops and starts have threads, few of each. A start may take minutes, so stops have places of
 * their own; and while half of the places are taken, a user may have one at a time, so that few
 * users with much to do do not hold back the others. */
#define LIFE_STOPS_MAX 8
#define LIFE_STARTS_MAX 4
#define LIFE_PER_USER 2         /* of each */
/* Whether one more may begin, when so many of its sort are under way, and so many of its user. */
bool life_has_place(bool start, unsigned under_way, unsigned of_user);

/* Whether a sandbox that ended by itself is to start again. */
bool life_restarts(const struct vm_row *row, enum life_end how, const struct life_clock *now);
/* The time from the n-th end in a row (0 and up) to the next start, in ms. */
int64_t life_backoff(unsigned n);
