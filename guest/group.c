/* SPDX-License-Identifier: MIT */
#include "guest/group.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KILL_ROUNDS 8       /* of a session: what it forks meanwhile is seen in the next round */

static int top = -1;        /* directory of our cgroups; lives as long as the agent */

static int write_at(int dir, const char *path, const char *text)
{
    autoclose int fd = openat(dir, path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return errno;
    return 0;
}

int group_init(const char *cgroup2, struct err *e)
{
    autoclose int parent = open(cgroup2, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (parent < 0 || (mkdirat(parent, "sbx", 0755) < 0 && errno != EEXIST))
        return err_sys(e, ERR_INTERNAL, errno, "cannot make cgroups in %s", cgroup2);
    /* for what runs in the guest, such as container engines; each may be missing */
    static const char *const controllers[] = { "+cpu", "+memory", "+io", "+pids", "+cpuset" };
    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
        (void)write_at(parent, "cgroup.subtree_control", controllers[i]);
    top = openat(parent, "sbx", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open the cgroup of commands");
    return 0;
}

static void name_of(uint32_t stream, char *buf, size_t cap, const char *file)
{
    snprintf(buf, cap, "%u%s", stream, file);
}

void group_new(uint32_t stream, int *ret_fd)
{
    char path[64];

    *ret_fd = -1;
    if (top < 0)
        return;
    name_of(stream, path, sizeof(path), "");
    if (mkdirat(top, path, 0755) < 0 && errno != EEXIST)
        return;
    name_of(stream, path, sizeof(path), "/cgroup.procs");
    *ret_fd = openat(top, path, O_WRONLY | O_CLOEXEC);
}

int group_enter(int fd)
{
    if (fd >= 0 && write(fd, "0", 1) < 0)
        return errno;
    return 0;
}

/* The session of a process by its stat line; 0 when it is gone or dead. */
static pid_t session_of(int proc, const char *pid)
{
    char path[64], text[512];
    const char *p;
    char state;
    int sid = 0;

    snprintf(path, sizeof(path), "%.16s/stat", pid);
    autoclose int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    p = strrchr(text, ')');     /* the name before it may hold anything */
    if (!p || sscanf(p + 1, " %c %*d %*d %d", &state, &sid) != 2 || state == 'Z')
        return 0;
    return sid;
}

static bool kill_session(pid_t sid)
{
    DIR *d = opendir("/proc");
    struct dirent *de;
    bool any = false;

    while (d && (de = readdir(d))) {
        uint32_t pid;

        if (parse_u32(de->d_name, 2, INT32_MAX, &pid) && session_of(dirfd(d), de->d_name) == sid) {
            any = true;
            kill((pid_t)pid, SIGKILL);
        }
    }
    if (d)
        closedir(d);
    return any;
}

void group_kill(uint32_t stream, pid_t sid)
{
    char path[64];

    name_of(stream, path, sizeof(path), "/cgroup.kill");
    if (top >= 0 && write_at(top, path, "1") == 0)
        return;
    if (sid <= 1)
        return;
    for (int i = 0; i < KILL_ROUNDS && kill_session(sid); i++)
        ;
}

void group_sweep(bool (*in_use)(void *arg, uint32_t stream), void *arg)
{
    int fd = top >= 0 ? openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *de;

    if (!d)
        fd_close(fd);
    while (d && (de = readdir(d))) {
        uint32_t stream;

        if (parse_u32(de->d_name, 1, UINT32_MAX, &stream) && !in_use(arg, stream))
            (void)unlinkat(top, de->d_name, AT_REMOVEDIR);  /* busy: somebody is in it */
    }
    if (d)
        closedir(d);
}
