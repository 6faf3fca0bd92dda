/* SPDX-License-Identifier: MIT
 *
 * What happened, from the table of events: administrators see all of them, others those of their
 * own sandboxes and quotas. A reader that misses some is told so by a record of kind "gone", as the
 * numbers of others' events are left out anyhow and a gap would say nothing. What goes first is of
 * whoever has most: so who reads one owner's events misses some when these go, and who reads all of
 * them wherever there is a hole.
 */
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/handlers.h"

#include <string.h>

#define FOLLOW_MS 100
#define FLUSH_MS 1000           /* what was done before the request shall be in the answer */
#define PAGE 64
#define LINE_MAX 4096           /* a block of http.c is longer */

struct event_stream {
    const struct call *call;    /* borrowed: it outlives its reply */
    struct event_query query;   /* from: the next number to look at. range_of: whose events are
                                 * read; -1: all, and holes are told */
    char *ref;                  /* owned: query.sandbox */
    uint64_t next;              /* number behind the last line */
    uint64_t last;              /* where to stop when not following */
    bool follow;
    struct event_page page;     /* of which `at` are written */
    size_t at;
};

/* --- lines --- */

static int put_line(struct sbuf *b, const struct api_event *ev)
{
    struct err e = ERR_INIT;

    if (json_encode(api_event_table, ev, b, &e) < 0)
        return -1;
    sbuf_chr(b, '\n');
    return b->failed ? -1 : 0;
}

static int put_row(struct sbuf *b, const struct event_row *r)
{
    const struct api_event ev = {
        .seq = r->seq, .time = r->time, .kind = r->kind, .sandbox = r->sandbox, .name = r->name,
        .owner = { r->uid >= 0, (uint32_t)r->uid }, .exec = r->exec, .detail = r->detail,
        .count = r->count };

    return put_line(b, &ev);
}

static int put_gone(struct event_stream *s, struct sbuf *b, uint64_t first)
{
    char text[80];
    struct api_event gone = { .seq = first - 1, .time = now_real_us(), .kind = (char *)"gone",
                              .detail = text, .count = first - s->next };

    snprintf(text, sizeof(text), "events from %llu to %llu are not kept any more",
             (unsigned long long)s->next, (unsigned long long)first - 1);
    s->next = first;
    return put_line(b, &gone);
}

/* 1: rows to write, 0: none now, -1. *b has a line if some were missed. */
static int next_page(struct event_stream *s, struct sbuf *b)
{
    struct err e = ERR_INIT;
    struct event_page *p = &s->page;

    event_rows_done(take_ptr(p->rows), p->n);
    p->n = s->at = 0;
    if (!s->follow && s->query.from > s->last)
        return 0;
    if (store_event_list(s->call->daemon->store, &s->query, p, &e) < 0)
        return -1;
    if (s->query.from < p->range.first) {
        s->next = s->query.from;
        if (put_gone(s, b, p->range.first) < 0)
            return -1;
        /* of another owner whose sandbox had that name */
        while (s->at < p->n && p->rows[s->at].seq < p->range.first)
            s->at++;
        if (p->next < p->range.first)
            p->next = p->range.first;
    }
    while (!s->follow && p->n > s->at && p->rows[p->n - 1].seq > s->last)
        event_row_done(&p->rows[--p->n]);
    s->query.from = p->next;
    return p->n > s->at;
}

static bool is_more(struct event_stream *s)
{
    struct events_state state;

    events_state(s->call->daemon->events, &state);
    return state.last >= s->query.from;
}

static int64_t stream_read(void *arg, char *buf, size_t cap)
{
    struct event_stream *s = arg;
    autosbuf struct sbuf b = SBUF(cap);

    for (;;) {
        while (s->at < s->page.n && b.len + LINE_MAX < cap) {
            const struct event_row *r = &s->page.rows[s->at];
            bool hole = s->query.range_of < 0 && !s->query.sandbox && r->seq > s->next;
            if (hole ? put_gone(s, &b, r->seq) < 0 : put_row(&b, r) < 0)
                return -1;
            if (hole)
                continue;
            s->next = r->seq + 1;
            s->at++;
        }
        if (s->at < s->page.n)
            break;
        if (b.len == 0 && s->follow && !is_more(s)) {
            if (call_wait_gone(s->call, -1, FOLLOW_MS, NULL))
                return -1;      /* cut off, so that nobody takes it for the end */
            continue;
        }
        if (s->follow && !is_more(s))
            break;
        int more = b.len + LINE_MAX < cap ? next_page(s, &b) : 0;
        if (more < 0)
            return -1;
        if (more == 0 && (b.len || !s->follow))
            break;
        if (call_wait_gone(s->call, -1, 0, NULL))
            return -1;
    }
    memcpy(buf, sbuf_str(&b), b.len);
    return (int64_t)b.len;
}

static void stream_free(void *arg)
{
    struct event_stream *s = arg;

    event_rows_done(s->page.rows, s->page.n);
    free(s->ref);
    free(s);
}

/* --- the request --- */

/* A number is an event's, anything else a time or so long ago. */
static int parse_since(const struct call *c, const struct event_range *range, uint64_t *ret_from,
                       struct err *e)
{
    const char *v = call_query(c, "since");
    uint64_t ago_ms;
    int64_t time;

    if (!v)
        return 0;
    if (parse_u64(v, 0, INT64_MAX, ret_from)) {
        if (*ret_from == 0 || (*ret_from >= range->first && *ret_from <= range->last + 1))
            return 0;
        bool gone = *ret_from < range->first;
        err_set(e, ERR_EVENTS_GONE, gone ? "event %s is not kept any more: the next is %llu"
                                         : "there is no event %s yet: the next is %llu",
                v, (unsigned long long)(gone ? range->first : range->last + 1));
        return err_hint(e, gone ? "\"events\" in sandboxd.conf(5) is the number that is kept"
                                : "a database that was put back begins again where it was copied");
    }
    if (parse_duration(v, &ago_ms))
        time = now_real_us() - (ago_ms > INT64_MAX / 2000 ? INT64_MAX / 2 : (int64_t)ago_ms * 1000);
    else if (!parse_time(v, &time))
        return err_set(e, ERR_FIELD_INVALID,
                       "query parameter 'since' is an event's number, a time, or a duration like "
                       "10m, not '%s'", v);
    return store_event_since(c->daemon->store, time, ret_from, e);
}

/* A sandbox that is there, or one whose events are. */
static int find_sandbox(struct call *c, struct event_stream *s, struct err *e)
{
    const char *ref = call_query(c, "sandbox");
    struct event_query q = { .uid = s->query.uid, .sandbox = ref, .or_name = true, .most = 1 };
    struct err no = ERR_INIT;
    struct event_page page;
    struct vm *vm = NULL;

    if (!ref)
        return 0;
    if (vms_find(c->daemon->vms, &c->caller, ref, &vm, &no) == 0) {
        s->ref = strdup(vm_id(vm));
        s->query.range_of = vm_uid(vm);
        vm_unref(vm);
    } else {
        if (store_event_list(c->daemon->store, &q, &page, e) < 0)
            return -1;
        if (page.n > 0)
            s->query.range_of = page.rows[0].uid;
        event_rows_done(page.rows, page.n);
        if (page.n == 0) {
            *e = no;
            return -1;
        }
        s->ref = strdup(ref);
        s->query.or_name = true;
    }
    s->query.sandbox = s->ref;
    return s->ref ? 0 : err_nomem(e);
}

/* Who reads all of them asks for a number that is there, or for what comes. */
static int first_from(struct call *c, struct event_range *range, struct err *e)
{
    struct event_query q = { .uid = -1, .most = 1 };
    struct event_page page;

    if (!call_query(c, "since") || !parse_u64(call_query(c, "since"), 0, INT64_MAX, &q.from) ||
        q.from > range->last)
        return 0;
    if (store_event_list(c->daemon->store, &q, &page, e) < 0)
        return -1;
    range->first = page.n > 0 ? page.rows[0].seq : range->last + 1;
    event_rows_done(page.rows, page.n);
    return 0;
}

static int begin(struct call *c, struct event_stream *s, struct err *e)
{
    struct event_range range;
    uint64_t from = 0;

    if (find_sandbox(c, s, e) < 0 ||
        store_event_range(c->daemon->store, s->query.range_of, &range, e) < 0 ||
        (s->query.range_of < 0 && first_from(c, &range, e) < 0) ||
        parse_since(c, &range, &from, e) < 0)
        return -1;
    s->last = range.last;
    s->next = s->query.from = from ? from : range.first;
    return 0;
}

int h_events(struct call *c, struct err *e)
{
    bool follow = false;
    int64_t uid = c->caller.admin ? -1 : (int64_t)c->caller.id.uid;

    events_flush(c->daemon->events, FLUSH_MS);
    if (call_query_bool(c, "follow", &follow, e) < 0)
        return -1;
    struct event_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return err_nomem(e);
    *s = (struct event_stream){ .call = c, .follow = follow,
                                .query = { .most = PAGE, .uid = uid, .range_of = uid } };
    if (begin(c, s, e) < 0) {
        stream_free(s);
        return -1;
    }
    c->reply.status = 200;
    c->reply.content_type = "application/x-ndjson";
    c->reply.stream = (struct reply_stream){ .read = stream_read, .free = stream_free, .arg = s };
    return 0;
}
