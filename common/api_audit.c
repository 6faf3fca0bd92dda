/* SPDX-License-Identifier: MIT
 *
 * What /v1 says about the audit log, and the lines of its file; the structs are in api.h.
 */
#include "common/api.h"

static const struct jfield audit_sudo_table[] = {
    JF(struct api_audit_sudo, uid, JT_U32),
    JF(struct api_audit_sudo, user, JT_STR, .flags = JF_NULL),
    JF_END,
};

static const struct jfield audit_who_table[] = {
    JF(struct api_audit_who, uid, JT_U32),
    JF(struct api_audit_who, user, JT_STR, .flags = JF_NULL),
    JF(struct api_audit_who, pid, JT_U32),
    JF(struct api_audit_who, comm, JT_STR, .flags = JF_NULL),
    JF(struct api_audit_who, ssh, JT_STR),
    JF(struct api_audit_who, sudo, JT_OBJ, .flags = JF_OPT, .table = audit_sudo_table),
    JF_END,
};

static const struct jfield audit_exec_table[] = {
    JF(struct api_audit_exec, program, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_audit_exec, arguments, JT_U32),
    JF_END,
};

static const struct jfield audit_mount_table[] = {
    JF(struct api_audit_mount, path, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_audit_mount, read_only, JT_BOOL),
    JF_END,
};

static const struct jfield audit_change_table[] = {
    JF(struct api_audit_change, verb, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_audit_change, what, JT_STR),
    JF(struct api_audit_change, targets, JT_U32),
    JF(struct api_audit_change, digest, JT_STR),
    JF_END,
};

static const struct jfield audit_result_table[] = {
    JF(struct api_audit_result, status, JT_U32, .flags = JF_REQUIRED),
    JF(struct api_audit_result, code, JT_STR, .flags = JF_NULL),
    JF(struct api_audit_result, denied, JT_BOOL),
    JF(struct api_audit_result, replayed, JT_BOOL),
    JF_END,
};

static const struct jfield audit_torn_table[] = {
    JF(struct api_audit_torn, length, JT_U64, .flags = JF_REQUIRED),
    JF(struct api_audit_torn, digest, JT_STR),
    JF_END,
};

static const struct jfield audit_waited_table[] = {
    JF(struct api_audit_waited, since, JT_TIME, .flags = JF_REQUIRED),
    JF_END,
};

static const struct jfield audit_lost_table[] = {
    JF(struct api_audit_lost, count, JT_U64, .flags = JF_REQUIRED),
    JF_END,
};

const struct jfield api_audit_record_table[] = {
    JF(struct api_audit_record, seq, JT_U64, .flags = JF_REQUIRED, .min = 1),
    JF(struct api_audit_record, time, JT_TIME),
    JF(struct api_audit_record, kind, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_audit_record, request, JT_STR),
    JF(struct api_audit_record, who, JT_OBJ, .flags = JF_OPT, .table = audit_who_table),
    JF(struct api_audit_record, action, JT_STR),
    JF(struct api_audit_record, sandbox, JT_STR),
    JF(struct api_audit_record, name, JT_STR),
    JF(struct api_audit_record, target, JT_STR),
    JF(struct api_audit_record, exec, JT_STR),
    JF(struct api_audit_record, command, JT_OBJ, .flags = JF_OPT, .table = audit_exec_table),
    JF(struct api_audit_record, mount, JT_OBJ, .flags = JF_OPT, .table = audit_mount_table),
    JF(struct api_audit_record, change, JT_OBJ, .flags = JF_OPT, .table = audit_change_table),
    JF(struct api_audit_record, result, JT_OBJ, .flags = JF_OPT, .table = audit_result_table),
    JF(struct api_audit_record, torn, JT_OBJ, .flags = JF_OPT, .table = audit_torn_table),
    JF(struct api_audit_record, lost, JT_OBJ, .flags = JF_OPT, .table = audit_lost_table),
    JF(struct api_audit_record, waited, JT_OBJ, .flags = JF_OPT, .table = audit_waited_table),
    JF(struct api_audit_record, prev, JT_STR, .flags = JF_REQUIRED, .min = 64, .max = 64),
    JF_END,
};

static const struct jfield audit_break_table[] = {
    JF(struct api_audit_break, file, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_audit_break, line, JT_U64, .flags = JF_REQUIRED),
    JF(struct api_audit_break, seq, JT_U64),
    JF(struct api_audit_break, reason, JT_STR),
    JF_END,
};

const struct jfield api_audit_verdict_table[] = {
    JF(struct api_audit_verdict, intact, JT_BOOL, .flags = JF_REQUIRED),
    JF(struct api_audit_verdict, count, JT_U64, .flags = JF_REQUIRED),
    JF(struct api_audit_verdict, first, JT_U64),
    JF(struct api_audit_verdict, last, JT_U64),
    JF(struct api_audit_verdict, head, JT_STR, .flags = JF_NULL),
    JF(struct api_audit_verdict, broken, JT_OBJ, .flags = JF_OPT | JF_NULL,
       .table = audit_break_table),
    JF_END,
};
