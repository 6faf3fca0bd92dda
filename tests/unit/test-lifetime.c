/* SPDX-License-Identifier: MIT
 *
 * When a sandbox is stopped and when it starts again, with a clock that is turned by hand.
 */
#include "daemon/lifetime.h"
#include "tests/harness/test.h"

#define S 1000LL
#define MIN (60 * S)
#define HOUR (60 * MIN)

static struct life_clock now;

static void clock_at(int64_t boot_ms)
{
    now = (struct life_clock){ .boot_id = "this boot", .boot = boot_ms, .awake = boot_ms,
                               .real = 1700000000000000 };
}

static void pass(int64_t ms)
{
    now.boot += ms;
    now.awake += ms;
    now.real += ms * 1000;
}

static void sleep_of_the_host(int64_t ms)
{
    now.boot += ms;
    now.real += ms * 1000;
}

static struct life started(struct vm_row *row)
{
    struct life l;

    life_begin(&l, row, false, &now);
    return l;
}

/* Looks every two seconds as long as that; the first verdict that is not `than`. */
static enum life_verdict looks(struct life *l, const struct vm_row *row, enum life_seen seen,
                               int64_t ms, enum life_verdict than)
{
    for (int64_t t = 0; t < ms; t += 2 * S) {
        pass(2 * S);
        enum life_verdict v = life_look(l, &row->limits, seen, &now);
        if (v != than)
            return v;
    }
    return than;
}

TEST(without_limits_it_runs_for_ever)
{
    struct vm_row row = { .id = "" };
    int64_t idle;

    clock_at(5 * S);
    struct life l = started(&row);
    ASSERT_EQ(row.stop_at, 0);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, 48 * HOUR, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(life_stops_at(&l, &row.limits, &now, &idle), 0);
    ASSERT_EQ(idle, 0);
}

TEST(a_ttl_stops_it_at_work_or_not_and_warns_before)
{
    struct vm_row row = { .limits = { .ttl_ms = HOUR } };
    int64_t idle;

    clock_at(5 * S);
    struct life l = started(&row);
    ASSERT_EQ(row.stop_at, now.boot + HOUR);
    ASSERT_EQ(life_stops_at(&l, &row.limits, &now, &idle), now.real + HOUR * 1000);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, 59 * MIN - 2 * S, LIFE_GO_ON), LIFE_GO_ON);
    pass(2 * S);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_AT_WORK, &now), LIFE_WARN);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, MIN - 2 * S, LIFE_GO_ON), LIFE_GO_ON);
    pass(2 * S);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_AT_WORK, &now), LIFE_STOP_TTL);
}

TEST(a_ttl_goes_on_over_a_restart_of_the_daemon)
{
    struct vm_row row = { .limits = { .ttl_ms = HOUR } };

    clock_at(5 * S);
    struct life l = started(&row);
    pass(40 * MIN);
    life_resume(&l, &row, &now);
    ASSERT_EQ(looks(&l, &row, LIFE_UNSURE, 18 * MIN, LIFE_GO_ON), LIFE_GO_ON);
    pass(2 * MIN);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_UNSURE, &now), LIFE_STOP_TTL);
    /* and so for one whose time was up meanwhile */
    pass(10 * HOUR);
    life_resume(&l, &row, &now);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_UNSURE, &now), LIFE_STOP_TTL);
}

TEST(a_clock_that_is_set_changes_nothing_not_even_for_the_next_daemon)
{
    static const int64_t steps[] = { 30 * 24 * HOUR * 1000, -30 * 24 * HOUR * 1000 };

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct vm_row row = { .limits = { .ttl_ms = HOUR } };
        int64_t idle;

        clock_at(5 * S);
        ASSERT_TRUE(restart_parse("always", &row.limits.restart));
        struct life l = started(&row);
        now.real += steps[i];
        ASSERT_EQ(looks(&l, &row, LIFE_UNSURE, 40 * MIN, LIFE_GO_ON), LIFE_GO_ON);
        life_resume(&l, &row, &now);
        ASSERT_EQ(life_stops_at(&l, &row.limits, &now, &idle), now.real + 20 * MIN * 1000);
        ASSERT_EQ(looks(&l, &row, LIFE_UNSURE, 18 * MIN, LIFE_GO_ON), LIFE_GO_ON);
        ASSERT_TRUE(life_restarts(&row, LIFE_FAILED, &now));
        pass(2 * MIN);
        ASSERT_EQ(life_look(&l, &row.limits, LIFE_UNSURE, &now), LIFE_STOP_TTL);
        ASSERT_FALSE(life_restarts(&row, LIFE_FAILED, &now));
    }
}

TEST(a_ttl_counts_while_the_host_sleeps)
{
    struct vm_row row = { .limits = { .ttl_ms = HOUR } };

    clock_at(5 * S);
    sleep_of_the_host(3 * HOUR);    /* before it began: no matter */
    struct life l = started(&row);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, 20 * MIN, LIFE_GO_ON), LIFE_GO_ON);
    sleep_of_the_host(40 * MIN);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_AT_WORK, &now), LIFE_STOP_TTL);
}

TEST(a_short_limit_warns_when_a_quarter_is_left)
{
    struct vm_row row = { .limits = { .ttl_ms = 40 * S } };

    clock_at(5 * S);
    struct life l = started(&row);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, 28 * S, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, 2 * S, LIFE_GO_ON), LIFE_WARN);
}

TEST(another_boot_of_the_host_gives_a_ttl_anew)
{
    struct vm_row row = { .limits = { .ttl_ms = HOUR } };

    clock_at(5 * HOUR);
    ASSERT_TRUE(restart_parse("always", &row.limits.restart));
    struct life l = started(&row);
    ASSERT_STREQ(row.stop_boot, "this boot");
    /* up longer than the last one had been when the time was up */
    clock_at(9 * HOUR);
    now.boot_id = "the next boot";
    ASSERT_TRUE(life_restarts(&row, LIFE_FAILED, &now));
    life_begin(&l, &row, true, &now);
    ASSERT_STREQ(row.stop_boot, "the next boot");
    ASSERT_EQ(row.stop_at, now.boot + HOUR);
    ASSERT_EQ(looks(&l, &row, LIFE_UNSURE, 58 * MIN, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(looks(&l, &row, LIFE_UNSURE, MIN, LIFE_GO_ON), LIFE_WARN);
}

TEST(a_change_counts_the_ttl_from_now_on)
{
    struct vm_row row = { .limits = { .ttl_ms = HOUR } };

    clock_at(5 * S);
    struct life l = started(&row);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, 58 * MIN, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, MIN, LIFE_GO_ON), LIFE_WARN);
    row.limits.ttl_ms = 2 * HOUR;
    life_change(&l, &row, &now);
    ASSERT_EQ(row.stop_at, now.boot + 2 * HOUR);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, 118 * MIN, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, MIN, LIFE_GO_ON), LIFE_WARN);   /* once more */
    row.limits.ttl_ms = 0;
    life_change(&l, &row, &now);
    ASSERT_EQ(row.stop_at, 0);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, 5 * HOUR, LIFE_GO_ON), LIFE_GO_ON);
}

TEST(only_time_seen_idle_counts_and_work_makes_it_zero)
{
    struct vm_row row = { .limits = { .idle_ms = 10 * MIN } };
    int64_t idle;

    clock_at(5 * S);
    struct life l = started(&row);
    ASSERT_EQ(looks(&l, &row, LIFE_AT_WORK, 5 * HOUR, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(life_stops_at(&l, &row.limits, &now, &idle), 0);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, 8 * MIN, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(life_stops_at(&l, &row.limits, &now, &idle), now.real + 2 * MIN * 1000);
    ASSERT_EQ(idle, now.real - 8 * MIN * 1000);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, MIN + 2 * S, LIFE_GO_ON), LIFE_WARN);
    life_touch(&l, &now);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, 8 * MIN, LIFE_GO_ON), LIFE_GO_ON);
    /* who cannot be seen is not idle, and not stopped either */
    ASSERT_EQ(looks(&l, &row, LIFE_UNSURE, 5 * HOUR, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, MIN + 2 * S, LIFE_GO_ON), LIFE_WARN);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, MIN, LIFE_GO_ON), LIFE_STOP_IDLE);
}

TEST(what_nobody_saw_makes_nobody_idle)
{
    struct vm_row row = { .limits = { .idle_ms = 10 * MIN } };

    clock_at(5 * S);
    struct life l = started(&row);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, 4 * MIN, LIFE_GO_ON), LIFE_GO_ON);
    sleep_of_the_host(8 * HOUR);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_IDLE, &now), LIFE_GO_ON);
    ASSERT_EQ(l.idle, 4 * MIN);
    sleep_of_the_host(2 * S);       /* however short */
    pass(2 * S);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_IDLE, &now), LIFE_GO_ON);
    ASSERT_EQ(l.idle, 4 * MIN + 2 * S);
    pass(LIFE_STEP_MAX + 1);        /* the daemon was held up */
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_IDLE, &now), LIFE_GO_ON);
    ASSERT_EQ(l.idle, 4 * MIN + 2 * S);
    row.idle_spent = (uint64_t)l.idle;      /* as the next daemon finds it */
    pass(8 * HOUR);
    life_resume(&l, &row, &now);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, 5 * MIN - 4 * S, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, MIN, LIFE_WARN), LIFE_GO_ON);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, MIN, LIFE_GO_ON), LIFE_STOP_IDLE);
    /* the next daemon has to see it idle once before it stops it */
    row.idle_spent = (uint64_t)l.idle;
    life_resume(&l, &row, &now);
    pass(2 * S);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_UNSURE, &now), LIFE_GO_ON);
    pass(2 * S);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_IDLE, &now), LIFE_STOP_IDLE);
}

TEST(a_stop_that_failed_waits_a_minute)
{
    struct vm_row row = { .limits = { .ttl_ms = HOUR } };

    clock_at(5 * S);
    struct life l = started(&row);
    pass(HOUR);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_IDLE, &now), LIFE_STOP_TTL);
    life_defer(&l, &now);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, MIN - 2 * S, LIFE_GO_ON), LIFE_GO_ON);
    ASSERT_EQ(looks(&l, &row, LIFE_IDLE, 2 * S, LIFE_GO_ON), LIFE_STOP_TTL);
    /* a change is as good as a minute */
    life_defer(&l, &now);
    row.limits.ttl_ms = 2 * S;
    life_change(&l, &row, &now);
    pass(2 * S);
    ASSERT_EQ(life_look(&l, &row.limits, LIFE_IDLE, &now), LIFE_STOP_TTL);
}

TEST(cpu_time_is_work_from_a_share_of_one_processor_on)
{
    struct life l = { 0 };

    clock_at(5 * S);
    ASSERT_EQ(life_cpu(&l, 900000000, 10, &now), LIFE_UNSURE);
    pass(2 * S);
    ASSERT_EQ(life_cpu(&l, 900000000 + 199999999, 10, &now), LIFE_IDLE);
    pass(2 * S);
    ASSERT_EQ(life_cpu(&l, 900000000 + 199999999 + 200000000, 10, &now), LIFE_AT_WORK);
    pass(2 * S);
    ASSERT_EQ(life_cpu(&l, 5, 10, &now), LIFE_UNSURE);      /* another process */
    ASSERT_EQ(life_cpu(&l, 6, 10, &now), LIFE_UNSURE);      /* no time has passed */
    pass(2 * S);
    ASSERT_EQ(life_cpu(&l, 6, 10, &now), LIFE_IDLE);
}

TEST(a_sleep_of_the_host_does_not_thin_out_the_work)
{
    struct life l = { 0 };

    clock_at(5 * S);
    ASSERT_EQ(life_cpu(&l, 0, 10, &now), LIFE_UNSURE);
    pass(S);
    sleep_of_the_host(15 * S);
    pass(S);
    ASSERT_EQ(life_cpu(&l, 200000000, 10, &now), LIFE_AT_WORK);
    /* two samples too far apart are none */
    pass(LIFE_STEP_MAX + 1);
    ASSERT_EQ(life_cpu(&l, 200000001, 10, &now), LIFE_UNSURE);
    pass(2 * S);
    ASSERT_EQ(life_cpu(&l, 200000002, 10, &now), LIFE_IDLE);
}

TEST(a_policy_starts_again_what_ended_by_itself)
{
    struct vm_row row = { .restarts = 0 };
    char text[RESTART_TEXT];

    clock_at(5 * S);
    ASSERT_FALSE(life_restarts(&row, LIFE_FAILED, &now));
    ASSERT_TRUE(restart_parse("always", &row.limits.restart));
    ASSERT_TRUE(life_restarts(&row, LIFE_FAILED, &now));
    ASSERT_TRUE(life_restarts(&row, LIFE_ENDED_WELL, &now));
    ASSERT_TRUE(restart_parse("on-failure", &row.limits.restart));
    row.restarts = 1000000;
    ASSERT_TRUE(life_restarts(&row, LIFE_FAILED, &now));
    ASSERT_FALSE(life_restarts(&row, LIFE_ENDED_WELL, &now));
    ASSERT_TRUE(restart_parse("on-failure:3", &row.limits.restart));
    ASSERT_STREQ(restart_format(&row.limits.restart, text), "on-failure:3");
    row.restarts = 2;
    ASSERT_TRUE(life_restarts(&row, LIFE_FAILED, &now));
    row.restarts = 3;
    ASSERT_FALSE(life_restarts(&row, LIFE_FAILED, &now));
    /* a policy does not outlive the ttl, and does not give it a new one */
    ASSERT_TRUE(restart_parse("always", &row.limits.restart));
    row.limits.ttl_ms = HOUR;
    struct life l = started(&row);
    int64_t stop_at = row.stop_at;
    pass(30 * MIN);
    ASSERT_TRUE(life_restarts(&row, LIFE_FAILED, &now));
    life_begin(&l, &row, true, &now);
    ASSERT_EQ(row.stop_at, stop_at);
    pass(30 * MIN);
    ASSERT_FALSE(life_restarts(&row, LIFE_FAILED, &now));
}

TEST(the_time_between_restarts_doubles_up_to_five_minutes)
{
    ASSERT_EQ(life_backoff(0), 1000);
    ASSERT_EQ(life_backoff(1), 2000);
    ASSERT_EQ(life_backoff(8), 256000);
    ASSERT_EQ(life_backoff(9), 300000);
    ASSERT_EQ(life_backoff(4000000000u), 300000);
}

TEST(restart_policies_have_words)
{
    struct restart r;
    char text[RESTART_TEXT];
    static const char *const wrong[] = { "", "yes", "on-failure:", "on-failure:0", "on-failure:-1",
                                         "on-failure:1001", "always:3", "Always", "no " };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ASSERT_FALSE(restart_parse(wrong[i], &r));
    ASSERT_TRUE(restart_parse("unless-stopped", &r));
    ASSERT_STREQ(restart_format(&r, text), "always");
    ASSERT_TRUE(restart_parse("on-failure", &r));
    ASSERT_STREQ(restart_format(&r, text), "on-failure");
    ASSERT_TRUE(restart_parse("no", &r));
    ASSERT_STREQ(restart_format(&r, text), "no");
}

/* Who of these users gets places, each with more to do than there are: in their order, as looks
 * come by it. */
static unsigned places(bool start, unsigned users, unsigned *of)
{
    unsigned sum = 0;

    for (unsigned round = 0; round < 4; round++) {
        for (unsigned u = 0; u < users; u++) {
            while (life_has_place(start, sum, of[u])) {
                of[u]++;
                sum++;
            }
        }
    }
    return sum;
}

TEST(stops_have_places_of_their_own_and_few_users_do_not_take_all)
{
    unsigned one[1] = { 0 }, four[4] = { 0 }, nine[9] = { 0 }, crash[4] = { 0 };

    ASSERT_EQ(places(false, 1, one), 2);
    ASSERT_EQ(places(false, 4, four), 6);
    ASSERT_TRUE(life_has_place(false, 6, 0));       /* whoever comes fifth */
    ASSERT_EQ(places(false, 9, nine), 8);
    ASSERT_FALSE(life_has_place(false, 8, 0));
    /* a user whose stop has ended leaves the place to one who has none */
    ASSERT_FALSE(life_has_place(false, 7, 1));
    ASSERT_TRUE(life_has_place(false, 7, 0));
    ASSERT_EQ(places(true, 4, crash), 4);
    ASSERT_FALSE(life_has_place(true, 4, 0));
    unsigned two[2] = { 0 };
    ASSERT_EQ(places(true, 2, two), 3);
    ASSERT_TRUE(life_has_place(true, 3, 0));
}
