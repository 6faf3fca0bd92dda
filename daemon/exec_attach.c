/* SPDX-License-Identifier: MIT
 *
 * Readers, credit, input, waiting.
 *
 * notify_fd is level-like: it is written at every piece of news, and exec_read() empties it, under
 * the table's lock and only after it has seen that there is nothing; news come under the same lock,
 * so none falls in between. Input that waits for credit is looked at in the same place, as both
 * kinds of news share the descriptor.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/exec_priv.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void raise_notify(const struct exec_reader *r)
{
    uint64_t one = 1;
    while (write(r->notify_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void lower_notify(const struct exec_reader *r)
{
    uint64_t count;
    while (read(r->notify_fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

void exec_notify_locked(struct exec *x)
{
    for (struct exec_reader *r = x->readers; r; r = r->next)
        raise_notify(r);
}

static uint64_t oldest(const struct exec_out *o)
{
    return o->end > LIMIT_EXEC_RING ? o->end - LIMIT_EXEC_RING : 0;
}

/* From where the window of stream i counts. */
static uint64_t credit_base_locked(const struct exec *x, int i)
{
    const struct exec_out *o = &x->out[i];
    uint64_t base = o->end;
    if (!x->readers)
        return x->held && x->hold_at[i] < base ? x->hold_at[i] : base;
    for (const struct exec_reader *r = x->readers; r; r = r->next)
        if (r->offset[i] < base)
            base = r->offset[i];
    return base > oldest(o) ? base : oldest(o);
}

void exec_credit_locked(struct exec *x)
{
    if (!x->table->in_step || x->awaits_word ||
        (x->phase != EXEC_RUNNING && x->phase != EXEC_EXITED))
        return;
    for (int i = 0; i < 2; i++) {
        struct exec_out *o = &x->out[i];
        uint64_t allowed = credit_base_locked(x, i) + LIMIT_WINDOW;
        if (allowed < o->credit)
            allowed = o->credit; /* what was given is not taken back */
        if (!o->credit_again && allowed < o->credit + EXEC_CREDIT_STEP)
            continue;
        uint8_t payload[8];
        struct wire_out w = { .p = payload, .cap = sizeof(payload) };
        wire_put_u64(&w, allowed);
        if (exec_send_locked(x->table, FRAME_CREDIT, (uint8_t)(i + 1), x->row.stream, payload,
                             w.len)) {
            o->credit = allowed;
            o->credit_again = false;
        } else {
            exec_arm_locked(x->table, EXEC_RETRY_MS);
        }
    }
}

int exec_attach(struct exec *x, uint64_t stdout_offset, uint64_t stderr_offset,
                struct exec_reader **ret, struct err *e)
{
    struct exec_table *t = x->table;
    autofree struct exec_reader *r = calloc(1, sizeof(*r));
    if (!r)
        return err_nomem(e);
    autoclose int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot attach to exec '%s'", x->row.id);
    int rc = 0;
    pthread_mutex_lock(&t->lock);
    if (stdout_offset > x->out[0].end || stderr_offset > x->out[1].end) {
        rc = err_set(e, ERR_OFFSET_GONE, "exec '%s' has not written that much", x->row.id);
    } else {
        r->exec = exec_ref(x);
        r->notify_fd = take_fd(&fd);
        r->offset[0] = stdout_offset;
        r->offset[1] = stderr_offset;
        r->next = x->readers;
        x->readers = r;
        x->attach_by = 0;
        x->held = false;
        exec_credit_locked(x);
    }
    pthread_mutex_unlock(&t->lock);
    if (rc == 0)
        *ret = take_ptr(r);
    return rc;
}

void exec_detach(struct exec_reader *r)
{
    if (!r)
        return;
    struct exec *x = r->exec;
    struct exec_table *t = x->table;
    pthread_mutex_lock(&t->lock);
    for (struct exec_reader **pp = &x->readers; *pp; pp = &(*pp)->next) {
        if (*pp == r) {
            *pp = r->next;
            break;
        }
    }
    exec_credit_locked(x);
    exec_park_locked(x);
    pthread_mutex_unlock(&t->lock);
    fd_close(r->notify_fd);
    free(r);
    exec_unref(x);
}

int exec_reader_fd(const struct exec_reader *r)
{
    return r->notify_fd;
}

static bool has_output_locked(const struct exec_reader *r, int i)
{
    const struct exec_out *o = &r->exec->out[i];
    return o->ring && r->offset[i] < o->end;
}

static bool can_take_input_locked(const struct exec *x)
{
    return !x->in_busy && (x->in_credit > x->in_sent || x->phase == EXEC_ENDED);
}

/* Nothing to read: what is to be said about it. */
static int64_t nothing_locked(struct exec_reader *r, bool *ret_ended, struct err *e)
{
    struct exec *x = r->exec;
    *ret_ended = x->phase == EXEC_ENDED;
    if (*ret_ended)
        return 0;
    if (x->table->released)
        return err_set(e, ERR_UNAVAILABLE, "the daemon is stopping");
    lower_notify(r);
    if (r->stdin_waits && can_take_input_locked(x))
        raise_notify(r);
    return 0;
}

int64_t exec_read(struct exec_reader *r, void *buf, size_t cap, int *ret_fd, uint64_t *ret_lost,
                  bool *ret_ended, struct err *e)
{
    struct exec *x = r->exec;
    struct exec_table *t = x->table;
    *ret_ended = false;
    *ret_lost = 0;
    *ret_fd = 1;
    pthread_mutex_lock(&t->lock);
    int i = has_output_locked(r, r->turn) ? r->turn : !r->turn;
    if (!has_output_locked(r, i)) {
        int64_t none = nothing_locked(r, ret_ended, e);
        pthread_mutex_unlock(&t->lock);
        return none;
    }
    uint64_t offset = r->offset[i];
    pthread_mutex_unlock(&t->lock);
    /* the ring has its own lock; the offset is moved by this reader's thread alone */
    int64_t n = ring_read(x->out[i].ring, &offset, buf, cap, ret_lost, e);
    if (n < 0)
        return -1;
    pthread_mutex_lock(&t->lock);
    r->offset[i] = offset;
    r->turn = !i;
    exec_credit_locked(x);
    pthread_mutex_unlock(&t->lock);
    *ret_fd = i + 1;
    return n;
}

/* Claims input's turn: bytes that may go now, 0 wait, -1. *ret_agent only when there are some. */
static int64_t claim_locked(struct exec_reader *r, size_t len, struct agent **ret_agent,
                            struct err *e)
{
    struct exec *x = r->exec;
    struct exec_table *t = x->table;
    if (!x->row.stdin_open || x->in_eof)
        return err_set(e, ERR_EXEC_STATE, "exec '%s' takes no input", x->row.id);
    if (x->in_lost)
        return err_set(e, ERR_GUEST, "the guest lost a part of the input");
    if (t->released)
        return err_set(e, ERR_UNAVAILABLE, "the daemon is stopping");
    r->stdin_waits = true;
    if (x->in_busy || !t->agent)
        return 0;
    uint64_t may = x->in_credit > x->in_sent ? x->in_credit - x->in_sent : 0;
    if (may > len)
        may = len;
    if (may > LIMIT_FRAME - 8)
        may = LIMIT_FRAME - 8;
    if (len > 0 && may == 0)
        return 0;
    x->in_busy = true;
    *ret_agent = agent_ref(t->agent);
    return (int64_t)may;
}

/* One frame of input, or the end of it (-2: not now). */
static int64_t stdin_once(struct exec_reader *r, const uint8_t *data, size_t len, struct err *e)
{
    struct exec *x = r->exec;
    struct exec_table *t = x->table;
    struct agent *a = NULL;
    uint8_t payload[LIMIT_FRAME];
    struct wire_out w = { .p = payload, .cap = sizeof(payload) };
    pthread_mutex_lock(&t->lock);
    if (x->phase >= EXEC_EXITED) {
        pthread_mutex_unlock(&t->lock);
        return (int64_t)len;
    }
    int64_t n = claim_locked(r, len, &a, e);
    uint64_t at = x->in_sent;
    pthread_mutex_unlock(&t->lock);
    if (!a)
        return n == 0 && len == 0 ? -2 : n;
    wire_put_u64(&w, at);
    if (n > 0)
        memcpy(payload + 8, data, (size_t)n);
    struct err full = ERR_INIT;
    int rc = agent_send(a, len ? FRAME_DATA : FRAME_EOF, 0, x->row.stream, payload,
                        (uint32_t)(8 + n), 0, &full);
    agent_unref(a);
    pthread_mutex_lock(&t->lock);
    x->in_busy = false;
    if (rc == 0) {
        x->in_sent += (uint64_t)n;
        x->in_eof = len == 0;
        r->stdin_waits = (size_t)n < len;
    } else {
        x->in_again = true; /* no room: the timer wakes us */
        exec_arm_locked(t, EXEC_RETRY_MS);
        n = 0;
    }
    /* another reader may have been turned away meanwhile */
    for (struct exec_reader *o = x->readers; o; o = o->next)
        if (o != r && o->stdin_waits)
            raise_notify(o);
    bool eof_waits = len == 0 && rc < 0;
    pthread_mutex_unlock(&t->lock);
    return eof_waits ? -2 : n;
}

int64_t exec_stdin(struct exec_reader *r, const void *data, size_t len, struct err *e)
{
    const uint8_t *p = data;
    size_t done = 0;
    if (len == 0) {
        /* the end has no length to return, so it has to go now */
        int64_t deadline = deadline_in(DEADLINE_GUEST_REPLY), n;
        while ((n = stdin_once(r, NULL, 0, e)) == -2) {
            if (now_mono_ms() >= deadline)
                return err_set(e, ERR_TIMEOUT, "the guest does not read");
            struct timespec ts = { .tv_nsec = EXEC_RETRY_MS * 1000000L };
            nanosleep(&ts, NULL);
        }
        return n;
    }
    while (done < len) {
        int64_t n = stdin_once(r, p + done, len - done, e);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

int exec_wait(struct exec *x, int64_t deadline, struct err *e)
{
    struct exec_table *t = x->table;
    struct timespec ts = { .tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000 };
    int rc = -2;
    pthread_mutex_lock(&t->lock);
    while (rc == -2) {
        if (x->phase == EXEC_ENDED)
            rc = 1;
        else if (t->released)
            rc = err_set(e, ERR_UNAVAILABLE, "the daemon is stopping");
        else if (deadline != DEADLINE_NONE && now_mono_ms() >= deadline)
            rc = 0;
        else if (deadline == DEADLINE_NONE)
            pthread_cond_wait(&x->changed, &t->lock);
        else
            pthread_cond_timedwait(&x->changed, &t->lock, &ts);
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

int64_t exec_output(struct exec *x, int fd, uint64_t *offset, void *buf, size_t cap,
                    uint64_t *ret_lost, struct err *e)
{
    if (fd != 1 && fd != 2)
        return err_set(e, ERR_INVALID, "there is no output stream %d", fd);
    struct exec_out *o = &x->out[fd - 1];
    pthread_mutex_lock(&x->table->lock);
    uint64_t end = o->end;
    struct ring *ring = o->ring;
    pthread_mutex_unlock(&x->table->lock);
    if (*offset > end)
        return err_set(e, ERR_OFFSET_GONE, "exec '%s' has written %llu bytes there", x->row.id,
                       (unsigned long long)end);
    *ret_lost = 0;
    return ring ? ring_read(ring, offset, buf, cap, ret_lost, e) : 0;
}
