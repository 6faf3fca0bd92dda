/* SPDX-License-Identifier: MIT
 *
 * api_client: requests to the daemon and errors back into struct err; with api_client.c the only
 * file of the client that knows libcurl.
 */
#pragma once

#include "client/app.h"
#include "common/err.h"
#include "common/jfield.h"
#include "common/sbuf.h"
#include <stddef.h>

/* Bytes of one JSON reply: 4096 sandboxes with all the labels they may have are 97 MiB. */
#define LIMIT_REPLY (128ULL * 1024 * 1024)
#define CLIENT_REPLY_MS 60000               /* for what the daemon answers at once */

/* Words of a path, percent-encoded, and of a query. */
void url_add(struct sbuf *b, const char *text);
/* "/v1/sandboxes/REF" and what follows it; NULL: nothing. */
void url_sandbox(struct sbuf *b, const char *ref, const char *rest);
void url_query(struct sbuf *b, const char *key, const char *value);    /* ? or & by itself */

#define CALL_SLOW 1u        /* no time limit: create, start, stop, rm */
#define CALL_IDEMPOTENT 2u  /* send an Idempotency-Key */

struct call {
    const char *method;     /* GET POST PUT DELETE */
    const char *path;       /* with query */
    const char *body;       /* JSON or NULL */
    unsigned flags;
    const char *progress;   /* words to show on a terminal while it lasts; NULL: none */
    /* Takes the body of a good reply as it comes instead of keeping it; -1 gives up. */
    int (*sink)(void *arg, const char *data, size_t len);
    void *sink_arg;
};

/* Body of a reply of 2xx in *ret (NULL: thrown away). Anything else is an error: the daemon's own,
 * or ERR_UNREACHABLE. A call with progress or CALL_SLOW can be given up by SIGINT and SIGTERM: then
 * app->interrupted is the signal's number, and the error says so. */
int client_call(struct app *app, const struct call *call, struct sbuf *ret, struct err *e);
/* json_decode_lenient, with words for a reply that is not what it should be. */
int client_decode(const struct jfield *table, const char *text, size_t len, void *out,
                  struct err *e);
/* client_call and client_decode. */
int client_fetch(struct app *app, const struct call *call, const struct jfield *table, void *out,
                 struct err *e);
int client_get(struct app *app, const char *path, const struct jfield *table, void *out,
               struct err *e);

/* The connection of the last call, if it still stands, for another use: -1 if not. Its owner is the
 * caller. Saves a second login where that is dear (ssh). */
int client_take_connection(struct app *app);
/* The error a reply stands for. */
int client_reply_error(struct app *app, int status, const char *body, size_t len, struct err *e);
/* True when sandboxd has answered on this connection without being asked, and closed it: that is
 * how it turns away who has too many. The error is set then. Waits a moment at most. */
bool client_turned_away(struct app *app, int fd, struct err *e);
void client_free(struct client *c);
