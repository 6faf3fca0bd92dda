/* SPDX-License-Identifier: MIT */
#include "daemon/peer.h"

#include "common/auto.h"
#include "common/io.h"

#include <errno.h>
#include <grp.h>
#include <pthread.h>
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

/* ---- names ---- */

#define NAME_MAX_LEN 63         /* useradd(8) makes 32 at most; others are asked for anew */

/* A slot for each uid modulo their number; who comes later takes the place. "": nobody has it. */
static struct name {
    uid_t uid;
    int64_t until;          /* 0: nothing in it */
    char text[NAME_MAX_LEN + 1];
} names[64];
static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;

static bool name_known(uid_t uid, char text[NAME_MAX_LEN + 1])
{
    struct name *n = &names[uid % ARRAY_SIZE(names)];

    pthread_mutex_lock(&names_lock);
    bool known = n->uid == uid && now_mono_ms() < n->until;
    if (known)
        memcpy(text, n->text, sizeof(n->text));
    pthread_mutex_unlock(&names_lock);
    return known;
}

static void name_keep(uid_t uid, const char *text)
{
    struct name *n = &names[uid % ARRAY_SIZE(names)];

    size_t size = strlen(text) + 1;

    if (size > sizeof(n->text))
        return;
    pthread_mutex_lock(&names_lock);
    n->uid = uid;
    n->until = now_mono_ms() + PEER_NAME_MS;
    memcpy(n->text, text, size);
    pthread_mutex_unlock(&names_lock);
}

int peer_user_name(uid_t uid, char **ret, struct err *e)
{
    char buf[4096], known[NAME_MAX_LEN + 1];
    struct passwd pw, *found = NULL;
    const char *name = known;

    *ret = NULL;
    if (!name_known(uid, known)) {
        if (getpwuid_r(uid, &pw, buf, sizeof(buf), &found) != 0)
            return 0;       /* not now; the next one asks again */
        name = found ? found->pw_name : "";
        name_keep(uid, name);
    }
    if (!*name)
        return 0;
    *ret = strdup(name);
    return *ret ? 0 : err_nomem(e);
}
