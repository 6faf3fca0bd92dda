/* SPDX-License-Identifier: MIT
 *
 * system dial-stdio: the far end of ssh://: bytes between stdin/stdout and the socket, with the end
 * of input passed on in each direction on its own.
 */
#include "client/app.h"
#include "client/outfd.h"
#include "common/auto.h"
#include "common/io.h"
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define PIECE (64 * 1024)

struct flow {
    int from;
    struct outfd to;
    bool open;          /* more may be read */
    size_t at, n;
    char buf[PIECE];
};

static int pump(struct flow *f, struct err *e)
{
    if (f->open && f->at == f->n) {
        ssize_t n = read(f->from, f->buf, sizeof(f->buf));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (n < 0 && errno != ECONNRESET && errno != EIO)
            return err_sys(e, ERR_INTERNAL, errno, "cannot read");
        f->open = n > 0;
        f->at = 0;
        f->n = n > 0 ? (size_t)n : 0;
    }
    while (f->at < f->n) {
        ssize_t n = outfd_write(&f->to, f->buf + f->at, f->n - f->at);
        if (n == 0)
            return 0;
        if (n < 0)      /* nobody reads any more: what is left has nowhere to go */
            return errno == EPIPE || errno == ECONNRESET ? 1
                   : err_sys(e, ERR_INTERNAL, errno, "cannot write");
        f->at += (size_t)n;
    }
    return 0;
}

static int copy_both(struct flow *in, struct flow *out, int sock, struct err *e)
{
    bool told = false;      /* the daemon knows that input ended */

    while (out->open || out->at < out->n) {
        struct pollfd p[4] = {
            { .fd = in->open && in->at == in->n ? in->from : -1, .events = POLLIN },
            { .fd = in->at < in->n ? in->to.fd : -1, .events = POLLOUT },
            { .fd = out->open && out->at == out->n ? out->from : -1, .events = POLLIN },
            { .fd = out->at < out->n ? out->to.fd : -1, .events = POLLOUT },
        };
        if (!in->open && in->at == in->n && !told) {
            told = true;
            shutdown(sock, SHUT_WR);
        }
        if (poll(p, ARRAY_SIZE(p), -1) < 0) {
            if (errno == EINTR)
                continue;
            return err_sys(e, ERR_INTERNAL, errno, "cannot wait");
        }
        int r = p[0].revents || p[1].revents ? pump(in, e) : 0;
        if (r == 1) {
            in->open = false;
            in->at = in->n = 0;
            r = 0;
        }
        if (r == 0 && (p[2].revents || p[3].revents))
            r = pump(out, e);
        if (r)
            return r < 0 ? -1 : 0;
    }
    return 0;
}

COMMAND(cmd_dial_stdio)
{
    autofree struct flow *in = calloc(1, sizeof(*in));
    autofree struct flow *out = calloc(1, sizeof(*out));
    autoclose int sock = -1;

    (void)opts;
    (void)args;
    (void)n;
    if (!in || !out)
        return err_nomem(e);
    if (host_connect(&app->host, &sock, e) < 0)
        return -1;
    signal(SIGPIPE, SIG_IGN);
    *in = (struct flow){ .from = STDIN_FILENO, .open = true };
    *out = (struct flow){ .from = sock, .open = true };
    outfd_init(&in->to, sock);
    outfd_init(&out->to, STDOUT_FILENO);
    int r = copy_both(in, out, sock, e);
    outfd_done(&out->to);
    return r;
}
