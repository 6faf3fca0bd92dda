/* SPDX-License-Identifier: MIT */
#include "daemon/peer.h"

#include "common/auto.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/socket.h>

int peer_read(int fd, gid_t admin_gid, struct caller *ret, struct err *e)
{
    struct caller c = { 0 };
    struct ucred cred;
    socklen_t len = sizeof(cred), groups_len = sizeof(c.id.groups);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot tell who is calling");
    /* a process of a user namespace or pid namespace we cannot name */
    if (cred.uid == (uid_t)-1 || cred.gid == (gid_t)-1)
        return err_set(e, ERR_DENIED, "the caller has no uid here");
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, c.id.groups, &groups_len) < 0) {
        if (errno == ERANGE)
            return err_set(e, ERR_DENIED, "the caller is in %zu groups, at most %zu are possible",
                           (size_t)groups_len / sizeof(gid_t), ARRAY_SIZE(c.id.groups));
        return err_sys(e, ERR_INTERNAL, errno, "cannot tell the caller's groups");
    }
    c.id.uid = cred.uid;
    c.id.gid = cred.gid;
    c.id.n_groups = groups_len / sizeof(gid_t);
    c.pid = cred.pid;
    c.admin = cred.uid == 0 || (admin_gid != PEER_NO_GROUP && cred.gid == admin_gid);
    for (size_t i = 0; i < c.id.n_groups && admin_gid != PEER_NO_GROUP; i++)
        c.admin |= c.id.groups[i] == admin_gid;
    *ret = c;
    return 0;
}

int peer_group(const char *name, gid_t *ret, struct err *e)
{
    struct group g, *found = NULL;
    char buf[16384];    /* as long as a line of group(5) may sensibly be */

    if (!name || !*name) {
        *ret = PEER_NO_GROUP;
        return 0;
    }
    int rc = getgrnam_r(name, &g, buf, sizeof(buf), &found);
    if (!found && (rc == 0 || rc == ENOENT || rc == ESRCH)) {
        err_set(e, ERR_INVALID, "there is no group '%s'", name);
        return err_hint(e, "groupadd --system %s", name);
    }
    if (!found)
        return err_sys(e, ERR_INTERNAL, rc, "cannot look up group '%s'", name);
    *ret = found->gr_gid;
    return 0;
}

int peer_user(const char *name, uid_t *ret, struct err *e)
{
    struct passwd pw, *found = NULL;
    char buf[4096];
    int rc = getpwnam_r(name, &pw, buf, sizeof(buf), &found);

    if (!found && (rc == 0 || rc == ENOENT || rc == ESRCH))
        return err_set(e, ERR_INVALID, "there is no user '%s'", name);
    if (!found)
        return err_sys(e, ERR_INTERNAL, rc, "cannot look up user '%s'", name);
    *ret = found->pw_uid;
    return 0;
}

void peer_lookup(uid_t uid, struct identity *ret)
{
    struct passwd pw, *found = NULL;
    char buf[4096];
    int n = ARRAY_SIZE(ret->groups);

    *ret = (struct identity){ .uid = uid, .gid = (gid_t)-1 };
    if (getpwuid_r(uid, &pw, buf, sizeof(buf), &found) != 0 || !found)
        return;
    ret->gid = found->pw_gid;
    if (getgrouplist(found->pw_name, found->pw_gid, ret->groups, &n) < 0)
        n = ARRAY_SIZE(ret->groups);
    ret->n_groups = (size_t)n;
}

int peer_user_name(uid_t uid, char **ret, struct err *e)
{
    char buf[4096];
    struct passwd pw, *found = NULL;

    *ret = NULL;
    if (getpwuid_r(uid, &pw, buf, sizeof(buf), &found) != 0 || !found)
        return 0;
    *ret = strdup(found->pw_name);
    return *ret ? 0 : err_nomem(e);
}
