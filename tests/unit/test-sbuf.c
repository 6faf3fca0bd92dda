/* SPDX-License-Identifier: MIT */
#include "common/sbuf.h"
#include "common/auto.h"
#include "tests/harness/test.h"

#include <errno.h>
#include <string.h>

TEST(an_empty_builder_is_an_empty_string)
{
    autosbuf struct sbuf b = SBUF(0);
    struct err e = ERR_INIT;
    autofree char *s = NULL;

    ASSERT_STREQ(sbuf_str(&b), "");
    sbuf_lit(&b, "");
    ASSERT_OK(sbuf_take(&b, &s, &e), e);
    ASSERT_STREQ(s, "");
    sbuf_chr(&b, 'x');
    ASSERT_EQ(b.failed, E2BIG);
}

TEST(the_maximum_counts_exactly_and_failure_sticks)
{
    for (size_t max = 1; max < 200; max++) {
        autosbuf struct sbuf b = SBUF(max);
        struct err e = ERR_INIT;
        char *s = NULL;

        for (size_t i = 0; i < max; i++)
            sbuf_chr(&b, 'a');
        ASSERT_EQ(b.failed, 0);
        ASSERT_EQ(b.len, max);
        ASSERT_EQ(strlen(sbuf_str(&b)), max);
        sbuf_lit(&b, "");                   /* nothing fits always */
        ASSERT_EQ(b.failed, 0);
        sbuf_chr(&b, 'b');
        ASSERT_EQ(b.failed, E2BIG);
        sbuf_lit(&b, "");
        ASSERT_STREQ(sbuf_str(&b), "");
        ASSERT_ERR(sbuf_take(&b, &s, &e), e, ERR_TOO_LARGE);
        ASSERT_NULL(s);
        sbuf_done(&b);                      /* and is fresh after that */
        sbuf_fmt(&b, "%c", 'c');
        ASSERT_STREQ(sbuf_str(&b), "c");
    }
}

TEST(lengths_do_not_wrap)
{
    autosbuf struct sbuf b = SBUF(100);

    sbuf_lit(&b, "12345");
    sbuf_add(&b, "x", SIZE_MAX);
    ASSERT_EQ(b.failed, E2BIG);
    sbuf_done(&b);
    sbuf_lit(&b, "12345");
    sbuf_add(&b, "x", SIZE_MAX - 4);
    ASSERT_EQ(b.failed, E2BIG);

    autosbuf struct sbuf big = SBUF(SIZE_MAX);
    sbuf_add(&big, "x", SIZE_MAX);
    ASSERT_NE(big.failed, 0);
}

TEST(bytes_and_formats_and_numbers)
{
    autosbuf struct sbuf b = SBUF(1000);

    sbuf_add(&b, "a\0b", 3);
    ASSERT_MEMEQ(b.data, b.len + 1, "a\0b", 4);
    sbuf_done(&b);
    sbuf_fmt(&b, "%s-%05d|", "x", 42);
    sbuf_u64(&b, 0);
    sbuf_chr(&b, ' ');
    sbuf_u64(&b, UINT64_MAX);
    sbuf_chr(&b, ' ');
    sbuf_u64(&b, 1000000);
    ASSERT_STREQ(sbuf_str(&b), "x-00042|0 18446744073709551615 1000000");
    sbuf_done(&b);
    for (int i = 0; i < 100; i++)
        sbuf_fmt(&b, "%d,", i);
    ASSERT_EQ(b.len, 10 * 2 + 90 * 3);
    sbuf_fmt(&b, "%*d", 1000, 1);
    ASSERT_EQ(b.failed, E2BIG);
}

TEST(take_moves_it_out)
{
    autosbuf struct sbuf b = SBUF(10);
    struct err e = ERR_INIT;
    autofree char *s = NULL;

    sbuf_lit(&b, "0123456789");
    ASSERT_OK(sbuf_take(&b, &s, &e), e);
    ASSERT_STREQ(s, "0123456789");
    ASSERT_EQ(b.len, 0);
    ASSERT_EQ(b.max, 10);
    sbuf_lit(&b, "again");
    ASSERT_STREQ(sbuf_str(&b), "again");
}

static void xml(struct sbuf *b, const char *text)
{
    sbuf_done(b);
    sbuf_xml(b, text);
}

TEST(xml_is_escaped_or_refused)
{
    autosbuf struct sbuf b = SBUF(1000);
    static const char *const bad[] = { "\x01", "a\x1f", "\x1b[0m", "\xff", "\xc3", "\xed\xa0\x80",
                                       "\xef\xbf\xbe", "\xef\xbf\xbf", "ok\xc0\xaf" };
    struct err e = ERR_INIT;
    char *s = NULL;

    xml(&b, "<a href=\"x\" b='y'>&amp;</a>");
    ASSERT_STREQ(sbuf_str(&b), "&lt;a href=&quot;x&quot; b=&apos;y&apos;&gt;&amp;amp;&lt;/a&gt;");
    xml(&b, "a\tb\nc\rd");
    ASSERT_STREQ(sbuf_str(&b), "a&#9;b&#10;c&#13;d");
    xml(&b, "caf\xc3\xa9 \xef\xbf\xbd \xf0\x9f\x99\x82");
    ASSERT_STREQ(sbuf_str(&b), "caf\xc3\xa9 \xef\xbf\xbd \xf0\x9f\x99\x82");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        xml(&b, bad[i]);
        ASSERT_EQ(b.failed, EINVAL);
        ASSERT_ERR(sbuf_take(&b, &s, &e), e, ERR_INVALID);
    }
}

TEST(log_values_are_quoted_where_needed)
{
    static const struct { const char *in, *out; } rows[] = {
        { "plain", "plain" }, { "", "\"\"" }, { "two words", "\"two words\"" },
        { "a=b", "\"a=b\"" }, { "q\"q", "\"q\\\"q\"" }, { "b\\s", "\"b\\\\s\"" },
        { "n\nr\rt\t", "\"n\\nr\\rt\\t\"" }, { "\x1b[0m", "\"\\x1b[0m\"" },
        { "\xff", "\"\\xff\"" }, { "\x7f", "\"\\x7f\"" }, { "caf\xc3\xa9", "caf\xc3\xa9" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        autosbuf struct sbuf b = SBUF(100);

        sbuf_log(&b, rows[i].in, strlen(rows[i].in));
        ASSERT_STREQ(sbuf_str(&b), rows[i].out);
    }
    autosbuf struct sbuf b = SBUF(100);
    sbuf_log(&b, "a\0b", 3);
    ASSERT_STREQ(sbuf_str(&b), "\"a\\x00b\"");
}

TEST(text_cannot_drive_a_terminal)
{
    autosbuf struct sbuf b = SBUF(1000);
    static const char in[] = "say \"hi\" \x1b]0;t\x07 \xe2\x80\xae" "rtl "
                             "\xc2\x9b" "c1 \\ \xf0\x9f\x99\x82";

    sbuf_text(&b, in, sizeof(in) - 1);
    ASSERT_STREQ(sbuf_str(&b), "say \"hi\" \\x1b]0;t\\x07 \\xe2\\x80\\xaertl \\xc2\\x9bc1 \\\\ "
                               "\xf0\x9f\x99\x82");
}
