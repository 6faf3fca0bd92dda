/* SPDX-License-Identifier: MIT
 *
 * vm_files: what a sandbox has on the host's file system.
 *
 *     <state>/sandboxes/<id>/        root 0711
 *         vm/                        root, QEMU's group, 0710: disk.qcow2 (QEMU's uid)
 *         log/                       root 0711: console.log, agent.log, share.log (root)
 *     <runtime>/sandboxes/<id>/      root 0711
 *         vm/                        root 0700: agent.sock, which libvirt opens and hands to QEMU
 *         share.sock                 QEMU's uid
 *         console.in, console.out    QEMU's uid: console.h
 *         execs/                     root 0700: output rings
 *     <state>/lost+found/<id>[.N]    root 0700: what had a disk and no row, as it was; the disk
 *                                    is root's, as the uid of its QEMU may be another's by now
 *
 * No directory belongs to QEMU: libvirt changes owners by path and follows links, so whoever took
 * QEMU over must not be able to put one there. Files are made by root and given away.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/parse.h"
#include "common/proc.h"
#include "daemon/console.h"
#include "daemon/fault.h"
#include "daemon/logfile.h"
#include "daemon/vm_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DISK_HALF "disk.tmp"    /* below VMP_STATE: a disk that is being made */

static const struct {
    bool runtime;
    const char *suffix;
} path_table[] = {
    [VMP_STATE] = { false, "" },
    [VMP_DISK_DIR] = { false, "/vm" },
    [VMP_DISK] = { false, "/vm/disk.qcow2" },
    [VMP_LOG_DIR] = { false, "/log" },
    [VMP_CONSOLE] = { false, "/log/console.log" },
    [VMP_SHARE_LOG] = { false, "/log/share.log" },
    [VMP_AGENT_LOG] = { false, "/log/agent.log" },
    [VMP_RUNTIME] = { true, "" },
    [VMP_SOCK_DIR] = { true, "/vm" },
    [VMP_CHANNEL] = { true, "/vm/agent.sock" },
    [VMP_CONSOLE_PIPE] = { true, "/console" },
    [VMP_SHARE_SOCK] = { true, "/share.sock" },
    [VMP_RINGS] = { true, "/execs" },
};
_Static_assert(ARRAY_SIZE(path_table) == VMP_MAX, "a row for each path");

char *vm_path(const struct vms *v, const char *id, enum vm_path which)
{
    char *s = NULL;

    if (asprintf(&s, "%s/%s%s", path_table[which].runtime ? v->runtime_dir : v->state_dir, id,
                 path_table[which].suffix) < 0)
        return NULL;
    return s;
}

uid_t vm_qemu_uid(const struct vm *vm)
{
    return vm->vms->config->uid_base + vm->row.slot;
}

gid_t vm_qemu_gid(const struct vm *vm)
{
    gid_t common = vm->vms->qemu_gid;

    /* A group of its own, unless QEMU needs another's rights: /dev/kvm's, or libvirt's directories
     * under qemu:///system. */
    return common ? common : vm->vms->config->uid_base + vm->row.slot;
}

static int make_dir(const struct vm *vm, enum vm_path which, mode_t mode, bool qemus, struct err *e)
{
    autofree char *path = vm_path(vm->vms, vm->id, which);

    if (!path)
        return err_nomem(e);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make %s", path);
    autoclose int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", path);
    if ((qemus && fchown(fd, 0, vm_qemu_gid(vm)) < 0) || fchmod(fd, mode) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot prepare %s", path);
    return 0;
}

/* It is root's, also if QEMU wrote one itself before. */
static int open_log(struct vm *vm, enum vm_path which, int *ret_fd, struct err *e)
{
    autofree char *path = vm_path(vm->vms, vm->id, which);

    if (!path)
        return err_nomem(e);
    autoclose int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || fchown(fd, 0, 0) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", path);
    *ret_fd = take_fd(&fd);
    return 0;
}

int vm_files_make(struct vm *vm, struct err *e)
{
    autoclose int console = -1;

    if (make_dir(vm, VMP_STATE, 0711, false, e) < 0 ||
        make_dir(vm, VMP_DISK_DIR, 0710, true, e) < 0 ||
        make_dir(vm, VMP_LOG_DIR, 0711, false, e) < 0 ||
        make_dir(vm, VMP_RUNTIME, 0711, false, e) < 0 ||
        make_dir(vm, VMP_SOCK_DIR, 0700, false, e) < 0 ||
        make_dir(vm, VMP_RINGS, 0700, false, e) < 0)
        return -1;
    autofree char *pipe = vm_path(vm->vms, vm->id, VMP_CONSOLE_PIPE);
    if (!pipe)
        return err_nomem(e);
    return open_log(vm, VMP_CONSOLE, &console, e) < 0
               ? -1 : console_make(pipe, vm_qemu_uid(vm), vm_qemu_gid(vm), e);
}

int vm_files_disk(struct vm *vm, const char *base, struct err *e)
{
    autofree char *disk = vm_path(vm->vms, vm->id, VMP_DISK);
    autofree char *tmp = vm_path(vm->vms, vm->id, VMP_STATE);
    autosbuf struct sbuf making = SBUF(LIMIT_PATH), size = SBUF(32);
    struct stat sb;

    if (!disk || !tmp)
        return err_nomem(e);
    if (lstat(disk, &sb) == 0)
        return S_ISREG(sb.st_mode) ? 0 : err_set(e, ERR_INTERNAL, "%s is not a file", disk);
    if (vm->row.started_at) {       /* an empty one in its place would hide the loss */
        err_set(e, ERR_UNAVAILABLE, "its disk is gone");
        return err_hint(e, "`sbx rm` removes what is left; a copy of the disk can be put back");
    }
    /* Made in root's directory and then moved, so that a disk is whole when it is there. */
    sbuf_fmt(&making, "%s/" DISK_HALF, tmp);
    sbuf_u64(&size, vm->row.disk);
    if (sbuf_check(&making, e) < 0 || sbuf_check(&size, e) < 0)
        return -1;
    const char *const argv[] = { "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base,
                                 sbuf_str(&making), sbuf_str(&size), NULL };
    if (proc_run(argv, deadline_in(DEADLINE_CHILD), 0, NULL, e) < 0) {
        unlink(sbuf_str(&making));
        return err_wrap(e, "cannot make the disk");
    }
    if (fault_at(FAULT_START_DISK, e) < 0) {
        unlink(sbuf_str(&making));
        return -1;
    }
    if (chown(sbuf_str(&making), vm_qemu_uid(vm), vm_qemu_gid(vm)) < 0 ||
        chmod(sbuf_str(&making), 0600) < 0 || rename(sbuf_str(&making), disk) < 0) {
        err_sys(e, ERR_INTERNAL, errno, "cannot place the disk");
        unlink(sbuf_str(&making));
        return -1;
    }
    return 0;
}

int vm_files_drop_half(struct vms *v, const char *id, struct err *e)
{
    autofree char *dir = vm_path(v, id, VMP_STATE);
    autosbuf struct sbuf half = SBUF(LIMIT_PATH);

    if (!dir)
        return err_nomem(e);
    sbuf_fmt(&half, "%s/" DISK_HALF, dir);
    if (unlink(sbuf_str(&half)) < 0 && errno != ENOENT)
        return err_sys(e, ERR_INTERNAL, errno, "cannot remove %s", sbuf_str(&half));
    return 0;
}

static int drop(const char *dir, const char *id, struct err *e)
{
    autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot open %s", dir);
    return io_remove_tree(fd, id, e);
}

int vm_files_drop_runtime(struct vms *v, const char *id, struct err *e)
{
    return drop(v->runtime_dir, id, e);
}

int vm_files_drop_state(struct vms *v, const char *id, struct err *e)
{
    return drop(v->state_dir, id, e);
}

/* --- what nobody knows --- */

bool vm_lost_disk(const struct vm *vm)
{
    autofree char *disk = vm_path(vm->vms, vm->id, VMP_DISK);

    return vm->row.started_at && disk && access(disk, F_OK) < 0 && errno == ENOENT;
}

/* A free name below `dir`: an id can come twice, when a database is put back twice. */
static int move_to(const char *from, const char *dir, const char *id, char **ret, struct err *e)
{
    for (unsigned n = 0; n < 1000; n++) {
        autosbuf struct sbuf to = SBUF(LIMIT_PATH);
        sbuf_fmt(&to, n ? "%s/%s.%u" : "%s/%s", dir, id, n);
        if (sbuf_check(&to, e) < 0)
            return -1;
        if (renameat2(AT_FDCWD, from, AT_FDCWD, sbuf_str(&to), RENAME_NOREPLACE) == 0)
            return sbuf_take(&to, ret, e);
        if (errno != EEXIST)
            break;
    }
    return err_sys(e, ERR_INTERNAL, errno, "cannot move %s to %s", from, dir);
}

int vm_files_keep_state(struct vms *v, const char *id, char **ret_kept, struct err *e)
{
    autofree char *from = vm_path(v, id, VMP_STATE), *disk = vm_path(v, id, VMP_DISK);
    autosbuf struct sbuf dir = SBUF(LIMIT_PATH);
    struct stat sb;

    *ret_kept = NULL;
    sbuf_fmt(&dir, "%s/lost+found", v->config->state_dir);
    if (!from || !disk)
        return err_nomem(e);
    if (lstat(disk, &sb) < 0)
        return errno == ENOENT ? vm_files_drop_state(v, id, e)
                               : err_sys(e, ERR_INTERNAL, errno, "cannot look at %s", disk);
    if (sbuf_check(&dir, e) < 0 || io_mkdir(sbuf_str(&dir), 0700, e) < 0)
        return -1;
    if (S_ISREG(sb.st_mode) && lchown(disk, 0, 0) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot take %s over", disk);
    return move_to(from, sbuf_str(&dir), id, ret_kept, e);
}

/* --- logs --- */

void vm_log_line(struct vm *vm, const char *text, size_t len)
{
    autosbuf struct sbuf line = SBUF(2048);
    struct err e = ERR_INIT;
    struct stat sb;
    char when[40];

    format_time(now_real_us(), when);
    sbuf_fmt(&line, "%s ", when);
    sbuf_text(&line, text, len < 1024 ? len : 1024);
    sbuf_chr(&line, '\n');
    pthread_mutex_lock(&vm->log_lock);
    if (vm->log_fd < 0 && open_log(vm, VMP_AGENT_LOG, &vm->log_fd, &e) == 0)
        vm->log_size = fstat(vm->log_fd, &sb) == 0 ? (uint64_t)sb.st_size : 0;
    if (vm->log_fd >= 0 && vm->log_size > LIMIT_GUEST_LOG) {
        logfile_cut(vm->log_fd);
        vm->log_size = LIMIT_LOG_KEPT;
    }
    ssize_t n = vm->log_fd >= 0 && !line.failed ? write(vm->log_fd, sbuf_str(&line), line.len) : 0;
    if (n > 0)
        vm->log_size += (uint64_t)n;
    pthread_mutex_unlock(&vm->log_lock);
}

static void cut_if_long(const char *path)
{
    autoclose int fd = open(path, O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct stat sb;

    if (fd >= 0 && fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode) &&
        sb.st_size > (off_t)LIMIT_CONSOLE_LOG)
        logfile_cut(fd);
}

void vm_log_sweep(struct vms *v)
{
    size_t n;
    struct vm **list = vms_snapshot(v, &n);

    for (size_t i = 0; i < n; i++) {
        autofree char *console = vm_path(v, list[i]->id, VMP_CONSOLE);
        autofree char *share = vm_path(v, list[i]->id, VMP_SHARE_LOG);
        autosbuf struct sbuf qemu = SBUF(LIMIT_PATH);
        if (!console || !share || !vm_is_running(list[i]))
            continue;
        /* of the embedded driver; a system's libvirtd has its own rotation */
        sbuf_fmt(&qemu, "%s/libvirt/log/qemu/sbx-%s.log", v->config->state_dir, list[i]->id);
        cut_if_long(sbuf_str(&qemu));
        pthread_mutex_lock(&list[i]->lock);
        bool ours = list[i]->console != NULL;
        pthread_mutex_unlock(&list[i]->lock);
        if (!ours)                  /* QEMU writes it itself */
            cut_if_long(console);
        cut_if_long(share);
    }
    vms_snapshot_done(list, n);
}
