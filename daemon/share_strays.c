/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/parse.h"
#include "daemon/share.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENVIRON_MAX (64 * KIB)

/* The socket's path in a process's environment, in *env; NULL when it has none. */
static const char *mark_of(int proc_fd, char **ret_env)
{
    struct err ignored = ERR_INIT;
    size_t len = 0, mark = strlen(SHARE_MARK);

    /* Longer ones are not ours; what is gone meanwhile or denied is not either. */
    if (io_read_file_at(proc_fd, "environ", ENVIRON_MAX, ret_env, &len, &ignored) < 0)
        return NULL;
    for (const char *p = *ret_env; p < *ret_env + len; p += strlen(p) + 1)
        if (strncmp(p, SHARE_MARK, mark) == 0)
            return p + mark;
    return NULL;
}

static void end_if_stray(int proc, const char *name, const char *dir,
                         bool (*keep)(void *, const char *), void *ctx)
{
    uint64_t pid = 0;

    if (!parse_u64(name, 1, INT32_MAX, &pid))
        return;
    /* Held before its environment is read: what is killed is what was looked at. */
    autoclose int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    autoclose int fd = openat(proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    autofree char *env = NULL;
    const char *path = pidfd < 0 || fd < 0 ? NULL : mark_of(fd, &env);

    if (!path || strncmp(path, dir, strlen(dir)) != 0 || path[strlen(dir)] != '/' ||
        keep(ctx, path))
        return;
    log_warn(LOG_CTX(.sandbox = NULL), "a file share process without a sandbox (%s): ended", path);
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

int share_end_strays(const char *dir, bool (*keep)(void *, const char *), void *ctx, struct err *e)
{
    DIR *d = opendir("/proc");
    struct dirent *de;

    if (!d)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read /proc");
    while ((de = readdir(d)))
        end_if_stray(dirfd(d), de->d_name, dir, keep, ctx);
    closedir(d);
    return 0;
}
