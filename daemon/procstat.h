/* SPDX-License-Identifier: MIT
 *
 * procstat: what processes use, as /proc tells. Nothing here asks the process itself, so one that
 * hangs or is hostile delays nobody; one that has ended is counted as it was seen last, or not at
 * all.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_use {           /* sums */
    uint64_t cpu_us;        /* user and system */
    uint64_t rss;           /* bytes; memory that two of them share counts twice */
    uint64_t own;           /* the same without memory shared by descriptor (a guest's) */
    uint64_t pss;           /* what is shared counts in parts; 0: not asked for, or not to be had */
    uint64_t read_bytes, written_bytes;     /* from and to disks; 0: not to be had */
    uint32_t processes, threads;
};

/* Adds a process and its children. False: there is none of this pid that runs as `uid` (-1: any) or
 * began at `start_time` (clock ticks since boot; 0: any), and nothing was added. `thorough`: pss,
 * which costs milliseconds for each GiB. */
bool procstat_add(pid_t pid, uid_t uid, uint64_t start_time, bool thorough, struct proc_use *u);
/* When a process began, in clock ticks since boot: with the pid it names one process for ever
 * (proc_pid_stat(5), field 22). ERR_INTERNAL: there is none of this pid. */
int procstat_start(pid_t pid, uint64_t *ret, struct err *e);
/* Adds this process, without its children. */
void procstat_self(struct proc_use *u);
