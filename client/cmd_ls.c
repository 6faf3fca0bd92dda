/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/list.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/parse.h"
#include <string.h>
#include <unistd.h>

/* OWNER is for those who see more than their own, and last, so that it can be left out. */
static const struct column columns[] = {
    { "ID" }, { "NAME", .flex = true }, { "STATE", .flex = true, .state = true },
    { "IMAGE", .flex = true }, { "CPUS" }, { "MEMORY" }, { "CREATED" },
    { "WORKSPACE", .flex = true }, { "OWNER", .flex = true },
};

static bool shows_owner(void)
{
    return geteuid() == 0;
}

/* "2m5s" from now to then; nothing that is over. */
static const char *left(int64_t at, char buf[32])
{
    int64_t us = at - now_real_us();

    format_duration(us > 0 ? (uint64_t)us / 1000000 * 1000 : 0, buf);
    return buf;
}

/* "running (idle 3m, stops in 12m)", "stopped (the guest powered off, starts in 4s)" */
static int state_cell(struct table *t, const struct api_sandbox *s, struct err *e)
{
    autosbuf struct sbuf b = SBUF(4096);
    const char *sep = " (";
    char time[32];

    sbuf_fmt(&b, "%s", s->state ? s->state : "?");
    if (s->reason && s->reason[0]) {
        sbuf_fmt(&b, "%s%s", sep, s->reason);
        sep = ", ";
    }
    if (s->idle_since) {
        int64_t us = now_real_us() - s->idle_since;
        format_duration(us > 0 ? (uint64_t)us / 1000000 * 1000 : 0, time);
        sbuf_fmt(&b, "%sidle %s", sep, time);
        sep = ", ";
    }
    if (s->stops_at || s->starts_at) {
        sbuf_fmt(&b, "%s%s in %s", sep, s->stops_at ? "stops" : "starts",
                 left(s->stops_at ? s->stops_at : s->starts_at, time));
        sep = ", ";
    }
    sbuf_lit(&b, sep[0] == ',' ? ")" : "");
    return b.failed ? err_nomem(e) : table_cell(t, sbuf_str(&b), e);
}

static int row(struct table *t, const void *item, bool no_trunc, struct err *e)
{
    const struct api_sandbox *s = item;
    char size[40], time[64];

    format_size(s->memory, size);
    if (table_cellf(t, e, "%.*s", no_trunc ? LIMIT_ID : 12, s->id ? s->id : "") < 0 ||
        table_cell(t, s->name, e) < 0 ||
        state_cell(t, s, e) < 0 ||
        table_cell(t, s->image.name ? s->image.name : s->image.digest, e) < 0 ||
        table_cellf(t, e, "%u", s->cpus) < 0 || table_cell(t, size, e) < 0 ||
        table_cell(t, ago(s->created_at, time), e) < 0)
        return -1;
    bool shared = s->workspace.present && s->workspace.path;
    if (table_cellf(t, e, "%s%s", shared ? s->workspace.path : "-",
                    shared && s->workspace.read_only ? ":ro" : "") < 0)
        return -1;
    if (!shows_owner())
        return 0;
    return s->owner.user ? table_cell(t, s->owner.user, e)
                         : table_cellf(t, e, "%u", s->owner.uid);
}

static const char *id(const void *item)
{
    return ((const struct api_sandbox *)item)->id;
}

static bool keep(const void *item, const void *arg)
{
    const struct api_sandbox *s = item;
    const struct strv *parts = arg;
    bool kept = parts->n == 0;

    for (size_t i = 0; i < parts->n && !kept; i++)
        kept = s->name && strstr(s->name, parts->items[i]);
    return kept;
}

/* state= (status= for docker's users) and label= are the daemon's to decide, name= is ours. */
static int add_filter(const char *filter, struct sbuf *path, struct strv *names, struct err *e)
{
    static const struct { const char *key, *query; } keys[] = {
        { "state", "state" }, { "status", "state" }, { "label", "label" }, { "name", NULL },
    };
    const char *eq = strchr(filter, '=');

    for (size_t i = 0; eq && i < ARRAY_SIZE(keys); i++) {
        size_t len = strlen(keys[i].key);
        if (strncmp(filter, keys[i].key, len) != 0 || filter + len != eq)
            continue;
        if (!keys[i].query)
            return strv_add(names, eq + 1, e);
        url_query(path, keys[i].query, eq + 1);
        return 0;
    }
    err_set(e, ERR_USAGE, "--filter: '%s' is not a filter", filter);
    return err_hint(e, "filters are state=STATE, label=KEY[=VALUE] and name=PART");
}

COMMAND(cmd_ls)
{
    const struct list_opts *o = opts;
    autosbuf struct sbuf path = SBUF(LIMIT_HTTP_MEMORY);
    autostrv struct strv names = STRV_INIT;
    const struct list list = {
        .key = "sandboxes", .list_table = api_sandbox_list_table, .item_table = api_sandbox_table,
        .item_size = sizeof(struct api_sandbox), .columns = columns,
        .n_columns = ARRAY_SIZE(columns) - !shows_owner(), .row = row, .id = id, .keep = keep,
        .keep_arg = &names,
    };

    (void)args;
    (void)n;
    sbuf_lit(&path, "/" API_VERSION "/sandboxes");
    for (size_t i = 0; i < o->filters.n; i++)
        if (add_filter(o->filters.items[i], &path, &names, e) < 0)
            return -1;
    return list_show(app, sbuf_str(&path), &list, o, e);
}
