/* SPDX-License-Identifier: MIT */
#include "daemon/fsck_cmd.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/jfield.h"
#include "common/log.h"
#include "daemon/daemon.h"
#include "daemon/fsck.h"
#include "daemon/privs.h"

#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_MS 1500      /* until news of what happened has reached the rows of a daemon */

static const char usage_text[] =
    "Usage: sandboxd fsck [OPTION]…\n"
    "\n"
    "Compares the database with what is there: virtual machines, processes, interfaces, rules\n"
    "of the packet filter, directories, disks, output of commands. One line for each finding.\n"
    "\n"
    "  --repair        repair as the start of a sandboxd does; none may run\n"
    "  --json          one JSON object instead\n"
    "  --config FILE   configuration (default /etc/sandboxd/daemon.json)\n"
    "  --help          print this text\n"
    "\n"
    "Exit status: 0 clean, 1 there are findings, 2 it could not be looked.\n";

enum { CLEAN, FINDINGS, COULD_NOT };

struct options {
    const char *config;
    bool repair, json;
};

/* --- what is shown --- */

enum fate { FATE_FOUND, FATE_REPAIRED, FATE_REMAINS, FATE_MAX };
static const char *const fates[] = {
    [FATE_FOUND] = "found", [FATE_REPAIRED] = "repaired", [FATE_REMAINS] = "remains",
};
_Static_assert(ARRAY_SIZE(fates) == FATE_MAX, "a word for each fate");

struct shown {              /* a finding on the wire; strings borrowed */
    char *kind, *sandbox, *name, *what, *repair, *status;
    bool note;
};
static const struct jfield shown_table[] = {
    JF(struct shown, kind, JT_STR),
    JF(struct shown, sandbox, JT_STR),
    JF(struct shown, name, JT_STR),
    JF(struct shown, what, JT_STR),
    JF(struct shown, repair, JT_STR),
    JF(struct shown, status, JT_STR),
    JF(struct shown, note, JT_BOOL),
    JF_END,
};

struct report {
    bool clean, daemon;
    struct jlist findings;
};
static const struct jfield report_table[] = {
    JF(struct report, clean, JT_BOOL),
    JF(struct report, daemon, JT_BOOL),
    JF(struct report, findings, JT_LIST, .table = shown_table, .item_size = sizeof(struct shown)),
    JF_END,
};

struct result {
    bool daemon, repaired;
    uint32_t sandboxes;
    struct findings before, after;      /* after: what a repair left; else the same as before */
};

static void result_done(struct result *r)
{
    findings_done(&r->before);
    findings_done(&r->after);
}

static enum fate fate_of(const struct result *r, const struct finding *x)
{
    if (x->note || !r->repaired)
        return FATE_FOUND;
    return findings_has(&r->after, x) ? FATE_REMAINS : FATE_REPAIRED;
}

static size_t left(const struct result *r)
{
    return findings_count(r->repaired ? &r->after : &r->before);
}

static void say_one(const struct result *r, const struct finding *x)
{
    static const char note[] = "note";
    enum fate fate = fate_of(r, x);

    printf("%s%s%s%s%s%s: %s", x->kind, x->id[0] ? " " : "", x->id, x->name[0] ? " (" : "", x->name,
           x->name[0] ? ")" : "", x->what);
    if (x->note)
        printf(" [%s]\n", note);
    else if (fate == FATE_FOUND)
        printf("; repair: %s\n", x->repair[0] ? x->repair : "none, by hand");
    else
        printf("; %s%s%s\n", fates[fate], x->repair[0] ? ": " : "", x->repair);
}

/* Each once: those of before, and what is new after a repair. */
static bool is_told(const struct result *r, size_t i, const struct finding **ret)
{
    const struct finding *x = i < r->before.n ? &r->before.list[i]
                                              : &r->after.list[i - r->before.n];

    *ret = x;
    return i < r->before.n ? !(x->note && r->repaired && !findings_has(&r->after, x))
                           : !findings_has(&r->before, x);
}

static int say_json(const struct result *r, struct err *e)
{
    size_t n = r->before.n + r->after.n, used = 0;
    autofree struct shown *items = calloc(n + 1, sizeof(*items));
    autosbuf struct sbuf text = SBUF(64 * MIB);
    struct report report = { .clean = left(r) == 0, .daemon = r->daemon };
    const struct finding *x;

    if (!items)
        return err_nomem(e);
    for (size_t i = 0; i < n; i++) {
        if (!is_told(r, i, &x))
            continue;
        items[used++] = (struct shown){
            .kind = (char *)x->kind,
            .sandbox = x->id[0] ? (char *)x->id : NULL,
            .name = x->name[0] ? (char *)x->name : NULL,
            .what = (char *)x->what,
            .repair = x->repair[0] ? (char *)x->repair : NULL,
            .status = (char *)fates[fate_of(r, x)],
            .note = x->note,
        };
    }
    report.findings = (struct jlist){ .items = items, .n = used };
    if (json_encode(report_table, &report, &text, e) < 0)
        return -1;
    puts(sbuf_str(&text));
    return 0;
}

static int say(const struct result *r, bool json, struct err *e)
{
    const struct finding *x;

    if (json)
        return say_json(r, e);
    for (size_t i = 0; i < r->before.n + r->after.n; i++)
        if (is_told(r, i, &x))
            say_one(r, x);
    if (left(r) == 0)
        printf("clean: %u sandboxes%s\n", r->sandboxes,
               r->daemon ? ", sandboxd runs" : ", no sandboxd runs");
    return 0;
}

/* --- what is done --- */

static int look(const struct config *c, struct result *r, struct findings *ret, struct err *e)
{
    __attribute__((cleanup(world_done))) struct world w = { 0 };

    if (fsck_look(c, &w, e) < 0 || fsck_compare(&w, ret, e) < 0)
        return -1;
    r->daemon |= w.daemon;
    r->sandboxes = (uint32_t)w.n_rows;
    return 0;
}

static int look_first(const struct config *c, struct result *r, struct err *e)
{
    __attribute__((cleanup(findings_done))) struct findings again = { 0 };

    if (look(c, r, &r->before, e) < 0)
        return -1;
    if (!r->daemon || findings_count(&r->before) == 0)
        return 0;
    /* What happens meanwhile tells us nothing: what is a fault is there a moment later, too. */
    poll(NULL, 0, SETTLE_MS);
    if (look(c, r, &again, e) < 0)
        return -1;
    findings_keep_common(&r->before, &again);
    return 0;
}

static int refuse_damaged(const struct findings *f, struct err *e)
{
    for (size_t i = 0; i < f->n; i++) {
        if (strcmp(f->list[i].kind, "database") != 0)
            continue;
        err_set(e, ERR_UNAVAILABLE, "the database is damaged: nothing is repaired by it");
        return err_hint(e, "put a backup in its place, see sandboxd(8)");
    }
    return 0;
}

/* A start and a stop of a daemon that serves nobody. */
static int repair(struct options *o, struct err *e)
{
    __attribute__((cleanup(config_done))) struct config c = { 0 };
    struct daemon d = { 0 };
    struct err why = ERR_INIT;

    if (config_load(o->config, &c, e) < 0)
        return -1;
    int r = daemon_claim(&d, &c, &why);
    if (r == 0)
        r = privs_drop(&why) < 0 || daemon_settle(&d, false, &why) < 0 ? -1 : 0;
    if (!daemon_stop(&d))
        return err_set(e, ERR_INTERNAL, "what was under way did not end");
    if (r < 0)
        *e = why;
    return r;
}

static int work(struct options *o, struct result *r, struct err *e)
{
    __attribute__((cleanup(config_done))) struct config c = { 0 };

    if (config_load(o->config, &c, e) < 0)
        return -1;
    if (geteuid() != 0)
        return err_set(e, ERR_DENIED, "sandboxd fsck has to be run as root");
    if (fsck_daemon_runs(&c, &r->daemon, e) < 0)
        return -1;
    if (r->daemon && o->repair) {
        err_set(e, ERR_UNAVAILABLE, "a sandboxd uses %s, and nothing is repaired beside it",
                c.state_dir);
        return err_hint(e, "stop sandboxd, or restart it: a start repairs by itself");
    }
    if (look_first(&c, r, e) < 0)
        return -1;
    if (!o->repair || findings_count(&r->before) == 0)
        return 0;
    if (refuse_damaged(&r->before, e) < 0 || repair(o, e) < 0)
        return -1;
    r->repaired = true;
    return look(&c, r, &r->after, e);
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option table[] = {
        { "config", 1, NULL, 'c' }, { "repair", 0, NULL, 'r' }, { "json", 0, NULL, 'j' },
        { "help", 0, NULL, 'h' },   { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->config = optarg;
            break;
        case 'r':
            o->repair = true;
            break;
        case 'j':
            o->json = true;
            break;
        case 'h':
            fputs(usage_text, stdout);
            return CLEAN;
        default:
            fputs("see `sandboxd fsck --help`\n", stderr);
            return COULD_NOT;
        }
    }
    if (optind == argc)
        return -1;
    fputs(usage_text, stderr);
    return COULD_NOT;
}

int fsck_cmd(int argc, char **argv)
{
    __attribute__((cleanup(result_done))) struct result r = { 0 };
    struct options o = { 0 };
    struct err e = ERR_INIT;
    int status = parse(argc, argv, &o);

    if (status >= 0)
        return status;
    json_init();
    int r_clean = privs_clean(0, &e);
    log_init("sandboxd", LOG_NOTICE);   /* what a repair does, and no more; after fds were closed */
    if (r_clean == 0 && work(&o, &r, &e) == 0 && say(&r, o.json, &e) == 0)
        return left(&r) ? FINDINGS : CLEAN;
    fprintf(stderr, "sandboxd: %s\n", e.msg);
    if (e.hint[0])
        fprintf(stderr, "hint: %s\n", e.hint);
    return COULD_NOT;
}
