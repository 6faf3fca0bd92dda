/* SPDX-License-Identifier: MIT
 *
 * Rules as people write them, in and out, and what follows from them.
 */
#include "common/auto.h"
#include "common/policy.h"
#include "tests/harness/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define A63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define N253 A63 "." A63 "." A63 "." "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

/* Text, and its canonical form. */
static const char *const good[][2] = {
    { "example.com", "example.com" },
    { "EXAMPLE.Com", "example.com" },
    { "example.com.", "example.com" },
    { "intranet", "intranet" },
    { "_dmarc.example.com", "_dmarc.example.com" },
    { "a-b.c--d.example", "a-b.c--d.example" },
    { "1.example", "1.example" },
    { "1.2.3.example", "1.2.3.example" },
    { "x.1a", "x.1a" },
    { "*.example.com", "*.example.com" },
    { "**.Example.COM.", "**.example.com" },
    { "b\xc3\xbc" "cher.example", "xn--bcher-kva.example" },
    { "B\xc3\x9c" "CHER.example", "xn--bcher-kva.example" },
    { "bu\xcc\x88" "cher.example", "xn--bcher-kva.example" },
    { "*.b\xc3\xbc" "cher.example:443", "*.xn--bcher-kva.example:443" },
    { "fa\xc3\x9f.example", "xn--fa-hia.example" },
    { "XN--BCHER-KVA.example", "xn--bcher-kva.example" },
    { "example\xe3\x80\x82" "com", "example.com" },
    { "a\xe2\x80\x8b" "b.example", "ab.example" },     /* UTS 46 passes over what has no width */
    { "example.com:443", "example.com:443" },
    { "example.com:1-65535", "example.com:1-65535" },
    { "example.com:80-80", "example.com:80" },
    { "example.com:53/udp", "example.com:53/udp" },
    { "example.com/tcp", "example.com/tcp" },
    { "192.0.2.7", "192.0.2.7" },
    { "192.0.2.7/32", "192.0.2.7" },
    { "10.0.0.0/8", "10.0.0.0/8" },
    { "0.0.0.0/0", "0.0.0.0/0" },
    { "10.0.0.0/8:22/tcp", "10.0.0.0/8:22/tcp" },
    { "10.0.0.0/8/udp", "10.0.0.0/8/udp" },
    { A63 ".example", A63 ".example" },
    { N253, N253 },
    { N253 ".", N253 },
};

/* Text, and what the error says. */
static const char *const bad[][2] = {
    { "", "is empty" },
    { ".", "empty label" },
    { "..", "empty label" },
    { "example..com", "empty label" },
    { ".example.com", "empty label" },
    { "example.com..", "empty label" },
    { "*", "everything" },
    { "**", "everything" },
    { "*.com", "top-level" },
    { "**.com", "top-level" },
    { "*.", "empty" },
    { "a*.example.com", "whole labels" },
    { "a.*.example.com", "whole labels" },
    { "***.example.com", "whole labels" },
    { "*.*.example.com", "whole labels" },
    { "**.*.example.com", "whole labels" },
    { "-a.example", "begins or ends with a -" },
    { "a-.example", "begins or ends with a -" },
    { A63 "a.example", "more than 63" },
    { N253 "a", "more than 253" },
    { "exa mple.com", "blank or control" },
    { "example.com\n", "blank or control" },
    { "ex\tample.com", "blank or control" },
    { "\033[31m.com", "IPv6|blank or control|not the name" },
    { "ex\x7f.com", "blank or control" },
    { "exam;ple.com", "not the name" },
    { "exam\\ple.com", "not the name" },
    { "a@example.com", "not the name" },
    { "\xff.example", "international" },
    { "xn--a.example", "international" },
    { "xn--bcher-kv.example.com", "international" },
    { "1.2.3", "neither an address nor a name" },
    { "1.2.3.4.5", "neither an address nor a name" },
    { "256.1.1.1", "neither an address nor a name" },
    { "010.0.0.1", "neither an address nor a name" },
    { "0x7f.0x1", "neither an address nor a name" },
    { "2130706433", "neither an address nor a name" },
    { "10.0.0.1/8", "beyond its prefix" },
    { "10.0.0.0/33", "not a prefix" },
    { "10.0.0.0/", "protocol|prefix" },
    { "10.0.0.0/-1", "protocol|prefix" },
    { "example.com/24", "not an address" },
    { "example.com/icmp", "not a protocol" },
    { "example.com/TCP", "not a protocol" },
    { "example.com:", "not a port" },
    { "example.com:0", "not a port" },
    { "example.com:65536", "not a port" },
    { "example.com:80-", "not a port" },
    { "example.com:-80", "not a port" },
    { "example.com:90-80", "backwards" },
    { "example.com:http", "not a port" },
    { "example.com:80:90", "IPv6" },
    { "https://example.com/", "is a URL" },
    { "::1", "IPv6" },
    { "[::1]:80", "IPv6" },
    { "2001:db8::/32", "IPv6" },
};

TEST(targets_have_one_form)
{
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct err e = ERR_INIT;
        struct policy_target t, again;
        char text[POLICY_TARGET_TEXT], twice[POLICY_TARGET_TEXT];
        if (policy_target_parse(good[i][0], &t, &e) < 0)
            FAIL("%s: %s", good[i][0], e.msg);
        policy_target_format(&t, text);
        ASSERT_STREQ(text, good[i][1]);
        ASSERT_EQ(policy_target_parse(text, &again, &e), 0);
        policy_target_format(&again, twice);
        ASSERT_STREQ(twice, text);
    }
}

static bool says(const char *msg, const char *words)
{
    char copy[128], *save = NULL;

    snprintf(copy, sizeof(copy), "%s", words);
    for (char *w = strtok_r(copy, "|", &save); w; w = strtok_r(NULL, "|", &save))
        if (strstr(msg, w))
            return true;
    return false;
}

TEST(what_is_no_target_is_refused_with_a_reason)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err e = ERR_INIT;
        struct policy_target t = { .prefix = 77 };
        if (policy_target_parse(bad[i][0], &t, &e) == 0)
            FAIL("'%s' is a target", bad[i][0]);
        ASSERT_EQ(t.prefix, 77);
        if (!says(e.msg, bad[i][1]))
            FAIL("'%s': %s", bad[i][0], e.msg);
    }
}

static struct policy_rule *rules;
static size_t n_rules;

static void load(const char *text)
{
    struct err e = ERR_INIT;

    free(rules);
    rules = NULL;
    if (policy_rules_parse(text, strlen(text), &rules, &n_rules, &e) < 0)
        FAIL("%s", e.msg);
}

/* Index of the rule for allow; for deny, -10 minus it. */
static int ask(const char *name, const char *address, uint16_t port, uint8_t proto)
{
    struct policy_question q = { .name = name, .port = port, .proto = proto };
    struct policy_target t;
    struct err e = ERR_INIT;
    int rule = 99;

    if (address) {
        ASSERT_EQ(policy_target_parse(address, &t, &e), 0);
        q.address = t.address;
        q.has_address = true;
    }
    enum policy_verdict v = policy_decide(rules, n_rules, &q, &rule);
    return v == POLICY_ALLOW ? rule : -10 + rule;
}

#define DENIED_BY(rule) (-10 + (rule))
#define DEFAULT DENIED_BY(POLICY_BY_DEFAULT)
#define PLACE DENIED_BY(POLICY_BY_PLACE)

TEST(wildcards_mean_labels_and_never_the_zone_itself)
{
    load("allow *.one.example\nallow **.any.example\n");
    ASSERT_EQ(ask("a.one.example", NULL, 443, POLICY_TCP), 0);
    ASSERT_EQ(ask("one.example", NULL, 443, POLICY_TCP), DEFAULT);
    ASSERT_EQ(ask("a.b.one.example", NULL, 443, POLICY_TCP), DEFAULT);
    ASSERT_EQ(ask("xone.example", NULL, 443, POLICY_TCP), DEFAULT);
    ASSERT_EQ(ask("a.any.example", NULL, 443, POLICY_TCP), 1);
    ASSERT_EQ(ask("a.b.c.any.example", NULL, 443, POLICY_TCP), 1);
    ASSERT_EQ(ask("any.example", NULL, 443, POLICY_TCP), DEFAULT);
    ASSERT_EQ(ask("a.any.example.org", NULL, 443, POLICY_TCP), DEFAULT);
}

TEST(deny_wins_wherever_it_stands)
{
    load("deny bad.zone.example\nallow **.zone.example\ndeny **.zone.example:22\n");
    ASSERT_EQ(ask("bad.zone.example", NULL, 443, POLICY_TCP), DENIED_BY(0));
    ASSERT_EQ(ask("bad.zone.example", NULL, 443, POLICY_UDP), DENIED_BY(0));
    ASSERT_EQ(ask("ok.zone.example", NULL, 443, POLICY_TCP), 1);
    ASSERT_EQ(ask("ok.zone.example", NULL, 22, POLICY_TCP), DENIED_BY(2));
    ASSERT_EQ(ask("ok.zone.example", NULL, 443, POLICY_UDP), DEFAULT);      /* tcp unless said */
}

TEST(ports_and_protocols)
{
    load("allow a.example:80-90\nallow a.example:53/udp\nallow 93.184.216.0/24:443\n");
    ASSERT_EQ(ask("a.example", NULL, 79, POLICY_TCP), DEFAULT);
    ASSERT_EQ(ask("a.example", NULL, 80, POLICY_TCP), 0);
    ASSERT_EQ(ask("a.example", NULL, 90, POLICY_TCP), 0);
    ASSERT_EQ(ask("a.example", NULL, 91, POLICY_TCP), DEFAULT);
    ASSERT_EQ(ask("a.example", NULL, 53, POLICY_TCP), DEFAULT);
    ASSERT_EQ(ask("a.example", NULL, 53, POLICY_UDP), 1);
    ASSERT_EQ(ask(NULL, "93.184.216.34", 443, POLICY_TCP), 2);
    ASSERT_EQ(ask(NULL, "93.184.217.34", 443, POLICY_TCP), DEFAULT);
}

TEST(special_places_want_a_rule_of_their_own)
{
    static const char *const places[] = { "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.31.0.1",
                                          "192.168.1.1", "169.254.169.254", "169.254.1.1",
                                          "100.64.0.1", "100.100.100.200", "168.63.129.16",
                                          "224.0.0.251", "255.255.255.255", "240.0.0.1",
                                          "198.18.0.1", "192.0.2.1" };

    load("allow 0.0.0.0/0\nallow **.zone.example\n");
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        ASSERT_EQ(ask(NULL, places[i], 80, POLICY_TCP), PLACE);
        ASSERT_EQ(ask("a.zone.example", places[i], 80, POLICY_TCP), PLACE);     /* rebinding */
    }
    ASSERT_EQ(ask(NULL, "93.184.216.34", 80, POLICY_TCP), 0);
    ASSERT_EQ(ask(NULL, "172.32.0.1", 80, POLICY_TCP), 0);
    ASSERT_EQ(ask(NULL, "100.128.0.1", 80, POLICY_TCP), 0);
    load("allow 10.1.0.0/16\nallow 169.254.0.0/16\ndeny 10.1.9.0/24\n");
    ASSERT_EQ(ask(NULL, "10.1.2.3", 80, POLICY_TCP), 0);
    ASSERT_EQ(ask(NULL, "10.1.9.3", 80, POLICY_TCP), DENIED_BY(2));
    ASSERT_EQ(ask(NULL, "10.2.2.3", 80, POLICY_TCP), PLACE);
    ASSERT_EQ(ask(NULL, "169.254.1.1", 80, POLICY_TCP), 1);
    ASSERT_EQ(ask(NULL, "169.254.169.254", 80, POLICY_TCP), PLACE);     /* by its own name only */
}

static int ask_name(const char *name)
{
    int rule = 99;

    return policy_decide_name(rules, n_rules, name, &rule) == POLICY_ALLOW ? rule : -10 + rule;
}

TEST(a_name_is_answered_if_some_port_of_it_is_open)
{
    load("allow a.example:443\ndeny b.example\nallow b.example\nallow c.example:1-100\n"
         "deny c.example:1-99\nallow d.example:80\ndeny d.example:80/tcp\n");
    ASSERT_EQ(ask_name("a.example"), 0);
    ASSERT_EQ(ask_name("b.example"), DENIED_BY(1));
    ASSERT_EQ(ask_name("c.example"), 3);
    ASSERT_EQ(ask_name("d.example"), DENIED_BY(6));
    ASSERT_EQ(ask_name("e.example"), DEFAULT);
    load("allow 0.0.0.0/0\ndeny **.ads.example\n");
    ASSERT_EQ(ask_name("any.example"), 0);
    ASSERT_EQ(ask_name("x.ads.example"), DENIED_BY(1));
    load("allow 93.184.216.0/24\n");
    ASSERT_EQ(ask_name("any.example"), DEFAULT);
}

TEST(a_name_is_asked_only_if_policy_and_ceiling_open_the_same_port)
{
    static const struct {
        const char *own, *ceiling;
        bool open, by_ceiling;
        int rule;
    } cases[] = {
        { "allow x.example:443", "allow 0.0.0.0/0:80", false, true, POLICY_BY_DEFAULT },
        { "allow x.example:443", "allow 0.0.0.0/0:443/udp", false, true, POLICY_BY_DEFAULT },
        { "allow x.example:443", "allow 0.0.0.0/0\ndeny x.example:400-500", false, true, 1 },
        { "allow x.example:443", "deny x.example:22", false, true, POLICY_BY_DEFAULT },
        { "allow x.example:443", "allow 0.0.0.0/0:443", true, false, 0 },
        { "allow x.example:80\nallow x.example:1-500", "allow 0.0.0.0/0:443", true, false, 1 },
        { "allow x.example:1-500", "allow 0.0.0.0/0:4-600\ndeny x.example:1-499", true, false, 0 },
        { "allow x.example:1-500", "allow 0.0.0.0/0:4-600\ndeny x.example:1-500", false, true, 1 },
        { "allow x.example\ndeny x.example:1-500", "allow x.example:1-501", true, false, 0 },
        { "allow x.example\ndeny x.example:1-500", "allow x.example:1-500", false, true, -1 },
        { "deny x.example", "allow x.example", false, false, 0 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        autofree struct policy_rule *ceiling = NULL;
        struct err e = ERR_INIT;
        size_t n = 0;
        load(cases[i].own);
        ASSERT_OK(policy_rules_parse(cases[i].ceiling, strlen(cases[i].ceiling), &ceiling, &n, &e),
                  e);
        struct policy p = { rules, n_rules, ceiling, n };
        struct policy_ruling r = policy_judge_name(&p, "x.example");
        if ((r.verdict == POLICY_ALLOW) != cases[i].open || r.by_ceiling != cases[i].by_ceiling ||
            r.rule != cases[i].rule)
            FAIL("%s below %s: %s by %d%s", cases[i].own, cases[i].ceiling,
                 r.verdict == POLICY_ALLOW ? "allow" : "deny", r.rule,
                 r.by_ceiling ? " of the ceiling" : "");
    }
}

TEST(files_are_taken_whole_or_not_at_all)
{
    static const struct {
        const char *text, *says;
    } wrong[] = {
        { "allow a.example\nallow\n", "line 2: there is nothing after allow" },
        { "allow a.example\n\n# note\npermit b.example\n", "line 4: 'permit' is neither" },
        { "allow a.example b.example", "line 1: there is more than one target" },
        { "deny *.com # all of it", "line 1: '*.com' would be a whole top-level domain" },
        { "ALLOW a.example", "line 1: 'ALLOW' is neither" },
    };

    load("");
    ASSERT_EQ(n_rules, 0);
    load("# a comment\r\n\r\n  allow\tA.example:443 # why\r\ndeny b.example");
    ASSERT_EQ(n_rules, 2);
    ASSERT_STREQ(rules[0].target.name, "a.example");
    ASSERT_EQ(rules[1].verdict, POLICY_DENY);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct err e = ERR_INIT;
        struct policy_rule *none = NULL;
        size_t n = 7;
        ASSERT_EQ(policy_rules_parse(wrong[i].text, strlen(wrong[i].text), &none, &n, &e), -1);
        ASSERT_TRUE(none == NULL && n == 7);
        if (!strstr(e.msg, wrong[i].says))
            FAIL("%s", e.msg);
    }
    struct err e = ERR_INIT;
    struct policy_rule *none = NULL;
    size_t n = 0;
    ASSERT_EQ(policy_rules_parse("allow a\0b", 9, &none, &n, &e), -1);
    ASSERT_TRUE(strstr(e.msg, "NUL") != NULL);
}

TEST(a_policy_has_a_most)
{
    autofree char *text = malloc(32 * (POLICY_RULES_MAX + 1));
    struct err e = ERR_INIT;
    struct policy_rule *many = NULL;
    size_t n = 0, at = 0;

    for (int i = 0; i < POLICY_RULES_MAX; i++)
        at += (size_t)snprintf(text + at, 32, "allow h%d.example\n", i);
    ASSERT_EQ(policy_rules_parse(text, at, &many, &n, &e), 0);
    ASSERT_EQ(n, POLICY_RULES_MAX);
    free(many);
    at += (size_t)snprintf(text + at, 32, "allow last.example\n");
    many = NULL;
    ASSERT_EQ(policy_rules_parse(text, at, &many, &n, &e), -1);
    ASSERT_TRUE(strstr(e.msg, "line 1001: more than 1000 rules") != NULL);
}

/* --- what a filter is told is what is decided --- */

static uint32_t pick(unsigned *seed, const uint32_t *from, size_t n)
{
    return from[(size_t)rand_r(seed) % n];
}

static const uint32_t places[] = {
    0x01020304, 0x01020300, 0x010203ff, 0x01020400, 0x0a000001, 0x0a010203, 0x7f000001, 0xa9fea9fe,
    0xa9fea9fd, 0xa9fe0000, 0xa83f8110, 0xa83f8111, 0xc0a80101, 0xe0000001, 0, 0xffffffff,
};
static const uint32_t numbers[] = { 0, 1, 22, 79, 80, 81, 443, 444, 8000, 65534, 65535 };

static bool any_ports;          /* of 0 to 300, not of those numbers */
static int one_denies_of = 3;

static uint16_t pick_port(unsigned *seed)
{
    return any_ports ? (uint16_t)(rand_r(seed) % 300)
                     : (uint16_t)pick(seed, numbers, ARRAY_SIZE(numbers));
}

static void random_rules(unsigned *seed, struct policy_rule *out, size_t n)
{
    static const uint8_t prefixes[] = { 0, 1, 8, 15, 16, 24, 31, 32, 32 };

    for (size_t i = 0; i < n; i++) {
        struct policy_target t = { .kind = POLICY_ADDRESS };
        t.prefix = prefixes[(size_t)rand_r(seed) % ARRAY_SIZE(prefixes)];
        t.address = pick(seed, places, ARRAY_SIZE(places));
        t.address &= t.prefix ? UINT32_MAX << (32 - t.prefix) : 0;
        t.port_lo = pick_port(seed);
        t.port_hi = any_ports ? (uint16_t)(t.port_lo + rand_r(seed) % 60) : pick_port(seed);
        if (t.port_hi < t.port_lo)
            t.port_hi = 65535;
        t.protos = (uint8_t)(rand_r(seed) % 4);
        if (rand_r(seed) % 4 == 0) {
            t.kind = rand_r(seed) % 2 ? POLICY_NAME : POLICY_SUBTREE;
            snprintf(t.name, sizeof(t.name), "%s", t.kind == POLICY_NAME ? "a.example.com"
                                                                       : "example.com");
        }
        out[i].verdict = rand_r(seed) % one_denies_of ? POLICY_ALLOW : POLICY_DENY;
        out[i].target = t;
    }
}

static size_t holders(const struct policy_span *s, size_t n, const struct policy_question *q,
                      int rule)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i].proto != q->proto || q->address < s[i].lo || q->address > s[i].hi ||
            q->port < s[i].port_lo || q->port > s[i].port_hi)
            continue;
        ASSERT_EQ(s[i].rule, rule);
        found++;
    }
    return found;
}

/* As compare() asks, and in the order of the rules: their first ports and those behind their
 * last. */
static struct policy_ruling name_by_questions(const struct policy *p, const char *name)
{
    struct policy_ruling r = { POLICY_DENY, POLICY_BY_DEFAULT, false };

    for (size_t i = 0; i < p->n + p->n_ceiling; i++) {
        const struct policy_target *t = i < p->n ? &p->rules[i].target
                                                 : &p->ceiling[i - p->n].target;
        if (!policy_matches_name(t, name) && (t->kind != POLICY_ADDRESS || t->prefix))
            continue;
        for (uint32_t k = 0; k < 4; k++) {
            uint32_t port = k / 2 ? (uint32_t)t->port_hi + 1 : t->port_lo;
            struct policy_question q = { .name = name, .port = (uint16_t)port,
                                         .proto = k % 2 ? POLICY_UDP : POLICY_TCP };
            if (port > UINT16_MAX)
                continue;
            struct policy_ruling x = policy_judge(p, &q);
            if (x.verdict == POLICY_ALLOW)
                return x;
            /* The ceiling matters where the policy opens a port, then whoever names a rule. */
            if (x.by_ceiling && !r.by_ceiling)
                r = x;
            else if (x.by_ceiling == r.by_ceiling && x.rule >= 0 && (i < p->n || x.by_ceiling))
                r = x;
        }
    }
    return r;
}

static void compare(unsigned *seed, const struct policy *p, const struct policy_span *s, size_t n,
                    const char *name, uint32_t only, bool host)
{
    for (int k = 0; k < 300; k++) {
        struct policy_question q = {
            .name = name, .has_address = true, .host = host,
            .address = name ? only : pick(seed, places, ARRAY_SIZE(places)) + (uint32_t)(k % 3) - 1,
            .port = pick_port(seed), .proto = k % 2 ? POLICY_TCP : POLICY_UDP,
        };
        struct policy_ruling r = policy_judge(p, &q);
        ASSERT_EQ(holders(s, n, &q, r.rule), r.verdict == POLICY_ALLOW ? 1 : 0);
    }
}

/* Few rules of all kinds, or many about few addresses with ports and denials that overlap. */
static void dice_round(unsigned *seed, size_t most, size_t most_above)
{
    autofree struct policy_rule *own = calloc(most, sizeof(*own));
    autofree struct policy_rule *ceiling = calloc(most_above, sizeof(*ceiling));
    size_t n = (size_t)rand_r(seed) % most;
    struct policy p = { .rules = own, .n = n };

    random_rules(seed, own, n);
    random_rules(seed, ceiling, most_above);
    if (rand_r(seed) % 2) {
        p.ceiling = ceiling;
        p.n_ceiling = most_above;
    }
    for (int host = 0; host < 2; host++) {
        autofree struct policy_span *s = NULL;
        size_t n_spans = 0;
        struct err e = ERR_INIT;
        ASSERT_OK(policy_compile(&p, host, &s, &n_spans, &e), e);
        compare(seed, &p, s, n_spans, NULL, 0, host);
    }
    autofree struct policy_span *s = NULL;
    size_t n_spans = 0;
    struct err e = ERR_INIT;
    uint32_t address = pick(seed, places, ARRAY_SIZE(places));
    ASSERT_OK(policy_compile_name(&p, "a.example.com", address, &s, &n_spans, &e), e);
    compare(seed, &p, s, n_spans, "a.example.com", address, false);
    struct policy_ruling is = policy_judge_name(&p, "a.example.com");
    struct policy_ruling want = name_by_questions(&p, "a.example.com");
    ASSERT_EQ(is.verdict, want.verdict);
    ASSERT_EQ(is.rule, want.rule);
    ASSERT_EQ(is.by_ceiling, want.by_ceiling);
}

TEST(a_filter_is_told_what_is_decided)
{
    unsigned seed = 20261124;

    for (int round = 0; round < 400; round++)
        dice_round(&seed, 12, 6);
}

TEST(a_filter_is_told_what_many_ports_and_denials_decide)
{
    unsigned seed = 20261127;

    any_ports = true;
    for (int deny_of = 2; deny_of < 40; deny_of += 3) {
        one_denies_of = deny_of;
        for (int round = 0; round < 12; round++)
            dice_round(&seed, 60, 30);
    }
}

/* --- what a policy costs --- */

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Of the processor, so that others on it do not count; what the rules may cost is a hundredth. */
static void took_less_than_a_second(double since)
{
    const char *slow = getenv("SBX_TEST_SLOW");
    double took = cpu_seconds() - since;

    if (took > (slow && strcmp(slow, "1") == 0 ? 10 : 1))
        FAIL("it took %.2f s", took);
}

static void load_many(const char *last, int n, void (*line)(int i, char *buf, size_t size))
{
    autofree char *text = malloc(64 * (size_t)(n + 1));
    size_t at = 0;

    ASSERT_TRUE(text != NULL);
    for (int i = 0; i < n; i++) {
        line(i, text + at, 64);
        at += strlen(text + at);
    }
    snprintf(text + at, 64, "%s", last);
    load(text);
}

/* The first half is parts, the second is ports of each of them. */
static void parts_and_ports(int i, char *buf, size_t size)
{
    if (i < 500)
        snprintf(buf, size, "allow 60.%d.%d.7:%d\n", i / 100, i % 100 * 2, 20000 + 2 * i);
    else
        snprintf(buf, size, "allow 0.0.0.0/0:%d\n", 2 * i);
}

static void ports_of_a_zone(int i, char *buf, size_t size)
{
    snprintf(buf, size, "allow **.zone.example:%d\n", 2 * i + 2);
}

TEST(a_policy_that_opens_nothing_costs_next_to_nothing)
{
    static const char *const last[] = { "deny 0.0.0.0/0\n", "deny 0.0.0.0/0:1-65534\n" };

    for (size_t i = 0; i < ARRAY_SIZE(last); i++) {
        load_many(last[i], POLICY_RULES_MAX - 1, parts_and_ports);
        struct policy p = { .rules = rules, .n = n_rules };
        double since = cpu_seconds();
        for (int host = 0; host < 2; host++) {
            autofree struct policy_span *s = NULL;
            size_t n = 0;
            struct err e = ERR_INIT;
            ASSERT_OK(policy_compile(&p, host, &s, &n, &e), e);
            ASSERT_EQ(n, 0);
        }
        took_less_than_a_second(since);
    }
}

TEST(a_policy_that_opens_too_much_is_refused_and_says_what_to_do)
{
    load_many("deny 1.2.3.4\n", POLICY_RULES_MAX - 1, parts_and_ports);
    struct policy p = { .rules = rules, .n = n_rules };
    autofree struct policy_span *s = NULL;
    size_t n = 0;
    struct err e = ERR_INIT;
    double since = cpu_seconds();

    ASSERT_ERR(policy_compile(&p, false, &s, &n, &e), e, ERR_TOO_LARGE);
    took_less_than_a_second(since);
    ASSERT_TRUE(strstr(e.msg, "too intricate") && strstr(e.hint, "ports"));
}

TEST(a_name_with_many_ports_costs_next_to_nothing)
{
    static const char *const last[] = { "deny **.zone.example\n",
                                        "deny **.zone.example:1-65534\n" };

    for (size_t i = 0; i < ARRAY_SIZE(last); i++) {
        load_many(last[i], POLICY_RULES_MAX - 1, ports_of_a_zone);
        struct policy p = { rules, n_rules, rules, n_rules };
        double since = cpu_seconds();
        for (int k = 0; k < 200; k++) {
            autofree struct policy_span *s = NULL;
            size_t n = 0;
            struct err e = ERR_INIT;
            ASSERT_EQ(ask_name("a.zone.example"), DENIED_BY(POLICY_RULES_MAX - 1));
            ASSERT_EQ(policy_judge_name(&p, "a.zone.example").verdict, POLICY_DENY);
            ASSERT_OK(policy_compile_name(&p, "a.zone.example", 0x3c010203, &s, &n, &e), e);
            ASSERT_EQ(n, 0);
        }
        took_less_than_a_second(since);
    }
}
