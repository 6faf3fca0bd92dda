/* SPDX-License-Identifier: MIT
 *
 * virt: libvirt, and nobody else includes it. One connection (embedded driver or libvirtd), its
 * event thread, transient domains named "sbx-<id>". libvirt's thread-local last error is turned
 * into struct err at once. Callbacks run on libvirt's event thread: they copy and post, never act.
 * Calls have no deadline of their own: see the top of virt.c. Any thread, but for virt_open() and
 * virt_close(); one `struct virt` at a time.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct virt;

enum virt_event { VIRT_STOPPED, VIRT_CRASHED, VIRT_PAUSED, VIRT_RESUMED };

#define VIRT_POWERED_OFF "shutdown"

/* sandbox_id as in the domain's name; detail is a short word (VIRT_POWERED_OFF, "destroyed",
 * "crashed", "io-error"). */
typedef void (*virt_event_fn)(void *arg, const char *sandbox_id, enum virt_event ev,
                              const char *detail);

/* uri: "qemu:///embed?root=DIR" (DIR is made and its qemu.conf written by virt) or
 * "qemu:///system". Starts the event thread, then opens (the first time about 7 s). *ret is set
 * before the first event comes, which may be before this returns. */
int virt_open(const char *uri, virt_event_fn fn, void *arg, struct virt **ret, struct err *e);
/* No event is told of any more, nor is one being told of when this returns; all else goes on. */
void virt_mute(struct virt *v);
void virt_close(struct virt *v);
int virt_versions(struct virt *v, char **ret_libvirt, char **ret_qemu, struct err *e);

/* Starts a transient domain. The domain is paused==false at return: running, or an error and gone.
 */
int virt_start(struct virt *v, const char *xml, struct err *e);
/* 1 running or paused, 0 no such domain. A guest that powered off while no daemon was there is
 * found paused right after virt_open(); its VIRT_STOPPED "shutdown" follows. Do not resume what
 * nobody paused on purpose: destroy it. */
int virt_exists(struct virt *v, const char *sandbox_id, bool *ret_paused, struct err *e);
/* 1: paused by QEMU, as it could not write to the disk; 0: not, or no such domain. */
int virt_stalled(struct virt *v, const char *sandbox_id, struct err *e);
/* Why a guest stands still. */
enum virt_pause {
    VIRT_NOT_PAUSED,
    VIRT_PAUSE_DISK,        /* by QEMU, which could not write to the disk */
    VIRT_PAUSE_LEAVES,      /* it has powered off; VIRT_STOPPED "shutdown" follows */
    VIRT_PAUSE_USER,        /* by an administrator, through libvirt or QEMU's monitor */
    VIRT_PAUSE_WATCHDOG,
    VIRT_PAUSE_PANIC,
    VIRT_PAUSE_FAULT,       /* by QEMU, without more words: KVM's internal errors come so */
    VIRT_PAUSE_MAX,
};
/* 1 and why; 0: it runs, or there is no such domain. */
int virt_pause(struct virt *v, const char *sandbox_id, enum virt_pause *ret_why, struct err *e);
/* 1 and what the host sees of a guest without asking it: whether it runs, and how much time of the
 * host's processors its QEMU has used since it began, in ns; 0: no such domain. */
int virt_effort(struct virt *v, const char *sandbox_id, bool *ret_running, uint64_t *ret_cpu_ns,
                struct err *e);
/* Cuts the power; a domain that is not there is success. */
int virt_destroy(struct virt *v, const char *sandbox_id, struct err *e);
/* Removes what the embedded driver keeps of a domain that is gone for good: QEMU's own log. Those
 * of a system's libvirtd are its administrator's. */
int virt_forget(struct virt *v, const char *sandbox_id, struct err *e);
/* Tells a paused one to go on, by a thread: a QEMU that does not answer delays nobody. */
struct virt_ask;
int virt_resume(struct virt *v, const char *sandbox_id, struct virt_ask **ret, struct err *e);
/* 0: no answer yet; 1: it goes on; -1: it does not, and why. */
int virt_ask_answer(struct virt_ask *a, struct err *e);
/* Answered or not; NULL is fine. The thread ends with the answer, or with QEMU; needs no virt. */
void virt_ask_free(struct virt_ask *a);
/* Its QEMU's process, from libvirt's file of it: asks nobody, so it may be one that has ended. 0:
 * none. */
pid_t virt_pid(struct virt *v, const char *sandbox_id);
/* Ids of all "sbx-…" domains, for reconcile. */
int virt_list(struct virt *v, char ***ret_ids, size_t *ret_n, struct err *e);
