/* SPDX-License-Identifier: MIT
 *
 * audit: who did what: an append-only file of JSON lines, <dir>/audit.log, each with the hash of
 * the line before it. docs/AUDIT.md has the format and what is promised.
 *
 * Any thread. One lock orders the records and is held while a line is written; it is a leaf. Lines
 * reach the page cache before audit_write() returns, so a daemon that is killed loses none; the
 * disk has them after audit_sync(), which the daemon calls every few seconds.
 *
 * Room: audit_reserve() sets blocks of the file system aside before something is done, so that the
 * record of what was done finds them. A failed write leaves the file as it was.
 */
#pragma once

#include "common/api.h"
#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct audit;
struct sbuf;

enum audit_mode {
    AUDIT_REQUIRED,         /* what cannot be recorded is refused */
    AUDIT_BEST_EFFORT,      /* it is done all the same, and the number of lost records recorded */
    AUDIT_OFF,
    AUDIT_MODE_MAX
};
/* "required", "best-effort", "off"; -1 for no mode. */
int audit_mode_parse(const char *word);

struct audit_options {
    const char *dir;        /* borrowed for the call */
    enum audit_mode mode;
    uint64_t size;          /* of a file, before the next one is begun */
    uint32_t files;         /* old ones kept: audit.log.1 … */
    bool repair;            /* the first record is a "repair", not a "start" */
};

/* Goes on behind the last record that is there. What follows it (a line that was not written to its
 * end) is moved to audit.log.torn, and recorded. A full disk is no failure: reserving will be. With
 * AUDIT_OFF *ret is NULL, which all functions below take. */
int audit_open(const struct audit_options *o, struct audit **ret, struct err *e);
void audit_free(struct audit *a);
enum audit_mode audit_mode(const struct audit *a);

/* Sets room for some records aside; audit_write() gives one back, audit_release() the others.
 * `frees`: for what makes room itself, the last AUDIT_SPARE bytes may be used. 1: this file system
 * cannot do that; nothing is reserved, and only a write shows whether there is room. */
int audit_reserve(struct audit *a, unsigned records, bool frees, struct err *e);
void audit_release(struct audit *a, unsigned records);
/* seq, time and prev are filled in. What has nothing reserved leaves to others what they have, and
 * the spare. ERR_NO_SPACE, or ERR_UNAVAILABLE with the cause. What fails is
 * counted, and the next record that can be written is one of kind "lost" in front. */
int audit_write(struct audit *a, struct api_audit_record *r, bool reserved, struct err *e);
/* Appends a record as a line of the log, with its newline; `line` is new. */
int audit_line(const struct api_audit_record *r, struct sbuf *line, struct err *e);
/* To the disk. After a failure nothing can be recorded until the next start: the kernel may have
 * thrown away what it could not write. */
int audit_sync(struct audit *a, struct err *e);

/* The last record: its number, and the hash of its line. */
uint64_t audit_head(struct audit *a);

/* A place in the log that moves forward, through rotations. One thread. */
struct audit_reader;
/* From the first record that is not before `seq`. */
int audit_reader_new(struct audit *a, uint64_t seq, struct audit_reader **ret, struct err *e);
void audit_reader_free(struct audit_reader *r);
/* 1: a line with its newline, borrowed until the next call; 0: no more so far. */
int audit_reader_next(struct audit_reader *r, const char **ret, size_t *ret_len, struct err *e);

/* Checks all files from the oldest one on. The first record's `prev` cannot be checked once the
 * file before it is gone. With a running daemon's `a` also whether the end is there; NULL: files of
 * `dir` as they are. A broken chain is a result, not a failure. The caller frees *ret. */
int audit_verify(struct audit *a, const char *dir, struct api_audit_verdict *ret, struct err *e);
