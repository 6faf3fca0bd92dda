/* SPDX-License-Identifier: MIT */
#include "client/policies.h"
#include "client/jsontext.h"
#include "client/out.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/name.h"
#include "common/policy.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

bool policy_is_file(const char *word)
{
    return strchr(word, '/') || strcmp(word, "-") == 0;
}

/* Until its end, whatever it is: pipes too. */
static int read_all(int fd, const char *path, struct sbuf *b, struct err *e)
{
    char part[16 * 1024];

    for (;;) {
        ssize_t n = read(fd, part, sizeof(part));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, ERR_USAGE, errno, "cannot read %s", path);
        if (n == 0)
            return b->failed == ENOMEM ? err_nomem(e) : 0;
        sbuf_add(b, part, (size_t)n);
        if (b->failed == E2BIG) {
            err_set(e, ERR_USAGE, "%s holds more than %d KiB", path, POLICY_TEXT_MAX / 1024);
            return err_hint(e, "a policy may not be longer; is it one?");
        }
    }
}

/* What cannot be sent as a string of JSON. */
static int check_text(const char *path, const struct sbuf *b, struct err *e)
{
    const char *s = sbuf_str(b);
    size_t left = b->len;
    unsigned line = 1;

    while (left) {
        const char *end = memchr(s, '\n', left);
        size_t n = end ? (size_t)(end - s) : left;
        if (memchr(s, '\0', n))
            return err_set(e, ERR_USAGE, "%s, line %u: holds a NUL byte", path, line);
        if (!utf8_valid(s, n))
            return err_set(e, ERR_USAGE, "%s, line %u: is not UTF-8 text", path, line);
        line++;
        s += n + (end != NULL);
        left -= n + (end != NULL);
    }
    return 0;
}

int policy_file_read(const char *path, char **ret, struct err *e)
{
    bool in = strcmp(path, "-") == 0;
    autoclose int opened = in ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    autosbuf struct sbuf b = SBUF(POLICY_TEXT_MAX);

    if (!in && opened < 0)
        return err_sys(e, ERR_USAGE, errno, "cannot read %s", path);
    if (in)
        path = "stdin";
    if (read_all(in ? STDIN_FILENO : opened, path, &b, e) < 0 || check_text(path, &b, e) < 0)
        return -1;
    sbuf_lit(&b, "");
    *ret = strdup(sbuf_str(&b));
    return *ret ? 0 : err_nomem(e);
}

int policy_explain(const char *word, struct err *e)
{
    struct stat st;

    if (e->code == ERR_POLICY_NOT_FOUND && !strchr(word, '/') && stat(word, &st) == 0 &&
        S_ISREG(st.st_mode))
        err_hint(e, "a file is named with a '/' in it: ./%s", word);
    return -1;
}

int policy_fetch(struct app *app, const struct call *call, const struct jfield *table, void *out,
                 struct sbuf *body, struct err *e)
{
    if (client_call(app, call, body, e) < 0)
        return -1;
    return client_decode(table, sbuf_str(body), body->len, out, e);
}

int policy_print_json(const struct sbuf *body, struct err *e)
{
    autosbuf struct sbuf b = SBUF(2 * LIMIT_REPLY);

    json_compact(&b, sbuf_str(body), body->len);
    return b.failed ? err_nomem(e) : out_line(sbuf_str(&b), e);
}

int policy_send(struct app *app, const char *method, const char *path, const struct jfield *table,
                const void *req, struct err *e)
{
    autosbuf struct sbuf body = SBUF(LIMIT_BODY);
    struct call call = { .method = method, .path = path };

    if (json_encode(table, req, &body, e) < 0)
        return -1;
    call.body = sbuf_str(&body);
    return client_call(app, &call, NULL, e);
}

void url_policy(struct sbuf *b, const char *name)
{
    sbuf_lit(b, "/" API_VERSION "/policies/");
    url_add(b, name);
}

const char *local_time(int64_t us, char *buf)
{
    time_t seconds = (time_t)(us / 1000000);
    struct tm tm;

    if (!us || !localtime_r(&seconds, &tm) || !strftime(buf, 40, "%Y-%m-%d %H:%M:%S", &tm))
        return "-";
    return buf;
}
