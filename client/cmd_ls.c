/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/list.h"
#include "common/api.h"
#include "common/auto.h"
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

static int row(struct table *t, const void *item, bool no_trunc, struct err *e)
{
    const struct api_sandbox *s = item;
    char size[40], time[64];
    const char *state = s->state ? s->state : "?";
    bool reason = s->reason && s->reason[0];

    format_size(s->memory, size);
    if (table_cellf(t, e, "%.*s", no_trunc ? LIMIT_ID : 12, s->id ? s->id : "") < 0 ||
        table_cell(t, s->name, e) < 0 ||
        table_cellf(t, e, "%s%s%s%s", state, reason ? " (" : "", reason ? s->reason : "",
                    reason ? ")" : "") < 0 ||
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
