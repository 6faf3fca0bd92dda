/* SPDX-License-Identifier: MIT
 *
 * log: structured records. On a terminal or pipe: `level message key=value…` on stderr; when stderr
 * is the journal's stream (JOURNAL_STREAM names our stderr), by sd_journal_sendv-compatible native
 * protocol with the same fields. Thread-safe. Foreign text in values is escaped and cut at 512
 * bytes.
 *
 * Levels: err = a request or sandbox failed by our fault; warning = survived (message ends in
 * ", ignoring" or says what was done); notice = sandbox born or gone; info = start and stop;
 * debug = the rest. A user's mistake is debug. Arguments and environment never above debug,
 * secrets never.
 */
#pragma once

#include "common/err.h"
#include <stdint.h>
#include <stdbool.h>
#include <sys/types.h>
#include <syslog.h>

void log_init(const char *program, int max_level);
void log_set_level(int max_level);

/* Fields of the record, all optional; NULL or 0 leaves one out. */
struct log_ctx {
    const char *event;      /* MESSAGE_ID constant of systemd/sandboxd.catalog, 32 hex digits */
    const char *request;    /* request id */
    const char *sandbox;    /* sandbox id */
    const char *exec;       /* exec id */
    const uid_t *uid;       /* borrowed */
    const struct err *error;
};
#define LOG_CTX(...) (&(struct log_ctx){ __VA_ARGS__ })

void log_write(int level, const struct log_ctx *ctx, const char *file, int line, const char *fmt,
               ...)
    __attribute__((format(printf, 5, 6)));

#define log_msg(level, ctx, ...) log_write(level, ctx, __FILE__, __LINE__, __VA_ARGS__)
#define log_err(ctx, ...) log_msg(LOG_ERR, ctx, __VA_ARGS__)
#define log_warn(ctx, ...) log_msg(LOG_WARNING, ctx, __VA_ARGS__)
#define log_notice(ctx, ...) log_msg(LOG_NOTICE, ctx, __VA_ARGS__)
#define log_info(ctx, ...) log_msg(LOG_INFO, ctx, __VA_ARGS__)
#define log_debug(ctx, ...) log_msg(LOG_DEBUG, ctx, __VA_ARGS__)

/* For messages a guest or user can cause: at most `burst` per `interval_ms` from one call site,
 * then one line that says how many were left out. */
struct log_rate { int64_t window_start_ms; uint32_t n, dropped; };
bool log_rate_ok(struct log_rate *r, uint32_t burst, int64_t interval_ms);
