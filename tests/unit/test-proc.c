/* SPDX-License-Identifier: MIT */
#include "common/proc.h"
#include "common/auto.h"
#include "common/io.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int run(const char *script, int64_t ms, size_t max, char **out, struct err *e)
{
    const char *const argv[] = { "sh", "-c", script, NULL };

    return proc_run(argv, deadline_in(ms), max, out, e);
}

TEST(output_is_taken_up_to_a_limit)
{
    struct err e = ERR_INIT;
    char *out = NULL;
    int fds = test_count_fds();

    ASSERT_OK(run("printf 'a b'; printf err >&2", 9000, 100, &out, &e), e);
    ASSERT_STREQ(out, "a b");
    free(take_ptr(out));
    ASSERT_OK(run("true", 9000, 100, &out, &e), e);
    ASSERT_STREQ(out, "");
    free(take_ptr(out));
    ASSERT_OK(run("printf 0123456789", 9000, 4, &out, &e), e);
    ASSERT_STREQ(out, "0123");
    free(take_ptr(out));
    /* far more than a pipe holds, on both */
    ASSERT_OK(run("head -c 1000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero >&2", 20000,
                  2000000, &out, &e), e);
    ASSERT_EQ(strlen(out), 1000000);
    free(take_ptr(out));
    ASSERT_OK(run("echo gone", 9000, 10, NULL, &e), e);
    ASSERT_EQ(test_count_fds(), fds);
}

TEST(failures_say_why)
{
    struct err e = ERR_INIT;
    char *out = NULL;
    int fds = test_count_fds();

    ASSERT_ERR(run("echo first >&2; echo 'the reason' >&2; exit 3", 9000, 9, &out, &e), e,
               ERR_INTERNAL);
    ASSERT_STREQ(e.msg, "sh failed with status 3: the reason");
    ASSERT_ERR(run("head -c 9000 /dev/zero | tr '\\0' x >&2; echo >&2; printf 'last\\n\\n' >&2;"
                   "kill -9 $$", 9000, 9, &out, &e), e, ERR_INTERNAL);
    ASSERT_STREQ(e.msg, "sh was killed by signal 9: last");
    ASSERT_ERR(run("exit 1", 9000, 9, &out, &e), e, ERR_INTERNAL);
    ASSERT_STREQ(e.msg, "sh failed with status 1");
    ASSERT_ERR(run("head -c 9000 /dev/zero >/dev/full", 9000, 9, &out, &e), e, ERR_NO_SPACE);
    ASSERT_CONTAINS(e.msg, "no space left on the device: sh failed: ");
    ASSERT_NULL(out);
    ASSERT_EQ(test_count_fds(), fds);
}

TEST(programs_that_cannot_be_run)
{
    static const char *const none[] = { "no-such-program-here", NULL };
    static const char *const path[] = { "/no/such/program", NULL };
    static const char *const relative[] = { "./sh", NULL }, *const empty[] = { "", NULL };
    const char *const dir[] = { test_dir(), NULL };
    struct err e = ERR_INIT;
    int fds = test_count_fds();

    ASSERT_ERR(proc_run(none, deadline_in(5000), 1, NULL, &e), e, ERR_UNAVAILABLE);
    ASSERT_CONTAINS(e.hint, "no-such-program-here");
    ASSERT_ERR(proc_run(path, deadline_in(5000), 1, NULL, &e), e, ERR_UNAVAILABLE);
    ASSERT_EQ(e.sys, ENOENT);
    ASSERT_ERR(proc_run(dir, deadline_in(5000), 1, NULL, &e), e, ERR_UNAVAILABLE);
    ASSERT_EQ(e.sys, EACCES);
    ASSERT_ERR(proc_run(relative, deadline_in(5000), 1, NULL, &e), e, ERR_INTERNAL);
    ASSERT_ERR(proc_run(empty, deadline_in(5000), 1, NULL, &e), e, ERR_INTERNAL);
    ASSERT_EQ(test_count_fds(), fds);
    ASSERT_EQ(waitpid(-1, NULL, WNOHANG), -1);      /* and no child is left */
}

TEST(the_path_of_the_caller_is_not_searched)
{
    struct err e = ERR_INIT;
    static const char *const argv[] = { "only-in-path", NULL };

    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("only-in-path"), "#!/bin/sh\n", 10, 0755, &e),
              e);
    setenv("PATH", test_dir(), 1);
    ASSERT_ERR(proc_run(argv, deadline_in(5000), 1, NULL, &e), e, ERR_UNAVAILABLE);
}

TEST(what_does_not_want_to_end_is_killed_with_its_children)
{
    struct err e = ERR_INIT;
    int64_t before = now_mono_ms();
    autofree char *script = NULL;
    autofree char *text = NULL;

    ASSERT_GT(asprintf(&script, "trap '' TERM HUP INT; (trap '' TERM HUP; sleep 60) & echo $! > %s;"
                       "wait; sleep 60", test_path("pid")), 0);
    ASSERT_ERR(run(script, 700, 10, NULL, &e), e, ERR_TIMEOUT);
    ASSERT_LT(now_mono_ms() - before, 10000);
    ASSERT_EQ(waitpid(-1, NULL, WNOHANG), -1);
    ASSERT_OK(io_read_file_at(AT_FDCWD, test_path("pid"), 20, &text, NULL, &e), e);
    pid_t child = (pid_t)strtoul(text, NULL, 10);
    ASSERT_GT(child, 1);
    bool gone = false;
    for (int i = 0; i < 300 && !gone; i++) {        /* or a zombie of whoever adopts it */
        char stat_path[40];
        autofree char *stat = NULL;
        struct err none = ERR_INIT;

        snprintf(stat_path, sizeof(stat_path), "/proc/%d/stat", (int)child);
        gone = io_read_file_at(AT_FDCWD, stat_path, 4096, &stat, NULL, &none) < 0 ||
               strstr(stat, ") Z ");
        usleep(10000);
    }
    ASSERT_TRUE(gone);
}

TEST(a_grandchild_with_the_pipe_is_not_waited_for)
{
    struct err e = ERR_INIT;
    int64_t before = now_mono_ms();
    autofree char *out = NULL;

    ASSERT_OK(run("echo done; sleep 5 & exit 0", 20000, 100, &out, &e), e);
    ASSERT_STREQ(out, "done\n");
    ASSERT_LT(now_mono_ms() - before, 4500);
}

TEST(the_child_starts_clean)
{
    struct err e = ERR_INIT;
    autofree char *out = NULL;
    sigset_t set;

    setenv("SECRET", "x", 1);
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    sigfillset(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int leak = ASSERT_SYS(open("/dev/null", O_RDONLY));     /* not close-on-exec */
    ASSERT_SYS(dup2(leak, 77));
    ASSERT_OK(run("env | grep -c SECRET; echo $PATH $LC_ALL $HOME; umask;"
                  "grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2;"
                  "[ -e /proc/self/fd/77 ] && echo leaked; cat; true", 9000, 4000, &out, &e), e);
    ASSERT_STREQ(out, "0\n/usr/sbin:/usr/bin:/sbin:/bin C.UTF-8 /\n0022\n"
                      "0000000000000000\n0000000000000000\n");
}

static int fail_to_prepare(void *arg)
{
    return *(int *)arg;
}

TEST(spawn_gives_what_is_listed_and_nothing_else)
{
    struct err e = ERR_INIT;
    int p[2], keep = ASSERT_SYS(open("/dev/null", O_RDONLY | O_CLOEXEC)), zero = 0, perm = EPERM;
    char text[64] = "";
    static const char *const env[] = { "ONE=1", NULL };
    autofree char *script = NULL;
    pid_t pid = 0;
    int pidfd = -1, status = -1, fds;

    ASSERT_SYS(pipe2(p, O_CLOEXEC));
    ASSERT_GT(asprintf(&script, "[ -e /proc/self/fd/%d ] && printf 'kept $ONE '; "
                       "printf \"$ONE $PPID\"; exit 5", keep), 0);
    const char *const argv[] = { "/bin/sh", "-c", script, NULL };
    struct proc_spec spec = { .argv = argv, .env = env, .stdin_fd = -1, .stdout_fd = p[1],
                              .stderr_fd = -1, .keep_fds = &keep, .n_keep_fds = 1,
                              .prepare = fail_to_prepare, .prepare_arg = &zero };
    fds = test_count_fds();
    ASSERT_OK(proc_spawn(&spec, &pid, &pidfd, &e), e);
    ASSERT_EQ(proc_wait(pid, pidfd, deadline_in(9000), &status, &e), 1);
    ASSERT_TRUE(WIFEXITED(status));
    ASSERT_EQ(WEXITSTATUS(status), 5);
    ASSERT_GT(read(p[0], text, sizeof(text) - 1), 0);
    ASSERT_CONTAINS(text, "kept $ONE 1 ");
    ASSERT_EQ(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
    ASSERT_EQ(fcntl(keep, F_GETFD), FD_CLOEXEC);    /* ours is as it was */
    close(pidfd);
    spec.prepare_arg = &perm;
    ASSERT_ERR(proc_spawn(&spec, &pid, NULL, &e), e, ERR_INTERNAL);
    ASSERT_EQ(e.sys, EPERM);
    ASSERT_EQ(waitpid(-1, NULL, WNOHANG), -1);
    ASSERT_EQ(test_count_fds(), fds);
}

TEST(waiting_has_a_deadline)
{
    static const char *const argv[] = { "sleep", "30", NULL };
    struct proc_spec spec = { .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 };
    struct err e = ERR_INIT;
    int fds = test_count_fds(), status = 0;
    pid_t pid = 0;

    ASSERT_OK(proc_spawn(&spec, &pid, NULL, &e), e);
    ASSERT_EQ(proc_wait(pid, -1, deadline_in(50), &status, &e), 0);
    ASSERT_SYS(kill(pid, SIGTERM));
    ASSERT_EQ(proc_wait(pid, -1, deadline_in(9000), &status, &e), 1);
    ASSERT_TRUE(WIFSIGNALED(status));
    ASSERT_EQ(WTERMSIG(status), SIGTERM);
    ASSERT_EQ(test_count_fds(), fds);
}

/* With 0, 1 and 2 closed here, what is made has these numbers. */
TEST(low_descriptors_may_be_free)
{
    struct err e = ERR_INIT;
    autofree char *out = NULL;
    int saved[3];

    for (int i = 0; i < 3; i++) {
        saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
        close(i);
    }
    int r = run("echo out; echo err >&2; read x; echo $?", 9000, 100, &out, &e);
    for (int i = 0; i < 3; i++)
        dup2(saved[i], i);
    ASSERT_OK(r, e);
    ASSERT_STREQ(out, "out\n1\n");
}
