/* SPDX-License-Identifier: MIT
 *
 * libcurl is told of a Unix socket, which keeps it from looking up names and from using a proxy;
 * the address it really connects to comes from host_dial_prepare(), so that a socket, an ssh and
 * their failures look the same.
 */
#include "client/api_client.h"
#include "client/progress.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/name.h"
#include "common/parse.h"
#include <assert.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define URL_BASE "http://localhost"
#define SLOW_POLL_MS 100
#define GIVE_UP_POLL_MS 1000
#define EARLY_MAX 4096      /* bytes of an answer to no question */
#define EARLY_MS 200

struct client {
    CURLM *multi;
    CURL *easy;
    struct curl_slist *json_headers;
    /* of the request that runs */
    struct app *app;
    struct host_dial dial;
    int fd;                     /* libcurl's last connection, -1 closed */
    struct err connect_error;
    struct sbuf body;
    const struct call *call;
    bool sink_failed;
    char request_id[40];
};

static volatile sig_atomic_t caught_signal;

void client_free(struct client *c)
{
    if (!c)
        return;
    if (c->easy)
        curl_easy_cleanup(c->easy);
    if (c->multi)
        curl_multi_cleanup(c->multi);
    curl_slist_free_all(c->json_headers);
    sbuf_done(&c->body);
    host_dial_done(&c->dial);
    free(c);
}

static bool url_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

void url_add(struct sbuf *b, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";

    /* "." and ".." as a whole word of a path would be taken away as dot segments. */
    if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0) {
        for (; *text; text++)
            sbuf_lit(b, "%2E");
        return;
    }
    for (; *text; text++) {
        unsigned char u = (unsigned char)*text;
        if (url_plain(*text)) {
            sbuf_chr(b, *text);
        } else {
            sbuf_chr(b, '%');
            sbuf_chr(b, digits[u >> 4]);
            sbuf_chr(b, digits[u & 15]);
        }
    }
}

void url_sandbox(struct sbuf *b, const char *ref, const char *rest)
{
    sbuf_lit(b, "/" API_VERSION "/sandboxes/");
    url_add(b, ref);
    if (rest)
        sbuf_lit(b, rest);
}

void url_query(struct sbuf *b, const char *key, const char *value)
{
    sbuf_chr(b, strchr(sbuf_str(b), '?') ? '&' : '?');
    sbuf_lit(b, key);
    sbuf_chr(b, '=');
    url_add(b, value);
}

/* ---- callbacks ----------------------------------------------------------------------------- */

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct client *c = arg;

    (void)purpose;
    /* libcurl keeps a sockaddr_storage here, and lets the callback change what is in it. */
    static_assert(sizeof(c->dial.address) <= sizeof(struct sockaddr_storage), "address fits");
    host_dial_done(&c->dial);
    if (host_dial_prepare(&c->app->host, &c->dial, &c->connect_error) < 0)
        return CURL_SOCKET_BAD;
    address->family = AF_UNIX;
    address->addrlen = c->dial.len;
    memcpy(&address->addr, &c->dial.address, c->dial.len);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return c->fd;
}

static int close_socket(void *arg, curl_socket_t fd)
{
    struct client *c = arg;

    if (c->fd == fd)
        c->fd = -1;
    fd_close(fd);
    return 0;
}

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
    struct client *c = arg;
    long status = 0;

    n *= size;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (c->call->sink && status >= 200 && status < 300) {
        if (c->call->sink(c->call->sink_arg, data, n) == 0)
            return n;
        c->sink_failed = true;
        return 0;
    }
    sbuf_add(&c->body, data, n);
    return c->body.failed ? 0 : n;
}

static size_t take_header(char *data, size_t size, size_t n, void *arg)
{
    static const char name[] = "sbx-request-id:";
    struct client *c = arg;
    size_t len = size * n;
    size_t at = sizeof(name) - 1;
    size_t out = 0;

    if (len <= at || strncasecmp(data, name, at) != 0)
        return len;
    while (at < len && data[at] == ' ')
        at++;
    for (; at < len && url_plain(data[at]) && out + 1 < sizeof(c->request_id); at++)
        c->request_id[out++] = data[at];
    c->request_id[out] = '\0';
    return len;
}

static void on_signal(int signo)
{
    caught_signal = signo;
}

/* ---- requests ------------------------------------------------------------------------------ */

static int app_client(struct app *app, struct client **ret, struct err *e)
{
    struct client *c = app->client;

    if (c) {
        *ret = c;
        return 0;
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return err_set(e, ERR_INTERNAL, "libcurl does not start");
    c = app->client = calloc(1, sizeof(*c));
    if (!c)
        return err_nomem(e);
    c->app = app;
    c->dial.hold = c->fd = -1;
    c->multi = curl_multi_init();
    c->easy = curl_easy_init();
    c->json_headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (!c->multi || !c->easy || !c->json_headers)
        return err_nomem(e);
    *ret = c;
    return 0;
}

int client_reply_error(struct app *app, int status, const char *body, size_t len, struct err *e)
{
    struct api_error reply = { 0 };
    struct err ignored = ERR_INIT;
    const struct client *c = app->client;

    if (json_decode_lenient(api_error_table, body, len, &reply, &ignored) < 0 ||
        !reply.error.code || !reply.error.message) {
        json_done(api_error_table, &reply, sizeof(reply));
        err_set(e, ERR_INTERNAL, "sandboxd answered with status %d and no error", status);
        return err_hint(e, "is it sandboxd that listens at %s?", app->host.url);
    }
    err_set(e, err_from_wire(reply.error.code), "%s", reply.error.message);
    if (reply.error.hint && reply.error.hint[0])
        err_hint(e, "%s", reply.error.hint);
    else if (status >= 500 && e->code == ERR_INTERNAL)
        err_hint(e, "sandboxd's log says more under request %s",
                 reply.error.request_id ? reply.error.request_id : c ? c->request_id : "?");
    json_done(api_error_table, &reply, sizeof(reply));
    return -1;
}

static void set_up(struct client *c, const struct call *call, const char *url,
                   struct curl_slist *headers)
{
    CURL *h = c->easy;

    curl_easy_reset(h);
    curl_easy_setopt(h, CURLOPT_URL, url);
    curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, "/sandboxd");     /* never opened: see above */
    curl_easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(h, CURLOPT_OPENSOCKETDATA, c);
    curl_easy_setopt(h, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(h, CURLOPT_CLOSESOCKETDATA, c);
    curl_easy_setopt(h, CURLOPT_PROXY, "");
    curl_easy_setopt(h, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(h, CURLOPT_USERAGENT, "sbx/" SBX_VERSION);
    curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, call->method);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, c);
    if (!(call->flags & CALL_SLOW))
        curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)CLIENT_REPLY_MS);
    if (call->body || strcmp(call->method, "POST") == 0) {
        const char *body = call->body ? call->body : "";
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
    }
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
}

/* Runs the transfer; the libcurl code of its end, or -1 when a signal gave it up. */
static int run_transfer(struct client *c, const struct call *call)
{
    struct sigaction old_int, old_term;
    struct sigaction act = { .sa_handler = on_signal };
    struct progress progress;
    int result = -1;

    caught_signal = 0;
    if (call->flags & CALL_SLOW) {
        sigaction(SIGINT, &act, &old_int);
        sigaction(SIGTERM, &act, &old_term);
    }
    progress_start(&progress, call->progress);
    curl_multi_add_handle(c->multi, c->easy);
    while (result < 0 && !caught_signal) {
        int running = 0, left = 0;
        CURLMcode code = curl_multi_perform(c->multi, &running);
        CURLMsg *m = code == CURLM_OK ? curl_multi_info_read(c->multi, &left) : NULL;
        if (code != CURLM_OK)
            result = CURLE_FAILED_INIT;
        else if (m && m->msg == CURLMSG_DONE)
            result = (int)m->data.result;
        if (result >= 0)
            break;
        progress_tick(&progress);
        struct curl_waitfd extra = { .fd = c->dial.hold, .events = CURL_WAIT_POLLIN };
        curl_multi_poll(c->multi, &extra, c->dial.pending ? 1 : 0,
                        call->flags & CALL_SLOW ? SLOW_POLL_MS : GIVE_UP_POLL_MS, NULL);
        if (c->dial.pending && host_dial_accept(&c->app->host, &c->dial, &c->connect_error) < 0)
            result = CURLE_COULDNT_CONNECT;
    }
    curl_multi_remove_handle(c->multi, c->easy);
    progress_end(&progress);
    if (call->flags & CALL_SLOW) {
        sigaction(SIGINT, &old_int, NULL);
        sigaction(SIGTERM, &old_term, NULL);
    }
    return result;
}

bool client_turned_away(struct app *app, int fd, struct err *e)
{
    char text[EARLY_MAX + 1];
    int64_t deadline = deadline_in(EARLY_MS);
    struct err ignored = ERR_INIT;
    size_t len = 0;

    while (len < EARLY_MAX && io_wait(fd, POLLIN, deadline, &ignored) == 1) {
        ssize_t n = read(fd, text + len, EARLY_MAX - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    const char *body = strstr(text, "\r\n\r\n");
    char status[4] = "";
    uint32_t number;
    if (len < 12 || strncmp(text, "HTTP/1.1 ", 9) != 0 || !body)
        return false;
    memcpy(status, text + 9, 3);
    if (!parse_u32(status, 400, 599, &number))
        return false;
    client_reply_error(app, (int)number, body + 4, strlen(body + 4), e);
    return true;
}

static int transfer_error(struct client *c, int result, struct err *e)
{
    if (result < 0) {
        c->app->interrupted = caught_signal;
        return err_set(e, ERR_UNAVAILABLE, "given up");
    }
    if (c->connect_error.code != ERR_NONE) {
        *e = c->connect_error;
        return -1;
    }
    if (c->body.failed == E2BIG)
        return err_set(e, ERR_TOO_LARGE, "the answer of sandboxd is too large");
    if (c->body.failed)
        return err_nomem(e);
    if (c->sink_failed)
        return err_set(e, ERR_UNAVAILABLE, "cannot write the output");
    switch (result) {
    case CURLE_COULDNT_CONNECT: {   /* without words for why: ask again */
        autoclose int fd = -1;
        if (c->app->host.kind == HOST_UNIX && (host_connect(&c->app->host, &fd, e) < 0 ||
                                               client_turned_away(c->app, fd, e)))
            return -1;
        return err_set(e, ERR_UNREACHABLE, "cannot reach sandboxd at %s", c->app->host.url);
    }
    case CURLE_OPERATION_TIMEDOUT:
        err_set(e, ERR_TIMEOUT, "sandboxd at %s does not answer", c->app->host.url);
        return err_hint(e, "see 'journalctl -u sandboxd'");
    case CURLE_OUT_OF_MEMORY:
        return err_nomem(e);
    case CURLE_PARTIAL_FILE:
        err_set(e, ERR_UNREACHABLE, "the connection to sandboxd broke in the middle of an answer");
        host_explain(&c->app->host, e);
        return e->hint[0] ? -1 : err_hint(e, "'sbx version' says whether sandboxd is back");
    case CURLE_GOT_NOTHING:
        err_set(e, ERR_UNREACHABLE, "the connection to sandboxd broke: it closed it unanswered");
        err_hint(e, "has it just ended? 'journalctl -u sandboxd', or the log it was given, tells");
        host_explain(&c->app->host, e);
        return -1;
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR: {        /* libcurl reads nothing where it could not write */
        autoclose int fd = -1;
        struct err ignored = ERR_INIT;
        if (c->app->host.kind == HOST_UNIX && host_connect(&c->app->host, &fd, &ignored) == 0 &&
            client_turned_away(c->app, fd, e))
            return -1;
    }
        __attribute__((fallthrough));
    default:
        err_set(e, ERR_UNREACHABLE, "the connection to sandboxd broke: %s",
                curl_easy_strerror((CURLcode)result));
        host_explain(&c->app->host, e);
        return -1;
    }
}

static int make_headers(const struct client *c, const struct call *call, struct curl_slist **ret,
                        struct err *e)
{
    char key[LIMIT_ID + 1];
    char line[64];
    struct curl_slist *list = NULL;

    if (!call->body)
        return 0;
    list = curl_slist_append(NULL, c->json_headers->data);
    if (list && (call->flags & CALL_IDEMPOTENT)) {
        if (id_new(key, e) < 0) {
            curl_slist_free_all(list);
            return -1;
        }
        snprintf(line, sizeof(line), "Idempotency-Key: %s", key);
        if (!curl_slist_append(list, line)) {
            curl_slist_free_all(list);
            list = NULL;
        }
    }
    *ret = list;
    return list ? 0 : err_nomem(e);
}

int client_call(struct app *app, const struct call *call, struct sbuf *ret, struct err *e)
{
    struct client *c = NULL;
    struct curl_slist *headers = NULL;
    autosbuf struct sbuf url = SBUF(LIMIT_HTTP_MEMORY);
    int64_t start = now_mono_ms();
    long status = 0;

    if (app_client(app, &c, e) < 0 || make_headers(c, call, &headers, e) < 0)
        return -1;
    sbuf_lit(&url, URL_BASE);
    sbuf_lit(&url, call->path);
    if (url.failed) {
        curl_slist_free_all(headers);
        return err_set(e, ERR_USAGE, "the name is too long");
    }
    sbuf_done(&c->body);
    c->body = SBUF(LIMIT_REPLY);
    c->call = call;
    c->sink_failed = false;
    c->connect_error = ERR_INIT;
    c->request_id[0] = '\0';
    set_up(c, call, sbuf_str(&url), headers);
    int result = run_transfer(c, call);
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (app->debug)
        note("debug: %s %s -> %ld in %lld ms, request %s", call->method, call->path, status,
             (long long)(now_mono_ms() - start), c->request_id[0] ? c->request_id : "-");
    if (result != CURLE_OK)
        return transfer_error(c, result, e);
    if (status < 200 || status > 299)
        return client_reply_error(app, (int)status, sbuf_str(&c->body), c->body.len, e);
    if (ret) {
        *ret = c->body;
        c->body = SBUF(0);
    }
    return 0;
}

int client_take_connection(struct app *app)
{
    struct client *c = app->client;
    int fd = -1;

    if (!c || c->fd < 0)
        return -1;
    /* libcurl goes on holding its descriptor, and does nothing with it but close it. */
    fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
    c->fd = -1;
    return fd;
}

int client_decode(const struct jfield *table, const char *text, size_t len, void *out,
                  struct err *e)
{
    if (json_decode_lenient(table, text, len, out, e) == 0)
        return 0;
    err_wrap(e, "sandboxd's answer cannot be read");
    e->code = ERR_INTERNAL;
    return err_hint(e, "sbx and sandboxd may be of different versions: see 'sbx version'");
}

int client_fetch(struct app *app, const struct call *call, const struct jfield *table, void *out,
                 struct err *e)
{
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);

    if (client_call(app, call, &body, e) < 0)
        return -1;
    return client_decode(table, sbuf_str(&body), body.len, out, e);
}

int client_get(struct app *app, const char *path, const struct jfield *table, void *out,
               struct err *e)
{
    return client_fetch(app, &(struct call){ .method = "GET", .path = path }, table, out, e);
}
