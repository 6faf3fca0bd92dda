/* SPDX-License-Identifier: MIT
 *
 * policy_priv: what policy_*.c share. Only they include it.
 *
 * One question is answered by going through the rules. What is open of an address or a name is
 * found by going through its ports instead: those at which a rule begins or ends are sorted once,
 * and on the way from one to the next it is known which rules are in force. That is what each rule
 * says of the place (policy_role()) and whether deny or allow wins (ports_judge()); the decision
 * uses the former, and tests hold the latter against it.
 */
#pragma once

#include "common/policy.h"

/* What a rule says of a name or an address, at the ports and protocols that are its own. */
enum policy_role { POLICY_SILENT, POLICY_DENIES, POLICY_ALLOWS };

/* Prefix of the special range that an address is in; 0: none, as for a name alone. */
uint8_t policy_range_of(const struct policy_question *q);
/* Port and protocol of the question do not matter. range: as above. */
enum policy_role policy_role(const struct policy_rule *r, const struct policy_question *q,
                             uint8_t range);

enum ports_side { PORTS_OWN, PORTS_CEILING };

struct ports_edge {
    uint32_t at;                /* from this port on, up to 65536 */
    uint16_t rule;
    uint8_t side;               /* enum ports_side */
    bool ends;                  /* the rule does; else it begins */
};

/* All on the stack (some 40 KiB): nothing here can fail. */
struct ports {
    const struct policy *p;     /* borrowed; one that ports_fit() */
    struct ports_edge edges[4 * POLICY_RULES_MAX];
    size_t n;
    uint8_t roles[2][POLICY_RULES_MAX];     /* enum policy_role of each rule, by side */
};

static inline bool ports_fit(const struct policy *p)
{
    return p->n <= POLICY_RULES_MAX && (!p->ceiling || p->n_ceiling <= POLICY_RULES_MAX);
}

/* Sets roles, and says whether a rule of the policy's own allows something; if none does, those of
 * the ceiling stay as they were. */
bool ports_ask(struct ports *x, const struct policy_question *q);
/* Collects and sorts the edges of those rules that are not silent, which may then be set to other
 * roles as often as one likes: rules that were silent here stay without effect. */
void ports_sort(struct ports *x);

#define PORTS_WORDS ((POLICY_RULES_MAX + 63) / 64)

struct rule_set {
    uint64_t bits[PORTS_WORDS];
    uint64_t words;             /* which of them are not 0 */
};

struct ports_walk {
    const struct ports *x;      /* borrowed */
    uint8_t protos;
    struct rule_set denies[2][2], allows[2][2];     /* by side and protocol: in force */
    size_t from, to;            /* the edges just passed; silent rules are among them */
    uint32_t lo, hi;            /* ports up to the next edge */
};

void ports_begin(struct ports_walk *w, const struct ports *x, uint8_t protos);
/* false: there are no more. */
bool ports_next(struct ports_walk *w);
/* Of the ports where the walk is. *ret_rule: the first rule that decides, or POLICY_BY_DEFAULT. */
enum policy_verdict ports_judge(const struct ports_walk *w, enum ports_side side, uint8_t proto,
                                int *ret_rule);
