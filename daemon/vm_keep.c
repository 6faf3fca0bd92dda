/* SPDX-License-Identifier: MIT
 *
 * vm_keep: the time limits of sandboxes, and their restarts. lifetime.c decides; here is what it
 * is told, and what follows.
 *
 * Every two seconds the worker looks at all that run (vm_keep_sweep). At work is a sandbox with a
 * command that runs in it, with an open flow, with a QEMU that takes CPU time, or one that waits
 * for room on the host's disk. A look that fails counts neither way: who cannot be seen is not
 * stopped. conntrack is read for all sandboxes at once, every FLOWS_MS and before one is stopped.
 *
 * Here is also who ends what is broken (vm_broken()).
 *
 * A stop takes up to ten seconds, more if QEMU does not want to end, and a start up to minutes, and
 * the news that a start waits for come through the worker. So each has a thread of its own, few at
 * a time and fewer for one user, and no stop waits for starts (life_has_place()); what finds no
 * place is found again by the next look. Threads are not joined but counted.
 *
 * An idle sandbox is stopped only if nobody comes meanwhile: first its state says "stopping", so
 * that no new command is taken (vm_execs()), and then it is seen again whether one came before
 * (vm_touch()).
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/parse.h"
#include "daemon/audit.h"
#include "daemon/flows.h"
#include "daemon/vm_priv.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEEP_THREADS (LIFE_STOPS_MAX + LIFE_STARTS_MAX)
#define FLOWS_MS 10000
#define SOON_MS 5000            /* the next look may stop it */
#define IDLE_STORED_MS 30000    /* the row may be wrong by so much */
#define REASON_MAX 200
#define JOB_WAIT_MS 30000

struct keeper {
    char boot_id[37];           /* constant */

    pthread_mutex_t lock;       /* guards all up to the line; taken with nothing else held */
    pthread_cond_t changed;
    bool on;
    bool looks;                 /* the worker does */
    unsigned n;                 /* threads that live */
    struct task *tasks[KEEP_THREADS];   /* NULL: free */

    /* the worker's */
    int64_t flows_at;           /* CLOCK_BOOTTIME, ms; 0: never read */
    bool flows_known;
    uint64_t flows[LIMIT_SANDBOXES / 64 + 1];   /* by slot: has one that is open */
};

enum work {
    WORK_START,                 /* by its policy */
    WORK_STOP_TTL,
    WORK_STOP_IDLE,
    WORK_END_BROKEN,            /* vm_broken() */
};

struct task {
    struct vms *v;
    struct vm *vm;              /* ref */
    enum work work;
};

static int64_t clock_ms(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static struct life_clock clock_now(const struct vms *v)
{
    return (struct life_clock){ .boot_id = v->keeper->boot_id, .boot = clock_ms(CLOCK_BOOTTIME),
                                .awake = clock_ms(CLOCK_MONOTONIC), .real = now_real_us() };
}

/* --- what the row says --- */

void vm_limits_of(const struct config *cf, const struct api_create_req *req,
                  struct vm_limits *ret)
{
    ret->ttl_ms = req->ttl_ms == JSON_UNSET ? cf->default_ttl_s * 1000 : req->ttl_ms;
    ret->idle_ms = req->idle_timeout_ms == JSON_UNSET ? cf->default_idle_timeout_s * 1000
                                                      : req->idle_timeout_ms;
    /* both were checked where they came from */
    (void)restart_parse(req->restart ? req->restart : cf->default_restart, &ret->restart);
}

void vm_life_started(struct vm *vm)
{
    struct life_clock now = clock_now(vm->vms);

    pthread_mutex_lock(&vm->lock);
    life_begin(&vm->life, &vm->row, vm->by_policy, &now);
    vm->row.retry = false;
    vm->starts_at = 0;
    pthread_mutex_unlock(&vm->lock);
}

void vm_life_adopted(struct vm *vm)
{
    struct life_clock now = clock_now(vm->vms);

    pthread_mutex_lock(&vm->lock);
    life_resume(&vm->life, &vm->row, &now);
    pthread_mutex_unlock(&vm->lock);
}

static void wait_for_start_locked(struct vm *vm, const struct life_clock *now)
{
    vm->starts_at = now->boot + life_backoff(vm->quick++);
}

void vm_life_ended(struct vm *vm, enum life_end how)
{
    struct life_clock now = clock_now(vm->vms);

    pthread_mutex_lock(&vm->lock);
    if (vm->life.began_at && now.awake - vm->life.began_at >= LIFE_STEADY_MS)
        vm->quick = 0;
    vm->row.retry = life_restarts(&vm->row, how, &now);
    if (vm->row.retry)
        wait_for_start_locked(vm, &now);
    pthread_mutex_unlock(&vm->lock);
}

void vm_life_by_hand(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->row.retry = false;
    vm->row.restarts = 0;
    vm->starts_at = 0;
    vm->quick = 0;
    pthread_mutex_unlock(&vm->lock);
}

void vm_touch(struct vm *vm)
{
    struct life_clock now = clock_now(vm->vms);

    pthread_mutex_lock(&vm->lock);
    life_touch(&vm->life, &now);
    pthread_mutex_unlock(&vm->lock);
}

int vm_life_describe_locked(const struct vm *vm, struct api_sandbox *ret, struct err *e)
{
    struct life_clock now = clock_now(vm->vms);
    char text[RESTART_TEXT];

    ret->ttl_ms = vm->row.limits.ttl_ms;
    ret->idle_timeout_ms = vm->row.limits.idle_ms;
    ret->restarts = vm->row.restarts;
    ret->restart = strdup(restart_format(&vm->row.limits.restart, text));
    if (!ret->restart)
        return err_nomem(e);
    if (vm->row.state == VM_RUNNING)
        ret->stops_at = life_stops_at(&vm->life, &vm->row.limits, &now, &ret->idle_since);
    else if (vm->row.state == VM_STOPPED && vm->row.retry)
        ret->starts_at = now.real +
                         (vm->starts_at > now.boot ? vm->starts_at - now.boot : 0) * 1000;
    return 0;
}

/* What the request makes of a row. */
static void change_row(struct vm_row *r, struct life *l, const struct api_update_req *req,
                       const struct life_clock *now)
{
    if (req->idle_timeout_ms != JSON_UNSET)
        r->limits.idle_ms = req->idle_timeout_ms;
    if (req->restart)           /* was checked where it came from */
        (void)restart_parse(req->restart, &r->limits.restart);
    if (req->ttl_ms != JSON_UNSET) {
        r->limits.ttl_ms = req->ttl_ms;
        life_change(l, r, now);
    }
    if (r->limits.restart.policy == RESTART_NO)
        r->retry = false;
    life_touch(l, now);
}

int vm_update(struct vm *vm, const struct api_update_req *req, struct err *e)
{
    if (vm_job_begin(vm, deadline_in(JOB_WAIT_MS), e) < 0)
        return -1;
    struct life_clock now = clock_now(vm->vms);
    /* What is refused is not in force: a copy is stored first. Its strings are the row's. */
    struct life ignored = { 0 };
    pthread_mutex_lock(&vm->lock);
    struct vm_row next = vm->row;
    pthread_mutex_unlock(&vm->lock);
    change_row(&next, &ignored, req, &now);
    int rc = store_vm_set_limits(vm->vms->store, &next, e);
    if (rc == 0) {
        pthread_mutex_lock(&vm->lock);
        change_row(&vm->row, &vm->life, req, &now);
        pthread_mutex_unlock(&vm->lock);
    }
    vm_job_end(vm);
    return rc;
}

/* --- stopping and starting: a thread of its own --- */

static bool keeps_on(struct keeper *k)
{
    pthread_mutex_lock(&k->lock);
    bool on = k->on;
    pthread_mutex_unlock(&k->lock);
    return on;
}

/* What the daemon does by itself is in the audit log as well; nobody waits for that record. */
static void record(struct vm *vm, const char *action, const char *target, int r,
                   const struct err *why)
{
    static struct log_rate rate;
    struct err e = ERR_INIT;
    struct api_audit_record rec = {
        .kind = (char *)"end",
        .action = (char *)action,
        .sandbox = vm->id,
        .name = vm->row.name,
        .target = (char *)target,
        .result = { .present = true, .status = r < 0 ? (uint32_t)err_http(why->code) : 200,
                    .code = r < 0 ? (char *)err_wire(why->code) : NULL },
    };

    if (vm->vms->audit && audit_write(vm->vms->audit, &rec, false, &e) < 0 &&
        log_rate_ok(&rate, 1, 60000))
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e),
                "the audit log misses what the daemon did by itself, ignoring");
}

static bool somebody_came(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    struct exec_table *t = vm->execs ? exec_table_ref(vm->execs) : NULL;
    bool came = vm->life.idle < (int64_t)vm->row.limits.idle_ms || vm->row.limits.idle_ms == 0;
    pthread_mutex_unlock(&vm->lock);
    came |= t && exec_table_running(t) > 0;
    exec_table_unref(t);
    return came;
}

static bool ttl_is_over(struct vm *vm)
{
    struct life_clock now = clock_now(vm->vms);

    pthread_mutex_lock(&vm->lock);
    bool over = vm->life.stop_at && vm->life.stop_at <= now.boot;
    pthread_mutex_unlock(&vm->lock);
    return over;
}

static void defer_stop(struct vm *vm)
{
    struct life_clock now = clock_now(vm->vms);

    pthread_mutex_lock(&vm->lock);
    life_defer(&vm->life, &now);
    pthread_mutex_unlock(&vm->lock);
}

static void stop_now(struct vm *vm, enum work why)
{
    bool idle = why == WORK_STOP_IDLE;
    char reason[REASON_MAX], text[REASON_MAX + 64], limit[32];
    struct err e = ERR_INIT;

    vm_set_memory_state(vm, VM_STOPPING);
    if (idle ? somebody_came(vm) : !ttl_is_over(vm)) {
        vm_set_memory_state(vm, VM_RUNNING);
        return;
    }
    format_duration(idle ? vm->row.limits.idle_ms : vm->row.limits.ttl_ms, limit);
    snprintf(reason, sizeof(reason), idle ? "idle for %s" : "its time of %s was up", limit);
    snprintf(text, sizeof(text), "sandbox is being stopped: %s", reason);
    vm_log_line(vm, text, strlen(text));
    int r = vm_stop_job(vm, DEADLINE_STOP, reason, &e);
    record(vm, "sandbox.stop", idle ? "idle-timeout" : "ttl", r, &e);
    if (r == 0)
        return;
    log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "a time limit cannot stop sandbox '%s'",
            vm->row.name);
    defer_stop(vm);
}

static void end_broken(struct vm *vm)
{
    const struct vm_broken *b = vm_broken(vm);
    struct err e = ERR_INIT;

    if (!b)
        return;
    int r = vm_end_broken(vm, b, &e);
    record(vm, "sandbox.stop", b->word, r, &e);
    if (r == 0)
        return;
    log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "a broken sandbox stays for now");
    defer_stop(vm);
}

/* A start by policy that failed: its next one, or the last word. */
static void start_failed(struct vm *vm, const struct err *why)
{
    struct life_clock now = clock_now(vm->vms);
    char reason[REASON_MAX];
    struct err e = ERR_INIT;

    snprintf(reason, sizeof(reason), "cannot start again: %.*s", REASON_MAX - 32, why->msg);
    pthread_mutex_lock(&vm->lock);
    vm->row.retry = life_restarts(&vm->row, LIFE_FAILED, &now);
    if (vm->row.retry)
        wait_for_start_locked(vm, &now);
    bool again = vm->row.retry;
    pthread_mutex_unlock(&vm->lock);
    if (vm_set_state(vm, VM_STOPPED, reason, &e) < 0 || vm_store_row(vm, &e) < 0)
        log_err(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot note that a restart failed");
    log_warn(LOG_CTX(.sandbox = vm->id, .uid = &vm->row.uid, .error = why),
             "sandbox '%s' cannot start again, %s", vm->row.name,
             again ? "it will be tried later" : "giving up");
}

static void start_now(struct vm *vm)
{
    struct err e = ERR_INIT;
    char text[64];

    pthread_mutex_lock(&vm->lock);
    vm->by_policy = true;
    vm->row.restarts++;
    snprintf(text, sizeof(text), "sandbox starts again by its policy, restart %u",
             vm->row.restarts);
    pthread_mutex_unlock(&vm->lock);
    /* once more: whoever leaves after this sees by_policy, and has it give up */
    bool leaves = !keeps_on(vm->vms->keeper);
    if (!leaves)
        vm_log_line(vm, text, strlen(text));
    int r = leaves ? -1 : vm_start_job(vm, -1, &e);
    pthread_mutex_lock(&vm->lock);
    vm->by_policy = false;
    bool given_up = r < 0 && (leaves || vm->cancel);
    if (given_up)
        vm->row.restarts--;
    pthread_mutex_unlock(&vm->lock);
    if (given_up)               /* it is to be stopped or removed, or the daemon leaves */
        return;
    record(vm, "sandbox.start", "restart", r, &e);
    if (r < 0)
        start_failed(vm, &e);
}

/* With the job, so what was seen may have changed. */
static void act(struct task *t)
{
    struct vm *vm = t->vm;
    struct err e = ERR_INIT;

    if (vm_job_begin(vm, now_mono_ms(), &e) < 0)
        return;
    if (keeps_on(t->v->keeper)) {
        if (t->work == WORK_START && vm->row.state == VM_STOPPED && vm->row.retry)
            start_now(vm);
        else if (t->work == WORK_END_BROKEN && vm->row.state == VM_RUNNING)
            end_broken(vm);
        else if (t->work != WORK_START && vm->row.state == VM_RUNNING)
            stop_now(vm, t->work);
    }
    vm_job_end(vm);
}

static void *task_thread(void *arg)
{
    struct task *t = arg;
    struct keeper *k = t->v->keeper;

    pthread_setname_np(pthread_self(), "keeper");
    act(t);
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < KEEP_THREADS; i++) {
        if (k->tasks[i] == t)
            k->tasks[i] = NULL;
    }
    pthread_mutex_unlock(&k->lock);
    pthread_mutex_lock(&t->vm->lock);
    t->vm->kept = false;
    pthread_mutex_unlock(&t->vm->lock);
    vm_unref(t->vm);
    pthread_mutex_lock(&k->lock);
    k->n--;             /* last: whoever waits for it frees all there is */
    pthread_cond_broadcast(&k->changed);
    pthread_mutex_unlock(&k->lock);
    free(t);
    return NULL;
}

/* A place among the tasks; NULL: none for this one now. */
static struct task **free_place_locked(struct keeper *k, const struct task *t)
{
    struct task **place = NULL;
    unsigned under_way = 0, of_user = 0;
    bool start = t->work == WORK_START;

    for (size_t i = 0; i < KEEP_THREADS; i++) {
        if (!k->tasks[i]) {
            place = &k->tasks[i];
        } else if ((k->tasks[i]->work == WORK_START) == start) {
            under_way++;
            of_user += k->tasks[i]->vm->row.uid == t->vm->row.uid;
        }
    }
    return life_has_place(start, under_way, of_user) ? place : NULL;
}

static void send_thread(struct vms *v, struct vm *vm, enum work work)
{
    struct keeper *k = v->keeper;
    struct task *t = calloc(1, sizeof(*t));
    pthread_attr_t attr;
    pthread_t thread;

    if (!t)
        return;
    *t = (struct task){ .v = v, .vm = vm_ref(vm), .work = work };
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_mutex_lock(&k->lock);
    struct task **place = k->on ? free_place_locked(k, t) : NULL;
    bool sent = false;
    if (place) {
        pthread_mutex_lock(&vm->lock);
        vm->kept = true;
        pthread_mutex_unlock(&vm->lock);
        *place = t;             /* first: it may be gone before pthread_create() returns */
        k->n++;
        sent = pthread_create(&thread, &attr, task_thread, t) == 0;
        if (!sent) {
            *place = NULL;
            k->n--;
            pthread_mutex_lock(&vm->lock);
            vm->kept = false;
            pthread_mutex_unlock(&vm->lock);
        }
    }
    pthread_mutex_unlock(&k->lock);
    pthread_attr_destroy(&attr);
    if (!sent) {
        vm_unref(vm);
        free(t);
    }
}

void vm_keep_end(struct vm *vm)
{
    struct life_clock now = clock_now(vm->vms);

    pthread_mutex_lock(&vm->lock);
    bool later = vm->kept || now.boot < vm->life.not_before;
    pthread_mutex_unlock(&vm->lock);
    if (!later)
        send_thread(vm->vms, vm, WORK_END_BROKEN);
}

/* --- looking: the worker --- */

struct flow_look {
    struct keeper *k;
    uint32_t gateway;
};

/* Guests have the addresses behind the gateway's, by slot (link.h). */
static void mark_flow(void *arg, const struct flow *f)
{
    struct flow_look *l = arg;
    const uint32_t ends[] = { f->source, f->destination };

    if (f->destination == l->gateway)       /* names it asks for: no work of its own */
        return;
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        uint32_t slot = ends[i] - l->gateway;
        if (slot >= 1 && slot <= LIMIT_SANDBOXES)
            l->k->flows[slot / 64] |= 1ULL << slot % 64;
    }
}

static void read_flows(struct keeper *k, uint32_t gateway, const struct life_clock *now)
{
    static struct log_rate rate;
    struct flow_look l = { .k = k, .gateway = gateway };
    struct err e = ERR_INIT;

    memset(k->flows, 0, sizeof(k->flows));
    k->flows_known = flows_open(mark_flow, &l, &e) == 0;
    k->flows_at = now->boot;
    if (!k->flows_known && log_rate_ok(&rate, 1, 60000))
        log_warn(LOG_CTX(.error = &e), "sandboxes without open connections cannot be told from "
                                       "others, ignoring idle timeouts");
}

struct seen {
    enum life_seen seen;
    bool counts;                /* it runs and has an idle timeout */
    bool due;                   /* its policy starts it now */
    bool soon;                  /* the next look may stop it */
    uint32_t gateway;           /* 0: it has no network */
};

/* Without its flows. */
static void look_at(struct vms *v, struct vm *vm, const struct life_clock *now, struct seen *ret)
{
    struct err e = ERR_INIT;
    uint64_t cpu = 0;

    pthread_mutex_lock(&vm->lock);
    const struct vm_row *r = &vm->row;
    bool runs = r->state == VM_RUNNING;
    bool waits = vm->stalled;
    struct exec_table *t = vm->execs ? exec_table_ref(vm->execs) : NULL;
    *ret = (struct seen){
        .seen = LIFE_UNSURE,
        /* libvirt has whoever asks about one that is being ended wait for that */
        .counts = runs && r->limits.idle_ms && !vm->job && !vm->kept,
        .due = r->state == VM_STOPPED && r->retry && vm->starts_at <= now->boot,
        .soon = vm->life.idle + SOON_MS >= (int64_t)r->limits.idle_ms,
        .gateway = vm->link.name[0] ? vm->link.gateway : 0,
    };
    pthread_mutex_unlock(&vm->lock);
    bool works = waits || (t && exec_table_running(t) > 0);
    exec_table_unref(t);
    if (!ret->counts)
        return;
    bool running, known = virt_effort(v->virt, vm->id, &running, &cpu, &e) == 1;
    pthread_mutex_lock(&vm->lock);
    if (known)
        ret->seen = life_cpu(&vm->life, cpu, v->config->idle_cpu_percent, now);
    pthread_mutex_unlock(&vm->lock);
    if (works)
        ret->seen = LIFE_AT_WORK;
}

static void add_flows(const struct keeper *k, const struct vm *vm, struct seen *s)
{
    if (s->seen != LIFE_IDLE || !s->gateway)
        return;
    uint32_t slot = vm->row.slot;
    if (!k->flows_known)
        s->seen = LIFE_UNSURE;
    else if (k->flows[slot / 64] >> slot % 64 & 1)
        s->seen = LIFE_AT_WORK;
}

static void store_idle(struct vm *vm, bool exactly)
{
    struct err e = ERR_INIT;

    pthread_mutex_lock(&vm->lock);
    bool counts = vm->row.state == VM_RUNNING && vm->row.limits.idle_ms;
    uint64_t idle = counts ? (uint64_t)vm->life.idle : 0, stored = vm->idle_stored;
    uint64_t off = idle > stored ? idle - stored : stored - idle;
    bool store = off >= IDLE_STORED_MS || (off && (exactly || idle == 0));
    if (store)
        vm->idle_stored = idle;
    pthread_mutex_unlock(&vm->lock);
    if (store && store_vm_set_idle(vm->vms->store, vm->id, idle, &e) < 0)
        log_warn(LOG_CTX(.sandbox = vm->id, .error = &e), "cannot note an idle time, ignoring");
}

static void warn_of_stop(struct vm *vm, const struct life_clock *now)
{
    char text[REASON_MAX], words[32];

    pthread_mutex_lock(&vm->lock);
    int64_t idle_left = vm->row.limits.idle_ms ? (int64_t)vm->row.limits.idle_ms - vm->life.idle
                                               : INT64_MAX;
    int64_t left = vm->life.stop_at ? vm->life.stop_at - now->boot : INT64_MAX;
    bool idle = idle_left < left;
    pthread_mutex_unlock(&vm->lock);
    left = idle ? idle_left : left;
    format_duration(left > 0 ? (uint64_t)left : 0, words);
    snprintf(text, sizeof(text), "sandbox will be stopped in %s by its %s", words,
             idle ? "idle timeout" : "ttl");
    vm_log_line(vm, text, strlen(text));
}

static void judge(struct vms *v, struct vm *vm, const struct seen *s, const struct life_clock *now)
{
    enum life_verdict verdict = LIFE_GO_ON;

    pthread_mutex_lock(&vm->lock);
    bool kept = vm->kept;
    if (vm->row.state == VM_RUNNING && !vm->job)
        verdict = life_look(&vm->life, &vm->row.limits, s->seen, now);
    pthread_mutex_unlock(&vm->lock);
    if (kept)
        return;
    if (verdict == LIFE_WARN)
        warn_of_stop(vm, now);
    else if (verdict != LIFE_GO_ON)
        send_thread(v, vm, verdict == LIFE_STOP_TTL ? WORK_STOP_TTL : WORK_STOP_IDLE);
    else if (s->due)
        send_thread(v, vm, WORK_START);
    store_idle(vm, false);
}

void vm_keep_sweep(struct vms *v)
{
    struct keeper *k = v->keeper;
    size_t n;

    pthread_mutex_lock(&k->lock);
    k->looks = k->on;
    pthread_mutex_unlock(&k->lock);
    if (!k->looks)
        return;
    struct vm **list = vms_snapshot(v, &n);
    struct seen *seen = calloc(n + 1, sizeof(*seen));
    struct life_clock now = clock_now(v);
    uint32_t gateway = 0;
    bool soon = false;
    for (size_t i = 0; seen && i < n; i++) {
        look_at(v, list[i], &now, &seen[i]);
        if (seen[i].seen == LIFE_IDLE && seen[i].gateway) {
            gateway = seen[i].gateway;
            soon |= seen[i].soon;
        }
    }
    if (gateway && (soon || !k->flows_at || now.boot - k->flows_at >= FLOWS_MS))
        read_flows(k, gateway, &now);
    for (size_t i = 0; seen && i < n; i++) {
        add_flows(k, list[i], &seen[i]);
        judge(v, list[i], &seen[i], &now);
    }
    free(seen);
    vms_snapshot_done(list, n);
    pthread_mutex_lock(&k->lock);
    k->looks = false;
    pthread_cond_broadcast(&k->changed);
    pthread_mutex_unlock(&k->lock);
}

/* --- its life --- */

int vm_keep_new(struct keeper **ret, struct err *e)
{
    autofree struct keeper *k = calloc(1, sizeof(*k));
    autofree char *id = NULL;
    size_t len = 0;

    if (!k)
        return err_nomem(e);
    if (io_read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &id, &len, e) < 0)
        return -1;
    snprintf(k->boot_id, sizeof(k->boot_id), "%s", id);
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->changed, NULL);
    *ret = take_ptr(k);
    return 0;
}

void vm_keep_free(struct keeper *k)
{
    if (!k)
        return;
    pthread_cond_destroy(&k->changed);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

void vms_keep(struct vms *v)
{
    pthread_mutex_lock(&v->keeper->lock);
    v->keeper->on = true;
    pthread_mutex_unlock(&v->keeper->lock);
}

void vm_keep_release(struct vms *v)
{
    struct keeper *k = v->keeper;

    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    bool was_on = k->on;
    k->on = false;
    pthread_mutex_unlock(&k->lock);
    if (!was_on)
        return;
    for (size_t i = 0; i < v->n; i++)
        vm_give_up(v->list[i]);
    /* bounded by what they do: a stop's ten seconds, a start that heard it, libvirt's own limits */
    pthread_mutex_lock(&k->lock);
    while (k->n || k->looks)
        pthread_cond_wait(&k->changed, &k->lock);
    pthread_mutex_unlock(&k->lock);
    for (size_t i = 0; i < v->n; i++)
        store_idle(v->list[i], true);
}
