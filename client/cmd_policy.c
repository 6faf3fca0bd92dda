/* SPDX-License-Identifier: MIT
 *
 * Policies looked at and kept: ls, export, show, define, undefine.
 */
#include "client/list.h"
#include "client/out.h"
#include "client/policies.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/parse.h"
#include <inttypes.h>
#include <string.h>

#define TEXT_MAX (16ULL * 1024 * 1024)

/* ---- ls ------------------------------------------------------------------------------------ */

static const struct column rule_columns[] = {
    { "VERDICT" }, { "TARGET", .flex = true }, { "SOURCE", .flex = true }, { "ADDED BY" },
    { "WHEN" }, { "MATCHES" },
};

static int rule_row(struct table *t, const struct api_policy_rule *r, struct err *e)
{
    char time[64];

    if (table_cell(t, r->verdict, e) < 0 || table_cell(t, r->target, e) < 0 ||
        table_cell(t, r->source, e) < 0)
        return -1;
    if ((r->added_by.user ? table_cell(t, r->added_by.user, e)
                          : table_cellf(t, e, "%u", r->added_by.uid)) < 0)
        return -1;
    return table_cell(t, ago(r->added_at, time), e) < 0 ||
           table_cellf(t, e, "%" PRIu64, r->matches) < 0 ? -1 : 0;
}

/* Nobody added them, and no count is kept. */
static int show_ceiling(const struct jlist *rules, bool no_trunc, struct err *e)
{
    static const struct column columns[] = { { "VERDICT" }, { "TARGET", .flex = true } };
    autotable struct table t = { .columns = columns, .n_columns = ARRAY_SIZE(columns),
                                 .no_trunc = no_trunc };
    const struct api_policy_rule *r = rules->items;

    if (out_line("\nCeiling of the administrator, beyond which nothing is allowed:", e) < 0)
        return -1;
    for (size_t i = 0; i < rules->n; i++)
        if (table_cell(&t, r[i].verdict, e) < 0 || table_cell(&t, r[i].target, e) < 0)
            return -1;
    return table_print(&t, e);
}

static int show_rules(const struct jlist *rules, bool no_trunc, struct err *e)
{
    autotable struct table t = { .columns = rule_columns, .n_columns = ARRAY_SIZE(rule_columns),
                                 .no_trunc = no_trunc };
    const struct api_policy_rule *r = rules->items;

    for (size_t i = 0; i < rules->n; i++)
        if (rule_row(&t, &r[i], e) < 0)
            return -1;
    return table_print(&t, e);
}

static int fetch_policy(struct app *app, const char *name, struct api_policy *ret,
                        struct sbuf *body, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);

    url_sandbox(&path, name, "/policy");
    const struct call call = { .method = "GET", .path = sbuf_str(&path) };
    return policy_fetch(app, &call, api_policy_table, ret, body, e);
}

static int ls_rules(struct app *app, const char *name, const struct policy_ls_opts *o,
                    struct err *e)
{
    struct api_policy policy = { 0 };
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);

    int r = fetch_policy(app, name, &policy, &body, e);
    if (r == 0 && o->json)
        r = policy_print_json(&body, e);
    else if (r == 0)
        r = show_rules(&policy.rules, o->no_trunc, e);
    if (r == 0 && !o->json && policy.ceiling.n)
        r = show_ceiling(&policy.ceiling, o->no_trunc, e);
    json_done(api_policy_table, &policy, sizeof(policy));
    return r;
}

static const struct column policy_columns[] = {
    { "NAME", .flex = true }, { "KIND" }, { "OWNER", .flex = true }, { "CHANGED" },
    { "DESCRIPTION", .flex = true },
};

static int policy_row(struct table *t, const struct api_named_policy *p, struct err *e)
{
    bool preset = p->kind && strcmp(p->kind, "preset") == 0;
    char time[64];

    if (table_cell(t, p->name, e) < 0 || table_cell(t, p->kind, e) < 0)
        return -1;
    if ((preset || p->owner.user ? table_cell(t, preset ? "-" : p->owner.user, e)
                                 : table_cellf(t, e, "%u", p->owner.uid)) < 0)
        return -1;
    return table_cell(t, ago(p->changed_at, time), e) < 0 ||
           table_cell(t, p->description ? p->description : "-", e) < 0 ? -1 : 0;
}

static int ls_policies(struct app *app, const struct policy_ls_opts *o, struct err *e)
{
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);
    autotable struct table t = { .columns = policy_columns,
                                 .n_columns = ARRAY_SIZE(policy_columns),
                                 .no_trunc = o->no_trunc };
    struct api_named_policy_list list = { 0 };
    const struct call call = { .method = "GET", .path = "/" API_VERSION "/policies" };

    int r = policy_fetch(app, &call, api_named_policy_list_table, &list, &body, e);
    const struct api_named_policy *p = list.policies.items;
    for (size_t i = 0; r == 0 && !o->json && i < list.policies.n; i++)
        r = policy_row(&t, &p[i], e);
    if (r == 0)
        r = o->json ? policy_print_json(&body, e) : table_print(&t, e);
    json_done(api_named_policy_list_table, &list, sizeof(list));
    return r;
}

COMMAND(cmd_policy_ls)
{
    return n ? ls_rules(app, args[0], opts, e) : ls_policies(app, opts, e);
}

/* ---- text ---------------------------------------------------------------------------------- */

/* Byte for byte to files and pipes; a terminal is not to obey what a comment holds. */
static int print_text(const char *text, struct err *e)
{
    autosbuf struct sbuf b = SBUF(TEXT_MAX);
    bool terminal = isatty(STDOUT_FILENO);

    while (*text) {
        size_t n = strcspn(text, "\n");
        if (terminal)
            sbuf_text(&b, text, n);
        else
            sbuf_add(&b, text, n);
        sbuf_chr(&b, '\n');
        text += n + (text[n] != '\0');
    }
    if (b.failed)
        return err_nomem(e);
    return out_write(sbuf_str(&b), b.len, e);
}

COMMAND(cmd_policy_export)
{
    struct api_policy policy = { 0 };
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);

    (void)opts;
    (void)n;
    int r = fetch_policy(app, args[0], &policy, &body, e);
    if (r == 0)
        r = policy.text ? print_text(policy.text, e)
                        : err_set(e, ERR_INTERNAL, "sandboxd's answer is without the text");
    json_done(api_policy_table, &policy, sizeof(policy));
    return r;
}

static int show_policy(const struct api_named_policy *p, struct err *e)
{
    autosbuf struct sbuf b = SBUF(TEXT_MAX);

    if (!p->rules)
        return err_set(e, ERR_INTERNAL, "sandboxd's answer is without the text");
    if (p->description && p->description[0]) {
        sbuf_lit(&b, "# ");
        sbuf_text(&b, p->description, strlen(p->description));
        sbuf_chr(&b, '\n');
    }
    sbuf_add(&b, p->rules, strlen(p->rules));
    return b.failed ? err_nomem(e) : print_text(sbuf_str(&b), e);
}

COMMAND(cmd_policy_show)
{
    const struct json_opts *o = opts;
    struct api_named_policy policy = { 0 };
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);
    autosbuf struct sbuf path = SBUF(4096);

    (void)n;
    url_policy(&path, args[0]);
    const struct call call = { .method = "GET", .path = sbuf_str(&path) };
    int r = policy_fetch(app, &call, api_named_policy_table, &policy, &body, e);
    if (r == 0)
        r = o->json ? policy_print_json(&body, e) : show_policy(&policy, e);
    json_done(api_named_policy_table, &policy, sizeof(policy));
    return r;
}

COMMAND(cmd_policy_define)
{
    struct api_named_policy_req req = { 0 };
    autosbuf struct sbuf path = SBUF(4096);

    (void)opts;
    (void)n;
    url_policy(&path, args[0]);
    int r = policy_file_read(args[1], &req.rules, e);
    if (r == 0)
        r = policy_send(app, "PUT", sbuf_str(&path), api_named_policy_req_table, &req, e);
    json_done(api_named_policy_req_table, &req, sizeof(req));
    return r == 0 ? out_line(args[0], e) : r;
}

COMMAND(cmd_policy_undefine)
{
    autosbuf struct sbuf path = SBUF(4096);

    (void)opts;
    (void)n;
    url_policy(&path, args[0]);
    const struct call call = { .method = "DELETE", .path = sbuf_str(&path) };
    return client_call(app, &call, NULL, e) < 0 ? -1 : out_line(args[0], e);
}
