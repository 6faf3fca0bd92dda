/* SPDX-License-Identifier: MIT */
#include "common/strv.h"
#include "common/auto.h"
#include "tests/harness/test.h"

#include <string.h>

TEST(it_grows_and_ends_with_null)
{
    autostrv struct strv v = STRV_INIT;
    struct err e = ERR_INIT;

    ASSERT_NULL(v.items);
    for (int i = 0; i < 1000; i++) {
        ASSERT_OK(strv_addf(&v, &e, "%d", i), e);
        ASSERT_EQ(v.n, i + 1);
        ASSERT_NULL(v.items[v.n]);
    }
    ASSERT_STREQ(v.items[0], "0");
    ASSERT_STREQ(v.items[999], "999");
    strv_done(&v);
    ASSERT_EQ(v.n, 0);
    ASSERT_NULL(v.items);
    strv_done(&v);
}

TEST(it_owns_what_it_is_given)
{
    autostrv struct strv v = STRV_INIT;
    struct err e = ERR_INIT;
    char word[] = "word", *mine = strdup("mine"), *none = NULL;

    ASSERT_OK(strv_add(&v, word, &e), e);
    word[0] = 'x';
    ASSERT_STREQ(v.items[0], "word");
    ASSERT_OK(strv_add_take(&v, &mine, &e), e);
    ASSERT_NULL(mine);
    ASSERT_ERR(strv_add_take(&v, &none, &e), e, ERR_NO_MEMORY);
    ASSERT_EQ(v.n, 2);
}

TEST(a_copy_is_deep)
{
    autostrv struct strv a = STRV_INIT, b = STRV_INIT, c = STRV_INIT;
    struct err e = ERR_INIT;

    ASSERT_OK(strv_add(&a, "one", &e), e);
    ASSERT_OK(strv_add(&a, "", &e), e);
    ASSERT_OK(strv_copy(&b, &a, &e), e);
    ASSERT_EQ(b.n, 2);
    a.items[0][0] = 'X';
    ASSERT_STREQ(b.items[0], "one");
    ASSERT_STREQ(b.items[1], "");
    ASSERT_OK(strv_copy(&c, &(struct strv){ 0 }, &e), e);
    ASSERT_EQ(c.n, 0);
}

TEST(variables_are_replaced_by_whole_name)
{
    autostrv struct strv v = STRV_INIT;
    struct err e = ERR_INIT;

    ASSERT_OK(strv_env_set(&v, "PATH=/bin", &e), e);
    ASSERT_OK(strv_env_set(&v, "PA=1", &e), e);
    ASSERT_OK(strv_env_set(&v, "PATHS=2", &e), e);
    ASSERT_OK(strv_env_set(&v, "PATH=a=b", &e), e);
    ASSERT_EQ(v.n, 3);
    ASSERT_STREQ(v.items[0], "PATH=a=b");
    ASSERT_STREQ(strv_env_get(&v, "PATH"), "a=b");
    ASSERT_STREQ(strv_env_get(&v, "PA"), "1");
    ASSERT_STREQ(strv_env_get(&v, "PATHS"), "2");
    ASSERT_NULL(strv_env_get(&v, "P"));
    ASSERT_NULL(strv_env_get(&v, "PATH="));
    ASSERT_NULL(strv_env_get(&v, "NONE"));
    ASSERT_OK(strv_env_set(&v, "PA=", &e), e);
    ASSERT_STREQ(strv_env_get(&v, "PA"), "");
    ASSERT_OK(strv_env_set(&v, v.items[2], &e), e);     /* its own item */
    ASSERT_STREQ(strv_env_get(&v, "PATHS"), "2");
    ASSERT_EQ(v.n, 3);
}
