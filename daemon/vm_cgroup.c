/* SPDX-License-Identifier: MIT
 *
 * vm_cgroup: the control group of each sandbox that runs (cgroup.h), where the configuration names
 * a place for them. QEMU enters right after libvirt has started it, as it is libvirt that starts
 * it; virtiofsd as soon as it is there.
 *
 * memory.max is what the guest has and what QEMU and virtiofsd need beside that. Their page cache
 * counts, too, and is given back by the kernel before anybody is killed. Who is killed is QEMU or
 * virtiofsd: the sandbox then ends with a reason.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/parse.h"
#include "common/sbuf.h"
#include "daemon/cgroup.h"
#include "daemon/vm_priv.h"

#include <fcntl.h>
#include <string.h>

#define OVERHEAD (768 * MIB)        /* QEMU's own, its translated code (256 MiB), virtiofsd's */
#define WEIGHT_PER_CPU 50           /* two processors have the kernel's default, 100 */
#define THREADS 512                 /* beside one for each processor */
#define PID_MAX 16                  /* digits of a pid file */

AUTO_DEFINE(vmref, struct vm, vm_unref)

int vm_cgroups_open(struct vms *v, struct err *e)
{
    if (!v->config->cgroup[0])
        return 0;
    if (strcmp(v->config->libvirt_uri, "embed") != 0)
        return err_set(e, ERR_INVALID, "cgroup: libvirtd puts its guests into groups itself");
    return cgroup_open(v->config->cgroup, &v->cgroups, e) < 0 ? err_wrap(e, "cgroup") : 0;
}

int vm_cgroup_make(struct vm *vm, struct err *e)
{
    const struct cgroup_limits l = {
        .cpu_weight = vm->row.cpus * WEIGHT_PER_CPU,
        .memory_max = vm->row.memory + OVERHEAD,
        .pids_max = THREADS + vm->row.cpus,
    };

    return vm->vms->cgroups ? cgroup_make(vm->vms->cgroups, vm->id, &l, e) : 0;
}

int vm_cgroup_enter(struct vm *vm, pid_t pid, struct err *e)
{
    return vm->vms->cgroups && pid > 0 ? cgroup_enter(vm->vms->cgroups, vm->id, pid, e) : 0;
}

int vm_cgroup_enter_qemu(struct vm *vm, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    autofree char *text = NULL;
    size_t len = 0;
    uint32_t pid;

    if (!vm->vms->cgroups)
        return 0;
    sbuf_fmt(&path, "%s/libvirt/run/qemu/sbx-%s.pid", vm->vms->config->state_dir, vm->id);
    if (io_read_file_at(AT_FDCWD, sbuf_str(&path), PID_MAX, &text, &len, e) < 0)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    if (!parse_u32(text, 2, INT32_MAX, &pid))
        return err_set(e, ERR_INTERNAL, "%s has no number of a process", sbuf_str(&path));
    return vm_cgroup_enter(vm, (pid_t)pid, e);
}

void vm_cgroup_drop(struct vms *v, const char *id)
{
    struct err e = ERR_INIT;

    if (v->cgroups && cgroup_drop(v->cgroups, id, &e) < 0)
        log_warn(LOG_CTX(.sandbox = id, .error = &e),
                 "a control group stays; the next start of sandboxd takes it away");
}

/* What a former daemon with another configuration, or one that was killed, has left. */
static void drop_stray(void *arg, const char *id)
{
    struct vms *v = arg;
    autotype(vmref) struct vm *vm = vms_get(v, id);

    if (!vm || !vm_is_running(vm))
        vm_cgroup_drop(v, id);
}

int vm_cgroups_settle(struct vms *v, struct err *e)
{
    return v->cgroups ? cgroup_list(v->cgroups, drop_stray, v, e) : 0;
}
