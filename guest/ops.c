/* SPDX-License-Identifier: MIT */
#include "guest/ops.h"
#include "common/auto.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define PART_FIRST 4096

static void log_line(void *arg, int level, const char *text)
{
    ops_log(arg, level, text);
}

void ops_log(struct ops *o, int level, const char *text)
{
    struct ops_log *l;

    if (o->n_logs == OPS_LOGS) {
        o->n_logs--;
        memmove(o->logs, o->logs + 1, o->n_logs * sizeof(o->logs[0]));
    }
    l = &o->logs[o->n_logs++];
    l->level = (uint8_t)level;
    snprintf(l->text, sizeof(l->text), "%s", text);
}

static void drop_parts(struct ops *o)
{
    for (size_t i = 0; i < OPS_PARTS; i++) {
        free(o->parts[i].data);
        o->parts[i] = (struct ops_part){ 0 };
    }
}

/* Handlers. `w` is the payload; whether it was well-formed is looked at in here before acting. */

static void op_hello(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint32_t version = wire_get_u32(w);
    bool anew = !o->chan.greeted || o->epoch != o->chan.dec.epoch;

    if (w->bad)
        return;
    /* what was under way belongs to a daemon that is not there any more */
    if (anew)
        drop_parts(o);
    o->epoch = o->chan.dec.epoch;
    o->understood = version == FRAME_VERSION;
    o->want_hello = true;
    o->n_pongs = anew ? 0 : o->n_pongs;
    chan_greeted(&o->chan, anew);
}

static int take_env(struct ops *o, char **env, struct err *e)
{
    struct strv v = STRV_INIT;

    for (; *env; env++) {
        if (strv_env_set(&v, *env, e) < 0) {
            strv_done(&v);
            return -1;
        }
    }
    strv_done(&o->sessions.env);
    o->sessions.env = v;
    return 0;
}

static void op_config(struct ops *o, const struct frame *f, struct wire_in *w)
{
    struct guest_config_in c = { 0 };
    struct err e = ERR_INIT;
    int rc = guest_config_decode(f->payload, f->len, &c, &e);

    if (rc == 0)
        rc = take_env(o, c.env, &e);
    if (rc == 0 && o->host && o->host->set_time)
        o->host->set_time(c.realtime_ns, !o->configured);
    if (rc == 0 && !o->configured && o->host && o->host->configure) {
        rc = o->host->configure(c.hostname, c.workspace, &e);
        o->failed = rc < 0;
        if (rc == 0 && c.workspace)
            o->sessions.workspace = "/workspace";
    }
    guest_config_in_done(&c);
    if (rc < 0) {
        ops_log(o, LOG_ERR, e.msg);
        return;
    }
    if (!o->configured)
        o->ready_us = (uint64_t)now_mono_us() - o->kernel_us;
    o->configured = true;
    o->want_ready = true;
}

/* Each handshake brings it again. Only what is new is done: what the guest's root has changed since
 * stays changed. */
static void op_net(struct ops *o, const struct frame *f, struct wire_in *w)
{
    struct guest_net n;
    struct err e = ERR_INIT;

    if (o->has_net && f->len >= sizeof(o->net) && memcmp(o->net, f->payload, sizeof(o->net)) == 0)
        return;
    if (guest_net_decode(f->payload, f->len, &n, &e) < 0 ||
        (o->host && o->host->net && o->host->net(&n, &e) < 0)) {
        ops_log(o, LOG_ERR, e.msg);
        o->failed = o->failed || !o->configured;
        return;
    }
    memcpy(o->net, f->payload, sizeof(o->net));
    o->has_net = true;
}

static struct ops_part *find_part(struct ops *o, uint32_t stream)
{
    struct ops_part *empty = NULL;

    for (size_t i = 0; i < OPS_PARTS; i++) {
        if (o->parts[i].stream == stream)
            return &o->parts[i];
        if (o->parts[i].stream == 0 && !empty)
            empty = &o->parts[i];
    }
    return empty;
}

static int add_part(struct ops_part *p, const uint8_t *data, size_t len)
{
    if (p->len + len > p->cap) {
        size_t cap = p->cap ? p->cap : PART_FIRST;
        uint8_t *grown;

        while (cap < p->len + len)
            cap *= 2;
        grown = realloc(p->data, cap);
        if (!grown)
            return -1;
        p->data = grown;
        p->cap = cap;
    }
    if (len > 0)
        memcpy(p->data + p->len, data, len);
    p->len += len;
    return 0;
}

static void free_part(struct ops_part *p)
{
    free(p->data);
    *p = (struct ops_part){ 0 };
}

static void op_exec(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint8_t last = wire_get_u8(w);
    struct exec_wire_in x = { 0 };
    struct err e = ERR_INIT;
    struct ops_part *p = find_part(o, f->stream);

    if (w->bad || last > 1 || sessions_find(&o->sessions, f->stream)) {
        ops_log(o, LOG_WARNING, "a command without sense, ignoring");
        if (p && p->stream == f->stream)
            free_part(p);
        return;
    }
    if (!p) {
        sessions_fail(&o->sessions, f->stream, EXEC_FAIL_RESOURCE, EAGAIN, "too many at once");
        return;
    }
    p->stream = f->stream;
    if (p->len + w->left > LIMIT_EXEC_BYTES) {
        sessions_fail(&o->sessions, f->stream, EXEC_FAIL_PROTOCOL, E2BIG, NULL);
        free_part(p);
        return;
    }
    if (add_part(p, w->p, w->left) < 0) {
        sessions_fail(&o->sessions, f->stream, EXEC_FAIL_RESOURCE, ENOMEM, NULL);
        free_part(p);
        return;
    }
    if (!last)
        return;
    if (exec_wire_decode(p->data, p->len, &x, &e) < 0)
        sessions_fail(&o->sessions, f->stream,
                      e.code == ERR_NO_MEMORY ? EXEC_FAIL_RESOURCE : EXEC_FAIL_PROTOCOL,
                      e.code == ERR_NO_MEMORY ? ENOMEM : EPROTO, e.msg);
    else
        sessions_exec(&o->sessions, f->stream, &x);
    exec_wire_in_done(&x);
    free_part(p);
}

static void op_ping(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint64_t cookie = wire_get_u64(w);

    if (!w->bad && o->n_pongs < OPS_PONGS)
        o->pongs[o->n_pongs++] = cookie;
}

static void op_time(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint64_t ns = wire_get_u64(w);

    if (!w->bad && o->host && o->host->set_time)
        o->host->set_time(ns, false);
}

static void op_shutdown(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint8_t reboot = wire_get_u8(w);

    if (!w->bad && reboot <= 1 && o->host && o->host->shutdown)
        o->host->shutdown(reboot == 1);
}

/* The following are about a session that is there. */

static void op_data(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint64_t offset = wire_get_u64(w);

    if (!w->bad && f->fd == 0)
        session_data(sessions_find(&o->sessions, f->stream), offset, w->p, w->left);
}

static void op_eof(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint64_t offset = wire_get_u64(w);

    if (!w->bad && f->fd == 0)
        session_eof(sessions_find(&o->sessions, f->stream), offset);
}

static void op_credit(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint64_t credit = wire_get_u64(w);

    if (!w->bad)
        session_credit(sessions_find(&o->sessions, f->stream), f->fd, credit);
}

static void op_resume(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint64_t out = wire_get_u64(w), err = wire_get_u64(w);

    if (!w->bad)
        session_resume(sessions_find(&o->sessions, f->stream), out, err);
}

static void op_signal(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint32_t signo = wire_get_u32(w);

    if (!w->bad)
        session_signal(sessions_find(&o->sessions, f->stream), signo);
}

static void op_resize(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint16_t rows = wire_get_u16(w), cols = wire_get_u16(w);

    if (!w->bad)
        session_resize(sessions_find(&o->sessions, f->stream), rows, cols);
}

static void op_forget(struct ops *o, const struct frame *f, struct wire_in *w)
{
    session_forget(sessions_find(&o->sessions, f->stream));
}

static void op_end(struct ops *o, const struct frame *f, struct wire_in *w)
{
    uint32_t grace = wire_get_u32(w);

    if (!w->bad)
        session_end(sessions_find(&o->sessions, f->stream), grace);
}

enum op_about { ABOUT_CHANNEL, ABOUT_NEW, ABOUT_SESSION };

static const struct {
    enum op_about about;
    void (*fn)(struct ops *o, const struct frame *f, struct wire_in *w);
} table[FRAME_TYPE_MAX] = {
    [FRAME_HELLO] = { ABOUT_CHANNEL, op_hello },
    [FRAME_CONFIG] = { ABOUT_CHANNEL, op_config },
    [FRAME_NET] = { ABOUT_CHANNEL, op_net },
    [FRAME_EXEC] = { ABOUT_NEW, op_exec },
    [FRAME_DATA] = { ABOUT_SESSION, op_data },
    [FRAME_EOF] = { ABOUT_SESSION, op_eof },
    [FRAME_CREDIT] = { ABOUT_SESSION, op_credit },
    [FRAME_RESUME] = { ABOUT_SESSION, op_resume },
    [FRAME_SIGNAL] = { ABOUT_SESSION, op_signal },
    [FRAME_RESIZE] = { ABOUT_SESSION, op_resize },
    [FRAME_FORGET] = { ABOUT_SESSION, op_forget },
    [FRAME_END] = { ABOUT_SESSION, op_end },
    [FRAME_PING] = { ABOUT_CHANNEL, op_ping },
    [FRAME_TIME] = { ABOUT_CHANNEL, op_time },
    [FRAME_SHUTDOWN] = { ABOUT_CHANNEL, op_shutdown },
};

static void take_frame(void *arg, const struct frame *f)
{
    struct ops *o = arg;
    struct wire_in w = { .p = f->payload, .left = f->len };

    if ((unsigned)f->type >= FRAME_TYPE_MAX || !table[f->type].fn)
        return;         /* of a newer daemon, or not for us */
    if (f->type != FRAME_HELLO && !o->understood)
        return;
    switch (table[f->type].about) {
    case ABOUT_CHANNEL:
        if (f->stream != 0)
            return;
        break;
    case ABOUT_NEW:
        if (f->stream == 0)
            return;
        break;
    case ABOUT_SESSION:
        if (!sessions_find(&o->sessions, f->stream))
            return;     /* it has ended meanwhile */
        break;
    }
    table[f->type].fn(o, f, &w);
}

static bool put_hello(struct ops *o)
{
    uint8_t buf[FRAME_HELLO_MAX];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };

    if (chan_room(&o->chan) < sizeof(buf))
        return false;
    wire_put_u32(&w, FRAME_VERSION);
    wire_put_str(&w, SBX_VERSION);
    wire_put_str(&w, o->boot_id);
    wire_put_u32(&w, o->understood ? sessions_hello(&o->sessions) : 0);
    wire_put_u8(&w, o->configured);
    wire_put_u32(&w, GUEST_CAN_NET);
    o->want_hello = false;
    /* a daemon that did not live to see READY has to hear it from us again */
    o->want_ready = o->want_ready || o->configured;
    return chan_put(&o->chan, FRAME_HELLO, 0, 0, buf, (uint32_t)w.len);
}

static bool put_small(struct ops *o)
{
    uint8_t buf[OPS_LOG_TEXT + 16];

    while (o->n_pongs > 0) {
        struct wire_out w = { .p = buf, .cap = sizeof(buf) };

        wire_put_u64(&w, o->pongs[0]);
        if (!chan_put(&o->chan, FRAME_PONG, 0, 0, buf, (uint32_t)w.len))
            return false;
        memmove(o->pongs, o->pongs + 1, --o->n_pongs * sizeof(o->pongs[0]));
    }
    while (o->n_logs > 0) {
        struct wire_out w = { .p = buf, .cap = sizeof(buf) };
        size_t len = strlen(o->logs[0].text);

        wire_put_u8(&w, o->logs[0].level);
        memcpy(buf + 1, o->logs[0].text, len);
        if (!chan_put(&o->chan, FRAME_LOG, 0, 0, buf, (uint32_t)(1 + len)))
            return false;
        memmove(o->logs, o->logs + 1, --o->n_logs * sizeof(o->logs[0]));
    }
    if (o->want_ready) {
        struct wire_out w = { .p = buf, .cap = sizeof(buf) };

        wire_put_u64(&w, o->kernel_us);
        wire_put_u64(&w, o->ready_us);
        if (!chan_put(&o->chan, FRAME_READY, 0, 0, buf, (uint32_t)w.len))
            return false;
        o->want_ready = false;
    }
    return true;
}

static void fill(void *arg)
{
    struct ops *o = arg;

    if (o->want_hello && !put_hello(o))
        return;
    /* sessions first as long as they are being named: they belong to the hello */
    if (!o->understood)
        return;
    if (sessions_fill_named(&o->sessions, &o->chan) && put_small(o))
        sessions_fill(&o->sessions, &o->chan);
}

static const struct chan_ops chan_ops = { .frame = take_frame, .fill = fill };

int ops_init_take(struct ops *o, struct loop *loop, enum chan_kind kind, int *fd,
                  const struct ops_host *host, struct err *e)
{
    autofree char *id = NULL;
    struct err ignored = ERR_INIT;
    size_t len = 0;

    memset(o, 0, sizeof(*o));
    o->host = host;
    sessions_init(&o->sessions, loop);
    o->sessions.log = log_line;
    o->sessions.log_arg = o;
    if (io_read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &id, &len, &ignored) == 0)
        snprintf(o->boot_id, sizeof(o->boot_id), "%.36s", id);
    return chan_init_take(&o->chan, loop, kind, fd, &chan_ops, o, e);
}

void ops_done(struct ops *o)
{
    chan_done(&o->chan);
    sessions_done(&o->sessions);
    drop_parts(o);
}
