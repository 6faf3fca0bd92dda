/* SPDX-License-Identifier: MIT
 *
 * daemon: owns every part of the running process, and knows in which order they start and stop.
 * Handlers find the parts here; all are constant while requests are served.
 */
#pragma once

#include "common/err.h"
#include "daemon/config.h"
#include "daemon/store.h"

#include <stdint.h>

struct audit;
struct egress;
struct events;
struct evloop;
struct http;
struct idem;
struct meter;
struct quota;
struct vms;
struct worker;

struct daemon {
    struct config config;       /* owned */
    int lock_fd;                /* owned: state_dir/lock */
    int listen_fd, readonly_fd; /* owned; the second may be -1 */
    bool socket_passed, readonly_passed;    /* by the service manager: not ours to remove */
    gid_t admin_gid;            /* PEER_NO_GROUP: none */
    struct store *store;        /* owned, as all below, in the order of their start */
    struct audit *audit;        /* NULL: it is off */
    struct idem *idem;
    struct quota *quota;
    struct events *events;
    struct meter *meter;
    struct evloop *loop;
    struct worker *worker;
    struct egress *egress;
    struct vms *vms;
    bool settled;               /* vms is whole, and knows what runs */
    struct http *http;
    struct http *readonly;      /* NULL: no such socket */
    int64_t started_at;         /* microseconds since the epoch */
};

/* Takes the configuration over (cleared). Before there is a second thread: directories, the lock on
 * the state directory (one daemon each), mounts. */
int daemon_claim(struct daemon *d, struct config *config, struct err *e);
/* The same, and the sockets: those that were passed, else those of the configuration. */
struct notify_fds;
int daemon_prepare(struct daemon *d, struct config *config, const struct notify_fds *passed,
                   struct err *e);
/* After either: opens the database, starts threads, connects libvirt, finds its sandboxes again and
 * repairs what is not in order. All but serving: `sandboxd fsck --repair` stops here, and with
 * `serves` false the audit log says so. */
int daemon_settle(struct daemon *d, bool serves, struct err *e);
/* The same, and serves. */
int daemon_start(struct daemon *d, struct err *e);
/* Now and then, on the thread that waits for signals. */
void daemon_tick(struct daemon *d);
/* The reverse, in bounded time, from any point the functions above came to. False:
 * some request did not end; nothing was freed, and the process has to leave by _exit(): the next
 * start repairs what was under way. Running sandboxes go on. */
bool daemon_stop(struct daemon *d);
