/* SPDX-License-Identifier: MIT */
#include "daemon/call.h"

#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/name.h"
#include "common/parse.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/meter.h"
#include "daemon/routes.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* An answer may hold two streams of LIMIT_RUN_OUTPUT, each byte as \u00XX at worst. */
#define LIMIT_REPLY (2 * LIMIT_RUN_OUTPUT * 6 + MIB)

/* --- target --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int decode_part(const char *s, size_t n, bool plus_is_space, char **ret, struct err *e)
{
    autosbuf struct sbuf b = SBUF(LIMIT_HTTP_MEMORY);

    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '%') {
            int hi = n - i > 2 ? hex_digit(s[i + 1]) : -1;
            int lo = n - i > 2 ? hex_digit(s[i + 2]) : -1;
            if (hi < 0 || lo < 0)
                return err_set(e, ERR_INVALID, "broken percent-escape in the request target");
            c = (char)(hi << 4 | lo);
            if (c == '\0')
                return err_set(e, ERR_INVALID, "NUL in the request target");
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        sbuf_chr(&b, c);
    }
    if (!utf8_valid(sbuf_str(&b), b.len))
        return err_set(e, ERR_INVALID, "the request target is not valid UTF-8");
    if (b.len == 0)
        sbuf_lit(&b, "");
    return sbuf_take(&b, ret, e);
}

static int parse_path(const char *p, const char *end, struct strv *ret, struct err *e)
{
    if (p == end || *p != '/')
        return err_set(e, ERR_ROUTE_NOT_FOUND, "the request target is not a path");
    while (p < end) {
        const char *start = p + 1;
        const char *stop = memchr(start, '/', (size_t)(end - start));
        autofree char *part = NULL;
        if (!stop)
            stop = end;
        if (stop == start || ret->n >= LIMIT_TARGET_SEGMENTS)
            return err_set(e, ERR_ROUTE_NOT_FOUND, "no such route");
        if (decode_part(start, (size_t)(stop - start), false, &part, e) < 0 ||
            strv_add_take(ret, &part, e) < 0)
            return -1;
        p = stop;
    }
    return 0;
}

static int parse_query(const char *p, struct strv *ret, struct err *e)
{
    while (*p) {
        size_t len = strcspn(p, "&");
        if (len > 0) {
            const char *eq = memchr(p, '=', len);
            size_t name_len = eq ? (size_t)(eq - p) : len;
            autofree char *name = NULL, *value = NULL;
            if (ret->n >= LIMIT_TARGET_QUERY)
                return err_set(e, ERR_INVALID, "more than %d query parameters",
                               LIMIT_TARGET_QUERY);
            if (decode_part(p, name_len, true, &name, e) < 0 ||
                (eq && decode_part(eq + 1, len - name_len - 1, true, &value, e) < 0))
                return -1;
            if (strchr(name, '='))
                return err_set(e, ERR_FIELD_UNKNOWN, "unknown query parameter '%s'", name);
            if (strv_addf(ret, e, "%s=%s", name, value ? value : "") < 0)
                return -1;
        }
        p += len + (p[len] == '&');
    }
    return 0;
}

int target_parse(const char *raw, struct target *ret, struct err *e)
{
    struct target t = { 0 };
    size_t path_len = strcspn(raw, "?");

    if (parse_path(raw, raw + path_len, &t.path, e) < 0 ||
        (raw[path_len] == '?' && parse_query(raw + path_len + 1, &t.query, e) < 0)) {
        target_done(&t);
        return -1;
    }
    *ret = t;
    return 0;
}

void target_done(struct target *t)
{
    strv_done(&t->path);
    strv_done(&t->query);
}

/* --- query --- */

const char *call_query(const struct call *c, const char *name)
{
    return strv_env_get(&c->target.query, name);
}

int call_query_bool(const struct call *c, const char *name, bool *ret, struct err *e)
{
    const char *v = call_query(c, name);

    if (!v)
        return 0;
    if (strcmp(v, "true") != 0 && strcmp(v, "false") != 0)
        return err_set(e, ERR_FIELD_INVALID, "query parameter '%s' is true or false, not '%s'",
                       name, v);
    *ret = v[0] == 't';
    return 0;
}

int call_query_u64(const struct call *c, const char *name, uint64_t max, uint64_t *ret,
                   struct err *e)
{
    const char *v = call_query(c, name);

    if (!v || parse_u64(v, 0, max, ret))
        return 0;
    return err_set(e, ERR_FIELD_INVALID,
                   "query parameter '%s' is a number from 0 to %llu, not '%s'", name,
                   (unsigned long long)max, v);
}

bool call_wait_gone(const struct call *c, int also_fd, int ms, bool *ret_stop)
{
    /* POLLHUP comes unasked: both directions are shut. A client that has only finished sending
     * (POLLRDHUP) still waits for its answer. */
    struct pollfd p[3] = {
        { .fd = c->conn_fd },
        { .fd = c->stop_fd, .events = POLLIN },
        { .fd = also_fd, .events = POLLIN },
    };
    bool stop;

    if (poll(p, 3, ms) <= 0)
        return false;
    stop = p[1].revents != 0;
    if (ret_stop)
        *ret_stop = stop;
    return stop || (p[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

/* --- reply --- */

void reply_done(struct reply *r)
{
    free(r->body);
    for (size_t i = 0; i < r->n_headers; i++)
        free(r->headers[i].value);
    if (r->stream.free)
        r->stream.free(r->stream.arg);
    if (r->upgrade.free)
        r->upgrade.free(r->upgrade.arg);
    *r = (struct reply){ 0 };
}

int reply_json(struct call *c, int status, const struct jfield *table, const void *obj,
               struct err *e)
{
    autosbuf struct sbuf b = SBUF(LIMIT_REPLY);
    char *text = NULL;
    size_t len;

    if (json_encode(table, obj, &b, e) < 0)
        return -1;
    len = b.len;
    if (sbuf_take(&b, &text, e) < 0)
        return -1;
    c->reply.status = status;
    return reply_take(c, "application/json", &text, len, e);
}

int reply_empty(struct call *c)
{
    c->reply.status = 204;
    return 0;
}

/* Whole steps, so that who collects bytes seldom asks. */
static bool hold_more(const struct call *c, uint64_t bytes, struct quota_use *ret)
{
    uint64_t have = c->held.use.n[QUOTA_REPLIES];
    uint64_t want = (bytes + LIMIT_REPLY_FREE - 1) / LIMIT_REPLY_FREE * LIMIT_REPLY_FREE;

    if (!c->daemon || bytes <= LIMIT_REPLY_FREE || want <= have)
        return false;
    *ret = (struct quota_use){ .n = { [QUOTA_REPLIES] = want - have } };
    return true;
}

int call_hold(struct call *c, uint64_t bytes, struct err *e)
{
    struct quota_charge more = { 0 };
    struct quota_use use;

    if (!hold_more(c, bytes, &use))
        return 0;
    if (quota_take(c->daemon->quota, &c->caller.id, &use, &more, e) < 0)
        return -1;
    if (!quota_fair(c->daemon->quota, &c->caller.id, QUOTA_REPLIES, LIMIT_REPLIES)) {
        quota_drop(&more, QUOTA_ALL);
        err_set(e, ERR_UNAVAILABLE, "answers that nobody takes fill sandboxd's memory for them");
        return err_hint(e, "take the answers that wait, or try again in a moment");
    }
    quota_join(&c->held, &more);
    return 0;
}

/* What a GET has made can be made again. */
static int hold_reply(struct call *c, uint64_t bytes, struct err *e)
{
    struct quota_use use;

    if (c->method && (strcmp(c->method, "GET") == 0 || strcmp(c->method, "HEAD") == 0))
        return call_hold(c, bytes, e);
    return hold_more(c, bytes, &use)
               ? quota_count(c->daemon->quota, c->caller.id.uid, &use, &c->held, e) : 0;
}

int reply_take(struct call *c, const char *content_type, char **body, size_t len, struct err *e)
{
    if (hold_reply(c, len, e) < 0) {
        free(take_ptr(*body));
        return -1;
    }
    free(c->reply.body);
    c->reply.body = take_ptr(*body);
    c->reply.len = len;
    c->reply.content_type = content_type;
    if (c->reply.status == 0)
        c->reply.status = 200;
    return 0;
}

int reply_header(struct call *c, const char *name, struct err *e, const char *fmt, ...)
{
    autosbuf struct sbuf b = SBUF(1024);
    struct reply *r = &c->reply;
    va_list ap;

    if (r->n_headers == REPLY_HEADERS)
        return err_set(e, ERR_INTERNAL, "too many headers in an answer");
    va_start(ap, fmt);
    sbuf_vfmt(&b, fmt, ap);
    va_end(ap);
    if (sbuf_take(&b, &r->headers[r->n_headers].value, e) < 0)
        return -1;
    r->headers[r->n_headers++].name = name;
    return 0;
}

static void log_error(const struct call *c, const struct err *error)
{
    struct log_ctx ctx = {
        .request = c->caller.request,
        .sandbox = c->vm ? vm_id(c->vm) : NULL,
        .uid = &c->caller.id.uid,
        .error = error,
    };
    const char *path = c->route ? c->route->pattern : "?";

    if (error->code == ERR_INTERNAL || error->code == ERR_NO_MEMORY)
        log_err(&ctx, "%s %s failed", c->method ? c->method : "?", path);
    else if (err_http(error->code) >= 500)
        log_warn(&ctx, "%s %s could not be served", c->method ? c->method : "?", path);
    else
        log_debug(&ctx, "%s %s refused", c->method ? c->method : "?", path);
}

static bool is_callers(const char *quota)
{
    static const enum quota_what own[] = { QUOTA_CONNECTIONS, QUOTA_REQUESTS, QUOTA_REPLIES };

    for (size_t i = 0; quota && i < ARRAY_SIZE(own); i++)
        if (strcmp(quota, quota_key(own[i])) == 0)
            return true;
    return false;
}

/* Of whom the quota is: a sandbox's are its owner's, whoever asked. */
void call_tell_quota(const struct call *c, const struct err *error)
{
    struct event ev = { .kind = EVENT_QUOTA, .detail = error->msg };

    if (error->code != ERR_QUOTA || !c->daemon)
        return;
    meter_quota(c->daemon->meter, error->quota.name);
    if (c->vm && !is_callers(error->quota.name))
        ev.sandbox = vm_id(c->vm);
    else
        ev.uid = &c->caller.id.uid;
    events_repeat(c->daemon->events, &ev);
}

void reply_error(struct call *c, const struct err *error)
{
    struct err shown = *error, failed = ERR_INIT;
    char *allow = NULL;

    log_error(c, error);
    call_tell_quota(c, error);
    if (error->code == ERR_INTERNAL) {
        err_set(&shown, ERR_INTERNAL, "internal error");
        err_hint(&shown, "the log of sandboxd says more: look for request %s", c->caller.request);
    }
    struct api_error body = { .error = { .code = (char *)err_wire(shown.code),
                                         .message = shown.msg,
                                         .hint = shown.hint[0] ? shown.hint : NULL,
                                         .request_id = c->caller.request } };
    if (shown.quota.name)
        body.error.details = (struct api_error_details){
            true, (char *)shown.quota.name, shown.quota.limit, shown.quota.used,
            shown.quota.requested };
    /* a half-made answer goes, but a 405 keeps its Allow */
    if (error->code == ERR_METHOD && c->reply.n_headers > 0)
        allow = take_ptr(c->reply.headers[0].value);
    reply_done(&c->reply);
    if (allow) {
        c->reply.headers[0].name = "Allow";
        c->reply.headers[0].value = allow;
        c->reply.n_headers = 1;
    }
    if (reply_json(c, err_http(shown.code), api_error_table, &body, &failed) < 0)
        c->reply.status = 500;
}

void call_done(struct call *c)
{
    reply_done(&c->reply);
    if (c->route && c->body) {
        json_done(c->route->table, c->body, c->route->body_size);
        free(c->body);
    }
    if (c->vm)
        vm_unref(c->vm);
    target_done(&c->target);
    audit_note_free(c->note);
    quota_drop(&c->held, QUOTA_ALL);
    free(c->idem_key);
    free(c->raw);
    *c = (struct call){ 0 };
}
