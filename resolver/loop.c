/* SPDX-License-Identifier: MIT */
#include "resolver/loop.h"
#include "common/auto.h"
#include "common/io.h"

#include <errno.h>
#include <sys/epoll.h>

#define EVENTS_PER_TURN 64

int loop_init(struct loop *l, struct err *e)
{
    *l = (struct loop){ .now = now_mono_ms() };
    l->fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make the event loop");
    return 0;
}

void loop_done(struct loop *l)
{
    fd_close(l->fd);
    l->fd = -1;
}

int loop_watch(struct loop *l, struct source *s, uint32_t events, struct err *e)
{
    struct epoll_event ev = { .events = events, .data.ptr = s };
    int op = events == 0 ? EPOLL_CTL_DEL : s->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

    if (events == s->events || s->fd < 0)
        return 0;
    if (epoll_ctl(l->fd, op, s->fd, &ev) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot watch fd %d", s->fd);
    s->events = events;
    return 0;
}

void loop_close(struct loop *l, struct source *s)
{
    struct err e = ERR_INIT;

    if (s->fd < 0)
        return;
    (void)loop_watch(l, s, 0, &e);      /* closing takes it out anyway */
    fd_close(s->fd);
    s->fd = -1;
    s->events = 0;
}

void loop_timers(struct loop *l, struct timers *t, int64_t ms)
{
    t->ms = ms;
    TAILQ_INIT(&t->queue);
    if (l->n_lists < LOOP_TIMERS)
        l->lists[l->n_lists++] = t;
}

void timer_start(struct loop *l, struct timers *t, struct timer *x)
{
    timer_stop(x);
    x->due = l->now + t->ms;
    x->in = t;
    TAILQ_INSERT_TAIL(&t->queue, x, link);
}

void timer_stop(struct timer *x)
{
    if (!x->in)
        return;
    TAILQ_REMOVE(&x->in->queue, x, link);
    x->in = NULL;
}

/* How long to wait at most, when timeout_ms is as long as one wants to. */
static int until_due(const struct loop *l, int timeout_ms)
{
    int64_t now = now_mono_ms();

    for (size_t i = 0; i < l->n_lists; i++) {
        const struct timer *x = TAILQ_FIRST(&l->lists[i]->queue);
        if (!x)
            continue;
        int64_t left = x->due > now ? x->due - now : 0;
        if (timeout_ms < 0 || left < timeout_ms)
            timeout_ms = (int)left;     /* lists are of seconds */
    }
    return timeout_ms;
}

static void call_due(struct loop *l)
{
    for (size_t i = 0; i < l->n_lists; i++) {
        struct timer *x;

        while ((x = TAILQ_FIRST(&l->lists[i]->queue)) && x->due <= l->now) {
            timer_stop(x);
            x->fn(x->arg);
        }
    }
}

int loop_turn(struct loop *l, int timeout_ms, struct err *e)
{
    struct epoll_event ev[EVENTS_PER_TURN];
    int n = epoll_wait(l->fd, ev, EVENTS_PER_TURN, until_due(l, timeout_ms));

    if (n < 0 && errno != EINTR)
        return err_sys(e, ERR_INTERNAL, errno, "cannot wait for events");
    l->now = now_mono_ms();
    for (int i = 0; i < n; i++) {
        struct source *s = ev[i].data.ptr;

        if (s->fd >= 0 && s->events != 0)   /* closed by a callback of this turn */
            s->fn(s->arg);
    }
    call_due(l);
    return 0;
}
