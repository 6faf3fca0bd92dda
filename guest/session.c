/* SPDX-License-Identifier: MIT
 *
 * Sessions and their table: start, end, and what is put on the channel. Nothing is queued: a
 * session remembers by flags what it has to say, and says it when it is its turn and there is room.
 */
#include "guest/session.h"
#include "common/auto.h"
#include "common/io.h"
#include "guest/group.h"
#include "guest/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#define BASE_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define GONE_MS 5000        /* from SIGKILL until we stop to wait for the process */

void sessions_init(struct sessions *t, struct loop *loop)
{
    *t = (struct sessions){ .loop = loop, .user = "agent" };
    for (size_t i = 0; i < SESSION_DRAINS; i++)
        t->drains[i].src = SOURCE_NONE;
}

static void say(struct sessions *t, int level, const char *text)
{
    if (t->log)
        t->log(t->log_arg, level, text);
}

struct session *sessions_find(struct sessions *t, uint32_t stream)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->list[i]->stream == stream && !t->list[i]->forgotten)
            return t->list[i];
    return NULL;
}

static void close_session(struct session *s)
{
    struct loop *l = s->table->loop;

    loop_close(l, &s->report);
    s->in.open = false;
    session_in_close(s);
    for (size_t i = 0; i < s->n_out; i++) {
        loop_close(l, &s->out[i].src);
        session_out_drop(&s->out[i]);
    }
}

/* Out of the list; its memory goes at the end of the turn, as events may still name it. */
static void remove_session(struct session *s)
{
    struct sessions *t = s->table;

    close_session(s);
    for (size_t i = 0; i < t->n; i++) {
        if (t->list[i] != s)
            continue;
        t->n--;
        memmove(t->list + i, t->list + i + 1, (t->n - i) * sizeof(t->list[0]));
        if (t->turn > i)
            t->turn--;
        break;
    }
    s->next_dead = t->dead;
    t->dead = s;
}

static void free_dead(struct sessions *t)
{
    while (t->dead) {
        struct session *s = t->dead;

        t->dead = s->next_dead;
        free(s);
    }
}

void sessions_done(struct sessions *t)
{
    while (t->n > 0) {
        struct session *s = t->list[t->n - 1];

        if (s->phase != SESSION_EXITED)
            group_kill(s->stream, s->sid);
        remove_session(s);
    }
    free_dead(t);
    for (size_t i = 0; i < SESSION_DRAINS; i++)
        loop_close(t->loop, &t->drains[i].src);
    strv_done(&t->env);
}

void sessions_fail(struct sessions *t, uint32_t stream, enum exec_fail kind, int sys,
                   const char *text)
{
    struct session_failure *f;

    if (t->n_failures == SESSION_FAILURES) {    /* nobody listens; the oldest has waited longest */
        t->n_failures--;
        memmove(t->failures, t->failures + 1, t->n_failures * sizeof(t->failures[0]));
    }
    f = &t->failures[t->n_failures++];
    *f = (struct session_failure){ .stream = stream, .sys = (uint32_t)sys, .kind = (uint8_t)kind };
    snprintf(f->text, sizeof(f->text), "%s", text ? text : strerror(sys));
}

/* The exec came to nothing. Once the daemon knows it as running it has to be an exit. */
static void did_not_start(struct session *s, enum exec_fail kind, int sys)
{
    if (!s->named) {
        sessions_fail(s->table, s->stream, kind, sys, NULL);
        remove_session(s);
        return;
    }
    s->phase = SESSION_EXITED;
    s->how = EXIT_CODE;
    s->value = kind == EXEC_FAIL_NOT_FOUND ? 127 : 126;
    s->want_exit = true;
    loop_close(s->table->loop, &s->report);
    session_in_close(s);
    for (size_t i = 0; i < s->n_out; i++)
        session_out_exited(&s->out[i]);
}

/* The report pipe: what is there now decides, see sessions_reaped(). Returns whether it was closed
 * without a word, so the program runs. */
static bool read_report(struct session *s)
{
    struct spawn_report r = { 0 };
    ssize_t n = read(s->report.fd, &r, sizeof(r));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    loop_close(s->table->loop, &s->report);
    if (n == (ssize_t)sizeof(r)) {
        did_not_start(s, r.kind, r.sys);
        return false;
    }
    s->phase = SESSION_RUNNING;
    s->want_started = true;
    s->want_credit = s->in.open;
    for (size_t i = 0; i < s->n_out; i++)
        session_out_watch(&s->out[i]);
    return true;
}

static void on_report(void *arg, uint32_t events)
{
    (void)read_report(arg);
}

static int add_env(struct strv *env, struct err *e, const char *key, const char *value)
{
    return strv_addf(env, e, "%s=%s", key, value);
}

static int make_env(const struct sessions *t, const struct exec_wire_in *x, const struct user *u,
                    struct strv *ret, struct err *e)
{
    if (strv_add(ret, BASE_PATH, e) < 0 || add_env(ret, e, "HOME", u->home) < 0 ||
        strv_add(ret, "LANG=C.UTF-8", e) < 0 || add_env(ret, e, "SHELL", u->shell) < 0)
        return -1;
    if (u->name[0] && (add_env(ret, e, "USER", u->name) < 0 ||
                       add_env(ret, e, "LOGNAME", u->name) < 0))
        return -1;
    if (x->tty && strv_add(ret, "TERM=xterm-256color", e) < 0)
        return -1;
    for (size_t i = 0; i < t->env.n; i++)
        if (strv_env_set(ret, t->env.items[i], e) < 0)
            return -1;
    for (char **v = x->env; *v; v++)
        if (strv_env_set(ret, *v, e) < 0)
            return -1;
    return 0;
}

static void adopt(struct session *s, const struct spawned *p, const struct exec_wire_in *x)
{
    const int fds[2] = { p->out_fd, p->err_fd };

    s->pid = s->sid = p->pid;
    s->tty = x->tty;
    s->report = (struct source){ .fd = p->report_fd, .fn = on_report, .arg = s };
    s->in.src = (struct source){ .fd = p->in_fd, .fn = session_on_in, .arg = s };
    s->n_out = x->tty ? 1 : 2;
    for (size_t i = 0; i < s->n_out; i++)
        s->out[i] = (struct session_out){
            .session = s,
            .src = { .fd = fds[i], .fn = session_on_out, .arg = &s->out[i] },
            .fd = (uint8_t)(i + 1),
            .credit = x->credit,
        };
    s->in.open = x->stdin_open;
    if (x->tty && !x->stdin_open)
        session_in_close(s);
    if (x->timeout_ms > 0)
        s->timeout_at = deadline_in((int64_t)x->timeout_ms);
}

static int start(struct sessions *t, struct session *s, const struct exec_wire_in *x,
                 const struct user *u, struct err *e)
{
    autostrv struct strv env = STRV_INIT;
    autoclose int group_fd = -1;
    struct spawned p;

    if (make_env(t, x, u, &env, e) < 0)
        return -1;
    group_new(s->stream, &group_fd);
    struct spawn_spec spec = {
        .argv = x->argv,
        .env = &env,
        .user = u,
        .become_user = t->become_user,
        .workdir = x->workdir,
        .fallbacks = { t->workspace ? t->workspace : u->home, t->workspace ? u->home : NULL },
        .tty = x->tty,
        .stdin_open = x->stdin_open,
        .rows = x->rows,
        .cols = x->cols,
        .group_fd = group_fd,
    };
    if (spawn(&spec, &p, e) < 0)
        return -1;
    adopt(s, &p, x);
    return 0;
}

static size_t count_running(const struct sessions *t)
{
    size_t n = 0;

    for (size_t i = 0; i < t->n; i++)
        n += t->list[i]->phase != SESSION_EXITED;
    return n;
}

void sessions_exec(struct sessions *t, uint32_t stream, const struct exec_wire_in *x)
{
    struct err e = ERR_INIT;
    struct user u;

    if (count_running(t) >= LIMIT_EXECS || t->n >= SESSIONS_MAX) {
        sessions_fail(t, stream, EXEC_FAIL_RESOURCE, EAGAIN, "too many commands");
        return;
    }
    if (user_find(x->user[0] ? x->user : t->user, &u, &e) < 0) {
        sessions_fail(t, stream, EXEC_FAIL_USER, ENOENT, e.msg);
        return;
    }
    if (!t->become_user && u.uid != geteuid()) {
        sessions_fail(t, stream, EXEC_FAIL_USER, EPERM, NULL);
        return;
    }
    autofree struct session *s = calloc(1, sizeof(*s));
    if (!s) {
        sessions_fail(t, stream, EXEC_FAIL_RESOURCE, ENOMEM, NULL);
        return;
    }
    s->table = t;
    s->stream = stream;
    s->report = s->in.src = SOURCE_NONE;
    if (start(t, s, x, &u, &e) < 0) {
        sessions_fail(t, stream, EXEC_FAIL_RESOURCE, e.sys ? e.sys : ENOMEM, e.msg);
        return;
    }
    t->list[t->n++] = s;
    if (loop_watch(t->loop, &s->report, EPOLLIN, &e) < 0) {
        say(t, LOG_ERR, e.msg);
        session_end(s, 0);
    }
    (void)take_ptr(s);
}

/* Ends */

static void kill_all(struct session *s)
{
    s->killed = true;
    group_kill(s->stream, s->sid);
    if (s->pid > 0) {
        kill(-s->pid, SIGKILL);
        kill(s->pid, SIGKILL);      /* it may not lead its group yet */
        s->gone_at = deadline_in(GONE_MS);
    }
}

static void send_signal(struct session *s, int signo)
{
    pid_t front = 0;

    if (s->pid <= 0)
        return;
    if (s->tty && s->out[0].src.fd >= 0 && ioctl(s->out[0].src.fd, TIOCGPGRP, &front) == 0 &&
        front > 1 && kill(-front, signo) == 0)
        return;
    if (kill(-s->pid, signo) < 0)
        kill(s->pid, signo);
}

void session_signal(struct session *s, uint32_t signo)
{
    if (signo >= 1 && signo < NSIG)
        send_signal(s, (int)signo);
}

void session_resize(struct session *s, uint16_t rows, uint16_t cols)
{
    struct winsize size = { .ws_row = rows, .ws_col = cols };

    if (s->tty && rows > 0 && cols > 0 && s->out[0].src.fd >= 0)
        (void)ioctl(s->out[0].src.fd, TIOCSWINSZ, &size);
}

void session_end(struct session *s, uint32_t grace_ms)
{
    if (s->killed || (s->kill_at > 0 && grace_ms > 0))
        return;
    s->kill_at = deadline_in(grace_ms > 600000 ? 600000 : grace_ms);
    if (grace_ms == 0 || s->pid <= 0)
        return;
    send_signal(s, SIGHUP);
    send_signal(s, SIGCONT);
    if (s->tty) {                   /* the shell too, not only what runs in front of it */
        kill(-s->pid, SIGHUP);
        kill(-s->pid, SIGCONT);
    }
}

static void exited(struct session *s, uint8_t how, uint32_t value)
{
    s->phase = SESSION_EXITED;
    s->how = s->timed_out ? EXIT_TIMEOUT : how;
    s->value = value;
    s->want_exit = true;
    s->pid = 0;
    s->timeout_at = s->gone_at = s->tty_again_at = 0;
    session_in_close(s);
    for (size_t i = 0; i < s->n_out; i++)
        session_out_exited(&s->out[i]);
}

void sessions_reaped(struct sessions *t, pid_t pid, int status)
{
    struct session *s = NULL;

    for (size_t i = 0; i < t->n && !s; i++)
        if (t->list[i]->pid == pid)
            s = t->list[i];
    if (!s)
        return;
    if (s->phase == SESSION_STARTING) {
        /* it is dead, so its report is complete; a failure is the end of the session right here */
        s->pid = 0;
        if (!read_report(s))
            return;
    }
    if (WIFSIGNALED(status))
        exited(s, EXIT_SIGNAL, (uint32_t)WTERMSIG(status));
    else
        exited(s, EXIT_CODE, (uint32_t)WEXITSTATUS(status));
}

static void on_drain(void *arg, uint32_t events)
{
    static char nothing[65536];
    struct session_drain *d = arg;
    ssize_t n = read(d->src.fd, nothing, sizeof(nothing));

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        loop_close(d->table->loop, &d->src);
}

/* Somebody in the background still has the other end: keep reading, so that it can go on. */
static void drain_take(struct sessions *t, struct source *src)
{
    struct session_drain *d = &t->drains[t->next_drain];
    struct err e = ERR_INIT;
    int fd = src->fd;

    if (fd < 0)
        return;
    for (size_t i = 0; i < SESSION_DRAINS && d->src.fd >= 0; i++)
        d = &t->drains[(t->next_drain + i) % SESSION_DRAINS];
    t->next_drain = (size_t)(d - t->drains + 1) % SESSION_DRAINS;
    loop_close(t->loop, &d->src);               /* all are in use: the oldest has to go */
    (void)loop_watch(t->loop, src, 0, &e);
    src->fd = -1;
    d->table = t;
    d->src = (struct source){ .fd = fd, .fn = on_drain, .arg = d };
    if (loop_watch(t->loop, &d->src, EPOLLIN, &e) < 0) {
        say(t, LOG_ERR, e.msg);
        loop_close(t->loop, &d->src);
    }
}

static bool in_use(void *arg, uint32_t stream)
{
    struct sessions *t = arg;

    for (size_t i = 0; i < t->n; i++)
        if (t->list[i]->stream == stream)
            return true;
    return false;
}

void session_forget(struct session *s)
{
    struct sessions *t = s->table;

    if (s->phase != SESSION_EXITED)
        return;
    for (size_t i = 0; i < s->n_out; i++) {
        if (s->kill_at == 0)
            drain_take(t, &s->out[i].src);
        session_out_drop(&s->out[i]);
    }
    if (s->kill_at > 0) {
        s->forgotten = true;        /* the rest of it is still to be killed */
        return;
    }
    remove_session(s);
    group_sweep(in_use, t);
}

/* Time */

static void earlier(int64_t *at, int64_t other)
{
    if (other > 0 && other < *at)
        *at = other;
}

int64_t sessions_deadline(const struct sessions *t)
{
    int64_t at = DEADLINE_NONE;

    for (size_t i = 0; i < t->n; i++) {
        const struct session *s = t->list[i];

        earlier(&at, s->timeout_at);
        earlier(&at, s->kill_at);
        earlier(&at, s->gone_at);
        earlier(&at, s->tty_again_at);
    }
    return at;
}

static void tick(struct session *s, int64_t now)
{
    if (s->timeout_at > 0 && now >= s->timeout_at) {
        s->timeout_at = 0;
        s->timed_out = true;
        kill_all(s);
    }
    if (s->tty_again_at > 0 && now >= s->tty_again_at) {
        s->tty_again_at = 0;
        session_out_pump(&s->out[0]);
    }
    if (s->gone_at > 0 && now >= s->gone_at) {
        say(s->table, LOG_WARNING, "a killed command does not die, it is given up");
        if (s->phase == SESSION_STARTING)
            did_not_start(s, EXEC_FAIL_RESOURCE, ETIMEDOUT);
        else
            exited(s, EXIT_SIGNAL, SIGKILL);
        return;
    }
    if (s->kill_at > 0 && now >= s->kill_at) {
        s->kill_at = 0;
        kill_all(s);
        if (s->forgotten) {
            remove_session(s);
            group_sweep(in_use, s->table);
        }
    }
}

void sessions_tick(struct sessions *t)
{
    int64_t now = now_mono_ms();

    for (size_t i = t->n; i-- > 0;)     /* from the end: one may go */
        tick(t->list[i], now);
    free_dead(t);
}

/* The channel */

void session_credit(struct session *s, uint8_t fd, uint64_t credit)
{
    if (fd < 1 || fd > s->n_out || credit <= s->out[fd - 1].credit)
        return;
    s->out[fd - 1].credit = credit;
    session_out_pump(&s->out[fd - 1]);
}

static void resume(struct session_out *o, uint64_t at)
{
    uint64_t oldest = o->end > LIMIT_WINDOW ? o->end - LIMIT_WINDOW : 0;

    o->sent = !o->ring || at > o->end ? o->end : at < oldest ? oldest : at;
    o->eof_sent = false;
}

void session_resume(struct session *s, uint64_t out, uint64_t err)
{
    s->parked = false;
    s->want_credit = s->in.open;
    resume(&s->out[0], out);
    if (s->n_out > 1)
        resume(&s->out[1], err);
    for (size_t i = 0; i < s->n_out; i++)
        session_out_pump(&s->out[i]);
}

/* Of many that ended while nobody was there, the oldest keep their end and no output. */
static void keep_few(struct sessions *t)
{
    size_t kept = 0;

    for (size_t i = t->n; i-- > 0;) {
        struct session *s = t->list[i];

        if (s->phase == SESSION_EXITED && ++kept > LIMIT_EXECS_KEPT)
            for (size_t k = 0; k < s->n_out; k++)
                session_out_drop(&s->out[k]);
    }
}

uint32_t sessions_hello(struct sessions *t)
{
    uint32_t n = 0;

    keep_few(t);
    for (size_t i = 0; i < t->n; i++) {
        if (t->list[i]->forgotten)
            continue;
        t->list[i]->want_session = t->list[i]->parked = true;
        n++;
    }
    return n;
}

static bool ends_known(const struct session *s)
{
    for (size_t i = 0; i < s->n_out; i++)
        if (!s->out[i].final_known)
            return false;
    return s->phase == SESSION_EXITED;
}

static void put_exit(const struct session *s, struct wire_out *w)
{
    wire_put_u8(w, s->how);
    wire_put_u32(w, s->value);
    wire_put_u64(w, s->out[0].final);
    wire_put_u64(w, s->n_out > 1 ? s->out[1].final : 0);
}

static bool put_session(struct session *s, struct chan *c)
{
    uint8_t buf[64];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    bool over = ends_known(s);

    wire_put_u8(&w, over);
    wire_put_u64(&w, s->out[0].end);
    wire_put_u64(&w, s->n_out > 1 ? s->out[1].end : 0);
    wire_put_u64(&w, s->in.received);
    if (over)
        put_exit(s, &w);
    if (!chan_put(c, FRAME_SESSION, 0, s->stream, buf, (uint32_t)w.len))
        return false;
    s->want_session = false;
    s->named = true;
    s->want_started = false;
    if (over)
        s->want_exit = false;
    return true;
}

static bool put_failure(struct sessions *t, struct chan *c)
{
    const struct session_failure *f = &t->failures[0];
    uint8_t buf[256];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };

    wire_put_u32(&w, f->sys);
    wire_put_u8(&w, f->kind);
    wire_put_str(&w, f->text);
    if (!chan_put(c, FRAME_FAILED, 0, f->stream, buf, (uint32_t)w.len))
        return false;
    t->n_failures--;
    memmove(t->failures, t->failures + 1, t->n_failures * sizeof(t->failures[0]));
    return true;
}

static bool put_number(struct session *s, struct chan *c, enum frame_type type, uint64_t v,
                       size_t bytes)
{
    uint8_t buf[8];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };

    if (bytes == 4)
        wire_put_u32(&w, (uint32_t)v);
    else
        wire_put_u64(&w, v);
    return chan_put(c, type, 0, s->stream, buf, (uint32_t)w.len);
}

/* One turn of a session: what it has to say, but one piece of each stream only. 1: something was
 * put; 0: nothing to say; -1: no room. */
static int put_turn(struct session *s, struct chan *c)
{
    int did = 0;

    if (s->parked || s->forgotten || s->phase == SESSION_STARTING)
        return 0;
    if (s->want_started) {
        if (!put_number(s, c, FRAME_STARTED, (uint32_t)s->sid, 4))
            return -1;
        s->want_started = false;
        did = 1;
    }
    if (s->want_credit && s->in.open) {
        uint64_t credit = s->in.consumed + LIMIT_WINDOW;

        if (!put_number(s, c, FRAME_CREDIT, credit, 8))
            return -1;
        s->in.told = credit;
        s->want_credit = false;
        did = 1;
    }
    for (size_t i = 0; i < s->n_out; i++) {
        int r = session_out_put(&s->out[i], c);

        if (r < 0)
            return -1;
        did |= r;
    }
    if (!did && s->want_exit && ends_known(s)) {
        uint8_t buf[32];
        struct wire_out w = { .p = buf, .cap = sizeof(buf) };

        put_exit(s, &w);
        if (!chan_put(c, FRAME_EXIT, 0, s->stream, buf, (uint32_t)w.len))
            return -1;
        s->want_exit = false;
        did = 1;
    }
    return did;
}

bool sessions_fill_named(struct sessions *t, struct chan *c)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->list[i]->want_session && !put_session(t->list[i], c))
            return false;
    return true;
}

void sessions_fill(struct sessions *t, struct chan *c)
{
    size_t idle = 0;

    while (t->n_failures > 0)
        if (!put_failure(t, c))
            return;
    while (t->n > 0 && idle < t->n) {
        if (t->turn >= t->n)
            t->turn = 0;
        int r = put_turn(t->list[t->turn], c);
        if (r < 0)
            return;
        idle = r ? 0 : idle + 1;
        t->turn++;
    }
}
