/* SPDX-License-Identifier: MIT
 *
 * Where a chain breaks. A line holds the hash of the one before it, so a line that was changed is
 * found out by its successor; which of the two it was is told by the one after that: it fits to a
 * successor that is as it was, and not to one whose `prev` was changed.
 */
#include "daemon/audit_priv.h"

#include "common/auto.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct place { unsigned file; uint64_t line, seq; };

struct check {
    struct api_audit_verdict *v;
    char hash[DIGEST_HEX];          /* of the line before */
    struct place before;            /* it */
    bool any;
    bool doubt;                     /* the line before does not fit to the one before that: */
    struct place suspect;           /* which is that */
    char suspect_hash[DIGEST_HEX];  /* v->head as it is if the suspect is the one */
};

static int broken(struct check *c, const struct place *at, const char *reason, struct err *e)
{
    char name[AUDIT_NAME_MAX];
    struct api_audit_break *b = &c->v->broken;

    b->present = true;
    b->file = strdup(audit_name(at->file, name));
    b->reason = strdup(reason);
    b->line = at->line;
    b->seq = at->seq;
    return b->file && b->reason ? 1 : err_nomem(e);
}

/* One of two was changed; `fits`: the later one is what its successor says, or nothing says what it
 * should be. */
static int settle(struct check *c, bool fits, struct err *e)
{
    const struct place *at = fits ? &c->suspect : &c->before;

    return broken(c, at, "it was changed: the next record has another hash of it", e);
}

/* 0 goes on, 1 broken, -1. */
static int check_line(struct check *c, struct place at, const char *line, size_t len,
                      struct err *e)
{
    struct api_audit_record r = { 0 };
    struct err bad = ERR_INIT;

    at.seq = c->any ? c->before.seq + 1 : 0;
    if (json_decode(api_audit_record_table, line, len, &r, &bad) < 0)
        return c->doubt ? settle(c, true, e) : broken(c, &at, "it is not a record", e);
    uint64_t seq = r.seq;
    if (!c->any && seq == 1)
        memset(c->hash, '0', DIGEST_HEX - 1);
    bool fits = strcmp(r.prev, c->hash) == 0;
    json_done(api_audit_record_table, &r, sizeof(r));
    if (c->doubt)
        return settle(c, fits, e);
    if (!c->any && seq == 1 && !fits)
        return broken(c, &at, "the first of all records names one before it", e);
    if (c->any && seq != at.seq) {
        autosbuf struct sbuf why = SBUF(128);
        sbuf_fmt(&why, "it is record %llu, and %llu belongs here", (unsigned long long)seq,
                 (unsigned long long)at.seq);
        return broken(c, &at, sbuf_str(&why), e);
    }
    if (c->any && !fits) {
        c->doubt = true;
        c->suspect = c->before;
    }
    at.seq = seq;
    c->before = at;
    digest_hex(line, len, c->hash);
    if (!c->any)
        c->v->first = seq;
    c->any = true;
    c->v->last = seq;
    c->v->count++;
    return 0;
}

static int check_file(struct check *c, unsigned file, struct audit_lines *l, struct err *e)
{
    struct place at = { .file = file };
    const char *line;
    size_t len;
    int rc;

    while ((rc = audit_lines_next(l, &line, &len, e)) > 0) {
        at.line++;
        rc = check_line(c, at, line, len, e);
        if (rc)
            return rc;
    }
    if (rc < 0 || len == 0)
        return rc;
    at.line++;
    at.seq = c->any ? c->before.seq + 1 : 0;
    return c->doubt ? settle(c, true, e) : broken(c, &at, "it is not written to its end", e);
}

/* What only a running daemon knows: how it ends. */
static int check_end(struct check *c, uint64_t seq, const char *hash, struct err *e)
{
    struct place at = { .file = 0, .line = c->before.file == 0 ? c->before.line + 1 : 1,
                        .seq = c->before.seq + 1 };

    if (c->doubt)
        return settle(c, seq == 0 || strcmp(hash, c->hash) == 0, e);
    if (seq && (!c->any || c->before.seq < seq))
        return broken(c, &at, "it is missing, and was written", e);
    if (seq && strcmp(hash, c->hash) != 0)
        return broken(c, &c->before, "it was changed: sandboxd wrote another", e);
    return 0;
}

struct snapshot {
    int *fds;               /* owned, by their numbers */
    unsigned n;
    uint64_t end;           /* of the first one */
    uint64_t seq;           /* 0: not known */
    char hash[DIGEST_HEX];
};

static void snapshot_done(struct snapshot *s)
{
    for (unsigned i = 0; i < s->n; i++)
        fd_close(s->fds[i]);
    free(s->fds);
}

/* All files there are, so that a rotation meanwhile does no harm. */
static int open_all(int dir_fd, struct snapshot *s, struct err *e)
{
    s->fds = calloc(AUDIT_FILES_MAX + 1, sizeof(*s->fds));
    if (!s->fds)
        return err_nomem(e);
    while (s->n <= AUDIT_FILES_MAX) {
        int fd = audit_open_file(dir_fd, s->n);
        if (fd < 0 && errno == ENOENT && s->n > 0)
            return 0;
        if (fd < 0)
            return err_sys(e, errno == ENOENT ? ERR_INVALID : ERR_INTERNAL, errno,
                           "cannot open audit.log%s", s->n ? " of before" : "");
        s->fds[s->n++] = fd;
    }
    return 0;
}

static int take_snapshot(struct audit *a, const char *dir, struct snapshot *s, struct err *e)
{
    s->end = UINT64_MAX;
    if (!a) {
        autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? err_sys(e, ERR_INTERNAL, errno, "cannot open %s", dir)
                      : open_all(fd, s, e);
    }
    pthread_mutex_lock(&a->lock);
    int rc = open_all(a->dir_fd, s, e);
    s->end = a->size;
    s->seq = a->seq;
    memcpy(s->hash, a->hash, sizeof(s->hash));
    pthread_mutex_unlock(&a->lock);
    return rc;
}

int audit_verify(struct audit *a, const char *dir, struct api_audit_verdict *ret, struct err *e)
{
    __attribute__((cleanup(snapshot_done))) struct snapshot s = { 0 };
    struct api_audit_verdict v = { 0 };
    struct check c = { .v = &v };
    autofree struct audit_lines *l = calloc(1, sizeof(*l));

    if (!l)
        return err_nomem(e);
    int rc = take_snapshot(a, dir, &s, e);
    for (unsigned n = s.n; rc == 0 && n-- > 0;) {
        *l = (struct audit_lines){ .fd = take_fd(&s.fds[n]), .end = n ? UINT64_MAX : s.end };
        rc = check_file(&c, n, l, e);
        audit_lines_done(l);
    }
    if (rc == 0)
        rc = check_end(&c, s.seq, s.hash, e);
    v.intact = rc == 0;
    if (rc >= 0 && c.any && !(v.head = strdup(c.hash)))
        rc = err_nomem(e);
    if (rc < 0) {
        json_done(api_audit_verdict_table, &v, sizeof(v));
        return -1;
    }
    *ret = v;
    return 0;
}
