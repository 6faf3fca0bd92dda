/* SPDX-License-Identifier: MIT
 *
 * Events on a real database: numbers that rise by one whatever happens, a table that stays bounded,
 * and a database that fails for a while.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/handlers.h"
#include "tests/harness/test.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEEP 100
#define LONG_MS 20000

static char path[128];
static struct err e;

static struct store *open_store(void)
{
    struct store *st = NULL;

    if (!path[0])
        snprintf(path, sizeof(path), "%s/db", test_dir());
    ASSERT_OK(store_open(path, &st, &e), e);
    return st;
}

static struct events *open_events(struct store *st)
{
    struct events *ev = NULL;

    ASSERT_OK(events_open(st, KEEP, "test", &ev, &e), e);
    return ev;
}

static struct event_row *all_of(struct store *st, const struct event_query *q, size_t *ret_n)
{
    struct event_page page;

    ASSERT_OK(store_event_list(st, q, &page, &e), e);
    *ret_n = page.n;
    return page.rows;
}

static const struct event_query everything = { .uid = -1, .most = 100000 };

/* Without a gap up to the last one there is. */
static uint64_t check_numbers(struct store *st, uint64_t first)
{
    size_t n = 0;
    struct event_row *rows = all_of(st, &everything, &n);
    uint64_t last = first - 1;

    ASSERT_TRUE(n > 0);
    for (size_t i = 0; i < n; i++, last++)
        ASSERT_EQ(rows[i].seq, first + i);
    event_rows_done(rows, n);
    return last;
}

static void add_some(struct events *ev, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        events_add(ev, &(struct event){ .kind = EVENT_START, .sandbox = "0123456789abcdef",
                                        .name = "box" });
}

static void insert_vm(struct store *st, const char *id, const char *name, uid_t uid)
{
    struct image_row i = { .digest = "sha256:a", .name = (char *)"debian",
                           .variant = (char *)"debian", .os = (char *)"Debian",
                           .kernel = (char *)"6", .recipe = (char *)"r" };
    struct vm_row r = { .uid = uid, .name = (char *)name, .groups = (char *)"",
                        .image_name = (char *)"debian", .image_digest = (char *)"sha256:a",
                        .machine = (char *)"microvm" };

    memcpy(r.id, id, sizeof(r.id));
    ASSERT_OK(store_image_insert(st, &i, &e), e);
    ASSERT_OK(store_vm_insert(st, &r, &e), e);
}

TEST(numbers_go_on_where_they_ended_and_the_start_says_how)
{
    struct store *st = open_store();
    struct events *ev = open_events(st);
    size_t n = 0;

    add_some(ev, 3);
    events_free(ev, true);
    store_close(st);
    st = open_store();
    ev = open_events(st);
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    struct events_state state;
    events_state(ev, &state);
    ASSERT_EQ(state.last, 6);
    ASSERT_EQ(state.written, 1);
    ASSERT_EQ(check_numbers(st, 1), 6);
    struct event_row *rows = all_of(st, &everything, &n);
    ASSERT_STREQ(rows[0].kind, "daemon.start");
    ASSERT_STREQ(rows[4].kind, "daemon.stop");
    ASSERT_STREQ(rows[5].detail, "test");
    event_rows_done(rows, n);
    events_free(ev, false);     /* as one that is killed: no word of its end */
    ev = open_events(st);
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    rows = all_of(st, &everything, &n);
    ASSERT_CONTAINS(rows[n - 1].detail, "did not end in order");
    event_rows_done(rows, n);
    events_free(ev, true);
    store_close(st);
}

/* A child writes as fast as it can and is killed in the middle; again and again. */
TEST(a_kill_leaves_no_gap_and_gives_no_number_twice)
{
    uint64_t before = 0;

    store_close(open_store());
    for (int round = 0; round < 8; round++) {
        int pipe_fd[2];
        ASSERT_EQ(pipe(pipe_fd), 0);
        pid_t pid = fork();
        if (pid == 0) {
            struct store *st = open_store();
            struct events *ev = open_events(st);
            for (;;) {
                add_some(ev, 7);
                if (events_flush(ev, LONG_MS))
                    (void)!write(pipe_fd[1], "x", 1);
            }
        }
        close(pipe_fd[1]);
        char c;
        for (int i = 0; i < 3 + round * 5; i++)
            ASSERT_EQ(read(pipe_fd[0], &c, 1), 1);
        ASSERT_EQ(kill(pid, SIGKILL), 0);
        ASSERT_EQ(waitpid(pid, NULL, 0), pid);
        close(pipe_fd[0]);
        struct store *st = open_store();
        struct event_range range;
        ASSERT_OK(store_event_range(st, -1, &range, &e), e);
        ASSERT_TRUE(range.last >= before + 7);
        ASSERT_EQ(check_numbers(st, range.first), range.last);
        before = range.last;
        store_close(st);
    }
}

TEST(the_oldest_go_and_their_numbers_never_come_back)
{
    struct store *st = open_store();
    struct events *ev = open_events(st);
    struct event_range range;

    add_some(ev, KEEP * 3);
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    ASSERT_OK(store_event_range(st, -1, &range, &e), e);
    ASSERT_EQ(range.last, KEEP * 3 + 1);
    ASSERT_EQ(range.first, KEEP * 2 + 2);
    ASSERT_STREQ(range.kind, "sandbox.start");
    ASSERT_EQ(check_numbers(st, range.first), range.last);
    events_free(ev, true);
    store_close(st);

    /* somebody empties the table: the count stays */
    sqlite3 *db = NULL;
    ASSERT_EQ(sqlite3_open(path, &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, "DELETE FROM event", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    st = open_store();
    struct event_range empty;
    ASSERT_OK(store_event_range(st, -1, &empty, &e), e);
    ASSERT_EQ(empty.last, range.last + 1);      /* the stop */
    ASSERT_EQ(empty.first, empty.last + 1);
    ev = open_events(st);
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    ASSERT_EQ(check_numbers(st, empty.first), empty.first);
    events_free(ev, true);
    store_close(st);
}

static size_t rows_of(struct store *st, int64_t uid, uint64_t *ret_first)
{
    size_t n = 0;
    struct event_row *rows = all_of(st, &(struct event_query){ .uid = uid, .most = 100000 }, &n);

    *ret_first = n > 0 ? rows[0].seq : 0;
    event_rows_done(rows, n);
    return n;
}

static void add_of(struct store *st, int64_t uid, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct event_row r = { .time = 1, .kind = (char *)"policy.change", .uid = uid, .count = 1 };
        ASSERT_OK(store_event_add(st, &r, 1, KEEP, &e), e);
    }
}

TEST(who_has_most_loses_the_oldest)
{
    struct store *st = open_store();
    struct event_range range;
    uint64_t first;

    add_of(st, -1, 1);
    add_of(st, 1001, 10);
    add_of(st, 1002, 3 * KEEP);
    ASSERT_EQ(rows_of(st, 1001, &first), 10);
    ASSERT_EQ(first, 2);
    ASSERT_EQ(rows_of(st, 1002, &first), KEEP - 11);
    ASSERT_EQ(rows_of(st, -1, &first), KEEP);
    /* each is told from where on all of his are there */
    ASSERT_OK(store_event_range(st, 1001, &range, &e), e);
    ASSERT_EQ(range.first, 1);
    ASSERT_OK(store_event_range(st, 1002, &range, &e), e);
    ASSERT_EQ(range.first, 3 * KEEP + 11 - (KEEP - 11) + 1);
    /* and with the rows themselves: nothing can go between the two */
    const struct event_query q = { .uid = -1, .range_of = 1002, .most = 1 };
    struct event_page page;
    ASSERT_OK(store_event_list(st, &q, &page, &e), e);
    ASSERT_EQ(page.range.first, range.first);
    event_rows_done(page.rows, page.n);
    store_close(st);
    st = open_store();                  /* counted anew */
    add_of(st, 1001, KEEP);
    size_t one = rows_of(st, 1001, &first), two = rows_of(st, 1002, &first);
    ASSERT_EQ(one + two, KEEP - 1);
    ASSERT_TRUE(one == two + 1 || two == one + 1);
    ASSERT_OK(store_event_range(st, 1001, &range, &e), e);
    ASSERT_GT(range.first, 11);
    store_close(st);
}

TEST(an_id_is_enough_while_the_sandbox_is_there_and_after)
{
    static const char id[] = "00000000000000aa";
    struct store *st = open_store();
    struct events *ev = open_events(st);
    size_t n = 0;

    insert_vm(st, id, "anns", 1001);
    events_add(ev, &(struct event){ .kind = EVENT_EXEC_START, .sandbox = id, .detail = "make" });
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    ASSERT_OK(store_vm_delete(st, id, &e), e);
    events_add(ev, &(struct event){ .kind = EVENT_EXEC_EXIT, .sandbox = id });
    events_add(ev, &(struct event){ .kind = EVENT_START, .sandbox = "00000000000000bb",
                                    .name = "anns", .uid = &(uid_t){ 1002 } });
    ASSERT_TRUE(events_flush(ev, LONG_MS));

    struct event_row *rows = all_of(st, &(struct event_query){ .uid = 1001, .most = 9 }, &n);
    ASSERT_EQ(n, 2);
    for (size_t i = 0; i < n; i++) {
        ASSERT_EQ(rows[i].uid, 1001);
        ASSERT_STREQ(rows[i].name, "anns");
        ASSERT_STREQ(rows[i].sandbox, id);
    }
    ASSERT_STREQ(rows[0].detail, "make");
    event_rows_done(rows, n);

    rows = all_of(st, &(struct event_query){ .uid = -1, .sandbox = "anns", .most = 9 }, &n);
    ASSERT_EQ(n, 0);
    event_rows_done(rows, n);
    rows = all_of(st, &(struct event_query){ .uid = -1, .sandbox = "anns", .or_name = true,
                                             .most = 9 }, &n);
    ASSERT_EQ(n, 3);
    event_rows_done(rows, n);
    rows = all_of(st, &(struct event_query){ .uid = 1002, .sandbox = "anns", .or_name = true,
                                             .most = 9 }, &n);
    ASSERT_EQ(n, 1);
    event_rows_done(rows, n);
    events_free(ev, true);
    store_close(st);
}

TEST(a_page_ends_where_the_next_one_begins)
{
    struct store *st = open_store();
    struct events *ev = open_events(st);
    struct event_query q = { .uid = 5, .most = 2 };
    uint64_t seen = 0;

    for (int i = 0; i < 5; i++) {
        events_add(ev, &(struct event){ .kind = EVENT_START, .uid = &(uid_t){ 5 } });
        events_add(ev, &(struct event){ .kind = EVENT_START, .uid = &(uid_t){ 6 } });
    }
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    for (int pages = 0; q.from <= 11; pages++) {
        struct event_page page;
        ASSERT_OK(store_event_list(st, &q, &page, &e), e);
        for (size_t i = 0; i < page.n; i++)
            ASSERT_EQ(page.rows[i].seq, 2 * ++seen);
        event_rows_done(page.rows, page.n);
        q.from = page.next;
        ASSERT_TRUE(pages < 4);
    }
    ASSERT_EQ(seen, 5);
    ASSERT_EQ(q.from, 12);      /* what is not his has been passed over, too */
    events_free(ev, true);
    store_close(st);
}

TEST(times_lead_to_numbers)
{
    struct store *st = open_store();
    uint64_t seq;
    struct event_row rows[] = {
        { .time = 100, .kind = (char *)"a", .uid = -1, .count = 1 },
        { .time = 200, .kind = (char *)"b", .uid = -1, .count = 1 },
    };

    ASSERT_OK(store_event_since(st, 0, &seq, &e), e);
    ASSERT_EQ(seq, 1);
    ASSERT_OK(store_event_add(st, rows, 2, KEEP, &e), e);
    ASSERT_OK(store_event_since(st, INT64_MIN, &seq, &e), e);
    ASSERT_EQ(seq, 1);
    ASSERT_OK(store_event_since(st, 101, &seq, &e), e);
    ASSERT_EQ(seq, 2);
    ASSERT_OK(store_event_since(st, 201, &seq, &e), e);
    ASSERT_EQ(seq, 3);
    store_close(st);
}

TEST(what_comes_often_is_counted)
{
    struct store *st = open_store();
    struct events *ev = open_events(st);
    size_t n = 0;

    for (int i = 0; i < 1000; i++) {
        events_repeat(ev, &(struct event){ .kind = EVENT_DENIED, .sandbox = "00000000000000aa",
                                           .detail = i ? "again" : "first" });
        events_repeat(ev, &(struct event){ .kind = EVENT_DENIED, .sandbox = "00000000000000bb" });
    }
    events_free(ev, true);      /* and what was counted is told at the latest now */
    struct event_row *rows = all_of(st, &(struct event_query){ .uid = -1, .most = 9,
                                    .sandbox = "00000000000000aa" }, &n);
    ASSERT_EQ(n, 2);
    ASSERT_STREQ(rows[0].detail, "first");
    ASSERT_EQ(rows[0].count, 1);
    ASSERT_EQ(rows[1].count, 999);
    ASSERT_STREQ(rows[1].detail, "again");
    event_rows_done(rows, n);
    check_numbers(st, 1);
    store_close(st);
}

TEST(more_kinds_of_repeats_than_windows_lose_none)
{
    struct store *st = open_store();
    struct events *ev = NULL;
    size_t n = 0;
    uint64_t sum = 0;

    ASSERT_OK(events_open(st, 100000, "test", &ev, &e), e);
    for (int round = 0; round < 3; round++) {
        for (uid_t uid = 0; uid < EVENT_WINDOWS * 2; uid++)
            events_repeat(ev, &(struct event){ .kind = EVENT_QUOTA, .uid = &uid });
        ASSERT_TRUE(events_flush(ev, LONG_MS));
    }
    events_free(ev, true);
    struct event_row *rows = all_of(st, &everything, &n);
    for (size_t i = 0; i < n; i++)
        sum += strcmp(rows[i].kind, "quota.refused") == 0 ? rows[i].count : 0;
    ASSERT_EQ(sum, EVENT_WINDOWS * 2 * 3);
    event_rows_done(rows, n);
    store_close(st);
}

/* No byte can be written: neither do callers wait, nor is a number used up. */
TEST(a_database_that_fails_delays_events_and_loses_those_beyond_the_queue)
{
    struct store *st = open_store();
    struct events *ev = NULL;
    struct rlimit old, none;
    struct events_state state;
    size_t n = 0;

    ASSERT_OK(events_open(st, 100000, "test", &ev, &e), e);
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = old;
    none.rlim_cur = 1;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
    add_some(ev, 1);
    ASSERT_FALSE(events_flush(ev, LONG_MS));    /* tells that it fails, long before that */
    add_some(ev, EVENT_QUEUE - 1 + 10);
    events_state(ev, &state);
    ASSERT_EQ(state.waiting, EVENT_QUEUE);
    ASSERT_EQ(state.lost, 10);
    ASSERT_EQ(state.last, 1);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
    for (int i = 0; i < 100 && !events_flush(ev, 200); i++)
        usleep(100000);         /* it tries again by itself */
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    add_some(ev, 1);
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    struct event_row *rows = all_of(st, &everything, &n);
    ASSERT_EQ(n, 1 + EVENT_QUEUE + 1 + 1);
    ASSERT_STREQ(rows[n - 2].kind, "events.lost");
    ASSERT_EQ(rows[n - 2].count, 10);
    ASSERT_STREQ(rows[n - 1].kind, "sandbox.start");
    event_rows_done(rows, n);
    ASSERT_EQ(check_numbers(st, 1), 3 + EVENT_QUEUE);
    events_free(ev, true);
    store_close(st);
}

/* What a follower gets next. */
static const char *read_some(struct call *c)
{
    static char buf[16 * 1024 + 1];
    int64_t n = c->reply.stream.read(c->reply.stream.arg, buf, sizeof(buf) - 1);

    ASSERT_TRUE(n > 0);
    buf[n] = '\0';
    return buf;
}

TEST(a_reader_that_falls_behind_is_told_what_it_missed)
{
    struct store *st = open_store();
    struct events *ev = open_events(st);
    struct daemon d = { .store = st, .events = ev };
    struct call c = { .daemon = &d, .caller = { .admin = true }, .conn_fd = -1, .stop_fd = -1 };

    ASSERT_OK(target_parse("/v1/events?follow=true&since=1", &c.target, &e), e);
    ASSERT_OK(h_events(&c, &e), e);
    const char *text = read_some(&c);
    ASSERT_CONTAINS(text, "{\"seq\":1,");
    ASSERT_CONTAINS(text, "\"kind\":\"daemon.start\"");
    add_some(ev, KEEP + 50);                    /* 2 to 151; 52 is the oldest that stays */
    ASSERT_TRUE(events_flush(ev, LONG_MS));
    text = read_some(&c);
    ASSERT_TRUE(strncmp(text, "{\"seq\":51,", strlen("{\"seq\":51,")) == 0);
    ASSERT_CONTAINS(text, "\"kind\":\"gone\",\"detail\":\"events from 2 to 51 are not "
                          "kept any more\",\"count\":50}\n{\"seq\":52,");
    call_done(&c);

    c = (struct call){ .daemon = &d, .caller = { .admin = true }, .conn_fd = -1, .stop_fd = -1 };
    ASSERT_OK(target_parse("/v1/events?since=51", &c.target, &e), e);
    ASSERT_ERR(h_events(&c, &e), e, ERR_EVENTS_GONE);
    call_done(&c);
    events_free(ev, true);
    store_close(st);
}

TEST(text_is_cut_between_characters)
{
    struct store *st = open_store();
    struct events *ev = open_events(st);
    char text[EVENT_DETAIL * 2];
    size_t n = 0;

    memset(text, 'x', EVENT_DETAIL - 1);
    snprintf(text + EVENT_DETAIL - 1, EVENT_DETAIL, "\xc3\xa4 and more");
    events_add(ev, &(struct event){ .kind = EVENT_FAILED, .detail = text });
    events_free(ev, false);
    struct event_row *rows = all_of(st, &everything, &n);
    ASSERT_EQ(strlen(rows[1].detail), EVENT_DETAIL - 1);
    event_rows_done(rows, n);
    store_close(st);
}

TEST(nobody_has_to_keep_events)
{
    struct events_state state;

    add_some(NULL, 1);
    events_repeat(NULL, &(struct event){ .kind = EVENT_DENIED });
    ASSERT_TRUE(events_flush(NULL, 0));
    events_state(NULL, &state);
    ASSERT_EQ(state.last, 0);
    events_free(NULL, true);
}
