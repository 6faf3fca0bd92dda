/* SPDX-License-Identifier: MIT */
#include "daemon/space.h"

#include "common/auto.h"
#include "common/limits.h"
#include "common/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

int space_check(const char *dir, uint64_t floor, struct err *e)
{
    struct statvfs fs;
    char has[32], wants[32];

    if (statvfs(dir, &fs) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot tell the free space of %s", dir);
    /* f_bavail, not f_bfree: what is kept for root is for repairs */
    uint64_t avail = (uint64_t)fs.f_bavail * fs.f_frsize;
    uint64_t all = (uint64_t)fs.f_blocks * fs.f_frsize;
    if (floor == SPACE_AUTO)
        floor = all / 20 < GIB ? all / 20 : GIB;
    if (avail >= floor)
        return 0;
    format_size(avail, has);
    format_size(floor, wants);
    err_set(e, ERR_NO_SPACE, "%s has %s free, %s are to stay free there", dir, has, wants);
    return err_hint(e, "remove what is not needed (`sbx ls`, `sbx rm NAME`), or ask the "
                       "administrator for space, or for less min_free_disk");
}

#define ROOM "room"
#define ROOM_BYTES (2 * MIB)

void space_room_use(const char *dir)
{
    autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct statvfs fs;

    if (fd >= 0 && fstatvfs(fd, &fs) == 0 && fs.f_bavail * fs.f_frsize < ROOM_BYTES)
        unlinkat(fd, ROOM, 0);
}

void space_room_keep(const char *dir)
{
    autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat sb;

    if (fd < 0 || (fstatat(fd, ROOM, &sb, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(sb.st_mode) &&
                   sb.st_blocks * 512 >= (off_t)ROOM_BYTES))
        return;
    autoclose int room = openat(fd, ROOM, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (room >= 0 && fallocate(room, 0, 0, ROOM_BYTES) < 0)
        unlinkat(fd, ROOM, 0);
}
