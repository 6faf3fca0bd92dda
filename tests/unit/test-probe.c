/* SPDX-License-Identifier: MIT
 *
 * What the list of probes may look like, and what DNS answers say. The probes themselves are shown
 * in tests/integration/test_probe.py.
 */
#include "guest/probe.h"
#include "common/auto.h"
#include "tests/harness/test.h"

#include <stdlib.h>
#include <string.h>

static struct probe take(const char *line)
{
    struct probe p;
    struct err e = ERR_INIT;

    ASSERT_OK(probe_parse(line, &p, &e), e);
    return p;
}

TEST(a_line_with_everything)
{
    static const uint8_t mac[] = { 2, 0x5b, 0x78, 1, 0xab, 7 };
    struct probe p = take(" { \"id\" : 4294967295 ,\"kind\":\"spoof-mac\", "
                          "\"address\":\"192.0.2.1\",\"port\":443,\"vlan\":7,\"protocol\":47,"
                          "\"mac\":\"02:5b:78:01:ab:07\","
                          "\"source\":\"10.0.0.1\",\"ethertype\":35020,\"transport\":\"tcp\","
                          "\"qtype\":28,\"size\":100,\"timeout_ms\":700,\"name\":\"a\\/b\"} ");

    ASSERT_EQ(p.id, UINT32_MAX);
    ASSERT_EQ(p.kind, PROBE_SPOOF_MAC);
    ASSERT_EQ(p.address, 0xc0000201);
    ASSERT_EQ(p.source, 0x0a000001);
    ASSERT_EQ(p.port, 443);
    ASSERT_MEMEQ(p.mac, 6, mac, 6);
    ASSERT_EQ(p.vlan, 7);
    ASSERT_EQ(p.protocol, 47);
    ASSERT_EQ(p.ethertype, 0x88cc);
    ASSERT_TRUE(p.tcp);
    ASSERT_EQ(p.qtype, 28);
    ASSERT_EQ(p.size, 100);
    ASSERT_EQ(p.timeout_ms, 700);
    ASSERT_STREQ(p.name, "a/b");
}

TEST(what_is_not_said_is_usual)
{
    struct probe p = take("{\"kind\":\"dns\",\"name\":\"example.com\"}");

    ASSERT_EQ(p.id, 0);
    ASSERT_EQ(p.timeout_ms, PROBE_MS);
    ASSERT_EQ(p.qtype, 1);
    ASSERT_FALSE(p.tcp);
    ASSERT_EQ(p.given, PN_NAME);
}

TEST(lines_without_sense)
{
    static const char *const bad[] = {
        "", "{", "{}", "[]", "null", "{\"kind\":\"tcp\"}", "{\"kind\":\"nothing\"}",
        "{\"kind\":5}", "{\"kind\":\"ipv6-rs\"}x", "{\"kind\":\"ipv6-rs\",}",
        "{\"kind\":\"ipv6-rs\"", "{\"kind\":\"ipv6-rs\" \"id\":1}", "{kind:\"ipv6-rs\"}",
        "{\"kind\":\"ipv6-rs\",\"id\":-1}", "{\"kind\":\"ipv6-rs\",\"id\":01}",
        "{\"kind\":\"ipv6-rs\",\"id\":4294967296}", "{\"kind\":\"ipv6-rs\",\"id\":\"1\"}",
        "{\"kind\":\"ipv6-rs\",\"id\":1.5}", "{\"kind\":\"ipv6-rs\",\"id\":true}",
        "{\"kind\":\"ipv6-rs\",\"id\":{}}", "{\"kind\":\"ipv6-rs\",\"what\":1}",
        "{\"kind\":\"ipv6-rs\",\"timeout_ms\":0}", "{\"kind\":\"ipv6-rs\",\"timeout_ms\":60000}",
        "{\"kind\":\"ipv6-rs\",\"size\":1201}", "{\"kind\":\"ipv6-rs\",\"port\":0}",
        "{\"kind\":\"ipv6-rs\",\"port\":65536}", "{\"kind\":\"ipv6-rs\",\"vlan\":4096}",
        "{\"kind\":\"ipv6-rs\",\"mac\":\"02:5b:78:01:ab:0\"}",
        "{\"kind\":\"ipv6-rs\",\"mac\":\"02-5b-78-01-ab-07\"}",
        "{\"kind\":\"ipv6-rs\",\"mac\":\"02:5b:78:01:ab:0G\"}",
        "{\"kind\":\"ipv6-rs\",\"address\":\"1.2.3\"}",
        "{\"kind\":\"ipv6-rs\",\"address\":\"::1\"}",
        "{\"kind\":\"ipv6-rs\",\"address\":16909060}", "{\"kind\":\"ipv6-rs\",\"name\":\"\"}",
        "{\"kind\":\"ipv6-rs\",\"name\":\"a\\u0041\"}", "{\"kind\":\"ipv6-rs\",\"name\":\"a\tb\"}",
        "{\"kind\":\"ipv6-rs\",\"name\":\"\xc3\xbc\"}", "{\"kind\":\"ipv6-rs\",\"name\":\"a\\",
        "{\"kind\":\"ipv6-rs\",\"protocol\":255}", "{\"kind\":\"ipv6-rs\",\"transport\":\"sctp\"}",
        "{\"kind\":\"ipv6-rs\",\"kindkindkindkindkindkindkindkind\":1}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct probe p;
        struct err e = ERR_INIT;
        autofree char *exact = strdup(bad[i]);      /* for the address sanitizer */

        if (probe_parse(exact, &p, &e) == 0)
            FAIL("taken: %s", bad[i]);
        ASSERT_NE(e.msg[0], '\0');
    }
}

TEST(no_part_of_a_line_is_one)
{
    static const char line[] = "{\"id\":1,\"kind\":\"dns-at\",\"name\":\"a.b\","
                               "\"address\":\"9.9.9.9\"}";

    for (size_t n = 0; n < sizeof(line) - 1; n++) {
        autofree char *part = strndup(line, n);
        struct probe p;
        struct err e = ERR_INIT;

        ASSERT_LT(probe_parse(part, &p, &e), 0);
    }
}

TEST(the_id_is_known_when_the_rest_is_not)
{
    struct probe p;
    struct err e = ERR_INIT;

    ASSERT_LT(probe_parse("{\"id\":7,\"kind\":\"teleport\"}", &p, &e), 0);
    ASSERT_EQ(p.id, 7);
    ASSERT_STREQ(probe_kind_name(p.kind), "unknown");
}

TEST(questions)
{
    static const uint8_t want[] = { 0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 2, 'b', 'c',
                                    0, 0, 1, 0, 1 };
    struct probe p = { .name = "a.bc", .qtype = 1 };
    uint8_t b[512];

    ASSERT_MEMEQ(b, probe_dns_query(&p, 0x1234, b, sizeof(b)), want, sizeof(want));
    memcpy(p.name, "a.bc.", 6);
    ASSERT_MEMEQ(b, probe_dns_query(&p, 0x1234, b, sizeof(b)), want, sizeof(want));
    static const char *const bad[] = { "", ".", "a..b", ".a", "a..",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        memset(p.name, 0, sizeof(p.name));
        memcpy(p.name, bad[i], strlen(bad[i]));
        ASSERT_EQ(probe_dns_query(&p, 1, b, sizeof(b)), 0);
    }
    memset(p.name, 0, sizeof(p.name));
    for (size_t i = 0; i < PROBE_NAME; i++)
        p.name[i] = i % 2 ? '.' : 'a';
    ASSERT_EQ(probe_dns_query(&p, 1, b, sizeof(b)), 12 + PROBE_NAME + 2 + 4);
    ASSERT_EQ(probe_dns_query(&p, 1, b, 12 + PROBE_NAME + 5), 0);
}

/* a.bc: a CNAME and two addresses */
static const uint8_t answer[] = {
    0x12, 0x34, 0x81, 0x80, 0, 1, 0, 3, 0, 0, 0, 0, 1, 'a', 2, 'b', 'c', 0, 0, 1, 0, 1,
    0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 3, 1, 'd', 0,
    1, 'd', 0, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1,
    0xc0, 38, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 2,
};

TEST(answers)
{
    struct probe_result r = { 0 };
    uint8_t b[sizeof(answer)];

    ASSERT_TRUE(probe_dns_answer(answer, sizeof(answer), 0x1234, &r));
    ASSERT_EQ(r.seen, SEEN_RESOLVED);
    ASSERT_EQ(r.n_addresses, 2);
    ASSERT_EQ(r.addresses[0], 0xc0000201);
    ASSERT_EQ(r.addresses[1], 0xc0000202);
    ASSERT_FALSE(probe_dns_answer(answer, sizeof(answer), 0x1235, &r));
    ASSERT_FALSE(probe_dns_answer(answer, 11, 0x1234, &r));
    memcpy(b, answer, sizeof(b));
    static const struct { uint8_t rcode; enum probe_seen seen; } codes[] = {
        { 1, SEEN_DNSERROR }, { 2, SEEN_SERVFAIL }, { 3, SEEN_NXDOMAIN }, { 5, SEEN_REFUSED } };
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        b[3] = codes[i].rcode;
        r = (struct probe_result){ 0 };
        ASSERT_TRUE(probe_dns_answer(b, sizeof(b), 0x1234, &r));
        ASSERT_EQ(r.seen, codes[i].seen);
        ASSERT_EQ(r.rcode, codes[i].rcode);
        ASSERT_EQ(r.n_addresses, 0);
    }
    b[3] = b[7] = 0;
    ASSERT_TRUE(probe_dns_answer(b, sizeof(b), 0x1234, &r));
    ASSERT_EQ(r.seen, SEEN_EMPTY);
    b[2] = 1;       /* a question */
    ASSERT_FALSE(probe_dns_answer(b, sizeof(b), 0x1234, &r));
}

TEST(torn_and_broken_answers)
{
    for (size_t n = 0; n <= sizeof(answer); n++) {
        autofree uint8_t *exact = malloc(n + 1);
        struct probe_result r = { 0 };

        memcpy(exact, answer, n);
        (void)probe_dns_answer(exact, n, 0x1234, &r);
        ASSERT_LE(r.n_addresses, 2);
    }
    for (size_t i = 4; i < sizeof(answer); i++) {
        for (unsigned v = 0; v < 256; v++) {
            autofree uint8_t *b = malloc(sizeof(answer));
            struct probe_result r = { 0 };

            memcpy(b, answer, sizeof(answer));
            b[i] = (uint8_t)v;
            (void)probe_dns_answer(b, sizeof(answer), 0x1234, &r);
            ASSERT_LE(r.n_addresses, PROBE_ADDRESSES);
        }
    }
}

TEST(prohibited_and_otherwise_lost)
{
    struct probe_result r = { 0 };

    probe_say_icmp(&r, 3, 13, 0x0ad10001);
    ASSERT_EQ(r.seen, SEEN_PROHIBITED);
    ASSERT_CONTAINS(r.text, "10.209.0.1");
    probe_say_icmp(&r, 3, 1, 0);
    ASSERT_EQ(r.seen, SEEN_UNREACHABLE);
    probe_say_icmp(&r, 11, 13, 0);
    ASSERT_EQ(r.seen, SEEN_UNREACHABLE);
}
