/* SPDX-License-Identifier: MIT
 *
 * policy_compile: a policy as ranges for a packet filter. The address space falls into parts at
 * whose edges some rule or special range begins or ends; within a part all addresses are judged
 * alike, and so are the ports between the edges of the rules that are about it.
 */
#include "common/policy.h"

#include "common/auto.h"

#include <stdlib.h>
#include <string.h>

struct spans {
    struct policy_span *items;      /* owned until taken */
    size_t n, cap;
};

static int add_span(struct spans *s, struct policy_span span, struct err *e)
{
    /* Ports of one address come in order, so what continues the last one is the same range. */
    struct policy_span *last = s->n ? &s->items[s->n - 1] : NULL;

    if (last && last->lo == span.lo && last->hi == span.hi && last->proto == span.proto &&
        last->rule == span.rule && (uint32_t)last->port_hi + 1 == span.port_lo) {
        last->port_hi = span.port_hi;
        return 0;
    }
    if (s->n == POLICY_SPANS_MAX)
        return err_set(e, ERR_TOO_LARGE, "the policy is too intricate: more than %d ranges",
                       POLICY_SPANS_MAX);
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 32;
        struct policy_span *grown = realloc(s->items, cap * sizeof(*grown));
        if (!grown)
            return err_nomem(e);
        s->items = grown;
        s->cap = cap;
    }
    s->items[s->n++] = span;
    return 0;
}

/* --- edges: sorted numbers, each once --- */

struct edges {
    uint64_t *at;       /* owned */
    size_t n, cap;
};

static int add_edge(struct edges *x, uint64_t at, struct err *e)
{
    if (x->n == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 64;
        uint64_t *grown = realloc(x->at, cap * sizeof(*grown));
        if (!grown)
            return err_nomem(e);
        x->at = grown;
        x->cap = cap;
    }
    x->at[x->n++] = at;
    return 0;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void sort_edges(struct edges *x)
{
    size_t kept = 0;

    if (x->n == 0)
        return;
    qsort(x->at, x->n, sizeof(*x->at), by_number);
    for (size_t i = 0; i < x->n; i++)
        if (kept == 0 || x->at[i] != x->at[kept - 1])
            x->at[kept++] = x->at[i];
    x->n = kept;
}

static void edges_done(struct edges *x)
{
    free(x->at);
}
#define autoedges __attribute__((cleanup(edges_done)))

static uint32_t last_of(const struct policy_target *t)
{
    return t->prefix == 32 ? t->address : t->address | UINT32_MAX >> t->prefix;
}

static int add_range(struct edges *x, uint64_t lo, uint64_t hi, struct err *e)
{
    return add_edge(x, lo, e) < 0 ? -1 : add_edge(x, hi + 1, e);
}

static int address_edges(struct edges *x, const struct policy_rule *rules, size_t n,
                         struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct policy_target *t = &rules[i].target;
        if (t->kind == POLICY_ADDRESS && add_range(x, t->address, last_of(t), e) < 0)
            return -1;
    }
    return 0;
}

/* --- the ports of one part --- */

struct part {
    const struct policy *p;
    const char *name;       /* NULL: addresses only */
    uint32_t lo, hi;
    bool host;
};

static bool is_about(const struct policy_rule *r, const struct part *at)
{
    return policy_matches_address(&r->target, at->lo) ||
           (at->name && policy_matches_name(&r->target, at->name));
}

static int port_edges(struct edges *x, const struct policy_rule *rules, size_t n,
                      const struct part *at, bool *any_allows, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (!is_about(&rules[i], at))
            continue;
        *any_allows |= rules[i].verdict == POLICY_ALLOW;
        if (add_range(x, rules[i].target.port_lo, rules[i].target.port_hi, e) < 0)
            return -1;
    }
    return 0;
}

static int compile_part(struct spans *s, const struct part *at, struct err *e)
{
    autoedges struct edges ports = { 0 };
    bool any = false, unused = false;

    if (port_edges(&ports, at->p->rules, at->p->n, at, &any, e) < 0)
        return -1;
    if (!any)
        return 0;
    if (at->p->ceiling &&
        port_edges(&ports, at->p->ceiling, at->p->n_ceiling, at, &unused, e) < 0)
        return -1;
    sort_edges(&ports);
    for (uint8_t proto = POLICY_TCP; proto <= POLICY_UDP; proto++) {
        for (size_t i = 0; i + 1 < ports.n; i++) {
            struct policy_question q = {
                .name = at->name, .address = at->lo, .has_address = true, .host = at->host,
                .port = (uint16_t)ports.at[i], .proto = proto,
            };
            struct policy_ruling r = policy_judge(at->p, &q);
            if (r.verdict == POLICY_DENY)
                continue;
            struct policy_span span = { at->lo, at->hi, (uint16_t)ports.at[i],
                                        (uint16_t)(ports.at[i + 1] - 1), proto, r.rule };
            if (add_span(s, span, e) < 0)
                return -1;
        }
    }
    return 0;
}

/* --- neighbours that are alike become one --- */

static int by_kind(const void *a, const void *b)
{
    const struct policy_span *x = a, *y = b;

    if (x->proto != y->proto)
        return x->proto < y->proto ? -1 : 1;
    if (x->port_lo != y->port_lo)
        return x->port_lo < y->port_lo ? -1 : 1;
    if (x->port_hi != y->port_hi)
        return x->port_hi < y->port_hi ? -1 : 1;
    if (x->rule != y->rule)
        return x->rule < y->rule ? -1 : 1;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

static void merge(struct spans *s)
{
    size_t kept = 0;

    if (s->n == 0)
        return;
    qsort(s->items, s->n, sizeof(*s->items), by_kind);
    for (size_t i = 0; i < s->n; i++) {
        struct policy_span *last = kept ? &s->items[kept - 1] : NULL;
        const struct policy_span *x = &s->items[i];
        if (last && last->proto == x->proto && last->port_lo == x->port_lo &&
            last->port_hi == x->port_hi && last->rule == x->rule &&
            (uint64_t)last->hi + 1 == x->lo)
            last->hi = x->hi;
        else
            s->items[kept++] = *x;
    }
    s->n = kept;
}

int policy_compile(const struct policy *p, bool host, struct policy_span **ret, size_t *ret_n,
                   struct err *e)
{
    autoedges struct edges x = { 0 };
    autofree struct policy_span *items = NULL;
    struct spans s = { 0 };
    uint32_t lo, hi;
    int r = 0;

    if (address_edges(&x, p->rules, p->n, e) < 0 ||
        (p->ceiling && address_edges(&x, p->ceiling, p->n_ceiling, e) < 0))
        return -1;
    for (size_t i = 0; i < policy_special_at(i, &lo, &hi); i++)
        if (add_range(&x, lo, hi, e) < 0)
            return -1;
    sort_edges(&x);
    for (size_t i = 0; r == 0 && i + 1 < x.n; i++) {
        struct part at = { p, NULL, (uint32_t)x.at[i], (uint32_t)(x.at[i + 1] - 1), host };
        /* Of the host only single addresses are opened, and those are parts of their own. */
        if (!host || at.lo == at.hi)
            r = compile_part(&s, &at, e);
    }
    items = s.items;
    if (r < 0)
        return -1;
    merge(&s);
    *ret = take_ptr(items);
    *ret_n = s.n;
    return 0;
}

int policy_compile_name(const struct policy *p, const char *name, uint32_t address,
                        struct policy_span **ret, size_t *ret_n, struct err *e)
{
    struct spans s = { .items = *ret, .n = *ret_n, .cap = *ret_n };
    struct part at = { p, name, address, address, false };
    int r = compile_part(&s, &at, e);

    *ret = s.items;
    *ret_n = s.n;
    return r;
}
