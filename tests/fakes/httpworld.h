/* SPDX-License-Identifier: MIT
 *
 * httpworld: the HTTP layer on a real socket in the test's directory, with a small table of routes,
 * and a client that says anything.
 *
 *     GET /echo?a=&b=  POST /echo {text,n}  POST /count (takes Idempotency-Key and says
 *     in Object what it is to make; n 666 fails)
 *     GET /free (no quota of requests)  GET, POST /big (2 MiB)
 *     GET /fail  DELETE /thing/{ref}  GET /admin  GET /slow  GET /pieces  GET /ever  GET /up
 */
#pragma once

#include "common/auto.h"
#include "common/io.h"
#include "common/sbuf.h"
#include "daemon/http.h"
#include "tests/harness/test.h"

#include <stdatomic.h>

#define WAIT_MS 10000
#define ANSWER_MAX (256 * 1024)

/* POST /count done, GET /slow being waited in, streams and upgrades freed. */
extern atomic_int n_counted, n_slow, n_freed;
/* Of one user, before start(); 0: the default. */
extern uint64_t connections, requests, replies;
extern struct http *server;
extern char answer[ANSWER_MAX + 1];     /* what was read last */

void start(void);
void start_idle(unsigned idle_s);
void stop(void);

int dial(void);
void say(int fd, const char *text, size_t len);     /* stops when the server closes */
const char *read_all(int fd);                     /* until the server closes, or WAIT_MS: failure */
void read_until(int fd, const char *what);
/* One connection each, read until the server closes it. */
const char *ask_bytes(const char *text, size_t len);
const char *ask(const char *text);
const char *request(const char *line, const char *headers, const char *body);
int status(void);                                   /* of the answer */
void wait_for(atomic_int *n, int want);
void still_serves(void);        /* whatever happened: the next request is served */

#define ASSERT_STATUS(want)                                              \
    do {                                                                 \
        if (status() != (want))                                          \
            FAIL("status %d, wanted %d: %s", status(), (want), answer);  \
    } while (0)
#define ASSERT_REFUSED(want, code)                                       \
    do {                                                                 \
        ASSERT_STATUS(want);                                             \
        ASSERT_CONTAINS(answer, "\"code\":\"" code "\"");                \
        ASSERT_CONTAINS(answer, "Sbx-Request-Id: ");                     \
    } while (0)
