/* SPDX-License-Identifier: MIT */
#include "client/out.h"
#include "tests/harness/test.h"
#include <locale.h>

TEST(widths)
{
    ASSERT_NOT_NULL(setlocale(LC_CTYPE, "C.UTF-8"));
    ASSERT_EQ(text_width(""), 0);
    ASSERT_EQ(text_width("abc"), 3);
    ASSERT_EQ(text_width("é宽"), 3);
    ASSERT_EQ(text_width("e\xcc\x81"), 1);      /* a combining accent */
    ASSERT_EQ(text_width("\xff\xe5"), 2);
    ASSERT_EQ(text_width("\xe5\xae"), 2);
}

TEST(cuts_fall_between_characters)
{
    ASSERT_NOT_NULL(setlocale(LC_CTYPE, "C.UTF-8"));
    ASSERT_EQ(text_fit("abc", 2), 2);
    ASSERT_EQ(text_fit("abc", 9), 3);
    ASSERT_EQ(text_fit("a宽b", 2), 1);
    ASSERT_EQ(text_fit("a宽b", 3), 4);
    ASSERT_EQ(text_fit("e\xcc\x81x", 1), 3);
    ASSERT_EQ(text_fit("x", 0), 0);
}

TEST(cells_are_escaped)
{
    static const struct column columns[] = { { "A" }, { "B" } };
    autotable struct table t = { .columns = columns, .n_columns = 2 };
    struct err e = ERR_INIT;

    ASSERT_OK(table_cell(&t, "\033[2J\n\x9b\xc2\x9b", &e), e);
    ASSERT_OK(table_cell(&t, NULL, &e), e);
    ASSERT_OK(table_cellf(&t, &e, "%d%s", 5, "\r"), e);
    ASSERT_STREQ(t.cells.items[0], "\\x1b[2J\\n\\x9b\\xc2\\x9b");
    ASSERT_STREQ(t.cells.items[1], "");
    ASSERT_STREQ(t.cells.items[2], "5\\r");
}

TEST(formats)
{
    struct format f;
    struct err e = ERR_INIT;

    ASSERT_OK(format_parse(NULL, &f, &e), e);
    ASSERT_EQ(f.kind, FORMAT_TABLE);
    ASSERT_OK(format_parse("json", &f, &e), e);
    ASSERT_EQ(f.kind, FORMAT_JSON);
    ASSERT_OK(format_parse("x{{.Name}}", &f, &e), e);
    ASSERT_EQ(f.kind, FORMAT_TEMPLATE);
    ASSERT_ERR(format_parse("yaml", &f, &e), e, ERR_USAGE);
}
