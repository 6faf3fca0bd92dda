/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/each.h"
#include "client/env.h"
#include "client/out.h"
#include "client/policies.h"
#include "common/parse.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/name.h"
#include "common/restart.h"
#include <string.h>

/* DIR, DIR:ro or DIR:rw. The daemon resolves the path with our rights; here it only becomes
 * absolute, as the daemon has another working directory. */
static int workspace_parse(const struct app *app, const char *given, struct api_workspace *ret,
                           struct err *e)
{
    size_t len = strlen(given);
    autofree char *cwd = NULL;
    autosbuf struct sbuf b = SBUF(LIMIT_PATH);

    if (len >= 3 && (strcmp(given + len - 3, ":ro") == 0 || strcmp(given + len - 3, ":rw") == 0)) {
        ret->read_only = given[len - 1] == 'o';
        len -= 3;
    }
    if (len == 0)
        return err_set(e, ERR_USAGE, "--workspace: the directory is empty");
    if (given[0] != '/') {
        if (app->host.kind == HOST_SSH) {
            err_set(e, ERR_USAGE, "--workspace: '%s' is a directory of this machine", given);
            return err_hint(e, "give an absolute directory of %s", app->host.name);
        }
        cwd = getcwd(NULL, 0);
        if (!cwd)
            return err_sys(e, ERR_WORKSPACE_INVALID, errno, "cannot tell the working directory");
        sbuf_add(&b, cwd, strlen(cwd));
        if (strncmp(given, ".", len) != 0) {
            if (strcmp(cwd, "/") != 0)
                sbuf_chr(&b, '/');
            sbuf_add(&b, given, len);
        }
    } else {
        sbuf_add(&b, given, len);
    }
    if (b.failed == E2BIG)
        return err_set(e, ERR_USAGE, "--workspace: the path is too long");
    if (!utf8_valid(b.data, b.len)) {
        err_set(e, ERR_USAGE, "--workspace: the path '%s' is not UTF-8 text", sbuf_str(&b));
        return err_hint(e, "give a directory with another name, or a link to this one");
    }
    ret->present = true;
    return sbuf_take(&b, &ret->path, e);
}

static int label_add(const char *given, struct strv *ret, struct err *e)
{
    const char *eq = strchr(given, '=');
    autofree char *key = eq ? strndup(given, (size_t)(eq - given)) : strdup(given);
    autosbuf struct sbuf b = SBUF(LIMIT_LABEL_KEY + LIMIT_LABEL_VALUE + 2);

    if (!key)
        return err_nomem(e);
    if (!label_key_valid(key)) {
        err_set(e, ERR_USAGE, "--label: '%s' is not a key", key);
        return err_hint(e, "keys are of letters, digits and _./- and begin with a letter or digit");
    }
    sbuf_fmt(&b, "%s%s", given, eq ? "" : "=");
    if (b.failed)
        return err_set(e, ERR_USAGE, "--label: '%s' has too long a value", key);
    return strv_env_set(ret, sbuf_str(&b), e);
}

static int check_size(const char *option, uint64_t bytes, uint64_t min, uint64_t max, struct err *e)
{
    char least[32], most[32];

    if (bytes == 0 || (bytes >= min && bytes <= max))
        return 0;
    format_size(min, least);
    format_size(max, most);
    err_set(e, ERR_USAGE, "%s: %llu bytes is not from %s to %s", option, (unsigned long long)bytes,
            least, most);
    return bytes < MIB ? err_hint(e, "sizes without a unit are bytes: did you mean %lluM?",
                                  (unsigned long long)bytes)
                       : -1;
}

static int policy_fill(const struct create_opts *o, struct api_create_req *req, struct err *e)
{
    if (o->policy && policy_is_file(o->policy)) {
        if (policy_file_read(o->policy, &req->policy_rules, e) < 0)
            return err_wrap(e, "--policy");
    } else if (o->policy && !(req->policy = strdup(o->policy))) {
        return err_nomem(e);
    }
    return strv_copy(&req->allow, &o->allow, e) < 0 || strv_copy(&req->deny, &o->deny, e) < 0 ? -1
                                                                                             : 0;
}

static int check_restart(const char *given, char **ret, struct err *e)
{
    if (!given)
        return 0;
    if (!restart_valid(given)) {
        err_set(e, ERR_USAGE, "--restart: '%s' is not a policy", given);
        return err_hint(e, "it is " RESTART_RULE);
    }
    *ret = strdup(given);
    return *ret ? 0 : err_nomem(e);
}

static int request_fill(const struct app *app, const struct create_opts *o,
                        struct api_create_req *req, struct err *e)
{
    if (o->name && !name_valid(o->name)) {
        err_set(e, ERR_USAGE, "--name: '%s' is not a name for a sandbox", o->name);
        return err_hint(e, "names are of a-z, 0-9 and _.-, begin with a letter or digit, and "
                           "are at most %d long", LIMIT_NAME);
    }
    if (check_size("--memory", o->memory, LIMIT_MEMORY_MIN, LIMIT_MEMORY_MAX, e) < 0 ||
        check_size("--disk", o->disk, LIMIT_DISK_MIN, LIMIT_DISK_MAX, e) < 0)
        return -1;
    if ((o->name && !(req->name = strdup(o->name))) ||
        (o->image && !(req->image = strdup(o->image))))
        return err_nomem(e);
    if (o->workspace && workspace_parse(app, o->workspace, &req->workspace, e) < 0)
        return -1;
    for (size_t i = 0; i < o->labels.n; i++)
        if (label_add(o->labels.items[i], &req->labels, e) < 0)
            return -1;
    if (policy_fill(o, req, e) < 0)
        return -1;
    if (env_collect(&o->env_files, &o->env, &req->env, e) < 0)
        return -1;
    if (check_restart(o->restart, &req->restart, e) < 0)
        return -1;
    if (o->ttl.set)
        req->ttl_ms = o->ttl.ms;
    if (o->idle_timeout.set)
        req->idle_timeout_ms = o->idle_timeout.ms;
    req->cpus = o->cpus;
    req->memory = o->memory;
    req->disk = o->disk;
    req->start = !o->no_start;
    return 0;
}

COMMAND(cmd_create)
{
    const struct create_opts *o = opts;
    struct api_create_req req = { .ttl_ms = JSON_UNSET, .idle_timeout_ms = JSON_UNSET };
    struct api_sandbox box = { 0 };
    autosbuf struct sbuf body = SBUF(LIMIT_BODY);
    struct call call = { .method = "POST", .path = "/" API_VERSION "/sandboxes",
                         .flags = CALL_SLOW | CALL_IDEMPOTENT, .progress = "creating sandbox" };
    int r = -1;

    (void)args;
    (void)n;
    if (request_fill(app, o, &req, e) == 0 &&
        json_encode(api_create_req_table, &req, &body, e) == 0) {
        if (body.failed) {
            r = err_set(e, ERR_USAGE, "the request is too large");
        } else {
            call.body = sbuf_str(&body);
            r = client_fetch(app, &call, api_sandbox_table, &box, e);
        }
    }
    if (r < 0 && o->policy)
        policy_explain(o->policy, e);
    if (app->interrupted) {
        note("given up waiting; sandboxd goes on, and the sandbox may be there soon: see 'sbx ls'");
    } else if (r == 0) {
        const char *word = o->quiet ? box.id : box.name;
        r = word ? out_line(word, e) : err_set(e, ERR_INTERNAL, "sandboxd named no sandbox");
    }
    json_done(api_create_req_table, &req, sizeof(req));
    json_done(api_sandbox_table, &box, sizeof(box));
    return r;
}

static int update_one(struct app *app, const char *name, void *arg, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);

    url_sandbox(&path, name, NULL);
    const struct call call = { .method = "PATCH", .path = sbuf_str(&path), .body = arg };
    return client_call(app, &call, NULL, e);
}

COMMAND(cmd_update)
{
    const struct update_opts *o = opts;
    struct api_update_req req = { .ttl_ms = o->ttl.set ? o->ttl.ms : JSON_UNSET,
                                  .idle_timeout_ms = o->idle_timeout.set ? o->idle_timeout.ms
                                                                         : JSON_UNSET };
    autosbuf struct sbuf body = SBUF(4096);

    if (!o->ttl.set && !o->idle_timeout.set && !o->restart) {
        err_set(e, ERR_USAGE, "nothing to change is given");
        return err_hint(e, "give --ttl, --idle-timeout or --restart");
    }
    if (check_restart(o->restart, &req.restart, e) < 0)
        return -1;
    int r = json_encode(api_update_req_table, &req, &body, e);
    json_done(api_update_req_table, &req, sizeof(req));
    return r < 0 ? -1 : each_name(app, args, n, update_one, (void *)sbuf_str(&body), "updating", e);
}
