/* SPDX-License-Identifier: MIT */
#include "common/err.h"
#include "tests/harness/test.h"

#include <errno.h>
#include <string.h>

TEST(codes_and_words_belong_together)
{
    for (unsigned i = ERR_NONE + 1; i < ERR_CODE_MAX; i++) {
        enum err_code code = (enum err_code)i;

        ASSERT_EQ(err_from_wire(err_wire(code)), code);
        ASSERT_GE(err_http(code), 400);
        ASSERT_LT(err_http(code), 600);
        ASSERT_GE(err_exit_status(code), 125);
        ASSERT_LE(err_exit_status(code), 127);
    }
    ASSERT_STREQ(err_wire(ERR_SANDBOX_NOT_FOUND), "sandbox_not_found");
    ASSERT_EQ(err_http(ERR_SANDBOX_NOT_FOUND), 404);
    ASSERT_EQ(err_exit_status(ERR_COMMAND_NOT_EXEC), 126);
    ASSERT_EQ(err_exit_status(ERR_COMMAND_NOT_FOUND), 127);
}

TEST(what_nobody_knows_is_internal)
{
    ASSERT_EQ(err_from_wire("no_such_code"), ERR_INTERNAL);
    ASSERT_EQ(err_from_wire(""), ERR_INTERNAL);
    ASSERT_EQ(err_from_wire("none"), ERR_INTERNAL);     /* an error is never "none" */
    ASSERT_EQ(err_from_wire(NULL), ERR_INTERNAL);
    ASSERT_STREQ(err_wire(ERR_CODE_MAX), "internal");
    ASSERT_STREQ(err_wire((enum err_code)-1), "internal");
    ASSERT_EQ(err_http((enum err_code)9999), 500);
    ASSERT_EQ(err_exit_status((enum err_code)-7), 125);
}

TEST(set_replaces_all_of_it)
{
    struct err e = ERR_INIT;

    ASSERT_EQ(err_sys(&e, ERR_GUEST, EIO, "first"), -1);
    ASSERT_EQ(err_hint(&e, "try %d", 7), -1);
    ASSERT_STREQ(e.hint, "try 7");
    ASSERT_EQ(err_set(&e, ERR_QUOTA, "%s %d", "second", 2), -1);
    ASSERT_EQ(e.code, ERR_QUOTA);
    ASSERT_EQ(e.sys, 0);
    ASSERT_STREQ(e.msg, "second 2");
    ASSERT_STREQ(e.hint, "");
}

TEST(errno_has_words_and_some_have_codes)
{
    static const struct { int sys; enum err_code code; } rows[] = {
        { ENOMEM, ERR_NO_MEMORY }, { ENOSPC, ERR_NO_SPACE }, { EDQUOT, ERR_NO_SPACE },
        { ETIMEDOUT, ERR_TIMEOUT }, { EIO, ERR_GUEST }, { EACCES, ERR_GUEST },
    };
    struct err e = ERR_INIT;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        err_sys(&e, ERR_GUEST, rows[i].sys, "cannot open %s", "x");
        ASSERT_EQ(e.code, rows[i].code);
        ASSERT_EQ(e.sys, rows[i].sys);
        ASSERT_EQ(strncmp(e.msg, "cannot open x: ", 15), 0);
        ASSERT_GT(strlen(e.msg), 18);
    }
    err_sys(&e, ERR_GUEST, ENOENT, "a");
    ASSERT_STREQ(e.msg, "a: No such file or directory");
    err_sys(&e, ERR_GUEST, 123456, "a");
    ASSERT_STREQ(e.msg, "a: unknown error");
    ASSERT_EQ(err_nomem(&e), -1);
    ASSERT_EQ(e.code, ERR_NO_MEMORY);
    ASSERT_EQ(e.sys, ENOMEM);
}

TEST(long_text_is_cut_and_the_systems_words_stay)
{
    struct err e = ERR_INIT;
    char name[1001];

    memset(name, 'n', sizeof(name) - 1);
    name[1000] = '\0';
    err_set(&e, ERR_INVALID, "%s", name);
    ASSERT_EQ(strlen(e.msg), sizeof(e.msg) - 1);
    err_hint(&e, "%s", name);
    ASSERT_EQ(strlen(e.hint), sizeof(e.hint) - 1);
    err_sys(&e, ERR_INVALID, ENOENT, "%s", name);
    ASSERT_LT(strlen(e.msg), sizeof(e.msg));
    ASSERT_CONTAINS(e.msg, "n: No such file or directory");
    err_set(&e, ERR_INVALID, "old");
    err_wrap(&e, "%s", name);
    ASSERT_LT(strlen(e.msg), sizeof(e.msg));
    ASSERT_EQ(e.msg[0], 'n');
    for (size_t len = 240; len < 260; len++) {     /* around the end, with a character of four */
        err_set(&e, ERR_INVALID, "%.*s%s", (int)len, name, "\xf0\x9f\x99\x82");
        ASSERT_LT(strlen(e.msg), sizeof(e.msg));
        size_t n = strlen(e.msg);
        ASSERT_TRUE(e.msg[n - 1] == 'n' || strcmp(e.msg + n - 4, "\xf0\x9f\x99\x82") == 0);
        err_wrap(&e, "%.*s", (int)len, name);
        ASSERT_LT(strlen(e.msg), sizeof(e.msg));
    }
}

TEST(a_message_is_one_printable_line)
{
    struct err e = ERR_INIT;

    err_set(&e, ERR_INVALID,
            "a\nb\tc\x1b[31m \xff\xfe \x7f caf\xc3\xa9 \xe2\x80\xae" "x \xc2\x9b" "y");
    ASSERT_STREQ(e.msg, "a?b?c?[31m ?? ? caf\xc3\xa9 ?x ?y");
    err_hint(&e, "one\ntwo\xc3");
    ASSERT_STREQ(e.hint, "one?two?");
    err_wrap(&e, "x\r\n");
    ASSERT_EQ(strncmp(e.msg, "x??: a?b", 8), 0);
}

TEST(wrapping_keeps_code_and_hint)
{
    struct err e = ERR_INIT;

    err_sys(&e, ERR_GUEST, EIO, "inner");
    err_hint(&e, "do this");
    ASSERT_EQ(err_wrap(&e, "outer %d", 1), -1);
    ASSERT_STREQ(e.msg, "outer 1: inner: Input/output error");
    ASSERT_EQ(e.code, ERR_GUEST);
    ASSERT_EQ(e.sys, EIO);
    ASSERT_STREQ(e.hint, "do this");
    err_set(&e, ERR_INVALID, "again: %s", e.msg);   /* out of the object itself */
    ASSERT_STREQ(e.msg, "again: outer 1: inner: Input/output error");
    err_wrap(&e, "%s", e.msg);
    ASSERT_CONTAINS(e.msg, "error: again: outer 1");
}
