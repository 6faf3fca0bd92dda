/* SPDX-License-Identifier: MIT */
#include "daemon/fault.h"
#include "tests/harness/test.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct err e;

static int at(enum fault_point p)
{
    e = ERR_INIT;
    return fault_at(p, &e);
}

TEST(what_is_not_armed_does_nothing)
{
    ASSERT_TRUE(fault_arm(NULL));
    ASSERT_EQ(at(FAULT_CREATE_ROW), 0);
    ASSERT_TRUE(fault_arm("create.rules=EIO"));
    ASSERT_EQ(at(FAULT_CREATE_ROW), 0);
    ASSERT_EQ(fault_part(FAULT_CREATE_ROW, 10), 10);
    ASSERT_EQ(e.code, ERR_NONE);
}

TEST(a_point_fails_once_with_its_errno)
{
    ASSERT_TRUE(fault_arm("create.row=ENOSPC,exec.row:3=EIO"));
    ASSERT_EQ(at(FAULT_CREATE_ROW), -1);
    ASSERT_EQ(e.code, ERR_NO_SPACE);
    ASSERT_EQ(e.sys, ENOSPC);
    ASSERT_EQ(at(FAULT_CREATE_ROW), 0);
    ASSERT_EQ(at(FAULT_EXEC_ROW), 0);
    ASSERT_EQ(at(FAULT_EXEC_ROW), 0);
    ASSERT_EQ(at(FAULT_EXEC_ROW), -1);
    ASSERT_EQ(e.sys, EIO);
    ASSERT_EQ(at(FAULT_EXEC_ROW), 0);
}

TEST(with_a_star_it_fails_each_time)
{
    ASSERT_TRUE(fault_arm("audit.write:*=EIO"));
    for (int i = 0; i < 5; i++)
        ASSERT_EQ(at(FAULT_AUDIT_WRITE), -1);
}

TEST(half_is_written_before_a_point_that_is_met)
{
    ASSERT_TRUE(fault_arm("audit.torn:2=EIO"));
    ASSERT_EQ(fault_part(FAULT_AUDIT_TORN, 100), 100);
    ASSERT_EQ(at(FAULT_AUDIT_TORN), 0);
    ASSERT_EQ(fault_part(FAULT_AUDIT_TORN, 100), 50);
    ASSERT_EQ(fault_part(FAULT_AUDIT_TORN, 1), 1);
    ASSERT_EQ(at(FAULT_AUDIT_TORN), -1);
}

TEST(what_cannot_be_understood_is_refused)
{
    static const char *const bad[] = {
        "none", "create.row=EWHAT", "create.row=", "create.row:0", "create.row:x", "create.row@now",
        "create.row:4294967296", "create", "create.row,none", "create.row=5",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        if (fault_arm(bad[i]))
            FAIL("'%s' was taken", bad[i]);
}

static int in_child(const char *spec, bool serves, enum fault_point p, bool can_fail)
{
    int ws = 0;
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = { (char *)"sandboxd", NULL };
        setenv("SANDBOXD_FAULT", spec, 1);
        if (fault_main(1, argv))
            _exit(50);
        if (serves)
            fault_serving();
        if (can_fail)
            _exit(fault_at(p, &e) < 0 ? 40 : 30);
        fault_here(p);
        _exit(30);
    }
    ASSERT_EQ(waitpid(pid, &ws, 0), pid);
    return WIFSIGNALED(ws) ? -WTERMSIG(ws) : WEXITSTATUS(ws);
}

TEST(it_dies_as_if_it_was_killed)
{
    ASSERT_EQ(in_child("create.row", true, FAULT_CREATE_ROW, true), -SIGKILL);
    ASSERT_EQ(in_child("create.answer", true, FAULT_CREATE_ANSWER, false), -SIGKILL);
    ASSERT_EQ(in_child("create.row=EIO", true, FAULT_CREATE_ROW, true), 40);
    ASSERT_EQ(in_child("", true, FAULT_CREATE_ROW, true), 30);
}

TEST(where_nothing_can_fail_an_errno_is_a_mistake_of_the_test)
{
    ASSERT_EQ(in_child("create.answer=EIO", true, FAULT_CREATE_ANSWER, false), -SIGABRT);
}

TEST(points_count_from_when_it_serves_unless_from_the_start)
{
    ASSERT_EQ(in_child("create.row", false, FAULT_CREATE_ROW, true), 30);
    ASSERT_EQ(in_child("create.row@start", false, FAULT_CREATE_ROW, true), -SIGKILL);
    ASSERT_EQ(in_child("create.row=EIO@start", false, FAULT_CREATE_ROW, true), 40);
}

TEST(a_mistake_in_the_environment_ends_it)
{
    ASSERT_EQ(in_child("create.rwo", true, FAULT_CREATE_ROW, true), 2);
}
