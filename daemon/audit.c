/* SPDX-License-Identifier: MIT
 *
 * How the file stays whole. A line is written by one write(2) behind the last one; when that comes
 * short, the file is cut back to what it was. A kill in the middle leaves a piece of a line: the
 * next start finds the last line that is a record, moves what is behind it to audit.log.torn, and
 * goes on from there with a record that says so.
 *
 * Rotation makes the new file under another name, with its first record in it, and renames then. A
 * kill in the middle of that leaves no audit.log: the next start makes one that goes on from
 * audit.log.1.
 */
#include "daemon/audit_priv.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "daemon/fault.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK (256 * KIB)       /* set aside at once, so that it is rarely asked for */
#define TAIL_MAX (1 * MIB)      /* looked at for the last record */
#define NEW "audit.log.new"
#define TORN "audit.log.torn"

static const char *const modes[] = {
    [AUDIT_REQUIRED] = "required",
    [AUDIT_BEST_EFFORT] = "best-effort",
    [AUDIT_OFF] = "off",
};
static_assert(ARRAY_SIZE(modes) == AUDIT_MODE_MAX, "a word for each mode");

int audit_mode_parse(const char *word)
{
    for (int i = 0; i < AUDIT_MODE_MAX; i++)
        if (strcmp(word, modes[i]) == 0)
            return i;
    return -1;
}

enum audit_mode audit_mode(const struct audit *a)
{
    return a ? a->mode : AUDIT_OFF;
}

const char *audit_name(unsigned n, char *buf)
{
    snprintf(buf, AUDIT_NAME_MAX, n ? "audit.log.%u" : "audit.log", n);
    return buf;
}

int audit_open_file(int dir_fd, unsigned n)
{
    char name[AUDIT_NAME_MAX];

    return openat(dir_fd, audit_name(n, name), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* --- writing; under the lock --- */

static int cut_back(struct audit *a)
{
    a->ragged = ftruncate(a->fd, (off_t)a->size) < 0;
    a->room = a->room == UINT64_MAX ? a->room : a->size;    /* what was set aside went with it */
    return a->ragged ? -1 : 0;
}

static int write_line(struct audit *a, const char *text, size_t len, struct err *e)
{
    size_t done = 0;

    if (a->ragged && cut_back(a) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "the audit log cannot be cut");
    while (done < len) {
        ssize_t n = write(a->fd, text + done, fault_part(FAULT_AUDIT_TORN, len - done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int why = n < 0 ? errno : ENOSPC;
            if (done)
                cut_back(a);
            return err_sys(e, ERR_UNAVAILABLE, why, "the audit log cannot be written");
        }
        done += (size_t)n;
        if (fault_at(FAULT_AUDIT_TORN, e) < 0) {
            cut_back(a);
            return -1;
        }
    }
    a->size += len;
    a->dirty = true;
    return 0;
}

int audit_line(const struct api_audit_record *r, struct sbuf *line, struct err *e)
{
    if (json_encode(api_audit_record_table, r, line, e) < 0)
        return -1;
    sbuf_chr(line, '\n');
    return line->failed ? err_set(e, ERR_INTERNAL, "a record of the audit log is too long") : 0;
}

/* The next record of the chain. */
static int append(struct audit *a, struct api_audit_record *r, struct err *e)
{
    autosbuf struct sbuf line = SBUF(AUDIT_LINE_MAX);
    char prev[DIGEST_HEX];

    memcpy(prev, a->hash, sizeof(prev));
    r->seq = a->seq + 1;
    r->time = now_real_us();
    r->prev = prev;
    int rc = audit_line(r, &line, e);
    r->prev = NULL;
    if (rc < 0)
        return -1;
    if (fault_at(FAULT_AUDIT_WRITE, e) < 0 || write_line(a, sbuf_str(&line), line.len, e) < 0)
        return -1;
    fault_here(FAULT_AUDIT_SYNC);
    digest_hex(sbuf_str(&line), line.len, a->hash);
    a->seq = r->seq;
    if (a->first[0] == 0)
        a->first[0] = r->seq;
    return 0;
}

static int append_kind(struct audit *a, const char *kind, struct err *e)
{
    struct api_audit_record r = { .kind = (char *)kind };

    return append(a, &r, e);
}

/* Sets blocks aside up to `end`; 1: cannot be done here. */
static int make_room(struct audit *a, uint64_t end, struct err *e)
{
    if (a->room == UINT64_MAX)
        return 1;
    if (end <= a->room)
        return 0;
    for (uint64_t more = CHUNK;; more = 0) {
        if (fallocate(a->fd, FALLOC_FL_KEEP_SIZE, (off_t)a->size,
                      (off_t)(end + more - a->size)) == 0) {
            a->room = end + more;
            return 0;
        }
        if (errno == EOPNOTSUPP || errno == ENOSYS) {
            a->room = UINT64_MAX;
            return 1;
        }
        if (more == 0)
            return err_sys(e, ERR_UNAVAILABLE, errno, "there is no room for the audit log");
    }
}

static uint64_t room_for(const struct audit *a, unsigned records)
{
    return a->size + (uint64_t)records * AUDIT_LINE_MAX;
}

/* --- rotation; under the lock --- */

static int rename_all(struct audit *a, struct err *e)
{
    char from[AUDIT_NAME_MAX], to[AUDIT_NAME_MAX];

    for (unsigned n = a->files; unlinkat(a->dir_fd, audit_name(n, to), 0) == 0; n++)
        ;       /* also more of them, of a time when more were kept */
    for (unsigned n = a->files - 1;; n--) {
        if (renameat(a->dir_fd, audit_name(n, from), a->dir_fd, audit_name(n + 1, to)) < 0 &&
            errno != ENOENT)
            return err_sys(e, ERR_UNAVAILABLE, errno, "cannot rename %s", from);
        if (n == 0)
            break;
    }
    if (fault_at(FAULT_AUDIT_RENAME, e) < 0)
        return -1;
    if (renameat(a->dir_fd, NEW, a->dir_fd, audit_name(0, to)) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot rename %s", NEW);
    (void)fsync(a->dir_fd);
    memmove(a->first + 1, a->first, a->files * sizeof(*a->first));
    return 0;
}

/* The new file with its first record. On failure `a` is as before. */
static int begin_new(struct audit *a, struct audit *ret, struct err *e)
{
    *ret = *a;
    uint64_t first[1] = { 0 };
    ret->first = first;
    ret->size = 0;
    ret->room = 0;
    ret->fd = openat(a->dir_fd, NEW, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW,
                     0600);
    if (ret->fd < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot make %s", NEW);
    int rc = make_room(ret, room_for(ret, a->reserved + 1) + AUDIT_SPARE, e) < 0
                 ? -1 : append_kind(ret, "rotate", e);
    ret->first = a->first;
    if (rc < 0) {
        fd_close(ret->fd);
        unlinkat(a->dir_fd, NEW, 0);
    }
    return rc;
}

static int rotate(struct audit *a, struct err *e)
{
    struct audit next;

    if (fdatasync(a->fd) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "the audit log cannot be written");
    if (begin_new(a, &next, e) < 0)
        return -1;
    if (fault_at(FAULT_AUDIT_ROTATE, e) < 0 || rename_all(a, e) < 0) {
        /* whatever was renamed: this file is the one that is written to, under any name */
        fd_close(next.fd);
        unlinkat(a->dir_fd, NEW, 0);
        return -1;
    }
    (void)!ftruncate(a->fd, (off_t)a->size);    /* gives back what was set aside */
    fd_close(a->fd);
    a->fd = next.fd;
    a->size = next.size;
    a->room = next.room;
    a->seq = next.seq;
    memcpy(a->hash, next.hash, sizeof(a->hash));
    a->first[0] = next.seq;
    a->dirty = true;
    return 0;
}

/* A file that cannot be changed for a new one grows on. */
static void rotate_if_full(struct audit *a)
{
    static struct log_rate rate;
    struct err e = ERR_INIT;

    if (a->size + AUDIT_LINE_MAX > a->max_size && a->seq > a->first[0] && rotate(a, &e) < 0 &&
        log_rate_ok(&rate, 1, 60000))
        log_warn(LOG_CTX(.error = &e), "the audit log cannot be rotated, ignoring");
}

/* --- records --- */

int audit_reserve(struct audit *a, unsigned records, bool frees, struct err *e)
{
    int rc;

    if (!a)
        return 0;
    pthread_mutex_lock(&a->lock);
    if (a->failed.code != ERR_NONE) {
        *e = a->failed;
        rc = -1;
    } else {
        struct err no = ERR_INIT;
        uint64_t end = room_for(a, a->reserved + records);
        rc = make_room(a, end + AUDIT_SPARE, &no);
        if (rc < 0 && frees && end <= a->room)
            rc = 0;
        if (rc < 0)
            *e = no;
        a->reserved += rc == 0 ? records : 0;
    }
    pthread_mutex_unlock(&a->lock);
    return rc;
}

void audit_release(struct audit *a, unsigned records)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->reserved -= records;
    pthread_mutex_unlock(&a->lock);
}

static int write_locked(struct audit *a, struct api_audit_record *r, bool reserved, struct err *e)
{
    struct err no = ERR_INIT;

    if (a->failed.code != ERR_NONE) {
        *e = a->failed;
        return -1;
    }
    rotate_if_full(a);
    bool room = make_room(a, room_for(a, a->reserved + 2) + AUDIT_SPARE, &no) >= 0;
    if (!room && !reserved) {
        *e = no;
        return -1;
    }
    if (a->lost && room) {
        struct api_audit_record lost = { .kind = (char *)"lost",
                                         .lost = { .present = true, .count = a->lost } };
        if (append(a, &lost, e) < 0)
            return -1;
        a->lost = 0;
    }
    return append(a, r, e);
}

int audit_write(struct audit *a, struct api_audit_record *r, bool reserved, struct err *e)
{
    if (!a)
        return 0;
    pthread_mutex_lock(&a->lock);
    int rc = write_locked(a, r, reserved, e);
    a->reserved -= reserved;
    a->lost += rc < 0;
    pthread_mutex_unlock(&a->lock);
    return rc;
}

int audit_sync(struct audit *a, struct err *e)
{
    if (!a)
        return 0;
    pthread_mutex_lock(&a->lock);
    /* a descriptor of our own: a rotation may close the other meanwhile */
    autoclose int fd = a->dirty ? fcntl(a->fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (fd >= 0)
        a->dirty = false;
    pthread_mutex_unlock(&a->lock);
    if (fd < 0 || fdatasync(fd) == 0)
        return 0;
    err_sys(e, ERR_UNAVAILABLE, errno, "the audit log did not reach the disk");
    err_hint(e, "look after the disk, then restart sandboxd");
    pthread_mutex_lock(&a->lock);
    a->failed = *e;
    pthread_mutex_unlock(&a->lock);
    return -1;
}

uint64_t audit_head(struct audit *a)
{
    pthread_mutex_lock(&a->lock);
    uint64_t seq = a->seq;
    pthread_mutex_unlock(&a->lock);
    return seq;
}

/* --- open --- */

static bool parse_seq(const char *line, size_t len, uint64_t *ret)
{
    struct api_audit_record r = { 0 };
    struct err e = ERR_INIT;

    if (json_decode(api_audit_record_table, line, len, &r, &e) < 0)
        return false;
    *ret = r.seq;
    json_done(api_audit_record_table, &r, sizeof(r));
    return true;
}

struct tail {
    uint64_t size;          /* of the file */
    uint64_t end;           /* behind the last record; 0: there is none */
    uint64_t seq;
    char hash[DIGEST_HEX];
    char *torn;             /* owned: what is behind it */
};

static int find_tail(int fd, const char *name, struct tail *ret, struct err *e)
{
    autofree char *buf = malloc(TAIL_MAX);
    struct stat sb;

    if (!buf)
        return err_nomem(e);
    if (fstat(fd, &sb) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read %s", name);
    if (!S_ISREG(sb.st_mode))
        return err_set(e, ERR_INVALID, "%s is not a file", name);
    uint64_t size = (uint64_t)sb.st_size, from = size > TAIL_MAX ? size - TAIL_MAX : 0;
    ssize_t n = pread(fd, buf, size - from, (off_t)from);
    if (n < 0 || (uint64_t)n != size - from)
        return err_sys(e, ERR_INTERNAL, n < 0 ? errno : EIO, "cannot read %s", name);
    ret->size = size;
    size_t end = (size_t)n, found = 0;
    while (end > 0 && !found) {
        const char *nl = memrchr(buf, '\n', end);
        const char *before = nl && nl > buf ? memrchr(buf, '\n', (size_t)(nl - buf)) : NULL;
        const char *line = before ? before + 1 : buf;
        if (!nl)
            break;
        size_t len = (size_t)(nl + 1 - line);
        if (len <= AUDIT_LINE_MAX && parse_seq(line, len, &ret->seq)) {
            digest_hex(line, len, ret->hash);
            found = (size_t)(nl + 1 - buf);
        }
        end = (size_t)(line - buf);
    }
    if (!found && from > 0) {
        err_set(e, ERR_INVALID, "%s has no record in its last MiB", name);
        return err_hint(e, "move it away: the next start begins a new one");
    }
    ret->end = from + found;
    if (ret->end == size)
        return 0;
    ret->torn = malloc((size_t)n - found);
    if (!ret->torn)
        return err_nomem(e);
    memcpy(ret->torn, buf + found, (size_t)n - found);
    return 0;
}

/* What is behind the last record goes to a file beside. */
static int put_aside(struct audit *a, const struct tail *t, struct err *e)
{
    autoclose int fd = openat(a->dir_fd, TORN,
                              O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make %s", TORN);
    if (io_write_full(fd, t->torn, t->size - t->end, deadline_in(DEADLINE_CHILD), e) < 0)
        return err_wrap(e, TORN);
    if (fsync(fd) < 0 || ftruncate(a->fd, (off_t)t->end) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot cut the audit log");
    return 0;
}

static int first_seqs(struct audit *a, struct err *e)
{
    for (unsigned n = 0; n <= a->files; n++) {
        struct audit_lines l = { .fd = audit_open_file(a->dir_fd, n), .end = UINT64_MAX };
        const char *line;
        size_t len;
        if (l.fd < 0 && n > 0)
            break;
        int rc = l.fd < 0 ? 0 : audit_lines_next(&l, &line, &len, e);
        if (rc > 0 && !parse_seq(line, len, &a->first[n]))
            a->first[n] = 1;        /* damaged: audit_verify() will say so */
        audit_lines_done(&l);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* The end of audit.log, or where there is nothing in it that of audit.log.1. */
static int find_head(struct audit *a, struct tail *t, struct err *e)
{
    memset(a->hash, '0', DIGEST_HEX - 1);
    if (find_tail(a->fd, "audit.log", t, e) < 0)
        return -1;
    a->size = a->room = t->end;
    const struct tail *head = t;
    struct tail old = { 0 };
    if (t->end == 0) {
        autoclose int fd = audit_open_file(a->dir_fd, 1);
        a->first[0] = 0;
        if (fd >= 0 && find_tail(fd, "audit.log.1", &old, e) < 0)
            return -1;
        free(take_ptr(old.torn));
        head = &old;
    }
    if (head->end > 0) {
        a->seq = head->seq;
        memcpy(a->hash, head->hash, sizeof(a->hash));
    }
    return 0;
}

/* The first records of this start. Where there is no room for them they are lost and counted. */
static int say_start(struct audit *a, const struct tail *t, bool repair, struct err *e)
{
    if (t->end == 0 && a->seq > 0 && append_kind(a, "rotate", e) < 0)
        return -1;
    if (t->torn) {
        char hex[DIGEST_HEX];
        struct api_audit_record r = { .kind = (char *)"torn",
                                      .torn = { .present = true, .length = t->size - t->end,
                                                .digest = hex } };
        digest_hex(t->torn, t->size - t->end, hex);
        if (append(a, &r, e) < 0)
            return -1;
    }
    return append_kind(a, repair ? "repair" : "start", e);
}

static int open_log(struct audit *a, const struct audit_options *o, struct err *e)
{
    char name[AUDIT_NAME_MAX];
    struct err full = ERR_INIT;

    a->dir_fd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (a->dir_fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", o->dir);
    a->fd = openat(a->dir_fd, audit_name(0, name),
                   O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (a->fd < 0 || fchmod(a->fd, 0600) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open audit.log");
    unlinkat(a->dir_fd, NEW, 0);
    struct tail t = { 0 };
    int rc = first_seqs(a, e) < 0 || find_head(a, &t, e) < 0 || (t.torn && put_aside(a, &t, e) < 0)
                 ? -1 : 0;
    if (rc == 0 && (make_room(a, room_for(a, 3) + AUDIT_SPARE, &full) < 0 ||
                    say_start(a, &t, o->repair, &full) < 0)) {
        log_err(LOG_CTX(.error = &full), "the start could not be recorded in the audit log");
        a->lost++;
    }
    free(t.torn);
    return rc;
}

int audit_open(const struct audit_options *o, struct audit **ret, struct err *e)
{
    if (o->mode == AUDIT_OFF) {
        *ret = NULL;
        return 0;
    }
    struct audit *a = calloc(1, sizeof(*a));
    uint64_t *first = calloc(o->files + 1, sizeof(*first));
    if (!a || !first) {
        free(a);
        free(first);
        return err_nomem(e);
    }
    a->mode = o->mode;
    a->max_size = o->size;
    a->files = o->files;
    a->first = first;
    a->fd = a->dir_fd = -1;
    pthread_mutex_init(&a->lock, NULL);
    if (open_log(a, o, e) < 0) {
        audit_free(a);
        return -1;
    }
    *ret = a;
    return 0;
}

void audit_free(struct audit *a)
{
    struct err e = ERR_INIT;

    if (!a)
        return;
    if (audit_sync(a, &e) < 0)
        log_err(LOG_CTX(.error = &e), "the end of the audit log may be lost");
    fd_close(a->fd);
    fd_close(a->dir_fd);
    free(a->first);
    pthread_mutex_destroy(&a->lock);
    free(a);
}
