/* SPDX-License-Identifier: MIT
 *
 * upstream_io: one query on its way to one upstream, by a socket of its own: connected, so that the
 * kernel drops what comes from elsewhere, and new for each query, so that each has another port.
 */
#pragma once

#include "resolver/dns.h"
#include "resolver/loop.h"
#include <netinet/in.h>

struct upstream_address {
    socklen_t len;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
};

struct exchange {
    struct loop *loop;                  /* borrowed */
    struct source source;
    bool tcp;
    uint8_t out[2 + DNS_QUERY_MAX];     /* length and query; TCP only */
    size_t out_len, sent;
    uint8_t *in;                        /* owned; TCP only: length and reply */
    size_t have;
    /* A message has come; the exchange may be ended and begun anew in there. By UDP there may be
     * more of them, by TCP there is one. */
    void (*got)(void *arg, const uint8_t *data, size_t len);
    /* There will be nothing (more). */
    void (*failed)(void *arg);
    void *arg;                          /* borrowed */
};

void exchange_init(struct exchange *x, struct loop *l,
                   void (*got)(void *arg, const uint8_t *data, size_t len),
                   void (*failed)(void *arg), void *arg);
/* Sends the query, or begins to. -1: it cannot be sent, and neither callback will be called. */
int exchange_begin(struct exchange *x, const struct upstream_address *to, bool tcp,
                   const uint8_t *query, size_t len);
/* Ends it without a word. */
void exchange_end(struct exchange *x);
/* "ADDRESS", "ADDRESS:PORT", "[ADDRESS]" or "[ADDRESS]:PORT". */
int upstream_address_parse(const char *text, struct upstream_address *ret, struct err *e);
