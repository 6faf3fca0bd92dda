/* SPDX-License-Identifier: MIT
 *
 * backup_cmd: `sandboxd backup FILE`: a copy of the database for an administrator, while a daemon
 * runs or not. argv[0] is "backup". Returns the exit status; prints errors itself.
 */
#pragma once

int backup_cmd(int argc, char **argv);
