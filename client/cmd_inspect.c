/* SPDX-License-Identifier: MIT */
#include "client/app.h"
#include "client/list.h"
#include "common/api.h"

COMMAND(cmd_inspect)
{
    const struct inspect_opts *o = opts;
    return inspect_show(app, "/" API_VERSION "/sandboxes/", args, n, api_sandbox_table, o->format,
                        e);
}

COMMAND(cmd_image_inspect)
{
    const struct inspect_opts *o = opts;
    return inspect_show(app, "/" API_VERSION "/images/", args, n, api_image_table, o->format, e);
}
