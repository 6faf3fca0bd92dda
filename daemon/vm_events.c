/* SPDX-License-Identifier: MIT
 *
 * vm_events: news about sandboxes that nobody asked for: the guest powered off, QEMU crashed,
 * virtiofsd ended. libvirt's thread and the event thread only post; the worker notes the news, and
 * takes the lifecycle job when it is free. When it is not, its holder knows what it does, and
 * vm_job_end() posts again if the sandbox is left running on something that is gone.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "daemon/vm_priv.h"

#include <string.h>

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
        log_notice(LOG_CTX(.sandbox = id), "the virtual machine is paused: %s", detail);
}

/* Takes the job without waiting; false when somebody has it. */
static bool try_job(struct vm *vm)
{
    struct err e = ERR_INIT;

    return vm_job_begin(vm, now_mono_ms(), &e) == 0;
}

static void end_as_stopped(struct vm *vm, enum life_end how, const char *reason)
{
    struct err e = ERR_INIT;

    if (vm_stop_guest(vm, 0, &e) < 0)
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot clean up after the guest");
    vm_log_line(vm, reason, strlen(reason));
    vm_life_ended(vm, how);
    if (vm_set_stopped(vm, reason, &e) < 0)
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot note that the sandbox stopped");
    vm_tell(vm, EVENT_STOPPED, reason);
    log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid), "sandbox '%s' stopped: %s",
               vm->row.name, reason);
}

static const char *reason_for(const char *detail)
{
    static const struct {
        const char *detail, *reason;
    } table[] = {
        { "shutdown", "the guest powered off" },
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
        end_as_stopped(vm, strcmp(vm->gone_detail, "shutdown") == 0 ? LIFE_ENDED_WELL : LIFE_FAILED,
                       reason_for(vm->gone_detail));
    vm_job_end(vm);
}

void vm_job_share_gone(void *ctx, const char *id, const char *detail)
{
    struct vms *v = ctx;
    autotype(vmref) struct vm *vm = vms_get(v, id);

    if (!vm)
        return;
    pthread_mutex_lock(&vm->lock);
    vm->share_gone = true;
    pthread_mutex_unlock(&vm->lock);
    /* virtiofsd ends with QEMU, and often is heard of first: then libvirt's word is the reason. */
    if (vm_wait_domain_gone(vm, deadline_in(1000)) || !try_job(vm))
        return;
    if (vm->row.state == VM_RUNNING && !vm->domain_gone && !share_alive(&vm->share))
        end_as_stopped(vm, LIFE_FAILED, "the file share process ended");
    vm_job_end(vm);
}
