/* SPDX-License-Identifier: MIT
 *
 * http: connections on a Unix socket, one thread each, turned into calls of the router. The only
 * file with http.c that knows libmicrohttpd. Body and header sizes, the number of connections and
 * the time a request may take to arrive are bounded here; how many connections and requests one
 * user may have, and who gets the last ones, is quota.h's; what happens at the door gate.h's. Every
 * answer bears Sbx-Request-Id but those the library gives by itself: to what is not HTTP, and to a
 * request line or headers beyond LIMIT_HTTP_MEMORY.
 */
#pragma once

#include "daemon/routes.h"

#define HTTP_STOP_MS 15000              /* what is under way may take that long when we stop */

struct http;

struct http_options {
    struct daemon *daemon;              /* borrowed; given to handlers */
    const struct route *routes;
    int listen_fd;                      /* borrowed: must stay open until http_free() */
    gid_t admin_gid;                    /* PEER_NO_GROUP: none */
    unsigned idle_s;                    /* LIMIT_HTTP_IDLE_S */
    struct quota *quota;                /* borrowed: of connections and requests */
    struct meter *meter;                /* borrowed; NULL: nothing is counted */
    bool read_only;                     /* the socket for dashboards: callers are struct caller's */
};

/* Serves from now on. */
int http_new(const struct http_options *o, struct http **ret, struct err *e);
/* Cuts connections that have been sending a request for longer than allowed; call every few
 * seconds. Any thread. */
void http_sweep(struct http *h);
/* No new connections; streams end with an error record, requests may finish. False when some still
 * run after `ms`: then nothing they use may be freed, nor may http_free() be called. */
bool http_stop(struct http *h, int64_t ms);
void http_free(struct http *h);         /* after http_stop() said true */

const char *http_library_version(void);

/* Opens `path` with mode 0660 and the group (PEER_NO_GROUP: ours). A stale socket is removed; one
 * that somebody answers on is an error (ERR_UNAVAILABLE). */
int http_listen(const char *path, gid_t group, int *ret_fd, struct err *e);
