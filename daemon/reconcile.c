/* SPDX-License-Identifier: MIT
 *
 * reconcile: at start, brings rows, domains, helper processes and directories together again. Runs
 * before the first request, so nobody else touches anything.
 *
 *     row         domain    what is done
 *     creating    any       undone: domain, share, files, row
 *     removing    any       finished
 *     running     runs      adopted: channel and execs opened again, share watched
 *     running     paused    it powered off or failed while nobody listened: stopped, so said
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
#include "daemon/vm_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static const char gone_reason[] = "it ended while sandboxd was not running";

static int stop_row(struct vm *vm, const char *reason, struct err *e)
{
    if (vm_stop_guest(vm, 0, e) < 0)
        return -1;
    if (vm->row.state != VM_STOPPED) {
        vm->row.stopped_at = now_real_us();
        if (vm_set_state(vm, VM_STOPPED, reason, e) < 0)
            return -1;
        log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid), "sandbox '%s' is stopped%s%s",
                   vm->row.name, reason ? ": " : "", reason ? reason : "");
    }
    return vm_store_row(vm, e);
}

static int erase_row(struct vm *vm, struct err *e)
{
    if (vm_stop_guest(vm, 0, e) < 0 || vm_erase(vm, e) < 0)
        return -1;
    log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid),
               "sandbox '%s' was half made or half removed and is gone now", vm->row.name);
    return 0;
}

static int adopt(struct vm *vm, struct err *e)
{
    if (vm->share.pid && !share_alive(&vm->share))
        return stop_row(vm, "the file share process ended while sandboxd was not running", e);
    bool linked;
    struct link l;
    if (egress_adopt(vm->vms->egress, vm->id, vm->row.slot, &linked, &l, e) < 0)
        return stop_row(vm, "its network could not be closed again", e);
    if (linked)
        vm->link = l;
    if (vm_watch_share(vm, e) < 0 || vm_open_guest(vm, e) < 0) {
        log_err(LOG_CTX(.sandbox = vm->id, .error = e), "cannot go on with a running sandbox");
        *e = ERR_INIT;
        return stop_row(vm, "sandboxd could not go on with it", e);
    }
    log_notice(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid), "sandbox '%s' goes on",
               vm->row.name);
    return 0;
}

static int settle(struct vm *vm, struct err *e)
{
    bool paused = false;
    int exists = virt_exists(vm->vms->virt, vm->id, &paused, e);

    if (exists < 0)
        return -1;
    switch (vm->row.state) {
    case VM_CREATING:
    case VM_REMOVING:
    case VM_FAILED:
        return erase_row(vm, e);
    case VM_RUNNING:
        if (exists && !paused)
            return adopt(vm, e);
        return stop_row(vm, exists ? "it powered off while sandboxd was not running" : gone_reason,
                        e);
    default:
        return stop_row(vm, NULL, e);
    }
}

/* Of what was half made or half removed nobody shall think that it is still under way. */
static void give_up(struct vm *vm, const struct err *why)
{
    struct err e = ERR_INIT;

    log_err(LOG_CTX(.sandbox = vm->id, .error = why), "cannot settle a sandbox");
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
            r = vm_new_take(v, &rows[i], &vm, e) < 0 || vms_add(v, vm, e) < 0 ? -1 : 0;
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
            r = virt_destroy(v->virt, ids[i], e);
        }
        vm_unref(vm);
        free(ids[i]);
    }
    free(ids);
    return r;
}

static int drop_foreign_files(struct vms *v, const char *dir,
                              int (*remove)(struct vms *, const char *, struct err *),
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
        if (!vm) {
            log_warn(LOG_CTX(.sandbox = de->d_name), "files without a row in %s: removed", dir);
            r = remove(v, de->d_name, e);
        }
        vm_unref(vm);
    }
    closedir(d);
    return r;
}

/* A share is kept while its sandbox runs: by then its row names the process. */
static bool share_is_used(void *ctx, const char *socket_path)
{
    struct vms *v = ctx;
    size_t n = 0;
    bool used = false;

    struct vm **list = vms_snapshot(v, &n);
    for (size_t i = 0; i < n && !used; i++) {
        autofree char *path = vm_path(v, list[i]->id, VMP_SHARE_SOCK);
        used = path && list[i]->share.pid && strcmp(path, socket_path) == 0;
    }
    vms_snapshot_done(list, n);
    return used;
}

int vms_reconcile(struct vms *v, struct err *e)
{
    size_t n = 0;

    if (load_rows(v, e) < 0 || drop_foreign_domains(v, e) < 0)
        return err_wrap(e, "reconcile");
    struct vm **list = vms_snapshot(v, &n);
    for (size_t i = 0; i < n; i++) {        /* one broken sandbox must not keep the others away */
        struct err one = ERR_INIT;
        if (settle(list[i], &one) < 0)
            give_up(list[i], &one);
        one = ERR_INIT;
        if (!list[i]->removed && charge_again(list[i], &one) < 0)
            log_err(LOG_CTX(.sandbox = list[i]->id, .error = &one), "cannot count a sandbox");
    }
    vms_snapshot_done(list, n);
    if (egress_settle(v->egress, e) < 0 ||
        share_end_strays(v->runtime_dir, share_is_used, v, e) < 0 ||
        drop_foreign_files(v, v->state_dir, vm_files_drop_state, e) < 0 ||
        drop_foreign_files(v, v->runtime_dir, vm_files_drop_runtime, e) < 0)
        return err_wrap(e, "reconcile");
    return 0;
}
