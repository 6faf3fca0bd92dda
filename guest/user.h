/* SPDX-License-Identifier: MIT
 *
 * user: accounts of the guest, read from its own /etc/passwd and /etc/group. The C library's
 * lookups load modules at run time, which a static program cannot do.
 */
#pragma once

#include "common/err.h"
#include "common/limits.h"
#include <stddef.h>
#include <sys/types.h>

#define USER_GROUPS 128

struct user {
    char name[LIMIT_USER + 1];      /* "" for a uid without an account */
    uid_t uid;
    gid_t gid;
    char home[256], shell[256];
    gid_t groups[USER_GROUPS];      /* with gid; what does not fit is left out */
    size_t n_groups;
};

/* By name or decimal uid; a uid without an account gets its own number as group and / as home.
 * ERR_INVALID: there is no such name. */
int user_find(const char *name, struct user *ret, struct err *e);
