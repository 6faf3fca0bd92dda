/* SPDX-License-Identifier: MIT
 *
 * logfile: logs of sandboxes that stay within bounds (common/limits.h). Readers who follow one see
 * it become shorter, and go on behind its first LIMIT_LOG_KEPT bytes.
 */
#pragma once

#include "common/err.h"
#include <stddef.h>

/* Bounds a log in place: its last LIMIT_LOG_KEPT bytes stay, as its first ones. fd appends, and so
 * may others: what they write in between comes before them, or is lost if it came before the
 * cut. */
void logfile_cut(int fd);
/* Appends to a file, made if need be, and cuts it when it is beyond LIMIT_GUEST_LOG. */
int logfile_append(const char *path, const char *text, size_t len, struct err *e);
