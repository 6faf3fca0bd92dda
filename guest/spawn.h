/* SPDX-License-Identifier: MIT
 *
 * spawn: starts the process of an exec with pipes or a terminal. Nothing here waits for the child:
 * it may hang on a file system before it has become the program, and the agent must not.
 */
#pragma once

#include "common/err.h"
#include "common/frame.h"
#include "common/strv.h"
#include "guest/user.h"
#include <stdbool.h>

struct spawn_spec {
    char *const *argv;          /* borrowed, all of it */
    const struct strv *env;     /* whole; its PATH is used for the lookup */
    const struct user *user;
    bool become_user;           /* set ids; else the child stays who we are */
    const char *workdir;        /* "" : the first that works of `fallbacks` */
    const char *fallbacks[3];   /* NULL-terminated */
    bool tty, stdin_open;
    uint16_t rows, cols;
    int group_fd;               /* cgroup.procs to enter, -1 none */
};

/* Ends are non-blocking and close-on-exec; -1 where there is none. With a terminal in_fd and
 * out_fd are the terminal's master, each a descriptor of its own. */
struct spawned {
    pid_t pid;                  /* leads a session and a process group of its own */
    int in_fd, out_fd, err_fd;
    int report_fd;              /* end of file: it has become the program; else a spawn_report */
};

struct spawn_report {
    enum exec_fail kind;
    int sys;
};

/* -1: there is no process; ERR_NO_MEMORY or ERR_INTERNAL. */
int spawn(const struct spawn_spec *spec, struct spawned *ret, struct err *e);
