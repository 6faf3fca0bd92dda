/* SPDX-License-Identifier: MIT */
#include "client/tty.h"
#include "common/auto.h"
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

static struct {
    int fd;                         /* terminal in raw mode, -1 none */
    int out;                        /* where sequences for it go: fd may be open for reading only */
    struct termios saved, raw;
    bool registered;
} tty = { .fd = -1 };

/* Private modes a program may leave behind, and what they are when nobody changed them. */
static const struct { uint16_t mode; bool normal; } modes[] = {
    { 1, false },       /* cursor keys of applications */
    { 9, false },    { 1000, false }, { 1001, false }, { 1002, false }, { 1003, false },
    { 1004, false }, { 1005, false }, { 1006, false }, { 1015, false }, /* mouse and focus */
    { 25, true },       /* cursor is visible */
    { 2004, false },    /* bracketed paste */
    { 47, false },   { 1047, false }, { 1049, false },  /* other screen: last */
};

static struct {
    bool changed[ARRAY_SIZE(modes)];
    enum { TEXT, ESCAPE, CSI, PRIVATE } state;
    uint16_t numbers[8];
    size_t n;
} watch;

static void put(const char *s, size_t len)
{
    /* What the terminal does not take at once is not worth waiting for. */
    ssize_t r = write(tty.out, s, len);
    (void)r;
}

/* Only calls that a signal handler may make. */
static void undo_modes(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        char seq[16] = "\033[?";
        char digits[8];
        size_t n = 0, len = 3;
        unsigned v = modes[i].mode;
        if (!watch.changed[i])
            continue;
        watch.changed[i] = false;
        do
            digits[n++] = (char)('0' + v % 10);
        while (v /= 10);
        while (n)
            seq[len++] = digits[--n];
        seq[len++] = modes[i].normal ? 'h' : 'l';
        put(seq, len);
    }
}

void tty_restore(void)
{
    int saved_errno = errno;

    if (tty.fd >= 0) {
        undo_modes();
        tcsetattr(tty.fd, TCSADRAIN, &tty.saved);
        tty.fd = -1;
    }
    errno = saved_errno;
}

static void on_deadly_signal(int signo)
{
    tty_restore();
    signal(signo, SIG_DFL);
    raise(signo);
}

/* Those the poll loop takes by signalfd are blocked while it runs; this is for before and after it,
 * and for our own faults. */
static void register_ways_out(void)
{
    static const int deadly[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTERM, SIGHUP,
                                  SIGQUIT, SIGINT, SIGPIPE, SIGXCPU, SIGALRM, SIGSYS };

    if (tty.registered)
        return;
    tty.registered = true;
    atexit(tty_restore);
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++) {
        struct sigaction old;
        struct sigaction act = { .sa_handler = on_deadly_signal, .sa_flags = (int)SA_RESETHAND };
        if (sigaction(deadly[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
            sigaction(deadly[i], &act, NULL);
    }
}

int tty_raw(int fd, struct err *e)
{
    struct termios t;

    if (tcgetattr(fd, &t) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read the terminal's settings");
    tty.saved = tty.raw = t;
    cfmakeraw(&tty.raw);
    register_ways_out();
    memset(&watch, 0, sizeof(watch));
    tty.out = isatty(STDOUT_FILENO) ? STDOUT_FILENO : fd;
    tty.fd = fd;
    if (tcsetattr(fd, TCSADRAIN, &tty.raw) < 0) {
        tty.fd = -1;
        return err_sys(e, ERR_INTERNAL, errno, "cannot put the terminal in raw mode");
    }
    return 0;
}

void tty_resume(void)
{
    if (tty.fd >= 0 && tcgetpgrp(tty.fd) == getpgrp())
        tcsetattr(tty.fd, TCSADRAIN, &tty.raw);
}

bool tty_size(uint16_t *ret_rows, uint16_t *ret_cols)
{
    static const int fds[] = { STDOUT_FILENO, STDIN_FILENO, STDERR_FILENO };
    struct winsize w = { 0 };

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        if (ioctl(fds[i], TIOCGWINSZ, &w) == 0 && w.ws_row && w.ws_col) {
            *ret_rows = w.ws_row;
            *ret_cols = w.ws_col;
            return true;
        }
    }
    return false;
}

static void note_mode(uint16_t mode, bool on)
{
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        if (modes[i].mode == mode)
            watch.changed[i] = on != modes[i].normal;
}

/* ESC [ ? number ; number … h or l */
static void watch_private(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        uint16_t *v = &watch.numbers[watch.n];
        if (*v < 6000)
            *v = (uint16_t)(*v * 10 + (c - '0'));
        return;
    }
    if (c == ';' && watch.n + 1 < ARRAY_SIZE(watch.numbers)) {
        watch.numbers[++watch.n] = 0;
        return;
    }
    if (c == 'h' || c == 'l')
        for (size_t i = 0; i <= watch.n; i++)
            note_mode(watch.numbers[i], c == 'h');
    watch.state = c == 0x1b ? ESCAPE : TEXT;
}

void tty_watch(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = data[i];
        switch (watch.state) {
        case TEXT: {
            const uint8_t *esc = memchr(data + i, 0x1b, len - i);
            if (!esc)
                return;
            i = (size_t)(esc - data);
            watch.state = ESCAPE;
            break;
        }
        case ESCAPE:
            if (c == 'c')       /* full reset */
                memset(watch.changed, 0, sizeof(watch.changed));
            watch.state = c == '[' ? CSI : c == 0x1b ? ESCAPE : TEXT;
            break;
        case CSI:
            watch.state = c == '?' ? PRIVATE : c == 0x1b ? ESCAPE : TEXT;
            watch.n = 0;
            watch.numbers[0] = 0;
            break;
        case PRIVATE:
            watch_private(c);
            break;
        }
    }
}

/* ---- detach keys --------------------------------------------------------------------------- */

static int detach_invalid(const char *text, struct err *e)
{
    err_set(e, ERR_USAGE, "'%s' is not a sequence of keys", text);
    return err_hint(e, "keys are letters or ctrl-X with commas between: " DETACH_KEYS_DEFAULT);
}

int detach_keys_parse(const char *text, struct detach_keys *ret, struct err *e)
{
    struct detach_keys d = { 0 };
    const char *s = text;

    while (*s) {
        size_t len = strcspn(s, ",");
        if (len == 0)       /* the comma itself cannot be a key */
            return detach_invalid(text, e);
        if (d.n == DETACH_KEYS_MAX)
            return detach_invalid(text, e);
        if (len == 1 && s[0] > ' ' && s[0] < 0x7f) {
            d.key[d.n++] = (uint8_t)s[0];
        } else if (len == 6 && strncasecmp(s, "ctrl-", 5) == 0) {
            char c = s[5];
            if (c >= 'a' && c <= 'z')
                c = (char)(c - 'a' + 'A');
            if (c < '@' || c > '_')
                return detach_invalid(text, e);
            d.key[d.n++] = (uint8_t)(c - '@');
        } else {
            return detach_invalid(text, e);
        }
        s += len;
        if (*s == ',' && !*++s)
            return detach_invalid(text, e);
    }
    *ret = d;
    return 0;
}

/* How much of the sequence the end of what was typed is the beginning of, one key later. */
static size_t detach_next(const struct detach_keys *d, uint8_t c)
{
    uint8_t typed[DETACH_KEYS_MAX + 1];

    memcpy(typed, d->key, d->matched);
    typed[d->matched] = c;
    for (size_t drop = 0; drop <= d->matched; drop++)
        if (memcmp(typed + drop, d->key, d->matched + 1 - drop) == 0)
            return d->matched + 1 - drop;
    return 0;
}

bool detach_keys_filter(struct detach_keys *d, const uint8_t *in, size_t len, uint8_t *out,
                        size_t *ret_out)
{
    size_t n = 0;

    if (!d->n) {
        memcpy(out, in, len);
        *ret_out = len;
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        size_t next = detach_next(d, in[i]);
        if (next == d->n) {
            d->matched = 0;
            *ret_out = n;
            return true;
        }
        /* What was held back and is no part of the sequence any more goes through. */
        size_t release = d->matched + 1 - next;
        for (size_t k = 0; k < release; k++)
            out[n++] = k < d->matched ? d->key[k] : in[i];
        d->matched = next;
    }
    *ret_out = n;
    return false;
}
