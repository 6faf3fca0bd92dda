/* SPDX-License-Identifier: MIT
 *
 * quota: what each user has of the daemon, and how much he may have.
 *
 * What is had is counted per uid, and paid for by a charge: an object that stands for amounts of
 * one or several quotas. It is given whole or not at all, whoever else asks at the same time, and
 * goes back with what it paid for. A charge belongs to what was paid (a sandbox, an exec, a
 * connection, a request): who may change that may change its charge. No charge is written down: a
 * new daemon charges again for what the rows say is there, by quota_count(), which never refuses,
 * so that a limit lowered meanwhile takes away nothing that somebody has.
 *
 * Sandboxes, their disk, CPUs, memory and execs are their owner's, whoever uses them; connections,
 * requests, and memory that holds answers until they are taken (call_hold()) are the caller's.
 * Limits come from `quota` of daemon.json, for each key by itself: a user's entry, else the most
 * generous one of his groups, else the default. What a sandbox uses is measured by the groups its
 * owner had when he created it, as its workspace is opened.
 *
 * Uid 0 is counted, and limited only by an entry of its own.
 *
 * Any thread. One lock, a leaf, never held over anything but arithmetic. In all functions q may be
 * NULL: then nothing is counted.
 */
#pragma once

#include "common/err.h"
#include "common/jfield.h"

#include <stdint.h>
#include <sys/types.h>

struct identity;

/*   constant             key                 bytes */
#define QUOTA_TABLE(X)                              \
    X(QUOTA_SANDBOXES,    "sandboxes",        false) \
    X(QUOTA_CPUS,         "cpus",             false) \
    X(QUOTA_MEMORY,       "memory",           true)  \
    X(QUOTA_DISK,         "disk",             true)  \
    X(QUOTA_EXECS,        "execs",            false) \
    X(QUOTA_CONNECTIONS,  "connections",      false) \
    X(QUOTA_REQUESTS,     "requests",         false) \
    X(QUOTA_REPLIES,      "replies",          true)

enum quota_what {
#define QUOTA_ENUM(constant, key, bytes) constant,
    QUOTA_TABLE(QUOTA_ENUM)
#undef QUOTA_ENUM
    QUOTA_MAX
};

/* Sets of them. */
#define QUOTA_ALL ((1u << QUOTA_MAX) - 1)
#define QUOTA_STORED (1u << QUOTA_SANDBOXES | 1u << QUOTA_DISK)     /* as long as it exists */
#define QUOTA_RUNNING (1u << QUOTA_CPUS | 1u << QUOTA_MEMORY)       /* while it starts or runs */

const char *quota_key(enum quota_what w);
bool quota_is_bytes(enum quota_what w);

/* ---- configuration ---- */

#define QUOTA_UNLIMITED JSON_UNLIMITED
#define QUOTA_UNSET (UINT64_MAX - 1)    /* not said here: the next one counts */
#define QUOTA_ENTRIES 1000              /* users, and as many groups */

struct quota_entry {
    char *name;                         /* user or group, by name or number; NULL: the default */
    uint64_t limit[QUOTA_MAX];
};
struct quota_config {                   /* `quota` of daemon.json */
    struct quota_entry fallback;        /* "default" */
    struct jlist users, groups;         /* struct quota_entry */
};
extern const struct jfield quota_config_table[];

/* Fills what the default leaves unset: quota_config.c says with what, and why. */
struct quota_host { uint32_t cpus; uint64_t memory, default_memory, default_disk; };
void quota_defaults(struct quota_config *c, const struct quota_host *host);

/* ---- accounts ---- */

struct quota;

/* Looks users and groups up; ERR_INVALID names the key of one that is not there or is there twice.
 * The configuration is copied. */
int quota_new(const struct quota_config *c, struct quota **ret, struct err *e);
void quota_free(struct quota *q);       /* after all charges are gone; NULL is fine */

struct quota_use { uint64_t n[QUOTA_MAX]; };

struct quota_charge {                   /* zeroes: of nothing */
    struct quota *quota;                /* borrowed */
    uid_t uid;
    struct quota_use use;
};

/* Adds all of `use` to the charge (which is empty, or the same user's), or nothing: ERR_QUOTA with
 * e->quota, message and hint. */
int quota_take(struct quota *q, const struct identity *who, const struct quota_use *use,
               struct quota_charge *c, struct err *e);
/* The same without asking for limits, for what is there already. Fails for want of memory only. */
int quota_count(struct quota *q, uid_t uid, const struct quota_use *use, struct quota_charge *c,
                struct err *e);
/* Of something that all share `total` of, after one more was taken: false when there are too many,
 * or when of the last quarter somebody would take who has more than would be left. So whoever has
 * few finds room, whatever a limit lets others have. Uid 0 is held to the total only. */
bool quota_fair(struct quota *q, const struct identity *who, enum quota_what w, uint64_t total);
/* Moves all that `from` has into c, which is empty, or the same user's. */
void quota_join(struct quota_charge *c, struct quota_charge *from);
/* Gives back what the charge has of these quotas. */
void quota_drop(struct quota_charge *c, unsigned parts);

struct quota_state {
    uint64_t used, limit;
    const char *source;                 /* borrowed: "default", "users.alice", "groups.ci" */
};
void quota_look(struct quota *q, const struct identity *who, struct quota_state ret[QUOTA_MAX]);
