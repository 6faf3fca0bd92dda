/* SPDX-License-Identifier: MIT */
#include "resolver/jail.h"
#include "common/auto.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define MEMORY (512ul * 1024 * 1024)    /* address space: ten times what it comes to at worst */
#define CAPABILITIES 64                 /* more than any kernel has */

AUTO_DEFINE(seccomp_ctx, void, seccomp_release)

/* The loop, sockets, memory, time, the log, the end. */
static const int allowed[] = {
    SCMP_SYS(epoll_ctl),     SCMP_SYS(epoll_wait),  SCMP_SYS(epoll_pwait), SCMP_SYS(accept4),
    SCMP_SYS(connect),       SCMP_SYS(recvfrom),    SCMP_SYS(recvmsg),     SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),       SCMP_SYS(getsockopt),  SCMP_SYS(close),       SCMP_SYS(read),
    SCMP_SYS(write),         SCMP_SYS(writev),      SCMP_SYS(brk),         SCMP_SYS(munmap),
    SCMP_SYS(mremap),        SCMP_SYS(madvise),     SCMP_SYS(getrandom),   SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),  SCMP_SYS(time),        SCMP_SYS(futex),       SCMP_SYS(getpid),
    SCMP_SYS(gettid),        SCMP_SYS(exit),        SCMP_SYS(exit_group),  SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask), SCMP_SYS(restart_syscall), SCMP_SYS(tgkill),
};

/* What libraries try and can do without. */
static const int refused[] = {
    SCMP_SYS(open),   SCMP_SYS(openat), SCMP_SYS(stat),    SCMP_SYS(newfstatat), SCMP_SYS(fstat),
    SCMP_SYS(access), SCMP_SYS(ioctl),  SCMP_SYS(prlimit64), SCMP_SYS(readlink), SCMP_SYS(uname),
    SCMP_SYS(sched_yield), SCMP_SYS(sysinfo), SCMP_SYS(sched_getaffinity),
};

static const int families[] = { AF_INET, AF_INET6 };

static int add_rules(void *ctx)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(allowed); i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(refused); i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(families); i++) {
        scmp_datum_t family = (scmp_datum_t)families[i], mask = 0xf;
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
                             SCMP_A0(SCMP_CMP_EQ, family),
                             SCMP_A1(SCMP_CMP_MASKED_EQ, mask, SOCK_DGRAM));
        if (r == 0)
            r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
                                 SCMP_A0(SCMP_CMP_EQ, family),
                                 SCMP_A1(SCMP_CMP_MASKED_EQ, mask, SOCK_STREAM));
    }
    if (r == 0)     /* memory, never code */
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                             SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
    if (r == 0)
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    return r;
}

static int filter_calls(struct err *e)
{
    autotype(seccomp_ctx) void *ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);

    if (!ctx)
        return err_set(e, ERR_INTERNAL, "cannot set up a seccomp filter");
    int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (r == 0)
        r = add_rules(ctx);
    if (r == 0)
        r = seccomp_load(ctx);
    if (r < 0)
        return err_sys(e, ERR_INTERNAL, -r, "cannot limit system calls");
    return 0;
}

static int limit(int what, rlim_t n, const char *name, struct err *e)
{
    const struct rlimit r = { n, n };

    if (setrlimit((__rlimit_resource_t)what, &r) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot limit %s", name);
    return 0;
}

static int limit_all(const struct jail *j, bool all, struct err *e)
{
    if (limit(RLIMIT_NOFILE, j->files, "descriptors", e) < 0 ||
        limit(RLIMIT_CORE, 0, "core files", e) < 0 ||
        limit(RLIMIT_MEMLOCK, 0, "locked memory", e) < 0 ||
        limit(RLIMIT_MSGQUEUE, 0, "message queues", e) < 0)
        return -1;
    if (!all)
        return 0;
    return limit(RLIMIT_NPROC, 0, "processes", e) < 0 ? -1 : limit(RLIMIT_AS, MEMORY, "memory", e);
}

int jail_close_others(const int *keep, size_t n, struct err *e)
{
    unsigned from = 3;

    for (;;) {
        unsigned next = UINT32_MAX;     /* the least to be kept from here on */
        for (size_t i = 0; i < n; i++)
            if (keep[i] >= 0 && (unsigned)keep[i] >= from && (unsigned)keep[i] < next)
                next = (unsigned)keep[i];
        if (next > from && syscall(SYS_close_range, from, next == UINT32_MAX ? next : next - 1,
                                   0u) < 0)
            return err_sys(e, ERR_INTERNAL, errno, "cannot close inherited descriptors");
        if (next == UINT32_MAX)
            return 0;
        from = next + 1;
    }
}

int jail_become(const struct jail *j, struct err *e)
{
    if (geteuid() != 0 && getuid() != 0)
        return 0;
    if (j->uid == 0 || j->gid == 0)
        return err_set(e, ERR_USAGE, "will not run as root: --uid and --gid say as whom");
    /* Dropped while it still can be: what is left of it would be in reach of a set-uid program. */
    for (int c = 0; c < CAPABILITIES; c++)
        if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL)
            return err_sys(e, ERR_INTERNAL, errno, "cannot drop capability %d", c);
    if (setgroups(0, NULL) < 0 || setresgid(j->gid, j->gid, j->gid) < 0 ||
        setresuid(j->uid, j->uid, j->uid) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot become uid %u, gid %u", (unsigned)j->uid,
                       (unsigned)j->gid);
    return 0;
}

static int drop_capabilities(struct err *e)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { 0 };

    /* Where nobody gave us the right to empty the bounding set it has lost its meaning below. */
    for (int c = 0; c < CAPABILITIES; c++)
        if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL && errno != EPERM)
            return err_sys(e, ERR_INTERNAL, errno, "cannot drop capability %d", c);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
        syscall(SYS_capset, &head, none) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot give up capabilities");
    return 0;
}

int jail_enter(const struct jail *j, struct err *e)
{
#ifdef SBX_SANITIZED
    const bool all = false;
#else
    const bool all = true;
#endif

    if (getuid() == 0 || geteuid() == 0)
        return err_set(e, ERR_USAGE, "will not run as root: --uid and --gid say as whom");
    if (drop_capabilities(e) < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        (all && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0))
        return err_sys(e, ERR_INTERNAL, errno, "cannot give up privileges");
    if (limit_all(j, all, e) < 0)
        return -1;
    return all ? filter_calls(e) : 0;
}
