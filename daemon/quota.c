/* SPDX-License-Identifier: MIT
 *
 * Accounts are a short array: only who has something has one. Rules are an array too, made once:
 * what a user may have is looked up at each charge, which is a walk over the entries of daemon.json
 * and costs less than the request it is for.
 */
#include "daemon/quota.h"

#include "common/auto.h"
#include "common/limits.h"
#include "common/parse.h"
#include "common/sbuf.h"
#include "daemon/peer.h"
#include "daemon/workspace.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct rule {
    bool group;
    uint32_t id;                /* uid or gid */
    char *source;               /* owned: "users.alice" */
    uint64_t limit[QUOTA_MAX];
};

struct account {
    uid_t uid;
    struct quota_use used;
};

struct quota {
    uint64_t fallback[QUOTA_MAX];   /* constant, as the rules */
    struct rule *rules;             /* owned */
    size_t n_rules;

    pthread_mutex_t lock;           /* a leaf; guards the accounts */
    struct account *accounts;       /* owned; those that are not all zero */
    size_t n, cap;
};

static const struct {
    const char *key;
    bool bytes;
} words[] = {
#define QUOTA_WORDS(constant, key_, bytes_) [constant] = { .key = key_, .bytes = bytes_ },
    QUOTA_TABLE(QUOTA_WORDS)
#undef QUOTA_WORDS
};
static_assert(ARRAY_SIZE(words) == QUOTA_MAX, "a row for each quota");

/* What shows the use, and how to end some of it. */
static const char *const hints[] = {
    [QUOTA_SANDBOXES] = "`sbx ls` lists them, `sbx rm NAME` removes one",
    [QUOTA_CPUS] = "`sbx ls` lists what runs: `sbx stop NAME`, or ask for fewer",
    [QUOTA_MEMORY] = "`sbx ls` lists what runs: `sbx stop NAME`, or ask for less",
    [QUOTA_DISK] = "`sbx ls` lists what has disks: `sbx rm NAME`, or ask for less",
    [QUOTA_EXECS] = "`sbx execs NAME` lists them: end some",
    [QUOTA_CONNECTIONS] = "close some: each attached command and each followed log is one",
    [QUOTA_REQUESTS] = "let some end: each attached command and each followed log is one",
    [QUOTA_REPLIES] = "take the answers that wait; `sbx exec` needs none of it",
};
static_assert(ARRAY_SIZE(hints) == QUOTA_MAX, "a hint for each quota");

const char *quota_key(enum quota_what w)
{
    return words[w].key;
}

bool quota_is_bytes(enum quota_what w)
{
    return words[w].bytes;
}

/* --- rules --- */

static int look_up(const struct quota_entry *entry, bool group, uint32_t *ret, struct err *e)
{
    /* all digits are a number, whether anybody has it or not: accounts come and go */
    if (parse_u32(entry->name, 0, UINT32_MAX - 1, ret))
        return 0;
    return group ? peer_group(entry->name, ret, e) : peer_user(entry->name, ret, e);
}

static int add_rules(struct quota *q, const struct jlist *entries, bool group, struct err *e)
{
    const struct quota_entry *list = entries->items;
    const char *kind = group ? "groups" : "users";

    for (size_t i = 0; i < entries->n; i++) {
        struct rule *r = &q->rules[q->n_rules];
        autosbuf struct sbuf source = SBUF(LIMIT_PATH);
        uint32_t id;
        if (look_up(&list[i], group, &id, e) < 0)
            return err_wrap(e, "quota.%s.%s", kind, list[i].name);
        for (size_t k = 0; k < q->n_rules; k++)
            if (q->rules[k].group == group && q->rules[k].id == id)
                return err_set(e, ERR_INVALID, "quota.%s.%s: is the same as quota.%s", kind,
                               list[i].name, q->rules[k].source);
        sbuf_fmt(&source, "%s.%s", kind, list[i].name);
        if (sbuf_take(&source, &r->source, e) < 0)
            return -1;
        r->group = group;
        r->id = id;
        memcpy(r->limit, list[i].limit, sizeof(r->limit));
        q->n_rules++;
    }
    return 0;
}

AUTO_DEFINE(quota, struct quota, quota_free)

int quota_new(const struct quota_config *c, struct quota **ret, struct err *e)
{
    autotype(quota) struct quota *q = calloc(1, sizeof(*q));

    if (!q)
        return err_nomem(e);
    pthread_mutex_init(&q->lock, NULL);
    q->rules = calloc(c->users.n + c->groups.n + 1, sizeof(*q->rules));
    if (!q->rules)
        return err_nomem(e);
    memcpy(q->fallback, c->fallback.limit, sizeof(q->fallback));
    if (add_rules(q, &c->users, false, e) < 0 || add_rules(q, &c->groups, true, e) < 0)
        return -1;
    *ret = take_ptr(q);
    return 0;
}

void quota_free(struct quota *q)
{
    if (!q)
        return;
    for (size_t i = 0; i < q->n_rules; i++)
        free(q->rules[i].source);
    free(q->rules);
    free(q->accounts);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

static bool is_in(const struct identity *who, gid_t gid)
{
    for (size_t i = 0; i < who->n_groups; i++)
        if (who->groups[i] == gid)
            return true;
    return who->gid == gid;
}

/* QUOTA_UNLIMITED is the greatest number, so the most generous is the greatest. */
static uint64_t limit_of(const struct quota *q, const struct identity *who, enum quota_what w,
                         const char **ret_source)
{
    const struct rule *best = NULL;

    for (size_t i = 0; i < q->n_rules; i++) {
        const struct rule *r = &q->rules[i];
        if (r->limit[w] == QUOTA_UNSET)
            continue;
        if (!r->group && r->id == who->uid) {
            *ret_source = r->source;
            return r->limit[w];
        }
        if (r->group && who->uid != 0 && is_in(who, r->id) &&
            (!best || r->limit[w] > best->limit[w]))
            best = r;
    }
    *ret_source = best ? best->source : "default";
    return best ? best->limit[w] : who->uid == 0 ? QUOTA_UNLIMITED : q->fallback[w];
}

/* --- accounts --- */

static struct account *find_locked(struct quota *q, uid_t uid)
{
    for (size_t i = 0; i < q->n; i++)
        if (q->accounts[i].uid == uid)
            return &q->accounts[i];
    return NULL;
}

static struct account *open_locked(struct quota *q, uid_t uid)
{
    struct account *a = find_locked(q, uid);

    if (a)
        return a;
    if (q->n == q->cap) {
        size_t cap = q->cap ? q->cap * 2 : 16;
        struct account *list = reallocarray(q->accounts, cap, sizeof(*list));
        if (!list)
            return NULL;
        q->accounts = list;
        q->cap = cap;
    }
    a = &q->accounts[q->n++];
    *a = (struct account){ .uid = uid };
    return a;
}

/* One that has nothing any more goes, so that their number is that of users at work. */
static void close_locked(struct quota *q, struct account *a)
{
    for (int w = 0; w < QUOTA_MAX; w++)
        if (a->used.n[w])
            return;
    *a = q->accounts[--q->n];
}

static void amount_text(enum quota_what w, uint64_t v, char *buf)
{
    if (words[w].bytes)
        format_size(v, buf);
    else
        snprintf(buf, 32, "%llu", (unsigned long long)v);
}

static int refuse(enum quota_what w, uint64_t limit, uint64_t used, uint64_t asked,
                  const char *source, struct err *e)
{
    char l[32], u[32], a[32];

    amount_text(w, limit, l);
    amount_text(w, used, u);
    amount_text(w, asked, a);
    err_set(e, ERR_QUOTA, "quota of %s: the limit is %s, %s used, %s more asked for", words[w].key,
            l, u, a);
    e->quota = (struct err_quota){ .name = words[w].key, .limit = limit, .used = used,
                                   .requested = asked };
    return err_hint(e, "%s; or ask the administrator to raise quota.%s.%s", hints[w], source,
                    words[w].key);
}

static void add_locked(struct quota *q, struct account *a, const struct quota_use *use,
                       struct quota_charge *c)
{
    c->quota = q;
    c->uid = a->uid;
    for (int w = 0; w < QUOTA_MAX; w++) {
        a->used.n[w] += use->n[w];
        c->use.n[w] += use->n[w];
    }
}

/* The first quota that has no room for it, or QUOTA_MAX. */
static enum quota_what full(const struct quota_use *used, const struct quota_use *use,
                            const uint64_t limit[QUOTA_MAX])
{
    for (int w = 0; w < QUOTA_MAX; w++) {
        uint64_t sum;
        bool over = __builtin_add_overflow(used->n[w], use->n[w], &sum);
        if (use->n[w] && (over || sum > limit[w]))
            return (enum quota_what)w;
    }
    return QUOTA_MAX;
}

int quota_take(struct quota *q, const struct identity *who, const struct quota_use *use,
               struct quota_charge *c, struct err *e)
{
    uint64_t limit[QUOTA_MAX];
    const char *source[QUOTA_MAX];

    if (!q)
        return 0;
    for (int w = 0; w < QUOTA_MAX; w++)
        limit[w] = limit_of(q, who, (enum quota_what)w, &source[w]);
    pthread_mutex_lock(&q->lock);
    struct account *a = open_locked(q, who->uid);
    enum quota_what w = a ? full(&a->used, use, limit) : QUOTA_MAX;
    uint64_t used = w == QUOTA_MAX ? 0 : a->used.n[w];
    if (a && w == QUOTA_MAX)
        add_locked(q, a, use, c);
    if (a)
        close_locked(q, a);
    pthread_mutex_unlock(&q->lock);
    if (!a)
        return err_nomem(e);
    return w == QUOTA_MAX ? 0 : refuse(w, limit[w], used, use->n[w], source[w], e);
}

int quota_count(struct quota *q, uid_t uid, const struct quota_use *use, struct quota_charge *c,
                struct err *e)
{
    if (!q)
        return 0;
    pthread_mutex_lock(&q->lock);
    struct account *a = open_locked(q, uid);
    if (a) {
        add_locked(q, a, use, c);
        close_locked(q, a);
    }
    pthread_mutex_unlock(&q->lock);
    return a ? 0 : err_nomem(e);
}

bool quota_fair(struct quota *q, const struct identity *who, enum quota_what w, uint64_t total)
{
    uint64_t all = 0, mine = 0;

    if (!q)
        return true;
    pthread_mutex_lock(&q->lock);
    for (size_t i = 0; i < q->n; i++) {
        all += q->accounts[i].used.n[w];
        if (q->accounts[i].uid == who->uid)
            mine = q->accounts[i].used.n[w];
    }
    pthread_mutex_unlock(&q->lock);
    if (all > total)
        return false;
    return who->uid == 0 || total - all >= total / 4 || mine <= total - all;
}

void quota_join(struct quota_charge *c, struct quota_charge *from)
{
    if (!from->quota)
        return;
    c->quota = from->quota;
    c->uid = from->uid;
    for (int w = 0; w < QUOTA_MAX; w++)
        c->use.n[w] += from->use.n[w];
    *from = (struct quota_charge){ 0 };
}

void quota_drop(struct quota_charge *c, unsigned parts)
{
    if (!c->quota)
        return;
    pthread_mutex_lock(&c->quota->lock);
    struct account *a = find_locked(c->quota, c->uid);
    for (unsigned w = 0; a && w < QUOTA_MAX; w++) {
        if (parts & 1u << w) {
            a->used.n[w] -= c->use.n[w];
            c->use.n[w] = 0;
        }
    }
    if (a)
        close_locked(c->quota, a);
    pthread_mutex_unlock(&c->quota->lock);
}

void quota_look(struct quota *q, const struct identity *who, struct quota_state ret[QUOTA_MAX])
{
    pthread_mutex_lock(&q->lock);
    const struct account *a = find_locked(q, who->uid);
    for (int w = 0; w < QUOTA_MAX; w++)
        ret[w].used = a ? a->used.n[w] : 0;
    pthread_mutex_unlock(&q->lock);
    for (int w = 0; w < QUOTA_MAX; w++)
        ret[w].limit = limit_of(q, who, (enum quota_what)w, &ret[w].source);
}
