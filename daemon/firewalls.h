/* SPDX-License-Identifier: MIT
 *
 * firewalls: whether other firewalls of the host stand in sandboxes' way. What our filter lets
 * pass, another table at the same hook may still drop, and nobody who sits in front of a sandbox
 * that reaches nothing would guess it: Docker and ufw do so on every host they are on.
 *
 * Looks only. Tables of nftables are seen, iptables-nft's among them; those of iptables-legacy are
 * not. A table any rule of which names our taps is taken for one that was told about them.
 */
#pragma once

#include "common/err.h"
#include <stddef.h>

/* 1: it found some, and *ret says which and what to do, for people; 0: none. Any thread. */
int firewalls_in_the_way(char *ret, size_t size, struct err *e);
