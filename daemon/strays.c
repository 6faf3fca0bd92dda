/* SPDX-License-Identifier: MIT */
#include "daemon/strays.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "common/parse.h"
#include "daemon/share.h"
#include "daemon/virt_embed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define END_MS 2000             /* for one that hangs in the kernel: it dies later */
#define TEXT_MAX (64 * KIB)     /* of /proc; longer ones are not ours */

/* Whether `path` is below `dir`; then its first part is the sandbox. */
static bool is_below(const char *path, const char *dir, char ret_id[LIMIT_ID + 1])
{
    size_t n = strlen(dir);

    ret_id[0] = '\0';
    if (strncmp(path, dir, n) != 0 || path[n] != '/')
        return false;
    size_t len = strcspn(path + n + 1, "/");
    if (len != LIMIT_ID)
        return true;
    memcpy(ret_id, path + n + 1, LIMIT_ID);
    ret_id[LIMIT_ID] = '\0';
    if (!id_valid(ret_id))
        ret_id[0] = '\0';
    return true;
}

/* The socket's path in a process's environment, in *env. */
static bool is_share(int proc_fd, const struct stray_range *range, char **env, struct stray *p)
{
    struct err ignored = ERR_INIT;
    size_t len = 0, mark = strlen(SHARE_MARK);

    /* What is gone meanwhile or denied is not ours either. */
    if (io_read_file_at(proc_fd, "environ", TEXT_MAX, env, &len, &ignored) < 0)
        return false;
    for (const char *s = *env; s < *env + len; s += strlen(s) + 1) {
        if (strncmp(s, SHARE_MARK, mark) == 0 && is_below(s + mark, range->runtime_dir, p->id)) {
            p->kind = STRAY_SHARE;
            p->socket = s + mark;
            return true;
        }
    }
    return false;
}

/* From "Uid:\treal\teffective…" of its status. */
static bool read_uid(int proc_fd, uid_t *ret)
{
    struct err ignored = ERR_INIT;
    autofree char *text = NULL;
    size_t len = 0;
    uint32_t uid;

    if (io_read_file_at(proc_fd, "status", TEXT_MAX, &text, &len, &ignored) < 0)
        return false;
    char *at = strstr(text, "\nUid:\t");
    if (!at)
        return false;
    at += strlen("\nUid:\t");
    at[strcspn(at, "\t\n")] = '\0';
    if (!parse_u32(at, 0, UINT32_MAX, &uid))
        return false;
    *ret = uid;
    return true;
}

/* "-name guest=sbx-ID,…" and its disk below our directory. */
static bool is_qemu(int proc_fd, const struct stray_range *range, struct stray *p)
{
    static const char name[] = "guest=" VIRT_NAME_PREFIX;
    struct err ignored = ERR_INIT;
    autofree char *args = NULL;
    char found[LIMIT_ID + 1] = "", id[LIMIT_ID + 1];
    size_t len = 0;
    bool ours = false;

    if (p->uid < range->uid_lo || p->uid > range->uid_hi ||
        io_read_file_at(proc_fd, "cmdline", TEXT_MAX, &args, &len, &ignored) < 0)
        return false;
    p->networked = false;
    for (const char *s = args; s < args + len; s += strlen(s) + 1) {
        const char *path = strstr(s, range->state_dir);
        if (strncmp(s, name, strlen(name)) == 0 && strlen(s) >= strlen(name) + LIMIT_ID)
            memcpy(found, s + strlen(name), LIMIT_ID);
        if (path && is_below(path, range->state_dir, id) && id[0])
            ours = true;
        p->networked |= strcmp(s, "-netdev") == 0;
    }
    if (!ours || !id_valid(found))
        return false;
    p->kind = STRAY_QEMU;
    memcpy(p->id, found, sizeof(p->id));
    return true;
}

static void look_at(int proc, const char *name, const struct stray_range *range, stray_fn fn,
                    void *arg)
{
    uint64_t pid = 0;

    if (!parse_u64(name, 1, INT32_MAX, &pid))
        return;
    /* Held before anything of it is read: what is killed is what was looked at. */
    autoclose int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    autoclose int fd = openat(proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    autofree char *env = NULL;
    struct stray p = { .pid = (pid_t)pid, .pidfd = pidfd };

    if (pidfd < 0 || fd < 0 || !read_uid(fd, &p.uid))
        return;
    if (is_qemu(fd, range, &p) || is_share(fd, range, &env, &p))
        fn(arg, &p);
}

int strays_look(const struct stray_range *range, stray_fn fn, void *arg, struct err *e)
{
    DIR *d = opendir("/proc");
    struct dirent *de;

    if (!d)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read /proc");
    while ((de = readdir(d)))
        look_at(dirfd(d), de->d_name, range, fn, arg);
    closedir(d);
    return 0;
}

void stray_end(const struct stray *p)
{
    struct err ignored = ERR_INIT;

    if (syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0) == 0)
        io_wait(p->pidfd, POLLIN, deadline_in(END_MS), &ignored);
}
