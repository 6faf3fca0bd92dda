/* SPDX-License-Identifier: MIT
 *
 * store: SQLite, the only truth. Nobody else includes sqlite3.h. One connection behind one leaf
 * lock; statements are prepared once; values are always bound; transactions are short. Schema steps
 * are daemon/sql/NNNN-name.sql, embedded at build; a database newer than the program is refused.
 * Strings in results are owned by the caller (…_done).
 */
#pragma once

#include "common/err.h"
#include "common/restart.h"
#include "common/strv.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct store;

int store_open(const char *path, struct store **ret, struct err *e);
/* To read only, beside a daemon or without one: nothing is changed or brought up to date, so a
 * database of another version is refused. SQLite may leave an empty log and its index beside it. */
int store_open_look(const char *path, struct store **ret, struct err *e);
void store_close(struct store *st);
/* Sets blocks of the file system aside for the log that SQLite writes first, so that on a full disk
 * a sandbox can still be removed and the end of what runs be noted. To be called now and then, for
 * when there was no room. A file system that cannot do that has no such room. Any thread. */
void store_reserve(struct store *st);
const char *store_library_version(void);

/* What SQLite finds wrong in the file: one line of text to fn for each, none when all is well. */
typedef void (*store_fault_fn)(void *arg, const char *what);
int store_check(struct store *st, store_fault_fn fn, void *arg, struct err *e);
/* A consistent copy of the database `from` in the file `to`, 0600, whole and checked when it is
 * there; whoever writes meanwhile is not held up. What is at `to` is replaced only if force. The
 * copy says that it is one (STORE_COPIED). No other copies are needed beside it: it has no WAL. */
int store_backup(const char *from, const char *to, bool force, struct err *e);

enum vm_state { VM_CREATING, VM_RUNNING, VM_STOPPING, VM_STOPPED, VM_REMOVING, VM_FAILED,
                VM_STATE_MAX };
const char *vm_state_name(enum vm_state s);

struct vm_limits {          /* how long it may run, and what follows its end */
    uint64_t ttl_ms, idle_ms;       /* 0 none */
    struct restart restart;
};

struct vm_row {
    char id[17];
    char *name;
    uid_t uid;              /* owner */
    gid_t gid;
    char *groups;           /* "4,27": supplementary groups at creation */
    enum vm_state state;
    char *reason;           /* NULL or why */
    uint32_t slot;          /* unique small number: QEMU's uid is base + slot */
    char *image_name, *image_digest;
    char *workspace;        /* NULL none */
    bool workspace_ro;
    uint32_t cpus;
    uint64_t memory, disk;
    struct strv env, labels;
    char *machine, *accel;  /* accel NULL before the first start */
    int64_t created_at, started_at, stopped_at;   /* microseconds, 0 never */
    int32_t share_pid;      /* virtiofsd, 0 none */
    uint64_t share_start;
    struct vm_limits limits;/* changed by store_vm_set_limits() */
    int64_t stop_at;        /* when its ttl is up: ms of CLOCK_BOOTTIME; 0 none */
    char stop_boot[37];     /* of the boot with this id */
    uint64_t idle_spent;    /* ms it had been idle; changed by store_vm_set_idle() */
    uint32_t restarts;      /* by its policy, since somebody started it */
    bool retry;             /* it ended by itself and is to start again */
    char *policy;           /* what its rules began with; read only, see store_rules_set() */
};
void vm_row_done(struct vm_row *r);

/* Inserts with a free slot (written to r->slot); ERR_NAME_IN_USE per owner. */
int store_vm_insert(struct store *st, struct vm_row *r, struct err *e);
int store_vm_set_state(struct store *st, const char *id, enum vm_state s, const char *reason,
                       struct err *e);
/* Stores state, reason, accel, times and share fields of *r, stop_at with its boot, restarts and
 * retry. */
int store_vm_update(struct store *st, const struct vm_row *r, struct err *e);
/* Stores limits, stop_at with its boot, and retry of *r. */
int store_vm_set_limits(struct store *st, const struct vm_row *r, struct err *e);
int store_vm_set_idle(struct store *st, const char *id, uint64_t spent_ms, struct err *e);
int store_vm_delete(struct store *st, const char *id, struct err *e);
/* All rows (owned array of n), ordered by creation. */
int store_vm_list(struct store *st, struct vm_row **ret, size_t *ret_n, struct err *e);

struct exec_row {
    char id[17];
    char vm[17];
    uint32_t stream;        /* id on the guest channel */
    struct strv command;
    char *user, *workdir;
    bool tty, stdin_open, detach;
    uint32_t pid;
    int state;              /* 0 running, 1 ended */
    int how;                /* enum exit_how when ended */
    uint32_t value;         /* exit code or signal */
    int64_t created_at, ended_at;
};
void exec_row_done(struct exec_row *r);
int store_exec_insert(struct store *st, const struct exec_row *r, struct err *e);
int store_exec_update(struct store *st, const struct exec_row *r, struct err *e);
int store_exec_delete(struct store *st, const char *id, struct err *e);
int store_exec_list(struct store *st, const char *vm, struct exec_row **ret, size_t *ret_n,
                    struct err *e);

struct image_row {
    char digest[80];
    char *name;             /* NULL when superseded */
    char *variant, *os, *kernel;
    char *recipe;           /* digest of recipe + agent: what --if-missing compares */
    uint64_t size, root_size;
    int64_t created_at;
    uint32_t sandboxes;     /* computed */
};
void image_row_done(struct image_row *r);
/* Inserts and points `name` at it, taking the name from an older image. */
int store_image_insert(struct store *st, const struct image_row *r, struct err *e);
int store_image_list(struct store *st, struct image_row **ret, size_t *ret_n, struct err *e);
int store_image_delete(struct store *st, const char *digest, struct err *e); /* ERR_IMAGE_IN_USE */

struct rule_row {           /* of a sandbox's policy */
    bool allow;
    char *target;           /* canonical: common/policy.h */
    char *source;           /* "preset NAME", "policy NAME", "rules", "user" */
    uid_t uid;              /* who added it */
    int64_t added_at;
    uint64_t matches;
};
void rule_rows_done(struct rule_row *rows, size_t n);   /* frees the array too */
/* All rules of a sandbox anew, and what they began with: whole or not at all. */
int store_rules_set(struct store *st, const char *vm, const char *policy,
                    const struct rule_row *rows, size_t n, struct err *e);
/* In their order. *ret_policy is owned; ERR_SANDBOX_NOT_FOUND. */
int store_rules_list(struct store *st, const char *vm, char **ret_policy, struct rule_row **ret,
                     size_t *ret_n, struct err *e);
/* Adds to the counts of rules; one that is gone meanwhile is passed over. */
struct rule_count { bool allow; const char *target; uint64_t matches; };
int store_rules_count(struct store *st, const char *vm, const struct rule_count *counts, size_t n,
                      struct err *e);

struct policy_row {         /* named, of a user */
    uid_t uid;
    char *name;
    char *rules;            /* text */
    int64_t changed_at;
};
void policy_rows_done(struct policy_row *rows, size_t n);   /* frees the array too */
/* At most LIMIT_POLICIES of one user (ERR_QUOTA). */
int store_policy_put(struct store *st, const struct policy_row *r, struct err *e);
/* name NULL: all of the user's. ERR_POLICY_NOT_FOUND for a name that is not there. */
int store_policy_list(struct store *st, uid_t uid, const char *name, struct policy_row **ret,
                      size_t *ret_n, struct err *e);
int store_policy_delete(struct store *st, uid_t uid, const char *name, struct err *e);

struct event_row {          /* something that happened; events.h */
    uint64_t seq;           /* from 1 on: each is its predecessor's and one, in this database */
    int64_t time;
    char *kind;
    int64_t uid;            /* owner of what it is about; -1: the daemon itself */
    char *sandbox, *name;   /* id and name; NULL none, as the next two */
    char *exec, *detail;
    uint64_t count;         /* that many alike; 1 */
};
void event_row_done(struct event_row *r);
void event_rows_done(struct event_row *rows, size_t n);     /* frees the array too */
/* Appends all of them or none, and gives them the next numbers (r->seq); then `keep` rows stay, and
 * what goes is the oldest of whoever has most (the daemon's own are somebody's, too). Name
 * and owner of a row that has only the sandbox's id are looked up. */
int store_event_add(struct store *st, struct event_row *rows, size_t n, uint64_t keep,
                    struct err *e);
struct event_range {
    uint64_t first, last;   /* rows that are there; none: first is last + 1 */
    char kind[32];          /* of the last one; "" none */
};
/* uid >= 0: from `first` on nothing of that owner is missing. -1: of all rows, with holes behind
 * `first`, where the numbers of those that are there tell them. */
int store_event_range(struct store *st, int64_t uid, struct event_range *ret, struct err *e);
/* The first row that is not before this time; none: the number that the next one will have. */
int store_event_since(struct store *st, int64_t time, uint64_t *ret_seq, struct err *e);
struct event_query {
    uint64_t from;          /* seq */
    int64_t uid;            /* of this owner; -1: any, and none */
    const char *sandbox;    /* id; NULL any */
    bool or_name;           /* `sandbox` may be a name as well */
    int64_t range_of;       /* whose range is told, as by store_event_range() */
    size_t most;
};
struct event_page {
    struct event_row *rows; /* owned, in their order: event_rows_done() */
    size_t n;
    uint64_t next;          /* where to go on, behind all that was looked at */
    struct event_range range;   /* of the same moment */
};
int store_event_list(struct store *st, const struct event_query *q, struct event_page *ret,
                     struct err *e);

/* What the daemon has chosen for itself. *ret owned; NULL: nothing yet. */
int store_choice_get(struct store *st, const char *key, char **ret, struct err *e);
int store_choice_put(struct store *st, const char *key, const char *value, struct err *e);
/* The key that a copy made by store_backup() has: when it was made. "" once the daemon that opened
 * it has settled what is older there than the host. */
#define STORE_COPIED "copied"

/* Idempotency-Key: 1 with the stored answer (owned), 0 unknown. A key is its owner's for 24 h. */
int store_idem_get(struct store *st, uid_t uid, const char *key, char **ret_request_hash,
                   int *ret_status, char **ret_body, struct err *e);
/* Of a user LIMIT_KEYS and LIMIT_KEYS_BYTES stay: the oldest that have an answer go first. */
int store_idem_put(struct store *st, uid_t uid, const char *key, const char *request_hash,
                   int status, const char *body, struct err *e);
/* Takes the key back, unless there is an answer (a status) with it. */
int store_idem_drop(struct store *st, uid_t uid, const char *key, struct err *e);
