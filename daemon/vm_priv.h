/* SPDX-License-Identifier: MIT
 *
 * vm_priv: what vm*.c and reconcile.c share. Only they include it.
 *
 * A sandbox's life is a sequence of lifecycle jobs (vm_job_begin … vm_job_end), one at a time. The
 * holder of the job alone changes state, starts and ends the domain, the share, the agent and the
 * execs; `lock` protects the fields for those who only look. News from libvirt and of helper
 * processes come as worker jobs: they note what happened and, when nobody holds the job, act on it.
 */
#pragma once

#include "daemon/accel.h"
#include "daemon/egress.h"
#include "daemon/events.h"
#include "daemon/evloop.h"
#include "daemon/image.h"
#include "daemon/lifetime.h"
#include "daemon/quota.h"
#include "daemon/share.h"
#include "daemon/virt.h"
#include "daemon/vm.h"
#include "daemon/worker.h"

#include <pthread.h>

struct vm {
    struct vms *vms;            /* borrowed: the registry outlives its objects */
    char id[LIMIT_ID + 1];      /* constant */

    pthread_mutex_t lock;       /* guards all below */
    pthread_cond_t changed;     /* job released, domain gone; CLOCK_MONOTONIC */
    unsigned refs;
    bool job;                   /* somebody changes the sandbox */
    bool cancel;                /* whoever starts it should give up: it is to be removed */
    bool removed;               /* row and files are gone */
    bool domain_gone;           /* libvirt said so since the last start */
    int64_t share_gone_at;      /* virtiofsd ended since the last start: now_mono_ms(); 0: not */
    char gone_detail[64];       /* libvirt's word for why */
    bool paused;                /* stands still for another reason than `stalled` (vm_events.c) */
    bool stalled;               /* paused, as the host's disk is full (vm_stall.c) */
    bool silent;                /* told to go on, and its QEMU does not answer */
    struct virt_ask *resume;    /* owned, NULL: not told to; the worker's, as the next */
    int64_t resume_by;          /* CLOCK_MONOTONIC, ms: when it should have answered */
    struct vm_row row;          /* owned copy of the row */
    struct life life;           /* of this run */
    uint64_t idle_stored;       /* life's, as it is in the row */
    int64_t starts_at;          /* row.retry: CLOCK_BOOTTIME, ms */
    unsigned quick;             /* ends in a row, each soon after its start */
    bool by_policy;             /* whoever starts it is its policy */
    bool kept;                  /* a thread of vm_keep.c is on its way to it */
    struct quota_charge charge; /* for all that it has; the job holder's */
    struct agent *agent;        /* ref; NULL unless the domain runs */
    struct exec_table *execs;   /* ref; NULL unless the domain runs */
    struct console *console;    /* owned; NULL unless the domain runs, or if QEMU writes its log */
    struct link link;           /* name empty: none */
    struct share_proc share;    /* pid 0: none */
    int share_pidfd;            /* owned, -1 none */
    struct evsource *share_watch; /* owned, NULL none */

    pthread_mutex_t log_lock;   /* guards log_fd; a leaf */
    int log_fd;                 /* owned: agent.log */
    uint64_t log_size;
};

struct vms {
    const struct config *config;   /* borrowed, as the next six */
    struct store *store;
    struct evloop *loop;
    struct worker *worker;
    struct egress *egress;
    struct quota *quota;
    struct events *events;
    struct audit *audit;           /* NULL: none */
    struct cgroups *cgroups;       /* owned; NULL: none are configured */
    struct keeper *keeper;         /* owned; vm_keep.c */
    struct virt *virt;             /* owned */
    struct evsource *sweep_timer;  /* owned */
    char *view;                    /* owned: <runtime>/view */
    char *state_dir, *runtime_dir; /* owned: …/sandboxes */
    char *libvirt_version, *qemu_version; /* owned */
    enum machine machine;
    uint32_t tsc_khz;
    _Atomic gid_t qemu_gid;        /* group of all QEMUs; 0: each has its own */

    pthread_mutex_t probe_lock;    /* one probe at a time; covers accel_final; first */
    pthread_mutex_t accel_lock;    /* covers accel */
    struct accel_verdict accel;
    bool accel_final;
    bool copied;                   /* the database is a copy: others know better (reconcile.c) */

    pthread_mutex_t lock;          /* guards list; taken before a vm's lock */
    struct vm **list;              /* owned array of refs */
    size_t n, cap;
};

/* --- objects and jobs (vm.c) --- */
/* Takes over the row (cleared). One reference, no job. */
int vm_new_take(struct vms *v, struct vm_row *row, struct vm **ret, struct err *e);
struct vm *vm_ref(struct vm *vm);
/* ERR_SANDBOX_BUSY at the deadline, ERR_SANDBOX_NOT_FOUND when it was removed meanwhile. */
int vm_job_begin(struct vm *vm, int64_t deadline, struct err *e);
void vm_job_end(struct vm *vm);
/* Job holder: in memory only, the row in the store says what it said. */
void vm_set_memory_state(struct vm *vm, enum vm_state s);
/* Job holder: changes state in memory and in the store. reason NULL clears it. */
int vm_set_state(struct vm *vm, enum vm_state s, const char *reason, struct err *e);
/* Job holder: what has ended is stopped, in the row by one change. */
int vm_set_stopped(struct vm *vm, const char *reason, struct err *e);
/* Job holder: the verbs, of a sandbox that is stopped, and of one that runs. */
int vm_start_job(struct vm *vm, int workspace_fd, struct err *e);
int vm_stop_job(struct vm *vm, int64_t timeout_ms, const char *reason, struct err *e);
/* Any thread: if its policy starts it right now, that start gives up. */
void vm_give_up(struct vm *vm);
/* Job holder: writes the row as it is in memory. */
int vm_store_row(struct vm *vm, struct err *e);
enum vm_state vm_state(struct vm *vm);
/* What a sandbox of this row has as long as it exists (QUOTA_STORED), and more while it runs. */
struct quota_use vm_quota_use(const struct vm_row *row, bool runs);
int vm_identity(const struct vm_row *row, struct identity *ret, struct err *e);
/* For those who watch; under any lock. detail NULL: none. */
void vm_tell(struct vm *vm, enum event_kind kind, const char *detail);
/* It does not run any more: to whoever reads events, and to the log. reason may be NULL. */
void vm_tell_stopped(struct vm *vm, const char *reason);
void vm_tell_failed(struct vm *vm, const struct err *why);
/* Waits until libvirt said that the domain is gone, or the deadline; true if it is. */
bool vm_wait_domain_gone(struct vm *vm, int64_t deadline);

/* --- registry (vm_registry.c) --- */
int vms_add(struct vms *v, struct vm *vm, struct err *e);      /* takes a reference of its own */
void vms_drop(struct vms *v, struct vm *vm);
struct vm *vms_get(struct vms *v, const char *id);             /* a reference or NULL */
struct vm **vms_snapshot(struct vms *v, size_t *ret_n);      /* refs; vms_snapshot_done() frees */
void vms_snapshot_done(struct vm **list, size_t n);

/* --- paths (vm_files.c) --- */
enum vm_path { VMP_STATE, VMP_DISK_DIR, VMP_DISK, VMP_LOG_DIR, VMP_CONSOLE, VMP_AGENT_LOG,
               VMP_SHARE_LOG, VMP_CONSOLE_PIPE, VMP_RUNTIME, VMP_SOCK_DIR, VMP_CHANNEL,
               VMP_SHARE_SOCK, VMP_RINGS, VMP_MAX };
/* Owned string or NULL (out of memory). */
char *vm_path(const struct vms *v, const char *id, enum vm_path which);
int vm_files_make(struct vm *vm, struct err *e);               /* directories, logs; idempotent */
int vm_files_disk(struct vm *vm, const char *base, struct err *e); /* overlay if there is none */
/* A disk whose making was cut off. */
int vm_files_drop_half(struct vms *v, const char *id, struct err *e);
int vm_files_drop_runtime(struct vms *v, const char *id, struct err *e);
int vm_files_drop_state(struct vms *v, const char *id, struct err *e);
/* What has a disk is not removed but moved to <state>/lost+found/<id>, root's alone: *ret_kept is
 * where (owned). NULL: there was no disk, and the directory is gone. */
int vm_files_keep_state(struct vms *v, const char *id, char **ret_kept, struct err *e);
/* Whether it has run and its disk is not there any more. */
bool vm_lost_disk(const struct vm *vm);
uid_t vm_qemu_uid(const struct vm *vm);
gid_t vm_qemu_gid(const struct vm *vm);
/* A line for agent.log; cut and escaped. Any thread. */
void vm_log_line(struct vm *vm, const char *text, size_t len);
void vm_log_sweep(struct vms *v);  /* keeps the logs of machines within bounds */

/* --- start and stop (vm_start.c, vm_stop.c); job holder only --- */
int vm_start_steps(struct vm *vm, int workspace_fd, struct err *e);
/* Opens execs and channel of a domain that runs (also of one found at start). */
int vm_open_guest(struct vm *vm, struct err *e);
int vm_open_console(struct vm *vm, struct err *e);
int vm_watch_share(struct vm *vm, struct err *e);
/* Orderly for timeout_ms (0: at once), then by force; afterwards nothing of it runs. */
int vm_stop_guest(struct vm *vm, int64_t timeout_ms, struct err *e);
/* Agent, execs, share, runtime directory: all that a gone domain leaves. */
void vm_close_guest(struct vm *vm);
/* After the guest is gone: files and row. */
int vm_erase(struct vm *vm, struct err *e);

/* --- news (vm_events.c) --- */
/* On libvirt's thread. */
void vms_on_virt(void *arg, const char *id, enum virt_event ev, const char *detail);
void vm_job_domain_gone(void *ctx, const char *id, const char *detail);              /* worker */
void vm_job_share_gone(void *ctx, const char *id, const char *detail);               /* worker */
void vm_job_paused(void *ctx, const char *id, const char *detail);                   /* worker */
/* Why a sandbox that runs cannot go on, though libvirt still has its machine. `word` is for the
 * audit log, `reason` for people. */
struct vm_broken { const char *word, *reason; };
/* NULL: it can go on, or that is not known yet. Asks nothing of QEMU. Job holder; any thread. */
const struct vm_broken *vm_broken(struct vm *vm);
/* Cuts its power; for its policy that is a crash. -1: it still runs. Job holder; a thread that may
 * wait, as libvirt does for a QEMU that will not end. */
int vm_end_broken(struct vm *vm, const struct vm_broken *b, struct err *e);
void vm_events_sweep(struct vms *v);            /* worker: has those ended (vm_keep_end()) */

/* --- a full disk of the host (vm_stall.c) --- */
extern const char vm_stall_reason[];
void vm_job_stalled(void *ctx, const char *id, const char *detail);                  /* worker */
void vm_job_resumed(void *ctx, const char *id, const char *detail);                  /* worker */
void vm_stall_sweep(struct vms *v);     /* worker: lets go on what has room again */
void vm_stall_found(struct vm *vm);     /* paused so when the daemon came */

/* --- control groups (vm_cgroup.c); all do nothing where none are configured --- */
int vm_cgroups_open(struct vms *v, struct err *e);
int vm_cgroups_settle(struct vms *v, struct err *e);    /* removes those of what does not run */
int vm_cgroup_make(struct vm *vm, struct err *e);
int vm_cgroup_fd(struct vm *vm, int *ret, struct err *e);       /* owned; -1: none */
int vm_cgroup_enter(struct vm *vm, pid_t pid, struct err *e);
int vm_cgroup_enter_qemu(struct vm *vm, struct err *e);
void vm_cgroup_drop(struct vms *v, const char *id);     /* with what is still in it */

/* --- time limits and restarts (vm_keep.c) --- */
int vm_keep_new(struct keeper **ret, struct err *e);
/* Starts under way give up, stops are waited for; idle times go to the rows. Nothing follows. */
void vm_keep_release(struct vms *v);
void vm_keep_free(struct keeper *k);            /* NULL is fine */
void vm_keep_sweep(struct vms *v);              /* worker */
/* Ends a sandbox that is broken, if it still is when there is a thread for that; to be said again
 * until it has ended. Worker. */
void vm_keep_end(struct vm *vm);
/* Job holder; all change the row in memory only. */
void vm_life_started(struct vm *vm);
void vm_life_adopted(struct vm *vm);
void vm_life_ended(struct vm *vm, enum life_end how);
void vm_life_by_hand(struct vm *vm);            /* somebody starts or stops it */
/* What the limits say of it now; the lock is held. */
int vm_life_describe_locked(const struct vm *vm, struct api_sandbox *ret, struct err *e);
/* The limits of a new sandbox. */
void vm_limits_of(const struct config *cf, const struct api_create_req *req,
                  struct vm_limits *ret);

/* --- reconcile.c --- */
/* Reads the rows; each sandbox has its job taken until vms_reconcile() has settled it. */
int vms_load(struct vms *v, struct err *e);
int vms_reconcile(struct vms *v, struct err *e);
