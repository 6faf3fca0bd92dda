/* SPDX-License-Identifier: MIT */
#include "daemon/egress_prove.h"

#include "common/io.h"
#include "common/jfield.h"
#include "common/sbuf.h"
#include "daemon/egress_priv.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS_MAX 400
#define NAMES_MAX 64            /* rules of a policy that are tried by name */
#define WAIT_LOG_MS 200         /* the kernel holds what it logs for 50 ms */

struct item {
    char text[160];             /* for people */
    char ask[512];              /* the probe's line, without id */
    int round;
    bool allow;                 /* what the policy says */
    bool is_name;
    bool never;                 /* no policy can allow it */
    char name[POLICY_NAME_MAX + 1];     /* of a name that leads to one more item */
    uint32_t address;
    uint16_t port;
    uint8_t proto;              /* POLICY_TCP, POLICY_UDP, 0 other */
    char seen[32];              /* "" no answer */
    char words[160];
};

struct proof {
    struct egress *g;           /* borrowed */
    char id[LIMIT_ID + 1];
    struct item *items;         /* owned */
    size_t n;
    struct sbuf lines;
};

/* --- what is tried --- */

static struct item *add(struct proof *p)
{
    return p->n < ITEMS_MAX ? &p->items[p->n++] : NULL;
}

static bool allows(struct egress *g, struct box *b, uint32_t address, uint16_t port, uint8_t proto)
{
    struct ruled r;

    box_judge(g, b, address, port, proto, &r);
    return r.ruling.verdict == POLICY_ALLOW;
}

static void add_name(struct proof *p, struct box *b, const char *name, const char *what)
{
    struct policy pol = box_policy(p->g, b);
    struct item *x = add(p);

    if (!x)
        return;
    x->is_name = true;
    x->allow = policy_judge_name(&pol, name).verdict == POLICY_ALLOW;
    snprintf(x->name, sizeof(x->name), "%s", name);
    snprintf(x->text, sizeof(x->text), "name %.100s%s%s", name, *what ? ": " : "", what);
    snprintf(x->ask, sizeof(x->ask), "\"kind\":\"dns\",\"name\":\"%.253s\"", name);
}

static struct item *add_address(struct proof *p, struct box *b, uint32_t address, uint16_t port,
                                uint8_t proto, const char *what)
{
    struct item *x = add(p);
    char text[ADDRESS_TEXT];
    const char *kind = proto == POLICY_UDP ? "udp" : "tcp";

    if (!x)
        return NULL;
    *x = (struct item){ .round = 1, .address = address, .port = port, .proto = proto,
                        .allow = allows(p->g, b, address, port, proto) };
    address_format(address, text);
    snprintf(x->text, sizeof(x->text), "%s %s:%u%s%.100s", kind, text, port, *what ? ": " : "",
             what);
    snprintf(x->ask, sizeof(x->ask), "\"kind\":\"%s\",\"address\":\"%s\",\"port\":%u", kind, text,
             port);
    return x;
}

/* --- of every policy --- */

static const struct {
    const char *address;
    uint16_t port;
    uint8_t proto;
    const char *what;
} places[] = {
    { "8.8.8.8", 443, POLICY_TCP, "a public address by its number" },
    { "8.8.8.8", 53, POLICY_UDP, "another resolver" },
    { "8.8.8.8", 53, POLICY_TCP, "another resolver" },
    { "1.1.1.1", 853, POLICY_TCP, "another resolver, over TLS" },
    { "169.254.169.254", 80, POLICY_TCP, "a metadata service" },
    { "169.254.1.1", 80, POLICY_TCP, "link-local" },
    { "10.0.0.1", 443, POLICY_TCP, "a private network" },
    { "172.16.0.1", 22, POLICY_TCP, "a private network" },
    { "192.168.1.1", 80, POLICY_TCP, "a private network" },
    { "100.64.0.1", 80, POLICY_TCP, "a carrier's network" },
    { "224.0.0.251", 5353, POLICY_UDP, "mDNS" },
    { "224.0.0.252", 5355, POLICY_UDP, "LLMNR" },
    { "255.255.255.255", 67, POLICY_UDP, "broadcast" },
};

/* %s: an address that is not the guest's */
static const struct { const char *text, *ask; } frames[] = {
    { "GRE", "\"kind\":\"ip\",\"address\":\"8.8.8.8\",\"protocol\":47" },
    { "SCTP", "\"kind\":\"ip\",\"address\":\"8.8.8.8\",\"protocol\":132" },
    { "IPv4 in IPv4", "\"kind\":\"ip\",\"address\":\"8.8.8.8\",\"protocol\":4" },
    { "ICMP echo, as tunnels use it", "\"kind\":\"icmp\",\"address\":\"8.8.8.8\",\"size\":600" },
    { "another's source address",
      "\"kind\":\"spoof-address\",\"address\":\"8.8.8.8\",\"port\":53,\"source\":\"%s\"" },
    { "another's MAC", "\"kind\":\"spoof-mac\",\"address\":\"8.8.8.8\",\"port\":53,"
                       "\"mac\":\"02:5b:78:01:0f:ff\"" },
    { "a VLAN tag", "\"kind\":\"vlan\",\"address\":\"8.8.8.8\",\"port\":53,\"vlan\":7" },
    { "ARP for another address", "\"kind\":\"arp\",\"address\":\"%s\"" },
    { "ARP that takes another address", "\"kind\":\"arp-announce\",\"address\":\"%s\"" },
    { "IPv6 router solicitation", "\"kind\":\"ipv6-rs\"" },
    { "IPv6 neighbour solicitation", "\"kind\":\"ipv6-ns\"" },
    { "IPv6 datagram", "\"kind\":\"ipv6-udp\",\"port\":53" },
    { "LLDP", "\"kind\":\"ethertype\",\"ethertype\":35020" },
};

static void add_places(struct proof *p, struct box *b)
{
    static const uint16_t host_ports[] = { 22, 80, 443, 2375 };
    uint32_t address, other = b->link.address + (b->slot == 1 ? 1 : -1);

    for (size_t i = 0; i < ARRAY_SIZE(places); i++)
        if (address_parse(places[i].address, &address))
            add_address(p, b, address, places[i].port, places[i].proto, places[i].what);
    for (size_t i = 0; i < ARRAY_SIZE(host_ports); i++)
        add_address(p, b, b->link.gateway, host_ports[i], POLICY_TCP, "the host");
    add_address(p, b, other, 22, POLICY_TCP, "another sandbox");
}

static void add_frames(struct proof *p, struct box *b)
{
    char other[ADDRESS_TEXT];

    address_format(b->link.address + (b->slot == 1 ? 1 : -1), other);
    for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
        struct item *x = add(p);
        if (!x)
            return;
        *x = (struct item){ .round = 1, .never = true };
        snprintf(x->text, sizeof(x->text), "%s", frames[i].text);
        const char *hole = strstr(frames[i].ask, "%s");
        size_t before = hole ? (size_t)(hole - frames[i].ask) : strlen(frames[i].ask);
        snprintf(x->ask, sizeof(x->ask), "%.*s%s%s", (int)before, frames[i].ask, hole ? other : "",
                 hole ? hole + 2 : "");
    }
}

/* --- of this one --- */

/* A name below the zone of a rule for many. */
static bool example_name(const struct policy_target *t, char *buf, size_t size)
{
    const char *label = t->kind == POLICY_NAME ? "" : "sandboxd-probe.";

    if (t->kind == POLICY_ADDRESS)
        return false;
    snprintf(buf, size, "%s%s", label, t->name);
    return strlen(buf) <= POLICY_NAME_MAX;
}

static void add_rules(struct proof *p, struct box *b)
{
    size_t names = 0;

    for (size_t i = 0; i < b->rules.n; i++) {
        const struct policy_rule *r = &b->rules.rules[i];
        const struct policy_target *t = &r->target;
        char name[POLICY_NAME_MAX + 32], rule[RULE_TEXT];
        rule_text(r, rule);
        if (example_name(t, name, sizeof(name)) && names++ < NAMES_MAX)
            add_name(p, b, name, rule);
        else if (t->kind == POLICY_ADDRESS && t->prefix == 32 && t->port_lo > 0)
            add_address(p, b, t->address, t->port_lo,
                        policy_protos(r) & POLICY_TCP ? POLICY_TCP : POLICY_UDP, rule);
    }
}

/* The port by which a rule lets a name be reached, 0 if there is none in particular. */
static uint16_t port_of(const struct box *b, const char *name, uint8_t *ret_proto)
{
    for (size_t i = 0; i < b->rules.n; i++) {
        const struct policy_rule *r = &b->rules.rules[i];
        if (r->verdict != POLICY_ALLOW || !policy_matches_name(&r->target, name))
            continue;
        *ret_proto = policy_protos(r) & POLICY_TCP ? POLICY_TCP : POLICY_UDP;
        return r->target.port_lo ? r->target.port_lo : 443;
    }
    return 0;
}

int proof_new(struct egress *g, const char *id, struct proof **ret, struct err *e)
{
    struct proof *p = calloc(1, sizeof(*p));

    if (!p || !(p->items = calloc(ITEMS_MAX, sizeof(*p->items)))) {
        free(p);
        return err_nomem(e);
    }
    p->g = g;
    p->lines = SBUF(ITEMS_MAX * sizeof(p->items->ask));
    snprintf(p->id, sizeof(p->id), "%s", id);
    pthread_mutex_lock(&g->lock);
    struct box *b = box_find(g, id);
    bool busy = b && b->witness.on;
    if (b && !busy) {
        b->witness = (struct witness){ .on = true };
        add_name(p, b, "sandboxd-probe.invalid", "a name nobody allows");
        add_name(p, b, "d2hhdCBpcyBoaWRkZW4.sandboxd-probe.example", "data in a name");
        add_rules(p, b);
        add_places(p, b);
        add_frames(p, b);
    }
    pthread_mutex_unlock(&g->lock);
    if (b && !busy) {
        *ret = p;
        return 0;
    }
    free(p->items);
    free(p);
    if (b)
        return err_set(e, ERR_SANDBOX_BUSY, "its policy is being proved already");
    err_set(e, ERR_SANDBOX_STATE, "the sandbox has no network now");
    return err_hint(e, "only what runs can be tried: `sbx start NAME`");
}

void proof_free(struct proof *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->g->lock);
    struct box *b = box_find(p->g, p->id);
    if (b)
        b->witness = (struct witness){ 0 };
    pthread_mutex_unlock(&p->g->lock);
    sbuf_done(&p->lines);
    free(p->items);
    free(p);
}

const char *proof_ask(struct proof *p, int round)
{
    sbuf_done(&p->lines);
    p->lines = SBUF(ITEMS_MAX * sizeof(p->items->ask));
    for (size_t i = 0; i < p->n; i++)
        if (p->items[i].round == round)
            sbuf_fmt(&p->lines, "{\"id\":%zu,%s}\n", i + 1, p->items[i].ask);
    return p->lines.len ? sbuf_str(&p->lines) : NULL;
}

/* --- what was seen --- */

struct told {
    uint32_t id;
    char *kind, *seen, *text;
    struct strv addresses;
};

static const struct jfield told_table[] = {
    JF(struct told, id, JT_U32, .flags = JF_REQUIRED),
    JF(struct told, kind, JT_STR, .max = 32),
    JF(struct told, seen, JT_STR, .flags = JF_REQUIRED, .min = 1, .max = 31),
    JF(struct told, text, JT_STR, .max = 512),
    JF(struct told, addresses, JT_STRV, .max = 8, .item_max = 20),
    JF_END,
};

/* A name that may be reached was resolved: now its address. */
static void follow_name(struct proof *p, const struct item *from, const char *address)
{
    uint32_t a;
    uint8_t proto = POLICY_TCP;
    char name[POLICY_NAME_MAX + 1];

    snprintf(name, sizeof(name), "%s", from->name);
    if (!address_parse(address, &a))
        return;
    pthread_mutex_lock(&p->g->lock);
    struct box *b = box_find(p->g, p->id);
    uint16_t port = b ? port_of(b, name, &proto) : 0;
    if (port)
        add_address(p, b, a, port, proto, name);
    pthread_mutex_unlock(&p->g->lock);
}

static void take_line(struct proof *p, const char *line, size_t len)
{
    struct told t;
    struct err ignored = ERR_INIT;

    if (len == 0 || json_decode_lenient(told_table, line, len, &t, &ignored) < 0)
        return;
    if (t.id >= 1 && t.id <= p->n && !p->items[t.id - 1].seen[0]) {
        struct item *x = &p->items[t.id - 1];
        snprintf(x->seen, sizeof(x->seen), "%s", t.seen);
        snprintf(x->words, sizeof(x->words), "%s", t.text ? t.text : "");
        if (x->is_name && x->allow && t.addresses.n > 0)
            follow_name(p, x, t.addresses.items[0]);
    }
    json_done(told_table, &t, sizeof(t));
}

void proof_take(struct proof *p, const char *output)
{
    while (*output) {
        size_t len = strcspn(output, "\n");
        take_line(p, output, len);
        output += len + (output[len] == '\n');
    }
}

/* --- what it means --- */

static bool is_any(const char *word, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

static bool went_out(const struct witness *w, const struct item *x)
{
    uint8_t proto = x->proto == POLICY_UDP ? IPPROTO_UDP : IPPROTO_TCP;

    for (size_t i = 0; i < w->n; i++)
        if (w->seen[i].address == x->address && w->seen[i].port == x->port &&
            w->seen[i].proto == proto)
            return true;
    return false;
}

static bool passes(const struct item *x, const struct witness *w)
{
    static const char *const refused[] = { "refused", "nxdomain", NULL };
    static const char *const resolved[] = { "resolved", "empty", "nxdomain", NULL };
    static const char *const reached[] = { "connected", "answered", NULL };

    if (!x->seen[0] || strcmp(x->seen, "failed") == 0)
        return false;
    if (x->is_name)
        return is_any(x->seen, x->allow ? resolved : refused);
    if (x->never)
        return !is_any(x->seen, reached);
    return x->allow ? went_out(w, x) || is_any(x->seen, reached)
                    : !went_out(w, x) && !is_any(x->seen, reached);
}

static int fill(const struct item *x, const struct witness *w, struct api_policy_probe *ret,
                struct err *e)
{
    char seen[240];
    bool out = x->proto && went_out(w, x);

    snprintf(seen, sizeof(seen), "%s%s%s%s%s", x->seen[0] ? x->seen : "no answer",
             x->words[0] ? " (" : "", x->words, x->words[0] ? ")" : "",
             x->proto ? out ? "; the filter let it pass" : "; the filter let nothing pass" : "");
    ret->probe = strdup(x->text);
    ret->expected = strdup(x->allow ? "allow" : "deny");
    ret->seen = strdup(seen);
    ret->pass = passes(x, w);
    return ret->probe && ret->expected && ret->seen ? 0 : err_nomem(e);
}

int proof_finish(struct proof *p, struct api_policy_proof *ret, struct err *e)
{
    struct api_policy_proof out = { 0 };
    struct witness w = { 0 };

    poll(NULL, 0, WAIT_LOG_MS);
    pthread_mutex_lock(&p->g->lock);
    struct box *b = box_find(p->g, p->id);
    if (b)
        w = b->witness;
    pthread_mutex_unlock(&p->g->lock);
    if (!b)
        return err_set(e, ERR_SANDBOX_STATE, "the sandbox was stopped meanwhile");
    struct api_policy_probe *items = calloc(p->n + 1, sizeof(*items));
    int r = items ? 0 : err_nomem(e);
    out.probes = (struct jlist){ .items = items, .n = r == 0 ? p->n : 0 };
    for (size_t i = 0; r == 0 && i < p->n; i++) {
        r = fill(&p->items[i], &w, &items[i], e);
        out.passed += items[i].pass;
        out.failed += !items[i].pass;
    }
    if (r < 0) {
        json_done(api_policy_proof_table, &out, sizeof(out));
        return -1;
    }
    *ret = out;
    return 0;
}
