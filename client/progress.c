/* SPDX-License-Identifier: MIT */
#include "client/progress.h"
#include "common/io.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_AFTER_MS 300   /* what is quicker needs no words */

void progress_start(struct progress *p, const char *text)
{
    const char *term = getenv("TERM");
    bool able = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;

    *p = (struct progress){ .text = able ? text : NULL, .start_ms = now_mono_ms(), .shown_s = -1 };
}

void progress_tick(struct progress *p)
{
    int64_t ms = now_mono_ms() - p->start_ms;

    if (!p->text || ms < PROGRESS_AFTER_MS || ms / 1000 == p->shown_s)
        return;
    p->shown_s = ms / 1000;
    p->drawn = true;
    fprintf(stderr, "\r%s… %" PRId64 " s\033[K", p->text, p->shown_s);
    fflush(stderr);
}

void progress_end_line(struct progress *p)
{
    if (p->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    p->drawn = false;
    p->shown_s = -1;
}

void progress_end(struct progress *p)
{
    progress_end_line(p);
    p->text = NULL;
}
