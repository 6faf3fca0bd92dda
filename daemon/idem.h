/* SPDX-License-Identifier: MIT
 *
 * idem: Idempotency-Key. A POST that carries a key is done once per caller and key: the same
 * request again gets the stored answer (with `Idempotency-Replayed: true`), another one under the
 * same key ERR_IDEMPOTENCY. Two at once wait for one another. Only successes are kept, for 24
 * hours, and no more than LIMIT_KEYS of one user: what failed may be tried again.
 *
 * What such a request makes gets its id here (call.object), and the key knows it before anything is
 * made. So a daemon that was killed before it could keep the answer, or before its client had it,
 * makes nothing twice: the same request again has call.again set, and the handler answers with what
 * is there by that id, or makes it if nothing is.
 */
#pragma once

#include "daemon/routes.h"

struct idem;

int idem_new(struct store *st, struct idem **ret, struct err *e);   /* store is borrowed */
void idem_free(struct idem *i);

bool idem_key_valid(const char *key);   /* 1..LIMIT_IDEMPOTENCY_KEY printable bytes, no space */
/* Runs the handler, or answers for it. Connection's thread; may block as long as the other request
 * does, up to DEADLINE_CREATE. */
int idem_run(struct idem *i, struct call *c, route_fn handler, struct err *e);
