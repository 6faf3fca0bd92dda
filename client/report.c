/* SPDX-License-Identifier: MIT */
#include "client/app.h"
#include "common/auto.h"
#include <stdarg.h>
#include <stdio.h>

void report(const struct err *e)
{
    fflush(stdout);
    fprintf(stderr, "sbx: %s\n", e->msg);
    if (e->hint[0])
        fprintf(stderr, "hint: %s\n", e->hint);
}

void note(const char *fmt, ...)
{
    autosbuf struct sbuf b = SBUF(4096);
    va_list ap;

    va_start(ap, fmt);
    sbuf_vfmt(&b, fmt, ap);
    va_end(ap);
    fprintf(stderr, "sbx: %s\n", sbuf_str(&b));
}

int for_each_name(struct app *app, char **names, size_t n, name_fn *fn, void *arg)
{
    int status = 0;

    for (size_t i = 0; i < n && !app->interrupted; i++) {
        struct err e = ERR_INIT;
        if (fn(app, names[i], arg, &e) == 0)
            continue;
        if (app->interrupted)
            break;
        report(&e);
        if (!status)
            status = err_exit_status(e.code);
        if (e.code == ERR_UNREACHABLE)      /* the others would say the same */
            break;
    }
    return status;
}
