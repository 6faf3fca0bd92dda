/* SPDX-License-Identifier: MIT
 *
 * The guest's network in a namespace of the test's own, on one end of a veth pair.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/proc.h"
#include "guest/net.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct guest_net net = { { 2, 0x5b, 0x78, 1, 0, 7 }, { 2, 0x5b, 0x78, 0, 0, 1 },
                                      0x0ad10008, 0x0ad10001, 0x0ad10001, 1400 };

static char *run(const char *const *argv)
{
    struct err e = ERR_INIT;
    char *out = NULL;

    ASSERT_OK(proc_run(argv, deadline_in(10000), 64 * KIB, &out, &e), e);
    return out;
}

#define IP(...) run((const char *const[]){ "/sbin/ip", __VA_ARGS__, NULL })
#define IP_DO(...) free(IP(__VA_ARGS__))

/* Namespace, its loopback, "eth7" with the guest's MAC and "far" with the gateway's. */
static void begin(void)
{
    SKIP_IF(geteuid() != 0, "not root");
    SKIP_IF(access("/sbin/ip", X_OK) < 0, "no ip");
    SKIP_IF(unshare(CLONE_NEWNET) < 0, "no network namespaces");
    IP_DO("link", "set", "lo", "up");
    IP_DO("link", "add", "eth7", "address", "02:5b:78:01:00:07", "type", "veth", "peer", "name",
          "far", "address", "02:5b:78:00:00:01");
    IP_DO("link", "set", "far", "up");
}

static char *slurp(const char *path)
{
    struct err e = ERR_INIT;
    char *text = NULL;
    size_t len = 0;

    ASSERT_OK(io_read_file_at(AT_FDCWD, path, 64 * KIB, &text, &len, &e), e);
    return text;
}

static void check(void)
{
    autofree char *link = IP("link", "show", "eth7"), *address = IP("addr", "show", "eth7");
    autofree char *routes = IP("route"), *neighbours = IP("neigh"), *lo = IP("addr", "show", "lo");

    ASSERT_CONTAINS(link, ",UP");
    ASSERT_CONTAINS(link, "mtu 1400");
    ASSERT_CONTAINS(address, "inet 10.209.0.8/32 scope global eth7");
    ASSERT_NULL(strstr(address, "inet6"));
    ASSERT_CONTAINS(lo, "127.0.0.1");
    ASSERT_STREQ(routes, "default via 10.209.0.1 dev eth7 proto static src 10.209.0.8 \n"
                         "10.209.0.1 dev eth7 proto static scope link src 10.209.0.8 \n");
    ASSERT_CONTAINS(neighbours, "10.209.0.1 dev eth7 lladdr 02:5b:78:00:00:01 PERMANENT");
}

TEST(everything_is_set_and_setting_it_again_changes_nothing)
{
    struct err e = ERR_INIT;
    const char *resolv = test_path("resolv.conf");
    struct stat before, after;

    begin();
    ASSERT_OK(net_configure(&net, resolv, deadline_in(1000), &e), e);
    check();
    autofree char *text = slurp(resolv);
    ASSERT_STREQ(text, "nameserver 10.209.0.1\noptions edns0 timeout:3 attempts:2\n");
    ASSERT_SYS(stat(resolv, &before));
    ASSERT_OK(net_configure(&net, resolv, deadline_in(1000), &e), e);
    check();
    ASSERT_SYS(stat(resolv, &after));
    ASSERT_EQ(before.st_ino, after.st_ino);
}

TEST(what_was_set_otherwise_is_put_right)
{
    struct err e = ERR_INIT;

    begin();
    IP_DO("link", "set", "eth7", "up", "mtu", "1280");
    IP_DO("addr", "add", "10.209.0.8/32", "dev", "eth7");
    IP_DO("neigh", "add", "10.209.0.1", "lladdr", "02:00:00:00:00:99", "dev", "eth7", "nud",
          "stale");
    IP_DO("route", "add", "10.209.0.1/32", "dev", "eth7", "src", "10.209.0.8", "scope", "link");
    ASSERT_OK(net_configure(&net, test_path("r"), deadline_in(1000), &e), e);
    check();
}

TEST(an_address_outside_of_the_link_is_reached_through_the_gateway)
{
    struct err e = ERR_INIT;

    begin();
    ASSERT_OK(net_configure(&net, test_path("r"), deadline_in(1000), &e), e);
    autofree char *way = IP("route", "get", "192.0.2.1");
    ASSERT_CONTAINS(way, "via 10.209.0.1 dev eth7 src 10.209.0.8");
}

TEST(a_symbolic_link_is_replaced_and_not_followed)
{
    struct err e = ERR_INIT;
    struct stat st;
    autofree char *target = strdup(test_path("target")), *link = strdup(test_path("link"));

    begin();
    ASSERT_OK(io_write_file_at(AT_FDCWD, target, "mine\n", 5, 0644, &e), e);
    ASSERT_SYS(symlink(target, link));
    ASSERT_OK(net_configure(&net, link, deadline_in(1000), &e), e);
    ASSERT_SYS(lstat(link, &st));
    ASSERT_TRUE(S_ISREG(st.st_mode));
    ASSERT_EQ(st.st_mode & 0777, 0644);
    autofree char *text = slurp(target);
    ASSERT_STREQ(text, "mine\n");
}

TEST(without_a_resolver_the_file_is_left_alone)
{
    struct guest_net n = net;
    struct err e = ERR_INIT;

    begin();
    n.resolver = 0;
    ASSERT_OK(net_configure(&n, test_path("none"), deadline_in(1000), &e), e);
    ASSERT_LT(access(test_path("none"), F_OK), 0);
}

TEST(an_interface_that_does_not_come)
{
    struct guest_net n = net;
    struct err e;
    int64_t began = now_mono_ms();

    begin();
    n.mac[5] = 8;
    ASSERT_ERR(net_configure(&n, test_path("r"), deadline_in(300), &e), e, ERR_NETWORK);
    ASSERT_CONTAINS(e.msg, "02:5b:78:01:00:08");
    ASSERT_LT(now_mono_ms() - began, 5000);
}
