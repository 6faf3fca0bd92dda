/* SPDX-License-Identifier: MIT
 *
 * reconcile: at start, brings rows, domains, helper processes and directories together again. Runs
 * before the first request. The worker runs already, and hears what libvirt says: so each sandbox
 * has its job taken from the moment its row is read, before libvirt is opened, until it is settled.
 * News of its domain are noted meanwhile, and say why it ended.
 *
 *     row         domain    what is done
 *     creating    any       undone: domain, share, files, row
 *     removing    any       finished
 *     running     runs      adopted: channel and execs opened again, share watched
 *     running     paused    by a full disk: adopted, goes on when there is room; else it powered
 *                           off, or was halted, while nobody listened: stopped, so said
 *     running     none      stopped: it ended while sandboxd was away
 *     stopping    any       stopped
 *     stopped     any       domain ended, runtime leftovers removed
 *     failed      any       removed: it failed to be removed before
 *     no row      any       domain ended; share, directories removed
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/name.h"
#include "daemon/fault.h"
#include "daemon/notify.h"
#include "daemon/strays.h"
#include "daemon/vm_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* libvirt ends those that have powered off as soon as it is opened, and says so. One that is gone
 * has so long until its word has come; all of them together, from the first on. */
#define WORD_MS 2000

/* libvirt waits for a QEMU that will not end; the service manager has to know that it is not us. */
#define ONE_SECONDS 60

static const char gone_reason[] = "it ended while sandboxd was not running";
static const char off_reason[] = "it powered off while sandboxd was not running";
static const char halted_reason[] = "it was halted while sandboxd was not running";
static const char lost_reason[] = "its disk is gone";

/* Unless we are to leave: a stop has its own time. */
static void tell_progress(void)
{
    sigset_t pending;

    if (sigpending(&pending) < 0 || !sigismember(&pending, SIGTERM))
        notify_extend(ONE_SECONDS);
}

static int stop_row(struct vm *vm, enum life_end how, const char *reason, struct err *e)
{
    if (vm_stop_guest(vm, 0, e) < 0 || vm_files_drop_half(vm->vms, vm->id, e) < 0)
        return -1;
    if (vm->row.state == VM_STOPPED)
        return vm_store_row(vm, e);
    if (vm->row.state == VM_RUNNING)
        vm_life_ended(vm, how);
    if (vm_set_stopped(vm, reason, e) < 0)
        return -1;
    vm_tell_stopped(vm, reason);
    return 0;
}

/* What does not run any more, for this reason, unless its guest has powered off: then all else that
 * is seen of it follows from that. */
static int stop_ended(struct vm *vm, const char *reason, int64_t word_by, struct err *e)
{
    enum virt_pause why = VIRT_NOT_PAUSED;
    struct err ignored = ERR_INIT;
    bool paused = false;

    if (virt_pause(vm->vms->virt, vm->id, &why, &ignored) == 1 && why == VIRT_PAUSE_LEAVES)
        return stop_row(vm, LIFE_ENDED_WELL, off_reason, e);
    if (virt_exists(vm->vms->virt, vm->id, &paused, &ignored) == 0)
        (void)vm_wait_domain_gone(vm, word_by);
    pthread_mutex_lock(&vm->lock);
    bool off = vm->domain_gone && strcmp(vm->gone_detail, VIRT_POWERED_OFF) == 0;
    pthread_mutex_unlock(&vm->lock);
    return off ? stop_row(vm, LIFE_ENDED_WELL, off_reason, e)
               : stop_row(vm, LIFE_FAILED, reason, e);
}

static int keep_aside(struct vms *v, const char *id, const char *why, struct err *e)
{
    autofree char *kept = NULL;

    if (vm_files_keep_state(v, id, &kept, e) < 0)
        return -1;
    if (kept)
        log_warn(LOG_CTX(.sandbox = id), "%s: its disk is kept in %s", why, kept);
    else
        log_warn(LOG_CTX(.sandbox = id), "%s: its files are removed, there was no disk", why);
    return 0;
}

static int erase_row(struct vm *vm, struct err *e)
{
    if (vm_stop_guest(vm, 0, e) < 0 ||
        (vm->vms->copied && keep_aside(vm->vms, vm->id, "half made or half removed when the "
                                       "database was copied", e) < 0) ||
        vm_erase(vm, e) < 0)
        return -1;
    log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid),
               "sandbox '%s' was half made or half removed and is gone now", vm->row.name);
    return 0;
}

/* Kept as a row, so that its owner hears of it. */
static int mark_lost(struct vm *vm, struct err *e)
{
    if (vm_stop_guest(vm, 0, e) < 0)
        return -1;
    if (vm->row.state == VM_FAILED)
        return 0;
    log_err(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid), "the disk of sandbox '%s' is gone",
            vm->row.name);
    vm->row.stopped_at = now_real_us();
    vm_tell(vm, EVENT_FAILED, lost_reason);
    return vm_set_state(vm, VM_FAILED, lost_reason, e) < 0 ? -1 : vm_store_row(vm, e);
}

static int adopt(struct vm *vm, int64_t word_by, struct err *e)
{
    if (vm->share.pid && !share_alive(&vm->share))
        return stop_ended(vm, "the file share process ended while sandboxd was not running",
                          word_by, e);
    bool linked;
    struct link l;
    if (egress_adopt(vm->vms->egress, vm->id, vm->row.slot, &linked, &l, e) < 0)
        return stop_ended(vm, "its network could not be closed again", word_by, e);
    if (linked)
        vm->link = l;
    struct err no = ERR_INIT;
    if (vm_cgroup_make(vm, &no) < 0 || vm_cgroup_enter(vm, vm->share.pid, &no) < 0 ||
        vm_cgroup_enter_qemu(vm, &no) < 0)
        log_warn(LOG_CTX(.sandbox = vm->id, .error = &no),
                 "a running sandbox is without its control group, ignoring");
    if (vm_watch_share(vm, e) < 0 || vm_open_console(vm, e) < 0 || vm_open_guest(vm, e) < 0) {
        log_err(LOG_CTX(.sandbox = vm->id, .error = e), "cannot go on with a running sandbox");
        *e = ERR_INIT;
        return stop_ended(vm, "sandboxd could not go on with it", word_by, e);
    }
    vm_life_adopted(vm);
    log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid), "sandbox '%s' goes on",
               vm->row.name);
    return 0;
}

static int settle(struct vm *vm, int64_t word_by, struct err *e)
{
    bool paused = false;
    struct err ignored = ERR_INIT;
    int exists = virt_exists(vm->vms->virt, vm->id, &paused, e);

    if (exists < 0)
        return -1;
    /* One that was being removed has none, and will be; one that runs can be copied from. */
    if (vm->row.state != VM_REMOVING && !(vm->row.state == VM_RUNNING && exists && !paused) &&
        vm_lost_disk(vm))
        return mark_lost(vm, e);
    switch (vm->row.state) {
    case VM_CREATING:
    case VM_REMOVING:
    case VM_FAILED:
        return erase_row(vm, e);
    case VM_RUNNING:
        if (exists && paused && virt_stalled(vm->vms->virt, vm->id, &ignored) == 1) {
            vm_stall_found(vm);
            paused = false;
        }
        if (exists && !paused)
            return adopt(vm, word_by, e);
        return stop_ended(vm, exists ? halted_reason : gone_reason, word_by, e);
    default:
        return stop_row(vm, LIFE_ENDED_WELL, NULL, e);
    }
}

/* Of what was half made or half removed nobody shall think that it is still under way. */
static void give_up(struct vm *vm, const struct err *why)
{
    struct err e = ERR_INIT;

    log_err(LOG_CTX(.sandbox = vm->id, .error = why), "cannot settle a sandbox");
    vm_tell_failed(vm, why);
    if ((vm->row.state == VM_CREATING || vm->row.state == VM_REMOVING) &&
        vm_set_state(vm, VM_FAILED, why->msg, &e) < 0)
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot write that it failed");
}

/* Nothing is written down of what was paid: what there is is what counts. */
static int charge_again(struct vm *vm, struct err *e)
{
    const struct quota_use use = vm_quota_use(&vm->row, vm->row.state == VM_RUNNING);

    return quota_count(vm->vms->quota, vm->row.uid, &use, &vm->charge, e);
}

static int load_rows(struct vms *v, struct err *e)
{
    struct vm_row *rows = NULL;
    size_t n = 0;
    int r = store_vm_list(v->store, &rows, &n, e);

    for (size_t i = 0; i < n; i++) {
        struct vm *vm = NULL;
        if (r == 0)
            r = vm_new_take(v, &rows[i], &vm, e) < 0 || vm_job_begin(vm, 0, e) < 0 ||
                vms_add(v, vm, e) < 0 ? -1 : 0;
        vm_row_done(&rows[i]);
        vm_unref(vm);
    }
    free(rows);
    return r;
}

static int drop_foreign_domains(struct vms *v, struct err *e)
{
    char **ids = NULL;
    size_t n = 0;
    int r = virt_list(v->virt, &ids, &n, e);

    for (size_t i = 0; i < n; i++) {
        struct vm *vm = r == 0 ? vms_get(v, ids[i]) : NULL;
        if (r == 0 && !vm) {
            log_warn(LOG_CTX(.sandbox = ids[i]), "a virtual machine without a row: ended");
            tell_progress();
            r = virt_destroy(v->virt, ids[i], e);
        }
        vm_unref(vm);
        free(ids[i]);
    }
    free(ids);
    return r;
}

static int drop_runtime(struct vms *v, const char *id, struct err *e)
{
    log_warn(LOG_CTX(.sandbox = id), "files without a row in %s: removed", v->runtime_dir);
    return vm_files_drop_runtime(v, id, e);
}

/* What cannot be kept aside stays where it is, and is tried again by the next start. */
static int drop_state(struct vms *v, const char *id, struct err *e)
{
    struct err why = ERR_INIT;

    if (keep_aside(v, id, "files without a row", &why) < 0)
        log_err(LOG_CTX(.sandbox = id, .error = &why),
                "files without a row cannot be kept aside; they stay where they are");
    return 0;
}

static int drop_foreign_files(struct vms *v, const char *dir,
                              int (*drop)(struct vms *, const char *, struct err *),
                              struct err *e)
{
    DIR *d = opendir(dir);
    struct dirent *de;
    int r = 0;

    if (!d)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read %s", dir);
    while (r == 0 && (de = readdir(d))) {
        if (!id_valid(de->d_name))
            continue;
        struct vm *vm = vms_get(v, de->d_name);
        if (!vm)
            r = drop(v, de->d_name, e);
        vm_unref(vm);
    }
    closedir(d);
    return r;
}

/* A share is kept while its sandbox runs: by then its row names the process. */
static bool share_is_used(struct vms *v, const struct stray *p)
{
    struct vm *vm = vms_get(v, p->id);
    autofree char *path = vm ? vm_path(v, vm->id, VMP_SHARE_SOCK) : NULL;
    bool used = path && vm->share.pid && strcmp(path, p->socket) == 0;

    vm_unref(vm);
    return used;
}

static void end_stray_share(void *arg, const struct stray *p)
{
    if (p->kind != STRAY_SHARE || share_is_used(arg, p))
        return;
    log_warn(LOG_CTX(.sandbox = NULL), "a file share process without a sandbox (%s): ended",
             p->socket);
    stray_end(p);
}

/* A QEMU that libvirt does not know has lost its monitor: it can be adopted by nobody, and has a
 * disk open that somebody may want to start anew. */
static void end_stray_qemu(void *arg, const struct stray *p)
{
    struct vms *v = arg;
    struct err e = ERR_INIT;
    bool paused;

    if (p->kind != STRAY_QEMU || virt_exists(v->virt, p->id, &paused, &e) != 0)
        return;
    log_warn(LOG_CTX(.sandbox = p->id), "a QEMU that libvirt does not know (process %d): ended",
             (int)p->pid);
    stray_end(p);
}

static int end_strays(struct vms *v, stray_fn fn, struct err *e)
{
    const struct stray_range range = {
        .state_dir = v->state_dir,
        .runtime_dir = v->runtime_dir,
        .uid_lo = v->config->uid_base + 1,
        .uid_hi = v->config->uid_base + LIMIT_SANDBOXES,
    };

    return strays_look(&range, fn, v, e);
}

static int read_mark(struct vms *v, struct err *e)
{
    autofree char *when = NULL;

    if (store_choice_get(v->store, STORE_COPIED, &when, e) < 0)
        return -1;
    v->copied = when && when[0];
    if (v->copied)
        log_notice(NULL, "the database is a copy made at %s: what it does not know is kept aside",
                   when);
    return 0;
}

/* Rubbish in the images' directory is in nobody's way. */
static void tidy_images(const struct vms *v)
{
    struct err e = ERR_INIT;

    if (image_tidy(v->config->state_dir, &e) < 0)
        log_warn(LOG_CTX(.error = &e), "what is left of image builds stays for now, ignoring");
}

int vms_load(struct vms *v, struct err *e)
{
    return read_mark(v, e) < 0 || load_rows(v, e) < 0 ? err_wrap(e, "reconcile") : 0;
}

int vms_reconcile(struct vms *v, struct err *e)
{
    size_t n = 0, given_up = 0;

    if (fault_at(FAULT_REPAIR_DOMAINS, e) < 0 || drop_foreign_domains(v, e) < 0 ||
        fault_at(FAULT_REPAIR_QEMUS, e) < 0 || end_strays(v, end_stray_qemu, e) < 0)
        return err_wrap(e, "reconcile");
    struct vm **list = vms_snapshot(v, &n);
    int64_t word_by = deadline_in(WORD_MS);
    for (size_t i = 0; i < n; i++) {        /* one broken sandbox must not keep the others away */
        struct err one = ERR_INIT;
        tell_progress();
        if (fault_at(FAULT_REPAIR_ONE, &one) < 0 || settle(list[i], word_by, &one) < 0) {
            give_up(list[i], &one);
            given_up++;
        }
        one = ERR_INIT;
        if (!list[i]->removed && charge_again(list[i], &one) < 0)
            log_err(LOG_CTX(.sandbox = list[i]->id, .error = &one), "cannot count a sandbox");
        vm_job_end(list[i]);
    }
    vms_snapshot_done(list, n);
    if (fault_at(FAULT_REPAIR_NETWORK, e) < 0 || egress_settle(v->egress, e) < 0 ||
        vm_cgroups_settle(v, e) < 0 ||
        fault_at(FAULT_REPAIR_SHARES, e) < 0 || end_strays(v, end_stray_share, e) < 0 ||
        fault_at(FAULT_REPAIR_FILES, e) < 0 ||
        drop_foreign_files(v, v->state_dir, drop_state, e) < 0 ||
        drop_foreign_files(v, v->runtime_dir, drop_runtime, e) < 0 ||
        (v->copied && !given_up && store_choice_put(v->store, STORE_COPIED, "", e) < 0))
        return err_wrap(e, "reconcile");
    tidy_images(v);
    fault_here(FAULT_REPAIR_DONE);
    return 0;
}
