/* SPDX-License-Identifier: MIT
 *
 * each: one thing done to several names. More than one go at the same time, each in a child of its
 * own, as stopping twenty sandboxes need not take twenty times as long; what they say is shown in
 * the order of the names. A failure is reported and the others go on.
 */
#pragma once

#include "client/app.h"

#define EACH_AT_ONCE 16
#define EACH_AT_ONCE_SSH 4      /* an sshd refuses many logins at once */

/* 0: done, the name goes to stdout; 1: done, nothing to say; -1 with the error set. */
typedef int each_fn(struct app *app, const char *name, void *arg, struct err *e);

/* `progress` is shown while it lasts ("removing"). Exit status: 0, or that of the first failure. */
int each_name(struct app *app, char **names, size_t n, each_fn *fn, void *arg, const char *progress,
              struct err *e);
