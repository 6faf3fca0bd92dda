/* SPDX-License-Identifier: MIT */
#include "resolver/channel.h"
#include "common/auto.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define MESSAGES_PER_TURN 64

static void end(struct channel *c, enum channel_state state)
{
    c->state = state;
    loop_close(c->loop, &c->source);
}

static void broken(struct channel *c, const char *what)
{
    err_set(&c->error, ERR_INTERNAL, "%s", what);
    end(c, CHANNEL_BROKEN);
}

/* False: nothing more to read for now. */
static bool read_one(struct channel *c)
{
    union {
        uint32_t type;
        struct resolve_say say;
        struct resolve_admitted admitted;
        char room[sizeof(struct resolve_admitted) + 1];     /* so that longer ones are noticed */
    } m;
    ssize_t n = recv(c->source.fd, &m, sizeof(m), 0);

    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            end(c, CHANNEL_ENDED);      /* ECONNRESET: it went away with questions unread */
        return false;
    }
    if (n == 0) {
        end(c, CHANNEL_ENDED);
        return false;
    }
    if (n == sizeof(m.say) && m.type == RESOLVE_SAY) {
        c->calls->said(c->arg, &m.say);
    } else if (n == sizeof(m.admitted) && m.type == RESOLVE_ADMITTED &&
               m.admitted.n_addresses <= RESOLVE_ADDRESSES) {
        c->calls->admitted(c->arg, &m.admitted);
    } else {
        broken(c, "sandboxd sent a message of another shape");
    }
    return c->state == CHANNEL_OPEN;
}

static void ready(void *arg)
{
    struct channel *c = arg;
    bool waited = c->source.events & EPOLLOUT;
    struct err e = ERR_INIT;

    for (int i = 0; i < MESSAGES_PER_TURN && read_one(c); i++)
        ;
    if (c->state != CHANNEL_OPEN || !waited)
        return;
    if (loop_watch(c->loop, &c->source, EPOLLIN, &e) < 0)
        return broken(c, e.msg);
    c->calls->writable(c->arg);
}

int channel_init(struct channel *c, struct loop *l, int fd, const struct channel_calls *calls,
                 void *arg, struct err *e)
{
    *c = (struct channel){ .loop = l, .calls = calls, .arg = arg, .error = ERR_INIT,
                           .source = { .fd = fd, .fn = ready, .arg = c } };
    return loop_watch(l, &c->source, EPOLLIN, e);
}

void channel_done(struct channel *c)
{
    loop_close(c->loop, &c->source);
}

int channel_send(struct channel *c, const void *message, size_t size)
{
    struct err e = ERR_INIT;

    if (c->state != CHANNEL_OPEN)
        return -1;
    if (send(c->source.fd, message, size, MSG_NOSIGNAL) == (ssize_t)size)
        return 1;
    if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
        end(c, CHANNEL_ENDED);
        return -1;
    }
    if (loop_watch(c->loop, &c->source, EPOLLIN | EPOLLOUT, &e) < 0) {
        broken(c, e.msg);
        return -1;
    }
    return 0;
}
