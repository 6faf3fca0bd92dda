/* SPDX-License-Identifier: MIT
 *
 * The parts of sandboxd-resolver that do not speak DNS: cache, deadlines, counts per guest,
 * addresses of upstreams, the jail. The whole is tested by tests/net/test_resolver*.py.
 */
#include "common/auto.h"
#include "common/io.h"
#include "resolver/cache.h"
#include "resolver/guests.h"
#include "resolver/jail.h"
#include "resolver/loop.h"
#include "resolver/upstream_io.h"
#include "tests/harness/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- cache --- */

static void keep(struct cache *c, const char *name, uint16_t qtype, uint32_t ttl, uint32_t address,
                 int64_t now)
{
    struct dns_answer *a = dns_answer_new();

    ASSERT_NOT_NULL(a);
    a->ttl = ttl;
    a->addresses[a->n_addresses++] = address;
    cache_put(c, name, qtype, a, now);
    dns_answer_unref(a);
}

static uint32_t kept(struct cache *c, const char *name, uint16_t qtype, int64_t now)
{
    uint32_t ttl;
    const struct dns_answer *a = cache_find(c, name, qtype, now, &ttl);

    return a ? a->addresses[0] : 0;
}

static struct cache cache;

TEST(cache_keeps_until_the_ttl)
{
    uint32_t ttl = 0;

    cache_init(&cache, 42);
    keep(&cache, "a.example", DNS_A, 10, 1, 1000);
    keep(&cache, "a.example", DNS_TXT, 10, 2, 1000);
    ASSERT_EQ(kept(&cache, "a.example", DNS_A, 1000), 1);
    ASSERT_EQ(kept(&cache, "a.example", DNS_TXT, 1000), 2);
    ASSERT_EQ(kept(&cache, "b.example", DNS_A, 1000), 0);
    ASSERT_NOT_NULL(cache_find(&cache, "a.example", DNS_A, 4001, &ttl));
    ASSERT_EQ(ttl, 7);
    ASSERT_NOT_NULL(cache_find(&cache, "a.example", DNS_A, 10999, &ttl));
    ASSERT_EQ(ttl, 1);
    ASSERT_EQ(kept(&cache, "a.example", DNS_A, 11000), 0);
    ASSERT_EQ(cache.n, 1);
    keep(&cache, "a.example", DNS_TXT, 10, 3, 1000);
    ASSERT_EQ(kept(&cache, "a.example", DNS_TXT, 1000), 3);
    ASSERT_EQ(cache.n, 1);
    cache_done(&cache);
    ASSERT_EQ(cache.bytes, 0);
}

TEST(cache_is_bounded)
{
    char name[32];

    cache_init(&cache, 42);
    for (uint32_t i = 0; i < CACHE_ENTRIES + 100; i++) {
        snprintf(name, sizeof(name), "n%u.example", i);
        keep(&cache, name, DNS_A, 100, i + 1, 0);
        ASSERT_EQ(kept(&cache, "n0.example", DNS_A, 1), 1);     /* what is used stays */
    }
    ASSERT_EQ(cache.n, CACHE_ENTRIES);
    ASSERT_LE(cache.bytes, CACHE_BYTES);
    ASSERT_EQ(kept(&cache, "n1.example", DNS_A, 1), 0);
    cache_done(&cache);
    ASSERT_EQ(cache.n, 0);
}

TEST(cache_is_bounded_in_bytes)
{
    char name[32];

    cache_init(&cache, 42);
    for (uint32_t i = 0; i < 100; i++) {
        struct dns_answer *a = dns_answer_new();
        ASSERT_NOT_NULL(a);
        a->bytes = CACHE_BYTES / 10;
        snprintf(name, sizeof(name), "n%u.example", i);
        cache_put(&cache, name, DNS_A, a, 0);
        dns_answer_unref(a);
        ASSERT_LE(cache.bytes, CACHE_BYTES);
    }
    ASSERT_EQ(cache.n, 9);
    cache_done(&cache);
}

/* --- deadlines --- */

static struct loop loop;
static char trace[32];

struct named {
    struct timer timer;
    char name;
    struct timer *stops;
};

static void due(void *arg)
{
    struct named *x = arg;

    trace[strlen(trace)] = x->name;
    if (x->stops)
        timer_stop(x->stops);
}

TEST(timers_in_order)
{
    struct named a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' }, d = { .name = 'd' };
    struct named *all[] = { &a, &b, &c, &d };
    struct timers quick, slow;
    struct err e = ERR_INIT;

    ASSERT_OK(loop_init(&loop, &e), e);
    loop_timers(&loop, &slow, 60);
    loop_timers(&loop, &quick, 20);
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        all[i]->timer.fn = due;
        all[i]->timer.arg = all[i];
    }
    b.stops = &d.timer;
    timer_start(&loop, &slow, &a.timer);
    timer_start(&loop, &quick, &b.timer);
    timer_start(&loop, &quick, &d.timer);
    timer_start(&loop, &quick, &c.timer);
    timer_start(&loop, &quick, &d.timer);       /* anew: behind c, but b stops it */
    int64_t start = now_mono_ms();
    while (strlen(trace) < 3 && now_mono_ms() - start < 5000)
        ASSERT_OK(loop_turn(&loop, -1, &e), e);
    ASSERT_STREQ(trace, "bca");
    ASSERT_GE(now_mono_ms() - start, 59);
    ASSERT_OK(loop_turn(&loop, 0, &e), e);
    loop_done(&loop);
}

/* --- guests --- */

TEST(guests_have_a_quarter_of_what_is_free)
{
    static struct guests g;
    uint32_t n_free = 100, n = 0;

    while (guests_take(&g, 1, GUESTS_QUESTIONS, 1000, n_free))
        n++, n_free--;
    ASSERT_EQ(n, 21);
    for (uint32_t other = 2; other < 200; other++)
        while (guests_take(&g, other, GUESTS_QUESTIONS, 1000, n_free))
            n_free--;
    ASSERT_EQ(n_free, 0);
    ASSERT_TRUE(guests_take(&g, 1, GUESTS_CONNECTIONS, 1, 10));
    ASSERT_FALSE(guests_take(&g, 1, GUESTS_CONNECTIONS, 1, 10));
    guests_give(&g, 1, GUESTS_CONNECTIONS);
    ASSERT_TRUE(guests_take(&g, 1, GUESTS_CONNECTIONS, 1, 10));
    guests_give(&g, 4711, GUESTS_CONNECTIONS);      /* nobody */
    guests_done(&g);
}

/* --- upstreams --- */

TEST(addresses_of_upstreams)
{
    static const char *const wrong[] = { "", ":", "::1", "1.2.3", "1.2.3.4:", "1.2.3.4:0",
                                         "1.2.3.4:65536", "1.2.3.4 ", "[::1", "[::1]x", "[1.2.3.4]",
                                         "a.example", "[::1]:", "01.2.3.4:x" };
    struct upstream_address a;
    struct err e = ERR_INIT;

    ASSERT_OK(upstream_address_parse("192.0.2.1", &a, &e), e);
    ASSERT_EQ(a.in.sin_family, AF_INET);
    ASSERT_EQ(ntohs(a.in.sin_port), 53);
    ASSERT_OK(upstream_address_parse("192.0.2.1:5353", &a, &e), e);
    ASSERT_EQ(ntohs(a.in.sin_port), 5353);
    ASSERT_OK(upstream_address_parse("[2001:db8::1]", &a, &e), e);
    ASSERT_EQ(a.in6.sin6_family, AF_INET6);
    ASSERT_OK(upstream_address_parse("[2001:db8::1]:54", &a, &e), e);
    ASSERT_EQ(ntohs(a.in6.sin6_port), 54);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        ASSERT_ERR(upstream_address_parse(wrong[i], &a, &e), e, ERR_USAGE);
}

/* --- the jail --- */

static const struct jail jail = { .uid = 65534, .gid = 65534, .files = 64 };

/* In a process of its own in the jail: its wait status. */
static int jailed(int (*act)(void))
{
    pid_t pid = fork();
    int status = 0;

    ASSERT_GE(pid, 0);
    if (pid == 0) {
        struct err e = ERR_INIT;
        if (jail_become(&jail, &e) < 0 || jail_enter(&jail, &e) < 0) {
            fprintf(stderr, "%s\n", e.msg);
            _exit(99);
        }
        _exit(act());
    }
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    return status;
}

static int act_inet(void)
{
    return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) < 0;
}

static int act_memory(void)
{
    free(malloc(4096));
    free(malloc(4 << 20));
    return malloc((size_t)1 << 30) != NULL;
}

static int act_open(void) { return open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0; }
static int act_unix(void) { return socket(AF_UNIX, SOCK_STREAM, 0) >= 0; }
static int act_raw(void) { return socket(AF_INET, SOCK_RAW, 1) >= 0; }
static int act_netlink(void) { return socket(AF_NETLINK, SOCK_RAW, 0) >= 0; }
static int act_fork(void) { return fork() >= 0; }
static int act_exec(void) { return execl("/bin/true", "true", (char *)NULL); }
static int act_kill(void) { return kill(getppid(), 0); }
static int act_setuid(void) { return setuid(0) == 0; }
static int act_mount(void) { return unlink("/nowhere"); }
static int act_ptrace(void) { return prctl(PR_SET_DUMPABLE, 1) == 0; }

static int act_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0) != MAP_FAILED;
}

TEST(jail_leaves_what_is_needed)
{
    SKIP_IF(getuid() != 0, "only root can become somebody else");
    SKIP_IF(test_sanitized(), "sanitizers need more than the jail gives");
    ASSERT_EQ(jailed(act_inet), 0);
    ASSERT_EQ(jailed(act_memory), 0);
    ASSERT_EQ(jailed(act_open), 0);         /* fails, as libraries may try */
}

TEST(jail_ends_who_tries)
{
    static int (*const acts[])(void) = { act_unix,   act_raw,   act_netlink, act_fork,
                                         act_exec,   act_kill,  act_setuid,  act_mount,
                                         act_ptrace, act_code };

    SKIP_IF(getuid() != 0, "only root can become somebody else");
    SKIP_IF(test_sanitized(), "sanitizers need more than the jail gives");
    for (size_t i = 0; i < ARRAY_SIZE(acts); i++) {
        int status = jailed(acts[i]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
            FAIL("act %zu: status %x", i, (unsigned)status);
    }
}

TEST(jail_is_not_for_root)
{
    struct err e = ERR_INIT;

    SKIP_IF(getuid() != 0, "this is about root");
    ASSERT_ERR(jail_become(&(struct jail){ .gid = 65534 }, &e), e, ERR_USAGE);
    ASSERT_ERR(jail_become(&(struct jail){ .uid = 65534 }, &e), e, ERR_USAGE);
    ASSERT_ERR(jail_enter(&jail, &e), e, ERR_USAGE);
}

TEST(others_descriptors_are_closed)
{
    struct err e = ERR_INIT;
    int fds[6];

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        fds[i] = ASSERT_SYS(open("/dev/null", O_RDONLY | O_CLOEXEC));
    const int keep_these[] = { fds[4], fds[1] };
    ASSERT_OK(jail_close_others(keep_these, 2, &e), e);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        ASSERT_EQ(fcntl(fds[i], F_GETFD) >= 0, i == 1 || i == 4);
}
