/* SPDX-License-Identifier: MIT
 *
 * policy_compile: a policy as ranges for a packet filter. The address space falls into parts at
 * whose edges some rule or special range begins or ends; within a part all addresses are judged
 * alike, and so are the ports between the edges of the rules that are about it.
 *
 * Who writes a policy must not take the processor's time from others. Ports are sorted once for all
 * parts, and each part goes once through all rules and once through all ports: with n rules, own
 * and the ceiling's, some 2n parts of 2n edges each, and n is at most 2 * POLICY_RULES_MAX. That is
 * a few hundredths of a second, whether or not anything is open.
 */
#include "common/auto.h"
#include "common/policy_priv.h"

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
    if (s->n == POLICY_SPANS_MAX) {
        err_set(e, ERR_TOO_LARGE, "the policy is too intricate: more than %d ranges",
                POLICY_SPANS_MAX);
        return err_hint(e, "rules for many addresses count once for each address or network inside "
                           "that has a rule of its own: fewer of either, or ranges of ports");
    }
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
    const char *name;       /* NULL: addresses only */
    uint32_t lo, hi;
    bool host;
};

/* x: sorted for all rules that may be about it. */
static int compile_ports(struct spans *s, const struct part *at, const struct ports *x,
                         uint8_t proto, struct err *e)
{
    struct ports_walk w;

    ports_begin(&w, x, proto);
    while (ports_next(&w)) {
        int rule, above;
        if (ports_judge(&w, PORTS_OWN, proto, &rule) == POLICY_DENY ||
            (x->p->ceiling && ports_judge(&w, PORTS_CEILING, proto, &above) == POLICY_DENY))
            continue;
        struct policy_span span = { at->lo, at->hi, (uint16_t)w.lo, (uint16_t)w.hi, proto, rule };
        if (add_span(s, span, e) < 0)
            return -1;
    }
    return 0;
}

static struct policy_question about(const struct part *at)
{
    return (struct policy_question){ .name = at->name, .address = at->lo, .has_address = true,
                                     .host = at->host };
}

static int compile_part(struct spans *s, const struct part *at, struct ports *x, struct err *e)
{
    const struct policy_question q = about(at);

    if (!ports_ask(x, &q))
        return 0;
    return compile_ports(s, at, x, POLICY_TCP, e) < 0 ? -1
                                                      : compile_ports(s, at, x, POLICY_UDP, e);
}

static int check_size(const struct policy *p, struct err *e)
{
    return ports_fit(p) ? 0 : err_set(e, ERR_TOO_LARGE, "more than %d rules", POLICY_RULES_MAX);
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
    struct ports ports = { .p = p };
    struct spans s = { 0 };
    uint32_t lo, hi;
    int r = 0;

    if (check_size(p, e) < 0 || address_edges(&x, p->rules, p->n, e) < 0 ||
        (p->ceiling && address_edges(&x, p->ceiling, p->n_ceiling, e) < 0))
        return -1;
    for (size_t i = 0; i < policy_special_at(i, &lo, &hi); i++)
        if (add_range(&x, lo, hi, e) < 0)
            return -1;
    sort_edges(&x);
    memset(ports.roles, POLICY_ALLOWS, sizeof(ports.roles));
    ports_sort(&ports);
    for (size_t i = 0; r == 0 && i + 1 < x.n; i++) {
        struct part at = { NULL, (uint32_t)x.at[i], (uint32_t)(x.at[i + 1] - 1), host };
        /* Of the host only single addresses are opened, and those are parts of their own. */
        if (!host || at.lo == at.hi)
            r = compile_part(&s, &at, &ports, e);
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
    struct part at = { name, address, address, false };
    const struct policy_question q = about(&at);
    struct ports ports = { .p = p };

    if (check_size(p, e) < 0)
        return -1;
    if (!ports_ask(&ports, &q))
        return 0;
    ports_sort(&ports);
    int r = compile_part(&s, &at, &ports, e);
    *ret = s.items;
    *ret_n = s.n;
    return r;
}
