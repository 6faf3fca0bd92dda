/* SPDX-License-Identifier: MIT
 *
 * privs: what the process inherits and what it keeps. Both functions act on the calling thread and
 * are to be called before there is another one.
 */
#pragma once

#include "common/err.h"

/* Closes what was inherited but 0, 1, 2 and the first `listen_fds` from 3 on, opens /dev/null for
 * those of the three that are closed, reduces the environment to what is needed, sets umask 022,
 * ignores SIGPIPE, sets all other signals to their defaults, raises the number of open files. */
int privs_clean(int listen_fds, struct err *e);

/* Keeps the capabilities in privs.c's list, drops all others for good, and sets no_new_privs. */
int privs_drop(struct err *e);
