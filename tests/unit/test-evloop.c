/* SPDX-License-Identifier: MIT */
#include "common/io.h"
#include "daemon/evloop.h"
#include "tests/harness/test.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void nap(int ms)
{
    struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
    nanosleep(&ts, NULL);
}

struct box {
    struct evloop *loop;
    struct evsource *src;
    int fd;
    int done_fd; /* eventfd: counts what happened */
    int calls;
    int order[8];
    int hold_ms; /* a callback takes so long */
    int inside;
    bool self;
};

static void tell(struct box *b)
{
    uint64_t one = 1;
    ASSERT_EQ(write(b->done_fd, &one, sizeof(one)), 8);
}

static bool told(struct box *b, int ms)
{
    struct err e = ERR_INIT;
    uint64_t n;
    if (io_wait(b->done_fd, 1 /* POLLIN */, deadline_in(ms), &e) != 1)
        return false;
    return read(b->done_fd, &n, sizeof(n)) == 8;
}

static struct box make(void)
{
    struct err e = ERR_INIT;
    struct box b = { .fd = -1 };
    ASSERT_EQ(evloop_new(&b.loop, &e), 0);
    b.done_fd = eventfd(0, EFD_CLOEXEC);
    b.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return b;
}

static void drop(struct box *b)
{
    evloop_free(b->loop);
    close(b->done_fd);
    close(b->fd);
}

static void on_read(void *arg, uint32_t events)
{
    struct box *b = arg;
    uint64_t n;
    if (read(b->fd, &n, sizeof(n)) == 8) {
        b->calls++;
        b->self = evloop_is_self(b->loop);
    }
    tell(b);
}

TEST(fd_events_reach_the_callback_on_the_event_thread)
{
    struct err e = ERR_INIT;
    struct box b = make();
    uint64_t one = 1;
    ASSERT_EQ(evloop_add_fd(b.loop, b.fd, EPOLLIN, on_read, &b, &b.src, &e), 0);
    ASSERT_TRUE(!evloop_is_self(b.loop));
    ASSERT_EQ(write(b.fd, &one, 8), 8);
    ASSERT_TRUE(told(&b, 5000));
    evloop_remove(b.src);
    ASSERT_EQ(b.calls, 1);
    ASSERT_TRUE(b.self);
    drop(&b);
}

TEST(no_events_means_no_call_not_even_for_hangup)
{
    struct err e = ERR_INIT;
    struct box b = make();
    int pair[2];
    close(b.fd);
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    b.fd = pair[0];
    ASSERT_EQ(evloop_add_fd(b.loop, b.fd, EPOLLIN, on_read, &b, &b.src, &e), 0);
    evloop_set_events(b.src, 0);
    close(pair[1]);
    ASSERT_TRUE(!told(&b, 100));
    evloop_set_events(b.src, EPOLLIN);
    ASSERT_TRUE(told(&b, 5000));
    evloop_remove(b.src);
    drop(&b);
}

TEST(a_bad_descriptor_is_an_error)
{
    struct err e = ERR_INIT;
    struct box b = make();
    struct evsource *s = NULL;
    ASSERT_EQ(evloop_add_fd(b.loop, 9999, EPOLLIN, on_read, &b, &s, &e), -1);
    ASSERT_EQ(e.code, ERR_INTERNAL);
    ASSERT_TRUE(s == NULL);
    evloop_remove(NULL);
    drop(&b);
}

struct tick {
    struct box *box;
    int number;
};

static void on_tick(void *arg)
{
    struct tick *t = arg;
    struct box *b = t->box;
    if (b->calls < 8)
        b->order[b->calls] = t->number;
    b->calls++;
    tell(b);
}

TEST(timers_fire_in_order_and_once)
{
    struct err e = ERR_INIT;
    struct box b = make();
    static const int ms[] = { 90, 30, 60, 5, 120 };
    struct tick t[5];
    struct evsource *s[5];
    for (int i = 0; i < 5; i++) {
        t[i] = (struct tick){ .box = &b, .number = ms[i] };
        ASSERT_EQ(evloop_add_timer(b.loop, ms[i] * 3, on_tick, &t[i], &s[i], &e), 0);
    }
    evloop_timer_set(s[0], -1); /* disarmed: 90 never comes */
    nap(600);
    for (int i = 0; i < 5; i++)
        evloop_remove(s[i]);
    ASSERT_EQ(b.calls, 4);
    ASSERT_EQ(b.order[0], 5);
    ASSERT_EQ(b.order[1], 30);
    ASSERT_EQ(b.order[2], 60);
    ASSERT_EQ(b.order[3], 120);
    drop(&b);
}

TEST(an_earlier_timer_wakes_the_sleeping_loop)
{
    struct err e = ERR_INIT;
    struct box b = make();
    struct tick t = { .box = &b, .number = 1 };
    struct evsource *s;
    ASSERT_EQ(evloop_add_timer(b.loop, 60000, on_tick, &t, &s, &e), 0);
    nap(20);
    int64_t before = now_mono_ms();
    evloop_timer_set(s, 20);
    ASSERT_TRUE(told(&b, 5000));
    ASSERT_TRUE(now_mono_ms() - before >= 19);
    evloop_remove(s);
    drop(&b);
}

TEST(many_timers_keep_their_heap)
{
    struct err e = ERR_INIT;
    struct box b = make();
    struct tick t = { .box = &b, .number = 1 };
    struct evsource *s[500];
    unsigned seed = 7;
    for (int i = 0; i < 500; i++) {
        seed = seed * 1103515245u + 12345u;
        ASSERT_EQ(evloop_add_timer(b.loop, seed >> 16 & 63, on_tick, &t, &s[i], &e), 0);
    }
    for (int i = 0; i < 500; i += 3)
        evloop_remove(s[i]);
    nap(300);
    for (int i = 0; i < 500; i++)
        if (i % 3)
            evloop_remove(s[i]);
    ASSERT_TRUE(b.calls >= 333 && b.calls <= 500);
    drop(&b);
}

static void on_slow(void *arg, uint32_t events)
{
    struct box *b = arg;
    uint64_t n;
    __atomic_store_n(&b->inside, 1, __ATOMIC_SEQ_CST);
    tell(b);
    nap(b->hold_ms);
    (void)!read(b->fd, &n, sizeof(n));
    b->calls++;
    __atomic_store_n(&b->inside, 0, __ATOMIC_SEQ_CST);
}

TEST(remove_waits_for_a_running_callback)
{
    struct err e = ERR_INIT;
    struct box b = make();
    uint64_t one = 1;
    b.hold_ms = 150;
    ASSERT_EQ(evloop_add_fd(b.loop, b.fd, EPOLLIN, on_slow, &b, &b.src, &e), 0);
    ASSERT_EQ(write(b.fd, &one, 8), 8);
    ASSERT_TRUE(told(&b, 5000));
    evloop_remove(b.src);
    ASSERT_EQ(__atomic_load_n(&b.inside, __ATOMIC_SEQ_CST), 0);
    ASSERT_EQ(b.calls, 1);
    ASSERT_EQ(write(b.fd, &one, 8), 8);
    nap(50);
    ASSERT_EQ(b.calls, 1);
    drop(&b);
}

static void on_remove_self(void *arg, uint32_t events)
{
    struct box *b = arg;
    b->calls++;
    evloop_remove(b->src);
    tell(b);
}

TEST(a_callback_may_remove_its_own_source)
{
    struct err e = ERR_INIT;
    struct box b = make();
    uint64_t one = 1;
    ASSERT_EQ(write(b.fd, &one, 8), 8);
    ASSERT_EQ(evloop_add_fd(b.loop, b.fd, EPOLLIN, on_remove_self, &b, &b.src, &e), 0);
    ASSERT_TRUE(told(&b, 5000));
    ASSERT_TRUE(!told(&b, 50));
    ASSERT_EQ(b.calls, 1);
    drop(&b);
}

static void on_storm_timer(void *arg)
{
    struct box *b = arg;
    __atomic_add_fetch(&b->calls, 1, __ATOMIC_RELAXED);
}

static void *storm(void *arg)
{
    struct box *b = arg;
    for (int i = 0; i < 2000; i++) {
        struct err e = ERR_INIT;
        struct evsource *s;
        ASSERT_EQ(evloop_add_timer(b->loop, i % 3 - 1, on_storm_timer, b, &s, &e), 0);
        evloop_timer_set(s, 0);
        evloop_remove(s);
    }
    return NULL;
}

TEST(threads_add_and_remove_at_once)
{
    struct box b = make();
    pthread_t th[4];
    for (int i = 0; i < 4; i++)
        ASSERT_EQ(pthread_create(&th[i], NULL, storm, &b), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(th[i], NULL);
    drop(&b);
}

/* A source that always has something to say leaves turns to the others. */
static void on_greedy(void *arg, uint32_t events)
{
    struct box *b = arg;
    b->calls++;
}

TEST(a_busy_descriptor_does_not_starve_timers)
{
    struct err e = ERR_INIT;
    struct box b = make();
    struct box other = { .loop = b.loop, .done_fd = b.done_fd };
    struct tick t = { .box = &other, .number = 1 };
    struct evsource *s;
    uint64_t one = 1;
    ASSERT_EQ(write(b.fd, &one, 8), 8);
    ASSERT_EQ(evloop_add_fd(b.loop, b.fd, EPOLLIN, on_greedy, &b, &b.src, &e), 0);
    ASSERT_EQ(evloop_add_timer(b.loop, 10, on_tick, &t, &s, &e), 0);
    ASSERT_TRUE(told(&b, 5000));
    evloop_remove(s);
    evloop_remove(b.src);
    ASSERT_TRUE(b.calls > 0);
    drop(&b);
}
