/* SPDX-License-Identifier: MIT */
#include "client/tty.h"
#include "tests/harness/test.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* Types `keys` in pieces of `step`; what comes through goes to out. */
static bool type(struct detach_keys *d, const char *keys, size_t step, char *out)
{
    size_t len = strlen(keys), total = 0;

    for (size_t i = 0; i < len; i += step) {
        uint8_t piece[64 + DETACH_KEYS_MAX];
        size_t n = 0, take = len - i < step ? len - i : step;
        bool done = detach_keys_filter(d, (const uint8_t *)keys + i, take, piece, &n);
        ASSERT_LE(n, take + DETACH_KEYS_MAX);
        memcpy(out + total, piece, n);
        total += n;
        out[total] = '\0';
        if (done)
            return true;
    }
    return false;
}

static struct detach_keys keys(const char *text)
{
    struct detach_keys d;
    struct err e = ERR_INIT;

    ASSERT_OK(detach_keys_parse(text, &d, &e), e);
    return d;
}

TEST(sequences_are_found_however_they_are_cut)
{
    static const struct { const char *sequence, *typed, *through; bool found; } cases[] = {
        { "ctrl-p,ctrl-q", "ab\x10\x11", "ab", true },
        { "ctrl-p,ctrl-q", "ab\x10", "ab", false },
        { "ctrl-p,ctrl-q", "\x10x\x11", "\x10x\x11", false },
        { "ctrl-p,ctrl-q", "\x10\x10\x11", "\x10", true },
        { "a,a,b", "aaab", "a", true },
        { "a,b,a,c", "ababac", "ab", true },
        { "a,b,a,c", "ababab", "ab", false },
        { "x", "abx", "ab", true },
        { "", "\x10\x11", "\x10\x11", false },
        { "ctrl-@", "ab", "ab", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step < 6; step++) {
            struct detach_keys d = keys(cases[i].sequence);
            char out[128] = "";
            ASSERT_EQ(type(&d, cases[i].typed, step, out), cases[i].found);
            if (cases[i].found || !d.matched)
                ASSERT_STREQ(out, cases[i].through);
        }
    }
}

TEST(sequences_that_are_none)
{
    static const char *const bad[] = { ",", "a,", ",a", "ctrl-", "ctrl-1", "ab", "ctrl-pq", " ",
                                       "a,a,a,a,a,a,a,a,a", "é" };
    struct detach_keys d;
    struct err e;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ASSERT_ERR(detach_keys_parse(bad[i], &d, &e), e, ERR_USAGE);
}

/* Modes on a pty, seen from its other end. */
TEST(modes_are_undone_in_pieces_of_any_length)
{
    static const char on[] = "x\033[?1049h\033[1;2Hy\033[?25l\033\033[?2004;1000h\033[?7h"
                             "\033[?2004l";
    struct err e = ERR_INIT;

    for (size_t step = 1; step < sizeof(on); step += 5) {
        int master = ASSERT_SYS(posix_openpt(O_RDWR | O_NOCTTY));
        ASSERT_SYS(grantpt(master));
        ASSERT_SYS(unlockpt(master));
        int slave = ASSERT_SYS(open(ptsname(master), O_RDWR | O_NOCTTY));
        struct termios before = { 0 }, after = { 0 };
        char got[256] = "";
        tcgetattr(slave, &before);
        ASSERT_OK(tty_raw(slave, &e), e);
        for (size_t i = 0; i < sizeof(on) - 1; i += step)
            tty_watch((const uint8_t *)on + i,
                      sizeof(on) - 1 - i < step ? sizeof(on) - 1 - i : step);
        /* The terminal waits for its output to be taken before settings change. */
        if (fork() == 0) {
            size_t n = 0;
            while (n < 22) {
                ssize_t r = read(master, got + n, sizeof(got) - n);
                if (r <= 0)
                    break;
                n += (size_t)r;
            }
            _exit(strcmp(got, "\033[?1000l\033[?25h\033[?1049l") != 0);
        }
        tty_restore();
        tty_restore();
        int status = 0;
        ASSERT_SYS(wait(&status));
        ASSERT_EQ(status, 0);
        tcgetattr(slave, &after);
        ASSERT_MEMEQ(&before, sizeof(before), &after, sizeof(after));
        close(slave);
        close(master);
    }
}
