/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/sbuf.h"
#include "daemon/fsck.h"
#include "daemon/link.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- findings --- */

void findings_done(struct findings *f)
{
    free(f->list);
    *f = (struct findings){ 0 };
}

bool findings_has(const struct findings *f, const struct finding *x)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->list[i].kind, x->kind) == 0 && strcmp(f->list[i].id, x->id) == 0 &&
            strcmp(f->list[i].what, x->what) == 0)
            return true;
    return false;
}

void findings_keep_common(struct findings *f, const struct findings *again)
{
    size_t kept = 0;

    for (size_t i = 0; i < f->n; i++)
        if (findings_has(again, &f->list[i]))
            f->list[kept++] = f->list[i];
    f->n = kept;
}

size_t findings_count(const struct findings *f)
{
    size_t n = 0;

    for (size_t i = 0; i < f->n; i++)
        n += !f->list[i].note;
    return n;
}

/* Each array's items by what they are asked for, as there may be a hundred thousand of each. */
struct comparing {
    const struct world *w;
    struct findings *f;
    bool failed;
    const struct thing **things;    /* owned, as the next ones; by kind, id */
    const struct thing **names;     /* by kind, name */
    const struct vm_row **rows;     /* by id */
    const struct exec_row **execs;  /* by id */
};

struct of {                     /* what a finding is about */
    const char *kind, *way;     /* "tap", "stray" */
    const char *id;
    const struct vm_row *row;   /* NULL none */
    const char *repair;
    bool note;
};

static __attribute__((format(printf, 3, 4))) void add(struct comparing *c, const struct of *of,
                                                      const char *fmt, ...)
{
    struct finding x = { .note = of->note };
    autosbuf struct sbuf plain = SBUF(sizeof(x.what) - 1), what = SBUF(sizeof(x.what) - 1);
    va_list ap;

    snprintf(x.kind, sizeof(x.kind), "%s%s%s", of->kind, of->way[0] ? "-" : "", of->way);
    snprintf(x.id, sizeof(x.id), "%s", of->id);
    snprintf(x.name, sizeof(x.name), "%s", of->row ? of->row->name : "");
    snprintf(x.repair, sizeof(x.repair), "%s", of->repair);
    va_start(ap, fmt);
    sbuf_vfmt(&plain, fmt, ap);
    va_end(ap);
    sbuf_text(&what, sbuf_str(&plain), plain.len);      /* names of files are anybody's */
    snprintf(x.what, sizeof(x.what), "%s", sbuf_str(&what));
    if (findings_has(c->f, &x))
        return;
    if (c->f->n == c->f->cap) {
        size_t cap = c->f->cap ? 2 * c->f->cap : 16;
        struct finding *grown = reallocarray(c->f->list, cap, sizeof(*grown));
        c->failed |= !grown;
        if (!grown)
            return;
        c->f->list = grown;
        c->f->cap = cap;
    }
    c->f->list[c->f->n++] = x;
}

/* --- the table --- */

enum need {
    NEED_NEVER,
    NEED_RUNNING,       /* a sandbox that runs has one */
    NEED_SHARE,         /* that, if its row names a share */
    NEED_TAP,           /* that, if its QEMU has a network device */
    NEED_RULES,         /* that, if there is a tap */
    NEED_DISK,          /* a sandbox that ever ran has one */
    NEED_MAX
};

static const char stopped[] = "the sandbox is stopped, with a reason";

static const struct {
    const char *word;           /* NULL: not a sandbox's by its id; see below */
    const char *is;
    const char *ends;           /* what a repair does to one that nobody should have */
    bool stays;                 /* also a sandbox that does not run has it */
    enum need need;
    const char *lacks;
    const char *repair;         /* of a lack; "": none */
} rules[] = {
    [TH_DOMAIN] = { "domain", "a virtual machine in libvirt's books", "ended", false,
                    NEED_RUNNING, "libvirt does not know its virtual machine", stopped },
    [TH_QEMU] = { "qemu", "a QEMU process", "ended", false,
                  NEED_RUNNING, "it should run, and no QEMU does", stopped },
    [TH_SHARE] = { "share", "a file share process", "ended", false,
                   NEED_SHARE, "the process that shares its workspace is gone", stopped },
    [TH_TAP] = { "tap", "a network interface", "removed", false,
                 NEED_TAP, "its network interface is gone: restart the sandbox", "" },
    [TH_CHAIN] = { "chain", "rules of the packet filter", "removed", false,
                   NEED_RULES, "the packet filter has no rules for it", "made anew" },
    [TH_TAP_CHAIN] = { "tapchain", "rules of the packet filter at an interface", "removed", false,
                       NEED_RULES, "the packet filter has no rules at its interface",
                       "made anew" },
    [TH_STATE] = { "state", "a directory below state_dir, without a disk", "removed", true,
                   NEED_NEVER, "", "" },
    [TH_DISK] = { "disk", "a disk", "kept aside in lost+found", true,
                  NEED_DISK, "its disk is gone", "it is marked as failed" },
    [TH_HALF_DISK] = { "halfdisk", "a disk whose making was cut off", "removed", false,
                       NEED_NEVER, "", "" },
    [TH_RUNTIME] = { "runtime", "a directory below runtime_dir", "removed", false,
                     NEED_RUNNING, "its directory below runtime_dir is gone", stopped },
    [TH_RING] = { NULL },
    [TH_KEPT] = { NULL },
    [TH_IMAGE] = { NULL },
};
_Static_assert(ARRAY_SIZE(rules) == TH_MAX, "a rule for each kind of thing");

/* --- finding them --- */

/* A tap's name has the beginning of an id only. */
#define TAP_ID (IFNAMSIZ - 1 - (sizeof(LINK_PREFIX) - 1))

static size_t id_length(enum thing_kind kind)
{
    return kind == TH_TAP || kind == TH_TAP_CHAIN ? TAP_ID : LIMIT_ID;
}

static int by_id(const void *a, const void *b)
{
    const struct thing *x = *(const struct thing *const *)a, *y = *(const struct thing *const *)b;

    return x->kind != y->kind ? (x->kind < y->kind ? -1 : 1)
                              : strncmp(x->id, y->id, id_length(x->kind));
}

static int by_name(const void *a, const void *b)
{
    const struct thing *x = *(const struct thing *const *)a, *y = *(const struct thing *const *)b;

    return x->kind != y->kind ? (x->kind < y->kind ? -1 : 1) : strcmp(x->name, y->name);
}

static int row_by_id(const void *a, const void *b)
{
    return strcmp((*(const struct vm_row *const *)a)->id, (*(const struct vm_row *const *)b)->id);
}

static int row_by_beginning(const void *key, const void *row)
{
    const struct thing *t = key;

    return strncmp(t->id, (*(const struct vm_row *const *)row)->id, id_length(t->kind));
}

static int exec_by_id(const void *a, const void *b)
{
    return strcmp((*(const struct exec_row *const *)a)->id,
                  (*(const struct exec_row *const *)b)->id);
}

/* Pointers to all items, in order. */
static void *ordered(struct comparing *c, const void *items, size_t n, size_t size,
                     int (*order)(const void *, const void *))
{
    const void **p = calloc(n + 1, sizeof(*p));

    c->failed |= !p;
    for (size_t i = 0; p && i < n; i++)
        p[i] = (const char *)items + i * size;
    if (p)
        qsort(p, n, sizeof(*p), order);
    return p;
}

static bool order_all(struct comparing *c)
{
    const struct world *w = c->w;

    c->things = ordered(c, w->things, w->n_things, sizeof(*w->things), by_id);
    c->names = ordered(c, w->things, w->n_things, sizeof(*w->things), by_name);
    c->rows = ordered(c, w->rows, w->n_rows, sizeof(*w->rows), row_by_id);
    c->execs = ordered(c, w->execs, w->n_execs, sizeof(*w->execs), exec_by_id);
    return !c->failed;
}

static const struct vm_row *row_of(const struct comparing *c, const struct thing *t)
{
    if (strlen(t->id) != id_length(t->kind))
        return NULL;
    const struct vm_row **r = bsearch(t, c->rows, c->w->n_rows, sizeof(*c->rows),
                                      row_by_beginning);
    return r ? *r : NULL;
}

static const struct thing *thing_of(const struct comparing *c, enum thing_kind kind,
                                    const char *id)
{
    struct thing key = { .kind = kind };
    const struct thing *k = &key;

    snprintf(key.id, sizeof(key.id), "%s", id);
    const struct thing **t = bsearch(&k, c->things, c->w->n_things, sizeof(*c->things), by_id);
    return t ? *t : NULL;
}

static bool has_name(const struct comparing *c, enum thing_kind kind, const char *name)
{
    struct thing key = { .kind = kind };
    const struct thing *k = &key;

    snprintf(key.name, sizeof(key.name), "%s", name);
    return bsearch(&k, c->names, c->w->n_things, sizeof(*c->names), by_name);
}

static bool has_exec(const struct comparing *c, const char *id)
{
    struct exec_row key = { 0 };
    const struct exec_row *k = &key;

    snprintf(key.id, sizeof(key.id), "%.16s", id);      /* a ring's name has no more */
    return bsearch(&k, c->execs, c->w->n_execs, sizeof(*c->execs), exec_by_id);
}

/* --- things that should not be there --- */

static void compare_thing(struct comparing *c, const struct thing *t)
{
    const struct vm_row *row = row_of(c, t);
    struct of of = { rules[t->kind].word, "stray", t->id, row, rules[t->kind].ends, false };

    if (!of.kind || (t->kind == TH_STATE && thing_of(c, TH_DISK, t->id)))
        return;
    if (!row) {
        add(c, &of, "%s without a sandbox%s", rules[t->kind].is,
            t->kind == TH_DISK ? " in the database" : "");
        return;
    }
    of.id = row->id;
    if (t->kind == TH_QEMU && t->number != c->w->uid_base + row->slot) {
        of.way = "uid";
        of.repair = "";
        add(c, &of, "its QEMU runs as uid %u instead of %u", t->number,
            c->w->uid_base + row->slot);
    }
    /* Beside a daemon it may be on its way up or down. */
    if (c->w->daemon || rules[t->kind].stays ||
        (row->state != VM_STOPPED && row->state != VM_FAILED))
        return;
    of.way = "left";
    add(c, &of, "%s, though the sandbox does not run", rules[t->kind].is);
}

/* --- rows --- */

static bool is_lost(const struct comparing *c, const struct vm_row *r)
{
    return r->started_at && !thing_of(c, TH_DISK, r->id);
}

static bool needs(const struct comparing *c, const struct vm_row *r, enum need need)
{
    const struct thing *qemu = thing_of(c, TH_QEMU, r->id);
    bool runs = r->state == VM_RUNNING && qemu;
    bool tap = runs && c->w->network && qemu->networked;
    const bool answer[] = {
        [NEED_NEVER] = false,
        [NEED_RUNNING] = runs,
        [NEED_SHARE] = runs && r->share_pid != 0,
        [NEED_TAP] = tap,
        [NEED_RULES] = tap && thing_of(c, TH_TAP, r->id),
        [NEED_DISK] = (r->state == VM_RUNNING || r->state == VM_STOPPED) && r->started_at,
    };
    _Static_assert(ARRAY_SIZE(answer) == NEED_MAX, "an answer for each need");

    return answer[need];
}

static void compare_needs(struct comparing *c, const struct vm_row *r)
{
    bool runs = thing_of(c, TH_QEMU, r->id);

    if (r->state == VM_RUNNING && !runs) {      /* then all the rest has gone with it */
        struct of of = { rules[TH_QEMU].word, "missing", r->id, r, rules[TH_QEMU].repair, false };
        add(c, &of, "%s", rules[TH_QEMU].lacks);
    }
    for (enum thing_kind k = 0; k < TH_MAX; k++) {
        if (!needs(c, r, rules[k].need) || thing_of(c, k, r->id))
            continue;
        bool open = k == TH_DISK && runs;
        struct of of = { rules[k].word, "missing", r->id, r, open ? "" : rules[k].repair, false };
        add(c, &of, "%s%s", rules[k].lacks,
            open ? "; the sandbox still has it open: copy out what is needed before it stops" : "");
    }
}

/* What a start does with rows that it finds in these states; nothing is under way then. */
static void compare_state(struct comparing *c, const struct vm_row *r)
{
    static const char *const settled[] = {
        [VM_CREATING] = "removed: it was never whole",
        [VM_RUNNING] = NULL,
        [VM_STOPPING] = "stopped",
        [VM_STOPPED] = NULL,
        [VM_REMOVING] = "removed",
        [VM_FAILED] = "removed: it was being removed",
    };
    _Static_assert(ARRAY_SIZE(settled) == VM_STATE_MAX, "a word for each state");
    bool lost = r->state == VM_FAILED && is_lost(c, r);
    struct of of = { "row", "unsettled", r->id, r, lost ? "" : settled[r->state], lost };

    if (lost) {
        of.way = "failed";
        add(c, &of, "it has failed: %s; `sbx rm` removes it", r->reason ? r->reason : "no reason");
    } else if (settled[r->state] && !c->w->daemon) {
        add(c, &of, "it is '%s', and no sandboxd runs", vm_state_name(r->state));
    }
}

static void compare_slots(struct comparing *c)
{
    for (size_t i = 0; i < c->w->n_rows; i++) {
        const struct vm_row *r = &c->w->rows[i];
        struct of of = { "slot", "", r->id, r, "", false };
        if (r->slot < 1 || r->slot > LIMIT_SANDBOXES)
            add(c, &of, "its slot %u is out of range", r->slot);
        for (size_t k = 0; k < i; k++)
            if (c->w->rows[k].slot == r->slot)
                add(c, &of, "its slot %u is also that of %s", r->slot, c->w->rows[k].id);
    }
}

/* --- output of commands --- */

static void compare_rings(struct comparing *c)
{
    const struct world *w = c->w;

    for (size_t i = 0; i < w->n_things; i++) {
        const struct thing *t = &w->things[i];
        const struct vm_row *row = t->kind == TH_RING ? row_of(c, t) : NULL;
        struct of of = { "ring", "stray", t->id, row, "removed", false };
        if (row && row->state == VM_RUNNING && !has_exec(c, t->name))
            add(c, &of, "output of a command %s that is not in the database", t->name);
    }
    for (size_t i = 0; i < w->n_execs; i++) {
        const struct exec_row *x = &w->execs[i];
        struct thing whose = { .kind = TH_RING };
        memcpy(whose.id, x->vm, sizeof(whose.id));
        const struct vm_row *row = row_of(c, &whose);
        if (row && row->state == VM_RUNNING && thing_of(c, TH_RUNTIME, x->vm) &&
            !has_name(c, TH_RING, x->id)) {
            struct of of = { "ring", "missing", x->vm, row, "made anew, empty", false };
            add(c, &of, "the output of command %s is gone", x->id);
        } else if (row && row->state == VM_STOPPED && !w->daemon) {
            struct of of = { "exec", "left", x->vm, row, "removed", false };
            add(c, &of, "command %s of a sandbox that does not run", x->id);
        }
    }
}

/* --- images, and what was kept --- */

static bool knows_image(const struct world *w, const char *digest)
{
    for (size_t i = 0; i < w->n_images; i++)
        if (strcmp(w->images[i].digest, digest) == 0)
            return true;
    return false;
}

static void compare_names(struct comparing *c)
{
    struct of missing = { "image", "missing", "", NULL, "", false };
    struct of stray = { "image", "stray", "", NULL, "", true };

    for (size_t i = 0; i < c->w->n_images; i++) {
        const struct image_row *m = &c->w->images[i];
        if (!has_name(c, TH_IMAGE, m->digest))
            add(c, &missing, "image %s is not there; %u sandboxes stand on it", m->digest,
                m->sandboxes);
    }
    for (size_t i = 0; i < c->w->n_things; i++) {
        const struct thing *t = &c->w->things[i];
        struct of kept = { "kept", "", t->id, NULL, "", true };
        if (t->kind == TH_IMAGE && !knows_image(c->w, t->name))
            add(c, &stray, "image %s is not in the database", t->name);
        else if (t->kind == TH_KEPT)
            add(c, &kept, "a disk without a sandbox is kept in lost+found/%s", t->name);
    }
}

static void compare_all(struct comparing *c)
{
    const struct world *w = c->w;
    struct of database = { "database", "", "", NULL, "", false };

    for (size_t i = 0; i < w->faults.n; i++)
        add(c, &database, "%s", w->faults.items[i]);
    for (size_t i = 0; i < w->n_rows; i++) {
        compare_state(c, &w->rows[i]);
        compare_needs(c, &w->rows[i]);
    }
    compare_slots(c);
    for (size_t i = 0; i < w->n_things; i++)
        compare_thing(c, &w->things[i]);
    compare_rings(c);
    compare_names(c);
}

int fsck_compare(const struct world *w, struct findings *ret, struct err *e)
{
    struct findings f = { 0 };
    struct comparing c = { .w = w, .f = &f, .failed = w->failed };

    if (order_all(&c))
        compare_all(&c);
    free(c.things);
    free(c.names);
    free(c.rows);
    free(c.execs);
    if (c.failed) {
        findings_done(&f);
        return err_nomem(e);
    }
    *ret = f;
    return 0;
}
