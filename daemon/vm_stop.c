/* SPDX-License-Identifier: MIT
 *
 * vm_stop: how a sandbox goes down. An orderly shutdown asks the guest and waits for libvirt's word
 * that the domain is gone; after its time, or at once when none is given, the power is cut. A guest
 * that does not answer can delay, never prevent.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "daemon/console.h"
#include "daemon/fault.h"
#include "daemon/vm_priv.h"

#include <stdlib.h>
#include <string.h>

static void forget_execs(struct vm *vm)
{
    struct err e = ERR_INIT;
    struct exec_row *rows = NULL;
    size_t n = 0;

    if (store_exec_list(vm->vms->store, vm->id, &rows, &n, &e) < 0)
        log_warn(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot list old execs, ignoring");
    for (size_t i = 0; i < n; i++) {
        if (store_exec_delete(vm->vms->store, rows[i].id, &e) < 0)
            log_warn(LOG_CTX(.sandbox = vm->id, .exec = rows[i].id, .error = &e),
                     "cannot forget an old exec, ignoring");
        exec_row_done(&rows[i]);
    }
    free(rows);
}

void vm_close_guest(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    struct agent *agent = vm->agent;
    struct exec_table *execs = vm->execs;
    struct console *console = vm->console;
    struct evsource *watch = vm->share_watch;
    struct share_proc share = vm->share;
    int pidfd = take_fd(&vm->share_pidfd);
    vm->agent = NULL;
    vm->execs = NULL;
    vm->console = NULL;
    vm->share_watch = NULL;
    vm->share = (struct share_proc){ 0 };
    vm->row.share_pid = 0;
    vm->row.share_start = 0;
    vm->stalled = false;
    pthread_mutex_unlock(&vm->lock);

    console_close(console);
    evloop_remove(watch);
    fd_close(pidfd);
    if (agent) {
        agent_close(agent);
        agent_unref(agent);
    }
    if (execs) {
        exec_table_close(execs);
        exec_table_unref(execs);
    }
    forget_execs(vm);       /* also those of a guest that ended while no daemon was there */
    fault_here(FAULT_STOP_SHARE);
    if (share.pid)
        share_stop(&share);
}

static void ask_guest(struct vm *vm, int64_t timeout_ms)
{
    static const uint8_t power_off = 0;
    struct err e = ERR_INIT;
    int64_t deadline = deadline_in(timeout_ms);

    pthread_mutex_lock(&vm->lock);
    struct agent *a = vm->agent ? agent_ref(vm->agent) : NULL;
    pthread_mutex_unlock(&vm->lock);
    if (!a)
        return;
    int r = agent_is_ready(a) ? agent_send(a, FRAME_SHUTDOWN, 0, 0, &power_off, 1, deadline, &e)
                              : -1;
    agent_unref(a);
    if (r == 0 && !vm_wait_domain_gone(vm, deadline))
        log_debug(LOG_CTX(.sandbox = vm->id), "no orderly shutdown in %lld ms, cutting the power",
                  (long long)timeout_ms);
}

int vm_stop_guest(struct vm *vm, int64_t timeout_ms, struct err *e)
{
    fault_here(FAULT_STOP_ASK);
    if (timeout_ms > 0)
        ask_guest(vm, timeout_ms);
    if (fault_at(FAULT_STOP_POWER, e) < 0 || virt_destroy(vm->vms->virt, vm->id, e) < 0)
        return -1;
    fault_here(FAULT_STOP_CLOSE);
    vm_close_guest(vm);
    vm_cgroup_drop(vm->vms, vm->id);
    if (fault_at(FAULT_STOP_NETWORK, e) < 0 ||
        egress_detach(vm->vms->egress, vm->id, vm->row.slot, e) < 0 ||
        fault_at(FAULT_STOP_FILES, e) < 0)
        return -1;
    return vm_files_drop_runtime(vm->vms, vm->id, e);
}

int vm_erase(struct vm *vm, struct err *e)
{
    pthread_mutex_lock(&vm->log_lock);
    fd_close(take_fd(&vm->log_fd));
    pthread_mutex_unlock(&vm->log_lock);
    /* Files first: a row without files is finished at the next start, files without a row are
     * somebody's disk that nobody can name. */
    if (fault_at(FAULT_RM_DOMAIN, e) < 0 || virt_forget(vm->vms->virt, vm->id, e) < 0 ||
        fault_at(FAULT_RM_FILES, e) < 0 || vm_files_drop_state(vm->vms, vm->id, e) < 0 ||
        fault_at(FAULT_RM_DELETE, e) < 0 || store_vm_delete(vm->vms->store, vm->id, e) < 0)
        return -1;
    pthread_mutex_lock(&vm->lock);
    vm->removed = true;
    pthread_mutex_unlock(&vm->lock);
    vm_tell(vm, EVENT_REMOVE, NULL);
    vms_drop(vm->vms, vm);
    return 0;
}
