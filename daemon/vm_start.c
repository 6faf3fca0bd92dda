/* SPDX-License-Identifier: MIT
 *
 * vm_start: how a sandbox comes up: a list of steps with an undo each. A failure at any step runs
 * the undos of those before it, backwards, and the first error is the one reported.
 *
 *     image      name → kernel, initrd, base disk below the read-only view
 *     accel      what runs it: kvm or tcg, probed once with this kernel
 *     workspace  opened by a child with the owner's rights
 *     files      directories, logs, disk overlay
 *     network    link, its rules in force before it is up
 *     limits     control group, where they are configured
 *     share      virtiofsd on the workspace
 *     domain     QEMU, by libvirt
 *     guest      channel, hello, configuration, ready
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/sbuf.h"
#include "daemon/console.h"
#include "daemon/fault.h"
#include "daemon/vm_priv.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LAST_WORDS_MAX 120

/* A guest that wrote nothing to its console in this time has not begun: a kernel writes within two
 * seconds of power on, and within some ten times that without hardware virtualisation on a busy
 * host. Seen about once in two thousand starts under emulation; the next start of it works. */
#define SILENT_MS 30000

struct start {
    struct vm *vm;
    struct vms *v;
    int64_t deadline;
    int workspace_fd;               /* owned */
    struct image_paths image;       /* owned */
    struct accel_verdict accel;
    off_t console_from;             /* what the console holds of earlier starts ends here */
    bool silent, again;             /* the guest did not begin; this is the second try */
};

static bool cancelled(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    bool c = vm->cancel;
    pthread_mutex_unlock(&vm->lock);
    return c;
}

static int step_image(struct start *s, struct err *e)
{
    return image_resolve(s->v->store, s->v->view, s->vm->row.image_digest, &s->image, e);
}

static int step_accel(struct start *s, struct err *e)
{
    struct vms *v = s->v;
    int r = 0;

    pthread_mutex_lock(&v->probe_lock);     /* held over the probe: other starts want its verdict */
    if (!v->accel_final) {
        struct accel_verdict verdict = { 0 };
        const struct config *cf = v->config;
        enum accel_choice choice = strcmp(cf->accel, "kvm") == 0   ? ACCEL_FORCE_KVM
                                   : strcmp(cf->accel, "tcg") == 0 ? ACCEL_FORCE_TCG
                                                                   : ACCEL_AUTO;
        r = accel_probe(choice, cf->state_dir, s->image.kernel, s->image.initrd, &verdict,
                        &v->accel_final, e);
        pthread_mutex_lock(&v->accel_lock);
        if (r == 0)
            v->accel = verdict;
        pthread_mutex_unlock(&v->accel_lock);
    }
    s->accel = v->accel;
    /* QEMU has no groups but its own; under qemu:///system that one is taken by configuration. */
    gid_t kvm;
    if (r == 0 && v->accel.accel == ACCEL_KVM && v->qemu_gid == 0 && accel_kvm_group(&kvm) == 1)
        v->qemu_gid = kvm;
    pthread_mutex_unlock(&v->probe_lock);
    return r;
}

static int step_workspace(struct start *s, struct err *e)
{
    const struct vm_row *r = &s->vm->row;
    const char *const forbidden[] = { s->v->config->state_dir, s->v->config->runtime_dir, NULL };
    struct identity who;
    autofree char *path = NULL;

    if (!r->workspace || s->workspace_fd >= 0)
        return 0;
    if (vm_identity(r, &who, e) < 0)
        return -1;
    return workspace_open(&who, r->workspace, r->workspace_ro, forbidden, &s->workspace_fd, &path,
                          e);
}

static int step_files(struct start *s, struct err *e)
{
    if (vm_files_make(s->vm, e) < 0)
        return -1;
    return vm_files_disk(s->vm, s->image.root, e);
}

static void undo_files(struct start *s)
{
    struct err e = ERR_INIT;

    if (vm_files_drop_runtime(s->v, s->vm->id, &e) < 0)
        log_warn(LOG_CTX(.sandbox = s->vm->id, .error = &e),
                 "cannot remove the runtime directory, ignoring");
}

static int step_network(struct start *s, struct err *e)
{
    struct vm *vm = s->vm;
    struct link l = { 0 };

    if (egress_enabled(s->v->egress) &&
        egress_attach(s->v->egress, vm->id, vm->row.slot, vm_qemu_uid(vm), &l, e) < 0)
        return -1;
    pthread_mutex_lock(&vm->lock);
    vm->link = l;
    pthread_mutex_unlock(&vm->lock);
    return 0;
}

static void undo_network(struct start *s)
{
    struct err e = ERR_INIT;

    if (egress_detach(s->v->egress, s->vm->id, s->vm->row.slot, &e) < 0)
        log_warn(LOG_CTX(.sandbox = s->vm->id, .error = &e),
                 "the network of a failed start stays; the next one takes it away");
}

static int step_limits(struct start *s, struct err *e)
{
    return vm_cgroup_make(s->vm, e);
}

static void undo_limits(struct start *s)
{
    vm_cgroup_drop(s->v, s->vm->id);
}

static int open_share_log(struct vm *vm, struct err *e)
{
    autofree char *path = vm_path(vm->vms, vm->id, VMP_SHARE_LOG);

    if (!path)
        return err_nomem(e);
    /* Appending: it may be cut while virtiofsd writes. */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open the log of the file share");
    return fd;
}

static int step_share(struct start *s, struct err *e)
{
    struct vm *vm = s->vm;
    struct identity who;

    if (s->workspace_fd < 0)
        return 0;
    autofree char *socket = vm_path(s->v, vm->id, VMP_SHARE_SOCK);
    if (!socket)
        return err_nomem(e);
    autoclose int log_fd = open_share_log(vm, e), group_fd = -1;
    if (log_fd < 0 || vm_cgroup_fd(vm, &group_fd, e) < 0 || vm_identity(&vm->row, &who, e) < 0)
        return -1;
    struct share_spec spec = {
        .program = s->v->config->virtiofsd,
        .socket_path = socket,
        .qemu_uid = vm_qemu_uid(vm),
        .qemu_gid = vm_qemu_gid(vm),
        .dir_fd = s->workspace_fd,
        .read_only = vm->row.workspace_ro,
        .uid = who.uid,
        .gid = who.gid,
        .groups = who.groups,
        .n_groups = who.n_groups,
        .log_fd = log_fd,
        .cgroup_fd = group_fd,
    };
    struct share_proc proc = { 0 };
    if (share_start(&spec, &proc, e) < 0)
        return err_wrap(e, "cannot share the workspace");
    pthread_mutex_lock(&vm->lock);
    vm->share = proc;
    vm->row.share_pid = proc.pid;
    vm->row.share_start = proc.start_time;
    vm->share_gone_at = 0;
    pthread_mutex_unlock(&vm->lock);
    /* The row knows the process before QEMU does, so a crash here leaves none behind. */
    if (fault_at(FAULT_START_SHARE_ROW, e) < 0 || vm_store_row(vm, e) < 0 ||
        vm_watch_share(vm, e) < 0) {
        vm_close_guest(vm);
        return -1;
    }
    return 0;
}

static void undo_share(struct start *s)
{
    vm_close_guest(s->vm);
}

static void on_share_end(void *arg, uint32_t events)
{
    struct vm *vm = arg;

    evloop_set_events(vm->share_watch, 0);      /* a pidfd stays readable */
    worker_post(vm->vms->worker, vm_job_share_gone, vm->vms, vm->id, NULL);
}

int vm_watch_share(struct vm *vm, struct err *e)
{
    if (vm->share.pid == 0)
        return 0;
    int fd = share_pidfd(&vm->share);
    if (fd < 0)
        return err_set(e, ERR_INTERNAL, "the file share process has ended");
    struct evsource *watch = NULL;
    vm->share_pidfd = fd;
    if (evloop_add_fd(vm->vms->loop, fd, 0, on_share_end, vm, &watch, e) < 0)
        return -1;
    pthread_mutex_lock(&vm->lock);
    vm->share_watch = watch;
    pthread_mutex_unlock(&vm->lock);
    evloop_set_events(watch, 1 /* EPOLLIN */);
    return 0;
}

static int build_xml(struct start *s, char **ret, struct err *e)
{
    struct vm *vm = s->vm;
    bool serial = strcmp(s->v->config->console, "serial") == 0;
    autofree char *disk = vm_path(s->v, vm->id, VMP_DISK);
    autofree char *console = vm_path(s->v, vm->id, VMP_CONSOLE_PIPE);
    autofree char *channel = vm_path(s->v, vm->id, VMP_CHANNEL);
    autofree char *share = vm_path(s->v, vm->id, VMP_SHARE_SOCK);
    autofree char *cmdline = NULL;

    if (!disk || !console || !channel || !share)
        return err_nomem(e);
    enum machine machine = machine_of(vm->row.machine);
    if (domxml_cmdline(machine, s->accel.accel, s->v->tsc_khz, serial, &cmdline, e) < 0)
        return -1;
    struct domxml_spec spec = {
        .id = vm->id,
        .name = vm->row.name,
        .machine = machine,
        .accel = s->accel.accel,
        .cpus = vm->row.cpus,
        .memory = vm->row.memory,
        .kernel = s->image.kernel,
        .initrd = s->image.initrd,
        .cmdline = cmdline,
        .disk = disk,
        .base = s->image.root,
        .channel = channel,
        .console = console,
        .serial = serial,
        .share_socket = s->workspace_fd >= 0 ? share : NULL,
        .tap = vm->link.name[0] ? vm->link.name : NULL,
        .mac = vm->link.mac,
        .mtu = vm->link.mtu,
        .uid = vm_qemu_uid(vm),
        .gid = vm_qemu_gid(vm),
    };
    return domxml_build(&spec, ret, e);
}

/* 0 also when it cannot be told. */
static off_t console_size(struct vm *vm)
{
    autofree char *path = vm_path(vm->vms, vm->id, VMP_CONSOLE);
    struct stat sb;

    return path && lstat(path, &sb) == 0 ? sb.st_size : 0;
}

static void undo_domain(struct start *s)
{
    struct err e = ERR_INIT;

    if (virt_destroy(s->v->virt, s->vm->id, &e) < 0)
        log_err(LOG_CTX(.sandbox = s->vm->id, .error = &e),
                "cannot end the virtual machine of a failed start");
}

static int step_domain(struct start *s, struct err *e)
{
    autofree char *xml = NULL;

    if (build_xml(s, &xml, e) < 0)
        return -1;
    s->console_from = console_size(s->vm);
    pthread_mutex_lock(&s->vm->lock);
    s->vm->domain_gone = false;
    s->vm->paused = false;
    s->vm->gone_detail[0] = '\0';
    pthread_mutex_unlock(&s->vm->lock);
    if (vm_open_console(s->vm, e) < 0)      /* before the first word */
        return -1;
    if (virt_start(s->v->virt, xml, e) < 0) {
        vm_close_guest(s->vm);
        return err_wrap(e, "cannot start the virtual machine");
    }
    if (vm_cgroup_enter_qemu(s->vm, e) == 0)
        return 0;
    undo_domain(s);
    vm_close_guest(s->vm);
    return -1;
}

/* --- the guest --- */

int vm_open_console(struct vm *vm, struct err *e)
{
    autofree char *pipe = vm_path(vm->vms, vm->id, VMP_CONSOLE_PIPE);
    autofree char *log = vm_path(vm->vms, vm->id, VMP_CONSOLE);
    struct console *c = NULL;

    if (!pipe || !log)
        return err_nomem(e);
    if (console_open(vm->vms->loop, pipe, log, &c, e) < 0)
        return -1;
    pthread_mutex_lock(&vm->lock);
    vm->console = c;
    pthread_mutex_unlock(&vm->lock);
    return 0;
}

static void on_guest_log(void *arg, int level, const char *text, size_t len)
{
    vm_log_line(arg, text, len);
}

int vm_open_guest(struct vm *vm, struct err *e)
{
    struct vms *v = vm->vms;
    struct exec_deps deps = { .store = v->store, .worker = v->worker, .loop = v->loop,
                              .quota = v->quota, .events = v->events };
    struct exec_hooks hooks = { .log = on_guest_log, .arg = vm };
    struct guest_config config = {
        .hostname = vm->row.name,
        .workspace = !vm->row.workspace ? 0 : vm->row.workspace_ro ? 2 : 1,
        .realtime_ns = (uint64_t)now_real_us() * 1000,
        .env = (const char *const *)vm->row.env.items,
    };
    struct guest_net net = {
        .address = vm->link.address,
        .gateway = vm->link.gateway,
        .resolver = vm->link.gateway,
        .mtu = vm->link.mtu,
    };
    static const char *const no_env[] = { NULL };
    autofree char *rings = vm_path(v, vm->id, VMP_RINGS);
    autofree char *channel = vm_path(v, vm->id, VMP_CHANNEL);
    struct exec_table *execs = NULL;
    struct agent *agent = NULL;

    if (vm_identity(&vm->row, &deps.owner, e) < 0)
        return -1;
    memcpy(net.mac, vm->link.mac, sizeof(net.mac));
    memcpy(net.gateway_mac, link_gateway_mac, sizeof(net.gateway_mac));
    if (vm->link.name[0])
        config.net = &net;
    if (!config.env)
        config.env = no_env;
    if (!rings || !channel)
        return err_nomem(e);
    autoclose int dir = open(rings, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", rings);
    if (exec_table_new(&deps, vm->id, dir, &hooks, &execs, e) < 0)
        return -1;
    if (agent_open(v->loop, vm->id, channel, &config, &exec_agent_ops, execs, &agent, e) < 0) {
        exec_table_unref(execs);
        return -1;
    }
    exec_table_set_agent(execs, agent);
    pthread_mutex_lock(&vm->lock);
    vm->agent = agent;
    vm->execs = execs;
    pthread_mutex_unlock(&vm->lock);
    return 0;
}

/* The last words of this start on the guest's console, for people; the log itself goes with a
 * failed create. */
static void last_words(const struct start *s, struct sbuf *out)
{
    autofree char *path = vm_path(s->v, s->vm->id, VMP_CONSOLE);
    autoclose int fd = path ? open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
    char tail[1024];
    struct stat sb;

    if (fd < 0 || fstat(fd, &sb) < 0)
        return;
    off_t from = sb.st_size < s->console_from ? 0 : s->console_from;    /* cut meanwhile */
    if (sb.st_size - from > (off_t)sizeof(tail))
        from = sb.st_size - (off_t)sizeof(tail);
    ssize_t n = pread(fd, tail, sizeof(tail), from);
    while (n > 0 && strchr("\r\n\t ", tail[n - 1]))
        n--;
    if (n <= 0)
        return;
    const char *line = memrchr(tail, '\n', (size_t)n);
    line = line ? line + 1 : tail;
    size_t len = (size_t)(tail + n - line);
    sbuf_text(out, line, len < LAST_WORDS_MAX ? len : LAST_WORDS_MAX);
}

static int why_no_guest(struct start *s, struct err *e)
{
    struct vm *vm = s->vm;
    autosbuf struct sbuf words = SBUF(1024);

    if (cancelled(vm))
        return err_set(e, ERR_SANDBOX_BUSY, "sandbox '%s' was removed while it started",
                       vm->row.name);
    last_words(s, &words);
    log_warn(LOG_CTX(.sandbox = vm->id, .error = e), "no guest (%s); its console %s%s",
             s->accel.reason, words.len ? "ends with: " : "is empty", sbuf_str(&words));
    err_wrap(e, "the guest did not come up");
    return words.len ? err_hint(e, "its console ends with: %s", sbuf_str(&words))
                     : err_hint(e, "its console is empty; `sbx info` says what runs guests here");
}

/* Whether nothing at all was heard of this start. The log says how the host sees the guest: that is
 * all there is to find out why. */
static bool is_silent(struct start *s)
{
    bool running = false;
    uint64_t cpu_ns = 0;
    struct err e = ERR_INIT;

    if (cancelled(s->vm) || console_size(s->vm) != s->console_from ||
        virt_effort(s->v->virt, s->vm->id, &running, &cpu_ns, &e) != 1)
        return false;
    log_warn(LOG_CTX(.sandbox = s->vm->id),
             "the guest has said nothing since its power is on (%s, %llu ms of processor time); "
             "it is started once more",
             running ? "it runs" : "it does not run", (unsigned long long)(cpu_ns / 1000000));
    return true;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int step_guest(struct start *s, struct err *e)
{
    int64_t deadline = deadline_in(s->v->config->start_timeout_ms);
    uint32_t third = s->v->config->start_timeout_ms / 3;
    int64_t silent = deadline_in(third < SILENT_MS ? third : SILENT_MS);
    struct err early = ERR_INIT;

    if (vm_open_guest(s->vm, e) < 0)
        return -1;
    fault_here(FAULT_START_BOOT);
    deadline = earlier(deadline, s->deadline);
    if (agent_wait_ready(s->vm->agent, earlier(silent, deadline), &early) == 0)
        return 0;
    s->silent = early.code == ERR_TIMEOUT && !s->again && is_silent(s);
    if (!s->silent && agent_wait_ready(s->vm->agent, deadline, e) == 0)
        return 0;
    if (s->silent)
        *e = early;
    else
        why_no_guest(s, e);
    vm_close_guest(s->vm);
    return -1;
}

enum {
    STEP_IMAGE,
    STEP_ACCEL,
    STEP_WORKSPACE,
    STEP_FILES,
    STEP_NETWORK,
    STEP_LIMITS,
    STEP_SHARE,     /* a guest that said nothing is started again from here: it ends with QEMU */
    STEP_DOMAIN,
    STEP_GUEST,
    STEP_MAX,
};

static const struct step {
    const char *name;
    int (*run)(struct start *s, struct err *e);
    void (*undo)(struct start *s);
    enum fault_point before, before_undo;
} steps[] = {
    [STEP_IMAGE] = { "image", step_image, NULL, FAULT_START_IMAGE, FAULT_MAX },
    [STEP_ACCEL] = { "accel", step_accel, NULL, FAULT_START_ACCEL, FAULT_MAX },
    [STEP_WORKSPACE] = { "workspace", step_workspace, NULL, FAULT_START_WORKSPACE, FAULT_MAX },
    [STEP_FILES] = { "files", step_files, undo_files, FAULT_START_FILES, FAULT_UNDO_FILES },
    [STEP_NETWORK] = { "network", step_network, undo_network, FAULT_START_NETWORK,
                       FAULT_UNDO_NETWORK },
    [STEP_LIMITS] = { "limits", step_limits, undo_limits, FAULT_START_LIMITS,
                      FAULT_UNDO_LIMITS },
    [STEP_SHARE] = { "share", step_share, undo_share, FAULT_START_SHARE, FAULT_UNDO_SHARE },
    [STEP_DOMAIN] = { "domain", step_domain, undo_domain, FAULT_START_DOMAIN, FAULT_UNDO_DOMAIN },
    [STEP_GUEST] = { "guest", step_guest, NULL, FAULT_START_GUEST, FAULT_MAX },
};
static_assert(ARRAY_SIZE(steps) == STEP_MAX, "a name for each step");

/* Runs all from the first on; those that were done are undone, backwards, when one fails. */
static int run_steps(struct start *s, size_t first, struct err *e)
{
    size_t i;
    int r = 0;

    for (i = first; i < ARRAY_SIZE(steps); i++) {
        int64_t began = now_mono_ms();
        if (cancelled(s->vm))
            r = why_no_guest(s, e);
        else
            r = fault_at(steps[i].before, e) < 0 ? -1 : steps[i].run(s, e);
        if (r < 0)
            break;
        log_debug(LOG_CTX(.sandbox = s->vm->id), "step %s took %lld ms", steps[i].name,
                  (long long)(now_mono_ms() - began));
    }
    if (r == 0)
        return 0;
    size_t stay = s->silent && !s->again ? STEP_SHARE : 0;
    while (i-- > stay) {
        if (!steps[i].undo)
            continue;
        fault_here(steps[i].before_undo);
        steps[i].undo(s);
    }
    return r;
}

static int start_steps(struct start *s, struct err *e)
{
    struct err first = ERR_INIT;

    if (run_steps(s, STEP_IMAGE, &first) == 0)
        return 0;
    if (s->silent) {
        s->again = true;
        return run_steps(s, STEP_SHARE, e);
    }
    *e = first;
    return -1;
}

int vm_start_steps(struct vm *vm, int workspace_fd, struct err *e)
{
    struct start s = { .vm = vm, .v = vm->vms, .workspace_fd = -1,
                       .deadline = deadline_in(DEADLINE_CREATE) };

    if (workspace_fd >= 0) {
        s.workspace_fd = fcntl(workspace_fd, F_DUPFD_CLOEXEC, 3);
        if (s.workspace_fd < 0)
            return err_sys(e, ERR_INTERNAL, errno, "cannot keep the workspace open");
    }
    int r = start_steps(&s, e);
    fd_close(s.workspace_fd);
    image_paths_done(&s.image);
    if (r < 0) {
        if (vm->row.started_at)
            vm_log_line(vm, e->msg, strlen(e->msg));
        return err_wrap(e, "sandbox '%s'", vm->row.name);
    }
    char *accel = strdup(accel_name(s.accel.accel));
    pthread_mutex_lock(&vm->lock);
    free(vm->row.accel);
    vm->row.accel = accel;
    free(vm->row.reason);
    vm->row.reason = NULL;
    vm->row.started_at = now_real_us();
    vm->row.state = VM_RUNNING;
    pthread_mutex_unlock(&vm->lock);
    vm_life_started(vm);
    static const char started[] = "sandbox is running";
    vm_log_line(vm, started, sizeof(started) - 1);
    if (fault_at(FAULT_START_ROW, e) == 0 && vm_store_row(vm, e) == 0) {
        fault_here(FAULT_START_ANSWER);
        return 0;
    }
    struct err ignored = ERR_INIT;
    vm_stop_guest(vm, 0, &ignored);
    pthread_mutex_lock(&vm->lock);
    vm->row.state = VM_STOPPED;
    pthread_mutex_unlock(&vm->lock);
    return -1;
}
