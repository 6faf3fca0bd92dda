/* SPDX-License-Identifier: MIT
 *
 * vm_events: news about sandboxes that nobody asked for: the guest powered off, QEMU crashed or
 * halted it, virtiofsd ended. libvirt's thread and the event thread only post; the worker notes the
 * news, and takes the lifecycle job when it is free. When it is not, its holder knows what it does,
 * and vm_job_end() posts again if the sandbox is left running on a domain that is gone. What is not
 * clear at once, why a share is gone or a machine stands still, is only noted, and decided by the
 * next sweep. A machine that is still there is ended by a thread of the keeper's: its QEMU may be
 * in its guest's hands, and take its time.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "daemon/vm_priv.h"

#include <assert.h>
#include <string.h>

#define SHARE_SETTLE_MS 1000    /* libvirt hears of a QEMU's end no later than so, */
#define SHARE_WORD_MS 15000     /* and says so no later: as long as it may take to end one */

AUTO_DEFINE(vmref, struct vm, vm_unref)

void vms_on_virt(void *arg, const char *id, enum virt_event ev, const char *detail)
{
    struct vms *v = arg;

    if (ev == VIRT_STOPPED || ev == VIRT_CRASHED)
        worker_post(v->worker, vm_job_domain_gone, v, id, detail);
    else if (ev == VIRT_PAUSED && strcmp(detail, "io-error") == 0)
        worker_post(v->worker, vm_job_stalled, v, id, NULL);
    else if (ev == VIRT_RESUMED)
        worker_post(v->worker, vm_job_resumed, v, id, NULL);
    else if (ev == VIRT_PAUSED)
        worker_post(v->worker, vm_job_paused, v, id, NULL);
}

/* Takes the job without waiting; false when somebody has it. */
static bool try_job(struct vm *vm)
{
    struct err e = ERR_INIT;

    return vm_job_begin(vm, now_mono_ms(), &e) == 0;
}

/* The machine is gone. A row that cannot be written says "running", and the next start mends it. */
static void note_end(struct vm *vm, enum life_end how, const char *reason)
{
    struct err e = ERR_INIT;

    vm_log_line(vm, reason, strlen(reason));
    vm_life_ended(vm, how);
    if (vm_set_stopped(vm, reason, &e) < 0)
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot note that the sandbox stopped");
    vm_tell_stopped(vm, reason);
}

/* Of a machine that libvirt has not any more, so there is nothing to wait for. */
static void end_as_stopped(struct vm *vm, enum life_end how, const char *reason)
{
    struct err e = ERR_INIT;

    if (vm_stop_guest(vm, 0, &e) < 0)
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot clean up after the guest");
    note_end(vm, how, reason);
}

int vm_end_broken(struct vm *vm, const struct vm_broken *b, struct err *e)
{
    struct err ignored = ERR_INIT;
    bool paused;

    /* In memory only: a daemon that is killed meanwhile shall find one that ran, and restart it if
     * its policy says so. */
    vm_set_memory_state(vm, VM_STOPPING);
    if (vm_stop_guest(vm, 0, e) < 0) {
        if (virt_exists(vm->vms->virt, vm->id, &paused, &ignored) != 0) {
            vm_set_memory_state(vm, VM_RUNNING);
            vm_tell_failed(vm, e);
            return err_wrap(e, "cannot end sandbox '%s', of which is to be said: %s",
                            vm->row.name, b->reason);
        }
        log_err(LOG_CTX(.sandbox = vm->id, .error = e), "cannot clean up after the guest");
    }
    note_end(vm, LIFE_FAILED, b->reason);
    return 0;
}

static const char *reason_for(const char *detail)
{
    static const struct {
        const char *detail, *reason;
    } table[] = {
        { VIRT_POWERED_OFF, "the guest powered off" },
        { "crashed", "the virtual machine crashed" },
        { "failed", "the virtual machine failed" },
        { "destroyed", "the virtual machine was ended from outside" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (strcmp(table[i].detail, detail) == 0)
            return table[i].reason;
    }
    return "the virtual machine ended";
}

void vm_job_domain_gone(void *ctx, const char *id, const char *detail)
{
    struct vms *v = ctx;
    struct err e = ERR_INIT;
    autotype(vmref) struct vm *vm = vms_get(v, id);
    bool paused;

    if (!vm)
        return;
    bool old_news = virt_exists(v->virt, id, &paused, &e) == 1;     /* it was started again since */
    pthread_mutex_lock(&vm->lock);
    if (old_news) {
        /* If it was heard just before that start, the next stop would not wait for the guest. */
        vm->domain_gone = false;
        pthread_mutex_unlock(&vm->lock);
        return;
    }
    vm->domain_gone = true;
    if (detail[0])
        memcpy(vm->gone_detail, detail, strnlen(detail, sizeof(vm->gone_detail) - 1) + 1);
    struct agent *a = vm->agent ? agent_ref(vm->agent) : NULL;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
    if (a) {                                /* wakes whoever waits for this guest */
        agent_close(a);
        agent_unref(a);
    }
    if (!try_job(vm))
        return;
    if (vm->row.state == VM_RUNNING)
        end_as_stopped(vm, strcmp(vm->gone_detail, VIRT_POWERED_OFF) == 0 ? LIFE_ENDED_WELL
                                                                          : LIFE_FAILED,
                       reason_for(vm->gone_detail));
    vm_job_end(vm);
}

/* Noted only, even where the job is free: virtiofsd ends with QEMU, and often is heard of first.
 * Then libvirt's word, which is a job of this same thread, is the reason. */
void vm_job_share_gone(void *ctx, const char *id, const char *detail)
{
    autotype(vmref) struct vm *vm = vms_get(ctx, id);

    if (!vm)
        return;
    pthread_mutex_lock(&vm->lock);
    if (!vm->share_gone_at)
        vm->share_gone_at = now_mono_ms();
    pthread_mutex_unlock(&vm->lock);
}

static void set_paused(struct vm *vm, bool paused)
{
    pthread_mutex_lock(&vm->lock);
    vm->paused = paused;
    pthread_mutex_unlock(&vm->lock);
}

void vm_job_paused(void *ctx, const char *id, const char *detail)
{
    autotype(vmref) struct vm *vm = vms_get(ctx, id);

    if (!vm)
        return;
    set_paused(vm, true);
    log_notice(LOG_CTX(.sandbox = id), "the virtual machine is paused");
}

/* One whose machine runs has lost its share; one whose machine ends will be told of by libvirt, and
 * is given up only if that word does not come. */
static bool has_lost_share(struct vm *vm, int64_t gone_ms)
{
    struct err e = ERR_INIT;
    bool paused = false;

    if (share_alive(&vm->share)) {              /* news of one before it */
        pthread_mutex_lock(&vm->lock);
        vm->share_gone_at = 0;
        pthread_mutex_unlock(&vm->lock);
        return false;
    }
    return gone_ms >= SHARE_WORD_MS ||
           (virt_exists(vm->vms->virt, vm->id, &paused, &e) == 1 && !paused);
}

/* One that cannot go on; one that an administrator has paused is his. */
static const struct vm_broken *is_halted(struct vm *vm)
{
    static const struct vm_broken halted[] = {  /* without a word: it may go on */
        [VIRT_PAUSE_WATCHDOG] = { "halted", "the virtual machine was halted by its watchdog" },
        [VIRT_PAUSE_PANIC] = { "halted", "the virtual machine was halted, as its kernel panicked" },
        [VIRT_PAUSE_FAULT] = { "halted",
                               "the virtual machine was halted, QEMU could not go on with it" },
    };
    static_assert(ARRAY_SIZE(halted) == VIRT_PAUSE_MAX, "one for each");
    enum virt_pause why = VIRT_NOT_PAUSED;
    struct err e = ERR_INIT;

    set_paused(vm, false);      /* first: news that come meanwhile stay */
    int r = virt_pause(vm->vms->virt, vm->id, &why, &e);
    if (r < 0 || (r == 1 && why != VIRT_PAUSE_DISK))
        set_paused(vm, true);
    if (r == 1 && why == VIRT_PAUSE_DISK)
        worker_post(vm->vms->worker, vm_job_stalled, vm->vms, vm->id, NULL);
    return r == 1 && halted[why].word ? &halted[why] : NULL;
}

const struct vm_broken *vm_broken(struct vm *vm)
{
    static const struct vm_broken
        silent = { "silent", "its QEMU did not answer when there was room again" },
        shareless = { "share", "the file share process ended" };

    pthread_mutex_lock(&vm->lock);
    bool runs = vm->row.state == VM_RUNNING && !vm->domain_gone;
    bool paused = vm->paused, is_silent = vm->silent;
    int64_t at = vm->share_gone_at;
    pthread_mutex_unlock(&vm->lock);
    int64_t gone_ms = now_mono_ms() - at;
    if (!runs)
        return NULL;
    if (is_silent)
        return &silent;
    if (at && gone_ms >= SHARE_SETTLE_MS && has_lost_share(vm, gone_ms))
        return &shareless;
    return paused ? is_halted(vm) : NULL;
}

/* Most are well, and keep their job. */
static bool may_be_broken(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    bool may = vm->row.state == VM_RUNNING && (vm->share_gone_at || vm->paused || vm->silent);
    pthread_mutex_unlock(&vm->lock);
    return may;
}

void vm_events_sweep(struct vms *v)
{
    size_t n;
    struct vm **list = vms_snapshot(v, &n);

    for (size_t i = 0; i < n; i++) {
        if (!may_be_broken(list[i]) || !try_job(list[i]))
            continue;
        bool broken = vm_broken(list[i]) != NULL;
        vm_job_end(list[i]);
        if (broken)
            vm_keep_end(list[i]);
    }
    vms_snapshot_done(list, n);
}
