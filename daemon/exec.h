/* SPDX-License-Identifier: MIT
 *
 * exec: commands in a guest. An exec_table belongs to one running sandbox and stands between its
 * agent and the connections that use it: it gives out stream ids, starts execs, keeps their output
 * in rings, hands out credit, and remembers how they ended. Rows are kept in the store, so that a
 * new daemon finds running execs again and goes on from the end of the rings.
 *
 * Flow control: the guest may send up to credit = (slowest attached reader, or the ring's end
 * when nobody is attached) + LIMIT_WINDOW. A slow reader so stops its own exec's stream and no other.
 *
 * Threads: connection threads call; agent_ops callbacks come on the event thread. One mutex per
 * table, a condition per exec; nothing blocks with the mutex held. Execs are shared by reference.
 */
#pragma once

#include "common/api.h"
#include "common/err.h"
#include "daemon/agent.h"
#include "daemon/store.h"

struct exec_table;
struct exec;

/* dir_fd: runtime directory for rings (borrowed, duplicated). Loads rows of `sandbox_id` from the
 * store; those that were running wait for the agent's word on them. */
int exec_table_new(struct store *st, const char *sandbox_id, int dir_fd, struct exec_table **ret,
                   struct err *e);
/* agent_ops of the table, to be given to agent_open with the table as arg. `closed` marks what runs
 * as lost. */
extern const struct agent_ops exec_agent_ops;
/* The agent to send through (a reference is taken); NULL when the guest is gone. */
void exec_table_set_agent(struct exec_table *t, struct agent *a);
/* Ends: running execs become lost, waiters wake; later calls fail with ERR_SANDBOX_STATE. */
void exec_table_close(struct exec_table *t);
struct exec_table *exec_table_ref(struct exec_table *t);
void exec_table_unref(struct exec_table *t);          /* NULL is fine */
uint32_t exec_table_running(struct exec_table *t);

/* Starts and waits for the guest's answer by deadline. ERR_COMMAND_NOT_FOUND,
 * ERR_COMMAND_NOT_EXEC, ERR_INVALID (workdir, user), ERR_QUOTA, ERR_GUEST, ERR_TIMEOUT. */
int exec_start(struct exec_table *t, const struct api_exec_req *req, int64_t deadline,
               struct exec **ret, struct err *e);
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

/* A reader: holds credit back until it has taken the output. `notify_fd` is an eventfd (owned by
 * the reader) that becomes readable when there is more to read, the exec ended, or stdin may be
 * written again. */
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
 * notify_fd), -1 on error. len 0 is end of input. */
int64_t exec_stdin(struct exec_reader *r, const void *data, size_t len, struct err *e);
/* Blocks until the end; returns 1 ended, 0 deadline. */
int exec_wait(struct exec *x, int64_t deadline, struct err *e);
/* Output without attaching: stream fd 1 or 2, from *offset. As ring_read(); ERR_OFFSET_GONE when
 * the offset is beyond the end. */
int64_t exec_output(struct exec *x, int fd, uint64_t *offset, void *buf, size_t cap,
                    uint64_t *ret_lost, struct err *e);
