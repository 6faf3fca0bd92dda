/* SPDX-License-Identifier: MIT
 *
 * virt_embed: the directory of libvirt's embedded driver, which belongs to this daemon alone: its
 * settings before it is opened, and what a driver that was killed left in it.
 */
#pragma once

#include "common/err.h"

/* Domains are named "sbx-<id>". */
#define VIRT_NAME_PREFIX "sbx-"

/* Before virConnectOpen(), while no other process uses `root`: makes it, writes its qemu.conf, and
 * removes the traces of domains that were never started, of those whose QEMU has ended, and of
 * those that nobody knows any more.
 * Sets libvirt's log file by an environment variable: before other threads, and virInitialize(). */
int virt_embed_prepare(const char *root, struct err *e);

/* Removes QEMU's log of a domain that is gone for good. Any thread. */
int virt_embed_forget(const char *root, const char *sandbox_id, struct err *e);

/* Ids of the domains that the driver has a status of, to fn; those it was still starting when it
 * was killed are not among them. Reads files only, so a driver may be at work on them. */
int virt_embed_list(const char *root, void (*fn)(void *arg, const char *sandbox_id), void *arg,
                    struct err *e);
