/* SPDX-License-Identifier: MIT */
#include "daemon/lifetime.h"

#include <stdio.h>
#include <string.h>

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* 0: none that holds in this boot. */
static int64_t deadline(const struct vm_row *row, const struct life_clock *now)
{
    return strcmp(row->stop_boot, now->boot_id) == 0 ? row->stop_at : 0;
}

static void give_ttl(struct vm_row *row, const struct life_clock *now)
{
    row->stop_at = row->limits.ttl_ms ? now->boot + (int64_t)row->limits.ttl_ms : 0;
    snprintf(row->stop_boot, sizeof(row->stop_boot), "%s", row->stop_at ? now->boot_id : "");
}

void life_begin(struct life *l, struct vm_row *row, bool by_policy, const struct life_clock *now)
{
    if (!by_policy || !deadline(row, now))
        give_ttl(row, now);
    *l = (struct life){ .stop_at = row->stop_at, .began_at = now->awake, .looked_at = now->awake };
}

void life_resume(struct life *l, struct vm_row *row, const struct life_clock *now)
{
    life_begin(l, row, true, now);
    l->idle = (int64_t)row->idle_spent;
}

void life_change(struct life *l, struct vm_row *row, const struct life_clock *now)
{
    give_ttl(row, now);
    l->stop_at = row->stop_at;
    l->warned = l->warned_idle = false;
    l->not_before = 0;
}

void life_touch(struct life *l, const struct life_clock *now)
{
    l->idle = 0;
    l->warned_idle = false;
    l->looked_at = now->awake;
}

enum life_seen life_cpu(struct life *l, uint64_t cpu_ns, uint32_t percent,
                        const struct life_clock *now)
{
    int64_t ms = now->awake - l->cpu_at;
    bool known = l->cpu_at && ms > 0 && ms <= LIFE_STEP_MAX && cpu_ns >= l->cpu_ns;
    uint64_t used = cpu_ns - l->cpu_ns;

    l->cpu_at = now->awake;
    l->cpu_ns = cpu_ns;
    if (!known)
        return LIFE_UNSURE;
    /* percent of ms milliseconds, in nanoseconds */
    return used >= (uint64_t)ms * percent * 10000 ? LIFE_AT_WORK : LIFE_IDLE;
}

/* Whether this is the moment to say that so much is left of a limit. */
static bool warns(bool *said, int64_t left, uint64_t limit)
{
    if (*said || left > min64(LIFE_WARN_MS, (int64_t)limit / 4))
        return false;
    *said = true;
    return true;
}

enum life_verdict life_look(struct life *l, const struct vm_limits *limits, enum life_seen seen,
                            const struct life_clock *now)
{
    int64_t step = now->awake - l->looked_at;
    bool warn = false;

    if (seen == LIFE_AT_WORK)
        life_touch(l, now);
    else if (seen == LIFE_IDLE && step > 0 && step <= LIFE_STEP_MAX)
        l->idle += step;
    l->looked_at = now->awake;
    if (now->boot < l->not_before)
        return LIFE_GO_ON;
    if (l->stop_at) {
        if (l->stop_at <= now->boot)
            return LIFE_STOP_TTL;
        warn |= warns(&l->warned, l->stop_at - now->boot, limits->ttl_ms);
    }
    if (limits->idle_ms && seen == LIFE_IDLE) {
        int64_t left = (int64_t)limits->idle_ms - l->idle;
        if (left <= 0)
            return LIFE_STOP_IDLE;
        warn |= warns(&l->warned_idle, left, limits->idle_ms);
    }
    return warn ? LIFE_WARN : LIFE_GO_ON;
}

void life_defer(struct life *l, const struct life_clock *now)
{
    l->not_before = now->boot + LIFE_AGAIN_MS;
}

int64_t life_stops_at(const struct life *l, const struct vm_limits *limits,
                      const struct life_clock *now, int64_t *ret_idle_since)
{
    int64_t left = l->stop_at ? l->stop_at - now->boot : INT64_MAX;

    *ret_idle_since = 0;
    if (limits->idle_ms && l->idle) {
        *ret_idle_since = now->real - l->idle * 1000;
        left = min64(left, (int64_t)limits->idle_ms - l->idle);
    }
    if (left == INT64_MAX)
        return 0;
    return now->real + (left > 0 ? left * 1000 : 0);
}

bool life_has_place(bool start, unsigned under_way, unsigned of_user)
{
    unsigned max = start ? LIFE_STARTS_MAX : LIFE_STOPS_MAX;

    return under_way < max && of_user < (under_way < max / 2 ? LIFE_PER_USER : 1);
}

bool life_restarts(const struct vm_row *row, enum life_end how, const struct life_clock *now)
{
    const struct restart *r = &row->limits.restart;
    int64_t stop_at = deadline(row, now);

    /* its time would be up at once */
    if (stop_at && stop_at <= now->boot)
        return false;
    switch (r->policy) {
    case RESTART_ALWAYS:
        return true;
    case RESTART_ON_FAILURE:
        return how == LIFE_FAILED && (r->max == 0 || row->restarts < r->max);
    default:
        return false;
    }
}

int64_t life_backoff(unsigned n)
{
    /* 1 s doubled nine times is beyond the maximum */
    return n < 9 ? min64((int64_t)LIFE_BACKOFF_FIRST << n, LIFE_BACKOFF_MAX) : LIFE_BACKOFF_MAX;
}
