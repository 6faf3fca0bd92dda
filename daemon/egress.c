/* SPDX-License-Identifier: MIT
 *
 * egress: the range, the guard, the registry of links, and what keeps the kernel equal to it.
 */
#include "daemon/egress_priv.h"

#include "common/io.h"
#include "common/log.h"
#include "common/sbuf.h"
#include "daemon/fault.h"
#include "daemon/firewalls.h"
#include "daemon/flows.h"
#include "daemon/guard.h"
#include "daemon/netlink.h"

#include <linux/xfrm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define SWEEP_MS 2000
#define CHOICE_SUBNET "subnet"

/* --- start --- */

static int parse_ceiling(struct egress *g, struct err *e)
{
    autosbuf struct sbuf text = SBUF(POLICY_TEXT_MAX);
    const struct strv *lines = &g->config->policy_ceiling;

    if (lines->n == 0)
        return 0;
    for (size_t i = 0; i < lines->n; i++)
        sbuf_fmt(&text, "%s\n", lines->items[i]);
    if (policy_rules_parse(sbuf_str(&text), text.len, &g->ceiling, &g->n_ceiling, e) < 0)
        return err_wrap(e, "policy_ceiling");
    return 0;
}

static void subnet_text(const struct subnet *net, char buf[32])
{
    char address[ADDRESS_TEXT];

    snprintf(buf, 32, "%s/%u", address_format(net->address, address), net->prefix);
}

/* One that was chosen before stays as long as nothing else has it: running guests know it. */
static int choose_range(struct egress *g, struct err *e)
{
    autofree char *before = NULL;
    autofree char (*taps)[IFNAMSIZ] = NULL;
    char with[128], text[32];
    size_t n = 0;

    if (strcmp(g->config->subnet, "auto") != 0)
        return subnet_parse(g->config->subnet, LIMIT_SANDBOXES + 2, &g->net, e) < 0
                   ? err_wrap(e, "subnet") : 0;
    if (store_choice_get(g->store, CHOICE_SUBNET, &before, e) < 0 || link_list(&taps, &n, e) < 0)
        return -1;
    if (before && subnet_parse(before, LIMIT_SANDBOXES + 2, &g->net, e) == 0) {
        int hit = subnet_collides(&g->net, with, sizeof(with), e);
        if (hit < 0)
            return -1;
        if (hit)
            log_warn(NULL, "the range %s of sandboxes collides with %s%s", before, with,
                     n ? ", ignoring as there are links" : "; choosing another one");
        if (!hit || n)
            return 0;
    }
    *e = ERR_INIT;
    if (subnet_choose(LIMIT_SANDBOXES + 2, &g->net, e) < 0)
        return -1;
    subnet_text(&g->net, text);
    return store_choice_put(g->store, CHOICE_SUBNET, text, e);
}

static void on_packets(void *arg, uint32_t events);
static void on_ruleset(void *arg, uint32_t events);
static void on_guard(void *arg, uint32_t events);
static void on_write(void *arg);
static void on_sweep(void *arg);

static int watch_events(struct egress *g, struct err *e)
{
    if (filter_watch_open(g->filter, &g->watch, e) < 0 ||
        netlink_open(NETLINK_XFRM, 1u << (XFRMNLGRP_POLICY - 1), &g->guard_watch, e) < 0 ||
        packet_log_open(FILTER_LOG_GROUP, &g->log, e) < 0 ||
        evloop_add_fd(g->loop, mnl_socket_get_fd(g->guard_watch), EPOLLIN, on_guard, g,
                      &g->guard_source, e) < 0 ||
        evloop_add_fd(g->loop, filter_watch_fd(g->watch), EPOLLIN, on_ruleset, g,
                      &g->watch_source, e) < 0 ||
        evloop_add_fd(g->loop, packet_log_fd(g->log), EPOLLIN, on_packets, g, &g->log_source,
                      e) < 0)
        return -1;
    return resolver_start(g, e);
}

/* The filter first: nothing is forwarded that it does not know of. */
static int open_filter(struct egress *g, struct err *e)
{
    const struct filter_options o = {
        .net = g->net,
        .connections = g->config->connections,
        .new_per_second = g->config->connections_per_second,
        .questions_per_second = 4 * g->config->names_per_second,
        .uid_lo = g->config->uid_base + 1,
        .uid_hi = g->config->uid_base + LIMIT_SANDBOXES,
        .uid_resolver = g->config->uid_base + LIMIT_SANDBOXES + 1,
    };

    if (filter_open(&o, &g->filter, e) < 0)
        return -1;
    /* A kernel that cannot hold it says so now; what is there goes on until all were adopted. */
    return filter_present(g->filter) ? 0 : filter_rebuild(g->filter, NULL, 0, NULL, 0, e);
}

/* Whatever may fail for what the host's kernel is. Under lock. */
static int get_ready(struct egress *g, struct err *e)
{
    return choose_range(g, e) < 0 || guard_close(&g->net, e) < 0 || open_filter(g, e) < 0 ||
                   watch_events(g, e) < 0 || ways_open(g, e) < 0 ? -1 : 0;
}

static void close_parts(struct egress *g)
{
    resolver_stop(g);
    evloop_remove(take_ptr(g->watch_source));
    evloop_remove(take_ptr(g->log_source));
    evloop_remove(take_ptr(g->guard_source));
    netlink_close(take_ptr(g->guard_watch));
    ways_close(g);
    packet_log_close(take_ptr(g->log));
    filter_watch_close(take_ptr(g->watch));
    if (g->filter)
        filter_close(take_ptr(g->filter));
}

static void warn_of_host(void)
{
    struct err ignored = ERR_INIT;
    char text[400];

    if (firewalls_in_the_way(text, sizeof(text), &ignored) == 1)
        log_warn(NULL, "sandboxes may reach nothing: %s", text);
    if (guard_weakness(text, sizeof(text), &ignored) == 1)
        log_warn(NULL, "the guard of sandboxes is weak: %s", text);
}

static void try_ready(struct egress *g)
{
    struct err e = ERR_INIT;
    char text[32];

    if (g->ready)
        return;
    pthread_mutex_lock(&g->lock);       /* the event thread has it from the first source on */
    int r = get_ready(g, &e);
    pthread_mutex_unlock(&g->lock);
    if (r == 0) {
        subnet_text(&g->net, text);
        log_info(NULL, "sandboxes get addresses of %s", text);
        warn_of_host();
        g->ready = true;
        return;
    }
    close_parts(g);
    if (e.code != ERR_NETWORK || !e.hint[0])
        err_hint(&e, "\"network\": false in daemon.json gives sandboxes without a network");
    log_err(LOG_CTX(.error = &e), "no sandbox can start: its network cannot be closed");
    g->broken = e;
}

int egress_open(const struct config *config, struct store *store, struct events *events,
                struct egress **ret, struct err *e)
{
    struct egress *g = calloc(1, sizeof(*g));

    if (!g)
        return err_nomem(e);
    g->config = config;
    g->store = store;
    g->events = events;
    g->mtu = LINK_MTU;
    g->lines_end = &g->lines;
    pthread_mutex_init(&g->change, NULL);
    pthread_mutex_init(&g->lock, NULL);
    if (parse_ceiling(g, e) < 0 ||
        (config->network && (evloop_new(&g->loop, e) < 0 || worker_new(&g->writer, e) < 0 ||
                             evloop_add_timer(g->loop, -1, on_write, g, &g->write_timer, e) < 0 ||
                             evloop_add_timer(g->loop, SWEEP_MS, on_sweep, g, &g->sweep_timer,
                                              e) < 0))) {
        egress_free(g);
        return -1;
    }
    if (config->network) {
        g->mtu = link_uplink_mtu();
        try_ready(g);
    }
    *ret = g;
    return 0;
}

bool egress_enabled(const struct egress *g)
{
    return g->config->network;
}

static void store_counts(struct egress *g);

void egress_free(struct egress *g)
{
    if (!g)
        return;
    evloop_remove(take_ptr(g->sweep_timer));    /* first: it may repair the filter */
    close_parts(g);
    for (size_t i = 0; i <= LIMIT_SANDBOXES; i++)
        if (g->boxes[i])
            log_done(g, g->boxes[i]);
    evloop_remove(take_ptr(g->write_timer));
    if (g->loop)
        evloop_free(g->loop);
    if (g->writer)
        worker_free(g->writer);
    store_counts(g);
    log_write_all(g);
    for (size_t i = 0; i <= LIMIT_SANDBOXES; i++)
        box_free(g->boxes[i]);
    free(g->ceiling);
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->change);
    free(g);
}

/* --- what happens --- */

static void packet(void *arg, const struct packet_seen *p)
{
    log_packet(arg, p);
}

static void on_packets(void *arg, uint32_t events)
{
    struct egress *g = arg;
    struct err e = ERR_INIT;
    static struct log_rate rate;

    pthread_mutex_lock(&g->lock);
    int r = packet_log_read(g->log, packet, g, &e);
    pthread_mutex_unlock(&g->lock);
    if (r == 1 && log_rate_ok(&rate, 1, 60000))
        log_warn(NULL, "packets came faster than they could be logged, ignoring");
    else if (r < 0 && log_rate_ok(&rate, 1, 60000))
        log_warn(LOG_CTX(.error = &e), "the filter's log, ignoring");
}

static void write_lines(void *arg, const char *id, const char *detail)
{
    log_write_all(arg);
}

static void on_write(void *arg)
{
    struct egress *g = arg;

    worker_post(g->writer, write_lines, g, "lines", NULL);
}

/* What has to be written of a box: its rules' names, as they may change meanwhile. */
static size_t take_counts(struct box *b, struct rule_count *ret, struct strv *names)
{
    struct err e = ERR_INIT;
    size_t n = 0;

    for (size_t i = 0; i < b->rules.n; i++) {
        if (!b->fresh[i] || strv_add(names, b->rules.rows[i].target, &e) < 0)
            continue;
        ret[n] = (struct rule_count){ b->rules.rows[i].allow, names->items[n], b->fresh[i] };
        n++;
        b->rules.rows[i].matches += b->fresh[i];
        b->fresh[i] = 0;
    }
    return n;
}

/* Counts of rules, box by box, without the lock while SQLite works. */
static void store_counts(struct egress *g)
{
    autofree struct rule_count *counts = calloc(POLICY_RULES_MAX, sizeof(*counts));

    for (size_t slot = 0; counts && slot <= LIMIT_SANDBOXES; slot++) {
        autostrv struct strv names = STRV_INIT;
        struct err e = ERR_INIT;
        char id[LIMIT_ID + 1];
        size_t n = 0;

        pthread_mutex_lock(&g->lock);
        struct box *b = g->boxes[slot];
        if (b) {
            memcpy(id, b->id, sizeof(id));
            n = take_counts(b, counts, &names);
        }
        pthread_mutex_unlock(&g->lock);
        if (n > 0 && store_rules_count(g->store, id, counts, n, &e) < 0)
            log_warn(LOG_CTX(.sandbox = id, .error = &e), "counts of rules are lost, ignoring");
    }
}

static void write_counts(void *arg, const char *id, const char *detail)
{
    store_counts(arg);
}

static void on_sweep(void *arg)
{
    struct egress *g = arg;
    int64_t now = now_mono_ms();

    pthread_mutex_lock(&g->lock);
    for (size_t i = 0; i <= LIMIT_SANDBOXES; i++) {
        struct box *b = g->boxes[i];
        if (!b)
            continue;
        names_expire(b, now);
        if (b->cut_again)       /* flows that began while the first cut went through the list */
            box_cut_flows(g, b);
        b->cut_again = false;
    }
    log_sweep(g, now);
    repair_if_dirty(g);
    pthread_mutex_unlock(&g->lock);
    worker_post(g->writer, write_counts, g, "counts", NULL);
    evloop_timer_set(g->sweep_timer, SWEEP_MS);
}

/* --- the whole filter --- */

int egress_rebuild(struct egress *g, struct err *e)
{
    autofree struct filter_box *boxes = calloc(LIMIT_SANDBOXES + 1, sizeof(*boxes));
    autofree struct filter_name *names = NULL;
    size_t n = 0, n_names = 0, used = 0;

    for (size_t i = 0; i <= LIMIT_SANDBOXES; i++)
        n_names += g->boxes[i] ? g->boxes[i]->n_elements : 0;
    names = calloc(n_names + 1, sizeof(*names));
    if (!boxes || !names)
        return err_nomem(e);
    for (size_t i = 0; i <= LIMIT_SANDBOXES; i++) {
        if (!g->boxes[i])
            continue;
        boxes[n] = box_filter(g->boxes[i], names + used);
        used += boxes[n++].n_names;
    }
    return filter_rebuild(g->filter, boxes, n, g->opened, g->n_opened, e);
}

/* Under lock. What fails is tried again by the sweep. */
static void repair(struct egress *g, const char *why)
{
    struct err e = ERR_INIT;
    static struct log_rate rate;

    g->dirty = egress_rebuild(g, &e) < 0 || guard_close(&g->net, &e) < 0;
    g->repairs++;
    events_repeat(g->events, &(struct event){ .kind = EVENT_REPAIR, .detail = why });
    if (!g->dirty)
        log_warn(NULL, "%s", why);
    else if (log_rate_ok(&rate, 1, 60000))
        log_err(LOG_CTX(.error = &e), "the filter of sandboxes cannot be repaired; trying again");
}

void repair_if_dirty(struct egress *g)
{
    if (g->ready && g->dirty)
        repair(g, "the filter is made anew, as a change of it failed before");
}

static void on_ruleset(void *arg, uint32_t events)
{
    struct egress *g = arg;

    pthread_mutex_lock(&g->lock);
    if (filter_watch_others(g->watch))
        repair(g, "somebody else changed the filter of sandboxes; it is as it was again");
    pthread_mutex_unlock(&g->lock);
}

/* Somebody took policies of the guard's kind away; maybe ours. */
static int on_guard_news(const struct nlmsghdr *h, void *arg)
{
    *(bool *)arg |= h->nlmsg_type == XFRM_MSG_DELPOLICY || h->nlmsg_type == XFRM_MSG_FLUSHPOLICY;
    return MNL_CB_OK;
}

bool egress_drain(struct mnl_socket *s, mnl_cb_t fn)
{
    _Alignas(struct nlmsghdr) char buf[16 * 1024];
    bool r = false;

    for (;;) {
        ssize_t len = recv(mnl_socket_get_fd(s), buf, sizeof(buf), MSG_DONTWAIT);
        if (len < 0 && errno == ENOBUFS)
            r = true;
        else if (len <= 0)
            return r;
        else
            mnl_cb_run(buf, (size_t)len, 0, 0, fn, &r);
    }
}

static void on_guard(void *arg, uint32_t events)
{
    struct egress *g = arg;
    struct err e = ERR_INIT;

    pthread_mutex_lock(&g->lock);
    if (egress_drain(g->guard_watch, on_guard_news) && guard_close(&g->net, &e) < 0) {
        g->dirty = true;
        log_err(LOG_CTX(.error = &e), "the guard of sandboxes cannot be put back; trying again");
    }
    pthread_mutex_unlock(&g->lock);
}

/* --- sandboxes come and go --- */

static int check_ready(struct egress *g, struct err *e)
{
    try_ready(g);
    if (g->ready)
        return 0;
    *e = g->broken;
    return -1;
}

/* Under lock: link and rules of a box that is not there yet. */
static int put_up(struct egress *g, struct box *b, uid_t qemu, struct err *e)
{
    struct filter_box fb = box_filter(b, NULL);
    struct err ignored = ERR_INIT;
    unsigned n;

    /* Whoever had this address before may have left flows, which would be let through. */
    if (filter_remove(g->filter, b->id, &b->link, e) < 0 ||
        flows_cut(b->link.address, NULL, NULL, &n, e) < 0 || link_create(&b->link, qemu, e) < 0)
        return -1;
    if (fault_at(FAULT_START_TAP, e) < 0 || filter_add(g->filter, &fb, e) < 0) {
        link_delete(b->link.name, &ignored);
        return -1;
    }
    if (fault_at(FAULT_START_LINK, e) == 0 && link_up(&b->link, e) == 0)
        return 0;
    link_delete(b->link.name, &ignored);
    filter_remove(g->filter, b->id, &b->link, &ignored);
    return -1;
}

int egress_attach(struct egress *g, const char *id, uint32_t slot, uid_t qemu, struct link *ret,
                  struct err *e)
{
    autoruleset struct ruleset rules = RULESET_INIT;
    struct box *b = NULL;

    hold_lock(&g->change);
    if (check_ready(g, e) < 0 || ruleset_load(&rules, g->store, id, e) < 0 ||
        box_new(g, id, slot, &rules, &b, e) < 0)
        return -1;
    pthread_mutex_lock(&g->lock);
    repair_if_dirty(g);
    struct box *old = g->boxes[slot];
    if (old)
        log_done(g, old);
    g->boxes[slot] = NULL;
    int r = link_delete(b->link.name, e) < 0 ? -1 : put_up(g, b, qemu, e);
    if (r == 0)
        g->boxes[slot] = b;
    pthread_mutex_unlock(&g->lock);
    box_free(old);
    if (r < 0) {
        box_free(b);
        return err_wrap(e, "cannot make its network");
    }
    *ret = b->link;
    return 0;
}

int egress_detach(struct egress *g, const char *id, uint32_t slot, struct err *e)
{
    struct link l;
    struct err cut = ERR_INIT, left = ERR_INIT;
    unsigned n;

    if (!egress_enabled(g))
        return 0;
    hold_lock(&g->change);
    if (!g->ready)
        return 0;
    store_counts(g);            /* while it is in the registry */
    link_describe(&g->net, id, slot, g->mtu, &l);
    pthread_mutex_lock(&g->lock);
    struct box *b = g->boxes[slot];
    int r = link_delete(l.name, e);
    if (r == 0) {
        fault_here(FAULT_STOP_RULES);
        if (b)
            log_done(g, b);
        g->boxes[slot] = NULL;
        /* Rules without a link let nobody pass; the sweep makes all anew without them. */
        g->dirty |= filter_remove(g->filter, id, &l, &left) < 0;
    }
    pthread_mutex_unlock(&g->lock);
    if (r < 0)
        return err_wrap(e, "cannot take its network away");
    if (left.code)
        log_warn(LOG_CTX(.sandbox = id, .error = &left), "its rules stay for now, ignoring");
    box_free(b);
    if (flows_cut(l.address, NULL, NULL, &n, &cut) < 0)
        log_warn(LOG_CTX(.sandbox = id, .error = &cut), "old connections, ignoring");
    return 0;
}

int egress_adopt(struct egress *g, const char *id, uint32_t slot, bool *ret_linked,
                 struct link *ret, struct err *e)
{
    autoruleset struct ruleset rules = RULESET_INIT;
    struct box *b = NULL;

    *ret_linked = false;
    if (!egress_enabled(g))
        return 0;
    hold_lock(&g->change);
    if (check_ready(g, e) < 0 || ruleset_load(&rules, g->store, id, e) < 0 ||
        box_new(g, id, slot, &rules, &b, e) < 0)
        return -1;
    *ret = b->link;
    if (!link_exists(b->link.name)) {
        box_free(b);
        return 0;
    }
    pthread_mutex_lock(&g->lock);
    names_restore(g, b);
    g->boxes[slot] = b;
    pthread_mutex_unlock(&g->lock);
    *ret_linked = true;
    return 0;
}

static bool is_ours(const struct egress *g, const char *name)
{
    for (size_t i = 0; i <= LIMIT_SANDBOXES; i++)
        if (g->boxes[i] && strcmp(g->boxes[i]->link.name, name) == 0)
            return true;
    return false;
}

/* Under lock: what a former daemon did not live to do after it had stored new rules. */
static void cut_late(struct egress *g, const char *id)
{
    struct box *b = id ? box_find(g, id) : NULL;

    if (b) {
        box_cut_flows(g, b);
        b->cut_again = true;
    }
}

int egress_settle(struct egress *g, struct err *e)
{
    autofree char (*taps)[IFNAMSIZ] = NULL;
    autofree char *late = NULL;
    size_t n = 0;

    hold_lock(&g->change);
    if (!g->ready)
        return 0;
    if (store_choice_get(g->store, EGRESS_CHOICE_CUT, &late, e) < 0)
        return -1;
    pthread_mutex_lock(&g->lock);
    int r = link_list(&taps, &n, e);
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (is_ours(g, taps[i]))
            continue;
        log_warn(NULL, "a link without a sandbox, %s: removed", taps[i]);
        r = link_delete(taps[i], e);
    }
    if (r == 0)
        r = egress_rebuild(g, e);
    if (r == 0)
        cut_late(g, late);
    pthread_mutex_unlock(&g->lock);
    if (r == 0 && late && late[0])
        r = store_choice_put(g->store, EGRESS_CHOICE_CUT, "", e);
    return r < 0 ? err_wrap(e, "cannot put the filter of sandboxes in order") : 0;
}

void egress_describe(struct egress *g, uint32_t slot, struct api_network *ret)
{
    char text[ADDRESS_TEXT];

    if (!egress_enabled(g))
        return;
    pthread_mutex_lock(&g->lock);
    if (g->boxes[slot])
        ret->address = strdup(address_format(g->boxes[slot]->link.address, text));
    pthread_mutex_unlock(&g->lock);
}

uint64_t egress_denials(struct egress *g, uint32_t slot)
{
    if (!egress_enabled(g))
        return 0;
    hold_lock(&g->lock);
    return g->boxes[slot] ? g->boxes[slot]->denials : 0;
}

void egress_state(struct egress *g, struct egress_state *ret)
{
    *ret = (struct egress_state){ 0 };
    if (!egress_enabled(g))
        return;
    ret->waiting = worker_waiting(g->writer);
    hold_lock(&g->lock);
    ret->repairs = g->repairs;
}
