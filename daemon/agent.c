/* SPDX-License-Identifier: MIT
 *
 * Theory of operation. One agent walks through the states of agent_priv.h on the event thread:
 *
 *     CONNECTING --connect--> HELLO --its HELLO--> SYNCING --its SESSIONs--> OPEN --READY--> READY
 *                               ^_____________________________________________________________|
 *                                 the decoder lost the thread, or the guest fell silent
 *
 * and to CLOSED from everywhere. Going back to HELLO takes a new epoch, so that frames of before
 * cannot be mistaken for answers; senders wait until the two ends are in step again.
 *
 * What a hostile guest can do with its end: it can be silent (we greet it, slower and slower), not
 * read (the queue is bounded, senders time out), flood (a bounded piece is read per wakeup, and the
 * pieces get smaller when they hold many frames), or talk nonsense (counted; past a rate it is not
 * read from for a while, longer each time). All of that costs other guests at most a turn.
 *
 * Two timers: `tick` drives the handshake and later pings and the clock, `rest` ends a pause.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/agent_priv.h"
#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CONNECT_RETRY_MS  25
#define HELLO_FIRST_MS    100
#define HELLO_LATER_MS    250
#define HELLO_LAST_MS     1000
#define SYNC_MS           10000
#define GREET_BACKOFF_MAX 5000
#define TIME_EVERY_MS     60000
#define PING_EVERY_MS     15000
#define SILENT_MS         60000
#define SESSIONS_MAX      1024
#define CHUNK_MAX         (64 * 1024)
#define CHUNK_MIN         (4 * 1024)
#define FRAMES_PER_TURN   512
#define JUNK_PER_S        (512 * 1024)
#define JUNK_FRAME        256 /* what a frame without sense counts, on top of its length */
#define JUNK_PING         64
#define JUNK_SMALL        8 /* small frames cost more than they carry: 65536 a second will do */
#define SMALL_FRAME       64
#define REST_FIRST_MS     100
#define REST_MAX_MS       2000
#define LOG_PER_S         (64 * 1024)
#define LOG_LINE_COST     64    /* beside its text: so 1000 lines a second at most */

static void complain(struct agent *a, const char *what)
{
    if (log_rate_ok(&a->rate, 5, 60000))
        log_warn(LOG_CTX(.sandbox = a->sandbox), "the guest %s, ignoring", what);
}

/* The channel is closed from the other side, or there is no point in it any more. Event thread. */
static void agent_lost(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    bool was = a->state == AGENT_CLOSED;
    struct evsource *sources[] = { a->io, a->tick, a->rest };
    int fd = a->fd;
    if (!was) {
        a->state = AGENT_CLOSED;
        a->io = a->tick = a->rest = NULL;
        a->fd = -1;
        pthread_cond_broadcast(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    if (was)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
        evloop_remove(sources[i]);
    fd_close(fd);
    a->ops->closed(a->arg);
}

/* Only this thread moves the state on, but any thread may close. */
static enum agent_state state_now(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    enum agent_state state = a->state;
    pthread_mutex_unlock(&a->lock);
    return state;
}

static void tick_in_locked(struct agent *a, int64_t ms)
{
    if (a->tick)
        evloop_timer_set(a->tick, ms);
}

static void tick_in(struct agent *a, int64_t ms)
{
    pthread_mutex_lock(&a->lock);
    tick_in_locked(a, ms);
    pthread_mutex_unlock(&a->lock);
}

static uint32_t new_epoch(void)
{
    uint32_t epoch = 0;
    while (epoch == 0)
        if (getrandom(&epoch, sizeof(epoch), 0) != sizeof(epoch))
            epoch = (uint32_t)now_mono_us() | 1;
    return epoch;
}

/* Begins the handshake. Losing each other again and again makes the pauses longer. */
static void greet(struct agent *a)
{
    int64_t now = now_mono_ms();
    if (a->greeted_ms && now - a->greeted_ms < 10000)
        a->greet_backoff = a->greet_backoff ? a->greet_backoff * 2 : HELLO_FIRST_MS;
    else
        a->greet_backoff = 0;
    if (a->greet_backoff > GREET_BACKOFF_MAX)
        a->greet_backoff = GREET_BACKOFF_MAX;
    a->greeted_ms = a->hello_since = now;
    pthread_mutex_lock(&a->lock);
    if (a->state != AGENT_CLOSED) {
        a->state = AGENT_HELLO;
        a->epoch = new_epoch();
        frame_decoder_init(&a->dec, a->epoch);
        a->dec_skipped = 0;
        tick_in_locked(a, a->greet_backoff);
    }
    pthread_mutex_unlock(&a->lock);
}

static void send_hello(struct agent *a)
{
    int64_t now = now_mono_ms(), age = now - a->hello_since;
    uint8_t version[4];
    struct wire_out w = { .p = version, .cap = sizeof(version) };
    wire_put_u32(&w, FRAME_VERSION);
    pthread_mutex_lock(&a->lock);
    /* Behind what waits already, here or in the socket of a guest that has not opened its port, a
     * second hello says nothing new. */
    int unread = 0;
    if (a->q_len == 0 && (ioctl(a->fd, SIOCOUTQ, &unread) < 0 || unread == 0))
        (void)agent_queue_locked(a, FRAME_HELLO, 0, 0, version, (uint32_t)w.len);
    int ms = age < 2000                   ? HELLO_FIRST_MS
             : age < DEADLINE_GUEST_HELLO ? HELLO_LATER_MS
                                          : HELLO_LAST_MS;
    tick_in_locked(a, ms);
    pthread_mutex_unlock(&a->lock);
}

static void send_time(struct agent *a)
{
    uint8_t payload[8];
    struct wire_out w = { .p = payload, .cap = sizeof(payload) };
    wire_put_u64(&w, (uint64_t)now_real_us() * 1000);
    pthread_mutex_lock(&a->lock);
    (void)agent_queue_locked(a, FRAME_TIME, 0, 0, payload, (uint32_t)w.len);
    pthread_mutex_unlock(&a->lock);
    a->time_next = now_mono_ms() + TIME_EVERY_MS;
}

static int encode_config(struct agent *a, uint8_t *buf, size_t cap, size_t *ret_len, struct err *e)
{
    static const char *const none[] = { NULL };
    struct guest_config c = {
        .hostname = a->hostname,
        .workspace = a->workspace,
        .realtime_ns = (uint64_t)now_real_us() * 1000,
        .env = a->env.items ? (const char *const *)a->env.items : none,
    };
    return guest_config_encode(&c, buf, cap, ret_len, e);
}

static void send_config(struct agent *a)
{
    uint8_t buf[LIMIT_FRAME];
    size_t len = 0;
    struct err e = ERR_INIT;
    if (encode_config(a, buf, sizeof(buf), &len, &e) < 0)
        return; /* agent_open() has tried it */
    pthread_mutex_lock(&a->lock);
    a->config_sent = agent_queue_locked(a, FRAME_CONFIG, 0, 0, buf, (uint32_t)len) == 0;
    pthread_mutex_unlock(&a->lock);
}

/* At each handshake: the agent does nothing about what it has done before. Its READY comes after,
 * so that no command runs before the network is there. */
static void send_net(struct agent *a)
{
    uint8_t buf[GUEST_NET_BYTES];
    if (!(a->abilities & GUEST_CAN_NET)) {
        static const char why[] = "the image's agent is too old to set up a network, build it anew";
        if (log_rate_ok(&a->rate, 5, 60000))
            log_warn(LOG_CTX(.sandbox = a->sandbox), "%s", why);
        a->ops->log(a->arg, LOG_WARNING, why, sizeof(why) - 1);
        a->net_sent = true;
        return;
    }
    uint32_t len = (uint32_t)guest_net_encode(&a->net, buf, sizeof(buf));
    pthread_mutex_lock(&a->lock);
    a->net_sent = agent_queue_locked(a, FRAME_NET, 0, 0, buf, len) == 0;
    pthread_mutex_unlock(&a->lock);
}

/* What the guest has to know of itself; again while there was no room for it. */
static void send_setup(struct agent *a)
{
    if (a->has_net && !a->net_sent)
        send_net(a);
    if (!a->configured && !a->config_sent && (a->net_sent || !a->has_net))
        send_config(a);
}

static bool setup_sent(const struct agent *a)
{
    return (a->configured || a->config_sent) && (a->net_sent || !a->has_net);
}

static void set_ready(struct agent *a, enum agent_state state)
{
    pthread_mutex_lock(&a->lock);
    if (a->state != AGENT_CLOSED)
        a->state = state;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

/* Hello and all sessions are here. What the module above has to say goes first, then the rest. */
static void in_step(struct agent *a)
{
    int64_t now = now_mono_ms();
    a->ops->synced(a->arg);
    send_setup(a);
    set_ready(a, a->configured ? AGENT_READY : AGENT_OPEN);
    a->heard_ms = now;
    a->time_next = now;
    a->ping_next = now + PING_EVERY_MS;
    tick_in(a, a->configured ? 0 : 250);
}

static bool take_hello(struct agent *a, const struct frame *f)
{
    if (state_now(a) != AGENT_HELLO)
        return false; /* the answer to a hello we repeated */
    struct wire_in w = { .p = f->payload, .left = f->len };
    uint32_t version = wire_get_u32(&w), len;
    if (!w.bad && version != FRAME_VERSION) {
        complain(a, "speaks another version of the protocol");
        pthread_mutex_lock(&a->lock);
        a->version_differs = true;
        pthread_cond_broadcast(&a->changed);
        pthread_mutex_unlock(&a->lock);
        return false;
    }
    wire_get_str(&w, 64, &len);
    wire_get_str(&w, 64, &len);
    uint32_t sessions = wire_get_u32(&w);
    uint8_t configured = wire_get_u8(&w);
    uint32_t abilities = w.left >= 4 ? wire_get_u32(&w) : 0;
    if (w.bad || sessions > SESSIONS_MAX)
        return false;
    a->sessions_left = sessions;
    a->configured = configured != 0;
    a->config_sent = a->net_sent = false;
    a->abilities = abilities;
    a->synced_by = now_mono_ms() + SYNC_MS;
    pthread_mutex_lock(&a->lock);
    if (a->state != AGENT_CLOSED)
        a->state = AGENT_SYNCING;
    a->version_differs = false;
    pthread_mutex_unlock(&a->lock);
    a->ops->frame(a->arg, f);
    if (sessions == 0)
        in_step(a);
    return true;
}

static bool take_session(struct agent *a, const struct frame *f)
{
    if (state_now(a) != AGENT_SYNCING)
        return false;
    bool ok = a->ops->frame(a->arg, f);
    if (--a->sessions_left == 0)
        in_step(a);
    return ok;
}

static bool take_ready(struct agent *a, const struct frame *f)
{
    struct wire_in w = { .p = f->payload, .left = f->len };
    uint64_t kernel_us = wire_get_u64(&w), agent_us = wire_get_u64(&w);
    if (w.bad || state_now(a) < AGENT_OPEN)
        return false;
    pthread_mutex_lock(&a->lock);
    if (a->state != AGENT_CLOSED)
        a->state = AGENT_READY;
    a->kernel_us = kernel_us;
    a->agent_us = agent_us;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    send_time(a);
    return true;
}

static bool take_ping(struct agent *a, const struct frame *f)
{
    if (f->len != 8)
        return false;
    pthread_mutex_lock(&a->lock);
    if (f->type == FRAME_PING) {
        a->junk += JUNK_PING;
        (void)agent_queue_locked(a, FRAME_PONG, 0, 0, f->payload, f->len);
    } else {
        struct wire_in w = { .p = f->payload, .left = f->len };
        agent_pong_locked(a, wire_get_u64(&w));
    }
    pthread_mutex_unlock(&a->lock);
    return true;
}

static bool take_log(struct agent *a, const struct frame *f)
{
    if (f->len < 1)
        return false;
    int64_t now = now_mono_ms();
    if (now - a->log_since >= 1000) {
        a->log_since = now;
        a->log_bytes = 0;
    }
    a->log_bytes += f->len + LOG_LINE_COST;
    if (a->log_bytes > LOG_PER_S)
        return false;
    int level = f->payload[0] <= LOG_DEBUG ? f->payload[0] : LOG_DEBUG;
    a->ops->log(a->arg, level, (const char *)f->payload + 1, f->len - 1);
    return true;
}

static bool take_frame(struct agent *a, const struct frame *f)
{
    switch ((int)f->type) {
    case FRAME_HELLO:
        return f->stream == 0 && take_hello(a, f);
    case FRAME_SESSION:
        return take_session(a, f);
    case FRAME_READY:
        return take_ready(a, f);
    case FRAME_PING:
    case FRAME_PONG:
        return take_ping(a, f);
    case FRAME_LOG:
        return take_log(a, f);
    case FRAME_STARTED:
    case FRAME_FAILED:
    case FRAME_DATA:
    case FRAME_EOF:
    case FRAME_CREDIT:
    case FRAME_EXIT:
        /* of the epoch, so after its hello; what comes between SESSIONs is news too */
        if (state_now(a) < AGENT_SYNCING)
            return false;
        return f->stream != 0 && a->ops->frame(a->arg, f);
    default:
        return false;
    }
}

/* Not read from for a while; whoever floods waits in its own socket. */
static void rest_if_junk(struct agent *a)
{
    int64_t now = now_mono_ms();
    if (a->junk > JUNK_PER_S) {
        complain(a, "sends nonsense");
        a->rest_ms = a->rest_ms ? a->rest_ms * 2 : REST_FIRST_MS;
        if (a->rest_ms > REST_MAX_MS)
            a->rest_ms = REST_MAX_MS;
        a->junk = 0;
        a->junk_since = now + a->rest_ms;
        pthread_mutex_lock(&a->lock);
        if (a->io) {
            a->paused = true;
            evloop_set_events(a->io, a->want_out ? EPOLLOUT : 0);
            evloop_timer_set(a->rest, a->rest_ms);
        }
        pthread_mutex_unlock(&a->lock);
    } else if (now - a->junk_since >= 1000) {
        if (a->junk < JUNK_PER_S / 8)
            a->rest_ms = 0;
        a->junk = 0;
        a->junk_since = now;
    }
}

static void consume(struct agent *a, const uint8_t *p, size_t len)
{
    unsigned frames = 0;
    bool sense = false;
    for (;;) {
        struct frame f = { 0 };
        size_t used = 0;
        bool got = frame_decode(&a->dec, p, len, &used, &f) == 1;
        p += used;
        len -= used;
        if (got) {
            frames++;
            if (f.len < SMALL_FRAME)
                a->junk += JUNK_SMALL;
            if (take_frame(a, &f))
                sense = true;
            else
                a->junk += JUNK_FRAME + f.len;
            if (state_now(a) == AGENT_CLOSED)
                return;
        } else if (used == 0) {
            break; /* all taken, and nothing is left in the decoder either */
        }
        if (a->dec.skipped > a->dec_skipped) {
            a->junk += (size_t)(a->dec.skipped - a->dec_skipped);
            a->dec_skipped = a->dec.skipped;
        }
        if (a->dec.hunting && state_now(a) >= AGENT_SYNCING)
            greet(a);
    }
    if (sense)
        a->heard_ms = now_mono_ms();
    if (frames > FRAMES_PER_TURN && a->chunk > CHUNK_MIN)
        a->chunk /= 2;
    else if (frames < FRAMES_PER_TURN / 4 && a->chunk < CHUNK_MAX)
        a->chunk *= 2;
    rest_if_junk(a);
}

/* Every callback stands between these two: agent_close() waits for the second. */
static bool enter(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    bool open = a->state != AGENT_CLOSED;
    if (open) {
        a->busy = true;
        __atomic_add_fetch(&a->refs, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&a->lock);
    return open;
}

static void leave(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    a->busy = false;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    agent_unref(a);
}

static void on_io(void *arg, uint32_t events)
{
    struct agent *a = arg;
    if (!enter(a))
        return;
    if (events & EPOLLOUT) {
        pthread_mutex_lock(&a->lock);
        agent_flush_locked(a);
        pthread_mutex_unlock(&a->lock);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        uint8_t buf[CHUNK_MAX];
        ssize_t n = recv(a->fd, buf, a->chunk, MSG_DONTWAIT);
        if (n > 0)
            consume(a, buf, (size_t)n);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            agent_lost(a);
    }
    leave(a);
}

static void on_rest(void *arg)
{
    struct agent *a = arg;
    if (!enter(a))
        return;
    pthread_mutex_lock(&a->lock);
    a->paused = false;
    if (a->io)
        evloop_set_events(a->io, EPOLLIN | (a->want_out ? EPOLLOUT : 0));
    pthread_mutex_unlock(&a->lock);
    leave(a);
}

static void try_connect(struct agent *a)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    memcpy(sa.sun_path, a->path, strlen(a->path)); /* agent_open() has checked the length */
    autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        if (now_mono_ms() >= a->connect_until)
            agent_lost(a);
        else
            tick_in(a, CONNECT_RETRY_MS);
        return;
    }
    struct err e = ERR_INIT;
    int rc = -1;
    pthread_mutex_lock(&a->lock);
    if (a->state == AGENT_CONNECTING) {
        a->fd = fd;
        rc = evloop_add_fd(a->loop, fd, EPOLLIN, on_io, a, &a->io, &e);
        if (rc < 0)
            a->fd = -1;
        else
            (void)take_fd(&fd);
    }
    pthread_mutex_unlock(&a->lock);
    if (rc == 0)
        greet(a);
    else
        tick_in(a, HELLO_LAST_MS);
}

/* While in step: the clock, a sign of life. A guest that was asleep with its whole machine has
 * missed nothing, as its answers then come before the next round of this. */
static void watch_over(struct agent *a)
{
    int64_t now = now_mono_ms();
    if (now - a->heard_ms > SILENT_MS && !a->paused) {
        greet(a);
        return;
    }
    enum agent_state state = state_now(a);
    if (!setup_sent(a))
        send_setup(a);
    if (state == AGENT_READY && now >= a->time_next)
        send_time(a);
    if (now >= a->ping_next) {
        static const uint8_t cookie[8];
        pthread_mutex_lock(&a->lock);
        (void)agent_queue_locked(a, FRAME_PING, 0, 0, cookie, sizeof(cookie));
        pthread_mutex_unlock(&a->lock);
        a->ping_next = now + PING_EVERY_MS;
    }
    tick_in(a, setup_sent(a) ? 5000 : 250);
}

static void on_tick(void *arg)
{
    struct agent *a = arg;
    if (!enter(a))
        return;
    int64_t now = now_mono_ms();
    switch (state_now(a)) {
    case AGENT_CONNECTING:
        try_connect(a);
        break;
    case AGENT_HELLO:
        send_hello(a);
        break;
    case AGENT_SYNCING:
        if (now >= a->synced_by)
            greet(a);
        else
            tick_in(a, a->synced_by - now);
        break;
    case AGENT_OPEN:
    case AGENT_READY:
        watch_over(a);
        break;
    case AGENT_CLOSED:
        break;
    }
    leave(a);
}

static void agent_free(struct agent *a)
{
    free(a->path);
    free(a->hostname);
    free(a->q);
    strv_done(&a->env);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

static int agent_fill(struct agent *a, const char *sandbox_id, const char *socket_path,
                      const struct guest_config *config, struct err *e)
{
    struct sockaddr_un sa;
    uint8_t buf[LIMIT_FRAME];
    size_t len = 0;
    if (strlen(socket_path) >= sizeof(sa.sun_path))
        return err_set(e, ERR_INTERNAL, "socket path '%s' is too long", socket_path);
    for (size_t i = 0; i < LIMIT_ID && sandbox_id[i]; i++)
        a->sandbox[i] = sandbox_id[i];
    a->path = strdup(socket_path);
    a->hostname = strdup(config->hostname ? config->hostname : "");
    if (!a->path || !a->hostname)
        return err_nomem(e);
    a->workspace = config->workspace;
    a->has_net = config->net != NULL;
    if (config->net)
        a->net = *config->net;
    for (size_t i = 0; config->env && config->env[i]; i++)
        if (strv_add(&a->env, config->env[i], e) < 0)
            return -1;
    return encode_config(a, buf, sizeof(buf), &len, e);
}

int agent_open(struct evloop *loop, const char *sandbox_id, const char *socket_path,
               const struct guest_config *config, const struct agent_ops *ops, void *arg,
               struct agent **ret, struct err *e)
{
    struct agent *a = calloc(1, sizeof(*a));
    if (!a)
        return err_nomem(e);
    a->refs = 1;
    a->loop = loop;
    a->ops = ops;
    a->arg = arg;
    a->fd = -1;
    a->chunk = CHUNK_MAX;
    a->connect_until = deadline_in(DEADLINE_GUEST_HELLO);
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&a->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (agent_fill(a, sandbox_id, socket_path, config, e) < 0) {
        agent_free(a);
        return -1;
    }
    if (ops->opened)
        ops->opened(arg, a);
    /* under the lock: the first tick may come before both are there */
    pthread_mutex_lock(&a->lock);
    int rc = evloop_add_timer(loop, -1, on_rest, a, &a->rest, e);
    if (rc == 0)
        rc = evloop_add_timer(loop, 0, on_tick, a, &a->tick, e);
    pthread_mutex_unlock(&a->lock);
    if (rc < 0) {
        agent_close(a);
        agent_unref(a);
        return -1;
    }
    *ret = a;
    return 0;
}

struct agent *agent_ref(struct agent *a)
{
    __atomic_add_fetch(&a->refs, 1, __ATOMIC_RELAXED);
    return a;
}

void agent_close(struct agent *a)
{
    bool self = evloop_is_self(a->loop);
    pthread_mutex_lock(&a->lock);
    a->state = AGENT_CLOSED;
    struct evsource *sources[] = { a->io, a->tick, a->rest };
    int fd = a->fd;
    a->io = a->tick = a->rest = NULL;
    pthread_cond_broadcast(&a->changed);
    while (a->busy && !self)
        pthread_cond_wait(&a->changed, &a->lock);
    a->fd = -1;
    pthread_mutex_unlock(&a->lock);
    for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
        evloop_remove(sources[i]);
    /* only the thread that took the sources has the descriptor to close */
    if (sources[0])
        fd_close(fd);
}

void agent_unref(struct agent *a)
{
    if (!a || __atomic_sub_fetch(&a->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    agent_close(a);
    agent_free(a);
}

bool agent_is_ready(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    bool ready = a->state == AGENT_READY;
    pthread_mutex_unlock(&a->lock);
    return ready;
}

void agent_boot_times(struct agent *a, uint64_t *ret_kernel_us, uint64_t *ret_agent_us)
{
    pthread_mutex_lock(&a->lock);
    *ret_kernel_us = a->kernel_us;
    *ret_agent_us = a->agent_us;
    pthread_mutex_unlock(&a->lock);
}
