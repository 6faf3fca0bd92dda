/* SPDX-License-Identifier: MIT
 *
 * doctor: whether the daemon's host has what networks of sandboxes need.
 */
#include "client/list.h"
#include "client/out.h"
#include "client/policies.h"
#include "common/api.h"
#include "common/auto.h"
#include <string.h>

#define MISSING 1           /* exit status */
#define TEXT_MAX (1024ULL * 1024)

static void add_text(struct sbuf *b, const char *text)
{
    if (text)
        sbuf_text(b, text, strlen(text));
}

static int show(const struct api_check_list *l, struct err *e)
{
    autosbuf struct sbuf b = SBUF(TEXT_MAX);
    const struct api_check *c = l->checks.items;

    for (size_t i = 0; i < l->checks.n; i++) {
        sbuf_lit(&b, i ? "\n" : "");
        sbuf_lit(&b, c[i].ok ? "ok       " : "MISSING  ");
        add_text(&b, c[i].name);
        if (c[i].detail)
            sbuf_lit(&b, ": ");
        add_text(&b, c[i].detail);
    }
    return b.failed ? err_nomem(e) : out_line(sbuf_str(&b), e);
}

COMMAND(cmd_doctor)
{
    const struct json_opts *o = opts;
    struct api_check_list l = { 0 };
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);
    bool missing = false;

    (void)args;
    (void)n;
    const struct call call = { .method = "GET", .path = "/" API_VERSION "/checks" };
    if (policy_fetch(app, &call, api_check_list_table, &l, &body, e) < 0)
        return -1;
    for (size_t i = 0; i < l.checks.n; i++)
        missing |= !((const struct api_check *)l.checks.items)[i].ok;
    int r = o->json ? policy_print_json(&body, e) : show(&l, e);
    json_done(api_check_list_table, &l, sizeof(l));
    return r < 0 ? -1 : missing ? MISSING : 0;
}
