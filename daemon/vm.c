/* SPDX-License-Identifier: MIT
 *
 * vm: one sandbox as an object: references, the lifecycle job, what it looks like from outside, and
 * the verbs of the API in terms of vm_start.c and vm_stop.c.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/name.h"
#include "common/parse.h"
#include "daemon/fault.h"
#include "daemon/peer.h"
#include "daemon/space.h"
#include "daemon/vm_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define EV_STARTED "5b1de1c9c8c04c6f9e6fd4bca02f2a01"
#define EV_STOPPED "5b1de1c9c8c04c6f9e6fd4bca02f2a02"
#define EV_REMOVED "5b1de1c9c8c04c6f9e6fd4bca02f2a03"

/* How long a verb waits for another one on the same sandbox. */
#define JOB_WAIT_MS 30000
/* An orderly shutdown before removal: files of the workspace reach the host, the disk is lost
 * anyway. */
#define REMOVE_GRACE_MS 3000
#define NAME_TRIES 8

AUTO_DEFINE(vmref, struct vm, vm_unref)

int vm_new_take(struct vms *v, struct vm_row *row, struct vm **ret, struct err *e)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    pthread_condattr_t attr;

    if (!vm) {
        vm_row_done(row);
        return err_nomem(e);
    }
    vm->vms = v;
    vm->refs = 1;
    vm->share_pidfd = -1;
    vm->log_fd = -1;
    memcpy(vm->id, row->id, sizeof(vm->id));
    vm->row = *row;
    vm->idle_stored = row->idle_spent;
    memset(row, 0, sizeof(*row));
    vm->share = (struct share_proc){ .pid = vm->row.share_pid, .start_time = vm->row.share_start };
    pthread_mutex_init(&vm->lock, NULL);
    pthread_mutex_init(&vm->log_lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&vm->changed, &attr);
    pthread_condattr_destroy(&attr);
    *ret = vm;
    return 0;
}

struct vm *vm_ref(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->refs++;
    pthread_mutex_unlock(&vm->lock);
    return vm;
}

void vm_unref(struct vm *vm)
{
    if (!vm)
        return;
    pthread_mutex_lock(&vm->lock);
    unsigned left = --vm->refs;
    pthread_mutex_unlock(&vm->lock);
    if (left)
        return;
    quota_drop(&vm->charge, QUOTA_ALL);
    virt_ask_free(vm->resume);
    vm_row_done(&vm->row);
    fd_close(vm->log_fd);
    fd_close(vm->share_pidfd);
    pthread_cond_destroy(&vm->changed);
    pthread_mutex_destroy(&vm->log_lock);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}

uid_t vm_uid(const struct vm *vm)
{
    return vm->row.uid;
}

const char *vm_id(const struct vm *vm)
{
    return vm->id;
}

const char *vm_name(const struct vm *vm)
{
    return vm->row.name;    /* never changes */
}

static struct timespec mono_timespec(int64_t deadline_ms)
{
    int64_t max = now_mono_ms() + 24LL * 3600 * 1000;

    if (deadline_ms > max)
        deadline_ms = max;
    return (struct timespec){ .tv_sec = deadline_ms / 1000,
                              .tv_nsec = deadline_ms % 1000 * 1000000 };
}

int vm_job_begin(struct vm *vm, int64_t deadline, struct err *e)
{
    struct timespec ts = mono_timespec(deadline);
    int r = 0;

    pthread_mutex_lock(&vm->lock);
    while (vm->job && r == 0)
        r = pthread_cond_timedwait(&vm->changed, &vm->lock, &ts);
    bool busy = vm->job, removed = vm->removed;
    if (!busy && !removed)
        vm->job = true;
    const char *doing = vm_state_name(vm->row.state);
    pthread_mutex_unlock(&vm->lock);
    if (busy) {
        err_set(e, ERR_SANDBOX_BUSY, "sandbox '%s' is busy (%s)", vm->row.name, doing);
        return err_hint(e, "try again in a moment");
    }
    if (removed)
        return err_set(e, ERR_SANDBOX_NOT_FOUND, "no sandbox '%s': it was just removed",
                       vm->row.name);
    return 0;
}

void vm_job_end(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->job = false;
    /* What happened while the job was held and was not the holder's doing. */
    bool again = vm->row.state == VM_RUNNING && vm->domain_gone;
    /* Here, since every way out of a start, a stop, and a removal comes through here. */
    if (vm->removed)
        quota_drop(&vm->charge, QUOTA_ALL);
    else if (vm->row.state != VM_RUNNING)
        quota_drop(&vm->charge, QUOTA_RUNNING);
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
    if (again)
        worker_post(vm->vms->worker, vm_job_domain_gone, vm->vms, vm->id, NULL);
}

static void job_cleanup(struct vm **vm)
{
    if (*vm)
        vm_job_end(*vm);
}
#define autojob __attribute__((cleanup(job_cleanup), unused))

enum vm_state vm_state(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    enum vm_state s = vm->row.state;
    pthread_mutex_unlock(&vm->lock);
    return s;
}

bool vm_is_running(struct vm *vm)
{
    return vm_state(vm) == VM_RUNNING;
}

int vm_set_state(struct vm *vm, enum vm_state s, const char *reason, struct err *e)
{
    char *copy = reason ? strdup(reason) : NULL;

    if (reason && !copy)
        return err_nomem(e);
    pthread_mutex_lock(&vm->lock);
    char *old = vm->row.reason;
    vm->row.state = s;
    vm->row.reason = copy;
    pthread_mutex_unlock(&vm->lock);
    free(old);
    return store_vm_set_state(vm->vms->store, vm->id, s, reason, e);
}

void vm_set_memory_state(struct vm *vm, enum vm_state s)
{
    pthread_mutex_lock(&vm->lock);
    vm->row.state = s;
    pthread_mutex_unlock(&vm->lock);
}

void vm_tell(struct vm *vm, enum event_kind kind, const char *detail)
{
    /* owner, id and name never change */
    events_add(vm->vms->events, &(struct event){ .kind = kind, .sandbox = vm->id,
                                                 .name = vm->row.name, .uid = &vm->row.uid,
                                                 .detail = detail });
}

void vm_tell_stopped(struct vm *vm, const char *reason)
{
    vm_tell(vm, EVENT_STOPPED, reason);
    log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid, .event = EV_STOPPED),
               "sandbox '%s' is stopped%s%s", vm->row.name, reason ? ": " : "",
               reason ? reason : "");
}

void vm_tell_failed(struct vm *vm, const struct err *why)
{
    static const char internal[] = "internal error; the log of sandboxd says more";

    vm_tell(vm, EVENT_FAILED, why->code == ERR_INTERNAL ? internal : why->msg);
}

int vm_set_stopped(struct vm *vm, const char *reason, struct err *e)
{
    char *copy = reason ? strdup(reason) : NULL;

    if (reason && !copy)
        return err_nomem(e);
    pthread_mutex_lock(&vm->lock);
    char *old = vm->row.reason;
    vm->row.state = VM_STOPPED;
    vm->row.reason = copy;
    vm->row.stopped_at = now_real_us();
    pthread_mutex_unlock(&vm->lock);
    free(old);
    return vm_store_row(vm, e);
}

/* The job holder is the only writer of the row, so it may read it without the lock. */
int vm_store_row(struct vm *vm, struct err *e)
{
    return store_vm_update(vm->vms->store, &vm->row, e);
}

bool vm_wait_domain_gone(struct vm *vm, int64_t deadline)
{
    struct timespec ts = mono_timespec(deadline);
    int r = 0;

    pthread_mutex_lock(&vm->lock);
    while (!vm->domain_gone && r == 0)
        r = pthread_cond_timedwait(&vm->changed, &vm->lock, &ts);
    bool gone = vm->domain_gone;
    pthread_mutex_unlock(&vm->lock);
    return gone;
}

int vm_identity(const struct vm_row *row, struct identity *ret, struct err *e)
{
    const char *p = row->groups ? row->groups : "";
    struct identity who = { .uid = row->uid, .gid = row->gid };

    while (*p) {
        char word[16];
        size_t n = strcspn(p, ",");
        uint32_t gid;
        if (n >= sizeof(word) || who.n_groups == ARRAY_SIZE(who.groups))
            return err_set(e, ERR_INTERNAL, "sandbox %s: bad groups '%s'", row->id, row->groups);
        memcpy(word, p, n);
        word[n] = '\0';
        if (!parse_u32(word, 0, UINT32_MAX - 1, &gid))
            return err_set(e, ERR_INTERNAL, "sandbox %s: bad groups '%s'", row->id, row->groups);
        who.groups[who.n_groups++] = gid;
        p += n + (p[n] == ',');
    }
    *ret = who;
    return 0;
}

/* --- what it looks like --- */

static int dup_into(char **ret, const char *s, struct err *e)
{
    if (!s)
        return 0;
    *ret = strdup(s);
    return *ret ? 0 : err_nomem(e);
}

static const char *reason_locked(const struct vm *vm)
{
    if (vm->stalled)
        return vm_stall_reason;
    return vm->paused && vm->row.state == VM_RUNNING ? "paused from outside" : vm->row.reason;
}

static int describe_locked(const struct vm *vm, struct api_sandbox *ret, struct err *e)
{
    const struct vm_row *r = &vm->row;

    if (dup_into(&ret->id, r->id, e) < 0 || dup_into(&ret->name, r->name, e) < 0 ||
        dup_into(&ret->state, vm_state_name(r->state), e) < 0 ||
        dup_into(&ret->reason, reason_locked(vm), e) < 0 ||
        dup_into(&ret->image.name, r->image_name, e) < 0 ||
        dup_into(&ret->image.digest, r->image_digest, e) < 0 ||
        dup_into(&ret->workspace.path, r->workspace, e) < 0 ||
        dup_into(&ret->machine, r->machine, e) < 0 || dup_into(&ret->accel, r->accel, e) < 0 ||
        strv_copy(&ret->env, &r->env, e) < 0 || strv_copy(&ret->labels, &r->labels, e) < 0)
        return -1;
    ret->network.present = egress_enabled(vm->vms->egress);
    if (ret->network.present && dup_into(&ret->network.policy, r->policy, e) < 0)
        return -1;
    ret->workspace.present = r->workspace != NULL;
    ret->workspace.read_only = r->workspace_ro;
    ret->cpus = r->cpus;
    ret->memory = r->memory;
    ret->disk = r->disk;
    ret->owner.uid = r->uid;
    ret->created_at = r->created_at;
    ret->started_at = r->started_at;
    ret->stopped_at = r->stopped_at;
    return vm_life_describe_locked(vm, ret, e);
}

int vm_describe(struct vm *vm, struct api_sandbox *ret, struct err *e)
{
    pthread_mutex_lock(&vm->lock);
    struct exec_table *t = vm->execs ? exec_table_ref(vm->execs) : NULL;
    int r = describe_locked(vm, ret, e);
    pthread_mutex_unlock(&vm->lock);
    egress_describe(vm->vms->egress, vm->row.slot, &ret->network);
    if (t)
        ret->execs_running = exec_table_running(t);
    exec_table_unref(t);
    if (r < 0 || peer_user_name(ret->owner.uid, &ret->owner.user, e) < 0) {
        json_done(api_sandbox_table, ret, sizeof(*ret));
        return -1;
    }
    return 0;
}

int vm_policy_begins(struct vm *vm, const char *base, struct err *e)
{
    char *copy = strdup(base);

    if (!copy)
        return err_nomem(e);
    pthread_mutex_lock(&vm->lock);
    char *old = vm->row.policy;
    vm->row.policy = copy;
    pthread_mutex_unlock(&vm->lock);
    free(old);
    return 0;
}

int vm_execs(struct vm *vm, struct exec_table **ret, struct err *e)
{
    pthread_mutex_lock(&vm->lock);
    enum vm_state s = vm->row.state;
    struct exec_table *t = s == VM_RUNNING && vm->execs ? exec_table_ref(vm->execs) : NULL;
    pthread_mutex_unlock(&vm->lock);
    if (!t) {
        err_set(e, ERR_SANDBOX_STATE, "sandbox '%s' is %s", vm->row.name, vm_state_name(s));
        return s == VM_STOPPED ? err_hint(e, "start it with `sbx start %s`", vm->row.name) : -1;
    }
    *ret = t;
    return 0;
}

int vm_log_open(struct vm *vm, const char *which, int *ret_fd, struct err *e)
{
    enum vm_path p;

    if (strcmp(which, "agent") == 0)
        p = VMP_AGENT_LOG;
    else if (strcmp(which, "console") == 0)
        p = VMP_CONSOLE;
    else
        return err_set(e, ERR_INVALID, "no log '%s': it is agent or console", which);
    autofree char *path = vm_path(vm->vms, vm->id, p);
    if (!path)
        return err_nomem(e);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)      /* never started: an empty log */
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open the %s log", which);
    *ret_fd = fd;
    return 0;
}

/* --- verbs --- */

struct quota_use vm_quota_use(const struct vm_row *row, bool runs)
{
    return (struct quota_use){ .n = { [QUOTA_SANDBOXES] = 1, [QUOTA_DISK] = row->disk,
                                      [QUOTA_CPUS] = runs ? row->cpus : 0,
                                      [QUOTA_MEMORY] = runs ? row->memory : 0 } };
}

/* For vCPUs and memory; a create has paid already, and a restart keeps what it had. */
static int pay_start(struct vm *vm, struct err *e)
{
    struct identity who;
    const struct quota_use use = { .n = { [QUOTA_CPUS] = vm->row.cpus,
                                          [QUOTA_MEMORY] = vm->row.memory } };

    if (vm->charge.use.n[QUOTA_CPUS])
        return 0;
    return vm_identity(&vm->row, &who, e) < 0
               ? -1 : quota_take(vm->vms->quota, &who, &use, &vm->charge, e);
}

static int space_left(const struct vms *v, struct err *e)
{
    return space_check(v->state_dir, v->config->min_free_disk, e);
}

int vm_start_job(struct vm *vm, int workspace_fd, struct err *e)
{
    vm_tell(vm, EVENT_START, NULL);
    if (space_left(vm->vms, e) < 0 || pay_start(vm, e) < 0 ||
        vm_start_steps(vm, workspace_fd, e) < 0) {
        vm_tell_failed(vm, e);
        return -1;
    }
    vm_tell(vm, EVENT_RUNNING, NULL);
    log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid, .event = EV_STARTED),
               "sandbox '%s' is running", vm->row.name);
    return 0;
}

int vm_start(struct vm *vm, const struct caller *c, struct err *e)
{
    if (vm_job_begin(vm, deadline_in(JOB_WAIT_MS), e) < 0)
        return -1;
    autojob struct vm *job = vm;
    if (vm->row.state == VM_RUNNING)
        return 0;
    vm_life_by_hand(vm);
    return vm_start_job(vm, -1, e);
}

int vm_stop_job(struct vm *vm, int64_t timeout_ms, const char *reason, struct err *e)
{
    static const char stopped[] = "sandbox is stopped";
    struct err ignored = ERR_INIT;

    fault_here(FAULT_STOP_ROW);
    vm_tell(vm, EVENT_STOP, reason);
    vm_set_state(vm, VM_STOPPING, NULL, &ignored);   /* the domain decides; reconcile repairs it */
    if (vm_stop_guest(vm, timeout_ms, e) < 0) {
        vm_set_state(vm, VM_RUNNING, NULL, &ignored);
        vm_tell_failed(vm, e);
        return err_wrap(e, "cannot stop sandbox '%s'", vm->row.name);
    }
    if (fault_at(FAULT_STOP_NOTE, e) < 0 || vm_set_stopped(vm, reason, e) < 0)
        return -1;
    vm_tell_stopped(vm, reason);
    fault_here(FAULT_STOP_ANSWER);
    vm_log_line(vm, stopped, sizeof(stopped) - 1);
    return 0;
}

/* Also of one that has ended by itself, and would start again by its policy. */
static int stop_by_hand(struct vm *vm, int64_t timeout_ms, struct err *e)
{
    bool retries = vm->row.retry;

    vm_life_by_hand(vm);
    if (vm->row.state == VM_RUNNING)
        return vm_stop_job(vm, timeout_ms, NULL, e);
    return retries ? vm_store_row(vm, e) : 0;
}

/* Whoever boots it is told to give up: the agent's end wakes a wait for the guest. */
static void cancel_start(struct vm *vm, bool by_policy_only)
{
    struct agent *a = NULL;

    pthread_mutex_lock(&vm->lock);
    if (vm->by_policy || !by_policy_only) {
        vm->cancel = true;
        a = vm->job && vm->row.state != VM_RUNNING && vm->agent ? agent_ref(vm->agent) : NULL;
    }
    pthread_mutex_unlock(&vm->lock);
    if (a) {
        agent_close(a);
        agent_unref(a);
    }
}

/* The job, when whoever is told to give up has. */
static int job_after_cancel(struct vm *vm, bool by_policy_only, struct err *e)
{
    cancel_start(vm, by_policy_only);
    int r = vm_job_begin(vm, deadline_in(JOB_WAIT_MS), e);
    pthread_mutex_lock(&vm->lock);
    vm->cancel = false;             /* heard, or of no use: a later start is not this one's */
    pthread_mutex_unlock(&vm->lock);
    return r;
}

void vm_give_up(struct vm *vm)
{
    cancel_start(vm, true);
}

int vm_stop(struct vm *vm, uint32_t timeout_ms, struct err *e)
{
    if (job_after_cancel(vm, true, e) < 0)
        return -1;
    autojob struct vm *job = vm;
    return stop_by_hand(vm, timeout_ms, e);
}

int vm_restart(struct vm *vm, const struct caller *c, struct err *e)
{
    if (vm_job_begin(vm, deadline_in(JOB_WAIT_MS), e) < 0)
        return -1;
    autojob struct vm *job = vm;
    /* one that cannot start again had better run on */
    if (space_left(vm->vms, e) < 0 || pay_start(vm, e) < 0 ||
        stop_by_hand(vm, DEADLINE_STOP, e) < 0)
        return -1;
    return vm_start_job(vm, -1, e);
}

int vm_remove(struct vm *vm, bool force, struct err *e)
{
    if (job_after_cancel(vm, false, e) < 0)
        return -1;
    autojob struct vm *job = vm;
    bool running = vm->row.state == VM_RUNNING;
    fault_here(FAULT_RM_ROW);
    if (vm_set_state(vm, VM_REMOVING, NULL, e) < 0)
        return -1;
    fault_here(FAULT_RM_STOP);
    if (vm_stop_guest(vm, running && !force ? REMOVE_GRACE_MS : 0, e) < 0 || vm_erase(vm, e) < 0) {
        struct err ignored = ERR_INIT;
        vm_set_state(vm, VM_FAILED, e->msg, &ignored);
        vm_tell_failed(vm, e);
        return err_wrap(e, "cannot remove sandbox '%s'", vm->row.name);
    }
    fault_here(FAULT_RM_ANSWER);
    log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid, .event = EV_REMOVED),
               "sandbox '%s' is removed", vm->row.name);
    return 0;
}

/* --- create --- */

static int groups_text(const struct identity *who, char **ret, struct err *e)
{
    autosbuf struct sbuf b = SBUF(1024);

    sbuf_lit(&b, "");
    for (size_t i = 0; i < who->n_groups; i++)
        sbuf_fmt(&b, "%s%u", i ? "," : "", (unsigned)who->groups[i]);
    return sbuf_take(&b, ret, e);
}

static int check_resources(const struct vm_row *r, const struct image_paths *image, struct err *e)
{
    if (r->cpus < 1 || r->cpus > LIMIT_CPUS)
        return err_set(e, ERR_FIELD_INVALID, "cpus: must be 1 to %d", LIMIT_CPUS);
    if (r->memory < LIMIT_MEMORY_MIN || r->memory > LIMIT_MEMORY_MAX)
        return err_set(e, ERR_FIELD_INVALID, "memory: must be %llu MiB to %llu GiB",
                       LIMIT_MEMORY_MIN / MIB, LIMIT_MEMORY_MAX / GIB);
    if (r->disk > LIMIT_DISK_MAX)
        return err_set(e, ERR_FIELD_INVALID, "disk: must be at most %llu GiB",
                       LIMIT_DISK_MAX / GIB);
    if (r->disk < image->root_size) {
        char need[32];
        format_size(image->root_size, need);
        return err_set(e, ERR_FIELD_INVALID, "disk: image '%s' needs %s", r->image_name, need);
    }
    return 0;
}

/* The environment goes to the guest in one frame with the name and the time. */
static int check_env(const struct strv *env, struct err *e)
{
    size_t sum = 0;

    for (size_t i = 0; i < env->n; i++)
        sum += strlen(env->items[i]) + 4;
    if (sum <= LIMIT_SANDBOX_ENV)
        return 0;
    err_set(e, ERR_FIELD_INVALID, "env: %zu bytes in all, at most %u are possible", sum,
            (unsigned)LIMIT_SANDBOX_ENV);
    return err_hint(e, "put what is large into a file of the workspace");
}

static int fill_row(struct vms *v, const struct caller *c, const struct api_create_req *req,
                    const char *id, struct vm_row *r, struct err *e)
{
    const struct config *cf = v->config;
    char name[LIMIT_NAME + 1];

    if (check_env(&req->env, e) < 0 || (!req->name && name_new(name, e) < 0))
        return -1;
    if (id[0])
        memcpy(r->id, id, sizeof(r->id));
    else if (id_new(r->id, e) < 0)
        return -1;
    if (dup_into(&r->name, req->name ? req->name : name, e) < 0 ||
        groups_text(&c->id, &r->groups, e) < 0 ||
        dup_into(&r->image_name, req->image ? req->image : cf->default_image, e) < 0 ||
        dup_into(&r->machine, machine_name(v->machine), e) < 0 ||
        strv_copy(&r->env, &req->env, e) < 0 || strv_copy(&r->labels, &req->labels, e) < 0)
        return -1;
    r->uid = c->id.uid;
    r->gid = c->id.gid;
    r->cpus = req->cpus ? req->cpus : cf->default_cpus;
    /* QEMU and the guest want whole pages; a MiB is easier to read in the domain. */
    r->memory = (req->memory ? req->memory : cf->default_memory) & ~(MIB - 1);
    r->disk = (req->disk ? req->disk : cf->default_disk) & ~(MIB - 1);
    vm_limits_of(cf, req, &r->limits);
    r->created_at = now_real_us();
    r->state = VM_CREATING;
    return 0;
}

static int open_workspace(struct vms *v, const struct caller *c, const struct api_create_req *req,
                          struct vm_row *r, int *ret_fd, struct err *e)
{
    const char *const forbidden[] = { v->config->state_dir, v->config->runtime_dir, NULL };

    if (!req->workspace.present)
        return 0;
    r->workspace_ro = req->workspace.read_only;
    return workspace_open(&c->id, req->workspace.path, r->workspace_ro, forbidden, ret_fd,
                          &r->workspace, e);
}

/* The last word before something is made: what follows is undone, if it must be. */
static int pay_create(struct vms *v, const struct caller *c, const struct vm_row *r, bool runs,
                      struct quota_charge *ret, struct err *e)
{
    const struct quota_use use = vm_quota_use(r, runs);

    return space_left(v, e) < 0 ? -1 : quota_take(v->quota, &c->id, &use, ret, e);
}

static void charge_cleanup(struct quota_charge *c)
{
    quota_drop(c, QUOTA_ALL);
}

static void row_cleanup(struct vm_row *r)
{
    vm_row_done(r);
}

/* Undoes a create that failed; what cannot be undone now stays as "removing" for reconcile. */
static void abandon(struct vm *vm)
{
    struct err e = ERR_INIT;

    if (vm_set_state(vm, VM_REMOVING, NULL, &e) < 0 || vm_stop_guest(vm, 0, &e) < 0 ||
        vm_erase(vm, &e) < 0)
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e),
                "cannot clean up after a failed create; the next start of sandboxd will");
}

/* A name that we make up may be taken; then another one is. */
static int insert_row(struct vms *v, const struct api_create_req *req, struct vm_row *row,
                      struct err *e)
{
    char name[LIMIT_NAME + 1];

    for (int tries = 0; store_vm_insert(v->store, row, e) < 0; tries++) {
        if (req->name || e->code != ERR_NAME_IN_USE || tries == NAME_TRIES)
            return -1;
        *e = ERR_INIT;
        free(take_ptr(row->name));
        if (name_new(name, e) < 0 || dup_into(&row->name, name, e) < 0)
            return -1;
    }
    return 0;
}

/* With its job taken, and what it was charged for, before anybody can find it: who starts it by its
 * name at that moment waits, and does not pay once more. Takes row and charge over. */
static int enlist(struct vms *v, struct vm_row *row, struct quota_charge *charge, struct vm **ret,
                  struct err *e)
{
    if (vm_new_take(v, row, ret, e) < 0)
        return -1;
    (*ret)->job = true;
    (*ret)->charge = *charge;
    *charge = (struct quota_charge){ 0 };
    return vms_add(v, *ret, e);
}

int vms_create(struct vms *v, const struct caller *c, const struct api_create_req *req,
               const char *wanted_id, struct api_sandbox *ret, struct err *e)
{
    __attribute__((cleanup(row_cleanup))) struct vm_row row = { 0 };
    __attribute__((cleanup(image_paths_done))) struct image_paths image = { 0 };
    __attribute__((cleanup(charge_cleanup))) struct quota_charge charge = { 0 };
    autotype(vmref) struct vm *vm = NULL;
    autoruleset struct ruleset rules = RULESET_INIT;
    autoclose int workspace = -1;

    if (fill_row(v, c, req, wanted_id, &row, e) < 0 ||
        image_resolve(v->store, v->view, row.image_name, &image, e) < 0 ||
        dup_into(&row.image_digest, image.digest, e) < 0 || check_resources(&row, &image, e) < 0 ||
        egress_request(v->egress, c->id.uid, req, &rules, e) < 0 ||
        dup_into(&row.policy, rules.base, e) < 0 ||
        pay_create(v, c, &row, req->start, &charge, e) < 0 ||
        open_workspace(v, c, req, &row, &workspace, e) < 0 ||
        fault_at(FAULT_CREATE_ROW, e) < 0 ||
        insert_row(v, req, &row, e) < 0)
        return -1;
    char id[LIMIT_ID + 1];
    memcpy(id, row.id, sizeof(id));
    if (fault_at(FAULT_CREATE_RULES, e) < 0 ||
        ruleset_store(&rules, v->store, id, e) < 0 || enlist(v, &row, &charge, &vm, e) < 0) {
        struct err ignored = ERR_INIT;
        store_vm_delete(v->store, id, &ignored);
        return -1;
    }
    autojob struct vm *job = vm;
    vm_tell(vm, EVENT_CREATE, vm->row.image_name);
    int r = fault_at(FAULT_CREATE_START, e);
    if (r == 0)
        r = req->start ? vm_start_job(vm, workspace, e) : vm_set_state(vm, VM_STOPPED, NULL, e);
    if (r < 0) {
        fault_here(FAULT_CREATE_UNDO);
        abandon(vm);
        return -1;
    }
    fault_here(FAULT_CREATE_ANSWER);
    return vm_describe(vm, ret, e);
}
