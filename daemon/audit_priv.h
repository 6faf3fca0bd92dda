/* SPDX-License-Identifier: MIT
 *
 * audit_priv: what audit*.c share: the state behind the lock, names of files, lines of a file. Only
 * they include it.
 */
#pragma once

#include "common/limits.h"
#include "daemon/audit.h"
#include "daemon/digest.h"

#include <pthread.h>

#define AUDIT_LINE_MAX 4096     /* no record is longer; texts in it are cut by whoever fills it */
#define AUDIT_SPARE (64 * KIB)  /* set aside for stop and rm on a full disk */
#define AUDIT_FILES_MAX 1000
#define AUDIT_NAME_MAX 32

struct audit {
    enum audit_mode mode;       /* constant, as the next three */
    uint64_t max_size;
    uint32_t files;
    int dir_fd;                 /* owned */

    pthread_mutex_t lock;       /* guards all below; a leaf */
    int fd;                     /* owned: audit.log */
    uint64_t size;              /* of it: all whole lines */
    uint64_t room;              /* end of the blocks that are set aside; UINT64_MAX: cannot be */
    unsigned reserved;          /* records that have been promised room */
    uint64_t seq;               /* of the last record, 0 none */
    char hash[DIGEST_HEX];      /* of its line; zeros before the first one */
    uint64_t *first;            /* owned: first seq in audit.log, audit.log.1, …; 0: no such file */
    uint64_t lost;              /* records that could not be written since the last one */
    bool dirty;                 /* written since the last sync */
    bool ragged;                /* behind `size` is what could not be taken away */
    struct err failed;          /* code set: nothing is written any more */
};

/* "audit.log", "audit.log.1", …; buf of AUDIT_NAME_MAX. */
const char *audit_name(unsigned n, char *buf);
/* Read only, no link followed. -1 with errno. */
int audit_open_file(int dir_fd, unsigned n);

/* Lines of a file from `pos` to `end` (UINT64_MAX: as far as it goes now). */
struct audit_lines {
    int fd;                     /* owned, -1 none */
    uint64_t pos, end;          /* pos: behind what is in buf */
    size_t at, have;
    char buf[16 * KIB];
};
void audit_lines_done(struct audit_lines *l);
/* 1: a whole line with its newline, borrowed; 0: none here (what is left is *ret_len bytes that do
 * not end in a newline, or are too long for a record). */
int audit_lines_next(struct audit_lines *l, const char **ret, size_t *ret_len, struct err *e);
