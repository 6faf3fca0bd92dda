/* SPDX-License-Identifier: MIT
 *
 * routes: the table of all routes, and the router that checks a request against it. Method,
 * caller's role, query names, body limit and body fields are checked before a handler runs, and
 * whether a caller of the read-only socket is served at all: only where ROUTE_READ_ONLY says so;
 * tests/lint holds the table to api/openapi.yaml.
 */
#pragma once

#include "daemon/audit_call.h"
#include "daemon/call.h"

enum role {
    ROLE_USER,      /* whoever may connect */
    ROLE_OWNER,     /* the first {…} is a sandbox the caller may see; call->vm is set */
    ROLE_ADMIN,     /* uid 0 and the admin group */
};

#define ROUTE_STREAM 1u     /* the answer may take as long as it likes */
#define ROUTE_UPGRADE 2u    /* needs Upgrade: sbx-stream */
#define ROUTE_IDEM 4u       /* takes Idempotency-Key */
#define ROUTE_READ_ONLY 16u /* also by the read-only socket, for dashboards: no secret in it */
#define ROUTE_UNCOUNTED 8u  /* not one of the requests a user may have: it tells of them */

/* The handler returns 0 with a reply, or -1 with the error. Connection's thread. */
typedef int (*route_fn)(struct call *c, struct err *e);

struct route {
    const char *method;             /* NULL ends the table; GET serves HEAD too */
    const char *pattern;            /* "/v1/sandboxes/{ref}" */
    enum role role;
    size_t body_max;
    const struct jfield *table;     /* NULL: no fields, so nothing or {} */
    size_t body_size;
    route_fn handler;
    unsigned flags;
    const char *query;              /* "state label*": names; a star may be repeated. NULL none */
    enum audit_action action;       /* in the audit log; ACT_NONE changes nothing */
};

extern const struct route routes_table[];

/* After the headers: parses the target, finds the route, checks method (a 405 gets Allow), role and
 * query names. */
int dispatch_head(struct call *c, const struct route *table, const char *raw_target, struct err *e);
/* After the body: decodes it, finds the sandbox, runs the handler. Always leaves a reply, an
 * error's if need be. */
void dispatch_run(struct call *c);
