/* SPDX-License-Identifier: MIT */
#include "tests/fakes/httpworld.h"

#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "daemon/daemon.h"
#include "daemon/http.h"
#include "daemon/idem.h"
#include "daemon/peer.h"
#include "daemon/quota.h"
#include "tests/harness/test.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* --- routes --- */

struct echo { char *text; uint32_t n; };
static const struct jfield echo_table[] = {
    JF(struct echo, text, JT_STR, .max = 4000),
    JF(struct echo, n, JT_U32, .def = 7),
    JF_END
};

atomic_int n_counted, n_slow, n_freed;

static int h_echo(struct call *c, struct err *e)
{
    struct echo none = { .text = (char *)"nothing" };
    return reply_json(c, 200, echo_table, c->body ? c->body : &none, e);
}

static int h_count(struct call *c, struct err *e)
{
    struct echo r = { .n = (uint32_t)atomic_fetch_add(&n_counted, 1) };
    usleep(20000);
    if (((struct echo *)c->body)->n == 666)
        return err_set(e, ERR_NAME_IN_USE, "no");
    const char *when = c->again ? "again" : "first";
    return reply_header(c, "Location", e, "/count/%u", r.n) < 0 ||
                   reply_header(c, "Object", e, "%s %s", c->object, when) < 0
               ? -1 : reply_json(c, 201, echo_table, &r, e);
}

static int h_big(struct call *c, struct err *e)
{
    size_t len = 2 * MIB;
    char *body = calloc(1, len);
    ASSERT_TRUE(body != NULL);
    return reply_take(c, "text/plain", &body, len, e);
}

static int h_fail(struct call *c, struct err *e)
{
    return err_set(e, ERR_INTERNAL, "the secret is 42");
}

static int h_gone(struct call *c, struct err *e)
{
    return reply_empty(c);
}

/* Until the client goes or the daemon stops. */
static int h_slow(struct call *c, struct err *e)
{
    bool stop = false;
    atomic_fetch_add(&n_slow, 1);
    bool gone = call_wait_gone(c, -1, WAIT_MS, &stop);
    atomic_fetch_sub(&n_slow, 1);
    return err_set(e, stop ? ERR_UNAVAILABLE : ERR_TIMEOUT, gone ? "gone" : "time is up");
}

static int64_t read_pieces(void *arg, char *buf, size_t cap)
{
    int *left = arg;
    if (*left == 0)
        return 0;
    (*left)--;
    memcpy(buf, "piece;", 6);
    return 6;
}

static int h_pieces(struct call *c, struct err *e)
{
    int *left = calloc(1, sizeof(*left));
    *left = 3;
    c->reply.status = 200;
    c->reply.content_type = "text/plain";
    c->reply.stream = (struct reply_stream){ .read = read_pieces, .free = free, .arg = left };
    return 0;
}

static int64_t read_ever(void *arg, char *buf, size_t cap)
{
    if (call_wait_gone(arg, -1, 50, NULL))
        return 0;
    buf[0] = '.';
    return 1;
}

static void free_ever(void *arg)
{
    atomic_fetch_add(&n_freed, 1);
}

static int h_ever(struct call *c, struct err *e)
{
    c->reply.status = 200;
    c->reply.content_type = "text/plain";
    c->reply.stream = (struct reply_stream){ .read = read_ever, .free = free_ever, .arg = c };
    return 0;
}

/* Echoes until the client ends or the daemon stops. */
static void run_up(void *arg, const struct upgrade_io *io)
{
    struct err e = ERR_INIT;
    uint8_t buf[4096];

    if (io->extra_len)
        io_write_full(io->fd, io->extra, io->extra_len, deadline_in(WAIT_MS), &e);
    for (;;) {
        struct pollfd p[2] = { { .fd = io->fd, .events = POLLIN },
                               { .fd = io->stop_fd, .events = POLLIN } };
        poll(p, 2, WAIT_MS);
        if (p[1].revents) {
            io_write_full(io->fd, "STOP", 4, deadline_in(WAIT_MS), &e);
            return;
        }
        ssize_t n = recv(io->fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n <= 0)
            return;
        io_write_full(io->fd, buf, (size_t)n, deadline_in(WAIT_MS), &e);
    }
}

static int h_up(struct call *c, struct err *e)
{
    c->reply.status = 101;
    c->reply.upgrade = (struct reply_upgrade){ .protocol = "sbx-stream", .run = run_up,
                                               .free = free_ever, .arg = NULL };
    return 0;
}

static const struct route table[] = {
    { "GET", "/echo", ROLE_USER, 64, NULL, 0, h_echo, 0, "a b*" },
    { "POST", "/echo", ROLE_USER, 8192, echo_table, sizeof(struct echo), h_echo, 0, NULL },
    { "POST", "/count", ROLE_USER, 8192, echo_table, sizeof(struct echo), h_count, ROUTE_IDEM,
      NULL },
    { "GET", "/free", ROLE_USER, 64, NULL, 0, h_echo, ROUTE_UNCOUNTED, NULL },
    { "GET", "/big", ROLE_USER, 64, NULL, 0, h_big, 0, NULL },
    { "POST", "/big", ROLE_USER, 64, NULL, 0, h_big, 0, NULL },
    { "GET", "/fail", ROLE_USER, 64, NULL, 0, h_fail, 0, NULL },
    { "DELETE", "/thing/{ref}", ROLE_USER, 64, NULL, 0, h_gone, 0, NULL },
    { "GET", "/admin", ROLE_ADMIN, 64, NULL, 0, h_gone, 0, NULL },
    { "GET", "/slow", ROLE_USER, 64, NULL, 0, h_slow, 0, NULL },
    { "GET", "/pieces", ROLE_USER, 64, NULL, 0, h_pieces, ROUTE_STREAM, NULL },
    { "GET", "/ever", ROLE_USER, 64, NULL, 0, h_ever, ROUTE_STREAM, NULL },
    { "GET", "/up", ROLE_USER, 64, NULL, 0, h_up, ROUTE_UPGRADE, NULL },
    { NULL }
};

/* --- server and client --- */

static struct daemon d;
struct http *server;
uint64_t connections, requests, replies;
static int listen_fd = -1;
static struct sockaddr_un address;  /* for threads: test_path() is for one */

void start_idle(unsigned idle_s)
{
    struct err e = ERR_INIT;
    struct quota_config quotas;

    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_EMERG);
    json_init();
    ASSERT_OK(store_open(test_path("db"), &d.store, &e), e);
    ASSERT_OK(idem_new(d.store, &d.idem, &e), e);
    json_decode(quota_config_table, "{}", 2, &quotas, &e);
    if (connections)
        quotas.fallback.limit[QUOTA_CONNECTIONS] = connections;
    if (requests)
        quotas.fallback.limit[QUOTA_REQUESTS] = requests;
    if (replies)
        quotas.fallback.limit[QUOTA_REPLIES] = replies;
    quota_defaults(&quotas, &(struct quota_host){ 0 });
    ASSERT_OK(quota_new(&quotas, &d.quota, &e), e);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", test_path("s"));
    ASSERT_OK(http_listen(test_path("s"), PEER_NO_GROUP, &listen_fd, &e), e);
    struct http_options o = { .daemon = &d, .routes = table, .listen_fd = listen_fd,
                              .admin_gid = PEER_NO_GROUP, .idle_s = idle_s,
                              .quota = d.quota };
    ASSERT_OK(http_new(&o, &server, &e), e);
}

void start(void)
{
    start_idle(60);
}

void stop(void)
{
    ASSERT_TRUE(http_stop(server, WAIT_MS));
    http_free(server);
    quota_free(d.quota);
    idem_free(d.idem);
    store_close(d.store);
    fd_close(listen_fd);
}

int dial(void)
{
    int fd = ASSERT_SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));

    ASSERT_SYS(connect(fd, (struct sockaddr *)&address, sizeof(address)));
    return fd;
}

char answer[ANSWER_MAX + 1];

/* Reads until the server closes. A reset after data is a close. */
const char *read_all(int fd)
{
    size_t len = 0;
    struct err e = ERR_INIT;
    int64_t deadline = deadline_in(WAIT_MS);

    while (len < ANSWER_MAX) {
        if (io_wait(fd, POLLIN, deadline, &e) != 1)
            FAIL("the server does not close; so far: %.*s", (int)len, answer);
        ssize_t n = recv(fd, answer + len, ANSWER_MAX - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    answer[len] = '\0';
    return answer;
}

void say(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n < 0)
            return;     /* the server has heard enough */
        text += n;
        len -= (size_t)n;
    }
}

const char *ask_bytes(const char *text, size_t len)
{
    int fd = dial();
    say(fd, text, len);
    read_all(fd);
    close(fd);
    return answer;
}

const char *ask(const char *text)
{
    return ask_bytes(text, strlen(text));
}

/* One request with usual headers, closed after it. */
const char *request(const char *line, const char *headers, const char *body)
{
    autosbuf struct sbuf b = SBUF(MIB);

    sbuf_fmt(&b, "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s", line, headers);
    if (body)
        sbuf_fmt(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    sbuf_fmt(&b, "\r\n%s", body ? body : "");
    return ask(sbuf_str(&b));
}

int status(void)
{
    int n = 0;
    return sscanf(answer, "HTTP/1.%*d %d", &n) == 1 ? n : 0;
}

void wait_for(atomic_int *n, int want)
{
    int64_t deadline = deadline_in(WAIT_MS);
    while (atomic_load(n) != want) {
        if (now_mono_ms() > deadline)
            FAIL("%d, wanted %d", atomic_load(n), want);
        usleep(5000);
    }
}

void read_until(int fd, const char *what)
{
    size_t len = 0;
    struct err e = ERR_INIT;
    int64_t deadline = deadline_in(WAIT_MS);

    do {
        if (io_wait(fd, POLLIN, deadline, &e) != 1)
            FAIL("'%s' does not come: %s", what, answer);
        ssize_t n = recv(fd, answer + len, ANSWER_MAX - len, 0);
        ASSERT_GT(n, 0);
        len += (size_t)n;
        answer[len] = '\0';
    } while (!strstr(answer, what));
}

void still_serves(void)
{
    request("GET /echo", "", NULL);
    ASSERT_EQ(status(), 200);
}
