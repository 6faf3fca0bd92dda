/* SPDX-License-Identifier: MIT
 *
 * net: the guest's network as the daemon describes it (struct guest_net), by rtnetlink:
 *
 *     interface (found by its MAC)   no IPv6, MTU, <address>/32, up
 *     permanent neighbour            <gateway> at its MAC
 *     routes                         <gateway>/32 on the link, default through it
 *     /etc/resolv.conf               the resolver; a symbolic link is replaced, not followed
 *
 * Saying it again changes nothing. What the guest's root changes afterwards harms the guest alone:
 * what may leave is decided on the host.
 */
#pragma once

#include "common/err.h"
#include "common/frame.h"

#define NET_DEVICE_MS 5000      /* how long an interface may take to appear */

/* In the network namespace of the calling process. resolv_conf: path of the file. */
int net_configure(const struct guest_net *n, const char *resolv_conf, int64_t deadline,
                  struct err *e);
