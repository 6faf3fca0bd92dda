/* SPDX-License-Identifier: MIT
 *
 * share_filter: the seccomp filter that stands in front of virtiofsd. It is put together in the
 * daemon (that needs the heap) and loaded in the child just before exec (that must not).
 *
 * What it does to the calls virtiofsd makes for a guest:
 *   set*uid, set*gid, setgroups   succeed and do nothing: all work is done as the caller
 *   chown family                  succeed and do nothing: all files are the caller's
 *   a mode with setuid or setgid  EPERM, wherever a mode can be given
 *   mknod of a device             EPERM
 *   openat2                       ENOSYS: its mode is in memory, where a filter cannot look
 *   setxattr, removexattr         EOPNOTSUPP, also for what virtiofsd might do on its own
 * All else passes, to virtiofsd's own filter, which is a list of allowed calls.
 */
#pragma once

#include "common/err.h"
#include <linux/filter.h>

struct share_filter {
    struct sock_fprog prog; /* prog.filter: owned */
};

int share_filter_build(struct share_filter *ret, struct err *e);
void share_filter_done(struct share_filter *f);
/* Async-signal-safe; no_new_privs must be set, or CAP_SYS_ADMIN held. 0 or errno. */
int share_filter_load(const struct share_filter *f);
