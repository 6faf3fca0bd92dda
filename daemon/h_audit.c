/* SPDX-License-Identifier: MIT
 *
 * The audit log as it is read: administrators see all of it, others what was done under their own
 * uid. Lines are passed on as they are in the file, so that an administrator can check the chain.
 */
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"
#include "daemon/audit.h"
#include "daemon/daemon.h"
#include "daemon/handlers.h"

#include <string.h>

#define FOLLOW_MS 100
#define AWAY_EVERY 1000         /* lines of others between looks whether the client is there */

struct audit_stream {
    const struct call *call;    /* borrowed: it outlives its reply */
    struct audit_reader *reader;/* owned */
    int64_t since;              /* time; INT64_MIN: all */
    uint64_t last;              /* where to stop when not following */
    bool follow, over;
    char held[4 * KIB];         /* a line that did not fit */
    size_t n_held;
};

static const struct jfield who_table[] = {
    JF(struct api_audit_who, uid, JT_U32),
    JF_END,
};
static const struct jfield head_table[] = {
    JF(struct api_audit_record, seq, JT_U64),
    JF(struct api_audit_record, time, JT_TIME),
    JF(struct api_audit_record, who, JT_OBJ, .flags = JF_OPT, .table = who_table),
    JF_END,
};

static bool is_wanted(struct audit_stream *s, const char *line, size_t len)
{
    struct api_audit_record r = { 0 };
    struct err e = ERR_INIT;
    const struct caller *who = &s->call->caller;

    if (json_decode_lenient(head_table, line, len, &r, &e) < 0)
        return who->admin;
    if (!s->follow && r.seq > s->last) {
        s->over = true;
        return false;
    }
    return r.time >= s->since && (who->admin || (r.who.present && r.who.uid == who->id.uid));
}

static int64_t stream_read(void *arg, char *buf, size_t cap)
{
    struct audit_stream *s = arg;
    struct err e = ERR_INIT;
    size_t made = s->n_held;
    unsigned others = 0;

    memcpy(buf, s->held, s->n_held);        /* cap is a block of http.c: more than a line */
    s->n_held = 0;
    while (!s->over) {
        const char *line = NULL;
        size_t len = 0;
        int rc = audit_reader_next(s->reader, &line, &len, &e);
        if (rc < 0)
            return -1;
        if (rc == 0 && (made > 0 || !s->follow))
            break;
        if (rc == 0 || ++others % AWAY_EVERY == 0) {
            if (call_wait_gone(s->call, -1, rc == 0 ? FOLLOW_MS : 0, NULL))
                return -1;      /* cut off, so that nobody takes it for the log's end */
        }
        if (rc == 0 || !is_wanted(s, line, len))
            continue;
        if (made + len > cap) {
            memcpy(s->held, line, len);
            s->n_held = len;
            break;
        }
        memcpy(buf + made, line, len);
        made += len;
    }
    return (int64_t)made;
}

static void stream_free(void *arg)
{
    struct audit_stream *s = arg;

    audit_reader_free(s->reader);
    free(s);
}

static int need_audit(const struct call *c, struct err *e)
{
    if (c->daemon->audit)
        return 0;
    err_set(e, ERR_UNAVAILABLE, "this sandboxd writes no audit log");
    return err_hint(e, "\"audit\" in its configuration is \"off\"");
}

/* A number is a record's, anything else a time or so long ago. */
static int parse_since(const struct call *c, uint64_t *ret_seq, int64_t *ret_time, struct err *e)
{
    const char *v = call_query(c, "since");
    uint64_t ago_ms;

    if (!v || parse_u64(v, 0, INT64_MAX, ret_seq))
        return 0;
    if (parse_duration(v, &ago_ms))
        *ret_time = now_real_us() - (ago_ms > INT64_MAX / 2000 ? INT64_MAX / 2
                                                               : (int64_t)ago_ms * 1000);
    else if (!parse_time(v, ret_time))
        return err_set(e, ERR_FIELD_INVALID,
                       "query parameter 'since' is a record's number, a time, or a duration like "
                       "10m, not '%s'", v);
    return 0;
}

int h_audit(struct call *c, struct err *e)
{
    uint64_t seq = 0;
    int64_t since = INT64_MIN;
    bool follow = false;

    if (need_audit(c, e) < 0 || parse_since(c, &seq, &since, e) < 0 ||
        call_query_bool(c, "follow", &follow, e) < 0)
        return -1;
    struct audit_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return err_nomem(e);
    s->call = c;
    s->since = since;
    s->follow = follow;
    s->last = audit_head(c->daemon->audit);
    if (audit_reader_new(c->daemon->audit, seq, &s->reader, e) < 0) {
        free(s);
        return -1;
    }
    c->reply.status = 200;
    c->reply.content_type = "application/x-ndjson";
    c->reply.stream = (struct reply_stream){ .read = stream_read, .free = stream_free, .arg = s };
    return 0;
}

int h_audit_verify(struct call *c, struct err *e)
{
    struct api_audit_verdict v = { 0 };

    if (need_audit(c, e) < 0 || audit_verify(c->daemon->audit, NULL, &v, e) < 0)
        return -1;
    int r = reply_json(c, 200, api_audit_verdict_table, &v, e);
    json_done(api_audit_verdict_table, &v, sizeof(v));
    return r;
}
