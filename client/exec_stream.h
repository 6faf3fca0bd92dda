/* SPDX-License-Identifier: MIT
 *
 * exec_stream: one exec's connection: the upgrade, then a poll loop between terminal or pipes and
 * the records of common/stream.h until the exec ends, the user leaves, or the connection breaks.
 *
 * Memory is bounded by one record per direction: nothing more is read from the daemon while stdout
 * or stderr do not take what came, and nothing from stdin while the daemon does not. stdin, stdout
 * and stderr keep their flags, as they may be shared with other programs.
 */
#pragma once

#include "client/app.h"
#include "client/tty.h"
#include "common/err.h"
#include <stdbool.h>

struct stream_spec {        /* all borrowed */
    const char *sandbox;    /* as the user named it */
    const char *exec;       /* id */
    bool tty;               /* the exec has a pty */
    bool stdin;             /* send ours */
    bool lives;             /* created with detach: it goes on when the connection ends */
    bool watch;             /* signals make us leave and are not the command's */
    struct detach_keys keys;
};

/* Exit status for the shell: the command's, 128+n when a signal made us leave, 0 after the detach
 * keys. -1: broken connection or another failure of ours. The terminal is restored either way. */
int exec_stream_run(struct app *app, const struct stream_spec *spec, struct err *e);
