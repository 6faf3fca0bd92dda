/* SPDX-License-Identifier: MIT */
#include "daemon/space.h"

#include "common/limits.h"
#include "common/parse.h"

#include <errno.h>
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
