/* SPDX-License-Identifier: MIT */
#include "daemon/events.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/log.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 128               /* rows of one transaction */
#define RETRY_MS 1000           /* until a database that failed is tried again */

struct item {
    struct item *next;
    enum event_kind kind;
    int64_t time;
    int64_t uid;                /* -1: not given */
    uint64_t count;
    char sandbox[LIMIT_ID + 1], name[LIMIT_NAME + 1], exec[LIMIT_ID + 1];
    char detail[EVENT_DETAIL + 1];
};

struct window {                 /* something that was told, and how often it came again */
    bool used;
    int64_t since;              /* milliseconds */
    uint64_t repeats;
    struct item last;
};

struct events {
    struct store *store;        /* borrowed */
    uint64_t keep;
    pthread_t thread;

    pthread_mutex_t lock;       /* a leaf; held over memory only; guards all below */
    pthread_cond_t wake;        /* for the thread; CLOCK_MONOTONIC, as the next */
    pthread_cond_t done;        /* something was written, or could not be */
    struct item *head, **tail;  /* owned */
    uint32_t n;                 /* in the list and with the thread */
    uint64_t pushed;            /* since the start; of these state.written are in the table */
    uint64_t unsaid;            /* lost, and not told by an event yet */
    bool stop, failing;
    struct window windows[EVENT_WINDOWS];
    struct events_state state;
};

static const char *const words[] = {
#define EVENT_WORD(constant, word) [constant] = word,
    EVENT_KINDS(EVENT_WORD)
#undef EVENT_WORD
};
static_assert(ARRAY_SIZE(words) == EVENT_KIND_MAX, "a word for each kind");

const char *event_kind_name(enum event_kind k)
{
    return words[k];
}

/* --- the queue --- */

static bool push_locked(struct events *ev, const struct item *x)
{
    struct item *i = ev->n < EVENT_QUEUE ? malloc(sizeof(*i)) : NULL;

    if (!i)
        return false;
    *i = *x;
    i->next = NULL;
    *ev->tail = i;
    ev->tail = &i->next;
    ev->n++;
    ev->pushed++;
    pthread_cond_signal(&ev->wake);
    return true;
}

/* As soon as there is room, so that the event stands where the lost ones would have. */
static void tell_lost_locked(struct events *ev)
{
    struct item x = { .kind = EVENT_LOST, .time = now_real_us(), .uid = -1,
                      .count = ev->unsaid };

    if (ev->unsaid == 0)
        return;
    snprintf(x.detail, sizeof(x.detail), "the database could not be written in time");
    if (push_locked(ev, &x))
        ev->unsaid = 0;
}

static void add_locked(struct events *ev, const struct item *x)
{
    tell_lost_locked(ev);
    if (ev->unsaid == 0 && push_locked(ev, x))
        return;
    ev->unsaid += x->count;
    ev->state.lost += x->count;
}

/* Text is cut between characters. */
static void copy_text(char *dst, size_t size, const char *src)
{
    size_t len = strlen(src);

    if (len >= size) {
        len = size - 1;
        while (len > 0 && ((unsigned char)src[len] & 0xc0) == 0x80)
            len--;
    }
    memcpy(dst, src, len);
    dst[len] = '\0';
}

static void fill(struct item *i, const struct event *x)
{
    *i = (struct item){ .kind = x->kind, .time = now_real_us(), .count = 1,
                        .uid = x->uid ? (int64_t)*x->uid : -1 };
    copy_text(i->sandbox, sizeof(i->sandbox), x->sandbox ? x->sandbox : "");
    copy_text(i->name, sizeof(i->name), x->name ? x->name : "");
    copy_text(i->exec, sizeof(i->exec), x->exec ? x->exec : "");
    copy_text(i->detail, sizeof(i->detail), x->detail ? x->detail : "");
}

void events_add(struct events *ev, const struct event *x)
{
    struct item i;

    if (!ev)
        return;
    fill(&i, x);
    pthread_mutex_lock(&ev->lock);
    add_locked(ev, &i);
    pthread_mutex_unlock(&ev->lock);
}

/* --- repeats --- */

static void close_window_locked(struct events *ev, struct window *w)
{
    if (w->used && w->repeats) {
        w->last.count = w->repeats;
        add_locked(ev, &w->last);
    }
    w->used = false;
}

static struct window *window_for_locked(struct events *ev, const struct item *x)
{
    struct window *oldest = &ev->windows[0];

    for (size_t i = 0; i < EVENT_WINDOWS; i++) {
        struct window *w = &ev->windows[i];
        if (w->used && w->last.kind == x->kind && w->last.uid == x->uid &&
            strcmp(w->last.sandbox, x->sandbox) == 0)
            return w;
        if (!w->used ? oldest->used : oldest->used && w->since < oldest->since)
            oldest = w;
    }
    close_window_locked(ev, oldest);
    return oldest;
}

void events_repeat(struct events *ev, const struct event *x)
{
    struct item i;

    if (!ev)
        return;
    fill(&i, x);
    pthread_mutex_lock(&ev->lock);
    struct window *w = window_for_locked(ev, &i);
    bool counted = w->used && now_mono_ms() - w->since < EVENT_WINDOW_MS;
    if (counted) {
        w->last = i;
        w->repeats++;
    } else {
        close_window_locked(ev, w);
        *w = (struct window){ .used = true, .since = now_mono_ms(), .last = i };
        add_locked(ev, &i);
        pthread_cond_signal(&ev->wake);
    }
    pthread_mutex_unlock(&ev->lock);
}

/* Closes those whose time is over; returns when the next one's is, INT64_MAX never. */
static int64_t sweep_locked(struct events *ev, bool all)
{
    int64_t now = now_mono_ms(), next = INT64_MAX;

    for (size_t i = 0; i < EVENT_WINDOWS; i++) {
        struct window *w = &ev->windows[i];
        if (!w->used)
            continue;
        if (all || now - w->since >= EVENT_WINDOW_MS)
            close_window_locked(ev, w);
        else if (w->since + EVENT_WINDOW_MS < next)
            next = w->since + EVENT_WINDOW_MS;
    }
    return next;
}

/* --- the thread --- */

/* Rows borrow from the items. */
static size_t take_batch_locked(struct events *ev, struct item *items[BATCH],
                                struct event_row rows[BATCH])
{
    size_t n = 0;

    while (ev->head && n < BATCH) {
        struct item *i = ev->head;
        ev->head = i->next;
        items[n] = i;
        rows[n++] = (struct event_row){
            .time = i->time, .kind = (char *)words[i->kind], .uid = i->uid, .count = i->count,
            .sandbox = i->sandbox[0] ? i->sandbox : NULL, .name = i->name[0] ? i->name : NULL,
            .exec = i->exec[0] ? i->exec : NULL, .detail = i->detail[0] ? i->detail : NULL };
    }
    if (!ev->head)
        ev->tail = &ev->head;
    return n;
}

static void put_back_locked(struct events *ev, struct item *items[BATCH], size_t n)
{
    for (size_t i = n; i > 0; i--) {
        items[i - 1]->next = ev->head;
        if (!ev->head)
            ev->tail = &items[i - 1]->next;
        ev->head = items[i - 1];
    }
}

/* Under lock, which is given up meanwhile. */
static void write_batch(struct events *ev)
{
    static struct log_rate rate;
    struct item *items[BATCH];
    struct event_row rows[BATCH];
    struct err e = ERR_INIT;
    size_t n = take_batch_locked(ev, items, rows);

    pthread_mutex_unlock(&ev->lock);
    int r = store_event_add(ev->store, rows, n, ev->keep, &e);
    if (r < 0 && log_rate_ok(&rate, 1, 60000))
        log_err(LOG_CTX(.error = &e), "events cannot be written, trying again");
    pthread_mutex_lock(&ev->lock);
    ev->failing = r < 0;
    if (r < 0) {
        put_back_locked(ev, items, n);
    } else {
        for (size_t i = 0; i < n; i++) {
            ev->state.written++;
            ev->state.last = rows[i].seq;
            free(items[i]);
        }
        ev->n -= (uint32_t)n;
        tell_lost_locked(ev);
    }
    pthread_cond_broadcast(&ev->done);
}

static void wait_until_locked(struct events *ev, pthread_cond_t *c, int64_t ms)
{
    struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

    if (ms == INT64_MAX)
        pthread_cond_wait(c, &ev->lock);
    else
        pthread_cond_timedwait(c, &ev->lock, &ts);
}

static void *events_main(void *arg)
{
    struct events *ev = arg;

    pthread_setname_np(pthread_self(), "sbx-events-db");
    pthread_mutex_lock(&ev->lock);
    for (;;) {
        int64_t next = sweep_locked(ev, false);
        if (ev->stop && (!ev->head || ev->failing))
            break;
        if (ev->failing) {
            int64_t again = deadline_in(RETRY_MS);
            while (!ev->stop && now_mono_ms() < again)
                wait_until_locked(ev, &ev->wake, again);
            ev->failing = false;
        }
        if (ev->head)
            write_batch(ev);
        else if (!ev->stop)
            wait_until_locked(ev, &ev->wake, next);
    }
    pthread_mutex_unlock(&ev->lock);
    return NULL;
}

/* --- life --- */

static void free_parts(struct events *ev)
{
    while (ev->head) {
        struct item *next = ev->head->next;
        free(ev->head);
        ev->head = next;
    }
    pthread_cond_destroy(&ev->done);
    pthread_cond_destroy(&ev->wake);
    pthread_mutex_destroy(&ev->lock);
    free(ev);
}

static void init_parts(struct events *ev)
{
    pthread_condattr_t attr;

    ev->tail = &ev->head;
    pthread_mutex_init(&ev->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ev->wake, &attr);
    pthread_cond_init(&ev->done, &attr);
    pthread_condattr_destroy(&attr);
}

int events_open(struct store *st, uint64_t keep, const char *detail, struct events **ret,
                struct err *e)
{
    struct event_range range;
    char text[EVENT_DETAIL + 1];

    if (store_event_range(st, -1, &range, e) < 0)
        return -1;
    struct events *ev = calloc(1, sizeof(*ev));
    if (!ev)
        return err_nomem(e);
    ev->store = st;
    ev->keep = keep;
    ev->state.last = range.last;
    init_parts(ev);
    int r = pthread_create(&ev->thread, NULL, events_main, ev);
    if (r) {
        free_parts(ev);
        return err_sys(e, ERR_INTERNAL, r, "cannot start the thread that writes events");
    }
    bool killed = range.last && strcmp(range.kind, words[EVENT_DAEMON_STOP]) != 0;
    snprintf(text, sizeof(text), "%s%s", detail,
             killed ? "; the one before did not end in order" : "");
    events_add(ev, &(struct event){ .kind = EVENT_DAEMON_START, .detail = text });
    *ret = ev;
    return 0;
}

void events_free(struct events *ev, bool orderly)
{
    if (!ev)
        return;
    pthread_mutex_lock(&ev->lock);
    sweep_locked(ev, true);
    pthread_mutex_unlock(&ev->lock);
    if (orderly)
        events_add(ev, &(struct event){ .kind = EVENT_DAEMON_STOP });
    pthread_mutex_lock(&ev->lock);
    ev->stop = true;
    pthread_cond_signal(&ev->wake);
    pthread_mutex_unlock(&ev->lock);
    pthread_join(ev->thread, NULL);
    if (ev->n || ev->unsaid)
        log_err(NULL, "%llu events could not be written and are lost",
                (unsigned long long)(ev->n + ev->unsaid));
    free_parts(ev);
}

bool events_flush(struct events *ev, int64_t ms)
{
    int64_t deadline = deadline_in(ms);

    if (!ev)
        return true;
    pthread_mutex_lock(&ev->lock);
    uint64_t target = ev->pushed;
    while (ev->state.written < target && !ev->failing && now_mono_ms() < deadline)
        wait_until_locked(ev, &ev->done, deadline);
    bool done = ev->state.written >= target;
    pthread_mutex_unlock(&ev->lock);
    return done;
}

void events_state(struct events *ev, struct events_state *ret)
{
    *ret = (struct events_state){ 0 };
    if (!ev)
        return;
    pthread_mutex_lock(&ev->lock);
    *ret = ev->state;
    ret->waiting = ev->n;
    pthread_mutex_unlock(&ev->lock);
}
