/* SPDX-License-Identifier: MIT */
#include "daemon/share_filter.h"

#include "common/auto.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILTER_BYTES_MAX (64 * 1024)

AUTO_DEFINE(seccomp_ctx, void, seccomp_release)
#define autoseccomp autotype(seccomp_ctx)

/* libseccomp of Debian 12 has no names for these; the numbers are the same on all architectures. */
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_setxattrat
#define SYS_setxattrat 463
#define SYS_removexattrat 466
#endif
#ifndef SYS_file_setattr
#define SYS_file_setattr 469
#endif

/* Calls that succeed without effect. */
static const int ignored[] = {
    SCMP_SYS(setuid),    SCMP_SYS(setgid),    SCMP_SYS(setreuid), SCMP_SYS(setregid),
    SCMP_SYS(setresuid), SCMP_SYS(setresgid), SCMP_SYS(setfsuid), SCMP_SYS(setfsgid),
    SCMP_SYS(setgroups), SCMP_SYS(chown),     SCMP_SYS(fchown),   SCMP_SYS(lchown),
    SCMP_SYS(fchownat),
};

static const int without_xattr[] = {
    SCMP_SYS(setxattr),    SCMP_SYS(lsetxattr),    SCMP_SYS(fsetxattr),
    SCMP_SYS(removexattr), SCMP_SYS(lremovexattr), SCMP_SYS(fremovexattr),
    SYS_setxattrat,        SYS_removexattrat,
};

/* Calls that this kernel does not have: what they do is said in memory, or in a ring of requests,
 * where a filter cannot look. */
static const int unknown[] = { SCMP_SYS(openat2), SCMP_SYS(io_uring_setup), SYS_file_setattr };

/* Calls that take a mode whatever their other arguments say. */
static const struct {
    int call;
    unsigned mode_arg;
} modes[] = {
    { SCMP_SYS(chmod), 1 },   { SCMP_SYS(fchmod), 1 },  { SCMP_SYS(fchmodat), 2 },
    { SCMP_SYS(mkdir), 1 },   { SCMP_SYS(mkdirat), 2 }, { SCMP_SYS(mknod), 1 },
    { SCMP_SYS(mknodat), 2 }, { SCMP_SYS(creat), 1 },   { SYS_fchmodat2, 2 },
};

static const mode_t special_bits[] = { S_ISUID, S_ISGID };
static const mode_t device_kinds[] = { S_IFCHR, S_IFBLK };
/* The flags with which open() looks at its mode. */
static const int creating[] = { O_CREAT, O_TMPFILE & ~O_DIRECTORY };

static int deny_modes(void *ctx)
{
    int r = 0;

    for (size_t b = 0; r == 0 && b < ARRAY_SIZE(special_bits); b++) {
        mode_t bit = special_bits[b];
        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(modes); i++)
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), modes[i].call, 1,
                                 SCMP_CMP(modes[i].mode_arg, SCMP_CMP_MASKED_EQ, bit, bit));
        for (size_t c = 0; r == 0 && c < ARRAY_SIZE(creating); c++) {
            scmp_datum_t f = (scmp_datum_t)creating[c];
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(open), 2,
                                 SCMP_A1(SCMP_CMP_MASKED_EQ, f, f),
                                 SCMP_A2(SCMP_CMP_MASKED_EQ, bit, bit));
            if (r == 0)
                r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 2,
                                     SCMP_A2(SCMP_CMP_MASKED_EQ, f, f),
                                     SCMP_A3(SCMP_CMP_MASKED_EQ, bit, bit));
        }
    }
    return r;
}

static int deny_devices(void *ctx)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(device_kinds); i++) {
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(mknod), 1,
                             SCMP_A1(SCMP_CMP_MASKED_EQ, S_IFMT, device_kinds[i]));
        if (r == 0)
            r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(mknodat), 1,
                                 SCMP_A2(SCMP_CMP_MASKED_EQ, S_IFMT, device_kinds[i]));
    }
    return r;
}

static int add_rules(void *ctx)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(ignored); i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(0), ignored[i], 0);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(without_xattr); i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EOPNOTSUPP), without_xattr[i], 0);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(unknown); i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), unknown[i], 0);
    if (r == 0)
        r = deny_modes(ctx);
    if (r == 0)
        r = deny_devices(ctx);
    return r;
}

static int export(void *ctx, struct share_filter *ret, struct err *e)
{
    /* libseccomp writes the program to a file only */
    autoclose int fd = memfd_create("filter", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "memfd_create");
    int r = seccomp_export_bpf(ctx, fd);
    if (r < 0)
        return err_sys(e, ERR_INTERNAL, -r, "cannot export the share's filter");
    off_t size = lseek(fd, 0, SEEK_END);
    if (size <= 0 || size > FILTER_BYTES_MAX || size % (off_t)sizeof(struct sock_filter) != 0)
        return err_set(e, ERR_INTERNAL, "the share's filter has an odd size");
    autofree struct sock_filter *code = malloc((size_t)size);
    if (!code)
        return err_nomem(e);
    if (pread(fd, code, (size_t)size, 0) != size)
        return err_set(e, ERR_INTERNAL, "cannot read the share's filter back");
    ret->prog.len = (unsigned short)((size_t)size / sizeof(struct sock_filter));
    ret->prog.filter = take_ptr(code);
    return 0;
}

int share_filter_build(struct share_filter *ret, struct err *e)
{
    autoseccomp void *ctx = seccomp_init(SCMP_ACT_ALLOW);
    if (!ctx)
        return err_set(e, ERR_INTERNAL, "cannot set up a seccomp filter");
    int r = add_rules(ctx);
    if (r < 0)
        return err_sys(e, ERR_INTERNAL, -r, "cannot put the share's filter together");
    return export(ctx, ret, e);
}

void share_filter_done(struct share_filter *f)
{
    free(f->prog.filter);
    f->prog.filter = NULL;
    f->prog.len = 0;
}

int share_filter_load(const struct share_filter *f)
{
    /* Without the flag that would tell our other threads: the child has none. */
    return syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, &f->prog) < 0 ? errno : 0;
}
