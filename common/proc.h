/* SPDX-License-Identifier: MIT
 *
 * proc: the one place that runs other programs. argv arrays, no shell, PATH is not searched for
 * anything but an absolute path or a name found in a fixed list (/usr/sbin:/usr/bin:/sbin:/bin).
 * The child has only the fds listed, default signals, a clean environment and umask 022.
 */
#pragma once

#include "common/err.h"
#include "common/strv.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_spec {
    const char *const *argv;    /* borrowed, NULL-terminated */
    const char *const *env;     /* NULL: PATH, LC_ALL=C.UTF-8, HOME=/ only */
    int stdin_fd;               /* borrowed; -1: /dev/null */
    int stdout_fd;              /* borrowed; -1: /dev/null */
    int stderr_fd;              /* borrowed; -1: /dev/null */
    const int *keep_fds;        /* borrowed: same number in the child */
    size_t n_keep_fds;
    /* Runs in the child after fork, before exec, with only async-signal-safe work in mind (fork
     * from a threaded process): namespaces, ids, filters. Returns 0, or errno. */
    int (*prepare)(void *arg);
    void *prepare_arg;
    bool new_session;
};

/* Starts; *ret_pidfd may be NULL. The caller reaps. A failure to exec is reported here (by a
 * close-on-exec pipe), not by the child's exit. */
int proc_spawn(const struct proc_spec *spec, pid_t *ret_pid, int *ret_pidfd, struct err *e);

/* Runs to the end: stdout (at most max_out bytes, further ones are dropped) to *ret_out when not
 * NULL; exit status other than 0, a signal or the deadline is an error whose message carries the
 * last line of stderr, and ERR_NO_SPACE when that line says so. At the deadline the child is killed
 * and reaped, and when the caller's thread ends by whatever means it is killed by the kernel (its
 * own children are not: see unshare(1)). */
int proc_run(const char *const *argv, int64_t deadline, size_t max_out, char **ret_out,
             struct err *e);

/* Waits for the end of a child by deadline; 1 with the wait status, 0 deadline, -1 error. */
int proc_wait(pid_t pid, int pidfd, int64_t deadline, int *ret_status, struct err *e);
