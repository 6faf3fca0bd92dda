/* SPDX-License-Identifier: MIT */
#include "common/jfield.h"
#include "common/base64.h"
#include "common/limits.h"
#include "common/auto.h"
#include "tests/harness/test.h"

#include <stdio.h>
#include <stdlib.h>

struct inner {
    bool present;
    char *word;
    uint32_t n;
};

struct item {
    uint32_t id;
    struct strv tags;
};

struct all {
    char *s, *need;
    bool b;
    uint32_t u;
    uint64_t big;
    int32_t i;
    int64_t t;
    struct jbytes bytes;
    struct strv v, m;
    struct inner o;
    struct jlist list;
};

static bool no_x(const char *s)
{
    return !strchr(s, 'x');
}

static const struct jfield inner_table[] = {
    JF(struct inner, word, JT_STR, .flags = JF_REQUIRED), JF(struct inner, n, JT_U32), JF_END,
};
static const struct jfield item_table[] = {
    JF(struct item, id, JT_U32, .flags = JF_REQUIRED), JF(struct item, tags, JT_STRV), JF_END,
};
static const struct jfield table[] = {
    JF(struct all, s, JT_STR, .min = 1, .max = 5, .check = no_x, .rule = "without x"),
    JF(struct all, need, JT_STR, .flags = JF_REQUIRED | JF_NULL),
    JF(struct all, b, JT_BOOL, .def = true),
    JF(struct all, u, JT_U32, .flags = JF_ZERO, .min = 10, .max = 20, .def = 15),
    JF(struct all, big, JT_U64),
    JF(struct all, i, JT_I32),
    JF(struct all, t, JT_TIME),
    JF(struct all, bytes, JT_BYTES, .max = 4),
    JF(struct all, v, JT_STRV, .max = 3, .item_max = 4, .check = no_x),
    JF(struct all, m, JT_MAP, .max = 2, .item_max = 4),
    JF(struct all, o, JT_OBJ, .flags = JF_OPT, .table = inner_table),
    JF(struct all, list, JT_LIST, .max = 3, .table = item_table, .item_size = sizeof(struct item)),
    JF_END,
};

static struct err e;

static int decode(const char *text, struct all *a)
{
    e = ERR_INIT;
    return json_decode(table, text, strlen(text), a, &e);
}

static void refused(const char *text, enum err_code code, const char *words)
{
    static const struct all fresh = { .b = true, .u = 15 };
    struct all a;

    memset(&a, 0xff, sizeof(a));
    for (int lenient = 0; lenient < 2; lenient++) {
        if (lenient && code == ERR_FIELD_UNKNOWN)
            continue;
        e = ERR_INIT;
        int r = lenient ? json_decode_lenient(table, text, strlen(text), &a, &e) : decode(text, &a);
        if (r == 0)
            FAIL("taken: %s", text);
        if (e.code != code || !strstr(e.msg, words))
            FAIL("%s: [%s] %s", text, err_wire(e.code), e.msg);
        ASSERT_NULL(a.s);
        ASSERT_EQ(a.v.n + a.m.n + a.list.n + a.bytes.len, 0);
        ASSERT_EQ(a.u, fresh.u);
        ASSERT_EQ(a.b, fresh.b);
    }
}

TEST(all_types_come_and_go)
{
    static const char text[] =
        "{\"s\":\"abc\",\"need\":\"n\",\"b\":false,\"u\":20,\"big\":9223372036854775807,"
        "\"i\":-2147483648,\"t\":\"2026-01-02T03:04:05.678000Z\",\"bytes\":\"AAH/\","
        "\"v\":[\"a\",\"\"],\"m\":{\"k\":\"v=1\",\"l\":\"\"},\"o\":{\"word\":\"w\",\"n\":7},"
        "\"list\":[{\"id\":1,\"tags\":[\"p\"]},{\"id\":2,\"tags\":[]}]}";
    autosbuf struct sbuf out = SBUF(4096);
    struct all a;

    ASSERT_OK(decode(text, &a), e);
    ASSERT_STREQ(a.s, "abc");
    ASSERT_FALSE(a.b);
    ASSERT_EQ(a.u, 20);
    ASSERT_EQ(a.big, INT64_MAX);
    ASSERT_EQ(a.i, INT32_MIN);
    ASSERT_EQ(a.t, 1767323045678000);
    ASSERT_MEMEQ(a.bytes.data, a.bytes.len, "\0\1\xff", 3);
    ASSERT_EQ(a.v.n, 2);
    ASSERT_STREQ(a.m.items[0], "k=v=1");
    ASSERT_TRUE(a.o.present);
    ASSERT_EQ(a.o.n, 7);
    ASSERT_EQ(a.list.n, 2);
    ASSERT_STREQ(((struct item *)a.list.items)[0].tags.items[0], "p");
    ASSERT_OK(json_encode(table, &a, &out, &e), e);
    ASSERT_STREQ(sbuf_str(&out), text);
    json_done(table, &a, sizeof(a));
    ASSERT_NULL(a.s);
    ASSERT_EQ(a.u, 0);
}

TEST(absent_and_null_are_the_same)
{
    static const char *const texts[] = {
        "{\"need\":\"n\"}",
        "{\"need\":\"n\",\"s\":null,\"b\":null,\"u\":null,\"big\":null,\"i\":null,\"t\":null,"
        "\"bytes\":null,\"v\":null,\"m\":null,\"o\":null,\"list\":null}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        autosbuf struct sbuf out = SBUF(4096);
        struct all a;

        ASSERT_OK(decode(texts[i], &a), e);
        ASSERT_NULL(a.s);
        ASSERT_TRUE(a.b);
        ASSERT_EQ(a.u, 15);
        ASSERT_FALSE(a.o.present);
        ASSERT_OK(json_encode(table, &a, &out, &e), e);
        ASSERT_STREQ(sbuf_str(&out), "{\"need\":\"n\",\"b\":true,\"u\":15,\"big\":0,\"i\":0,"
                     "\"t\":null,\"v\":[],\"m\":{},\"list\":[]}");
        json_done(table, &a, sizeof(a));
    }
    autosbuf struct sbuf out = SBUF(4096);
    struct all none = { 0 };
    ASSERT_OK(json_encode(table, &none, &out, &e), e);
    ASSERT_CONTAINS(sbuf_str(&out), "\"need\":null");
    refused("{}", ERR_FIELD_MISSING, "'need'");
    refused("{\"need\":null}", ERR_FIELD_MISSING, "'need'");
    refused("{\"need\":\"n\",\"o\":{}}", ERR_FIELD_MISSING, "'o.word'");
    refused("{\"need\":\"n\",\"list\":[{\"id\":1},{}]}", ERR_FIELD_MISSING, "'list[1].id'");
}

#define N "{\"need\":\"n\","

TEST(values_that_are_not_allowed)
{
    static const struct { const char *text, *words; } rows[] = {
        { N "\"s\":1}", "must be a string, not an integer" }, { N "\"s\":\"\"}", "'s'" },
        { N "\"s\":\"123456\"}", "has 6 bytes" }, { N "\"s\":\"axb\"}", "without x" },
        { N "\"b\":1}", "true or false" }, { N "\"b\":\"true\"}", "'b'" },
        { N "\"u\":9}", "10 to 20, not 9" }, { N "\"u\":21}", "10 to 20" },
        { N "\"u\":-1}", "10 to 20" }, { N "\"u\":15.0}", "fraction" }, { N "\"u\":1e1}", "'u'" },
        { N "\"u\":\"15\"}", "'u'" }, { N "\"u\":4294967306}", "'u'" },
        { N "\"u\":99999999999999999999}", "out of range" }, { N "\"u\":1e999}", "out of range" },
        { N "\"big\":-1}", "'big'" }, { N "\"i\":2147483648}", "'i'" },
        { N "\"i\":-2147483649}", "'i'" }, { N "\"t\":0}", "'t'" },
        { N "\"t\":\"yesterday\"}", "'t'" }, { N "\"bytes\":\"A\"}", "base64" },
        { N "\"bytes\":\"AAAAAAA=\"}", "'bytes'" }, { N "\"bytes\":\"AA=A\"}", "base64" },
        { N "\"v\":\"a\"}", "array" }, { N "\"v\":[\"a\",1]}", "'v[1]'" },
        { N "\"v\":[\"a\",null]}", "'v[1]'" }, { N "\"v\":[\"12345\"]}", "'v[0]'" },
        { N "\"v\":[\"x\"]}", "'v[0]'" }, { N "\"v\":[\"\",\"\",\"\",\"\"]}", "4 items" },
        { N "\"m\":[]}", "object" }, { N "\"m\":{\"a\":1}}", "'m.a'" },
        { N "\"m\":{\"\":\"\"}}", "key" }, { N "\"m\":{\"a=b\":\"\"}}", "key" },
        { N "\"m\":{\"a\":\"12345\"}}", "'m.a'" },
        { N "\"m\":{\"a\":\"\",\"b\":\"\",\"c\":\"\"}}", "3 items" },
        { N "\"o\":[]}", "'o'" }, { N "\"o\":{\"word\":5}}", "'o.word'" },
        { N "\"list\":{}}", "array" }, { N "\"list\":[1]}", "'list[0]'" },
        { N "\"list\":[{\"id\":1,\"tags\":[\"a\"]},{\"id\":\"2\"}]}", "'list[1].id'" },
        { N "\"list\":[{\"id\":1},{\"id\":1},{\"id\":1},{\"id\":1}]}", "4 items" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        refused(rows[i].text, ERR_FIELD_INVALID, rows[i].words);
    struct all a;
    ASSERT_OK(decode(N "\"u\":0}", &a), e);         /* JF_ZERO */
    ASSERT_EQ(a.u, 0);
    json_done(table, &a, sizeof(a));
}

TEST(text_that_is_not_json)
{
    static const char *const texts[] = {
        "", " ", "{", "}", "[]", "null", "1", "\"s\"", N "}", "{\"need\":\"n\"} x",
        "{\"need\":\"n\"}{}", "{\"need\":\"n\",\"need\":\"n\"}", N "\"s\":\"\xff\"}",
        N "\"s\":\"\xed\xa0\x80\"}", N "\"s\":\"\\ud800\"}", N "\"s\":\"a\\u0000b\"}",
        N "\"s\":\"a\nb\"}", N "\"m\":{\"a\":\"1\",\"a\":\"2\"}}", N "\"u\":015}", N "\"u\":+15}",
        "{need:\"n\"}", "{'need':'n'}", N "\"b\":True}",
        "\xef\xbb\xbf{\"need\":\"n\"}", N "\"m\":{\"a\\u0000\":\"\"}}",
    };
    struct all a;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        refused(texts[i], ERR_JSON, "not valid JSON");
    e = ERR_INIT;
    ASSERT_ERR(json_decode(table, "{\"need\":\"n\"}\0", 13, &a, &e), e, ERR_JSON);
}

TEST(unknown_keys_are_refused_or_passed_over)
{
    static const char *const texts[] = {
        N "\"nedd\":1}", N "\"o\":{\"word\":\"w\",\"nedd\":{}}}",
        N "\"list\":[{\"id\":1,\"nedd\":[[]]}]}", N "\"\":0,\"nedd\":0}",
    };
    struct all a;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        refused(texts[i], ERR_FIELD_UNKNOWN, i == 3 ? "''" : "nedd");
        ASSERT_CONTAINS(e.hint, "known here: ");
        e = ERR_INIT;
        ASSERT_OK(json_decode_lenient(table, texts[i], strlen(texts[i]), &a, &e), e);
        ASSERT_STREQ(a.need, "n");
        json_done(table, &a, sizeof(a));
    }
    refused("{\"nedd\":\"n\"}", ERR_FIELD_UNKNOWN, "nedd");   /* before what is missing */
    refused(N "\"a\\n\\u001b[31m\":1}", ERR_FIELD_UNKNOWN, "a??[31m");
}

TEST(depth_has_a_limit)
{
    for (unsigned depth = LIMIT_JSON_DEPTH - 2; depth <= LIMIT_JSON_DEPTH + 1; depth++) {
        autosbuf struct sbuf b = SBUF(1000);
        struct all a;

        sbuf_lit(&b, N "\"v\":\"]]]\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\",\"new\":");
        for (unsigned i = 1; i < depth; i++)
            sbuf_chr(&b, '[');
        for (unsigned i = 1; i < depth; i++)
            sbuf_chr(&b, ']');
        sbuf_chr(&b, '}');
        e = ERR_INIT;
        int r = json_decode_lenient(table, sbuf_str(&b), b.len, &a, &e);
        ASSERT_EQ(r, -1);       /* "v" is no array; or it did not come so far */
        ASSERT_EQ(e.code, depth <= LIMIT_JSON_DEPTH ? ERR_FIELD_INVALID : ERR_JSON);
    }
    static char many[500000];
    struct all a;
    memset(many, '[', sizeof(many));
    ASSERT_ERR(json_decode(table, many, sizeof(many), &a, &e), e, ERR_JSON);
    ASSERT_CONTAINS(e.msg, "levels");
}

TEST(what_comes_from_a_guest_can_be_said)
{
    autosbuf struct sbuf out = SBUF(4096), small = SBUF(10);
    struct err none = ERR_INIT;
    struct all a = { .s = strdup("a\xff\"\n\x01z\xc3"), .need = strdup("\xf0\x9f\x99\x82"),
                     .big = UINT64_MAX };

    ASSERT_OK(strv_add(&a.m, "no pair", &none), none);
    ASSERT_OK(strv_add(&a.m, "k\xff=v", &none), none);
    ASSERT_OK(strv_add(&a.m, "k=\xfe", &none), none);
    ASSERT_OK(json_encode(table, &a, &out, &none), none);
    ASSERT_CONTAINS(sbuf_str(&out), "\"s\":\"a\xef\xbf\xbd\\\"\\n\\u0001z\xef\xbf\xbd\"");
    ASSERT_CONTAINS(sbuf_str(&out), "\"m\":{\"k\":\"\xef\xbf\xbd\"}");
    ASSERT_CONTAINS(sbuf_str(&out), "\"big\":9223372036854775807");
    ASSERT_ERR(json_encode(table, &a, &small, &e), e, ERR_TOO_LARGE);
    json_done(table, &a, sizeof(a));
}

struct limits {
    char *name;     /* of a dict's item */
    uint64_t n, bytes;
};
struct amounts {
    uint64_t plain;
    struct jlist dict;
};
static const struct jfield limits_table[] = {
    JF(struct limits, n, JT_AMOUNT, .flags = JF_UNLIMITED, .def = 7),
    JF(struct limits, bytes, JT_AMOUNT, .flags = JF_SIZE | JF_UNLIMITED, .min = 4),
    JF_END,
};
static const struct jfield amounts_table[] = {
    JF(struct amounts, plain, JT_AMOUNT, .max = 100),
    JF(struct amounts, dict, JT_DICT, .max = 2, .item_max = 3, .check = no_x,
       .table = limits_table, .item_size = sizeof(struct limits)),
    JF_END,
};

TEST(amounts_are_numbers_sizes_or_without_limit)
{
    static const char text[] =
        "{\"plain\":5,\"dict\":{\"a\":{\"n\":-1,\"bytes\":\"2G\"},"
        "\"b\":{\"bytes\":\"unlimited\"}}}";
    struct amounts a;
    autosbuf struct sbuf b = SBUF(1024);

    ASSERT_OK(json_decode(amounts_table, text, strlen(text), &a, &e), e);
    const struct limits *l = a.dict.items;
    ASSERT_EQ(a.plain, 5);
    ASSERT_EQ(a.dict.n, 2);
    const struct limits *first = strcmp(l[0].name, "a") == 0 ? &l[0] : &l[1];
    const struct limits *other = first == l ? &l[1] : &l[0];
    ASSERT_STREQ(other->name, "b");
    ASSERT_EQ(first->n, JSON_UNLIMITED);
    ASSERT_EQ(first->bytes, 2 * GIB);
    ASSERT_EQ(other->n, 7);
    ASSERT_EQ(other->bytes, JSON_UNLIMITED);
    ASSERT_OK(json_encode(amounts_table, &a, &b, &e), e);
    ASSERT_CONTAINS(sbuf_str(&b), "\"a\":{\"n\":-1,\"bytes\":2147483648}");
    json_done(amounts_table, &a, sizeof(a));
}

TEST(what_may_be_unset_is_told_from_zero)
{
    struct times { uint64_t a, b, c; };
    static const struct jfield times_table[] = {
        JF(struct times, a, JT_U64, .flags = JF_ZERO | JF_UNSET, .min = 10, .max = 99),
        JF(struct times, b, JT_U64, .flags = JF_ZERO | JF_UNSET, .min = 10, .max = 99),
        JF(struct times, c, JT_U64, .flags = JF_ZERO | JF_UNSET, .min = 10, .max = 99),
        JF_END
    };
    static const char *const wrong[] = { "{\"a\":9}", "{\"a\":100}", "{\"a\":-1}", "{\"a\":\"\"}" };
    autosbuf struct sbuf b = SBUF(100);
    struct times t;

    ASSERT_OK(json_decode(times_table, "{\"a\":0,\"b\":null}", 16, &t, &e), e);
    ASSERT_EQ(t.a, 0);
    ASSERT_EQ(t.b, JSON_UNSET);
    ASSERT_EQ(t.c, JSON_UNSET);
    t.c = 10;
    ASSERT_OK(json_encode(times_table, &t, &b, &e), e);
    ASSERT_STREQ(sbuf_str(&b), "{\"a\":0,\"c\":10}");
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        const char *w = wrong[i];
        ASSERT_ERR(json_decode(times_table, w, strlen(w), &t, &e), e, ERR_FIELD_INVALID);
        e = ERR_INIT;
    }
}

TEST(amounts_and_keys_that_are_not_allowed)
{
    static const struct { const char *text, *where; } bad[] = {
        { "{\"plain\":-1}", "plain" },
        { "{\"plain\":101}", "plain" },
        { "{\"plain\":1.5}", "plain" },
        { "{\"plain\":\"1G\"}", "plain" },
        { "{\"plain\":\"unlimited\"}", "plain" },
        { "{\"dict\":[]}", "dict" },
        { "{\"dict\":{\"a\":1}}", "dict.a" },
        { "{\"dict\":{\"\":{}}}", "empty" },
        { "{\"dict\":{\"abcd\":{}}}", "abcd" },
        { "{\"dict\":{\"x\":{}}}", "dict.x" },
        { "{\"dict\":{\"a\":{},\"b\":{},\"c\":{}}}", "dict" },
        { "{\"dict\":{\"a\":{\"m\":1}}}", "dict.a.m" },
        { "{\"dict\":{\"a\":{\"n\":-2}}}", "dict.a.n" },
        { "{\"dict\":{\"a\":{\"bytes\":\"-1\"}}}", "dict.a.bytes" },
        { "{\"dict\":{\"a\":{\"bytes\":\"3\"}}}", "dict.a.bytes" },
        { "{\"dict\":{\"a\":{\"bytes\":\"99999999P\"}}}", "dict.a.bytes" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct amounts a;
        e = ERR_INIT;
        if (json_decode(amounts_table, bad[i].text, strlen(bad[i].text), &a, &e) == 0)
            FAIL("taken: %s", bad[i].text);
        ASSERT_CONTAINS(e.msg, bad[i].where);
    }
}

TEST(base64_is_strict)
{
    static const struct { const char *text, *bytes; size_t n; } good[] = {
        { "", "", 0 }, { "Zg==", "f", 1 }, { "Zm8=", "fo", 2 }, { "Zm9v", "foo", 3 },
        { "Zm9vYg==", "foob", 4 }, { "+/+/", "\xfb\xff\xbf", 3 }, { "AAAA", "\0\0\0", 3 },
    };
    static const char *const bad[] = { "Z", "Zg", "Zg=", "Zh==", "Zm9=", "====", "Z===", "Zg==Zg==",
                                       "Zm9v\n", "Zm 9", "-_-_", "Zg=g", "Zm9vZg=",
                                       "\xff\xff\xff\xff" };
    uint8_t out[16];
    size_t len;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        autofree char *text = base64_encode((const uint8_t *)good[i].bytes, good[i].n);

        ASSERT_STREQ(text, good[i].text);
        ASSERT_TRUE(base64_decode(text, strlen(text), out, &len));
        ASSERT_MEMEQ(out, len, good[i].bytes, good[i].n);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (base64_decode(bad[i], strlen(bad[i]), out, &len))
            FAIL("'%s' is taken", bad[i]);
    ASSERT_FALSE(base64_decode("AA\0A", 4, out, &len));
}
