/* SPDX-License-Identifier: MIT */
#include "daemon/daemon.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "daemon/audit.h"
#include "daemon/audit_beside.h"
#include "daemon/egress.h"
#include "daemon/events.h"
#include "daemon/evloop.h"
#include "daemon/http.h"
#include "daemon/idem.h"
#include "daemon/meter.h"
#include "daemon/notify.h"
#include "daemon/peer.h"
#include "daemon/space.h"
#include "daemon/view.h"
#include "daemon/vm.h"
#include "daemon/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define EVENTS_STOP_MS 1000     /* what waits to be written, when a request does not end */
#define START_SECONDS 90        /* libvirt's first start takes 7; guests found are greeted */

/* mkdir -p, then exactly this mode: others pass through to the sandboxes' own directories. */
static int make_dir(const char *path, struct err *e)
{
    if (io_mkdir_parents(path, 0755, e) < 0)
        return -1;
    autoclose int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fchown(fd, 0, 0) < 0 || fchmod(fd, 0711) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot prepare %s", path);
    return 0;
}

static int lock_state(struct daemon *d, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);

    sbuf_fmt(&path, "%s/lock", d->config.state_dir);
    d->lock_fd = open(sbuf_str(&path), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->lock_fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", sbuf_str(&path));
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return err_sys(e, ERR_INTERNAL, errno, "cannot lock %s", sbuf_str(&path));
    err_set(e, ERR_UNAVAILABLE, "another sandboxd uses %s", d->config.state_dir);
    return err_hint(e, "stop it, or give this one a state_dir of its own");
}

/* A socket that was passed, or a new one of our own. */
static int open_one(int passed, const char *path, const char *group_name, const char *key,
                    int *ret_fd, bool *ret_passed, struct err *e)
{
    gid_t group = PEER_NO_GROUP;

    if (passed >= 0) {
        if (!notify_is_listener(passed))
            return err_set(e, ERR_INVALID, "what was passed is not a listening Unix socket");
        *ret_fd = passed;
        *ret_passed = true;
        return 0;
    }
    if (peer_group(group_name, &group, e) < 0)
        return err_wrap(e, "%s", key);
    return http_listen(path, group == PEER_NO_GROUP ? 0 : group, ret_fd, e);
}

static int open_sockets(struct daemon *d, const struct notify_fds *passed, struct err *e)
{
    const struct config *c = &d->config;

    if (peer_group(c->admin_group, &d->admin_gid, e) < 0)
        return err_wrap(e, "admin_group");
    if (strcmp(c->socket, c->readonly_socket) == 0)
        return err_set(e, ERR_INVALID, "readonly_socket: is the same as socket");
    if (open_one(passed->socket, c->socket, c->socket_group, "socket_group", &d->listen_fd,
                 &d->socket_passed, e) < 0)
        return -1;
    if (passed->readonly < 0 && !c->readonly_socket[0])
        return 0;
    return open_one(passed->readonly, c->readonly_socket, c->readonly_group, "readonly_group",
                    &d->readonly_fd, &d->readonly_passed, e);
}

int daemon_claim(struct daemon *d, struct config *config, struct err *e)
{
    *d = (struct daemon){ .config = *config, .lock_fd = -1, .listen_fd = -1,
                          .readonly_fd = -1, .admin_gid = PEER_NO_GROUP };
    *config = (struct config){ 0 };
    if (make_dir(d->config.state_dir, e) < 0 || make_dir(d->config.runtime_dir, e) < 0 ||
        lock_state(d, e) < 0 || view_open(&d->config, e) < 0)
        return -1;
    space_room_use(d->config.state_dir);
    return 0;
}

int daemon_prepare(struct daemon *d, struct config *config, const struct notify_fds *passed,
                   struct err *e)
{
    return daemon_claim(d, config, e) < 0 ? -1 : open_sockets(d, passed, e);
}

/* What commands beside us left for the audit log; what fails is tried again. */
static void take_beside(struct daemon *d)
{
    static struct log_rate rate;
    struct err e = ERR_INIT;

    if (audit_beside_take(d->audit, d->config.state_dir, &e) < 0 && log_rate_ok(&rate, 1, 60000))
        log_warn(LOG_CTX(.error = &e),
                 "records of commands wait for the audit log, trying again");
}

static int open_audit(struct daemon *d, bool serves, struct err *e)
{
    int mode = audit_mode_parse(d->config.audit);
    struct audit_options o = { .dir = d->config.state_dir, .mode = (enum audit_mode)mode,
                               .size = d->config.audit_size, .files = d->config.audit_files,
                               .repair = !serves };
    struct err no = ERR_INIT;

    if (audit_open(&o, &d->audit, &no) == 0) {
        take_beside(d);
        return 0;
    }
    if (mode == AUDIT_BEST_EFFORT) {
        log_err(LOG_CTX(.error = &no), "there is no audit log until the next start, ignoring");
        return 0;
    }
    *e = no;
    return err_wrap(e, "audit log");
}

static int open_events(struct daemon *d, bool serves, struct err *e)
{
    const char *what = serves ? "sandboxd " SBX_VERSION : "sandboxd fsck --repair " SBX_VERSION;

    return events_open(d->store, d->config.events, what, &d->events, e);
}

static int open_meter(struct daemon *d, struct err *e)
{
    size_t n = 0;

    while (routes_table[n].method)
        n++;
    return meter_new(n, &d->meter, e);
}

int daemon_settle(struct daemon *d, bool serves, struct err *e)
{
    autosbuf struct sbuf db = SBUF(LIMIT_PATH);

    d->started_at = now_real_us();
    sbuf_fmt(&db, "%s/sandboxd.db", d->config.state_dir);
    if (open_audit(d, serves, e) < 0 || store_open(sbuf_str(&db), &d->store, e) < 0 ||
        open_events(d, serves, e) < 0 || open_meter(d, e) < 0 ||
        idem_new(d->store, &d->idem, e) < 0 || quota_new(&d->config.quota, &d->quota, e) < 0 ||
        evloop_new(&d->loop, e) < 0 || worker_new(&d->worker, e) < 0)
        return -1;
    notify_extend(START_SECONDS);
    notify_status("connecting libvirt and looking after sandboxes");
    if (egress_open(&d->config, d->store, d->events, &d->egress, e) < 0)
        return -1;
    struct vms_deps deps = { .config = &d->config, .store = d->store, .loop = d->loop,
                             .worker = d->worker, .egress = d->egress, .quota = d->quota,
                             .events = d->events, .audit = d->audit };
    if (vms_new(&deps, &d->vms, e) < 0)
        return -1;
    d->settled = true;
    return 0;
}

/* Room on the disk: for the next start first, then for what is noted while there is no other. */
static void keep_room(void *ctx, const char *id, const char *detail)
{
    const struct daemon *d = ctx;

    space_room_keep(d->config.state_dir);
    store_reserve(d->store);
}

int daemon_start(struct daemon *d, struct err *e)
{
    if (daemon_settle(d, true, e) < 0)
        return -1;
    struct http_options o = { .daemon = d, .routes = routes_table, .listen_fd = d->listen_fd,
                              .admin_gid = d->admin_gid, .idle_s = LIMIT_HTTP_IDLE_S,
                              .quota = d->quota, .meter = d->meter };
    worker_post(d->worker, keep_room, d, "room", NULL);
    if (http_new(&o, &d->http, e) < 0)
        return -1;
    o.listen_fd = d->readonly_fd;
    o.read_only = true;
    if (d->readonly_fd >= 0 && http_new(&o, &d->readonly, e) < 0)
        return -1;
    vms_keep(d->vms);
    return 0;
}

static void sync_audit(void *ctx, const char *id, const char *detail)
{
    struct daemon *d = ctx;
    struct err e = ERR_INIT;

    take_beside(d);
    if (audit_sync(d->audit, &e) < 0)
        log_err(LOG_CTX(.error = &e), "requests are refused from now on, or not recorded");
}

void daemon_tick(struct daemon *d)
{
    http_sweep(d->http);
    if (d->readonly)
        http_sweep(d->readonly);
    worker_post(d->worker, keep_room, d, "room", NULL);
    if (d->audit)
        worker_post(d->worker, sync_audit, d, "audit", NULL);
}

static bool none_running(struct daemon *d)
{
    struct vms_info info = { 0 };
    struct err e = ERR_INIT;

    if (!d->settled || vms_info(d->vms, &info, &e) < 0)
        return false;
    free(info.libvirt);
    free(info.qemu);
    return info.running == 0;
}

bool daemon_stop(struct daemon *d)
{
    /* no new connections; streams end; requests finish */
    if (d->readonly && !http_stop(d->readonly, HTTP_STOP_MS / 3))
        return false;
    http_free(take_ptr(d->readonly));
    if (d->http && !http_stop(d->http, HTTP_STOP_MS)) {
        events_flush(d->events, EVENTS_STOP_MS);
        return false;
    }
    http_free(take_ptr(d->http));
    if (!d->socket_passed && d->listen_fd >= 0)
        unlink(d->config.socket);
    if (!d->readonly_passed && d->readonly_fd >= 0)
        unlink(d->config.readonly_socket);
    fd_close(take_fd(&d->listen_fd));
    fd_close(take_fd(&d->readonly_fd));
    /* nothing is heard any more; what was posted is finished, and still finds libvirt; then the
     * objects go, and libvirt */
    bool unused = none_running(d);
    if (d->vms)
        vms_release(d->vms);
    if (d->worker)
        worker_free(take_ptr(d->worker));
    vms_free(take_ptr(d->vms));
    egress_free(take_ptr(d->egress));
    if (d->loop)
        evloop_free(take_ptr(d->loop));
    events_free(take_ptr(d->events), true);
    audit_free(take_ptr(d->audit));
    quota_free(take_ptr(d->quota));     /* what was charged went with connections and sandboxes */
    idem_free(take_ptr(d->idem));
    meter_free(take_ptr(d->meter));
    if (d->store)
        store_close(take_ptr(d->store));
    if (unused)
        view_close(&d->config);
    fd_close(take_fd(&d->lock_fd));
    config_done(&d->config);
    return true;
}
