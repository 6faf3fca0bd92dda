/* SPDX-License-Identifier: MIT
 *
 * vm_stats: what a sandbox uses, by looking at the host: its processes in /proc, its disk as a
 * file, its tap, and the counters of our own. QEMU's monitor and the agent know more, but would be
 * waited for.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/peer.h"
#include "daemon/procstat.h"
#include "daemon/vm_priv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void look_at_disk(const struct vm *vm, struct vm_use *u)
{
    autofree char *path = vm_path(vm->vms, vm->id, VMP_DISK);
    struct stat sb;

    if (path && lstat(path, &sb) == 0)
        u->allocated = (uint64_t)sb.st_blocks * 512;
}

/* The guest's memory belongs to QEMU; virtiofsd has mapped it as well. */
static void look_at_processes(struct vm *vm, const struct share_proc *share, bool thorough,
                              struct vm_use *u)
{
    struct proc_use qemu = { 0 }, fs = { 0 };

    procstat_add(virt_pid(vm->vms->virt, vm->id), vm_qemu_uid(vm), 0, thorough, &qemu);
    if (share->pid)
        procstat_add(share->pid, (uid_t)-1, share->start_time, thorough, &fs);
    u->cpu_us = qemu.cpu_us + fs.cpu_us;
    u->used = qemu.rss + fs.own;
    u->rss = qemu.rss + fs.rss;
    u->pss = qemu.pss + fs.pss;
    u->read_bytes = qemu.read_bytes;
    u->written_bytes = qemu.written_bytes;
    u->processes = qemu.processes + fs.processes;
    u->threads = qemu.threads + fs.threads;
}

void vm_look(struct vm *vm, bool thorough, struct vm_use *ret)
{
    struct err ignored = ERR_INIT;

    pthread_mutex_lock(&vm->lock);
    struct exec_table *t = vm->execs ? exec_table_ref(vm->execs) : NULL;
    struct share_proc share = vm->share;
    struct link l = vm->link;
    bool runs = vm->row.state == VM_RUNNING || vm->row.state == VM_STOPPING;
    *ret = (struct vm_use){ .state = vm->row.state, .uid = vm->row.uid, .cpus = vm->row.cpus,
                            .memory = vm->row.memory, .disk = vm->row.disk,
                            .started_at = vm->row.started_at };
    pthread_mutex_unlock(&vm->lock);
    ret->time = now_real_us();
    if (runs) {
        look_at_processes(vm, &share, thorough, ret);
        ret->linked = l.name[0] && link_counters(l.name, &ret->net, &ignored) == 0;
        ret->denied = egress_denials(vm->vms->egress, vm->row.slot);
    }
    if (t)
        ret->execs = exec_table_running(t);
    exec_table_unref(t);
    look_at_disk(vm, ret);
}

int vm_stats(struct vm *vm, bool thorough, struct api_stats *ret, struct err *e)
{
    struct vm_use u;

    vm_look(vm, thorough, &u);
    bool runs = u.state == VM_RUNNING || u.state == VM_STOPPING;
    *ret = (struct api_stats){
        .id = strdup(vm->id),
        .name = strdup(vm->row.name),
        .state = strdup(vm_state_name(u.state)),
        .owner.uid = u.uid,
        .time = u.time,
        .started_at = u.started_at,
        .uptime_ms = runs && u.time > u.started_at ? (uint64_t)(u.time - u.started_at) / 1000 : 0,
        .cpu = { u.cpus, u.cpu_us },
        .memory = { u.memory, u.used, u.rss, u.pss },
        .disk = { u.disk, u.allocated, u.read_bytes, u.written_bytes },
        .network = { u.linked, u.net.rx_bytes, u.net.rx_packets, u.net.tx_bytes, u.net.tx_packets,
                     u.denied },
        .execs_running = u.execs,
        .processes = u.processes,
        .threads = u.threads,
    };
    int r = ret->id && ret->name && ret->state ? 0 : err_nomem(e);
    if (r == 0)
        r = peer_user_name(ret->owner.uid, &ret->owner.user, e);
    if (r < 0)
        json_done(api_stats_table, ret, sizeof(*ret));
    return r;
}
