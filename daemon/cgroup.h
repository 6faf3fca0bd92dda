/* SPDX-License-Identifier: MIT
 *
 * cgroup: limits for QEMU and virtiofsd of a sandbox together, by control groups of version 2:
 *
 *     <dir>/                     made in a group that is there, if need be; no process in it
 *         <id>/                  a sandbox that runs: cpu.weight, memory.max, pids.max
 *
 * Not below the group of our own service: the service manager cannot start a service again in whose
 * group controllers are given on, and sandboxes outlive it.
 *
 * Plain files, no library. What cannot be had (version 1, no controllers, a mount that is
 * read-only) is ERR_UNAVAILABLE with the reason. Any thread; calls about one sandbox one at a time.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroups;
struct sbuf;

/* Where the kernel's control groups of version 2 are looked for. */
#define CGROUP_MOUNT "/sys/fs/cgroup"
/* Appends the path of the group this process is in. ERR_UNAVAILABLE: not one of version 2. */
int cgroup_self(struct sbuf *path, struct err *e);
/* Moves this process from the group `dir` into one below it that is made for it, and whose name is
 * no sandbox's. */
int cgroup_step_aside(const char *dir, struct err *e);

struct cgroup_limits {
    uint32_t cpu_weight;        /* 1 to 10000; the kernel's default is 100 */
    uint64_t memory_max;        /* bytes */
    uint32_t pids_max;          /* threads count as well */
};

/* dir: an absolute path, whose parent is a control group. What former daemons left in it stays. */
int cgroup_open(const char *dir, struct cgroups **ret, struct err *e);
const char *cgroup_dir(const struct cgroups *c);        /* borrowed */
void cgroup_close(struct cgroups *c);           /* the groups stay; NULL is fine */

/* The group of a sandbox with these limits, also if it is there already. */
int cgroup_make(struct cgroups *c, const char *id, const struct cgroup_limits *l, struct err *e);
/* Its descriptor, owned, for CLONE_INTO_CGROUP: what is born there never was elsewhere. */
int cgroup_fd(struct cgroups *c, const char *id, struct err *e);
/* Moves a process with all its threads, and its children; one that has ended is
 * success. What it has allocated before stays on its
 * old account. */
int cgroup_enter(struct cgroups *c, const char *id, pid_t pid, struct err *e);
/* Kills what is still in it, and removes it; not there is success. */
int cgroup_drop(struct cgroups *c, const char *id, struct err *e);
/* Ids of all groups there are, to fn; names that are no ids are passed over. */
typedef void (*cgroup_fn)(void *arg, const char *id);
int cgroup_list(struct cgroups *c, cgroup_fn fn, void *arg, struct err *e);
