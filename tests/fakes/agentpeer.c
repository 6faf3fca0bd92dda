/* SPDX-License-Identifier: MIT */
#include "tests/fakes/agentpeer.h"
#include "common/auto.h"
#include "common/io.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t run_agent(int fd)
{
    const char *program = getenv("SBX_AGENT");
    char number[16];

    SKIP_IF(!program, "SBX_AGENT does not name the agent");
    snprintf(number, sizeof(number), "%d", fd);
    pid_t pid = ASSERT_SYS(fork());
    if (pid == 0) {
        (void)fcntl(fd, F_SETFD, 0);
        execl(program, "sbx-agent", "--channel-fd", number, (char *)NULL);
        _exit(127);
    }
    return pid;
}

struct agentpeer *peer_start(void)
{
    struct agentpeer *p = calloc(1, sizeof(*p));
    int pair[2];

    ASSERT_NOT_NULL(p);
    ASSERT_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    p->pid = run_agent(pair[1]);
    close(pair[1]);
    p->fd = pair[0];
    p->next_stream = 1;
    p->epoch = 0x1000;
    return p;
}

struct agentpeer *peer_new(void)
{
    struct agentpeer *p = peer_start();

    peer_hello(p);
    peer_config(p, NULL);
    return p;
}

void peer_free(struct agentpeer *p)
{
    int status = 0;

    close(p->fd);
    ASSERT_EQ(ASSERT_SYS(waitpid(p->pid, &status, 0)), p->pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        FAIL("the agent ended with wait status %#x", status);
    for (size_t i = 0; i < p->n_execs; i++) {
        free(p->execs[i]->data[0]);
        free(p->execs[i]->data[1]);
        free(p->execs[i]);
    }
    free(p);
}

void peer_raw(struct agentpeer *p, const void *data, size_t len)
{
    const uint8_t *d = data;
    int64_t until = deadline_in(PEER_MS);

    /* the agent must never need us to read in order to go on, so a plain wait is enough */
    while (len > 0) {
        ssize_t n = send(p->fd, d, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            struct pollfd pfd = { .fd = p->fd, .events = POLLOUT };

            if (poll(&pfd, 1, deadline_left(until)) == 0)
                FAIL("the agent does not read");
            continue;
        }
        ASSERT_SYS(n);
        d += n;
        len -= (size_t)n;
    }
}

void peer_send(struct agentpeer *p, enum frame_type type, uint8_t fd, uint32_t stream,
               const void *payload, size_t len)
{
    uint8_t buf[FRAME_OVERHEAD + LIMIT_FRAME];

    ASSERT_LE(len, LIMIT_FRAME);
    peer_raw(p, buf, frame_encode(buf, p->epoch, type, fd, stream, payload, (uint32_t)len));
}

void peer_number(struct agentpeer *p, enum frame_type type, uint8_t fd, uint32_t stream,
                 uint64_t value, size_t bytes)
{
    uint8_t buf[8];

    for (size_t i = 0; i < bytes; i++)
        buf[i] = (uint8_t)(value >> (8 * i));
    peer_send(p, type, fd, stream, buf, bytes);
}

static struct peer_exec *find(struct agentpeer *p, uint32_t stream)
{
    for (size_t i = 0; i < p->n_execs; i++)
        if (p->execs[i]->stream == stream)
            return p->execs[i];
    return NULL;
}

static void take_data(struct agentpeer *p, struct peer_exec *x, int i, struct wire_in *w)
{
    uint64_t offset = wire_get_u64(w);

    ASSERT_FALSE(w->bad);
    ASSERT_EQ(offset, x->at[i]);
    ASSERT_GT(w->left, 0);
    ASSERT_EQ(x->eof[i], UINT64_MAX);
    x->at[i] += w->left;
    if (!x->blind) {
        x->data[i] = realloc(x->data[i], x->len[i] + w->left + 1);
        ASSERT_NOT_NULL(x->data[i]);
        memcpy(x->data[i] + x->len[i], w->p, w->left);
        x->data[i][x->len[i] + w->left] = '\0';
    }
    x->len[i] += w->left;
    if (!x->stingy)
        peer_credit(p, x, i + 1, x->at[i] + LIMIT_WINDOW);
}

static void take_exit(struct peer_exec *x, struct wire_in *w)
{
    x->how = wire_get_u8(w);
    x->value = wire_get_u32(w);
    x->end[0] = wire_get_u64(w);
    x->end[1] = wire_get_u64(w);
    x->ended = true;
    ASSERT_FALSE(w->bad);
    ASSERT_EQ(w->left, 0);
}

static void take_about_exec(struct agentpeer *p, struct peer_exec *x, struct wire_in *w)
{
    const struct frame *f = &p->frame;
    uint32_t len = 0;
    const char *text;

    switch (f->type) {
    case FRAME_SESSION:
        x->named = true;
        x->state = wire_get_u8(w);
        x->produced[0] = wire_get_u64(w);
        x->produced[1] = wire_get_u64(w);
        x->received = wire_get_u64(w);
        ASSERT_FALSE(w->bad);
        if (x->state == 1)
            take_exit(x, w);
        break;
    case FRAME_STARTED:
        ASSERT_FALSE(x->started || x->failed);
        x->pid = wire_get_u32(w);
        x->started = true;
        ASSERT_GT(x->pid, 1);
        break;
    case FRAME_FAILED:
        ASSERT_FALSE(x->started || x->failed);
        x->sys = wire_get_u32(w);
        x->kind = wire_get_u8(w);
        text = wire_get_str(w, sizeof(x->text) - 1, &len);
        ASSERT_FALSE(w->bad);
        snprintf(x->text, sizeof(x->text), "%.*s", (int)len, text);
        x->failed = true;
        break;
    case FRAME_DATA:
        ASSERT_TRUE(f->fd == 1 || f->fd == 2);
        take_data(p, x, f->fd - 1, w);
        break;
    case FRAME_EOF:
        ASSERT_TRUE(f->fd == 1 || f->fd == 2);
        x->eof[f->fd - 1] = wire_get_u64(w);
        ASSERT_EQ(x->eof[f->fd - 1], x->at[f->fd - 1]);
        break;
    case FRAME_CREDIT:
        ASSERT_EQ(f->fd, 0);
        x->in_credit = wire_get_u64(w);
        break;
    case FRAME_EXIT:
        take_exit(x, w);
        break;
    default:
        FAIL("the agent sent %s", frame_type_name(f->type));
    }
    ASSERT_FALSE(w->bad);
}

static void take_hello(struct agentpeer *p, struct wire_in *w)
{
    uint32_t len = 0;
    const char *s;

    ASSERT_EQ(wire_get_u32(w), FRAME_VERSION);
    s = wire_get_str(w, 64, &len);
    ASSERT_NOT_NULL(s);
    snprintf(p->version, sizeof(p->version), "%.*s", (int)len, s);
    s = wire_get_str(w, 64, &len);
    ASSERT_NOT_NULL(s);
    snprintf(p->boot_id, sizeof(p->boot_id), "%.*s", (int)len, s);
    p->sessions = wire_get_u32(w);
    p->configured = wire_get_u8(w);
    ASSERT_EQ(wire_get_u32(w), GUEST_CAN_NET);
    ASSERT_FALSE(w->bad);
    ASSERT_EQ(w->left, 0);
}

static void take(struct agentpeer *p)
{
    struct wire_in w = { .p = p->frame.payload, .left = p->frame.len };

    switch (p->frame.type) {
    case FRAME_HELLO:
        take_hello(p, &w);
        return;
    case FRAME_READY:
        p->readies++;
        return;
    case FRAME_PONG:
        p->pongs++;
        p->cookie = wire_get_u64(&w);
        return;
    case FRAME_LOG:
        p->logs++;
        return;
    default:
        break;
    }
    struct peer_exec *x = find(p, p->frame.stream);
    if (x)
        take_about_exec(p, x, &w);
    else
        p->strays++;
}

bool peer_read(struct agentpeer *p, int ms)
{
    int64_t until = deadline_in(ms);

    for (;;) {
        while (p->at < p->have) {
            size_t used = 0;
            int r = frame_decode(&p->dec, p->buf + p->at, p->have - p->at, &used, &p->frame);

            p->at += used;
            if (r == 1) {
                take(p);
                return true;
            }
        }
        struct pollfd pfd = { .fd = p->fd, .events = POLLIN };
        int n = poll(&pfd, 1, deadline_left(until));
        if (n == 0)
            return false;
        ssize_t got = recv(p->fd, p->buf, sizeof(p->buf), MSG_DONTWAIT);
        if (got == 0)
            FAIL("the agent has gone");
        if (got < 0 && errno == EAGAIN)
            continue;
        p->at = 0;
        p->have = (size_t)ASSERT_SYS(got);
    }
}

bool peer_until(struct agentpeer *p, const bool *flag, int ms)
{
    int64_t until = deadline_in(ms);

    while (!*flag)
        if (!peer_read(p, deadline_left(until)) && !*flag)
            return false;
    return true;
}

void peer_settle(struct agentpeer *p, int ms)
{
    static const bool never;

    peer_until(p, &never, ms);
}

void peer_ping(struct agentpeer *p)
{
    static uint64_t cookie = 77;
    int64_t until = deadline_in(PEER_MS);

    peer_number(p, FRAME_PING, 0, 0, ++cookie, 8);
    while (p->cookie != cookie)
        if (!peer_read(p, deadline_left(until)))
            FAIL("no pong");
}

int64_t peer_hello(struct agentpeer *p)
{
    int64_t before = now_mono_ms();
    uint32_t named = 0;

    p->epoch++;
    frame_decoder_init(&p->dec, p->epoch);
    p->frame.type = 0;
    for (size_t i = 0; i < p->n_execs; i++)
        p->execs[i]->named = false;
    /* as the daemon does: repeated until it is answered */
    do {
        peer_number(p, FRAME_HELLO, 0, 0, FRAME_VERSION, 4);
        for (int64_t until = deadline_in(100); p->frame.type != FRAME_HELLO;)
            if (!peer_read(p, deadline_left(until)))
                break;
        if (now_mono_ms() - before > PEER_MS)
            FAIL("hello is not answered");
    } while (p->frame.type != FRAME_HELLO);
    int64_t took = now_mono_ms() - before;
    uint32_t announced = p->sessions;
    while (named < announced) {
        if (!peer_read(p, PEER_MS))
            FAIL("%u sessions of %u", named, announced);
        ASSERT_TRUE(p->frame.type == FRAME_SESSION || p->frame.type == FRAME_HELLO);
        named += p->frame.type == FRAME_SESSION;
    }
    return took;
}

void peer_config(struct agentpeer *p, const char *const *env)
{
    static const char *const none[] = { NULL };
    struct guest_config c = { .hostname = "box", .env = env ? env : none };
    uint8_t buf[LIMIT_FRAME];
    struct err e = ERR_INIT;
    size_t len = 0;
    unsigned before = p->readies;

    ASSERT_OK(guest_config_encode(&c, buf, sizeof(buf), &len, &e), e);
    peer_send(p, FRAME_CONFIG, 0, 0, buf, len);
    while (p->readies == before)
        if (!peer_read(p, PEER_MS))
            FAIL("the agent is not ready");
}

static void send_exec(struct agentpeer *p, uint32_t stream, const uint8_t *data, size_t len)
{
    static uint8_t part[LIMIT_FRAME];
    size_t done = 0;

    do {
        size_t n = len - done < sizeof(part) - 1 ? len - done : sizeof(part) - 1;

        part[0] = done + n == len;
        memcpy(part + 1, data + done, n);
        peer_send(p, FRAME_EXEC, 0, stream, part, n + 1);
        done += n;
    } while (done < len);
}

struct peer_exec *peer_exec(struct agentpeer *p, const struct peer_spec *s)
{
    static const char *const none[] = { NULL };
    static uint8_t buf[LIMIT_EXEC_BYTES];
    const char *const shell[] = { "sh", "-c", s->script, NULL };
    struct exec_wire w = {
        .argv = s->argv ? s->argv : shell,
        .env = s->env ? s->env : none,
        .workdir = s->workdir ? s->workdir : "/",
        .user = s->user ? s->user : "",
        .tty = s->tty,
        .stdin_open = s->stdin,
        .rows = s->rows,
        .cols = s->cols,
        .timeout_ms = s->timeout_ms,
        .credit = s->credit == UINT64_MAX ? 0 : s->credit ? s->credit : LIMIT_WINDOW,
    };
    struct peer_exec *x = calloc(1, sizeof(*x));
    struct err e = ERR_INIT;
    size_t len = 0;

    ASSERT_NOT_NULL(x);
    ASSERT_LT(p->n_execs, PEER_EXECS);
    x->stream = p->next_stream++;
    x->stingy = s->stingy;
    x->blind = s->blind;
    x->eof[0] = x->eof[1] = UINT64_MAX;
    p->execs[p->n_execs++] = x;
    ASSERT_OK(exec_wire_encode(&w, buf, sizeof(buf), &len, &e), e);
    send_exec(p, x->stream, buf, len);
    return x;
}

struct peer_exec *peer_script(struct agentpeer *p, const char *script)
{
    return peer_exec(p, &(struct peer_spec){ .script = script });
}

void peer_await_start(struct agentpeer *p, struct peer_exec *x)
{
    int64_t until = deadline_in(PEER_MS);

    while (!x->started && !x->failed)
        if (!peer_read(p, deadline_left(until)))
            FAIL("exec %u does not start", x->stream);
    if (x->failed)
        FAIL("exec %u: kind %u, errno %u, %s", x->stream, x->kind, x->sys, x->text);
}

void peer_await_end(struct agentpeer *p, struct peer_exec *x)
{
    int64_t until = deadline_in(PEER_MS);

    while (!x->ended || x->at[0] < x->end[0] || x->at[1] < x->end[1]) {
        if (x->failed)
            FAIL("exec %u: kind %u, errno %u, %s", x->stream, x->kind, x->sys, x->text);
        if (!peer_read(p, deadline_left(until)))
            FAIL("exec %u does not end: %d, %llu of %llu", x->stream, x->ended,
                 (unsigned long long)x->at[0], (unsigned long long)x->end[0]);
    }
    ASSERT_EQ(x->at[0], x->end[0]);
    ASSERT_EQ(x->at[1], x->end[1]);
}

void peer_await_output(struct agentpeer *p, struct peer_exec *x, size_t n)
{
    int64_t until = deadline_in(PEER_MS);

    while (x->len[0] < n)
        if (!peer_read(p, deadline_left(until)))
            FAIL("exec %u: %zu bytes of %zu", x->stream, x->len[0], n);
}

void peer_credit(struct agentpeer *p, struct peer_exec *x, int fd, uint64_t credit)
{
    peer_number(p, FRAME_CREDIT, (uint8_t)fd, x->stream, credit, 8);
}

void peer_resume(struct agentpeer *p, struct peer_exec *x, uint64_t out, uint64_t err)
{
    uint8_t buf[16];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };

    wire_put_u64(&w, out);
    wire_put_u64(&w, err);
    x->at[0] = out;
    x->at[1] = err;
    x->eof[0] = x->eof[1] = UINT64_MAX;
    peer_send(p, FRAME_RESUME, 0, x->stream, buf, w.len);
}

void peer_stdin(struct agentpeer *p, struct peer_exec *x, const void *data, size_t len)
{
    static uint8_t part[LIMIT_FRAME];
    const uint8_t *d = data;
    int64_t until = deadline_in(PEER_MS);

    while (len > 0) {
        struct wire_out w = { .p = part, .cap = sizeof(part) };
        size_t n = len < sizeof(part) - 8 ? len : sizeof(part) - 8;

        if (n > x->in_credit - x->in_sent)
            n = (size_t)(x->in_credit - x->in_sent);
        if (n == 0) {
            if (!peer_read(p, deadline_left(until)))
                FAIL("exec %u does not take its input", x->stream);
            continue;
        }
        wire_put_u64(&w, x->in_sent);
        memcpy(part + 8, d, n);
        peer_send(p, FRAME_DATA, 0, x->stream, part, n + 8);
        x->in_sent += n;
        d += n;
        len -= n;
    }
}

void peer_stdin_eof(struct agentpeer *p, struct peer_exec *x)
{
    peer_number(p, FRAME_EOF, 0, x->stream, x->in_sent, 8);
}

void peer_forget(struct agentpeer *p, struct peer_exec *x)
{
    peer_send(p, FRAME_FORGET, 0, x->stream, NULL, 0);
}

const char *peer_out(const struct peer_exec *x)
{
    return x->data[0] ? (const char *)x->data[0] : "";
}

const char *peer_err(const struct peer_exec *x)
{
    return x->data[1] ? (const char *)x->data[1] : "";
}
