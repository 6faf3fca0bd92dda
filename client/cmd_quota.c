/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/list.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/parse.h"

#include <inttypes.h>
#include <string.h>

static const struct column columns[] = { { "QUOTA" }, { "USED" }, { "LIMIT" } };

/* The list alone: list_show() wants no more of the reply. */
static const struct jfield list_table[] = {
    JF(struct api_quota, quotas, JT_LIST, .flags = JF_REQUIRED, .table = api_quota_item_table,
       .item_size = sizeof(struct api_quota_item)),
    JF_END
};

static int amount_cell(struct table *t, const struct api_quota_item *q, uint64_t v, struct err *e)
{
    char size[40];

    if (!q->unit || strcmp(q->unit, "bytes") != 0)
        return table_cellf(t, e, "%" PRIu64, v);
    format_size(v, size);
    return table_cell(t, size, e);
}

static int row(struct table *t, const void *item, bool no_trunc, struct err *e)
{
    const struct api_quota_item *q = item;

    (void)no_trunc;
    if (table_cell(t, q->quota, e) < 0 || amount_cell(t, q, q->used, e) < 0)
        return -1;
    return q->limit == JSON_UNLIMITED ? table_cell(t, "unlimited", e)
                                      : amount_cell(t, q, q->limit, e);
}

COMMAND(cmd_quota)
{
    static const struct list list = {
        .key = "quotas", .list_table = list_table, .item_table = api_quota_item_table,
        .item_size = sizeof(struct api_quota_item), .columns = columns,
        .n_columns = ARRAY_SIZE(columns), .row = row,
    };
    const struct quota_opts *o = opts;
    const struct list_opts as = { .format = o->format };
    autosbuf struct sbuf path = SBUF(4096);

    (void)args;
    (void)n;
    sbuf_lit(&path, "/" API_VERSION "/quota");
    if (o->uid)
        url_query(&path, "uid", o->uid);
    return list_show(app, sbuf_str(&path), &list, &as, e);
}
