/* SPDX-License-Identifier: MIT
 *
 * server: the questions of guests from their arrival to the answer.
 *
 *     arrives ──▶ ASKED ──SAY──▶ LOOKING ──▶ ADMITTING ──ADMITTED──▶ answered
 *                   │ denied, or 2 s    │ not found      │ or 2 s
 *                   ▼                   ▼                ▼
 *              refused, SERVFAIL     SERVFAIL         SERVFAIL
 *
 * No address is told before sandboxd has said that it is admitted, and none but those. A question
 * that a guest repeats while it is on its way (same port, id, name and type) is dropped: it gets
 * the one answer.
 */
#pragma once

#include "resolver/channel.h"
#include "resolver/guests.h"
#include "resolver/tcp.h"
#include "resolver/upstream.h"

#define SERVER_QUESTIONS 512        /* on their way at one time */
#define SERVER_PER_GUEST 64         /* of one guest; more are answered SERVFAIL at once */
#define SERVER_CHANNEL_MS 2000      /* for each of sandboxd's two replies */
#define SERVER_EMPTY_TTL 60         /* of "has no address of that kind" */

struct server_config {
    int channel, udp, tcp;          /* descriptors; server_init() takes them */
    const struct upstream_address *upstreams;   /* borrowed */
    size_t n_upstreams;
    uint32_t denied_ttl;            /* seconds that a guest may remember what was denied */
};

struct server;

/* Owned; NULL with *e set. */
struct server *server_new(struct loop *l, const struct server_config *c, struct err *e);
void server_free(struct server *s);
/* OPEN: go on. */
enum channel_state server_state(const struct server *s, struct err *e);
