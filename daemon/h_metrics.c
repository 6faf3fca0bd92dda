/* SPDX-License-Identifier: MIT
 *
 * All figures at once, for Prometheus. Everybody gets those of his own sandboxes; root, the admin
 * group and the read-only socket get those of all, and the daemon's. What a sandbox uses is looked
 * up as for its stats, so no guest is waited for.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/daemon.h"
#include "daemon/egress.h"
#include "daemon/events.h"
#include "daemon/evloop.h"
#include "daemon/handlers.h"
#include "daemon/meter.h"
#include "daemon/metrics.h"
#include "daemon/peer.h"
#include "daemon/procstat.h"
#include "daemon/worker.h"

#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX (64 * MIB)       /* 4096 sandboxes need some 8 */

struct sample {
    char id[LIMIT_ID + 1], name[LIMIT_NAME + 1];
    struct vm_use use;
};

struct samples {
    struct sample *items;           /* owned */
    size_t n, cap;
};

static void samples_done(struct samples *s)
{
    free(s->items);
}

static int add_sample(void *arg, struct vm *vm, struct err *e)
{
    struct samples *s = arg;

    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        struct sample *items = reallocarray(s->items, cap, sizeof(*items));
        if (!items)
            return err_nomem(e);
        s->items = items;
        s->cap = cap;
    }
    struct sample *x = &s->items[s->n++];
    snprintf(x->id, sizeof(x->id), "%s", vm_id(vm));
    snprintf(x->name, sizeof(x->name), "%s", vm_name(vm));
    vm_look(vm, false, &x->use);
    return 0;
}

/* --- of each sandbox --- */

enum when { ALWAYS, RUNS, LINKED };
enum unit { U32, U64, SECONDS };

#define OF(member) offsetof(struct vm_use, member)
static const struct family {
    const char *name, *type, *help;
    size_t offset;
    enum unit unit;
    enum when when;
} families[] = {
    { "sandboxd_sandbox_cpu_seconds_total", "counter",
      "Processor time of the machine's processes on the host.", OF(cpu_us), SECONDS, RUNS },
    { "sandboxd_sandbox_memory_used_bytes", "gauge",
      "Memory of the machine's processes on the host.", OF(used), U64, RUNS },
    { "sandboxd_sandbox_memory_limit_bytes", "gauge", "The guest's memory.", OF(memory), U64,
      ALWAYS },
    { "sandboxd_sandbox_disk_allocated_bytes", "gauge", "What its disk takes on the host.",
      OF(allocated), U64, ALWAYS },
    { "sandboxd_sandbox_disk_size_bytes", "gauge", "Its disk as the guest sees it.", OF(disk), U64,
      ALWAYS },
    { "sandboxd_sandbox_disk_read_bytes_total", "counter", "Read from the host's disks.",
      OF(read_bytes), U64, RUNS },
    { "sandboxd_sandbox_disk_written_bytes_total", "counter", "Written to the host's disks.",
      OF(written_bytes), U64, RUNS },
    { "sandboxd_sandbox_network_receive_bytes_total", "counter", "Received by the guest.",
      OF(net.rx_bytes), U64, LINKED },
    { "sandboxd_sandbox_network_receive_packets_total", "counter", "Received by the guest.",
      OF(net.rx_packets), U64, LINKED },
    { "sandboxd_sandbox_network_transmit_bytes_total", "counter", "Sent by the guest.",
      OF(net.tx_bytes), U64, LINKED },
    { "sandboxd_sandbox_network_transmit_packets_total", "counter", "Sent by the guest.",
      OF(net.tx_packets), U64, LINKED },
    { "sandboxd_sandbox_network_denied_total", "counter",
      "Packets and names that its policy refused, as far as they were logged.", OF(denied), U64,
      LINKED },
    { "sandboxd_sandbox_execs_running", "gauge", "Commands that run.", OF(execs), U32, RUNS },
    { "sandboxd_sandbox_processes", "gauge", "Processes of the machine on the host.",
      OF(processes), U32, RUNS },
};

static bool runs(const struct vm_use *u)
{
    return u->state == VM_RUNNING || u->state == VM_STOPPING;
}

static void put_family(struct sbuf *b, const struct family *f, const struct samples *s)
{
    metrics_family(b, f->name, f->type, f->help);
    for (size_t i = 0; i < s->n; i++) {
        const struct vm_use *u = &s->items[i].use;
        const struct metrics_label l[] = { { "id", s->items[i].id }, { "name", s->items[i].name } };
        const char *at = (const char *)u + f->offset;
        if ((f->when == RUNS && !runs(u)) || (f->when == LINKED && !u->linked))
            continue;
        if (f->unit == SECONDS)
            metrics_seconds(b, f->name, "", l, 2, *(const uint64_t *)at);
        else
            metrics_count(b, f->name, "", l, 2,
                          f->unit == U64 ? *(const uint64_t *)at : *(const uint32_t *)at);
    }
}

/* --- of each user --- */

struct owner {
    uid_t uid;
    char uid_text[16];
    char *user;                     /* owned; NULL: nobody has this uid */
    uint64_t states[VM_STATE_MAX], cpus, memory;
};

struct owners {
    struct owner *items;            /* owned */
    size_t n;
};

static void owners_done(struct owners *o)
{
    for (size_t i = 0; i < o->n; i++)
        free(o->items[i].user);
    free(o->items);
}

static int count_owners(const struct samples *s, struct owners *ret, struct err *e)
{
    ret->items = calloc(s->n + 1, sizeof(*ret->items));
    if (!ret->items)
        return err_nomem(e);
    for (size_t i = 0; i < s->n; i++) {
        const struct vm_use *u = &s->items[i].use;
        size_t k = 0;
        while (k < ret->n && ret->items[k].uid != u->uid)
            k++;
        struct owner *o = &ret->items[k];
        if (k == ret->n) {
            ret->n++;
            o->uid = u->uid;
            snprintf(o->uid_text, sizeof(o->uid_text), "%u", u->uid);
            if (peer_user_name(u->uid, &o->user, e) < 0)
                return -1;
        }
        o->states[u->state]++;
        o->cpus += runs(u) ? u->cpus : 0;
        o->memory += runs(u) ? u->memory : 0;
    }
    return 0;
}

static void put_owners(struct sbuf *b, const struct owners *o)
{
    static const char boxes[] = "sandboxd_sandboxes", cpus[] = "sandboxd_vcpus_in_use",
                      memory[] = "sandboxd_memory_in_use_bytes";

    metrics_family(b, boxes, "gauge", "Sandboxes by state and owner.");
    for (size_t i = 0; i < o->n; i++) {
        for (int s = 0; s < VM_STATE_MAX; s++) {
            const struct metrics_label l[] = { { "uid", o->items[i].uid_text },
                                               { "user", o->items[i].user },
                                               { "state", vm_state_name((enum vm_state)s) } };
            metrics_count(b, boxes, "", l, 3, o->items[i].states[s]);
        }
    }
    metrics_family(b, cpus, "gauge", "Virtual processors of sandboxes that run, by owner.");
    for (size_t i = 0; i < o->n; i++) {
        const struct metrics_label l[] = { { "uid", o->items[i].uid_text },
                                           { "user", o->items[i].user } };
        metrics_count(b, cpus, "", l, 2, o->items[i].cpus);
    }
    metrics_family(b, memory, "gauge", "Memory of the guests that run, by owner.");
    for (size_t i = 0; i < o->n; i++) {
        const struct metrics_label l[] = { { "uid", o->items[i].uid_text },
                                           { "user", o->items[i].user } };
        metrics_count(b, memory, "", l, 2, o->items[i].memory);
    }
}

/* --- of the daemon --- */

static size_t count_routes(void)
{
    size_t n = 0;

    while (routes_table[n].method)
        n++;
    return n;
}

/* Of what was no route both are empty. */
static void labels_of(size_t route, size_t n_routes, struct metrics_label ret[2])
{
    bool none = route == n_routes;

    ret[0] = (struct metrics_label){ "method", none ? "" : routes_table[route].method };
    ret[1] = (struct metrics_label){ "route", none ? "" : routes_table[route].pattern };
}

static void put_requests(struct sbuf *b, struct meter *m)
{
    static const char name[] = "sandboxd_http_requests_total";
    static const char *const classes[METER_CLASSES] = { "1xx", "2xx", "3xx", "4xx", "5xx" };
    size_t n = count_routes();

    metrics_family(b, name, "counter", "Requests answered, by route and class of status.");
    for (size_t i = 0; i <= n; i++) {
        struct meter_route r;
        struct metrics_label l[3];
        meter_read(m, i, &r);
        labels_of(i, n, l);
        for (int c = 0; c < METER_CLASSES; c++) {
            l[2] = (struct metrics_label){ "class", classes[c] };
            if (r.classes[c])
                metrics_count(b, name, "", l, 3, r.classes[c]);
        }
    }
}

static void put_durations(struct sbuf *b, struct meter *m)
{
    static const char name[] = "sandboxd_http_request_duration_seconds";
    static const char *const bounds[METER_BUCKETS] = { "0.001", "0.01", "0.1", "1", "10", "+Inf" };
    size_t n = count_routes();

    metrics_family(b, name, "histogram", "From a request's last byte to its answer's first.");
    for (size_t i = 0; i <= n; i++) {
        struct meter_route r;
        struct metrics_label l[3];
        uint64_t sum = 0;
        meter_read(m, i, &r);
        labels_of(i, n, l);
        for (int k = 0; k < METER_BUCKETS; k++)
            sum += r.buckets[k];
        if (sum == 0)
            continue;
        sum = 0;
        for (int k = 0; k < METER_BUCKETS; k++) {
            sum += r.buckets[k];
            l[2] = (struct metrics_label){ "le", bounds[k] };
            metrics_count(b, name, "_bucket", l, 3, sum);
        }
        metrics_seconds(b, name, "_sum", l, 2, r.us);
        metrics_count(b, name, "_count", l, 2, sum);
    }
}

static void put_one(struct sbuf *b, const char *name, const char *type, const char *help,
                    uint64_t v)
{
    metrics_family(b, name, type, help);
    metrics_count(b, name, "", NULL, 0, v);
}

static void put_quota(struct sbuf *b, const struct meter_state *s)
{
    static const char name[] = "sandboxd_quota_refusals_total";

    metrics_family(b, name, "counter", "Requests and connections refused as a limit was reached.");
    for (int w = 0; w <= QUOTA_MAX; w++) {
        const struct metrics_label l = {
            "quota", w < QUOTA_MAX ? quota_key((enum quota_what)w) : "other" };
        metrics_count(b, name, "", &l, 1, s->refused[w]);
    }
}

static void put_queues(struct sbuf *b, const struct daemon *d)
{
    static const char queue[] = "sandboxd_worker_queue_length";
    const struct metrics_label main_worker = { "worker", "main" }, net = { "worker", "egress" };
    struct egress_state g;

    egress_state(d->egress, &g);
    metrics_family(b, queue, "gauge", "Jobs that wait for a worker.");
    metrics_count(b, queue, "", &main_worker, 1, worker_waiting(d->worker));
    metrics_count(b, queue, "", &net, 1, g.waiting);
    metrics_family(b, "sandboxd_event_loop_delay_seconds", "gauge",
                   "How late the event loop is for its next timer; 0 when it is in time.");
    metrics_seconds(b, "sandboxd_event_loop_delay_seconds", "", NULL, 0, evloop_late_us(d->loop));
    put_one(b, "sandboxd_egress_repairs_total", "counter",
            "How often the packet filter was made anew, as somebody else had changed it or a "
            "change had failed.", g.repairs);
}

static void put_events(struct sbuf *b, struct events *ev)
{
    struct events_state s;

    events_state(ev, &s);
    put_one(b, "sandboxd_events_written_total", "counter", "Events in the table.", s.written);
    put_one(b, "sandboxd_events_lost_total", "counter",
            "Events that could not be written in time.", s.lost);
    put_one(b, "sandboxd_events_waiting", "gauge", "Events that wait to be written.", s.waiting);
    put_one(b, "sandboxd_events_last_seq", "gauge", "Number of the newest event.", s.last);
}

static void put_process(struct sbuf *b, const struct daemon *d)
{
    struct proc_use u = { 0 };

    procstat_self(&u);
    metrics_family(b, "process_cpu_seconds_total", "counter", "Processor time of sandboxd.");
    metrics_seconds(b, "process_cpu_seconds_total", "", NULL, 0, u.cpu_us);
    put_one(b, "process_resident_memory_bytes", "gauge", "Memory of sandboxd.", u.rss);
    put_one(b, "process_threads", "gauge", "Threads of sandboxd.", u.threads);
    metrics_family(b, "process_start_time_seconds", "gauge", "When sandboxd was started.");
    metrics_seconds(b, "process_start_time_seconds", "", NULL, 0, (uint64_t)d->started_at);
}

static void put_daemon(struct sbuf *b, const struct daemon *d)
{
    struct meter_state s;

    meter_state(d->meter, &s);
    put_requests(b, d->meter);
    put_durations(b, d->meter);
    put_one(b, "sandboxd_http_connections", "gauge", "Connections that are open.", s.open);
    put_one(b, "sandboxd_http_connections_total", "counter", "Connections so far.", s.opened);
    put_quota(b, &s);
    put_events(b, d->events);
    put_queues(b, d);
    put_process(b, d);
}

int h_metrics(struct call *c, struct err *e)
{
    __attribute__((cleanup(samples_done))) struct samples samples = { 0 };
    __attribute__((cleanup(owners_done))) struct owners owners = { 0 };
    autosbuf struct sbuf b = SBUF(ANSWER_MAX);
    const struct metrics_label build[] = { { "version", SBX_VERSION }, { "api", API_VERSION } };
    char *text = NULL;

    if (vms_each(c->daemon->vms, &c->caller, add_sample, &samples, e) < 0 ||
        count_owners(&samples, &owners, e) < 0)
        return -1;
    metrics_family(&b, "sandboxd_build_info", "gauge", "1; its labels say what runs.");
    metrics_count(&b, "sandboxd_build_info", "", build, 2, 1);
    put_owners(&b, &owners);
    for (size_t i = 0; i < ARRAY_SIZE(families); i++)
        put_family(&b, &families[i], &samples);
    if (c->caller.admin || c->caller.read_only)
        put_daemon(&b, c->daemon);
    size_t len = b.len;
    if (sbuf_take(&b, &text, e) < 0)
        return -1;
    return reply_take(c, METRICS_TYPE, &text, len, e);
}
