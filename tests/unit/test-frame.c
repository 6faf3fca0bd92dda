/* SPDX-License-Identifier: MIT */
#include "common/frame.h"
#include "tests/harness/test.h"

#include <stdlib.h>
#include <string.h>

#define EPOCH 0x11223344u

static struct frame_decoder dec;
static uint8_t wire[8 * (FRAME_OVERHEAD + LIMIT_FRAME)];
static size_t wire_len;

static void add(uint32_t epoch, enum frame_type type, uint8_t fd, uint32_t stream,
                const void *payload, uint32_t len)
{
    wire_len += frame_encode(wire + wire_len, epoch, type, fd, stream, payload, len);
}

static void add_hello(uint32_t epoch)
{
    static const uint8_t version[4] = { FRAME_VERSION };

    add(epoch, FRAME_HELLO, 0, 0, version, sizeof(version));
}

static void add_bytes(const void *data, size_t len)
{
    memcpy(wire + wire_len, data, len);
    wire_len += len;
}

/* Decodes wire[from..to) in pieces of `step`; the number of frames, the last one in *f. */
static unsigned decode(size_t from, size_t to, size_t step, struct frame *f)
{
    unsigned frames = 0;

    while (from < to) {
        size_t n = to - from < step ? to - from : step, used = 0;

        frames += (unsigned)frame_decode(&dec, wire + from, n, &used, f);
        ASSERT_LE(used, n);
        ASSERT_GT(used, 0);
        from += used;
    }
    return frames;
}

TEST(layout_is_as_documented)
{
    uint8_t out[FRAME_OVERHEAD + 3];
    static const uint8_t want[] = {
        'S', 'B', 'X', '1', 0x44, 0x33, 0x22, 0x11, 7, 0, 0, 0, 3, 0, FRAME_DATA, 2, 'a', 'b', 'c',
        0x44 ^ 0x7e, 0x33 ^ 0xe7, 0x22 ^ 0x17, 0x11 ^ 0x5a,
    };

    ASSERT_EQ(frame_encode(out, EPOCH, FRAME_DATA, 2, 7, "abc", 3), sizeof(out));
    ASSERT_MEMEQ(out, sizeof(out), want, sizeof(want));
    ASSERT_STREQ(frame_type_name(FRAME_RESUME), "resume");
    ASSERT_STREQ(frame_type_name(0), "unknown");
    ASSERT_STREQ(frame_type_name((enum frame_type)200), "unknown");
}

TEST(frames_come_through_in_pieces_of_any_size)
{
    static const size_t steps[] = { 1, 2, 3, 15, 16, 17, 19, 20, 21, 1000, 1000000 };
    static uint8_t big[LIMIT_FRAME];
    struct frame f;

    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (uint8_t)(i * 7);
    add_hello(EPOCH);
    add(EPOCH, FRAME_DATA, 1, 9, big, sizeof(big));
    add(EPOCH, FRAME_FORGET, 0, 9, NULL, 0);
    add(EPOCH, FRAME_DATA, 2, UINT32_MAX, "xyz", 3);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        frame_decoder_init(&dec, i % 2 ? EPOCH : 0);
        ASSERT_EQ(decode(0, 24 + FRAME_OVERHEAD + LIMIT_FRAME, steps[i], &f), 2);
        ASSERT_EQ(f.type, FRAME_DATA);
        ASSERT_EQ(f.stream, 9);
        ASSERT_EQ(f.fd, 1);
        ASSERT_MEMEQ(f.payload, f.len, big, sizeof(big));
        ASSERT_EQ(decode(24 + FRAME_OVERHEAD + LIMIT_FRAME, wire_len, steps[i], &f), 2);
        ASSERT_EQ(f.stream, UINT32_MAX);
        ASSERT_MEMEQ(f.payload, f.len, "xyz", 3);
        ASSERT_EQ(dec.skipped, 0);
        ASSERT_EQ(dec.resyncs, 0);
        ASSERT_EQ(dec.epoch, EPOCH);
    }
}

TEST(what_comes_before_a_hello_is_skipped)
{
    struct frame f;

    add_bytes("SBX1SBX1 garbage SBX", 20);
    add(EPOCH, FRAME_DATA, 1, 3, "before", 6);
    add_bytes("S", 1);
    add_hello(EPOCH);
    size_t before = wire_len - FRAME_OVERHEAD - 4;
    add(EPOCH, FRAME_PING, 0, 0, "12345678", 8);
    for (size_t step = 1; step < 60; step++) {
        frame_decoder_init(&dec, EPOCH);
        ASSERT_EQ(decode(0, wire_len, step, &f), 2);
        ASSERT_EQ(f.type, FRAME_PING);
        ASSERT_EQ(dec.skipped, before);
    }
}

TEST(a_hello_for_another_is_not_taken_by_the_daemon)
{
    struct frame f;

    add_hello(EPOCH + 1);
    add_hello(EPOCH);
    frame_decoder_init(&dec, EPOCH);
    ASSERT_EQ(decode(0, wire_len, 1000, &f), 1);
    ASSERT_FALSE(dec.hunting);
    wire_len = 0;
    add_hello(EPOCH + 1);       /* nor later */
    ASSERT_EQ(decode(0, wire_len, 1000, &f), 0);
    ASSERT_TRUE(dec.hunting);
    ASSERT_EQ(dec.resyncs, 1);
    ASSERT_EQ(dec.epoch, EPOCH);
}

TEST(a_new_epoch_is_taken_where_a_frame_may_begin)
{
    struct frame f;

    add_hello(EPOCH);
    add(EPOCH, FRAME_PING, 0, 0, "12345678", 8);
    add_hello(EPOCH + 1);
    add(EPOCH, FRAME_PING, 0, 0, "12345678", 8);    /* of the old one: lost */
    add_hello(EPOCH + 2);
    frame_decoder_init(&dec, 0);
    ASSERT_EQ(decode(0, wire_len, 7, &f), 4);
    ASSERT_EQ(f.type, FRAME_HELLO);
    ASSERT_EQ(dec.epoch, EPOCH + 2);
    ASSERT_EQ(dec.resyncs, 1);
}

TEST(epoch_zero_is_nobodys)
{
    struct frame f;

    add_hello(0);
    frame_decoder_init(&dec, 0);
    ASSERT_EQ(decode(0, wire_len, 100, &f), 0);
    ASSERT_TRUE(dec.hunting);
}

/* What somebody pipes into a command may look like anything, also like frames of a daemon. */
TEST(frames_inside_of_a_payload_are_payload)
{
    static uint8_t inner[LIMIT_FRAME];
    struct frame f;
    size_t n = 0;

    while (n + 200 < sizeof(inner)) {
        static const uint8_t version[4] = { FRAME_VERSION };

        n += frame_encode(inner + n, EPOCH + 9, FRAME_HELLO, 0, 0, version, 4);
        n += frame_encode(inner + n, EPOCH + 9, FRAME_EXEC, 0, 5, "evil", 4);
        n += frame_encode(inner + n, EPOCH, FRAME_EXEC, 0, 5, "evil", 4);
    }
    add_hello(EPOCH);
    add(EPOCH, FRAME_DATA, 0, 5, inner, (uint32_t)n);
    for (size_t step = 1; step < 100; step += 6) {
        frame_decoder_init(&dec, 0);
        ASSERT_EQ(decode(0, wire_len, step, &f), 2);
        ASSERT_EQ(f.type, FRAME_DATA);
        ASSERT_MEMEQ(f.payload, f.len, inner, n);
        ASSERT_EQ(dec.epoch, EPOCH);
    }
    /* one moment of silence in the middle, at any place, changes nothing */
    for (size_t at = 1; at + 1 < wire_len; at++) {
        frame_decoder_init(&dec, 0);
        unsigned frames = decode(0, at, 100000, &f);
        ASSERT_EQ(frame_decoder_quiet(&dec, &f), 0);
        ASSERT_EQ(frames + decode(at, wire_len, 100000, &f), 2);
        ASSERT_EQ(dec.epoch, EPOCH);
    }
}

static void torn(size_t payload_seen)
{
    static uint8_t nothing[LIMIT_FRAME];
    struct frame f;

    wire_len = 0;
    add_hello(EPOCH);
    add(EPOCH, FRAME_DATA, 0, 5, nothing, 20000);
    frame_decoder_init(&dec, 0);
    ASSERT_EQ(decode(0, 24 + FRAME_HEADER + payload_seen, 100000, &f), 1);
    wire_len = 0;
    add_hello(EPOCH + 1);
}

TEST(a_torn_frame_is_given_up_for_a_hello_that_stands_alone_twice)
{
    struct frame f;

    torn(100);
    ASSERT_TRUE(frame_decoder_partial(&dec));
    ASSERT_EQ(frame_decoder_quiet(&dec, &f), 0);
    ASSERT_EQ(decode(0, wire_len, 5, &f), 0);
    ASSERT_EQ(frame_decoder_quiet(&dec, &f), 0);    /* once is not enough */
    ASSERT_EQ(frame_decoder_quiet(&dec, &f), 0);
    ASSERT_EQ(decode(0, wire_len, 5, &f), 0);
    ASSERT_EQ(frame_decoder_quiet(&dec, &f), 1);
    ASSERT_EQ(f.type, FRAME_HELLO);
    ASSERT_EQ(dec.epoch, EPOCH + 1);
    ASSERT_FALSE(frame_decoder_partial(&dec));
    wire_len = 0;
    add(EPOCH + 1, FRAME_PING, 0, 0, "12345678", 8);
    ASSERT_EQ(decode(0, wire_len, 100, &f), 1);
    ASSERT_EQ(f.type, FRAME_PING);
}

TEST(two_hellos_do_not_end_a_frame_without_silence_between)
{
    struct frame f;

    torn(100);
    add_hello(EPOCH + 1);
    ASSERT_EQ(decode(0, wire_len, 1000, &f), 0);
    ASSERT_EQ(frame_decoder_quiet(&dec, &f), 0);
    wire_len = 0;
    add_bytes("x", 1);
    add_hello(EPOCH + 1);       /* alone, but not next to the other */
    ASSERT_EQ(decode(0, wire_len, 1000, &f), 0);
    ASSERT_EQ(frame_decoder_quiet(&dec, &f), 0);
    wire_len = 0;
    add_hello(EPOCH + 2);       /* next to it, but another */
    ASSERT_EQ(decode(0, wire_len, 1000, &f), 0);
    ASSERT_EQ(frame_decoder_quiet(&dec, &f), 0);
}

TEST(a_torn_frame_completed_by_foreign_bytes_is_seen)
{
    struct frame f;
    unsigned n;

    torn(19990);
    add_hello(EPOCH + 1);       /* the first of them is swallowed, its end found wrong */
    add_hello(EPOCH + 1);
    ASSERT_EQ(decode(0, wire_len, 1, &f), 2);
    ASSERT_EQ(f.type, FRAME_HELLO);
    ASSERT_EQ(dec.epoch, EPOCH + 1);
    ASSERT_EQ(dec.resyncs, 1);
    /* Torn in its header: where the length is what was torn, the HELLO's bytes may make it a long
     * one, and only silence tells. */
    for (size_t cut = 1; cut < FRAME_HEADER; cut++) {
        wire_len = 0;
        add_hello(EPOCH);
        add(EPOCH, FRAME_DATA, 0, 5, "abc", 3);
        wire_len = 24 + cut;
        frame_decoder_init(&dec, 0);
        n = decode(0, wire_len, 1000, &f);
        ASSERT_EQ(n, 1);
        for (int hellos = 0; n < 2; hellos++) {
            ASSERT_LT(hellos, 3);
            wire_len = 0;
            add_hello(EPOCH + 1);
            n += decode(0, wire_len, 1000, &f);
            if (frame_decoder_partial(&dec))
                n += (unsigned)frame_decoder_quiet(&dec, &f);
        }
        ASSERT_EQ(f.type, FRAME_HELLO);
        ASSERT_EQ(dec.epoch, EPOCH + 1);
        ASSERT_EQ(dec.resyncs, 1);
    }
}

TEST(each_broken_field_sends_it_hunting)
{
    static const size_t broken[] = { 0, 3, 4, 7, 13, FRAME_HEADER + 8, FRAME_HEADER + 11 };
    struct frame f;

    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        wire_len = 0;
        add_hello(EPOCH);
        add(EPOCH, FRAME_PING, 0, 0, "12345678", 8);
        wire[24 + broken[i]] ^= 0x80;
        add_hello(EPOCH);
        add(EPOCH, FRAME_PONG, 0, 0, "12345678", 8);
        frame_decoder_init(&dec, EPOCH);
        ASSERT_EQ(decode(0, wire_len, 9, &f), 3);
        ASSERT_EQ(f.type, FRAME_PONG);
        ASSERT_EQ(dec.resyncs, 1);
    }
}

TEST(a_long_hello_is_none)
{
    static uint8_t long_one[FRAME_HELLO_MAX + 1];
    struct frame f;

    add(EPOCH, FRAME_HELLO, 0, 0, long_one, sizeof(long_one));
    frame_decoder_init(&dec, EPOCH);
    ASSERT_EQ(decode(0, wire_len, 1000, &f), 0);
    wire_len = 0;
    add(EPOCH, FRAME_HELLO, 0, 0, long_one, FRAME_HELLO_MAX);
    ASSERT_EQ(decode(0, wire_len, 1000, &f), 1);
}

TEST(numbers_and_strings)
{
    uint8_t buf[64];
    struct wire_out out = { .p = buf, .cap = sizeof(buf) };
    uint32_t len;

    wire_put_u8(&out, 0xfe);
    wire_put_u16(&out, 0xfedc);
    wire_put_u32(&out, 0xfedcba98u);
    wire_put_u64(&out, 0xfedcba9876543210u);
    wire_put_str(&out, "word");
    wire_put_str(&out, "");
    ASSERT_FALSE(out.bad);
    struct wire_in in = { .p = buf, .left = out.len };
    ASSERT_EQ(wire_get_u8(&in), 0xfe);
    ASSERT_EQ(wire_get_u16(&in), 0xfedc);
    ASSERT_EQ(wire_get_u32(&in), 0xfedcba98u);
    ASSERT_EQ(wire_get_u64(&in), 0xfedcba9876543210u);
    const char *s = wire_get_str(&in, 4, &len);
    ASSERT_MEMEQ(s, len, "word", 4);
    ASSERT_NOT_NULL(wire_get_str(&in, 0, &len));
    ASSERT_EQ(len, 0);
    ASSERT_FALSE(in.bad);
    ASSERT_EQ(in.left, 0);
    ASSERT_EQ(wire_get_u8(&in), 0);
    ASSERT_TRUE(in.bad);
}

TEST(bad_once_is_bad_for_good)
{
    static const uint8_t bytes[] = { 1, 2, 3, 4, 5 };
    uint8_t buf[3];
    struct wire_in in = { .p = bytes, .left = sizeof(bytes) };
    struct wire_out out = { .p = buf, .cap = sizeof(buf) };

    ASSERT_EQ(wire_get_u64(&in), 0);
    ASSERT_EQ(wire_get_u8(&in), 0);
    ASSERT_TRUE(in.bad);
    wire_put_u32(&out, 1);
    wire_put_u8(&out, 1);
    ASSERT_TRUE(out.bad);
    ASSERT_EQ(out.len, 0);
}

static bool string_is_bad(const char *bytes, size_t n, uint32_t max)
{
    struct wire_in in = { .p = (const uint8_t *)bytes, .left = n };
    uint32_t len = 99;
    bool none = wire_get_str(&in, max, &len) == NULL;

    ASSERT_EQ(none, in.bad);
    if (none)
        ASSERT_EQ(len, 0);
    return in.bad;
}

TEST(strings_are_held_to_their_limits)
{
    ASSERT_FALSE(string_is_bad("\3\0\0\0abc", 7, 3));
    ASSERT_TRUE(string_is_bad("\3\0\0\0abc", 7, 2));
    ASSERT_TRUE(string_is_bad("\4\0\0\0abc", 7, 10));
    ASSERT_TRUE(string_is_bad("\3\0\0\0a\0c", 7, 10));
    ASSERT_TRUE(string_is_bad("\xff\xff\xff\xff""abc", 7, UINT32_MAX));
    ASSERT_TRUE(string_is_bad("\3\0\0", 3, 10));
}

static const char *const args[] = { "sh", "-c", "echo \xc3\xa4", "", NULL };
static const char *const env[] = { "A=1", "B=", NULL };

static struct exec_wire an_exec(void)
{
    return (struct exec_wire){ .argv = args, .env = env, .workdir = "/w", .user = "u", .tty = 1,
                               .stdin_open = 1, .rows = 24, .cols = 80, .timeout_ms = 5,
                               .credit = 1ULL << 40 };
}

TEST(an_exec_comes_through)
{
    uint8_t buf[512];
    struct exec_wire x = an_exec();
    struct exec_wire_in in;
    struct err e = ERR_INIT;
    size_t len;

    ASSERT_OK(exec_wire_encode(&x, buf, sizeof(buf), &len, &e), e);
    ASSERT_OK(exec_wire_decode(buf, len, &in, &e), e);
    for (size_t i = 0; i < 5; i++)
        ASSERT_STREQ(in.argv[i], args[i]);
    for (size_t i = 0; i < 3; i++)
        ASSERT_STREQ(in.env[i], env[i]);
    ASSERT_STREQ(in.workdir, "/w");
    ASSERT_STREQ(in.user, "u");
    ASSERT_TRUE(in.tty && in.stdin_open);
    ASSERT_EQ(in.rows, 24);
    ASSERT_EQ(in.cols, 80);
    ASSERT_EQ(in.timeout_ms, 5);
    ASSERT_EQ(in.credit, 1ULL << 40);
    exec_wire_in_done(&in);
    /* cut anywhere, or with something behind it, it is none */
    for (size_t n = 0; n < len; n++)
        ASSERT_ERR(exec_wire_decode(buf, n, &in, &e), e, ERR_INVALID);
    ASSERT_ERR(exec_wire_decode(buf, len + 1, &in, &e), e, ERR_INVALID);
    for (size_t n = 0; n < len; n++)
        ASSERT_ERR(exec_wire_encode(&x, buf, n, &len, &e), e, ERR_TOO_LARGE);
}

static void refused(const struct exec_wire *x)
{
    static uint8_t buf[LIMIT_EXEC_BYTES];
    struct exec_wire_in in;
    struct err e = ERR_INIT;
    size_t len = 0;

    ASSERT_OK(exec_wire_encode(x, buf, sizeof(buf), &len, &e), e);
    ASSERT_ERR(exec_wire_decode(buf, len, &in, &e), e, ERR_INVALID);
}

TEST(execs_without_sense_are_refused)
{
    static const char *many[LIMIT_ARGV + 2];
    static const char *const none[] = { NULL }, *const nameless[] = { "", NULL };
    static const char *const no_equals[] = { "A", NULL }, *const no_name[] = { "=1", NULL };
    static char long_text[LIMIT_ARG_BYTES + 2];
    const char *const long_arg[] = { long_text, NULL };
    char long_user[LIMIT_USER + 2];
    struct exec_wire x;

    memset(long_text, 'x', sizeof(long_text) - 1);
    memset(long_user, 'x', sizeof(long_user) - 1);
    long_user[sizeof(long_user) - 1] = '\0';
    for (size_t i = 0; i <= LIMIT_ARGV; i++)
        many[i] = "a";
#define REFUSED(member, value)  \
    do {                        \
        x = an_exec();          \
        x.member = value;       \
        refused(&x);            \
    } while (0)
    REFUSED(argv, none);
    REFUSED(argv, nameless);
    REFUSED(argv, many);
    REFUSED(argv, long_arg);
    REFUSED(env, no_equals);
    REFUSED(env, no_name);
    REFUSED(user, long_user);
    REFUSED(workdir, long_text);
    REFUSED(tty, 2);
    REFUSED(stdin_open, 2);
    REFUSED(timeout_ms, LIMIT_EXEC_TIMEOUT + 1);
#undef REFUSED
}

TEST(a_count_alone_allocates_nothing)
{
    static const uint8_t huge[] = { 0xff, 3, 0, 0, 1, 0, 0, 0, 'a' };
    struct exec_wire_in in;
    struct err e = ERR_INIT;

    ASSERT_ERR(exec_wire_decode(huge, sizeof(huge), &in, &e), e, ERR_INVALID);
}

TEST(a_configuration_comes_through)
{
    uint8_t buf[256];
    struct guest_config c = { .hostname = "box", .workspace = 2, .realtime_ns = 1ULL << 60,
                              .env = env };
    struct guest_config_in in;
    struct err e = ERR_INIT;
    size_t len;

    ASSERT_OK(guest_config_encode(&c, buf, sizeof(buf), &len, &e), e);
    ASSERT_OK(guest_config_decode(buf, len, &in, &e), e);
    ASSERT_STREQ(in.hostname, "box");
    ASSERT_EQ(in.workspace, 2);
    ASSERT_EQ(in.realtime_ns, 1ULL << 60);
    ASSERT_STREQ(in.env[1], "B=");
    guest_config_in_done(&in);
    for (size_t n = 0; n < len; n++)
        ASSERT_ERR(guest_config_decode(buf, n, &in, &e), e, ERR_INVALID);
    ASSERT_ERR(guest_config_decode(buf, len + 1, &in, &e), e, ERR_INVALID);
    c.workspace = 3;
    ASSERT_OK(guest_config_encode(&c, buf, sizeof(buf), &len, &e), e);
    ASSERT_ERR(guest_config_decode(buf, len, &in, &e), e, ERR_INVALID);
}
