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
