/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "common/sbuf.h"
#include "daemon/filter.h"
#include "daemon/fsck.h"
#include "daemon/link.h"
#include "daemon/share.h"
#include "daemon/strays.h"
#include "daemon/virt.h"
#include "daemon/virt_embed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

AUTO_DEFINE(dir, DIR, closedir)
AUTO_DEFINE(lookstore, struct store, store_close)
AUTO_DEFINE(virtconn, struct virt, virt_close)

void world_done(struct world *w)
{
    for (size_t i = 0; i < w->n_rows; i++)
        vm_row_done(&w->rows[i]);
    for (size_t i = 0; i < w->n_execs; i++)
        exec_row_done(&w->execs[i]);
    for (size_t i = 0; i < w->n_images; i++)
        image_row_done(&w->images[i]);
    free(w->things);
    free(w->rows);
    free(w->execs);
    free(w->images);
    strv_done(&w->faults);
    *w = (struct world){ 0 };
}

struct thing *world_add(struct world *w, enum thing_kind kind, const char *id)
{
    static struct thing spare;      /* written to and never read, when there is no memory */

    if (w->n_things == w->cap_things) {
        size_t cap = w->cap_things ? 2 * w->cap_things : 64;
        struct thing *grown = reallocarray(w->things, cap, sizeof(*grown));
        if (!grown) {
            w->failed = true;
            return &spare;
        }
        w->things = grown;
        w->cap_things = cap;
    }
    struct thing *t = &w->things[w->n_things++];
    *t = (struct thing){ .kind = kind };
    snprintf(t->id, sizeof(t->id), "%s", id);
    return t;
}

/* --- whether a daemon runs --- */

int fsck_daemon_runs(const struct config *c, bool *ret, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);

    sbuf_fmt(&path, "%s/lock", c->state_dir);
    if (sbuf_check(&path, e) < 0)
        return -1;
    autoclose int fd = open(sbuf_str(&path), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    *ret = false;
    if (fd < 0)
        return errno == ENOENT
                   ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot open %s", sbuf_str(&path));
    /* Shared, and given back at once: two that look do not take each other for a daemon. */
    if (flock(fd, LOCK_SH | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return err_sys(e, ERR_INTERNAL, errno, "cannot try the lock %s", sbuf_str(&path));
    *ret = true;
    return 0;
}

/* --- directories --- */

static int open_list(const struct sbuf *path, DIR **ret, struct err *e)
{
    if (sbuf_check(path, e) < 0)
        return -1;
    *ret = opendir(sbuf_str(path));
    if (!*ret && errno != ENOENT && errno != ENOTDIR)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read %s", sbuf_str(path));
    return 0;
}

static int look_at_rings(struct world *w, const char *dir, const char *id, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    autotype(dir) DIR *d = NULL;
    struct dirent *de;

    sbuf_fmt(&path, "%s/%s/execs", dir, id);
    if (open_list(&path, &d, e) < 0)
        return -1;
    while (d && (de = readdir(d))) {
        char exec[LIMIT_ID + 1] = "";
        if (strlen(de->d_name) != LIMIT_ID + strlen(".out"))
            continue;
        memcpy(exec, de->d_name, LIMIT_ID);
        if (id_valid(exec))
            snprintf(world_add(w, TH_RING, id)->name, sizeof(w->things->name), "%s", exec);
    }
    return 0;
}

static int look_at_sandboxes(struct world *w, const char *base, bool runtime, struct err *e)
{
    autosbuf struct sbuf dir = SBUF(LIMIT_PATH);
    autotype(dir) DIR *d = NULL;
    struct dirent *de;

    sbuf_fmt(&dir, "%s/sandboxes", base);
    if (open_list(&dir, &d, e) < 0)
        return -1;
    while (d && (de = readdir(d))) {
        autosbuf struct sbuf disk = SBUF(LIMIT_PATH), half = SBUF(LIMIT_PATH);
        if (!id_valid(de->d_name))
            continue;
        world_add(w, runtime ? TH_RUNTIME : TH_STATE, de->d_name);
        if (runtime && look_at_rings(w, sbuf_str(&dir), de->d_name, e) < 0)
            return -1;
        sbuf_fmt(&disk, "%s/vm/disk.qcow2", de->d_name);
        if (sbuf_check(&disk, e) < 0)
            return -1;
        if (!runtime && faccessat(dirfd(d), sbuf_str(&disk), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            world_add(w, TH_DISK, de->d_name);
        sbuf_fmt(&half, "%s/disk.tmp", de->d_name);
        if (!runtime && faccessat(dirfd(d), sbuf_str(&half), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            world_add(w, TH_HALF_DISK, de->d_name);
    }
    return 0;
}

/* Entries of a directory of state_dir as things with a name; prefix goes before it. */
static int look_at_names(struct world *w, const char *base, const char *below,
                         enum thing_kind kind, const char *prefix, struct err *e)
{
    autosbuf struct sbuf dir = SBUF(LIMIT_PATH);
    autotype(dir) DIR *d = NULL;
    struct dirent *de;

    sbuf_fmt(&dir, "%s/%s", base, below);
    if (open_list(&dir, &d, e) < 0)
        return -1;
    while (d && (de = readdir(d))) {
        char id[LIMIT_ID + 1] = "";
        if (de->d_name[0] == '.')
            continue;
        snprintf(id, sizeof(id), "%.16s", de->d_name);
        /* a file system's own lost+found has other names in it */
        if (kind == TH_KEPT && !id_valid(id))
            continue;
        struct thing *t = world_add(w, kind, kind == TH_KEPT ? id : "");
        snprintf(t->name, sizeof(t->name), "%s%.64s", prefix, de->d_name);
    }
    return 0;
}

/* --- kernel, processes, libvirt --- */

static void on_process(void *arg, const struct stray *p)
{
    struct thing *t = world_add(arg, p->kind == STRAY_QEMU ? TH_QEMU : TH_SHARE, p->id);

    t->number = p->kind == STRAY_QEMU ? p->uid : (uint32_t)p->pid;
    t->networked = p->networked;
}

static void on_chain(void *arg, const char *chain)
{
    static const char box[] = "box-";

    if (strncmp(chain, box, strlen(box)) == 0)
        world_add(arg, TH_CHAIN, chain + strlen(box));
    else if (strncmp(chain, LINK_PREFIX, strlen(LINK_PREFIX)) == 0)
        world_add(arg, TH_TAP_CHAIN, chain + strlen(LINK_PREFIX));
}

static void on_domain(void *arg, const char *id)
{
    world_add(arg, TH_DOMAIN, id);
}

static int look_at_libvirtd(struct world *w, const char *uri, struct err *e)
{
    autotype(virtconn) struct virt *v = NULL;
    char **ids = NULL;
    size_t n = 0;

    if (virt_open(uri, NULL, NULL, &v, e) < 0 || virt_list(v, &ids, &n, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        world_add(w, TH_DOMAIN, ids[i]);
        free(ids[i]);
    }
    free(ids);
    return 0;
}

static int look_at_domains(struct world *w, const struct config *c, struct err *e)
{
    static const char embedded[] = "qemu:///embed?root=";
    autosbuf struct sbuf root = SBUF(LIMIT_PATH);

    if (strncmp(c->libvirt_uri, embedded, strlen(embedded)) == 0)
        sbuf_fmt(&root, "%s", c->libvirt_uri + strlen(embedded));
    else if (strcmp(c->libvirt_uri, "embed") == 0)
        sbuf_fmt(&root, "%s/libvirt", c->state_dir);
    else
        return look_at_libvirtd(w, c->libvirt_uri, e);
    if (sbuf_check(&root, e) < 0)
        return -1;
    return virt_embed_list(sbuf_str(&root), on_domain, w, e);
}

static int look_at_host(struct world *w, const struct config *c, struct err *e)
{
    autosbuf struct sbuf state = SBUF(LIMIT_PATH), runtime = SBUF(LIMIT_PATH);
    autofree char (*taps)[IFNAMSIZ] = NULL;
    size_t n = 0;

    sbuf_fmt(&state, "%s/sandboxes", c->state_dir);
    sbuf_fmt(&runtime, "%s/sandboxes", c->runtime_dir);
    if (sbuf_check(&state, e) < 0 || sbuf_check(&runtime, e) < 0)
        return -1;
    const struct stray_range range = {
        .state_dir = sbuf_str(&state),
        .runtime_dir = sbuf_str(&runtime),
        .uid_lo = c->uid_base + 1,
        .uid_hi = c->uid_base + LIMIT_SANDBOXES,
    };
    if (strays_look(&range, on_process, w, e) < 0 || look_at_domains(w, c, e) < 0 ||
        look_at_sandboxes(w, c->state_dir, false, e) < 0 ||
        look_at_sandboxes(w, c->runtime_dir, true, e) < 0 ||
        look_at_names(w, c->state_dir, "lost+found", TH_KEPT, "", e) < 0 ||
        look_at_names(w, c->state_dir, "images", TH_IMAGE, "sha256:", e) < 0)
        return -1;
    if (!c->network)            /* then the host's is none of our business */
        return 0;
    if (link_list(&taps, &n, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        world_add(w, TH_TAP, taps[i] + strlen(LINK_PREFIX));
    return filter_chains(on_chain, w, e);
}

/* --- the database --- */

static void on_fault(void *arg, const char *what)
{
    struct world *w = arg;
    struct err e = ERR_INIT;

    w->failed |= strv_add(&w->faults, what, &e) < 0;
}

static int look_at_execs(struct world *w, struct store *st, const char *vm, struct err *e)
{
    autofree struct exec_row *rows = NULL;
    size_t n = 0;

    if (store_exec_list(st, vm, &rows, &n, e) < 0)
        return -1;
    struct exec_row *all = reallocarray(w->execs, w->n_execs + n + 1, sizeof(*all));
    if (!all) {
        for (size_t i = 0; i < n; i++)
            exec_row_done(&rows[i]);
        return err_nomem(e);
    }
    w->execs = all;
    if (n > 0)
        memcpy(all + w->n_execs, rows, n * sizeof(*rows));
    w->n_execs += n;
    return 0;
}

static int look_at_rows(struct world *w, const struct config *c, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    autotype(lookstore) struct store *st = NULL;

    sbuf_fmt(&path, "%s/sandboxd.db", c->state_dir);
    if (sbuf_check(&path, e) < 0 || store_open_look(sbuf_str(&path), &st, e) < 0 ||
        store_check(st, on_fault, w, e) < 0)
        return -1;
    if (store_vm_list(st, &w->rows, &w->n_rows, e) < 0 ||
        store_image_list(st, &w->images, &w->n_images, e) < 0)
        return w->faults.n ? err_wrap(e, "the database is damaged (%s)", w->faults.items[0]) : -1;
    for (size_t i = 0; i < w->n_rows; i++)
        if (look_at_execs(w, st, w->rows[i].id, e) < 0)
            return -1;
    return 0;
}

/* A share that changed its mark is known by its row. The processes are the first things. */
static void find_unmarked_shares(struct world *w)
{
    size_t n = 0;

    while (n < w->n_things && w->things[n].kind <= TH_SHARE && w->things[n].kind >= TH_QEMU)
        n++;
    for (size_t i = 0; i < w->n_rows; i++) {
        const struct vm_row *r = &w->rows[i];
        const struct share_proc p = { .pid = r->share_pid, .start_time = r->share_start };
        bool seen = false;
        for (size_t k = 0; k < n && !seen; k++)
            seen = w->things[k].kind == TH_SHARE && w->things[k].number == (uint32_t)p.pid;
        if (p.pid && !seen && share_alive(&p))
            world_add(w, TH_SHARE, r->id)->number = (uint32_t)p.pid;
    }
}

int fsck_look(const struct config *c, struct world *ret, struct err *e)
{
    struct world w = { .network = c->network, .uid_base = c->uid_base };

    if (fsck_daemon_runs(c, &w.daemon, e) < 0 || look_at_host(&w, c, e) < 0 ||
        look_at_rows(&w, c, e) < 0) {
        world_done(&w);
        return -1;
    }
    find_unmarked_shares(&w);
    *ret = w;
    return 0;
}
