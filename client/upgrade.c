/* SPDX-License-Identifier: MIT */
#include "client/upgrade.h"
#include "client/api_client.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define UPGRADE_SSH_MS 120000       /* ssh may ask for a password */
#define UPGRADE_HEAD_MAX 16384

void upgrade_close(struct upgrade *u)
{
    fd_close(u->fd);
    u->fd = -1;
}

static int broken(struct app *app, const char *why, struct err *e)
{
    err_set(e, ERR_UNREACHABLE, "the connection to sandboxd broke: %s", why);
    host_explain(&app->host, e);
    return -1;
}

static int read_more(struct app *app, struct upgrade *u, size_t max, int64_t deadline,
                     struct err *e)
{
    int ready = io_wait(u->fd, POLLIN, deadline, e);
    ssize_t n = -1;

    if (ready <= 0)
        return ready < 0 ? -1 : err_set(e, ERR_TIMEOUT, "sandboxd at %s does not answer",
                                        app->host.url);
    if (u->n >= max)
        return broken(app, "its answer is too long", e);
    n = recv(u->fd, u->buf + u->n, max - u->n, 0);
    if (n < 0 && errno == EINTR)
        return 0;
    if (n <= 0)
        return broken(app, n ? "it was reset" : "it was closed", e);
    u->n += (size_t)n;
    return 0;
}

/* Value of a header in the head of a reply, as far as it fits. */
static void header_value(const char *head, const char *name, char *ret, size_t size)
{
    size_t len = strlen(name);

    ret[0] = '\0';
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) != 0 || line[len] != ':')
            continue;
        line += len + 1;
        line += strspn(line, " \t");
        size_t n = strcspn(line, "\r\n");
        if (n >= size)
            n = size - 1;
        memcpy(ret, line, n);
        ret[n] = '\0';
        return;
    }
}

static int refused(struct app *app, struct upgrade *u, int status, const char *head,
                   int64_t deadline, struct err *e)
{
    char value[32];
    uint32_t want = 0;

    header_value(head, "Content-Length", value, sizeof(value));
    if (!parse_u32(value, 0, sizeof(u->buf) - 1, &want))
        want = 0;
    while (u->n < want) {
        struct err ignored = ERR_INIT;
        if (read_more(app, u, sizeof(u->buf) - 1, deadline, &ignored) < 0)
            break;
    }
    u->buf[u->n] = '\0';
    return client_reply_error(app, status, (const char *)u->buf, u->n, e);
}

static int take_head(struct app *app, struct upgrade *u, int64_t deadline, struct err *e)
{
    char *end = NULL;
    uint32_t status = 0;
    char word[8] = "";

    while (!end) {
        if (read_more(app, u, UPGRADE_HEAD_MAX, deadline, e) < 0)
            return -1;
        end = memmem(u->buf, u->n, "\r\n\r\n", 4);
    }
    size_t len = (size_t)(end - (char *)u->buf);
    autofree char *head = strndup((const char *)u->buf, len);
    if (!head)
        return err_nomem(e);
    memmove(u->buf, end + 4, u->n - len - 4);
    u->n -= len + 4;
    if (strncmp(head, "HTTP/1.1 ", 9) != 0)
        return broken(app, "its answer is not HTTP", e);
    memcpy(word, head + 9, strnlen(head + 9, 3));
    if (!parse_u32(word, 100, 599, &status))
        return broken(app, "its answer is not HTTP", e);
    if (status == 101)
        return 0;
    return refused(app, u, (int)status, head, deadline, e);
}

int upgrade_open(struct app *app, const char *path, struct upgrade *u, struct err *e)
{
    autosbuf struct sbuf b = SBUF(LIMIT_HTTP_MEMORY);
    int64_t deadline = deadline_in(app->host.kind == HOST_SSH ? UPGRADE_SSH_MS : CLIENT_REPLY_MS);

    u->fd = -1;
    u->n = 0;
    sbuf_fmt(&b, "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: sbx/%s\r\n"
                 "Connection: Upgrade\r\nUpgrade: " STREAM_PROTOCOL "\r\n\r\n", path, SBX_VERSION);
    if (b.failed)
        return err_set(e, ERR_USAGE, "the name is too long");
    if (app->host.kind == HOST_SSH)
        u->fd = client_take_connection(app);
    if (app->debug)
        note("debug: GET %s, upgrade to " STREAM_PROTOCOL "%s", path,
             u->fd >= 0 ? " on the same connection" : "");
    if (u->fd < 0 && host_connect(&app->host, &u->fd, e) < 0)
        return -1;
    if (io_write_full(u->fd, sbuf_str(&b), b.len, deadline, e) < 0)
        client_turned_away(app, u->fd, e);      /* says why, if so */
    else if (take_head(app, u, deadline, e) == 0)
        return 0;
    upgrade_close(u);
    return -1;
}
