/* SPDX-License-Identifier: MIT
 *
 * handlers: what each route does, one function each: typed request in, typed reply out, no logic
 * of its own. Called by the router with everything checked; see routes.h.
 */
#pragma once

#include "daemon/routes.h"

/* h_info.c */
int h_version(struct call *c, struct err *e);
int h_info(struct call *c, struct err *e);
int h_checks(struct call *c, struct err *e);
/* h_quota.c */
int h_quota(struct call *c, struct err *e);
/* h_vm.c */
int h_sandbox_list(struct call *c, struct err *e);
int h_sandbox_create(struct call *c, struct err *e);
int h_sandbox_get(struct call *c, struct err *e);
int h_sandbox_update(struct call *c, struct err *e);
int h_sandbox_delete(struct call *c, struct err *e);
int h_sandbox_start(struct call *c, struct err *e);
int h_sandbox_stop(struct call *c, struct err *e);
int h_sandbox_restart(struct call *c, struct err *e);
/* h_logs.c */
int h_logs(struct call *c, struct err *e);
/* Its sandbox is stopped for good, or removed: nothing will be written any more. */
bool call_sandbox_over(const struct call *c);
/* h_policy.c */
int h_policy_get(struct call *c, struct err *e);
int h_policy_set(struct call *c, struct err *e);
int h_policy_rules(struct call *c, struct err *e);
int h_policy_check(struct call *c, struct err *e);
int h_policy_why(struct call *c, struct err *e);
int h_named_policy_list(struct call *c, struct err *e);
int h_named_policy_get(struct call *c, struct err *e);
int h_named_policy_put(struct call *c, struct err *e);
int h_named_policy_delete(struct call *c, struct err *e);
int h_policy_prove(struct call *c, struct err *e);
/* h_policy_log.c */
int h_policy_log(struct call *c, struct err *e);
/* h_exec.c */
int h_exec_list(struct call *c, struct err *e);
int h_exec_create(struct call *c, struct err *e);
int h_exec_get(struct call *c, struct err *e);
int h_exec_attach(struct call *c, struct err *e);
int h_exec_resize(struct call *c, struct err *e);
int h_exec_signal(struct call *c, struct err *e);
int h_exec_output(struct call *c, struct err *e);
/* h_run.c */
int h_run(struct call *c, struct err *e);
/* Runs a command in the call's sandbox to its end, for as long as the client waits. */
struct api_run_req;
struct api_run;
int call_run(struct call *c, const struct api_run_req *req, struct api_run *ret, struct err *e);
/* h_audit.c */
int h_audit(struct call *c, struct err *e);
int h_audit_verify(struct call *c, struct err *e);
/* h_events.c */
int h_events(struct call *c, struct err *e);
/* h_metrics.c */
int h_metrics(struct call *c, struct err *e);
/* h_stats.c */
int h_stats(struct call *c, struct err *e);
int h_stats_list(struct call *c, struct err *e);
/* h_image.c */
int h_image_list(struct call *c, struct err *e);
int h_image_get(struct call *c, struct err *e);
int h_image_delete(struct call *c, struct err *e);
