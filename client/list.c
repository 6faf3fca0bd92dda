/* SPDX-License-Identifier: MIT */
#include "client/list.h"
#include "client/api_client.h"
#include "client/jsontext.h"
#include "client/template.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/parse.h"
#include <string.h>

#define OBJECT_MAX 4096     /* bytes of the largest struct of a reply */

const char *ago(int64_t at_us, char *buf)
{
    if (!at_us)
        return "-";
    int64_t since = now_real_us() - at_us;
    format_ago(since > 0 ? since : 0, buf);
    return buf;
}

static int show_template(const char *text, const struct jfield *table, const void *item,
                         const char *raw, struct err *e)
{
    autosbuf struct sbuf b = SBUF(LIMIT_REPLY);
    autosbuf struct sbuf whole = SBUF(LIMIT_REPLY);

    json_compact(&whole, raw, strlen(raw));
    if (template_fill(text, table, item, sbuf_str(&whole), isatty(STDOUT_FILENO), &b, e) < 0)
        return -1;
    return out_line(sbuf_str(&b), e);
}

static int show_item(const struct list *l, const struct list_opts *o, const struct format *f,
                     struct table *t, const void *item, const char *raw, struct err *e)
{
    if (o->quiet)
        return out_line(l->id(item) ? l->id(item) : "", e);
    if (f->kind == FORMAT_TABLE)
        return l->row(t, item, o->no_trunc, e);
    if (f->kind == FORMAT_TEMPLATE)
        return show_template(f->text, l->item_table, item, raw, e);
    autosbuf struct sbuf b = SBUF(LIMIT_REPLY);
    json_compact(&b, raw, strlen(raw));
    return out_line(sbuf_str(&b), e);
}

static int show_items(const struct list *l, const struct list_opts *o, const struct format *f,
                      const struct jlist *items, const struct strv *raw, struct err *e)
{
    autotable struct table t = { .columns = l->columns, .n_columns = l->n_columns,
                                 .no_trunc = o->no_trunc };

    for (size_t i = 0; i < items->n && i < raw->n; i++) {
        const char *item = (const char *)items->items + i * l->item_size;
        if (l->keep && !l->keep(item, l->keep_arg))
            continue;
        if (show_item(l, o, f, &t, item, raw->items[i], e) < 0)
            return -1;
    }
    return f->kind == FORMAT_TABLE && !o->quiet ? table_print(&t, e) : 0;
}

int list_show(struct app *app, const char *path, const struct list *l, const struct list_opts *o,
              struct err *e)
{
    struct jlist items = { 0 };
    struct format f;
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);
    autostrv struct strv raw = STRV_INIT;
    int r = -1;

    if (format_parse(o->format, &f, e) < 0 ||
        client_call(app, &(struct call){ .method = "GET", .path = path }, &body, e) < 0 ||
        client_decode(l->list_table, sbuf_str(&body), body.len, &items, e) < 0)
        return -1;
    if (json_items(sbuf_str(&body), body.len, l->key, &raw, e) == 0)
        r = show_items(l, o, &f, &items, &raw, e);
    json_done(l->list_table, &items, sizeof(items));
    return r;
}

static int inspect_template(const char *body, size_t len, const struct jfield *table,
                            const char *format, struct err *e)
{
    /* Aligned room for any of the reply structs; the table says what is in it. */
    _Alignas(max_align_t) char object[OBJECT_MAX];

    if (client_decode(table, body, len, object, e) < 0)
        return -1;
    int r = show_template(format, table, object, body, e);
    json_done(table, object, sizeof(object));
    return r;
}

/* Any object: what is only shown has to be JSON all the same. */
static int check_syntax(const char *text, size_t len, struct err *e)
{
    static const struct jfield nothing[] = { JF_END };
    char unused = 0;

    return client_decode(nothing, text, len, &unused, e);
}

int inspect_show(struct app *app, const char *prefix, char **names, size_t n,
                 const struct jfield *table, const char *format, struct err *e)
{
    autosbuf struct sbuf all = SBUF(LIMIT_REPLY);
    int status = 0;
    size_t shown = 0;

    if (format && strcmp(format, "json") == 0)
        format = NULL;
    for (size_t i = 0; i < n; i++) {
        autosbuf struct sbuf path = SBUF(4096);
        autosbuf struct sbuf body = SBUF(LIMIT_REPLY);
        struct err failure = ERR_INIT;
        sbuf_add(&path, prefix, strlen(prefix));
        url_add(&path, names[i]);
        int r = client_call(app, &(struct call){ .method = "GET", .path = sbuf_str(&path) }, &body,
                            &failure);
        if (r == 0 && !format)
            r = check_syntax(sbuf_str(&body), body.len, &failure);
        if (r == 0 && format) {
            if (inspect_template(sbuf_str(&body), body.len, table, format, e) < 0)
                return -1;
        } else if (r == 0) {
            sbuf_lit(&all, shown++ ? ",\n    " : "\n    ");
            json_pretty(&all, sbuf_str(&body), body.len, 1);
        } else if (failure.code == ERR_UNREACHABLE) {
            *e = failure;
            return -1;
        } else {
            report(&failure);
            status = err_exit_status(failure.code);
        }
    }
    if (all.failed)
        return err_nomem(e);
    if (!format && (out_write("[", 1, e) < 0 || out_write(sbuf_str(&all), all.len, e) < 0 ||
                    out_line(shown ? "\n]" : "]", e) < 0))
        return -1;
    return status;
}
