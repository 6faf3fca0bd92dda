/* SPDX-License-Identifier: MIT
 *
 * The harness tests itself: this program starts itself again with tests that must fail.
 */
#include "tests/harness/test.h"
#include "common/auto.h"
#include "common/proc.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* These do something only when asked to by the tests below. */
static bool playing(void)
{
    return getenv("SBX_HARNESS_PLAY") != NULL;
}

TEST(play_eq)
{
    if (playing())
        ASSERT_EQ(2 + 2, 5);
}

TEST(play_str)
{
    if (playing())
        ASSERT_STREQ("left\n", "right");
}

TEST(play_crash)
{
    if (playing())
        raise(SIGKILL);
}

TEST(play_skip)
{
    if (playing())
        SKIP("for the reason of %d", 42);
}

TEST_LIMIT(play_hang, 1)
{
    while (playing())
        pause();
}

TEST(play_dir)
{
    if (playing()) {
        printf("dir %s\n", test_dir());
        FAIL("after making it");
    }
}

TEST(play_flood)
{
    if (playing())
        for (int i = 0; i < 100000; i++)
            printf("line %d\n", i);
}

/* The output and status of this program with one test chosen. */
static char *play(const char *name, int *ret_status)
{
    const char *argv[] = { "/bin/sh", "-c", "exec \"$0\" \"$1\"; exit 1", NULL, name, NULL };
    const char *env[] = { "SBX_HARNESS_PLAY=1", NULL };
    static char self[4096];
    ssize_t n = ASSERT_SYS(readlink("/proc/self/exe", self, sizeof(self) - 1));
    FILE *f = tmpfile();
    struct proc_spec spec = { .argv = argv, .env = env, .stdin_fd = -1, .stderr_fd = 2 };
    struct err e = ERR_INIT;
    char *text;
    pid_t pid;

    self[n] = '\0';
    argv[3] = self;
    ASSERT_NOT_NULL(f);
    spec.stdout_fd = fileno(f);
    ASSERT_OK(proc_spawn(&spec, &pid, NULL, &e), e);
    ASSERT_EQ(proc_wait(pid, -1, INT64_MAX, ret_status, &e), 1);
    rewind(f);
    text = calloc(1, 1 << 20);
    ASSERT_NOT_NULL(text);
    ASSERT_TRUE(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

TEST(failure_prints_both_sides)
{
    int status;
    autofree char *out = play("play_eq", &status);

    ASSERT_CONTAINS(out, "TAP version 13\n1..1\n");
    ASSERT_CONTAINS(out, "not ok 1 - play_eq\n");
    ASSERT_CONTAINS(out, "expected 2 + 2 == 5");
    ASSERT_CONTAINS(out, "left:  4 (0x4)");
    ASSERT_CONTAINS(out, "right: 5 (0x5)");
    ASSERT_EQ(status, 1 << 8);
}

TEST(strings_are_shown_on_one_line)
{
    int status;
    autofree char *out = play("play_str", &status);

    ASSERT_CONTAINS(out, "left:  \"left\\n\" (5 bytes)");
    ASSERT_EQ(status, 1 << 8);
}

TEST(crash_fails_one_test)
{
    int status;
    autofree char *out = play("play_crash", &status);

    ASSERT_CONTAINS(out, "not ok 1 - play_crash");
    ASSERT_CONTAINS(out, "killed by signal 9");
    ASSERT_EQ(status, 1 << 8);
}

TEST(skip_has_a_reason)
{
    int status;
    autofree char *out = play("play_skip", &status);

    ASSERT_CONTAINS(out, "ok 1 - play_skip # SKIP for the reason of 42\n");
    ASSERT_EQ(status, 0);
}

TEST(hang_ends_at_the_limit)
{
    int status;
    autofree char *out = play("play_hang", &status);

    ASSERT_CONTAINS(out, "not ok 1 - play_hang");
    ASSERT_CONTAINS(out, "did not end within 1 s");
    ASSERT_EQ(status, 1 << 8);
}

TEST(directory_goes_with_a_failed_test)
{
    int status;
    autofree char *out = play("play_dir", &status);
    char *path = strstr(out, "dir ");

    ASSERT_NOT_NULL(path);
    path += 4;
    path[strcspn(path, "\n")] = '\0';
    ASSERT_TRUE(path[0] == '/');
    ASSERT_EQ(access(path, F_OK), -1);
}

TEST(flood_does_not_stop_a_test)
{
    int status;
    autofree char *out = play("play_flood", &status);

    ASSERT_CONTAINS(out, "ok 1 - play_flood\n");
    ASSERT_EQ(status, 0);
}

TEST(integers_of_any_width_compare_by_value)
{
    ASSERT_NE(UINT64_MAX, -1);
    ASSERT_LT(-1, 1u);
    ASSERT_GT(UINT64_MAX, INT64_MAX);
}
