/* SPDX-License-Identifier: MIT */
#include "client/jsonlines.h"
#include "client/api_client.h"
#include "client/jsontext.h"
#include "client/out.h"
#include "common/auto.h"
#include <string.h>

#define LINE_MAX_BYTES (1024 * 1024)

void lines_cell(const struct json_lines *l, struct sbuf *b, size_t i, const char *text)
{
    autosbuf struct sbuf cell = SBUF(LINE_MAX_BYTES * 4);

    sbuf_text(&cell, text, strlen(text));
    sbuf_add(b, sbuf_str(&cell), cell.len);
    for (size_t w = text_width(sbuf_str(&cell)); w < l->columns[i].width; w++)
        sbuf_chr(b, ' ');
    sbuf_lit(b, i + 1 < l->n_columns ? "  " : "\n");
}

static void add_titles(struct json_lines *l, struct sbuf *b)
{
    if (l->titled || l->json)
        return;
    l->titled = true;
    for (size_t i = 0; i < l->n_columns; i++)
        lines_cell(l, b, i, l->columns[i].title);
}

static int add_line(struct json_lines *l, struct sbuf *b)
{
    static const struct jfield anything[] = { JF_END };
    autosbuf struct sbuf row = SBUF(LINE_MAX_BYTES * 16);
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
    if (l->row(l, &row, text, len) < 0)
        return -1;
    add_titles(l, b);
    sbuf_add(b, sbuf_str(&row), row.len);
    return row.failed ? err_nomem(&l->e) : 0;
}

static int show(struct json_lines *l, const struct sbuf *b)
{
    if (b->failed)
        return err_nomem(&l->e);
    return out_write(sbuf_str(b), b->len, &l->e) < 0 || out_flush(&l->e) < 0 ? -1 : 0;
}

/* Good lines that came before a bad one are shown. */
static int sink(void *arg, const char *data, size_t len)
{
    struct json_lines *l = arg;
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

static int finish(struct json_lines *l)
{
    autosbuf struct sbuf b = SBUF(LINE_MAX_BYTES);

    if (l->line.len)
        return err_set(&l->e, ERR_UNREACHABLE, "sandboxd's answer ends in the middle of a line");
    add_titles(l, &b);
    return show(l, &b);
}

int json_lines_show(struct app *app, struct json_lines *l, const char *path, bool follow,
                    struct err *e)
{
    struct call call = { .method = "GET", .path = path, .flags = follow ? CALL_SLOW : 0,
                         .sink = sink, .sink_arg = l };

    l->line = SBUF(LINE_MAX_BYTES);
    l->e = ERR_INIT;
    int r = client_call(app, &call, NULL, e);
    if (r == 0)
        r = finish(l);
    if (l->e.code != ERR_NONE) {
        *e = l->e;
        r = -1;
    }
    sbuf_done(&l->line);
    return r;
}
