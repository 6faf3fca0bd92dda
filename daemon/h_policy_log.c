/* SPDX-License-Identifier: MIT
 *
 * The log of a sandbox's network: JSON lines, the last ones or all, of refusals only if asked for,
 * and what comes after. The file is bounded and cut at its front (logfile.h), so its first line may
 * be the rest of one: what does not begin and end as an object is left out.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/daemon.h"
#include "daemon/egress.h"
#include "daemon/handlers.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define FOLLOW_MS 100
#define ALIVE_EVERY 10
#define PIECE 4096              /* longer than any line */
#define TAIL_MAX 1000000

struct reader {
    const struct call *call;    /* borrowed: it outlives its reply */
    int fd;                     /* owned */
    off_t pos;
    uint64_t skip;              /* lines to leave out: tail */
    bool denied, follow, last_round;
    unsigned looks;
    char in[PIECE];             /* a line's beginning, from the last piece */
    size_t have;
};

static bool is_wanted(const struct reader *r, const char *line, size_t len)
{
    static const char deny[] = "\"verdict\":\"deny\"";     /* in a string, quotes are escaped */

    return len > 2 && line[0] == '{' && line[len - 1] == '}' &&
           (!r->denied || memmem(line, len, deny, sizeof(deny) - 1));
}

/* Moves whole lines out of `in`; out may be NULL to count them only. */
static size_t take_lines(struct reader *r, char *out, uint64_t *count)
{
    size_t done = 0, made = 0;
    char *end;

    while ((end = memchr(r->in + done, '\n', r->have - done))) {
        size_t len = (size_t)(end - (r->in + done));
        if (is_wanted(r, r->in + done, len)) {
            bool skip = r->skip > 0;
            r->skip -= skip;
            if (out && !skip) {
                memcpy(out + made, r->in + done, len + 1);
                made += len + 1;
            }
            (*count)++;
        }
        done += len + 1;
    }
    if (done == 0 && r->have == sizeof(r->in))
        done = r->have;                         /* no line of ours */
    r->have -= done;
    memmove(r->in, r->in + done, r->have);
    return made;
}

/* Bytes read, 0 at the end, -1. */
static ssize_t fill(struct reader *r, size_t most)
{
    size_t room = sizeof(r->in) - r->have;
    struct stat sb;

    if (fstat(r->fd, &sb) == 0 && sb.st_size < r->pos) {
        r->pos = sb.st_size < (off_t)LIMIT_LOG_KEPT ? sb.st_size : (off_t)LIMIT_LOG_KEPT;
        r->have = 0;
    }
    ssize_t n;
    do
        n = pread(r->fd, r->in + r->have, room < most ? room : most, r->pos);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        r->pos += n;
        r->have += (size_t)n;
    }
    return n;
}

static int64_t reader_read(void *arg, char *buf, size_t cap)
{
    struct reader *r = arg;
    uint64_t count = 0;

    for (;;) {
        /* what is taken out of `in` must fit: a carried beginning is shorter than PIECE */
        ssize_t n = cap < 2 * PIECE ? fill(r, cap > r->have ? cap - r->have : 1) : fill(r, PIECE);
        if (n < 0)
            return -1;
        size_t made = take_lines(r, buf, &count);
        if (made > 0)
            return (int64_t)made;
        if (n > 0)
            continue;
        if (!r->follow || r->last_round)
            return 0;
        if (r->looks++ % ALIVE_EVERY == 0 && call_sandbox_over(r->call))
            r->last_round = true;
        else if (call_wait_gone(r->call, -1, FOLLOW_MS, NULL))
            return -1;
    }
}

static void reader_free(void *arg)
{
    struct reader *r = arg;

    fd_close(r->fd);
    free(r);
}

int h_policy_log(struct call *c, struct err *e)
{
    uint64_t tail = UINT64_MAX, count = 0;
    bool denied = false, follow = false;
    autoclose int fd = -1;

    if (call_query_u64(c, "tail", TAIL_MAX, &tail, e) < 0 ||
        call_query_bool(c, "denied", &denied, e) < 0 ||
        call_query_bool(c, "follow", &follow, e) < 0 ||
        egress_log_open(c->daemon->egress, vm_id(c->vm), &fd, e) < 0)
        return -1;
    struct reader *r = calloc(1, sizeof(*r));
    if (!r)
        return err_nomem(e);
    r->call = c;
    r->fd = take_fd(&fd);
    r->denied = denied;
    if (tail != UINT64_MAX) {
        while (fill(r, PIECE) > 0)
            take_lines(r, NULL, &count);
        r->pos = 0;
        r->have = 0;
        r->skip = count > tail ? count - tail : 0;
    }
    r->follow = follow;
    c->reply.status = 200;
    c->reply.content_type = "application/x-ndjson";
    c->reply.stream = (struct reply_stream){ .read = reader_read, .free = reader_free, .arg = r };
    return 0;
}
