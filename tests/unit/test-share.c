/* SPDX-License-Identifier: MIT
 *
 * What virtiofsd is started in, without a virtiofsd: this program plays it. Started by
 * share_start() under the name virtiofsd, it tries what a guest that has taken over virtiofsd would
 * try, and writes what came of it to its stderr, one "name value" a line. Needs root.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/share.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define QEMU_UID 1879048200
#define LOG_MAX  65536

/* ---- the player ---- */

static void say(const char *name, long value)
{
    fprintf(stderr, "%s %ld\n", name, value < 0 ? -(long)errno : value);
}

static void say_status(const char *key)
{
    char line[256];
    autofclose FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, key, strlen(key)) == 0)
            fprintf(stderr, "%s", line);
}

static void play_files(void)
{
    struct stat st;
    struct {
        uint64_t flags, mode, resolve;
    } how = { O_RDONLY, 0, 0 };

    say("create", open("new", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    say("chown", chown("new", 0, 0));
    say("lchown", lchown("new", 77, 77));
    say("fchownat", fchownat(AT_FDCWD, "new", 77, 77, AT_SYMLINK_NOFOLLOW));
    say("chmod-plain", chmod("new", 0755));
    say("chmod-suid", chmod("new", 04755));
    say("chmod-sgid", chmod("new", 02755));
    say("fchmodat-suid", fchmodat(AT_FDCWD, "new", 06755, 0));
    say("fchmodat2-suid", syscall(452, AT_FDCWD, "new", 04755, AT_SYMLINK_NOFOLLOW));
    say("chmod-sticky", chmod("new", 01755));
    say("create-suid", open("new2", O_CREAT | O_WRONLY | O_CLOEXEC, 04755));
    say("creat-suid", syscall(SYS_creat, "new2", 04755));
    say("open-suid-no-create", open("new", O_RDONLY | O_CLOEXEC, 04755));
    say("tmpfile-suid", open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 04700));
    say("mkdir-sgid", mkdir("dir", 02755));
    say("mkdir", mkdir("dir", 0755));
    say("mknod-char", mknod("dev", S_IFCHR | 0600, 0));
    say("mknod-block", mknod("dev", S_IFBLK | 0600, 0x100));
    say("mknod-suid", mknod("dev", S_IFREG | 04755, 0));
    say("mkfifo", mkfifo("fifo", 0600));
    say("openat2", syscall(SYS_openat2, AT_FDCWD, "new", &how, sizeof(how)));
    /* Of files there are not: without the filter that is the answer, whatever the file system. */
    say("setxattr", syscall(SYS_setxattr, "none", "user.x", "1", 1UL, 0));
    say("lsetxattr", syscall(SYS_lsetxattr, "none", "user.x", "1", 1UL, 0));
    say("fsetxattr", syscall(SYS_fsetxattr, -1, "user.x", "1", 1UL, 0));
    say("removexattr", syscall(SYS_removexattr, "none", "user.x"));
    say("lremovexattr", syscall(SYS_lremovexattr, "none", "user.x"));
    say("fremovexattr", syscall(SYS_fremovexattr, -1, "user.x"));
    say("setxattrat", syscall(463, -1, "none", 0, "user.x", NULL, 0UL));
    say("removexattrat", syscall(466, -1, "none", 0, "user.x"));
    say("file-setattr", syscall(469, -1, NULL, NULL, 0UL, 0));
    say("io-uring", syscall(SYS_io_uring_setup, 0, NULL));
    if (stat("new", &st) == 0) {
        say("new-uid", st.st_uid);
        say("new-gid", st.st_gid);
        say("new-mode", st.st_mode & 07777);
    }
    say("remount", mount(NULL, "/tmp", NULL, MS_REMOUNT | MS_BIND, NULL));
    say("umount", umount2("/tmp", MNT_DETACH));
}

static void play_ids(void)
{
    gid_t groups[8];
    say("fd4", fcntl(4, F_GETFD)); /* nothing beyond the socket came along */
    say("uid", getuid());
    say("gid", getgid());
    say("setresuid", syscall(SYS_setresuid, 0, 0, 0));
    say("setresgid", syscall(SYS_setresgid, 12, 12, 12));
    say("setgroups", syscall(SYS_setgroups, 0, NULL));
    say("uid-after", getuid());
    say("groups", getgroups(8, groups));
    say("pid", getpid());
    say("newns", unshare(CLONE_NEWNS)); /* virtiofsd's own sandbox needs it */
}

__attribute__((constructor)) static void play_virtiofsd(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        puts("-o source=PATH");
        fflush(stdout);
        _exit(0);
    }
    if (argc < 2 || strcmp(argv[0], "virtiofsd") != 0)
        return;
    if (chdir("/tmp") < 0)
        _exit(1);
    play_ids();
    play_files();
    say_status("CapEff");
    say_status("NoNewPrivs");
    say_status("Seccomp:");
    if (fork() == 0) { /* a child that outlives its parent, if it can */
        poll(NULL, 0, 60000);
        _exit(0);
    }
    fprintf(stderr, "end 0\n");
    poll(NULL, 0, 60000); /* a test that failed may forget us */
    _exit(0);
}

/* ---- the tests ---- */

struct played {
    struct share_proc proc;
    char *log; /* owned */
};

static long number_after(const char *text, bool hex)
{
    long v = 0;
    unsigned long u = 0;
    if (hex ? sscanf(text, "%lx", &u) != 1 : sscanf(text, "%ld", &v) != 1)
        FAIL("not a number: %s", text);
    return hex ? (long)u : v;
}

/* "name value" in the log. */
static long said(const struct played *p, const char *name)
{
    const char *line = p->log;
    size_t n = strlen(name);
    while (line && *line) {
        if (strncmp(line, name, n) == 0 && (line[n] == ' ' || line[n] == ':'))
            return number_after(line + n + 1, strcmp(name, "CapEff") == 0);
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    FAIL("'%s' was not said; the log: %s", name, p->log);
}

static void play(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups, bool read_only,
                 struct played *ret)
{
    SKIP_IF(geteuid() != 0, "needs root");
    struct err e = ERR_INIT;
    size_t len;
    const char *dir = test_path("ws");

    ASSERT_SYS(chmod(test_dir(), 0711));
    ASSERT_SYS(mkdir(dir, 0700));
    ASSERT_SYS(chown(dir, uid, gid));
    autoclose int dir_fd = ASSERT_SYS(open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC));
    autoclose int log = ASSERT_SYS(
        open(test_path("log"), O_CREAT | O_APPEND | O_RDWR | O_CLOEXEC, 0600));
    const struct share_spec spec = {
        .socket_path = test_path("s"),
        .qemu_uid = QEMU_UID,
        .qemu_gid = QEMU_UID,
        .dir_fd = dir_fd,
        .read_only = read_only,
        .uid = uid,
        .gid = gid,
        .groups = groups,
        .n_groups = n_groups,
        .log_fd = log,
        .program = "/proc/self/exe",
    };
    ASSERT_OK(share_start(&spec, &ret->proc, &e), e);
    for (int64_t deadline = deadline_in(10000);;) {
        ASSERT_OK(io_read_file_at(AT_FDCWD, test_path("log"), LOG_MAX, &ret->log, &len, &e), e);
        if (strstr(ret->log, "end 0\n"))
            return;
        ASSERT_GT(deadline_left(deadline), 0);
        free(ret->log);
        usleep(5000);
    }
}

static void check_confined(const struct played *p, uid_t uid, gid_t gid)
{
    struct stat st;

    ASSERT_EQ(said(p, "uid"), 1000);
    ASSERT_EQ(said(p, "gid"), 1000);
    ASSERT_EQ(said(p, "setresuid"), 0);
    ASSERT_EQ(said(p, "setresgid"), 0);
    ASSERT_EQ(said(p, "setgroups"), 0);
    ASSERT_EQ(said(p, "uid-after"), 1000);
    ASSERT_EQ(said(p, "pid"), 1);
    ASSERT_EQ(said(p, "newns"), 0);
    ASSERT_NE(said(p, "CapEff"), 0);
    ASSERT_EQ(said(p, "NoNewPrivs"), 1);
    ASSERT_EQ(said(p, "Seccomp"), 2);
    ASSERT_EQ(said(p, "fd4"), -EBADF);
    ASSERT_EQ(said(p, "openat2"), -ENOSYS);
    ASSERT_EQ(said(p, "file-setattr"), -ENOSYS);
    ASSERT_EQ(said(p, "io-uring"), -ENOSYS);
    static const char *const xattr[] = {
        "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr",
        "setxattrat", "removexattrat",
    };
    for (size_t i = 0; i < ARRAY_SIZE(xattr); i++)
        if (said(p, xattr[i]) != -EOPNOTSUPP)
            FAIL("%s: %ld", xattr[i], said(p, xattr[i]));

    ASSERT_EQ(said(p, "chown"), 0);
    ASSERT_EQ(said(p, "lchown"), 0);
    ASSERT_EQ(said(p, "fchownat"), 0);
    ASSERT_EQ(said(p, "new-uid"), 1000);
    ASSERT_EQ(said(p, "new-gid"), 1000);
    ASSERT_SYS(stat(test_path("ws/new"), &st));
    ASSERT_EQ(st.st_uid, uid);
    ASSERT_EQ(st.st_gid, gid);

    ASSERT_EQ(said(p, "chmod-plain"), 0);
    ASSERT_EQ(said(p, "chmod-sticky"), 0);
    ASSERT_GE(said(p, "open-suid-no-create"), 0);
    ASSERT_EQ(said(p, "mkdir"), 0);
    ASSERT_EQ(said(p, "mkfifo"), 0);
    static const char *const refused[] = {
        "chmod-suid",  "chmod-sgid",  "fchmodat-suid", "fchmodat2-suid",
        "create-suid", "creat-suid",  "tmpfile-suid",  "mkdir-sgid",
        "mknod-char",  "mknod-block", "mknod-suid",
    };
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
        if (said(p, refused[i]) != -EPERM)
            FAIL("%s: %ld", refused[i], said(p, refused[i]));
    ASSERT_EQ(st.st_mode & 07777, 01755);
}

static void check_caller(uid_t uid)
{
    struct played p = { 0 };
    play(uid, uid, NULL, 0, false, &p);
    check_confined(&p, uid, uid);
    ASSERT_EQ(said(&p, "groups"), 0);
    share_stop(&p.proc);
    free(p.log);
}

TEST(as_the_first_user)
{
    check_caller(1000);
}
TEST(as_another_user)
{
    check_caller(1001);
}
TEST(as_a_far_user)
{
    check_caller(60000);
}
TEST(as_root)
{
    check_caller(0);
}

TEST(groups_of_the_caller_stay)
{
    const gid_t groups[] = { 4242, 4243 };
    struct played p = { 0 };
    play(1001, 2001, groups, 2, false, &p);
    check_confined(&p, 1001, 2001);
    ASSERT_EQ(said(&p, "groups"), 2);
    share_stop(&p.proc);
    free(p.log);
}

TEST(read_only_is_locked)
{
    struct played p = { 0 };
    play(0, 0, NULL, 0, true, &p);
    ASSERT_EQ(said(&p, "create"), -EROFS);
    ASSERT_EQ(said(&p, "mkdir"), -EROFS);
    ASSERT_EQ(said(&p, "remount"), -EPERM);
    ASSERT_EQ(said(&p, "umount"), -EINVAL); /* locked */
    ASSERT_NE(access(test_path("ws/new"), F_OK), 0);
    share_stop(&p.proc);
    free(p.log);
}

TEST(socket_is_qemus_alone)
{
    struct played p = { 0 };
    struct stat st;
    play(1001, 1001, NULL, 0, false, &p);
    ASSERT_SYS(lstat(test_path("s"), &st));
    ASSERT_TRUE(S_ISSOCK(st.st_mode));
    ASSERT_EQ(st.st_mode & 0777, 0600);
    ASSERT_EQ(st.st_uid, QEMU_UID);

    struct sockaddr_un a = { .sun_family = AF_UNIX };
    autoclose int fd = ASSERT_SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", test_path("s"));
    ASSERT_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
    share_stop(&p.proc);
    free(p.log);
}

TEST(stop_ends_all_of_it)
{
    struct played p = { 0 };
    play(1001, 1001, NULL, 0, false, &p);
    ASSERT_TRUE(share_alive(&p.proc));
    autoclose int pidfd = ASSERT_SYS(share_pidfd(&p.proc));
    share_stop(&p.proc);
    struct pollfd watched = { .fd = pidfd, .events = POLLIN };
    ASSERT_EQ(poll(&watched, 1, 0), 1);        /* who watches it is told */
    ASSERT_FALSE(share_alive(&p.proc));
    ASSERT_EQ(share_pidfd(&p.proc), -1);
    ASSERT_EQ(waitpid(-1, NULL, WNOHANG), -1); /* reaped, and no other child left */
    /* The socket lives as long as some process of the share holds it. */
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    autoclose int fd = ASSERT_SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", test_path("s"));
    ASSERT_LT(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    ASSERT_EQ(errno, ECONNREFUSED);
    share_stop(&p.proc); /* once more does nothing */
    free(p.log);
}

TEST(another_process_of_that_pid_is_left_alone)
{
    struct share_proc p = { .pid = getpid(), .start_time = 1 };
    ASSERT_FALSE(share_alive(&p));
    share_stop(&p); /* we are still here */
    p.pid = 0;
    ASSERT_FALSE(share_alive(&p));
    share_stop(&p);
}

TEST(failures_leave_nothing_behind)
{
    SKIP_IF(geteuid() != 0, "needs root");
    struct err e;
    struct share_proc proc = { 0 };
    ASSERT_SYS(mkdir(test_path("ws"), 0700));
    autoclose int dir_fd = ASSERT_SYS(open(test_path("ws"), O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct share_spec spec = { .socket_path = test_path("s"),
                               .dir_fd = dir_fd,
                               .uid = 1001,
                               .gid = 1001,
                               .log_fd = 2,
                               .program = "/nonexistent" };
    int before = test_count_fds();

    ASSERT_ERR(share_start(&spec, &proc, &e), e, ERR_UNAVAILABLE);
    spec.program = "/bin/true"; /* no virtiofsd by its help */
    ASSERT_ERR(share_start(&spec, &proc, &e), e, ERR_UNAVAILABLE);
    spec.program = "/proc/self/exe";
    spec.socket_path = test_path("none/s");
    ASSERT_ERR(share_start(&spec, &proc, &e), e, ERR_INTERNAL);
    char deep[200];
    snprintf(deep, sizeof(deep), "/%0150d", 1);
    spec.socket_path = deep;
    ASSERT_ERR(share_start(&spec, &proc, &e), e, ERR_INVALID);
    spec.socket_path = test_path("s");
    spec.dir_fd = -1;
    ASSERT_ERR(share_start(&spec, &proc, &e), e, ERR_WORKSPACE_INVALID);
    ASSERT_EQ(proc.pid, 0);
    ASSERT_EQ(test_count_fds(), before);
    ASSERT_EQ(waitpid(-1, NULL, WNOHANG), -1);
}
