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
#include "daemon/link.h"
#include "daemon/store.h"
#include "daemon/workspace.h"

struct events;
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
    struct events *events;
    struct audit *audit;    /* NULL: none */
};
/* Opens libvirt, reconciles what a former daemon left, adopts running guests. Blocks. What fails
 * leaves a half-made one in *ret, which has posted to the worker already: it ends as a whole one
 * does. Only without memory *ret stays as it was. */
int vms_new(const struct vms_deps *deps, struct vms **ret, struct err *e);
/* From now on time limits count, and what is to start again does. */
void vms_keep(struct vms *v);
/* Leaving is two steps, with worker_free() between them: after vms_release() nothing posts to the
 * worker any more but its own jobs (channels, watches, keepers are closed, libvirt is not listened
 * to), and all that those jobs use is still there; after vms_free() nothing is left. No request may
 * be under way. Running sandboxes go on. */
void vms_release(struct vms *v);
void vms_free(struct vms *v);

/* id: of nobody yet; "" one is made up. */
int vms_create(struct vms *v, const struct caller *c, const struct api_create_req *req,
               const char *id, struct api_sandbox *ret, struct err *e);
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
/* Changes limits; what the request leaves out stays. A new ttl counts from now on. */
int vm_update(struct vm *vm, const struct api_update_req *req, struct err *e);
/* Somebody is about to use it: a countdown to its idle timeout begins anew. To be called before
 * vm_execs(): a stop that is under way then sees it, or is seen by vm_execs(). */
void vm_touch(struct vm *vm);
/* The exec table of a running sandbox, a reference (exec_table_unref()); ERR_SANDBOX_STATE. */
/* ERR_NO_SPACE while its machine is paused for want of room on the host. */
int vm_check_awake(struct vm *vm, struct err *e);
int vm_execs(struct vm *vm, struct exec_table **ret, struct err *e);
/* Its policy began with another one (egress_set()): what vm_describe() says. */
int vm_policy_begins(struct vm *vm, const char *base, struct err *e);
uid_t vm_uid(const struct vm *vm);         /* of its owner */
const char *vm_id(const struct vm *vm);
const char *vm_name(const struct vm *vm);
/* which: "console" or "agent"; an fd to read (owned by the caller). */
int vm_log_open(struct vm *vm, const char *which, int *ret_fd, struct err *e);
bool vm_is_running(struct vm *vm);

/* What it uses. Looks at the host only: no guest, and nothing that talks to one, is asked. The
 * figures of one moment; zeroes for what does not run. */
struct vm_use {
    enum vm_state state;
    uid_t uid;
    int64_t time, started_at;           /* microseconds */
    uint32_t cpus, execs, processes, threads;
    uint64_t cpu_us;
    uint64_t memory, used, rss, pss;
    uint64_t disk, allocated, read_bytes, written_bytes;
    bool linked;                        /* the next ones mean something */
    struct link_counters net;
    uint64_t denied;
};
/* thorough: with pss, see procstat.h. */
void vm_look(struct vm *vm, bool thorough, struct vm_use *ret);
int vm_stats(struct vm *vm, bool thorough, struct api_stats *ret, struct err *e);
/* fn of each sandbox that the caller may see, in order of their creation; -1 ends it. */
typedef int (*vms_each_fn)(void *arg, struct vm *vm, struct err *e);
int vms_each(struct vms *v, const struct caller *c, vms_each_fn fn, void *arg, struct err *e);

struct vms_info { uint32_t sandboxes, running; struct accel_verdict accel; char *libvirt, *qemu; };
/* The control group that sandboxes have theirs in, borrowed; NULL: they have none. */
const char *vms_cgroup(struct vms *v);
int vms_info(struct vms *v, struct vms_info *ret, struct err *e);
