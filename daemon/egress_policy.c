/* SPDX-License-Identifier: MIT
 *
 * egress_policy: what the API says and changes about policies.
 *
 * A change goes store, kernel, memory: the store alone can fail for want of space, and a kernel
 * that refuses is answered by writing the old rules back. A daemon that dies in between finds the
 * new rules in the store at its next start and puts them in force.
 */
#include "daemon/egress_priv.h"

#include "common/io.h"
#include "common/log.h"
#include "common/name.h"
#include "common/sbuf.h"
#include "daemon/fault.h"
#include "daemon/peer.h"
#include "daemon/presets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int dup_into(char **ret, const char *s, struct err *e)
{
    *ret = s ? strdup(s) : NULL;
    return s && !*ret ? err_nomem(e) : 0;
}

/* --- what is asked for --- */

static int check_ceiling(const struct egress *g, const struct ruleset *s, struct err *e)
{
    for (size_t i = 0; i < s->n; i++) {
        const char *from = s->rows[i].source;
        /* What a preset has beyond the ceiling is merely without effect. */
        if (strcmp(from, "user") != 0 && strcmp(from, "rules") != 0)
            continue;
        if (ruleset_check_ceiling(&s->rules[i], g->ceiling, g->n_ceiling, e) < 0)
            return -1;
    }
    return 0;
}

static int add_all(struct ruleset *s, bool allow, const struct strv *targets, uid_t uid,
                   struct err *e)
{
    for (size_t i = 0; i < targets->n; i++)
        if (ruleset_add(s, allow, targets->items[i], uid, e) < 0)
            return -1;
    return 0;
}

int egress_request(struct egress *g, uid_t uid, const struct api_create_req *req,
                   struct ruleset *ret, struct err *e)
{
    autoruleset struct ruleset s = RULESET_INIT;
    autocompiled struct compiled c = COMPILED_INIT;     /* it can be: nothing is made of it yet */

    if (req->policy && req->policy_rules)
        return err_set(e, ERR_FIELD_INVALID, "either policy or policy_rules, not both");
    int r = req->policy_rules
                ? ruleset_begin_text(&s, req->policy_rules, uid, e)
                : ruleset_begin(&s, g->store, req->policy ? req->policy : g->config->default_policy,
                                uid, e);
    if (r < 0)
        return req->policy_rules ? err_wrap(e, "policy") : -1;
    if (add_all(&s, true, &req->allow, uid, e) < 0 || add_all(&s, false, &req->deny, uid, e) < 0 ||
        check_ceiling(g, &s, e) < 0 || rules_compile(g, &s, &c, e) < 0)
        return -1;
    *ret = s;
    s = RULESET_INIT;
    return 0;
}

/* --- changes --- */

static void tell_change(struct egress *g, struct box *b, uid_t uid, const char *what)
{
    char reason[160];
    struct api_policy_event ev = { .kind = (char *)"change", .reason = reason };

    snprintf(reason, sizeof(reason), "%.100s by uid %u", what, (unsigned)uid);
    log_event(g, b, &ev);
}

/* Whose flows are to be cut by new rules, for a daemon that comes after one that was killed before
 * it had: "" nobody's. A flow that is let through is not asked for again. */
static int note_cut(struct egress *g, const char *id, struct err *e)
{
    return store_choice_put(g->store, EGRESS_CHOICE_CUT, id, e);
}

/* Holder of `change`. s: taken over on success. */
static int put_in_force(struct egress *g, const char *id, uid_t uid, struct ruleset *s,
                        const struct ruleset *before, const char *what, struct err *e)
{
    autocompiled struct compiled c = COMPILED_INIT;
    struct err ignored = ERR_INIT;
    int r = 0;

    if (check_ceiling(g, s, e) < 0 || rules_compile(g, s, &c, e) < 0 ||
        fault_at(FAULT_POLICY_STORE, e) < 0 || note_cut(g, id, e) < 0 ||
        ruleset_store(s, g->store, id, e) < 0)
        return -1;
    pthread_mutex_lock(&g->lock);
    repair_if_dirty(g);
    struct box *b = box_find(g, id);
    if (b)
        r = fault_at(FAULT_POLICY_FILTER, e) < 0 ? -1 : box_replace(g, b, s, &c, e);
    g->dirty |= r < 0 && e->sys == ENOENT;      /* our sets were taken away, and nobody said so */
    if (b && r == 0) {
        fault_here(FAULT_POLICY_FLOWS);
        box_cut_flows(g, b);
        b->cut_again = true;
        tell_change(g, b, uid, what);
    }
    pthread_mutex_unlock(&g->lock);
    if (r == 0) {
        if (note_cut(g, "", &ignored) < 0)
            log_warn(LOG_CTX(.sandbox = id, .error = &ignored),
                     "its connections are gone through again at the next start, ignoring");
        fault_here(FAULT_POLICY_ANSWER);
        return 0;
    }
    fault_here(FAULT_POLICY_UNDO);
    if (ruleset_store(before, g->store, id, &ignored) < 0)
        log_err(LOG_CTX(.sandbox = id, .error = &ignored),
                "the old rules cannot be written back; the next start has the new ones");
    return err_wrap(e, "the rules stay as they were");
}

int egress_set(struct egress *g, const char *id, uid_t uid, const struct api_policy_set_req *req,
               struct err *e)
{
    autoruleset struct ruleset before = RULESET_INIT, s = RULESET_INIT;
    char what[LIMIT_NAME + 32];

    if (!req->policy == !req->rules)
        return err_set(e, ERR_FIELD_INVALID, "either policy or rules, one of them");
    hold_lock(&g->change);
    if (ruleset_load(&before, g->store, id, e) < 0 ||
        (req->policy ? ruleset_begin(&s, g->store, req->policy, uid, e)
                     : ruleset_begin_text(&s, req->rules, uid, e)) < 0)
        return -1;
    snprintf(what, sizeof(what), "set to %s", s.base);
    return put_in_force(g, id, uid, &s, &before, what, e);
}

int egress_change(struct egress *g, const char *id, uid_t uid,
                  const struct api_policy_rules_req *req, struct err *e)
{
    autoruleset struct ruleset before = RULESET_INIT, s = RULESET_INIT;
    bool allow = strcmp(req->verdict, "allow") == 0, deny = strcmp(req->verdict, "deny") == 0;
    char what[POLICY_TARGET_TEXT + 16];

    if (!allow && !deny && strcmp(req->verdict, "remove") != 0)
        return err_set(e, ERR_FIELD_INVALID, "verdict: allow, deny or remove, not '%s'",
                       req->verdict);
    hold_lock(&g->change);
    if (ruleset_load(&before, g->store, id, e) < 0 || ruleset_copy(&s, &before, e) < 0)
        return -1;
    for (size_t i = 0; i < req->targets.n; i++) {
        const char *target = req->targets.items[i];
        int r = allow || deny ? ruleset_add(&s, allow, target, uid, e)
                              : ruleset_remove(&s, target, e);
        if (r < 0)
            return -1;
        if (r == 0 && !allow && !deny) {
            err_set(e, ERR_POLICY_NOT_FOUND, "no rule about '%s'", target);
            return err_hint(e, "`sbx policy ls NAME` lists them; a target is written as there");
        }
    }
    snprintf(what, sizeof(what), "%s %s%s", req->verdict, req->targets.items[0],
             req->targets.n > 1 ? ", …" : "");
    return put_in_force(g, id, uid, &s, &before, what, e);
}

/* --- what there is --- */

/* Rules as the box has them, or as the store does. */
static int current_rules(struct egress *g, const char *id, struct ruleset *ret, struct err *e)
{
    int r = -1;

    pthread_mutex_lock(&g->lock);
    struct box *b = box_find(g, id);
    if (b)
        r = ruleset_copy(ret, &b->rules, e);
    for (size_t i = 0; b && r == 0 && i < ret->n; i++)
        ret->rows[i].matches += b->fresh[i];
    pthread_mutex_unlock(&g->lock);
    return b ? r : ruleset_load(ret, g->store, id, e);
}

static int fill_rule(const struct policy_rule *rule, const struct rule_row *row,
                     struct api_policy_rule *ret, struct err *e)
{
    char target[POLICY_TARGET_TEXT];

    policy_target_format(&rule->target, target);
    ret->present = true;
    if (dup_into(&ret->verdict, rule->verdict == POLICY_ALLOW ? "allow" : "deny", e) < 0 ||
        dup_into(&ret->target, target, e) < 0 ||
        dup_into(&ret->source, row ? row->source : "ceiling", e) < 0)
        return -1;
    if (row) {
        ret->added_by.uid = row->uid;
        ret->added_at = row->added_at;
        ret->matches = row->matches;
        return peer_user_name(row->uid, &ret->added_by.user, e);
    }
    return 0;
}

static int fill_rules(const struct policy_rule *rules, const struct rule_row *rows, size_t n,
                      struct jlist *ret, struct err *e)
{
    struct api_policy_rule *items = calloc(n + 1, sizeof(*items));

    if (!items)
        return err_nomem(e);
    *ret = (struct jlist){ .items = items, .n = n };
    for (size_t i = 0; i < n; i++)
        if (fill_rule(&rules[i], rows ? &rows[i] : NULL, &items[i], e) < 0)
            return -1;
    return 0;
}

int egress_policy(struct egress *g, const char *id, struct api_policy *ret, struct err *e)
{
    autoruleset struct ruleset s = RULESET_INIT;
    struct api_policy p = { 0 };

    if (current_rules(g, id, &s, e) < 0)
        return -1;
    if (dup_into(&p.sandbox, id, e) < 0 || dup_into(&p.base, s.base, e) < 0 ||
        ruleset_text(&s, &p.text, e) < 0 || fill_rules(s.rules, s.rows, s.n, &p.rules, e) < 0 ||
        fill_rules(g->ceiling, NULL, g->n_ceiling, &p.ceiling, e) < 0) {
        json_done(api_policy_table, &p, sizeof(p));
        return -1;
    }
    *ret = p;
    return 0;
}

/* --- check and why --- */

struct asked {
    struct policy_target target;
    char text[POLICY_TARGET_TEXT];
    bool any_port;
};

static int parse_asked(const char *target, struct asked *ret, struct err *e)
{
    struct policy_target *t = &ret->target;

    if (policy_target_parse(target, t, e) < 0)
        return -1;
    if (t->kind == POLICY_ONE_LABEL || t->kind == POLICY_SUBTREE ||
        (t->kind == POLICY_ADDRESS && t->prefix != 32))
        return err_set(e, ERR_INVALID, "'%s' is many; ask about one name or address", target);
    ret->any_port = t->port_lo == 0 && t->port_hi == UINT16_MAX;
    if (!ret->any_port && t->port_lo != t->port_hi)
        return err_set(e, ERR_INVALID, "'%s' has many ports; ask about one", target);
    policy_target_format(t, ret->text);
    return 0;
}

/* Any port of an address: the first range that has it; if there is none, the reason for 443. */
static struct policy_ruling judge_any_port(const struct policy *p, struct policy_question *q)
{
    autofree struct policy_span *spans = NULL;
    struct err ignored = ERR_INIT;
    size_t n = 0;

    if (policy_compile(p, q->host, &spans, &n, &ignored) == 0)
        for (size_t i = 0; i < n; i++)
            if (spans[i].lo <= q->address && q->address <= spans[i].hi)
                return (struct policy_ruling){ POLICY_ALLOW, spans[i].rule, false };
    q->port = 443;
    q->proto = POLICY_TCP;
    return policy_judge(p, q);
}

/* By the rules alone. */
static void judge_asked(const struct egress *g, const struct ruleset *s, const struct asked *a,
                        struct ruled *ret)
{
    const struct policy p = { s->rules, s->n, g->ceiling, g->n_ceiling };
    const struct policy_target *t = &a->target;
    struct policy_question q = { .port = t->port_lo,
                                 .proto = t->protos ? t->protos & -t->protos : POLICY_TCP };

    *ret = (struct ruled){ 0 };
    if (t->kind == POLICY_NAME) {
        q.name = t->name;
        ret->ruling = a->any_port ? policy_judge_name(&p, t->name) : policy_judge(&p, &q);
    } else if (is_neighbour(g, t->address)) {
        ruled_neighbour(ret);
        return;
    } else {
        q.address = t->address;
        q.has_address = true;
        q.host = link_is_host(t->address);
        ret->ruling = a->any_port ? judge_any_port(&p, &q) : policy_judge(&p, &q);
    }
    ruled_explain(g, s, &q, ret);
}

static int fill_verdict(const struct asked *a, const struct ruled *r,
                        struct api_policy_verdict *ret, struct err *e)
{
    if (dup_into(&ret->target, a->text, e) < 0 ||
        dup_into(&ret->verdict, r->ruling.verdict == POLICY_ALLOW ? "allow" : "deny", e) < 0 ||
        dup_into(&ret->reason, r->reason, e) < 0 ||
        dup_into(&ret->rule, r->rule[0] ? r->rule : NULL, e) < 0 ||
        dup_into(&ret->source, r->source, e) < 0)
        return -1;
    return 0;
}

/* The rules; and for an address of a running sandbox the names that led there just now. */
static int decide(struct egress *g, const char *id, const struct asked *a, struct ruleset *rules,
                  struct ruled *ret, struct err *e)
{
    const struct policy_target *t = &a->target;

    if (current_rules(g, id, rules, e) < 0)
        return -1;
    judge_asked(g, rules, a, ret);
    if (ret->ruling.verdict == POLICY_ALLOW || t->kind != POLICY_ADDRESS || a->any_port)
        return 0;
    pthread_mutex_lock(&g->lock);
    struct box *b = box_find(g, id);
    struct ruled live;
    if (b) {
        box_judge(g, b, t->address, t->port_lo, t->protos ? t->protos & -t->protos : POLICY_TCP,
                  &live);
        if (live.ruling.verdict == POLICY_ALLOW) {
            *ret = live;
            snprintf(ret->reason, sizeof(ret->reason), "%.150s led there", live.name);
            ret->name = NULL;
        }
    }
    pthread_mutex_unlock(&g->lock);
    return 0;
}

int egress_check(struct egress *g, const char *id, const char *target,
                 struct api_policy_verdict *ret, struct err *e)
{
    autoruleset struct ruleset rules = RULESET_INIT;
    struct asked a;
    struct ruled r;

    if (parse_asked(target, &a, e) < 0 || decide(g, id, &a, &rules, &r, e) < 0)
        return -1;
    if (fill_verdict(&a, &r, ret, e) == 0)
        return 0;
    json_done(api_policy_verdict_table, ret, sizeof(*ret));
    return -1;
}

struct search {
    const struct asked *asked;
    const struct box *box;
    struct api_policy_why *why;
    struct api_policy_answer *answers;
    int failed;
};

static bool is_about(const struct asked *a, const char *name, uint32_t address)
{
    return a->target.kind == POLICY_ADDRESS ? a->target.address == address
                                            : strcmp(a->target.name, name) == 0;
}

static bool has_port(const struct asked *a, const struct filter_elem *x)
{
    return a->any_port || (x->port_lo <= a->target.port_lo && a->target.port_lo <= x->port_hi &&
                           (!a->target.protos || (a->target.protos & x->proto)));
}

static void element_text(const struct filter_elem *x, char set, const char *id, char *buf,
                         size_t size)
{
    char lo[ADDRESS_TEXT], hi[ADDRESS_TEXT];

    address_format(x->lo, lo);
    address_format(x->hi, hi);
    snprintf(buf, size, "%s%s%s %s %u-%u in set %c-%s", lo, x->lo == x->hi ? "" : "-",
             x->lo == x->hi ? "" : hi, x->proto == POLICY_UDP ? "udp" : "tcp", x->port_lo,
             x->port_hi, set, id);
}

static void found(struct search *s, const struct filter_elem *x, char set)
{
    char text[160];

    s->why->packets += x->packets;
    if (s->why->element)
        return;
    element_text(x, set, s->box->id, text, sizeof(text));
    s->why->element = strdup(text);
}

static void on_static(struct search *s, const struct filter_elem *x, char set)
{
    const struct policy_target *t = &s->asked->target;

    if (t->kind == POLICY_ADDRESS && x->lo <= t->address && t->address <= x->hi &&
        has_port(s->asked, x))
        found(s, x, set);
}

static void on_world(void *arg, const struct filter_elem *x)
{
    on_static(arg, x, 's');
}

static void on_host(void *arg, const struct filter_elem *x)
{
    on_static(arg, x, 'h');
}

static void on_name(void *arg, const struct filter_elem *x)
{
    struct search *s = arg;
    bool counted = false;

    for (size_t i = 0; i < s->why->answers.n; i++) {
        struct api_policy_answer *a = &s->answers[i];
        uint32_t address;
        if (!address_parse(a->address, &address) || address != x->lo)
            continue;
        a->packets += x->packets;
        a->live = true;
        counted = true;
    }
    if (counted && has_port(s->asked, x))
        found(s, x, 'n');
}

/* Under lock: what names led to. */
static int fill_answers(struct search *s, struct err *e)
{
    int64_t mono = now_mono_ms(), real = now_real_us();

    s->answers = calloc(s->box->n_admitted + 1, sizeof(*s->answers));
    if (!s->answers)
        return err_nomem(e);
    s->why->answers.items = s->answers;
    for (size_t i = 0; i < s->box->n_admitted; i++) {
        const struct admitted *a = &s->box->admitted[i];
        char text[ADDRESS_TEXT];
        if (a->until <= mono || !is_about(s->asked, a->name, a->address))
            continue;
        struct api_policy_answer *x = &s->answers[s->why->answers.n++];
        x->expires_at = real + (a->until - mono) * 1000;
        if (dup_into(&x->name, a->name, e) < 0 ||
            dup_into(&x->address, address_format(a->address, text), e) < 0)
            return -1;
    }
    return 0;
}

static int look_at_filter(struct egress *g, const char *id, const struct asked *a,
                          struct api_policy_why *why, struct err *e)
{
    struct search s = { .asked = a, .why = why };
    int r = 0;

    pthread_mutex_lock(&g->lock);
    s.box = box_find(g, id);
    if (s.box) {
        why->denied = s.box->denied;
        r = fill_answers(&s, e);
        if (r == 0)
            r = filter_read(g->filter, id, 's', on_world, &s, e);
        if (r == 0)
            r = filter_read(g->filter, id, 'h', on_host, &s, e);
        if (r == 0)
            r = filter_read(g->filter, id, 'n', on_name, &s, e);
    }
    pthread_mutex_unlock(&g->lock);
    return r;
}

int egress_why(struct egress *g, const char *id, const char *target, struct api_policy_why *ret,
               struct err *e)
{
    autoruleset struct ruleset rules = RULESET_INIT;
    struct api_policy_why why = { 0 };
    struct asked a;
    struct ruled r;

    if (parse_asked(target, &a, e) < 0 || decide(g, id, &a, &rules, &r, e) < 0)
        return -1;
    int i = r.ruling.rule;
    bool ours = i >= 0 && !r.ruling.by_ceiling && (size_t)i < rules.n;
    if (fill_verdict(&a, &r, &why.decision, e) < 0 ||
        (ours && fill_rule(&rules.rules[i], &rules.rows[i], &why.rule, e) < 0) ||
        look_at_filter(g, id, &a, &why, e) < 0) {
        json_done(api_policy_why_table, &why, sizeof(why));
        return -1;
    }
    *ret = why;
    return 0;
}

int egress_log_open(struct egress *g, const char *id, int *ret_fd, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);

    sbuf_fmt(&path, "%s/sandboxes/%s/log/net.log", g->config->state_dir, id);
    if (g->config->network)
        log_write_all(g);
    int fd = open(sbuf_str(&path), O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0 && errno == ENOENT)
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open the log of its network");
    *ret_fd = fd;
    return 0;
}

/* --- policies with names --- */

static int fill_preset(const struct preset *p, struct api_named_policy *ret, struct err *e)
{
    if (dup_into(&ret->name, p->name, e) < 0 || dup_into(&ret->kind, "preset", e) < 0 ||
        dup_into(&ret->description, p->description, e) < 0 || dup_into(&ret->rules, p->text, e) < 0)
        return -1;
    return 0;
}

static int fill_named(const struct policy_row *p, struct api_named_policy *ret, struct err *e)
{
    if (dup_into(&ret->name, p->name, e) < 0 || dup_into(&ret->kind, "named", e) < 0 ||
        dup_into(&ret->rules, p->rules, e) < 0)
        return -1;
    ret->owner.uid = p->uid;
    ret->changed_at = p->changed_at;
    return peer_user_name(p->uid, &ret->owner.user, e);
}

int egress_named(struct egress *g, uid_t uid, const char *name, struct api_named_policy_list *ret,
                 struct err *e)
{
    const struct preset *one = name ? preset_find(name) : NULL;
    struct policy_row *rows = NULL;
    size_t n_presets = 0, n = 0;
    const struct preset *presets = preset_all(&n_presets);
    int r = 0;

    if (!one && store_policy_list(g->store, uid, name, &rows, &n, e) < 0)
        return -1;
    struct api_named_policy *items = calloc(n_presets + n + 1, sizeof(*items));
    struct api_named_policy_list l = { .policies = { .items = items } };
    if (!items)
        r = err_nomem(e);
    for (size_t i = 0; r == 0 && i < n_presets; i++)
        if (!name || one == &presets[i])
            r = fill_preset(&presets[i], &items[l.policies.n++], e);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = fill_named(&rows[i], &items[l.policies.n++], e);
    policy_rows_done(rows, n);
    if (r < 0) {
        json_done(api_named_policy_list_table, &l, sizeof(l));
        return -1;
    }
    *ret = l;
    return 0;
}

int egress_define(struct egress *g, uid_t uid, const char *name, const char *rules, struct err *e)
{
    autofree struct policy_rule *parsed = NULL;
    size_t n = 0;

    if (!name_valid(name))
        return err_set(e, ERR_INVALID, "'%s' cannot be the name of a policy: " NAME_RULE, name);
    if (preset_find(name) || strcmp(name, RULESET_BASE_FILE) == 0) {
        err_set(e, ERR_INVALID, "'%s' is a name of ours", name);
        return err_hint(e, "choose another name; presets cannot be changed");
    }
    if (policy_rules_parse(rules, strlen(rules), &parsed, &n, e) < 0)
        return -1;
    struct policy_row row = { .uid = uid, .name = (char *)name, .rules = (char *)rules,
                              .changed_at = now_real_us() };
    return store_policy_put(g->store, &row, e);
}

int egress_undefine(struct egress *g, uid_t uid, const char *name, struct err *e)
{
    if (preset_find(name))
        return err_set(e, ERR_INVALID, "'%s' is a preset, which stays", name);
    return store_policy_delete(g->store, uid, name, e);
}
