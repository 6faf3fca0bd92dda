/* SPDX-License-Identifier: MIT
 *
 * Taps, filter and guard in a network namespace of the test's own. What passes and what does not is
 * shown with real guests in tests/net; here it is what the kernel has after each change.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/proc.h"
#include "daemon/filter.h"
#include "daemon/filter_watch.h"
#include "daemon/firewalls.h"
#include "daemon/guard.h"
#include "daemon/link.h"
#include "tests/harness/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct subnet net = { 0x0ad10000, 16 };
static const char *const ids[] = { "00112233445566aa", "77112233445577bb" };

static struct filter *begin(void)
{
    struct filter_options o = { .net = net, .connections = 100, .new_per_second = 50 };
    struct filter *f = NULL;
    struct err e = ERR_INIT;

    SKIP_IF(geteuid() != 0, "not root");
    SKIP_IF(unshare(CLONE_NEWNET) < 0, "no network namespaces");
    SKIP_IF(access("/dev/net/tun", F_OK) < 0, "no /dev/net/tun");
    ASSERT_OK(filter_open(&o, &f, &e), e);
    ASSERT_OK(filter_rebuild(f, NULL, 0, NULL, 0, &e), e);
    return f;
}

static void run(const char *const *argv)
{
    struct err e = ERR_INIT;

    ASSERT_OK(proc_run(argv, deadline_in(10000), 1024, NULL, &e), e);
}

static struct link new_link(size_t i)
{
    struct link l;
    struct err e = ERR_INIT;

    link_describe(&net, ids[i], (uint32_t)i + 1, LINK_MTU, &l);
    ASSERT_OK(link_create(&l, 1879048193, &e), e);
    return l;
}

static struct policy_span span(uint32_t lo, uint32_t hi, uint16_t port)
{
    return (struct policy_span){ lo, hi, port, port, POLICY_TCP, 0 };
}

struct seen {
    struct filter_elem items[16];
    size_t n;
};

static void note(void *arg, const struct filter_elem *x)
{
    struct seen *s = arg;

    ASSERT_TRUE(s->n < ARRAY_SIZE(s->items));
    s->items[s->n++] = *x;
}

static struct seen look(struct filter *f, size_t i, char set)
{
    struct seen s = { 0 };
    struct err e = ERR_INIT;

    ASSERT_OK(filter_read(f, ids[i], set, note, &s, &e), e);
    return s;
}

TEST(taps_come_and_go)
{
    struct filter *f = begin();
    struct link l = new_link(0);
    struct err e = ERR_INIT;
    autofree char (*names)[IFNAMSIZ] = NULL;
    size_t n = 0;

    ASSERT_STREQ(l.name, "sbx001122334455");
    ASSERT_OK(link_up(&l, &e), e);
    ASSERT_OK(link_list(&names, &n, &e), e);
    ASSERT_EQ(n, 1);
    ASSERT_STREQ(names[0], l.name);
    ASSERT_TRUE(link_is_host(l.gateway));
    ASSERT_TRUE(!link_is_host(l.address));
    /* One that is left over is in nobody's way. */
    ASSERT_OK(link_create(&l, 1879048193, &e), e);
    ASSERT_OK(link_delete(l.name, &e), e);
    ASSERT_OK(link_delete(l.name, &e), e);
    ASSERT_TRUE(!link_exists(l.name));
    filter_close(f);
}

/* Processes that have all our descriptors for a while, as one has between fork() and execve(). */
static void *fork_on(void *arg)
{
    atomic_bool *stop = arg;

    while (!atomic_load(stop)) {
        pid_t pid = fork();
        if (pid == 0) {
            usleep(20000);
            _exit(0);
        }
        usleep(5000);
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
    while (waitpid(-1, NULL, 0) > 0) {
    }
    return NULL;
}

TEST(a_tap_is_free_to_be_attached_to_whatever_is_forked_meanwhile)
{
    struct filter *f = begin();
    struct err e = ERR_INIT;
    atomic_bool stop = false;
    pthread_t forker;

    ASSERT_EQ(pthread_create(&forker, NULL, fork_on, &stop), 0);
    for (int i = 0; i < 20; i++) {
        struct link l = new_link(0);
        struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
        memcpy(ifr.ifr_name, l.name, sizeof(ifr.ifr_name));
        int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(ioctl(fd, TUNSETIFF, &ifr), 0);
        close(fd);
        ASSERT_OK(link_delete(l.name, &e), e);
    }
    atomic_store(&stop, true);
    pthread_join(forker, NULL);
    filter_close(f);
}

TEST(sandboxes_come_change_and_go)
{
    struct filter *f = begin();
    struct link l[2] = { new_link(0), new_link(1) };
    struct policy_span a[] = { span(0x01020300, 0x010203ff, 443),
                               span(0x05000000, 0x05000000, 80) };
    struct policy_span c[] = { span(0x01020300, 0x010203ff, 22) };
    struct filter_name names[] = {
        { 0x08080808, 443, 443, POLICY_TCP, 60000, "a.example.com" },
        { 0x08080808, 53, 60, POLICY_UDP, 60000, "a.example.com" },
    };
    struct err e = ERR_INIT;

    for (size_t i = 0; i < 2; i++) {
        struct filter_box box = { .id = ids[i], .slot = (uint32_t)i + 1, .link = &l[i], .spans = a,
                                  .n_spans = 2, .host_spans = c, .n_host_spans = 1 };
        ASSERT_OK(filter_add(f, &box, &e), e);
        ASSERT_OK(link_up(&l[i], &e), e);
    }
    ASSERT_EQ(look(f, 0, 's').n, 2);
    ASSERT_EQ(look(f, 0, 'h').n, 1);
    ASSERT_EQ(look(f, 0, 'n').n, 0);
    ASSERT_OK(filter_names(f, ids[0], NULL, 0, names, 2, &e), e);
    struct seen s = look(f, 0, 'n');
    ASSERT_EQ(s.n, 2);
    ASSERT_STREQ(s.items[0].name, "a.example.com");
    ASSERT_TRUE(s.items[0].expires_ms > 50000 && s.items[0].expires_ms <= 60000);
    ASSERT_EQ(look(f, 1, 'n').n, 0);
    names[0].timeout_ms = 120000;                       /* longer: in place of the old one */
    ASSERT_OK(filter_names(f, ids[0], names, 2, names, 1, &e), e);
    s = look(f, 0, 'n');
    ASSERT_EQ(s.n, 1);
    ASSERT_TRUE(s.items[0].expires_ms > 110000);
    ASSERT_EQ(s.items[0].lo, 0x08080808);
    ASSERT_EQ(s.items[0].port_hi, 443);
    ASSERT_OK(filter_names(f, ids[0], names + 1, 1, names + 1, 1, &e), e); /* gone already */
    ASSERT_EQ(look(f, 0, 'n').n, 2);

    struct filter_box box = { .id = ids[0], .slot = 1, .link = &l[0], .spans = c, .n_spans = 1,
                              .names = names, .n_names = 1 };
    ASSERT_OK(filter_replace(f, &box, &e), e);
    ASSERT_EQ(look(f, 0, 's').items[0].port_lo, 22);
    ASSERT_EQ(look(f, 0, 's').n, 1);
    ASSERT_EQ(look(f, 0, 'h').n, 0);
    ASSERT_EQ(look(f, 0, 'n').n, 1);
    ASSERT_EQ(look(f, 1, 's').n, 2);

    ASSERT_OK(link_delete(l[0].name, &e), e);
    ASSERT_OK(filter_remove(f, ids[0], &l[0], &e), e);
    ASSERT_OK(filter_remove(f, ids[0], &l[0], &e), e);
    ASSERT_EQ(look(f, 0, 's').n, 0);
    ASSERT_OK(filter_rebuild(f, &(struct filter_box){ .id = ids[1], .slot = 2, .link = &l[1],
                                                      .spans = a, .n_spans = 1 }, 1,
                             (const uint32_t[]){ 7 }, 1, &e), e);
    ASSERT_EQ(look(f, 1, 's').n, 1);
    ASSERT_TRUE(filter_present(f));
    ASSERT_OK(filter_clear(f, &e), e);
    ASSERT_TRUE(!filter_present(f));
    filter_close(f);
}

static int connect_as(uid_t uid)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sa);
    autoclose int listener = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    autoclose int fd = -1;

    ASSERT_EQ(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
    ASSERT_EQ(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
    test_become(uid);                   /* a socket is its maker's */
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ASSERT_TRUE(fd >= 0);
    ssize_t n = sendto(fd, "x", 1, 0, (struct sockaddr *)&sa, sizeof(sa));
    int r = n == 1 ? 0 : errno;
    test_become(0);
    return r;
}

TEST(a_qemu_has_no_network)
{
    struct filter_options o = { .net = net, .connections = 100, .new_per_second = 50,
                                .uid_lo = 200001, .uid_hi = 204096 };
    struct filter *f = begin();
    struct err e = ERR_INIT;

    filter_close(f);
    run((const char *const[]){ "ip", "link", "set", "lo", "up", NULL });
    ASSERT_OK(filter_open(&o, &f, &e), e);
    ASSERT_OK(filter_rebuild(f, NULL, 0, NULL, 0, &e), e);
    ASSERT_EQ(connect_as(200000), 0);
    ASSERT_EQ(connect_as(200001), EPERM);
    ASSERT_EQ(connect_as(204096), EPERM);
    ASSERT_EQ(connect_as(204097), 0);
    ASSERT_EQ(connect_as(0), 0);
    filter_close(f);
    o = (struct filter_options){ .net = net, .connections = 100, .new_per_second = 50,
                                 .uid_resolver = 300000 };
    ASSERT_OK(filter_open(&o, &f, &e), e);
    ASSERT_OK(filter_rebuild(f, NULL, 0, NULL, 0, &e), e);
    ASSERT_EQ(connect_as(300000), EPERM);
    ASSERT_EQ(connect_as(300001), 0);
    filter_close(f);
}

TEST(a_refused_change_names_its_cause_and_leaves_the_old_one)
{
    struct filter *f = begin();
    struct link l = new_link(0);
    struct policy_span twice[] = { span(1, 5, 80), span(3, 9, 80) };    /* they overlap */
    struct filter_box box = { .id = ids[0], .slot = 1, .link = &l, .spans = twice, .n_spans = 1 };
    struct err e = ERR_INIT;

    ASSERT_OK(filter_add(f, &box, &e), e);
    box.n_spans = 2;
    ASSERT_EQ(filter_replace(f, &box, &e), -1);
    ASSERT_EQ(e.code, ERR_NETWORK);
    ASSERT_TRUE(strstr(e.msg, "add elements to s-") != NULL);
    ASSERT_EQ(look(f, 0, 's').n, 1);
    filter_close(f);
}

static void nft(const char *words)
{
    const char *const argv[] = { "nft", words, NULL };

    run(argv);
}

TEST(only_changes_by_others_are_told)
{
    struct filter *f = begin();
    struct link l = new_link(0);
    struct filter_box box = { .id = ids[0], .slot = 1, .link = &l };
    struct filter_watch *w = NULL;
    struct err e = ERR_INIT;
    int least = 1;

    ASSERT_OK(filter_watch_open(f, &w, &e), e);
    ASSERT_TRUE(!filter_watch_others(w));
    ASSERT_OK(filter_add(f, &box, &e), e);
    ASSERT_TRUE(!filter_watch_others(w));
    nft("add table inet another; add chain inet another x");
    ASSERT_TRUE(!filter_watch_others(w));
    nft("flush chain inet sandboxd from_guests");
    ASSERT_TRUE(filter_watch_others(w));
    ASSERT_TRUE(!filter_watch_others(w));

    /* More than the socket holds: our own change is not taken for somebody's. */
    setsockopt(filter_watch_fd(w), SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
    filter_alone(f);
    ASSERT_OK(filter_rebuild(f, &box, 1, NULL, 0, &e), e);
    ASSERT_TRUE(!filter_watch_others(w));
    /* With another's among them nobody knows, before ours, after, and between. */
    nft("add chain inet another y");
    ASSERT_OK(filter_rebuild(f, &box, 1, NULL, 0, &e), e);
    ASSERT_TRUE(filter_watch_others(w));
    ASSERT_OK(filter_rebuild(f, &box, 1, NULL, 0, &e), e);
    ASSERT_TRUE(!filter_watch_others(w));
    ASSERT_OK(filter_rebuild(f, &box, 1, NULL, 0, &e), e);
    nft("add chain inet another z");
    ASSERT_TRUE(filter_watch_others(w));
    ASSERT_OK(filter_rebuild(f, &box, 1, NULL, 0, &e), e);
    nft("delete table inet another");
    ASSERT_OK(filter_rebuild(f, &box, 1, NULL, 0, &e), e);
    ASSERT_TRUE(filter_watch_others(w));
    filter_watch_close(w);
    filter_close(f);
}

TEST(firewalls_that_drop_what_sandboxes_send_are_named)
{
    struct filter *f = begin();
    struct err e = ERR_INIT;
    char text[400];

    ASSERT_EQ(firewalls_in_the_way(text, sizeof(text), &e), 0);     /* our own chain does */
    nft("add table ip filter; add chain ip filter DOCKER-USER;"
        "add chain ip filter FORWARD { type filter hook forward priority 0; policy accept; };"
        "add chain ip filter INPUT { type filter hook input priority 0; policy drop; };"
        "add rule ip filter FORWARD ip saddr 10.0.0.1 counter drop");
    ASSERT_EQ(firewalls_in_the_way(text, sizeof(text), &e), 0);
    nft("add chain ip filter FORWARD { policy drop; }");
    ASSERT_EQ(firewalls_in_the_way(text, sizeof(text), &e), 1);
    ASSERT_TRUE(strstr(text, "chain FORWARD of table ip filter") != NULL);
    nft("add rule ip filter DOCKER-USER iifname \"sbx*\" counter accept");
    ASSERT_EQ(firewalls_in_the_way(text, sizeof(text), &e), 0);
    nft("add table inet wall; add chain inet wall f { type filter hook forward priority 10; };"
        "add rule inet wall f counter reject");
    ASSERT_EQ(firewalls_in_the_way(text, sizeof(text), &e), 1);
    ASSERT_TRUE(strstr(text, "chain f of table inet wall") != NULL);
    nft("add rule inet wall f oifname \"sbx0123456789ab\" accept");
    ASSERT_EQ(firewalls_in_the_way(text, sizeof(text), &e), 0);
    filter_close(f);
}

TEST(settings_that_weaken_the_guard_are_named)
{
    static const struct { const char *path, *bad, *good, *word; } rows[] = {
        { "/proc/sys/net/ipv4/conf/all/rp_filter", "2", "0", "rp_filter is 2" },
        { "/proc/sys/net/ipv4/conf/all/rp_filter", "1", "0", NULL },
        { "/proc/sys/net/ipv4/conf/all/disable_policy", "1", "0", "disable_policy is 1" },
        { "/proc/sys/net/ipv6/conf/all/forwarding", "1", "0", "ipv6.conf.all.forwarding is 1" },
    };
    struct filter *f = begin();
    struct err e = ERR_INIT;
    char text[400];

    ASSERT_EQ(guard_weakness(text, sizeof(text), &e), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (access(rows[i].path, F_OK) < 0)
            continue;
        int fd = open(rows[i].path, O_WRONLY | O_CLOEXEC);
        SKIP_IF(fd < 0, "settings of the namespace cannot be written");
        ASSERT_EQ(write(fd, rows[i].bad, 1), 1);
        ASSERT_EQ(guard_weakness(text, sizeof(text), &e), rows[i].word != NULL);
        ASSERT_TRUE(!rows[i].word || strstr(text, rows[i].word));
        ASSERT_EQ(pwrite(fd, rows[i].good, 1, 0), 1);
        ASSERT_SYS(close(fd));
    }
    ASSERT_EQ(guard_weakness(text, sizeof(text), &e), 0);
    filter_close(f);
}

TEST(the_guard_closes_and_opens)
{
    struct filter *f = begin();
    struct err e = ERR_INIT;

    for (int i = 0; i < 2; i++) {
        ASSERT_OK(guard_close(&net, &e), e);
        ASSERT_OK(guard_close(&net, &e), e);
        ASSERT_OK(guard_open(&net, &e), e);
        ASSERT_OK(guard_open(&net, &e), e);
    }
    filter_close(f);
}

TEST(ranges_for_sandboxes)
{
    struct subnet s;
    struct err e = ERR_INIT;
    static const char *const bad[] = { "8.8.0.0/16", "100.64.0.0/16", "10.0.0.0/30", "10.0.0.1/16",
                                       "example.com", "10.0.0.0/16:80", "0.0.0.0/0", "" };

    ASSERT_OK(subnet_parse("10.5.0.0/16", 4096, &s, &e), e);
    ASSERT_EQ(s.address, 0x0a050000);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        e = ERR_INIT;
        ASSERT_EQ(subnet_parse(bad[i], 4096, &s, &e), -1);
        ASSERT_EQ(e.code, ERR_INVALID);
    }
}

TEST(a_range_that_is_in_use_is_not_chosen)
{
    struct filter *f = begin();
    struct link l = new_link(0);
    struct subnet s;
    char with[128] = "";
    struct err e = ERR_INIT;

    ASSERT_OK(subnet_choose(4096, &s, &e), e);
    ASSERT_EQ(s.address, 0x0ad10000);
    ASSERT_OK(link_up(&l, &e), e);                     /* our own taps are no collision */
    ASSERT_EQ(subnet_collides(&s, with, sizeof(with), &e), 0);
    run((const char *const[]){ "ip", "tuntap", "add", "other", "mode", "tap", NULL });
    run((const char *const[]){ "ip", "addr", "add", "10.209.7.1/24", "dev", "other", NULL });
    ASSERT_EQ(subnet_collides(&s, with, sizeof(with), &e), 1);
    ASSERT_TRUE(strstr(with, "10.209.7.") != NULL);
    ASSERT_OK(subnet_choose(4096, &s, &e), e);
    ASSERT_EQ(s.address, 0xac1c0000);
    filter_close(f);
}
