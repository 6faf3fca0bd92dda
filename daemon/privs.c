/* SPDX-License-Identifier: MIT
 *
 * sandboxd runs as root, and with libvirt's embedded driver it launches QEMU itself, so it has to
 * keep what giving a child another uid, namespaces and limits of its own takes. All the rest goes:
 * modules, raw I/O, time, boot, raw network, tracing settings, audit control.
 *
 * The OOM score is left alone: what is set here would be inherited by every QEMU and every helper,
 * and a guest that eats the host's memory is what should be killed first.
 */
#include "daemon/privs.h"

#include "common/auto.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Why each one stays. */
static const int kept[] = {
    CAP_CHOWN,              /* directories and disks of a sandbox's uid */
    CAP_DAC_OVERRIDE,       /* the same, once they are its own */
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_KILL,               /* QEMU and virtiofsd run as others */
    CAP_SETUID,             /* launching them, and the opener of a workspace */
    CAP_SETGID,
    CAP_SETPCAP,            /* so that libvirt can empty QEMU's bounding set */
    CAP_SETFCAP,            /* a user namespace with the host's uid 0 in its map */
    CAP_NET_ADMIN,          /* taps and packet filter */
    CAP_NET_BIND_SERVICE,   /* the resolver's port on the gateway */
    CAP_SYS_ADMIN,          /* mounts and namespaces */
    CAP_SYS_CHROOT,
    CAP_SYS_PTRACE,         /* libvirt reads /proc of the QEMU it has launched */
    CAP_SYS_NICE,           /* libvirt sets scheduling and affinity of vCPUs */
    CAP_SYS_RESOURCE,       /* limits of children above ours */
    CAP_MKNOD,              /* libvirt, for a guest's private /dev */
    CAP_AUDIT_WRITE,        /* libvirt's audit records */
};

/* Variables that are passed on to ourselves; no other survives. */
static const char *const env_kept[] = { "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID",
                                        "LISTEN_FDNAMES", "JOURNAL_STREAM", "INVOCATION_ID" };

static int clean_env(struct err *e)
{
    char *values[ARRAY_SIZE(env_kept)] = { NULL };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(env_kept); i++) {
        const char *v = getenv(env_kept[i]);
        values[i] = v ? strdup(v) : NULL;
    }
    clearenv();
    for (size_t i = 0; i < ARRAY_SIZE(env_kept); i++) {
        if (values[i])
            r |= setenv(env_kept[i], values[i], 1);
        free(values[i]);
    }
    r |= setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    r |= setenv("LC_ALL", "C.UTF-8", 1);
    r |= setenv("HOME", "/", 1);
    return r ? err_nomem(e) : 0;
}

static int open_std(struct err *e)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        if (open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) != fd)    /* the lowest that is free */
            return err_sys(e, ERR_INTERNAL, errno, "cannot open /dev/null");
    }
    return 0;
}

int privs_clean(int listen_fds, struct err *e)
{
    struct sigaction sa = { .sa_handler = SIG_DFL };
    struct rlimit files;
    sigset_t none;

    if (open_std(e) < 0)
        return -1;
    if (syscall(SYS_close_range, 3u + (unsigned)listen_fds, ~0u, 0u) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot close inherited descriptors");
    for (int s = 1; s < NSIG; s++)
        sigaction(s, &sa, NULL);        /* fails for KILL, STOP and the C library's own */
    sa.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &sa, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(022);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    return clean_env(e);
}

static bool is_kept(int cap)
{
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
        if (kept[i] == cap)
            return true;
    return false;
}

int privs_drop(struct err *e)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };

    if (syscall(SYS_capget, &head, data) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read capabilities");
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++) {
        if (is_kept(cap))
            continue;
        if (prctl(PR_CAPBSET_DROP, cap) < 0)
            return err_sys(e, ERR_INTERNAL, errno, "cannot drop capability %d", cap);
        data[CAP_TO_INDEX(cap)].effective &= ~CAP_TO_MASK(cap);
        data[CAP_TO_INDEX(cap)].permitted &= ~CAP_TO_MASK(cap);
    }
    data[0].inheritable = data[1].inheritable = 0;
    if (syscall(SYS_capset, &head, data) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot give up capabilities");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot give up privileges");
    return 0;
}
