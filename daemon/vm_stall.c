/* SPDX-License-Identifier: MIT
 *
 * vm_stall: a guest wrote to its disk, and the host's file system had no room. QEMU then pauses the
 * machine with the request at hand, nothing lost, instead of giving the guest an I/O error that
 * would turn its root read-only. Here that is noted, said to whoever asks, and ended by itself once
 * there is room again.
 *
 * The note is in memory: a daemon that starts anew asks libvirt (reconcile.c). All but the queries
 * run on the worker.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "daemon/vm_priv.h"

#include <string.h>
#include <sys/statvfs.h>

/* Less would be used up before anybody has seen the machine go on. */
#define STALL_ROOM (64 * MIB)

AUTO_DEFINE(vmref, struct vm, vm_unref)

const char vm_stall_reason[] = "paused: the host's disk is full; goes on when there is room";

static bool set_stalled(struct vm *vm, bool stalled)
{
    pthread_mutex_lock(&vm->lock);
    bool changed = vm->stalled != stalled;
    vm->stalled = stalled;
    pthread_mutex_unlock(&vm->lock);
    return changed;
}

void vm_job_stalled(void *ctx, const char *id, const char *detail)
{
    struct vms *v = ctx;
    struct err e = ERR_INIT;
    autotype(vmref) struct vm *vm = vms_get(v, id);

    /* Old news of a machine that has gone on since. */
    if (!vm || virt_stalled(v->virt, id, &e) != 1 || !set_stalled(vm, true))
        return;
    log_warn(LOG_CTX(.sandbox = id, .uid = &vm->row.uid), "sandbox '%s' is %s", vm->row.name,
             vm_stall_reason);
    vm_tell(vm, EVENT_STALL, vm_stall_reason);
    vm_log_line(vm, vm_stall_reason, strlen(vm_stall_reason));
}

static bool has_room(const struct vm *vm)
{
    autofree char *disk = vm_path(vm->vms, vm->id, VMP_DISK);
    struct statvfs fs;

    return disk && statvfs(disk, &fs) == 0 && fs.f_bavail * fs.f_frsize >= STALL_ROOM;
}

static void try_again(struct vm *vm)
{
    struct err e = ERR_INIT;

    if (!has_room(vm) || vm_job_begin(vm, now_mono_ms(), &e) < 0)
        return;
    /* First, as it may be paused again before the call returns; that news is a job behind this. */
    if (set_stalled(vm, false)) {
        if (virt_stalled(vm->vms->virt, vm->id, &e) == 1 &&
            virt_resume(vm->vms->virt, vm->id, &e) < 0) {
            set_stalled(vm, true);
            log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot let the sandbox go on");
        } else {
            vm_tell(vm, EVENT_RESUME, NULL);
            log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid),
                       "sandbox '%s' goes on: there is room again", vm->row.name);
        }
    }
    vm_job_end(vm);
}

void vm_stall_sweep(struct vms *v)
{
    size_t n;
    struct vm **list = vms_snapshot(v, &n);

    for (size_t i = 0; i < n; i++) {
        pthread_mutex_lock(&list[i]->lock);
        bool stalled = list[i]->stalled;
        pthread_mutex_unlock(&list[i]->lock);
        if (stalled)
            try_again(list[i]);
    }
    vms_snapshot_done(list, n);
}

int vm_check_awake(struct vm *vm, struct err *e)
{
    pthread_mutex_lock(&vm->lock);
    bool stalled = vm->stalled;
    pthread_mutex_unlock(&vm->lock);
    if (!stalled)
        return 0;
    err_set(e, ERR_NO_SPACE, "sandbox '%s' is paused: the host's disk is full", vm->row.name);
    return err_hint(e, "make room on the host; it then goes on by itself");
}
