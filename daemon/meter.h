/* SPDX-License-Identifier: MIT
 *
 * meter: how many requests were answered how, and how long they took: numbers that only go up, from
 * the daemon's start on. Any thread, no lock: each number is right, two of them need not be of the
 * same moment. In all functions m may be NULL: then nothing is counted.
 */
#pragma once

#include "common/err.h"
#include "daemon/quota.h"

#include <stddef.h>
#include <stdint.h>

/* Upper bounds of the histogram, in microseconds; one more has no bound. */
#define METER_BOUNDS { 1000, 10000, 100000, 1000000, 10000000 }
#define METER_BUCKETS 6
#define METER_CLASSES 5         /* 1xx to 5xx */

struct meter;

int meter_new(size_t n_routes, struct meter **ret, struct err *e);
void meter_free(struct meter *m);       /* NULL is fine */

/* An answer. route: below n_routes, or n_routes for what was none. us: from the request's last byte
 * to the answer's first; streams begin then. */
void meter_answer(struct meter *m, size_t route, int status, int64_t us);
void meter_connection(struct meter *m, int change);     /* 1: one more, -1: one less */
void meter_quota(struct meter *m, const char *name);    /* refused; NULL: a limit of no user */

struct meter_route {
    uint64_t classes[METER_CLASSES];
    uint64_t buckets[METER_BUCKETS];    /* each by itself, not added up */
    uint64_t us;                        /* of all together */
};
void meter_read(struct meter *m, size_t route, struct meter_route *ret);
struct meter_state {
    uint64_t opened, open;              /* connections: so far, now */
    uint64_t refused[QUOTA_MAX + 1];    /* the last one: limits of no user */
};
void meter_state(struct meter *m, struct meter_state *ret);
