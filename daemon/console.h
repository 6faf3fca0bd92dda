/* SPDX-License-Identifier: MIT
 *
 * console: what a machine prints, from QEMU to its log, within bounds whatever the guest does.
 *
 * QEMU writes to a pipe with a name, BASE.out, and never waits for its reader: what does not fit is
 * dropped. Not so at a serial port ("console": "serial"): that is busy then, as a real one is.
 * Programs of the guest wait, and its kernel prints some lines a second at most, with all else
 * standing still meanwhile, until a daemon reads again. (QEMU opens the pipe for reading as well,
 * so the pipe lives as long as QEMU.) The daemon reads LIMIT_CONSOLE_RATE bytes a second at most
 * and keeps the log below LIMIT_CONSOLE_LOG and one read. While no daemon is there the pipe keeps
 * its first 64 KiB for the next one.
 *
 * BASE.in is the machine's input; nobody writes to it.
 *
 * The pipes belong to QEMU's uid: whatever comes out of them is a guest's word.
 */
#pragma once

#include "common/err.h"
#include "daemon/evloop.h"
#include <sys/types.h>

struct console;

/* Makes both pipes anew; the directory is root's. */
int console_make(const char *base, uid_t uid, gid_t gid, struct err *e);
/* Reads on the event thread from now on, and appends to the log, which is made if need be. *ret is
 * NULL if there is no pipe: the machine was started by an older sandboxd, and its QEMU writes the
 * log itself. */
int console_open(struct evloop *loop, const char *base, const char *log, struct console **ret,
                 struct err *e);
/* Takes what the pipe still has first. Not on the event thread; NULL is fine. */
void console_close(struct console *c);
