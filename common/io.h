/* SPDX-License-Identifier: MIT
 *
 * io: reading and writing whole things, and deadlines. All handle EINTR. A deadline is a point on
 * CLOCK_MONOTONIC in milliseconds; DEADLINE_NONE never passes.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DEADLINE_NONE INT64_MAX

int64_t now_mono_ms(void);
int64_t now_mono_us(void);
int64_t now_real_us(void);
int64_t deadline_in(int64_t ms);
int deadline_left(int64_t deadline);   /* for poll(2): 0..INT_MAX, -1 for DEADLINE_NONE */

/* Whole buffer or an error; fd may be non-blocking (it is polled). ERR_TIMEOUT at the deadline,
 * ERR_UNAVAILABLE at end of file (reads) or a closed peer (writes; SIGPIPE must be ignored). */
int io_read_full(int fd, void *buf, size_t n, int64_t deadline, struct err *e);
int io_write_full(int fd, const void *buf, size_t n, int64_t deadline, struct err *e);
/* Waits for events; returns 1 ready, 0 deadline passed, -1 error. */
int io_wait(int fd, short events, int64_t deadline, struct err *e);
/* A whole file, at most max bytes (ERR_TOO_LARGE), NUL added and not counted. */
int io_read_file_at(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len,
                    struct err *e);
/* Creates path.tmp, writes, fsyncs, renames over path: a reader sees the old or the new, whole. */
int io_write_file_at(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                     struct err *e);
int fd_set_nonblock(int fd, bool on, struct err *e);
/* mkdir that is content with what is there if it is a directory. */
int io_mkdir(const char *path, mode_t mode, struct err *e);
int io_mkdir_parents(const char *path, mode_t mode, struct err *e);
/* Removes a tree by openat/unlinkat below dirfd, never following a link or crossing a mount. Not
 * there is success. */
int io_remove_tree(int dirfd, const char *name, struct err *e);
/* SCM_RIGHTS over a Unix socket: one fd with one byte. */
int io_send_fd(int sock, int fd, struct err *e);
int io_recv_fd(int sock, int64_t deadline, int *ret_fd, struct err *e);
