/* SPDX-License-Identifier: MIT */
#include "daemon/view.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

static bool is_embedded(const struct config *c)
{
    return strcmp(c->libvirt_uri, "embed") == 0 || strstr(c->libvirt_uri, ":///embed") != NULL;
}

/* A view left by a former daemon: running guests use it. */
static bool is_mounted(const char *view)
{
    struct statx sx;
    struct statvfs fs;

    return statx(AT_FDCWD, view, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &sx) == 0 &&
           (sx.stx_attributes_mask & sx.stx_attributes & STATX_ATTR_MOUNT_ROOT) &&
           statvfs(view, &fs) == 0 && (fs.f_flag & ST_RDONLY);
}

int view_open(const struct config *c, struct err *e)
{
    const unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    autosbuf struct sbuf images = SBUF(LIMIT_PATH), view = SBUF(LIMIT_PATH);

    sbuf_fmt(&images, "%s/images", c->state_dir);
    sbuf_fmt(&view, "%s/view", c->runtime_dir);
    if (is_embedded(c) && (unshare(CLONE_NEWNS) < 0 ||
                           mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0))
        return err_sys(e, ERR_INTERNAL, errno, "cannot make a mount namespace");
    if (io_mkdir(sbuf_str(&images), 0711, e) < 0 || io_mkdir(sbuf_str(&view), 0711, e) < 0)
        return -1;
    if (!is_embedded(c) && is_mounted(sbuf_str(&view)))
        return 0;
    if (mount(sbuf_str(&images), sbuf_str(&view), NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, sbuf_str(&view), NULL, MS_PRIVATE, NULL) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot mount %s", sbuf_str(&view));
    if (mount(NULL, sbuf_str(&view), NULL, flags, NULL) < 0) {
        err_sys(e, ERR_INTERNAL, errno, "cannot make %s read-only", sbuf_str(&view));
        umount2(sbuf_str(&view), MNT_DETACH);
        return -1;
    }
    return 0;
}

void view_close(const struct config *c)
{
    autosbuf struct sbuf view = SBUF(LIMIT_PATH);

    if (is_embedded(c))
        return;
    sbuf_fmt(&view, "%s/view", c->runtime_dir);
    umount2(sbuf_str(&view), UMOUNT_NOFOLLOW);
}
