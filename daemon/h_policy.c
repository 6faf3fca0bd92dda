/* SPDX-License-Identifier: MIT
 *
 * Policies: of a sandbox, with names, and what they did.
 */
#include "common/api.h"
#include "common/auto.h"
#include "daemon/daemon.h"
#include "daemon/egress_prove.h"
#include "daemon/events.h"
#include "daemon/handlers.h"

#include <string.h>

/* --- of a sandbox --- */

int h_policy_get(struct call *c, struct err *e)
{
    struct api_policy p = { 0 };

    if (egress_policy(c->daemon->egress, vm_id(c->vm), &p, e) < 0)
        return -1;
    int r = vm_policy_begins(c->vm, p.base, e);
    if (r == 0)
        r = reply_json(c, 200, api_policy_table, &p, e);
    json_done(api_policy_table, &p, sizeof(p));
    return r;
}

static void tell(struct call *c, const char *what)
{
    events_add(c->daemon->events, &(struct event){ .kind = EVENT_POLICY_CHANGE, .detail = what,
                                                   .sandbox = vm_id(c->vm) });
}

int h_policy_set(struct call *c, struct err *e)
{
    const struct api_policy_set_req *req = c->body;

    if (egress_set(c->daemon->egress, vm_id(c->vm), c->caller.id.uid, c->body, e) < 0)
        return -1;
    tell(c, req->policy ? req->policy : "rules");
    return h_policy_get(c, e);
}

int h_policy_rules(struct call *c, struct err *e)
{
    const struct api_policy_rules_req *req = c->body;
    autosbuf struct sbuf what = SBUF(LIMIT_BODY);

    if (egress_change(c->daemon->egress, vm_id(c->vm), c->caller.id.uid, c->body, e) < 0)
        return -1;
    sbuf_fmt(&what, "%s", req->verdict);
    for (size_t i = 0; i < req->targets.n; i++) {
        sbuf_chr(&what, ' ');
        sbuf_text(&what, req->targets.items[i], strlen(req->targets.items[i]));
    }
    tell(c, sbuf_str(&what));
    return h_policy_get(c, e);
}

static int target(const struct call *c, const char **ret, struct err *e)
{
    *ret = call_query(c, "target");
    return *ret ? 0 : err_set(e, ERR_FIELD_MISSING, "query parameter 'target' is needed");
}

int h_policy_check(struct call *c, struct err *e)
{
    struct api_policy_verdict v = { 0 };
    const char *what;

    if (target(c, &what, e) < 0 ||
        egress_check(c->daemon->egress, vm_id(c->vm), what, &v, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_policy_verdict_table, &v, e);
    json_done(api_policy_verdict_table, &v, sizeof(v));
    return r;
}

int h_policy_why(struct call *c, struct err *e)
{
    struct api_policy_why w = { 0 };
    const char *what;

    if (target(c, &what, e) < 0 || egress_why(c->daemon->egress, vm_id(c->vm), what, &w, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_policy_why_table, &w, e);
    json_done(api_policy_why_table, &w, sizeof(w));
    return r;
}

/* --- the proof --- */

AUTO_DEFINE(proof, struct proof, proof_free)

static int run_probes(struct call *c, struct proof *p, const char *lines, struct err *e)
{
    static char *command[] = { (char *)"/proc/1/exe", (char *)"probe", NULL };
    struct api_run_req req = {
        .command = { .items = command, .n = 2 }, .user = (char *)"root", .workdir = (char *)"/",
        .stdin = (char *)lines, .timeout_ms = PROOF_ROUND_MS,
    };
    struct api_run r = { 0 };

    if (call_run(c, &req, &r, e) < 0)
        return -1;
    bool done = strcmp(r.end, "exit") == 0 && r.exit_code == 0 && r.stdout;
    if (done)
        proof_take(p, r.stdout);
    json_done(api_run_table, &r, sizeof(r));
    if (done)
        return 0;
    err_set(e, ERR_GUEST, "the guest's agent could not run the probes");
    return err_hint(e, "an image of an older sandboxd has none: `sandboxd image build`");
}

int h_policy_prove(struct call *c, struct err *e)
{
    autotype(proof) struct proof *p = NULL;
    struct api_policy_proof proof = { 0 };

    if (proof_new(c->daemon->egress, vm_id(c->vm), &p, e) < 0)
        return -1;
    for (int round = 0; round < PROOF_ROUNDS; round++) {
        const char *lines = proof_ask(p, round);
        if (lines && run_probes(c, p, lines, e) < 0)
            return -1;
    }
    if (proof_finish(p, &proof, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_policy_proof_table, &proof, e);
    json_done(api_policy_proof_table, &proof, sizeof(proof));
    return r;
}

/* --- with names --- */

int h_named_policy_list(struct call *c, struct err *e)
{
    struct api_named_policy_list l = { 0 };

    if (egress_named(c->daemon->egress, c->caller.id.uid, NULL, &l, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_named_policy_list_table, &l, e);
    json_done(api_named_policy_list_table, &l, sizeof(l));
    return r;
}

int h_named_policy_get(struct call *c, struct err *e)
{
    struct api_named_policy_list l = { 0 };

    if (egress_named(c->daemon->egress, c->caller.id.uid, c->param[0], &l, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_named_policy_table, l.policies.items, e);
    json_done(api_named_policy_list_table, &l, sizeof(l));
    return r;
}

int h_named_policy_put(struct call *c, struct err *e)
{
    const struct api_named_policy_req *req = c->body;

    if (egress_define(c->daemon->egress, c->caller.id.uid, c->param[0], req->rules, e) < 0)
        return -1;
    return h_named_policy_get(c, e);
}

int h_named_policy_delete(struct call *c, struct err *e)
{
    if (egress_undefine(c->daemon->egress, c->caller.id.uid, c->param[0], e) < 0)
        return -1;
    return reply_empty(c);
}
