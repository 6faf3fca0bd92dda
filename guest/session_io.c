/* SPDX-License-Identifier: MIT
 *
 * Streams of a session. The place of a byte in a ring is its offset modulo LIMIT_WINDOW. Output is
 * read no further than the credit reaches, so what the daemon may ask for again, [credit -
 * LIMIT_WINDOW, end), is always there.
 */
#include "guest/session.h"
#include "common/auto.h"
#include "common/io.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <syslog.h>
#include <termios.h>
#include <unistd.h>

#define DRAIN_MAX (256 * 1024)      /* of a terminal after its process exited */
#define TTY_AGAIN_MS 100

static uint8_t scratch[LIMIT_FRAME];
_Static_assert(sizeof(scratch) > 8, "a frame holds an offset and some bytes");

static uint8_t *ring_map(void)
{
    void *p = mmap(NULL, LIMIT_WINDOW, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static void ring_unmap(uint8_t **ring)
{
    if (*ring)
        munmap(*ring, LIMIT_WINDOW);
    *ring = NULL;
}

/* Bytes of [from, to) that lie in one piece at `from`. */
static size_t piece(uint64_t from, uint64_t to)
{
    uint64_t left = LIMIT_WINDOW - from % LIMIT_WINDOW;

    return (size_t)(to - from < left ? to - from : left);
}

static void watch(struct session *s, struct source *src, uint32_t events)
{
    struct err e = ERR_INIT;

    if (src->fd >= 0 && loop_watch(s->table->loop, src, events, &e) < 0) {
        if (s->table->log)
            s->table->log(s->table->log_arg, LOG_ERR, e.msg);
        loop_close(s->table->loop, src);
    }
}

/* Output */

static bool discards(const struct session_out *o)
{
    return o->final_known && o->end >= o->final;
}

/* How far it may be read: credit, room for what is not sent, and the end of what is its own. */
static uint64_t read_limit(const struct session_out *o)
{
    uint64_t base = o->credit > LIMIT_WINDOW ? o->credit - LIMIT_WINDOW : 0;
    uint64_t kept = base < o->sent ? base : o->sent;
    uint64_t limit = o->credit < kept + LIMIT_WINDOW ? o->credit : kept + LIMIT_WINDOW;

    if (o->final_known && limit > o->final)
        limit = o->final;
    return limit > o->end ? limit : o->end;
}

void session_out_watch(struct session_out *o)
{
    bool want = discards(o) || read_limit(o) > o->end;

    if (o->session->tty_again_at > 0)
        want = false;
    watch(o->session, &o->src, want ? EPOLLIN : 0);
}

static void finish(struct session_out *o)
{
    if (o->final_known)
        return;
    o->final_known = true;
    o->final = o->end;
}

/* Nobody holds the other end. A terminal can be opened again as long as its process lives. */
static void hung_up(struct session_out *o)
{
    struct session *s = o->session;

    if (s->tty && s->phase != SESSION_EXITED) {
        s->tty_again_at = deadline_in(TTY_AGAIN_MS);
        session_out_watch(o);
        return;
    }
    loop_close(s->table->loop, &o->src);
    if (o->final_known && o->final > o->end)
        o->final = o->end;      /* somebody else has read what we counted on */
    finish(o);
}

static void discard(struct session_out *o)
{
    ssize_t n = read(o->src.fd, scratch, sizeof(scratch));

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        hung_up(o);
}

/* Reads what there is and may be. */
void session_out_pump(struct session_out *o)
{
    while (o->src.fd >= 0 && !discards(o)) {
        uint64_t limit = read_limit(o);
        ssize_t n;

        if (o->session->phase == SESSION_EXITED && !o->final_known && o->end >= o->drain_to)
            finish(o);
        if (limit == o->end)
            break;
        if (!o->ring && !(o->ring = ring_map())) {
            loop_close(o->session->table->loop, &o->src);   /* fails this exec: it sees EPIPE */
            finish(o);
            break;
        }
        n = read(o->src.fd, o->ring + o->end % LIMIT_WINDOW, piece(o->end, limit));
        if (n > 0) {
            o->end += (uint64_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            if (o->session->phase == SESSION_EXITED && o->session->tty)
                finish(o);
            break;
        } else if (n == 0 || errno != EINTR) {
            hung_up(o);
            break;
        }
    }
    session_out_watch(o);
}

void session_on_out(void *arg, uint32_t events)
{
    struct session_out *o = arg;

    if (discards(o))
        discard(o);
    else
        session_out_pump(o);
}

/* The main process is gone: where does its output end? */
void session_out_exited(struct session_out *o)
{
    int n = 0;

    if (o->src.fd < 0) {
        finish(o);
        return;
    }
    if (!o->session->tty && !o->final_known) {
        if (ioctl(o->src.fd, FIONREAD, &n) < 0 || n < 0)
            n = 0;
        o->final_known = true;
        o->final = o->end + (uint64_t)n;
    }
    o->drain_to = o->end + DRAIN_MAX;
    session_out_pump(o);
}

/* Nobody will ask for it any more, or nobody may. */
void session_out_drop(struct session_out *o)
{
    ring_unmap(&o->ring);
    o->sent = o->end;
}

int session_out_put(struct session_out *o, struct chan *c)
{
    struct wire_out w = { .p = scratch, .cap = sizeof(scratch) };
    uint64_t to = o->end < o->credit ? o->end : o->credit;
    uint32_t room = chan_room(c);

    if (to > o->sent && o->ring) {
        size_t done = 8, len = (size_t)(to - o->sent);

        if (room < 1024)
            return -1;
        if (len > room - 8)
            len = room - 8;
        wire_put_u64(&w, o->sent);
        while (done < 8 + len) {
            size_t n = piece(o->sent, o->sent + (8 + len - done));

            memcpy(scratch + done, o->ring + o->sent % LIMIT_WINDOW, n);
            done += n;
            o->sent += n;
        }
        if (!chan_put(c, FRAME_DATA, o->fd, o->session->stream, scratch, (uint32_t)done))
            o->sent -= len;
        else if (read_limit(o) > o->end)
            session_out_watch(o);
        return 1;
    }
    if (o->final_known && !o->eof_sent && o->sent >= o->final) {
        wire_put_u64(&w, o->final);
        if (!chan_put(c, FRAME_EOF, o->fd, o->session->stream, scratch, 8))
            return -1;
        o->eof_sent = true;
        return 1;
    }
    return 0;
}

/* Input */

/* The daemon is told of room in steps, not for each byte. */
static void count_consumed(struct session *s)
{
    if (s->in.open && s->in.consumed + LIMIT_WINDOW - s->in.told >= LIMIT_WINDOW / 4)
        s->want_credit = true;
}

void session_in_close(struct session *s)
{
    loop_close(s->table->loop, &s->in.src);
    ring_unmap(&s->in.ring);
    s->in.consumed = s->in.received;
    count_consumed(s);
}

/* A terminal has no end of input to be closed: its end-of-file character is typed, if it reads
 * lines just now. Returns whether that is done. */
static bool type_eof(struct session *s)
{
    struct termios t;
    ssize_t n = 1;

    if (tcgetattr(s->in.src.fd, &t) == 0 && t.c_lflag & ICANON)
        n = write(s->in.src.fd, &t.c_cc[VEOF], 1);
    return n >= 0 || (errno != EAGAIN && errno != EINTR);
}

void session_in_flush(struct session *s)
{
    struct session_in *in = &s->in;

    while (in->src.fd >= 0 && in->consumed < in->received) {
        ssize_t n = write(in->src.fd, in->ring + in->consumed % LIMIT_WINDOW,
                          piece(in->consumed, in->received));

        if (n >= 0) {
            in->consumed += (uint64_t)n;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            session_in_close(s);    /* nobody reads it: the rest is taken and dropped */
        }
    }
    if (in->eof && in->consumed == in->received && in->src.fd >= 0 && (!s->tty || type_eof(s)))
        session_in_close(s);
    count_consumed(s);
    watch(s, &in->src, in->consumed < in->received || in->eof ? EPOLLOUT : 0);
}

void session_on_in(void *arg, uint32_t events)
{
    session_in_flush(arg);
}

void session_data(struct session *s, uint64_t offset, const uint8_t *data, size_t len)
{
    struct session_in *in = &s->in;

    if (!in->open || in->eof || offset > in->received || offset + len <= in->received)
        return;
    data += in->received - offset;
    len -= (size_t)(in->received - offset);
    if (in->src.fd < 0) {               /* ended, or it has closed its input */
        in->received += len;
        in->consumed = in->received;
        count_consumed(s);
        return;
    }
    if (in->received + len > in->consumed + LIMIT_WINDOW)
        return;                         /* more than it may: it has to ask where we stand */
    if (!in->ring && !(in->ring = ring_map())) {
        session_in_close(s);
        return;
    }
    while (len > 0) {
        size_t n = piece(in->received, in->received + len);

        memcpy(in->ring + in->received % LIMIT_WINDOW, data, n);
        in->received += n;
        data += n;
        len -= n;
    }
    session_in_flush(s);
}

void session_eof(struct session *s, uint64_t offset)
{
    if (!s->in.open || s->in.eof || offset != s->in.received)
        return;
    s->in.eof = true;
    session_in_flush(s);
}
