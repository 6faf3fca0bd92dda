/* SPDX-License-Identifier: MIT
 *
 * egress_box: one sandbox's side of the filter: its rules compiled, and each thing it does held
 * against them again for the log and for `policy why`.
 */
#include "daemon/egress_priv.h"

#include "common/io.h"
#include "common/log.h"
#include "daemon/flows.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- compiled rules --- */

void compiled_done(struct compiled *c)
{
    free(c->spans);
    free(c->host_spans);
    free(c->fresh);
}

static struct policy policy_of(const struct egress *g, const struct ruleset *s)
{
    return (struct policy){ .rules = s->rules, .n = s->n, .ceiling = g->ceiling,
                            .n_ceiling = g->n_ceiling };
}

struct policy box_policy(const struct egress *g, const struct box *b)
{
    return policy_of(g, &b->rules);
}

int rules_compile(const struct egress *g, const struct ruleset *s, struct compiled *ret,
                  struct err *e)
{
    autocompiled struct compiled c = { .fresh = calloc(s->n + 1, sizeof(*c.fresh)) };
    struct policy p = policy_of(g, s);

    if (!c.fresh)
        return err_nomem(e);
    if (policy_compile(&p, false, &c.spans, &c.n_spans, e) < 0 ||
        policy_compile(&p, true, &c.host_spans, &c.n_host_spans, e) < 0)
        return -1;
    *ret = c;
    c = COMPILED_INIT;
    return 0;
}

static void take_compiled(struct box *b, const struct compiled *c)
{
    b->spans = c->spans;
    b->n_spans = c->n_spans;
    b->host_spans = c->host_spans;
    b->n_host_spans = c->n_host_spans;
    b->fresh = c->fresh;
}

int box_new(const struct egress *g, const char *id, uint32_t slot, struct ruleset *rules,
            struct box **ret, struct err *e)
{
    struct box *b = calloc(1, sizeof(*b));
    struct compiled c;

    if (!b)
        return err_nomem(e);
    if (rules_compile(g, rules, &c, e) < 0) {
        free(b);
        return -1;
    }
    snprintf(b->id, sizeof(b->id), "%s", id);
    b->slot = slot;
    link_describe(&g->net, id, slot, g->mtu, &b->link);
    b->rules = *rules;
    *rules = RULESET_INIT;
    take_compiled(b, &c);
    *ret = b;
    return 0;
}

void box_free(struct box *b)
{
    if (!b)
        return;
    ruleset_done(&b->rules);
    free(b->fresh);
    free(b->spans);
    free(b->host_spans);
    for (size_t i = 0; i < b->n_admitted; i++)
        free(b->admitted[i].name);
    free(b->admitted);
    for (size_t i = 0; i < b->n_elements; i++)
        free(b->elements[i].name);
    free(b->elements);
    for (size_t i = 0; i < BOX_RECENT; i++)
        free(b->recent[i].line);
    free(b);
}

struct box *box_find(struct egress *g, const char *id)
{
    for (size_t i = 0; i <= LIMIT_SANDBOXES; i++)
        if (g->boxes[i] && strcmp(g->boxes[i]->id, id) == 0)
            return g->boxes[i];
    return NULL;
}

struct box *box_at(struct egress *g, uint32_t address)
{
    struct link first;

    link_describe(&g->net, "0000000000000000", 0, g->mtu, &first);
    uint32_t slot = address - first.address;
    struct box *b = slot <= LIMIT_SANDBOXES ? g->boxes[slot] : NULL;
    return b && b->link.address == address ? b : NULL;
}

struct filter_box box_filter(const struct box *b, struct filter_name *names)
{
    int64_t now = now_mono_ms();
    size_t n = 0;

    for (size_t i = 0; i < b->n_elements; i++) {
        const struct element *x = &b->elements[i];
        if (x->until <= now)
            continue;
        names[n++] = (struct filter_name){
            .address = x->address, .port_lo = x->port_lo, .port_hi = x->port_hi, .proto = x->proto,
            .timeout_ms = (uint64_t)(x->until - now), .name = x->name,
        };
    }
    return (struct filter_box){
        .id = b->id, .slot = b->slot, .link = &b->link, .spans = b->spans, .n_spans = b->n_spans,
        .host_spans = b->host_spans, .n_host_spans = b->n_host_spans, .names = names,
        .n_names = n,
    };
}

static void swap_rules(struct box *b, struct ruleset *rules, struct compiled *c)
{
    struct ruleset r = b->rules;
    struct compiled old = { b->spans, b->host_spans, b->n_spans, b->n_host_spans, b->fresh };

    b->rules = *rules;
    *rules = r;
    take_compiled(b, c);
    *c = old;
}

int box_replace(struct egress *g, struct box *b, struct ruleset *rules, struct compiled *c,
                struct err *e)
{
    struct element *old = b->elements;
    size_t n_old = b->n_elements;

    swap_rules(b, rules, c);
    b->elements = NULL;
    b->n_elements = 0;
    int r = names_settle(g, b, NULL, false, e);
    if (r == 0) {
        autofree struct filter_name *names = calloc(b->n_elements + 1, sizeof(*names));
        struct filter_box want = { 0 };
        if (names)
            want = box_filter(b, names);
        r = names ? filter_replace(g->filter, &want, e) : err_nomem(e);
    }
    if (r < 0) {
        swap_rules(b, rules, c);
        struct element *new = b->elements;
        size_t n_new = b->n_elements;
        b->elements = old;
        b->n_elements = n_old;
        old = new;
        n_old = n_new;
    }
    for (size_t i = 0; i < n_old; i++)
        free(old[i].name);
    free(old);
    return r;
}

/* --- why --- */

/* What decided, for people. */
void ruled_explain(const struct egress *g, const struct ruleset *rules,
                   const struct policy_question *q, struct ruled *r)
{
    int i = r->ruling.rule;
    const char *place = q->has_address ? policy_special(q->address, NULL) : NULL;

    r->rule[0] = '\0';
    r->source[0] = '\0';
    if (i >= 0 && r->ruling.by_ceiling) {
        rule_text(&g->ceiling[i], r->rule);
        snprintf(r->source, sizeof(r->source), "ceiling");
    } else if (i >= 0) {
        rule_text(&rules->rules[i], r->rule);
        snprintf(r->source, sizeof(r->source), "%s", rules->rows[i].source);
    } else {
        snprintf(r->source, sizeof(r->source), "%s",
                 r->ruling.by_ceiling ? "ceiling"
                 : i == POLICY_BY_PLACE ? "special address" : "default");
    }
    if (r->ruling.verdict == POLICY_ALLOW)
        snprintf(r->reason, sizeof(r->reason), "a rule allows it");
    else if (r->ruling.by_ceiling)
        snprintf(r->reason, sizeof(r->reason),
                 "the policy allows it, but the administrator's ceiling does not");
    else if (i >= 0)
        snprintf(r->reason, sizeof(r->reason), "a rule denies it");
    else if (i == POLICY_BY_PLACE && q->host)
        snprintf(r->reason, sizeof(r->reason),
                 "it is an address of the host, and no rule is about that address alone");
    else if (i == POLICY_BY_PLACE)
        snprintf(r->reason, sizeof(r->reason),
                 "it is a special address (%s), and no rule within that range allows it",
                 place ? place : "reserved");
    else if (q->has_address && !q->name)
        snprintf(r->reason, sizeof(r->reason),
                 "no rule allows this address, and no allowed name led to it");
    else
        snprintf(r->reason, sizeof(r->reason), "no rule allows it");
}

/* In the range, and not the host: another sandbox's, or will be. The filter refuses it before any
 * rule, since a policy cannot speak for its neighbour. */
bool is_neighbour(const struct egress *g, uint32_t address)
{
    uint32_t mask = UINT32_MAX << (32 - g->net.prefix);

    return g->net.prefix && (address & mask) == g->net.address && !link_is_host(address);
}

void ruled_neighbour(struct ruled *ret)
{
    *ret = (struct ruled){ .ruling = { POLICY_DENY, POLICY_BY_PLACE, false } };
    snprintf(ret->source, sizeof(ret->source), "special address");
    snprintf(ret->reason, sizeof(ret->reason), "it is in the range of the sandboxes, "
                                               "which do not reach one another");
}

void box_judge(const struct egress *g, const struct box *b, uint32_t address, uint16_t port,
               uint8_t proto, struct ruled *ret)
{
    struct policy p = box_policy(g, b);
    struct policy_question q = { .address = address, .has_address = true, .port = port,
                                 .proto = proto, .host = link_is_host(address) };
    int64_t now = now_mono_ms();

    if (is_neighbour(g, address)) {
        ruled_neighbour(ret);
        return;
    }
    *ret = (struct ruled){ .ruling = policy_judge(&p, &q) };
    struct policy_question told = q;
    for (size_t i = 0; ret->ruling.verdict == POLICY_DENY && !q.host && i < b->n_admitted; i++) {
        const struct admitted *a = &b->admitted[i];
        if (a->address != address || a->until <= now)
            continue;
        q.name = a->name;
        struct policy_ruling r = policy_judge(&p, &q);
        /* The name that lets it through is the reason; failing that, the first one. */
        if (r.verdict == POLICY_ALLOW || !ret->name) {
            ret->name = a->name;
            ret->ruling = r;
            told = q;
        }
    }
    ruled_explain(g, &b->rules, &told, ret);
}

void box_count(struct box *b, const struct ruled *r)
{
    if (!r->ruling.by_ceiling && r->ruling.rule >= 0 && (size_t)r->ruling.rule < b->rules.n)
        b->fresh[r->ruling.rule]++;
}

/* --- flows --- */

static bool still_allowed(void *arg, const struct flow *f)
{
    struct egress *g = arg;
    struct box *b = box_at(g, f->source);
    uint8_t proto = f->proto == IPPROTO_TCP ? POLICY_TCP : f->proto == IPPROTO_UDP ? POLICY_UDP : 0;
    struct ruled r;

    if (!b || !proto)
        return false;
    if (f->destination == b->link.gateway && f->port == 53)
        return true;
    box_judge(g, b, f->destination, f->port, proto, &r);
    return r.ruling.verdict == POLICY_ALLOW;
}

void box_cut_flows(struct egress *g, struct box *b)
{
    struct err e = ERR_INIT;
    unsigned n;

    if (flows_cut(b->link.address, still_allowed, g, &n, &e) < 0)
        log_err(LOG_CTX(.sandbox = b->id, .error = &e),
                "connections that the new policy denies may go on");
    else if (n > 0)
        log_debug(LOG_CTX(.sandbox = b->id), "%u connections ended by the new policy", n);
}
