/* SPDX-License-Identifier: MIT
 *
 * egress: what sandboxes reach. Owns the address range, the guard, the packet filter, the resolver
 * process, and for each running sandbox its link and its policy; keeps the kernel equal to the
 * store. What it does is in docs/EGRESS.md.
 *
 * Where the kernel lacks something, the daemon runs all the same: egress_attach() then says what is
 * missing, and no sandbox starts without its filter. With "network": false sandboxes have no
 * network at all, and nothing here touches the host.
 *
 * Threads: an event thread of its own (packets that were logged, the resolver's questions, changes
 * of the ruleset by others). All functions: any thread, except open, settle and free. Lock order:
 * change → lock; both are taken after a vm's lock is released. SQLite and files are used under
 * `change` at most, which nobody but changes of policies and of the registry waits for.
 */
#pragma once

#include "common/api.h"
#include "daemon/config.h"
#include "daemon/link.h"
#include "daemon/ruleset.h"
#include "daemon/store.h"

#include <sys/types.h>

struct egress;
struct events;

/* Chooses the range, closes the guard, starts the thread. What an earlier daemon left in the kernel
 * goes on as it is until egress_settle(). */
int egress_open(const struct config *config, struct store *store, struct events *events,
                struct egress **ret, struct err *e);
void egress_free(struct egress *g);     /* NULL is fine. Links and rules stay in the kernel */
bool egress_enabled(const struct egress *g);    /* "network" of the configuration */

/* --- for the lifecycle of sandboxes; the job's holder --- */

/* Makes the link with its rules in force, then lets it up. *ret: for domain and guest. The link of
 * a former run is taken away first. Nothing stays on failure. */
int egress_attach(struct egress *g, const char *id, uint32_t slot, uid_t qemu, struct link *ret,
                  struct err *e);
/* The link first, then the rules, then flows that were left. */
int egress_detach(struct egress *g, const char *id, uint32_t slot, struct err *e);
/* At start: a sandbox that runs already. False: it has no link (it began without networks). */
int egress_adopt(struct egress *g, const char *id, uint32_t slot, bool *ret_linked,
                 struct link *ret, struct err *e);
/* After all were adopted: rules anew for exactly those, links of others removed. */
int egress_settle(struct egress *g, struct err *e);
/* What its rules will be, from a request to create one: checked, below the ceiling. */
int egress_request(struct egress *g, uid_t uid, const struct api_create_req *req,
                   struct ruleset *ret, struct err *e);
/* For vm_describe(): fills address. */
void egress_describe(struct egress *g, uint32_t slot, struct api_network *ret);

/* --- policies; `id` of a sandbox that exists, running or not --- */

/* What was denied to it since it runs, or since the daemon does: packets, as far as the filter
 * tells of each, and names. */
uint64_t egress_denials(struct egress *g, uint32_t slot);
struct egress_state {
    uint64_t repairs;       /* of the filter: others changed it, or a change failed */
    uint32_t waiting;       /* jobs of the writer */
};
void egress_state(struct egress *g, struct egress_state *ret);

int egress_policy(struct egress *g, const char *id, struct api_policy *ret, struct err *e);
/* In force when it returns, flows that it denies cut; or the old one is, and the error says why. */
int egress_set(struct egress *g, const char *id, uid_t uid, const struct api_policy_set_req *req,
               struct err *e);
int egress_change(struct egress *g, const char *id, uid_t uid,
                  const struct api_policy_rules_req *req, struct err *e);
int egress_check(struct egress *g, const char *id, const char *target,
                 struct api_policy_verdict *ret, struct err *e);
int egress_why(struct egress *g, const char *id, const char *target, struct api_policy_why *ret,
               struct err *e);
/* An fd to read the log of its network from (JSON lines of struct api_policy_event); owned by the
 * caller. */
int egress_log_open(struct egress *g, const char *id, int *ret_fd, struct err *e);

/* Policies with names, and presets. name NULL: all. */
int egress_named(struct egress *g, uid_t uid, const char *name, struct api_named_policy_list *ret,
                 struct err *e);
int egress_define(struct egress *g, uid_t uid, const char *name, const char *rules, struct err *e);
int egress_undefine(struct egress *g, uid_t uid, const char *name, struct err *e);

/* What the kernel offers, tried in a network namespace of its own. why: if not ok. */
struct egress_probe { const char *what; bool ok; char why[400]; };
#define EGRESS_PROBES 9
int egress_probe(struct egress_probe ret[EGRESS_PROBES], struct err *e);
/* Whether sandboxes can have networks; in words: the range, or what is in the way. */
bool egress_status(struct egress *g, char *ret, size_t size);
