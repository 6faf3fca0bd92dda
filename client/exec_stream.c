/* SPDX-License-Identifier: MIT */
#include "client/exec_stream.h"
#include "client/api_client.h"
#include "client/outfd.h"
#include "client/upgrade.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/stream.h"
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define STDIN_PIECE (32 * 1024)
#define OUT_MAX (STREAM_HEADER + STDIN_PIECE + DETACH_KEYS_MAX)
#define CONTROL_MAX 64          /* resize and signal records that wait */
#define KEYS_WAIT_MS 500        /* then a beginning of the detach keys is just a key */
#define SIGNAL_PATIENCE 3       /* the same signal so often: the user means us */
#define LEAVE_MS 3000           /* for the detach record to be taken */

struct exit_record {            /* payload of STREAM_EXIT */
    char *end;
    int32_t exit_code;
    uint32_t signal;
};
static const struct jfield exit_table[] = {
    JF(struct exit_record, end, JT_STR),
    JF(struct exit_record, exit_code, JT_I32, .def = (uint64_t)-1, .min = 0, .max = 0),
    JF(struct exit_record, signal, JT_U32),
    JF_END
};

struct session {
    struct app *app;
    const struct stream_spec *spec;
    struct upgrade up;
    struct outfd out[2];            /* stdout, stderr */
    int signals;                    /* signalfd */
    sigset_t old_mask;
    bool raw;                       /* our terminal is in raw mode */
    /* to the daemon: one piece of stdin and small records, which go first */
    uint8_t piece[OUT_MAX];
    size_t piece_n, piece_at;
    uint8_t control[CONTROL_MAX];
    size_t control_n, control_at;
    bool stdin_open, sent_stdin, resize;
    struct detach_keys keys;
    int64_t keys_deadline;
    /* from the daemon: the record being read lies at up.buf */
    size_t record_at;               /* bytes of its payload that are written out */
    int wait_out;                   /* index of the output that takes nothing now, -1 none */
    int last_signal;
    unsigned signal_repeats;
    /* the end */
    bool ended;
    int status;
};

/* ---- to the daemon ------------------------------------------------------------------------- */

static void add_control(struct session *s, enum stream_type type, const uint8_t *data, uint8_t len)
{
    if (s->control_n + STREAM_HEADER + len > sizeof(s->control))
        return;     /* as many wait already; what they say is much the same */
    stream_header(s->control + s->control_n, type, len);
    if (len)
        memcpy(s->control + s->control_n + STREAM_HEADER, data, len);
    s->control_n += STREAM_HEADER + len;
}

static void add_resize(struct session *s)
{
    uint16_t rows = 0, cols = 0;

    s->resize = false;
    if (!s->spec->tty || !tty_size(&rows, &cols))
        return;
    add_control(s, STREAM_RESIZE, (const uint8_t[]){ (uint8_t)(rows >> 8), (uint8_t)rows,
                                                     (uint8_t)(cols >> 8), (uint8_t)cols }, 4);
}

/* A record is sent whole before another begins: control records go between two pieces. */
static int send_some(struct session *s, struct err *e)
{
    for (;;) {
        bool piece = s->piece_at > 0 || s->control_at == s->control_n;
        uint8_t *data = piece ? s->piece : s->control;
        size_t *at = piece ? &s->piece_at : &s->control_at;
        size_t *n = piece ? &s->piece_n : &s->control_n;

        if (*at == *n)
            return 0;
        ssize_t r = send(s->up.fd, data + *at, *n - *at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (r < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (r < 0) {
            /* The daemon may have said why before it closed: reading goes on to find out. */
            s->piece_n = s->piece_at = s->control_n = s->control_at = 0;
            s->stdin_open = false;
            return errno == EPIPE || errno == ECONNRESET
                       ? 0 : err_sys(e, ERR_UNREACHABLE, errno, "cannot send to sandboxd");
        }
        *at += (size_t)r;
        if (*at == *n)
            *at = *n = 0;
    }
}

static bool unsent(const struct session *s)
{
    return s->piece_at < s->piece_n || s->control_at < s->control_n;
}

static void piece_done(struct session *s, size_t len)
{
    stream_header(s->piece, STREAM_STDIN, (uint32_t)len);
    s->piece_n = STREAM_HEADER + len;
    s->piece_at = 0;
    s->sent_stdin = s->sent_stdin || len > 0;
}

static void send_all(struct session *s, int64_t deadline)
{
    struct err ignored = ERR_INIT;

    while (unsent(s) && io_wait(s->up.fd, POLLOUT, deadline, &ignored) > 0)
        if (send_some(s, &ignored) < 0)
            break;
}

/* The user's keys said: leave. The daemon closes when it has read that; were we first, it might see
 * a client that vanished, and end the command. */
static void leave(struct session *s)
{
    struct err ignored = ERR_INIT;
    int64_t deadline = deadline_in(LEAVE_MS);
    ssize_t n = 1;

    send_all(s, deadline);      /* what was typed before them */
    add_control(s, STREAM_DETACH, NULL, 0);
    send_all(s, deadline);
    while (n != 0 && io_wait(s->up.fd, POLLIN, deadline, &ignored) > 0) {
        n = recv(s->up.fd, s->up.buf, sizeof(s->up.buf), MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            break;
    }
    s->ended = true;
    s->status = 0;
    tty_restore();
    fputs("\r\n", stderr);
    note("left exec %s, which goes on; 'sbx attach %s %s' comes back to it", s->spec->exec,
         s->spec->sandbox, s->spec->exec);
}

static int take_stdin(struct session *s, struct err *e)
{
    uint8_t typed[STDIN_PIECE];
    size_t len = 0;
    ssize_t n = read(STDIN_FILENO, typed, sizeof(typed));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n < 0 && errno != EIO)      /* EIO: the terminal is gone */
        return err_sys(e, ERR_INTERNAL, errno, "cannot read stdin");
    if (n <= 0) {
        s->stdin_open = false;
        piece_done(s, 0);
        return 0;
    }
    if (detach_keys_filter(&s->keys, typed, (size_t)n, s->piece + STREAM_HEADER, &len)) {
        if (len)
            piece_done(s, len);
        leave(s);
        return 0;
    }
    s->keys_deadline = s->keys.matched ? deadline_in(KEYS_WAIT_MS) : DEADLINE_NONE;
    if (len)
        piece_done(s, len);
    return 0;
}

/* ---- from the daemon ----------------------------------------------------------------------- */

/* sys 0: it was closed. */
static int lost(struct session *s, int sys, struct err *e)
{
    static const char what[] = "the connection to sandboxd was lost";

    if (sys)
        err_sys(e, ERR_UNREACHABLE, sys, "%s", what);
    else
        err_set(e, ERR_UNREACHABLE, "%s", what);
    host_explain(&s->app->host, e);
    return err_hint(e, "'sbx execs %s' says whether exec %s still runs, 'sbx attach' goes on "
                       "with it%s",
                    s->spec->sandbox, s->spec->exec,
                    s->spec->lives ? "" : " if you are back soon: half a minute, then it is ended");
}

static int on_exit_record(struct session *s, const uint8_t *data, size_t len, struct err *e)
{
    struct exit_record r = { 0 };

    if (json_decode_lenient(exit_table, (const char *)data, len, &r, e) < 0)
        return err_wrap(e, "the end of the command cannot be read");
    s->ended = true;
    s->status = r.exit_code >= 0 && r.exit_code <= 255 ? r.exit_code : EXIT_OURS;
    bool is_lost = r.end && strcmp(r.end, "lost") == 0;
    json_done(exit_table, &r, sizeof(r));
    if (is_lost) {
        err_set(e, ERR_GUEST, "the sandbox ended while the command ran");
        return err_hint(e, "see 'sbx ls' and 'sbx logs --console %s'", s->spec->sandbox);
    }
    return 0;
}

static void on_gap(const struct session *s, const uint8_t *data, size_t len)
{
    uint64_t lost_bytes = 0;

    if (len != 9)
        return;
    for (size_t i = 1; i < 9; i++)
        lost_bytes = lost_bytes << 8 | data[i];
    if (lost_bytes)
        note("%llu bytes of %s are no longer kept, going on after them%s",
             (unsigned long long)lost_bytes, data[0] == 2 ? "stderr" : "stdout",
             s->raw ? "\r" : "");
}

/* Output of the record at up.buf that is not written yet. 1: all of it, 0: wait. */
static int put_output(struct session *s, int index, size_t len, struct err *e)
{
    const uint8_t *payload = s->up.buf + STREAM_HEADER;

    while (s->record_at < len) {
        ssize_t n = outfd_write(&s->out[index], payload + s->record_at, len - s->record_at);
        if (n == 0) {
            s->wait_out = index;
            return 0;
        }
        if (n < 0) {
            int sys = errno;
            if (sys == EPIPE || sys == EIO) {   /* whoever read it is gone: so are we, quietly */
                s->ended = true;
                s->status = 128 + SIGPIPE;
                return 0;
            }
            return err_sys(e, ERR_INTERNAL, sys, "cannot write to %s", index ? "stderr" : "stdout");
        }
        if (s->raw)
            tty_watch(payload + s->record_at, (size_t)n);
        s->record_at += (size_t)n;
    }
    return 1;
}

static int take_record(struct session *s, enum stream_type type, size_t len, struct err *e)
{
    const uint8_t *payload = s->up.buf + STREAM_HEADER;

    switch (type) {
    case STREAM_STDOUT:
    case STREAM_STDERR:
        return put_output(s, type == STREAM_STDERR, len, e);
    case STREAM_EXIT:
        return on_exit_record(s, payload, len, e) < 0 ? -1 : 1;
    case STREAM_ERROR:
        return client_reply_error(s->app, 500, (const char *)payload, len, e);
    case STREAM_GAP:
        on_gap(s, payload, len);
        return 1;
    default:
        return 1;       /* of a newer daemon */
    }
}

/* Works off the whole records that are here. */
static int take_records(struct session *s, struct err *e)
{
    s->wait_out = -1;
    while (!s->ended && s->up.n >= STREAM_HEADER) {
        enum stream_type type = 0;
        uint32_t len = 0;
        if (stream_parse(s->up.buf, &type, &len, e) < 0)
            return err_wrap(e, "sandboxd sent no record");
        if (s->up.n < STREAM_HEADER + len)
            return 0;
        int r = take_record(s, type, len, e);
        if (r <= 0)
            return r;
        s->record_at = 0;
        s->up.n -= STREAM_HEADER + len;
        memmove(s->up.buf, s->up.buf + STREAM_HEADER + len, s->up.n);
    }
    return 0;
}

static int receive(struct session *s, struct err *e)
{
    ssize_t n = recv(s->up.fd, s->up.buf + s->up.n, sizeof(s->up.buf) - s->up.n, MSG_DONTWAIT);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n <= 0)
        return lost(s, n ? errno : 0, e);
    s->up.n += (size_t)n;
    return take_records(s, e);
}

/* ---- signals ------------------------------------------------------------------------------- */

/* When much of stdin is on its way and the command does not read it, a record would wait behind it.
 * So the signal goes by a request of its own, in a child, as nobody waits for the answer. */
static void post_signal(const struct session *s, int signo)
{
    struct app app = { .host = s->app->host };
    autosbuf struct sbuf path = SBUF(1024);
    char body[32];
    struct err ignored = ERR_INIT;

    if (fork() != 0)
        return;
    alarm(DEADLINE_GUEST_REPLY / 1000);
    sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
    url_sandbox(&path, s->spec->sandbox, "/execs/");
    url_add(&path, s->spec->exec);
    sbuf_lit(&path, "/signal");
    snprintf(body, sizeof(body), "{\"signal\":\"%d\"}", signo);
    const struct call call = { .method = "POST", .path = sbuf_str(&path), .body = body };
    client_call(&app, &call, NULL, &ignored);
    _exit(0);
}

static void forward_signal(struct session *s, int signo)
{
    s->signal_repeats = s->last_signal == signo ? s->signal_repeats + 1 : 1;
    s->last_signal = signo;
    if (s->signal_repeats >= SIGNAL_PATIENCE) {
        s->ended = true;
        s->status = 128 + signo;
        tty_restore();
        note("left after %d signals; sandboxd ends the command%s", SIGNAL_PATIENCE,
             s->spec->lives ? " not: it was started with --detach" : "");
    } else if (s->sent_stdin) {
        post_signal(s, signo);
    } else {
        add_control(s, STREAM_SIGNAL, (const uint8_t[]){ (uint8_t)signo }, 1);
    }
}

/* From outside, as Ctrl-Z goes to the guest: the shell gets its terminal back while we stand. */
static void stop_here(struct session *s)
{
    bool raw = s->raw;

    tty_restore();
    raise(SIGSTOP);
    struct err ignored = ERR_INIT;
    if (raw && tcgetpgrp(STDIN_FILENO) == getpgrp())
        tty_raw(STDIN_FILENO, &ignored);
    s->resize = true;
}

static void take_signal(struct session *s)
{
    struct signalfd_siginfo info;

    if (read(s->signals, &info, sizeof(info)) != sizeof(info))
        return;
    int signo = (int)info.ssi_signo;
    switch (signo) {
    case SIGWINCH:
        s->resize = true;
        break;
    case SIGCONT:
        tty_resume();
        s->resize = true;
        break;
    case SIGTSTP:
        stop_here(s);
        break;
    case SIGHUP:        /* the terminal is gone; the daemon does the same to the command */
        s->ended = true;
        s->status = 128 + signo;
        break;
    default:
        if (s->spec->watch) {
            leave(s);
        } else if (s->raw) {   /* not typed, as keys are no signals now: meant for us */
            s->ended = true;
            s->status = 128 + signo;
        } else {
            forward_signal(s, signo);
        }
    }
}

static int catch_signals(struct session *s, struct err *e)
{
    static const int wanted[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        struct sigaction old;
        /* What our parent ignores (nohup, background jobs) stays ignored. */
        if (sigaction(wanted[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaddset(&set, wanted[i]);
    }
    if (s->spec->tty) {
        sigaddset(&set, SIGWINCH);
        sigaddset(&set, SIGCONT);
        if (s->raw)
            sigaddset(&set, SIGTSTP);
    }
    if (sigprocmask(SIG_BLOCK, &set, &s->old_mask) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot block signals");
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signals < 0 ? err_sys(e, ERR_INTERNAL, errno, "cannot make a signalfd") : 0;
}

/* ---- the loop ------------------------------------------------------------------------------ */

static int64_t flush_keys(struct session *s)
{
    if (s->keys_deadline == DEADLINE_NONE || s->piece_n)
        return DEADLINE_NONE;
    if (now_mono_ms() >= s->keys_deadline) {
        memcpy(s->piece + STREAM_HEADER, s->keys.key, s->keys.matched);
        piece_done(s, s->keys.matched);
        s->keys.matched = 0;
        s->keys_deadline = DEADLINE_NONE;
    }
    return s->keys_deadline;
}

static int turn(struct session *s, struct err *e)
{
    enum { SOCK, SIG, IN, OUT, N };
    int64_t deadline = flush_keys(s);

    if (s->resize)
        add_resize(s);
    if (send_some(s, e) < 0)
        return -1;
    bool blocked = s->wait_out >= 0;
    struct pollfd p[N] = {
        [SOCK] = { .fd = s->up.fd,
                   .events = (short)((blocked ? 0 : POLLIN) | (unsent(s) ? POLLOUT : 0)) },
        [SIG] = { .fd = s->signals, .events = POLLIN },
        [IN] = { .fd = s->stdin_open && !s->piece_n ? STDIN_FILENO : -1, .events = POLLIN },
        [OUT] = { .fd = blocked ? s->out[s->wait_out].fd : -1, .events = POLLOUT },
    };
    if (!p[SOCK].events)
        p[SOCK].fd = -1;        /* a hang-up would wake us again and again */
    if (poll(p, N, deadline_left(deadline)) < 0)
        return errno == EINTR ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot wait");
    if (p[SIG].revents)
        take_signal(s);
    if (!s->ended && p[OUT].revents && take_records(s, e) < 0)
        return -1;
    if (!s->ended && !blocked && (p[SOCK].revents & (POLLIN | POLLHUP | POLLERR)) &&
        receive(s, e) < 0)
        return -1;
    if (!s->ended && p[IN].revents && take_stdin(s, e) < 0)
        return -1;
    return 0;
}

static int run(struct session *s, struct err *e)
{
    if (s->spec->tty && s->spec->stdin && isatty(STDIN_FILENO)) {
        if (tty_raw(STDIN_FILENO, e) < 0)
            return -1;
        s->raw = true;
        s->keys = s->spec->keys;
        s->resize = true;       /* it may have changed since the request was made */
    }
    if (catch_signals(s, e) < 0)
        return -1;
    if (take_records(s, e) < 0)     /* what came with the 101 */
        return -1;
    while (!s->ended)
        if (turn(s, e) < 0)
            return -1;
    return s->status;
}

int exec_stream_run(struct app *app, const struct stream_spec *spec, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);
    autofree struct session *s = calloc(1, sizeof(*s));

    if (!s)
        return err_nomem(e);
    s->app = app;
    s->spec = spec;
    s->signals = s->wait_out = -1;
    s->stdin_open = spec->stdin;
    s->keys_deadline = DEADLINE_NONE;
    sigprocmask(SIG_SETMASK, NULL, &s->old_mask);
    url_sandbox(&path, spec->sandbox, "/execs/");
    url_add(&path, spec->exec);
    sbuf_lit(&path, "/attach");
    signal(SIGPIPE, SIG_IGN);
    if (upgrade_open(app, sbuf_str(&path), &s->up, e) < 0)
        return -1;
    outfd_init(&s->out[0], STDOUT_FILENO);
    outfd_init(&s->out[1], STDERR_FILENO);
    int r = run(s, e);
    tty_restore();
    upgrade_close(&s->up);
    outfd_done(&s->out[0]);
    outfd_done(&s->out[1]);
    fd_close(s->signals);
    sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
    return r;
}
