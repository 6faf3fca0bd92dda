/* SPDX-License-Identifier: MIT */
#include "common/policy_priv.h"

#include <assert.h>
#include <stdlib.h>

static_assert(PORTS_WORDS <= 64, "struct rule_set: one word says which are used");
static_assert(POLICY_RULES_MAX <= UINT16_MAX, "struct ports_edge: rule");

/* --- rules that are in force --- */

static void put(struct rule_set *s, unsigned rule)
{
    s->bits[rule / 64] |= UINT64_C(1) << rule % 64;
    s->words |= UINT64_C(1) << rule / 64;
}

static void drop(struct rule_set *s, unsigned rule)
{
    s->bits[rule / 64] &= ~(UINT64_C(1) << rule % 64);
    if (!s->bits[rule / 64])
        s->words &= ~(UINT64_C(1) << rule / 64);
}

static int first(const struct rule_set *s)
{
    if (!s->words)
        return -1;
    int word = __builtin_ctzll(s->words);
    return 64 * word + __builtin_ctzll(s->bits[word]);
}

/* --- edges --- */

static const struct policy_rule *rules_of(const struct policy *p, int side, size_t *ret_n)
{
    *ret_n = side == PORTS_OWN ? p->n : p->ceiling ? p->n_ceiling : 0;
    return side == PORTS_OWN ? p->rules : p->ceiling;
}

bool ports_ask(struct ports *x, const struct policy_question *q)
{
    uint8_t range = policy_range_of(q);
    bool any = false;

    for (int side = PORTS_OWN; side <= PORTS_CEILING; side++) {
        size_t n;
        const struct policy_rule *rules = rules_of(x->p, side, &n);
        for (size_t i = 0; i < n; i++) {
            x->roles[side][i] = policy_role(&rules[i], q, range);
            any |= side == PORTS_OWN && x->roles[side][i] == POLICY_ALLOWS;
        }
        if (!any)
            break;
    }
    return any;
}

static int by_port(const void *a, const void *b)
{
    const struct ports_edge *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

void ports_sort(struct ports *x)
{
    x->n = 0;
    for (int side = PORTS_OWN; side <= PORTS_CEILING; side++) {
        size_t n;
        const struct policy_rule *rules = rules_of(x->p, side, &n);
        for (size_t i = 0; i < n; i++) {
            const struct policy_target *t = &rules[i].target;
            if (x->roles[side][i] == POLICY_SILENT)
                continue;
            x->edges[x->n++] = (struct ports_edge){ t->port_lo, (uint16_t)i, (uint8_t)side, false };
            x->edges[x->n++] = (struct ports_edge){ (uint32_t)t->port_hi + 1, (uint16_t)i,
                                                    (uint8_t)side, true };
        }
    }
    qsort(x->edges, x->n, sizeof(*x->edges), by_port);
}

/* --- the walk --- */

static uint8_t protos_of(const struct ports_walk *w, const struct ports_edge *edge)
{
    size_t n;
    const struct policy_rule *rules = rules_of(w->x->p, edge->side, &n);

    if (w->x->roles[edge->side][edge->rule] == POLICY_SILENT)
        return 0;
    return policy_protos(&rules[edge->rule]) & w->protos;
}

static void pass(struct ports_walk *w, const struct ports_edge *edge)
{
    bool denies = w->x->roles[edge->side][edge->rule] == POLICY_DENIES;
    uint8_t protos = protos_of(w, edge);

    for (uint8_t proto = POLICY_TCP; proto <= POLICY_UDP; proto++) {
        struct rule_set *s = denies ? &w->denies[edge->side][proto - 1]
                                    : &w->allows[edge->side][proto - 1];
        if (protos & proto)
            edge->ends ? drop(s, edge->rule) : put(s, edge->rule);
    }
}

void ports_begin(struct ports_walk *w, const struct ports *x, uint8_t protos)
{
    *w = (struct ports_walk){ .x = x, .protos = protos };
}

bool ports_next(struct ports_walk *w)
{
    const struct ports *x = w->x;
    size_t at = w->to;

    while (at < x->n && !protos_of(w, &x->edges[at]))
        at++;
    if (at == x->n || x->edges[at].at > UINT16_MAX)
        return false;
    w->from = at;
    w->lo = x->edges[at].at;
    for (; at < x->n && x->edges[at].at == w->lo; at++)
        pass(w, &x->edges[at]);
    w->to = at;
    while (at < x->n && !protos_of(w, &x->edges[at]))
        at++;
    w->hi = at < x->n ? x->edges[at].at - 1 : UINT16_MAX;
    return true;
}

enum policy_verdict ports_judge(const struct ports_walk *w, enum ports_side side, uint8_t proto,
                                int *ret_rule)
{
    int denies = first(&w->denies[side][proto - 1]);
    int allows = first(&w->allows[side][proto - 1]);

    *ret_rule = denies >= 0 ? denies : allows >= 0 ? allows : POLICY_BY_DEFAULT;
    return denies < 0 && allows >= 0 ? POLICY_ALLOW : POLICY_DENY;
}
