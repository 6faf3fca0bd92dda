/* SPDX-License-Identifier: MIT
 *
 * upgrade: the sbx-stream protocol: one exec's input and output on the client's socket after the
 * 101. Records are those of common/stream.h.
 */
#pragma once

#include "daemon/call.h"
#include "daemon/exec.h"

/* Attaches a reader from these offsets on and makes the upgrade the reply of the call. *x is taken
 * over, and cleared on success and failure. */
int upgrade_attach_take(struct call *c, struct exec **x, uint64_t stdout_offset,
                        uint64_t stderr_offset, struct err *e);
