/* SPDX-License-Identifier: MIT
 *
 * audit_peer: what /proc says of the process at the other end of the socket. Hints, for people who
 * read the audit log: a process chooses its name and its environment, and nobody is let in or kept
 * out by either.
 */
#pragma once

#include <sys/types.h>

#define AUDIT_COMM 64       /* of a name, with the NUL */
#define AUDIT_SSH 128

struct audit_peer {
    char comm[AUDIT_COMM];  /* "": not to be had */
    char ssh[AUDIT_SSH];    /* "ADDRESS PORT ADDRESS PORT" of SSH_CONNECTION; "" none */
};

/* Any thread; waits PEER_MS (20) at most. Whose owner is not `uid` is another process by now, and
 * is not looked at. */
void audit_peer_read(pid_t pid, uid_t uid, struct audit_peer *ret);
/* The part of that which waits: SSH_CONNECTION from an open environ of a process of this user.
 * Takes fd, but where too many wait already: then, as in all that fails, ret is left. */
void audit_peer_ssh(int *fd, uid_t uid, char ret[AUDIT_SSH]);
/* Copies text, cut to cap bytes with the NUL, as one line of plain UTF-8. */
void audit_text(char *dst, size_t cap, const char *text);
