/* SPDX-License-Identifier: MIT
 *
 * test: the harness of the C tests. TEST(name) { … } registers itself; main() is in test.c. Each
 * test runs in a child process with a time limit and a process group of its own, so a crash, a
 * hang or a leaked child fails one test and not the others. Output is TAP.
 *
 *     TEST(words_are_counted)
 *     {
 *         ASSERT_EQ(count("a b"), 2);
 *     }
 *
 * Command line of a test binary: [-l] [-d] [PART-OF-NAME…]; names choose tests, -l lists them, -d
 * runs them in this process and without a time limit, for a debugger. Exit status: 0, or 1
 * when one failed; a skip is a line of TAP, with its reason (the child says it by status 77).
 */
#pragma once

#include "common/err.h"
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define TEST_SECONDS 30         /* default limit of one test; times 10 under SBX_TEST_SLOW=1 */

struct test_case {
    const char *name;
    void (*run)(void);
    unsigned seconds;           /* 0: TEST_SECONDS */
    struct test_case *next;
};
void test_register(struct test_case *t);

#define TEST(name_) TEST_LIMIT(name_, 0)
#define TEST_LIMIT(name_, seconds_)                                                          \
    static void test_run_##name_(void);                                                      \
    static struct test_case test_case_##name_ = { #name_, test_run_##name_, seconds_, NULL }; \
    static __attribute__((constructor)) void test_add_##name_(void)                          \
    {                                                                                        \
        test_register(&test_case_##name_);                                                   \
    }                                                                                        \
    static void test_run_##name_(void)

/* Ends the test; the text is printed as a TAP comment. */
_Noreturn void test_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void test_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(...) test_skip(__VA_ARGS__)
#define SKIP_IF(condition, ...)      \
    do {                             \
        if (condition)               \
            test_skip(__VA_ARGS__);  \
    } while (0)

/* For the macros below. Integers are widened to 128 bits, so that any two compare by value. */
void test_check_int(const char *file, int line, const char *text_a, const char *op,
                    const char *text_b, __int128 a, __int128 b, bool ok);
void test_check_str(const char *file, int line, const char *text_a, const char *text_b,
                    const char *a, const char *b, bool want_equal);
void test_check_mem(const char *file, int line, const char *text_a, const char *text_b,
                    const void *a, size_t na, const void *b, size_t nb);

#define TEST_INT(a, op, b)                                                                      \
    do {                                                                                        \
        __int128 test_a_ = (__int128)(a), test_b_ = (__int128)(b);                              \
        test_check_int(__FILE__, __LINE__, #a, #op, #b, test_a_, test_b_, test_a_ op test_b_); \
    } while (0)

#define ASSERT_EQ(a, b) TEST_INT(a, ==, b)
#define ASSERT_NE(a, b) TEST_INT(a, !=, b)
#define ASSERT_LT(a, b) TEST_INT(a, <, b)
#define ASSERT_LE(a, b) TEST_INT(a, <=, b)
#define ASSERT_GT(a, b) TEST_INT(a, >, b)
#define ASSERT_GE(a, b) TEST_INT(a, >=, b)

#define ASSERT_TRUE(x)                           \
    do {                                         \
        if (!(x))                                \
            FAIL("expected true: %s", #x);       \
    } while (0)
#define ASSERT_FALSE(x)                          \
    do {                                         \
        if (x)                                   \
            FAIL("expected false: %s", #x);      \
    } while (0)
#define ASSERT_NULL(p)                                               \
    do {                                                             \
        const void *test_p_ = (p);                                   \
        if (test_p_)                                                 \
            FAIL("expected NULL: %s is %p", #p, test_p_);            \
    } while (0)
#define ASSERT_NOT_NULL(p)                                           \
    do {                                                             \
        if (!(p))                                                    \
            FAIL("expected a pointer: %s is NULL", #p);              \
    } while (0)
/* Strings; either may be NULL, and equals only NULL then. */
#define ASSERT_STREQ(a, b) test_check_str(__FILE__, __LINE__, #a, #b, (a), (b), true)
#define ASSERT_STRNE(a, b) test_check_str(__FILE__, __LINE__, #a, #b, (a), (b), false)
/* `haystack` has `needle` in it. */
#define ASSERT_CONTAINS(haystack, needle)                                               \
    do {                                                                                \
        const char *test_h_ = (haystack), *test_n_ = (needle);                          \
        if (!test_h_ || !strstr(test_h_, test_n_))                                      \
            FAIL("'%s' is not in %s: '%s'", test_n_, #haystack, test_h_ ? test_h_ : "(null)"); \
    } while (0)
#define ASSERT_MEMEQ(a, na, b, nb) test_check_mem(__FILE__, __LINE__, #a, #b, (a), (na), (b), (nb))
/* A call that takes a struct err *: success (any result >= 0), or failure with this code. `e` is
 * the object, not its address. */
#define ASSERT_OK(call, e)                                                               \
    do {                                                                                 \
        if ((call) < 0)                                                                  \
            FAIL("%s: [%s] %s", #call, err_wire((e).code), (e).msg);                     \
    } while (0)
#define ASSERT_ERR(call, e, code_)                                                       \
    do {                                                                                 \
        (e) = ERR_INIT;                                                                  \
        if ((call) >= 0)                                                                 \
            FAIL("%s succeeded, expected %s", #call, #code_);                            \
        if ((e).code != (code_))                                                         \
            FAIL("%s: expected %s, got [%s] %s", #call, #code_, err_wire((e).code), (e).msg); \
        if ((e).msg[0] == '\0')                                                          \
            FAIL("%s: error without a message", #call);                                  \
    } while (0)
/* A system call that must not fail. */
#define ASSERT_SYS(call)                                                                 \
    ({                                                                                   \
        __typeof__(call) test_r_ = (call);                                               \
        if (test_r_ < 0)                                                                 \
            FAIL("%s: %s", #call, strerror(errno));                                      \
        test_r_;                                                                         \
    })

/* Only this thread has the effective uid `uid` from now on: seteuid() would tell the others by a
 * signal, which ends the waits of theirs. Needs the real uid 0. */
void test_become(uid_t uid);

/* A fresh directory for this test, short enough for socket paths, removed after it. Borrowed. */
const char *test_dir(void);
/* Path of `name` in it; borrowed, valid to the end of the test. */
const char *test_path(const char *name);
/* Path of a file of the source tree, by its path below tests/. */
const char *test_source(const char *below_tests);
/* Compares with the golden file tests/golden/<name>; SBX_TEST_UPDATE=1 writes it instead. */
void test_golden(const char *file, int line, const char *name, const char *actual, size_t len);
#define ASSERT_GOLDEN(name, actual) \
    test_golden(__FILE__, __LINE__, name, actual, strlen(actual))
/* Number of open descriptors of this process, to find leaks. */
int test_count_fds(void);
/* True when the program runs under a sanitizer, which may need more time or memory. */
bool test_sanitized(void);
