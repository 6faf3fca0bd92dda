/* SPDX-License-Identifier: MIT
 *
 * What `quota` of daemon.json may say, and what counts where it says nothing.
 */
#include "common/limits.h"
#include "daemon/quota.h"

#include <string.h>

#define NAME_MAX_BYTES 256      /* of a user or group; directories have longer ones than passwd */

static bool name_ok(const char *s)
{
    return !strchr(s, ':') && !strchr(s, '/');
}

#define QUOTA_FLAGS(bytes) (JF_UNLIMITED | ((bytes) ? JF_SIZE : 0))
#define QUOTA_FIELD(constant, key_, bytes)                                             \
    { .key = key_, .type = JT_AMOUNT, .offset = offsetof(struct quota_entry, limit) +  \
                                                (constant) * sizeof(uint64_t),         \
      .flags = QUOTA_FLAGS(bytes), .max = (bytes) ? INT64_MAX : INT32_MAX, .def = QUOTA_UNSET },

static const struct jfield entry_table[] = {
    QUOTA_TABLE(QUOTA_FIELD)
    JF_END
};

#define ENTRIES .max = QUOTA_ENTRIES, .item_max = NAME_MAX_BYTES, .check = name_ok,        \
                .rule = "the name or number of a user or group", .table = entry_table,    \
                .item_size = sizeof(struct quota_entry)

const struct jfield quota_config_table[] = {
    { .key = "default", .type = JT_OBJ, .offset = offsetof(struct quota_config, fallback),
      .table = entry_table },
    JF(struct quota_config, users, JT_DICT, ENTRIES),
    JF(struct quota_config, groups, JT_DICT, ENTRIES),
    JF_END
};

static uint64_t at_least(uint64_t v, uint64_t min)
{
    return v > min ? v : min;
}

/* Enough for one developer with several agents, and an end for a loop that forgets its `rm`:
 *
 * sandboxes    64 of the 4096 a daemon has
 * cpus         virtual processors take turns, so there may be more than the host has: four for
 *              each, and 16 on a small host, where eight sandboxes idle beside one that works
 * memory       what guests have touched is gone until they stop: three quarters of the host's, the
 *              rest is for the host and for others. Guests seldom touch all they have, so four of
 *              the default size are allowed whatever the host has
 * disk         disks grow as they are written, and `min_free_disk` guards the host: what that many
 *              sandboxes of default size have
 * execs        four sandboxes full of them
 * connections  half of what the daemon has; a request is on a connection, so as many requests
 * replies      a quarter of what the daemon has: two of the longest answers there are, or a MiB for
 *              each request
 */
void quota_defaults(struct quota_config *c, const struct quota_host *host)
{
    const uint64_t values[] = {
        [QUOTA_SANDBOXES] = 64,
        [QUOTA_CPUS] = at_least(4 * (uint64_t)host->cpus, 16),
        [QUOTA_MEMORY] = at_least(host->memory / 4 * 3, 4 * host->default_memory) & ~(MIB - 1),
        [QUOTA_DISK] = 64 * host->default_disk,
        [QUOTA_EXECS] = 4 * LIMIT_EXECS,
        [QUOTA_CONNECTIONS] = LIMIT_CONNECTIONS / 2,
        [QUOTA_REQUESTS] = LIMIT_CONNECTIONS / 2,
        [QUOTA_REPLIES] = LIMIT_REPLIES / 4,
    };
    _Static_assert(sizeof(values) / sizeof(values[0]) == QUOTA_MAX, "a default for each");

    for (int w = 0; w < QUOTA_MAX; w++)
        if (c->fallback.limit[w] == QUOTA_UNSET)
            c->fallback.limit[w] = values[w];
}
