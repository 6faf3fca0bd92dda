/* SPDX-License-Identifier: MIT */
#include "resolver/tcp.h"
#include "common/auto.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define ACCEPTS_PER_TURN 32

static uint32_t guest(const struct tcp_connection *c)
{
    return ntohl(c->from.sin_addr.s_addr);
}

static void close_connection(struct tcp_connection *c)
{
    if (c->source.fd < 0)
        return;
    guests_give(c->tcp->guests, guest(c), GUESTS_CONNECTIONS);
    c->tcp->n_free++;
    loop_close(c->tcp->loop, &c->source);
    timer_stop(&c->idle);
    free(c->out);
    c->out = NULL;
    c->out_len = c->out_sent = c->have = 0;
    c->in_flight = 0;
    c->generation++;
}

static void alive(struct tcp_connection *c)
{
    timer_start(c->tcp->loop, &c->tcp->idle, &c->idle);
}

/* Answers that are on their way end by their own deadlines; then we look again. */
static void idle(void *arg)
{
    struct tcp_connection *c = arg;

    if (c->in_flight > 0 && c->out_len == 0)
        alive(c);
    else
        close_connection(c);
}

static bool may_ask(const struct tcp_connection *c)
{
    return c->in_flight < TCP_IN_FLIGHT && c->out_len - c->out_sent < TCP_OUT_MAX;
}

/* Closes, or waits for what there is to be done. */
static void settle(struct tcp_connection *c)
{
    struct err e = ERR_INIT;
    uint32_t events = 0;

    if (c->source.fd < 0)
        return;
    if (!c->ended && may_ask(c) && c->have < sizeof(c->in))
        events |= EPOLLIN;
    if (c->out_sent < c->out_len)
        events |= EPOLLOUT;
    if ((c->ended && c->in_flight == 0 && c->out_len == 0) ||
        loop_watch(c->tcp->loop, &c->source, events, &e) < 0)
        close_connection(c);
}

/* -1: not one of DNS. */
static int read_questions(struct tcp_connection *c)
{
    uint32_t generation = c->generation;
    size_t at = 0;
    int r = 0;

    c->reading = true;
    while (c->have - at >= 2 && may_ask(c)) {
        size_t len = dns_u16(c->in + at);
        if (len < DNS_HEADER || len > DNS_QUESTION_TCP) {
            r = -1;
            break;
        }
        if (c->have - at < 2 + len)
            break;
        c->in_flight++;
        alive(c);
        c->tcp->question(c->tcp->arg, c, c->in + at + 2, len);
        if (c->generation != generation)
            break;
        at += 2 + len;
    }
    c->reading = false;
    if (c->generation != generation)
        return 0;
    c->have -= at;
    memmove(c->in, c->in + at, c->have);
    return r;
}

static int send_answers(struct tcp_connection *c)
{
    while (c->out_sent < c->out_len) {
        ssize_t n = send(c->source.fd, c->out + c->out_sent, c->out_len - c->out_sent,
                         MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        c->out_sent += (size_t)n;
        alive(c);
    }
    free(c->out);
    c->out = NULL;
    c->out_len = c->out_sent = 0;
    return 0;
}

static int receive(struct tcp_connection *c)
{
    if (c->ended || c->have == sizeof(c->in))
        return 0;
    ssize_t n = recv(c->source.fd, c->in + c->have, sizeof(c->in) - c->have, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    c->ended = n == 0;
    c->have += (size_t)n;
    return 0;
}

static void ready(void *arg)
{
    struct tcp_connection *c = arg;
    uint32_t generation = c->generation;

    if (send_answers(c) < 0 || receive(c) < 0 || read_questions(c) < 0) {
        if (c->generation == generation)
            close_connection(c);
        return;
    }
    settle(c);
}

static int append(struct tcp_connection *c, const uint8_t *data, size_t len)
{
    size_t left = c->out_len - c->out_sent;

    if (c->out_sent > 0) {
        memmove(c->out, c->out + c->out_sent, left);
        c->out_sent = 0;
        c->out_len = left;
    }
    uint8_t *out = realloc(c->out, left + 2 + len);
    if (!out)
        return -1;
    c->out = out;
    out[left] = (uint8_t)(len >> 8);
    out[left + 1] = (uint8_t)len;
    memcpy(out + left + 2, data, len);
    c->out_len = left + 2 + len;
    return 0;
}

void tcp_reply(struct tcp_connection *c, uint32_t generation, const uint8_t *data, size_t len)
{
    if (c->generation != generation || c->source.fd < 0)
        return;
    c->in_flight--;
    if (len > 0 && (append(c, data, len) < 0 || send_answers(c) < 0))
        return close_connection(c);
    if (c->reading)
        return;             /* it goes on by itself */
    if (read_questions(c) < 0)
        return close_connection(c);
    settle(c);
}

static void accept_one(struct tcp *t, int fd, const struct sockaddr_in *from)
{
    struct err e = ERR_INIT;
    struct tcp_connection *c = NULL;

    for (size_t i = 0; i < TCP_CONNECTIONS && !c; i++)
        if (t->connections[i].source.fd < 0)
            c = &t->connections[i];
    if (!c || from->sin_family != AF_INET ||
        !guests_take(t->guests, ntohl(from->sin_addr.s_addr), GUESTS_CONNECTIONS, TCP_PER_GUEST,
                     t->n_free)) {
        fd_close(fd);
        return;
    }
    t->n_free--;
    uint32_t generation = c->generation;
    *c = (struct tcp_connection){ .tcp = t, .generation = generation, .from = *from,
                                  .source = { .fd = fd, .fn = ready, .arg = c },
                                  .idle = { .fn = idle, .arg = c } };
    if (loop_watch(t->loop, &c->source, EPOLLIN, &e) < 0)
        close_connection(c);
    else
        alive(c);
}

/* One too many is accepted and closed, as it would only wait otherwise. */
static void accept_ready(void *arg)
{
    struct tcp *t = arg;

    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_in from = { 0 };
        socklen_t len = sizeof(from);
        int fd = accept4(t->listener.fd, (struct sockaddr *)&from, &len,
                         SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        accept_one(t, fd, &from);
    }
}

int tcp_init(struct tcp *t, struct loop *l, struct guests *g, int fd, tcp_question_fn *question,
             void *arg, struct err *e)
{
    *t = (struct tcp){ .loop = l, .guests = g, .question = question, .arg = arg,
                       .n_free = TCP_CONNECTIONS,
                       .listener = { .fd = fd, .fn = accept_ready, .arg = t } };
    for (size_t i = 0; i < TCP_CONNECTIONS; i++) {
        t->connections[i].tcp = t;
        t->connections[i].source = SOURCE_NONE;
    }
    loop_timers(l, &t->idle, TCP_IDLE_MS);
    return loop_watch(l, &t->listener, EPOLLIN, e);
}

void tcp_done(struct tcp *t)
{
    for (size_t i = 0; i < TCP_CONNECTIONS; i++)
        close_connection(&t->connections[i]);
    loop_close(t->loop, &t->listener);
}
