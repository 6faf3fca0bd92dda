/* SPDX-License-Identifier: MIT
 *
 * egress_names: which names a sandbox may ask for, and what their answers open.
 *
 * Names are kept as the resolver tells them, and what they open is computed from the policy: so a
 * change of the policy needs no new question, and a name that stops being allowed closes at once.
 * An address may be reached by several names; each range of its ports stays open as long as one of
 * them says so.
 */
#include "daemon/egress_priv.h"

#include "common/io.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>

#define ALERT_EVERY_MS 10000
#define TTL_MAX 3600            /* the resolver says no more; here is who opens */

#define TYPE_A 1                /* RFC 1035, RFC 3596, RFC 9460 */
#define TYPE_AAAA 28
#define TYPE_HTTPS 65

bool bucket_take(struct bucket *b, double per_second, double burst)
{
    int64_t now = now_mono_ms();

    b->tokens = b->at ? b->tokens + (double)(now - b->at) * per_second / 1000 : burst;
    if (b->tokens > burst)
        b->tokens = burst;
    b->at = now;
    if (b->tokens < 1)
        return false;
    b->tokens -= 1;
    return true;
}

/* --- questions --- */

static void alert(struct egress *g, struct box *b, const char *name, const char *reason)
{
    int64_t now = now_mono_ms();

    if (b->questions.told && now - b->questions.told < ALERT_EVERY_MS)
        return;
    b->questions.told = now;
    log_warn(LOG_CTX(.sandbox = b->id), "%s; answering fewer of them", reason);
    struct api_policy_event ev = { .kind = (char *)"alert", .verdict = (char *)"deny",
                                   .name = (char *)name, .reason = (char *)reason };
    log_event(g, b, &ev);
}

static void tell(struct egress *g, struct box *b, const char *name, const struct ruled *r,
                 bool allowed, const uint32_t *address)
{
    char text[ADDRESS_TEXT];
    struct api_policy_event ev = {
        .kind = (char *)"resolve", .verdict = (char *)(allowed ? "allow" : "deny"),
        .name = (char *)name, .rule = (char *)(r->rule[0] ? r->rule : NULL),
        .reason = (char *)r->reason,
    };

    if (address)
        ev.address = (char *)address_format(*address, text);
    log_event(g, b, &ev);
}

static uint32_t refusal(const struct egress *g)
{
    return strcmp(g->config->resolver_denied, "nxdomain") == 0 ? RESOLVE_NXDOMAIN : RESOLVE_REFUSED;
}

uint32_t names_ask(struct egress *g, const struct resolve_ask *q)
{
    struct box *b = box_at(g, q->guest);

    if (!b)
        return RESOLVE_NOBODY;
    double rate = g->config->names_per_second;
    if (!bucket_take(&b->questions, rate, 4 * rate)) {
        alert(g, b, q->name, "the sandbox asks for names faster than it may");
        return RESOLVE_FAIL;
    }
    struct policy p = box_policy(g, b);
    struct policy_question asked = { .name = q->name };
    struct ruled r = { .ruling = policy_judge_name(&p, q->name) };
    ruled_explain(g, &b->rules, &asked, &r);
    if (r.ruling.verdict == POLICY_ALLOW) {
        if (q->qtype != TYPE_A && q->qtype != TYPE_AAAA && q->qtype != TYPE_HTTPS) {
            box_count(b, &r);           /* those of addresses are with their answer */
            tell(g, b, q->name, &r, true, NULL);
        }
        return RESOLVE_ALLOW;
    }
    box_count(b, &r);
    tell(g, b, q->name, &r, false, NULL);
    return refusal(g);
}

/* --- elements --- */


/* What of one address is open by all its names: ranges that do not overlap, each for the longest
 * time of those that open it. */
struct opening {
    struct policy_span *spans;  /* owned */
    int64_t *until;             /* of each span; owned */
    const char **name;          /* borrowed; owned array */
    size_t n;
};

static void opening_done(struct opening *o)
{
    free(o->spans);
    free(o->until);
    free(o->name);
}

static int opening_add(struct opening *o, const struct policy *p, const struct admitted *a,
                       struct err *e)
{
    size_t before = o->n;

    if (policy_compile_name(p, a->name, a->address, &o->spans, &o->n, e) < 0)
        return -1;
    if (o->n == before)
        return 0;
    int64_t *until = reallocarray(o->until, o->n, sizeof(*until));
    if (until)
        o->until = until;
    const char **name = reallocarray(o->name, o->n, sizeof(*name));
    if (name)
        o->name = name;
    if (!until || !name) {
        o->n = before;
        return err_nomem(e);
    }
    for (size_t i = before; i < o->n; i++) {
        until[i] = a->until;
        name[i] = a->name;
    }
    return 0;
}

static int add_element(struct box *b, const struct element *x, const char *name, struct err *e)
{
    struct element *last = b->n_elements ? &b->elements[b->n_elements - 1] : NULL;

    if (last && last->address == x->address && last->proto == x->proto &&
        last->until == x->until && (uint32_t)last->port_hi + 1 == x->port_lo) {
        last->port_hi = x->port_hi;
        return 0;
    }
    struct element *grown = reallocarray(b->elements, b->n_elements + 1, sizeof(*grown));
    if (!grown)
        return err_nomem(e);
    b->elements = grown;
    grown[b->n_elements] = *x;
    grown[b->n_elements].name = strdup(name);
    if (!grown[b->n_elements].name)
        return err_nomem(e);
    b->n_elements++;
    return 0;
}

static int by_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* The first edge that is not below v. */
static size_t lower_bound(const uint32_t *edges, size_t n, uint32_t v)
{
    size_t lo = 0;

    while (lo < n) {
        size_t mid = lo + (n - lo) / 2;
        if (edges[mid] < v)
            lo = mid + 1;
        else
            n = mid;
    }
    return lo;
}

/* The first stretch from k on that nobody has; what was gone past is not gone past again. */
static size_t next_free(size_t *next, size_t k)
{
    while (next[k] != k)
        k = next[k] = next[next[k]];
    return k;
}

struct late { int64_t until; size_t i; };

static int by_lateness(const void *a, const void *b)
{
    const struct late *x = a, *y = b;

    if (x->until != y->until)
        return x->until < y->until ? 1 : -1;
    return x->i < y->i ? -1 : x->i > y->i;
}

/* Elements that do not overlap, each with the latest end of those that lead there: spans are laid
 * down from the latest on, where nothing lies yet. */
static int flatten(struct box *b, const struct opening *o, uint32_t address, uint8_t proto,
                   struct err *e)
{
    autofree uint32_t *edges = calloc(2 * o->n + 1, sizeof(*edges));
    autofree struct late *order = calloc(o->n + 1, sizeof(*order));
    autofree size_t *next = calloc(2 * o->n + 1, sizeof(*next));
    autofree size_t *owner = calloc(2 * o->n + 1, sizeof(*owner));
    size_t n = 0, n_edges = 0, n_order = 0;

    if (!edges || !order || !next || !owner)
        return err_nomem(e);
    for (size_t i = 0; i < o->n; i++) {
        if (o->spans[i].proto != proto)
            continue;
        edges[n++] = o->spans[i].port_lo;
        edges[n++] = (uint32_t)o->spans[i].port_hi + 1;
        order[n_order++] = (struct late){ o->until[i], i };
    }
    qsort(edges, n, sizeof(*edges), by_u32);
    qsort(order, n_order, sizeof(*order), by_lateness);
    for (size_t k = 0; k < n; k++)
        if (n_edges == 0 || edges[n_edges - 1] != edges[k])
            edges[n_edges++] = edges[k];
    for (size_t k = 0; k < n_edges; k++) {
        next[k] = k;
        owner[k] = o->n;
    }
    for (size_t j = 0; j < n_order; j++) {
        const struct policy_span *s = &o->spans[order[j].i];
        size_t end = lower_bound(edges, n_edges, (uint32_t)s->port_hi + 1);
        for (size_t k = next_free(next, lower_bound(edges, n_edges, s->port_lo)); k < end;
             k = next_free(next, k)) {
            owner[k] = order[j].i;
            next[k] = k + 1;    /* the last edge begins nothing, and stays free */
        }
    }
    for (size_t k = 0; k + 1 < n_edges; k++) {
        size_t i = owner[k];
        struct element x = { .address = address, .proto = proto,
                             .port_lo = (uint16_t)edges[k],
                             .port_hi = (uint16_t)(edges[k + 1] - 1) };
        if (i == o->n)
            continue;
        x.until = o->until[i];
        if (add_element(b, &x, o->name[i], e) < 0)
            return -1;
    }
    return 0;
}

static int open_address(struct egress *g, struct box *b, uint32_t address, struct err *e)
{
    struct policy p = box_policy(g, b);
    __attribute__((cleanup(opening_done))) struct opening o = { 0 };
    int64_t now = now_mono_ms();

    for (size_t i = 0; i < b->n_admitted; i++)
        if (b->admitted[i].address == address && b->admitted[i].until > now &&
            opening_add(&o, &p, &b->admitted[i], e) < 0)
            return -1;
    return flatten(b, &o, address, POLICY_TCP, e) < 0 ? -1
                                                      : flatten(b, &o, address, POLICY_UDP, e);
}

static bool is_first_of_its_address(const struct box *b, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (b->admitted[k].address == b->admitted[i].address)
            return false;
    return true;
}

/* Moves the elements of an address (or all) out of the box. */
static int take_elements(struct box *b, const uint32_t *one, struct element **ret, size_t *ret_n,
                         struct err *e)
{
    struct element *taken = calloc(b->n_elements + 1, sizeof(*taken));
    size_t kept = 0, n = 0;

    if (!taken)
        return err_nomem(e);
    for (size_t i = 0; i < b->n_elements; i++) {
        if (!one || b->elements[i].address == *one)
            taken[n++] = b->elements[i];
        else
            b->elements[kept++] = b->elements[i];
    }
    b->n_elements = kept;
    *ret = taken;
    *ret_n = n;
    return 0;
}

/* `all`: also those that should have ended, as the kernel may have them still. */
static size_t to_names(const struct element *x, size_t n, bool all, struct filter_name *ret)
{
    int64_t now = now_mono_ms();
    size_t k = 0;

    for (size_t i = 0; i < n; i++)
        if (all || x[i].until > now)
            ret[k++] = (struct filter_name){
                .address = x[i].address, .port_lo = x[i].port_lo, .port_hi = x[i].port_hi,
                .proto = x[i].proto,
                .timeout_ms = x[i].until > now ? (uint64_t)(x[i].until - now) : 1,
                .name = x[i].name,
            };
    return k;
}

/* Puts what was taken back in place of what came instead. */
static void put_back(struct box *b, size_t from, struct element *taken, size_t n)
{
    while (b->n_elements > from)
        free(b->elements[--b->n_elements].name);
    struct element *grown = n ? reallocarray(b->elements, from + n, sizeof(*grown)) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (grown)
            grown[b->n_elements++] = taken[i];
        else
            free(taken[i].name);
    }
    if (grown)
        b->elements = grown;
}

static int change_kernel(struct egress *g, struct box *b, const struct element *old, size_t n_old,
                         size_t from, struct err *e)
{
    size_t n_new = b->n_elements - from;
    autofree struct filter_name *del = calloc(n_old + 1, sizeof(*del));
    autofree struct filter_name *add = calloc(n_new + 1, sizeof(*add));

    if (!del || !add)
        return err_nomem(e);
    size_t d = to_names(old, n_old, true, del);
    size_t a = to_names(b->elements + from, n_new, false, add);
    if (d + a == 0 || filter_names(g->filter, b->id, del, d, add, a, e) == 0)
        return 0;
    g->dirty = true;            /* some may be deleted: the sweep makes all anew */
    return -1;
}

/* How much earlier than it should an element may end before the kernel is told anew: a part of the
 * grace, so that what the answer's own time promises is kept, and names that are asked for again
 * and again, or lead to one address all, cost no change of the filter each. */
static int64_t slack(const struct egress *g)
{
    return g->config->resolver_grace_s * 100;
}

/* Whether what is there opens the same ports for long enough. */
static bool is_enough(const struct egress *g, const struct box *b, const struct element *old,
                      size_t n_old, size_t from)
{
    if (n_old != b->n_elements - from)
        return false;
    for (size_t i = 0; i < n_old; i++) {
        const struct element *x = &b->elements[from + i];
        if (old[i].address != x->address || old[i].proto != x->proto ||
            old[i].port_lo != x->port_lo || old[i].port_hi != x->port_hi ||
            old[i].until + slack(g) < x->until || old[i].until <= now_mono_ms())
            return false;
    }
    return true;
}

int names_settle(struct egress *g, struct box *b, const uint32_t *one, bool apply, struct err *e)
{
    autofree struct element *old = NULL;
    size_t n_old = 0;
    int r = 0;

    if (take_elements(b, one, &old, &n_old, e) < 0)
        return -1;
    size_t from = b->n_elements;
    if (one)
        r = open_address(g, b, *one, e);
    for (size_t i = 0; !one && r == 0 && i < b->n_admitted; i++)
        if (is_first_of_its_address(b, i))
            r = open_address(g, b, b->admitted[i].address, e);
    if (r == 0 && apply && is_enough(g, b, old, n_old, from)) {
        put_back(b, from, old, n_old);
        return 0;
    }
    if (r == 0 && apply)
        r = change_kernel(g, b, old, n_old, from, e);
    if (r < 0) {
        put_back(b, from, old, n_old);
        return -1;
    }
    for (size_t i = 0; i < n_old; i++)
        free(old[i].name);
    return 0;
}

/* --- answers --- */

static struct admitted *find_admitted(struct box *b, const char *name, uint32_t address)
{
    for (size_t i = 0; i < b->n_admitted; i++)
        if (b->admitted[i].address == address && strcmp(b->admitted[i].name, name) == 0)
            return &b->admitted[i];
    return NULL;
}

/* A sandbox that asks for more than there is room for loses what would end first. */
static void make_room(struct box *b, uint32_t address)
{
    struct admitted *first = NULL, *first_alike = NULL;
    size_t alike = 0;

    for (size_t i = 0; i < b->n_admitted; i++) {
        struct admitted *a = &b->admitted[i];
        if (!first || a->until < first->until)
            first = a;
        if (a->address != address)
            continue;
        alike++;
        if (!first_alike || a->until < first_alike->until)
            first_alike = a;
    }
    struct admitted *out = alike >= BOX_NAMES_ALIKE     ? first_alike
                           : b->n_admitted >= BOX_NAMES ? first : NULL;
    if (!out)
        return;
    free(out->name);
    *out = b->admitted[--b->n_admitted];
}

/* 1: something is new; 0: it is there already, and for long enough. */
static int remember(struct egress *g, struct box *b, const char *name, uint32_t address,
                    int64_t until, struct err *e)
{
    struct admitted *a = find_admitted(b, name, address);

    if (a) {
        bool longer = until > a->until + slack(g);
        if (longer)
            a->until = until;
        return longer;
    }
    make_room(b, address);
    struct admitted *grown = reallocarray(b->admitted, b->n_admitted + 1, sizeof(*grown));
    if (!grown)
        return err_nomem(e);
    b->admitted = grown;
    grown[b->n_admitted] = (struct admitted){ strdup(name), address, until };
    if (!grown[b->n_admitted].name)
        return err_nomem(e);
    b->n_admitted++;
    return 1;
}

static void forget(struct box *b, const char *name, uint32_t address)
{
    struct admitted *a = find_admitted(b, name, address);

    if (!a)
        return;
    free(a->name);
    *a = b->admitted[--b->n_admitted];
}

/* Whether other names keep all of these ports open for as long: thousands of names of one address
 * then cost no more than the first. */
static bool is_open(const struct egress *g, const struct box *b, uint32_t address,
                    const struct policy_span *spans, size_t n, int64_t until)
{
    for (size_t i = 0; i < n; i++) {
        bool found = false;
        for (size_t k = 0; k < b->n_elements && !found; k++) {
            const struct element *x = &b->elements[k];
            found = x->address == address && x->proto == spans[i].proto &&
                    x->port_lo <= spans[i].port_lo && x->port_hi >= spans[i].port_hi &&
                    x->until > now_mono_ms() && x->until + slack(g) >= until;
        }
        if (!found)
            return false;
    }
    return true;
}

/* 1: it may be told to the guest, and is open by then; 0: it may not; -1: it could not be
 * opened. */
static int admit(struct egress *g, struct box *b, const char *name, uint32_t address,
                  int64_t until)
{
    struct policy p = box_policy(g, b);
    autofree struct policy_span *spans = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    if (link_is_host(address) || policy_compile_name(&p, name, address, &spans, &n, &e) < 0 ||
        n == 0) {
        struct policy_question q = { .name = name, .address = address, .has_address = true,
                                     .host = link_is_host(address) };
        struct ruled r = { .ruling = { POLICY_DENY, POLICY_BY_PLACE, false } };
        ruled_explain(g, &b->rules, &q, &r);
        snprintf(r.reason, sizeof(r.reason), "the name leads to an address that no name may: %s",
                 q.host                         ? "one of the host's"
                 : policy_special(address, NULL) ? policy_special(address, NULL)
                                                 : "denied by a rule");
        tell(g, b, name, &r, false, &address);
        return 0;
    }
    int changed = remember(g, b, name, address, until, &e);
    if (changed == 0 || (changed > 0 && is_open(g, b, address, spans, n, until)))
        return 1;
    if (changed > 0 && names_settle(g, b, &address, true, &e) == 0)
        return 1;
    log_warn(LOG_CTX(.sandbox = b->id, .error = &e), "cannot open an address, its name fails");
    forget(b, name, address);
    return -1;
}

static int denies(const struct policy_rule *rules, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (rules[i].verdict == POLICY_DENY && policy_matches_name(&rules[i].target, name))
            return (int)i;
    return -1;
}

/* An alias that a rule denies by name, if only for a port, refuses all; one that no rule is about
 * is a mere detail of how the name is served. */
static bool alias_denied(struct egress *g, struct box *b, const struct resolve_admit *a,
                         struct ruled *ret, const char **ret_alias)
{
    for (uint32_t i = 0; i < a->n_aliases; i++) {
        struct policy_question q = { .name = a->aliases[i] };
        int own = denies(b->rules.rules, b->rules.n, a->aliases[i]);
        int above = own < 0 ? denies(g->ceiling, g->n_ceiling, a->aliases[i]) : -1;
        if (own < 0 && above < 0)
            continue;
        *ret = (struct ruled){ .ruling = { POLICY_DENY, own < 0 ? above : own, own < 0 } };
        ruled_explain(g, &b->rules, &q, ret);
        *ret_alias = a->aliases[i];
        return true;
    }
    return false;
}

void names_admit(struct egress *g, const struct resolve_admit *a, struct resolve_admitted *ret)
{
    struct box *b = box_at(g, a->guest);
    const char *alias = NULL;
    struct ruled r;

    ret->type = RESOLVE_ADMITTED;
    ret->id = a->id;
    ret->verdict = b ? RESOLVE_ALLOW : RESOLVE_NOBODY;
    ret->n_addresses = 0;
    if (!b)
        return;
    struct policy p = box_policy(g, b);
    struct policy_question q = { .name = a->name };
    r = (struct ruled){ .ruling = policy_judge_name(&p, a->name) };
    if (r.ruling.verdict == POLICY_DENY) {          /* changed while it was asked for */
        ruled_explain(g, &b->rules, &q, &r);
        tell(g, b, a->name, &r, false, NULL);
        ret->verdict = refusal(g);
        return;
    }
    ruled_explain(g, &b->rules, &q, &r);
    struct ruled allowed = r;
    if (alias_denied(g, b, a, &r, &alias)) {
        box_count(b, &r);
        snprintf(r.reason, sizeof(r.reason), "its alias %.120s is denied", alias);
        tell(g, b, a->name, &r, false, NULL);
        ret->verdict = refusal(g);
        return;
    }
    uint32_t ttl = a->ttl < TTL_MAX ? a->ttl : TTL_MAX;
    int64_t until = now_mono_ms() + ((int64_t)ttl + g->config->resolver_grace_s) * 1000;
    bool failed = false;
    for (uint32_t i = 0; i < a->n_addresses; i++) {
        int r1 = admit(g, b, a->name, a->addresses[i], until);
        if (r1 > 0)
            ret->addresses[ret->n_addresses++] = a->addresses[i];
        failed |= r1 < 0;
    }
    if (ret->n_addresses == 0 && a->n_addresses > 0) {
        if (failed)
            ret->verdict = RESOLVE_FAIL;
        return;
    }
    box_count(b, &allowed);
    tell(g, b, a->name, &allowed, true, ret->n_addresses ? ret->addresses : NULL);
}

/* --- time --- */

void names_expire(struct box *b, int64_t now)
{
    size_t kept = 0;

    for (size_t i = 0; i < b->n_elements; i++) {
        if (b->elements[i].until > now)
            b->elements[kept++] = b->elements[i];
        else
            free(b->elements[i].name);
    }
    b->n_elements = kept;
    kept = 0;
    for (size_t i = 0; i < b->n_admitted; i++) {
        if (b->admitted[i].until > now)
            b->admitted[kept++] = b->admitted[i];
        else
            free(b->admitted[i].name);
    }
    b->n_admitted = kept;
}

/* --- after a restart --- */

struct restoring {
    struct egress *g;
    struct box *b;
    int64_t now;
};

static void on_element(void *arg, const struct filter_elem *x)
{
    struct restoring *r = arg;
    struct err e = ERR_INIT;

    if (x->name[0] && x->expires_ms > 0 &&
        remember(r->g, r->b, x->name, x->lo, r->now + (int64_t)x->expires_ms, &e) < 0)
        log_warn(LOG_CTX(.sandbox = r->b->id, .error = &e), "cannot keep an open name, ignoring");
}

/* Only the name that keeps an element open longest is with it; others have to be asked for
 * again. */
void names_restore(struct egress *g, struct box *b)
{
    struct restoring r = { g, b, now_mono_ms() };
    struct err e = ERR_INIT;

    if (filter_read(g->filter, b->id, 'n', on_element, &r, &e) < 0 ||
        names_settle(g, b, NULL, false, &e) < 0)
        log_warn(LOG_CTX(.sandbox = b->id, .error = &e), "open names are lost, ignoring");
}
