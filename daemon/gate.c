/* SPDX-License-Identifier: MIT */
#include "daemon/gate.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define PAUSE_MS 100            /* when not even the reserve helps */
#define SAY_EVERY_MS 60000

struct gate {
    struct gate_options o;
    pthread_t thread;
    int stop_fd;                /* owned eventfd */
    /* the thread's alone */
    int reserve;                /* owned; -1 while somebody else has it */
    uint64_t n_refused;         /* since the last line about it */
    int64_t said_at;            /* 0: never */
};

static int reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int take_one(struct gate *g)
{
    return accept4(g->o.listen_fd, NULL, NULL, SOCK_CLOEXEC);
}

static void say(struct gate *g, int sys)
{
    struct err e = ERR_INIT;
    int64_t now = now_mono_ms();

    if (g->said_at && now - g->said_at < SAY_EVERY_MS)
        return;
    err_sys(&e, ERR_UNAVAILABLE, sys, "cannot accept a connection");
    log_warn(LOG_CTX(.error = &e), "%llu connections were refused",
             (unsigned long long)g->n_refused);
    g->said_at = now;
    g->n_refused = 0;
}

/* Somebody is at the door and there is no descriptor for him. False: he is still there. */
static bool turn_away(struct gate *g, int sys)
{
    struct err e = ERR_INIT;

    if (g->reserve >= 0)
        close(g->reserve);
    autoclose int fd = take_one(g);
    if (fd >= 0) {
        err_set(&e, ERR_UNAVAILABLE, "sandboxd cannot take more connections now");
        err_hint(&e, "try again in a moment");
        g->o.refuse(g->o.arg, fd, &e);
        g->n_refused++;
    }
    bool gone = fd >= 0;
    fd_close(take_fd(&fd));
    g->reserve = reserve();
    say(g, sys);
    return gone;
}

static void *run(void *arg)
{
    struct gate *g = arg;
    struct pollfd p[] = { { .fd = g->stop_fd, .events = POLLIN },
                          { .fd = g->o.listen_fd, .events = POLLIN } };

    pthread_setname_np(pthread_self(), "sbx-gate");
    for (;;) {
        if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
            poll(p, 1, PAUSE_MS);
        if (p[0].revents)
            return NULL;
        if (!p[1].revents)
            continue;
        int fd = take_one(g);
        if (fd >= 0)
            g->o.take(g->o.arg, fd);
        else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED &&
                 !turn_away(g, errno))
            poll(p, 1, PAUSE_MS);
        if (g->reserve < 0)
            g->reserve = reserve();
    }
}

static void free_parts(struct gate *g)
{
    fd_close(g->stop_fd);
    fd_close(g->reserve);
    free(g);
}

int gate_new(const struct gate_options *o, struct gate **ret, struct err *e)
{
    struct gate *g = calloc(1, sizeof(*g));

    if (!g)
        return err_nomem(e);
    g->o = *o;
    g->reserve = reserve();
    g->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int bad = g->reserve < 0 || g->stop_fd < 0 ? errno : 0;
    if (bad || fd_set_nonblock(o->listen_fd, true, e) < 0) {
        free_parts(g);
        return bad ? err_sys(e, ERR_INTERNAL, bad, "cannot listen") : -1;
    }
    bad = pthread_create(&g->thread, NULL, run, g);
    if (bad) {
        free_parts(g);
        return err_sys(e, ERR_INTERNAL, bad, "cannot start the thread that listens");
    }
    *ret = g;
    return 0;
}

void gate_free(struct gate *g)
{
    uint64_t one = 1;

    if (!g)
        return;
    (void)!write(g->stop_fd, &one, sizeof(one));
    pthread_join(g->thread, NULL);
    free_parts(g);
}
