/* SPDX-License-Identifier: MIT
 *
 * What the guest says about execs; all on the event thread. Nothing here waits, allocates by the
 * guest's word, or believes it: a stream id is looked up, a payload read by a cursor and checked
 * against what we know, and what does not fit is dropped, counted and at most harms its own exec.
 *
 * After a handshake (a new daemon, or the ends lost each other) the guest names its sessions; each
 * is matched with ours: both know it: go on from the ends of the rings; only the guest: end it;
 * only we: it is lost. What it sent to nobody in between it sends again (RESUME); output that
 * overlaps what we have is skipped by the ring, output that does not join on is asked for again.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/exec_priv.h"
#include "daemon/fault.h"
#include <string.h>

static void complain(struct exec_table *t, const struct exec *x, const char *what)
{
    if (log_rate_ok(&t->rate, 5, 60000))
        log_warn(LOG_CTX(.sandbox = t->sandbox, .exec = x ? x->row.id : NULL),
                 "the guest %s, ignoring", what);
}

static bool take_started(struct exec *x, struct wire_in *w)
{
    uint32_t pid = wire_get_u32(w);
    if (w->bad || x->phase != EXEC_STARTING || x->failed.code != ERR_NONE)
        return false;
    exec_running_locked(x);
    x->row.pid = pid;
    x->version++;
    x->dirty = true;
    exec_post_locked(x->table);
    exec_push_end_locked(x);
    pthread_cond_broadcast(&x->changed);
    return true;
}

static bool take_failed(struct exec *x, struct wire_in *w)
{
    uint32_t sys = wire_get_u32(w);
    uint8_t kind = wire_get_u8(w);
    uint32_t len = 0;
    const char *text = wire_get_str(w, 256, &len);
    if (w->bad || x->phase != EXEC_STARTING || x->failed.code != ERR_NONE)
        return false;
    int no = sys > 0 && sys < 4096 ? (int)sys : 0;
    int n = (int)len;
    const char *program = x->row.command.items[0];
    struct err *e = &x->failed;
    switch (kind) {
    case EXEC_FAIL_NOT_FOUND:
        err_set(e, ERR_COMMAND_NOT_FOUND, "%s: command not found", program);
        err_hint(e, "look at PATH in the sandbox, or install it there");
        break;
    case EXEC_FAIL_NOT_EXEC:
        err_sys(e, ERR_COMMAND_NOT_EXEC, no, "%s", program);
        err_hint(e, "is it a program, and has it the x bit?");
        break;
    case EXEC_FAIL_WORKDIR:
        err_sys(e, ERR_INVALID, no, "working directory '%s'",
                x->row.workdir && x->row.workdir[0] ? x->row.workdir : "/workspace");
        err_hint(e, "it has to exist in the sandbox and be open to the user");
        break;
    case EXEC_FAIL_USER:
        err_set(e, ERR_INVALID, "there is no user '%s' in the sandbox",
                x->row.user && x->row.user[0] ? x->row.user : "agent");
        break;
    default:
        err_set(e, ERR_GUEST, "the guest could not start the command: %.*s", n, text ? text : "");
        break;
    }
    pthread_cond_broadcast(&x->changed);
    if (x->abandoned)
        exec_finish_locked(x, EXIT_LOST, 0);
    return true;
}

/* Asks for the output from the ring's end on; gives up on a guest that cannot deliver it. */
static void ask_again_locked(struct exec *x)
{
    if (++x->gaps <= EXEC_GAPS_MAX) {
        /* one request for all that is on its way already: the timer sends it */
        x->resume_wanted = true;
        exec_arm_locked(x->table, EXEC_RETRY_MS);
        return;
    }
    complain(x->table, x, "sends output that does not join on");
    x->broken = true;
    exec_want_end_locked(x, 0);
    exec_settle_locked(x);
}

/* The ring is written without the table's lock; only this thread writes rings. */
static bool take_data(struct exec *x, struct wire_in *w, uint8_t fd)
{
    struct exec_table *t = x->table;
    uint64_t offset = wire_get_u64(w);
    if (w->bad || (fd != 1 && fd != 2) || x->broken || !x->out[fd - 1].ring ||
        x->phase == EXEC_ENDED || x->phase == EXEC_STARTING)
        return false;
    struct exec_out *o = &x->out[fd - 1];
    size_t len = w->left;
    if (offset > o->credit || len > o->credit - offset) {
        complain(t, x, "sends more than it may");
        ask_again_locked(x);
        return false;
    }
    if (offset > o->end) {
        if (!x->resume_wanted)
            ask_again_locked(x);
        return true;
    }
    /* Behind the end that its exit named there is nothing. */
    if (x->phase == EXEC_EXITED && offset + len > o->total)
        len = offset < o->total ? (size_t)(o->total - offset) : 0;
    if (offset + len <= o->end)
        return true; /* known already: it was asked for twice */
    exec_hold(x);
    pthread_mutex_unlock(&t->lock);
    struct err e = ERR_INIT;
    int rc = fault_at(FAULT_EXEC_OUTPUT, &e) < 0
                 ? -1 : ring_write(o->ring, offset, w->p, len, &e);
    if (rc == 0)
        fault_here(FAULT_EXEC_CREDIT);
    pthread_mutex_lock(&t->lock);
    if (rc < 0) {
        if (log_rate_ok(&t->rate, 5, 60000))
            log_warn(LOG_CTX(.sandbox = t->sandbox, .exec = x->row.id, .error = &e),
                     "output cannot be kept, the command is ended");
        x->broken = true;
        exec_want_end_locked(x, 0);
        exec_settle_locked(x);
    } else {
        o->end = offset + len;
        x->gaps = 0;
        x->stall_at = now_mono_ms() + x->table->deps.stall_ms;
        exec_credit_locked(x);
        exec_notify_locked(x);
        exec_settle_locked(x);
    }
    exec_drop(x);
    return true;
}

static bool take_credit(struct exec *x, struct wire_in *w, uint8_t fd)
{
    uint64_t credit = wire_get_u64(w);
    if (w->bad || fd != 0 || credit <= x->in_credit)
        return false;
    x->in_credit = credit;
    exec_notify_locked(x);
    return true;
}

static bool take_exit(struct exec *x, struct wire_in *w)
{
    uint8_t how = wire_get_u8(w);
    uint32_t value = wire_get_u32(w);
    uint64_t out_end = wire_get_u64(w), err_end = wire_get_u64(w);
    if (w->bad || how > EXIT_LOST)
        return false;
    if (x->phase == EXEC_ENDED) {
        x->forgotten = false; /* it has not heard that we know */
        exec_push_forget_locked(x);
        return false;
    }
    if (x->phase == EXEC_EXITED)
        return false; /* the first word counts */
    x->phase = EXEC_EXITED;
    x->row.how = how;
    x->row.value = value;
    x->out[0].total = out_end;
    x->out[1].total = err_end;
    x->stall_at = now_mono_ms() + x->table->deps.stall_ms;
    exec_settle_locked(x);
    if (x->phase != EXEC_ENDED)
        exec_arm_locked(x->table, x->table->deps.stall_ms);
    pthread_cond_broadcast(&x->changed);
    return true;
}

static bool take_session(struct exec_table *t, struct exec *x, const struct frame *f)
{
    struct wire_in w = { .p = f->payload, .left = f->len };
    uint8_t state = wire_get_u8(&w);
    (void)wire_get_u64(&w); /* the ends it has produced: RESUME finds out */
    (void)wire_get_u64(&w);
    uint64_t in = wire_get_u64(&w);
    if (w.bad || state > 1)
        return false;
    if (!x) {
        /* started by a daemon that did not live to write it down, or forgotten by us already */
        uint8_t grace[4] = { 0 };
        if (state == 0)
            exec_send_locked(t, FRAME_END, 0, f->stream, grace, sizeof(grace));
        else
            exec_send_locked(t, FRAME_FORGET, 0, f->stream, NULL, 0);
        if (f->stream >= t->next_stream && f->stream < UINT32_MAX)
            t->next_stream = f->stream + 1;
        return true;
    }
    x->named = true;
    if (x->phase == EXEC_STARTING && x->sent)
        exec_running_locked(x); /* its STARTED got lost */
    if (x->awaits_word)
        x->in_sent = in;
    else if (in < x->in_sent) {
        x->in_sent = in;
        x->in_lost = true;
    }
    x->awaits_word = false;
    x->in_credit = x->in_credit > in ? x->in_credit : in;
    pthread_cond_broadcast(&x->changed);
    if (state == 1)
        return take_exit(x, &w);
    return true;
}

static bool guest_frame(void *arg, const struct frame *f)
{
    struct exec_table *t = arg;
    struct wire_in w = { .p = f->payload, .left = f->len };
    bool sense = false;
    pthread_mutex_lock(&t->lock);
    struct exec *x = exec_by_stream_locked(t, f->stream);
    if (t->closed || t->released) {
        sense = true;
    } else if (f->type == FRAME_HELLO) {
        t->in_step = false;
        for (size_t i = 0; i < t->n; i++)
            t->execs[i]->named = false;
        sense = true;
    } else if (f->type == FRAME_SESSION) {
        sense = take_session(t, x, f);
    } else if (!x) {
        /* what nobody waits for has to end and be forgotten there */
        static const uint8_t grace[4];
        if (f->type == FRAME_EXIT)
            exec_send_locked(t, FRAME_FORGET, 0, f->stream, NULL, 0);
        else if (f->type == FRAME_STARTED)
            exec_send_locked(t, FRAME_END, 0, f->stream, grace, sizeof(grace));
    } else if (f->type == FRAME_STARTED) {
        sense = take_started(x, &w);
    } else if (f->type == FRAME_FAILED) {
        sense = take_failed(x, &w);
    } else if (f->type == FRAME_DATA) {
        sense = take_data(x, &w, f->fd);
    } else if (f->type == FRAME_CREDIT) {
        sense = take_credit(x, &w, f->fd);
    } else if (f->type == FRAME_EXIT) {
        sense = take_exit(x, &w);
    } else if (f->type == FRAME_EOF) {
        sense = true; /* the exit says the same, for both streams */
    }
    pthread_mutex_unlock(&t->lock);
    return sense;
}

static void go_on_locked(struct exec *x)
{
    uint8_t at[8];
    struct wire_out w = { .p = at, .cap = sizeof(at) };
    x->gaps = 0;
    x->resume_wanted = true;
    exec_push_resume_locked(x);
    x->out[0].credit_again = x->out[1].credit_again = true;
    exec_credit_locked(x);
    exec_push_end_locked(x);
    wire_put_u64(&w, x->in_sent);
    if (x->in_eof)
        exec_send_locked(x->table, FRAME_EOF, 0, x->row.stream, at, w.len);
    exec_notify_locked(x);
}

static void guest_synced(void *arg)
{
    struct exec_table *t = arg;
    pthread_mutex_lock(&t->lock);
    t->in_step = !t->closed && !t->released;
    for (size_t i = 0; t->in_step && i < t->n; i++) {
        struct exec *x = t->execs[i];
        x->end_sent = false;
        if (x->phase == EXEC_ENDED) {
            if (x->named)
                x->forgotten = false;
            exec_push_forget_locked(x);
        } else if (!x->named && (x->phase != EXEC_STARTING || x->sent)) {
            if (x->phase == EXEC_STARTING && !x->abandoned)
                err_set(&x->failed, ERR_GUEST, "the guest lost the command before it began");
            else if (x->phase == EXEC_EXITED)
                exec_finish_locked(x, (enum exit_how)x->row.how, x->row.value);
            else
                exec_finish_locked(x, EXIT_LOST, 0);
            pthread_cond_broadcast(&x->changed);
        } else if (x->named) {
            go_on_locked(x);
        }
    }
    pthread_mutex_unlock(&t->lock);
}

static void guest_closed(void *arg)
{
    struct exec_table *t = arg;
    exec_table_close(t);
    if (t->hooks.closed)
        t->hooks.closed(t->hooks.arg);
}

static void guest_log(void *arg, int level, const char *text, size_t len)
{
    struct exec_table *t = arg;
    if (t->hooks.log)
        t->hooks.log(t->hooks.arg, level, text, len);
}

static void guest_opened(void *arg, struct agent *a)
{
    exec_table_set_agent(arg, a);
}

const struct agent_ops exec_agent_ops = {
    .opened = guest_opened,
    .frame = guest_frame,
    .synced = guest_synced,
    .closed = guest_closed,
    .log = guest_log,
};
