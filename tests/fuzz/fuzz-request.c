/* SPDX-License-Identifier: MIT
 *
 * A request as the router gets it: method, space, target, newline, body. Everything before a
 * handler is called: the target taken apart, route, method, role, query names, typed query values,
 * body table; and the error that comes of it as an answer.
 */
#include "common/api.h"
#include "common/auto.h"
#include "common/log.h"
#include "common/name.h"
#include "daemon/routes.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void check_answer(struct call *c, const struct err *e)
{
    struct api_error got = { 0 };
    struct err bad = ERR_INIT;

    REQUIRE(e->code > ERR_NONE && e->code < ERR_CODE_MAX);
    REQUIRE(e->code != ERR_INTERNAL);
    reply_error(c, e);
    REQUIRE(c->reply.status == err_http(e->code) && c->reply.body);
    REQUIRE(json_decode(api_error_table, c->reply.body, c->reply.len, &got, &bad) == 0);
    REQUIRE(strcmp(got.error.code, err_wire(e->code)) == 0);
    json_done(api_error_table, &got, sizeof(got));
}

static int check_queries(struct call *c, struct err *e)
{
    static const char *const names[] = { "tail", "offset", "stdout_offset", "timeout_ms" };
    bool b = false;
    uint64_t n = 0;

    for (size_t i = 0; i < c->target.query.n; i++)
        REQUIRE(utf8_valid(c->target.query.items[i], strlen(c->target.query.items[i])));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (call_query_u64(c, names[i], 1000, &n, e) < 0)
            return -1;
        REQUIRE(n <= 1000);
    }
    return call_query_bool(c, "force", &b, e) < 0 || call_query_bool(c, "follow", &b, e) < 0 ? -1
                                                                                           : 0;
}

static int decode_body(struct call *c, const char *body, size_t len, struct err *e)
{
    const struct route *r = c->route;

    if (!r->table)
        return 0;
    c->body = calloc(1, r->body_size);
    REQUIRE(c->body);
    if (json_decode(r->table, len ? body : "{}", len ? len : 2, c->body, e) == 0)
        return 0;
    free(take_ptr(c->body));
    return -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct call c = { .caller = { .request = "0123456789abcdef" } };
    struct err e = ERR_INIT;
    const uint8_t *nl = memchr(data, '\n', size);
    size_t line = nl ? (size_t)(nl - data) : size;
    autofree char *head = strndup((const char *)data, line);
    autofree char *body = calloc(1, size - line + 1);
    size_t body_len = nl ? size - line - 1 : 0;

    REQUIRE(head && body);
    log_set_level(LOG_EMERG);
    memcpy(body, data + line + (nl ? 1 : 0), body_len);
    char *space = strchr(head, ' ');
    if (!space)
        return 0;
    *space = '\0';
    c.method = head;
    c.upgrade = size % 2;
    c.caller.admin = size % 3 == 0;
    if (dispatch_head(&c, routes_table, space + 1, &e) < 0 || check_queries(&c, &e) < 0 ||
        body_len > c.route->body_max || decode_body(&c, body, body_len, &e) < 0) {
        if (e.code != ERR_NONE)
            check_answer(&c, &e);
    } else {
        REQUIRE(e.code == ERR_NONE);
        for (int i = 0; i < 2; i++)
            REQUIRE(!c.param[i] || (c.param[i][0] && utf8_valid(c.param[i], strlen(c.param[i]))));
    }
    call_done(&c);
    return 0;
}
