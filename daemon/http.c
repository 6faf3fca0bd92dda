/* SPDX-License-Identifier: MIT
 *
 * How a request travels: on_accepted() asks who connects and whether he may have one more, and
 * gives the connection to the library (gate's thread). libmicrohttpd calls on_target() with the
 * untouched request target, where a call is made; on_request() first with the headers (every check
 * that needs no body happens there, so that a body that will be refused is not read), then with
 * pieces of the body, then once more, where the router runs; on_done() when the last byte is out or
 * the client gone. All of this on the connection's thread.
 *
 * The library looks at nothing while a handler runs, so what waits for long watches the socket
 * itself (call_wait_gone). It also has no limit for the time a request takes as long as bytes
 * trickle in: http_sweep() has one.
 *
 * What the library refuses by itself (a request line or header it cannot parse, more than
 * LIMIT_HTTP_MEMORY of them) is answered by it, with a status and a short page in place of JSON and
 * without Sbx-Request-Id, and the connection is closed.
 */
#include "daemon/http.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/name.h"
#include "common/parse.h"
#include "common/stream.h"
#include "daemon/audit_call.h"
#include "daemon/gate.h"
#include "daemon/idem.h"
#include "daemon/meter.h"
#include "daemon/peer.h"
#include "daemon/quota.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#define STACK_SIZE (512 * KIB)
#define STREAM_BLOCK (16 * KIB)

enum phase { PHASE_WAITING, PHASE_RUNNING, PHASE_SENDING };

struct conn {
    struct conn *next;
    int fd;                     /* borrowed from the library, which closes it after on_connection */
    struct caller caller;       /* constant */
    struct err refused;         /* constant; code set: every request gets it */
    bool attached;              /* the library knows it; guarded by the lock of http */
    struct quota_charge charge;
    enum phase phase;           /* guarded by the lock of http, as the next one */
    int64_t waiting_since;      /* milliseconds; in PHASE_WAITING */
};

struct http {
    struct http_options o;
    struct MHD_Daemon *mhd;
    struct gate *gate;          /* owned; NULL once we stop */
    int stop_fd;                /* owned eventfd: readable once we stop */
    pthread_mutex_t lock;       /* a leaf; guards all below and each connection's phase */
    pthread_cond_t idle;        /* n_active is 0; CLOCK_MONOTONIC */
    struct conn *conns;
    unsigned n_active;          /* connections not in PHASE_WAITING */
    bool stopping;
};

/* What hangs on a request inside the library. */
struct request {
    struct http *http;
    struct conn *conn;
    struct call call;
    struct quota_charge charge;
    struct err bad;             /* what is wrong with it was seen before it could be answered */
    bool seen_head;
    bool answered;
    int64_t since_us;           /* its head, or all of it, was here */
    char *target;               /* owned */
    size_t cap;                 /* of call.raw */
};

static void set_phase(struct http *h, struct conn *conn, enum phase phase)
{
    pthread_mutex_lock(&h->lock);
    if (conn->phase == PHASE_WAITING && phase != PHASE_WAITING)
        h->n_active++;
    if (conn->phase != PHASE_WAITING && phase == PHASE_WAITING && --h->n_active == 0)
        pthread_cond_broadcast(&h->idle);
    conn->phase = phase;
    if (phase == PHASE_WAITING)
        conn->waiting_since = now_mono_ms();
    pthread_mutex_unlock(&h->lock);
}

static bool is_stopping(struct http *h)
{
    pthread_mutex_lock(&h->lock);
    bool stopping = h->stopping;
    pthread_mutex_unlock(&h->lock);
    return stopping;
}

/* --- connections --- */

/* An answer where the library cannot give one: the connection is closed after it. Nothing waits for
 * a client that does not take it. */
static void answer_by_hand(int fd, struct call *c, const struct err *e)
{
    autosbuf struct sbuf b = SBUF(4 * KIB);

    reply_error(c, e);
    sbuf_fmt(&b, "HTTP/1.1 %d Refused\r\nConnection: close\r\nContent-Type: application/json\r\n"
                 "Sbx-Request-Id: %s\r\nContent-Length: %zu\r\n\r\n",
             c->reply.status, c->caller.request, c->reply.len);
    sbuf_add(&b, c->reply.body, c->reply.len);
    if (!b.failed)
        (void)!send(fd, sbuf_str(&b), b.len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void new_request_id(struct caller *caller, struct err *e)
{
    if (id_new(caller->request, e) < 0)
        memcpy(caller->request, "0000000000000000", LIMIT_ID + 1);
}

/* Too many: told so on the spot, before a byte is read or a thread begun. */
static void turn_away(void *arg, int fd, const struct err *e)
{
    struct http *h = arg;
    struct call c = { .daemon = h->o.daemon };
    struct err ignored = ERR_INIT;

    if (peer_read(fd, h->o.admin_gid, &c.caller, &ignored) < 0)
        c.caller.id.uid = (uid_t)-1;
    new_request_id(&c.caller, &ignored);
    answer_by_hand(fd, &c, e);
    call_done(&c);
}

static void unlink_conn(struct http *h, struct conn *conn)
{
    pthread_mutex_lock(&h->lock);
    for (struct conn **pp = &h->conns; *pp; pp = &(*pp)->next) {
        if (*pp == conn) {
            *pp = conn->next;
            break;
        }
    }
    pthread_mutex_unlock(&h->lock);
}

static void conn_free(struct conn *conn)
{
    quota_drop(&conn->charge, QUOTA_ALL);
    free(conn);
}

/* The caller's quota, and the room that is left for others. */
static int admit(struct http *h, struct conn *conn, struct err *e)
{
    static const struct quota_use one = { .n = { [QUOTA_CONNECTIONS] = 1 } };

    if (quota_take(h->o.quota, &conn->caller.id, &one, &conn->charge, e) < 0)
        return -1;
    if (quota_fair(h->o.quota, &conn->caller.id, QUOTA_CONNECTIONS, LIMIT_CONNECTIONS))
        return 0;
    err_set(e, ERR_UNAVAILABLE, "sandboxd has %d connections, and you many of them",
            LIMIT_CONNECTIONS);
    return err_hint(e, "close some: each attached command and each followed log is one");
}

/* Gate's thread. The library closes fd also when it fails. */
static void on_accepted(void *arg, int fd)
{
    struct http *h = arg;
    struct sockaddr_storage from = { .ss_family = AF_UNIX };
    struct conn *conn = calloc(1, sizeof(*conn));
    struct err e = ERR_INIT;

    if (!conn) {
        err_nomem(&e);
        turn_away(h, fd, &e);
        close(fd);
        return;
    }
    conn->fd = fd;
    if (peer_read(fd, h->o.admin_gid, &conn->caller, &conn->refused) < 0)
        conn->caller.id.uid = (uid_t)-1;
    conn->caller.read_only = h->o.read_only;
    conn->caller.admin &= !h->o.read_only;
    conn->waiting_since = now_mono_ms();
    if (admit(h, conn, &e) < 0) {
        turn_away(h, fd, &e);
        close(fd);
        conn_free(conn);
        return;
    }
    pthread_mutex_lock(&h->lock);
    conn->next = h->conns;
    h->conns = conn;
    pthread_mutex_unlock(&h->lock);
    if (MHD_add_connection(h->mhd, fd, (const struct sockaddr *)&from, sizeof(from)) != MHD_YES) {
        unlink_conn(h, conn);
        conn_free(conn);
    }
}

/* The library has begun with what on_accepted() gave it. */
static void conn_open(struct http *h, struct MHD_Connection *mc, void **ctx)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD);

    *ctx = NULL;
    pthread_mutex_lock(&h->lock);
    for (struct conn *c = h->conns; c && info && !*ctx; c = c->next) {
        if (c->fd == info->connect_fd && !c->attached) {
            c->attached = true;
            *ctx = c;
        }
    }
    pthread_mutex_unlock(&h->lock);
    if (*ctx)
        meter_connection(h->o.meter, 1);
}

static void conn_close(struct http *h, struct conn *conn)
{
    if (!conn)
        return;
    meter_connection(h->o.meter, -1);
    set_phase(h, conn, PHASE_WAITING);
    unlink_conn(h, conn);
    conn_free(conn);
}

static void on_connection(void *arg, struct MHD_Connection *mc, void **ctx,
                          enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        conn_open(arg, mc, ctx);
    else
        conn_close(arg, *ctx);
}

/* --- answers --- */

static ssize_t on_stream_read(void *arg, uint64_t pos, char *buf, size_t cap)
{
    const struct reply_stream *s = &((struct request *)arg)->call.reply.stream;
    int64_t n = s->read(s->arg, buf, cap);

    if (n == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    return n < 0 ? MHD_CONTENT_READER_END_WITH_ERROR : (ssize_t)n;
}

static void on_upgrade(void *arg, struct MHD_Connection *mc, void *con_cls, const char *extra,
                       size_t extra_len, MHD_socket sock, struct MHD_UpgradeResponseHandle *urh)
{
    struct request *rq = arg;
    const struct reply_upgrade *u = &rq->call.reply.upgrade;
    struct upgrade_io io = { .fd = sock, .stop_fd = rq->http->stop_fd,
                             .extra = (const uint8_t *)extra, .extra_len = extra_len };
    struct err e = ERR_INIT;

    if (fd_set_nonblock(sock, true, &e) == 0)
        u->run(u->arg, &io);
    MHD_upgrade_action(urh, MHD_UPGRADE_ACTION_CLOSE);
}

static struct MHD_Response *make_response(struct request *rq)
{
    struct reply *r = &rq->call.reply;
    struct MHD_Response *resp;

    if (r->upgrade.run) {
        resp = MHD_create_response_for_upgrade(on_upgrade, rq);
        if (resp)
            MHD_add_response_header(resp, MHD_HTTP_HEADER_UPGRADE, r->upgrade.protocol);
        return resp;
    }
    if (r->stream.read) {
        resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_stream_read, rq,
                                                 NULL);
    } else {
        resp = MHD_create_response_from_buffer(r->len, r->body, MHD_RESPMEM_MUST_FREE);
        if (resp)
            r->body = NULL;
    }
    if (resp && r->content_type)
        MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
    return resp;
}

/* One answer of a route, or of none. */
static void count(const struct request *rq)
{
    const struct http_options *o = &rq->http->o;
    const struct route *r = rq->call.route;

    meter_answer(o->meter, r ? (size_t)(r - o->routes) : SIZE_MAX, rq->call.reply.status,
                 now_mono_us() - rq->since_us);
}

static enum MHD_Result answer(struct request *rq, struct MHD_Connection *mc)
{
    struct reply *r = &rq->call.reply;
    unsigned status = (unsigned)r->status;
    bool slow = r->stream.read || r->upgrade.run;
    struct MHD_Response *resp = make_response(rq);
    enum MHD_Result ok;

    if (!resp)
        return MHD_NO;
    rq->answered = true;
    count(rq);
    MHD_add_response_header(resp, "Sbx-Request-Id", rq->call.caller.request);
    MHD_add_response_header(resp, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    for (size_t i = 0; i < r->n_headers; i++)
        MHD_add_response_header(resp, r->headers[i].name, r->headers[i].value);
    if (!slow && is_stopping(rq->http))
        MHD_add_response_header(resp, MHD_HTTP_HEADER_CONNECTION, "close");
    MHD_set_connection_option(mc, MHD_CONNECTION_OPTION_TIMEOUT, slow ? 0u : rq->http->o.idle_s);
    if (!slow)
        set_phase(rq->http, rq->conn, PHASE_SENDING);
    ok = MHD_queue_response(mc, status, resp);
    MHD_destroy_response(resp);
    return ok;
}

static enum MHD_Result refuse(struct request *rq, struct MHD_Connection *mc, const struct err *e)
{
    reply_error(&rq->call, e);
    return answer(rq, mc);
}

/* The library cannot answer in the middle of a body; the MHD_NO closes the connection. Nothing else
 * was sent on it for this request (but perhaps "100 Continue"). */
static enum MHD_Result cut_body(struct request *rq, const struct err *e)
{
    answer_by_hand(rq->conn->fd, &rq->call, e);
    count(rq);
    return MHD_NO;
}

/* --- requests --- */

struct head {
    struct request *rq;
    struct err *e;
    unsigned n_length, n_encoding;
    uint64_t length;
    bool bad;
};

/* A browser must not drive the socket when it is forwarded to a port: no Origin, no other Host than
 * the names that stand for the socket. */
static bool host_ok(const char *host)
{
    static const char *const ok[] = { "", "localhost", "localhost:", "sandboxd", "sandboxd:" };

    for (size_t i = 0; i < ARRAY_SIZE(ok); i++)
        if (strcasecmp(host, ok[i]) == 0)
            return true;
    return false;
}

static int check_header(struct head *hd, const char *key, const char *value)
{
    struct call *c = &hd->rq->call;

    if (strcasecmp(key, "Origin") == 0 || strcasecmp(key, "Sec-Fetch-Site") == 0)
        return err_set(hd->e, ERR_ORIGIN_REFUSED, "requests of web pages are refused");
    if (strcasecmp(key, "Host") == 0 && !host_ok(value)) {
        err_set(hd->e, ERR_ORIGIN_REFUSED, "Host '%s' is refused", value);
        return err_hint(hd->e, "use http://localhost/ or http://sandboxd/ over the socket");
    }
    if (strcasecmp(key, "Content-Length") == 0) {
        if (hd->n_length++ > 0)
            return err_set(hd->e, ERR_INVALID, "two Content-Length headers");
        if (!parse_u64(value, 0, UINT64_MAX, &hd->length))
            return err_set(hd->e, ERR_INVALID, "Content-Length is not a number");
    }
    if (strcasecmp(key, "Transfer-Encoding") == 0) {
        if (hd->n_encoding++ > 0 || strcasecmp(value, "chunked") != 0)
            return err_set(hd->e, ERR_INVALID, "Transfer-Encoding is chunked or absent");
    }
    if (strcasecmp(key, "Content-Type") == 0) {
        size_t n = strcspn(value, "; ");
        if (n != strlen("application/json") || strncasecmp(value, "application/json", n) != 0)
            hd->bad = true;         /* matters when there is a body */
    }
    if (strcasecmp(key, "Idempotency-Key") == 0) {
        if (!idem_key_valid(value))
            return err_set(hd->e, ERR_INVALID,
                           "Idempotency-Key is 1 to %d printable characters without spaces",
                           LIMIT_IDEMPOTENCY_KEY);
        free(c->idem_key);
        c->idem_key = strdup(value);
        if (!c->idem_key)
            return err_nomem(hd->e);
    }
    return 0;
}

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *key,
                                 const char *value)
{
    struct head *hd = arg;

    return check_header(hd, key, value ? value : "") < 0 ? MHD_NO : MHD_YES;
}

static bool header_has(struct MHD_Connection *mc, const char *key, const char *word)
{
    const char *v = MHD_lookup_connection_value(mc, MHD_HEADER_KIND, key);

    while (v && *v) {
        size_t n;
        v += strspn(v, ", \t");
        n = strcspn(v, ", \t");
        if (n == strlen(word) && strncasecmp(v, word, n) == 0)
            return true;
        v += n;
    }
    return false;
}

/* All that can be said before the body. */
static int check_head(struct request *rq, struct MHD_Connection *mc, const char *version,
                      struct err *e)
{
    struct call *c = &rq->call;
    struct head hd = { .rq = rq, .e = e };

    if (rq->bad.code != ERR_NONE || rq->conn->refused.code != ERR_NONE) {
        *e = rq->bad.code != ERR_NONE ? rq->bad : rq->conn->refused;
        return -1;
    }
    MHD_get_connection_values(mc, MHD_HEADER_KIND, on_header, &hd);
    if (e->code != ERR_NONE)
        return -1;
    if (hd.n_length && hd.n_encoding)
        return err_set(e, ERR_INVALID, "both Content-Length and Transfer-Encoding");
    c->upgrade = strcmp(version, "HTTP/1.1") == 0 && header_has(mc, "Connection", "upgrade") &&
                 header_has(mc, "Upgrade", STREAM_PROTOCOL);
    if (dispatch_head(c, rq->http->o.routes, rq->target, e) < 0)
        return -1;
    if (hd.bad && (hd.length > 0 || hd.n_encoding)) {
        err_set(e, ERR_INVALID, "the body must be JSON");
        return err_hint(e, "send Content-Type: application/json");
    }
    if (hd.length > c->route->body_max)
        return err_set(e, ERR_TOO_LARGE, "a body of %llu bytes, this route takes at most %zu",
                       (unsigned long long)hd.length, c->route->body_max);
    return 0;
}

static int add_body(struct request *rq, const char *data, size_t len, struct err *e)
{
    struct call *c = &rq->call;

    if (len > c->route->body_max - c->raw_len)
        return err_set(e, ERR_TOO_LARGE, "the body is longer than the %zu bytes this route takes",
                       c->route->body_max);
    if (c->raw_len + len + 1 > rq->cap) {
        size_t most = c->route->body_max + 1, cap = 2 * (c->raw_len + len + 1);
        cap = cap < most ? cap : most;
        char *raw = realloc(c->raw, cap);
        if (!raw)
            return err_nomem(e);
        c->raw = raw;
        rq->cap = cap;
    }
    memcpy(c->raw + c->raw_len, data, len);
    c->raw_len += len;
    c->raw[c->raw_len] = '\0';
    return 0;
}

/* Also counts the connection as active; none becomes active once we stop. */
static bool begin(struct request *rq)
{
    set_phase(rq->http, rq->conn, PHASE_RUNNING);
    return !is_stopping(rq->http);
}

static enum MHD_Result serve(struct request *rq, struct MHD_Connection *mc)
{
    struct call *c = &rq->call;
    rq->since_us = now_mono_us();
    if (!begin(rq)) {
        struct err e = ERR_INIT;
        err_set(&e, ERR_UNAVAILABLE, "sandboxd is stopping");
        err_hint(&e, "try again in a moment");
        return refuse(rq, mc, &e);
    }
    dispatch_run(c);
    log_debug(LOG_CTX(.request = c->caller.request, .uid = &c->caller.id.uid), "%s %s %d %lld us",
              c->method, c->route->pattern, c->reply.status,
              (long long)(now_mono_us() - rq->since_us));
    return answer(rq, mc);
}

/* From its headers to the last byte of its answer, streams included. */
static int pay(struct request *rq, struct err *e)
{
    static const struct quota_use one = { .n = { [QUOTA_REQUESTS] = 1 } };

    if (rq->call.route->flags & ROUTE_UNCOUNTED)
        return 0;
    return quota_take(rq->http->o.quota, &rq->call.caller.id, &one, &rq->charge, e);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mc, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_len, void **ctx)
{
    struct request *rq = *ctx;
    struct err e = ERR_INIT;

    if (!rq || !rq->conn)
        return MHD_NO;
    rq->call.method = method;
    if (!rq->seen_head) {
        rq->seen_head = true;
        rq->since_us = now_mono_us();
        if (check_head(rq, mc, version, &e) < 0 || pay(rq, &e) < 0) {
            audit_call_turned_away(&rq->call, rq->target ? rq->target : "", e.code);
            return refuse(rq, mc, &e);
        }
        return MHD_YES;
    }
    if (*data_len > 0) {
        if (add_body(rq, data, *data_len, &e) < 0)
            return cut_body(rq, &e);
        *data_len = 0;
        return MHD_YES;
    }
    return rq->answered ? MHD_YES : serve(rq, mc);
}

static void *on_target(void *arg, const char *target, struct MHD_Connection *mc)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct request *rq = calloc(1, sizeof(*rq));

    if (!rq)
        return NULL;
    rq->http = arg;
    rq->conn = info ? info->socket_context : NULL;
    rq->call.daemon = rq->http->o.daemon;
    rq->call.stop_fd = rq->http->stop_fd;
    rq->target = strdup(target);
    if (!rq->target)
        err_nomem(&rq->bad);
    if (rq->conn) {
        rq->call.caller = rq->conn->caller;
        rq->call.conn_fd = rq->conn->fd;
        new_request_id(&rq->call.caller, &rq->bad);
    }
    return rq;
}

static void on_done(void *arg, struct MHD_Connection *mc, void **ctx,
                    enum MHD_RequestTerminationCode how)
{
    struct request *rq = *ctx;

    if (!rq)
        return;
    if (rq->conn)
        set_phase(rq->http, rq->conn, PHASE_WAITING);
    quota_drop(&rq->charge, QUOTA_ALL);
    call_done(&rq->call);
    free(rq->target);
    free(rq);
    *ctx = NULL;
}

static __attribute__((format(printf, 2, 0))) void on_log(void *arg, const char *fmt, va_list ap)
{
    autosbuf struct sbuf b = SBUF(512);

    /* it takes each socket it is given for one of TCP, and says at each answer that it is not */
    if (strncmp(fmt, "Setting %s option", 17) == 0 || strncmp(fmt, "Failed to push", 14) == 0)
        return;
    sbuf_vfmt(&b, fmt, ap);
    while (b.len > 0 && b.data[b.len - 1] == '\n')
        b.data[--b.len] = '\0';
    log_debug(NULL, "http: %s", sbuf_str(&b));
}

/* --- life --- */

static void free_parts(struct http *h)
{
    fd_close(h->stop_fd);
    pthread_cond_destroy(&h->idle);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

int http_new(const struct http_options *o, struct http **ret, struct err *e)
{
    struct http *h = calloc(1, sizeof(*h));
    pthread_condattr_t attr;

    if (!h)
        return err_nomem(e);
    h->o = *o;
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->idle, &attr);
    pthread_condattr_destroy(&attr);
    h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->stop_fd >= 0)
        h->mhd = MHD_start_daemon(
            MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
                MHD_USE_ITC | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG,
            0, NULL, NULL, on_request, h,
            MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,   /* first, so that it is used for the rest */
            MHD_OPTION_CONNECTION_LIMIT, 2u * LIMIT_CONNECTIONS,    /* ours is met before */
            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)LIMIT_HTTP_MEMORY,
            MHD_OPTION_CONNECTION_TIMEOUT, o->idle_s,
            MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_SIZE,
            MHD_OPTION_STRICT_FOR_CLIENT, 1,
            MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
            MHD_OPTION_URI_LOG_CALLBACK, on_target, h,
            MHD_OPTION_NOTIFY_COMPLETED, on_done, h,
            MHD_OPTION_END);
    if (!h->mhd) {
        free_parts(h);
        return err_set(e, ERR_INTERNAL, "cannot start the HTTP server");
    }
    const struct gate_options go = { .listen_fd = o->listen_fd, .take = on_accepted,
                                     .refuse = turn_away, .arg = h };
    if (gate_new(&go, &h->gate, e) < 0) {
        MHD_stop_daemon(h->mhd);
        free_parts(h);
        return -1;
    }
    *ret = h;
    return 0;
}

void http_sweep(struct http *h)
{
    int64_t now = now_mono_ms();

    pthread_mutex_lock(&h->lock);
    for (struct conn *c = h->conns; c; c = c->next)
        if (c->phase == PHASE_WAITING && now - c->waiting_since > (int64_t)h->o.idle_s * 1000)
            shutdown(c->fd, SHUT_RDWR);
    pthread_mutex_unlock(&h->lock);
}

/* Waits until no connection is active or the deadline; under the lock. */
static bool wait_idle_locked(struct http *h, int64_t deadline)
{
    struct timespec ts = { .tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000 };
    int rc = 0;

    while (h->n_active > 0 && rc == 0)
        rc = pthread_cond_timedwait(&h->idle, &h->lock, &ts);
    return h->n_active == 0;
}

bool http_stop(struct http *h, int64_t ms)
{
    int64_t start = now_mono_ms();
    uint64_t one = 1;
    bool idle;

    gate_free(take_ptr(h->gate));
    pthread_mutex_lock(&h->lock);
    h->stopping = true;
    (void)!write(h->stop_fd, &one, sizeof(one));
    idle = wait_idle_locked(h, start + ms / 2);
    if (!idle) {
        /* half of the time is over: who does not take his answer loses it */
        for (struct conn *c = h->conns; c; c = c->next)
            if (c->phase == PHASE_SENDING)
                shutdown(c->fd, SHUT_RDWR);
        idle = wait_idle_locked(h, start + ms);
    }
    pthread_mutex_unlock(&h->lock);
    if (idle)
        MHD_stop_daemon(take_ptr(h->mhd));
    return idle;
}

void http_free(struct http *h)
{
    if (h)
        free_parts(h);
}

const char *http_library_version(void)
{
    return MHD_get_version();
}
