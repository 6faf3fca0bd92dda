/* SPDX-License-Identifier: MIT */
#include "common/api.h"
#include "daemon/daemon.h"
#include "daemon/handlers.h"

#include <stdlib.h>

int h_stats(struct call *c, struct err *e)
{
    struct api_stats s = { 0 };

    if (vm_stats(c->vm, true, &s, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_stats_table, &s, e);
    json_done(api_stats_table, &s, sizeof(s));
    return r;
}

struct gathered {
    bool all;
    struct api_stats *items;    /* owned */
    size_t n, cap;
};

static int add(void *arg, struct vm *vm, struct err *e)
{
    struct gathered *g = arg;

    if (!g->all && !vm_is_running(vm))
        return 0;
    if (g->n == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : 16;
        struct api_stats *items = reallocarray(g->items, cap, sizeof(*items));
        if (!items)
            return err_nomem(e);
        g->items = items;
        g->cap = cap;
    }
    if (vm_stats(vm, false, &g->items[g->n], e) < 0)
        return -1;
    g->n++;
    return 0;
}

int h_stats_list(struct call *c, struct err *e)
{
    struct gathered g = { 0 };

    if (call_query_bool(c, "all", &g.all, e) < 0)
        return -1;
    int r = vms_each(c->daemon->vms, &c->caller, add, &g, e);
    struct api_stats_list l = { .stats = { .items = g.items, .n = g.n } };
    if (r == 0)
        r = reply_json(c, 200, api_stats_list_table, &l, e);
    json_done(api_stats_list_table, &l, sizeof(l));
    return r;
}
