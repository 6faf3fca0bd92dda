/* SPDX-License-Identifier: MIT
 *
 * err: the one error type of daemon, client and guest.
 *
 * A function that can fail returns 0 or -1 (a pointer: non-NULL or NULL) and takes `struct err *e`
 * as its last argument, never NULL. Success leaves the object untouched, failure sets it exactly
 * once, and the function that set it never reads it back. The object lives on the caller's stack
 * and needs no heap, so running out of memory can be reported too. Any thread may use it; one
 * object belongs to one thread.
 *
 * `code` decides what happens: HTTP status, code on the wire and exit status of sbx all come from
 * ERR_TABLE below. `msg` is one line for people that says what is wrong, `hint` one that says what
 * to do; neither is ever compared. Text that comes from outside (names, guest messages) is escaped
 * when it is formatted into them: err_set() replaces control bytes and invalid UTF-8.
 *
 * Modules do not log failures; the edge (end of a request, of a job, of start-up) does, once.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

/*   constant                 code on the wire          HTTP  sbx exit status */
#define ERR_TABLE(X)                                                      \
    X(ERR_NONE,               "none",                   200, 0)           \
    X(ERR_INVALID,            "invalid_request",        400, 125)         \
    X(ERR_JSON,               "invalid_json",           400, 125)         \
    X(ERR_FIELD_UNKNOWN,      "unknown_field",          400, 125)         \
    X(ERR_FIELD_MISSING,      "missing_field",          400, 125)         \
    X(ERR_FIELD_INVALID,      "invalid_field",          400, 125)         \
    X(ERR_REF_AMBIGUOUS,      "ambiguous_reference",    400, 125)         \
    X(ERR_WORKSPACE_INVALID,  "workspace_invalid",      400, 125)         \
    X(ERR_ORIGIN_REFUSED,     "origin_refused",         403, 125)         \
    X(ERR_DENIED,             "permission_denied",      403, 125)         \
    X(ERR_WORKSPACE_DENIED,   "workspace_denied",       403, 125)         \
    X(ERR_POLICY_CEILING,     "policy_ceiling",         403, 125)         \
    X(ERR_READ_ONLY,          "read_only",              403, 125)         \
    X(ERR_ROUTE_NOT_FOUND,    "route_not_found",        404, 125)         \
    X(ERR_SANDBOX_NOT_FOUND,  "sandbox_not_found",      404, 125)         \
    X(ERR_EXEC_NOT_FOUND,     "exec_not_found",         404, 125)         \
    X(ERR_IMAGE_NOT_FOUND,    "image_not_found",        404, 125)         \
    X(ERR_POLICY_NOT_FOUND,   "policy_not_found",       404, 125)         \
    X(ERR_METHOD,             "method_not_allowed",     405, 125)         \
    X(ERR_NAME_IN_USE,        "name_in_use",            409, 125)         \
    X(ERR_SANDBOX_STATE,      "sandbox_not_running",    409, 125)         \
    X(ERR_SANDBOX_BUSY,       "sandbox_busy",           409, 125)         \
    X(ERR_EXEC_STATE,         "exec_not_running",       409, 125)         \
    X(ERR_IMAGE_IN_USE,       "image_in_use",           409, 125)         \
    X(ERR_TOO_LARGE,          "body_too_large",         413, 125)         \
    X(ERR_EVENTS_GONE,        "events_gone",            410, 125)         \
    X(ERR_OFFSET_GONE,        "offset_gone",            416, 125)         \
    X(ERR_IDEMPOTENCY,        "idempotency_mismatch",   422, 125)         \
    X(ERR_COMMAND_NOT_EXEC,   "command_not_executable", 422, 126)         \
    X(ERR_COMMAND_NOT_FOUND,  "command_not_found",      422, 127)         \
    X(ERR_UPGRADE_REQUIRED,   "upgrade_required",       426, 125)         \
    X(ERR_QUOTA,              "quota_exceeded",         429, 125)         \
    X(ERR_INTERNAL,           "internal",               500, 125)         \
    X(ERR_NO_MEMORY,          "out_of_memory",          500, 125)         \
    X(ERR_GUEST,              "guest_error",            502, 125)         \
    X(ERR_UNAVAILABLE,        "unavailable",            503, 125)         \
    X(ERR_NETWORK,            "network_unavailable",    503, 125)         \
    X(ERR_TIMEOUT,            "timeout",                504, 125)         \
    X(ERR_NO_SPACE,           "no_space",               507, 125)         \
    X(ERR_UNREACHABLE,        "daemon_unreachable",     503, 125)         \
    X(ERR_USAGE,              "usage",                  400, 125)

enum err_code {
#define ERR_ENUM(constant, wire, http, exit_status) constant,
    ERR_TABLE(ERR_ENUM)
#undef ERR_ENUM
    ERR_CODE_MAX
};

struct err_quota {   /* of a user (daemon/quota.h), or another limit that gives back */
    const char *name;   /* literal; NULL: it is about none */
    uint64_t limit, used, requested;
};

struct err {
    enum err_code code;
    int sys;        /* errno behind it, 0 where there is none */
    char msg[256];  /* one line, no full stop, no newline */
    char hint[192]; /* one line or "" */
    struct err_quota quota;
};

#define ERR_INIT ((struct err){ .code = ERR_NONE })

/* Sets the error; cuts what is too long. Always returns -1, so that `return err_set(e, …)` reads
 * well. err_sys() appends ": " and the text of the errno value, and maps ENOMEM, ENOSPC/EDQUOT,
 * ETIMEDOUT, EMFILE/ENFILE (ERR_UNAVAILABLE) and what would be ERR_INTERNAL of EROFS (the same) to
 * their own codes; everything else becomes `code`. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));
int err_sys(struct err *e, enum err_code code, int sys, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), cold));
int err_nomem(struct err *e) __attribute__((cold));
/* The code that err_sys() would set, for who has the words already. */
enum err_code err_sys_code(int sys, enum err_code code);

/* Puts "text: " in front of the message of an error that is set; keeps code and hint. Returns
 * -1. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/* Sets what to do about it. Returns -1. */
int err_hint(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

const char *err_wire(enum err_code code);          /* "sandbox_not_found" */
enum err_code err_from_wire(const char *wire);     /* ERR_INTERNAL for a code it does not know */
int err_http(enum err_code code);                  /* 404 */
int err_exit_status(enum err_code code);           /* 125 */
