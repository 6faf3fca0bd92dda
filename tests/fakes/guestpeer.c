/* SPDX-License-Identifier: MIT */
#include "tests/fakes/guestpeer.h"
#include "common/auto.h"
#include "common/io.h"
#include "tests/harness/test.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "guestpeer: %s: %s\n", what, strerror(errno));
    abort();
}

void guestpeer_init(struct guestpeer *p)
{
    *p = (struct guestpeer){ .fd = -1, .listen_fd = -1, .dir_fd = -1 };
    static int number;
    snprintf(p->dir, sizeof(p->dir), "%s/g%d", test_dir(), number++);
    need(mkdir(p->dir, 0700) == 0, "mkdir");
    snprintf(p->path, sizeof(p->path), "%s/agent.sock", p->dir);
    p->dir_fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(p->dir_fd >= 0, "open");
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    memcpy(sa.sun_path, p->path, strlen(p->path));
    p->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    need(p->listen_fd >= 0, "socket");
    need(bind(p->listen_fd, (struct sockaddr *)&sa, sizeof(sa)) == 0, "bind");
    need(listen(p->listen_fd, 8) == 0, "listen");
    frame_decoder_init(&p->dec, 0);
}

void guestpeer_done(struct guestpeer *p)
{
    guestpeer_hangup(p);
    fd_close(p->listen_fd);
    fd_close(p->dir_fd);
}

void guestpeer_accept(struct guestpeer *p, int timeout_ms)
{
    struct pollfd pfd = { .fd = p->listen_fd, .events = POLLIN };
    need(poll(&pfd, 1, timeout_ms) == 1, "nobody connects");
    p->fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    need(p->fd >= 0, "accept");
    p->at = p->have = 0;
    frame_decoder_init(&p->dec, 0);
}

void guestpeer_hangup(struct guestpeer *p)
{
    fd_close(p->fd);
    p->fd = -1;
}

void guestpeer_raw(struct guestpeer *p, const void *data, size_t len)
{
    struct err e = ERR_INIT;
    int rc = io_write_full(p->fd, data, len, deadline_in(10000), &e);
    need(rc == 0 || p->may_break, e.msg);
}

size_t guestpeer_push(struct guestpeer *p, const void *data, size_t len)
{
    ssize_t n = send(p->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n > 0 ? (size_t)n : 0;
}

void guestpeer_send(struct guestpeer *p, enum frame_type type, uint8_t fd, uint32_t stream,
                    const void *payload, size_t len)
{
    uint8_t buf[FRAME_OVERHEAD + LIMIT_FRAME];
    size_t n = frame_encode(buf, p->dec.epoch, type, fd, stream, payload, (uint32_t)len);
    guestpeer_raw(p, buf, n);
}

bool guestpeer_read(struct guestpeer *p, int timeout_ms)
{
    int64_t deadline = deadline_in(timeout_ms);
    for (;;) {
        while (p->at < p->have) {
            size_t used = 0;
            int got = frame_decode(&p->dec, p->buf + p->at, p->have - p->at, &used, &p->frame);
            p->at += used;
            if (got == 1) {
                if (p->frame.type == FRAME_HELLO)
                    p->hellos++;
                return true;
            }
        }
        struct pollfd pfd = { .fd = p->fd, .events = POLLIN };
        if (poll(&pfd, 1, deadline_left(deadline)) <= 0)
            return false;
        ssize_t n = recv(p->fd, p->buf, sizeof(p->buf), 0);
        if (n <= 0)
            return false;
        p->at = 0;
        p->have = (size_t)n;
    }
}

bool guestpeer_expect(struct guestpeer *p, enum frame_type type, int timeout_ms)
{
    int64_t deadline = deadline_in(timeout_ms);
    while (guestpeer_read(p, deadline_left(deadline)))
        if (p->frame.type == type)
            return true;
    return false;
}

void guestpeer_answer(struct guestpeer *p, bool configured, const struct guestsession *s, size_t n)
{
    uint8_t buf[256];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    wire_put_u32(&w, FRAME_VERSION);
    wire_put_str(&w, "test");
    wire_put_str(&w, "boot");
    wire_put_u32(&w, (uint32_t)n);
    wire_put_u8(&w, configured);
    if (p->abilities)
        wire_put_u32(&w, p->abilities);
    guestpeer_send(p, FRAME_HELLO, 0, 0, buf, w.len);
    for (size_t i = 0; i < n; i++) {
        w.len = 0;
        wire_put_u8(&w, s[i].state);
        wire_put_u64(&w, s[i].out);
        wire_put_u64(&w, s[i].err);
        wire_put_u64(&w, s[i].in);
        if (s[i].state) {
            wire_put_u8(&w, s[i].how);
            wire_put_u32(&w, s[i].value);
            wire_put_u64(&w, s[i].out_end);
            wire_put_u64(&w, s[i].err_end);
        }
        guestpeer_send(p, FRAME_SESSION, 0, s[i].stream, buf, w.len);
    }
}

void guestpeer_greet(struct guestpeer *p, bool configured, const struct guestsession *s, size_t n)
{
    if (p->fd < 0)
        guestpeer_accept(p, 5000);
    need(guestpeer_expect(p, FRAME_HELLO, 5000), "no hello");
    guestpeer_answer(p, configured, s, n);
}

void guestpeer_ready(struct guestpeer *p)
{
    uint8_t buf[16];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    wire_put_u64(&w, 1000);
    wire_put_u64(&w, 2000);
    guestpeer_send(p, FRAME_READY, 0, 0, buf, w.len);
}

void guestpeer_started(struct guestpeer *p, uint32_t stream, uint32_t pid)
{
    uint8_t buf[4];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    wire_put_u32(&w, pid);
    guestpeer_send(p, FRAME_STARTED, 0, stream, buf, w.len);
}

void guestpeer_failed(struct guestpeer *p, uint32_t stream, uint32_t sys, uint8_t kind,
                      const char *text)
{
    uint8_t buf[512];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    wire_put_u32(&w, sys);
    wire_put_u8(&w, kind);
    wire_put_str(&w, text);
    guestpeer_send(p, FRAME_FAILED, 0, stream, buf, w.len);
}

void guestpeer_data(struct guestpeer *p, uint32_t stream, uint8_t fd, uint64_t offset,
                    const void *data, size_t len)
{
    uint8_t buf[LIMIT_FRAME];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    wire_put_u64(&w, offset);
    memcpy(buf + 8, data, len);
    guestpeer_send(p, FRAME_DATA, fd, stream, buf, 8 + len);
}

void guestpeer_u64(struct guestpeer *p, enum frame_type type, uint32_t stream, uint8_t fd,
                   uint64_t value)
{
    uint8_t buf[8];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    wire_put_u64(&w, value);
    guestpeer_send(p, type, fd, stream, buf, w.len);
}

void guestpeer_exit(struct guestpeer *p, uint32_t stream, uint8_t how, uint32_t value,
                    uint64_t out_end, uint64_t err_end)
{
    uint8_t buf[32];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    wire_put_u8(&w, how);
    wire_put_u32(&w, value);
    wire_put_u64(&w, out_end);
    wire_put_u64(&w, err_end);
    guestpeer_send(p, FRAME_EXIT, 0, stream, buf, w.len);
}

uint64_t guestpeer_got_u64(const struct guestpeer *p, size_t i)
{
    struct wire_in w = { .p = p->frame.payload, .left = p->frame.len };
    for (size_t k = 0; k < i; k++)
        (void)wire_get_u64(&w);
    return wire_get_u64(&w);
}
