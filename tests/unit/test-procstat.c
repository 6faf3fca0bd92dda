/* SPDX-License-Identifier: MIT
 *
 * What processes use, of processes that use it.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "daemon/procstat.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANY ((uid_t)-1)

/* A child that has done `fn` and waits. */
static pid_t child(void (*fn)(void))
{
    int fd[2];
    char c;

    ASSERT_EQ(pipe(fd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        fn();
        (void)!write(fd[1], "x", 1);
        for (;;)
            pause();
    }
    ASSERT_EQ(read(fd[0], &c, 1), 1);
    close(fd[0]);
    close(fd[1]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void burn(void)
{
    struct timespec t;

    do
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    while (t.tv_sec == 0 && t.tv_nsec < 300000000);
}

static void fill(size_t size, int flags, int fd)
{
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

    if (p != MAP_FAILED)
        memset(p, 1, size);
}

static void take_memory(void)
{
    fill(32 * MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void take_guest_memory(void)
{
    int fd = memfd_create("guest", 0);

    if (ftruncate(fd, (off_t)(32 * MIB)) == 0)
        fill(32 * MIB, MAP_SHARED, fd);
}

static void *sleep_on(void *arg)
{
    for (;;)
        pause();
    return arg;
}

static void start_threads(void)
{
    pthread_t t;

    for (int i = 0; i < 3; i++)
        pthread_create(&t, NULL, sleep_on, NULL);
}

static void be_called_anything(void)
{
    prctl(PR_SET_NAME, ") R 1 2 (3) ");
}

static void nothing(void)
{
}

static void have_a_child(void)
{
    pid_t parent = getpid();

    if (child(burn) > 0 && getpid() == parent)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static struct proc_use use_of(pid_t pid)
{
    struct proc_use u = { 0 };

    ASSERT_TRUE(procstat_add(pid, ANY, 0, true, &u));
    return u;
}

TEST(processor_time_is_seen)
{
    pid_t idle = child(nothing), busy = child(burn);
    struct proc_use a = use_of(idle), b = use_of(busy);

    ASSERT_TRUE(a.cpu_us < 250000);
    ASSERT_TRUE(b.cpu_us >= 250000);
    ASSERT_TRUE(b.cpu_us < 30000000);
    ASSERT_EQ(a.processes, 1);
    ASSERT_EQ(a.threads, 1);
    end(idle);
    end(busy);
}

TEST(memory_is_seen_and_a_guests_is_told_apart)
{
    pid_t idle = child(nothing), own = child(take_memory), guest = child(take_guest_memory);
    struct proc_use a = use_of(idle), b = use_of(own), c = use_of(guest);

    ASSERT_TRUE(b.rss >= a.rss + 30 * MIB);
    ASSERT_TRUE(b.own >= a.own + 30 * MIB);
    ASSERT_TRUE(b.pss >= a.pss + 30 * MIB);
    ASSERT_TRUE(c.rss >= a.rss + 30 * MIB);
    ASSERT_TRUE(c.own < a.own + 16 * MIB);
    ASSERT_TRUE(a.pss > 0);
    struct proc_use quick = { 0 };
    ASSERT_TRUE(procstat_add(own, ANY, 0, false, &quick));
    ASSERT_EQ(quick.pss, 0);
    end(idle);
    end(own);
    end(guest);
}

TEST(threads_and_children_count)
{
    pid_t many = child(start_threads), family = child(have_a_child);
    struct proc_use a = use_of(many), b = use_of(family);

    ASSERT_EQ(a.threads, 4);
    ASSERT_EQ(a.processes, 1);
    ASSERT_EQ(b.processes, 2);
    ASSERT_TRUE(b.cpu_us >= 250000);
    end(many);
    /* its child would outlive it */
    char path[64];
    autofree char *text = NULL;
    struct err e = ERR_INIT;
    size_t len;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)family, (int)family);
    ASSERT_OK(io_read_file_at(AT_FDCWD, path, 100, &text, &len, &e), e);
    kill((pid_t)atoi(text), SIGKILL);
    end(family);
}

TEST(a_name_cannot_move_the_fields)
{
    pid_t pid = child(be_called_anything);
    struct proc_use u = use_of(pid);

    ASSERT_EQ(u.threads, 1);
    ASSERT_TRUE(u.cpu_us < 250000);
    end(pid);
}

TEST(another_process_of_that_number_is_not_counted)
{
    pid_t pid = child(nothing);
    struct proc_use u = { 0 };

    ASSERT_FALSE(procstat_add(pid, getuid() + 1, 0, false, &u));
    ASSERT_FALSE(procstat_add(pid, ANY, 1, false, &u));
    ASSERT_TRUE(procstat_add(pid, getuid(), 0, false, &u));
    ASSERT_EQ(u.processes, 1);
    end(pid);
    struct proc_use none = { 0 };
    ASSERT_FALSE(procstat_add(pid, ANY, 0, false, &none));
    ASSERT_FALSE(procstat_add(0, ANY, 0, false, &none));
    ASSERT_EQ(none.processes, 0);
    ASSERT_EQ(none.rss, 0);
}
