/* SPDX-License-Identifier: MIT
 *
 * What a policy decided, as it happens: lines of JSON, cut anywhere by the network. Names and
 * addresses are what a guest made up, and are escaped.
 */
#include "client/jsontext.h"
#include "client/out.h"
#include "client/policies.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/parse.h"
#include <inttypes.h>
#include <string.h>

#define LINE_MAX_BYTES (1024 * 1024)

struct events {
    bool json;
    bool titled;
    struct sbuf line;       /* what has come of the next one */
    struct err e;
};

/* Least widths: a stream cannot know what is to come. The last one has none. */
static const struct { const char *title; size_t width; } cells[] = {
    { "TIME", 19 }, { "VERDICT", 7 }, { "NAME", 24 }, { "ADDRESS", 24 }, { "COUNT", 5 },
    { "WHY", 0 },
};

static void add_cell(struct sbuf *b, size_t i, const char *text)
{
    autosbuf struct sbuf cell = SBUF(LINE_MAX_BYTES * 4);

    sbuf_text(&cell, text, strlen(text));
    sbuf_add(b, sbuf_str(&cell), cell.len);
    for (size_t w = text_width(sbuf_str(&cell)); w < cells[i].width; w++)
        sbuf_chr(b, ' ');
    if (i + 1 < ARRAY_SIZE(cells))
        sbuf_lit(b, "  ");
}

/* "192.0.2.1:443/tcp", of which any part may be missing. What ICMP has there is its type. */
static void add_address(struct sbuf *b, const struct api_policy_event *v)
{
    uint32_t port = v->proto && strcmp(v->proto, "icmp") == 0 ? 0 : v->port;

    sbuf_fmt(b, "%s", v->address ? v->address : port ? "*" : "-");
    if (port)
        sbuf_fmt(b, ":%u", port);
    if (v->proto && (v->address || port))
        sbuf_fmt(b, "/%s", v->proto);
}

static void add_event(struct sbuf *b, const struct api_policy_event *v)
{
    autosbuf struct sbuf address = SBUF(LINE_MAX_BYTES);
    char time[40], count[32] = "-";
    bool decision = strcmp(v->kind, "connect") == 0 || strcmp(v->kind, "resolve") == 0;
    const char *why = decision && v->rule ? v->rule : v->reason ? v->reason : v->rule;

    add_address(&address, v);
    if (v->count)
        snprintf(count, sizeof(count), "%" PRIu64, v->count);
    add_cell(b, 0, local_time(v->time, time));
    add_cell(b, 1, decision ? (v->verdict ? v->verdict : "-") : v->kind);
    add_cell(b, 2, v->name ? v->name : "-");
    add_cell(b, 3, sbuf_str(&address));
    add_cell(b, 4, count);
    add_cell(b, 5, why ? why : "-");
    sbuf_chr(b, '\n');
}

static void add_titles(struct events *l, struct sbuf *b)
{
    if (l->titled || l->json)
        return;
    l->titled = true;
    for (size_t i = 0; i < ARRAY_SIZE(cells); i++)
        add_cell(b, i, cells[i].title);
    sbuf_chr(b, '\n');
}

static int add_line(struct events *l, struct sbuf *b)
{
    static const struct jfield anything[] = { JF_END };
    struct api_policy_event v = { 0 };
    const char *text = sbuf_str(&l->line);
    size_t len = l->line.len;
    char unused = 0;

    if (strspn(text, " \t\r") == len)       /* a sign of life */
        return 0;
    if (l->json) {
        if (client_decode(anything, text, len, &unused, &l->e) < 0)
            return -1;
        json_compact(b, text, len);
        sbuf_chr(b, '\n');
        return 0;
    }
    if (client_decode(api_policy_event_table, text, len, &v, &l->e) < 0)
        return -1;
    add_titles(l, b);
    add_event(b, &v);
    json_done(api_policy_event_table, &v, sizeof(v));
    return 0;
}

static int show(struct events *l, const struct sbuf *b)
{
    if (b->failed)
        return err_nomem(&l->e);
    return out_write(sbuf_str(b), b->len, &l->e) < 0 || out_flush(&l->e) < 0 ? -1 : 0;
}

/* Good lines that came before a bad one are shown. */
static int sink(void *arg, const char *data, size_t len)
{
    struct events *l = arg;
    autosbuf struct sbuf b = SBUF(256ULL * 1024 * 1024);
    int r = 0;

    while (len && r == 0) {
        const char *end = memchr(data, '\n', len);
        size_t n = end ? (size_t)(end - data) : len;
        sbuf_add(&l->line, data, n);
        if (l->line.failed) {
            r = l->line.failed == E2BIG
                    ? err_set(&l->e, ERR_INTERNAL, "sandboxd's answer has a line that does not end")
                    : err_nomem(&l->e);
        } else if (end) {
            r = add_line(l, &b);
            sbuf_done(&l->line);
            l->line = SBUF(LINE_MAX_BYTES);
        }
        data += n + (end != NULL);
        len -= n + (end != NULL);
    }
    return b.len && show(l, &b) < 0 ? -1 : r;
}

static int finish(struct events *l)
{
    autosbuf struct sbuf b = SBUF(LINE_MAX_BYTES);

    if (l->line.len)
        return err_set(&l->e, ERR_UNREACHABLE, "sandboxd's answer ends in the middle of a line");
    add_titles(l, &b);
    return show(l, &b);
}

COMMAND(cmd_policy_log)
{
    const struct policy_log_opts *o = opts;
    autosbuf struct sbuf path = SBUF(8192);
    struct events l = { .json = o->json, .line = SBUF(LINE_MAX_BYTES), .e = ERR_INIT };
    struct call call = { .method = "GET", .flags = o->follow ? CALL_SLOW : 0, .sink = sink,
                         .sink_arg = &l };
    uint32_t lines = 0;

    (void)n;
    url_sandbox(&path, args[0], "/policy/log");
    if (o->tail && strcmp(o->tail, "all") != 0) {
        if (!parse_u32(o->tail, 0, UINT32_MAX, &lines))
            return err_set(e, ERR_USAGE, "--tail: '%s' is not a number of lines", o->tail);
        url_query(&path, "tail", o->tail);
    }
    if (o->denied)
        url_query(&path, "denied", "true");
    if (o->follow)
        url_query(&path, "follow", "true");
    call.path = sbuf_str(&path);
    int r = client_call(app, &call, NULL, e);
    if (r == 0)
        r = finish(&l);
    if (l.e.code != ERR_NONE) {
        *e = l.e;
        r = -1;
    }
    sbuf_done(&l.line);
    return r;
}
