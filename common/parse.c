/* SPDX-License-Identifier: MIT */
#include "common/parse.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define FORMAT_SIZE 32

/* Reads digits at *s (at least one) and moves past them; false on none or overflow. */
static bool take_digits(const char **s, uint64_t *ret)
{
    const char *p = *s;
    uint64_t v = 0;

    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    *s = p;
    *ret = v;
    return true;
}

bool parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
    uint64_t v;

    if (!take_digits(&s, &v) || *s != '\0' || v < min || v > max)
        return false;
    *ret = v;
    return true;
}

bool parse_u32(const char *s, uint32_t min, uint32_t max, uint32_t *ret)
{
    uint64_t v;

    if (!parse_u64(s, min, max, &v))
        return false;
    *ret = (uint32_t)v;
    return true;
}

static char to_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* The power of two a size suffix stands for: "", b, then k m g t p e with nothing, b or ib. */
static bool size_shift(const char *s, unsigned *ret)
{
    static const char units[] = "kmgtpe";
    char unit = to_lower(s[0]);
    const char *at;

    if (s[0] == '\0' || (unit == 'b' && s[1] == '\0')) {
        *ret = 0;
        return true;
    }
    at = strchr(units, unit);
    if (!at)
        return false;
    s++;
    if (to_lower(s[0]) == 'i' && to_lower(s[1]) == 'b')
        s += 2;
    else if (to_lower(s[0]) == 'b')
        s++;
    *ret = 10 * (unsigned)(at - units + 1);
    return s[0] == '\0';
}

bool parse_size(const char *s, uint64_t *ret_bytes)
{
    uint64_t whole, fraction = 0, scale = 1;
    unsigned __int128 v;
    unsigned shift;

    if (!take_digits(&s, &whole))
        return false;
    if (*s == '.') {
        const char *digits = ++s;

        if (!take_digits(&s, &fraction) || s - digits > 9)
            return false;
        for (; digits < s; digits++)
            scale *= 10;
    }
    if (!size_shift(s, &shift) || (shift == 0 && scale > 1))
        return false;
    v = ((unsigned __int128)whole << shift) + ((unsigned __int128)fraction << shift) / scale;
    if (v > UINT64_MAX)
        return false;
    *ret_bytes = (uint64_t)v;
    return true;
}

static const struct {
    const char *suffix;
    uint64_t ms;
} duration_units[] = {
    { "d", 24 * 3600 * 1000 }, { "h", 3600 * 1000 }, { "m", 60 * 1000 }, { "s", 1000 }, { "ms", 1 },
};
#define N_UNITS (sizeof(duration_units) / sizeof(duration_units[0]))

bool parse_duration(const char *s, uint64_t *ret_ms)
{
    uint64_t total = 0, v;
    size_t unit = 0;    /* each part has a smaller unit than the one before */

    if (parse_u64(s, 0, UINT64_MAX / 1000, &v)) {
        *ret_ms = v * 1000;
        return true;
    }
    do {
        const char *end;
        size_t len;

        if (!take_digits(&s, &v))
            return false;
        for (end = s; *end >= 'a' && *end <= 'z'; end++)
            ;
        len = (size_t)(end - s);
        while (unit < N_UNITS && (strlen(duration_units[unit].suffix) != len ||
                                  memcmp(duration_units[unit].suffix, s, len) != 0))
            unit++;
        if (unit == N_UNITS || __builtin_mul_overflow(v, duration_units[unit].ms, &v) ||
            __builtin_add_overflow(total, v, &total))
            return false;
        unit++;
        s = end;
    } while (*s != '\0');
    *ret_ms = total;
    return true;
}

/* Exactly n digits within a range. */
static bool fixed_digits(const char **s, int n, int min, int max, int *ret)
{
    int v = 0;

    for (int i = 0; i < n; i++, (*s)++) {
        if (**s < '0' || **s > '9')
            return false;
        v = v * 10 + (**s - '0');
    }
    *ret = v;
    return v >= min && v <= max;
}

static bool one_of(const char **s, const char *set)
{
    if (**s == '\0' || !strchr(set, **s))
        return false;
    (*s)++;
    return true;
}

static bool leap_year(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int days_in_month(int year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

    return month == 2 && leap_year(year) ? 29 : days[month - 1];
}

/* Days from 1970-01-01 by counting years, leap days and months; years 0 to 9999. */
static int64_t days_since_epoch(int year, int month, int day)
{
    int64_t y = year - 1;
    int64_t days = y * 365 + (y >= 0 ? y / 4 - y / 100 + y / 400 : -1) + day - 1;

    for (int m = 1; m < month; m++)
        days += days_in_month(year, m);
    return days - 719162;   /* days from 0001-01-01 to the epoch */
}

/* ".678": up to microseconds; further digits are cut. */
static bool take_fraction(const char **s, int *ret_us)
{
    int us = 0, n = 0;

    for (; **s >= '0' && **s <= '9'; (*s)++, n++)
        if (n < 6)
            us = us * 10 + (**s - '0');
    for (int i = n; i < 6; i++)
        us *= 10;
    *ret_us = us;
    return n > 0;
}

bool parse_time(const char *s, int64_t *ret_us)
{
    int year, month, day, hour, minute, second, us = 0, off_h = 0, off_m = 0;
    int64_t t;

    if (!fixed_digits(&s, 4, 0, 9999, &year) || !one_of(&s, "-") ||
        !fixed_digits(&s, 2, 1, 12, &month) || !one_of(&s, "-") ||
        !fixed_digits(&s, 2, 1, days_in_month(year, month), &day) || !one_of(&s, "Tt") ||
        !fixed_digits(&s, 2, 0, 23, &hour) || !one_of(&s, ":") ||
        !fixed_digits(&s, 2, 0, 59, &minute) || !one_of(&s, ":") ||
        !fixed_digits(&s, 2, 0, 60, &second))   /* 60: a leap second */
        return false;
    if (one_of(&s, ".") && !take_fraction(&s, &us))
        return false;
    if (!one_of(&s, "Zz")) {
        int sign = *s == '-' ? -1 : 1;

        if (!one_of(&s, "+-") || !fixed_digits(&s, 2, 0, 23, &off_h) || !one_of(&s, ":") ||
            !fixed_digits(&s, 2, 0, 59, &off_m))
            return false;
        off_h *= sign;
        off_m *= sign;
    }
    if (*s != '\0')
        return false;
    t = days_since_epoch(year, month, day) * 86400 + (hour - off_h) * 3600 +
        (minute - off_m) * 60 + second;
    /* an offset may lead out of the years that four digits can say */
    if (t < days_since_epoch(0, 1, 1) * 86400 || t >= (days_since_epoch(9999, 12, 31) + 1) * 86400)
        return false;
    *ret_us = t * 1000000 + us;
    return true;
}

void format_time(int64_t us, char *buf)
{
    int64_t rest = us % 1000000;
    time_t t = (time_t)(us / 1000000);
    struct tm tm;

    if (rest < 0) {
        rest += 1000000;
        t--;
    }
    if (!gmtime_r(&t, &tm)) {
        snprintf(buf, FORMAT_SIZE, "1970-01-01T00:00:00.000000Z");
        return;
    }
    /* not %Y, which leaves the zeros of early years out */
    int n = snprintf(buf, FORMAT_SIZE, "%04d", tm.tm_year + 1900);
    n += (int)strftime(buf + n, FORMAT_SIZE - (size_t)n, "-%m-%dT%H:%M:%S", &tm);
    snprintf(buf + n, FORMAT_SIZE - (size_t)n, ".%06uZ", (unsigned)rest % 1000000u);
}

void format_size(uint64_t bytes, char *buf)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    size_t unit = 0;
    uint64_t tenths;

    while (unit + 1 < sizeof(units) / sizeof(units[0]) && bytes >> (10 * (unit + 1)) > 0)
        unit++;
    if (unit == 0) {
        snprintf(buf, FORMAT_SIZE, "%" PRIu64 "B", bytes);
        return;
    }
    tenths = (uint64_t)((((unsigned __int128)bytes * 10) + ((uint64_t)1 << (10 * unit - 1))) >>
                        (10 * unit));
    if (tenths >= 10240 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        tenths = 10;
        unit++;
    }
    if (tenths % 10 == 0)
        snprintf(buf, FORMAT_SIZE, "%" PRIu64 "%s", tenths / 10, units[unit]);
    else
        snprintf(buf, FORMAT_SIZE, "%" PRIu64 ".%u%s", tenths / 10, (unsigned)(tenths % 10),
                 units[unit]);
}

void format_ago(int64_t us_ago, char *buf)
{
    static const struct {
        int64_t seconds;
        const char *word;
    } units[] = {
        { 365 * 86400, "year" }, { 30 * 86400, "month" }, { 7 * 86400, "week" }, { 86400, "day" },
        { 3600, "hour" },        { 60, "minute" },        { 1, "second" },
    };
    int64_t s = us_ago / 1000000;

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        /* two of a unit before it is used, or "1 hour" would hide anything up to 119 minutes */
        int64_t n = s / units[i].seconds;

        if (n >= 2 || (n == 1 && units[i].seconds == 1)) {
            snprintf(buf, FORMAT_SIZE, "%" PRId64 " %s%s ago", n, units[i].word,
                     n == 1 ? "" : "s");
            return;
        }
    }
    snprintf(buf, FORMAT_SIZE, "just now");
}

void format_duration(uint64_t ms, char *buf)
{
    static const struct {
        uint64_t ms;
        const char *word;
    } units[] = { { 86400000, "d" }, { 3600000, "h" }, { 60000, "m" }, { 1000, "s" }, { 1, "ms" } };
    const size_t n = sizeof(units) / sizeof(units[0]);
    size_t i = 0;

    while (i < n - 1 && ms < units[i].ms)
        i++;
    uint64_t rest = i < n - 2 ? ms % units[i].ms / units[i + 1].ms : 0;
    if (rest)
        snprintf(buf, FORMAT_SIZE, "%" PRIu64 "%s%" PRIu64 "%s", ms / units[i].ms, units[i].word,
                 rest, units[i + 1].word);
    else
        snprintf(buf, FORMAT_SIZE, "%" PRIu64 "%s", ms / units[i].ms, units[i].word);
}
