/* SPDX-License-Identifier: MIT
 *
 * fsck_cmd: `sandboxd fsck`: says where database and host differ, and repairs that where no daemon
 * runs. argv[0] is "fsck". Exit status: 0 clean (or clean now), 1 findings, 2 could not look.
 */
#pragma once

int fsck_cmd(int argc, char **argv);
