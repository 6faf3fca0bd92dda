/* SPDX-License-Identifier: MIT
 *
 * group: which processes belong to an exec. With cgroup2 each exec has a cgroup of its own, which
 * nothing in it can leave unnoticed; without (tests, images with another idea of cgroups) its
 * session stands for it.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Cgroups below this directory from now on; -1 when it cannot be made, and sessions are used. */
int group_init(const char *cgroup2, struct err *e);
/* Makes the cgroup and opens it for a child to enter: *ret_fd, or -1 where there are none. */
void group_new(uint32_t stream, int *ret_fd);
/* In the child: enters it. errno or 0. */
int group_enter(int fd);
/* SIGKILL for all that belong to it. `sid`: its session, 0 when nothing is known of it. */
void group_kill(uint32_t stream, pid_t sid);
/* Takes cgroups away that nobody is in any more, but not those `in_use` says. */
void group_sweep(bool (*in_use)(void *arg, uint32_t stream), void *arg);
