/* SPDX-License-Identifier: MIT */
#include "daemon/cgroup.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/name.h"
#include "common/sbuf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define WORDS_MAX 4096          /* of cgroup.controllers */
#define DROP_MS 2000            /* killed processes take a moment to be gone */

struct cgroups {
    int fd;                     /* owned: <mount>/<name> */
    char dir[];
};

static const char *const controllers[] = { "cpu", "memory", "pids" };

static int write_file(int dir, const char *name, const char *text, struct err *e)
{
    autoclose int fd = openat(dir, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot write %s of a control group", name);
    return 0;
}

static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = text; (p = strstr(p, word)); p += n) {
        if ((p == text || strchr(" \n", p[-1])) && strchr(" \n", p[n]))
            return true;
    }
    return false;
}

/* Each controller has to be there, and to be given on to what is below. */
static int give_on(int dir, struct err *e)
{
    autofree char *there = NULL, *given = NULL;
    size_t len;

    if (io_read_file_at(dir, "cgroup.controllers", WORDS_MAX, &there, &len, e) < 0 ||
        io_read_file_at(dir, "cgroup.subtree_control", WORDS_MAX, &given, &len, e) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++) {
        char text[16];
        if (!has_word(there, controllers[i]))
            return err_set(e, ERR_UNAVAILABLE, "the controller '%s' is not of version 2 here",
                           controllers[i]);
        snprintf(text, sizeof(text), "+%s", controllers[i]);
        if (!has_word(given, controllers[i]) &&
            write_file(dir, "cgroup.subtree_control", text, e) < 0)
            return -1;
    }
    return 0;
}

/* mkdir that is content with what is there, and then that directory. */
static int make_group(int dir, const char *name, struct err *e)
{
    if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot make the control group %s", name);
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? err_sys(e, ERR_UNAVAILABLE, errno, "cannot open the control group %s", name)
                  : fd;
}

int cgroup_self(struct sbuf *path, struct err *e)
{
    autofree char *text = NULL;
    size_t len;

    if (io_read_file_at(AT_FDCWD, "/proc/self/cgroup", WORDS_MAX, &text, &len, e) < 0)
        return -1;
    /* cgroups(7): hierarchy 0 is that of version 2 */
    char *own = strstr(text, "0::/");
    if (!own || (own != text && own[-1] != '\n'))
        return err_set(e, ERR_UNAVAILABLE, "this process is in no control group of version 2");
    own += strlen("0::");
    sbuf_fmt(path, CGROUP_MOUNT "%.*s", (int)strcspn(own, "\n"), own);
    return path->failed ? err_nomem(e) : 0;
}

/* A control group that is there; the caller closes it. */
static int open_there(const char *dir, struct err *e)
{
    struct statfs fs;
    autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fstatfs(fd, &fs) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot open %s", dir);
    if (fs.f_type != CGROUP2_SUPER_MAGIC)
        return err_set(e, ERR_UNAVAILABLE, "%s has no control groups of version 2", dir);
    return take_fd(&fd);
}

int cgroup_step_aside(const char *dir, struct err *e)
{
    autoclose int own = open_there(dir, e);

    if (own < 0)
        return -1;
    autoclose int aside = make_group(own, "keeper", e);
    return aside < 0 ? -1 : write_file(aside, "cgroup.procs", "0", e);
}

int cgroup_open(const char *dir, struct cgroups **ret, struct err *e)
{
    const char *name = strrchr(dir, '/');

    if (!name || name == dir || !name[1])
        return err_set(e, ERR_UNAVAILABLE, "%s cannot be a control group", dir);
    autofree char *parent = strndup(dir, (size_t)(name - dir));
    if (!parent)
        return err_nomem(e);
    autoclose int root = open_there(parent, e);

    if (root < 0 || give_on(root, e) < 0)
        return -1;
    autoclose int own = make_group(root, name + 1, e);
    if (own < 0 || give_on(own, e) < 0)
        return -1;
    struct cgroups *c = calloc(1, sizeof(*c) + strlen(dir) + 1);
    if (!c)
        return err_nomem(e);
    memcpy(c->dir, dir, strlen(dir));
    c->fd = take_fd(&own);
    *ret = c;
    return 0;
}

const char *cgroup_dir(const struct cgroups *c)
{
    return c->dir;
}

void cgroup_close(struct cgroups *c)
{
    if (!c)
        return;
    fd_close(c->fd);
    free(c);
}

int cgroup_make(struct cgroups *c, const char *id, const struct cgroup_limits *l, struct err *e)
{
    char text[32];

    if (!id_valid(id))
        return err_set(e, ERR_INTERNAL, "'%s' is no sandbox's", id);
    autoclose int fd = make_group(c->fd, id, e);
    if (fd < 0)
        return -1;
    snprintf(text, sizeof(text), "%" PRIu32, l->cpu_weight);
    if (write_file(fd, "cpu.weight", text, e) < 0)
        return -1;
    snprintf(text, sizeof(text), "%" PRIu64, l->memory_max);
    if (write_file(fd, "memory.max", text, e) < 0)
        return -1;
    snprintf(text, sizeof(text), "%" PRIu32, l->pids_max);
    return write_file(fd, "pids.max", text, e);
}

int cgroup_fd(struct cgroups *c, const char *id, struct err *e)
{
    int fd = openat(c->fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? err_sys(e, ERR_UNAVAILABLE, errno, "cannot open the control group %s", id) : fd;
}

/* One that has ended meanwhile needs no limits. */
static int move(int group, const char *pid, struct err *e)
{
    autoclose int fd = openat(group, "cgroup.procs", O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0 && (write(fd, pid, strlen(pid)) >= 0 || errno == ESRCH))
        return 0;
    return err_sys(e, ERR_UNAVAILABLE, errno, "process %s cannot enter its control group", pid);
}

int cgroup_enter(struct cgroups *c, const char *id, pid_t pid, struct err *e)
{
    autoclose int fd = cgroup_fd(c, id, e);
    char text[64], *rest = NULL;
    autofree char *children = NULL;
    struct err ended = ERR_INIT;
    size_t len;

    if (fd < 0)
        return -1;
    snprintf(text, sizeof(text), "%d", (int)pid);
    if (move(fd, text, e) < 0)
        return -1;
    /* What it forks from now on is born there. */
    snprintf(text, sizeof(text), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    if (io_read_file_at(AT_FDCWD, text, WORDS_MAX, &children, &len, &ended) < 0)
        return 0;
    for (char *p = strtok_r(children, " ", &rest); p; p = strtok_r(NULL, " ", &rest)) {
        if (move(fd, p, e) < 0)
            return -1;
    }
    return 0;
}

/* The kernel says by cgroup.events when the last process is gone. */
static int await_empty(int group, struct err *e)
{
    int64_t deadline = deadline_in(DROP_MS);
    autoclose int fd = openat(group, "cgroup.events", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    char text[256];

    while (fd >= 0) {
        struct pollfd p = { .fd = fd, .events = POLLPRI };
        ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
        if (n < 0)
            break;
        text[n] = '\0';
        if (strstr(text, "populated 0"))
            return 0;
        int r = poll(&p, 1, deadline_left(deadline));
        if (r == 0)
            return err_set(e, ERR_TIMEOUT, "processes in a control group do not end");
        if (r < 0 && errno != EINTR)
            break;
    }
    return err_sys(e, ERR_INTERNAL, errno, "cannot watch a control group");
}

int cgroup_drop(struct cgroups *c, const char *id, struct err *e)
{
    if (!id_valid(id))
        return err_set(e, ERR_INTERNAL, "'%s' is no sandbox's", id);
    if (unlinkat(c->fd, id, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    autoclose int fd = cgroup_fd(c, id, e);
    /* cgroup.kill came with Linux 5.14; without it there is nothing more to be done here. */
    if (fd < 0 || write_file(fd, "cgroup.kill", "1", e) < 0 || await_empty(fd, e) < 0)
        return -1;
    if (unlinkat(c->fd, id, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_sys(e, ERR_INTERNAL, errno, "cannot remove the control group %s", id);
    return 0;
}

int cgroup_list(struct cgroups *c, cgroup_fn fn, void *arg, struct err *e)
{
    int fd = openat(c->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *de;

    if (!d) {
        err_sys(e, ERR_UNAVAILABLE, errno, "cannot read the control groups");
        fd_close(fd);
        return -1;
    }
    while ((de = readdir(d))) {
        if (id_valid(de->d_name))
            fn(arg, de->d_name);
    }
    closedir(d);
    return 0;
}
