/* SPDX-License-Identifier: MIT */
#include "daemon/routes.h"

#include "common/api.h"
#include "common/limits.h"
#include "daemon/handlers.h"

#define NO_BODY 64, NULL, 0                      /* nothing, or {} */
#define ACTION(name) .action = ACT_##name
#define BODY(max, name) max, api_##name##_table, sizeof(struct api_##name)

#define SANDBOX "/v1/sandboxes/{ref}"
#define EXEC SANDBOX "/execs/{id}"
#define POLICY SANDBOX "/policy"

/*    method    pattern             role        body                          handler, … */
const struct route routes_table[] = {
    { "GET",    "/v1/version",      ROLE_USER,  NO_BODY,                      h_version,
      ROUTE_READ_ONLY },
    { "GET",    "/v1/info",         ROLE_USER,  NO_BODY,                      h_info,
      ROUTE_READ_ONLY },
    { "GET",    "/v1/checks",       ROLE_USER,  NO_BODY,                      h_checks },

    { "GET",    "/v1/quota",        ROLE_USER,  NO_BODY,                      h_quota,
      ROUTE_UNCOUNTED | ROUTE_READ_ONLY, "uid" },

    { "GET",    "/v1/sandboxes",    ROLE_USER,  NO_BODY,                      h_sandbox_list,
      ROUTE_READ_ONLY, "state label*" },
    { "POST",   "/v1/sandboxes",    ROLE_USER,  BODY(LIMIT_BODY, create_req), h_sandbox_create,
      ROUTE_IDEM, ACTION(SANDBOX_CREATE) },
    { "GET",    SANDBOX,            ROLE_OWNER, NO_BODY,                      h_sandbox_get,
      ROUTE_READ_ONLY },
    { "PATCH",  SANDBOX,            ROLE_OWNER, BODY(4 * KIB, update_req),    h_sandbox_update,
      ACTION(SANDBOX_UPDATE) },
    { "DELETE", SANDBOX,            ROLE_OWNER, NO_BODY,                      h_sandbox_delete,
      0, "force", ACTION(SANDBOX_RM) },
    { "POST",   SANDBOX "/start",   ROLE_OWNER, NO_BODY,                      h_sandbox_start,
      ACTION(SANDBOX_START) },
    { "POST",   SANDBOX "/stop",    ROLE_OWNER, NO_BODY,                      h_sandbox_stop,
      0, "timeout_ms", ACTION(SANDBOX_STOP) },
    { "POST",   SANDBOX "/restart", ROLE_OWNER, NO_BODY,                      h_sandbox_restart,
      ACTION(SANDBOX_RESTART) },
    { "GET",    SANDBOX "/logs",    ROLE_OWNER, NO_BODY,                      h_logs,
      ROUTE_STREAM, "source tail since follow" },

    { "GET",    SANDBOX "/stats",   ROLE_OWNER, NO_BODY,                      h_stats,
      ROUTE_READ_ONLY },

    { "GET",    SANDBOX "/execs",   ROLE_OWNER, NO_BODY,                      h_exec_list },
    { "POST",   SANDBOX "/execs",   ROLE_OWNER, BODY(LIMIT_BODY, exec_req),   h_exec_create,
      ROUTE_IDEM, ACTION(EXEC_CREATE) },
    { "GET",    EXEC,               ROLE_OWNER, NO_BODY,                      h_exec_get },
    { "GET",    EXEC "/attach",     ROLE_OWNER, NO_BODY,                      h_exec_attach,
      ROUTE_UPGRADE, "stdout_offset stderr_offset", ACTION(EXEC_ATTACH) },
    { "POST",   EXEC "/resize",     ROLE_OWNER, BODY(1 * KIB, resize_req),    h_exec_resize,
      ACTION(EXEC_RESIZE) },
    { "POST",   EXEC "/signal",     ROLE_OWNER, BODY(1 * KIB, signal_req),    h_exec_signal,
      ACTION(EXEC_SIGNAL) },
    { "GET",    EXEC "/output",     ROLE_OWNER, NO_BODY,                      h_exec_output,
      0, "stream offset" },
    { "POST",   SANDBOX "/run",     ROLE_OWNER, BODY(LIMIT_BODY, run_req),    h_run,
      ROUTE_STREAM, ACTION(RUN) },

    { "GET",    POLICY,             ROLE_OWNER, NO_BODY,                      h_policy_get },
    { "PUT",    POLICY,             ROLE_OWNER, BODY(LIMIT_BODY, policy_set_req), h_policy_set,
      ACTION(POLICY_SET) },
    { "POST",   POLICY "/rules",    ROLE_OWNER, BODY(LIMIT_BODY, policy_rules_req),
      h_policy_rules, ACTION(POLICY_CHANGE) },
    { "GET",    POLICY "/check",    ROLE_OWNER, NO_BODY,                      h_policy_check,
      0, "target" },
    { "GET",    POLICY "/why",      ROLE_OWNER, NO_BODY,                      h_policy_why,
      0, "target" },
    { "GET",    POLICY "/log",      ROLE_OWNER, NO_BODY,                      h_policy_log,
      ROUTE_STREAM, "tail denied follow" },
    { "POST",   POLICY "/prove",    ROLE_OWNER, NO_BODY,                      h_policy_prove,
      ROUTE_STREAM, ACTION(POLICY_PROVE) },
    { "GET",    "/v1/policies",     ROLE_USER,  NO_BODY,                      h_named_policy_list },
    { "GET",    "/v1/policies/{name}", ROLE_USER, NO_BODY,                    h_named_policy_get },
    { "PUT",    "/v1/policies/{name}", ROLE_USER, BODY(LIMIT_BODY, named_policy_req),
      h_named_policy_put, ACTION(POLICY_DEFINE) },
    { "DELETE", "/v1/policies/{name}", ROLE_USER, NO_BODY,
      h_named_policy_delete, ACTION(POLICY_UNDEFINE) },

    { "GET",    "/v1/images",       ROLE_USER,  NO_BODY,                      h_image_list,
      ROUTE_READ_ONLY },
    { "GET",    "/v1/images/{ref}", ROLE_USER,  NO_BODY,                      h_image_get,
      ROUTE_READ_ONLY },
    { "DELETE", "/v1/images/{ref}", ROLE_ADMIN, NO_BODY,                      h_image_delete,
      ACTION(IMAGE_RM) },

    { "GET",    "/v1/stats",        ROLE_USER,  NO_BODY,                      h_stats_list,
      ROUTE_READ_ONLY, "all" },
    { "GET",    "/v1/metrics",      ROLE_USER,  NO_BODY,                      h_metrics,
      ROUTE_READ_ONLY },
    { "GET",    "/v1/events",       ROLE_USER,  NO_BODY,                      h_events,
      ROUTE_STREAM, "since follow sandbox" },

    { "GET",    "/v1/audit",        ROLE_USER,  NO_BODY,                      h_audit,
      ROUTE_STREAM, "since follow" },
    { "GET",    "/v1/audit/verify", ROLE_ADMIN, NO_BODY,                      h_audit_verify,
      ROUTE_STREAM },
    { NULL }
};
