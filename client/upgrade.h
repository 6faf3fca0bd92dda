/* SPDX-License-Identifier: MIT
 *
 * upgrade: a connection that leaves HTTP: request, 101, and then bytes in both directions. libcurl
 * has no part in it, as it gives no access to a reply of 101.
 */
#pragma once

#include "client/app.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/stream.h"
#include <stddef.h>
#include <stdint.h>

/* A connection and what was read of it and not used yet. */
struct upgrade {
    int fd;             /* owned; -1 closed */
    size_t n;
    uint8_t buf[STREAM_HEADER + LIMIT_STREAM_FRAME];
};

/* GET `path` with Upgrade: sbx-stream. The daemon's error, if it gives another answer than 101. */
int upgrade_open(struct app *app, const char *path, struct upgrade *u, struct err *e);
void upgrade_close(struct upgrade *u);
