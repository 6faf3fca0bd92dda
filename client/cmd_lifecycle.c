/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/each.h"
#include "common/api.h"
#include "common/auto.h"
#include <inttypes.h>

static int act(struct app *app, const char *method, const char *name, const char *rest,
               struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);

    url_sandbox(&path, name, rest);
    const struct call call = { .method = method, .path = sbuf_str(&path), .flags = CALL_SLOW };
    return client_call(app, &call, NULL, e);
}

static int start_one(struct app *app, const char *name, void *arg, struct err *e)
{
    (void)arg;
    return act(app, "POST", name, "/start", e);
}

static int stop_one(struct app *app, const char *name, void *arg, struct err *e)
{
    const struct stop_opts *o = arg;
    char rest[64] = "/stop";

    if (o->timeout.set)
        snprintf(rest, sizeof(rest), "/stop?timeout_ms=%" PRIu64, o->timeout.ms);
    return act(app, "POST", name, rest, e);
}

static int restart_one(struct app *app, const char *name, void *arg, struct err *e)
{
    (void)arg;
    return act(app, "POST", name, "/restart", e);
}

static int rm_one(struct app *app, const char *name, void *arg, struct err *e)
{
    const struct rm_opts *o = arg;
    struct err own = ERR_INIT;

    if (act(app, "DELETE", name, o->force ? "?force=true" : NULL, &own) == 0)
        return 0;
    if (o->force && own.code == ERR_SANDBOX_NOT_FOUND)
        return 1;
    *e = own;
    return -1;
}

COMMAND(cmd_start)
{
    return each_name(app, args, n, start_one, opts, "starting", e);
}

COMMAND(cmd_stop)
{
    return each_name(app, args, n, stop_one, opts, "stopping", e);
}

COMMAND(cmd_restart)
{
    return each_name(app, args, n, restart_one, opts, "restarting", e);
}

COMMAND(cmd_rm)
{
    return each_name(app, args, n, rm_one, opts, "removing", e);
}
