/* SPDX-License-Identifier: MIT
 *
 * vm_registry: all sandboxes of this daemon, and who finds which.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/name.h"
#include "daemon/cgroup.h"
#include "daemon/console.h"
#include "daemon/peer.h"
#include "daemon/vm_priv.h"

#include <stdlib.h>
#include <string.h>

#define SWEEP_MS 2000           /* a guest may fill its console quickly */

int vms_add(struct vms *v, struct vm *vm, struct err *e)
{
    pthread_mutex_lock(&v->lock);
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 16;
        struct vm **list = reallocarray(v->list, cap, sizeof(*list));
        if (!list) {
            pthread_mutex_unlock(&v->lock);
            return err_nomem(e);
        }
        v->list = list;
        v->cap = cap;
    }
    v->list[v->n++] = vm_ref(vm);
    pthread_mutex_unlock(&v->lock);
    return 0;
}

void vms_drop(struct vms *v, struct vm *vm)
{
    struct vm *found = NULL;

    pthread_mutex_lock(&v->lock);
    for (size_t i = 0; i < v->n && !found; i++) {
        if (v->list[i] == vm) {
            found = vm;
            memmove(&v->list[i], &v->list[i + 1], (v->n - i - 1) * sizeof(*v->list));
            v->n--;
        }
    }
    pthread_mutex_unlock(&v->lock);
    vm_unref(found);
}

struct vm *vms_get(struct vms *v, const char *id)
{
    struct vm *found = NULL;

    pthread_mutex_lock(&v->lock);
    for (size_t i = 0; i < v->n && !found; i++) {
        if (strcmp(v->list[i]->id, id) == 0)
            found = vm_ref(v->list[i]);
    }
    pthread_mutex_unlock(&v->lock);
    return found;
}

struct vm **vms_snapshot(struct vms *v, size_t *ret_n)
{
    pthread_mutex_lock(&v->lock);
    struct vm **list = calloc(v->n + 1, sizeof(*list));
    *ret_n = list ? v->n : 0;
    for (size_t i = 0; i < *ret_n; i++)
        list[i] = vm_ref(v->list[i]);
    pthread_mutex_unlock(&v->lock);
    return list;
}

void vms_snapshot_done(struct vm **list, size_t n)
{
    for (size_t i = 0; list && i < n; i++)
        vm_unref(list[i]);
    free(list);
}

/* Owner, id and name of a sandbox never change, so they are read without its lock. */
static bool visible(const struct caller *c, const struct vm *vm)
{
    return c->admin || c->read_only || vm->row.uid == c->id.uid;
}

/* How well a reference names a sandbox; the best rank wins, two of the best are ambiguous. */
enum rank { RANK_NONE, RANK_PREFIX, RANK_OWN_NAME, RANK_ID };

static enum rank match(const struct caller *c, const struct vm *vm, const char *ref)
{
    if (strcmp(vm->id, ref) == 0)
        return RANK_ID;
    /* Another's by its id only: an administrator who repeats a command for his own "box" when that
     * is gone shall not meet somebody else's. */
    if (strcmp(vm->row.name, ref) == 0 && vm->row.uid == c->id.uid)
        return RANK_OWN_NAME;
    if (id_prefix_valid(ref) && strncmp(vm->id, ref, strlen(ref)) == 0)
        return RANK_PREFIX;
    return RANK_NONE;
}

int vms_find(struct vms *v, const struct caller *c, const char *ref, struct vm **ret, struct err *e)
{
    struct vm *best = NULL;
    enum rank best_rank = RANK_NONE;
    unsigned n = 0;
    char others[LIMIT_ID + 1] = "";

    pthread_mutex_lock(&v->lock);
    for (size_t i = 0; i < v->n; i++) {
        if ((c->admin || c->read_only) && strcmp(v->list[i]->row.name, ref) == 0)
            snprintf(others, sizeof(others), "%s", v->list[i]->id);
        enum rank r = visible(c, v->list[i]) ? match(c, v->list[i], ref) : RANK_NONE;
        if (r == RANK_NONE || r < best_rank)
            continue;
        n = r == best_rank ? n + 1 : 1;
        best_rank = r;
        best = v->list[i];
    }
    if (n == 1)
        vm_ref(best);
    pthread_mutex_unlock(&v->lock);
    if (n == 1) {
        *ret = best;
        return 0;
    }
    if (n == 0) {
        err_set(e, ERR_SANDBOX_NOT_FOUND, "no sandbox '%s' of your own", ref);
        if (others[0])
            return err_hint(e, "another user's is called so: name it by its id, %s", others);
        err_set(e, ERR_SANDBOX_NOT_FOUND, "no sandbox '%s'", ref);
        return err_hint(e, "`sbx ls` lists your sandboxes");
    }
    err_set(e, ERR_REF_AMBIGUOUS, "'%s' could be any of %u sandboxes", ref, n);
    return err_hint(e, "give more digits of the id");
}

int vms_each(struct vms *v, const struct caller *c, vms_each_fn fn, void *arg, struct err *e)
{
    size_t n = 0;
    struct vm **list = vms_snapshot(v, &n);
    int r = list ? 0 : err_nomem(e);

    for (size_t i = 0; r == 0 && i < n; i++)
        if (visible(c, list[i]))
            r = fn(arg, list[i], e);
    vms_snapshot_done(list, n);
    return r;
}

int vms_list(struct vms *v, const struct caller *c, struct api_sandbox_list *ret, struct err *e)
{
    size_t n = 0;
    struct vm **list = vms_snapshot(v, &n);
    struct api_sandbox *items = calloc(n + 1, sizeof(*items));
    size_t filled = 0;
    int r = list && items ? 0 : err_nomem(e);

    for (size_t i = 0; r == 0 && i < n; i++) {
        if (visible(c, list[i]))
            r = vm_describe(list[i], &items[filled], e);
        if (r == 0 && items[filled].id)
            filled++;
    }
    vms_snapshot_done(list, n);
    ret->sandboxes = (struct jlist){ .items = items, .n = filled };
    if (r < 0)
        json_done(api_sandbox_list_table, ret, sizeof(*ret));
    return r;
}

int vms_info(struct vms *v, struct vms_info *ret, struct err *e)
{
    struct vms_info info = { 0 };
    size_t n;
    struct vm **list = vms_snapshot(v, &n);

    for (size_t i = 0; i < n; i++)
        info.running += vm_is_running(list[i]);
    info.sandboxes = (uint32_t)n;
    vms_snapshot_done(list, n);
    pthread_mutex_lock(&v->accel_lock);
    info.accel = v->accel;
    pthread_mutex_unlock(&v->accel_lock);
    info.libvirt = strdup(v->libvirt_version ? v->libvirt_version : "");
    info.qemu = strdup(v->qemu_version ? v->qemu_version : "");
    if (!info.libvirt || !info.qemu) {
        free(info.libvirt);
        free(info.qemu);
        return err_nomem(e);
    }
    *ret = info;
    return 0;
}

static void sweep_job(void *ctx, const char *id, const char *detail)
{
    vm_log_sweep(ctx);
    vm_stall_sweep(ctx);
    vm_events_sweep(ctx);
    vm_keep_sweep(ctx);
}

static void on_sweep(void *arg)
{
    struct vms *v = arg;

    worker_post(v->worker, sweep_job, v, "sweep", NULL);
    evloop_timer_set(v->sweep_timer, SWEEP_MS);
}

static int open_parts(struct vms *v, struct err *e)
{
    const struct config *cf = v->config;
    autosbuf struct sbuf uri = SBUF(LIMIT_PATH), view = SBUF(LIMIT_PATH), sd = SBUF(LIMIT_PATH),
                         rd = SBUF(LIMIT_PATH);

    sbuf_fmt(&view, "%s/view", cf->runtime_dir);
    sbuf_fmt(&sd, "%s/sandboxes", cf->state_dir);
    sbuf_fmt(&rd, "%s/sandboxes", cf->runtime_dir);
    if (strcmp(cf->libvirt_uri, "embed") == 0)
        sbuf_fmt(&uri, "qemu:///embed?root=%s/libvirt", cf->state_dir);
    else
        sbuf_fmt(&uri, "%s", cf->libvirt_uri);
    if (sbuf_take(&view, &v->view, e) < 0 || sbuf_take(&sd, &v->state_dir, e) < 0 ||
        sbuf_take(&rd, &v->runtime_dir, e) < 0 || io_mkdir(v->state_dir, 0711, e) < 0 ||
        io_mkdir(v->runtime_dir, 0711, e) < 0)
        return -1;
    v->machine = machine_of(cf->machine);
    v->tsc_khz = accel_tsc_khz();
    gid_t gid = PEER_NO_GROUP;
    if (strcmp(cf->libvirt_uri, "embed") != 0 && peer_group(cf->qemu_group, &gid, e) < 0)
        return err_wrap(e, "qemu_group");
    v->qemu_gid = gid == PEER_NO_GROUP ? 0 : gid;
    if (virt_open(sbuf_str(&uri), vms_on_virt, v, &v->virt, e) < 0 ||
        virt_versions(v->virt, &v->libvirt_version, &v->qemu_version, e) < 0)
        return -1;
    enum accel_choice choice = strcmp(cf->accel, "kvm") == 0   ? ACCEL_FORCE_KVM
                               : strcmp(cf->accel, "tcg") == 0 ? ACCEL_FORCE_TCG
                                                               : ACCEL_AUTO;
    return accel_probe(choice, cf->state_dir, NULL, NULL, &v->accel, &v->accel_final, e);
}

int vms_new(const struct vms_deps *deps, struct vms **ret, struct err *e)
{
    struct vms *v = calloc(1, sizeof(*v));

    if (!v)
        return err_nomem(e);
    *ret = v;       /* half-made too: what it posted is the worker's by then */
    v->config = deps->config;
    v->store = deps->store;
    v->loop = deps->loop;
    v->worker = deps->worker;
    v->egress = deps->egress;
    v->quota = deps->quota;
    v->events = deps->events;
    v->audit = deps->audit;
    pthread_mutex_init(&v->lock, NULL);
    pthread_mutex_init(&v->probe_lock, NULL);
    pthread_mutex_init(&v->accel_lock, NULL);
    if (vm_keep_new(&v->keeper, e) < 0 || vms_load(v, e) < 0 || open_parts(v, e) < 0 ||
        vm_cgroups_open(v, e) < 0 || vms_reconcile(v, e) < 0)
        return -1;
    return evloop_add_timer(v->loop, SWEEP_MS, on_sweep, v, &v->sweep_timer, e);
}

/* The daemon leaves, the guests go on: channels are closed, rows stay "running" and the next daemon
 * adopts them. Requests have ended before. */
static void release(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    struct agent *a = vm->agent;
    struct exec_table *t = vm->execs;
    struct evsource *watch = vm->share_watch;
    struct console *console = vm->console;
    vm->console = NULL;
    vm->agent = NULL;
    vm->execs = NULL;
    vm->share_watch = NULL;
    pthread_mutex_unlock(&vm->lock);
    console_close(console);
    evloop_remove(watch);
    if (a)
        agent_close(a);
    if (t)
        exec_table_release(t);
    exec_table_unref(t);
    agent_unref(a);
}

void vms_release(struct vms *v)
{
    evloop_remove(v->sweep_timer);
    v->sweep_timer = NULL;
    vm_keep_release(v);
    for (size_t i = 0; i < v->n; i++)
        release(v->list[i]);
    if (v->virt)
        virt_mute(v->virt);     /* what was heard is in the worker's queue, and will ask libvirt */
}

void vms_free(struct vms *v)
{
    if (!v)
        return;
    virt_close(v->virt);
    for (size_t i = 0; i < v->n; i++)
        vm_unref(v->list[i]);
    vm_keep_free(v->keeper);
    cgroup_close(v->cgroups);
    free(v->list);
    free(v->view);
    free(v->state_dir);
    free(v->runtime_dir);
    free(v->libvirt_version);
    free(v->qemu_version);
    pthread_mutex_destroy(&v->accel_lock);
    pthread_mutex_destroy(&v->probe_lock);
    pthread_mutex_destroy(&v->lock);
    free(v);
}
