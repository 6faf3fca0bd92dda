/* SPDX-License-Identifier: MIT
 *
 * The simple form: start a command, feed it, collect what it writes, answer when it has ended.
 * Meanwhile it is an exec like any other, and can be seen in the list.
 */
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "daemon/daemon.h"
#include "daemon/exec.h"
#include "daemon/handlers.h"

#include <string.h>

#define PIECE (64 * KIB)
#define TICK_MS 60000
#define HELD_MIN (256 * KIB)        /* of an answer: each command has it before it begins */

AUTO_DEFINE(execs, struct exec_table, exec_table_unref)
AUTO_DEFINE(exec, struct exec, exec_unref)
AUTO_DEFINE(reader, struct exec_reader, exec_detach)

struct run {
    struct exec_reader *reader;     /* borrowed */
    const uint8_t *in;              /* borrowed from the request */
    size_t in_left;
    bool in_open;                   /* its end is still to be sent */
    struct sbuf out[2];             /* owned */
    bool truncated[2];
    struct call *c;                 /* borrowed */
    bool base64;
    bool full[2];                   /* nothing is kept any more */
    uint64_t cost;                  /* what all that is kept has in the answer, at most */
};

static int check_stdin(const struct api_run_req *req, struct err *e)
{
    size_t n = req->stdin ? strlen(req->stdin) : 0;

    if (req->stdin && req->stdin_base64.data)
        return err_set(e, ERR_FIELD_INVALID, "either stdin or stdin_base64, not both");
    if (n > LIMIT_RUN_STDIN || req->stdin_base64.len > LIMIT_RUN_STDIN)
        return err_set(e, ERR_TOO_LARGE, "stdin is longer than %llu bytes",
                       (unsigned long long)LIMIT_RUN_STDIN);
    return 0;
}

/* Bytes of JSON that these become at most. */
static uint64_t cost(const struct run *r, const char *data, size_t n)
{
    uint64_t sum = 0;

    if (r->base64)
        return n / 3 * 4 + 4;
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)data[i];
        sum += ch == 0 || ch >= 0x80 ? 3 : ch < ' ' ? 6 : ch == '"' || ch == '\\' ? 2 : 1;
    }
    return sum;
}

/* How many of them are kept: none once the caller's quota does not hold the answer any more. */
static size_t room_for(struct run *r, int i, const char *data, size_t n)
{
    size_t room = r->full[i] ? 0 : r->out[i].max - r->out[i].len;
    size_t keep = n < room ? n : room;
    uint64_t more = cost(r, data, keep);
    struct err e = ERR_INIT;

    if (keep > 0 && call_hold(r->c, r->cost + more, &e) < 0) {
        call_tell_quota(r->c, &e);
        r->full[i] = true;
        return 0;
    }
    r->cost += more;
    return keep;
}

/* Takes all output there is; true in *ret_ended when none will follow. What is beyond the limit is
 * read and thrown away, so that the command can end. */
static int collect(struct run *r, char *piece, bool *ret_ended, struct err *e)
{
    int64_t n;

    do {
        uint64_t lost = 0;
        int fd = 1;
        n = exec_read(r->reader, piece, PIECE, &fd, &lost, ret_ended, e);
        if (n <= 0)
            return (int)n;
        size_t keep = room_for(r, fd == 2, piece, (size_t)n);
        sbuf_add(&r->out[fd == 2], piece, keep);
        r->truncated[fd == 2] |= (size_t)n > keep || lost > 0;
    } while (!r->out[0].failed && !r->out[1].failed);
    return err_nomem(e);
}

static int feed(struct run *r, struct err *e)
{
    if (r->in_left > 0) {
        int64_t n = exec_stdin(r->reader, r->in, r->in_left, e);
        if (n < 0)
            return -1;
        r->in += n;
        r->in_left -= (size_t)n;
    }
    if (r->in_left > 0 || !r->in_open)
        return 0;
    r->in_open = false;
    return exec_stdin(r->reader, NULL, 0, e) < 0 ? -1 : 0;
}

/* Until the command has ended; gives up when nobody waits for the answer any more. */
static int drive(struct call *c, struct run *r, struct err *e)
{
    autofree char *piece = malloc(PIECE);
    bool ended = false, stop = false;

    if (!piece)
        return err_nomem(e);
    for (;;) {
        if (collect(r, piece, &ended, e) < 0 || (!ended && feed(r, e) < 0))
            return -1;
        if (ended)
            return 0;
        if (call_wait_gone(c, exec_reader_fd(r->reader), TICK_MS, &stop))
            return stop ? err_set(e, ERR_UNAVAILABLE, "sandboxd is stopping; the command was ended")
                        : err_set(e, ERR_UNAVAILABLE, "the client has gone");
    }
}

/* JSON text is Unicode without NUL: what is neither becomes U+FFFD. Leaves b empty. */
static int to_text(struct sbuf *b, char **ret, struct err *e)
{
    autosbuf struct sbuf t = SBUF(3 * LIMIT_RUN_OUTPUT);
    const char *p = b->data;
    size_t left = b->len;

    if (left == 0 || (!memchr(p, 0, left) && utf8_valid(p, left)))
        return sbuf_take(b, ret, e);
    while (left > 0) {
        size_t n = *p ? utf8_step(p, left) : 0;
        if (n > 0)
            sbuf_add(&t, p, n);
        else
            sbuf_lit(&t, "\xef\xbf\xbd");
        n += n == 0;
        p += n;
        left -= n;
    }
    sbuf_done(b);
    return sbuf_take(&t, ret, e);
}

static int to_reply(struct run *r, bool base64, struct api_run *ret, struct err *e)
{
    char **text[2] = { &ret->stdout, &ret->stderr };
    struct jbytes *bytes[2] = { &ret->stdout_base64, &ret->stderr_base64 };

    for (int i = 0; i < 2; i++) {
        if (!base64 && to_text(&r->out[i], text[i], e) < 0)
            return -1;
        if (base64) {
            size_t len = r->out[i].len;
            char *data = NULL;
            if (sbuf_take(&r->out[i], &data, e) < 0)
                return -1;
            *bytes[i] = (struct jbytes){ .data = (uint8_t *)data, .len = len };
        }
    }
    ret->stdout_truncated = r->truncated[0];
    ret->stderr_truncated = r->truncated[1];
    return 0;
}

static int answer(const struct api_run_req *req, struct exec *x, struct run *r,
                  struct api_run *ret, struct err *e)
{
    struct api_exec about = { 0 };
    struct api_run reply = { 0 };

    if (exec_describe(x, &about, e) < 0)
        return -1;
    reply.end = take_ptr(about.end);
    reply.exit_code = about.exit_code;
    reply.signal = about.signal;
    reply.duration_ms = about.ended_at > about.created_at
                            ? (uint64_t)(about.ended_at - about.created_at) / 1000 : 0;
    json_done(api_exec_table, &about, sizeof(about));
    if (to_reply(r, req->base64, &reply, e) < 0) {
        json_done(api_run_table, &reply, sizeof(reply));
        return -1;
    }
    *ret = reply;
    return 0;
}

static int run_with(struct call *c, const struct api_run_req *req, struct exec *x,
                    struct api_run *ret, struct err *e)
{
    autotype(reader) struct exec_reader *reader = NULL;
    struct run r = { .out = { SBUF(LIMIT_RUN_OUTPUT), SBUF(LIMIT_RUN_OUTPUT) },
                     .c = c, .base64 = req->base64 };
    int rc;

    r.in = req->stdin ? (const uint8_t *)req->stdin : req->stdin_base64.data;
    r.in_left = req->stdin ? strlen(req->stdin) : req->stdin_base64.len;
    r.in_open = r.in != NULL;
    rc = exec_attach(x, 0, 0, &reader, e);
    r.reader = reader;
    if (rc == 0)
        rc = drive(c, &r, e);
    if (rc < 0)
        exec_end(x);
    else
        rc = answer(req, x, &r, ret, e);
    sbuf_done(&r.out[0]);
    sbuf_done(&r.out[1]);
    return rc;
}

int call_run(struct call *c, const struct api_run_req *req, struct api_run *ret, struct err *e)
{
    autotype(execs) struct exec_table *t = NULL;
    autotype(exec) struct exec *x = NULL;

    vm_touch(c->vm);
    if (check_stdin(req, e) < 0 || call_hold(c, HELD_MIN, e) < 0 ||
        vm_check_awake(c->vm, e) < 0 || vm_execs(c->vm, &t, e) < 0)
        return -1;
    /* borrowed from the request */
    struct api_exec_req start = {
        .command = req->command,
        .env = req->env,
        .workdir = req->workdir,
        .user = req->user,
        .stdin = req->stdin || req->stdin_base64.data,
        .timeout_ms = req->timeout_ms,
    };
    if (exec_start(t, "", &start, deadline_in(DEADLINE_GUEST_REPLY), &x, e) < 0)
        return -1;
    return run_with(c, req, x, ret, e);
}

int h_run(struct call *c, struct err *e)
{
    struct api_run reply = { 0 };

    if (call_run(c, c->body, &reply, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_run_table, &reply, e);
    json_done(api_run_table, &reply, sizeof(reply));
    return r;
}
