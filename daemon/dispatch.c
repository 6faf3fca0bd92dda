/* SPDX-License-Identifier: MIT
 *
 * The router: from a request to the handler of its route, with every check on the way.
 */
#include "common/auto.h"
#include "common/log.h"
#include "daemon/daemon.h"
#include "daemon/idem.h"
#include "daemon/routes.h"

#include <stdlib.h>
#include <string.h>

static const struct jfield no_fields[] = { JF_END };

/* Compares decoded segments with a pattern and notes what stands for {…}. */
static bool matches(const char *pattern, const struct strv *path, const char *param[2])
{
    size_t n_param = 0;

    for (size_t i = 0; i < path->n; i++) {
        if (*pattern++ != '/')
            return false;
        size_t len = strcspn(pattern, "/");
        const char *segment = path->items[i];
        if (*pattern == '{')
            param[n_param++] = segment;
        else if (strlen(segment) != len || memcmp(segment, pattern, len) != 0)
            return false;
        pattern += len;
    }
    return *pattern == '\0';
}

static bool method_serves(const char *have, const char *asked)
{
    return strcmp(have, asked) == 0 || (strcmp(have, "GET") == 0 && strcmp(asked, "HEAD") == 0);
}

static int refuse_method(struct call *c, const char *allow, struct err *e)
{
    if (reply_header(c, "Allow", e, "%s", allow) < 0)
        return -1;
    return err_set(e, ERR_METHOD, "this route takes %s, not %s", allow, c->method);
}

static int find_route(struct call *c, const struct route *table, struct err *e)
{
    autosbuf struct sbuf allow = SBUF(128);

    for (const struct route *r = table; r->method; r++) {
        const char *param[2] = { NULL, NULL };
        if (!matches(r->pattern, &c->target.path, param))
            continue;
        if (method_serves(r->method, c->method)) {
            c->route = r;
            memcpy(c->param, param, sizeof(param));
            return 0;
        }
        sbuf_fmt(&allow, "%s%s", allow.len ? ", " : "", r->method);
        if (strcmp(r->method, "GET") == 0)
            sbuf_lit(&allow, ", HEAD");
    }
    if (allow.len)
        return refuse_method(c, sbuf_str(&allow), e);
    err_set(e, ERR_ROUTE_NOT_FOUND, "no such route");
    return err_hint(e, "routes begin with /v1/; the list is in the API's description");
}

/* Looks for `name` of `len` bytes in a list like "state label*". */
static bool query_known(const char *list, const char *name, size_t len, bool *ret_repeatable)
{
    while (list && *list) {
        size_t n = strcspn(list, " ");
        bool star = n > 0 && list[n - 1] == '*';
        if (n - star == len && memcmp(list, name, len) == 0) {
            *ret_repeatable = star;
            return true;
        }
        list += n + (list[n] == ' ');
    }
    return false;
}

static int check_query(const struct call *c, struct err *e)
{
    const struct strv *q = &c->target.query;

    for (size_t i = 0; i < q->n; i++) {
        size_t len = strcspn(q->items[i], "=");
        bool repeatable = false;
        if (!query_known(c->route->query, q->items[i], len, &repeatable))
            return err_set(e, ERR_FIELD_UNKNOWN, "unknown query parameter '%.*s'", (int)len,
                           q->items[i]);
        for (size_t j = 0; j < i && !repeatable; j++)
            if (strncmp(q->items[i], q->items[j], len + 1) == 0)
                return err_set(e, ERR_FIELD_INVALID, "query parameter '%.*s' is given twice",
                               (int)len, q->items[i]);
    }
    return 0;
}

/* Nothing is done, so what cannot be recorded of it changes nothing: the log has said so. */
static int deny(struct call *c, enum err_code code, const char *why, struct err *e)
{
    struct err ignored = ERR_INIT;

    (void)audit_call_end(c, code, &ignored);
    return err_set(e, code, "%s", why);
}

int dispatch_head(struct call *c, const struct route *table, const char *raw_target, struct err *e)
{
    if (target_parse(raw_target, &c->target, e) < 0 || find_route(c, table, e) < 0 ||
        check_query(c, e) < 0)
        return -1;
    if (c->caller.read_only && !(c->route->flags & ROUTE_READ_ONLY))
        return deny(c, ERR_READ_ONLY, "the read-only socket does not serve this", e);
    if (c->route->role == ROLE_ADMIN && !c->caller.admin)
        return deny(c, ERR_DENIED, "only root and members of the admin group may do this", e);
    if ((c->route->flags & ROUTE_UPGRADE) && !c->upgrade) {
        err_set(e, ERR_UPGRADE_REQUIRED, "this route needs HTTP/1.1 with an upgrade");
        return err_hint(e, "send Connection: Upgrade and Upgrade: sbx-stream");
    }
    return 0;
}

static int decode_body(struct call *c, struct err *e)
{
    const struct route *r = c->route;
    const struct jfield *table = r->table ? r->table : no_fields;
    const char *text = c->raw_len ? c->raw : "{}";
    size_t len = c->raw_len ? c->raw_len : 2;

    if (!r->table) {
        char nothing = 0;
        return json_decode(table, text, len, &nothing, e);
    }
    c->body = calloc(1, r->body_size);
    if (!c->body)
        return err_nomem(e);
    if (json_decode(table, text, len, c->body, e) < 0) {
        free(take_ptr(c->body));    /* the decoder has freed what was in it */
        return -1;
    }
    return 0;
}

static int run(struct call *c, struct err *e)
{
    const struct route *r = c->route;

    if (decode_body(c, e) < 0 ||
        (r->role == ROLE_OWNER &&
         vms_find(c->daemon->vms, &c->caller, c->param[0], &c->vm, e) < 0) ||
        audit_call_begin(c, e) < 0)
        return -1;
    if (c->idem_key && (r->flags & ROUTE_IDEM))
        return idem_run(c->daemon->idem, c, r->handler, e);
    return r->handler(c, e);
}

void dispatch_run(struct call *c)
{
    struct err e = ERR_INIT;

    if (run(c, &e) < 0)
        reply_error(c, &e);
    if (audit_call_end(c, e.code, &e) < 0)
        reply_error(c, &e);
}
