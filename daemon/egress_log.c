/* SPDX-License-Identifier: MIT
 *
 * egress_log: what sandboxes did on the network, as JSON lines (struct api_policy_event) in a file
 * of each. The first of its kind is told at once; what repeats it within LOG_WINDOW_MS is counted
 * and told once more, as a number. A guest can so write a bounded number of lines however fast it
 * is, and the file itself is bounded.
 */
#include "daemon/egress_priv.h"

#include "common/io.h"
#include "common/log.h"
#include "common/sbuf.h"
#include "daemon/logfile.h"

#include <net/ethernet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_WINDOW_MS 10000
#define LINE_MAX 2048
#define LINES_MAX 20000         /* not yet written, of all sandboxes */

/* --- lines that wait for the event thread --- */

static void push(struct egress *g, const char *id, const struct api_policy_event *ev)
{
    autosbuf struct sbuf text = SBUF(LINE_MAX);
    struct err e = ERR_INIT;

    struct line *l = g->n_lines < LINES_MAX ? calloc(1, sizeof(*l)) : NULL;
    if (!l || json_encode(api_policy_event_table, ev, &text, &e) < 0 ||
        (sbuf_chr(&text, '\n'), sbuf_take(&text, &l->text, &e)) < 0) {
        free(l);
        g->lines_lost++;
        return;
    }
    snprintf(l->id, sizeof(l->id), "%s", id);
    *g->lines_end = l;
    g->lines_end = &l->next;
    if (g->n_lines++ == 0 && g->write_timer)
        evloop_timer_set(g->write_timer, 0);
}

static void write_line(struct egress *g, const struct line *l)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    struct err e = ERR_INIT;
    static struct log_rate rate;

    sbuf_fmt(&path, "%s/sandboxes/%s/log/net.log", g->config->state_dir, l->id);
    if (logfile_append(sbuf_str(&path), l->text, strlen(l->text), &e) < 0 && e.sys != ENOENT &&
        log_rate_ok(&rate, 5, 60000))
        log_warn(LOG_CTX(.sandbox = l->id, .error = &e),
                 "a line of its network log is lost, ignoring");
}

void log_write_all(struct egress *g)
{
    pthread_mutex_lock(&g->lock);
    struct line *l = g->lines;
    uint64_t lost = g->lines_lost;
    g->lines = NULL;
    g->lines_end = &g->lines;
    g->n_lines = 0;
    g->lines_lost = 0;
    pthread_mutex_unlock(&g->lock);
    if (lost)
        log_warn(NULL, "%llu lines of network logs were lost, ignoring", (unsigned long long)lost);
    while (l) {
        struct line *next = l->next;
        write_line(g, l);
        free(l->text);
        free(l);
        l = next;
    }
}

/* --- repeats --- */

static void mix(uint64_t *h, const char *s)
{
    for (const char *p = s ? s : ""; *p; p++)       /* FNV-1a */
        *h = (*h ^ (uint8_t)*p) * 0x100000001b3u;
    *h = (*h ^ 0xff) * 0x100000001b3u;
}

static uint64_t hash_of(const struct api_policy_event *ev)
{
    uint64_t h = 0xcbf29ce484222325u;
    char port[16];

    snprintf(port, sizeof(port), "%u", ev->port);
    mix(&h, ev->kind);
    mix(&h, ev->verdict);
    mix(&h, ev->name);
    mix(&h, ev->address);
    mix(&h, port);
    mix(&h, ev->proto);
    mix(&h, ev->rule);
    mix(&h, ev->reason);
    return h ? h : 1;
}

/* Says how often it came again, and frees the place. */
static void close_recent(struct egress *g, struct box *b, struct recent *r)
{
    struct api_policy_event ev;
    struct err e = ERR_INIT;

    if (r->repeats && r->line &&
        json_decode(api_policy_event_table, r->line, strlen(r->line), &ev, &e) == 0) {
        ev.time = now_real_us();
        ev.count = r->repeats;
        push(g, b->id, &ev);
        json_done(api_policy_event_table, &ev, sizeof(ev));
    }
    free(r->line);
    *r = (struct recent){ 0 };
}

static struct recent *place_for(struct egress *g, struct box *b, uint64_t hash)
{
    struct recent *oldest = &b->recent[0];

    for (size_t i = 0; i < BOX_RECENT; i++)
        if (b->recent[i].hash == hash)
            return &b->recent[i];
    for (size_t i = 0; i < BOX_RECENT; i++)
        if (b->recent[i].since < oldest->since)
            oldest = &b->recent[i];
    close_recent(g, b, oldest);
    return oldest;
}

/* For those who watch: what it was about, in a few words. */
static void tell_denial(struct egress *g, struct box *b, const struct api_policy_event *ev)
{
    autosbuf struct sbuf text = SBUF(LINE_MAX);
    const char *what = ev->name ? ev->name : ev->address ? ev->address : "";

    b->denials += ev->count ? ev->count : 1;
    sbuf_text(&text, what, strlen(what));
    if (ev->port)
        sbuf_fmt(&text, ":%u", ev->port);
    if (ev->proto)
        sbuf_fmt(&text, "/%s", ev->proto);
    if (ev->reason)
        sbuf_fmt(&text, "%s%s", text.len ? ": " : "", ev->reason);
    events_repeat(g->events, &(struct event){ .kind = EVENT_DENIED, .sandbox = b->id,
                                              .detail = sbuf_str(&text) });
}

void log_event(struct egress *g, struct box *b, const struct api_policy_event *ev)
{
    autosbuf struct sbuf text = SBUF(LINE_MAX);
    struct api_policy_event x = *ev;
    struct err e = ERR_INIT;
    int64_t now = now_mono_ms();
    uint64_t hash = hash_of(ev);
    struct recent *r = place_for(g, b, hash);

    if (ev->verdict && strcmp(ev->verdict, "deny") == 0)
        tell_denial(g, b, ev);

    if (r->hash == hash && now - r->since < LOG_WINDOW_MS) {
        r->repeats += ev->count ? ev->count : 1;
        return;
    }
    close_recent(g, b, r);
    x.sandbox = b->id;
    if (json_encode(api_policy_event_table, &x, &text, &e) == 0 &&
        sbuf_take(&text, &r->line, &e) == 0) {
        r->hash = hash;
        r->since = now;
    }
    x.time = now_real_us();
    x.count = ev->count ? ev->count : 1;
    push(g, b->id, &x);
}

void log_sweep(struct egress *g, int64_t now)
{
    for (size_t i = 0; i <= LIMIT_SANDBOXES; i++) {
        struct box *b = g->boxes[i];
        for (size_t k = 0; b && k < BOX_RECENT; k++)
            if (b->recent[k].hash && now - b->recent[k].since >= LOG_WINDOW_MS)
                close_recent(g, b, &b->recent[k]);
    }
}

void log_done(struct egress *g, struct box *b)
{
    for (size_t i = 0; i < BOX_RECENT; i++)
        close_recent(g, b, &b->recent[i]);
}

/* --- packets --- */

static const char *proto_name(uint8_t proto, char buf[8])
{
    static const struct { uint8_t proto; const char *name; } known[] = {
        { IPPROTO_TCP, "tcp" },   { IPPROTO_UDP, "udp" },   { IPPROTO_ICMP, "icmp" },
        { IPPROTO_GRE, "gre" },   { IPPROTO_SCTP, "sctp" }, { IPPROTO_ESP, "esp" },
        { IPPROTO_IGMP, "igmp" }, { IPPROTO_IPIP, "ipip" }, { IPPROTO_IPV6, "ipv6" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (known[i].proto == proto)
            return known[i].name;
    snprintf(buf, 8, "%u", proto);
    return buf;
}

static void forged(const struct box *b, const struct packet_seen *p, char *reason, size_t size)
{
    char source[ADDRESS_TEXT];

    switch (p->ethertype) {
    case ETHERTYPE_IP:
        if (p->source != b->link.address)
            snprintf(reason, size, "its sender %s is not the sandbox's address",
                     address_format(p->source, source));
        else
            snprintf(reason, size, "its sender's MAC is not the sandbox's");
        break;
    case ETHERTYPE_ARP:
        snprintf(reason, size, "ARP that speaks for another, or too much of it");
        break;
    case ETHERTYPE_IPV6:
        snprintf(reason, size, "IPv6 does not leave a sandbox");
        break;
    case ETHERTYPE_VLAN:
        snprintf(reason, size, "VLAN tags do not leave a sandbox");
        break;
    default:
        snprintf(reason, size, "ethertype 0x%04x does not leave a sandbox", p->ethertype);
        break;
    }
}

static uint8_t policy_proto(uint8_t proto)
{
    return proto == IPPROTO_TCP ? POLICY_TCP : proto == IPPROTO_UDP ? POLICY_UDP : 0;
}

/* What a packet's fate was due to; the box's rules may be newer than the packet, then the words are
 * the new ones and the verdict is what happened. */
static void judge_packet(struct egress *g, struct box *b, const struct packet_seen *p,
                         struct ruled *r)
{
    uint8_t proto = policy_proto(p->proto);

    if (proto && p->first_fragment) {
        box_judge(g, b, p->destination, p->port, proto, r);
    } else {
        *r = (struct ruled){ .ruling = { POLICY_DENY, POLICY_BY_DEFAULT, false } };
        snprintf(r->reason, sizeof(r->reason), "only tcp and udp leave a sandbox");
    }
    if (p->why == PACKET_LIMITED)
        snprintf(r->reason, sizeof(r->reason),
                 "too many connections at once, or new ones too fast");
    else if (p->why == PACKET_DENIED && r->ruling.verdict == POLICY_ALLOW)
        snprintf(r->reason, sizeof(r->reason), "it was not allowed just then");
}

void log_packet(struct egress *g, const struct packet_seen *p)
{
    struct box *b = g->boxes[p->slot];
    struct ruled r = { 0 };
    char address[ADDRESS_TEXT], proto[8];
    bool allowed = p->why == PACKET_ALLOWED;

    if (!b)
        return;
    struct api_policy_event ev = {
        .kind = (char *)(p->why == PACKET_LIMITED ? "alert" : "connect"),
        .verdict = (char *)(allowed ? "allow" : "deny"),
    };
    if (p->proto) {
        ev.address = (char *)address_format(p->destination, address);
        ev.proto = (char *)proto_name(p->proto, proto);
        ev.port = p->proto == IPPROTO_ICMP ? 0 : p->port;
    }
    if (p->why == PACKET_FORGED) {
        forged(b, p, r.reason, sizeof(r.reason));
    } else {
        judge_packet(g, b, p, &r);
        if (allowed == (r.ruling.verdict == POLICY_ALLOW) && p->why != PACKET_LIMITED)
            box_count(b, &r);
    }
    b->denied += !allowed;
    struct witness *w = &b->witness;
    if (allowed && w->on && w->n < WITNESS_MAX) {
        w->seen[w->n].address = p->destination;
        w->seen[w->n].port = p->port;
        w->seen[w->n++].proto = p->proto;
    }
    ev.name = (char *)r.name;
    ev.rule = r.rule[0] ? r.rule : NULL;
    ev.reason = r.reason;
    log_event(g, b, &ev);
}
