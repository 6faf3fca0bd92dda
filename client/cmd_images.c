/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/each.h"
#include "client/list.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/parse.h"
#include <string.h>

static const struct column columns[] = {
    { "NAME", .flex = true }, { "DIGEST" }, { "OS", .flex = true }, { "KERNEL", .flex = true },
    { "SIZE" }, { "USED BY" }, { "CREATED" },
};

static int row(struct table *t, const void *item, bool no_trunc, struct err *e)
{
    const struct api_image *i = item;
    const char *digest = i->digest ? i->digest : "";
    char size[40], time[64];

    if (!no_trunc && strncmp(digest, "sha256:", 7) == 0)
        digest += 7;
    format_size(i->size, size);
    return table_cell(t, i->name ? i->name : "-", e) < 0 ||
           (no_trunc ? table_cell(t, digest, e) : table_cellf(t, e, "%.12s", digest)) < 0 ||
           table_cell(t, i->os, e) < 0 || table_cell(t, i->kernel, e) < 0 ||
           table_cell(t, size, e) < 0 || table_cellf(t, e, "%u", i->sandboxes) < 0 ||
           table_cell(t, ago(i->created_at, time), e) < 0 ? -1 : 0;
}

static const char *id(const void *item)
{
    return ((const struct api_image *)item)->digest;
}

COMMAND(cmd_images)
{
    static const struct list list = {
        .key = "images", .list_table = api_image_list_table, .item_table = api_image_table,
        .item_size = sizeof(struct api_image), .columns = columns,
        .n_columns = ARRAY_SIZE(columns), .row = row, .id = id,
    };

    (void)args;
    (void)n;
    return list_show(app, "/" API_VERSION "/images", &list, opts, e);
}

static int rm_one(struct app *app, const char *name, void *arg, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);

    (void)arg;
    sbuf_lit(&path, "/" API_VERSION "/images/");
    url_add(&path, name);
    const struct call call = { .method = "DELETE", .path = sbuf_str(&path), .flags = CALL_SLOW };
    return client_call(app, &call, NULL, e);
}

COMMAND(cmd_image_rm)
{
    return each_name(app, args, n, rm_one, opts, "removing", e);
}
