/* SPDX-License-Identifier: MIT
 *
 * vm: sandboxes: registry, state machine, lifecycle. State lives in the store; the object in memory
 * adds what only a running daemon has (agent, execs, jobs).
 *
 * Two jobs per sandbox: the lifecycle job (create, start, stop, remove: one at a time, others get
 * ERR_SANDBOX_BUSY or wait by deadline) and guest work (execs), which needs no job: it takes a
 * reference to the exec table and survives its end. So `rm` works on a silent guest.
 * Lock order: registry → vm → exec table; store, log are leaves. No lock is held while libvirt, a
 * child, a guest or the disk is waited for.
 */
#pragma once

#include "common/api.h"
#include "common/err.h"
#include "daemon/config.h"
#include "daemon/exec.h"
#include "daemon/store.h"
#include "daemon/workspace.h"

struct vms;     /* the registry */
struct vm;

/* Who asks. */
struct caller {
    struct identity id;
    bool admin;         /* uid 0 or in the admin group: sees all */
    bool read_only;     /* by the socket for dashboards: sees all, changes nothing, no admin */
    pid_t pid;
    char request[17];   /* request id for the log */
};

struct vms_deps {       /* borrowed */
    const struct config *config;
    struct store *store;
    struct evloop *loop;
    struct worker *worker;
    struct egress *egress;
    struct quota *quota;
};
/* Opens libvirt, reconciles what a former daemon left, adopts running guests. Blocks. */
int vms_new(const struct vms_deps *deps, struct vms **ret, struct err *e);
/* Leaving is two steps, with worker_free() between them: after vms_release() nothing posts to the
 * worker any more (channels, watches, libvirt are closed), after vms_free() nothing is left. No
 * request may be under way. Running sandboxes go on. */
void vms_release(struct vms *v);
void vms_free(struct vms *v);

int vms_create(struct vms *v, const struct caller *c, const struct api_create_req *req,
               struct api_sandbox *ret, struct err *e);
/* name, id or unique id prefix, among what the caller may see; a reference. */
int vms_find(struct vms *v, const struct caller *c, const char *ref, struct vm **ret,
             struct err *e);
void vm_unref(struct vm *vm);
int vms_list(struct vms *v, const struct caller *c, struct api_sandbox_list *ret, struct err *e);
int vm_describe(struct vm *vm, struct api_sandbox *ret, struct err *e);
int vm_start(struct vm *vm, const struct caller *c, struct err *e);
int vm_stop(struct vm *vm, uint32_t timeout_ms, struct err *e);    /* not running: success */
int vm_restart(struct vm *vm, const struct caller *c, struct err *e);
int vm_remove(struct vm *vm, bool force, struct err *e);           /* force: no orderly shutdown */
/* The exec table of a running sandbox, a reference (exec_table_unref()); ERR_SANDBOX_STATE. */
/* ERR_NO_SPACE while its machine is paused for want of room on the host. */
int vm_check_awake(struct vm *vm, struct err *e);
int vm_execs(struct vm *vm, struct exec_table **ret, struct err *e);
/* Its policy began with another one (egress_set()): what vm_describe() says. */
int vm_policy_begins(struct vm *vm, const char *base, struct err *e);
const char *vm_id(const struct vm *vm);
const char *vm_name(const struct vm *vm);
/* which: "console" or "agent"; an fd to read (owned by the caller). */
int vm_log_open(struct vm *vm, const char *which, int *ret_fd, struct err *e);
bool vm_is_running(struct vm *vm);

struct vms_info { uint32_t sandboxes, running; struct accel_verdict accel; char *libvirt, *qemu; };
int vms_info(struct vms *v, struct vms_info *ret, struct err *e);
