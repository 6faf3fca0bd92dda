/* SPDX-License-Identifier: MIT */
#include "resolver/upstream_io.h"
#include "common/auto.h"
#include "common/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define UDP_BYTES 4096      /* more than was offered by EDNS is nothing we want */

static void failed(struct exchange *x)
{
    exchange_end(x);
    x->failed(x->arg);
}

static void udp_ready(struct exchange *x)
{
    uint8_t data[UDP_BYTES];
    ssize_t n = recv(x->source.fd, data, sizeof(data), 0);

    if (n >= 0)
        x->got(x->arg, data, (size_t)n);
    else if (errno != EAGAIN && errno != EINTR)
        failed(x);          /* ECONNREFUSED: nobody listens there */
}

/* 1 all sent, 0 later, -1 failed. */
static int tcp_write(struct exchange *x)
{
    while (x->sent < x->out_len) {
        ssize_t n = send(x->source.fd, x->out + x->sent, x->out_len - x->sent, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR || errno == ENOTCONN ? 0 : -1;
        x->sent += (size_t)n;
    }
    return 1;
}

/* How many bytes are wanted in all, as far as is known. */
static size_t tcp_want(const struct exchange *x)
{
    return x->have < 2 ? 2 : 2 + (size_t)dns_u16(x->in);
}

/* 1 whole, 0 later, -1 failed. */
static int tcp_read(struct exchange *x)
{
    while (x->have < tcp_want(x)) {
        ssize_t n = recv(x->source.fd, x->in + x->have, tcp_want(x) - x->have, 0);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        if (n == 0)
            return -1;
        x->have += (size_t)n;
        if (tcp_want(x) > 2 + DNS_REPLY_MAX)
            return -1;
    }
    return 1;
}

static void tcp_ready(struct exchange *x)
{
    struct err e = ERR_INIT;

    if (x->sent < x->out_len) {
        int r = tcp_write(x);
        if (r > 0)
            r = loop_watch(x->loop, &x->source, EPOLLIN, &e);
        if (r < 0)
            failed(x);
        return;
    }
    int r = tcp_read(x);
    if (r < 0)
        return failed(x);
    if (r == 0)
        return;
    autofree uint8_t *in = take_ptr(x->in);     /* the callback may begin another exchange here */
    size_t have = x->have;
    exchange_end(x);
    x->got(x->arg, in + 2, have - 2);
}

static void ready(void *arg)
{
    struct exchange *x = arg;

    if (x->tcp)
        tcp_ready(x);
    else
        udp_ready(x);
}

void exchange_init(struct exchange *x, struct loop *l,
                   void (*got)(void *arg, const uint8_t *data, size_t len),
                   void (*failed_)(void *arg), void *arg)
{
    *x = (struct exchange){ .loop = l, .source = SOURCE_NONE, .got = got, .failed = failed_,
                            .arg = arg };
}

static int begin(struct exchange *x, const struct upstream_address *to, const uint8_t *query,
                 size_t len)
{
    struct err e = ERR_INIT;
    int type = x->tcp ? SOCK_STREAM : SOCK_DGRAM;
    int fd = socket(to->any.sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    x->source = (struct source){ .fd = fd, .fn = ready, .arg = x };
    if (fd < 0)
        return -1;
    if (connect(fd, &to->any, to->len) < 0 && !(x->tcp && errno == EINPROGRESS))
        return -1;
    if (!x->tcp)
        return send(fd, query, len, MSG_NOSIGNAL) == (ssize_t)len
                   ? loop_watch(x->loop, &x->source, EPOLLIN, &e) : -1;
    x->in = malloc(2 + DNS_REPLY_MAX);
    if (!x->in || len > DNS_QUERY_MAX)
        return -1;
    x->out[0] = (uint8_t)(len >> 8);
    x->out[1] = (uint8_t)len;
    memcpy(x->out + 2, query, len);
    x->out_len = len + 2;
    return loop_watch(x->loop, &x->source, EPOLLOUT, &e);
}

int exchange_begin(struct exchange *x, const struct upstream_address *to, bool tcp,
                   const uint8_t *query, size_t len)
{
    exchange_end(x);
    x->tcp = tcp;
    if (begin(x, to, query, len) == 0)
        return 0;
    exchange_end(x);
    return -1;
}

void exchange_end(struct exchange *x)
{
    loop_close(x->loop, &x->source);
    free(x->in);
    x->in = NULL;
    x->have = x->sent = x->out_len = 0;
}

int upstream_address_parse(const char *text, struct upstream_address *ret, struct err *e)
{
    char address[INET6_ADDRSTRLEN];
    bool bracket = text[0] == '[';
    const char *start = bracket ? text + 1 : text;
    size_t len = strcspn(start, bracket ? "]" : ":");
    const char *rest = start + len + (bracket && start[len] == ']');
    uint32_t port = 53;

    *ret = (struct upstream_address){ 0 };
    if (len >= sizeof(address) || (bracket && start[len] != ']') ||
        (*rest && (*rest != ':' || !parse_u32(rest + 1, 1, UINT16_MAX, &port))))
        return err_set(e, ERR_USAGE, "'%s' is no ADDRESS[:PORT]", text);
    memcpy(address, start, len);
    address[len] = '\0';
    if (bracket && inet_pton(AF_INET6, address, &ret->in6.sin6_addr) == 1) {
        ret->len = sizeof(ret->in6);
        ret->in6.sin6_family = AF_INET6;
        ret->in6.sin6_port = htons((uint16_t)port);
    } else if (!bracket && inet_pton(AF_INET, address, &ret->in.sin_addr) == 1) {
        ret->len = sizeof(ret->in);
        ret->in.sin_family = AF_INET;
        ret->in.sin_port = htons((uint16_t)port);
    } else {
        return err_set(e, ERR_USAGE, "'%s' is no ADDRESS[:PORT]", text);
    }
    return 0;
}
