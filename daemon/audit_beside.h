/* SPDX-License-Identifier: MIT
 *
 * audit_beside: records of commands that root runs beside the daemon or without one (`sandboxd
 * image build`). The daemon alone writes the chain, as it knows its last hash; so these wait in
 * <dir>/audit.queue until it takes them, within seconds or at its next start. A record that waits
 * is in no chain yet.
 *
 * The queue's lock (flock) is held for the writing of one line, or for the taking of all; the
 * daemon does not wait for it, a command for 5 seconds.
 */
#pragma once

#include "common/limits.h"
#include "daemon/audit.h"
#include "daemon/audit_peer.h"

#define AUDIT_QUEUE_MAX (256 * KIB)     /* a full one refuses: something keeps the daemon from it */

/* By the command; on the disk when it returns. ERR_NO_SPACE, or ERR_UNAVAILABLE with the cause. The
 * record's `waited` is filled in. */
int audit_beside_add(const char *dir, struct api_audit_record *r, struct err *e);
/* By the daemon, one thread: what waits goes to the log. Nothing is lost by a crash in between;
 * what was taken and not yet removed is recorded twice then, with the same `request`. What is no
 * record is left out, and the daemon's log says so. */
int audit_beside_take(struct audit *a, const char *dir, struct err *e);

/* Of this process; *ret borrows from *names. SUDO_UID counts where we are root, as a hint. */
struct audit_self {
    char user[LIMIT_USER * 2 + 1], sudo[LIMIT_USER * 2 + 1];
    struct audit_peer peer;
};
void audit_beside_self(struct audit_self *names, struct api_audit_who *ret);
