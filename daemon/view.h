/* SPDX-License-Identifier: MIT
 *
 * view: the images as guests get to see them: <runtime_dir>/view, a read-only bind mount of
 * <state_dir>/images. libvirt changes the owner of the files it hands to QEMU, and with a uid of
 * its own for each sandbox it would take the shared base images away from all others; on a
 * read-only mount it cannot, and accepts that.
 */
#pragma once

#include "daemon/config.h"

/* To be called before there is a second thread. With the embedded driver, QEMU is our child: the
 * process gets a mount namespace of its own first, which still receives the host's later mounts,
 * and the view vanishes with the last process in it. With qemu:///system, libvirtd has to find the
 * view, so it is mounted where the host sees it. */
int view_open(const struct config *c, struct err *e);
/* Takes down a view that the host sees; only when no sandbox runs. */
void view_close(const struct config *c);
