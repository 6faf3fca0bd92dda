/* SPDX-License-Identifier: MIT */
#include "common/stream.h"
#include "tests/harness/test.h"

TEST(layout_is_as_documented)
{
    uint8_t h[STREAM_HEADER];
    static const uint8_t want[] = { 8, 0, 0, 0, 0x00, 0x01, 0x00, 0x00 };

    stream_header(h, STREAM_GAP, 65536);
    ASSERT_MEMEQ(h, sizeof(h), want, sizeof(want));
    ASSERT_STREQ(stream_type_name(STREAM_GAP), "gap");
    ASSERT_STREQ(stream_type_name(STREAM_TYPE_MAX), "unknown");
    ASSERT_STREQ(stream_type_name((enum stream_type)-1), "unknown");
}

TEST(headers_come_back)
{
    static const uint32_t lengths[] = { 0, 1, 255, 256, 65535, LIMIT_STREAM_FRAME };

    for (int t = 0; t < STREAM_TYPE_MAX; t++)
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            uint8_t h[STREAM_HEADER];
            enum stream_type type = STREAM_TYPE_MAX;
            struct err e = ERR_INIT;
            uint32_t len = 99;

            stream_header(h, (enum stream_type)t, lengths[i]);
            ASSERT_OK(stream_parse(h, &type, &len, &e), e);
            ASSERT_EQ(type, t);
            ASSERT_EQ(len, lengths[i]);
        }
}

TEST(hostile_headers_are_refused)
{
    static const uint8_t bad[][STREAM_HEADER] = {
        { STREAM_TYPE_MAX }, { 255 }, { 0, 1 }, { 0, 0, 1 }, { 0, 0, 0, 1 },
        { 0, 0, 0, 0, 0, 1, 0, 1 }, { 0, 0, 0, 0, 255, 255, 255, 255 }, { 0, 0, 0, 0, 0x80 },
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        enum stream_type type = STREAM_SIGNAL;
        struct err e = ERR_INIT;
        uint32_t len = 99;

        ASSERT_ERR(stream_parse(bad[i], &type, &len, &e), e, ERR_INVALID);
        ASSERT_EQ(type, STREAM_SIGNAL);
        ASSERT_EQ(len, 99);
    }
}
