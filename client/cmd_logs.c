/* SPDX-License-Identifier: MIT */
#include "client/api_client.h"
#include "client/app.h"
#include "client/out.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/parse.h"
#include <string.h>

/* Text of the guest in pieces cut anywhere. Escaped line by line; the beginning of a character, and
 * a carriage return that may belong to a line feed, wait for the next piece. */
struct logs {
    bool raw;
    struct sbuf held;
    struct err e;
};

/* Bytes at the end that may be the beginning of a UTF-8 character. */
static size_t unfinished(const char *s, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)s[len - back];
        if (c < 0x80)
            return 0;
        if (c >= 0xc0)
            return (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) > back ? back : 0;
    }
    return 0;
}

static void add_escaped(struct sbuf *b, const char *s, size_t len)
{
    while (len) {
        size_t n = 0;
        while (n < len && s[n] != '\n' && s[n] != '\t')
            n++;
        size_t text = n && n < len && s[n] == '\n' && s[n - 1] == '\r' ? n - 1 : n;
        sbuf_text(b, s, text);
        if (n < len)
            sbuf_chr(b, s[n++]);
        s += n;
        len -= n;
    }
}

static int show(struct logs *l, const char *data, size_t len, bool last)
{
    autosbuf struct sbuf in = SBUF(64ULL * 1024 * 1024);
    autosbuf struct sbuf out = SBUF(256ULL * 1024 * 1024);
    size_t keep = 0;

    if (l->raw)
        return out_write(data, len, &l->e) < 0 || out_flush(&l->e) < 0 ? -1 : 0;
    sbuf_add(&in, sbuf_str(&l->held), l->held.len);
    sbuf_add(&in, data, len);
    sbuf_done(&l->held);
    l->held = SBUF(16);
    if (in.failed)
        return err_nomem(&l->e);
    if (!last) {
        keep = unfinished(sbuf_str(&in), in.len);
        if (!keep && in.len && in.data[in.len - 1] == '\r')
            keep = 1;
        sbuf_add(&l->held, sbuf_str(&in) + in.len - keep, keep);
    }
    add_escaped(&out, sbuf_str(&in), in.len - keep);
    if (out.failed)
        return err_nomem(&l->e);
    return out_write(sbuf_str(&out), out.len, &l->e) < 0 || out_flush(&l->e) < 0 ? -1 : 0;
}

static int sink(void *arg, const char *data, size_t len)
{
    return show(arg, data, len, false);
}

static int add_options(const struct logs_opts *o, struct sbuf *path, struct err *e)
{
    uint32_t lines = 0;
    uint64_t ms = 0;
    int64_t us = 0;

    if (o->console)
        url_query(path, "source", "console");
    if (o->tail && strcmp(o->tail, "all") != 0) {
        if (!parse_u32(o->tail, 0, UINT32_MAX, &lines))
            return err_set(e, ERR_USAGE, "--tail: '%s' is not a number of lines", o->tail);
        url_query(path, "tail", o->tail);
    }
    if (o->since) {
        if (o->console) {
            err_set(e, ERR_USAGE, "--since: lines of the console bear no time");
            return err_hint(e, "use --tail with --console");
        }
        if (!parse_time(o->since, &us) && !parse_duration(o->since, &ms)) {
            err_set(e, ERR_USAGE, "--since: '%s' is not a time", o->since);
            return err_hint(e, "times are like 2026-01-31T08:00:00Z, or 10m for so long ago");
        }
        url_query(path, "since", o->since);
    }
    if (o->follow)
        url_query(path, "follow", "true");
    return 0;
}

COMMAND(cmd_logs)
{
    const struct logs_opts *o = opts;
    autosbuf struct sbuf path = SBUF(8192);
    struct logs l = { .raw = o->raw, .held = SBUF(16), .e = ERR_INIT };
    struct call call = { .method = "GET", .flags = o->follow ? CALL_SLOW : 0, .sink = sink,
                         .sink_arg = &l };

    (void)n;
    url_sandbox(&path, args[0], "/logs");
    if (add_options(o, &path, e) < 0)
        return -1;
    call.path = sbuf_str(&path);
    int r = client_call(app, &call, NULL, e);
    if (r == 0 && l.held.len && show(&l, "", 0, true) < 0)
        r = -1;
    if (l.e.code != ERR_NONE) {
        *e = l.e;
        r = -1;
    }
    sbuf_done(&l.held);
    return r;
}
