/* SPDX-License-Identifier: MIT
 *
 * evloop: the event thread: epoll over guest channels, helper processes (pidfds) and timers.
 * Callbacks run on the event thread, must not block, and never call libvirt or SQLite; what takes
 * time is posted to the worker. Apart from libvirt's own loop (virt.c), so that a guest that floods
 * its channel delays other guests' bytes at worst, never libvirt's events.
 *
 * Any thread may add, change and remove. evloop_remove() from another thread returns only when the
 * callback does not run and never will again; from inside a callback it returns at once.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>

struct evloop;
struct evsource;

typedef void (*evloop_io_fn)(void *arg, uint32_t epoll_events);
typedef void (*evloop_timer_fn)(void *arg);

int evloop_new(struct evloop **ret, struct err *e);   /* starts the thread */
void evloop_free(struct evloop *l);                   /* stops and joins; sources must be gone */

/* fd is borrowed and must outlive the source. */
int evloop_add_fd(struct evloop *l, int fd, uint32_t epoll_events, evloop_io_fn fn, void *arg,
                  struct evsource **ret, struct err *e);
/* 0 watches nothing, not even hang-up, until other events are set. */
void evloop_set_events(struct evsource *s, uint32_t epoll_events);
/* One shot after `ms`; evloop_timer_set() arms again, negative disarms. */
int evloop_add_timer(struct evloop *l, int64_t ms, evloop_timer_fn fn, void *arg,
                     struct evsource **ret, struct err *e);
void evloop_timer_set(struct evsource *s, int64_t ms);
void evloop_remove(struct evsource *s);               /* NULL is fine */
/* Whether the caller is the event thread, where nothing may wait. */
bool evloop_is_self(struct evloop *l);
/* How late it is for its next timer: 0 in time. What runs too long, or what there is too much of,
 * shows here. Any thread. */
uint64_t evloop_late_us(struct evloop *l);
