/* SPDX-License-Identifier: MIT */
#include "common/name.h"
#include "common/auto.h"
#include "tests/harness/test.h"

#include <stdlib.h>
#include <string.h>

static const char *letters(size_t n)
{
    static char buf[200000];

    ASSERT_LT(n, sizeof(buf));
    memset(buf, 'x', n);
    buf[n] = '\0';
    return buf;
}

TEST(names)
{
    static const char *const good[] = { "a", "0", "web-1", "a.b_c-d", "9lives", "0123456789abcde",
                                        "0123456789abcdefa", "0123456789abcdeg" };
    static const char *const bad[] = { "", "-a", ".a", "_a", "A", "aB", "a b", "a/b", "a\n", "..",
                                       "caf\xc3\xa9", "0123456789abcdef", "deadbeefdeadbeef" };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        if (!name_valid(good[i]))
            FAIL("'%s' is refused", good[i]);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (name_valid(bad[i]))
            FAIL("'%s' is taken", bad[i]);
    ASSERT_TRUE(name_valid(letters(LIMIT_NAME)));
    ASSERT_FALSE(name_valid(letters(LIMIT_NAME + 1)));
}

TEST(ids_and_prefixes)
{
    ASSERT_TRUE(id_valid("0123456789abcdef"));
    ASSERT_FALSE(id_valid("0123456789abcde"));
    ASSERT_FALSE(id_valid("0123456789abcdef0"));
    ASSERT_FALSE(id_valid("0123456789ABCDEF"));
    ASSERT_FALSE(id_valid("0123456789abcdeg"));
    ASSERT_FALSE(id_valid(""));
    ASSERT_TRUE(id_prefix_valid("a"));
    ASSERT_TRUE(id_prefix_valid("0123456789abcdef"));
    ASSERT_FALSE(id_prefix_valid("0123456789abcdef0"));
    ASSERT_FALSE(id_prefix_valid("0123456789abcdef01"));
    ASSERT_FALSE(id_prefix_valid(""));
    ASSERT_FALSE(id_prefix_valid("g"));
    ASSERT_FALSE(id_prefix_valid("A"));
}

TEST(variables)
{
    ASSERT_TRUE(env_key_valid("_a9Z", 4));
    ASSERT_TRUE(env_key_valid("A=B", 1));
    ASSERT_FALSE(env_key_valid("A=B", 2));
    ASSERT_FALSE(env_key_valid("", 0));
    ASSERT_FALSE(env_key_valid("9A", 2));
    ASSERT_FALSE(env_key_valid("a-b", 3));
    ASSERT_FALSE(env_key_valid("a\0b", 3));
    ASSERT_TRUE(env_valid("A="));
    ASSERT_TRUE(env_valid("A=b=c\n"));
    ASSERT_FALSE(env_valid("A"));
    ASSERT_FALSE(env_valid("=b"));
    ASSERT_FALSE(env_valid("A B=c"));
    char *long_one = strdup(letters(LIMIT_ENV_BYTES));
    ASSERT_NOT_NULL(long_one);
    long_one[1] = '=';
    ASSERT_TRUE(env_valid(long_one));
    free(long_one);
    long_one = strdup(letters(LIMIT_ENV_BYTES + 1));
    ASSERT_NOT_NULL(long_one);
    long_one[1] = '=';
    ASSERT_FALSE(env_valid(long_one));
    free(long_one);
}

TEST(label_keys)
{
    ASSERT_TRUE(label_key_valid("org.example/Team-1_x"));
    ASSERT_TRUE(label_key_valid("0"));
    ASSERT_FALSE(label_key_valid(""));
    ASSERT_FALSE(label_key_valid(".a"));
    ASSERT_FALSE(label_key_valid("/a"));
    ASSERT_FALSE(label_key_valid("a=b"));
    ASSERT_FALSE(label_key_valid("a b"));
    ASSERT_TRUE(label_key_valid(letters(LIMIT_LABEL_KEY)));
    ASSERT_FALSE(label_key_valid(letters(LIMIT_LABEL_KEY + 1)));
}

TEST(users)
{
    static const char *const good[] = { "agent", "_apt", "a.b-c_d", "0", "1000", "4294967294" };
    static const char *const bad[] = { "", "-x", ".x", "4294967295", "4294967296", "10a", "a b",
                                       "a:b", "99999999999999999999999999", "+1", "-1", "a/b" };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        if (!user_valid(good[i]))
            FAIL("'%s' is refused", good[i]);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (user_valid(bad[i]))
            FAIL("'%s' is taken", bad[i]);
    ASSERT_TRUE(user_valid(letters(LIMIT_USER)));
    ASSERT_FALSE(user_valid(letters(LIMIT_USER + 1)));
}

static size_t step(const char *s)
{
    return utf8_step(s, strlen(s));
}

TEST(utf8_takes_the_well_formed_only)
{
    ASSERT_EQ(utf8_step("a", 0), 0);
    ASSERT_EQ(utf8_step("\0", 1), 1);
    ASSERT_EQ(step("a"), 1);
    ASSERT_EQ(step("\x7f"), 1);
    ASSERT_EQ(step("\xc2\x80"), 2);
    ASSERT_EQ(step("\xdf\xbf"), 2);
    ASSERT_EQ(step("\xe0\xa0\x80"), 3);
    ASSERT_EQ(step("\xed\x9f\xbf"), 3);
    ASSERT_EQ(step("\xee\x80\x80"), 3);
    ASSERT_EQ(step("\xf0\x90\x80\x80"), 4);
    ASSERT_EQ(step("\xf4\x8f\xbf\xbf"), 4);
    static const char *const bad[] = {
        "\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xfe", "\xc3" "a",
        "\xe2\x82" "a", "\xf0\x9f\x99" "a", "\xc3", "\xe2\x82", "\xf0\x9f\x99",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (step(bad[i]) != 0 || utf8_valid(bad[i], strlen(bad[i])))
            FAIL("row %zu is taken", i);
    for (size_t n = 0; n < 4; n++)      /* nothing past `left` is looked at */
        ASSERT_EQ(utf8_step("\xf0\x9f\x99\x82", n), 0);
    ASSERT_TRUE(utf8_valid("", 0));
    ASSERT_TRUE(utf8_valid("a\0\xc3\xa9", 4));
    ASSERT_FALSE(utf8_valid("a\xc3\xa9", 2));
}

TEST(plain_text_has_no_control_over_terminals)
{
    static const char *const no[] = {
        "\x01", "\x1b", "\n", "\t", "\x7f", "\xc2\x80", "\xc2\x9b", "\xc2\x9f", "\xd8\x9c",
        "\xe2\x80\x8e", "\xe2\x80\x8f", "\xe2\x80\xa8", "\xe2\x80\xae", "\xe2\x81\xa6",
        "\xe2\x81\xa9", "\xef\xbb\xbf", "\xff",
    };
    static const char *const yes[] = { " ", "~", "\xc2\xa0", "\xc3\xa9", "\xe2\x80\xaf",
                                       "\xe2\x81\xa5", "\xe2\x81\xaa", "\xf0\x9f\x99\x82" };

    for (size_t i = 0; i < ARRAY_SIZE(no); i++)
        if (utf8_step_plain(no[i], strlen(no[i])) != 0)
            FAIL("row %zu is plain", i);
    for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
        if (utf8_step_plain(yes[i], strlen(yes[i])) != strlen(yes[i]))
            FAIL("row %zu is not plain", i);
    ASSERT_EQ(utf8_step_plain("\0", 1), 0);
}

TEST(new_ones_are_valid_and_differ)
{
    char a[LIMIT_ID + 1], b[LIMIT_ID + 1], name[LIMIT_NAME + 1];
    struct err e = ERR_INIT;

    ASSERT_OK(id_new(b, &e), e);
    for (int i = 0; i < 500; i++) {
        ASSERT_OK(id_new(a, &e), e);
        ASSERT_TRUE(id_valid(a));
        ASSERT_STRNE(a, b);
        ASSERT_OK(name_new(name, &e), e);
        ASSERT_TRUE(name_valid(name));
    }
}
