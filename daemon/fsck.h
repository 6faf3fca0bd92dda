/* SPDX-License-Identifier: MIT
 *
 * fsck: what the database says of sandboxes against what the host has. Looking and comparing are
 * apart: fsck_look() gathers a struct world and touches nothing, fsck_compare() is a function of it
 * alone, by a table. Repair is the start of a daemon (daemon_settle()); nothing is repaired here.
 *
 * libvirt's embedded driver is never opened: a second one would take the first one's guests for its
 * own. The status files it keeps, and the processes, say what runs. A system's libvirtd is asked.
 *
 * Beside a daemon, things change while they are looked at. What exists is read first and the rows
 * last, since a row is there before its things come and after they have gone; what is under way is
 * no finding; and a caller looks twice (findings_keep_common()). One thread.
 */
#pragma once

#include "common/limits.h"
#include "daemon/config.h"
#include "daemon/store.h"

/* What a sandbox can have. */
enum thing_kind {
    TH_DOMAIN,          /* libvirt's status of sbx-<id> */
    TH_QEMU,            /* process; number: its uid */
    TH_SHARE,           /* virtiofsd, process; number: pid */
    TH_TAP,             /* id: as much of it as the name has */
    TH_CHAIN,           /* of the packet filter, box-<id> */
    TH_TAP_CHAIN,       /* of the packet filter, at the tap; id as of the tap */
    TH_STATE,           /* directory below state_dir */
    TH_DISK,
    TH_HALF_DISK,       /* under the name of one that is being made */
    TH_RUNTIME,         /* directory below runtime_dir */
    TH_RING,            /* output of a command; name: the exec */
    TH_KEPT,            /* in lost+found; name: the directory */
    TH_IMAGE,           /* directory of an image; name: its digest */
    TH_MAX
};

struct thing {
    enum thing_kind kind;
    char id[LIMIT_ID + 1];
    char name[80];
    uint32_t number;
    bool networked;             /* TH_QEMU */
};

struct world {
    bool daemon;                /* one runs: what is under way is no fault */
    bool network;               /* of the configuration */
    uint32_t uid_base;
    struct thing *things;       /* owned, as all below */
    size_t n_things, cap_things;
    struct vm_row *rows;
    size_t n_rows;
    struct exec_row *execs;
    size_t n_execs;
    struct image_row *images;
    size_t n_images;
    struct strv faults;         /* of the database, in SQLite's words */
    bool failed;                /* out of memory on the way */
};
void world_done(struct world *w);
/* A thing more; a failure sticks and fsck_compare() reports it. */
struct thing *world_add(struct world *w, enum thing_kind kind, const char *id);

struct finding {
    bool note;                  /* worth knowing, nothing to repair: clean all the same */
    char kind[24];              /* "tap-stray", "disk-missing", …: docs/RELIABILITY.md */
    char id[LIMIT_ID + 1];      /* "" of no sandbox */
    char name[LIMIT_NAME + 1];  /* of the sandbox; "" no row */
    char what[200];
    char repair[160];           /* what a repair does; "" it does nothing: an administrator must */
};
struct findings {
    struct finding *list;       /* owned */
    size_t n, cap;
};
void findings_done(struct findings *f);
bool findings_has(const struct findings *f, const struct finding *x);
/* Of those in f, the ones that are in `again` too. */
void findings_keep_common(struct findings *f, const struct findings *again);
size_t findings_count(const struct findings *f);    /* without notes */

/* Whether a daemon holds the lock of this state_dir. */
int fsck_daemon_runs(const struct config *c, bool *ret, struct err *e);
int fsck_look(const struct config *c, struct world *ret, struct err *e);
int fsck_compare(const struct world *w, struct findings *ret, struct err *e);
