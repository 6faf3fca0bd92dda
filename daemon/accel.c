/* SPDX-License-Identifier: MIT */
#include "daemon/accel.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/proc.h"
#include "common/sbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#define KVM_PATH   "/dev/kvm"
#define CACHE_FILE "accel"
#define CACHE_MAX  4096
#define QEMU       "/usr/bin/qemu-system-x86_64"
#define NOBODY     65534
#define MARKER     "sbx-probe-ok"
#define OUTPUT_MAX (64 * KIB)

__attribute__((format(printf, 3, 4))) static int decide(struct accel_verdict *v, enum accel accel,
                                                        const char *fmt, ...)
{
    va_list ap;

    v->accel = accel;
    int n = snprintf(v->reason, sizeof(v->reason), "%s: ", accel_name(accel));
    va_start(ap, fmt);
    vsnprintf(v->reason + n, sizeof(v->reason) - (size_t)n, fmt, ap);
    va_end(ap);
    return 0;
}

/* ---- what can be said without a boot ---- */

/* True: decided (against KVM). */
static bool look_at_device(struct accel_verdict *v)
{
    autoclose int fd = open(KVM_PATH, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
            decide(v, ACCEL_TCG,
                   "no " KVM_PATH " on this machine (virtualisation is off in the "
                   "firmware, or this is a VM without nesting)");
        else
            decide(v, ACCEL_TCG, KVM_PATH " cannot be opened: %m");
        return true;
    }
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        decide(v, ACCEL_TCG, KVM_PATH " speaks version %d of its interface, not %d", version,
               KVM_API_VERSION);
        return true;
    }
    autoclose int vm = ioctl(fd, KVM_CREATE_VM, 0);
    if (vm < 0) {
        decide(v, ACCEL_TCG, KVM_PATH " opens, but makes no virtual machine: %m");
        return true;
    }
    return false;
}

int accel_kvm_group(gid_t *ret_gid)
{
    struct stat st;
    if (stat(KVM_PATH, &st) < 0 || (st.st_mode & 0006) == 0006 || (st.st_mode & 0060) != 0060)
        return 0;
    *ret_gid = st.st_gid;
    return 1;
}

/* ---- what the verdict holds for, and its file ---- */

static int first_line(const char *text, struct sbuf *b)
{
    size_t n = strcspn(text, "\n");
    sbuf_add(b, text, n);
    return n > 0 ? 0 : -1;
}

static int cpu_model(struct sbuf *b)
{
    struct err ignored = ERR_INIT;
    autofree char *text = NULL;
    size_t len;

    if (io_read_file_at(AT_FDCWD, "/proc/cpuinfo", 8 * MIB, &text, &len, &ignored) < 0)
        return -1;
    const char *p = strstr(text, "model name");
    p = p ? strchr(p, ':') : NULL;
    return p ? first_line(p + 1 + strspn(p + 1, " \t"), b) : -1;
}

static int make_key(char **ret, struct err *e)
{
    autosbuf struct sbuf b = SBUF(1024);
    autofree char *version = NULL;
    struct utsname u;

    const char *const argv[] = { QEMU, "--version", NULL };
    if (proc_run(argv, deadline_in(DEADLINE_CHILD), 4096, &version, e) < 0) {
        err_wrap(e, "cannot run QEMU");
        e->code = ERR_UNAVAILABLE;
        return err_hint(e, "install the package qemu-system-x86");
    }
    uname(&u);
    sbuf_fmt(&b, "linux %s; ", u.release);
    first_line(version, &b);
    sbuf_lit(&b, "; ");
    if (cpu_model(&b) < 0)
        sbuf_lit(&b, "unknown cpu");
    return sbuf_take(&b, ret, e);
}

static int cache_path(const char *state_dir, char **ret, struct err *e)
{
    autosbuf struct sbuf b = SBUF(LIMIT_PATH);
    sbuf_fmt(&b, "%s/" CACHE_FILE, state_dir);
    return sbuf_take(&b, ret, e);
}

/* True: there was a verdict found with the same key. */
static bool cache_read(const char *path, const char *key, struct accel_verdict *v)
{
    struct err ignored = ERR_INIT;
    autofree char *text = NULL;
    size_t len;

    if (io_read_file_at(AT_FDCWD, path, CACHE_MAX, &text, &len, &ignored) < 0)
        return false;
    char *rest = text;
    const char *k = strsep(&rest, "\n"), *verdict = strsep(&rest, "\n"), *why = strsep(&rest, "\n");
    if (!k || !verdict || !why || strcmp(k, key) != 0)
        return false;
    if (strcmp(verdict, "kvm") == 0)
        v->accel = ACCEL_KVM;
    else if (strcmp(verdict, "tcg") == 0)
        v->accel = ACCEL_TCG;
    else
        return false;
    snprintf(v->reason, sizeof(v->reason), "%s", why);
    return true;
}

/* A verdict that cannot be kept is found again next time. */
static void cache_write(const char *path, const char *key, const struct accel_verdict *v)
{
    struct err ignored = ERR_INIT;
    autosbuf struct sbuf b = SBUF(CACHE_MAX);

    sbuf_fmt(&b, "%s\n%s\n%s\n", key, accel_name(v->accel), v->reason);
    if (!b.failed)
        io_write_file_at(AT_FDCWD, path, sbuf_str(&b), b.len, 0644, &ignored);
}

/* ---- the boot ---- */

/* As a sandbox's QEMU will be: no root, no groups but the one of /dev/kvm. Runs in the child. */
static int become_nobody(void *arg)
{
    const gid_t *gid = arg;
    if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, *gid, *gid, *gid) < 0 ||
        syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY) < 0)
        return errno;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return 0;
}

struct boot {
    pid_t pid;
    int pidfd; /* owned */
    int out;   /* owned: console and stderr of QEMU */
};

static void boot_done(struct boot *b)
{
    int status;
    struct err ignored = ERR_INIT;

    if (b->pid > 0) {
        kill(b->pid, SIGKILL);
        /* A process hanging in the kernel's KVM code may not even die: not our time to lose. */
        proc_wait(b->pid, b->pidfd, deadline_in(2000), &status, &ignored);
    }
    fd_close(b->pidfd);
    fd_close(b->out);
}

static int boot_start(const char *kernel, const char *initrd, struct boot *b, struct err *e)
{
    autofree char *cmdline = NULL, *append = NULL;
    autosbuf struct sbuf words = SBUF(4096);
    gid_t gid = NOBODY;
    int pipe_fds[2];

    if (domxml_cmdline(MACHINE_MICROVM, ACCEL_KVM, 0, true, &cmdline, e) < 0)
        return -1;
    sbuf_fmt(&words, "%s sbx.probe", cmdline);
    if (sbuf_take(&words, &append, e) < 0)
        return -1;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "pipe");
    b->out = pipe_fds[0];
    autoclose int in = pipe_fds[1];

    accel_kvm_group(&gid);
    const char *const argv[] = {
        QEMU,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-machine",
        "microvm,acpi=on,accel=kvm",
        "-cpu",
        "host",
        "-smp",
        "1",
        "-m",
        "512",
        "-kernel",
        kernel,
        "-initrd",
        initrd,
        "-append",
        append,
        "-serial",
        "stdio",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        NULL,
    };
    const struct proc_spec spec = {
        .argv = argv,
        .stdin_fd = -1,
        .stdout_fd = in,
        .stderr_fd = in,
        .prepare = become_nobody,
        .prepare_arg = &gid,
        .new_session = true,
    };
    return proc_spawn(&spec, &b->pid, &b->pidfd, e);
}

/* The last line with something in it, control bytes made harmless. */
static void last_words(struct sbuf *out, char *ret, size_t size)
{
    char *text = out->data ? out->data : (char *)"";
    size_t end = out->len;

    while (end > 0 && (text[end - 1] == '\n' || text[end - 1] == '\r' || text[end - 1] == ' '))
        end--;
    size_t start = end;
    while (start > 0 && text[start - 1] != '\n')
        start--;
    size_t n = 0;
    for (size_t i = start; i < end && n + 1 < size; i++)
        ret[n++] = text[i] >= ' ' && text[i] < 0x7f ? text[i] : ' ';
    ret[n] = '\0';
}

/* 1 the guest's init spoke, 0 it will not. */
static int boot_watch(struct boot *b, int64_t deadline, struct sbuf *out, bool *ret_timeout)
{
    struct err ignored = ERR_INIT;
    char chunk[4096];

    *ret_timeout = false;
    for (;;) {
        int r = io_wait(b->out, POLLIN, deadline, &ignored);
        if (r <= 0) {
            *ret_timeout = r == 0;
            return 0;
        }
        ssize_t n = read(b->out, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0; /* QEMU ended */
        sbuf_add(out, chunk, (size_t)n);
        if (out->failed)
            return 0;
        if (memmem(sbuf_str(out), out->len, MARKER, strlen(MARKER)))
            return 1;
    }
}

static int try_boot(const char *kernel, const char *initrd, struct accel_verdict *v, struct err *e)
{
    struct boot b = { .pid = -1, .pidfd = -1, .out = -1 };
    autosbuf struct sbuf out = SBUF(OUTPUT_MAX);
    int64_t began = now_mono_ms();
    bool timeout = false;
    char words[140];

    if (boot_start(kernel, initrd, &b, e) < 0) {
        boot_done(&b);
        return -1;
    }
    int spoke = boot_watch(&b, began + DEADLINE_ACCEL_PROBE, &out, &timeout);
    int64_t took = now_mono_ms() - began;
    boot_done(&b);
    last_words(&out, words, sizeof(words));
    if (spoke)
        return decide(v, ACCEL_KVM, "a test guest booted in %" PRId64 " ms", took);
    if (timeout)
        return decide(v, ACCEL_TCG,
                      KVM_PATH " opens, but a test guest did not boot within %d s%s%s",
                      DEADLINE_ACCEL_PROBE / 1000, words[0] ? "; its last words: " : "", words);
    if (strstr(words, "Permission denied"))
        return decide(v, ACCEL_TCG,
                      KVM_PATH " is for root only: give its group (kvm) read and write");
    return decide(v, ACCEL_TCG, KVM_PATH " opens, but QEMU gave up: %s",
                  words[0] ? words : "no reason given");
}

int accel_probe(enum accel_choice choice, const char *state_dir, const char *kernel,
                const char *initrd, struct accel_verdict *ret, bool *ret_final, struct err *e)
{
    struct accel_verdict v = { 0 };
    autofree char *key = NULL, *path = NULL;

    if (choice == ACCEL_FORCE_KVM)
        decide(&v, ACCEL_KVM, "forced by configuration");
    else if (choice == ACCEL_FORCE_TCG)
        decide(&v, ACCEL_TCG, "forced by configuration");
    else if (!look_at_device(&v)) {
        if (make_key(&key, e) < 0 || cache_path(state_dir, &path, e) < 0)
            return -1;
        if (!cache_read(path, key, &v)) {
            if (!kernel || !initrd) {
                decide(ret, ACCEL_TCG, "the first start of a sandbox finds out whether KVM works");
                *ret_final = false;
                return 0;
            }
            if (try_boot(kernel, initrd, &v, e) < 0)
                return err_wrap(e, "trying hardware virtualisation");
            cache_write(path, key, &v);
        }
    }
    *ret = v;
    *ret_final = true;
    return 0;
}

/* ---- TSC ---- */

#if defined(__x86_64__)
/* A pair of readings taken as close together as one of a few tries gets. */
static void tsc_pair(uint64_t *ret_tsc, int64_t *ret_ns)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 16; i++) {
        struct timespec t;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC_RAW, &t);
        uint64_t after = __rdtsc();
        if (after - before < best) {
            best = after - before;
            *ret_tsc = before + (after - before) / 2;
            *ret_ns = t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
        }
    }
}

uint32_t accel_tsc_khz(void)
{
    const struct timespec window = { .tv_nsec = 50 * 1000 * 1000 };
    uint64_t tsc0 = 0, tsc1 = 0;
    int64_t ns0 = 0, ns1 = 0;

    tsc_pair(&tsc0, &ns0);
    nanosleep(&window, NULL);
    tsc_pair(&tsc1, &ns1);
    if (ns1 <= ns0 || tsc1 <= tsc0)
        return 0;
    double khz = (double)(tsc1 - tsc0) * 1e6 / (double)(ns1 - ns0);
    return khz > 1e5 && khz < 1e8 ? (uint32_t)(khz + 0.5) : 0;
}
#else
uint32_t accel_tsc_khz(void)
{
    return 0;
}
#endif
