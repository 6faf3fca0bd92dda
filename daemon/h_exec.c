/* SPDX-License-Identifier: MIT */
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"
#include "daemon/daemon.h"
#include "daemon/exec.h"
#include "daemon/handlers.h"
#include "daemon/upgrade.h"

#include <signal.h>
#include <string.h>

AUTO_DEFINE(execs, struct exec_table, exec_table_unref)
AUTO_DEFINE(exec, struct exec, exec_unref)

/* The exec that {id} names, a reference. */
static int find_exec(struct call *c, struct exec **ret, struct err *e)
{
    autotype(execs) struct exec_table *t = NULL;

    return vm_execs(c->vm, &t, e) < 0 ? -1 : exec_find(t, c->param[1], ret, e);
}

int h_exec_list(struct call *c, struct err *e)
{
    autotype(execs) struct exec_table *t = NULL;
    struct api_exec_list l = { 0 };

    if (vm_execs(c->vm, &t, e) < 0 || exec_list(t, &l, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_exec_list_table, &l, e);
    json_done(api_exec_list_table, &l, sizeof(l));
    return r;
}

static int reply_exec(struct call *c, int status, struct exec *x, struct err *e)
{
    struct api_exec about = { 0 };

    if (exec_describe(x, &about, e) < 0)
        return -1;
    int r = reply_json(c, status, api_exec_table, &about, e);
    json_done(api_exec_table, &about, sizeof(about));
    return r;
}

int h_exec_create(struct call *c, struct err *e)
{
    autotype(execs) struct exec_table *t = NULL;
    autotype(exec) struct exec *x = NULL;

    struct err none = ERR_INIT;

    vm_touch(c->vm);
    if (vm_execs(c->vm, &t, e) < 0)
        return -1;
    if (c->again && exec_find(t, c->object, &x, &none) == 0) {
        if (reply_header(c, "Idempotency-Replayed", e, "true") < 0)
            return -1;
    } else if (vm_check_awake(c->vm, e) < 0 ||
               exec_start(t, c->object, c->body, deadline_in(DEADLINE_GUEST_REPLY), &x, e) < 0) {
        return -1;
    }
    if (reply_header(c, "Location", e, "/v1/sandboxes/%s/execs/%s", vm_id(c->vm), exec_id(x)) < 0)
        return -1;
    return reply_exec(c, 201, x, e);
}

int h_exec_get(struct call *c, struct err *e)
{
    autotype(exec) struct exec *x = NULL;

    return find_exec(c, &x, e) < 0 ? -1 : reply_exec(c, 200, x, e);
}

int h_exec_attach(struct call *c, struct err *e)
{
    autotype(exec) struct exec *x = NULL;
    uint64_t stdout_offset = 0, stderr_offset = 0;

    vm_touch(c->vm);
    if (call_query_u64(c, "stdout_offset", UINT64_MAX, &stdout_offset, e) < 0 ||
        call_query_u64(c, "stderr_offset", UINT64_MAX, &stderr_offset, e) < 0 ||
        find_exec(c, &x, e) < 0)
        return -1;
    return upgrade_attach_take(c, &x, stdout_offset, stderr_offset, e);
}

int h_exec_resize(struct call *c, struct err *e)
{
    const struct api_resize_req *req = c->body;
    autotype(exec) struct exec *x = NULL;

    if (find_exec(c, &x, e) < 0 ||
        exec_resize(x, (uint16_t)req->rows, (uint16_t)req->cols, e) < 0)
        return -1;
    return reply_empty(c);
}

/* "TERM", "SIGTERM", "15" */
static int parse_signal(const char *s, uint32_t *ret, struct err *e)
{
    const char *name = strncmp(s, "SIG", 3) == 0 ? s + 3 : s;

    if (parse_u32(s, 1, 64, ret))
        return 0;
    for (int n = 1; n < 32; n++) {
        const char *abbrev = sigabbrev_np(n);
        if (abbrev && strcmp(abbrev, name) == 0) {
            *ret = (uint32_t)n;
            return 0;
        }
    }
    return err_set(e, ERR_FIELD_INVALID, "signal '%s' is not a signal's name or number", s);
}

int h_exec_signal(struct call *c, struct err *e)
{
    const struct api_signal_req *req = c->body;
    autotype(exec) struct exec *x = NULL;
    uint32_t signo = 0;

    if (parse_signal(req->signal, &signo, e) < 0 || find_exec(c, &x, e) < 0 ||
        exec_signal(x, signo, e) < 0)
        return -1;
    return reply_empty(c);
}

/* Everything that is kept from `offset` on, as far as it is there now. */
static int read_output(struct call *c, struct exec *x, int fd, uint64_t offset, struct err *e)
{
    autofree char *data = calloc(1, LIMIT_EXEC_RING);
    struct api_exec about = { 0 };
    uint64_t next = offset, lost = 0, first;
    size_t len = 0;

    /* before the output is read: if it has ended now, what follows is all there is */
    if (!data)
        return err_nomem(e);
    if (exec_describe(x, &about, e) < 0)
        return -1;
    bool ended = about.ended_at != 0;
    uint64_t end = fd == 1 ? about.stdout_end : about.stderr_end;
    json_done(api_exec_table, &about, sizeof(about));
    while (len < LIMIT_EXEC_RING) {
        uint64_t lost_now = 0;
        int64_t n = exec_output(x, fd, &next, data + len, LIMIT_EXEC_RING - len, &lost_now, e);
        if (n < 0)
            return -1;
        if (lost_now && len)    /* overtaken while reading: what is after the hole is for later */
            return err_set(e, ERR_UNAVAILABLE, "output is written faster than it is read");
        lost += lost_now;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    first = next - len;
    if (reply_header(c, "Sbx-Offset", e, "%llu", (unsigned long long)first) < 0 ||
        reply_header(c, "Sbx-Next-Offset", e, "%llu", (unsigned long long)next) < 0 ||
        reply_header(c, "Sbx-Lost", e, "%llu", (unsigned long long)lost) < 0 ||
        reply_header(c, "Sbx-Ended", e, "%s", ended && next >= end ? "true" : "false") < 0)
        return -1;
    char *fit = realloc(data, len + 1);     /* it may be held for long */
    if (fit)
        data = fit;
    return reply_take(c, "application/octet-stream", &data, len, e);
}

int h_exec_output(struct call *c, struct err *e)
{
    const char *stream = call_query(c, "stream");
    autotype(exec) struct exec *x = NULL;
    uint64_t offset = 0;

    if (stream && strcmp(stream, "stdout") != 0 && strcmp(stream, "stderr") != 0)
        return err_set(e, ERR_FIELD_INVALID,
                       "query parameter 'stream' is stdout or stderr, not '%s'", stream);
    if (call_query_u64(c, "offset", UINT64_MAX, &offset, e) < 0 || find_exec(c, &x, e) < 0)
        return -1;
    return read_output(c, x, stream && strcmp(stream, "stderr") == 0 ? 2 : 1, offset, e);
}
