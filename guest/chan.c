/* SPDX-License-Identifier: MIT
 *
 * A virtio-serial port whose other end is closed reports a hang-up for as long as it lasts, which
 * cannot be masked. Edge-triggered, it is reported once, and the next edge comes when the host
 * opens its end. So descriptors are watched for edges, and what we know of them is kept in
 * can_read and can_write.
 */
#include "guest/chan.h"
#include "common/auto.h"
#include "common/io.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_PER_TURN (256 * 1024)
#define WRITE_PER_TURN (512 * 1024)

static void on_io(void *arg, uint32_t events)
{
    struct chan *c = arg;

    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        c->can_read = true;
    if (events & EPOLLOUT)
        c->can_write = true;
}

static int watch_take(struct chan *c, int *fd, struct err *e)
{
    c->io = (struct source){ .fd = take_fd(fd), .fn = on_io, .arg = c };
    if (fd_set_nonblock(c->io.fd, true, e) < 0)
        return -1;
    c->can_read = c->can_write = true;
    return loop_watch(c->loop, &c->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, e);
}

/* Nobody is at the other end any more. The next one begins with a HELLO and does not want to know
 * of what was meant for this one. */
static void lose(struct chan *c)
{
    c->greeted = false;
    c->can_read = false;
    c->out_at = c->out_len = 0;
    c->quiet_at = 0;
    frame_decoder_init(&c->dec, 0);
    if (c->kind == CHAN_PORT)
        return;
    loop_close(c->loop, &c->io);
    c->ended = c->kind == CHAN_SOCKET;
}

static void on_connect(void *arg, uint32_t events)
{
    struct chan *c = arg;
    autoclose int fd = accept4(c->listener.fd, NULL, NULL, SOCK_CLOEXEC);
    struct err e = ERR_INIT;

    if (fd < 0)
        return;
    if (c->io.fd >= 0)
        lose(c);            /* the newer one counts: the older may be dead and not know it */
    if (watch_take(c, &fd, &e) < 0)
        lose(c);
}

int chan_init_take(struct chan *c, struct loop *loop, enum chan_kind kind, int *fd,
                   const struct chan_ops *ops, void *arg, struct err *e)
{
    c->loop = loop;
    c->ops = ops;
    c->arg = arg;
    c->kind = kind;
    c->listener = c->io = SOURCE_NONE;
    c->can_read = c->can_write = c->greeted = c->ended = false;
    c->quiet_at = 0;
    c->out_at = c->out_len = 0;
    frame_decoder_init(&c->dec, 0);
    if (kind != CHAN_LISTEN)
        return watch_take(c, fd, e);
    c->listener = (struct source){ .fd = take_fd(fd), .fn = on_connect, .arg = c };
    if (fd_set_nonblock(c->listener.fd, true, e) < 0)
        return -1;
    return loop_watch(loop, &c->listener, EPOLLIN, e);
}

void chan_done(struct chan *c)
{
    loop_close(c->loop, &c->listener);
    loop_close(c->loop, &c->io);
}

void chan_greeted(struct chan *c, bool anew)
{
    c->greeted = true;
    if (anew)
        c->out_at = c->out_len = 0;
}

uint32_t chan_room(const struct chan *c)
{
    size_t left = sizeof(c->out) - c->out_len;

    if (left < FRAME_OVERHEAD)
        return 0;
    left -= FRAME_OVERHEAD;
    return left > LIMIT_FRAME ? LIMIT_FRAME : (uint32_t)left;
}

bool chan_put(struct chan *c, enum frame_type type, uint8_t fd, uint32_t stream,
              const void *payload, uint32_t len)
{
    if (len > LIMIT_FRAME || sizeof(c->out) - c->out_len < FRAME_OVERHEAD + len)
        return false;
    c->out_len += frame_encode(c->out + c->out_len, c->dec.epoch, type, fd, stream, payload, len);
    return true;
}

static void decode(struct chan *c, const uint8_t *p, size_t len)
{
    int fd = c->io.fd;

    while (len > 0 && c->io.fd == fd) {
        struct frame f;
        size_t used = 0;
        int r = frame_decode(&c->dec, p, len, &used, &f);

        p += used;
        len -= used;
        if (r == 1)
            c->ops->frame(c->arg, &f);
    }
    c->quiet_at = frame_decoder_partial(&c->dec) ? deadline_in(FRAME_QUIET_MS) : 0;
}

/* Returns whether there may be more. */
static bool read_some(struct chan *c)
{
    static uint8_t buf[64 * 1024];
    size_t total = 0;

    while (c->can_read && total < READ_PER_TURN) {
        ssize_t n = read(c->io.fd, buf, sizeof(buf));

        if (n > 0) {
            total += (size_t)n;
            decode(c, buf, (size_t)n);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            lose(c);
        } else if (errno == EAGAIN) {
            c->can_read = false;
        }
    }
    return c->can_read;
}

static bool write_some(struct chan *c)
{
    size_t total = 0;

    while (c->can_write && c->greeted && total < WRITE_PER_TURN) {
        if (c->out_at == c->out_len) {
            c->out_at = c->out_len = 0;
            c->ops->fill(c->arg);
            if (c->out_len == 0)
                return false;
        }
        ssize_t n = write(c->io.fd, c->out + c->out_at, c->out_len - c->out_at);
        if (n >= 0) {
            c->out_at += (size_t)n;
            total += (size_t)n;
        } else if (errno != EINTR) {
            c->can_write = false;       /* what else is wrong shows when reading */
        }
    }
    return c->can_write && c->greeted;
}

bool chan_turn(struct chan *c)
{
    struct frame f;
    bool more;

    if (c->io.fd < 0)
        return false;
    more = read_some(c);
    if (c->io.fd < 0)
        return false;
    if (!more && c->quiet_at > 0 && now_mono_ms() >= c->quiet_at) {
        c->quiet_at = 0;
        if (frame_decoder_quiet(&c->dec, &f) == 1)
            c->ops->frame(c->arg, &f);
    }
    return write_some(c) || more;
}

int64_t chan_deadline(const struct chan *c)
{
    return c->quiet_at > 0 ? c->quiet_at : DEADLINE_NONE;
}
