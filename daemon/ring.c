/* SPDX-License-Identifier: MIT
 *
 * The file: a header of 32 bytes (magic, version, size, end), at DATA_AT a circle of size + SLACK
 * bytes in which the byte of offset o stands at o modulo the circle. Readers are shown only the
 * last `size` bytes; a write goes in pieces of at most SLACK, each counted before the next, so what
 * a piece overwrites before it is counted is never part of what the header promises.
 *
 * pwrite() and not a mapping: a full tmpfs is then an error and not a SIGBUS, and the file grows
 * with the output instead of being paid for in advance.
 */
#include "daemon/ring.h"
#include "common/auto.h"
#include "daemon/fault.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RING_MAGIC   0x676e697258425331ULL
#define RING_VERSION 1
#define DATA_AT      64
#define SLACK        32768

struct ring_header { /* host byte order: the file never leaves the host */
    uint64_t magic;
    uint64_t version;
    uint64_t size;
    uint64_t end; /* the only member that changes */
};

#define NAME_MAX_LEN 31

struct ring {
    int dirfd; /* borrowed */
    char name[NAME_MAX_LEN + 1];
    size_t size; /* what readers may see */
    size_t circle;
    pthread_mutex_t lock; /* the rest, and the bytes that `end` counts */
    uint64_t end;
    int fd; /* owned; -1: parked */
};

static int write_at(struct ring *r, const void *data, size_t len, off_t at, struct err *e)
{
    const uint8_t *p = data;
    while (len > 0) {
        ssize_t n = pwrite(r->fd, p, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_sys(e, ERR_INTERNAL, n < 0 ? errno : EIO, "cannot keep output");
        p += n;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static int read_at(int fd, void *data, size_t len, off_t at, struct err *e)
{
    uint8_t *p = data;
    while (len > 0) {
        ssize_t n = pread(fd, p, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_sys(e, ERR_INTERNAL, n < 0 ? errno : EIO, "cannot read kept output");
        p += n;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

/* The header of a file that has had no bytes yet; a full disk cuts it, and then it is written again
 * when there is room. Anything else that is short is no file of ours. */
static int begin_file(struct ring *r, const struct ring_header *h, size_t size, struct err *e)
{
    struct ring_header was;

    if (size > 0 && read_at(r->fd, &was, size, 0, e) < 0)
        return -1;
    if (size > 0 && memcmp(&was, h, size) != 0)
        return err_set(e, ERR_INTERNAL, "output file '%s' is damaged", r->name);
    return write_at(r, h, sizeof(*h), 0, e);
}

int ring_open(int dirfd, const char *name, size_t size, struct ring **ret, struct err *e)
{
    autoclose int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open output file '%s'", name);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot look at output file '%s'", name);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INTERNAL, "output file '%s' is not a file", name);
    autofree struct ring *r = calloc(1, sizeof(*r));
    if (!r)
        return err_nomem(e);
    if (strlen(name) > NAME_MAX_LEN)
        return err_set(e, ERR_INTERNAL, "the name '%s' is too long", name);
    memcpy(r->name, name, strlen(name));
    r->dirfd = dirfd;
    r->fd = fd;
    r->size = size;
    r->circle = size + SLACK;
    struct ring_header h = { .magic = RING_MAGIC, .version = RING_VERSION, .size = size };
    if (st.st_size < (off_t)sizeof(h)) {
        if (begin_file(r, &h, (size_t)st.st_size, e) < 0)
            return -1;
    } else {
        if (read_at(fd, &h, sizeof(h), 0, e) < 0)
            return -1;
        if (h.magic != RING_MAGIC || h.version != RING_VERSION ||
            h.size != size)
            return err_set(e, ERR_INTERNAL, "output file '%s' is damaged", name);
    }
    r->end = h.end;
    pthread_mutex_init(&r->lock, NULL);
    fd = -1;
    *ret = take_ptr(r);
    return 0;
}

void ring_free(struct ring *r)
{
    if (!r)
        return;
    fd_close(r->fd);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void ring_park(struct ring *r)
{
    pthread_mutex_lock(&r->lock);
    fd_close(r->fd);
    r->fd = -1;
    pthread_mutex_unlock(&r->lock);
}

/* A piece of at most SLACK bytes. */
static int append_locked(struct ring *r, const uint8_t *data, size_t len, struct err *e)
{
    size_t at = (size_t)(r->end % r->circle);
    size_t first = len < r->circle - at ? len : r->circle - at;
    uint64_t end = r->end + len;
    if (write_at(r, data, first, DATA_AT + (off_t)at, e) < 0 ||
        (len > first && write_at(r, data + first, len - first, DATA_AT, e) < 0) ||
        fault_at(FAULT_EXEC_COUNT, e) < 0 ||
        write_at(r, &end, sizeof(end), offsetof(struct ring_header, end), e) < 0)
        return -1;
    r->end = end;
    return 0;
}

int ring_write(struct ring *r, uint64_t offset, const void *data, size_t len, struct err *e)
{
    const uint8_t *p = data;
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    if (offset > r->end || len > UINT64_MAX - offset) {
        rc = err_set(e, ERR_GUEST, "output at offset %llu does not join on to %llu",
                     (unsigned long long)offset, (unsigned long long)r->end);
    } else if (offset + len > r->end) {
        uint64_t known = r->end - offset;
        p += known;
        len -= known;
        while (rc == 0 && len > 0) {
            size_t piece = len < SLACK ? len : SLACK;
            rc = append_locked(r, p, piece, e);
            p += piece;
            len -= piece;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static uint64_t start_locked(const struct ring *r)
{
    return r->end > r->size ? r->end - r->size : 0;
}

uint64_t ring_start(struct ring *r)
{
    pthread_mutex_lock(&r->lock);
    uint64_t start = start_locked(r);
    pthread_mutex_unlock(&r->lock);
    return start;
}

uint64_t ring_end(struct ring *r)
{
    pthread_mutex_lock(&r->lock);
    uint64_t end = r->end;
    pthread_mutex_unlock(&r->lock);
    return end;
}

static int copy_locked(struct ring *r, uint64_t from, void *buf, size_t len, struct err *e)
{
    autoclose int own = -1;
    int fd = r->fd;
    if (fd < 0) {
        own = openat(r->dirfd, r->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (own < 0 && errno == ENOENT)
            return err_set(e, ERR_OFFSET_GONE, "this output is not kept any more");
        if (own < 0)
            return err_sys(e, ERR_INTERNAL, errno, "cannot open output file '%s'", r->name);
        fd = own;
    }
    size_t at = (size_t)(from % r->circle);
    size_t first = len < r->circle - at ? len : r->circle - at;
    if (read_at(fd, buf, first, DATA_AT + (off_t)at, e) < 0)
        return -1;
    return len > first ? read_at(fd, (uint8_t *)buf + first, len - first, DATA_AT, e) : 0;
}

static int64_t read_locked(struct ring *r, uint64_t *offset, void *buf, size_t cap,
                           uint64_t *ret_lost, struct err *e)
{
    uint64_t from = *offset, lost = 0;
    if (from < start_locked(r)) {
        lost = start_locked(r) - from;
        from += lost;
    }
    if (from >= r->end)
        cap = 0;
    else if (cap > r->end - from)
        cap = (size_t)(r->end - from);
    if (cap > 0 && copy_locked(r, from, buf, cap, e) < 0)
        return -1;
    *ret_lost = lost;
    *offset = from + cap;
    return (int64_t)cap;
}

int64_t ring_read(struct ring *r, uint64_t *offset, void *buf, size_t cap, uint64_t *ret_lost,
                  struct err *e)
{
    pthread_mutex_lock(&r->lock);
    int64_t n = read_locked(r, offset, buf, cap, ret_lost, e);
    pthread_mutex_unlock(&r->lock);
    return n;
}
