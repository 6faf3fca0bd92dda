/* SPDX-License-Identifier: MIT
 *
 * The audit log: who did what, and whether it is whole.
 */
#include "client/api_client.h"
#include "client/jsonlines.h"
#include "client/out.h"
#include "client/policies.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/parse.h"
#include <inttypes.h>
#include <string.h>

#define BROKEN 1            /* exit status */

static const struct lines_column columns[] = {
    { "TIME", 19 }, { "USER", 12 }, { "ACTION", 16 }, { "SANDBOX", 20 }, { "RESULT", 0 },
};

/* "box", or what stands for it: an id, a policy's or image's name. */
static const char *object(const struct api_audit_record *r)
{
    return r->name ? r->name : r->sandbox ? r->sandbox : r->target ? r->target : "-";
}

static void add_said(struct sbuf *b, const struct api_audit_record *r)
{
    const struct api_audit_change *c = &r->change;

    if (r->mount.present)
        sbuf_fmt(b, " %s%s", r->mount.path, r->mount.read_only ? ":ro" : "");
    if (c->present)
        sbuf_fmt(b, " %s %s", c->verb, c->what ? c->what : c->digest ? c->digest : "");
}

static void add_result(struct sbuf *b, const struct api_audit_record *r)
{
    const struct api_audit_result *v = &r->result;

    if (r->torn.present)
        sbuf_fmt(b, "%" PRIu64 " bytes of a record that was not written to its end",
                 r->torn.length);
    else if (r->lost.present)
        sbuf_fmt(b, "%" PRIu64 " records could not be written", r->lost.count);
    else if (v->present)
        sbuf_fmt(b, "%s%u%s%s", v->denied ? "denied " : v->code ? "" : "ok ", v->status,
                 v->code ? " " : "", v->code ? v->code : "");
    else
        sbuf_lit(b, strcmp(r->kind, "begin") == 0 ? "begins" : "-");
    if (v->replayed)
        sbuf_lit(b, " again");
    if (r->command.present)
        sbuf_fmt(b, " %s", r->command.program);
    if (r->command.arguments)
        sbuf_fmt(b, " +%u", r->command.arguments);
    add_said(b, r);
}

static int add_record(struct json_lines *l, struct sbuf *b, const char *text, size_t len)
{
    autosbuf struct sbuf result = SBUF(1024 * 1024), uid = SBUF(16);
    struct api_audit_record r = { 0 };
    char time[40];

    if (client_decode(api_audit_record_table, text, len, &r, &l->e) < 0)
        return -1;
    sbuf_fmt(&uid, r.who.present ? "%u" : "-", r.who.uid);
    add_result(&result, &r);
    lines_cell(l, b, 0, local_time(r.time, time));
    lines_cell(l, b, 1, r.who.user ? r.who.user : sbuf_str(&uid));
    lines_cell(l, b, 2, r.action ? r.action : r.kind);
    lines_cell(l, b, 3, object(&r));
    lines_cell(l, b, 4, sbuf_str(&result));
    json_done(api_audit_record_table, &r, sizeof(r));
    return 0;
}

COMMAND(cmd_audit)
{
    const struct audit_opts *o = opts;
    autosbuf struct sbuf path = SBUF(8192);
    struct json_lines l = { .json = o->json, .columns = columns, .n_columns = ARRAY_SIZE(columns),
                            .row = add_record };
    uint64_t number = 0;
    int64_t us = 0;

    (void)args;
    (void)n;
    sbuf_lit(&path, "/" API_VERSION "/audit");
    if (o->since) {
        if (!parse_u64(o->since, 0, INT64_MAX, &number) && !parse_time(o->since, &us) &&
            !parse_duration(o->since, &number)) {
            err_set(e, ERR_USAGE, "--since: '%s' is neither a number nor a time", o->since);
            return err_hint(e, "times are like 2026-01-31T08:00:00Z, or 10m for so long ago");
        }
        url_query(&path, "since", o->since);
    }
    if (o->follow)
        url_query(&path, "follow", "true");
    return json_lines_show(app, &l, sbuf_str(&path), o->follow, e);
}

static int show(const struct api_audit_verdict *v, struct err *e)
{
    autosbuf struct sbuf b = SBUF(1024 * 1024);
    const struct api_audit_break *at = &v->broken;

    sbuf_fmt(&b, "%" PRIu64 " records, %" PRIu64 " to %" PRIu64 "\n", v->count, v->first, v->last);
    if (v->intact) {
        sbuf_lit(&b, "intact; the last one's hash is ");
        sbuf_text(&b, v->head ? v->head : "-", strlen(v->head ? v->head : "-"));
    } else {
        sbuf_fmt(&b, "BROKEN at line %" PRIu64 " of ", at->line);
        sbuf_text(&b, at->file ? at->file : "?", strlen(at->file ? at->file : "?"));
        sbuf_fmt(&b, ", record %" PRIu64 ": ", at->seq);
        sbuf_text(&b, at->reason ? at->reason : "", strlen(at->reason ? at->reason : ""));
    }
    return b.failed ? err_nomem(e) : out_line(sbuf_str(&b), e);
}

COMMAND(cmd_audit_verify)
{
    const struct json_opts *o = opts;
    struct api_audit_verdict v = { 0 };
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);
    const struct call call = { .method = "GET", .path = "/" API_VERSION "/audit/verify",
                               .flags = CALL_SLOW };

    (void)args;
    (void)n;
    if (policy_fetch(app, &call, api_audit_verdict_table, &v, &body, e) < 0)
        return -1;
    bool intact = v.intact;
    int r = o->json ? policy_print_json(&body, e) : show(&v, e);
    json_done(api_audit_verdict_table, &v, sizeof(v));
    return r < 0 ? -1 : intact ? 0 : BROKEN;
}
