/* SPDX-License-Identifier: MIT
 *
 * Policies of sandboxes as they are put together, changed and kept; and packets as the filter tells
 * them.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "daemon/packet_log.h"
#include "daemon/presets.h"
#include "daemon/ruleset.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char dir[64];

static struct store *fresh(void)
{
    char path[96];
    struct store *st = NULL;
    struct err e = ERR_INIT;

    snprintf(dir, sizeof(dir), "/tmp/test-ruleset-XXXXXX");
    ASSERT_TRUE(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/db", dir);
    ASSERT_OK(store_open(path, &st, &e), e);
    return st;
}

static void clean(struct store *st)
{
    struct err e = ERR_INIT;

    store_close(st);
    ASSERT_EQ(io_remove_tree(AT_FDCWD, dir, &e), 0);
}

/* A sandbox to hang rules on. */
static void add_vm(struct store *st, const char *id)
{
    struct image_row i = { .digest = "sha256:a", .name = (char *)"debian",
                           .variant = (char *)"debian", .os = (char *)"", .kernel = (char *)"",
                           .recipe = (char *)"" };
    struct vm_row r = { .name = (char *)id, .uid = 1000, .groups = (char *)"",
                        .image_name = (char *)"debian", .image_digest = (char *)"sha256:a",
                        .machine = (char *)"microvm" };
    struct err e = ERR_INIT;

    snprintf(r.id, sizeof(r.id), "%s", id);
    ASSERT_OK(store_image_insert(st, &i, &e), e);
    ASSERT_OK(store_vm_insert(st, &r, &e), e);
}

static void expect_text(const struct ruleset *s, const char *want)
{
    autofree char *text = NULL;
    struct err e = ERR_INIT;

    ASSERT_OK(ruleset_text(s, &text, &e), e);
    ASSERT_STREQ(text, want);
}

TEST(rules_by_hand_replace_their_opposite)
{
    autoruleset struct ruleset s = RULESET_INIT;
    struct err e = ERR_INIT;

    ASSERT_OK(ruleset_begin_text(&s, "allow a.example.com\ndeny b.example.com\n", 7, &e), e);
    ASSERT_STREQ(s.base, "rules");
    ASSERT_EQ(ruleset_add(&s, true, "A.example.com.", 8, &e), 0);       /* is there */
    ASSERT_EQ(ruleset_add(&s, true, "b.example.com", 8, &e), 1);
    expect_text(&s, "allow a.example.com\nallow b.example.com\n");
    ASSERT_EQ(s.rows[0].uid, 7);
    ASSERT_EQ(s.rows[1].uid, 8);
    ASSERT_STREQ(s.rows[1].source, "user");
    ASSERT_EQ(ruleset_add(&s, false, "b.example.com:443", 8, &e), 1);   /* another target */
    ASSERT_EQ(s.n, 3);
    ASSERT_EQ(ruleset_remove(&s, "b.example.com", &e), 1);
    ASSERT_EQ(ruleset_remove(&s, "b.example.com", &e), 0);
    expect_text(&s, "allow a.example.com\ndeny b.example.com:443\n");
    ASSERT_EQ(ruleset_add(&s, true, "*", 8, &e), -1);
    ASSERT_EQ(e.code, ERR_INVALID);
    ASSERT_EQ(s.n, 2);
}

TEST(a_bad_text_adds_nothing)
{
    autoruleset struct ruleset s = RULESET_INIT;
    struct err e = ERR_INIT;

    ASSERT_OK(ruleset_begin_text(&s, "allow a.example.com\n", 7, &e), e);
    ASSERT_EQ(ruleset_add_text(&s, "allow c.example.com\nalow d.example.com\n", "x", 7, &e), -1);
    ASSERT_TRUE(strstr(e.msg, "line 2") != NULL);
    expect_text(&s, "allow a.example.com\n");
}

TEST(presets_are_policies)
{
    struct store *st = fresh();
    size_t n = 0;
    const struct preset *all = preset_all(&n);

    ASSERT_EQ(n, 4);
    for (size_t i = 0; i < n; i++) {
        autoruleset struct ruleset s = RULESET_INIT;
        autofree struct policy_span *spans = NULL;
        size_t n_spans = 0;
        struct err e = ERR_INIT;
        ASSERT_OK(ruleset_begin(&s, st, all[i].name, 1000, &e), e);
        struct policy p = { .rules = s.rules, .n = s.n };
        ASSERT_OK(policy_compile(&p, false, &spans, &n_spans, &e), e);
        /* Each entry but those of `none` and `open` is a name with its port and its reason. */
        for (size_t k = 0; k < s.n && strcmp(all[i].name, "open") != 0; k++) {
            ASSERT_TRUE(s.rules[k].target.kind == POLICY_NAME ||
                        s.rules[k].target.kind == POLICY_ONE_LABEL);
            ASSERT_TRUE(s.rules[k].target.port_lo > 0);
            const char *line = strstr(all[i].text, s.rules[k].target.name);
            ASSERT_TRUE(line && strcspn(line, "#") < strcspn(line, "\n"));
        }
        ASSERT_EQ(strcmp(all[i].name, "none") == 0, s.n == 0);
        ASSERT_EQ(strcmp(all[i].name, "open") == 0, n_spans > 0);
    }
    struct err e = ERR_INIT;
    autoruleset struct ruleset s = RULESET_INIT;
    ASSERT_EQ(ruleset_begin(&s, st, "nosuch", 1000, &e), -1);
    ASSERT_EQ(e.code, ERR_POLICY_NOT_FOUND);
    clean(st);
}

TEST(dev_has_all_of_agent)
{
    const char *agent = preset_find("agent")->text;

    ASSERT_EQ(strncmp(preset_find("dev")->text, agent, strlen(agent)), 0);
}

TEST(rules_come_back_as_they_went_in)
{
    struct store *st = fresh();
    autoruleset struct ruleset s = RULESET_INIT, copy = RULESET_INIT, back = RULESET_INIT;
    const char *id = "0123456789abcdef";
    struct err e = ERR_INIT;

    add_vm(st, id);
    ASSERT_OK(ruleset_load(&back, st, id, &e), e);      /* one from before: none */
    ASSERT_STREQ(back.base, "none");
    ASSERT_EQ(back.n, 0);
    ruleset_done(&back);
    ASSERT_OK(ruleset_begin(&s, st, "agent", 1000, &e), e);
    ASSERT_EQ(ruleset_add(&s, false, "10.1.0.0/16:1-9/udp", 1001, &e), 1);
    ASSERT_OK(ruleset_copy(&copy, &s, &e), e);
    ASSERT_OK(ruleset_store(&copy, st, id, &e), e);
    ASSERT_OK(store_rules_count(st, id, &(struct rule_count){ false, "10.1.0.0/16:1-9/udp", 5 }, 1,
                                &e), e);
    ASSERT_OK(store_rules_count(st, id, (struct rule_count[]){ { false, "10.1.0.0/16:1-9/udp", 2 },
                                                               { true, "gone.example", 9 } }, 2,
                                &e), e);
    ASSERT_OK(ruleset_load(&back, st, id, &e), e);
    ASSERT_STREQ(back.base, "agent");
    ASSERT_EQ(back.n, s.n);
    for (size_t i = 0; i < s.n; i++) {
        ASSERT_STREQ(back.rows[i].target, s.rows[i].target);
        ASSERT_STREQ(back.rows[i].source, s.rows[i].source);
        ASSERT_EQ(back.rows[i].added_at, s.rows[i].added_at);
        ASSERT_EQ(back.rows[i].matches, i + 1 == s.n ? 7 : 0);
    }
    ASSERT_EQ(back.rows[s.n - 1].uid, 1001);
    ASSERT_OK(store_vm_delete(st, id, &e), e);
    ruleset_done(&back);
    ASSERT_EQ(ruleset_load(&back, st, id, &e), -1);
    ASSERT_EQ(e.code, ERR_SANDBOX_NOT_FOUND);
    clean(st);
}

TEST(policies_with_names_are_their_owners)
{
    struct store *st = fresh();
    struct policy_row *rows = NULL, p = { .uid = 1000, .name = (char *)"web",
                                          .rules = (char *)"allow a.example\n" };
    autofree char *value = NULL;
    size_t n = 0;
    struct err e = ERR_INIT;

    ASSERT_OK(store_policy_put(st, &p, &e), e);
    p.rules = (char *)"allow b.example\n";
    ASSERT_OK(store_policy_put(st, &p, &e), e);
    ASSERT_OK(store_policy_list(st, 1000, "web", &rows, &n, &e), e);
    ASSERT_EQ(n, 1);
    ASSERT_STREQ(rows[0].rules, "allow b.example\n");
    policy_rows_done(rows, n);
    ASSERT_EQ(store_policy_list(st, 1001, "web", &rows, &n, &e), -1);
    ASSERT_EQ(e.code, ERR_POLICY_NOT_FOUND);
    e = ERR_INIT;
    for (int i = 1; i < LIMIT_POLICIES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "p%d", i);
        p.name = name;
        ASSERT_OK(store_policy_put(st, &p, &e), e);
    }
    p.name = (char *)"onemore";
    ASSERT_EQ(store_policy_put(st, &p, &e), -1);
    ASSERT_EQ(e.code, ERR_QUOTA);
    ASSERT_STREQ(e.quota.name, "policies");
    ASSERT_EQ(e.quota.limit, LIMIT_POLICIES);
    ASSERT_EQ(e.quota.used, LIMIT_POLICIES);
    ASSERT_EQ(e.quota.requested, 1);
    ASSERT_CONTAINS(e.hint, "sbx policy");
    e = ERR_INIT;
    p.name = (char *)"web";                             /* one that is there may change */
    ASSERT_OK(store_policy_put(st, &p, &e), e);
    ASSERT_OK(store_policy_delete(st, 1000, "web", &e), e);
    ASSERT_EQ(store_policy_delete(st, 1000, "web", &e), -1);
    e = ERR_INIT;
    ASSERT_OK(store_choice_get(st, "subnet", &value, &e), e);
    ASSERT_TRUE(value == NULL);
    ASSERT_OK(store_choice_put(st, "subnet", "10.0.0.0/16", &e), e);
    ASSERT_OK(store_choice_put(st, "subnet", "10.1.0.0/16", &e), e);
    ASSERT_OK(store_choice_get(st, "subnet", &value, &e), e);
    ASSERT_STREQ(value, "10.1.0.0/16");
    clean(st);
}

static bool below(const char *rule, const char *ceiling)
{
    autofree struct policy_rule *r = NULL, *c = NULL;
    size_t n = 0, n_c = 0;
    struct err e = ERR_INIT;

    ASSERT_OK(policy_rules_parse(rule, strlen(rule), &r, &n, &e), e);
    ASSERT_OK(policy_rules_parse(ceiling, strlen(ceiling), &c, &n_c, &e), e);
    int ret = ruleset_check_ceiling(&r[0], c, n_c, &e);
    ASSERT_TRUE(ret == 0 || e.code == ERR_POLICY_CEILING);
    return ret == 0;
}

TEST(what_is_wholly_beyond_the_ceiling_is_refused)
{
    ASSERT_TRUE(below("allow a.example.com", "allow **.example.com:443"));
    ASSERT_TRUE(!below("allow a.example.org", "allow **.example.com:443"));
    ASSERT_TRUE(!below("allow a.example.com:22", "allow **.example.com:443"));
    ASSERT_TRUE(below("deny a.example.org", "allow **.example.com:443"));
    ASSERT_TRUE(below("allow 10.0.0.0/8", "allow 10.1.0.0/16"));
    ASSERT_TRUE(!below("allow 10.2.0.0/16", "allow 10.1.0.0/16"));
    ASSERT_TRUE(!below("allow 10.1.2.3:22", "allow 10.1.0.0/16:80"));
}

/* --- packets --- */

static const uint8_t tcp[] = { 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 209, 0, 2,
                               93, 184, 216, 34, 0x30, 0x39, 0x01, 0xbb };

TEST(packets_are_told_apart)
{
    struct packet_seen p;
    uint8_t other[sizeof(tcp)];

    ASSERT_TRUE(packet_log_parse("12 d", 0x0800, tcp, sizeof(tcp), &p));
    ASSERT_EQ(p.slot, 12);
    ASSERT_EQ(p.why, PACKET_DENIED);
    ASSERT_EQ(p.source, 0x0ad10002);
    ASSERT_EQ(p.destination, 0x5db8d822);
    ASSERT_EQ(p.proto, 6);
    ASSERT_EQ(p.port, 443);
    ASSERT_TRUE(p.first_fragment);
    memcpy(other, tcp, sizeof(tcp));
    other[7] = 1;                                       /* a later fragment has no port */
    ASSERT_TRUE(packet_log_parse("12 d", 0x0800, other, sizeof(other), &p));
    ASSERT_TRUE(!p.first_fragment);
    ASSERT_EQ(p.port, 0);
    ASSERT_TRUE(packet_log_parse("1 x", 0x86dd, tcp, sizeof(tcp), &p));
    ASSERT_EQ(p.proto, 0);
    ASSERT_TRUE(packet_log_parse("1 x", 0x8100, NULL, 0, &p));
    for (size_t len = 0; len <= sizeof(tcp); len++)     /* however short */
        packet_log_parse("1 a", 0x0800, tcp, len, &p);
}

TEST(what_is_not_ours_is_no_packet)
{
    static const char *const prefixes[] = { "", "d", "1", "1 ", "1 q", "1 dd", "1  d", "0 d",
                                            "-1 d", "99999999999999 d", "4097 d", "x d" };
    struct packet_seen p;

    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
        ASSERT_TRUE(!packet_log_parse(prefixes[i], 0x0800, tcp, sizeof(tcp), &p));
    ASSERT_TRUE(!packet_log_parse("1 d", 0x86dd, tcp, sizeof(tcp), &p));
    ASSERT_TRUE(!packet_log_parse("1 d", 0x0800, tcp, 19, &p));
}
