/* SPDX-License-Identifier: MIT */
#include "common/frame.h"
#include "common/auto.h"
#include "tests/harness/test.h"

#include <stdlib.h>
#include <string.h>

static uint8_t buf[2 * LIMIT_EXEC_BYTES];
static const char *const none[] = { NULL };

TEST(integers_are_little_endian)
{
    struct wire_out o = { .p = buf, .cap = 15 };
    static const uint8_t want[] = { 1, 3, 2, 7, 6, 5, 4, 0xf, 0xe, 0xd, 0xc, 0xb, 0xa, 9, 8 };

    wire_put_u8(&o, 1);
    wire_put_u16(&o, 0x0203);
    wire_put_u32(&o, 0x04050607);
    wire_put_u64(&o, 0x08090a0b0c0d0e0full);
    ASSERT_FALSE(o.bad);
    ASSERT_MEMEQ(buf, o.len, want, sizeof(want));
    struct wire_in i = { .p = buf, .left = o.len };
    ASSERT_EQ(wire_get_u8(&i), 1);
    ASSERT_EQ(wire_get_u16(&i), 0x0203);
    ASSERT_EQ(wire_get_u32(&i), 0x04050607);
    ASSERT_EQ(wire_get_u64(&i), 0x08090a0b0c0d0e0full);
    ASSERT_EQ(i.left, 0);
    ASSERT_FALSE(i.bad);
    wire_put_u8(&o, 1);
    ASSERT_TRUE(o.bad);
}

TEST(the_first_failure_is_for_good)
{
    struct wire_in i = { .p = (const uint8_t *)"abcdefg", .left = 7 };
    uint32_t len = 5;

    ASSERT_EQ(wire_get_u64(&i), 0);
    ASSERT_TRUE(i.bad);
    ASSERT_EQ(wire_get_u8(&i), 0);      /* though there would be one */
    ASSERT_NULL(wire_get_str(&i, 100, &len));
    ASSERT_EQ(len, 0);
    struct wire_out o = { .p = buf, .cap = 3 };
    wire_put_u32(&o, 1);
    wire_put_u8(&o, 1);
    ASSERT_TRUE(o.bad);
    ASSERT_EQ(o.len, 0);
}

TEST(strings_have_a_limit_and_no_nul)
{
    struct wire_out o = { .p = buf, .cap = sizeof(buf) };
    uint32_t len = 0;
    struct wire_in i;

    wire_put_str(&o, "hello");
    i = (struct wire_in){ .p = buf, .left = o.len };
    const char *s = wire_get_str(&i, 5, &len);
    ASSERT_MEMEQ(s, len, "hello", 5);
    i = (struct wire_in){ .p = buf, .left = o.len };
    ASSERT_NULL(wire_get_str(&i, 4, &len));
    ASSERT_TRUE(i.bad);
    i = (struct wire_in){ .p = buf, .left = o.len - 1 };
    ASSERT_NULL(wire_get_str(&i, 100, &len));
    buf[6] = '\0';
    i = (struct wire_in){ .p = buf, .left = o.len };
    ASSERT_NULL(wire_get_str(&i, 100, &len));
    ASSERT_TRUE(i.bad);
    memset(buf, 0xff, 4);       /* a length of 4 GiB */
    i = (struct wire_in){ .p = buf, .left = o.len };
    ASSERT_NULL(wire_get_str(&i, UINT32_MAX, &len));
    i = (struct wire_in){ .p = (const uint8_t *)"\0\0\0\0", .left = 4 };
    ASSERT_NOT_NULL(wire_get_str(&i, 0, &len));
    ASSERT_EQ(len, 0);
    ASSERT_FALSE(i.bad);
}

TEST(a_configuration_comes_back_and_no_part_of_it)
{
    static const char *const env[] = { "A=1", "B=two words", "C=", NULL };
    struct guest_config c = { "box", 2, 123456789012345ull, env };
    struct guest_config_in in = { 0 };
    struct err e = ERR_INIT;
    size_t len = 0;

    ASSERT_OK(guest_config_encode(&c, buf, sizeof(buf), &len, &e), e);
    ASSERT_OK(guest_config_decode(buf, len, &in, &e), e);
    ASSERT_STREQ(in.hostname, "box");
    ASSERT_EQ(in.workspace, 2);
    ASSERT_EQ(in.realtime_ns, 123456789012345ull);
    ASSERT_STREQ(in.env[1], "B=two words");
    ASSERT_NULL(in.env[3]);
    guest_config_in_done(&in);
    ASSERT_NULL(in.hostname);
    for (size_t n = 0; n < len; n++) {
        autofree uint8_t *exact = malloc(n + 1);

        memcpy(exact, buf, n);
        ASSERT_ERR(guest_config_decode(exact, n, &in, &e), e, ERR_INVALID);
        ASSERT_NULL(in.env);
        ASSERT_ERR(guest_config_encode(&c, buf, n, &(size_t){ 0 }, &e), e, ERR_TOO_LARGE);
        ASSERT_OK(guest_config_encode(&c, buf, len, &(size_t){ 0 }, &e), e);
    }
    ASSERT_ERR(guest_config_decode(buf, len + 1, &in, &e), e, ERR_INVALID);
}

static int decode_config(const struct guest_config *c)
{
    struct guest_config_in in = { 0 };
    struct err e = ERR_INIT;
    size_t len = 0;
    int rc;

    ASSERT_OK(guest_config_encode(c, buf, sizeof(buf), &len, &e), e);
    rc = guest_config_decode(buf, len, &in, &e);
    guest_config_in_done(&in);
    return rc;
}

TEST(configurations_without_sense)
{
    static const char *no_equals[] = { "A", NULL }, *no_key[] = { "=x", NULL };
    static const char *many[LIMIT_ENV + 2];
    char name[LIMIT_NAME + 2];

    memset(name, 'n', sizeof(name));
    name[LIMIT_NAME + 1] = '\0';
    ASSERT_EQ(decode_config(&(struct guest_config){ name, 0, 0, none }), -1);
    name[LIMIT_NAME] = '\0';
    ASSERT_EQ(decode_config(&(struct guest_config){ name, 0, 0, none }), 0);
    ASSERT_EQ(decode_config(&(struct guest_config){ "b", 3, 0, none }), -1);
    ASSERT_EQ(decode_config(&(struct guest_config){ "b", 0, 0, no_equals }), -1);
    ASSERT_EQ(decode_config(&(struct guest_config){ "b", 0, 0, no_key }), -1);
    for (size_t i = 0; i <= LIMIT_ENV; i++)
        many[i] = "A=1";
    ASSERT_EQ(decode_config(&(struct guest_config){ "b", 0, 0, many }), -1);
    many[LIMIT_ENV] = NULL;
    ASSERT_EQ(decode_config(&(struct guest_config){ "b", 0, 0, many }), 0);
}

TEST(a_command_comes_back_and_no_part_of_it)
{
    static const char *const argv[] = { "sh", "-c", "", NULL }, *const env[] = { "X=y", NULL };
    struct exec_wire x = { argv, env, "/tmp", "root", 1, 1, 50, 132, 1000, 4096 };
    struct exec_wire_in in = { 0 };
    struct err e = ERR_INIT;
    size_t len = 0;

    ASSERT_OK(exec_wire_encode(&x, buf, sizeof(buf), &len, &e), e);
    ASSERT_OK(exec_wire_decode(buf, len, &in, &e), e);
    ASSERT_STREQ(in.argv[1], "-c");
    ASSERT_STREQ(in.argv[2], "");
    ASSERT_NULL(in.argv[3]);
    ASSERT_STREQ(in.env[0], "X=y");
    ASSERT_STREQ(in.workdir, "/tmp");
    ASSERT_STREQ(in.user, "root");
    ASSERT_EQ(in.tty + in.stdin_open, 2);
    ASSERT_EQ(in.rows, 50);
    ASSERT_EQ(in.cols, 132);
    ASSERT_EQ(in.timeout_ms, 1000);
    ASSERT_EQ(in.credit, 4096);
    exec_wire_in_done(&in);
    for (size_t n = 0; n < len; n++) {
        autofree uint8_t *exact = malloc(n + 1);

        memcpy(exact, buf, n);
        ASSERT_ERR(exec_wire_decode(exact, n, &in, &e), e, ERR_INVALID);
        ASSERT_NULL(in.argv);
    }
    ASSERT_ERR(exec_wire_decode(buf, len + 1, &in, &e), e, ERR_INVALID);
    x.workdir = x.user = NULL;
    x.env = NULL;
    ASSERT_OK(exec_wire_encode(&x, buf, sizeof(buf), &len, &e), e);
    ASSERT_OK(exec_wire_decode(buf, len, &in, &e), e);
    ASSERT_STREQ(in.workdir, "");
    exec_wire_in_done(&in);
}

static int decode_exec(const struct exec_wire *x)
{
    struct exec_wire_in in = { 0 };
    struct err e = ERR_INIT;
    size_t len = 0;
    int rc;

    ASSERT_OK(exec_wire_encode(x, buf, sizeof(buf), &len, &e), e);
    rc = exec_wire_decode(buf, len, &in, &e);
    exec_wire_in_done(&in);
    return rc;
}

TEST(commands_without_sense)
{
    static const char *const ok[] = { "a", NULL }, *const empty[] = { "", NULL };
    static const char *const bad_env[] = { "=1", NULL };
    static const char *many[LIMIT_ARGV + 2];
    static char arg[LIMIT_ARG_BYTES + 2];
    struct exec_wire x = { .argv = ok, .env = none };

    ASSERT_EQ(decode_exec(&x), 0);
    x.argv = none;
    ASSERT_EQ(decode_exec(&x), -1);
    x.argv = empty;
    ASSERT_EQ(decode_exec(&x), -1);
    x = (struct exec_wire){ .argv = ok, .env = bad_env };
    ASSERT_EQ(decode_exec(&x), -1);
    x = (struct exec_wire){ .argv = ok, .env = none, .tty = 2 };
    ASSERT_EQ(decode_exec(&x), -1);
    x = (struct exec_wire){ .argv = ok, .env = none, .stdin_open = 2 };
    ASSERT_EQ(decode_exec(&x), -1);
    x = (struct exec_wire){ .argv = ok, .env = none, .timeout_ms = LIMIT_EXEC_TIMEOUT };
    ASSERT_EQ(decode_exec(&x), 0);
    x.timeout_ms++;
    ASSERT_EQ(decode_exec(&x), -1);
    for (size_t i = 0; i <= LIMIT_ARGV; i++)
        many[i] = "a";
    x = (struct exec_wire){ .argv = many, .env = none };
    ASSERT_EQ(decode_exec(&x), -1);
    many[LIMIT_ARGV] = NULL;
    ASSERT_EQ(decode_exec(&x), 0);
    memset(arg, 'x', LIMIT_ARG_BYTES + 1);
    x.argv = (const char *const[]){ arg, NULL };
    ASSERT_EQ(decode_exec(&x), -1);
    arg[LIMIT_ARG_BYTES] = '\0';
    ASSERT_EQ(decode_exec(&x), 0);
    arg[LIMIT_USER + 1] = '\0';
    x = (struct exec_wire){ .argv = ok, .env = none, .user = arg };
    ASSERT_EQ(decode_exec(&x), -1);
}

TEST(a_count_alone_allocates_nothing)
{
    static const uint8_t huge[] = { 0, 4, 0, 0, 1, 0, 0, 0, 'a' }, most[] = { 255, 255, 255, 255 };
    struct exec_wire_in in = { 0 };
    struct err e = ERR_INIT;

    ASSERT_ERR(exec_wire_decode(huge, sizeof(huge), &in, &e), e, ERR_INVALID);
    ASSERT_ERR(exec_wire_decode(most, sizeof(most), &in, &e), e, ERR_INVALID);
}

TEST(a_command_has_a_largest_size)
{
    static char arg[LIMIT_ARG_BYTES];
    const char *argv[] = { "x", arg, arg, NULL };
    struct exec_wire x = { .argv = argv, .env = none };
    struct err e = ERR_INIT;
    size_t len = 0, over;

    memset(arg, 'x', sizeof(arg) - 1);
    ASSERT_ERR(exec_wire_encode(&x, buf, sizeof(buf), &len, &e), e, ERR_TOO_LARGE);
    argv[2] = NULL;
    ASSERT_OK(exec_wire_encode(&x, buf, sizeof(buf), &len, &e), e);
    over = LIMIT_EXEC_BYTES - len - 4;      /* what a second may have */
    argv[2] = arg + sizeof(arg) - 1 - over;
    ASSERT_OK(exec_wire_encode(&x, buf, sizeof(buf), &len, &e), e);
    ASSERT_EQ(len, LIMIT_EXEC_BYTES);
    argv[2]--;
    ASSERT_ERR(exec_wire_encode(&x, buf, sizeof(buf), &len, &e), e, ERR_TOO_LARGE);
}

TEST(a_network_comes_back_and_no_part_of_it)
{
    struct guest_net n = { { 2, 0x5b, 0x78, 1, 0, 7 }, { 2, 0x5b, 0x78, 0, 0, 1 }, 0x0ad10008,
                           0x0ad10001, 0x0ad10001, 1450 };
    struct guest_net in = { 0 };
    struct err e = ERR_INIT;

    ASSERT_EQ(guest_net_encode(&n, buf, GUEST_NET_BYTES - 1), 0);
    ASSERT_EQ(guest_net_encode(&n, buf, sizeof(buf)), GUEST_NET_BYTES);
    ASSERT_OK(guest_net_decode(buf, GUEST_NET_BYTES, &in, &e), e);
    ASSERT_MEMEQ(in.mac, 6, n.mac, 6);
    ASSERT_MEMEQ(in.gateway_mac, 6, n.gateway_mac, 6);
    ASSERT_EQ(in.address, n.address);
    ASSERT_EQ(in.gateway, n.gateway);
    ASSERT_EQ(in.resolver, n.resolver);
    ASSERT_EQ(in.mtu, n.mtu);
    for (size_t len = 0; len < GUEST_NET_BYTES; len++) {
        autofree uint8_t *exact = malloc(len + 1);

        memcpy(exact, buf, len);
        ASSERT_ERR(guest_net_decode(exact, len, &in, &e), e, ERR_INVALID);
    }
    /* of a newer daemon */
    ASSERT_OK(guest_net_decode(buf, GUEST_NET_BYTES + 9, &in, &e), e);
}

static int decode_net(struct guest_net n)
{
    struct guest_net in;
    struct err e = ERR_INIT;

    return guest_net_decode(buf, guest_net_encode(&n, buf, sizeof(buf)), &in, &e);
}

TEST(networks_without_sense)
{
    const struct guest_net ok = { { 2 }, { 2, 1 }, 0x0a000002, 0x0a000001, 0, 1500 };
    struct guest_net n;

    ASSERT_EQ(decode_net(ok), 0);
    n = ok, n.mac[0] = 3;                   /* a group's */
    ASSERT_EQ(decode_net(n), -1);
    n = ok, n.mac[0] = 0;
    ASSERT_EQ(decode_net(n), -1);
    n = ok, n.gateway_mac[0] = 0xff;
    ASSERT_EQ(decode_net(n), -1);
    n = ok, n.address = 0;
    ASSERT_EQ(decode_net(n), -1);
    n = ok, n.address = n.gateway;
    ASSERT_EQ(decode_net(n), -1);
    n = ok, n.gateway = 0x7f000001;
    ASSERT_EQ(decode_net(n), -1);
    n = ok, n.resolver = 0xe0000001;
    ASSERT_EQ(decode_net(n), -1);
    n = ok, n.mtu = 575;
    ASSERT_EQ(decode_net(n), -1);
}
