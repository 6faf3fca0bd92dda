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
/* The name of a user, owned; NULL when nobody has this uid. As the accounts had it within the last
 * PEER_NAME_MS: a list of a thousand sandboxes must not ask a directory server a thousand times. */
#define PEER_NAME_MS 5000
int peer_user_name(uid_t uid, char **ret, struct err *e);
/* The uid of a user by name. ERR_INVALID when there is none. */
int peer_user(const char *name, uid_t *ret, struct err *e);
/* A user's uid and groups as the accounts of the host have them now; one without an account is in
 * none. Groups that do not fit are left out: this is for looking, not for acting as him. */
void peer_lookup(uid_t uid, struct identity *ret);
/* The gid of a group by name; "" gives PEER_NO_GROUP. ERR_INVALID when there is none. */
int peer_group(const char *name, gid_t *ret, struct err *e);
