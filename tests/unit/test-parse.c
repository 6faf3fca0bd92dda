/* SPDX-License-Identifier: MIT */
#include "common/parse.h"
#include "common/auto.h"
#include "tests/harness/test.h"

#include <stdio.h>

TEST(numbers)
{
    static const char *const bad[] = { "", " 1", "1 ", "+1", "-1", "0x1", "1.0", "1e3", "a",
                                       "18446744073709551616", "99999999999999999999", "1\n" };
    uint64_t v = 7;
    uint32_t w = 7;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (parse_u64(bad[i], 0, UINT64_MAX, &v))
            FAIL("'%s' is a number", bad[i]);
    ASSERT_EQ(v, 7);
    ASSERT_TRUE(parse_u64("18446744073709551615", 0, UINT64_MAX, &v));
    ASSERT_EQ(v, UINT64_MAX);
    ASSERT_TRUE(parse_u64("010", 10, 10, &v));      /* no octal */
    ASSERT_EQ(v, 10);
    ASSERT_FALSE(parse_u64("9", 10, 20, &v));
    ASSERT_TRUE(parse_u64("20", 10, 20, &v));
    ASSERT_FALSE(parse_u64("21", 10, 20, &v));
    ASSERT_TRUE(parse_u32("4294967295", 0, UINT32_MAX, &w));
    ASSERT_EQ(w, UINT32_MAX);
    w = 7;
    ASSERT_FALSE(parse_u32("4294967296", 0, UINT32_MAX, &w));
    ASSERT_EQ(w, 7);
}

TEST(sizes)
{
    static const struct { const char *s; uint64_t v; } good[] = {
        { "0", 0 }, { "512", 512 }, { "64K", 65536 }, { "512m", 512ull << 20 },
        { "2G", 2ull << 30 },
        { "1.5G", 3ull << 29 }, { "2GiB", 2ull << 30 }, { "2GB", 2ull << 30 }, { "3b", 3 },
        { "1T", 1ull << 40 }, { "1p", 1ull << 50 }, { "15E", 15ull << 60 }, { "0.5k", 512 },
        { "18446744073709551615", UINT64_MAX }, { "17179869183G", 17179869183ull << 30 },
        { "1.000000001k", 1024 },
    };
    static const char *const bad[] = { "", "G", "1 G", "-1", ".5G", "1.G", "1.5", "1.5b", "1Gi",
                                       "1GBx", "1X", "16E", "17179869184G", "1.0000000001G",
                                       "18446744073709551616", "1kk", "1,5G", "1ib", "0x10" };
    uint64_t v;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        if (!parse_size(good[i].s, &v))
            FAIL("'%s' is refused", good[i].s);
        ASSERT_EQ(v, good[i].v);
    }
    v = 7;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (parse_size(bad[i], &v))
            FAIL("'%s' is a size", bad[i]);
    ASSERT_EQ(v, 7);
}

TEST(durations)
{
    static const struct { const char *s; uint64_t v; } good[] = {
        { "0", 0 }, { "90", 90000 }, { "90s", 90000 }, { "500ms", 500 }, { "15m", 900000 },
        { "2h", 7200000 }, { "1d", 86400000 }, { "1h30m", 5400000 }, { "1d1h1m1s1ms", 90061001 },
        { "1m500ms", 60500 }, { "18446744073709551615ms", UINT64_MAX },
        { "18446744073709551", 18446744073709551000ull },
    };
    static const char *const bad[] = { "", "s", "1x", "1.5h", "-1", "1m1h", "1s1s", "1h30", " 1s",
                                       "1 s", "1S", "18446744073709551616ms", "213503982335d",
                                       "18446744073709552", "18446744073709551615ms1ms",
                                       "18446744073709551s1000ms", "1w" };
    uint64_t v;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        if (!parse_duration(good[i].s, &v))
            FAIL("'%s' is refused", good[i].s);
        ASSERT_EQ(v, good[i].v);
    }
    v = 7;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (parse_duration(bad[i], &v))
            FAIL("'%s' is a duration", bad[i]);
    ASSERT_EQ(v, 7);
}

TEST(times)
{
    static const struct { const char *s; int64_t v; } good[] = {
        { "1970-01-01T00:00:00Z", 0 },
        { "2026-01-02T03:04:05.678Z", 1767323045678000 },
        { "2026-01-02T03:04:05z", 1767323045000000 },
        { "2026-01-02t03:04:05.123456789Z", 1767323045123456 },
        { "2026-01-02T05:04:05+02:00", 1767323045000000 },
        { "2026-01-01T21:34:05-05:30", 1767323045000000 },
        { "2024-02-29T00:00:00Z", 1709164800000000 },
        { "2000-02-29T23:59:59Z", 951868799000000 },
        { "1969-12-31T23:59:59.999999Z", -1 },
        { "2016-12-31T23:59:60Z", 1483228800000000 },
        { "0001-01-01T00:00:00Z", -62135596800000000 },
        { "0000-01-01T00:00:00Z", -62167219200000000 },
        { "9999-12-31T23:59:59Z", 253402300799000000 },
    };
    static const char *const bad[] = {
        "", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z", "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z", "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z", "2026-01-01T00:00:61Z", "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00ZZ", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+00:60",
        "2026-01-01T00:00:00+0000", "26-01-01T00:00:00Z", "+2026-01-01T00:00:00Z",
        "2026-1-1T00:00:00Z", "0000-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
    };
    int64_t v;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        if (!parse_time(good[i].s, &v))
            FAIL("'%s' is refused", good[i].s);
        if (v != good[i].v)
            FAIL("'%s' is %lld", good[i].s, (long long)v);
    }
    v = 7;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (parse_time(bad[i], &v))
            FAIL("'%s' is a time", bad[i]);
    ASSERT_EQ(v, 7);
}

TEST(times_come_back)
{
    char buf[32];
    int64_t v;

    format_time(1767323045678000, buf);
    ASSERT_STREQ(buf, "2026-01-02T03:04:05.678000Z");
    format_time(-1, buf);
    ASSERT_STREQ(buf, "1969-12-31T23:59:59.999999Z");
    for (int64_t t = -62135596800000000; t < 253402300800000000; t += 1234567890123457) {
        format_time(t, buf);
        if (!parse_time(buf, &v))
            FAIL("'%s' is refused", buf);
        ASSERT_EQ(v, t);
    }
    format_time(INT64_MAX, buf);
    format_time(INT64_MIN, buf);
    ASSERT_LT(strlen(buf), sizeof(buf));
}

TEST(words_for_people)
{
    static const struct { uint64_t v; const char *s; } sizes[] = {
        { 0, "0B" }, { 1023, "1023B" }, { 1024, "1KiB" }, { 1536, "1.5KiB" },
        { (1 << 20) - 1, "1MiB" }, { 3ull << 29, "1.5GiB" }, { UINT64_MAX, "16EiB" },
    };
    static const struct { int64_t v; const char *s; } agos[] = {
        { -5, "just now" }, { 0, "just now" }, { 999999, "just now" }, { 1000000, "1 second ago" },
        { 119 * 1000000ll, "119 seconds ago" }, { 120 * 1000000ll, "2 minutes ago" },
        { 7199 * 1000000ll, "119 minutes ago" }, { 7200 * 1000000ll, "2 hours ago" },
        { 2 * 86400 * 1000000ll, "2 days ago" }, { 730 * 86400 * 1000000ll, "2 years ago" },
        { INT64_MIN, "just now" },
    };
    static const struct { uint64_t v; const char *s; } durations[] = {
        { 0, "0ms" }, { 999, "999ms" }, { 1999, "1s" }, { 60000, "1m" }, { 61999, "1m1s" },
        { 3600000, "1h" }, { 5400000 + 59999, "1h30m" }, { 86400000, "1d" },
        { 3 * 86400000ull + 3600000, "3d1h" },
    };
    char buf[32];

    for (size_t i = 0; i < ARRAY_SIZE(durations); i++) {
        format_duration(durations[i].v, buf);
        ASSERT_STREQ(buf, durations[i].s);
    }
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        format_size(sizes[i].v, buf);
        ASSERT_STREQ(buf, sizes[i].s);
    }
    for (size_t i = 0; i < ARRAY_SIZE(agos); i++) {
        format_ago(agos[i].v, buf);
        ASSERT_STREQ(buf, agos[i].s);
    }
}
