/* SPDX-License-Identifier: MIT
 *
 * audit_call: from a request to its record in the audit log. The router alone calls it: before the
 * handler, and when the answer is made and before it is sent. Which route is which action says a
 * column of the table of routes; what of the request is recorded, the functions below.
 *
 * Of a request's body nothing is recorded but the name a sandbox is to have, of a command its first
 * word and the number of the others, and what audit_said.h has.
 */
#pragma once

#include "common/err.h"

struct call;

#define ACTION_BEGINS 1u    /* may take long: recorded when it begins, too */
#define ACTION_FREES 2u     /* makes room on the disk, so it may use the last there is */

/*   constant             word in the log     flags */
#define AUDIT_ACTIONS(X)                                                    \
    X(ACT_NONE,            "read",             0) /* only when it is denied */ \
    X(ACT_TURNED_AWAY,     "turned-away",      0) /* denied before a route was looked for */ \
    X(ACT_SANDBOX_CREATE,  "sandbox.create",   ACTION_BEGINS)               \
    X(ACT_SANDBOX_RM,      "sandbox.rm",       ACTION_BEGINS | ACTION_FREES) \
    X(ACT_SANDBOX_START,   "sandbox.start",    ACTION_BEGINS)               \
    X(ACT_SANDBOX_STOP,    "sandbox.stop",     ACTION_BEGINS | ACTION_FREES) \
    X(ACT_SANDBOX_RESTART, "sandbox.restart",  ACTION_BEGINS)               \
    X(ACT_SANDBOX_UPDATE,  "sandbox.update",   0)                           \
    X(ACT_EXEC_CREATE,     "exec.create",      0)                           \
    X(ACT_EXEC_ATTACH,     "exec.attach",      0)                           \
    X(ACT_EXEC_RESIZE,     "exec.resize",      0)                           \
    X(ACT_EXEC_SIGNAL,     "exec.signal",      0)                           \
    X(ACT_RUN,             "run",              ACTION_BEGINS)               \
    X(ACT_POLICY_SET,      "policy.set",       0)                           \
    X(ACT_POLICY_CHANGE,   "policy.change",    0)                           \
    X(ACT_POLICY_PROVE,    "policy.prove",     ACTION_BEGINS)               \
    X(ACT_POLICY_DEFINE,   "policy.define",    0)                           \
    X(ACT_POLICY_UNDEFINE, "policy.undefine",  0)                           \
    X(ACT_IMAGE_RM,        "image.rm",         ACTION_FREES)

enum audit_action {
#define AUDIT_ENUM(constant, word, flags) constant,
    AUDIT_ACTIONS(AUDIT_ENUM)
#undef AUDIT_ENUM
    ACT_MAX
};
const char *audit_action_name(enum audit_action a);

/* What the call keeps between the two. */
struct audit_note;
void audit_note_free(struct audit_note *n);

/* Everything is checked, nothing done. With "audit": "required" a failure refuses the request. */
int audit_call_begin(struct call *c, struct err *e);
/* The answer is made; `code` is of its error. Also for what ended before audit_call_begin(). With
 * "required" a failure takes the answer's place: what was asked for is done, and not recorded. */
int audit_call_end(struct call *c, enum err_code code, struct err *e);
/* A request that has no route, as it was refused before: of a web page, of a user who may not
 * connect. Recorded with its method and path, if `code` is a denial; ACTION_TURNED_AWAY of them a
 * minute at most, whoever they are, and the daemon's log has the number of the others. */
#define ACTION_TURNED_AWAY 20
void audit_call_turned_away(struct call *c, const char *raw_target, enum err_code code);
