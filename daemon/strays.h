/* SPDX-License-Identifier: MIT
 *
 * strays: processes that were started for sandboxes, found by what they carry rather than by what
 * somebody wrote down: virtiofsd by the mark in its environment (SHARE_MARK), QEMU by a uid of our
 * range together with its domain's name and a path of ours in its arguments. For the start, which
 * ends those that nobody knows, and for fsck.
 *
 * Both could have been changed by a guest that took its process over; such a virtiofsd is found by
 * its row only, such a QEMU by libvirt only.
 */
#pragma once

#include "common/err.h"
#include "common/limits.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum stray_kind { STRAY_SHARE, STRAY_QEMU };

struct stray_range {            /* whose processes; strings borrowed */
    const char *state_dir;      /* …/sandboxes */
    const char *runtime_dir;    /* …/sandboxes */
    uid_t uid_lo, uid_hi;       /* of QEMUs */
};

struct stray {                  /* valid during the callback */
    enum stray_kind kind;
    pid_t pid;
    int pidfd;                  /* held since before the process was looked at */
    uid_t uid;
    char id[LIMIT_ID + 1];      /* of the sandbox; "" not one of ours by its form */
    const char *socket;         /* STRAY_SHARE: where it listens */
    bool networked;             /* STRAY_QEMU: with a network device */
};
typedef void (*stray_fn)(void *arg, const struct stray *p);

/* All of them, to fn. */
int strays_look(const struct stray_range *range, stray_fn fn, void *arg, struct err *e);
/* Kills what was looked at, whoever has its number by now, and sees it end (2 s at most). */
void stray_end(const struct stray *p);
