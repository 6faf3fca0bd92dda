/* SPDX-License-Identifier: MIT */
#include "common/restart.h"

#include "common/auto.h"
#include "common/limits.h"
#include "common/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *word;
    enum restart_policy policy;
} words[] = {
    { "no", RESTART_NO },
    { "on-failure", RESTART_ON_FAILURE },
    { "always", RESTART_ALWAYS },
    { "unless-stopped", RESTART_ALWAYS },
};

bool restart_parse(const char *word, struct restart *ret)
{
    static const char counted[] = "on-failure:";
    struct restart r = { 0 };

    if (strncmp(word, counted, sizeof(counted) - 1) == 0) {
        r.policy = RESTART_ON_FAILURE;
        if (!parse_u32(word + sizeof(counted) - 1, 1, LIMIT_RESTARTS, &r.max))
            return false;
        *ret = r;
        return true;
    }
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strcmp(words[i].word, word) == 0) {
            r.policy = words[i].policy;
            *ret = r;
            return true;
        }
    }
    return false;
}

bool restart_valid(const char *word)
{
    struct restart r;

    return restart_parse(word, &r);
}

const char *restart_format(const struct restart *r, char buf[RESTART_TEXT])
{
    if (r->policy == RESTART_ON_FAILURE && r->max)
        snprintf(buf, RESTART_TEXT, "on-failure:%" PRIu32, r->max);
    else
        snprintf(buf, RESTART_TEXT, "%s", words[r->policy].word);
    return buf;
}
