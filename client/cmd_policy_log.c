/* SPDX-License-Identifier: MIT
 *
 * What a policy decided, as it happens. Names and addresses are what a guest made up.
 */
#include "client/api_client.h"
#include "client/jsonlines.h"
#include "client/policies.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/parse.h"
#include <inttypes.h>
#include <string.h>

static const struct lines_column columns[] = {
    { "TIME", 19 }, { "VERDICT", 7 }, { "NAME", 24 }, { "ADDRESS", 24 }, { "COUNT", 5 },
    { "WHY", 0 },
};

/* "192.0.2.1:443/tcp", of which any part may be missing. What ICMP has there is its type. */
static void add_address(struct sbuf *b, const struct api_policy_event *v)
{
    uint32_t port = v->proto && strcmp(v->proto, "icmp") == 0 ? 0 : v->port;

    sbuf_fmt(b, "%s", v->address ? v->address : port ? "*" : "-");
    if (port)
        sbuf_fmt(b, ":%u", port);
    if (v->proto && (v->address || port))
        sbuf_fmt(b, "/%s", v->proto);
}

static int add_event(struct json_lines *l, struct sbuf *b, const char *text, size_t len)
{
    autosbuf struct sbuf address = SBUF(1024 * 1024);
    struct api_policy_event v = { 0 };
    char time[40], count[32] = "-";

    if (client_decode(api_policy_event_table, text, len, &v, &l->e) < 0)
        return -1;
    bool decision = strcmp(v.kind, "connect") == 0 || strcmp(v.kind, "resolve") == 0;
    const char *why = decision && v.rule ? v.rule : v.reason ? v.reason : v.rule;
    add_address(&address, &v);
    if (v.count)
        snprintf(count, sizeof(count), "%" PRIu64, v.count);
    lines_cell(l, b, 0, local_time(v.time, time));
    lines_cell(l, b, 1, decision ? (v.verdict ? v.verdict : "-") : v.kind);
    lines_cell(l, b, 2, v.name ? v.name : "-");
    lines_cell(l, b, 3, sbuf_str(&address));
    lines_cell(l, b, 4, count);
    lines_cell(l, b, 5, why ? why : "-");
    json_done(api_policy_event_table, &v, sizeof(v));
    return 0;
}

COMMAND(cmd_policy_log)
{
    const struct policy_log_opts *o = opts;
    autosbuf struct sbuf path = SBUF(8192);
    struct json_lines l = { .json = o->json, .columns = columns, .n_columns = ARRAY_SIZE(columns),
                            .row = add_event };
    uint32_t lines = 0;

    (void)n;
    url_sandbox(&path, args[0], "/policy/log");
    if (o->tail && strcmp(o->tail, "all") != 0) {
        if (!parse_u32(o->tail, 0, UINT32_MAX, &lines))
            return err_set(e, ERR_USAGE, "--tail: '%s' is not a number of lines", o->tail);
        url_query(&path, "tail", o->tail);
    }
    if (o->denied)
        url_query(&path, "denied", "true");
    if (o->follow)
        url_query(&path, "follow", "true");
    return json_lines_show(app, &l, sbuf_str(&path), o->follow, e);
}
