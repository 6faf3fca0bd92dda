/* SPDX-License-Identifier: MIT
 *
 * Theory of operation. One lock guards the heap of timers, the state of all sources and the word
 * "who is running now"; it is a leaf and never held while a callback runs. Removal takes a source
 * out of epoll and out of the heap under the lock, so it cannot be found again; but a batch that
 * epoll_wait() has returned already may still name it. So the memory goes to a graveyard, which
 * only the event thread empties, before it asks for the next batch.
 */
#include "daemon/evloop.h"
#include "common/auto.h"
#include "common/io.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVLOOP_BATCH 64
#define NOT_QUEUED   SIZE_MAX

struct evsource {
    struct evloop *loop; /* borrowed */
    int fd;              /* borrowed; -1: a timer */
    uint32_t events;
    bool in_epoll;
    bool dead; /* removed: no callback any more */
    evloop_io_fn io;
    evloop_timer_fn timer;
    void *arg;
    int64_t due_us;
    size_t slot;           /* in the heap, NOT_QUEUED when disarmed */
    struct evsource *next; /* in the graveyard */
};

struct evloop {
    int epoll_fd;
    int wake_fd;
    pthread_t thread;
    pthread_mutex_t lock; /* the fields below and those of all sources */
    pthread_cond_t idle;  /* a callback has returned */
    bool stop;
    struct evsource *running; /* whose callback runs now */
    struct evsource *graveyard;
    struct evsource **heap; /* timers by due time; room for all `timers` */
    size_t heap_n, heap_cap, timers;
    int64_t sleeps_until_us; /* INT64_MAX: no timer; INT64_MIN: awake */
};

static void heap_place(struct evloop *l, size_t i, struct evsource *s)
{
    l->heap[i] = s;
    s->slot = i;
}

static void heap_up_locked(struct evloop *l, size_t i)
{
    struct evsource *s = l->heap[i];
    while (i > 0 && l->heap[(i - 1) / 2]->due_us > s->due_us) {
        heap_place(l, i, l->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_place(l, i, s);
}

static void heap_down_locked(struct evloop *l, size_t i)
{
    struct evsource *s = l->heap[i];
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= l->heap_n)
            break;
        if (c + 1 < l->heap_n && l->heap[c + 1]->due_us < l->heap[c]->due_us)
            c++;
        if (l->heap[c]->due_us >= s->due_us)
            break;
        heap_place(l, i, l->heap[c]);
        i = c;
    }
    heap_place(l, i, s);
}

static void heap_remove_locked(struct evloop *l, struct evsource *s)
{
    if (s->slot == NOT_QUEUED)
        return;
    size_t i = s->slot;
    struct evsource *last = l->heap[--l->heap_n];
    s->slot = NOT_QUEUED;
    if (last == s)
        return;
    heap_place(l, i, last);
    heap_up_locked(l, i);
    heap_down_locked(l, last->slot);
}

static void wake(struct evloop *l)
{
    uint64_t one = 1;
    while (write(l->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

bool evloop_is_self(struct evloop *l)
{
    return pthread_equal(pthread_self(), l->thread);
}

static void timer_arm_locked(struct evsource *s, int64_t ms)
{
    struct evloop *l = s->loop;
    heap_remove_locked(l, s);
    if (ms < 0 || s->dead)
        return;
    s->due_us = now_mono_us() + (ms < INT32_MAX ? ms : INT32_MAX) * 1000;
    /* evloop_add_timer() made room for every timer there is */
    l->heap[l->heap_n] = s;
    s->slot = l->heap_n++;
    heap_up_locked(l, s->slot);
    if (s->due_us < l->sleeps_until_us)
        wake(l);
}

static void epoll_sync_locked(struct evsource *s, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = s };
    int op = EPOLL_CTL_MOD;
    if (!events && !s->in_epoll)
        return;
    if (!events)
        op = EPOLL_CTL_DEL;
    else if (!s->in_epoll)
        op = EPOLL_CTL_ADD;
    if (epoll_ctl(s->loop->epoll_fd, op, s->fd, &ev) == 0)
        s->in_epoll = events != 0;
}

void evloop_set_events(struct evsource *s, uint32_t epoll_events)
{
    pthread_mutex_lock(&s->loop->lock);
    if (!s->dead && s->events != epoll_events) {
        s->events = epoll_events;
        epoll_sync_locked(s, epoll_events);
    }
    pthread_mutex_unlock(&s->loop->lock);
}

void evloop_timer_set(struct evsource *s, int64_t ms)
{
    pthread_mutex_lock(&s->loop->lock);
    timer_arm_locked(s, ms);
    pthread_mutex_unlock(&s->loop->lock);
}

int evloop_add_fd(struct evloop *l, int fd, uint32_t epoll_events, evloop_io_fn fn, void *arg,
                  struct evsource **ret, struct err *e)
{
    autofree struct evsource *s = calloc(1, sizeof(*s));
    if (!s)
        return err_nomem(e);
    *s = (struct evsource){
        .loop = l, .fd = fd, .io = fn, .arg = arg, .slot = NOT_QUEUED, .events = epoll_events
    };
    /* the event thread takes the lock before it calls, so *ret is there before the first event */
    pthread_mutex_lock(&l->lock);
    epoll_sync_locked(s, epoll_events);
    int bad = epoll_events && !s->in_epoll ? errno : 0;
    if (!bad)
        *ret = s;
    pthread_mutex_unlock(&l->lock);
    if (bad)
        return err_sys(e, ERR_INTERNAL, bad, "cannot watch a descriptor");
    s = NULL;
    return 0;
}

int evloop_add_timer(struct evloop *l, int64_t ms, evloop_timer_fn fn, void *arg,
                     struct evsource **ret, struct err *e)
{
    autofree struct evsource *s = calloc(1, sizeof(*s));
    if (!s)
        return err_nomem(e);
    *s = (struct evsource){ .loop = l, .fd = -1, .timer = fn, .arg = arg, .slot = NOT_QUEUED };
    pthread_mutex_lock(&l->lock);
    bool room = true;
    if (l->timers == l->heap_cap) {
        size_t cap = l->heap_cap ? l->heap_cap * 2 : 16;
        struct evsource **heap = reallocarray(l->heap, cap, sizeof(*heap));
        room = heap != NULL;
        if (heap) {
            l->heap = heap;
            l->heap_cap = cap;
        }
    }
    if (room) {
        l->timers++;
        *ret = s;
        timer_arm_locked(s, ms);
    }
    pthread_mutex_unlock(&l->lock);
    if (!room)
        return err_nomem(e);
    s = NULL;
    return 0;
}

void evloop_remove(struct evsource *s)
{
    if (!s)
        return;
    struct evloop *l = s->loop;
    bool self = evloop_is_self(l);
    pthread_mutex_lock(&l->lock);
    s->dead = true;
    heap_remove_locked(l, s);
    if (s->fd >= 0)
        epoll_sync_locked(s, 0);
    else
        l->timers--;
    while (!self && l->running == s)
        pthread_cond_wait(&l->idle, &l->lock);
    s->next = l->graveyard;
    l->graveyard = s;
    pthread_mutex_unlock(&l->lock);
}

static void bury_locked(struct evloop *l)
{
    while (l->graveyard) {
        struct evsource *s = l->graveyard;
        l->graveyard = s->next;
        free(s);
    }
}

/* Runs one callback with the lock dropped. Its source may be removed meanwhile, but not freed. */
static void run_locked(struct evloop *l, struct evsource *s, uint32_t events)
{
    evloop_io_fn io = s->io;
    evloop_timer_fn timer = s->timer;
    void *arg = s->arg;
    l->running = s;
    pthread_mutex_unlock(&l->lock);
    if (io)
        io(arg, events);
    else
        timer(arg);
    pthread_mutex_lock(&l->lock);
    l->running = NULL;
    pthread_cond_broadcast(&l->idle);
}

/* Timers due now. One that arms itself for "at once" waits for the next round, so that it cannot
 * keep descriptors from their turn. */
static void run_timers_locked(struct evloop *l)
{
    int64_t now = now_mono_us();
    for (size_t n = l->heap_n; n > 0; n--) {
        if (l->stop || l->heap_n == 0 || l->heap[0]->due_us > now)
            return;
        struct evsource *s = l->heap[0];
        heap_remove_locked(l, s);
        run_locked(l, s, 0);
    }
}

static void *evloop_thread(void *arg)
{
    struct evloop *l = arg;
    struct epoll_event ev[EVLOOP_BATCH];
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        bury_locked(l);
        int timeout = -1;
        l->sleeps_until_us = INT64_MAX;
        if (l->heap_n) {
            l->sleeps_until_us = l->heap[0]->due_us;
            int64_t left = l->sleeps_until_us - now_mono_us();
            timeout = left <= 0          ? 0
                      : left > INT32_MAX ? INT32_MAX / 1000
                                         : (int)((left + 999) / 1000);
        }
        pthread_mutex_unlock(&l->lock);
        int n = epoll_wait(l->epoll_fd, ev, EVLOOP_BATCH, timeout);
        pthread_mutex_lock(&l->lock);
        l->sleeps_until_us = INT64_MIN;
        for (int i = 0; i < n && !l->stop; i++) {
            struct evsource *s = ev[i].data.ptr;
            if (!s) {
                uint64_t count;
                while (read(l->wake_fd, &count, sizeof(count)) < 0 && errno == EINTR)
                    ;
                continue;
            }
            /* what was switched off since the batch was made is not reported */
            uint32_t got = ev[i].events & (s->events | EPOLLHUP | EPOLLERR);
            if (!s->dead && s->events && got)
                run_locked(l, s, got);
        }
        run_timers_locked(l);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void evloop_destroy(struct evloop *l)
{
    bury_locked(l);
    fd_close(l->wake_fd);
    fd_close(l->epoll_fd);
    pthread_cond_destroy(&l->idle);
    pthread_mutex_destroy(&l->lock);
    free(l->heap);
    free(l);
}

int evloop_new(struct evloop **ret, struct err *e)
{
    struct evloop *l = calloc(1, sizeof(*l));
    if (!l)
        return err_nomem(e);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->idle, NULL);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
    int bad = 0;
    if (l->epoll_fd < 0 || l->wake_fd < 0 ||
        epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &ev) < 0)
        bad = errno;
    if (!bad) {
        /* signals belong to the main thread; the lock keeps the thread from running before its
         * own id is stored */
        sigset_t all, old;
        sigfillset(&all);
        pthread_mutex_lock(&l->lock);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        bad = pthread_create(&l->thread, NULL, evloop_thread, l);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_mutex_unlock(&l->lock);
    }
    if (bad) {
        evloop_destroy(l);
        return err_sys(e, ERR_INTERNAL, bad, "cannot start the event thread");
    }
    pthread_setname_np(l->thread, "sbx-events");
    *ret = l;
    return 0;
}

void evloop_free(struct evloop *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_mutex_unlock(&l->lock);
    wake(l);
    pthread_join(l->thread, NULL);
    evloop_destroy(l);
}

uint64_t evloop_late_us(struct evloop *l)
{
    pthread_mutex_lock(&l->lock);
    int64_t late = l->heap_n ? now_mono_us() - l->heap[0]->due_us : 0;
    pthread_mutex_unlock(&l->lock);
    return late > 0 ? (uint64_t)late : 0;
}
