/* SPDX-License-Identifier: MIT
 *
 * The channel of the real agent: daemons that come and go, and bytes that make no sense.
 */
#include "tests/fakes/agentpeer.h"
#include "common/auto.h"
#include "common/io.h"
#include "tests/harness/test.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void works(struct agentpeer *p)
{
    struct peer_exec *x = peer_script(p, "echo works");

    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "works\n");
    peer_forget(p, x);
}

/* All that was sent has been answered: a pong may overtake other answers once. */
static void settled(struct agentpeer *p)
{
    peer_ping(p);
    peer_ping(p);
}

TEST(greeting_and_configuration)
{
    struct agentpeer *p = peer_start();

    peer_hello(p);
    ASSERT_FALSE(p->configured);
    ASSERT_EQ(p->sessions, 0);
    ASSERT_NE(p->version[0], '\0');
    ASSERT_EQ(strlen(p->boot_id), 36);
    peer_settle(p, 50);
    ASSERT_EQ(p->readies, 0);
    peer_send(p, FRAME_CONFIG, 0, 0, "nonsense", 8);
    settled(p);
    ASSERT_EQ(p->readies, 0);
    ASSERT_GE(p->logs, 1);
    peer_config(p, NULL);
    ASSERT_EQ(p->readies, 1);
    peer_hello(p);
    ASSERT_TRUE(p->configured);
    peer_ping(p);
    ASSERT_EQ(p->readies, 2);       /* for a daemon that missed it */
    works(p);
    peer_free(p);
}

TEST(before_a_hello_nothing_is_done)
{
    struct agentpeer *p = peer_start();
    uint8_t cookie[8] = { 1 };

    peer_send(p, FRAME_PING, 0, 0, cookie, 8);
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){ .script = "exit 0" });
    frame_decoder_init(&p->dec, p->epoch);
    peer_settle(p, 100);
    ASSERT_EQ(p->pongs, 0);
    ASSERT_FALSE(x->started || x->failed);
    peer_hello(p);
    peer_config(p, NULL);
    ASSERT_EQ(p->sessions, 0);
    ASSERT_EQ(p->pongs, 0);
    works(p);
    peer_free(p);
}

TEST(a_daemon_of_another_version_is_answered_and_not_obeyed)
{
    struct agentpeer *p = peer_new();
    unsigned pongs;

    p->epoch++;
    frame_decoder_init(&p->dec, p->epoch);
    p->frame.type = 0;
    peer_number(p, FRAME_HELLO, 0, 0, FRAME_VERSION + 1, 4);
    while (p->frame.type != FRAME_HELLO)
        ASSERT_TRUE(peer_read(p, PEER_MS));
    pongs = p->pongs;
    peer_number(p, FRAME_PING, 0, 0, 5, 8);
    struct peer_exec *x = peer_script(p, "exit 0");
    peer_settle(p, 100);
    ASSERT_EQ(p->pongs, pongs);
    ASSERT_FALSE(x->started || x->failed);
    peer_hello(p);
    works(p);
    peer_free(p);
}

TEST(what_it_does_not_know_is_ignored)
{
    static const uint8_t zeros[64];
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){ .script = "sleep 60", .stdin = true });

    peer_await_start(p, x);
    for (int type = 0; type < 256; type++) {
        if (type == FRAME_HELLO || type == FRAME_EXEC)
            continue;
        peer_send(p, (enum frame_type)type, 0, 4711, zeros, sizeof(zeros)); /* no such stream */
        peer_send(p, (enum frame_type)type, 0, 4711, NULL, 0);
        if (type != FRAME_PING && type != FRAME_SHUTDOWN && type != FRAME_TIME)
            peer_send(p, (enum frame_type)type, 0, 0, zeros, sizeof(zeros));
        peer_send(p, (enum frame_type)type, 9, 0, NULL, 0);
        if (type != FRAME_END && type != FRAME_FORGET)          /* too short */
            peer_send(p, (enum frame_type)type, 0, x->stream, zeros, 1);
    }
    peer_number(p, FRAME_SHUTDOWN, 0, 0, 2, 1);
    peer_send(p, FRAME_EXEC, 0, 0, "\1abc", 4);
    peer_send(p, FRAME_EXEC, 0, x->stream, "\1abc", 4);         /* there is one already */
    peer_send(p, FRAME_EXEC, 0, 4712, "\2abc", 4);
    peer_send(p, FRAME_EXEC, 0, 4712, NULL, 0);
    settled(p);
    ASSERT_EQ(p->strays, 0);
    ASSERT_FALSE(x->ended || x->failed);
    peer_send(p, FRAME_EXEC, 0, 4712, "\1abc", 4);              /* a command without sense */
    settled(p);
    ASSERT_EQ(p->strays, 1);
    peer_hello(p);
    ASSERT_EQ(p->sessions, 1);
    works(p);
    peer_free(p);
}

TEST(commands_that_never_end_are_cut)
{
    static uint8_t part[LIMIT_FRAME];
    struct agentpeer *p = peer_new();

    for (size_t sent = 0; sent <= LIMIT_EXEC_BYTES; sent += sizeof(part) - 1)
        peer_send(p, FRAME_EXEC, 0, 900, part, sizeof(part));
    settled(p);
    ASSERT_EQ(p->strays, 1);            /* FAILED */
    for (uint32_t i = 0; i < 64; i++)   /* as many as it keeps at once, and one more */
        peer_send(p, FRAME_EXEC, 0, 1000 + i, "\0abc", 4);
    settled(p);
    ASSERT_EQ(p->strays, 1);
    peer_send(p, FRAME_EXEC, 0, 2000, "\0abc", 4);
    settled(p);
    ASSERT_EQ(p->strays, 2);
    peer_hello(p);                      /* a new daemon has all the room */
    works(p);
    peer_free(p);
}

static void garble(struct agentpeer *p, int how)
{
    static uint8_t junk[100000];
    uint8_t frame[FRAME_OVERHEAD + 64] = { 0 };
    size_t n = frame_encode(frame, p->epoch, FRAME_PING, 0, 0, "12345678", 8);
    uint32_t state = 12345;

    switch (how) {
    case 0:             /* noise, with magics in it */
        for (size_t i = 0; i < sizeof(junk); i++) {
            state = state * 1664525 + 1013904223;
            junk[i] = state >> 24 < 40 ? (uint8_t)"SBX1"[i % 4] : (uint8_t)(state >> 16);
        }
        peer_raw(p, junk, sizeof(junk));
        break;
    case 1:             /* a length that no frame has */
        frame[12] = frame[13] = 0xff;
        peer_raw(p, frame, n);
        break;
    case 2:             /* LIMIT_FRAME + 1 */
        frame[12] = (LIMIT_FRAME + 1) & 0xff;
        frame[13] = (LIMIT_FRAME + 1) >> 8;
        peer_raw(p, frame, n);
        break;
    case 3:             /* a wrong trailer */
        frame[n - 1] ^= 1;
        peer_raw(p, frame, n);
        break;
    case 4:             /* half a header */
        peer_raw(p, frame, 9);
        break;
    case 5:             /* half a large frame, which the next HELLOs seem to belong to */
        frame[13] = 0x70;
        peer_raw(p, frame, n);
        break;
    default:            /* of another epoch */
        p->epoch += 1000;
        peer_number(p, FRAME_PING, 0, 0, 1, 8);
    }
}

TEST(bytes_without_sense_are_survived)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){ .script = "exec cat", .stdin = true });

    peer_await_start(p, x);
    for (int how = 0; how < 7; how++) {
        unsigned pongs = p->pongs;

        garble(p, how);
        ASSERT_LT(peer_hello(p), 5000);
        ASSERT_EQ(p->sessions, 1);
        ASSERT_EQ(x->state, 0);
        peer_resume(p, x, x->at[0], x->at[1]);
        peer_stdin(p, x, "x", 1);
        peer_await_output(p, x, (size_t)how + 1);
        ASSERT_EQ(p->pongs, pongs);
        works(p);
    }
    peer_stdin_eof(p, x);
    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "xxxxxxx");
    peer_free(p);
}

TEST(a_new_daemon_gets_the_output_again)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){
        .script = "seq 1 5000; echo e >&2; read a; echo $a; exit 9", .stdin = true });
    size_t len = 23893;
    char *first;

    peer_await_output(p, x, len);
    ASSERT_EQ(x->len[0], len);
    first = strdup(peer_out(x));
    static const uint64_t from[] = { 0, 1, 10000, 23892, 23893 };
    for (size_t i = 0; i < ARRAY_SIZE(from); i++) {
        peer_hello(p);
        ASSERT_EQ(p->sessions, 1);
        ASSERT_TRUE(x->named);
        ASSERT_EQ(x->state, 0);
        ASSERT_EQ(x->produced[0], len);
        ASSERT_EQ(x->received, 0);
        x->len[0] = x->len[1] = 0;
        peer_ping(p);
        peer_settle(p, 30);
        ASSERT_EQ(x->len[0], 0);            /* nothing before it is asked for */
        peer_resume(p, x, from[i], 0);
        peer_await_output(p, x, len - from[i]);
        ASSERT_MEMEQ(x->data[0], x->len[0], first + from[i], len - from[i]);
    }
    peer_hello(p);
    peer_resume(p, x, UINT64_MAX, UINT64_MAX);      /* more than there is: from the end on */
    x->at[0] = len;
    x->at[1] = 2;
    peer_stdin(p, x, "line\n", 5);
    peer_await_end(p, x);
    ASSERT_EQ(x->end[0], len + 5);
    ASSERT_EQ(x->value, 9);
    free(first);
    peer_free(p);
}

TEST(what_is_older_than_the_window_is_gone)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){
        .script = "seq 1 60000; exec sleep 60", .blind = true });
    size_t len = 348894;

    peer_await_output(p, x, len);
    peer_hello(p);
    ASSERT_EQ(x->produced[0], len);
    peer_resume(p, x, 0, 0);
    x->at[0] = len - LIMIT_WINDOW;
    x->len[0] = 0;
    x->blind = false;
    peer_await_output(p, x, LIMIT_WINDOW);
    ASSERT_EQ(x->len[0], LIMIT_WINDOW);
    ASSERT_STREQ(peer_out(x) + LIMIT_WINDOW - 12, "59999\n60000\n");
    peer_free(p);
}

TEST(an_end_waits_until_it_is_stored)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){
        .script = "read a; echo late; echo err >&2; exit 7", .stdin = true });

    peer_await_start(p, x);
    peer_forget(p, x);                      /* not while it runs */
    peer_stdin(p, x, "\n", 1);
    peer_hello(p);                          /* parked: says nothing */
    peer_settle(p, 300);
    for (int i = 0; i < 3; i++) {
        x->ended = false;
        peer_hello(p);
        ASSERT_EQ(p->sessions, 1);
        ASSERT_EQ(x->state, 1);
        ASSERT_TRUE(x->ended);
        ASSERT_EQ(x->how, EXIT_CODE);
        ASSERT_EQ(x->value, 7);
        ASSERT_EQ(x->end[0], 5);
        ASSERT_EQ(x->end[1], 4);
        x->len[0] = x->len[1] = 0;
        peer_resume(p, x, 0, 0);
        peer_await_end(p, x);
        ASSERT_STREQ(peer_out(x), "late\n");
        ASSERT_STREQ(peer_err(x), "err\n");
    }
    peer_forget(p, x);
    peer_forget(p, x);
    peer_hello(p);
    ASSERT_EQ(p->sessions, 0);
    works(p);
    peer_free(p);
}

TEST(a_daemon_that_does_not_read_stops_nothing)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x[20];
    uint8_t cookie[8] = { 9 };

    for (int i = 0; i < 20; i++)
        x[i] = peer_exec(p, &(struct peer_spec){ .script = "head -c 200000 /dev/zero",
                                                 .blind = true });
    usleep(200000);
    for (int i = 0; i < 2000; i++)          /* it goes on reading what we say */
        peer_send(p, FRAME_PING, 0, 0, cookie, 8);
    for (int i = 0; i < 20; i++) {
        peer_await_end(p, x[i]);
        ASSERT_EQ(x[i]->len[0], 200000);
    }
    peer_ping(p);
    peer_free(p);
}

TEST(shutdown_ends_it)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_script(p, "sleep 60");

    peer_await_start(p, x);
    peer_number(p, FRAME_SHUTDOWN, 0, 0, 0, 1);
    pid_t child = (pid_t)x->pid;
    peer_free(p);
    for (int i = 0; i < 200 && kill(child, 0) == 0; i++)
        usleep(10000);
    ASSERT_EQ(kill(child, 0), -1);
}
