/* SPDX-License-Identifier: MIT
 *
 * The listening socket when nobody passes one.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/http.h"
#include "daemon/peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 128

/* Removes a socket nobody listens on; what is not a socket is left alone. */
static int remove_stale(const char *path, const struct sockaddr_un *addr, struct err *e)
{
    struct stat sb;

    if (lstat(path, &sb) < 0)
        return errno == ENOENT ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot look at %s", path);
    if (!S_ISSOCK(sb.st_mode))
        return err_set(e, ERR_INVALID, "%s is there and not a socket", path);
    autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make a socket");
    if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN)
        return err_set(e, ERR_UNAVAILABLE, "another process listens on %s", path);
    if (errno != ECONNREFUSED)
        return err_sys(e, ERR_INTERNAL, errno, "cannot tell whether somebody listens on %s", path);
    return unlink(path) < 0 ? err_sys(e, ERR_INTERNAL, errno, "cannot remove %s", path) : 0;
}

int http_listen(const char *path, gid_t group, int *ret_fd, struct err *e)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    size_t len = strlen(path);

    if (len >= sizeof(addr.sun_path)) {
        err_set(e, ERR_INVALID, "the socket's path has %zu bytes, at most %zu are possible", len,
                sizeof(addr.sun_path) - 1);
        return err_hint(e, "set a shorter runtime_dir or socket");
    }
    memcpy(addr.sun_path, path, len);
    if (remove_stale(path, &addr, e) < 0)
        return -1;
    autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Born closed to everybody else: between bind and chmod nobody can slip in. */
    mode_t old = umask(0177);
    int r = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&addr, sizeof(addr));
    umask(old);
    if (r < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot bind %s", path);
    if (chown(path, (uid_t)-1, group) < 0 || chmod(path, 0660) < 0 || listen(fd, BACKLOG) < 0) {
        err_sys(e, ERR_INTERNAL, errno, "cannot open %s to its group", path);
        unlink(path);
        return -1;
    }
    *ret_fd = take_fd(&fd);
    return 0;
}
