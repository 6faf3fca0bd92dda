/* SPDX-License-Identifier: MIT
 *
 * Starting a command. The order is what makes a crash harmless: row and rings exist before the
 * guest hears of the exec, so whatever it then says is about something known, also to the next
 * daemon; a row whose exec the guest never heard of is "lost" at the next handshake.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "daemon/exec_priv.h"
#include "daemon/fault.h"
#include <stdlib.h>
#include <string.h>

#define EXEC_PART (LIMIT_FRAME - 1)

static int encode(const struct api_exec_req *req, uint8_t **ret, size_t *ret_len, struct err *e)
{
    static const char *const none[] = { NULL };
    if (req->command.n == 0 || req->command.items[0][0] == '\0')
        return err_set(e, ERR_FIELD_INVALID, "command: the name of the program is empty");
    if (req->rows > UINT16_MAX || req->cols > UINT16_MAX)
        return err_set(e, ERR_FIELD_INVALID, "rows, cols: at most %u", UINT16_MAX);
    struct exec_wire wire = {
        .argv = (const char *const *)req->command.items,
        .env = req->env.items ? (const char *const *)req->env.items : none,
        .workdir = req->workdir ? req->workdir : "",
        .user = req->user ? req->user : "",
        .tty = req->tty,
        .stdin_open = req->stdin,
        .rows = (uint16_t)req->rows,
        .cols = (uint16_t)req->cols,
        .timeout_ms = req->timeout_ms,
        .credit = LIMIT_WINDOW,
    };
    autofree uint8_t *buf = malloc(LIMIT_EXEC_BYTES);
    if (!buf)
        return err_nomem(e);
    if (exec_wire_encode(&wire, buf, LIMIT_EXEC_BYTES, ret_len, e) < 0)
        return -1;
    *ret = take_ptr(buf);
    return 0;
}

/* What is shown of the command line later: kept for every exec there is, so it is bounded. */
static int keep_command(struct strv *dst, const struct strv *command, struct err *e)
{
    size_t left = EXEC_COMMAND_KEPT;
    for (size_t i = 0; i < command->n; i++) {
        size_t len = strlen(command->items[i]) + 1;
        if (len > left) {
            /* not in the middle of a character */
            while (left > 0 && ((unsigned char)command->items[i][left] & 0xc0) == 0x80)
                left--;
            return strv_addf(dst, e, "%.*s...", (int)left, command->items[i]);
        }
        if (strv_add(dst, command->items[i], e) < 0)
            return -1;
        left -= len;
    }
    return 0;
}

static int fill_row(struct exec *x, const char *id, const struct api_exec_req *req, struct err *e)
{
    struct exec_row *r = &x->row;
    if (id[0])
        memcpy(r->id, id, sizeof(r->id));
    else if (id_new(r->id, e) < 0)
        return -1;
    if (keep_command(&r->command, &req->command, e) < 0)
        return -1;
    memcpy(r->vm, x->table->sandbox, sizeof(r->vm));
    if (req->user && !(r->user = strdup(req->user)))
        return err_nomem(e);
    if (req->workdir && !(r->workdir = strdup(req->workdir)))
        return err_nomem(e);
    r->tty = req->tty;
    r->stdin_open = req->stdin;
    r->detach = req->detach;
    x->timeout_ms = req->timeout_ms;
    r->created_at = now_real_us();
    x->held = !req->detach;
    x->out[0].credit = x->out[1].credit = LIMIT_WINDOW;
    return 0;
}

/* By the sandbox's own limit: that of its owner is met before. */
static int refuse_full_locked(const struct exec_table *t, struct err *e)
{
    err_set(e, ERR_QUOTA, "%u commands run in this sandbox already", t->running);
    e->quota = (struct err_quota){ .name = "sandbox_execs", .limit = LIMIT_EXECS,
                                   .used = t->running, .requested = 1 };
    return err_hint(e, "`sbx execs %s` lists them: end some, or use another sandbox", t->sandbox);
}

static int refuse_numbers(struct err *e)
{
    err_set(e, ERR_QUOTA, "this sandbox has run as many commands as it can number");
    return err_hint(e, "use another sandbox");
}

/* Takes a stream id and a place among the running. */
static int enlist(struct exec_table *t, struct exec *x, struct agent **ret_agent, struct err *e)
{
    int rc = 0;
    pthread_mutex_lock(&t->lock);
    if (t->closed || t->released || !t->agent)
        rc = err_set(e, ERR_SANDBOX_STATE, "the sandbox is not running");
    else if (t->running >= LIMIT_EXECS)
        rc = refuse_full_locked(t, e);
    else if (t->next_stream == UINT32_MAX)
        rc = refuse_numbers(e);
    else if ((rc = exec_list_add_locked(t, x, e)) == 0) {
        /* readers search the list by id: number and place are given at the same time */
        x->row.stream = t->next_stream++;
        *ret_agent = agent_ref(t->agent);
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

static int send_parts(struct agent *a, const struct exec *x, const uint8_t *buf, size_t len,
                      int64_t deadline, struct err *e)
{
    uint8_t part[LIMIT_FRAME];
    size_t done = 0;
    do {
        size_t n = len - done < EXEC_PART ? len - done : EXEC_PART;
        part[0] = done + n == len;
        memcpy(part + 1, buf + done, n);
        if (agent_send(a, FRAME_EXEC, 0, x->row.stream, part, (uint32_t)(n + 1), deadline, e) < 0)
            return -1;
        done += n;
    } while (done < len);
    return 0;
}

/* Waits for the guest's answer. On failure the exec may still start: it is then ended. */
static int await_start(struct exec *x, int64_t deadline, struct err *e)
{
    struct exec_table *t = x->table;
    struct timespec ts = { .tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000 };
    int rc = 0;
    pthread_mutex_lock(&t->lock);
    x->sent = true;
    while (x->phase == EXEC_STARTING && x->failed.code == ERR_NONE && rc == 0) {
        if (t->closed)
            rc = err_set(e, ERR_SANDBOX_STATE, "the sandbox stopped before the command began");
        else if (t->released)
            rc = err_set(e, ERR_UNAVAILABLE, "the daemon is stopping");
        else if (now_mono_ms() >= deadline)
            rc = err_set(e, ERR_TIMEOUT, "the guest did not answer in time");
        else
            pthread_cond_timedwait(&x->changed, &t->lock, &ts);
    }
    if (rc == 0 && x->failed.code != ERR_NONE) {
        *e = x->failed;
        rc = -1;
    }
    if (rc == 0 && !x->row.detach && x->held) {
        x->attach_by = now_mono_ms() + t->deps.attach_ms;
        exec_arm_locked(t, t->deps.attach_ms);
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

/* Nothing runs and nothing will: no trace is left. */
static void forget(struct exec *x, bool in_store)
{
    struct exec_table *t = x->table;
    struct err e = ERR_INIT;
    pthread_mutex_lock(&t->lock);
    exec_list_remove_locked(t, x);
    pthread_mutex_unlock(&t->lock);
    if (in_store && store_exec_delete(t->deps.store, x->row.id, &e) < 0)
        log_warn(LOG_CTX(.sandbox = t->sandbox, .exec = x->row.id, .error = &e),
                 "cannot remove the row of a command that did not start, ignoring");
    exec_remove_rings(t, x->row.id);
}

/* The guest has it, or a part of it, and has not answered: what may run is ended when it shows. */
static void abandon(struct exec *x)
{
    struct exec_table *t = x->table;
    pthread_mutex_lock(&t->lock);
    x->held = false;
    x->abandoned = true;
    exec_want_end_locked(x, 0);
    if (x->failed.code != ERR_NONE)
        exec_finish_locked(x, EXIT_LOST, 0); /* the answer came at the last moment */
    pthread_mutex_unlock(&t->lock);
}

static int start_listed(struct exec *x, struct agent *a, const uint8_t *buf, size_t len,
                        int64_t deadline, struct err *e)
{
    struct exec_table *t = x->table;
    if (agent_wait_ready(a, deadline, e) < 0 || fault_at(FAULT_EXEC_RINGS, e) < 0 ||
        exec_open_rings(x, e) < 0 || fault_at(FAULT_EXEC_ROW, e) < 0 ||
        store_exec_insert(t->deps.store, &x->row, e) < 0) {
        forget(x, false);
        return -1;
    }
    if (fault_at(FAULT_EXEC_SEND, e) < 0 || send_parts(a, x, buf, len, deadline, e) < 0) {
        abandon(x);
        forget(x, true);
        return -1;
    }
    fault_here(FAULT_EXEC_SENT);
    if (await_start(x, deadline, e) == 0) {
        fault_here(FAULT_EXEC_ANSWER);
        return 0;
    }
    pthread_mutex_lock(&t->lock);
    bool none = x->failed.code != ERR_NONE || t->closed;
    bool stays = t->released; /* the next daemon finds it by its row */
    pthread_mutex_unlock(&t->lock);
    if (none)
        forget(x, true);
    else if (!stays)
        abandon(x);
    return -1;
}

int exec_start(struct exec_table *t, const char *id, const struct api_exec_req *req,
               int64_t deadline, struct exec **ret, struct err *e)
{
    autofree uint8_t *buf = NULL;
    size_t len = 0;
    if (encode(req, &buf, &len, e) < 0)
        return -1;
    struct exec *x = exec_new(t, e);
    if (!x)
        return -1;
    struct agent *a = NULL;
    int rc = fill_row(x, id, req, e);
    if (rc == 0)
        rc = quota_take(t->deps.quota, &t->deps.owner, &exec_use, &x->charge, e);
    if (rc == 0)
        rc = enlist(t, x, &a, e);
    if (rc == 0)
        rc = start_listed(x, a, buf, len, deadline, e);
    agent_unref(a);
    if (rc == 0)
        *ret = exec_ref(x);
    exec_drop(x);
    return rc;
}
