/* SPDX-License-Identifier: MIT
 *
 * One thread (the connection's) moves both directions with one poll over three descriptors: the
 * client, the exec's reader, and the daemon's stop.
 *
 * Memory is the two buffers below. Output is taken from the exec only when the buffer to the client
 * is empty; so a slow client leaves it in the ring, the exec gets no further credit, and the
 * guest's process blocks. Input is taken from the client only while there is room; the rest waits
 * in the client's socket.
 *
 * How it ends:
 *     EXIT sent               everything was delivered
 *     DETACH came             the exec goes on
 *     client gone             the exec is ended, unless it was created with detach
 *     record we cannot take   ERROR sent; then as if the client had gone
 *     daemon stops            ERROR "unavailable" sent; the exec goes on and can be attached again
 */
#include "daemon/upgrade.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/stream.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define IN_SIZE (32 * KIB)
#define OUT_DATA (LIMIT_STREAM_FRAME)
#define GAP_LEN 9
#define NOTE_MAX 1024           /* JSON of EXIT and ERROR */
#define OUT_SIZE (OUT_DATA + 3 * STREAM_HEADER + GAP_LEN + NOTE_MAX)
#define CLOSE_MS 2000           /* for the last bytes to the client, and for its own close */
#define TICK_MS 60000

enum leave { STAY, LEAVE_EXIT, LEAVE_DETACHED, LEAVE_GONE, LEAVE_ERROR, LEAVE_STOP };

struct attach {
    struct exec *exec;              /* ref */
    struct exec_reader *reader;     /* owned */
    bool keeps;                     /* created with detach: lives on without a client */
    bool ended;                     /* nothing more to be done about the exec when we leave */
    char request[17];
    enum leave leave;
    struct err error;               /* LEAVE_ERROR, LEAVE_STOP */

    /* from the client: bytes [in_pos, in_len) of `in`, and the record that is being read */
    size_t in_pos, in_len;
    bool in_record;
    bool in_waits;                  /* stdin was not taken whole */
    enum stream_type type;
    uint32_t left;
    /* to the client: bytes [out_pos, out_len) of `out` */
    size_t out_pos, out_len;
    uint8_t in[IN_SIZE];
    uint8_t out[OUT_SIZE];
};

struct exit_note { char *end; int32_t exit_code; uint32_t signal; };
static const struct jfield exit_table[] = {
    JF(struct exit_note, end, JT_STR),
    JF(struct exit_note, exit_code, JT_I32),
    JF(struct exit_note, signal, JT_U32),
    JF_END
};

/* --- to the client --- */

static void put_record(struct attach *a, enum stream_type type, const void *payload, size_t len)
{
    stream_header(a->out + a->out_len, type, (uint32_t)len);
    memcpy(a->out + a->out_len + STREAM_HEADER, payload, len);
    a->out_len += STREAM_HEADER + len;
}

/* The last record. What is still in `out` goes before it; there is always room for one. */
static void put_json(struct attach *a, enum stream_type type, const struct jfield *table,
                     const void *obj)
{
    autosbuf struct sbuf b = SBUF(NOTE_MAX);
    struct err e = ERR_INIT;

    if (a->out_pos > 0) {
        memmove(a->out, a->out + a->out_pos, a->out_len - a->out_pos);
        a->out_len -= a->out_pos;
        a->out_pos = 0;
    }
    if (json_encode(table, obj, &b, &e) == 0 && !b.failed)
        put_record(a, type, sbuf_str(&b), b.len);
}

static void put_exit(struct attach *a)
{
    struct api_exec x = { 0 };

    if (exec_describe(a->exec, &x, &a->error) < 0) {
        a->leave = LEAVE_ERROR;
        return;
    }
    struct exit_note note = { .end = x.end, .exit_code = x.exit_code, .signal = x.signal };
    put_json(a, STREAM_EXIT, exit_table, &note);
    json_done(api_exec_table, &x, sizeof(x));
    a->ended = true;
    a->leave = LEAVE_EXIT;
}

static void put_error(struct attach *a)
{
    bool internal = a->error.code == ERR_INTERNAL;
    struct api_error body = { .error = {
        .code = (char *)err_wire(a->error.code),
        .message = internal ? (char *)"internal error" : a->error.msg,
        .hint = !internal && a->error.hint[0] ? a->error.hint : NULL,
        .request_id = a->request } };

    if (internal)
        log_err(LOG_CTX(.request = a->request, .exec = exec_id(a->exec), .error = &a->error),
                "an attached exec failed");
    put_json(a, STREAM_ERROR, api_error_table, &body);
}

/* Takes the next piece of output, when the last one is out. */
static void fill(struct attach *a)
{
    uint8_t *data = a->out + STREAM_HEADER + GAP_LEN + STREAM_HEADER;
    uint64_t lost = 0;
    bool ended = false;
    int fd = 0;
    int64_t n = exec_read(a->reader, data, OUT_DATA, &fd, &lost, &ended, &a->error);

    if (n < 0) {
        a->leave = a->error.code == ERR_UNAVAILABLE ? LEAVE_STOP : LEAVE_ERROR;
        return;
    }
    a->out_pos = a->out_len = 0;
    if (n > 0 && lost > 0) {
        uint8_t gap[GAP_LEN] = { (uint8_t)fd };
        for (int i = 0; i < 8; i++)
            gap[1 + i] = (uint8_t)(lost >> (56 - 8 * i));
        put_record(a, STREAM_GAP, gap, sizeof(gap));
        stream_header(a->out + a->out_len, fd == 2 ? STREAM_STDERR : STREAM_STDOUT, (uint32_t)n);
        a->out_len += STREAM_HEADER + (size_t)n;    /* the bytes are in their place */
    } else if (n > 0) {
        a->out_pos = STREAM_HEADER + GAP_LEN;
        a->out_len = a->out_pos;
        stream_header(a->out + a->out_len, fd == 2 ? STREAM_STDERR : STREAM_STDOUT, (uint32_t)n);
        a->out_len += STREAM_HEADER + (size_t)n;
    } else if (ended) {
        put_exit(a);
    }
}

static void send_some(struct attach *a, int fd)
{
    while (a->out_pos < a->out_len) {
        ssize_t n = send(fd, a->out + a->out_pos, a->out_len - a->out_pos,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0) {
            a->leave = LEAVE_GONE;
            return;
        }
        a->out_pos += (size_t)n;
    }
}

/* --- from the client --- */

static void refuse(struct attach *a, const char *what)
{
    err_set(&a->error, ERR_INVALID, "%s", what);
    a->leave = LEAVE_ERROR;
}

/* RESIZE, SIGNAL, DETACH: short, whole in the buffer. */
static void take_control(struct attach *a, const uint8_t *p, uint32_t len)
{
    struct err e = ERR_INIT;
    int r = 0;

    if (a->type == STREAM_DETACH && len == 0)
        a->leave = LEAVE_DETACHED;
    else if (a->type == STREAM_RESIZE && len == 4)
        r = exec_resize(a->exec, (uint16_t)(p[0] << 8 | p[1]), (uint16_t)(p[2] << 8 | p[3]), &e);
    else if (a->type == STREAM_SIGNAL && len == 1)
        r = exec_signal(a->exec, p[0], &e);
    else
        refuse(a, "record of a type or length that clients do not send");
    /* one that has just ended: its EXIT says so */
    if (r < 0 && e.code != ERR_EXEC_STATE) {
        a->error = e;
        a->leave = LEAVE_ERROR;
    }
}

/* Input of the current STDIN record; true when something moved. */
static bool take_stdin(struct attach *a)
{
    size_t have = a->in_len - a->in_pos;
    size_t n = have < a->left ? have : a->left;

    if (n == 0)
        return false;
    int64_t taken = exec_stdin(a->reader, a->in + a->in_pos, n, &a->error);
    if (taken < 0) {
        a->leave = LEAVE_ERROR;
        return false;
    }
    a->in_pos += (size_t)taken;
    a->left -= (uint32_t)taken;
    a->in_waits = (size_t)taken < n;
    return !a->in_waits;
}

static bool begin_record(struct attach *a)
{
    if (a->in_len - a->in_pos < STREAM_HEADER)
        return false;
    if (stream_parse(a->in + a->in_pos, &a->type, &a->left, &a->error) < 0) {
        a->leave = LEAVE_ERROR;
        return false;
    }
    a->in_pos += STREAM_HEADER;
    a->in_record = true;
    if (a->type == STREAM_STDIN && a->left == 0 &&
        exec_stdin(a->reader, NULL, 0, &a->error) < 0) {
        a->leave = LEAVE_ERROR;
        return false;
    }
    if (a->type != STREAM_STDIN && a->left > 4) {
        refuse(a, "record of a type or length that clients do not send");
        return false;
    }
    return true;
}

static void take_input(struct attach *a)
{
    a->in_waits = false;
    while (a->leave == STAY) {
        if (!a->in_record && !begin_record(a))
            break;
        if (a->type == STREAM_STDIN) {
            if (a->left > 0 && !take_stdin(a))
                break;
        } else if (a->in_len - a->in_pos >= a->left) {
            take_control(a, a->in + a->in_pos, a->left);
            a->in_pos += a->left;
            a->left = 0;
        } else {
            break;
        }
        a->in_record = a->left > 0;
    }
    memmove(a->in, a->in + a->in_pos, a->in_len - a->in_pos);
    a->in_len -= a->in_pos;
    a->in_pos = 0;
}

static void receive(struct attach *a, int fd)
{
    ssize_t n = recv(fd, a->in + a->in_len, IN_SIZE - a->in_len, MSG_DONTWAIT);

    if (n > 0)
        a->in_len += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        a->leave = LEAVE_GONE;
}

/* --- the loop --- */

static void step(struct attach *a, const struct upgrade_io *io)
{
    struct pollfd p[3] = {
        { .fd = io->fd },
        { .fd = a->out_pos == a->out_len ? exec_reader_fd(a->reader) : -1, .events = POLLIN },
        { .fd = io->stop_fd, .events = POLLIN },
    };

    /* A full buffer is not read into; input that waits for the exec would only fill it. */
    if (a->in_len < IN_SIZE && !a->in_waits)
        p[0].events |= POLLIN;
    if (a->out_pos < a->out_len)
        p[0].events |= POLLOUT;
    if (poll(p, 3, TICK_MS) < 0)
        return;
    if (p[2].revents) {
        err_set(&a->error, ERR_UNAVAILABLE, "sandboxd is stopping; the command goes on");
        err_hint(&a->error, "attach again when it is back");
        a->leave = LEAVE_STOP;
        return;
    }
    if (p[0].revents & POLLIN)
        receive(a, io->fd);
    else if (p[0].revents & (POLLHUP | POLLERR))
        a->leave = LEAVE_GONE;
    if (a->leave == STAY && p[1].revents)
        fill(a);
    if (a->leave == STAY)
        take_input(a);
    if (a->leave == STAY || a->leave == LEAVE_EXIT)
        send_some(a, io->fd);
}

/* Delivers what is left, then lets the client close first, so that nothing on its way is lost. */
static void say_goodbye(struct attach *a, int fd)
{
    int64_t deadline = deadline_in(CLOSE_MS);
    struct err e = ERR_INIT;
    uint8_t junk[512];

    if (io_write_full(fd, a->out + a->out_pos, a->out_len - a->out_pos, deadline, &e) < 0)
        return;
    shutdown(fd, SHUT_WR);
    while (io_wait(fd, POLLIN, deadline, &e) == 1) {
        ssize_t n = recv(fd, junk, sizeof(junk), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            break;
    }
}

/* A client that still takes its output may be slow, so EXIT waits for it; the end of the daemon and
 * of the client do not. */
static void deliver(struct attach *a, const struct upgrade_io *io)
{
    while (a->leave == LEAVE_EXIT && a->out_pos < a->out_len) {
        struct pollfd p[2] = { { .fd = io->fd, .events = POLLOUT },
                               { .fd = io->stop_fd, .events = POLLIN } };
        if (poll(p, 2, TICK_MS) < 0)
            continue;
        if (p[1].revents || (p[0].revents & (POLLHUP | POLLERR)))
            break;
        send_some(a, io->fd);
    }
}

static void attach_run(void *arg, const struct upgrade_io *io)
{
    struct attach *a = arg;

    if (io->extra_len > IN_SIZE) {
        refuse(a, "too much before the answer");
    } else if (io->extra_len > 0) {
        memcpy(a->in, io->extra, io->extra_len);
        a->in_len = io->extra_len;
        take_input(a);
    }
    while (a->leave == STAY)
        step(a, io);
    if (a->leave == LEAVE_ERROR || a->leave == LEAVE_STOP)
        put_error(a);
    if (a->leave == LEAVE_DETACHED)
        exec_keep(a->exec);
    if (a->leave == LEAVE_STOP || a->leave == LEAVE_DETACHED)
        a->ended = true;        /* ended for us: it goes on */
    deliver(a, io);
    log_debug(LOG_CTX(.request = a->request, .exec = exec_id(a->exec)), "attached client left: %s",
              a->leave == LEAVE_EXIT       ? "exit"
              : a->leave == LEAVE_DETACHED ? "detached"
              : a->leave == LEAVE_GONE     ? "gone"
              : a->leave == LEAVE_STOP     ? "stop"
                                           : a->error.msg);
    if (!a->ended && !a->keeps)
        exec_end(a->exec);      /* before the wait below */
    exec_detach(take_ptr(a->reader));
    if (a->leave != LEAVE_GONE)
        say_goodbye(a, io->fd);
}

static void attach_free(void *arg)
{
    struct attach *a = arg;

    if (a->reader) {            /* the client went before the 101 reached it */
        if (!a->keeps)
            exec_end(a->exec);
        exec_detach(a->reader);
    }
    exec_unref(a->exec);
    free(a);
}

AUTO_DEFINE(exec, struct exec, exec_unref)

int upgrade_attach_take(struct call *c, struct exec **x, uint64_t stdout_offset,
                        uint64_t stderr_offset, struct err *e)
{
    autotype(exec) struct exec *exec = take_ptr(*x);
    autofree struct attach *a = calloc(1, sizeof(*a));
    struct api_exec about = { 0 };

    if (!a)
        return err_nomem(e);
    if (exec_describe(exec, &about, e) < 0)
        return -1;
    a->keeps = about.detach;
    json_done(api_exec_table, &about, sizeof(about));
    memcpy(a->request, c->caller.request, sizeof(a->request));
    if (exec_attach(exec, stdout_offset, stderr_offset, &a->reader, e) < 0)
        return -1;
    a->exec = take_ptr(exec);
    c->reply.status = 101;
    c->reply.upgrade = (struct reply_upgrade){ .protocol = STREAM_PROTOCOL, .run = attach_run,
                                               .free = attach_free, .arg = take_ptr(a) };
    return 0;
}
