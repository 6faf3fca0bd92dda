/* SPDX-License-Identifier: MIT
 *
 * The real table of routes and the router's checks before the body.
 */
#include "common/auto.h"
#include "daemon/routes.h"
#include "tests/harness/test.h"

#include <ctype.h>
#include <stdlib.h>

static struct call c;
static struct err e;

static int head(const char *method, const char *target)
{
    call_done(&c);
    e = ERR_INIT;
    c.method = method;
    return dispatch_head(&c, routes_table, target, &e);
}

TEST(a_sandbox_route_has_its_reference)
{
    ASSERT_OK(head("GET", "/v1/sandboxes/my-box"), e);
    ASSERT_STREQ(c.route->pattern, "/v1/sandboxes/{ref}");
    ASSERT_STREQ(c.param[0], "my-box");
    ASSERT_NULL(c.param[1]);
    ASSERT_OK(head("POST", "/v1/sandboxes/a/execs/b/signal"), e);
    ASSERT_STREQ(c.param[0], "a");
    ASSERT_STREQ(c.param[1], "b");
    ASSERT_OK(head("GET", "/v1/images/sha256:0123"), e);
    ASSERT_STREQ(c.param[0], "sha256:0123");
    call_done(&c);
}

TEST(the_405_lists_what_is_there)
{
    ASSERT_EQ(head("PUT", "/v1/sandboxes/x"), -1);
    ASSERT_EQ(e.code, ERR_METHOD);
    ASSERT_STREQ(c.reply.headers[0].value, "GET, HEAD, PATCH, DELETE");
    reply_error(&c, &e);
    ASSERT_EQ(c.reply.status, 405);
    ASSERT_STREQ(c.reply.headers[0].name, "Allow");
    ASSERT_CONTAINS(c.reply.body, "\"code\":\"method_not_allowed\"");
    call_done(&c);
}

TEST(labels_may_be_repeated_and_state_may_not)
{
    ASSERT_OK(head("GET", "/v1/sandboxes?state=running&label=a&label=b%3Dc%20d&label=e+f"), e);
    ASSERT_STREQ(call_query(&c, "state"), "running");
    ASSERT_STREQ(c.target.query.items[2], "label=b=c d");
    ASSERT_STREQ(c.target.query.items[3], "label=e f");
    ASSERT_EQ(head("GET", "/v1/sandboxes?state=running&state=stopped"), -1);
    ASSERT_EQ(e.code, ERR_FIELD_INVALID);
    ASSERT_EQ(head("GET", "/v1/sandboxes?lab=1"), -1);
    ASSERT_EQ(e.code, ERR_FIELD_UNKNOWN);
    call_done(&c);
}

TEST(query_values_are_typed)
{
    uint64_t n = 5;
    bool b = false;

    ASSERT_OK(head("DELETE", "/v1/sandboxes/x?force=true"), e);
    ASSERT_OK(call_query_bool(&c, "force", &b, &e), e);
    ASSERT_TRUE(b);
    ASSERT_OK(head("DELETE", "/v1/sandboxes/x?force=1"), e);
    ASSERT_ERR(call_query_bool(&c, "force", &b, &e), e, ERR_FIELD_INVALID);
    ASSERT_OK(head("POST", "/v1/sandboxes/x/stop?timeout_ms=0"), e);
    ASSERT_OK(call_query_u64(&c, "timeout_ms", 10, &n, &e), e);
    ASSERT_EQ(n, 0);
    ASSERT_OK(head("POST", "/v1/sandboxes/x/stop?timeout_ms=11"), e);
    ASSERT_ERR(call_query_u64(&c, "timeout_ms", 10, &n, &e), e, ERR_FIELD_INVALID);
    ASSERT_OK(head("POST", "/v1/sandboxes/x/stop?timeout_ms=-1"), e);
    ASSERT_ERR(call_query_u64(&c, "timeout_ms", 10, &n, &e), e, ERR_FIELD_INVALID);
    ASSERT_OK(head("POST", "/v1/sandboxes/x/stop"), e);
    ASSERT_OK(call_query_u64(&c, "timeout_ms", 10, &n, &e), e);
    ASSERT_EQ(n, 0);    /* left alone */
    call_done(&c);
}

TEST(attach_needs_an_upgrade_and_images_are_the_admins)
{
    ASSERT_EQ(head("GET", "/v1/sandboxes/a/execs/b/attach"), -1);
    ASSERT_EQ(e.code, ERR_UPGRADE_REQUIRED);
    c.caller.admin = false;
    ASSERT_EQ(head("DELETE", "/v1/images/debian"), -1);
    ASSERT_EQ(e.code, ERR_DENIED);
    call_done(&c);
}

/* What a mistake in the table would look like. */
TEST(the_table_is_sound)
{
    for (const struct route *r = routes_table; r->method; r++) {
        unsigned n = 0;
        ASSERT_EQ(strncmp(r->pattern, "/v1/", 4), 0);
        ASSERT_NOT_NULL(r->handler);
        ASSERT_TRUE(r->body_max > 0 && r->body_max <= LIMIT_BODY);
        ASSERT_EQ(r->table != NULL, r->body_size > 0);
        for (const char *p = r->pattern; (p = strchr(p, '{')); p++)
            n++;
        ASSERT_LE(n, 2);
        if (r->role == ROLE_OWNER)
            ASSERT_CONTAINS(r->pattern, "/v1/sandboxes/{ref}");
        if (strcmp(r->method, "GET") == 0 || strcmp(r->method, "DELETE") == 0)
            ASSERT_NULL(r->table);
        for (const struct route *o = routes_table; o != r; o++)
            if (strcmp(o->pattern, r->pattern) == 0)
                ASSERT_STRNE(o->method, r->method);
    }
}

/* What changes something without a row in the audit log would be a hole in it. */
TEST(what_changes_something_is_an_action_of_its_own)
{
    bool used[ACT_MAX] = { [ACT_NONE] = true, [ACT_TURNED_AWAY] = true };    /* have no route */

    for (const struct route *r = routes_table; r->method; r++) {
        bool looks = strcmp(r->method, "GET") == 0 && !(r->flags & ROUTE_UPGRADE);
        if (looks != (r->action == ACT_NONE))
            FAIL("%s %s is '%s' in the audit log", r->method, r->pattern,
                 audit_action_name(r->action));
        if (r->action != ACT_NONE && used[r->action])
            FAIL("%s %s and another route are both '%s'", r->method, r->pattern,
                 audit_action_name(r->action));
        used[r->action] = true;
    }
    for (int a = 0; a < ACT_MAX; a++)
        if (!used[a])
            FAIL("no route is '%s'", audit_action_name((enum audit_action)a));
}

/* target_parse() takes any bytes and says yes or no. */
TEST(any_target_is_parsed_or_refused)
{
    static const char alphabet[] = "/%?&=+ab012f.{}\x80\xff;#";
    unsigned seed = 1;

    for (int i = 0; i < 20000; i++) {
        char s[40];
        size_t n = (size_t)rand_r(&seed) % (sizeof(s) - 1);
        for (size_t k = 0; k < n; k++)
            s[k] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
        s[n] = '\0';
        struct target t = { 0 };
        e = ERR_INIT;
        if (target_parse(s, &t, &e) == 0) {
            ASSERT_EQ(s[0], '/');
            for (size_t k = 0; k < t.query.n; k++)
                ASSERT_NOT_NULL(strchr(t.query.items[k], '='));
        } else {
            ASSERT_TRUE(e.code == ERR_INVALID || e.code == ERR_ROUTE_NOT_FOUND ||
                        e.code == ERR_FIELD_UNKNOWN);
            ASSERT_EQ(t.path.n + t.query.n, 0);
        }
        target_done(&t);
    }
}

/* What the socket for dashboards serves: each route stands in one of the two lists, so that whoever
 * adds one has to say which. No secret, no output of a guest, no command's arguments, nobody's
 * rules; nothing that changes or starts anything. */
TEST(each_route_is_for_dashboards_or_is_not)
{
    static const char *const shown[] = {
        "/v1/version", "/v1/info", "/v1/quota", "/v1/sandboxes", "/v1/sandboxes/{ref}",
        "/v1/images", "/v1/images/{ref}", "/v1/sandboxes/{ref}/stats", "/v1/stats", "/v1/metrics",
    };
    static const char *const kept[] = {
        "/v1/checks", "/v1/sandboxes/{ref}/logs", "/v1/sandboxes/{ref}/execs",
        "/v1/sandboxes/{ref}/execs/{id}", "/v1/sandboxes/{ref}/execs/{id}/attach",
        "/v1/sandboxes/{ref}/execs/{id}/output", "/v1/sandboxes/{ref}/policy",
        "/v1/sandboxes/{ref}/policy/check", "/v1/sandboxes/{ref}/policy/why",
        "/v1/sandboxes/{ref}/policy/log", "/v1/policies", "/v1/policies/{name}", "/v1/audit",
        "/v1/audit/verify", "/v1/events",
    };
    unsigned n_shown = 0, n_kept = 0;

    for (const struct route *r = routes_table; r->method; r++) {
        bool get = strcmp(r->method, "GET") == 0, in_shown = false, in_kept = false;
        for (size_t i = 0; get && i < ARRAY_SIZE(shown); i++)
            in_shown |= strcmp(shown[i], r->pattern) == 0;
        for (size_t i = 0; get && i < ARRAY_SIZE(kept); i++)
            in_kept |= strcmp(kept[i], r->pattern) == 0;
        if (get && in_shown == in_kept)
            FAIL("GET %s: is it for dashboards?", r->pattern);
        if (in_shown != !!(r->flags & ROUTE_READ_ONLY))
            FAIL("%s %s: the table of routes says otherwise", r->method, r->pattern);
        if (r->flags & ROUTE_READ_ONLY)
            ASSERT_TRUE(r->action == ACT_NONE && !(r->flags & (ROUTE_STREAM | ROUTE_UPGRADE)));
        n_shown += in_shown;
        n_kept += in_kept;
    }
    ASSERT_EQ(n_shown, ARRAY_SIZE(shown));
    ASSERT_EQ(n_kept, ARRAY_SIZE(kept));
}

/* Whoever it is: no administrator there either. */
TEST(a_caller_of_the_read_only_socket_gets_those_and_no_other)
{
    for (const struct route *r = routes_table; r->method; r++) {
        autofree char *target = strdup(r->pattern);
        ASSERT_NOT_NULL(target);
        for (char *p = target; *p; p++)
            if (strchr("{}", *p))
                *p = 'a';
        call_done(&c);
        e = ERR_INIT;
        c.method = r->method;
        c.caller.read_only = true;
        c.caller.admin = true;
        c.upgrade = true;
        int rc = dispatch_head(&c, routes_table, target, &e);
        if (r->flags & ROUTE_READ_ONLY)
            ASSERT_EQ(rc, 0);
        else
            ASSERT_EQ(e.code, ERR_READ_ONLY);
    }
    call_done(&c);
}
