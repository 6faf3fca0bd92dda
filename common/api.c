/* SPDX-License-Identifier: MIT */
#include "common/api.h"
#include "common/limits.h"
#include "common/name.h"
#include "common/policy.h"
#include "common/restart.h"

#include <string.h>

static bool path_absolute(const char *s)
{
    return s[0] == '/';
}

static bool label_valid(const char *pair)
{
    const char *eq = strchr(pair, '=');
    char key[LIMIT_LABEL_KEY + 1];
    size_t len = eq ? (size_t)(eq - pair) : 0;

    if (len == 0 || len > LIMIT_LABEL_KEY)
        return false;
    memcpy(key, pair, len);
    key[len] = '\0';
    return label_key_valid(key);
}

#define RULE_PATH "an absolute path"
#define RULE_ENV "a variable with a name of [A-Za-z_][A-Za-z0-9_]*"
#define RULE_LABEL "a label with a key of [A-Za-z0-9][A-Za-z0-9_./-]*, at most 128 bytes"
#define RULE_USER "a user name of the guest or a decimal uid"

#define ENV_LIMITS \
    .max = LIMIT_ENV, .item_max = LIMIT_ENV_BYTES, .check = env_valid, .rule = RULE_ENV
#define COMMAND_LIMITS \
    .flags = JF_REQUIRED, .min = 1, .max = LIMIT_ARGV, .item_max = LIMIT_ARG_BYTES
#define PATH_LIMITS .min = 1, .max = LIMIT_PATH, .check = path_absolute, .rule = RULE_PATH
#define USER_LIMITS .min = 1, .max = LIMIT_USER, .check = user_valid, .rule = RULE_USER

#define TIME_LIMITS .flags = JF_ZERO | JF_UNSET, .min = LIMIT_TIME_MIN, .max = LIMIT_TIME_MAX
#define RESTART_LIMITS .check = restart_valid, .rule = RESTART_RULE

/* ---- requests: with limits ---- */

static const struct jfield workspace_req_table[] = {
    JF(struct api_workspace, path, JT_STR, .flags = JF_REQUIRED, PATH_LIMITS),
    JF(struct api_workspace, read_only, JT_BOOL),
    JF_END,
};

const struct jfield api_create_req_table[] = {
    JF(struct api_create_req, name, JT_STR, .check = name_valid, .rule = NAME_RULE),
    JF(struct api_create_req, image, JT_STR, .min = 1, .max = 128),
    JF(struct api_create_req, workspace, JT_OBJ, .flags = JF_OPT, .table = workspace_req_table),
    JF(struct api_create_req, cpus, JT_U32, .max = LIMIT_CPUS),
    JF(struct api_create_req, memory, JT_U64, .flags = JF_ZERO, .min = LIMIT_MEMORY_MIN,
       .max = LIMIT_MEMORY_MAX),
    JF(struct api_create_req, disk, JT_U64, .flags = JF_ZERO, .min = LIMIT_DISK_MIN,
       .max = LIMIT_DISK_MAX),
    JF(struct api_create_req, env, JT_MAP, ENV_LIMITS),
    JF(struct api_create_req, labels, JT_MAP, .max = LIMIT_LABELS, .item_max = LIMIT_LABEL_VALUE,
       .check = label_valid, .rule = RULE_LABEL),
    JF(struct api_create_req, start, JT_BOOL, .def = true),
    JF(struct api_create_req, policy, JT_STR, .check = name_valid, .rule = NAME_RULE),
    JF(struct api_create_req, policy_rules, JT_STR, .max = POLICY_TEXT_MAX),
    JF(struct api_create_req, allow, JT_STRV, .max = POLICY_RULES_MAX,
       .item_max = POLICY_TARGET_TEXT),
    JF(struct api_create_req, deny, JT_STRV, .max = POLICY_RULES_MAX,
       .item_max = POLICY_TARGET_TEXT),
    JF(struct api_create_req, ttl_ms, JT_U64, TIME_LIMITS),
    JF(struct api_create_req, idle_timeout_ms, JT_U64, TIME_LIMITS),
    JF(struct api_create_req, restart, JT_STR, RESTART_LIMITS),
    JF_END,
};

const struct jfield api_update_req_table[] = {
    JF(struct api_update_req, ttl_ms, JT_U64, TIME_LIMITS),
    JF(struct api_update_req, idle_timeout_ms, JT_U64, TIME_LIMITS),
    JF(struct api_update_req, restart, JT_STR, RESTART_LIMITS),
    JF_END,
};

const struct jfield api_exec_req_table[] = {
    JF(struct api_exec_req, command, JT_STRV, COMMAND_LIMITS),
    JF(struct api_exec_req, env, JT_MAP, ENV_LIMITS),
    JF(struct api_exec_req, workdir, JT_STR, PATH_LIMITS),
    JF(struct api_exec_req, user, JT_STR, USER_LIMITS),
    JF(struct api_exec_req, tty, JT_BOOL),
    JF(struct api_exec_req, stdin, JT_BOOL),
    JF(struct api_exec_req, detach, JT_BOOL),
    JF(struct api_exec_req, rows, JT_U32, .max = UINT16_MAX),
    JF(struct api_exec_req, cols, JT_U32, .max = UINT16_MAX),
    JF(struct api_exec_req, timeout_ms, JT_U64, .max = LIMIT_EXEC_TIMEOUT),
    JF_END,
};

const struct jfield api_resize_req_table[] = {
    JF(struct api_resize_req, rows, JT_U32, .flags = JF_REQUIRED, .min = 1, .max = UINT16_MAX),
    JF(struct api_resize_req, cols, JT_U32, .flags = JF_REQUIRED, .min = 1, .max = UINT16_MAX),
    JF_END,
};

const struct jfield api_signal_req_table[] = {
    JF(struct api_signal_req, signal, JT_STR, .flags = JF_REQUIRED, .min = 1, .max = 16),
    JF_END,
};

const struct jfield api_run_req_table[] = {
    JF(struct api_run_req, command, JT_STRV, COMMAND_LIMITS),
    JF(struct api_run_req, env, JT_MAP, ENV_LIMITS),
    JF(struct api_run_req, workdir, JT_STR, PATH_LIMITS),
    JF(struct api_run_req, user, JT_STR, USER_LIMITS),
    JF(struct api_run_req, timeout_ms, JT_U64, .max = LIMIT_EXEC_TIMEOUT),
    JF(struct api_run_req, stdin, JT_STR, .max = LIMIT_RUN_STDIN),
    JF(struct api_run_req, stdin_base64, JT_BYTES, .max = LIMIT_RUN_STDIN),
    JF(struct api_run_req, base64, JT_BOOL),
    JF_END,
};

/* ---- replies: the client's limit is the size of the body ---- */

static const struct jfield workspace_table[] = {
    JF(struct api_workspace, path, JT_STR),
    JF(struct api_workspace, read_only, JT_BOOL),
    JF_END,
};

static const struct jfield image_ref_table[] = {
    JF(struct api_image_ref, name, JT_STR, .flags = JF_NULL),
    JF(struct api_image_ref, digest, JT_STR),
    JF_END,
};

const struct jfield api_owner_table[] = {
    JF(struct api_owner, uid, JT_U32),
    JF(struct api_owner, user, JT_STR, .flags = JF_NULL),
    JF_END,
};

static const struct jfield network_table[] = {
    JF(struct api_network, address, JT_STR, .flags = JF_NULL),
    JF(struct api_network, policy, JT_STR),
    JF_END,
};

const struct jfield api_sandbox_table[] = {
    JF(struct api_sandbox, id, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_sandbox, name, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_sandbox, state, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_sandbox, reason, JT_STR, .flags = JF_NULL),
    JF(struct api_sandbox, image, JT_OBJ, .table = image_ref_table),
    JF(struct api_sandbox, workspace, JT_OBJ, .flags = JF_OPT | JF_NULL, .table = workspace_table),
    JF(struct api_sandbox, cpus, JT_U32),
    JF(struct api_sandbox, memory, JT_U64),
    JF(struct api_sandbox, disk, JT_U64),
    JF(struct api_sandbox, env, JT_MAP),
    JF(struct api_sandbox, labels, JT_MAP),
    JF(struct api_sandbox, owner, JT_OBJ, .table = api_owner_table),
    JF(struct api_sandbox, machine, JT_STR),
    JF(struct api_sandbox, accel, JT_STR, .flags = JF_NULL),
    JF(struct api_sandbox, network, JT_OBJ, .flags = JF_OPT | JF_NULL, .table = network_table),
    JF(struct api_sandbox, created_at, JT_TIME),
    JF(struct api_sandbox, started_at, JT_TIME),
    JF(struct api_sandbox, stopped_at, JT_TIME),
    JF(struct api_sandbox, execs_running, JT_U32),
    JF(struct api_sandbox, ttl_ms, JT_U64),
    JF(struct api_sandbox, idle_timeout_ms, JT_U64),
    JF(struct api_sandbox, restart, JT_STR),
    JF(struct api_sandbox, restarts, JT_U32),
    JF(struct api_sandbox, stops_at, JT_TIME),
    JF(struct api_sandbox, idle_since, JT_TIME),
    JF(struct api_sandbox, starts_at, JT_TIME),
    JF_END,
};

const struct jfield api_sandbox_list_table[] = {
    JF(struct api_sandbox_list, sandboxes, JT_LIST, .flags = JF_REQUIRED,
       .table = api_sandbox_table, .item_size = sizeof(struct api_sandbox)),
    JF_END,
};

const struct jfield api_exec_table[] = {
    JF(struct api_exec, id, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_exec, sandbox, JT_STR),
    JF(struct api_exec, state, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_exec, command, JT_STRV),
    JF(struct api_exec, user, JT_STR, .flags = JF_NULL),
    JF(struct api_exec, workdir, JT_STR, .flags = JF_NULL),
    JF(struct api_exec, tty, JT_BOOL),
    JF(struct api_exec, stdin, JT_BOOL),
    JF(struct api_exec, detach, JT_BOOL),
    JF(struct api_exec, pid, JT_U32),
    JF(struct api_exec, end, JT_STR, .flags = JF_NULL),
    JF(struct api_exec, exit_code, JT_I32),
    JF(struct api_exec, signal, JT_U32),
    JF(struct api_exec, stdout_start, JT_U64),
    JF(struct api_exec, stdout_end, JT_U64),
    JF(struct api_exec, stderr_start, JT_U64),
    JF(struct api_exec, stderr_end, JT_U64),
    JF(struct api_exec, created_at, JT_TIME),
    JF(struct api_exec, ended_at, JT_TIME),
    JF_END,
};

const struct jfield api_exec_list_table[] = {
    JF(struct api_exec_list, execs, JT_LIST, .flags = JF_REQUIRED, .table = api_exec_table,
       .item_size = sizeof(struct api_exec)),
    JF_END,
};

const struct jfield api_run_table[] = {
    JF(struct api_run, end, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_run, exit_code, JT_I32, .flags = JF_REQUIRED),
    JF(struct api_run, signal, JT_U32),
    JF(struct api_run, stdout, JT_STR),
    JF(struct api_run, stderr, JT_STR),
    JF(struct api_run, stdout_base64, JT_BYTES),
    JF(struct api_run, stderr_base64, JT_BYTES),
    JF(struct api_run, stdout_truncated, JT_BOOL),
    JF(struct api_run, stderr_truncated, JT_BOOL),
    JF(struct api_run, duration_ms, JT_U64),
    JF_END,
};

const struct jfield api_image_table[] = {
    JF(struct api_image, name, JT_STR, .flags = JF_NULL),
    JF(struct api_image, digest, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_image, variant, JT_STR),
    JF(struct api_image, os, JT_STR),
    JF(struct api_image, kernel, JT_STR),
    JF(struct api_image, size, JT_U64),
    JF(struct api_image, sandboxes, JT_U32),
    JF(struct api_image, created_at, JT_TIME),
    JF_END,
};

const struct jfield api_image_list_table[] = {
    JF(struct api_image_list, images, JT_LIST, .flags = JF_REQUIRED, .table = api_image_table,
       .item_size = sizeof(struct api_image)),
    JF_END,
};

const struct jfield api_version_table[] = {
    JF(struct api_version, version, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_version, api, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_version, commit, JT_STR),
    JF(struct api_version, libvirt, JT_STR),
    JF(struct api_version, qemu, JT_STR),
    JF(struct api_version, sqlite, JT_STR),
    JF(struct api_version, microhttpd, JT_STR),
    JF_END,
};

static const struct jfield check_table[] = {
    JF(struct api_check, name, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_check, ok, JT_BOOL, .flags = JF_REQUIRED),
    JF(struct api_check, detail, JT_STR, .flags = JF_NULL),
    JF_END,
};

const struct jfield api_check_list_table[] = {
    JF(struct api_check_list, checks, JT_LIST, .flags = JF_REQUIRED, .table = check_table,
       .item_size = sizeof(struct api_check)),
    JF_END,
};

const struct jfield api_info_table[] = {
    JF(struct api_info, version, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_info, host, JT_STR),
    JF(struct api_info, kernel, JT_STR),
    JF(struct api_info, cpu, JT_STR),
    JF(struct api_info, cpus, JT_U32),
    JF(struct api_info, memory, JT_U64),
    JF(struct api_info, libvirt_uri, JT_STR),
    JF(struct api_info, machine, JT_STR),
    JF(struct api_info, accel, JT_STR),
    JF(struct api_info, accel_reason, JT_STR),
    JF(struct api_info, state_dir, JT_STR),
    JF(struct api_info, cgroup, JT_STR, .flags = JF_NULL),
    JF(struct api_info, sandboxes, JT_U32),
    JF(struct api_info, sandboxes_running, JT_U32),
    JF(struct api_info, images, JT_U32),
    JF(struct api_info, default_image, JT_STR),
    JF(struct api_info, default_memory, JT_U64),
    JF(struct api_info, default_disk, JT_U64),
    JF(struct api_info, default_cpus, JT_U32),
    JF(struct api_info, pid, JT_U32),
    JF(struct api_info, started_at, JT_TIME),
    JF_END,
};

const struct jfield api_quota_item_table[] = {
    JF(struct api_quota_item, quota, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_quota_item, unit, JT_STR),
    JF(struct api_quota_item, used, JT_U64, .flags = JF_REQUIRED),
    JF(struct api_quota_item, limit, JT_AMOUNT, .flags = JF_REQUIRED | JF_UNLIMITED),
    JF(struct api_quota_item, source, JT_STR),
    JF_END,
};

const struct jfield api_quota_table[] = {
    JF(struct api_quota, quotas, JT_LIST, .flags = JF_REQUIRED, .table = api_quota_item_table,
       .item_size = sizeof(struct api_quota_item)),
    JF(struct api_quota, owner, JT_OBJ, .table = api_owner_table),
    JF_END,
};

static const struct jfield error_details_table[] = {
    JF(struct api_error_details, quota, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_error_details, limit, JT_U64, .flags = JF_REQUIRED),
    JF(struct api_error_details, used, JT_U64, .flags = JF_REQUIRED),
    JF(struct api_error_details, requested, JT_U64, .flags = JF_REQUIRED),
    JF_END,
};

static const struct jfield error_body_table[] = {
    JF(struct api_error_body, code, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_error_body, message, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_error_body, hint, JT_STR),
    JF(struct api_error_body, request_id, JT_STR),
    JF(struct api_error_body, details, JT_OBJ, .flags = JF_OPT, .table = error_details_table),
    JF_END,
};

const struct jfield api_error_table[] = {
    JF(struct api_error, error, JT_OBJ, .flags = JF_REQUIRED, .table = error_body_table),
    JF_END,
};
