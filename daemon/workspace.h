/* SPDX-License-Identifier: MIT
 *
 * workspace: opens the directory a user wants to share, with that user's rights. A child takes the
 * caller's uid, gid and groups, opens the path O_PATH|O_DIRECTORY, and passes the fd back; all
 * later use is of that fd. Refused: "/", anything that holds or lies in the state or runtime
 * directory, what the caller cannot read and search, and (unless read-only is asked) cannot write.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct identity {
    uid_t uid;
    gid_t gid;
    gid_t groups[64];
    size_t n_groups;
};

/* *ret_path: the path as the kernel resolved it (owned). ERR_WORKSPACE_INVALID or
 * ERR_WORKSPACE_DENIED with a hint. `forbidden`: NULL-terminated directories. */
int workspace_open(const struct identity *who, const char *path, bool read_only,
                   const char *const *forbidden, int *ret_fd, char **ret_path, struct err *e);
