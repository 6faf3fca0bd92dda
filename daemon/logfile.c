/* SPDX-License-Identifier: MIT */
#include "daemon/logfile.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/log.h"

#include <fcntl.h>
#include <sys/stat.h>

void logfile_cut(int fd)
{
    struct err e = ERR_INIT;
    struct stat sb;
    autofree char *tail = malloc(LIMIT_LOG_KEPT);

    if (!tail || fstat(fd, &sb) < 0 || sb.st_size < (off_t)LIMIT_LOG_KEPT)
        return;
    ssize_t n = pread(fd, tail, LIMIT_LOG_KEPT, sb.st_size - (off_t)LIMIT_LOG_KEPT);
    if (n < 0 || ftruncate(fd, 0) < 0 ||
        io_write_full(fd, tail, (size_t)n, deadline_in(DEADLINE_CHILD), &e) < 0)
        log_warn(NULL, "cannot cut a log: %m, ignoring");
}

int logfile_append(const char *path, const char *text, size_t len, struct err *e)
{
    autoclose int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
                            0600);
    struct stat sb;

    if (fd < 0 || fstat(fd, &sb) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", path);
    if (!S_ISREG(sb.st_mode))
        return err_set(e, ERR_INTERNAL, "%s is not a file", path);
    if (sb.st_size > (off_t)LIMIT_GUEST_LOG)
        logfile_cut(fd);
    if (write(fd, text, len) != (ssize_t)len)
        return err_sys(e, ERR_INTERNAL, errno, "cannot write %s", path);
    return 0;
}
