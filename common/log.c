/* SPDX-License-Identifier: MIT */
#include "common/log.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/sbuf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define RECORD_MAX 8192
#define VALUE_MAX 512
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

/* Set by log_init() before the first thread, then only read; the level may change later. */
static struct {
    const char *program;    /* borrowed */
    int journal;            /* datagram socket, -1: plain stderr */
    atomic_int max_level;
} log_state = { .program = "sandboxd", .journal = -1, .max_level = LOG_INFO };

static const char *const level_names[] = {
    [LOG_EMERG] = "emerg",     [LOG_ALERT] = "alert",   [LOG_CRIT] = "crit", [LOG_ERR] = "err",
    [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice", [LOG_INFO] = "info", [LOG_DEBUG] = "debug",
};
_Static_assert(ARRAY_SIZE(level_names) == LOG_DEBUG + 1, "a name for each level");

/* Does JOURNAL_STREAM ("device:inode") name our stderr? A program started by a service inherits the
 * variable even when its stderr is somewhere else, so only a match counts. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    uint64_t device, inode;
    struct stat st;
    int end = -1;

    return stream && sscanf(stream, "%" SCNu64 ":%" SCNu64 "%n", &device, &inode, &end) == 2 &&
           end > 0 && stream[end] == '\0' && fstat(STDERR_FILENO, &st) == 0 &&
           (uint64_t)st.st_dev == device && (uint64_t)st.st_ino == inode;
}

void log_init(const char *program, int max_level)
{
    log_state.program = program;
    log_set_level(max_level);
    fd_close(log_state.journal);
    log_state.journal = -1;
    if (stderr_is_journal())
        log_state.journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

void log_set_level(int max_level)
{
    atomic_store_explicit(&log_state.max_level, max_level, memory_order_relaxed);
}

/* The fields of a record are written by one list, in the form of either sink. */
struct record {
    struct sbuf *out;
    bool journal;
};

static void field(struct record *r, const char *journal_key, const char *stderr_key,
                  const char *value)
{
    size_t len;

    if (!value || value[0] == '\0')
        return;
    len = strlen(value);
    if (len > VALUE_MAX)
        len = VALUE_MAX;
    if (r->journal) {
        sbuf_fmt(r->out, "%s=", journal_key);
        sbuf_text(r->out, value, len);  /* one line, so the simple form of the protocol will do */
        sbuf_chr(r->out, '\n');
    } else if (stderr_key) {
        sbuf_fmt(r->out, " %s=", stderr_key);
        sbuf_log(r->out, value, len);
    }
}

static void field_number(struct record *r, const char *journal_key, const char *stderr_key,
                         int64_t value)
{
    char digits[24];

    snprintf(digits, sizeof(digits), "%" PRId64, value);
    field(r, journal_key, stderr_key, digits);
}

static void context_fields(struct record *r, const struct log_ctx *ctx)
{
    field(r, "MESSAGE_ID", NULL, ctx->event);
    field(r, "SBX_REQUEST", "request", ctx->request);
    field(r, "SBX_SANDBOX", "sandbox", ctx->sandbox);
    field(r, "SBX_EXEC", "exec", ctx->exec);
    if (ctx->uid)
        field_number(r, "SBX_UID", "uid", *ctx->uid);
    if (ctx->error && ctx->error->code != ERR_NONE) {
        field(r, "SBX_CODE", "code", err_wire(ctx->error->code));
        if (ctx->error->sys > 0)
            field_number(r, "ERRNO", "errno", ctx->error->sys);
        field(r, "SBX_ERROR", "error", ctx->error->msg);
    }
}

static void write_stderr(const struct sbuf *b)
{
    const char *p = sbuf_str(b);
    size_t left = b->failed ? 0 : b->len;

    /* one write per record, so that lines of several threads do not mix; nothing to be done when
     * it fails, and no waiting for a reader that does not read */
    while (left > 0) {
        ssize_t n = write(STDERR_FILENO, p, left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        p += n;
        left -= (size_t)n;
    }
}

static bool send_journal(const struct sbuf *b)
{
    static const struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET };

    return !b->failed && sendto(log_state.journal, b->data, b->len, MSG_NOSIGNAL | MSG_DONTWAIT,
                                (const struct sockaddr *)&to, sizeof(to)) >= 0;
}

/* journalctl shows the message alone: the reason of a failure and the request that sbx tells its
 * user to look for have to be in there, besides having fields. */
static void message_context(struct sbuf *out, const struct log_ctx *ctx)
{
    if (!ctx || !ctx->error || ctx->error->code == ERR_NONE)
        return;
    sbuf_lit(out, ": ");
    sbuf_text(out, ctx->error->msg, strlen(ctx->error->msg));
    if (ctx->request && ctx->request[0])
        sbuf_fmt(out, " (request %s)", ctx->request);
}

static void format_record(struct record *r, int level, const struct log_ctx *ctx, const char *file,
                          int line, const char *message, size_t len)
{
    if (r->journal) {
        sbuf_lit(r->out, "MESSAGE=");
        sbuf_text(r->out, message, len);
        message_context(r->out, ctx);
        sbuf_chr(r->out, '\n');
        field_number(r, "PRIORITY", NULL, level);
        field(r, "SYSLOG_IDENTIFIER", NULL, log_state.program);
        field(r, "CODE_FILE", NULL, file);
        field_number(r, "CODE_LINE", NULL, line);
    } else {
        sbuf_fmt(r->out, "%s ", level_names[level]);
        sbuf_text(r->out, message, len);
    }
    if (ctx)
        context_fields(r, ctx);
    if (!r->journal)
        sbuf_chr(r->out, '\n');
}

void log_write(int level, const struct log_ctx *ctx, const char *file, int line, const char *fmt,
               ...)
{
    autosbuf struct sbuf message = SBUF(RECORD_MAX), out = SBUF(8 * RECORD_MAX);
    struct record r = { .out = &out, .journal = log_state.journal >= 0 };
    int saved = errno;
    size_t len;
    va_list ap;

    if (level < LOG_EMERG || level > LOG_DEBUG ||
        level > atomic_load_explicit(&log_state.max_level, memory_order_relaxed))
        return;
    va_start(ap, fmt);
    sbuf_vfmt(&message, fmt, ap);
    va_end(ap);
    if (message.failed) {
        sbuf_done(&message);
        sbuf_fmt(&message, "(message lost: too long or out of memory) %s", fmt);
    }
    len = message.len < 4 * VALUE_MAX ? message.len : 4 * VALUE_MAX;

    format_record(&r, level, ctx, file, line, sbuf_str(&message), len);
    if (r.journal && !send_journal(&out)) {
        sbuf_done(&out);
        r.journal = false;
        format_record(&r, level, ctx, file, line, sbuf_str(&message), len);
    }
    if (!r.journal)
        write_stderr(&out);
    errno = saved;
}

bool log_rate_ok(struct log_rate *r, uint32_t burst, int64_t interval_ms)
{
    int64_t now = now_mono_ms();

    if (now - r->window_start_ms >= interval_ms || r->window_start_ms == 0) {
        uint32_t dropped = r->dropped;

        *r = (struct log_rate){ .window_start_ms = now };
        if (dropped > 0)
            log_warn(NULL, "%u messages like the next one were left out", dropped);
    }
    if (r->n >= burst) {
        r->dropped++;
        return false;
    }
    r->n++;
    return true;
}
