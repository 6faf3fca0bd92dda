/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/policy_priv.h"

#include <limits.h>
#include <string.h>

static uint32_t mask_of(uint8_t prefix)
{
    return prefix == 0 ? 0 : UINT32_MAX << (32 - prefix);
}

#define IP(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (d))

/* Addresses that are nobody's on the internet, or have a meaning near the host (RFC 6890 and its
 * registry). The first that fits counts, so a narrow one stands before the wide one around it. */
static const struct {
    uint32_t address;
    uint8_t prefix;
    const char *what;
} special[] = {
    { IP(169, 254, 169, 254), 32, "metadata" },     /* of most clouds */
    { IP(100, 100, 100, 200), 32, "metadata" },     /* of one that is not there */
    { IP(168, 63, 129, 16), 32, "metadata" },       /* of another, at a public address */
    { IP(0, 0, 0, 0), 8, "this network" },
    { IP(10, 0, 0, 0), 8, "private" },
    { IP(100, 64, 0, 0), 10, "shared" },
    { IP(127, 0, 0, 0), 8, "loopback" },
    { IP(169, 254, 0, 0), 16, "link-local" },
    { IP(172, 16, 0, 0), 12, "private" },
    { IP(192, 0, 0, 0), 24, "protocol" },
    { IP(192, 0, 2, 0), 24, "documentation" },
    { IP(192, 88, 99, 0), 24, "relay" },
    { IP(192, 168, 0, 0), 16, "private" },
    { IP(198, 18, 0, 0), 15, "benchmark" },
    { IP(198, 51, 100, 0), 24, "documentation" },
    { IP(203, 0, 113, 0), 24, "documentation" },
    { IP(224, 0, 0, 0), 4, "multicast" },
    { IP(255, 255, 255, 255), 32, "broadcast" },
    { IP(240, 0, 0, 0), 4, "reserved" },
};

size_t policy_special_at(size_t i, uint32_t *ret_lo, uint32_t *ret_hi)
{
    if (i < ARRAY_SIZE(special)) {
        *ret_lo = special[i].address;
        *ret_hi = special[i].address | ~mask_of(special[i].prefix);
    }
    return ARRAY_SIZE(special);
}

const char *policy_special(uint32_t address, uint8_t *ret_prefix)
{
    for (size_t i = 0; i < ARRAY_SIZE(special); i++) {
        if ((address & mask_of(special[i].prefix)) != special[i].address)
            continue;
        if (ret_prefix)
            *ret_prefix = special[i].prefix;
        return special[i].what;
    }
    return NULL;
}

uint8_t policy_protos(const struct policy_rule *r)
{
    if (r->target.protos)
        return r->target.protos;
    return r->verdict == POLICY_DENY ? POLICY_TCP | POLICY_UDP : POLICY_TCP;
}

bool policy_matches_name(const struct policy_target *t, const char *name)
{
    size_t zone = strlen(t->name), len = strlen(name);

    if (t->kind == POLICY_ADDRESS)
        return false;
    if (t->kind == POLICY_NAME)
        return strcmp(t->name, name) == 0;
    /* at least one label and its dot in front of the zone */
    if (len < zone + 2 || name[len - zone - 1] != '.' || strcmp(name + len - zone, t->name) != 0)
        return false;
    return t->kind == POLICY_SUBTREE || !memchr(name, '.', len - zone - 1);
}

bool policy_matches_address(const struct policy_target *t, uint32_t address)
{
    return t->kind == POLICY_ADDRESS && (address & mask_of(t->prefix)) == t->address;
}

/* A rule for all addresses is one for all names: whoever may go anywhere may ask for anything. */
static bool covers_name(const struct policy_target *t, const char *name)
{
    return policy_matches_name(t, name) || (t->kind == POLICY_ADDRESS && t->prefix == 0);
}

uint8_t policy_range_of(const struct policy_question *q)
{
    uint8_t range = 0;

    if (q->has_address && !q->host)
        policy_special(q->address, &range);
    return q->has_address && q->host ? 32 : range;
}

enum policy_role policy_role(const struct policy_rule *r, const struct policy_question *q,
                             uint8_t range)
{
    const struct policy_target *t = &r->target;
    bool here = q->has_address && policy_matches_address(t, q->address);

    if (!here && !(q->name && (q->has_address ? policy_matches_name(t, q->name)
                                              : covers_name(t, q->name))))
        return POLICY_SILENT;
    if (r->verdict == POLICY_DENY)
        return POLICY_DENIES;
    return here ? (t->prefix >= range ? POLICY_ALLOWS : POLICY_SILENT)
                : (range == 0 ? POLICY_ALLOWS : POLICY_SILENT);
}

enum policy_verdict policy_decide(const struct policy_rule *rules, size_t n,
                                  const struct policy_question *q, int *ret_rule)
{
    uint8_t range = policy_range_of(q);

    *ret_rule = range ? POLICY_BY_PLACE : POLICY_BY_DEFAULT;
    for (size_t i = 0; i < n; i++) {
        const struct policy_target *t = &rules[i].target;
        if (!(policy_protos(&rules[i]) & q->proto) || q->port < t->port_lo || q->port > t->port_hi)
            continue;
        enum policy_role role = policy_role(&rules[i], q, range);
        if (role == POLICY_DENIES) {
            *ret_rule = (int)i;
            return POLICY_DENY;
        }
        /* The first one that allows is the one that is named. */
        if (role == POLICY_ALLOWS && *ret_rule < 0)
            *ret_rule = (int)i;
    }
    return *ret_rule >= 0 ? POLICY_ALLOW : POLICY_DENY;
}

struct policy_ruling policy_judge(const struct policy *p, const struct policy_question *q)
{
    struct policy_ruling r = { 0 };

    r.verdict = policy_decide(p->rules, p->n, q, &r.rule);
    if (r.verdict == POLICY_DENY || !p->ceiling)
        return r;
    int by;
    if (policy_decide(p->ceiling, p->n_ceiling, q, &by) == POLICY_DENY)
        r = (struct policy_ruling){ .verdict = POLICY_DENY, .rule = by, .by_ceiling = true };
    return r;
}

/* --- any port of a name --- */

/* Which rule is named as the reason does not depend on how ports are sorted: questions count in the
 * order of the rules, then of the ceiling's, for each its first port and the one behind its last,
 * by TCP and UDP. The first that is allowed decides; failing that, the last that a rule denies. */
struct order {
    unsigned lowest, highest;   /* of the questions at one port; highest 0: none */
};

static struct order order_of(const struct ports_walk *w, enum ports_side side, uint8_t proto)
{
    const struct ports *x = w->x;
    struct order o = { UINT_MAX, 0 };

    for (size_t i = w->from; i < w->to; i++) {
        const struct ports_edge *edge = &x->edges[i];
        unsigned rule = edge->side == PORTS_OWN ? edge->rule : POLICY_RULES_MAX + edge->rule;
        unsigned place = 4 * rule + (edge->ends ? 2 : 0) + proto;
        if (edge->side > side)
            continue;
        if (place < o.lowest)
            o.lowest = place;
        if (place > o.highest)
            o.highest = place;
    }
    return o;
}

struct reasons {
    struct policy_ruling open, own, above;  /* allowed; denied by the policy; by its ceiling */
    unsigned open_at, own_at, above_at;     /* where in that order */
    bool own_opens;
};

static void judge_here(const struct ports_walk *w, uint8_t proto, struct reasons *ret)
{
    struct order own = order_of(w, PORTS_OWN, proto), all = order_of(w, PORTS_CEILING, proto);
    int rule, above = POLICY_BY_DEFAULT;

    if (ports_judge(w, PORTS_OWN, proto, &rule) == POLICY_DENY) {
        if (rule >= 0 && own.highest > ret->own_at) {
            ret->own_at = own.highest;
            ret->own.rule = rule;
        }
        return;
    }
    ret->own_opens = true;
    if (w->x->p->ceiling && ports_judge(w, PORTS_CEILING, proto, &above) == POLICY_DENY) {
        if (above >= 0 && all.highest > ret->above_at) {
            ret->above_at = all.highest;
            ret->above.rule = above;
        }
        return;
    }
    if (all.lowest < ret->open_at) {
        ret->open_at = all.lowest;
        ret->open.rule = rule;
    }
}

struct policy_ruling policy_judge_name(const struct policy *p, const char *name)
{
    const struct policy_question q = { .name = name };
    struct reasons r = {
        .open = { POLICY_ALLOW, 0, false }, .open_at = UINT_MAX,
        .own = { POLICY_DENY, POLICY_BY_DEFAULT, false },
        .above = { POLICY_DENY, POLICY_BY_DEFAULT, true },
    };
    struct ports x = { .p = p };
    struct ports_walk w;

    if (!ports_fit(p))
        return r.own;
    ports_ask(&x, &q);
    ports_sort(&x);
    ports_begin(&w, &x, POLICY_TCP | POLICY_UDP);
    while (ports_next(&w)) {
        judge_here(&w, POLICY_TCP, &r);
        judge_here(&w, POLICY_UDP, &r);
    }
    return r.open_at < UINT_MAX ? r.open : r.own_opens ? r.above : r.own;
}

enum policy_verdict policy_decide_name(const struct policy_rule *rules, size_t n, const char *name,
                                       int *ret_rule)
{
    struct policy p = { .rules = rules, .n = n };
    struct policy_ruling r = policy_judge_name(&p, name);

    *ret_rule = r.rule;
    return r.verdict;
}
