/* SPDX-License-Identifier: MIT
 *
 * call: one request as the router and the handlers see it, and the reply they fill. Nothing here
 * knows how requests arrive (http.c does), so the routes can be driven by tests and fuzzers.
 *
 * A call lives on its connection's thread from the request line to the last byte of the answer.
 * http.c fills the first block, dispatch.c the second, the handler the reply.
 */
#pragma once

#include "common/err.h"
#include "common/jfield.h"
#include "common/strv.h"
#include "daemon/quota.h"
#include "daemon/vm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct audit_note;
struct daemon;
struct route;

#define LIMIT_TARGET_SEGMENTS 16
#define LIMIT_TARGET_QUERY 128

/* A request target, taken apart and percent-decoded part by part, so that %2f stays in its part. */
struct target {
    struct strv path;       /* the segments after the first slash */
    struct strv query;      /* "name=value", in order */
};
/* Refused (ERR_INVALID): broken escapes, NUL, invalid UTF-8, more parts than the limits. A target
 * that is not a path ("*", "http://…") or has empty segments is ERR_ROUTE_NOT_FOUND. */
int target_parse(const char *raw, struct target *ret, struct err *e);
void target_done(struct target *t);

/* A body that is made while it is sent. read() runs on the connection's thread, may block (it must
 * watch conn_fd and stop_fd of the call) and returns the bytes made, 0 at the end, -1 to cut. */
struct reply_stream {
    int64_t (*read)(void *arg, char *buf, size_t cap);
    void (*free)(void *arg);
    void *arg;              /* owned */
};

/* The client's socket as it is handed over to the upgraded protocol. */
struct upgrade_io {
    int fd;                 /* borrowed, non-blocking */
    int stop_fd;            /* borrowed: readable when the daemon stops */
    const uint8_t *extra;   /* borrowed: bytes of the client that came with the request */
    size_t extra_len;
};
struct reply_upgrade {
    const char *protocol;   /* literal */
    void (*run)(void *arg, const struct upgrade_io *io);    /* connection's thread; to its end */
    void (*free)(void *arg);
    void *arg;              /* owned */
};

#define REPLY_HEADERS 6
struct reply {
    int status;
    const char *content_type;           /* literal; NULL: no body */
    char *body;                         /* owned */
    size_t len;
    struct { const char *name; char *value; } headers[REPLY_HEADERS];  /* value owned */
    size_t n_headers;
    struct reply_stream stream;         /* read set: instead of body */
    struct reply_upgrade upgrade;       /* run set: instead of body */
};
void reply_done(struct reply *r);       /* and zeroes it */

struct call {
    /* from the connection */
    struct daemon *daemon;              /* borrowed */
    struct caller caller;               /* request id included */
    const char *method;                 /* borrowed */
    bool upgrade;                       /* asks for sbx-stream by HTTP/1.1 */
    char *idem_key;                     /* owned; NULL none */
    int conn_fd, stop_fd;               /* borrowed */
    char *raw;                          /* owned: body as sent */
    size_t raw_len;
    /* from the router */
    struct target target;
    const struct route *route;
    const char *param[2];               /* borrowed from target: what stood for {…} */
    struct vm *vm;                      /* ref: the sandbox of a ROLE_OWNER route */
    void *body;                         /* owned: struct of the route's table */
    char object[LIMIT_ID + 1];          /* id for what it makes, by idem.c; "" make one up */
    bool again;                         /* it was begun before: look whether object is there */
    struct audit_note *note;            /* owned: what the audit log will say; NULL none */
    struct quota_charge held;           /* by call_hold(): until the last byte is out */

    struct reply reply;
};
void call_done(struct call *c);

/* Query parameters; NULL when absent. The router has refused names the route does not know. */
const char *call_query(const struct call *c, const char *name);
/* Leave *ret as it is when absent; ERR_FIELD_INVALID names the parameter. */
int call_query_bool(const struct call *c, const char *name, bool *ret, struct err *e);
int call_query_u64(const struct call *c, const char *name, uint64_t max, uint64_t *ret,
                   struct err *e);

/* True when the client has gone or the daemon stops: whoever waits for something should give up.
 * Waits for that up to `ms`, or until `also_fd` (-1 none) is readable; *ret_stop tells the two
 * apart and may be NULL. */
bool call_wait_gone(const struct call *c, int also_fd, int ms, bool *ret_stop);

/* Counts `bytes` of the answer as held in memory, of the caller's quota of replies and of all that
 * the daemon holds (LIMIT_REPLIES). Replies do so by themselves; whoever collects what is to be one
 * says so as it grows, with all it has so far. Fails with ERR_QUOTA or ERR_UNAVAILABLE, and counts
 * no more than before then. */
int call_hold(struct call *c, uint64_t bytes, struct err *e);
/* A quota that is exceeded, for metrics and events: by reply_error(), or where it is no error. */
void call_tell_quota(const struct call *c, const struct err *error);

/* Replies; each returns 0, or -1 with the error set, so that a handler may end in one. What a GET
 * would answer is refused when it cannot be held (call_hold()); after anything else it is counted
 * only, for it has been done. reply_take() clears *body also when it fails. */
int reply_json(struct call *c, int status, const struct jfield *table, const void *obj,
               struct err *e);
int reply_empty(struct call *c);                                    /* 204 */
int reply_take(struct call *c, const char *content_type, char **body, size_t len, struct err *e);
int reply_header(struct call *c, const char *name, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The one place where an error becomes an answer. Logs what is our fault, with its text; the client
 * then gets the request id only. */
void reply_error(struct call *c, const struct err *error);
