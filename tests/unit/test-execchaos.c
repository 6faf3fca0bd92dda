/* SPDX-License-Identifier: MIT
 *
 * A guest that says anything at all, right frames in senseless order and wrong ones, while
 * connections start, read, write, list and leave. Nothing is expected of the outcome but that
 * everybody comes back, in time and with memory intact; the sanitizers are the judges.
 */
#include "common/auto.h"
#include "common/io.h"
#include "tests/fakes/execworld.h"
#include "tests/harness/test.h"
#include <poll.h>
#include <stdio.h>

struct chaos {
    struct world w;
    bool stop;
    unsigned started, failed, reads;
};

static bool stopped(struct chaos *c)
{
    return __atomic_load_n(&c->stop, __ATOMIC_SEQ_CST);
}

static unsigned next(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 12;
}

static void use(struct chaos *c, struct exec *x, unsigned *seed)
{
    struct err e = ERR_INIT;
    struct exec_reader *r = NULL;
    static const char text[100];
    char buf[5000];
    if (exec_attach(x, next(seed) % 3 ? 0 : 50, 0, &r, &e) < 0)
        return;
    for (unsigned i = 0; i < next(seed) % 40; i++) {
        uint64_t lost, offset = next(seed) % 1000;
        bool ended = false;
        int fd;
        e = ERR_INIT;
        if (exec_read(r, buf, 1 + next(seed) % sizeof(buf), &fd, &lost, &ended, &e) > 0)
            __atomic_add_fetch(&c->reads, 1, __ATOMIC_RELAXED);
        if (ended)
            break;
        switch (next(seed) % 6) {
        case 0:
            (void)exec_stdin(r, text, 1 + next(seed) % sizeof(text), &e);
            break;
        case 1:
            (void)exec_wait(x, deadline_in(2), &e);
            break;
        case 2:
            (void)exec_output(x, 1 + (int)(next(seed) % 2), &offset, buf, sizeof(buf), &lost, &e);
            break;
        case 3: {
            struct pollfd p = { .fd = exec_reader_fd(r), .events = POLLIN };
            poll(&p, 1, 3);
            break;
        }
        default:
            break;
        }
    }
    if (next(seed) % 2)
        exec_end(x);
    exec_detach(r);
}

static void *user(void *arg)
{
    struct chaos *c = arg;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    while (!stopped(c)) {
        struct err e = ERR_INIT;
        struct exec *x = NULL;
        struct api_exec_req req = { .detach = next(&seed) % 2, .stdin = next(&seed) % 2 };
        ASSERT_OK(strv_add(&req.command, "prog", &e), e);
        if (exec_start(c->w.table, "", &req, deadline_in(50 + next(&seed) % 100), &x, &e) == 0) {
            __atomic_add_fetch(&c->started, 1, __ATOMIC_RELAXED);
            use(c, x, &seed);
            exec_unref(x);
        } else {
            __atomic_add_fetch(&c->failed, 1, __ATOMIC_RELAXED);
        }
        strv_done(&req.command);
        struct api_exec_list list = { 0 };
        e = ERR_INIT;
        ASSERT_OK(exec_list(c->w.table, &list, &e), e);
        json_done(api_exec_list_table, &list, sizeof(list));
    }
    return NULL;
}

/* One thing a guest might say about a stream it has heard of, or not. */
static void say(struct guestpeer *p, uint32_t stream, unsigned *seed)
{
    static uint8_t data[2000];
    unsigned a = next(seed) % 4096, n = next(seed) % sizeof(data);
    switch (next(seed) % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
        guestpeer_started(p, stream, a);
        break;
    case 4:
        guestpeer_failed(p, stream, a % 140, (uint8_t)(a % 8), "because");
        break;
    case 5:
    case 6:
    case 7:
        guestpeer_data(p, stream, (uint8_t)(1 + a % 2), 0, data, n);
        break;
    case 8:
        guestpeer_data(p, stream, (uint8_t)(a % 4), a, data, n);
        break;
    case 9:
        guestpeer_u64(p, FRAME_CREDIT, stream, (uint8_t)(a % 3), a);
        break;
    case 10:
    case 11:
        guestpeer_exit(p, stream, (uint8_t)(a % 5), a, a % 3 ? 0 : n, 0);
        break;
    case 12:
        guestpeer_send(p, (enum frame_type)(1 + a % (FRAME_TYPE_MAX - 1)), (uint8_t)(a % 3), stream,
                       data, n % 40);
        break;
    case 13:
        guestpeer_send(p, FRAME_LOG, 0, 0, data, 20);
        break;
    case 14:
        if (a % 256 == 0)
            guestpeer_raw(p, data, n % 60);
        break;
    default:
        guestpeer_u64(p, FRAME_EOF, stream, 1, a);
        break;
    }
}

static void guest(struct chaos *c, int ms, unsigned seed)
{
    struct guestpeer *p = &c->w.peer;
    int64_t deadline = deadline_in(ms);
    uint32_t known[16] = { 1 };
    unsigned n = 0;
    while (now_mono_ms() < deadline) {
        if (guestpeer_read(p, 1)) {
            uint32_t stream = p->frame.stream;
            if (p->frame.type == FRAME_EXEC) {
                known[n++ % 16] = stream;
                say(p, stream, &seed);
            } else if (p->frame.type == FRAME_HELLO) {
                struct guestsession s[16];
                size_t k = next(&seed) % 16;
                for (size_t i = 0; i < k; i++)
                    s[i] = (struct guestsession){ .stream = known[i],
                                                  .state = next(&seed) % 2,
                                                  .in = next(&seed) % 50 };
                guestpeer_answer(p, true, s, k);
            }
        }
        for (unsigned i = next(&seed) % 4; i > 0; i--)
            say(p, known[next(&seed) % 16], &seed);
    }
}

static void storm(unsigned seed)
{
    static struct chaos c;
    pthread_t th[4];
    world_init(&c.w);
    c.w.attach_ms = 50;
    c.w.stall_ms = 50;
    world_open(&c.w);
    world_ready(&c.w);
    for (int i = 0; i < 4; i++)
        ASSERT_EQ(pthread_create(&th[i], NULL, user, &c), 0);
    c.w.peer.may_break = true;
    guest(&c, 1500, seed);
    if (seed % 2)
        guestpeer_hangup(&c.w.peer);
    __atomic_store_n(&c.stop, true, __ATOMIC_SEQ_CST);
    int64_t before = now_mono_ms();
    for (int i = 0; i < 4; i++)
        pthread_join(th[i], NULL);
    ASSERT_LT(now_mono_ms() - before, 10000);
    fprintf(stderr, "# %u started, %u not, %u reads\n", c.started, c.failed, c.reads);
    world_done(&c.w);
}

TEST(anything_at_all_1)
{
    storm(1);
}

TEST(anything_at_all_2)
{
    storm(2);
}

TEST(anything_at_all_3)
{
    storm(3);
}

TEST(anything_at_all_4)
{
    storm(4);
}
