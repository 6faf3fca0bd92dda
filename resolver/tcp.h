/* SPDX-License-Identifier: MIT
 *
 * tcp: guests that ask by TCP (RFC 7766): several questions on a connection, answered as they are
 * ready. A connection is closed when no question has come and no answer could be sent for ten
 * seconds; half a message does not count, so nobody holds one by sending a byte now and then.
 */
#pragma once

#include "resolver/dns.h"
#include "resolver/guests.h"
#include "resolver/loop.h"
#include <netinet/in.h>

#define TCP_CONNECTIONS 64
#define TCP_PER_GUEST 8
#define TCP_IDLE_MS 10000
#define TCP_IN_FLIGHT 16            /* questions of one connection */
#define TCP_OUT_MAX (64 * 1024)     /* bytes of answers not yet sent; no question is read beyond */

struct tcp;

struct tcp_connection {
    struct tcp *tcp;                /* borrowed */
    struct source source;
    struct timer idle;
    uint32_t generation;            /* of the users of this place */
    struct sockaddr_in from;
    unsigned in_flight;
    bool ended;                     /* the guest sends no more */
    bool reading;                   /* read_questions() is at work */
    uint8_t in[2 + DNS_QUESTION_TCP];
    size_t have;
    uint8_t *out;                   /* owned */
    size_t out_len, out_sent;
};

/* A question: has to lead to one tcp_reply(), in this call or later. */
typedef void tcp_question_fn(void *arg, struct tcp_connection *c, const uint8_t *data, size_t len);

struct tcp {
    struct loop *loop;              /* borrowed */
    struct guests *guests;          /* borrowed */
    struct source listener;
    struct timers idle;
    tcp_question_fn *question;
    void *arg;                      /* borrowed */
    uint32_t n_free;
    struct tcp_connection connections[TCP_CONNECTIONS];
};

/* Takes the descriptor: listening, and does not block. */
int tcp_init(struct tcp *t, struct loop *l, struct guests *g, int fd, tcp_question_fn *question,
             void *arg, struct err *e);
void tcp_done(struct tcp *t);
/* The answer; len 0: there is none. Nothing happens if the connection is another one by now. */
void tcp_reply(struct tcp_connection *c, uint32_t generation, const uint8_t *data, size_t len);
