/* SPDX-License-Identifier: MIT */
#include "guest/user.h"
#include "common/auto.h"
#include "common/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The guest's root may have put anything in place of these files; a fifo must not hold us up. */
static FILE *open_accounts(const char *path)
{
    autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    FILE *f;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return NULL;
    f = fdopen(fd, "re");
    if (f)
        take_fd(&fd);
    return f;
}

static void copy(char *to, size_t cap, const char *from, const char *otherwise)
{
    if (!from || from[0] == '\0' || strlen(from) >= cap)
        from = otherwise;
    snprintf(to, cap, "%s", from);
}

static bool find_account(const char *name, bool by_uid, uint32_t uid, struct user *u)
{
    autofclose FILE *f = open_accounts("/etc/passwd");
    struct passwd *p;

    while (f && (p = fgetpwent(f))) {
        if (by_uid ? p->pw_uid != uid : strcmp(p->pw_name, name) != 0)
            continue;
        copy(u->name, sizeof(u->name), p->pw_name, "");
        copy(u->home, sizeof(u->home), p->pw_dir, "/");
        copy(u->shell, sizeof(u->shell), p->pw_shell, "/bin/sh");
        u->uid = p->pw_uid;
        u->gid = p->pw_gid;
        return true;
    }
    return false;
}

static void add_groups(struct user *u)
{
    autofclose FILE *f = u->name[0] ? open_accounts("/etc/group") : NULL;
    struct group *g;

    u->groups[u->n_groups++] = u->gid;
    while (f && u->n_groups < USER_GROUPS && (g = fgetgrent(f))) {
        bool member = false;

        for (char **m = g->gr_mem; m && *m; m++)
            member = member || strcmp(*m, u->name) == 0;
        if (member && g->gr_gid != u->gid)
            u->groups[u->n_groups++] = g->gr_gid;
    }
}

int user_find(const char *name, struct user *ret, struct err *e)
{
    struct user u = { 0 };
    uint32_t uid = 0;
    bool number = parse_u32(name, 0, UINT32_MAX - 1, &uid);

    if (!find_account(name, number, uid, &u)) {
        if (!number)
            return err_set(e, ERR_INVALID, "there is no user '%s'", name);
        u.uid = uid;
        u.gid = uid;
        copy(u.home, sizeof(u.home), "/", "/");
        copy(u.shell, sizeof(u.shell), "/bin/sh", "/bin/sh");
    }
    add_groups(&u);
    *ret = u;
    return 0;
}
