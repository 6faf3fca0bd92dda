/* SPDX-License-Identifier: MIT
 *
 * audit_said: what of a request's body the audit log keeps, beside the name of a sandbox and the
 * first word of a command (audit_call): which directory of the host a sandbox is to see, and what
 * becomes of a policy. Copies, cut to what fits into a record; nothing of environment or labels.
 */
#pragma once

#include "common/api.h"
#include "daemon/digest.h"

#define AUDIT_SAID_PATH 1024        /* bytes with the NUL */
#define AUDIT_SAID_WHAT 384

struct audit_said {
    bool mounts, read_only;
    char path[AUDIT_SAID_PATH];
    const char *verb;               /* literal; NULL: says nothing of a policy */
    char what[AUDIT_SAID_WHAT];     /* "" nothing */
    uint32_t targets;
    char digest[DIGEST_HEX];        /* "" none */
};

/* `body` is a struct of `table`, whichever route's; *ret is zeroed first. */
void audit_said_note(const struct jfield *table, const void *body, struct audit_said *ret);
/* Puts it into a record, which borrows from `s`. `done`: the request was carried out. What becomes
 * of a policy is said only then: before, anything can stand in the place of a target. */
void audit_said_put(struct audit_said *s, bool done, struct api_audit_record *r);
