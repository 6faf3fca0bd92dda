/* SPDX-License-Identifier: MIT */
#include "client/jsontext.h"
#include "tests/harness/test.h"

static void pretty_is(const char *in, const char *want)
{
    autosbuf struct sbuf b = SBUF(4096);
    json_pretty(&b, in, strlen(in), 0);
    ASSERT_STREQ(sbuf_str(&b), want);
}

TEST(pretty)
{
    pretty_is("{}", "{}");
    pretty_is(" [ ] ", "[]");
    pretty_is("{\"a\":[1,{\"b\":null}],\"c\":\"x,:{}\\\"\"}",
              "{\n    \"a\": [\n        1,\n        {\n            \"b\": null\n        }\n    ],\n"
              "    \"c\": \"x,:{}\\\"\"\n}");
    pretty_is("\"\x7f\xc2\x9b\xc2\xa0\xc3\x9b\"", "\"\\u007f\\u009b\xc2\xa0\xc3\x9b\"");
}

TEST(compact)
{
    autosbuf struct sbuf b = SBUF(4096);
    const char *in = "{ \"a b\" : [ 1 , 2 ],\n\t\"c\": { } }";
    json_compact(&b, in, strlen(in));
    ASSERT_STREQ(sbuf_str(&b), "{\"a b\":[1,2],\"c\":{}}");
}

static void items_are(const char *in, size_t n, const char *last)
{
    autostrv struct strv v = STRV_INIT;
    struct err e = ERR_INIT;
    ASSERT_OK(json_items(in, strlen(in), "k", &v, &e), e);
    ASSERT_EQ(v.n, n);
    if (n)
        ASSERT_STREQ(v.items[n - 1], last);
}

TEST(items)
{
    items_are("{\"k\":[]}", 0, NULL);
    items_are("{\"k\" : [ ] , \"z\":1}", 0, NULL);
    items_are("{\"a\":{\"k\":[9]},\"k\":[ {\"x\":[1,2]} , \"],\\\"\" ]}", 2, "\"],\\\"\"");
    items_are("{\"a\":\"k\",\"k\":[1,[2,3],{\"k\":[4]}]}", 3, "{\"k\":[4]}");
}

/* The daemon may be another program: nothing may be read beyond the end. */
TEST(items_of_broken_text)
{
    static const char *const bad[] = { "", "{", "{\"k\"", "{\"k\":", "{\"k\":[", "{\"k\":[1,",
                                       "{\"k\":\"",
                                       "{\"k\":{}}", "[]", "{\"k\\", "\"", "{\"k\":[\"\\" };
    struct err e;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        autostrv struct strv v = STRV_INIT;
        ASSERT_ERR(json_items(bad[i], strlen(bad[i]), "k", &v, &e), e, ERR_JSON);
    }
}
