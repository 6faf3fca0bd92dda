/* SPDX-License-Identifier: MIT
 *
 * boot: what the first process of a guest does before it serves: from the initramfs it was started
 * in to the root disk, and what a running system needs around it.
 *
 *     initramfs: /init (the agent), /modules/manifest (one path below /modules a line, in the order
 *     of insertion), the modules themselves, not compressed
 *
 * With the word `sbx.probe` on the kernel's command line it says "sbx-probe-ok" on the console and
 * ends the machine. Whatever goes wrong is said on the console, and then the machine ends, so that
 * the host sees it at once. Every wait has a deadline and wakes by kernel events.
 */
#pragma once

#include "common/err.h"
#include "common/frame.h"
#include <stdbool.h>
#include <stdint.h>

/* From the first instruction to the open port of the channel; does not return in a probe. */
int boot_guest(int *ret_port, struct err *e);
/* The network; again at each handshake. */
int boot_net(const struct guest_net *n, struct err *e);
/* Name and workspace of the sandbox. */
int boot_configure(const char *hostname, uint8_t workspace, struct err *e);
/* Sets the clock: at once when it is far off or for the first time, else gently. */
void boot_set_time(uint64_t realtime_ns, bool first);
/* One line on the console and in the kernel's log. */
void boot_complain(const struct err *e);
/* Writes everything to the disk and ends the machine. */
_Noreturn void boot_end(bool reboot);

/* uevent.c: waits until `there` says so, looking again after each event of the kernel. 1 there, 0
 * deadline, -1 error. */
int uevent_wait(bool (*there)(void *arg), void *arg, int64_t deadline, struct err *e);
