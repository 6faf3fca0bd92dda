/* SPDX-License-Identifier: MIT */
#include "daemon/console.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "daemon/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (16 * KIB)
#define SECOND_MS 1000

struct console {
    int in_fd, log_fd;          /* owned: the pipe's end; the log, appending */
    uint64_t size;              /* of the log, if nobody else writes to it */
    struct evsource *source, *timer;    /* owned */
    /* the event thread's */
    int64_t since;              /* monotonic ms: this second began */
    uint64_t taken;             /* bytes in it */
    bool rests;                 /* had its share of this second */
};

static const char left_out[] = "\n[console: more than can be kept, some is left out]\n";

static void append(struct console *c, const void *data, size_t len)
{
    if (c->size > LIMIT_CONSOLE_LOG) {
        logfile_cut(c->log_fd);
        c->size = LIMIT_LOG_KEPT;
    }
    /* A disk that is full loses the console of the moment, and nothing else. */
    ssize_t n = write(c->log_fd, data, len);
    if (n > 0)
        c->size += (uint64_t)n;
}

/* Up to `max` bytes; false when the pipe has no writer any more. */
static bool take(struct console *c, uint64_t max)
{
    char piece[PIECE];

    while (max > 0) {
        ssize_t n = read(c->in_fd, piece, max < sizeof(piece) ? max : sizeof(piece));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        if (n == 0)
            return false;
        append(c, piece, (size_t)n);
        c->taken += (uint64_t)n;
        max -= (uint64_t)n;
    }
    return true;
}

static void on_timer(void *arg)
{
    struct console *c = arg;

    c->rests = false;
    evloop_set_events(c->source, EPOLLIN);
}

static void on_readable(void *arg, uint32_t events)
{
    struct console *c = arg;
    int64_t now = now_mono_ms();

    if (now - c->since >= SECOND_MS) {
        c->since = now;
        c->taken = 0;
    }
    if (!take(c, c->taken < LIMIT_CONSOLE_RATE ? LIMIT_CONSOLE_RATE - c->taken : 0)) {
        evloop_set_events(c->source, 0);    /* QEMU has ended */
        return;
    }
    if (c->taken < LIMIT_CONSOLE_RATE || c->rests)
        return;
    append(c, left_out, sizeof(left_out) - 1);
    c->rests = true;
    evloop_set_events(c->source, 0);
    evloop_timer_set(c->timer, c->since + SECOND_MS - now);
}

static int make_pipe(const char *base, const char *end, uid_t uid, gid_t gid, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);

    sbuf_fmt(&path, "%s%s", base, end);
    if ((unlink(sbuf_str(&path)) < 0 && errno != ENOENT) || mkfifo(sbuf_str(&path), 0600) < 0 ||
        lchown(sbuf_str(&path), uid, gid) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make the pipe %s", sbuf_str(&path));
    return 0;
}

int console_make(const char *base, uid_t uid, gid_t gid, struct err *e)
{
    return make_pipe(base, ".in", uid, gid, e) < 0 || make_pipe(base, ".out", uid, gid, e) < 0 ? -1
                                                                                             : 0;
}

static int open_both(struct console *c, const char *base, const char *log, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    struct stat sb;

    sbuf_fmt(&path, "%s.out", base);
    c->in_fd = open(sbuf_str(&path), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (c->in_fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot open %s",
                                             sbuf_str(&path));
    if (fstat(c->in_fd, &sb) < 0 || !S_ISFIFO(sb.st_mode))
        return err_set(e, ERR_INTERNAL, "%s is no pipe", sbuf_str(&path));
    c->log_fd = open(log, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (c->log_fd < 0 || fstat(c->log_fd, &sb) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open the console's log");
    if (!S_ISREG(sb.st_mode))
        return err_set(e, ERR_INTERNAL, "the console's log is not a file");
    c->size = (uint64_t)sb.st_size;
    return 1;
}

AUTO_DEFINE(console, struct console, console_close)

int console_open(struct evloop *loop, const char *base, const char *log, struct console **ret,
                 struct err *e)
{
    autotype(console) struct console *c = calloc(1, sizeof(*c));

    *ret = NULL;
    if (!c)
        return err_nomem(e);
    c->in_fd = c->log_fd = -1;
    int r = open_both(c, base, log, e);
    if (r <= 0)
        return r;
    if (evloop_add_timer(loop, -1, on_timer, c, &c->timer, e) < 0 ||
        evloop_add_fd(loop, c->in_fd, 0, on_readable, c, &c->source, e) < 0)
        return -1;
    evloop_set_events(c->source, EPOLLIN);      /* not before `source` is there for the callback */
    *ret = take_ptr(c);
    return 0;
}

void console_close(struct console *c)
{
    if (!c)
        return;
    evloop_remove(c->source);
    evloop_remove(c->timer);
    if (c->log_fd >= 0)
        (void)take(c, LIMIT_CONSOLE_PIPE);
    fd_close(c->log_fd);
    fd_close(c->in_fd);
    free(c);
}
