/* SPDX-License-Identifier: MIT */
#include "daemon/audit_priv.h"

#include "common/auto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- lines --- */

void audit_lines_done(struct audit_lines *l)
{
    fd_close(take_fd(&l->fd));
}

int audit_lines_next(struct audit_lines *l, const char **ret, size_t *ret_len, struct err *e)
{
    for (;;) {
        const char *line = l->buf + l->at;
        const char *nl = memchr(line, '\n', l->have - l->at);
        if (nl) {
            *ret = line;
            *ret_len = (size_t)(nl + 1 - line);
            l->at += *ret_len;
            return 1;
        }
        memmove(l->buf, line, l->have - l->at);
        l->have -= l->at;
        l->at = 0;
        *ret = l->buf;
        *ret_len = l->have;
        size_t want = sizeof(l->buf) - l->have;
        if (want > l->end - l->pos)
            want = (size_t)(l->end - l->pos);
        if (l->have >= AUDIT_LINE_MAX || want == 0)
            return 0;
        ssize_t n = pread(l->fd, l->buf + l->have, want, (off_t)l->pos);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, ERR_INTERNAL, errno, "cannot read the audit log");
        if (n == 0)
            return 0;
        l->pos += (uint64_t)n;
        l->have += (size_t)n;
    }
}

/* --- the reader --- */

struct audit_reader {
    struct audit *audit;        /* borrowed */
    uint64_t next;              /* seq that is wanted */
    uint64_t first;             /* of the file that is open */
    struct audit_lines lines;
};

/* The file that has `next`; where that is gone, the oldest one. */
static int open_next(struct audit_reader *r, struct err *e)
{
    struct audit *a = r->audit;
    unsigned n = 0;

    pthread_mutex_lock(&a->lock);
    while (n < a->files && a->first[n + 1] && (a->first[n] > r->next || a->first[n] == 0))
        n++;
    r->lines = (struct audit_lines){ .fd = audit_open_file(a->dir_fd, n), .end = UINT64_MAX };
    int why = errno;
    r->first = a->first[n];
    pthread_mutex_unlock(&a->lock);
    return r->lines.fd < 0 ? err_sys(e, ERR_INTERNAL, why, "cannot open the audit log") : 0;
}

int audit_reader_new(struct audit *a, uint64_t seq, struct audit_reader **ret, struct err *e)
{
    struct audit_reader *r = calloc(1, sizeof(*r));

    if (!r)
        return err_nomem(e);
    r->audit = a;
    r->next = seq;
    r->lines.fd = -1;
    *ret = r;
    return 0;
}

void audit_reader_free(struct audit_reader *r)
{
    if (r)
        audit_lines_done(&r->lines);
    free(r);
}

static bool is_current(struct audit_reader *r)
{
    pthread_mutex_lock(&r->audit->lock);
    bool current = r->audit->first[0] == r->first;
    pthread_mutex_unlock(&r->audit->lock);
    return current;
}

/* Its number alone; what else is in it is the reader's business. */
static uint64_t seq_of(const char *line, size_t len)
{
    static const struct jfield seq_table[] = {
        JF(struct api_audit_record, seq, JT_U64, .flags = JF_REQUIRED),
        JF_END,
    };
    struct api_audit_record r = { 0 };
    struct err e = ERR_INIT;

    return json_decode_lenient(seq_table, line, len, &r, &e) < 0 ? 0 : r.seq;
}

int audit_reader_next(struct audit_reader *r, const char **ret, size_t *ret_len, struct err *e)
{
    for (;;) {
        if (r->lines.fd < 0 && open_next(r, e) < 0)
            return -1;
        /* asked before the end is met: what was written before the rotation is read then */
        bool current = is_current(r);
        int rc = audit_lines_next(&r->lines, ret, ret_len, e);
        if (rc < 0 || (rc == 0 && current))
            return rc;
        if (rc == 0) {
            audit_lines_done(&r->lines);
            continue;
        }
        uint64_t seq = seq_of(*ret, *ret_len);
        if (seq < r->next)      /* 0: damaged, which is for audit_verify() to tell */
            continue;
        r->next = seq + 1;
        return 1;
    }
}
