/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/limits.h"
#include "daemon/quota.h"
#include "daemon/workspace.h"
#include "tests/harness/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

/* Everything the text does not limit is unlimited. */
static struct quota *make(const char *text)
{
    struct quota_config c = { 0 };
    struct quota *q = NULL;
    struct err e = ERR_INIT;

    ASSERT_OK(json_decode(quota_config_table, text, strlen(text), &c, &e), e);
    for (int w = 0; w < QUOTA_MAX; w++)
        if (c.fallback.limit[w] == QUOTA_UNSET)
            c.fallback.limit[w] = QUOTA_UNLIMITED;
    ASSERT_OK(quota_new(&c, &q, &e), e);
    json_done(quota_config_table, &c, sizeof(c));
    return q;
}

static const struct identity alice = { .uid = 1001, .gid = 1001 };
static const struct identity bob = { .uid = 1002, .gid = 1002 };
static const struct identity root = { .uid = 0, .gid = 0 };

static uint64_t used(struct quota *q, const struct identity *who, enum quota_what w)
{
    struct quota_state s[QUOTA_MAX];

    quota_look(q, who, s);
    return s[w].used;
}

static uint64_t limit(struct quota *q, const struct identity *who, enum quota_what w,
                      const char *source)
{
    struct quota_state s[QUOTA_MAX];

    quota_look(q, who, s);
    ASSERT_STREQ(s[w].source, source);
    return s[w].limit;
}

#define USE(...) (&(struct quota_use){ .n = { __VA_ARGS__ } })
#define BOX USE([QUOTA_SANDBOXES] = 1, [QUOTA_DISK] = 10, [QUOTA_CPUS] = 2, [QUOTA_MEMORY] = 100)

TEST(several_are_paid_together_or_not_at_all)
{
    struct quota *q = make("{\"default\":{\"sandboxes\":5,\"memory\":250}}");
    struct quota_charge c[3] = { 0 };
    struct err e = ERR_INIT;

    ASSERT_OK(quota_take(q, &alice, BOX, &c[0], &e), e);
    ASSERT_OK(quota_take(q, &alice, BOX, &c[1], &e), e);
    ASSERT_ERR(quota_take(q, &alice, BOX, &c[2], &e), e, ERR_QUOTA);
    ASSERT_STREQ(e.quota.name, "memory");
    ASSERT_EQ(e.quota.limit, 250);
    ASSERT_EQ(e.quota.used, 200);
    ASSERT_EQ(e.quota.requested, 100);
    ASSERT_CONTAINS(e.msg, "memory");
    ASSERT_CONTAINS(e.hint, "sbx stop");
    ASSERT_CONTAINS(e.hint, "quota.default.memory");
    /* nothing of what had room was taken */
    ASSERT_EQ(used(q, &alice, QUOTA_SANDBOXES), 2);
    ASSERT_EQ(used(q, &alice, QUOTA_DISK), 20);
    ASSERT_EQ(used(q, &alice, QUOTA_CPUS), 4);
    ASSERT_EQ(c[2].use.n[QUOTA_SANDBOXES], 0);
    quota_drop(&c[2], QUOTA_ALL);           /* of one that was refused: nothing */
    ASSERT_EQ(used(q, &alice, QUOTA_SANDBOXES), 2);
    quota_drop(&c[0], QUOTA_ALL);
    quota_drop(&c[1], QUOTA_ALL);
    quota_free(q);
}

TEST(another_user_has_an_account_of_his_own)
{
    struct quota *q = make("{\"default\":{\"sandboxes\":1}}");
    struct quota_charge a = { 0 }, b = { 0 };
    struct err e = ERR_INIT;

    ASSERT_OK(quota_take(q, &alice, BOX, &a, &e), e);
    ASSERT_ERR(quota_take(q, &alice, BOX, &b, &e), e, ERR_QUOTA);
    e = ERR_INIT;
    ASSERT_OK(quota_take(q, &bob, BOX, &b, &e), e);
    quota_drop(&a, QUOTA_ALL);
    ASSERT_EQ(used(q, &bob, QUOTA_SANDBOXES), 1);
    quota_drop(&b, QUOTA_ALL);
    quota_free(q);
}

TEST(what_ran_goes_back_before_what_is_stored)
{
    struct quota *q = make("{\"default\":{\"cpus\":2,\"sandboxes\":1}}");
    struct quota_charge c = { 0 };
    struct err e = ERR_INIT;

    ASSERT_OK(quota_take(q, &alice, BOX, &c, &e), e);
    quota_drop(&c, QUOTA_RUNNING);
    quota_drop(&c, QUOTA_RUNNING);          /* twice is once */
    ASSERT_EQ(used(q, &alice, QUOTA_CPUS), 0);
    ASSERT_EQ(used(q, &alice, QUOTA_MEMORY), 0);
    ASSERT_EQ(used(q, &alice, QUOTA_SANDBOXES), 1);
    ASSERT_EQ(used(q, &alice, QUOTA_DISK), 10);
    /* started again: the same charge grows */
    ASSERT_OK(quota_take(q, &alice, USE([QUOTA_CPUS] = 2, [QUOTA_MEMORY] = 100), &c, &e), e);
    ASSERT_EQ(used(q, &alice, QUOTA_CPUS), 2);
    ASSERT_ERR(quota_take(q, &alice, USE([QUOTA_CPUS] = 1), &c, &e), e, ERR_QUOTA);
    quota_drop(&c, QUOTA_ALL);
    for (int w = 0; w < QUOTA_MAX; w++)
        ASSERT_EQ(used(q, &alice, (enum quota_what)w), 0);
    quota_free(q);
}

TEST(what_is_there_already_counts_beyond_the_limit)
{
    struct quota *q = make("{\"default\":{\"sandboxes\":1}}");
    struct quota_charge c[3] = { 0 };
    struct err e = ERR_INIT;

    for (int i = 0; i < 3; i++)
        ASSERT_OK(quota_count(q, alice.uid, BOX, &c[i], &e), e);
    ASSERT_EQ(used(q, &alice, QUOTA_SANDBOXES), 3);
    /* what needs none of it is free all the same */
    struct quota_charge x = { 0 };
    ASSERT_OK(quota_take(q, &alice, USE([QUOTA_EXECS] = 1), &x, &e), e);
    quota_drop(&x, QUOTA_ALL);
    quota_drop(&c[0], QUOTA_ALL);
    quota_drop(&c[1], QUOTA_ALL);
    ASSERT_ERR(quota_take(q, &alice, BOX, &c[0], &e), e, ERR_QUOTA);
    quota_drop(&c[2], QUOTA_ALL);
    e = ERR_INIT;
    ASSERT_OK(quota_take(q, &alice, BOX, &c[0], &e), e);
    quota_drop(&c[0], QUOTA_ALL);
    quota_free(q);
}

TEST(root_is_counted_and_not_limited_unless_it_has_an_entry)
{
    struct quota *q = make("{\"default\":{\"sandboxes\":0},\"groups\":{\"0\":{\"sandboxes\":0}}}");
    struct quota_charge c = { 0 };
    struct err e = ERR_INIT;

    ASSERT_OK(quota_take(q, &root, BOX, &c, &e), e);
    ASSERT_EQ(used(q, &root, QUOTA_SANDBOXES), 1);
    quota_drop(&c, QUOTA_ALL);
    quota_free(q);
    q = make("{\"users\":{\"root\":{\"sandboxes\":0}}}");
    ASSERT_ERR(quota_take(q, &root, BOX, &c, &e), e, ERR_QUOTA);
    ASSERT_CONTAINS(e.hint, "quota.users.root.sandboxes");
    quota_free(q);
}

TEST(a_user_beats_groups_and_groups_the_default_for_each_key)
{
    const struct identity member = { .uid = 1003, .gid = 50, .groups = { 60, 70 }, .n_groups = 2 };
    struct quota *q = make(
        "{\"default\":{\"sandboxes\":10,\"cpus\":10,\"disk\":10,\"memory\":\"1G\",\"execs\":9},"
        " \"groups\":{\"50\":{\"cpus\":1,\"disk\":5},\"60\":{\"cpus\":3,\"disk\":\"unlimited\"},"
        "             \"70\":{\"cpus\":2},\"80\":{\"cpus\":99,\"execs\":-1}},"
        " \"users\":{\"1003\":{\"sandboxes\":0},\"1001\":{\"cpus\":-1}}}");

    ASSERT_EQ(limit(q, &member, QUOTA_SANDBOXES, "users.1003"), 0);
    ASSERT_EQ(limit(q, &member, QUOTA_CPUS, "groups.60"), 3);
    ASSERT_EQ(limit(q, &member, QUOTA_DISK, "groups.60"), QUOTA_UNLIMITED);
    ASSERT_EQ(limit(q, &member, QUOTA_MEMORY, "default"), GIB);
    ASSERT_EQ(limit(q, &member, QUOTA_EXECS, "default"), 9);
    ASSERT_EQ(limit(q, &alice, QUOTA_CPUS, "users.1001"), QUOTA_UNLIMITED);
    ASSERT_EQ(limit(q, &alice, QUOTA_SANDBOXES, "default"), 10);
    quota_free(q);
}

TEST(entries_that_cannot_be_meant_are_refused_by_their_key)
{
    static const struct { const char *text, *where; } bad[] = {
        { "{\"users\":{\"nosuchuser-x\":{}}}", "quota.users.nosuchuser-x" },
        { "{\"groups\":{\"nosuchgroup-x\":{}}}", "quota.groups.nosuchgroup-x" },
        { "{\"users\":{\"root\":{},\"0\":{}}}", "quota.users." },
        { "{\"users\":{\"5\":{},\"05\":{}}}", "quota.users." },
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct quota_config c = { 0 };
        struct quota *q = NULL;
        struct err e = ERR_INIT;
        ASSERT_OK(json_decode(quota_config_table, bad[i].text, strlen(bad[i].text), &c, &e), e);
        ASSERT_ERR(quota_new(&c, &q, &e), e, ERR_INVALID);
        ASSERT_CONTAINS(e.msg, bad[i].where);
        json_done(quota_config_table, &c, sizeof(c));
    }
}

TEST(sums_do_not_wrap)
{
    struct quota *q = make("{\"default\":{\"memory\":1000}}");
    struct quota_charge c = { 0 }, d = { 0 };
    struct err e = ERR_INIT;

    ASSERT_OK(quota_take(q, &alice, USE([QUOTA_MEMORY] = 10), &c, &e), e);
    ASSERT_ERR(quota_take(q, &alice, USE([QUOTA_MEMORY] = UINT64_MAX - 5), &d, &e), e, ERR_QUOTA);
    quota_drop(&c, QUOTA_ALL);
    quota_free(q);
    /* nor where there is no limit at all */
    q = make("{}");
    e = ERR_INIT;
    ASSERT_OK(quota_take(q, &alice, USE([QUOTA_DISK] = UINT64_MAX), &c, &e), e);
    ASSERT_ERR(quota_take(q, &alice, USE([QUOTA_DISK] = 1), &d, &e), e, ERR_QUOTA);
    quota_drop(&c, QUOTA_ALL);
    quota_free(q);
}

TEST(many_users_come_and_go)
{
    enum { N = 300 };
    struct quota *q = make("{}");
    struct quota_charge c[N] = { 0 };
    struct err e = ERR_INIT;

    for (int i = 0; i < N; i++) {
        struct identity who = { .uid = (uid_t)(5000 + i) };
        ASSERT_OK(quota_take(q, &who, USE([QUOTA_EXECS] = (uint64_t)i + 1), &c[i], &e), e);
    }
    for (int i = 0; i < N; i += 2)
        quota_drop(&c[i], QUOTA_ALL);
    for (int i = 0; i < N; i++) {
        struct identity who = { .uid = (uid_t)(5000 + i) };
        ASSERT_EQ(used(q, &who, QUOTA_EXECS), i % 2 ? (uint64_t)i + 1 : 0);
    }
    for (int i = 1; i < N; i += 2)
        quota_drop(&c[i], QUOTA_ALL);
    quota_free(q);
}

TEST(nobody_to_count_means_nothing_is_counted)
{
    struct quota_charge c = { 0 };
    struct err e = ERR_INIT;

    ASSERT_OK(quota_take(NULL, &alice, BOX, &c, &e), e);
    ASSERT_OK(quota_count(NULL, 1, BOX, &c, &e), e);
    quota_drop(&c, QUOTA_ALL);
    quota_free(NULL);
}

/* --- threads --- */

struct racer {
    struct quota *q;
    pthread_barrier_t *start;
    struct quota_charge c;
    int rc;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    struct err e = ERR_INIT;

    pthread_barrier_wait(r->start);
    r->rc = quota_take(r->q, &alice, BOX, &r->c, &e);
    return NULL;
}

TEST(of_two_that_want_the_last_one_exactly_one_gets_it)
{
    struct quota *q = make("{\"default\":{\"sandboxes\":1}}");

    for (int round = 0; round < 500; round++) {
        pthread_barrier_t start;
        struct racer r[2] = { { .q = q, .start = &start }, { .q = q, .start = &start } };
        pthread_t t[2];
        pthread_barrier_init(&start, NULL, 2);
        for (int i = 0; i < 2; i++)
            ASSERT_EQ(pthread_create(&t[i], NULL, race, &r[i]), 0);
        for (int i = 0; i < 2; i++)
            pthread_join(t[i], NULL);
        pthread_barrier_destroy(&start);
        ASSERT_EQ((r[0].rc == 0) + (r[1].rc == 0), 1);
        ASSERT_EQ(used(q, &alice, QUOTA_SANDBOXES), 1);
        ASSERT_EQ(used(q, &alice, QUOTA_CPUS), 2);
        quota_drop(&r[0].c, QUOTA_ALL);
        quota_drop(&r[1].c, QUOTA_ALL);
    }
    quota_free(q);
}

/* How many hold one now; the quota allows three. */
static atomic_int holders, worst;

static void *churn(void *arg)
{
    struct racer *r = arg;

    for (int i = 0; i < 20000; i++) {
        struct quota_charge c = { 0 };
        struct err e = ERR_INIT;
        if (quota_take(r->q, i % 3 ? &alice : &bob, USE([QUOTA_EXECS] = 1), &c, &e) < 0)
            continue;
        if (i % 3) {
            int now = atomic_fetch_add(&holders, 1) + 1;
            if (now > atomic_load(&worst))
                atomic_store(&worst, now);
            atomic_fetch_sub(&holders, 1);
        }
        quota_drop(&c, QUOTA_ALL);
    }
    return NULL;
}

TEST(many_threads_never_hold_more_than_is_allowed)
{
    struct racer r = { .q = make("{\"default\":{\"execs\":3}}") };
    pthread_t t[8];

    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        ASSERT_EQ(pthread_create(&t[i], NULL, churn, &r), 0);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        pthread_join(t[i], NULL);
    ASSERT_TRUE(atomic_load(&worst) <= 3);
    ASSERT_EQ(used(r.q, &alice, QUOTA_EXECS), 0);
    ASSERT_EQ(used(r.q, &bob, QUOTA_EXECS), 0);
    quota_free(r.q);
}

/* --- defaults --- */

TEST(defaults_follow_the_host)
{
    static const struct quota_host small = { 1, 2 * GIB, 2 * GIB, 20 * GIB },
                                   large = { 64, 256 * GIB, 2 * GIB, 20 * GIB };
    struct quota_config c = { 0 };
    struct err e = ERR_INIT;

    ASSERT_OK(json_decode(quota_config_table, "{}", 2, &c, &e), e);
    quota_defaults(&c, &small);
    ASSERT_EQ(c.fallback.limit[QUOTA_SANDBOXES], 64);
    ASSERT_EQ(c.fallback.limit[QUOTA_CPUS], 16);
    ASSERT_EQ(c.fallback.limit[QUOTA_MEMORY], 8 * GIB);
    ASSERT_EQ(c.fallback.limit[QUOTA_DISK], 1280 * GIB);
    ASSERT_OK(json_decode(quota_config_table, "{\"default\":{\"cpus\":3}}", 22, &c, &e), e);
    quota_defaults(&c, &large);
    ASSERT_EQ(c.fallback.limit[QUOTA_CPUS], 3);
    ASSERT_EQ(c.fallback.limit[QUOTA_MEMORY], 192 * GIB);
    json_done(quota_config_table, &c, sizeof(c));
}
