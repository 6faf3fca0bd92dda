/* SPDX-License-Identifier: MIT
 *
 * exec_priv: inside of the exec module.
 *
 *     exec.c         the table: life, lookup, requests, the timer
 *     exec_start.c   starting a command
 *     exec_guest.c   what the guest says (event thread)
 *     exec_attach.c  readers, credit, input, waiting
 *     exec_store.c   rows and files: loading, the worker's job, what is kept
 *
 * `_locked` means: the table's lock is held. agent_send() is called with it held only with a
 * deadline that has passed (it then never waits); what did not get through the timer repeats.
 */
#pragma once

#include "common/limits.h"
#include "common/log.h"
#include "daemon/events.h"
#include "daemon/exec.h"
#include "daemon/ring.h"
#include <pthread.h>

#define EXEC_RETRY_MS 25          /* the guest's queue was full */
#define EXEC_STORE_RETRY_MS 5000
#define EXEC_GAPS_MAX 16          /* requests to send again without one byte of progress */
#define EXEC_CREDIT_STEP (LIMIT_WINDOW / 4)

enum exec_phase {
    EXEC_STARTING,      /* given to the guest, or about to be */
    EXEC_RUNNING,
    EXEC_EXITED,        /* exit known, output still coming */
    EXEC_ENDED,
};

struct exec_out {               /* one output stream */
    struct ring *ring;          /* owned; NULL when its file could not be opened */
    uint64_t end;               /* ring_end(), kept here for use under the table's lock */
    uint64_t credit;            /* what the guest has been told */
    uint64_t total;             /* with the exit: where it ends */
    bool credit_again;          /* tell it even if it is not news */
};

struct exec_reader {
    struct exec *exec;          /* ref */
    struct exec_reader *next;   /* in exec->readers */
    int notify_fd;              /* owned */
    uint64_t offset[2];
    int turn;                   /* stream to look at first */
    bool stdin_waits;           /* exec_stdin() took less than it was given */
};

struct exec {
    struct exec_table *table;   /* every reference given out holds one on the table too */
    unsigned refs;              /* atomic */
    struct exec_row row;        /* detach, pid, state, how, value, ended_at change: table's lock */

    /* table's lock */
    pthread_cond_t changed;
    enum exec_phase phase;
    bool listed;                /* in the table */
    struct quota_charge charge; /* until it has ended */
    bool awaits_word;           /* loaded from its row: the guest has not spoken of it yet */
    bool sent;                  /* all parts of EXEC are under way */
    bool abandoned;             /* exec_start() has given up on it */
    bool named;                 /* in this round of SESSION frames */
    struct err failed;          /* why it did not start; code ERR_NONE otherwise */
    struct exec_out out[2];
    bool resume_wanted;
    unsigned gaps;
    bool broken;                /* its output cannot be kept: what still comes is dropped */
    int64_t stall_at;           /* phase EXITED: give up on what does not come, monotonic ms */
    int64_t attach_by;          /* 0: somebody came, or nobody has to */
    bool held;                  /* nobody came yet: credit counts from hold_at */
    uint64_t hold_at[2];
    struct exec_reader *readers;
    uint64_t in_sent, in_credit;
    bool in_eof, in_lost, in_busy, in_again;
    bool end_wanted, end_sent;
    uint32_t end_grace;
    uint64_t timeout_ms;        /* for the guest to keep; 0 none, or we do not know any more */
    int64_t end_by;             /* the guest should have said EXIT; 0: nothing was asked */
    bool dirty;                 /* differs from its row */
    bool stored;                /* its end is in its row */
    bool forgotten;             /* the guest was told to forget it */
    unsigned version;           /* counts changes of the row's fields */
};

struct exec_table {
    unsigned refs;              /* atomic */
    struct exec_deps deps;      /* borrowed */
    struct exec_hooks hooks;
    char sandbox[LIMIT_ID + 1];
    char job[LIMIT_ID + 1];     /* names this table's job to the worker */
    int dir_fd;                 /* owned */

    pthread_mutex_t lock;
    struct agent *agent;        /* ref; NULL when the guest is gone */
    bool in_step;               /* the agent is synced */
    bool closed;
    bool released;
    struct exec **execs;        /* refs; by stream id */
    size_t n, cap;
    uint32_t running;
    uint32_t next_stream;
    struct evsource *timer;
    int64_t timer_at;           /* 0: not armed */
    int64_t store_again;        /* 0: no failure to repeat */
    bool posted;                /* the worker has our job */
    struct log_rate rate;
};

/* What one exec costs its owner. */
static const struct quota_use exec_use = { .n = { [QUOTA_EXECS] = 1 } };

/* exec.c */
struct exec *exec_ref(struct exec *x);          /* one to give out; exec_unref() */
void exec_hold(struct exec *x);                 /* one of our own, while the table is held anyhow */
void exec_drop(struct exec *x);
struct exec *exec_new(struct exec_table *t, struct err *e);
int exec_list_add_locked(struct exec_table *t, struct exec *x, struct err *e);
void exec_list_remove_locked(struct exec_table *t, struct exec *x);
struct exec *exec_by_stream_locked(struct exec_table *t, uint32_t stream);
void exec_arm_locked(struct exec_table *t, int64_t ms);
/* Sends without waiting; false when it did not get through. */
bool exec_send_locked(struct exec_table *t, enum frame_type type, uint8_t fd, uint32_t stream,
                      const void *payload, size_t len);
/* Asks the guest to end it. If it does not say within EXEC_END_STALL_MS that it has, the exec is
 * lost. */
void exec_want_end_locked(struct exec *x, uint32_t grace_ms);
/* It runs: its timeout begins. */
void exec_running_locked(struct exec *x);
void exec_push_end_locked(struct exec *x);
void exec_push_forget_locked(struct exec *x);
void exec_push_resume_locked(struct exec *x);
/* The end is known and complete: wakes everybody, has it stored. */
void exec_finish_locked(struct exec *x, enum exit_how how, uint32_t value);
/* Phase EXITED: finishes when all the output is here, or cannot come. */
void exec_settle_locked(struct exec *x);

/* exec_attach.c */
void exec_credit_locked(struct exec *x);
void exec_notify_locked(struct exec *x);

/* exec_store.c */
int exec_load(struct exec_table *t, struct err *e);
int exec_open_rings(struct exec *x, struct err *e);
/* Ended, stored and read by nobody: its files need not stay open. */
void exec_park_locked(struct exec *x);
void exec_remove_rings(struct exec_table *t, const char *id);
void exec_post_locked(struct exec_table *t);
