/* SPDX-License-Identifier: MIT
 *
 * space: the floor of free space below which nothing new is made (`min_free_disk`). Disks of
 * sandboxes grow as they are written, so this is no reservation: it keeps room for those that run,
 * for the database, and for the host.
 */
#pragma once

#include "common/err.h"
#include <stdint.h>

#define SPACE_AUTO UINT64_MAX   /* 1 GiB, or 5 % of a smaller file system */

/* ERR_NO_SPACE when the file system of `dir` has less than `floor` bytes for us. Any thread. */
int space_check(const char *dir, uint64_t floor, struct err *e);

/* Room that is kept for a start: a file `room` of 2 MiB in `dir`. SQLite and libvirt write when
 * they are opened, and libvirt ends a guest that it finds and cannot note. space_room_use() gives
 * it up where the file system has less than that; space_room_keep() sets it aside again, if there
 * is some. What fails is tried again the next time. */
void space_room_use(const char *dir);
void space_room_keep(const char *dir);
