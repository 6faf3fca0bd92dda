/* SPDX-License-Identifier: MIT */
#include "daemon/audit_beside.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/parse.h"
#include "daemon/digest.h"
#include "daemon/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME "audit.queue"
#define QUEUE_LINE 4096
#define LOCK_MS 5000

static int open_queue(const char *dir, int flags, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    struct stat sb;

    sbuf_fmt(&path, "%s/" NAME, dir);
    int fd = open(sbuf_str(&path), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0600);
    if (fd < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot open " NAME);
    if (fstat(fd, &sb) < 0 || !S_ISREG(sb.st_mode)) {
        fd_close(fd);
        return err_set(e, ERR_UNAVAILABLE, NAME " is not a file");
    }
    return fd;
}

/* --- by the command --- */

static int lock(int fd, struct err *e)
{
    int64_t deadline = deadline_in(LOCK_MS);

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_sys(e, ERR_UNAVAILABLE, errno, "cannot lock " NAME);
        if (now_mono_ms() >= deadline)
            return err_set(e, ERR_UNAVAILABLE, "somebody keeps " NAME " locked");
        (void)poll(NULL, 0, 20);
    }
    return 0;
}

/* A line behind the last whole one: a command that was killed may have left a piece. */
static int add_line(int fd, const char *text, size_t len, struct err *e)
{
    struct stat sb;
    char last = '\n';

    if (fstat(fd, &sb) < 0 ||
        (sb.st_size > 0 && pread(fd, &last, 1, sb.st_size - 1) != 1))
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot read " NAME);
    if ((uint64_t)sb.st_size + len + 1 > AUDIT_QUEUE_MAX) {
        err_set(e, ERR_UNAVAILABLE, "too many records wait in " NAME);
        return err_hint(e, "start sandboxd: it takes them into the audit log");
    }
    const char *piece[] = { last == '\n' ? "" : "\n", text };
    for (size_t i = 0; i < ARRAY_SIZE(piece); i++) {
        struct err no = ERR_INIT;
        if (io_write_full(fd, piece[i], strlen(piece[i]), deadline_in(LOCK_MS), &no) < 0) {
            (void)!ftruncate(fd, sb.st_size);
            *e = no;
            return err_wrap(e, NAME);
        }
    }
    if (fdatasync(fd) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot write " NAME);
    return 0;
}

int audit_beside_add(const char *dir, struct api_audit_record *r, struct err *e)
{
    autosbuf struct sbuf line = SBUF(QUEUE_LINE);
    char none[DIGEST_HEX] = "";

    memset(none, '0', DIGEST_HEX - 1);
    r->seq = 1;                 /* both are given by the daemon, and needed in a record */
    r->prev = none;
    r->waited = (struct api_audit_waited){ .present = true, .since = now_real_us() };
    int rc = audit_line(r, &line, e);
    r->prev = NULL;
    if (rc < 0)
        return -1;
    autoclose int fd = open_queue(dir, O_CREAT | O_APPEND, e);
    return fd < 0 || lock(fd, e) < 0 ? -1 : add_line(fd, sbuf_str(&line), line.len, e);
}

void audit_beside_self(struct audit_self *names, struct api_audit_who *ret)
{
    autofree char *user = NULL, *sudo = NULL;
    const char *sudo_uid = getuid() == 0 ? getenv("SUDO_UID") : NULL;
    struct err e = ERR_INIT;
    uint64_t uid;

    *names = (struct audit_self){ 0 };
    *ret = (struct api_audit_who){ .present = true, .uid = getuid(), .pid = (uint32_t)getpid() };
    if (peer_user_name(ret->uid, &user, &e) == 0 && user) {
        audit_text(names->user, sizeof(names->user), user);
        ret->user = names->user;
    }
    audit_peer_read(getpid(), getuid(), &names->peer);
    ret->comm = names->peer.comm[0] ? names->peer.comm : NULL;
    ret->ssh = names->peer.ssh[0] ? names->peer.ssh : NULL;
    if (!sudo_uid || !parse_u64(sudo_uid, 0, UINT32_MAX - 1, &uid))
        return;
    ret->sudo = (struct api_audit_sudo){ .present = true, .uid = (uint32_t)uid };
    if (peer_user_name((uid_t)uid, &sudo, &e) == 0 && sudo) {
        audit_text(names->sudo, sizeof(names->sudo), sudo);
        ret->sudo.user = names->sudo;
    }
}

/* --- by the daemon --- */

static int take_line(struct audit *a, const char *line, size_t len, struct err *e)
{
    struct api_audit_record r = { 0 };
    struct err bad = ERR_INIT;

    if (json_decode(api_audit_record_table, line, len, &r, &bad) < 0) {
        log_warn(LOG_CTX(.error = &bad), "a line of " NAME " is no record, ignoring");
        return 0;
    }
    free(take_ptr(r.prev));
    int rc = audit_write(a, &r, false, e);
    json_done(api_audit_record_table, &r, sizeof(r));
    return rc;
}

static int take_all(struct audit *a, int fd, size_t size, struct err *e)
{
    autofree char *text = malloc(size + 1);
    size_t at = 0, lines = 0;

    if (!text)
        return err_nomem(e);
    ssize_t n = pread(fd, text, size, 0);
    if (n < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot read " NAME);
    for (ssize_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    /* All or none: those that found room would be there twice. */
    int set_aside = audit_reserve(a, (unsigned)lines, false, e);
    if (set_aside < 0)
        return -1;
    if (set_aside == 0)
        audit_release(a, (unsigned)lines);
    while (at < (size_t)n) {
        const char *nl = memchr(text + at, '\n', (size_t)n - at);
        size_t len = nl ? (size_t)(nl - text) - at : (size_t)n - at;
        if (len > 0 && take_line(a, text + at, len, e) < 0)
            return -1;
        at += len + 1;
    }
    if (ftruncate(fd, 0) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot empty " NAME);
    return 0;
}

int audit_beside_take(struct audit *a, const char *dir, struct err *e)
{
    struct err no = ERR_INIT;
    struct stat sb;

    if (!a)
        return 0;
    autoclose int fd = open_queue(dir, 0, &no);
    if (fd < 0 && no.sys == ENOENT)     /* nothing was ever done beside it */
        return 0;
    if (fd < 0) {
        *e = no;
        return -1;
    }
    if (fstat(fd, &sb) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot read " NAME);
    if (sb.st_size == 0)
        return 0;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? 0 : err_sys(e, ERR_UNAVAILABLE, errno, "cannot lock " NAME);
    if (fstat(fd, &sb) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot read " NAME);
    size_t size = sb.st_size < (off_t)AUDIT_QUEUE_MAX ? (size_t)sb.st_size : AUDIT_QUEUE_MAX;
    return take_all(a, fd, size, e);
}
