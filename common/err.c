/* SPDX-License-Identifier: MIT */
#include "common/err.h"
#include "common/name.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *wire;
    int http;
    int exit_status;
} err_table[] = {
#define ERR_ROW(constant, wire, http, exit_status) [constant] = { wire, http, exit_status },
    ERR_TABLE(ERR_ROW)
#undef ERR_ROW
};
static_assert(sizeof(err_table) / sizeof(err_table[0]) == ERR_CODE_MAX, "a row for each code");

/* Copies text to dst (cap bytes with the NUL) as one printable line: what is not plain UTF-8
 * becomes '?', and the cut falls between characters. Returns the length. */
static size_t copy_line(char *dst, size_t cap, const char *text)
{
    size_t left = strlen(text);
    size_t n = 0;

    while (left > 0) {
        size_t step = utf8_step_plain(text, left);
        size_t take = step > 0 ? step : 1;

        /* a valid character that is not plain is replaced as a whole */
        if (step == 0 && utf8_step(text, left) > 0)
            take = utf8_step(text, left);
        if (n + (step > 0 ? step : 1) >= cap)
            break;
        if (step > 0) {
            memcpy(dst + n, text, step);
            n += step;
        } else {
            dst[n++] = '?';
        }
        text += take;
        left -= take;
    }
    dst[n] = '\0';
    return n;
}

static __attribute__((format(printf, 3, 0))) void format_line(char *dst, size_t cap,
                                                              const char *fmt, va_list ap)
{
    /* Through a buffer of its own: an argument may point into the object that is being set. */
    char text[sizeof(((struct err *)0)->msg) * 2];

    if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
        text[0] = '\0';
    copy_line(dst, cap, text);
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    char msg[sizeof(e->msg)];
    va_list ap;

    va_start(ap, fmt);
    format_line(msg, sizeof(msg), fmt, ap);
    va_end(ap);

    *e = (struct err){ .code = code };
    memcpy(e->msg, msg, sizeof(e->msg));
    return -1;
}

static const char *sys_text(int sys)
{
#ifdef __GLIBC__
    /* no lock, no locale, no buffer */
    const char *text = strerrordesc_np(sys);
#else
    const char *text = strerror(sys);
#endif
    return text ? text : "unknown error";
}

enum err_code err_sys_code(int sys, enum err_code code)
{
    switch (sys) {
    case ENOMEM:
        return ERR_NO_MEMORY;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    case EMFILE:
    case ENFILE:
        return ERR_UNAVAILABLE;
    case EROFS:
        return code == ERR_INTERNAL ? ERR_UNAVAILABLE : code;
    default:
        return code;
    }
}

int err_sys(struct err *e, enum err_code code, int sys, const char *fmt, ...)
{
    char msg[sizeof(e->msg)];
    const char *text = sys_text(sys);
    size_t room = sizeof(msg) - strlen(text) - 2;
    va_list ap;

    va_start(ap, fmt);
    format_line(msg, room, fmt, ap);    /* the system's words are the more important half */
    va_end(ap);

    *e = (struct err){ .code = err_sys_code(sys, code), .sys = sys };
    snprintf(e->msg, sizeof(e->msg), "%.*s: %s", (int)room, msg, text);
    return -1;
}

int err_nomem(struct err *e)
{
    *e = (struct err){ .code = ERR_NO_MEMORY, .sys = ENOMEM, .msg = "out of memory" };
    return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char prefix[sizeof(e->msg)];
    char old[sizeof(e->msg)];
    size_t n, room;
    va_list ap;

    va_start(ap, fmt);
    format_line(prefix, sizeof(prefix) - 2, fmt, ap);
    va_end(ap);

    n = strlen(prefix);
    memcpy(old, e->msg, sizeof(old));
    memcpy(e->msg, prefix, n);
    e->msg[n++] = ':';
    e->msg[n++] = ' ';
    room = sizeof(e->msg) - n;
    copy_line(e->msg + n, room, old);
    return -1;
}

int err_hint(struct err *e, const char *fmt, ...)
{
    char hint[sizeof(e->hint)];
    va_list ap;

    va_start(ap, fmt);
    format_line(hint, sizeof(hint), fmt, ap);
    va_end(ap);
    memcpy(e->hint, hint, sizeof(e->hint));
    return -1;
}

static bool code_known(enum err_code code)
{
    return (unsigned)code < ERR_CODE_MAX;
}

const char *err_wire(enum err_code code)
{
    return err_table[code_known(code) ? code : ERR_INTERNAL].wire;
}

enum err_code err_from_wire(const char *wire)
{
    if (wire)
        for (unsigned i = ERR_NONE + 1; i < ERR_CODE_MAX; i++)
            if (strcmp(err_table[i].wire, wire) == 0)
                return (enum err_code)i;
    return ERR_INTERNAL;
}

int err_http(enum err_code code)
{
    return err_table[code_known(code) ? code : ERR_INTERNAL].http;
}

int err_exit_status(enum err_code code)
{
    return err_table[code_known(code) ? code : ERR_INTERNAL].exit_status;
}
