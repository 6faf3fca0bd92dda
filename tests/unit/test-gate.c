/* SPDX-License-Identifier: MIT
 *
 * Who gets a connection when there are few: no descriptor left, all of them somebody's, a user who
 * floods. What is counted is answers of the others, and how long they wait for them.
 */
#include "common/auto.h"
#include "common/limits.h"
#include "common/log.h"
#include "tests/fakes/httpworld.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define GREEDY 65534
#define MODEST 65533
#define THIRD 65532

static void open_to_all(void)
{
    SKIP_IF(getuid() != 0, "needs root to become somebody else");
    ASSERT_SYS(chmod(test_dir(), 0755));
    ASSERT_SYS(chmod(test_path("s"), 0666));
}

/* --- no descriptor --- */

/* Sockets for later: connecting one needs no new descriptor here, accepting it does. */
static int unconnected(void)
{
    return ASSERT_SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static rlim_t set_files(rlim_t n)
{
    struct rlimit r;

    ASSERT_SYS(getrlimit(RLIMIT_NOFILE, &r));
    rlim_t was = r.rlim_cur;
    r.rlim_cur = n;
    ASSERT_SYS(setrlimit(RLIMIT_NOFILE, &r));
    return was;
}

static int count_lines(const char *name, const char *what)
{
    autofree char *text = NULL;
    struct err e = ERR_INIT;
    size_t len = 0;
    int n = 0;

    ASSERT_OK(io_read_file_at(AT_FDCWD, test_path(name), MIB, &text, &len, &e), e);
    for (const char *p = text; (p = strstr(p, what)); p++)
        n++;
    return n;
}

/* A request is over for its client before the server has closed its end. */
static void settle(int fds)
{
    for (int64_t end = deadline_in(WAIT_MS); test_count_fds() != fds; usleep(1000))
        if (now_mono_ms() > end)
            FAIL("%d descriptors, %d before", test_count_fds(), fds);
}

TEST(without_a_descriptor_one_is_told_so_and_it_goes_on_afterwards)
{
    enum { N = 40, ALL = 256 };
    int fd[N];
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    int log = ASSERT_SYS(open(test_path("log"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    start();
    int fds = test_count_fds();
    still_serves();
    settle(fds);
    log_set_level(LOG_WARNING);
    ASSERT_SYS(dup2(log, STDERR_FILENO));
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", test_path("s"));
    for (int i = 0; i < N; i++)
        fd[i] = unconnected();
    rlim_t was = set_files(ALL);
    while (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0)
        continue;
    for (int i = 0; i < N; i++) {
        ASSERT_SYS(connect(fd[i], (struct sockaddr *)&a, sizeof(a)));
        read_all(fd[i]);
        ASSERT_REFUSED(503, "unavailable");
        ASSERT_CONTAINS(answer, "cannot take more connections now");
    }
    set_files(was);     /* as good as closing some */
    log_set_level(LOG_EMERG);
    ASSERT_EQ(count_lines("log", "connections were refused"), 1);
    for (int i = 0; i < N; i++) {
        still_serves();
        close(fd[i]);
    }
    stop();
}

/* Where even the reserve does not help, nobody is refused and nothing is burnt: who waits in the
 * queue is taken when there is a descriptor again. A thread that spins has used up half a second of
 * the processor in these one and a half; one that does not, a few milliseconds. */
TEST(a_door_that_cannot_be_opened_is_no_reason_to_spin)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct rusage before, after;
    static const char text[] = "GET /echo HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n";

    start();
    int fds = test_count_fds();
    still_serves();
    settle(fds);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", test_path("s"));
    int fd = unconnected();
    rlim_t was = set_files(3);      /* those that are open stay open, but no number is free */
    ASSERT_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
    say(fd, text, strlen(text));
    ASSERT_SYS(getrusage(RUSAGE_SELF, &before));
    ASSERT_EQ(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 1500), 0);
    ASSERT_SYS(getrusage(RUSAGE_SELF, &after));
    int64_t us = (after.ru_utime.tv_sec - before.ru_utime.tv_sec +
                  after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000LL +
                 after.ru_utime.tv_usec - before.ru_utime.tv_usec +
                 after.ru_stime.tv_usec - before.ru_stime.tv_usec;
    ASSERT_LT(us, 100000);
    set_files(was);
    read_all(fd);
    ASSERT_STATUS(200);
    close(fd);
    still_serves();
    stop();
}

/* --- all of them somebody's --- */

/* As `uid`, until the first that is refused: how many were not. */
static int take_all(uid_t uid, int *fd, int max, int status_wanted)
{
    static const char text[] = "GET /echo HTTP/1.1\r\nHost:\r\n\r\n";
    int n = 0;

    test_become(uid);
    for (; n < max; n++) {
        fd[n] = dial();
        say(fd[n], text, strlen(text));
        read_until(fd[n], "\r\n\r\n");
        if (status() != 200)
            break;
    }
    test_become(0);
    ASSERT_STATUS(status_wanted);
    close(fd[n]);
    return n;
}

TEST_LIMIT(of_the_last_quarter_nobody_takes_more_than_is_left, 120)
{
    static int greedy[LIMIT_CONNECTIONS + 1], modest[LIMIT_CONNECTIONS + 1];

    connections = LIMIT_CONNECTIONS;        /* a limit that would let one have all */
    requests = LIMIT_CONNECTIONS;
    start();
    open_to_all();
    int n = take_all(GREEDY, greedy, LIMIT_CONNECTIONS, 503);
    ASSERT_CONTAINS(answer, "and you many of them");
    ASSERT_EQ(n, LIMIT_CONNECTIONS / 4 * 3);
    int m = take_all(MODEST, modest, LIMIT_CONNECTIONS, 503);
    ASSERT_EQ(m, LIMIT_CONNECTIONS / 8);
    test_become(THIRD);
    still_serves();
    test_become(0);
    still_serves();
    for (int i = 0; i < m; i++)
        close(modest[i]);
    for (int i = 0; i < n; i++)
        close(greedy[i]);
    stop();
}

/* --- a flood --- */

static atomic_bool over;
static atomic_int n_turned_away, n_rounds;

/* Connections that say little and slowly, and as many more as it can open. */
static void *flood(void *arg)
{
    enum { IDLE = 1000 };
    static int idle[IDLE];

    test_become(GREEDY);
    for (int i = 0; i < IDLE; i++) {
        idle[i] = dial();
        say(idle[i], "GET /ec", 7);
    }
    while (!atomic_load(&over)) {
        for (int i = 0; i < IDLE; i++) {
            char byte;
            say(idle[i], "h", 1);
            ssize_t r = recv(idle[i], &byte, 1, MSG_DONTWAIT);
            if (r == 0 || (r < 0 && errno != EAGAIN) || r == 1) {
                atomic_fetch_add(&n_turned_away, 1);
                close(idle[i]);
                idle[i] = dial();
            }
        }
        atomic_fetch_add(&n_rounds, 1);
    }
    for (int i = 0; i < IDLE; i++)
        close(idle[i]);
    test_become(0);
    return NULL;
}

/* What the others wait for an answer, in microseconds. */
struct waits { int64_t median, most; };     /* most: 99 of 100 wait no longer */

static int64_t now_us(void)
{
    struct timespec t;

    ASSERT_SYS(clock_gettime(CLOCK_MONOTONIC, &t));
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static struct waits ask_often(const char *when)
{
    enum { N = 300 };
    int64_t us[N];

    test_become(MODEST);
    for (int i = 0; i < N; i++) {
        int64_t began = now_us();
        request("GET /echo", "", NULL);
        us[i] = now_us() - began;
        ASSERT_STATUS(200);
    }
    test_become(0);
    qsort(us, N, sizeof(us[0]), by_size);
    struct waits w = { us[N / 2], us[N / 100 * 99] };
    printf("# %s: median %lld us, 99 of 100 within %lld us, all within %lld us\n", when,
           (long long)w.median, (long long)w.most, (long long)us[N - 1]);
    return w;
}

TEST_LIMIT(a_thousand_slow_connections_and_a_flood_cost_the_others_neither_answer_nor_time, 120)
{
    pthread_t t;

    start();
    open_to_all();
    struct rlimit r;
    ASSERT_SYS(getrlimit(RLIMIT_NOFILE, &r));
    SKIP_IF(r.rlim_max < 4096, "needs 4096 descriptors");
    set_files(4096);
    struct waits calm = ask_often("calm");
    ASSERT_EQ(pthread_create(&t, NULL, flood, NULL), 0);
    for (int64_t end = deadline_in(60000); !atomic_load(&n_rounds); usleep(1000))
        if (now_mono_ms() > end)
            FAIL("the flood does not begin");
    struct waits attacked = ask_often("attacked");
    if (!test_sanitized()) {
        int64_t most = 20 * calm.median;
        ASSERT_LE(attacked.median, most > 50000 ? most : 50000);
        ASSERT_LE(attacked.most, 500000);
    }
    /* the flood met its limit, more than once, while the others had theirs */
    ASSERT_GT(atomic_load(&n_turned_away), 700);
    atomic_store(&over, true);
    pthread_join(t, NULL);
    still_serves();
    stop();
}
