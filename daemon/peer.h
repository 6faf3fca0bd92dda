/* SPDX-License-Identifier: MIT
 *
 * peer: who is at the other end of the socket. Asked of the kernel once per connection: the
 * credentials are those of the moment of connect(2), whoever holds the descriptor later.
 */
#pragma once

#include "daemon/vm.h"

#define PEER_NO_GROUP ((gid_t)-1)

/* Fills id, pid and admin; the request id is the request's. admin_gid PEER_NO_GROUP: only uid 0 is
 * an administrator. A user in more groups than struct identity can hold is refused (ERR_DENIED):
 * with some of them left out, a directory could open that its mode closes to a group. */
int peer_read(int fd, gid_t admin_gid, struct caller *ret, struct err *e);
/* The name of a user, owned; NULL when nobody has this uid. */
int peer_user_name(uid_t uid, char **ret, struct err *e);
/* The gid of a group by name; "" gives PEER_NO_GROUP. ERR_INVALID when there is none. */
int peer_group(const char *name, gid_t *ret, struct err *e);
