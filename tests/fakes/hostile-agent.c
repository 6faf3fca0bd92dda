/* SPDX-License-Identifier: MIT
 *
 * hostile-agent: the first process of a guest that means harm. It boots as sbx-agent does, and then
 * treats the channel as its kind says. The kind is a word in the program's own data, which a test
 * overwrites in a copy of the file; the kinds are the rows at the end. What each of them must not
 * achieve is said in tests/vm/test_hostile.py.
 */
#include "common/auto.h"
#include "common/frame.h"
#include "common/io.h"
#include "guest/boot.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ESCAPES "\033]0;owned\007\033[31;5m\033[2J\x9b" "6n\r\n"

/* "KIND=" is what the test looks for. */
static volatile char kind[32] = "KIND=silent";

static int port = -1;
static struct frame_decoder dec;
static uint8_t in[64 * 1024];
static size_t in_at, in_have;

static void nap(void)
{
    for (;;)
        pause();
}

/* Blocks until all is written, as long as that takes. */
static void put(const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = write(port, p, len);
        struct pollfd pfd = { .fd = port, .events = POLLOUT };
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else {
            (void)poll(&pfd, 1, 100);
        }
    }
}

static uint32_t wrong_epoch;    /* bits that are turned over in what is sent */

static void send_frame(int type, uint8_t fd, uint32_t stream, const void *payload, uint32_t len)
{
    static uint8_t out[FRAME_OVERHEAD + LIMIT_FRAME];

    put(out, frame_encode(out, dec.epoch ^ wrong_epoch, (enum frame_type)type, fd, stream, payload,
                          len));
}

/* The next frame, within about `ms`. */
static bool next(struct frame *f, int ms)
{
    for (;;) {
        while (in_at < in_have) {
            size_t used = 0;
            int r = frame_decode(&dec, in + in_at, in_have - in_at, &used, f);
            in_at += used;
            if (r == 1)
                return true;
        }
        struct pollfd pfd = { .fd = port, .events = POLLIN };
        ssize_t n = read(port, in, sizeof(in));
        in_at = 0;
        in_have = n > 0 ? (size_t)n : 0;
        if (n <= 0 && ms <= 0)
            return false;
        if (n <= 0 && poll(&pfd, 1, 10) == 1 && !(pfd.revents & POLLIN))
            usleep(10000);      /* nobody at the other end */
        if (n <= 0)
            ms -= 10;
    }
}

static void expect(enum frame_type type, struct frame *f)
{
    do {
        while (!next(f, 1000))
            ;
    } while (f->type != type);
}

static void send_hello(uint32_t version)
{
    uint8_t buf[128];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };

    wire_put_u32(&w, version);
    wire_put_str(&w, ESCAPES);
    wire_put_str(&w, "boot");
    wire_put_u32(&w, 0);
    wire_put_u8(&w, 1);
    send_frame(FRAME_HELLO, 0, 0, buf, (uint32_t)w.len);
}

static void send_u64(enum frame_type type, uint8_t fd, uint32_t stream, uint64_t a, uint64_t b)
{
    uint8_t buf[16];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };

    wire_put_u64(&w, a);
    wire_put_u64(&w, b);
    send_frame(type, fd, stream, buf, (uint32_t)w.len);
}

static void greet(void)
{
    struct frame f;

    expect(FRAME_HELLO, &f);
    send_hello(FRAME_VERSION);
    send_u64(FRAME_READY, 0, 0, 1, 1);
}

static void send_started(uint32_t stream)
{
    static const uint8_t pid[4] = { 7 };

    send_frame(FRAME_STARTED, 0, stream, pid, sizeof(pid));
}

static void send_exit_code(uint32_t stream, uint32_t code, uint64_t out)
{
    uint8_t buf[32];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };

    wire_put_u8(&w, EXIT_CODE);
    wire_put_u32(&w, code);
    wire_put_u64(&w, out);
    wire_put_u64(&w, 0);
    send_frame(FRAME_EXIT, 0, stream, buf, (uint32_t)w.len);
}

static void send_exit(uint32_t stream, uint64_t out)
{
    send_exit_code(stream, 0, out);
}

static void send_text(uint32_t stream, uint64_t offset, const char *text)
{
    uint8_t buf[128];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };

    wire_put_u64(&w, offset);
    memcpy(buf + w.len, text, strlen(text));
    send_frame(FRAME_DATA, 1, stream, buf, (uint32_t)(w.len + strlen(text)));
}

static void send_data(uint32_t stream, uint64_t offset, uint32_t len)
{
    static uint8_t buf[LIMIT_FRAME];
    struct wire_out w = { .p = buf, .cap = 8 };

    wire_put_u64(&w, offset);
    memset(buf + 8, 'x', sizeof(buf) - 8);
    send_frame(FRAME_DATA, 1, stream, buf, len + 8);
}

/* The id of the first exec that is asked for. */
static uint32_t wait_exec(void)
{
    struct frame f;

    greet();
    expect(FRAME_EXEC, &f);
    return f.stream;
}

/* --- kinds: none of them returns --- */

static void k_silent(void)
{
    struct frame f;

    for (;;)
        (void)next(&f, 1000);
}

static void k_garbage(void)
{
    static uint8_t buf[64 * 1024];
    autoclose int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

    for (;;)
        if (read(fd, buf, sizeof(buf)) > 0)
            put(buf, sizeof(buf));
}

/* True magic and epoch, a length that no frame has, and as many bytes. */
static void lengths(void)
{
    static uint8_t buf[FRAME_HEADER + 65535];

    (void)frame_encode(buf, dec.epoch, FRAME_DATA, 1, 1, "", 0);
    buf[12] = buf[13] = 0xff;
    for (;;)
        put(buf, sizeof(buf));
}

static void k_lengths(void)
{
    struct frame f;

    expect(FRAME_HELLO, &f);
    lengths();
}

static void k_version(void)
{
    struct frame f;

    expect(FRAME_HELLO, &f);
    send_hello(FRAME_VERSION + 1);
    k_silent();
}

static void k_hugehello(void)
{
    static uint8_t buf[LIMIT_FRAME];
    struct frame f;

    expect(FRAME_HELLO, &f);
    memset(buf, 0xff, sizeof(buf));
    buf[0] = FRAME_VERSION;
    buf[1] = buf[2] = buf[3] = 0;
    for (;;) {
        send_frame(FRAME_HELLO, 0, 0, buf, sizeof(buf));
        (void)next(&f, 0);
    }
}

static void k_hellos(void)
{
    struct frame f;

    expect(FRAME_HELLO, &f);
    for (;;) {
        send_hello(FRAME_VERSION);
        (void)next(&f, 0);
    }
}

/* Says that thousands of sessions follow, and none does. */
static void k_sessions(void)
{
    uint8_t buf[64];
    struct frame f;

    for (;;) {
        struct wire_out w = { .p = buf, .cap = sizeof(buf) };
        expect(FRAME_HELLO, &f);
        wire_put_u32(&w, FRAME_VERSION);
        wire_put_str(&w, "1");
        wire_put_str(&w, "boot");
        wire_put_u32(&w, 1024);
        wire_put_u8(&w, 1);
        send_frame(FRAME_HELLO, 0, 0, buf, (uint32_t)w.len);
    }
}

static void k_halt(void)
{
    struct frame f;

    expect(FRAME_HELLO, &f);
    send_hello(FRAME_VERSION);
    boot_end(false);
}

static void k_mute(void)
{
    greet();
    k_silent();
}

static void k_deaf(void)
{
    greet();
    nap();
}

static void k_late_lengths(void)
{
    (void)wait_exec();
    lengths();
}

/* Types there are not, types only the daemon may send, flags and streams that cannot be. */
static void k_types(void)
{
    uint32_t stream = wait_exec();

    for (unsigned i = 0;; i++)
        send_frame((int)(i & 0xff) == FRAME_STARTED ? 0 : (int)(i & 0xff), (uint8_t)(i >> 8),
                   i & 1 ? stream : 0, "xxxxxxxxxxxxxxxx", i % 17);
}

static void k_streams(void)
{
    (void)wait_exec();
    for (uint32_t i = 1000;; i += 7919) {
        send_started(i);
        send_data(i, 0, 100);
        send_exit(i, 100);
        send_u64(FRAME_CREDIT, 0, i, UINT64_MAX, 0);
    }
}

static void k_overrun(void)
{
    uint32_t stream = wait_exec();

    send_started(stream);
    for (uint64_t at = 0;; at += 32000)
        send_data(stream, at, 32000);
}

/* All that it may send, as fast as it may; the end of it is never said. */
static void k_flood(void)
{
    uint32_t stream = wait_exec();
    uint64_t at = 0, credit = 64 * 1024;

    send_started(stream);
    for (;;) {
        struct frame f;
        while (next(&f, at + 32000 > credit ? 1000 : 0)) {
            struct wire_in w = { .p = f.payload, .left = f.len };
            if (f.type == FRAME_CREDIT && f.fd == 1 && f.stream == stream)
                credit = wire_get_u64(&w);
        }
        for (; at + 32000 <= credit; at += 32000)
            send_data(stream, at, 32000);
    }
}

/* Has ended, after output that nobody has seen. */
static void k_liar(void)
{
    uint32_t stream = wait_exec();

    send_started(stream);
    send_exit(stream, UINT64_MAX);
    k_silent();
}

/* Runs what it is told to run, and neither a timeout nor a word of the daemon ends it. */
static void k_endless(void)
{
    send_started(wait_exec());
    k_silent();
}

/* Frames of another time: as right as can be but for that. */
static void k_epoch(void)
{
    uint32_t stream = wait_exec();

    wrong_epoch = 1u << 16;
    for (;;) {
        struct frame f;
        send_started(stream);
        send_exit(stream, 0);
        (void)next(&f, 10);
    }
}

/* Words of the guest that come before the eyes of people. */
static void k_escapes(void)
{
    uint8_t buf[128];
    struct wire_out w = { .p = buf, .cap = sizeof(buf) };
    uint32_t stream;

    (void)!write(STDOUT_FILENO, ESCAPES, sizeof(ESCAPES) - 1);
    stream = wait_exec();
    wire_put_u8(&w, 3);
    memcpy(buf + 1, ESCAPES, sizeof(ESCAPES) - 1);
    send_frame(FRAME_LOG, 0, 0, buf, sizeof(ESCAPES));
    w = (struct wire_out){ .p = buf, .cap = sizeof(buf) };
    wire_put_u32(&w, 2);
    wire_put_u8(&w, EXEC_FAIL_PROTOCOL);
    wire_put_str(&w, ESCAPES);
    send_frame(FRAME_FAILED, 0, stream, buf, (uint32_t)w.len);
    k_silent();
}

/* The port closed and opened without end; each time a greeting, garbage, or nothing. Counts on the
 * console. */
static void k_reopen(void)
{
    static uint8_t junk[4096];
    char path[64], link[64];
    struct frame f;

    (void)wait_exec();
    snprintf(link, sizeof(link), "/proc/self/fd/%d", port);
    ssize_t n = readlink(link, path, sizeof(path) - 1);
    path[n > 0 ? n : 0] = '\0';
    memset(junk, 0xa5, sizeof(junk));
    for (unsigned i = 0;; i++) {
        close(port);
        do
            port = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        while (port < 0);
        in_at = in_have = 0;
        if (i % 3 == 0 && next(&f, 0) && f.type == FRAME_HELLO)
            send_hello(FRAME_VERSION);
        else if (i % 3 == 1)
            (void)!write(port, junk, i % sizeof(junk));
        if (i % 1024 == 0)
            dprintf(STDOUT_FILENO, "opened %u times\n", i);
    }
}

/* The command that is there first is served as it should be, and ends by a signal. Each later one
 * ends with 7, and is spoken of ever after; so are streams of which nobody knows. */
static void k_after_exit(void)
{
    uint32_t first = wait_exec();

    send_started(first);
    for (;;) {
        struct frame f;
        if (!next(&f, 1000) || (f.type != FRAME_EXEC && f.type != FRAME_SIGNAL))
            continue;
        if (f.type == FRAME_SIGNAL) {
            send_text(first, 0, "beside\n");
            send_exit_code(first, 3, strlen("beside\n"));
            continue;
        }
        uint32_t said[] = { f.stream, f.stream + 1000, UINT32_MAX, 0 };
        send_started(f.stream);
        send_text(f.stream, 0, "first\n");
        /* Its end is known, its output is not all there yet: another end does not count. */
        send_exit_code(f.stream, 7, strlen("first\nlast\n"));
        send_exit(f.stream, strlen("first\n"));
        send_started(f.stream);
        send_text(f.stream, strlen("first\n"), "last\nand on\n");
        for (size_t i = 0; i < 32 * ARRAY_SIZE(said); i++) {
            uint32_t stream = said[i % ARRAY_SIZE(said)];
            send_text(stream, strlen("first\nlast\n"), "more\n");
            send_exit(stream, strlen("first\nlast\nmore\n"));
            send_started(stream);
            send_text(stream, 0, "other\n");
        }
    }
}

static const struct {
    const char *name;
    void (*run)(void);
} kinds[] = {
    { "silent", k_silent },       { "garbage", k_garbage },   { "lengths", k_lengths },
    { "version", k_version },     { "hugehello", k_hugehello }, { "hellos", k_hellos },
    { "sessions", k_sessions },   { "halt", k_halt },         { "mute", k_mute },
    { "deaf", k_deaf },           { "types", k_types },       { "streams", k_streams },
    { "overrun", k_overrun },     { "flood", k_flood },       { "liar", k_liar },
    { "escapes", k_escapes },     { "late-lengths", k_late_lengths }, { "epoch", k_epoch },
    { "endless", k_endless },     { "reopen", k_reopen },     { "after-exit", k_after_exit },
};

int main(void)
{
    struct err e = ERR_INIT;
    char word[sizeof(kind)];

    for (size_t i = 0; i < sizeof(word); i++)
        word[i] = kind[i];
    word[sizeof(word) - 1] = '\0';
    if (getpid() != 1) {
        fputs("hostile-agent: runs as the first process of a guest only\n", stderr);
        return 2;
    }
    if (boot_guest(&port, &e) < 0) {
        boot_complain(&e);
        boot_end(false);
    }
    frame_decoder_init(&dec, 0);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (strcmp(word + strlen("KIND="), kinds[i].name) == 0)
            kinds[i].run();
    boot_end(false);
}
