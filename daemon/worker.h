/* SPDX-License-Identifier: MIT
 *
 * worker: one thread for what nobody waits for (a guest died, a helper ended, sweep of logs). Jobs
 * are a function and an id (never a pointer to an object): bounded queue, duplicates merged.
 */
#pragma once

#include "common/err.h"
#include <stdint.h>

struct worker;
typedef void (*worker_fn)(void *ctx, const char *id, const char *detail);

int worker_new(struct worker **ret, struct err *e);
void worker_free(struct worker *w);     /* finishes what is queued, joins */
/* Any thread, never blocks. A job equal in fn and id that waits already is not queued twice. The
 * queue holds as many jobs as there can be sandboxes, so it cannot overflow. */
void worker_post(struct worker *w, worker_fn fn, void *ctx, const char *id, const char *detail);
/* Jobs in the queue. Any thread. */
uint32_t worker_waiting(struct worker *w);
