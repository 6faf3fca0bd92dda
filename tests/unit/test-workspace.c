/* SPDX-License-Identifier: MIT
 *
 * Needs root: the module's work is to become somebody else. Other users are numbers here; they need
 * no accounts.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/workspace.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define USER  1001
#define OTHER 1002
#define TEAM  4242

static const struct identity user = { .uid = USER, .gid = USER };
static const struct identity member = {
    .uid = USER, .gid = USER, .groups = { TEAM }, .n_groups = 1
};
static const struct identity root = { .uid = 0, .gid = 0 };

/* A directory of the test with this owner and mode; its parents may be searched by all. */
static const char *make_dir(const char *name, uid_t uid, gid_t gid, mode_t mode)
{
    const char *path = test_path(name);
    ASSERT_SYS(chmod(test_dir(), 0711));
    ASSERT_SYS(mkdir(path, 0700));
    ASSERT_SYS(chown(path, uid, gid));
    ASSERT_SYS(chmod(path, mode));
    return path;
}

static void need_root(void)
{
    SKIP_IF(geteuid() != 0, "needs root");
}

static int open_as(const struct identity *who, const char *path, bool read_only,
                   const char *forbidden, struct err *e)
{
    const char *const list[] = { forbidden, NULL };
    autofree char *real = NULL;
    int fd = -1;
    if (workspace_open(who, path, read_only, list, &fd, &real, e) < 0) {
        ASSERT_EQ(fd, -1);
        ASSERT_NULL(real);
        return -1;
    }
    ASSERT_GE(fd, 0);
    ASSERT_TRUE(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    ASSERT_TRUE(fcntl(fd, F_GETFL) & O_PATH);
    close(fd);
    return 0;
}

TEST(own_directory)
{
    need_root();
    struct err e = ERR_INIT;
    const char *dir = make_dir("ws", USER, USER, 0700);
    autofree char *real = NULL, *want = realpath(dir, NULL);
    autoclose int fd = -1;
    int before = test_count_fds();

    ASSERT_OK(workspace_open(&user, dir, false, NULL, &fd, &real, &e), e);
    ASSERT_STREQ(real, want);
    struct stat a, b;
    ASSERT_SYS(fstat(fd, &a));
    ASSERT_SYS(stat(dir, &b));
    ASSERT_EQ(a.st_ino, b.st_ino);
    ASSERT_EQ(test_count_fds(), before + 1);
    ASSERT_EQ(geteuid(), 0);
}

TEST(link_is_resolved_as_the_caller)
{
    need_root();
    struct err e = ERR_INIT;
    const char *dir = make_dir("ws", USER, USER, 0700), *link = test_path("link");
    autofree char *real = NULL, *want = realpath(dir, NULL);
    autoclose int fd = -1;
    ASSERT_SYS(symlink(dir, link));
    ASSERT_OK(workspace_open(&user, link, false, NULL, &fd, &real, &e), e);
    ASSERT_STREQ(real, want);

    /* a link into what only root can reach */
    make_dir("closed", 0, 0, 0700);
    ASSERT_SYS(mkdir(test_path("closed/in"), 0777));
    ASSERT_SYS(symlink(test_path("closed/in"), test_path("trick")));
    ASSERT_ERR(open_as(&user, test_path("trick"), true, NULL, &e), e, ERR_WORKSPACE_DENIED);
    ASSERT_OK(open_as(&root, test_path("trick"), false, NULL, &e), e);
}

TEST(what_is_not_a_directory)
{
    need_root();
    struct err e;
    make_dir("ws", USER, USER, 0700);
    int fd = ASSERT_SYS(open(test_path("ws/file"), O_CREAT | O_WRONLY, 0666));
    close(fd);
    ASSERT_SYS(symlink("loop", test_path("ws/loop")));
    ASSERT_ERR(open_as(&user, test_path("ws/file"), true, NULL, &e), e, ERR_WORKSPACE_INVALID);
    ASSERT_ERR(open_as(&user, test_path("ws/none"), true, NULL, &e), e, ERR_WORKSPACE_INVALID);
    ASSERT_ERR(open_as(&user, test_path("ws/loop"), true, NULL, &e), e, ERR_WORKSPACE_INVALID);
    ASSERT_ERR(open_as(&user, "relative", true, NULL, &e), e, ERR_WORKSPACE_INVALID);
    ASSERT_ERR(open_as(&user, "", true, NULL, &e), e, ERR_WORKSPACE_INVALID);
}

TEST(rights_are_the_callers)
{
    need_root();
    struct err e;
    const char *theirs = make_dir("theirs", OTHER, OTHER, 0755);
    ASSERT_ERR(open_as(&user, theirs, false, NULL, &e), e, ERR_WORKSPACE_DENIED);
    ASSERT_CONTAINS(e.hint, ":ro");
    ASSERT_OK(open_as(&user, theirs, true, NULL, &e), e);

    ASSERT_SYS(chmod(theirs, 0711)); /* may pass, may not list */
    ASSERT_ERR(open_as(&user, theirs, true, NULL, &e), e, ERR_WORKSPACE_DENIED);
    ASSERT_SYS(chmod(theirs, 0744)); /* may list, may not pass */
    ASSERT_ERR(open_as(&user, theirs, true, NULL, &e), e, ERR_WORKSPACE_DENIED);
    ASSERT_OK(open_as(&root, theirs, false, NULL, &e), e);
}

TEST(supplementary_groups_count)
{
    need_root();
    struct err e;
    const char *dir = make_dir("team", OTHER, TEAM, 0770);
    ASSERT_ERR(open_as(&user, dir, true, NULL, &e), e, ERR_WORKSPACE_DENIED);
    ASSERT_OK(open_as(&member, dir, false, NULL, &e), e);
}

TEST(root_directory_is_refused)
{
    need_root();
    struct err e;
    ASSERT_ERR(open_as(&root, "/", false, NULL, &e), e, ERR_WORKSPACE_INVALID);
    ASSERT_ERR(open_as(&root, "/usr/..", true, NULL, &e), e, ERR_WORKSPACE_INVALID);
    ASSERT_ERR(open_as(&user, "//", true, NULL, &e), e, ERR_WORKSPACE_INVALID);
}

TEST(daemons_directories_are_refused_both_ways)
{
    need_root();
    struct err e;
    make_dir("a", USER, USER, 0755);
    make_dir("ab", USER, USER, 0755);
    make_dir("a/state", USER, USER, 0755);
    make_dir("a/state/in", USER, USER, 0755);
    const char *state = test_path("a/state");
    ASSERT_ERR(open_as(&user, state, true, state, &e), e, ERR_WORKSPACE_DENIED);
    ASSERT_ERR(open_as(&user, test_path("a/state/in"), true, state, &e), e, ERR_WORKSPACE_DENIED);
    ASSERT_ERR(open_as(&user, test_path("a"), true, state, &e), e, ERR_WORKSPACE_DENIED);
    ASSERT_OK(open_as(&user, test_path("ab"), true, test_path("a"), &e), e);

    /* named by a link, met by its true name */
    ASSERT_SYS(symlink(state, test_path("lnk")));
    ASSERT_ERR(open_as(&user, state, true, test_path("lnk"), &e), e, ERR_WORKSPACE_DENIED);
    /* one that is not there (yet) forbids nothing else */
    ASSERT_OK(open_as(&user, test_path("ab"), true, "/nonexistent/x", &e), e);
}

TEST(other_name_of_a_forbidden_directory)
{
    need_root();
    SKIP_IF(unshare(CLONE_NEWNS) < 0, "cannot make a mount namespace");
    ASSERT_SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    struct err e;
    const char *state = make_dir("state", USER, USER, 0755), *other = make_dir("o", 0, 0, 0755);
    ASSERT_SYS(mount(state, other, NULL, MS_BIND, NULL));
    ASSERT_ERR(open_as(&user, other, true, state, &e), e, ERR_WORKSPACE_DENIED);
}

TEST(windows_into_the_kernel_are_refused)
{
    need_root();
    struct err e;
    ASSERT_ERR(open_as(&root, "/proc", true, NULL, &e), e, ERR_WORKSPACE_INVALID);
    ASSERT_ERR(open_as(&root, "/proc/self/fd", true, NULL, &e), e, ERR_WORKSPACE_INVALID);
    ASSERT_ERR(open_as(&root, "/proc/self/root/usr", true, NULL, &e), e, ERR_WORKSPACE_INVALID);
    if (access("/sys/kernel", F_OK) == 0)
        ASSERT_ERR(open_as(&root, "/sys/kernel", true, NULL, &e), e, ERR_WORKSPACE_INVALID);
}

TEST(read_only_file_system)
{
    need_root();
    SKIP_IF(unshare(CLONE_NEWNS) < 0, "cannot make a mount namespace");
    ASSERT_SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    struct err e;
    const char *dir = make_dir("ro", 0, 0, 0777);
    ASSERT_SYS(mount("t", dir, "tmpfs", MS_RDONLY, "mode=0777"));
    ASSERT_ERR(open_as(&root, dir, false, NULL, &e), e, ERR_WORKSPACE_DENIED);
    ASSERT_CONTAINS(e.msg, "read-only");
    ASSERT_OK(open_as(&user, dir, true, NULL, &e), e);
}

/* --- raced: somebody exchanges the directory and a link while it is opened --- */

struct swapper {
    const char *a, *b;
    _Atomic bool stop;
    _Atomic unsigned turns;
};

static void *swap(void *arg)
{
    struct swapper *s = arg;

    while (!s->stop) {
        ASSERT_SYS(renameat2(AT_FDCWD, s->a, AT_FDCWD, s->b, RENAME_EXCHANGE));
        s->turns++;
    }
    return NULL;
}

/* Opens `path`, the user's own, 400 times while `swapped`, which it is or leads through, and a link
 * to `target` change places: what is opened is always what was there before, and both ends are
 * seen. */
static void race(const char *path, const char *swapped, const char *target, const char *forbidden)
{
    const char *const list[] = { forbidden, NULL };
    struct swapper s = { .a = swapped, .b = test_path("link") };
    unsigned opened = 0, refused = 0;
    pthread_t thread;
    struct stat own;

    ASSERT_SYS(stat(path, &own));
    ASSERT_SYS(symlink(target, s.b));
    ASSERT_EQ(pthread_create(&thread, NULL, swap, &s), 0);
    for (int i = 0; i < 400 || ((opened == 0 || refused == 0) && i < 20000); i++) {
        struct err e = ERR_INIT;
        autofree char *real = NULL;
        autoclose int fd = -1;
        struct stat st;

        if (workspace_open(&user, path, false, list, &fd, &real, &e) < 0) {
            ASSERT_TRUE(e.code == ERR_WORKSPACE_DENIED || e.code == ERR_WORKSPACE_INVALID);
            refused++;
            continue;
        }
        ASSERT_SYS(fstat(fd, &st));
        ASSERT_EQ(st.st_dev, own.st_dev);
        ASSERT_EQ(st.st_ino, own.st_ino);
        opened++;
    }
    s.stop = true;
    ASSERT_EQ(pthread_join(thread, NULL), 0);
    ASSERT_GT(s.turns, 0);
    ASSERT_GT(opened, 0);
    ASSERT_GT(refused, 0);
}

TEST(raced_with_a_link_to_what_is_forbidden)
{
    need_root();
    const char *ws = make_dir("ws", USER, USER, 0700);
    const char *state = make_dir("state", USER, USER, 0755);    /* rights alone would let it pass */
    race(ws, ws, state, state);
}

TEST(raced_with_a_link_to_what_is_another_users)
{
    need_root();
    const char *ws = make_dir("ws", USER, USER, 0700);
    race(ws, ws, make_dir("secret", OTHER, OTHER, 0700), NULL);
}

/* The last component stays what it is; one in the middle leads away. */
TEST(raced_in_the_middle_of_the_path)
{
    need_root();
    const char *parent = make_dir("parent", USER, USER, 0755);
    const char *state = make_dir("state", 0, 0, 0755);
    const char *ws = make_dir("parent/sub", USER, USER, 0700);
    make_dir("state/sub", USER, USER, 0755);
    race(ws, parent, state, state);
}

TEST(odd_names)
{
    need_root();
    struct err e;
    make_dir("sp ace\n\x1b[31m", USER, USER, 0700);
    ASSERT_OK(open_as(&user, test_path("sp ace\n\x1b[31m"), false, NULL, &e), e);
    make_dir("bad\xff", USER, USER, 0700);
    ASSERT_ERR(open_as(&user, test_path("bad\xff"), false, NULL, &e), e, ERR_WORKSPACE_INVALID);
}
