/* SPDX-License-Identifier: MIT
 *
 * Logs of a sandbox: the last lines, those since a time, and what comes after. Files are bounded
 * (LIMIT_GUEST_LOG, LIMIT_CONSOLE_LOG) and are cut at their front while they are read: in a file
 * that is shorter than the place we have come to, new lines follow the first LIMIT_LOG_KEPT bytes.
 */
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"
#include "daemon/daemon.h"
#include "daemon/handlers.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define FOLLOW_MS 200       /* between looks at a file that has not grown */
#define ALIVE_EVERY 5       /* looks between questions whether the sandbox is still there */
#define BLOCK 4096
#define TAIL_MAX 1000000
#define STAMP_MAX 40        /* the time at the beginning of an agent.log line */

struct follower {
    const struct call *call;        /* borrowed: it outlives its reply */
    int fd;                         /* owned */
    off_t pos, end;                 /* end: where to stop when not following */
    bool follow, last_round;
    unsigned looks;
};

/* Where the last n lines begin. */
static off_t find_tail(int fd, off_t size, uint64_t n)
{
    char block[BLOCK];
    off_t pos = size;
    uint64_t lines = 0;

    while (pos > 0) {
        off_t start = pos > BLOCK ? pos - BLOCK : 0;
        ssize_t got = pread(fd, block, (size_t)(pos - start), start);
        if (got <= 0)
            return pos;
        for (ssize_t i = got - 1; i >= 0; i--)
            /* the newline at the very end ends the last line, it does not begin one */
            if (block[i] == '\n' && start + i + 1 < size && ++lines == n)
                return start + i + 1;
        pos = start;
    }
    return 0;
}

/* Time of the line at pos; false when it does not begin with one. */
static bool line_time(int fd, off_t pos, int64_t *ret_us)
{
    char stamp[STAMP_MAX + 1];
    ssize_t got = pread(fd, stamp, STAMP_MAX, pos);
    char *space;

    if (got <= 0)
        return false;
    stamp[got] = '\0';
    space = strchr(stamp, ' ');
    if (!space)
        return false;
    *space = '\0';
    return parse_time(stamp, ret_us);
}

/* The first line that is not older. Lines without a time belong to the one before. */
static off_t find_since(int fd, off_t size, int64_t since)
{
    char block[BLOCK];
    off_t pos = 0;
    bool line_start = true;

    while (pos < size) {
        ssize_t got = pread(fd, block, BLOCK, pos);
        if (got <= 0)
            break;
        for (ssize_t i = 0; i < got; i++) {
            int64_t t = 0;
            if (line_start && line_time(fd, pos + i, &t) && t >= since)
                return pos + i;
            line_start = block[i] == '\n';
        }
        pos += got;
    }
    return size;
}

bool call_sandbox_over(const struct call *c)
{
    struct api_sandbox s = { 0 };
    struct err e = ERR_INIT;
    struct vm *vm = NULL;
    bool over;

    if (vms_find(c->daemon->vms, &c->caller, vm_id(c->vm), &vm, &e) < 0)
        return true;
    over = vm_describe(vm, &s, &e) < 0 || strcmp(s.state, "stopped") == 0 ||
           strcmp(s.state, "failed") == 0;
    json_done(api_sandbox_table, &s, sizeof(s));
    vm_unref(vm);
    return over;
}

static int64_t follower_read(void *arg, char *buf, size_t cap)
{
    struct follower *f = arg;
    struct stat sb;

    for (;;) {
        if (!f->follow && f->pos >= f->end)
            return 0;
        size_t want = f->follow || (off_t)cap < f->end - f->pos ? cap : (size_t)(f->end - f->pos);
        if (fstat(f->fd, &sb) == 0 && sb.st_size < f->pos)
            f->pos = sb.st_size < (off_t)LIMIT_LOG_KEPT ? sb.st_size : (off_t)LIMIT_LOG_KEPT;
        ssize_t n = pread(f->fd, buf, want, f->pos);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        f->pos += n;
        if (n > 0 || !f->follow)
            return n;
        /* what was written before it was over is read once more before we end */
        if (f->last_round)
            return 0;
        if (f->looks++ % ALIVE_EVERY == 0 && call_sandbox_over(f->call))
            f->last_round = true;
        else if (call_wait_gone(f->call, -1, FOLLOW_MS, NULL))
            return -1;          /* cut off, so that nobody takes it for the log's end */
    }
}

static void follower_free(void *arg)
{
    struct follower *f = arg;

    fd_close(f->fd);
    free(f);
}

static int parse_since(const struct call *c, const char *source, int64_t *ret, struct err *e)
{
    const char *v = call_query(c, "since");
    uint64_t ago_ms;

    if (!v)
        return 0;
    if (strcmp(source, "console") == 0) {
        err_set(e, ERR_INVALID, "lines of the console bear no time, so there is no 'since'");
        return err_hint(e, "use tail, or source=agent");
    }
    if (parse_duration(v, &ago_ms))
        *ret = now_real_us() - (ago_ms > INT64_MAX / 1000 ? INT64_MAX / 2 : (int64_t)ago_ms * 1000);
    else if (!parse_time(v, ret))
        return err_set(e, ERR_FIELD_INVALID,
                       "query parameter 'since' is a time or a duration like 10m, not '%s'", v);
    return 0;
}

int h_logs(struct call *c, struct err *e)
{
    const char *source = call_query(c, "source") ? call_query(c, "source") : "agent";
    uint64_t tail = UINT64_MAX;
    int64_t since = INT64_MIN;
    bool follow = false;
    autoclose int fd = -1;
    struct stat sb;

    if (strcmp(source, "agent") != 0 && strcmp(source, "console") != 0)
        return err_set(e, ERR_FIELD_INVALID,
                       "query parameter 'source' is agent or console, not '%s'", source);
    if (call_query_u64(c, "tail", TAIL_MAX, &tail, e) < 0 ||
        call_query_bool(c, "follow", &follow, e) < 0 || parse_since(c, source, &since, e) < 0 ||
        vm_log_open(c->vm, source, &fd, e) < 0)
        return -1;
    if (fstat(fd, &sb) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read a log");
    off_t from = since == INT64_MIN ? 0 : find_since(fd, sb.st_size, since);
    off_t last = tail == UINT64_MAX ? 0 : tail == 0 ? sb.st_size : find_tail(fd, sb.st_size, tail);
    struct follower *f = calloc(1, sizeof(*f));
    if (!f)
        return err_nomem(e);
    *f = (struct follower){ .call = c, .fd = take_fd(&fd), .pos = from > last ? from : last,
                            .end = sb.st_size, .follow = follow };
    c->reply.status = 200;
    c->reply.content_type = "text/plain; charset=utf-8";
    c->reply.stream = (struct reply_stream){ .read = follower_read, .free = follower_free,
                                             .arg = f };
    return 0;
}
