/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/out.h"
#include "common/api.h"
#include "common/auto.h"
#include <inttypes.h>
#include <string.h>

/* One request about one sandbox; its name goes to stdout when it is done. */
static int act(struct app *app, const char *method, const char *name, const char *rest,
               const char *doing, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);
    autosbuf struct sbuf words = SBUF(400);
    struct call call = { .method = method, .flags = CALL_SLOW };

    if (!name[0])
        return err_set(e, ERR_USAGE, "the name of a sandbox is empty");
    url_sandbox(&path, name, rest);
    sbuf_fmt(&words, "%s ", doing);
    sbuf_text(&words, name, strlen(name));
    call.path = sbuf_str(&path);
    call.progress = sbuf_str(&words);
    if (client_call(app, &call, NULL, e) < 0) {
        if (app->interrupted)
            note("given up; sandboxd finishes %s what it began", doing);
        return -1;
    }
    if (out_line(name, e) < 0)
        return -1;
    return out_flush(e);
}

static int start_one(struct app *app, const char *name, void *arg, struct err *e)
{
    (void)arg;
    return act(app, "POST", name, "/start", "starting", e);
}

static int stop_one(struct app *app, const char *name, void *arg, struct err *e)
{
    const struct stop_opts *o = arg;
    char rest[64] = "/stop";

    if (o->timeout.set)
        snprintf(rest, sizeof(rest), "/stop?timeout_ms=%" PRIu64, o->timeout.ms);
    return act(app, "POST", name, rest, "stopping", e);
}

static int restart_one(struct app *app, const char *name, void *arg, struct err *e)
{
    (void)arg;
    return act(app, "POST", name, "/restart", "restarting", e);
}

static int rm_one(struct app *app, const char *name, void *arg, struct err *e)
{
    const struct rm_opts *o = arg;
    struct err own = ERR_INIT;

    if (act(app, "DELETE", name, o->force ? "?force=true" : NULL, "removing", &own) == 0)
        return 0;
    if (o->force && own.code == ERR_SANDBOX_NOT_FOUND)
        return 0;
    *e = own;
    return -1;
}

COMMAND(cmd_start)
{
    (void)e;
    return for_each_name(app, args, n, start_one, opts);
}

COMMAND(cmd_stop)
{
    (void)e;
    return for_each_name(app, args, n, stop_one, opts);
}

COMMAND(cmd_restart)
{
    (void)e;
    return for_each_name(app, args, n, restart_one, opts);
}

COMMAND(cmd_rm)
{
    (void)e;
    return for_each_name(app, args, n, rm_one, opts);
}
