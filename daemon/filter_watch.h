/* SPDX-License-Identifier: MIT
 *
 * filter_watch: whether somebody else changed the tables of filter.h. The kernel tells each change
 * of nftables to whoever listens; ours are known by their sender. When more is told than the socket
 * holds, the ruleset's generation says whether it was all our own: without that a repair of a
 * thousand sandboxes, which overruns any buffer, would be the reason for the next one, without end.
 *
 * Used with the filter it watches, under the same lock.
 */
#pragma once

#include "daemon/filter.h"

struct filter_watch;

/* f is borrowed. */
int filter_watch_open(struct filter *f, struct filter_watch **ret, struct err *e);
void filter_watch_close(struct filter_watch *w);    /* NULL is fine */
int filter_watch_fd(const struct filter_watch *w);  /* readable: something was changed */
/* Reads all that was told. True: not only by us, or nobody knows. */
bool filter_watch_others(struct filter_watch *w);
