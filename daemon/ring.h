/* SPDX-License-Identifier: MIT
 *
 * ring: the last LIMIT_EXEC_RING bytes of one output stream with absolute offsets, in a file, so
 * that they survive the daemon: data is written before the header that counts it, and what a crash
 * loses between the two the guest sends again (it keeps what was not acknowledged by credit).
 * Thread-safe. The file is 0600 root's, in the sandbox's runtime directory.
 */
#pragma once

#include "common/err.h"
#include <stddef.h>
#include <stdint.h>

struct ring;

/* Opens or creates `name` below dirfd (borrowed; must outlive the ring). */
int ring_open(int dirfd, const char *name, size_t size, struct ring **ret, struct err *e);
void ring_free(struct ring *r);                       /* keeps the file */
/* Nothing will be written any more: gives the descriptor back. Reading opens the file each time;
 * when somebody has removed it meanwhile it fails with ERR_OFFSET_GONE. */
void ring_park(struct ring *r);
/* Appends at `offset`, which must be <= end: bytes before end are known already and skipped.
 * An offset beyond end is ERR_GUEST. */
int ring_write(struct ring *r, uint64_t offset, const void *data, size_t len, struct err *e);
uint64_t ring_start(struct ring *r);                  /* oldest offset that can be read */
uint64_t ring_end(struct ring *r);
/* Copies up to cap bytes from *offset on and advances it. An offset before start is moved to start
 * and the bytes lost are returned in *ret_lost. Returns the bytes copied, 0 at the end. */
int64_t ring_read(struct ring *r, uint64_t *offset, void *buf, size_t cap, uint64_t *ret_lost,
                  struct err *e);
