/* SPDX-License-Identifier: MIT
 *
 * ruleset: the policy of one sandbox: its rules as they are stored, and the same as the decision
 * wants them. Made from what a request says, or read from the store. No state of its own.
 */
#pragma once

#include "common/api.h"
#include "common/policy.h"
#include "daemon/store.h"

#define RULESET_BASE_FILE "rules"   /* base of one that began with a file */

struct ruleset {
    char *base;                 /* owned: preset, policy with a name, or "rules" */
    struct rule_row *rows;      /* owned, as the next */
    struct policy_rule *rules;  /* of the same index */
    size_t n;
};
#define RULESET_INIT ((struct ruleset){ 0 })
#define autoruleset __attribute__((cleanup(ruleset_done)))

void ruleset_done(struct ruleset *s);

/* Adds all rules of a text. Nothing is added on failure. */
int ruleset_add_text(struct ruleset *s, const char *text, const char *source, uid_t uid,
                     struct err *e);
/* Adds one by hand ("user"), in place of one that says the opposite of the same target. One that is
 * there already stays as it is: then 0, else 1. */
int ruleset_add(struct ruleset *s, bool allow, const char *target, uid_t uid, struct err *e);
/* Takes away all rules of this target, whatever they say: how many. */
int ruleset_remove(struct ruleset *s, const char *target, struct err *e);
/* A preset, or a policy of that user: ERR_POLICY_NOT_FOUND. The set is empty before. */
int ruleset_begin(struct ruleset *s, struct store *st, const char *name, uid_t uid, struct err *e);
/* The same with the text of a file. */
int ruleset_begin_text(struct ruleset *s, const char *text, uid_t uid, struct err *e);

int ruleset_load(struct ruleset *s, struct store *st, const char *vm, struct err *e);
int ruleset_store(const struct ruleset *s, struct store *st, const char *vm, struct err *e);
int ruleset_copy(struct ruleset *dst, const struct ruleset *src, struct err *e);

/* "allow example.com:443": of POLICY_TARGET_TEXT + 8 bytes. */
#define RULE_TEXT (POLICY_TARGET_TEXT + 8)
void rule_text(const struct policy_rule *r, char *buf);
/* In the form of a policy file; owned. */
int ruleset_text(const struct ruleset *s, char **ret, struct err *e);

/* Refuses (ERR_POLICY_CEILING) an allow rule of which nothing at all is below the ceiling. Only for
 * targets of which that can be said: addresses and single names. */
int ruleset_check_ceiling(const struct policy_rule *r, const struct policy_rule *ceiling, size_t n,
                          struct err *e);
