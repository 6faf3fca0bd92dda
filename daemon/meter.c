/* SPDX-License-Identifier: MIT */
#include "daemon/meter.h"

#include "common/auto.h"
#include "common/limits.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const int64_t bounds[] = METER_BOUNDS;
static_assert(ARRAY_SIZE(bounds) + 1 == METER_BUCKETS, "a bucket for each bound, and one above");

struct route_meter {
    _Atomic uint64_t classes[METER_CLASSES], buckets[METER_BUCKETS], us;
};

struct meter {
    size_t n_routes;
    _Atomic uint64_t opened, open, refused[QUOTA_MAX + 1];
    struct route_meter routes[];        /* n_routes + 1 */
};

int meter_new(size_t n_routes, struct meter **ret, struct err *e)
{
    struct meter *m = calloc(1, sizeof(*m) + (n_routes + 1) * sizeof(m->routes[0]));

    if (!m)
        return err_nomem(e);
    m->n_routes = n_routes;
    *ret = m;
    return 0;
}

void meter_free(struct meter *m)
{
    free(m);
}

static void add(_Atomic uint64_t *n, uint64_t v)
{
    atomic_fetch_add_explicit(n, v, memory_order_relaxed);
}

static uint64_t get(_Atomic uint64_t *n)
{
    return atomic_load_explicit(n, memory_order_relaxed);
}

void meter_answer(struct meter *m, size_t route, int status, int64_t us)
{
    size_t bucket = 0;

    if (!m || status < 100 || status >= 100 * (METER_CLASSES + 1))
        return;
    struct route_meter *r = &m->routes[route < m->n_routes ? route : m->n_routes];
    while (bucket < ARRAY_SIZE(bounds) && us > bounds[bucket])
        bucket++;
    add(&r->classes[status / 100 - 1], 1);
    add(&r->buckets[bucket], 1);
    add(&r->us, us > 0 ? (uint64_t)us : 0);
}

void meter_connection(struct meter *m, int change)
{
    if (!m)
        return;
    add(&m->open, (uint64_t)(int64_t)change);   /* wraps around, and back */
    if (change > 0)
        add(&m->opened, 1);
}

void meter_quota(struct meter *m, const char *name)
{
    int w = 0;

    if (!m)
        return;
    while (w < QUOTA_MAX && (!name || strcmp(quota_key((enum quota_what)w), name) != 0))
        w++;
    add(&m->refused[w], 1);
}

void meter_read(struct meter *m, size_t route, struct meter_route *ret)
{
    *ret = (struct meter_route){ 0 };
    if (!m || route > m->n_routes)
        return;
    for (int i = 0; i < METER_CLASSES; i++)
        ret->classes[i] = get(&m->routes[route].classes[i]);
    for (int i = 0; i < METER_BUCKETS; i++)
        ret->buckets[i] = get(&m->routes[route].buckets[i]);
    ret->us = get(&m->routes[route].us);
}

void meter_state(struct meter *m, struct meter_state *ret)
{
    *ret = (struct meter_state){ 0 };
    if (!m)
        return;
    ret->opened = get(&m->opened);
    ret->open = get(&m->open);
    for (int w = 0; w <= QUOTA_MAX; w++)
        ret->refused[w] = get(&m->refused[w]);
}
