/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/env.h"
#include "client/exec_stream.h"
#include "client/list.h"
#include "client/out.h"
#include "client/tty.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/limits.h"
#include <string.h>

static int copy(char **ret, const char *s, struct err *e)
{
    if (!s)
        return 0;
    *ret = strdup(s);
    return *ret ? 0 : err_nomem(e);
}

/* What a program needs to know of our terminal; the size goes with the request, so that it is right
 * from the first byte on. */
static int terminal_fill(struct api_exec_req *req, struct err *e)
{
    const char *term = getenv("TERM");
    autosbuf struct sbuf b = SBUF(256);
    uint16_t rows = 0, cols = 0;

    if (tty_size(&rows, &cols)) {
        req->rows = rows;
        req->cols = cols;
    }
    if (!term || !term[0] || strv_env_get(&req->env, "TERM"))
        return 0;
    sbuf_fmt(&b, "TERM=%s", term);
    return b.failed ? 0 : strv_env_set(&req->env, sbuf_str(&b), e);
}

static int request_fill(const struct exec_opts *o, char **command, size_t n,
                        struct api_exec_req *req, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (strv_add(&req->command, command[i], e) < 0)
            return -1;
    if (env_collect(&o->env_files, &o->env, &req->env, e) < 0 ||
        copy(&req->workdir, o->workdir, e) < 0 || copy(&req->user, o->user, e) < 0)
        return -1;
    req->tty = o->tty;
    req->stdin = o->interactive;
    req->detach = o->detach;
    req->timeout_ms = o->timeout.ms;
    return o->tty ? terminal_fill(req, e) : 0;
}

static int exec_create(struct app *app, const char *sandbox, const struct api_exec_req *req,
                       struct api_exec *ret, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);
    autosbuf struct sbuf body = SBUF(LIMIT_BODY);

    if (json_encode(api_exec_req_table, req, &body, e) < 0)
        return -1;
    if (body.failed)
        return err_set(e, ERR_USAGE, "the command and its environment are too large");
    url_sandbox(&path, sandbox, "/execs");
    const struct call call = { .method = "POST", .path = sbuf_str(&path), .body = sbuf_str(&body),
                               .flags = CALL_IDEMPOTENT };
    if (client_fetch(app, &call, api_exec_table, ret, e) < 0)
        return -1;
    if (!ret->id) {
        json_done(api_exec_table, ret, sizeof(*ret));
        return err_set(e, ERR_INTERNAL, "sandboxd named no exec");
    }
    return 0;
}

static int check_options(const struct exec_opts *o, struct detach_keys *keys, struct err *e)
{
    if (o->timeout.set && !o->timeout.ms)
        return err_set(e, ERR_USAGE, "--timeout: there is no time in 0");
    if (detach_keys_parse(o->detach_keys ? o->detach_keys : DETACH_KEYS_DEFAULT, keys, e) < 0)
        return err_wrap(e, "--detach-keys");
    if (o->tty && o->interactive && !o->detach && !isatty(STDIN_FILENO)) {
        err_set(e, ERR_USAGE, "the input device is not a TTY");
        return err_hint(e, "leave out -t to connect a pipe or file, or -i to connect none");
    }
    return 0;
}

COMMAND(cmd_exec)
{
    const struct exec_opts *o = opts;
    struct api_exec_req req = { 0 };
    struct api_exec exec = { 0 };
    struct detach_keys keys;
    char **command = args + 1;
    int r = -1;

    if (strcmp(command[0], "--") == 0) {
        command++;
        n--;
    } else if (command[0][0] == '-') {
        err_set(e, ERR_USAGE, "'%s' is not a command", command[0]);
        return err_hint(e, "options go before the name: sbx exec %s %s …, and -- begins a command",
                        command[0], args[0]);
    }
    if (n < 2)
        return err_set(e, ERR_USAGE, "there is no command after the --");
    if (!args[0][0])
        return err_set(e, ERR_USAGE, "the name of the sandbox is empty");
    if (check_options(o, &keys, e) < 0)
        return -1;
    if (request_fill(o, command, n - 1, &req, e) == 0)
        r = exec_create(app, args[0], &req, &exec, e);
    json_done(api_exec_req_table, &req, sizeof(req));
    if (r == 0 && o->detach) {
        r = out_line(exec.id, e);
    } else if (r == 0) {
        const struct stream_spec spec = {
            .sandbox = args[0], .exec = exec.id, .tty = o->tty, .stdin = o->interactive,
            .keys = keys,
        };
        r = exec_stream_run(app, &spec, e);
    }
    json_done(api_exec_table, &exec, sizeof(exec));
    return r;
}

COMMAND(cmd_attach)
{
    const struct attach_opts *o = opts;
    autosbuf struct sbuf path = SBUF(4096);
    struct api_exec exec = { 0 };
    struct stream_spec spec = { .sandbox = args[0] };

    (void)n;
    if (detach_keys_parse(o->detach_keys ? o->detach_keys : DETACH_KEYS_DEFAULT, &spec.keys, e) < 0)
        return err_wrap(e, "--detach-keys");
    url_sandbox(&path, args[0], "/execs/");
    url_add(&path, args[1]);
    if (client_get(app, sbuf_str(&path), api_exec_table, &exec, e) < 0)
        return -1;
    spec.exec = exec.id ? exec.id : args[1];
    spec.tty = exec.tty;
    spec.stdin = exec.stdin && !o->no_stdin && exec.state && strcmp(exec.state, "running") == 0;
    spec.lives = exec.detach;
    spec.watch = o->no_stdin;
    int r = exec_stream_run(app, &spec, e);
    json_done(api_exec_table, &exec, sizeof(exec));
    return r;
}

/* ---- execs --------------------------------------------------------------------------------- */

static const struct column columns[] = {
    { "ID" }, { "STATE", .state = true }, { "EXIT" }, { "USER", .flex = true }, { "CREATED" },
    { "COMMAND", .flex = true },
};

static int row(struct table *t, const void *item, bool no_trunc, struct err *e)
{
    const struct api_exec *x = item;
    autosbuf struct sbuf command = SBUF(LIMIT_REPLY);
    char time[64];
    bool over = x->end != NULL;

    for (size_t i = 0; i < x->command.n; i++) {
        sbuf_lit(&command, i ? " " : "");
        sbuf_add(&command, x->command.items[i], strlen(x->command.items[i]));
    }
    if (table_cellf(t, e, "%.*s", no_trunc ? LIMIT_ID : 12, x->id ? x->id : "") < 0 ||
        table_cell(t, x->state, e) < 0)
        return -1;
    if ((over && x->exit_code >= 0 ? table_cellf(t, e, "%d", x->exit_code)
                                   : table_cell(t, "-", e)) < 0)
        return -1;
    if (table_cell(t, x->user ? x->user : "-", e) < 0 ||
        table_cell(t, ago(x->created_at, time), e) < 0)
        return -1;
    return table_cell(t, sbuf_str(&command), e);
}

static const char *id(const void *item)
{
    return ((const struct api_exec *)item)->id;
}

COMMAND(cmd_execs)
{
    autosbuf struct sbuf path = SBUF(4096);
    static const struct list list = {
        .key = "execs", .list_table = api_exec_list_table, .item_table = api_exec_table,
        .item_size = sizeof(struct api_exec), .columns = columns,
        .n_columns = ARRAY_SIZE(columns), .row = row, .id = id,
    };

    (void)n;
    url_sandbox(&path, args[0], "/execs");
    return list_show(app, sbuf_str(&path), &list, opts, e);
}
