/* SPDX-License-Identifier: MIT
 *
 * Execs: quotas, what is kept, waits that end by themselves. The guest is played by the test.
 */
#include "common/auto.h"
#include "common/io.h"
#include "tests/fakes/execworld.h"
#include "tests/harness/test.h"
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void nap(int ms)
{
    struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
    nanosleep(&ts, NULL);
}

TEST(only_so_many_run_and_only_so_many_are_kept)
{
    struct world w;
    struct err e = ERR_INIT;
    static struct exec *x[LIMIT_EXECS];
    static uint32_t stream[LIMIT_EXECS];
    static const char *const argv[] = { "prog", NULL };
    world_begin(&w);
    for (size_t i = 0; i < LIMIT_EXECS; i++)
        x[i] = world_start(&w, true, false, &stream[i]);
    struct start s;
    start_begin(&s, &w, true, false, argv);
    ASSERT_EQ(start_end(&s), -1);
    ASSERT_EQ(s.e.code, ERR_QUOTA);
    ASSERT_STREQ(s.e.quota.name, "sandbox_execs");
    ASSERT_EQ(s.e.quota.limit, LIMIT_EXECS);
    ASSERT_EQ(s.e.quota.used, LIMIT_EXECS);
    ASSERT_EQ(s.e.quota.requested, 1);
    ASSERT_CONTAINS(s.e.hint, "sbx execs");
    for (size_t i = 0; i < LIMIT_EXECS; i++)
        guestpeer_exit(&w.peer, stream[i], EXIT_CODE, 0, 0, 0);
    for (size_t i = 0; i < LIMIT_EXECS; i++) {
        ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_FORGET, 5000));
        ASSERT_EQ(exec_wait(x[i], deadline_in(5000), &e), 1);
        exec_unref(x[i]);
    }
    size_t n = 0;
    int64_t deadline = deadline_in(10000);
    do {
        struct exec_row *rows = NULL;
        nap(10);
        ASSERT_EQ(store_exec_list(w.store, WORLD_ID, &rows, &n, &e), 0);
        for (size_t i = 0; i < n; i++)
            exec_row_done(&rows[i]);
        free(rows);
        if (n > LIMIT_EXECS_KEPT && now_mono_ms() > deadline - 5000) {
            x[0] = world_start(&w, true, false, &stream[0]); /* gives the worker a reason */
            guestpeer_exit(&w.peer, stream[0], EXIT_CODE, 0, 0, 0);
            exec_unref(x[0]);
        }
    } while (n > LIMIT_EXECS_KEPT && now_mono_ms() < deadline);
    ASSERT_EQ(n, (size_t)LIMIT_EXECS_KEPT);
    /* what has ended keeps no descriptor */
    ASSERT_LT(test_count_fds(), 50);
    world_done(&w);
}

static uint64_t execs_used(struct quota *q)
{
    static const struct identity owner = { .uid = WORLD_UID };
    struct quota_state s[QUOTA_MAX];

    quota_look(q, &owner, s);
    return s[QUOTA_EXECS].used;
}

TEST(execs_are_on_the_owners_account_from_start_to_end_and_past_the_daemon)
{
    static const char *const argv[] = { "prog", NULL };
    static const char text[] = "{\"default\":{\"execs\":2}}";
    struct quota_config limits = { 0 };
    struct quota *quota = NULL;
    struct world w;
    struct err e = ERR_INIT;
    struct exec *x[2];
    uint32_t stream[2];
    struct start s;

    ASSERT_OK(json_decode(quota_config_table, text, strlen(text), &limits, &e), e);
    ASSERT_OK(quota_new(&limits, &quota, &e), e);
    world_init(&w);
    w.quota = quota;
    world_open(&w);
    world_ready(&w);
    for (int i = 0; i < 2; i++)
        x[i] = world_start(&w, true, false, &stream[i]);
    ASSERT_EQ(execs_used(quota), 2);
    start_begin(&s, &w, true, false, argv);
    ASSERT_EQ(start_end(&s), -1);
    ASSERT_EQ(s.e.code, ERR_QUOTA);
    ASSERT_STREQ(s.e.quota.name, "execs");
    ASSERT_EQ(execs_used(quota), 2);
    /* an end gives back, though the exec is still there to be looked at */
    guestpeer_exit(&w.peer, stream[0], EXIT_CODE, 0, 0, 0);
    ASSERT_EQ(exec_wait(x[0], deadline_in(5000), &e), 1);
    ASSERT_EQ(execs_used(quota), 1);
    ASSERT_TRUE(world_row_ended(&w, exec_id(x[0]), EXIT_CODE, 0));
    /* the next daemon takes it from the rows: the one that ended costs nothing */
    exec_unref(x[0]);
    exec_unref(x[1]);
    world_shut(&w);
    /* a callback of the event loop may hold the table still, and tells nobody when it lets go */
    for (int64_t by = deadline_in(10000); execs_used(quota) && now_mono_ms() < by;)
        poll(NULL, 0, 1);
    ASSERT_EQ(execs_used(quota), 0);
    world_open(&w);
    ASSERT_EQ(execs_used(quota), 1);
    /* and a guest that is gone has none */
    exec_table_close(w.table);
    ASSERT_EQ(execs_used(quota), 0);
    world_done(&w);
    quota_free(quota);
}

TEST(a_command_that_does_not_start_costs_nothing)
{
    static const char *const argv[] = { "prog", NULL };
    static const char text[] = "{\"default\":{\"execs\":1}}";
    struct quota_config limits = { 0 };
    struct quota *quota = NULL;
    struct world w;
    struct err e = ERR_INIT;
    struct start s;

    ASSERT_OK(json_decode(quota_config_table, text, strlen(text), &limits, &e), e);
    ASSERT_OK(quota_new(&limits, &quota, &e), e);
    world_init(&w);
    w.quota = quota;
    world_open(&w);
    world_ready(&w);
    exec_table_close(w.table);
    start_begin(&s, &w, true, false, argv);
    ASSERT_EQ(start_end(&s), -1);
    ASSERT_EQ(s.e.code, ERR_SANDBOX_STATE);
    ASSERT_EQ(execs_used(quota), 0);
    world_done(&w);
    quota_free(quota);
}

TEST(bad_requests)
{
    struct world w;
    static const char *const empty[] = { "", NULL };
    static const char *const none[] = { NULL };
    struct start s;
    world_begin(&w);
    start_begin(&s, &w, true, false, empty);
    ASSERT_EQ(start_end(&s), -1);
    ASSERT_EQ(s.e.code, ERR_FIELD_INVALID);
    start_begin(&s, &w, true, false, none);
    ASSERT_EQ(start_end(&s), -1);
    ASSERT_EQ(s.e.code, ERR_FIELD_INVALID);
    char *big = malloc(LIMIT_ARG_BYTES);
    memset(big, 'x', LIMIT_ARG_BYTES - 1);
    big[LIMIT_ARG_BYTES - 1] = '\0';
    const char *const much[] = { "prog", big, big, big, NULL };
    start_begin(&s, &w, true, false, much);
    ASSERT_EQ(start_end(&s), -1);
    ASSERT_EQ(s.e.code, ERR_TOO_LARGE);
    free(big);
    world_done(&w);
}

TEST(an_exec_nobody_comes_for_is_ended)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t a, b, c;
    world_init(&w);
    w.attach_ms = 300;
    world_open(&w);
    world_ready(&w);
    struct exec *x = world_start(&w, false, false, &a), *y = world_start(&w, true, false, &b);
    struct exec *z = world_start(&w, false, false, &c);
    struct exec_reader *r = NULL;
    ASSERT_OK(exec_attach(z, 0, 0, &r, &e), e);
    exec_detach(r); /* once is enough; what comes then its caller decides */
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_END, 5000));
    ASSERT_EQ(w.peer.frame.stream, a);
    ASSERT_FALSE(guestpeer_expect(&w.peer, FRAME_END, 600));
    exec_unref(x);
    exec_unref(y);
    exec_unref(z);
    world_done(&w);
}

TEST(output_that_is_promised_and_never_comes)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t a, b;
    world_init(&w);
    w.stall_ms = 300;
    world_open(&w);
    world_ready(&w);
    struct exec *x = world_start(&w, true, false, &a), *y = world_start(&w, true, false, &b);
    struct exec_reader *r = NULL;
    ASSERT_OK(exec_attach(y, 0, 0, &r, &e), e);
    guestpeer_exit(&w.peer, a, EXIT_CODE, 6, UINT64_MAX, UINT64_MAX);
    /* the other one has a reader that does not read: its guest waits with reason */
    world_pour(&w, b, 1, 0, LIMIT_WINDOW);
    guestpeer_exit(&w.peer, b, EXIT_CODE, 0, LIMIT_WINDOW + 10, 0);
    ASSERT_EQ(exec_wait(x, deadline_in(5000), &e), 1);
    ASSERT_TRUE(world_row_ended(&w, exec_id(x), EXIT_CODE, 6));
    ASSERT_EQ(exec_wait(y, deadline_in(700), &e), 0);
    static uint8_t buf[65536];
    uint64_t lost, got = 0;
    int fd;
    bool ended;
    while (got < LIMIT_WINDOW)
        got += (uint64_t)world_take(r, buf, sizeof(buf), &fd, &lost, &ended);
    world_pour(&w, b, 1, LIMIT_WINDOW, 10);
    ASSERT_EQ(exec_wait(y, deadline_in(5000), &e), 1);
    exec_detach(r);
    exec_unref(x);
    exec_unref(y);
    world_done(&w);
}

/* A guest's word is asked for, not waited for: not after a timeout, and not after END. */
TEST(commands_that_the_guest_does_not_end)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t a, b, c, d;
    world_init(&w);
    w.end_ms = 300;
    world_open(&w);
    world_ready(&w);
    struct exec *on = world_start(&w, true, false, &a), *told = world_start(&w, true, false, &b);
    struct exec *full = world_start(&w, true, false, &c);
    w.timeout_ms = 100;
    struct exec *late = world_start(&w, true, false, &d);
    struct exec_reader *r = NULL;
    /* one of them waits with reason: nobody takes its output */
    ASSERT_OK(exec_attach(full, 0, 0, &r, &e), e);
    world_pour(&w, c, 1, 0, LIMIT_WINDOW);
    ASSERT_TRUE(world_output_is(full, 1, LIMIT_WINDOW));
    exec_end(full);
    exec_end(told);
    ASSERT_EQ(exec_wait(late, deadline_in(10000), &e), 1);
    ASSERT_EQ(exec_wait(told, deadline_in(10000), &e), 1);
    ASSERT_TRUE(world_row_ended(&w, exec_id(late), EXIT_LOST, 0));
    ASSERT_TRUE(world_row_ended(&w, exec_id(told), EXIT_LOST, 0));
    ASSERT_EQ(exec_wait(full, deadline_in(700), &e), 0);
    ASSERT_EQ(exec_wait(on, deadline_in(0), &e), 0);
    static uint8_t buf[65536];
    uint64_t lost, got = 0;
    bool ended;
    int fd;
    while (got < LIMIT_WINDOW)
        got += (uint64_t)world_take(r, buf, sizeof(buf), &fd, &lost, &ended);
    ASSERT_EQ(exec_wait(full, deadline_in(10000), &e), 1);
    guestpeer_exit(&w.peer, b, EXIT_CODE, 0, 0, 0);     /* too late; it may forget it */
    do
        ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_FORGET, 5000));
    while (w.peer.frame.stream != b);
    exec_detach(r);
    exec_unref(on);
    exec_unref(told);
    exec_unref(full);
    exec_unref(late);
    world_done(&w);
}
