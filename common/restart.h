/* SPDX-License-Identifier: MIT
 *
 * restart: what follows when a sandbox ends by itself: "no", "on-failure", "on-failure:N",
 * "always". "unless-stopped" is read as "always", which never brings back what somebody stopped.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum restart_policy { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS, RESTART_POLICY_MAX };

struct restart {
    enum restart_policy policy;
    uint32_t max;           /* RESTART_ON_FAILURE: so often; 0 without end */
};

#define RESTART_RULE "no, on-failure, on-failure:N or always"
#define RESTART_TEXT 24

bool restart_parse(const char *word, struct restart *ret);
bool restart_valid(const char *word);   /* for tables of fields */
const char *restart_format(const struct restart *r, char buf[RESTART_TEXT]);
