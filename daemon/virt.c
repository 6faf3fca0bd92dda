/* SPDX-License-Identifier: MIT
 *
 * Theory of operation. libvirt delivers events, and keeps a remote connection alive, only while
 * somebody runs its event loop; so a thread that does nothing else is started before the connection
 * is opened, and ends after it is closed. The loop blocks in poll and looks up only when one of its
 * own handles or timers fires: it is stopped through an eventfd that is registered with it.
 *
 * The event implementation is a thing of the process, registered once and never again; the thread
 * belongs to `struct virt`, of which a process has one at a time.
 *
 * libvirtd may be restarted under us. A connection that died is opened again by the next call; the
 * lock covers that exchange and the pointer, never a call to libvirt that may take long. Calls work
 * on a reference of their own.
 *
 * libvirt's calls have no deadlines. The slow ones are CreateXML (QEMU's start, 30 s at most by
 * libvirt's own limit) and Destroy (SIGTERM, SIGKILL after 10 s, an error after 40 s). A caller
 * with a deadline of its own checks it between calls. Resume asks the monitor of a QEMU that may be
 * in a guest's hands by then, and returns when that answers or ends: so it has a thread of its own.
 * State, list and effort are libvirt's and the kernel's knowledge; no monitor is asked.
 */
#include "daemon/virt.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/parse.h"
#include "common/sbuf.h"
#include "common/strv.h"
#include "daemon/virt_embed.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_PREFIX  VIRT_NAME_PREFIX
#define EMBED_PREFIX "qemu:///embed?root="
#define SYSTEM_PIDS  "/run/libvirt/qemu"

struct virt {
    char *uri; /* owned */
    pthread_mutex_t fn_lock; /* covers fn; held over its call */
    virt_event_fn fn;        /* NULL: nobody listens any more */
    void *arg;
    pthread_t thread;
    bool thread_runs;
    atomic_bool stop;
    int wake_fd;          /* owned, -1 */
    int wake_watch;       /* -1 */
    pthread_mutex_t lock; /* covers conn and callback */
    virConnectPtr conn;   /* ref */
    int callback;         /* -1 */
};

AUTO_DEFINE(vir_domain, virDomain, virDomainFree)
#define autodomain autotype(vir_domain)
AUTO_DEFINE(vir_connect, virConnect, virConnectClose)
#define autoconnect autotype(vir_connect)
AUTO_DEFINE(virt, struct virt, virt_close)
#define autovirt autotype(virt)

/* ---- errors ---- */

static void error_silent(void *arg, virErrorPtr error)
{
    /* libvirt prints to stderr unless given a function; failures travel in struct err instead. */
}

/* Turns the thread's last libvirt error into e. To be called right after the call that failed. */
static int fail(struct err *e, const char *what)
{
    virErrorPtr ve = virGetLastError();
    enum err_code code = ERR_INTERNAL;

    switch (ve ? ve->code : VIR_ERR_OK) {
    case VIR_ERR_NO_CONNECT:
    case VIR_ERR_INVALID_CONN:
    case VIR_ERR_RPC:
    case VIR_ERR_AUTH_FAILED:
        code = ERR_UNAVAILABLE;
        break;
    case VIR_ERR_OPERATION_TIMEOUT:
        code = ERR_TIMEOUT;
        break;
    case VIR_ERR_NO_MEMORY:
        code = ERR_NO_MEMORY;
        break;
    case VIR_ERR_SYSTEM_ERROR:
        /* libvirtd that is not there comes as ECONNREFUSED or ENOENT; int1 is errno: no room, no
         * descriptor are told as where calls of ours fail */
        code = ve->domain == VIR_FROM_RPC ? ERR_UNAVAILABLE : err_sys_code(ve->int1, code);
        break;
    default:
        break;
    }
    err_set(e, code, "%s: %s", what, ve && ve->message ? ve->message : "libvirt gave no reason");
    virResetLastError();
    return -1;
}

/* ---- event thread ---- */

static void wake_cb(int watch, int fd, int events, void *opaque)
{
    uint64_t n;
    if (read(fd, &n, sizeof(n)) < 0) { /* nothing to read: fine, the loop looks at `stop` anyway */
    }
}

static void *event_thread(void *arg)
{
    struct virt *v = arg;

    pthread_setname_np(pthread_self(), "libvirt-events");
    while (!atomic_load(&v->stop)) {
        if (virEventRunDefaultImpl() < 0) {
            /* poll failed: seen only when fds are exhausted; do not spin */
            virResetLastError();
            usleep(50 * 1000);
        }
    }
    return NULL;
}

static pthread_once_t event_once = PTHREAD_ONCE_INIT;
static int event_registered = -1;

static void event_register(void)
{
    virSetErrorFunc(NULL, error_silent);
    if (virInitialize() == 0)
        event_registered = virEventRegisterDefaultImpl();
}

static int event_start(struct virt *v, struct err *e)
{
    pthread_once(&event_once, event_register);
    if (event_registered < 0)
        return fail(e, "cannot set up libvirt's event loop");
    v->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->wake_fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "eventfd");
    v->wake_watch = virEventAddHandle(v->wake_fd, VIR_EVENT_HANDLE_READABLE, wake_cb, NULL, NULL);
    if (v->wake_watch < 0)
        return fail(e, "cannot watch the event loop's wake-up");
    int r = pthread_create(&v->thread, NULL, event_thread, v);
    if (r != 0)
        return err_sys(e, ERR_INTERNAL, r, "cannot start libvirt's event thread");
    v->thread_runs = true;
    return 0;
}

static void event_stop(struct virt *v)
{
    if (v->thread_runs) {
        uint64_t one = 1;
        atomic_store(&v->stop, true);
        if (write(v->wake_fd, &one, sizeof(one)) < 0) { /* counter full: it is awake */
        }
        pthread_join(v->thread, NULL);
        v->thread_runs = false;
    }
    if (v->wake_watch >= 0)
        virEventRemoveHandle(v->wake_watch);
    v->wake_watch = -1;
    fd_close(take_fd(&v->wake_fd));
}

/* ---- lifecycle events ---- */

static bool event_map(int event, int detail, enum virt_event *ret_ev, const char **ret_detail)
{
    switch (event) {
    case VIR_DOMAIN_EVENT_STOPPED:
        *ret_ev = VIRT_STOPPED;
        switch (detail) {
        case VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
            *ret_detail = VIRT_POWERED_OFF;
            return true;
        case VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
            *ret_detail = "destroyed";
            return true;
        case VIR_DOMAIN_EVENT_STOPPED_CRASHED:
            *ret_ev = VIRT_CRASHED;
            *ret_detail = "crashed";
            return true;
        case VIR_DOMAIN_EVENT_STOPPED_FAILED:
            *ret_ev = VIRT_CRASHED;
            *ret_detail = "failed";
            return true;
        default:
            *ret_detail = "stopped";
            return true;
        }
    case VIR_DOMAIN_EVENT_CRASHED:
        *ret_ev = VIRT_CRASHED;
        *ret_detail = "panicked";
        return true;
    case VIR_DOMAIN_EVENT_SUSPENDED:
        *ret_ev = VIRT_PAUSED;
        *ret_detail = detail == VIR_DOMAIN_EVENT_SUSPENDED_IOERROR ? "io-error" : "paused";
        return true;
    case VIR_DOMAIN_EVENT_RESUMED:
        *ret_ev = VIRT_RESUMED;
        *ret_detail = "resumed";
        return true;
    default:
        return false;
    }
}

static int lifecycle_cb(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *opaque)
{
    struct virt *v = opaque;
    const char *name = virDomainGetName(dom);
    enum virt_event ev;
    const char *word;

    if (!name || strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX)) != 0 ||
        !event_map(event, detail, &ev, &word))
        return 0;
    pthread_mutex_lock(&v->fn_lock);
    if (v->fn)
        v->fn(v->arg, name + strlen(NAME_PREFIX), ev, word);
    pthread_mutex_unlock(&v->fn_lock);
    return 0;
}

/* ---- connection ---- */

static int connect_locked(struct virt *v, struct err *e)
{
    autoconnect virConnectPtr conn = virConnectOpen(v->uri);
    if (!conn) {
        fail(e, "cannot open libvirt");
        err_hint(e, "%s",
                 strncmp(v->uri, EMBED_PREFIX, strlen(EMBED_PREFIX)) == 0
                     ? "are libvirt's QEMU driver and the system user libvirt-qemu there?"
                     : "is libvirtd running? systemctl status libvirtd");
        return -1;
    }
    /* Only a remote connection has keepalive; an embedded driver says no, and has no need. */
    if (virConnectSetKeepAlive(conn, 5, 6) < 0)
        virResetLastError();
    int callback = virConnectDomainEventRegisterAny(conn, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                                    VIR_DOMAIN_EVENT_CALLBACK(lifecycle_cb), v,
                                                    NULL);
    if (callback < 0)
        return fail(e, "cannot subscribe to libvirt's events");
    v->conn = take_ptr(conn);
    v->callback = callback;
    return 0;
}

static void disconnect_locked(struct virt *v)
{
    if (!v->conn)
        return;
    if (v->callback >= 0)
        virConnectDomainEventDeregisterAny(v->conn, v->callback);
    v->callback = -1;
    virConnectClose(v->conn);
    v->conn = NULL;
    virResetLastError();
}

/* A reference to a connection that is alive as far as we know. */
static int connection(struct virt *v, virConnectPtr *ret, struct err *e)
{
    int r = 0;

    pthread_mutex_lock(&v->lock);
    if (v->conn && virConnectIsAlive(v->conn) == 0)
        disconnect_locked(v);
    if (!v->conn)
        r = connect_locked(v, e);
    if (r == 0 && virConnectRef(v->conn) < 0)
        r = fail(e, "cannot use the libvirt connection");
    if (r == 0)
        *ret = v->conn;
    pthread_mutex_unlock(&v->lock);
    return r;
}

int virt_open(const char *uri, virt_event_fn fn, void *arg, struct virt **ret, struct err *e)
{
    autovirt struct virt *v = calloc(1, sizeof(*v));
    if (!v)
        return err_nomem(e);
    v->wake_fd = v->wake_watch = v->callback = -1;
    v->fn = fn;
    v->arg = arg;
    pthread_mutex_init(&v->lock, NULL);
    pthread_mutex_init(&v->fn_lock, NULL);
    v->uri = strdup(uri);
    if (!v->uri)
        return err_nomem(e);

    if (strncmp(uri, EMBED_PREFIX, strlen(EMBED_PREFIX)) == 0 &&
        virt_embed_prepare(uri + strlen(EMBED_PREFIX), e) < 0)
        return err_wrap(e, "libvirt's embedded driver");
    if (event_start(v, e) < 0)
        return -1;

    autoconnect virConnectPtr conn = NULL;
    *ret = v;       /* first: whoever hears of an event may ask */
    if (connection(v, &conn, e) < 0) {
        *ret = NULL;
        return -1;
    }
    (void)take_ptr(v);
    return 0;
}

void virt_mute(struct virt *v)
{
    pthread_mutex_lock(&v->fn_lock);
    v->fn = NULL;
    pthread_mutex_unlock(&v->fn_lock);
}

void virt_close(struct virt *v)
{
    if (!v)
        return;
    pthread_mutex_lock(&v->lock);
    disconnect_locked(v);
    pthread_mutex_unlock(&v->lock);
    event_stop(v);
    pthread_mutex_destroy(&v->fn_lock);
    pthread_mutex_destroy(&v->lock);
    free(v->uri);
    free(v);
}

static int version_text(unsigned long n, char **ret, struct err *e)
{
    autosbuf struct sbuf b = SBUF(32);
    sbuf_fmt(&b, "%lu.%lu.%lu", n / 1000000, n / 1000 % 1000, n % 1000);
    return sbuf_take(&b, ret, e);
}

int virt_versions(struct virt *v, char **ret_libvirt, char **ret_qemu, struct err *e)
{
    autoconnect virConnectPtr conn = NULL;
    unsigned long lib = 0, hv = 0;
    autofree char *libvirt = NULL, *qemu = NULL;

    if (connection(v, &conn, e) < 0)
        return -1;
    if (virConnectGetLibVersion(conn, &lib) < 0)
        return fail(e, "cannot ask for libvirt's version");
    if (virConnectGetVersion(conn, &hv) < 0)
        return fail(e, "cannot ask for QEMU's version");
    if (version_text(lib, &libvirt, e) < 0 || version_text(hv, &qemu, e) < 0)
        return -1;
    *ret_libvirt = take_ptr(libvirt);
    *ret_qemu = take_ptr(qemu);
    return 0;
}

/* ---- domains ---- */

/* 1 found, 0 none of that name, -1 error. The connection is the caller's in any case. */
static int find(struct virt *v, const char *id, virConnectPtr *ret_conn, virDomainPtr *ret,
                struct err *e)
{
    autosbuf struct sbuf name = SBUF(64);

    if (connection(v, ret_conn, e) < 0)
        return -1;
    sbuf_fmt(&name, NAME_PREFIX "%s", id);
    if (name.failed)
        return err_set(e, ERR_INVALID, "not a sandbox id");
    *ret = virDomainLookupByName(*ret_conn, sbuf_str(&name));
    if (*ret)
        return 1;
    if (virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) {
        virResetLastError();
        return 0;
    }
    return fail(e, "cannot look for the guest");
}

int virt_start(struct virt *v, const char *xml, struct err *e)
{
    autoconnect virConnectPtr conn = NULL;

    if (connection(v, &conn, e) < 0)
        return -1;
    autodomain virDomainPtr dom = virDomainCreateXML(conn, xml, 0);
    if (!dom)
        return fail(e, "cannot start the guest");
    return 0;
}

/* 1: it is there, with libvirt's state and reason; 0: no such domain. */
static int state_of(struct virt *v, const char *sandbox_id, int *ret_state, int *ret_reason,
                    struct err *e)
{
    autoconnect virConnectPtr conn = NULL;
    autodomain virDomainPtr dom = NULL;

    int r = find(v, sandbox_id, &conn, &dom, e);
    if (r <= 0)
        return r;
    if (virDomainGetState(dom, ret_state, ret_reason, 0) == 0)
        return 1;
    if (virGetLastErrorCode() != VIR_ERR_NO_DOMAIN)
        return fail(e, "cannot ask for the guest's state");
    virResetLastError();
    return 0;
}

int virt_exists(struct virt *v, const char *sandbox_id, bool *ret_paused, struct err *e)
{
    int state, reason, r = state_of(v, sandbox_id, &state, &reason, e);

    if (r <= 0)
        return r;
    if (state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_CRASHED)
        return 0;
    if (ret_paused)
        *ret_paused = state != VIR_DOMAIN_RUNNING && state != VIR_DOMAIN_BLOCKED;
    return 1;
}

int virt_stalled(struct virt *v, const char *sandbox_id, struct err *e)
{
    int state, reason, r = state_of(v, sandbox_id, &state, &reason, e);

    return r <= 0 ? r : state == VIR_DOMAIN_PAUSED && reason == VIR_DOMAIN_PAUSED_IOERROR;
}

static enum virt_pause pause_of(int state, int reason)
{
    if (state == VIR_DOMAIN_SHUTDOWN)
        return VIRT_PAUSE_LEAVES;
    if (state != VIR_DOMAIN_PAUSED)
        return VIRT_NOT_PAUSED;
    switch (reason) {
    case VIR_DOMAIN_PAUSED_SHUTTING_DOWN:
        return VIRT_PAUSE_LEAVES;
    case VIR_DOMAIN_PAUSED_IOERROR:
        return VIRT_PAUSE_DISK;
    case VIR_DOMAIN_PAUSED_WATCHDOG:
        return VIRT_PAUSE_WATCHDOG;
    case VIR_DOMAIN_PAUSED_CRASHED:
        return VIRT_PAUSE_PANIC;
    case VIR_DOMAIN_PAUSED_USER:
    case VIR_DOMAIN_PAUSED_MIGRATION:
    case VIR_DOMAIN_PAUSED_SAVE:
    case VIR_DOMAIN_PAUSED_DUMP:
    case VIR_DOMAIN_PAUSED_FROM_SNAPSHOT:
    case VIR_DOMAIN_PAUSED_SNAPSHOT:
    case VIR_DOMAIN_PAUSED_STARTING_UP:
        return VIRT_PAUSE_USER;
    default:
        return VIRT_PAUSE_FAULT;
    }
}

int virt_pause(struct virt *v, const char *sandbox_id, enum virt_pause *ret_why, struct err *e)
{
    int state, reason, r = state_of(v, sandbox_id, &state, &reason, e);

    if (r <= 0)
        return r;
    *ret_why = pause_of(state, reason);
    return *ret_why != VIRT_NOT_PAUSED;
}

int virt_effort(struct virt *v, const char *sandbox_id, bool *ret_running, uint64_t *ret_cpu_ns,
                struct err *e)
{
    autoconnect virConnectPtr conn = NULL;
    autodomain virDomainPtr dom = NULL;
    virDomainInfo info;

    int r = find(v, sandbox_id, &conn, &dom, e);
    if (r <= 0)
        return r;
    /* Of /proc, without a word to the monitor: a guest cannot delay it. */
    if (virDomainGetInfo(dom, &info) < 0)
        return fail(e, "cannot ask what the guest does");
    *ret_running = info.state == VIR_DOMAIN_RUNNING;
    *ret_cpu_ns = info.cpuTime;
    return 1;
}

int virt_destroy(struct virt *v, const char *sandbox_id, struct err *e)
{
    autoconnect virConnectPtr conn = NULL;
    autodomain virDomainPtr dom = NULL;

    int r = find(v, sandbox_id, &conn, &dom, e);
    if (r <= 0)
        return r;
    if (virDomainDestroy(dom) == 0)
        return 0;
    /* It may have ended by itself meanwhile. */
    int code = virGetLastErrorCode();
    if (code == VIR_ERR_NO_DOMAIN || code == VIR_ERR_OPERATION_INVALID) {
        virResetLastError();
        return 0;
    }
    return fail(e, "cannot cut the guest's power");
}

int virt_forget(struct virt *v, const char *sandbox_id, struct err *e)
{
    size_t embed = strlen(EMBED_PREFIX);

    if (strncmp(v->uri, EMBED_PREFIX, embed) != 0)
        return 0;
    return virt_embed_forget(v->uri + embed, sandbox_id, e);
}

struct virt_ask {
    virConnectPtr conn;     /* ref; the thread's, as the next */
    virDomainPtr dom;       /* ref */
    pthread_mutex_t lock;   /* covers all below; a leaf */
    unsigned refs;          /* who asked, and the thread */
    int answer;             /* 0 none yet, 1 it goes on, -1 with why */
    struct err why;
};

static void ask_unref(struct virt_ask *a)
{
    pthread_mutex_lock(&a->lock);
    unsigned left = --a->refs;
    pthread_mutex_unlock(&a->lock);
    if (left)
        return;
    pthread_mutex_destroy(&a->lock);
    free(a);
}

static void *ask_thread(void *arg)
{
    struct virt_ask *a = arg;
    struct err e = ERR_INIT;

    pthread_setname_np(pthread_self(), "resume");
    int answer = virDomainResume(a->dom) < 0 ? fail(&e, "cannot resume the guest") : 1;
    virDomainFree(a->dom);
    virConnectClose(a->conn);
    pthread_mutex_lock(&a->lock);
    a->answer = answer;
    a->why = e;
    pthread_mutex_unlock(&a->lock);
    ask_unref(a);
    return NULL;
}

int virt_resume(struct virt *v, const char *sandbox_id, struct virt_ask **ret, struct err *e)
{
    autoconnect virConnectPtr conn = NULL;
    autodomain virDomainPtr dom = NULL;
    pthread_attr_t attr;
    pthread_t thread;

    int r = find(v, sandbox_id, &conn, &dom, e);
    if (r < 0)
        return -1;
    if (r == 0)
        return err_set(e, ERR_SANDBOX_STATE, "the sandbox is not running");
    struct virt_ask *a = calloc(1, sizeof(*a));
    if (!a)
        return err_nomem(e);
    *a = (struct virt_ask){ .conn = conn, .dom = dom, .refs = 2 };
    pthread_mutex_init(&a->lock, NULL);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    r = pthread_create(&thread, &attr, ask_thread, a);
    pthread_attr_destroy(&attr);
    if (r) {
        a->refs = 1;
        ask_unref(a);
        return err_sys(e, ERR_INTERNAL, r, "cannot start a thread");
    }
    conn = NULL;
    dom = NULL;
    *ret = a;
    return 0;
}

int virt_ask_answer(struct virt_ask *a, struct err *e)
{
    pthread_mutex_lock(&a->lock);
    int answer = a->answer;
    if (answer < 0)
        *e = a->why;
    pthread_mutex_unlock(&a->lock);
    return answer;
}

void virt_ask_free(struct virt_ask *a)
{
    if (a)
        ask_unref(a);
}

int virt_list(struct virt *v, char ***ret_ids, size_t *ret_n, struct err *e)
{
    autoconnect virConnectPtr conn = NULL;
    autostrv struct strv ids = STRV_INIT;
    virDomainPtr *doms = NULL;
    int r = 0;

    if (connection(v, &conn, e) < 0)
        return -1;
    int n = virConnectListAllDomains(conn, &doms, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
    if (n < 0)
        return fail(e, "cannot list the guests");
    for (int i = 0; i < n; i++) {
        const char *name = virDomainGetName(doms[i]);
        if (r == 0 && name && strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX)) == 0)
            r = strv_add(&ids, name + strlen(NAME_PREFIX), e);
        virDomainFree(doms[i]);
    }
    free(doms);
    if (r < 0)
        return -1;
    *ret_n = ids.n;
    *ret_ids = take_ptr(ids.items);
    ids.n = 0;
    return 0;
}

pid_t virt_pid(struct virt *v, const char *sandbox_id)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    struct err ignored = ERR_INIT;
    autofree char *text = NULL;
    size_t len = 0, embed = strlen(EMBED_PREFIX);
    uint32_t pid = 0;

    if (strncmp(v->uri, EMBED_PREFIX, embed) == 0)
        sbuf_fmt(&path, "%s/run/qemu/" NAME_PREFIX "%s.pid", v->uri + embed, sandbox_id);
    else
        sbuf_fmt(&path, SYSTEM_PIDS "/" NAME_PREFIX "%s.pid", sandbox_id);
    if (io_read_file_at(AT_FDCWD, sbuf_str(&path), 32, &text, &len, &ignored) < 0)
        return 0;
    text[strcspn(text, "\n")] = '\0';
    return parse_u32(text, 1, INT32_MAX, &pid) ? (pid_t)pid : 0;
}
