/* SPDX-License-Identifier: MIT */
#include "common/policy.h"
#include "common/auto.h"

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

static bool matches(const struct policy_rule *r, const struct policy_question *q)
{
    const struct policy_target *t = &r->target;

    if (!(policy_protos(r) & q->proto) || q->port < t->port_lo || q->port > t->port_hi)
        return false;
    if (q->has_address && policy_matches_address(t, q->address))
        return true;
    return q->name && (q->has_address ? policy_matches_name(t, q->name) : covers_name(t, q->name));
}

enum policy_verdict policy_decide(const struct policy_rule *rules, size_t n,
                                  const struct policy_question *q, int *ret_rule)
{
    uint8_t range = 0;
    const char *place = q->has_address ? policy_special(q->address, &range) : NULL;

    if (q->has_address && q->host) {
        place = "host";
        range = 32;
    }
    *ret_rule = place ? POLICY_BY_PLACE : POLICY_BY_DEFAULT;
    for (size_t i = 0; i < n; i++) {
        if (!matches(&rules[i], q))
            continue;
        if (rules[i].verdict == POLICY_DENY) {
            *ret_rule = (int)i;
            return POLICY_DENY;
        }
        /* The first one that allows is the one that is named. */
        bool reaches = !place || (rules[i].target.kind == POLICY_ADDRESS &&
                                  rules[i].target.prefix >= range &&
                                  policy_matches_address(&rules[i].target, q->address));
        if (reaches && *ret_rule < 0)
            *ret_rule = (int)i;
    }
    return *ret_rule >= 0 ? POLICY_ALLOW : POLICY_DENY;
}

enum policy_verdict policy_decide_name(const struct policy_rule *rules, size_t n, const char *name,
                                       int *ret_rule)
{
    int denied = POLICY_BY_DEFAULT;

    /* Some port of it is open if one of the ports at which something changes is. */
    for (size_t i = 0; i < n; i++) {
        const struct policy_target *t = &rules[i].target;
        if (!covers_name(t, name))
            continue;
        const uint32_t edges[] = { t->port_lo, (uint32_t)t->port_hi + 1 };
        for (size_t k = 0; k < 2 * ARRAY_SIZE(edges); k++) {
            struct policy_question q = { .name = name, .port = (uint16_t)edges[k / 2],
                                         .proto = k % 2 ? POLICY_UDP : POLICY_TCP };
            if (edges[k / 2] > UINT16_MAX)
                continue;
            if (policy_decide(rules, n, &q, ret_rule) == POLICY_ALLOW)
                return POLICY_ALLOW;
            if (*ret_rule >= 0)
                denied = *ret_rule;
        }
    }
    *ret_rule = denied;
    return POLICY_DENY;
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

struct policy_ruling policy_judge_name(const struct policy *p, const char *name)
{
    struct policy_ruling r = { 0 };

    r.verdict = policy_decide_name(p->rules, p->n, name, &r.rule);
    if (r.verdict == POLICY_DENY || !p->ceiling)
        return r;
    int by;
    if (policy_decide_name(p->ceiling, p->n_ceiling, name, &by) == POLICY_DENY)
        r = (struct policy_ruling){ .verdict = POLICY_DENY, .rule = by, .by_ceiling = true };
    return r;
}
