/* SPDX-License-Identifier: MIT
 *
 * What sandboxes use: a table from two samples, a second apart, as the daemon gives counters only.
 * On a terminal it goes on, each sample being the first one of the next row.
 */
#include "client/api_client.h"
#include "client/app.h"
#include "client/jsontext.h"
#include "client/list.h"
#include "client/out.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/parse.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_MS 1000
#define CLEAR "\033[H\033[J"

/* OWNER is for those who see more than their own, and last, so that it can be left out. */
static const struct column columns[] = {
    { "ID" }, { "NAME", .flex = true }, { "CPU %" }, { "MEM USAGE / LIMIT" }, { "NET I/O" },
    { "DISK" }, { "EXECS" }, { "DENIED" }, { "OWNER", .flex = true },
};

static const char *path_of_all(const struct stats_opts *o)
{
    return o->all ? "/" API_VERSION "/stats?all=true" : "/" API_VERSION "/stats";
}

/* --- samples --- */

static void sample_done(struct api_stats_list *l)
{
    json_done(api_stats_list_table, l, sizeof(*l));
}
#define autosample __attribute__((cleanup(sample_done)))

/* Those named; one that is removed while we watch is left out. */
static int take_named(struct app *app, char **names, size_t n, bool first,
                      struct api_stats_list *ret, struct err *e)
{
    struct api_stats *items = calloc(n, sizeof(*items));

    if (!items)
        return err_nomem(e);
    ret->stats = (struct jlist){ .items = items };
    for (size_t i = 0; i < n; i++) {
        autosbuf struct sbuf path = SBUF(LIMIT_HTTP_MEMORY);
        struct err one = ERR_INIT;
        url_sandbox(&path, names[i], "/stats");
        if (client_get(app, sbuf_str(&path), api_stats_table, &items[ret->stats.n], &one) == 0) {
            ret->stats.n++;
        } else if (first || one.code != ERR_SANDBOX_NOT_FOUND) {
            *e = one;
            return -1;
        }
    }
    return 0;
}

static int take(struct app *app, const struct stats_opts *o, char **names, size_t n, bool first,
                struct api_stats_list *ret, struct err *e)
{
    return n ? take_named(app, names, n, first, ret, e)
             : client_get(app, path_of_all(o), api_stats_list_table, ret, e);
}

/* --- the table --- */

static const struct api_stats *find(const struct api_stats_list *l, const char *id)
{
    const struct api_stats *items = l->stats.items;

    for (size_t i = 0; i < l->stats.n; i++)
        if (strcmp(items[i].id, id) == 0)
            return &items[i];
    return NULL;
}

/* Per cent of one processor; -1: it cannot be told. */
static double cpu_between(const struct api_stats *a, const struct api_stats *b)
{
    if (!a || a->started_at != b->started_at || b->time <= a->time ||
        b->cpu.usage_us < a->cpu.usage_us)
        return -1;
    return (double)(b->cpu.usage_us - a->cpu.usage_us) * 100 / (double)(b->time - a->time);
}

static int pair_cell(struct table *t, uint64_t a, uint64_t b, struct err *e)
{
    char left[40], right[40];

    format_size(a, left);
    format_size(b, right);
    return table_cellf(t, e, "%s / %s", left, right);
}

static int add_row(struct table *t, const struct api_stats *before, const struct api_stats *s,
                   struct err *e)
{
    double cpu = cpu_between(before, s);
    const struct api_stats_network *net = &s->network;

    if (table_cellf(t, e, "%.*s", t->no_trunc ? LIMIT_ID : 12, s->id) < 0 ||
        table_cell(t, s->name, e) < 0 ||
        (cpu < 0 ? table_cell(t, "-", e) : table_cellf(t, e, "%.1f%%", cpu)) < 0 ||
        pair_cell(t, s->memory.used, s->memory.limit, e) < 0 ||
        (net->present ? pair_cell(t, net->rx_bytes, net->tx_bytes, e)
                      : table_cell(t, "-", e)) < 0 ||
        pair_cell(t, s->disk.allocated, s->disk.size, e) < 0 ||
        table_cellf(t, e, "%u", s->execs_running) < 0 ||
        (net->present ? table_cellf(t, e, "%" PRIu64, net->denied) : table_cell(t, "-", e)) < 0)
        return -1;
    if (t->n_columns < ARRAY_SIZE(columns))
        return 0;
    return s->owner.user ? table_cell(t, s->owner.user, e)
                         : table_cellf(t, e, "%u", s->owner.uid);
}

static int draw(const struct stats_opts *o, const struct api_stats_list *before,
                const struct api_stats_list *now, struct err *e)
{
    autotable struct table t = { .columns = columns, .no_trunc = o->no_trunc,
                                 .n_columns = ARRAY_SIZE(columns) - (geteuid() != 0) };
    const struct api_stats *items = now->stats.items;

    for (size_t i = 0; i < now->stats.n; i++)
        if (add_row(&t, find(before, items[i].id), &items[i], e) < 0)
            return -1;
    return table_print(&t, e) < 0 || out_flush(e) < 0 ? -1 : 0;
}

static void wait_a_little(void)
{
    struct timespec left = { .tv_sec = INTERVAL_MS / 1000,
                             .tv_nsec = INTERVAL_MS % 1000 * 1000000 };

    while (nanosleep(&left, &left) < 0)
        ;
}

static int watch(struct app *app, const struct stats_opts *o, char **names, size_t n,
                 struct err *e)
{
    bool live = !o->no_stream && isatty(STDOUT_FILENO);
    autosample struct api_stats_list before = { 0 };

    if (take(app, o, names, n, true, &before, e) < 0)
        return -1;
    do {
        autosample struct api_stats_list now = { 0 };
        wait_a_little();
        if (take(app, o, names, n, !live, &now, e) < 0 ||
            (live && out_write(CLEAR, sizeof(CLEAR) - 1, e) < 0) || draw(o, &before, &now, e) < 0)
            return -1;
        sample_done(&before);
        before = now;
        now = (struct api_stats_list){ 0 };
    } while (live);
    return 0;
}

/* --- JSON --- */

static int print_named(struct app *app, const char *name, struct err *e)
{
    autosbuf struct sbuf path = SBUF(LIMIT_HTTP_MEMORY), body = SBUF(LIMIT_REPLY),
                         line = SBUF(LIMIT_REPLY);

    url_sandbox(&path, name, "/stats");
    const struct call call = { .method = "GET", .path = sbuf_str(&path) };
    if (client_call(app, &call, &body, e) < 0)
        return -1;
    json_compact(&line, sbuf_str(&body), body.len);
    return line.failed ? err_nomem(e) : out_line(sbuf_str(&line), e);
}

static int print_json(struct app *app, const struct stats_opts *o, char **names, size_t n,
                      struct err *e)
{
    static const struct list list = {
        .key = "stats", .list_table = api_stats_list_table, .item_table = api_stats_table,
        .item_size = sizeof(struct api_stats),
    };
    const struct list_opts as = { .format = "json" };

    if (n == 0)
        return list_show(app, path_of_all(o), &list, &as, e);
    for (size_t i = 0; i < n; i++)
        if (print_named(app, names[i], e) < 0)
            return -1;
    return 0;
}

COMMAND(cmd_stats)
{
    const struct stats_opts *o = opts;

    return o->json ? print_json(app, o, args, n, e) : watch(app, o, args, n, e);
}
