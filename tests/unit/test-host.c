/* SPDX-License-Identifier: MIT */
#include "client/host.h"
#include "common/api.h"
#include "tests/harness/test.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TEST(unix_hosts)
{
    struct host h = { 0 };
    struct err e = ERR_INIT;

    ASSERT_OK(host_parse("unix:///run/x.sock", &h, &e), e);
    ASSERT_EQ(h.kind, HOST_UNIX);
    ASSERT_STREQ(h.path, "/run/x.sock");
    host_done(&h);
}

TEST(ssh_hosts)
{
    static const struct {
        const char *url, *user, *name;
        uint32_t port;
        const char *path;
    } good[] = {
        { "ssh://far", NULL, "far", 0, NULL },
        { "ssh://far/", NULL, "far", 0, NULL },
        { "ssh://me@far.example:2222/run/s", "me", "far.example", 2222, "/run/s" },
        { "ssh://me@dom@far", NULL, NULL, 0, NULL },
        { "ssh://[::1]:22", NULL, "::1", 22, NULL },
        { "ssh://me@[fe80::1%eth0]/s", "me", "fe80::1%eth0", 0, "/s" },
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct host h = { 0 };
        struct err e = ERR_INIT;
        if (!good[i].name) {
            ASSERT_ERR(host_parse(good[i].url, &h, &e), e, ERR_USAGE);
            continue;
        }
        ASSERT_OK(host_parse(good[i].url, &h, &e), e);
        ASSERT_EQ(h.kind, HOST_SSH);
        ASSERT_STREQ(h.user, good[i].user);
        ASSERT_STREQ(h.name, good[i].name);
        ASSERT_EQ(h.port, good[i].port);
        ASSERT_STREQ(h.path, good[i].path);
        host_done(&h);
    }
}

TEST(what_is_no_host)
{
    static const char *const bad[] = {
        "", "unix://", "unix://relative", "/run/x", "ssh://", "ssh://-oProxyCommand=x",
        "ssh://@far", "ssh://-l@far", "ssh://far:0", "ssh://far:65536", "ssh://far:",
        "ssh://far:x", "ssh://[::1", "ssh://[::1]x", "ssh://a b", "ssh://a;b", "ssh://$(x)",
        "tcp://far:1", "http://far", "far",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct host h = { 0 };
        struct err e = ERR_INIT;
        ASSERT_ERR(host_parse(bad[i], &h, &e), e, ERR_USAGE);
        ASSERT_NULL(h.url);
    }
}

TEST(which_of_them_counts)
{
    struct host h = { 0 };
    struct err e = ERR_INIT;

    unsetenv("SBX_HOST");
    unsetenv("SBX_SOCKET");
    ASSERT_OK(host_init(&h, NULL, &e), e);
    ASSERT_STREQ(h.path, API_SOCKET_DEFAULT);
    host_done(&h);
    setenv("SBX_SOCKET", "/a", 1);
    ASSERT_OK(host_init(&h, NULL, &e), e);
    ASSERT_STREQ(h.path, "/a");
    host_done(&h);
    setenv("SBX_HOST", "unix:///b", 1);
    ASSERT_OK(host_init(&h, NULL, &e), e);
    ASSERT_STREQ(h.path, "/b");
    host_done(&h);
    ASSERT_OK(host_init(&h, "unix:///c", &e), e);
    ASSERT_STREQ(h.path, "/c");
    host_done(&h);
    setenv("SBX_HOST", "", 1);
    setenv("SBX_SOCKET", "a", 1);
    ASSERT_ERR(host_init(&h, NULL, &e), e, ERR_USAGE);
}

/* Another process may not take the place of sbx at the socket made for libcurl. */
TEST(only_we_reach_ssh)
{
    struct host h = { 0 };
    struct host_dial d;
    struct err e = ERR_INIT;

    ASSERT_OK(host_parse("ssh://far", &h, &e), e);
    ASSERT_OK(host_dial_prepare(&h, &d, &e), e);
    ASSERT_TRUE(d.pending);
    if (fork() == 0) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (const struct sockaddr *)&d.address, d.len) < 0)
            _exit(1);
        sleep(5);
        _exit(0);
    }
    for (int i = 0; i < 20; i++) {
        ASSERT_OK(host_dial_accept(&h, &d, &e), e);
        ASSERT_TRUE(d.pending);
        usleep(10000);
    }
    host_dial_done(&d);
    host_done(&h);
}
