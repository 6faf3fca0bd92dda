/* SPDX-License-Identifier: MIT
 *
 * image_cmd: `sandboxd image …`, a command of its own: it never meets the daemon's threads and
 * works beside a running daemon.
 */
#pragma once

/* argv[0] is "image". Returns the exit status. */
int image_cmd(int argc, char **argv);
