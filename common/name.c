/* SPDX-License-Identifier: MIT */
#include "common/name.h"
#include "common/auto.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* The locale has no say here, so not ctype.h. */
static bool lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool hex(char c)
{
    return digit(c) || (c >= 'a' && c <= 'f');
}

static size_t hex_length(const char *s)
{
    size_t n = 0;

    while (n <= LIMIT_ID && hex(s[n]))
        n++;
    return s[n] == '\0' ? n : 0;
}

bool id_valid(const char *s)
{
    return hex_length(s) == LIMIT_ID;
}

bool id_prefix_valid(const char *s)
{
    size_t n = hex_length(s);

    return n >= 1 && n <= LIMIT_ID;
}

bool name_valid(const char *s)
{
    size_t n = 0;

    if (!lower(s[0]) && !digit(s[0]))
        return false;
    for (; s[n] != '\0'; n++)
        if (n >= LIMIT_NAME || !(lower(s[n]) || digit(s[n]) || strchr("_.-", s[n])))
            return false;
    return !id_valid(s);
}

bool env_key_valid(const char *s, size_t len)
{
    if (len == 0 || digit(s[0]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!lower(s[i]) && !upper(s[i]) && !digit(s[i]) && s[i] != '_')
            return false;
    return true;
}

bool env_valid(const char *assignment)
{
    const char *eq = strchr(assignment, '=');

    return eq && env_key_valid(assignment, (size_t)(eq - assignment)) &&
           strlen(assignment) <= LIMIT_ENV_BYTES;
}

bool label_key_valid(const char *s)
{
    size_t n = 0;

    if (!lower(s[0]) && !upper(s[0]) && !digit(s[0]))
        return false;
    for (; s[n] != '\0'; n++)
        if (n >= LIMIT_LABEL_KEY ||
            !(lower(s[n]) || upper(s[n]) || digit(s[n]) || strchr("_./-", s[n])))
            return false;
    return true;
}

bool user_valid(const char *s)
{
    uint64_t uid = 0;
    size_t n = 0;

    if (digit(s[0])) {
        for (; digit(s[n]); n++)
            if ((uid = uid * 10 + (uint64_t)(s[n] - '0')) >= UINT32_MAX)
                return false;   /* (uid_t)-1 means "no change" to the kernel */
        return s[n] == '\0';
    }
    if (!lower(s[0]) && !upper(s[0]) && s[0] != '_')
        return false;
    for (; s[n] != '\0'; n++)
        if (n >= LIMIT_USER || !(lower(s[n]) || upper(s[n]) || digit(s[n]) || strchr("_.-", s[n])))
            return false;
    return true;
}

/* One sequence of well-formed UTF-8: no overlong forms, no surrogates, nothing past U+10FFFF. */
static size_t decode(const char *text, size_t left, uint32_t *ret)
{
    const unsigned char *s = (const unsigned char *)text;
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    uint32_t c;
    size_t n;

    if (left == 0)
        return 0;
    if (s[0] < 0x80) {
        *ret = s[0];
        return 1;
    }
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        n = 2;
    else if ((s[0] & 0xf0) == 0xe0)
        n = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        n = 4;
    else
        return 0;
    if (left < n)
        return 0;

    c = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3fu);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret = c;
    return n;
}

size_t utf8_step(const char *s, size_t left)
{
    uint32_t c;

    return decode(s, left, &c);
}

size_t utf8_step_plain(const char *s, size_t left)
{
    uint32_t c = 0;
    size_t n = decode(s, left, &c);

    if (n == 0 || c < 0x20 || (c >= 0x7f && c <= 0x9f))
        return 0;
    /* marks and overrides of direction, line and paragraph separators, byte order mark */
    if (c == 0x061c || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
        (c >= 0x2066 && c <= 0x2069) || c == 0xfeff)
        return 0;
    return n;
}

bool utf8_valid(const char *s, size_t len)
{
    while (len > 0) {
        size_t n = utf8_step(s, len);

        if (n == 0)
            return false;
        s += n;
        len -= n;
    }
    return true;
}

static int random_bytes(void *buf, size_t n, struct err *e)
{
    /* up to 256 bytes come whole once the pool is ready; a signal can only interrupt before */
    for (;;) {
        ssize_t got = getrandom(buf, n, 0);

        if (got == (ssize_t)n)
            return 0;
        if (got < 0 && errno != EINTR)
            return err_sys(e, ERR_INTERNAL, errno, "cannot get random bytes");
    }
}

int id_new(char *buf, struct err *e)
{
    uint64_t v;

    if (random_bytes(&v, sizeof(v), e) < 0)
        return -1;
    snprintf(buf, LIMIT_ID + 1, "%016llx", (unsigned long long)v);
    return 0;
}

static const char *const first_words[] = {
    "amber", "bold", "brisk", "calm", "clear", "cosy", "crisp", "deep", "eager", "early", "fair",
    "fleet", "fond", "fresh", "gentle", "glad", "golden", "green", "happy", "hardy", "keen", "kind",
    "light", "lively", "lucky", "mellow", "merry", "mild", "neat", "nimble", "noble", "plain",
    "proud", "quick", "quiet", "rapid", "ready", "round", "sharp", "silent", "silver", "sleek",
    "smart", "snug", "solid", "sound", "spry", "steady", "still", "sunny", "swift", "tidy", "true",
    "vivid", "warm", "wide", "wild", "wise", "witty", "young",
};

static const char *const second_words[] = {
    "alder", "aspen", "badger", "beaver", "birch", "bison", "brook", "cedar", "clover", "cove",
    "crane", "creek", "dune", "elm", "falcon", "fern", "finch", "fjord", "fox", "glade", "gull",
    "harbor", "hare", "hazel", "heron", "hill", "ibis", "iris", "island", "ivy", "jay", "juniper",
    "lake", "lark", "linden", "lynx", "maple", "marten", "meadow", "moss", "oak", "olive", "orchid",
    "otter", "owl", "pebble", "pine", "plover", "pond", "quail", "raven", "reed", "robin", "sage",
    "seal", "shore", "sparrow", "stork", "swan", "thyme", "trout", "valley", "willow", "wren",
};

int name_new(char *buf, struct err *e)
{
    uint32_t r[3];

    if (random_bytes(r, sizeof(r), e) < 0)
        return -1;
    snprintf(buf, LIMIT_NAME + 1, "%s-%s-%u", first_words[r[0] % ARRAY_SIZE(first_words)],
             second_words[r[1] % ARRAY_SIZE(second_words)], 10 + r[2] % 90);
    return 0;
}
