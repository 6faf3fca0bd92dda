/* SPDX-License-Identifier: MIT
 *
 * The stream of an attached client, between a client played here and a guest played by guestpeer.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/stream.h"
#include "daemon/call.h"
#include "daemon/upgrade.h"
#include "tests/fakes/execworld.h"
#include "tests/harness/test.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_MS 10000
#define QUIET_MS 300        /* long enough for what must not come */

static struct world w;
static struct exec *x;          /* a reference of the test's own */
static uint32_t stream;
static struct call call;
static struct upgrade_io io;
static int client = -1, stop_fd = -1;
static pthread_t thread;

/* the last record read by the client */
static enum stream_type type;
static uint32_t len;
static uint8_t payload[LIMIT_STREAM_FRAME + 1];

static void *run(void *arg)
{
    call.reply.upgrade.run(call.reply.upgrade.arg, &io);
    shutdown(io.fd, SHUT_RDWR);     /* as the server closes it */
    return NULL;
}

static void attach_at(const char *extra, size_t extra_len, uint64_t offset)
{
    struct err e = ERR_INIT;
    struct exec *mine = NULL;
    int pair[2];

    ASSERT_OK(exec_find(w.table, exec_id(x), &mine, &e), e);
    ASSERT_OK(upgrade_attach_take(&call, &mine, offset, 0, &e), e);
    ASSERT_NULL(mine);
    ASSERT_EQ(call.reply.status, 101);
    ASSERT_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    stop_fd = ASSERT_SYS(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ASSERT_OK(fd_set_nonblock(pair[1], true, &e), e);
    client = pair[0];
    io = (struct upgrade_io){ .fd = pair[1], .stop_fd = stop_fd, .extra = (const uint8_t *)extra,
                              .extra_len = extra_len };
    ASSERT_EQ(pthread_create(&thread, NULL, run, NULL), 0);
}

static void begin(bool detach, bool with_stdin)
{
    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_EMERG);
    world_begin(&w);
    x = world_start(&w, detach, with_stdin, &stream);
}

static void attach(bool detach, bool with_stdin)
{
    begin(detach, with_stdin);
    attach_at(NULL, 0, 0);
}

static void end(void)
{
    fd_close(take_fd(&client));
    pthread_join(thread, NULL);
    call_done(&call);
    close(io.fd);
    close(stop_fd);
    exec_unref(x);
    world_done(&w);
}

static void put(enum stream_type t, const void *data, uint32_t n)
{
    struct err e = ERR_INIT;
    uint8_t head[STREAM_HEADER];

    stream_header(head, t, n);
    ASSERT_OK(io_write_full(client, head, sizeof(head), deadline_in(WAIT_MS), &e), e);
    ASSERT_OK(io_write_full(client, data, n, deadline_in(WAIT_MS), &e), e);
}

/* False at the end of the stream. */
static bool get(void)
{
    struct err e = ERR_INIT;
    uint8_t head[STREAM_HEADER];

    if (io_read_full(client, head, sizeof(head), deadline_in(WAIT_MS), &e) < 0) {
        ASSERT_EQ(e.code, ERR_UNAVAILABLE);
        return false;
    }
    ASSERT_OK(stream_parse(head, &type, &len, &e), e);
    ASSERT_OK(io_read_full(client, payload, len, deadline_in(WAIT_MS), &e), e);
    payload[len] = '\0';
    return true;
}

static void expect(enum stream_type t, const char *text)
{
    ASSERT_TRUE(get());
    ASSERT_EQ(type, t);
    ASSERT_STREQ((char *)payload, text);
}

static void expect_end_frame(bool wanted)
{
    ASSERT_EQ(guestpeer_expect(&w.peer, FRAME_END, wanted ? WAIT_MS : QUIET_MS), wanted);
}

TEST(output_then_exit_then_the_end)
{
    attach(false, false);
    guestpeer_data(&w.peer, stream, 1, 0, "hello", 5);
    expect(STREAM_STDOUT, "hello");
    guestpeer_data(&w.peer, stream, 2, 0, "oops", 4);
    expect(STREAM_STDERR, "oops");
    guestpeer_exit(&w.peer, stream, EXIT_CODE, 3, 5, 4);
    expect(STREAM_EXIT, "{\"end\":\"exit\",\"exit_code\":3,\"signal\":0}");
    ASSERT_FALSE(get());
    expect_end_frame(false);
    end();
}

TEST(ends_are_told_apart)
{
    attach(false, false);
    guestpeer_exit(&w.peer, stream, EXIT_SIGNAL, 9, 0, 0);
    expect(STREAM_EXIT, "{\"end\":\"signal\",\"exit_code\":137,\"signal\":9}");
    end();
}

TEST(a_timeout_says_so)
{
    attach(false, false);
    guestpeer_exit(&w.peer, stream, EXIT_TIMEOUT, 0, 0, 0);
    ASSERT_TRUE(get());
    ASSERT_EQ(type, STREAM_EXIT);
    ASSERT_CONTAINS((char *)payload, "\"end\":\"timeout\",\"exit_code\":124");
    end();
}

TEST(input_goes_as_far_as_the_guest_takes_it)
{
    attach(false, true);
    put(STREAM_STDIN, "abcdef", 6);
    put(STREAM_STDIN, "", 0);
    ASSERT_FALSE(guestpeer_expect(&w.peer, FRAME_DATA, QUIET_MS));
    guestpeer_u64(&w.peer, FRAME_CREDIT, stream, 0, 4);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_DATA, WAIT_MS));
    ASSERT_EQ(w.peer.frame.len, 8 + 4);
    guestpeer_u64(&w.peer, FRAME_CREDIT, stream, 0, 100);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_DATA, WAIT_MS));
    ASSERT_EQ(w.peer.frame.len, 8 + 2);
    ASSERT_MEMEQ(w.peer.frame.payload + 8, 2, "ef", 2);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_EOF, WAIT_MS));
    /* half a stream is closed: the output goes on */
    guestpeer_data(&w.peer, stream, 1, 0, "late", 4);
    expect(STREAM_STDOUT, "late");
    guestpeer_exit(&w.peer, stream, EXIT_CODE, 0, 4, 0);
    ASSERT_TRUE(get());
    ASSERT_EQ(type, STREAM_EXIT);
    end();
}

TEST(input_that_came_with_the_request_is_not_lost)
{
    static const char extra[] = "\0\0\0\0\0\0\0\2hi\0\0\0\0\0\0\0\3y";

    begin(false, true);
    guestpeer_u64(&w.peer, FRAME_CREDIT, stream, 0, 100);
    attach_at(extra, sizeof(extra) - 1, 0);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_DATA, WAIT_MS));
    ASSERT_MEMEQ(w.peer.frame.payload + 8, 2, "hi", 2);
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_DATA, WAIT_MS));
    ASSERT_MEMEQ(w.peer.frame.payload + 8, 1, "y", 1);
    ASSERT_SYS(send(client, "ou", 2, 0));
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_DATA, WAIT_MS));
    ASSERT_MEMEQ(w.peer.frame.payload + 8, 2, "ou", 2);
    end();
}

TEST(records_may_come_byte_by_byte)
{
    static const char bytes[] = "\3\0\0\0\0\0\0\4\0\30\0\120" "\4\0\0\0\0\0\0\1\17";

    attach(false, false);
    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        ASSERT_SYS(send(client, bytes + i, 1, 0));
        usleep(2000);
    }
    /* without a terminal the size does not matter, and is no mistake */
    ASSERT_TRUE(guestpeer_expect(&w.peer, FRAME_SIGNAL, WAIT_MS));
    ASSERT_EQ(w.peer.frame.payload[0], 15);
    end();
}

TEST(a_client_that_leaves_ends_its_exec)
{
    attach(false, false);
    fd_close(take_fd(&client));
    expect_end_frame(true);
    end();
}

TEST(half_a_close_is_leaving_too)
{
    attach(false, false);
    ASSERT_SYS(shutdown(client, SHUT_WR));
    expect_end_frame(true);
    end();
}

TEST(a_detached_exec_lives_on)
{
    attach(true, false);
    fd_close(take_fd(&client));
    expect_end_frame(false);
    end();
}

TEST(saying_detach_lets_any_exec_live_on)
{
    attach(false, false);
    put(STREAM_DETACH, "", 0);
    ASSERT_FALSE(get());
    expect_end_frame(false);
    ASSERT_EQ(exec_table_running(w.table), 1);
    end();
}

TEST(a_client_that_leaves_before_the_answer_ends_its_exec)
{
    struct err e = ERR_INIT;
    struct exec *mine = NULL;

    begin(false, false);
    ASSERT_OK(exec_find(w.table, exec_id(x), &mine, &e), e);
    ASSERT_OK(upgrade_attach_take(&call, &mine, 0, 0, &e), e);
    call_done(&call);
    expect_end_frame(true);
    exec_unref(x);
    world_done(&w);
}

static void expect_refusal(const char *bytes, size_t n)
{
    attach(false, false);
    ASSERT_SYS(send(client, bytes, n, 0));
    ASSERT_TRUE(get());
    ASSERT_EQ(type, STREAM_ERROR);
    ASSERT_CONTAINS((char *)payload, "{\"error\":{\"code\":\"");
    ASSERT_FALSE(get());
    expect_end_frame(true);
    end();
}

TEST(unknown_record)
{
    expect_refusal("\11\0\0\0\0\0\0\0", 8);
}

TEST(record_with_junk_in_its_header)
{
    expect_refusal("\0\1\0\0\0\0\0\0", 8);
}

TEST(record_that_is_too_long)
{
    expect_refusal("\0\0\0\0\0\1\0\1", 8);
}

TEST(record_that_only_the_daemon_sends)
{
    expect_refusal("\6\0\0\0\0\0\0\2{}", 10);
}

TEST(long_record_that_only_the_daemon_sends)
{
    expect_refusal("\1\0\0\0\0\0\1\0", 8);
}

TEST(resize_of_a_wrong_length)
{
    expect_refusal("\3\0\0\0\0\0\0\3abc", 11);
}

TEST(signal_that_is_none)
{
    expect_refusal("\4\0\0\0\0\0\0\1\377", 9);
}

TEST(input_for_an_exec_without)
{
    expect_refusal("\0\0\0\0\0\0\0\1a", 9);
}

TEST(stopping_says_so_and_the_exec_goes_on)
{
    uint64_t one = 1;

    attach(false, false);
    ASSERT_SYS(write(stop_fd, &one, sizeof(one)));
    ASSERT_TRUE(get());
    ASSERT_EQ(type, STREAM_ERROR);
    ASSERT_CONTAINS((char *)payload, "\"code\":\"unavailable\"");
    ASSERT_FALSE(get());
    expect_end_frame(false);
    end();
}

static void *nothing(void *arg)
{
    return NULL;
}

TEST(stopping_does_not_wait_for_a_client_that_does_not_read)
{
    uint64_t one = 1;

    attach(true, false);
    world_pour(&w, stream, 1, 0, LIMIT_WINDOW);
    usleep(QUIET_MS * 1000);
    ASSERT_SYS(write(stop_fd, &one, sizeof(one)));
    int64_t start = now_mono_ms();
    pthread_join(thread, NULL);
    ASSERT_LT(now_mono_ms() - start, 5000);
    ASSERT_EQ(pthread_create(&thread, NULL, nothing, NULL), 0);  /* for end() to join */
    end();
}

/* All that a slow client leaves waits in the guest: what was given as credit is bounded. */
TEST(a_slow_client_gets_all_of_it)
{
    uint64_t total = 3 * LIMIT_EXEC_RING, given = LIMIT_WINDOW, sent = 0, got = 0;

    attach(false, false);
    while (got < total) {
        if (sent < given && sent < total) {
            uint64_t n = given - sent < total - sent ? given - sent : total - sent;
            world_pour(&w, stream, 1, sent, n);
            sent += n;
        }
        while (guestpeer_expect(&w.peer, FRAME_CREDIT, sent == total || got < sent ? 5 : 200)) {
            if (w.peer.frame.fd == 1 && guestpeer_got_u64(&w.peer, 0) > given)
                given = guestpeer_got_u64(&w.peer, 0);
            /* the two buffers on the way, the socket's, and the window */
            ASSERT_LE(given, got + 2 * LIMIT_WINDOW + 512 * KIB);
        }
        ASSERT_TRUE(get());
        ASSERT_EQ(type, STREAM_STDOUT);
        for (uint32_t i = 0; i < len; i++)
            if (payload[i] != world_byte(got + i))
                FAIL("byte %llu is wrong", (unsigned long long)(got + i));
        got += len;
    }
    guestpeer_exit(&w.peer, stream, EXIT_CODE, 0, total, 0);
    ASSERT_TRUE(get());
    ASSERT_EQ(type, STREAM_EXIT);
    end();
}

TEST(what_is_kept_no_longer_is_announced)
{
    uint64_t total = LIMIT_EXEC_RING + 300000, sent = 0;

    begin(true, false);
    while (sent < total) {
        uint64_t n = total - sent < 60000 ? total - sent : 60000;
        world_pour(&w, stream, 1, sent, n);
        sent += n;
        ASSERT_TRUE(world_output_is(x, 1, sent));
    }
    attach_at(NULL, 0, 0);
    ASSERT_TRUE(get());
    ASSERT_EQ(type, STREAM_GAP);
    ASSERT_EQ(len, 9);
    ASSERT_EQ(payload[0], 1);
    uint64_t lost = 0;
    for (int i = 1; i < 9; i++)
        lost = lost << 8 | payload[i];
    ASSERT_EQ(lost, 300000);
    ASSERT_TRUE(get());
    ASSERT_EQ(type, STREAM_STDOUT);
    ASSERT_EQ(payload[0], world_byte(lost));
    end();
}

TEST(an_offset_beyond_the_end_is_refused)
{
    struct err e = ERR_INIT;
    struct exec *mine = NULL;

    begin(true, false);
    ASSERT_OK(exec_find(w.table, exec_id(x), &mine, &e), e);
    ASSERT_ERR(upgrade_attach_take(&call, &mine, 1, 0, &e), e, ERR_OFFSET_GONE);
    ASSERT_NULL(mine);
    exec_unref(x);
    world_done(&w);
}

TEST(a_guest_that_vanishes_is_an_exit_too)
{
    attach(false, false);
    guestpeer_hangup(&w.peer);
    ASSERT_TRUE(get());
    ASSERT_EQ(type, STREAM_EXIT);
    ASSERT_CONTAINS((char *)payload, "\"end\":\"lost\"");
    end();
}
