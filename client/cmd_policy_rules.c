/* SPDX-License-Identifier: MIT
 *
 * Policies of sandboxes changed: allow, deny, rm, set, apply. Each is one request, all or nothing.
 */
#include "client/out.h"
#include "client/policies.h"
#include "common/api.h"
#include "common/auto.h"
#include <string.h>

static int send_rules(struct app *app, const char *verdict, char **args, size_t n, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);
    struct api_policy_rules_req req = { .verdict = strdup(verdict) };
    int r = req.verdict ? 0 : err_nomem(e);

    url_sandbox(&path, args[0], "/policy/rules");
    for (size_t i = 1; i < n && r == 0; i++)
        r = strv_add(&req.targets, args[i], e);
    if (r == 0)
        r = policy_send(app, "POST", sbuf_str(&path), api_policy_rules_req_table, &req, e);
    json_done(api_policy_rules_req_table, &req, sizeof(req));
    return r == 0 ? out_line(args[0], e) : r;
}

COMMAND(cmd_policy_allow)
{
    (void)opts;
    return send_rules(app, "allow", args, n, e);
}

COMMAND(cmd_policy_deny)
{
    (void)opts;
    return send_rules(app, "deny", args, n, e);
}

COMMAND(cmd_policy_rm)
{
    (void)opts;
    return send_rules(app, "remove", args, n, e);
}

static int put(struct app *app, const char *name, const char *policy, const char *file,
               struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);
    struct api_policy_set_req req = { 0 };
    int r = 0;

    url_sandbox(&path, name, "/policy");
    if (file)
        r = policy_file_read(file, &req.rules, e);
    else if (!(req.policy = strdup(policy)))
        r = err_nomem(e);
    if (r == 0)
        r = policy_send(app, "PUT", sbuf_str(&path), api_policy_set_req_table, &req, e);
    if (r < 0 && policy)
        policy_explain(policy, e);
    json_done(api_policy_set_req_table, &req, sizeof(req));
    return r == 0 ? out_line(name, e) : r;
}

COMMAND(cmd_policy_set)
{
    bool file = policy_is_file(args[1]);

    (void)opts;
    (void)n;
    return put(app, args[0], file ? NULL : args[1], file ? args[1] : NULL, e);
}

COMMAND(cmd_policy_apply)
{
    const struct policy_apply_opts *o = opts;

    (void)n;
    if (!o->file) {
        err_set(e, ERR_USAGE, "'sbx policy apply' wants a file");
        return err_hint(e, "sbx policy apply %s -f FILE, or -f - for stdin", args[0]);
    }
    return put(app, args[0], NULL, o->file, e);
}
