/* SPDX-License-Identifier: MIT
 *
 * progress: one line on stderr that is written over while something takes long: "creating sandbox…
 * 3 s". Nothing at all when stderr is no terminal. Cleared at the end, so that nothing of it stays.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *text;       /* borrowed; NULL: off */
    int64_t start_ms, shown_s;
    bool drawn;
};

void progress_start(struct progress *p, const char *text);
void progress_tick(struct progress *p);     /* draws when there is something new to say */
void progress_end_line(struct progress *p); /* clears it, for other output; it comes back */
void progress_end(struct progress *p);
