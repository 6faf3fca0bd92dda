/* SPDX-License-Identifier: MIT
 *
 * audit_cmd: `sandboxd audit verify`, for an administrator, beside a daemon or without one.
 */
#pragma once

/* argv[0] is "audit". The exit status: 0 intact, 1 broken or not to be read, 2 usage. */
int audit_cmd(int argc, char **argv);
