/* SPDX-License-Identifier: MIT */
#include "common/api.h"
#include "daemon/daemon.h"
#include "daemon/handlers.h"
#include "daemon/peer.h"
#include "daemon/quota.h"

#include <stdlib.h>

/* The caller's own as he connected; another's as his account is. */
int h_quota(struct call *c, struct err *e)
{
    struct identity who = c->caller.id;
    struct quota_state state[QUOTA_MAX];
    struct api_quota_item items[QUOTA_MAX];
    uint64_t uid = who.uid;

    if (call_query_u64(c, "uid", UINT32_MAX - 1, &uid, e) < 0)
        return -1;
    if (uid != who.uid && !c->caller.admin && !c->caller.read_only)
        return err_set(e, ERR_DENIED,
                       "only root and members of the admin group may ask about others");
    if (uid != who.uid)
        peer_lookup((uid_t)uid, &who);
    quota_look(c->daemon->quota, &who, state);
    for (int w = 0; w < QUOTA_MAX; w++)     /* all borrowed */
        items[w] = (struct api_quota_item){
            .quota = (char *)quota_key((enum quota_what)w),
            .unit = (char *)(quota_is_bytes((enum quota_what)w) ? "bytes" : "count"),
            .used = state[w].used, .limit = state[w].limit, .source = (char *)state[w].source };
    struct api_quota q = { .quotas = { .items = items, .n = QUOTA_MAX }, .owner.uid = who.uid };
    if (peer_user_name(who.uid, &q.owner.user, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_quota_table, &q, e);
    free(q.owner.user);
    return r;
}
