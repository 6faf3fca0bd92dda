/* SPDX-License-Identifier: MIT
 *
 * The table: life, lookup, small requests, and the timer that repeats what did not get through.
 *
 * References: the table's list holds one on each exec. Every exec given out to a caller also holds
 * one on the table, so `x->table` is good as long as x is; the list's references do not, or the two
 * would keep each other for ever.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "daemon/exec_priv.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct exec *exec_new(struct exec_table *t, struct err *e)
{
    struct exec *x = calloc(1, sizeof(*x));
    if (!x) {
        err_nomem(e);
        return NULL;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&x->changed, &attr);
    pthread_condattr_destroy(&attr);
    x->table = t;
    x->refs = 1;
    return x;
}

void exec_hold(struct exec *x)
{
    __atomic_add_fetch(&x->refs, 1, __ATOMIC_RELAXED);
}

void exec_drop(struct exec *x)
{
    if (__atomic_sub_fetch(&x->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    quota_drop(&x->charge, QUOTA_ALL);
    ring_free(x->out[0].ring);
    ring_free(x->out[1].ring);
    exec_row_done(&x->row);
    pthread_cond_destroy(&x->changed);
    free(x);
}

struct exec *exec_ref(struct exec *x)
{
    exec_table_ref(x->table);
    exec_hold(x);
    return x;
}

void exec_unref(struct exec *x)
{
    if (!x)
        return;
    struct exec_table *t = x->table;
    exec_drop(x);
    exec_table_unref(t);
}

const char *exec_id(const struct exec *x)
{
    return x->row.id;
}

int exec_list_add_locked(struct exec_table *t, struct exec *x, struct err *e)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 16;
        struct exec **execs = reallocarray(t->execs, cap, sizeof(*execs));
        if (!execs)
            return err_nomem(e);
        t->execs = execs;
        t->cap = cap;
    }
    exec_hold(x);
    x->listed = true;
    t->execs[t->n++] = x;
    if (x->phase != EXEC_ENDED)
        t->running++;
    return 0;
}

void exec_list_remove_locked(struct exec_table *t, struct exec *x)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->execs[i] != x)
            continue;
        memmove(&t->execs[i], &t->execs[i + 1], (t->n - i - 1) * sizeof(*t->execs));
        t->n--;
        x->listed = false;
        if (x->phase != EXEC_ENDED)
            t->running--;
        quota_drop(&x->charge, QUOTA_ALL);
        exec_drop(x);
        return;
    }
}

struct exec *exec_by_stream_locked(struct exec_table *t, uint32_t stream)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->execs[mid]->row.stream < stream)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->n && t->execs[lo]->row.stream == stream ? t->execs[lo] : NULL;
}

void exec_arm_locked(struct exec_table *t, int64_t ms)
{
    int64_t at = now_mono_ms() + ms;
    if (!t->timer || (t->timer_at && t->timer_at <= at))
        return;
    t->timer_at = at;
    evloop_timer_set(t->timer, ms);
}

bool exec_send_locked(struct exec_table *t, enum frame_type type, uint8_t fd, uint32_t stream,
                      const void *payload, size_t len)
{
    struct err e = ERR_INIT;
    return t->agent && agent_send(t->agent, type, fd, stream, payload, (uint32_t)len, 0, &e) == 0;
}

static void expect_end_locked(struct exec *x, int64_t ms)
{
    int64_t at = now_mono_ms() + ms + x->table->deps.end_ms;
    if (x->end_by && x->end_by <= at)
        return;
    x->end_by = at;
    exec_arm_locked(x->table, ms + x->table->deps.end_ms);
}

void exec_want_end_locked(struct exec *x, uint32_t grace_ms)
{
    x->end_wanted = true;
    x->end_grace = grace_ms;
    expect_end_locked(x, grace_ms);
    exec_push_end_locked(x);
}

static void tell(const struct exec *x, enum event_kind kind, const char *detail)
{
    events_add(x->table->deps.events, &(struct event){ .kind = kind, .sandbox = x->table->sandbox,
                                                       .exec = x->row.id, .detail = detail });
}

/* The program alone: arguments may be secrets. */
static void tell_start(const struct exec *x)
{
    autosbuf struct sbuf program = SBUF(4 * EXEC_COMMAND_KEPT + KIB);
    const char *name = x->row.command.n ? x->row.command.items[0] : "";

    sbuf_text(&program, name, strlen(name));
    tell(x, EVENT_EXEC_START, sbuf_str(&program));
}

static void tell_exit(const struct exec *x)
{
    char text[32];

    switch ((enum exit_how)x->row.how) {
    case EXIT_CODE:
        snprintf(text, sizeof(text), "exit %u", x->row.value);
        break;
    case EXIT_SIGNAL:
        snprintf(text, sizeof(text), "signal %u", x->row.value);
        break;
    case EXIT_TIMEOUT:
        snprintf(text, sizeof(text), "timeout");
        break;
    default:
        snprintf(text, sizeof(text), "lost");
        break;
    }
    tell(x, EVENT_EXEC_EXIT, text);
}

void exec_running_locked(struct exec *x)
{
    if (x->phase == EXEC_STARTING)
        tell_start(x);
    x->phase = EXEC_RUNNING;
    if (x->timeout_ms)
        expect_end_locked(x, (int64_t)x->timeout_ms);
}

void exec_push_end_locked(struct exec *x)
{
    uint8_t payload[4];
    struct wire_out w = { .p = payload, .cap = sizeof(payload) };
    if (!x->end_wanted || x->end_sent || x->phase == EXEC_ENDED || !x->table->in_step)
        return;
    wire_put_u32(&w, x->end_grace);
    x->end_sent = exec_send_locked(x->table, FRAME_END, 0, x->row.stream, payload, w.len);
    if (!x->end_sent)
        exec_arm_locked(x->table, EXEC_RETRY_MS);
}

void exec_push_forget_locked(struct exec *x)
{
    if (!x->stored || x->forgotten || !x->table->in_step)
        return;
    x->forgotten = exec_send_locked(x->table, FRAME_FORGET, 0, x->row.stream, NULL, 0);
    if (!x->forgotten)
        exec_arm_locked(x->table, EXEC_RETRY_MS);
}

void exec_push_resume_locked(struct exec *x)
{
    uint8_t payload[16];
    struct wire_out w = { .p = payload, .cap = sizeof(payload) };
    if (!x->resume_wanted || x->phase == EXEC_ENDED || !x->table->in_step)
        return;
    wire_put_u64(&w, x->out[0].end);
    wire_put_u64(&w, x->out[1].end);
    x->resume_wanted = !exec_send_locked(x->table, FRAME_RESUME, 0, x->row.stream, payload, w.len);
    if (x->resume_wanted)
        exec_arm_locked(x->table, EXEC_RETRY_MS);
}

void exec_finish_locked(struct exec *x, enum exit_how how, uint32_t value)
{
    if (x->phase == EXEC_ENDED)
        return;
    bool began = x->phase != EXEC_STARTING;
    x->phase = EXEC_ENDED;
    quota_drop(&x->charge, QUOTA_ALL);
    x->row.state = 1;
    x->row.how = how;
    x->row.value = value;
    x->row.ended_at = now_real_us();
    x->version++;
    x->dirty = true;
    if (began)
        tell_exit(x);
    if (x->listed) {
        x->table->running--;
        exec_post_locked(x->table);
    }
    pthread_cond_broadcast(&x->changed);
    exec_notify_locked(x);
}

void exec_settle_locked(struct exec *x)
{
    if (x->phase != EXEC_EXITED)
        return;
    bool whole = x->out[0].end >= x->out[0].total && x->out[1].end >= x->out[1].total;
    if (whole || x->broken)
        exec_finish_locked(x, (enum exit_how)x->row.how, x->row.value);
}

/* An exit whose output does not come although it is paid for. Waiting for a slow reader is none. */
static void check_stall_locked(struct exec *x, int64_t now)
{
    if (x->phase != EXEC_EXITED)
        return;
    for (int i = 0; i < 2; i++) {
        if (x->out[i].end < x->out[i].total && x->out[i].end < x->out[i].credit &&
            x->table->in_step) {
            if (now >= x->stall_at)
                exec_finish_locked(x, (enum exit_how)x->row.how, x->row.value);
            else
                exec_arm_locked(x->table, x->stall_at - now);
            return;
        }
    }
    x->stall_at = now + x->table->deps.stall_ms;
    exec_arm_locked(x->table, x->table->deps.stall_ms);
}

/* An end that was asked for, or that the timeout should have brought, and does not show. A guest
 * whose output waits for a slow reader cannot say EXIT yet. */
static void check_end_locked(struct exec *x, int64_t now)
{
    if (!x->end_by || x->phase >= EXEC_EXITED)
        return;
    int64_t later = now + x->table->deps.end_ms;
    for (int i = 0; i < 2 && !x->broken && x->end_by < later; i++)
        if (x->phase == EXEC_RUNNING && x->out[i].ring && x->out[i].end >= x->out[i].credit)
            x->end_by = later;
    if (now < x->end_by) {
        exec_arm_locked(x->table, x->end_by - now);
        return;
    }
    if (log_rate_ok(&x->table->rate, 5, 60000))
        log_warn(LOG_CTX(.sandbox = x->table->sandbox, .exec = x->row.id),
                 "the guest does not end a command it was told to end, not waiting for it");
    exec_finish_locked(x, EXIT_LOST, 0);
}

static void look_after_locked(struct exec *x, int64_t now)
{
    if (x->attach_by && now >= x->attach_by && x->phase != EXEC_STARTING) {
        x->attach_by = 0;
        x->held = false;
        if (x->phase == EXEC_ENDED)
            exec_post_locked(x->table); /* it may go to make room */
        else
            exec_want_end_locked(x, DEADLINE_END_GRACE);
    } else if (x->attach_by) {
        exec_arm_locked(x->table, x->attach_by > now ? x->attach_by - now : 1000);
    }
    exec_push_resume_locked(x);
    exec_push_end_locked(x);
    exec_credit_locked(x);
    exec_push_forget_locked(x);
    check_stall_locked(x, now);
    check_end_locked(x, now);
    if (x->in_again) {
        x->in_again = false;
        exec_notify_locked(x);
    }
}

static void on_timer(void *arg)
{
    struct exec_table *t = arg;
    int64_t now = now_mono_ms();
    pthread_mutex_lock(&t->lock);
    t->timer_at = 0;
    for (size_t i = 0; i < t->n && !t->released; i++)
        look_after_locked(t->execs[i], now);
    if (t->store_again && now >= t->store_again) {
        t->store_again = 0;
        exec_post_locked(t);
    } else if (t->store_again) {
        exec_arm_locked(t, t->store_again - now);
    }
    pthread_mutex_unlock(&t->lock);
}

static void table_free(struct exec_table *t)
{
    for (size_t i = 0; i < t->n; i++)
        exec_drop(t->execs[i]);
    free(t->execs);
    agent_unref(t->agent);
    fd_close(t->dir_fd);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int exec_table_new(const struct exec_deps *deps, const char *sandbox_id, int dir_fd,
                   const struct exec_hooks *hooks, struct exec_table **ret, struct err *e)
{
    struct exec_table *t = calloc(1, sizeof(*t));
    if (!t)
        return err_nomem(e);
    pthread_mutex_init(&t->lock, NULL);
    t->refs = 1;
    t->deps = *deps;
    if (t->deps.attach_ms == 0)
        t->deps.attach_ms = EXEC_ATTACH_MS;
    if (t->deps.stall_ms == 0)
        t->deps.stall_ms = EXEC_EXIT_STALL_MS;
    if (t->deps.end_ms == 0)
        t->deps.end_ms = EXEC_END_STALL_MS;
    if (hooks)
        t->hooks = *hooks;
    for (size_t i = 0; i < LIMIT_ID && sandbox_id[i]; i++)
        t->sandbox[i] = sandbox_id[i];
    t->dir_fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 3);
    int rc = 0;
    if (t->dir_fd < 0)
        rc = err_sys(e, ERR_INTERNAL, errno, "cannot use the directory for output");
    if (rc == 0)
        rc = id_new(t->job, e);
    if (rc == 0)
        rc = exec_load(t, e);
    if (rc < 0) {
        table_free(t);
        return -1;
    }
    pthread_mutex_lock(&t->lock);
    rc = evloop_add_timer(deps->loop, -1, on_timer, t, &t->timer, e);
    if (rc == 0)
        exec_arm_locked(t, 0); /* looks at what was loaded */
    pthread_mutex_unlock(&t->lock);
    if (rc < 0) {
        table_free(t);
        return -1;
    }
    *ret = t;
    return 0;
}

struct exec_table *exec_table_ref(struct exec_table *t)
{
    __atomic_add_fetch(&t->refs, 1, __ATOMIC_RELAXED);
    return t;
}

/* What both ways of leaving have in common: no timer, no agent, everybody wakes. */
static void table_leave(struct exec_table *t, bool lost)
{
    pthread_mutex_lock(&t->lock);
    struct agent *a = t->agent;
    struct evsource *timer = t->timer;
    t->agent = NULL;
    t->timer = NULL;
    t->in_step = false;
    if (lost)
        t->closed = true;
    else
        t->released = true;
    for (size_t i = 0; i < t->n; i++) {
        struct exec *x = t->execs[i];
        if (lost && x->phase == EXEC_EXITED)
            exec_finish_locked(x, (enum exit_how)x->row.how, x->row.value);
        else if (lost && (x->phase != EXEC_STARTING || x->abandoned))
            exec_finish_locked(x, EXIT_LOST, 0);
        pthread_cond_broadcast(&x->changed);
        exec_notify_locked(x);
    }
    pthread_mutex_unlock(&t->lock);
    evloop_remove(timer);
    agent_unref(a);
}

void exec_table_close(struct exec_table *t)
{
    table_leave(t, true);
}

void exec_table_release(struct exec_table *t)
{
    table_leave(t, false);
}

void exec_table_unref(struct exec_table *t)
{
    if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    table_leave(t, false);
    table_free(t);
}

void exec_table_set_agent(struct exec_table *t, struct agent *a)
{
    if (a)
        agent_ref(a);
    pthread_mutex_lock(&t->lock);
    struct agent *former = t->agent;
    t->agent = a;
    pthread_mutex_unlock(&t->lock);
    agent_unref(former);
}

uint32_t exec_table_running(struct exec_table *t)
{
    pthread_mutex_lock(&t->lock);
    uint32_t n = t->running;
    pthread_mutex_unlock(&t->lock);
    return n;
}

int exec_find(struct exec_table *t, const char *ref, struct exec **ret, struct err *e)
{
    if (!id_prefix_valid(ref))
        return err_set(e, ERR_EXEC_NOT_FOUND, "no exec '%s'", ref);
    size_t len = strlen(ref), found = 0;
    struct exec *x = NULL;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n; i++) {
        if (strncmp(t->execs[i]->row.id, ref, len) == 0) {
            x = t->execs[i];
            found++;
        }
    }
    if (found == 1)
        exec_ref(x);
    pthread_mutex_unlock(&t->lock);
    if (found == 0)
        return err_set(e, ERR_EXEC_NOT_FOUND, "no exec '%s'", ref);
    if (found > 1) {
        err_set(e, ERR_REF_AMBIGUOUS, "'%s' is the beginning of %zu execs", ref, found);
        return err_hint(e, "give more characters of the id");
    }
    *ret = x;
    return 0;
}

static int copy_str(char **dst, const char *src, struct err *e)
{
    if (!src)
        return 0;
    *dst = strdup(src);
    return *dst ? 0 : err_nomem(e);
}

static const char *const end_names[] = { "exit", "signal", "timeout", "lost" };

static int describe_locked(struct exec *x, struct api_exec *ret, struct err *e)
{
    bool ended = x->phase == EXEC_ENDED;
    bool lost = ended && x->row.how == EXIT_LOST;
    if (copy_str(&ret->id, x->row.id, e) < 0 || copy_str(&ret->sandbox, x->row.vm, e) < 0 ||
        copy_str(&ret->state,
                 lost    ? "lost"
                 : ended ? "exited"
                         : "running",
                 e) < 0 ||
        copy_str(&ret->user, x->row.user, e) < 0 ||
        copy_str(&ret->workdir, x->row.workdir, e) < 0 ||
        (ended && copy_str(&ret->end, end_names[x->row.how & 3], e) < 0) ||
        strv_copy(&ret->command, &x->row.command, e) < 0)
        return -1;
    ret->tty = x->row.tty;
    ret->stdin = x->row.stdin_open;
    ret->detach = x->row.detach;
    ret->pid = x->row.pid;
    ret->exit_code = -1;
    if (ended) {
        switch ((enum exit_how)x->row.how) {
        case EXIT_CODE:
            ret->exit_code = (int32_t)(x->row.value & 0xff);
            break;
        case EXIT_SIGNAL:
            ret->exit_code = 128 + (int32_t)(x->row.value & 0x7f);
            ret->signal = x->row.value & 0x7f;
            break;
        case EXIT_TIMEOUT:
            ret->exit_code = 124;
            break;
        case EXIT_LOST:
            ret->exit_code = 125;
            break;
        }
    }
    ret->stdout_end = x->out[0].end;
    ret->stderr_end = x->out[1].end;
    ret->stdout_start = x->out[0].ring ? ring_start(x->out[0].ring) : ret->stdout_end;
    ret->stderr_start = x->out[1].ring ? ring_start(x->out[1].ring) : ret->stderr_end;
    ret->created_at = x->row.created_at;
    ret->ended_at = ended ? x->row.ended_at : 0;
    return 0;
}

int exec_describe(struct exec *x, struct api_exec *ret, struct err *e)
{
    pthread_mutex_lock(&x->table->lock);
    int rc = describe_locked(x, ret, e);
    pthread_mutex_unlock(&x->table->lock);
    if (rc < 0)
        json_done(api_exec_table, ret, sizeof(*ret));
    return rc;
}

int exec_list(struct exec_table *t, struct api_exec_list *ret, struct err *e)
{
    int rc = 0;
    pthread_mutex_lock(&t->lock);
    struct api_exec *items = calloc(t->n ? t->n : 1, sizeof(*items));
    ret->execs.items = items;
    if (!items)
        rc = err_nomem(e);
    for (size_t i = 0; i < t->n && rc == 0; i++) {
        ret->execs.n = i + 1;
        rc = describe_locked(t->execs[i], &items[i], e);
    }
    pthread_mutex_unlock(&t->lock);
    if (rc < 0)
        json_done(api_exec_list_table, ret, sizeof(*ret));
    return rc;
}

/* A frame about a running exec, waiting for room. */
static int send_about(struct exec *x, enum frame_type type, const void *payload, size_t len,
                      struct err *e)
{
    struct exec_table *t = x->table;
    pthread_mutex_lock(&t->lock);
    struct agent *a = t->agent && x->phase < EXEC_EXITED ? agent_ref(t->agent) : NULL;
    bool ended = x->phase >= EXEC_EXITED;
    pthread_mutex_unlock(&t->lock);
    if (!a && ended)
        return err_set(e, ERR_EXEC_STATE, "exec '%s' has ended", x->row.id);
    if (!a)
        return err_set(e, ERR_SANDBOX_STATE, "the sandbox is not running");
    int rc = agent_send(a, type, 0, x->row.stream, payload, (uint32_t)len,
                        deadline_in(DEADLINE_GUEST_REPLY), e);
    agent_unref(a);
    return rc;
}

int exec_signal(struct exec *x, uint32_t signo, struct err *e)
{
    uint8_t payload[4];
    struct wire_out w = { .p = payload, .cap = sizeof(payload) };
    if (signo < 1 || signo > 64)
        return err_set(e, ERR_FIELD_INVALID, "there is no signal %u", signo);
    wire_put_u32(&w, signo);
    return send_about(x, FRAME_SIGNAL, payload, w.len, e);
}

int exec_resize(struct exec *x, uint16_t rows, uint16_t cols, struct err *e)
{
    uint8_t payload[4];
    struct wire_out w = { .p = payload, .cap = sizeof(payload) };
    if (!x->row.tty)
        return err_set(e, ERR_EXEC_STATE, "exec '%s' has no terminal", x->row.id);
    wire_put_u16(&w, rows);
    wire_put_u16(&w, cols);
    return send_about(x, FRAME_RESIZE, payload, w.len, e);
}

void exec_keep(struct exec *x)
{
    struct exec_table *t = x->table;
    pthread_mutex_lock(&t->lock);
    if (!x->row.detach && x->phase != EXEC_ENDED) {
        x->row.detach = true;
        x->version++;
        x->dirty = true;
        exec_post_locked(t);
    }
    pthread_mutex_unlock(&t->lock);
}

void exec_end(struct exec *x)
{
    struct exec_table *t = x->table;
    pthread_mutex_lock(&t->lock);
    x->attach_by = 0;
    x->held = false;
    exec_want_end_locked(x, x->end_wanted ? x->end_grace : DEADLINE_END_GRACE);
    exec_credit_locked(x);
    pthread_mutex_unlock(&t->lock);
}
