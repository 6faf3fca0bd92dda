/* SPDX-License-Identifier: MIT
 *
 * jail: what is given up before the first byte from outside is read. After it there is no
 * capability in any set and no way to one, no file can be opened, no program run, no process made
 * or seen; sockets are of IPv4 and IPv6 only, and those that were handed over. A system call that
 * is not on the list ends the program.
 */
#pragma once

#include "common/err.h"
#include <sys/types.h>

struct jail {
    uid_t uid;              /* to become, if root */
    gid_t gid;
    unsigned files;         /* descriptors at most */
};

/* Closes all descriptors but 0, 1, 2 and the n of `keep`. */
int jail_close_others(const int *keep, size_t n, struct err *e);
/* Root only, and only where it is root: no groups, gid, uid. ERR_USAGE if that is root again. */
int jail_become(const struct jail *j, struct err *e);
/* All the rest. There is no way back; a failure in the middle must end the program. Under
 * sanitizers, which need more than that, memory, processes and system calls are not limited. */
int jail_enter(const struct jail *j, struct err *e);
