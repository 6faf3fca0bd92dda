/* SPDX-License-Identifier: MIT
 *
 * share: one virtiofsd per sandbox with a workspace, in user, mount, pid and network namespaces of
 * its own, as the caller on the host and uid 1000 inside: whoever in the guest creates a file, it
 * is the caller's on the host at once. A seccomp filter in front refuses setuid and setgid bits and
 * device nodes, and turns changes of owner into nothing. Theory: top of share.c, and
 * docs/SECURITY-MODEL.md.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* In the environment of each share's processes, followed by socket_path: whose they are. */
#define SHARE_MARK "SBX_SHARE="

struct share_spec {
    const char *socket_path; /* bound here, owned by qemu_uid, 0600 */
    uid_t qemu_uid;
    gid_t qemu_gid;
    int dir_fd; /* O_PATH fd of the workspace, from workspace_open() (borrowed) */
    bool read_only;
    uid_t uid; /* the caller */
    gid_t gid;
    const gid_t *groups; /* supplementary, borrowed */
    size_t n_groups;
    int log_fd;          /* its stderr (borrowed) */
    int cgroup_fd;       /* control group that it is born in (borrowed); 0 or less: the daemon's */
    const char *program; /* virtiofsd; NULL or "": found where distributions put it */
};

/* Identity of the process that survives a daemon restart: pid plus start time from /proc. */
struct share_proc {
    pid_t pid;
    uint64_t start_time;
};

/* Returns when virtiofsd runs and its socket can be connected to; it ends by itself when QEMU
 * closes the connection, and goes on when the daemon ends. ERR_UNAVAILABLE when there is no
 * virtiofsd. Any thread; needs CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID and, for callers with uid 0,
 * CAP_SETFCAP. */
int share_start(const struct share_spec *spec, struct share_proc *ret, struct err *e);
/* Kills (if it is still that process) and, if it is our child, reaps. All its processes are gone
 * with it: it is the first one of their pid namespace. */
void share_stop(const struct share_proc *p);
bool share_alive(const struct share_proc *p);
/* pidfd to watch its end, -1 when it is gone. */
int share_pidfd(const struct share_proc *p);
