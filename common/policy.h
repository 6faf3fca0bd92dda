/* SPDX-License-Identifier: MIT
 *
 * policy: what a sandbox may reach. Rules as people write them, and the one decision that all parts
 * share: the filter, the resolver, `policy check` and the log. No I/O, no state, any thread.
 *
 * The grammar and what it means is docs/POLICY.md. A target is
 *
 *     (NAME | *.ZONE | **.ZONE | ADDRESS | ADDRESS/PREFIX) [:PORT[-PORT]] [/tcp | /udp]
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_NAME_MAX 253         /* RFC 1035 2.3.4, in text without the dot at the end */
#define POLICY_TARGET_TEXT 320      /* room for any target in its canonical form */
#define POLICY_RULES_MAX 1000       /* of one policy */
#define POLICY_TEXT_MAX (256 * 1024)/* bytes of a file of rules */

enum policy_verdict { POLICY_DENY, POLICY_ALLOW };

enum policy_kind {
    POLICY_NAME,        /* this name and no other */
    POLICY_ONE_LABEL,   /* *.zone: one label below the zone */
    POLICY_SUBTREE,     /* **.zone: any number of labels below it, at least one */
    POLICY_ADDRESS,
};

#define POLICY_TCP 1u
#define POLICY_UDP 2u

struct policy_target {
    enum policy_kind kind;
    char name[POLICY_NAME_MAX + 1]; /* lower case, A-labels, no wildcard, no dot at the end */
    uint32_t address;               /* host order; no bits below the prefix */
    uint8_t prefix;                 /* 0..32 */
    uint8_t protos;                 /* POLICY_TCP, POLICY_UDP; 0: none was said */
    uint16_t port_lo, port_hi;      /* 0..65535: none was said */
};

struct policy_rule {
    enum policy_verdict verdict;
    struct policy_target target;
};

/* ERR_INVALID with a reason and, where one can be guessed, what was meant. IDN (RFC 5891) is
 * turned into A-labels. */
int policy_target_parse(const char *text, struct policy_target *ret, struct err *e);
/* The one way to write it; parsing that gives the same target. buf of POLICY_TARGET_TEXT. */
void policy_target_format(const struct policy_target *t, char *buf);

/* Lines "allow TARGET" and "deny TARGET"; '#' begins a comment. All or nothing: the error names the
 * line. *ret is owned (free()); *ret_n at most POLICY_RULES_MAX. */
int policy_rules_parse(const char *text, size_t len, struct policy_rule **ret, size_t *ret_n,
                       struct err *e);

/* What a rule without a protocol is about: allow tcp, deny both. */
uint8_t policy_protos(const struct policy_rule *r);

/* Names in the form of struct policy_target: see policy_name_canonical(). */
bool policy_matches_name(const struct policy_target *t, const char *name);
bool policy_matches_address(const struct policy_target *t, uint32_t address);
/* A name as it comes from a user or a question: `ret` of POLICY_NAME_MAX + 1 bytes. */
int policy_name_canonical(const char *text, char *ret, struct err *e);

/* What kind of place an address is that no name may lead to: "private", "loopback", "link-local",
 * "metadata", …; NULL for a public one. The prefix of that range to *ret_prefix, if not NULL. */
const char *policy_special(uint32_t address, uint8_t *ret_prefix);
/* The i-th of those ranges, if there is one; returns how many there are. */
size_t policy_special_at(size_t i, uint32_t *ret_lo, uint32_t *ret_hi);

struct policy_question {
    const char *name;       /* canonical; NULL: an address that no name led to */
    uint32_t address;       /* host order; with has_address */
    bool has_address;
    bool host;              /* one of the host's own addresses: a special place like /32 */
    uint16_t port;
    uint8_t proto;          /* POLICY_TCP or POLICY_UDP */
};

#define POLICY_BY_DEFAULT (-1)      /* no rule fits: denied */
#define POLICY_BY_PLACE (-2)        /* a special address, and no address rule of that range */

/* The decision. Deny wins over allow, and what no rule allows is denied. *ret_rule: index of the
 * rule that decided, or one of the two above. A special address is reached by an address rule that
 * lies within its range and by nothing else. */
enum policy_verdict policy_decide(const struct policy_rule *rules, size_t n,
                                  const struct policy_question *q, int *ret_rule);
/* Whether any port of a name could be allowed. Of more than POLICY_RULES_MAX rules: denied. */
enum policy_verdict policy_decide_name(const struct policy_rule *rules, size_t n, const char *name,
                                       int *ret_rule);

/* ---- a policy below a ceiling: what sandboxes have ---- */

struct policy {
    const struct policy_rule *rules;    /* borrowed */
    size_t n;
    const struct policy_rule *ceiling;  /* borrowed; the administrator's. NULL: none */
    size_t n_ceiling;
};

struct policy_ruling {
    enum policy_verdict verdict;
    int rule;               /* index into rules (or ceiling), or POLICY_BY_… */
    bool by_ceiling;        /* the policy allows it, the ceiling does not: rule is the ceiling's */
};

/* Allowed is what both allow. */
struct policy_ruling policy_judge(const struct policy *p, const struct policy_question *q);
/* Whether both allow the same port of a name by the same protocol: what the resolver asks before
 * it asks anybody. */
struct policy_ruling policy_judge_name(const struct policy *p, const char *name);

/* What a policy allows of addresses, as ranges that do not overlap: all of lo..hi at all of
 * port_lo..port_hi by one protocol. What a rule says of a place is asked as policy_judge() asks it,
 * and tests hold each range against that, so a filter made of them says nothing else. */
struct policy_span {
    uint32_t lo, hi;        /* host order */
    uint16_t port_lo, port_hi;
    uint8_t proto;          /* POLICY_TCP or POLICY_UDP */
    int rule;               /* that allows it */
};
#define POLICY_SPANS_MAX 16384

/* All that address rules allow, in a few hundredths of a second whatever they are. host: of the
 * host's own addresses (single ones only), else of all others. *ret owned (free()). ERR_TOO_LARGE
 * beyond POLICY_SPANS_MAX, and beyond POLICY_RULES_MAX rules of either side. */
int policy_compile(const struct policy *p, bool host, struct policy_span **ret, size_t *ret_n,
                   struct err *e);
/* What is allowed of one address that `name` led to; appended to *ret of *ret_n. */
int policy_compile_name(const struct policy *p, const char *name, uint32_t address,
                        struct policy_span **ret, size_t *ret_n, struct err *e);
