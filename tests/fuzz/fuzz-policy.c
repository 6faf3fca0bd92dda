/* SPDX-License-Identifier: MIT
 *
 * Files of rules. What is taken has one form that gives the same rule again, and decides something.
 */
#include "common/auto.h"
#include "common/policy.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct policy_rule *rules = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    if (policy_rules_parse((const char *)data, size, &rules, &n, &e) < 0) {
        if (rules || e.code == ERR_NONE || !e.msg[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < n && i < 20; i++) {
        char text[POLICY_TARGET_TEXT], again[POLICY_TARGET_TEXT];
        struct policy_target t;
        int rule;
        policy_target_format(&rules[i].target, text);
        if (policy_target_parse(text, &t, &e) < 0)
            abort();
        policy_target_format(&t, again);
        if (strcmp(text, again) != 0)
            abort();
        struct policy_question q = { .name = t.kind == POLICY_ADDRESS ? NULL : t.name,
                                     .address = t.address, .has_address = t.kind == POLICY_ADDRESS,
                                     .port = t.port_hi, .proto = POLICY_TCP };
        if (policy_decide(rules, n, &q, &rule) == POLICY_ALLOW && (rule < 0 || rule >= (int)n))
            abort();
        if (q.name)
            policy_decide_name(rules, n, q.name, &rule);
    }
    free(rules);
    return 0;
}
