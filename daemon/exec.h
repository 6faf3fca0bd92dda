/* SPDX-License-Identifier: MIT
 *
 * exec: commands in a guest. An exec_table belongs to one running sandbox and stands between its
 * agent and the connections that use it: it gives out stream ids, starts execs, keeps their output
 * in rings, hands out credit, and remembers how they ended. Rows are kept in the store, so that a
 * new daemon finds running execs again and goes on from the end of the rings.
 *
 * Flow control: the guest may send up to credit = (slowest attached reader, or the ring's end
 * when nobody is attached) + LIMIT_WINDOW. A slow reader so stops its own exec's stream and no
 * other.
 *
 * Before its first reader comes an exec created without `detach` is held as if one were attached at
 * the beginning, so nothing is lost between create and attach; EXEC_ATTACH_MS later it is ended.
 *
 * Threads: connection threads call; agent_ops callbacks come on the event thread; rows are written
 * by the worker (the end of an exec) and by exec_start(). One mutex per table, a condition per
 * exec; nothing blocks with the mutex held. Lock order: table -> ring | agent -> event loop.
 * Callbacks and hooks run with no lock held. Execs are shared by reference.
 *
 * The guest may lie about everything here: data beyond its credit is dropped, offsets must join on,
 * an exit that promises output which never comes ends after EXEC_EXIT_STALL_MS. Each hurts the exec
 * it is about and nothing else.
 */
#pragma once

#include "common/api.h"
#include "common/err.h"
#include "daemon/agent.h"
#include "daemon/evloop.h"
#include "daemon/quota.h"
#include "daemon/store.h"
#include "daemon/worker.h"
#include "daemon/workspace.h"

#define EXEC_ATTACH_MS 30000      /* for the first reader of an exec without detach */
#define EXEC_COMMAND_KEPT 16384   /* bytes of a command line that are remembered */
#define EXEC_EXIT_STALL_MS 30000  /* exit known, output promised and paid for does not come */
#define EXEC_END_STALL_MS 30000   /* told to end, or past its timeout, and no exit comes */

struct events;
struct exec_table;
struct exec;

struct exec_deps {          /* borrowed; must outlive the table */
    struct store *store;
    struct worker *worker;
    struct evloop *loop;    /* the one the agent runs on */
    struct quota *quota;    /* NULL: execs are not counted */
    struct events *events;  /* NULL: nobody is told */
    struct identity owner;  /* who pays for them */
    int attach_ms, stall_ms, end_ms;    /* instead of those above, for tests; 0: those */
};

/* News of the guest that is not about execs. Event thread, no lock held; members may be NULL. */
struct exec_hooks {
    void (*log)(void *arg, int level, const char *text, size_t len);  /* a line for agent.log */
    void (*closed)(void *arg);                                        /* the channel is closed */
    void *arg;
};

/* dir_fd: runtime directory for rings (borrowed, duplicated). Loads rows of `sandbox_id` from the
 * store; those that were running wait for the agent's word on them. hooks is copied, NULL is
 * fine. */
int exec_table_new(const struct exec_deps *deps, const char *sandbox_id, int dir_fd,
                   const struct exec_hooks *hooks, struct exec_table **ret, struct err *e);
/* agent_ops of the table, to be given to agent_open with the table as arg. `closed` marks what runs
 * as lost. Call agent_close() before the last reference to the table goes. */
extern const struct agent_ops exec_agent_ops;
/* The agent to send through (a reference is taken); NULL when the guest is gone. agent_open() does
 * this by itself through the ops. */
void exec_table_set_agent(struct exec_table *t, struct agent *a);
/* Ends: running execs become lost, waiters wake; later calls fail with ERR_SANDBOX_STATE. */
void exec_table_close(struct exec_table *t);
/* The daemon leaves and the guest goes on: waiters wake and fail with ERR_UNAVAILABLE, rows stay as
 * they are for the next daemon. Call agent_close() first. */
void exec_table_release(struct exec_table *t);
struct exec_table *exec_table_ref(struct exec_table *t);
void exec_table_unref(struct exec_table *t);          /* NULL is fine */
uint32_t exec_table_running(struct exec_table *t);

/* Starts and waits for the guest's answer by deadline. Of a command longer than EXEC_COMMAND_KEPT
 * only the beginning is kept to be shown, with "..." after it. ERR_COMMAND_NOT_FOUND,
 * ERR_COMMAND_NOT_EXEC, ERR_INVALID (workdir, user), ERR_QUOTA, ERR_GUEST, ERR_TIMEOUT. id: of no
 * exec yet; "" one is made up. */
int exec_start(struct exec_table *t, const char *id, const struct api_exec_req *req,
               int64_t deadline, struct exec **ret, struct err *e);
/* By id or unique prefix; a reference. */
int exec_find(struct exec_table *t, const char *ref, struct exec **ret, struct err *e);
void exec_unref(struct exec *x);
const char *exec_id(const struct exec *x);
/* Fills *ret (zeroed by the caller, freed by api_exec_table). */
int exec_describe(struct exec *x, struct api_exec *ret, struct err *e);
int exec_list(struct exec_table *t, struct api_exec_list *ret, struct err *e);

int exec_signal(struct exec *x, uint32_t signo, struct err *e);
int exec_resize(struct exec *x, uint16_t rows, uint16_t cols, struct err *e);
/* SIGHUP, then SIGKILL after the grace time: for an abandoned exec. */
void exec_end(struct exec *x);
/* From now on as if created with detach, also for the next daemon: its client left on purpose. */
void exec_keep(struct exec *x);

/* A reader: holds credit back until it has taken the output. `notify_fd` is an eventfd (owned by
 * the reader) that becomes readable when there is more to read, the exec ended, or stdin may be
 * written again after exec_stdin() took less than it was given. exec_read() resets it when it has
 * nothing more to give; callers never read from it themselves. On waking call exec_read() until it
 * returns 0, then exec_stdin() if input is left over. */
struct exec_reader;
int exec_attach(struct exec *x, uint64_t stdout_offset, uint64_t stderr_offset,
                struct exec_reader **ret, struct err *e);
void exec_detach(struct exec_reader *r);              /* NULL is fine */
int exec_reader_fd(const struct exec_reader *r);
/* Next piece of output: fd 1 or 2 in *ret_fd, bytes copied returned; *ret_lost as ring_read().
 * 0: nothing now; then *ret_ended says whether nothing will come (exit known, all read). */
int64_t exec_read(struct exec_reader *r, void *buf, size_t cap, int *ret_fd, uint64_t *ret_lost,
                  bool *ret_ended, struct err *e);
/* Sends as much stdin as the guest's credit allows; returns the bytes taken (0: wait for
 * notify_fd), -1 on error. len 0 is end of input, which waits for
 * room if it has to. Input for an exec that has ended is taken and thrown away, as its end is on
 * the way to the caller anyhow. ERR_EXEC_STATE: it was created without stdin, or its input was
 * ended before. */
int64_t exec_stdin(struct exec_reader *r, const void *data, size_t len, struct err *e);
/* Blocks until the end; returns 1 ended, 0 deadline, -1 ERR_UNAVAILABLE when the daemon leaves. */
int exec_wait(struct exec *x, int64_t deadline, struct err *e);
/* Output without attaching: stream fd 1 or 2, from *offset. As ring_read(); ERR_OFFSET_GONE when
 * the offset is beyond the end. */
int64_t exec_output(struct exec *x, int fd, uint64_t *offset, void *buf, size_t cap,
                    uint64_t *ret_lost, struct err *e);
