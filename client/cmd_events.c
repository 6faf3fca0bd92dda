/* SPDX-License-Identifier: MIT
 *
 * What happens to sandboxes, as it happens. Details may be a guest's own words.
 */
#include "client/api_client.h"
#include "client/jsonlines.h"
#include "client/policies.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/parse.h"
#include <inttypes.h>
#include <string.h>

#define EXEC_SHOWN 12       /* digits of an exec's id, as in other tables */

static const struct lines_column columns[] = {
    { "SEQ", 6 }, { "TIME", 19 }, { "EVENT", 15 }, { "SANDBOX", 20 }, { "DETAIL", 0 },
};

static void add_detail(struct sbuf *b, const struct api_event *v)
{
    if (v->exec)
        sbuf_fmt(b, "%.*s", EXEC_SHOWN, v->exec);
    if (v->detail)
        sbuf_fmt(b, "%s%s", b->len ? " " : "", v->detail);
    if (v->count > 1)
        sbuf_fmt(b, "%s(%" PRIu64 " times)", b->len ? " " : "", v->count);
    if (!b->len)
        sbuf_lit(b, "-");
}

static int add_event(struct json_lines *l, struct sbuf *b, const char *text, size_t len)
{
    autosbuf struct sbuf detail = SBUF(1024 * 1024);
    struct api_event v = { 0 };
    char time[40], seq[24];

    if (client_decode(api_event_table, text, len, &v, &l->e) < 0)
        return -1;
    add_detail(&detail, &v);
    snprintf(seq, sizeof(seq), "%" PRIu64, v.seq);
    lines_cell(l, b, 0, seq);
    lines_cell(l, b, 1, local_time(v.time, time));
    lines_cell(l, b, 2, v.kind);
    lines_cell(l, b, 3, v.name ? v.name : v.sandbox ? v.sandbox : "-");
    lines_cell(l, b, 4, sbuf_str(&detail));
    json_done(api_event_table, &v, sizeof(v));
    return 0;
}

COMMAND(cmd_events)
{
    const struct events_opts *o = opts;
    autosbuf struct sbuf path = SBUF(8192);
    struct json_lines l = { .json = o->json, .columns = columns, .n_columns = ARRAY_SIZE(columns),
                            .row = add_event };
    uint64_t number = 0;
    int64_t us = 0;

    (void)args;
    (void)n;
    sbuf_lit(&path, "/" API_VERSION "/events");
    if (o->since && !parse_u64(o->since, 0, INT64_MAX, &number) && !parse_time(o->since, &us) &&
        !parse_duration(o->since, &number)) {
        err_set(e, ERR_USAGE, "--since: '%s' is neither a number nor a time", o->since);
        return err_hint(e, "times are like 2026-01-31T08:00:00Z, or 10m for so long ago");
    }
    if (o->since || o->follow)      /* who only watches wants what is to come */
        url_query(&path, "since", o->since ? o->since : "0s");
    if (o->sandbox)
        url_query(&path, "sandbox", o->sandbox);
    if (o->follow)
        url_query(&path, "follow", "true");
    return json_lines_show(app, &l, sbuf_str(&path), o->follow, e);
}
