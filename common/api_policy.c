/* SPDX-License-Identifier: MIT
 *
 * What /v1 says about policies; the structs are in api.h with the others.
 */
#include "common/api.h"
#include "common/policy.h"

/* ---- requests ---- */

const struct jfield api_policy_set_req_table[] = {
    JF(struct api_policy_set_req, policy, JT_STR, .min = 1, .max = 63),
    JF(struct api_policy_set_req, rules, JT_STR, .max = POLICY_TEXT_MAX),
    JF_END,
};

const struct jfield api_policy_rules_req_table[] = {
    JF(struct api_policy_rules_req, verdict, JT_STR, .flags = JF_REQUIRED, .min = 1, .max = 16),
    JF(struct api_policy_rules_req, targets, JT_STRV, .flags = JF_REQUIRED, .min = 1,
       .max = POLICY_RULES_MAX, .item_max = POLICY_TARGET_TEXT),
    JF_END,
};

const struct jfield api_named_policy_req_table[] = {
    JF(struct api_named_policy_req, rules, JT_STR, .flags = JF_REQUIRED, .max = POLICY_TEXT_MAX),
    JF_END,
};

/* ---- replies ---- */

const struct jfield api_policy_rule_table[] = {
    JF(struct api_policy_rule, verdict, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy_rule, target, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy_rule, source, JT_STR),
    JF(struct api_policy_rule, added_by, JT_OBJ, .table = api_owner_table),
    JF(struct api_policy_rule, added_at, JT_TIME),
    JF(struct api_policy_rule, matches, JT_U64),
    JF_END,
};

const struct jfield api_policy_table[] = {
    JF(struct api_policy, sandbox, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy, base, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy, rules, JT_LIST, .flags = JF_REQUIRED, .table = api_policy_rule_table,
       .item_size = sizeof(struct api_policy_rule)),
    JF(struct api_policy, ceiling, JT_LIST, .table = api_policy_rule_table,
       .item_size = sizeof(struct api_policy_rule)),
    JF(struct api_policy, text, JT_STR),
    JF_END,
};

const struct jfield api_policy_verdict_table[] = {
    JF(struct api_policy_verdict, target, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy_verdict, verdict, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy_verdict, reason, JT_STR),
    JF(struct api_policy_verdict, rule, JT_STR, .flags = JF_NULL),
    JF(struct api_policy_verdict, source, JT_STR),
    JF_END,
};

static const struct jfield answer_table[] = {
    JF(struct api_policy_answer, name, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy_answer, address, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy_answer, expires_at, JT_TIME),
    JF(struct api_policy_answer, packets, JT_U64),
    JF(struct api_policy_answer, live, JT_BOOL),
    JF_END,
};

const struct jfield api_policy_why_table[] = {
    JF(struct api_policy_why, decision, JT_OBJ, .flags = JF_REQUIRED,
       .table = api_policy_verdict_table),
    JF(struct api_policy_why, rule, JT_OBJ, .flags = JF_OPT | JF_NULL,
       .table = api_policy_rule_table),
    JF(struct api_policy_why, answers, JT_LIST, .table = answer_table,
       .item_size = sizeof(struct api_policy_answer)),
    JF(struct api_policy_why, element, JT_STR, .flags = JF_NULL),
    JF(struct api_policy_why, packets, JT_U64),
    JF(struct api_policy_why, denied, JT_U64),
    JF_END,
};

const struct jfield api_policy_event_table[] = {
    JF(struct api_policy_event, time, JT_TIME),
    JF(struct api_policy_event, sandbox, JT_STR),
    JF(struct api_policy_event, kind, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy_event, verdict, JT_STR, .flags = JF_NULL),
    JF(struct api_policy_event, name, JT_STR, .flags = JF_NULL),
    JF(struct api_policy_event, address, JT_STR, .flags = JF_NULL),
    JF(struct api_policy_event, port, JT_U32),
    JF(struct api_policy_event, proto, JT_STR, .flags = JF_NULL),
    JF(struct api_policy_event, rule, JT_STR, .flags = JF_NULL),
    JF(struct api_policy_event, reason, JT_STR, .flags = JF_NULL),
    JF(struct api_policy_event, count, JT_U64),
    JF_END,
};

static const struct jfield probe_table[] = {
    JF(struct api_policy_probe, probe, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_policy_probe, expected, JT_STR),
    JF(struct api_policy_probe, seen, JT_STR),
    JF(struct api_policy_probe, pass, JT_BOOL, .flags = JF_REQUIRED),
    JF_END,
};

const struct jfield api_policy_proof_table[] = {
    JF(struct api_policy_proof, passed, JT_U32),
    JF(struct api_policy_proof, failed, JT_U32, .flags = JF_REQUIRED),
    JF(struct api_policy_proof, probes, JT_LIST, .table = probe_table,
       .item_size = sizeof(struct api_policy_probe)),
    JF_END,
};

const struct jfield api_named_policy_table[] = {
    JF(struct api_named_policy, name, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_named_policy, kind, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_named_policy, description, JT_STR, .flags = JF_NULL),
    JF(struct api_named_policy, rules, JT_STR),
    JF(struct api_named_policy, owner, JT_OBJ, .table = api_owner_table),
    JF(struct api_named_policy, changed_at, JT_TIME),
    JF_END,
};

const struct jfield api_named_policy_list_table[] = {
    JF(struct api_named_policy_list, policies, JT_LIST, .flags = JF_REQUIRED,
       .table = api_named_policy_table, .item_size = sizeof(struct api_named_policy)),
    JF_END,
};
