/* SPDX-License-Identifier: MIT
 *
 * vm_stall: a guest wrote to its disk, and the host's file system had no room. QEMU then pauses the
 * machine with the request at hand, nothing lost, instead of giving the guest an I/O error that
 * would turn its root read-only. Here that is noted, said to whoever asks, and ended by itself once
 * there is room again.
 *
 * Going on is an answer of QEMU's monitor, and a QEMU may be in its guest's hands. So it is told by
 * a thread of its own (virt_resume()), one for a sandbox at most, and the worker looks at the
 * answer. What has not answered for RESUME_MS is ended. No job is needed for that: whoever stops or
 * removes the sandbox meanwhile ends its QEMU, and that is an answer too.
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
#define RESUME_MS 10000

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

/* libvirt knows nothing new of one that is being ended, and would have the worker wait for that. */
static bool goes_down(struct vm *vm)
{
    enum vm_state s = vm_state(vm);

    return s == VM_STOPPING || s == VM_REMOVING;
}

void vm_job_stalled(void *ctx, const char *id, const char *detail)
{
    struct vms *v = ctx;
    struct err e = ERR_INIT;
    autotype(vmref) struct vm *vm = vms_get(v, id);

    if (vm && goes_down(vm)) {      /* for when that fails; a note that is wrong is found to be */
        set_stalled(vm, true);
        return;
    }
    /* Old news of a machine that has gone on since. */
    if (!vm || virt_stalled(v->virt, id, &e) != 1 || !set_stalled(vm, true))
        return;
    log_warn(LOG_CTX(.sandbox = id, .uid = &vm->row.uid), "sandbox '%s' is %s", vm->row.name,
             vm_stall_reason);
    vm_tell(vm, EVENT_STALL, vm_stall_reason);
    vm_log_line(vm, vm_stall_reason, strlen(vm_stall_reason));
}

void vm_stall_found(struct vm *vm)
{
    set_stalled(vm, true);
}

static bool is_stalled(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    bool stalled = vm->stalled;
    pthread_mutex_unlock(&vm->lock);
    return stalled;
}

/* Unless it was paused again already. */
static void goes_on(struct vm *vm)
{
    struct err e = ERR_INIT;

    if (virt_stalled(vm->vms->virt, vm->id, &e) != 0 || !set_stalled(vm, false))
        return;
    vm_tell(vm, EVENT_RESUME, NULL);
    log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid),
               "sandbox '%s' goes on: there is room again", vm->row.name);
}

void vm_job_resumed(void *ctx, const char *id, const char *detail)
{
    autotype(vmref) struct vm *vm = vms_get(ctx, id);

    if (vm && is_stalled(vm) && !goes_down(vm))
        goes_on(vm);
}

static bool has_room(const struct vm *vm)
{
    autofree char *disk = vm_path(vm->vms, vm->id, VMP_DISK);
    struct statvfs fs;

    return disk && statvfs(disk, &fs) == 0 && fs.f_bavail * fs.f_frsize >= STALL_ROOM;
}

static void set_silent(struct vm *vm, bool silent)
{
    pthread_mutex_lock(&vm->lock);
    vm->silent = silent;
    pthread_mutex_unlock(&vm->lock);
}

static void tell_to_go_on(struct vm *vm)
{
    struct err e = ERR_INIT;

    if (!has_room(vm))
        return;
    if (virt_resume(vm->vms->virt, vm->id, &vm->resume, &e) == 0)
        vm->resume_by = deadline_in(RESUME_MS);
    else if (e.code == ERR_SANDBOX_STATE)       /* it went down when it was noted */
        set_stalled(vm, false);
    else
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot let the sandbox go on");
}

static void look_at_answer(struct vm *vm)
{
    struct err e = ERR_INIT;
    int answer = virt_ask_answer(vm->resume, &e);

    if (answer == 0) {
        if (is_stalled(vm) && now_mono_ms() >= vm->resume_by)
            set_silent(vm, true);       /* and is ended for that (vm_broken()) */
        return;
    }
    virt_ask_free(vm->resume);
    vm->resume = NULL;
    set_silent(vm, false);
    if (!is_stalled(vm) || goes_down(vm))
        return;
    goes_on(vm);                /* "it runs already" is a refusal too */
    if (answer < 0 && is_stalled(vm))
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot let the sandbox go on");
}

void vm_stall_sweep(struct vms *v)
{
    size_t n;
    struct vm **list = vms_snapshot(v, &n);

    for (size_t i = 0; i < n; i++) {
        if (list[i]->resume)
            look_at_answer(list[i]);
        else if (is_stalled(list[i]) && !goes_down(list[i]))
            tell_to_go_on(list[i]);
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
