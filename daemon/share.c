/* SPDX-License-Identifier: MIT
 *
 * Theory of operation. virtiofsd does what the guest asks for on files of the host, so what it may
 * do is settled before its first instruction, by us:
 *
 *   daemon (root)                                    child (first process of new pid, mount, net,
 *   ------                                            ipc and uts namespaces)
 *   clone the workspace's mount: nosuid, nodev,
 *     read-only if asked, private
 *   bind and listen on the socket
 *   build the seccomp filter
 *   clone3 ----------------------------------------> fds, session, signals, limits
 *                                                     make all mounts private, fresh /proc
 *                                                     put the cloned mount on SHARE_POINT
 *                                                     take the caller's groups
 *                                                     enter a new user namespace
 *   write its maps: exactly one uid and gid <------- ask
 *     inside  <-> the caller's outside  ------------> take these ids, keep a few capabilities
 *                                                       (they count in the namespace only)
 *                                                     no_new_privs, filter, exec virtiofsd
 *
 * The user namespace has one id. Whatever uid the guest claims, virtiofsd has no other to become:
 * the filter turns its attempts into successes without effect, and a chown likewise. So every file
 * is born as the caller's, nothing has to be given back afterwards, and the caller's own files
 * appear to the guest as uid 1000, its user "agent". Files of others appear as nobody's, and the
 * host's kernel decides about them as it does for the caller.
 *
 * The namespace is made by root, so that its owner is root: the caller may signal this process (it
 * is his by uid) but not trace it or enter its namespaces. The mounts were made outside of it and
 * are locked in it: read-only stays read-only whoever takes over virtiofsd.
 *
 * The first process of a pid namespace takes all others with it: one pid and its start time name
 * the whole share, and killing it leaves nothing behind.
 *
 * proc_spawn() cannot make namespaces at birth, hence a clone3() here. The child of a threaded
 * process: until exec only raw, async-signal-safe calls, and nothing from the heap.
 */
#include "daemon/share.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/proc.h"
#include "common/sbuf.h"
#include "daemon/procstat.h"
#include "daemon/share_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

/* Where the workspace is seen in the child's mount namespace; any directory there always is. */
#define SHARE_POINT  "/tmp"
#define SOCKET_FD    3
#define PROGRAM_FD   4 /* this and the two after it close themselves with exec */
#define TREE_FD      5
#define TALK_FD      6
#define GUEST_ID     1000
#define SHARE_NOFILE 1000000 /* virtiofsd keeps an fd for each inode the guest knows */

/* ---- the two virtiofsds ---- */

enum dialect { DIALECT_C, DIALECT_RUST };

/* The one of QEMU 7.2 and before. Locks are the guest's own: remote ones would block its thread.
 * timeout: how long the guest believes a name or an attribute without asking. With the usual second
 * a command started after a change on the host sees the old file; with none, each stat costs a
 * round trip (a walk takes 20 times as long). A tenth is less than anyone needs to go from one to
 * the other, and costs a walk two or three times the second's price. */
static const char *const argv_c[] = {
    "virtiofsd",
    "--fd=3",
    "-f",
    "-o",
    "source=" SHARE_POINT,
    "-o",
    "sandbox=namespace",
    "-o",
    "cache=auto,no_writeback,no_posix_lock,no_flock,no_xattr,announce_submounts,timeout=0.1",
    "-o",
    "log_level=warn",
    "--rlimit-nofile=0",
    NULL,
};

/* Its successor, which wants to be root in its namespace, and translates ids by itself. */
static const char *const argv_rust[] = {
    "virtiofsd",
    "--fd=3",
    "--shared-dir=" SHARE_POINT,
    "--sandbox=namespace",
    "--cache=auto",
    "--inode-file-handles=never",
    "--announce-submounts",
    "--log-level=warn",
    "--rlimit-nofile=0",
    "--translate-uid=squash-guest:0:0:4294967295",
    "--translate-uid=host:0:1000:1",
    "--translate-gid=squash-guest:0:0:4294967295",
    "--translate-gid=host:0:1000:1",
    NULL,
};

static const char *const program_paths[] = {
    "/usr/libexec/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
    "/usr/lib/virtiofsd",
};

static int find_program(const char *wanted, const char **ret, struct err *e)
{
    if (wanted && wanted[0]) {
        if (access(wanted, X_OK) < 0)
            return err_sys(e, ERR_UNAVAILABLE, errno, "virtiofsd at %s", wanted);
        *ret = wanted;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(program_paths); i++)
        if (access(program_paths[i], X_OK) == 0) {
            *ret = program_paths[i];
            return 0;
        }
    err_set(e, ERR_UNAVAILABLE, "virtiofsd is not installed");
    return err_hint(e, "install the package virtiofsd, or qemu-system-common on Debian 12");
}

/* Asks the program once and remembers: a start of a guest is not the time to run two programs. */
static int find_dialect(const char *program, enum dialect *ret, struct err *e)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct {
        dev_t dev;
        ino_t ino;
        struct timespec mtime;
        enum dialect dialect;
        bool known;
    } cache;
    struct stat st;

    if (stat(program, &st) < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "virtiofsd at %s", program);
    pthread_mutex_lock(&lock);
    bool hit = cache.known && cache.dev == st.st_dev && cache.ino == st.st_ino &&
               cache.mtime.tv_sec == st.st_mtim.tv_sec && cache.mtime.tv_nsec == st.st_mtim.tv_nsec;
    enum dialect d = cache.dialect;
    pthread_mutex_unlock(&lock);
    if (hit) {
        *ret = d;
        return 0;
    }

    const char *const argv[] = { program, "--help", NULL };
    autofree char *help = NULL;
    if (proc_run(argv, deadline_in(DEADLINE_CHILD), 64 * KIB, &help, e) < 0)
        return err_wrap(e, "asking %s for its options", program);
    if (strstr(help, "--translate-uid"))
        d = DIALECT_RUST;
    else if (strstr(help, "-o source="))
        d = DIALECT_C;
    else {
        err_set(e, ERR_UNAVAILABLE, "%s is a virtiofsd that cannot translate user ids", program);
        return err_hint(e, "version 1.12 or later, or QEMU 7.2's, is needed");
    }
    pthread_mutex_lock(&lock);
    cache.dev = st.st_dev;
    cache.ino = st.st_ino;
    cache.mtime = st.st_mtim;
    cache.dialect = d;
    cache.known = true;
    pthread_mutex_unlock(&lock);
    *ret = d;
    return 0;
}

/* ---- the child ---- */

#define STEPS(X)                                \
    X(STEP_MAP, "map")                          \
    X(STEP_FDS, "arrange descriptors")          \
    X(STEP_LIMITS, "set limits")                \
    X(STEP_MOUNTS, "make mounts private")       \
    X(STEP_PROC, "mount /proc")                 \
    X(STEP_SHARE, "put the workspace in place") \
    X(STEP_GROUPS, "take the caller's groups")  \
    X(STEP_USERNS, "enter a user namespace")    \
    X(STEP_WAIT, "wait for the id maps")        \
    X(STEP_IDS, "take the caller's ids")        \
    X(STEP_CAPS, "arrange capabilities")        \
    X(STEP_FILTER, "load the filter")           \
    X(STEP_EXEC, "execute virtiofsd")

enum step {
#define STEP_ENUM(constant, text) constant,
    STEPS(STEP_ENUM)
#undef STEP_ENUM
};

static const char *const step_texts[] = {
#define STEP_TEXT(constant, text) [constant] = text,
    STEPS(STEP_TEXT)
#undef STEP_TEXT
};
_Static_assert(ARRAY_SIZE(step_texts) == STEP_EXEC + 1, "a text for each step");

struct message {
    int32_t step;
    int32_t sys;
};

struct child {
    const struct share_spec *spec;
    const struct share_filter *filter;
    const char *const *argv;
    const char *mark; /* SHARE_MARK and the socket's path */
    unsigned inside_id;
    int program_fd; /* the path may be out of sight where the child is, or of the caller's */
    int tree_fd, listen_fd, null_fd;
    int talk_fd; /* to the parent, both ways; close-on-exec */
};

/* What virtiofsd keeps for its work, and what it needs to lock itself in. All of these count in
 * the namespace of one id only. */
static const int kept_caps[] = {
    CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER,  CAP_FSETID,    CAP_SETGID,     CAP_SETUID,
    CAP_MKNOD, CAP_SETFCAP,      CAP_SETPCAP, CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_DAC_READ_SEARCH,
};

static int child_caps(void)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };

    for (size_t i = 0; i < ARRAY_SIZE(kept_caps); i++) {
        struct __user_cap_data_struct *d = &data[CAP_TO_INDEX(kept_caps[i])];
        d->permitted |= CAP_TO_MASK(kept_caps[i]);
        d->effective = d->inheritable = d->permitted;
    }
    if (syscall(SYS_capset, &head, data) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(kept_caps); i++)
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept_caps[i], 0, 0) < 0)
            return -1;
    return 0;
}

/* All that is not its own is closed, not only marked: with the parent's end of the socketpair in
 * here, or in a sibling's, it would wait for ever for a daemon that was killed, and so would the
 * clients of that daemon, whose connections it has too. */
static int child_fds(struct child *c)
{
    const struct {
        int from, to;
    } moves[] = {
        { c->null_fd, 0 },
        { c->spec->log_fd, 1 },
        { c->spec->log_fd, 2 },
        { c->listen_fd, SOCKET_FD },
        { c->program_fd, PROGRAM_FD },
        { c->tree_fd, TREE_FD },
        { c->talk_fd, TALK_FD },
    };
    int high[ARRAY_SIZE(moves)];

    /* Above all numbers that are going to be fixed, so that none is overwritten before its turn. */
    for (size_t i = 0; i < ARRAY_SIZE(moves); i++) {
        high[i] = fcntl(moves[i].from, F_DUPFD_CLOEXEC, 16);
        if (high[i] < 0)
            return -1;
    }
    c->talk_fd = high[ARRAY_SIZE(moves) - 1]; /* for the report of what follows */
    for (size_t i = 0; i < ARRAY_SIZE(moves); i++)
        if (dup2(high[i], moves[i].to) < 0)
            return -1;
    c->program_fd = PROGRAM_FD;
    c->tree_fd = TREE_FD;
    c->talk_fd = TALK_FD;
    if (syscall(SYS_close_range, TALK_FD + 1, ~0U, 0) < 0)
        return -1;
    return (int)syscall(SYS_close_range, PROGRAM_FD, TALK_FD, CLOSE_RANGE_CLOEXEC);
}

static int child_limits(void)
{
    struct rlimit nofile = { SHARE_NOFILE, SHARE_NOFILE };
    const struct rlimit core = { 0, 0 };
    struct sigaction dfl = { .sa_handler = SIG_DFL };
    sigset_t none;

    for (int s = 1; s < 65; s++)
        sigaction(s, &dfl, NULL); /* fails for those that cannot be changed */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    umask(0);
    if (chdir("/") < 0)
        return -1;
    if (setrlimit(RLIMIT_NOFILE, &nofile) < 0) {
        /* No CAP_SYS_RESOURCE, or fs.nr_open is lower: all there is, then. */
        if (getrlimit(RLIMIT_NOFILE, &nofile) < 0)
            return -1;
        nofile.rlim_cur = nofile.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &nofile) < 0)
            return -1;
    }
    return setrlimit(RLIMIT_CORE, &core);
}

static int child_wait_for_maps(int fd)
{
    char byte;
    ssize_t n;
    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        errno = EPIPE;
    return n == 1 ? 0 : -1;
}

static int child_ids(const struct child *c)
{
    unsigned id = c->inside_id;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return -1;
    return syscall(SYS_setresgid, id, id, id) < 0 ? -1 : (int)syscall(SYS_setresuid, id, id, id);
}

static void child_say(const struct child *c, int32_t step, int32_t sys)
{
    struct message m = { step, sys };
    if (write(c->talk_fd, &m, sizeof(m)) < 0) { /* the parent is gone; so shall we be */
    }
}

__attribute__((noreturn)) static void child_die(const struct child *c, enum step step)
{
    child_say(c, step, errno);
    _exit(1);
}

__attribute__((noreturn)) static void child_main(struct child *c)
{
    const char *const env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", c->mark,
                                NULL };

    if (child_fds(c) < 0)
        child_die(c, STEP_FDS);
    if (child_limits() < 0)
        child_die(c, STEP_LIMITS);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        child_die(c, STEP_MOUNTS);
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        child_die(c, STEP_PROC);
    if (move_mount(c->tree_fd, "", AT_FDCWD, SHARE_POINT, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        child_die(c, STEP_SHARE);
    if (syscall(SYS_setgroups, c->spec->n_groups, c->spec->groups) < 0)
        child_die(c, STEP_GROUPS);
    if (unshare(CLONE_NEWUSER) < 0)
        child_die(c, STEP_USERNS);
    child_say(c, STEP_MAP, 0);
    if (child_wait_for_maps(c->talk_fd) < 0)
        child_die(c, STEP_WAIT);
    if (child_ids(c) < 0)
        child_die(c, STEP_IDS);
    if (child_caps() < 0)
        child_die(c, STEP_CAPS);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        child_die(c, STEP_CAPS);
    errno = share_filter_load(c->filter);
    if (errno != 0)
        child_die(c, STEP_FILTER);
    syscall(SYS_execveat, c->program_fd, "", c->argv, env, AT_EMPTY_PATH);
    child_die(c, STEP_EXEC);
}

/* ---- the parent ---- */

/* A mount of the workspace of its own, attached nowhere. It has to be made here: the fd belongs to
 * our mount namespace, and the child is in another. */
static int clone_tree(const struct share_spec *spec, int *ret_fd, struct err *e)
{
    autoclose int fd = open_tree(
        spec->dir_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    if (fd < 0)
        return err_sys(e, ERR_WORKSPACE_INVALID, errno, "cannot mount the workspace");
    struct mount_attr attr = {
        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                    (spec->read_only ? MOUNT_ATTR_RDONLY : 0),
        /* What is mounted below it later would not have these flags: keep it out. */
        .propagation = MS_PRIVATE,
    };
    if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0)
        return err_sys(e, ERR_WORKSPACE_INVALID, errno, "cannot restrict the workspace's mount");
    *ret_fd = take_fd(&fd);
    return 0;
}

static int listen_on(const struct share_spec *spec, int *ret_fd, struct err *e)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    size_t n = strlen(spec->socket_path);

    if (n >= sizeof(addr.sun_path)) {
        err_set(e, ERR_INVALID, "%s is too long for a socket", spec->socket_path);
        return err_hint(e, "choose a shorter runtime_dir");
    }
    memcpy(addr.sun_path, spec->socket_path, n);
    if (unlink(spec->socket_path) < 0 && errno != ENOENT)
        return err_sys(e, ERR_INTERNAL, errno, "cannot remove the old %s", spec->socket_path);
    autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "socket");
    /* The socket's mode becomes the file's: never open to others, not even between two calls. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot bind %s", spec->socket_path);
    if (lchown(spec->socket_path, spec->qemu_uid, spec->qemu_gid) < 0 || listen(fd, 1) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot listen on %s", spec->socket_path);
    *ret_fd = take_fd(&fd);
    return 0;
}

static int write_proc(pid_t pid, const char *file, const char *text, struct err *e)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
    autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        return err_sys(e, ERR_INTERNAL, errno, "cannot write %s of the share's process", file);
    return 0;
}

static int write_maps(pid_t pid, const struct child *c, struct err *e)
{
    char uid[48], gid[48];
    snprintf(uid, sizeof(uid), "%u %u 1\n", c->inside_id, c->spec->uid);
    snprintf(gid, sizeof(gid), "%u %u 1\n", c->inside_id, c->spec->gid);
    /* setgroups denied: groups of the caller can neither be left nor be changed inside. */
    if (write_proc(pid, "uid_map", uid, e) < 0 || write_proc(pid, "setgroups", "deny", e) < 0)
        return -1;
    return write_proc(pid, "gid_map", gid, e);
}

/* The next word of the child; 1 a message, 0 end of file (it executed virtiofsd), -1 error. */
static int hear(int fd, int64_t deadline, struct message *m, struct err *e)
{
    int r = io_wait(fd, POLLIN, deadline, e);
    if (r < 0)
        return -1;
    if (r == 0)
        return err_set(e, ERR_TIMEOUT, "the share's process did not start in time");
    ssize_t n;
    do
        n = read(fd, m, sizeof(*m));
    while (n < 0 && errno == EINTR);
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return 0;
    if (n != (ssize_t)sizeof(*m) || m->step < 0 || m->step >= (int)ARRAY_SIZE(step_texts))
        return err_set(e, ERR_INTERNAL, "the share's process talks nonsense");
    return 1;
}

static int accompany(pid_t pid, int fd, const struct child *c, struct err *e)
{
    int64_t deadline = deadline_in(DEADLINE_CHILD);
    struct message m = { 0 };

    int r = hear(fd, deadline, &m, e);
    if (r == 1 && m.step == STEP_MAP) {
        if (write_maps(pid, c, e) < 0 || io_write_full(fd, "m", 1, deadline, e) < 0)
            return -1;
        r = hear(fd, deadline, &m, e);
        if (r <= 0)
            return r;
    } else if (r == 0) {
        return err_set(e, ERR_INTERNAL, "the share's process ended early");
    }
    if (r < 0)
        return -1;
    return err_sys(e, m.step == STEP_EXEC ? ERR_UNAVAILABLE : ERR_INTERNAL, m.sys,
                   "cannot start the workspace share: %s", step_texts[m.step]);
}

static void kill_and_reap(int pidfd)
{
    struct err ignored = ERR_INIT;
    siginfo_t info;

    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    if (io_wait(pidfd, POLLIN, deadline_in(DEADLINE_CHILD), &ignored) == 1)
        waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG); /* ECHILD: not ours */
}

/* Into its control group at once (clone(2)): virtiofsd forks early, and a child that was there
 * before would not follow. */
static pid_t spawn(struct child *c, int *ret_pidfd)
{
    sigset_t all, old;
    int pidfd = -1;
    struct clone_args args = {
        .flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                 CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };

    if (c->spec->cgroup_fd > 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)c->spec->cgroup_fd;
    }
    /* No handler of the daemon may run in the child. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (pid == 0)
        child_main(c);
    int saved = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    *ret_pidfd = pidfd;
    return pid;
}

int share_start(const struct share_spec *spec, struct share_proc *ret, struct err *e)
{
    struct child c = { .spec = spec };
    enum dialect dialect = DIALECT_C;
    const char *program = NULL;
    autoclose int exe = -1, tree = -1, sock = -1, null = -1, ours = -1, theirs = -1, pidfd = -1;

    if (find_program(spec->program, &program, e) < 0 || find_dialect(program, &dialect, e) < 0)
        return -1;
    exe = open(program, O_PATH | O_CLOEXEC);
    if (exe < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "virtiofsd at %s", program);
    if (clone_tree(spec, &tree, e) < 0 || listen_on(spec, &sock, e) < 0)
        return -1;
    autofree char *mark = NULL;
    if (asprintf(&mark, SHARE_MARK "%s", spec->socket_path) < 0)
        return err_nomem(e);
    c.mark = mark;
    c.argv = dialect == DIALECT_C ? argv_c : argv_rust;
    c.inside_id = dialect == DIALECT_C ? GUEST_ID : 0;
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int pair[2];
    if (null < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot prepare the share's process");
    ours = pair[0];
    theirs = pair[1];

    struct share_filter filter = { 0 };
    if (share_filter_build(&filter, e) < 0)
        return -1;
    c.filter = &filter;
    c.program_fd = exe;
    c.tree_fd = tree;
    c.listen_fd = sock;
    c.null_fd = null;
    c.talk_fd = theirs;
    pid_t pid = spawn(&c, &pidfd);
    int saved = errno;
    share_filter_done(&filter);
    if (pid < 0) {
        err_sys(e, ERR_INTERNAL, saved, "cannot make the share's namespaces");
        return saved == ENOSPC ? err_hint(e, "see the limits in /proc/sys/user") : -1;
    }
    fd_close(take_fd(&theirs));

    struct share_proc p = { .pid = pid };
    int r = accompany(pid, ours, &c, e);
    /* A child that was killed is silent in the same way as one that executed virtiofsd. */
    if (r == 0 && io_wait(pidfd, POLLIN, deadline_in(0), e) != 0)
        r = err_set(e, ERR_INTERNAL, "virtiofsd ended at once");
    if (r < 0 || procstat_start(pid, &p.start_time, e) < 0) {
        kill_and_reap(pidfd);
        return -1;
    }
    *ret = p;
    return 0;
}

int share_pidfd(const struct share_proc *p)
{
    struct err ignored = ERR_INIT;
    uint64_t start;

    if (p->pid <= 0)
        return -1;
    autoclose int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    /* The start time is read after the pidfd is held: if it fits, the pidfd is that process. */
    if (fd < 0 || procstat_start(p->pid, &start, &ignored) < 0 || start != p->start_time)
        return -1;
    return take_fd(&fd);
}

bool share_alive(const struct share_proc *p)
{
    struct err ignored = ERR_INIT;
    autoclose int fd = share_pidfd(p);
    /* A zombie still has a pidfd, which is readable. */
    return fd >= 0 && io_wait(fd, POLLIN, deadline_in(0), &ignored) == 0;
}

void share_stop(const struct share_proc *p)
{
    autoclose int fd = share_pidfd(p);
    if (fd >= 0)
        kill_and_reap(fd);
}
