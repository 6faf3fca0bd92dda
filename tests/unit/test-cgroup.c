/* SPDX-License-Identifier: MIT
 *
 * Control groups of the kernel this runs on. They have to be of version 2, and ours to change: a
 * test of tests/vm runs this program as root of a guest, where they are.
 */
#include "daemon/cgroup.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME "sandboxd-test"
#define ONE "00000000000000a1"
#define TWO "00000000000000a2"

static struct err e;

static struct cgroups *open_groups(void)
{
    struct cgroups *c = NULL;

    if (cgroup_open(CGROUP_MOUNT "/" NAME, &c, &e) < 0) {
        bool required = getenv("SBX_TEST_CGROUP") != NULL;
        if (required)
            FAIL("%s", e.msg);
        SKIP_IF(!required, "no control groups of version 2 to change");
    }
    return c;
}

static void done(struct cgroups *c)
{
    cgroup_close(c);
    rmdir(CGROUP_MOUNT "/" NAME);
}

/* What a file of a group says, without its newline. */
static const char *says(const char *id, const char *file)
{
    static char text[256];
    char path[256];
    char *data = NULL;
    size_t len = 0;

    snprintf(path, sizeof(path), CGROUP_MOUNT "/" NAME "/%s/%s", id, file);
    ASSERT_OK(io_read_file_at(AT_FDCWD, path, sizeof(text) - 1, &data, &len, &e), e);
    snprintf(text, sizeof(text), "%.*s", (int)strcspn(data, "\n"), data);
    free(data);
    return text;
}

static const struct cgroup_limits limits = { .cpu_weight = 50, .memory_max = 64 * MIB,
                                             .pids_max = 5 };

TEST(a_group_has_its_limits_and_is_made_once)
{
    struct cgroups *c = open_groups();
    struct cgroup_limits other = limits;

    ASSERT_OK(cgroup_make(c, ONE, &limits, &e), e);
    ASSERT_STREQ(says(ONE, "cpu.weight"), "50");
    ASSERT_STREQ(says(ONE, "memory.max"), "67108864");
    ASSERT_STREQ(says(ONE, "pids.max"), "5");
    other.pids_max = 6;
    ASSERT_OK(cgroup_make(c, ONE, &other, &e), e);
    ASSERT_STREQ(says(ONE, "pids.max"), "6");
    ASSERT_OK(cgroup_drop(c, ONE, &e), e);
    ASSERT_OK(cgroup_drop(c, ONE, &e), e);      /* not there is success */
    ASSERT_ERR(cgroup_enter(c, ONE, getpid(), &e), e, ERR_UNAVAILABLE);
    e = ERR_INIT;
    ASSERT_ERR(cgroup_make(c, "../evil", &limits, &e), e, ERR_INTERNAL);
    done(c);
}

static void note_id(void *arg, const char *id)
{
    sbuf_fmt(arg, "%s ", id);
}

TEST(groups_are_found_by_who_comes_later)
{
    struct cgroups *c = open_groups();
    autosbuf struct sbuf seen = SBUF(100);

    ASSERT_OK(cgroup_make(c, ONE, &limits, &e), e);
    cgroup_close(c);
    c = open_groups();
    ASSERT_OK(cgroup_list(c, note_id, &seen, &e), e);
    ASSERT_STREQ(sbuf_str(&seen), ONE " ");
    ASSERT_OK(cgroup_drop(c, ONE, &e), e);
    done(c);
}

/* A child that enters ONE and then does `fn`; its wait status. */
static int child_in(struct cgroups *c, int (*fn)(void))
{
    int pipes[2], status;

    ASSERT_EQ(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char go;
        _exit(read(pipes[0], &go, 1) == 1 ? fn() : 99);
    }
    ASSERT_OK(cgroup_enter(c, ONE, pid, &e), e);
    ASSERT_EQ(write(pipes[1], "g", 1), 1);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    close(pipes[0]);
    close(pipes[1]);
    return status;
}

static int eat(void)
{
    size_t size = 256 * MIB;
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    for (size_t i = 0; p != MAP_FAILED && i < size; i += 4096)
        p[i] = 1;
    return 0;
}

/* How many children it can have at once. */
static int breed(void)
{
    pid_t kids[20];
    int n = 0;

    while (n < 20 && (kids[n] = fork()) >= 0) {
        if (kids[n] == 0) {
            pause();
            _exit(0);
        }
        n++;
    }
    for (int i = 0; i < n; i++) {
        kill(kids[i], SIGKILL);
        waitpid(kids[i], NULL, 0);
    }
    return n;
}

TEST(memory_beyond_the_limit_ends_it)
{
    struct cgroups *c = open_groups();

    ASSERT_OK(cgroup_make(c, ONE, &limits, &e), e);
    char path[] = CGROUP_MOUNT "/" NAME "/" ONE "/memory.swap.max";
    int swap = open(path, O_WRONLY | O_CLOEXEC);    /* not there without swap */
    if (swap >= 0)
        ASSERT_EQ(write(swap, "0", 1), 1);
    fd_close(swap);
    int status = child_in(c, eat);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ASSERT_OK(cgroup_drop(c, ONE, &e), e);
    done(c);
}

TEST(processes_beyond_the_limit_are_refused)
{
    struct cgroups *c = open_groups();

    ASSERT_OK(cgroup_make(c, ONE, &limits, &e), e);
    int status = child_in(c, breed);
    ASSERT_TRUE(WIFEXITED(status));
    ASSERT_EQ(WEXITSTATUS(status), 4);      /* and itself */
    ASSERT_OK(cgroup_drop(c, ONE, &e), e);
    done(c);
}

TEST(what_is_left_in_a_group_ends_with_it)
{
    struct cgroups *c = open_groups();
    int status;

    ASSERT_OK(cgroup_make(c, ONE, &limits, &e), e);
    ASSERT_OK(cgroup_make(c, TWO, &limits, &e), e);
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    ASSERT_OK(cgroup_enter(c, ONE, pid, &e), e);
    ASSERT_OK(cgroup_drop(c, TWO, &e), e);
    ASSERT_EQ(waitpid(pid, &status, WNOHANG), 0);
    ASSERT_OK(cgroup_drop(c, ONE, &e), e);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    done(c);
}

/* "0::/sandboxd-test/...": the group that this process is in. */
static const char *own(void)
{
    static char text[LIMIT_PATH];
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);

    ASSERT_OK(cgroup_self(&path, &e), e);
    snprintf(text, sizeof(text), "%s", sbuf_str(&path));
    return text;
}

TEST(children_go_with_the_one_that_is_moved)
{
    struct cgroups *c = open_groups();
    int say[2], go[2], status;
    char seen = 0;

    ASSERT_OK(cgroup_make(c, ONE, &limits, &e), e);
    ASSERT_EQ(pipe(say), 0);
    ASSERT_EQ(pipe(go), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (fork() == 0) {      /* as virtiofsd does: there before its parent is moved */
            bool in = write(say[1], "r", 1) == 1 && read(go[0], &seen, 1) == 1 &&
                      strcmp(own(), CGROUP_MOUNT "/" NAME "/" ONE) == 0;
            _exit(in ? 0 : 1);
        }
        wait(&status);
        _exit(WEXITSTATUS(status));
    }
    ASSERT_EQ(read(say[0], &seen, 1), 1);
    ASSERT_OK(cgroup_enter(c, ONE, pid, &e), e);
    ASSERT_EQ(write(go[1], "g", 1), 1);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(WEXITSTATUS(status), 0);
    /* it has ended: no error, as it needs no limits any more */
    ASSERT_OK(cgroup_enter(c, ONE, pid, &e), e);
    ASSERT_OK(cgroup_drop(c, ONE, &e), e);
    done(c);
}

TEST(who_keeps_a_group_is_no_process_in_it)
{
    struct cgroups *c = open_groups();
    int status;

    ASSERT_OK(cgroup_make(c, ONE, &limits, &e), e);
    int fd = cgroup_fd(c, ONE, &e);
    ASSERT_GE(fd, 0);
    pid_t pid = fork();
    if (pid == 0) {
        bool aside = cgroup_step_aside(CGROUP_MOUNT "/" NAME "/" ONE, &e) == 0 &&
                     strcmp(own(), CGROUP_MOUNT "/" NAME "/" ONE "/keeper") == 0;
        _exit(aside ? 0 : 1);
    }
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(WEXITSTATUS(status), 0);
    ASSERT_EQ(unlinkat(fd, "keeper", AT_REMOVEDIR), 0);
    close(fd);
    ASSERT_OK(cgroup_drop(c, ONE, &e), e);
    done(c);
}

TEST(where_there_are_none_the_reason_is_said)
{
    struct cgroups *c = NULL;

    ASSERT_ERR(cgroup_open("/proc/" NAME, &c, &e), e, ERR_UNAVAILABLE);
    ASSERT_CONTAINS(e.msg, "no control groups of version 2");
    e = ERR_INIT;
    ASSERT_ERR(cgroup_open("/nowhere/" NAME, &c, &e), e, ERR_UNAVAILABLE);
    ASSERT_NULL(c);
}
