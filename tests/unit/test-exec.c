/* SPDX-License-Identifier: MIT
 *
 * Execs against a guest played by the test: honest, slow, lying, gone. With the real agent:
 * test-execagent.c.
 */
#include "common/auto.h"
#include "common/io.h"
#include "tests/fakes/execworld.h"
#include "tests/harness/test.h"
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void nap(int ms)
{
    struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
    nanosleep(&ts, NULL);
}

TEST(start_output_exit_forget)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t stream;
    world_begin(&w);
    struct exec *x = world_start(&w, false, false, &stream);
    struct exec_wire_in in;
    ASSERT_EQ(exec_table_running(w.table), 1u);
    struct exec_reader *r = NULL;
    ASSERT_EQ(exec_attach(x, 0, 0, &r, &e), 0);
    guestpeer_data(&w.peer, stream, 1, 0, "hello", 5);
    guestpeer_data(&w.peer, stream, 2, 0, "oops", 4);
    char buf[100];
    int fd;
    uint64_t lost;
    bool ended, seen[3] = { 0 };
    for (int i = 0; i < 2; i++) {
        int64_t n = world_take(r, buf, sizeof(buf), &fd, &lost, &ended);
        ASSERT_TRUE(fd == 1 ? n == 5 && !memcmp(buf, "hello", 5) : n == 4);
        seen[fd] = true;
    }
    ASSERT_TRUE(seen[1] && seen[2]);
    guestpeer_exit(&w.peer, stream, EXIT_CODE, 3, 5, 4);
    ASSERT_EQ(world_take(r, buf, sizeof(buf), &fd, &lost, &ended), 0);
    ASSERT_TRUE(ended);
    ASSERT_EQ(exec_wait(x, deadline_in(1000), &e), 1);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_FORGET, 5000));
    ASSERT_EQ(w.peer.frame.stream, stream);
    ASSERT_TRUE(world_row_ended(&w, exec_id(x), EXIT_CODE, 3));
    ASSERT_EQ(world_row(&w, exec_id(x)).pid, 1234u);
    struct api_exec d = { 0 };
    ASSERT_EQ(exec_describe(x, &d, &e), 0);
    ASSERT_STREQ(d.state, "exited");
    ASSERT_STREQ(d.end, "exit");
    ASSERT_EQ(d.exit_code, 3);
    ASSERT_EQ(d.stdout_end, 5u);
    json_done(api_exec_table, &d, sizeof(d));
    ASSERT_EQ(exec_table_running(w.table), 0u);
    (void)in;
    exec_detach(r);
    exec_unref(x);
    world_done(&w);
}

TEST(requests_arrive_as_they_were_made_in_parts)
{
    struct world w;
    struct err e = ERR_INIT;
    world_begin(&w);
    char *big = malloc(100001);
    memset(big, 'x', 100000);
    big[100000] = '\0';
    const char *argv[] = { "prog", big, NULL };
    struct start s;
    start_begin(&s, &w, true, true, argv);
    uint8_t *all = malloc(LIMIT_EXEC_BYTES);
    size_t len = 0, parts = 0;
    uint32_t stream = 0;
    for (bool last = false; !last; parts++) {
        ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_EXEC, 5000));
        ASSERT_TRUE(parts == 0 || w.peer.frame.stream == stream);
        stream = w.peer.frame.stream;
        last = w.peer.frame.payload[0] != 0;
        memcpy(all + len, w.peer.frame.payload + 1, w.peer.frame.len - 1);
        len += w.peer.frame.len - 1;
    }
    ASSERT_EQ(parts, 4u);
    struct exec_wire_in in;
    ASSERT_EQ(exec_wire_decode(all, len, &in, &e), 0);
    ASSERT_STREQ(in.argv[1], big);
    ASSERT_EQ(in.stdin_open, 1);
    ASSERT_EQ(in.credit, LIMIT_WINDOW);
    exec_wire_in_done(&in);
    guestpeer_started(&w.peer, stream, 1);
    ASSERT_EQ(start_end(&s), 0);
    /* what is remembered of it is bounded */
    struct api_exec d = { 0 };
    ASSERT_OK(exec_describe(s.x, &d, &e), e);
    ASSERT_EQ(d.command.n, 2);
    ASSERT_EQ(strlen(d.command.items[1]), EXEC_COMMAND_KEPT - 5 + 3);
    json_done(api_exec_table, &d, sizeof(d));
    exec_unref(s.x);
    free(all);
    free(big);
    world_done(&w);
}

TEST(failures_to_start_are_told_apart_and_leave_nothing)
{
    static const struct {
        uint8_t kind;
        uint32_t sys;
        enum err_code code;
        const char *text;
    } t[] = {
        { EXEC_FAIL_NOT_FOUND, 2, ERR_COMMAND_NOT_FOUND, "prog: command not found" },
        { EXEC_FAIL_NOT_EXEC, 13, ERR_COMMAND_NOT_EXEC, "prog: Permission denied" },
        { EXEC_FAIL_WORKDIR, 2, ERR_INVALID,
          "working directory '/workspace': No such file or directory" },
        { EXEC_FAIL_USER, 0, ERR_INVALID, "there is no user 'agent' in the sandbox" },
        { EXEC_FAIL_RESOURCE, 11, ERR_GUEST, NULL },
        { 200, 99999, ERR_GUEST, NULL },
    };
    static const char *const argv[] = { "prog", NULL };
    struct world w;
    world_begin(&w);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        struct start s;
        start_begin(&s, &w, false, false, argv);
        ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_EXEC, 5000));
        guestpeer_failed(&w.peer, w.peer.frame.stream, t[i].sys, t[i].kind, "no\x1b[2Jreason");
        ASSERT_EQ(start_end(&s), -1);
        ASSERT_EQ(s.e.code, t[i].code);
        if (t[i].text)
            ASSERT_STREQ(s.e.msg, t[i].text);
        ASSERT_TRUE(strchr(s.e.msg, '\x1b') == NULL);
    }
    struct api_exec_list list = { 0 };
    struct err e = ERR_INIT;
    ASSERT_EQ(exec_list(w.table, &list, &e), 0);
    ASSERT_EQ(list.execs.n, 0u);
    json_done(api_exec_list_table, &list, sizeof(list));
    struct exec_row *rows = NULL;
    size_t n = 1;
    ASSERT_EQ(store_exec_list(w.store, WORLD_ID, &rows, &n, &e), 0);
    ASSERT_EQ(n, 0u);
    free(rows);
    ASSERT_EQ(exec_table_running(w.table), 0u);
    world_done(&w);
}

TEST(a_start_without_answer_times_out_and_is_ended)
{
    static const char *const argv[] = { "prog", NULL };
    struct world w;
    world_begin(&w);
    struct start s;
    start_ms = 1000;
    start_begin(&s, &w, false, false, argv);
    pthread_join(s.thread, NULL);
    ASSERT_EQ(s.rc, -1);
    ASSERT_EQ(s.e.code, ERR_TIMEOUT);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_EXEC, 5000));
    uint32_t stream = w.peer.frame.stream;
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_END, 5000));
    ASSERT_EQ(w.peer.frame.stream, stream);
    /* it shows up after all, and ends */
    guestpeer_started(&w.peer, stream, 1);
    guestpeer_exit(&w.peer, stream, EXIT_SIGNAL, 9, 0, 0);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_FORGET, 5000));
    ASSERT_EQ(exec_table_running(w.table), 0u);
    strv_done(&s.req.command);
    world_done(&w);
}

TEST(credit_follows_the_ring_when_detached_and_waits_when_not)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t a, b;
    world_begin(&w);
    struct exec *free_running = world_start(&w, true, false, &a);
    struct exec *held = world_start(&w, false, false, &b);
    world_pour(&w, b, 1, 0, LIMIT_WINDOW);
    ASSERT_TRUE(world_output_is(held, 1, LIMIT_WINDOW));
    world_pour(&w, a, 1, 0, LIMIT_WINDOW);
    /* the first word of credit is about the one that nobody has to come for */
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_CREDIT, 5000));
    ASSERT_EQ(w.peer.frame.stream, a);
    ASSERT_EQ(w.peer.frame.fd, 1);
    ASSERT_TRUE(guestpeer_got_u64(&w.peer, 0) > LIMIT_WINDOW);
    ASSERT_TRUE(world_output_is(free_running, 1, LIMIT_WINDOW));
    struct exec_reader *r = NULL;
    ASSERT_EQ(exec_attach(held, 0, 0, &r, &e), 0);
    static uint8_t buf[65536];
    uint64_t lost, got = 0;
    int fd;
    bool ended;
    while (got < LIMIT_WINDOW) {
        int64_t n = world_take(r, buf, sizeof(buf), &fd, &lost, &ended);
        ASSERT_TRUE(n > 0 && lost == 0);
        got += (uint64_t)n;
    }
    do
        ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_CREDIT, 5000));
    while (w.peer.frame.stream != b);
    exec_detach(r);
    exec_unref(held);
    exec_unref(free_running);
    world_done(&w);
}

TEST(the_slowest_reader_holds_the_credit_and_leaving_frees_it)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t stream;
    world_begin(&w);
    struct exec *x = world_start(&w, true, false, &stream);
    struct exec_reader *slow = NULL, *fast = NULL;
    ASSERT_EQ(exec_attach(x, 0, 0, &slow, &e), 0);
    ASSERT_EQ(exec_attach(x, 0, 0, &fast, &e), 0);
    world_pour(&w, stream, 1, 0, LIMIT_WINDOW);
    static uint8_t buf[65536];
    uint64_t lost, got = 0;
    int fd;
    bool ended;
    while (got < LIMIT_WINDOW) {
        int64_t n = world_take(fast, buf, sizeof(buf), &fd, &lost, &ended);
        ASSERT_TRUE(n > 0);
        got += (uint64_t)n;
    }
    ASSERT_TRUE(!guestpeer_expect(&w.peer, FRAME_CREDIT, 150));
    exec_detach(slow);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_CREDIT, 5000));
    ASSERT_EQ(guestpeer_got_u64(&w.peer, 0), 2 * LIMIT_WINDOW);
    exec_detach(fast);
    exec_unref(x);
    world_done(&w);
}

TEST(output_from_an_offset_and_what_is_gone)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t stream;
    world_begin(&w);
    struct exec *x = world_start(&w, true, false, &stream);
    uint64_t total = LIMIT_EXEC_RING + 100000, sent = 0, credit = LIMIT_WINDOW;
    while (sent < total) {
        uint64_t n = credit - sent < total - sent ? credit - sent : total - sent;
        world_pour(&w, stream, 1, sent, n);
        sent += n;
        while (sent < total && credit == sent) {
            ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_CREDIT, 5000));
            if (w.peer.frame.fd == 1)
                credit = guestpeer_got_u64(&w.peer, 0);
        }
    }
    ASSERT_TRUE(world_output_is(x, 1, total));
    uint8_t buf[1000];
    uint64_t offset = 0, lost = 0;
    ASSERT_EQ(exec_output(x, 1, &offset, buf, sizeof(buf), &lost, &e), 1000);
    ASSERT_EQ(lost, 100000u);
    ASSERT_EQ(offset, 101000u);
    ASSERT_EQ(buf[0], world_byte(100000));
    offset = total - 10;
    ASSERT_EQ(exec_output(x, 1, &offset, buf, sizeof(buf), &lost, &e), 10);
    ASSERT_EQ(buf[9], world_byte(total - 1));
    ASSERT_EQ(exec_output(x, 1, &offset, buf, sizeof(buf), &lost, &e), 0);
    offset = total + 1;
    ASSERT_EQ(exec_output(x, 1, &offset, buf, sizeof(buf), &lost, &e), -1);
    ASSERT_EQ(e.code, ERR_OFFSET_GONE);
    struct exec_reader *r = NULL;
    e = ERR_INIT;
    ASSERT_EQ(exec_attach(x, total + 1, 0, &r, &e), -1);
    ASSERT_EQ(e.code, ERR_OFFSET_GONE);
    exec_unref(x);
    world_done(&w);
}

TEST(input_waits_for_credit_and_ends)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t stream;
    world_begin(&w);
    struct exec *x = world_start(&w, false, true, &stream);
    struct exec_reader *r = NULL;
    ASSERT_EQ(exec_attach(x, 0, 0, &r, &e), 0);
    ASSERT_EQ(exec_stdin(r, "0123456789", 10, &e), 0);
    char buf[10];
    int fd;
    uint64_t lost;
    bool ended;
    ASSERT_EQ(exec_read(r, buf, sizeof(buf), &fd, &lost, &ended, &e), 0);
    guestpeer_u64(&w.peer, FRAME_CREDIT, stream, 0, 4);
    struct pollfd p = { .fd = exec_reader_fd(r), .events = POLLIN };
    ASSERT_EQ(poll(&p, 1, 5000), 1);
    /* reading first must not swallow the news that input may go */
    ASSERT_EQ(exec_read(r, buf, sizeof(buf), &fd, &lost, &ended, &e), 0);
    ASSERT_EQ(poll(&p, 1, 0), 1);
    ASSERT_EQ(exec_stdin(r, "0123456789", 10, &e), 4);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_DATA, 5000));
    ASSERT_EQ(guestpeer_got_u64(&w.peer, 0), 0u);
    ASSERT_EQ(w.peer.frame.len, 12u);
    guestpeer_u64(&w.peer, FRAME_CREDIT, stream, 0, 2); /* backwards: no news */
    guestpeer_u64(&w.peer, FRAME_CREDIT, stream, 0, 1000);
    int64_t n = 0, deadline = deadline_in(5000);
    while ((n = exec_stdin(r, "456789", 6, &e)) == 0 && now_mono_ms() < deadline)
        poll(&p, 1, 100);
    ASSERT_EQ(n, 6);
    ASSERT_EQ(exec_stdin(r, NULL, 0, &e), 0);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_EOF, 5000));
    ASSERT_EQ(guestpeer_got_u64(&w.peer, 0), 10u);
    ASSERT_EQ(exec_stdin(r, "x", 1, &e), -1);
    ASSERT_EQ(e.code, ERR_EXEC_STATE);
    /* after the end input goes nowhere, without a complaint */
    guestpeer_exit(&w.peer, stream, EXIT_CODE, 0, 0, 0);
    ASSERT_EQ(exec_wait(x, deadline_in(5000), &e), 1);
    ASSERT_EQ(exec_stdin(r, "x", 1, &e), 1);
    exec_detach(r);
    exec_unref(x);
    x = world_start(&w, false, false, &stream);
    e = ERR_INIT;
    ASSERT_EQ(exec_attach(x, 0, 0, &r, &e), 0);
    ASSERT_EQ(exec_stdin(r, "x", 1, &e), -1);
    ASSERT_EQ(e.code, ERR_EXEC_STATE);
    exec_detach(r);
    exec_unref(x);
    world_done(&w);
}

TEST(signal_resize_end)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t stream;
    world_begin(&w);
    struct exec *x = world_start(&w, true, false, &stream);
    ASSERT_EQ(exec_signal(x, 15, &e), 0);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_SIGNAL, 5000));
    ASSERT_EQ(exec_signal(x, 0, &e), -1);
    e = ERR_INIT;
    ASSERT_EQ(exec_signal(x, 65, &e), -1);
    e = ERR_INIT;
    ASSERT_EQ(exec_resize(x, 10, 20, &e), -1);
    ASSERT_EQ(e.code, ERR_EXEC_STATE);
    exec_end(x);
    exec_end(x);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_END, 5000));
    ASSERT_TRUE(!guestpeer_expect(&w.peer, FRAME_END, 100));
    guestpeer_exit(&w.peer, stream, EXIT_SIGNAL, 1, 0, 0);
    e = ERR_INIT;
    ASSERT_EQ(exec_wait(x, deadline_in(5000), &e), 1);
    ASSERT_EQ(exec_signal(x, 15, &e), -1);
    ASSERT_EQ(e.code, ERR_EXEC_STATE);
    exec_unref(x);
    world_done(&w);
}

TEST(execs_are_found_by_prefix)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t a, b;
    world_begin(&w);
    struct exec *x = world_start(&w, true, false, &a), *y = world_start(&w, true, false, &b);
    struct exec *found = NULL;
    ASSERT_TRUE(b == a + 1);
    ASSERT_EQ(exec_find(w.table, exec_id(x), &found, &e), 0);
    ASSERT_TRUE(found == x);
    exec_unref(found);
    static const char *const bad[] = { "", "zz", "ABC", "0123456789abcdef0", "../x" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        e = ERR_INIT;
        ASSERT_EQ(exec_find(w.table, bad[i], &found, &e), -1);
        ASSERT_EQ(e.code, ERR_EXEC_NOT_FOUND);
    }
    exec_unref(x);
    exec_unref(y);
    world_done(&w);
}

TEST(lies_about_output_harm_only_their_exec)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t bad, good;
    world_begin(&w);
    struct exec *x = world_start(&w, true, false, &bad), *y = world_start(&w, true, false, &good);
    static uint8_t junk[16384];
    /* beyond credit, beyond the end, around the corner, wrong fds, unknown streams, short frames */
    guestpeer_data(&w.peer, bad, 1, LIMIT_WINDOW - 10, junk, 100);
    guestpeer_data(&w.peer, bad, 1, 5, junk, 100);
    guestpeer_data(&w.peer, bad, 1, UINT64_MAX - 50, junk, 100);
    guestpeer_data(&w.peer, bad, 0, 0, junk, 100);
    guestpeer_data(&w.peer, bad, 3, 0, junk, 100);
    guestpeer_data(&w.peer, 1u << 31, 1, 0, junk, 100);
    guestpeer_send(&w.peer, FRAME_DATA, 1, bad, junk, 3);
    guestpeer_send(&w.peer, FRAME_EXIT, 0, bad, junk, 3);
    guestpeer_exit(&w.peer, bad, 99, 0, 0, 0);
    guestpeer_started(&w.peer, bad, 7);
    guestpeer_failed(&w.peer, bad, 1, 1, "late");
    guestpeer_u64(&w.peer, FRAME_CREDIT, bad, 1, 100);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_RESUME, 5000));
    ASSERT_EQ(guestpeer_got_u64(&w.peer, 0), 0u);
    world_pour(&w, good, 1, 0, 1000);
    ASSERT_TRUE(world_output_is(y, 1, 1000));
    ASSERT_TRUE(world_output_is(x, 1, 0));
    /* it joins on again and all is well */
    world_pour(&w, bad, 1, 0, 500);
    ASSERT_TRUE(world_output_is(x, 1, 500));
    /* it never does: the exec is ended */
    for (int i = 0; i < 100; i++) {
        guestpeer_data(&w.peer, bad, 1, 600, junk, 10);
        if (i % 4 == 0)
            nap(30);
    }
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_END, 5000));
    ASSERT_EQ(w.peer.frame.stream, bad);
    guestpeer_exit(&w.peer, bad, EXIT_CODE, 0, 610, 0);
    ASSERT_EQ(exec_wait(x, deadline_in(5000), &e), 1);
    ASSERT_EQ(exec_wait(y, deadline_in(20), &e), 0);
    exec_unref(x);
    exec_unref(y);
    world_done(&w);
}

TEST(the_first_exit_counts_and_waits_for_its_output)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t stream;
    world_begin(&w);
    struct exec *x = world_start(&w, true, false, &stream);
    world_pour(&w, stream, 1, 0, 100);
    guestpeer_exit(&w.peer, stream, EXIT_CODE, 7, 300, 0);
    guestpeer_exit(&w.peer, stream, EXIT_CODE, 8, 0, 0);
    ASSERT_EQ(exec_wait(x, deadline_in(100), &e), 0);
    world_pour(&w, stream, 1, 100, 200);
    ASSERT_EQ(exec_wait(x, deadline_in(5000), &e), 1);
    ASSERT_TRUE(world_row_ended(&w, exec_id(x), EXIT_CODE, 7));
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_FORGET, 5000));
    guestpeer_data(&w.peer, stream, 1, 300, "late", 4);
    guestpeer_exit(&w.peer, stream, EXIT_CODE, 9, 0, 0);
    /* told again, it is told to forget again */
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_FORGET, 5000));
    ASSERT_TRUE(world_output_is(x, 1, 300));
    ASSERT_TRUE(world_row_ended(&w, exec_id(x), EXIT_CODE, 7));
    exec_unref(x);
    world_done(&w);
}

struct waiter {
    struct exec *x;
    int rc;
    struct err e;
    pthread_t thread;
};

static void *wait_thread(void *arg)
{
    struct waiter *t = arg;
    t->rc = exec_wait(t->x, deadline_in(20000), &t->e);
    return NULL;
}

TEST(a_guest_that_goes_loses_its_execs)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t a, b;
    world_begin(&w);
    struct exec *x = world_start(&w, true, true, &a), *y = world_start(&w, true, false, &b);
    guestpeer_exit(&w.peer, b, EXIT_CODE, 5, 1000, 0); /* its output never comes */
    struct waiter t = { .x = x, .e = ERR_INIT };
    ASSERT_EQ(pthread_create(&t.thread, NULL, wait_thread, &t), 0);
    static const char *const argv[] = { "prog", NULL };
    struct start s;
    start_begin(&s, &w, false, false, argv);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_EXEC, 5000));
    guestpeer_hangup(&w.peer);
    pthread_join(t.thread, NULL);
    ASSERT_EQ(t.rc, 1);
    ASSERT_EQ(start_end(&s), -1);
    ASSERT_EQ(s.e.code, ERR_SANDBOX_STATE);
    struct api_exec d = { 0 };
    ASSERT_EQ(exec_describe(x, &d, &e), 0);
    ASSERT_STREQ(d.state, "lost");
    ASSERT_STREQ(d.end, "lost");
    json_done(api_exec_table, &d, sizeof(d));
    ASSERT_TRUE(world_row_ended(&w, exec_id(x), EXIT_LOST, 0));
    ASSERT_TRUE(world_row_ended(&w, exec_id(y), EXIT_CODE, 5));
    /* the hook is called after the waiters have been woken */
    int64_t deadline = deadline_in(5000);
    while (__atomic_load_n(&w.closed, __ATOMIC_SEQ_CST) == 0 && now_mono_ms() < deadline)
        nap(5);
    ASSERT_EQ(__atomic_load_n(&w.closed, __ATOMIC_SEQ_CST), 1u);
    ASSERT_EQ(exec_table_running(w.table), 0u);
    start_begin(&s, &w, false, false, argv);
    ASSERT_EQ(start_end(&s), -1);
    ASSERT_EQ(s.e.code, ERR_SANDBOX_STATE);
    exec_unref(x);
    exec_unref(y);
    world_done(&w);
}

/* The daemon is replaced while three execs run, one ends in between, one is known to nobody. */
TEST(a_new_daemon_goes_on_where_the_old_one_was)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t a, b, c;
    char id_a[17], id_b[17], id_c[17];
    world_begin(&w);
    struct exec *x = world_start(&w, true, true, &a);
    struct exec *y = world_start(&w, true, false, &b);
    struct exec *z = world_start(&w, true, false, &c);
    memcpy(id_a, exec_id(x), 17);
    memcpy(id_b, exec_id(y), 17);
    memcpy(id_c, exec_id(z), 17);
    world_pour(&w, a, 1, 0, 1000);
    world_pour(&w, b, 2, 0, 70);
    ASSERT_TRUE(world_output_is(x, 1, 1000) && world_output_is(y, 2, 70));
    struct waiter t = { .x = x, .e = ERR_INIT };
    exec_unref(y);
    exec_unref(z);
    ASSERT_EQ(pthread_create(&t.thread, NULL, wait_thread, &t), 0);
    nap(30);
    struct exec_table *old = exec_table_ref(w.table);
    world_shut(&w);
    pthread_join(t.thread, NULL);
    ASSERT_EQ(t.rc, -1);
    ASSERT_EQ(t.e.code, ERR_UNAVAILABLE);
    exec_unref(x);
    exec_table_unref(old);
    guestpeer_hangup(&w.peer);

    world_open(&w);
    ASSERT_EQ(exec_find(w.table, id_a, &x, &e), 0);
    struct guestsession s[] = {
        { .stream = a, .out = 1500, .in = 6 },
        { .stream = b, .state = 1, .err = 90, .how = EXIT_CODE, .value = 4, .err_end = 90 },
        { .stream = c + 100 },
        { .stream = c + 101, .state = 1 },
    };
    guestpeer_greet(&w.peer, true, s, 4);
    bool end = false, forget = false, resume_a = false, resume_b = false, credit_a = false;
    while (!(end && forget && resume_a && resume_b && credit_a)) {
        ASSERT_TRUE(guestpeer_read(&w.peer, 5000));
        struct frame *f = &w.peer.frame;
        end |= f->type == FRAME_END && f->stream == c + 100;
        forget |= f->type == FRAME_FORGET && f->stream == c + 101;
        if (f->type == FRAME_RESUME && f->stream == a) {
            ASSERT_EQ(guestpeer_got_u64(&w.peer, 0), 1000u);
            resume_a = true;
        }
        if (f->type == FRAME_RESUME && f->stream == b) {
            ASSERT_EQ(guestpeer_got_u64(&w.peer, 1), 70u);
            resume_b = true;
        }
        if (f->type == FRAME_CREDIT && f->stream == a && f->fd == 1) {
            ASSERT_EQ(guestpeer_got_u64(&w.peer, 0), 1000 + LIMIT_WINDOW);
            credit_a = true;
        }
    }
    /* overlap, then new */
    world_pour(&w, a, 1, 900, 600);
    world_pour(&w, b, 2, 70, 20);
    ASSERT_TRUE(world_output_is(x, 1, 1500));
    ASSERT_TRUE(world_row_ended(&w, id_b, EXIT_CODE, 4));
    ASSERT_TRUE(world_row_ended(&w, id_c, EXIT_LOST, 0));
    struct exec_reader *r = NULL;
    ASSERT_EQ(exec_attach(x, 0, 0, &r, &e), 0);
    guestpeer_u64(&w.peer, FRAME_CREDIT, a, 0, 100);
    static uint8_t buf[4096];
    int fd;
    uint64_t lost, at = 0;
    bool ended;
    while (at < 1500) {
        int64_t n = world_take(r, buf, sizeof(buf), &fd, &lost, &ended);
        ASSERT_TRUE(n > 0 && lost == 0);
        for (int64_t i = 0; i < n; i++)
            ASSERT_EQ(buf[i], world_byte(at + (uint64_t)i));
        at += (uint64_t)n;
    }
    /* input goes on at the byte the guest waits for */
    int64_t n, deadline = deadline_in(5000);
    while ((n = exec_stdin(r, "more", 4, &e)) == 0 && now_mono_ms() < deadline)
        nap(5);
    ASSERT_EQ(n, 4);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_DATA, 5000));
    ASSERT_EQ(guestpeer_got_u64(&w.peer, 0), 6u);
    exec_detach(r);
    /* numbers are not used twice */
    uint32_t d;
    struct exec *v = world_start(&w, true, false, &d);
    ASSERT_TRUE(d > c + 101);
    exec_unref(v);
    exec_unref(x);
    world_done(&w);
}

TEST(losing_the_thread_in_the_middle_loses_no_output)
{
    struct world w;
    uint32_t a;
    world_begin(&w);
    struct exec *x = world_start(&w, true, false, &a);
    world_pour(&w, a, 1, 0, 1000);
    guestpeer_raw(&w.peer, "noise noise noise noise noise noise", 35);
    world_pour(&w, a, 1, 1000, 1000); /* into the void */
    struct guestsession s[] = { { .stream = a, .out = 2000 } };
    uint32_t epoch = w.peer.dec.epoch;
    while (w.peer.dec.epoch == epoch)
        ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_HELLO, 5000));
    guestpeer_answer(&w.peer, true, s, 1);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_RESUME, 5000));
    uint64_t from = guestpeer_got_u64(&w.peer, 0);
    ASSERT_EQ(from, 1000u);
    world_pour(&w, a, 1, from, 2000 - from);
    ASSERT_TRUE(world_output_is(x, 1, 2000));
    exec_unref(x);
    world_done(&w);
}

/* A reader that comes back before the guest does asks for old output; the guest still holds the
 * credit the former daemon gave. */
TEST(credit_of_a_former_daemon_is_honoured)
{
    struct world w;
    struct err e = ERR_INIT;
    uint32_t a;
    char id[17];
    world_begin(&w);
    struct exec *x = world_start(&w, true, false, &a);
    memcpy(id, exec_id(x), 17);
    world_pour(&w, a, 1, 0, 100000);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_CREDIT, 5000));
    ASSERT_TRUE(world_output_is(x, 1, 100000));
    exec_unref(x);
    world_shut(&w);
    guestpeer_hangup(&w.peer);
    world_open(&w);
    struct exec_reader *r = NULL;
    ASSERT_OK(exec_find(w.table, id, &x, &e), e);
    ASSERT_OK(exec_attach(x, 0, 0, &r, &e), e);
    struct guestsession s[] = { { .stream = a, .out = 100000 } };
    guestpeer_greet(&w.peer, true, s, 1);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_RESUME, 5000));
    world_pour(&w, a, 1, 100000, LIMIT_WINDOW);
    ASSERT_TRUE(world_output_is(x, 1, 100000 + LIMIT_WINDOW));
    exec_detach(r);
    exec_unref(x);
    world_done(&w);
}
