/* SPDX-License-Identifier: MIT */
#include "daemon/cgroup_cmd.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "daemon/cgroup.h"
#include "daemon/notify.h"

#include <signal.h>
#include <stdio.h>

static int keep(struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    sigset_t set;
    int sig;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (cgroup_self(&path, e) < 0 || cgroup_step_aside(sbuf_str(&path), e) < 0)
        return -1;
    notify_ready();
    sigwait(&set, &sig);
    return 0;
}

int cgroup_cmd(int argc, char **argv)
{
    struct err e = ERR_INIT;

    if (argc != 1) {
        fputs("Usage: sandboxd cgroup\n"
              "\n"
              "Keeps the control group that sandboxd-guests.service has for sandboxes. For\n"
              "that unit only.\n", stderr);
        return 2;
    }
    if (keep(&e) == 0)
        return 0;
    fprintf(stderr, "sandboxd: sandboxes have no control group: %s\n", e.msg);
    return 1;
}
