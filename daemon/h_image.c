/* SPDX-License-Identifier: MIT */
#include "common/api.h"
#include "daemon/daemon.h"
#include "daemon/handlers.h"
#include "daemon/image.h"

int h_image_list(struct call *c, struct err *e)
{
    struct api_image_list l = { 0 };

    if (image_list(c->daemon->store, &l, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_image_list_table, &l, e);
    json_done(api_image_list_table, &l, sizeof(l));
    return r;
}

int h_image_get(struct call *c, struct err *e)
{
    struct api_image i = { 0 };

    if (image_inspect(c->daemon->store, c->param[0], &i, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_image_table, &i, e);
    json_done(api_image_table, &i, sizeof(i));
    return r;
}

int h_image_delete(struct call *c, struct err *e)
{
    const struct daemon *d = c->daemon;

    if (image_remove(d->store, d->config.state_dir, c->param[0], e) < 0)
        return -1;
    return reply_empty(c);
}
