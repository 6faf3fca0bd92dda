/* SPDX-License-Identifier: MIT
 *
 * The way to the guest. A frame is given to the socket at once by the thread that sends it; what
 * the socket does not take waits in a circle, which exists only while it is needed, and the event
 * thread goes on when there is room.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/agent_priv.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define QUEUE_FIRST (64 * 1024)

/* Bytes the socket took. An error is not reported: the event thread is told by epoll. */
static size_t give(int fd, const uint8_t *p, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = send(fd, p + done, len - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

static void watch_locked(struct agent *a)
{
    bool out = a->q_len > 0;
    if (out == a->want_out || !a->io)
        return;
    a->want_out = out;
    evloop_set_events(a->io, (a->paused ? 0 : EPOLLIN) | (out ? EPOLLOUT : 0));
}

void agent_flush_locked(struct agent *a)
{
    while (a->q_len > 0 && a->fd >= 0) {
        size_t piece = a->q_cap - a->q_head;
        if (piece > a->q_len)
            piece = a->q_len;
        size_t n = give(a->fd, a->q + a->q_head, piece);
        a->q_head = (a->q_head + n) % a->q_cap;
        a->q_len -= n;
        if (n < piece)
            break;
    }
    if (a->q_len == 0) {
        free(a->q);
        a->q = NULL;
        a->q_cap = a->q_head = 0;
    }
    watch_locked(a);
    pthread_cond_broadcast(&a->changed);
}

static bool room_locked(struct agent *a, size_t len)
{
    if (len > LIMIT_GUEST_OUTQ - a->q_len)
        return false;
    if (a->q_len + len <= a->q_cap)
        return true;
    size_t cap = a->q_cap ? a->q_cap : QUEUE_FIRST;
    while (cap < a->q_len + len)
        cap *= 2;
    if (cap > LIMIT_GUEST_OUTQ)
        cap = LIMIT_GUEST_OUTQ;
    uint8_t *q = malloc(cap);
    if (!q)
        return false;
    for (size_t i = 0; i < a->q_len;) {
        size_t at = (a->q_head + i) % a->q_cap;
        size_t piece = a->q_cap - at < a->q_len - i ? a->q_cap - at : a->q_len - i;
        memcpy(q + i, a->q + at, piece);
        i += piece;
    }
    free(a->q);
    a->q = q;
    a->q_cap = cap;
    a->q_head = 0;
    return true;
}

int agent_queue_locked(struct agent *a, enum frame_type type, uint8_t fd, uint32_t stream,
                       const void *payload, uint32_t len)
{
    uint8_t buf[FRAME_OVERHEAD + LIMIT_FRAME];
    if (len > LIMIT_FRAME || a->fd < 0)
        return -1;
    /* with something queued, ask for room first: a frame is taken whole or not at all */
    if (a->q_len > 0 && !room_locked(a, FRAME_OVERHEAD + len))
        return -1;
    size_t n = frame_encode(buf, a->epoch, type, fd, stream, payload, len);
    size_t done = 0;
    if (a->q_len == 0) {
        if (!room_locked(a, n))
            return -1;
        done = give(a->fd, buf, n);
    }
    while (done < n) {
        size_t at = (a->q_head + a->q_len) % a->q_cap;
        size_t piece = n - done < a->q_cap - at ? n - done : a->q_cap - at;
        memcpy(a->q + at, buf + done, piece);
        a->q_len += piece;
        done += piece;
    }
    if (a->q_len == 0) {
        free(a->q);
        a->q = NULL;
        a->q_cap = a->q_head = 0;
    }
    watch_locked(a);
    return 0;
}

/* Waits for news until deadline; false when it has passed. */
static bool wait_locked(struct agent *a, int64_t deadline)
{
    if (deadline == DEADLINE_NONE) {
        pthread_cond_wait(&a->changed, &a->lock);
        return true;
    }
    if (now_mono_ms() >= deadline)
        return false;
    struct timespec ts = { .tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000 };
    pthread_cond_timedwait(&a->changed, &a->lock, &ts);
    return true;
}

static bool may_send_locked(const struct agent *a, bool self)
{
    return self ? a->state >= AGENT_SYNCING : a->state >= AGENT_OPEN;
}

int agent_send(struct agent *a, enum frame_type type, uint8_t fd, uint32_t stream,
               const void *payload, uint32_t len, int64_t deadline, struct err *e)
{
    if (len > LIMIT_FRAME)
        return err_set(e, ERR_INTERNAL, "a frame of %u bytes is too long", len);
    bool self = evloop_is_self(a->loop);
    int rc = 0;
    pthread_mutex_lock(&a->lock);
    for (;;) {
        if (a->state == AGENT_CLOSED) {
            rc = err_set(e, ERR_SANDBOX_STATE, "the guest is gone");
            break;
        }
        bool may = may_send_locked(a, self);
        if (may && agent_queue_locked(a, type, fd, stream, payload, len) == 0)
            break;
        if (self) {
            rc = err_set(e, ERR_UNAVAILABLE, "the guest does not read");
            break;
        }
        if (!wait_locked(a, deadline)) {
            rc = err_set(e, ERR_TIMEOUT,
                         may ? "the guest does not read" : "the guest does not answer");
            break;
        }
    }
    pthread_mutex_unlock(&a->lock);
    return rc;
}

int agent_wait_ready(struct agent *a, int64_t deadline, struct err *e)
{
    int rc = 0;
    pthread_mutex_lock(&a->lock);
    while (a->state != AGENT_READY && a->state != AGENT_CLOSED && !a->version_differs && rc == 0) {
        if (!wait_locked(a, deadline))
            rc = err_set(e, ERR_TIMEOUT, "%s",
                         a->state <= AGENT_HELLO ? "its agent did not answer in time"
                                                 : "its agent was not ready in time");
    }
    if (rc == 0 && a->version_differs)
        rc = err_set(e, ERR_GUEST, "the guest's agent speaks another version of the protocol");
    else if (rc == 0 && a->state == AGENT_CLOSED)
        rc = err_set(e, ERR_SANDBOX_STATE, "the guest is gone");
    pthread_mutex_unlock(&a->lock);
    return rc;
}

void agent_pong_locked(struct agent *a, uint64_t cookie)
{
    for (struct agent_ping *p = a->pings; p; p = p->next)
        if (p->cookie == cookie)
            p->answered = true;
    pthread_cond_broadcast(&a->changed);
}

int agent_ping(struct agent *a, int64_t deadline, struct err *e)
{
    struct agent_ping p = { 0 };
    uint8_t payload[8];
    struct wire_out w = { .p = payload, .cap = sizeof(payload) };
    pthread_mutex_lock(&a->lock);
    p.cookie = ++a->cookie;
    p.next = a->pings;
    a->pings = &p;
    pthread_mutex_unlock(&a->lock);
    wire_put_u64(&w, p.cookie);
    int rc = agent_send(a, FRAME_PING, 0, 0, payload, sizeof(payload), deadline, e);
    pthread_mutex_lock(&a->lock);
    while (rc == 0 && !p.answered) {
        if (a->state == AGENT_CLOSED)
            rc = err_set(e, ERR_SANDBOX_STATE, "the guest is gone");
        else if (!wait_locked(a, deadline))
            rc = err_set(e, ERR_TIMEOUT, "the guest does not answer");
    }
    for (struct agent_ping **pp = &a->pings; *pp; pp = &(*pp)->next) {
        if (*pp == &p) {
            *pp = p.next;
            break;
        }
    }
    pthread_mutex_unlock(&a->lock);
    return rc;
}
