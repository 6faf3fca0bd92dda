/* SPDX-License-Identifier: MIT */
#include "common/api.h"
#include "common/auto.h"
#include "common/limits.h"
#include "tests/harness/test.h"

#include <stdio.h>
#include <stdlib.h>

static struct err e;

static int create(const char *text, struct api_create_req *r)
{
    e = ERR_INIT;
    return json_decode(api_create_req_table, text, strlen(text), r, &e);
}

TEST(a_create_request_has_defaults_and_limits)
{
    static const char *const bad[] = {
        "{\"name\":\"Upper\"}", "{\"name\":\"\"}", "{\"name\":\"0123456789abcdef\"}",
        "{\"name\":5}", "{\"image\":\"\"}", "{\"cpus\":65}", "{\"cpus\":-1}",
        "{\"memory\":134217727}", "{\"memory\":549755813889}", "{\"disk\":1073741823}",
        "{\"workspace\":{\"path\":\"relative\"}}", "{\"workspace\":{\"path\":\"\"}}",
        "{\"env\":{\"9A\":\"x\"}}", "{\"env\":{\"A B\":\"x\"}}", "{\"env\":[\"A=1\"]}",
        "{\"labels\":{\"-a\":\"x\"}}", "{\"labels\":{\"a\":1}}", "{\"start\":\"yes\"}",
    };
    struct api_create_req r;

    ASSERT_OK(create("{}", &r), e);
    ASSERT_NULL(r.name);
    ASSERT_TRUE(r.start);
    ASSERT_FALSE(r.workspace.present);
    json_done(api_create_req_table, &r, sizeof(r));
    ASSERT_OK(create("{\"name\":\"a\",\"memory\":134217728,\"disk\":0,\"cpus\":64,\"start\":false,"
                     "\"workspace\":{\"path\":\"/\",\"read_only\":true},\"env\":{\"A\":\"\"},"
                     "\"labels\":{\"a/b.c\":\"v\"}}", &r), e);
    ASSERT_TRUE(r.workspace.present && r.workspace.read_only);
    ASSERT_STREQ(r.labels.items[0], "a/b.c=v");
    json_done(api_create_req_table, &r, sizeof(r));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (create(bad[i], &r) == 0 || e.code != ERR_FIELD_INVALID)
            FAIL("%s: %s", bad[i], err_wire(e.code));
    ASSERT_ERR(create("{\"workspace\":{}}", &r), e, ERR_FIELD_MISSING);
    ASSERT_ERR(create("{\"cpu\":1}", &r), e, ERR_FIELD_UNKNOWN);
}

static int exec(const char *text)
{
    struct api_exec_req r;
    int rc;

    e = ERR_INIT;
    rc = json_decode(api_exec_req_table, text, strlen(text), &r, &e);
    json_done(api_exec_req_table, &r, sizeof(r));
    return rc;
}

TEST(an_exec_request_has_limits)
{
    autosbuf struct sbuf b = SBUF(1 << 20);

    ASSERT_OK(exec("{\"command\":[\"ls\",\"\"],\"user\":\"0\",\"workdir\":\"/\",\"rows\":65535,"
                   "\"timeout_ms\":604800000}"), e);
    ASSERT_ERR(exec("{}"), e, ERR_FIELD_MISSING);
    ASSERT_ERR(exec("{\"command\":[]}"), e, ERR_FIELD_INVALID);
    ASSERT_ERR(exec("{\"command\":\"ls\"}"), e, ERR_FIELD_INVALID);
    ASSERT_ERR(exec("{\"command\":[\"l\"],\"user\":\"a b\"}"), e, ERR_FIELD_INVALID);
    ASSERT_ERR(exec("{\"command\":[\"l\"],\"user\":\"4294967295\"}"), e, ERR_FIELD_INVALID);
    ASSERT_ERR(exec("{\"command\":[\"l\"],\"workdir\":\"x\"}"), e, ERR_FIELD_INVALID);
    ASSERT_ERR(exec("{\"command\":[\"l\"],\"rows\":65536}"), e, ERR_FIELD_INVALID);
    ASSERT_ERR(exec("{\"command\":[\"l\"],\"timeout_ms\":604800001}"), e, ERR_FIELD_INVALID);
    for (int n = LIMIT_ARGV; n <= LIMIT_ARGV + 1; n++) {
        sbuf_done(&b);
        sbuf_lit(&b, "{\"command\":[\"a\"");
        for (int i = 1; i < n; i++)
            sbuf_lit(&b, ",\"a\"");
        sbuf_lit(&b, "]}");
        ASSERT_EQ(exec(sbuf_str(&b)), n <= LIMIT_ARGV ? 0 : -1);
    }
    sbuf_done(&b);
    sbuf_fmt(&b, "{\"command\":[\"%0*d\"]}", LIMIT_ARG_BYTES, 0);
    ASSERT_OK(exec(sbuf_str(&b)), e);
    sbuf_done(&b);
    sbuf_fmt(&b, "{\"command\":[\"%0*d\"]}", LIMIT_ARG_BYTES + 1, 0);
    ASSERT_ERR(exec(sbuf_str(&b)), e, ERR_FIELD_INVALID);
}

TEST(size_of_a_window_is_never_zero)
{
    struct api_resize_req r;

    ASSERT_ERR(json_decode(api_resize_req_table, "{\"rows\":0,\"cols\":1}", 19, &r, &e), e,
               ERR_FIELD_INVALID);
    ASSERT_ERR(json_decode(api_resize_req_table, "{\"rows\":1}", 10, &r, &e), e, ERR_FIELD_MISSING);
}

TEST(an_error_goes_over_the_wire)
{
    char code[] = "quota_exceeded", message[] = "too many \"things\"", id[] = "r1";
    struct api_error_body body = { code, message, NULL, id };
    struct api_error in = { body }, out;
    autosbuf struct sbuf b = SBUF(4096);

    e = ERR_INIT;
    ASSERT_OK(json_encode(api_error_table, &in, &b, &e), e);
    ASSERT_STREQ(sbuf_str(&b), "{\"error\":{\"code\":\"quota_exceeded\",\"message\":\"too many "
                 "\\\"things\\\"\",\"request_id\":\"r1\"}}");
    ASSERT_OK(json_decode_lenient(api_error_table, sbuf_str(&b), b.len, &out, &e), e);
    ASSERT_EQ(err_from_wire(out.error.code), ERR_QUOTA);
    ASSERT_NULL(out.error.hint);
    json_done(api_error_table, &out, sizeof(out));
}

/* A reply without a value yet says null, so that programs find the key. */
TEST(replies_say_null)
{
    char id[] = "0", state[] = "creating";
    struct api_sandbox s = { .id = id, .name = id, .state = state };
    struct api_exec x = { .id = id, .state = state, .exit_code = -1 };
    autosbuf struct sbuf b = SBUF(4096), c = SBUF(4096);

    e = ERR_INIT;
    ASSERT_OK(json_encode(api_sandbox_table, &s, &b, &e), e);
    static const char *const nulls[] = { "\"reason\":null", "\"workspace\":null", "\"accel\":null",
                                         "\"started_at\":null", "\"labels\":{}" };
    for (size_t i = 0; i < ARRAY_SIZE(nulls); i++)
        ASSERT_CONTAINS(sbuf_str(&b), nulls[i]);
    ASSERT_OK(json_encode(api_exec_table, &x, &c, &e), e);
    ASSERT_CONTAINS(sbuf_str(&c), "\"end\":null,\"exit_code\":-1");
}
