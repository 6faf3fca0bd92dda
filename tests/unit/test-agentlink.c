/* SPDX-License-Identifier: MIT
 *
 * The daemon's end of a guest channel against a guest played by the test.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "daemon/agent.h"
#include "tests/fakes/guestpeer.h"
#include "tests/harness/test.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void nap(int ms)
{
    struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
    nanosleep(&ts, NULL);
}

struct link {
    struct guestpeer peer;
    struct evloop *loop;
    struct agent *agent;
    /* counted on the event thread */
    unsigned frames, sessions, synced, closed, logs, hellos;
    uint64_t data_bytes;
    bool close_in_callback;
    bool deny; /* call every frame senseless */
};

static unsigned get(const unsigned *p)
{
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void add(unsigned *p)
{
    __atomic_add_fetch(p, 1, __ATOMIC_SEQ_CST);
}

static bool on_frame(void *arg, const struct frame *f)
{
    struct link *l = arg;
    if (f->type == FRAME_HELLO)
        add(&l->hellos);
    else if (f->type == FRAME_SESSION)
        add(&l->sessions);
    else
        add(&l->frames);
    if (f->type == FRAME_DATA)
        __atomic_add_fetch(&l->data_bytes, f->len - 8, __ATOMIC_SEQ_CST);
    if (l->close_in_callback)
        agent_close(l->agent);
    return !l->deny;
}

static void on_synced(void *arg)
{
    struct link *l = arg;
    add(&l->synced);
}

static void on_closed(void *arg)
{
    struct link *l = arg;
    add(&l->closed);
}

static void on_log(void *arg, int level, const char *text, size_t len)
{
    struct link *l = arg;
    add(&l->logs);
}

static const struct agent_ops ops = {
    .frame = on_frame,
    .synced = on_synced,
    .closed = on_closed,
    .log = on_log,
};
static const char *const config_env[] = { "A=1", "B=two", NULL };
static const struct guest_config config = { .hostname = "box", .env = config_env };

static const struct guest_net net = { { 2, 0x5b, 0x78, 1, 0, 7 }, { 2, 0x5b, 0x78, 0, 0, 1 },
                                      0x0ad10008, 0x0ad10001, 0x0ad10001, 1450 };

static void setup_with(struct link *l, const struct guest_net *n)
{
    struct guest_config c = config;
    struct err e = ERR_INIT;
    c.net = n;
    *l = (struct link){ 0 };
    log_init("test", LOG_CRIT);
    guestpeer_init(&l->peer);
    ASSERT_EQ(evloop_new(&l->loop, &e), 0);
    ASSERT_EQ(
        agent_open(l->loop, "0123456789abcdef", l->peer.path, &c, &ops, l, &l->agent, &e), 0);
}

static void setup(struct link *l)
{
    setup_with(l, NULL);
}

static void teardown(struct link *l)
{
    agent_close(l->agent);
    agent_unref(l->agent);
    evloop_free(l->loop);
    guestpeer_done(&l->peer);
}

static bool until(const unsigned *what, unsigned want, int ms)
{
    int64_t deadline = deadline_in(ms);
    while (get(what) < want && now_mono_ms() < deadline)
        nap(2);
    return get(what) >= want;
}

static void setup_ready(struct link *l)
{
    struct err e = ERR_INIT;
    setup(l);
    guestpeer_greet(&l->peer, true, NULL, 0);
    ASSERT_EQ(agent_wait_ready(l->agent, deadline_in(5000), &e), 0);
}

TEST(handshake_config_ready_time)
{
    struct link l;
    struct err e = ERR_INIT;
    uint64_t kernel, agent;
    setup(&l);
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(50), &e), -1);
    ASSERT_EQ(e.code, ERR_TIMEOUT);
    ASSERT_TRUE(!agent_is_ready(l.agent));
    guestpeer_greet(&l.peer, false, NULL, 0);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_CONFIG, 5000));
    struct guest_config_in c;
    e = ERR_INIT;
    ASSERT_EQ(guest_config_decode(l.peer.frame.payload, l.peer.frame.len, &c, &e), 0);
    ASSERT_STREQ(c.hostname, "box");
    ASSERT_STREQ(c.env[1], "B=two");
    ASSERT_TRUE(c.realtime_ns > 1000000000ull);
    guest_config_in_done(&c);
    guestpeer_ready(&l.peer);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_TIME, 5000));
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(5000), &e), 0);
    agent_boot_times(l.agent, &kernel, &agent);
    ASSERT_EQ(kernel, 1000u);
    ASSERT_EQ(agent, 2000u);
    ASSERT_EQ(get(&l.synced), 1u);
    teardown(&l);
}

TEST(hello_is_repeated_until_answered)
{
    struct link l;
    setup(&l);
    guestpeer_accept(&l.peer, 5000);
    for (int i = 0; i < 4; i++)
        ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_HELLO, 2000));
    ASSERT_TRUE(l.peer.dec.epoch != 0);
    teardown(&l);
}

TEST(the_tail_of_an_old_conversation_is_skipped)
{
    struct link l;
    struct err e = ERR_INIT;
    setup(&l);
    guestpeer_accept(&l.peer, 5000);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_HELLO, 2000));
    uint32_t epoch = l.peer.dec.epoch;
    uint8_t junk[5000];
    for (size_t i = 0; i < sizeof(junk); i++)
        junk[i] = (uint8_t)(i * 31);
    guestpeer_raw(&l.peer, junk, sizeof(junk));
    /* frames of another epoch, whole ones and half a one */
    l.peer.dec.epoch = epoch ^ 0x55;
    guestpeer_data(&l.peer, 3, 1, 0, junk, 1000);
    uint8_t buf[FRAME_OVERHEAD + 100];
    size_t n = frame_encode(buf, epoch ^ 0x55, FRAME_DATA, 1, 3, junk, 100);
    guestpeer_raw(&l.peer, buf, n / 2);
    l.peer.dec.epoch = epoch;
    guestpeer_answer(&l.peer, true, NULL, 0);
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(5000), &e), 0);
    ASSERT_EQ(get(&l.frames), 0u);
    teardown(&l);
}

TEST(sessions_come_before_synced)
{
    struct link l;
    struct err e = ERR_INIT;
    setup(&l);
    struct guestsession s[3] = { { .stream = 1 }, { .stream = 2, .state = 1 }, { .stream = 9 } };
    guestpeer_greet(&l.peer, true, s, 3);
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(5000), &e), 0);
    ASSERT_EQ(get(&l.sessions), 3u);
    ASSERT_EQ(get(&l.synced), 1u);
    /* an answer to a hello repeated in the meantime changes nothing */
    guestpeer_answer(&l.peer, true, s, 3);
    ASSERT_EQ(agent_ping(l.agent, deadline_in(100), &e), -1);
    ASSERT_EQ(get(&l.sessions), 3u);
    ASSERT_EQ(get(&l.synced), 1u);
    teardown(&l);
}

TEST(another_version_is_said_so)
{
    struct link l;
    struct err e = ERR_INIT;
    setup(&l);
    guestpeer_accept(&l.peer, 5000);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_HELLO, 2000));
    uint8_t buf[64];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    wire_put_u32(&w, FRAME_VERSION + 1);
    guestpeer_send(&l.peer, FRAME_HELLO, 0, 0, buf, w.len);
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(5000), &e), -1);
    ASSERT_EQ(e.code, ERR_GUEST);
    teardown(&l);
}

TEST(ping_goes_round)
{
    struct link l;
    struct err e = ERR_INIT;
    setup_ready(&l);
    ASSERT_EQ(agent_ping(l.agent, deadline_in(100), &e), -1);
    ASSERT_EQ(e.code, ERR_TIMEOUT);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_PING, 1000));
    uint64_t cookie = guestpeer_got_u64(&l.peer, 0);
    guestpeer_u64(&l.peer, FRAME_PONG, 0, 0, cookie + 77);
    guestpeer_u64(&l.peer, FRAME_PING, 0, 0, 4242);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_PONG, 5000));
    ASSERT_EQ(guestpeer_got_u64(&l.peer, 0), 4242u);
    teardown(&l);
}

TEST(hangup_closes_once_and_wakes_everybody)
{
    struct link l;
    struct err e = ERR_INIT;
    setup_ready(&l);
    guestpeer_hangup(&l.peer);
    ASSERT_TRUE(until(&l.closed, 1, 5000));
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(5000), &e), -1);
    ASSERT_EQ(e.code, ERR_SANDBOX_STATE);
    e = ERR_INIT;
    ASSERT_EQ(agent_send(l.agent, FRAME_END, 0, 1, NULL, 0, deadline_in(1000), &e), -1);
    ASSERT_EQ(e.code, ERR_SANDBOX_STATE);
    agent_close(l.agent);
    nap(20);
    ASSERT_EQ(get(&l.closed), 1u);
    teardown(&l);
}

struct sender {
    struct link *l;
    int64_t deadline;
    int rc;
    struct err e;
    unsigned sent;
};

static void *send_much(void *arg)
{
    struct sender *s = arg;
    uint8_t payload[LIMIT_FRAME] = { 0 };
    while (s->rc == 0) {
        s->rc = agent_send(s->l->agent, FRAME_DATA, 0, 1, payload, sizeof(payload), s->deadline,
                           &s->e);
        if (s->rc == 0)
            add(&s->sent);
    }
    return NULL;
}

TEST(a_guest_that_does_not_read_makes_senders_time_out)
{
    struct link l;
    setup_ready(&l);
    struct sender s = { .l = &l, .deadline = deadline_in(300), .e = ERR_INIT };
    send_much(&s);
    ASSERT_EQ(s.e.code, ERR_TIMEOUT);
    /* the queue and what the socket holds, not more */
    ASSERT_TRUE(s.sent >= LIMIT_GUEST_OUTQ / (LIMIT_FRAME + FRAME_OVERHEAD));
    ASSERT_TRUE(s.sent < 3 * LIMIT_GUEST_OUTQ / LIMIT_FRAME);
    /* reading again lets everything through, whole and in order */
    for (unsigned i = 0; i < s.sent; i++)
        ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_DATA, 5000));
    struct err e = ERR_INIT;
    ASSERT_EQ(agent_send(l.agent, FRAME_END, 0, 1, NULL, 0, deadline_in(5000), &e), 0);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_END, 5000));
    ASSERT_EQ(l.peer.dec.resyncs, 0u);
    teardown(&l);
}

TEST(close_wakes_senders_that_wait)
{
    struct link l;
    setup_ready(&l);
    struct sender s[3];
    pthread_t th[3];
    for (int i = 0; i < 3; i++) {
        s[i] = (struct sender){ .l = &l, .deadline = deadline_in(60000), .e = ERR_INIT };
        ASSERT_EQ(pthread_create(&th[i], NULL, send_much, &s[i]), 0);
    }
    nap(150);
    int64_t before = now_mono_ms();
    agent_close(l.agent);
    for (int i = 0; i < 3; i++) {
        pthread_join(th[i], NULL);
        ASSERT_EQ(s[i].e.code, ERR_SANDBOX_STATE);
    }
    ASSERT_TRUE(now_mono_ms() - before < 5000);
    ASSERT_EQ(get(&l.closed), 0u);
    teardown(&l);
}

TEST(close_from_a_callback)
{
    struct link l;
    setup_ready(&l);
    l.close_in_callback = true;
    uint8_t buf[2 * (FRAME_OVERHEAD + 4)];
    size_t n = frame_encode(buf, l.peer.dec.epoch, FRAME_STARTED, 0, 1, "abcd", 4);
    n += frame_encode(buf + n, l.peer.dec.epoch, FRAME_STARTED, 0, 1, "abcd", 4);
    guestpeer_raw(&l.peer, buf, n);
    ASSERT_TRUE(until(&l.frames, 1, 5000));
    nap(30);
    ASSERT_EQ(get(&l.frames), 1u);
    teardown(&l);
}

TEST(unknown_types_and_stream_zero_are_dropped)
{
    struct link l;
    struct err e = ERR_INIT;
    setup_ready(&l);
    static const uint8_t types[] = { 0, 3, 5, 11, 12, 15, 16, 20, 22, 99, 255 };
    for (size_t i = 0; i < sizeof(types); i++)
        guestpeer_send(&l.peer, (enum frame_type)types[i], 7, 5, "abc", 3);
    guestpeer_started(&l.peer, 0, 1);
    guestpeer_send(&l.peer, FRAME_READY, 0, 0, "x", 1);
    guestpeer_send(&l.peer, FRAME_LOG, 0, 0, NULL, 0);
    /* an unknown type may have cost the thread of the conversation: then it is found again */
    guestpeer_started(&l.peer, 5, 1);
    if (!until(&l.frames, 1, 300)) {
        guestpeer_greet(&l.peer, true, NULL, 0);
        ASSERT_TRUE(until(&l.synced, 2, 5000));
    }
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(5000), &e), 0);
    ASSERT_EQ(get(&l.closed), 0u);
    teardown(&l);
}

TEST(a_lost_thread_is_found_again_with_a_new_epoch)
{
    struct link l;
    struct err e = ERR_INIT;
    setup_ready(&l);
    uint32_t epoch = l.peer.dec.epoch;
    guestpeer_raw(&l.peer, "this is no frame, is it, so what", 32);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_HELLO, 5000));
    ASSERT_TRUE(l.peer.dec.epoch != epoch);
    /* until it is answered nothing may be sent */
    ASSERT_EQ(agent_send(l.agent, FRAME_END, 0, 1, NULL, 0, deadline_in(50), &e), -1);
    ASSERT_EQ(e.code, ERR_TIMEOUT);
    e = ERR_INIT;
    guestpeer_answer(&l.peer, true, NULL, 0);
    ASSERT_EQ(agent_send(l.agent, FRAME_END, 0, 1, NULL, 0, deadline_in(5000), &e), 0);
    ASSERT_EQ(get(&l.synced), 2u);
    teardown(&l);
}

/* Everything a guest can pour in, while a second, honest guest is served on the same loop. */
static void flood(struct link *bad, size_t kind, int ms)
{
    static uint8_t block[262144];
    uint32_t epoch = bad->peer.dec.epoch;
    size_t n = 0;
    unsigned seed = 1;
    while (n + 64 < sizeof(block)) {
        if (kind == 0) {
            seed = seed * 1103515245u + 12345u;
            block[n++] = (uint8_t)(seed >> 16);
        } else if (kind == 1) {
            n += frame_encode(block + n, epoch, FRAME_STARTED, 0, 77, "abcd", 4);
        } else if (kind == 2) {
            n += frame_encode(block + n, epoch, FRAME_LOG, 0, 0, "\6hello", 6);
        } else if (kind == 3) {
            n += frame_encode(block + n, epoch, FRAME_PING, 0, 0, "12345678", 8);
        } else {
            n += frame_encode(block + n, epoch ^ 1, FRAME_DATA, 1, 1, "12345678", 8);
        }
    }
    int64_t deadline = deadline_in(ms);
    while (now_mono_ms() < deadline)
        if (guestpeer_push(&bad->peer, block, n) == 0)
            nap(1);
}

struct flooder {
    struct link *l;
    size_t kind;
};

static void *flood_thread(void *arg)
{
    struct flooder *f = arg;
    flood(f->l, f->kind, 700);
    return NULL;
}

static void flood_beside_honest(size_t kind, bool deny)
{
    struct link bad, good;
    struct err e = ERR_INIT;
    setup_ready(&bad);
    bad.deny = deny;
    good = (struct link){ .loop = bad.loop };
    guestpeer_init(&good.peer);
    ASSERT_EQ(agent_open(bad.loop, "fedcba9876543210", good.peer.path, &config, &ops, &good,
                         &good.agent, &e),
              0);
    guestpeer_greet(&good.peer, true, NULL, 0);
    ASSERT_EQ(agent_wait_ready(good.agent, deadline_in(5000), &e), 0);
    struct flooder f = { &bad, kind };
    pthread_t th;
    ASSERT_EQ(pthread_create(&th, NULL, flood_thread, &f), 0);
    int64_t worst = 0;
    for (unsigned i = 1; i <= 30; i++) {
        int64_t before = now_mono_us();
        guestpeer_started(&good.peer, i, i);
        ASSERT_TRUE(until(&good.frames, i, 5000));
        if (now_mono_us() - before > worst)
            worst = now_mono_us() - before;
        nap(10);
    }
    pthread_join(th, NULL);
    fprintf(stderr, "# flood %zu: worst delay of the other guest %lld us, %u frames taken\n", kind,
            (long long)worst, get(&bad.frames));
    ASSERT_TRUE(worst < 1000000);
    agent_close(good.agent);
    agent_unref(good.agent);
    guestpeer_done(&good.peer);
    teardown(&bad);
}

TEST(flood_of_noise)
{
    flood_beside_honest(0, false);
}

TEST(flood_of_unknown_streams)
{
    flood_beside_honest(1, true);
}

TEST(flood_of_log_lines)
{
    flood_beside_honest(2, false);
}

TEST(short_log_lines_are_bounded_in_number)
{
    struct link l;

    setup_ready(&l);
    flood(&l, 2, 700);
    /* 1000 a second; on a slow machine that is a third second already */
    ASSERT_TRUE(get(&l.logs) > 100);
    ASSERT_TRUE(get(&l.logs) <= 3000);
    teardown(&l);
}

TEST(flood_of_pings)
{
    flood_beside_honest(3, false);
}

TEST(flood_of_foreign_epochs)
{
    flood_beside_honest(4, false);
}

TEST(garbage_is_read_ever_more_rarely)
{
    struct link l;
    setup_ready(&l);
    l.deny = true;
    static uint8_t block[65536];
    size_t n = 0, taken = 0;
    while (n + 64 < sizeof(block))
        n += frame_encode(block + n, l.peer.dec.epoch, FRAME_STARTED, 0, 77, "abcd", 4);
    int64_t deadline = deadline_in(1500);
    while (now_mono_ms() < deadline) {
        size_t got = guestpeer_push(&l.peer, block, n);
        taken += got;
        if (got < n)
            nap(1);
        if (got % 24) /* keep whole frames together */
            while (got % 24) {
                size_t more = guestpeer_push(&l.peer, block + got, 24 - got % 24);
                got += more;
                if (!more)
                    nap(1);
            }
    }
    fprintf(stderr, "# %zu bytes of garbage taken in 1.5 s\n", taken);
    ASSERT_TRUE(taken < 16 * MIB);
    teardown(&l);
}

TEST(half_a_frame_then_silence)
{
    struct link l;
    struct err e = ERR_INIT;
    setup_ready(&l);
    uint8_t buf[FRAME_OVERHEAD + 100] = { 0 };
    size_t n = frame_encode(buf, l.peer.dec.epoch, FRAME_DATA, 1, 3, buf, 50);
    guestpeer_raw(&l.peer, buf, n - 5);
    ASSERT_EQ(agent_send(l.agent, FRAME_END, 0, 1, NULL, 0, deadline_in(1000), &e), 0);
    ASSERT_EQ(get(&l.frames), 0u);
    guestpeer_raw(&l.peer, buf + n - 5, 5);
    ASSERT_TRUE(until(&l.frames, 1, 5000));
    teardown(&l);
}

TEST(sessions_promised_and_not_sent)
{
    struct link l;
    struct err e = ERR_INIT;
    setup(&l);
    guestpeer_accept(&l.peer, 5000);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_HELLO, 5000));
    uint8_t buf[64];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    wire_put_u32(&w, FRAME_VERSION);
    wire_put_str(&w, "v");
    wire_put_str(&w, "b");
    wire_put_u32(&w, 1000000); /* more than anybody can have: no hello at all */
    wire_put_u8(&w, 1);
    guestpeer_send(&l.peer, FRAME_HELLO, 0, 0, buf, w.len);
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(200), &e), -1);
    ASSERT_EQ(get(&l.hellos), 0u);
    e = ERR_INIT;
    guestpeer_answer(&l.peer, true, NULL, 0);
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(5000), &e), 0);
    teardown(&l);
}

TEST(storm_of_connections)
{
    struct link l;
    struct err e = ERR_INIT;
    setup_ready(&l);
    for (int i = 0; i < 40; i++) {
        agent_close(l.agent);
        agent_unref(l.agent);
        guestpeer_hangup(&l.peer);
        ASSERT_EQ(
            agent_open(l.loop, "0123456789abcdef", l.peer.path, &config, &ops, &l, &l.agent, &e),
            0);
        if (i % 3 == 0)
            continue; /* closed before it has connected */
        guestpeer_accept(&l.peer, 5000);
        if (i % 3 == 1)
            guestpeer_hangup(&l.peer);
    }
    agent_close(l.agent);
    agent_unref(l.agent);
    guestpeer_hangup(&l.peer);
    ASSERT_EQ(agent_open(l.loop, "0123456789abcdef", l.peer.path, &config, &ops, &l, &l.agent, &e),
              0);
    l.peer.may_break = true;
    /* the queue of the listener may hold connections that were given up */
    for (int i = 0; i < 60; i++) {
        guestpeer_accept(&l.peer, 5000);
        if (guestpeer_expect(&l.peer, FRAME_HELLO, 1000)) {
            guestpeer_answer(&l.peer, true, NULL, 0);
            if (agent_wait_ready(l.agent, deadline_in(500), &e) == 0)
                break;
            e = ERR_INIT;
        }
        guestpeer_hangup(&l.peer);
    }
    ASSERT_TRUE(agent_is_ready(l.agent));
    teardown(&l);
}

TEST(many_senders_one_guest)
{
    struct link l;
    setup_ready(&l);
    struct sender s[4];
    pthread_t th[4];
    for (int i = 0; i < 4; i++) {
        s[i] = (struct sender){ .l = &l, .deadline = deadline_in(700), .e = ERR_INIT };
        ASSERT_EQ(pthread_create(&th[i], NULL, send_much, &s[i]), 0);
    }
    int64_t deadline = deadline_in(500);
    unsigned got = 0;
    while (now_mono_ms() < deadline && guestpeer_expect(&l.peer, FRAME_DATA, 2000))
        got++;
    unsigned sent = 0;
    for (int i = 0; i < 4; i++) {
        pthread_join(th[i], NULL);
        sent += s[i].sent;
    }
    while (got < sent && guestpeer_expect(&l.peer, FRAME_DATA, 2000))
        got++;
    ASSERT_EQ(got, sent);
    ASSERT_EQ(l.peer.dec.resyncs, 0u);
    teardown(&l);
}

TEST(the_network_goes_ahead_of_the_configuration)
{
    struct link l;
    struct guest_net got = { 0 };
    struct err e = ERR_INIT;
    setup_with(&l, &net);
    l.peer.abilities = GUEST_CAN_NET;
    guestpeer_greet(&l.peer, false, NULL, 0);
    ASSERT_TRUE(guestpeer_read(&l.peer, 5000));
    while (l.peer.frame.type == FRAME_HELLO)
        ASSERT_TRUE(guestpeer_read(&l.peer, 5000));
    ASSERT_EQ(l.peer.frame.type, FRAME_NET);
    ASSERT_EQ(l.peer.frame.stream, 0);
    ASSERT_OK(guest_net_decode(l.peer.frame.payload, l.peer.frame.len, &got, &e), e);
    ASSERT_EQ(got.address, net.address);
    ASSERT_EQ(got.mtu, 1450);
    ASSERT_TRUE(guestpeer_read(&l.peer, 5000));
    ASSERT_EQ(l.peer.frame.type, FRAME_CONFIG);
    ASSERT_FALSE(agent_is_ready(l.agent));
    guestpeer_ready(&l.peer);
    ASSERT_EQ(agent_wait_ready(l.agent, deadline_in(5000), &e), 0);
    teardown(&l);
}

TEST(a_configured_guest_is_told_its_network_again)
{
    struct link l;
    setup_with(&l, &net);
    l.peer.abilities = GUEST_CAN_NET | 0x80;    /* and something of later */
    guestpeer_greet(&l.peer, true, NULL, 0);
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_NET, 5000));
    ASSERT_TRUE(guestpeer_expect(&l.peer, FRAME_TIME, 5000));
    teardown(&l);
}

TEST(an_agent_too_old_for_networks_is_told_of_none)
{
    struct link l;
    setup_with(&l, &net);
    guestpeer_greet(&l.peer, false, NULL, 0);
    ASSERT_TRUE(guestpeer_read(&l.peer, 5000));
    while (l.peer.frame.type == FRAME_HELLO)
        ASSERT_TRUE(guestpeer_read(&l.peer, 5000));
    ASSERT_EQ(l.peer.frame.type, FRAME_CONFIG);
    ASSERT_TRUE(until(&l.logs, 1, 5000));
    teardown(&l);
}
