/* SPDX-License-Identifier: MIT
 *
 * accel: is hardware virtualisation usable, and why not. /dev/kvm may open and guests still hang,
 * so the answer comes from booting the guest's own kernel with an init that powers off at once
 * ("sbx.probe" on the command line), under a deadline, by QEMU itself and with no more rights than
 * a sandbox's QEMU has. The verdict is kept in the state directory (file "accel", three lines: what
 * it was found with, verdict, reason) and holds for that kernel release, QEMU version and CPU
 * model; removing the file asks again. Any thread, one at a time.
 */
#pragma once

#include "common/err.h"
#include "daemon/domxml.h"
#include <stdint.h>

enum accel_choice { ACCEL_AUTO, ACCEL_FORCE_KVM, ACCEL_FORCE_TCG };

struct accel_verdict {
    enum accel accel;
    char reason[200]; /* for people: "kvm: a guest booted in 640 ms", "tcg: /dev/kvm opens, …" */
};

/* kernel and initrd of an image; either NULL: only what can be said without booting (no /dev/kvm:
 * tcg), and *ret_final is false when the answer needs a boot. Blocks up to DEADLINE_ACCEL_PROBE.
 * That KVM does not work is a verdict, not an error; no QEMU is ERR_UNAVAILABLE. */
int accel_probe(enum accel_choice choice, const char *state_dir, const char *kernel,
                const char *initrd, struct accel_verdict *ret, bool *ret_final, struct err *e);

/* The group that opens /dev/kvm (usually "kvm"): 1 and *ret_gid, or 0 when everybody may, nobody
 * but root may, or there is none. QEMU runs as a uid without groups of its own: give it this gid.
 */
int accel_kvm_group(gid_t *ret_gid);

/* The host's TSC rate in kHz measured against CLOCK_MONOTONIC_RAW (about 50 ms), 0 where there is
 * none to speak of. A microvm has no timer to calibrate with: under TCG it must be told. */
uint32_t accel_tsc_khz(void);
