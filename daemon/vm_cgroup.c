/* SPDX-License-Identifier: MIT
 *
 * vm_cgroup: the control group of each sandbox that runs (cgroup.h), where the configuration names
 * a place for them. QEMU enters right after libvirt has started it, as it is libvirt that starts
 * it; virtiofsd is born in there.
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
#include <unistd.h>

/* Beside our own unit's group, which cannot be had (cgroup.h), the service manager has one that is
 * there for nothing else. Another daemon, that is not this unit, must not find it: what it does not
 * know in there it ends. */
#define OUR_UNIT "/sandboxd.service"
#define GUESTS_UNIT "/sandboxd-guests.service"
#define OVERHEAD (768 * MIB)        /* QEMU's own, its translated code (256 MiB), virtiofsd's */
#define WEIGHT_PER_CPU 50           /* two processors have the kernel's default, 100 */
#define THREADS 512                 /* beside one for each processor */
#define PID_MAX 16                  /* digits of a pid file */

AUTO_DEFINE(vmref, struct vm, vm_unref)

/* False: we are not that unit, or there is no such group. */
static bool find_delegated(struct sbuf *path)
{
    struct err none = ERR_INIT;
    autosbuf struct sbuf own = SBUF(LIMIT_PATH);
    size_t unit = strlen(OUR_UNIT);

    if (cgroup_self(&own, &none) < 0 || own.len < unit ||
        strcmp(sbuf_str(&own) + own.len - unit, OUR_UNIT) != 0)
        return false;
    sbuf_fmt(path, "%.*s" GUESTS_UNIT, (int)(own.len - unit), sbuf_str(&own));
    return !path->failed && access(sbuf_str(path), F_OK) == 0;
}

/* "auto" takes what the service manager has made for us (systemd/sandboxd-guests.service), and goes
 * on without; a path that was asked for has to work. */
int vm_cgroups_open(struct vms *v, struct err *e)
{
    const char *want = v->config->cgroup;
    bool automatic = strcmp(want, "auto") == 0;
    bool libvirts = strcmp(v->config->libvirt_uri, "embed") != 0;
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    struct err why = ERR_INIT;

    if (!want[0])
        return 0;
    if (libvirts && !automatic)
        return err_set(e, ERR_INVALID, "cgroup: libvirtd puts its guests into groups itself");
    if (libvirts || (automatic && !find_delegated(&path)))
        return 0;
    if (cgroup_open(automatic ? sbuf_str(&path) : want, &v->cgroups, &why) == 0)
        return 0;
    if (!automatic) {
        *e = why;
        return err_wrap(e, "cgroup");
    }
    log_warn(LOG_CTX(.error = &why), "sandboxes run without limits by control groups");
    return 0;
}

const char *vms_cgroup(struct vms *v)
{
    return v->cgroups ? cgroup_dir(v->cgroups) : NULL;
}

int vm_cgroup_make(struct vm *vm, struct err *e)
{
    const struct cgroup_limits l = {
        .cpu_weight = vm->row.cpus * WEIGHT_PER_CPU,
        .memory_max = vm->row.memory + OVERHEAD,
        .pids_max = THREADS + vm->row.cpus,
    };

    if (!vm->vms->cgroups || cgroup_make(vm->vms->cgroups, vm->id, &l, e) == 0)
        return 0;
    return err_hint(e, "the administrator can have sandboxd look for it anew: "
                       "systemctl restart sandboxd");
}

int vm_cgroup_fd(struct vm *vm, int *ret, struct err *e)
{
    *ret = vm->vms->cgroups ? cgroup_fd(vm->vms->cgroups, vm->id, e) : -1;
    return *ret < 0 && vm->vms->cgroups ? -1 : 0;
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
